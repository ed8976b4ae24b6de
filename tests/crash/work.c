/* SPDX-License-Identifier: MIT */
/* Runs one workload, or a history of crashes, and judges what its power cuts leave. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

#include "work.h"

#define GENERATIONS 4u   /* crashes of one history */
#define HISTORY     50u  /* operations between two of them */
#define DEEP_EVERY  400u /* one state in so many is crashed again during its recovery */
#define KILL_EVERY  100u /* one position in so many: the program is killed before the power goes */

uint64_t blend(uint64_t h, uint64_t v)
{
    h ^= v * 0x9e3779b97f4a7c15u;
    return draw(&h);
}

static uint64_t hash_text(const char *s)
{
    uint64_t h = 1;

    while (*s)
        h = blend(h, (uint8_t)*s++);
    return h;
}

/* True when the hash was not there. */
static bool insert(struct table *t, uint64_t hash)
{
    hash += hash == 0;
    for (uint64_t i = hash & t->mask;; i = (i + 1) & t->mask) {
        uint64_t old = 0;

        if (atomic_compare_exchange_strong(&t->slot[i], &old, hash))
            return true;
        if (old == hash)
            return false;
    }
}

static const char *place_text(const struct place *p, char *buf, size_t room)
{
    int n = snprintf(buf, room, "%s:%s:%llu:%llu:%llu", p->g->name, p->spec,
                     (unsigned long long)p->generation, (unsigned long long)p->cut,
                     (unsigned long long)p->state);

    if (p->cut2 != UINT64_MAX && n > 0 && (size_t)n < room)
        snprintf(buf + n, room - (size_t)n, ":%llu:%llu", (unsigned long long)p->cut2,
                 (unsigned long long)p->state2);
    return buf;
}

void violation(struct worker *w, const char *why)
{
    char text[96];

    printf("crash --replay %s  # %s\n", place_text(&w->here, text, sizeof(text)), why);
    fflush(stdout);
    atomic_fetch_add(&w->sh->violations, 1);
}

/* Ends what hangs. It counts the processor's seconds, so that others who use it do no harm. */
static void watch(unsigned seconds)
{
    struct itimerval t = {.it_value.tv_sec = (time_t)seconds};

    setitimer(ITIMER_PROF, &t, NULL);
}

bool enough(const struct worker *w)
{
    return atomic_load(&w->sh->violations) >= (w->opt->quick ? 1 : MAX_FAILURES) ||
           time(NULL) >= w->until;
}

/* ---- one state ---- */

static uint64_t global_hash(const struct worker *w, uint64_t hash)
{
    return blend(hash, hash_text(w->here.g->name));
}

/* Of an image: see struct checker. w->promise: what it is judged by. */
static int novelty(void *arg, uint64_t hash)
{
    struct worker *w = arg;

    hash = global_hash(w, hash);
    if (!insert(&w->judged, blend(hash, w->promise)) && !w->replaying)
        return 0;
    atomic_fetch_add(&w->sh->judged, 1);
    if (!insert(&w->images, hash) && !w->replaying)
        return 1;
    atomic_fetch_add(&w->sh->states, 1);
    atomic_fetch_add(&w->sh->seen[w->here.g - crash_geometries], 1);
    return 2;
}

static int novelty_deep(void *arg, uint64_t hash)
{
    struct worker *w = arg;
    int n = novelty(arg, hash);

    w->sh->deep += n != 0;
    return n;
}

static int deeper(struct worker *w, struct checker *c, const struct disk_cut *cut, uint64_t k,
                  const struct power_model *o)
{
    struct disk *image;
    int bad;

    w->here.cut2 = w->replaying ? w->want.cut2 : UINT64_MAX;
    w->here.state2 = w->want.state2;
    if (disk_cut_image(cut, k, &image) < 0)
        return 1;
    w->promise = blend(w->promise, disk_hash(image));
    c->novelty = novelty_deep;
    c->arg = w;
    bad = verify_recovery(c, image, o, w->opt->quick ? 4 : 16, blend(k, w->here.cut), &w->here.cut2,
                          &w->here.state2);
    disk_free(image);
    return bad;
}

/* The program is killed, the image is opened again, and then the power goes. */
static int killed(struct worker *w, struct checker *c, const struct disk_cut *cut,
                  const struct power_model *o)
{
    struct disk *disk;
    int bad;

    w->here.cut2 = w->replaying ? w->want.cut2 : UINT64_MAX;
    w->here.state2 = w->want.state2;
    if (disk_cut_kill(cut, &disk) < 0)
        return 1;
    w->promise = power_hash(o);
    c->novelty = novelty_deep;
    c->arg = w;
    bad = verify_killed(c, disk, o, w->opt->quick ? 4 : 16, w->here.cut, &w->here.cut2,
                        &w->here.state2);
    disk_free(disk);
    if (bad)
        violation(w, c->why);
    return bad;
}

static bool sampled_deep(struct worker *w)
{
    return w->replaying ? w->want.cut2 != UINT64_MAX :
                          w->full_checks++ % (w->opt->quick ? 40 : DEEP_EVERY) == 0;
}

/* 1: a violation was reported. */
static int try_state(struct worker *w, struct checker *c, const struct disk_cut *cut, uint64_t k,
                     const struct power_model *o, uint64_t allowed)
{
    struct disk *image;
    int bad = 0, new;

    w->here.state = k;
    w->here.cut2 = UINT64_MAX;
    if (k == disk_cut_states(cut)) /* none of them: a kill */
        return killed(w, c, cut, o);
    if (disk_cut_image(cut, k, &image) < 0) {
        violation(w, "no memory for an image");
        return 1;
    }
    w->promise = allowed;
    new = novelty(w, disk_hash(image));
    if (new) {
        place_text(&w->here, w->sh->now[w->id], sizeof(w->sh->now[0]));
        bad = new == 2 ? verify_state(c, image, o, global_hash(w, disk_hash(image))) :
                         verify_shown(c, image, o);
        if (!bad && new == 2 && sampled_deep(w))
            bad = deeper(w, c, cut, k, o);
        if (bad)
            violation(w, c->why);
    }
    disk_free(image);
    return bad;
}

/* All states of one position, or a seeded sample that holds the first and the whole. */
static int try_cut(struct worker *w, struct checker *c, const struct disk_cut *cut,
                   const struct power_model *o, uint64_t cap)
{
    uint64_t n = disk_cut_states(cut), allowed = power_hash(o);
    uint64_t rng = blend(hash_text(w->here.spec), w->here.cut ^ w->opt->seed);
    uint32_t pending = disk_cut_pending(cut);
    int bad = 0;

    watch(300);
    atomic_fetch_add(&w->sh->points, 1);
    for (uint64_t i = 0; !bad && i < (n < cap ? n : cap); i++) {
        uint64_t k = i;

        if (n > cap)
            k = i == 0 ? 0 : i == 1 ? disk_cut_whole(cut) : draw(&rng) % n;
        bad = try_state(w, c, cut, k, o, allowed);
    }
    if (!bad && pending && w->cuts++ % (w->opt->quick ? 10 : KILL_EVERY) == 0)
        bad = try_state(w, c, cut, n, o, allowed);
    watch(0);
    return bad;
}

/* ---- workloads ---- */

/* What led to a violation that is replayed: requests and backend calls by position. */
static void report(struct run *r, uint64_t stop)
{
    static const char *acts[] = {"write", "zero", "flush", "finish", "reset", "read", "other"};
    static const char *calls[] = {"read", "write", "flush", "zero", "discard", "truncate"};
    static const char *events[] = {"begins", "ends", "loses"};
    static const char *file_names[MAX_FILES] = {"", " (data file)", " (backing file)",
                                                " (its data file)"};
    uint32_t m = 0;

    for (uint64_t p = 0; p <= stop; p++) {
        struct zqcow2_simdisk_op op = ZQCOW2_SIMDISK_OP_INIT;
        enum disk_event what;
        unsigned file;

        for (; m < r->nmoments && r->moments[m].position <= p; m++) {
            const struct act *a = &r->acts[r->moments[m].act];

            printf("%5llu   %s %s%s request %u at 0x%llx + 0x%llx", (unsigned long long)p,
                   r->moments[m].ack ? "answers" : "asks", acts[a->kind], a->fua ? " FUA" : "",
                   a->req, (unsigned long long)a->off, (unsigned long long)a->len);
            printf(a->result ? ": %s\n" : "\n", zqcow2_strerror(a->result));
        }
        if (p == stop || disk_event(r->disk, p, &op, &what, &file) < 0)
            continue;
        printf("%5llu           %s %s%s 0x%llx + 0x%llx", (unsigned long long)p, events[what],
               calls[op.kind], file_names[file], (unsigned long long)op.offset,
               (unsigned long long)op.length);
        printf(op.result && what == EVENT_ENDS ? ": %s\n" : "\n", zqcow2_strerror(op.result));
    }
}

static uint64_t cap_of(const struct worker *w, const struct crash_geometry *g)
{
    uint64_t cap = w->opt->cap * g->weight / 100;

    return cap < 4 ? 4 : cap;
}

static int find_cut(const struct worker *w, uint64_t p)
{
    return !w->replaying || w->want.cut == p;
}

/* Every position of a run; a position that changes nothing is not looked at twice. */
static int crash_everywhere(struct worker *w, struct run *r, struct power_model *o)
{
    uint64_t end = disk_position(r->disk), before = 0;
    struct zqcow2_simdisk_op op = ZQCOW2_SIMDISK_OP_INIT;
    enum disk_event what = EVENT_BEGINS;
    struct disk_cut cut;
    struct checker c;
    uint32_t at = 0;
    int bad = 0;

    if (checker_init(&c, r->g, r->snapshot) < 0 || disk_cut_new(r->disk, &cut) < 0)
        return 1;
    for (uint64_t p = 0; !bad && p <= end; p++) {
        bool same_states = p && disk_event(r->disk, p - 1, &op, &what, NULL) == 0 &&
                           what == EVENT_ENDS && op.kind != ZQCOW2_IO_FLUSH;
        uint64_t allowed;

        run_replay(r, o, p, &at);
        allowed = power_hash(o);
        disk_cut_seek(&cut, p);
        w->here.cut = p;
        if (!find_cut(w, p) || (!w->replaying && same_states && allowed == before))
            continue;
        before = allowed;
        if (w->replaying)
            bad = try_state(w, &c, &cut, w->want.state, o, allowed);
        else
            bad = try_cut(w, &c, &cut, o, cap_of(w, r->g));
    }
    if (bad && w->replaying)
        report(r, w->here.cut);
    disk_cut_end(&cut);
    checker_fini(&c);
    return bad;
}

/*
 * text: kind, number, then perhaps e (forever), or without space: s (half of it is there), n
 * (nothing is), l (all of it is). With several files their turns alternate.
 */
static void arm(struct disk *disk, const char *text)
{
    static const struct {
        char letter;
        uint32_t kind;
    } kinds[] = {{'W', ZQCOW2_IO_WRITE}, {'F', ZQCOW2_IO_FLUSH}, {'T', ZQCOW2_IO_TRUNCATE},
                 {'Z', ZQCOW2_IO_ZERO},  {'R', ZQCOW2_IO_READ},  {'D', ZQCOW2_IO_DISCARD}};
    struct zqcow2_simdisk_fault f = ZQCOW2_SIMDISK_FAULT_INIT;
    unsigned file;
    char how;

    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        if (kinds[i].letter == text[0])
            f.kinds = 1u << kinds[i].kind;
    }
    f.nth = strtoull(text + 1, NULL, 10);
    file = disk_turn(disk, &f.nth);
    how = text[2 + strspn(text + 2, "0123456789")];
    f.error = how && strchr("snl", how) ? -ENOSPC : -EIO;
    f.flags = how == 'e' ? ZQCOW2_SIMDISK_FOREVER :
              how == 's' ? ZQCOW2_SIMDISK_SHORT :
              how == 'l' ? ZQCOW2_SIMDISK_LANDS :
                           0u;
    disk_set_fault(disk, file, &f);
}

/* Letter by letter; each fault is armed when the one before it has struck. */
static void run_with_faults(struct run *r, const char *letters, const char *bang)
{
    uint64_t armed = 0;

    for (; *letters; letters++) {
        char one[2] = {*letters, '\0'};

        if (bang && disk_faults(r->disk) == armed) {
            arm(r->disk, bang + 1);
            bang = strchr(bang + 1, '!');
            armed++;
        }
        run_letters(r, one);
    }
}

/* Is every one of the faults a want of space, and none a flush's? */
static bool only_space(const char *bang)
{
    for (const char *f = bang; f; f = strchr(f + 1, '!')) {
        char how = f[2 + strspn(f + 2, "0123456789")];

        if (f[1] == 'F' || !how || !strchr("snl", how))
            return false;
    }
    return true;
}

/* spec: letters, then perhaps @seed: asynchronous, then perhaps !fault, and !fault ... */
static void sequence(struct worker *w, const struct crash_geometry *g, const char *spec)
{
    const char *at = strchr(spec, '@'), *bang = strchr(spec, '!');
    uint64_t seed = blend(hash_text(spec), at ? strtoull(at + 1, NULL, 10) : 0);
    struct base *b = base_of(w, g, at != NULL);
    struct disk *disk;
    char letters[48];
    struct power_model o;
    struct run r;

    if (!b || disk_clone(b->run.disk, &disk) < 0)
        return;
    snprintf(letters, sizeof(letters), "%.*s", (int)strcspn(spec, "@!"), spec);
    disk_set_seed(disk, seed);
    disk_record(disk);
    run_begin(&r, g, disk, at != NULL, bang != NULL, seed, b->run.req);
    r.snapshot = b->run.snapshot;
    memcpy(r.life, b->run.life, sizeof(r.life));
    run_with_faults(&r, letters, bang);
    if (bang && only_space(bang))
        run_make_room(&r);
    run_end(&r, true);
    disk_no_faults(disk);
    base_replay(&o, &b->run);
    if (r.hung || r.wrong || (r.broken && !r.faulty))
        violation(w, r.why);
    else
        crash_everywhere(w, &r, &o);
    power_fini(&o);
    run_fini(&r);
}

/* Half of the time a few letters that get in each other's way. */
void random_letters(const struct crash_geometry *g, uint64_t *rng, char *out, unsigned n)
{
    static const char *const hot[] = {"adnjm", "admnjjs", "abchijkm", "aehrjm", "amdmon"};
    const char *set = letters_of(g);

    if (g->zone_size && draw(rng) % 2)
        set = hot[draw(rng) % (sizeof(hot) / sizeof(hot[0]))];

    for (unsigned i = 0; i < n; i++)
        out[i] = set[draw(rng) % strlen(set)];
    out[n] = '\0';
}

/* Checks some states of the generation, then picks the one that lives on. NULL: a violation. */
static struct disk *survivor(struct worker *w, struct run *r, struct power_model *o,
                             struct checker *c, uint64_t *rng)
{
    uint64_t end = disk_position(r->disk), k;
    struct disk *image = NULL;
    struct disk_cut cut;
    uint64_t stop = draw(rng) % (end + 1);
    uint32_t at = 0;
    int bad = 0;

    if (disk_cut_new(r->disk, &cut) < 0)
        return NULL;
    for (uint64_t p = 0; p <= stop; p++) {
        bool look = draw(rng) % (stop / 12 + 1) == 0 || p == stop;

        if (w->replaying)
            look = w->want.generation == w->here.generation && w->want.cut == p;
        run_replay(r, o, p, &at);
        if (!look)
            continue;
        disk_cut_seek(&cut, p);
        w->here.cut = p;
        bad = w->replaying ? try_state(w, c, &cut, w->want.state, o, power_hash(o)) :
                             try_cut(w, c, &cut, o, cap_of(w, r->g) / 4 + 2);
        if (bad && w->replaying)
            report(r, p);
        if (bad)
            break;
    }
    disk_cut_seek(&cut, stop);
    k = draw(rng) % disk_cut_states(&cut);
    w->here.cut = stop;
    w->here.state = k;
    if (!bad && disk_cut_image(&cut, k, &image) == 0 && verify_shown(c, image, o)) {
        violation(w, c->why);
        disk_free(image);
        image = NULL;
    }
    disk_cut_end(&cut);
    return image;
}

/* spec: ~seed, then perhaps @: asynchronous. Several crashes in a row, each on what survived. */
static void history(struct worker *w, const struct crash_geometry *g, const char *spec)
{
    bool async = strchr(spec, '@') != NULL;
    uint64_t rng = blend(hash_text(spec), hash_text(g->name));
    struct base *b = base_of(w, g, async);
    struct disk *disk;
    char letters[HISTORY + 1];
    struct checker c;
    struct power_model o;
    uint32_t req, lives[MAX_ZONES];

    if (!b || disk_clone(b->run.disk, &disk) < 0 || checker_init(&c, g, b->run.snapshot) < 0)
        return;
    req = b->run.req;
    memcpy(lives, b->run.life, sizeof(lives));
    base_replay(&o, &b->run);
    for (w->here.generation = 0; disk && w->here.generation < GENERATIONS; w->here.generation++) {
        struct disk *next = NULL;
        struct run r;

        w->here.cut = w->here.state = 0;
        w->here.cut2 = UINT64_MAX;
        place_text(&w->here, w->sh->now[w->id], sizeof(w->sh->now[0]));
        watch(600);
        disk_set_seed(disk, draw(&rng));
        disk_record(disk);
        run_begin(&r, g, disk, async, false, draw(&rng), req);
        memcpy(r.life, lives, sizeof(lives));
        random_letters(g, &rng, letters, HISTORY);
        run_letters(&r, letters);
        run_end(&r, false);
        if (r.broken)
            violation(w, r.why);
        else
            next = survivor(w, &r, &o, &c, &rng);
        if (next) {
            power_rebase(&o, c.seen, c.data);
            if (w->opt->qemu && !g->lazy) {
                w->sh->foreign++;
                if (!is_layered(r.g) && qemu_check(next->file[THE_IMAGE], w->opt->qemu) < 0)
                    violation(w, "qemu-img check finds corruption in what survived");
            }
        }
        req = r.req;
        memcpy(lives, r.life, sizeof(lives));
        run_fini(&r);
        disk = next;
    }
    watch(0);
    disk_free(disk);
    atomic_fetch_add(&w->sh->histories, 1);
    checker_fini(&c);
    power_fini(&o);
}

void work(struct worker *w, const struct crash_geometry *g, const char *spec)
{
    w->here = (struct place){.g = g, .cut2 = UINT64_MAX};
    snprintf(w->here.spec, sizeof(w->here.spec), "%s", spec);
    place_text(&w->here, w->sh->now[w->id], sizeof(w->sh->now[0]));
    if (spec[0] == '~')
        history(w, g, spec);
    else
        sequence(w, g, spec);
}
