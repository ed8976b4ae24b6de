/* SPDX-License-Identifier: MIT */
/*
 * Faults on a live disk, against a model of the file: what reads return, what the inner backend may
 * hold after a cut, and that a request that fails changes nothing.
 */
#include <errno.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <zqcow2/faults.h>
#include <zqcow2/simdisk.h>
#include "rig/rng.h"

#define BLOCK   512u
#define BLOCKS  96u
#define CHANGES 64u
#define KiB(n)  ((uint64_t)(n) << 10)

static uint64_t histories(void)
{
    const char *n = getenv("ZQ_HISTORIES");

    return n ? strtoull(n, NULL, 0) : 3000;
}

/* ---- a world: a simulated disk, and the faults backend on it ---- */

/* A change since the last flush, in blocks; a truncate ends with the file's. */
struct change {
    uint32_t kind;
    uint64_t number, from, to, stamp;
};

struct world {
    uint64_t seed, rng;
    struct zqcow2_simdisk *disk;
    struct zqcow2_faults *f;
    struct zqcow2_backend *be;
    uint64_t unit;         /* blocks: the smallest request */
    uint64_t base[BLOCKS]; /* what inner holds: a stamp per block, 0: zeros */
    uint64_t base_length;  /* in blocks */
    struct change change[CHANGES];
    unsigned nr; /* held */
    uint64_t changes, stamps, through;
    uint64_t log_hash, lines, found_hash;
    uint64_t twist;                              /* other seeds of cuts */
    uint64_t kept, lost, torn, older, reordered; /* what cuts did */
};

#define must(w, good, what) \
    do { \
        if (!(good)) \
            fail_msg("seed %" PRIu64 ", line %d: %s", (w)->seed, __LINE__, what); \
    } while (0)

/* A change that has gone through can no longer be lost. */
static void apply(struct world *w, const struct change *c)
{
    for (uint64_t b = c->from; b < c->to; b++)
        w->base[b] = c->stamp;
    if (c->kind == ZQCOW2_IO_TRUNCATE)
        w->base_length = c->from;
    else if (c->kind == ZQCOW2_IO_WRITE && c->to > w->base_length)
        w->base_length = c->to;
}

/* "through: write 7, 512 bytes at 0": the oldest of those that are held. */
static void on_line(void *arg, const char *line)
{
    struct world *w = arg;
    uint64_t number;

    for (const char *p = line; *p; p++)
        w->log_hash = rng_mix(w->log_hash ^ (unsigned char)*p);
    w->lines++;
    if (sscanf(line, "through: %*s %" SCNu64, &number) != 1)
        return;
    must(w, w->nr && w->change[0].number == number, line);
    apply(w, &w->change[0]);
    memmove(w->change, w->change + 1, --w->nr * sizeof(w->change[0]));
    w->through++;
}

static void world_begin(struct world *w, uint64_t seed, uint64_t max_held)
{
    struct zqcow2_simdisk_options d = ZQCOW2_SIMDISK_OPTIONS_INIT;
    struct zqcow2_faults_options o = ZQCOW2_FAULTS_OPTIONS_INIT;
    struct zqcow2_backend *inner;

    memset(w, 0, sizeof(*w));
    w->seed = seed;
    w->rng = seed;
    w->unit = seed % 4 ? 1 : 8;
    d.length = BLOCKS / 2 * BLOCK;
    d.io_align = (uint32_t)w->unit * BLOCK;
    d.buf_align = seed % 8 ? 1 : d.io_align;
    d.max_transfer = seed % 3 ? 0 : KiB(128);
    d.flags = seed % 5 ? 0 : ZQCOW2_SIMDISK_NO_ZERO;
    w->base_length = BLOCKS / 2;
    assert_int_equal(zqcow2_simdisk_new(&d, &w->disk), 0);
    assert_int_equal(zqcow2_simdisk_backend(w->disk, &inner), 0);
    o.max_held = max_held;
    o.log = on_line;
    o.log_arg = w;
    assert_int_equal(zqcow2_faults_wrap(inner, &o, &w->f), 0);
    assert_int_equal(zqcow2_faults_backend(w->f, &w->be), 0);
}

static void world_end(struct world *w)
{
    struct zqcow2_simdisk_counters n = ZQCOW2_SIMDISK_COUNTERS_INIT;

    zqcow2_backend_close(w->be);
    zqcow2_faults_free(w->f);
    assert_int_equal(zqcow2_simdisk_get_counters(w->disk, &n), 0);
    must(w, n.misuse == 0, "inner's limits were not kept");
    zqcow2_simdisk_free(w->disk);
}

static uint64_t draw(struct world *w, uint64_t n)
{
    return rng_below(&w->rng, n);
}

static _Alignas(4096) uint8_t data[BLOCKS * BLOCK];

static void stamp(uint64_t blocks, uint64_t value)
{
    for (uint64_t i = 0; i < blocks * BLOCK; i += 8)
        memcpy(data + i, &value, 8);
}

/* The stamp of a block, which must be one whole. */
static uint64_t stamp_at(const struct world *w, const uint8_t *p)
{
    uint64_t value, other;

    memcpy(&value, p, 8);
    for (unsigned i = 8; i < BLOCK; i += 8) {
        memcpy(&other, p + i, 8);
        must(w, other == value, "a block is torn");
    }
    return value;
}

static uint64_t top_length(const struct world *w)
{
    struct world t = *w;

    for (unsigned i = 0; i < w->nr; i++)
        apply(&t, &w->change[i]);
    return t.base_length;
}

/* What a read of block b must return; with `other`, what it may return since a discard. */
static uint64_t top(const struct world *w, uint64_t b, uint64_t *other)
{
    uint64_t value = w->base[b];

    *other = value;
    for (unsigned i = 0; i < w->nr; i++) {
        const struct change *c = &w->change[i];

        if (b < c->from || b >= c->to)
            continue;
        *other = c->stamp;
        if (c->kind != ZQCOW2_IO_DISCARD)
            value = c->stamp;
    }
    return value;
}

static void check_reads(struct world *w)
{
    uint64_t from = draw(w, BLOCKS / w->unit) * w->unit, other, bytes;
    uint64_t n = (1 + draw(w, (BLOCKS - from) / w->unit)) * w->unit,
             half = n / w->unit / 2 * w->unit;
    struct iovec iov[2] = {{data, half * BLOCK}, {data + half * BLOCK, (n - half) * BLOCK}};

    assert_int_equal(zqcow2_backend_readv(w->be, half ? iov : iov + 1, half ? 2 : 1, from * BLOCK),
                     0);
    for (uint64_t b = from; b < from + n; b++) {
        uint64_t got = stamp_at(w, data + (b - from) * BLOCK);

        must(w, got == top(w, b, &other) || got == other, "a read returns other bytes");
    }
    assert_int_equal(zqcow2_backend_length(w->be, &bytes), 0);
    must(w, bytes == top_length(w) * BLOCK, "the length is another");
    must(w, zqcow2_faults_held(w->f) == w->nr, "another number of changes is held");
}

/* Overlaps are likely: there are few blocks. The model has the change first, for the log's sake. */
static void make_change(struct world *w)
{
    uint64_t from = draw(w, BLOCKS / w->unit) * w->unit, room = (BLOCKS - from) / w->unit;
    uint64_t n = (1 + draw(w, room < 24 ? room : 24)) * w->unit, pick = draw(w, 10);
    struct change c = {.number = ++w->changes, .from = from, .to = from + n};
    struct iovec iov = {data, n * BLOCK};
    int rc;

    c.kind = pick < 7  ? ZQCOW2_IO_WRITE :
             pick == 7 ? ZQCOW2_IO_ZERO :
             pick == 8 ? ZQCOW2_IO_DISCARD :
                         ZQCOW2_IO_TRUNCATE;
    if (c.kind == ZQCOW2_IO_TRUNCATE)
        c.to = BLOCKS;
    if (c.kind == ZQCOW2_IO_WRITE)
        c.stamp = ++w->stamps;
    w->change[w->nr++] = c;
    stamp(n, c.stamp);
    rc = c.kind == ZQCOW2_IO_WRITE   ? zqcow2_backend_writev(w->be, &iov, 1, from * BLOCK) :
         c.kind == ZQCOW2_IO_ZERO    ? zqcow2_backend_zero(w->be, from * BLOCK, n * BLOCK) :
         c.kind == ZQCOW2_IO_DISCARD ? zqcow2_backend_discard(w->be, from * BLOCK, n * BLOCK) :
                                       zqcow2_backend_truncate(w->be, from * BLOCK);
    must(w, rc == 0, "a change failed");
}

static void expect_durable(struct world *w)
{
    struct zqcow2_simdisk_cut *cut;

    assert_int_equal(zqcow2_simdisk_cut_new(w->disk, &cut), 0);
    must(w, zqcow2_simdisk_cut_pending(cut) == 0, "inner was not flushed");
    zqcow2_simdisk_cut_free(cut);
}

static void flush(struct world *w)
{
    assert_int_equal(zqcow2_backend_flush(w->be), 0);
    expect_durable(w);
    for (unsigned i = 0; i < w->nr; i++)
        apply(w, &w->change[i]);
    w->nr = 0;
}

/* What inner holds, durably. */
static void look(struct world *w, uint64_t *found)
{
    expect_durable(w);
    assert_int_equal(zqcow2_simdisk_export(w->disk, data, sizeof(data), 0), 0);
    for (uint64_t b = 0; b < BLOCKS; b++) {
        found[b] = stamp_at(w, data + b * BLOCK);
        w->found_hash = rng_mix(w->found_hash ^ found[b]);
    }
}

/* Every block is old, or what one of the held changes has made it. */
static void judge_blocks(struct world *w, const uint64_t *found)
{
    for (uint64_t b = 0; b < BLOCKS; b++) {
        bool good = found[b] == w->base[b];
        uint64_t newest = w->base[b];

        for (unsigned i = 0; i < w->nr; i++) {
            const struct change *c = &w->change[i];

            if (b < c->from || b >= c->to)
                continue;
            good = good || found[b] == c->stamp;
            newest = c->stamp;
        }
        must(w, good, "after a cut a block has a value that it never had");
        w->older += found[b] != newest && found[b] != w->base[b];
    }
}

static bool alone(const struct world *w, unsigned i, uint64_t b)
{
    for (unsigned k = 0; k < w->nr; k++)
        if (k != i && b >= w->change[k].from && b < w->change[k].to)
            return false;
    return true;
}

/* Units of a write that nothing else has touched survive whole or not at all. unit 0: all of it. */
static void judge_units(struct world *w, const uint64_t *found, uint64_t unit)
{
    for (unsigned i = 0; i < w->nr; i++) {
        const struct change *c = &w->change[i];
        uint64_t kept = 0, lost = 0;

        if (c->kind != ZQCOW2_IO_WRITE)
            continue;
        for (uint64_t b = c->from, first = 2; b < c->to; b++) {
            if (unit && b % unit == 0)
                first = 2;
            if (!alone(w, i, b))
                continue;
            if (first == 2)
                first = found[b] == c->stamp;
            must(w, first == (found[b] == c->stamp), "a unit is torn");
            kept += found[b] == c->stamp;
            lost += found[b] != c->stamp;
        }
        w->kept += kept && !lost;
        w->lost += lost && !kept;
        w->torn += kept && lost;
    }
}

static void expect_off(struct world *w)
{
    struct iovec iov = {data, w->unit * BLOCK};
    uint64_t bytes;

    assert_int_equal(zqcow2_backend_readv(w->be, &iov, 1, 0), -EIO);
    assert_int_equal(zqcow2_backend_writev(w->be, &iov, 1, 0), -EIO);
    assert_int_equal(zqcow2_backend_discard(w->be, 0, iov.iov_len), -EIO);
    assert_int_equal(zqcow2_backend_zero(w->be, 0, iov.iov_len), -EIO);
    assert_int_equal(zqcow2_backend_truncate(w->be, 0), -EIO);
    assert_int_equal(zqcow2_backend_flush(w->be), -EIO);
    assert_int_equal(zqcow2_backend_length(w->be, &bytes), -EIO);
    assert_int_equal(zqcow2_faults_cut(w->f, 0, 0), -EIO);
}

static void cut(struct world *w)
{
    static const uint64_t units[] = {0, 0, 0, 1, 8};
    uint32_t how = (uint32_t)draw(w, ZQCOW2_FAULTS_TORN_4096 + 1);
    bool reorder = draw(w, 2) == 1;
    uint64_t found[BLOCKS], bytes, older = w->older;
    int rc = zqcow2_faults_cut(w->f, rng_next(&w->rng) + w->twist,
                               how | (reorder ? ZQCOW2_FAULTS_REORDER : 0));

    must(w, rc == 0, "a cut failed");
    look(w, found);
    if (how == ZQCOW2_FAULTS_KEEP_ALL && !reorder) {
        for (unsigned i = 0; i < w->nr; i++)
            apply(w, &w->change[i]);
        w->nr = 0;
    }
    if (how == ZQCOW2_FAULTS_LOSE_ALL)
        w->nr = 0;
    must(w, w->nr || zqcow2_simdisk_length(w->disk) == w->base_length * BLOCK, "another length");
    judge_blocks(w, found);
    judge_units(w, found,
                how < ZQCOW2_FAULTS_TORN_512 ? 0 :
                units[how] > w->unit         ? units[how] :
                                               w->unit);
    if (how == ZQCOW2_FAULTS_KEEP_ALL)
        w->reordered += w->older - older;
    expect_off(w);
    zqcow2_faults_restore(w->f);
    w->nr = 0;
    memcpy(w->base, found, sizeof(found));
    assert_int_equal(zqcow2_backend_length(w->be, &bytes), 0);
    must(w, bytes == zqcow2_simdisk_length(w->disk), "the length is not inner's");
    w->base_length = bytes / BLOCK;
}

/* Until a flush, or a change that finds no room, inner hears of nothing. */
static void step(struct world *w)
{
    uint64_t before = zqcow2_simdisk_position(w->disk), through = w->through;

    make_change(w);
    must(w, w->through != through || zqcow2_simdisk_position(w->disk) == before,
         "inner was changed without a flush");
    check_reads(w);
}

static void history(struct world *w, uint64_t seed, uint64_t twist)
{
    world_begin(w, seed, seed % 2 ? 0 : KiB(20));
    w->twist = twist;
    for (unsigned i = 0; i < 48; i++) {
        step(w);
        if (w->nr == CHANGES || draw(w, 12) == 0)
            flush(w);
        else if (draw(w, 16) == 0)
            cut(w);
    }
    flush(w);
    cut(w);
    world_end(w);
}

static void random_histories(void **state)
{
    uint64_t n = histories(), kept = 0, lost = 0, torn = 0, older = 0, through = 0, reordered = 0;
    const char *only = getenv("ZQ_SEED");
    static struct world w;

    (void)state;
    for (uint64_t seed = only ? strtoull(only, NULL, 0) : 1; seed <= n || only; seed++) {
        history(&w, seed, 0);
        kept += w.kept;
        lost += w.lost;
        torn += w.torn;
        older += w.older;
        reordered += w.reordered;
        through += w.through;
        if (only)
            return;
    }
    printf("live_faults: %" PRIu64 " histories, writes %" PRIu64 " kept, %" PRIu64 " lost, %" PRIu64
           " torn, %" PRIu64 " blocks older than the last change, %" PRIu64
           " changes without room, 0 wrong\n",
           n, kept, lost, torn, older, through);
    assert_true(kept && lost && torn && reordered && through);
}

/* The same seed: the same log and the same bytes. Other seeds of the cuts: other bytes. */
static void histories_replay(void **state)
{
    static struct world w;
    unsigned others = 0;

    (void)state;
    for (uint64_t seed = 1; seed <= 50; seed++) {
        uint64_t log, found;

        history(&w, seed, 0);
        log = w.log_hash;
        found = w.found_hash;
        assert_true(w.lines >= 3);
        history(&w, seed, 0);
        must(&w, w.log_hash == log && w.found_hash == found, "the same seed, another history");
        history(&w, seed, 1);
        others += w.found_hash != found;
    }
    assert_in_range(others, 20, 50);
}

/* ---- any alignment, against an array of bytes ---- */

static void bytes_at_any_offset(void **state)
{
    static uint8_t want[8192], got[8192], fresh[8192];
    struct zqcow2_faults *f;
    struct zqcow2_backend *inner, *be;

    (void)state;
    for (uint64_t seed = 1; seed <= 200; seed++) {
        struct zqcow2_faults_options o = ZQCOW2_FAULTS_OPTIONS_INIT;
        uint64_t rng = seed;

        memset(want, 0, sizeof(want));
        assert_int_equal(zqcow2_mem_open(0, NULL, &inner), 0);
        o.max_held = seed % 2 ? 0 : 5000;
        assert_int_equal(zqcow2_faults_wrap(inner, &o, &f), 0);
        assert_int_equal(zqcow2_faults_backend(f, &be), 0);
        for (unsigned i = 0; i < 60; i++) {
            size_t off = rng_below(&rng, sizeof(want)), n = 1 + rng_below(&rng, sizeof(want) - off);

            for (size_t k = 0; k < n; k++)
                fresh[k] = (uint8_t)rng_next(&rng);
            switch (rng_below(&rng, 6)) {
            case 0:
                assert_int_equal(zqcow2_backend_truncate(be, off), 0);
                memset(want + off, 0, sizeof(want) - off);
                break;
            case 1:
                assert_int_equal(zqcow2_backend_zero(be, off, n), 0);
                memset(want + off, 0, n);
                break;
            case 2: assert_int_equal(zqcow2_backend_flush(be), 0); break;
            default:
                assert_int_equal(zqcow2_backend_write(be, fresh, n, off), 0);
                memcpy(want + off, fresh, n);
            }
            assert_int_equal(zqcow2_backend_read(be, got, n, off), 0);
            if (memcmp(got, want + off, n))
                fail_msg("seed %" PRIu64 ", step %u: other bytes", seed, i);
        }
        zqcow2_backend_close(be);
        zqcow2_faults_free(f);
    }
}

/* ---- failures ---- */

static int ask(struct zqcow2_backend *be, uint32_t kind, uint64_t off)
{
    struct iovec iov = {data, BLOCK};

    switch (kind) {
    case ZQCOW2_IO_READ: return zqcow2_backend_readv(be, &iov, 1, off);
    case ZQCOW2_IO_WRITE: return zqcow2_backend_writev(be, &iov, 1, off);
    case ZQCOW2_IO_FLUSH: return zqcow2_backend_flush(be);
    case ZQCOW2_IO_ZERO: return zqcow2_backend_zero(be, off, BLOCK);
    case ZQCOW2_IO_DISCARD: return zqcow2_backend_discard(be, off, BLOCK);
    default: return zqcow2_backend_truncate(be, off);
    }
}

/* What has failed has not happened, and a failed flush has passed nothing on. */
static void failures_change_nothing(void **state)
{
    static struct world w;
    struct zqcow2_faults_rule r = ZQCOW2_FAULTS_RULE_INIT;
    uint64_t before;

    (void)state;
    world_begin(&w, 1, 0);
    for (unsigned i = 0; i < 4; i++)
        make_change(&w);
    before = zqcow2_simdisk_position(w.disk);
    r.kinds = 1u << ZQCOW2_IO_WRITE | 1u << ZQCOW2_IO_FLUSH;
    r.every = 1;
    r.error = -ENOSPC;
    assert_int_equal(zqcow2_faults_add_rule(w.f, &r), 0);
    stamp(1, 77777);
    for (uint64_t b = 0; b < BLOCKS; b++)
        assert_int_equal(ask(w.be, ZQCOW2_IO_WRITE, b * BLOCK), -ENOSPC);
    assert_int_equal(ask(w.be, ZQCOW2_IO_FLUSH, 0), -ENOSPC);
    assert_int_equal(zqcow2_simdisk_position(w.disk), before);
    for (unsigned i = 0; i < 50; i++)
        check_reads(&w);
    zqcow2_faults_clear_rules(w.f);
    flush(&w);
    check_reads(&w);
    world_end(&w);
}

/* If inner fails, that and later changes stay held, and the next flush passes on the rest. */
static void inner_fails(void **state)
{
    struct zqcow2_simdisk_fault fault = ZQCOW2_SIMDISK_FAULT_INIT;
    static struct world w;

    (void)state;
    world_begin(&w, 7, 0);
    for (unsigned i = 0; i < 8; i++)
        make_change(&w);
    fault.kinds = 1u << ZQCOW2_IO_WRITE;
    fault.nth = 2;
    fault.error = -ENOSPC;
    assert_int_equal(zqcow2_simdisk_set_fault(w.disk, &fault), 0);
    assert_int_equal(zqcow2_backend_flush(w.be), -ENOSPC);
    assert_in_range(zqcow2_faults_held(w.f), 1, 7);
    flush(&w);
    for (unsigned i = 0; i < 50; i++)
        check_reads(&w);
    make_change(&w);
    fault.kinds = 1u << ZQCOW2_IO_FLUSH;
    fault.nth = 1;
    fault.error = -EDQUOT;
    assert_int_equal(zqcow2_simdisk_set_fault(w.disk, &fault), 0);
    assert_int_equal(zqcow2_backend_flush(w.be), -EDQUOT);
    world_end(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_histories),    cmocka_unit_test(histories_replay),
        cmocka_unit_test(bytes_at_any_offset), cmocka_unit_test(failures_change_nothing),
        cmocka_unit_test(inner_fails),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
