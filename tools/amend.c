/* SPDX-License-Identifier: MIT */
/* The verb amend: other features for an image, in the names of qemu-img. */
#include <inttypes.h>
#include <string.h>
#include <zqcow2/change.h>

#include "tool.h"

struct amend {
    struct zt_target target;
    struct zqcow2_amend_options opt;
    bool any;
};

/* ---- -o NAME=VALUE ---- */

static bool is_none_of(const char *name, const char *value, const char *words)
{
    zt_error("%s: '%s' is not one of %s", name, value, words);
    return false;
}

static bool take_compat(struct amend *a, const char *value)
{
    bool old = strcmp(value, "0.10") == 0 || strcmp(value, "v2") == 0;

    if (!old && strcmp(value, "1.1") != 0 && strcmp(value, "v3") != 0)
        return is_none_of("compat", value, "0.10, 1.1");
    a->opt.version = old ? 2 : 3;
    return true;
}

static bool take_lazy(struct amend *a, const char *value)
{
    bool on = strcmp(value, "on") == 0;

    if (!on && strcmp(value, "off") != 0)
        return is_none_of("lazy_refcounts", value, "on, off");
    a->opt.flags |= on ? ZQCOW2_AMEND_LAZY_REFCOUNTS : ZQCOW2_AMEND_NO_LAZY_REFCOUNTS;
    return true;
}

static bool take_bits(struct amend *a, const char *value)
{
    uint64_t v;

    if (!zt_u64_arg("refcount_bits", value, &v))
        return false;
    if (!v || v > 64 || v & (v - 1))
        return is_none_of("refcount_bits", value, "1, 2, 4, 8, 16, 32, 64");
    a->opt.refcount_bits = (uint32_t)v;
    return true;
}

static bool take_raw(struct amend *a, const char *value)
{
    if (strcmp(value, "off") != 0)
        return is_none_of("data_file_raw", value, "off");
    a->opt.flags |= ZQCOW2_AMEND_NO_RAW_DATA;
    return true;
}

static bool take_layout(struct amend *a, const char *value)
{
    if (strcmp(value, "44") != 0)
        return is_none_of("zone.layout", value, "44");
    a->opt.layout = ZQCOW2_LAYOUT_44;
    return true;
}

static const struct {
    const char *name;
    bool (*take)(struct amend *a, const char *value);
} features[] = {{"compat", take_compat},
                {"lazy_refcounts", take_lazy},
                {"refcount_bits", take_bits},
                {"data_file_raw", take_raw},
                {"zone.layout", take_layout}};

static bool take_pair(struct amend *a, char *pair, bool *given)
{
    char *equals = strchr(pair, '=');

    if (!equals) {
        zt_error("-o: '%s' is not NAME=VALUE", pair);
        return false;
    }
    *equals = '\0';
    for (size_t i = 0; i < ZT_COUNT(features); i++) {
        if (strcmp(features[i].name, pair) != 0)
            continue;
        if (given[i]) {
            zt_error("-o: %s is given twice", pair);
            return false;
        }
        return a->any = given[i] = true, features[i].take(a, equals + 1);
    }
    zt_error("-o: '%s' cannot be amended; see zqcow2 amend --help", pair);
    return false;
}

static bool take_list(struct amend *a, char *list, bool *given)
{
    char *save = NULL;

    for (char *p = strtok_r(list, ",", &save); p; p = strtok_r(NULL, ",", &save)) {
        if (!take_pair(a, p, given))
            return false;
    }
    return true;
}

/* ---- the verb ---- */

static int amend_on(void *arg, struct zqcow2_backend *be, struct zqcow2_resolver *files)
{
    struct amend *a = arg;
    struct zqcow2_error err = {0, ""};
    int rc;

    a->opt.hooks = zt_hooks();
    a->opt.resolve = zqcow2_resolve_file;
    a->opt.resolve_arg = files;
    rc = zqcow2_amend(be, &a->opt, &err);
    if (rc < 0)
        zt_error("%s: %s", a->target.path, zt_reason(rc, &err));
    return rc < 0;
}

static bool parse(struct amend *a, int argc, char **argv)
{
    static const struct option longs[] = {ZT_OPTION_BACKEND, ZT_OPTION_FILES, ZT_OPTION_END};
    static const char *const names[] = {"FILE"};
    struct zt_options o = {.name = argv[0], .shorts = ":o:", .longs = longs, .repeat = "o"};
    bool given[ZT_COUNT(features)] = {false};
    int c;

    while ((c = zt_option(&o, argc, argv)) != -1) {
        if (c == 'o' ? !take_list(a, optarg, given) : !zt_target_option(&a->target, c))
            return false;
    }
    if (!zt_operands(argc, argv, 1, 1, names))
        return false;
    a->target.path = argv[optind];
    if (!a->any)
        zt_error("amend: give -o NAME=VALUE");
    return a->any;
}

static int run(int argc, char **argv)
{
    struct amend a = {.opt = ZQCOW2_AMEND_OPTIONS_INIT};

    return parse(&a, argc, argv) ? zt_change_chain(&a.target, amend_on, &a) : 1;
}

const struct zt_verb zt_verb_amend = {
    "amend", "-o NAME=VALUE[,...] " ZT_USE_FILES "[--backend=NAME] FILE",
    "Changes the features of an image",
    "  -o NAME=VALUE,...       the changes; everything else stays\n"
    "    compat                    0.10 or 1.1: version 2 or 3 of the format\n"
    "    lazy_refcounts            on or off; plain images only\n"
    "    refcount_bits             1, 2, 4 .. 64\n"
    "    data_file_raw             off: the data file cannot be used without FILE\n"
    "    zone.layout               44, the newest one\n" ZT_HELP_FILES ZT_HELP_BACKEND
    "The content of the disk does not change.\n",
    run};
