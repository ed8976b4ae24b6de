/* SPDX-License-Identifier: MIT */
/*
 * A plain model of what a device may hold after a power loss, from what its user did and saw. It
 * was written from the contract (I1-I8) alone and shares no code with the library.
 */
#ifndef CRASH_POWER_MODEL_H
#define CRASH_POWER_MODEL_H

#include <stdbool.h>
#include <stdint.h>

#include <zqcow2/zqcow2.h>

#define SECTOR    512u
#define MAX_ZONES 136u

struct shape { /* a plain image: one conventional zone over everything */
    uint64_t size, zone_size, capacity;
    uint32_t zones, conventional, max_active;
};

enum act_kind { ACT_WRITE, ACT_ZERO, ACT_FLUSH, ACT_FINISH, ACT_RESET, ACT_READ, ACT_OTHER };

/* One thing that the user did. A request that failed for its arguments or limits is ACT_OTHER. */
struct act {
    enum act_kind kind;
    bool fua, append, late; /* late: the image was dead before */
    int result;
    uint32_t req, life, zone; /* as stamped into the data */
    uint64_t stamped;         /* the address as stamped */
    uint64_t off, len;
    void *snapshot;            /* flush: what it promises; owned by the model */
    uint32_t index[MAX_ZONES]; /* the life that it wrote, finished or began; the model's */
};

#define UNSURE 0x40000000u /* of a life's requests: a finish may have come without it */

struct life {
    uint64_t *ends; /* after each write, counted from the zone's start */
    uint32_t *reqs;
    uint32_t writes;
    uint64_t acked;
    bool finished, finish_acked;
    uint8_t *data; /* capacity bytes */
};

struct version {
    uint32_t req;
    bool acked;
    uint8_t *data; /* NULL: zeros */
};

struct cell { /* a sector that may be overwritten */
    struct version *v;
    uint32_t n, durable; /* durable: the oldest that may still be seen */
};

struct track { /* a sequential zone */
    struct life *lives;
    uint32_t n, acked; /* lives begun; the last whose reset was acknowledged */
    uint32_t first;    /* the oldest that may still be seen, with at least `durable` bytes */
    uint64_t durable;
    bool durable_full;
};

struct seen { /* what a sequential zone turned out to hold */
    uint32_t life;
    uint64_t end;
    bool full;
};

struct power_model {
    struct shape shape;
    struct track zone[MAX_ZONES];
    struct cell *cells;
    uint64_t ncells;
};

uint64_t zone_start(const struct shape *s, uint32_t zone);
uint64_t zone_length(const struct shape *s, uint32_t zone);
uint64_t zone_room(const struct shape *s, uint32_t zone); /* its capacity */

/* Fills sectors that say what they are; describes one that was found. */
void stamp(uint8_t *buf, uint64_t len, uint32_t zone, uint32_t life, uint64_t address,
           uint32_t req);
const char *describe(const uint8_t *sector, char *buf, size_t room);

void power_init(struct power_model *o, const struct shape *shape);
void power_fini(struct power_model *o);
void power_submit(struct power_model *o, struct act *a);
void power_ack(struct power_model *o, struct act *a);
/* Equal hashes: the same outcomes are allowed. */
uint64_t power_hash(const struct power_model *o);
/*
 * zones: the report; data: the whole device. Returns 0, or 1 with a text. seen: MAX_ZONES entries.
 */
int power_judge(const struct power_model *o, const struct zqcow2_zone *zones, const uint8_t *data,
                struct seen *seen, char *why, size_t room);
/* Goes on from what was found: it is durable, and nothing else may be seen again. */
void power_rebase(struct power_model *o, const struct seen *seen, const uint8_t *data);

#endif
