/* SPDX-License-Identifier: MIT */
/*
 * A guest of the vhost-user server: what it writes into its rings, tables and requests, also while
 * the server has them. The first byte chooses the device, the next ones the features it accepts;
 * the rest are steps, of which each is a byte that says what, and bytes for that:
 *
 *     0  index, flags, next, place (2), length   a descriptor; the ring has 8
 *     1  head                                    one more available entry
 *     2  place (2), n, n bytes                   memory
 *     3  place (2), type, sector                 the head of a request
 *     4                                          the server takes what is available
 *     5                                          ... and answers what is done
 *     6  index (2)                               the available index, whatever it was
 *     7  place (2), length (4), index            a descriptor that may be longer
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fuzz/target.h"
#include "serve/geometry.h"
#include "vhost/request.h"

#define NUM   8u
#define LOW   8192u /* bytes of the first region, with the rings; the other one lies right behind */
#define HIGH  4096u
#define GUEST 0x100000000u
#define USER  0x700000000000u
#define DESC  0u
#define AVAIL 256u
#define USED  512u
#define ZONE  65536u
#define ZONES 6u

struct guest {
    struct vhost_memory memory;
    struct vhost_ring ring;
    struct vhost_disk disk;
    struct zqcow2_info info;
    struct zqcow2_queue *zq;
    struct vhost_request request[NUM];
    unsigned begun, answered;
    bool dirty; /* the image may have changed */
};

static struct guest guest[2]; /* with zones, and without */

/* No faults are armed here. */
bool serve_faults_are_cut(const struct serve_faults *f)
{
    return f != NULL;
}

/* ---- the image ---- */

static void must(int rc, const char *what)
{
    if (rc < 0)
        fuzz_fail("%s: %s", what, zqcow2_strerror(rc));
}

static void open_image(struct guest *g, bool zoned)
{
    struct zqcow2_create_options c = ZQCOW2_CREATE_OPTIONS_INIT;
    struct zqcow2_open_options o = ZQCOW2_OPEN_OPTIONS_INIT;
    struct zqcow2_backend *be;

    c.virtual_size = ZONE * ZONES;
    c.cluster_size = 4096;
    c.zone_size = zoned ? ZONE : 0;
    c.conventional_zones = zoned ? 1 : 0;
    c.max_open_zones = zoned ? 2 : 0;
    c.max_active_zones = zoned ? 3 : 0;
    o.flags = ZQCOW2_OPEN_RDWR;
    must(zqcow2_mem_open(0, NULL, &be), "memory");
    must(zqcow2_create(be, &c, NULL), "create");
    must(zqcow2_open(be, &o, &g->disk.img, NULL), "open");
    must(zqcow2_queue_open(g->disk.img, NUM, &g->zq), "queue");
    g->info.size = sizeof(g->info);
    must(zqcow2_get_info(g->disk.img, &g->info), "info");
    g->disk.info = &g->info;
    g->disk.queues = 1;
    vhost_disk_init(&g->disk, "a name that is longer than twenty bytes");
}

static void close_image(struct guest *g)
{
    must(zqcow2_queue_close(g->zq), "close of the queue");
    must(zqcow2_close(g->disk.img), "close");
}

/* ---- memory ---- */

static void add_region(struct guest *g, uint64_t at, uint64_t size)
{
    g->memory.region[g->memory.n++] = (struct vhost_region){
        .guest = GUEST + at, .user = USER + at, .size = size, .at = calloc(1, (size_t)size)};
}

static uint8_t *byte_at(struct guest *g, unsigned place)
{
    place %= LOW + HIGH;
    return place < LOW ? &g->memory.region[0].at[place] : &g->memory.region[1].at[place - LOW];
}

static void put(struct guest *g, unsigned place, const uint8_t *bytes, size_t n)
{
    for (size_t i = 0; i < n; i++)
        *byte_at(g, place + (unsigned)i) = bytes[i];
}

static void put_number(struct guest *g, unsigned place, uint64_t v, unsigned bytes)
{
    for (unsigned i = 0; i < bytes; i++)
        *byte_at(g, place + i) = (uint8_t)(v >> 8 * i);
}

/* ---- the server ---- */

static void answered(struct vhost_request *r, uint32_t written)
{
    struct guest *g = r->arg;

    if (!r->busy)
        fuzz_fail("head %u is answered twice", r->chain.head);
    r->busy = false;
    g->answered++;
    vhost_ring_push(&g->ring, r->chain.head, written);
}

/* UINT32_MAX: it had no type. */
static bool changes(uint32_t type)
{
    return type != BLK_T_IN && type != BLK_T_GET_ID && type != BLK_T_ZONE_REPORT &&
           type != UINT32_MAX;
}

/* As the queue's thread does it. */
static void take(struct guest *g)
{
    struct vhost_chain c;

    vhost_ring_busy(&g->ring);
    for (unsigned n = 0; n < NUM && vhost_ring_pop(&g->ring, &c) > 0; n++) {
        struct vhost_request *r = &g->request[c.head];

        if (r->busy) {
            g->ring.broken = "a request that is in flight already";
            return;
        }
        r->chain = c;
        r->disk = &g->disk;
        r->zq = g->zq;
        r->answer = answered;
        r->arg = g;
        r->busy = true;
        g->begun++;
        vhost_request_begin(r);
        g->dirty |= changes(r->header.type);
    }
}

static void finish(struct guest *g)
{
    zqcow2_queue_poll(g->zq, 0);
    (void)vhost_ring_wants_call(&g->ring);
    (void)vhost_ring_rest(&g->ring);
}

static void begin(struct guest *g, uint8_t features)
{
    static const struct vhost_addr addr = {
        .desc = USER + DESC, .avail = USER + AVAIL, .used = USER + USED};
    bool zoned = g == &guest[0];

    if (g->dirty)
        close_image(g);
    if (g->dirty || !g->disk.img)
        open_image(g, zoned);
    add_region(g, 0, LOW);
    add_region(g, LOW, HIGH);
    g->disk.acked = vhost_disk_features(&g->disk);
    if (features & 1)
        g->disk.acked &= ~(UINT64_C(1) << BLK_F_ZONED | UINT64_C(1) << BLK_F_DISCARD);
    if (features & 2)
        g->disk.acked &= ~(UINT64_C(1) << BLK_F_FLUSH);
    g->disk.lost = features & 4;
    g->disk.read_only = features & 8;
    g->ring = (struct vhost_ring){
        .memory = &g->memory, .num = NUM, .event_idx = features & 16, .indirect = !(features & 32)};
    must(vhost_ring_map(&g->ring, &addr), "the ring");
    g->begun = g->answered = 0;
    g->dirty = false;
}

/* Each is answered once, even where the ring is broken. */
static void end(struct guest *g)
{
    while (zqcow2_queue_pending(g->zq))
        zqcow2_queue_wait(g->zq, 1, -1);
    if (g->begun != g->answered)
        fuzz_fail("%u begun, %u answered", g->begun, g->answered);
    for (unsigned i = 0; i < NUM; i++) {
        if (g->request[i].busy)
            fuzz_fail("head %u has no answer", i);
    }
    while (g->memory.n)
        free(g->memory.region[--g->memory.n].at);
}

/* ---- the steps ---- */

struct text {
    const uint8_t *at;
    size_t left;
};

static uint64_t next(struct text *t, unsigned bytes)
{
    uint64_t v = 0;

    for (unsigned i = 0; i < bytes && t->left; i++, t->left--)
        v |= (uint64_t)*t->at++ << 8 * i;
    return v;
}

static void describe(struct guest *g, unsigned i, uint64_t place, uint64_t length, unsigned flags,
                     unsigned to)
{
    unsigned at = DESC + i % NUM * 16;

    put_number(g, at, GUEST + place, 8);
    put_number(g, at + 8, length, 4);
    put_number(g, at + 12, flags, 2);
    put_number(g, at + 14, to, 2);
}

static void offer(struct guest *g, unsigned head)
{
    uint16_t index = (uint16_t)(*byte_at(g, AVAIL + 2) | *byte_at(g, AVAIL + 3) << 8);

    put_number(g, AVAIL + 4 + 2u * (index % NUM), head, 2);
    put_number(g, AVAIL + 2, index + 1u, 2);
}

static void copy(struct guest *g, struct text *t)
{
    unsigned place = (unsigned)next(t, 2);
    size_t n = (size_t)next(t, 1);

    n = n < t->left ? n : t->left;
    put(g, place, t->at, n);
    t->at += n;
    t->left -= n;
}

static void step(struct guest *g, struct text *t)
{
    unsigned what = (unsigned)next(t, 1) % 8, i, flags, to, place;

    switch (what) {
    case 0:
        i = (unsigned)next(t, 1);
        flags = (unsigned)next(t, 1);
        to = (unsigned)next(t, 1);
        place = (unsigned)next(t, 2);
        describe(g, i, place, next(t, 1) * 16, flags, to);
        break;
    case 1: offer(g, (unsigned)next(t, 1)); break;
    case 2: copy(g, t); break;
    case 3:
        place = (unsigned)next(t, 2);
        put_number(g, place, next(t, 1), 4);
        put_number(g, place + 8, next(t, 1) * 16, 8);
        break;
    case 4: take(g); break;
    case 5:
        take(g);
        finish(g);
        break;
    case 6: put_number(g, AVAIL + 2, next(t, 2), 2); break;
    default:
        place = (unsigned)next(t, 2);
        to = (unsigned)next(t, 4);
        i = (unsigned)next(t, 1);
        describe(g, i, place, to, i >> 4, i >> 3);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct text t = {data, size};
    struct guest *g = &guest[next(&t, 1) & 1];

    begin(g, (uint8_t)next(&t, 1));
    while (t.left)
        step(g, &t);
    take(g);
    end(g);
    return 0;
}
