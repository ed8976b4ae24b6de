/* SPDX-License-Identifier: MIT */
/*
 * What an image may show after faults: for each zone the lives it has had since the last flush,
 * for each conventional sector its versions. Nothing else may ever appear.
 */
#ifndef RIG_ORACLE_H
#define RIG_ORACLE_H

#include "rig/rig.h"

/* From one reset to the next. */
struct life {
    uint8_t *data;    /* zone length; zeros where nothing was committed */
    uint64_t wp;      /* from the zone's start: committed in memory, acknowledged or not */
    uint64_t durable; /* acknowledged before a flush that succeeded */
    bool finish, finish_durable;
};

struct lives {
    struct life *life;  /* the last one is the present one */
    uint32_t nr, first; /* first: the oldest that a flush has not done away with */
};

/* A write, zeroing or discard in conventional zones. */
struct version {
    uint64_t off, len;
    uint8_t *data; /* NULL: zeros */
    bool acked;
};

struct oracle {
    struct geometry g;
    uint32_t nr_zones;
    struct lives *zone;
    struct version *version;
    uint32_t nr, room, durable; /* versions; those that came before the last flush */
};

void oracle_init(struct oracle *o, const struct geometry *g);
void oracle_free(struct oracle *o);
struct life *oracle_now(const struct oracle *o, uint32_t zone);

/* Committed at off in the present life; data NULL: zeros. Also for conventional zones. */
void oracle_wrote(struct oracle *o, uint64_t off, uint64_t len, const void *data, bool acked);
void oracle_reset(struct oracle *o, uint32_t zone);
void oracle_flushed(struct oracle *o);

/* Is this what a read may give while the image is open? */
bool oracle_reads(const struct oracle *o, const uint8_t *is, uint64_t len, uint64_t off);
/*
 * Of an image that was just opened: every zone and sector shows what it may. From then on what it
 * shows is all that is known. The complaint goes to r->why.
 */
bool oracle_settle(struct oracle *o, struct rig *r);

#endif
