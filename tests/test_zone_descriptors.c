/* SPDX-License-Identifier: MIT */
/*
 * Extensions of zone descriptors: who takes one, how long it is kept, and what a program that
 * does not know them makes of them. Offsets in the file are those of SPEC.md.
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
#include "rig/described.h"

/* ---- what it means ---- */

static void live(const struct geometry *g, enum rig_world world)
{
    static struct rig r;

    rig_begin_in(&r, g, world, 7);
    assert_int_equal(rig_info(&r).descriptor_extension, g->described);
    assert_true(has(&r, 1, NONE));
    assert_int_equal(describe(&r, 1, 1), 0);
    assert_int_equal(describe(&r, 2, 2), 0);
    assert_int_equal(rig_zone(&r, 1).state, ZQCOW2_ZONE_CLOSED);
    assert_int_equal(rig_zone(&r, 1).write_pointer, rig_start(&r, 1));
    assert_int_equal(rig_info(&r).active_zones, 2);
    rig_reopen(&r);
    assert_true(has(&r, 1, 1) && has(&r, 2, 2) && has(&r, 3, NONE));
    assert_int_equal(rig_zone(&r, 1).state, ZQCOW2_ZONE_CLOSED);
    assert_int_equal(describe(&r, 1, 3), ZQCOW2_EZONE_STATE); /* once in a life */
    assert_true(has(&r, 1, 1));
    /* It lives through writes, finish, close and open, and ends with the zone's life. */
    assert_int_equal(rig_write(&r, rig_start(&r, 1), 512, 1), 0);
    assert_true(has(&r, 1, 1));
    rig_reopen(&r);
    assert_true(has(&r, 1, 1));
    assert_int_equal(reset(&r, 1), 0);
    assert_true(has(&r, 1, NONE) && has(&r, 2, 2));
    assert_int_equal(rig_manage(&r, ZQCOW2_OP_ZONE_FINISH, rig_start(&r, 2), g->zone_size, NULL),
                     0);
    rig_reopen(&r);
    assert_true(has(&r, 1, NONE) && has(&r, 2, 2));
    assert_int_equal(rig_zone(&r, 1).state, ZQCOW2_ZONE_EMPTY);
    assert_int_equal(describe(&r, 1, 4), 0);
    assert_int_equal(reset(&r, 1), 0);
    assert_int_equal(describe(&r, 1, 5), 0); /* another life, at once */
    assert_int_equal(reset(&r, 2), 0);
    assert_true(has(&r, 1, 5) && has(&r, 2, NONE));
    rig_reopen(&r);
    assert_true(has(&r, 1, 5) && has(&r, 2, NONE));
    assert_int_equal(reset(&r, 1), 0);
    rig_reopen(&r);
    assert_true(has(&r, 1, NONE));
    assert_int_equal(rig_info(&r).active_zones, 0);
    rig_end(&r);
}

static void kept_until_reset(void **state)
{
    static const enum rig_world worlds[] = {RIG_PLAIN, RIG_SHUFFLED, RIG_THREADED};

    (void)state;
    for (unsigned i = 0; i < sizeof(all) / sizeof(*all); i++) {
        for (unsigned w = 0; w < 3; w++)
            live(all[i], worlds[w]);
    }
}

/* All at once, and each by itself; two calls that overlap in a sector. */
static void of_many_zones(void **state)
{
    static uint8_t got[INTERIOR * 192 + 1], want[192];
    static struct rig r;
    uint32_t nr = INTERIOR + 1;

    (void)state;
    rig_begin(&r, &odd);
    for (uint32_t z = 0; z < INTERIOR; z += 1 + z % 3)
        assert_int_equal(describe(&r, z, 9), 0);
    got[sizeof(got) - 1] = 0xaa;
    assert_int_equal(zqcow2_zone_get_descriptors(r.img, 0, got, &nr), 0);
    assert_int_equal(nr, INTERIOR);
    assert_int_equal(got[sizeof(got) - 1], 0xaa);
    for (uint32_t z = 0; z < INTERIOR; z++) {
        bool described = rig_zone(&r, z).attributes & ZQCOW2_ZONE_DESCRIBED;

        compose(want, 192, z, described ? 9 : NONE);
        assert_memory_equal(got + z * 192, want, 192);
    }
    assert_true(has(&r, 0, 9) && has(&r, 1, 9) && has(&r, 2, NONE) && has(&r, 3, 9));
    nr = 5;
    assert_int_equal(zqcow2_zone_get_descriptors(r.img, 198 * 512, got, &nr), 0);
    assert_int_equal(nr, 2);
    rig_end(&r);
}

static void who_takes_one(void **state)
{
    static struct rig r;
    uint8_t buf[128] = {0};
    uint32_t nr = 1;

    (void)state;
    rig_begin(&r, &small);
    assert_int_equal(describe(&r, 0, 1), ZQCOW2_EZONE_STATE); /* conventional */
    assert_int_equal(zqcow2_zone_set_descriptor(r.img, ZONE, buf, 63), -EINVAL);
    assert_int_equal(zqcow2_zone_set_descriptor(r.img, ZONE, buf, 0), -EINVAL);
    assert_int_equal(zqcow2_zone_set_descriptor(r.img, ZONE, buf, 128), -EINVAL);
    assert_int_equal(zqcow2_zone_set_descriptor(r.img, KiB(512), buf, 64), -EINVAL);
    assert_int_equal(zqcow2_zone_get_descriptors(r.img, KiB(512), buf, &nr), -EINVAL);
    assert_int_equal(rig_write(&r, ZONE, 512, 1), 0);
    assert_int_equal(describe(&r, 1, 1), ZQCOW2_EZONE_STATE);
    assert_int_equal(rig_manage(&r, ZQCOW2_OP_ZONE_OPEN, 2 * ZONE, ZONE, NULL), 0);
    assert_int_equal(describe(&r, 2, 1), ZQCOW2_EZONE_STATE);
    assert_int_equal(set(&r, 3, ZQCOW2_ZONE_RDONLY), 0);
    assert_int_equal(describe(&r, 3, 1), ZQCOW2_EZONE_STATE);
    assert_int_equal(describe(&r, 4, 1), 0);
    assert_int_equal(describe(&r, 5, 1), ZQCOW2_EZONE_ACTIVE);
    assert_true(has(&r, 5, NONE));
    assert_int_equal(rig_close(&r), 0);
    assert_int_equal(rig_open(&r, false), 0);
    assert_int_equal(describe(&r, 6, 1), -EROFS);
    assert_true(has(&r, 4, 1));
    rig_end(&r);
    rig_begin(&r, &(struct geometry){.name = "none",
                                     .size = MiB(1),
                                     .zone_size = ZONE,
                                     .cluster = 4096,
                                     .rules = ZQCOW2_RULES_ZNS});
    assert_int_equal(zqcow2_zone_set_descriptor(r.img, ZONE, buf, 64), -EINVAL);
    assert_int_equal(zqcow2_zone_get_descriptors(r.img, 0, buf, &nr), -EINVAL);
    rig_end(&r);
}

/* Beside the stored states: a read-only zone shows it, an offline one does not, normal does. */
static void under_forced_states(void **state)
{
    static struct rig r;

    (void)state;
    rig_begin(&r, &small);
    assert_int_equal(describe(&r, 1, 1), 0);
    assert_int_equal(set(&r, 1, ZQCOW2_ZONE_RDONLY | PERSIST), 0);
    rig_reopen(&r);
    assert_true(has(&r, 1, 1));
    assert_int_equal(set(&r, 1, ZQCOW2_ZONE_OFFLINE | PERSIST), 0);
    assert_true(has(&r, 1, NONE));
    rig_reopen(&r);
    assert_true(has(&r, 1, NONE));
    assert_int_equal(set(&r, 1, ZQCOW2_ZONE_NOT_WP), 0);
    assert_true(has(&r, 1, 1));
    assert_int_equal(rig_zone(&r, 1).state, ZQCOW2_ZONE_CLOSED);
    assert_int_equal(set(&r, 1, ZQCOW2_ZONE_CLOSED | PERSIST), 0); /* as it is */
    assert_true(has(&r, 1, 1));
    assert_int_equal(rig_write(&r, ZONE, 512, 1), 0);
    assert_int_equal(set(&r, 1, ZQCOW2_ZONE_NOT_WP | PERSIST), 0);
    rig_reopen(&r);
    assert_true(has(&r, 1, 1)); /* what the zone holds is not a state */
    /* Back to EMPTY by this call: an empty zone has none. */
    assert_int_equal(describe(&r, 2, 2), 0);
    assert_int_equal(set(&r, 2, ZQCOW2_ZONE_NOT_WP | PERSIST), 0);
    assert_int_equal(rig_zone(&r, 2).state, ZQCOW2_ZONE_EMPTY);
    assert_true(has(&r, 2, NONE));
    assert_int_equal(describe(&r, 2, 3), 0);
    rig_reopen(&r);
    assert_true(has(&r, 2, 3));
    /* A stored state that is not in effect gives way to what is durable on return. */
    assert_int_equal(set(&r, 3, ZQCOW2_ZONE_RDONLY | PERSIST), 0);
    assert_int_equal(set(&r, 3, ZQCOW2_ZONE_NOT_WP), 0);
    assert_int_equal(rig_zone(&r, 3).state, ZQCOW2_ZONE_EMPTY);
    assert_int_equal(describe(&r, 3, 4), 0);
    rig_reopen(&r);
    assert_int_equal(rig_zone(&r, 3).state, ZQCOW2_ZONE_CLOSED);
    assert_true(has(&r, 3, 4));
    rig_end(&r);
}

/* Where an empty zone is never closed, it has what it has until a reset ends it. */
static void under_other_rules(void **state)
{
    static struct rig r;
    struct geometry g = small;

    (void)state;
    rig_begin(&r, &g);
    assert_int_equal(describe(&r, 1, 1), 0);
    assert_int_equal(describe(&r, 2, 2), 0);
    assert_int_equal(rig_close(&r), 0);
    g.rules = r.open.rules = ZQCOW2_RULES_LINUX;
    assert_int_equal(rig_open(&r, true), 0);
    assert_int_equal(describe(&r, 3, 1), -EINVAL);
    assert_int_equal(rig_zone(&r, 1).state, ZQCOW2_ZONE_EMPTY);
    assert_true(has(&r, 1, 1) && has(&r, 2, 2));
    assert_int_equal(reset(&r, 1), 0);
    assert_int_equal(rig_write(&r, 2 * ZONE, 512, 1), 0);
    assert_true(has(&r, 1, NONE) && has(&r, 2, 2));
    assert_int_equal(rig_close(&r), 0);
    r.open.rules = ZQCOW2_RULES_ZNS;
    assert_int_equal(rig_open(&r, true), 0);
    assert_int_equal(rig_zone(&r, 1).state, ZQCOW2_ZONE_EMPTY);
    assert_true(has(&r, 1, NONE) && has(&r, 2, 2));
    rig_end(&r);
}

/* ---- several at once ---- */

struct tally {
    unsigned done;
    int rc;
};

static void count(void *arg, const struct zqcow2_result *res)
{
    struct tally *t = arg;

    t->done++;
    t->rc = t->rc ? t->rc : res->ret;
}

static void submit(struct zqcow2_queue *q, int op, uint64_t off, struct iovec *iov, uint32_t n,
                   struct tally *t)
{
    struct zqcow2_request req = {.size = sizeof(req), .op = (uint16_t)op};

    req.offset = off;
    req.length = ZONE;
    req.iov = iov;
    req.iovcnt = n;
    req.done = count;
    req.arg = t;
    assert_int_equal(zqcow2_queue_submit(q, &req, 1), 1);
}

/* Neighbours in a sector, each set, reset and set again, while all of them are read. */
static void several_at_once(void **state)
{
    static uint8_t buf[8][2][64], got[8][64], want[64];
    struct geometry g = small;
    static struct rig r;
    struct iovec iov[8][2], all_iov[2] = {{got, 100}, {(uint8_t *)got + 100, sizeof(got) - 100}};
    struct zqcow2_queue *q;

    (void)state;
    g.conventional = 0;
    g.max_active = g.max_open = 0;
    for (uint64_t seed = 1; seed <= 40; seed++) {
        struct tally t = {0, 0};

        rig_begin_in(&r, &g, RIG_SHUFFLED, seed);
        assert_int_equal(zqcow2_queue_open(r.img, 64, &q), 0);
        for (uint32_t z = 0; z < 8; z++) {
            compose(buf[z][0], 64, z, 1);
            compose(buf[z][1], 64, z, 2);
            iov[z][0] = (struct iovec){buf[z][0], 64};
            iov[z][1] = (struct iovec){buf[z][1], 64};
            submit(q, ZQCOW2_OP_ZONE_SET_DESCRIPTOR, z * ZONE, &iov[z][0], 1, &t);
            submit(q, ZQCOW2_OP_ZONE_RESET, z * ZONE, NULL, 0, &t);
            submit(q, ZQCOW2_OP_ZONE_SET_DESCRIPTOR, z * ZONE, &iov[z][1], 1, &t);
        }
        while (t.done < 24) {
            struct tally reads = {0, 0};

            submit(q, ZQCOW2_OP_ZONE_GET_DESCRIPTORS, 0, all_iov, 2, &reads);
            while (!reads.done)
                zqcow2_queue_wait(q, 1, -1);
            assert_int_equal(reads.rc, 0);
            /* Of each zone none, or the whole of one of the two. */
            for (uint32_t z = 0; z < 8; z++) {
                bool known = false;

                for (unsigned tag = 1; tag <= 3; tag++) {
                    compose(want, 64, z, tag == 3 ? NONE : tag);
                    known |= !memcmp(got[z], want, 64);
                }
                if (!known)
                    fail_msg("seed %llu: zone %u is torn", (unsigned long long)seed, z);
            }
        }
        assert_int_equal(t.rc, 0);
        assert_int_equal(zqcow2_queue_close(q), 0);
        for (uint32_t z = 0; z < 8; z++)
            assert_true(has(&r, z, 2));
        rig_reopen(&r);
        for (uint32_t z = 0; z < 8; z++)
            assert_true(has(&r, z, 2));
        rig_end(&r);
    }
}

/* ---- other programs ---- */

static void another_program_writes(void **state)
{
    static struct rig r;
    uint64_t ext, table;

    (void)state;
    for (unsigned i = 0; i < sizeof(all) / sizeof(*all); i++) {
        rig_begin(&r, all[i]);
        assert_int_equal(describe(&r, 1, 1), 0);
        assert_int_equal(rig_close(&r), 0);
        ext = find_ext(&r);
        assert_true(ext + 40 <= 512);
        assert_int_equal(be(&r, ext + 12, 4), all[i]->described);
        table = be(&r, ext + 16, 8);
        assert_int_equal(table % all[i]->cluster, 0);
        put(&r, 88, 8, 0); /* as the specification asks of one that does not know the bit */
        put(&r, table + all[i]->described, 1, 0x99); /* belongs to others by now */
        assert_int_equal(rig_check(&r, 0), 0);
        assert_int_equal(r.check.corruptions, 0);
        assert_true(r.check.leaked_clusters >= 2);
        assert_int_equal(rig_check(&r, ZQCOW2_CHECK_REPAIR_LEAKS), 0);
        assert_int_equal(rig_open(&r, true), 0);
        assert_true(rig_info(&r).flags & ZQCOW2_INFO_STATES_VOID);
        assert_int_equal(rig_info(&r).descriptor_extension, all[i]->described);
        assert_true(has(&r, 1, NONE));
        assert_int_equal(rig_zone(&r, 1).state, ZQCOW2_ZONE_EMPTY);
        assert_int_equal(describe(&r, 2, 3), 0); /* in a new table */
        assert_true(rig_info(&r).flags & ZQCOW2_INFO_STATES);
        assert_int_equal(describe(&r, 1, 4), 0);
        rig_reopen(&r);
        assert_true(has(&r, 1, 4) && has(&r, 2, 3) && has(&r, 3, NONE));
        rig_end(&r);
    }
}

/* ---- images on images ---- */

/* A new image has its source's, and what changes there or here changes nothing of the other. */
static void inherited(const struct geometry *g)
{
    static struct rig r;

    rig_begin(&r, g);
    assert_int_equal(describe(&r, 1, 1), 0);
    assert_int_equal(describe(&r, 2, 2), 0);
    assert_int_equal(rig_write(&r, rig_start(&r, 2), 512, 1), 0);
    assert_int_equal(describe(&r, 3, 3), 0);
    assert_int_equal(reset(&r, 3), 0);
    assert_int_equal(rig_close(&r), 0);
    assert_int_equal(rig_stack(&r), 0);
    assert_int_equal(rig_open(&r, true), 0);
    assert_int_equal(rig_info(&r).descriptor_extension, g->described);
    assert_true(has(&r, 1, 1) && has(&r, 2, 2) && has(&r, 3, NONE));
    assert_int_equal(rig_zone(&r, 1).state, ZQCOW2_ZONE_CLOSED);
    assert_int_equal(reset(&r, 2), 0);
    assert_int_equal(describe(&r, 2, 4), 0);
    rig_reopen(&r);
    assert_true(has(&r, 1, 1) && has(&r, 2, 4) && has(&r, 3, NONE));
    rig_end(&r);
}

static void overlays_inherit_them(void **state)
{
    (void)state;
    for (unsigned i = 0; i < sizeof(all) / sizeof(*all); i++)
        inherited(all[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(kept_until_reset),       cmocka_unit_test(of_many_zones),
        cmocka_unit_test(who_takes_one),          cmocka_unit_test(under_forced_states),
        cmocka_unit_test(under_other_rules),      cmocka_unit_test(several_at_once),
        cmocka_unit_test(another_program_writes), cmocka_unit_test(overlays_inherit_them)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
