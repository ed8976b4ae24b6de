/* SPDX-License-Identifier: MIT */
/* A worker of the crash test: its orders and its reports. */
#ifndef CRASH_WORK_H
#define CRASH_WORK_H

#include <stdatomic.h>
#include <time.h>

#include "crash.h"

#define MAX_WORKERS  16u
#define MAX_FAILURES 20u

struct table { /* of hashes, filled by all workers */
    _Atomic uint64_t *slot;
    uint64_t mask;
};

struct shared {
    _Atomic uint64_t next, states, points, deep, histories, violations, judged, foreign;
    _Atomic uint64_t sequences, cut_short; /* done, and begun when the time was up */
    _Atomic uint64_t seen[MAX_WORLDS];     /* states of each geometry */
    _Atomic bool absent[MAX_WORLDS];       /* it wants a program that is not here */
    char now[MAX_WORKERS][96];
};

struct options {
    uint64_t seed, states, cap, seconds, histories;
    uint64_t sequences;   /* all of up to so many letters, and nothing else; 0: a mixture */
    uint64_t part, parts; /* of them: each parts-th, from the part-th on; parts 0: all */
    unsigned workers;
    const char *geometry, *replay, *qemu;
    bool quick;
    bool core, layers; /* only images that need no other file; only those that do */
};

struct base { /* of one geometry: the image that workloads start from, and how it came about */
    struct run run;
    uint8_t *snapshot; /* what it reads, or NULL */
    bool ready, absent;
};

struct place { /* what a failure prints, and what --replay takes */
    const struct crash_geometry *g;
    char spec[48];
    uint64_t generation, cut, state, cut2, state2;
};

struct worker {
    const struct options *opt;
    struct shared *sh;
    struct table images, judged;
    struct base base[MAX_WORLDS][2];
    unsigned id;
    struct place here, want; /* want: what a replay looks for */
    bool replaying, verbose;
    uint64_t full_checks, cuts, promise;
    time_t until;
};

uint64_t blend(uint64_t h, uint64_t v);
/* Prints the line that replays w->here. */
void violation(struct worker *w, const char *why);
/* base.c: the image that the geometry's workloads start from; NULL: there is none. */
struct base *base_of(struct worker *w, const struct crash_geometry *g, bool async);
/* What the model knows then. */
void base_replay(struct power_model *o, struct run *r);
bool enough(const struct worker *w);
/* spec: letters, or ~seed; then perhaps @ and a seed: asynchronous; then perhaps !fault. */
void work(struct worker *w, const struct crash_geometry *g, const char *spec);
void random_letters(const struct crash_geometry *g, uint64_t *rng, char *out, unsigned n);

#endif
