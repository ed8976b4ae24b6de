/* SPDX-License-Identifier: MIT */
/* The rules of the gather token (E2), each by itself: who may load, evict, change; who is next. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "cache/cache.h"
#include "rig/heap_fault.h"

#define SLICE 4096u

struct world {
    struct heap heap;
    struct zqcow2_hooks hooks;
    struct zqcow2_backend be;
    struct zq_iox x;
    struct zq_list ready;
    struct zq_cache c;
    uint64_t loads;
};

static void begin(struct world *w)
{
    memset(w, 0, sizeof(*w));
    heap_init(&w->heap);
    w->hooks = heap_hooks(&w->heap);
    w->be.limits.io_align = w->be.limits.buf_align = 1;
    w->be.limits.max_iov = 1024;
    w->x.be = &w->be;
    w->x.hooks = &w->hooks;
    w->x.ready = &w->ready;
    zq_list_init(&w->ready);
    assert_int_equal(zq_iox_init(&w->x), 0);
    assert_int_equal(zq_cache_init(&w->c, &w->x, &w->ready, SLICE, 1), 0);
}

static void end(struct world *w)
{
    zq_cache_fini(&w->c);
    zq_iox_fini(&w->x);
    assert_null(heap_verdict(&w->heap));
    heap_destroy(&w->heap);
}

static struct zq_gather fresh(void)
{
    struct zq_gather g;

    memset(&g, 0, sizeof(g));
    return g;
}

/* Where it lies now: a list of its own. */
static void settle(struct zq_gather *g)
{
    if (!g->wait.link.next)
        zq_list_init(&g->wait.link);
}

static int pin(struct world *w, struct zq_gather *g, unsigned n)
{
    struct zq_slice *s;

    settle(g);
    return zq_cache_pin(&w->c, g, (uint64_t)n * SLICE, ZQ_SLICE_L2, &s);
}

/* All that is under way completes; all that is ready leaves the list. */
static void complete(struct world *w, int ret)
{
    struct zq_list *n;

    for (; (n = zq_list_pop(&w->x.submit)); w->loads++) {
        struct zq_io *io = zq_container(n, struct zq_io, link);

        io->ret = ret;
        zq_io_finish(io);
    }
}

static bool is_ready(struct world *w, struct zq_gather *g)
{
    bool found = false;

    for (struct zq_list *n = w->ready.next; n != &w->ready; n = n->next)
        found |= n == &g->wait.link;
    if (found) {
        zq_list_del(&g->wait.link);
        zq_cache_reenter(g);
    }
    return found;
}

static struct zq_slice *load(struct world *w, struct zq_gather *g, unsigned n)
{
    struct zq_slice *s = NULL;

    settle(g);
    if (zq_cache_pin(&w->c, g, (uint64_t)n * SLICE, ZQ_SLICE_L2, &s) == ZQ_WAIT) {
        complete(w, 0);
        assert_true(is_ready(w, g));
        assert_int_equal(zq_cache_pin(&w->c, g, (uint64_t)n * SLICE, ZQ_SLICE_L2, &s), 0);
    }
    return s;
}

static void dirty(struct world *w, struct zq_gather *g, unsigned n)
{
    struct zq_slice *s = load(w, g, n);

    assert_int_equal(zq_cache_writable(&w->c, g, s, NULL), 0);
    zq_cache_dirty(&w->c, s);
    zq_cache_release(&w->c, g);
}

static void round_of_all(struct world *w)
{
    struct zq_slice *s;

    zq_cache_capture(&w->c);
    for (int k = 0; k < ZQ_SLICE_KINDS; k++) {
        while ((s = zq_cache_next_frozen(&w->c, (enum zq_slice_kind)k)))
            zq_cache_thaw(&w->c, s);
    }
    zq_cache_round_done(&w->c);
}

/* What was loaded for the token's holder is there when it runs, whatever others load meanwhile. */
static void loaded_for_the_holder_stays(void **state)
{
    struct zq_gather holder = fresh(), other;
    struct world w;

    (void)state;
    begin(&w);
    assert_int_equal(pin(&w, &holder, 100), ZQ_WAIT);
    complete(&w, 0);
    for (unsigned n = 0; n < 3 * ZQ_MIN_SLICES; n++) {
        other = fresh();
        assert_int_equal(pin(&w, &other, n), ZQ_WAIT);
        complete(&w, 0);
        assert_true(is_ready(&w, &other));
    }
    assert_true(is_ready(&w, &holder));
    assert_int_equal(pin(&w, &holder, 100), 0);
    assert_int_equal(w.loads, 1 + 3 * ZQ_MIN_SLICES);
    zq_cache_release(&w.c, &holder);
    end(&w);
}

/* A parked operation without the token holds nothing, and may load as much as it can pin. */
static void loads_without_the_token_are_counted(void **state)
{
    struct zq_gather holder = fresh(), other = fresh();
    struct world w;

    (void)state;
    begin(&w);
    assert_int_equal(pin(&w, &holder, 100), ZQ_WAIT);
    for (unsigned n = 0; n < ZQ_MAX_PINS; n++) {
        assert_int_equal(pin(&w, &other, n), ZQ_WAIT);
        assert_int_equal(other.npins, 0);
        complete(&w, 0);
        assert_true(is_ready(&w, &other));
    }
    assert_int_equal(pin(&w, &other, ZQ_MAX_PINS), ZQ_WAIT);
    complete(&w, 0);
    assert_int_equal(w.loads, 1 + ZQ_MAX_PINS);
    assert_false(is_ready(&w, &other));
    assert_true(is_ready(&w, &holder));
    zq_cache_release(&w.c, &holder);
    assert_true(is_ready(&w, &other)); /* it is its turn */
    assert_ptr_equal(w.c.token, &other);
    assert_int_equal(pin(&w, &other, ZQ_MAX_PINS), ZQ_WAIT);
    complete(&w, 0);
    assert_int_equal(w.loads, 2 + ZQ_MAX_PINS);
    zq_cache_release(&w.c, &other);
    assert_null(w.c.token);
    end(&w);
}

/* The token goes round in the order in which it was asked for. */
static void the_token_goes_in_turn(void **state)
{
    struct zq_gather g[5];
    struct world w;

    (void)state;
    begin(&w);
    for (unsigned i = 0; i < 5; i++) {
        g[i] = fresh();
        g[i].loads = ZQ_MAX_PINS;
        assert_int_equal(pin(&w, &g[i], i), ZQ_WAIT);
    }
    complete(&w, 0);
    assert_int_equal(w.loads, 1);
    for (unsigned i = 0; i < 5; i++) {
        assert_ptr_equal(w.c.token, &g[i]);
        for (unsigned k = 0; k < 5; k++)
            assert_int_equal(is_ready(&w, &g[k]), k == i);
        zq_cache_release(&w.c, &g[i]);
    }
    assert_null(w.c.token);
    end(&w);
}

/* While the holder waits for a slot nobody else takes one, and it gets the first. */
static void nobody_takes_the_holders_slot(void **state)
{
    struct zq_gather holder = fresh(), other[ZQ_MIN_SLICES], late = fresh();
    struct world w;

    (void)state;
    begin(&w);
    settle(&holder);
    assert_int_equal(zq_cache_park(&w.c, &holder, &w.c.frozen_waiters), ZQ_WAIT);
    for (unsigned n = 0; n < ZQ_MIN_SLICES; n++) {
        other[n] = fresh();
        assert_int_equal(pin(&w, &other[n], n), ZQ_WAIT);
    }
    zq_wake(&w.ready, &w.c.frozen_waiters);
    assert_true(is_ready(&w, &holder));
    assert_int_equal(pin(&w, &holder, 100), ZQ_WAIT); /* all are being loaded */
    complete(&w, 0);
    assert_int_equal(pin(&w, &late, 101), ZQ_WAIT);
    complete(&w, 0);
    assert_int_equal(w.loads, ZQ_MIN_SLICES);
    assert_false(is_ready(&w, &late));
    assert_true(is_ready(&w, &holder));
    assert_int_equal(pin(&w, &holder, 100), ZQ_WAIT);
    complete(&w, 0);
    assert_true(is_ready(&w, &holder));
    assert_int_equal(pin(&w, &holder, 100), 0);
    zq_cache_release(&w.c, &holder);
    assert_true(is_ready(&w, &late));
    zq_cache_release(&w.c, &late);
    end(&w);
}

/* What earlier passes have pinned makes room for what this one needs, beside all the dirt. */
static void stale_pins_make_room(void **state)
{
    struct zq_gather g = fresh();
    struct world w;

    (void)state;
    begin(&w);
    for (unsigned n = 0; n < ZQ_MIN_SLICES - ZQ_MAX_PINS; n++)
        dirty(&w, &g, n);
    for (unsigned n = 10; n < 10 + 3 * ZQ_MAX_PINS; n++) {
        zq_cache_reenter(&g);
        load(&w, &g, n);
    }
    zq_cache_release(&w.c, &g);
    end(&w);
}

/* While the holder waits for room nobody else makes anything dirty, once more neither. */
static void nobody_takes_the_holders_room(void **state)
{
    struct zq_gather holder = fresh(), other = fresh();
    struct zq_slice *s, *t;
    struct world w;

    (void)state;
    begin(&w);
    for (unsigned n = 0; n < ZQ_MIN_SLICES - ZQ_MAX_PINS; n++)
        dirty(&w, &holder, n);
    s = load(&w, &holder, 100);
    assert_int_equal(zq_cache_writable(&w.c, &holder, s, NULL), ZQ_WAIT);
    assert_true(w.c.want_round);
    t = load(&w, &other, 0);
    assert_int_equal(zq_cache_writable(&w.c, &other, t, NULL), ZQ_WAIT);
    assert_int_equal(other.npins, 0);
    round_of_all(&w);
    assert_false(is_ready(&w, &other));
    assert_true(is_ready(&w, &holder));
    assert_ptr_equal(load(&w, &holder, 100), s);
    assert_int_equal(zq_cache_writable(&w.c, &holder, s, NULL), 0);
    zq_cache_release(&w.c, &holder);
    assert_true(is_ready(&w, &other));
    zq_cache_release(&w.c, &other);
    end(&w);
}

/* Dirt leaves the pins of a gather room, also where memory ends before the cache has its size. */
static void dirt_leaves_room_without_memory(void **state)
{
    struct zq_gather g = fresh();
    struct zq_slice *s;
    struct world w;
    unsigned n = 0;

    (void)state;
    begin(&w);
    w.c.max_slices = 100;
    for (; n < 10; n++)
        dirty(&w, &g, n);
    heap_plan(&w.heap, 1, true);
    s = load(&w, &g, n);
    while (zq_cache_writable(&w.c, &g, s, NULL) == 0) {
        zq_cache_dirty(&w.c, s);
        zq_cache_release(&w.c, &g);
        s = load(&w, &g, ++n);
    }
    zq_list_del(&g.wait.link);
    zq_cache_reenter(&g);
    for (unsigned k = 0; k < ZQ_MAX_PINS; k++)
        load(&w, &g, n + k);
    assert_int_equal(w.c.nr_dirty + ZQ_MAX_PINS, w.c.nr_slices);
    zq_cache_release(&w.c, &g);
    heap_plan(&w.heap, 0, false);
    end(&w);
}

/* What is forgotten is not found again, though it is pinned or being loaded, and is a slot then. */
static void forgotten_is_not_found(void **state)
{
    struct zq_gather g = fresh();
    struct zq_slice *s;
    struct world w;

    (void)state;
    begin(&w);
    s = load(&w, &g, 7);
    zq_cache_forget(&w.c, 7 * SLICE, SLICE);
    assert_null(zq_cache_peek(&w.c, 7 * SLICE));
    for (unsigned n = 30; n < 30 + 2 * ZQ_MIN_SLICES; n++) {
        struct zq_gather other = fresh();

        assert_ptr_not_equal(load(&w, &other, n), s); /* nor is it given away while it is held */
        zq_cache_release(&w.c, &other);
    }
    assert_ptr_not_equal(load(&w, &g, 7), s);
    zq_cache_release(&w.c, &g);
    assert_int_equal(pin(&w, &g, 8), ZQ_WAIT);
    zq_cache_forget(&w.c, 8 * SLICE, SLICE);
    complete(&w, 0);
    assert_true(is_ready(&w, &g));
    assert_null(zq_cache_peek(&w.c, 8 * SLICE));
    assert_int_equal(pin(&w, &g, 9), ZQ_WAIT);
    zq_cache_forget(&w.c, 9 * SLICE, SLICE);
    complete(&w, -EIO);
    assert_true(is_ready(&w, &g));
    assert_int_equal(g.wait.rc, -EIO);
    zq_cache_release(&w.c, &g);
    for (unsigned n = 20; n < 20 + ZQ_MAX_PINS; n++)
        load(&w, &g, n);
    assert_int_equal(w.c.nr_slices, ZQ_MIN_SLICES);
    zq_cache_release(&w.c, &g);
    end(&w);
}

/* A load that failed is tried again by the next who wants it; its slot is free. */
static void failed_load_is_forgotten(void **state)
{
    struct zq_gather g = fresh();
    struct world w;

    (void)state;
    begin(&w);
    for (unsigned n = 0; n < 3 * ZQ_MIN_SLICES; n++) {
        assert_int_equal(pin(&w, &g, n), ZQ_WAIT);
        complete(&w, -EIO);
        assert_true(is_ready(&w, &g));
        assert_int_equal(g.wait.rc, -EIO);
        zq_cache_release(&w.c, &g);
        assert_null(zq_cache_peek(&w.c, n * SLICE));
    }
    end(&w);
}

/* ---- room that is reserved ---- */

static int reserve(struct world *w, struct zq_gather *g, uint32_t n)
{
    settle(g);
    return zq_cache_reserve(&w->c, g, n);
}

/* Makes one after the other dirty until there is no room; how many those were. */
static unsigned dirty_all(struct world *w, struct zq_gather *g, unsigned from)
{
    unsigned n = from;
    struct zq_slice *s = load(w, g, n);

    while (zq_cache_writable(&w->c, g, s, NULL) == 0) {
        zq_cache_dirty(&w->c, s);
        zq_cache_release(&w->c, g);
        s = load(w, g, ++n);
    }
    return n - from;
}

/* With a reserve no round is needed, whatever others do; then the cache has its old size. */
static void what_is_reserved_is_there(void **state)
{
    struct zq_gather g = fresh(), other = fresh();
    struct world w;

    (void)state;
    begin(&w);
    assert_int_equal(reserve(&w, &g, 10), 0);
    assert_true(dirty_all(&w, &other, 100) >= ZQ_MAX_DIRTIED);
    zq_list_del(&other.wait.link);
    zq_cache_release(&w.c, &other);
    for (unsigned n = 0; n < 10; n++) {
        dirty(&w, &g, n);
        if (n == 4)
            round_of_all(&w);
        assert_true(w.c.nr_dirty + w.c.reserved + ZQ_MAX_PINS <= w.c.nr_slices);
    }
    assert_int_equal(g.reserved, 0);
    zq_cache_unreserve(&w.c, &g);
    round_of_all(&w);
    assert_int_equal(w.c.nr_slices, ZQ_MIN_SLICES);
    end(&w);
}

/* What is reserved never takes the room of one step of another, once all others are clean. */
static void a_step_finds_room_beside_reserves(void **state)
{
    struct zq_gather g[3] = {fresh(), fresh(), fresh()}, other = fresh();
    struct zq_slice *a, *b;
    struct world w;

    (void)state;
    begin(&w);
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(reserve(&w, &g[i], 5 + i), 0);
    assert_int_equal(w.c.reserved, 5 + 6 + 7);
    dirty_all(&w, &other, 100);
    round_of_all(&w);
    assert_true(is_ready(&w, &other));
    a = load(&w, &other, 200);
    b = load(&w, &other, 201);
    assert_int_equal(zq_cache_writable(&w.c, &other, a, b), 0);
    zq_cache_release(&w.c, &other);
    for (unsigned i = 0; i < 3; i++)
        zq_cache_unreserve(&w.c, &g[i]);
    assert_int_equal(w.c.reserved, 0);
    end(&w);
}

/* The bound holds for all reserves together; the next one waits for one to be given back. */
static void reserves_go_in_turn(void **state)
{
    struct zq_gather first = fresh(), second = fresh(), third = fresh();
    uint32_t most = ZQ_RESERVE_BYTES / SLICE;
    struct world w;

    (void)state;
    begin(&w);
    assert_int_equal(reserve(&w, &first, 2 * most), 0);
    assert_int_equal(first.reserved, most);
    assert_true(w.c.nr_slices <= most + ZQ_MIN_SLICES);
    assert_int_equal(reserve(&w, &second, most), ZQ_WAIT);
    assert_int_equal(reserve(&w, &third, 1), ZQ_WAIT);
    zq_cache_unreserve(&w.c, &first);
    assert_false(is_ready(&w, &third));
    assert_true(is_ready(&w, &second));
    assert_int_equal(reserve(&w, &second, most), 0);
    assert_true(is_ready(&w, &third));
    assert_int_equal(reserve(&w, &third, 1), ZQ_WAIT);
    zq_cache_unreserve(&w.c, &second);
    assert_true(is_ready(&w, &third));
    assert_int_equal(reserve(&w, &third, 1), 0);
    zq_cache_unreserve(&w.c, &third);
    assert_int_equal(w.c.nr_slices, ZQ_MIN_SLICES);
    end(&w);
}

/* Without memory, or space for the round that makes room, nothing is reserved; the next is next. */
static void a_refused_reserve_leaves_nothing(void **state)
{
    struct zq_gather g = fresh(), next = fresh(), d = fresh();
    struct world w;

    (void)state;
    begin(&w);
    heap_plan(&w.heap, 3, true);
    assert_int_equal(reserve(&w, &g, 10), -ENOMEM);
    assert_int_equal(reserve(&w, &next, 1), ZQ_WAIT);
    zq_cache_unreserve(&w.c, &g);
    heap_plan(&w.heap, 0, false);
    assert_int_equal(w.c.nr_slices, ZQ_MIN_SLICES);
    assert_true(is_ready(&w, &next));
    dirty(&w, &d, 0);
    assert_int_equal(reserve(&w, &next, 1), ZQ_WAIT);
    assert_true(w.c.want_round);
    zq_cache_capture(&w.c);
    zq_cache_round_stop(&w.c, -ENOSPC);
    assert_true(is_ready(&w, &next));
    assert_int_equal(next.wait.rc, -ENOSPC);
    zq_cache_release(&w.c, &next);
    zq_cache_unreserve(&w.c, &next);
    assert_int_equal(w.c.reserved, 0);
    assert_null(w.c.claim);
    assert_int_equal(w.c.nr_slices, ZQ_MIN_SLICES);
    end(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(loaded_for_the_holder_stays),
        cmocka_unit_test(loads_without_the_token_are_counted),
        cmocka_unit_test(the_token_goes_in_turn),
        cmocka_unit_test(nobody_takes_the_holders_slot),
        cmocka_unit_test(stale_pins_make_room),
        cmocka_unit_test(nobody_takes_the_holders_room),
        cmocka_unit_test(dirt_leaves_room_without_memory),
        cmocka_unit_test(forgotten_is_not_found),
        cmocka_unit_test(failed_load_is_forgotten),
        cmocka_unit_test(what_is_reserved_is_there),
        cmocka_unit_test(a_step_finds_room_beside_reserves),
        cmocka_unit_test(reserves_go_in_turn),
        cmocka_unit_test(a_refused_reserve_leaves_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
