/* SPDX-License-Identifier: MIT */
/*
 * A device with blocks of 4096 bytes: which requests it takes, and which images cannot be one. The
 * expected answers follow from the offset and the length alone.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>
#include "rig/rig.h"

#define BLOCK 4096u

static const struct geometry zoned = {.name = "zones",
                                      .size = KiB(512),
                                      .zone_size = KiB(64),
                                      .capacity = KiB(48),
                                      .conventional = 1,
                                      .cluster = 4096};

static int ask(struct rig *r, unsigned op, uint64_t off, uint64_t len)
{
    static char buf[4 * BLOCK];
    struct zqcow2_extent e = ZQCOW2_EXTENT_INIT;

    switch (op) {
    case ZQCOW2_OP_READ: return zqcow2_read(r->img, buf, len, off);
    case ZQCOW2_OP_WRITE: return zqcow2_write(r->img, buf, len, off, 0);
    case ZQCOW2_OP_APPEND: return zqcow2_append(r->img, buf, len, &off, 0);
    case ZQCOW2_OP_WRITE_ZEROES: return zqcow2_write_zeroes(r->img, len, off, 0);
    case ZQCOW2_OP_DISCARD: return zqcow2_discard(r->img, len, off, 0);
    default: return zqcow2_block_status(r->img, off, len, &e);
    }
}

/* In the conventional zone, where every offset is allowed, and for appends in another. */
static void each_operation(void **state)
{
    static const unsigned ops[] = {ZQCOW2_OP_READ,    ZQCOW2_OP_WRITE,
                                   ZQCOW2_OP_APPEND,  ZQCOW2_OP_WRITE_ZEROES,
                                   ZQCOW2_OP_DISCARD, ZQCOW2_OP_BLOCK_STATUS};
    static const uint64_t at[] = {0, 512, 2048, 3584, 4096, 4608, 8192};
    static const enum rig_world worlds[] = {RIG_PLAIN, RIG_SHUFFLED};
    unsigned asked = 0;

    (void)state;
    for (unsigned i = 0; i < 2 * 6 * 7 * 7; i++) {
        unsigned op = ops[i / 49 % 6];
        uint64_t off = at[i / 7 % 7], len = at[i % 7];
        unsigned unit = op == ZQCOW2_OP_BLOCK_STATUS ? 512 : BLOCK;
        static struct rig r;
        int rc, want;

        if (i % 49 == 0) {
            rig_init(&r, &zoned, worlds[i / 294], 1);
            assert_int_equal(rig_create(&r), 0);
            r.open.block_size = BLOCK;
            assert_int_equal(rig_open(&r, true), 0);
            assert_int_equal(rig_info(&r).block_size, BLOCK);
            assert_int_equal(zqcow2_write_zeroes(r.img, KiB(64), 0, 0), 0);
        }
        if (op == ZQCOW2_OP_APPEND)
            off = off % BLOCK ? KiB(64) + off : KiB(64) * (1 + off / BLOCK);
        want = len == 0 || off % unit || len % unit ? -EINVAL : 0;
        rc = ask(&r, op, off, len);
        if (rc != want)
            fail_msg("world %d, operation %u, offset %llu, length %llu: %d, expected %d",
                     worlds[i / 294], op, (unsigned long long)off, (unsigned long long)len, rc,
                     want);
        asked++;
        if (i % 49 == 48)
            rig_end(&r);
    }
    printf("block size: %u requests\n", asked);
}

static void refused(const struct geometry *g, uint64_t written, const char *text)
{
    static struct rig r;

    rig_init(&r, g, RIG_PLAIN, 1);
    assert_int_equal(rig_create(&r), 0);
    assert_int_equal(rig_open(&r, true), 0);
    assert_int_equal(rig_info(&r).block_size, 512);
    if (written)
        assert_int_equal(rig_write(&r, rig_start(&r, 3), written, 1), 0);
    assert_int_equal(rig_close(&r), 0);
    r.open.block_size = BLOCK;
    for (int writable = 0; writable < 2; writable++) {
        memset(&r.err, 0, sizeof(r.err));
        assert_int_equal(rig_open(&r, writable), text ? -EINVAL : 0);
        assert_string_equal(r.err.text, text ? text : "");
        if (!text)
            assert_int_equal(rig_close(&r), 0);
    }
    r.open.block_size = 0;
    assert_int_equal(rig_open(&r, true), 0);
    rig_end(&r);
}

/* What is not a multiple is named, with its value; the image opens with blocks of 512. */
static void images_that_have_no_such_blocks(void **state)
{
    struct geometry g = zoned;

    (void)state;
    refused(&g, 0, NULL);
    refused(&g, 2 * BLOCK, NULL);
    refused(&g, KiB(48), NULL);
    refused(&g, 2 * BLOCK + 512,
            "block_size 4096: the write pointer 0x32200 of zone 3 is not a multiple of it");
    refused(&g, 512,
            "block_size 4096: the write pointer 0x30200 of zone 3 is not a multiple of it");
    g.capacity = KiB(48) + 512;
    refused(&g, 0, "block_size 4096: the zone capacity 49664 is not a multiple of it");
    g = zoned;
    g.size -= 1024;
    refused(&g, 0, "block_size 4096: the size 523264 is not a multiple of it");
    g = (struct geometry){
        .name = "small zones", .size = KiB(64), .zone_size = 2048, .cluster = 512};
    refused(&g, 0, "block_size 4096: the zone size 2048 is not a multiple of it");
    g = (struct geometry){.name = "small appends",
                          .size = KiB(64),
                          .zone_size = KiB(16),
                          .cluster = 4096,
                          .max_append = 2048,
                          .layout = ZQCOW2_LAYOUT_48B};
    refused(&g, 0, "block_size 4096: the largest append is 2048");
    g = (struct geometry){.name = "no zones", .size = KiB(64) + 512, .cluster = 4096};
    refused(&g, 0, "block_size 4096: the size 66048 is not a multiple of it");
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(each_operation),
                                       cmocka_unit_test(images_that_have_no_such_blocks)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
