/* SPDX-License-Identifier: MIT */
/* The verb state: a state that zones keep when the image is closed. */
#include <inttypes.h>
#include <string.h>

#include "tool.h"

struct setting {
    struct zt_target target;
    bool has_offset;
    uint64_t offset, count;
    unsigned state;
};

static bool take_state(struct setting *s, const char *text)
{
    static const struct {
        const char *name;
        unsigned state;
    } states[] = {{"normal", ZQCOW2_ZONE_NOT_WP},
                  {"read-only", ZQCOW2_ZONE_RDONLY},
                  {"offline", ZQCOW2_ZONE_OFFLINE}};

    for (size_t i = 0; i < ZT_COUNT(states); i++) {
        if (!strcmp(text, states[i].name)) {
            s->state = states[i].state;
            return true;
        }
    }
    zt_error("state: must be normal, read-only or offline, not '%s'", text);
    return false;
}

static int set(struct setting *s, struct zqcow2_image *img)
{
    struct zqcow2_info i;
    uint64_t first;
    char text[192];
    int rc = 0;

    if (!zt_zoned_info(&s->target, img, &i))
        return 1;
    first = s->offset / i.zone_size;
    if (s->offset >= i.virtual_size || s->count == 0 || s->count > i.nr_zones - first) {
        zt_error("%s: state: there are no %" PRIu64 " zones from %" PRIu64 " on", s->target.path,
                 s->count, s->offset);
        return 1;
    }
    for (uint64_t zone = first; rc == 0 && zone < first + s->count; zone++) {
        uint64_t off = zone * i.zone_size;

        rc = zqcow2_zone_set_state(img, off, s->state | ZQCOW2_ZONE_PERSIST);
        s->target.failure = rc;
        if (rc < 0)
            zt_error("%s: state of the zone at %" PRIu64 ": %s", s->target.path, off,
                     rc == ZQCOW2_EFEATURE ? "the header has no room for stored states" :
                                             zt_zone_reason(img, rc, off, text, sizeof(text)));
    }
    return rc < 0;
}

static bool parse(struct setting *s, int argc, char **argv)
{
    static const struct option longs[] = {ZT_OPTION_BACKEND,
                                          ZT_OPTION_SOURCES,
                                          {"offset", required_argument, NULL, 'o'},
                                          {"count", required_argument, NULL, 'c'},
                                          ZT_OPTION_END};
    static const char *const names[] = {"FILE", "STATE"};
    struct zt_options o = {.name = argv[0], .shorts = ":o:c:", .longs = longs};
    bool ok = true;
    int c;

    while (ok && (c = zt_option(&o, argc, argv)) != -1) {
        if (c == 'o')
            ok = s->has_offset = zt_size_arg("-o", optarg, &s->offset);
        else if (c == 'c')
            ok = zt_u64_arg("-c", optarg, &s->count);
        else
            ok = zt_target_option(&s->target, c);
    }
    if (!ok || !zt_operands(argc, argv, 2, 2, names))
        return false;
    s->target.path = argv[optind];
    if (!s->has_offset) {
        zt_error("state: give -o OFFSET");
        return false;
    }
    return take_state(s, argv[optind + 1]);
}

static int run(int argc, char **argv)
{
    struct setting s = {.count = 1};
    struct zqcow2_image *img;

    if (!parse(&s, argc, argv))
        return 1;
    img = zt_open(&s.target, ZQCOW2_OPEN_RDWR);
    return img ? zt_close(&s.target, img, set(&s, img)) : 1;
}

const struct zt_verb zt_verb_state = {
    "state",
    "-o OFFSET [-c COUNT] " ZT_USE_SOURCES "[--backend=NAME] FILE {normal|read-only|offline}",
    "Makes zones read-only or offline, or normal again",
    "  -o, --offset=OFFSET     the zone that contains OFFSET\n"
    "  -c, --count=COUNT       the number of zones; 1\n" ZT_HELP_SOURCES ZT_HELP_BACKEND
    "The image stores the state until another program than this library writes the image.\n",
    run};
