/* SPDX-License-Identifier: MIT */
/*
 * An image as a layer: what it maps itself, apart from what it stands on. That can be moved into
 * the file below, and then the layer is emptied.
 *
 * Emptying is one write of zeros over L1, in whatever order its sectors get to the disk: each entry
 * shows what the layer has, or what is below, and those are the same by then. The rest is what a
 * crash would leave behind: clusters that are counted and not used, which check gives back. So
 * there is no state that the next open for writing does not know how to end.
 */
#include <errno.h>
#include <inttypes.h>
#include "base/report.h"
#include "check/check.h"
#include "format/entry.h"
#include "image/image.h"
#include "image/opening.h"

/* ---- what is below ---- */

int zq_image_blame_below(struct zqcow2_error *err, const struct zqcow2_backing *what, int rc)
{
    return zq_opening_blame(err, "backing file", what->name, rc);
}

/* Not as a source is opened: it becomes an image of its own, so any backend will do for it. */
static int resolve_below(const struct opening *o, struct zqcow2_backing *what,
                         struct zqcow2_backend **be)
{
    const char *format;
    int rc = zq_opening_format(o, what, 1, &format);

    if (rc < 0)
        return rc;
    if (format != what->format)
        strcpy(what->format, format);
    return zq_opening_call(o, what->name, format, 1 | ZQCOW2_RESOLVE_WRITE, be);
}

int zq_image_open_below(struct zqcow2_image *layer, const struct zqcow2_open_options *opt,
                        struct zqcow2_backing *what, struct zqcow2_backend **be,
                        struct zqcow2_error *err)
{
    const struct opening o = {.opt = *opt, .err = err};
    int rc;

    if (!layer->core.backing || !layer->core.backing->name[0])
        return zq_fail(err, -EINVAL, "the image has no backing file");
    if (!what->name[0])
        *what = *layer->core.backing;
    rc = resolve_below(&o, what, be);
    return rc < 0 ? zq_image_blame_below(err, what, rc) : 0;
}

bool zq_image_may_store(struct zqcow2_image *img)
{
    struct zq_core *c = &img->core;
    uint8_t probe[ZQ_SECTOR];
    bool may;

    zq_core_lock(c);
    memcpy(probe, c->sector0, sizeof(probe));
    may = c->zones.states_at ||
          zq_states_put(probe, &c->hdr, (uint64_t)1 << c->cluster_bits, c->zones.g.nr_zones);
    zq_core_unlock(c);
    return may;
}

/* ---- the layer itself ---- */

struct zq_zone_view zq_image_zone(struct zqcow2_image *img, uint32_t zone)
{
    const struct zq_zones *zs = &img->core.zones;
    struct zq_zone_view v;

    zq_core_lock(&img->core);
    v = (struct zq_zone_view){zq_geometry_start(&zs->g, zone), zs->v[zone].wp,
                              zq_zone_end(zs, zone), zs->v[zone].stored};
    zq_core_unlock(&img->core);
    return v;
}

static int check(struct zq_core *c, unsigned flags, struct zqcow2_error *err)
{
    struct zqcow2_check_options opt = ZQCOW2_CHECK_OPTIONS_INIT;
    struct zqcow2_check_result res = ZQCOW2_CHECK_RESULT_INIT;
    int rc;

    opt.flags = flags;
    rc = zq_check(c->be, &c->hooks, &opt, NULL, &res, err);
    if (rc == 0 && res.corruptions > res.corruptions_fixed)
        rc = zq_fail(err, ZQCOW2_ECORRUPT, "check finds %" PRIu64 " corruptions",
                     res.corruptions - res.corruptions_fixed);
    return rc;
}

int zq_image_check_layer(struct zqcow2_image *layer, struct zqcow2_error *err)
{
    return check(&layer->core, 0, err);
}

/*
 * The next writer must look for what is lost when L1 is (R12). Where there is no mark it is the
 * dirty bit; version 2 has no bits, and a crash then costs space.
 */
static int set_guard(struct zq_core *c, unsigned *repair)
{
    uint64_t bits = zq_be64(c->sector0 + ZQ_HDR_INCOMPAT);
    int rc;

    *repair = ZQCOW2_CHECK_REPAIR_LEAKS;
    if (c->hdr.mark_offset) {
        c->sector0[c->hdr.mark_offset] = 1;
    } else if (c->hdr.version >= 3 && !c->zoned) {
        zq_put_be64(c->sector0 + ZQ_HDR_INCOMPAT, bits | ZQ_INCOMPAT_DIRTY);
        *repair |= ZQCOW2_CHECK_REPAIR;
    } else {
        return 0;
    }
    rc = zq_be_write(c->be, c->sector0, ZQ_SECTOR, 0);
    return rc < 0 ? rc : zq_be_flush(c->be);
}

/* Of the last cluster of L1 nothing else has a part. */
static int drop_l1(struct zq_core *c)
{
    uint64_t bytes = zq_align_up(zq_table_bytes(c->hdr.l1_entries), ZQ_SECTOR);
    int rc = bytes ? zq_be_zero(c->be, c->hdr.l1_offset, bytes) : 0;

    return rc < 0 ? rc : zq_be_flush(c->be);
}

/*
 * A check gives back what was counted; in a data file nothing is. Nothing can lead there any more,
 * and that is durable.
 */
static void punch_data_file(struct zq_core *c)
{
    if (c->data != &c->x)
        (void)zq_be_discard(c->data->be, 0, c->hdr.virtual_size);
}

int zq_image_empty_layer(struct zqcow2_image *layer, struct zqcow2_error *err)
{
    struct zq_core *c = &layer->core;
    unsigned repair;
    int rc;

    zq_assert(!c->writable && c->source_absent && !c->nr_ops);
    rc = set_guard(c, &repair);
    if (rc == 0)
        rc = drop_l1(c);
    if (rc == 0)
        punch_data_file(c);
    return rc < 0 ? rc : check(c, repair, err);
}
