/* SPDX-License-Identifier: MIT */
/*
 * Descriptor extensions under power loss: zones get one, are written, finished and reset, and get
 * the next one, and the power is cut at every position. An extension is never torn, never that of
 * another zone or of another life.
 *
 * ZQ_SEED: one workload; ZQ_CUT: with it, one position
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

#include "crash/zone_steps.h"

#define USED 6u /* zones */
#define MOST 576u
#define TORN 99u

/* Some share a sector, and some lie in two. */
static const struct shape shapes[] = {
    {65536, 8, 1, 4096, 0, 64},
    {65536, 8, 1, 65536, ZQCOW2_SIMDISK_ASYNC, 192},
    {4096, 1100, 180, 512, ZQCOW2_SIMDISK_ASYNC, 64},
    {4096, 1100, 1, 1024, 0, MOST},
};

/* No byte of it is that of another zone, of another step, or 0. */
static void compose(uint8_t *buf, uint32_t size, uint32_t zone, uint8_t tag)
{
    for (uint32_t i = 0; i < size; i++)
        buf[i] = tag ? (uint8_t)(1 + (tag * USED + zone + i * 3) % 255) : 0;
}

static int describe(const struct world *w, struct zqcow2_image *img, uint32_t zone, uint8_t tag)
{
    uint8_t buf[MOST];

    compose(buf, w->shape->described, zone, tag);
    return zqcow2_zone_set_descriptor(img, start_of(w, zone), buf, w->shape->described);
}

static int finish(struct world *w, struct step *s)
{
    s->after.state = ZQCOW2_ZONE_FULL;
    s->after.written = w->shape->zone_size;
    return zqcow2_zone_finish(w->img, start_of(w, s->zone), w->shape->zone_size, 0);
}

static int change(struct world *w, struct step *s)
{
    uint64_t chance = draw(w, 8);

    if (s->after.state == ZQCOW2_ZONE_EMPTY && chance < 6) {
        s->barrier = true;
        s->after.state = ZQCOW2_ZONE_CLOSED;
        s->after.tag = (uint8_t)(1 + (s - w->step));
        return describe(w, w->img, s->zone, s->after.tag);
    }
    if (s->after.state == ZQCOW2_ZONE_FULL || chance < 3)
        return step_reset(w, s);
    return chance == 7 ? finish(w, s) : step_write(w, s);
}

/* Which of all that were ever set: what is not the whole of one is torn. */
static uint8_t tag_of(const struct world *w, struct zqcow2_image *img, uint32_t zone,
                      bool described)
{
    uint8_t want[MOST], got[MOST];
    uint32_t nr = 1;

    must(w, zqcow2_zone_get_descriptors(img, start_of(w, zone), got, &nr) == 0, "get", zone);
    for (uint8_t tag = described; tag <= (described ? STEPS + 1 : 0); tag++) {
        compose(want, w->shape->described, zone, tag);
        if (!memcmp(got, want, w->shape->described))
            return tag;
    }
    return TORN;
}

/* What a zone has had does not come back in its next life. */
static void use(const struct world *w, struct zqcow2_image *img, struct shown *shown)
{
    for (uint32_t z = 0; z < 2; z++) {
        must(w, zqcow2_zone_reset(img, start_of(w, z), w->shape->zone_size, 0) == 0, "reset", z);
        shown[z] = (struct shown){ZQCOW2_ZONE_EMPTY, 0, 0};
    }
    same(w, img, shown);
    must(w, describe(w, img, 1, STEPS + 1) == 0, "describe", 1);
    shown[1] = (struct shown){ZQCOW2_ZONE_CLOSED, STEPS + 1, 0};
}

static void every_cut(void **state)
{
    const struct kind kind = {
        "test_described", "descriptor extensions", shapes, USED, change, tag_of, use};

    (void)state;
    every_cut_of(&kind);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_cut)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
