/* SPDX-License-Identifier: MIT */
/*
 * Opens the file that has the data of an image, if that is not the image's own (D1). It is named by
 * the image, and so opened by the caller's resolver only, as a backing file is (S2), and for
 * writing if the image is. Its bytes are not judged: a guest has written them.
 */
#include <errno.h>
#include <inttypes.h>
#include "base/report.h"
#include "image/new_data.h"

/* So no entry can lead beyond its end, and no write has to make it longer. */
static int check_length(const struct opening *o, struct zqcow2_backend *be)
{
    uint64_t bytes;
    int rc = zq_be_length(be, &bytes);

    if (rc == 0 && bytes < o->h.virtual_size)
        rc = zq_fail(o->err, ZQCOW2_ECORRUPT,
                     "has %" PRIu64 " bytes, fewer than the device (%" PRIu64 ")", bytes,
                     o->h.virtual_size);
    return rc;
}

/*
 * What its last writer left in the host's cache is made durable first, as that of the image is:
 * the pointers of the image may say that it is.
 */
static int open_it(const struct opening *o, struct zq_core *c, uint32_t depth,
                   struct zq_data_file *d)
{
    bool rdwr = o->layer || o->opt.flags & ZQCOW2_OPEN_RDWR; /* a layer gets holes */
    struct zqcow2_backend *be;
    int rc =
        zq_opening_named(o, o->backing.data_file, "raw",
                         depth | ZQCOW2_RESOLVE_DATA_FILE | (rdwr ? ZQCOW2_RESOLVE_WRITE : 0), &be);

    if (rc < 0)
        return rc;
    d->opened = true;
    zq_core_set_iox(c, &d->x, be);
    rc = zq_iox_init(&d->x);
    if (rc == 0 && rdwr)
        rc = zq_be_flush(be);
    return rc < 0 ? rc : check_length(o, be);
}

/* One that is absent takes no I/O: of no length, so that a read on the fast path is not whole. */
int zq_opening_data_file(struct opening *o, struct zq_core *c, uint32_t depth,
                         struct zq_data_file *d)
{
    int rc;

    d->raw = o->h.autoclear & ZQ_AUTOCLEAR_RAW_DATA;
    d->absent = o->opt.flags & ZQCOW2_OPEN_NO_BACKING;
    if (d->absent) {
        zq_core_set_iox(c, &d->x, o->be);
        zq_list_init(&d->x.submit);
        zq_list_init(&d->x.flight);
        zq_list_init(&d->x.flight_waiters);
        return 0;
    }
    rc = open_it(o, c, depth, d);
    return rc < 0 ? zq_opening_blame(o->err, "data file", o->backing.data_file, rc) : 0;
}

int zq_opening_look_at_data(const struct opening *o)
{
    struct zqcow2_backend *be;
    int rc = zq_opening_named(o, o->backing.data_file, "raw", ZQCOW2_RESOLVE_DATA_FILE, &be);

    if (rc == 0) {
        rc = check_length(o, be);
        (void)zq_be_leave(be);
        zqcow2_backend_close(be);
    }
    return rc < 0 ? zq_opening_blame(o->err, "data file", o->backing.data_file, rc) : 0;
}

/* ---- another image ---- */

static int look_for_image(struct zqcow2_backend *be, struct zqcow2_error *err)
{
    uint8_t magic[4];
    uint64_t bytes;
    int rc = zq_be_length(be, &bytes);

    if (rc == 0 && bytes >= sizeof(magic))
        rc = zq_be_read(be, magic, sizeof(magic), 0);
    if (rc < 0 || bytes < sizeof(magic) || zq_be32(magic) != ZQ_MAGIC)
        return rc;
    return zq_fail(err, -EEXIST, "is a qcow2 image, which would be overwritten");
}

/*
 * Nobody sees again what a file that is not raw has, so an image there would be lost. Closes the
 * backend of one that is refused.
 */
static int refuse_image(struct zqcow2_backend *be, uint32_t flags, struct zqcow2_error *err)
{
    bool wanted = flags & (ZQCOW2_CREATE_FORCE | ZQCOW2_CREATE_DATA_FILE_RAW);
    int rc = wanted ? 0 : look_for_image(be, err);

    if (rc < 0) {
        (void)zq_be_leave(be);
        zqcow2_backend_close(be);
    }
    return rc;
}

/* ---- a new image ---- */

/*
 * What is there may be anybody's: it goes only if the caller has said so. Clusters that are mapped
 * in advance would show it, which only a raw file is for; and falloc and full write over it.
 */
static int make_room(struct zq_new_data *d, const struct zqcow2_create_options *opt,
                     struct zqcow2_error *err)
{
    bool shown = opt->preallocation && !(opt->flags & ZQCOW2_CREATE_DATA_FILE_RAW &&
                                         opt->preallocation == ZQCOW2_PREALLOCATE_METADATA);
    uint64_t bytes = 0;
    int rc = zq_be_length(d->be, &bytes);

    if (rc == 0 && bytes && opt->flags & ZQCOW2_CREATE_FORCE) {
        rc = zq_be_truncate(d->be, 0);
        bytes = 0;
    }
    if (rc == 0 && bytes && shown)
        return zq_fail(err, -EEXIST, "already holds %" PRIu64 " bytes; not with preallocation",
                       bytes);
    d->anew = !bytes;
    if (rc == 0 && bytes < opt->virtual_size)
        rc = zq_be_truncate(d->be, opt->virtual_size);
    return rc < 0 ? rc : zq_be_flush(d->be);
}

int zq_new_data_begin(struct zq_new_data *d, struct zqcow2_backend *be,
                      const struct zqcow2_create_options *opt, const struct zqcow2_hooks *hooks,
                      struct zqcow2_error *err)
{
    struct opening o = {.be = be, .opt = ZQCOW2_OPEN_OPTIONS_INIT, .err = err, .hooks = *hooks};
    int rc;

    o.opt.resolve = opt->resolve;
    o.opt.resolve_arg = opt->resolve_arg;
    rc = zq_opening_named(&o, opt->data_file, "raw",
                          ZQCOW2_RESOLVE_DATA_FILE | ZQCOW2_RESOLVE_WRITE | ZQCOW2_RESOLVE_CREATE,
                          &d->be);
    if (rc == 0)
        rc = refuse_image(d->be, opt->flags, err);
    if (rc < 0)
        d->be = NULL;
    else
        rc = make_room(d, opt, err);
    return rc < 0 ? zq_opening_blame(err, "data file", opt->data_file, rc) : 0;
}

void zq_new_data_end(struct zq_new_data *d)
{
    if (!d->be)
        return;
    (void)zq_be_leave(d->be);
    zqcow2_backend_close(d->be);
}
