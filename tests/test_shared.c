/* SPDX-License-Identifier: MIT */
/* What is shared is not changed: writes go elsewhere, however well the mapping is known. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>
#include "rig/raw.h"
#include "rig/rig.h"

#define C        4096u
#define CLUSTERS 6u

static const struct geometry conv = {
    .name = "conv", .size = KiB(256), .zone_size = KiB(64), .conventional = 2, .cluster = C};

static uint64_t be(struct rig *r, uint64_t off, unsigned bytes)
{
    return raw_get(&(struct raw){.s = &r->store}, off, bytes);
}

/* Of guest cluster i, as the qcow2 specification says: L1 at 40, refcount table at 48. */
static uint64_t l2_entry_at(struct rig *r, unsigned i)
{
    return (be(r, be(r, 40, 8), 8) & 0x00fffffffffffe00ull) + i * 8;
}

static uint64_t host_of(struct rig *r, unsigned i)
{
    return be(r, l2_entry_at(r, i), 8) & 0x00fffffffffffe00ull;
}

/* One more reference to the cluster, which therefore is not to be written in place. */
static void share(struct rig *r, unsigned i)
{
    uint64_t host = host_of(r, i), block = be(r, be(r, 48, 8), 8);
    uint8_t copied;

    store_put(&r->store, (uint8_t[]){0, 2}, 2, block + host / C * 2);
    store_get(&r->store, &copied, 1, l2_entry_at(r, i));
    assert_int_equal(copied & 0x80, 0x80);
    copied &= 0x7f;
    store_put(&r->store, &copied, 1, l2_entry_at(r, i));
}

static void writes_go_elsewhere(void **state)
{
    uint64_t host[CLUSTERS];
    uint8_t was[C], is[C];
    struct rig r;

    (void)state;
    rig_begin(&r, &conv);
    for (unsigned i = 0; i < CLUSTERS; i++)
        assert_int_equal(rig_write(&r, i * C, C, 1), 0);
    assert_int_equal(rig_close(&r), 0);
    for (unsigned i = 0; i < CLUSTERS; i++) {
        host[i] = host_of(&r, i);
        share(&r, i);
    }
    assert_int_equal(rig_open(&r, true), 0);
    /* Whole clusters and parts; each twice, the second time in place of the new one. */
    for (unsigned i = 0; i < CLUSTERS; i++) {
        uint64_t len = i % 2 ? C : 512, off = i * C + (i % 2 ? 0 : 1024);

        store_get(&r.store, was, C, host[i]);
        assert_true(rig_holds(&r, i * C, C, i * C, 1));
        assert_int_equal(rig_write(&r, off, len, 2), 0);
        assert_int_equal(rig_write(&r, off, len, 3), 0);
        assert_true(rig_holds(&r, off, len, off, 3));
        if (len < C)
            assert_true(rig_holds(&r, i * C, 1024, i * C, 1));
        store_get(&r.store, is, C, host[i]);
        assert_memory_equal(is, was, C);
    }
    assert_int_equal(rig_close(&r), 0);
    for (unsigned i = 0; i < CLUSTERS; i++)
        assert_int_not_equal(host_of(&r, i), host[i]);
    assert_null(rig_free(&r));
}

/*
 * A table that was given up and becomes one again, elsewhere on the device: what the cache had of
 * it is of no use. Nobody else refers to the table here, it only lacks the flag; so it gets free.
 */
static void a_table_is_used_again(void **state)
{
    static const struct geometry plain = {.name = "plain", .size = MiB(1), .cluster = 512};
    uint64_t l1, table, span = KiB(32); /* what a table maps */
    uint8_t flags;
    struct rig r;

    (void)state;
    rig_begin(&r, &plain);
    assert_int_equal(rig_write(&r, 0, KiB(16), 1), 0);
    assert_int_equal(rig_close(&r), 0);
    l1 = be(&r, 40, 8);
    table = be(&r, l1, 8) & 0x00fffffffffffe00ull;
    store_get(&r.store, &flags, 1, l1);
    assert_int_equal(flags & 0x80, 0x80);
    store_put(&r.store, (uint8_t[]){flags & 0x7f}, 1, l1);
    assert_int_equal(rig_open(&r, true), 0);
    assert_true(rig_holds(&r, 0, KiB(16), 0, 1)); /* in the cache now */
    assert_int_equal(rig_write(&r, KiB(16), 512, 2), 0);
    assert_int_equal(zqcow2_drain(r.img), 0);
    assert_int_not_equal(be(&r, l1, 8) & 0x00fffffffffffe00ull, table);
    for (unsigned i = 1; i < 32; i++) {
        assert_int_equal(rig_write(&r, i * span + KiB(31), 512, 3), 0);
        assert_true(rig_zeros(&r, i * span, KiB(31)));
        assert_true(rig_holds(&r, i * span + KiB(31), 512, i * span + KiB(31), 3));
    }
    assert_true(rig_holds(&r, 0, KiB(16), 0, 1));
    assert_int_equal(zqcow2_flush(r.img), 0);
    for (unsigned i = 1; table && i < 32; i++)
        table = (be(&r, l1 + i * 8, 8) & 0x00fffffffffffe00ull) == table ? 0 : table;
    assert_int_equal(table, 0); /* it was */
    rig_end(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(writes_go_elsewhere),
        cmocka_unit_test(a_table_is_used_again),
    };

    return cmocka_run_group_tests_name("shared", tests, NULL, NULL);
}
