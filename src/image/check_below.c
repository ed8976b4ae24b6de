/* SPDX-License-Identifier: MIT */
/*
 * Check of an image that stands on another with zones: what only the backing file knows is read
 * first, and given to the check (S12). That must not fail for it: where the backing file cannot be
 * opened, the image is checked alone, and a warning says so. Likewise with a data file.
 */
#include "base/report.h"
#include "check/check.h"
#include "image/image.h"
#include "image/opening.h"

/* The write pointers of the backing file, and its geometry. */
static int read_below(const struct opening *o, struct zqcow2_backend *be, struct zq_below *b)
{
    struct opening s = {.be = be, .err = o->err, .hooks = o->hooks};
    int rc = zq_opening_header(&s);

    if (rc == 0)
        rc = zq_opening_same_zones(o, &s);
    if (rc == 0)
        rc = zq_opening_pointers(&s, &b->pointers);
    b->g = s.g;
    return rc;
}

static int look_below(const struct opening *o, struct zq_below *b)
{
    struct zqcow2_backend *be;
    int rc = zq_opening_resolve(o, &o->backing, 1, &be);

    if (rc == 0) {
        rc = read_below(o, be, b);
        (void)zq_be_leave(be);
        zqcow2_backend_close(be);
    }
    return rc < 0 ? zq_opening_blame(o->err, "backing file", o->backing.name, rc) : 0;
}

static void warn(const struct zqcow2_check_options *opt, struct zqcow2_check_result *res,
                 const struct zqcow2_error *why)
{
    res->warnings++;
    if (opt->found)
        opt->found(opt->arg, ZQCOW2_FOUND_WARNING, why->text);
}

int zq_image_check(struct zqcow2_backend *be, const struct zqcow2_hooks *hooks,
                   const struct zqcow2_check_options *opt, struct zqcow2_check_result *res,
                   struct zqcow2_error *err)
{
    struct zqcow2_error why = {0, ""};
    struct opening o = {.be = be, .opt = ZQCOW2_OPEN_OPTIONS_INIT, .err = &why, .hooks = *hooks};
    struct zq_below b = {.pointers = NULL};
    uint64_t fixed = 0;
    int rc = opt->flags & ZQCOW2_CHECK_REPAIR_ALL ? zq_check_fix_header(be, hooks, opt, &fixed) : 0;

    if (rc < 0)
        return zq_fail_rc(err, rc);
    rc = opt->resolve ? zq_opening_header(&o) : 0; /* what is wrong with it, check says */
    o.opt.resolve = opt->resolve;
    o.opt.resolve_arg = opt->resolve_arg;
    o.opt.flags = opt->flags & ZQCOW2_CHECK_NOLOCK ? ZQCOW2_OPEN_NOLOCK : 0;
    if (opt->resolve && rc == 0 && o.g.layout && o.backing.name[0] && look_below(&o, &b) < 0) {
        warn(opt, res, &why);
        zq_free(hooks, b.pointers, zq_pointers_bytes(&b.g));
        b.pointers = NULL;
    }
    if (opt->resolve && rc == 0 && zq_opening_has_data_file(&o) && zq_opening_look_at_data(&o) < 0)
        warn(opt, res, &why);
    rc = zq_check(be, hooks, opt, b.pointers ? &b : NULL, res, err);
    zq_free(hooks, b.pointers, zq_pointers_bytes(&b.g));
    res->corruptions += fixed;
    res->corruptions_fixed += fixed;
    return rc;
}
