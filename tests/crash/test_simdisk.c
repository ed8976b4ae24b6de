/* SPDX-License-Identifier: MIT */
/* Proves the simulated disk: what a power loss may leave, faults, order of completions, replay. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <zqcow2/simdisk.h>
#include "device/io.h"
#include "simdisk/simdisk_int.h"

#define S 512u

struct rig {
    struct zqcow2_simdisk *disk;
    struct sim_handle h; /* the backend's self, to call it as the library does */
    const struct zqcow2_backend_ops *ops;
};

static struct rig make(uint32_t flags, uint32_t atomic, uint32_t discard, uint64_t seed)
{
    struct zqcow2_simdisk_options o = ZQCOW2_SIMDISK_OPTIONS_INIT;
    struct rig r = {0};

    o.flags = flags;
    o.atomic_write = atomic;
    o.discard = discard;
    o.seed = seed;
    o.length = 64 * S;
    assert_int_equal(zqcow2_simdisk_new(&o, &r.disk), 0);
    r.h.disk = r.disk;
    r.ops = sim_ops(flags & ZQCOW2_SIMDISK_ASYNC);
    return r;
}

static int put(struct rig *r, uint64_t sector, unsigned sectors, uint8_t value)
{
    uint8_t buf[64 * S];
    struct iovec v = {buf, sectors * S};

    memset(buf, value, sizeof(buf));
    return r->ops->writev(&r->h, &v, 1, sector * S);
}

static uint8_t seen(struct zqcow2_simdisk *d, uint64_t sector)
{
    uint8_t buf[S];

    assert_int_equal(zqcow2_simdisk_export(d, buf, S, sector * S), 0);
    for (unsigned i = 1; i < S; i++)
        assert_int_equal(buf[i], buf[0]);
    return buf[0];
}

static uint8_t after_loss(const struct zqcow2_simdisk_cut *cut, uint64_t k, uint64_t sector)
{
    struct zqcow2_simdisk *d;
    uint8_t v;

    assert_int_equal(zqcow2_simdisk_cut_image(cut, k, &d), 0);
    v = seen(d, sector);
    zqcow2_simdisk_free(d);
    return v;
}

static void test_subsets(void **state)
{
    struct rig r = make(0, 0, 0, 1);
    struct zqcow2_simdisk_cut *cut;
    (void)state;

    put(&r, 0, 1, 1);
    put(&r, 1, 1, 2);
    put(&r, 0, 1, 3);
    assert_int_equal(zqcow2_simdisk_cut_new(r.disk, &cut), 0);
    assert_int_equal(zqcow2_simdisk_cut_pending(cut), 3);
    assert_int_equal(zqcow2_simdisk_cut_states(cut), 8);
    for (unsigned k = 0; k < 8; k++) {
        assert_int_equal(after_loss(cut, k, 0), k & 4 ? 3 : k & 1 ? 1 : 0);
        assert_int_equal(after_loss(cut, k, 1), k & 2 ? 2 : 0);
    }
    zqcow2_simdisk_cut_free(cut);
    assert_int_equal(r.ops->flush(&r.h), 0);
    assert_int_equal(zqcow2_simdisk_cut_new(r.disk, &cut), 0);
    assert_int_equal(zqcow2_simdisk_cut_pending(cut), 0);
    assert_int_equal(zqcow2_simdisk_cut_states(cut), 1);
    assert_int_equal(after_loss(cut, 0, 0), 3);
    zqcow2_simdisk_cut_free(cut);
    zqcow2_simdisk_free(r.disk);
}

/* Many changes: the enumeration holds what it promises, and every state is reachable. */
static void test_many(void **state)
{
    struct rig r = make(0, 0, 0, 7);
    struct zqcow2_simdisk_cut *cut;
    const unsigned n = 14;
    uint64_t states;
    unsigned none = 0, all = 0, one = 0, but_one = 0, but_two = 0, prefix = 0;
    (void)state;

    for (unsigned i = 0; i < n; i++)
        put(&r, i, 1, 1);
    assert_int_equal(zqcow2_simdisk_cut_new(r.disk, &cut), 0);
    states = zqcow2_simdisk_cut_states(cut);
    assert_int_equal(states, 2 + 3 * n + n * (n - 1) / 2 + 64);
    for (uint64_t k = 0; k < 2 + 3 * n + n * (n - 1) / 2; k++) {
        unsigned mask = 0;

        for (unsigned i = 0; i < n; i++)
            mask |= (unsigned)after_loss(cut, k, i) << i;
        none += mask == 0;
        all += mask == (1u << n) - 1;
        one += __builtin_popcount(mask) == 1;
        but_one += __builtin_popcount(mask) == (int)n - 1;
        but_two += __builtin_popcount(mask) == (int)n - 2;
        prefix += mask && (mask & (mask + 1)) == 0;
    }
    /* prefixes of 0 .. n-1 changes, so none comes twice */
    assert_int_equal(none, 2);
    assert_int_equal(all, 1);
    assert_int_equal(one, n + 1);
    assert_int_equal(but_one, n + 1);
    assert_int_equal(but_two, n * (n - 1) / 2 + 1);
    assert_true(prefix >= n);
    {
        struct zqcow2_simdisk *d;
        assert_int_equal(zqcow2_simdisk_cut_image(cut, states, &d), -EINVAL);
    }
    zqcow2_simdisk_cut_free(cut);
    zqcow2_simdisk_free(r.disk);
}

static void tearing(uint32_t atomic, unsigned units)
{
    struct rig r = make(0, atomic, 0, 3);
    struct zqcow2_simdisk_cut *cut;
    unsigned cuts_seen = 0, per = 32 / units;
    uint64_t states;

    put(&r, 0, 32, 9);
    assert_int_equal(zqcow2_simdisk_cut_new(r.disk, &cut), 0);
    states = zqcow2_simdisk_cut_states(cut);
    assert_true(units == 1 ? states == 2 : states > 2 + units / 2);
    for (uint64_t k = 0; k < states; k++) {
        unsigned kept = 0, bad = 0, front = 0;

        for (unsigned s = 0; s < 32; s++) {
            uint8_t v = after_loss(cut, k, s);

            kept += v == 9;
            front += v == 9 && kept == s + 1;
            bad += s % per && v != after_loss(cut, k, s - 1);
        }
        assert_int_equal(bad, 0); /* a unit never tears */
        cuts_seen += front == kept && kept && kept < 32;
    }
    assert_true(units == 1 ? cuts_seen == 0 : cuts_seen >= (units <= 16 ? units - 1 : 16));
    zqcow2_simdisk_cut_free(cut);
    zqcow2_simdisk_free(r.disk);
}

static void test_tearing(void **state)
{
    (void)state;
    tearing(512, 32);
    tearing(4096, 4);
    tearing(ZQCOW2_SIMDISK_ATOMIC, 1);
}

static void test_kinds(void **state)
{
    struct rig r = make(0, 0, ZQCOW2_SIMDISK_DISCARD_SCRAMBLES, 5);
    struct zqcow2_simdisk *d;
    struct zqcow2_simdisk_cut *cut;
    uint8_t buf[S];
    (void)state;

    put(&r, 0, 4, 1);
    r.ops->flush(&r.h);
    assert_int_equal(r.ops->zero(&r.h, S, S), 0);
    assert_int_equal(r.ops->discard(&r.h, 2 * S, S), 0);
    assert_int_equal(r.ops->truncate(&r.h, 100 * S), 0);
    assert_int_equal(seen(r.disk, 1), 0);
    assert_int_equal(zqcow2_simdisk_export(r.disk, buf, S, 2 * S), 0);
    assert_true(buf[0] != buf[1] || buf[1] != buf[2]);
    assert_int_equal(zqcow2_simdisk_length(r.disk), 100 * S);
    assert_int_equal(zqcow2_simdisk_cut_new(r.disk, &cut), 0);
    assert_int_equal(zqcow2_simdisk_cut_states(cut), 8);
    for (unsigned k = 0; k < 8; k++) {
        assert_int_equal(zqcow2_simdisk_cut_image(cut, k, &d), 0);
        assert_int_equal(seen(d, 1), k & 1 ? 0 : 1);
        if (!(k & 2))
            assert_int_equal(seen(d, 2), 1);
        assert_int_equal(zqcow2_simdisk_length(d), (k & 4 ? 100 : 64) * S);
        zqcow2_simdisk_free(d);
    }
    zqcow2_simdisk_cut_free(cut);
    /* zeroing what was never written, far behind what was */
    assert_int_equal(r.ops->zero(&r.h, 90 * S, S), 0);
    assert_int_equal(r.ops->zero(&r.h, (uint64_t)S << 30, S << 20), 0);
    assert_int_equal(seen(r.disk, 90), 0);
    /* shrinking forgets what lay there */
    assert_int_equal(r.ops->truncate(&r.h, S), 0);
    assert_int_equal(r.ops->truncate(&r.h, 64 * S), 0);
    assert_int_equal(seen(r.disk, 3), 0);
    assert_int_equal(seen(r.disk, 0), 1);
    zqcow2_simdisk_free(r.disk);
}

static void arm(struct rig *r, uint64_t nth, uint32_t kind, uint32_t flags, int error)
{
    struct zqcow2_simdisk_fault f = ZQCOW2_SIMDISK_FAULT_INIT;

    f.nth = nth;
    f.kinds = 1u << kind;
    f.flags = flags;
    f.error = error;
    assert_int_equal(zqcow2_simdisk_set_fault(r->disk, &f), 0);
}

static void test_faults(void **state)
{
    struct rig r = make(0, 0, 0, 1);
    struct zqcow2_simdisk_counters c = ZQCOW2_SIMDISK_COUNTERS_INIT;
    (void)state;

    arm(&r, 2, ZQCOW2_IO_WRITE, 0, -EIO);
    assert_int_equal(put(&r, 0, 1, 1), 0);
    assert_int_equal(put(&r, 1, 1, 1), -EIO);
    assert_int_equal(put(&r, 2, 1, 1), 0);
    assert_int_equal(seen(r.disk, 1), 0);
    arm(&r, 1, ZQCOW2_IO_WRITE, ZQCOW2_SIMDISK_FOREVER | ZQCOW2_SIMDISK_SHORT, -ENOSPC);
    assert_int_equal(put(&r, 8, 4, 2), -ENOSPC);
    assert_int_equal(put(&r, 20, 1, 2), -ENOSPC);
    assert_int_equal(seen(r.disk, 9), 2);
    assert_int_equal(seen(r.disk, 10), 0);
    assert_int_equal(zqcow2_simdisk_set_fault(r.disk, NULL), 0);
    assert_int_equal(put(&r, 20, 1, 2), 0);
    arm(&r, 1, ZQCOW2_IO_TRUNCATE, 0, -ENOSPC);
    assert_int_equal(r.ops->truncate(&r.h, 100 * S), -ENOSPC);
    assert_int_equal(zqcow2_simdisk_length(r.disk), 64 * S);
    arm(&r, 1, ZQCOW2_IO_READ, 0, -EIO);
    {
        uint8_t buf[S];
        struct iovec v = {buf, S};
        assert_int_equal(r.ops->readv(&r.h, &v, 1, 0), -EIO);
        assert_int_equal(r.ops->readv(&r.h, &v, 1, 0), 0);
        assert_int_equal(buf[7], 1);
    }
    assert_int_equal(zqcow2_simdisk_get_counters(r.disk, &c), 0);
    assert_int_equal(c.faults, 5);
    assert_int_equal(c.calls[ZQCOW2_IO_WRITE], 6);
    assert_int_equal(c.bytes[ZQCOW2_IO_READ], 2 * S);
    zqcow2_simdisk_free(r.disk);
}

/* A failed flush: all still reads, a part is gone for good, and a later flush cannot save it. */
static void test_failed_flush(void **state)
{
    struct rig r = make(0, 0, 0, 11);
    struct zqcow2_simdisk_cut *cut;
    unsigned lost = 0;
    (void)state;

    for (unsigned i = 0; i < 32; i++)
        put(&r, i, 1, 5);
    arm(&r, 1, ZQCOW2_IO_FLUSH, 0, -EIO);
    assert_int_equal(r.ops->flush(&r.h), -EIO);
    assert_int_equal(r.ops->flush(&r.h), 0);
    assert_int_equal(zqcow2_simdisk_cut_new(r.disk, &cut), 0);
    assert_int_equal(zqcow2_simdisk_cut_states(cut), 1);
    for (unsigned i = 0; i < 32; i++) {
        assert_int_equal(seen(r.disk, i), 5);
        lost += after_loss(cut, 0, i) == 0;
    }
    assert_in_range(lost, 4, 28);
    r.ops->invalidate(&r.h);
    for (unsigned i = 0; i < 32; i++)
        assert_int_equal(seen(r.disk, i), after_loss(cut, 0, i));
    zqcow2_simdisk_cut_free(cut);
    zqcow2_simdisk_free(r.disk);
}

/* One recorded run gives the states of every moment, and power_off() stops at such a moment. */
static void test_record_replay(void **state)
{
    struct rig r = make(ZQCOW2_SIMDISK_RECORD, 0, 0, 1);
    struct zqcow2_simdisk_op op = ZQCOW2_SIMDISK_OP_INIT;
    struct zqcow2_simdisk_cut *cut;
    static const uint32_t pending[] = {0, 1, 1, 2, 2, 2, 0, 1, 1};
    (void)state;

    put(&r, 0, 1, 1);
    put(&r, 1, 1, 2);
    r.ops->flush(&r.h);
    put(&r, 2, 1, 3);
    assert_int_equal(zqcow2_simdisk_position(r.disk), 8);
    assert_int_equal(zqcow2_simdisk_cut_new(r.disk, &cut), 0);
    for (int way = 0; way < 2; way++) {
        for (uint64_t p = 0; p <= 8; p++) {
            assert_int_equal(zqcow2_simdisk_cut_seek(cut, way ? 8 - p : p), 0);
            assert_int_equal(zqcow2_simdisk_cut_pending(cut), pending[way ? 8 - p : p]);
        }
    }
    assert_int_equal(zqcow2_simdisk_cut_seek(cut, 9), -ENOENT);
    assert_int_equal(zqcow2_simdisk_cut_seek(cut, 8), 0);
    assert_int_equal(zqcow2_simdisk_cut_op(cut, 0, &op), 0);
    assert_int_equal(op.offset, 2 * S);
    assert_int_equal(zqcow2_simdisk_event(r.disk, 4, &op), 0);
    assert_int_equal(op.kind, ZQCOW2_IO_FLUSH);
    zqcow2_simdisk_cut_free(cut);
    zqcow2_simdisk_power_off(r.disk, 9);
    assert_int_equal(put(&r, 3, 1, 4), -EIO); /* begins, and power goes */
    assert_int_equal(put(&r, 4, 1, 4), -EIO);
    assert_int_equal(r.ops->flush(&r.h), -EIO);
    assert_int_equal(zqcow2_simdisk_cut_new(r.disk, &cut), 0);
    assert_int_equal(zqcow2_simdisk_cut_seek(cut, 9), 0);
    assert_int_equal(zqcow2_simdisk_cut_states(cut), 4);
    assert_int_equal(after_loss(cut, 3, 3), 4);
    zqcow2_simdisk_cut_free(cut);
    zqcow2_simdisk_free(r.disk);
}

/* Contents that are equal hash equal, whichever way they came about. */
static void test_hash(void **state)
{
    struct rig a = make(0, 0, 0, 1), b = make(0, 0, 0, 2);
    struct zqcow2_simdisk *c;
    uint8_t buf[3 * S];
    (void)state;

    put(&a, 1, 1, 7);
    put(&a, 1, 2, 1);
    put(&a, 2, 1, 0);
    put(&b, 1, 1, 1);
    assert_true(zqcow2_simdisk_hash(a.disk) == zqcow2_simdisk_hash(b.disk)); /* nothing durable */
    a.ops->flush(&a.h);
    assert_true(zqcow2_simdisk_hash(a.disk) != zqcow2_simdisk_hash(b.disk));
    b.ops->flush(&b.h);
    assert_true(zqcow2_simdisk_hash(a.disk) == zqcow2_simdisk_hash(b.disk));
    assert_int_equal(zqcow2_simdisk_clone(a.disk, &c), 0);
    put(&a, 1, 1, 9);
    assert_int_equal(seen(c, 1), 1);
    memset(buf, 3, sizeof(buf));
    assert_int_equal(zqcow2_simdisk_import(c, buf, sizeof(buf), 5000 * S), 0);
    assert_int_equal(zqcow2_simdisk_length(c), 5003 * S);
    assert_int_equal(seen(c, 5002), 3);
    assert_int_equal(seen(c, 5003), 0);
    assert_true(zqcow2_simdisk_hash(c) != zqcow2_simdisk_hash(b.disk));
    zqcow2_simdisk_free(c);
    zqcow2_simdisk_free(a.disk);
    zqcow2_simdisk_free(b.disk);
}

/* A killed program: what had ended is seen, but a power loss may still take it. */
static void test_kill(void **state)
{
    struct rig r = make(ZQCOW2_SIMDISK_RECORD, 0, 0, 1);
    struct zqcow2_simdisk_cut *cut, *later;
    struct zqcow2_simdisk *d;
    struct sim_handle h = {0};
    (void)state;

    put(&r, 0, 1, 1);
    r.ops->flush(&r.h);
    put(&r, 1, 1, 2);
    put(&r, 2, 1, 3);
    assert_int_equal(zqcow2_simdisk_cut_new(r.disk, &cut), 0);
    assert_int_equal(zqcow2_simdisk_cut_seek(cut, 7), 0); /* the third write has begun */
    assert_int_equal(zqcow2_simdisk_cut_kill(cut, &d), 0);
    for (unsigned s = 0; s < 3; s++)
        assert_int_equal(seen(d, s), s == 2 ? 0 : s + 1);
    assert_int_equal(zqcow2_simdisk_record(d), 0);
    assert_int_equal(zqcow2_simdisk_cut_new(d, &later), 0);
    assert_int_equal(zqcow2_simdisk_cut_states(later), 2);
    assert_int_equal(after_loss(later, 0, 1), 0);
    assert_int_equal(after_loss(later, 1, 1), 2);
    h.disk = d;
    assert_int_equal(r.ops->flush(&h), 0);
    assert_int_equal(zqcow2_simdisk_cut_seek(later, zqcow2_simdisk_position(d)), 0);
    assert_int_equal(zqcow2_simdisk_cut_states(later), 1);
    assert_int_equal(after_loss(later, 0, 1), 2);
    zqcow2_simdisk_cut_free(later);
    zqcow2_simdisk_free(d);
    zqcow2_simdisk_cut_free(cut);
    zqcow2_simdisk_free(r.disk);
}

static int keep_second(void *arg, uint32_t change, uint32_t unit)
{
    (void)arg;
    return change == 1 && unit == 1;
}

static int keep_all(void *arg, uint32_t change, uint32_t unit)
{
    (void)arg;
    (void)change;
    (void)unit;
    return 1;
}

static void test_choose(void **state)
{
    struct rig r = make(0, 0, 0, 1);
    struct zqcow2_simdisk_cut *cut;
    struct zqcow2_simdisk *d;
    unsigned orders = 0;
    (void)state;

    put(&r, 0, 2, 1);
    put(&r, 0, 2, 2);
    assert_int_equal(zqcow2_simdisk_cut_new(r.disk, &cut), 0);
    assert_int_equal(zqcow2_simdisk_cut_choose(cut, keep_second, NULL, 0, &d), 0);
    assert_int_equal(seen(d, 0), 0);
    assert_int_equal(seen(d, 1), 2);
    zqcow2_simdisk_free(d);
    for (uint64_t seed = 1; seed < 16; seed++) {
        assert_int_equal(zqcow2_simdisk_cut_choose(cut, keep_all, NULL, seed, &d), 0);
        orders |= 1u << seen(d, 0);
        zqcow2_simdisk_free(d);
    }
    assert_int_equal(orders, 6);
    zqcow2_simdisk_cut_free(cut);
    zqcow2_simdisk_free(r.disk);
}

static void test_limits(void **state)
{
    struct zqcow2_simdisk_options o = ZQCOW2_SIMDISK_OPTIONS_INIT;
    struct zqcow2_simdisk *d;
    struct rig r = {0}, q;
    (void)state;

    o.max_length = 4 * S;
    assert_int_equal(zqcow2_simdisk_new(&o, &r.disk), 0);
    r.h.disk = r.disk;
    r.ops = sim_ops(false);
    assert_int_equal(put(&r, 0, 4, 1), 0);
    assert_int_equal(put(&r, 3, 2, 1), -ENOSPC);
    assert_int_equal(r.ops->truncate(&r.h, 5 * S), -ENOSPC);
    q = r;
    assert_int_equal(r.ops->lock(&r.h, ZQCOW2_LOCK_EXCLUSIVE), 0);
    assert_int_equal(q.ops->lock(&q.h, ZQCOW2_LOCK_SHARED), -EAGAIN);
    assert_int_equal(r.ops->lock(&r.h, ZQCOW2_LOCK_SHARED), 0);
    assert_int_equal(q.ops->lock(&q.h, ZQCOW2_LOCK_SHARED), 0);
    assert_int_equal(q.ops->lock(&q.h, ZQCOW2_LOCK_EXCLUSIVE), -EAGAIN);
    assert_int_equal(q.ops->lock(&q.h, ZQCOW2_LOCK_NONE), 0);
    zqcow2_simdisk_free(r.disk);
    o.atomic_write = 1000;
    assert_int_equal(zqcow2_simdisk_new(&o, &d), -EINVAL);
    o.atomic_write = 0;
    o.flags = 1u << 20;
    assert_int_equal(zqcow2_simdisk_new(&o, &d), -EINVAL);
}

/* Eight asynchronous writes, a flush among them: the order in which poll() completed them. */
struct flights {
    struct zq_iox x; /* first: landed() finds the rest by it */
    struct zq_io io[9];
    struct iovec v[9];
    uint8_t buf[S], order[9];
    int n;
};

static void landed(struct zqcow2_io *pub, int ret)
{
    struct zq_io *io = (struct zq_io *)pub;
    struct flights *f = (struct flights *)(void *)io->x;

    assert_int_equal(ret, 0);
    f->order[f->n++] = (uint8_t)(io - f->io);
}

static void launch(struct rig *r, struct flights *f)
{
    for (unsigned i = 0; i < 9; i++) {
        f->v[i] = (struct iovec){f->buf, S};
        f->io[i].x = &f->x;
        f->io[i].pub.done = landed;
        f->io[i].pub.kind = i == 8 ? ZQCOW2_IO_FLUSH : ZQCOW2_IO_WRITE;
        f->io[i].pub.iov = &f->v[i];
        f->io[i].pub.iovcnt = i == 8 ? 0 : 1;
        f->io[i].pub.offset = i == 8 ? 0 : i * S;
        f->io[i].pub.length = i == 8 ? 0 : S;
        assert_int_equal(r->ops->submit(&r->h, &f->io[i].pub), 0);
    }
}

static uint64_t fly(uint64_t seed, struct flights *f)
{
    struct rig r = make(ZQCOW2_SIMDISK_ASYNC | ZQCOW2_SIMDISK_RECORD, 0, 0, seed);
    struct zqcow2_simdisk_counters c = ZQCOW2_SIMDISK_COUNTERS_INIT;
    struct zqcow2_simdisk_cut *cut;
    unsigned polls = 0;

    memset(f, 0, sizeof(*f));
    memset(f->buf, 6, S);
    launch(&r, f);
    while (f->n < 9) {
        assert_true(r.ops->poll(&r.h, 0) > 0);
        polls++;
    }
    assert_int_equal(r.ops->poll(&r.h, 0), 0);
    r.ops->wake(&r.h);
    assert_int_equal(r.ops->poll(&r.h, -1), 0);
    /* The flush was submitted after the writes, before any had ended: it covers none. */
    assert_int_equal(zqcow2_simdisk_cut_new(r.disk, &cut), 0);
    assert_int_equal(zqcow2_simdisk_cut_seek(cut, 18), 0);
    assert_int_equal(zqcow2_simdisk_cut_pending(cut), 8);
    zqcow2_simdisk_cut_free(cut);
    assert_int_equal(zqcow2_simdisk_get_counters(r.disk, &c), 0);
    assert_int_equal(c.max_in_flight, 9);
    assert_int_equal(c.in_flight, 0);
    assert_int_equal(c.misuse, 0);
    zqcow2_simdisk_free(r.disk);
    return polls;
}

static void test_async(void **state)
{
    struct flights a, b;
    unsigned differ = 0;
    (void)state;

    for (uint64_t seed = 0; seed < 8; seed++) {
        assert_int_equal(fly(seed, &a), fly(seed, &b));
        assert_memory_equal(a.order, b.order, 9);
        fly(seed + 1, &b);
        differ += memcmp(a.order, b.order, 9) != 0;
    }
    assert_true(differ >= 7);
}

static void test_overlap(void **state)
{
    struct rig r = make(ZQCOW2_SIMDISK_ASYNC, 0, 0, 1);
    struct zqcow2_simdisk_counters c = ZQCOW2_SIMDISK_COUNTERS_INIT;
    struct flights f = {.buf = {0}};
    (void)state;

    launch(&r, &f);
    put(&r, 3, 1, 1);
    put(&r, 20, 1, 1);
    assert_int_equal(zqcow2_simdisk_get_counters(r.disk, &c), 0);
    assert_int_equal(c.misuse, 1);
    while (f.n < 9)
        r.ops->poll(&r.h, -1);
    zqcow2_simdisk_free(r.disk);
}

/* A backend on the disk leaves it alone when it is closed. */
static void test_backend(void **state)
{
    struct rig r = make(0, 0, 0, 1);
    struct zqcow2_backend *be;
    uint8_t buf[S];
    (void)state;

    memset(buf, 4, S);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(zqcow2_simdisk_backend(r.disk, &be), 0);
        assert_int_equal(zqcow2_backend_write(be, buf, S, S), 0);
        zqcow2_backend_close(be);
        assert_int_equal(seen(r.disk, 1), 4);
    }
    zqcow2_simdisk_free(r.disk);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_subsets),       cmocka_unit_test(test_many),
        cmocka_unit_test(test_tearing),       cmocka_unit_test(test_kinds),
        cmocka_unit_test(test_faults),        cmocka_unit_test(test_failed_flush),
        cmocka_unit_test(test_record_replay), cmocka_unit_test(test_hash),
        cmocka_unit_test(test_choose),        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_async),         cmocka_unit_test(test_overlap),
        cmocka_unit_test(test_backend),       cmocka_unit_test(test_kill),
    };

    return cmocka_run_group_tests_name("simdisk", tests, NULL, NULL);
}
