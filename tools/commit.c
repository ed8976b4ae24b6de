/* SPDX-License-Identifier: MIT */
/* The verb commit: what an image holds, into its backing file, or into one further down. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <zqcow2/chain.h>

#include "tool.h"

struct commit {
    struct zt_target target; /* the image that is committed now */
    struct zt_progress progress;
    bool keep;
    const char *base;    /* -b, or NULL */
    char path[PATH_MAX]; /* of it; "": into the backing file */
    char format[16];
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
    opt.backing_name = m->path[0] ? m->path : NULL;
    opt.backing_format = m->path[0] ? m->format : m->target.backing_format;
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

/* ---- -b ---- */

/* As an image names files: relative to its folder. */
static bool find_path(struct commit *m)
{
    const char *slash = m->base[0] == '/' ? NULL : strrchr(m->target.path, '/');
    int folder = slash ? (int)(slash - m->target.path) + 1 : 0;
    char *name = NULL;
    bool found;

    if (asprintf(&name, "%.*s%s", folder, m->target.path, m->base) < 0) {
        zt_error("commit: %s", zqcow2_strerror(-ENOMEM));
        return false;
    }
    found = realpath(name, m->path);
    if (!found)
        zt_error("commit: -b: %s: %s", name, strerror(errno));
    free(name);
    return found;
}

/* How deep in the chain; 0 after a message. */
static uint32_t find_depth(const struct commit *m, const struct zqcow2_resolver *files)
{
    struct stat base, st;
    const char *path;
    uint32_t depth = 1;

    if (stat(m->path, &base) < 0) {
        zt_error("commit: -b: %s: %s", m->path, strerror(errno));
        return 0;
    }
    for (; (path = zqcow2_resolver_path(files, depth)); depth++) {
        if (stat(path, &st) == 0 && st.st_dev == base.st_dev && st.st_ino == base.st_ino)
            return depth;
    }
    zt_error("commit: -b: %s is not in the backing chain of %s", m->base, m->target.path);
    return 0;
}

/* What was given for FILE is for FILE only. */
static struct zt_target layer(const struct zt_target *top, const struct zqcow2_resolver *files,
                              uint32_t depth)
{
    struct zt_target t = {.path = zqcow2_resolver_path(files, depth),
                          .backing_root = top->backing_root};

    return depth ? t : *top;
}

/*
 * Of the image t: the format of what it stands on. What a shorter image hides of the files below it
 * from a longer one above would be seen when that stands on BASE.
 */
static bool look(struct commit *m, struct zt_target t, uint64_t *size)
{
    struct zqcow2_backing backing = ZQCOW2_BACKING_INIT;
    struct zqcow2_info info;
    struct zqcow2_image *img;
    bool ok;

    t.no_backing = true;
    img = zt_open(&t, 0);
    if (!img)
        return false;
    ok = zt_info(&t, img, &info) && zqcow2_get_backing(img, &backing) == 0;
    if (ok && info.virtual_size < *size) {
        zt_error("commit: -b: %s is smaller than an image on top of it: rebase %s to %s first",
                 t.path, m->target.path, m->base);
        ok = false;
    }
    *size = info.virtual_size;
    snprintf(m->format, sizeof(m->format), "%s",
             backing.format[0] || !t.backing_format ? backing.format : t.backing_format);
    return zt_close(&t, img, ok ? 0 : 1) == 0;
}

/*
 * From the lowest image up: BASE then has what each of them shows, and what it has is hidden by
 * those that have not been committed yet.
 */
static int commit_layers(struct commit *m, const struct zqcow2_resolver *files, uint32_t depth)
{
    const struct zt_target top = m->target;
    uint64_t size = 0;
    int status = 0;

    for (uint32_t i = 0; i < depth; i++) {
        if (!look(m, layer(&top, files, i), &size))
            return 1;
    }
    while (!status && depth) {
        m->target = layer(&top, files, --depth);
        status = zt_change_chain(&m->target, commit_on, m);
    }
    return status;
}

static int commit_down(struct commit *m)
{
    struct zqcow2_resolver *files = find_path(m) ? zt_resolver(&m->target) : NULL;
    struct zqcow2_image *img = files ? zt_open_chain(&m->target, 0, files) : NULL;
    uint32_t depth = img ? find_depth(m, files) : 0;
    int status = img && zt_close(&m->target, img, 0) == 0 && depth ? 0 : 1;

    m->keep = true;
    if (!status && depth == 1) {
        m->path[0] = '\0';
        status = zt_change_chain(&m->target, commit_on, m);
    } else if (!status) {
        status = commit_layers(m, files, depth);
    }
    zqcow2_resolver_free(files);
    return status;
}

/* ---- the verb ---- */

static bool parse(struct commit *m, int argc, char **argv)
{
    static const struct option longs[] = {ZT_OPTION_BACKEND,
                                          ZT_OPTION_FILES,
                                          ZT_OPTION_BACKING_FORMAT,
                                          {"keep", no_argument, NULL, 'd'},
                                          {"base", required_argument, NULL, 'b'},
                                          ZT_OPTION_END};
    static const char *const names[] = {"FILE"};
    struct zt_options o = {.name = argv[0], .shorts = ":db:", .longs = longs};
    int c;

    while ((c = zt_option(&o, argc, argv)) != -1) {
        if (c == 'd')
            m->keep = true;
        else if (c == 'b')
            m->base = optarg;
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

    if (!parse(&m, argc, argv))
        return 1;
    return m.base ? commit_down(&m) : zt_change_chain(&m.target, commit_on, &m);
}

const struct zt_verb zt_verb_commit = {
    "commit", "[-d] [-b BASE] " ZT_USE_FILES "[--backing-format=FMT] [--backend=NAME] FILE",
    "Writes the data of an image into its backing file, and empties the image",
    "  -d, --keep              do not empty FILE\n"
    "  -b, --base=BASE         into this file of the backing chain, its name relative to FILE's\n"
    "                          folder, with the data of the images between; empties "
    "none\n" ZT_HELP_FILES ZT_HELP_FORMAT ZT_HELP_BACKEND
    "The content of the disk does not change. That of other images on the backing file may.\n",
    run};
