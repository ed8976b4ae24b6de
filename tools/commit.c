/* SPDX-License-Identifier: MIT */
/* The verb commit: what an image holds, into its backing file. */
#include <zqcow2/chain.h>

#include "tool.h"

struct commit {
    struct zt_target target;
    struct zt_progress progress;
    bool keep;
};

static int commit_on(void *arg, struct zqcow2_backend *be, struct zqcow2_resolver *files)
{
    struct zqcow2_commit_options opt = ZQCOW2_COMMIT_OPTIONS_INIT;
    struct zqcow2_error err = {0, ""};
    struct commit *m = arg;
    int rc;

    opt.flags = m->keep ? ZQCOW2_COMMIT_KEEP : 0;
    opt.hooks = zt_hooks();
    opt.resolve = zqcow2_resolve_file;
    opt.resolve_arg = files;
    opt.backing_format = m->target.backing_format;
    opt.progress = zt_progress_piece;
    opt.progress_arg = &m->progress;
    zt_progress_start(&m->progress, "commit", 0, true);
    rc = zqcow2_commit(be, &opt, &err);
    zt_progress_end(&m->progress);
    if (rc < 0 && zt_signal())
        zt_error("%s: received %s; its content is unchanged", m->target.path, zt_signal());
    else if (rc < 0)
        zt_error("%s: %s", m->target.path, zt_reason(rc, &err));
    return rc < 0;
}

static bool parse(struct commit *m, int argc, char **argv)
{
    static const struct option longs[] = {ZT_OPTION_BACKEND,
                                          ZT_OPTION_FILES,
                                          ZT_OPTION_BACKING_FORMAT,
                                          {"keep", no_argument, NULL, 'd'},
                                          ZT_OPTION_END};
    static const char *const names[] = {"FILE"};
    struct zt_options o = {.name = argv[0], .shorts = ":d", .longs = longs};
    int c;

    while ((c = zt_option(&o, argc, argv)) != -1) {
        if (c == 'd')
            m->keep = true;
        else if (!zt_target_option(&m->target, c))
            return false;
    }
    if (!zt_operands(argc, argv, 1, 1, names))
        return false;
    m->target.path = argv[optind];
    return true;
}

static int run(int argc, char **argv)
{
    struct commit m = {.keep = false};

    return parse(&m, argc, argv) ? zt_change_chain(&m.target, commit_on, &m) : 1;
}

const struct zt_verb zt_verb_commit = {
    "commit", "[-d] " ZT_USE_FILES "[--backing-format=FMT] [--backend=NAME] FILE",
    "Writes the data of an image into its backing file, and empties the image",
    "  -d, --keep              do not empty FILE\n" ZT_HELP_FILES ZT_HELP_FORMAT ZT_HELP_BACKEND
    "The content of the disk does not change. That of other images on the backing file may.\n",
    run};
