/* SPDX-License-Identifier: MIT */
/* The blocking calls: each does what its name says and hands on arguments, flags and results. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>
#include <zqcow2/backend.h>
#include <zqcow2/queue.h>

#define Z (1u << 20)

/* Eight zones of 1 MiB, the first conventional; at most two open. zone_size 0: a plain image. */
static struct zqcow2_image *make(uint64_t zone_size)
{
    struct zqcow2_create_options how = ZQCOW2_CREATE_OPTIONS_INIT;
    struct zqcow2_open_options opt = ZQCOW2_OPEN_OPTIONS_INIT;
    struct zqcow2_backend *be;
    struct zqcow2_image *img;

    how.virtual_size = 8 * Z;
    how.zone_size = zone_size;
    how.conventional_zones = zone_size ? 1 : 0;
    how.max_open_zones = zone_size ? 2 : 0;
    opt.flags = ZQCOW2_OPEN_RDWR;
    assert_int_equal(zqcow2_mem_open(0, NULL, &be), 0);
    assert_int_equal(zqcow2_create(be, &how, NULL), 0);
    assert_int_equal(zqcow2_open(be, &opt, &img, NULL), 0);
    return img;
}

static struct zqcow2_zone zone(struct zqcow2_image *img, uint64_t off)
{
    struct zqcow2_zone z;
    uint32_t n = 1;

    assert_int_equal(zqcow2_zone_report(img, off, &z, &n), 0);
    assert_int_equal(n, 1);
    return z;
}

static void the_loaded_library_is_that_of_the_header(void **state)
{
    (void)state;
    assert_int_equal(zqcow2_version(), ZQCOW2_VERSION);
    assert_int_equal(ZQCOW2_VERSION, ZQCOW2_VERSION_MAJOR * 1000000 + ZQCOW2_VERSION_MINOR * 1000 +
                                         ZQCOW2_VERSION_PATCH);
}

static void zone_calls_change_the_states_of_their_names(void **state)
{
    struct zqcow2_image *img = make(Z);

    (void)state;
    assert_int_equal(zqcow2_zone_open(img, Z, 2 * Z, 0), 0);
    assert_int_equal(zone(img, Z).state, ZQCOW2_ZONE_EXP_OPEN);
    assert_int_equal(zone(img, 2 * Z).state, ZQCOW2_ZONE_EXP_OPEN);
    assert_int_equal(zqcow2_zone_open(img, 3 * Z, Z, 0), ZQCOW2_EZONE_OPEN);
    assert_int_equal(zqcow2_write_zeroes(img, 4096, Z, 0), 0);
    assert_int_equal(zqcow2_zone_close(img, Z, 2 * Z, 0), 0);
    assert_int_equal(zone(img, Z).state, ZQCOW2_ZONE_CLOSED);
    assert_int_equal(zone(img, 2 * Z).state, ZQCOW2_ZONE_EMPTY);
    assert_int_equal(zqcow2_zone_finish(img, Z, Z, ZQCOW2_FUA), 0);
    assert_int_equal(zone(img, Z).state, ZQCOW2_ZONE_FULL);
    assert_int_equal(zqcow2_zone_reset(img, Z, Z, ZQCOW2_FUA), 0);
    assert_int_equal(zone(img, Z).state, ZQCOW2_ZONE_EMPTY);
    assert_int_equal(zqcow2_zone_set_state(img, Z, ZQCOW2_ZONE_OFFLINE), 0);
    assert_int_equal(zone(img, Z).state, ZQCOW2_ZONE_OFFLINE);
    assert_int_equal(zqcow2_close(img), 0);
}

static void the_zone_that_failed_is_told(void **state)
{
    struct zqcow2_image *img = make(Z);
    struct zqcow2_request req = {
        .size = sizeof(req), .op = ZQCOW2_OP_ZONE_OPEN, .offset = Z, .length = 4 * Z};
    struct zqcow2_result res;

    (void)state;
    assert_int_equal(zqcow2_run(img, &req, &res), ZQCOW2_EZONE_OPEN);
    assert_int_equal(res.ret, ZQCOW2_EZONE_OPEN);
    assert_int_equal(res.offset, 3 * Z);
    assert_int_equal(zqcow2_close(img), 0);
}

static void unreadable(struct zqcow2_image *img, const struct zqcow2_request *req)
{
    struct zqcow2_result res = {.ret = 77, .offset = 88};

    assert_int_equal(zqcow2_run(img, req, &res), -EINVAL);
    assert_int_equal(res.ret, 77);
    assert_int_equal(res.offset, 88);
    assert_int_equal(zqcow2_run(img, req, NULL), -EINVAL);
}

static void a_malformed_request_has_no_result(void **state)
{
    struct zqcow2_request req = {.size = sizeof(req), .op = ZQCOW2_OP_FLUSH};
    struct zqcow2_image *img = make(Z);

    (void)state;
    req.size--;
    unreadable(img, &req);
    req.size++;
    req.op = 99;
    unreadable(img, &req);
    req.op = ZQCOW2_OP_FLUSH;
    req.reserved = 1;
    unreadable(img, &req);
    req.reserved = 0;
    assert_int_equal(zqcow2_run(img, &req, NULL), 0);
    assert_int_equal(zqcow2_close(img), 0);
}

static void io_calls_hand_on_buffers_and_places(void **state)
{
    struct zqcow2_image *img = make(Z);
    char data[1024], back[2048];
    uint64_t where = 2 * Z;

    (void)state;
    memset(data, 'd', sizeof(data));
    assert_int_equal(zqcow2_append(img, data, 512, &where, 0), 0);
    assert_int_equal(where, 2 * Z);
    assert_int_equal(zqcow2_append(img, data, 512, &where, ZQCOW2_FUA), 0);
    assert_int_equal(where, 2 * Z + 512);
    where = 2 * Z + 512;
    assert_int_equal(zqcow2_append(img, data, 512, &where, 0), -EINVAL);
    assert_int_equal(where, 2 * Z + 512);
    assert_int_equal(zqcow2_read(img, back, sizeof(back), 2 * Z), 0);
    assert_memory_equal(back, data, sizeof(data));
    assert_int_equal(back[1024] | back[2047], 0);
    assert_int_equal(zqcow2_write(img, data, 512, 100 * 512, 0), 0);
    assert_int_equal(zqcow2_discard(img, Z, 0, 0), 0);
    assert_int_equal(zqcow2_discard(img, Z, 2 * Z, 0), ZQCOW2_EZONE_STATE);
    assert_int_equal(zqcow2_read(img, back, 512, 100 * 512), 0);
    assert_int_equal(back[0], 0);
    assert_int_equal(zqcow2_flush(img), 0);
    assert_int_equal(zqcow2_drain(img), 0);
    assert_int_equal(zqcow2_close(img), 0);
}

static void flags_beyond_those_known_are_refused(void **state)
{
    struct zqcow2_image *img = make(Z);
    char data[512] = "";
    uint64_t where = Z;

    (void)state;
    for (unsigned flag = 2; flag; flag <<= 1) {
        assert_int_equal(zqcow2_write(img, data, 512, Z, flag), -EINVAL);
        assert_int_equal(zqcow2_append(img, data, 512, &where, flag), -EINVAL);
        if (flag != ZQCOW2_NO_UNMAP && flag != ZQCOW2_NO_FALLBACK)
            assert_int_equal(zqcow2_write_zeroes(img, 512, Z, flag), -EINVAL);
        assert_int_equal(zqcow2_discard(img, 65536, 0, flag), -EINVAL);
        assert_int_equal(zqcow2_zone_finish(img, Z, Z, flag), -EINVAL);
    }
    assert_int_equal(zone(img, Z).state, ZQCOW2_ZONE_EMPTY);
    assert_int_equal(zqcow2_close(img), 0);
}

static void a_report_ends_with_the_device(void **state)
{
    struct zqcow2_image *img = make(Z);
    struct zqcow2_zone zones[16];
    uint32_t n = 16;

    (void)state;
    memset(zones, 0xee, sizeof(zones));
    assert_int_equal(zqcow2_zone_report(img, 6 * Z + 512, zones, &n), 0);
    assert_int_equal(n, 2);
    assert_int_equal(zones[0].start, 6 * Z);
    assert_int_equal(zones[1].reserved[28], 0);
    assert_int_equal(zones[2].type, 0xee);
    n = 0;
    assert_int_equal(zqcow2_zone_report(img, 0, NULL, &n), 0);
    assert_int_equal(n, 0);
    n = 1;
    assert_int_equal(zqcow2_zone_report(img, 8 * Z, zones, &n), -EINVAL);
    assert_int_equal(zqcow2_close(img), 0);
}

static void information_fits_a_shorter_struct(void **state)
{
    struct zqcow2_image *img = make(Z);
    struct zqcow2_info info = ZQCOW2_INFO_INIT;

    (void)state;
    assert_int_equal(zqcow2_get_info(img, &info), 0);
    assert_int_equal(info.nr_zones, 8);
    assert_int_equal(info.block_size, 512);
    info.size = offsetof(struct zqcow2_info, nr_zones);
    info.nr_zones = 77;
    assert_int_equal(zqcow2_get_info(img, &info), 0);
    assert_int_equal(info.zone_size, Z);
    assert_int_equal(info.nr_zones, 77);
    assert_int_equal(zqcow2_close(img), 0);
}

static void an_image_without_zones_says_so(void **state)
{
    struct zqcow2_image *img = make(0);
    struct zqcow2_zone z;
    char data[512] = "plain";
    uint64_t where = 0;
    uint32_t n = 1;

    (void)state;
    assert_int_equal(zqcow2_zone_report(img, 0, &z, &n), ZQCOW2_ENOTZONED);
    assert_int_equal(zqcow2_zone_reset(img, 0, 8 * Z, 0), ZQCOW2_ENOTZONED);
    assert_int_equal(zqcow2_append(img, data, 512, &where, 0), ZQCOW2_ENOTZONED);
    assert_int_equal(zqcow2_write(img, data, 512, 3 * Z, 0), 0);
    assert_int_equal(zqcow2_close(img), 0);
}

/* Create, open and check refuse what no release knows, in one way, and name it. */
struct unknown {
    uint32_t flags, reserved;
    struct zqcow2_hooks *hooks;
};

static int try_create(struct zqcow2_backend *be, const struct unknown *u, struct zqcow2_error *err)
{
    struct zqcow2_create_options o = ZQCOW2_CREATE_OPTIONS_INIT;

    o.virtual_size = Z;
    o.flags = u->flags | ZQCOW2_CREATE_FORCE;
    o.hooks = u->hooks;
    return zqcow2_create(be, &o, err);
}

static int try_open(struct zqcow2_backend *be, const struct unknown *u, struct zqcow2_error *err)
{
    struct zqcow2_open_options o = ZQCOW2_OPEN_OPTIONS_INIT;
    struct zqcow2_image *img;
    int rc;

    o.flags = u->flags | ZQCOW2_OPEN_BORROW;
    o.reserved = u->reserved;
    o.hooks = u->hooks;
    rc = zqcow2_open(be, &o, &img, err);
    return rc ? rc : zqcow2_close(img);
}

static int try_check(struct zqcow2_backend *be, const struct unknown *u, struct zqcow2_error *err)
{
    struct zqcow2_check_options o = ZQCOW2_CHECK_OPTIONS_INIT;

    o.flags = u->flags;
    o.reserved = u->reserved;
    o.hooks = u->hooks;
    return zqcow2_check(be, &o, NULL, err); /* which needs no result */
}

static void what_no_release_knows_is_refused_and_named(void **state)
{
    int (*const calls[])(struct zqcow2_backend *, const struct unknown *,
                         struct zqcow2_error *) = {try_create, try_open, try_check};
    struct zqcow2_hooks reserved = ZQCOW2_HOOKS_INIT, level = ZQCOW2_HOOKS_INIT;
    const struct {
        struct unknown u;
        const char *name;
    } row[] = {{{1u << 7, 0, NULL}, "0x80"},
               {{1u << 31, 0, NULL}, "0x80000000"},
               {{0, 1, NULL}, "reserved"},
               {{0, 0, &reserved}, "hooks"},
               {{0, 0, &level}, "hooks"}};
    struct zqcow2_backend *be;
    struct zqcow2_error err;

    (void)state;
    reserved.reserved = 1;
    level.log_level = 99;
    assert_int_equal(zqcow2_mem_open(0, NULL, &be), 0);
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(calls[i](be, &(struct unknown){0, 0, NULL}, &err), 0);
        for (unsigned k = 0; k < 5; k++) {
            if (calls[i] == try_create && row[k].u.reserved) /* it has no such member */
                continue;
            assert_int_equal(calls[i](be, &row[k].u, &err), -EINVAL);
            if (!strstr(err.text, row[k].name))
                fail_msg("call %u: \"%s\" does not name %s", i, err.text, row[k].name);
        }
    }
    zqcow2_backend_close(be);
}

static int open_with(struct zqcow2_backend *be, size_t size, uint32_t rules, uint32_t block_size,
                     struct zqcow2_error *err)
{
    struct zqcow2_open_options o = ZQCOW2_OPEN_OPTIONS_INIT;
    struct zqcow2_image *img;
    int rc;

    o.size = size;
    o.flags = ZQCOW2_OPEN_BORROW;
    o.rules = rules;
    o.block_size = block_size;
    rc = zqcow2_open(be, &o, &img, err);
    return rc ? rc : zqcow2_close(img);
}

/* What 0.1 refused as reserved is refused by name; a struct of its size has no newer members. */
static void newer_members_of_the_open_options(void **state)
{
    const size_t first = offsetof(struct zqcow2_open_options, resolve);
    const size_t whole = sizeof(struct zqcow2_open_options);
    struct zqcow2_backend *be;
    struct zqcow2_error err;

    (void)state;
    assert_int_equal(zqcow2_mem_open(0, NULL, &be), 0);
    assert_int_equal(try_create(be, &(struct unknown){0, 0, NULL}, &err), 0);
    assert_int_equal(open_with(be, whole, ZQCOW2_RULES_ZNS, 4096, &err), 0);
    assert_int_equal(open_with(be, whole, 2, 0, &err), -EINVAL);
    assert_string_equal(err.text, "rules: 2 is unknown");
    assert_int_equal(open_with(be, whole, 0, 1024, &err), -EINVAL);
    assert_string_equal(err.text, "block_size 1024: must be 0, 512 or 4096");
    assert_int_equal(open_with(be, first, ZQCOW2_RULES_ZNS, 1024, &err), 0);
    assert_int_equal(open_with(be, first, 2, 0, &err), -EINVAL);
    zqcow2_backend_close(be);
}

/* Options may hold what is not known only as zeros; what is returned is zeros there. */
static void a_longer_result_ends_in_zeros(void **state)
{
    struct {
        struct zqcow2_info known;
        uint8_t newer[8];
    } info = {{.size = sizeof(info)}, {9, 9}};
    struct {
        struct zqcow2_extent known;
        uint8_t newer[8];
    } extent = {{.size = sizeof(extent)}, {9, 9}};
    struct {
        struct zqcow2_check_result known;
        uint8_t newer[8];
    } found = {{.size = sizeof(found)}, {9, 9}};
    struct {
        struct zqcow2_open_options known;
        uint8_t newer[8];
    } how = {{.size = sizeof(how)}, {9, 9}};
    const uint8_t zeros[8] = {0};
    struct zqcow2_image *img = make(Z);
    struct zqcow2_backend *be;

    (void)state;
    assert_int_equal(zqcow2_get_info(img, &info.known), 0);
    assert_int_equal(zqcow2_block_status(img, 0, 512, &extent.known), 0);
    assert_memory_equal(info.newer, zeros, 8);
    assert_memory_equal(extent.newer, zeros, 8);
    assert_int_equal(zqcow2_close(img), 0);
    assert_int_equal(zqcow2_mem_open(0, NULL, &be), 0);
    assert_int_equal(try_create(be, &(struct unknown){0, 0, NULL}, NULL), 0);
    assert_int_equal(zqcow2_check(be, NULL, &found.known, NULL), 0);
    assert_memory_equal(found.newer, zeros, 8);
    assert_int_equal(zqcow2_open(be, &how.known, &img, NULL), -E2BIG);
    zqcow2_backend_close(be);
}

static int run(struct zqcow2_image *img, int op, uint64_t off, uint64_t len, uint64_t *where)
{
    struct zqcow2_request req = {
        .size = sizeof(req), .op = (uint16_t)op, .offset = off, .length = len};
    struct zqcow2_result res = {.offset = 99};
    int rc = zqcow2_run(img, &req, &res);

    *where = res.offset;
    return rc;
}

/* A zone has failed only if the request got as far as a zone: not with a range that is none. */
static void a_refused_range_names_no_zone(void **state)
{
    struct zqcow2_image *img = make(Z);
    uint64_t where;

    (void)state;
    assert_int_equal(run(img, ZQCOW2_OP_ZONE_FINISH, 3 * Z, Z - 512, &where), -EINVAL);
    assert_int_equal(where, 0);
    assert_int_equal(run(img, ZQCOW2_OP_ZONE_CLOSE, 7 * Z, 2 * Z, &where), -EINVAL);
    assert_int_equal(where, 0);
    for (unsigned i = 1; i < 4; i++) {
        assert_int_equal(zqcow2_write_zeroes(img, 512, i * Z, 0), 0);
        assert_int_equal(zqcow2_zone_close(img, i * Z, Z, 0), 0);
    }
    assert_int_equal(run(img, ZQCOW2_OP_ZONE_OPEN, 0, 8 * Z, &where), ZQCOW2_EZONE_OPEN);
    assert_int_equal(where, 0); /* all or none */
    assert_int_equal(run(img, ZQCOW2_OP_ZONE_OPEN, 2 * Z, 3 * Z, &where), ZQCOW2_EZONE_OPEN);
    assert_int_equal(where, 4 * Z);
    assert_int_equal(zqcow2_close(img), 0);
}

/* In memory only, so an image that is open for reading has it, too; what was not forced stays. */
static void forced_states_come_and_go(void **state)
{
    struct zqcow2_open_options opt = ZQCOW2_OPEN_OPTIONS_INIT;
    struct zqcow2_create_options how = ZQCOW2_CREATE_OPTIONS_INIT;
    struct zqcow2_image *img = make(Z);
    struct zqcow2_backend *be;

    (void)state;
    assert_int_equal(zqcow2_zone_open(img, Z, Z, 0), 0);
    assert_int_equal(zqcow2_write_zeroes(img, 512, Z, 0), 0);
    assert_int_equal(zqcow2_zone_set_state(img, Z, ZQCOW2_ZONE_NOT_WP), 0);
    assert_int_equal(zone(img, Z).state, ZQCOW2_ZONE_EXP_OPEN);
    assert_int_equal(zqcow2_zone_set_state(img, Z, ZQCOW2_ZONE_RDONLY), 0);
    assert_int_equal(zqcow2_zone_set_state(img, Z, ZQCOW2_ZONE_NOT_WP), 0);
    assert_int_equal(zone(img, Z).state, ZQCOW2_ZONE_CLOSED);
    assert_int_equal(zqcow2_close(img), 0);
    how.virtual_size = 2 * Z;
    how.zone_size = Z;
    assert_int_equal(zqcow2_mem_open(0, NULL, &be), 0);
    assert_int_equal(zqcow2_create(be, &how, NULL), 0);
    assert_int_equal(zqcow2_open(be, &opt, &img, NULL), 0);
    assert_int_equal(zqcow2_zone_reset(img, Z, Z, 0), -EROFS);
    assert_int_equal(zqcow2_zone_set_state(img, Z, ZQCOW2_ZONE_OFFLINE), 0);
    assert_int_equal(zone(img, Z).state, ZQCOW2_ZONE_OFFLINE);
    assert_int_equal(zqcow2_close(img), 0);
}

struct seen {
    unsigned n;
    char ids[16], names[64];
    uint64_t size;
    uint32_t seconds;
};

static void see(void *arg, const struct zqcow2_snapshot *s)
{
    struct seen *seen = arg;

    seen->n++;
    strncat(seen->ids, s->id, 2);
    strncat(seen->names, s->name, 16);
    seen->size = s->disk_size;
    seen->seconds = s->date_sec;
    assert_int_equal(s->vm_state_size, 0);
    assert_true(s->icount == UINT64_MAX);
}

static void snapshots_are_taken_listed_applied_and_deleted(void **state)
{
    struct zqcow2_snapshot s = ZQCOW2_SNAPSHOT_INIT;
    struct zqcow2_image *img = make(0);
    struct zqcow2_error err;
    struct zqcow2_info info = ZQCOW2_INFO_INIT;
    struct seen seen = {.n = 0};
    uint8_t bytes[512];

    (void)state;
    memset(bytes, 1, sizeof(bytes));
    assert_int_equal(zqcow2_snapshot_list(img, see, &seen, NULL), 0);
    assert_int_equal(seen.n, 0);
    assert_int_equal(zqcow2_snapshot_delete(img, "a", &err), -ENOENT);
    assert_string_equal(err.text, "no snapshot has this name or id");
    assert_int_equal(zqcow2_snapshot_take(img, &s, NULL), -EINVAL); /* no name */
    s.name = "alpha";
    s.icount = 1;
    assert_int_equal(zqcow2_snapshot_take(img, &s, NULL), -EINVAL);
    s.icount = 0;
    s.date_sec = 7;
    assert_int_equal(zqcow2_snapshot_take(img, &s, NULL), 0);
    assert_int_equal(zqcow2_snapshot_take(img, &s, &err), -EEXIST);
    s.name = "1"; /* the id of the first */
    assert_int_equal(zqcow2_snapshot_take(img, &s, NULL), -EEXIST);
    s.name = "beta";
    assert_int_equal(zqcow2_snapshot_take(img, &s, NULL), 0);
    assert_int_equal(zqcow2_snapshot_list(img, see, &seen, NULL), 0);
    assert_int_equal(seen.n, 2);
    assert_string_equal(seen.ids, "12");
    assert_string_equal(seen.names, "alphabeta");
    assert_int_equal(seen.size, 8 * Z);
    assert_int_equal(seen.seconds, 7);
    assert_int_equal(zqcow2_get_info(img, &info), 0);
    assert_true(info.flags & ZQCOW2_INFO_SNAPSHOTS);
    assert_int_equal(zqcow2_snapshot_apply(img, "gamma", &err), -ENOENT);
    assert_int_equal(zqcow2_write(img, bytes, sizeof(bytes), 0, 0), 0);
    assert_int_equal(zqcow2_snapshot_apply(img, "2", NULL), 0);
    assert_int_equal(zqcow2_read(img, bytes, sizeof(bytes), 0), 0);
    assert_int_equal(bytes[0], 0);
    assert_int_equal(zqcow2_snapshot_delete(img, "alpha", NULL), 0);
    assert_int_equal(zqcow2_snapshot_delete(img, "2", NULL), 0); /* by its id */
    assert_int_equal(zqcow2_get_info(img, &info), 0);
    assert_false(info.flags & ZQCOW2_INFO_SNAPSHOTS);
    assert_int_equal(zqcow2_close(img), 0);
    img = make(Z);
    assert_int_equal(zqcow2_snapshot_take(img, &s, &err), 0);
    assert_int_equal(zqcow2_zone_finish(img, Z, Z, 0), 0);
    assert_int_equal(zqcow2_snapshot_apply(img, s.name, &err), 0);
    assert_int_equal(zqcow2_close(img), 0);
}

static uint64_t size_of(struct zqcow2_image *img)
{
    struct zqcow2_info info = ZQCOW2_INFO_INIT;

    assert_int_equal(zqcow2_get_info(img, &info), 0);
    return info.virtual_size;
}

static void a_device_gets_another_size(void **state)
{
    struct zqcow2_image *img = make(0);
    struct zqcow2_error err;

    (void)state;
    assert_int_equal(zqcow2_resize(img, 9 * Z, 0, NULL), 0);
    assert_int_equal(size_of(img), 9 * Z);
    assert_int_equal(zqcow2_resize(img, 9 * Z, 0, NULL), 0);
    assert_int_equal(zqcow2_resize(img, 8 * Z, 0, &err), -EINVAL);
    assert_non_null(strstr(err.text, "shrinking is not allowed"));
    assert_int_equal(zqcow2_resize(img, 0, ZQCOW2_RESIZE_SHRINK, NULL), -EINVAL);
    assert_int_equal(zqcow2_resize(img, 9 * Z + 1, 0, NULL), -EINVAL);
    assert_int_equal(zqcow2_resize(img, (uint64_t)1 << 62, 0, NULL), -EFBIG);
    assert_int_equal(zqcow2_resize(img, UINT64_MAX & ~(uint64_t)511, 0, NULL), -EFBIG);
    assert_int_equal(zqcow2_resize(img, 10 * Z, 1u << 31, NULL), -EINVAL);
    assert_int_equal(size_of(img), 9 * Z);
    assert_int_equal(zqcow2_resize(img, 512, ZQCOW2_RESIZE_SHRINK, NULL), 0);
    assert_int_equal(size_of(img), 512);
    assert_int_equal(zqcow2_close(img), 0);
    img = make(Z);
    assert_int_equal(zqcow2_resize(img, 16 * Z + 512, 0, &err), -EINVAL);
    assert_non_null(strstr(err.text, "multiple of zone.size"));
    assert_int_equal(zqcow2_resize(img, 16 * Z, 0, &err), 0);
    assert_int_equal(size_of(img), 16 * Z);
    assert_int_equal(zqcow2_close(img), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_loaded_library_is_that_of_the_header),
        cmocka_unit_test(zone_calls_change_the_states_of_their_names),
        cmocka_unit_test(the_zone_that_failed_is_told),
        cmocka_unit_test(a_malformed_request_has_no_result),
        cmocka_unit_test(io_calls_hand_on_buffers_and_places),
        cmocka_unit_test(flags_beyond_those_known_are_refused),
        cmocka_unit_test(a_report_ends_with_the_device),
        cmocka_unit_test(information_fits_a_shorter_struct),
        cmocka_unit_test(an_image_without_zones_says_so),
        cmocka_unit_test(what_no_release_knows_is_refused_and_named),
        cmocka_unit_test(newer_members_of_the_open_options),
        cmocka_unit_test(a_longer_result_ends_in_zeros),
        cmocka_unit_test(a_refused_range_names_no_zone),
        cmocka_unit_test(forced_states_come_and_go),
        cmocka_unit_test(snapshots_are_taken_listed_applied_and_deleted),
        cmocka_unit_test(a_device_gets_another_size),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
