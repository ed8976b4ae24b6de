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

static void states_are_inherited(void **state)
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
        {"qcow2", 8 * Z + C, Z, Z, 1, "its size is not"},
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
        cmocka_unit_test(states_are_inherited),
        cmocka_unit_test(only_the_limits_may_differ),
        cmocka_unit_test(other_zones_are_refused),
        cmocka_unit_test(a_plain_source_needs_its_format),
        cmocka_unit_test(a_chain_is_read_through),
        cmocka_unit_test(many_zones_are_inherited_quickly),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
