/* SPDX-License-Identifier: MIT */
/*
 * Stored zone states under power loss: states set, changed and removed while zones are written and
 * reset, and the power cut at every position.
 *
 * ZQ_SEED: one workload; ZQ_CUT: with it, one position
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "crash/zone_steps.h"

#define USED    8u /* zones: in the first half only states are set, the others are written, too */
#define PERSIST ZQCOW2_ZONE_PERSIST

static const struct shape shapes[] = {
    {65536, 8, 1, 4096, 0, 0},
    {65536, 8, 1, 65536, ZQCOW2_SIMDISK_ASYNC, 0},
    {4096, 1100, 150, 512, 0, 0}, /* a table of three sectors, in five clusters */
    {4096, 1100, 150, 1024, ZQCOW2_SIMDISK_ASYNC, 0},
};

static int set(const struct world *w, struct zqcow2_image *img, uint32_t z, unsigned state)
{
    return zqcow2_zone_set_state(img, start_of(w, z), state | PERSIST);
}

static int step_of_states(struct world *w, struct step *s)
{
    static const uint8_t states[] = {ZQCOW2_ZONE_RDONLY, ZQCOW2_ZONE_OFFLINE, ZQCOW2_ZONE_NOT_WP};
    uint8_t state = states[draw(w, 3)];

    s->barrier = true;
    s->after.state = state == ZQCOW2_ZONE_NOT_WP ? ZQCOW2_ZONE_EMPTY : state;
    return set(w, w->img, s->zone, state);
}

static int step_of_data(struct world *w, struct step *s)
{
    switch (draw(w, s->after.written ? 3 : 4)) {
    case 0: return step_reset(w, s);
    case 3:
        s->barrier = true;
        s->after.state = ZQCOW2_ZONE_CLOSED;
        return set(w, w->img, s->zone, ZQCOW2_ZONE_CLOSED);
    default: return step_write(w, s);
    }
}

static int change(struct world *w, struct step *s)
{
    if (s->zone < USED / 2)
        return step_of_states(w, s);
    return s->after.state == ZQCOW2_ZONE_FULL ? step_reset(w, s) : step_of_data(w, s);
}

static void use(const struct world *w, struct zqcow2_image *img, struct shown *shown)
{
    must(w, set(w, img, 1, ZQCOW2_ZONE_OFFLINE) == 0, "set", 1);
    shown[1] = (struct shown){ZQCOW2_ZONE_OFFLINE, 0, 0};
}

static void every_cut(void **state)
{
    const struct kind kind = {"test_stored", "stored states", shapes, USED, change, NULL, use};

    (void)state;
    every_cut_of(&kind);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_cut)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
