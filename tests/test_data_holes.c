/* SPDX-License-Identifier: MIT */
/* What is unmapped becomes a hole of the data file, when that is durable and nobody is at it. */
#include <pthread.h>
#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <cmocka.h>
#include <zqcow2/chain.h>
#include "rig/rig.h"
#include "rig/twin.h"

static const struct kind kinds[] = {
    {"4 KiB", 4096, 0, MiB(1) + 1536, 0},
    {"subclusters", 16384, ZQCOW2_CREATE_EXTENDED_L2, MiB(1) + 1024, 0},
    {"zones", 4096, 0, KiB(512), KiB(64)},
};
#define NR_KINDS (sizeof(kinds) / sizeof(kinds[0]))

static uint8_t got[MiB(1)];

/* Is [off, off + len) of the data file as it was written, by bytes of this value? */
static bool file_holds(struct world *w, uint64_t off, uint64_t len, uint8_t value)
{
    assert_int_equal(zqcow2_simdisk_export(w->disk[DATA], got, len, off), 0);
    for (uint64_t i = 0; i < len; i++) {
        if (got[i] != value)
            return false;
    }
    return true;
}

static void put_bytes(struct zqcow2_image *img, uint64_t off, uint64_t len, uint8_t value)
{
    memset(got, value, len);
    assert_int_equal(zqcow2_write(img, got, len, off, 0), 0);
}

/* Of a kind, its first 8 clusters are written with 5 and flushed. */
static struct zqcow2_image *begin_holes(struct world *w, const struct kind *k)
{
    struct zqcow2_image *img;

    world_begin(w, 2);
    assert_int_equal(create(w, k, 0), 0);
    img = must_open(w, ZQCOW2_OPEN_RDWR);
    put_bytes(img, 0, 8 * k->cluster, 5);
    assert_int_equal(zqcow2_flush(img), 0);
    return img;
}

/* What is discarded, or becomes zeros, is a hole once that is durable, and not before. */
static void unmapped_clusters_become_holes(void **state)
{
    (void)state;
    for (unsigned i = 0; i < NR_KINDS; i++) {
        const struct kind *k = &kinds[i];
        uint64_t c = k->cluster;
        struct world w;
        struct zqcow2_image *img = begin_holes(&w, k);

        assert_int_equal(zqcow2_discard(img, 2 * c, 2 * c, 0), 0);
        assert_int_equal(zqcow2_write_zeroes(img, c, 6 * c, 0), 0);
        assert_int_equal(zqcow2_discard(img, 512, 7 * c, 0), 0);
        assert_true(file_holds(&w, 0, 8 * c, 5));
        assert_int_equal(zqcow2_flush(img), 0);
        assert_int_equal(zqcow2_drain(img), 0);
        for (unsigned n = 0; n < 8; n++) {
            if (file_holds(&w, n * c, c, 5) != (n != 2 && n != 3 && n != 6))
                fail_msg("%s: cluster %u is %s", k->name, n, n == 2 ? "there" : "wrong");
        }
        assert_int_equal(zqcow2_close(img), 0);
        must_check(&w, false);
        world_end(&w);
    }
}

/* A write comes before the hole is made: then there is none. */
static void written_again_is_no_hole(void **state)
{
    const struct kind *k = &kinds[0];
    uint64_t c = k->cluster;
    struct zqcow2_image *img;
    struct world w;

    (void)state;
    img = begin_holes(&w, k);
    assert_int_equal(zqcow2_discard(img, 3 * c, 2 * c, 0), 0);
    put_bytes(img, 3 * c, c, 6);
    assert_int_equal(zqcow2_flush(img), 0);
    assert_int_equal(zqcow2_drain(img), 0);
    assert_false(file_holds(&w, 2 * c, c, 5));
    assert_true(file_holds(&w, 3 * c, c, 6));
    assert_false(file_holds(&w, 4 * c, c, 5));
    assert_int_equal(zqcow2_close(img), 0);
    world_end(&w);
}

/* A reader that can be held back inside its read of the data file. */
struct reader {
    pthread_t thread;
    sem_t inside, go_on;
    struct zqcow2_image *img;
    uint64_t at;
    uint8_t data[512];
};

static void *read_start(void *arg)
{
    struct reader *r = arg;

    return zqcow2_read(r->img, r->data, sizeof(r->data), r->at) ? r : NULL;
}

static void hold_back(void *arg, unsigned file)
{
    struct reader *r = arg;

    if (file != DATA || !pthread_equal(pthread_self(), r->thread))
        return;
    sem_post(&r->inside);
    sem_wait(&r->go_on);
}

/*
 * A reader of the place keeps the first discard from becoming a hole. Meanwhile the place is
 * written, durably, and discarded again, which is not durable: a hole would take from a crash what
 * was flushed.
 */
static void the_last_discard_counts(void **state)
{
    const struct kind *k = &kinds[0];
    uint64_t c = k->cluster;
    struct reader r = {.at = c};
    void *failed;
    struct world w;

    (void)state;
    rig_watch(60, "the_last_discard_counts");
    r.img = begin_holes(&w, k);
    sem_init(&r.inside, 0, 0);
    sem_init(&r.go_on, 0, 0);
    w.reading = hold_back;
    w.arg = &r;
    assert_int_equal(pthread_create(&r.thread, NULL, read_start, &r), 0);
    sem_wait(&r.inside);
    assert_int_equal(zqcow2_discard(r.img, c, 2 * c, 0), 0);
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(zqcow2_flush(r.img), 0);
    assert_true(file_holds(&w, c, 2 * c, 5));
    put_bytes(r.img, 2 * c, c, 6);
    assert_int_equal(zqcow2_flush(r.img), 0);
    assert_int_equal(zqcow2_discard(r.img, c, 2 * c, 0), 0);
    sem_post(&r.go_on);
    pthread_join(r.thread, &failed);
    assert_null(failed);
    assert_int_equal(r.data[0], 5); /* what was there when it began */
    assert_true(file_holds(&w, 2 * c, c, 6));
    assert_int_equal(zqcow2_flush(r.img), 0);
    assert_int_equal(zqcow2_drain(r.img), 0);
    assert_false(file_holds(&w, 2 * c, c, 6));
    assert_int_equal(zqcow2_close(r.img), 0);
    must_check(&w, false);
    world_end(&w);
    rig_watch(0, "over");
}

/* ---- a writer ---- */

struct writer {
    pthread_t thread;
    struct zqcow2_image *img;
    uint64_t at, len;
    bool begun;
};

static void *write_start(void *arg)
{
    static uint8_t data[4096];
    struct writer *r = arg;

    memset(data, 8, sizeof(data));
    return zqcow2_write(r->img, data, r->len, r->at, 0) ? r : NULL;
}

/* Time enough for a write that does not wait. */
static void write_beside(void *arg, unsigned file)
{
    struct writer *r = arg;

    if (file != DATA || r->begun)
        return;
    r->begun = !pthread_create(&r->thread, NULL, write_start, r);
    nanosleep(&(struct timespec){0, 50000000}, NULL);
}

/* A write that maps the place while the hole is made waits for it (R14). */
static void writes_wait_for_the_hole(void **state)
{
    const struct kind *k = &kinds[0];
    uint64_t c = k->cluster;
    struct writer r = {.at = 4 * c, .len = c};
    void *failed;
    struct world w;

    (void)state;
    rig_watch(60, "writes_wait_for_the_hole");
    r.img = begin_holes(&w, k);
    w.discarding = write_beside;
    w.arg = &r;
    assert_int_equal(zqcow2_discard(r.img, 2 * c, 4 * c, 0), 0);
    assert_int_equal(zqcow2_flush(r.img), 0);
    assert_int_equal(zqcow2_drain(r.img), 0);
    assert_true(r.begun);
    pthread_join(r.thread, &failed);
    assert_null(failed);
    assert_true(file_holds(&w, r.at, c, 8));
    assert_int_equal(zqcow2_close(r.img), 0);
    must_check(&w, false);
    world_end(&w);
    rig_watch(0, "over");
}

/* ---- an image with a data file that is committed ---- */

struct layered {
    struct world w;
    struct zqcow2_simdisk *below;
};

static int resolve_both(void *arg, const char *name, const char *format, uint32_t depth,
                        struct zqcow2_backend **be, struct zqcow2_error *err)
{
    struct layered *l = arg;

    if (!strcmp(name, "below"))
        return zqcow2_simdisk_backend(l->below, be);
    return twin_resolve(&l->w, name, format, depth, be, err);
}

/* What begin_holes() makes, above a raw file of zeros. */
static void begin_layered(struct layered *l, const struct kind *k)
{
    struct zqcow2_rebase_options o = ZQCOW2_REBASE_OPTIONS_INIT;
    struct zqcow2_simdisk_options d = ZQCOW2_SIMDISK_OPTIONS_INIT;
    struct zqcow2_backend *be;

    assert_int_equal(zqcow2_close(begin_holes(&l->w, k)), 0);
    d.length = k->size;
    assert_int_equal(zqcow2_simdisk_new(&d, &l->below), 0);
    o.flags = ZQCOW2_REBASE_NAME_ONLY;
    o.backing_name = "below";
    o.backing_format = "raw";
    o.resolve = resolve_both;
    o.resolve_arg = l;
    be = half_of(&l->w, IMAGE);
    assert_int_equal(zqcow2_rebase(be, &o, NULL), 0);
    zqcow2_backend_close(be);
}

static void must_commit(struct layered *l, uint32_t flags)
{
    struct zqcow2_commit_options o = ZQCOW2_COMMIT_OPTIONS_INIT;
    struct zqcow2_backend *be = half_of(&l->w, IMAGE);

    o.flags = flags;
    o.resolve = resolve_both;
    o.resolve_arg = l;
    assert_int_equal(zqcow2_commit(be, &o, NULL), 0);
    zqcow2_backend_close(be);
}

static void emptied_images_give_all_back(void **state)
{
    (void)state;
    for (unsigned i = 0; i < NR_KINDS; i++) {
        const struct kind *k = &kinds[i];
        uint64_t c = k->cluster;
        struct layered l;

        if (k->zone)
            continue; /* they cannot stand on a raw file */
        begin_layered(&l, k);
        must_commit(&l, ZQCOW2_COMMIT_KEEP);
        assert_true(file_holds(&l.w, 0, 8 * c, 5));
        must_commit(&l, 0);
        assert_int_equal(l.w.asked, ZQCOW2_RESOLVE_DATA_FILE | ZQCOW2_RESOLVE_WRITE);
        for (unsigned n = 0; n < 8; n++)
            assert_false(file_holds(&l.w, n * c, c, 5));
        assert_int_equal(zqcow2_simdisk_export(l.below, got, 8 * c, 0), 0);
        for (uint64_t at = 0; at < 8 * c; at++)
            assert_int_equal(got[at], 5);
        must_check(&l.w, false);
        zqcow2_simdisk_free(l.below);
        world_end(&l.w);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(unmapped_clusters_become_holes),
        cmocka_unit_test(written_again_is_no_hole),
        cmocka_unit_test(the_last_discard_counts),
        cmocka_unit_test(writes_wait_for_the_hole),
        cmocka_unit_test(emptied_images_give_all_back),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
