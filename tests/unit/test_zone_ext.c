/* SPDX-License-Identifier: MIT */
/* The zoned extension: each revision's bytes, their detection, every field bent. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/bytes.h"
#include "format/zone_ext.h"

#define MiB(n)    ((uint64_t)(n) << 20)
#define FILE_SIZE MiB(8)
#define AT        500u /* where the extension's data is said to lie */

/* One device of 16 zones of 4 MiB, 3 MiB of it usable, in every revision; by hand. */
#define Z4   0x00, 0x40, 0x00, 0x00
#define C3   0x00, 0x30, 0x00, 0x00
#define N4   0, 0, 0, 0
#define U(n) 0, 0, 0, n
static const uint8_t ext_44[44] = {1,  0, 0, 0, U(16), N4,   Z4,   N4,  C3,
                                   N4, 0, 3, 0, 0,     U(2), U(8), U(6)};
static const uint8_t ext_48b[48] = {1,    0, 0, 0, U(16), N4, Z4, N4, C3, U(2), U(8),
                                    U(6), 0, 1, 0, 0,     N4, 0,  3,  0,  0};
static const uint8_t ext_56[56] = {1, 0, 0, 0, N4, Z4,     N4, C3, U(2), U(16), U(8), U(6),
                                   0, 1, 0, 0, N4, U(128), N4, 0,  3,    0,     0};
static const uint8_t ext_v7[48] = {1, 0, 0, 0,  Z4,     C3, U(2), U(16), U(8), U(6), 0,
                                   1, 0, 0, N4, U(128), N4, 0,    3,     0,    0};
static const uint8_t ext_v3[48] = {1,    0,      0,  0, Z4, C3, U(2), U(16), U(8),
                                   U(6), U(128), N4, 0, 3,  0,  0,    N4,    U(128)};

static const struct revision {
    uint32_t layout, len;
    const uint8_t *data;
    uint32_t max_append;
    /* where fields lie: zone_size (its width), capacity, conventional, nr_zones, ... */
    unsigned width, size, capacity, conventional, nr_zones, max_open, table_size, table_offset;
} revisions[] = {
    {ZQCOW2_LAYOUT_44, 44, ext_44, 0, 8, 8, 16, 32, 4, 40, 0, 24},
    {ZQCOW2_LAYOUT_48B, 48, ext_48b, 65536, 8, 8, 16, 24, 4, 32, 0, 40},
    {ZQCOW2_LAYOUT_56, 56, ext_56, 65536, 8, 4, 12, 20, 24, 32, 40, 48},
    {ZQCOW2_LAYOUT_V7, 48, ext_v7, 65536, 4, 4, 8, 12, 16, 24, 32, 40},
    {ZQCOW2_LAYOUT_V3, 48, ext_v3, 65536, 4, 4, 8, 12, 16, 24, 40, 32},
};
#define NR (sizeof(revisions) / sizeof(revisions[0]))

static struct zqcow2_error err;
static struct zq_geometry g;
static bool bit_missing;

static struct zq_header header(uint32_t len)
{
    return (struct zq_header){.version = 3,
                              .cluster_bits = 16,
                              .virtual_size = MiB(64),
                              .incompat = ZQ_INCOMPAT_ZONED,
                              .zoned_offset = AT,
                              .zoned_len = len};
}

static int parse(const struct zq_header *h, const uint8_t *data, uint32_t len)
{
    uint8_t *copy = test_malloc(len ? len : 1);
    int rc;

    memcpy(copy, data, len);
    err = (struct zqcow2_error){0};
    rc = zq_zone_ext_parse(&g, h, copy, len, FILE_SIZE, &bit_missing, &err);
    test_free(copy);
    assert_int_equal(rc, err.code);
    return rc;
}

static void test_every_revision(void **state)
{
    (void)state;
    for (size_t i = 0; i < NR; i++) {
        const struct revision *r = &revisions[i];
        struct zq_header h = header(r->len);
        uint8_t out[ZQ_ZONE_EXT_MAX];

        if (parse(&h, r->data, r->len) != 0)
            fail_msg("layout %u: %s", r->layout, err.text);
        assert_int_equal(g.layout, r->layout);
        assert_int_equal(g.zone_size, MiB(4));
        assert_int_equal(g.zone_bits, 22);
        assert_int_equal(g.capacity, MiB(3));
        assert_int_equal(g.conventional, 2);
        assert_int_equal(g.nr_zones, 16);
        assert_int_equal(g.max_active, 8);
        assert_int_equal(g.max_open, 6);
        assert_int_equal(g.max_append, r->max_append);
        assert_int_equal(g.table_offset, 0x30000);
        assert_int_equal(g.device_size, MiB(64));
        assert_false(bit_missing);
        assert_int_equal(zq_zone_ext_build(&g, out), r->len);
        assert_memory_equal(out, r->data, r->len);
    }
}

/* Extensions as QEMU builds with these revisions wrote them. */
static void test_foreign_bytes(void **state)
{
    static const uint8_t v7[48] = {0x01, 0x00, 0x00, 0x00, 0x00, 0x40, 0x00, 0x00, 0x00, 0x40,
                                   0x00, 0x00, 0x00, 0x00, 0x00, 0x02, 0x00, 0x00, 0x00, 0x10,
                                   0x00, 0x00, 0x00, 0x08, 0x00, 0x00, 0x00, 0x06, 0x00, 0x10,
                                   0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x80,
                                   0x00, 0x00, 0x00, 0x00, 0x00, 0x03, 0x00, 0x00};
    static const uint8_t l44[44] = {
        0x01, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x10, 0x00, 0x00, 0x00, 0x00, 0x00, 0x40, 0x00,
        0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x40, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x03,
        0x00, 0x00, 0x00, 0x00, 0x00, 0x02, 0x00, 0x00, 0x00, 0x08, 0x00, 0x00, 0x00, 0x06};
    struct zq_header h = header(48);

    (void)state;
    assert_int_equal(parse(&h, v7, 48), 0);
    assert_int_equal(g.layout, ZQCOW2_LAYOUT_V7);
    assert_int_equal(g.max_append, MiB(1));
    h = header(44);
    assert_int_equal(parse(&h, l44, 44), 0);
    assert_int_equal(g.layout, ZQCOW2_LAYOUT_44);
    assert_int_equal(g.max_open, 6);
}

static void test_bit(void **state)
{
    (void)state;
    for (size_t i = 0; i < NR; i++) {
        const struct revision *r = &revisions[i];
        struct zq_header h = header(r->len);
        bool old = r->layout == ZQCOW2_LAYOUT_V7 || r->layout == ZQCOW2_LAYOUT_V3;

        h.incompat = 0;
        if (parse(&h, r->data, r->len) != (old ? 0 : ZQCOW2_ECORRUPT))
            fail_msg("layout %u without bit 5: %d %s", r->layout, err.code, err.text);
        assert_int_equal(bit_missing, old || r->len != 48);
        if (r->layout != ZQCOW2_LAYOUT_48B && !old)
            assert_non_null(strstr(err.text, "bit 5"));
    }
}

static void test_no_extension(void **state)
{
    struct zq_header h = header(0);

    (void)state;
    h.zoned_offset = 0;
    assert_int_equal(parse(&h, ext_44, 0), ZQCOW2_ECORRUPT);
    assert_non_null(strstr(err.text, "bit 5"));
    assert_non_null(strstr(err.text, "byte 72"));
    h.incompat = 0;
    assert_int_equal(parse(&h, ext_44, 0), 0);
    assert_int_equal(g.layout, ZQCOW2_LAYOUT_NONE);
}

static void test_not_zoned(void **state)
{
    struct zq_header h = header(44);
    uint8_t d[44];

    (void)state;
    memset(d, 0xff, sizeof(d));
    d[0] = 0;
    assert_int_equal(parse(&h, d, 44), ZQCOW2_ECORRUPT);
    assert_non_null(strstr(err.text, "bit 5"));
    h.incompat = 0;
    assert_int_equal(parse(&h, d, 44), 0);
    assert_int_equal(g.layout, ZQCOW2_LAYOUT_NONE);
    h = header(44);
    for (unsigned model = 2; model < 256; model += 127) {
        memcpy(d, ext_44, 44);
        d[0] = (uint8_t)model;
        assert_int_equal(parse(&h, d, 44), ZQCOW2_EFEATURE);
        assert_non_null(strstr(err.text, "model"));
        assert_non_null(strstr(err.text, "byte 500"));
    }
}

static void test_length(void **state)
{
    static const uint8_t d[128] = {1};

    (void)state;
    for (uint32_t len = 0; len <= 128; len++) {
        struct zq_header h = header(len);
        char want[32];

        if (len == 44 || len == 48 || len == 56)
            continue;
        assert_int_equal(parse(&h, d, len), ZQCOW2_EFEATURE);
        snprintf(want, sizeof(want), "length %u", len);
        assert_non_null(strstr(err.text, want));
    }
}

/* 48 bytes that read well in two ways. */
static void test_ambiguous(void **state)
{
    struct zq_header h = header(48);
    uint8_t d[48];

    (void)state;
    /* as 48b and as v7: the bit decides */
    memcpy(d, ext_48b, 48);
    zq_put_be64(d + 32, (uint64_t)zq_be32(d + 16) * 8);
    assert_int_equal(parse(&h, d, 48), 0);
    assert_int_equal(g.layout, ZQCOW2_LAYOUT_48B);
    h.incompat = 0;
    assert_int_equal(parse(&h, d, 48), ZQCOW2_ECORRUPT); /* as v7 its zones make no sense */
    assert_non_null(strstr(err.text, "zone_size 16"));
    /* table_size at both places: v7 comes first, and must then have its table at 128 */
    h = header(48);
    memcpy(d, ext_v7, 48);
    zq_put_be64(d + 40, 128);
    assert_int_equal(parse(&h, d, 48), ZQCOW2_ECORRUPT);
    assert_non_null(strstr(err.text, "table_offset 128"));
    /* 48b whose number of zones does not fit is none */
    memcpy(d, ext_48b, 48);
    zq_put_be32(d + 4, 17);
    assert_int_equal(parse(&h, d, 48), ZQCOW2_ECORRUPT);
    assert_non_null(strstr(err.text, "no known layout"));
    /* v3 counts appends in sectors, which may exceed 32 bits of bytes */
    memcpy(d, ext_v3, 48);
    zq_put_be32(d + 28, UINT32_MAX);
    assert_int_equal(parse(&h, d, 48), 0);
    assert_int_equal(g.max_append, 0xfffffe00);
}

static int bent(const struct revision *r, unsigned at, unsigned width, uint64_t value)
{
    struct zq_header h = header(r->len);
    uint8_t d[ZQ_ZONE_EXT_MAX];

    memcpy(d, r->data, r->len);
    for (unsigned i = width; i-- > 0; value >>= 8)
        d[at + i] = (uint8_t)value;
    return parse(&h, d, r->len);
}

/* The refusal must be of this field, at its place in the file. */
static void refused(const struct revision *r, unsigned at, unsigned width, uint64_t value,
                    const char *field)
{
    char want[64];

    if (r->layout == ZQCOW2_LAYOUT_48B && (at == r->size || at == r->nr_zones)) {
        /* these two determine the layout */
        if (bent(r, at, width, value) != ZQCOW2_ECORRUPT)
            fail_msg("48b, %s %llu: %s", field, (unsigned long long)value, err.text);
        return;
    }
    snprintf(want, sizeof(want), "byte %u:", AT + at);
    if (bent(r, at, width, value) != ZQCOW2_ECORRUPT || !strstr(err.text, field) ||
        !strstr(err.text, want))
        fail_msg("layout %u, %s %llu at byte %u: %d \"%s\"", r->layout, field,
                 (unsigned long long)value, at, err.code, err.text);
}

static void test_bends(void **state)
{
    (void)state;
    for (size_t i = 0; i < NR; i++) {
        const struct revision *r = &revisions[i];
        unsigned w = r->width;

        refused(r, r->size, w, 0, "zone_size");
        refused(r, r->size, w, MiB(3), "zone_size");
        refused(r, r->size, w, 32768, "zone_size");
        refused(r, r->capacity, w, 0, "zone_capacity");
        refused(r, r->capacity, w, MiB(4) + 512, "zone_capacity");
        refused(r, r->capacity, w, MiB(3) + 1, "zone_capacity");
        refused(r, r->conventional, 4, 16, "conventional_zones");
        refused(r, r->conventional, 4, UINT32_MAX, "conventional_zones");
        refused(r, r->max_open, 4, 9, "max_open_zones");
        refused(r, r->table_offset, 8, 0, "table_offset");
        refused(r, r->table_offset, 8, 0x30200, "table_offset");
        refused(r, r->table_offset, 8, FILE_SIZE, "table_offset");
        refused(r, r->table_offset, 8, 1ull << 56, "table_offset");
        refused(r, r->table_offset, 8, 0xffffffffffff0000, "table_offset");
        if (r->len != 48) {
            refused(r, r->nr_zones, 4, 0, "nr_zones");
            refused(r, r->nr_zones, 4, 15, "nr_zones");
            refused(r, r->nr_zones, 4, (1 << 20) + 1, "nr_zones");
            refused(r, r->nr_zones, 4, UINT32_MAX, "nr_zones");
        }
        if (r->layout == ZQCOW2_LAYOUT_56)
            refused(r, r->table_size, 8, 136, "table_size");
        /* limits: 0 is none, and then no order between them */
        assert_int_equal(bent(r, r->max_open, 4, 0), 0);
        assert_int_equal(bent(r, r->capacity, w, MiB(4)), 0);
    }
}

/* The table may end in the middle of a cluster, but not beyond the file's last byte. */
static void test_table_by_bytes(void **state)
{
    struct zq_header h = header(44);

    (void)state;
    assert_int_equal(zq_zone_ext_parse(&g, &h, ext_44, 44, 0x30080, &bit_missing, &err), 0);
    assert_int_equal(zq_zone_ext_parse(&g, &h, ext_44, 44, 0x3007f, &bit_missing, &err),
                     ZQCOW2_ECORRUPT);
    assert_non_null(strstr(err.text, "end of the file"));
}

static void test_device_below_bit_59(void **state)
{
    struct zq_header h = header(56);
    uint8_t d[56];

    (void)state;
    memcpy(d, ext_56, 56);
    zq_put_be64(d + 4, 1ull << 58);
    zq_put_be64(d + 12, 1ull << 58);
    zq_put_be32(d + 24, 3);
    zq_put_be64(d + 40, 24);
    h.virtual_size = 3ull << 58;
    assert_int_equal(parse(&h, d, 56), ZQCOW2_ECORRUPT);
    assert_non_null(strstr(err.text, "2^59"));
}

static void test_max_append(void **state)
{
    struct zq_geometry m = {.capacity = MiB(3)};

    (void)state;
    assert_int_equal(zq_geometry_max_append(&m), MiB(3));
    m.max_append = 65536;
    assert_int_equal(zq_geometry_max_append(&m), 65536);
    m.max_append = 0xfffffe00;
    assert_int_equal(zq_geometry_max_append(&m), MiB(3));
    m.max_append = 1000;
    assert_int_equal(zq_geometry_max_append(&m), 512);
    m = (struct zq_geometry){.capacity = 1ull << 40};
    assert_int_equal(zq_geometry_max_append(&m), UINT32_MAX - 4095);
}

/* ---- create ---- */

static int check_new(uint32_t layout, uint64_t size, uint64_t capacity, uint32_t append)
{
    err = (struct zqcow2_error){0};
    g = (struct zq_geometry){.device_size = MiB(64),
                             .zone_size = size,
                             .capacity = capacity,
                             .layout = layout,
                             .max_append = append};
    return zq_geometry_check_new(&g, 65536, &err);
}

static void new_refused(int rc, const char *option)
{
    if (rc != -EINVAL || err.code != -EINVAL || !strstr(err.text, option))
        fail_msg("%s: %d \"%s\"", option, rc, err.text);
}

static void test_check_new(void **state)
{
    (void)state;
    assert_int_equal(check_new(44, MiB(4), MiB(3), 0), 0);
    assert_int_equal(g.nr_zones, 16);
    assert_int_equal(g.zone_bits, 22);
    new_refused(check_new(44, MiB(3), MiB(3), 0), "zone.size");
    new_refused(check_new(44, 0, 0, 0), "zone.size");
    new_refused(check_new(44, 32768, 32768, 0), "zone.size");
    new_refused(check_new(44, MiB(4), 0, 0), "zone.capacity");
    new_refused(check_new(44, MiB(4), MiB(5), 0), "zone.capacity");
    new_refused(check_new(44, MiB(4), 1000, 0), "zone.capacity");
    new_refused(check_new(44, MiB(4), MiB(4), 65536), "zone.max_append_bytes");
    new_refused(check_new(3, MiB(4), MiB(4), 0), "zone.layout");
    new_refused(check_new(99, MiB(4), MiB(4), 0), "zone.layout");
    new_refused(check_new(7, 1ull << 32, MiB(4), 0), "zone.size");
    new_refused(check_new(7, MiB(4), MiB(4), 1000), "zone.max_append_bytes");
    new_refused(check_new(7, MiB(4), MiB(4), MiB(4) - 512), "zone.max_append_bytes");
    for (uint32_t layout = 7; layout <= 56; layout += 1) {
        if (layout == 7 || layout == 48 || layout == 56)
            assert_int_equal(check_new(layout, MiB(4), MiB(4), MiB(4) - 1024), 0);
    }
}

static void test_check_new_counts(void **state)
{
    struct zq_geometry base = {
        .device_size = MiB(64), .zone_size = MiB(4), .capacity = MiB(4), .layout = 44};

    (void)state;
    g = base;
    g.conventional = 16;
    new_refused(zq_geometry_check_new(&g, 65536, &err), "zone.conventional_zones");
    g = base;
    g.max_open = 3;
    g.max_active = 2;
    new_refused(zq_geometry_check_new(&g, 65536, &err), "zone.max_open_zones");
    g = base;
    g.device_size = (1ull << 42) + 512;
    new_refused(zq_geometry_check_new(&g, 65536, &err), "zone.size");
    g = base;
    g.layout = 56;
    g.zone_size = g.capacity = 1ull << 45;
    g.device_size = 1ull << 59;
    new_refused(zq_geometry_check_new(&g, 65536, &err), "2^59");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_revision),
        cmocka_unit_test(test_foreign_bytes),
        cmocka_unit_test(test_bit),
        cmocka_unit_test(test_no_extension),
        cmocka_unit_test(test_not_zoned),
        cmocka_unit_test(test_length),
        cmocka_unit_test(test_ambiguous),
        cmocka_unit_test(test_bends),
        cmocka_unit_test(test_table_by_bytes),
        cmocka_unit_test(test_device_below_bit_59),
        cmocka_unit_test(test_max_append),
        cmocka_unit_test(test_check_new),
        cmocka_unit_test(test_check_new_counts),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
