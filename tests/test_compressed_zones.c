/* SPDX-License-Identifier: MIT */
/*
 * Compressed writes to sequential zones: the same rules and results as of any write, whatever is
 * mapped there already, and after a crash a zone is a prefix of one of its lives.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <zqcow2/simdisk.h>
#include "rig/rig.h"

static const struct geometry forms[] = {
    {.name = "zones", .size = MiB(1), .zone_size = KiB(128), .conventional = 1, .cluster = 4096},
    {.name = "zones, a capacity, limits",
     .size = MiB(1),
     .zone_size = KiB(128),
     .capacity = KiB(90),
     .conventional = 2,
     .max_open = 2,
     .max_active = 3,
     .cluster = 4096,
     .refcount_bits = 2},
    {.name = "zones, subclusters",
     .size = MiB(1),
     .zone_size = KiB(128),
     .cluster = 16384,
     .extended = true,
     .zstd = true},
};
#define FORMS (sizeof(forms) / sizeof(forms[0]))

static uint8_t data[KiB(128)], was[KiB(128)];

/* Half of the writes do not get smaller. */
static void fill(uint64_t len, uint64_t version)
{
    uint64_t rng = version;

    for (uint64_t i = 0; i < len; i++)
        data[i] = version % 2 ? (uint8_t)rng_next(&rng) : (uint8_t)(version + i / 512);
}

static void must_agree(const struct rig *r, int rc, int should, const char *what, uint64_t seed)
{
    if (rc != should)
        fail_msg("%s, seed %llu: %s returns %d, not %d", r->g->name, (unsigned long long)seed, what,
                 rc, should);
}

/* At the pointer, or one cluster behind it; in sectors, or whole clusters that are compressed. */
static void write_zone(struct rig *r, struct model *m, uint32_t zone, bool packed, uint64_t *rng,
                       uint64_t seed)
{
    uint64_t unit = packed ? r->g->cluster : 512, at = m->zone[zone].wp;
    uint64_t len = (1 + rng_below(rng, packed ? 4 : 20)) * unit;

    if (m->zone[zone].wp == model_zone_end(m, zone))
        at = model_start(m, zone);
    if (packed && at % unit)
        return;
    if (rng_below(rng, 16) == 0)
        at += unit;
    fill(len, rng_next(rng));
    must_agree(r, zqcow2_write(r->img, data, len, at, packed ? ZQCOW2_COMPRESS : 0),
               model_write(m, data, len, at), packed ? "compressed" : "write", seed);
}

/* To the next cluster, so that the zone can be compressed again. */
static void align_zone(struct rig *r, struct model *m, uint32_t zone, uint64_t seed)
{
    uint64_t at = m->zone[zone].wp, len = -at & (r->g->cluster - 1);

    if (!len || at == model_zone_end(m, zone))
        return;
    fill(len, at);
    must_agree(r, zqcow2_write(r->img, data, len, at, 0), model_write(m, data, len, at), "align",
               seed);
}

static void step(struct rig *r, struct model *m, uint64_t *rng, uint64_t seed)
{
    uint32_t zone = m->g.conventional + (uint32_t)rng_below(rng, 3);
    uint64_t failed, failed_too;

    switch (rng_below(rng, 12)) {
    case 0:
    case 1: write_zone(r, m, zone, false, rng, seed); return;
    case 2:
    case 3: align_zone(r, m, zone, seed); return;
    case 4:
    case 5: {
        int op = rng_below(rng, 3) ? ZQCOW2_OP_ZONE_RESET : ZQCOW2_OP_ZONE_FINISH;

        must_agree(r, rig_manage(r, op, model_start(m, zone), m->g.zone_size, &failed),
                   model_manage(m, op, model_start(m, zone), m->g.zone_size, &failed_too), "manage",
                   seed);
        return;
    }
    case 6:
        assert_int_equal(rng_below(rng, 2) ? zqcow2_flush(r->img) : zqcow2_drain(r->img), 0);
        return;
    default: write_zone(r, m, zone, true, rng, seed);
    }
}

/* Block status of the rig's knows no compressed clusters. */
static bool same(struct rig *r, const struct model *m)
{
    return rig_same_report(r, m) && rig_same_bytes(r, m, 0, m->g.size);
}

static void as_any_write(void **state)
{
    uint64_t packed = 0;

    (void)state;
    for (uint64_t seed = 1; seed <= 8 * FORMS; seed++) {
        const struct geometry *g = &forms[seed % FORMS];
        uint64_t rng = seed;
        struct model m;
        struct rig r;

        rig_begin_in(&r, g, seed / FORMS % 2 ? RIG_SHUFFLED : RIG_PLAIN, seed);
        model_init(&m, g, rig_info(&r).max_append_bytes);
        m.tie = rig_closed_rather;
        m.tie_arg = &r;
        for (unsigned n = 0; n < 200; n++) {
            step(&r, &m, &rng, seed);
            if (n % 10 == 9 && !same(&r, &m))
                fail_msg("%s, seed %llu, step %u: %s", g->name, (unsigned long long)seed, n, r.why);
            if (n % 50 == 49) {
                rig_reopen(&r);
                model_reopen(&m);
                if (!same(&r, &m))
                    fail_msg("%s, seed %llu, opened again: %s", g->name, (unsigned long long)seed,
                             r.why);
            }
        }
        assert_int_equal(rig_close(&r), 0);
        assert_int_equal(rig_check(&r, 0), 0);
        packed += r.check.compressed_clusters;
        if (r.check.corruptions || r.check.leaked_clusters)
            fail_msg("%s, seed %llu: not clean", g->name, (unsigned long long)seed);
        model_free(&m);
        assert_null(rig_free(&r));
    }
    printf("zones: %llu compressed clusters, no difference\n", (unsigned long long)packed);
    assert_true(packed > 100);
}

/* A request that fails has not moved the pointer, and the zone goes on. */
static bool strike(enum fault_kind kind, unsigned n, uint64_t life)
{
    const struct geometry *g = &forms[0];
    uint64_t at = g->zone_size, len = 3 * g->cluster;
    bool struck;
    struct rig r;
    int rc;

    rig_begin(&r, g);
    fill(len, 2);
    assert_int_equal(zqcow2_write(r.img, data, len, at, ZQCOW2_COMPRESS), 0);
    memcpy(was, data, len);
    if (life)
        assert_int_equal(zqcow2_zone_reset(r.img, at, g->zone_size, 0), 0);
    fill(len, 4);
    at += life ? 0 : len;
    fault_plan(&r.fault, kind, n, false);
    rc = zqcow2_write(r.img, data, len, at, ZQCOW2_COMPRESS);
    struck = r.fault.failed;
    fault_plan(&r.fault, FAULT_NONE, 0, false);
    assert_true(rc == 0 || struck);
    assert_int_equal(rig_zone(&r, 1).write_pointer, rc ? at : at + len);
    if (rc && kind == FAULT_ENOSPC) {
        assert_int_equal(zqcow2_write(r.img, data, len, at, ZQCOW2_COMPRESS), 0);
        assert_int_equal(zqcow2_read(r.img, was, len, at), 0);
        assert_memory_equal(was, data, len);
    }
    (void)rig_close(&r);
    assert_int_equal(rig_open(&r, true), 0);
    assert_int_equal(rig_close(&r), 0);
    assert_int_equal(rig_check(&r, 0), 0);
    assert_int_equal(r.check.corruptions + r.check.leaked_clusters, 0);
    assert_null(rig_free(&r));
    return struck;
}

static void failures_move_no_pointer(void **state)
{
    static const enum fault_kind kinds[] = {FAULT_EIO, FAULT_ENOSPC, FAULT_SHORT};
    unsigned points = 0;

    (void)state;
    for (unsigned k = 0; k < 6; k++) {
        for (unsigned n = 1; strike(kinds[k % 3], n, k / 3); n++)
            points++;
    }
    printf("zones: %u points of failure\n", points);
    assert_true(points > 12);
}

/* ---- crashes ---- */

#define ZONES 2u
#define LIVES 40u
#define ZONE  KiB(64)
#define C     4096u

struct life {
    uint64_t submitted, flushed;
};

struct lives {
    uint64_t position;
    struct life life[ZONES][LIVES];
    unsigned nr[ZONES], oldest[ZONES];
};

static struct lives *story;
static unsigned nr_story;

static void note(struct zqcow2_simdisk *disk, struct lives *v)
{
    story = realloc(story, (nr_story + 1) * sizeof(*story));
    assert_non_null(story);
    v->position = zqcow2_simdisk_position(disk);
    story[nr_story++] = *v;
}

static uint8_t tag(unsigned zone, unsigned life)
{
    return (uint8_t)(1 + zone * LIVES + life);
}

static struct zqcow2_image *open_disk(struct zqcow2_simdisk *disk, uint32_t flags)
{
    struct zqcow2_open_options o = ZQCOW2_OPEN_OPTIONS_INIT;
    struct zqcow2_backend *be;
    struct zqcow2_image *img;

    o.flags = flags;
    o.extent_bytes = 2 * C;
    assert_int_equal(zqcow2_simdisk_backend(disk, &be), 0);
    assert_int_equal(zqcow2_open(be, &o, &img, NULL), 0);
    return img;
}

static void check_disk(struct zqcow2_simdisk *disk, bool leaks, const char *where)
{
    struct zqcow2_check_result res = ZQCOW2_CHECK_RESULT_INIT;
    struct zqcow2_backend *be;

    assert_int_equal(zqcow2_simdisk_backend(disk, &be), 0);
    assert_int_equal(zqcow2_check(be, NULL, &res, NULL), 0);
    zqcow2_backend_close(be);
    if (res.corruptions || (!leaks && res.leaked_clusters))
        fail_msg("%s: %llu corruptions, %llu leaks", where, (unsigned long long)res.corruptions,
                 (unsigned long long)res.leaked_clusters);
}

static bool may_be(const struct lives *v, unsigned zone, uint64_t wp)
{
    for (unsigned l = v->oldest[zone]; l < v->nr[zone]; l++) {
        const struct life *f = &v->life[zone][l];
        uint64_t n = 0;

        while (n < ZONE && data[n] == tag(zone, l))
            n++;
        if (n == wp && n <= f->submitted && n >= (l > v->oldest[zone] ? 0 : f->flushed)) {
            while (n < ZONE && !data[n])
                n++;
            if (n == ZONE)
                return true;
        }
    }
    return false;
}

static void judge(struct zqcow2_simdisk *disk, const struct lives *v, const char *where)
{
    struct zqcow2_image *img = open_disk(disk, 0);

    for (unsigned zone = 0; zone < ZONES; zone++) {
        struct zqcow2_zone z;
        uint32_t nr = 1;

        assert_int_equal(zqcow2_read(img, data, ZONE, zone * ZONE), 0);
        assert_int_equal(zqcow2_zone_report(img, zone * ZONE, &z, &nr), 0);
        if (!may_be(v, zone, z.write_pointer - z.start))
            fail_msg("%s: zone %u with pointer +%#llx is no prefix of a life", where, zone,
                     (unsigned long long)(z.write_pointer - z.start));
    }
    assert_int_equal(zqcow2_close(img), 0);
}

static void act(struct zqcow2_image *img, struct zqcow2_simdisk *disk, struct lives *v,
                uint64_t *rng)
{
    unsigned zone = (unsigned)rng_below(rng, ZONES), what = (unsigned)rng_below(rng, 8);
    unsigned l = v->nr[zone] - 1;
    struct life *f = &v->life[zone][l];
    uint64_t len = what < 5 ? C * (1 + rng_below(rng, 3)) : C, at = zone * ZONE + f->submitted;

    if (what == 6) {
        assert_int_equal(zqcow2_flush(img), 0);
        for (unsigned z = 0; z < ZONES; z++) {
            v->oldest[z] = v->nr[z] - 1;
            v->life[z][v->oldest[z]].flushed = v->life[z][v->oldest[z]].submitted;
        }
        note(disk, v);
    } else if (what == 7 && v->nr[zone] < LIVES) {
        v->nr[zone]++;
        note(disk, v);
        assert_int_equal(zqcow2_zone_reset(img, zone * ZONE, ZONE, 0), 0);
    } else if (f->submitted + len < ZONE) {
        memset(data, tag(zone, l), len);
        f->submitted += len;
        note(disk, v);
        assert_int_equal(zqcow2_write(img, data, len, at, what < 5 ? ZQCOW2_COMPRESS : 0), 0);
    }
}

static struct zqcow2_simdisk *run_story(uint64_t seed)
{
    struct zqcow2_create_options c = ZQCOW2_CREATE_OPTIONS_INIT;
    static struct lives v;
    struct zqcow2_simdisk *disk;
    struct zqcow2_backend *be;
    struct zqcow2_image *img;
    uint64_t rng = seed;

    memset(&v, 0, sizeof(v));
    c.virtual_size = ZONES * ZONE;
    c.zone_size = ZONE;
    c.cluster_size = C;
    for (unsigned z = 0; z < ZONES; z++)
        v.nr[z] = 1;
    assert_int_equal(zqcow2_simdisk_new(NULL, &disk), 0);
    assert_int_equal(zqcow2_simdisk_backend(disk, &be), 0);
    assert_int_equal(zqcow2_create(be, &c, NULL), 0);
    zqcow2_backend_close(be);
    assert_int_equal(zqcow2_simdisk_record(disk), 0);
    nr_story = 0;
    note(disk, &v);
    img = open_disk(disk, ZQCOW2_OPEN_RDWR);
    for (unsigned n = 0; n < 60; n++)
        act(img, disk, &v, &rng);
    assert_int_equal(zqcow2_close(img), 0);
    return disk;
}

static unsigned cut_everywhere(struct zqcow2_simdisk *disk, uint64_t seed)
{
    uint64_t end = zqcow2_simdisk_position(disk), rng = seed;
    unsigned states = 0, known = 0;
    struct zqcow2_simdisk_cut *cut;
    char where[80];

    assert_int_equal(zqcow2_simdisk_cut_new(disk, &cut), 0);
    for (uint64_t at = zqcow2_simdisk_cut_position(cut); at <= end; at++) {
        uint64_t all;

        while (known + 1 < nr_story && story[known + 1].position <= at)
            known++;
        assert_int_equal(zqcow2_simdisk_cut_seek(cut, at), 0);
        all = zqcow2_simdisk_cut_states(cut);
        for (unsigned s = 0; s < 6 && s < all; s++, states++) {
            uint64_t k = s ? rng_below(&rng, all) : 0;
            struct zqcow2_simdisk *left;

            snprintf(where, sizeof(where), "seed %llu, position %llu, state %llu",
                     (unsigned long long)seed, (unsigned long long)at, (unsigned long long)k);
            assert_int_equal(zqcow2_simdisk_cut_image(cut, k, &left), 0);
            check_disk(left, true, where);
            judge(left, &story[known], where);
            assert_int_equal(zqcow2_close(open_disk(left, ZQCOW2_OPEN_RDWR)), 0); /* recovery */
            check_disk(left, false, where);
            judge(left, &story[known], where);
            zqcow2_simdisk_free(left);
        }
    }
    zqcow2_simdisk_cut_free(cut);
    return states;
}

static void crashes_leave_prefixes(void **state)
{
    unsigned states = 0;

    (void)state;
    for (uint64_t seed = 1; seed <= 6; seed++) {
        struct zqcow2_simdisk *disk = run_story(seed);

        states += cut_everywhere(disk, seed);
        zqcow2_simdisk_free(disk);
    }
    free(story);
    story = NULL;
    printf("zones, compressed writes cut: %u states, 0 violations\n", states);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(as_any_write),
        cmocka_unit_test(failures_move_no_pointer),
        cmocka_unit_test(crashes_leave_prefixes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
