/* SPDX-License-Identifier: MIT */
/* A zoned image on one whose zones are in every state, and what it must hold. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>
#include "rig/layered.h"

/* clang-format off */
static const struct geometry nine = {
    .name = "nine", .size = 9 * Z, .zone_size = Z, .conventional = 1, .max_active = 6,
    .cluster = 2 * C};
/* clang-format on */

const uint64_t left_at[] = {[INSIDE] = AT_INSIDE, [EDGE] = AT_EDGE, [WRITTEN] = Z,
                            [FINISHED] = 512,     [OPENED] = C,     [RESET] = 0};

void on_zone(struct rig *r, int op, uint32_t zone)
{
    assert_int_equal(rig_manage(r, op, rig_start(r, zone), Z, NULL), 0);
}

static void begin(struct rig *r)
{
    rig_begin(r, &nine);
    assert_int_equal(rig_write(r, C, 2 * C, 1), 0);
    for (uint32_t i = INSIDE; i <= RESET; i++)
        assert_int_equal(rig_write(r, rig_start(r, i), left_at[i] ? left_at[i] : C, 1), 0);
    on_zone(r, ZQCOW2_OP_ZONE_FINISH, FINISHED);
    on_zone(r, ZQCOW2_OP_ZONE_RESET, RESET);
    assert_int_equal(rig_close(r), 0);
}

/* Of what the source has behind its pointers nothing may ever be seen. */
static void soil(struct rig *r)
{
    static uint8_t dirt[2 * C];
    struct raw w;

    memset(dirt, 0xdd, sizeof(dirt));
    assert_true(raw_find(&w, &r->below[0]));
    for (uint32_t i = INSIDE; i <= OPENED; i++) {
        uint64_t at = left_at[i] / (2 * C) * (2 * C), in = left_at[i] - at, host;

        host = i == WRITTEN || i == FINISHED ? 0 : raw_host(&w, rig_start(r, i) + at);
        if (host)
            store_put(&r->below[0], dirt, sizeof(dirt) - in, host + in);
    }
}

/* An overlay with the source's states, open for writing. */
void stack(struct rig *r)
{
    begin(r);
    assert_int_equal(rig_stack(r), 0);
    soil(r);
    assert_int_equal(rig_open(r, true), 0);
}

void reopen(struct rig *r)
{
    assert_int_equal(rig_close(r), 0);
    assert_int_equal(rig_open(r, true), 0);
}

/* Zone i: the source's up to `from`, written by 2 up to `to`, zeros behind. */
void holds(struct rig *r, uint32_t i, uint64_t from, uint64_t to)
{
    uint64_t s = rig_start(r, i);

    assert_true(!from || rig_holds(r, s, from, s, 1));
    assert_true(from == to || rig_holds(r, s + from, to - from, s + from, 2));
    assert_true(to == Z || rig_zeros(r, s + to, Z - to));
}

void zone_is(struct rig *r, uint32_t i, uint32_t state, uint64_t wp)
{
    struct zqcow2_zone z = rig_zone(r, i);

    assert_int_equal(z.state, state);
    assert_int_equal(z.write_pointer, rig_start(r, i) + wp);
}

uint32_t depth_at(struct rig *r, uint64_t off, uint32_t *kind)
{
    struct zqcow2_extent s = ZQCOW2_EXTENT_INIT;

    assert_int_equal(zqcow2_block_status(r->img, off, 512, &s), 0);
    *kind = s.kind;
    return s.depth;
}

/* Is the cluster mapped by the overlay itself? */
bool is_own(struct rig *r, uint64_t off)
{
    struct raw w;
    uint64_t at;

    assert_true(raw_find(&w, &r->store));
    at = raw_l2_at(&w, off);
    return at && raw_get(&w, at, 8);
}
