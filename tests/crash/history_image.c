/* SPDX-License-Identifier: MIT */
/* The images of a history, and the backend of the live one. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "crash/cuts.h"
#include "crash/history.h"

#define LIVE ZQCOW2_SIMDISK_ASYNC

static const struct shape shapes[] = {
    {4096, 0, 0, 16, 0, true, false, LIVE},
    {4096, ZQCOW2_LAYOUT_44, 64, 16, 0, true, false, LIVE},
    {2048, ZQCOW2_LAYOUT_44, 57, 16, 0, true, true, LIVE},
    {2048, 0, 0, 32, ZQCOW2_CREATE_LAZY_REFCOUNTS, true, true, LIVE},
    {1024, ZQCOW2_LAYOUT_V7, 60, 8, ZQCOW2_CREATE_ZSTD, true, false, LIVE},
    {16384, 0, 0, 16, ZQCOW2_CREATE_EXTENDED_L2, true, false, LIVE},
    {16384, ZQCOW2_LAYOUT_48B, 64, 64, ZQCOW2_CREATE_EXTENDED_L2, true, true, LIVE},
    {512, ZQCOW2_LAYOUT_56, 40, 16, 0, true, false, LIVE},
    {4096, ZQCOW2_LAYOUT_48B, 50, 4, 0, false, true, 0},
    {1024, 0, 0, 4, 0, false, true, 0},
    {512, 0, 0, 2, 0, true, false, LIVE},
};
#define SHAPES (sizeof(shapes) / sizeof(*shapes))

uint64_t draw(struct history *h, uint64_t n)
{
    return cuts_draw(&h->rng, n);
}

void must(const struct history *h, bool good, const char *what, long got)
{
    if (!good)
        fail_msg("%s: %ld\nreplay: ZQ_SEED=%llu ZQ_CUT=%llu ZQ_STATE=%llu test_histories", what,
                 got, (unsigned long long)h->seed, (unsigned long long)h->cut,
                 (unsigned long long)h->k);
}

bool is_sequential(const struct history *h, uint32_t sector)
{
    return h->shape->layout && sector >= CONV * ZONE;
}

/* ---- the backing file: the library would give one that blocks to threads, and nothing would be
 * done twice in the same order ---- */

static int below_length(void *inner, uint64_t *bytes)
{
    return zqcow2_backend_length(inner, bytes);
}

static int below_readv(void *inner, const struct iovec *iov, int cnt, uint64_t off)
{
    return zqcow2_backend_readv(inner, iov, cnt, off);
}

static int below_flush(void *inner)
{
    return zqcow2_backend_flush(inner);
}

static int below_submit(void *inner, struct zqcow2_io *io)
{
    int rc = -EROFS;

    if (io->kind == ZQCOW2_IO_READ)
        rc = zqcow2_backend_readv(inner, io->iov, (int)io->iovcnt, io->offset);
    else if (io->kind == ZQCOW2_IO_FLUSH)
        rc = zqcow2_backend_flush(inner);
    zqcow2_io_done(io, rc);
    return 0;
}

static void below_close(void *inner)
{
    zqcow2_backend_close(inner);
}

int resolve_below(void *history, const char *name, const char *format, uint32_t depth,
                  struct zqcow2_backend **be, struct zqcow2_error *err)
{
    static const struct zqcow2_backend_ops ops = {
        .size = sizeof(ops),
        .name = "below",
        .close = below_close,
        .length = below_length,
        .readv = below_readv,
        .flush = below_flush,
        .submit = below_submit,
    };
    const struct history *h = history;
    struct zqcow2_backend *inner;
    int rc = zqcow2_simdisk_backend(h->below, &inner);

    (void)name;
    (void)format;
    (void)depth;
    (void)err;
    if (rc == 0)
        rc = zqcow2_backend_claim(inner);
    return rc < 0 ? rc : zqcow2_backend_new(&ops, inner, NULL, be);
}

/* ---- images ---- */

static struct zqcow2_image *open_backend(const struct history *h, struct zqcow2_backend *be,
                                         bool rw, const char *snapshot)
{
    struct zqcow2_open_options o = ZQCOW2_OPEN_OPTIONS_INIT;
    struct zqcow2_image *img = NULL;
    struct zqcow2_error err = {0, ""};
    int rc;

    o.flags = ZQCOW2_OPEN_NOLOCK | (rw ? ZQCOW2_OPEN_RDWR : 0);
    o.cache_bytes = h->seed % 2;
    o.snapshot = snapshot;
    o.resolve = resolve_below;
    o.resolve_arg = (void *)(uintptr_t)h;
    rc = zqcow2_open(be, &o, &img, &err);
    must(h, rc == 0, err.text[0] ? err.text : "open", rc);
    return img;
}

struct zqcow2_image *open_plainly(const struct history *h, struct zqcow2_simdisk *disk, bool rw,
                                  const char *snapshot)
{
    struct zqcow2_backend *be;

    must(h, zqcow2_simdisk_backend(disk, &be) == 0, "backend", 0);
    return open_backend(h, be, rw, snapshot);
}

const char *name_of(uint32_t number, char text[16])
{
    sprintf(text, "s%u", number);
    return text;
}

void read_content(const struct history *h, struct zqcow2_image *img, struct content *c)
{
    static uint8_t data[SECTORS * SECTOR];
    struct zqcow2_info info = ZQCOW2_INFO_INIT;
    struct zqcow2_zone z[ZONES];
    uint32_t nr = ZONES;

    memset(c, 0, sizeof(*c));
    must(h, zqcow2_get_info(img, &info) == 0, "info", 0);
    c->size = (uint32_t)(info.virtual_size / SECTOR);
    must(h, c->size <= SECTORS, "size", (long)c->size);
    must(h, zqcow2_read(img, data, (size_t)c->size * SECTOR, 0) == 0, "read", 0);
    for (uint32_t k = 0; k < c->size; k++) {
        const uint8_t *p = data + (size_t)k * SECTOR;

        must(h, memcmp(p, p + 1, SECTOR - 1) == 0, "a torn sector", (long)k);
        c->v[k] = *p;
    }
    if (!h->shape->layout)
        return;
    must(h, zqcow2_zone_report(img, 0, z, &nr) == 0, "report", 0);
    for (uint32_t i = CONV; i < nr; i++)
        c->wp[i] = z[i].state == ZQCOW2_ZONE_FULL ?
                       (uint8_t)h->shape->capacity :
                       (uint8_t)((z[i].write_pointer - z[i].start) / SECTOR);
}

/* ---- the live image: requests are submitted between the calls of its backend ---- */

void among_calls(struct history *h)
{
    if (!h->during || h->inside || draw(h, 4))
        return;
    h->inside = true;
    submit_some(h);
    h->inside = false;
}

static int live_length(void *self, uint64_t *bytes)
{
    return zqcow2_backend_length(((struct history *)self)->inner, bytes);
}

static int live_readv(void *self, const struct iovec *iov, int cnt, uint64_t off)
{
    return zqcow2_backend_readv(((struct history *)self)->inner, iov, cnt, off);
}

static int live_writev(void *self, const struct iovec *iov, int cnt, uint64_t off)
{
    return zqcow2_backend_writev(((struct history *)self)->inner, iov, cnt, off);
}

static int live_flush(void *self)
{
    return zqcow2_backend_flush(((struct history *)self)->inner);
}

static int live_limits(void *self, struct zqcow2_limits *out)
{
    return zqcow2_backend_limits(((struct history *)self)->inner, out);
}

static int live_truncate(void *self, uint64_t bytes)
{
    return zqcow2_backend_truncate(((struct history *)self)->inner, bytes);
}

static int live_discard(void *self, uint64_t off, uint64_t len)
{
    return zqcow2_backend_discard(((struct history *)self)->inner, off, len);
}

static int live_zero(void *self, uint64_t off, uint64_t len)
{
    return zqcow2_backend_zero(((struct history *)self)->inner, off, len);
}

static int live_submit(void *self, struct zqcow2_io *io)
{
    return zqcow2_backend_submit(((struct history *)self)->inner, io);
}

static void live_kick(void *self)
{
    zqcow2_backend_kick(((struct history *)self)->inner);
}

static void live_wake(void *self)
{
    zqcow2_backend_wake(((struct history *)self)->inner);
}

/* What is submitted here may also complete here: then there is nothing to wait for. */
static int live_poll(void *self, int timeout_ms)
{
    struct history *h = self;

    among_calls(h);
    return zqcow2_backend_poll(h->inner, timeout_ms ? 1 : 0);
}

static int live_fd(void *self)
{
    return zqcow2_backend_fd(((struct history *)self)->inner);
}

static void live_close(void *self)
{
    struct history *h = self;

    zqcow2_backend_close(h->inner);
    h->inner = NULL;
}

void open_live(struct history *h)
{
    struct zqcow2_backend_ops ops = {
        .size = sizeof(ops),
        .name = "live",
        .close = live_close,
        .length = live_length,
        .readv = live_readv,
        .writev = live_writev,
        .flush = live_flush,
        .limits = live_limits,
        .truncate = live_truncate,
        .discard = live_discard,
        .zero = live_zero,
    };
    struct zqcow2_backend *be;

    if (h->shape->live) {
        ops.submit = live_submit;
        ops.kick = live_kick;
        ops.wake = live_wake;
        ops.poll = live_poll;
        ops.fd = live_fd;
    }
    must(h, zqcow2_simdisk_backend(h->disk, &h->inner) == 0, "backend", 0);
    must(h, zqcow2_backend_claim(h->inner) == 0, "claim", 0);
    must(h, zqcow2_backend_new(&ops, h, NULL, &be) == 0, "backend", 0);
    h->img = open_backend(h, be, true, NULL);
    if (h->shape->live)
        must(h, zqcow2_queue_open(h->img, DEPTH, &h->queue) == 0, "queue", 0);
}

void settle(struct history *h)
{
    while (h->queue && zqcow2_queue_pending(h->queue))
        must(h, zqcow2_queue_wait(h->queue, 1, -1) >= 0, "wait", 0);
}

void close_live(struct history *h)
{
    int rc;

    settle(h);
    if (h->queue)
        must(h, zqcow2_queue_close(h->queue) == 0, "close the queue", 0);
    h->queue = NULL;
    rc = zqcow2_close(h->img);
    must(h, rc == 0, "close", rc);
    h->img = NULL;
}

/* ---- a new one ---- */

static struct zqcow2_backend *new_disk(struct history *h, uint32_t flags,
                                       struct zqcow2_simdisk **disk)
{
    struct zqcow2_simdisk_options d = ZQCOW2_SIMDISK_OPTIONS_INIT;
    struct zqcow2_backend *be;

    d.seed = h->seed;
    d.flags = flags;
    must(h, zqcow2_simdisk_new(&d, disk) == 0, "disk", 0);
    must(h, zqcow2_simdisk_backend(*disk, &be) == 0, "backend", 0);
    return be;
}

static void set_shape(const struct history *h, struct zqcow2_create_options *c, uint32_t size)
{
    c->virtual_size = (uint64_t)size * SECTOR;
    c->cluster_size = h->shape->cluster;
    c->refcount_bits = h->shape->refcount_bits;
    c->flags = h->shape->flags;
    if (!h->shape->layout)
        return;
    c->layout = h->shape->layout;
    c->zone_size = ZONE * SECTOR;
    c->zone_capacity = (uint64_t)h->shape->capacity * SECTOR;
    c->conventional_zones = CONV;
}

/* Of the zones one in part, which ends inside a cluster, and one full; else in many places. */
static void make_below(struct history *h, uint32_t size)
{
    struct zqcow2_create_options c = ZQCOW2_CREATE_OPTIONS_INIT;
    struct zqcow2_backend *be = new_disk(h, 0, &h->below);
    uint8_t data[11 * SECTOR];
    struct zqcow2_image *img;
    uint32_t step = h->shape->layout ? ZONE : 23;

    set_shape(h, &c, h->shape->layout ? size : SECTORS);
    must(h, zqcow2_create(be, &c, NULL) == 0, "create", 0);
    zqcow2_backend_close(be);
    img = open_plainly(h, h->below, true, NULL);
    memset(data, 251, sizeof(data));
    for (uint32_t at = 0; at + 11 <= c.virtual_size / SECTOR; at += step) {
        must(h, zqcow2_write(img, data, sizeof(data), (uint64_t)at * SECTOR, 0) == 0, "write", 0);
        for (uint32_t k = at; k < at + 11 && k < size; k++)
            h->first[k] = 251;
        h->first_wp[at / ZONE] = is_sequential(h, at) ? 11 : 0;
    }
    if (h->shape->layout) {
        must(h, zqcow2_zone_finish(img, 3 * ZONE * SECTOR, ZONE * SECTOR, 0) == 0, "finish", 0);
        h->first_wp[3] = (uint8_t)h->shape->capacity;
    }
    must(h, zqcow2_close(img) == 0, "close", 0);
}

static void create(struct history *h)
{
    struct zqcow2_create_options c = ZQCOW2_CREATE_OPTIONS_INIT;
    struct zqcow2_error err = {0, ""};
    uint32_t size = h->shape->layout ? 6 * ZONE : SECTORS / 2 + (uint32_t)(h->seed % 50);
    struct zqcow2_backend *be;

    set_shape(h, &c, size);
    if (h->shape->over) {
        make_below(h, size);
        c.backing_name = "below";
        c.backing_format = "qcow2";
        c.resolve = resolve_below;
        c.resolve_arg = h;
    }
    be = new_disk(h, h->shape->disk, &h->disk);
    must(h, zqcow2_create(be, &c, &err) == 0, err.text, 0);
    must(h, zqcow2_backend_flush(be) == 0, "flush", 0);
    zqcow2_backend_close(be);
    must(h, zqcow2_simdisk_record(h->disk) == 0, "record", 0);
    h->now.size = h->act[0].size = size;
    memcpy(h->now.v, h->first, sizeof(h->first));
    memcpy(h->now.wp, h->first_wp, sizeof(h->first_wp));
}

void history_begin(struct history *h, uint64_t seed)
{
    memset(h, 0, sizeof(*h));
    h->shape = &shapes[seed % SHAPES];
    h->seed = seed;
    h->rng = seed * 0x9e3779b97f4a7c15u; /* else those of neighbours begin alike */
    h->cut = UINT64_MAX;
    h->lazy = h->shape->flags & ZQCOW2_CREATE_LAZY_REFCOUNTS;
    h->clock = 1;
    h->act[0] = (struct act){.kind = FLUSH, .since = 1, .until = 1};
    create(h);
}

void history_end(struct history *h)
{
    zqcow2_simdisk_free(h->disk);
    zqcow2_simdisk_free(h->below);
}
