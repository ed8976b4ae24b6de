/* SPDX-License-Identifier: MIT */
/* Faults, on the side of `zqcow2 serve ctl`: each becomes the item that --faults would have. */
#include "serve/client.h"

#include <string.h>

#include "serve/spec.h"
#include "tool.h"

enum { OPT_SEED = ZT_OPT_VERB, OPT_HOW };

/* Would the server take it? Reports if not. */
static bool check(const struct serve_client *c, const char *item)
{
    struct serve_faults_spec s;
    char why[SERVE_SPEC_WHY];

    serve_spec_init(&s);
    if (serve_spec_item(&s, item, why))
        return true;
    zt_error("%s: %s", c->command, why);
    return false;
}

int serve_client_cut(const struct serve_client *c, int argc, char **argv)
{
    static const struct option longs[] = {{"seed", required_argument, NULL, OPT_SEED},
                                          {"how", required_argument, NULL, OPT_HOW},
                                          ZT_OPTION_END};
    struct zt_options o = {.name = "serve", .shorts = ":", .longs = longs};
    const char *words[3] = {"cut"};
    char items[2][64];
    size_t nr = 1;
    int opt;

    while ((opt = zt_option(&o, argc, argv)) != -1) {
        if (opt != OPT_SEED && opt != OPT_HOW)
            return 1;
        words[nr] = items[nr - 1];
        snprintf(items[nr - 1], sizeof(items[0]), "%s=%s", opt == OPT_SEED ? "seed" : "how",
                 optarg);
        if (!check(c, words[nr++]))
            return 1;
    }
    return zt_operands(argc, argv, 0, 0, NULL) ? serve_order(c, nr, words) : 1;
}

/* The operands with colons between them. */
static int add_rule(const struct serve_client *c, int argc, char **argv, int min, int max,
                    const char *const *names)
{
    static const struct option none[] = {ZT_OPTION_END};
    struct zt_options o = {.name = "serve", .shorts = ":", .longs = none};
    const char *words[] = {"fault", NULL};
    char item[256];
    size_t n;

    if (zt_option(&o, argc, argv) != -1 || !zt_operands(argc, argv, min, max, names))
        return 1;
    n = (size_t)snprintf(item, sizeof(item), "%s=", c->command);
    for (int i = optind; i < argc && n < sizeof(item); i++)
        n += (size_t)snprintf(item + n, sizeof(item) - n, "%s%s", i == optind ? "" : ":", argv[i]);
    if (n >= sizeof(item)) {
        zt_error("%s: the rule is too long", c->command);
        return 1;
    }
    words[1] = item;
    return check(c, item) ? serve_order(c, 2, words) : 1;
}

int serve_client_fail(const struct serve_client *c, int argc, char **argv)
{
    static const char *const names[] = {"KIND", "RANGE", "ERRNO"};

    return add_rule(c, argc, argv, 3, 6, names);
}

int serve_client_delay(const struct serve_client *c, int argc, char **argv)
{
    static const char *const names[] = {"KIND", "MS"};

    return add_rule(c, argc, argv, 2, 3, names);
}
