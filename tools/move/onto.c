/* SPDX-License-Identifier: MIT */
/*
 * The copy begins as an overlay of the disk itself, and has nothing of its own. Then it is rebased,
 * which copies what the backing file does not have, zones included. So nobody needs to know what
 * the two have in common, and a backing file with other content costs space, not data.
 */
#include "onto.h"

#include <limits.h>
#include <stdlib.h>
#include <zqcow2/chain.h>

/* The names that an image stores are those of files. */
static bool are_files(const struct zt_disk *from, const struct zt_output *to)
{
    if (from->dev || zt_on_network(&from->target))
        zt_error("%s: with -B, SRC is a file", from->target.path);
    else if (zt_on_network(&to->target))
        zt_error("%s: with -B, DST is a file", to->target.path);
    else
        return true;
    return false;
}

static bool rebase(const struct zt_onto *c, struct zt_output *to, struct zqcow2_backend *be)
{
    struct zqcow2_rebase_options opt = ZQCOW2_REBASE_OPTIONS_INIT;
    struct zqcow2_resolver *files = zt_resolver(&to->target);
    struct zqcow2_error err = {0, ""};
    struct zt_progress bar = {.on = false};
    int rc;

    if (!files)
        return false;
    opt.hooks = zt_hooks();
    opt.backing_name = c->backing;
    opt.backing_format = c->format;
    opt.resolve = zqcow2_resolve_file;
    opt.resolve_arg = files;
    opt.progress = zt_progress_piece;
    opt.progress_arg = &bar;
    zt_progress_start(&bar, "convert", 0, c->progress);
    rc = zqcow2_rebase(be, &opt, &err);
    if (rc == 0)
        zt_progress_done(&bar);
    zt_progress_end(&bar);
    zqcow2_resolver_free(files);
    if (rc < 0 && zt_signal())
        zt_error("%s: stopped by %s", to->target.path, zt_signal());
    else if (rc < 0)
        zt_error("%s: %s", to->target.path, zt_reason(rc, &err));
    return rc == 0;
}

/* The overlay is complete, and closed. */
static bool rebase_file(const struct zt_onto *c, struct zt_output *to)
{
    struct zt_target t = to->target;
    struct zqcow2_backend *be;
    bool ok;
    int rc;

    t.path = to->file.temporary;
    rc = zt_backend_open(&t, ZQCOW2_FILE_RDWR, &be);
    if (rc < 0) {
        zt_backend_error(&to->target, rc);
        return false;
    }
    ok = rebase(c, to, be);
    zqcow2_backend_close(be);
    return ok;
}

static bool close_overlay(struct zt_output *to)
{
    bool ok = zt_close(&to->target, to->img, 0) == 0;

    to->img = NULL;
    return ok;
}

bool zt_onto(const struct zt_onto *c, struct zt_disk *from, struct zt_output *to,
             const struct zqcow2_create_options *opt, bool force)
{
    struct zqcow2_create_options anew = *opt;
    char whole[PATH_MAX];
    bool ok;

    if (!are_files(from, to))
        return false;
    if (!realpath(from->target.path, whole)) {
        zt_error("%s: has no name that an image could store", from->target.path);
        return false;
    }
    to->target.backing_root = from->target.backing_root;
    anew.backing_name = whole;
    anew.backing_format = from->img ? "qcow2" : "raw";
    to->anew = true; /* it is opened a second time, by name */
    if (!zt_output_open(to, &anew, opt->virtual_size, force))
        return false;
    ok = close_overlay(to) && rebase_file(c, to);
    return zt_output_close(to, ok);
}
