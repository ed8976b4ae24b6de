/* SPDX-License-Identifier: MIT */
/* The verb compact: compresses FULL zones in place, in several threads. */
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>
#include <zqcow2/change.h>

#include "tool.h"

enum { OPT_LEVEL = ZT_OPT_VERB };

#define MAX_THREADS 64u

struct compact {
    struct zt_target target;
    struct zqcow2_image *img;
    struct zqcow2_info info;
    uint32_t level, threads;
    atomic_uint_fast64_t next; /* the zone that is taken next */
    atomic_bool stop;
    pthread_mutex_t lock; /* of what follows */
    uint64_t done;        /* zones */
    struct zqcow2_compact_result sum;
    struct zqcow2_error err;
    int rc; /* the first error */
    struct zt_progress progress;
};

/* ---- in each thread ---- */

static int piece(void *arg, uint64_t done, uint64_t total)
{
    struct compact *p = arg;

    (void)done;
    (void)total;
    return zt_signal() || atomic_load(&p->stop);
}

static void add(struct compact *p, int rc, const struct zqcow2_compact_result *r,
                const struct zqcow2_error *err)
{
    pthread_mutex_lock(&p->lock);
    p->sum.clusters += r->clusters;
    p->sum.compressed += r->compressed;
    p->sum.old_bytes += r->old_bytes;
    p->sum.new_bytes += r->new_bytes;
    p->done++;
    if (rc < 0 && p->rc == 0) {
        p->rc = rc;
        p->err = *err;
    }
    if (rc < 0)
        atomic_store(&p->stop, true);
    zt_progress_at(&p->progress, p->done);
    pthread_mutex_unlock(&p->lock);
}

/* Zone by zone, whichever is next: some take long, and most may take no time. */
static void *work(void *arg)
{
    struct compact *p = arg;
    uint64_t zone;

    while (!atomic_load(&p->stop) && (zone = atomic_fetch_add(&p->next, 1)) < p->info.nr_zones) {
        struct zqcow2_compact_options opt = ZQCOW2_COMPACT_OPTIONS_INIT;
        struct zqcow2_compact_result r = ZQCOW2_COMPACT_RESULT_INIT;
        struct zqcow2_error err = {0, ""};
        uint64_t left = p->info.virtual_size - zone * p->info.zone_size;
        int rc;

        opt.offset = zone * p->info.zone_size;
        opt.length = left < p->info.zone_size ? left : p->info.zone_size;
        opt.level = p->level;
        opt.progress = piece;
        opt.progress_arg = p;
        rc = zqcow2_compact(p->img, &opt, &r, &err);
        add(p, rc, &r, &err);
    }
    return NULL;
}

/* ---- the verb ---- */

/* A thread that cannot be had leaves its work to the others; one is this one. */
static void run_threads(struct compact *p)
{
    pthread_t thread[MAX_THREADS];
    uint32_t n = 0;

    while (n + 1 < p->threads && n + 1 < p->info.nr_zones &&
           pthread_create(&thread[n], NULL, work, p) == 0)
        n++;
    work(p);
    while (n > 0)
        pthread_join(thread[--n], NULL);
}

void zt_put_saved(FILE *out, const struct zqcow2_compact_result *r)
{
    char before[24], after[24], saved[24];

    fprintf(out, "%" PRIu64 " of %" PRIu64 " clusters compressed: %s became %s, %s saved\n",
            r->compressed, r->clusters, zt_human(before, sizeof(before), r->old_bytes),
            zt_human(after, sizeof(after), r->new_bytes),
            zt_human(saved, sizeof(saved), r->old_bytes - r->new_bytes));
}

/* An image without zones has none to take: the library says why that is wrong. */
static int compact(struct compact *p)
{
    if (!zt_info(&p->target, p->img, &p->info))
        return 1;
    if (!(p->info.flags & ZQCOW2_INFO_ZONED))
        p->rc = zqcow2_compact(p->img, NULL, NULL, &p->err);
    pthread_mutex_init(&p->lock, NULL);
    zt_progress_start(&p->progress, "compact", p->info.nr_zones, true);
    run_threads(p);
    zt_progress_end(&p->progress);
    pthread_mutex_destroy(&p->lock);
    p->target.failure = p->rc;
    if (p->rc < 0 && zt_signal())
        zt_error("%s: received %s; clusters already compressed stay compressed", p->target.path,
                 zt_signal());
    else if (p->rc < 0)
        zt_error("%s: %s", p->target.path, zt_reason(p->rc, &p->err));
    if (p->info.flags & ZQCOW2_INFO_ZONED) {
        zt_put(stdout, p->target.path);
        fputs(": ", stdout);
        zt_put_saved(stdout, &p->sum);
    }
    return p->rc < 0;
}

static bool take_number(const char *what, const char *text, uint64_t most, uint32_t *value)
{
    uint64_t v;

    if (!zt_u64_arg(what, text, &v))
        return false;
    if (!v || v > most) {
        zt_error("%s: %s is out of range (1 to %" PRIu64 ")", what, text, most);
        return false;
    }
    *value = (uint32_t)v;
    return true;
}

static bool parse(struct compact *p, int argc, char **argv)
{
    static const struct option longs[] = {ZT_OPTION_BACKEND,
                                          ZT_OPTION_SOURCES,
                                          {"level", required_argument, NULL, OPT_LEVEL},
                                          {"threads", required_argument, NULL, 'j'},
                                          ZT_OPTION_END};
    static const char *const names[] = {"FILE"};
    struct zt_options o = {.name = argv[0], .shorts = ":j:", .longs = longs};
    int c;

    while ((c = zt_option(&o, argc, argv)) != -1) {
        if (c == 'j'       ? !take_number("threads", optarg, MAX_THREADS, &p->threads) :
            c == OPT_LEVEL ? !take_number("level", optarg, 22, &p->level) :
                             !zt_target_option(&p->target, c))
            return false;
    }
    if (!zt_operands(argc, argv, 1, 1, names))
        return false;
    p->target.path = argv[optind];
    return true;
}

static uint32_t default_threads(void)
{
    long n = sysconf(_SC_NPROCESSORS_ONLN);

    return n < 1 ? 1 : n > 8 ? 8 : (uint32_t)n;
}

static int run(int argc, char **argv)
{
    struct compact p = {
        .threads = default_threads(), .info = ZQCOW2_INFO_INIT, .sum = ZQCOW2_COMPACT_RESULT_INIT};

    if (!parse(&p, argc, argv))
        return 1;
    p.img = zt_open(&p.target, ZQCOW2_OPEN_RDWR);
    return p.img ? zt_close(&p.target, p.img, compact(&p)) : 1;
}

const struct zt_verb zt_verb_compact = {
    "compact", "[--level=N] [-j N] " ZT_USE_SOURCES "[--backend=NAME] FILE",
    "Compresses the full zones of an image in place",
    "  --level=N               of compression: zlib 1 to 9, zstd 1 to 22\n"
    "  -j, --threads=N         1 to 64 threads; default: the number of processors, at most "
    "8\n" ZT_HELP_SOURCES ZT_HELP_BACKEND
    "The content of the disk does not change. Saved space is returned to the host.\n",
    run};
