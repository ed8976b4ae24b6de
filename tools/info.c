/* SPDX-License-Identifier: MIT */
/* The verb info: what an image is, as text or JSON. */
#include <inttypes.h>
#include <sys/stat.h>

#include "json.h"
#include "tool.h"

static const struct {
    char group; /* i, c, a: incompatible, compatible, autoclear bit; f: zqcow2_info_flag */
    uint64_t mask;
    const char *name;
} features[] = {
    {'i', 1 << 0, "dirty bit"},
    {'i', 1 << 1, "corrupt bit"},
    {'i', 1 << 2, "external data file"},
    {'i', 1 << 3, "compression type"},
    {'i', 1 << 4, "extended L2 entries"},
    {'i', 1 << 5, "zoned format"},
    {'c', 1 << 0, "lazy refcounts"},
    {'a', 1 << 0, "bitmaps"},
    {'a', 1 << 1, "raw external data"},
    {'f', ZQCOW2_INFO_SNAPSHOTS, "internal snapshots"},
    {'f', ZQCOW2_INFO_NO_ZONED_BIT, "zones without the feature bit (zqcow2 upgrade sets it)"},
    {'f', ZQCOW2_INFO_DIRTY, "not closed cleanly (the next writable open repairs it)"},
    {'f', ZQCOW2_INFO_OVER_ACTIVE, "more active zones stored than the limit"},
    {'f', ZQCOW2_INFO_SIZE_CUT, "size rounded down to a multiple of 512"},
    {'f', ZQCOW2_INFO_EMPTY_BACKING, "backing file without a name (ignored)"},
    {'f', ZQCOW2_INFO_DEAD, "dead: a flush or a metadata write failed"},
};

static uint64_t group_bits(const struct zqcow2_info *i, char group)
{
    switch (group) {
    case 'i': return i->incompatible_features;
    case 'c': return i->compatible_features;
    case 'a': return i->autoclear_features;
    default: return i->flags;
    }
}

/* Calls fn with the name of each feature in use; bits that have none here go by their number. */
static void each_feature(const struct zqcow2_info *i, void (*fn)(void *arg, const char *name),
                         void *arg)
{
    static const struct {
        char group;
        const char *name;
    } groups[] = {{'i', "incompatible"}, {'c', "compatible"}, {'a', "autoclear"}};
    uint64_t named[3] = {0, 0, 0};
    char text[32];

    for (size_t f = 0; f < ZT_COUNT(features); f++) {
        if (group_bits(i, features[f].group) & features[f].mask)
            fn(arg, features[f].name);
        for (size_t g = 0; g < ZT_COUNT(groups); g++)
            named[g] |= features[f].group == groups[g].group ? features[f].mask : 0;
    }
    for (unsigned k = 0; k < ZT_COUNT(groups) * 64; k++) {
        if (!(group_bits(i, groups[k / 64].group) & ~named[k / 64] & (uint64_t)1 << k % 64))
            continue;
        snprintf(text, sizeof(text), "%s bit %u", groups[k / 64].name, k % 64);
        fn(arg, text);
    }
}

static void json_feature(void *arg, const char *name)
{
    zt_json_str(arg, NULL, name);
}

static void text_feature(void *arg, const char *name)
{
    (void)arg;
    printf("feature: %s\n", name);
}

/* What the file takes of its file system; UINT64_MAX: it is none, or not to be seen. */
static uint64_t disk_size(const char *path)
{
    struct stat st;

    return stat(path, &st) == 0 && S_ISREG(st.st_mode) ? (uint64_t)st.st_blocks * 512 : UINT64_MAX;
}

static void print_json(const char *path, const struct zqcow2_info *i)
{
    uint64_t disk = disk_size(path);
    struct zt_json j = {.out = stdout};

    zt_json_open(&j, NULL, '{');
    zt_json_str(&j, "filename", path);
#define MEMBER(name) zt_json_u64(&j, #name, i->name)
    MEMBER(virtual_size);
    MEMBER(zone_size);
    MEMBER(zone_capacity);
    MEMBER(file_size);
    if (disk == UINT64_MAX)
        zt_json_str(&j, "disk_size", NULL);
    else
        zt_json_u64(&j, "disk_size", disk);
    MEMBER(incompatible_features);
    MEMBER(compatible_features);
    MEMBER(autoclear_features);
    MEMBER(nr_zones);
    MEMBER(nr_conventional);
    MEMBER(max_open_zones);
    MEMBER(max_active_zones);
    MEMBER(open_zones);
    MEMBER(active_zones);
    MEMBER(max_append_bytes);
    MEMBER(block_size);
    MEMBER(cluster_size);
    MEMBER(refcount_bits);
    MEMBER(version);
    zt_json_str(&j, "layout", zt_layout_name(i->layout));
    MEMBER(flags);
    MEMBER(compression_type);
#undef MEMBER
    zt_json_open(&j, "features", '[');
    each_feature(i, json_feature, &j);
    zt_json_close(&j, ']');
    zt_json_close(&j, '}');
}

static void print_size(const char *what, uint64_t bytes)
{
    char text[32];

    printf("%s: %s (%" PRIu64 " bytes)\n", what, zt_human(text, sizeof(text), bytes), bytes);
}

static void print_limit(const char *what, uint32_t now, uint32_t limit)
{
    if (limit)
        printf("%s: %" PRIu32 " of at most %" PRIu32 "\n", what, now, limit);
    else
        printf("%s: %" PRIu32 ", no limit\n", what, now);
}

static void print_zones(const struct zqcow2_info *i)
{
    const char *layout = zt_layout_name(i->layout);

    printf("zones: %" PRIu32 ", %" PRIu32 " of them conventional\n", i->nr_zones,
           i->nr_conventional);
    print_size("zone size", i->zone_size);
    print_size("zone capacity", i->zone_capacity);
    print_limit("open zones", i->open_zones, i->max_open_zones);
    print_limit("active zones", i->active_zones, i->max_active_zones);
    print_size("largest append", i->max_append_bytes);
    printf("zoned layout: %s\n", layout ? layout : "none");
}

static void print_text(const char *path, const struct zqcow2_info *i)
{
    uint64_t disk = disk_size(path);

    zt_line(stdout, "image: %s", path);
    printf("format: qcow2 version %" PRIu32 ", %s\n", i->version,
           i->flags & ZQCOW2_INFO_ZONED ? "host-managed zones" : "no zones");
    print_size("virtual size", i->virtual_size);
    print_size("file size", i->file_size);
    if (disk != UINT64_MAX)
        print_size("disk size", disk);
    print_size("cluster size", i->cluster_size);
    printf("refcount bits: %" PRIu32 "\n", i->refcount_bits);
    printf("compression: %s\n", i->compression_type ? "zstd" : "zlib");
    if (i->flags & ZQCOW2_INFO_ZONED)
        print_zones(i);
    each_feature(i, text_feature, NULL);
}

static int run(int argc, char **argv)
{
    static const struct option longs[] = {ZT_OPTION_BACKEND,
                                          ZT_OPTION_SHARE,
                                          {"json", no_argument, NULL, ZT_OPT_VERB},
                                          ZT_OPTION_END};
    static const char *const names[] = {"FILE"};
    struct zt_options o = {.name = argv[0], .shorts = ":U", .longs = longs};
    struct zt_target t = {.share = false};
    struct zqcow2_image *img;
    struct zqcow2_info info;
    bool json = false, ok;
    int c;

    while ((c = zt_option(&o, argc, argv)) != -1) {
        if (c == ZT_OPT_VERB)
            json = true;
        else if (!zt_target_option(&t, c))
            return 1;
    }
    if (!zt_operands(argc, argv, 1, 1, names))
        return 1;
    t.path = argv[optind];
    img = zt_open(&t, 0);
    if (!img)
        return 1;
    ok = zt_info(&t, img, &info);
    if (ok && json)
        print_json(t.path, &info);
    else if (ok)
        print_text(t.path, &info);
    return zt_close(&t, img, ok ? 0 : 1);
}

const struct zt_verb zt_verb_info = {
    "info", "[--json] [-U] [--backend=NAME] FILE", "Shows the properties of an image",
    "  --json                  the members of struct zqcow2_info, the disk space of the file,\n"
    "                          and the features in use\n" ZT_HELP_SHARE ZT_HELP_BACKEND,
    run};
