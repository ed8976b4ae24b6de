/* SPDX-License-Identifier: MIT */
/*
 * A repair is rounds of scan and repair until a scan finds nothing more that can be repaired: each
 * scan starts from the file alone, so no round relies on what an earlier one remembered. The first
 * scan reports what was wrong, later ones only what was repaired.
 */
#include "check/check.h"

#include "base/bytes.h"
#include "base/report.h"
#include "check/repair.h"

#define MAX_PASSES 12 /* each repairs what the one before uncovered; three are the usual number */

/* A repair includes what lesser ones do. */
static unsigned repair_flags(unsigned flags)
{
    if (flags & ZQCOW2_CHECK_REPAIR_ALL)
        flags |= ZQCOW2_CHECK_REPAIR;
    if (flags & ZQCOW2_CHECK_REPAIR)
        flags |= ZQCOW2_CHECK_REPAIR_LEAKS;
    return flags & ~(unsigned)ZQCOW2_CHECK_NOLOCK;
}

/* What was found and not repaired is what the next check finds, even if found on the way. */
static void add_fixed(struct zqcow2_check_result *res, const struct zqcow2_check_result *now)
{
    res->corruptions = zq_max(res->corruptions, now->corruptions);
    res->leaked_clusters = zq_max(res->leaked_clusters, now->leaked_clusters);
    res->corruptions_fixed = res->corruptions - now->corruptions;
    res->leaks_fixed = res->leaked_clusters - now->leaked_clusters;
    res->allocated_clusters = now->allocated_clusters;
    res->compressed_clusters = now->compressed_clusters;
    res->fragmented_clusters = now->fragmented_clusters;
    res->image_end_offset = now->image_end_offset;
}

/*
 * s holds a finished examination when it comes in and when it goes out. A pass that changes
 * something is followed by a scan from scratch; one that changes nothing ends the repair.
 * MAX_PASSES bounds the work on an image that was made to be repaired forever.
 */
static int repair(struct zq_scan *s, unsigned flags, struct zqcow2_check_result *res)
{
    struct zqcow2_check_result now = *res;
    bool changed = true;
    int rc;

    for (int pass = 0; pass < MAX_PASSES; pass++) {
        struct zq_scan next = {.be = s->be, .hooks = s->hooks, .opt = s->opt, .err = s->err};

        if ((rc = zq_repair_pass(s, flags, &changed)) < 0)
            return rc;
        if (!changed)
            break;
        now = (struct zqcow2_check_result)ZQCOW2_CHECK_RESULT_INIT;
        next.res = &now;
        next.below = s->below;
        next.quiet = true;
        next.repair = s->repair;
        zq_scan_free(s);
        *s = next;
        if ((rc = zq_examine(s)) < 0)
            return rc;
    }
    add_fixed(res, &now);
    s->quiet = false;
    if (now.corruptions == 0 && (rc = zq_repair_space(s)) < 0)
        return rc;
    return zq_repair_finish(s, flags, now.corruptions == 0);
}

/* copies: a repair may double the file at most, whatever an image claims to share. */
int zq_check(struct zqcow2_backend *be, const struct zqcow2_hooks *hooks,
             const struct zqcow2_check_options *opt, const struct zq_below *below,
             struct zqcow2_check_result *res, struct zqcow2_error *err)
{
    static const struct zqcow2_check_options defaults = ZQCOW2_CHECK_OPTIONS_INIT;
    struct zq_scan s = {.be = be, .hooks = hooks, .opt = opt ? opt : &defaults, .err = err};
    unsigned flags = repair_flags(s.opt->flags);
    int rc;

    s.res = res;
    s.below = below;
    s.repair.raise = flags & ZQCOW2_CHECK_REPAIR;
    rc = zq_examine(&s);
    s.repair.copies = s.file_size >> s.h.cluster_bits;
    if (rc == 0 && flags)
        rc = repair(&s, flags, res);
    zq_scan_free(&s);
    return rc < 0 ? zq_fail_rc(err, rc) : 0;
}
