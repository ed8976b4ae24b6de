/* SPDX-License-Identifier: MIT */
/* Names that must be unique: of bitmaps, which QEMU refuses otherwise, and the IDs of snapshots. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "unit/faults.h"

#define MAX_BITMAPS 400

/* p: names with NULL behind the last. */
static uint64_t image(struct pic *p, const char *const *names)
{
    fault_image(p, 4096, 16);
    return fault_bitmaps(p, names);
}

static size_t count(const char *const *names)
{
    size_t n = 0;

    while (names[n])
        n++;
    return n;
}

/* The name of the record at *at, up to a zero byte; *at moves behind it. */
static void take_name(struct pic *p, uint64_t *at, char name[1024])
{
    unsigned size = (unsigned)pic_get(p, *at + 18, 2);

    assert_true(size < 1024);
    for (unsigned i = 0; i < size; i++)
        name[i] = (char)pic_get(p, *at + 24 + i, 1);
    name[size] = '\0';
    *at += (24 + size + 7) / 8 * 8;
}

static void expect_names(struct pic *p, uint64_t dir, const char *const *after)
{
    for (size_t i = 0; after[i]; i++) {
        char name[1024];

        take_name(p, &dir, name);
        if (strcmp(name, after[i]))
            fail_msg("bitmap %zu has the name %s, not %s", i, name, after[i]);
    }
}

/* All but names and their sizes, whose place does not depend on them. */
static void expect_rest(struct pic *p, uint64_t dir, const uint8_t *was, uint64_t len, size_t n)
{
    uint64_t now_len;
    uint8_t *now = pic_bytes(p, &now_len), *old = malloc(len);

    assert_non_null(old);
    assert_true(now_len == len);
    memcpy(old, was, len);
    for (uint64_t at = dir; n--;) {
        uint64_t next = at + (24 + pic_get(p, at + 18, 2) + 7) / 8 * 8;

        memcpy(old + at + 18, now + at + 18, 2);
        memcpy(old + at + 24, now + at + 24, next - at - 24);
        at = next;
    }
    if (memcmp(old, now, len))
        fail_msg("a repair of names changes something else");
    free(old);
    free(now);
}

static void expect_idle(struct pic *p, unsigned flags)
{
    uint64_t before, after;
    uint8_t *a = pic_bytes(p, &before), *b;

    assert_int_equal(pic_check(p, flags), 0);
    b = pic_bytes(p, &after);
    if (before != after || memcmp(a, b, before) || strstr(p->found, "repaired"))
        fail_msg("a repair changes something: %s", p->found);
    free(a);
    free(b);
}

/* left: how many stay double. */
static void expect_repair(const char *const *names, const char *const *after, unsigned found,
                          unsigned left)
{
    struct pic p;
    uint64_t dir = image(&p, names), len;
    uint8_t *was;

    pic_finds(&p, found, 0, 0, "", found ? "also that of" : "");
    expect_idle(&p, LEAKS);
    was = pic_bytes(&p, &len);
    assert_int_equal(pic_check(&p, REPAIR), 0);
    assert_int_equal(p.res.corruptions_fixed, found - left);
    if (found > left && found < 9 && !strstr(p.found, "bitmaps renamed"))
        fail_msg("not said: %s", p.found);
    expect_names(&p, dir, after);
    expect_rest(&p, dir, was, len, count(names));
    pic_finds(&p, left, 0, 0, "", "");
    expect_idle(&p, ALL);
    free(was);
    pic_free(&p);
}

#define LIST(...) ((const char *const[]){__VA_ARGS__, NULL})

/* The first in the directory keeps the name: it is the one that other programs find. */
static void test_bitmaps(void **state)
{
    (void)state;
    expect_repair(LIST("a"), LIST("a"), 0, 0);
    expect_repair(LIST("a", "b", "aa", "A", "a-2"), LIST("a", "b", "aa", "A", "a-2"), 0, 0);
    expect_repair(LIST("a", "a"), LIST("a", "a-2"), 1, 0);
    expect_repair(LIST("b", "a", "b", "a"), LIST("b", "a", "b-3", "a-2"), 2, 0);
    expect_repair(LIST("a", "a", "a-2", "a", "a-4"), LIST("a", "a-3", "a-2", "a-5", "a-4"), 2, 0);
    expect_repair(LIST("a-2", "a", "a-2"), LIST("a-2", "a", "a-2-2"), 1, 0);
}

/* The record keeps its size, so a name that fills it loses its end: whole characters of UTF-8. */
static void test_room(void **state)
{
    (void)state;
    expect_repair(LIST("abcdefg", "abcdefg"), LIST("abcdefg", "abcdef-2"), 1, 0);
    expect_repair(LIST("abcdefgh", "abcdefgh"), LIST("abcdefgh", "abcdef-2"), 1, 0);
    expect_repair(LIST("abcdefgh", "abcdefgh", "abcdef-2"),
                  LIST("abcdefgh", "abcdef-3", "abcdef-2"), 1, 0);
    expect_repair(LIST("abcde\xc3\xa9g", "abcde\xc3\xa9g"), LIST("abcde\xc3\xa9g", "abcde-2"), 1,
                  0);
}

static void test_long_name(void **state)
{
    char name[1024], after[1024];

    (void)state;
    for (size_t len = 1014; len <= 1023; len++) {
        memset(name, 'n', len);
        name[len] = '\0';
        strcpy(after, name);
        /* up to 1023 characters, and not beyond the record */
        if (len > 1021)
            strcpy(after + 1021, "-2");
        else if (len % 8 == 0 || len % 8 == 7)
            strcpy(after + (len + 7) / 8 * 8 - 2, "-2");
        else
            strcpy(after + len, "-2");
        expect_repair(LIST(name, name), LIST(name, after), 1, 0);
    }
}

/* For programs that keep a name as a string it ends at a zero byte. */
static void test_zero_byte(void **state)
{
    static const char *const names[] = {"a.b", "a.and-much-more", "c", NULL};
    static const char *const after[] = {"a", "a-2", "c", NULL};
    struct pic p;
    uint64_t dir = image(&p, names);

    (void)state;
    pic_put(&p, dir + 25, 1, 0);
    pic_finds(&p, 0, 0, 0, "", "");
    pic_put(&p, dir + 32 + 25, 1, 0);
    pic_finds(&p, 1, 0, 0, "bitmap name \"a\" at 0x", "also that of");
    assert_int_equal(pic_check(&p, REPAIR), 0);
    assert_int_equal(p.res.corruptions_fixed, 1);
    expect_names(&p, dir, after);
    pic_finds(&p, 0, 0, 0, "", "");
    pic_free(&p);
}

/* The directory keeps its shape: where a record has no room, the name stays. */
static void test_no_room(void **state)
{
    static const char *const names[] = {"abcdefgh", "abcdefgh", NULL};
    struct pic p;
    uint64_t dir = image(&p, names);

    (void)state;
    for (unsigned i = 0; i < 2; i++) { /* seven bytes of extra data, and one of name */
        pic_put(&p, dir + i * 32 + 18, 2, 1);
        pic_put(&p, dir + i * 32 + 20, 4, 7);
    }
    pic_finds(&p, 3, 0, 0, "extra_data_size 7", "bitmap name \"h\"");
    expect_idle(&p, ALL);
    pic_free(&p);
}

static void test_many(void **state)
{
    static const char *names[MAX_BITMAPS + 1], *after[MAX_BITMAPS + 1];
    static char text[MAX_BITMAPS][8];

    (void)state;
    for (int i = 0; i < MAX_BITMAPS; i++) {
        names[i] = "n";
        after[i] = text[i];
        snprintf(text[i], sizeof(text[i]), i ? "n-%d" : "n", i + 1);
    }
    expect_repair(names, after, MAX_BITMAPS - 1, 0);
}

/* What a higher rank may have there is not written to. */
static void test_ranks(void **state)
{
    static const char *const names[] = {"a", "a", NULL};
    struct pic p;
    uint64_t dir, snap, first;

    (void)state;
    dir = image(&p, names); /* the snapshot cannot be followed, and may have anything */
    snap = pic_snapshot(&p);
    pic_put(&p, snap, 8, 0x123);
    assert_int_equal(pic_check(&p, ALL), 0);
    expect_names(&p, dir, names);
    pic_free(&p);

    dir = image(&p, names); /* data of the disk lies there: the directory is not believed */
    pic_put(&p, pic_l2(&p, 0), 8, dir | PIC_COPIED);
    first = pic_get(&p, dir + 32, 8);
    assert_int_equal(pic_check(&p, ALL), 0);
    expect_names(&p, dir, names);
    assert_true(pic_get(&p, dir + 32, 8) == first);
    pic_free(&p);

    dir = image(&p, names); /* refcounts that tables which overlap keep in their place */
    pic_put(&p, p.rt, 8, dir);
    pic_put(&p, 40, 8, p.wp);
    assert_int_equal(pic_check(&p, ALL), 0);
    expect_names(&p, dir, names);
    pic_free(&p);
}

/* Without autoclear bit 0 the extension owns nothing, and what its names are like is nothing. */
static void test_stale(void **state)
{
    static const char *const names[] = {"a", "a", NULL};
    struct pic p;
    uint64_t dir = image(&p, names);

    (void)state;
    pic_put(&p, 88, 8, 0);
    pic_finds(&p, 0, 3, 0, "", "");
    expect_names(&p, dir, names);
    pic_free(&p);
}

/* ---- snapshots ---- */

/* Two of them: pic_snapshot() makes the first record, with the ID "1" and the name "s". */
static uint64_t two_snapshots(struct pic *p)
{
    uint64_t table;

    fault_image(p, 4096, 16);
    table = pic_snapshot(p);
    for (unsigned i = 0; i < 64; i += 8)
        pic_put(p, table + 64 + i, 8, pic_get(p, table + i, 8));
    pic_put(p, table + 64 + 8, 4, 0); /* of nothing */
    pic_put(p, 60, 4, 2);
    return table;
}

/* No program refuses it. Records of snapshots are not rewritten: deleting one of the two ends it.
 */
static void test_snapshot_ids(void **state)
{
    struct pic p;
    uint64_t table = two_snapshots(&p);

    (void)state;
    pic_finds(&p, 0, 0, 1, "snapshot ID \"1\" at 0x", "also that of");
    expect_idle(&p, ALL);
    pic_put(&p, table + 64 + 56, 1, '2'); /* names may be equal */
    pic_finds(&p, 0, 0, 0, "", "");
    pic_put(&p, table + 12, 2, 0);
    pic_put(&p, table + 64 + 12, 2, 0);
    pic_finds(&p, 0, 0, 1, "snapshot ID \"\" at 0x", "");
    pic_free(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bitmaps),      cmocka_unit_test(test_room),
        cmocka_unit_test(test_long_name),    cmocka_unit_test(test_zero_byte),
        cmocka_unit_test(test_no_room),      cmocka_unit_test(test_many),
        cmocka_unit_test(test_ranks),        cmocka_unit_test(test_stale),
        cmocka_unit_test(test_snapshot_ids),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
