/* SPDX-License-Identifier: MIT */
/*
 * Images that stand on other images: what a chain reads as, over every kind of backend and with the
 * smallest caches; what is refused, and by what name; errors of a source.
 */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <zqcow2/queue.h>
#include "rig/heap_fault.h"
#include "rig/rig.h"
#include "rig/rng.h"

#define LAYERS  4u
#define SIZE    MiB(2)
#define NAME_AT 160u

/* The files of a chain, [0] the image; each is named by its number. */
struct chain {
    struct store store[LAYERS];
    uint64_t size[LAYERS];
    unsigned nr;
    bool raw_end;     /* the last one is raw */
    unsigned threads; /* of each backend; 0: it blocks */
    unsigned opened;  /* by the resolver */
    int fail;         /* what the resolver returns instead */
    bool polled;      /* it gives backends that must be polled */
    int read_error;   /* of all sources */
    bool foreign;     /* a source was read by another thread than `self` */
    bool own;         /* ... by `self` */
    pthread_t self;
    uint8_t *want; /* SIZE bytes */
    struct heap heap;
    struct zqcow2_hooks hooks;
    struct zqcow2_error err;
};

static uint64_t rng;

static uint32_t below(uint32_t n)
{
    return (uint32_t)rng_below(&rng, n);
}

/* ---- making them ---- */

static struct zqcow2_backend *backend_of(struct store *s)
{
    const struct rig_be be = store_be(s);
    struct zqcow2_backend *out;

    assert_int_equal(zqcow2_backend_new(be.ops, be.self, NULL, &out), 0);
    return out;
}

/* The extension for the format takes the place of the table of names. */
static void name_source(struct store *s, const char *name, const char *format)
{
    uint8_t b[64] = {0xe2, 0x79, 0x2a, 0xca, 0, 0, 0, (uint8_t)strlen(format)};
    uint8_t at[12] = {0, 0, 0, 0, 0, 0, 0, NAME_AT, 0, 0, 0, (uint8_t)strlen(name)};

    memcpy(b + 8, format, strlen(format));
    memcpy(b + NAME_AT - 128, name, strlen(name));
    store_put(s, b, sizeof(b), 128);
    store_put(s, at, sizeof(at), 8);
}

static void fill_bytes(uint8_t *to, uint64_t len)
{
    for (uint64_t i = 0; i < len; i += 8) {
        uint64_t word = rng_next(&rng);

        memcpy(to + i, &word, 8);
    }
}

/* Whole clusters of the layer, which does not know of its source yet. */
static void fill(struct chain *c, unsigned layer, uint32_t cluster, struct zqcow2_image *img)
{
    static uint8_t data[KiB(192)];
    unsigned n = 3 + below(12);

    for (unsigned i = 0; i < n; i++) {
        uint64_t off = (uint64_t)below((uint32_t)(c->size[layer] / 512)) * 512;
        uint64_t len = (uint64_t)(1 + below(128)) * 512;

        len = (off % cluster + len + cluster - 1) / cluster * cluster;
        off -= off % cluster;
        len = len < c->size[layer] - off ? len : c->size[layer] - off;
        fill_bytes(data, len);
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
    static const uint32_t clusters[] = {512, 4096, 65536};
    struct zqcow2_create_options opt = ZQCOW2_CREATE_OPTIONS_INIT;
    struct zqcow2_open_options rw = ZQCOW2_OPEN_OPTIONS_INIT;
    struct zqcow2_backend *be = backend_of(&c->store[i]);
    struct zqcow2_image *img;
    char name[2] = {(char)('0' + i + 1), 0};

    opt.virtual_size = c->size[i];
    opt.cluster_size = i ? clusters[below(3)] : 4096;
    rw.flags = ZQCOW2_OPEN_RDWR;
    assert_int_equal(zqcow2_create(be, &opt, &c->err), 0);
    assert_int_equal(zqcow2_open(be, &rw, &img, &c->err), 0);
    fill(c, i, opt.cluster_size, img);
    assert_int_equal(zqcow2_close(img), 0);
    if (i + 1 < c->nr)
        name_source(&c->store[i], name, c->raw_end && i + 2 == c->nr ? "raw" : "qcow2");
}

static void chain_make(struct chain *c, unsigned nr, bool raw_end)
{
    memset(c, 0, sizeof(*c));
    c->nr = nr;
    c->raw_end = raw_end && nr > 1;
    c->want = calloc(1, SIZE);
    c->self = pthread_self();
    heap_init(&c->heap);
    c->hooks = heap_hooks(&c->heap);
    assert_non_null(c->want);
    for (unsigned i = nr; i-- > 0;) {
        c->size[i] = (uint64_t)(1 + below(SIZE / 512)) * 512;
        store_init(&c->store[i]);
        cut(c, i);
        if (c->raw_end && i + 1 == nr)
            fill(c, i, 512, NULL);
        else
            make_layer(c, i);
    }
}

static void chain_free(struct chain *c)
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

static struct zqcow2_open_options options(struct chain *c)
{
    struct zqcow2_open_options opt = ZQCOW2_OPEN_OPTIONS_INIT;

    opt.hooks = &c->hooks;
    opt.resolve = resolve;
    opt.resolve_arg = c;
    return opt;
}

static int open_with(struct chain *c, const struct zqcow2_open_options *opt,
                     struct zqcow2_image **img)
{
    struct zqcow2_backend *be = backend_of(&c->store[0]), *inner = be;
    int rc;

    if (c->threads)
        assert_int_equal(zqcow2_threads_wrap(inner, c->threads, NULL, &be), 0);
    rc = zqcow2_open(be, opt, img, &c->err);
    if (rc < 0)
        zqcow2_backend_close(be);
    return rc;
}

static struct zqcow2_image *must_open(struct chain *c, uint64_t cache)
{
    struct zqcow2_open_options opt = options(c);
    struct zqcow2_image *img;

    opt.cache_bytes = cache;
    if (open_with(c, &opt, &img))
        fail_msg("open: %s", c->err.text);
    return img;
}

/* ---- what they read as ---- */

static void compare(struct chain *c, const uint8_t *got, uint64_t off, uint64_t len, unsigned seed)
{
    for (uint64_t i = 0; i < len; i++) {
        if (got[i] != c->want[off + i])
            fail_msg("seed %u, %u layers: byte %llu is %02x, not %02x", seed, c->nr,
                     (unsigned long long)(off + i), got[i], c->want[off + i]);
    }
}

static void read_blocking(struct chain *c, uint64_t cache, unsigned seed)
{
    static uint8_t buf[SIZE];
    struct zqcow2_image *img = must_open(c, cache);

    assert_int_equal(zqcow2_read(img, buf, c->size[0], 0), 0);
    compare(c, buf, 0, c->size[0], seed);
    for (unsigned i = 0; i < 200; i++) {
        uint64_t off = (uint64_t)below((uint32_t)(c->size[0] / 512)) * 512;
        uint64_t len = (uint64_t)(1 + below(i % 2 ? 300 : 8)) * 512;

        len = len < c->size[0] - off ? len : c->size[0] - off;
        assert_int_equal(zqcow2_read(img, buf, len, off), 0);
        compare(c, buf, off, len, seed);
    }
    assert_int_equal(zqcow2_close(img), 0);
}

#define DEPTH 48u

struct ticket {
    struct chain *c;
    struct iovec iov;
    uint64_t off;
    unsigned seed, *done;
};

static void read_done(void *arg, const struct zqcow2_result *res)
{
    struct ticket *t = arg;

    assert_int_equal(res->ret, 0);
    compare(t->c, t->iov.iov_base, t->off, t->iov.iov_len, t->seed);
    (*t->done)++;
}

/* All at once: their look-ups meet in caches of six slices. */
static void read_queued(struct chain *c, uint64_t cache, unsigned seed)
{
    static uint8_t buf[DEPTH][KiB(32)];
    struct zqcow2_image *img = must_open(c, cache);
    struct ticket t[DEPTH];
    struct zqcow2_queue *q;
    unsigned done = 0;

    assert_int_equal(zqcow2_queue_open(img, DEPTH, &q), 0);
    c->own = c->foreign = false; /* opening blocks, and says so */
    for (unsigned round = 1; round <= 8; round++) {
        for (unsigned i = 0; i < DEPTH; i++) {
            struct zqcow2_request r = {.size = sizeof(r)};
            uint64_t off = (uint64_t)below((uint32_t)(c->size[0] / 512)) * 512;
            uint64_t len = (uint64_t)(1 + below(64)) * 512;

            len = len < c->size[0] - off ? len : c->size[0] - off;
            t[i] = (struct ticket){c, {buf[i], len}, off, seed, &done};
            r.op = ZQCOW2_OP_READ;
            r.offset = off;
            r.iov = &t[i].iov;
            r.iovcnt = 1;
            r.done = read_done;
            r.arg = &t[i];
            assert_int_equal(zqcow2_queue_submit(q, &r, 1), 1);
        }
        while (done < round * DEPTH)
            assert_true(zqcow2_queue_wait(q, 1, -1) >= 0);
    }
    assert_int_equal(zqcow2_queue_close(q), 0);
    assert_int_equal(zqcow2_close(img), 0);
}

static void chains_read_as_their_layers(void **state)
{
    unsigned seeds = 40;

    (void)state;
    for (unsigned seed = 1; seed <= seeds; seed++) {
        struct chain c;

        rng = seed;
        chain_make(&c, 1 + below(LAYERS), below(2) && seed % 4);
        read_blocking(&c, 0, seed);
        read_blocking(&c, 1, seed);
        read_queued(&c, 1, seed);
        c.threads = 1 + below(3);
        read_blocking(&c, 1, seed);
        read_queued(&c, 1, seed);
        read_queued(&c, 0, seed);
        chain_free(&c);
    }
    printf("chains of 1 to %u layers: %u, read in 6 ways\n", LAYERS, seeds);
}

/* The thread of an event loop is not the one that waits for a source. */
static void sources_of_asynchronous_images_block_nobody(void **state)
{
    struct zqcow2_image *img;
    uint8_t buf[512];
    struct chain c;

    (void)state;
    rng = 5;
    chain_make(&c, 3, true);
    img = must_open(&c, 0);
    assert_int_equal(zqcow2_read(img, buf, 512, 0), 0);
    assert_true(c.own && !c.foreign);
    assert_int_equal(zqcow2_close(img), 0);
    c.threads = 1;
    read_queued(&c, 0, 5);
    assert_true(c.foreign && !c.own);
    chain_free(&c);
}

static void a_source_that_fails(void **state)
{
    struct zqcow2_image *img;
    uint8_t buf[512];
    struct chain c;

    (void)state;
    for (unsigned threads = 0; threads < 2; threads++) {
        unsigned failed = 0;

        rng = 7;
        chain_make(&c, 3, false);
        c.threads = threads;
        img = must_open(&c, 1);
        for (uint64_t off = 0; off < c.size[0]; off += 512) {
            int rc;

            c.read_error = off / 512 % 2 ? -EIO : 0;
            rc = zqcow2_read(img, buf, 512, off);
            assert_true(rc == 0 || (rc == -EIO && c.read_error));
            failed += rc < 0;
            if (rc == 0)
                compare(&c, buf, off, 512, 7);
        }
        assert_true(failed);
        assert_int_equal(zqcow2_close(img), 0);
        chain_free(&c);
    }
}

/* ---- what is refused ---- */

static void refused(struct chain *c, const struct zqcow2_open_options *opt, int code,
                    const char *text)
{
    struct zqcow2_image *img;
    int rc = open_with(c, opt, &img);

    if (rc != code || !strstr(c->err.text, text))
        fail_msg("%d \"%s\", not %d \"%s\"", rc, c->err.text, code, text);
    assert_int_equal(c->heap.live, 0);
}

static void refusals(void **state)
{
    struct zqcow2_open_options opt;
    struct zqcow2_image *img;
    struct chain c;

    (void)state;
    rng = 11;
    chain_make(&c, 2, false);
    opt = options(&c);
    opt.resolve = NULL;
    refused(&c, &opt, ZQCOW2_EFEATURE, "backing file \"1\": there is no resolver");
    refused(&c, NULL, ZQCOW2_EFEATURE, "backing file \"1\": there is no resolver");
    opt = options(&c);
    c.fail = -EACCES;
    refused(&c, &opt, -EACCES, "backing file \"1\": Permission denied");
    c.fail = 0;
    c.polled = true;
    refused(&c, &opt, ZQCOW2_EFEATURE, "backing file \"1\": its backend must be polled");
    c.polled = false;
    opt.flags = ZQCOW2_OPEN_RDWR | ZQCOW2_OPEN_NO_BACKING;
    refused(&c, &opt, -EINVAL, "NO_BACKING");
    name_source(&c.store[0], "1", "vmdk");
    opt = options(&c);
    refused(&c, &opt, ZQCOW2_EFEATURE, "backing file \"1\": format \"vmdk\" is not supported");
    name_source(&c.store[0], "1", "");
    opt.backing_format = NULL;
    refused(&c, &opt, ZQCOW2_EFEATURE, "backing file \"1\": its format is not stored");
    opt.backing_format = "qcow2";
    c.opened = 0;
    if (open_with(&c, &opt, &img))
        fail_msg("open: %s", c.err.text);
    assert_int_equal(c.opened, 1);
    assert_int_equal(zqcow2_close(img), 0);
    chain_free(&c);
}

static int itself(void *arg, const char *name, const char *format, uint32_t depth,
                  struct zqcow2_backend **be, struct zqcow2_error *err)
{
    struct chain *c = arg;

    (void)name;
    (void)format;
    (void)depth;
    (void)err;
    c->opened++;
    *be = backend_of(&c->store[1]);
    return 0;
}

static void a_chain_without_end(void **state)
{
    struct zqcow2_open_options opt;
    struct chain c;

    (void)state;
    rng = 13;
    chain_make(&c, 2, false);
    name_source(&c.store[1], "1", "qcow2");
    opt = options(&c);
    opt.resolve = itself;
    refused(&c, &opt, ZQCOW2_EFEATURE, "longer than 64");
    assert_int_equal(c.opened, 64);
    chain_free(&c);
}

/* The image itself can be looked at without its sources. */
static void without_sources(void **state)
{
    struct zqcow2_backing b = ZQCOW2_BACKING_INIT;
    struct zqcow2_info info = ZQCOW2_INFO_INIT;
    struct zqcow2_open_options opt;
    struct zqcow2_image *img;
    unsigned absent = 0;
    uint8_t buf[512];
    struct chain c;

    (void)state;
    rng = 17;
    chain_make(&c, 2, false);
    opt = options(&c);
    opt.flags = ZQCOW2_OPEN_NO_BACKING;
    assert_int_equal(open_with(&c, &opt, &img), 0);
    assert_int_equal(c.opened, 0);
    assert_int_equal(zqcow2_get_info(img, &info), 0);
    assert_true(info.flags & ZQCOW2_INFO_BACKING);
    assert_int_equal(zqcow2_get_backing(img, &b), 0);
    assert_string_equal(b.name, "1");
    assert_string_equal(b.format, "qcow2");
    for (uint64_t off = 0; off < c.size[0]; off += 512) {
        struct zqcow2_extent e = ZQCOW2_EXTENT_INIT;
        int rc = zqcow2_read(img, buf, 512, off);

        assert_int_equal(zqcow2_block_status(img, off, 512, &e), 0);
        assert_int_equal(rc, e.kind == ZQCOW2_BLOCK_UNALLOCATED ? ZQCOW2_EFEATURE : 0);
        absent += rc < 0;
        if (rc == 0)
            compare(&c, buf, off, 512, 17);
    }
    assert_true(absent);
    assert_int_equal(zqcow2_close(img), 0);
    chain_free(&c);
}

/* Wherever memory ends while a chain is opened or read, nothing is lost or kept. */
static void without_memory(void **state)
{
    struct chain c;

    (void)state;
    for (unsigned threads = 0; threads < 2; threads++) {
        bool opened = false;

        rng = 19;
        chain_make(&c, 3, false);
        c.threads = threads;
        for (unsigned n = 1; !opened; n++) {
            struct zqcow2_open_options opt = options(&c);
            struct zqcow2_image *img;
            int rc;

            heap_plan(&c.heap, n, true);
            rc = open_with(&c, &opt, &img);
            heap_plan(&c.heap, 0, false);
            opened = rc == 0;
            assert_true(rc == 0 || rc == -ENOMEM);
            if (opened)
                assert_int_equal(zqcow2_close(img), 0);
            assert_int_equal(c.heap.live, 0);
        }
        chain_free(&c);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(chains_read_as_their_layers),
        cmocka_unit_test(sources_of_asynchronous_images_block_nobody),
        cmocka_unit_test(a_source_that_fails),
        cmocka_unit_test(refusals),
        cmocka_unit_test(a_chain_without_end),
        cmocka_unit_test(without_sources),
        cmocka_unit_test(without_memory),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
