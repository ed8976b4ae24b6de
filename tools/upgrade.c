/* SPDX-License-Identifier: MIT */
/* The verb upgrade: sets the feature bit in zoned images of revisions that left it out. */
#include "tool.h"

/* Does the image lack the bit? Looks read-only: an image that needs nothing is not touched. */
static int look(const struct zt_target *t, bool *lacks)
{
    struct zqcow2_image *img = zt_open(t, 0);
    struct zqcow2_info info;
    bool ok;

    if (!img)
        return 1;
    ok = zt_zoned_info(t, img, &info);
    *lacks = ok && (info.flags & ZQCOW2_INFO_NO_ZONED_BIT);
    return zt_close(t, img, ok ? 0 : 1);
}

static int run(int argc, char **argv)
{
    static const struct option longs[] = {ZT_OPTION_BACKEND, ZT_OPTION_FILES,
                                          ZT_OPTION_BACKING_FORMAT, ZT_OPTION_END};
    static const char *const names[] = {"FILE"};
    struct zt_options o = {.name = argv[0], .shorts = ":", .longs = longs};
    struct zt_target t = {.share = false};
    struct zqcow2_image *img;
    bool lacks = false;
    int c, status;

    while ((c = zt_option(&o, argc, argv)) != -1) {
        if (!zt_target_option(&t, c))
            return 1;
    }
    if (!zt_operands(argc, argv, 1, 1, names))
        return 1;
    t.path = argv[optind];
    status = look(&t, &lacks);
    if (status)
        return status;
    if (!lacks) {
        zt_line(stdout, "%s: the feature bit is already set", t.path);
        return 0;
    }
    img = zt_open(&t, ZQCOW2_OPEN_RDWR | ZQCOW2_OPEN_UPGRADE);
    status = img ? zt_close(&t, img, 0) : 1;
    if (status == 0)
        zt_line(stdout, "%s: the feature bit is set", t.path);
    return status;
}

const struct zt_verb zt_verb_upgrade = {
    "upgrade", ZT_USE_FILES "[--backing-format=FMT] [--backend=NAME] FILE",
    "Sets the feature bit in a zoned image that was created without it",
    ZT_HELP_FILES ZT_HELP_FORMAT ZT_HELP_BACKEND, run};
