/* SPDX-License-Identifier: MIT */
/*
 * Crashes the library: every short workload and many long random ones, on every geometry, with
 * the power cut before and after every backend call, and all that may have survived looked at.
 */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "work.h"

#define NOT_ALL 77 /* the exit status when the time was up before the count */

static void *must(void *p)
{
    if (!p || p == MAP_FAILED) {
        perror("crash");
        exit(2);
    }
    return p;
}

static void *share(size_t bytes)
{
    return must(mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                     MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
}

/* Item i of the sequences of n letters of a geometry. */
static void spell(const struct crash_geometry *g, uint64_t i, unsigned n, char *out)
{
    const char *set = letters_of(g);

    for (unsigned k = 0; k < n; k++) {
        out[k] = set[i % strlen(set)];
        i /= strlen(set);
    }
    out[n] = '\0';
}

static uint64_t power(uint64_t base, unsigned n)
{
    return n ? base * power(base, n - 1) : 1;
}

/* --core, --layers, --geometry: does this run look at it? */
static bool is_chosen(const struct options *opt, const struct crash_geometry *g)
{
    return (!opt->geometry || !strcmp(opt->geometry, g->name)) && !(opt->core && is_layered(g)) &&
           !(opt->layers && !is_layered(g));
}

/* Up to three writes without space: rounds that stop, and what goes on from there. */
static void name_stops(uint64_t *rng, char *to)
{
    for (unsigned n = 1 + (unsigned)(draw(rng) % 3); n; n--)
        to += sprintf(to, "!%c%u%c", "WWWWWWZT"[draw(rng) % 8], 1 + (unsigned)(draw(rng) % 9),
                      "snl"[draw(rng) % 3]);
}

/* A short asynchronous run, a short one with a fault, or a history. */
static void name_random(const struct crash_geometry *g, uint64_t *rng, char *spec)
{
    uint64_t what = draw(rng) % 8;

    if (what >= 5) {
        sprintf(spec, "~%llu%s", (unsigned long long)(draw(rng) % 1000000000u),
                what & 1 ? "@" : "");
        return;
    }
    random_letters(g, rng, spec, 3 + (unsigned)(draw(rng) % 5));
    if (what < 3)
        sprintf(spec + strlen(spec), "@%u", (unsigned)(draw(rng) % 1000000));
    if (what >= 2 && draw(rng) % 2)
        sprintf(spec + strlen(spec), "!%c%u%s", "WFWFTZWFRWFD"[draw(rng) % 12],
                1 + (unsigned)(draw(rng) % 16), draw(rng) % 2 ? "e" : "");
    else if (what >= 2)
        name_stops(rng, spec + strlen(spec));
}

/*
 * What rare rules need, first of all: two table sectors, growth, a flush after a failed one, rounds
 * that stop (R10).
 */
static const struct {
    const char *geometry, *spec;
} pointed[] = {
    {"wide", "cb"},           {"wide", "jb"},
    {"wide", "hb"},           {"grow", "ac"},
    {"grow", "aaee"},         {"c512", "aommm!F3"},
    {"c512used", "ammmm!F3"}, {"plain4k", "omomm!F4"},
    {"c512", "amm!W5n"},      {"c4k", "amm!W4n"},
    {"c4k", "amm!W6n"},       {"c4k", "ajmam!W4n"},
    {"c4k", "amjmaam!W7n"},   {"c4k", "jambm!W3n"},
    {"c4k", "aam!W1n"},       {"c4k", "amaq!W8n"},
    {"wide", "cbm!W9n"},      {"c4k", "ammm!F2n"},
    {"c4k", "dmdmdjdm@1"},    {"c512r1", "dmjdmjdm@2"},
    {"c1kodd", "drhjdh@3"},   {"c4kold", "jbt!W1n!W2l"},
    {"dataover4k", "pupx"},   {"zcommit2", "jaCdC"},
};

static const struct crash_geometry *find_geometry(const char *name)
{
    for (unsigned i = 0; i < crash_ngeometries; i++) {
        if (!strcmp(crash_geometries[i].name, name))
            return &crash_geometries[i];
    }
    return NULL;
}

/* Any of those that this run looks at. */
static const struct crash_geometry *chosen_by(const struct options *opt, uint64_t n)
{
    const struct crash_geometry *g = &crash_geometries[n % crash_ngeometries];

    for (unsigned i = 0; i < crash_ngeometries && !is_chosen(opt, g); i++)
        g = &crash_geometries[++n % crash_ngeometries];
    return g;
}

#define NPOINTED (sizeof(pointed) / sizeof(pointed[0]))

/*
 * Item `n` of the run: what is pointed out, then one of each geometry, sequences of one, then of
 * two on all geometries, of three on one, mixed with asynchronous ones; then histories without end.
 * False: nothing there, try the next.
 */
static bool item(const struct options *opt, uint64_t n, const struct crash_geometry **g, char *spec)
{
    const uint64_t widest = MOST_LETTERS;
    uint64_t pairs = widest * widest * crash_ngeometries, triples = widest * widest * widest;
    uint64_t rng = blend(n, opt->seed);

    if (n < NPOINTED) {
        *g = find_geometry(pointed[n].geometry);
        strcpy(spec, pointed[n].spec);
        return true;
    }
    n -= NPOINTED;
    if (n < crash_ngeometries) {
        *g = &crash_geometries[n];
        strcpy(spec, (*g)->zone_size ? "am" : "om");
        return true;
    }
    n -= crash_ngeometries;
    *g = &crash_geometries[n % crash_ngeometries];
    if ((*g)->weight < 10 && n / crash_ngeometries % 8)
        return false; /* large, and slow */
    if (opt->quick)
        n = draw(&rng) % (pairs * 4);
    if (n < widest * crash_ngeometries) {
        spell(*g, n / crash_ngeometries, 1, spec);
        return n / crash_ngeometries < strlen(letters_of(*g));
    }
    n -= widest * crash_ngeometries;
    if (n < pairs) {
        spell(*g, n / crash_ngeometries, 2, spec);
        return n / crash_ngeometries < power(strlen(letters_of(*g)), 2);
    }
    n -= pairs;
    if (!opt->quick && n < triples) {
        *g = chosen_by(opt, opt->seed);
        spell(*g, n, 3, spec);
        return n < power(strlen(letters_of(*g)), 3);
    }
    name_random(*g, &rng, spec);
    return true;
}

/*
 * ---- every sequence ----
 *
 * As ACE does for file systems: what breaks a rule is mostly short, so all that is short is tried.
 */

/* Sequences of up to n letters. */
static uint64_t nr_sequences(const struct crash_geometry *g, unsigned n)
{
    return n ? power(strlen(letters_of(g)), n) + nr_sequences(g, n - 1) : 0;
}

/* Item `n`, the shorter ones first. False: there is none. */
static bool sequence_at(const struct options *opt, uint64_t n, const struct crash_geometry **g,
                        char *spec)
{
    for (unsigned length = 1; length <= opt->sequences; length++) {
        for (unsigned i = 0; i < crash_ngeometries; i++) {
            uint64_t own = power(strlen(letters_of(&crash_geometries[i])), length);

            if (!is_chosen(opt, &crash_geometries[i]))
                continue;
            if (n < own) {
                *g = &crash_geometries[i];
                spell(*g, n, length, spec);
                return true;
            }
            n -= own;
        }
    }
    return false;
}

static void labour_in_order(struct worker *w)
{
    uint64_t step = w->opt->parts ? w->opt->parts : 1;
    const struct crash_geometry *g;
    char spec[64];

    while (!enough(w) && atomic_load(&w->sh->states) < w->opt->states) {
        uint64_t n = atomic_fetch_add(&w->sh->next, 1) * step + w->opt->part;

        if (!sequence_at(w->opt, n, &g, spec))
            return;
        work(w, g, spec);
        atomic_fetch_add(enough(w) ? &w->sh->cut_short : &w->sh->sequences, 1);
    }
}

/* 0, or NOT_ALL. */
static int tell_sequences(const struct options *opt, const struct shared *sh)
{
    uint64_t all = 0, step = opt->parts ? opt->parts : 1;

    for (unsigned i = 0; i < crash_ngeometries; i++) {
        if (is_chosen(opt, &crash_geometries[i]))
            all += nr_sequences(&crash_geometries[i], (unsigned)opt->sequences);
    }
    all = all > opt->part ? (all - opt->part - 1) / step + 1 : 0;
    printf("crash sequences: %llu of %llu, of up to %llu operations\n",
           (unsigned long long)sh->sequences, (unsigned long long)all,
           (unsigned long long)opt->sequences);
    return sh->sequences < all ? NOT_ALL : 0;
}

static bool finished(const struct worker *w, uint64_t n)
{
    const uint64_t widest = MOST_LETTERS;
    uint64_t planned = widest * crash_ngeometries * (1 + widest);

    if (enough(w))
        return true;
    return (w->opt->quick || n > planned) && atomic_load(&w->sh->states) >= w->opt->states &&
           atomic_load(&w->sh->histories) >= w->opt->histories;
}

static void labour_at_random(struct worker *w)
{
    const struct crash_geometry *g;
    char spec[64];
    uint64_t n;

    do {
        n = atomic_fetch_add(&w->sh->next, 1);
        if (item(w->opt, n, &g, spec) && is_chosen(w->opt, g))
            work(w, g, spec);
    } while (!finished(w, n));
}

static void labour(struct worker *w)
{
    if (w->opt->sequences)
        labour_in_order(w);
    else
        labour_at_random(w);
    for (unsigned i = 0; i < crash_ngeometries; i++) {
        for (unsigned a = 0; a < 2; a++) {
            if (w->base[i][a].ready)
                run_fini(&w->base[i][a].run);
            free(w->base[i][a].snapshot);
        }
    }
}

static struct table new_table(uint64_t expected)
{
    uint64_t slots = 1u << 20;

    while (slots < expected * 3)
        slots *= 2;
    return (struct table){share(slots * sizeof(uint64_t)), slots - 1};
}

static void report_death(struct shared *sh, unsigned id, int status)
{
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
        return;
    printf("crash --replay %s  # worker %s %d\n", sh->now[id],
           WIFSIGNALED(status) ? (WTERMSIG(status) == SIGPROF ? "hung: signal" : "died: signal") :
                                 "exited",
           WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
    atomic_fetch_add(&sh->violations, 1);
}

/* The count ends a run, unless --seconds or ZQ_UNTIL (seconds since 1970) comes first. */
static time_t end_of(const struct options *opt)
{
    const char *until = getenv("ZQ_UNTIL");
    time_t end = until ? (time_t)strtoll(until, NULL, 10) : INT32_MAX;
    time_t own = time(NULL) + (time_t)opt->seconds;

    return opt->seconds && own < end ? own : end;
}

/* A line with the states of each world; false: one was not seen though there was time. */
static bool tell_worlds(const struct options *opt, const struct shared *sh, bool cut_short)
{
    bool all = true;

    printf("worlds:");
    for (unsigned i = 0; i < crash_ngeometries; i++) {
        if (!is_chosen(opt, &crash_geometries[i]))
            continue;
        printf(" %s %llu%s", crash_geometries[i].name, (unsigned long long)sh->seen[i],
               sh->absent[i] ? " (no qemu-img)" : "");
        if (!sh->seen[i] && !sh->absent[i] && !cut_short)
            all = false;
    }
    printf("\n");
    if (!all)
        printf("crash: a world was not visited\n");
    return all;
}

static int run_all(const struct options *opt)
{
    struct shared *sh = share(sizeof(*sh));
    struct worker *w = must(calloc(1, sizeof(*w)));
    pid_t pid[MAX_WORKERS];
    int status;

    w->opt = opt;
    w->sh = sh;
    w->images = new_table(opt->states + 1000000);
    w->judged = new_table(2 * opt->states + 1000000);
    w->until = end_of(opt);
    fflush(stdout);
    for (unsigned i = 0; i < opt->workers; i++) {
        w->id = i;
        pid[i] = fork();
        if (pid[i] == 0) {
            labour(w);
            free(w);
            exit(0);
        }
    }
    for (unsigned i = 0; i < opt->workers; i++) {
        if (waitpid(pid[i], &status, 0) == pid[i])
            report_death(sh, i, status);
    }
    if (!tell_worlds(opt, sh,
                     opt->sequences || sh->violations ||
                         sh->next < NPOINTED + crash_ngeometries + opt->workers))
        sh->violations++;
    printf("crash points: %llu, histories: %llu, judged: %llu, crashed recoveries: %llu, "
           "items: %llu\n",
           (unsigned long long)sh->points, (unsigned long long)sh->histories,
           (unsigned long long)sh->judged, (unsigned long long)sh->deep,
           (unsigned long long)sh->next);
    if (opt->qemu)
        printf("crash images checked by qemu-img: %llu\n", (unsigned long long)sh->foreign);
    printf("crash states: %llu checked, %llu violations\n", (unsigned long long)sh->states,
           (unsigned long long)sh->violations);
    free(w);
    if (sh->violations)
        return 1;
    if (opt->sequences)
        return tell_sequences(opt, sh);
    if (!opt->quick && !opt->geometry && (sh->states < opt->states || sh->points < 20000)) {
        printf("crash: the time is up: %llu of %llu states, none of them wrong\n",
               (unsigned long long)sh->states, (unsigned long long)opt->states);
        return NOT_ALL;
    }
    return 0;
}

/* geometry:workload:generation:cut:state[:cut:state] */
static int replay(const struct options *opt)
{
    struct worker *w = must(calloc(1, sizeof(*w)));
    struct place *p = &w->want;
    char name[32] = "";
    unsigned long long v[5] = {0, 0, 0, UINT64_MAX, 0};
    int n = sscanf(opt->replay, "%31[^:]:%47[^:]:%llu:%llu:%llu:%llu:%llu", name, p->spec, &v[0],
                   &v[1], &v[2], &v[3], &v[4]);

    p->g = find_geometry(name);
    if (n < 2 || !p->g) {
        fprintf(stderr, "crash: --replay geometry:workload:generation:cut:state\n");
        return 2;
    }
    p->generation = v[0];
    p->cut = v[1];
    p->state = v[2];
    p->cut2 = v[3];
    p->state2 = v[4];
    w->opt = opt;
    w->sh = share(sizeof(*w->sh));
    w->images = new_table(0);
    w->judged = new_table(0);
    w->replaying = n >= 5;
    w->until = time(NULL) + 3600;
    work(w, p->g, p->spec);
    printf("crash states: %llu checked, %llu violations\n", (unsigned long long)w->sh->states,
           (unsigned long long)w->sh->violations);
    return w->sh->violations != 0;
}

static int usage(void)
{
    fprintf(stderr, "usage: crash [--states N] [--cap N] [--seed N] [--seconds N] [--workers N]\n"
                    "             [--histories N] [--geometry NAME] [--qemu DIR] [--quick]\n"
                    "             [--core | --layers] [--sequences LENGTH [--part N --parts N]]\n"
                    "       crash --replay GEOMETRY:WORKLOAD[:GENERATION:CUT:STATE[:CUT:STATE]]\n");
    return 2;
}

int main(int argc, char **argv)
{
    struct options opt = {.states = 1000000, .cap = 64, .workers = 2};

    for (int i = 1; i < argc; i++) {
        const char *v = i + 1 < argc ? argv[i + 1] : NULL;
        struct {
            const char *name;
            uint64_t *n;
        } numbers[] = {{"--states", &opt.states},       {"--cap", &opt.cap},
                       {"--seed", &opt.seed},           {"--seconds", &opt.seconds},
                       {"--histories", &opt.histories}, {"--sequences", &opt.sequences},
                       {"--part", &opt.part},           {"--parts", &opt.parts}};
        const unsigned nr = sizeof(numbers) / sizeof(numbers[0]);
        struct {
            const char *name;
            bool *on;
        } switches[] = {{"--quick", &opt.quick}, {"--core", &opt.core}, {"--layers", &opt.layers}};
        unsigned k = 0;

        while (k < 3 && strcmp(argv[i], switches[k].name))
            k++;
        if (k < 3) {
            *switches[k].on = true;
            continue;
        }
        k = 0;
        if (!v)
            return usage();
        while (k < nr && strcmp(argv[i], numbers[k].name))
            k++;
        if (k < nr)
            *numbers[k].n = strtoull(v, NULL, 10);
        else if (!strcmp(argv[i], "--workers"))
            opt.workers = (unsigned)strtoul(v, NULL, 10);
        else if (!strcmp(argv[i], "--geometry"))
            opt.geometry = v;
        else if (!strcmp(argv[i], "--replay"))
            opt.replay = v;
        else if (!strcmp(argv[i], "--qemu"))
            opt.qemu = v;
        else
            return usage();
        i++;
    }
    if ((opt.core && opt.layers) || opt.sequences > 8 || (opt.parts && opt.part >= opt.parts) ||
        !opt.workers || opt.workers > MAX_WORKERS || !opt.cap)
        return usage();
    return opt.replay ? replay(&opt) : run_all(&opt);
}
