/* SPDX-License-Identifier: MIT */
/* The verb report: the zones of an image, as blkzone(8) prints them, as JSON, or as a picture. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "json.h"
#include "tool.h"

enum { OPT_JSON = ZT_OPT_VERB, OPT_MAP, OPT_STATE };

struct report {
    struct zt_target target;
    bool json, map;
    uint64_t offset, count;
    uint32_t states; /* 0: all */
};

/* What the callbacks print to, and read extensions from. */
struct listing {
    struct zqcow2_image *img;
    uint32_t extension; /* bytes; 0: zones have none */
    struct zt_json j;
    int rc;
};

/* RDONLY and OFFLINE zones have no pointer: all ones in sectors too, as Linux drivers report it. */
static uint64_t wp_sectors(const struct zqcow2_zone *z)
{
    uint64_t wp = z->write_pointer == UINT64_MAX ? UINT64_MAX : z->write_pointer / ZT_SECTOR;

    return z->type == ZQCOW2_ZONE_CONVENTIONAL ? 0 : wp - z->start / ZT_SECTOR;
}

static void print_zone(void *arg, uint64_t index, const struct zqcow2_zone *z)
{
    static const char *const conditions[16] = {"nw", "em", "oi", "oe", "cl", "x5", "x6", "x7",
                                               "x8", "x9", "xA", "xB", "xC", "ro", "fu", "of"};

    (void)arg;
    (void)index;
    printf("  start: 0x%09" PRIx64 ", len 0x%06" PRIx64 ", cap 0x%06" PRIx64 ", wptr 0x%06" PRIx64
           " reset:0 non-seq:0, zcond:%2u(%s) [type: %u(%s)]%s\n",
           z->start / ZT_SECTOR, z->length / ZT_SECTOR, z->capacity / ZT_SECTOR, wp_sectors(z),
           z->state, conditions[z->state & 15], z->type,
           z->type == ZQCOW2_ZONE_CONVENTIONAL ? "CONVENTIONAL" : "SEQ_WRITE_REQUIRED",
           z->attributes & ZQCOW2_ZONE_DESCRIBED ? " [descriptor extension]" : "");
}

/* In hexadecimal; null: the zone has none. */
static void json_extension(struct listing *l, const struct zqcow2_zone *z)
{
    uint8_t *data = zt_buffer(l->extension);
    char *text = malloc(2 * (size_t)l->extension + 1);
    uint32_t nr = 1;
    int rc = data && text ? zqcow2_zone_get_descriptors(l->img, z->start, data, &nr) : -ENOMEM;

    for (uint32_t i = 0; rc == 0 && i < l->extension; i++)
        snprintf(text + 2 * (size_t)i, 3, "%02x", data[i]);
    zt_json_str(&l->j, "descriptor_extension",
                rc == 0 && z->attributes & ZQCOW2_ZONE_DESCRIBED ? text : NULL);
    l->rc = l->rc < 0 ? l->rc : rc;
    free(text);
    free(data);
}

static void json_zone(void *arg, uint64_t index, const struct zqcow2_zone *z)
{
    struct listing *l = arg;
    struct zt_json *j = &l->j;

    zt_json_open(j, NULL, '{');
    zt_json_u64(j, "index", index);
    zt_json_u64(j, "start", z->start);
    zt_json_u64(j, "length", z->length);
    zt_json_u64(j, "capacity", z->capacity);
    zt_json_u64(j, "write_pointer", z->write_pointer);
    zt_json_str(j, "type", zt_type_name(z->type));
    zt_json_str(j, "state", zt_state_name(z->state));
    if (l->extension)
        json_extension(l, z);
    zt_json_close(j, '}');
}

static int print_report(const struct report *r, struct zqcow2_image *img,
                        const struct zqcow2_info *info)
{
    struct listing l = {img, info->descriptor_extension, {.out = stdout}, 0};
    int rc;

    if (r->map)
        return zt_picture(img, info, r->offset, r->count, r->target.path);
    if (!r->json)
        return zt_each_zone(img, info, r->offset, r->count, r->states, print_zone, NULL);
    zt_json_open(&l.j, NULL, '[');
    rc = zt_each_zone(img, info, r->offset, r->count, r->states, json_zone, &l);
    zt_json_close(&l.j, ']');
    return rc < 0 ? rc : l.rc;
}

static int report(const struct report *r, struct zqcow2_image *img)
{
    struct zqcow2_info info;
    int rc;

    if (!zt_zoned_info(&r->target, img, &info))
        return 1;
    if (r->offset >= info.virtual_size) {
        zt_error("%s: offset %" PRIu64 " is not on the device (%" PRIu64 " bytes)", r->target.path,
                 r->offset, info.virtual_size);
        return 1;
    }
    rc = print_report(r, img, &info);
    if (rc < 0)
        zt_error("%s: report: %s", r->target.path, zqcow2_strerror(rc));
    return rc < 0;
}

static bool parse(struct report *r, int argc, char **argv)
{
    static const struct option longs[] = {ZT_OPTION_BACKEND,
                                          ZT_OPTION_SHARE,
                                          {"json", no_argument, NULL, OPT_JSON},
                                          {"map", no_argument, NULL, OPT_MAP},
                                          {"state", required_argument, NULL, OPT_STATE},
                                          {"offset", required_argument, NULL, 'o'},
                                          {"count", required_argument, NULL, 'c'},
                                          ZT_OPTION_END};
    static const char *const names[] = {"FILE"};
    struct zt_options o = {.name = argv[0], .shorts = ":Uo:c:", .longs = longs};
    bool ok = true;
    int c;

    while (ok && (c = zt_option(&o, argc, argv)) != -1) {
        if (c == OPT_JSON)
            r->json = true;
        else if (c == OPT_MAP)
            r->map = true;
        else if (c == OPT_STATE)
            ok = zt_parse_states(optarg, &r->states);
        else if (c == 'o')
            ok = zt_size_arg("-o", optarg, &r->offset);
        else if (c == 'c')
            ok = zt_u64_arg("-c", optarg, &r->count);
        else
            ok = zt_target_option(&r->target, c);
    }
    if (ok && r->map && (r->json || r->states)) {
        zt_error("report: --%s and --map are mutually exclusive", r->json ? "json" : "state");
        return false;
    }
    if (!ok || !zt_operands(argc, argv, 1, 1, names))
        return false;
    r->target.path = argv[optind];
    return true;
}

static int run(int argc, char **argv)
{
    struct report r = {.count = UINT64_MAX};
    struct zqcow2_image *img;

    r.target.no_backing = true; /* zones are the image's own, whatever is below it */
    if (!parse(&r, argc, argv))
        return 1;
    img = zt_open(&r.target, 0);
    return img ? zt_close(&r.target, img, report(&r, img)) : 1;
}

const struct zt_verb zt_verb_report = {
    "report", "[--json | --map] [--state=LIST] [-o OFFSET] [-c COUNT] [-U] [--backend=NAME] FILE",
    "Lists the zones, in the format of blkzone report (512-byte sectors)",
    "  --json                  an array, in bytes\n"
    "  --map                   a picture of the device\n"
    "  --state=STATE,...       only zones in these states: not-wp, empty, imp-open, exp-open,\n"
    "                          open (both), closed, read-only, full, offline\n"
    "  -o, --offset=OFFSET     start at the zone that contains OFFSET\n"
    "  -c, --count=COUNT       at most COUNT zones\n" ZT_HELP_SHARE ZT_HELP_BACKEND,
    run};
