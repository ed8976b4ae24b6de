/* SPDX-License-Identifier: MIT */
/* The floor: arithmetic, lists, hooks, structs that grow, errors and their texts. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "base/bytes.h"
#include "base/list.h"
#include "base/mem.h"
#include "base/report.h"
#include "base/sort.h"

static void integers_lie_in_files_as_they_should(void **state)
{
    uint8_t b[8];

    (void)state;
    zq_put_be64(b, 0x0102030405060708u);
    assert_memory_equal(b, "\1\2\3\4\5\6\7\10", 8);
    assert_int_equal(zq_be16(b), 0x0102);
    assert_int_equal(zq_be32(b), 0x01020304);
    assert_true(zq_be64(b) == 0x0102030405060708u);
    assert_true(zq_le64(b) == 0x0807060504030201u);
    zq_put_le64(b, 0x0102030405060708u);
    assert_memory_equal(b, "\10\7\6\5\4\3\2\1", 8);
    zq_put_be32(b, 0xfffefdfcu);
    assert_memory_equal(b, "\xff\xfe\xfd\xfc", 4);
    zq_put_be16(b, 0xff01);
    assert_memory_equal(b, "\xff\x01", 2);
}

static void arithmetic_is_right_at_its_edges(void **state)
{
    uint64_t sum;

    (void)state;
    assert_true(zq_align_up(511, 512) == 512 && zq_align_up(512, 512) == 512);
    assert_true(zq_align_down(1023, 512) == 512 && zq_align_up(0, 512) == 0);
    assert_true(zq_div_up(UINT64_MAX, 2) == (UINT64_C(1) << 63));
    assert_false(zq_is_pow2(0));
    assert_true(zq_is_pow2(1) && zq_is_pow2(UINT64_C(1) << 63) && !zq_is_pow2(3));
    assert_int_equal(zq_ctz(UINT64_C(1) << 40), 40);
    assert_true(zq_add_overflows(UINT64_MAX, 1, &sum));
    assert_false(zq_add_overflows(UINT64_MAX - 1, 1, &sum));
    assert_true(sum == UINT64_MAX);
    assert_true(zq_ranges_overlap(0, 10, 9, 1));
    assert_false(zq_ranges_overlap(0, 10, 10, 1));
    assert_false(zq_ranges_overlap(0, 0, 0, 10));
}

static void a_list_keeps_its_order_and_removal_is_harmless_twice(void **state)
{
    struct zq_list l, e[3];

    (void)state;
    zq_list_init(&l);
    assert_true(zq_list_empty(&l));
    for (int i = 0; i < 3; i++)
        zq_list_push(&l, &e[i]);
    zq_list_del(&e[1]);
    zq_list_del(&e[1]);
    assert_ptr_equal(zq_list_pop(&l), &e[0]);
    assert_ptr_equal(zq_list_pop(&l), &e[2]);
    assert_true(zq_list_empty(&l));
}

/* A struct as a caller may have it: of an older, this, or a newer header. */
struct grown {
    size_t size;
    uint64_t a, b, newer;
};
#define KNOWN offsetof(struct grown, newer)

static void a_struct_may_be_shorter_or_longer_than_the_library_knows(void **state)
{
    struct grown in = {sizeof(in), 1, 2, 0}, out;

    (void)state;
    assert_int_equal(zq_copy_sized(&out, KNOWN, &in, sizeof(size_t)), 0);
    assert_true(out.size == KNOWN && out.a == 1 && out.b == 2);
    in.newer = 3;
    assert_int_equal(zq_copy_sized(&out, KNOWN, &in, sizeof(size_t)), -E2BIG);
    in.size = offsetof(struct grown, b);
    assert_int_equal(zq_copy_sized(&out, KNOWN, &in, sizeof(size_t)), 0);
    assert_true(out.a == 1 && out.b == 0);
    in.size = sizeof(size_t) - 1;
    assert_int_equal(zq_copy_sized(&out, KNOWN, &in, sizeof(size_t)), -EINVAL);
}

static void what_is_returned_fits_the_callers_struct(void **state)
{
    struct grown known = {KNOWN, 1, 2, 0}, out = {sizeof(out), 9, 9, 9};

    (void)state;
    assert_int_equal(zq_return_sized(&out, &known, KNOWN, sizeof(size_t)), 0);
    assert_true(out.size == sizeof(out) && out.a == 1 && out.b == 2 && out.newer == 0);
    out = (struct grown){offsetof(struct grown, b), 9, 9, 9};
    assert_int_equal(zq_return_sized(&out, &known, KNOWN, sizeof(size_t)), 0);
    assert_true(out.a == 1 && out.b == 9);
    out.size = 1;
    assert_int_equal(zq_return_sized(&out, &known, KNOWN, sizeof(size_t)), -EINVAL);
}

struct account {
    size_t bytes, align;
    int calls, lines;
    char last[64];
};

static void *count_alloc(void *ctx, size_t align, size_t size)
{
    struct account *a = ctx;

    a->calls++;
    a->bytes += size;
    a->align = align;
    return aligned_alloc(align, zq_align_up(size, align));
}

static void count_free(void *ctx, void *p, size_t size)
{
    ((struct account *)ctx)->bytes -= size;
    free(p);
}

static void count_log(void *ctx, int level, const char *text)
{
    struct account *a = ctx;

    (void)level;
    a->lines++;
    strncpy(a->last, text, sizeof(a->last) - 1);
}

static void memory_goes_through_the_hooks(void **state)
{
    struct account a = {0};
    struct zqcow2_hooks in = ZQCOW2_HOOKS_INIT, h;
    uint8_t *p;

    (void)state;
    in.ctx = &a;
    in.alloc = count_alloc;
    assert_int_equal(zq_hooks_init(&h, &in), -EINVAL); /* one without the other */
    in.free = count_free;
    assert_int_equal(zq_hooks_init(&h, &in), 0);
    p = zq_zalloc_array(&h, 3, 100);
    assert_non_null(p);
    assert_int_equal(a.bytes, 300);
    assert_int_equal(p[0] | p[299], 0);
    zq_free(&h, p, 300);
    zq_free(&h, NULL, 1);
    p = zq_alloc(&h, 4096, 10);
    assert_int_equal(a.align, 4096);
    zq_free(&h, p, 10);
    assert_int_equal(a.bytes, 0);
    assert_null(zq_zalloc_array(&h, SIZE_MAX / 2, 3));
    assert_null(zq_alloc(&h, 1, 0));
    assert_int_equal(a.calls, 2);
}

static void a_stock_keeps_one_and_it_comes_back_empty(void **state)
{
    struct account a = {0};
    struct zqcow2_hooks in = ZQCOW2_HOOKS_INIT, h;
    struct zq_stock s = {0};
    uint8_t *p, *q;

    (void)state;
    in.ctx = &a;
    in.alloc = count_alloc;
    in.free = count_free;
    assert_int_equal(zq_hooks_init(&h, &in), 0);
    p = zq_stock_take(&s, &h, 100);
    q = zq_stock_take(&s, &h, 100);
    assert_int_equal(a.bytes, 200);
    memset(p, 0xff, 100);
    zq_stock_put(&s, &h, p, 100);
    zq_stock_put(&s, &h, q, 100);
    zq_stock_put(&s, &h, NULL, 100);
    assert_int_equal(a.bytes, 100);
    assert_ptr_equal(zq_stock_take(&s, &h, 100), p);
    assert_int_equal(p[0] | p[99], 0);
    assert_int_equal(a.calls, 2);
    zq_stock_put(&s, &h, p, 100);
    zq_free(&h, s.one, 100);
    assert_int_equal(a.bytes, 0);
}

static void the_c_library_serves_without_hooks(void **state)
{
    struct zqcow2_hooks h;
    void *p;

    (void)state;
    assert_int_equal(zq_hooks_init(&h, NULL), 0);
    assert_int_equal(h.log_level, ZQCOW2_LOG_WARN);
    p = zq_alloc(&h, 4096, 1);
    assert_non_null(p);
    assert_int_equal((uintptr_t)p % 4096, 0);
    zq_free(&h, p, 1);
    zq_log(&h, ZQCOW2_LOG_ERROR, "nobody listens");
}

static void hooks_of_no_release_are_refused(void **state)
{
    struct zqcow2_hooks in = ZQCOW2_HOOKS_INIT, h;

    (void)state;
    for (in.log_level = 0; in.log_level <= ZQCOW2_LOG_DEBUG; in.log_level++)
        assert_int_equal(zq_hooks_init(&h, &in), 0);
    assert_int_equal(zq_hooks_init(&h, &in), -EINVAL);
    in.log_level = -1;
    assert_int_equal(zq_hooks_init(&h, &in), -EINVAL);
    in.log_level = 0;
    in.reserved = 1;
    assert_int_equal(zq_hooks_init(&h, &in), -EINVAL);
    in.reserved = 0;
    in.free = count_free;
    assert_int_equal(zq_hooks_init(&h, &in), -EINVAL);
}

static void the_log_hears_what_it_asked_for(void **state)
{
    struct account a = {0};
    struct zqcow2_hooks in = ZQCOW2_HOOKS_INIT, h;

    (void)state;
    in.ctx = &a;
    in.log = count_log;
    assert_int_equal(zq_hooks_init(&h, &in), 0);
    zq_log(&h, ZQCOW2_LOG_INFO, "not this");
    zq_log(&h, ZQCOW2_LOG_WARN, "this, %d", 7);
    assert_int_equal(a.lines, 1);
    assert_string_equal(a.last, "this, 7");
}

static void every_error_has_a_text_and_an_errno(void **state)
{
    static const int own[] = {
        ZQCOW2_EZONE_BOUNDARY, ZQCOW2_EZONE_FULL, ZQCOW2_EZONE_RDONLY, ZQCOW2_EZONE_OFFLINE,
        ZQCOW2_EZONE_WP,       ZQCOW2_EZONE_OPEN, ZQCOW2_EZONE_ACTIVE, ZQCOW2_EZONE_STATE,
        ZQCOW2_ENOTQCOW2,      ZQCOW2_ENOTZONED,  ZQCOW2_EFEATURE,     ZQCOW2_ECORRUPT,
        ZQCOW2_EDEAD,          ZQCOW2_EINACTIVE,
    };

    (void)state;
    for (size_t i = 0; i < sizeof(own) / sizeof(own[0]); i++) {
        assert_string_not_equal(zqcow2_strerror(own[i]), "unknown error");
        assert_true(zqcow2_errno(own[i]) > 0);
        for (size_t j = 0; j < i; j++)
            assert_string_not_equal(zqcow2_strerror(own[i]), zqcow2_strerror(own[j]));
    }
    assert_int_equal(zqcow2_errno(ZQCOW2_EZONE_ACTIVE), EOVERFLOW);
    assert_int_equal(zqcow2_errno(ZQCOW2_EZONE_OPEN), ETOOMANYREFS);
    assert_int_equal(zqcow2_errno(ZQCOW2_EZONE_WP), EIO);
    assert_int_equal(zqcow2_errno(-ENOSPC), ENOSPC);
    assert_int_equal(zqcow2_errno(5), 0);
    assert_int_equal(zqcow2_errno(-5000), EIO);
    assert_string_equal(zqcow2_strerror(ZQCOW2_EDEAD),
                        "a flush or a metadata write failed earlier: reopen the image");
    assert_string_equal(zqcow2_strerror(-ENOENT), strerror(ENOENT));
    assert_string_equal(zqcow2_strerror(-9999), "unknown error");
    assert_string_equal(zqcow2_strerror(0), zqcow2_strerror(1));
}

static void a_refusal_fills_the_callers_buffer_within_its_bounds(void **state)
{
    struct zqcow2_error err = {0, ""};
    char wide[400];

    (void)state;
    assert_int_equal(zq_fail(NULL, -EIO, "nobody asked"), -EIO);
    assert_int_equal(zq_fail(&err, ZQCOW2_ECORRUPT, "field %d", 7), ZQCOW2_ECORRUPT);
    assert_int_equal(err.code, ZQCOW2_ECORRUPT);
    assert_string_equal(err.text, "field 7");
    zq_fail_rc(&err, ZQCOW2_ECORRUPT);
    assert_string_equal(err.text, "field 7"); /* the better text stays */
    zq_fail_rc(&err, -ENOENT);
    assert_string_equal(err.text, strerror(ENOENT));
    memset(wide, 'w', sizeof(wide));
    wide[sizeof(wide) - 1] = 0;
    zq_fail(&err, -EIO, "%s", wide);
    assert_int_equal(strlen(err.text), sizeof(err.text) - 1);
}

/* ---- sorting ---- */

static bool int_less(const void *a, const void *b, const void *arg)
{
    assert_null(arg);
    return *(const int *)a < *(const int *)b;
}

static void test_sort(void **state)
{
    int v[97];
    unsigned x = 1;

    (void)state;
    zq_sort(v, 0, sizeof(v[0]), int_less, NULL);
    for (size_t n = 1; n <= 97; n++) {
        long before = 0, after = 0;

        for (size_t i = 0; i < n; i++) {
            x = x * 1103515245u + 12345u;
            v[i] = (int)(x >> 16) % 50; /* some twice */
            before += v[i] * (v[i] + 1l);
        }
        zq_sort(v, n, sizeof(v[0]), int_less, NULL);
        for (size_t i = 0; i < n; i++) {
            assert_true(i == 0 || v[i - 1] <= v[i]);
            after += v[i] * (v[i] + 1l);
        }
        assert_int_equal(before, after);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(integers_lie_in_files_as_they_should),
        cmocka_unit_test(arithmetic_is_right_at_its_edges),
        cmocka_unit_test(a_list_keeps_its_order_and_removal_is_harmless_twice),
        cmocka_unit_test(a_struct_may_be_shorter_or_longer_than_the_library_knows),
        cmocka_unit_test(what_is_returned_fits_the_callers_struct),
        cmocka_unit_test(memory_goes_through_the_hooks),
        cmocka_unit_test(a_stock_keeps_one_and_it_comes_back_empty),
        cmocka_unit_test(the_c_library_serves_without_hooks),
        cmocka_unit_test(hooks_of_no_release_are_refused),
        cmocka_unit_test(the_log_hears_what_it_asked_for),
        cmocka_unit_test(every_error_has_a_text_and_an_errno),
        cmocka_unit_test(a_refusal_fills_the_callers_buffer_within_its_bounds),
        cmocka_unit_test(test_sort),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
