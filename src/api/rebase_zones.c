/* SPDX-License-Identifier: MIT */
/*
 * The sequential zones of an image that is put on another backing file.
 *
 * A zone inherits wholly or not at all: commit relies on it that a zone with something unmapped
 * below its pointer has the same bytes as the one below, up to the lower pointer (S15), and a read
 * on it that what is unmapped lies below the other pointer (S12). Where that would not hold on the
 * new chain, all that the zone inherits is mapped, and it has a life of its own from then on (S7).
 * That changes nothing that a reader sees, so it may stop anywhere.
 */
#include <errno.h>
#include <inttypes.h>
#include "api/rebase.h"
#include "base/report.h"

int zq_rebase_report(const struct rebase *r, uint64_t done)
{
    if (!r->opt.progress || !r->opt.progress(r->opt.progress_arg, done, r->info.virtual_size))
        return 0;
    return zq_fail(r->err, -ECANCELED, "stopped");
}

/* Of the new chain; without one no zone has anything there. */
static uint64_t pointer_below(const struct rebase *r, uint32_t zone, const struct zq_zone_view *z)
{
    return r->below ? zq_image_zone(r->below, zone).wp : z->start;
}

/* As far as the new chain has been written. */
static int compare(struct rebase *r, uint64_t at, uint64_t end, bool *same)
{
    int rc = 0;

    *same = true;
    while (rc == 0 && *same && at < end) {
        size_t len = (size_t)zq_min(end - at, ZQ_REBASE_PIECE);

        rc = zqcow2_read(r->img, r->now, len, at);
        if (rc == 0)
            rc = zqcow2_read(r->below, r->then, len, at);
        *same = rc == 0 && !memcmp(r->now, r->then, len);
        at += len;
    }
    return rc;
}

/* May the zone inherit from the new chain what it inherits up to `end` now, as pointers say? */
static bool may_inherit(const struct zq_zone_view *z, uint64_t end, uint64_t pointer)
{
    return end <= pointer && pointer <= z->wp;
}

/*
 * At most ZQ_REBASE_PIECE, and a cluster. What an image below holds ends anywhere in a cluster of
 * this one: the pointer's cluster is written by one piece.
 */
static uint64_t piece_end(const struct rebase *r, uint64_t at, uint64_t end, uint64_t wp)
{
    end = zq_min(end, at + ZQ_REBASE_PIECE);
    return end > zq_align_down(wp, r->info.cluster_size) ? wp : end;
}

/*
 * The pointer's cluster is written to its end, with zeros that nobody reads: to keep what the
 * source has there would ask it beyond its own pointer.
 */
static int map_piece(struct rebase *r, uint64_t at, size_t len, uint64_t wp)
{
    size_t whole = len;
    int rc = zqcow2_read(r->img, r->now, len, at);

    if (rc < 0)
        return rc;
    if (at + len == wp) {
        whole = (size_t)(zq_min(zq_align_up(wp, r->info.cluster_size), r->info.virtual_size) - at);
        memset(r->now + len, 0, whole - len);
    }
    return zq_is_zeros(r->now, whole) ? zqcow2_write_zeroes(r->img, whole, at, 0) :
                                        zqcow2_write(r->img, r->now, whole, at, 0);
}

static int map_inherited(struct rebase *r, const struct zq_zone_view *z)
{
    uint64_t at = z->start;
    int rc = 0;

    while (rc == 0 && at < z->wp) {
        struct zqcow2_extent e = ZQCOW2_EXTENT_INIT;
        uint64_t len;

        rc = zqcow2_block_status(r->img, at, z->wp - at, &e);
        len = e.length;
        if (rc == 0 && !zq_is_own(&e)) {
            len = piece_end(r, at, at + len, z->wp) - at;
            rc = map_piece(r, at, (size_t)len, z->wp);
        }
        at += len;
        if (rc == 0)
            rc = zq_rebase_report(r, at);
    }
    return rc;
}

static int rebase_zone(struct rebase *r, uint32_t zone)
{
    struct zq_zone_view z = zq_image_zone(r->img, zone);
    uint64_t end, pointer = pointer_below(r, zone, &z);
    bool same = false;
    int rc = zq_find_inherited(r->img, &z, &end);

    if (rc < 0 || end == z.start)
        return rc;
    if (may_inherit(&z, end, pointer))
        rc = compare(r, z.start, pointer, &same);
    return rc < 0 || same ? rc : map_inherited(r, &z);
}

int zq_rebase_zones(struct rebase *r)
{
    int rc = 0;

    for (uint32_t i = r->info.nr_conventional; rc == 0 && i < r->info.nr_zones; i++) {
        rc = zq_rebase_report(r, i * r->info.zone_size);
        if (rc == 0)
            rc = rebase_zone(r, i);
    }
    return rc;
}

int zq_rebase_check_zones(struct rebase *r)
{
    int rc = 0;

    for (uint32_t i = r->info.nr_conventional; rc == 0 && i < r->info.nr_zones; i++) {
        struct zq_zone_view z = zq_image_zone(r->img, i);
        uint64_t end, pointer = pointer_below(r, i, &z);

        rc = zq_find_inherited(r->img, &z, &end);
        if (rc == 0 && end != z.start && !may_inherit(&z, end, pointer))
            rc =
                zq_fail(r->err, ZQCOW2_EFEATURE,
                        "zone %" PRIu32 " has data in the old backing file only: its write pointer "
                        "is 0x%" PRIx64 ", in the new one 0x%" PRIx64,
                        i, z.wp, pointer);
    }
    return rc;
}
