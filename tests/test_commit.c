/* SPDX-License-Identifier: MIT */
/*
 * Images that are committed into their backing files. What they read as is compared with a model of
 * plain bytes: when all goes well, when it is stopped or a disk fails, and in what a power loss
 * leaves of both files at every instant of it. Then the commit is begun again.
 *
 * ZQ_SEED: one world
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "rig/commits.h"

#define WRITES 8u

/* ---- making the files ---- */

/* Some bytes of one value: two layers have bytes in common. */
static void write_some(struct commits *c, unsigned which)
{
    struct layer *l = &c->layer[which];
    struct zqcow2_image *img =
        strcmp(l->format, "raw") ? commits_open(c, which, ZQCOW2_OPEN_RDWR) : NULL;
    struct zqcow2_backend *be = img ? NULL : commits_backend(c, which);

    for (unsigned i = 0; i < WRITES; i++) {
        uint64_t off = commits_draw(c, l->size / 512) * 512, len = (1 + commits_draw(c, 60)) * 512;
        int rc;

        len = len < l->size - off ? len : l->size - off;
        memset(commits_data, (int)commits_draw(c, 4), len);
        memcpy(l->want + off, commits_data, len);
        rc = !img             ? zqcow2_backend_write(be, commits_data, len, off) :
             !commits_data[0] ? zqcow2_write_zeroes(img, len, off, 0) :
                                zqcow2_write(img, commits_data, len, off, 0);
        commits_must(c, rc == 0, "write", rc);
    }
    if (img) {
        commits_must(c, zqcow2_close(img) == 0, "close", 0);
        return;
    }
    commits_must(c, zqcow2_backend_flush(be) == 0, "flush", 0);
    zqcow2_backend_close(be);
}

/* Lies on `below`, if that is a layer. */
static void make_qcow2(struct commits *c, unsigned which, unsigned below)
{
    static const uint32_t clusters[] = {512, 4096, 65536, 16384};
    struct zqcow2_create_options o = ZQCOW2_CREATE_OPTIONS_INIT;
    struct zqcow2_backend *be = commits_backend(c, which);
    struct layer *l = &c->layer[which], *b = &c->layer[below];
    char name[2] = {(char)('0' + below), '\0'};
    int rc;

    l->format = "qcow2";
    o.virtual_size = l->size;
    o.cluster_size = clusters[commits_draw(c, 4)];
    o.flags = o.cluster_size == 16384 ? ZQCOW2_CREATE_EXTENDED_L2 : 0;
    o.flags |= commits_draw(c, 4) ? 0 : ZQCOW2_CREATE_LAZY_REFCOUNTS;
    if (below < LAYERS) {
        o.backing_name = name;
        o.backing_format = b->format;
        memcpy(l->want, b->want, b->size < l->size ? b->size : l->size);
    }
    rc = zqcow2_create(be, &o, NULL);
    zqcow2_backend_close(be);
    commits_must(c, rc == 0, "create", rc);
    write_some(c, which);
}

static void make_raw(struct commits *c, unsigned which)
{
    struct zqcow2_backend *be = commits_backend(c, which);

    c->layer[which].format = "raw";
    commits_must(c, zqcow2_backend_truncate(be, c->layer[which].size) == 0, "raw", 0);
    zqcow2_backend_close(be);
    write_some(c, which);
}

static void make(struct commits *c)
{
    for (unsigned i = 0; i < LAYERS; i++)
        c->layer[i].size = (1 + commits_draw(c, ROOM / 512)) * 512;
    make_raw(c, LOW);
    if (commits_draw(c, 3)) {
        make_qcow2(c, BASE, commits_draw(c, 3) ? LOW : LAYERS);
    } else {
        make_raw(c, BASE);
    }
    make_qcow2(c, TOP, BASE);
}

/* ---- judging ---- */

static void top_reads_as_before(struct commits *c)
{
    struct zqcow2_image *img = commits_open(c, TOP, 0);

    commits_must(c, zqcow2_read(img, commits_data, c->layer[TOP].size, 0) == 0, "read", 0);
    commits_compare(c, "byte", c->layer[TOP].want, c->layer[TOP].size);
    commits_must(c, zqcow2_close(img) == 0, "close", 0);
}

/* As the top does, and behind its end as before; one that was shorter has grown. */
static void base_reads_as_top(struct commits *c)
{
    struct layer *base = &c->layer[BASE], *top = &c->layer[TOP];
    struct zqcow2_info info = ZQCOW2_INFO_INIT;

    memcpy(base->want, top->want, top->size);
    base->size = base->size < top->size ? top->size : base->size;
    if (strcmp(base->format, "raw")) {
        struct zqcow2_image *img = commits_open(c, BASE, 0);

        commits_must(c, zqcow2_read(img, commits_data, base->size, 0) == 0, "read", 0);
        zqcow2_get_info(img, &info);
        commits_must(c, info.virtual_size == base->size, "size", (long)info.virtual_size);
        commits_must(c, zqcow2_close(img) == 0, "close", 0);
    } else {
        uint64_t bytes = zqcow2_simdisk_length(c->w.disk[BASE]);

        commits_must(c, bytes == base->size, "length", (long)bytes);
        commits_must(c, zqcow2_simdisk_export(c->w.disk[BASE], commits_data, base->size, 0) == 0,
                     "export", 0);
    }
    commits_compare(c, "byte of the base", base->want, base->size);
}

static const struct commits_kind plain = {"test_commit", make, top_reads_as_before,
                                          base_reads_as_top};
static struct commits world;

/* ---- tests ---- */

/* Written and committed in turn; once what was committed is kept as well. */
static void the_base_reads_as_the_image_did(void **state)
{
    struct commits *c = &world;
    unsigned done = 0;

    (void)state;
    for (uint64_t seed = 1; seed <= 150; seed++) {
        if (!commits_wanted(seed))
            continue;
        commits_begin(c, &plain, seed);
        for (unsigned i = 0; i < 3; i++, done++) {
            snprintf(c->where, sizeof(c->where), "commit %u", i);
            c->flags = i == 1 ? ZQCOW2_COMMIT_KEEP : 0;
            commits_must(c, commits_run(c, NULL) == 0, "commit", i);
            top_reads_as_before(c);
            base_reads_as_top(c);
            commits_must(c, commits_top_is_empty(c) == !c->flags, "empty", i);
            commits_must(c, c->flags || zqcow2_simdisk_length(c->w.disk[TOP]) <= 6u * 65536,
                         "bytes", (long)zqcow2_simdisk_length(c->w.disk[TOP]));
            commits_check(c, TOP, true);
            write_some(c, TOP);
        }
        commits_end(c);
    }
    printf("commit: %u, none reads otherwise\n", done);
}

static void one_that_is_stopped_changes_nothing_that_is_read(void **state)
{
    unsigned stopped = 0;

    (void)state;
    for (uint64_t seed = 1; seed <= 12; seed++)
        stopped += commits_wanted(seed) ? commits_stopped(&world, &plain, seed) : 0;
    printf("commit: stopped %u times\n", stopped);
}

static void a_disk_that_fails_leaves_what_is_read(void **state)
{
    unsigned failed = 0;

    (void)state;
    for (uint64_t seed = 1; seed <= 6; seed++)
        failed += commits_wanted(seed) ? commits_failed(&world, &plain, seed) : 0;
    printf("commit: failed %u times\n", failed);
}

static void every_instant(void **state)
{
    unsigned judged = 0;

    (void)state;
    for (uint64_t seed = 1; seed <= 16; seed++)
        judged += commits_wanted(seed) ? commits_cut(&world, &plain, seed) : 0;
    printf("commit: %u states of two files, 0 violations\n", judged);
}

/* Before anything is opened: a file further down needs its format, and the image its data. */
static void a_name_without_its_conditions_is_refused(void **state)
{
    static char long_name[1025];
    struct zqcow2_commit_options opt = ZQCOW2_COMMIT_OPTIONS_INIT;

    (void)state;
    memset(long_name, 'a', sizeof(long_name) - 1);
    opt.backing_name = "base";
    opt.backing_format = "raw";
    assert_int_equal(zqcow2_commit(NULL, &opt, NULL), -EINVAL);
    opt.flags = ZQCOW2_COMMIT_KEEP;
    opt.backing_format = NULL;
    assert_int_equal(zqcow2_commit(NULL, &opt, NULL), -EINVAL);
    opt.backing_format = "a name of no format";
    assert_int_equal(zqcow2_commit(NULL, &opt, NULL), -EINVAL);
    opt.backing_format = "raw";
    opt.backing_name = "";
    assert_int_equal(zqcow2_commit(NULL, &opt, NULL), -EINVAL);
    opt.backing_name = long_name;
    assert_int_equal(zqcow2_commit(NULL, &opt, NULL), -EINVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_base_reads_as_the_image_did),
        cmocka_unit_test(one_that_is_stopped_changes_nothing_that_is_read),
        cmocka_unit_test(a_disk_that_fails_leaves_what_is_read),
        cmocka_unit_test(every_instant),
        cmocka_unit_test(a_name_without_its_conditions_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
