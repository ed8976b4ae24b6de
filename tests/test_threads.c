/* SPDX-License-Identifier: MIT */
/* Several threads on one image: each has to get what one thread alone would get. Made for TSan. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "rig/rig.h"

#define Z       MiB(1)
#define UNIT    4096u
#define THREADS 4u

static const struct geometry shape = {.name = "threads",
                                      .size = 16 * Z,
                                      .zone_size = Z,
                                      .conventional = 2,
                                      .max_open = 6,
                                      .max_active = 12,
                                      .cluster = 65536};
static const enum rig_world worlds[] = {RIG_PLAIN, RIG_SHUFFLED, RIG_THREADED, RIG_CALLED};
static const char *const world_names[] = {"plain", "shuffled", "threaded", "called"};
#define NR_WORLDS 4

/* What the threads of one test share. Failures are counted, not asserted: cmocka's jumps are not
 * for other threads. */
struct crew {
    struct rig rig;
    pthread_barrier_t line; /* all start together */
    unsigned rounds;
    void (*work)(struct crew *c, unsigned id);
    pthread_mutex_t lock;
    char why[200];
    uint64_t place[THREADS][256]; /* where each thread's appends went */
    unsigned won[THREADS];
};

struct hand {
    struct crew *crew;
    unsigned id;
};

static void complain(struct crew *c, unsigned id, const char *what, long long is)
{
    pthread_mutex_lock(&c->lock);
    if (!c->why[0])
        snprintf(c->why, sizeof(c->why), "thread %u: %s: %lld", id, what, is);
    pthread_mutex_unlock(&c->lock);
}

static void *hand(void *arg)
{
    struct hand *h = arg;

    pthread_barrier_wait(&h->crew->line);
    h->crew->work(h->crew, h->id);
    return NULL;
}

static void begin(struct crew *c, enum rig_world world)
{
    memset(c, 0, sizeof(*c));
    pthread_mutex_init(&c->lock, NULL);
    rig_begin_in(&c->rig, &shape, world, rig_env("ZQ_SEED", 1));
    c->rig.store.yields = 1;
    c->rounds = (unsigned)rig_env("ZQ_ROUNDS", 100);
    c->rounds = c->rounds > 250 ? 250 : c->rounds;
}

static void run(struct crew *c, void (*work)(struct crew *c, unsigned id))
{
    pthread_t thread[THREADS];
    struct hand hands[THREADS];

    c->work = work;
    pthread_barrier_init(&c->line, NULL, THREADS);
    for (unsigned i = 0; i < THREADS; i++) {
        hands[i] = (struct hand){c, i};
        assert_int_equal(pthread_create(&thread[i], NULL, hand, &hands[i]), 0);
    }
    for (unsigned i = 0; i < THREADS; i++)
        pthread_join(thread[i], NULL);
    pthread_barrier_destroy(&c->line);
}

static void end(struct crew *c, const char *world)
{
    if (c->why[0])
        fail_msg("%s: %s", world, c->why);
    rig_end(&c->rig);
    pthread_mutex_destroy(&c->lock);
}

static void in_every_world(void (*work)(struct crew *c, unsigned id), void (*judge)(struct crew *c))
{
    static struct crew c;

    for (int w = 0; w < NR_WORLDS; w++) {
        begin(&c, worlds[w]);
        run(&c, work);
        if (!c.why[0])
            judge(&c);
        end(&c, world_names[w]);
    }
}

static uint64_t tag_of(unsigned id, unsigned round)
{
    return 1 + id * 1000ull + round;
}

/* ---- appends to one zone from all threads: disjoint, contiguous, none lost ---- */

static void append_to_one_zone(struct crew *c, unsigned id)
{
    unsigned n = c->rounds < Z / UNIT / THREADS ? c->rounds : (unsigned)(Z / UNIT / THREADS);

    for (unsigned i = 0; i < n; i++) {
        int rc = rig_append(&c->rig, 3, UNIT, tag_of(id, i), &c->place[id][i]);

        if (rc)
            complain(c, id, "append", rc);
        else if (!rig_holds(&c->rig, c->place[id][i], UNIT, 3 * Z, tag_of(id, i)))
            complain(c, id, "read back", (long long)c->place[id][i]);
    }
    c->won[id] = n;
}

static void extents_are_disjoint(struct crew *c)
{
    unsigned seen[Z / UNIT] = {0}, sum = 0;

    for (unsigned id = 0; id < THREADS; id++) {
        for (unsigned i = 0; i < c->won[id]; i++) {
            uint64_t slot = (c->place[id][i] - 3 * Z) / UNIT;

            if (slot >= Z / UNIT || seen[slot]++)
                complain(c, id, "extent given twice or outside", (long long)slot);
            else if (i && c->place[id][i] <= c->place[id][i - 1])
                complain(c, id, "went backwards", (long long)slot);
        }
        sum += c->won[id];
    }
    if (sum * UNIT < Z && rig_zone(&c->rig, 3).write_pointer != 3 * Z + sum * UNIT)
        complain(c, 0, "write pointer", (long long)rig_zone(&c->rig, 3).write_pointer);
}

static void concurrent_appends(void **state)
{
    (void)state;
    in_every_world(append_to_one_zone, extents_are_disjoint);
}

/* ---- writes at one offset: of each round exactly one wins ---- */

static void write_at_one_offset(struct crew *c, unsigned id)
{
    for (unsigned i = 0; i < c->rounds; i++) {
        int rc = rig_write(&c->rig, 4 * Z + i * UNIT, UNIT, tag_of(id, i));

        if (!rc)
            c->place[id][i] = 1;
        else if (rc != ZQCOW2_EZONE_WP)
            complain(c, id, "write", rc);
        pthread_barrier_wait(&c->line);
    }
}

static void one_winner_each(struct crew *c)
{
    for (unsigned i = 0; i < c->rounds; i++) {
        unsigned winners = 0, who = 0;

        for (unsigned id = 0; id < THREADS; id++) {
            winners += c->place[id][i] != 0;
            who = c->place[id][i] ? id : who;
        }
        if (winners != 1)
            complain(c, i, "winners of this round", winners);
        else if (!rig_holds(&c->rig, 4 * Z + i * UNIT, UNIT, 4 * Z + i * UNIT, tag_of(who, i)))
            complain(c, who, "lost its bytes in round", i);
    }
}

static void concurrent_writes_at_one_offset(void **state)
{
    (void)state;
    in_every_world(write_at_one_offset, one_winner_each);
}

/* ---- each thread a life of its own on its own zones, under limits, with flushes between ---- */

static int turn(struct crew *c, unsigned id, unsigned i, uint32_t zone, uint64_t *wp)
{
    uint64_t start = rig_start(&c->rig, zone), at = 0;
    int rc = rig_append(&c->rig, zone, UNIT * (1 + i % 3), tag_of(id, i), &at);

    if (!rc && at != *wp)
        complain(c, id, "append went elsewhere", (long long)at);
    if (!rc)
        *wp += UNIT * (1 + i % 3);
    if (!rc && !rig_holds(&c->rig, at, UNIT, start, tag_of(id, i)))
        complain(c, id, "read back", i);
    if (!rc && i % 16 == 5)
        rc = zqcow2_flush(c->rig.img);
    if (!rc && i % 8 == 7)
        rc = rig_manage(&c->rig, ZQCOW2_OP_ZONE_CLOSE, start, Z, NULL);
    if (!rc && i % 32 == 31) {
        rc = rig_manage(&c->rig, i % 64 == 31 ? ZQCOW2_OP_ZONE_FINISH : ZQCOW2_OP_ZONE_RESET, start,
                        Z, NULL);
        if (!rc && i % 64 == 31)
            rc = zqcow2_zone_reset(c->rig.img, start, Z, 0);
        *wp = start;
    }
    return rc;
}

static void live_in_own_zones(struct crew *c, unsigned id)
{
    uint32_t zone[3] = {2 + id * 3, 3 + id * 3, 4 + id * 3};
    uint64_t wp[3];

    for (unsigned k = 0; k < 3; k++)
        wp[k] = rig_start(&c->rig, zone[k]);
    for (unsigned i = 0; i < c->rounds; i++) {
        int rc = turn(c, id, i, zone[i % 3], &wp[i % 3]);

        if (rc)
            complain(c, id, "own zone", rc);
    }
    for (unsigned k = 0; k < 3; k++) {
        if (rig_zone(&c->rig, zone[k]).write_pointer != wp[k])
            complain(c, id, "write pointer of own zone", zone[k]);
    }
}

static void limits_were_kept(struct crew *c)
{
    struct zqcow2_info info = rig_info(&c->rig);

    if (info.open_zones > shape.max_open || info.active_zones > shape.max_active)
        complain(c, 0, "open zones", info.open_zones);
}

static void zones_of_their_own(void **state)
{
    (void)state;
    in_every_world(live_in_own_zones, limits_were_kept);
}

/* ---- reset, finish and read of a zone while others append to it ---- */

static void quarrel(struct crew *c, unsigned id)
{
    static const int ops[] = {ZQCOW2_OP_ZONE_RESET, ZQCOW2_OP_ZONE_CLOSE, ZQCOW2_OP_ZONE_FINISH,
                              ZQCOW2_OP_ZONE_RESET, ZQCOW2_OP_ZONE_OPEN};
    uint64_t *buf = malloc(4 * UNIT);

    for (unsigned i = 0; i < c->rounds; i++) {
        int rc = 0;

        if (id < 2)
            rc = rig_append(&c->rig, 5, UNIT, tag_of(id, i), NULL);
        else if (id == 2)
            rc = rig_manage(&c->rig, ops[i % 5], 5 * Z, Z, NULL);
        else
            rc = zqcow2_read(c->rig.img, buf, 4 * UNIT, 5 * Z);
        if (rc && rc != ZQCOW2_EZONE_FULL && rc != ZQCOW2_EZONE_STATE)
            complain(c, id, "quarrel", rc);
        /* A sector is somebody's, whole, or zero. */
        for (unsigned s = 0; id == 3 && s < 4 * UNIT / 512; s++) {
            uint64_t want[64], *is = buf + s * 64;

            rig_pattern(want, 512, is[1], is[0]);
            if (is[0] ? memcmp(is, want, 512) != 0 : is[1] != 0)
                complain(c, id, "torn sector", s);
        }
    }
    free(buf);
}

static void the_zone_is_sane(struct crew *c)
{
    struct zqcow2_zone z = rig_zone(&c->rig, 5);

    if ((z.write_pointer - z.start) % UNIT || z.write_pointer > z.start + z.length)
        complain(c, 0, "write pointer", (long long)z.write_pointer);
}

static void appends_against_management(void **state)
{
    (void)state;
    in_every_world(quarrel, the_zone_is_sane);
}

/* ---- a queue for each thread, one zone for all ---- */

struct slot {
    struct zqcow2_request req;
    struct iovec iov;
    uint64_t offset;
    int ret;
    _Alignas(8) uint8_t buf[UNIT];
};

static void slot_done(void *arg, const struct zqcow2_result *res)
{
    struct slot *s = arg;

    s->ret = res->ret;
    s->offset = res->offset;
}

static void queue_of_its_own(struct crew *c, unsigned id)
{
    unsigned depth = 8, n = Z / UNIT / THREADS / 2;
    struct slot *s = calloc(n, sizeof(*s));
    struct zqcow2_queue *q;
    int rc = zqcow2_queue_open(c->rig.img, depth, &q);

    if (rc)
        complain(c, id, "queue_open", rc);
    for (unsigned i = 0; !rc && i < n;) {
        s[i].iov = (struct iovec){s[i].buf, UNIT};
        s[i].req = (struct zqcow2_request){.size = sizeof(s[i].req),
                                           .op = ZQCOW2_OP_APPEND,
                                           .offset = 3 * Z,
                                           .iov = &s[i].iov,
                                           .iovcnt = 1,
                                           .done = slot_done,
                                           .arg = &s[i]};
        rig_pattern(s[i].buf, UNIT, 3 * Z, tag_of(id, i));
        if (zqcow2_queue_submit(q, &s[i].req, 1) == 1)
            i++;
        else if (zqcow2_queue_wait(q, 1, 60000) < 1)
            complain(c, id, "wait", rc = -1);
    }
    while (!rc && zqcow2_queue_pending(q))
        zqcow2_queue_wait(q, 1, 60000);
    for (unsigned i = 0; !rc && i < n; i++) {
        c->place[id][i] = s[i].offset;
        if (s[i].ret || !rig_holds(&c->rig, s[i].offset, UNIT, 3 * Z, tag_of(id, i)))
            complain(c, id, "queued append", s[i].ret);
    }
    c->won[id] = n;
    if (!rc && zqcow2_queue_close(q))
        complain(c, id, "queue_close", 0);
    free(s);
}

static void queues_on_one_zone(void **state)
{
    (void)state;
    in_every_world(queue_of_its_own, extents_are_disjoint);
}

/* ---- many zones, one open at a time: every write closes somebody else's ---- */

static void fight_for_the_open_slots(struct crew *c, unsigned id)
{
    for (unsigned i = 0; i < c->rounds; i++) {
        uint32_t zone = 2 + (id * 3 + i) % 12;
        int rc = rig_append(&c->rig, zone, UNIT, tag_of(id, i), &c->place[id][i]);

        if (rc)
            complain(c, id, "append under limits", rc);
        if (rig_info(&c->rig).open_zones > shape.max_open)
            complain(c, id, "too many open", i);
    }
}

static void all_bytes_are_there(struct crew *c)
{
    for (unsigned id = 0; id < THREADS; id++) {
        for (unsigned i = 0; i < c->rounds; i++) {
            uint64_t at = c->place[id][i];

            if (!rig_holds(&c->rig, at, UNIT, at / Z * Z, tag_of(id, i)))
                complain(c, id, "bytes lost at", (long long)at);
        }
    }
    limits_were_kept(c);
}

static void open_slots_change_hands(void **state)
{
    (void)state;
    in_every_world(fight_for_the_open_slots, all_bytes_are_there);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(concurrent_appends), cmocka_unit_test(concurrent_writes_at_one_offset),
        cmocka_unit_test(zones_of_their_own), cmocka_unit_test(appends_against_management),
        cmocka_unit_test(queues_on_one_zone), cmocka_unit_test(open_slots_change_hands),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
