/* SPDX-License-Identifier: MIT */
/* The commands of the control socket. The client has checked them; another one may not have. */
#include "serve/command.h"

#include <inttypes.h>
#include <stdarg.h>
#include <string.h>

#include "serve/escape.h"
#include "serve/stats.h"
#include "tool.h"

#define WORDS 8

struct command {
    struct zqcow2_image *img;
    int nr;
    char *words[WORDS];
    FILE *out;
    char *why;
};

static bool fail(const struct command *c, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

static bool fail(const struct command *c, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(c->why, SERVE_COMMAND_WHY, fmt, ap);
    va_end(ap);
    return false;
}

static bool unknown(const struct command *c)
{
    return fail(c, "the server does not know this command");
}

static bool run_stats(struct command *c)
{
    struct zqcow2_stats stats = {.size = sizeof(stats)};
    int rc = zqcow2_get_stats(c->img, &stats);

    if (rc < 0)
        return fail(c, "%s", zqcow2_strerror(rc));
    serve_stats_write(c->out, &stats);
    return true;
}

static bool run_time(struct command *c)
{
    bool on = !strcmp(c->words[1], "on");

    if (!on && strcmp(c->words[1], "off"))
        return unknown(c);
    zqcow2_measure_time(c->img, on);
    return true;
}

static bool run_flush(struct command *c)
{
    int rc = zqcow2_flush(c->img);

    return rc < 0 ? fail(c, "flush: %s", zqcow2_strerror(rc)) : true;
}

static bool run_zone(struct command *c)
{
    bool persist = c->nr == 4 && !strcmp(c->words[3], "persist");
    unsigned state;
    uint64_t off;
    char text[192];
    int rc;

    if (!zt_parse_u64(c->words[1], &off) || !zt_parse_forced(c->words[2], &state) ||
        (c->nr == 4 && !persist))
        return unknown(c);
    rc = zqcow2_zone_set_state(c->img, off, state | (persist ? ZQCOW2_ZONE_PERSIST : 0));
    if (rc == ZQCOW2_EFEATURE)
        return fail(c, "the header has no room for stored states");
    return rc < 0 ? fail(c, "state of the zone at %" PRIu64 ": %s", off,
                         zt_zone_reason(c->img, rc, off, text, sizeof(text))) :
                    true;
}

static const struct {
    const char *name;
    int min, max; /* words, the name included */
    bool (*run)(struct command *c);
} commands[] = {
    {"stats", 1, 1, run_stats},
    {"time", 2, 2, run_time},
    {"flush", 1, 1, run_flush},
    {"zone", 3, 4, run_zone},
};

/* False: too many. */
static bool split(struct command *c, char *line)
{
    char *rest = NULL;

    for (char *w = strtok_r(line, " ", &rest); w; w = strtok_r(NULL, " ", &rest)) {
        if (c->nr == WORDS)
            return false;
        serve_unescape(w);
        c->words[c->nr++] = w;
    }
    return true;
}

bool serve_command(struct zqcow2_image *img, char *line, size_t length, FILE *out, char *why)
{
    struct command c = {.img = img, .out = out, .why = why};

    if (strlen(line) != length || !split(&c, line) || !c.nr)
        return unknown(&c);
    for (size_t i = 0; i < ZT_COUNT(commands); i++) {
        if (!strcmp(c.words[0], commands[i].name))
            return c.nr < commands[i].min || c.nr > commands[i].max ? unknown(&c) :
                                                                      commands[i].run(&c);
    }
    return unknown(&c);
}
