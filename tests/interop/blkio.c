/* SPDX-License-Identifier: MIT */
/*
 * A vhost-user disk without zones, by libblkio's driver, which shares nothing with ours:
 *
 *   blkio verify SOCKET REQUESTS SEED      random requests of all kinds, against a copy in memory
 *   blkio bench SOCKET read|write SECONDS BYTES DEPTH    random requests per second, on one queue
 */
#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <blkio.h>

#define SECTOR 512u
#define DEPTH  16u /* of verify */
#define MOST   (256u * 1024)
#define QUEUES 2

static struct blkio *disk;
static struct blkio_mem_region memory;
static uint64_t capacity, rng;

static void expect(int rc, const char *what)
{
    if (rc < 0) {
        fprintf(stderr, "blkio: %s: %s (%s)\n", what, strerror(-rc), blkio_get_error_msg());
        exit(1);
    }
}

static uint64_t below(uint64_t n)
{
    rng = rng * 6364136223846793005u + 1442695040888963407u;
    return (rng >> 20) % n;
}

static void connect_disk(const char *socket, int queues, size_t room)
{
    expect(blkio_create("virtio-blk-vhost-user", &disk), "create");
    expect(blkio_set_str(disk, "path", socket), "path");
    expect(blkio_connect(disk), "connect");
    expect(blkio_set_int(disk, "num-queues", queues), "num-queues");
    expect(blkio_start(disk), "start");
    expect(blkio_get_uint64(disk, "capacity", &capacity), "capacity");
    expect(blkio_alloc_mem_region(disk, &memory, room), "memory");
    expect(blkio_map_mem_region(disk, &memory), "memory");
}

/* ---- verify ---- */

enum { READ, WRITE, DISCARD, ZEROES, KINDS };
static const char *const names[] = {"reads", "writes", "discards", "writes of zeroes"};

static struct slot {
    bool busy;
    int kind, queue;
    uint64_t at, len;
    uint8_t *data;
    struct iovec iov[4];
} slots[DEPTH];

static uint8_t *shadow;
static bool *either; /* of a sector that was discarded: as before, or zero */
static unsigned long done[KINDS], flushes;

static void check_read(const struct slot *s, const uint8_t *data)
{
    static const uint8_t zero[SECTOR];

    for (uint64_t i = 0; i < s->len; i += SECTOR) {
        uint64_t at = s->at + i;
        bool ok = !memcmp(data + i, shadow + at, SECTOR) ||
                  (either[at / SECTOR] && !memcmp(data + i, zero, SECTOR));

        if (!ok) {
            printf("wrong data at %llu\n", (unsigned long long)at);
            exit(1);
        }
    }
}

static void finish(struct slot *s)
{
    if (s->kind == READ)
        check_read(s, s->data);
    for (uint64_t i = 0; i < s->len && s->kind != READ; i += SECTOR) {
        either[(s->at + i) / SECTOR] = s->kind == DISCARD;
        if (s->kind == WRITE)
            memcpy(shadow + s->at + i, s->data + i, SECTOR);
        else if (s->kind == ZEROES)
            memset(shadow + s->at + i, 0, SECTOR);
    }
    done[s->kind]++;
    s->busy = false;
}

/* Waits for one request of the queue, or for a flush that was sent without a slot. */
static void reap(int queue)
{
    struct blkio_completion c;

    expect(blkioq_do_io(blkio_get_queue(disk, queue), &c, 1, 1, NULL), "do_io");
    expect(c.ret, c.error_msg ? c.error_msg : "a request");
    if (c.user_data)
        finish(c.user_data);
}

static bool overlaps(uint64_t at, uint64_t len)
{
    for (unsigned i = 0; i < DEPTH; i++)
        if (slots[i].busy && at < slots[i].at + slots[i].len && slots[i].at < at + len)
            return true;
    return false;
}

/* The data in up to four pieces. */
static int scatter(struct slot *s)
{
    uint64_t at = 0, n;
    int pieces = 0;

    while (at < s->len) {
        n = pieces == 3 ? s->len - at : SECTOR * (1 + below((s->len - at) / SECTOR));
        s->iov[pieces++] = (struct iovec){s->data + at, n};
        at += n;
    }
    return pieces;
}

static void submit(struct slot *s)
{
    struct blkioq *q = blkio_get_queue(disk, s->queue);

    s->busy = true;
    switch (s->kind) {
    case READ:
        memset(s->data, 0xee, s->len);
        blkioq_readv(q, s->at, s->iov, scatter(s), s, 0);
        break;
    case WRITE:
        for (uint64_t i = 0; i < s->len; i++)
            s->data[i] = (uint8_t)(rng >> i % 57);
        blkioq_writev(q, s->at, s->iov, scatter(s), s, below(8) ? 0 : BLKIO_REQ_FUA);
        break;
    case DISCARD: blkioq_discard(q, s->at, s->len, s, 0); break;
    default: blkioq_write_zeroes(q, s->at, s->len, s, below(2) ? BLKIO_REQ_NO_UNMAP : 0); break;
    }
}

static void step(unsigned i)
{
    struct slot *s = &slots[i % DEPTH];

    while (s->busy)
        reap(s->queue);
    s->kind = (int)below(10);
    s->kind = s->kind < 4 ? READ : s->kind < 8 ? WRITE : s->kind == 8 ? DISCARD : ZEROES;
    s->queue = (int)below(QUEUES);
    s->len = SECTOR * (1 + below(below(4) ? 32 : MOST / SECTOR));
    do
        s->at = SECTOR * below((capacity - s->len) / SECTOR + 1);
    while (overlaps(s->at, s->len));
    submit(s);
    expect(blkioq_do_io(blkio_get_queue(disk, s->queue), NULL, 0, 0, NULL), "do_io");
    if (!below(50)) {
        blkioq_flush(blkio_get_queue(disk, s->queue), NULL, 0);
        flushes++;
    }
}

static void drain(void)
{
    for (unsigned i = 0; i < DEPTH; i++)
        while (slots[i].busy)
            reap(slots[i].queue);
}

static int verify(unsigned long requests, uint64_t seed)
{
    struct slot all = {.data = memory.addr, .kind = READ};

    rng = seed;
    shadow = calloc(1, capacity);
    either = calloc(capacity / SECTOR, sizeof(*either));
    if (!shadow || !either)
        return 1;
    for (unsigned i = 0; i < DEPTH; i++)
        slots[i].data = (uint8_t *)memory.addr + (size_t)i * MOST;
    for (unsigned long i = 0; i < requests; i++)
        step((unsigned)(i % DEPTH));
    drain();
    for (all.at = 0; all.at < capacity; all.at += all.len) {
        all.len = capacity - all.at < MOST ? capacity - all.at : MOST;
        all.busy = true;
        submit(&all);
        while (all.busy)
            reap(0);
    }
    printf("blkio: seed %llu", (unsigned long long)seed);
    for (unsigned i = 0; i < KINDS; i++)
        printf(", %lu %s", done[i], names[i]);
    printf(", %lu flushes, 0 wrong\n", flushes);
    free(shadow);
    free(either);
    return 0;
}

/* ---- bench ---- */

static double now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void send_one(bool write, uint64_t bytes, uint64_t slot)
{
    struct blkioq *q = blkio_get_queue(disk, 0);
    uint8_t *data = (uint8_t *)memory.addr + slot * bytes;
    uint64_t at = below(capacity / bytes) * bytes;

    if (write)
        blkioq_write(q, at, data, bytes, (void *)(uintptr_t)slot, 0);
    else
        blkioq_read(q, at, data, bytes, (void *)(uintptr_t)slot, 0);
}

static int bench(bool write, double seconds, uint64_t bytes, uint64_t depth)
{
    struct blkio_completion c[256];
    unsigned long requests = 0;
    double began, ended;

    rng = 1;
    memset(memory.addr, 0x5a, bytes * depth);
    for (uint64_t i = 0; i < depth; i++)
        send_one(write, bytes, i);
    began = now();
    do {
        int n = blkioq_do_io(blkio_get_queue(disk, 0), c, 1, 256, NULL);

        expect(n, "do_io");
        for (int i = 0; i < n; i++) {
            expect(c[i].ret, c[i].error_msg ? c[i].error_msg : "a request");
            send_one(write, bytes, (uint64_t)(uintptr_t)c[i].user_data);
        }
        requests += (unsigned long)n;
        ended = now();
    } while (ended - began < seconds);
    printf("%.0f\n", (double)requests / (ended - began));
    return 0;
}

int main(int argc, char **argv)
{
    if (argc == 5 && !strcmp(argv[1], "verify")) {
        connect_disk(argv[2], QUEUES, (size_t)MOST * DEPTH);
        return verify(strtoul(argv[3], NULL, 0), strtoull(argv[4], NULL, 0));
    }
    if (argc == 7 && !strcmp(argv[1], "bench")) {
        uint64_t bytes = strtoull(argv[5], NULL, 0), depth = strtoull(argv[6], NULL, 0);

        connect_disk(argv[2], 1, bytes * depth);
        return bench(!strcmp(argv[3], "write"), strtod(argv[4], NULL), bytes, depth);
    }
    fputs("usage: blkio verify SOCKET REQUESTS SEED\n"
          "       blkio bench SOCKET read|write SECONDS BYTES DEPTH\n",
          stderr);
    return 2;
}
