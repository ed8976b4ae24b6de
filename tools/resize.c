/* SPDX-License-Identifier: MIT */
/* The verb resize: another size for the device, in the form of qemu-img. */
#include <ctype.h>
#include <inttypes.h>
#include <string.h>

#include "tool.h"

enum { OPT_SHRINK = ZT_OPT_VERB, OPT_DISCARD, OPT_SPACE };

struct resize {
    struct zt_target target;
    const char *text; /* the size as it was given */
    char sign;        /* '+' or '-': relative to the present size; else 0 */
    uint64_t amount;
    uint32_t flags;
};

/* False: no device can have that size; what is wrong has been printed. */
static bool new_size(const struct resize *r, uint64_t now, uint64_t *size)
{
    if (r->sign == '-' ? r->amount >= now : r->sign && r->amount > UINT64_MAX - now) {
        zt_error("%s: the device has %" PRIu64 " bytes; '%s' cannot be applied to it",
                 r->target.path, now, r->text);
        return false;
    }
    *size = !r->sign ? r->amount : r->sign == '+' ? now + r->amount : now - r->amount;
    return true;
}

/* The library refuses it, too, but does not know the option's name. */
static bool may_shrink(const struct resize *r, uint64_t now, uint64_t size)
{
    if (size >= now || r->flags & ZQCOW2_RESIZE_SHRINK)
        return true;
    zt_error("%s: the device would lose %" PRIu64 " bytes: give --shrink if they are not needed",
             r->target.path, now - size);
    return false;
}

static int resize(struct resize *r, struct zqcow2_image *img)
{
    struct zqcow2_info i = ZQCOW2_INFO_INIT;
    struct zqcow2_error err = {0, ""};
    uint64_t size;
    int rc = zqcow2_get_info(img, &i);

    if (rc == 0 && (!new_size(r, i.virtual_size, &size) || !may_shrink(r, i.virtual_size, size)))
        return 1;
    if (rc == 0)
        rc = zqcow2_resize(img, size, r->flags, &err);
    r->target.failure = rc;
    if (rc < 0)
        zt_error("%s: %s", r->target.path, zt_reason(rc, &err));
    return rc < 0;
}

/* A size that is subtracted looks like an option: it is the last operand, and is taken first. */
static bool take_difference(struct resize *r, int *argc, char **argv)
{
    const char *last = argv[*argc - 1];

    if (*argc < 2 || last[0] != '-' || !isdigit((unsigned char)last[1]))
        return false;
    r->text = last;
    --*argc;
    return true;
}

static bool parse_size(struct resize *r)
{
    r->sign = *r->text == '+' || *r->text == '-' ? *r->text : '\0';
    return zt_size_arg("resize", r->text + (r->sign != '\0'), &r->amount);
}

static bool parse_space(struct resize *r, const char *text)
{
    static const struct {
        const char *name;
        uint32_t flag;
    } modes[] = {{"off", 0},
                 {"metadata", ZQCOW2_RESIZE_METADATA},
                 {"falloc", ZQCOW2_RESIZE_FALLOC},
                 {"full", ZQCOW2_RESIZE_FULL}};
    size_t i = 0;

    while (i < ZT_COUNT(modes) && strcmp(text, modes[i].name) != 0)
        i++;
    if (i == ZT_COUNT(modes)) {
        zt_error("--preallocation: '%s' is not one of off, metadata, falloc, full", text);
        return false;
    }
    r->flags &= ~(uint32_t)(ZQCOW2_RESIZE_METADATA | ZQCOW2_RESIZE_FALLOC | ZQCOW2_RESIZE_FULL);
    r->flags |= modes[i].flag;
    return true;
}

static bool parse(struct resize *r, int argc, char **argv)
{
    static const struct option longs[] = {ZT_OPTION_BACKEND,
                                          ZT_OPTION_SOURCES,
                                          {"shrink", no_argument, NULL, OPT_SHRINK},
                                          {"discard-data", no_argument, NULL, OPT_DISCARD},
                                          {"preallocation", required_argument, NULL, OPT_SPACE},
                                          ZT_OPTION_END};
    static const char *const names[] = {"FILE", "SIZE"};
    struct zt_options o = {.name = argv[0], .shorts = ":", .longs = longs};
    int c, operands = take_difference(r, &argc, argv) ? 1 : 2;

    while ((c = zt_option(&o, argc, argv)) != -1) {
        if (c == OPT_SHRINK)
            r->flags |= ZQCOW2_RESIZE_SHRINK;
        else if (c == OPT_DISCARD)
            r->flags |= ZQCOW2_RESIZE_SHRINK | ZQCOW2_RESIZE_DISCARD;
        else if (c == OPT_SPACE ? !parse_space(r, optarg) : !zt_target_option(&r->target, c))
            return false;
    }
    if (!zt_operands(argc, argv, operands, operands, names))
        return false;
    r->target.path = argv[optind];
    if (operands == 2)
        r->text = argv[optind + 1];
    return parse_size(r);
}

static int run(int argc, char **argv)
{
    struct resize r = {.text = NULL};
    struct zqcow2_image *img;

    if (!parse(&r, argc, argv))
        return 1;
    img = zt_open(&r.target, ZQCOW2_OPEN_RDWR);
    return img ? zt_close(&r.target, img, resize(&r, img)) : 1;
}

const struct zt_verb zt_verb_resize = {
    "resize",
    "[--shrink|--discard-data] [--preallocation=MODE] " ZT_USE_SOURCES
    "[--backend=NAME] FILE [+|-]SIZE",
    "Makes the device of an image larger or smaller",
    "  [+|-]SIZE               the new size, or how much to add or remove\n"
    "  --shrink                allow a smaller size: the data beyond it is lost\n"
    "  --preallocation=MODE    off, metadata, falloc or full, for the added space\n"
    "  --discard-data          like --shrink, but first reset the zones beyond it\n" ZT_HELP_SOURCES
        ZT_HELP_BACKEND,
    run};
