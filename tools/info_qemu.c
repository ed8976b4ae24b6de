/* SPDX-License-Identifier: MIT */
/* The verb info in the form of qemu-img, as programs and people that know that one expect it. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "info.h"

#define DIRTY         (1u << 0) /* incompatible features */
#define CORRUPT       (1u << 1)
#define EXTERNAL_DATA (1u << 2)
#define EXTENDED_L2   (1u << 4)
#define LAZY          (1u << 0) /* of the compatible ones */
#define RAW_DATA      (1u << 1) /* autoclear */

static const char *form(const struct zt_layer *l)
{
    return l->raw ? "raw" : "qcow2";
}

static const char *compat(const struct zqcow2_info *i)
{
    return i->version == 3 ? "1.1" : "0.10";
}

static const char *compression(const struct zqcow2_info *i)
{
    return i->compression_type ? "zstd" : "zlib";
}

/*
 * Where the stored name leads, relative to the folder of the image; free() it. Not for one that
 * cannot be opened: the name alone is looked at.
 */
static char *full_name(const struct zt_layer *l)
{
    const char *name = l->backing.name, *slash = strrchr(l->path, '/');
    bool whole = name[0] == '/' || name[strcspn(name, ":/")] == ':'; /* or with a protocol */
    size_t folder = slash && !whole ? (size_t)(slash - l->path) + 1 : 0;
    size_t room = folder + strlen(name) + 1;
    char *full = malloc(room);

    if (full)
        snprintf(full, room, "%.*s%s", (int)folder, l->path, name);
    return full;
}

/* ---- text ---- */

static const char *yes(uint64_t bit)
{
    return bit ? "true" : "false";
}

struct bitmaps {
    struct zt_json *j; /* NULL: text */
    unsigned nr;
};

static void text_flags(const struct zqcow2_bitmap *b)
{
    unsigned nr = 0;

    printf("            flags:\n");
    if (b->flags & ZQCOW2_BITMAP_INCONSISTENT)
        printf("                [%u]: in-use\n", nr++);
    if (b->flags & ZQCOW2_BITMAP_ENABLED)
        printf("                [%u]: auto\n", nr);
}

static void text_bitmap(void *arg, const struct zqcow2_bitmap *b)
{
    struct bitmaps *m = arg;

    if (!m->nr)
        printf("    bitmaps:\n");
    printf("        [%u]:\n", m->nr++);
    text_flags(b);
    zt_line(stdout, "            name: %s", b->name);
    printf("            granularity: %" PRIu64 "\n", (uint64_t)b->granularity);
}

static void text_sizes(const struct zt_layer *l)
{
    uint64_t disk = zt_disk_size(l->path), size = l->info.virtual_size;
    char text[32];

    zt_put_size(text, sizeof(text), size);
    printf("virtual size: %s (%" PRIu64 " bytes)\n", text, size);
    zt_put_size(text, sizeof(text), disk);
    printf("disk size: %s\n", disk == UINT64_MAX ? "unavailable" : text);
}

static void text_backing(const struct zt_layer *l)
{
    char *full = l->backing.name[0] ? full_name(l) : NULL;

    if (full && strcmp(full, l->backing.name) != 0)
        zt_line(stdout, "backing file: %s (actual path: %s)", l->backing.name, full);
    else if (l->backing.name[0])
        zt_line(stdout, "backing file: %s", l->backing.name);
    if (l->backing.format[0])
        zt_line(stdout, "backing file format: %s", l->backing.format);
    free(full);
}

static void text_data_file(const struct zt_layer *l)
{
    const struct zqcow2_info *i = &l->info;

    if (!(i->incompatible_features & EXTERNAL_DATA))
        return;
    if (l->backing.data_file[0])
        zt_line(stdout, "    data file: %s", l->backing.data_file);
    printf("    data file raw: %s\n", yes(i->autoclear_features & RAW_DATA));
}

static void text_specific(const struct zt_layer *l)
{
    const struct zqcow2_info *i = &l->info;
    struct bitmaps m = {.j = NULL};

    printf("Format specific information:\n    compat: %s\n    compression type: %s\n", compat(i),
           compression(i));
    if (i->version == 3)
        printf("    lazy refcounts: %s\n", yes(i->compatible_features & LAZY));
    zt_list_bitmaps(l, text_bitmap, &m);
    printf("    refcount bits: %" PRIu32 "\n", i->refcount_bits);
    text_data_file(l);
    if (i->version == 3)
        printf("    corrupt: %s\n    extended l2: %s\n", yes(i->incompatible_features & CORRUPT),
               yes(i->incompatible_features & EXTENDED_L2));
}

void zt_qemu_info_text(const struct zt_layer *l)
{
    struct zqcow2_error err = {0, ""};

    zt_line(stdout, "image: %s", l->path);
    printf("file format: %s\n", form(l));
    text_sizes(l);
    if (l->raw)
        return;
    if (l->info.incompatible_features & DIRTY)
        printf("cleanly shut down: no\n");
    printf("cluster_size: %" PRIu32 "\n", l->info.cluster_size);
    text_backing(l);
    if (zt_snapshot_list(stdout, false, l->img, &err) < 0)
        zt_error("%s: snapshots: %s", l->path, err.text);
    text_specific(l);
}

/* ---- JSON ---- */

static void json_bitmap(void *arg, const struct zqcow2_bitmap *b)
{
    struct bitmaps *m = arg;

    if (!m->nr++)
        zt_json_open(m->j, "bitmaps", '[');
    zt_json_bitmap_begin(m->j, b);
    zt_json_close(m->j, '}');
}

static void json_data_file(struct zt_json *j, const struct zt_layer *l)
{
    const struct zqcow2_info *i = &l->info;

    if (!(i->incompatible_features & EXTERNAL_DATA))
        return;
    if (l->backing.data_file[0])
        zt_json_str(j, "data-file", l->backing.data_file);
    zt_json_bool(j, "data-file-raw", i->autoclear_features & RAW_DATA);
}

static void json_specific(struct zt_json *j, const struct zt_layer *l)
{
    const struct zqcow2_info *i = &l->info;
    struct bitmaps m = {.j = j};

    zt_json_open(j, "format-specific", '{');
    zt_json_str(j, "type", form(l));
    zt_json_open(j, "data", '{');
    zt_json_str(j, "compat", compat(i));
    zt_json_str(j, "compression-type", compression(i));
    if (i->version == 3)
        zt_json_bool(j, "lazy-refcounts", i->compatible_features & LAZY);
    zt_list_bitmaps(l, json_bitmap, &m);
    if (m.nr)
        zt_json_close(j, ']');
    zt_json_u64(j, "refcount-bits", i->refcount_bits);
    json_data_file(j, l);
    if (i->version == 3) {
        zt_json_bool(j, "corrupt", i->incompatible_features & CORRUPT);
        zt_json_bool(j, "extended-l2", i->incompatible_features & EXTENDED_L2);
    }
    zt_json_close(j, '}');
    zt_json_close(j, '}');
}

static void json_backing(struct zt_json *j, const struct zt_layer *l)
{
    char *full = l->backing.name[0] ? full_name(l) : NULL;

    if (full)
        zt_json_str(j, "full-backing-filename", full);
    if (l->backing.name[0])
        zt_json_str(j, "backing-filename", l->backing.name);
    free(full);
}

static void json_snapshots(struct zt_json *j, const struct zt_layer *l)
{
    struct zqcow2_error err = {0, ""};

    if (!(l->info.flags & ZQCOW2_INFO_SNAPSHOTS))
        return;
    zt_json_open(j, "snapshots", '[');
    if (zt_snapshot_members(j, l->img, &err) < 0)
        zt_error("%s: snapshots: %s", l->path, err.text);
    zt_json_close(j, ']');
}

void zt_qemu_info_json(struct zt_json *j, const struct zt_layer *l)
{
    uint64_t disk = zt_disk_size(l->path);

    zt_json_open(j, NULL, '{');
    if (l->backing.format[0])
        zt_json_str(j, "backing-filename-format", l->backing.format);
    json_snapshots(j, l);
    zt_json_u64(j, "virtual-size", l->info.virtual_size);
    zt_json_str(j, "filename", l->path);
    if (!l->raw)
        zt_json_u64(j, "cluster-size", l->info.cluster_size);
    zt_json_str(j, "format", form(l));
    if (disk != UINT64_MAX)
        zt_json_u64(j, "actual-size", disk);
    if (!l->raw)
        json_specific(j, l);
    json_backing(j, l);
    zt_json_bool(j, "dirty-flag", l->info.incompatible_features & DIRTY);
    zt_json_close(j, '}');
}
