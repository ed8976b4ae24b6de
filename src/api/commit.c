/* SPDX-License-Identifier: MIT */
/*
 * Moves what an image itself holds into its backing file.
 *
 * The backing file is written only where the image hides it, so the image reads as before whatever
 * of that is done. When all of it is durable and the backing file is closed, the image is emptied,
 * and from then on shows the same bytes from below. So it may stop anywhere, and be begun again.
 */
#include <errno.h>
#include "api/commit.h"
#include "base/report.h"
#include "device/backend.h"

/* ---- the backing file ---- */

/* It has become the first of its chain, but is named as what it was. */
static int resolve(void *arg, const char *name, const char *format, uint32_t depth,
                   struct zqcow2_backend **be, struct zqcow2_error *err)
{
    const struct commit *m = arg;

    return m->opt.resolve(m->opt.resolve_arg, name, format, depth + 1, be, err);
}

/* What lies behind the end of a shorter raw file are zeros to the image already (S3). */
static int fit_raw(struct commit *m)
{
    uint64_t bytes;
    int rc = zq_be_length(m->be, &bytes);

    if (rc == 0 && m->info.flags & ZQCOW2_INFO_ZONED)
        rc = zq_fail(m->err, ZQCOW2_EFEATURE, "it has no zones, but the image above it has");

    return rc < 0 || bytes >= m->info.virtual_size ? rc :
                                                     zq_be_truncate(m->be, m->info.virtual_size);
}

/* What it gains are zeros, whatever lies below it (G4): so they were to the image already (S3). */
static int fit_qcow2(struct commit *m)
{
    struct zqcow2_info i = ZQCOW2_INFO_INIT;
    int rc = 0;

    zq_image_info(m->below, &i);
    if ((i.flags ^ m->info.flags) & ZQCOW2_INFO_ZONED)
        return zq_fail(m->err, ZQCOW2_EFEATURE,
                       "it has zones or the image above it has them, but not both");
    if (i.virtual_size < m->info.virtual_size)
        rc = zqcow2_resize(m->below, m->info.virtual_size, 0, m->err);
    return rc == 0 && i.flags & ZQCOW2_INFO_ZONED ? zq_commit_plan_zones(m) : rc;
}

/* A raw file is no image: it is used as bytes, and locked as an image would be. */
static int open_raw(struct commit *m)
{
    int rc = zq_be_enter(m->be, true, true, m->err);

    if (rc < 0) {
        zqcow2_backend_close(m->be);
        m->be = NULL;
    }
    return rc < 0 ? rc : fit_raw(m);
}

/*
 * As an image of its own: what it stands on is below it, as it is for everybody else, and it is
 * recovered first if its last writer has died. On success the backend belongs to the image.
 */
static int open_qcow2(struct commit *m)
{
    struct zqcow2_open_options opt = ZQCOW2_OPEN_OPTIONS_INIT;
    int rc;

    opt.flags = ZQCOW2_OPEN_RDWR;
    opt.rules = ZQCOW2_RULES_ZNS; /* they allow each state that an image can have */
    opt.hooks = &m->hooks;
    opt.resolve = m->opt.resolve ? resolve : NULL;
    opt.resolve_arg = m;
    rc = zqcow2_open(m->be, &opt, &m->below, m->err);
    if (rc < 0)
        zqcow2_backend_close(m->be);
    m->be = NULL;
    return rc < 0 ? rc : fit_qcow2(m);
}

static int open_below(struct commit *m, const struct zqcow2_open_options *opt)
{
    int rc = zq_image_open_below(m->img, opt, &m->what, &m->be, m->err);

    if (rc < 0)
        return rc;
    rc = strcmp(m->what.format, "raw") ? open_qcow2(m) : open_raw(m);
    return rc < 0 ? zq_image_blame_below(m->err, &m->what, rc) : 0;
}

/*
 * All that was written is durable then. An image is closed cleanly, so that no recovery of it can
 * come between what it has now and the emptied layer above.
 */
static int close_below(struct commit *m, struct zqcow2_error *err)
{
    int rc = 0;

    if (m->below)
        rc = zqcow2_close(m->below);
    if (m->be) {
        rc = zq_be_flush(m->be);
        (void)zq_be_leave(m->be);
        zqcow2_backend_close(m->be);
    }
    m->below = NULL;
    m->be = NULL;
    return rc < 0 ? zq_image_blame_below(err, &m->what, rc) : 0;
}

/* ---- the call ---- */

/*
 * Snapshots stand on the backing file as it is (S15). What check finds must be repaired first: once
 * the backing file is written it would be too late to refuse.
 */
static int refuse(const struct commit *m)
{
    if (m->info.flags & ZQCOW2_INFO_SNAPSHOTS)
        return zq_fail(m->err, ZQCOW2_EFEATURE, "the image has internal snapshots");
    if (m->opt.backing_name && m->info.flags & ZQCOW2_INFO_ZONED)
        return zq_fail(m->err, ZQCOW2_EFEATURE,
                       "an image with zones can be committed into its own backing file only");
    return zq_image_check_layer(m->img, m->err);
}

/* The first error is the one whose text counts. */
static int move_all(struct commit *m, const struct zqcow2_open_options *opt)
{
    int rc = open_below(m, opt), closed;

    if (rc == 0 && m->plan)
        rc = zq_commit_zones(m);
    else if (rc == 0)
        rc = zq_commit_range(m, 0, m->info.virtual_size);
    closed = close_below(m, rc < 0 ? NULL : m->err);
    return rc < 0 ? rc : closed;
}

/* The layer stays locked until it is empty: what was written to it meanwhile would be lost. */
static int commit(struct commit *m, struct zqcow2_backend *be)
{
    struct zqcow2_open_options opt = ZQCOW2_OPEN_OPTIONS_INIT;
    struct zqcow2_error *err = m->err;
    int rc, closed;

    opt.flags = ZQCOW2_OPEN_RDWR | ZQCOW2_OPEN_BORROW;
    opt.hooks = &m->hooks;
    opt.resolve = m->opt.resolve;
    opt.resolve_arg = m->opt.resolve_arg;
    opt.backing_format = m->opt.backing_format;
    rc = zq_image_open_layer(be, &opt, &m->img, err);
    if (rc < 0)
        return rc;
    zq_image_info(m->img, &m->info);
    rc = refuse(m);
    if (rc == 0)
        rc = move_all(m, &opt);
    if (rc == 0 && !(m->opt.flags & ZQCOW2_COMMIT_KEEP))
        rc = zq_image_empty_layer(m->img, err);
    closed = zqcow2_close(m->img);
    return rc < 0 ? rc : closed;
}

/*
 * A file further down: those between still hide what the image does not, so it is not emptied. With
 * zones they would not even open any more: a write pointer below them may have moved back (S12).
 */
static int take_name(struct commit *m)
{
    struct zqcow2_backing *to = &m->what;
    const char *name = m->opt.backing_name, *format = m->opt.backing_format;

    if (!name)
        return 0;
    if (!format || !(m->opt.flags & ZQCOW2_COMMIT_KEEP) || !name[0] ||
        strlen(name) >= sizeof(to->name) || strlen(format) >= sizeof(to->format))
        return -EINVAL;
    strcpy(to->name, name);
    strcpy(to->format, format);
    return 0;
}

int zqcow2_commit(struct zqcow2_backend *be, const struct zqcow2_commit_options *opt,
                  struct zqcow2_error *err)
{
    struct commit m = {.opt = ZQCOW2_COMMIT_OPTIONS_INIT, .err = err, .info = ZQCOW2_INFO_INIT};
    int rc;

    zq_clear_error(err);
    rc = zq_copy_sized(&m.opt, sizeof(m.opt), opt, offsetof(struct zqcow2_commit_options, resolve));
    if (rc == 0)
        rc = zq_check_unknown(err, m.opt.flags, ZQCOW2_COMMIT_KEEP, m.opt.reserved);
    if (rc == 0)
        rc = take_name(&m);
    if (rc == 0)
        rc = zq_take_hooks(err, &m.hooks, m.opt.hooks);
    if (rc == 0) {
        m.buf = zq_alloc(&m.hooks, 4096, ZQ_COMMIT_PIECE);
        rc = m.buf ? commit(&m, be) : -ENOMEM;
        zq_free(&m.hooks, m.buf, ZQ_COMMIT_PIECE);
        zq_free(&m.hooks, m.plan, m.info.nr_zones);
    }
    return rc < 0 ? zq_fail_rc(err, rc) : 0;
}
