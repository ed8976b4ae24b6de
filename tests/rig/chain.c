/* SPDX-License-Identifier: MIT */
/* Makes chains of images, by the library and by hand, and reads them. */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "rig/chain.h"
#include "rig/rng.h"

uint64_t chain_rng;

uint32_t chain_below(uint32_t n)
{
    return (uint32_t)rng_below(&chain_rng, n);
}

/* ---- making them ---- */

struct zqcow2_backend *chain_backend(struct store *s)
{
    const struct rig_be be = store_be(s);
    struct zqcow2_backend *out;

    assert_int_equal(zqcow2_backend_new(be.ops, be.self, NULL, &out), 0);
    return out;
}

/* The extension for the format takes the place of the table of names. */
void chain_name(struct store *s, const char *name, const char *format)
{
    uint8_t b[64] = {0xe2, 0x79, 0x2a, 0xca, 0, 0, 0, (uint8_t)strlen(format)};
    uint8_t at[12] = {0, 0, 0, 0, 0, 0, 0, NAME_AT, 0, 0, 0, (uint8_t)strlen(name)};

    memcpy(b + 8, format, strlen(format));
    memcpy(b + (NAME_AT - 128), name, strlen(name));
    store_put(s, b, sizeof(b), 128);
    store_put(s, at, sizeof(at), 8);
}

void chain_bytes(uint8_t *to, uint64_t len)
{
    for (uint64_t i = 0; i < len; i += 8) {
        uint64_t word = rng_next(&chain_rng);

        memcpy(to + i, &word, 8);
    }
}

/* Whole clusters of the layer, which does not know of its source yet. */
static void fill(struct chain *c, unsigned layer, uint32_t cluster, struct zqcow2_image *img)
{
    static uint8_t data[KiB(192)];
    unsigned n = 3 + chain_below(12);

    for (unsigned i = 0; i < n; i++) {
        uint64_t off = (uint64_t)chain_below((uint32_t)(c->size[layer] / 512)) * 512;
        uint64_t len = (uint64_t)(1 + chain_below(128)) * 512;

        len = (off % cluster + len + cluster - 1) / cluster * cluster;
        off -= off % cluster;
        len = len < c->size[layer] - off ? len : c->size[layer] - off;
        chain_bytes(data, len);
        if (img)
            assert_int_equal(zqcow2_write(img, data, len, off, 0), 0);
        else
            store_put(&c->store[layer], data, len, off);
        memcpy(c->want + off, data, len);
    }
}

/* What the layers below have beyond this one's end is not seen through it. */
static void cut(struct chain *c, unsigned layer)
{
    memset(c->want + c->size[layer], 0, SIZE - c->size[layer]);
}

static void make_layer(struct chain *c, unsigned i)
{
    static const uint32_t clusters[] = {512, 4096, 65536, 16384};
    struct zqcow2_create_options opt = ZQCOW2_CREATE_OPTIONS_INIT;
    struct zqcow2_open_options rw = ZQCOW2_OPEN_OPTIONS_INIT;
    struct zqcow2_backend *be = chain_backend(&c->store[i]);
    struct zqcow2_image *img;
    char name[2] = {(char)('0' + i + 1), 0};

    opt.virtual_size = c->size[i];
    opt.cluster_size = i ? clusters[chain_below(4)] : c->cluster;
    if (opt.cluster_size == 16384)
        opt.flags = ZQCOW2_CREATE_EXTENDED_L2;
    rw.flags = ZQCOW2_OPEN_RDWR;
    assert_int_equal(zqcow2_create(be, &opt, &c->err), 0);
    assert_int_equal(zqcow2_open(be, &rw, &img, &c->err), 0);
    fill(c, i, opt.cluster_size, img);
    assert_int_equal(zqcow2_close(img), 0);
    if (i + 1 < c->nr)
        chain_name(&c->store[i], name, c->raw_end && i + 2 == c->nr ? "raw" : "qcow2");
}

void chain_make(struct chain *c, unsigned nr, bool raw_end)
{
    memset(c, 0, sizeof(*c));
    c->nr = nr;
    c->cluster = chain_below(2) ? 4096 : 16384;
    c->raw_end = raw_end && nr > 1;
    c->want = calloc(1, SIZE);
    c->self = pthread_self();
    heap_init(&c->heap);
    c->hooks = heap_hooks(&c->heap);
    assert_non_null(c->want);
    for (unsigned i = nr; i-- > 0;) {
        c->size[i] = (uint64_t)(1 + chain_below(SIZE / 512)) * 512;
        store_init(&c->store[i]);
        cut(c, i);
        if (c->raw_end && i + 1 == nr)
            fill(c, i, 512, NULL);
        else
            make_layer(c, i);
    }
}

void chain_free(struct chain *c)
{
    assert_null(heap_verdict(&c->heap));
    heap_destroy(&c->heap);
    for (unsigned i = 0; i < c->nr; i++)
        store_free(&c->store[i]);
    free(c->want);
}

/* ---- opening them ---- */

/* A source's backend: the store's, but it notes who reads. */
struct spy {
    struct chain *c;
    struct store *s;
};

static int spy_length(void *self, uint64_t *bytes)
{
    struct spy *s = self;

    return store_be(s->s).ops->length(s->s, bytes);
}

static int spy_readv(void *self, const struct iovec *iov, int cnt, uint64_t off)
{
    struct spy *s = self;

    if (pthread_equal(pthread_self(), s->c->self))
        s->c->own = true;
    else
        s->c->foreign = true;
    return s->c->read_error ? s->c->read_error : store_be(s->s).ops->readv(s->s, iov, cnt, off);
}

static void spy_close(void *self)
{
    free(self);
}

static int never(void *self, struct zqcow2_io *io)
{
    (void)self;
    (void)io;
    return -EIO;
}

static int no_poll(void *self, int timeout)
{
    (void)self;
    (void)timeout;
    return 0;
}

static void no_wake(void *self)
{
    (void)self;
}

static int no_fd(void *self)
{
    (void)self;
    return 0;
}

static int resolve(void *arg, const char *name, const char *format, uint32_t depth,
                   struct zqcow2_backend **be, struct zqcow2_error *err)
{
    struct zqcow2_backend_ops ops = {
        .size = sizeof(ops), .length = spy_length, .readv = spy_readv, .close = spy_close};
    struct chain *c = arg;
    struct spy *s = malloc(sizeof(*s));
    bool raw = c->raw_end && depth + 1 == c->nr;

    (void)err;
    assert_non_null(s);
    assert_string_equal(format, raw ? "raw" : "qcow2");
    assert_int_equal(name[0], '0' + (int)depth);
    c->opened++;
    if (c->fail) {
        free(s);
        return c->fail;
    }
    *s = (struct spy){c, &c->store[depth]};
    if (c->polled) {
        ops.submit = never;
        ops.poll = no_poll;
        ops.fd = no_fd;
        ops.wake = no_wake;
    }
    return zqcow2_backend_new(&ops, s, NULL, be);
}

struct zqcow2_open_options chain_options(struct chain *c)
{
    struct zqcow2_open_options opt = ZQCOW2_OPEN_OPTIONS_INIT;

    opt.hooks = &c->hooks;
    opt.resolve = resolve;
    opt.resolve_arg = c;
    return opt;
}

int chain_open(struct chain *c, const struct zqcow2_open_options *opt, struct zqcow2_image **img)
{
    struct zqcow2_backend *be = chain_backend(&c->store[0]), *inner = be;
    int rc;

    if (c->threads)
        assert_int_equal(zqcow2_threads_wrap(inner, c->threads, NULL, &be), 0);
    rc = zqcow2_open(be, opt, img, &c->err);
    if (rc < 0)
        zqcow2_backend_close(be);
    return rc;
}

struct zqcow2_image *chain_must_open(struct chain *c, uint64_t cache)
{
    struct zqcow2_open_options opt = chain_options(c);
    struct zqcow2_image *img;

    opt.cache_bytes = cache;
    if (chain_open(c, &opt, &img))
        fail_msg("open: %s", c->err.text);
    return img;
}

void chain_compare(struct chain *c, const uint8_t *got, uint64_t off, uint64_t len, unsigned seed)
{
    for (uint64_t i = 0; i < len; i++) {
        if (got[i] != c->want[off + i])
            fail_msg("seed %u, %u layers: byte %llu is %02x, not %02x", seed, c->nr,
                     (unsigned long long)(off + i), got[i], c->want[off + i]);
    }
}

void chain_read(struct chain *c, uint64_t cache, unsigned seed)
{
    static uint8_t buf[SIZE];
    struct zqcow2_image *img = chain_must_open(c, cache);

    assert_int_equal(zqcow2_read(img, buf, c->size[0], 0), 0);
    chain_compare(c, buf, 0, c->size[0], seed);
    for (unsigned i = 0; i < 200; i++) {
        uint64_t off = (uint64_t)chain_below((uint32_t)(c->size[0] / 512)) * 512;
        uint64_t len = (uint64_t)(1 + chain_below(i % 2 ? 300 : 8)) * 512;

        len = len < c->size[0] - off ? len : c->size[0] - off;
        assert_int_equal(zqcow2_read(img, buf, len, off), 0);
        chain_compare(c, buf, off, len, seed);
    }
    assert_int_equal(zqcow2_close(img), 0);
}
