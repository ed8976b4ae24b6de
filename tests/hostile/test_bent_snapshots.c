/* SPDX-License-Identifier: MIT */
/*
 * Snapshot tables and records that no image should have. What is asked of each is answered, or
 * refused with its own text: to list the snapshots, to read the first one, to apply it, to delete
 * it; in memory that the file accounts for. The disk reads as before, and the other snapshot, too,
 * where it can be read at all.
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

#define BYTES (128u * CLUSTER)
#include "bent.h"

#define SIZE (1u << 20)
#define ZONE (128u << 10)

/* ---- an image with two snapshots, as bytes ---- */

static int open_on(struct zqcow2_backend *be, bool write, const char *snapshot,
                   struct zqcow2_image **img, struct zqcow2_error *err)
{
    struct zqcow2_open_options o = ZQCOW2_OPEN_OPTIONS_INIT;
    const struct zqcow2_hooks h = hooks();

    o.flags = ZQCOW2_OPEN_BORROW | (write ? ZQCOW2_OPEN_RDWR : 0);
    o.cache_bytes = 1 << 20;
    o.snapshot = snapshot;
    o.hooks = &h;
    return zqcow2_open(be, &o, img, err);
}

static void write_value(struct zqcow2_image *img, uint8_t value, uint64_t at)
{
    static uint8_t data[CLUSTER];

    memset(data, value, sizeof(data));
    assert_int_equal(zqcow2_write(img, data, sizeof(data), at, 0), 0);
}

static void take(struct zqcow2_image *img, const char *name)
{
    struct zqcow2_snapshot s = ZQCOW2_SNAPSHOT_INIT;

    s.name = name;
    assert_int_equal(zqcow2_snapshot_take(img, &s, NULL), 0);
}

/* The disk has 3 at the start; "first" has 1 there, "other" 2. With zones, each is a new life. */
static void make(bool zoned)
{
    struct zqcow2_create_options c = ZQCOW2_CREATE_OPTIONS_INIT;
    struct zqcow2_backend *be;
    struct zqcow2_image *img;
    uint64_t length;

    c.virtual_size = SIZE;
    c.cluster_size = CLUSTER;
    c.zone_size = zoned ? ZONE : 0;
    assert_int_equal(zqcow2_mem_open(0, NULL, &be), 0);
    assert_int_equal(zqcow2_create(be, &c, NULL), 0);
    assert_int_equal(open_on(be, true, NULL, &img, NULL), 0);
    for (uint8_t i = 1; i <= 3; i++) {
        if (zoned)
            assert_int_equal(zqcow2_zone_reset(img, 0, ZONE, 0), 0);
        write_value(img, i, 0);
        if (i < 3)
            take(img, i == 1 ? "first" : "other");
    }
    assert_int_equal(zqcow2_close(img), 0);
    assert_int_equal(zqcow2_backend_length(be, &length), 0);
    assert_true(length <= BYTES);
    memset(file, 0, sizeof(file));
    assert_int_equal(zqcow2_backend_read(be, file, (size_t)length, 0), 0);
    zqcow2_backend_close(be);
}

/* ---- each of them ---- */

/* RECORD: the first; L1, COPY: its L1 table and write pointers; L2: the first table of that L1 */
enum place { HEADER, RECORD, L1, L2, COPY };
enum what { LIST, READ, APPLY, DELETE, WHATS };

#define END       ((uint64_t)1 << 40) /* behind the end of any file here */
#define ON_L1     (UINT64_MAX - 1)    /* values that say where something of the image is */
#define ON_COUNTS (UINT64_MAX - 2)
#define C         ZQCOW2_ECORRUPT
#define NOWHERE   "no snapshot table can be there"
/* What LIST, READ, APPLY and DELETE return. */
#define UNLISTED \
    { \
        C, C, C, C \
    }
#define LISTED \
    { \
        0, C, C, C \
    }
#define READABLE \
    { \
        0, 0, C, C \
    }
#define DELETED \
    { \
        0, C, C, 0 \
    }
#define UNNAMED \
    { \
        0, -ENOENT, -ENOENT, -ENOENT \
    }
#define HARMLESS \
    { \
        0, 0, 0, 0 \
    }

struct bend {
    const char *what;
    bool zoned;
    enum place place;
    uint64_t at;
    unsigned n; /* bytes */
    uint64_t value;
    int code[WHATS];
    const char *reader, *writer; /* texts of LIST and READ, and of the others; NULL: the same */
};

static const struct bend bends[] = {
    {"more than there are", false, HEADER, 60, 4, 3, HARMLESS, NULL, NULL},
    {"65,537 snapshots", false, HEADER, 60, 4, 65537, UNLISTED, NOWHERE, "nb_snapshots 65537"},
    {"a table at the header", false, HEADER, 64, 8, 0, UNLISTED, NOWHERE, "points at the header"},
    {"a table not aligned", false, HEADER, 64, 8, CLUSTER + 8, UNLISTED, NOWHERE,
     "snapshots_offset 4104 (0x1008) at byte 64: is not aligned"},
    {"a table behind the end", false, HEADER, 64, 8, END, UNLISTED, NOWHERE,
     "runs past the end of the file"},
    {"a table on L1", false, HEADER, 64, 8, ON_L1, UNLISTED, NOWHERE, "overlaps the L1 table"},
    {"a table on the refcount table", false, HEADER, 64, 8, ON_COUNTS, UNLISTED, NOWHERE,
     "overlaps the refcount table"},
    {"extra data of 4 GiB", false, RECORD, 36, 4, UINT32_MAX, UNLISTED,
     "extra_data_size 4294967295", NULL},
    {"extra data of 1,032 bytes", false, RECORD, 36, 4, 1032, UNLISTED, "extra_data_size 1032",
     NULL},
    {"extra data over the name", false, RECORD, 36, 4, 1024, UNNAMED, "has the name or id",
     "has this name or id"},
    {"an id of 65,535 bytes", false, RECORD, 12, 2, 65535, UNNAMED, "has the name or id",
     "has this name or id"},
    {"a name of 65,535 bytes", false, RECORD, 14, 2, 65535, UNNAMED, "has the name or id",
     "has this name or id"},
    {"a disk of 8 EiB", false, RECORD, 48, 8, (uint64_t)1 << 63, DELETED,
     "a disk of 9223372036854775808 bytes", NULL},
    {"a disk that no L1 maps", false, RECORD, 48, 8, (uint64_t)1 << 55, DELETED,
     "a disk of 36028797018963968 bytes", NULL},
    {"an L1 at the header", false, RECORD, 0, 8, 0, LISTED, "overlaps the header",
     "at byte 0: it lies on another table"},
    {"an L1 not aligned", false, RECORD, 0, 8, CLUSTER + 512, LISTED,
     "at byte 4608: it is no place for a table", NULL},
    {"an L1 behind the end", false, RECORD, 0, 8, END, LISTED,
     "at byte 1099511627776: it is no place for a table", NULL},
    {"the L1 of the disk",
     false,
     RECORD,
     0,
     8,
     ON_L1,
     {0, 0, C, C},
     NULL,
     "1 entries at byte 12288: it lies on another table"},
    {"an L1 on the refcount table", false, RECORD, 0, 8, ON_COUNTS, LISTED,
     "refcount table at 0x1000 (4096 bytes) overlaps", "at byte 4096: it lies on another table"},
    {"an L1 of 4 billion entries", false, RECORD, 8, 4, UINT32_MAX, READABLE, NULL,
     "4294967295 entries"},
    {"an L1 that runs past the end", false, RECORD, 8, 4, BYTES, READABLE, NULL, "524288 entries"},
    {"an L1 without entries", false, RECORD, 8, 4, 0, HARMLESS, NULL, NULL},
    {"an L1 entry with a reserved bit", false, L1, 0, 1, 0x40, LISTED, NULL,
     "L1 table of the snapshot, 1 entries at byte 24576: reserved bits"},
    {"an L1 entry not aligned", false, L1, 0, 8, CLUSTER + 512, LISTED, NULL,
     "is not aligned to a cluster"},
    {"an L1 entry behind the end", false, L1, 0, 8, END, LISTED, NULL,
     "points past the end of the file"},
    {"an L1 entry on the refcount table", false, L1, 0, 8, ON_COUNTS, LISTED, NULL,
     "L2 table at byte 4096 lies on another table"},
    {"an L1 entry on the L1 of the disk",
     false,
     L1,
     0,
     8,
     ON_L1,
     {0, 0, C, C},
     NULL,
     "L2 table at byte 12288 lies on another table"},
    {"an L2 entry with a reserved bit", false, L2, 0, 8, (uint64_t)1 << 60, LISTED, NULL,
     "entry 0x1000000000000000 of the L2 table"},
    {"an L2 entry not aligned", false, L2, 0, 8, CLUSTER + 512, LISTED, NULL,
     "at byte 16384: is not aligned"},
    {"an L2 entry behind the end", false, L2, 0, 8, END, LISTED, NULL,
     "entry 0x10000000000 of the L2 table"},
    {"an L2 entry on the refcount table", false, L2, 0, 8, ON_COUNTS, LISTED, NULL,
     "points to a table"},
    {"no write pointers", true, RECORD, 64, 8, 0, DELETED, "has no copy of the write pointers",
     "has no write pointers"},
    {"write pointers not aligned", true, RECORD, 64, 8, CLUSTER + 512, DELETED,
     "has no copy of the write pointers", "is no copy of their table"},
    {"write pointers behind the end", true, RECORD, 64, 8, END, DELETED,
     "has no copy of the write pointers", "is no copy of their table"},
    {"write pointers on L1", true, RECORD, 64, 8, ON_L1, DELETED, "not a position in this zone",
     "is no copy of their table"},
    {"write pointers of no size", true, RECORD, 72, 8, 0, DELETED,
     "has no copy of the write pointers", "is no copy of their table"},
    {"too few write pointers", true, RECORD, 72, 8, SIZE / ZONE * 8 - 8, DELETED,
     "has no copy of the write pointers", "is no copy of their table"},
    {"too many write pointers", true, RECORD, 72, 8, SIZE / ZONE * 8 + 8, DELETED,
     "has no copy of the write pointers", "is no copy of their table"},
    {"2^60 bytes of write pointers", true, RECORD, 72, 8, (uint64_t)1 << 60, DELETED,
     "has no copy of the write pointers", "is no copy of their table"},
    {"a disk of half a zone", true, RECORD, 48, 8, SIZE + ZONE / 2, DELETED,
     "has no copy of the write pointers", "is no copy of their table"},
    {"a write pointer behind its zone", true, COPY, 8, 8, SIZE, DELETED,
     "zone 1 has 0x0000000000100000", NULL},
};

static void bend(const struct bend *b)
{
    uint64_t table = get(64, 8), l1 = get(table, 8), value = b->value, at[] = {0, table, l1, 0, 0};

    at[L2] = get(l1, 8) & 0x00fffffffffffe00u;
    at[COPY] = get(table + 64, 8);
    if (value == ON_L1)
        value = get(40, 8);
    else if (value == ON_COUNTS)
        value = get(48, 8);
    put(at[b->place] + b->at, b->n, value);
}

static void must(const struct bend *b, enum what what, bool good, const char *text)
{
    static const char *const names[] = {"list", "read", "apply", "delete"};

    if (!good)
        fail_msg("%s: %s: %s", b->what, names[what], text);
}

static void note(void *arg, const struct zqcow2_snapshot *s)
{
    (void)s;
    ++*(unsigned *)arg;
}

/* An image may be refused when it is opened; what can be asked later is refused later. */
static int ask(struct zqcow2_backend *be, enum what what, struct zqcow2_error *err)
{
    struct zqcow2_image *img;
    uint8_t data[512];
    unsigned n = 0;
    int rc = open_on(be, what >= APPLY, what == READ ? "first" : NULL, &img, err), closed;

    if (rc < 0)
        return rc;
    switch (what) {
    case LIST: rc = zqcow2_snapshot_list(img, note, &n, err); break;
    case READ: rc = zqcow2_read(img, data, sizeof(data), 0); break;
    case APPLY: rc = zqcow2_snapshot_apply(img, "first", err); break;
    default: rc = zqcow2_snapshot_delete(img, "first", err);
    }
    if (rc == 0 && what == LIST && n < 2)
        rc = 1;
    closed = zqcow2_close(img);
    return rc < 0 ? rc : closed;
}

/* The disk, and the other snapshot, where there is a table. */
static void read_others(const struct bend *b, enum what what, struct zqcow2_backend *be)
{
    struct zqcow2_error err = {0, ""};
    struct zqcow2_image *img;
    uint8_t data[512] = {0};

    must(b, what, open_on(be, false, NULL, &img, &err) == 0, err.text);
    must(b, what, zqcow2_read(img, data, sizeof(data), 0) == 0, "the disk");
    must(b, what, data[0] == 3 || (what == APPLY && !b->code[what]), "what the disk holds");
    must(b, what, zqcow2_close(img) == 0, "close");
    if (b->code[LIST] < 0 || b->code[READ] == -ENOENT || b->place == L2)
        return;
    must(b, what, open_on(be, false, "other", &img, &err) == 0, err.text);
    must(b, what, zqcow2_read(img, data, sizeof(data), 0) == 0 && data[0] == 2, "the other one");
    must(b, what, zqcow2_close(img) == 0, "close");
}

static void ask_each(const struct bend *b)
{
    for (enum what what = LIST; what < WHATS; what++) {
        const char *text = what >= APPLY && b->writer ? b->writer : b->reader;
        struct zqcow2_error err = {0, ""};
        struct zqcow2_backend *be;
        int rc;

        assert_int_equal(zqcow2_mem_open(0, NULL, &be), 0);
        assert_int_equal(zqcow2_backend_write(be, file, BYTES, 0), 0);
        most = 0;
        rc = ask(be, what, &err);
        must(b, what, rc == b->code[what], err.text[0] ? err.text : "another code");
        must(b, what, !rc || !text || strstr(err.text, text), err.text);
        must(b, what, used == 0 && most < MOST, "memory");
        read_others(b, what, be);
        zqcow2_backend_close(be);
    }
}

static void each_is_refused(void **state)
{
    static uint8_t good[2][BYTES];
    size_t n = sizeof(bends) / sizeof(bends[0]), refused = 0;

    (void)state;
    for (int zoned = 0; zoned < 2; zoned++) {
        make(zoned);
        memcpy(good[zoned], file, BYTES);
    }
    for (size_t i = 0; i < n; i++) {
        memcpy(file, good[bends[i].zoned], BYTES);
        bend(&bends[i]);
        ask_each(&bends[i]);
        refused += bends[i].code[APPLY] < 0;
    }
    printf("snapshots: %zu bends, %zu of them refused, 0 believed\n", n, refused);
}

/* The second record is wrong: the first snapshot is there. */
static void what_lies_before_is_read(void **state)
{
    struct zqcow2_error err = {0, ""};
    struct zqcow2_backend *be;
    struct zqcow2_image *img;
    uint64_t table, at;
    uint8_t data[512];

    (void)state;
    make(false);
    table = get(64, 8);
    at = table + (40 + get(table + 36, 4) + get(table + 12, 2) + get(table + 14, 2) + 7) / 8 * 8;
    put(at + 36, 4, 4120);
    assert_int_equal(zqcow2_mem_open(0, NULL, &be), 0);
    assert_int_equal(zqcow2_backend_write(be, file, BYTES, 0), 0);
    assert_int_equal(open_on(be, false, "first", &img, &err), 0);
    assert_int_equal(zqcow2_read(img, data, sizeof(data), 0), 0);
    assert_int_equal(data[0], 1);
    assert_int_equal(zqcow2_close(img), 0);
    assert_int_equal(open_on(be, false, "other", &img, &err), ZQCOW2_ECORRUPT);
    assert_non_null(strstr(err.text, "extra_data_size 4120"));
    zqcow2_backend_close(be);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_is_refused),
        cmocka_unit_test(what_lies_before_is_read),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
