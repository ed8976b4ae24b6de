/* SPDX-License-Identifier: MIT */
/*
 * A thread that waits for the mutex of an image gets it after the running portion, whatever others
 * have yet to do. Counted, not measured: a long reset stops at some zones until the other thread
 * waits for the mutex, and from then on the zones are counted until that thread has it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>
#include <zqcow2/stats.h>
#include "image/image.h"
#include "rig/ticket.h"

#define Z     KiB(64)
#define ZONES 32768u
#define MOST  3334u /* a portion is 100,000 units, and a zone that changes has 30 */
#define STOPS 6u
#define EVERY 5000u /* zones between two stops */

static const struct geometry zoned = {
    .name = "zoned", .size = ZONES * Z, .zone_size = Z, .conventional = 1, .cluster = 65536};
static const enum rig_world worlds[] = {RIG_PLAIN, RIG_SHUFFLED, RIG_THREADED};
#define NR_WORLDS 3

static struct zq_core *core;
static _Thread_local bool is_other;
static atomic_uint resets, stop, waits; /* zones; stops begun; stops at which the other waits */
static unsigned from, longest, entries;

static void sleep_a_little(void)
{
    nanosleep(&(struct timespec){0, 100000}, NULL);
}

/* ---- in between (-Wl,--wrap) ---- */

void __real_zq_zone_do_reset(struct zq_zones *zs, uint32_t i, uint64_t io_seq);
void __wrap_zq_zone_do_reset(struct zq_zones *zs, uint32_t i, uint64_t io_seq);
int __real_pthread_mutex_lock(pthread_mutex_t *m);
int __wrap_pthread_mutex_lock(pthread_mutex_t *m);
void __real_zq_turn_wait(pthread_mutex_t *mutex, pthread_mutex_t *turn);
void __wrap_zq_turn_wait(pthread_mutex_t *mutex, pthread_mutex_t *turn);

/* Under the mutex, so the other thread has to wait for it. */
void __wrap_zq_zone_do_reset(struct zq_zones *zs, uint32_t i, uint64_t io_seq)
{
    unsigned n = atomic_fetch_add(&resets, 1);

    if (n % EVERY == 1 && n / EVERY < STOPS) {
        atomic_store(&stop, n / EVERY + 1);
        while (atomic_load(&waits) <= n / EVERY)
            sleep_a_little();
    }
    __real_zq_zone_do_reset(zs, i, io_seq);
}

int __wrap_pthread_mutex_lock(pthread_mutex_t *m)
{
    int rc = __real_pthread_mutex_lock(m);

    if (is_other && m == &core->turn) {
        from = atomic_load(&resets);
        atomic_fetch_add(&waits, 1);
    }
    if (is_other && m == &core->mutex) {
        unsigned n = atomic_load(&resets) - from;

        longest = n > longest ? n : longest;
        entries++;
    }
    return rc;
}

static struct zqcow2_image *closed; /* NULL: nobody closes it */
static unsigned tries, late;        /* closes; those while the call has only to return */

/* A call lets others in: one of them may close the image. */
void __wrap_zq_turn_wait(pthread_mutex_t *mutex, pthread_mutex_t *turn)
{
    if (closed) {
        late += !core->waiters;
        tries++;
        assert_int_equal(zqcow2_close(closed), -EBUSY);
    }
    __real_zq_turn_wait(mutex, turn);
}

/* ---- */

/* At each stop it asks for something that takes no time. */
static void *other(void *img)
{
    struct zqcow2_stats s = {.size = sizeof(s)};

    is_other = true;
    for (unsigned k = 1; k <= STOPS; k++) {
        while (atomic_load(&stop) < k)
            sleep_a_little();
        if (zqcow2_get_stats(img, &s) < 0)
            return img;
    }
    return NULL;
}

static void reset_in_a_call(struct rig *r)
{
    assert_int_equal(zqcow2_zone_reset(r->img, 0, zoned.size, 0), 0);
}

static void reset_in_a_queue(struct rig *r)
{
    struct zqcow2_queue *q;
    struct ticket *all;

    assert_int_equal(zqcow2_queue_open(r->img, 8, &q), 0);
    all = ticket(ZQCOW2_OP_ZONE_RESET, 0, 0, 0);
    all->req.length = zoned.size;
    assert_int_equal(submit(q, all), 1);
    while (!all->calls)
        poll_queue(q, 0);
    assert_int_equal(all->ret, 0);
    drop(all);
    assert_int_equal(zqcow2_queue_close(q), 0);
}

static void waits_for_a_portion(enum rig_world world, void (*reset)(struct rig *r))
{
    pthread_t thread;
    struct rig r;
    void *bad;

    ticket_begin();
    rig_begin_in(&r, &zoned, world, 7);
    core = &r.img->core;
    assert_int_equal(zqcow2_zone_finish(r.img, Z, Z, 0), 0);
    assert_int_equal(zqcow2_zone_finish(r.img, 2 * Z, (ZONES - 2) * Z, 0), 0);
    resets = stop = waits = 0;
    longest = entries = 0;
    assert_int_equal(pthread_create(&thread, NULL, other, r.img), 0);
    reset(&r);
    pthread_join(thread, &bad);
    assert_null(bad);
    assert_int_equal(resets, ZONES - 1);
    assert_int_equal(entries, STOPS);
    if (longest > MOST)
        fail_msg("world %d: a thread waits for the mutex while %u zones are reset", world, longest);
    printf("turns: %u waits in world %d, longest %u zones, 0 longer than a portion\n", entries,
           world, longest);
    rig_end(&r);
}

static void behind_a_long_call(void **state)
{
    (void)state;
    for (int w = 0; w < NR_WORLDS; w++)
        waits_for_a_portion(worlds[w], reset_in_a_call);
}

static void behind_an_event_loop(void **state)
{
    (void)state;
    for (int w = 0; w < NR_WORLDS; w++)
        waits_for_a_portion(worlds[w], reset_in_a_queue);
}

/* A flush has ended, and what was reset before it is swept within its call. */
static void a_call_is_not_closed_under(void **state)
{
    static uint8_t block[4096];
    struct rig r;

    (void)state;
    rig_begin(&r, &zoned);
    core = &r.img->core;
    tries = late = 0;
    for (unsigned z = 1; z <= 2 * MOST; z++)
        assert_int_equal(zqcow2_write(r.img, block, sizeof(block), (uint64_t)z * Z, 0), 0);
    assert_int_equal(zqcow2_zone_reset(r.img, Z, 2 * MOST * Z, 0), 0);
    closed = r.img;
    assert_int_equal(zqcow2_flush(r.img), 0);
    assert_int_equal(zqcow2_zone_reset(r.img, Z, 2 * MOST * Z, 0), 0);
    closed = NULL;
    printf("turns: %u closes while a call lets others in, %u at its end, all refused\n", tries,
           late);
    assert_true(late);
    rig_end(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(behind_a_long_call),
        cmocka_unit_test(behind_an_event_loop),
        cmocka_unit_test(a_call_is_not_closed_under),
    };

    return cmocka_run_group_tests_name("turns", tests, NULL, NULL);
}
