/* SPDX-License-Identifier: MIT */
/*
 * What device models ask: limits of each kind of image, zones by their states against a full
 * report, and zones that have changed without the guest against a list of the test's own.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <zqcow2/backend.h>
#include <zqcow2/change.h>
#include <zqcow2/device.h>
#include <zqcow2/events.h>

#define ZONE  65536u
#define ZONES 9001u /* more than one call looks at, twice */
#define SIZE  ((uint64_t)ZONES * ZONE - 512)
#define LIST  600u

static struct zqcow2_zone all[ZONES], some[ZONES];
static uint64_t seed = 1;

static uint32_t roll(uint32_t n)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(seed >> 33) % n;
}

static struct zqcow2_image *make(const struct zqcow2_create_options *o, unsigned version,
                                 const struct zqcow2_open_options *how)
{
    struct zqcow2_amend_options a = ZQCOW2_AMEND_OPTIONS_INIT;
    struct zqcow2_image *img;
    struct zqcow2_backend *be;

    a.version = version;
    assert_int_equal(zqcow2_mem_open(0, NULL, &be), 0);
    assert_int_equal(zqcow2_create(be, o, NULL), 0);
    assert_int_equal(zqcow2_amend(be, &a, NULL), 0);
    assert_int_equal(zqcow2_open(be, how, &img, NULL), 0);
    return img;
}

/* The first two zones are conventional, the last one is short. */
static struct zqcow2_image *make_zones(uint32_t rules)
{
    struct zqcow2_create_options o = ZQCOW2_CREATE_OPTIONS_INIT;
    struct zqcow2_open_options how = ZQCOW2_OPEN_OPTIONS_INIT;

    o.virtual_size = SIZE;
    o.cluster_size = 4096;
    o.zone_size = ZONE;
    o.conventional_zones = 2;
    how.flags = ZQCOW2_OPEN_RDWR;
    how.rules = rules;
    return make(&o, 0, &how);
}

/* ---- limits ---- */

static const struct {
    uint32_t cluster, flags, block, conventional;
    bool zoned, v2;
    struct zqcow2_io_limits want;
} kinds[] = {
    {65536,
     0,
     512,
     0,
     false,
     false,
     {0, 3, 512, 4096, 65536, 65536, 65536, 8ull << 30, 8ull << 30}},
    {65536,
     0,
     4096,
     0,
     false,
     false,
     {0, 3, 4096, 4096, 65536, 65536, 65536, 8ull << 30, 8ull << 30}},
    {65536, 0, 512, 0, false, true, {0, 3, 512, 4096, 65536, 65536, 65536, 8ull << 30, 8ull << 30}},
    {512, 0, 4096, 0, false, false, {0, 3, 4096, 4096, 4096, 4096, 4096, 64u << 20, 64u << 20}},
    {65536,
     ZQCOW2_CREATE_EXTENDED_L2,
     512,
     0,
     false,
     false,
     {0, 3, 512, 4096, 65536, 65536, 2048, 4ull << 30, 4ull << 30}},
    {65536,
     ZQCOW2_CREATE_EXTENDED_L2,
     4096,
     0,
     false,
     false,
     {0, 3, 4096, 4096, 65536, 65536, 4096, 4ull << 30, 4ull << 30}},
    {65536, 0, 512, 0, true, false, {0, 0, 512, 4096, 65536, 65536, 512, 0, 16u << 20}},
    {65536, 0, 512, 1, true, false, {0, 3, 512, 4096, 65536, 65536, 65536, 8ull << 30, 8ull << 30}},
};

static void limits_are_those_of_the_image(void **state)
{
    (void)state;
    for (unsigned i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        struct zqcow2_create_options o = ZQCOW2_CREATE_OPTIONS_INIT;
        struct zqcow2_open_options how = ZQCOW2_OPEN_OPTIONS_INIT;
        struct zqcow2_io_limits want = kinds[i].want, got = ZQCOW2_IO_LIMITS_INIT;
        struct zqcow2_image *img;

        o.virtual_size = 4u << 20;
        o.cluster_size = kinds[i].cluster;
        o.flags = kinds[i].flags;
        o.zone_size = kinds[i].zoned ? 1u << 20 : 0;
        o.conventional_zones = kinds[i].conventional;
        how.flags = ZQCOW2_OPEN_RDWR;
        how.block_size = kinds[i].block;
        img = make(&o, kinds[i].v2 ? 2 : 0, &how);
        want.size = sizeof(want);
        assert_int_equal(zqcow2_get_io_limits(img, &got), 0);
        if (memcmp(&got, &want, sizeof(got)) != 0)
            fail_msg("image %u: %u %u %u %u %u %u %llu %llu", i, got.flags, got.block_size,
                     got.physical_block, got.optimal_io, got.discard_granularity,
                     got.zeroes_granularity, (unsigned long long)got.max_discard,
                     (unsigned long long)got.max_zeroes);
        got.size = 8;
        assert_int_equal(zqcow2_get_io_limits(img, &got), -EINVAL);
        assert_int_equal(zqcow2_close(img), 0);
    }
}

/* What cannot be written has neither discards nor zeros. */
static void a_read_only_image_announces_neither(void **state)
{
    struct zqcow2_create_options o = ZQCOW2_CREATE_OPTIONS_INIT;
    struct zqcow2_open_options how = ZQCOW2_OPEN_OPTIONS_INIT;
    struct zqcow2_io_limits got = ZQCOW2_IO_LIMITS_INIT;
    struct zqcow2_image *img;

    (void)state;
    o.virtual_size = 4u << 20;
    img = make(&o, 0, &how);
    assert_int_equal(zqcow2_get_io_limits(img, &got), 0);
    assert_true(!got.flags && !got.max_discard && !got.max_zeroes && got.optimal_io == 65536);
    assert_int_equal(zqcow2_close(img), 0);
}

/* A discard of max_discard is one of the limit's size that changes all of its range. */
static void the_limits_hold(void **state)
{
    struct zqcow2_create_options o = ZQCOW2_CREATE_OPTIONS_INIT;
    struct zqcow2_open_options how = ZQCOW2_OPEN_OPTIONS_INIT;
    struct zqcow2_io_limits l = ZQCOW2_IO_LIMITS_INIT;
    struct zqcow2_image *img;

    (void)state;
    o.virtual_size = 1ull << 40;
    how.flags = ZQCOW2_OPEN_RDWR;
    img = make(&o, 0, &how);
    assert_int_equal(zqcow2_get_io_limits(img, &l), 0);
    assert_int_equal(zqcow2_write_zeroes(img, l.max_zeroes, l.optimal_io, 0), 0);
    assert_int_equal(zqcow2_discard(img, l.max_discard, l.discard_granularity, 0), 0);
    assert_int_equal(zqcow2_close(img), 0);
}

/* ---- zones by state ---- */

static void mix_states(struct zqcow2_image *img)
{
    static const uint8_t data[512];
    uint32_t nr = ZONES;

    for (uint32_t i = 2; i < ZONES; i++) {
        uint64_t at = (uint64_t)i * ZONE, len = i + 1 < ZONES ? ZONE : SIZE - at;
        uint32_t what = roll(8);

        if (what & 1)
            assert_int_equal(zqcow2_write(img, data, sizeof(data), at, 0), 0);
        if (what == 2)
            assert_int_equal(zqcow2_zone_open(img, at, len, 0), 0);
        if (what == 3)
            assert_int_equal(zqcow2_zone_close(img, at, len, 0), 0);
        if (what == 5)
            assert_int_equal(zqcow2_zone_finish(img, at, len, 0), 0);
        if (what == 6 || what == 7)
            assert_int_equal(zqcow2_zone_set_state(
                                 img, at, what == 6 ? ZQCOW2_ZONE_RDONLY : ZQCOW2_ZONE_OFFLINE),
                             0);
    }
    assert_int_equal(zqcow2_zone_report(img, 0, all, &nr), 0);
    assert_int_equal(nr, ZONES);
}

/* From off on, in pieces of room; how many calls it took. */
static uint32_t walk(struct zqcow2_image *img, uint64_t off, uint32_t states, uint32_t room,
                     uint32_t *found)
{
    uint32_t calls = 0;

    for (*found = 0; off < SIZE; calls++) {
        uint32_t nr = room < ZONES - *found ? room : ZONES - *found;
        uint64_t from = off;

        assert_int_equal(zqcow2_zone_find(img, &off, states, some + *found, &nr), 0);
        assert_true(off > from && (off % ZONE == 0 || off == SIZE));
        assert_true(off / ZONE - from / ZONE <= 4096 || off == SIZE);
        *found += nr;
    }
    return calls;
}

static void finds_what_a_report_has(void **state)
{
    static const uint8_t states[] = {0, 1, 2, 3, 4, 0xd, 0xe, 0xf};
    struct zqcow2_image *img = make_zones(ZQCOW2_RULES_LINUX);
    uint64_t looked = 0;

    (void)state;
    mix_states(img);
    for (unsigned n = 0; n < 64; n++) {
        uint32_t from = n ? roll(ZONES) : 0, found, want = 0, counted = 0, mask = 0;
        uint64_t off = (uint64_t)from * ZONE + (n ? roll(512) : 0);

        for (unsigned i = 0; i < 8; i++)
            mask |= n < 8 ? (i == n ? ZQCOW2_STATE_BIT(states[i]) : 0) :
                            roll(2) * ZQCOW2_STATE_BIT(states[i]);
        walk(img, off, mask, 1 + roll(5000), &found);
        for (uint32_t i = from; i < ZONES; i++) {
            if (mask && !(mask >> all[i].state & 1))
                continue;
            if (want >= found || memcmp(&some[want], &all[i], sizeof(all[i])) != 0)
                fail_msg("set %u (%#x) from zone %u: zone %u is missing", n, mask, from, i);
            want++;
        }
        assert_int_equal(found, want);
        for (uint32_t nr = 7; off < SIZE; counted += nr)
            assert_int_equal(zqcow2_zone_find(img, &off, mask, NULL, &nr), 0);
        assert_int_equal(counted, want);
        looked += want;
    }
    printf("find: 64 sets of states, %llu zones found, 0 missing\n", (unsigned long long)looked);
    assert_int_equal(zqcow2_close(img), 0);
}

static void finds_nothing_where_there_is_nothing(void **state)
{
    struct zqcow2_image *img = make_zones(ZQCOW2_RULES_LINUX);
    uint64_t off = SIZE;
    uint32_t nr = 1, found;

    (void)state;
    assert_int_equal(zqcow2_zone_find(img, &off, 0, some, &nr), -EINVAL);
    off = 0;
    assert_int_equal(zqcow2_zone_find(img, &off, 1u << 5, some, &nr), -EINVAL);
    assert_int_equal(zqcow2_zone_find(img, &off, 1u << 16, some, &nr), -EINVAL);
    assert_true(nr == 1 && off == 0);
    nr = 0; /* no room: nothing moves */
    assert_int_equal(zqcow2_zone_find(img, &off, 0, some, &nr), 0);
    assert_true(nr == 0 && off == 0);
    /* It is known that there is none, but not where the last one is until it is found. */
    assert_int_equal(walk(img, 0, ZQCOW2_STATE_BIT(ZQCOW2_ZONE_FULL), 1, &found), 1);
    assert_int_equal(found, 0);
    assert_int_equal(zqcow2_zone_finish(img, 8998 * ZONE, ZONE, 0), 0);
    assert_int_equal(walk(img, 0, ZQCOW2_STATE_BIT(ZQCOW2_ZONE_FULL), 1, &found), 3);
    assert_int_equal(found, 1);
    off = 0;
    assert_int_equal(zqcow2_zone_find(img, &off, ZQCOW2_STATE_BIT(ZQCOW2_ZONE_EMPTY), NULL, &nr),
                     0);
    assert_true(off == SIZE && nr == ZONES - 3);
    assert_int_equal(zqcow2_close(img), 0);
}

/* ---- changes ---- */

static uint64_t list[LIST];

static void must_list(struct zqcow2_image *img, uint64_t *since, const uint32_t *zones, uint32_t n)
{
    uint32_t nr = LIST;

    assert_int_equal(zqcow2_zone_changes(img, since, list, &nr), 0);
    assert_int_equal(nr, n);
    for (uint32_t i = 0; i < n; i++)
        assert_int_equal(list[i], (uint64_t)zones[i] * ZONE);
}

/* What the guest does is no change, however much it does; what it cannot know is. */
static void only_the_program_changes(void **state)
{
    struct zqcow2_image *img = make_zones(ZQCOW2_RULES_LINUX);
    uint64_t since = 0, other = 0;
    uint32_t nr = LIST;

    (void)state;
    mix_states(img); /* more than the list holds */
    assert_int_equal(zqcow2_zone_changes(img, &since, list, &nr), -EOVERFLOW);
    must_list(img, &since, NULL, 0);
    other = since;
    for (uint32_t i = 2; i < 40; i++) {
        uint64_t at = (uint64_t)i * ZONE;

        assert_int_equal(zqcow2_zone_set_state(img, at, ZQCOW2_ZONE_NOT_WP), 0);
        zqcow2_zone_reset(img, at, ZONE, 0);
        zqcow2_zone_finish(img, at, ZONE, 0);
        zqcow2_zone_reset(img, at, ZONE, 0);
    }
    nr = LIST; /* those that were forced */
    assert_int_equal(zqcow2_zone_changes(img, &since, list, &nr), 0);
    for (uint32_t i = 2, n = 0; i < 40; i++) {
        if (all[i].state == ZQCOW2_ZONE_RDONLY || all[i].state == ZQCOW2_ZONE_OFFLINE)
            assert_true(n < nr && list[n++] == (uint64_t)i * ZONE);
    }
    assert_int_equal(zqcow2_zone_set_state(img, 9 * ZONE, ZQCOW2_ZONE_RDONLY), 0);
    assert_int_equal(zqcow2_zone_set_state(img, 5 * ZONE, ZQCOW2_ZONE_OFFLINE), 0);
    assert_int_equal(zqcow2_zone_set_state(img, 9 * ZONE, ZQCOW2_ZONE_OFFLINE), 0);
    must_list(img, &since, (const uint32_t[]){5, 9}, 2);
    must_list(img, &since, NULL, 0);
    assert_int_equal(zqcow2_zone_set_state(img, 6 * ZONE, ZQCOW2_ZONE_NOT_WP), 0); /* as it was */
    must_list(img, &since, NULL, 0);
    nr = LIST; /* another reader, who has not looked meanwhile */
    assert_int_equal(zqcow2_zone_changes(img, &other, list, &nr), 0);
    assert_true(other == since && nr > 2);
    other++;
    assert_int_equal(zqcow2_zone_changes(img, &other, list, &nr), -EINVAL);
    assert_int_equal(zqcow2_close(img), 0);
}

/* Each zone counts once, however often it changes; one more than fits, and all must be looked at.
 */
static void more_than_fits_is_said(void **state)
{
    struct zqcow2_image *img = make_zones(ZQCOW2_RULES_LINUX);
    uint64_t since = 0, before;
    uint32_t nr;

    (void)state;
    for (uint32_t n = 0; n < 3; n++) {
        for (uint32_t i = 511; i > 0; i--)
            assert_int_equal(zqcow2_zone_set_state(img, (uint64_t)(i + 1) * ZONE + (uint64_t)ZONE,
                                                   ZQCOW2_ZONE_RDONLY),
                             0);
    }
    nr = 511;
    before = since;
    assert_int_equal(zqcow2_zone_changes(img, &since, list, &nr), 0);
    assert_true(nr == 511 && list[0] == 3 * ZONE && list[510] == (uint64_t)513 * ZONE);
    nr = 510;
    assert_int_equal(zqcow2_zone_changes(img, &before, list, &nr), -EOVERFLOW);
    assert_true(before == since);
    before = 0;
    assert_int_equal(zqcow2_zone_set_state(img, 600 * (uint64_t)ZONE, ZQCOW2_ZONE_RDONLY), 0);
    nr = LIST;
    assert_int_equal(zqcow2_zone_changes(img, &before, list, &nr), -EOVERFLOW);
    must_list(img, &since, (const uint32_t[]){600}, 1);
    assert_int_equal(zqcow2_close(img), 0);
}

static void a_snapshot_changes_all(void **state)
{
    struct zqcow2_snapshot s = ZQCOW2_SNAPSHOT_INIT;
    struct zqcow2_image *img = make_zones(ZQCOW2_RULES_LINUX);
    uint64_t since = 0;
    uint32_t nr = LIST;

    (void)state;
    s.name = "a";
    assert_int_equal(zqcow2_snapshot_take(img, &s, NULL), 0);
    must_list(img, &since, NULL, 0);
    assert_int_equal(zqcow2_snapshot_apply(img, "a", NULL), 0);
    assert_int_equal(zqcow2_zone_changes(img, &since, list, &nr), -EOVERFLOW);
    must_list(img, &since, NULL, 0);
    /* What a smaller device has no more is not listed. */
    assert_int_equal(zqcow2_zone_set_state(img, 8000 * (uint64_t)ZONE, ZQCOW2_ZONE_RDONLY), 0);
    assert_int_equal(zqcow2_zone_set_state(img, 8000 * (uint64_t)ZONE, ZQCOW2_ZONE_NOT_WP), 0);
    assert_int_equal(zqcow2_zone_set_state(img, 7 * ZONE, ZQCOW2_ZONE_RDONLY), 0);
    assert_int_equal(zqcow2_resize(img, 4000 * (uint64_t)ZONE, ZQCOW2_RESIZE_SHRINK, NULL), 0);
    must_list(img, &since, (const uint32_t[]){7}, 1);
    assert_int_equal(zqcow2_close(img), 0);
}

struct heard {
    unsigned changed, last;
};

static void hear(void *arg, const struct zqcow2_event *e)
{
    struct heard *h = arg;

    if (e->kind != ZQCOW2_EVENT_ZONES_CHANGED)
        return;
    h->changed++;
    h->last = (unsigned)(e->offset / ZONE);
    assert_int_equal(e->state, ZQCOW2_ZONE_OFFLINE);
}

/* Like an asynchronous event of NVMe: once, and again when the list has been read. */
static void one_event_for_each_look(void **state)
{
    struct zqcow2_image *img = make_zones(ZQCOW2_RULES_ZNS);
    struct heard h = {0, 0};
    uint64_t since = 0;

    (void)state;
    zqcow2_set_event_handler(img, hear, &h);
    assert_int_equal(zqcow2_zone_set_state(img, 3 * ZONE, ZQCOW2_ZONE_OFFLINE), 0);
    assert_int_equal(zqcow2_flush(img), 0);
    assert_int_equal(h.changed, 0); /* nobody has looked yet */
    must_list(img, &since, (const uint32_t[]){3}, 1);
    assert_int_equal(zqcow2_zone_set_state(img, 4 * ZONE, ZQCOW2_ZONE_OFFLINE), 0);
    assert_int_equal(zqcow2_zone_set_state(img, 5 * ZONE, ZQCOW2_ZONE_OFFLINE), 0);
    assert_int_equal(zqcow2_flush(img), 0);
    assert_true(h.changed == 1 && h.last == 4);
    must_list(img, &since, (const uint32_t[]){4, 5}, 2);
    assert_int_equal(zqcow2_zone_set_state(img, 6 * ZONE, ZQCOW2_ZONE_OFFLINE), 0);
    assert_int_equal(zqcow2_flush(img), 0);
    assert_true(h.changed == 2 && h.last == 6);
    assert_int_equal(zqcow2_close(img), 0);
}

static void plain_images_have_no_zones(void **state)
{
    struct zqcow2_create_options o = ZQCOW2_CREATE_OPTIONS_INIT;
    struct zqcow2_image *img;
    uint64_t at = 0;
    uint32_t nr = 1;

    (void)state;
    o.virtual_size = 4u << 20;
    img = make(&o, 0, NULL);
    assert_int_equal(zqcow2_zone_find(img, &at, 0, some, &nr), ZQCOW2_ENOTZONED);
    assert_int_equal(zqcow2_zone_changes(img, &at, list, &nr), ZQCOW2_ENOTZONED);
    assert_int_equal(zqcow2_close(img), 0);
}

/* Without memory for the list, any zone may have changed; the call itself succeeds. */
struct poor {
    size_t refuse;
};

static void *poor_alloc(void *ctx, size_t align, size_t size)
{
    const struct poor *p = ctx;
    void *v;

    return size == p->refuse || posix_memalign(&v, align < sizeof(v) ? sizeof(v) : align, size) ?
               NULL :
               v;
}

static void poor_free(void *ctx, void *v, size_t size)
{
    (void)ctx, (void)size;
    free(v);
}

static void without_memory_all_has_changed(void **state)
{
    struct zqcow2_create_options o = ZQCOW2_CREATE_OPTIONS_INIT;
    struct zqcow2_open_options how = ZQCOW2_OPEN_OPTIONS_INIT;
    struct zqcow2_hooks hooks = ZQCOW2_HOOKS_INIT;
    struct poor poor = {511 * 16};
    struct zqcow2_image *img;
    uint64_t since = 0;
    uint32_t nr = LIST;

    (void)state;
    hooks.ctx = &poor;
    hooks.alloc = poor_alloc;
    hooks.free = poor_free;
    o.virtual_size = 64 * ZONE;
    o.zone_size = ZONE;
    how.flags = ZQCOW2_OPEN_RDWR;
    how.hooks = &hooks;
    img = make(&o, 0, &how);
    assert_int_equal(zqcow2_zone_set_state(img, 3 * ZONE, ZQCOW2_ZONE_OFFLINE), 0);
    assert_int_equal(zqcow2_zone_changes(img, &since, list, &nr), -EOVERFLOW);
    poor.refuse = 0;
    assert_int_equal(zqcow2_zone_set_state(img, 4 * ZONE, ZQCOW2_ZONE_OFFLINE), 0);
    must_list(img, &since, (const uint32_t[]){4}, 1);
    assert_int_equal(zqcow2_close(img), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(limits_are_those_of_the_image),
        cmocka_unit_test(a_read_only_image_announces_neither),
        cmocka_unit_test(the_limits_hold),
        cmocka_unit_test(finds_what_a_report_has),
        cmocka_unit_test(finds_nothing_where_there_is_nothing),
        cmocka_unit_test(only_the_program_changes),
        cmocka_unit_test(more_than_fits_is_said),
        cmocka_unit_test(a_snapshot_changes_all),
        cmocka_unit_test(one_event_for_each_look),
        cmocka_unit_test(plain_images_have_no_zones),
        cmocka_unit_test(without_memory_all_has_changed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
