/* SPDX-License-Identifier: MIT */
/* The header and its extensions: golden bytes, every field bent, extensions of other programs. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/bytes.h"
#include "format/header.h"

#define LEN       65536
#define FILE_SIZE (16ull << 20)

/* What a small zoned image of this library begins with, written down by hand. */
static const uint8_t golden[192] = {'Q',  'F',  'I',  0xfb, 0,   0,   0,    3,    0,   0,   0,
                                    0,    0,    0,    0,    0,   0,   0,    0,    0,   0,   0,
                                    0,    16,   0,    0,    0,   0,   0x04, 0,    0,   0, /* size 64
                                                                                             MiB */
                                    0,    0,    0,    0,    0,   0,   0,    1, /* no encryption; one
                                                                                  L1 entry */
                                    0,    0,    0,    0,    0,   4,   0,    0,    0,   0,   0,
                                    0,    0,    1,    0,    0,   0,   0,    0,    1, /* L1, refcount
                                                                                        table, 1
                                                                                        cluster */
                                    0,    0,    0,    0,    0,   0,   0,    0,    0,   0,   0,
                                    0, /* no snapshots */
                                    0,    0,    0,    0,    0,   0,   0,    0x20, 0,   0,   0,
                                    0,    0,    0,    0,    0,   0,   0,    0,    0,   0,   0,
                                    0,    0, /* bit 5 */
                                    0,    0,    0,    4,    0,   0,   0,    112,  0,   0,   0,
                                    0,    0,    0,    0,    0, /* order 4, header_length, zlib */
                                    0x7a, 0x71, 0x32, 0x6d, 0,   0,   0,    8,    0,   0,   0,
                                    0,    0,    0,    0,    0, /* mark */
                                    0x00, 0x7a, 0x62, 0x64, 0,   0,   0,    5,    1,   2,   3,
                                    4,    5,    0,    0,    0,                    /* zoned */
                                    0x68, 0x03, 0xf8, 0x57, 0,   0,   1,    0xb0, /* feature names:
                                                                                     9 times 48 */
                                    0,    0,    'd',  'i',  'r', 't', 'y',  ' ',  'b', 'i', 't',
                                    0,    0,    0,    0,    0,   0,   0,    0,    0,   0,   0,
                                    0,    0};

static const uint8_t zoned_data[5] = {1, 2, 3, 4, 5};

static void build(uint8_t *buf, size_t len, struct zq_header *h)
{
    *h = (struct zq_header){.cluster_bits = 16,
                            .refcount_order = 4,
                            .virtual_size = 64 << 20,
                            .l1_entries = 1,
                            .l1_offset = 4 << 16,
                            .rt_offset = 1 << 16,
                            .rt_clusters = 1,
                            .incompat = ZQ_INCOMPAT_ZONED,
                            .zoned_len = sizeof(zoned_data)};
    memset(buf, 0, len);
    zq_header_build(h, buf, len, zoned_data, &(struct zqcow2_backing)ZQCOW2_BACKING_INIT);
}

static uint8_t buf[LEN];

static void test_golden(void **state)
{
    struct zq_header h, back;
    struct zqcow2_error err = {0};

    (void)state;
    build(buf, LEN, &h);
    assert_memory_equal(buf, golden, sizeof(golden));
    assert_int_equal(h.mark_offset, 120);
    assert_int_equal(h.zoned_offset, 136);
    /* the last feature, then the end mark */
    assert_memory_equal(buf + 152 + 8 * 48, "\2\1raw external data", 20);
    assert_int_equal(zq_be32(buf + 152 + 9 * 48), 0);
    assert_int_equal(zq_header_parse(&back, buf, LEN, FILE_SIZE, true, &err), 0);
    assert_int_equal(back.virtual_size, 64 << 20);
    assert_int_equal(back.l1_offset, 4 << 16);
    assert_int_equal(back.rt_offset, 1 << 16);
    assert_int_equal(back.zoned_offset, 136);
    assert_int_equal(back.zoned_len, 5);
    assert_int_equal(back.mark_offset, 120);
    assert_false(back.unknown_ext || back.unknown_autoclear);
}

static void test_small_cluster_has_no_names(void **state)
{
    struct zq_header h, back;

    (void)state;
    build(buf, 512, &h);
    zq_put_be32(buf + 20, 9);
    zq_put_be64(buf + 24, 32768);
    assert_int_equal(zq_be32(buf + 144), 0);
    assert_int_equal(zq_header_parse(&back, buf, 512, FILE_SIZE, false, NULL), 0);
    assert_int_equal(back.mark_offset, 120);
    buf[79] = 0x30; /* extended L2 entries are for large clusters only */
    assert_int_equal(zq_header_parse(&back, buf, 512, FILE_SIZE, false, NULL), ZQCOW2_ECORRUPT);
}

/* ---- one field bent ---- */

struct bend {
    const char *name;
    unsigned at, width;
    uint64_t value;
    int code;
    const char *text[3];
    bool rdwr_only;
};

#define C ZQCOW2_ECORRUPT
#define F ZQCOW2_EFEATURE
static const struct bend bends[] = {
    {"magic", 0, 4, 0x514649fa, ZQCOW2_ENOTQCOW2, {"magic", "0x514649fa", "byte 0"}, false},
    {"version 1", 4, 4, 1, ZQCOW2_ENOTQCOW2, {"version 1", "byte 4", ""}, false},
    {"version 4", 4, 4, 4, ZQCOW2_ENOTQCOW2, {"version 4", "byte 4", ""}, false},
    {"backing without a name", 8, 8, 600, 0, {"", "", ""}, false},
    {"backing far", 8, 8, LEN + 8, C, {"backing_file_offset 65544", "byte 8", ""}, false},
    {"no backing, in header", 8, 8, 64, 0, {"", "", ""}, false},
    {"no backing, at byte 1", 8, 8, 1, 0, {"", "", ""}, false},
    {"cluster_bits 8", 20, 4, 8, C, {"cluster_bits 8", "byte 20", "9 to 21"}, false},
    {"cluster_bits 22", 20, 4, 22, C, {"cluster_bits 22", "byte 20", "9 to 21"}, false},
    {"cluster_bits 64", 20, 4, 64, C, {"cluster_bits 64", "byte 20", ""}, false},
    {"size 0", 24, 8, 0, 0, {"", "", ""}, false},
    {"size odd", 24, 8, 1000, 0, {"", "", ""}, false},
    {"size 2^64 - 1", 24, 8, UINT64_MAX, C, {"size 18446744073709551615", "byte 24", ""}, false},
    {"size huge", 24, 8, (1ull << 62) + 512, C, {"size 4611686018427388416", "byte 24", ""}, false},
    {"size above L1", 24, 8, (512ull << 20) + 512, C, {"l1_size 1", "byte 36", "cover"}, false},
    {"AES", 32, 4, 1, F, {"crypt_method 1", "byte 32", "AES"}, false},
    {"LUKS", 32, 4, 2, F, {"crypt_method 2", "byte 32", "LUKS"}, false},
    {"crypt 3", 32, 4, 3, C, {"crypt_method 3", "byte 32", ""}, false},
    {"l1_size 0", 36, 4, 0, C, {"l1_size 0", "byte 36", "cover"}, false},
    {"l1_size huge", 36, 4, 4194305, C, {"l1_size 4194305", "byte 36", "32 MiB"}, false},
    {"l1_size wraps", 36, 4, 0x20000001, C, {"l1_size", "byte 36", "32 MiB"}, false},
    {"l1 at 0", 40, 8, 0, C, {"l1_table_offset 0", "byte 40", "header"}, false},
    {"l1 unaligned", 40, 8, 0x40200, C, {"l1_table_offset", "0x40200", "byte 40"}, false},
    {"l1 beyond", 40, 8, FILE_SIZE, C, {"l1_table_offset", "0x1000000", "end of the file"}, false},
    {"l1 2^56", 40, 8, 1ull << 56, C, {"l1_table_offset", "byte 40", "2^56"}, false},
    {"l1 wraps", 40, 8, 0xffffffffffff0000, C, {"l1_table_offset", "byte 40", "2^56"}, false},
    {"rt at 0", 48, 8, 0, C, {"refcount_table_offset 0", "byte 48", "header"}, true},
    {"rt unaligned", 48, 8, 8, C, {"refcount_table_offset 8", "byte 48", "aligned"}, true},
    {"rt beyond", 48, 8, FILE_SIZE, C, {"refcount_table_offset", "byte 48", "end of the"}, true},
    {"rt 0 clusters", 56, 4, 0, C, {"refcount_table_clusters 0", "byte 56", ""}, true},
    {"rt 8 MiB + 1", 56, 4, 129, C, {"refcount_table_clusters 129", "byte 56", "8 MiB"}, true},
    {"rt 2^32 - 1", 56, 4, UINT32_MAX, C, {"refcount_table_clusters", "byte 56", "8 MiB"}, true},
    {"snapshots at 0", 60, 4, 1, C, {"snapshots_offset 0", "byte 64", ""}, true},
    {"dirty is known", 72, 8, 0x21, 0, {"", "", ""}, false},
    {"corrupt", 72, 8, 0x22, C, {"incompatible_features 34", "byte 72", "corrupt"}, true},
    {"compression 0", 72, 8, 0x28, C, {"compression_type 0", "byte 104", "bit 3"}, false},
    {"extended L2 is known", 72, 8, 0x30, 0, {"", "", ""}, false},
    {"bit 6", 72, 8, 0x40, F, {"0x40", "byte 72", "unknown bit 6"}, false},
    {"bit 63", 72, 8, 1ull << 63, F, {"0x8000000000000000", "byte 72", "unknown bit 63"}, false},
    {"bits 6, 7", 72, 8, 0xc0, F, {"byte 72", "unknown bit 6", "and more"}, false},
    {"bitmaps bit, no bitmaps", 88, 8, 1, 0, {"", "", ""}, false},
    {"refcount_order", 96, 4, 7, C, {"refcount_order 7", "byte 96", "0 to 6"}, false},
    {"header_length 96", 100, 4, 96, C, {"header_length 96", "byte 100", ""}, false},
    {"header_length 108", 100, 4, 108, C, {"header_length 108", "byte 100", "multiple"}, false},
    {"header_length long", 100, 4, LEN + 8, C, {"header_length 65544", "byte 100", ""}, false},
    {"zstd without bit", 104, 1, 1, C, {"compression_type 1", "byte 104", "bit 3"}, false},
    {"mark length", 116, 4, 16, C, {"mark extension length 16", "byte 116", ""}, false},
    {"ext too long", 132, 4, LEN, C, {"0x007a6264", "byte 128", "65536"}, false},
    {"ext wraps", 132, 4, UINT32_MAX, C, {"0x007a6264", "byte 128", "4294967295"}, false},
    {"twice", 112, 4, 0x007a6264, C, {"header extension", "byte 128", "twice"}, false},
    {"data file name", 112, 4, 0x44415441, C, {"incompatible_features", "data file", ""}, false},
    {"crypto header", 112, 4, 0x0537be77, C, {"crypt_method 0", "byte 32", ""}, false},
    {"stale bitmaps", 112, 4, 0x23852875, C, {"bitmaps extension length 8", "byte 116", ""}, false},
    {"end too long", 588, 4, LEN - 591, C, {"0x00000000", "byte 584", "64945"}, false},
    {"end wraps", 588, 4, UINT32_MAX, C, {"0x00000000", "byte 584", "4294967295"}, false},
    {"end with all that is left", 588, 4, LEN - 592, 0, {"", "", ""}, false},
    {"names length", 112, 4, 0x6803f857, C, {"feature name table length 8", "byte 116", ""}, false},
    {"backing format alone", 112, 4, 0xe2792aca, 0, {"", "", ""}, false},
    {"long format alone", 144, 4, 0xe2792aca, C, {"backing format length 432", "", ""}, false},
};

static void put(unsigned at, unsigned width, uint64_t value)
{
    for (unsigned i = width; i-- > 0; value >>= 8)
        buf[at + i] = (uint8_t)value;
}

static void expect(const struct bend *b, bool rdwr, int code)
{
    struct zqcow2_error err = {0};
    struct zq_header h;
    int rc = zq_header_parse(&h, buf, LEN, FILE_SIZE, rdwr, &err);

    if (rc != code || err.code != code)
        fail_msg("%s%s: %d instead of %d: %s", b->name, rdwr ? " for writing" : "", rc, code,
                 err.text);
    for (int i = 0; code && i < 3; i++) {
        if (!strstr(err.text, b->text[i]))
            fail_msg("%s: no \"%s\" in \"%s\"", b->name, b->text[i], err.text);
    }
    /* the text may also be left out */
    assert_int_equal(zq_header_parse(&h, buf, LEN, FILE_SIZE, rdwr, NULL), code);
}

static void test_bends(void **state)
{
    struct zq_header h;

    (void)state;
    for (size_t i = 0; i < sizeof(bends) / sizeof(bends[0]); i++) {
        const struct bend *b = &bends[i];

        build(buf, LEN, &h);
        put(b->at, b->width, b->value);
        expect(b, false, b->rdwr_only ? 0 : b->code);
        expect(b, true, b->code);
    }
}

static void test_truncated(void **state)
{
    struct zqcow2_error err;
    struct zq_header h;

    (void)state;
    build(buf, LEN, &h);
    for (size_t len = 0; len < 1000; len++) {
        int want = len < 8 ? ZQCOW2_ENOTQCOW2 : ZQCOW2_ECORRUPT;
        /* a copy of exactly this length, so that a read beyond it is seen */
        uint8_t *copy = test_malloc(len ? len : 1);
        memcpy(copy, buf, len);
        if (zq_header_parse(&h, copy, len, FILE_SIZE, false, &err) != (len < 592 ? want : 0))
            fail_msg("length %zu: %s", len, err.text);
        test_free(copy);
    }
}

/* ---- features and extensions ---- */

static void test_unknown_bit_has_its_name(void **state)
{
    struct zqcow2_error err;
    struct zq_header h;

    (void)state;
    build(buf, LEN, &h);
    put(72, 8, 1u << 9);
    buf[153] = 9; /* the first feature becomes bit 9 */
    memcpy(buf + 154, "warp\x1b[31m drive", 15);
    assert_int_equal(zq_header_parse(&h, buf, LEN, FILE_SIZE, false, &err), ZQCOW2_EFEATURE);
    assert_non_null(strstr(err.text, "unknown bit 9 \"warp?[31m drive\""));
    memset(buf + 154, 'x', 46); /* a name may fill its field */
    assert_int_equal(zq_header_parse(&h, buf, LEN, FILE_SIZE, false, &err), ZQCOW2_EFEATURE);
    assert_non_null(strstr(err.text, "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\""));
}

static void test_unknown_extension(void **state)
{
    struct zq_header h;

    (void)state;
    build(buf, LEN, &h);
    put(112, 4, 0x12345678);
    assert_int_equal(zq_header_parse(&h, buf, LEN, FILE_SIZE, true, NULL), 0);
    assert_true(h.unknown_ext);
    assert_int_equal(h.mark_offset, 0);
    put(88, 8, 1u << 7);
    assert_int_equal(zq_header_parse(&h, buf, LEN, FILE_SIZE, true, NULL), 0);
    assert_true(h.unknown_autoclear);
}

/* The mark is of use only in sector 0; other programs may put extensions in another order. */
static void test_mark_moved(void **state)
{
    struct zq_header h;

    (void)state;
    for (uint32_t at = 480; at <= 520; at += 8) {
        build(buf, LEN, &h);
        put(112, 4, 0x6803f857);
        put(116, 4, 0);
        memmove(buf + 120, buf + 128, 16);
        put(136, 4, 0x70000001);
        put(140, 4, at - 8 - 144);
        put(at - 8, 4, 0x7a71326d);
        put(at - 4, 4, 8);
        put(at + 8, 8, 0);
        assert_int_equal(zq_header_parse(&h, buf, LEN, FILE_SIZE, true, NULL), 0);
        assert_int_equal(h.mark_offset, at <= 504 ? at : 0);
    }
}

static void test_bitmaps(void **state)
{
    struct zqcow2_error err;
    struct zq_header h;

    (void)state;
    build(buf, LEN, &h);
    put(144, 4, 0x23852875); /* over the feature names */
    put(148, 4, 24);
    put(176, 8, 0);
    put(88, 8, 1);
    assert_int_equal(zq_header_parse(&h, buf, LEN, FILE_SIZE, false, &err), 0);
    assert_int_equal(h.bitmaps_offset, 152);
    assert_int_equal(h.bitmaps_len, 24);
    assert_int_equal(zq_header_parse(&h, buf, LEN, FILE_SIZE, true, &err), 0);
    put(148, 4, 32);
    assert_int_equal(zq_header_parse(&h, buf, LEN, FILE_SIZE, false, &err), ZQCOW2_ECORRUPT);
    assert_non_null(strstr(err.text, "bitmaps extension length 32"));
    put(148, 4, 24);
    put(88, 8, 0); /* already stale: it says nothing, and writing hurts nothing */
    assert_int_equal(zq_header_parse(&h, buf, LEN, FILE_SIZE, true, &err), 0);
    assert_int_equal(h.bitmaps_offset, 0);
    assert_false(h.unknown_ext);
}

/* n empty extensions of ever new types; the end mark, or none. */
static int many(unsigned n, bool end, struct zqcow2_error *err)
{
    struct zq_header h;

    build(buf, LEN, &h);
    for (unsigned i = 0; i < (LEN - 112) / 8; i++) {
        put(112 + i * 8, 4, i < n || !end ? 0x70000000 + i : 0);
        put(116 + i * 8, 4, 0);
    }
    put(72, 8, 0);
    return zq_header_parse(&h, buf, LEN, FILE_SIZE, false, err);
}

static void test_many_extensions(void **state)
{
    struct zqcow2_error err;

    (void)state;
    assert_int_equal(many(512, true, &err), 0);
    assert_int_equal(many(513, true, &err), ZQCOW2_ECORRUPT);
    assert_non_null(strstr(err.text, "number of header extensions 513"));
    assert_int_equal(many(0, false, &err), ZQCOW2_ECORRUPT);
}

static void test_no_end_mark(void **state)
{
    struct zqcow2_error err;
    struct zq_header h;

    (void)state;
    build(buf, LEN, &h);
    put(8, 8, 584); /* the backing name begins where the end mark was */
    put(16, 4, 3);
    put(132, 4, 584 - 136);
    assert_int_equal(zq_header_parse(&h, buf, LEN, FILE_SIZE, false, &err), ZQCOW2_ECORRUPT);
    put(8, 8, 0);
    put(132, 4, LEN - 136); /* one extension fills the cluster */
    assert_int_equal(zq_header_parse(&h, buf, LEN, FILE_SIZE, false, &err), ZQCOW2_ECORRUPT);
    assert_non_null(strstr(err.text, "end marker"));
}

static void test_backing_name(void **state)
{
    struct zqcow2_backing b;
    struct zqcow2_error err;
    struct zq_header h;

    (void)state;
    build(buf, LEN, &h);
    put(8, 8, 1024);
    put(16, 4, 9);
    memcpy(buf + 1024, "json:{\"\n}", 9);
    assert_int_equal(zq_header_parse(&h, buf, LEN, FILE_SIZE, false, &err), 0);
    zq_header_backing(&h, buf, &b);
    assert_string_equal(b.name, "json:{\"\n}");
    assert_string_equal(b.format, "");
    buf[1025] = 0;
    assert_int_equal(zq_header_parse(&h, buf, LEN, FILE_SIZE, false, &err), ZQCOW2_ECORRUPT);
    assert_non_null(strstr(err.text, "zero byte"));
    memset(buf + 1024, 'n', 1023);
    put(16, 4, 1023);
    assert_int_equal(zq_header_parse(&h, buf, LEN, FILE_SIZE, false, &err), 0);
    zq_header_backing(&h, buf, &b);
    assert_int_equal(strlen(b.name), 1023);
    put(16, 4, 1024);
    assert_int_equal(zq_header_parse(&h, buf, LEN, FILE_SIZE, false, &err), ZQCOW2_ECORRUPT);
    assert_non_null(strstr(err.text, "backing_file_size 1024"));
}

/* A version 2 header ends at byte 72; extensions follow there. */
static void test_version2(void **state)
{
    struct zqcow2_error err;
    struct zq_header h;

    (void)state;
    build(buf, LEN, &h);
    memset(buf + 72, 0, LEN - 72);
    put(4, 4, 2);
    assert_int_equal(zq_header_parse(&h, buf, LEN, FILE_SIZE, true, &err), 0);
    assert_int_equal(h.version, 2);
    assert_int_equal(h.refcount_order, 4);
    assert_int_equal(h.header_length, 72);
    put(72, 4, 0x007a6264);
    put(76, 4, 44);
    assert_int_equal(zq_header_parse(&h, buf, LEN, FILE_SIZE, false, &err), ZQCOW2_ECORRUPT);
    assert_non_null(strstr(err.text, "zoned extension"));
}

static void test_compression(void **state)
{
    struct zqcow2_error err;
    struct zq_header h;

    (void)state;
    build(buf, LEN, &h);
    put(72, 8, 8);
    put(104, 1, 1);
    assert_int_equal(zq_header_parse(&h, buf, LEN, FILE_SIZE, true, &err), 0);
    assert_int_equal(h.compression_type, 1);
    put(104, 1, 2);
    assert_int_equal(zq_header_parse(&h, buf, LEN, FILE_SIZE, true, &err), ZQCOW2_EFEATURE);
    assert_non_null(strstr(err.text, "compression_type 2"));
}

static void test_snapshots(void **state)
{
    struct zqcow2_error err;
    struct zq_header h;

    (void)state;
    build(buf, LEN, &h);
    put(60, 4, 1);
    put(64, 8, 0x80000);
    assert_int_equal(zq_header_parse(&h, buf, LEN, FILE_SIZE, true, &err), 0);
    put(64, 8, FILE_SIZE - 65536);
    put(60, 4, 65536 / 40 + 1);
    assert_int_equal(zq_header_parse(&h, buf, LEN, FILE_SIZE, true, &err), ZQCOW2_ECORRUPT);
    assert_non_null(strstr(err.text, "snapshots_offset"));
    put(60, 4, 65537);
    assert_int_equal(zq_header_parse(&h, buf, LEN, FILE_SIZE, true, &err), ZQCOW2_ECORRUPT);
    assert_non_null(strstr(err.text, "nb_snapshots 65537"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden),
        cmocka_unit_test(test_small_cluster_has_no_names),
        cmocka_unit_test(test_bends),
        cmocka_unit_test(test_truncated),
        cmocka_unit_test(test_unknown_bit_has_its_name),
        cmocka_unit_test(test_unknown_extension),
        cmocka_unit_test(test_mark_moved),
        cmocka_unit_test(test_bitmaps),
        cmocka_unit_test(test_many_extensions),
        cmocka_unit_test(test_no_end_mark),
        cmocka_unit_test(test_backing_name),
        cmocka_unit_test(test_version2),
        cmocka_unit_test(test_compression),
        cmocka_unit_test(test_snapshots),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
