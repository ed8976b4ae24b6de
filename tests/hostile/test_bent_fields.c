/* SPDX-License-Identifier: MIT */
/*
 * Each field of the header and of the records of snapshots gets each kind of wrong value: 0, all
 * ones, one more, one less, half, a place beyond the file, one that is not aligned, the next
 * cluster. Whatever a repair makes of it, nothing is lost:
 *
 * * what could be read of the disk and of each snapshot before can be read after; a snapshot needs
 *   no L1 of the disk;
 * * where the field has been set right, all can be read;
 * * where it has not, all can be read when the right value is put back: nothing has been freed or
 *   dropped that an intact table still names.
 */
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

#define BYTES (160u * CLUSTER)
#include "bent.h"

#define MiB(n)  ((uint64_t)(n) << 20)
#define SIZE    MiB(6)
#define SECTOR  512u
#define PLACES  6u /* where data is read */
#define READERS 4u /* the disk and three snapshots */

static const char *const names[READERS] = {NULL, "first", "other", "third"};
static const char *const ids[READERS] = {NULL, "1", "2", "3"};
static const uint64_t places[PLACES] = {0, 4096, 8192, MiB(2), MiB(4), MiB(6) - 4096};

struct field {
    const char *name;
    uint64_t at;
    unsigned width;
};

static const struct field header[] = {
    {"backing_file_offset", 8, 8},
    {"backing_file_size", 16, 4},
    {"cluster_bits", 20, 4},
    {"size", 24, 8},
    {"crypt_method", 32, 4},
    {"l1_size", 36, 4},
    {"l1_table_offset", 40, 8},
    {"refcount_table_offset", 48, 8},
    {"refcount_table_clusters", 56, 4},
    {"nb_snapshots", 60, 4},
    {"snapshots_offset", 64, 8},
    {"incompatible_features", 72, 8},
    {"compatible_features", 80, 8},
    {"autoclear_features", 88, 8},
    {"refcount_order", 96, 4},
    {"header_length", 100, 4},
};

static const struct field record[] = {
    {"l1_table_offset", 0, 8}, {"l1_size", 8, 4},     {"id_size", 12, 2},
    {"name_size", 14, 2},      {"date_sec", 16, 4},   {"vm_clock_nsec", 24, 8},
    {"vm_state_size", 32, 4},  {"extra_size", 36, 4}, {"vm_state_size_large", 40, 8},
    {"disk_size", 48, 8},
};

/* ---- the image ---- */

static uint8_t good[BYTES];
static uint64_t length;

static struct zqcow2_image *open_on(struct zqcow2_backend *be, bool write, const char *snapshot,
                                    unsigned flags)
{
    struct zqcow2_open_options o = ZQCOW2_OPEN_OPTIONS_INIT;
    const struct zqcow2_hooks h = hooks();
    struct zqcow2_image *img = NULL;

    o.cache_bytes = 1 << 20;
    o.hooks = &h;
    o.flags = ZQCOW2_OPEN_BORROW | (write ? ZQCOW2_OPEN_RDWR : 0) | flags;
    o.snapshot = snapshot;
    return zqcow2_open(be, &o, &img, NULL) == 0 ? img : NULL;
}

/* What reader number r has at place number i: some of it shared, some its own, some nothing. */
static uint8_t value(unsigned r, unsigned i)
{
    unsigned age = r ? r : READERS; /* how often the disk was written before */

    return i == 0 ? (uint8_t)age : i < age + 1 || i == 5 ? (uint8_t)(0x40 + i) : 0;
}

static void write_all(struct zqcow2_image *img, unsigned age)
{
    static uint8_t data[CLUSTER];

    for (unsigned i = 0; i < PLACES; i++) {
        memset(data, value(age % READERS, i), sizeof(data));
        if (data[0])
            assert_int_equal(zqcow2_write(img, data, sizeof(data), places[i], 0), 0);
    }
}

static void make(void)
{
    struct zqcow2_create_options c = ZQCOW2_CREATE_OPTIONS_INIT;
    struct zqcow2_backend *be;
    struct zqcow2_image *img;

    c.virtual_size = SIZE;
    c.cluster_size = CLUSTER;
    assert_int_equal(zqcow2_mem_open(0, NULL, &be), 0);
    assert_int_equal(zqcow2_create(be, &c, NULL), 0);
    img = open_on(be, true, NULL, 0);
    assert_non_null(img);
    for (unsigned age = 1; age <= READERS; age++) {
        struct zqcow2_snapshot s = ZQCOW2_SNAPSHOT_INIT;

        write_all(img, age);
        if (age == READERS)
            break;
        s.name = names[age];
        assert_int_equal(zqcow2_snapshot_take(img, &s, NULL), 0);
    }
    assert_int_equal(zqcow2_close(img), 0);
    assert_int_equal(zqcow2_backend_length(be, &length), 0);
    assert_true(length <= BYTES);
    memset(good, 0, sizeof(good));
    assert_int_equal(zqcow2_backend_read(be, good, (size_t)length, 0), 0);
    zqcow2_backend_close(be);
}

/* ---- what can be read ---- */

static unsigned read_as(struct zqcow2_image *img, unsigned r)
{
    uint8_t data[SECTOR];
    unsigned seen = 0;

    for (unsigned i = 0; img && i < PLACES; i++) {
        if (zqcow2_read(img, data, sizeof(data), places[i]) == 0 && data[0] == value(r, i) &&
            data[SECTOR - 1] == data[0])
            seen |= 1u << (r * PLACES + i);
    }
    if (img)
        assert_int_equal(zqcow2_close(img), 0);
    return seen;
}

/* A bit for each place of each reader; a snapshot is known by its name or by its ID. */
static unsigned reach(struct zqcow2_backend *be)
{
    unsigned seen = 0;

    for (unsigned r = 0; r < READERS; r++) {
        seen |= read_as(open_on(be, false, names[r], 0), r);
        if (r)
            seen |= read_as(open_on(be, false, ids[r], ZQCOW2_OPEN_ID_FIRST), r);
    }
    return seen;
}

#define DISK      ((1u << PLACES) - 1)
#define ALL_OF_IT ((1u << READERS * PLACES) - 1)
#define ORDER     96 /* refcount_order: refcounts are made anew as wide as it says */

/* ---- each field ---- */

static unsigned bent, put_right, refused, lost;

static struct zqcow2_backend *put_down(void)
{
    struct zqcow2_backend *be;

    assert_int_equal(zqcow2_mem_open(0, NULL, &be), 0);
    assert_int_equal(zqcow2_backend_write(be, file, (size_t)length, 0), 0);
    return be;
}

static uint64_t field_of(struct zqcow2_backend *be, const struct field *f)
{
    uint8_t raw[8] = {0};
    uint64_t v = 0;

    assert_int_equal(zqcow2_backend_read(be, raw, f->width, f->at), 0);
    for (unsigned i = 0; i < f->width; i++)
        v = v << 8 | raw[i];
    return v;
}

static void complain(const char *what, const char *kind, unsigned flags, unsigned missing,
                     const char *found)
{
    lost++;
    print_message("%s %s: repair %u: missing 0x%06x: %s\n", what, kind, flags, missing, found);
}

static void note(void *arg, int kind, const char *text)
{
    char *all = arg;

    (void)kind;
    snprintf(all + strlen(all), 2048 - strlen(all), "%s; ", text);
}

static int repair(struct zqcow2_backend *be, unsigned flags, char *found,
                  struct zqcow2_check_result *res)
{
    struct zqcow2_check_options o = ZQCOW2_CHECK_OPTIONS_INIT;

    o.flags = flags;
    o.found = note;
    o.arg = found;
    return zqcow2_check(be, &o, res, NULL);
}

static void repaired(const struct field *f, const char *what, unsigned flags, unsigned before)
{
    struct zqcow2_check_result res = ZQCOW2_CHECK_RESULT_INIT;
    struct zqcow2_backend *be = put_down();
    uint64_t was = get(f->at, f->width);
    char found[2048] = "";
    unsigned after;
    int rc = repair(be, flags, found, &res);

    after = reach(be);
    if (getenv("ZQ_SHOW") && flags == ZQCOW2_CHECK_REPAIR_ALL)
        print_message("%s %s: rc %d, %06x then %06x: %s\n", f->name, what, rc, before, after,
                      found);
    if (before & ~after)
        complain(f->name, what, flags, before & ~after, found);
    if (field_of(be, f) != was) {
        put_right += flags == ZQCOW2_CHECK_REPAIR_ALL;
        if (after != ALL_OF_IT)
            complain(f->name, what, flags | 0x100, ALL_OF_IT & ~after, found);
    } else {
        uint8_t raw[8];

        refused += rc < 0 && flags == ZQCOW2_CHECK_REPAIR_ALL;
        memcpy(raw, good + f->at, f->width);
        assert_int_equal(zqcow2_backend_write(be, raw, f->width, f->at), 0);
        after = reach(be);
        *found = '\0';
        assert_int_equal(repair(be, 0, found, &res), 0);
        if (after != ALL_OF_IT || (strstr(found, "refcount too low") && f->at != ORDER))
            complain(f->name, what, flags | 0x200, ALL_OF_IT & ~after, found);
    }
    zqcow2_backend_close(be);
}

static void bend(const struct field *f, const char *what, uint64_t v)
{
    struct zqcow2_backend *be;
    unsigned before;

    if (f->width < 8)
        v &= ((uint64_t)1 << 8 * f->width) - 1;
    memcpy(file, good, sizeof(file));
    if (get(f->at, f->width) == v)
        return;
    put(f->at, f->width, v);
    be = put_down();
    before = reach(be);
    zqcow2_backend_close(be);
    if (f->at == 8 && v < CLUSTER && before != ALL_OF_IT) /* there is no name to be found */
        complain(f->name, what, 0, ALL_OF_IT & ~before, "");
    if ((f->at == 36 || f->at == 40) && (before | DISK) != ALL_OF_IT) /* L1 is the disk's alone */
        complain(f->name, what, 0, ALL_OF_IT & ~before, "");
    bent++;
    repaired(f, what, ZQCOW2_CHECK_REPAIR_LEAKS, before);
    repaired(f, what, ZQCOW2_CHECK_REPAIR, before);
    repaired(f, what, ZQCOW2_CHECK_REPAIR_ALL, before);
}

static void each_value(const struct field *f)
{
    uint64_t old;

    memcpy(file, good, sizeof(file));
    old = get(f->at, f->width);
    bend(f, "0", 0);
    bend(f, "all ones", UINT64_MAX);
    bend(f, "one more", old + 1);
    bend(f, "one less", old - 1);
    bend(f, "half", old / 2);
    bend(f, "eight more", old + 8);
    bend(f, "beyond", (length / CLUSTER + 16) * CLUSTER);
    bend(f, "a cluster on", old + CLUSTER);
    bend(f, "a cluster back", old - CLUSTER);
}

static void nothing_is_lost(void **state)
{
    uint64_t at;

    (void)state;
    make();
    memcpy(file, good, sizeof(file));
    at = get(64, 8);
    for (size_t i = 0; i < sizeof(header) / sizeof(header[0]); i++)
        each_value(&header[i]);
    for (unsigned k = 1; k < READERS; k++) {
        for (size_t i = 0; i < sizeof(record) / sizeof(record[0]); i++) {
            char name[64];
            struct field f = {name, at + record[i].at, record[i].width};

            snprintf(name, sizeof(name), "%s: %s", names[k], record[i].name);
            each_value(&f);
        }
        memcpy(file, good, sizeof(file));
        at += (40 + get(at + 36, 4) + get(at + 12, 2) + get(at + 14, 2) + 7) / 8 * 8;
    }
    printf("bent fields: %u, of them %u repaired, %u refused, %u lost something\n", bent, put_right,
           refused, lost);
    assert_int_equal(lost, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_is_lost),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
