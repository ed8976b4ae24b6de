/* SPDX-License-Identifier: MIT */
/*
 * Images that have space before the first write: what is mapped, by the tables' bytes; that they
 * are sound and read as zeros; that appends change no table; what is left of a create that fails,
 * is stopped or loses power.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <zqcow2/simdisk.h>

#include "unit/pic.h"

#define KiB(n) ((uint64_t)(n) << 10)
#define MiB(n) ((uint64_t)(n) << 20)

#define OFFSET    0x00fffffffffffe00ull
#define ALL_UNITS 0xffffffffull

struct shape {
    uint64_t size, zone, capacity;
    uint32_t conventional, cluster, layout, flags;
};

static const struct shape shapes[] = {
    {MiB(1), 0, 0, 0, 512, 0, 0},
    {MiB(9) + 1536, 0, 0, 0, 4096, 0, 0},
    {MiB(100) + 512, 0, 0, 0, 65536, 0, 0},
    {512, 0, 0, 0, 2u << 20, 0, 0},
    {MiB(9) + 512, 0, 0, 0, 16384, 0, ZQCOW2_CREATE_EXTENDED_L2},
    {MiB(1), KiB(64), 0, 0, 512, 44, 0},
    {MiB(1), KiB(64), KiB(33), 2, 512, 7, 0},
    {MiB(33), MiB(4), MiB(3) + 512, 1, 65536, 44, 0},
    {MiB(33) + 512, MiB(4), MiB(3) + 512, 0, 4096, 48, 0},
    {MiB(35) + 512, MiB(4), MiB(3) - 512, 3, 4096, 56, ZQCOW2_CREATE_ZSTD},
    {MiB(9), MiB(1), KiB(500), 1, 16384, 44, ZQCOW2_CREATE_EXTENDED_L2},
};
#define SHAPES (sizeof(shapes) / sizeof(shapes[0]))

static struct zqcow2_create_options options(const struct shape *s, uint32_t mode)
{
    struct zqcow2_create_options o = ZQCOW2_CREATE_OPTIONS_INIT;

    o.virtual_size = s->size;
    o.zone_size = s->zone;
    o.zone_capacity = s->capacity;
    o.conventional_zones = s->conventional;
    o.cluster_size = s->cluster;
    o.layout = s->layout;
    o.flags = s->flags;
    o.preallocation = mode;
    return o;
}

/* Can a write get into the cluster at `at`? */
static bool is_mapped(const struct shape *s, uint64_t at)
{
    return !s->zone || !s->capacity || at / s->zone < s->conventional || at % s->zone < s->capacity;
}

/* Every entry of L2, one by one: a cluster of its own, in the order of the device. Returns how
 * many.
 */
static uint64_t walk(struct pic *p, const struct shape *s)
{
    bool wide = s->flags & ZQCOW2_CREATE_EXTENDED_L2;
    uint64_t entry = wide ? 16 : 8, next = 0, n = 0;

    for (uint64_t at = 0; at < s->size; at += s->cluster) {
        uint64_t i = at / s->cluster, per = s->cluster / entry;
        uint64_t table = pic_get(p, p->l1 + i / per * 8, 8);
        uint64_t where = (table & OFFSET) + i % per * entry, is = pic_get(p, where, 8);

        assert_true(table & PIC_COPIED);
        if (!is_mapped(s, at)) {
            assert_int_equal(is, 0);
            continue;
        }
        assert_true(is & PIC_COPIED);
        assert_true(!next || (is & OFFSET) == next);
        assert_int_equal(pic_refcount(p, is & OFFSET), 1);
        if (wide) /* of a plain image as QEMU has it: a place, and no content */
            assert_true(pic_get(p, where + 8, 8) == (s->zone ? ALL_UNITS : 0));
        next = (is & OFFSET) + s->cluster;
        n++;
    }
    assert_int_equal(next, pic_length(p));
    return n;
}

static void sound(struct pic *p, uint64_t mapped)
{
    if (pic_check(p, 0) != 0 || p->res.corruptions || p->res.leaked_clusters || p->res.warnings)
        fail_msg("%s%s", p->err.text, p->found);
    assert_int_equal(p->res.allocated_clusters, mapped);
    assert_int_equal(p->res.image_end_offset, pic_length(p));
}

static struct zqcow2_image *open_rdwr(struct pic *p)
{
    struct zqcow2_open_options o = ZQCOW2_OPEN_OPTIONS_INIT;
    struct zqcow2_image *img;

    o.flags = ZQCOW2_OPEN_RDWR | ZQCOW2_OPEN_BORROW;
    assert_int_equal(zqcow2_open(p->be, &o, &img, &p->err), 0);
    return img;
}

static void reads_zeros(struct zqcow2_image *img, uint64_t size)
{
    static uint8_t buf[65536];

    for (uint64_t at = 0, n; at < size; at += n) {
        n = size - at < sizeof(buf) ? size - at : sizeof(buf);
        memset(buf, 0xaa, sizeof(buf));
        assert_int_equal(zqcow2_read(img, buf, n, at), 0);
        for (uint64_t i = 0; i < n; i++)
            assert_int_equal(buf[i], 0);
    }
}

static void test_every_shape(void **state)
{
    unsigned images = 0;

    (void)state;
    for (size_t i = 0; i < SHAPES; i++) {
        for (uint32_t mode = 1; mode <= 3; mode += 2) { /* memory has no allocate() */
            struct zqcow2_create_options o = options(&shapes[i], mode);
            struct zqcow2_image *img;
            struct pic p;

            pic_make(&p, &o);
            sound(&p, walk(&p, &shapes[i]));
            img = open_rdwr(&p);
            reads_zeros(img, shapes[i].size);
            assert_int_equal(zqcow2_close(img), 0);
            pic_free(&p);
            images++;
        }
    }
    printf("preallocated: %u images, 0 unsound\n", images);
}

/* Written up to the capacity in parts, closed and opened between them: nothing is taken or given.
 */
static void test_appends_take_nothing(void **state)
{
    static uint8_t data[65536];

    (void)state;
    for (size_t i = 5; i < SHAPES; i++) {
        const struct shape *s = &shapes[i];
        struct zqcow2_create_options o = options(s, ZQCOW2_PREALLOCATE_METADATA);
        uint64_t mapped, length, zone = s->zone * (s->conventional + 1), at;
        struct zqcow2_image *img;
        struct pic p;

        pic_make(&p, &o);
        mapped = walk(&p, s);
        length = pic_length(&p);
        memset(data, 0x5a, sizeof(data));
        for (int part = 0; part < 3; part++) {
            img = open_rdwr(&p);
            for (size_t len = 1536; len <= 6144; len *= 2) {
                at = zone;
                assert_int_equal(zqcow2_append(img, data, len, &at, 0), 0);
            }
            assert_int_equal(part ? zqcow2_drain(img) : zqcow2_flush(img), 0);
            assert_int_equal(zqcow2_close(img), 0);
            sound(&p, mapped);
            assert_int_equal(pic_length(&p), length);
        }
        pic_free(&p);
    }
}

/* As in every image: a reset gives back what the zone has mapped, a finish what was not written. */
static void test_given_back(void **state)
{
    const struct shape *s = &shapes[7];
    struct zqcow2_create_options o = options(s, ZQCOW2_PREALLOCATE_METADATA);
    uint64_t zone = s->zone * s->conventional, at = zone, mapped, in_zone;
    struct zqcow2_image *img;
    uint8_t data[512] = {1};
    struct pic p;

    (void)state;
    pic_make(&p, &o);
    mapped = walk(&p, s);
    in_zone = (s->capacity + s->cluster - 1) / s->cluster;
    img = open_rdwr(&p);
    assert_int_equal(zqcow2_append(img, data, sizeof(data), &at, 0), 0);
    assert_int_equal(zqcow2_zone_finish(img, zone, s->zone, 0), 0);
    assert_int_equal(zqcow2_close(img), 0);
    sound(&p, mapped - in_zone + 1);
    img = open_rdwr(&p);
    assert_int_equal(zqcow2_zone_reset(img, zone, s->zone, 0), 0);
    assert_int_equal(zqcow2_zone_reset(img, zone + s->zone, s->zone, 0), 0); /* is EMPTY */
    assert_int_equal(zqcow2_close(img), 0);
    sound(&p, mapped - in_zone);
    pic_free(&p);
}

/* ---- what is left of a create that did not end ---- */

struct steps {
    uint64_t last, total;
    int calls, stop_at;
};

static int step(void *arg, uint64_t done, uint64_t total)
{
    struct steps *s = arg;

    assert_true(done >= s->last && done <= total && (!s->total || s->total == total));
    s->last = done;
    s->total = total;
    return ++s->calls == s->stop_at;
}

static struct zqcow2_simdisk *new_disk(struct zqcow2_backend **be)
{
    struct zqcow2_simdisk_options o = ZQCOW2_SIMDISK_OPTIONS_INIT;
    struct zqcow2_simdisk *disk;

    o.flags = ZQCOW2_SIMDISK_RECORD;
    assert_int_equal(zqcow2_simdisk_new(&o, &disk), 0);
    assert_int_equal(zqcow2_simdisk_backend(disk, be), 0);
    return disk;
}

static void test_progress(void **state)
{
    (void)state;
    for (uint32_t mode = 1; mode <= 3; mode += 2) {
        struct zqcow2_create_options o = options(&shapes[2], mode);
        struct steps all = {0, 0, 0, 0};
        struct zqcow2_backend *be;
        struct zqcow2_simdisk *disk = new_disk(&be);

        o.progress = step;
        o.progress_arg = &all;
        o.flags = ZQCOW2_CREATE_FORCE;
        assert_int_equal(zqcow2_create(be, &o, NULL), 0);
        assert_true(all.calls >= 1 && all.last == all.total);
        for (int i = 1; i <= all.calls; i++) {
            struct steps some = {0, 0, 0, i};

            o.progress_arg = &some;
            assert_int_equal(zqcow2_create(be, &o, NULL), -ECANCELED);
            assert_int_equal(zqcow2_simdisk_length(disk), 0);
        }
        zqcow2_backend_close(be);
        zqcow2_simdisk_free(disk);
    }
}

/* Each call in turn fails. The host has its space back, and the next create finds nothing. */
static void test_every_call_fails(void **state)
{
    const uint32_t kinds = 1u << ZQCOW2_IO_WRITE | 1u << ZQCOW2_IO_FLUSH;
    struct zqcow2_create_options o = options(&shapes[7], ZQCOW2_PREALLOCATE_FULL);
    unsigned faults = 0;

    (void)state;
    for (uint64_t n = 1;; n++) {
        struct zqcow2_simdisk_fault f = ZQCOW2_SIMDISK_FAULT_INIT;
        struct zqcow2_backend *be;
        struct zqcow2_simdisk *disk = new_disk(&be);
        struct zqcow2_error err;
        int rc;

        f.nth = n;
        f.kinds = kinds;
        f.error = n % 2 ? -ENOSPC : -EIO;
        assert_int_equal(zqcow2_simdisk_set_fault(disk, &f), 0);
        rc = zqcow2_create(be, &o, &err);
        if (rc < 0) {
            assert_int_equal(rc, f.error);
            assert_int_equal(zqcow2_simdisk_length(disk), 0);
            faults++;
        }
        zqcow2_backend_close(be);
        zqcow2_simdisk_free(disk);
        if (rc == 0)
            break;
    }
    assert_true(faults > 8);
    printf("preallocated: %u faults, 0 left something\n", faults);
}

/* Is it a whole image, or none? */
static bool judge(struct zqcow2_simdisk *disk)
{
    struct zqcow2_check_result res = ZQCOW2_CHECK_RESULT_INIT;
    struct zqcow2_backend *be;
    struct zqcow2_error err;
    int rc;

    assert_int_equal(zqcow2_simdisk_backend(disk, &be), 0);
    rc = zqcow2_check(be, NULL, &res, &err);
    zqcow2_backend_close(be);
    if (rc != 0 && rc != ZQCOW2_ENOTQCOW2)
        fail_msg("%s", err.text);
    if (rc == 0 && (res.corruptions || res.leaked_clusters || res.warnings))
        fail_msg("%llu corruptions", (unsigned long long)res.corruptions);
    return rc == 0;
}

static void test_power_loss(void **state)
{
    struct shape s = {KiB(192), KiB(64), KiB(33), 1, 4096, 44, 0};
    struct zqcow2_create_options o = options(&s, ZQCOW2_PREALLOCATE_FULL);
    struct zqcow2_backend *be;
    struct zqcow2_simdisk *disk = new_disk(&be), *after;
    struct zqcow2_simdisk_cut *cut;
    unsigned states = 0, images = 0;

    (void)state;
    assert_int_equal(zqcow2_create(be, &o, NULL), 0);
    assert_int_equal(zqcow2_simdisk_cut_new(disk, &cut), 0);
    for (uint64_t at = 0; at <= zqcow2_simdisk_position(disk); at++) {
        assert_int_equal(zqcow2_simdisk_cut_seek(cut, at), 0);
        for (uint64_t k = 0; k < zqcow2_simdisk_cut_states(cut); k++) {
            assert_int_equal(zqcow2_simdisk_cut_image(cut, k, &after), 0);
            images += judge(after);
            states++;
            zqcow2_simdisk_free(after);
        }
    }
    assert_true(images >= 2 && images < states);
    printf("preallocated: %u states, 0 half images\n", states);
    zqcow2_simdisk_cut_free(cut);
    zqcow2_backend_close(be);
    zqcow2_simdisk_free(disk);
}

/* ---- refusals ---- */

static void refused(const struct zqcow2_create_options *o, int code, const char *text)
{
    struct zqcow2_backend *be;
    struct zqcow2_simdisk *disk = new_disk(&be);
    struct zqcow2_error err;

    assert_int_equal(zqcow2_create(be, o, &err), code);
    if (!strstr(err.text, text))
        fail_msg("'%s' is not in '%s'", text, err.text);
    assert_int_equal(zqcow2_simdisk_length(disk), 0);
    zqcow2_backend_close(be);
    zqcow2_simdisk_free(disk);
}

static void test_refused(void **state)
{
    struct zqcow2_create_options o = options(&shapes[2], 4);

    (void)state;
    refused(&o, -EINVAL, "preallocation 4");
    o.preallocation = ZQCOW2_PREALLOCATE_FALLOC;
    refused(&o, -EOPNOTSUPP, "full is");
    o.preallocation = ZQCOW2_PREALLOCATE_METADATA;
    o.virtual_size = 1ull << 56;
    o.cluster_size = 2u << 20;
    refused(&o, -EINVAL, "2^56");
    o.virtual_size = 1ull << 50;
    o.cluster_size = 65536;
    o.refcount_bits = 64;
    refused(&o, -EINVAL, "refcount table would exceed");
    o.virtual_size = MiB(1);
    o.backing_name = "base";
    o.backing_format = "raw";
    refused(&o, -EINVAL, "extended_l2 is required");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_shape),      cmocka_unit_test(test_appends_take_nothing),
        cmocka_unit_test(test_given_back),       cmocka_unit_test(test_progress),
        cmocka_unit_test(test_every_call_fails), cmocka_unit_test(test_power_loss),
        cmocka_unit_test(test_refused)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
