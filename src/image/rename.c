/* SPDX-License-Identifier: MIT */
/*
 * Another backing file for an image that has been made. What the new one does not hold is in the
 * image by then, durably: from the write of the header's sector on it counts.
 */
#include "format/renaming.h"
#include "base/report.h"
#include "image/image.h"
#include "image/opening.h"

/* The name is durable before the sector that points at it, which one write changes as a whole. */
static int write_renaming(struct zqcow2_backend *be, const struct zq_renaming *to)
{
    size_t n = (size_t)zq_align_up(strlen((const char *)to->name), ZQ_SECTOR);
    int rc = to->name_at ? zq_be_write(be, to->name, n, to->name_at) : 0;

    if (rc == 0)
        rc = zq_be_flush(be);
    if (rc == 0)
        rc = zq_be_write(be, to->sector0, ZQ_SECTOR, 0);
    return rc < 0 ? rc : zq_be_flush(be);
}

int zq_image_rename(struct zqcow2_backend *be, const struct zqcow2_hooks *hooks,
                    struct zq_header *h, uint8_t sector0[ZQ_SECTOR],
                    const struct zqcow2_backing *to, struct zqcow2_error *err)
{
    size_t len = (size_t)1 << h->cluster_bits;
    uint8_t *buf = zq_alloc(hooks, 4096, len);
    struct zq_renaming r;
    int rc = buf ? zq_be_read(be, buf, len, 0) : -ENOMEM;

    if (rc == 0) {
        memcpy(buf, sector0, ZQ_SECTOR);
        rc = zq_header_rename(h, buf, to, &r, err);
    }
    if (rc == 0)
        rc = write_renaming(be, &r);
    if (rc == 0) {
        memcpy(sector0, r.sector0, ZQ_SECTOR);
        h->mark_offset = r.mark_offset;
    }
    zq_free(hooks, buf, len);
    return rc;
}

void zq_image_mask_all(struct zqcow2_image *img)
{
    zq_core_lock(&img->core);
    img->core.map.masked_below = img->core.size;
    zq_core_unlock(&img->core);
}

/* An image that was not closed cleanly keeps its mark, and is recovered by the next open. */
int zq_image_rename_closed(struct zqcow2_backend *be, const struct zqcow2_hooks *hooks,
                           const struct zqcow2_backing *to, struct zqcow2_error *err)
{
    struct opening o = {
        .be = be, .opt = ZQCOW2_OPEN_OPTIONS_INIT, .err = err, .hooks = *hooks, .rdwr = true};
    int rc = zq_be_enter(be, true, true, err);

    if (rc < 0)
        return rc;
    rc = zq_be_flush(be);
    if (rc == 0)
        rc = zq_opening_header(&o);
    if (rc == 0 && o.g.layout)
        rc = 1; /* whether it may stand on another image is a matter of both */
    if (rc == 0)
        rc = zq_image_rename(be, hooks, &o.h, o.sector0, to, err);
    (void)zq_be_leave(be);
    return rc;
}
