/* SPDX-License-Identifier: MIT */
/* The verb rebase: another backing file for an image, or none. */
#include <zqcow2/chain.h>

#include "tool.h"

struct rebase {
    struct zt_target target;
    struct zt_progress progress;
    const char *name, *format;
    bool name_only;
};

static int rebase_on(void *arg, struct zqcow2_backend *be, struct zqcow2_resolver *files)
{
    struct rebase *r = arg;
    struct zqcow2_rebase_options opt = ZQCOW2_REBASE_OPTIONS_INIT;
    struct zqcow2_error err = {0, ""};
    int rc;

    opt.flags = r->name_only ? ZQCOW2_REBASE_NAME_ONLY : 0;
    opt.hooks = zt_hooks();
    opt.backing_name = r->name;
    opt.backing_format = r->format;
    opt.resolve = zqcow2_resolve_file;
    opt.resolve_arg = files;
    opt.progress = zt_progress_piece;
    opt.progress_arg = &r->progress;
    zt_progress_start(&r->progress, "rebase", 0, true);
    rc = zqcow2_rebase(be, &opt, &err);
    zt_progress_end(&r->progress);
    if (rc < 0 && zt_signal())
        zt_error("%s: received %s; it still has its old backing file", r->target.path, zt_signal());
    else if (rc < 0)
        zt_error("%s: %s", r->target.path, zt_reason(rc, &err));
    return rc < 0;
}

static bool parse(struct rebase *r, int argc, char **argv)
{
    static const struct option longs[] = {ZT_OPTION_BACKEND,
                                          ZT_OPTION_FILES,
                                          {"backing", required_argument, NULL, 'b'},
                                          {"backing-format", required_argument, NULL, 'F'},
                                          {"name-only", no_argument, NULL, 'u'},
                                          ZT_OPTION_END};
    static const char *const names[] = {"FILE"};
    struct zt_options o = {.name = argv[0], .shorts = ":b:F:u", .longs = longs};
    int c;

    while ((c = zt_option(&o, argc, argv)) != -1) {
        if (c == 'b')
            r->name = optarg;
        else if (c == 'F')
            r->format = optarg;
        else if (c == 'u')
            r->name_only = true;
        else if (!zt_target_option(&r->target, c))
            return false;
    }
    if (!zt_operands(argc, argv, 1, 1, names))
        return false;
    r->target.path = argv[optind];
    if (!r->name) {
        zt_error("rebase: give -b BASE, or -b '' for no backing file");
        return false;
    }
    if (!r->name[0])
        r->name = NULL;
    if (r->name && !r->format) {
        zt_error("rebase: give the format of %s: -F raw or -F qcow2", r->name);
        return false;
    }
    return true;
}

static int run(int argc, char **argv)
{
    struct rebase r = {.name = NULL};

    return parse(&r, argc, argv) ? zt_change_chain(&r.target, rebase_on, &r) : 1;
}

const struct zt_verb zt_verb_rebase = {
    "rebase", "-b BASE [-F FMT] [-u] " ZT_USE_FILES "[--backend=NAME] FILE",
    "Gives an image another backing file, or none",
    "  -b, --backing=BASE      the new backing file, its name relative to FILE's folder; ''\n"
    "                          for none\n"
    "  -F, --backing-format=FMT  of BASE: raw or qcow2\n"
    "  -u, --name-only         change the name and copy nothing: BASE has the content of the\n"
    "                          old backing file, which has been moved\n" ZT_HELP_FILES
        ZT_HELP_BACKEND
    "The content of the disk does not change: data not in BASE is copied into FILE.\n",
    run};
