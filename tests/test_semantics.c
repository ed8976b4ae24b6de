/* SPDX-License-Identifier: MIT */
/* Ranges, the order of checks, reads, reports, forced states: what the table does not say. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "rig/rig.h"

#define Z KiB(64)

/* Zones 0 and 1 conventional, 2..8 sequential with capacity 52 KiB, 9 short: 40 KiB. */
/* clang-format off */
static const struct geometry ten = {
    .name = "ten", .size = 9 * Z + KiB(40), .zone_size = Z, .capacity = KiB(52), .conventional = 2,
    .cluster = 4096};
static const struct geometry tight = {
    .name = "tight", .size = 9 * Z + KiB(40), .zone_size = Z, .capacity = KiB(52),
    .conventional = 2, .max_open = 2, .max_active = 4, .cluster = 4096};
static const struct geometry appends = {
    .name = "appends", .size = 4 * Z, .zone_size = Z, .max_append = KiB(8), .max_open = 1,
    .max_active = 1, .cluster = 4096, .layout = ZQCOW2_LAYOUT_56};
/* clang-format on */

static int act(struct rig *r, int op, uint32_t zone)
{
    uint64_t start = rig_start(r, zone), left = r->g->size - start;

    return rig_manage(r, op, start, left < Z ? left : Z, NULL);
}

static void write_zone(struct rig *r, uint32_t zone, uint64_t len)
{
    assert_int_equal(rig_write(r, rig_zone(r, zone).write_pointer, len, 1), 0);
}

/* One letter a zone: . E I X C F R O, in order. */
static void assert_map(struct rig *r, const char *want)
{
    static const char letters[] = ".EIXC????????RFO";
    struct zqcow2_zone z[32];
    char is[33] = "";
    uint32_t nr = 32;

    assert_int_equal(zqcow2_zone_report(r->img, 0, z, &nr), 0);
    for (uint32_t i = 0; i < nr; i++)
        is[i] = letters[z[i].state & 15];
    assert_string_equal(is, want);
}

/* ---- ranges ---- */

static void refused_ranges(void **state)
{
    static const struct {
        uint64_t off, len;
    } bad[] = {{2 * Z + 512, Z},
               {2 * Z + 512, Z - 512},
               {2 * Z, Z - 512},
               {2 * Z, Z + 512},
               {2 * Z, 0},
               {9 * Z, Z},
               {9 * Z, KiB(36)},
               {10 * Z, Z},
               {9 * Z + KiB(40), 512},
               {0, 9 * Z + KiB(44)},
               {2 * Z, 512},
               {-Z, Z},
               {2 * Z, 0 - 2 * Z},
               {2 * Z, UINT64_MAX},
               {-Z, 2 * Z},
               {1, Z}};
    struct rig r;

    (void)state;
    rig_begin(&r, &ten);
    write_zone(&r, 2, 512);
    write_zone(&r, 9, 512);
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        for (int op = ZQCOW2_OP_ZONE_OPEN; op <= ZQCOW2_OP_ZONE_RESET; op++) {
            int rc = rig_manage(&r, op, bad[i].off, bad[i].len, NULL);

            if (rc != -EINVAL)
                fail_msg("%s of range %zu: %d", rig_op_name(op), i, rc);
        }
    }
    assert_map(&r, "..IEEEEEEI");
    rig_end(&r);
}

static void a_range_acts_on_each_zone_in_order(void **state)
{
    struct rig r;

    (void)state;
    rig_begin(&r, &ten);
    assert_int_equal(rig_manage(&r, ZQCOW2_OP_ZONE_OPEN, 3 * Z, 3 * Z, NULL), 0);
    assert_map(&r, "..EXXXEEEE");
    write_zone(&r, 4, 512);
    assert_int_equal(rig_manage(&r, ZQCOW2_OP_ZONE_CLOSE, 2 * Z, 8 * Z - KiB(24), NULL), 0);
    assert_map(&r, "..EECEEEEE");
    assert_int_equal(rig_manage(&r, ZQCOW2_OP_ZONE_FINISH, 8 * Z, Z + KiB(40), NULL), 0);
    assert_map(&r, "..EECEEEFF");
    assert_int_equal(rig_manage(&r, ZQCOW2_OP_ZONE_RESET, 2 * Z, 7 * Z + KiB(40), NULL), 0);
    assert_map(&r, "..EEEEEEEE");
    rig_end(&r);
}

static void a_range_stops_at_the_first_failure(void **state)
{
    uint64_t failed = 1;
    struct rig r;

    (void)state;
    rig_begin(&r, &ten);
    assert_int_equal(act(&r, ZQCOW2_OP_ZONE_FINISH, 5), 0);
    assert_int_equal(rig_manage(&r, ZQCOW2_OP_ZONE_OPEN, 3 * Z, 4 * Z, &failed),
                     ZQCOW2_EZONE_STATE);
    assert_int_equal(failed, 5 * Z);
    assert_map(&r, "..EXXFEEEE");
    assert_int_equal(rig_manage(&r, ZQCOW2_OP_ZONE_RESET, Z, 5 * Z, &failed), ZQCOW2_EZONE_STATE);
    assert_int_equal(failed, Z);
    assert_map(&r, "..EXXFEEEE");
    assert_int_equal(zqcow2_zone_set_state(r.img, 4 * Z, ZQCOW2_ZONE_OFFLINE), 0);
    assert_int_equal(rig_manage(&r, ZQCOW2_OP_ZONE_RESET, 3 * Z, 3 * Z, &failed),
                     ZQCOW2_EZONE_STATE);
    assert_int_equal(failed, 4 * Z);
    assert_map(&r, "..EEOFEEEE");
    rig_end(&r);
    rig_begin(&r, &tight);
    assert_int_equal(rig_manage(&r, ZQCOW2_OP_ZONE_OPEN, 3 * Z, 4 * Z, &failed), ZQCOW2_EZONE_OPEN);
    assert_int_equal(failed, 5 * Z);
    assert_map(&r, "..EXXEEEEE");
    rig_end(&r);
}

static void reset_of_all_skips_what_cannot_be_reset(void **state)
{
    struct rig r;

    (void)state;
    rig_begin(&r, &ten);
    assert_int_equal(rig_write(&r, 0, KiB(4), 7), 0);
    for (uint32_t i = 2; i < 10; i++)
        write_zone(&r, i, 1024);
    assert_int_equal(zqcow2_zone_set_state(r.img, 4 * Z, ZQCOW2_ZONE_RDONLY), 0);
    assert_int_equal(zqcow2_zone_set_state(r.img, 5 * Z, ZQCOW2_ZONE_OFFLINE), 0);
    assert_int_equal(act(&r, ZQCOW2_OP_ZONE_FINISH, 9), 0);
    assert_map(&r, "..IIROIIIF");
    assert_int_equal(rig_manage(&r, ZQCOW2_OP_ZONE_RESET, 0, r.g->size, NULL), 0);
    assert_map(&r, "..EEROEEEE");
    assert_true(rig_holds(&r, 0, KiB(4), 0, 7));
    assert_true(rig_holds(&r, 4 * Z, 1024, 4 * Z, 1));
    assert_true(rig_zeros(&r, 6 * Z, 3 * Z + KiB(40)));
    assert_int_equal(rig_info(&r).active_zones, 2);
    rig_end(&r);
}

static void open_close_and_finish_of_all(void **state)
{
    struct rig r;

    (void)state;
    rig_begin(&r, &ten);
    assert_int_equal(rig_manage(&r, ZQCOW2_OP_ZONE_OPEN, 0, r.g->size, NULL), 0);
    assert_map(&r, "..EEEEEEEE");
    write_zone(&r, 2, 512);
    write_zone(&r, 3, 512);
    assert_int_equal(act(&r, ZQCOW2_OP_ZONE_OPEN, 4), 0);
    assert_int_equal(act(&r, ZQCOW2_OP_ZONE_FINISH, 5), 0);
    assert_int_equal(rig_manage(&r, ZQCOW2_OP_ZONE_CLOSE, 0, r.g->size, NULL), 0);
    assert_map(&r, "..CCEFEEEE");
    write_zone(&r, 6, 512);
    assert_int_equal(rig_manage(&r, ZQCOW2_OP_ZONE_OPEN, 0, r.g->size, NULL), 0);
    assert_map(&r, "..XXEFIEEE");
    assert_int_equal(act(&r, ZQCOW2_OP_ZONE_CLOSE, 3), 0);
    assert_int_equal(rig_manage(&r, ZQCOW2_OP_ZONE_FINISH, 0, r.g->size, NULL), 0);
    assert_map(&r, "..FFEFFEEE");
    assert_int_equal(rig_info(&r).active_zones, 0);
    rig_end(&r);
}

/* Three CLOSED zones, two may be open: refused as a whole. */
static void open_of_all_that_does_not_fit(void **state)
{
    struct rig r;

    (void)state;
    rig_begin(&r, &tight);
    for (uint32_t i = 2; i < 5; i++) {
        write_zone(&r, i, 512);
        assert_int_equal(act(&r, ZQCOW2_OP_ZONE_CLOSE, i), 0);
    }
    assert_int_equal(rig_manage(&r, ZQCOW2_OP_ZONE_OPEN, 0, r.g->size, NULL), ZQCOW2_EZONE_OPEN);
    assert_map(&r, "..CCCEEEEE");
    assert_int_equal(act(&r, ZQCOW2_OP_ZONE_RESET, 3), 0);
    assert_int_equal(rig_manage(&r, ZQCOW2_OP_ZONE_OPEN, 0, r.g->size, NULL), 0);
    assert_map(&r, "..XEXEEEEE");
    rig_end(&r);
}

/* On a device of one zone the whole device is that zone, not "all". */
static void one_zone_is_not_all(void **state)
{
    static const struct geometry one = {.name = "one", .size = Z, .zone_size = Z, .cluster = 4096};
    struct rig r;

    (void)state;
    rig_begin(&r, &one);
    assert_int_equal(rig_manage(&r, ZQCOW2_OP_ZONE_OPEN, 0, Z, NULL), 0);
    assert_map(&r, "X");
    assert_int_equal(zqcow2_zone_set_state(r.img, 0, ZQCOW2_ZONE_RDONLY), 0);
    assert_int_equal(rig_manage(&r, ZQCOW2_OP_ZONE_RESET, 0, Z, NULL), ZQCOW2_EZONE_STATE);
    rig_end(&r);
}

/* ---- order of checks: of two reasons to refuse, the earlier one is the answer ---- */

static void order_of_checks(void **state)
{
    struct rig r;

    (void)state;
    rig_begin(&r, &ten);
    assert_int_equal(act(&r, ZQCOW2_OP_ZONE_FINISH, 2), 0);
    assert_int_equal(zqcow2_zone_set_state(r.img, 3 * Z, ZQCOW2_ZONE_RDONLY), 0);
    assert_int_equal(zqcow2_zone_set_state(r.img, 4 * Z, ZQCOW2_ZONE_OFFLINE), 0);
    /* arguments before states */
    assert_int_equal(rig_write(&r, 2 * Z + 1, 512, 1), -EINVAL);
    assert_int_equal(rig_write(&r, 3 * Z, 513, 1), -EINVAL);
    assert_int_equal(rig_write(&r, 4 * Z, 0, 1), -EINVAL);
    assert_int_equal(zqcow2_write_zeroes(r.img, 10 * Z, 2 * Z, 0), -EINVAL);
    assert_int_equal(zqcow2_write_zeroes(r.img, UINT64_MAX - 511, 2 * Z, 0), -EINVAL);
    /* states before boundary and pointer */
    assert_int_equal(rig_write(&r, 2 * Z + 512, Z, 1), ZQCOW2_EZONE_FULL);
    assert_int_equal(rig_write(&r, 3 * Z + 512, Z, 1), ZQCOW2_EZONE_RDONLY);
    assert_int_equal(rig_write(&r, 4 * Z + 512, Z, 1), ZQCOW2_EZONE_OFFLINE);
    /* a zone's end before the pointer, the pointer before the capacity; empty, and with data */
    for (uint64_t n = 0; n < 1024; n += 512) {
        assert_int_equal(rig_write(&r, 5 * Z + n + 512, Z, 1), ZQCOW2_EZONE_BOUNDARY);
        assert_int_equal(rig_write(&r, 5 * Z + n + 512, KiB(60), 1), ZQCOW2_EZONE_WP);
        assert_int_equal(rig_write(&r, 5 * Z + KiB(52), 512, 1), ZQCOW2_EZONE_WP);
        assert_int_equal(rig_write(&r, 5 * Z + n, KiB(52) + 512 - n, 1), ZQCOW2_EZONE_BOUNDARY);
        assert_int_equal(rig_append(&r, 5, KiB(52) + 512 - n, 1, NULL), ZQCOW2_EZONE_BOUNDARY);
        assert_map(&r, n ? "..FROIEEEE" : "..FROEEEEE");
        assert_int_equal(rig_write(&r, 5 * Z + n, 512, 1), 0);
    }
    rig_end(&r);
}

static void order_of_limits(void **state)
{
    struct rig r;

    (void)state;
    rig_begin(&r, &appends);
    assert_int_equal(rig_info(&r).max_append_bytes, KiB(8));
    assert_int_equal(act(&r, ZQCOW2_OP_ZONE_OPEN, 0), 0);
    /* both limits exceeded: ACTIVE; the pointer, capacity and append size come first */
    assert_int_equal(rig_write(&r, Z, 512, 1), ZQCOW2_EZONE_ACTIVE);
    assert_int_equal(rig_write(&r, Z + 512, 512, 1), ZQCOW2_EZONE_WP);
    assert_int_equal(rig_append(&r, 1, KiB(8) + 512, 1, NULL), -EINVAL);
    assert_int_equal(rig_append(&r, 1, Z + 512, 1, NULL), ZQCOW2_EZONE_BOUNDARY);
    assert_int_equal(rig_append(&r, 1, KiB(8), 1, NULL), ZQCOW2_EZONE_ACTIVE);
    assert_int_equal(rig_append(&r, 0, KiB(8), 1, NULL), 0);
    assert_map(&r, "XEEE");
    rig_end(&r);
}

static void appends_name_a_zone_by_its_start(void **state)
{
    uint64_t off = 3 * Z + 512, at = 0;
    uint8_t buf[512] = {0};
    struct rig r;

    (void)state;
    rig_begin(&r, &ten);
    assert_int_equal(zqcow2_append(r.img, buf, sizeof(buf), &off, 0), -EINVAL);
    assert_int_equal(off, 3 * Z + 512);
    assert_map(&r, "..EEEEEEEE");
    for (uint64_t n = 0; n < 4; n++) {
        assert_int_equal(rig_append(&r, 3, 1024, n + 1, &at), 0);
        assert_int_equal(at, 3 * Z + 1024 * n);
        assert_true(rig_holds(&r, at, 1024, 3 * Z, n + 1));
    }
    rig_end(&r);
}

static void discard_and_zeroes(void **state)
{
    struct rig r;

    (void)state;
    rig_begin(&r, &ten);
    assert_int_equal(rig_write(&r, 0, 2 * Z, 1), 0);
    write_zone(&r, 2, KiB(8));
    assert_int_equal(zqcow2_discard(r.img, KiB(4), 2 * Z, 0), ZQCOW2_EZONE_STATE);
    assert_int_equal(zqcow2_discard(r.img, 4096, 100, 0), -EINVAL);
    assert_int_equal(zqcow2_discard(r.img, KiB(12), KiB(2), 0), 0); /* whole: 4K .. 12K */
    assert_true(rig_holds(&r, 0, KiB(4), 0, 1));
    assert_true(rig_zeros(&r, KiB(4), KiB(8)));
    assert_true(rig_holds(&r, KiB(12), KiB(4), KiB(12), 1));
    assert_int_equal(zqcow2_write_zeroes(r.img, 1536, Z - 512, 0), 0);
    assert_true(rig_holds(&r, Z - 1024, 512, Z - 1024, 1));
    assert_true(rig_zeros(&r, Z - 512, 1536));
    assert_true(rig_holds(&r, Z + 1024, 512, Z + 1024, 1));
    assert_int_equal(zqcow2_write_zeroes(r.img, 512, 2 * Z, 0), ZQCOW2_EZONE_WP);
    assert_int_equal(zqcow2_write_zeroes(r.img, KiB(20), 2 * Z + KiB(8), 0), 0);
    assert_int_equal(rig_zone(&r, 2).write_pointer, 2 * Z + KiB(28));
    assert_true(rig_zeros(&r, 2 * Z + KiB(8), KiB(20)));
    rig_end(&r);
}

/* ---- reads ---- */

static void reads_across_zones_and_beyond_pointers(void **state)
{
    struct rig r;

    (void)state;
    rig_begin(&r, &ten);
    write_zone(&r, 2, KiB(52)); /* full: 52 KiB, then a gap up to the next zone */
    write_zone(&r, 3, KiB(5));
    assert_true(rig_holds(&r, 2 * Z, KiB(52), 2 * Z, 1));
    assert_true(rig_zeros(&r, 2 * Z + KiB(52), KiB(12)));
    assert_true(rig_holds(&r, 3 * Z, KiB(5), 3 * Z, 1));
    assert_true(rig_zeros(&r, 3 * Z + KiB(5), Z - KiB(5)));
    {
        uint8_t buf[KiB(20)], want[KiB(20)] = {0};

        rig_pattern(want, KiB(4), 2 * Z + KiB(48), 1);
        rig_pattern(want + KiB(16), KiB(4), 3 * Z, 1);
        assert_int_equal(zqcow2_read(r.img, buf, sizeof(buf), 2 * Z + KiB(48)), 0);
        assert_memory_equal(buf, want, sizeof(buf));
    }
    rig_end(&r);
}

static void bad_reads(void **state)
{
    uint8_t buf[1024];
    struct rig r;

    (void)state;
    rig_begin(&r, &ten);
    assert_int_equal(zqcow2_read(r.img, buf, 1024, r.g->size - 512), -EINVAL);
    assert_int_equal(zqcow2_read(r.img, buf, 512, r.g->size), -EINVAL);
    assert_int_equal(zqcow2_read(r.img, buf, 512, UINT64_MAX - 511), -EINVAL);
    assert_int_equal(zqcow2_read(r.img, buf, 512, 100), -EINVAL);
    assert_int_equal(zqcow2_read(r.img, buf, 100, 0), -EINVAL);
    assert_int_equal(zqcow2_read(r.img, buf, 512, r.g->size - 512), 0);
    assert_int_equal(zqcow2_zone_set_state(r.img, 3 * Z, ZQCOW2_ZONE_OFFLINE), 0);
    assert_int_equal(zqcow2_read(r.img, buf, 1024, 3 * Z - 512), ZQCOW2_EZONE_OFFLINE);
    assert_int_equal(zqcow2_read(r.img, buf, 512, 4 * Z - 512), ZQCOW2_EZONE_OFFLINE);
    assert_int_equal(zqcow2_read(r.img, buf, 512, 4 * Z), 0);
    rig_end(&r);
}

/* After finish the part never written reads as zeros, also where old clusters are reused. */
static void finish_shows_zeros(void **state)
{
    struct rig r;

    (void)state;
    rig_begin(&r, &ten);
    write_zone(&r, 2, KiB(50));
    assert_int_equal(zqcow2_flush(r.img), 0);
    assert_int_equal(act(&r, ZQCOW2_OP_ZONE_RESET, 2), 0);
    assert_int_equal(rig_write(&r, 2 * Z, 1536, 2), 0);
    assert_int_equal(act(&r, ZQCOW2_OP_ZONE_FINISH, 2), 0);
    for (int i = 0; i < 2; i++) {
        assert_true(rig_holds(&r, 2 * Z, 1536, 2 * Z, 2));
        assert_true(rig_zeros(&r, 2 * Z + 1536, Z - 1536));
        assert_int_equal(rig_zone(&r, 2).state, ZQCOW2_ZONE_FULL);
        rig_reopen(&r);
    }
    rig_end(&r);
}

/* ---- report ---- */

static void report_windows(void **state)
{
    struct zqcow2_zone z[12];
    uint32_t nr = 12;
    struct rig r;

    (void)state;
    rig_begin(&r, &ten);
    assert_int_equal(zqcow2_zone_report(r.img, 0, z, &nr), 0);
    assert_int_equal(nr, 10);
    nr = 3;
    assert_int_equal(zqcow2_zone_report(r.img, 4 * Z + 12345, z, &nr), 0);
    assert_int_equal(nr, 3);
    assert_int_equal(z[0].start, 4 * Z);
    assert_int_equal(z[2].start, 6 * Z);
    nr = 12;
    assert_int_equal(zqcow2_zone_report(r.img, r.g->size - 1, z, &nr), 0);
    assert_int_equal(nr, 1);
    assert_int_equal(z[0].start, 9 * Z);
    nr = 12;
    assert_int_equal(zqcow2_zone_report(r.img, r.g->size, z, &nr), -EINVAL);
    assert_int_equal(zqcow2_zone_report(r.img, UINT64_MAX, z, &nr), -EINVAL);
    rig_end(&r);
}

static void report_of_each_state(void **state)
{
    struct zqcow2_zone z;
    struct rig r;

    (void)state;
    rig_begin(&r, &ten);
    z = rig_zone(&r, 1);
    assert_int_equal(z.type, ZQCOW2_ZONE_CONVENTIONAL);
    assert_int_equal(z.state, ZQCOW2_ZONE_NOT_WP);
    assert_int_equal(z.write_pointer, Z);
    assert_int_equal(z.capacity, Z);
    for (size_t i = 0; i < sizeof(z.reserved); i++)
        assert_int_equal(z.reserved[i], 0);
    write_zone(&r, 2, 1024);
    z = rig_zone(&r, 2);
    assert_int_equal(z.type, ZQCOW2_ZONE_SEQWRITE_REQ);
    assert_int_equal(z.write_pointer, 2 * Z + 1024);
    assert_int_equal(z.length, Z);
    assert_int_equal(zqcow2_zone_set_state(r.img, 2 * Z, ZQCOW2_ZONE_RDONLY), 0);
    assert_true(rig_zone(&r, 2).write_pointer == UINT64_MAX);
    assert_int_equal(zqcow2_zone_set_state(r.img, 2 * Z, ZQCOW2_ZONE_OFFLINE), 0);
    assert_true(rig_zone(&r, 2).write_pointer == UINT64_MAX);
    assert_int_equal(rig_zone(&r, 2).state, ZQCOW2_ZONE_OFFLINE);
    rig_end(&r);
}

/* ---- states from outside ---- */

static void forced_states(void **state)
{
    struct rig r;

    (void)state;
    rig_begin(&r, &tight);
    assert_int_equal(zqcow2_zone_set_state(r.img, 0, ZQCOW2_ZONE_RDONLY), ZQCOW2_EZONE_STATE);
    assert_int_equal(zqcow2_zone_set_state(r.img, r.g->size, ZQCOW2_ZONE_RDONLY), -EINVAL);
    for (unsigned s = 0; s < 20; s++) {
        if (s != ZQCOW2_ZONE_RDONLY && s != ZQCOW2_ZONE_OFFLINE && s != ZQCOW2_ZONE_NOT_WP)
            assert_int_equal(zqcow2_zone_set_state(r.img, 2 * Z, s), -EINVAL);
    }
    assert_int_equal(act(&r, ZQCOW2_OP_ZONE_OPEN, 2), 0);
    write_zone(&r, 3, 512);
    assert_int_equal(zqcow2_zone_set_state(r.img, 2 * Z + 4096, ZQCOW2_ZONE_RDONLY), 0);
    assert_int_equal(zqcow2_zone_set_state(r.img, 3 * Z, ZQCOW2_ZONE_OFFLINE), 0);
    assert_map(&r, "..ROEEEEEE");
    /* An empty one holds nothing; one with data stays active, but is open no longer. */
    assert_int_equal(rig_info(&r).open_zones, 0);
    assert_int_equal(rig_info(&r).active_zones, 1);
    assert_int_equal(zqcow2_zone_set_state(r.img, 2 * Z, ZQCOW2_ZONE_RDONLY), 0);
    assert_int_equal(zqcow2_zone_set_state(r.img, 3 * Z, ZQCOW2_ZONE_OFFLINE), 0);
    assert_map(&r, "..ECEEEEEE");
    assert_true(rig_holds(&r, 3 * Z, 512, 3 * Z, 1));
    assert_int_equal(zqcow2_zone_set_state(r.img, 3 * Z, ZQCOW2_ZONE_OFFLINE), 0);
    assert_int_equal(zqcow2_zone_set_state(r.img, 3 * Z, ZQCOW2_ZONE_RDONLY), 0);
    assert_map(&r, "..EREEEEEE");
    for (int i = 0; i < 2; i++) {
        assert_int_equal(zqcow2_zone_set_state(r.img, 3 * Z, ZQCOW2_ZONE_NOT_WP), 0);
        assert_map(&r, "..ECEEEEEE");
    }
    write_zone(&r, 3, 512);
    assert_int_equal(act(&r, ZQCOW2_OP_ZONE_FINISH, 3), 0);
    assert_int_equal(zqcow2_zone_set_state(r.img, 3 * Z, ZQCOW2_ZONE_OFFLINE), 0);
    assert_int_equal(rig_info(&r).active_zones, 0);
    rig_reopen(&r);
    assert_map(&r, "..EFEEEEEE");
    rig_end(&r);
}

static void reopening_closes(void **state)
{
    struct rig r;

    (void)state;
    rig_begin(&r, &tight);
    assert_int_equal(act(&r, ZQCOW2_OP_ZONE_OPEN, 2), 0);
    write_zone(&r, 2, 512);
    write_zone(&r, 4, KiB(52));
    write_zone(&r, 5, KiB(3));
    assert_map(&r, "..XEFIEEEE");
    assert_int_equal(act(&r, ZQCOW2_OP_ZONE_CLOSE, 5), 0);
    assert_int_equal(act(&r, ZQCOW2_OP_ZONE_OPEN, 3), 0);
    rig_reopen(&r);
    assert_map(&r, "..CEFCEEEE");
    assert_int_equal(rig_info(&r).active_zones, 2);
    rig_end(&r);
}

static void a_read_only_image_refuses_changes(void **state)
{
    uint64_t off = 3 * Z;
    uint8_t buf[512] = {0};
    struct rig r;

    (void)state;
    rig_begin(&r, &ten);
    write_zone(&r, 2, 512);
    assert_int_equal(rig_close(&r), 0);
    assert_int_equal(rig_open(&r, false), 0);
    assert_true(rig_info(&r).flags & ZQCOW2_INFO_READ_ONLY);
    assert_int_equal(zqcow2_write(r.img, buf, 512, 2 * Z + 512, 0), -EROFS);
    assert_int_equal(zqcow2_append(r.img, buf, 512, &off, 0), -EROFS);
    assert_int_equal(zqcow2_write_zeroes(r.img, 512, 0, 0), -EROFS);
    assert_int_equal(zqcow2_discard(r.img, 4096, 0, 0), -EROFS);
    for (int op = ZQCOW2_OP_ZONE_OPEN; op <= ZQCOW2_OP_ZONE_RESET; op++)
        assert_int_equal(act(&r, op, 2), -EROFS);
    assert_map(&r, "..CEEEEEEE");
    assert_true(rig_holds(&r, 2 * Z, 512, 2 * Z, 1));
    rig_end(&r);
}

static void zone_calls_on_a_plain_image(void **state)
{
    static const struct geometry plain = {.name = "plain image", .size = MiB(1), .cluster = 65536};
    struct zqcow2_zone z;
    uint32_t nr = 1;
    uint64_t off = 0;
    uint8_t buf[512] = {1};
    struct rig r;

    (void)state;
    rig_begin(&r, &plain);
    assert_int_equal(zqcow2_zone_report(r.img, 0, &z, &nr), ZQCOW2_ENOTZONED);
    assert_int_equal(rig_manage(&r, ZQCOW2_OP_ZONE_RESET, 0, MiB(1), NULL), ZQCOW2_ENOTZONED);
    assert_int_equal(zqcow2_zone_set_state(r.img, 0, ZQCOW2_ZONE_RDONLY), ZQCOW2_ENOTZONED);
    assert_int_equal(zqcow2_append(r.img, buf, 512, &off, 0), ZQCOW2_ENOTZONED);
    assert_int_equal(rig_write(&r, KiB(100), KiB(300), 5), 0);
    assert_int_equal(rig_write(&r, KiB(120), KiB(3), 6), 0);
    rig_reopen(&r);
    assert_true(rig_holds(&r, KiB(100), KiB(20), KiB(100), 5));
    assert_true(rig_holds(&r, KiB(120), KiB(3), KiB(120), 6));
    assert_true(rig_holds(&r, KiB(123), KiB(277), KiB(123), 5));
    assert_int_equal(zqcow2_discard(r.img, KiB(128), KiB(128), 0), 0);
    assert_true(rig_zeros(&r, KiB(128), KiB(128)));
    rig_end(&r);
}

/* ---- what it costs, in calls of the backend ---- */

static void steady_state_costs(void **state)
{
    static const struct geometry wide = {
        .name = "wide", .size = MiB(64), .zone_size = MiB(16), .cluster = 65536};
    struct rig r;

    (void)state;
    rig_begin(&r, &wide);
    assert_int_equal(rig_append(&r, 0, 4096, 1, NULL), 0);
    assert_int_equal(zqcow2_flush(r.img), 0);
    record_reset(&r.record);
    for (int i = 0; i < 100; i++)
        assert_int_equal(rig_append(&r, 0, 4096, 1, NULL), 0);
    assert_int_equal(r.record.calls[ZQCOW2_IO_WRITE], 100);
    assert_int_equal(r.record.calls[ZQCOW2_IO_READ], 0);
    assert_int_equal(r.record.calls[ZQCOW2_IO_FLUSH], 0);
    record_reset(&r.record);
    assert_int_equal(zqcow2_flush(r.img), 0);
    assert_int_equal(r.record.calls[ZQCOW2_IO_FLUSH], 2);
    assert_int_equal(r.record.calls[ZQCOW2_IO_WRITE], 1);
    assert_int_equal(r.record.bytes[ZQCOW2_IO_WRITE], 512);
    rig_end(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(refused_ranges),
        cmocka_unit_test(a_range_acts_on_each_zone_in_order),
        cmocka_unit_test(a_range_stops_at_the_first_failure),
        cmocka_unit_test(reset_of_all_skips_what_cannot_be_reset),
        cmocka_unit_test(open_close_and_finish_of_all),
        cmocka_unit_test(open_of_all_that_does_not_fit),
        cmocka_unit_test(one_zone_is_not_all),
        cmocka_unit_test(order_of_checks),
        cmocka_unit_test(order_of_limits),
        cmocka_unit_test(appends_name_a_zone_by_its_start),
        cmocka_unit_test(discard_and_zeroes),
        cmocka_unit_test(reads_across_zones_and_beyond_pointers),
        cmocka_unit_test(bad_reads),
        cmocka_unit_test(finish_shows_zeros),
        cmocka_unit_test(report_windows),
        cmocka_unit_test(report_of_each_state),
        cmocka_unit_test(forced_states),
        cmocka_unit_test(reopening_closes),
        cmocka_unit_test(a_read_only_image_refuses_changes),
        cmocka_unit_test(zone_calls_on_a_plain_image),
        cmocka_unit_test(steady_state_costs),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
