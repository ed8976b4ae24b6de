/* SPDX-License-Identifier: MIT */
/*
 * A vhost-user front-end of the tests' own, with a guest that the test controls: the numbers
 * are those of the specifications, and none comes from tools/. Guest addresses, addresses of the
 * front-end and addresses of this process all differ.
 */
#ifndef VHOST_FRONTEND_H
#define VHOST_FRONTEND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define GUEST_BASE 0x40000000u /* of the first region; the second follows at once */
#define USER_BASE  0x700000000000u
#define REGION     (4u << 20)
#define MEMORY     (2 * REGION)
#define RING_NUM   64u
#define RINGS      2u
#define DATA_AT    0x20000u /* offset in memory: what lies before belongs to the rings */

enum {
    F_FLUSH = 9,
    F_DISCARD = 13,
    F_ZEROES = 14,
    F_ZONED = 17,
    F_INDIRECT = 28,
    F_EVENT = 29,
    F_PROTOCOL = 30,
    F_VERSION_1 = 32
};

struct part {         /* of a request: a descriptor */
    uint32_t at, len; /* offset in memory */
    bool writable;
};

struct ring {
    int kick, call, err;
    uint16_t avail; /* as the guest has counted */
    uint16_t used;
    uint32_t num;
};

struct front {
    char dir[64], socket[96], ctl[96], image[96];
    pid_t server;
    int sock, memfd, inflight;
    uint8_t *memory;
    uint64_t offered, protocol, inflight_size;
    struct ring ring[RINGS];
};

#define ALL \
    (1ull << F_FLUSH | 1ull << F_DISCARD | 1ull << F_ZEROES | 1ull << F_ZONED | \
     1ull << F_INDIRECT | 1ull << F_EVENT)
#define LONG_MS 60000

enum {
    IN,
    OUT,
    FLUSH = 4,
    GET_ID = 8,
    DISCARD = 11,
    ZEROES = 13,
    APPEND = 15,
    REPORT,
    OPEN = 18,
    CLOSE = 20,
    FINISH = 22,
    RESET = 24,
    RESET_ALL = 26
};
enum { OK, IOERR, UNSUPP, INVALID, UNALIGNED, OPEN_LIMIT, ACTIVE_LIMIT };

/* ---- the server ---- */

/* Options of create: an image without zones, and one whose first zone is conventional. */
extern const char front_plain[], front_zoned[];

/* Creates an image with `options` of `zqcow2 create` in a new folder. */
void front_create(struct front *f, const char *options, const char *size);
void front_start(struct front *f, const char *options);
/* Ends it by a signal; its exit status, or minus the signal that it died of. */
int front_stop(struct front *f, int signal);
void front_remove(struct front *f);

/* ---- messages ---- */

void front_connect(struct front *f);
void front_disconnect(struct front *f);
/* Sends a message; fds[n]. */
void front_send(struct front *f, uint32_t request, uint32_t flags, const void *payload,
                uint32_t size, const int *fds, unsigned n);
/* The payload of the reply and its length; -1: the connection is closed. A descriptor or -1. */
int front_receive(struct front *f, void *payload, uint32_t room, int *fd);
/* With the request for an acknowledgement; what it says. -1: the connection is closed. */
int64_t front_acked(struct front *f, uint32_t request, const void *payload, uint32_t size,
                    const int *fds, unsigned n);
/* From the first message to memory: accepts these features of those that are offered. */
void front_negotiate(struct front *f, uint64_t features);
void front_start_ring(struct front *f, unsigned ring, uint16_t base);
void front_stop_ring(struct front *f, unsigned ring);

/* ---- the guest ---- */

void front_set_desc(struct front *f, unsigned ring, uint16_t i, uint64_t addr, uint32_t len,
                    uint16_t flags, uint16_t next);
void front_offer(struct front *f, unsigned ring, uint16_t head); /* and kicks */
/* Waits for the next used entry: its head; *written its length. -1: none within the time. */
int front_used(struct front *f, unsigned ring, uint32_t *written, int ms);
/* Posts a chain from descriptor `head` on, direct or by an indirect table, and offers it. */
void front_post(struct front *f, unsigned ring, uint16_t head, const struct part *p, unsigned n,
                bool indirect);
/* A whole request; its status. Data of n bytes lie at DATA_AT + 0x1000. */
uint8_t front_do(struct front *f, unsigned ring, uint32_t type, uint64_t sector, uint32_t out,
                 uint32_t in);
uint8_t *front_data(struct front *f);
/* n bytes of one value: writes them through ring 0, which succeeds; whether a ring reads them. */
void front_write(struct front *f, uint64_t sector, uint8_t byte, uint32_t n);
bool front_reads(struct front *f, unsigned ring, uint64_t sector, uint8_t byte, uint32_t n);

/* Creates an image, starts its server with `options`, and both rings. */
void front_begin(struct front *f, const char *image, const char *options, uint64_t features);
/* Ends the server, which must be content, and checks the image. */
void front_finish(struct front *f);

/* A report of the one zone at `sector` says that it has this write pointer and this state. */
void front_expect_zone(struct front *f, uint64_t sector, uint64_t wp, unsigned zone_state);
bool front_all_are(const uint8_t *p, uint8_t v, size_t n);

/* Little-endian numbers. */
uint64_t front_get(const uint8_t *from, unsigned bytes);
void front_put(uint8_t *to, uint64_t v, unsigned bytes);

#endif
