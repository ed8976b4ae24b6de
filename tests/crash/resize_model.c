/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "crash/cuts.h"
#include "crash/resize_model.h"

const struct shape shapes[SHAPES] = {
    {512, ZQCOW2_LAYOUT_44, 20, 0, 0, 0, false, 0},
    {4096, ZQCOW2_LAYOUT_44, 40, 9, ZQCOW2_SIMDISK_ASYNC, 64, false, 0},
    {512, ZQCOW2_LAYOUT_48B, 28, 13, 0, 0, false, 0},
    {65536, ZQCOW2_LAYOUT_44, 40, 7, 0, 0, true, 0},
    {2048, ZQCOW2_LAYOUT_56, 37, 11, ZQCOW2_SIMDISK_ASYNC, 0, false, 0},
    {1024, ZQCOW2_LAYOUT_V7, 24, 5, 0, 128, false, 0},
    {16384, ZQCOW2_LAYOUT_V7, 40, 33, 0, 0, true, 0},
    {512, ZQCOW2_LAYOUT_56, 16, 20, 0, 0, true, 0},
};
const struct shape tight = {512, ZQCOW2_LAYOUT_56, 20, 9, 0, 0, false, 1};

static uint64_t draw(struct world *w, uint64_t n)
{
    return cuts_draw(&w->rng, n);
}

void must(const struct world *w, bool good, const char *what, long got)
{
    if (!good)
        fail_msg("%s: %ld\nreplay: ZQ_SEED=%llu ZQ_CUT=%llu test_resize_zones # state %llu", what,
                 got, (unsigned long long)w->seed, (unsigned long long)w->cut,
                 (unsigned long long)w->k);
}

uint64_t zone_size(const struct world *w)
{
    return w->shape->cluster > 32768 ? w->shape->cluster : 32768;
}

uint64_t start_of(const struct world *w, uint32_t zone)
{
    return zone * zone_size(w);
}

/* In sectors, of a device that ends at `size`. */
uint32_t capacity(const struct world *w, uint64_t size, uint32_t zone)
{
    uint64_t start = start_of(w, zone) / SECTOR, rest = size > start ? size - start : 0;

    return rest < w->shape->capacity ? (uint32_t)rest : w->shape->capacity;
}

uint32_t zones_of(const struct world *w, uint64_t size)
{
    uint64_t per = zone_size(w) / SECTOR;

    return (uint32_t)((size + per - 1) / per);
}

struct zqcow2_backend *backend(const struct world *w, struct zqcow2_simdisk *disk)
{
    struct zqcow2_backend *be;

    must(w, zqcow2_simdisk_backend(disk, &be) == 0, "backend", 0);
    return be;
}

static int resolve(void *arg, const char *name, const char *format, uint32_t depth,
                   struct zqcow2_backend **be, struct zqcow2_error *err)
{
    const struct world *w = arg;

    (void)name;
    (void)format;
    (void)depth;
    (void)err;
    *be = backend(w, w->below);
    return 0;
}

struct zqcow2_image *open_on(struct world *w, struct zqcow2_simdisk *disk, bool rw)
{
    struct zqcow2_open_options o = ZQCOW2_OPEN_OPTIONS_INIT;
    struct zqcow2_image *img = NULL;
    struct zqcow2_error err = {0, ""};
    int rc;

    o.flags = ZQCOW2_OPEN_NOLOCK | (rw ? ZQCOW2_OPEN_RDWR : 0);
    o.rules = w->shape->descriptor ? ZQCOW2_RULES_ZNS : ZQCOW2_RULES_LINUX;
    o.resolve = resolve;
    o.resolve_arg = w;
    rc = zqcow2_open(backend(w, disk), &o, &img, &err);
    must(w, rc == 0, err.text, rc);
    return img;
}

struct zqcow2_image *open_as(struct world *w, bool rw)
{
    return open_on(w, w->disk, rw);
}

static struct zqcow2_simdisk *new_disk(const struct world *w)
{
    struct zqcow2_simdisk_options d = ZQCOW2_SIMDISK_OPTIONS_INIT;
    struct zqcow2_simdisk *disk;

    d.seed = w->seed;
    d.flags = w->shape->flags;
    must(w, zqcow2_simdisk_new(&d, &disk) == 0, "disk", 0);
    return disk;
}

static void create(struct world *w, struct zqcow2_simdisk *disk, bool on_source)
{
    struct zqcow2_create_options c = ZQCOW2_CREATE_OPTIONS_INIT;
    struct zqcow2_backend *be = backend(w, disk);
    int rc;

    c.zone_size = zone_size(w);
    c.virtual_size = c.zone_size * 3 + (uint64_t)w->shape->rest * SECTOR;
    c.zone_capacity = w->shape->capacity * SECTOR;
    c.conventional_zones = 1;
    c.cluster_size = w->shape->cluster;
    c.layout = w->shape->layout;
    c.descriptor_extension = w->shape->descriptor;
    c.max_active_zones = w->shape->max_active;
    c.backing_name = on_source ? "below" : NULL;
    c.backing_format = on_source ? "qcow2" : NULL;
    c.resolve = resolve;
    c.resolve_arg = w;
    rc = zqcow2_create(be, &c, NULL);
    must(w, rc == 0, "create", rc);
    must(w, zqcow2_backend_flush(be) == 0, "flush", 0);
    zqcow2_backend_close(be);
    w->step[0].size = c.virtual_size / SECTOR;
}

int append(const struct world *w, struct zqcow2_image *img, uint32_t zone, uint32_t n,
           uint8_t value)
{
    uint8_t buf[MOST * SECTOR];
    uint64_t at = start_of(w, zone);

    memset(buf, value, n * SECTOR);
    return n ? zqcow2_append(img, buf, n * SECTOR, &at, 0) : 0;
}

/* The source: a zone that ends within a cluster, and a last one that is FULL. */
static void fill_below(struct world *w)
{
    uint32_t last = zones_of(w, w->step[0].size) - 1;
    struct zqcow2_image *img = open_on(w, w->below, true);

    must(w, append(w, img, 1, 7, 0xbb) == 0, "append below", 0);
    must(w, append(w, img, last, 3, 0xbb) == 0, "append below", 0);
    must(w,
         zqcow2_zone_finish(img, start_of(w, last), w->step[0].size * SECTOR - start_of(w, last),
                            0) == 0,
         "finish below", 0);
    must(w, zqcow2_close(img) == 0, "close", 0);
}

/* ---- what is there ---- */

uint64_t size_of(const struct world *w, struct zqcow2_image *img)
{
    struct zqcow2_info i = ZQCOW2_INFO_INIT;

    must(w, zqcow2_get_info(img, &i) == 0, "info", 0);
    return i.virtual_size / SECTOR;
}

static void read_zone(const struct world *w, struct zqcow2_image *img, uint32_t i, uint32_t n,
                      struct zone *got)
{
    uint8_t buf[MOST * SECTOR];
    int rc = zqcow2_read(img, buf, n * SECTOR, start_of(w, i));

    must(w, rc == 0, "read", rc);
    for (uint32_t k = 0; k < n; k++) {
        got->v[k] = buf[k * SECTOR];
        for (uint32_t b = 1; b < SECTOR; b++)
            must(w, buf[k * SECTOR + b] == got->v[k], "a torn sector", i);
    }
}

/* Returns the size in sectors. */
uint64_t read_zones(const struct world *w, struct zqcow2_image *img, struct zone got[ZONES])
{
    struct zqcow2_zone z[ZONES];
    uint64_t size = size_of(w, img);
    uint32_t nr = ZONES;

    must(w, zqcow2_zone_report(img, 0, z, &nr) == 0 && nr == zones_of(w, size), "report", nr);
    memset(got, 0, ZONES * sizeof(*got));
    for (uint32_t i = 1; i < nr; i++) {
        uint32_t most = capacity(w, size, i);

        must(w, z[i].start == start_of(w, i) && z[i].capacity == (uint64_t)most * SECTOR, "zone",
             i);
        got[i].wp = z[i].state == ZQCOW2_ZONE_FULL ?
                        most :
                        (uint32_t)((z[i].write_pointer - z[i].start) / SECTOR);
        must(w, (got[i].wp == most) == (z[i].state == ZQCOW2_ZONE_FULL), "state", i);
        read_zone(w, img, i, most, &got[i]);
    }
    return size;
}

/* ---- the workload ---- */

void start_with(struct world *w, uint64_t seed, const struct shape *shape)
{
    struct zqcow2_image *img;

    memset(w, 0, sizeof(*w));
    w->seed = w->rng = seed;
    w->cut = UINT64_MAX;
    w->shape = shape;
    w->below = new_disk(w);
    w->disk = new_disk(w);
    if (w->shape->source) {
        create(w, w->below, false);
        fill_below(w);
    }
    create(w, w->disk, w->shape->source);
    img = open_as(w, false);
    must(w, read_zones(w, img, w->step[0].zone) == w->step[0].size, "size", 0);
    must(w, zqcow2_close(img) == 0, "close", 0);
    for (uint32_t i = 0; i < ZONES; i++)
        w->step[0].zone[i].life = w->lives++;
}

void start(struct world *w, uint64_t seed)
{
    start_with(w, seed, &shapes[seed % SHAPES]);
}

void end(struct world *w)
{
    zqcow2_simdisk_free(w->disk);
    zqcow2_simdisk_free(w->below);
}

static int grow(struct world *w, struct step *s)
{
    uint32_t now = (uint32_t)(s->size / (zone_size(w) / SECTOR)); /* whole ones */
    uint32_t to = now + 1 + (uint32_t)draw(w, 3);

    s->size = start_of(w, to < ZONES ? to : ZONES) / SECTOR;
    w->resized++;
    return zqcow2_resize(w->img, s->size * SECTOR, 0, NULL);
}

/* Over empty zones, or with a reset of those that are not. */
static int shrink(struct world *w, struct step *s)
{
    uint32_t now = zones_of(w, s->size), to = 2 + (uint32_t)draw(w, now - 1), flags = 0;
    uint64_t size = start_of(w, to) / SECTOR;
    int rc = ZQCOW2_EZONE_STATE;

    if (size >= s->size || (w->shape->source && to < zones_of(w, w->step[0].size)))
        return 0;
    for (uint32_t i = to; i < now; i++) {
        if (s->zone[i].wp)
            flags = ZQCOW2_RESIZE_DISCARD;
        s->zone[i] = (struct zone){.life = w->lives++};
    }
    if (flags)
        rc = zqcow2_resize(w->img, size * SECTOR, ZQCOW2_RESIZE_SHRINK, NULL);
    must(w, rc < 0, "shrunk over data", rc);
    if (rc != ZQCOW2_EZONE_STATE)
        return rc;
    s->size = size;
    w->resized++;
    return zqcow2_resize(w->img, size * SECTOR, ZQCOW2_RESIZE_SHRINK | flags, NULL);
}

static int act_on_zone(struct world *w, struct step *s)
{
    uint32_t i = 1 + (uint32_t)draw(w, zones_of(w, s->size) - 1), most = capacity(w, s->size, i), n;
    uint64_t at = start_of(w, i), rest = s->size * SECTOR - at;
    struct zone *z = &s->zone[i];

    rest = rest < zone_size(w) ? rest : zone_size(w);
    switch (s->kind) {
    case RESET:
        *z = (struct zone){.life = w->lives++};
        return zqcow2_zone_reset(w->img, at, rest, 0);
    case FINISH: z->wp = most; return zqcow2_zone_finish(w->img, at, rest, 0);
    case OPEN: return z->wp && z->wp < most ? zqcow2_zone_open(w->img, at, rest, 0) : 0;
    default:
        n = 1 + (uint32_t)draw(w, 12);
        n = n < most - z->wp ? n : most - z->wp;
        memset(z->v + z->wp, (int)w->steps, n);
        z->wp += n;
        return append(w, w->img, i, n, (uint8_t)w->steps);
    }
}

int run_step(struct world *w)
{
    static const enum kind kinds[] = {APPEND, APPEND, APPEND, APPEND, RESET,  FINISH, FINISH,
                                      OPEN,   FLUSH,  GROW,   GROW,   SHRINK, SHRINK};
    struct step *s = &w->step[++w->steps];
    int rc;

    *s = s[-1];
    s->kind = kinds[draw(w, sizeof(kinds) / sizeof(*kinds))];
    s->begun = zqcow2_simdisk_position(w->disk);
    switch (s->kind) {
    case FLUSH: rc = zqcow2_flush(w->img); break;
    case GROW: rc = grow(w, s); break;
    case SHRINK: rc = shrink(w, s); break;
    default: rc = act_on_zone(w, s);
    }
    s->ended = zqcow2_simdisk_position(w->disk);
    return rc;
}

/* ---- what it should be ---- */

static bool is_same(const struct zone *a, const struct zone *b)
{
    return a->wp == b->wp && memcmp(a->v, b->v, MOST) == 0;
}

void is_as(const struct world *w, struct zqcow2_image *img, const struct step *s)
{
    struct zone got[ZONES];

    must(w, read_zones(w, img, got) == s->size, "size", (long)size_of(w, img));
    for (uint32_t i = 1; i < zones_of(w, s->size); i++)
        must(w, is_same(&got[i], &s->zone[i]), "zone is not as it was left", i);
}
