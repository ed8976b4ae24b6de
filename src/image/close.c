/* SPDX-License-Identifier: MIT */
/*
 * What an image is before it is opened and after it is closed, and between: memory and locks, what
 * it says of itself, and whether it is active (H1).
 */
#include <errno.h>
#include <inttypes.h>
#include "base/os.h"
#include "base/report.h"
#include "image/image.h"
#include "image/opening.h"
#include "ops/request.h"
#include "ops/shutdown.h"
#include "round/round.h"
#include "space/unmap.h"

/* ---- memory ---- */

static int init_cond(struct zq_core *c)
{
    pthread_condattr_t attr;
    int rc;

    pthread_condattr_init(&attr);
    zq_condattr_setclock(&attr, ZQ_WAIT_CLOCK);
    rc = pthread_cond_init(&c->cond, &attr);
    pthread_condattr_destroy(&attr);
    return rc;
}

/* They exist before anything else of the core, so zq_image_free() may always destroy them. */
static int init_locks(struct zq_core *c)
{
    int rc = pthread_mutex_init(&c->mutex, NULL);

    if (rc)
        return -rc;
    rc = pthread_mutex_init(&c->turn, NULL);
    if (rc == 0) {
        rc = init_cond(c);
        if (rc)
            pthread_mutex_destroy(&c->turn);
    }
    if (rc)
        pthread_mutex_destroy(&c->mutex);
    return -rc;
}

/* The hooks lie in the memory that they free: a copy outlives it. */
void zq_image_free(struct zqcow2_image *img)
{
    struct zqcow2_hooks hooks = img->core.hooks;

    zq_core_fini(&img->core);
    pthread_cond_destroy(&img->core.cond);
    pthread_mutex_destroy(&img->core.turn);
    pthread_mutex_destroy(&img->core.mutex);
    zq_free(&hooks, img, sizeof(*img));
}

/* The options stay for a later activation. What format is meant, the caller's string need not. */
static void keep_options(const struct opening *o, struct zqcow2_image *img)
{
    img->opt = o->opt;
    img->opt.hooks = NULL;
    if (o->opt.backing_format)
        img->opt.backing_format = strcmp(o->opt.backing_format, "raw") == 0 ? "raw" : "qcow2";
}

int zq_image_new(const struct opening *o, struct zqcow2_image **out)
{
    struct zqcow2_image *img = zq_zalloc(&o->hooks, sizeof(*img));
    int rc = img ? init_locks(&img->core) : -ENOMEM;

    if (rc < 0) {
        zq_free(&o->hooks, img, sizeof(*img));
        return rc;
    }
    keep_options(o, img);
    img->core.hooks = o->hooks;
    img->core.be = o->be;
    img->core.borrowed = o->opt.flags & ZQCOW2_OPEN_BORROW;
    img->core.upper = &zq_request_upper;
    rc = zq_core_init(&img->core);
    if (rc < 0)
        zq_image_free(img);
    else
        *out = img;
    return rc;
}

/* ---- closing ---- */

/* run_shutdown() may sleep while another thread, in the backend's completion, runs the loop. */
static void shutdown_finish(struct zq_op *op)
{
    pthread_cond_broadcast(&op->core->cond);
}

/*
 * Runs like an operation, but is none of the caller's kinds: its step is passed here and not found
 * by kind. req.op only has to be a kind whose result names no zone.
 */
static int run_shutdown(struct zq_core *c)
{
    struct zq_op op = {.finish = shutdown_finish, .attended = true};

    zq_op_reset(c, &op, zq_step_shutdown, zq_release_mapping);
    op.req.op = ZQCOW2_OP_FLUSH;
    c->nr_ops++;
    zq_op_ready(&op);
    zq_loop_begin(c);
    zq_loop_run(c, &op);
    while (!op.finished)
        zq_loop_wait(c, &op, -1);
    return op.res.ret;
}

/*
 * Refused while anything of the caller's runs: operations, open queues, threads inside a call (E5).
 * The janitor is the library's own and is waited for. After that nothing can fail but the shutdown,
 * whose result is returned although the image is gone. A dead image drops the host's cache (R11)
 * before the lock is given back, so that the next user reads what is really on disk.
 */
int zq_image_close(struct zqcow2_image *img)
{
    struct zq_core *c = &img->core;
    struct zqcow2_backend *be = c->be;
    bool borrowed = c->borrowed;
    int rc = 0;

    zq_core_lock(c);
    if (c->nr_ops > c->janitor_running || !zq_list_empty(&c->doorbells) || c->runners ||
        c->sleepers || c->polling || c->passing) {
        zq_core_unlock(c);
        return -EBUSY;
    }
    if (c->writable)
        rc = run_shutdown(c);
    while (c->x.in_flight || c->janitor_running || zq_round_is_running(c))
        zq_loop_wait(c, NULL, -1);
    zq_core_unlock(c);
    if (rc < 0 && c->dead && be->ops.invalidate)
        be->ops.invalidate(be->self);
    if (rc < 0 && c->dead && c->data != &c->x && c->data->be->ops.invalidate)
        c->data->be->ops.invalidate(c->data->be->self);
    zq_image_free(img);
    (void)zq_be_leave(be);
    if (!borrowed)
        zqcow2_backend_close(be);
    return rc;
}

int zq_image_backing(struct zqcow2_image *img, struct zqcow2_backing *backing)
{
    struct zqcow2_backing names = ZQCOW2_BACKING_INIT;

    zq_core_lock(&img->core);
    if (img->core.backing)
        names = *img->core.backing;
    zq_core_unlock(&img->core);
    return zq_return_sized(backing, &names, sizeof(names),
                           offsetof(struct zqcow2_backing, data_file));
}

/*
 * incompatible_features come from sector0, which follows the bits that rounds set; hdr is as it was
 * read. Version 2 has no feature fields: bytes 72 on belong to something else.
 */
static void take_info(struct zq_core *c, struct zqcow2_info *i)
{
    const struct zq_geometry *g = &c->zones.g;

    zq_assert(zq_core_is_held(c));
    i->virtual_size = c->size;
    i->file_size = c->alloc.file_size;
    i->incompatible_features = zq_be64(c->sector0 + ZQ_HDR_INCOMPAT);
    if (c->hdr.version < 3)
        i->incompatible_features = 0;
    i->compatible_features = c->hdr.compat;
    i->autoclear_features = c->hdr.autoclear;
    i->block_size = c->block_mask + 1;
    i->cluster_size = 1u << c->cluster_bits;
    i->refcount_bits = 1u << c->hdr.refcount_order;
    i->version = c->hdr.version;
    i->compression_type = c->hdr.compression_type;
    i->flags = c->info_flags | (c->dead ? ZQCOW2_INFO_DEAD : 0) |
               (c->alloc.corrupt ? ZQCOW2_INFO_READ_ONLY : 0) |
               (c->zones.states_at  ? ZQCOW2_INFO_STATES :
                c->hdr.states_stale ? ZQCOW2_INFO_STATES_VOID :
                                      0);
    if (c->zoned) {
        i->zone_size = g->zone_size;
        i->zone_capacity = g->capacity;
        i->nr_zones = g->nr_zones;
        i->nr_conventional = g->conventional;
        i->max_open_zones = g->max_open;
        i->max_active_zones = g->max_active;
        i->open_zones = c->zones.nr_open;
        i->active_zones = c->zones.nr_active;
        i->max_append_bytes = zq_geometry_max_append(g) & ~c->block_mask;
        i->layout = g->layout;
        i->descriptor_extension = g->descriptor_size;
    }
}

void zq_image_info(struct zqcow2_image *img, struct zqcow2_info *i)
{
    struct zq_core *c = &img->core;

    zq_core_lock(c);
    if (c->activity == ZQ_ACTIVE)
        take_info(c, i);
    else
        *i = img->info;
    zq_core_unlock(c);
}

/* ---- active or not ---- */

/*
 * What an inactive image says of itself is what it was. Others may use the file: the mark is
 * theirs.
 */
void zq_image_rest(struct zqcow2_image *img)
{
    struct zq_core *c = &img->core;

    img->info = (struct zqcow2_info)ZQCOW2_INFO_INIT;
    take_info(c, &img->info);
    img->info.flags &= ~(uint32_t)ZQCOW2_INFO_DIRTY;
    img->info.flags |= ZQCOW2_INFO_INACTIVE;
    c->exclusive = true;
    c->upper = &zq_inactive_upper;
    c->writable = false;
    c->sealed = c->guarded = true;
}

void zq_image_wake(struct zqcow2_image *img)
{
    struct zq_core *c = &img->core;

    zq_assert(zq_core_is_held(c));
    c->activity = ZQ_ACTIVE;
    c->upper = &zq_request_upper;
    c->sealed = !c->writable;
    zq_core_guard(c);
}
