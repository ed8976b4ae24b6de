/* SPDX-License-Identifier: MIT */
/* Repair interrupted at every call and every allocation: what is left is never worse, and repaired.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "unit/faults.h"

/* A file in memory that knows what a flush has made safe, and can fail. */
struct disk {
    uint8_t *now, *safe;
    uint64_t length, safe_length, room;
    int calls, fail_at;
    bool changed;
    uint64_t last_off, last_len; /* of the last write that was not flushed */
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
    d->last_off = off;
    d->last_len = 0;
    for (int i = 0; i < cnt; i++)
        d->last_len += iov[i].iov_len;
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
    d->last_len = 0;
    return 0;
}

/* Of all that was not flushed, the last write alone reached the disk. */
static void disk_keep_last(struct disk *d)
{
    memcpy(d->safe + d->last_off, d->now + d->last_off, d->last_len);
    if (d->last_len && d->last_off + d->last_len > d->safe_length)
        d->safe_length = d->last_off + d->last_len;
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

struct before {
    uint64_t leaks;
    int worse;
};

/* Corruptions, except for flags, which go with a refcount and are set right beside it. */
static int worse(const char *found)
{
    int n = 0;

    for (const char *line = found; (line = strstr(line, "corruption: ")); line += 12) {
        const char *end = strchr(line, '\n'), *copied = strstr(line, "COPIED is");

        n += !copied || !end || copied > end;
    }
    return n;
}

/* What is left after a stop: all that was written, or only what was flushed. */
static void after_stop(const struct fault *f, int call, const uint8_t *data, uint64_t length,
                       const struct before *old, const char *which)
{
    struct pic p = {0};

    assert_int_equal(zqcow2_mem_open(length, NULL, &p.be), 0);
    assert_int_equal(zqcow2_backend_write(p.be, data, length, 0), 0);
    pic_find(&p);
    assert_int_equal(pic_check(&p, 0), 0);
    /* raising first and lowering last: what was counted right never gets too low */
    if (!f->raise && (strstr(p.found, "too low") || worse(p.found) > old->worse))
        fail_msg("%s, stopped at call %d, %s: %s", f->name, call, which, p.found);
    assert_int_equal(pic_check(&p, f->flags), 0);
    if (pic_check(&p, 0) != 0 || p.res.corruptions || p.res.leaked_clusters)
        fail_msg("%s, stopped at call %d, %s: not repaired: %s", f->name, call, which, p.found);
    pic_free(&p);
}

/*
 * Where nothing but leaks is left, the next writable open takes them back: the mark was set before
 * anything else. Without an extension for it they stay for check, and are nothing worse.
 */
static void after_stop_open(const struct fault *f, int call, const uint8_t *data, uint64_t length,
                            uint64_t leaks, const char *which)
{
    struct pic p = {0};

    assert_int_equal(zqcow2_mem_open(length, NULL, &p.be), 0);
    assert_int_equal(zqcow2_backend_write(p.be, data, length, 0), 0);
    pic_find(&p);
    assert_int_equal(pic_check(&p, 0), 0);
    if (p.res.corruptions || pic_get(&p, 72, 8) & 2) { /* is refused, until it is repaired */
        pic_free(&p);
        return;
    }
    if (!p.mark)
        assert_int_equal(pic_check(&p, LEAKS), 0);
    if (!p.mark || pic_get(&p, p.mark, 1))
        leaks = 0; /* else the repair had not begun */
    if (pic_open(&p, ZQCOW2_OPEN_RDWR) != 0)
        fail_msg("%s, stopped at call %d, %s: %s", f->name, call, which, p.err.text);
    if (pic_check(&p, 0) != 0 || p.res.corruptions || p.res.leaked_clusters > leaks)
        fail_msg("%s, stopped at call %d, %s: opened and closed, then: %s", f->name, call, which,
                 p.found);
    pic_free(&p);
}

/* Takes our extension out of the list, as if others had made the image. */
static void drop_mark(struct pic *p)
{
    for (uint64_t at = p->mark - 8; at < 1024; at += 8)
        pic_put(p, at, 8, pic_get(p, at + 16, 8));
    pic_find(p);
    assert_int_equal(p->mark, 0);
}

static void after_every_stop(const struct fault *f, int n, const uint8_t *data, uint64_t length,
                             const struct before *old, const char *which)
{
    after_stop(f, n, data, length, old, which);
    after_stop_open(f, n, data, length, old->leaks, which);
}

static int stop_at(const struct fault *f, int n, bool marked)
{
    struct zqcow2_error err = {0};
    struct disk d = {.fail_at = n};
    struct before old;
    struct pic p;
    int rc;

    fault_image(&p, 4096, 16);
    if (!marked)
        drop_mark(&p);
    f->make(&p);
    assert_int_equal(pic_check(&p, 0), 0);
    old = (struct before){p.res.leaked_clusters, worse(p.found)};
    disk_from(&d, &p);
    pic_free(&p);
    rc = disk_check(&d, f->flags, NULL, &err);
    if (rc && (rc != -EIO || err.code != -EIO))
        fail_msg("%s, call %d fails: %d \"%s\"", f->name, n, rc, err.text);
    if (d.changed) {
        after_every_stop(f, n, d.now, d.length, &old, "everything written");
        after_every_stop(f, n, d.safe, d.safe_length, &old, "only what was flushed");
        disk_keep_last(&d);
        after_every_stop(f, n, d.safe, d.safe_length, &old, "the last write without others");
    }
    free(d.now);
    free(d.safe);
    return rc;
}

/* What a full repair does where nothing is wrong. */
static void mapped_ahead(struct pic *p)
{
    for (uint64_t i = 1; i < 9; i++)
        pic_map(p, KiB(192) + i * 4096, 1);
}

static void shared_and_ahead(struct pic *p)
{
    mapped_ahead(p);
    pic_snapshot(p);
}

static void shared_and_wrong(struct pic *p)
{
    shared_and_ahead(p);
    pic_put(p, pic_l2(p, KiB(320)), 8, 0x300 | pic_get(p, pic_l2(p, KiB(320)), 8));
    pic_put(p, 60, 4, 0);
}

static void test_every_call_fails(void **state)
{
    static const struct fault more[] = {{"mapped ahead", mapped_ahead, ALL, false},
                                        {"shared, mapped ahead", shared_and_ahead, ALL, false},
                                        {"shared, wrong", shared_and_wrong, ALL, false}};
    int stops = 0;

    (void)state;
    for (size_t i = 1; i < nr_faults + 3; i++) {
        const struct fault *f = i < nr_faults ? &faults[i] : &more[i - nr_faults];

        for (int n = 1; stop_at(f, n, true); n++)
            stops++;
        for (int n = 1; f->make != fault_dirty && stop_at(f, n, false); n++)
            stops++;
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
    for (size_t i = 0; i < nr_faults; i++) {
        int rc = -1;

        for (int n = 0; rc; n++) {
            struct heap heap = {0, n};
            struct zqcow2_hooks h = {sizeof(h), &heap, heap_alloc, heap_free, NULL, 0, 0};
            struct zqcow2_error err = {0};
            struct disk d = {0};
            struct pic p;

            fault_image(&p, 4096, 16);
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
    fault_image(&p, 4096, 16);
    fault_leak(&p);
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

/* What lies beyond a pointer becomes a hole, but where a snapshot reads it. */
static void test_holes(void **state)
{
    struct zqcow2_create_options o = ZQCOW2_CREATE_OPTIONS_INIT;
    uint64_t shared[64], own[64];
    struct pic p;

    (void)state;
    o.virtual_size = MiB(4);
    o.zone_size = MiB(2); /* as much as an L2 table maps */
    o.cluster_size = 4096;
    pic_make(&p, &o);
    for (unsigned i = 0; i < 64; i++)
        shared[i] = pic_map(&p, i * 4096ull, 7);
    pic_snapshot(&p);
    for (unsigned i = 0; i < 64; i++)
        own[i] = pic_map(&p, MiB(2) + i * 4096ull, 7);
    assert_int_equal(pic_check(&p, LEAKS), 0);
    assert_int_equal(p.res.corruptions, 0);
    for (unsigned i = 0; i < 64; i++) {
        assert_int_equal(pic_get(&p, shared[i] + 8 * i, 1), 7);
        assert_int_equal(pic_get(&p, own[i] + 8 * i, 1), 0);
    }
    pic_free(&p);
}

/* ---- space ---- */

/* What is in the host's cache alone, an earlier program's writes included, may still be lost. */
struct host {
    struct disk d;
    bool pending;
    unsigned cuts, holes;
};

static int host_writev(void *self, const struct iovec *iov, int cnt, uint64_t off)
{
    ((struct host *)self)->pending = true;
    return disk_writev(self, iov, cnt, off);
}

static int host_truncate(void *self, uint64_t bytes)
{
    struct host *h = self;

    if (bytes < h->d.length && h->pending)
        fail_msg("the file is cut to %llu before a barrier", (unsigned long long)bytes);
    h->cuts += bytes < h->d.length;
    h->pending = true;
    return disk_truncate(self, bytes);
}

static int host_flush(void *self)
{
    ((struct host *)self)->pending = false;
    return disk_flush(self);
}

static int host_discard(void *self, uint64_t off, uint64_t len)
{
    struct host *h = self;

    if (h->pending)
        fail_msg("a hole of %llu bytes before a barrier", (unsigned long long)len);
    h->holes++;
    memset(h->d.now + off, 0, len);
    return 0;
}

/*
 * Nothing else has to be repaired: a reset that may not be durable has left 64 KiB mapped, and the
 * file is longer than its image.
 */
static void test_space_behind_a_barrier(void **state)
{
    static const struct zqcow2_backend_ops ops = {.size = sizeof(ops),
                                                  .name = "host",
                                                  .length = disk_length,
                                                  .readv = disk_readv,
                                                  .writev = host_writev,
                                                  .flush = host_flush,
                                                  .truncate = host_truncate,
                                                  .discard = host_discard};
    struct zqcow2_check_options o = ZQCOW2_CHECK_OPTIONS_INIT;
    struct host h = {.pending = true};
    struct zqcow2_backend *be;
    struct pic p;

    (void)state;
    fault_image(&p, 4096, 16);
    for (uint64_t i = 1; i < 16; i++)
        pic_map(&p, KiB(192) + i * 4096, 1);
    pic_map(&p, KiB(256), 1);
    pic_put(&p, p.wp + 3 * 8, 8, KiB(192));
    pic_cut(&p, pic_length(&p) + KiB(128));
    disk_from(&h.d, &p);
    pic_free(&p);
    assert_int_equal(zqcow2_backend_new(&ops, &h, NULL, &be), 0);
    o.flags = LEAKS;
    assert_int_equal(
        zqcow2_check(be, &o, &(struct zqcow2_check_result)ZQCOW2_CHECK_RESULT_INIT, NULL), 0);
    zqcow2_backend_close(be);
    assert_int_equal(h.cuts, 1);
    assert_in_range(h.holes, 1, 2);
    assert_false(h.pending);
    free(h.d.now);
    free(h.d.safe);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_call_fails),
        cmocka_unit_test(test_no_memory),
        cmocka_unit_test(test_read_only),
        cmocka_unit_test(test_holes),
        cmocka_unit_test(test_space_behind_a_barrier),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
