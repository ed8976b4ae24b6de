/* SPDX-License-Identifier: MIT */
/* Block status: kinds, places and lengths; through a queue; requests that are wrong. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>
#include <zqcow2/queue.h>
#include "rig/raw.h"
#include "rig/rig.h"

#define C 4096u
#define Z KiB(64)

static const struct geometry zoned = {
    .name = "zoned", .size = 4 * Z, .zone_size = Z, .conventional = 1, .cluster = C};
static const struct geometry plain = {.name = "plain", .size = KiB(400), .cluster = C};

static struct zqcow2_extent at(struct rig *r, uint64_t off, uint64_t len)
{
    struct zqcow2_extent s = ZQCOW2_EXTENT_INIT;

    assert_int_equal(zqcow2_block_status(r->img, off, len, &s), 0);
    return s;
}

static void expect(struct rig *r, uint64_t off, uint64_t len, uint32_t kind, uint64_t length)
{
    struct zqcow2_extent s = at(r, off, len);

    assert_int_equal(s.kind, kind);
    assert_int_equal(s.length, length);
    assert_int_equal(s.depth, 0);
    assert_int_equal(s.host == UINT64_MAX, kind != ZQCOW2_BLOCK_DATA);
}

static void plain_kinds(void **state)
{
    struct raw w;
    struct rig r;

    (void)state;
    rig_begin(&r, &plain);
    expect(&r, 0, plain.size, ZQCOW2_BLOCK_UNALLOCATED, plain.size);
    assert_int_equal(rig_write(&r, 3 * C, 2 * C, 1), 0);
    expect(&r, 512, plain.size - 512, ZQCOW2_BLOCK_UNALLOCATED, 3 * C - 512);
    expect(&r, 3 * C + 512, plain.size - 4 * C, ZQCOW2_BLOCK_DATA, 2 * C - 512);
    expect(&r, 3 * C, 1024, ZQCOW2_BLOCK_DATA, 1024);
    assert_int_equal(zqcow2_drain(r.img), 0);
    assert_true(raw_find(&w, &r.store));
    assert_int_equal(at(&r, 4 * C + 1024, C).host, raw_host(&w, 4 * C) + 1024);
    assert_int_equal(zqcow2_discard(r.img, C, 3 * C, 0), 0);
    expect(&r, 0, plain.size, ZQCOW2_BLOCK_UNALLOCATED, 4 * C);
    rig_end(&r);
}

/* Zero entries as other programs make them: without a cluster, and with one. */
static void zero_entries(void **state)
{
    struct raw w;
    struct rig r;
    uint64_t host;

    (void)state;
    rig_begin(&r, &plain);
    assert_int_equal(rig_write(&r, 0, 4 * C, 1), 0);
    assert_int_equal(zqcow2_discard(r.img, 2 * C, 2 * C, 0), 0);
    assert_int_equal(rig_close(&r), 0);
    assert_true(raw_find(&w, &r.store));
    host = raw_host(&w, C);
    raw_put(&w, raw_l2_at(&w, C), 8, raw_get(&w, raw_l2_at(&w, C), 8) | 1);
    raw_put(&w, raw_l2_at(&w, 2 * C), 8, 1);
    raw_put(&w, raw_l2_at(&w, 3 * C), 8, 1);
    assert_int_equal(rig_open(&r, true), 0);
    expect(&r, 0, plain.size, ZQCOW2_BLOCK_DATA, C);
    assert_int_equal(at(&r, C + 512, plain.size - C - 512).kind, ZQCOW2_BLOCK_ZERO);
    assert_int_equal(at(&r, C + 512, plain.size - C - 512).length, C - 512);
    assert_int_equal(at(&r, C + 512, plain.size - C - 512).host, host + 512);
    expect(&r, 2 * C + 512, plain.size - 3 * C, ZQCOW2_BLOCK_ZERO, 2 * C - 512);
    rig_end(&r);
}

/* What is mapped beyond a pointer does not show; nor do pointers move the answer's end. */
static void beyond_pointers(void **state)
{
    struct rig r;

    (void)state;
    rig_begin(&r, &zoned);
    assert_int_equal(rig_write(&r, Z, C + 512, 1), 0);
    expect(&r, Z, Z, ZQCOW2_BLOCK_DATA, C + 512);
    expect(&r, Z + C + 512, 2 * Z, ZQCOW2_BLOCK_UNALLOCATED, Z - C - 512);
    expect(&r, 2 * Z, 2 * Z, ZQCOW2_BLOCK_UNALLOCATED, Z);
    assert_int_equal(zqcow2_zone_finish(r.img, Z, Z, 0), 0);
    assert_int_equal(at(&r, Z, Z).kind, ZQCOW2_BLOCK_DATA);
    assert_int_equal(zqcow2_zone_reset(r.img, Z, Z, 0), 0);
    expect(&r, Z, Z, ZQCOW2_BLOCK_UNALLOCATED, Z);
    assert_int_equal(zqcow2_zone_set_state(r.img, Z, ZQCOW2_ZONE_OFFLINE), 0);
    expect(&r, Z, Z, ZQCOW2_BLOCK_UNALLOCATED, Z);
    rig_end(&r);
}

static void refusals(void **state)
{
    struct zqcow2_extent s = ZQCOW2_EXTENT_INIT;
    struct iovec two[2] = {{&s, sizeof(s)}, {&s, sizeof(s)}}, brief = {&s, sizeof(s) - 1};
    struct zqcow2_request req = {
        .size = sizeof(req), .op = ZQCOW2_OP_BLOCK_STATUS, .length = C, .iov = two, .iovcnt = 2};
    struct rig r;

    (void)state;
    rig_begin(&r, &plain);
    assert_int_equal(zqcow2_block_status(r.img, 0, 0, &s), -EINVAL);
    assert_int_equal(zqcow2_block_status(r.img, 1, 512, &s), -EINVAL);
    assert_int_equal(zqcow2_block_status(r.img, 0, 513, &s), -EINVAL);
    assert_int_equal(zqcow2_block_status(r.img, plain.size, 512, &s), -EINVAL);
    assert_int_equal(zqcow2_block_status(r.img, 512, plain.size, &s), -EINVAL);
    assert_int_equal(zqcow2_run(r.img, &req, NULL), -EINVAL);
    req.iovcnt = 0;
    assert_int_equal(zqcow2_run(r.img, &req, NULL), -EINVAL);
    req.iov = &brief;
    req.iovcnt = 1;
    assert_int_equal(zqcow2_run(r.img, &req, NULL), -EINVAL);
    s.size = sizeof(size_t);
    assert_int_equal(zqcow2_block_status(r.img, 0, C, &s), -EINVAL);
    rig_end(&r);
}

/* Programs built with another version's struct: what they have not is not written; more is zero. */
static void other_sizes(void **state)
{
    union {
        struct zqcow2_extent s;
        uint8_t bytes[sizeof(struct zqcow2_extent) + 16];
    } u;
    struct rig r;

    (void)state;
    rig_begin(&r, &plain);
    memset(&u, 0xaa, sizeof(u));
    u.s.size = offsetof(struct zqcow2_extent, host);
    assert_int_equal(zqcow2_block_status(r.img, 0, C, &u.s), 0);
    assert_int_equal(u.s.length, C);
    assert_int_equal(u.s.host, 0xaaaaaaaaaaaaaaaaull);
    u.s.size = sizeof(u);
    assert_int_equal(zqcow2_block_status(r.img, 0, C, &u.s), 0);
    assert_int_equal(u.bytes[sizeof(u) - 1], 0);
    rig_end(&r);
}

static int answers;

static void done(void *arg, const struct zqcow2_result *res)
{
    answers += res->ret == 0 && arg == &answers;
}

/* Asynchronous, and the slice is not in the cache: the answer waits for its read. */
static void through_a_queue(void **state)
{
    struct zqcow2_extent s[8];
    struct zqcow2_request req[8];
    struct iovec iov[8];
    struct zqcow2_queue *q;
    struct rig r;

    (void)state;
    rig_begin_in(&r, &zoned, RIG_SHUFFLED, 1);
    assert_int_equal(rig_write(&r, Z, 2 * C, 1), 0);
    rig_reopen(&r);
    assert_int_equal(zqcow2_queue_open(r.img, 8, &q), 0);
    answers = 0;
    for (unsigned i = 0; i < 8; i++) {
        s[i] = (struct zqcow2_extent)ZQCOW2_EXTENT_INIT;
        iov[i] = (struct iovec){&s[i], sizeof(s[i])};
        req[i] = (struct zqcow2_request){.size = sizeof(req[i]), .op = ZQCOW2_OP_BLOCK_STATUS};
        req[i].offset = Z + i * 512, req[i].length = Z - i * 512;
        req[i].iov = &iov[i], req[i].iovcnt = 1;
        req[i].done = done, req[i].arg = &answers;
    }
    assert_int_equal(zqcow2_queue_submit(q, req, 8), 8);
    zqcow2_queue_wait(q, 8, -1);
    assert_int_equal(answers, 8);
    for (unsigned i = 0; i < 8; i++) {
        assert_int_equal(s[i].kind, ZQCOW2_BLOCK_DATA);
        assert_int_equal(s[i].length, 2 * C - i * 512);
        assert_int_equal(s[i].host, s[0].host + i * 512);
    }
    assert_int_equal(zqcow2_queue_close(q), 0);
    rig_end(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plain_kinds),     cmocka_unit_test(zero_entries),
        cmocka_unit_test(beyond_pointers), cmocka_unit_test(refusals),
        cmocka_unit_test(other_sizes),     cmocka_unit_test(through_a_queue),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
