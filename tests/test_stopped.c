/* SPDX-License-Identifier: MIT */
/*
 * Rounds that stop for lack of space (R10), one story for each of their rules: the n-th call that
 * takes space fails, for each n, the story goes on with room, and then the power goes. The judge is
 * the rig's own: every reference is counted (K1) whichever write the cut loses, and what was
 * flushed is there. A barrier that finds none is the end of the image (R11).
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
#include "rig/raw.h"
#include "rig/rig.h"

/* ---- cuts ---- */

static void redo(const struct record *log, size_t i, struct store *to)
{
    struct record one = {.log = log->log + i, .nr = 1};

    record_replay(&one, 1, to);
}

static void must_be_sound(struct store *s, const char *what, unsigned n, size_t i)
{
    struct raw raw = {0};

    assert_true(raw_find(&raw, s));
    if (!raw_sound(&raw))
        fail_msg("call %u finds no space, cut %s I/O %zu: %s", n, what, i, raw.why);
}

/* All since the barrier at `from` but one write; the barrier behind it is log[end]. */
static unsigned lose_one(const struct store *durable, const struct record *log, size_t from,
                         size_t end, unsigned n)
{
    struct store cut;

    store_init(&cut);
    for (size_t lost = from; lost < end; lost++) {
        store_copy(&cut, durable);
        for (size_t i = from; i < end; i++) {
            if (i != lost)
                redo(log, i, &cut);
        }
        must_be_sound(&cut, "without", n, lost);
    }
    store_free(&cut);
    return (unsigned)(end - from);
}

static unsigned judge_cuts(const struct store *base, const struct record *log, unsigned n)
{
    struct store durable, now;
    unsigned cuts = 0;
    size_t from = 0;

    store_init(&durable);
    store_init(&now);
    store_copy(&durable, base);
    store_copy(&now, base);
    for (size_t i = 0; i < log->nr; i++, cuts++) {
        if (log->log[i].kind == ZQCOW2_IO_FLUSH) {
            cuts += lose_one(&durable, log, from, i, n);
            store_copy(&durable, &now);
            from = i + 1;
        } else {
            redo(log, i, &now);
            must_be_sound(&now, "behind", n, i);
        }
    }
    store_free(&durable);
    store_free(&now);
    return cuts;
}

/* ---- what all stories share ---- */

static struct rig r;
static struct store base;

static void begin(const struct geometry *g, uint64_t cache_bytes)
{
    rig_init(&r, g, RIG_PLAIN, 1);
    r.open.extent_bytes = KiB(8);
    r.open.cache_bytes = cache_bytes;
    assert_int_equal(rig_create(&r), 0);
    assert_int_equal(rig_open(&r, true), 0);
}

/* What the file holds now is durable; from now on the n-th call finds no space. */
static void strike(unsigned n)
{
    assert_int_equal(zqcow2_flush(r.img), 0);
    store_init(&base);
    store_copy(&base, &r.store);
    record_reset(&r.record);
    r.record.keep = true;
    fault_plan(&r.fault, FAULT_NO_ROOM, n, false);
}

/* With room again. False: there is no n-th call. */
static bool struck(void)
{
    bool failed = r.fault.failed;

    fault_plan(&r.fault, FAULT_NONE, 0, false);
    assert_false(rig_info(&r).flags & ZQCOW2_INFO_DEAD);
    return failed;
}

/* The power goes: the image is what the last barrier covered, and is reopened. */
static void cut(void)
{
    struct store kept;

    store_init(&kept);
    store_copy(&kept, &r.store);
    (void)rig_close(&r);
    store_copy(&r.store, &kept);
    store_free(&kept);
    assert_int_equal(rig_open(&r, true), 0);
}

static void end(void)
{
    store_free(&base);
    r.record.keep = false;
    rig_end(&r);
}

/* ---- what the snapshot took is dirty again; the next round begins at its first stage ---- */

static const struct geometry zoned = {.name = "zoned",
                                      .size = KiB(512),
                                      .zone_size = KiB(64),
                                      .conventional = 4,
                                      .cluster = 512,
                                      .refcount_bits = 64};

static bool stop_and_cut(unsigned n, bool more, unsigned *cuts)
{
    int rc;

    begin(&zoned, 0);
    assert_int_equal(rig_write(&r, 0, KiB(4), 1), 0);
    strike(n);
    fault_plan(&r.fault, FAULT_NONE, 0, false);
    assert_int_equal(rig_write(&r, KiB(32), KiB(40), 2), 0); /* a refcount block at least */
    assert_int_equal(rig_write(&r, KiB(256), KiB(20), 3), 0);
    fault_plan(&r.fault, FAULT_NO_ROOM, n, false);
    rc = zqcow2_flush(r.img);
    assert_int_equal(rc, r.fault.failed ? -ENOSPC : 0);
    if (!struck()) {
        end();
        return false;
    }
    if (more) {
        assert_int_equal(rig_write(&r, KiB(128), KiB(40), 4), 0);
        assert_int_equal(rig_write(&r, KiB(320), KiB(12), 5), 0);
    }
    assert_int_equal(zqcow2_flush(r.img), 0);
    *cuts += judge_cuts(&base, &r.record, n);
    cut();
    assert_true(rig_holds(&r, 0, KiB(4), 0, 1));
    assert_true(rig_holds(&r, KiB(32), KiB(40), KiB(32), 2));
    assert_true(rig_holds(&r, KiB(256), KiB(20), KiB(256), 3));
    assert_true(!more || rig_holds(&r, KiB(128), KiB(40), KiB(128), 4));
    assert_true(!more || rig_holds(&r, KiB(320), KiB(12), KiB(320), 5));
    end();
    return true;
}

static void all_is_dirty_again(void **state)
{
    unsigned n = 1, cuts = 0;

    (void)state;
    while (stop_and_cut(n, false, &cuts) && stop_and_cut(n, true, &cuts))
        n++;
    assert_true(n > 8);
    printf("stopped rounds: %u points, %u cuts\n", n - 1, cuts);
}

/* ---- growth stays as it was composed ---- */

static const struct geometry growing = {
    .name = "growing", .size = MiB(4), .cluster = 512, .refcount_bits = 64};
#define NEAR (MiB(2) - KiB(144)) /* the first table describes 2 MiB of the file */

static uint64_t rt_at(void)
{
    struct raw raw = {0};

    assert_true(raw_find(&raw, &r.store));
    return raw.rt;
}

static void write_up_to(uint64_t from, uint64_t to)
{
    for (; from < to; from += KiB(8))
        assert_int_equal(rig_write(&r, from, KiB(8), 1), 0);
}

/* Up to where the file needs the larger table; the n-th call finds no space. */
static bool grow(unsigned n, uint64_t *at)
{
    int rc = 0;

    begin(&growing, 0);
    write_up_to(0, NEAR);
    assert_true(rt_at() < MiB(2));
    strike(n);
    for (*at = NEAR; rc == 0 && *at < NEAR + KiB(40); *at += rc ? 0 : KiB(8))
        rc = rig_write(&r, *at, KiB(8), 1);
    assert_true(rc == 0 || rc == -ENOSPC);
    return struck();
}

/* Nothing needs the new table again, but the file has it. */
static bool grown_and_closed(unsigned n)
{
    uint64_t at;

    if (!grow(n, &at)) {
        end();
        return false;
    }
    assert_int_equal(zqcow2_discard(r.img, KiB(64), 0, 0), 0);
    assert_int_equal(zqcow2_flush(r.img), 0);
    rig_reopen(&r);
    assert_true(rig_zeros(&r, 0, KiB(64)));
    assert_true(rig_holds(&r, KiB(64), MiB(1), KiB(64), 1));
    end();
    return true;
}

/* Blocks are linked in the new table, which the file's header has or has not. */
static bool grown_and_cut(unsigned n, unsigned *cuts)
{
    uint64_t at;

    if (!grow(n, &at)) {
        end();
        return false;
    }
    write_up_to(at, NEAR + KiB(80));
    assert_int_equal(zqcow2_flush(r.img), 0);
    assert_true(rt_at() >= MiB(2));
    *cuts += judge_cuts(&base, &r.record, n);
    cut();
    for (at = 0; at < NEAR + KiB(80); at += KiB(8))
        assert_true(rig_holds(&r, at, KiB(8), at, 1));
    end();
    return true;
}

static void growth_stays(void **state)
{
    unsigned n = 1, cuts = 0;

    (void)state;
    while (grown_and_closed(n))
        n++;
    assert_true(n > 8);
    for (n = 1; grown_and_cut(n, &cuts); n++)
        ;
    printf("growth and stopped rounds: %u points, %u cuts\n", n - 1, cuts);
}

/* ---- who waits for room gets the error ---- */

static const struct geometry plain = {.name = "plain", .size = MiB(2), .cluster = 512};
#define TABLE  KiB(32) /* what one L2 table maps */
#define TABLES 64u
#define ENOUGH 20000u /* calls of the backend for all requests together */

/* The smallest cache, each request changes another slice, and no round finds space. */
static void rounds_end(void **state)
{
    unsigned refused = 0, done = 0;

    (void)state;
    begin(&plain, 1);
    for (unsigned i = 0; i < TABLES; i++)
        assert_int_equal(rig_write(&r, i * TABLE, 512, 1), 0);
    assert_int_equal(zqcow2_flush(r.img), 0);
    fault_plan(&r.fault, FAULT_NO_ROOM, 1, true);
    r.fault.limit = ENOUGH;
    for (unsigned i = 0; i < TABLES; i++) {
        int rc = zqcow2_discard(r.img, 512, i * TABLE, 0);

        assert_true(rc == 0 || rc == -ENOSPC);
        if (rc ? !rig_holds(&r, i * TABLE, 512, i * TABLE, 1) : !rig_zeros(&r, i * TABLE, 512))
            fail_msg("discard %u returned %d and did otherwise", i, rc);
        refused += rc != 0;
        done += rc == 0;
    }
    assert_true(refused > 0 && done > 0);
    printf("no space in a small cache: %u discards refused, %u done, %llu calls\n", refused, done,
           (unsigned long long)r.fault.calls);
    assert_false(rig_info(&r).flags & ZQCOW2_INFO_DEAD);
    r.fault.limit = 0;
    fault_plan(&r.fault, FAULT_NONE, 0, false);
    for (unsigned i = 0; i < TABLES; i++)
        assert_int_equal(zqcow2_discard(r.img, 512, i * TABLE, 0), 0);
    assert_int_equal(zqcow2_flush(r.img), 0);
    cut();
    assert_true(rig_zeros(&r, 0, MiB(2)));
    rig_end(&r);
}

/* ---- a barrier without space: its data may be gone, and no caller shall flush again ---- */

static uint8_t sectors[4096];

static bool is_dead(struct zqcow2_image *img)
{
    struct zqcow2_info info = ZQCOW2_INFO_INIT;

    assert_int_equal(zqcow2_get_info(img, &info), 0);
    return info.flags & ZQCOW2_INFO_DEAD;
}

static struct zqcow2_image *one_append(struct zqcow2_simdisk *disk)
{
    struct zqcow2_create_options c = ZQCOW2_CREATE_OPTIONS_INIT;
    struct zqcow2_open_options o = ZQCOW2_OPEN_OPTIONS_INIT;
    struct zqcow2_backend *be;
    struct zqcow2_image *img;
    uint64_t at = 0;

    c.virtual_size = MiB(8);
    c.zone_size = MiB(1);
    o.flags = ZQCOW2_OPEN_RDWR;
    assert_int_equal(zqcow2_simdisk_backend(disk, &be), 0);
    assert_int_equal(zqcow2_create(be, &c, NULL), 0);
    assert_int_equal(zqcow2_open(be, &o, &img, NULL), 0);
    assert_int_equal(zqcow2_append(img, sectors, 4096, &at, 0), 0);
    return img;
}

/* The n-th barrier of a request, or of the close (op < 0) fails; false: there was none. */
static bool one_barrier(unsigned flags, int op, unsigned n, int error)
{
    struct zqcow2_simdisk_fault f = ZQCOW2_SIMDISK_FAULT_INIT;
    struct zqcow2_simdisk_options s = ZQCOW2_SIMDISK_OPTIONS_INIT;
    struct iovec v = {sectors, 4096};
    struct zqcow2_request req = {sizeof(req), (uint16_t)op, ZQCOW2_FUA, 0, MiB(1), &v, 1, 0, 0, 0};
    struct zqcow2_simdisk_counters count = ZQCOW2_SIMDISK_COUNTERS_INIT;
    struct zqcow2_simdisk *disk;
    struct zqcow2_image *img;
    bool met;
    int rc;

    s.flags = flags;
    assert_int_equal(zqcow2_simdisk_new(&s, &disk), 0);
    img = one_append(disk);
    f.kinds = 1u << ZQCOW2_IO_FLUSH;
    f.nth = n;
    f.error = error;
    assert_int_equal(zqcow2_simdisk_set_fault(disk, &f), 0);
    rc = op < 0 ? zqcow2_close(img) : zqcow2_run(img, &req, NULL);
    assert_int_equal(zqcow2_simdisk_get_counters(disk, &count), 0);
    met = count.faults;
    if (rc != (met ? -EIO : 0))
        fail_msg("flags %u, op %d: barrier %u fails with %d: returned %d", flags, op, n, error, rc);
    if (op >= 0) {
        assert_int_equal(is_dead(img), met);
        assert_int_equal(zqcow2_simdisk_set_fault(disk, NULL), 0);
        assert_int_equal(zqcow2_flush(img), met ? ZQCOW2_EDEAD : 0);
        assert_int_equal(zqcow2_close(img), met ? ZQCOW2_EDEAD : 0);
    }
    zqcow2_simdisk_free(disk);
    return met;
}

static void a_barrier_without_space_kills(void **state)
{
    static const int errors[] = {-ENOSPC, -EDQUOT, -EFBIG};
    static const int ops[] = {ZQCOW2_OP_FLUSH, ZQCOW2_OP_DRAIN, ZQCOW2_OP_APPEND,
                              ZQCOW2_OP_ZONE_FINISH, -1};
    unsigned points = 0;

    (void)state;
    for (unsigned k = 0; k < 5 * 2; k++) {
        unsigned n = 1;

        while (one_barrier(k % 2 ? ZQCOW2_SIMDISK_ASYNC : 0, ops[k / 2], n, errors[n % 3]))
            n++;
        assert_true(n > 2);
        points += n - 1;
    }
    printf("barriers without space: %u points, each killed and none was \"no space\"\n", points);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_is_dirty_again),
        cmocka_unit_test(growth_stays),
        cmocka_unit_test(rounds_end),
        cmocka_unit_test(a_barrier_without_space_kills),
    };

    return cmocka_run_group_tests_name("stopped", tests, NULL, NULL);
}
