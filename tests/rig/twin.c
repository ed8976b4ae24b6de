/* SPDX-License-Identifier: MIT */
/* Two simulated disks, an image on one and its data file on the other. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "rig/twin.h"

/* A backend on one of the disks, which notes each change. */
struct half {
    struct world *w;
    struct zqcow2_backend *be;
    unsigned file;
};

static void note(struct world *w)
{
    if (!w->keeps)
        return;
    if (w->nr == w->room) {
        w->room = w->room ? 2 * w->room : 256;
        w->log = realloc(w->log, w->room * sizeof(*w->log));
        assert_non_null(w->log);
    }
    for (unsigned i = 0; i < FILES; i++)
        w->log[w->nr].at[i] = zqcow2_simdisk_position(w->disk[i]);
    w->nr++;
}

static int half_length(void *self, uint64_t *bytes)
{
    return zqcow2_backend_length(((struct half *)self)->be, bytes);
}

static int half_readv(void *self, const struct iovec *iov, int n, uint64_t off)
{
    struct half *h = self;

    if (h->w->reading)
        h->w->reading(h->w->arg, h->file);
    return zqcow2_backend_readv(h->be, iov, n, off);
}

static int half_writev(void *self, const struct iovec *iov, int n, uint64_t off)
{
    note(((struct half *)self)->w);
    return zqcow2_backend_writev(((struct half *)self)->be, iov, n, off);
}

static int half_flush(void *self)
{
    struct half *h = self;

    note(h->w);
    h->w->flushes[h->file]++;
    if (h->w->flushing)
        h->w->flushing(h->w->arg, h->file);
    return zqcow2_backend_flush(h->be);
}

static int half_limits(void *self, struct zqcow2_limits *out)
{
    out->io_align = ((struct half *)self)->w->io_align;
    return 0;
}

static int half_truncate(void *self, uint64_t bytes)
{
    note(((struct half *)self)->w);
    return zqcow2_backend_truncate(((struct half *)self)->be, bytes);
}

static int half_zero(void *self, uint64_t off, uint64_t len)
{
    note(((struct half *)self)->w);
    return zqcow2_backend_zero(((struct half *)self)->be, off, len);
}

static int half_discard(void *self, uint64_t off, uint64_t len)
{
    struct half *h = self;

    note(h->w);
    if (h->w->discarding)
        h->w->discarding(h->w->arg, h->file);
    return zqcow2_backend_discard(h->be, off, len);
}

static void half_close(void *self)
{
    struct half *h = self;

    note(h->w);
    zqcow2_backend_release(h->be);
    zqcow2_backend_close(h->be);
    free(h);
}

struct zqcow2_backend *half_of(struct world *w, unsigned file)
{
    static const struct zqcow2_backend_ops ops = {.size = sizeof(ops),
                                                  .length = half_length,
                                                  .readv = half_readv,
                                                  .writev = half_writev,
                                                  .flush = half_flush,
                                                  .limits = half_limits,
                                                  .truncate = half_truncate,
                                                  .zero = half_zero,
                                                  .discard = half_discard,
                                                  .close = half_close};
    struct half *h = malloc(sizeof(*h));
    struct zqcow2_backend *out;

    assert_non_null(h);
    h->w = w;
    h->file = file;
    assert_int_equal(zqcow2_simdisk_backend(w->disk[file], &h->be), 0);
    assert_int_equal(zqcow2_backend_claim(h->be), 0);
    assert_int_equal(zqcow2_backend_new(&ops, h, NULL, &out), 0);
    return out;
}

int twin_resolve(void *arg, const char *name, const char *format, uint32_t depth,
                 struct zqcow2_backend **be, struct zqcow2_error *err)
{
    struct world *w = arg;

    (void)err;
    assert_string_equal(name, w->name ? w->name : NAME);
    assert_string_equal(format, "raw");
    w->asked = depth;
    if (w->answer)
        return w->answer;
    *be = half_of(w, DATA);
    return 0;
}

void world_begin(struct world *w, uint64_t seed)
{
    struct zqcow2_simdisk_options opt = ZQCOW2_SIMDISK_OPTIONS_INIT;

    memset(w, 0, sizeof(*w));
    opt.seed = seed;
    opt.discard = ZQCOW2_SIMDISK_DISCARD_SCRAMBLES;
    opt.flags = seed % 2 ? ZQCOW2_SIMDISK_NO_ZERO : 0;
    for (unsigned i = 0; i < FILES; i++)
        assert_int_equal(zqcow2_simdisk_new(&opt, &w->disk[i]), 0);
}

void world_end(struct world *w)
{
    for (unsigned i = 0; i < FILES; i++)
        zqcow2_simdisk_free(w->disk[i]);
    free(w->log);
}

/* ---- images in it ---- */

int create(struct world *w, const struct kind *k, uint32_t flags)
{
    struct zqcow2_create_options opt = ZQCOW2_CREATE_OPTIONS_INIT;
    struct zqcow2_backend *be = half_of(w, IMAGE);
    int rc;

    opt.virtual_size = k->size;
    opt.cluster_size = k->cluster;
    opt.zone_size = k->zone;
    opt.conventional_zones = k->zone != 0;
    opt.flags = k->flags | flags;
    opt.data_file = NAME;
    opt.resolve = twin_resolve;
    opt.resolve_arg = w;
    rc = zqcow2_create(be, &opt, &w->err);
    zqcow2_backend_close(be);
    return rc;
}

int open_it(struct world *w, uint32_t flags, struct zqcow2_image **img)
{
    struct zqcow2_open_options opt = ZQCOW2_OPEN_OPTIONS_INIT;
    struct zqcow2_backend *be = half_of(w, IMAGE);
    int rc;

    opt.flags = flags;
    opt.extent_bytes = KiB(16);
    opt.resolve = twin_resolve;
    opt.resolve_arg = w;
    rc = zqcow2_open(be, &opt, img, &w->err);
    if (rc < 0)
        zqcow2_backend_close(be);
    return rc;
}

struct zqcow2_image *must_open(struct world *w, uint32_t flags)
{
    struct zqcow2_image *img = NULL;

    if (open_it(w, flags, &img))
        fail_msg("open: %s", w->err.text);
    return img;
}

/* Nothing wrong, and no leaks. */
void must_check(struct world *w, bool leaks)
{
    struct zqcow2_check_result res = ZQCOW2_CHECK_RESULT_INIT;
    struct zqcow2_backend *be = half_of(w, IMAGE);

    assert_int_equal(zqcow2_check(be, NULL, &res, &w->err), 0);
    assert_int_equal(res.corruptions, 0);
    assert_true(leaks || !res.leaked_clusters);
    zqcow2_backend_close(be);
}
