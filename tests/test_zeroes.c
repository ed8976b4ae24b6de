/* SPDX-License-Identifier: MIT */
/*
 * Writes of zeros that keep the space of the range, that free it, and that must not write: on each
 * kind of image, in whole clusters and in parts of them. What an image holds is asked by block
 * status and of the host, and read back against a copy in memory.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>
#include <zqcow2/backend.h>
#include <zqcow2/change.h>
#include <zqcow2/queue.h>
#include <zqcow2/zqcow2.h>

#define C    65536u
#define SIZE (16u * C)

struct kind {
    const char *name;
    uint32_t flags; /* of create */
    bool v2, backing, data_file, zoned;
};

static const struct kind kinds[] = {
    {.name = "plain"},
    {.name = "version 2", .v2 = true},
    {.name = "subclusters", .flags = ZQCOW2_CREATE_EXTENDED_L2},
    {.name = "overlay", .backing = true},
    {.name = "overlay, subclusters", .flags = ZQCOW2_CREATE_EXTENDED_L2, .backing = true},
    {.name = "overlay, version 2", .v2 = true, .backing = true},
    {.name = "data file", .data_file = true},
    {.name = "raw data file", .flags = ZQCOW2_CREATE_DATA_FILE_RAW, .data_file = true},
    {.name = "conventional zones", .zoned = true},
};
#define NR_KINDS (sizeof(kinds) / sizeof(kinds[0]))

static char folder[] = "/tmp/zqcow2-zeroes.XXXXXX";
static char paths[3][64]; /* of the image, its data file, its backing file */
static uint8_t copy[SIZE], got[SIZE];

static int resolve(void *arg, const char *name, const char *format, uint32_t depth,
                   struct zqcow2_backend **be, struct zqcow2_error *err)
{
    const char *path = depth & ZQCOW2_RESOLVE_DATA_FILE ? paths[1] : paths[2];
    unsigned flags = depth & ZQCOW2_RESOLVE_WRITE ? ZQCOW2_FILE_RDWR : 0;

    (void)arg, (void)name, (void)format, (void)err;
    if (depth & ZQCOW2_RESOLVE_CREATE)
        flags |= ZQCOW2_FILE_CREATE;
    return zqcow2_file_open(path, flags, NULL, be);
}

/* Below are bytes of 9 everywhere. */
static void make_backing(void)
{
    FILE *f = fopen(paths[2], "w");

    assert_non_null(f);
    memset(got, 9, SIZE);
    assert_int_equal(fwrite(got, 1, SIZE, f), SIZE);
    assert_int_equal(fclose(f), 0);
}

static void make(const struct kind *k)
{
    struct zqcow2_create_options o = ZQCOW2_CREATE_OPTIONS_INIT;
    struct zqcow2_amend_options a = ZQCOW2_AMEND_OPTIONS_INIT;
    struct zqcow2_error err;
    struct zqcow2_backend *be;

    for (unsigned i = 0; i < 3; i++)
        unlink(paths[i]);
    if (k->backing)
        make_backing();
    o.virtual_size = SIZE;
    o.cluster_size = C;
    o.flags = k->flags;
    o.zone_size = k->zoned ? SIZE / 2u : 0u;
    o.conventional_zones = k->zoned;
    o.backing_name = k->backing ? "below" : NULL;
    o.backing_format = k->backing ? "raw" : NULL;
    o.data_file = k->data_file ? "data" : NULL;
    o.resolve = resolve;
    assert_int_equal(zqcow2_file_open(paths[0], ZQCOW2_FILE_RDWR | ZQCOW2_FILE_CREATE, NULL, &be),
                     0);
    if (zqcow2_create(be, &o, &err))
        fail_msg("%s: %s", k->name, err.text);
    a.version = k->v2 ? 2 : 0;
    a.resolve = resolve;
    if (zqcow2_amend(be, &a, &err))
        fail_msg("%s: %s", k->name, err.text);
    zqcow2_backend_close(be);
}

static struct zqcow2_image *must_open(const struct kind *k)
{
    struct zqcow2_open_options o = ZQCOW2_OPEN_OPTIONS_INIT;
    struct zqcow2_error err;
    struct zqcow2_image *img;
    struct zqcow2_backend *be;

    o.flags = ZQCOW2_OPEN_RDWR;
    o.resolve = resolve;
    assert_int_equal(zqcow2_file_open(paths[0], ZQCOW2_FILE_RDWR, NULL, &be), 0);
    if (zqcow2_open(be, &o, &img, &err))
        fail_msg("%s: %s", k->name, err.text);
    memset(copy, k->backing ? 9 : 0, SIZE);
    return img;
}

static void put(struct zqcow2_image *img, uint64_t off, uint64_t len, uint8_t value)
{
    memset(copy + off, value, len);
    assert_int_equal(zqcow2_write(img, copy + off, len, off, 0), 0);
}

static void zero(struct zqcow2_image *img, uint64_t off, uint64_t len, unsigned flags)
{
    memset(copy + off, 0, len);
    assert_int_equal(zqcow2_write_zeroes(img, len, off, flags), 0);
}

static void must_read(struct zqcow2_image *img, const struct kind *k)
{
    assert_int_equal(zqcow2_read(img, got, SIZE, 0), 0);
    for (uint32_t i = 0; i < SIZE; i++) {
        if (got[i] != copy[i])
            fail_msg("%s: byte %u is %u, not %u", k->name, i, got[i], copy[i]);
    }
}

static struct zqcow2_extent status(struct zqcow2_image *img, uint64_t off)
{
    struct zqcow2_extent e = ZQCOW2_EXTENT_INIT;

    assert_int_equal(zqcow2_block_status(img, off, 512, &e), 0);
    return e;
}

/* Bytes that the host has for the file with the data. */
static uint64_t space(const struct kind *k)
{
    struct stat st;

    assert_int_equal(stat(paths[k->data_file], &st), 0);
    return (uint64_t)st.st_blocks * 512;
}

/* Closes it; nothing may be wrong with it, and it reads the same again. */
static void must_be_good(struct zqcow2_image *img, const struct kind *k)
{
    struct zqcow2_check_options o = ZQCOW2_CHECK_OPTIONS_INIT;
    struct zqcow2_check_result r = {.size = sizeof(r)};
    struct zqcow2_backend *be;
    static uint8_t before[SIZE];

    must_read(img, k);
    memcpy(before, copy, SIZE);
    assert_int_equal(zqcow2_close(img), 0);
    assert_int_equal(zqcow2_file_open(paths[0], 0, NULL, &be), 0);
    o.resolve = resolve;
    assert_int_equal(zqcow2_check(be, &o, &r, NULL), 0);
    if (r.corruptions || r.leaked_clusters)
        fail_msg("%s: %u corruptions, %u leaks", k->name, (unsigned)r.corruptions,
                 (unsigned)r.leaked_clusters);
    zqcow2_backend_close(be);
    img = must_open(k);
    memcpy(copy, before, SIZE);
    must_read(img, k);
    assert_int_equal(zqcow2_close(img), 0);
}

/* Whole clusters and parts of some; what is written there again finds its old place. */
static void space_is_kept(void **state)
{
    (void)state;
    for (unsigned i = 0; i < NR_KINDS; i++) {
        const struct kind *k = &kinds[i];
        struct zqcow2_image *img;
        uint64_t host[4], had;

        make(k);
        img = must_open(k);
        put(img, 0, 4 * C, 5);
        assert_int_equal(zqcow2_flush(img), 0);
        had = space(k);
        for (unsigned n = 0; n < 4; n++)
            host[n] = status(img, n * C).host;
        zero(img, 512, 2 * C, ZQCOW2_NO_UNMAP);
        zero(img, 0, 512, ZQCOW2_NO_UNMAP);
        zero(img, 3 * C, C / 2, ZQCOW2_NO_UNMAP | ZQCOW2_FUA);
        must_read(img, k);
        for (unsigned n = 0; n < 4; n++) {
            if (status(img, n * C).host != host[n])
                fail_msg("%s: cluster %u has lost its place", k->name, n);
        }
        if (space(k) < had)
            fail_msg("%s: the host has taken %u bytes back", k->name, (unsigned)(had - space(k)));
        put(img, C + 8192, 4096, 7); /* a part leaves the rest its space */
        if (space(k) < had)
            fail_msg("%s: a write has given %u bytes back", k->name, (unsigned)(had - space(k)));
        put(img, C + 1024, 2 * C, 6);
        assert_int_equal(status(img, C).host, host[1]);
        assert_int_equal(status(img, 2 * C).host, host[2]);
        must_be_good(img, k);
    }
}

/* Nothing is allocated for it where there was nothing, unless it must be written. */
static void nothing_is_allocated(void **state)
{
    (void)state;
    for (unsigned i = 0; i < NR_KINDS; i++) {
        const struct kind *k = &kinds[i];
        struct zqcow2_image *img;
        bool written = k->flags & ZQCOW2_CREATE_DATA_FILE_RAW || (k->v2 && k->backing);

        make(k);
        img = must_open(k);
        put(img, 0, 512, 5);
        zero(img, 2 * C, 2 * C, ZQCOW2_NO_UNMAP);
        zero(img, 0, C, ZQCOW2_NO_UNMAP); /* of a data file, zeros at offset 0 have no place */
        assert_int_equal(status(img, 2 * C).kind == ZQCOW2_BLOCK_DATA, written);
        must_be_good(img, k);
    }
}

/* Whole clusters are marked; what would have to be written is refused, and is as it was. */
static void no_fallback_writes_nothing(void **state)
{
    const unsigned only = ZQCOW2_NO_FALLBACK, both = only | ZQCOW2_NO_UNMAP;

    (void)state;
    for (unsigned i = 0; i < NR_KINDS; i++) {
        const struct kind *k = &kinds[i];
        bool raw = k->flags & ZQCOW2_CREATE_DATA_FILE_RAW, below = k->v2 && k->backing;
        struct zqcow2_image *img;
        int rc;

        make(k);
        img = must_open(k);
        put(img, 0, 6 * C, 5);
        rc = zqcow2_write_zeroes(img, 2 * C, C, only);
        assert_int_equal(rc, raw || below ? -EOPNOTSUPP : 0);
        if (rc == 0)
            memset(copy + C, 0, 2 * C);
        rc = zqcow2_write_zeroes(img, C, 4 * C, both);
        assert_int_equal(rc, raw || k->v2 ? -EOPNOTSUPP : 0);
        if (rc == 0)
            memset(copy + 4 * C, 0, C);
        /* Of these, clusters 2 and 4 may be zeros, so that their parts are. */
        rc = zqcow2_write_zeroes(img, 2 * C, 3 * C - 512, only);
        assert_int_equal(rc, copy[3 * C - 1] || copy[4 * C] ? -EOPNOTSUPP : 0);
        if (rc == 0)
            memset(copy + 3 * C, 0, C);
        assert_int_equal(zqcow2_write_zeroes(img, C, 5 * C + 512, only), -EOPNOTSUPP);
        assert_int_equal(zqcow2_write_zeroes(img, 512, 5 * C + 512, both), -EOPNOTSUPP);
        must_be_good(img, k);
    }
}

/* A sequential zone is written, whatever the flags are, and its pointer moves. */
static void zones_are_written(void **state)
{
    const struct kind *k = &kinds[NR_KINDS - 1];
    const uint64_t zone = SIZE / 2;
    struct zqcow2_zone z;
    struct zqcow2_image *img;
    uint32_t nr = 1;
    uint64_t had;

    (void)state;
    make(k);
    img = must_open(k);
    put(img, zone, C, 5);
    had = space(k);
    zero(img, zone + C, 2 * C, ZQCOW2_NO_UNMAP);
    assert_true(space(k) >= had);
    assert_int_equal(status(img, zone + C).kind, ZQCOW2_BLOCK_DATA);
    zero(img, zone + 3 * C, 512, 0);
    assert_int_equal(zqcow2_write_zeroes(img, 512, zone + 3 * C + 512, ZQCOW2_NO_FALLBACK),
                     -EOPNOTSUPP);
    assert_int_equal(zqcow2_write_zeroes(img, C, zone, ZQCOW2_NO_UNMAP), ZQCOW2_EZONE_WP);
    assert_int_equal(zqcow2_zone_report(img, zone, &z, &nr), 0);
    assert_int_equal(z.write_pointer, zone + 3 * C + 512);
    must_be_good(img, k);
}

/* The cluster is a snapshot's, too: it stays that one's, and the device has none. */
static void a_snapshot_keeps_its_bytes(void **state)
{
    const struct kind *k = &kinds[0];
    struct zqcow2_snapshot s = ZQCOW2_SNAPSHOT_INIT;
    struct zqcow2_image *img;

    (void)state;
    make(k);
    img = must_open(k);
    put(img, 0, 2 * C, 5);
    s.name = "before";
    assert_int_equal(zqcow2_snapshot_take(img, &s, NULL), 0);
    zero(img, 0, C, ZQCOW2_NO_UNMAP);
    zero(img, C, 512, ZQCOW2_NO_UNMAP);
    put(img, 0, 512, 6);
    must_read(img, k);
    assert_int_equal(zqcow2_snapshot_apply(img, "before", NULL), 0);
    memset(copy, 5, 2 * C);
    must_be_good(img, k);
}

/* Neither flag is for anything else, and a queue knows them, too. */
static void flags_of_other_requests(void **state)
{
    static const uint16_t ops[] = {
        ZQCOW2_OP_READ,      ZQCOW2_OP_WRITE,      ZQCOW2_OP_APPEND,
        ZQCOW2_OP_DISCARD,   ZQCOW2_OP_FLUSH,      ZQCOW2_OP_DRAIN,
        ZQCOW2_OP_ZONE_OPEN, ZQCOW2_OP_ZONE_RESET, ZQCOW2_OP_WRITE_ZEROES};
    const struct kind *k = &kinds[NR_KINDS - 1];
    struct iovec iov = {got, 512};
    struct zqcow2_image *img;
    struct zqcow2_queue *q;

    (void)state;
    make(k);
    img = must_open(k);
    assert_int_equal(zqcow2_queue_open(img, 4, &q), 0);
    for (unsigned i = 0; i < sizeof(ops) / sizeof(ops[0]); i++) {
        struct zqcow2_request r = {.size = sizeof(r),
                                   .op = ops[i],
                                   .flags = i % 2 ? ZQCOW2_NO_UNMAP : ZQCOW2_NO_FALLBACK,
                                   .length = 512,
                                   .iov = &iov,
                                   .iovcnt = 1};
        int want = ops[i] == ZQCOW2_OP_WRITE_ZEROES ? 0 : -EINVAL;

        assert_int_equal(zqcow2_run(img, &r, NULL), want);
        assert_int_equal(zqcow2_queue_submit(q, &r, 1), 1);
        assert_int_equal(zqcow2_queue_wait(q, 1, -1), 1);
    }
    assert_int_equal(zqcow2_write_zeroes(img, 512, 0, ZQCOW2_NO_UNMAP | ZQCOW2_COMPRESS), -EINVAL);
    assert_int_equal(zqcow2_write_zeroes(img, 512, 0, 1u << 4), -EINVAL);
    assert_int_equal(zqcow2_queue_close(q), 0);
    must_be_good(img, k);
}

/* What a device grows by is mapped and reads as zeros; the host has the space, or a hole. */
static void a_resize_allocates(void **state)
{
    static const uint32_t modes[] = {0, ZQCOW2_RESIZE_METADATA, ZQCOW2_RESIZE_FALLOC,
                                     ZQCOW2_RESIZE_FULL};

    (void)state;
    for (unsigned i = 0; i < 4; i++) {
        for (unsigned n = 0; n < 6; n++) { /* those with neither zones nor a data file */
            const struct kind *k = &kinds[n];
            struct zqcow2_image *img;
            uint64_t had;
            int rc;

            make(k);
            img = must_open(k);
            put(img, 0, 2 * C, 5);
            assert_int_equal(zqcow2_resize(img, 4 * C - 512, ZQCOW2_RESIZE_SHRINK, NULL), 0);
            had = space(k);
            rc = zqcow2_resize(img, SIZE, modes[i], NULL);
            assert_int_equal(rc, 0);
            memset(copy + 4 * C - 512, 0, SIZE - (4 * C - 512));
            for (uint64_t at = 4 * C; at < SIZE; at += C)
                assert_int_equal(status(img, at).host != UINT64_MAX,
                                 i > 0 || (k->v2 && k->backing));
            if (i > 1)
                assert_true(space(k) >= had + 12 * C);
            if (i == 1 && !k->backing)
                assert_true(space(k) < had + 4 * C);
            must_be_good(img, k);
        }
    }
}

static void a_resize_that_cannot_allocate_is_refused(void **state)
{
    (void)state;
    for (unsigned n = 6; n < NR_KINDS; n++) { /* data files, zones */
        const struct kind *k = &kinds[n];
        struct zqcow2_image *img;

        make(k);
        img = must_open(k);
        assert_int_equal(zqcow2_resize(img, 2 * SIZE, ZQCOW2_RESIZE_FULL, NULL), ZQCOW2_EFEATURE);
        assert_int_equal(
            zqcow2_resize(img, 2 * SIZE, ZQCOW2_RESIZE_FULL | ZQCOW2_RESIZE_METADATA, NULL),
            -EINVAL);
        must_be_good(img, k);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(space_is_kept),
        cmocka_unit_test(nothing_is_allocated),
        cmocka_unit_test(no_fallback_writes_nothing),
        cmocka_unit_test(zones_are_written),
        cmocka_unit_test(a_snapshot_keeps_its_bytes),
        cmocka_unit_test(flags_of_other_requests),
        cmocka_unit_test(a_resize_allocates),
        cmocka_unit_test(a_resize_that_cannot_allocate_is_refused),
    };
    int rc;

    if (!mkdtemp(folder))
        return 1;
    for (unsigned i = 0; i < 3; i++)
        snprintf(paths[i], sizeof(paths[i]), "%s/%u", folder, i);
    rc = cmocka_run_group_tests(tests, NULL, NULL);
    for (unsigned i = 0; i < 3; i++)
        unlink(paths[i]);
    rmdir(folder);
    return rc;
}
