/* SPDX-License-Identifier: MIT */
/* The verb create: QEMU's option names to struct zqcow2_create_options. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tool.h"

#define DEFAULT_ZONE_SIZE ((uint64_t)256 << 20)

enum name {
    O_SIZE,
    O_CLUSTER_SIZE,
    O_REFCOUNT_BITS,
    O_LAZY_REFCOUNTS,
    O_EXTENDED_L2,
    O_MODE,
    O_ZONE_SIZE,
    O_CAPACITY,
    O_CONVENTIONAL,
    O_MAX_OPEN,
    O_MAX_ACTIVE,
    O_MAX_APPEND,
    O_LAYOUT,
    O_COUNT
};

enum value { V_SIZE, V_COUNT, V_WORD };

#define GIB4 ((uint64_t)1 << 32)
/* The library knows what fits together; here is what a number can be at all. */
static const struct {
    const char *name;
    enum value value;
    uint64_t least, most; /* 0 would quietly mean the default where it is below `least` */
    const char *range;
    bool zoned; /* means nothing without zones */
} options[O_COUNT] = {
    [O_SIZE] = {"size", V_SIZE, 512, (uint64_t)1 << 62, "512 to 4E", false},
    [O_CLUSTER_SIZE] = {"cluster_size", V_SIZE, 512, 2u << 20, "512 to 2M", false},
    [O_REFCOUNT_BITS] = {"refcount_bits", V_COUNT, 1, 64, "1 to 64", false},
    [O_LAZY_REFCOUNTS] = {"lazy_refcounts", V_WORD, 0, 0, "", false},
    [O_EXTENDED_L2] = {"extended_l2", V_WORD, 0, 0, "", false},
    [O_MODE] = {"zone.mode", V_WORD, 0, 0, "", false},
    [O_ZONE_SIZE] = {"zone.size", V_SIZE, 512, (uint64_t)1 << 62, "512 to 4E", false},
    [O_CAPACITY] = {"zone.capacity", V_SIZE, 512, (uint64_t)1 << 62, "512 to zone.size", true},
    [O_CONVENTIONAL] = {"zone.conventional_zones", V_COUNT, 0, GIB4 - 1, "0 to 4294967295", true},
    [O_MAX_OPEN] = {"zone.max_open_zones", V_COUNT, 0, GIB4 - 1, "0 to 4294967295", true},
    [O_MAX_ACTIVE] = {"zone.max_active_zones", V_COUNT, 0, GIB4 - 1, "0 to 4294967295", true},
    [O_MAX_APPEND] = {"zone.max_append_bytes", V_SIZE, 512, GIB4 - 1, "512 to 4G - 1", true},
    [O_LAYOUT] = {"zone.layout", V_WORD, 0, 0, "", true},
};

#define OPTION_LIST \
    "    size                      of the device; also the operand SIZE\n" \
    "    cluster_size              512 to 2M; 64K\n" \
    "    refcount_bits             1, 2, 4 .. 64; 16\n" \
    "    lazy_refcounts            on or off; plain images only\n" \
    "    extended_l2               on or off; clusters of 16K or more\n" \
    "    zone.mode                 host-managed, or none\n" \
    "    zone.size                 a power of two; 256M\n" \
    "    zone.capacity             of a zone; zone.size\n" \
    "    zone.conventional_zones   at the start of the device; 0\n" \
    "    zone.max_open_zones       0: no limit\n" \
    "    zone.max_active_zones     0: no limit\n" \
    "    zone.max_append_bytes     layouts 48b, 56 and v7 only; 64K\n" \
    "    zone.layout               44, 48b, 56 or v7; 44\n"

static const struct {
    const char *name;
    uint32_t layout;
} layouts[] = {
    {"44", ZQCOW2_LAYOUT_44},
    {"48b", ZQCOW2_LAYOUT_48B},
    {"56", ZQCOW2_LAYOUT_56},
    {"v7", ZQCOW2_LAYOUT_V7},
};

struct create {
    struct zt_target target;
    bool force, list; /* list: of the options, and nothing else */
    bool given[O_COUNT];
    uint64_t value[O_COUNT]; /* of words: what they stand for */
    const char *backing, *backing_format;
};

static bool take_word(enum name o, const char *text, uint64_t *value)
{
    if (o == O_LAYOUT) {
        for (size_t i = 0; i < ZT_COUNT(layouts); i++) {
            if (strcmp(layouts[i].name, text) == 0) {
                *value = layouts[i].layout;
                return true;
            }
        }
        zt_error("zone.layout: '%s' is not one of 44, 48b, 56, v7", text);
        return false;
    }
    *value = strcmp(text, o == O_MODE ? "host-managed" : "on") == 0;
    if (*value || strcmp(text, o == O_MODE ? "none" : "off") == 0)
        return true;
    zt_error("%s: '%s' is not one of %s", options[o].name, text,
             o == O_MODE ? "host-managed, none" : "on, off");
    return false;
}

static bool take_value(struct create *c, enum name o, const char *text)
{
    const char *name = options[o].name;
    uint64_t v = 0;
    bool ok = options[o].value == V_WORD ? take_word(o, text, &v) :
              options[o].value == V_SIZE ? zt_size_arg(name, text, &v) :
                                           zt_u64_arg(name, text, &v);

    if (!ok)
        return false;
    if (options[o].value != V_WORD && (v > options[o].most || v < options[o].least)) {
        zt_error("%s: %s is out of range (%s)", name, text, options[o].range);
        return false;
    }
    c->given[o] = true;
    c->value[o] = v;
    return true;
}

/* The operand SIZE may repeat what -o said. */
static bool take_size(struct create *c, const char *text)
{
    bool twice = c->given[O_SIZE];
    uint64_t first = c->value[O_SIZE];

    if (!take_value(c, O_SIZE, text))
        return false;
    if (twice && c->value[O_SIZE] != first) {
        zt_error("size is given twice: %" PRIu64 " and %" PRIu64, first, c->value[O_SIZE]);
        return false;
    }
    return true;
}

static bool take_pair(struct create *c, char *pair)
{
    char *equals = strchr(pair, '=');

    if (strcmp(pair, "help") == 0)
        return c->list = true;
    if (!equals) {
        zt_error("-o: '%s' is not NAME=VALUE", pair);
        return false;
    }
    *equals = '\0';
    for (unsigned o = 0; o < O_COUNT; o++) {
        if (strcmp(options[o].name, pair) != 0)
            continue;
        if (!c->given[o])
            return take_value(c, (enum name)o, equals + 1);
        zt_error("-o: %s is given twice", pair);
        return false;
    }
    zt_error("-o: unknown option '%s'; see zqcow2 create -o help", pair);
    return false;
}

static bool take_list(struct create *c, char *list)
{
    char *save = NULL, *pair = strtok_r(list, ",", &save);

    if (!pair) {
        zt_error("-o: NAME=VALUE is missing; see zqcow2 create -o help");
        return false;
    }
    for (; pair; pair = strtok_r(NULL, ",", &save)) {
        if (!take_pair(c, pair))
            return false;
    }
    return true;
}

static bool is_zoned(const struct create *c)
{
    return c->given[O_MODE] ? c->value[O_MODE] != 0 : c->given[O_ZONE_SIZE];
}

/* What only shows when all options are known. */
static bool agree(const struct create *c)
{
    bool zoned = is_zoned(c) || c->backing; /* the library knows what a backing file has */

    if (c->backing && c->given[O_MODE]) {
        zt_error("zone.mode: FILE has the zones of its backing file, or none");
        return false;
    }
    if (!c->given[O_SIZE] && !c->backing) {
        zt_error("create: SIZE is missing; see zqcow2 create --help");
        return false;
    }
    for (unsigned o = 0; o < O_COUNT; o++) {
        if (c->given[o] && !zoned && (options[o].zoned || o == O_ZONE_SIZE)) {
            zt_error("%s: only for a zoned image (zone.size or zone.mode=host-managed)",
                     options[o].name);
            return false;
        }
    }
    if (is_zoned(c) && c->value[O_LAZY_REFCOUNTS]) {
        zt_error("lazy_refcounts: not for a zoned image");
        return false;
    }
    if (!c->backing && c->given[O_MAX_APPEND] &&
        (!c->given[O_LAYOUT] || c->value[O_LAYOUT] == ZQCOW2_LAYOUT_44)) {
        zt_error("zone.max_append_bytes: layout 44 cannot store it (48b, 56 and v7 can)");
        return false;
    }
    return true;
}

static struct zqcow2_create_options library_options(const struct create *c,
                                                    struct zqcow2_resolver *r)
{
    struct zqcow2_create_options o = ZQCOW2_CREATE_OPTIONS_INIT;

    o.virtual_size = c->value[O_SIZE];
    if (is_zoned(c))
        o.zone_size = c->given[O_ZONE_SIZE] ? c->value[O_ZONE_SIZE] : DEFAULT_ZONE_SIZE;
    o.zone_capacity = c->value[O_CAPACITY];
    o.conventional_zones = (uint32_t)c->value[O_CONVENTIONAL];
    o.max_open_zones = (uint32_t)c->value[O_MAX_OPEN];
    o.max_active_zones = (uint32_t)c->value[O_MAX_ACTIVE];
    o.max_append_bytes = (uint32_t)c->value[O_MAX_APPEND];
    o.cluster_size = (uint32_t)c->value[O_CLUSTER_SIZE];
    o.refcount_bits = (uint32_t)c->value[O_REFCOUNT_BITS];
    o.layout = (uint32_t)c->value[O_LAYOUT];
    o.flags = (c->value[O_LAZY_REFCOUNTS] ? ZQCOW2_CREATE_LAZY_REFCOUNTS : 0u) |
              (c->value[O_EXTENDED_L2] ? ZQCOW2_CREATE_EXTENDED_L2 : 0u) |
              (c->force ? ZQCOW2_CREATE_FORCE : 0u);
    o.hooks = zt_hooks();
    o.backing_name = c->backing;
    o.backing_format = c->backing_format;
    o.resolve = r ? zqcow2_resolve_file : NULL;
    o.resolve_arg = r;
    return o;
}

/* Writes the image into `be` and closes that; false after reporting. */
static bool write_image(const struct create *c, struct zqcow2_backend *be)
{
    struct zqcow2_resolver *r = c->backing ? zt_resolver(&c->target) : NULL;
    struct zqcow2_create_options opt = library_options(c, r);
    struct zqcow2_error err = {0, ""};
    bool ready = r || !c->backing;
    int rc = ready ? zqcow2_create(be, &opt, &err) : -ENOMEM;

    zqcow2_resolver_free(r);
    zqcow2_backend_close(be);
    if (ready && rc < 0)
        zt_error("%s: %s", c->target.path, zt_reason(rc, &err));
    return rc >= 0;
}

/* Opens `path`, which stands for the target; an error is reported under the target's name. */
static bool open_file(const struct create *c, const char *path, struct zqcow2_backend **be)
{
    struct zt_target t = c->target;
    int rc;

    t.path = path;
    rc = zt_backend_open(&t, ZQCOW2_FILE_RDWR | ZQCOW2_FILE_CREATE, be);
    if (rc < 0)
        zt_backend_error(&c->target, rc);
    return rc >= 0;
}

static int replace_image(const struct create *c)
{
    struct zt_replacement r;
    struct zqcow2_backend *be;
    int done = zt_replace_begin(&r, c->target.path);

    if (done > 0)
        done = zt_replace_end(&r, open_file(c, r.temporary, &be) && write_image(c, be));
    if (done)
        return done < 0;
    return !(open_file(c, c->target.path, &be) && write_image(c, be));
}

static int create_image(const struct create *c)
{
    unsigned flags = ZQCOW2_FILE_RDWR | ZQCOW2_FILE_CREATE | ZQCOW2_FILE_EXCLUSIVE;
    struct zqcow2_backend *be;
    int rc;

    zt_hold_signals();
    rc = zt_backend_open(&c->target, flags, &be);
    if (rc == -EEXIST && c->force)
        return replace_image(c);
    if (rc == -EEXIST)
        zt_error("%s: the file exists; --force replaces it", c->target.path);
    else if (rc < 0)
        zt_backend_error(&c->target, rc);
    if (rc < 0)
        return 1;
    if (write_image(c, be))
        return 0;
    unlink(c->target.path); /* nothing of anybody's is in it */
    return 1;
}

static bool parse(struct create *c, int argc, char **argv)
{
    static const struct option longs[] = {ZT_OPTION_BACKEND,
                                          {"backing", required_argument, NULL, 'b'},
                                          {"backing-format", required_argument, NULL, 'F'},
                                          {"force", no_argument, NULL, ZT_OPT_VERB},
                                          ZT_OPTION_END};
    static const char *const names[] = {"FILE"};
    struct zt_options o = {.name = argv[0], .shorts = ":o:b:F:", .longs = longs, .repeat = "o"};
    int ch;

    while ((ch = zt_option(&o, argc, argv)) != -1) {
        if (ch == ZT_OPT_VERB)
            c->force = true;
        else if (ch == 'b')
            c->backing = optarg;
        else if (ch == 'F')
            c->backing_format = optarg;
        else if (!(ch == 'o' ? take_list(c, optarg) : zt_target_option(&c->target, ch)))
            return false;
    }
    if (c->list)
        return true;
    if (!zt_operands(argc, argv, 1, 2, names))
        return false;
    c->target.path = argv[optind];
    return optind + 1 == argc || take_size(c, argv[optind + 1]);
}

static int run(int argc, char **argv)
{
    struct create c = {.force = false};

    if (!parse(&c, argc, argv))
        return 1;
    if (c.list) {
        printf("Options of zqcow2 create -o, and their defaults:\n" OPTION_LIST);
        return 0;
    }
    if (!agree(&c))
        return 1;
    return create_image(&c);
}

const struct zt_verb zt_verb_create = {
    "create",
    "[-o NAME=VALUE[,NAME=VALUE]...]... [-b BASE [-F FMT]] [--force] [--backend=NAME] FILE [SIZE]",
    "Creates an empty image",
    "  -o NAME=VALUE           (without zone.mode and zone.size: a plain image)\n" OPTION_LIST
    "  -b, --backing=BASE      the backing file, its name relative to FILE's folder; FILE\n"
    "                          inherits its zones, and SIZE may be omitted\n"
    "  -F, --backing-format=FMT  of BASE: raw or qcow2; may be omitted if BASE has zones\n"
    "  --force                 replace FILE if it exists\n" ZT_HELP_BACKEND,
    run};
