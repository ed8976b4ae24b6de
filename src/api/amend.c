/* SPDX-License-Identifier: MIT */
/*
 * Changes the features of an image. Version 2 has no entry for zeros: those that there are become
 * other zeros while the image is still what it was, which a reader does not see. The rest is one
 * change of the closed file.
 */
#include <errno.h>
#include <zqcow2/change.h>

#include "base/report.h"
#include "image/image.h"

#define FLAGS \
    (ZQCOW2_AMEND_LAZY_REFCOUNTS | ZQCOW2_AMEND_NO_LAZY_REFCOUNTS | ZQCOW2_AMEND_NO_RAW_DATA)
#define PIECE (1u << 20) /* bytes of zeros that one write has */

struct amend {
    struct zqcow2_amend_options opt;
    struct zqcow2_hooks hooks;
    struct zqcow2_error *err;
    struct zqcow2_image *img; /* of what follows: while its zeros are changed */
    struct zqcow2_info info;
    uint8_t *zeros; /* owned */
};

/* ---- zeros without entries of their own ---- */

/* Where nothing is below, what is mapped nowhere reads as zeros, too. */
static int replace(struct amend *a, uint64_t at, uint64_t len)
{
    int rc = 0;

    if (!(a->info.flags & ZQCOW2_INFO_BACKING))
        return zqcow2_discard(a->img, len, at, 0);
    for (uint64_t done = 0, n; rc == 0 && done < len; done += n) {
        n = zq_min(len - done, PIECE);
        rc = zqcow2_write(a->img, a->zeros, (size_t)n, at + done, 0);
    }
    return rc;
}

/* Only what this image says itself; zeros of a source are no entries of it. */
static int replace_all(struct amend *a)
{
    int rc = 0;

    for (uint64_t at = 0, len; rc == 0 && at < a->info.virtual_size; at += len) {
        struct zqcow2_extent e = ZQCOW2_EXTENT_INIT;

        rc = zqcow2_block_status(a->img, at, a->info.virtual_size - at, &e);
        len = e.length;
        if (rc == 0 && e.kind == ZQCOW2_BLOCK_ZERO && !e.depth)
            rc = replace(a, at, len);
    }
    return rc;
}

static int replace_zeros(struct amend *a, struct zqcow2_backend *be)
{
    struct zqcow2_open_options opt = ZQCOW2_OPEN_OPTIONS_INIT;
    int rc, closed;

    opt.flags = ZQCOW2_OPEN_RDWR | ZQCOW2_OPEN_BORROW;
    opt.hooks = &a->hooks;
    opt.resolve = a->opt.resolve;
    opt.resolve_arg = a->opt.resolve_arg;
    rc = zq_image_open(be, &opt, &a->img, a->err);
    if (rc < 0)
        return rc;
    zq_image_info(a->img, &a->info);
    a->zeros = zq_zalloc(&a->hooks, PIECE);
    rc = a->zeros ? 0 : -ENOMEM;
    if (rc == 0 && a->info.version >= 3)
        rc = replace_all(a);
    zq_free(&a->hooks, a->zeros, PIECE);
    closed = zqcow2_close(a->img);
    return rc < 0 ? rc : closed;
}

/* ---- the call ---- */

/* What contradicts itself, or no image can have. The rest depends on the image. */
static int check_options(const struct amend *a)
{
    const struct zqcow2_amend_options *o = &a->opt;
    uint32_t bits = o->refcount_bits, both = FLAGS & ~(uint32_t)ZQCOW2_AMEND_NO_RAW_DATA;

    if ((o->flags & both) == both)
        return zq_fail(a->err, -EINVAL, "flags: lazy refcounts cannot be both on and off");
    if (o->version && o->version != 2 && o->version != 3)
        return zq_fail(a->err, -EINVAL, "version: must be 2 or 3");
    if (bits > 64 || bits & (bits - 1))
        return zq_fail(a->err, -EINVAL, "refcount_bits: must be 1, 2, 4, 8, 16, 32 or 64");
    if (o->layout && o->layout != ZQCOW2_LAYOUT_44)
        return zq_fail(a->err, -EINVAL, "layout: an image can only be given the newest one, 44");
    return 0;
}

static int take_options(struct amend *a, const struct zqcow2_amend_options *opt)
{
    int rc =
        zq_copy_sized(&a->opt, sizeof(a->opt), opt, offsetof(struct zqcow2_amend_options, resolve));

    if (rc == 0)
        rc = zq_check_unknown(a->err, a->opt.flags, FLAGS, 0);
    if (rc == 0)
        rc = zq_take_hooks(a->err, &a->hooks, a->opt.hooks);
    return rc < 0 ? rc : check_options(a);
}

int zqcow2_amend(struct zqcow2_backend *be, const struct zqcow2_amend_options *opt,
                 struct zqcow2_error *err)
{
    struct amend a = {.opt = ZQCOW2_AMEND_OPTIONS_INIT, .err = err, .info = ZQCOW2_INFO_INIT};
    int rc;

    zq_clear_error(err);
    rc = take_options(&a, opt);
    /* To replace zeros puts bitmaps in use, and takes space: not in an image that is refused. */
    if (rc == 0 && a.opt.version == 2)
        rc = zq_image_amend(be, &a.opt, &a.hooks, true, err);
    if (rc == 0 && a.opt.version == 2)
        rc = replace_zeros(&a, be);
    if (rc == 0)
        rc = zq_image_amend(be, &a.opt, &a.hooks, false, err);
    return rc < 0 ? zq_fail_rc(err, rc) : 0;
}
