/* SPDX-License-Identifier: MIT */
/* Bitmaps: the caller's arguments are checked; ops/bitmap.c does the rest. */
#include <errno.h>
#include <inttypes.h>

#include "base/report.h"
#include "image/image.h"
#include "ops/bitmap.h"

/*
 * Other programs take no longer names. Bytes are not judged: what the user of a bitmap calls it is
 * not ours to say, and the specification allows any.
 */
static int check_name(const char *name, struct zqcow2_error *err)
{
    size_t n = name ? strlen(name) : 0;

    if (!n || n > ZQ_MAX_BITMAP_NAME)
        return zq_fail(err, -EINVAL, "the name of a bitmap has 1 to %u bytes", ZQ_MAX_BITMAP_NAME);
    return 0;
}

/* What is refused for the image, its bitmaps or its header is found when it is the caller's turn.
 */
static int edit(struct zqcow2_image *img, struct zq_bitmap_edit *e)
{
    int rc;

    zq_clear_error(e->s.err);
    rc = check_name(e->name, e->s.err);
    if (rc < 0)
        return rc;
    rc = zq_bitmap_edit_run(&img->core, e);
    return rc < 0 ? zq_fail_rc(e->s.err, rc) : 0;
}

int zqcow2_bitmap_add(struct zqcow2_image *img, const char *name, uint64_t granularity,
                      uint32_t flags, struct zqcow2_error *err)
{
    struct zq_bitmap_edit e = {.kind = ZQ_BITMAP_ADD, .name = name, .s.err = err};
    uint64_t bytes = granularity ? granularity : (uint64_t)1 << ZQ_GRANULARITY_USUAL;
    int rc;

    zq_clear_error(err);
    rc = zq_check_unknown(err, flags, ZQCOW2_BITMAP_ADD_DISABLED, 0);
    if (rc == 0 && (!zq_is_pow2(bytes) || bytes < (uint64_t)1 << ZQ_MIN_GRANULARITY ||
                    bytes > (uint64_t)1 << ZQ_MAX_GRANULARITY))
        rc = zq_fail(err, -EINVAL,
                     "granularity %" PRIu64 ": must be a power of two from 512 to 2^31", bytes);
    if (rc < 0)
        return zq_fail_rc(err, rc);
    e.granularity_bits = zq_log2(bytes);
    e.disabled = flags & ZQCOW2_BITMAP_ADD_DISABLED;
    return edit(img, &e);
}

int zqcow2_bitmap_remove(struct zqcow2_image *img, const char *name, struct zqcow2_error *err)
{
    return edit(img,
                &(struct zq_bitmap_edit){.kind = ZQ_BITMAP_REMOVE, .name = name, .s.err = err});
}

int zqcow2_bitmap_clear(struct zqcow2_image *img, const char *name, struct zqcow2_error *err)
{
    return edit(img, &(struct zq_bitmap_edit){.kind = ZQ_BITMAP_CLEAR, .name = name, .s.err = err});
}

int zqcow2_bitmap_enable(struct zqcow2_image *img, const char *name, struct zqcow2_error *err)
{
    return edit(img,
                &(struct zq_bitmap_edit){.kind = ZQ_BITMAP_ENABLE, .name = name, .s.err = err});
}

int zqcow2_bitmap_disable(struct zqcow2_image *img, const char *name, struct zqcow2_error *err)
{
    return edit(img,
                &(struct zq_bitmap_edit){.kind = ZQ_BITMAP_DISABLE, .name = name, .s.err = err});
}

/* What the file calls automatic is enabled for the caller; one that is lost may be either. */
static void show(const struct zq_bitmap_list *l, const struct zq_bitmap_facts *f,
                 zqcow2_bitmap_fn *each, void *arg)
{
    const struct zqcow2_bitmap out = {
        .size = sizeof(out),
        .name = l->names + f->name,
        .granularity = (uint64_t)1 << f->r.granularity_bits,
        .dirty_bytes = f->dirty,
        .flags = (f->r.flags & ZQ_BITMAP_AUTO ? ZQCOW2_BITMAP_ENABLED : 0u) |
                 (f->lost ? ZQCOW2_BITMAP_INCONSISTENT : 0u),
    };

    each(arg, &out);
}

/* The callbacks come when all is read, and hold nothing of the image. */
int zqcow2_bitmap_list(struct zqcow2_image *img, zqcow2_bitmap_fn *each, void *arg,
                       struct zqcow2_error *err)
{
    struct zq_bitmap_list l = {.err = err};
    int rc;

    zq_clear_error(err);
    rc = zq_bitmap_list_run(&img->core, &l);
    for (uint32_t i = 0; rc == 0 && i < l.nr; i++)
        show(&l, &l.v[i], each, arg);
    zq_bitmap_list_free(&img->core, &l);
    return rc < 0 ? zq_fail_rc(err, rc) : 0;
}

/* *nr is 0 after an error, so a caller that does not look at it reads no range. */
int zqcow2_bitmap_ranges(struct zqcow2_image *img, const char *name, uint64_t offset,
                         struct zqcow2_dirty_range *ranges, uint32_t *nr, struct zqcow2_error *err)
{
    struct zq_bitmap_look l = {.err = err, .name = name, .from = offset, .out = ranges, .max = *nr};
    int rc;

    zq_clear_error(err);
    *nr = 0;
    rc = check_name(name, err);
    if (rc == 0)
        rc = zq_bitmap_look_run(&img->core, &l);
    if (rc == 0)
        *nr = l.nr;
    return rc < 0 ? zq_fail_rc(err, rc) : 0;
}
