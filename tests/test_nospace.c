/* SPDX-License-Identifier: MIT */
/*
 * A full host (R10): metadata has its space before anything depends on it, and a round that finds
 * none stops and loses nothing.
 */
#include <errno.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <zqcow2/queue.h>
#include <zqcow2/simdisk.h>
#include "rig/rig.h"

#define BLOCK  4096u
#define BLOCKS 8192u
#define MANY   10000u /* refusals: what asks again and again is given it */

/* ---- a host that counts its blocks: holes take one when they are written ---- */

struct host {
    struct store store;
    uint8_t used[BLOCKS];
    unsigned left;
    uint64_t longest; /* no file may be longer; 0: any */
    unsigned refusals;
};

static int take(struct host *h, uint64_t off, uint64_t len)
{
    for (uint64_t b = off / BLOCK; len && b <= (off + len - 1) / BLOCK; b++) {
        if (b >= BLOCKS || (!h->used[b] && !h->left))
            return -ENOSPC;
        h->left -= !h->used[b];
        h->used[b] = 1;
    }
    return 0;
}

static void give(struct host *h, uint64_t off, uint64_t len)
{
    for (uint64_t b = (off + BLOCK - 1) / BLOCK; b < (off + len) / BLOCK && b < BLOCKS; b++) {
        h->left += h->used[b];
        h->used[b] = 0;
    }
}

static struct rig_be under(void *self)
{
    return store_be(&((struct host *)self)->store);
}

static int op_length(void *self, uint64_t *bytes)
{
    return under(self).ops->length(under(self).self, bytes);
}

static int op_readv(void *self, const struct iovec *iov, int cnt, uint64_t off)
{
    return under(self).ops->readv(under(self).self, iov, cnt, off);
}

static int op_writev(void *self, const struct iovec *iov, int cnt, uint64_t off)
{
    uint64_t len = 0;
    int rc;

    for (int i = 0; i < cnt; i++)
        len += iov[i].iov_len;
    rc = take(self, off, len);
    return rc ? rc : under(self).ops->writev(under(self).self, iov, cnt, off);
}

static int op_flush(void *self)
{
    (void)self;
    return 0;
}

static int op_truncate(void *self, uint64_t bytes)
{
    struct host *h = self;

    if (h->longest && bytes > h->longest && ++h->refusals < MANY)
        return -EFBIG;
    return under(self).ops->truncate(under(self).self, bytes);
}

static int op_zero(void *self, uint64_t off, uint64_t len)
{
    give(self, off, len); /* as a hole does */
    return under(self).ops->zero(under(self).self, off, len);
}

static struct zqcow2_backend *host_backend(struct host *h)
{
    static const struct zqcow2_backend_ops ops = {
        .size = sizeof(ops),
        .name = "host",
        .length = op_length,
        .readv = op_readv,
        .writev = op_writev,
        .flush = op_flush,
        .truncate = op_truncate,
        .zero = op_zero,
        .discard = op_zero,
    };
    struct zqcow2_backend *be;

    assert_int_equal(zqcow2_backend_new(&ops, h, NULL, &be), 0);
    return be;
}

static struct zqcow2_image *host_image(struct host *h, const struct zqcow2_create_options *c)
{
    struct zqcow2_open_options o = ZQCOW2_OPEN_OPTIONS_INIT;
    struct zqcow2_backend *be = host_backend(h);
    struct zqcow2_image *img;

    o.flags = ZQCOW2_OPEN_RDWR;
    o.extent_bytes = 16384;
    assert_int_equal(zqcow2_create(be, c, NULL), 0);
    assert_int_equal(zqcow2_open(be, &o, &img, NULL), 0);
    return img;
}

static struct host *new_host(void)
{
    struct host *h = calloc(1, sizeof(*h));

    assert_non_null(h);
    store_init(&h->store);
    h->left = BLOCKS;
    return h;
}

static void free_host(struct host *h)
{
    store_free(&h->store);
    free(h);
}

static bool is_dead(struct zqcow2_image *img)
{
    struct zqcow2_info info = ZQCOW2_INFO_INIT;

    assert_int_equal(zqcow2_get_info(img, &info), 0);
    return info.flags & ZQCOW2_INFO_DEAD;
}

static void check_host(struct host *h)
{
    struct zqcow2_check_result res = ZQCOW2_CHECK_RESULT_INIT;
    struct zqcow2_backend *be = host_backend(h);

    assert_int_equal(zqcow2_check(be, NULL, &res, NULL), 0);
    assert_int_equal(res.corruptions + res.leaked_clusters, 0);
    zqcow2_backend_close(be);
}

static uint8_t buf[1 << 20], got[1 << 20];

/* Not a block is free while it flushes, at any point of an image's life. */
static void flush_full(struct host *h, struct zqcow2_image *img, unsigned step)
{
    unsigned left = h->left;
    int rc;

    h->left = 0;
    rc = zqcow2_flush(img);
    if (rc)
        fail_msg("step %u: a flush wants space: %d", step, rc);
    h->left += left;
}

static void a_flush_needs_no_space(void **state)
{
    static const struct {
        uint32_t cluster, bits;
    } shapes[] = {{512, 64}, {4096, 16}, {65536, 16}};

    (void)state;
    for (unsigned k = 0; k < 3; k++) {
        struct zqcow2_create_options c = ZQCOW2_CREATE_OPTIONS_INIT;
        struct host *h = new_host();
        struct zqcow2_image *img;

        c.cluster_size = shapes[k].cluster;
        c.refcount_bits = shapes[k].bits;
        c.virtual_size = MiB(8);
        c.zone_size = MiB(1);
        c.conventional_zones = 2;
        img = host_image(h, &c);
        flush_full(h, img, 0);
        for (unsigned i = 0; i < 300; i++) {
            uint64_t zone = MiB(2 + i % 6), at = i * 77 % 250 * 8192;

            if (i % 50 == 49)
                assert_int_equal(zqcow2_zone_reset(img, zone, MiB(1), 0), 0);
            assert_int_equal(zqcow2_append(img, buf, 16384, &zone, 0), 0);
            assert_int_equal(zqcow2_write(img, buf, 8192, at, 0), 0);
            if (i % 7 == 0)
                assert_int_equal(zqcow2_discard(img, 65536, at / 65536 * 65536, 0), 0);
            flush_full(h, img, i + 1);
        }
        h->left = 0;
        assert_int_equal(zqcow2_close(img), 0);
        check_host(h);
        free_host(h);
    }
}

/* A file gets longer by more than it must, but not where the host forbids that. */
static void the_longest_file_is_used(void **state)
{
    (void)state;
    for (uint64_t more = 0; more < KiB(256); more += KiB(4)) {
        struct zqcow2_create_options c = ZQCOW2_CREATE_OPTIONS_INIT;
        struct host *h = new_host();
        struct zqcow2_image *img;
        uint64_t at = 0;
        int rc = 0;

        c.cluster_size = 4096;
        c.virtual_size = MiB(16);
        img = host_image(h, &c);
        h->longest = MiB(9) + more;
        for (; rc == 0 && at < MiB(16); at += rc == 0 ? KiB(4) : 0)
            rc = zqcow2_write(img, buf, KiB(4), at, 0);
        assert_int_equal(rc, -EFBIG);
        assert_int_equal(h->store.length, h->longest);
        assert_false(is_dead(img));
        assert_int_equal(zqcow2_close(img), 0);
        check_host(h);
        free_host(h);
    }
}

/* ---- little room: a wish is no reason to refuse ---- */

/* Pieces at *at, until there is no room for one. */
static void fill_up(struct zqcow2_image *img, uint64_t *at, size_t piece)
{
    int rc;

    while ((rc = zqcow2_write(img, buf, piece, *at, 0)) == 0)
        *at += piece;
    assert_int_equal(rc, -EFBIG);
    assert_false(is_dead(img));
}

/* Of the device, which takes clusters of 4 KiB one after the other in three places. */
static uint64_t taken(const uint64_t *at)
{
    uint64_t bytes = 0;

    for (uint64_t i = 0; i < 3; i++) {
        uint64_t written = at[i] - i * MiB(4);

        bytes += written + (written + MiB(2) - 1) / MiB(2) * 4096; /* and the L2 tables */
    }
    return bytes;
}

/*
 * Runs ahead of writes, and runs at aligned places, are wishes: only what is asked for may fail,
 * and only when the file has no cluster left. What the host gives later counts at once.
 */
static void all_room_is_used(bool zoned, size_t piece, uint64_t longest)
{
    struct zqcow2_create_options c = ZQCOW2_CREATE_OPTIONS_INIT;
    struct zqcow2_open_options o = ZQCOW2_OPEN_OPTIONS_INIT;
    uint64_t at[3] = {0, MiB(4), MiB(8)}, made;
    struct host *h = new_host();
    struct zqcow2_backend *be = host_backend(h);
    struct zqcow2_image *img;

    c.cluster_size = 4096;
    c.virtual_size = MiB(16);
    c.zone_size = zoned ? MiB(4) : 0;
    assert_int_equal(zqcow2_create(be, &c, NULL), 0);
    made = h->store.length;
    o.flags = ZQCOW2_OPEN_RDWR;
    assert_int_equal(zqcow2_open(be, &o, &img, NULL), 0);
    h->longest = made + longest;
    for (int i = 0; i < 3; i++, at[i - 1] += KiB(16))
        assert_int_equal(zqcow2_write(img, buf, KiB(16), at[i], 0), 0);
    for (int turn = 0; turn < 2; turn++) {
        uint64_t left;

        h->longest += turn ? KiB(200) : 0;
        for (int i = 0; i < 6; i++)
            fill_up(img, &at[i % 3], i < 3 ? piece : 4096);
        left = h->longest - made - taken(at);
        if (left >= 8192)
            fail_msg("zoned %d, pieces of %zu, turn %d: %" PRIu64 " bytes of %" PRIu64 " are left",
                     zoned, piece, turn, left, h->longest);
    }
    if (h->refusals > 64) /* a cluster fewer each time would be hundreds */
        fail_msg("the host refused %u lengths", h->refusals);
    assert_int_equal(zqcow2_close(img), 0);
    check_host(h);
    free_host(h);
}

static void wishes_fail_nobody(void **state)
{
    unsigned n = 0;

    (void)state;
    for (uint64_t longest = KiB(64); longest < MiB(2); longest += 23552, n++)
        all_room_is_used(n % 2, n % 3 ? KiB(64) : KiB(256), longest);
    printf("little room: %u hosts filled to the last cluster\n", n);
}

/* Runs of one cluster serve a long write, where nothing else is left. */
static void crumbs_are_room(void **state)
{
    struct zqcow2_create_options c = ZQCOW2_CREATE_OPTIONS_INIT;
    struct host *h = new_host();
    struct zqcow2_image *img;
    uint64_t at = 0;

    (void)state;
    c.cluster_size = 4096;
    c.virtual_size = MiB(8);
    img = host_image(h, &c);
    h->longest = MiB(2);
    fill_up(img, &at, 4096);
    assert_in_range(at, MiB(1), MiB(2));
    for (uint64_t i = 0; i < MiB(1); i += 8192)
        assert_int_equal(zqcow2_discard(img, 4096, i, 0), 0);
    assert_int_equal(zqcow2_flush(img), 0);
    assert_int_equal(zqcow2_write(img, buf, KiB(256), MiB(1) + KiB(768), 0), 0);
    assert_int_equal(h->store.length, MiB(2));
    assert_int_equal(zqcow2_close(img), 0);
    check_host(h);
    free_host(h);
}

/* ---- growth of the refcount table ---- */

static void growth_fails_alone(void **state)
{
    unsigned struck = 0;

    (void)state;
    for (unsigned spare = 0; spare < 24; spare++) {
        struct zqcow2_create_options c = ZQCOW2_CREATE_OPTIONS_INIT;
        struct host *h = new_host();
        struct zqcow2_image *img;
        uint64_t at = 0;
        int rc = 0;

        c.cluster_size = 512; /* the first table describes 2 MiB */
        c.refcount_bits = 64;
        c.virtual_size = c.zone_size = MiB(4);
        img = host_image(h, &c);
        for (; at < MiB(2) - 160 * 1024; at += 8192)
            assert_int_equal(zqcow2_write(img, buf, 8192, at, 0), 0);
        h->left = spare;
        for (; rc == 0 && at < MiB(3); at += rc == 0 ? 8192 : 0)
            rc = zqcow2_write(img, buf, 8192, at, 0);
        assert_int_equal(rc, -ENOSPC);
        assert_false(is_dead(img));
        assert_int_equal(zqcow2_flush(img), 0);
        h->left = BLOCKS;
        struck++;
        for (; at < MiB(3); at += 8192)
            assert_int_equal(zqcow2_write(img, buf, 8192, at, 0), 0);
        assert_int_equal(zqcow2_close(img), 0);
        check_host(h);
        free_host(h);
    }
    printf("growth without space: %u points, each failed alone\n", struck);
}

/* ---- a write beside a discard ---- */

static void note(void *arg, const struct zqcow2_result *r)
{
    *(int *)arg = r->ret;
}

static struct zqcow2_simdisk *two_clusters(uint64_t seed, uint64_t room, struct zqcow2_image **img)
{
    struct zqcow2_simdisk_options s = ZQCOW2_SIMDISK_OPTIONS_INIT;
    struct zqcow2_create_options c = ZQCOW2_CREATE_OPTIONS_INIT;
    struct zqcow2_open_options o = ZQCOW2_OPEN_OPTIONS_INIT;
    struct zqcow2_simdisk *disk;
    struct zqcow2_backend *be;

    s.seed = seed;
    s.max_length = room;
    s.flags = ZQCOW2_SIMDISK_ASYNC;
    c.virtual_size = MiB(1);
    c.cluster_size = 4096;
    o.flags = ZQCOW2_OPEN_RDWR;
    assert_int_equal(zqcow2_simdisk_new(&s, &disk), 0);
    assert_int_equal(zqcow2_simdisk_backend(disk, &be), 0);
    assert_int_equal(zqcow2_create(be, &c, NULL), 0);
    assert_int_equal(zqcow2_open(be, &o, img, NULL), 0);
    memset(buf, 1, 8192);
    assert_int_equal(zqcow2_write(*img, buf, 4096, 4096, 0), 0);
    assert_int_equal(zqcow2_write(*img, buf, 4096, 0, ZQCOW2_FUA), 0);
    return disk;
}

/* The write's second cluster is taken from under it; there is no space for another. */
static int race(uint64_t seed, uint64_t room)
{
    struct zqcow2_image *img;
    struct zqcow2_simdisk *disk = two_clusters(seed, room, &img);
    uint8_t *data = memset(buf + 65536, 2, 8192);
    struct iovec v = {data, 8192};
    int write = 99, discard = 99;
    struct zqcow2_request r[2] = {
        {sizeof(r[0]), ZQCOW2_OP_WRITE, 0, 0, 0, &v, 1, 0, note, &write},
        {sizeof(r[0]), ZQCOW2_OP_DISCARD, 0, 4096, 4096, NULL, 0, 0, note, &discard}};
    struct zqcow2_queue *q;

    assert_int_equal(zqcow2_queue_open(img, 4, &q), 0);
    assert_int_equal(zqcow2_queue_submit(q, r, 2), 2);
    while (zqcow2_queue_pending(q))
        assert_true(zqcow2_queue_wait(q, 1, 10000) > 0);
    assert_int_equal(zqcow2_queue_close(q), 0);
    assert_int_equal(discard, 0);
    assert_int_equal(zqcow2_read(img, got, 8192, 0), 0);
    if (write == 0 ? memcmp(got, data, 4096) != 0 : memcmp(got, buf, 4096) != 0)
        fail_msg("seed %llu: the write returned %d and was done in part", (unsigned long long)seed,
                 write);
    assert_int_equal(zqcow2_close(img), 0);
    zqcow2_simdisk_free(disk);
    return write;
}

static void beside_a_discard(void **state)
{
    struct zqcow2_image *img;
    struct zqcow2_simdisk *disk = two_clusters(1, 0, &img);
    uint64_t room = zqcow2_simdisk_length(disk);

    (void)state;
    assert_int_equal(zqcow2_close(img), 0);
    zqcow2_simdisk_free(disk);
    for (uint64_t seed = 0; seed < 50; seed++)
        race(seed, room);
}

/* ---- rounds that stop ---- */

static const struct geometry zoned = {
    .name = "zoned", .size = KiB(512), .zone_size = KiB(64), .conventional = 1, .cluster = 4096};

static void expect_all(struct rig *r)
{
    assert_true(rig_holds(r, 1024, KiB(8), 1024, 1));
    assert_true(rig_holds(r, KiB(64), KiB(12), KiB(64), 2));
    assert_true(rig_holds(r, KiB(192), KiB(4), KiB(192), 3));
    assert_true(rig_zeros(r, KiB(128), KiB(64)));
}

/* True if the n-th call that takes space in the flush was met. */
static bool one_stop(unsigned n, bool for_ever)
{
    struct store kept;
    bool struck;
    struct rig r;
    int rc;

    rig_begin(&r, &zoned);
    assert_int_equal(rig_write(&r, KiB(128), KiB(20), 9), 0);
    assert_int_equal(zqcow2_flush(r.img), 0);
    assert_int_equal(rig_manage(&r, ZQCOW2_OP_ZONE_RESET, KiB(128), KiB(64), NULL), 0);
    assert_int_equal(rig_write(&r, 1024, KiB(8), 1), 0);
    assert_int_equal(rig_write(&r, KiB(64), KiB(12), 2), 0);
    assert_int_equal(rig_write(&r, KiB(192), KiB(4), 3), 0);
    fault_plan(&r.fault, FAULT_ENOSPC, n, for_ever);
    rc = zqcow2_flush(r.img);
    struck = r.fault.failed;
    assert_int_equal(rc, r.fault.failed_flushes ? -EIO : struck ? -ENOSPC : 0);
    if (r.fault.failed_flushes) { /* a failed barrier is another matter (I12) */
        assert_true(is_dead(r.img));
    } else {
        assert_false(is_dead(r.img));
        expect_all(&r);
        fault_plan(&r.fault, FAULT_NONE, 0, false);
        assert_int_equal(zqcow2_flush(r.img), 0);
        store_init(&kept); /* and then it is not even closed */
        store_copy(&kept, &r.store);
        assert_int_equal(rig_close(&r), 0);
        store_copy(&r.store, &kept);
        store_free(&kept);
        assert_int_equal(rig_open(&r, true), 0);
        expect_all(&r);
    }
    fault_plan(&r.fault, FAULT_NONE, 0, false);
    rig_close(&r);
    assert_null(rig_free(&r));
    return struck;
}

static void a_round_stops(void **state)
{
    unsigned points = 0;

    (void)state;
    for (unsigned k = 0; k < 2; k++) {
        for (unsigned n = 1; one_stop(n, k); n++)
            points++;
    }
    assert_true(points > 8);
    printf("rounds without space: %u points, nothing lost\n", points);
}

/* The close says so, leaves the mark, and what was flushed is there; leaks are taken back. */
static void a_close_stops(void **state)
{
    struct rig r;

    (void)state;
    rig_begin(&r, &zoned);
    assert_int_equal(rig_write(&r, KiB(64), KiB(12), 2), 0);
    assert_int_equal(zqcow2_flush(r.img), 0);
    assert_int_equal(rig_write(&r, KiB(128), KiB(12), 3), 0);
    fault_plan(&r.fault, FAULT_ENOSPC, 1, true);
    assert_int_equal(rig_close(&r), -ENOSPC);
    fault_plan(&r.fault, FAULT_NONE, 0, false);
    assert_int_equal(rig_open(&r, false), 0);
    assert_true(rig_info(&r).flags & ZQCOW2_INFO_DIRTY);
    assert_int_equal(rig_close(&r), 0);
    assert_int_equal(rig_open(&r, true), 0);
    assert_true(rig_holds(&r, KiB(64), KiB(12), KiB(64), 2));
    assert_int_equal(rig_close(&r), 0);
    assert_int_equal(rig_check(&r, 0), 0);
    assert_int_equal(r.check.corruptions + r.check.leaked_clusters, 0);
    assert_null(rig_free(&r));
}

/*
 * Growing takes room for L1. Shrinking takes it only for L2 tables that a snapshot has, too: what
 * it then cannot unmap stays behind the end of the device, and is zeros when that grows.
 */
static void a_resize_ends(void **state)
{
    struct zqcow2_create_options c = ZQCOW2_CREATE_OPTIONS_INIT;
    struct zqcow2_snapshot s = ZQCOW2_SNAPSHOT_INIT;
    struct host *h = new_host();
    struct zqcow2_image *img;
    uint64_t at = MiB(1);

    (void)state;
    c.cluster_size = 512;
    c.virtual_size = MiB(2);
    img = host_image(h, &c);
    memset(buf, 0x5a, MiB(1));
    assert_int_equal(zqcow2_write(img, buf, MiB(1), 0, 0), 0);
    s.name = "shares the tables";
    assert_int_equal(zqcow2_snapshot_take(img, &s, NULL), 0);
    h->longest = h->store.length;
    fill_up(img, &at, 512);
    assert_int_equal(zqcow2_resize(img, MiB(64), 0, NULL), -EFBIG);
    assert_int_equal(zqcow2_resize(img, KiB(7), ZQCOW2_RESIZE_SHRINK, NULL), 0);
    assert_in_range(h->refusals, 2, 99);
    printf("resize: the full host refused %u lengths\n", h->refusals);
    h->longest = 0;
    assert_int_equal(zqcow2_resize(img, MiB(1), 0, NULL), 0);
    assert_int_equal(zqcow2_read(img, got, MiB(1), 0), 0);
    memset(buf + KiB(7), 0, MiB(1) - KiB(7));
    assert_memory_equal(got, buf, MiB(1));
    assert_int_equal(zqcow2_close(img), 0);
    check_host(h);
    free_host(h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_longest_file_is_used),
        cmocka_unit_test(wishes_fail_nobody),
        cmocka_unit_test(crumbs_are_room),
        cmocka_unit_test(a_flush_needs_no_space),
        cmocka_unit_test(growth_fails_alone),
        cmocka_unit_test(beside_a_discard),
        cmocka_unit_test(a_round_stops),
        cmocka_unit_test(a_close_stops),
        cmocka_unit_test(a_resize_ends),
    };

    return cmocka_run_group_tests_name("nospace", tests, NULL, NULL);
}
