/* SPDX-License-Identifier: MIT */
/* The verb state: what zones keep when the image is closed: a state, a descriptor extension. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "tool.h"

struct setting {
    struct zt_target target;
    bool has_offset;
    uint64_t offset, count;
    unsigned state;
    const char *descriptor; /* a file that has an extension; NULL: a state is set */
    uint8_t *data;          /* read from it */
    size_t len;
};

static bool take_state(struct setting *s, const char *text)
{
    if (zt_parse_forced(text, &s->state))
        return true;
    zt_error("state: must be normal, read-only or offline, not '%s'", text);
    return false;
}

/* Of the file as much as an extension has; zeros follow what is shorter. */
static bool read_data(struct setting *s, size_t len)
{
    FILE *f = fopen(s->descriptor, "rb");
    bool fits = false;

    s->len = len;
    s->data = calloc(1, len + 1);
    if (f && s->data)
        fits = fread(s->data, 1, len + 1, f) <= len && !ferror(f);
    if (!fits)
        zt_error("%s: %s", s->descriptor,
                 !f || !s->data || ferror(f) ?
                     strerror(errno) :
                     "is longer than a descriptor extension of the image");
    if (f)
        fclose(f);
    return fits;
}

static int set_zone(const struct setting *s, struct zqcow2_image *img, uint64_t off)
{
    return s->descriptor ? zqcow2_zone_set_descriptor(img, off, s->data, s->len) :
                           zqcow2_zone_set_state(img, off, s->state | ZQCOW2_ZONE_PERSIST);
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
        zt_error("%s: state: there are fewer than %" PRIu64 " zones from %" PRIu64 " on",
                 s->target.path, s->count, s->offset);
        return 1;
    }
    if (s->descriptor && !i.descriptor_extension) {
        zt_error("%s: state: its zones have no descriptor extensions", s->target.path);
        return 1;
    }
    if (s->descriptor && !read_data(s, i.descriptor_extension))
        return 1;
    for (uint64_t zone = first; rc == 0 && zone < first + s->count; zone++) {
        uint64_t off = zone * i.zone_size;

        rc = set_zone(s, img, off);
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
                                          {"descriptor", required_argument, NULL, 'd'},
                                          ZT_OPTION_END};
    static const char *const names[] = {"FILE", "STATE"};
    struct zt_options o = {.name = argv[0], .shorts = ":o:c:d:", .longs = longs};
    int operands, c;
    bool ok = true;

    while (ok && (c = zt_option(&o, argc, argv)) != -1) {
        if (c == 'o')
            ok = s->has_offset = zt_size_arg("-o", optarg, &s->offset);
        else if (c == 'c')
            ok = zt_u64_arg("-c", optarg, &s->count);
        else if (c == 'd')
            s->descriptor = optarg;
        else
            ok = zt_target_option(&s->target, c);
    }
    operands = s->descriptor ? 1 : 2;
    if (!ok || !zt_operands(argc, argv, operands, operands, names))
        return false;
    s->target.path = argv[optind];
    if (!s->has_offset) {
        zt_error("state: give -o OFFSET");
        return false;
    }
    return s->descriptor || take_state(s, argv[optind + 1]);
}

static int run(int argc, char **argv)
{
    struct setting s = {.count = 1};
    struct zqcow2_image *img;
    int status = 1;

    if (!parse(&s, argc, argv))
        return 1;
    if (s.descriptor) /* the only ones that know of them */
        s.target.rules = ZQCOW2_RULES_ZNS;
    img = zt_open(&s.target, ZQCOW2_OPEN_RDWR);
    if (img)
        status = zt_close(&s.target, img, set(&s, img));
    free(s.data);
    return status;
}

const struct zt_verb zt_verb_state = {
    "state",
    "-o OFFSET [-c COUNT] " ZT_USE_SOURCES
    "[--backend=NAME] {-d DATA FILE | FILE {normal|read-only|offline}}",
    "Makes zones read-only or offline, or normal again, or gives them a descriptor extension",
    "  -o, --offset=OFFSET     the zone that contains OFFSET\n"
    "  -c, --count=COUNT       the number of zones; 1\n"
    "  -d, --descriptor=DATA   give empty zones the bytes of the file DATA as "
    "extension\n" ZT_HELP_SOURCES ZT_HELP_BACKEND
    "The image stores the state until a program without this library writes the image.\n",
    run};
