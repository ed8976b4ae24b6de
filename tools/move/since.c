/* SPDX-License-Identifier: MIT */
/*
 * The overlay shows the last backup. Where the bitmap has a mark it gets what the disk has, zeros
 * included, for these hide what the backup has there.
 *
 * A sequential zone goes on at the write pointer of the backup, if it has only been appended to
 * since. It has been reset if anything in front of that pointer is marked: a reset marks the zone
 * from its start. Then it is reset in the overlay, too, and written anew.
 */
#include "since.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <zqcow2/bitmap.h>

#include "states.h"

#define RANGES 512u /* that are asked for at a time */

/* Zones that are reset give up what others need; full ones need an active zone for a while. */
enum pass { RESET, FULL_ACTIVE, FULL, PARTIAL, PASSES };

struct copying {
    const struct zt_since *c;
    struct zt_disk *from;
    struct zt_output *to;
    uint64_t granularity; /* 0: there is no such bitmap */
    bool lost;
    uint8_t *buf; /* ZT_CHUNK bytes */
    struct zqcow2_dirty_range *ranges;
    uint32_t nr;
    uint64_t first, last; /* of the device: they are all that is marked there */
    struct zt_states states;
    struct zt_progress bar;
};

static int fail(struct copying *k, const char *path, const char *what, uint64_t off, int rc)
{
    zt_progress_end(&k->bar);
    zt_error("%s: %s at %" PRIu64 ": %s", path, what, off, zqcow2_strerror(rc));
    return rc;
}

/* 0, or what a call for the overlay has returned. */
static int put(struct copying *k, const char *what, uint64_t off, int rc)
{
    return rc < 0 ? fail(k, k->to->target.path, what, off, rc) : 0;
}

/* ---- what is marked ---- */

static int load_ranges(struct copying *k, uint64_t from)
{
    struct zqcow2_error err = {0, ""};
    int rc;

    k->nr = RANGES;
    rc = zqcow2_bitmap_ranges(k->from->img, k->c->bitmap, from, k->ranges, &k->nr, &err);
    if (rc < 0) {
        zt_progress_end(&k->bar);
        zt_error("%s: bitmap \"%s\": %s", k->from->target.path, k->c->bitmap, zt_reason(rc, &err));
        return rc;
    }
    k->first = from;
    k->last = k->from->info.virtual_size;
    if (k->nr == RANGES)
        k->last = k->ranges[RANGES - 1].offset + k->ranges[RANGES - 1].length;
    return 0;
}

/* The first of [from, end). No length: there is none. */
static int next_range(struct copying *k, uint64_t from, uint64_t end, struct zqcow2_dirty_range *r)
{
    *r = (struct zqcow2_dirty_range){0, 0};
    while (from < end) {
        int rc = from < k->first || from >= k->last ? load_ranges(k, from) : 0;

        if (rc < 0)
            return rc;
        for (uint32_t i = 0; i < k->nr; i++) {
            uint64_t begin = k->ranges[i].offset, behind = begin + k->ranges[i].length;

            begin = begin > from ? begin : from;
            behind = behind < end ? behind : end;
            if (begin < behind) {
                *r = (struct zqcow2_dirty_range){begin, behind - begin};
                return 0;
            }
        }
        from = k->last;
    }
    return 0;
}

/* ---- bytes ---- */

static int stopped(struct copying *k, uint64_t at)
{
    const char *sig = zt_signal();

    zt_progress_at(&k->bar, at);
    if (!sig)
        return 0;
    zt_progress_end(&k->bar);
    zt_error("%s: stopped by %s", k->to->target.path, sig);
    return -EINTR;
}

/* What comes next of [at, end), as one piece; *zeros: nobody needs to read it. */
static int next_piece(struct copying *k, uint64_t at, uint64_t end, uint64_t *len, bool *zeros)
{
    struct zqcow2_extent e;
    int rc = stopped(k, at);

    if (rc < 0)
        return rc;
    rc = zt_disk_status(k->from, at, end - at, &e);
    if (rc < 0)
        return fail(k, k->from->target.path, "map", at, rc);
    *zeros = zt_extent_zero(&e);
    *len = *zeros || e.length < ZT_CHUNK ? e.length : ZT_CHUNK;
    if (*zeros)
        return 0;
    rc = zt_disk_read(k->from, k->buf, (size_t)*len, at);
    return rc < 0 ? fail(k, k->from->target.path, "read", at, rc) : 0;
}

/*
 * Zeros hide what the last backup has. Where that has none, nothing is written: a bitmap may be
 * marked everywhere, on a disk of any size.
 */
static int hide(struct copying *k, uint64_t at, uint64_t end)
{
    struct zqcow2_extent e = ZQCOW2_EXTENT_INIT;
    int rc = 0;

    for (; rc == 0 && at < end; at += e.length) {
        rc = stopped(k, at);
        if (rc < 0)
            return rc;
        rc = put(k, "map", at, zqcow2_block_status(k->to->img, at, end - at, &e));
        if (rc == 0 && !zt_extent_zero(&e))
            rc = put(k, "write zeros", at, zt_output_zeroes(k->to, e.length, at));
    }
    return rc;
}

/* In any order: of a disk without zones, or of a conventional zone. */
static int copy_range(struct copying *k, uint64_t at, uint64_t end)
{
    int rc = 0;

    for (uint64_t len; rc == 0 && at < end; at += len) {
        bool zeros;

        rc = next_piece(k, at, end, &len, &zeros);
        if (rc < 0)
            return rc;
        rc = zeros ? hide(k, at, at + len) :
                     put(k, "write", at, zt_output_write(k->to, k->buf, (size_t)len, at, false));
    }
    return rc;
}

static int copy_marked(struct copying *k, uint64_t from, uint64_t end)
{
    struct zqcow2_dirty_range r;
    int rc;

    for (;; from = r.offset + r.length) {
        rc = next_range(k, from, end, &r);
        if (rc < 0 || !r.length)
            return rc;
        rc = copy_range(k, r.offset, r.offset + r.length);
        if (rc < 0)
            return rc;
    }
}

/* At the write pointer. Zeros at the end of a zone that becomes full need not be written. */
static int append(struct copying *k, uint64_t at, uint64_t end, bool full)
{
    uint64_t pointer = at;
    int rc = 0;

    for (uint64_t len; rc == 0 && at < end; at += len) {
        bool zeros;

        rc = next_piece(k, at, end, &len, &zeros);
        if (rc < 0)
            return rc;
        if (zeros)
            continue;
        if (at > pointer)
            rc = put(k, "write zeros", pointer, zt_output_zeroes(k->to, at - pointer, pointer));
        if (rc == 0)
            rc = put(k, "write", at, zt_output_write(k->to, k->buf, (size_t)len, at, false));
        pointer = at + len;
    }
    if (rc == 0 && pointer < end && !full)
        rc = put(k, "write zeros", pointer, zt_output_zeroes(k->to, end - pointer, pointer));
    return rc;
}

/* ---- zones ---- */

/* The end of what the zone has. */
static uint64_t behind_data(const struct zqcow2_zone *z)
{
    return z->state == ZQCOW2_ZONE_FULL ? z->start + z->capacity : z->write_pointer;
}

static bool is_active(const struct zqcow2_zone *z)
{
    return z->state != ZQCOW2_ZONE_FULL && z->state != ZQCOW2_ZONE_EMPTY;
}

/*
 * One mark may stand for the start of the zone and for what was appended: then it is taken anew. A
 * zone that has only a descriptor extension has no marks: it may be another extension by now.
 */
static int was_reset(struct copying *k, const struct zqcow2_zone *z,
                     const struct zqcow2_zone *there, bool *reset)
{
    uint64_t have = behind_data(there), end = have / k->granularity * k->granularity;
    struct zqcow2_dirty_range r;
    int rc;

    *reset = have == z->start && there->attributes & ZQCOW2_ZONE_DESCRIBED;
    if (have == z->start)
        return 0;
    rc = next_range(k, z->start, end > z->start ? end : z->start + 1, &r);
    *reset = r.length || behind_data(z) < have;
    return rc;
}

static int write_zone(struct copying *k, const struct zqcow2_zone *z,
                      const struct zqcow2_zone *there)
{
    bool full = z->state == ZQCOW2_ZONE_FULL;
    int rc = 0;

    if (there->state == ZQCOW2_ZONE_EMPTY && z->attributes & ZQCOW2_ZONE_DESCRIBED)
        rc = put(k, "descriptor", z->start, zt_states_describe(&k->states, z->start));
    if (rc == 0)
        rc = append(k, behind_data(there), behind_data(z), full);
    if (rc == 0 && z->state == ZQCOW2_ZONE_CLOSED && there->state == ZQCOW2_ZONE_EMPTY &&
        z->write_pointer == z->start && !(z->attributes & ZQCOW2_ZONE_DESCRIBED))
        rc = put(
            k, "close", z->start,
            zqcow2_zone_set_state(k->to->img, z->start, ZQCOW2_ZONE_CLOSED | ZQCOW2_ZONE_PERSIST));
    if (rc == 0 && full && there->state != ZQCOW2_ZONE_FULL)
        rc = put(k, "finish", z->start, zqcow2_zone_finish(k->to->img, z->start, z->length, 0));
    return rc;
}

static int do_zone(struct copying *k, enum pass pass, const struct zqcow2_zone *z,
                   const struct zqcow2_zone *there)
{
    bool full = z->state == ZQCOW2_ZONE_FULL, reset;
    int rc;

    if (z->type != ZQCOW2_ZONE_SEQWRITE_REQ)
        return pass == RESET ? copy_marked(k, z->start, z->start + z->length) : 0;
    if (pass == RESET) {
        rc = was_reset(k, z, there, &reset);
        if (rc == 0 && (reset || (z->state == ZQCOW2_ZONE_EMPTY && is_active(there))))
            rc = put(k, "reset", z->start, zqcow2_zone_reset(k->to->img, z->start, z->length, 0));
        return rc;
    }
    if (pass != (!full ? PARTIAL : is_active(there) ? FULL_ACTIVE : FULL))
        return 0;
    return write_zone(k, z, there);
}

/* What the last backup has of such states ends; those of the disk follow at the end. */
static int release(struct copying *k, const struct zqcow2_zone *there)
{
    if (there->state != ZQCOW2_ZONE_RDONLY && there->state != ZQCOW2_ZONE_OFFLINE)
        return 0;
    return put(
        k, "state", there->start,
        zqcow2_zone_set_state(k->to->img, there->start, ZQCOW2_ZONE_NOT_WP | ZQCOW2_ZONE_PERSIST));
}

static int one_zone(struct copying *k, enum pass pass, uint64_t at, uint64_t *next)
{
    struct zqcow2_zone z, there;
    uint32_t nr = 1;
    int rc = zt_disk_report(k->from, at, &z, &nr);

    if (rc < 0)
        return fail(k, k->from->target.path, "report", at, rc);
    *next = z.start + z.length;
    rc = put(k, "report", at, zt_output_report(k->to, at, &there, &nr));
    if (rc == 0 && pass == RESET)
        rc = release(k, &there);
    if (rc == 0)
        rc = put(k, "report", at, zt_output_report(k->to, at, &there, &nr));
    return rc < 0 ? rc : do_zone(k, pass, &z, &there);
}

static int copy_zones(struct copying *k)
{
    int rc = zt_states_release(&k->states);

    if (rc < 0)
        return fail(k, k->from->target.path, "zones", 0, rc);
    for (enum pass pass = RESET; rc == 0 && pass < PASSES; pass++) {
        for (uint64_t at = 0; rc == 0 && at < k->from->info.virtual_size;)
            rc = one_zone(k, pass, at, &at);
    }
    return rc < 0 ? rc : put(k, "states of zones", 0, zt_states_restore(&k->states));
}

/* ---- the whole ---- */

static void find(void *arg, const struct zqcow2_bitmap *b)
{
    struct copying *k = arg;

    if (strcmp(b->name, k->c->bitmap) != 0)
        return;
    k->granularity = b->granularity;
    k->lost = b->flags & ZQCOW2_BITMAP_INCONSISTENT;
}

static bool has_bitmap(struct copying *k)
{
    struct zqcow2_error err = {0, ""};
    int rc = zqcow2_bitmap_list(k->from->img, find, k, &err);

    if (rc < 0)
        zt_error("%s: bitmaps: %s", k->from->target.path, zt_reason(rc, &err));
    else if (!k->granularity)
        zt_error("%s: no bitmap is named \"%s\"", k->from->target.path, k->c->bitmap);
    else if (k->lost)
        zt_error("%s: bitmap \"%s\" is inconsistent: make a full backup", k->from->target.path,
                 k->c->bitmap);
    else
        return true;
    return false;
}

/* With zones it begins with those of the last backup. */
static struct zqcow2_create_options overlay(const struct copying *k)
{
    struct zqcow2_create_options o = ZQCOW2_CREATE_OPTIONS_INIT;

    o.virtual_size = zt_disk_zoned(k->from) ? 0 : k->from->info.virtual_size;
    o.cluster_size = k->from->info.cluster_size;
    o.backing_name = k->c->backing;
    o.backing_format = k->c->backing_format;
    return o;
}

static bool same_zones(const struct copying *k)
{
    const struct zqcow2_info *a = &k->from->info, *b = &k->to->info;

    if (a->zone_size == b->zone_size && a->zone_capacity == b->zone_capacity &&
        a->nr_conventional == b->nr_conventional)
        return true;
    zt_error("%s: has other zones than %s", k->c->backing, k->from->target.path);
    return false;
}

/* It gets the zones that the disk has gained; it cannot have fewer than the last backup. */
static bool same_size(struct copying *k)
{
    uint64_t size = k->from->info.virtual_size;
    struct zqcow2_error err = {0, ""};
    int rc = 0;

    if (k->to->info.virtual_size > size) {
        zt_error("%s: has more zones than %s: make a full backup", k->c->backing,
                 k->from->target.path);
        return false;
    }
    if (k->to->info.virtual_size < size)
        rc = zqcow2_resize(k->to->img, size, 0, &err);
    if (rc < 0)
        zt_error("%s: %s", k->to->target.path, zt_reason(rc, &err));
    return rc == 0 && zt_info(&k->to->target, k->to->img, &k->to->info);
}

static bool copy(struct copying *k)
{
    int rc;

    if (!same_zones(k) || !same_size(k))
        return false;
    k->buf = zt_buffer(ZT_CHUNK);
    k->ranges = calloc(RANGES, sizeof(*k->ranges));
    zt_progress_start(&k->bar, "export", k->from->info.virtual_size, k->c->progress);
    if (!k->buf || !k->ranges)
        rc = fail(k, k->to->target.path, "memory", 0, -ENOMEM);
    else if (zt_disk_zoned(k->from))
        rc = copy_zones(k);
    else
        rc = copy_marked(k, 0, k->from->info.virtual_size);
    if (rc == 0)
        zt_progress_done(&k->bar);
    zt_progress_end(&k->bar);
    zt_states_free(&k->states);
    free(k->buf);
    free(k->ranges);
    return rc == 0;
}

bool zt_since(const struct zt_since *since, struct zt_disk *from, struct zt_output *to, bool force)
{
    struct copying k = {.c = since, .from = from, .to = to, .states = {.from = from, .to = to}};
    struct zqcow2_create_options o;

    if (!from->img) {
        zt_error("%s: --since: a raw file has no bitmaps", from->target.path);
        return false;
    }
    if (!has_bitmap(&k))
        return false;
    o = overlay(&k);
    return zt_output_open(to, &o, from->info.virtual_size, force) && zt_output_close(to, copy(&k));
}
