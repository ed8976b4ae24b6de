/* SPDX-License-Identifier: MIT */
/* What the sides of a comparison share: a plan of what to do, and how one chunk of it is done. */
#ifndef BENCH_H
#define BENCH_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <zqcow2/backend.h>
#include <zqcow2/queue.h>

#define KiB(n) ((uint64_t)(n) << 10)
#define MiB(n) ((uint64_t)(n) << 20)
#define GiB(n) ((uint64_t)(n) << 30)

#define ZONE_BYTES  MiB(256)
#define NR_ZONES    12u
#define CONV_ZONES  2u
#define MANY_BYTES  MiB(64)
#define MANY_ZONES  2048u
#define RAW_BASE    MiB(1) /* where a bare file has what a device has at 0 */
#define MAX_DEPTH   256u
#define MAX_THREADS 8u

enum pattern {
    APPEND,    /* round robin over `zones` zones, each filled from its start */
    READ,      /* random places of what was written before */
    OVERWRITE, /* random places that hold data already, where there is no write pointer */
    SCATTER,   /* each in another 64 KiB where nothing was written before, likewise */
    FIRST      /* each in another of MANY_ZONES zones, all empty before */
};

struct plan {
    const char *title;
    enum pattern pattern;
    size_t bytes;            /* of one request */
    unsigned depth, threads; /* requests in flight; threads that do `ops` each */
    unsigned zones;
    unsigned chunks, ops; /* how often the sides take turns; requests in one turn */
    double target;        /* library's throughput over the other side's; 0: none */
    bool fresh;           /* a new file for each chunk */
    /*
     * Not 0: an image without zones, which is as long as `zones`, and gone over in these steps
     * from its start in each chunk, as `qemu-img bench` does.
     */
    uint64_t step;
    unsigned levels;  /* backing files below: the lowest is full, the others nearly empty */
    bool subclusters; /* of 4 KiB */
};

static inline bool is_plain(const struct plan *p)
{
    return p->step != 0;
}

/* Must all that is read or overwritten be there before the first chunk? Else that maps it. */
static inline bool must_fill(const struct plan *p)
{
    return (p->pattern == READ || p->pattern == OVERWRITE) && !p->levels && !p->subclusters;
}

/* One side of a comparison, alive from begin() to end(). */
struct side {
    const char *name;
    void *(*begin)(const struct plan *p, const char *path);
    double (*chunk)(void *self); /* seconds */
    void (*end)(void *self);
};

/* Requests in a random order that is the same for every side. */
struct course {
    const struct plan *plan;
    uint64_t rng, done;
    unsigned thread;
};

void course_begin(struct course *c, const struct plan *p, unsigned thread);
/* Address of the next request; an append takes the one with the same number. */
uint64_t course_next(struct course *c);

extern bool bench_direct;
extern const char *bench_aio;
double bench_now(void);
/* The path of the file so many levels below the image at path. */
void bench_below(char *buf, size_t size, const char *path, unsigned level);
/* A buffer of random bytes, the same for all; MAX_DEPTH requests of 1 MiB have room in turn. */
char *bench_buffer(unsigned slot, size_t bytes);
void bench_die(const char *what, int rc) __attribute__((noreturn));
/* Runs work() in the plan's threads at the same time; seconds. */
double bench_threads(const struct plan *p, void (*work)(void *self, unsigned thread), void *self);

extern const struct side raw_calls, raw_ring;
extern const struct side lib_calls, lib_calls_ring, lib_calls_threads;
extern const struct side lib_alone; /* the same without the files below */
extern const struct side lib_queue_ring, lib_queue_file, lib_queue_uncached;
extern const struct side qemu_side;
bool ring_works(void);

/* files.c: the image of a plan, and what lies below it; only the image with `top`. */
void files_make(const struct plan *p, const char *path, bool top);
void files_remove(const struct plan *p, const char *path);

/* once.c: an open with a report, and a reset: microseconds in the library, without the backend. */
void once_open_report(const char *dir, unsigned runs, double *open_us, double *report_us);
void once_reset(const char *dir, unsigned runs, double *own_us, double *host_us, unsigned *calls);

#endif
