/* SPDX-License-Identifier: MIT */
/* The verb check: exit status 0 is clean, 1 not checked, 2 corrupt, 3 leaks. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "check.h"

enum { OPT_JSON = ZT_OPT_VERB, OPT_OUTPUT, OPT_REPAIR };

struct check {
    struct zt_target target;
    bool json, qemu, qemu_json; /* qemu: in the form of qemu-img, findings on stderr */
    uint32_t flags;
    struct zt_json j;
};

static const char *kind_name(int kind)
{
    switch (kind) {
    case ZQCOW2_FOUND_LEAK: return "leak";
    case ZQCOW2_FOUND_CORRUPTION: return "corruption";
    case ZQCOW2_FOUND_REPAIRED: return "repaired";
    default: return "warning";
    }
}

static void text_finding(void *arg, int kind, const char *text)
{
    const struct check *c = arg;
    const char *name = kind_name(kind);
    FILE *out = c->qemu ? stderr : stdout;

    if (c->qemu || strncmp(text, name, strlen(name)) == 0) /* some texts say it themselves */
        zt_line(out, "%s", text);
    else
        zt_line(out, "%s: %s", name, text);
}

static void json_finding(void *arg, int kind, const char *text)
{
    struct zt_json *j = &((struct check *)arg)->j;

    zt_json_open(j, NULL, '{');
    zt_json_str(j, "kind", kind_name(kind));
    zt_json_str(j, "text", text);
    zt_json_close(j, '}');
}

static int exit_status(const struct zqcow2_check_result *r)
{
    if (zt_left(r->corruptions, r->corruptions_fixed))
        return 2;
    return zt_left(r->leaked_clusters, r->leaks_fixed) ? 3 : 0;
}

static void print_json_result(struct zt_json *j, const struct zqcow2_check_result *r)
{
#define MEMBER(name) zt_json_u64(j, #name, r->name)
    MEMBER(corruptions);
    MEMBER(leaked_clusters);
    MEMBER(warnings);
    MEMBER(corruptions_fixed);
    MEMBER(leaks_fixed);
    MEMBER(total_clusters);
    MEMBER(allocated_clusters);
    MEMBER(compressed_clusters);
    MEMBER(fragmented_clusters);
    MEMBER(image_end_offset);
#undef MEMBER
}

static void print_count(uint64_t found, uint64_t fixed, const char *what)
{
    if (!found)
        return;
    printf("%" PRIu64 " %s%s found", found, what, found == 1 ? "" : "s");
    if (fixed)
        printf(", %" PRIu64 " repaired", fixed);
    printf("\n");
}

static void print_text_result(const struct zqcow2_check_result *r)
{
    print_count(r->corruptions, r->corruptions_fixed, "corruption");
    print_count(r->leaked_clusters, r->leaks_fixed, "leaked cluster");
    print_count(r->warnings, 0, "warning");
    if (exit_status(r) == 0)
        printf("no errors%s\n", r->corruptions || r->leaked_clusters ? " are left" : "");
    printf("%" PRIu64 " of %" PRIu64 " clusters hold data", r->allocated_clusters,
           r->total_clusters);
    if (r->compressed_clusters)
        printf(", %" PRIu64 " of them compressed", r->compressed_clusters);
    if (r->fragmented_clusters)
        printf(", %" PRIu64 " fragmented", r->fragmented_clusters);
    printf("; the image ends at %" PRIu64 "\n", r->image_end_offset);
}

static void print_result(struct check *c, const struct zqcow2_check_result *r)
{
    if (c->qemu_json)
        zt_qemu_check_json(&c->j, c->target.path, r);
    else if (c->qemu)
        zt_qemu_check_text(r);
    else if (c->json)
        print_json_result(&c->j, r);
    else
        print_text_result(r);
}

static int run_check(struct check *c, struct zqcow2_backend *be, struct zqcow2_check_result *res,
                     struct zqcow2_error *err)
{
    struct zqcow2_check_options opt = ZQCOW2_CHECK_OPTIONS_INIT;
    struct zqcow2_resolver *r = c->target.no_backing ? NULL : zt_resolver(&c->target);
    int rc;

    if (!r && !c->target.no_backing)
        return -EINVAL;
    opt.flags = c->flags | (c->target.share ? ZQCOW2_CHECK_NOLOCK : 0u);
    opt.hooks = zt_hooks();
    opt.found = c->json ? json_finding : text_finding;
    opt.arg = c;
    opt.resolve = r ? zqcow2_resolve_file : NULL;
    opt.resolve_arg = r;
    rc = zqcow2_check(be, &opt, res, err);
    zqcow2_resolver_free(r);
    return rc;
}

static void json_bitmap(void *j, const struct zqcow2_bitmap *b)
{
    zt_json_bitmap(j, b);
}

/* An image that is too damaged to be opened has been reported. Bitmaps need no file below it. */
static void list_bitmaps(struct check *c, struct zqcow2_backend *be)
{
    struct zqcow2_open_options opt = ZQCOW2_OPEN_OPTIONS_INIT;
    struct zqcow2_image *img;

    opt.flags =
        ZQCOW2_OPEN_BORROW | ZQCOW2_OPEN_NO_BACKING | (c->target.share ? ZQCOW2_OPEN_NOLOCK : 0u);
    opt.hooks = zt_hooks();
    if (c->json)
        zt_json_open(&c->j, "bitmaps", '[');
    if (zqcow2_open(be, &opt, &img, NULL) == 0) {
        (void)zqcow2_bitmap_list(img, c->json ? json_bitmap : zt_text_bitmap, &c->j, NULL);
        (void)zqcow2_close(img);
    }
    if (c->json)
        zt_json_close(&c->j, ']');
}

static void open_json(struct check *c)
{
    zt_json_open(&c->j, NULL, '{');
    zt_json_str(&c->j, "filename", c->target.path);
    zt_json_open(&c->j, "findings", '[');
}

/* Before anything could be found. */
static int not_checked(struct check *c, const char *why)
{
    if (c->json) {
        open_json(c);
        zt_json_close(&c->j, ']');
        zt_json_str(&c->j, "error", why);
        zt_json_close(&c->j, '}');
    }
    return 1;
}

static int check(struct check *c)
{
    struct zqcow2_check_result res = ZQCOW2_CHECK_RESULT_INIT;
    struct zqcow2_error err = {0, ""};
    struct zqcow2_backend *be;
    int rc = zt_backend_open(&c->target, c->flags ? ZQCOW2_FILE_RDWR : 0, &be);
    char text[128];

    if (rc < 0) {
        zt_backend_error(&c->target, rc);
        return not_checked(c, zt_backend_reason(&c->target, rc, text, sizeof(text)));
    }
    if (c->json)
        open_json(c);
    rc = run_check(c, be, &res, &err);
    if (c->json)
        zt_json_close(&c->j, ']');
    if (rc >= 0 && !c->qemu)
        list_bitmaps(c, be);
    zqcow2_backend_close(be);
    if (c->json && rc < 0)
        zt_json_str(&c->j, "error", zt_reason(rc, &err));
    if (rc >= 0)
        print_result(c, &res);
    if (c->json)
        zt_json_close(&c->j, '}');
    if (rc < 0)
        zt_error("%s: cannot be checked: %s", c->target.path, zt_reason(rc, &err));
    return rc < 0 ? 1 : exit_status(&res);
}

static bool take_repair(struct check *c, const char *what)
{
    static const struct {
        const char *name;
        uint32_t flags;
    } words[] = {
        {"leaks", ZQCOW2_CHECK_REPAIR_LEAKS},
        {"refcounts", ZQCOW2_CHECK_REPAIR_LEAKS | ZQCOW2_CHECK_REPAIR},
        {"all", ZQCOW2_CHECK_REPAIR_LEAKS | ZQCOW2_CHECK_REPAIR | ZQCOW2_CHECK_REPAIR_ALL},
    };

    for (size_t i = 0; i < ZT_COUNT(words); i++) {
        if (strcmp(words[i].name, what ? what : "refcounts") == 0) {
            c->flags = words[i].flags;
            return true;
        }
    }
    zt_error("--repair: '%s' is not one of leaks, refcounts, all", what);
    return false;
}

static bool parse(struct check *c, int argc, char **argv)
{
    static const struct option longs[] = {ZT_OPTION_BACKEND,
                                          ZT_OPTION_SHARE,
                                          ZT_OPTION_NO_BACKING,
                                          ZT_OPTION_FILES,
                                          {"json", no_argument, NULL, OPT_JSON},
                                          {"output", required_argument, NULL, OPT_OUTPUT},
                                          {"repair", optional_argument, NULL, OPT_REPAIR},
                                          ZT_OPTION_END};
    static const char *const names[] = {"FILE"};
    struct zt_options o = {.name = argv[0], .shorts = ":U", .longs = longs};
    bool ok = true;
    int ch;

    while (ok && (ch = zt_option(&o, argc, argv)) != -1) {
        if (ch == OPT_JSON)
            c->json = true;
        else if (ch == OPT_OUTPUT)
            ok = c->qemu = zt_output_form(optarg, &c->qemu_json);
        else
            ok = ch == OPT_REPAIR ? take_repair(c, optarg) : zt_target_option(&c->target, ch);
    }
    if (ok && c->qemu && c->json) {
        zt_error("check: --json and --output cannot be given together");
        return false;
    }
    if (ok && c->flags && c->target.share) {
        zt_error("check: --repair needs a lock, which --force-share does not take");
        return false;
    }
    if (!ok || !zt_operands(argc, argv, 1, 1, names))
        return false;
    c->target.path = argv[optind];
    return true;
}

static int run(int argc, char **argv)
{
    struct check c = {.j = {.out = stdout}};
    bool json = false;

    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++)
        json |= strcmp(argv[i], "--json") == 0;
    if (parse(&c, argc, argv))
        return check(&c);
    c.json |= json; /* the mistake may stand before it */
    return not_checked(&c, zt_last_error());
}

const struct zt_verb zt_verb_check = {
    "check",
    "[--repair[=WHAT]] [--json | --output=FORM] [-U] [--no-backing] " ZT_USE_FILES
    "[--backend=NAME] FILE",
    "Checks the metadata of an image, and repairs it",
    "  --repair[=WHAT]         leaks: free unreferenced clusters; refcounts (the default): also\n"
    "                          rebuild refcounts; all: also repair write pointers and unmap\n"
    "                          clusters beyond them\n"
    "  --json                  findings, bitmaps and counts, or the error\n"
    "  --output=FORM           human or json: as qemu-img check prints it; findings on "
    "stderr\n" ZT_HELP_SHARE
    "  --no-backing            do not open the backing file of a zoned image\n" ZT_HELP_FILES
        ZT_HELP_BACKEND
    "Exit status: 0 clean (or repaired), 1 could not be checked, 2 corruptions, 3 only leaks.\n",
    run};
