/* SPDX-License-Identifier: MIT */
/* Faults as text. Every list of parts has colons between them, in the order of the grammar. */
#include "serve/spec.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "tool.h"

#define PARTS 6

struct name {
    const char *text;
    int value;
};

static const struct name kinds[] = {
    {"read", ZQCOW2_IO_READ}, {"write", ZQCOW2_IO_WRITE},     {"flush", ZQCOW2_IO_FLUSH},
    {"zero", ZQCOW2_IO_ZERO}, {"discard", ZQCOW2_IO_DISCARD}, {"truncate", ZQCOW2_IO_TRUNCATE},
};

static const struct name errors[] = {
    {"EIO", EIO},       {"ENOSPC", ENOSPC}, {"ENOMEM", ENOMEM},       {"EAGAIN", EAGAIN},
    {"EROFS", EROFS},   {"EDQUOT", EDQUOT}, {"ETIMEDOUT", ETIMEDOUT}, {"ENODEV", ENODEV},
    {"EACCES", EACCES}, {"EPERM", EPERM},   {"EBADF", EBADF},         {"ESTALE", ESTALE},
    {"EFBIG", EFBIG},   {"EINVAL", EINVAL},
};

static const struct name hows[] = {
    {"lose-all", ZQCOW2_FAULTS_LOSE_ALL},   {"keep-all", ZQCOW2_FAULTS_KEEP_ALL},
    {"whole", ZQCOW2_FAULTS_WHOLE},         {"torn-512", ZQCOW2_FAULTS_TORN_512},
    {"torn-4096", ZQCOW2_FAULTS_TORN_4096},
};

static bool look_up(const struct name *names, size_t n, const char *text, int *value)
{
    for (size_t i = 0; i < n; i++) {
        if (!strcmp(names[i].text, text)) {
            *value = names[i].value;
            return true;
        }
    }
    return false;
}

static bool wrong(char *why, const char *fmt, const char *text)
    __attribute__((format(printf, 2, 0)));

static bool wrong(char *why, const char *fmt, const char *text)
{
    snprintf(why, SERVE_SPEC_WHY, fmt, text);
    return false;
}

/* ---- parts ---- */

/* "write+zero", or "any". */
static bool parse_kinds(char *text, uint32_t *out, char *why)
{
    char *rest = NULL;
    int kind;

    for (size_t i = 0; i < ZT_COUNT(kinds); i++)
        *out |= strcmp(text, "any") ? 0 : 1u << kinds[i].value;
    if (*out)
        return true;
    for (char *k = strtok_r(text, "+", &rest); k; k = strtok_r(NULL, "+", &rest)) {
        if (!look_up(kinds, ZT_COUNT(kinds), k, &kind))
            return wrong(why, "'%s' is no kind of request", k);
        *out |= 1u << kind;
    }
    return *out ? true : wrong(why, "a kind of request is missing%s", "");
}

/* "OFFSET+LENGTH", or "all". */
static bool parse_range(char *text, struct zqcow2_faults_rule *r, char *why)
{
    char *plus = strchr(text, '+');

    if (!strcmp(text, "all"))
        return true;
    if (plus)
        *plus++ = '\0';
    if (plus && zt_parse_size(text, &r->offset) && zt_parse_size(plus, &r->length) && r->length &&
        r->offset <= INT64_MAX && r->length <= INT64_MAX)
        return true;
    return wrong(why, "'%s' begins no range: give OFFSET+LENGTH or all", text);
}

/* Milliseconds with up to three decimals, at most a minute. */
static bool parse_ms(const char *text, uint32_t *us)
{
    char *end;
    double ms = strtod(text, &end);

    if (end == text || *end || !strchr("0123456789.", text[0]) || !(ms >= 0 && ms <= 60000))
        return false;
    *us = (uint32_t)(ms * 1000 + 0.5);
    return true;
}

/* "MIN-MAX", or one number. */
static bool parse_delay(char *text, struct zqcow2_faults_rule *r, char *why)
{
    char *dash = strchr(text, '-');

    if (dash)
        *dash++ = '\0';
    if (parse_ms(text, &r->delay_min) && parse_ms(dash ? dash : text, &r->delay_max) &&
        r->delay_min <= r->delay_max)
        return true;
    return wrong(why, "'%s' begins no delay: give one or two numbers of milliseconds", text);
}

static bool parse_count(const char *text, uint64_t *out, char *why)
{
    return zt_parse_u64(text, out) ? true : wrong(why, "'%s' is no number of requests", text);
}

/* KIND:RANGE:ERRNO[:COUNT[:NTH[:EVERY]]] */
static bool parse_fail(char **part, size_t n, struct zqcow2_faults_rule *r, char *why)
{
    if (n < 3)
        return wrong(why, "fail: give KIND:RANGE:ERRNO%s", "");
    r->count = r->nth = r->every = 1;
    if (!parse_kinds(part[0], &r->kinds, why) || !parse_range(part[1], r, why))
        return false;
    if (!look_up(errors, ZT_COUNT(errors), part[2], &r->error))
        return wrong(why, "'%s' is not an error that a request can return", part[2]);
    r->error = -r->error;
    return (n < 4 || parse_count(part[3], &r->count, why)) &&
           (n < 5 || parse_count(part[4], &r->nth, why)) &&
           (n < 6 || parse_count(part[5], &r->every, why)) &&
           (r->nth || wrong(why, "the first request has the number 1%s", ""));
}

/* KIND:MS[-MS][:RANGE] */
static bool parse_slow(char **part, size_t n, struct zqcow2_faults_rule *r, char *why)
{
    if (n < 2 || n > 3)
        return wrong(why, "delay: give KIND:MS%s", "");
    r->nth = r->every = 1;
    return parse_kinds(part[0], &r->kinds, why) && parse_delay(part[1], r, why) &&
           (n < 3 || parse_range(part[2], r, why));
}

/* ---- items ---- */

static bool split(char *text, char **part, size_t *n)
{
    char *rest = NULL;

    for (char *p = strtok_r(text, ":", &rest); p; p = strtok_r(NULL, ":", &rest)) {
        if (*n == PARTS)
            return false;
        part[(*n)++] = p;
    }
    return true;
}

static bool add_rule(struct serve_faults_spec *s, bool fails, const char *value, char *why)
{
    struct zqcow2_faults_rule r = ZQCOW2_FAULTS_RULE_INIT;
    char text[256], *part[PARTS];
    size_t n = 0;

    snprintf(text, sizeof(text), "%s", value);
    if (strlen(value) >= sizeof(text) || !split(text, part, &n))
        return wrong(why, "a rule is too long%s", "");
    if (s->nr_rules == SERVE_RULES)
        return wrong(why, "there are too many rules%s", "");
    if (!(fails ? parse_fail : parse_slow)(part, n, &r, why))
        return false;
    s->rules[s->nr_rules++] = r;
    return true;
}

static bool set_how(struct serve_faults_spec *s, const char *value, char *why)
{
    char text[32];
    char *plus;
    int how;

    snprintf(text, sizeof(text), "%s", value);
    plus = strchr(text, '+');
    if (plus)
        *plus++ = '\0';
    if (!look_up(hows, ZT_COUNT(hows), text, &how) || (plus && strcmp(plus, "reorder")))
        return wrong(why, "'%s' is not how power can be lost", value);
    s->how = (uint32_t)how | (plus ? ZQCOW2_FAULTS_REORDER : 0);
    return true;
}

bool serve_spec_item(struct serve_faults_spec *s, const char *item, char *why)
{
    const char *value = strchr(item, '=');
    size_t n = value ? (size_t)(value - item) : 0;

    value = value ? value + 1 : "";
#define IS(name) (n == sizeof(name) - 1 && !memcmp(item, name, n))
    if (IS("fail") || IS("delay"))
        return add_rule(s, IS("fail"), value, why);
    if (IS("how"))
        return set_how(s, value, why);
    if (IS("log")) {
        s->log = value;
        return *value ? true : wrong(why, "log: a file is missing%s", "");
    }
    if (IS("seed")) {
        s->has_seed = zt_parse_u64(value, &s->seed);
        return s->has_seed ? true : wrong(why, "seed: '%s' is no number", value);
    }
    if (IS("max-held"))
        return zt_parse_size(value, &s->max_held) && s->max_held ?
                   true :
                   wrong(why, "max-held: '%s' is no size", value);
#undef IS
    return wrong(why, "'%s' is no fault", item);
}

void serve_spec_init(struct serve_faults_spec *s)
{
    memset(s, 0, sizeof(*s));
    s->how = ZQCOW2_FAULTS_TORN_512;
}

/* The name of the log is the rest of the text. */
bool serve_spec_parse(struct serve_faults_spec *s, const char *text, char *why)
{
    while (*text) {
        size_t n = strncmp(text, "log=", 4) ? strcspn(text, ",") : strlen(text);
        char item[256];

        if (text[n] == '\0' && !strncmp(text, "log=", 4))
            return serve_spec_item(s, text, why);
        snprintf(item, sizeof(item), "%.*s", (int)(n < sizeof(item) ? n : sizeof(item) - 1), text);
        if (n >= sizeof(item))
            return wrong(why, "an item is too long: %.80s", item);
        if (!serve_spec_item(s, item, why))
            return false;
        text += n + (text[n] == ',');
    }
    return true;
}

const char *serve_spec_how(uint32_t how, char *buf, size_t room)
{
    for (size_t i = 0; i < ZT_COUNT(hows); i++) {
        if ((uint32_t)hows[i].value == (how & ~(uint32_t)ZQCOW2_FAULTS_REORDER))
            snprintf(buf, room, "%s%s", hows[i].text,
                     how & ZQCOW2_FAULTS_REORDER ? "+reorder" : "");
    }
    return buf;
}
