/* SPDX-License-Identifier: MIT */
/*
 * Hostile images: a valid image, a named field of it bent. Opening, the first use or check must
 * refuse it with the right code and a text that names field, value and offset; nothing may crash,
 * hang or take more than 256 MiB, repair included.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include <cmocka.h>

#include "hostile/bends.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED
#endif
#endif

/* ---- the refusals ---- */

static void expect_text(const struct bend *b, const char *text, const char *by)
{
    for (int i = 0; i < 3; i++) {
        if (!strstr(text, b->text[i]))
            fail_msg("%s, %s: no \"%s\" in \"%s\"", b->name, by, b->text[i], text);
    }
}

static void expect_open(struct pic *p, const struct bend *b, uint32_t flags, int code)
{
    int rc = pic_open(p, flags);

    if (rc != code || p->err.code != (code ? code : p->err.code))
        fail_msg("%s, open %s: %d instead of %d: \"%s\"", b->name,
                 flags ? "for writing" : "to read", rc, code, p->err.text);
    if (code)
        expect_text(b, p->err.text, "open");
}

static int read_first(struct pic *p)
{
    static uint8_t data[65536];
    struct zqcow2_open_options o = ZQCOW2_OPEN_OPTIONS_INIT;
    struct zqcow2_image *img;
    int rc, again;

    o.flags = ZQCOW2_OPEN_BORROW;
    rc = zqcow2_open(p->be, &o, &img, &p->err);
    if (rc)
        fail_msg("open: %s", p->err.text);
    rc = zqcow2_read(img, data, sizeof(data), 0);
    again = zqcow2_read(img, data, 512, 512);
    assert_int_equal(rc, again);
    assert_int_equal(zqcow2_close(img), 0);
    return rc;
}

static void expect_found(struct pic *p, const struct bend *b)
{
    if (pic_check(p, 0) != 0 || !p->res.corruptions)
        fail_msg("%s: check says %d \"%s\", %d corruptions: %s", b->name, p->err.code, p->err.text,
                 (int)p->res.corruptions, p->found);
    expect_text(b, p->found, "check");
}

/* Check either refuses as open does, or finds a corruption; nothing passes unseen. */
static void expect_checked(struct pic *p, const struct bend *b)
{
    int rc = pic_check(p, 0);

    if (rc == b->code)
        expect_text(b, p->err.text, "check");
    else if (rc || !(p->res.corruptions + p->res.leaked_clusters + p->res.warnings))
        fail_msg("%s: check says %d, finds nothing", b->name, rc);
}

/* A repair never leaves more corruptions than there were; what is left is what is then found. */
static void expect_told(struct pic *p, const struct bend *b, unsigned flags)
{
    struct zqcow2_check_result r;
    uint64_t before;

    if (pic_check(p, 0) != 0) { /* the header, which the greatest repair may set right */
        (void)pic_check(p, flags);
        return;
    }
    before = p->res.corruptions;
    if (pic_check(p, flags) != 0)
        fail_msg("%s, flags %u: %s", b->name, flags, p->err.text);
    r = p->res;
    assert_int_equal(pic_check(p, 0), 0);
    if (p->res.corruptions > before)
        fail_msg("%s, flags %u: %d corruptions became %d: %s", b->name, flags, (int)before,
                 (int)p->res.corruptions, p->found);
    if (p->res.corruptions != r.corruptions - r.corruptions_fixed ||
        p->res.leaked_clusters != r.leaked_clusters - r.leaks_fixed)
        fail_msg("%s, flags %u: %d corruptions, %d leaks are said to be left, but: %s", b->name,
                 flags, (int)(r.corruptions - r.corruptions_fixed),
                 (int)(r.leaked_clusters - r.leaks_fixed), p->found);
}

/*
 * Whatever repair makes of it: no crash, and a second one has nothing left to do. After the
 * greatest repair the image is sound or is refused; a broken table of snapshots alone may stay,
 * since it keeps everything from being freed and nothing from being used.
 */
static void expect_repair_ends(struct pic *p, const struct bend *b)
{
    static const unsigned flags[] = {ZQCOW2_CHECK_REPAIR_LEAKS, ZQCOW2_CHECK_REPAIR,
                                     ZQCOW2_CHECK_REPAIR_ALL};

    for (int i = 0; i < 3; i++) {
        expect_told(p, b, flags[i]);
        if (pic_check(p, flags[i]) == 0 && strstr(p->found, "repaired"))
            fail_msg("%s: a second repair with flags %u changes something: %s", b->name, flags[i],
                     p->found);
    }
    if (pic_open(p, ZQCOW2_OPEN_RDWR) == 0 && pic_check(p, 0) == 0 && p->res.corruptions &&
        !strstr(p->found, "snapshot") && !strstr(p->found, "bitmap"))
        fail_msg("%s: opened for writing after a repair, and still: %s", b->name, p->found);
}

static void refuse(const struct bend *b)
{
    struct pic p;
    int rc;

    bend_image(&p, b);
    expect_open(&p, b, 0, b->who == OPEN ? b->code : 0);
    if (b->who == OPEN || b->who == RDWR || b->who == PART) {
        expect_open(&p, b, ZQCOW2_OPEN_RDWR, b->code);
        expect_checked(&p, b);
    } else if (b->text[0][0]) {
        expect_found(&p, b);
    }
    rc = b->who == USE || b->who == PART ? read_first(&p) : b->code;
    if (rc != b->code)
        fail_msg("%s: the first read gives %d instead of %d", b->name, rc, b->code);
    expect_repair_ends(&p, b);
    pic_free(&p);
}

static void test_bends(void **state)
{
    (void)state;
    for (size_t i = 0; i < nr_bends; i++)
        refuse(&bends[i]);
    printf("hostile images: %zu, each refused as it should be\n", nr_bends);
}

/* The bends are what is refused: the images that they start from are sound. */
static void test_unbent(void **state)
{
    (void)state;
    for (int base = PLAIN; base <= ZV7; base++) {
        struct pic p;

        bend_base(&p, (enum base)base);
        if (pic_open(&p, 0) != 0 || pic_check(&p, 0) != 0 || p.res.corruptions ||
            p.res.leaked_clusters || p.res.warnings)
            fail_msg("base %d: %s%s", base, p.err.text, p.found);
        assert_int_equal(read_first(&p), 0);
        assert_int_equal(pic_open(&p, ZQCOW2_OPEN_RDWR), 0);
        pic_free(&p);
    }
}

/* More active zones than allowed: opens, says so, and refuses to make more of them. */
static void test_over_active(void **state)
{
    struct zqcow2_open_options o = ZQCOW2_OPEN_OPTIONS_INIT;
    struct zqcow2_info info = ZQCOW2_INFO_INIT;
    static uint8_t data[512];
    struct zqcow2_image *img;
    struct pic p;

    (void)state;
    bend_base(&p, Z44);
    pic_put(&p, p.zoned + 36, 4, 2);
    for (uint64_t z = 0; z < 3; z++)
        pic_put(&p, p.wp + z * 8, 8, z * MiB(4) + 512);
    o.flags = ZQCOW2_OPEN_BORROW | ZQCOW2_OPEN_RDWR;
    assert_int_equal(zqcow2_open(p.be, &o, &img, NULL), 0);
    assert_int_equal(zqcow2_get_info(img, &info), 0);
    assert_true(info.flags & ZQCOW2_INFO_OVER_ACTIVE);
    assert_int_equal(info.active_zones, 3);
    assert_int_equal(zqcow2_write(img, data, 512, MiB(16), 0), ZQCOW2_EZONE_ACTIVE);
    assert_int_equal(zqcow2_write(img, data, 512, 512, 0), 0);
    assert_int_equal(zqcow2_close(img), 0);
    pic_free(&p);
}

/* ---- random damage ---- */

static uint64_t rng(uint64_t *s)
{
    *s ^= *s << 13;
    *s ^= *s >> 7;
    *s ^= *s << 17;
    return *s;
}

/* Any field of the metadata takes any value; only that it ends, and soundly, is asked for. */
static void damage(uint64_t seed)
{
    static const uint64_t values[] = {0, 1, 0x50000, 1ull << 63, UINT64_MAX, 1ull << 62, 0x10000};
    uint64_t s = seed * 0x9e3779b97f4a7c15ull + 1;
    struct bend b = {.name = "random damage"};
    char name[64];
    struct pic p;

    snprintf(name, sizeof(name), "random damage, seed %llu", (unsigned long long)seed);
    b.name = name;
    bend_base(&p, (enum base)(rng(&s) % 6));
    for (int n = 1 + (int)(rng(&s) % 3); n > 0; n--) {
        uint64_t at = rng(&s) % 2 ? rng(&s) % 320 : (rng(&s) % 8 << 16) + rng(&s) % 32 * 8;
        unsigned width = 1u << rng(&s) % 4;

        pic_put(&p, at, width, rng(&s) % 2 ? values[rng(&s) % 7] : rng(&s));
    }
    (void)pic_open(&p, 0);
    (void)pic_check(&p, 0);
    expect_repair_ends(&p, &b);
    pic_free(&p);
}

static void test_random_damage(void **state)
{
    const char *seed = getenv("ZQ_SEED"), *count = getenv("ZQ_COUNT");
    uint64_t first = seed ? strtoull(seed, NULL, 0) : 1, n = count ? strtoull(count, NULL, 0) : 500;

    (void)state;
    for (uint64_t i = 0; i < n; i++)
        damage(first + i);
    printf("random damage: seeds %llu to %llu (ZQ_SEED, ZQ_COUNT)\n", (unsigned long long)first,
           (unsigned long long)(first + n - 1));
}

/* AddressSanitizer needs terabytes of addresses; there its own limit holds, see CMakeLists.txt. */
static int limit_memory(void **state)
{
#ifndef SANITIZED
    const struct rlimit limit = {256u << 20, 256u << 20};

    assert_int_equal(setrlimit(RLIMIT_AS, &limit), 0);
#endif
    (void)state;
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_unbent),
        cmocka_unit_test(test_bends),
        cmocka_unit_test(test_over_active),
        cmocka_unit_test(test_random_damage),
    };

    return cmocka_run_group_tests(tests, limit_memory, NULL);
}
