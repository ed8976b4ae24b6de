/* SPDX-License-Identifier: MIT */
/*
 * Data that the library does not look at: the memory of requests is a window without any rights,
 * and only the backend knows where the bytes are. A look, and the kernel ends this program. So it
 * is with the pages of a request that Linux keeps to itself (zero copy).
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

#include "rig/rig.h"

#define SIZE    MiB(8)
#define ZONE    MiB(1)
#define REQUEST KiB(256)

struct shape {
    const char *name;
    uint64_t zone;
    uint32_t cluster, flags;
    bool snapshots, overlay;
};

static const struct shape shapes[] = {
    {"plain", 0, 65536, 0, false, false},
    {"small clusters", 0, 512, 0, false, false},
    {"subclusters", 0, 65536, ZQCOW2_CREATE_EXTENDED_L2, false, false},
    {"overlay", 0, 65536, 0, false, true},
    {"overlay with subclusters", 0, 65536, ZQCOW2_CREATE_EXTENDED_L2, false, true},
    {"snapshots", 0, 4096, 0, true, false},
    {"zones", ZONE, 65536, 0, false, false},
    {"zones with snapshots", ZONE, 4096, 0, true, false},
};

struct world {
    const struct shape *s;
    struct zqcow2_backend *file, *below; /* in memory */
    struct zqcow2_image *img;
    uint8_t *bytes, *window;
    uint8_t *model;
    bool submits;
    uint64_t rng, writes, translated;
};

/* ---- the backend ---- */

static int translate(struct world *w, const struct iovec *iov, int cnt, struct iovec *out)
{
    assert_in_range(cnt, 1, 16);
    for (int i = 0; i < cnt; i++) {
        size_t at = (size_t)((uintptr_t)iov[i].iov_base - (uintptr_t)w->window);

        out[i] = iov[i];
        if (at >= REQUEST)
            continue;
        assert_true(at + iov[i].iov_len <= REQUEST);
        out[i].iov_base = w->bytes + at;
        w->translated += iov[i].iov_len;
    }
    return cnt;
}

static int op_length(void *self, uint64_t *bytes)
{
    return zqcow2_backend_length(((struct world *)self)->file, bytes);
}

static int op_readv(void *self, const struct iovec *iov, int cnt, uint64_t off)
{
    struct iovec to[16];

    cnt = translate(self, iov, cnt, to);
    return zqcow2_backend_readv(((struct world *)self)->file, to, cnt, off);
}

static int op_writev(void *self, const struct iovec *iov, int cnt, uint64_t off)
{
    struct iovec from[16];

    cnt = translate(self, iov, cnt, from);
    return zqcow2_backend_writev(((struct world *)self)->file, from, cnt, off);
}

static int op_flush(void *self)
{
    return zqcow2_backend_flush(((struct world *)self)->file);
}

static int op_truncate(void *self, uint64_t bytes)
{
    return zqcow2_backend_truncate(((struct world *)self)->file, bytes);
}

static int op_limits(void *self, struct zqcow2_limits *out)
{
    (void)self;
    out->max_iov = 16;
    return 0;
}

static int op_submit(void *self, struct zqcow2_io *io)
{
    if (io->kind > ZQCOW2_IO_WRITE)
        return -EOPNOTSUPP;
    zqcow2_io_done(io, io->kind == ZQCOW2_IO_READ ?
                           op_readv(self, io->iov, (int)io->iovcnt, io->offset) :
                           op_writev(self, io->iov, (int)io->iovcnt, io->offset));
    return 0;
}

static struct zqcow2_backend *backend(struct world *w)
{
    struct zqcow2_backend_ops ops = {.size = sizeof(ops),
                                     .name = "window",
                                     .length = op_length,
                                     .readv = op_readv,
                                     .writev = op_writev,
                                     .flush = op_flush,
                                     .limits = op_limits,
                                     .truncate = op_truncate,
                                     .submit = w->submits ? op_submit : NULL};
    struct zqcow2_backend *be;

    assert_int_equal(zqcow2_backend_new(&ops, w, NULL, &be), 0);
    return be;
}

/* ---- the image ---- */

static int resolve(void *arg, const char *name, const char *format, uint32_t depth,
                   struct zqcow2_backend **be, struct zqcow2_error *err)
{
    struct world *w = arg;
    uint8_t noise[4096];

    (void)name;
    (void)format;
    (void)depth;
    (void)err;
    assert_int_equal(zqcow2_mem_open(SIZE, NULL, be), 0);
    for (uint64_t at = 0; at < SIZE; at += sizeof(noise)) {
        memset(noise, (int)(at / sizeof(noise) % 251 + 1), sizeof(noise));
        memcpy(w->model + at, noise, sizeof(noise));
        assert_int_equal(zqcow2_backend_write(*be, noise, sizeof(noise), at), 0);
    }
    return 0;
}

static void begin(struct world *w, const struct shape *s, bool submits)
{
    struct zqcow2_create_options co = ZQCOW2_CREATE_OPTIONS_INIT;
    struct zqcow2_open_options oo = ZQCOW2_OPEN_OPTIONS_INIT;

    *w = (struct world){.s = s, .submits = submits, .rng = 5};
    w->bytes = malloc(REQUEST);
    w->model = calloc(1, SIZE);
    w->window = mmap(NULL, REQUEST, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(w->bytes && w->model && w->window != MAP_FAILED);
    assert_int_equal(zqcow2_mem_open(0, NULL, &w->file), 0);
    co.virtual_size = SIZE;
    co.zone_size = s->zone;
    co.conventional_zones = s->zone ? 2 : 0;
    co.cluster_size = s->cluster;
    co.flags = s->flags;
    if (s->overlay) {
        co.backing_name = "below";
        co.backing_format = "raw";
    }
    assert_int_equal(zqcow2_create(w->file, &co, NULL), 0);
    oo.flags = ZQCOW2_OPEN_RDWR;
    oo.resolve = resolve;
    oo.resolve_arg = w;
    assert_int_equal(zqcow2_open(backend(w), &oo, &w->img, NULL), 0);
}

static void end(struct world *w)
{
    assert_int_equal(zqcow2_close(w->img), 0);
    zqcow2_backend_close(w->file);
    munmap(w->window, REQUEST);
    free(w->bytes);
    free(w->model);
}

/* ---- requests ---- */

static uint64_t pointer_of(struct world *w, uint64_t off)
{
    struct zqcow2_zone z;
    uint32_t one = 1;

    assert_int_equal(zqcow2_zone_report(w->img, off, &z, &one), 0);
    return z.type == ZQCOW2_ZONE_CONVENTIONAL ? UINT64_MAX : z.write_pointer;
}

/* Where it may go: anywhere, or at the pointer of a zone, which is emptied when it is full. */
static void place(struct world *w, uint64_t *off, uint64_t *len)
{
    uint64_t end = SIZE, wp;

    *off = rng_below(&w->rng, SIZE / 512) * 512;
    *len = (rng_below(&w->rng, rng_below(&w->rng, 2) ? 16 : REQUEST / 512) + 1) * 512;
    if (w->s->zone) {
        wp = pointer_of(w, *off);
        end = (*off / ZONE + 1) * ZONE;
        if (wp != UINT64_MAX && (wp >= end || wp == end - ZONE)) {
            assert_int_equal(zqcow2_zone_reset(w->img, end - ZONE, ZONE, 0), 0);
            memset(w->model + end - ZONE, 0, ZONE);
            wp = end - ZONE;
        }
        *off = wp == UINT64_MAX ? *off : wp;
    }
    *len = *len < end - *off ? *len : end - *off;
}

/* And reads it again: none of it is a hole, which the library fills with zeros. */
static void write_one(struct world *w)
{
    uint64_t off, len, n = ++w->writes;
    int rc;

    place(w, &off, &len);
    for (uint64_t i = 0; i < len; i++)
        w->bytes[i] = (uint8_t)(rng_mix(n) + i / 512 * 7 + i);
    memcpy(w->model + off, w->bytes, len);
    rc = zqcow2_write(w->img, w->window, len, off, 0);
    memset(w->bytes, 0, len);
    if (rc == 0)
        rc = zqcow2_read(w->img, w->window, len, off);
    if (rc || memcmp(w->bytes, w->model + off, len) != 0)
        fail_msg("%s: request %llu, %llu bytes at %llu: %d", w->s->name, (unsigned long long)n,
                 (unsigned long long)len, (unsigned long long)off, rc);
}

static void read_all(struct world *w)
{
    uint8_t *is = malloc(SIZE);

    assert_non_null(is);
    assert_int_equal(zqcow2_read(w->img, is, SIZE, 0), 0);
    assert_memory_equal(is, w->model, SIZE);
    free(is);
}

static void take_snapshot(struct world *w, unsigned n)
{
    struct zqcow2_snapshot what = ZQCOW2_SNAPSHOT_INIT;
    char name[16];

    snprintf(name, sizeof(name), "s%u", n);
    what.name = name;
    assert_int_equal(zqcow2_snapshot_take(w->img, &what, NULL), 0);
}

static void run(const struct shape *s, bool submits)
{
    struct world w;

    begin(&w, s, submits);
    for (unsigned i = 0; i < 300; i++) {
        if (s->snapshots && i % 50 == 49)
            take_snapshot(&w, i);
        write_one(&w);
    }
    read_all(&w);
    printf("unseen %s, %s: %llu writes, %llu KiB through the window, 0 looks\n", s->name,
           submits ? "submitted" : "called", (unsigned long long)w.writes,
           (unsigned long long)w.translated / 1024);
    end(&w);
}

static void test_called(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++)
        run(&shapes[i], false);
}

static void test_submitted(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++)
        run(&shapes[i], true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_called),
        cmocka_unit_test(test_submitted),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
