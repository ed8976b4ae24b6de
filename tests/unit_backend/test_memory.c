/* SPDX-License-Identifier: MIT */
/* The memory backend: sparse, growing, honest about memory, and safe under threads. */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "device/backend.h"
#include "count_hooks.h"

static struct count_hooks hooks;

static struct zqcow2_backend *open_mem(uint64_t bytes)
{
    struct zqcow2_backend *be;

    count_init(&hooks);
    assert_int_equal(zqcow2_mem_open(bytes, &hooks.hooks, &be), 0);
    return be;
}

static void close_mem(struct zqcow2_backend *be)
{
    zqcow2_backend_close(be);
    assert_int_equal(hooks.bytes, 0);
}

static uint64_t length_of(struct zqcow2_backend *be)
{
    uint64_t n = 0;

    assert_int_equal(zqcow2_backend_length(be, &n), 0);
    return n;
}

static void test_huge_costs_nothing(void **state)
{
    struct zqcow2_backend *be = open_mem(1ull << 62);
    uint8_t buf[1000];

    (void)state;
    assert_int_equal(length_of(be), 1ull << 62);
    assert_true(hooks.bytes < 64 * 1024);
    memset(buf, 1, sizeof(buf));
    assert_int_equal(zqcow2_backend_read(be, buf, sizeof(buf), (1ull << 62) - 500), 0);
    for (size_t i = 0; i < sizeof(buf); i++)
        assert_int_equal(buf[i], 0);
    memset(buf, 0xa5, sizeof(buf));
    assert_int_equal(zqcow2_backend_write(be, buf, sizeof(buf), (1ull << 61) - 500), 0);
    assert_true(hooks.bytes < 256 * 1024);
    memset(buf, 0, sizeof(buf));
    assert_int_equal(zqcow2_backend_read(be, buf, sizeof(buf), (1ull << 61) - 500), 0);
    for (size_t i = 0; i < sizeof(buf); i++)
        assert_int_equal(buf[i], 0xa5);
    close_mem(be);
}

static void test_length_grows(void **state)
{
    struct zqcow2_backend *be = open_mem(0);
    struct zqcow2_limits l;
    uint8_t buf[100] = {7};

    (void)state;
    assert_int_equal(length_of(be), 0);
    assert_int_equal(zqcow2_backend_write(be, buf, 100, 5000), 0);
    assert_int_equal(length_of(be), 5100);
    assert_int_equal(zqcow2_backend_write(be, buf, 100, 0), 0);
    assert_int_equal(be->ops.writev(be->self, &(struct iovec){buf, 0}, 1, 9000), 0);
    assert_int_equal(length_of(be), 5100);
    assert_int_equal(zq_be_truncate(be, 6000), 0);
    assert_int_equal(length_of(be), 6000);
    assert_int_equal(zqcow2_backend_read(be, &l, 1, UINT64_MAX), -EOVERFLOW);
    assert_int_equal(be->ops.truncate(be->self, 1ull << 63), -EFBIG);
    assert_int_equal(zqcow2_mem_open(1ull << 63, NULL, &be), -EFBIG);
    assert_int_equal(zqcow2_mem_open(1, NULL, NULL), -EINVAL);
    close_mem(be);
}

/* What a shrink cuts off is gone, also within the last page. */
static void test_truncate_forgets(void **state)
{
    struct zqcow2_backend *be = open_mem(0);
    uint8_t buf[50000];

    (void)state;
    memset(buf, 0xff, sizeof(buf));
    assert_int_equal(zqcow2_backend_write(be, buf, sizeof(buf), 0), 0);
    assert_int_equal(zq_be_truncate(be, 20001), 0);
    assert_int_equal(zq_be_truncate(be, 50000), 0);
    assert_int_equal(zqcow2_backend_read(be, buf, sizeof(buf), 0), 0);
    for (size_t i = 0; i < sizeof(buf); i++)
        assert_int_equal(buf[i], i < 20001 ? 0xff : 0);
    close_mem(be);
}

static void test_discard_frees(void **state)
{
    struct zqcow2_backend *be = open_mem(1ull << 40);
    static uint8_t buf[1 << 20];
    int64_t empty = hooks.bytes;

    (void)state;
    memset(buf, 3, sizeof(buf));
    for (uint64_t i = 0; i < 8; i++)
        assert_int_equal(zqcow2_backend_write(be, buf, sizeof(buf), i << 36), 0);
    assert_true(hooks.bytes >= 8 << 20);
    assert_int_equal(be->ops.discard(be->self, 3ull << 36, 1ull << 36), 0);
    assert_true(hooks.bytes < (8 << 20));
    assert_int_equal(zqcow2_backend_read(be, buf, 1000, 3ull << 36), 0);
    assert_int_equal(buf[0] | buf[999], 0);
    assert_int_equal(zqcow2_backend_read(be, buf, 1000, 4ull << 36), 0);
    assert_int_equal(buf[0] & buf[999], 3);
    assert_int_equal(length_of(be), 1ull << 40);
    assert_int_equal(be->ops.discard(be->self, 0, UINT64_MAX), 0);
    assert_int_equal(hooks.bytes, empty);
    close_mem(be);
}

#define MODEL_BYTES (1u << 20)

static void test_against_array(void **state)
{
    static uint8_t model[MODEL_BYTES], buf[MODEL_BYTES];
    /* Far out, so that the range straddles slots of the upper levels. */
    const uint64_t base = (1ull << 44) - MODEL_BYTES / 2;
    struct zqcow2_backend *be = open_mem(base + MODEL_BYTES);
    uint64_t s = 42;

    (void)state;
    memset(model, 0, sizeof(model));
    for (int i = 0; i < 3000; i++) {
        uint32_t off = (uint32_t)(next_random(&s) % MODEL_BYTES);
        uint32_t len = (uint32_t)(next_random(&s) % (next_random(&s) % 8 ? 40000 : MODEL_BYTES));
        len = len < MODEL_BYTES - off ? len : MODEL_BYTES - off;
        switch (next_random(&s) % 3) {
        case 0:
            memset(buf, i & 0xff, len);
            memset(model + off, i & 0xff, len);
            assert_int_equal(zqcow2_backend_write(be, buf, len, base + off), 0);
            break;
        case 1:
            memset(model + off, 0, len);
            assert_int_equal(zq_be_zero(be, base + off, len), 0);
            break;
        default:
            assert_int_equal(zqcow2_backend_read(be, buf, len, base + off), 0);
            if (memcmp(buf, model + off, len))
                fail_msg("seed 42, step %d: %u bytes at %u differ", i, len, off);
        }
    }
    close_mem(be);
}

/* Every allocation fails once: an error, no leak, and the next attempt works. */
static void test_out_of_memory(void **state)
{
    uint8_t buf[40000];
    int64_t n = 1;
    int rc = -ENOMEM;

    (void)state;
    memset(buf, 9, sizeof(buf));
    for (; rc; n++) {
        struct zqcow2_backend *be = NULL;
        count_init(&hooks);
        hooks.fail_at = n;
        rc = zqcow2_mem_open(1 << 20, &hooks.hooks, &be);
        if (rc == 0) {
            rc = zqcow2_backend_write(be, buf, sizeof(buf), 100);
            hooks.fail_at = 0;
            assert_int_equal(zqcow2_backend_write(be, buf, sizeof(buf), 100), 0);
        }
        assert_true(rc == 0 || rc == -ENOMEM);
        zqcow2_backend_close(be);
        if (hooks.bytes)
            fail_msg("allocation %lld failing leaks %lld bytes", (long long)n,
                     (long long)hooks.bytes);
    }
    assert_true(n > 5);
}

struct worker {
    struct zqcow2_backend *be;
    unsigned id;
    int rc;
};

/* Each thread owns every fourth stripe of 1000 bytes: neighbours share pages and nodes. */
static void *stripes(void *arg)
{
    struct worker *w = arg;
    uint8_t buf[1000], back[1000];

    memset(buf, (int)w->id + 1, sizeof(buf));
    for (unsigned i = 0; i < 400 && w->rc == 0; i++) {
        uint64_t off = (i * 4ull + w->id) * 1000;
        w->rc = zqcow2_backend_write(w->be, buf, sizeof(buf), off);
        if (i % 7 == 6 && w->rc == 0)
            w->rc = zq_be_zero(w->be, off, sizeof(buf));
        if (w->rc == 0)
            w->rc = zqcow2_backend_read(w->be, back, sizeof(back), off);
        if (w->rc == 0 && back[500] != (i % 7 == 6 ? 0 : w->id + 1))
            w->rc = -EILSEQ;
    }
    return NULL;
}

static void test_threads(void **state)
{
    (void)state;
    for (int round = 0; round < 20; round++) {
        struct zqcow2_backend *be = open_mem(0);
        struct worker w[4];
        pthread_t t[4];

        for (unsigned i = 0; i < 4; i++) {
            w[i] = (struct worker){be, i, 0};
            assert_int_equal(pthread_create(&t[i], NULL, stripes, &w[i]), 0);
        }
        for (unsigned i = 0; i < 4; i++) {
            pthread_join(t[i], NULL);
            assert_int_equal(w[i].rc, 0);
        }
        assert_int_equal(length_of(be), 1600000);
        close_mem(be);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_huge_costs_nothing),
        cmocka_unit_test(test_length_grows),
        cmocka_unit_test(test_truncate_forgets),
        cmocka_unit_test(test_discard_frees),
        cmocka_unit_test(test_against_array),
        cmocka_unit_test(test_out_of_memory),
        cmocka_unit_test(test_threads),
    };

    return cmocka_run_group_tests_name("memory", tests, NULL, NULL);
}
