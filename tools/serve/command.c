/* SPDX-License-Identifier: MIT */
/* The commands of the control socket. The client has checked them; another one may not have. */
#include "serve/command.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <string.h>
#include <sys/random.h>
#include <zqcow2/bitmap.h>
#include <zqcow2/change.h>

#include "serve/escape.h"
#include "serve/stats.h"
#include "tool.h"

#define WORDS 8

struct command {
    struct serve_image *image;
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
    struct serve_stats stats = {.image.size = sizeof(stats.image)};
    int rc = zqcow2_get_stats(c->img, &stats.image);

    if (rc < 0)
        return fail(c, "%s", zqcow2_strerror(rc));
    stats.zero_copies = __atomic_load_n(&c->image->zero_copies, __ATOMIC_RELAXED);
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

static bool run_events(struct command *c)
{
    serve_events_write(&c->image->events, c->out);
    return true;
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

/* ---- faults ---- */

static bool has_faults(const struct command *c)
{
    return c->image->faults ? true : fail(c, "the server was started without --faults");
}

/* The words behind the first are items. */
static bool parse_items(const struct command *c, struct serve_faults_spec *s)
{
    char why[SERVE_SPEC_WHY];

    for (int i = 1; i < c->nr; i++) {
        if (!serve_spec_item(s, c->words[i], why))
            return fail(c, "%s", why);
    }
    return true;
}

/* A short one, for people who repeat it. */
static bool choose_seed(const struct command *c, struct serve_faults_spec *s)
{
    uint32_t seed;

    if (s->has_seed)
        return true;
    if (getrandom(&seed, sizeof(seed), 0) != sizeof(seed))
        return fail(c, "no random seed: %s", strerror(errno));
    s->seed = seed;
    return true;
}

/* The answer has the seed, so that a cut can be repeated. */
static bool run_cut(struct command *c)
{
    struct serve_faults_spec s;
    uint64_t held = 0;
    char how[32];
    int rc;

    if (!has_faults(c))
        return false;
    s = c->image->faults->spec;
    for (int i = 1; i < c->nr; i++) {
        if (strncmp(c->words[i], "seed=", 5) && strncmp(c->words[i], "how=", 4))
            return unknown(c);
    }
    if (!parse_items(c, &s) || !choose_seed(c, &s))
        return false;
    rc = serve_faults_cut(c->image->faults, &s, &held);
    if (rc == -EALREADY)
        return fail(c, "cut: the power is already off");
    fprintf(c->out, "seed %" PRIu64 ", %s: %" PRIu64 " changes were not flushed\n", s.seed,
            serve_spec_how(s.how, how, sizeof(how)), held);
    return rc < 0 ? fail(c, "cut: %s", zqcow2_strerror(rc)) : true;
}

static bool run_fault(struct command *c)
{
    struct serve_faults_spec s;
    int rc;

    if (!has_faults(c))
        return false;
    serve_spec_init(&s);
    if (!parse_items(c, &s))
        return false;
    if (s.nr_rules != (unsigned)c->nr - 1)
        return unknown(c);
    rc = serve_faults_add(c->image->faults, &s);
    return rc == -E2BIG ? fail(c, "there are too many rules") :
           rc < 0       ? fail(c, "%s", zqcow2_strerror(rc)) :
                          true;
}

static bool run_clear(struct command *c)
{
    if (has_faults(c))
        serve_faults_clear(c->image->faults);
    return c->image->faults;
}

/* ---- size and space ---- */

/* "[+|-]SIZE". */
static bool new_size(const struct command *c, uint64_t *size)
{
    uint64_t now = serve_size(&c->image->info), amount;
    const char *text = c->words[1];
    char sign = *text == '+' || *text == '-' ? *text++ : '\0';

    if (!zt_parse_u64(text, &amount))
        return unknown(c);
    if (sign == '-' ? amount >= now : sign && amount > UINT64_MAX - now)
        return fail(c, "the device has %" PRIu64 " bytes; '%s' cannot be applied to it", now,
                    c->words[1]);
    *size = !sign ? amount : sign == '+' ? now + amount : now - amount;
    return true;
}

static bool run_resize(struct command *c)
{
    const char *how = c->nr == 3 ? c->words[2] : "grow";
    uint32_t flags = !strcmp(how, "shrink")  ? ZQCOW2_RESIZE_SHRINK :
                     !strcmp(how, "discard") ? ZQCOW2_RESIZE_SHRINK | ZQCOW2_RESIZE_DISCARD :
                                               0;
    struct zqcow2_error err = {0, ""};
    uint64_t size = 0;
    int rc;

    if (!flags && strcmp(how, "grow"))
        return unknown(c);
    if (c->image->fixed_size)
        return fail(c, "resize: %s", c->image->fixed_size);
    if (!new_size(c, &size))
        return false;
    if (size < serve_size(&c->image->info) && !flags)
        return fail(c,
                    "the device would lose %" PRIu64 " bytes: give --shrink if they are not "
                    "needed",
                    serve_size(&c->image->info) - size);
    rc = zqcow2_resize(c->img, size, flags, &err);
    if (rc == 0)
        rc = serve_image_resized(c->image);
    return rc < 0 ? fail(c, "resize: %s", zt_reason(rc, &err)) : true;
}

static int is_stopping(void *image, uint64_t done, uint64_t total)
{
    (void)done;
    (void)total;
    return __atomic_load_n(&((struct serve_image *)image)->stopping, __ATOMIC_RELAXED);
}

static bool run_compact(struct command *c)
{
    struct zqcow2_compact_options o = ZQCOW2_COMPACT_OPTIONS_INIT;
    struct zqcow2_compact_result r = ZQCOW2_COMPACT_RESULT_INIT;
    struct zqcow2_error err = {0, ""};
    uint64_t level = 0;
    int rc;

    if (c->nr == 2 && (!zt_parse_u64(c->words[1], &level) || level > 22))
        return unknown(c);
    o.level = (uint32_t)level;
    o.progress = is_stopping;
    o.progress_arg = c->image;
    rc = zqcow2_compact(c->img, &o, &r, &err);
    if (rc < 0)
        return fail(c, "compact: %s", zt_reason(rc, &err));
    zt_put_saved(c->out, &r);
    return true;
}

/* ---- snapshots and bitmaps ---- */

static bool answer(const struct command *c, int rc, const char *what,
                   const struct zqcow2_error *err)
{
    if (rc < 0 && c->nr > 2)
        return fail(c, "%s \"%s\": %s", what, c->words[2], zt_reason(rc, err));
    return rc < 0 ? fail(c, "%ss: %s", what, zt_reason(rc, err)) : true;
}

/* "text" or "json" is what a list may end with. */
static bool is_form(const char *word, bool *json)
{
    *json = !strcmp(word, "json");
    return *json || !strcmp(word, "text");
}

static bool run_snapshot(struct command *c)
{
    struct zqcow2_error err = {0, ""};
    const char *name = c->words[2];
    bool json;

    if (!strcmp(c->words[1], "take"))
        return answer(c, zt_snapshot_take(c->img, name, &err), "snapshot", &err);
    if (!strcmp(c->words[1], "delete"))
        return answer(c, zt_snapshot_delete(c->img, name, &err), "snapshot", &err);
    if (strcmp(c->words[1], "list") || !is_form(name, &json))
        return unknown(c);
    c->nr = 2;
    return answer(c, zt_snapshot_list(c->out, json, c->img, &err), "snapshot", &err);
}

static bool list_bitmaps(struct command *c)
{
    const char *name = c->nr == 4 ? c->words[3] : NULL;
    struct zqcow2_error err = {0, ""};
    bool json;

    if (!is_form(c->words[2], &json))
        return unknown(c);
    c->words[2] = c->words[3];
    c->nr--;
    return answer(c, zt_bitmap_list(c->out, json, name, c->img, &err), "bitmap", &err);
}

static bool run_bitmap(struct command *c)
{
    static const struct {
        const char *name;
        int (*change)(struct zqcow2_image *img, const char *name, struct zqcow2_error *err);
    } changes[] = {{"remove", zqcow2_bitmap_remove},
                   {"clear", zqcow2_bitmap_clear},
                   {"enable", zqcow2_bitmap_enable},
                   {"disable", zqcow2_bitmap_disable}};
    struct zqcow2_error err = {0, ""};
    uint64_t granularity = 0;
    int rc;

    if (!strcmp(c->words[1], "list"))
        return list_bitmaps(c);
    if (!strcmp(c->words[1], "add")) {
        if (c->nr == 4 && !zt_parse_u64(c->words[3], &granularity))
            return unknown(c);
        rc = zqcow2_bitmap_add(c->img, c->words[2], granularity, 0, &err);
        return answer(c, rc, "bitmap", &err);
    }
    for (size_t i = 0; c->nr == 3 && i < ZT_COUNT(changes); i++) {
        if (!strcmp(c->words[1], changes[i].name))
            return answer(c, changes[i].change(c->img, c->words[2], &err), "bitmap", &err);
    }
    return unknown(c);
}

static const struct {
    const char *name;
    int min, max; /* words, the name included */
    bool (*run)(struct command *c);
} commands[] = {
    {"stats", 1, 1, run_stats},   {"time", 2, 2, run_time},         {"flush", 1, 1, run_flush},
    {"zone", 3, 4, run_zone},     {"snapshot", 3, 3, run_snapshot}, {"bitmap", 3, 4, run_bitmap},
    {"cut", 1, 3, run_cut},       {"fault", 2, 8, run_fault},       {"clear", 1, 1, run_clear},
    {"resize", 2, 3, run_resize}, {"compact", 1, 2, run_compact},   {"events", 1, 1, run_events},
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

bool serve_command(struct serve_image *image, char *line, size_t length, FILE *out, char *why)
{
    struct command c = {.image = image, .img = image->img, .out = out, .why = why};

    if (strlen(line) != length || !split(&c, line) || !c.nr)
        return unknown(&c);
    for (size_t i = 0; i < ZT_COUNT(commands); i++) {
        if (!strcmp(c.words[0], commands[i].name))
            return c.nr < commands[i].min || c.nr > commands[i].max ? unknown(&c) :
                                                                      commands[i].run(&c);
    }
    return unknown(&c);
}
