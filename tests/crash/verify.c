/* SPDX-License-Identifier: MIT */
/* What every crash state must bear: opening, checking, being used, being crashed again (I1-I11). */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "crash.h"

#define REFUSE(c, ...) (snprintf((c)->why, sizeof((c)->why), __VA_ARGS__), 1)

int checker_init(struct checker *c, const struct crash_geometry *g, const uint8_t *snapshot)
{
    memset(c, 0, sizeof(*c));
    c->g = g;
    c->snapshot = snapshot;
    fill_shape(&c->shape, g);
    c->data = malloc(g->size);
    c->again = malloc(g->size);
    c->kept = malloc(g->size);
    return c->data && c->again && c->kept ? 0 : -ENOMEM;
}

void checker_fini(struct checker *c)
{
    free(c->data);
    free(c->again);
    free(c->kept);
}

static struct zqcow2_image *open_on(struct checker *c, struct disk *image, bool rw)
{
    struct zqcow2_open_options o;
    struct zqcow2_error err = {0, ""};
    struct zqcow2_backend *be;
    struct zqcow2_image *img;
    int rc = disk_backend(image, THE_IMAGE, &be);

    open_options(image, &o, rw);
    if (rc == 0) {
        rc = zqcow2_open(be, &o, &img, &err);
        if (rc == 0)
            return img;
        zqcow2_backend_close(be);
    }
    (void)REFUSE(c, "open %s: %s (%s)", rw ? "for writing" : "read-only", zqcow2_strerror(rc),
                 err.text);
    return NULL;
}

static int look(struct checker *c, struct zqcow2_image *img, uint8_t *data,
                struct zqcow2_zone *zones)
{
    uint32_t nr = MAX_ZONES;
    int rc = zqcow2_read(img, data, c->g->size, 0);

    if (rc == 0 && c->g->zone_size) {
        rc = zqcow2_zone_report(img, 0, zones, &nr);
        if (rc == 0 && nr != c->shape.zones)
            return REFUSE(c, "the report has %u zones", nr);
    }
    return rc < 0 ? REFUSE(c, "read or report: %s", zqcow2_strerror(rc)) : 0;
}

/* Recovery that was crashed itself changed nothing that a user can see (I10). */
static int unlike_kept(struct checker *c)
{
    if (!c->keep)
        return 0;
    for (uint32_t z = c->shape.conventional; z < c->shape.zones; z++) {
        if (c->zones[z].state != c->kept_zones[z].state ||
            c->zones[z].write_pointer != c->kept_zones[z].write_pointer)
            return REFUSE(c, "crashed recovery changed zone %u", z);
    }
    if (memcmp(c->data, c->kept, c->g->size))
        return REFUSE(c, "crashed recovery changed data");
    return 0;
}

int verify_shown(struct checker *c, struct disk *image, const struct power_model *o)
{
    struct zqcow2_image *img = open_on(c, image, false);
    int bad, rc;

    if (!img)
        return 1;
    bad = look(c, img, c->data, c->zones) ||
          power_judge(o, c->zones, c->data, c->seen, c->why, sizeof(c->why));
    rc = zqcow2_close(img);
    if (!bad && rc < 0)
        return REFUSE(c, "close of a read-only image: %s", zqcow2_strerror(rc));
    return bad || unlike_kept(c);
}

/* c->again is exactly c->data. */
static int data_differs(struct checker *c, const char *when)
{
    char text[128];

    if (!memcmp(c->again, c->data, c->g->size))
        return 0;
    for (uint64_t at = 0; at < c->g->size; at += SECTOR) {
        if (memcmp(c->again + at, c->data + at, SECTOR))
            return REFUSE(c, "%s: sector 0x%llx holds %s now", when, (unsigned long long)at,
                          describe(c->again + at, text, sizeof(text)));
    }
    return 0;
}

/* The image shows exactly what c->data and c->zones say. */
static int same(struct checker *c, struct zqcow2_image *img, const char *when)
{
    struct zqcow2_zone zones[MAX_ZONES];

    if (look(c, img, c->again, zones))
        return 1;
    for (uint32_t z = c->shape.conventional; z < c->shape.zones; z++) {
        if (zones[z].state != c->zones[z].state ||
            zones[z].write_pointer != c->zones[z].write_pointer)
            return REFUSE(c, "%s: zone %u is in state %u at 0x%llx, was in %u at 0x%llx", when, z,
                          zones[z].state, (unsigned long long)zones[z].write_pointer,
                          c->zones[z].state, (unsigned long long)c->zones[z].write_pointer);
    }
    return data_differs(c, when);
}

struct findings {
    char text[160];
};

static void found(void *arg, int kind, const char *text)
{
    struct findings *f = arg;

    if (!f->text[0] && kind != ZQCOW2_FOUND_WARNING)
        snprintf(f->text, sizeof(f->text), "%s", text);
}

static int check(struct checker *c, struct disk *image, unsigned file, bool clean, const char *when)
{
    struct zqcow2_check_options o = ZQCOW2_CHECK_OPTIONS_INIT;
    struct zqcow2_check_result res = ZQCOW2_CHECK_RESULT_INIT;
    struct zqcow2_error err = {0, ""};
    struct findings f = {""};
    struct zqcow2_backend *be;
    int rc = disk_backend(image, file, &be);

    if (rc < 0)
        return REFUSE(c, "no backend");
    o.flags = ZQCOW2_CHECK_NOLOCK;
    o.resolve = file != THE_IMAGE ? source_resolve_below : is_layered(c->g) ? source_resolve : NULL;
    o.resolve_arg = image;
    o.found = found;
    o.arg = &f;
    rc = zqcow2_check(be, &o, &res, &err);
    zqcow2_backend_close(be);
    if (rc < 0)
        return REFUSE(c, "check %s: %s (%s)", when, zqcow2_strerror(rc), err.text);
    if (res.corruptions || (clean && res.leaked_clusters))
        return REFUSE(c, "check %s: %llu corruptions, %llu leaks: %s", when,
                      (unsigned long long)res.corruptions, (unsigned long long)res.leaked_clusters,
                      f.text);
    return 0;
}

static uint32_t active_zones(const struct checker *c)
{
    uint32_t n = 0;

    for (uint32_t z = c->shape.conventional; z < c->shape.zones; z++)
        n += c->zones[z].state == ZQCOW2_ZONE_CLOSED;
    return n;
}

/* Does an operation on this zone need an active resource that is not there? */
static bool must_wait(const struct checker *c, uint32_t z)
{
    return c->zones[z].state == ZQCOW2_ZONE_EMPTY && c->shape.max_active &&
           active_zones(c) >= c->shape.max_active;
}

static int unexpected(struct checker *c, const char *what, uint32_t z, int rc)
{
    return REFUSE(c, "after recovery: %s of zone %u: %s", what, z, zqcow2_strerror(rc));
}

static int append_to(struct checker *c, struct zqcow2_image *img, uint32_t z)
{
    uint64_t start = zone_start(&c->shape, z), at = c->zones[z].write_pointer, off = start;
    uint64_t room = start + zone_room(&c->shape, z) - at;
    uint64_t len = room < c->g->block ? room : c->g->block;
    int want = must_wait(c, z) ? ZQCOW2_EZONE_ACTIVE : 0, rc;

    stamp(c->again, len, z, UINT32_MAX, at, UINT32_MAX);
    rc = zqcow2_append(img, c->again, len, &off, 0);
    if (rc != want || (rc == 0 && off != at))
        return unexpected(c, "append", z, rc ? rc : -EIO);
    if (rc < 0)
        return 0;
    memcpy(c->data + at, c->again, len);
    c->zones[z].write_pointer += len;
    c->zones[z].state = ZQCOW2_ZONE_CLOSED;
    if (len == room) {
        c->zones[z].state = ZQCOW2_ZONE_FULL;
        c->zones[z].write_pointer = start + zone_length(&c->shape, z);
    }
    return 0;
}

static int finish(struct checker *c, struct zqcow2_image *img, uint32_t z)
{
    int want = must_wait(c, z) ? ZQCOW2_EZONE_ACTIVE : 0;
    uint64_t start = zone_start(&c->shape, z), len = zone_length(&c->shape, z);
    int rc = zqcow2_zone_finish(img, start, len, 0);

    if (rc != want)
        return unexpected(c, "finish", z, rc);
    if (rc == 0) {
        c->zones[z].state = ZQCOW2_ZONE_FULL;
        c->zones[z].write_pointer = start + len;
    }
    return 0;
}

static int reset(struct checker *c, struct zqcow2_image *img, uint32_t z)
{
    uint64_t start = zone_start(&c->shape, z), len = zone_length(&c->shape, z);
    int rc = zqcow2_zone_reset(img, start, len, 0);

    if (rc < 0)
        return unexpected(c, "reset", z, rc);
    memset(c->data + start, 0, len);
    c->zones[z].state = ZQCOW2_ZONE_EMPTY;
    c->zones[z].write_pointer = start;
    return 0;
}

static int overwrite(struct checker *c, struct zqcow2_image *img, uint64_t salt)
{
    uint64_t at = salt % (zone_length(&c->shape, 0) / SECTOR) * SECTOR;
    int rc;

    if (!c->shape.conventional)
        return 0;
    stamp(c->data + at, SECTOR, 0, UINT32_MAX, at, UINT32_MAX);
    rc = zqcow2_write(img, c->data + at, SECTOR, at, 0);
    return rc < 0 ? unexpected(c, "write", 0, rc) : 0;
}

/* I11: within its limits every zone can be written, finished and reset. */
static int use(struct checker *c, struct zqcow2_image *img, uint64_t salt)
{
    uint32_t n = c->shape.zones - c->shape.conventional, first = c->shape.conventional;
    int bad = overwrite(c, img, salt);

    for (uint32_t z = first; !bad && z < c->shape.zones; z++) {
        if (c->zones[z].state != ZQCOW2_ZONE_FULL && (n < 12 || z < first + 2 || z % 32 == 0))
            bad = append_to(c, img, z);
    }
    if (!bad && n)
        bad = finish(c, img, first + (uint32_t)(salt % n));
    if (!bad && n)
        bad = reset(c, img, first + (uint32_t)((salt / n + 1) % n));
    return bad;
}

static int use_and_close(struct checker *c, struct disk *image, uint64_t salt)
{
    struct zqcow2_image *img = open_on(c, image, true);
    int bad, rc;

    if (!img)
        return 1;
    bad = same(c, img, "after recovery") || use(c, img, salt);
    rc = zqcow2_close(img);
    return bad || rc == 0 ? bad : REFUSE(c, "close after recovery: %s", zqcow2_strerror(rc));
}

/* Nothing that the user of the disk does changes what a snapshot reads. */
static int snapshot_differs(struct checker *c, struct disk *image, const char *when)
{
    char text[128];

    if (!c->snapshot)
        return 0;
    if (snapshot_read(image->file[THE_IMAGE], c->again, c->g->size) < 0)
        return REFUSE(c, "%s the snapshot cannot be read", when);
    for (uint64_t at = 0; at < c->g->size; at += SECTOR) {
        if (memcmp(c->again + at, c->snapshot + at, SECTOR))
            return REFUSE(c, "%s the snapshot's sector 0x%llx holds %s", when,
                          (unsigned long long)at, describe(c->again + at, text, sizeof(text)));
    }
    return 0;
}

static int reopened(struct checker *c, struct disk *image)
{
    struct zqcow2_image *img = open_on(c, image, false);
    int bad;

    if (!img)
        return 1;
    bad = same(c, img, "after reopening");
    zqcow2_close(img);
    return bad;
}

/* Any program can read a raw data file: what is in it is what the device holds. */
static int raw_differs(struct checker *c, struct disk *image)
{
    unsigned file = c->g->source ? DATA_BELOW : DATA_FILE;

    if (!c->g->data_raw)
        return 0;
    if (zqcow2_simdisk_export(image->file[file], c->again, c->g->size, 0) < 0)
        return REFUSE(c, "the data file cannot be read");
    return data_differs(c, "in the raw data file");
}

/* The backing file by itself, in the memory of the top's. */
static int below_differs(struct checker *c, struct disk *image)
{
    struct zqcow2_open_options o;
    struct zqcow2_backend *be;
    struct zqcow2_image *img;
    int bad, rc;

    if (!strcmp(c->g->source, "raw")) {
        if (zqcow2_simdisk_export(image->file[BELOW], c->again, c->g->size, 0) < 0)
            return REFUSE(c, "the backing file cannot be read");
        return data_differs(c, "in the backing file");
    }
    rc = disk_backend(image, BELOW, &be);
    if (rc < 0)
        return REFUSE(c, "no backend");
    open_options(image, &o, false);
    o.resolve = source_resolve_below;
    rc = zqcow2_open(be, &o, &img, NULL);
    if (rc < 0) {
        zqcow2_backend_close(be);
        return REFUSE(c, "the backing file does not open: %s", zqcow2_strerror(rc));
    }
    bad = same(c, img, "in the backing file");
    zqcow2_close(img);
    return bad;
}

/* Whatever was interrupted: the image reads as before, and its backing file as it does. */
static int commit(struct checker *c, struct disk *image)
{
    struct zqcow2_error err = {0, ""};
    int rc = c->g->commit ? commit_disk(image, &err) : 0;

    if (rc == ZQCOW2_EZONE_ACTIVE || !c->g->commit)
        return 0;
    if (rc < 0)
        return REFUSE(c, "commit: %s (%s)", zqcow2_strerror(rc), err.text);
    return check(c, image, THE_IMAGE, true, "after a commit") ||
           (strcmp(c->g->source, "raw") && check(c, image, BELOW, true, "of the backing file")) ||
           reopened(c, image) || below_differs(c, image) || (c->g->source && raw_differs(c, image));
}

int verify_state(struct checker *c, struct disk *image, const struct power_model *o, uint64_t salt)
{
    int bad = verify_shown(c, image, o) || snapshot_differs(c, image, "after the loss");

    if (!bad && !c->g->lazy)
        bad = check(c, image, THE_IMAGE, false, "after the loss");
    if (!bad && salt & 1)
        bad = commit(c, image);
    bad = bad || use_and_close(c, image, salt) ||
          check(c, image, THE_IMAGE, true, "after a clean close") || reopened(c, image) ||
          snapshot_differs(c, image, "after recovery and use") ||
          (!c->g->source && raw_differs(c, image)) || commit(c, image);
    if (!bad && disk_misuse(image))
        return REFUSE(c, "%llu calls broke the backend's contract",
                      (unsigned long long)disk_misuse(image));
    return bad;
}

static int repair(struct checker *c, struct disk *image)
{
    struct zqcow2_check_options o = ZQCOW2_CHECK_OPTIONS_INIT;
    struct zqcow2_check_result res = ZQCOW2_CHECK_RESULT_INIT;
    struct zqcow2_error err = {0, ""};
    struct zqcow2_backend *be;
    int rc = disk_backend(image, THE_IMAGE, &be);

    if (rc < 0)
        return REFUSE(c, "no backend");
    o.flags = ZQCOW2_CHECK_REPAIR_ALL;
    o.resolve = is_layered(c->g) ? source_resolve : NULL;
    o.resolve_arg = image;
    rc = zqcow2_check(be, &o, &res, &err);
    zqcow2_backend_close(be);
    if (rc < 0 || res.corruptions > res.corruptions_fixed || res.leaked_clusters > res.leaks_fixed)
        return REFUSE(c, "repair: %s (%s)", zqcow2_strerror(rc), err.text);
    return 0;
}

/* Recovery alone, recorded: opening for writing and closing, or a full repair. */
static int recover(struct checker *c, struct disk *image, bool by_repair)
{
    struct zqcow2_image *img;
    int rc = disk_record(image);

    if (rc < 0)
        return REFUSE(c, "record: %s", zqcow2_strerror(rc));
    if (by_repair)
        return repair(c, image);
    img = open_on(c, image, true);
    if (!img)
        return 1;
    rc = zqcow2_close(img);
    return rc < 0 ? REFUSE(c, "close after recovery: %s", zqcow2_strerror(rc)) : 0;
}

static int recovery_state(struct checker *c, const struct disk_cut *cut, uint64_t k,
                          const struct power_model *o)
{
    struct disk *again;
    int bad = 0, new, rc = disk_cut_image(cut, k, &again);

    if (rc < 0)
        return REFUSE(c, "cut: %s", zqcow2_strerror(rc));
    new = c->novelty(c->arg, disk_hash(again));
    if (new)
        bad = new == 2 ? verify_state(c, again, o, k) : verify_shown(c, again, o);
    disk_free(again);
    return bad;
}

/* seed: odd for a repair. *at: the position to look at, from the first on, or UINT64_MAX: all. */
static int cut_recovery(struct checker *c, struct disk *disk, const struct power_model *o,
                        uint64_t states, uint64_t seed, uint64_t *at, uint64_t *which)
{
    struct disk_cut cut;
    uint64_t first = disk_position(disk), only = *at, end;
    int bad = recover(c, disk, seed & 1);

    end = disk_position(disk);
    if (bad || disk_cut_new(disk, &cut) < 0)
        return 1;
    for (uint64_t p = first; !bad && p <= end; p++) {
        uint64_t n;

        if (only != UINT64_MAX && p - first != only)
            continue;
        disk_cut_seek(&cut, p);
        n = disk_cut_states(&cut);
        for (uint64_t i = 0; !bad && i < (n < states ? n : states); i++) {
            uint64_t k = only != UINT64_MAX ? *which : n <= states ? i : draw(&seed) % n;

            bad = recovery_state(c, &cut, k, o);
            if (bad) {
                *at = p - first;
                *which = k;
            }
        }
    }
    disk_cut_end(&cut);
    return bad;
}

int verify_recovery(struct checker *c, struct disk *image, const struct power_model *o,
                    uint64_t states, uint64_t seed, uint64_t *at, uint64_t *which)
{
    int bad = verify_shown(c, image, o);

    memcpy(c->kept, c->data, c->g->size);
    memcpy(c->kept_zones, c->zones, sizeof(c->zones));
    c->keep = !bad;
    bad = bad || cut_recovery(c, image, o, states, seed, at, which);
    c->keep = false;
    return bad;
}

int verify_killed(struct checker *c, struct disk *disk, const struct power_model *o,
                  uint64_t states, uint64_t seed, uint64_t *at, uint64_t *which)
{
    return verify_shown(c, disk, o) || cut_recovery(c, disk, o, states, seed, at, which);
}
