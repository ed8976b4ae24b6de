/* SPDX-License-Identifier: MIT */
/*
 * Moves a range of a layer into the file below: only what the layer maps, which hides what is
 * written there. Reads and writes are whole requests of the two images, so both keep their rules.
 */
#include <errno.h>
#include "api/commit.h"
#include "base/report.h"
#include "device/backend.h"

/* An image keeps its own rules: what it stands on is hidden by an entry for zeros (S4). */
static int put_zeros(const struct commit *m, uint64_t at, uint64_t len)
{
    int rc = m->below ? zqcow2_write_zeroes(m->below, len, at, 0) : zq_be_zero(m->be, at, len);

    return rc < 0 ? zq_image_blame_below(m->err, &m->what, rc) : 0;
}

/* What has become zeros since it was written takes no space below. */
static int put(const struct commit *m, uint64_t at, size_t len)
{
    int rc;

    if (zq_is_zeros(m->buf, len))
        return put_zeros(m, at, len);
    rc =
        m->below ? zqcow2_write(m->below, m->buf, len, at, 0) : zq_be_write(m->be, m->buf, len, at);
    return rc < 0 ? zq_image_blame_below(m->err, &m->what, rc) : 0;
}

static int report(const struct commit *m)
{
    if (!m->opt.progress || !m->opt.progress(m->opt.progress_arg, m->done, m->info.virtual_size))
        return 0;
    return zq_fail(m->err, -ECANCELED, "stopped");
}

/*
 * One extent of the layer, or a part of it; *len: how much has been moved. What the layer does not
 * map is not asked for: the file below has it already.
 */
static int move(const struct commit *m, uint64_t at, const struct zqcow2_extent *e, uint64_t *len)
{
    int rc;

    *len = e->length;
    if (e->kind == ZQCOW2_BLOCK_UNALLOCATED)
        return 0;
    if (e->kind == ZQCOW2_BLOCK_ZERO)
        return put_zeros(m, at, *len);
    *len = zq_min(*len, ZQ_COMMIT_PIECE);
    rc = zqcow2_read(m->img, m->buf, (size_t)*len, at);
    return rc < 0 ? rc : put(m, at, (size_t)*len);
}

int zq_commit_range(struct commit *m, uint64_t at, uint64_t end)
{
    int rc = report(m);

    while (rc == 0 && at < end) {
        struct zqcow2_extent e = ZQCOW2_EXTENT_INIT;
        uint64_t len = 0;

        rc = zqcow2_block_status(m->img, at, end - at, &e);
        if (rc == 0)
            rc = move(m, at, &e, &len);
        at += len;
        m->done += len;
        if (rc == 0)
            rc = report(m);
    }
    return rc;
}
