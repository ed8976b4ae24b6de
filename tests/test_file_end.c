/* SPDX-License-Identifier: MIT */
/*
 * The file becomes shorter when nothing in its end is in use any more: at once behind the calls
 * that give much back, else when the image is closed. What is in use, or is a table that a refcount
 * says is free, stays.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include <zqcow2/change.h>
#include <zqcow2/chain.h>
#include <zqcow2/simdisk.h>
#include <zqcow2/zqcow2.h>

#define KIB(n) ((uint64_t)(n) << 10)
#define MIB(n) ((uint64_t)(n) << 20)

static uint8_t data[MIB(2)], got[MIB(2)];
static struct zqcow2_simdisk *disk;
static struct zqcow2_backend *raw; /* of the disk */
static struct zqcow2_image *img;

static uint64_t length(void)
{
    uint64_t bytes;

    assert_int_equal(zqcow2_backend_length(raw, &bytes), 0);
    return bytes;
}

static void open_rw(void)
{
    struct zqcow2_open_options o = ZQCOW2_OPEN_OPTIONS_INIT;
    struct zqcow2_backend *be;

    assert_int_equal(zqcow2_simdisk_backend(disk, &be), 0);
    o.flags = ZQCOW2_OPEN_RDWR | ZQCOW2_OPEN_NOLOCK;
    assert_int_equal(zqcow2_open(be, &o, &img, NULL), 0);
}

static void begin(uint64_t size, uint32_t cluster, uint64_t zone)
{
    struct zqcow2_create_options c = ZQCOW2_CREATE_OPTIONS_INIT;

    for (size_t i = 0; i < sizeof(data); i++)
        data[i] = (uint8_t)(i / 512 % 251 + 1);
    assert_int_equal(zqcow2_simdisk_new(NULL, &disk), 0);
    assert_int_equal(zqcow2_simdisk_backend(disk, &raw), 0);
    c.virtual_size = size;
    c.cluster_size = cluster;
    c.zone_size = zone;
    assert_int_equal(zqcow2_create(raw, &c, NULL), 0);
    open_rw();
}

/* Nothing leaks, nothing is wrong, and the file ends where the last cluster does. */
static void sound(uint64_t *end)
{
    struct zqcow2_check_result res = ZQCOW2_CHECK_RESULT_INIT;

    assert_int_equal(zqcow2_check(raw, NULL, &res, NULL), 0);
    assert_int_equal(res.corruptions, 0);
    assert_int_equal(res.leaked_clusters, 0);
    *end = res.image_end_offset;
}

static void close_tight(void)
{
    uint64_t end;

    assert_int_equal(zqcow2_close(img), 0);
    sound(&end);
    assert_int_equal(length(), end);
}

static void end(void)
{
    zqcow2_backend_close(raw);
    zqcow2_simdisk_free(disk);
}

static void reads(uint64_t at, const uint8_t *want, uint64_t n)
{
    assert_int_equal(zqcow2_read(img, got, n, at), 0);
    assert_memory_equal(got, want, n);
}

/* In clusters of 512 bytes 1 MiB has eight refcount blocks: all of them go. */
static void behind_a_shrink(void **state)
{
    static const uint32_t clusters[] = {512, 4096, 65536};

    (void)state;
    for (unsigned i = 0; i < 3; i++) {
        uint64_t before;

        begin(MIB(4), clusters[i], 0);
        assert_int_equal(zqcow2_write(img, data, KIB(64), 0, 0), 0);
        before = length();
        assert_int_equal(zqcow2_write(img, data, MIB(1), MIB(2), 0), 0);
        assert_true(length() >= before + MIB(1));
        assert_int_equal(zqcow2_resize(img, MIB(1), ZQCOW2_RESIZE_SHRINK, NULL), 0);
        assert_true(length() <= before + clusters[i]);
        reads(0, data, KIB(64));
        /* Searches come back to ranges whose blocks are gone. */
        assert_int_equal(zqcow2_write(img, data, KIB(512), KIB(512), 0), 0);
        reads(KIB(512), data, KIB(512));
        assert_int_equal(zqcow2_resize(img, KIB(256), ZQCOW2_RESIZE_SHRINK, NULL), 0);
        close_tight();
        open_rw();
        reads(0, data, KIB(64));
        assert_int_equal(zqcow2_close(img), 0);
        end();
    }
}

static void behind_a_snapshot(void **state)
{
    struct zqcow2_snapshot s = ZQCOW2_SNAPSHOT_INIT;
    uint64_t before;

    (void)state;
    begin(MIB(4), 4096, 0);
    s.name = "one";
    before = length();
    assert_int_equal(zqcow2_snapshot_take(img, &s, NULL), 0);
    assert_int_equal(zqcow2_write(img, data, MIB(1), 0, 0), 0);
    assert_true(length() > before + MIB(1));
    assert_int_equal(zqcow2_snapshot_apply(img, "one", NULL), 0);
    assert_true(length() < before + KIB(64));
    assert_int_equal(zqcow2_snapshot_delete(img, "one", NULL), 0);
    close_tight();
    end();
}

/* A discard gives back at close, and so does a zone that has clusters mapped ahead. */
static void at_close(void **state)
{
    uint64_t before;

    (void)state;
    begin(MIB(4), 4096, 0);
    assert_int_equal(zqcow2_write(img, data, MIB(2), 0, 0), 0);
    before = length();
    assert_int_equal(zqcow2_discard(img, MIB(1), MIB(1), 0), 0);
    close_tight();
    assert_true(length() + MIB(1) <= before);
    end();
    begin(MIB(4), 4096, MIB(1));
    assert_int_equal(zqcow2_append(img, data, KIB(64), (uint64_t[]){0}, 0), 0);
    before = length();
    close_tight();
    assert_true(length() + KIB(512) <= before);
    end();
}

static void behind_compact(void **state)
{
    uint64_t before;

    (void)state;
    begin(MIB(2), 65536, MIB(1));
    memset(got, 7, MIB(1));
    assert_int_equal(zqcow2_write(img, got, MIB(1), 0, 0), 0);
    before = length();
    assert_int_equal(zqcow2_compact(img, NULL, NULL, NULL), 0);
    assert_true(length() <= before + 65536);
    close_tight();
    end();
}

/* A host that cannot cut the file only loses the space. */
static void refused(void **state)
{
    static const int errors[] = {-EIO, -ENOSPC, -EOPNOTSUPP};
    uint64_t before, at;

    (void)state;
    for (unsigned i = 0; i < 3; i++) {
        struct zqcow2_simdisk_fault f = ZQCOW2_SIMDISK_FAULT_INIT;

        begin(MIB(4), 4096, 0);
        assert_int_equal(zqcow2_write(img, data, MIB(1), 0, 0), 0);
        before = length();
        f.kinds = 1u << ZQCOW2_IO_TRUNCATE;
        f.error = errors[i];
        assert_int_equal(zqcow2_simdisk_set_fault(disk, &f), 0);
        assert_int_equal(zqcow2_resize(img, KIB(64), ZQCOW2_RESIZE_SHRINK, NULL), 0);
        assert_int_equal(length(), before);
        assert_int_equal(zqcow2_simdisk_set_fault(disk, NULL), 0);
        reads(0, data, KIB(64));
        /* What is written there next lies in the file, and was not zeros. */
        assert_int_equal(zqcow2_resize(img, MIB(1), 0, NULL), 0);
        assert_int_equal(zqcow2_write(img, data, 512, KIB(512), 0), 0);
        memset(got, 0, KIB(4));
        memcpy(got, data, 512);
        memcpy(got + MIB(1), got, KIB(4));
        reads(KIB(512), memcpy(data + MIB(1), got + MIB(1), KIB(4)), KIB(4));
        assert_int_equal(zqcow2_close(img), 0);
        sound(&at);
        end();
    }
}

static uint64_t be_at(uint64_t at, unsigned bytes)
{
    uint8_t bytes_at[8];
    uint64_t v = 0;

    assert_int_equal(zqcow2_backend_read(raw, bytes_at, bytes, at), 0);
    for (unsigned i = 0; i < bytes; i++)
        v = v << 8 | bytes_at[i];
    return v;
}

/* The last cluster that is left is an L2 table whose refcount is 0. */
static void a_table_that_is_not_counted(void **state)
{
    uint64_t table, block, before;

    (void)state;
    begin(MIB(64), 4096, 0);
    assert_int_equal(zqcow2_write(img, data, KIB(64), 0, 0), 0);
    assert_int_equal(zqcow2_write(img, data, 4096, MIB(32), 0), 0);
    assert_int_equal(zqcow2_discard(img, 4096, MIB(32), 0), 0);
    close_tight();
    table = be_at(be_at(40, 8) + 16 * 8, 8) & 0x00fffffffffffe00;
    assert_true(table > (be_at(be_at(40, 8), 8) & 0x00fffffffffffe00));
    block = be_at(be_at(48, 8), 8);
    assert_int_equal(be_at(block + table / 4096 * 2, 2), 1);
    assert_int_equal(zqcow2_backend_write(raw, (uint8_t[2]){0}, 2, block + table / 4096 * 2), 0);
    before = length();
    open_rw();
    assert_int_equal(zqcow2_discard(img, KIB(64), 0, 0), 0);
    (void)zqcow2_close(img);
    assert_int_equal(length(), before);
    end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(behind_a_shrink), cmocka_unit_test(behind_a_snapshot),
        cmocka_unit_test(at_close),        cmocka_unit_test(behind_compact),
        cmocka_unit_test(refused),         cmocka_unit_test(a_table_that_is_not_counted),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
