/* SPDX-License-Identifier: MIT */
/* The target of export: a device, whose zones must be those of the source, and hold nothing yet. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "output.h"

struct taking {
    struct zt_output *o;
    struct zt_disk *from;
    bool force, resume;
    uint32_t active;
    bool states; /* the source has zones in states that no device can be given */
};

static bool refuse(const struct taking *t, uint64_t start, const char *why)
{
    zt_error("%s: the zone at %" PRIu64 " %s", t->o->target.path, start, why);
    return false;
}

static bool fail(const struct taking *t, const char *what, int rc)
{
    zt_error("%s: %s: %s", t->o->target.path, what, zqcow2_strerror(rc));
    return false;
}

static bool same_geometry(const struct taking *t)
{
    const struct zqcow2_info *a = &t->o->info, *b = &t->from->info;
    const struct {
        const char *what;
        uint64_t a, b;
    } rows[] = {{"size", a->virtual_size, b->virtual_size},
                {"zone size", a->zone_size, b->zone_size},
                {"zone capacity", a->zone_capacity, b->zone_capacity},
                {"number of conventional zones", a->nr_conventional, b->nr_conventional}};

    for (size_t i = 0; i < ZT_COUNT(rows); i++) {
        if (rows[i].a == rows[i].b)
            continue;
        zt_error("%s: %s: %" PRIu64 ", but %" PRIu64 " in %s", t->o->target.path, rows[i].what,
                 rows[i].a, rows[i].b, t->from->target.path);
        return false;
    }
    return true;
}

/* ---- one zone of both ---- */

/* No device can be given a zone that is read-only, offline or described: it is normal there. */
static bool make_normal(struct taking *t, struct zqcow2_zone *z)
{
    bool forced = z->state == ZQCOW2_ZONE_RDONLY || z->state == ZQCOW2_ZONE_OFFLINE;
    uint32_t nr = 1;
    int rc;

    t->states |= forced || z->attributes & ZQCOW2_ZONE_DESCRIBED;
    if (!forced || !t->from->img)
        return true;
    rc = zqcow2_zone_set_state(t->from->img, z->start, ZQCOW2_ZONE_NOT_WP);
    if (rc == 0)
        rc = zqcow2_zone_report(t->from->img, z->start, z, &nr);
    return rc == 0 || fail(t, "zones", rc);
}

static bool goes_on(const struct taking *t, const struct zqcow2_zone *from,
                    const struct zqcow2_zone *to)
{
    if (from->state == ZQCOW2_ZONE_FULL ||
        (to->state != ZQCOW2_ZONE_FULL && to->write_pointer <= from->write_pointer))
        return true;
    return refuse(t, to->start, "has been written beyond that of the source: not a part of a copy");
}

/* `block` is the device's: it is written in these. */
static bool check_zone(struct taking *t, struct zqcow2_zone *from, const struct zqcow2_zone *to)
{
    uint64_t block = t->o->info.block_size;

    if (!make_normal(t, from))
        return false;
    if (to->state == ZQCOW2_ZONE_RDONLY || to->state == ZQCOW2_ZONE_OFFLINE)
        return refuse(t, to->start,
                      to->state == ZQCOW2_ZONE_RDONLY ? "is read-only" : "is offline");
    if (from->type == ZQCOW2_ZONE_CONVENTIONAL)
        return true;
    if (from->state != ZQCOW2_ZONE_FULL && from->write_pointer != UINT64_MAX) {
        t->active += from->write_pointer > from->start;
        if (from->write_pointer % block) {
            zt_error("%s: the write pointer %" PRIu64 " is inside a block of %s, which has %" PRIu64
                     " bytes",
                     t->from->target.path, from->write_pointer, t->o->target.path, block);
            return false;
        }
    }
    if (t->resume)
        return goes_on(t, from, to);
    return to->state == ZQCOW2_ZONE_EMPTY || t->force ||
           refuse(t, to->start, "is not empty; --force resets it");
}

/* Calls fn for each zone of both. */
static bool each_zone(struct taking *t, bool (*fn)(struct taking *t, struct zqcow2_zone *from,
                                                   const struct zqcow2_zone *to))
{
    uint64_t size = t->o->info.virtual_size;
    struct zqcow2_zone from, to;

    for (uint64_t at = 0; at < size; at = to.start + to.length) {
        uint32_t nr = 1, nr_to = 1;
        int rc = zt_disk_report(t->from, at, &from, &nr);

        if (rc == 0)
            rc = zt_output_report(t->o, at, &to, &nr_to);
        if (rc < 0)
            return fail(t, "report", rc);
        if (!fn(t, &from, &to))
            return false;
    }
    return true;
}

/* ---- all of it ---- */

/* Conventional zones have no pointer: they hold nothing if they are zeros. */
static bool is_clear(const struct taking *t)
{
    uint64_t end = t->o->info.nr_conventional * t->o->info.zone_size;
    uint8_t *buf = zt_buffer(ZT_ZEROS);
    bool ok = buf != NULL;

    end = end < t->o->info.virtual_size ? end : t->o->info.virtual_size;
    for (uint64_t at = 0; ok && at < end; at += ZT_ZEROS) {
        size_t len = end - at < ZT_ZEROS ? (size_t)(end - at) : ZT_ZEROS;
        int rc = zqcow2_backend_read(t->o->be, buf, len, at);

        if (rc < 0)
            ok = fail(t, "read", rc);
        else if (zt_nonzero(buf, len) < len)
            ok = refuse(t, at / t->o->info.zone_size * t->o->info.zone_size,
                        "is not empty; --force overwrites it");
    }
    free(buf);
    return ok;
}

static bool fits(struct taking *t)
{
    uint32_t most = t->o->info.max_active_zones;

    if (zt_device_odd(t->o->dev)) {
        zt_error("%s: %s", t->o->target.path, zt_device_odd(t->o->dev));
        return false;
    }
    if (!same_geometry(t) || !each_zone(t, check_zone))
        return false;
    if (most && t->active > most) {
        zt_error("%s: can have %" PRIu32 " active zones, and %s has %" PRIu32, t->o->target.path,
                 most, t->from->target.path, t->active);
        return false;
    }
    return t->force || t->resume || is_clear(t);
}

static bool reset(struct taking *t, struct zqcow2_zone *from, const struct zqcow2_zone *to)
{
    int rc;

    (void)from;
    if (to->type == ZQCOW2_ZONE_CONVENTIONAL || to->state == ZQCOW2_ZONE_EMPTY)
        return true;
    rc = zt_device_do(t->o->dev, ZT_DEVICE_RESET, to->start, to->length);
    return rc == 0 || fail(t, "reset", rc);
}

static bool take(struct taking *t)
{
    struct zt_output *o = t->o;
    int rc = zt_backend_open(&o->target, ZQCOW2_FILE_RDWR, &o->be);

    if (rc == 0)
        rc = zqcow2_backend_lock(o->be, ZQCOW2_LOCK_EXCLUSIVE);
    if (rc < 0) {
        zt_backend_error(&o->target, rc);
        return false;
    }
    zt_device_info(o->dev, &o->info);
    if (!fits(t))
        return false;
    if (t->states)
        zt_error("%s: no device can be made to have zones that are read-only or offline, or have "
                 "descriptor extensions: they are normal there",
                 t->from->target.path);
    o->changed = true;
    o->stale = t->force || t->resume;
    return !t->force || t->resume || each_zone(t, reset);
}

bool zt_output_device(struct zt_output *o, struct zt_disk *from, bool force, bool resume)
{
    struct taking t = {.o = o, .from = from, .force = force, .resume = resume};
    int rc;

    o->info = (struct zqcow2_info)ZQCOW2_INFO_INIT;
    rc = zt_device_open(o->target.path, true, false, &o->dev);
    if (rc == -EBUSY)
        zt_error("%s: in use: mounted, or part of another device", o->target.path);
    else if (rc < 0)
        zt_backend_error(&o->target, rc);
    if (rc < 0)
        return false;
    if (!zt_disk_zoned(from) != !o->dev) {
        zt_error("%s: has %szones, but %s has %s", o->target.path, o->dev ? "" : "no ",
                 from->target.path, o->dev ? "none" : "zones");
        zt_device_close(o->dev);
        return false;
    }
    if (!o->dev)
        return zt_output_open(o, NULL, from->info.virtual_size, force || resume);
    zt_hold_signals();
    if (take(&t))
        return true;
    (void)zt_output_close(o, false);
    return false;
}
