/* SPDX-License-Identifier: MIT */
/* The verb bitmap: lists and changes persistent bitmaps, in the form of qemu-img. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <zqcow2/bitmap.h>

#include "json.h"
#include "tool.h"

enum { OPT_ADD = ZT_OPT_VERB, OPT_REMOVE, OPT_CLEAR, OPT_ENABLE, OPT_DISABLE, OPT_LIST, OPT_JSON };

#define MAX_ACTIONS 16
#define RANGES      512u /* at a time */

struct bitmap {
    struct zt_target target;
    bool json, list;
    int actions[MAX_ACTIONS]; /* in the order in which they were given */
    int nr;
    uint64_t granularity; /* 0: the library's choice */
    const char *name;     /* NULL: all, of a list */
};

/* ---- the list ---- */

struct list {
    struct zt_json j;
    bool json, any;
};

static void text_row(void *arg, const struct zqcow2_bitmap *m)
{
    struct list *l = arg;
    FILE *out = l->j.out;
    char dirty[32] = "-", granularity[32];

    if (!l->any)
        fprintf(out, "%-24s %11s %12s  %s\n", "BITMAP", "GRANULARITY", "DIRTY", "FLAGS");
    l->any = true;
    if (!(m->flags & ZQCOW2_BITMAP_INCONSISTENT))
        zt_human(dirty, sizeof(dirty), m->dirty_bytes);
    zt_human(granularity, sizeof(granularity), m->granularity);
    zt_line(out, "%-24s %11s %12s  %s%s", m->name, granularity, dirty,
            m->flags & ZQCOW2_BITMAP_ENABLED ? "enabled" : "disabled",
            m->flags & ZQCOW2_BITMAP_INCONSISTENT ? ", inconsistent" : "");
}

static void json_row(void *arg, const struct zqcow2_bitmap *m)
{
    zt_json_bitmap(&((struct list *)arg)->j, m);
}

static void put_range(struct list *l, const struct zqcow2_dirty_range *r)
{
    if (!l->json) {
        if (!l->any)
            fprintf(l->j.out, "%18s %18s\n", "OFFSET", "LENGTH");
        fprintf(l->j.out, "%#18" PRIx64 " %#18" PRIx64 "\n", r->offset, r->length);
    } else {
        zt_json_open(&l->j, NULL, '{');
        zt_json_u64(&l->j, "start", r->offset);
        zt_json_u64(&l->j, "length", r->length);
        zt_json_close(&l->j, '}');
    }
    l->any = true;
}

static int list_ranges(struct list *l, const char *name, struct zqcow2_image *img,
                       struct zqcow2_error *err)
{
    struct zqcow2_dirty_range *r = calloc(RANGES, sizeof(*r));
    uint64_t from = 0;
    uint32_t n = RANGES;
    int rc = r ? 0 : -ENOMEM;

    while (rc == 0 && n == RANGES) {
        rc = zqcow2_bitmap_ranges(img, name, from, r, &n, err);
        for (uint32_t i = 0; rc == 0 && i < n; i++)
            put_range(l, &r[i]);
        if (rc == 0 && n)
            from = r[n - 1].offset + r[n - 1].length;
    }
    free(r);
    return rc;
}

int zt_bitmap_list(FILE *out, bool json, const char *name, struct zqcow2_image *img,
                   struct zqcow2_error *err)
{
    struct list l = {.j.out = out, .json = json};
    int rc;

    if (json)
        zt_json_open(&l.j, NULL, '[');
    rc = name ? list_ranges(&l, name, img, err) :
                zqcow2_bitmap_list(img, json ? json_row : text_row, &l, err);
    if (json)
        zt_json_close(&l.j, ']');
    return rc;
}

/* ---- changes ---- */

static int change(const struct bitmap *b, int action, struct zqcow2_image *img,
                  struct zqcow2_error *err)
{
    switch (action) {
    case OPT_ADD: return zqcow2_bitmap_add(img, b->name, b->granularity, 0, err);
    case OPT_REMOVE: return zqcow2_bitmap_remove(img, b->name, err);
    case OPT_CLEAR: return zqcow2_bitmap_clear(img, b->name, err);
    case OPT_ENABLE: return zqcow2_bitmap_enable(img, b->name, err);
    default: return zqcow2_bitmap_disable(img, b->name, err);
    }
}

static int act(struct bitmap *b, struct zqcow2_image *img)
{
    struct zqcow2_error err = {0, ""};
    int rc = b->list ? zt_bitmap_list(stdout, b->json, b->name, img, &err) : 0;

    for (int i = 0; rc == 0 && i < b->nr; i++)
        rc = change(b, b->actions[i], img, &err);
    b->target.failure = rc;
    if (rc < 0 && b->name)
        zt_error("%s: bitmap \"%s\": %s", b->target.path, b->name, zt_reason(rc, &err));
    else if (rc < 0)
        zt_error("%s: bitmaps: %s", b->target.path, zt_reason(rc, &err));
    return rc < 0;
}

static bool is_action(int c)
{
    return c >= OPT_ADD && c <= OPT_DISABLE;
}

static bool add_action(struct bitmap *b, int c)
{
    if (b->nr == MAX_ACTIONS) {
        zt_error("bitmap: at most %d changes can be given", MAX_ACTIONS);
        return false;
    }
    b->actions[b->nr++] = c;
    return true;
}

/* Nothing was asked for: a list. */
static bool check(struct bitmap *b)
{
    bool adds = false;

    for (int i = 0; i < b->nr; i++)
        adds |= b->actions[i] == OPT_ADD;
    if (!b->nr)
        b->list = true;
    if (b->list && b->nr)
        zt_error("bitmap: --list cannot be given with a change");
    else if (!b->list && (b->json || b->target.share))
        zt_error("bitmap: --json and --force-share are for --list only");
    else if (b->granularity && !adds)
        zt_error("bitmap: a granularity is for --add only");
    else
        return true;
    return false;
}

static bool parse(struct bitmap *b, int argc, char **argv)
{
    static const struct option longs[] = {ZT_OPTION_BACKEND,
                                          ZT_OPTION_SHARE,
                                          ZT_OPTION_SOURCES,
                                          {"add", no_argument, NULL, OPT_ADD},
                                          {"remove", no_argument, NULL, OPT_REMOVE},
                                          {"clear", no_argument, NULL, OPT_CLEAR},
                                          {"enable", no_argument, NULL, OPT_ENABLE},
                                          {"disable", no_argument, NULL, OPT_DISABLE},
                                          {"list", no_argument, NULL, OPT_LIST},
                                          {"granularity", required_argument, NULL, 'g'},
                                          {"json", no_argument, NULL, OPT_JSON},
                                          ZT_OPTION_END};
    static const char *const names[] = {"FILE", "NAME"};
    struct zt_options o = {.name = argv[0], .shorts = ":Ug:", .longs = longs};
    bool ok = true;
    int c;

    while (ok && (c = zt_option(&o, argc, argv)) != -1) {
        if (is_action(c))
            ok = add_action(b, c);
        else if (c == OPT_LIST)
            b->list = true;
        else if (c == OPT_JSON)
            b->json = true;
        else if (c == 'g')
            ok = zt_size_arg("granularity", optarg, &b->granularity);
        else
            ok = zt_target_option(&b->target, c);
    }
    return ok && check(b) && zt_operands(argc, argv, b->list ? 1 : 2, 2, names);
}

static int run(int argc, char **argv)
{
    struct bitmap b = {.name = NULL};
    struct zqcow2_image *img;

    if (!parse(&b, argc, argv))
        return 1;
    b.target.path = argv[optind];
    b.name = argv[optind + 1];
    if (b.list)
        b.target.no_backing = true; /* what is below an image has no part in its list */
    img = zt_open(&b.target, b.list ? 0 : ZQCOW2_OPEN_RDWR);
    return img ? zt_close(&b.target, img, act(&b, img)) : 1;
}

const struct zt_verb zt_verb_bitmap = {
    "bitmap",
    "[--list [--json] [-U] | --add [-g SIZE] | --remove | --clear | --enable | "
    "--disable]... " ZT_USE_SOURCES "[--backend=NAME] FILE [NAME]",
    "Lists and changes persistent bitmaps, which record the changes of a disk",
    "  --list                  list the bitmaps (the default), or what is marked in NAME\n"
    "  --add                   add the bitmap NAME, in which each later change is marked\n"
    "  -g, --granularity=SIZE  bytes for each mark, 512 to 2G (64K)\n"
    "  --remove                remove it\n"
    "  --clear                 remove all marks\n"
    "  --disable, --enable     stop marking changes, and resume it\n"
    "  --json                  the list as an array\n" ZT_HELP_SHARE ZT_HELP_SOURCES
        ZT_HELP_BACKEND,
    run};
