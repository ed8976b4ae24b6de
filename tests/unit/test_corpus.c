/* SPDX-License-Identifier: MIT */
/*
 * Images that other programs made: geometry and entries parse as the .json beside each says, check
 * finds nothing, a report says the same. tests/data holds the small ones; the whole corpus is
 * looked for beside the source tree, in ../shared/corpus.
 */
#include <glob.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/bytes.h"
#include "format/zone_ext.h"
#include "unit/pic.h"

struct want {
    uint64_t index, start, length, capacity, stored, wp, type;
    char state[16];
};

/* One image with everything that is known about it. */
struct item {
    const char *path;
    char *json;
    struct pic pic;
    struct zq_geometry g;
    uint8_t *table;
    struct zqcow2_zone *report;
};

static char *slurp(const char *path)
{
    FILE *f = fopen(path, "rb");
    char *text = calloc(1, 1 << 20);

    if (!f || !text || !fread(text, 1, (1 << 20) - 1, f))
        fail_msg("%s: cannot be read", path);
    fclose(f);
    return text;
}

/* The number after "key": in an object that begins at `at`. */
static uint64_t number(const struct item *it, const char *at, const char *key)
{
    char quoted[64];
    const char *p;

    snprintf(quoted, sizeof(quoted), "\"%s\":", key);
    p = strstr(at, quoted);
    if (!p)
        fail_msg("%s: no %s in its .json", it->path, key);
    return strtoull(p + strlen(quoted), NULL, 10);
}

static void load_want(const struct item *it, const char *at, struct want *w)
{
    const char *p = strstr(at, "\"state\": \"");

    w->index = number(it, at, "index");
    w->start = number(it, at, "start");
    w->length = number(it, at, "length");
    w->capacity = number(it, at, "capacity");
    w->stored = number(it, at, "stored_write_pointer");
    w->wp = number(it, at, "write_pointer");
    w->type = number(it, at, "type");
    assert_non_null(p);
    sscanf(p + 10, "%15[A-Z_]", w->state);
}

static unsigned state_number(const char *name)
{
    static const char *const names[] = {"NOT_WP", "EMPTY", "IMP_OPEN", "EXP_OPEN", "CLOSED"};

    for (unsigned i = 0; i < 5; i++) {
        if (!strcmp(name, names[i]))
            return i;
    }
    return ZQCOW2_ZONE_FULL;
}

/* ---- the three looks ---- */

static void parse(struct item *it)
{
    struct pic *p = &it->pic;
    uint8_t *head = calloc(1, p->cluster);
    struct zqcow2_error err;
    struct zq_header h;
    bool bit_missing = true;

    assert_non_null(head);
    assert_int_equal(zqcow2_backend_read(p->be, head, p->cluster, 0), 0);
    if (zq_header_parse(&h, head, p->cluster, pic_length(p), true, &err) != 0 ||
        zq_zone_ext_parse(&it->g, &h, head + h.zoned_offset, h.zoned_len, pic_length(p),
                          &bit_missing, &err) != 0)
        fail_msg("%s: %s", it->path, err.text);
    free(head);
    assert_false(bit_missing);
    it->table = calloc(it->g.nr_zones, 8);
    assert_non_null(it->table);
    assert_int_equal(
        zqcow2_backend_read(p->be, it->table, (size_t)it->g.nr_zones * 8, it->g.table_offset), 0);
    if (zq_entry_code_detect(&it->g, it->table, &err) != 0)
        fail_msg("%s: %s", it->path, err.text);
}

static void same_geometry(const struct item *it)
{
    bool v7 = strstr(it->json, "\"layout\": \"v7\"") != NULL;
    bool little = strstr(it->json, "\"table\": \"LE59\"") != NULL;
    const char *arg = strstr(it->json, "zone.size=");

    assert_non_null(arg);
    assert_int_equal(it->g.layout, v7 ? ZQCOW2_LAYOUT_V7 : ZQCOW2_LAYOUT_44);
    assert_int_equal(it->g.code.big_endian, !little);
    assert_int_equal(it->g.code.flag_bit, little ? 59 : 63);
    assert_int_equal(it->g.zone_size, strtoull(arg + 10, NULL, 10));
    arg = strstr(it->json, "zone.capacity=");
    assert_int_equal(it->g.capacity, strtoull(arg + 14, NULL, 10));
    arg = strstr(it->json, "zone.max_active_zones=");
    assert_int_equal(it->g.max_active, arg ? strtoull(arg + 22, NULL, 10) : 0);
    arg = strstr(it->json, "zone.max_open_zones=");
    assert_int_equal(it->g.max_open, arg ? strtoull(arg + 20, NULL, 10) : 0);
    arg = strstr(it->json, "zone.max_append_bytes=");
    assert_int_equal(it->g.max_append, arg ? strtoull(arg + 22, NULL, 10) : 0);
    assert_int_equal(it->g.device_size, number(it, it->json, "virtual_size"));
}

static void same_entry(const struct item *it, const struct want *w)
{
    const uint8_t *raw = it->table + w->index * 8;
    uint64_t v = it->g.code.big_endian ? zq_be64(raw) : zq_le64(raw);
    uint32_t zone = (uint32_t)w->index;
    struct zq_entry e;

    v &= ~(1ull << it->g.code.flag_bit);
    assert_int_equal(zq_entry_decode(&it->g, zone, raw, &e), 0);
    if (v != w->stored || e.full != !strcmp(w->state, "FULL") ||
        w->start != zq_geometry_start(&it->g, zone) ||
        w->length != zq_geometry_length(&it->g, zone) ||
        w->capacity != zq_geometry_capacity(&it->g, zone) || (!e.full && e.wp != w->wp) ||
        (e.wp == w->start) != (!strcmp(w->state, "EMPTY") || w->type == 1))
        fail_msg("%s: zone %u: stored 0x%" PRIx64 ", wp 0x%" PRIx64 ", .json 0x%" PRIx64
                 ", 0x%" PRIx64 " %s",
                 it->path, zone, v, e.wp, w->stored, w->wp, w->state);
}

static void same_report(const struct item *it, const struct want *w)
{
    const struct zqcow2_zone *z = &it->report[w->index];

    if (z->start != w->start || z->length != w->length || z->capacity != w->capacity ||
        z->write_pointer != w->wp || z->type != w->type || z->state != state_number(w->state))
        fail_msg("%s: zone %" PRIu64 ": reported 0x%" PRIx64 "+0x%" PRIx64 " cap 0x%" PRIx64
                 " wp 0x%" PRIx64 " type %u state %u, .json wp 0x%" PRIx64 " %s",
                 it->path, w->index, z->start, z->length, z->capacity, z->write_pointer, z->type,
                 z->state, w->wp, w->state);
}

static void report(struct item *it)
{
    struct zqcow2_open_options o = ZQCOW2_OPEN_OPTIONS_INIT;
    struct zqcow2_image *img;
    struct zqcow2_error err;
    uint32_t nr = it->g.nr_zones;

    o.flags = ZQCOW2_OPEN_BORROW;
    if (zqcow2_open(it->pic.be, &o, &img, &err) != 0)
        fail_msg("%s: %s", it->path, err.text);
    it->report = calloc(nr, sizeof(*it->report));
    assert_non_null(it->report);
    assert_int_equal(zqcow2_zone_report(img, 0, it->report, &nr), 0);
    assert_int_equal(nr, it->g.nr_zones);
    assert_int_equal(zqcow2_close(img), 0);
}

/* Zones that the .json leaves out are empty. */
static void compare_zones(const struct item *it)
{
    uint64_t listed = 0, not_empty = 0;
    struct want w;

    for (const char *at = it->json; (at = strstr(at, "\"index\":")); at++, listed++) {
        load_want(it, at, &w);
        same_entry(it, &w);
        same_report(it, &w);
    }
    for (uint32_t i = 0; i < it->g.nr_zones; i++)
        not_empty += it->report[i].state != ZQCOW2_ZONE_EMPTY;
    if (strstr(it->json, "\"zones_not_empty\""))
        assert_int_equal(not_empty, listed);
    else
        assert_int_equal(it->g.nr_zones, listed);
}

static void look(const char *path)
{
    struct item it = {.path = path};
    char json[4096];
    size_t stem = strlen(path) - strlen(".qcow2.gz");

    snprintf(json, sizeof(json), "%.*s.json", (int)stem, path);
    it.json = slurp(json);
    if (!pic_load(&it.pic, path))
        fail_msg("%s: cannot be read", path);
    parse(&it);
    same_geometry(&it);
    if (pic_check(&it.pic, 0) != 0 || it.pic.res.corruptions || it.pic.res.leaked_clusters ||
        it.pic.res.warnings)
        fail_msg("%s: %s%s", path, it.pic.err.text, it.pic.found);
    report(&it);
    compare_zones(&it);
    pic_free(&it.pic);
    free(it.json);
    free(it.table);
    free(it.report);
}

static size_t look_at_all(const char *folder)
{
    const char *top = getenv("ZQ_SOURCE_DIR");
    char pattern[4096];
    glob_t found;
    size_t n = 0;

    snprintf(pattern, sizeof(pattern), "%s/%s/*/*.qcow2.gz", top ? top : ".", folder);
    if (glob(pattern, 0, NULL, &found) != 0)
        return 0;
    for (n = 0; n < found.gl_pathc; n++)
        look(found.gl_pathv[n]);
    globfree(&found);
    return n;
}

static void test_data(void **state)
{
    (void)state;
    assert_int_equal(look_at_all("tests/data"), 6);
}

static void test_whole_corpus(void **state)
{
    size_t n = look_at_all("../shared/corpus");

    (void)state;
    if (!n) {
        printf("no corpus beside the source tree: only tests/data was read\n");
        skip();
    }
    printf("corpus: %zu images as recorded\n", n);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_data),
        cmocka_unit_test(test_whole_corpus),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
