/* SPDX-License-Identifier: MIT */
/*
 * Compressed writes: what was written is read, whatever else is written beside it; a request that
 * fails has changed nothing; and after a crash each cluster is one of its versions, whole.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <zqcow2/queue.h>
#include <zqcow2/simdisk.h>
#include "rig/rig.h"

static const struct geometry forms[] = {
    {.name = "4K", .size = MiB(1), .cluster = 4096},
    {.name = "4K, counts of 1 bit", .size = MiB(1), .cluster = 4096, .refcount_bits = 1},
    {.name = "4K, counts of 2 bits, short end",
     .size = MiB(1) - 1536,
     .cluster = 4096,
     .refcount_bits = 2},
    {.name = "16K, subclusters", .size = MiB(2), .cluster = 16384, .extended = true},
    {.name = "64K, zstd", .size = MiB(4) + 512, .cluster = 65536, .zstd = true},
    {.name = "512", .size = KiB(128), .cluster = 512},
};
#define FORMS (sizeof(forms) / sizeof(forms[0]))

static uint8_t want[MiB(5)], got[MiB(5)], data[MiB(1)];

/* A version of a cluster: text, half of it noise, all noise, or hardly anything. */
static void fill(uint8_t *to, uint64_t len, uint64_t at, uint64_t version)
{
    uint64_t rng = at * 131 + version;
    unsigned kind = (unsigned)rng_below(&rng, 4);

    for (uint64_t i = 0; i < len; i++) {
        bool noise = kind == 2 || (kind == 1 && i % 2);

        to[i] =
            noise ? (uint8_t)rng_next(&rng) : (uint8_t)(kind == 3 ? 0 : "a line of text\n"[i % 15]);
    }
    memcpy(to, &rng, len < 8 ? (size_t)len : 8);
}

/* Whole clusters from the one at `at` on, each of a version of its own. */
static uint64_t fill_all(uint8_t *to, const struct geometry *g, uint64_t at, unsigned n,
                         uint64_t version)
{
    uint64_t len =
        g->size - at < (uint64_t)n * g->cluster ? g->size - at : (uint64_t)n * g->cluster;

    for (uint64_t off = 0; off < len; off += g->cluster)
        fill(to + off, len - off < g->cluster ? len - off : g->cluster, at + off, version + off);
    return len;
}

static int compressed(struct rig *r, uint64_t at, uint64_t len)
{
    return zqcow2_write(r->img, data, (size_t)len, at, ZQCOW2_COMPRESS);
}

static void same_all(struct rig *r, const char *where, uint64_t seed)
{
    assert_int_equal(zqcow2_read(r->img, got, (size_t)r->g->size, 0), 0);
    for (uint64_t i = 0; i < r->g->size; i++) {
        if (got[i] != want[i])
            fail_msg("%s, %s, seed %llu: byte 0x%llx is %02x, not %02x", r->g->name, where,
                     (unsigned long long)seed, (unsigned long long)i, got[i], want[i]);
    }
}

/* ---- beside other writes ---- */

static void step(struct rig *r, uint64_t *rng)
{
    const struct geometry *g = r->g;
    uint64_t clusters = (g->size + g->cluster - 1) / g->cluster;
    uint64_t at = rng_below(rng, clusters) * g->cluster,
             sector = rng_below(rng, g->size / 512) * 512;
    uint64_t len = 512 + rng_below(rng, 3 * g->cluster / 512) * 512;

    len = len < g->size - sector ? len : g->size - sector;
    switch (rng_below(rng, 8)) {
    case 0:
        rig_pattern(want + sector, len, sector, rng_next(rng));
        assert_int_equal(zqcow2_write(r->img, want + sector, len, sector, 0), 0);
        return;
    case 1:
        memset(want + sector, 0, len);
        assert_int_equal(zqcow2_write_zeroes(r->img, len, sector, 0), 0);
        return;
    case 2:
        len = g->size - at < g->cluster ? g->size - at : g->cluster;
        memset(want + at, 0, len);
        assert_int_equal(zqcow2_discard(r->img, len, at, 0), 0);
        return;
    case 3: assert_int_equal(zqcow2_flush(r->img), 0); return;
    default:
        len = fill_all(data, g, at, 1 + (unsigned)rng_below(rng, 5), rng_next(rng));
        memcpy(want + at, data, len);
        assert_int_equal(compressed(r, at, len), 0);
    }
}

static void beside_others(void **state)
{
    uint64_t packed = 0, whole = 0;

    (void)state;
    for (uint64_t seed = 1; seed <= 6 * FORMS; seed++) {
        const struct geometry *g = &forms[seed % FORMS];
        struct rig r;
        uint64_t rng = seed;

        memset(want, 0, sizeof(want));
        rig_begin_in(&r, g, seed / FORMS % 2 ? RIG_SHUFFLED : RIG_PLAIN, seed);
        for (unsigned n = 0; n < 160; n++) {
            step(&r, &rng);
            if (n % 40 == 39) {
                same_all(&r, "open", seed);
                rig_reopen(&r);
                same_all(&r, "opened again", seed);
            }
        }
        assert_int_equal(rig_close(&r), 0);
        assert_int_equal(rig_check(&r, 0), 0);
        if (r.check.corruptions || r.check.leaked_clusters)
            fail_msg("%s, seed %llu: %llu corruptions, %llu leaks", g->name,
                     (unsigned long long)seed, (unsigned long long)r.check.corruptions,
                     (unsigned long long)r.check.leaked_clusters);
        packed += r.check.compressed_clusters;
        whole += r.check.allocated_clusters;
        assert_true(g->cluster > 512 ? r.check.compressed_clusters : !r.check.compressed_clusters);
        assert_null(rig_free(&r));
    }
    printf("compressed beside others: %llu of %llu clusters, no difference\n",
           (unsigned long long)packed, (unsigned long long)whole);
}

/* Text of a MiB: a tenth of the space, and several clusters in each of the file. */
static void it_saves_space(void **state)
{
    struct rig r;

    (void)state;
    rig_begin(&r, &forms[4]);
    for (uint64_t i = 0; i < MiB(1); i++)
        data[i] = (uint8_t) "a line of text\n"[i % 15];
    assert_int_equal(compressed(&r, 0, MiB(1)), 0);
    assert_int_equal(rig_close(&r), 0);
    assert_int_equal(rig_check(&r, 0), 0);
    assert_int_equal(r.check.compressed_clusters, 16);
    assert_int_equal(r.check.corruptions + r.check.leaked_clusters, 0);
    printf("1 MiB of text: the image ends at %llu\n", (unsigned long long)r.check.image_end_offset);
    assert_true(r.check.image_end_offset <= KiB(512));
    assert_null(rig_free(&r));
}

/* A cluster of the file that is freed may be another's next, and so may the room left in it. */
static void room_is_forgotten(void **state)
{
    struct rig r;

    (void)state;
    rig_begin(&r, &forms[0]);
    memset(want, 0, sizeof(want));
    memset(data, 1, 4096);
    assert_int_equal(compressed(&r, 0, 4096), 0);
    assert_int_equal(zqcow2_discard(r.img, 4096, 0, 0), 0);
    assert_int_equal(zqcow2_drain(r.img), 0);
    memset(want + 8192, 2, 4096);
    assert_int_equal(zqcow2_write(r.img, want + 8192, 4096, 8192, 0), 0);
    memset(want + 16384, 1, 4096);
    assert_int_equal(compressed(&r, 16384, 4096), 0);
    same_all(&r, "the room of a freed cluster", 0);
    rig_end(&r);
}

/* ---- refused ---- */

static void parts_are_refused(void **state)
{
    static const struct {
        uint16_t op;
        uint64_t at, len;
    } wrong[] = {
        {ZQCOW2_OP_WRITE, 512, 4096},      {ZQCOW2_OP_WRITE, 0, 512},
        {ZQCOW2_OP_WRITE, 4096, 4608},     {ZQCOW2_OP_READ, 0, 4096},
        {ZQCOW2_OP_WRITE_ZEROES, 0, 4096}, {ZQCOW2_OP_DISCARD, 0, 4096},
        {ZQCOW2_OP_FLUSH, 0, 0},
    };
    const struct geometry *g = &forms[2];
    struct rig r;

    (void)state;
    rig_begin(&r, g);
    for (unsigned i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        struct iovec v = {data, (size_t)wrong[i].len};
        struct zqcow2_request q = {.size = sizeof(q),
                                   .op = wrong[i].op,
                                   .flags = ZQCOW2_COMPRESS,
                                   .offset = wrong[i].at,
                                   .length = wrong[i].len,
                                   .iov = &v,
                                   .iovcnt = 1};

        if (zqcow2_run(r.img, &q, NULL) != -EINVAL)
            fail_msg("wrong request %u is not refused", i);
    }
    memset(data, 1, 4096);
    assert_int_equal(compressed(&r, g->size / 4096 * 4096, g->size % 4096), 0); /* its end */
    rig_end(&r);
}

/* ---- what fails ---- */

#define FAIL_AT 8192u
#define FAIL_N  3u

/* Small enough that all share a cluster of the file. */
static void fill_small(uint64_t len, uint8_t version)
{
    for (uint64_t i = 0; i < len; i++)
        data[i] = (uint8_t)(version + i / 4096);
}

/* What is given back behind a request that failed leaves alone what lies beside it. */
static void expect_old(struct rig *r, uint64_t len, unsigned n)
{
    assert_int_equal(zqcow2_drain(r->img), 0);
    assert_int_equal(zqcow2_read(r->img, got, len, FAIL_AT), 0);
    if (memcmp(got, want + FAIL_AT, len))
        fail_msg("call %u: the old content is gone", n);
}

/* True if there was such a call. heap: the n-th allocation fails, else the n-th call. */
static bool strike(bool heap, enum fault_kind kind, unsigned n)
{
    const struct geometry *g = &forms[0];
    uint64_t len = FAIL_N * g->cluster, seed = n;
    bool struck, fua = n % 4 < 2;
    struct rig r;
    int rc;

    rig_begin(&r, g);
    memset(want, 0, sizeof(want));
    fill_small(len, 7);
    memcpy(want + FAIL_AT, data, len);
    assert_int_equal(compressed(&r, FAIL_AT, len), 0);
    if (n % 2)
        assert_int_equal(zqcow2_flush(r.img), 0);
    fill_small(len, 100);
    if (heap)
        heap_plan(&r.heap, n, false);
    else
        fault_plan(&r.fault, kind, n, false);
    rc = zqcow2_write(r.img, data, len, FAIL_AT, ZQCOW2_COMPRESS | (fua ? ZQCOW2_FUA : 0));
    struck = heap ? r.heap.failed : r.fault.failed;
    heap_plan(&r.heap, 0, false);
    fault_plan(&r.fault, FAULT_NONE, 0, false);
    assert_true(rc == 0 || struck);
    if (rc == 0)
        memcpy(want + FAIL_AT, data, len);
    /* With FUA the round may have failed behind the write, which then is done. */
    assert_int_equal(zqcow2_read(r.img, got, len, FAIL_AT), 0);
    if (memcmp(got, want + FAIL_AT, len) && (!fua || memcmp(got, data, len)))
        fail_msg("kind %d, call %u, rc %d: neither old nor new", (int)kind, n, rc);
    memcpy(want + FAIL_AT, got, len);
    if (rc && (heap || kind == FAULT_NO_ROOM))
        expect_old(&r, len, n);
    if (rc == 0 || heap || kind == FAULT_NO_ROOM) {
        memcpy(want + FAIL_AT, data, len);
        assert_int_equal(compressed(&r, FAIL_AT, len), 0);
        same_all(&r, "again", seed);
        assert_int_equal(rig_close(&r), 0);
    } else {
        (void)rig_close(&r);
    }
    assert_int_equal(rig_open(&r, true), 0);
    assert_int_equal(rig_close(&r), 0);
    assert_int_equal(rig_check(&r, 0), 0);
    if (r.check.corruptions || r.check.leaked_clusters)
        fail_msg("%s %d, call %u, rc %d: %llu corruptions, %llu leaks", heap ? "heap" : "kind",
                 (int)kind, n, rc, (unsigned long long)r.check.corruptions,
                 (unsigned long long)r.check.leaked_clusters);
    assert_null(rig_free(&r));
    return struck;
}

static void failures_change_nothing(void **state)
{
    static const enum fault_kind kinds[] = {FAULT_EIO, FAULT_NO_ROOM, FAULT_SHORT};
    unsigned points = 0, n;

    (void)state;
    for (unsigned k = 0; k < 3; k++) {
        for (n = 1; strike(false, kinds[k], n); n++)
            points++;
    }
    for (n = 1; strike(true, FAULT_NONE, n); n++)
        points++;
    printf("compressed writes that fail: %u points\n", points);
    assert_true(points > 20);
}

/* ---- at once ---- */

static void many_at_once(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 12; seed++) {
        const struct geometry *g = &forms[seed % 5];
        struct zqcow2_queue *q;
        struct zqcow2_request reqs[16];
        struct iovec v[16];
        struct rig r;

        memset(want, 0, sizeof(want));
        rig_begin_in(&r, g, seed % 3 ? RIG_SHUFFLED : RIG_THREADED, seed);
        assert_int_equal(zqcow2_queue_open(r.img, 16, &q), 0);
        for (unsigned round = 0; round < 4; round++) {
            for (unsigned i = 0; i < 16; i++) {
                uint64_t at = (uint64_t)(i * 7 % 16) * g->cluster;

                fill(want + at, g->cluster, at, seed * 100 + round);
                v[i] = (struct iovec){want + at, g->cluster};
                reqs[i] = (struct zqcow2_request){.size = sizeof(reqs[i]),
                                                  .op = ZQCOW2_OP_WRITE,
                                                  .flags = i % 5 ? ZQCOW2_COMPRESS : 0,
                                                  .offset = at,
                                                  .iov = &v[i],
                                                  .iovcnt = 1};
            }
            assert_int_equal(zqcow2_queue_submit(q, reqs, 16), 16);
            zqcow2_queue_wait(q, 16, -1);
            same_all(&r, "at once", seed);
        }
        assert_int_equal(zqcow2_queue_close(q), 0);
        rig_end(&r);
    }
}

/* ---- crashes: a cluster is one of its versions ---- */

#define CRASH_CLUSTERS 10u

struct versions {
    uint64_t position;
    unsigned flushed[CRASH_CLUSTERS], newest[CRASH_CLUSTERS];
};

static struct versions *story;
static unsigned nr_story;
static uint8_t one[4096];

static void note(struct zqcow2_simdisk *disk, struct versions *v)
{
    story = realloc(story, (nr_story + 1) * sizeof(*story));
    assert_non_null(story);
    v->position = zqcow2_simdisk_position(disk);
    story[nr_story++] = *v;
}

static struct zqcow2_image *open_disk(struct zqcow2_simdisk *disk, uint32_t flags)
{
    struct zqcow2_open_options o = ZQCOW2_OPEN_OPTIONS_INIT;
    struct zqcow2_backend *be;
    struct zqcow2_image *img;
    struct zqcow2_error err;

    o.flags = flags;
    assert_int_equal(zqcow2_simdisk_backend(disk, &be), 0);
    if (zqcow2_open(be, &o, &img, &err) < 0)
        fail_msg("open: %s", err.text);
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

static void make_version(unsigned i, unsigned version)
{
    if (version)
        fill(one, sizeof(one), i * sizeof(one), version);
    else
        memset(one, 0, sizeof(one));
}

static void judge(struct zqcow2_simdisk *disk, const struct versions *v, const char *where)
{
    struct zqcow2_image *img = open_disk(disk, 0);

    for (unsigned i = 0; i < CRASH_CLUSTERS; i++) {
        bool found = false;

        assert_int_equal(zqcow2_read(img, got, sizeof(one), i * sizeof(one)), 0);
        for (unsigned n = v->flushed[i]; n <= v->newest[i] && !found; n++) {
            make_version(i, n);
            found = !memcmp(got, one, sizeof(one));
        }
        if (!found)
            fail_msg("%s: cluster %u is none of its versions %u to %u", where, i, v->flushed[i],
                     v->newest[i]);
    }
    assert_int_equal(zqcow2_close(img), 0);
}

static struct zqcow2_simdisk *run_story(uint64_t seed)
{
    struct zqcow2_create_options c = ZQCOW2_CREATE_OPTIONS_INIT;
    struct versions v = {.position = 0};
    struct zqcow2_simdisk *disk;
    struct zqcow2_backend *be;
    struct zqcow2_image *img;
    uint64_t rng = seed;

    c.virtual_size = CRASH_CLUSTERS * sizeof(one);
    c.cluster_size = sizeof(one);
    assert_int_equal(zqcow2_simdisk_new(NULL, &disk), 0);
    assert_int_equal(zqcow2_simdisk_backend(disk, &be), 0);
    assert_int_equal(zqcow2_create(be, &c, NULL), 0);
    zqcow2_backend_close(be);
    assert_int_equal(zqcow2_simdisk_record(disk), 0);
    nr_story = 0;
    note(disk, &v);
    img = open_disk(disk, ZQCOW2_OPEN_RDWR);
    for (unsigned n = 0; n < 60; n++) {
        unsigned i = (unsigned)rng_below(&rng, CRASH_CLUSTERS);

        if (rng_below(&rng, 5) == 0) {
            assert_int_equal(zqcow2_flush(img), 0);
            memcpy(v.flushed, v.newest, sizeof(v.flushed));
            note(disk, &v);
            continue;
        }
        v.newest[i]++;
        note(disk, &v);
        make_version(i, v.newest[i]);
        assert_int_equal(zqcow2_write(img, one, sizeof(one), i * sizeof(one), ZQCOW2_COMPRESS), 0);
    }
    assert_int_equal(zqcow2_close(img), 0);
    memcpy(v.flushed, v.newest, sizeof(v.flushed));
    note(disk, &v);
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
        for (unsigned s = 0; s < 8 && s < all; s++, states++) {
            struct zqcow2_simdisk *left;
            uint64_t k = s ? rng_below(&rng, all) : 0;

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

static void crashes_leave_versions(void **state)
{
    unsigned states = 0;

    (void)state;
    for (uint64_t seed = 1; seed <= 8; seed++) {
        struct zqcow2_simdisk *disk = run_story(seed);

        states += cut_everywhere(disk, seed);
        zqcow2_simdisk_free(disk);
    }
    free(story);
    story = NULL;
    printf("compressed writes cut: %u states, 0 violations\n", states);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(beside_others),           cmocka_unit_test(it_saves_space),
        cmocka_unit_test(room_is_forgotten),       cmocka_unit_test(parts_are_refused),
        cmocka_unit_test(failures_change_nothing), cmocka_unit_test(many_at_once),
        cmocka_unit_test(crashes_leave_versions),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
