/* SPDX-License-Identifier: MIT */
/*
 * Crashes of an image with a data file: both files as one instant leaves them, in any of the states
 * that each could be in. The judge knows what was asked for and what was acknowledged.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "rig/rig.h"
#include "rig/rng.h"
#include "rig/twin.h"

static const struct kind kinds[] = {
    {"zones, subclusters", 16384, ZQCOW2_CREATE_EXTENDED_L2, KiB(512), KiB(64)},
    {"zones", 4096, 0, KiB(512), KiB(64)},
};

static uint8_t got[KiB(512)];

#define ZONES 3u /* sequential ones that are written */
#define LIVES 64u
#define PIECE 2560u
#define CONV  2u /* clusters */

/* A life of a zone: all of it has one tag. */
struct life {
    uint8_t tag;
    uint64_t submitted, flushed; /* bytes */
    bool finish;                 /* was asked for */
};

struct zone_model {
    struct life life[LIVES];
    unsigned nr, oldest; /* lives so far; the oldest that a crash may show */
};

struct crash_model {
    struct zone_model zone[ZONES];
    /* The conventional zone's first clusters: all of them written, or discarded, at once. */
    uint8_t version[256], newest, flushed; /* version[0] is 0, as is that of a discard */
};

/* The model as it is when instant number `at` comes: what has been asked for, and acknowledged. */
struct snapshot {
    unsigned at;
    struct crash_model m;
};

static struct snapshot *story;
static unsigned nr_story;

static void note_asked(const struct world *w, const struct crash_model *m)
{
    story = realloc(story, (nr_story + 1) * sizeof(*story));
    assert_non_null(story);
    story[nr_story++] = (struct snapshot){w->nr, *m};
}

static void all_flushed(struct crash_model *m)
{
    for (unsigned z = 0; z < ZONES; z++) {
        struct zone_model *zm = &m->zone[z];

        zm->oldest = zm->nr - 1;
        zm->life[zm->oldest].flushed = zm->life[zm->oldest].submitted;
    }
    m->flushed = m->newest;
}

/* Zone, so many bytes from its start: what a crash may leave of it? */
static bool zone_may_be(const struct zone_model *zm, const uint8_t *is, uint64_t wp, uint64_t zone)
{
    for (unsigned l = zm->oldest; l < zm->nr; l++) {
        const struct life *f = &zm->life[l];
        uint64_t n = 0, least = l > zm->oldest ? 0 : f->flushed;

        while (n < zone && is[n] == f->tag)
            n++;
        if ((n == wp || (wp == zone && f->finish && n == f->submitted)) && n >= least &&
            n <= f->submitted) {
            while (n < zone && !is[n])
                n++;
            if (n == zone)
                return true;
        }
    }
    return false;
}

static void judge(struct world *w, const struct kind *k, const struct crash_model *m,
                  const char *where)
{
    struct zqcow2_zone zones[8];
    uint32_t nr = 8;
    struct zqcow2_image *img = must_open(w, 0);

    assert_int_equal(zqcow2_read(img, got, k->size, 0), 0);
    assert_int_equal(zqcow2_zone_report(img, 0, zones, &nr), 0);
    for (unsigned z = 0; z < ZONES; z++) {
        const struct zqcow2_zone *r = &zones[z + 1];
        uint64_t wp = r->write_pointer - r->start;

        if (!zone_may_be(&m->zone[z], got + r->start, wp, k->zone))
            fail_msg("%s: zone %u with pointer +%#llx holds no life (byte 0: %02x)", where, z + 1,
                     (unsigned long long)wp, got[r->start]);
    }
    for (uint64_t i = 0; i < CONV * k->cluster; i += 512) {
        unsigned v = m->flushed;

        while (v <= m->newest && m->version[v] != got[i])
            v++;
        if (v > m->newest)
            fail_msg("%s: sector %u has %u, no version from %u to %u", where, (unsigned)(i / 512),
                     got[i], m->flushed, m->newest);
    }
    assert_int_equal(zqcow2_close(img), 0);
}

static void write_zone(struct zqcow2_image *img, const struct world *w, const struct kind *k,
                       struct crash_model *m, unsigned z, uint64_t len)
{
    struct zone_model *zm = &m->zone[z];
    struct life *f = &zm->life[zm->nr - 1];
    uint64_t at = (z + 1) * k->zone;

    if (f->finish || f->submitted + len > k->zone)
        return;
    memset(got, f->tag, len);
    f->submitted += len;
    note_asked(w, m);
    assert_int_equal(zqcow2_append(img, got, len, &at, 0), 0);
}

static void reset_zone(struct zqcow2_image *img, const struct world *w, const struct kind *k,
                       struct crash_model *m, unsigned z)
{
    struct zone_model *zm = &m->zone[z];

    if (zm->nr == LIVES)
        return;
    zm->life[zm->nr] = (struct life){.tag = (uint8_t)(zm->life[zm->nr - 1].tag + 1)};
    zm->nr++;
    note_asked(w, m);
    assert_int_equal(zqcow2_zone_reset(img, (z + 1) * k->zone, k->zone, 0), 0);
}

static void flush_all(struct zqcow2_image *img, const struct world *w, struct crash_model *m)
{
    assert_int_equal(zqcow2_flush(img), 0);
    all_flushed(m);
    note_asked(w, m);
}

/* A discard gives the data file's space back, so a crash must not show what was there. */
static void write_conventional(struct zqcow2_image *img, const struct world *w,
                               const struct kind *k, struct crash_model *m, bool discard)
{
    uint64_t len = CONV * k->cluster;

    assert_true(++m->newest);
    m->version[m->newest] = discard ? 0 : m->newest;
    memset(got, m->newest, len);
    note_asked(w, m);
    assert_int_equal(discard ? zqcow2_discard(img, len, 0, 0) : zqcow2_write(img, got, len, 0, 0),
                     0);
}

static void step(struct zqcow2_image *img, const struct world *w, const struct kind *k,
                 struct crash_model *m, uint64_t *rng)
{
    unsigned z = (unsigned)rng_below(rng, ZONES), act = (unsigned)rng_below(rng, 13);

    if (act < 5) {
        write_zone(img, w, k, m, z, PIECE * (1 + rng_below(rng, 4)));
    } else if (act == 5) {
        reset_zone(img, w, k, m, z);
    } else if (act == 6 && m->zone[z].life[m->zone[z].nr - 1].submitted) {
        m->zone[z].life[m->zone[z].nr - 1].finish = true;
        note_asked(w, m);
        assert_int_equal(zqcow2_zone_finish(img, (z + 1) * k->zone, k->zone, 0), 0);
    } else if (act < 9) {
        write_conventional(img, w, k, m, act == 8);
    } else if (act == 9) {
        assert_int_equal(zqcow2_drain(img), 0); /* then holes are made */
    } else {
        flush_all(img, w, m);
    }
}

/* The world as a crash leaves it: state k of one file, and any of the other. */
static void crash_at(const struct world *w, struct zqcow2_simdisk_cut *cut[FILES], uint64_t *rng,
                     struct world *left)
{
    memset(left, 0, sizeof(*left));
    (void)w;
    for (unsigned i = 0; i < FILES; i++) {
        uint64_t states = zqcow2_simdisk_cut_states(cut[i]);
        uint64_t pick = rng_below(rng, 3), s = pick == 0 ? 0 : rng_below(rng, states);

        assert_int_equal(zqcow2_simdisk_cut_image(cut[i], s, &left->disk[i]), 0);
    }
}

static unsigned crash_everywhere(struct world *w, const struct kind *k, uint64_t seed)
{
    struct zqcow2_simdisk_cut *cut[FILES];
    unsigned states = 0, known = 0;
    uint64_t rng = seed;
    char where[80];

    for (unsigned i = 0; i < FILES; i++)
        assert_int_equal(zqcow2_simdisk_cut_new(w->disk[i], &cut[i]), 0);
    for (unsigned n = 0; n < w->nr; n++) {
        while (known + 1 < nr_story && story[known + 1].at <= n)
            known++;
        for (unsigned i = 0; i < FILES; i++)
            assert_int_equal(zqcow2_simdisk_cut_seek(cut[i], w->log[n].at[i]), 0);
        for (unsigned s = 0; s < 6; s++, states++) {
            struct zqcow2_image *img;
            struct world left;

            crash_at(w, cut, &rng, &left);
            snprintf(where, sizeof(where), "seed %llu, instant %u, state %u",
                     (unsigned long long)seed, n, s);
            must_check(&left, true);
            judge(&left, k, &story[known].m, where);
            img = must_open(&left, ZQCOW2_OPEN_RDWR); /* recovery */
            assert_int_equal(zqcow2_close(img), 0);
            must_check(&left, false);
            judge(&left, k, &story[known].m, where);
            world_end(&left);
        }
    }
    for (unsigned i = 0; i < FILES; i++)
        zqcow2_simdisk_cut_free(cut[i]);
    return states;
}

static void crashes_leave_lives(void **state)
{
    unsigned states = 0, instants = 0;

    (void)state;
    for (uint64_t seed = 1; seed <= 8; seed++) {
        const struct kind *k = &kinds[seed % 2];
        static struct crash_model m;
        struct zqcow2_image *img;
        uint64_t rng = seed;
        struct world w;

        memset(&m, 0, sizeof(m));
        for (unsigned z = 0; z < ZONES; z++) {
            m.zone[z].nr = 1;
            m.zone[z].life[0].tag = (uint8_t)(1 + z * LIVES);
        }
        world_begin(&w, seed);
        assert_int_equal(create(&w, k, 0), 0);
        nr_story = 0;
        for (unsigned i = 0; i < FILES; i++)
            assert_int_equal(zqcow2_simdisk_record(w.disk[i]), 0);
        w.keeps = true;
        note_asked(&w, &m);
        img = must_open(&w, ZQCOW2_OPEN_RDWR);
        for (unsigned n = 0; n < 40; n++)
            step(img, &w, k, &m, &rng);
        assert_int_equal(zqcow2_close(img), 0);
        w.keeps = false;
        states += crash_everywhere(&w, k, seed);
        instants += w.nr;
        world_end(&w);
    }
    free(story);
    story = NULL;
    printf("crashes: %u instants of two files, %u states: 0 violations\n", instants, states);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(crashes_leave_lives),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
