/* SPDX-License-Identifier: MIT */
/* Making zoned images on zoned images: what is inherited, what may differ, what may stand where. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <cmocka.h>
#include "rig/layered.h"

/* ---- create ---- */

static void zones_are_inherited(void **state)
{
    struct zqcow2_info info;
    struct rig r;
    uint32_t kind;

    (void)state;
    stack(&r);
    zone_is(&r, EMPTY, ZQCOW2_ZONE_EMPTY, 0);
    zone_is(&r, INSIDE, ZQCOW2_ZONE_CLOSED, AT_INSIDE);
    zone_is(&r, EDGE, ZQCOW2_ZONE_CLOSED, AT_EDGE);
    zone_is(&r, WRITTEN, ZQCOW2_ZONE_FULL, Z);
    zone_is(&r, FINISHED, ZQCOW2_ZONE_FULL, Z);
    zone_is(&r, OPENED, ZQCOW2_ZONE_CLOSED, C);
    zone_is(&r, RESET, ZQCOW2_ZONE_EMPTY, 0);
    info = rig_info(&r);
    assert_int_equal(info.max_active_zones, 6);
    assert_int_equal(info.active_zones, 3);
    for (uint32_t i = EMPTY; i <= RESET; i++)
        holds(&r, i, left_at[i], left_at[i]);
    assert_true(rig_holds(&r, C, 2 * C, C, 1));
    assert_int_equal(depth_at(&r, rig_start(&r, INSIDE), &kind), 1);
    assert_int_equal(kind, ZQCOW2_BLOCK_DATA);
    assert_int_equal(depth_at(&r, rig_start(&r, INSIDE) + AT_INSIDE, &kind), 0);
    rig_end(&r);
}

struct asked {
    struct rig *r;
    unsigned flushes, opened;
};

static int spy_length(void *self, uint64_t *bytes)
{
    struct store *s = &((struct asked *)self)->r->below[0];

    return store_be(s).ops->length(s, bytes);
}

static int spy_readv(void *self, const struct iovec *iov, int cnt, uint64_t off)
{
    struct store *s = &((struct asked *)self)->r->below[0];

    return store_be(s).ops->readv(s, iov, cnt, off);
}

static int spy_flush(void *self)
{
    struct asked *a = self;

    a->flushes += !a->r->store.length; /* nothing of the new image is there yet */
    return 0;
}

static int spy(void *arg, const char *name, const char *format, uint32_t depth,
               struct zqcow2_backend **be, struct zqcow2_error *err)
{
    static const struct zqcow2_backend_ops ops = {
        .size = sizeof(ops), .length = spy_length, .readv = spy_readv, .flush = spy_flush};

    (void)err;
    assert_string_equal(name, "base");
    assert_string_equal(format, "qcow2");
    assert_int_equal(depth, 1);
    ((struct asked *)arg)->opened++;
    return zqcow2_backend_new(&ops, arg, NULL, be);
}

/* Creates an overlay in an empty store. */
static int create(struct asked *a, struct zqcow2_create_options *o)
{
    const struct rig_be top = store_be(&a->r->store);
    struct zqcow2_backend *be;
    int rc;

    store_free(&a->r->store);
    store_init(&a->r->store);
    o->backing_name = "base";
    o->resolve = spy;
    o->resolve_arg = a;
    assert_int_equal(zqcow2_backend_new(top.ops, top.self, NULL, &be), 0);
    rc = zqcow2_create(be, o, &a->r->err);
    zqcow2_backend_close(be);
    return rc;
}

static void only_the_limits_may_differ(void **state)
{
    static const struct {
        size_t member, bytes;
        uint64_t value;
        const char *why; /* NULL: it may */
    } t[] = {
#define M(m) \
    offsetof(struct zqcow2_create_options, m), sizeof(((struct zqcow2_create_options *)0)->m)
        {M(virtual_size), 10 * Z, "size 655360: the backing file has 589824"},
        {M(virtual_size), 9 * Z, NULL},
        {M(zone_size), 2 * Z, "zone.size 131072: the backing file has 65536"},
        {M(zone_capacity), C, "zone.capacity 4096: the backing file has 65536"},
        {M(conventional_zones), 2, "zone.conventional_zones 2: the backing file has 1"},
        {M(max_active_zones), 2, "zone.max_active_zones 2: the backing file has 3 active zones"},
        {M(max_active_zones), 3, NULL},
        {M(max_open_zones), 1, NULL},
        {M(layout), ZQCOW2_LAYOUT_V7, NULL},
        {M(cluster_size), 512, NULL},
#undef M
    };
    struct asked a = {.flushes = 0};
    struct rig r;

    (void)state;
    stack(&r);
    assert_int_equal(rig_close(&r), 0);
    a.r = &r;
    for (size_t i = 0; i < sizeof(t) / sizeof(*t); i++) {
        struct zqcow2_create_options o = ZQCOW2_CREATE_OPTIONS_INIT;

        memcpy((char *)&o + t[i].member, &t[i].value, t[i].bytes); /* little-endian, or 8 bytes */
        assert_int_equal(create(&a, &o), t[i].why ? -EINVAL : 0);
        if (t[i].why && !strstr(r.err.text, t[i].why))
            fail_msg("%s", r.err.text);
        assert_int_equal(a.opened, i + 1);
        assert_int_equal(a.flushes, i + 1);
        if (!t[i].why)
            assert_int_equal(rig_open(&r, false), 0);
        if (!t[i].why)
            holds(&r, INSIDE, AT_INSIDE, AT_INSIDE);
        if (!t[i].why)
            assert_int_equal(rig_close(&r), 0);
    }
    assert_null(rig_free(&r));
}

static uint64_t extension(struct raw *w, uint64_t type)
{
    uint64_t at = 104;

    while (at < 512 && raw_get(w, at, 4) != type)
        at += 8;
    assert_true(at < 512);
    return at;
}

/* Chains in which one has zones and another has not, or other ones. */
static void other_zones_are_refused(void **state)
{
    static const struct {
        const char *format;
        uint64_t size, zone_size, capacity;
        uint32_t conventional;
        const char *why; /* NULL: it may stand there */
    } t[] = {
        {"qcow2", 9 * Z, Z, Z, 1, NULL},
        {"qcow2", 7 * Z, Z, Z, 1, NULL}, /* zones at the end are missing: G1 */
        {"qcow2", 9 * Z, 0, 0, 0, "it has no zones, but the image above it has"},
        {"qcow2", 9 * Z, 2 * Z, 2 * Z, 1, "its zone size is not"},
        {"qcow2", 9 * Z, Z, C, 1, "its zone capacity is not"},
        {"qcow2", 9 * Z, Z, Z, 2, "its number of conventional zones is not"},
        {"qcow2", 10 * Z, Z, Z, 1, "its size is not"},
        {"qcow2", 8 * Z + C, Z, Z, 1, NULL}, /* the image has grown by the rest of a zone: G2 */
        {"raw", 9 * Z, 0, 0, 0, "it has no zones, but the image above it has"},
    };
    struct rig r;

    (void)state;
    stack(&r);
    assert_int_equal(rig_close(&r), 0);
    r.open.backing_format = "raw";
    for (size_t i = 0; i < sizeof(t) / sizeof(*t); i++) {
        const struct rig_be floor = store_be(&r.below[0]);
        struct zqcow2_create_options o = ZQCOW2_CREATE_OPTIONS_INIT;
        struct zqcow2_backend *be;
        struct raw w;

        store_free(&r.below[0]);
        store_init(&r.below[0]);
        o.virtual_size = t[i].size;
        o.zone_size = t[i].zone_size;
        o.zone_capacity = t[i].capacity;
        o.conventional_zones = t[i].conventional;
        assert_int_equal(zqcow2_backend_new(floor.ops, floor.self, NULL, &be), 0);
        assert_int_equal(zqcow2_create(be, &o, &r.err), 0);
        zqcow2_backend_close(be);
        if (!strcmp(t[i].format, "raw")) { /* as if no format were stored */
            assert_true(raw_find(&w, &r.store));
            raw_put(&w, extension(&w, 0xe2792aca), 4, 0x12345678);
        }
        if (rig_open(&r, false) == 0) {
            assert_null(t[i].why);
            assert_int_equal(rig_close(&r), 0);
        } else if (!t[i].why || !strstr(r.err.text, t[i].why)) {
            fail_msg("%zu: %s", i, r.err.text);
        }
    }
    assert_null(rig_free(&r));
}

/* The format may be left out for a source with zones, and only for that. */
static void a_plain_source_needs_its_format(void **state)
{
    struct zqcow2_create_options o = ZQCOW2_CREATE_OPTIONS_INIT;
    struct zqcow2_backend *be;
    struct asked a = {.flushes = 0};
    struct rig r;

    (void)state;
    stack(&r);
    assert_int_equal(rig_close(&r), 0);
    a.r = &r;
    store_free(&r.below[0]);
    store_init(&r.below[0]);
    assert_int_equal(zqcow2_backend_new(store_be(&r.below[0]).ops, &r.below[0], NULL, &be), 0);
    o.virtual_size = 9 * Z;
    assert_int_equal(zqcow2_create(be, &o, &r.err), 0);
    zqcow2_backend_close(be);
    o = (struct zqcow2_create_options)ZQCOW2_CREATE_OPTIONS_INIT;
    assert_int_equal(create(&a, &o), -EINVAL);
    assert_non_null(strstr(r.err.text, "its format must be given"));
    o.backing_format = "qcow2";
    o.zone_size = Z;
    assert_int_equal(create(&a, &o), -EINVAL);
    assert_non_null(strstr(r.err.text, "zone.size 65536: the backing file has no zones"));
    o.zone_size = 0;
    assert_int_equal(create(&a, &o), 0); /* of the source's size */
    assert_int_equal(rig_open(&r, false), 0);
    assert_int_equal(rig_info(&r).virtual_size, 9 * Z);
    assert_null(rig_free(&r));
}

/* ---- stored states ---- */

static int set(struct rig *r, uint32_t zone, unsigned state)
{
    return zqcow2_zone_set_state(r->img, rig_start(r, zone), state | ZQCOW2_ZONE_PERSIST);
}

/* The image becomes the source of a new one. */
static void put_below(struct rig *r)
{
    assert_int_equal(rig_close(r), 0);
    assert_int_equal(rig_stack(r), 0);
    assert_int_equal(rig_open(r, true), 0);
}

static const struct geometry stored_on[] = {
    {.name = "64 KiB clusters",
     .size = 9 * Z,
     .zone_size = Z,
     .conventional = 1,
     .max_active = 6,
     .cluster = 65536,
     .rules = ZQCOW2_RULES_ZNS},
    {.name = "a table of several clusters",
     .size = 4500 * 4096,
     .zone_size = 4096,
     .conventional = 1,
     .max_active = 6,
     .cluster = 1024,
     .rules = ZQCOW2_RULES_ZNS},
};

static void has_states(struct rig *r, uint32_t last)
{
    assert_int_equal(rig_zone(r, 1).state, ZQCOW2_ZONE_RDONLY);
    assert_int_equal(rig_zone(r, 2).state, ZQCOW2_ZONE_OFFLINE);
    zone_is(r, 3, ZQCOW2_ZONE_CLOSED, 0);
    zone_is(r, 4, ZQCOW2_ZONE_CLOSED, 512);
    assert_int_equal(rig_zone(r, last).state, ZQCOW2_ZONE_RDONLY);
    for (uint32_t i = 5; i < last; i++)
        assert_int_equal(rig_zone(r, i).state, ZQCOW2_ZONE_EMPTY);
    assert_int_equal(rig_info(r).active_zones, 3); /* zone 1 has data */
    assert_true(rig_info(r).flags & ZQCOW2_INFO_STATES);
    assert_true(rig_holds(r, rig_start(r, 1), 512, rig_start(r, 1), 1));
}

/* A new image has its source's, keeps them when they change there, and changes them for itself. */
static void stored_states_are_inherited(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(stored_on) / sizeof(*stored_on); i++) {
        const struct geometry *g = &stored_on[i];
        uint32_t last = (uint32_t)(g->size / g->zone_size) - 1;
        struct rig r;

        rig_begin(&r, g);
        assert_int_equal(rig_write(&r, rig_start(&r, 1), 512, 1), 0);
        assert_int_equal(set(&r, 1, ZQCOW2_ZONE_RDONLY), 0);
        assert_int_equal(set(&r, 2, ZQCOW2_ZONE_OFFLINE), 0);
        assert_int_equal(set(&r, 3, ZQCOW2_ZONE_CLOSED), 0);
        assert_int_equal(set(&r, 4, ZQCOW2_ZONE_CLOSED), 0);
        assert_int_equal(rig_write(&r, rig_start(&r, 4), 512, 1), 0);
        assert_int_equal(set(&r, last, ZQCOW2_ZONE_RDONLY), 0);
        put_below(&r);
        has_states(&r, last);
        put_below(&r); /* and those of the source's source */
        has_states(&r, last);
        assert_int_equal(rig_write(&r, rig_start(&r, 1), 512, 2), ZQCOW2_EZONE_RDONLY);
        assert_int_equal(rig_write(&r, rig_start(&r, 3), 512, 2), 0);
        assert_int_equal(set(&r, 1, ZQCOW2_ZONE_NOT_WP), 0);
        rig_reopen(&r);
        zone_is(&r, 1, ZQCOW2_ZONE_CLOSED, 512);
        zone_is(&r, 3, ZQCOW2_ZONE_CLOSED, 512);
        assert_int_equal(rig_manage(&r, ZQCOW2_OP_ZONE_RESET, rig_start(&r, 3), g->zone_size, NULL),
                         0);
        zone_is(&r, 3, ZQCOW2_ZONE_EMPTY, 0);
        assert_int_equal(rig_zone(&r, 2).state, ZQCOW2_ZONE_OFFLINE);
        rig_end(&r);
    }
}

/* What has become void, or is no state any more, takes no place in the new image. */
static void void_states_are_not_inherited(void **state)
{
    struct raw w;
    struct rig r;

    (void)state;
    for (unsigned cleared = 0; cleared < 2; cleared++) {
        rig_begin(&r, &stored_on[0]);
        assert_int_equal(set(&r, 2, ZQCOW2_ZONE_OFFLINE), 0);
        if (!cleared)
            assert_int_equal(set(&r, 2, ZQCOW2_ZONE_NOT_WP), 0);
        assert_int_equal(rig_close(&r), 0);
        assert_true(raw_find(&w, &r.store));
        if (cleared) /* as another program does that writes the image */
            raw_put(&w, 88, 8, 0);
        assert_int_equal(rig_stack(&r), 0);
        assert_int_equal(rig_open(&r, true), 0);
        assert_int_equal(rig_zone(&r, 2).state, ZQCOW2_ZONE_EMPTY);
        assert_int_equal(rig_info(&r).flags & (ZQCOW2_INFO_STATES | ZQCOW2_INFO_STATES_VOID), 0);
        rig_end(&r);
    }
}

static int by_any_name(void *arg, const char *name, const char *format, uint32_t depth,
                       struct zqcow2_backend **be, struct zqcow2_error *err)
{
    (void)name;
    return spy(arg, "base", format, depth, be, err);
}

/*
 * In clusters of 512 bytes the longest name depends on what else the header holds: one byte more is
 * refused before anything is written, and the longest is found again.
 */
static void longest_name(bool stored, enum zqcow2_layout layout, size_t *longest)
{
    struct zqcow2_create_options o = ZQCOW2_CREATE_OPTIONS_INIT;
    char name[512] = "";
    struct asked a = {.flushes = 0};
    struct zqcow2_backend *be;
    struct rig r;
    int rc;

    rig_begin(&r, &stored_on[0]);
    if (stored)
        assert_int_equal(set(&r, 2, ZQCOW2_ZONE_OFFLINE), 0);
    put_below(&r);
    assert_int_equal(rig_close(&r), 0);
    a.r = &r;
    o.cluster_size = 512;
    o.layout = layout;
    o.backing_name = name;
    o.resolve = by_any_name;
    o.resolve_arg = &a;
    do {
        strcat(name, "n");
        store_free(&r.store);
        store_init(&r.store);
        assert_int_equal(zqcow2_backend_new(store_be(&r.store).ops, &r.store, NULL, &be), 0);
        rc = zqcow2_create(be, &o, &r.err);
        zqcow2_backend_close(be);
        if (rc == 0)
            assert_int_equal(raw_get(&(struct raw){.s = &r.store}, 16, 4), strlen(name));
        if (rc == 0 && strlen(name) % 16 == 0) {
            assert_int_equal(rig_open(&r, true), 0);
            assert_int_equal(rig_zone(&r, 2).state,
                             stored ? ZQCOW2_ZONE_OFFLINE : ZQCOW2_ZONE_EMPTY);
            assert_int_equal(rig_close(&r), 0);
            assert_int_equal(rig_check(&r, 0), 0);
        }
    } while (rc == 0);
    *longest = strlen(name) - 1;
    assert_int_equal(rc, -EINVAL);
    assert_non_null(strstr(r.err.text, "backing_name: must have 1 to"));
    assert_int_equal(r.store.length, 0);
    assert_null(rig_free(&r));
}

static void names_have_room(void **state)
{
    size_t with, without;

    (void)state;
    longest_name(false, ZQCOW2_LAYOUT_44, &without);
    longest_name(true, ZQCOW2_LAYOUT_44, &with);
    assert_int_equal(without - with, 48);
    longest_name(true, ZQCOW2_LAYOUT_56, &with);
    assert_true(with > 200);
}

/* ---- chains and sizes ---- */

static void a_chain_is_read_through(void **state)
{
    struct rig r;

    (void)state;
    stack(&r);
    assert_int_equal(rig_write(&r, rig_start(&r, INSIDE) + AT_INSIDE, C, 2), 0);
    on_zone(&r, ZQCOW2_OP_ZONE_RESET, WRITTEN);
    assert_int_equal(rig_write(&r, rig_start(&r, WRITTEN), C + 512, 2), 0);
    on_zone(&r, ZQCOW2_OP_ZONE_FINISH, EDGE);
    assert_int_equal(rig_close(&r), 0);
    assert_int_equal(rig_stack(&r), 0);
    assert_int_equal(rig_open(&r, true), 0);
    for (unsigned again = 0; again < 2; again++) {
        holds(&r, INSIDE, AT_INSIDE, AT_INSIDE + (again + 1) * C);
        holds(&r, WRITTEN, 0, (again + 1) * (C + 512));
        holds(&r, EDGE, AT_EDGE, AT_EDGE);
        if (!again)
            assert_int_equal(rig_write(&r, rig_start(&r, INSIDE) + AT_INSIDE + C, C, 2), 0);
        if (!again)
            assert_int_equal(rig_write(&r, rig_start(&r, WRITTEN) + C + 512, C + 512, 2), 0);
    }
    rig_end(&r);
}

static double milliseconds(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

static void many_zones_are_inherited_quickly(void **state)
{
    static const struct geometry many = {
        .name = "many", .size = 65536 * MiB(256), .zone_size = MiB(256), .cluster = 65536};
    double began;
    struct rig r;

    (void)state;
    rig_begin(&r, &many);
    assert_int_equal(rig_write(&r, 65535 * MiB(256), C, 1), 0);
    assert_int_equal(rig_close(&r), 0);
    began = milliseconds();
    r.g = &(const struct geometry){.name = "many", .cluster = 131072}; /* all else is inherited */
    assert_int_equal(rig_stack(&r), 0);
    printf("an overlay on 65536 zones: %.1f ms, %llu bytes\n", milliseconds() - began,
           (unsigned long long)r.store.length);
    assert_true(r.store.length <= MiB(1));
    r.g = &many;
    assert_int_equal(rig_open(&r, true), 0);
    assert_int_equal(rig_info(&r).nr_zones, 65536);
    assert_true(rig_holds(&r, 65535 * MiB(256), C, 65535 * MiB(256), 1));
    rig_end(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(zones_are_inherited),
        cmocka_unit_test(only_the_limits_may_differ),
        cmocka_unit_test(other_zones_are_refused),
        cmocka_unit_test(a_plain_source_needs_its_format),
        cmocka_unit_test(stored_states_are_inherited),
        cmocka_unit_test(void_states_are_not_inherited),
        cmocka_unit_test(names_have_room),
        cmocka_unit_test(a_chain_is_read_through),
        cmocka_unit_test(many_zones_are_inherited_quickly),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
