/* SPDX-License-Identifier: MIT */
/* The verbs open, close, finish and reset: one action on zones. */
#include <inttypes.h>

#include <zqcow2/queue.h>

#include "tool.h"

enum { OPT_ALL = ZT_OPT_VERB };

struct action {
    struct zt_target target;
    const char *verb;
    uint16_t op;
    bool all, has_offset, has_count;
    uint64_t offset, count;
};

static bool find_range(struct action *a, const struct zqcow2_info *i, uint64_t *len)
{
    uint64_t rest;

    if (a->all) {
        a->offset = 0;
        *len = i->virtual_size;
        return true;
    }
    if (a->offset >= i->virtual_size || a->offset % i->zone_size) {
        zt_error("%s: %s: offset %" PRIu64 " is not the start of a zone", a->target.path, a->verb,
                 a->offset);
        return false;
    }
    rest = i->nr_zones - a->offset / i->zone_size;
    if (a->count == 0 || a->count > rest) {
        zt_error("%s: %s: -c %" PRIu64 ": there are %" PRIu64 " zones from %" PRIu64 " on",
                 a->target.path, a->verb, a->count, rest, a->offset);
        return false;
    }
    /* The last zone may be shorter than the others. */
    *len = a->count == rest ? i->virtual_size - a->offset : a->count * i->zone_size;
    return true;
}

static int act(struct action *a, struct zqcow2_image *img)
{
    struct zqcow2_request req = {.size = sizeof(req), .op = a->op};
    struct zqcow2_result res = {0, 0, 0};
    struct zqcow2_info info;
    char text[192];
    uint64_t len;
    int rc;

    if (!zt_zoned_info(&a->target, img, &info) || !find_range(a, &info, &len))
        return 1;
    req.offset = res.offset = a->offset;
    req.length = len;
    rc = zqcow2_run(img, &req, &res);
    a->target.failure = rc;
    if (rc < 0)
        zt_error("%s: %s of the zone at %" PRIu64 ": %s", a->target.path, a->verb, res.offset,
                 zt_zone_reason(img, rc, res.offset, text, sizeof(text)));
    return rc < 0;
}

static bool parse(struct action *a, int argc, char **argv)
{
    static const struct option longs[] = {ZT_OPTION_BACKEND,
                                          ZT_OPTION_SOURCES,
                                          {"all", no_argument, NULL, OPT_ALL},
                                          {"offset", required_argument, NULL, 'o'},
                                          {"count", required_argument, NULL, 'c'},
                                          ZT_OPTION_END};
    static const char *const names[] = {"FILE"};
    struct zt_options o = {.name = argv[0], .shorts = ":o:c:", .longs = longs};
    bool ok = true;
    int c;

    while (ok && (c = zt_option(&o, argc, argv)) != -1) {
        if (c == OPT_ALL)
            a->all = true;
        else if (c == 'o')
            ok = a->has_offset = zt_size_arg("-o", optarg, &a->offset);
        else if (c == 'c')
            ok = a->has_count = zt_u64_arg("-c", optarg, &a->count);
        else
            ok = zt_target_option(&a->target, c);
    }
    if (!ok || !zt_operands(argc, argv, 1, 1, names))
        return false;
    a->verb = argv[0];
    a->target.path = argv[optind];
    if (a->all == a->has_offset || (a->all && a->has_count)) {
        zt_error("%s: give either -o OFFSET [-c COUNT] or --all", argv[0]);
        return false;
    }
    return true;
}

static int run(int argc, char **argv, uint16_t op)
{
    struct action a = {.op = op, .count = 1};
    struct zqcow2_image *img;

    if (!parse(&a, argc, argv))
        return 1;
    img = zt_open(&a.target, ZQCOW2_OPEN_RDWR);
    return img ? zt_close(&a.target, img, act(&a, img)) : 1;
}

#define OPERANDS "{-o OFFSET [-c COUNT] | --all} " ZT_USE_SOURCES "[--backend=NAME] FILE"
#define HELP \
    "  -o, --offset=OFFSET     the zone that starts at OFFSET\n" \
    "  -c, --count=COUNT       the number of zones; 1\n" \
    "  --all                   the whole device\n" ZT_HELP_SOURCES ZT_HELP_BACKEND
#define HELP_OPEN \
    HELP "Open states do not persist: the command closes the image before it returns.\n"

#define ZONE_VERB(name, op, summary, help) \
    static int run_##name(int argc, char **argv) \
    { \
        return run(argc, argv, op); \
    } \
    const struct zt_verb zt_verb_##name = {#name, OPERANDS, summary, help, run_##name}

ZONE_VERB(open, ZQCOW2_OP_ZONE_OPEN, "Opens zones explicitly", HELP_OPEN);
ZONE_VERB(close, ZQCOW2_OP_ZONE_CLOSE, "Closes open zones", HELP_OPEN);
ZONE_VERB(finish, ZQCOW2_OP_ZONE_FINISH, "Makes zones full", HELP);
ZONE_VERB(reset, ZQCOW2_OP_ZONE_RESET, "Empties zones", HELP);
