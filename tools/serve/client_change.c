/* SPDX-License-Identifier: MIT */
/* `zqcow2 serve ctl`: another size, and less space. */
#include "serve/client.h"

#include <ctype.h>
#include <inttypes.h>
#include <string.h>

#include "tool.h"

enum { OPT_SHRINK = ZT_OPT_VERB, OPT_DISCARD, OPT_LEVEL };

/* A size that is subtracted looks like an option: it is the last operand, and is taken first. */
static const char *take_difference(int *argc, char **argv)
{
    const char *last = argv[*argc - 1];

    if (*argc < 2 || last[0] != '-' || !isdigit((unsigned char)last[1]))
        return NULL;
    --*argc;
    return last;
}

int serve_client_resize(const struct serve_client *c, int argc, char **argv)
{
    static const struct option longs[] = {{"shrink", no_argument, NULL, OPT_SHRINK},
                                          {"discard-data", no_argument, NULL, OPT_DISCARD},
                                          ZT_OPTION_END};
    static const char *const names[] = {"SIZE"};
    const char *size = take_difference(&argc, argv), *words[] = {"resize", NULL, "grow"};
    struct zt_options o = {.name = "serve", .shorts = ":", .longs = longs};
    char number[32];
    uint64_t amount;
    bool sign;
    int opt;

    while ((opt = zt_option(&o, argc, argv)) != -1) {
        if (opt != OPT_SHRINK && opt != OPT_DISCARD)
            return 1;
        if (opt == OPT_DISCARD || strcmp(words[2], "discard"))
            words[2] = opt == OPT_SHRINK ? "shrink" : "discard";
    }
    if (!zt_operands(argc, argv, !size, !size, names))
        return 1;
    size = size ? size : argv[optind];
    sign = *size == '+' || *size == '-';
    if (!zt_size_arg("resize", size + sign, &amount))
        return 1;
    snprintf(number, sizeof(number), "%.*s%" PRIu64, (int)sign, size, amount);
    words[1] = number;
    return serve_order(c, 3, words);
}

int serve_client_compact(const struct serve_client *c, int argc, char **argv)
{
    static const struct option longs[] = {{"level", required_argument, NULL, OPT_LEVEL},
                                          ZT_OPTION_END};
    struct zt_options o = {.name = "serve", .shorts = ":", .longs = longs};
    const char *words[] = {"compact", NULL};
    uint64_t level = 0;
    char number[32];
    int opt;

    while ((opt = zt_option(&o, argc, argv)) != -1) {
        if (opt != OPT_LEVEL || !zt_u64_arg("level", optarg, &level))
            return 1;
        if (!level || level > 22) {
            zt_error("level: %s is out of range (1 to 22)", optarg);
            return 1;
        }
    }
    snprintf(number, sizeof(number), "%" PRIu64, level);
    words[1] = number;
    return zt_operands(argc, argv, 0, 0, NULL) ? serve_order(c, level ? 2 : 1, words) : 1;
}
