/* SPDX-License-Identifier: MIT */
/* The statistics of a served image. */
#include "serve/stats.h"

#include <inttypes.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "json.h"
#include "tool.h"

static const char *op_name(unsigned op)
{
    static const char *const names[] = {
        [ZQCOW2_OP_READ] = "read",
        [ZQCOW2_OP_WRITE] = "write",
        [ZQCOW2_OP_APPEND] = "append",
        [ZQCOW2_OP_WRITE_ZEROES] = "write-zeroes",
        [ZQCOW2_OP_DISCARD] = "discard",
        [ZQCOW2_OP_FLUSH] = "flush",
        [ZQCOW2_OP_DRAIN] = "drain",
        [ZQCOW2_OP_ZONE_OPEN] = "zone-open",
        [ZQCOW2_OP_ZONE_CLOSE] = "zone-close",
        [ZQCOW2_OP_ZONE_FINISH] = "zone-finish",
        [ZQCOW2_OP_ZONE_RESET] = "zone-reset",
        [ZQCOW2_OP_ZONE_SET_STATE] = "zone-set-state",
        [ZQCOW2_OP_BLOCK_STATUS] = "block-status",
        [ZQCOW2_OP_ZONE_SET_DESCRIPTOR] = "set-descriptor",
        [ZQCOW2_OP_ZONE_GET_DESCRIPTORS] = "get-descriptors",
    };

    return op < ZT_COUNT(names) ? names[op] : "unknown";
}

static const struct {
    const char *name, *text;
    size_t at;
} counters[] = {
    {"rounds", "metadata rounds", offsetof(struct serve_stats, image.rounds)},
    {"flushes", "backend flushes", offsetof(struct serve_stats, image.flushes)},
    {"cache-hits", "cache hits", offsetof(struct serve_stats, image.cache_hits)},
    {"cache-loads", "cache loads", offsetof(struct serve_stats, image.cache_loads)},
    {"implicit-closes", "implicit closes", offsetof(struct serve_stats, image.implicit_closes)},
    {"zero-copies", "requests without a copy", offsetof(struct serve_stats, zero_copies)},
};

static uint64_t counter(const struct serve_stats *s, size_t i)
{
    return *(const uint64_t *)((const char *)s + counters[i].at);
}

/* ---- lines ---- */

static void write_op(FILE *out, unsigned op, const struct zqcow2_op_stats *o)
{
    fprintf(out, "op %u %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64, op, o->requests, o->errors,
            o->bytes, o->nanoseconds);
    for (unsigned i = 0; i < ZQCOW2_STATS_BUCKETS; i++)
        fprintf(out, " %" PRIu64, o->latency[i]);
    putc('\n', out);
}

void serve_stats_write(FILE *out, const struct serve_stats *s)
{
    for (size_t i = 0; i < ZT_COUNT(counters); i++)
        fprintf(out, "%s %" PRIu64 "\n", counters[i].name, counter(s, i));
    for (unsigned i = 0; i < ZQCOW2_STATS_STATES; i++)
        fprintf(out, "zones %u %" PRIu32 "\n", i, s->image.zones[i]);
    for (unsigned op = 0; op < ZQCOW2_STATS_OPS; op++) {
        if (s->image.op[op].requests)
            write_op(out, op, &s->image.op[op]);
    }
}

/* The next number of a line; false: there is none. */
static bool take(char **rest, uint64_t *v)
{
    char *word = strtok_r(NULL, " ", rest);

    return word && zt_parse_u64(word, v);
}

static bool parse_zones(char **rest, struct serve_stats *s)
{
    uint64_t state, n;

    if (!take(rest, &state) || !take(rest, &n) || state >= ZQCOW2_STATS_STATES)
        return false;
    s->image.zones[state] = (uint32_t)n;
    return true;
}

static bool parse_op(char **rest, struct serve_stats *s)
{
    struct zqcow2_op_stats *o;
    uint64_t op;
    bool ok;

    if (!take(rest, &op) || op >= ZQCOW2_STATS_OPS)
        return false;
    o = &s->image.op[op];
    ok = take(rest, &o->requests) && take(rest, &o->errors) && take(rest, &o->bytes) &&
         take(rest, &o->nanoseconds);
    for (unsigned i = 0; ok && i < ZQCOW2_STATS_BUCKETS; i++)
        ok = take(rest, &o->latency[i]);
    return ok;
}

static bool parse_line(char *line, struct serve_stats *s)
{
    char *rest = NULL;
    const char *name = strtok_r(line, " ", &rest);

    if (!name)
        return false;
    if (!strcmp(name, "zones"))
        return parse_zones(&rest, s);
    if (!strcmp(name, "op"))
        return parse_op(&rest, s);
    for (size_t i = 0; i < ZT_COUNT(counters); i++) {
        if (!strcmp(name, counters[i].name))
            return take(&rest, (uint64_t *)((char *)s + counters[i].at));
    }
    return true;
}

bool serve_stats_parse(char *text, struct serve_stats *s)
{
    char *rest = NULL;

    *s = (struct serve_stats){.image.size = sizeof(s->image)};
    for (char *line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
        if (!parse_line(line, s))
            return false;
    }
    return true;
}

/* ---- tables ---- */

static uint64_t timed(const struct zqcow2_op_stats *o)
{
    uint64_t n = 0;

    for (unsigned i = 0; i < ZQCOW2_STATS_BUCKETS; i++)
        n += o->latency[i];
    return n;
}

/* Nanoseconds that so many thousandths of the requests did not exceed: the end of an interval. */
static double percentile(const struct zqcow2_op_stats *o, unsigned thousandths)
{
    double want = (double)timed(o) * thousandths / 1000;
    uint64_t n = 0;
    unsigned i = 0;

    while (i + 1 < ZQCOW2_STATS_BUCKETS && (double)(n += o->latency[i]) < want)
        i++;
    return (double)((uint64_t)2 << i);
}

static const char *time_text(char *buf, size_t room, double ns)
{
    static const char *const units[] = {"ns", "us", "ms", "s"};
    unsigned u = 0;

    for (; ns >= 1000 && u < 3; u++)
        ns /= 1000;
    snprintf(buf, room, "%.3g %s", ns, units[u]);
    return buf;
}

static void print_times(const struct zqcow2_op_stats *o)
{
    static const unsigned shares[] = {500, 990, 999};
    uint64_t n = timed(o);
    char text[32];

    printf("  %9s", n ? time_text(text, sizeof(text), (double)o->nanoseconds / (double)n) : "-");
    for (size_t i = 0; i < ZT_COUNT(shares); i++)
        printf("  %9s", n ? time_text(text, sizeof(text), percentile(o, shares[i])) : "-");
    putchar('\n');
}

static void print_head(const char *suffix)
{
    char names[3][16];

    snprintf(names[0], sizeof(names[0]), "REQUESTS%s", suffix);
    snprintf(names[1], sizeof(names[1]), "ERRORS%s", suffix);
    snprintf(names[2], sizeof(names[2]), "BYTES%s", suffix);
    printf("%-15s  %12s  %8s  %12s  %9s  %9s  %9s  %9s\n", "OPERATION", names[0], names[1],
           names[2], "MEAN", "P50", "P99", "P99.9");
}

void serve_stats_print(const struct serve_stats *s)
{
    char text[32];

    print_head("");
    for (unsigned op = 0; op < ZQCOW2_STATS_OPS; op++) {
        const struct zqcow2_op_stats *o = &s->image.op[op];

        if (!o->requests)
            continue;
        printf("%-15s  %12" PRIu64 "  %8" PRIu64 "  %12s", op_name(op), o->requests, o->errors,
               zt_human(text, sizeof(text), o->bytes));
        print_times(o);
    }
    for (size_t i = 0; i < ZT_COUNT(counters); i++)
        printf("%s%s: %" PRIu64, i ? ", " : "", counters[i].text, counter(s, i));
    putchar('\n');
    for (unsigned i = 0, any = 0; i < ZQCOW2_STATS_STATES; i++) {
        if (s->image.zones[i])
            printf("%s%" PRIu32 " %s", any++ ? ", " : "zones: ", s->image.zones[i],
                   zt_state_name(i));
        if (any && i + 1 == ZQCOW2_STATS_STATES)
            putchar('\n');
    }
}

/* A server that began anew meanwhile counts from 0. */
static uint64_t since(uint64_t before, uint64_t now)
{
    return now < before ? now : now - before;
}

static void subtract(const struct zqcow2_op_stats *a, const struct zqcow2_op_stats *b,
                     struct zqcow2_op_stats *d)
{
    d->requests = since(a->requests, b->requests);
    d->errors = since(a->errors, b->errors);
    d->bytes = since(a->bytes, b->bytes);
    d->nanoseconds = since(a->nanoseconds, b->nanoseconds);
    for (unsigned i = 0; i < ZQCOW2_STATS_BUCKETS; i++)
        d->latency[i] = since(a->latency[i], b->latency[i]);
}

void serve_stats_rates(const struct serve_stats *before, const struct serve_stats *s,
                       double seconds)
{
    char text[32];

    print_head("/S");
    for (unsigned op = 0; op < ZQCOW2_STATS_OPS; op++) {
        struct zqcow2_op_stats d;

        subtract(&before->image.op[op], &s->image.op[op], &d);
        if (!d.requests)
            continue;
        printf("%-15s  %12.1f  %8.1f  %12s", op_name(op), (double)d.requests / seconds,
               (double)d.errors / seconds,
               zt_human(text, sizeof(text), (uint64_t)((double)d.bytes / seconds)));
        print_times(&d);
    }
}

/* ---- JSON ---- */

static void json_op(struct zt_json *j, unsigned op, const struct zqcow2_op_stats *o)
{
    zt_json_open(j, NULL, '{');
    zt_json_str(j, "operation", op_name(op));
    zt_json_u64(j, "requests", o->requests);
    zt_json_u64(j, "errors", o->errors);
    zt_json_u64(j, "bytes", o->bytes);
    zt_json_u64(j, "nanoseconds", o->nanoseconds);
    zt_json_open(j, "latency", '[');
    for (unsigned i = 0; i < ZQCOW2_STATS_BUCKETS; i++)
        zt_json_u64(j, NULL, o->latency[i]);
    zt_json_close(j, ']');
    zt_json_close(j, '}');
}

void serve_stats_json(const struct serve_stats *s)
{
    struct zt_json j = {.out = stdout};

    zt_json_open(&j, NULL, '{');
    for (size_t i = 0; i < ZT_COUNT(counters); i++)
        zt_json_u64(&j, counters[i].name, counter(s, i));
    zt_json_open(&j, "zones", '{');
    for (unsigned i = 0; i < ZQCOW2_STATS_STATES; i++) {
        if (s->image.zones[i])
            zt_json_u64(&j, zt_state_name(i), s->image.zones[i]);
    }
    zt_json_close(&j, '}');
    zt_json_open(&j, "operations", '[');
    for (unsigned op = 0; op < ZQCOW2_STATS_OPS; op++) {
        if (s->image.op[op].requests)
            json_op(&j, op, &s->image.op[op]);
    }
    zt_json_close(&j, ']');
    zt_json_close(&j, '}');
}
