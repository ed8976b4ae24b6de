/* SPDX-License-Identifier: MIT */
/*
 * The blocking face of the library: each call fills a request, runs it and waits. The operation
 * lies on the caller's stack, so a blocking call takes no memory of its own, and every rule is kept
 * by the same code that serves queues.
 */
#include <errno.h>
#include "base/report.h"
#include "check/check.h"
#include "image/create.h"
#include "image/image.h"
#include "ops/request.h"
#include "ops/resize.h"
#include "ops/truncate.h"

#define REPAIRS \
    ((uint32_t)(ZQCOW2_CHECK_REPAIR_LEAKS | ZQCOW2_CHECK_REPAIR | ZQCOW2_CHECK_REPAIR_ALL))
#define CHECK_FLAGS (REPAIRS | (uint32_t)ZQCOW2_CHECK_NOLOCK)

unsigned zqcow2_version(void)
{
    return ZQCOW2_VERSION;
}

int zqcow2_create(struct zqcow2_backend *be, const struct zqcow2_create_options *opt,
                  struct zqcow2_error *err)
{
    return zq_create(be, opt, err);
}

int zqcow2_open(struct zqcow2_backend *be, const struct zqcow2_open_options *opt,
                struct zqcow2_image **img, struct zqcow2_error *err)
{
    return zq_image_open(be, opt, img, err);
}

int zqcow2_close(struct zqcow2_image *img)
{
    return zq_image_close(img);
}

/*
 * A program built with an older header has a shorter struct: only as many bytes as its size member
 * says are written, and what this library does not know is returned as 0.
 */
int zqcow2_get_info(struct zqcow2_image *img, struct zqcow2_info *info)
{
    struct zqcow2_info i = ZQCOW2_INFO_INIT;

    zq_image_info(img, &i);
    return zq_return_sized(info, &i, sizeof(i), offsetof(struct zqcow2_info, virtual_size));
}

int zqcow2_get_backing(struct zqcow2_image *img, struct zqcow2_backing *backing)
{
    return zq_image_backing(img, backing);
}

/*
 * Only the form is checked here, as zqcow2_queue_submit() does. What the operation may be refused
 * for is decided in ops/request.c, so that both interfaces return the same numbers. op is not
 * initialised: the fast path sets the few members that it needs, zq_op_reset() the rest.
 */
/*
 * What a queue does not accept has no result here either: *res is not touched. Everything else has
 * one, and it is what the call returns, so that a caller need not look at both.
 */
int zqcow2_run(struct zqcow2_image *img, const struct zqcow2_request *req,
               struct zqcow2_result *res)
{
    struct zq_op op;
    int rc = zq_request_check_form(req);

    if (rc < 0)
        return rc;
    op.req = *req;
    rc = zq_op_run_blocking(&img->core, &op);
    if (res)
        *res = op.res;
    return rc;
}

/*
 * iov lives on this stack, which is long enough: the call returns after the operation has finished.
 * *where is written on success only, so an append that failed leaves the caller's offset. Inline:
 * what a caller passes as a constant costs it nothing.
 */
static inline __attribute__((always_inline)) int run_buffer(struct zqcow2_image *img,
                                                            unsigned op_kind, void *buf, size_t len,
                                                            uint64_t off, unsigned flags,
                                                            uint64_t *where)
{
    struct iovec iov = {buf, len};
    struct zq_op op;
    int rc;

    if (flags > UINT16_MAX)
        return -EINVAL;
    op.req = (struct zqcow2_request){.size = sizeof(op.req),
                                     .op = (uint16_t)op_kind,
                                     .flags = (uint16_t)flags,
                                     .offset = off,
                                     .iov = &iov,
                                     .iovcnt = 1};
    rc = zq_op_run_blocking(&img->core, &op);
    if (where && rc == 0)
        *where = op.res.offset;
    return rc;
}

/*
 * Requests without a buffer. The flags of a request have 16 bits: a larger value must not be cut to
 * one that is valid.
 */
static int run_range(struct zqcow2_image *img, unsigned op_kind, uint64_t off, uint64_t len,
                     unsigned flags)
{
    struct zq_op op;

    if (flags > UINT16_MAX)
        return -EINVAL;
    op.req = (struct zqcow2_request){.size = sizeof(op.req),
                                     .op = (uint16_t)op_kind,
                                     .flags = (uint16_t)flags,
                                     .offset = off,
                                     .length = len};
    return zq_op_run_blocking(&img->core, &op);
}

int zqcow2_read(struct zqcow2_image *img, void *buf, size_t len, uint64_t off)
{
    return run_buffer(img, ZQCOW2_OP_READ, buf, len, off, 0, NULL);
}

/* An iovec has no const; the library and the backends only read the buffers of a write. */
int zqcow2_write(struct zqcow2_image *img, const void *buf, size_t len, uint64_t off,
                 unsigned flags)
{
    return run_buffer(img, ZQCOW2_OP_WRITE, (void *)(uintptr_t)buf, len, off, flags, NULL);
}

/* *off: in, the start of a zone; out, where the data went. */
int zqcow2_append(struct zqcow2_image *img, const void *buf, size_t len, uint64_t *off,
                  unsigned flags)
{
    return run_buffer(img, ZQCOW2_OP_APPEND, (void *)(uintptr_t)buf, len, *off, flags, off);
}

int zqcow2_write_zeroes(struct zqcow2_image *img, uint64_t len, uint64_t off, unsigned flags)
{
    return run_range(img, ZQCOW2_OP_WRITE_ZEROES, off, len, flags);
}

int zqcow2_discard(struct zqcow2_image *img, uint64_t len, uint64_t off, unsigned flags)
{
    return run_range(img, ZQCOW2_OP_DISCARD, off, len, flags);
}

int zqcow2_flush(struct zqcow2_image *img)
{
    return run_range(img, ZQCOW2_OP_FLUSH, 0, 0, 0);
}

int zqcow2_drain(struct zqcow2_image *img)
{
    return run_range(img, ZQCOW2_OP_DRAIN, 0, 0, 0);
}

/*
 * Zones that are not empty are the last reason to refuse a resize, so what is reset here is cut off
 * unless memory or space runs out, or the zones are written before the second try has the image for
 * itself.
 */
static int reset_and_resize(struct zqcow2_image *img, uint64_t size, uint32_t flags,
                            struct zqcow2_error *err)
{
    struct zq_core *c = &img->core;
    uint64_t now;
    int rc = zq_resize_run(c, size, flags, err);

    if (rc != ZQCOW2_EZONE_STATE)
        return rc;
    zq_clear_error(err);
    zq_core_lock(c);
    now = c->size;
    zq_core_unlock(c);
    rc = size < now ? zqcow2_zone_reset(img, size, now - size, 0) : 0;
    return rc < 0 ? rc : zq_resize_run(c, size, flags, err);
}

/*
 * No request: it has the image for itself, and so cannot come from a queue, whose thread would have
 * to wait for the requests of others. What the caller passes is judged when nothing else runs.
 */
int zqcow2_resize(struct zqcow2_image *img, uint64_t size, uint32_t flags, struct zqcow2_error *err)
{
    const uint32_t both = ZQCOW2_RESIZE_SHRINK | ZQCOW2_RESIZE_DISCARD;
    const uint32_t space = ZQCOW2_RESIZE_METADATA | ZQCOW2_RESIZE_FALLOC | ZQCOW2_RESIZE_FULL;
    int rc;

    zq_clear_error(err);
    rc = zq_check_unknown(err, flags, both | space, 0);
    if (rc == 0 && (flags & space & ((flags & space) - 1)))
        rc = zq_fail(err, -EINVAL, "more than one kind of preallocation");
    if (rc == 0 && (flags & both) == both)
        rc = reset_and_resize(img, size, flags, err);
    else if (rc == 0)
        rc = zq_resize_run(&img->core, size, flags, err);
    if (rc == 0)
        zq_truncate_run(&img->core);
    return rc < 0 ? zq_fail_rc(err, rc) : 0;
}

/* The iovec carries the caller's struct and its size, so that a queue can ask the same way. */
int zqcow2_block_status(struct zqcow2_image *img, uint64_t off, uint64_t len,
                        struct zqcow2_extent *status)
{
    const struct iovec iov = {status, status->size};
    struct zqcow2_request req = {.size = sizeof(req), .op = ZQCOW2_OP_BLOCK_STATUS};

    req.offset = off;
    req.length = len;
    req.iov = &iov;
    req.iovcnt = 1;
    return zqcow2_run(img, &req, NULL);
}

int zqcow2_zone_open(struct zqcow2_image *img, uint64_t off, uint64_t len, unsigned flags)
{
    return run_range(img, ZQCOW2_OP_ZONE_OPEN, off, len, flags);
}

int zqcow2_zone_close(struct zqcow2_image *img, uint64_t off, uint64_t len, unsigned flags)
{
    return run_range(img, ZQCOW2_OP_ZONE_CLOSE, off, len, flags);
}

int zqcow2_zone_finish(struct zqcow2_image *img, uint64_t off, uint64_t len, unsigned flags)
{
    return run_range(img, ZQCOW2_OP_ZONE_FINISH, off, len, flags);
}

int zqcow2_zone_reset(struct zqcow2_image *img, uint64_t off, uint64_t len, unsigned flags)
{
    return run_range(img, ZQCOW2_OP_ZONE_RESET, off, len, flags);
}

/* A request has no member for a state: it travels in length, and check_range() leaves it alone. */
int zqcow2_zone_set_state(struct zqcow2_image *img, uint64_t off, unsigned state)
{
    return run_range(img, ZQCOW2_OP_ZONE_SET_STATE, off, state, 0);
}

/*
 * The whole extension at once: its length is judged where the image's size of one is known. Durable
 * on return, so there are no flags.
 */
int zqcow2_zone_set_descriptor(struct zqcow2_image *img, uint64_t off, const void *data, size_t len)
{
    return run_buffer(img, ZQCOW2_OP_ZONE_SET_DESCRIPTOR, (void *)(uintptr_t)data, len, off, 0,
                      NULL);
}

/*
 * How many zones there are from the one that contains off, at most nr. Under the mutex: a resize in
 * another thread makes them fewer, and frees what describes the rest.
 */
static uint32_t zones_from(const struct zq_core *c, uint64_t off, uint32_t nr)
{
    if (c->activity != ZQ_ACTIVE || off >= c->size)
        return 0;
    return (uint32_t)zq_min(nr, c->zones.g.nr_zones - zq_zone_of(&c->zones, off));
}

/* The bytes of the extensions that the next call reads; all that is asked for if there are none. */
static size_t descriptor_bytes(struct zqcow2_image *img, uint64_t off, uint32_t *nr)
{
    struct zq_core *c = &img->core;
    uint32_t n;
    size_t one;

    zq_core_lock(c);
    n = c->zoned ? zones_from(c, off, *nr) : 0;
    one = c->activity == ZQ_ACTIVE ? c->zones.g.descriptor_size : img->info.descriptor_extension;
    zq_core_unlock(c);
    *nr = n ? n : *nr;
    return *nr * one;
}

/*
 * Unlike a report this reads the file, so it is an operation: extensions are not kept in memory. As
 * many zones as there are, like a report: if they have become fewer before it began, it asks again.
 */
int zqcow2_zone_get_descriptors(struct zqcow2_image *img, uint64_t off, void *buf, uint32_t *nr)
{
    uint32_t n = *nr, last;
    size_t bytes;
    int rc;

    do {
        last = n;
        bytes = descriptor_bytes(img, off, &n);
        rc = run_buffer(img, ZQCOW2_OP_ZONE_GET_DESCRIPTORS, buf, bytes, off, 0, NULL);
    } while (rc == -EINVAL && n < last);
    if (rc == 0)
        *nr = n;
    return rc;
}

/*
 * Not an operation: states and pointers are in memory, and reading them waits for nothing. All of
 * it is read in one hold of the mutex, so the zones of a report show one moment. The pointers are
 * the committed ones: what is reserved, but not written yet, is not there for the caller.
 */
int zqcow2_zone_report(struct zqcow2_image *img, uint64_t off, struct zqcow2_zone *zones,
                       uint32_t *nr)
{
    struct zq_core *c = &img->core;
    uint32_t n;
    int rc;

    zq_core_lock(c);
    n = c->zoned ? zones_from(c, off, *nr) : 0;
    for (uint32_t i = 0; i < n; i++)
        zq_zone_fill_report(&c->zones, zq_zone_of(&c->zones, off) + i, &zones[i]);
    rc = !c->zoned                ? ZQCOW2_ENOTZONED :
         c->activity != ZQ_ACTIVE ? ZQCOW2_EINACTIVE :
         off < c->size            ? 0 :
                                    -EINVAL;
    zq_core_unlock(c);
    if (rc == 0)
        *nr = n;
    return rc;
}

/*
 * Works on a backend, not on an image: check must not rely on what an open has loaded or believed.
 * Unless NOLOCK is set, the lock is held throughout: shared, or exclusive for a repair. A result is
 * returned only if all of it was counted; on an error *res stays as it was.
 */
int zqcow2_check(struct zqcow2_backend *be, const struct zqcow2_check_options *opt,
                 struct zqcow2_check_result *res, struct zqcow2_error *err)
{
    struct zqcow2_check_options o = ZQCOW2_CHECK_OPTIONS_INIT;
    struct zqcow2_check_result r = ZQCOW2_CHECK_RESULT_INIT;
    struct zqcow2_hooks hooks;
    bool repair;
    int rc = 0;

    zq_clear_error(err);
    if (opt)
        rc = zq_copy_sized(&o, sizeof(o), opt, offsetof(struct zqcow2_check_options, hooks));
    if (rc == 0)
        rc = zq_check_unknown(err, o.flags, CHECK_FLAGS, o.reserved);
    if (rc == 0)
        rc = zq_take_hooks(err, &hooks, o.hooks);
    if (rc < 0)
        return zq_fail_rc(err, rc);
    repair = o.flags & REPAIRS;
    rc = zq_be_enter(be, repair, !(o.flags & ZQCOW2_CHECK_NOLOCK), err);
    if (rc == 0) {
        rc = zq_image_check(be, &hooks, &o, &r, err);
        /* Its error changes nothing: the counts are right, and what was repaired is durable. */
        (void)zq_be_leave(be);
    }
    if (rc == 0 && res)
        rc = zq_return_sized(res, &r, sizeof(r), sizeof(size_t));
    return rc < 0 ? zq_fail_rc(err, rc) : 0;
}
