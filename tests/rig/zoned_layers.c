/* SPDX-License-Identifier: MIT */
/* Layers with zones, random histories of them, and what they must read as then. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "rig/zoned_layers.h"

uint32_t zoned_most_active;

#define ACTS 24u

#define EXTENSION 192u

/* ---- making the files ---- */

/* A third of the worlds have extensions. They are set in zones that are empty, and end by a reset.
 */
static bool has_extensions(const struct commits *c)
{
    return c->seed % 3 == 0;
}

static int describe(struct commits *c, struct layer *l, struct zqcow2_image *img, unsigned z)
{
    uint8_t data[EXTENSION], tag = (uint8_t)(1 + commits_draw(c, 255));
    int rc;

    if (!has_extensions(c) || l->wp[z] || l->tag[z])
        return 0;
    memset(data, tag, sizeof(data));
    rc = zqcow2_zone_set_descriptor(img, z * COMMIT_ZONE, data, sizeof(data));
    l->tag[z] = rc == 0 ? tag : 0;
    return rc;
}

static int change_zone(struct commits *c, struct layer *l, struct zqcow2_image *img, unsigned z)
{
    uint64_t start = z * COMMIT_ZONE, at = start + l->wp[z], len = 512 * (1 + commits_draw(c, 40));
    unsigned act = (unsigned)commits_draw(c, 10);
    int rc;

    if (act > 6 && !l->wp[z] && has_extensions(c))
        return describe(c, l, img, z);
    if (act == 9) {
        rc = zqcow2_zone_reset(img, start, COMMIT_ZONE, 0);
        memset(l->want + start, 0, COMMIT_ZONE);
        l->wp[z] = 0;
        l->tag[z] = 0;
        return rc;
    }
    if (act == 8) {
        rc = zqcow2_zone_finish(img, start, COMMIT_ZONE, 0);
        l->wp[z] = rc == 0 ? COMMIT_ZONE : l->wp[z];
        return rc;
    }
    if (l->wp[z] + len > CAPACITY)
        return 0;
    memset(commits_data, act < 5 ? 1 + (int)commits_draw(c, 250) : 0, len);
    rc = act < 6 ? zqcow2_write(img, commits_data, len, at, 0) :
                   zqcow2_write_zeroes(img, len, at, 0);
    if (rc == 0) {
        memcpy(l->want + at, commits_data, len);
        l->wp[z] = l->wp[z] + len == CAPACITY ? COMMIT_ZONE : l->wp[z] + len;
    }
    return rc;
}

static void act_on_zone(struct commits *c, struct layer *l, struct zqcow2_image *img, unsigned z)
{
    int rc = change_zone(c, l, img, z);

    commits_must(c, rc == 0 || (rc == ZQCOW2_EZONE_ACTIVE && zoned_most_active), "act", rc);
}

static void write_anywhere(struct commits *c, struct layer *l, struct zqcow2_image *img)
{
    uint64_t at = 512 * commits_draw(c, 100), len = 512 * (1 + commits_draw(c, 28));

    memset(commits_data, (int)commits_draw(c, 4), len);
    memcpy(l->want + at, commits_data, len);
    commits_must(c, zqcow2_write(img, commits_data, len, at, 0) == 0, "write", 0);
}

/*
 * At most one zone with a state of its own. What is below the top always has one that the layer
 * above inherits: a table that is there from the beginning needs no room in a header later.
 */
static void store_state(struct commits *c, struct layer *l, struct zqcow2_image *img)
{
    static const unsigned states[] = {ZQCOW2_ZONE_RDONLY, ZQCOW2_ZONE_OFFLINE, ZQCOW2_ZONE_CLOSED};
    unsigned z = 1 + (unsigned)commits_draw(c, ZONES - 1), state = states[commits_draw(c, 3)];
    int rc;

    for (unsigned i = 1; i < ZONES; i++) {
        if (!l->state[i])
            continue;
        rc = zqcow2_zone_set_state(img, i * COMMIT_ZONE, ZQCOW2_ZONE_PERSIST);
        commits_must(c, rc == 0, "normal", rc);
        l->state[i] = 0;
        l->tag[i] = l->wp[i] ? l->tag[i] : 0;
    }
    if (l == &c->layer[TOP] && !commits_draw(c, 3))
        return;
    if (state == ZQCOW2_ZONE_CLOSED && (l->wp[z] || l != &c->layer[TOP]))
        state = ZQCOW2_ZONE_RDONLY;
    rc = zqcow2_zone_set_state(img, z * COMMIT_ZONE, state | ZQCOW2_ZONE_PERSIST);
    commits_must(c, rc == 0, "state", rc);
    l->state[z] = (uint8_t)state;
}

static struct zqcow2_image *open_zns(struct commits *c, unsigned which, uint32_t flags)
{
    struct zqcow2_open_options o = ZQCOW2_OPEN_OPTIONS_INIT;
    struct zqcow2_image *img = NULL;
    struct zqcow2_error err = {0, ""};
    int rc;

    o.flags = flags;
    o.rules = ZQCOW2_RULES_ZNS;
    o.extent_bytes = KiB(8);
    o.resolve = which == TOP ? commits_resolve : commits_resolve_below;
    o.resolve_arg = c;
    rc = zqcow2_open(commits_backend(c, which), &o, &img, &err);
    commits_must(c, rc == 0, err.text, rc);
    return img;
}

void zoned_write_some(struct commits *c, unsigned which, unsigned sessions)
{
    struct layer *l = &c->layer[which];

    while (sessions--) {
        struct zqcow2_image *img = open_zns(c, which, ZQCOW2_OPEN_RDWR);

        for (unsigned i = 0; i < ACTS; i++) {
            unsigned z = (unsigned)commits_draw(c, ZONES);

            if (z && l->state[z])
                continue;
            if (!z)
                write_anywhere(c, l, img);
            else if (z != ZONES - 1 || which == LOW) /* that one stays as it is below */
                act_on_zone(c, l, img, z);
        }
        if (c->seed % 2 && (which != TOP || !commits_draw(c, 2)))
            store_state(c, l, img);
        commits_must(c, zqcow2_close(img) == 0, "close", 0);
    }
}

static void make_layer(struct commits *c, unsigned which)
{
    static const uint32_t clusters[] = {512, 4096, 8192, 16384};
    struct zqcow2_create_options o = ZQCOW2_CREATE_OPTIONS_INIT;
    struct zqcow2_backend *be = commits_backend(c, which);
    struct layer *l = &c->layer[which];
    int rc;

    l->format = "qcow2";
    l->size = o.virtual_size = ROOM;
    o.cluster_size = clusters[commits_draw(c, 4)];
    o.flags = o.cluster_size == 16384 ? ZQCOW2_CREATE_EXTENDED_L2 : 0;
    o.zone_size = COMMIT_ZONE;
    o.zone_capacity = CAPACITY;
    o.conventional_zones = 1;
    o.descriptor_extension = has_extensions(c) ? EXTENSION : 0;
    o.max_active_zones = which == TOP && zoned_most_active ? ZONES : zoned_most_active;
    if (which != LOW) {
        struct layer *b = &c->layer[which + 1];

        o.backing_name = which == TOP ? "1" : "2";
        o.backing_format = "qcow2";
        o.resolve = which == TOP ? commits_resolve : commits_resolve_below;
        o.resolve_arg = c;
        memcpy(l->want, b->want, ROOM);
        memcpy(l->wp, b->wp, sizeof(l->wp));
        memcpy(l->state, b->state, sizeof(l->state));
        memcpy(l->tag, b->tag, sizeof(l->tag));
    }
    rc = zqcow2_create(be, &o, NULL);
    zqcow2_backend_close(be);
    commits_must(c, rc == 0, "create", rc);
    zoned_write_some(c, which, which == TOP ? 2 : 1);
}

void zoned_make(struct commits *c)
{
    make_layer(c, LOW);
    make_layer(c, BASE);
    make_layer(c, TOP);
}

/* ---- judging ---- */

static void zone_is(struct commits *c, const struct layer *l, const struct zqcow2_zone *r,
                    unsigned z)
{
    unsigned state = l->state[z]             ? l->state[z] :
                     !l->wp[z] && !l->tag[z] ? ZQCOW2_ZONE_EMPTY :
                     l->wp[z] == COMMIT_ZONE ? ZQCOW2_ZONE_FULL :
                                               ZQCOW2_ZONE_CLOSED;

    commits_must(c, r->state == state, "state of a zone", r->state);
    if (state != ZQCOW2_ZONE_RDONLY && state != ZQCOW2_ZONE_OFFLINE)
        commits_must(c, r->write_pointer - r->start == l->wp[z], "write pointer",
                     (long)r->write_pointer);
}

static void extension_is(struct commits *c, struct zqcow2_image *img, const struct layer *l,
                         unsigned z)
{
    uint8_t data[EXTENSION];
    uint32_t nr = 1;
    int rc = zqcow2_zone_get_descriptors(img, z * COMMIT_ZONE, data, &nr);

    commits_must(c, rc == 0, "get", rc);
    for (unsigned i = 0; i < EXTENSION; i++)
        commits_must(c, data[i] == l->tag[z], "extension", data[i]);
}

/* An OFFLINE zone does not show its bytes: they are seen when it is normal for a moment. */
void zoned_reads_as(struct commits *c, unsigned which, const char *what, const struct layer *want)
{
    struct zqcow2_image *img = open_zns(c, which, 0);
    struct zqcow2_zone zones[ZONES];
    uint32_t nr = ZONES;
    int rc;

    commits_must(c, zqcow2_zone_report(img, 0, zones, &nr) == 0 && nr == ZONES, "report", nr);
    for (unsigned z = 1; z < ZONES; z++) {
        zone_is(c, want, &zones[z], z);
        rc = zqcow2_zone_set_state(img, zones[z].start, ZQCOW2_ZONE_NOT_WP);
        commits_must(c, rc == 0, "normal", rc);
        if (has_extensions(c))
            extension_is(c, img, want, z);
    }
    rc = zqcow2_read(img, commits_data, ROOM, 0);
    commits_must(c, rc == 0, "read", rc);
    commits_compare(c, what, want->want, ROOM);
    commits_must(c, zqcow2_close(img) == 0, "close", 0);
}
