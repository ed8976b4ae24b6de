/* SPDX-License-Identifier: MIT */
/*
 * The control socket of a server: each line of the text is a command for a served image, which lies
 * in memory; the first byte says whether it has zones. Whatever is said, the image stays whole. The
 * text is given to the parsers of --faults and of statistics, too.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fuzz/target.h"
#include "serve/command.h"
#include "serve/stats.h"

#define ZONE  65536u
#define ZONES 8u
#define LINES 24u
#define MOST  (1u << 20) /* bytes of a device: a larger one would only take its time */

/* Of the servers; the device is the image. */
int serve_image_resized(struct serve_image *s)
{
    return zqcow2_get_info(s->img, &s->info);
}

static void must(int rc, const char *what)
{
    if (rc < 0)
        fuzz_fail("%s: %s", what, zqcow2_strerror(rc));
}

static struct zqcow2_backend *begin(struct serve_image *s, bool zoned)
{
    struct zqcow2_create_options c = ZQCOW2_CREATE_OPTIONS_INIT;
    struct zqcow2_open_options o = ZQCOW2_OPEN_OPTIONS_INIT;
    struct zqcow2_faults_options f = ZQCOW2_FAULTS_OPTIONS_INIT;
    struct zqcow2_backend *be, *inner;

    memset(s, 0, sizeof(*s));
    serve_events_init(&s->events);
    serve_spec_init(&s->own.spec);
    s->own.spec.has_seed = true;
    c.virtual_size = ZONE * ZONES;
    c.cluster_size = 4096;
    c.zone_size = zoned ? ZONE : 0;
    c.conventional_zones = zoned;
    o.flags = ZQCOW2_OPEN_RDWR;
    must(zqcow2_mem_open(0, NULL, &inner), "memory");
    must(zqcow2_create(inner, &c, NULL), "create");
    must(zqcow2_faults_wrap(inner, &f, &s->own.image), "faults");
    must(zqcow2_faults_backend(s->own.image, &be), "faults");
    s->faults = &s->own;
    must(zqcow2_open(be, &o, &s->img, NULL), "open");
    s->info.size = sizeof(s->info);
    must(zqcow2_get_info(s->img, &s->info), "info");
    return be;
}

/* Something to keep: data, that commands may hold or lose but not bend. */
static void fill(struct serve_image *s)
{
    static const uint8_t data[4096] = {7};

    (void)zqcow2_write(s->img, data, sizeof(data), 0, 0);
    (void)zqcow2_write(s->img, data, sizeof(data), ZONE, 0);
}

static bool is_whole(char **lines, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        if (!strncmp(lines[i], "cut", 3) || !strncmp(lines[i], "fault", 5))
            return false;
    }
    return true;
}

static void say(struct serve_image *s, const char *line)
{
    char *copy = strdup(line), *text = NULL, why[SERVE_COMMAND_WHY] = "";
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);

    if (!copy || !out)
        fuzz_fail("no memory");
    if (!serve_command(s, copy, strlen(copy), out, why) && !why[0])
        fuzz_fail("\"%s\" fails without a reason", line);
    fclose(out);
    free(text);
    free(copy);
}

static void end(struct serve_image *s, bool whole)
{
    struct zqcow2_check_result res = ZQCOW2_CHECK_RESULT_INIT;
    struct zqcow2_backend *be;
    int rc = zqcow2_close(s->img);

    if (whole)
        must(rc, "close");
    if (whole) {
        must(zqcow2_faults_backend(s->own.image, &be), "faults");
        must(zqcow2_check(be, NULL, &res, NULL), "check");
        if (res.corruptions || res.leaked_clusters)
            fuzz_fail("%llu corruptions, %llu leaks", (unsigned long long)res.corruptions,
                      (unsigned long long)res.leaked_clusters);
        zqcow2_backend_close(be);
    }
    zqcow2_faults_free(s->own.image);
    pthread_mutex_destroy(&s->events.lock);
}

/* A size that only takes time, a delay, a wait. */
static bool is_harmless(const char *line)
{
    for (const char *d = line; *d; d++) {
        if (*d >= '0' && *d <= '9' && strtoull(d, NULL, 10) > MOST && !strstr(line, "seed="))
            return false;
    }
    return !strstr(line, "delay") && !strstr(line, "log");
}

static void parse(const char *text)
{
    struct serve_faults_spec spec;
    struct serve_stats stats = {{.size = sizeof(stats.image)}, 0};
    char why[SERVE_SPEC_WHY] = "", *copy = strdup(text);

    serve_spec_init(&spec);
    if (!serve_spec_parse(&spec, text, why) && !why[0])
        fuzz_fail("a refusal without a reason");
    (void)serve_stats_parse(copy, &stats);
    free(copy);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = calloc(1, size + 1), *lines[LINES], *save = NULL;
    struct serve_image s;
    unsigned n = 0;

    if (!text)
        fuzz_fail("no memory");
    if (size)
        memcpy(text, data + 1, size - 1);
    parse(text);
    begin(&s, size && data[0] & 1);
    fill(&s);
    for (char *l = strtok_r(text, "\n", &save); l && n < LINES; l = strtok_r(NULL, "\n", &save)) {
        if (is_harmless(l))
            lines[n++] = l;
    }
    for (unsigned i = 0; i < n; i++)
        say(&s, lines[i]);
    end(&s, is_whole(lines, n));
    free(text);
    return 0;
}
