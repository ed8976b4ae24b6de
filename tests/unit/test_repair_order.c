/* SPDX-License-Identifier: MIT */
/*
 * The order of a repair's writes, by what a power cut leaves of them. Every write and every change
 * of the length is recorded; at each cut what was flushed is there, and of every other sector some
 * of its writes, from the first on. In each of these states:
 *
 * * there are no more corruptions than before, and what could be read reads the same;
 * * where the flags of an entry have changed, or it was dropped, no refcount is too low (R13);
 * * where anything has changed and the in-use mark is clear, the repair is done: the state is the
 *   last one;
 * * what no writer could have before is refused until there is no corruption.
 *
 * When the repair returns, all that it wrote is durable.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "unit/faults.h"

#define SECTOR  512u
#define DISK    MiB(1)
#define MAX_OPS 4096u

/* len 0: the length becomes off. */
struct op {
    uint64_t off, len;
    uint8_t *data;
    bool flush;
};

struct store {
    uint8_t *b;
    uint64_t length;
};

/* now: as a reader sees it. */
struct record {
    struct store now;
    uint64_t room;
    struct op op[MAX_OPS];
    unsigned nr;
};

static uint64_t rng;

static unsigned dice(void)
{
    rng = rng * 6364136223846793005ull + 1442695040888963407ull;
    return (unsigned)(rng >> 33) % 100;
}

static void put(struct store *s, uint64_t off, const uint8_t *data, uint64_t len)
{
    memcpy(s->b + off, data, (size_t)len);
    s->length = off + len > s->length ? off + len : s->length;
}

static void set_length(struct store *s, uint64_t length)
{
    if (length < s->length)
        memset(s->b + length, 0, (size_t)(s->length - length));
    s->length = length;
}

/* ---- the backend that records ---- */

static struct op *add_op(struct record *r)
{
    assert_true(r->nr < MAX_OPS);
    return &r->op[r->nr++];
}

static int record_length(void *self, uint64_t *bytes)
{
    *bytes = ((struct record *)self)->now.length;
    return 0;
}

static int record_readv(void *self, const struct iovec *iov, int cnt, uint64_t off)
{
    struct record *r = self;

    for (int i = 0; i < cnt; off += iov[i++].iov_len) {
        assert_true(off + iov[i].iov_len <= r->room);
        memcpy(iov[i].iov_base, r->now.b + off, iov[i].iov_len);
    }
    return 0;
}

static int record_writev(void *self, const struct iovec *iov, int cnt, uint64_t off)
{
    struct record *r = self;

    for (int i = 0; i < cnt; off += iov[i++].iov_len) {
        struct op *op = add_op(r);

        assert_true(off + iov[i].iov_len <= r->room);
        op->off = off;
        op->len = iov[i].iov_len;
        op->data = malloc(op->len + 1);
        assert_non_null(op->data);
        memcpy(op->data, iov[i].iov_base, op->len);
        put(&r->now, off, op->data, op->len);
    }
    return 0;
}

static int record_truncate(void *self, uint64_t bytes)
{
    struct record *r = self;

    assert_true(bytes <= r->room);
    add_op(r)->off = bytes;
    set_length(&r->now, bytes);
    return 0;
}

static int record_flush(void *self)
{
    add_op(self)->flush = true;
    return 0;
}

static const struct zqcow2_backend_ops record_ops = {.size = sizeof(record_ops),
                                                     .name = "record",
                                                     .length = record_length,
                                                     .readv = record_readv,
                                                     .writev = record_writev,
                                                     .flush = record_flush,
                                                     .truncate = record_truncate};

static struct store copy_store(const struct store *s, uint64_t room)
{
    struct store c = {calloc(1, room), s->length};

    assert_non_null(c.b);
    memcpy(c.b, s->b, (size_t)s->length);
    return c;
}

static void run_repair(struct record *r, unsigned flags)
{
    struct zqcow2_check_options o = ZQCOW2_CHECK_OPTIONS_INIT;
    struct zqcow2_check_result res = ZQCOW2_CHECK_RESULT_INIT;
    struct zqcow2_backend *be;

    o.flags = flags;
    assert_int_equal(zqcow2_backend_new(&record_ops, r, NULL, &be), 0);
    assert_int_equal(zqcow2_check(be, &o, &res, NULL), 0);
    zqcow2_backend_close(be);
}

/* ---- what a cut leaves ---- */

/* gone: by sector, and in the last place for the length: later writes of it are lost, too. */
static void apply(struct store *s, const struct op *op, uint8_t *gone, uint64_t room, unsigned lost)
{
    uint8_t *g = gone + room / SECTOR;

    if (!op->len) {
        *g = *g || dice() < lost;
        if (!*g)
            set_length(s, op->off);
        return;
    }
    for (uint64_t at = op->off, n; at < op->off + op->len; at += n) {
        n = SECTOR - at % SECTOR;
        n = n < op->off + op->len - at ? n : op->off + op->len - at;
        g = &gone[at / SECTOR];
        *g = *g || dice() < lost;
        if (!*g)
            put(s, at, op->data + (at - op->off), n);
    }
}

struct test {
    const struct fault *fault;
    uint64_t room, corruptions;
    bool refused; /* no writer may have it */
    struct store was, last;
    uint64_t l1, l1_entries, mark; /* as they were */
    uint8_t disk[DISK];
    bool readable[DISK / SECTOR];
    unsigned states, cut, lost;
};

static uint64_t entry_at(const struct store *s, uint64_t at)
{
    uint64_t v = 0;

    for (int i = 0; i < 8; i++)
        v = v << 8 | s->b[at + (unsigned)i];
    return v;
}

/* Not moved: another flag, or dropped. */
static bool table_changed(const struct test *t, const struct store *s, uint64_t at, uint64_t n)
{
    for (uint64_t i = 0; i < n; i++) {
        uint64_t a = entry_at(&t->was, at + i * 8), b = entry_at(s, at + i * 8);

        if (a != b && (!b || (a & ~PIC_COPIED) == (b & ~PIC_COPIED)))
            return true;
    }
    return false;
}

static bool entries_changed(const struct test *t, const struct store *s)
{
    for (uint64_t i = 0; i < t->l1_entries; i++) {
        uint64_t l2 = entry_at(&t->was, t->l1 + i * 8) & ~PIC_COPIED;

        if (l2 && l2 % 4096 == 0 && l2 != t->l1 && l2 < t->was.length &&
            table_changed(t, s, l2, 512))
            return true;
    }
    return table_changed(t, s, t->l1, t->l1_entries);
}

static void read_disk(struct pic *p, uint8_t *data, bool *ok)
{
    struct zqcow2_open_options o = ZQCOW2_OPEN_OPTIONS_INIT;
    struct zqcow2_image *img;

    memset(ok, 0, DISK / SECTOR * sizeof(*ok));
    o.flags = ZQCOW2_OPEN_BORROW;
    if (zqcow2_open(p->be, &o, &img, NULL) != 0)
        return;
    for (uint64_t at = 0; at < DISK; at += SECTOR)
        ok[at / SECTOR] = zqcow2_read(img, data + at, SECTOR, at) == 0;
    assert_int_equal(zqcow2_close(img), 0);
}

static void wrong(const struct test *t, const char *text, const char *found)
{
    fail_msg("%s, cut behind operation %u, %u of 100 sectors lost: %s: %s", t->fault->name, t->cut,
             t->lost, text, found);
}

static void open_store(struct pic *p, const struct store *s)
{
    memset(p, 0, sizeof(*p));
    assert_int_equal(zqcow2_mem_open(s->length, NULL, &p->be), 0);
    assert_int_equal(zqcow2_backend_write(p->be, s->b, (size_t)s->length, 0), 0);
}

static bool same(const struct store *a, const struct store *b)
{
    return a->length == b->length && !memcmp(a->b, b->b, (size_t)a->length);
}

static void judge(struct test *t, const struct store *s)
{
    static uint8_t disk[DISK];
    static bool readable[DISK / SECTOR];
    struct pic p;

    t->states++;
    if (!s->b[t->mark] && !same(s, &t->was) && !same(s, &t->last))
        wrong(t, "the mark is clear, and the repair is not done", "");
    open_store(&p, s);
    if (pic_check(&p, 0) != 0)
        wrong(t, "no check", p.err.text);
    if (p.res.corruptions > t->corruptions)
        wrong(t, "more corruptions", p.found);
    if (entries_changed(t, s) && strstr(p.found, "too low"))
        wrong(t, "an entry has changed, and a refcount is too low", p.found);
    read_disk(&p, disk, readable);
    for (uint64_t i = 0; i < DISK / SECTOR; i++) {
        if (t->readable[i] &&
            (!readable[i] || memcmp(disk + i * SECTOR, t->disk + i * SECTOR, SECTOR)))
            wrong(t, "reads otherwise", p.found);
    }
    if (t->refused && pic_open(&p, ZQCOW2_OPEN_RDWR) == 0 && pic_check(&p, 0) == 0 &&
        p.res.corruptions)
        wrong(t, "a writer may have it before all is right", p.found);
    zqcow2_backend_close(p.be);
}

/* safe: as of the last flush before the operations from `from` on. */
static void cut_behind(struct test *t, const struct record *r, const struct store *safe,
                       unsigned from)
{
    static const unsigned lost[] = {0, 100, 50, 50, 50, 20, 80};
    uint8_t *gone = malloc(t->room / SECTOR + 1);

    assert_non_null(gone);
    for (unsigned k = 0; k <= sizeof(lost) / sizeof(lost[0]); k++) {
        bool only_last = k == sizeof(lost) / sizeof(lost[0]);
        struct store s = copy_store(safe, t->room);

        memset(gone, 0, t->room / SECTOR + 1);
        t->lost = only_last ? 99 : lost[k];
        for (unsigned i = from; i <= t->cut; i++)
            apply(&s, &r->op[i], gone, t->room, only_last ? (i == t->cut ? 0 : 100) : lost[k]);
        judge(t, &s);
        free(s.b);
    }
    free(gone);
}

static void cut_everywhere(struct test *t, const struct record *r)
{
    struct store safe = copy_store(&t->was, t->room);
    unsigned from = 0;

    for (t->cut = 0; t->cut < r->nr; t->cut++) {
        if (!r->op[t->cut].flush) {
            cut_behind(t, r, &safe, from);
            continue;
        }
        for (; from < t->cut; from++) {
            if (r->op[from].len)
                put(&safe, r->op[from].off, r->op[from].data, r->op[from].len);
            else
                set_length(&safe, r->op[from].off);
        }
        from = t->cut + 1;
    }
    if (from != r->nr)
        wrong(t, "the repair has returned, and this is not durable", "");
    free(safe.b);
}

/* ---- what is repaired ---- */

/* Refcounts to be raised and flags to be set, of other clusters. */
static void low_and_unflagged(struct pic *p)
{
    uint64_t at = pic_l2(p, KiB(320));

    pic_set_refcount(p, pic_map(p, KiB(4), 7), 0);
    pic_put(p, at, 8, pic_get(p, at, 8) & ~PIC_COPIED);
}

/* And an entry to be dropped, of which nothing was counted. */
static void low_and_wrong(struct pic *p)
{
    low_and_unflagged(p);
    pic_put(p, pic_l2(p, KiB(12)), 8, 0x123);
}

static void unflagged_and_leaks(struct pic *p)
{
    pic_snapshot(p);
    pic_put(p, 60, 4, 0);
    pic_alloc(p, 3);
}

static void shared_wrong(struct pic *p)
{
    pic_put(p, pic_l2(p, KiB(12)), 8, 0x123);
    pic_snapshot(p);
    pic_put(p, 60, 4, 0);
}

/* Entries that are dropped, and the clusters that then become free. */
static void mapped_ahead(struct pic *p)
{
    for (uint64_t i = 1; i < 9; i++)
        pic_map(p, KiB(192) + i * 4096, 1);
}

static const struct fault more[] = {
    {"mapped ahead", mapped_ahead, ALL, false},
    {"low and unflagged", low_and_unflagged, REPAIR, true},
    {"low and wrong", low_and_wrong, ALL, true},
    {"unflagged and leaks", unflagged_and_leaks, LEAKS, false},
    {"shared, wrong", shared_wrong, ALL, false},
};

static unsigned one(const struct fault *f)
{
    static struct test t;
    struct record *r = calloc(1, sizeof(*r));
    struct pic p;

    assert_non_null(r);
    t = (struct test){.fault = f};
    fault_image(&p, 4096, 16);
    if (f->make)
        f->make(&p);
    pic_find(&p);
    assert_int_equal(pic_check(&p, 0), 0);
    t.corruptions = p.res.corruptions;
    t.l1 = p.l1;
    t.l1_entries = p.l1_entries;
    t.mark = p.mark;
    read_disk(&p, t.disk, t.readable);
    t.was.b = pic_bytes(&p, &t.was.length);
    t.refused = pic_open(&p, ZQCOW2_OPEN_RDWR) != 0;
    pic_free(&p);
    r->room = t.room = (t.was.length + MiB(2)) / SECTOR * SECTOR;
    r->now = copy_store(&t.was, t.room);
    run_repair(r, f->flags);
    t.last = r->now;
    cut_everywhere(&t, r);
    for (unsigned i = 0; i < r->nr; i++)
        free(r->op[i].data);
    free(t.was.b);
    free(r->now.b);
    free(r);
    return t.states;
}

static void test_order(void **state)
{
    unsigned states = 0, n = sizeof(more) / sizeof(more[0]);

    (void)state;
    for (size_t i = 0; i < nr_faults + n; i++)
        states += one(i < nr_faults ? &faults[i] : &more[i - nr_faults]);
    printf("states that a power cut leaves of a repair: %u\n", states);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_order),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
