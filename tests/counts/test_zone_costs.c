/* SPDX-License-Identifier: MIT */
/* Exact figures of what is done once for a zone: its first write, and what a drain gives back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>
#include "counts/tally.h"
#include "loop/core.h"

#define MiB(n) ((uint64_t)(n) << 20)

static uint8_t buf[4096];

/* ---- what goes on inside: the linker puts these in between (-Wl,--wrap) ---- */

static struct {
    unsigned steps;     /* of a write: begun, or entered anew */
    unsigned gathers;   /* passes that came to the mapping */
    unsigned lookups;   /* of a slice in the cache */
    unsigned forgotten; /* calls that look for slices to be dropped */
} seen;

int __real_zq_step_zone_write(struct zq_core *c, struct zq_op *op);
int __wrap_zq_step_zone_write(struct zq_core *c, struct zq_op *op);
int __real_zq_map_ahead(struct zq_core *c, struct zq_op *op, uint64_t at, uint64_t len);
int __wrap_zq_map_ahead(struct zq_core *c, struct zq_op *op, uint64_t at, uint64_t len);
int __real_zq_cache_pin(struct zq_cache *c, struct zq_gather *g, uint64_t host,
                        enum zq_slice_kind kind, struct zq_slice **out);
int __wrap_zq_cache_pin(struct zq_cache *c, struct zq_gather *g, uint64_t host,
                        enum zq_slice_kind kind, struct zq_slice **out);
void __real_zq_cache_forget(struct zq_cache *c, uint64_t host, uint64_t len);
void __wrap_zq_cache_forget(struct zq_cache *c, uint64_t host, uint64_t len);

int __wrap_zq_step_zone_write(struct zq_core *c, struct zq_op *op)
{
    seen.steps++;
    return __real_zq_step_zone_write(c, op);
}

int __wrap_zq_map_ahead(struct zq_core *c, struct zq_op *op, uint64_t at, uint64_t len)
{
    seen.gathers++;
    return __real_zq_map_ahead(c, op, at, len);
}

int __wrap_zq_cache_pin(struct zq_cache *c, struct zq_gather *g, uint64_t host,
                        enum zq_slice_kind kind, struct zq_slice **out)
{
    seen.lookups++;
    return __real_zq_cache_pin(c, g, host, kind, out);
}

void __wrap_zq_cache_forget(struct zq_cache *c, uint64_t host, uint64_t len)
{
    seen.forgotten++;
    __real_zq_cache_forget(c, host, len);
}

/* ---- */

static struct zqcow2_create_options shape(uint64_t zones, uint64_t zone)
{
    return (struct zqcow2_create_options){.size = sizeof(struct zqcow2_create_options),
                                          .virtual_size = zones * zone,
                                          .zone_size = zone};
}

static void begin(struct tally *t, bool async, struct zqcow2_create_options o)
{
    tally_init(t);
    t->async = async;
    tally_create(t, &o);
    tally_open(t, NULL);
    tally_reset(t);
}

static void append(struct tally *t, uint64_t zone)
{
    assert_int_equal(zqcow2_append(t->img, buf, sizeof(buf), &zone, 0), 0);
}

/*
 * The first write to a zone is one write. What else is asked of the host is for tables: an L2 table
 * for 8 zones, a refcount block for 128, whose first slice is read, as are all of the image's first
 * block; and the file is seldom made longer. A table's space is allocated, or, where that would
 * block an event loop (E6), its zeros are written.
 */
static void first_writes(bool async, uint64_t zones, uint64_t longer, unsigned lookups)
{
    uint64_t blocks = zones / 128 - 1; /* one is there already */
    uint64_t tables = zones / 8 + blocks;
    struct tally t;

    begin(&t, async, shape(zones, MiB(64)));
    memset(&seen, 0, sizeof(seen));
    for (uint64_t zone = 0; zone < zones; zone++)
        append(&t, zone * MiB(64));
    printf("first writes to %u zones: %u writes, %u reads, %u truncates, %u allocates\n",
           (unsigned)zones, (unsigned)t.calls[ZQCOW2_IO_WRITE], (unsigned)t.calls[ZQCOW2_IO_READ],
           (unsigned)t.calls[ZQCOW2_IO_TRUNCATE], (unsigned)t.allocates);
    assert_int_equal(t.calls[ZQCOW2_IO_WRITE],
                     zones + blocks + 1 + (async ? tables : 0)); /* 1: the mark */
    assert_int_equal(t.calls[ZQCOW2_IO_FLUSH], 1);               /* the mark's */
    assert_int_equal(t.allocates, async ? 0 : tables);
    assert_int_equal(t.calls[ZQCOW2_IO_READ], 16 + blocks);
    assert_int_equal(t.calls[ZQCOW2_IO_TRUNCATE], longer);
    assert_int_equal(t.calls[ZQCOW2_IO_ZERO] + t.calls[ZQCOW2_IO_DISCARD], 0);
    printf("    %u steps, %u passes of gather, %u lookups in the cache, %u times forgotten\n",
           seen.steps, seen.gathers, seen.lookups, seen.forgotten);
    /* One pass for each zone, and one for each thing that it had to wait for; then the data. */
    assert_int_equal(seen.gathers, zones + t.calls[ZQCOW2_IO_READ] + longer + tables + 1);
    assert_int_equal(seen.steps, seen.gathers + zones);
    assert_int_equal(seen.lookups, lookups);
    assert_int_equal(seen.forgotten, 0);
    tally_close(&t);
    tally_free(&t);
}

static void first_write_to_a_zone(void **state)
{
    (void)state;
    for (unsigned async = 0; async < 2; async++) {
        first_writes(async, 512, 97, 1467);
        first_writes(async, 1024, 129, 2699);
    }
}

/*
 * A drain gives back what is mapped beyond write pointers, so that the close behind it has nothing
 * to do; both cost the same for each zone, however many there are.
 */
static uint64_t drain_of_zones(struct tally *t, uint64_t zones, uint64_t size)
{
    uint64_t calls;

    begin(t, false, shape(zones, size));
    for (uint64_t zone = 0; zone < zones; zone++)
        append(t, zone * size);
    tally_reset(t);
    assert_int_equal(zqcow2_drain(t->img), 0);
    calls = tally_calls(t);
    assert_int_equal(t->calls[ZQCOW2_IO_DISCARD], zones); /* all that was mapped, but a cluster */
    assert_int_equal(t->calls[ZQCOW2_IO_READ], 0);
    tally_reset(t);
    tally_close(t);
    printf("%u zones of %u MiB partly written: %u host calls of a drain, %u of the close\n",
           (unsigned)zones, (unsigned)(size >> 20), (unsigned)calls, (unsigned)tally_calls(t));
    /* The mark, and the cut of the file's end, for which a few refcount blocks go. */
    assert_in_range(tally_calls(t), 1, 12);
    tally_free(t);
    return calls;
}

static void close_after_a_drain(void **state)
{
    struct tally t;
    uint64_t few = drain_of_zones(&t, 1000, MiB(1)), many = drain_of_zones(&t, 4000, MiB(1));

    (void)state;
    assert_in_range(few, 1000, 1200);
    assert_in_range(many, 4000, 4 * few);
    /* Here each has a slice of its own, which is written; what lies behind it is not read. */
    few = drain_of_zones(&t, 500, MiB(64));
    many = drain_of_zones(&t, 1000, MiB(64));
    assert_in_range(few, 1000, 1150);
    assert_in_range(many, 2000, 2 * few);
}

/* A drain takes nothing from a zone that it did not give: writing and reading go on. */
static void write_on_after_a_drain(void **state)
{
    struct zqcow2_check_result res = ZQCOW2_CHECK_RESULT_INIT;
    struct zqcow2_backend *be;
    static uint8_t got[4096];
    struct tally t;

    (void)state;
    begin(&t, false, shape(64, MiB(1)));
    for (unsigned n = 0; n < 40; n++) {
        for (uint64_t zone = 0; zone < 64; zone++) {
            memset(buf, (int)(n * 64 + zone) % 251, 4096);
            append(&t, zone * MiB(1));
        }
        if (n % 3 == 0)
            assert_int_equal(zqcow2_drain(t.img), 0);
    }
    for (uint64_t at = 0; at < 40 * 64; at++) {
        memset(buf, (int)at % 251, 4096);
        assert_int_equal(zqcow2_read(t.img, got, 4096, at % 64 * MiB(1) + at / 64 * 4096), 0);
        assert_memory_equal(got, buf, 4096);
    }
    tally_close(&t);
    be = tally_backend(&t);
    assert_int_equal(zqcow2_check(be, NULL, &res, NULL), 0);
    assert_int_equal(res.corruptions + res.leaked_clusters, 0);
    zqcow2_backend_close(be);
    tally_free(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(first_write_to_a_zone),
        cmocka_unit_test(close_after_a_drain),
        cmocka_unit_test(write_on_after_a_drain),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
