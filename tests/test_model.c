/* SPDX-License-Identifier: MIT */
/*
 * Random operations against the model. One run is a seed, a geometry and a world; what fails is
 * cut down to the few operations that matter and printed as a command that replays them.
 *
 * ZQ_OPS, ZQ_SEED, ZQ_GEOM (name), ZQ_WORLD (plain, shuffled, threaded, uring), ZQ_KEEP (n,n,...),
 * ZQ_LIMITS (name: what the backend can take; with it, only the tests of limits run),
 * ZQ_PATIENCE (seconds for 256 operations; what takes longer counts as hung),
 * ZQ_CACHE (bytes of metadata cache; 1: the smallest that there is)
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "rig/batch.h"
#include "rig/geometries.h"
#include "rig/limits.h"
#include "rig/shrink.h"
#include "rig/vector.h"

#define PASSED UINT64_MAX

static const char *const worlds[] = {"plain", "shuffled", "threaded", "uring", "called"};
static const unsigned shares[] = {1, 4, 20, 20, 20}; /* each world does ZQ_OPS divided by this */

struct job {
    struct gen_op op;
    int want, got;
    uint64_t want_off, got_off;
    bool done;
    uint8_t *buf, *expect;
    struct iovec iov[VECTOR_MAX];
};

struct run {
    const struct geometry *g;
    enum rig_world world;
    const struct limits *limits; /* NULL: none */
    uint64_t seed, nr;
    const uint64_t *only; /* the operations to do, ascending; NULL: all */
    bool loud;
    unsigned patient; /* seconds for 256 operations */
    struct rig rig;
    struct model model;
    struct zqcow2_queue *queue[2];
    struct job job[BATCH_MAX];
    struct batch batch;
    unsigned reopens;
    uint64_t last; /* the operation that failed, or the last one done */
};

static void done(void *arg, const struct zqcow2_result *res)
{
    struct job *j = arg;

    j->done = true;
    j->got = res->ret;
    j->got_off = res->offset;
}

static bool has_data(int kind)
{
    return kind == ZQCOW2_OP_READ || kind == ZQCOW2_OP_WRITE || kind == ZQCOW2_OP_APPEND;
}

static struct zqcow2_request request(struct job *j)
{
    struct zqcow2_request r = {.size = sizeof(r),
                               .op = (uint16_t)j->op.kind,
                               .flags = (uint16_t)j->op.flags,
                               .offset = j->op.off,
                               .length = j->op.len,
                               .done = done,
                               .arg = j};

    if (has_data(j->op.kind)) {
        r.iov = j->iov;
        r.iovcnt = vector_cut(j->iov, j->buf, (size_t)j->op.len, j->op.tag / 2);
    }
    if (j->op.kind == ZQCOW2_OP_ZONE_SET_STATE)
        r.length = j->op.state;
    return r;
}

/* The blocking face of the library. */
static int call(struct run *t, struct job *j)
{
    struct zqcow2_image *img = t->rig.img;
    const struct gen_op *op = &j->op;
    struct zqcow2_result res = {0};
    struct zqcow2_request req;

    switch (has_data(op->kind) && op->tag % 2 ? -1 : op->kind) {
    case ZQCOW2_OP_READ: return zqcow2_read(img, j->buf, (size_t)op->len, op->off);
    case ZQCOW2_OP_WRITE: return zqcow2_write(img, j->buf, (size_t)op->len, op->off, op->flags);
    case ZQCOW2_OP_APPEND:
        return zqcow2_append(img, j->buf, (size_t)op->len, &j->got_off, op->flags);
    case ZQCOW2_OP_WRITE_ZEROES: return zqcow2_write_zeroes(img, op->len, op->off, op->flags);
    case ZQCOW2_OP_DISCARD: return zqcow2_discard(img, op->len, op->off, 0);
    case ZQCOW2_OP_FLUSH: return zqcow2_flush(img);
    case ZQCOW2_OP_DRAIN: return zqcow2_drain(img);
    case ZQCOW2_OP_ZONE_SET_STATE: return zqcow2_zone_set_state(img, op->off, op->state);
    }
    req = request(j); /* of zone calls, only this shows which zone failed */
    zqcow2_run(img, &req, &res);
    j->got_off = res.offset;
    return res.ret;
}

static int open_queues(struct run *t)
{
    int rc = 0;

    for (int i = 0; !rc && i < 2; i++)
        rc = zqcow2_queue_open(t->rig.img, BATCH_MAX, &t->queue[i]);
    return rc;
}

static int close_queues(struct run *t)
{
    int rc = 0;

    for (int i = 0; i < 2; i++) {
        if (t->queue[i] && !rc)
            rc = zqcow2_queue_close(t->queue[i]);
        t->queue[i] = NULL;
    }
    return rc;
}

/* Every eighth time the file is also checked. */
static bool reopen(struct run *t)
{
    struct rig *r = &t->rig;
    int rc = close_queues(t);

    if (!rc)
        rc = rig_close(r);
    if (rc)
        return rig_say(r, "close: %d", rc);
    if (t->reopens++ % 8 == 0) {
        rc = rig_check(r, 0);
        if (rc || r->check.corruptions || r->check.leaked_clusters)
            return rig_say(r, "check: %d, %llu corruptions, %llu leaks", rc,
                           (unsigned long long)r->check.corruptions,
                           (unsigned long long)r->check.leaked_clusters);
    }
    if (r->nr_below < t->g->layers && t->reopens > 4 * r->nr_below)
        rc = rig_stack(r) ? -1 : 0;
    if (!rc)
        rc = rig_open(r, true);
    if (!rc)
        rc = open_queues(t);
    if (!rc) /* what a discard does depends on it */
        t->model.g.cluster = rig_info(r).cluster_size;
    model_reopen(&t->model);
    return rc ? rig_say(r, "open: %d %s", rc, r->err.text) : rig_same(r, &t->model);
}

static void print_replay(const struct job *j, uint64_t n)
{
    printf("  #%llu %s off %#llx len %#llx%s", (unsigned long long)n,
           j->op.kind == GEN_REOPEN ? "reopen" : rig_op_name(j->op.kind),
           (unsigned long long)j->op.off, (unsigned long long)j->op.len,
           j->op.flags & ZQCOW2_FUA ? " fua" : "");
    if (j->op.kind == ZQCOW2_OP_ZONE_SET_STATE)
        printf(" %s", rig_state_name(j->op.state));
    printf(": %d @%#llx, expected %d @%#llx\n", j->got, (unsigned long long)j->got_off, j->want,
           (unsigned long long)j->want_off);
}

/* The zone that refused is promised for zone calls on ranges; a refusal of "all" has none. */
static bool offset_matters(const struct run *t, const struct job *j)
{
    if (j->op.kind == ZQCOW2_OP_APPEND)
        return !j->want;
    return j->op.kind >= ZQCOW2_OP_ZONE_OPEN && j->op.kind <= ZQCOW2_OP_ZONE_RESET && j->want &&
           j->want != -EINVAL && j->op.len != t->g->size;
}

static bool judge(struct run *t, struct job *j)
{
    struct rig *r = &t->rig;
    uint64_t n = j->op.tag - 1;

    t->last = n;
    if (t->loud)
        print_replay(j, n);
    if (r->strict.broken)
        return rig_say(r, "#%llu: %s", (unsigned long long)n, r->strict.why);
    if (j->got != j->want)
        return rig_say(r, "#%llu %s off %#llx len %#llx: %d (%s), expected %d (%s)",
                       (unsigned long long)n, rig_op_name(j->op.kind),
                       (unsigned long long)j->op.off, (unsigned long long)j->op.len, j->got,
                       zqcow2_strerror(j->got), j->want, zqcow2_strerror(j->want));
    if (offset_matters(t, j) && j->got_off != j->want_off)
        return rig_say(r, "#%llu %s off %#llx: offset %#llx, expected %#llx", (unsigned long long)n,
                       rig_op_name(j->op.kind), (unsigned long long)j->op.off,
                       (unsigned long long)j->got_off, (unsigned long long)j->want_off);
    if (j->op.kind == ZQCOW2_OP_READ && !j->want && memcmp(j->buf, j->expect, j->op.len))
        return rig_say(r, "#%llu read off %#llx len %#llx: wrong bytes", (unsigned long long)n,
                       (unsigned long long)j->op.off, (unsigned long long)j->op.len);
    return true;
}

/* The zones that the operation names, one closed on its behalf, and the counts. */
static bool same_around(struct run *t, const struct gen_op *op)
{
    uint64_t zs = t->g->zone_size, first = op->off / zs, last = (op->off + op->len) / zs;
    struct zqcow2_info info;

    if (t->model.victim != MODEL_NONE && !rig_same_zone(&t->rig, &t->model, t->model.victim))
        return false;
    for (uint64_t i = first; i <= last && i < t->model.nr && i < first + 8; i++) {
        if (!rig_same_zone(&t->rig, &t->model, (uint32_t)i))
            return false;
    }
    if (op->tag % 16)
        return true;
    info = rig_info(&t->rig);
    if (info.open_zones == model_open_zones(&t->model) &&
        info.active_zones == model_active_zones(&t->model))
        return true;
    return rig_same_report(&t->rig, &t->model);
}

static void prepare(struct job *j)
{
    if (j->op.kind == ZQCOW2_OP_READ)
        memset(j->buf, 0xee, j->op.len);
    else if (has_data(j->op.kind) && j->op.len % 512 == 0)
        rig_pattern(j->buf, j->op.len, j->op.off, j->op.tag);
    j->got = 1;
    j->got_off = j->op.off;
    j->done = false;
}

static void apply(struct run *t, struct job *j)
{
    j->want = gen_model(&t->model, &j->op, j->op.kind == ZQCOW2_OP_READ ? j->expect : j->buf,
                        &j->want_off);
}

/* Alone: the library first, so that the model can ask which of several equals it closed. */
static bool single(struct run *t, struct gen_op op)
{
    struct job *j = &t->job[0];

    j->op = op;
    t->last = op.tag - 1;
    if (op.kind == GEN_REOPEN)
        return reopen(t);
    if (op.kind == GEN_COMPARE)
        return rig_same(&t->rig, &t->model);
    prepare(j);
    j->got = call(t, j);
    t->model.frozen = false;
    apply(t, j);
    return judge(t, j) && same_around(t, &op);
}

/* ---- batches ---- */

/* Requests of one batch were written "at one time". */
static void begin_batch(struct run *t)
{
    batch_begin(&t->batch);
    t->model.frozen = true;
    t->model.now++;
}

/* Random progress in between, so that submissions meet every stage of earlier ones. */
static void submit(struct run *t, struct job *j)
{
    struct zqcow2_request req = request(j);
    struct zqcow2_queue *q = t->queue[rng_below(&t->rig.rng, 2)];

    if (zqcow2_queue_submit(q, &req, 1) != 1) {
        j->done = true;
        j->got = 2;
    }
    if (rng_below(&t->rig.rng, 4) == 0)
        zqcow2_queue_poll(q, (uint32_t)rng_below(&t->rig.rng, 4));
}

/* What never ends is noticed by rig_watch(). */
static bool end_batch(struct run *t)
{
    bool good = true;

    for (unsigned k = 0; k < t->batch.nr; k++) {
        for (int q = 0; !t->job[k].done; q = !q)
            zqcow2_queue_wait(t->queue[q], BATCH_MAX, 1000);
    }
    for (int q = 0; q < 2; q++)
        zqcow2_queue_poll(t->queue[q], 0);
    for (unsigned k = 0; good && k < t->batch.nr; k++)
        good = judge(t, &t->job[k]);
    for (unsigned k = 0; good && k < t->batch.nr; k++)
        good = same_around(t, &t->job[k].op);
    begin_batch(t);
    return good;
}

static bool step_batched(struct run *t, struct gen_op op)
{
    struct job *j = &t->job[t->batch.nr];

    if (batch_join(&t->batch, &op)) {
        j->op = op;
        prepare(j);
        apply(t, j);
        submit(t, j);
        if (t->batch.nr < BATCH_MAX && rng_below(&t->rig.rng, 8))
            return true;
        return end_batch(t);
    }
    if (!end_batch(t))
        return false;
    /* The batch may have changed what this number means: draw again. */
    op = gen_draw(&t->model, t->seed, op.tag - 1);
    if (!single(t, op))
        return false;
    begin_batch(t);
    return true;
}

/* ---- one run ---- */

static bool begin_run(struct run *t)
{
    struct rig *r = &t->rig;
    int rc;

    rig_init(r, t->g, t->world, t->seed);
    if (t->limits)
        r->store.limits = t->limits->l;
    r->open.cache_bytes = rig_env("ZQ_CACHE", 0);
    r->shuffle.inline_in = t->world == RIG_PLAIN ? 0 : (uint32_t)(t->seed % 8);
    model_init(&t->model, t->g, rig_max_append(t->g));
    t->model.tie = rig_closed_rather;
    t->model.tie_arg = r;
    batch_init(&t->batch, &t->model);
    for (int k = 0; k < BATCH_MAX; k++) {
        t->job[k].buf = malloc(GEN_MAX_BYTES);
        t->job[k].expect = malloc(GEN_MAX_BYTES);
    }
    rc = rig_create(r);
    if (!rc)
        rc = rig_open(r, true);
    if (!rc)
        rc = open_queues(t);
    begin_batch(t);
    return rc ? rig_say(r, "begin: %d %s", rc, r->err.text) : true;
}

static bool end_run(struct run *t, bool good)
{
    const char *verdict;

    if (good)
        good = reopen(t);
    close_queues(t);
    verdict = rig_free(&t->rig);
    if (good && verdict)
        good = rig_say(&t->rig, "memory: %s", verdict);
    model_free(&t->model);
    for (int k = 0; k < BATCH_MAX; k++) {
        free(t->job[k].buf);
        free(t->job[k].expect);
    }
    batch_free(&t->batch);
    return good;
}

static bool is_batched(const struct run *t)
{
    return t->world != RIG_PLAIN && t->world != RIG_CALLED;
}

static bool step(struct run *t, uint64_t n)
{
    struct gen_op op = gen_draw(&t->model, t->seed, n);

    if (t->patient && n % 256 == 0)
        rig_watch(t->patient, "ZQ_SEED=%llu ZQ_GEOM=%s ZQ_WORLD=%s ZQ_OPS=%llu test_model",
                  (unsigned long long)t->seed, t->g->name, worlds[t->world],
                  (unsigned long long)(n + 256) * rig_nr_geometries * shares[t->world]);
    return is_batched(t) ? step_batched(t, op) : single(t, op);
}

/* PASSED, or the operation at which the run failed; why: t->rig.why. */
static uint64_t go(struct run *t)
{
    bool good = begin_run(t);

    for (uint64_t k = 0; good && k < t->nr; k++)
        good = step(t, t->only ? t->only[k] : k);
    if (good && is_batched(t))
        good = end_batch(t);
    return end_run(t, good) ? PASSED : t->last;
}

/* ---- shrinking ---- */

static struct run fresh(const struct run *t)
{
    return (struct run){.g = t->g, .world = t->world, .limits = t->limits, .seed = t->seed};
}

static bool fails(void *arg, const uint64_t *list, uint64_t nr)
{
    struct run *s = malloc(sizeof(*s));
    bool bad;

    *s = fresh(arg);
    s->only = list;
    s->nr = nr;
    bad = go(s) != PASSED;
    free(s);
    return bad;
}

static void replay(const struct run *t, const uint64_t *list, uint64_t nr)
{
    struct run *s = malloc(sizeof(*s));

    printf("replay: ZQ_SEED=%llu ZQ_GEOM=%s ZQ_WORLD=%s ZQ_LIMITS=%s ZQ_KEEP=",
           (unsigned long long)t->seed, t->g->name, worlds[t->world],
           t->limits ? t->limits->name : "");
    for (uint64_t k = 0; k < nr; k++)
        printf("%s%llu", k ? "," : "", (unsigned long long)list[k]);
    printf(" test_model\n");
    *s = fresh(t);
    s->only = list;
    s->nr = nr;
    s->loud = true;
    go(s);
    printf("  %s\n", s->rig.why[0] ? s->rig.why : "(does not fail every time)");
    free(s);
}

static void failed(struct run *t, uint64_t at)
{
    uint64_t nr = t->only ? t->nr : at + 1;
    uint64_t *list = malloc((nr + 1) * sizeof(*list));

    printf("%s, %s, limits %s: seed %llu, operation %llu of %llu: %s\n", t->g->name,
           worlds[t->world], t->limits ? t->limits->name : "none", (unsigned long long)t->seed,
           (unsigned long long)at, (unsigned long long)t->nr, t->rig.why);
    fflush(stdout);
    for (uint64_t k = 0; k < nr; k++)
        list[k] = t->only ? t->only[k] : k;
    if (!t->only)
        nr = shrink(list, nr, (unsigned)rig_env("ZQ_SHRINK", 60), fails, t);
    replay(t, list, nr);
    free(list);
}

/* ---- the tests ---- */

static uint64_t *keep_list(uint64_t *nr)
{
    const char *text = getenv("ZQ_KEEP");
    uint64_t *list;
    char *end;

    *nr = 0;
    if (!text || !*text)
        return NULL;
    list = malloc((strlen(text) + 1) * sizeof(*list));
    for (; *text; text = *end ? end + 1 : end)
        list[(*nr)++] = strtoull(text, &end, 10);
    return list;
}

static bool visit(const struct geometry *g, enum rig_world world, const struct limits *limits,
                  uint64_t ops)
{
    struct run *t = calloc(1, sizeof(*t));
    uint64_t at, nr, *only = keep_list(&nr);

    *t = (struct run){.g = g,
                      .world = world,
                      .limits = limits,
                      .seed = rig_env("ZQ_SEED", 20240607),
                      .nr = only ? nr : ops,
                      .only = only,
                      .patient = (unsigned)rig_env("ZQ_PATIENCE", 120)};
    at = go(t);
    if (at != PASSED)
        failed(t, at);
    free(only);
    free(t);
    return at == PASSED;
}

/* Zeros for gigabytes, a block at a time. */
static bool is_endless(const struct geometry *g, const struct limits *limits)
{
    return limits && limits->l.max_transfer && g->zone_size / limits->l.max_transfer > 1u << 17;
}

/* How many geometries differ. */
static unsigned visit_all(enum rig_world world, const struct limits *limits, uint64_t ops)
{
    unsigned bad = 0;
    uint64_t each = ops / shares[world] / rig_nr_geometries + 1, sum = 0;
    const char *only = getenv("ZQ_LIMITS");

    if (!rig_wanted("ZQ_WORLD", worlds[world]) || (only && *only && !limits))
        return 0;
    for (unsigned i = 0; i < rig_nr_geometries; i++) {
        if (!rig_wanted("ZQ_GEOM", rig_geometries[i].name) ||
            is_endless(&rig_geometries[i], limits))
            continue;
        bad += !visit(&rig_geometries[i], world, limits, each);
        sum += each;
    }
    printf("model, %s, limits %s: %llu operations, %u geometries, %u of them differ\n",
           worlds[world], limits ? limits->name : "none", (unsigned long long)sum,
           rig_nr_geometries, bad);
    rig_watch(0, "over");
    return bad;
}

static void must_not_differ(unsigned bad)
{
    if (bad)
        fail_msg("%u geometries differ from the model", bad);
}

static void plain(void **state)
{
    (void)state;
    must_not_differ(visit_all(RIG_PLAIN, NULL, rig_env("ZQ_OPS", 1000000)));
}

static void shuffled(void **state)
{
    (void)state;
    must_not_differ(visit_all(RIG_SHUFFLED, NULL, rig_env("ZQ_OPS", 1000000)));
}

static void threaded(void **state)
{
    (void)state;
    must_not_differ(visit_all(RIG_THREADED, NULL, rig_env("ZQ_OPS", 1000000)));
}

/* Blocking calls over an asynchronous backend that need not submit. */
static void called(void **state)
{
    (void)state;
    must_not_differ(visit_all(RIG_CALLED, NULL, rig_env("ZQ_OPS", 1000000)));
}

static void uring(void **state)
{
    (void)state;
    if (rig_wanted("ZQ_WORLD", worlds[RIG_URING]) && !rig_uring_works())
        skip();
    must_not_differ(visit_all(RIG_URING, NULL, rig_env("ZQ_OPS", 1000000)));
}

/* Every limit that a backend can have, blocking and not; the strict backend sees each call. */
static void limited(void **state)
{
    uint64_t ops = rig_env("ZQ_OPS", 1000000) / 20;
    unsigned bad = 0;

    (void)state;
    for (unsigned i = 0; i < rig_nr_limits; i++) {
        if (!rig_wanted("ZQ_LIMITS", rig_limits[i].name))
            continue;
        bad += visit_all(RIG_PLAIN, &rig_limits[i], ops);
        bad += visit_all(RIG_SHUFFLED, &rig_limits[i], ops * 4);
        bad += visit_all(RIG_CALLED, &rig_limits[i], ops * 4);
    }
    must_not_differ(bad);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plain), cmocka_unit_test(shuffled), cmocka_unit_test(threaded),
        cmocka_unit_test(uring), cmocka_unit_test(called),   cmocka_unit_test(limited),
    };

    setvbuf(stdout, NULL, _IOLBF, 0);
    return rig_exit(cmocka_run_group_tests(tests, NULL, NULL));
}
