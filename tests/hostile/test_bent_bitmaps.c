/* SPDX-License-Identifier: MIT */
/*
 * Bitmaps that no image should have: each is refused by an open for writing, and by a list, with
 * its own text, and in memory that the file accounts for; the disk can be read all the same.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include <zqcow2/backend.h>
#include <zqcow2/bitmap.h>

#define BYTES (64u * CLUSTER)
#include "bent.h"

#define SIZE (1u << 20)

static uint64_t ext, directory; /* where they are */

/* ---- an image with two bitmaps, as bytes ---- */

static struct zqcow2_backend *backend(void)
{
    struct zqcow2_backend *be;

    assert_int_equal(zqcow2_mem_open(0, NULL, &be), 0);
    return be;
}

static struct zqcow2_backend *load(void)
{
    struct zqcow2_backend *be = backend();

    assert_int_equal(zqcow2_backend_write(be, file, BYTES, 0), 0);
    return be;
}

static int open_on(struct zqcow2_backend *be, bool write, struct zqcow2_image **img,
                   struct zqcow2_error *err)
{
    struct zqcow2_open_options o = ZQCOW2_OPEN_OPTIONS_INIT;
    const struct zqcow2_hooks h = hooks();

    o.flags = ZQCOW2_OPEN_BORROW | (write ? ZQCOW2_OPEN_RDWR : 0);
    o.cache_bytes = 1 << 20;
    o.hooks = &h;
    return zqcow2_open(be, &o, img, err);
}

static void make(void)
{
    struct zqcow2_create_options c = ZQCOW2_CREATE_OPTIONS_INIT;
    struct zqcow2_backend *be = backend();
    struct zqcow2_image *img;
    uint8_t data[512] = {1};
    uint64_t length;

    c.virtual_size = SIZE;
    c.cluster_size = CLUSTER;
    assert_int_equal(zqcow2_create(be, &c, NULL), 0);
    assert_int_equal(open_on(be, true, &img, NULL), 0);
    assert_int_equal(zqcow2_bitmap_add(img, "first", 512, 0, NULL), 0);
    assert_int_equal(zqcow2_bitmap_add(img, "other", 0, 0, NULL), 0);
    assert_int_equal(zqcow2_write(img, data, sizeof(data), 0, 0), 0);
    assert_int_equal(zqcow2_close(img), 0);
    assert_int_equal(zqcow2_backend_length(be, &length), 0);
    assert_true(length <= BYTES);
    memset(file, 0, sizeof(file));
    assert_int_equal(zqcow2_backend_read(be, file, (size_t)length, 0), 0);
    zqcow2_backend_close(be);
    for (ext = 112; get(ext, 4) != 0x23852875; ext += 8 + (get(ext + 4, 4) + 7) / 8 * 8)
        assert_true(ext < 512);
    ext += 8;
    directory = get(ext + 16, 8);
}

/* ---- each of them ---- */

struct bend {
    const char *what;
    bool in_entry; /* at is in the first entry of the directory, else in the extension */
    uint64_t at;
    unsigned n; /* bytes */
    uint64_t value;
    int code;
    const char *text;
};

#define C ZQCOW2_ECORRUPT
static const struct bend bends[] = {
    {"no bitmaps", false, 0, 4, 0, C, "nb_bitmaps 0 at byte"},
    {"too many", false, 0, 4, 65536, C, "nb_bitmaps 65536"},
    {"more than there are", false, 0, 4, 3, C, "does not fit the bitmaps"},
    {"fewer than there are", false, 0, 4, 1, C, "more than its entries have"},
    {"a reserved field", false, 4, 4, 1, C, "reserved field"},
    {"a directory of no size", false, 8, 8, 0, C, "bitmap_directory_size 0"},
    {"a directory of 65 MiB", false, 8, 8, 65u << 20, C, "bitmap_directory_size 68157440"},
    {"a directory too long", false, 8, 8, 72, C, "more than its entries have"},
    {"a directory at the header", false, 16, 8, 0, C, "bitmap_directory_offset 0"},
    {"a directory not aligned", false, 16, 8, CLUSTER + 512, C, "not a place in the file"},
    {"a directory behind the end", false, 16, 8, BYTES, C, "not a place in the file"},
    {"a directory on L1", false, 16, 8, 0x1000, C, "lies on another table"},
    {"a table at the header", true, 0, 8, 0, C, "bitmap_table_offset 0"},
    {"a table not aligned", true, 0, 8, 512, C, "bitmap_table_offset 512"},
    {"a table behind the end", true, 0, 8, BYTES, C, "bitmap_table_offset 262144"},
    {"a table on L1", true, 0, 8, 0x1000, C, "lies on another table"},
    {"a table of no size", true, 8, 4, 0, C, "bitmap_table_size 0"},
    {"a table too long", true, 8, 4, 2, C, "does not fit the device"},
    {"a table of 4 billion", true, 8, 4, UINT32_MAX, C, "more than 64 MiB"},
    {"an unknown flag", true, 12, 4, 8 | 2, C, "bitmap flags 10"},
    {"an unknown type", true, 16, 1, 2, C, "bitmap type 2"},
    {"a granularity of 1", true, 17, 1, 0, C, "granularity_bits 0"},
    {"a granularity of 2^63", true, 17, 1, 63, C, "granularity_bits 63"},
    {"another granularity", true, 17, 1, 31, 0, NULL},
    {"no name", true, 18, 2, 0, C, "name_size 0"},
    {"a name too long", true, 18, 2, 1024, C, "name_size 1024"},
    {"an entry past the end", true, 18, 2, 200, C, "runs past the directory's end"},
    {"extra data over the end", true, 20, 4, UINT32_MAX, C, "runs past the directory's end"},
    {"a zero byte in a name", true, 25, 1, 0, C, "zero byte"},
    {"two of one name", true, 24, 5, 0x6f74686572, C, "another bitmap has it, too"},
    {"extra data of an unknown kind", true, 18, 6, (uint64_t)3 << 32 | 2, ZQCOW2_EFEATURE,
     "bitmap \"rst\" is enabled and has extra data of an unknown kind"},
};

static void note(void *arg, const struct zqcow2_bitmap *m)
{
    (void)m;
    ++*(unsigned *)arg;
}

static void must(const struct bend *b, bool good, const char *what, const char *text)
{
    if (!good)
        fail_msg("%s: %s: %s", b->what, what, text);
}

/* A reader does not mind, until it asks. */
static void read_on(const struct bend *b)
{
    struct zqcow2_backend *be = load();
    struct zqcow2_error err = {0, ""};
    struct zqcow2_image *img;
    uint8_t data[512];
    unsigned n = 0;
    int rc;

    must(b, open_on(be, false, &img, &err) == 0, "read", err.text);
    must(b, zqcow2_read(img, data, sizeof(data), 0) == 0 && data[0] == 1, "content", "");
    rc = zqcow2_bitmap_list(img, note, &n, &err);
    /* A reader knows of no other tables: what it reads there is no bitmap, or looks like one. */
    if (!b->text || !strstr(b->text, "on another table")) {
        must(b, rc == (b->code == C ? C : 0) && n == (b->code == C ? 0u : 2u), "list", err.text);
        must(b, b->code != C || strstr(err.text, b->text), "text of the list", err.text);
    }
    must(b, zqcow2_close(img) == 0, "close", "");
    zqcow2_backend_close(be);
}

static void write_on(const struct bend *b)
{
    struct zqcow2_backend *be = load();
    struct zqcow2_error err = {0, ""};
    struct zqcow2_image *img;
    int rc = open_on(be, true, &img, &err);

    must(b, rc == b->code, "code", err.text);
    if (rc == 0)
        must(b, zqcow2_close(img) == 0, "close", "");
    else
        must(b, strstr(err.text, b->text), "text", err.text);
    zqcow2_backend_close(be);
    must(b, used == 0 && most < MOST, "memory", "");
}

static void each_is_refused(void **state)
{
    static uint8_t good[BYTES];

    (void)state;
    make();
    memcpy(good, file, sizeof(good));
    for (size_t i = 0; i < sizeof(bends) / sizeof(bends[0]); i++) {
        const struct bend *b = &bends[i];

        memcpy(file, good, sizeof(file));
        put((b->in_entry ? directory : ext) + b->at, b->n, b->value);
        most = 0;
        read_on(b);
        write_on(b);
    }
    printf("bitmaps: %zu bends, 0 believed\n", sizeof(bends) / sizeof(bends[0]));
}

/* A hole has no entries, whatever its length: nothing is taken for what it could hold. */
static void a_hole_is_no_directory(void **state)
{
    struct zqcow2_backend *be;
    struct zqcow2_image *img;

    (void)state;
    make();
    put(ext, 4, 65535);
    put(ext + 8, 8, 64u << 20);
    put(ext + 16, 8, BYTES);
    be = load();
    assert_int_equal(zqcow2_backend_truncate(be, (uint64_t)128 << 20), 0);
    most = 0;
    assert_int_equal(open_on(be, true, &img, NULL), C);
    assert_true(most < MOST);
    zqcow2_backend_close(be);
}

/* What a bitmap's entry names is written at the close: not if it is a table of the image. */
static void no_bit_is_written_to_a_table(void **state)
{
    uint64_t table;

    (void)state;
    make();
    table = get(directory, 8);
    for (uint64_t host = 0; host <= 3 * CLUSTER; host += CLUSTER) {
        uint8_t data[512] = {7}, before[CLUSTER], after[CLUSTER];
        struct zqcow2_backend *be;
        struct zqcow2_image *img;
        struct zqcow2_error err = {0, ""};
        bool fixed = host && host <= 3 * CLUSTER; /* refcounts, L1 */

        put(table, 8, host ? host : 512); /* not aligned */
        be = load();
        memcpy(before, file + host, CLUSTER);
        assert_int_equal(open_on(be, true, &img, NULL), 0);
        assert_int_equal(zqcow2_bitmap_clear(img, "first", &err), fixed || !host ? C : 0);
        assert_int_equal(zqcow2_write(img, data, sizeof(data), 0, 0), 0);
        assert_int_equal(zqcow2_flush(img), 0);
        assert_int_equal(zqcow2_backend_read(be, after, CLUSTER, host), 0);
        if (fixed && host != 2 * CLUSTER) /* a refcount may have changed */
            assert_memory_equal(before, after, CLUSTER);
        assert_int_equal(zqcow2_close(img), fixed || !host ? C : 0);
        zqcow2_backend_close(be);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_is_refused),
        cmocka_unit_test(a_hole_is_no_directory),
        cmocka_unit_test(no_bit_is_written_to_a_table),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
