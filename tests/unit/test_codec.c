/* SPDX-License-Identifier: MIT */
/* Compressed clusters: where they lie, what they inflate to, what is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <errno.h>
#include <zlib.h>
#include <zstd.h>

#include <cmocka.h>

#include "format/codec.h"

#define LEN 65536u

/* Hooks that count what is out and can fail the n-th allocation. */
struct heap {
    size_t out;
    int left; /* allocations until one fails; < 0: none does */
};

static void *heap_alloc(void *ctx, size_t align, size_t size)
{
    struct heap *h = ctx;

    (void)align;
    if (h->left == 0)
        return NULL;
    h->left -= h->left > 0;
    h->out += size;
    return malloc(size);
}

static void heap_free(void *ctx, void *p, size_t size)
{
    struct heap *h = ctx;

    h->out -= size;
    free(p);
}

static struct heap heap;
static struct zqcow2_hooks hooks = {sizeof(hooks), &heap, heap_alloc, heap_free, NULL, 0, 0};
static uint8_t plain[2 * LEN], packed[4 * LEN], out[LEN + 8];

static void fill(void)
{
    unsigned x = 1;

    for (size_t i = 0; i < sizeof(plain); i++) {
        x = x * 1103515245u + 12345;
        plain[i] = (uint8_t)(i % 64 < 40 ? i / 64 : x >> 16);
    }
}

static size_t deflate_raw(size_t n, int window)
{
    z_stream z = {0};

    z.next_in = plain;
    z.avail_in = (uInt)n;
    z.next_out = packed;
    z.avail_out = sizeof(packed);
    assert_int_equal(deflateInit2(&z, 6, Z_DEFLATED, -window, 8, Z_DEFAULT_STRATEGY), Z_OK);
    assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
    deflateEnd(&z);
    return z.total_out;
}

static size_t zstd_pack(size_t n, int window_log, int checksum, int with_size)
{
    ZSTD_CCtx *c = ZSTD_createCCtx();
    size_t got;

    ZSTD_CCtx_setParameter(c, ZSTD_c_windowLog, window_log);
    ZSTD_CCtx_setParameter(c, ZSTD_c_checksumFlag, checksum);
    ZSTD_CCtx_setParameter(c, ZSTD_c_contentSizeFlag, with_size);
    if (with_size) {
        got = ZSTD_compress2(c, packed, sizeof(packed), plain, n);
    } else { /* streamed, so that the frame says its window and not its size */
        ZSTD_inBuffer in = {plain, n, 0};
        ZSTD_outBuffer o = {packed, sizeof(packed), 0};
        while (in.pos < in.size)
            ZSTD_compressStream2(c, &o, &in, ZSTD_e_continue);
        while (ZSTD_compressStream2(c, &o, &in, ZSTD_e_end)) {}
        got = o.pos;
    }
    ZSTD_freeCCtx(c);
    assert_false(ZSTD_isError(got));
    return got;
}

static int unpack(enum zq_compression type, size_t in_len)
{
    uint8_t *in = malloc(in_len ? in_len : 1); /* of exactly this size: reads beyond are seen */
    int rc;

    memcpy(in, packed, in_len);
    memset(out, 0xee, sizeof(out));
    heap = (struct heap){0, -1};
    rc = zq_decompress(&hooks, type, in, in_len, out, LEN);
    free(in);
    assert_int_equal(heap.out, 0);
    assert_memory_equal(out + LEN, "\xee\xee\xee\xee\xee\xee\xee\xee", 8);
    if (rc == 0)
        assert_memory_equal(out, plain, LEN);
    return rc;
}

static void test_zlib(void **state)
{
    size_t n;

    (void)state;
    for (int window = 9; window <= 15; window++) {
        n = deflate_raw(LEN, window);
        assert_int_equal(unpack(ZQ_ZLIB, n), 0);
    }
    memset(packed + n, 0xa5, 511); /* the rest of the sector */
    assert_int_equal(unpack(ZQ_ZLIB, n + 511), 0);
}

static void test_zlib_refused(void **state)
{
    size_t n = deflate_raw(LEN, 12);

    (void)state;
    assert_int_equal(unpack(ZQ_ZLIB, n / 2), ZQCOW2_ECORRUPT);
    assert_int_equal(unpack(ZQ_ZLIB, 0), ZQCOW2_ECORRUPT);
    n = deflate_raw(LEN - 1, 12);
    assert_int_equal(unpack(ZQ_ZLIB, n), ZQCOW2_ECORRUPT);
    n = deflate_raw(LEN + 1, 12);
    assert_int_equal(unpack(ZQ_ZLIB, n), ZQCOW2_ECORRUPT);
    n = deflate_raw(2 * LEN, 12);
    assert_int_equal(unpack(ZQ_ZLIB, n), ZQCOW2_ECORRUPT);
    memset(packed, 0xff, 512);
    assert_int_equal(unpack(ZQ_ZLIB, 512), ZQCOW2_ECORRUPT);
}

static void test_zstd(void **state)
{
    size_t n = 0;

    (void)state;
    for (int i = 0; i < 8; i++) {
        n = zstd_pack(LEN, i & 1 ? 22 : 10, i >> 1 & 1, i >> 2 & 1);
        assert_int_equal(unpack(ZQ_ZSTD, n), 0);
    }
    memset(packed + n, 0xa5, 511);
    assert_int_equal(unpack(ZQ_ZSTD, n + 511), 0);
}

/* The cluster may be cut into several frames. */
static void test_zstd_frames(void **state)
{
    size_t n = 0;

    (void)state;
    for (size_t i = 0; i < 4; i++)
        n += ZSTD_compress(packed + n, sizeof(packed) - n, plain + i * LEN / 4, LEN / 4, 3);
    assert_int_equal(unpack(ZQ_ZSTD, n), 0);
    assert_int_equal(unpack(ZQ_ZSTD, n - 8), ZQCOW2_ECORRUPT);
}

static void test_zstd_refused(void **state)
{
    size_t n = zstd_pack(LEN, 17, 1, 0);

    (void)state;
    assert_int_equal(unpack(ZQ_ZSTD, n / 2), ZQCOW2_ECORRUPT);
    assert_int_equal(unpack(ZQ_ZSTD, 0), ZQCOW2_ECORRUPT);
    packed[n - 1] ^= 1; /* the checksum */
    assert_int_equal(unpack(ZQ_ZSTD, n), ZQCOW2_ECORRUPT);
    for (int with_size = 0; with_size < 2; with_size++) {
        n = zstd_pack(LEN - 1, 17, 0, with_size);
        assert_int_equal(unpack(ZQ_ZSTD, n), ZQCOW2_ECORRUPT);
        n = zstd_pack(LEN + 1, 17, 0, with_size);
        assert_int_equal(unpack(ZQ_ZSTD, n), ZQCOW2_ECORRUPT);
    }
    n = zstd_pack(LEN, 23, 0, 0); /* the decoder would want 8 MiB */
    assert_int_equal(unpack(ZQ_ZSTD, n), ZQCOW2_ECORRUPT);
}

/* A frame with its size and one stored block, by hand; log: of the window it asks for. */
static int stored_frame(unsigned log)
{
    static const uint8_t head[] = {0x28, 0xb5, 0x2f, 0xfd, 0x40, 0, 0x00, 0xff, 1, 0, 8};

    memcpy(packed, head, sizeof(head)); /* size 65536 - 256; block: last, stored, 65536 */
    packed[5] = (uint8_t)((log - 10) << 3);
    memcpy(packed + sizeof(head), plain, LEN);
    return unpack(ZQ_ZSTD, sizeof(head) + LEN);
}

/* Also where the decoder could do without the window. */
static void test_zstd_window(void **state)
{
    (void)state;
    assert_int_equal(stored_frame(17), 0);
    assert_int_equal(stored_frame(22), 0);
    assert_int_equal(stored_frame(23), ZQCOW2_ECORRUPT);
    assert_int_equal(stored_frame(31), ZQCOW2_ECORRUPT);
}

/* Every allocation may fail; nothing is lost then. */
static void test_no_memory(void **state)
{
    (void)state;
    for (int type = ZQ_ZLIB; type <= ZQ_ZSTD; type++) {
        size_t n = type == ZQ_ZLIB ? deflate_raw(LEN, 15) : zstd_pack(LEN, 20, 0, 0);
        int rc = -1, failed;

        for (failed = 0; rc; failed++) {
            heap = (struct heap){0, failed};
            rc = zq_decompress(&hooks, (enum zq_compression)type, packed, n, out, LEN);
            assert_int_equal(heap.out, 0);
            if (rc != 0 && rc != -ENOMEM)
                fail_msg("type %d, allocation %d fails: %d", type, failed, rc);
        }
        assert_true(failed > 1);
    }
}

/* Damage of any kind must end, with an error or with another cluster, and leave nothing behind. */
static void test_damage(void **state)
{
    unsigned x = 7;

    (void)state;
    for (int round = 0; round < 2000; round++) {
        bool zstd = round & 1;
        size_t n = zstd ? zstd_pack(LEN, 17, 0, round >> 1 & 1) : deflate_raw(LEN, 12);
        int rc;

        x = x * 1103515245u + 12345;
        packed[(x >> 8) % n] ^= (uint8_t)(1u << (x >> 4 & 7));
        heap = (struct heap){0, -1};
        rc = zq_decompress(&hooks, zstd ? ZQ_ZSTD : ZQ_ZLIB, packed, n, out, LEN);
        if ((rc != 0 && rc != ZQCOW2_ECORRUPT) || heap.out)
            fail_msg("round %d: %d, %zu bytes left", round, rc, heap.out);
    }
}

static int group_setup(void **state)
{
    (void)state;
    fill();
    return 0;
}

/* QEMU's inflate has a window of 4 KiB: it must do. */
static void inflate_small(size_t len)
{
    z_stream z = {.next_in = packed, .avail_in = (uInt)len, .next_out = out, .avail_out = LEN};

    assert_int_equal(inflateInit2(&z, -12), Z_OK);
    assert_int_equal(inflate(&z, Z_FINISH), Z_STREAM_END);
    assert_int_equal(z.total_out, LEN);
    inflateEnd(&z);
    assert_memory_equal(out, plain, LEN);
}

static void test_packed(void **state)
{
    (void)state;
    fill();
    for (int type = ZQ_ZLIB; type <= ZQ_ZSTD; type++) {
        enum zq_compression t = (enum zq_compression)type;
        size_t size, small;
        int n = 0, rc;

        heap.left = -1;
        assert_int_equal(zq_compress(&hooks, t, 0, plain, LEN, packed, LEN, &size), 0);
        assert_true(size && size < LEN * 3 / 4);
        if (t == ZQ_ZLIB)
            inflate_small(size);
        memset(out, 1, LEN);
        assert_int_equal(zq_decompress(&hooks, t, packed, size, out, LEN), 0);
        assert_memory_equal(out, plain, LEN);
        assert_int_equal(zq_compress(&hooks, t, 0, plain, LEN, packed, size - 1, &small), 0);
        assert_int_equal(small, 0); /* no room */
        assert_int_equal(zq_compress(&hooks, t, 0, plain, LEN, packed, 0, &small), 0);
        assert_int_equal(small, 0);
        do {
            heap.left = n++;
            rc = zq_compress(&hooks, t, 0, plain, LEN, packed, LEN, &size);
            assert_true(rc == 0 || rc == -ENOMEM);
        } while (rc);
        assert_true(n > 1);
        heap.left = -1;
        assert_int_equal(heap.out, 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_zlib),         cmocka_unit_test(test_zlib_refused),
        cmocka_unit_test(test_zstd),         cmocka_unit_test(test_zstd_frames),
        cmocka_unit_test(test_zstd_refused), cmocka_unit_test(test_zstd_window),
        cmocka_unit_test(test_no_memory),    cmocka_unit_test(test_damage),
        cmocka_unit_test(test_packed),
    };

    return cmocka_run_group_tests(tests, group_setup, NULL);
}
