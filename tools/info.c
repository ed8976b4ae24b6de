/* SPDX-License-Identifier: MIT */
/* The verb info: what an image is, as text or JSON. */
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>

#include "info.h"

enum { OPT_JSON = ZT_OPT_VERB, OPT_CHAIN, OPT_OUTPUT };

#define EXTERNAL_DATA (1 << 2) /* of the incompatible features */

static const struct {
    char group; /* i, c, a: incompatible, compatible, autoclear bit; f: zqcow2_info_flag */
    uint64_t mask;
    const char *name;
} features[] = {
    {'i', 1 << 0, "dirty bit"},
    {'i', 1 << 1, "corrupt bit"},
    {'i', EXTERNAL_DATA, "external data file"},
    {'i', 1 << 3, "compression type"},
    {'i', 1 << 4, "extended L2 entries"},
    {'i', 1 << 5, "zoned format"},
    {'c', 1 << 0, "lazy refcounts"},
    {'a', 1 << 0, "bitmaps"},
    {'a', 1 << 1, "raw external data"},
    {'a', (uint64_t)1 << 63, "stored zone states"},
    {'f', ZQCOW2_INFO_SNAPSHOTS, "internal snapshots"},
    {'f', ZQCOW2_INFO_NO_ZONED_BIT, "zones without the feature bit (zqcow2 upgrade sets it)"},
    {'f', ZQCOW2_INFO_DIRTY, "not closed cleanly (the next writable open repairs it)"},
    {'f', ZQCOW2_INFO_OVER_ACTIVE, "more active zones stored than the limit"},
    {'f', ZQCOW2_INFO_SIZE_CUT, "size rounded down to a multiple of 512"},
    {'f', ZQCOW2_INFO_STATES_VOID, "stored zone states are void: another program wrote the image"},
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

uint64_t zt_disk_size(const char *path)
{
    struct stat st;

    return stat(path, &st) == 0 && S_ISREG(st.st_mode) ? (uint64_t)st.st_blocks * 512 : UINT64_MAX;
}

static const char *or_null(const char *text)
{
    return text[0] ? text : NULL;
}

static void json_disk_size(struct zt_json *j, const char *path)
{
    uint64_t disk = zt_disk_size(path);

    if (disk == UINT64_MAX)
        zt_json_str(j, "disk_size", NULL);
    else
        zt_json_u64(j, "disk_size", disk);
}

static void json_raw(struct zt_json *j, const struct zt_layer *l)
{
    zt_json_open(j, NULL, '{');
    zt_json_str(j, "filename", l->path);
    zt_json_str(j, "format", "raw");
    zt_json_u64(j, "virtual_size", l->info.virtual_size);
    zt_json_u64(j, "file_size", l->info.file_size);
    json_disk_size(j, l->path);
    zt_json_close(j, '}');
}

static void json_bitmap(void *j, const struct zqcow2_bitmap *b)
{
    zt_json_bitmap(j, b);
}

void zt_list_bitmaps(const struct zt_layer *l, zqcow2_bitmap_fn *each, void *arg)
{
    struct zqcow2_error err = {0, ""};
    int rc = zqcow2_bitmap_list(l->img, each, arg, &err);

    if (rc < 0)
        zt_error("%s: bitmaps: %s", l->path, zt_reason(rc, &err));
}

static void print_json(struct zt_json *j, const struct zt_layer *l)
{
    const struct zqcow2_info *i = &l->info;

    zt_json_open(j, NULL, '{');
    zt_json_str(j, "filename", l->path);
#define MEMBER(name) zt_json_u64(j, #name, i->name)
    MEMBER(virtual_size);
    MEMBER(zone_size);
    MEMBER(zone_capacity);
    MEMBER(file_size);
    json_disk_size(j, l->path);
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
    zt_json_str(j, "layout", zt_layout_name(i->layout));
    MEMBER(flags);
    MEMBER(compression_type);
    MEMBER(descriptor_extension);
#undef MEMBER
    zt_json_str(j, "backing_file", or_null(l->backing.name));
    zt_json_str(j, "backing_format", or_null(l->backing.format));
    zt_json_str(j, "data_file", or_null(l->backing.data_file));
    zt_json_open(j, "features", '[');
    each_feature(i, json_feature, j);
    zt_json_close(j, ']');
    zt_json_open(j, "bitmaps", '[');
    zt_list_bitmaps(l, json_bitmap, j);
    zt_json_close(j, ']');
    zt_json_close(j, '}');
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
    if (i->descriptor_extension)
        printf("descriptor extension: %" PRIu32 " bytes\n", i->descriptor_extension);
    printf("zoned layout: %s\n", layout ? layout : "none");
}

static void print_sizes(const struct zt_layer *l)
{
    uint64_t disk = zt_disk_size(l->path);

    print_size("virtual size", l->info.virtual_size);
    print_size("file size", l->info.file_size);
    if (disk != UINT64_MAX)
        print_size("disk size", disk);
}

void zt_text_bitmap(void *arg, const struct zqcow2_bitmap *b)
{
    char granularity[32], dirty[32];

    (void)arg;
    zt_human(granularity, sizeof(granularity), b->granularity);
    zt_human(dirty, sizeof(dirty), b->dirty_bytes);
    if (b->flags & ZQCOW2_BITMAP_INCONSISTENT)
        zt_line(stdout, "bitmap: %s, granularity %s, inconsistent", b->name, granularity);
    else
        zt_line(stdout, "bitmap: %s, granularity %s, %s, %s dirty", b->name, granularity,
                b->flags & ZQCOW2_BITMAP_ENABLED ? "enabled" : "disabled", dirty);
}

static void print_text(const struct zt_layer *l)
{
    const struct zqcow2_info *i = &l->info;

    zt_line(stdout, "image: %s", l->path);
    if (l->raw) {
        printf("format: raw\n");
        print_sizes(l);
        return;
    }
    printf("format: qcow2 version %" PRIu32 ", %s\n", i->version,
           i->flags & ZQCOW2_INFO_ZONED ? "host-managed zones" : "no zones");
    print_sizes(l);
    if (l->backing.name[0])
        zt_line(stdout, "backing file: %s", l->backing.name);
    if (l->backing.format[0])
        zt_line(stdout, "backing file format: %s", l->backing.format);
    if (l->backing.data_file[0])
        zt_line(stdout, "data file: %s", l->backing.data_file);
    else if (i->incompatible_features & EXTERNAL_DATA)
        printf("data file: its name is not stored; give --data-file=FILE\n");
    print_size("cluster size", i->cluster_size);
    printf("refcount bits: %" PRIu32 "\n", i->refcount_bits);
    printf("compression: %s\n", i->compression_type ? "zstd" : "zlib");
    if (i->flags & ZQCOW2_INFO_ZONED)
        print_zones(i);
    each_feature(i, text_feature, NULL);
    zt_list_bitmaps(l, zt_text_bitmap, NULL);
}

struct showing {
    struct zt_target target;
    bool json, qemu, chain; /* qemu: in the form of qemu-img */
    struct zt_json j;
};

static void show(struct showing *s, const struct zt_layer *l, uint32_t depth)
{
    if (!s->json && depth)
        printf("\n");
    if (s->qemu && s->json)
        zt_qemu_info_json(&s->j, l);
    else if (s->qemu)
        zt_qemu_info_text(l);
    else if (!s->json)
        print_text(l);
    else if (l->raw)
        json_raw(&s->j, l);
    else
        print_json(&s->j, l);
}

/* The image at t->path: shows it, and says in *next what it names. */
static int show_image(struct showing *s, const struct zt_target *t, uint32_t depth,
                      struct zqcow2_backing *next)
{
    struct zt_layer l = {.path = t->path, .backing = ZQCOW2_BACKING_INIT};
    struct zqcow2_image *img = zt_open(t, 0);
    bool ok;

    if (!img)
        return 1;
    l.img = img;
    ok = zt_info(t, img, &l.info) && zqcow2_get_backing(img, &l.backing) == 0;
    *next = l.backing;
    if (ok)
        show(s, &l, depth);
    return zt_close(t, img, ok ? 0 : 1);
}

static int show_raw(struct showing *s, const char *path, struct zqcow2_backend *be, uint32_t depth)
{
    struct zt_layer l = {.path = path, .raw = true};
    uint64_t bytes;
    int rc = zqcow2_backend_length(be, &bytes);

    if (rc < 0) {
        zt_error("%s: %s", path, zqcow2_strerror(rc));
        return 1;
    }
    l.info.file_size = bytes;
    l.info.virtual_size = (bytes + ZT_SECTOR - 1) / ZT_SECTOR * ZT_SECTOR;
    show(s, &l, depth);
    return 0;
}

/* The file that *next names: only what the resolver would open is shown. */
static int show_below(struct showing *s, struct zqcow2_resolver *r, uint32_t depth,
                      struct zqcow2_backing *next)
{
    struct zt_target t = s->target;
    struct zqcow2_error err = {0, ""};
    struct zqcow2_backend *be;
    const char *format = next->format;
    int rc, status;

    if (!format[0] && depth == 1 && t.backing_format)
        format = t.backing_format;
    if (!format[0]) {
        zt_error("backing file \"%s\": its format is not stored: add --backing-format=raw|qcow2",
                 next->name);
        return 1;
    }
    rc = zqcow2_resolve_file(r, next->name, format, depth, &be, &err);
    if (rc < 0) {
        zt_error("backing file \"%s\": %s", next->name, zt_reason(rc, &err));
        return 1;
    }
    t.path = zqcow2_resolver_path(r, depth);
    t.backend = NULL;
    if (!strcmp(format, "raw")) {
        next->name[0] = '\0';
        status = show_raw(s, t.path, be, depth);
    } else {
        status = show_image(s, &t, depth, next);
    }
    zqcow2_backend_close(be);
    return status;
}

static int show_chain(struct showing *s)
{
    struct zqcow2_backing next = ZQCOW2_BACKING_INIT;
    struct zqcow2_resolver *r = NULL;
    int status;

    s->j.out = stdout;
    if (s->json && s->chain)
        zt_json_open(&s->j, NULL, '[');
    status = show_image(s, &s->target, 0, &next);
    if (!status && s->chain && next.name[0])
        status = (r = zt_resolver(&s->target)) ? 0 : 1;
    for (uint32_t depth = 1; !status && s->chain && next.name[0]; depth++)
        status = show_below(s, r, depth, &next);
    if (s->json && s->chain)
        zt_json_close(&s->j, ']');
    zqcow2_resolver_free(r);
    return status;
}

static int run(int argc, char **argv)
{
    static const struct option longs[] = {ZT_OPTION_BACKEND,
                                          ZT_OPTION_SHARE,
                                          {"json", no_argument, NULL, OPT_JSON},
                                          {"output", required_argument, NULL, OPT_OUTPUT},
                                          {"backing-chain", no_argument, NULL, OPT_CHAIN},
                                          ZT_OPTION_BACKING_ROOT,
                                          ZT_OPTION_BACKING_FORMAT,
                                          ZT_OPTION_END};
    static const char *const names[] = {"FILE"};
    struct zt_options o = {.name = argv[0], .shorts = ":U", .longs = longs};
    struct showing s = {.json = false};
    bool json = false;
    int c;

    s.target.no_backing = true; /* what an image is does not depend on what is below it */
    while ((c = zt_option(&o, argc, argv)) != -1) {
        if (c == OPT_JSON)
            json = true;
        else if (c == OPT_CHAIN)
            s.chain = true;
        else if (c == OPT_OUTPUT ? !zt_output_form(optarg, &s.json) :
                                   !zt_target_option(&s.target, c))
            return 1;
    }
    s.qemu = o.seen[OPT_OUTPUT];
    if (s.qemu && json) {
        zt_error("info: --json and --output cannot be given together");
        return 1;
    }
    s.json |= json;
    if (!zt_operands(argc, argv, 1, 1, names))
        return 1;
    s.target.path = argv[optind];
    return show_chain(&s);
}

const struct zt_verb zt_verb_info = {
    "info",
    "[--json | --output=FORM] [--backing-chain] [--backing-root=DIR] [--backing-format=FMT] [-U] "
    "[--backend=NAME] "
    "FILE",
    "Shows the properties of an image",
    "  --json                  the members of struct zqcow2_info, the disk space of the file,\n"
    "                          the backing file, the features in use, and bitmaps\n"
    "  --output=FORM           human or json: as qemu-img info prints it, which knows no zones\n"
    "  --backing-chain         also show each backing file; with --json, an array\n"
    "  --backing-root=DIR      open backing files in DIR only\n"
    "  --backing-format=FMT    raw or qcow2, if the image stores no format\n" ZT_HELP_SHARE
        ZT_HELP_BACKEND,
    run};
