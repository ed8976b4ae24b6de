/* SPDX-License-Identifier: MIT */
/* The rig itself: its alarms have to go off, or the tests built on it prove nothing. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "rig/geometries.h"
#include "rig/oracle.h"
#include "rig/shrink.h"

#define Z KiB(64)

static const struct geometry small = {.name = "small",
                                      .size = 6 * Z,
                                      .zone_size = Z,
                                      .capacity = KiB(52),
                                      .conventional = 1,
                                      .cluster = 4096};

static void the_heap_notices(void **state)
{
    struct heap h;
    struct zqcow2_hooks k;
    void *p;

    (void)state;
    heap_init(&h);
    k = heap_hooks(&h);
    p = k.alloc(k.ctx, 4096, 100);
    assert_int_equal((uintptr_t)p % 4096, 0);
    assert_non_null(strstr(heap_verdict(&h), "leak"));
    heap_destroy(&h);
    heap_init(&h);
    p = k.alloc(k.ctx, 8, 100);
    k.free(k.ctx, p, 99);
    assert_non_null(strstr(heap_verdict(&h), "wrong size"));
    heap_destroy(&h);
    heap_init(&h);
    heap_plan(&h, 2, false);
    p = k.alloc(k.ctx, 8, 1);
    assert_null(k.alloc(k.ctx, 8, 1));
    assert_int_equal(h.failed, 1);
    k.free(k.ctx, p, 1);
    assert_null(heap_verdict(&h));
    heap_destroy(&h);
}

static void faults_strike_where_they_should(void **state)
{
    uint8_t in[2048], out[2048];
    struct iovec v = {in, sizeof(in)};
    struct store s;
    struct fault f;
    struct rig_be be;

    (void)state;
    store_init(&s);
    fault_init(&f, store_be(&s));
    be = fault_be(&f);
    memset(in, 7, sizeof(in));
    fault_plan(&f, FAULT_SHORT, 2, false);
    assert_int_equal(be.ops->flush(be.self), 0);
    assert_int_equal(be.ops->writev(be.self, &v, 1, 0), -EIO);
    store_get(&s, out, sizeof(out), 0);
    assert_memory_equal(in, out, 1024);
    assert_int_equal(out[1024], 0);
    assert_int_equal(be.ops->writev(be.self, &v, 1, 0), 0);
    fault_plan(&f, FAULT_ENOSPC, 1, true);
    assert_int_equal(be.ops->readv(be.self, &v, 1, 0), 0);
    assert_int_equal(be.ops->writev(be.self, &v, 1, 0), -ENOSPC);
    assert_int_equal(be.ops->truncate(be.self, 1 << 20), -ENOSPC);
    assert_int_equal(f.failed, 2);
    store_free(&s);
}

/* What was recorded, done again on an empty file, is the same image. */
static void a_record_replays(void **state)
{
    struct rig r;

    (void)state;
    rig_init(&r, &small, RIG_PLAIN, 1);
    r.record.keep = true;
    assert_int_equal(rig_create(&r), 0);
    assert_int_equal(rig_open(&r, true), 0);
    assert_int_equal(rig_write(&r, 512, KiB(9), 1), 0);
    assert_int_equal(rig_append(&r, 3, KiB(7), 2, NULL), 0);
    assert_int_equal(rig_close(&r), 0);
    store_free(&r.store);
    store_init(&r.store);
    record_replay(&r.record, r.record.nr, &r.store);
    assert_int_equal(rig_open(&r, false), 0);
    assert_true(rig_holds(&r, 512, KiB(9), 512, 1));
    assert_true(rig_holds(&r, 3 * Z, KiB(7), 3 * Z, 2));
    rig_end(&r);
}

/* One bit of a sector, one zone's state, one step of a write pointer: each is seen. */
static void comparisons_see_small_things(void **state)
{
    uint8_t buf[1024], bent;
    struct model m;
    struct rig r;

    (void)state;
    rig_begin(&r, &small);
    model_init(&m, &small, rig_max_append(&small));
    rig_pattern(buf, sizeof(buf), 2 * Z, 5);
    assert_int_equal(rig_write(&r, 2 * Z, 1024, 5), 0);
    assert_int_equal(model_write(&m, buf, 1024, 2 * Z), 0);
    assert_true(rig_same(&r, &m));
    bent = buf[700] ^ 4;
    store_put(m.data, &bent, 1, 2 * Z + 700);
    assert_false(rig_same(&r, &m));
    assert_non_null(strstr(r.why, "zone 2 + 0x2bc"));
    store_put(m.data, &buf[700], 1, 2 * Z + 700);
    m.zone[3].state = ZQCOW2_ZONE_EXP_OPEN;
    assert_false(rig_same(&r, &m));
    m.zone[3].state = ZQCOW2_ZONE_EMPTY;
    m.zone[2].wp += 512;
    assert_false(rig_same(&r, &m));
    model_free(&m);
    rig_end(&r);
}

/* Settles for what a zone shows, if it may. */
static bool settles(struct rig *r, uint64_t had, uint64_t durable, bool reset)
{
    static uint8_t buf[KiB(8)];
    struct oracle o;
    bool good;

    oracle_init(&o, &small);
    rig_pattern(buf, had, 2 * Z, 5);
    oracle_wrote(&o, 2 * Z, durable, buf, true);
    oracle_flushed(&o);
    oracle_wrote(&o, 2 * Z + durable, had - durable, buf + durable, true);
    if (reset)
        oracle_reset(&o, 2);
    good = oracle_settle(&o, r);
    oracle_free(&o);
    return good;
}

static void the_oracle_knows_what_may_be(void **state)
{
    struct rig r;

    (void)state;
    rig_begin(&r, &small);
    assert_int_equal(rig_write(&r, 2 * Z, KiB(4), 5), 0);
    rig_reopen(&r);
    assert_true(settles(&r, KiB(4), KiB(4), false));
    assert_true(settles(&r, KiB(8), KiB(2), false));  /* a prefix, and all that is durable */
    assert_true(settles(&r, KiB(4), KiB(4), true));   /* the reset was not flushed */
    assert_false(settles(&r, KiB(8), KiB(6), false)); /* durable bytes are missing */
    assert_false(settles(&r, KiB(3), KiB(3), false)); /* more than was ever written */
    assert_int_equal(zqcow2_zone_reset(r.img, 2 * Z, Z, 0), 0);
    assert_false(settles(&r, KiB(4), KiB(4), false)); /* nobody has reset it */
    assert_true(settles(&r, KiB(4), KiB(4), true));
    rig_end(&r);
}

static bool has_both(void *arg, const uint64_t *list, uint64_t nr)
{
    unsigned found = 0;

    (void)arg;
    for (uint64_t i = 0; i < nr; i++)
        found += list[i] == 123 || list[i] == 777;
    return found == 2;
}

static void shrinking_leaves_what_matters(void **state)
{
    uint64_t list[1000];

    (void)state;
    for (uint64_t i = 0; i < 1000; i++)
        list[i] = i;
    assert_int_equal(shrink(list, 1000, 60, has_both, NULL), 2);
    assert_int_equal(list[0], 123);
    assert_int_equal(list[1], 777);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_heap_notices),
        cmocka_unit_test(faults_strike_where_they_should),
        cmocka_unit_test(a_record_replays),
        cmocka_unit_test(comparisons_see_small_things),
        cmocka_unit_test(the_oracle_knows_what_may_be),
        cmocka_unit_test(shrinking_leaves_what_matters),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
