/* SPDX-License-Identifier: MIT */
/* -o NAME=VALUE of create and convert, to struct zqcow2_create_options. */
#include <inttypes.h>
#include <string.h>

#include "image_options.h"

#define DEFAULT_ZONE_SIZE ((uint64_t)256 << 20)

enum value { V_SIZE, V_COUNT, V_WORD, V_TEXT };

#define GIB4 ((uint64_t)1 << 32)
/* The library knows what fits together; here is what a number can be at all. */
static const struct {
    const char *name;
    enum value value;
    uint64_t least, most; /* 0 would quietly mean the default where it is below `least` */
    const char *range;
    bool zoned; /* means nothing without zones */
} options[ZT_O_COUNT] = {
    [ZT_O_SIZE] = {"size", V_SIZE, 0, (uint64_t)1 << 62, "0, or 512 to 4E", false},
    [ZT_O_CLUSTER_SIZE] = {"cluster_size", V_SIZE, 512, 2u << 20, "512 to 2M", false},
    [ZT_O_REFCOUNT_BITS] = {"refcount_bits", V_COUNT, 1, 64, "1 to 64", false},
    [ZT_O_LAZY_REFCOUNTS] = {"lazy_refcounts", V_WORD, 0, 0, "", false},
    [ZT_O_EXTENDED_L2] = {"extended_l2", V_WORD, 0, 0, "", false},
    [ZT_O_COMPRESSION] = {"compression_type", V_WORD, 0, 0, "", false},
    [ZT_O_DATA_FILE] = {"data_file", V_TEXT, 0, 0, "", false},
    [ZT_O_DATA_FILE_RAW] = {"data_file_raw", V_WORD, 0, 0, "", false},
    [ZT_O_BACKING] = {"backing_file", V_TEXT, 0, 0, "", false},
    [ZT_O_BACKING_FORMAT] = {"backing_fmt", V_TEXT, 0, 0, "", false},
    [ZT_O_PREALLOCATION] = {"preallocation", V_WORD, 0, 0, "", false},
    [ZT_O_COMPAT] = {"compat", V_WORD, 0, 0, "", false},
    [ZT_O_MODE] = {"zone.mode", V_WORD, 0, 0, "", false},
    [ZT_O_ZONE_SIZE] = {"zone.size", V_SIZE, 512, (uint64_t)1 << 62, "512 to 4E", false},
    [ZT_O_CAPACITY] = {"zone.capacity", V_SIZE, 512, (uint64_t)1 << 62, "512 to zone.size", true},
    [ZT_O_CONVENTIONAL] = {"zone.conventional_zones", V_COUNT, 0, GIB4 - 1, "0 to 4294967295",
                           true},
    [ZT_O_MAX_OPEN] = {"zone.max_open_zones", V_COUNT, 0, GIB4 - 1, "0 to 4294967295", true},
    [ZT_O_MAX_ACTIVE] = {"zone.max_active_zones", V_COUNT, 0, GIB4 - 1, "0 to 4294967295", true},
    [ZT_O_MAX_APPEND] = {"zone.max_append_bytes", V_SIZE, 512, GIB4 - 1, "512 to 4G - 1", true},
    [ZT_O_DESCRIPTOR] = {"zone.descriptor_extension", V_SIZE, 64, 16320, "64 to 16320", true},
    [ZT_O_LAYOUT] = {"zone.layout", V_WORD, 0, 0, "", true},
};

#define WORDS_MAX 4

struct word {
    const char *name; /* NULL: there are no more */
    uint32_t value;
};

static const struct word on_off[WORDS_MAX] = {{"on", 1}, {"off", 0}};

static const struct word words[ZT_O_COUNT][WORDS_MAX] = {
    [ZT_O_MODE] = {{"host-managed", 1}, {"none", 0}},
    [ZT_O_COMPRESSION] = {{"zstd", 1}, {"zlib", 0}},
    [ZT_O_PREALLOCATION] = {{"off", ZQCOW2_PREALLOCATE_OFF},
                            {"metadata", ZQCOW2_PREALLOCATE_METADATA},
                            {"falloc", ZQCOW2_PREALLOCATE_FALLOC},
                            {"full", ZQCOW2_PREALLOCATE_FULL}},
    [ZT_O_COMPAT] = {{"0.10", 2}, {"1.1", 3}, {"v2", 2}, {"v3", 3}},
    [ZT_O_LAYOUT] = {{"44", ZQCOW2_LAYOUT_44},
                     {"48b", ZQCOW2_LAYOUT_48B},
                     {"56", ZQCOW2_LAYOUT_56},
                     {"v7", ZQCOW2_LAYOUT_V7}},
};

static bool take_word(enum zt_image_option o, const char *text, uint64_t *value)
{
    const struct word *w = words[o][0].name ? words[o] : on_off;
    char list[64] = "";

    for (unsigned i = 0; i < WORDS_MAX && w[i].name; i++) {
        if (strcmp(w[i].name, text) == 0) {
            *value = w[i].value;
            return true;
        }
        snprintf(list + strlen(list), sizeof(list) - strlen(list), "%s%s", i ? ", " : "",
                 w[i].name);
    }
    zt_error("%s: '%s' is not one of %s", options[o].name, text, list);
    return false;
}

/* Of what a name is good for the library decides. */
static bool take_text(struct zt_image_options *set, enum zt_image_option o, const char *text)
{
    set->text[o] = text;
    return true;
}

static bool is_number(enum zt_image_option o)
{
    return options[o].value == V_SIZE || options[o].value == V_COUNT;
}

static bool take_value(struct zt_image_options *set, enum zt_image_option o, const char *text)
{
    const char *name = options[o].name;
    uint64_t v = 0;
    bool ok = options[o].value == V_TEXT ? take_text(set, o, text) :
              options[o].value == V_WORD ? take_word(o, text, &v) :
              options[o].value == V_SIZE ? zt_size_arg(name, text, &v) :
                                           zt_u64_arg(name, text, &v);

    if (!ok)
        return false;
    if (is_number(o) && (v > options[o].most || v < options[o].least)) {
        zt_error("%s: %s is out of range (%s)", name, text, options[o].range);
        return false;
    }
    set->given[o] = true;
    set->value[o] = v;
    return true;
}

bool zt_image_size(struct zt_image_options *set, const char *text)
{
    bool twice = set->given[ZT_O_SIZE];
    uint64_t first = set->value[ZT_O_SIZE];

    if (!take_value(set, ZT_O_SIZE, text))
        return false;
    if (twice && set->value[ZT_O_SIZE] != first) {
        zt_error("size is given twice: %" PRIu64 " and %" PRIu64, first, set->value[ZT_O_SIZE]);
        return false;
    }
    return true;
}

static bool take_pair(struct zt_image_options *set, char *pair)
{
    char *equals = strchr(pair, '=');

    if (strcmp(pair, "help") == 0)
        return set->list = true;
    if (!equals) {
        zt_error("-o: '%s' is not NAME=VALUE", pair);
        return false;
    }
    *equals = '\0';
    for (unsigned o = 0; o < ZT_O_COUNT; o++) {
        if (strcmp(options[o].name, pair) != 0)
            continue;
        if (!set->given[o])
            return take_value(set, (enum zt_image_option)o, equals + 1);
        zt_error("-o: %s is given twice", pair);
        return false;
    }
    zt_error("-o: unknown option '%s'; see zqcow2 create -o help", pair);
    return false;
}

bool zt_image_option_list(struct zt_image_options *set, char *list)
{
    char *save = NULL, *pair = strtok_r(list, ",", &save);

    if (!pair) {
        zt_error("-o: NAME=VALUE is missing; see zqcow2 create -o help");
        return false;
    }
    for (; pair; pair = strtok_r(NULL, ",", &save)) {
        if (!take_pair(set, pair))
            return false;
    }
    return true;
}

bool zt_image_text(const struct zt_image_options *set, enum zt_image_option o, const char *flag,
                   const char **value)
{
    if (set->given[o] && *value) {
        zt_error("%s: also given as -o %s", flag, options[o].name);
        return false;
    }
    if (set->given[o])
        *value = set->text[o];
    return true;
}

bool zt_image_alone(const struct zt_image_options *set, const char *verb)
{
    bool given = set->given[ZT_O_BACKING] || set->given[ZT_O_BACKING_FORMAT];

    if (given)
        zt_error("%s: -o backing_file and backing_fmt are for create and convert only", verb);
    return !given;
}

bool zt_image_zoned(const struct zt_image_options *set)
{
    return set->given[ZT_O_MODE] ? set->value[ZT_O_MODE] != 0 : set->given[ZT_O_ZONE_SIZE];
}

bool zt_image_agrees(const struct zt_image_options *set, bool zoned)
{
    for (unsigned o = 0; o < ZT_O_COUNT; o++) {
        if (set->given[o] && !zoned && (options[o].zoned || o == ZT_O_ZONE_SIZE)) {
            zt_error("%s: only for a zoned image (zone.size or zone.mode=host-managed)",
                     options[o].name);
            return false;
        }
    }
    return true;
}

uint64_t zt_image_zone_size(const struct zt_image_options *set, uint64_t inherited)
{
    bool zoned = zt_image_zoned(set) || (inherited && !set->given[ZT_O_MODE]);

    if (!zoned || set->given[ZT_O_ZONE_SIZE])
        return zoned ? set->value[ZT_O_ZONE_SIZE] : 0;
    return inherited ? inherited : DEFAULT_ZONE_SIZE;
}

struct zqcow2_create_options zt_create_options(const struct zt_image_options *set)
{
    struct zqcow2_create_options o = ZQCOW2_CREATE_OPTIONS_INIT;
    const uint64_t *value = set->value;

    o.virtual_size = value[ZT_O_SIZE];
    o.zone_size = zt_image_zone_size(set, 0);
    o.zone_capacity = value[ZT_O_CAPACITY];
    o.conventional_zones = (uint32_t)value[ZT_O_CONVENTIONAL];
    o.max_open_zones = (uint32_t)value[ZT_O_MAX_OPEN];
    o.max_active_zones = (uint32_t)value[ZT_O_MAX_ACTIVE];
    o.max_append_bytes = (uint32_t)value[ZT_O_MAX_APPEND];
    o.descriptor_extension = (uint32_t)value[ZT_O_DESCRIPTOR];
    o.cluster_size = (uint32_t)value[ZT_O_CLUSTER_SIZE];
    o.refcount_bits = (uint32_t)value[ZT_O_REFCOUNT_BITS];
    o.layout = (uint32_t)value[ZT_O_LAYOUT];
    o.flags = (value[ZT_O_LAZY_REFCOUNTS] ? ZQCOW2_CREATE_LAZY_REFCOUNTS : 0u) |
              (value[ZT_O_EXTENDED_L2] ? ZQCOW2_CREATE_EXTENDED_L2 : 0u) |
              (value[ZT_O_COMPRESSION] ? ZQCOW2_CREATE_ZSTD : 0u) |
              (value[ZT_O_DATA_FILE_RAW] ? ZQCOW2_CREATE_DATA_FILE_RAW : 0u) |
              (set->given[ZT_O_SIZE] && !value[ZT_O_SIZE] ? ZQCOW2_CREATE_EMPTY : 0u);
    o.data_file = set->text[ZT_O_DATA_FILE];
    o.preallocation = (uint32_t)value[ZT_O_PREALLOCATION];
    o.hooks = zt_hooks();
    return o;
}

void zt_print_image_options(void)
{
    printf("Options of zqcow2 create -o, and their defaults:\n" ZT_IMAGE_OPTIONS);
}
