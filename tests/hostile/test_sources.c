/* SPDX-License-Identifier: MIT */
/*
 * Sources that are not what they were, or never were what an image takes them for: each is refused
 * with its own code and text when it is opened, or when it is asked for what it has not.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "hostile/folder.h"

#define C ZQCOW2_ECORRUPT
#define F ZQCOW2_EFEATURE
#define Z KiB(64)

static int set_up(void **state)
{
    (void)state;
    folder_make();
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    folder_remove();
    return 0;
}

static unsigned differs(const char *what, int rc, const char *said, int code, const char *text)
{
    if (rc == code && strstr(said, text))
        return 0;
    printf("%s: %d \"%s\", not %d \"%s\"\n", what, rc, said, code, text);
    return 1;
}

/* ---- a plain source that is another file now ---- */

enum { HEADER, L1, L2, CUT };

struct bend {
    const char *what;
    int place;
    unsigned at, width; /* width 0: nothing is put */
    uint64_t value;
    int open, read; /* what these return */
    const char *text;
};

static const struct bend bends[] = {
    {"no bytes are left", CUT, 0, 0, 0, ZQCOW2_ENOTQCOW2, 0, "file length 0"},
    {"it ends in the header", CUT, 0, 0, 90, C, 0, "file length 90"},
    {"it ends before its L1 table", CUT, 0, 0, 4096, C, 0, "_table_offset"},
    {"a raw file is there", HEADER, 0, 4, 0x12345678, ZQCOW2_ENOTQCOW2, 0, "magic 0x12345678"},
    {"version 1", HEADER, 4, 4, 1, ZQCOW2_ENOTQCOW2, 0, "version 1"},
    {"an unknown feature", HEADER, 72, 8, 1ull << 41, F, 0, "unknown bit 41"},
    {"encryption", HEADER, 32, 4, 1, F, 0, "AES encryption"},
    {"an unknown compression", HEADER, 72, 8, 8, C, 0, "compression_type"},
    {"zones without an extension", HEADER, 72, 8, 32, C, 0, "zoned"},
    {"clusters of 256 bytes", HEADER, 20, 4, 8, C, 0, "cluster_bits 8"},
    {"small clusters with subclusters", HEADER, 72, 8, 16, C, 0, "cluster_bits 12"},
    {"an L1 table inside a cluster", HEADER, 40, 8, 4096 + 512, C, 0, "l1_table_offset 4608"},
    {"an L1 table that is too short", HEADER, 36, 4, 0, C, 0, "l1_size 0"},
    {"an L1 entry inside a cluster", L1, 0, 8, 4096 + 512, 0, C, ""},
    {"an L1 entry beyond the end", L1, 0, 8, 1ull << 40, 0, C, ""},
    {"an L2 entry inside a cluster", L2, 0, 8, 4096 + 512, 0, C, ""},
    {"an L2 entry beyond the end", L2, 0, 8, 1ull << 40, 0, C, ""},
    {"reserved bits of an L2 entry", L2, 0, 8, 1ull << 56 | 4096, 0, C, ""},
    {"compressed bytes that are none", L2, 0, 8, 1ull << 62 | 4096 * 3, 0, C, ""},
    {"compressed beyond the end", L2, 0, 8, 1ull << 62 | 1ull << 40, 0, C, ""},
};

static void bend(const struct bend *b)
{
    uint64_t at = b->place == L1 ? folder_get("base", 40, 8) :
                  b->place == L2 ? folder_l2("base") :
                                   0;

    if (b->place == CUT)
        folder_cut("base", b->value);
    else
        folder_put("base", at + b->at, b->width, b->value);
}

static void a_source_that_was_bent(void **state)
{
    size_t nr = sizeof(bends) / sizeof(bends[0]);
    unsigned bad = 0;

    (void)state;
    for (size_t i = 0; i < nr; i++) {
        struct attempt a = {.image = "image", .len = 512};
        const struct bend *b = &bends[i];

        folder_image("base", NULL);
        folder_write("base", 0, 4096);
        folder_image("image", NULL);
        folder_name("image", "base", 4, "qcow2");
        folder_try(&a);
        assert_int_equal(a.open | a.read, 0);
        bend(b);
        folder_try(&a);
        bad += differs(b->what, a.open, b->open ? a.err.text : "", b->open, b->open ? b->text : "");
        if (b->open && !strstr(a.err.text, "backing file \"base\": "))
            bad += differs(b->what, 0, a.err.text, 0, "backing file \"base\": ");
        bad += differs(b->what, a.read, "", b->read, "");
    }
    printf("plain sources: %zu classes, %u otherwise\n", nr, bad);
    assert_int_equal(bad, 0);
}

/* ---- a source with zones that are others now ---- */

static const struct zqcow2_create_options eight = {.size = sizeof(eight),
                                                   .virtual_size = 8 * Z,
                                                   .zone_size = Z,
                                                   .cluster_size = 4096,
                                                   .conventional_zones = 1};

struct zoned {
    const char *what;
    size_t at; /* the member that differs */
    uint64_t value;
    int open, read; /* read: of the last zone, whose pointer was inherited */
    const char *text;
};

#define M(m) offsetof(struct zqcow2_create_options, m)
static const struct zoned zoned[] = {
    {"larger zones", M(zone_size), 2 * Z, F, 0, "its zone size is not that of the image above"},
    {"smaller zones", M(zone_size), Z / 2, F, 0, "its zone size is not"},
    {"no zones at all", M(zone_size), 0, F, 0, "it has no zones, but the image above it has"},
    {"a smaller capacity", M(zone_capacity), Z / 2, F, 0, "its zone capacity is not"},
    {"no conventional zone", M(conventional_zones), 0, F, 0, "its number of conventional zones"},
    {"more conventional zones", M(conventional_zones), 8, F, 0, "its number of conventional"},
    {"one more zone", M(virtual_size), 9 * Z, F, 0, "its size is not"},
    {"half a zone less", M(virtual_size), 8 * Z - Z / 2, 0, C, "pointer at 0x70000"},
    {"a zone less", M(virtual_size), 7 * Z, 0, C, "pointer at 0x0"},
    {"zones that were not written", M(virtual_size), 8 * Z, 0, C, "pointer at 0x70000"},
};

static unsigned refuses_zones(const struct zoned *z)
{
    struct attempt a = {.image = "image", .off = 7 * Z, .len = 512};
    struct zqcow2_create_options o = eight;
    unsigned bad;

    folder_image("base", &o);
    folder_write("base", 7 * Z, 4096);
    o.backing_name = "base";
    o.virtual_size = o.zone_size = o.conventional_zones = 0;
    folder_image("image", &o);
    folder_try(&a);
    assert_int_equal(a.open | a.read, 0);
    o = eight;
    memcpy((char *)&o + z->at, &z->value, z->at == M(conventional_zones) ? 4 : 8);
    if (!o.zone_size)
        o.conventional_zones = 0;
    else if (o.conventional_zones == 8)
        o.conventional_zones = 7; /* at least one must be sequential */
    folder_image("base", &o);
    folder_try(&a);
    bad = differs(z->what, a.open, a.open ? a.err.text : folder_logged, z->open, z->text);
    return bad + differs(z->what, a.read, "", z->read, "");
}

static void zones_that_are_others(void **state)
{
    size_t nr = sizeof(zoned) / sizeof(zoned[0]);
    unsigned bad = 0;

    (void)state;
    for (size_t i = 0; i < nr; i++)
        bad += refuses_zones(&zoned[i]);
    printf("zoned sources: %zu classes, %u otherwise\n", nr, bad);
    assert_int_equal(bad, 0);
}

/* One that had none when the image was made on it. */
static void a_source_gets_zones(void **state)
{
    struct attempt a = {.image = "image", .len = 512};

    (void)state;
    folder_image("base", NULL);
    folder_image("image", NULL);
    folder_name("image", "base", 4, "qcow2");
    folder_try(&a);
    assert_int_equal(a.open | a.read, 0);
    folder_image("base", &eight);
    folder_try(&a);
    assert_int_equal(
        differs("zones", a.open, a.err.text, F, "\"base\": it has zones, but the image above"), 0);
    folder_name("image", "base", 4, "raw"); /* as bytes it is a source like any file */
    folder_try(&a);
    assert_int_equal(a.open | a.read, 0);
}

/* A raw file under an image with zones has no pointers to be compared with. */
static void a_raw_source_has_no_zones(void **state)
{
    struct zqcow2_create_options o = eight;
    struct attempt a = {.image = "image", .len = 512};
    uint64_t at;

    (void)state;
    folder_image("base", &o);
    o.backing_name = "base";
    folder_image("image", &o);
    for (at = 112; folder_get("image", at, 4) != 0xe2792aca;)
        at += 8 + (folder_get("image", at + 4, 4) + 7) / 8 * 8;
    folder_put("image", at + 4, 4, 3);
    folder_put("image", at + 8, 8, 0x7261770000000000);
    folder_try(&a);
    assert_int_equal(differs("raw", a.open, a.err.text, F, "it has no zones, but the image"), 0);
}

/* A pointer of the source that lies in no zone. */
static void a_sources_pointer_is_bent(void **state)
{
    static const uint64_t pointers[] = {0, 7 * Z - 512, 7 * Z + 100, 1ull << 50, UINT64_MAX};
    struct zqcow2_create_options o = eight;
    struct attempt a = {.image = "image", .off = 7 * Z, .len = 512};
    uint64_t at, table;
    unsigned bad = 0;

    (void)state;
    folder_image("base", &o);
    o.backing_name = "base";
    folder_image("image", &o);
    for (at = 112; folder_get("base", at, 4) != 0x007a6264;)
        at += 8 + (folder_get("base", at + 4, 4) + 7) / 8 * 8;
    table = folder_get("base", at + 8 + 24, 8);
    for (size_t i = 0; i < sizeof(pointers) / sizeof(pointers[0]); i++) {
        folder_put("base", table + 56, 8, pointers[i]);
        folder_try(&a);
        bad += differs("pointer", a.open, a.err.text, C, "backing file \"base\": ");
        bad += differs("pointer", a.open, a.err.text, C, "zone 7");
    }
    assert_int_equal(bad, 0);
}

/* ---- subclusters ---- */

#define KEPT UINT64_MAX /* the word that is there */

struct bits {
    const char *what;
    uint64_t word, bitmap;
    const char *text; /* of check */
};

static const struct bits bits[] = {
    {"allocated and zero", KEPT, 1ull << 32 | 0xffffffff, "both allocated and zero"},
    {"all allocated and all zero", KEPT, UINT64_MAX, "both allocated and zero"},
    {"the last one allocated and zero", KEPT, 1ull << 63 | 1ull << 31, "both allocated and zero"},
    {"allocated without a cluster", 0, 1, "allocated without a cluster"},
    {"all allocated without a cluster", 0, 0xffffffff, "allocated without a cluster"},
    {"compressed, and allocated", 1ull << 62 | 5 << 14, 1, "a compressed cluster has subclusters"},
    {"compressed, and zero", 1ull << 62 | 5 << 14, 1ull << 32, "a compressed cluster has"},
    {"the zero flag of other images", 1, 0, "reserved bits are set"},
    {"COPIED without a cluster", 1ull << 63, 1ull << 32, "COPIED is set without a cluster"},
    {"inside a cluster", 1ull << 63 | 5 << 14 | 1 << 13, 0xffffffff, ""},
    {"beyond the end", 1ull << 63 | 1ull << 40, 0xffffffff, ""},
};

static void wide_image(const char *name)
{
    struct zqcow2_create_options o = ZQCOW2_CREATE_OPTIONS_INIT;

    o.virtual_size = KiB(256);
    o.cluster_size = 16384;
    o.flags = ZQCOW2_CREATE_EXTENDED_L2;
    folder_image(name, &o);
    folder_write(name, 0, 32768);
}

/* In the image that is read, or in its source. */
static unsigned refuses_bits(const struct bits *b, bool below)
{
    struct attempt a = {.image = "image", .len = 16384};
    struct zqcow2_check_result res;
    const char *name = below ? "base" : "image", *said;
    unsigned bad;

    wide_image("base");
    folder_image("image", NULL);
    folder_name("image", "base", 4, "qcow2");
    if (!below)
        wide_image("image");
    folder_try(&a);
    assert_int_equal(a.open | a.read, 0);
    if (b->word != KEPT)
        folder_put(name, folder_l2(name), 8, b->word);
    folder_put(name, folder_l2(name) + 8, 8, b->bitmap);
    folder_try(&a);
    bad = differs(b->what, a.open ? a.open : a.read, "", C, "");
    a.off = 16384; /* its neighbour is as it was */
    folder_try(&a);
    bad += differs(b->what, a.open | a.read, "", 0, "");
    said = folder_check(name, &res);
    bad += differs(b->what, res.corruptions ? C : 0, said, C, b->text);
    return bad;
}

static void subclusters_that_cannot_be(void **state)
{
    size_t nr = sizeof(bits) / sizeof(bits[0]);
    unsigned bad = 0;

    (void)state;
    for (size_t i = 0; i < nr; i++)
        bad += refuses_bits(&bits[i], false) + refuses_bits(&bits[i], true);
    printf("subclusters: %zu classes, in an image and in a source, %u otherwise\n", nr, bad);
    assert_int_equal(bad, 0);
}

/* The header's bit on what cannot have them. */
static void subclusters_of_what_has_none(void **state)
{
    struct attempt a = {.image = "image", .len = 512};
    struct zqcow2_check_result res;

    (void)state;
    for (unsigned below = 0; below < 2; below++) {
        const char *name = below ? "base" : "image";

        wide_image("base");
        wide_image("image");
        folder_name("image", "base", 4, "qcow2");
        folder_put(name, 20, 4, 13);
        folder_try(&a);
        assert_int_equal(differs("8 KiB", a.open, a.err.text, C, "cluster_bits 13"), 0);
        folder_put(name, 20, 4, 14);
        folder_put(name, 4, 4, 2); /* its entries have 8 bytes, and every other one is a bitmap */
        (void)folder_check(name, &res);
        assert_true(res.corruptions);
    }
}

/* ---- while the image is open ---- */

static struct zqcow2_image *open_live(struct zqcow2_resolver **r)
{
    struct zqcow2_open_options o = ZQCOW2_OPEN_OPTIONS_INIT;
    struct zqcow2_backend *be;
    struct zqcow2_image *img;

    assert_int_equal(zqcow2_resolver_new(folder_path("image"), NULL, r), 0);
    assert_int_equal(zqcow2_file_open(folder_path("image"), ZQCOW2_FILE_RDWR, NULL, &be), 0);
    o.flags = ZQCOW2_OPEN_RDWR;
    o.resolve = zqcow2_resolve_file;
    o.resolve_arg = *r;
    assert_int_equal(zqcow2_open(be, &o, &img, NULL), 0);
    return img;
}

static void reads_as(struct zqcow2_image *img, uint64_t off, int fill)
{
    uint8_t got[512], want[512];

    memset(want, fill, sizeof(want));
    assert_int_equal(zqcow2_read(img, got, sizeof(got), off), 0);
    assert_memory_equal(got, want, sizeof(got));
}

/* Its length is the one at open: what comes behind is not there, what is lost is an error. */
static void a_raw_source_grows_and_shrinks(void **state)
{
    struct zqcow2_resolver *r;
    struct zqcow2_image *img;
    uint8_t ones[8192], buf[512];

    (void)state;
    memset(ones, 1, sizeof(ones));
    folder_image("image", NULL);
    folder_name("image", "raw", 3, "raw");
    folder_bytes("raw", ones, 4096, 0);
    img = open_live(&r);
    folder_bytes("raw", ones, sizeof(ones), 0);
    reads_as(img, 3584, 1);
    reads_as(img, 4096, 0);
    folder_cut("raw", 512);
    assert_int_equal(zqcow2_read(img, buf, sizeof(buf), 512), -EIO);
    assert_int_equal(zqcow2_write(img, ones, 512, 1024, 0), -EIO); /* it cannot be copied up */
    assert_int_equal(zqcow2_write(img, ones, 4096, 0, 0), 0);      /* nothing of it is kept */
    reads_as(img, 3584, 1);
    reads_as(img, 4096, 0);
    assert_int_equal(zqcow2_close(img), 0);
    zqcow2_resolver_free(r);
}

/* Another file in its place is not looked at. */
static void a_source_is_replaced(void **state)
{
    struct zqcow2_resolver *r;
    struct zqcow2_image *img;

    (void)state;
    folder_image("base", NULL);
    folder_write("base", 0, 4096);
    folder_image("image", NULL);
    folder_name("image", "base", 4, "qcow2");
    img = open_live(&r);
    folder_image("base", &eight); /* a new file */
    reads_as(img, 0, 1);
    assert_int_equal(zqcow2_close(img), 0);
    zqcow2_resolver_free(r);
}

/* Entries are judged when they are read, whatever they were when the image was opened. */
static void a_source_is_bent_while_open(void **state)
{
    struct zqcow2_resolver *r;
    struct zqcow2_image *img;
    uint8_t buf[512];

    (void)state;
    folder_image("base", NULL);
    folder_write("base", 0, 4096);
    folder_image("image", NULL);
    folder_name("image", "base", 4, "qcow2");
    img = open_live(&r);
    folder_put("base", folder_l2("base"), 8, 1ull << 40);
    assert_int_equal(zqcow2_read(img, buf, sizeof(buf), 0), C);
    assert_int_equal(zqcow2_write(img, buf, sizeof(buf), 0, 0), C); /* it cannot be copied up */
    assert_int_equal(zqcow2_write(img, buf, sizeof(buf), 8192, 0), 0);
    assert_int_equal(zqcow2_close(img), 0);
    zqcow2_resolver_free(r);
}

/* A source that is written elsewhere cannot be stood on, and the reverse. */
static void a_source_is_locked(void **state)
{
    struct zqcow2_open_options o = ZQCOW2_OPEN_OPTIONS_INIT;
    struct attempt a = {.image = "image", .len = 512};
    struct zqcow2_backend *be;
    struct zqcow2_resolver *r;
    struct zqcow2_image *img, *other;
    struct zqcow2_error err;

    (void)state;
    folder_image("base", NULL);
    folder_image("image", NULL);
    folder_name("image", "base", 4, "qcow2");
    img = open_live(&r);
    o.flags = ZQCOW2_OPEN_RDWR;
    assert_int_equal(zqcow2_file_open(folder_path("base"), ZQCOW2_FILE_RDWR, NULL, &be), 0);
    assert_int_equal(zqcow2_open(be, &o, &other, &err), -EAGAIN);
    assert_int_equal(zqcow2_close(img), 0);
    zqcow2_resolver_free(r);
    assert_int_equal(zqcow2_open(be, &o, &other, &err), 0);
    folder_try(&a);
    assert_int_equal(differs("in use", a.open, a.err.text, -EAGAIN, "backing file \"base\": "), 0);
    assert_int_equal(zqcow2_close(other), 0);
    folder_try(&a);
    assert_int_equal(a.open | a.read, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_source_that_was_bent),
        cmocka_unit_test(zones_that_are_others),
        cmocka_unit_test(a_source_gets_zones),
        cmocka_unit_test(a_raw_source_has_no_zones),
        cmocka_unit_test(a_sources_pointer_is_bent),
        cmocka_unit_test(subclusters_that_cannot_be),
        cmocka_unit_test(subclusters_of_what_has_none),
        cmocka_unit_test(a_raw_source_grows_and_shrinks),
        cmocka_unit_test(a_source_is_replaced),
        cmocka_unit_test(a_source_is_bent_while_open),
        cmocka_unit_test(a_source_is_locked),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
