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
#include "rig/chain.h"

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
    chain_compare(t->c, t->iov.iov_base, t->off, t->iov.iov_len, t->seed);
    (*t->done)++;
}

/* All at once: their look-ups meet in caches of six slices. */
static void read_queued(struct chain *c, uint64_t cache, unsigned seed)
{
    static uint8_t buf[DEPTH][KiB(32)];
    struct zqcow2_image *img = chain_must_open(c, cache);
    struct ticket t[DEPTH];
    struct zqcow2_queue *q;
    unsigned done = 0;

    assert_int_equal(zqcow2_queue_open(img, DEPTH, &q), 0);
    c->own = c->foreign = false; /* opening blocks, and says so */
    for (unsigned round = 1; round <= 8; round++) {
        for (unsigned i = 0; i < DEPTH; i++) {
            struct zqcow2_request r = {.size = sizeof(r)};
            uint64_t off = (uint64_t)chain_below((uint32_t)(c->size[0] / 512)) * 512;
            uint64_t len = (uint64_t)(1 + chain_below(64)) * 512;

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

        chain_rng = seed;
        chain_make(&c, 1 + chain_below(LAYERS), chain_below(2) && seed % 4);
        chain_read(&c, 0, seed);
        chain_read(&c, 1, seed);
        read_queued(&c, 1, seed);
        c.threads = 1 + chain_below(3);
        chain_read(&c, 1, seed);
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
    chain_rng = 5;
    chain_make(&c, 3, true);
    img = chain_must_open(&c, 0);
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

        chain_rng = 7;
        chain_make(&c, 3, false);
        c.threads = threads;
        img = chain_must_open(&c, 1);
        for (uint64_t off = 0; off < c.size[0]; off += 512) {
            int rc;

            c.read_error = off / 512 % 2 ? 0 : -EIO; /* of the first one: of tables, too */
            rc = zqcow2_read(img, buf, 512, off);
            assert_true(rc == 0 || (rc == -EIO && c.read_error));
            failed += rc < 0;
            if (rc == 0)
                chain_compare(&c, buf, off, 512, 7);
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
    int rc = chain_open(c, opt, &img);

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
    chain_rng = 11;
    chain_make(&c, 2, false);
    opt = chain_options(&c);
    opt.resolve = NULL;
    refused(&c, &opt, ZQCOW2_EFEATURE, "backing file \"1\": there is no resolver");
    refused(&c, NULL, ZQCOW2_EFEATURE, "backing file \"1\": there is no resolver");
    opt = chain_options(&c);
    c.fail = -EACCES;
    refused(&c, &opt, -EACCES, "backing file \"1\": Permission denied");
    for (c.fail = 1; c.fail < 3; c.fail++) /* neither a success nor an error */
        refused(&c, &opt, -EIO, "backing file \"1\": Input/output error");
    c.fail = 0;
    c.polled = true;
    refused(&c, &opt, ZQCOW2_EFEATURE, "backing file \"1\": its backend must be polled");
    c.polled = false;
    opt.flags = ZQCOW2_OPEN_RDWR | ZQCOW2_OPEN_NO_BACKING;
    refused(&c, &opt, -EINVAL, "NO_BACKING");
    opt = chain_options(&c);
    opt.backing_format = "vdi"; /* although the image names one */
    refused(&c, &opt, -EINVAL, "backing_format");
    chain_name(&c.store[0], "1", "vmdk");
    opt = chain_options(&c);
    refused(&c, &opt, ZQCOW2_EFEATURE, "backing file \"1\": format \"vmdk\" is not supported");
    chain_name(&c.store[0], "1", "");
    opt.backing_format = NULL;
    refused(&c, &opt, ZQCOW2_EFEATURE, "backing file \"1\": its format is not stored");
    opt.backing_format = "qcow2";
    c.opened = 0;
    if (chain_open(&c, &opt, &img))
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
    *be = chain_backend(&c->store[1]);
    return 0;
}

static void a_chain_without_end(void **state)
{
    struct zqcow2_open_options opt;
    struct chain c;

    (void)state;
    chain_rng = 13;
    chain_make(&c, 2, false);
    chain_name(&c.store[1], "1", "qcow2");
    opt = chain_options(&c);
    opt.resolve = itself;
    refused(&c, &opt, ZQCOW2_EFEATURE, "more than 64 backing files");
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
    chain_rng = 17;
    chain_make(&c, 2, false);
    opt = chain_options(&c);
    opt.flags = ZQCOW2_OPEN_NO_BACKING;
    assert_int_equal(chain_open(&c, &opt, &img), 0);
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
            chain_compare(&c, buf, off, 512, 17);
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

        chain_rng = 19;
        chain_make(&c, 3, false);
        c.threads = threads;
        for (unsigned n = 1; !opened; n++) {
            struct zqcow2_open_options opt = chain_options(&c);
            struct zqcow2_image *img;
            int rc;

            heap_plan(&c.heap, n, true);
            rc = chain_open(&c, &opt, &img);
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
