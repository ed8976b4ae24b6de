/* SPDX-License-Identifier: MIT */
/*
 * Snapshots as other programs may leave them, made by changing the bytes of ours: flags in L2
 * tables, the size of the disk, an L1 that cannot be right. What is applied is right or refused.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>
#include <errno.h>
#include <zqcow2/backend.h>
#include <zqcow2/zqcow2.h>

#define CLUSTER 4096u
#define SPAN    ((uint64_t)CLUSTER * CLUSTER / 8) /* of an L2 table */
#define SIZE    (2 * SPAN)
#define COPIED  ((uint64_t)1 << 63)
#define PLACE   0x00fffffffffffe00ull

static struct zqcow2_backend *be;

static uint64_t get(uint64_t at, unsigned n)
{
    uint8_t raw[8];
    uint64_t v = 0;

    assert_int_equal(zqcow2_backend_read(be, raw, n, at), 0);
    for (unsigned i = 0; i < n; i++)
        v = v << 8 | raw[i];
    return v;
}

static void put(uint64_t at, uint64_t v)
{
    uint8_t raw[8];

    for (unsigned i = 0; i < 8; i++)
        raw[i] = (uint8_t)(v >> (56 - 8 * i));
    assert_int_equal(zqcow2_backend_write(be, raw, sizeof(raw), at), 0);
}

static struct zqcow2_image *open_it(void)
{
    struct zqcow2_open_options opt = ZQCOW2_OPEN_OPTIONS_INIT;
    struct zqcow2_image *img = NULL;
    struct zqcow2_error err = {0, ""};

    opt.flags = ZQCOW2_OPEN_RDWR | ZQCOW2_OPEN_BORROW;
    if (zqcow2_open(be, &opt, &img, &err))
        fail_msg("%s", err.text);
    return img;
}

static void fill(struct zqcow2_image *img, uint64_t at, uint8_t value)
{
    uint8_t buf[CLUSTER];

    memset(buf, value, sizeof(buf));
    assert_int_equal(zqcow2_write(img, buf, sizeof(buf), at, 0), 0);
}

static void holds(struct zqcow2_image *img, uint64_t at, uint8_t value)
{
    uint8_t buf[CLUSTER];

    assert_int_equal(zqcow2_read(img, buf, sizeof(buf), at), 0);
    for (unsigned i = 0; i < CLUSTER; i++)
        assert_int_equal(buf[i], value);
}

static uint64_t size_of(struct zqcow2_image *img)
{
    struct zqcow2_info i = ZQCOW2_INFO_INIT;

    assert_int_equal(zqcow2_get_info(img, &i), 0);
    return i.virtual_size;
}

/* It is read like this without being applied. */
static struct zqcow2_image *look(const char *name, struct zqcow2_error *err, int want)
{
    struct zqcow2_open_options opt = ZQCOW2_OPEN_OPTIONS_INIT;
    struct zqcow2_image *img = NULL;

    opt.flags = ZQCOW2_OPEN_BORROW;
    opt.snapshot = name;
    assert_int_equal(zqcow2_open(be, &opt, &img, err), want);
    return img;
}

static void apply(struct zqcow2_image *img)
{
    struct zqcow2_error err = {0, ""};

    if (zqcow2_snapshot_apply(img, "was", &err))
        fail_msg("%s", err.text);
}

static void is_sound(void)
{
    struct zqcow2_check_result res = ZQCOW2_CHECK_RESULT_INIT;

    assert_int_equal(zqcow2_check(be, NULL, &res, NULL), 0);
    assert_int_equal(res.corruptions, 0);
    assert_int_equal(res.leaked_clusters, 0);
}

/* A snapshot "was" holds 1 in both spans, and the disk has 2 there since. Closed. */
static void make(void)
{
    struct zqcow2_create_options how = ZQCOW2_CREATE_OPTIONS_INIT;
    struct zqcow2_snapshot s = ZQCOW2_SNAPSHOT_INIT;
    struct zqcow2_image *img;

    how.virtual_size = SIZE;
    how.cluster_size = CLUSTER;
    s.name = "was";
    assert_int_equal(zqcow2_mem_open(0, NULL, &be), 0);
    assert_int_equal(zqcow2_create(be, &how, NULL), 0);
    img = open_it();
    fill(img, 0, 1);
    fill(img, SPAN, 1);
    assert_int_equal(zqcow2_snapshot_take(img, &s, NULL), 0);
    fill(img, 0, 2);
    fill(img, SPAN, 2);
    assert_int_equal(zqcow2_close(img), 0);
}

static uint64_t record(void)
{
    return get(64, 8);
}

static uint64_t snapshot_l1(void)
{
    return get(record(), 8);
}

/* Its refcount is 1, so a program may have set it when it deleted another snapshot. */
static void flags_do_not_survive(void **state)
{
    struct zqcow2_image *img;
    uint64_t l2;

    (void)state;
    make();
    l2 = get(snapshot_l1(), 8) & PLACE;
    put(l2, get(l2, 8) | COPIED);
    put(snapshot_l1(), get(snapshot_l1(), 8) | COPIED);
    is_sound();
    img = open_it();
    apply(img);
    holds(img, 0, 1);
    fill(img, 0, 3);
    apply(img);
    holds(img, 0, 1);
    assert_int_equal(zqcow2_close(img), 0);
    is_sound();
    zqcow2_backend_close(be);
}

/* A range without an entry in the L1 of the snapshot is empty, whatever lies behind that table. */
static void nothing_beyond(struct zqcow2_image *img)
{
    uint64_t size = size_of(img);

    for (uint64_t at = SIZE; at < size; at += SPAN)
        holds(img, at, 0);
}

/* More than its L1 maps: nothing is there. Less: the rest cannot be reached. Not whole sectors. */
static void the_size_is_that_of_the_snapshot(void **state)
{
    static const uint64_t sizes[] = {SIZE, 600 * SPAN, SPAN, CLUSTER, CLUSTER + 100};
    uint8_t sector[512];

    (void)state;
    for (unsigned i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
        uint64_t whole = sizes[i] & ~511ull;
        struct zqcow2_image *img;

        make();
        put(record() + 48, sizes[i]);
        img = look("was", NULL, 0);
        assert_true(size_of(img) == whole);
        holds(img, 0, 1);
        nothing_beyond(img);
        assert_int_equal(zqcow2_read(img, sector, 512, whole - 512), 0);
        assert_true(zqcow2_read(img, sector, 512, whole) < 0);
        assert_int_equal(zqcow2_close(img), 0);
        img = open_it();
        apply(img);
        assert_true(size_of(img) == whole);
        holds(img, 0, 1);
        nothing_beyond(img);
        assert_int_equal(zqcow2_read(img, sector, 512, whole - 512), 0);
        assert_true(zqcow2_read(img, sector, 512, whole) < 0);
        fill(img, (sizes[i] - 1) / CLUSTER * CLUSTER - (sizes[i] % CLUSTER ? CLUSTER : 0), 7);
        assert_int_equal(zqcow2_close(img), 0);
        is_sound();
        img = open_it();
        assert_true(size_of(img) == whole);
        apply(img);
        holds(img, 0, 1);
        assert_int_equal(zqcow2_snapshot_delete(img, "was", NULL), 0);
        assert_int_equal(zqcow2_close(img), 0);
        is_sound();
        zqcow2_backend_close(be);
    }
}

/* A stored size of 0 is a size. */
static void a_disk_may_have_had_no_bytes(void **state)
{
    struct zqcow2_image *img;
    uint8_t sector[512];

    (void)state;
    make();
    put(record() + 48, 0);
    img = look("was", NULL, 0);
    assert_true(size_of(img) == 0);
    assert_true(zqcow2_read(img, sector, 512, 0) < 0);
    assert_int_equal(zqcow2_close(img), 0);
    img = open_it();
    apply(img);
    assert_true(size_of(img) == 0);
    assert_true(zqcow2_read(img, sector, 512, 0) < 0);
    assert_int_equal(zqcow2_close(img), 0);
    is_sound();
    img = open_it();
    assert_int_equal(zqcow2_resize(img, SIZE, 0, NULL), 0);
    holds(img, 0, 0);
    fill(img, SPAN, 4);
    apply(img);
    assert_true(size_of(img) == 0);
    assert_int_equal(zqcow2_snapshot_delete(img, "was", NULL), 0);
    assert_int_equal(zqcow2_close(img), 0);
    is_sound();
    zqcow2_backend_close(be);
}

static void refused(const char *why)
{
    struct zqcow2_image *img = open_it();
    struct zqcow2_error err = {0, ""};

    assert_int_equal(zqcow2_snapshot_apply(img, "was", &err), ZQCOW2_ECORRUPT);
    if (!strstr(err.text, why))
        fail_msg("\"%s\" lacks \"%s\"", err.text, why);
    holds(img, 0, 2);
    fill(img, SPAN, 3);
    assert_int_equal(zqcow2_close(img), 0);
    zqcow2_backend_close(be);
}

static void one_is_read_without_being_applied(void **state)
{
    struct zqcow2_open_options opt = ZQCOW2_OPEN_OPTIONS_INIT;
    struct zqcow2_error err;
    struct zqcow2_image *img;

    (void)state;
    make();
    img = look("was", &err, 0);
    holds(img, 0, 1);
    holds(img, SPAN, 1);
    holds(img, SPAN - CLUSTER, 0);
    assert_int_equal(zqcow2_write(img, &err, 512, 0, 0), -EROFS);
    assert_int_equal(zqcow2_close(img), 0);
    img = look("1", &err, 0);
    holds(img, 0, 1);
    assert_int_equal(zqcow2_close(img), 0);
    img = look(NULL, &err, 0);
    holds(img, 0, 2);
    assert_int_equal(zqcow2_close(img), 0);
    look("will be", &err, -ENOENT);
    assert_string_equal(err.text, "no snapshot has the name or id \"will be\"");
    opt.flags = ZQCOW2_OPEN_RDWR | ZQCOW2_OPEN_BORROW;
    opt.snapshot = "was";
    assert_int_equal(zqcow2_open(be, &opt, &img, &err), -EINVAL);
    put(record(), get(64, 8));
    look("was", &err, ZQCOW2_ECORRUPT);
    put(record(), 0x123);
    look("was", &err, ZQCOW2_ECORRUPT);
    put(record(), get(40, 8));
    put(record() + 48, (uint64_t)1 << 50);
    look("was", &err, ZQCOW2_ECORRUPT);
    zqcow2_backend_close(be);
}

static void what_cannot_be_right_is_refused(void **state)
{
    (void)state;
    make();
    put(record() + 48, ((uint64_t)1 << 62) + 1);
    refused("too large for an L1 table");
    make();
    put(record() + 48, (uint64_t)1 << 50);
    refused("too large for an L1 table");
    make();
    put(snapshot_l1() + 8, get(snapshot_l1(), 8));
    refused("is named twice");
    make();
    put(record(), get(40, 8));
    refused("it lies on another table");
    make();
    put(record(), 0x123);
    refused("it is no place for a table");
    make();
    put(snapshot_l1(), get(48, 8));
    refused("lies on another table");
    make();
    put(snapshot_l1(), get(get(48, 8), 8));
    refused("points past the end of the file");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(flags_do_not_survive),
        cmocka_unit_test(the_size_is_that_of_the_snapshot),
        cmocka_unit_test(a_disk_may_have_had_no_bytes),
        cmocka_unit_test(one_is_read_without_being_applied),
        cmocka_unit_test(what_cannot_be_right_is_refused),
    };

    return cmocka_run_group_tests_name("foreign_snapshots", tests, NULL, NULL);
}
