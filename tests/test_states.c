/* SPDX-License-Identifier: MIT */
/*
 * Zone states that an image stores: what the next open finds, what a program that does not know
 * them makes of them, and which tables are refused. Offsets in the file are those of SPEC.md.
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
#include "rig/raw.h"
#include "rig/rig.h"

#define ZONE    KiB(64)
#define PERSIST ZQCOW2_ZONE_PERSIST
#define EXT     0x7a713273u

static const struct geometry small = {.name = "zones",
                                      .size = KiB(512),
                                      .zone_size = ZONE,
                                      .capacity = KiB(48),
                                      .conventional = 1,
                                      .max_open = 2,
                                      .max_active = 3,
                                      .cluster = 4096};
static const struct geometry zns = {.name = "zones, ZNS",
                                    .size = KiB(512),
                                    .zone_size = ZONE,
                                    .capacity = KiB(48),
                                    .max_open = 2,
                                    .max_active = 3,
                                    .cluster = 4096,
                                    .rules = ZQCOW2_RULES_ZNS};
/* Its table takes nine clusters in a row, and its header has no room for feature names. */
static const struct geometry many = {
    .name = "4500 zones", .size = 4500 * 512, .zone_size = 512, .cluster = 512};
static const struct geometry large = {
    .name = "64 KiB clusters", .size = MiB(64), .zone_size = MiB(1), .cluster = 65536};
static const struct geometry *const all[] = {&small, &zns, &many, &large};

static int set(struct rig *r, uint32_t zone, unsigned state)
{
    return zqcow2_zone_set_state(r->img, rig_start(r, zone), state);
}

static bool stores(struct rig *r)
{
    return rig_info(r).flags & ZQCOW2_INFO_STATES;
}

static bool is_void(struct rig *r)
{
    return rig_info(r).flags & ZQCOW2_INFO_STATES_VOID;
}

static uint64_t be(struct rig *r, uint64_t at, unsigned bytes)
{
    return raw_get(&(struct raw){.s = &r->store}, at, bytes);
}

static void put(struct rig *r, uint64_t at, unsigned bytes, uint64_t v)
{
    raw_put(&(struct raw){.s = &r->store}, at, bytes, v);
}

/* Where the extension's data begins. */
static uint64_t find_ext(struct rig *r, uint32_t type)
{
    uint64_t at = be(r, 100, 4);

    while (be(r, at, 4) != type) {
        if (!be(r, at, 4))
            return 0;
        at += 8 + (be(r, at + 4, 4) + 7) / 8 * 8;
    }
    return at + 8;
}

/* As the specification asks of a program that does not know the bit. */
static void foreign_write(struct rig *r)
{
    put(r, 88, 8, 0);
}

static void survive(const struct geometry *g, enum rig_world world)
{
    static struct rig r;

    rig_begin_in(&r, g, world, 7);
    assert_false(stores(&r));
    assert_int_equal(set(&r, 2, ZQCOW2_ZONE_RDONLY), 0);
    assert_false(stores(&r)); /* in memory only */
    rig_reopen(&r);
    assert_int_equal(rig_zone(&r, 2).state, ZQCOW2_ZONE_EMPTY);

    assert_int_equal(rig_write(&r, rig_start(&r, 3), 512, 1), 0);
    assert_int_equal(set(&r, 2, ZQCOW2_ZONE_RDONLY | PERSIST), 0);
    assert_int_equal(set(&r, 2, ZQCOW2_ZONE_RDONLY | PERSIST), 0); /* toggles nothing */
    assert_int_equal(set(&r, 3, ZQCOW2_ZONE_OFFLINE | PERSIST), 0);
    assert_true(stores(&r));
    rig_reopen(&r);
    assert_true(stores(&r));
    assert_int_equal(rig_zone(&r, 2).state, ZQCOW2_ZONE_RDONLY);
    assert_int_equal(rig_zone(&r, 3).state, ZQCOW2_ZONE_OFFLINE);
    assert_int_equal(rig_zone(&r, 4).state, ZQCOW2_ZONE_EMPTY);
    assert_int_equal(rig_write(&r, rig_start(&r, 2), 512, 1), ZQCOW2_EZONE_RDONLY);
    assert_int_equal(rig_manage(&r, ZQCOW2_OP_ZONE_RESET, rig_start(&r, 3), g->zone_size, NULL),
                     ZQCOW2_EZONE_STATE);

    assert_int_equal(set(&r, 2, ZQCOW2_ZONE_NOT_WP), 0); /* until it is closed */
    assert_int_equal(rig_zone(&r, 2).state, ZQCOW2_ZONE_EMPTY);
    assert_int_equal(set(&r, 3, ZQCOW2_ZONE_NOT_WP | PERSIST), 0); /* for good */
    rig_reopen(&r);
    assert_int_equal(rig_zone(&r, 2).state, ZQCOW2_ZONE_RDONLY);
    assert_true(rig_holds(&r, rig_start(&r, 3), 512, rig_start(&r, 3), 1));
    assert_int_equal(rig_close(&r), 0);
    assert_int_equal(rig_open(&r, false), 0);
    assert_int_equal(rig_zone(&r, 2).state, ZQCOW2_ZONE_RDONLY);
    assert_int_equal(set(&r, 2, ZQCOW2_ZONE_NOT_WP | PERSIST), -EROFS);
    assert_int_equal(set(&r, 2, ZQCOW2_ZONE_NOT_WP), 0);
    rig_end(&r);
}

static void states_survive(void **state)
{
    static const enum rig_world worlds[] = {RIG_PLAIN, RIG_SHUFFLED, RIG_THREADED};

    (void)state;
    for (unsigned i = 0; i < sizeof(all) / sizeof(*all); i++) {
        for (unsigned w = 0; w < 3; w++)
            survive(all[i], worlds[w]);
    }
}

static void what_may_not_be_stored(void **state)
{
    static struct rig r;

    (void)state;
    rig_begin(&r, &small);
    assert_int_equal(set(&r, 0, ZQCOW2_ZONE_RDONLY | PERSIST), ZQCOW2_EZONE_STATE);
    assert_int_equal(set(&r, 1, ZQCOW2_ZONE_CLOSED | PERSIST), -EINVAL); /* not these rules */
    assert_int_equal(set(&r, 1, ZQCOW2_ZONE_FULL | PERSIST), -EINVAL);
    assert_int_equal(set(&r, 1, ZQCOW2_ZONE_RDONLY | PERSIST << 1), -EINVAL);
    assert_int_equal(set(&r, 8, ZQCOW2_ZONE_RDONLY | PERSIST), -EINVAL);
    assert_int_equal(set(&r, 1, ZQCOW2_ZONE_NOT_WP | PERSIST), 0); /* there is nothing to remove */
    assert_false(stores(&r));
    rig_end(&r);
    rig_begin(&r, &zns);
    assert_int_equal(set(&r, 1, ZQCOW2_ZONE_CLOSED), -EINVAL);
    rig_end(&r);
}

/* Zones that hold nothing and are active all the same. */
static void closed_and_empty(void **state)
{
    static struct rig r;
    struct geometry linux_rules = zns;

    (void)state;
    linux_rules.rules = ZQCOW2_RULES_LINUX;
    rig_begin(&r, &zns);
    assert_int_equal(rig_write(&r, 0, 512, 1), 0);
    assert_int_equal(set(&r, 0, ZQCOW2_ZONE_CLOSED | PERSIST), ZQCOW2_EZONE_STATE);
    assert_int_equal(set(&r, 1, ZQCOW2_ZONE_CLOSED | PERSIST), 0);
    assert_int_equal(rig_manage(&r, ZQCOW2_OP_ZONE_OPEN, 2 * ZONE, ZONE, NULL), 0);
    assert_int_equal(set(&r, 2, ZQCOW2_ZONE_CLOSED | PERSIST), 0);
    assert_int_equal(set(&r, 3, ZQCOW2_ZONE_CLOSED | PERSIST), ZQCOW2_EZONE_ACTIVE);
    rig_reopen(&r);
    assert_int_equal(rig_info(&r).active_zones, 3);
    assert_int_equal(rig_zone(&r, 1).state, ZQCOW2_ZONE_CLOSED);
    assert_int_equal(rig_zone(&r, 1).write_pointer, ZONE);
    assert_int_equal(rig_write(&r, 3 * ZONE, 512, 1), ZQCOW2_EZONE_ACTIVE);
    /* A write, a finish and a reset end it, for good. */
    assert_int_equal(rig_write(&r, ZONE, 512, 1), 0);
    assert_int_equal(rig_manage(&r, ZQCOW2_OP_ZONE_RESET, ZONE, ZONE, NULL), 0);
    assert_int_equal(rig_manage(&r, ZQCOW2_OP_ZONE_RESET, 2 * ZONE, ZONE, NULL), 0);
    rig_reopen(&r);
    assert_int_equal(rig_zone(&r, 1).state, ZQCOW2_ZONE_EMPTY);
    assert_int_equal(rig_zone(&r, 2).state, ZQCOW2_ZONE_EMPTY);
    assert_int_equal(rig_info(&r).active_zones, 1);
    /* Under a forced state it stays; other rules do not know it. */
    assert_int_equal(set(&r, 5, ZQCOW2_ZONE_CLOSED | PERSIST), 0);
    assert_int_equal(set(&r, 5, ZQCOW2_ZONE_RDONLY | PERSIST), 0);
    rig_reopen(&r);
    assert_int_equal(rig_zone(&r, 5).state, ZQCOW2_ZONE_RDONLY);
    assert_int_equal(rig_info(&r).active_zones, 2);
    assert_int_equal(set(&r, 5, ZQCOW2_ZONE_NOT_WP), 0);
    assert_int_equal(rig_zone(&r, 5).state, ZQCOW2_ZONE_CLOSED);
    assert_int_equal(rig_close(&r), 0);
    r.g = &linux_rules;
    r.open.rules = ZQCOW2_RULES_LINUX;
    assert_int_equal(rig_open(&r, true), 0);
    assert_int_equal(set(&r, 5, ZQCOW2_ZONE_NOT_WP), 0);
    assert_int_equal(rig_zone(&r, 5).state, ZQCOW2_ZONE_EMPTY);
    rig_end(&r);
}

/*
 * A crash between a write pointer and the table leaves a written zone that is still marked as
 * closed and empty. The mark is void, and stays so when the zone is empty again.
 */
static void a_void_mark_does_not_come_back(void **state)
{
    static struct rig r;
    uint64_t table;

    (void)state;
    for (unsigned reopened = 0; reopened < 2; reopened++) {
        rig_begin(&r, &zns);
        assert_int_equal(set(&r, 1, ZQCOW2_ZONE_CLOSED | PERSIST), 0);
        assert_int_equal(rig_write(&r, ZONE, 512, 1), 0);
        assert_int_equal(rig_close(&r), 0);
        table = be(&r, find_ext(&r, EXT), 8);
        assert_int_equal(be(&r, table + 1, 1), 0);
        put(&r, table + 1, 1, 0x10);
        assert_int_equal(rig_open(&r, false), 0);
        assert_int_equal(rig_zone(&r, 1).write_pointer, ZONE + 512);
        assert_int_equal(rig_close(&r), 0);
        assert_int_equal(be(&r, table + 1, 1), 0x10); /* a reader leaves it */
        assert_int_equal(rig_open(&r, true), 0);
        assert_int_equal(be(&r, table + 1, 1), 0); /* a writer does not */
        if (reopened)
            rig_reopen(&r);
        assert_int_equal(rig_zone(&r, 1).write_pointer, ZONE + 512);
        assert_int_equal(rig_manage(&r, ZQCOW2_OP_ZONE_RESET, ZONE, ZONE, NULL), 0);
        rig_reopen(&r);
        assert_int_equal(rig_zone(&r, 1).state, ZQCOW2_ZONE_EMPTY);
        assert_int_equal(rig_info(&r).active_zones, 0);
        rig_end(&r);
    }
}

/* Its clusters are leaks then, and the next state that is stored gets a new table. */
static void another_program_writes(void **state)
{
    static struct rig r;
    uint64_t table, ext;

    (void)state;
    for (unsigned i = 0; i < sizeof(all) / sizeof(*all); i++) {
        rig_begin(&r, all[i]);
        assert_int_equal(set(&r, 2, ZQCOW2_ZONE_OFFLINE | PERSIST), 0);
        assert_int_equal(rig_close(&r), 0);
        ext = find_ext(&r, EXT);
        assert_true(ext && ext + 40 <= 512);
        assert_true(be(&r, 88, 8) == (uint64_t)1 << 63);
        table = be(&r, ext, 8);
        assert_int_equal(be(&r, table + 2, 1), ZQCOW2_ZONE_OFFLINE);
        foreign_write(&r);
        put(&r, table + 2, 1, 0x99); /* belongs to others by now */
        assert_int_equal(rig_open(&r, false), 0);
        assert_true(is_void(&r) && !stores(&r));
        assert_int_equal(rig_zone(&r, 2).state, ZQCOW2_ZONE_EMPTY);
        assert_int_equal(rig_close(&r), 0);
        assert_int_equal(rig_check(&r, 0), 0);
        assert_int_equal(r.check.corruptions, 0);
        assert_true(r.check.leaked_clusters > 0);
        assert_int_equal(rig_check(&r, ZQCOW2_CHECK_REPAIR_LEAKS), 0);
        assert_int_equal(rig_open(&r, true), 0);
        assert_true(is_void(&r));
        assert_int_equal(set(&r, 3, ZQCOW2_ZONE_RDONLY | PERSIST), 0);
        assert_true(stores(&r) && !is_void(&r));
        rig_reopen(&r);
        assert_true(find_ext(&r, EXT) == ext);
        assert_int_equal(rig_zone(&r, 2).state, ZQCOW2_ZONE_EMPTY);
        assert_int_equal(rig_zone(&r, 3).state, ZQCOW2_ZONE_RDONLY);
        rig_end(&r);
    }
}

/* Another program may write all extensions anew: ours is then behind the first sector, and void. */
static void moved_behind(uint32_t bytes)
{
    static struct rig r;
    uint8_t ext[48], names[480] = {0};
    uint64_t at;

    rig_begin(&r, &large);
    assert_int_equal(set(&r, 2, ZQCOW2_ZONE_OFFLINE | PERSIST), 0);
    assert_int_equal(rig_close(&r), 0);
    at = find_ext(&r, EXT) - 8;
    store_get(&r.store, ext, sizeof(ext), at);
    put(&r, at, 4, 0x6803f857); /* feature names: this long, and no others */
    put(&r, at + 4, 4, bytes);
    store_put(&r.store, names, bytes, at + 8);
    store_put(&r.store, ext, sizeof(ext), at + 8 + bytes);
    put(&r, at + 8 + bytes + sizeof(ext), 8, 0);
    for (int cleared = 0; cleared < 2; cleared++) { /* a bit without what it stands for */
        if (cleared)
            foreign_write(&r);
        assert_int_equal(rig_open(&r, false), 0);
        assert_true(is_void(&r));
        assert_int_equal(rig_zone(&r, 2).state, ZQCOW2_ZONE_EMPTY);
        assert_int_equal(rig_close(&r), 0);
    }
    assert_int_equal(rig_open(&r, true), 0);
    assert_int_equal(set(&r, 3, ZQCOW2_ZONE_RDONLY | PERSIST), 0);
    rig_reopen(&r);
    assert_true(stores(&r) && !is_void(&r));
    assert_int_equal(rig_zone(&r, 3).state, ZQCOW2_ZONE_RDONLY);
    assert_int_equal(rig_close(&r), 0);
    assert_int_equal(rig_check(&r, ZQCOW2_CHECK_REPAIR_LEAKS), 0);
    assert_int_equal(r.check.leaks_fixed, 1); /* the old table */
    assert_int_equal(rig_open(&r, true), 0);
    rig_end(&r);
}

static void another_program_moves_it(void **state)
{
    (void)state;
    moved_behind(480);
    moved_behind(288); /* it begins in the first sector, and ends behind it */
}

/* The table takes clusters in which something is left that nobody counts any more. */
static void over_old_bytes(void **state)
{
    static uint8_t junk[65536];
    static struct rig r;

    (void)state;
    memset(junk, 0x99, sizeof(junk));
    rig_init(&r, &many, RIG_PLAIN, 1);
    assert_int_equal(rig_create(&r), 0);
    store_put(&r.store, junk, sizeof(junk), (r.store.length + 511) / 512 * 512);
    assert_int_equal(rig_open(&r, true), 0);
    assert_int_equal(set(&r, 5, ZQCOW2_ZONE_RDONLY | PERSIST), 0);
    rig_reopen(&r);
    for (uint32_t i = 0; i < 4500; i++)
        assert_int_equal(rig_zone(&r, i).state, i == 5 ? ZQCOW2_ZONE_RDONLY : ZQCOW2_ZONE_EMPTY);
    rig_end(&r);
}

static void no_room(void **state)
{
    static struct rig r;

    (void)state;
    rig_init(&r, &zns, RIG_PLAIN, 1);
    assert_int_equal(rig_create(&r), 0);
    put(&r, find_ext(&r, 0x6803f857) - 8, 4,
        0x12345678); /* data of others, of which nothing goes */
    assert_int_equal(rig_open(&r, true), 0);
    assert_int_equal(set(&r, 2, ZQCOW2_ZONE_RDONLY | PERSIST), ZQCOW2_EFEATURE);
    assert_int_equal(rig_zone(&r, 2).state, ZQCOW2_ZONE_EMPTY);
    assert_int_equal(set(&r, 2, ZQCOW2_ZONE_RDONLY), 0);
    rig_end(&r);
}

struct two {
    unsigned done;
    int rc;
};

static void count(void *arg, const struct zqcow2_result *res)
{
    struct two *t = arg;

    t->done++;
    t->rc = t->rc ? t->rc : res->ret;
}

/* Requests that come while the table is made find the same one. */
static void several_at_once(void **state)
{
    static struct rig r;
    struct zqcow2_queue *q;
    struct two t = {0, 0};

    (void)state;
    for (uint64_t seed = 1; seed <= 20; seed++) {
        rig_begin_in(&r, &zns, RIG_SHUFFLED, seed);
        assert_int_equal(zqcow2_queue_open(r.img, 16, &q), 0);
        for (uint32_t i = 0; i < 8; i++) {
            struct zqcow2_request req = {.size = sizeof(req), .op = ZQCOW2_OP_ZONE_SET_STATE};

            req.offset = rig_start(&r, i);
            req.length = (i % 2 ? ZQCOW2_ZONE_RDONLY : ZQCOW2_ZONE_OFFLINE) | PERSIST;
            req.done = count;
            req.arg = &t;
            assert_int_equal(zqcow2_queue_submit(q, &req, 1), 1);
        }
        while (t.done < 8)
            zqcow2_queue_wait(q, 1, -1);
        assert_int_equal(t.rc, 0);
        t.done = 0;
        assert_int_equal(zqcow2_queue_close(q), 0);
        rig_reopen(&r);
        for (uint32_t i = 0; i < 8; i++)
            assert_int_equal(rig_zone(&r, i).state,
                             i % 2 ? ZQCOW2_ZONE_RDONLY : ZQCOW2_ZONE_OFFLINE);
        rig_end(&r);
    }
}

/* ---- faults ---- */

/* The n-th allocation (kind NONE) or call fails. False: there was no such one. */
static bool set_under_fault(enum fault_kind kind, uint64_t n, bool for_ever)
{
    static struct rig r;
    bool struck;
    int rc;

    rig_begin_in(&r, &small, n % 2 ? RIG_SHUFFLED : RIG_PLAIN, n);
    heap_plan(&r.heap, kind == FAULT_NONE ? n : 0, for_ever);
    fault_plan(&r.fault, kind, kind == FAULT_NONE ? 0 : n, for_ever);
    rc = set(&r, 2, ZQCOW2_ZONE_RDONLY | PERSIST);
    struck = r.heap.failed + r.fault.failed > 0;
    heap_plan(&r.heap, 0, false);
    fault_plan(&r.fault, FAULT_NONE, 0, false);
    if (rc < 0 && !struck)
        fail_msg("fault %d at %llu: %d", kind, (unsigned long long)n, rc);
    (void)rig_close(&r);
    assert_int_equal(rig_check(&r, 0), 0);
    assert_int_equal(r.check.corruptions, 0);
    assert_int_equal(rig_open(&r, true), 0);
    if (rc == 0 || rig_zone(&r, 2).state != ZQCOW2_ZONE_EMPTY)
        assert_int_equal(rig_zone(&r, 2).state, ZQCOW2_ZONE_RDONLY);
    assert_int_equal(set(&r, 2, ZQCOW2_ZONE_NOT_WP | PERSIST), 0);
    assert_int_equal(set(&r, 3, ZQCOW2_ZONE_OFFLINE | PERSIST), 0);
    rig_reopen(&r);
    assert_int_equal(rig_zone(&r, 2).state, ZQCOW2_ZONE_EMPTY);
    assert_int_equal(rig_zone(&r, 3).state, ZQCOW2_ZONE_OFFLINE);
    rig_end(&r);
    return struck;
}

static void under_every_fault(void **state)
{
    static const enum fault_kind kinds[] = {FAULT_NONE, FAULT_EIO, FAULT_ENOSPC, FAULT_SHORT};
    unsigned points = 0;

    (void)state;
    for (unsigned i = 0; i < 8; i++) {
        for (uint64_t n = 1; set_under_fault(kinds[i / 2], n, i % 2); n++)
            points++;
    }
    assert_true(points > 40);
    printf("states: %u faults\n", points);
}

/* ---- damage ---- */

struct damage {
    const char *name;
    unsigned at, bytes; /* in the extension's data, from its head on */
    uint64_t value;
    int rc;
    const char *text;
};

static const struct damage damages[] = {
    {"length", 4, 4, 32, ZQCOW2_ECORRUPT, "zone states: extension length 32"},
    {"no offset", 8, 8, 0, ZQCOW2_ECORRUPT, "zone states: offset 0 "},
    {"unaligned", 8, 8, 4608, ZQCOW2_ECORRUPT, "zone states: offset 4608 "},
    {"far", 8, 8, (uint64_t)1 << 56, ZQCOW2_ECORRUPT, "zone states: offset 72057594037927936 "},
    {"past the end", 8, 8, (uint64_t)1 << 40, ZQCOW2_ECORRUPT, "runs past the end of the file"},
    {"on the header", 8, 8, 4096, ZQCOW2_ECORRUPT, "overlaps"},
    {"zones", 16, 4, 9, ZQCOW2_ECORRUPT, "zone states: of 9 zones, but the image has 8"},
    {"no zones", 16, 4, 0, ZQCOW2_ECORRUPT, "zone states: of 0 zones, but the image has 8"},
    {"many zones", 16, 4, UINT32_MAX, ZQCOW2_ECORRUPT, "runs past the end of the file"},
    {"newer", 32, 4, 64, ZQCOW2_EFEATURE, "is 0x40, which is unknown"},
    {"extensions nowhere", 20, 4, 64, ZQCOW2_ECORRUPT, "zone states: descriptor extensions 0 "},
    {"nothing somewhere", 24, 8, 4096, ZQCOW2_EFEATURE, "is 0x10, which is unknown"},
};

static void damage(const struct damage *d)
{
    static struct rig r;
    uint64_t ext, was;

    rig_begin(&r, &small);
    assert_int_equal(set(&r, 2, ZQCOW2_ZONE_RDONLY | PERSIST), 0);
    assert_int_equal(rig_close(&r), 0);
    ext = find_ext(&r, EXT) - 8;
    was = be(&r, ext + d->at, d->bytes);
    put(&r, ext + d->at, d->bytes, d->value);
    for (int writable = 0; writable < 2; writable++) {
        int rc = rig_open(&r, writable);

        if (rc != d->rc || !strstr(r.err.text, d->text))
            fail_msg("%s: open: %d \"%s\", expected %d \"%s\"", d->name, rc, r.err.text, d->rc,
                     d->text);
    }
    if (rig_check(&r, 0) != d->rc && !r.check.corruptions)
        fail_msg("%s: check finds nothing", d->name);
    foreign_write(&r); /* what does not hold is not believed */
    assert_int_equal(rig_open(&r, false), 0);
    assert_true(is_void(&r));
    assert_int_equal(rig_close(&r), 0);
    put(&r, 88, 8, (uint64_t)1 << 63);
    put(&r, ext + d->at, d->bytes, was);
    assert_int_equal(rig_open(&r, true), 0);
    assert_int_equal(rig_zone(&r, 2).state, ZQCOW2_ZONE_RDONLY);
    rig_end(&r);
}

static void damaged_extensions(void **state)
{
    unsigned n = sizeof(damages) / sizeof(*damages);

    (void)state;
    for (unsigned i = 0; i < n; i++)
        damage(&damages[i]);
    printf("states: %u damaged extensions\n", n);
}

static void damaged_tables(void **state)
{
    static const uint8_t values[] = {1, 4, 0xe, 0x20, 0x8d, 0xff, 0x11};
    static struct rig r;

    (void)state;
    for (unsigned i = 0; i < 2 * sizeof(values); i++) {
        uint32_t zone = i % 2 ? 0 : 5; /* the first is conventional */
        uint64_t at;
        char text[64];

        rig_begin(&r, &small);
        assert_int_equal(set(&r, 2, ZQCOW2_ZONE_RDONLY | PERSIST), 0);
        assert_int_equal(rig_close(&r), 0);
        at = be(&r, find_ext(&r, EXT), 8) + zone;
        put(&r, at, 1, values[i / 2]);
        snprintf(text, sizeof(text), "stored state of zone %u at byte %llu is 0x%02x", zone,
                 (unsigned long long)at, values[i / 2]);
        for (int writable = 0; writable < 2; writable++) {
            assert_int_equal(rig_open(&r, writable), ZQCOW2_ECORRUPT);
            assert_non_null(strstr(r.err.text, text));
        }
        assert_int_equal(rig_check(&r, 0), 0);
        assert_int_equal(r.check.corruptions, 1);
        assert_int_equal(rig_check(&r, ZQCOW2_CHECK_REPAIR), 0);
        assert_int_equal(r.check.corruptions_fixed, 0);
        assert_int_equal(rig_check(&r, ZQCOW2_CHECK_REPAIR_ALL), 0);
        assert_int_equal(r.check.corruptions_fixed, 1);
        assert_int_equal(rig_open(&r, true), 0);
        assert_int_equal(rig_zone(&r, 2).state, ZQCOW2_ZONE_RDONLY); /* the others stay */
        assert_int_equal(rig_zone(&r, 5).state, ZQCOW2_ZONE_EMPTY);
        rig_end(&r);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(states_survive),
                                       cmocka_unit_test(what_may_not_be_stored),
                                       cmocka_unit_test(closed_and_empty),
                                       cmocka_unit_test(a_void_mark_does_not_come_back),
                                       cmocka_unit_test(another_program_writes),
                                       cmocka_unit_test(another_program_moves_it),
                                       cmocka_unit_test(no_room),
                                       cmocka_unit_test(over_old_bytes),
                                       cmocka_unit_test(several_at_once),
                                       cmocka_unit_test(under_every_fault),
                                       cmocka_unit_test(damaged_extensions),
                                       cmocka_unit_test(damaged_tables)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
