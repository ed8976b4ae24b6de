/* SPDX-License-Identifier: MIT */
/*
 * An L2 entry that points at a table, of whatever kind and in whatever form. Nothing that a guest
 * asks for may write there, free it or make it a hole: the request is refused, and not one byte of
 * the tables changes.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <zqcow2/queue.h>

#include "unit/pic.h"

#define KiB(n)  ((uint64_t)(n) << 10)
#define MiB(n)  ((uint64_t)(n) << 20)
#define ZONE    MiB(1)
#define RDWR    (ZQCOW2_OPEN_BORROW | ZQCOW2_OPEN_RDWR)
#define BAD     (ZONE + 3 * p->cluster) /* the guest cluster whose entry is bent */
#define NR_GOOD 6                       /* clusters around it are mapped, in a row */

enum target { HEADER, L1, RT, BLOCK, ITS_L2, OTHER_L2, SNAPSHOTS, WP, NR_TARGETS };
static const char *const targets[] = {"header",         "L1 table",           "refcount table",
                                      "block",          "its L2 table",       "other L2 table",
                                      "snapshot table", "write-pointer table"};

enum form { OWN, SHARED, ZERO, PACKED, NR_FORMS };
static const char *const forms[] = {"copied", "shared", "zero", "compressed"};

enum op { PART, WHOLE, ALL, ZEROES, ALL_ZEROES, DISCARD, ALL_DISCARD, RESET, FINISH, NR_OPS };
static const char *const ops[] = {"part",    "whole",       "all",   "zeroes", "all zeroes",
                                  "discard", "all discard", "reset", "finish"};

static uint8_t data[ZONE];

static void make(struct pic *p, uint32_t cluster, bool zoned)
{
    struct zqcow2_create_options o = ZQCOW2_CREATE_OPTIONS_INIT;

    o.virtual_size = MiB(768);
    o.cluster_size = cluster;
    o.zone_size = zoned ? ZONE : 0;
    pic_make(p, &o);
    if (!zoned)
        pic_snapshot(p); /* of nothing */
    for (uint64_t i = 0; i < NR_GOOD; i++)
        pic_map(p, ZONE + i * cluster, 0x51);
    pic_l2(p, MiB(640)); /* with any size of cluster another table */
    if (zoned)
        pic_put(p, p->wp + 8, 8, BAD + 512);
}

static uint64_t l2_of(struct pic *p, uint64_t guest)
{
    return pic_l2(p, guest) / p->cluster * p->cluster;
}

static uint64_t place_of(struct pic *p, enum target t)
{
    switch (t) {
    case HEADER: return 0;
    case L1: return p->l1;
    case RT: return p->rt;
    case BLOCK: return pic_get(p, p->rt, 8);
    case ITS_L2: return l2_of(p, BAD);
    case OTHER_L2: return l2_of(p, MiB(640));
    case SNAPSHOTS: return pic_get(p, 64, 8);
    default: return p->wp;
    }
}

/* The header at 0 can only be meant by what is compressed: else 0 is no cluster. */
static bool bend(struct pic *p, enum target t, enum form f)
{
    uint64_t host = place_of(p, t), entry = host;

    if ((t == SNAPSHOTS || t == WP) && !host)
        return false;
    if (t == HEADER && f != PACKED)
        return false;
    if (f == OWN)
        entry |= PIC_COPIED;
    else if (f == ZERO)
        entry |= PIC_COPIED | 1;
    else if (f == PACKED)
        entry |= PIC_COMPRESSED;
    pic_put(p, pic_l2(p, BAD), 8, entry);
    return true;
}

static int zone_op(struct zqcow2_image *img, uint16_t op)
{
    const struct zqcow2_request r = {.size = sizeof(r), .op = op, .offset = ZONE, .length = ZONE};

    return zqcow2_run(img, &r, NULL);
}

static int run(struct pic *p, struct zqcow2_image *img, enum op op)
{
    uint64_t first = ZONE, all = NR_GOOD * p->cluster;

    memset(data, 0x66, sizeof(data));
    switch (op) {
    case PART: return zqcow2_write(img, data, 512, BAD + 512, 0);
    case WHOLE: return zqcow2_write(img, data, p->cluster, BAD, 0);
    case ALL: return zqcow2_write(img, data, all, first, 0);
    case ZEROES: return zqcow2_write_zeroes(img, p->cluster, BAD, 0);
    case ALL_ZEROES: return zqcow2_write_zeroes(img, all, first, 0);
    case DISCARD: return zqcow2_discard(img, p->cluster, BAD, 0);
    case ALL_DISCARD: return zqcow2_discard(img, all, first, 0);
    case RESET: return zone_op(img, ZQCOW2_OP_ZONE_RESET);
    default: return zone_op(img, ZQCOW2_OP_ZONE_FINISH);
    }
}

/* Bytes [at, at + len) of the file, except for the mark and the zone's write pointer. */
static void expect_same(struct pic *p, const uint8_t *before, uint64_t at, uint64_t len,
                        const char *what)
{
    for (uint64_t i = at; i < at + len; i++) {
        if (i == p->mark || (p->wp && i >= p->wp + 8 && i < p->wp + 16))
            continue;
        if (pic_get(p, i, 1) != before[i])
            fail_msg("%s: byte 0x%llx of the file was changed", what, (unsigned long long)i);
    }
}

static void attack(struct pic *p, enum target t, enum form f, enum op op)
{
    struct zqcow2_open_options o = ZQCOW2_OPEN_OPTIONS_INIT;
    struct zqcow2_image *img;
    uint64_t len, refcount;
    uint8_t *before;
    char what[128];
    int rc;

    snprintf(what, sizeof(what), "cluster_size %u, %s, %s, %s: %s", (unsigned)p->cluster,
             p->wp ? "zoned" : "plain", targets[t], forms[f], ops[op]);
    before = pic_bytes(p, &len);
    refcount = pic_refcount(p, place_of(p, t));
    o.flags = RDWR;
    if (zqcow2_open(p->be, &o, &img, &p->err) != 0)
        fail_msg("%s: %s", what, p->err.text);
    rc = run(p, img, op);
    if (op < RESET && rc != ZQCOW2_ECORRUPT)
        fail_msg("%s gives %d", what, rc);
    (void)zqcow2_drain(img);
    assert_int_equal(zqcow2_close(img), 0);
    if (pic_refcount(p, place_of(p, t)) != refcount)
        fail_msg("%s: the table's refcount was changed", what);
    /* What lies beyond the write pointer goes when a zone is finished, which changes these two. */
    if (op != FINISH || (t != BLOCK && t != ITS_L2))
        expect_same(p, before, place_of(p, t), p->cluster, what);
    free(before);
}

static void attack_anew(uint32_t cluster, bool zoned, enum target t, enum form f, enum op op)
{
    struct pic p;

    if (zoned ? op > PART && op < RESET : op >= RESET)
        return;
    make(&p, cluster, zoned);
    if (bend(&p, t, f))
        attack(&p, t, f, op);
    pic_free(&p);
}

static void attack_all(uint32_t cluster, bool zoned)
{
    for (int t = 0; t < NR_TARGETS; t++) {
        for (int f = 0; f < NR_FORMS; f++) {
            for (int op = 0; op < NR_OPS; op++)
                attack_anew(cluster, zoned, (enum target)t, (enum form)f, (enum op)op);
        }
    }
}

static void test_plain(void **state)
{
    (void)state;
    attack_all(4096, false);
    attack_all(65536, false);
}

static void test_zoned(void **state)
{
    (void)state;
    attack_all(4096, true);
    attack_all(65536, true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plain),
        cmocka_unit_test(test_zoned),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
