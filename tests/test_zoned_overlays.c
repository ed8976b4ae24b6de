/* SPDX-License-Identifier: MIT */
/* Zoned images on zoned images: what is inherited, and that nothing of the source ever returns. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "rig/layered.h"

/* ---- writes: S7, S8 ---- */

static void a_write_keeps_the_head(void **state)
{
    static const uint64_t lens[] = {512, C - 3 * 512, C, 3 * C + 512};
    static uint8_t buf[4 * C];
    struct rig r;

    (void)state;
    for (unsigned kind = 0; kind < 3; kind++) {
        for (size_t k = 0; k < sizeof(lens) / sizeof(*lens); k++) {
            uint64_t to = AT_INSIDE + lens[k], s, at;
            int rc;

            stack(&r);
            s = at = rig_start(&r, INSIDE);
            rig_pattern(buf, lens[k], s + AT_INSIDE, 2);
            rc = kind == 0 ? rig_write(&r, s + AT_INSIDE, lens[k], 2) :
                 kind == 1 ? zqcow2_append(r.img, buf, lens[k], &at, 0) :
                             zqcow2_write_zeroes(r.img, lens[k], s + AT_INSIDE, 0);
            assert_int_equal(rc, 0);
            for (unsigned again = 0; again < 2; again++) {
                holds(&r, INSIDE, AT_INSIDE, kind == 2 ? AT_INSIDE : to);
                zone_is(&r, INSIDE, again ? ZQCOW2_ZONE_CLOSED : ZQCOW2_ZONE_IMP_OPEN, to);
                reopen(&r);
            }
            assert_false(is_own(&r, s)); /* the first cluster is the source's still */
            assert_true(is_own(&r, s + C));
            rig_end(&r);
        }
    }
}

/* The pointer at a cluster's edge: nothing has to be kept, nothing of the source is mapped. */
static void a_write_at_an_edge_copies_nothing(void **state)
{
    struct rig r;

    (void)state;
    stack(&r);
    record_reset(&r.record);
    assert_int_equal(rig_write(&r, rig_start(&r, EDGE) + AT_EDGE, C, 2), 0);
    assert_int_equal(zqcow2_flush(r.img), 0);
    holds(&r, EDGE, AT_EDGE, AT_EDGE + C);
    assert_false(is_own(&r, rig_start(&r, EDGE) + AT_EDGE - C));
    rig_end(&r);
}

/* An entry for zeros with the pointer inside: the head is written, not left as it was (S8). */
static void zeros_in_front_of_the_pointer_stay(void **state)
{
    struct raw w;
    struct rig r;
    uint64_t s;

    (void)state;
    stack(&r);
    s = rig_start(&r, INSIDE);
    assert_int_equal(rig_write(&r, s + AT_INSIDE, 512, 2), 0); /* makes a table, and old bytes */
    assert_int_equal(rig_close(&r), 0);
    assert_true(raw_find(&w, &r.store));
    raw_set_refcount(&w, raw_host(&w, s + C), 0);
    raw_put(&w, raw_l2_at(&w, s + C), 8, 1);
    assert_int_equal(rig_open(&r, true), 0);
    assert_int_equal(rig_write(&r, s + AT_INSIDE + 512, 512, 2), 0);
    assert_true(rig_holds(&r, s, C, s, 1));
    assert_true(rig_zeros(&r, s + C, 4 * 512));
    assert_true(rig_holds(&r, s + C + 4 * 512, 512, s + C + 4 * 512, 2));
    rig_end(&r);
}

/* ---- finish: S4 ---- */

static void a_finish_shows_zeros(void **state)
{
    static const uint32_t zones[] = {EMPTY, INSIDE, EDGE, OPENED, RESET};
    struct rig r;
    uint32_t kind;

    (void)state;
    stack(&r);
    for (unsigned i = 0; i < 5; i++)
        on_zone(&r, ZQCOW2_OP_ZONE_FINISH, zones[i]);
    for (unsigned again = 0; again < 2; again++) {
        for (unsigned i = 0; i < 5; i++) {
            zone_is(&r, zones[i], ZQCOW2_ZONE_FULL, Z);
            holds(&r, zones[i], left_at[zones[i]], left_at[zones[i]]);
        }
        reopen(&r);
    }
    assert_int_equal(depth_at(&r, rig_start(&r, EDGE) + AT_EDGE, &kind), 0);
    assert_int_equal(kind, ZQCOW2_BLOCK_ZERO);
    assert_int_equal(depth_at(&r, rig_start(&r, EDGE) + AT_EDGE - 512, &kind), 1);
    rig_end(&r);
}

/* Runs that were remembered are forgotten with what they named (S13). */
static void a_finish_behind_writes_shows_zeros(void **state)
{
    struct rig r;

    (void)state;
    stack(&r);
    assert_int_equal(rig_write(&r, rig_start(&r, INSIDE) + AT_INSIDE, 6 * C, 2), 0);
    on_zone(&r, ZQCOW2_OP_ZONE_RESET, INSIDE);
    assert_int_equal(rig_write(&r, rig_start(&r, INSIDE), C + 512, 2), 0);
    on_zone(&r, ZQCOW2_OP_ZONE_FINISH, INSIDE);
    holds(&r, INSIDE, 0, C + 512);
    reopen(&r);
    holds(&r, INSIDE, 0, C + 512);
    rig_end(&r);
}

/* Without memory, at each allocation in turn, nothing has changed for a reader (I13). */
static void what_fails_for_memory_changes_nothing(void **state)
{
    unsigned failed = 0;
    struct rig r;

    (void)state;
    for (unsigned kind = 0; kind < 2; kind++) {
        int rc = -ENOMEM;

        stack(&r);
        for (unsigned at = 1; rc; at++) {
            uint64_t s = rig_start(&r, INSIDE);

            heap_plan(&r.heap, at, true);
            rc = kind ? rig_manage(&r, ZQCOW2_OP_ZONE_FINISH, s, Z, NULL) :
                        rig_write(&r, s + AT_INSIDE, 2 * C, 2);
            heap_plan(&r.heap, 0, false);
            if (!rc)
                break;
            failed++;
            assert_int_equal(rc, -ENOMEM);
            assert_int_equal(rig_zone(&r, INSIDE).write_pointer, s + AT_INSIDE);
            holds(&r, INSIDE, AT_INSIDE, AT_INSIDE);
            reopen(&r);
            holds(&r, INSIDE, AT_INSIDE, AT_INSIDE);
        }
        holds(&r, INSIDE, AT_INSIDE, kind ? AT_INSIDE : AT_INSIDE + 2 * C);
        rig_end(&r);
    }
    assert_true(failed > 4);
    printf("zoned overlays: %u requests without memory\n", failed);
}

/* ---- reset: S9, S11 ---- */

static void a_reset_ends_the_inheritance(void **state)
{
    static const uint32_t zones[] = {INSIDE, EDGE, WRITTEN, FINISHED};
    struct rig r;

    (void)state;
    for (unsigned flush = 0; flush < 2; flush++) {
        for (unsigned finish = 0; finish < 2; finish++) {
            stack(&r);
            for (unsigned i = 0; i < 4; i++) {
                uint64_t length = r.store.length;

                on_zone(&r, ZQCOW2_OP_ZONE_RESET, zones[i]);
                assert_int_equal(r.store.length, length);
                holds(&r, zones[i], 0, 0);
                if (flush)
                    assert_int_equal(zqcow2_flush(r.img), 0);
                assert_int_equal(rig_write(&r, rig_start(&r, zones[i]), 512, 2), 0);
                holds(&r, zones[i], 0, 512);
                if (finish)
                    on_zone(&r, ZQCOW2_OP_ZONE_FINISH, zones[i]);
                else
                    assert_int_equal(rig_write(&r, rig_start(&r, zones[i]) + 512, C, 2), 0);
            }
            for (unsigned again = 0; again < 2; again++) {
                for (unsigned i = 0; i < 4; i++)
                    holds(&r, zones[i], 0, finish ? 512 : C + 512);
                reopen(&r);
            }
            rig_end(&r);
        }
    }
}

/* ---- close: S10 ---- */

static void a_close_keeps_the_pointers_cluster(void **state)
{
    struct rig r;
    uint64_t s;

    (void)state;
    stack(&r);
    s = rig_start(&r, INSIDE);
    assert_int_equal(rig_write(&r, s + AT_INSIDE, 512, 2), 0);
    assert_true(is_own(&r, s + C) || zqcow2_flush(r.img) == 0);
    reopen(&r);
    assert_true(is_own(&r, s + C));
    assert_false(is_own(&r, s + 2 * C)); /* ahead of the pointer */
    holds(&r, INSIDE, AT_INSIDE, AT_INSIDE + 512);
    rig_end(&r);
}

/* ---- a source that has changed: S12 ---- */

static char logged[400];

static void note(void *ctx, int level, const char *text)
{
    (void)ctx;
    if (level == ZQCOW2_LOG_ERROR)
        snprintf(logged, sizeof(logged), "%s", text);
}

static void a_changed_source_is_seen(void **state)
{
    struct zqcow2_open_options o = ZQCOW2_OPEN_OPTIONS_INIT;
    struct zqcow2_backend *be;
    struct zqcow2_image *img;
    uint8_t buf[2 * C];
    struct rig r;
    uint64_t s;

    (void)state;
    logged[0] = '\0';
    stack(&r);
    assert_int_equal(rig_close(&r), 0);
    o.flags = ZQCOW2_OPEN_RDWR;
    assert_int_equal(zqcow2_backend_new(store_be(&r.below[0]).ops, &r.below[0], NULL, &be), 0);
    assert_int_equal(zqcow2_open(be, &o, &img, &r.err), 0);
    s = rig_start(&r, INSIDE);
    assert_int_equal(zqcow2_zone_reset(img, s, Z, 0), 0);
    assert_int_equal(zqcow2_write(img, memset(buf, 7, sizeof(buf)), 512, s, 0), 0);
    assert_int_equal(zqcow2_close(img), 0);
    r.hooks.log = note;
    assert_int_equal(rig_open(&r, true), 0);
    assert_int_equal(zqcow2_read(r.img, buf, 512, s), 0); /* it cannot be known */
    assert_int_equal(zqcow2_read(r.img, buf, 512, s + 512), ZQCOW2_ECORRUPT);
    assert_int_equal(zqcow2_read(r.img, buf, sizeof(buf), s), ZQCOW2_ECORRUPT);
    if (!strstr(logged, "nothing is mapped at 0x20200, below the write pointer 0x21600; the "
                        "backing file at depth 1 has its write pointer at 0x20200"))
        fail_msg("logged: %s", logged);
    assert_int_equal(rig_write(&r, s + AT_INSIDE, 512, 2), ZQCOW2_ECORRUPT);
    assert_int_equal(rig_manage(&r, ZQCOW2_OP_ZONE_FINISH, s, Z, NULL), ZQCOW2_ECORRUPT);
    zone_is(&r, INSIDE, ZQCOW2_ZONE_CLOSED, AT_INSIDE);
    holds(&r, EDGE, AT_EDGE, AT_EDGE);
    assert_int_equal(rig_close(&r), 0);
    for (unsigned again = 0; again < 2; again++) { /* no repair can help */
        r.why[0] = '\0';
        assert_int_equal(rig_check(&r, again ? 0 : ZQCOW2_CHECK_REPAIR_ALL), 0);
        assert_int_equal(r.check.corruptions, 2);
        assert_int_equal(r.check.corruptions_fixed, 0);
        assert_non_null(strstr(r.why,
                               "zone 2 has 2 clusters that are mapped nowhere: its write "
                               "pointer is 0x21600, and the backing file, which has changed, "
                               "has 0x20200"));
    }
    store_free(&r.below[0]); /* a source that is none is a warning */
    store_init(&r.below[0]);
    assert_int_equal(rig_check(&r, 0), 0);
    assert_int_equal(r.check.corruptions, 0);
    assert_int_equal(r.check.warnings, 1);
    assert_null(rig_free(&r));
}

/* ---- repair: S14 ---- */

static void a_lost_pointer_uncovers_nothing(void **state)
{
    static const uint32_t zones[] = {INSIDE, EDGE, WRITTEN};
    struct raw w;
    struct rig r;

    (void)state;
    stack(&r);
    /* INSIDE: a gap at the start. EDGE: own up to its pointer. WRITTEN: untouched. */
    assert_int_equal(rig_write(&r, rig_start(&r, INSIDE) + AT_INSIDE, C, 2), 0);
    on_zone(&r, ZQCOW2_OP_ZONE_RESET, EDGE);
    assert_int_equal(rig_write(&r, rig_start(&r, EDGE), 2 * C + 512, 2), 0);
    assert_int_equal(rig_close(&r), 0);
    assert_true(raw_find(&w, &r.store));
    for (unsigned i = 0; i < 3; i++)
        raw_put(&w, w.table + 8 * (uint64_t)zones[i], 8, 0);
    assert_int_equal(rig_check(&r, ZQCOW2_CHECK_REPAIR_ALL), 0);
    assert_int_equal(r.check.corruptions_fixed, 3);
    assert_int_equal(rig_open(&r, true), 0);
    zone_is(&r, INSIDE, ZQCOW2_ZONE_EMPTY, 0);
    zone_is(&r, EDGE, ZQCOW2_ZONE_CLOSED, 3 * C);
    zone_is(&r, WRITTEN, ZQCOW2_ZONE_EMPTY, 0);
    assert_true(rig_holds(&r, rig_start(&r, EDGE), 2 * C + 512, rig_start(&r, EDGE), 2));
    r.why[0] = '\0';
    rig_end(&r);
}

/* An entry that repair drops below a pointer becomes zeros, never the source's bytes (S4). */
static void a_dropped_entry_uncovers_nothing(void **state)
{
    struct raw w;
    struct rig r;
    uint64_t s;

    (void)state;
    stack(&r);
    s = rig_start(&r, WRITTEN);
    on_zone(&r, ZQCOW2_OP_ZONE_RESET, WRITTEN);
    assert_int_equal(rig_write(&r, s, 3 * C + 512, 2), 0);
    assert_int_equal(rig_close(&r), 0);
    assert_true(raw_find(&w, &r.store));
    raw_put(&w, raw_l2_at(&w, s + C), 8, RAW_COPIED | GiB(1));
    assert_int_equal(rig_check(&r, ZQCOW2_CHECK_REPAIR_ALL), 0);
    assert_int_equal(rig_open(&r, true), 0);
    assert_true(rig_holds(&r, s, C, s, 2));
    assert_true(rig_zeros(&r, s + C, C));
    assert_true(rig_holds(&r, s + 2 * C, C + 512, s + 2 * C, 2));
    r.why[0] = '\0';
    rig_end(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_write_keeps_the_head),
        cmocka_unit_test(a_write_at_an_edge_copies_nothing),
        cmocka_unit_test(zeros_in_front_of_the_pointer_stay),
        cmocka_unit_test(a_finish_shows_zeros),
        cmocka_unit_test(a_finish_behind_writes_shows_zeros),
        cmocka_unit_test(what_fails_for_memory_changes_nothing),
        cmocka_unit_test(a_reset_ends_the_inheritance),
        cmocka_unit_test(a_close_keeps_the_pointers_cluster),
        cmocka_unit_test(a_changed_source_is_seen),
        cmocka_unit_test(a_lost_pointer_uncovers_nothing),
        cmocka_unit_test(a_dropped_entry_uncovers_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
