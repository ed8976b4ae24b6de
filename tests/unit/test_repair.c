/* SPDX-License-Identifier: MIT */
/* Repair: each fault mended, twice, interrupted at every call, with memory failing; never worse. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "unit/pic.h"

#define MiB(n) ((uint64_t)(n) << 20)
#define KiB(n) ((uint64_t)(n) << 10)

#define LEAKS  ZQCOW2_CHECK_REPAIR_LEAKS
#define REPAIR ZQCOW2_CHECK_REPAIR
#define ALL    ZQCOW2_CHECK_REPAIR_ALL

/* 16 zones of 64 KiB, 2 conventional; data in zones 0, 3 and 5. */
static void make(struct pic *p, uint32_t cluster, uint32_t bits)
{
    struct zqcow2_create_options o = ZQCOW2_CREATE_OPTIONS_INIT;

    o.virtual_size = MiB(1);
    o.zone_size = KiB(64);
    o.conventional_zones = 2;
    o.cluster_size = cluster;
    o.refcount_bits = bits;
    pic_make(p, &o);
    pic_map(p, 0, 0xa0);
    pic_map(p, KiB(192), 0xa3);
    pic_put(p, p->wp + 3 * 8, 8, KiB(192) + 512);
    pic_map(p, KiB(320), 0xa5);
    pic_put(p, p->wp + 5 * 8, 8, KiB(384));
}

/* ---- faults ---- */

static void leak(struct pic *p)
{
    pic_alloc(p, 5);
}

static void count_too_high(struct pic *p)
{
    pic_set_refcount(p, pic_get(p, p->l1, 8) & ~PIC_COPIED, 3);
}

static void count_zero(struct pic *p)
{
    pic_set_refcount(p, pic_map(p, KiB(4), 7), 0);
    pic_set_refcount(p, p->wp, 0);
    pic_set_refcount(p, 0, 0);
}

static void all_zero(struct pic *p)
{
    pic_zero(p, pic_get(p, p->rt, 8), p->cluster);
}

static void no_copied(struct pic *p)
{
    uint64_t at = pic_l2(p, 0);

    pic_put(p, at, 8, pic_get(p, at, 8) & ~PIC_COPIED);
    pic_put(p, p->l1, 8, pic_get(p, p->l1, 8) & ~PIC_COPIED);
}

static void shared(struct pic *p)
{
    uint64_t host = pic_map(p, KiB(4), 7);

    pic_put(p, pic_l2(p, KiB(8)), 8, host | PIC_COPIED);
    pic_put(p, pic_l2(p, KiB(12)), 8, host);
}

static void block_missing(struct pic *p)
{
    pic_put(p, p->rt, 8, 0);
}

static void block_twice(struct pic *p)
{
    pic_put(p, p->rt + 8, 8, pic_get(p, p->rt, 8));
}

static void block_nowhere(struct pic *p)
{
    pic_put(p, p->rt, 8, MiB(900));
}

static void block_on_l1(struct pic *p)
{
    pic_put(p, p->rt, 8, p->l1);
}

static void block_on_data(struct pic *p)
{
    pic_put(p, p->rt + 8, 8, pic_get(p, pic_l2(p, KiB(320)), 8) & ~PIC_COPIED);
}

static void block_on_l2(struct pic *p)
{
    pic_put(p, p->rt + 8, 8, pic_get(p, p->l1, 8) & ~PIC_COPIED);
}

static void beyond_file(struct pic *p)
{
    pic_set_refcount(p, MiB(1), 1);
}

static void snapshot_half_deleted(struct pic *p)
{
    pic_snapshot(p);
    pic_put(p, 60, 4, 0);
}

static void dirty(struct pic *p)
{
    pic_put(p, 72, 8, 0x23); /* and corrupt */
    pic_put(p, p->mark, 1, 1);
}

static void data_on_wp(struct pic *p)
{
    pic_put(p, pic_l2(p, KiB(4)), 8, p->wp | PIC_COPIED);
}

static void data_nowhere(struct pic *p)
{
    pic_put(p, pic_l2(p, KiB(4)), 8, MiB(900) | PIC_COPIED);
    pic_put(p, pic_l2(p, KiB(8)), 8, 0x100 | PIC_COPIED);
    pic_put(p, p->l1 + 8, 8, 0x200);
}

static void l2_on_l1(struct pic *p)
{
    pic_put(p, p->l1, 8, p->l1 | PIC_COPIED);
}

static void wp_lost(struct pic *p)
{
    pic_put(p, p->wp + 3 * 8, 8, 12345);
    pic_put(p, p->wp + 8, 8, 0);
    pic_put(p, p->wp + 15 * 8, 8, UINT64_MAX);
    pic_map(p, KiB(192) + 2 * p->cluster, 9);
}

static void compressed_ahead(struct pic *p)
{
    pic_put(p, pic_l2(p, KiB(256)), 8, PIC_COMPRESSED | pic_alloc(p, 1));
}

static const struct fault {
    const char *name;
    void (*make)(struct pic *p);
    unsigned flags; /* the least that mends it */
    bool raise;     /* refcounts were too low: until it is mended, so may they be */
} faults[] = {
    {"none", NULL, LEAKS, false},
    {"leak", leak, LEAKS, false},
    {"count too high", count_too_high, REPAIR, false},
    {"count zero", count_zero, REPAIR, true},
    {"all zero", all_zero, REPAIR, true},
    {"no COPIED", no_copied, REPAIR, false},
    {"shared", shared, REPAIR, true},
    {"block missing", block_missing, REPAIR, true},
    {"block twice", block_twice, REPAIR, true},
    {"block nowhere", block_nowhere, REPAIR, true},
    {"block on L1", block_on_l1, REPAIR, true},
    {"block on data", block_on_data, REPAIR, true},
    {"block on L2", block_on_l2, REPAIR, true},
    {"beyond file", beyond_file, LEAKS, false},
    {"snapshot half deleted", snapshot_half_deleted, LEAKS, false},
    {"dirty", dirty, LEAKS, false},
    {"data on write pointers", data_on_wp, ALL, true},
    {"data nowhere", data_nowhere, ALL, false},
    {"L2 on L1", l2_on_l1, ALL, true},
    {"write pointers lost", wp_lost, ALL, false},
    {"compressed ahead", compressed_ahead, ALL, false},
};
#define NR_FAULTS (sizeof(faults) / sizeof(faults[0]))

static void expect_clean(struct pic *p, const char *name, uint32_t cluster, uint32_t bits)
{
    /* where the only way to the data was lost, zone 3 reads as zeros, and check says so */
    uint64_t warnings = !strcmp(name, "L2 on L1");

    if (pic_check(p, 0) != 0 || p->res.corruptions || p->res.leaked_clusters ||
        p->res.warnings != warnings)
        fail_msg("%s, cluster_size %u, refcount_bits %u: not clean: %s%s", name, cluster, bits,
                 p->err.text, p->found);
}

static void expect_unchanged(struct pic *p, const char *name, unsigned flags)
{
    uint64_t before, after;
    uint8_t *a = pic_bytes(p, &before), *b;

    assert_int_equal(pic_check(p, flags), 0);
    b = pic_bytes(p, &after);
    if (before != after || memcmp(a, b, before) || strstr(p->found, "repaired"))
        fail_msg("%s: a second repair changes something: %s", name, p->found);
    free(a);
    free(b);
}

/* With less than it needs, a repair leaves a fault that is still the same one to a full repair. */
static void mend(const struct fault *f, uint32_t cluster, uint32_t bits, unsigned first)
{
    struct pic p;
    uint64_t found;

    make(&p, cluster, bits);
    if (f->make)
        f->make(&p);
    assert_int_equal(pic_check(&p, 0), 0);
    found = p.res.corruptions + p.res.leaked_clusters + p.res.warnings;
    assert_true(!found == !f->make);
    if (pic_check(&p, first) != 0)
        fail_msg("%s: %s", f->name, p.err.text);
    pic_find(&p);
    if (first < f->flags)
        assert_int_equal(pic_check(&p, f->flags), 0);
    if (p.res.corruptions != p.res.corruptions_fixed || p.res.leaked_clusters != p.res.leaks_fixed)
        fail_msg("%s, cluster_size %u, refcount_bits %u: %d of %d, %d of %d mended: %s", f->name,
                 cluster, bits, (int)p.res.corruptions_fixed, (int)p.res.corruptions,
                 (int)p.res.leaks_fixed, (int)p.res.leaked_clusters, p.found);
    expect_clean(&p, f->name, cluster, bits);
    expect_unchanged(&p, f->name, ALL);
    assert_int_equal(pic_get(&p, 72, 8), 0x20);
    assert_int_equal(pic_get(&p, p.mark, 1), 0);
    pic_free(&p);
}

static void test_every_fault(void **state)
{
    static const unsigned flags[] = {LEAKS, REPAIR, ALL};

    (void)state;
    for (size_t i = 0; i < NR_FAULTS; i++) {
        for (uint32_t cluster = 4096; cluster <= 16384; cluster *= 4) {
            for (uint32_t bits = 2; bits <= 64; bits *= 2) {
                for (int k = 0; k < 3; k++)
                    mend(&faults[i], cluster, bits, flags[k]);
            }
        }
    }
}

/* ---- what a repair does ---- */

static void test_data_stays(void **state)
{
    (void)state;
    for (size_t i = 0; i < NR_FAULTS; i++) {
        uint64_t entry, data;
        struct pic p;

        make(&p, 4096, 16);
        entry = pic_get(&p, pic_l2(&p, KiB(320)), 8) & ~PIC_COPIED;
        if (faults[i].make)
            faults[i].make(&p);
        assert_int_equal(pic_check(&p, faults[i].flags), 0);
        pic_find(&p);
        if (faults[i].make == l2_on_l1) { /* the only way to the data was lost */
            assert_int_equal(pic_get(&p, p.l1, 8), 0);
        } else {
            assert_int_equal(pic_get(&p, pic_l2(&p, KiB(320)), 8), entry | PIC_COPIED);
            data = pic_get(&p, entry, 8);
            assert_int_equal(data, 0xa5a5a5a5a5a5a5a5);
        }
        assert_int_equal(pic_get(&p, p.wp + 5 * 8, 8), KiB(384));
        pic_free(&p);
    }
}

static void test_write_pointers_mended(void **state)
{
    struct pic p;

    (void)state;
    make(&p, 4096, 16);
    wp_lost(&p);
    assert_int_equal(pic_check(&p, REPAIR), 0); /* not asked to */
    assert_int_equal(pic_get(&p, p.wp + 3 * 8, 8), 12345);
    assert_int_equal(p.res.corruptions_fixed, 0);
    assert_int_equal(pic_check(&p, ALL), 0);
    assert_non_null(strstr(p.found, "repaired: 3 write pointers mended"));
    assert_int_equal(pic_get(&p, p.wp + 3 * 8, 8), KiB(192) + 3 * 4096);
    assert_int_equal(pic_get(&p, p.wp + 8, 8), KiB(64) | 1ull << 63);
    assert_int_equal(pic_get(&p, p.wp + 15 * 8, 8), KiB(960));
    pic_free(&p);
}

static void test_unmap_beyond_write_pointers(void **state)
{
    struct pic p;
    uint64_t host;

    (void)state;
    make(&p, 4096, 16);
    host = pic_map(&p, KiB(196), 1);
    pic_map(&p, KiB(700), 1);
    assert_int_equal(pic_check(&p, REPAIR), 0);
    assert_int_equal(pic_get(&p, pic_l2(&p, KiB(196)), 8), host | PIC_COPIED);
    assert_int_equal(pic_check(&p, ALL), 0);
    assert_non_null(strstr(p.found, "repaired: 2 clusters beyond write pointers unmapped"));
    assert_int_equal(pic_get(&p, pic_l2(&p, KiB(196)), 8), 0);
    assert_int_equal(pic_get(&p, pic_l2(&p, KiB(700)), 8), 0);
    assert_int_equal(pic_refcount(&p, host), 0);
    assert_int_not_equal(pic_get(&p, pic_l2(&p, KiB(192)), 8), 0); /* holds the write pointer */
    expect_clean(&p, "unmapped", 4096, 16);
    pic_free(&p);
}

/* A count that the width cannot hold is not cut off. */
static void test_width_too_narrow(void **state)
{
    struct pic p;

    (void)state;
    make(&p, 4096, 1);
    shared(&p);
    assert_int_equal(pic_check(&p, ALL), 0);
    assert_int_equal(p.res.corruptions_fixed, 0);
    assert_int_equal(pic_check(&p, 0), 0);
    assert_non_null(strstr(p.found, "refcount 1, references 3"));
    expect_unchanged(&p, "narrow", ALL);
    pic_free(&p);
}

/* A broken entry may hide who owns a cluster: nothing is freed while it is there. */
static void test_hidden_references(void **state)
{
    struct pic p;

    (void)state;
    make(&p, 4096, 16);
    pic_put(&p, p.l1, 8, pic_get(&p, p.l1, 8) | 1ull << 60);
    assert_int_equal(pic_check(&p, REPAIR), 0);
    assert_true(p.res.leaked_clusters > 3);
    assert_int_equal(p.res.leaks_fixed, 0);
    pic_put(&p, p.l1, 8, pic_get(&p, p.l1, 8) & ~(1ull << 60));
    expect_clean(&p, "hidden", 4096, 16);
    pic_free(&p);
}

static void test_unknown_owners(void **state)
{
    struct pic p;

    (void)state;
    make(&p, 4096, 16);
    leak(&p);
    pic_put(&p, 112, 4, 0x12345678);
    assert_int_equal(pic_check(&p, ALL), 0);
    assert_int_equal(p.res.leaked_clusters, 5);
    assert_int_equal(p.res.leaks_fixed, 0);
    pic_put(&p, 112, 4, 0x7a71326d);
    pic_put(&p, 88, 8, 0x80);
    assert_int_equal(pic_check(&p, ALL), 0);
    assert_int_equal(p.res.leaks_fixed, 0);
    assert_int_equal(pic_get(&p, 88, 8), 0); /* the format asks for it before a write */
    pic_free(&p);
}

static void test_marks_stay_while_corrupt(void **state)
{
    struct pic p;

    (void)state;
    make(&p, 4096, 16);
    dirty(&p);
    data_nowhere(&p);
    assert_int_equal(pic_check(&p, REPAIR), 0);
    assert_int_equal(pic_get(&p, 72, 8), 0x23);
    assert_int_equal(pic_get(&p, p.mark, 1), 1);
    assert_int_equal(pic_check(&p, ALL), 0);
    assert_int_equal(pic_get(&p, 72, 8), 0x20);
    pic_free(&p);
}

/* Version 2 has no features to clear: what lies there is left alone. */
static void test_version2(void **state)
{
    struct pic p;

    (void)state;
    make(&p, 4096, 16);
    pic_put(&p, 4, 4, 2);
    pic_zero(&p, 72, 1024);
    pic_find(&p);
    leak(&p);
    assert_int_equal(pic_check(&p, ALL), 0);
    assert_int_equal(p.res.leaks_fixed, 6); /* the write-pointer table is none of version 2 */
    expect_clean(&p, "version 2", 4096, 16);
    pic_free(&p);
}

/* ---- interrupted ---- */

/* A file in memory that knows what a flush has made safe, and can fail. */
struct disk {
    uint8_t *now, *safe;
    uint64_t length, safe_length, room;
    int calls, fail_at;
    bool changed;
};

static int disk_call(struct disk *d)
{
    return ++d->calls >= d->fail_at && d->fail_at ? -EIO : 0;
}

static int disk_length(void *self, uint64_t *bytes)
{
    *bytes = ((struct disk *)self)->length;
    return disk_call(self);
}

static int disk_readv(void *self, const struct iovec *iov, int cnt, uint64_t off)
{
    struct disk *d = self;

    for (int i = 0; i < cnt; off += iov[i++].iov_len) {
        uint64_t n = off < d->length ? d->length - off : 0;

        n = n < iov[i].iov_len ? n : iov[i].iov_len;
        memset(iov[i].iov_base, 0, iov[i].iov_len);
        if (n)
            memcpy(iov[i].iov_base, d->now + off, n);
    }
    return disk_call(d);
}

static int disk_writev(void *self, const struct iovec *iov, int cnt, uint64_t off)
{
    struct disk *d = self;

    if (disk_call(d) < 0)
        return -EIO;
    d->changed = true;
    for (int i = 0; i < cnt; off += iov[i++].iov_len) {
        assert_true(off + iov[i].iov_len <= d->room);
        memcpy(d->now + off, iov[i].iov_base, iov[i].iov_len);
        d->length = off + iov[i].iov_len > d->length ? off + iov[i].iov_len : d->length;
    }
    return 0;
}

static int disk_truncate(void *self, uint64_t bytes)
{
    struct disk *d = self;

    if (disk_call(d) < 0)
        return -EIO;
    assert_true(bytes <= d->room);
    d->length = bytes;
    return 0;
}

static int disk_flush(void *self)
{
    struct disk *d = self;

    if (disk_call(d) < 0)
        return -EIO;
    memcpy(d->safe, d->now, d->room);
    d->safe_length = d->length;
    return 0;
}

static const struct zqcow2_backend_ops disk_ops = {.size = sizeof(disk_ops),
                                                   .name = "disk",
                                                   .length = disk_length,
                                                   .readv = disk_readv,
                                                   .writev = disk_writev,
                                                   .flush = disk_flush,
                                                   .truncate = disk_truncate};

static void disk_from(struct disk *d, struct pic *p)
{
    uint8_t *b = pic_bytes(p, &d->length);

    d->room = d->safe_length = d->length;
    d->room += MiB(1);
    d->now = calloc(1, d->room);
    d->safe = calloc(1, d->room);
    assert_true(d->now && d->safe);
    memcpy(d->now, b, d->length);
    memcpy(d->safe, b, d->length);
    free(b);
}

static int disk_check(struct disk *d, unsigned flags, const struct zqcow2_hooks *hooks,
                      struct zqcow2_error *err)
{
    struct zqcow2_check_options o = ZQCOW2_CHECK_OPTIONS_INIT;
    struct zqcow2_check_result res = ZQCOW2_CHECK_RESULT_INIT;
    struct zqcow2_backend *be;
    int rc;

    o.flags = flags;
    o.hooks = hooks;
    assert_int_equal(zqcow2_backend_new(&disk_ops, d, NULL, &be), 0);
    rc = zqcow2_check(be, &o, &res, err);
    zqcow2_backend_close(be);
    return rc;
}

/* What is left after a stop: all that was written, or only what was flushed. */
static void after_stop(const struct fault *f, int call, const uint8_t *data, uint64_t length,
                       const char *which)
{
    struct pic p = {0};

    assert_int_equal(zqcow2_mem_open(length, NULL, &p.be), 0);
    assert_int_equal(zqcow2_backend_write(p.be, data, length, 0), 0);
    pic_find(&p);
    assert_int_equal(pic_check(&p, 0), 0);
    /* raising first and lowering last: what was counted right never gets too low */
    if (!f->raise && strstr(p.found, "too low"))
        fail_msg("%s, stopped at call %d, %s: %s", f->name, call, which, p.found);
    assert_int_equal(pic_check(&p, f->flags), 0);
    if (pic_check(&p, 0) != 0 || p.res.corruptions || p.res.leaked_clusters)
        fail_msg("%s, stopped at call %d, %s: not mended: %s", f->name, call, which, p.found);
    pic_free(&p);
}

static void test_every_call_fails(void **state)
{
    int stops = 0;

    (void)state;
    for (size_t i = 1; i < NR_FAULTS; i++) {
        int rc = -1;

        for (int n = 1; rc; n++, stops++) {
            struct zqcow2_error err = {0};
            struct disk d = {.fail_at = n};
            struct pic p;

            make(&p, 4096, 16);
            faults[i].make(&p);
            disk_from(&d, &p);
            pic_free(&p);
            rc = disk_check(&d, faults[i].flags, NULL, &err);
            if (rc && (rc != -EIO || err.code != -EIO))
                fail_msg("%s, call %d fails: %d \"%s\"", faults[i].name, n, rc, err.text);
            if (d.changed) {
                after_stop(&faults[i], n, d.now, d.length, "everything written");
                after_stop(&faults[i], n, d.safe, d.safe_length, "only what was flushed");
            }
            free(d.now);
            free(d.safe);
        }
    }
    printf("stopped at %d calls\n", stops);
}

/* ---- no memory, no permission ---- */

struct heap {
    int64_t out;
    int left;
};

static void *heap_alloc(void *ctx, size_t align, size_t size)
{
    struct heap *h = ctx;
    void *p = NULL;

    if (h->left-- == 0 || posix_memalign(&p, align < 16 ? 16 : align, size))
        return NULL;
    h->out += (int64_t)size;
    return p;
}

static void heap_free(void *ctx, void *p, size_t size)
{
    ((struct heap *)ctx)->out -= (int64_t)size;
    free(p);
}

static void test_no_memory(void **state)
{
    (void)state;
    for (size_t i = 0; i < NR_FAULTS; i++) {
        int rc = -1;

        for (int n = 0; rc; n++) {
            struct heap heap = {0, n};
            struct zqcow2_hooks h = {sizeof(h), &heap, heap_alloc, heap_free, NULL, 0, 0};
            struct zqcow2_error err = {0};
            struct disk d = {0};
            struct pic p;

            make(&p, 4096, 16);
            if (faults[i].make)
                faults[i].make(&p);
            disk_from(&d, &p);
            pic_free(&p);
            rc = disk_check(&d, faults[i].flags, &h, &err);
            if (heap.out || (rc && (rc != -ENOMEM || err.code != rc)))
                fail_msg("%s, allocation %d fails: %d \"%s\", %lld bytes left", faults[i].name, n,
                         rc, err.text, (long long)heap.out);
            free(d.now);
            free(d.safe);
        }
    }
}

static int no_write(void *self, uint64_t bytes)
{
    (void)self;
    (void)bytes;
    return -EROFS;
}

static void test_read_only(void **state)
{
    struct zqcow2_backend_ops ops = disk_ops;
    struct zqcow2_check_options o = ZQCOW2_CHECK_OPTIONS_INIT;
    struct zqcow2_check_result res = ZQCOW2_CHECK_RESULT_INIT;
    struct zqcow2_error err;
    struct zqcow2_backend *be;
    struct disk d = {0};
    struct pic p;

    (void)state;
    make(&p, 4096, 16);
    leak(&p);
    disk_from(&d, &p);
    pic_free(&p);
    ops.writev = NULL;
    ops.truncate = no_write;
    assert_int_equal(zqcow2_backend_new(&ops, &d, NULL, &be), 0);
    assert_int_equal(zqcow2_check(be, &o, &res, &err), 0);
    assert_int_equal(res.leaked_clusters, 5);
    o.flags = LEAKS;
    assert_int_equal(zqcow2_check(be, &o, &res, &err), -EROFS);
    zqcow2_backend_close(be);
    free(d.now);
    free(d.safe);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_fault),
        cmocka_unit_test(test_data_stays),
        cmocka_unit_test(test_write_pointers_mended),
        cmocka_unit_test(test_unmap_beyond_write_pointers),
        cmocka_unit_test(test_width_too_narrow),
        cmocka_unit_test(test_hidden_references),
        cmocka_unit_test(test_unknown_owners),
        cmocka_unit_test(test_marks_stay_while_corrupt),
        cmocka_unit_test(test_version2),
        cmocka_unit_test(test_every_call_fails),
        cmocka_unit_test(test_no_memory),
        cmocka_unit_test(test_read_only),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
