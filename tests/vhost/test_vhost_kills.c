/* SPDX-License-Identifier: MIT */
/*
 * Servers of a zoned image that are killed under load, and front-ends that connect to the next one.
 * What was flushed is there, what was answered is where the answer says or gone from the end of its
 * zone, and nothing is there twice. ZQCOW2_TOOL names the command; ZQCOW2_KILLS: how many servers
 * die (10); ZQCOW2_SEED: of the requests.
 */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

#include "frontend.h"

#define ZONES    8u /* the first one is conventional */
#define WRITTEN  4u /* zones from here on are appended to, the others written */
#define MIB      2048u
#define CAPACITY 1536u /* in sectors */
#define SLOTS    16u   /* of each ring: requests at a time */
#define MOST     16u   /* sectors of a request */
#define MARK     0x6b696c6cu

struct request {
    enum { FREE, SENT, ANSWERED, FLUSHED } state;
    unsigned zone;
    uint32_t at, sectors; /* in the zone; an append knows it from its answer */
    bool placed;
    uint64_t answered; /* the number of the answer */
    uint32_t seen;     /* sectors found in its zone */
};

static struct {
    struct front f;
    struct request *req; /* by number */
    uint32_t requests, room;
    uint32_t slot[RINGS][SLOTS]; /* the number of the request there, 0: none */
    uint32_t wp[ZONES], under_way[ZONES];
    uint64_t answers, rng;
    bool reset[ZONES]; /* unanswered */
    unsigned long lost, dropped, appended, written, resets;
} w;

static uint32_t below(uint32_t n)
{
    w.rng = w.rng * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(w.rng >> 33) % n;
}

/* ---- requests ---- */

static uint32_t slot_at(unsigned ring, unsigned slot)
{
    return DATA_AT + 0x10000 + (ring * SLOTS + slot) * 0x4000;
}

/* Every sector says whose it is. */
static void fill(uint8_t *to, uint32_t number, uint32_t sectors)
{
    for (uint32_t i = 0; i < sectors; i++, to += 512) {
        memset(to, (int)(number * 7 + i), 512);
        front_put(to, MARK, 4);
        front_put(to + 4, number, 4);
        front_put(to + 508, i, 4);
    }
}

static uint32_t new_request(unsigned zone, uint32_t sectors)
{
    if (++w.requests >= w.room) {
        w.room = w.requests * 2;
        w.req = realloc(w.req, w.room * sizeof(*w.req));
        assert_non_null(w.req);
    }
    w.req[w.requests] = (struct request){.state = SENT, .zone = zone, .sectors = sectors};
    return w.requests;
}

/* Writes at the pointer of a zone, one at a time; appends to a zone, many at a time. */
static void post(unsigned ring, unsigned slot, unsigned zone, uint32_t sectors)
{
    uint32_t at = slot_at(ring, slot), number = new_request(zone, sectors);
    struct part p[] = {
        {at, 16, false}, {at + 0x1000, sectors * 512, false}, {at + 0x100, 16, true}};
    uint8_t *head = w.f.memory + at;
    bool append = zone >= WRITTEN;

    memset(head, 0, 16);
    front_put(head, append ? APPEND : OUT, 4);
    front_put(head + 8, zone * MIB + (append ? 0 : w.wp[zone]), 8);
    fill(head + 0x1000, number, sectors);
    memset(head + 0x100, 0xee, 16);
    p[2].len = append ? 16 : 1;
    w.req[number].at = w.wp[zone];
    w.req[number].placed = !append;
    w.slot[ring][slot] = number;
    w.under_way[zone]++;
    w.wp[zone] += sectors;
    append ? w.appended++ : w.written++;
    front_post(&w.f, ring, (uint16_t)(3 * slot), p, 3, false);
}

static void answered(unsigned ring, unsigned slot)
{
    uint8_t *reply = w.f.memory + slot_at(ring, slot) + 0x100;
    uint32_t number = w.slot[ring][slot];
    struct request *r = &w.req[number];
    bool append = r->zone >= WRITTEN;

    assert_true(number && r->state == SENT);
    assert_int_equal(reply[append ? 15 : 0], OK);
    if (append)
        r->at = (uint32_t)(front_get(reply, 8) - r->zone * MIB);
    r->placed = true;
    r->state = ANSWERED;
    r->answered = ++w.answers;
    w.under_way[r->zone]--;
    w.slot[ring][slot] = 0;
}

static void take_answers(void)
{
    for (unsigned ring = 0; ring < RINGS; ring++)
        for (int head; (head = front_used(&w.f, ring, NULL, 0)) >= 0;)
            answered(ring, (unsigned)head / 3);
}

/* Those slots are free in which front_do() would put its request. */
static void drain(void)
{
    for (unsigned ring = 0; ring < RINGS; ring++)
        for (unsigned slot = 0; slot < SLOTS; slot++)
            for (int ms = 0; w.slot[ring][slot]; ms++) {
                assert_true(ms < LONG_MS);
                take_answers();
                nanosleep(&(struct timespec){0, 100 * 1000}, NULL);
            }
}

/* ---- what a flush and a reset promise ---- */

static void flush(void)
{
    uint64_t before;

    drain();
    before = w.answers;
    assert_int_equal(front_do(&w.f, 0, FLUSH, 0, 0, 0), OK);
    for (uint32_t i = 1; i <= w.requests; i++)
        if (w.req[i].state == ANSWERED && w.req[i].answered <= before)
            w.req[i].state = FLUSHED;
}

static void forget_zone(unsigned zone)
{
    for (uint32_t i = 1; i <= w.requests; i++)
        if (w.req[i].zone == zone)
            w.req[i].state = FREE;
    w.wp[zone] = 0;
    w.reset[zone] = false;
}

/* Now and then the server dies before it has answered, or before it is durable. */
static bool reset(unsigned zone)
{
    struct part p[] = {{DATA_AT, 16, false}, {DATA_AT + 0x100, 1, true}};

    drain();
    w.reset[zone] = true;
    w.resets++;
    if (!below(3)) {
        memset(w.f.memory + DATA_AT, 0, 16);
        front_put(w.f.memory + DATA_AT, RESET, 4);
        front_put(w.f.memory + DATA_AT + 8, zone * MIB, 8);
        front_post(&w.f, 0, 0, p, 2, false);
        return false;
    }
    assert_int_equal(front_do(&w.f, 0, RESET, zone * MIB, 0, 0), OK);
    if (!below(3))
        return false;
    flush();
    forget_zone(zone);
    return true;
}

/* ---- the load ---- */

static bool step(void)
{
    unsigned ring = below(RINGS), slot = 1 + below(SLOTS - 1); /* slot 0: front_do() */
    unsigned zone = ring ? WRITTEN + below(ZONES - WRITTEN) : 1 + below(WRITTEN - 1);
    uint32_t sectors = 1 + below(MOST);

    take_answers();
    if (!below(40))
        flush();
    if (w.slot[ring][slot] || (!ring && w.under_way[zone]))
        return true;
    if (w.wp[zone] + sectors > CAPACITY)
        return reset(zone);
    post(ring, slot, zone, sectors);
    return true;
}

static void load_and_kill(void)
{
    uint32_t steps = 200 + below(3000);

    while (steps-- && step())
        ;
    nanosleep(&(struct timespec){0, below(2000) * 1000}, NULL);
    assert_int_equal(front_stop(&w.f, SIGKILL), -SIGKILL);
    /* An answer of a reset that was not waited for has no slot. */
    for (unsigned ring = 0; ring < RINGS; ring++)
        for (int head; (head = front_used(&w.f, ring, NULL, 0)) >= 0;)
            if (w.slot[ring][head / 3])
                answered(ring, (unsigned)head / 3);
}

/* ---- what is there ---- */

static void found(unsigned zone, uint32_t at, const uint8_t *sector)
{
    uint32_t number = (uint32_t)front_get(sector + 4, 4), i = (uint32_t)front_get(sector + 508, 4);
    struct request *r = &w.req[number];
    uint8_t want[MOST * 512];

    if (front_get(sector, 4) != MARK || !number || number > w.requests || r->zone != zone ||
        r->state == FREE || i != r->seen || i >= r->sectors || (r->placed && at != r->at + i))
        fail_msg("zone %u, sector %u: of request %u (state %d, %u sectors at %u), its sector %u",
                 zone, at, number, (int)r->state, r->sectors, r->at, i);
    fill(want, number, r->sectors);
    assert_memory_equal(sector, want + i * 512, 512);
    if (!r->seen++)
        r->at = at;
    r->placed = true;
}

static uint32_t reported(unsigned zone)
{
    uint8_t *z = front_data(&w.f) + 64;

    assert_int_equal(front_do(&w.f, 0, REPORT, zone * MIB, 0, 128), OK);
    /* A full zone has no pointer. */
    return z[25] == 14 ? CAPACITY : (uint32_t)(front_get(z + 16, 8) - zone * MIB);
}

static void look_at(unsigned zone)
{
    uint32_t wp = reported(zone);

    assert_true(wp <= CAPACITY);
    if (w.reset[zone] && !wp)
        forget_zone(zone);
    w.reset[zone] = false;
    for (uint32_t at = 0, n; at < wp; at += n) {
        n = wp - at < 64 ? wp - at : 64;
        assert_int_equal(front_do(&w.f, 0, IN, zone * MIB + at, 0, n * 512), OK);
        for (uint32_t i = 0; i < n; i++)
            found(zone, at + i, front_data(&w.f) + i * 512);
    }
    w.wp[zone] = wp;
    w.under_way[zone] = 0;
}

/* What is there now stays, and what is not there does not come back. */
static void judge(struct request *r, uint32_t number)
{
    if (r->state == FREE)
        return;
    if (r->state == FLUSHED && r->seen != r->sectors)
        fail_msg("request %u, %u sectors at %u of zone %u: flushed, and %u are there", number,
                 r->sectors, r->at, r->zone, r->seen);
    if (r->seen < r->sectors)
        r->state == ANSWERED ? w.lost++ : w.dropped++;
    if (r->seen && r->seen < r->sectors) /* cut off at the end of its zone */
        assert_int_equal(r->at + r->seen, w.wp[r->zone]);
    r->sectors = r->seen;
    r->state = r->seen ? FLUSHED : FREE;
}

static void next_life(unsigned n)
{
    static const char *const options[] = {"--backend=threads", "", "--backend=threads"};

    front_disconnect(&w.f);
    memset(w.f.memory + 0x4000, 0, 0x8000);
    memset(w.slot, 0, sizeof(w.slot));
    front_start(&w.f, options[n % 3]);
    front_connect(&w.f);
    front_negotiate(&w.f, ALL);
    for (unsigned ring = 0; ring < RINGS; ring++)
        front_start_ring(&w.f, ring, 0);
    for (uint32_t i = 1; i <= w.requests; i++)
        w.req[i].seen = 0;
    for (unsigned zone = 1; zone < ZONES; zone++)
        look_at(zone);
    assert_int_equal(front_do(&w.f, 0, FLUSH, 0, 0, 0), OK);
    for (uint32_t i = 1; i <= w.requests; i++)
        judge(&w.req[i], i);
}

static unsigned long number_of(const char *variable, unsigned long otherwise)
{
    const char *text = getenv(variable);

    return text ? strtoul(text, NULL, 0) : otherwise;
}

static void zones_of_killed_servers(void **state)
{
    unsigned long kills = number_of("ZQCOW2_KILLS", 10);

    (void)state;
    w.rng = number_of("ZQCOW2_SEED", (unsigned long)time(NULL));
    printf("ZQCOW2_SEED=%lu\n", (unsigned long)w.rng);
    front_begin(&w.f, "-o zone.size=1M,zone.capacity=768k,zone.conventional_zones=1",
                "--backend=threads", ALL);
    for (unsigned i = 0; i < kills; i++) {
        load_and_kill();
        next_life(i);
    }
    printf(
        "kills: %lu servers killed, %lu writes, %lu appends, %lu resets; %lu not flushed and gone, "
        "%lu not answered and gone; 0 flushed ones missing, 0 found twice\n",
        kills, w.written, w.appended, w.resets, w.lost, w.dropped);
    front_finish(&w.f);
    free(w.req);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(zones_of_killed_servers),
    };

    if (!getenv("ZQCOW2_TOOL")) {
        puts("1..0 # skip ZQCOW2_TOOL is not set");
        return 77;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
