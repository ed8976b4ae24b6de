/* SPDX-License-Identifier: MIT */
/*
 * Compresses FULL zones, a cluster at a time, in the thread that calls.
 *
 * A cluster is an operation of its own: in between anybody else gets the zone, and whether it is
 * still FULL is asked each time. Nothing is remembered from one cluster to the next, so the call
 * may stop anywhere, and several of them may meet in one zone.
 */
#include <errno.h>
#include <zqcow2/change.h>

#include "base/report.h"
#include "image/image.h"
#include "ops/compact.h"
#include "ops/truncate.h"

#define ZLIB_LEVELS 9u
#define ZSTD_LEVELS 22u

struct compact {
    struct zq_core *core;
    struct zqcow2_compact_options opt;
    struct zqcow2_compact_result res;
    struct zqcow2_error *err;
    uint64_t end, mask; /* of the bits within a zone */
    struct zq_compacting one;
};

/* In front of each cluster: an owner that wants to stop waits for one. */
static int report(struct compact *p)
{
    uint64_t done = p->one.guest - p->opt.offset;

    return p->opt.progress && p->opt.progress(p->opt.progress_arg, done, p->end - p->opt.offset) ?
               -ECANCELED :
               0;
}

/* Tried: it had data of its own. Only of what became smaller the bytes are counted. */
static void add(struct compact *p)
{
    uint64_t size = (uint64_t)1 << p->core->cluster_bits;

    p->res.clusters += p->one.data;
    if (!p->one.bytes)
        return;
    p->res.compressed++;
    p->res.old_bytes += size;
    p->res.new_bytes += p->one.bytes;
}

/*
 * Each zone ends with a flush: it lowers the refcounts of what is replaced, so that the next zone
 * finds room in its place and the file need not become longer.
 */
static int compact_zones(struct compact *p, struct zqcow2_image *img)
{
    uint64_t zone = p->mask + 1, flushed = p->res.compressed;
    int rc = 0;

    while (rc == 0 && p->one.guest < p->end) {
        rc = report(p);
        if (rc == 0)
            rc = zq_compact_run(p->core, &p->one);
        if (rc < 0)
            break;
        add(p);
        p->one.guest = p->one.next;
        if (p->res.compressed > flushed && (p->one.guest % zone == 0 || p->one.guest >= p->end)) {
            rc = zqcow2_flush(img);
            flushed = p->res.compressed;
        }
    }
    return rc;
}

/* ---- the call ---- */

/*
 * Conventional zones in the range are passed over: they come first. The size is that of this
 * moment: a resize may change it before the next cluster.
 */
static int check_range(struct compact *p)
{
    uint64_t at = p->opt.offset, len = p->opt.length, size, mask;

    size = p->core->size;
    mask = p->mask = p->core->zones.g.zone_size - 1;
    if (at & mask || at > size || len > size - at || (len & mask && at + len != size))
        return zq_fail(p->err, -EINVAL, "offset, length: must be whole zones");
    p->end = len ? at + len : size;
    p->one.guest = zq_max(at, p->core->seq_start);
    p->opt.offset = zq_min(p->one.guest, p->end);
    return 0;
}

/* Under the mutex. */
static int judge(struct compact *p)
{
    const struct zq_core *c = p->core;
    uint32_t most = c->hdr.compression_type ? ZSTD_LEVELS : ZLIB_LEVELS;

    if (c->activity != ZQ_ACTIVE)
        return ZQCOW2_EINACTIVE;
    if (!c->writable)
        return -EROFS;
    if (!c->zoned)
        return zq_fail(p->err, ZQCOW2_ENOTZONED,
                       "only images with zones are compacted: convert a plain image");
    if (c->hdr.incompat & ZQ_INCOMPAT_DATA_FILE)
        return zq_fail(p->err, -EOPNOTSUPP, "a data file has no compressed clusters");
    if (p->opt.level > most)
        return zq_fail(p->err, -EINVAL, "level: must be 1 to %u", most);
    p->one.level = (int)p->opt.level;
    return check_range(p);
}

static int check(struct compact *p)
{
    int rc;

    zq_core_lock(p->core);
    rc = judge(p);
    zq_core_unlock(p->core);
    return rc;
}

/* NULL: all zones, by the default level. */
static int take_options(struct compact *p, const struct zqcow2_compact_options *opt)
{
    int rc = opt ? zq_copy_sized(&p->opt, sizeof(p->opt), opt, sizeof(p->opt)) : 0;

    if (rc == 0)
        rc = zq_check_unknown(p->err, 0, 0, p->opt.reserved);
    return rc;
}

/* One buffer does for all clusters of a call. */
static int run(struct compact *p, struct zqcow2_image *img)
{
    size_t size = (size_t)1 << p->core->cluster_bits;
    int rc;

    p->one.buf = zq_alloc(&p->core->hooks, 4096, size);
    rc = p->one.buf ? compact_zones(p, img) : -ENOMEM;
    if (p->res.compressed)
        zq_truncate_run(p->core);
    zq_free(&p->core->hooks, p->one.buf, size);
    return rc;
}

int zqcow2_compact(struct zqcow2_image *img, const struct zqcow2_compact_options *opt,
                   struct zqcow2_compact_result *result, struct zqcow2_error *err)
{
    struct compact p = {.core = &img->core,
                        .opt = ZQCOW2_COMPACT_OPTIONS_INIT,
                        .res = ZQCOW2_COMPACT_RESULT_INIT,
                        .err = err};
    int rc, returned;

    zq_clear_error(err);
    rc = take_options(&p, opt);
    if (rc == 0)
        rc = check(&p);
    if (rc == 0)
        rc = run(&p, img);
    returned = result ? zq_return_sized(result, &p.res, sizeof(p.res), sizeof(p.res)) : 0;
    if (rc == 0)
        rc = returned;
    return rc < 0 ? zq_fail_rc(err, rc) : 0;
}
