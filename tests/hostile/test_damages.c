/* SPDX-License-Identifier: MIT */
/*
 * Several fields of an image are damaged at once; then what check and repair promise holds whatever
 * they were:
 *
 * * check writes nothing; a repair that was asked to do more or less ends;
 * * no repair leaves more corruptions than it found, and what it says is left is what the next
 *   check finds;
 * * the same repair once more finds nothing to do;
 * * what the active disk could read before it reads after, and so do snapshots through every entry
 *   that was not damaged, as long as none of their records was.
 *
 * ZQ_SEED and ZQ_COUNT choose the damages; ZQ_IMAGES names a folder whose images are used beside
 * the built-in ones.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "hostile/bases.h"
#include "hostile/fields.h"

#define MiB(n)    ((uint64_t)(n) << 20)
#define HOST      0x00fffffffffffe00ull
#define MAX_BASES 128
#define CHUNK     512u

static struct bytes bases[MAX_BASES];
static char names[MAX_BASES][64];
static size_t nr_bases, base; /* base: which one is damaged */
static unsigned long long seed;
static unsigned failures;
static char what[512]; /* base and damages */

/* ---- images to begin with ---- */

static void keep(struct pic *p, const char *name)
{
    assert_true(nr_bases < MAX_BASES);
    if (pic_check(p, 0) != 0 || p->res.corruptions)
        fail_msg("%s is not sound to begin with: %s%s", name, p->err.text, p->found);
    snprintf(names[nr_bases], sizeof(names[0]), "%s", name);
    bases[nr_bases].b = pic_bytes(p, &bases[nr_bases].len);
    nr_bases++;
    pic_free(p);
}

static int setup(void **state)
{
    const char *source = getenv("ZQ_SOURCE_DIR"), *more = getenv("ZQ_IMAGES");
    char pattern[512];

    (void)state;
    bases_make(keep);
    snprintf(pattern, sizeof(pattern), "%s/tests/hostile/images/*.gz", source ? source : ".");
    bases_load(pattern, keep);
    if (more) {
        snprintf(pattern, sizeof(pattern), "%s/*", more);
        bases_load(pattern, keep);
    }
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    for (size_t i = 0; i < nr_bases; i++)
        free(bases[i].b);
    return 0;
}

/* ---- the damage ---- */

/* The groups that were damaged, as bits. */
static unsigned damage(struct bytes *b, const struct fields *f, uint64_t *s)
{
    unsigned done = 0;

    for (uint64_t n = 1 + fields_rng(s) % 4; n > 0; n--) {
        enum group g = (enum group)(fields_rng(s) % F_DAMAGES);
        const struct field *x;
        uint64_t v, old;

        if (!f->n[g])
            continue;
        x = &f->f[g][fields_rng(s) % f->n[g]];
        old = bytes_get(b, x->at, x->width);
        v = fields_value(f, b, s, old, x->width);
        bytes_put(b, x->at, x->width, v);
        done |= 1u << g;
        snprintf(what + strlen(what), sizeof(what) - strlen(what), "%u bytes at 0x%llx: 0x%llx; ",
                 x->width, (unsigned long long)x->at,
                 (unsigned long long)bytes_get(b, x->at, x->width));
    }
    return done;
}

/* ---- readers ---- */

static void open_bytes(struct pic *p, const struct bytes *b)
{
    memset(p, 0, sizeof(*p));
    assert_int_equal(zqcow2_mem_open(b->len, NULL, &p->be), 0);
    assert_int_equal(zqcow2_backend_write(p->be, b->b, (size_t)b->len, 0), 0);
}

/* The active disk, piece by piece: whether it can be read, and as what. */
struct disk {
    uint64_t size;
    uint8_t *data, *bad; /* bad: one byte for each piece */
};

static void read_disk(struct disk *d, struct pic *p)
{
    struct zqcow2_open_options o = ZQCOW2_OPEN_OPTIONS_INIT;
    struct zqcow2_info info = ZQCOW2_INFO_INIT;
    struct zqcow2_image *img;

    memset(d, 0, sizeof(*d));
    o.flags = ZQCOW2_OPEN_BORROW;
    if (zqcow2_open(p->be, &o, &img, NULL) != 0)
        return;
    assert_int_equal(zqcow2_get_info(img, &info), 0);
    d->size = info.virtual_size < MiB(8) ? info.virtual_size : MiB(8);
    d->data = calloc(1, d->size + 1);
    d->bad = calloc(1, (d->size + MiB(2)) / CHUNK + 1);
    assert_non_null(d->data);
    assert_non_null(d->bad);
    if (zqcow2_read(img, d->data, d->size, 0) != 0) {
        for (uint64_t at = 0; at < d->size; at += CHUNK)
            d->bad[at / CHUNK] = zqcow2_read(img, d->data + at, CHUNK, at) != 0;
    }
    assert_int_equal(zqcow2_close(img), 0);
}

static bool is_table(const struct bytes *b, uint64_t first, uint64_t end)
{
    uint64_t l1 = bytes_get(b, 40, 8), n = bytes_get(b, 36, 4);

    for (uint64_t i = 0; i < n && l1 + i * 8 < b->len; i++) {
        uint64_t table = bytes_get(b, l1 + i * 8, 8) & HOST;

        if (table && table + (1ull << bytes_get(b, 20, 4)) > first && table < end)
            return true;
    }
    return false;
}

/* No record of a snapshot was damaged, nor what leads to it. */
static bool snapshots_whole(const struct bytes *m, unsigned groups)
{
    return !(groups & 1u << F_SNAPSHOT) && bytes_get(m, 20, 4) == bytes_get(&bases[base], 20, 4) &&
           bytes_get(m, 60, 4) == bytes_get(&bases[base], 60, 4) &&
           bytes_get(m, 64, 8) == bytes_get(&bases[base], 64, 8);
}

struct sharers {
    const struct bytes *b;
    uint64_t table;
    unsigned n;
};

static void count_l1(struct sharers *s, uint64_t l1, uint64_t n)
{
    for (uint64_t i = 0; i < n && l1 + i * 8 < s->b->len; i++)
        s->n += (bytes_get(s->b, l1 + i * 8, 8) & HOST) == s->table;
}

static void count_sharers(void *arg, uint64_t at)
{
    struct sharers *s = arg;

    count_l1(s, bytes_get(s->b, at, 8), bytes_get(s->b, at + 8, 4));
}

static bool is_shared(const struct bytes *b, uint64_t table)
{
    struct sharers s = {b, table, 0};

    count_l1(&s, bytes_get(b, 40, 8), bytes_get(b, 36, 4));
    each_snapshot(b, count_sharers, &s);
    return s.n > 1;
}

/*
 * Data on a table gets a copy of what lies there, but where it is packed, or its own table has
 * another owner, too: then the entry is wrong, and dropped. A snapshot that cannot be followed may
 * have any table. What lies on its own table changes with it.
 */
static void disregard_tables(struct disk *d, const struct bytes *b, unsigned groups)
{
    bool any = groups & 1u << F_SNAP_L1 || !snapshots_whole(b, groups);
    uint64_t bits = bytes_get(b, 20, 4), cluster = 1ull << bits, l1 = bytes_get(b, 40, 8);

    for (uint64_t at = 0; at < d->size; at += cluster) {
        uint64_t n = at >> bits, table = bytes_get(b, l1 + n / (cluster / 8) * 8, 8) & HOST;
        uint64_t e = table ? bytes_get(b, table + n % (cluster / 8) * 8, 8) : 0, end;
        bool packed = e & PIC_COMPRESSED;
        uint64_t host = packed ? e & ((1ull << (70 - bits)) - 1) : e & HOST;

        end = host + (packed ? ((e << 2 >> (72 - bits)) + 1) * 512 : cluster);
        if (!host || !is_table(b, host & ~(cluster - 1), end) ||
            (!packed && host != table && !any && !is_shared(b, table)))
            continue;
        for (uint64_t i = 0; i < cluster; i += CHUNK)
            d->bad[(at + i) / CHUNK] = 1;
    }
}

static void free_disk(struct disk *d)
{
    free(d->data);
    free(d->bad);
}

static void broken(const char *text, unsigned flags, const char *found)
{
    printf("ZQ_SEED=%llu, repair %u: %s: %s\n%.1500s", seed, flags, text, what, found);
    failures++;
}

static void expect_disk(const struct disk *a, const struct disk *b, unsigned flags,
                        const char *found)
{
    char text[96];

    if (a->size != b->size && a->size) {
        broken("the disk opens no longer, or with another size", flags, found);
        return;
    }
    for (uint64_t at = 0; at < a->size; at += CHUNK) {
        if (a->bad[at / CHUNK] ||
            (!b->bad[at / CHUNK] && !memcmp(a->data + at, b->data + at, CHUNK)))
            continue;
        snprintf(text, sizeof(text), "byte 0x%llx of the disk reads otherwise",
                 (unsigned long long)at);
        broken(text, flags, found);
        return;
    }
}

/* A snapshot's mapping: every entry's data as it lies in the file. */
struct compare {
    const struct bytes *a, *b;
    bool differs;
};

static bool same_data(const struct bytes *a, uint64_t x, const struct bytes *b, uint64_t y,
                      uint64_t n)
{
    for (uint64_t i = 0; i < n; i += 8) {
        if (bytes_get(a, x + i, 8) != bytes_get(b, y + i, 8))
            return false;
    }
    return true;
}

/* A damaged entry may name a table, as data: what is read there changes with the table. */
static bool damaged(const struct bytes *m, uint64_t at)
{
    return bytes_get(&bases[base], at, 8) != bytes_get(m, at, 8);
}

static void compare_table(struct compare *c, uint64_t x, uint64_t y)
{
    uint64_t cluster = 1ull << bytes_get(c->a, 20, 4);

    for (uint64_t k = 0; k < cluster && !c->differs; k += 8) {
        uint64_t e = bytes_get(c->a, x + k, 8) & ~PIC_COPIED;

        if (damaged(c->a, x + k))
            continue;
        c->differs = e != (bytes_get(c->b, y + k, 8) & ~PIC_COPIED);
        if (!(e & PIC_COMPRESSED) && e & HOST)
            c->differs |= !same_data(c->a, e & HOST, c->b, e & HOST, cluster);
    }
}

static void compare_snapshot(void *arg, uint64_t at)
{
    struct compare *c = arg;
    uint64_t l1 = bytes_get(c->a, at, 8), n = bytes_get(c->a, at + 8, 4);

    c->differs |= !same_data(c->a, at, c->b, at, 40);
    for (uint64_t i = 0; i < n && l1 + i * 8 < c->a->len && !c->differs; i++) {
        uint64_t x = bytes_get(c->a, l1 + i * 8, 8) & HOST;
        uint64_t y = bytes_get(c->b, l1 + i * 8, 8) & HOST;

        if (x && !damaged(c->a, l1 + i * 8))
            compare_table(c, x, y);
    }
}

/* ---- the properties ---- */

static void expect_unwritten(struct pic *p, const struct bytes *before, const char *text,
                             unsigned flags)
{
    struct bytes now;

    now.b = pic_bytes(p, &now.len);
    if (now.len != before->len || memcmp(now.b, before->b, (size_t)now.len))
        broken(text, flags, p->found);
    free(now.b);
}

static void repair(const struct bytes *m, unsigned groups, unsigned flags, const struct disk *read,
                   uint64_t corruptions)
{
    struct zqcow2_check_result said;
    struct bytes after;
    struct compare c = {m, &after, false};
    struct disk d;
    struct pic p;
    char found[sizeof(p.found)];

    open_bytes(&p, m);
    if (pic_check(&p, flags) != 0)
        broken(p.err.text, flags, p.found);
    said = p.res;
    memcpy(found, p.found, sizeof(found));
    after.b = pic_bytes(&p, &after.len);
    assert_int_equal(pic_check(&p, 0), 0);
    if (p.res.corruptions > corruptions)
        broken("more corruptions than before", flags, p.found);
    if (p.res.corruptions != said.corruptions - said.corruptions_fixed ||
        p.res.leaked_clusters != said.leaked_clusters - said.leaks_fixed)
        broken("the next check finds other than what was said", flags, p.found);
    read_disk(&d, &p);
    expect_disk(read, &d, flags, found);
    free_disk(&d);
    if (snapshots_whole(m, groups))
        each_snapshot(m, compare_snapshot, &c);
    if (c.differs)
        broken("a snapshot reads otherwise", flags, found);
    assert_int_equal(pic_check(&p, flags), 0);
    expect_unwritten(&p, &after, "a second repair finds something to do", flags);
    free(after.b);
    pic_free(&p);
}

/* True: an image that check takes. */
static bool one(void)
{
    static const unsigned degrees[] = {ZQCOW2_CHECK_REPAIR_LEAKS, ZQCOW2_CHECK_REPAIR,
                                       ZQCOW2_CHECK_REPAIR_ALL};
    uint64_t s = (uint64_t)seed * 0x9e3779b97f4a7c15ull + 1;
    struct bytes m;
    struct fields f;
    struct disk d;
    struct pic p;
    unsigned groups;
    bool taken;

    (void)fields_rng(&s);
    base = fields_rng(&s) % nr_bases;
    m = (struct bytes){malloc(bases[base].len), bases[base].len};
    assert_non_null(m.b);
    memcpy(m.b, bases[base].b, m.len);
    snprintf(what, sizeof(what), "%s: ", names[base]);
    fields_find(&f, &bases[base]);
    groups = damage(&m, &f, &s);
    fields_free(&f);
    open_bytes(&p, &m);
    taken = pic_check(&p, 0) == 0;
    if (getenv("ZQ_VERBOSE"))
        printf("before: %s", p.found);
    expect_unwritten(&p, &m, "check writes", 0);
    read_disk(&d, &p);
    disregard_tables(&d, &m, groups);
    for (int i = 0; i < 3 && taken; i++)
        repair(&m, groups, degrees[i], &d, p.res.corruptions);
    free_disk(&d);
    free(m.b);
    pic_free(&p);
    return taken;
}

static void test_damages(void **state)
{
    const char *first = getenv("ZQ_SEED"), *count = getenv("ZQ_COUNT");
    unsigned long long from = first ? strtoull(first, NULL, 0) : 1, taken = 0;
    unsigned long long n = count ? strtoull(count, NULL, 0) : first ? 1 : 600;

    (void)state;
    for (unsigned long long i = 0; i < n; i++) {
        seed = from + i;
        taken += one();
    }
    printf("damages: %llu of %zu images, %llu of them repaired in three ways\n", n, nr_bases,
           taken);
    if (failures)
        fail_msg("%u promises broken", failures);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_damages, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
