/* SPDX-License-Identifier: MIT */
/* The backend on NBD, and a server that dies: rules L1 to L5 of DESIGN.md, one by one. */
#include <errno.h>
#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <time.h>

#include "interop/fake_nbd.h"
#include "nbd.h"

#define K          ((size_t)1024)
#define RD         0
#define WR         1
#define ZERO       6
#define BOUND_MOST ((size_t)64 << 20) /* bytes of copies that DESIGN.md allows */

#define SET(what, to) \
    (pthread_mutex_lock(&fake.lock), fake.what = (to), pthread_mutex_unlock(&fake.lock))

static struct fake_nbd fake;
static struct zqcow2_backend *be;
static uint8_t buf[1 << 20];

static void open_for(unsigned seconds)
{
    struct zt_nbd_options opt = {.flags = ZQCOW2_FILE_RDWR, .reconnect = seconds};
    char why[128];

    assert_int_equal(zt_nbd_open(fake.uri, &opt, &be, why, sizeof(why)), 0);
}

static int setup(void **state)
{
    (void)state;
    fake_start(&fake);
    open_for(30);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    zqcow2_backend_close(be);
    fake_stop(&fake);
    return 0;
}

static int put(uint8_t byte, size_t len, uint64_t off)
{
    memset(buf, byte, len);
    return zqcow2_backend_write(be, buf, len, off);
}

static void holds(uint8_t byte, size_t len, uint64_t off)
{
    assert_int_equal(zqcow2_backend_read(be, buf, len, off), 0);
    for (size_t i = 0; i < len; i++)
        assert_int_equal(buf[i], byte);
}

/* L1: what was acknowledged and is lost comes back, in its order; it was lost before a read. */
static void lost_writes_return(void **state)
{
    (void)state;
    SET(loses, true);
    assert_int_equal(put(1, 64 * K, 64 * K), 0);
    assert_int_equal(put(2, 32 * K, 80 * K), 0);
    assert_int_equal(put(3, 4 * K, 96 * K), 0);
    fake_end(&fake, RD, 1, FAKE_DIES);
    holds(1, 16 * K, 64 * K);
    holds(2, 16 * K, 80 * K);
    holds(3, 4 * K, 96 * K);
    holds(2, 12 * K, 100 * K);
    holds(1, 16 * K, 112 * K);
    assert_int_equal(fake_count(&fake, &fake.connections), 2);
}

/* L1: zeros are writes, too. */
static void lost_zeros_return(void **state)
{
    (void)state;
    SET(loses, true);
    assert_int_equal(zqcow2_backend_zero(be, 64 * K, 64 * K), 0);
    fake_end(&fake, RD, 1, FAKE_DIES);
    holds(0, 64 * K, 64 * K);
}

/* L1: no copy outlives a flush that began after the write, and each lives until then. */
static void copies_live_until_a_flush(void **state)
{
    (void)state;
    assert_int_equal(put(1, 64 * K, 64 * K), 0);
    assert_int_equal(zqcow2_backend_flush(be), 0);
    fake_end(&fake, RD, 1, FAKE_DIES);
    holds(1, 64 * K, 64 * K);
    assert_int_equal(fake_count(&fake, &fake.writes), 0);
    assert_int_equal(put(2, 4 * K, 64 * K), 0);
    SET(loses, true);
    fake_end(&fake, 3, 1, FAKE_DIES);
    assert_int_equal(zqcow2_backend_flush(be), 0);
    assert_int_equal(fake_count(&fake, &fake.writes), 1);
    holds(2, 4 * K, 64 * K);
    assert_memory_equal(fake.durable + 64 * K, buf, 4 * K);
}

/* L1: the copies are bounded, without a flush by the caller. */
static void copies_are_bounded(void **state)
{
    size_t sum = 0;

    (void)state;
    for (unsigned i = 0; sum <= BOUND_MOST; i++, sum += sizeof(buf))
        assert_int_equal(put((uint8_t)i, sizeof(buf), i % 4 * sizeof(buf)), 0);
    assert_in_range(fake_count(&fake, &fake.flushes), 1, 4);
    SET(loses, true);
    fake_end(&fake, RD, 1, FAKE_DIES);
    for (unsigned i = 61; i < 65; i++)
        holds((uint8_t)i, sizeof(buf), i % 4 * sizeof(buf));
    assert_in_range(fake_count(&fake, &fake.writes), 1, 34);
}

/* ---- L2 ---- */

static sem_t over;

static void done(struct zqcow2_io *io, int ret)
{
    (void)io;
    assert_int_equal(ret, 0);
    sem_post(&over);
}

/* Submits two writes of 8 KiB, so far from each other. */
static void two(uint64_t distance)
{
    static uint8_t a[8192], b[8192];
    struct iovec iov[] = {{a, sizeof(a)}, {b, sizeof(b)}};
    struct zqcow2_io io[2] = {{.kind = ZQCOW2_IO_WRITE}, {.kind = ZQCOW2_IO_WRITE}};

    sem_init(&over, 0, 0);
    for (int i = 0; i < 2; i++) {
        io[i].iovcnt = 1;
        io[i].iov = &iov[i];
        io[i].length = 8192;
        io[i].offset = 64 * K + (uint64_t)i * distance;
        io[i].done = done;
        assert_int_equal(zqcow2_backend_submit(be, &io[i]), 0);
    }
    zqcow2_backend_kick(be);
    for (int i = 0; i < 2; i++)
        sem_wait(&over);
    sem_destroy(&over);
}

static void overlapping_writes_wait(void **state)
{
    (void)state;
    SET(lingers, true);
    two(4096);
    assert_int_equal(fake_count(&fake, &fake.early), 0);
    two(8192);
    assert_int_equal(fake_count(&fake, &fake.early), 1);
}

/* ---- L3 ---- */

static void writes_in_flight_are_repeated(void **state)
{
    (void)state;
    SET(loses, true);
    fake_end(&fake, WR, 1, FAKE_DIES);
    assert_int_equal(put(1, 64 * K, 64 * K), 0);
    holds(1, 64 * K, 64 * K);
}

/* The server has the write, is there, and may still do it. */
static void not_where_the_server_lives(void **state)
{
    (void)state;
    fake_end(&fake, WR, 1, FAKE_BABBLES);
    assert_int_equal(put(1, 64 * K, 64 * K), -EIO);
    assert_int_equal(zqcow2_backend_read(be, buf, K, 0), -EIO);
    assert_int_equal(put(1, K, 0), -EIO);
    assert_int_equal(zqcow2_backend_flush(be), -EIO);
    assert_int_equal(fake_count(&fake, &fake.connections), 1);
}

/* Nor zeros of the backend's own, which make the file longer. */
static void not_the_zeros_of_a_growth(void **state)
{
    (void)state;
    assert_int_equal(zqcow2_backend_truncate(be, 0), 0);
    fake_end(&fake, ZERO, 1, FAKE_BABBLES);
    assert_int_equal(put(1, 4 * K, 64 * K), -EIO);
    assert_int_equal(fake_count(&fake, &fake.connections), 1);
}

static void reads_may_be_repeated_anyhow(void **state)
{
    (void)state;
    assert_int_equal(put(1, 64 * K, 64 * K), 0);
    fake_end(&fake, RD, 1, FAKE_BABBLES);
    holds(1, 64 * K, 64 * K);
    assert_int_equal(fake_count(&fake, &fake.connections), 2);
}

/* ---- L4, L5 ---- */

static void a_forgetful_server_is_found_out(void **state)
{
    (void)state;
    assert_int_equal(put(1, 64 * K, 0), 0);
    assert_int_equal(zqcow2_backend_flush(be), 0);
    SET(forgets, true);
    fake_end(&fake, RD, 1, FAKE_DIES);
    assert_int_equal(zqcow2_backend_read(be, buf, K, 0), -EIO);
    assert_int_equal(fake_count(&fake, &fake.connections), 2);
    assert_int_equal(fake_count(&fake, &fake.writes), 0);
}

/* Not for what it may lose: the first bytes were being written. */
static void the_head_may_be_in_flight(void **state)
{
    (void)state;
    SET(loses, true);
    assert_int_equal(put(1, 2 * K, 0), 0);
    fake_end(&fake, WR, 1, FAKE_DIES);
    assert_int_equal(put(2, 2 * K, K), 0);
    holds(1, K, 0);
    holds(2, 2 * K, K);
}

/* Nor for a growth from nothing that was interrupted: its zeros may be there. */
static void the_head_may_be_behind_the_end(void **state)
{
    (void)state;
    assert_int_equal(zqcow2_backend_truncate(be, 0), 0);
    fake_end(&fake, ZERO, 1, FAKE_MUTE);
    assert_int_equal(put(1, 4 * K, 64 * K), 0);
    holds(0, 64 * K, 0);
    holds(1, 4 * K, 64 * K);
    assert_int_equal(fake_count(&fake, &fake.connections), 2);
}

static void the_search_is_bounded(void **state)
{
    struct timespec begin, end;

    (void)state;
    zqcow2_backend_close(be);
    open_for(1);
    SET(down, true);
    fake_end(&fake, RD, 1, FAKE_DIES);
    clock_gettime(CLOCK_MONOTONIC, &begin);
    assert_int_equal(zqcow2_backend_read(be, buf, K, 0), -EIO);
    clock_gettime(CLOCK_MONOTONIC, &end);
    assert_true(end.tv_sec - begin.tv_sec >= 1);
    SET(down, false);
    assert_int_equal(zqcow2_backend_read(be, buf, K, 0), -EIO);
}

/* ---- the size ---- */

static void what_a_file_gains_is_zeros(void **state)
{
    uint64_t length;

    (void)state;
    assert_int_equal(zqcow2_backend_truncate(be, 0), 0);
    assert_int_equal(put(1, K, 8 * K), 0);
    holds(0, 8 * K, 0);
    holds(0, 8 * K, 9 * K); /* behind its end */
    assert_int_equal(zqcow2_backend_truncate(be, 64 * K), 0);
    holds(0, 55 * K, 9 * K);
    assert_int_equal(zqcow2_backend_length(be, &length), 0);
    assert_int_equal(length, 64 * K);
    assert_int_equal(zqcow2_backend_truncate(be, FAKE_BYTES + 1), -ENOSPC);
    assert_int_equal(put(1, K, FAKE_BYTES), -ENOSPC);
    SET(loses, true);
    fake_end(&fake, RD, 1, FAKE_DIES);
    holds(0, 8 * K, 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(lost_writes_return),           TEST(lost_zeros_return),
        TEST(copies_live_until_a_flush),    TEST(copies_are_bounded),
        TEST(overlapping_writes_wait),      TEST(writes_in_flight_are_repeated),
        TEST(not_where_the_server_lives),   TEST(not_the_zeros_of_a_growth),
        TEST(reads_may_be_repeated_anyhow), TEST(a_forgetful_server_is_found_out),
        TEST(the_head_may_be_in_flight),    TEST(the_head_may_be_behind_the_end),
        TEST(the_search_is_bounded),        TEST(what_a_file_gains_is_zeros),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
