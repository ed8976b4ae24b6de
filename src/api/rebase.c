/* SPDX-License-Identifier: MIT */
/*
 * Gives an image another backing file, or none.
 *
 * All that the new one lacks is written into the image while the old one is still named, which
 * changes nothing that a reader sees. When it is durable, one sector of the header names the new
 * one. So it may stop anywhere, and be begun again. The new chain is read through an empty image in
 * memory that stands on it: it has its size, formats, zones and ends like any other (S2, S3).
 */
#include <errno.h>
#include <inttypes.h>
#include "api/rebase.h"
#include "base/report.h"
#include "device/backend.h"
#include "format/renaming.h"

/* ---- what the new chain has ---- */

static int open_chain(struct rebase *r)
{
    struct zqcow2_create_options how = ZQCOW2_CREATE_OPTIONS_INIT;
    struct zqcow2_open_options opt = ZQCOW2_OPEN_OPTIONS_INIT;
    struct zqcow2_backend *be;
    int rc = zqcow2_mem_open(0, &r->hooks, &be);

    if (rc < 0)
        return rc;
    how.virtual_size = r->info.virtual_size;
    how.backing_name = r->to.name;
    how.backing_format = r->to.format;
    how.hooks = opt.hooks = &r->hooks;
    how.resolve = opt.resolve = r->opt.resolve;
    how.resolve_arg = opt.resolve_arg = r->opt.resolve_arg;
    rc = zqcow2_create(be, &how, r->err);
    if (rc == 0)
        rc = zq_image_open_flat(be, &opt, &r->below, r->err);
    if (rc < 0)
        zqcow2_backend_close(be);
    return rc;
}

/* It has taken over the zones of what it stands on. */
static int open_below(struct rebase *r)
{
    struct zqcow2_info i = ZQCOW2_INFO_INIT;
    int rc = open_chain(r);

    if (rc < 0)
        return rc;
    zq_image_info(r->below, &i);
    if (zq_same_zones(&i, &r->info))
        return 0;
    return zq_fail(r->err, ZQCOW2_EFEATURE,
                   "the zones of the new backing file are not those of the image");
}

/* How much of the next len bytes reads as zeros from the new chain, without a look. */
static int known_zeros(const struct rebase *r, uint64_t at, uint64_t len, uint64_t *n)
{
    struct zqcow2_extent e = ZQCOW2_EXTENT_INIT;
    int rc = 0;

    *n = len;
    if (!r->below)
        return 0;
    rc = zqcow2_block_status(r->below, at, len, &e);
    *n = e.kind == ZQCOW2_BLOCK_ZERO || e.kind == ZQCOW2_BLOCK_UNALLOCATED ? e.length : 0;
    return rc;
}

/* ---- copying ---- */

/* Written cluster by cluster, so that what is alike stays where it is. */
static int copy_differing(struct rebase *r, uint64_t at, size_t len)
{
    int rc = 0;

    for (size_t done = 0, n; rc == 0 && done < len; done += n) {
        uint64_t off = at + done;

        n = (size_t)zq_min(len - done,
                           zq_align_down(off, r->info.cluster_size) + r->info.cluster_size - off);
        if (!memcmp(r->now + done, r->then + done, n))
            continue;
        rc = zq_is_zeros(r->now + done, n) ? zqcow2_write_zeroes(r->img, n, off, 0) :
                                             zqcow2_write(r->img, r->now + done, n, off, 0);
    }
    return rc;
}

/*
 * Zeros on both sides need no read, however many they are: holes of large images are passed over.
 * Up to *len bytes that are not the image's own; *len: how many of them have been seen to.
 */
static int copy_run(struct rebase *r, uint64_t at, const struct zqcow2_extent *e, uint64_t *len)
{
    uint64_t zeros;
    int rc = known_zeros(r, at, *len, &zeros);

    if (rc < 0)
        return rc;
    if (zeros && (e->kind == ZQCOW2_BLOCK_ZERO || e->kind == ZQCOW2_BLOCK_UNALLOCATED)) {
        *len = zeros;
        return 0;
    }
    *len = zq_min(*len, ZQ_REBASE_PIECE);
    rc = zqcow2_read(r->img, r->now, (size_t)*len, at);
    if (rc == 0 && r->below)
        rc = zqcow2_read(r->below, r->then, (size_t)*len, at);
    return rc < 0 ? rc : copy_differing(r, at, (size_t)*len);
}

static int copy_range(struct rebase *r, uint64_t at, uint64_t end)
{
    int rc = zq_rebase_report(r, at);

    while (rc == 0 && at < end) {
        struct zqcow2_extent e = ZQCOW2_EXTENT_INIT;
        uint64_t len;

        rc = zqcow2_block_status(r->img, at, end - at, &e);
        len = e.length;
        if (rc == 0 && !zq_is_own(&e))
            rc = copy_run(r, at, &e, &len);
        at += len;
        if (rc == 0)
            rc = zq_rebase_report(r, at);
    }
    return rc;
}

/*
 * What is made zeros must have an entry that says so also where the old chain has nothing to hide:
 * the new one may have (S4).
 */
static int copy(struct rebase *r)
{
    uint64_t end = r->info.virtual_size;
    int rc;

    if (r->info.flags & ZQCOW2_INFO_ZONED)
        end = zq_min(end, r->info.nr_conventional * r->info.zone_size);
    if (r->below)
        zq_image_mask_all(r->img);
    rc = copy_range(r, 0, end);
    if (rc == 0 && r->info.flags & ZQCOW2_INFO_ZONED)
        rc = zq_rebase_zones(r);
    return rc < 0 ? rc : zqcow2_drain(r->img);
}

/* ---- the call ---- */

/* The image stays open, so that its lock stays. Nobody knows what a failed write has left (K9). */
static int rename_open(struct rebase *r)
{
    struct zq_core *c = &r->img->core;
    int rc = zq_image_rename(c->be, &r->hooks, &c->hdr, c->sector0, &r->to, r->err);

    zq_core_lock(c);
    if (rc < 0 && rc != ZQCOW2_EFEATURE && rc != -ENOMEM)
        zq_core_die(c, rc);
    zq_core_unlock(c);
    return rc;
}

/* Zones are not in force, for what they inherit is to be mapped below their pointers. */
static int open_image(struct rebase *r, struct zqcow2_backend *be)
{
    struct zqcow2_open_options opt = ZQCOW2_OPEN_OPTIONS_INIT;

    opt.flags = ZQCOW2_OPEN_RDWR | ZQCOW2_OPEN_BORROW;
    opt.hooks = &r->hooks;
    opt.resolve = r->opt.resolve;
    opt.resolve_arg = r->opt.resolve_arg;
    return r->opt.flags & ZQCOW2_REBASE_NAME_ONLY ? zq_image_open_layer(be, &opt, &r->img, r->err) :
                                                    zq_image_open_flat(be, &opt, &r->img, r->err);
}

/* A snapshot sees what is below it as well, and that is not compared. */
static int refuse(const struct rebase *r)
{
    if (r->info.flags & ZQCOW2_INFO_SNAPSHOTS)
        return zq_fail(r->err, ZQCOW2_EFEATURE, "the image has internal snapshots");
    return zq_header_may_rename(&r->img->core.hdr, &r->to, r->err);
}

static int change(struct rebase *r)
{
    size_t room = ZQ_REBASE_PIECE + r->info.cluster_size;
    int rc = refuse(r);

    r->now = zq_zalloc(&r->hooks, room);
    r->then = zq_zalloc(&r->hooks, room);
    if (rc == 0 && (!r->now || !r->then))
        rc = -ENOMEM;
    if (rc == 0 && r->to.name[0])
        rc = open_below(r);
    if (rc == 0)
        rc = r->opt.flags & ZQCOW2_REBASE_NAME_ONLY ? zq_rebase_check_zones(r) : copy(r);
    if (rc == 0)
        rc = rename_open(r);
    zq_free(&r->hooks, r->now, room);
    zq_free(&r->hooks, r->then, room);
    return rc;
}

/* By its name only: a layer, whose old backing file need not be there. */
static int rebase_open(struct rebase *r, struct zqcow2_backend *be)
{
    int rc = open_image(r, be), closed;

    if (rc < 0)
        return rc;
    zq_image_info(r->img, &r->info);
    rc = change(r);
    closed = zqcow2_close(r->img);
    if (r->below)
        (void)zqcow2_close(r->below);
    return rc < 0 ? rc : closed;
}

static int take_name(struct rebase *r)
{
    const char *name = r->opt.backing_name, *format = r->opt.backing_format;

    if (!name)
        return format ? zq_fail(r->err, -EINVAL, "backing_format: there is no backing_name") : 0;
    if (!name[0] || strlen(name) > ZQ_MAX_BACKING_NAME)
        return zq_fail(r->err, -EINVAL, "backing_name: must have 1 to %u bytes",
                       ZQ_MAX_BACKING_NAME);
    if (zq_check_format(r->err, format) < 0)
        return -EINVAL;
    strcpy(r->to.name, name);
    strcpy(r->to.format, format);
    return 0;
}

static int take_options(struct rebase *r, const struct zqcow2_rebase_options *opt)
{
    int rc = zq_copy_sized(&r->opt, sizeof(r->opt), opt,
                           offsetof(struct zqcow2_rebase_options, backing_name));

    if (rc == 0)
        rc = zq_check_unknown(r->err, r->opt.flags, ZQCOW2_REBASE_NAME_ONLY, r->opt.reserved);
    if (rc == 0)
        rc = zq_take_hooks(r->err, &r->hooks, r->opt.hooks);
    return rc < 0 ? rc : take_name(r);
}

int zqcow2_rebase(struct zqcow2_backend *be, const struct zqcow2_rebase_options *opt,
                  struct zqcow2_error *err)
{
    struct rebase r = {.opt = ZQCOW2_REBASE_OPTIONS_INIT,
                       .err = err,
                       .to = ZQCOW2_BACKING_INIT,
                       .info = ZQCOW2_INFO_INIT};
    int rc;

    zq_clear_error(err);
    rc = take_options(&r, opt);
    if (rc == 0)
        rc = r.opt.flags & ZQCOW2_REBASE_NAME_ONLY ?
                 zq_image_rename_closed(be, &r.hooks, &r.to, err) :
                 1;
    if (rc == 1)
        rc = rebase_open(&r, be);
    return rc < 0 ? zq_fail_rc(err, rc) : 0;
}
