/* SPDX-License-Identifier: MIT */
/* The verb create. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <zqcow2/change.h>

#include "image_options.h"

struct create {
    struct zt_target target;
    bool force;
    struct zt_image_options image;
    struct zt_progress progress;
    const char *backing, *backing_format;
};

/* What only shows when all options are known. */
static bool agree(const struct create *c)
{
    const struct zt_image_options *o = &c->image;
    bool zoned = zt_image_zoned(o);

    if (c->backing && !c->backing[0]) {
        zt_error("create: -b needs the name of a backing file; omit -b if there is none");
        return false;
    }
    if (c->backing_format && !c->backing) {
        zt_error("create: -F is the format of a backing file: give -b BASE, too");
        return false;
    }
    if (c->backing && o->given[ZT_O_MODE]) {
        zt_error("zone.mode: FILE has the zones of its backing file, or none");
        return false;
    }
    if (!o->given[ZT_O_SIZE] && !c->backing) {
        zt_error("create: SIZE is missing; see zqcow2 create --help");
        return false;
    }
    if (o->value[ZT_O_COMPAT] == 2 && o->text[ZT_O_DATA_FILE]) {
        zt_error("data_file: not with compat=0.10"); /* it would be made, or emptied, first */
        return false;
    }
    if (o->value[ZT_O_COMPAT] == 2 && o->value[ZT_O_LAZY_REFCOUNTS]) {
        zt_error("lazy_refcounts: not with compat=0.10");
        return false;
    }
    /* The library knows what a backing file has. */
    if (!zt_image_agrees(o, zoned || c->backing))
        return false;
    if (zoned && o->value[ZT_O_LAZY_REFCOUNTS]) {
        zt_error("lazy_refcounts: not for a zoned image");
        return false;
    }
    if (!c->backing && o->given[ZT_O_MAX_APPEND] &&
        (!o->given[ZT_O_LAYOUT] || o->value[ZT_O_LAYOUT] == ZQCOW2_LAYOUT_44)) {
        zt_error("zone.max_append_bytes: layout 44 cannot store it (48b, 56 and v7 can)");
        return false;
    }
    return true;
}

static struct zqcow2_create_options library_options(struct create *c, struct zqcow2_resolver *r)
{
    struct zqcow2_create_options o = zt_create_options(&c->image);

    o.flags |= c->force ? ZQCOW2_CREATE_FORCE : 0u;
    o.backing_name = c->backing;
    o.backing_format = c->backing_format;
    o.resolve = r ? zqcow2_resolve_file : NULL;
    o.resolve_arg = r;
    o.progress = zt_progress_piece;
    o.progress_arg = &c->progress;
    return o;
}

/* What version 2 has no room for, the library names. */
static int make_older(struct zqcow2_backend *be, struct zqcow2_resolver *r,
                      struct zqcow2_error *err)
{
    struct zqcow2_amend_options o = ZQCOW2_AMEND_OPTIONS_INIT;

    o.version = 2;
    o.hooks = zt_hooks();
    o.resolve = r ? zqcow2_resolve_file : NULL;
    o.resolve_arg = r;
    return zqcow2_amend(be, &o, err);
}

/* Writes the image into `be` and closes that; false after reporting. */
static bool write_image(struct create *c, struct zqcow2_backend *be)
{
    bool names = c->backing || c->image.text[ZT_O_DATA_FILE];
    struct zqcow2_resolver *r = names ? zt_resolver(&c->target) : NULL;
    struct zqcow2_create_options opt = library_options(c, r);
    struct zqcow2_error err = {0, ""};
    bool ready = r || !names;
    int rc;

    zt_progress_start(&c->progress, "create", 0, true);
    rc = ready ? zqcow2_create(be, &opt, &err) : -ENOMEM;
    if (rc == 0 && c->image.value[ZT_O_COMPAT] == 2)
        rc = make_older(be, r, &err);
    zt_progress_end(&c->progress);
    zqcow2_resolver_free(r);
    zqcow2_backend_close(be);
    if (ready && rc == -ECANCELED && zt_signal())
        zt_error("%s: received %s; no image was created", c->target.path, zt_signal());
    else if (ready && rc < 0)
        zt_error("%s: %s", c->target.path, zt_reason(rc, &err));
    return rc >= 0;
}

/* Opens `path`, which stands for the target; an error is reported under the target's name. */
static bool open_file(const struct create *c, const char *path, struct zqcow2_backend **be)
{
    struct zt_target t = c->target;
    int rc;

    t.path = path;
    rc = zt_backend_open(&t, ZQCOW2_FILE_RDWR | ZQCOW2_FILE_CREATE, be);
    if (rc < 0)
        zt_backend_error(&c->target, rc);
    return rc >= 0;
}

static int replace_image(struct create *c)
{
    struct zt_replacement r = {.no_sync = false};
    struct zqcow2_backend *be;
    int done = zt_on_network(&c->target) ? 0 : zt_replace_begin(&r, c->target.path);

    if (done > 0)
        done = zt_replace_end(&r, open_file(c, r.temporary, &be) && write_image(c, be));
    if (done)
        return done < 0;
    return !(open_file(c, c->target.path, &be) && write_image(c, be));
}

static int create_image(struct create *c)
{
    unsigned flags = ZQCOW2_FILE_RDWR | ZQCOW2_FILE_CREATE | ZQCOW2_FILE_EXCLUSIVE;
    struct zqcow2_backend *be;
    int rc;

    zt_hold_signals();
    rc = zt_backend_open(&c->target, flags, &be);
    if (rc == -EEXIST && c->force)
        return replace_image(c);
    if (rc == -EEXIST)
        zt_exists_error(c->target.path);
    else if (rc < 0)
        zt_backend_error(&c->target, rc);
    if (rc < 0)
        return 1;
    if (write_image(c, be))
        return 0;
    if (!zt_on_network(&c->target))
        unlink(c->target.path); /* nothing of anybody's is in it */
    return 1;
}

static bool parse(struct create *c, int argc, char **argv)
{
    static const struct option longs[] = {ZT_OPTION_BACKEND,
                                          {"backing", required_argument, NULL, 'b'},
                                          {"backing-format", required_argument, NULL, 'F'},
                                          {"force", no_argument, NULL, ZT_OPT_VERB},
                                          ZT_OPTION_END};
    static const char *const names[] = {"FILE"};
    struct zt_options o = {.name = argv[0], .shorts = ":o:b:F:", .longs = longs, .repeat = "o"};
    int ch;

    while ((ch = zt_option(&o, argc, argv)) != -1) {
        if (ch == ZT_OPT_VERB)
            c->force = true;
        else if (ch == 'b')
            c->backing = optarg;
        else if (ch == 'F')
            c->backing_format = optarg;
        else if (!(ch == 'o' ? zt_image_option_list(&c->image, optarg) :
                               zt_target_option(&c->target, ch)))
            return false;
    }
    if (c->image.list)
        return true;
    if (!zt_operands(argc, argv, 1, 2, names))
        return false;
    c->target.path = argv[optind];
    return zt_image_text(&c->image, ZT_O_BACKING, "-b", &c->backing) &&
           zt_image_text(&c->image, ZT_O_BACKING_FORMAT, "-F", &c->backing_format) &&
           (optind + 1 == argc || zt_image_size(&c->image, argv[optind + 1]));
}

static int run(int argc, char **argv)
{
    struct create c = {.force = false};

    if (!parse(&c, argc, argv))
        return 1;
    if (c.image.list) {
        zt_print_image_options();
        return 0;
    }
    if (!agree(&c))
        return 1;
    return create_image(&c);
}

const struct zt_verb zt_verb_create = {
    "create",
    "[-o NAME=VALUE[,NAME=VALUE]...]... [-b BASE [-F FMT]] [--force] [--backend=NAME] FILE [SIZE]",
    "Creates an empty image",
    "  -o NAME=VALUE           (without zone.mode and zone.size: a plain image)\n" ZT_IMAGE_OPTIONS
    "  -b, --backing=BASE      the backing file, its name relative to FILE's folder; FILE\n"
    "                          inherits its zones, and SIZE may be omitted\n"
    "  -F, --backing-format=FMT  of BASE: raw or qcow2; may be omitted if BASE has zones\n"
    "  --force                 replace FILE if it exists\n" ZT_HELP_BACKEND,
    run};
