/* SPDX-License-Identifier: MIT */
/* A zoned device as an array of bytes: what zone-semantics.md says, and nothing of how. */
#ifndef RIG_MODEL_H
#define RIG_MODEL_H

#include <stdbool.h>
#include <zqcow2/queue.h>

#include "rig/store.h"

/* The shape of a device and of the image that carries it. */
struct geometry {
    const char *name;
    uint64_t size, zone_size, capacity; /* capacity 0: zone_size */
    uint32_t described;                 /* bytes of a descriptor extension */
    uint32_t conventional, max_open, max_active, max_append, cluster, layout, refcount_bits;
    uint32_t rules;  /* zqcow2_rules under which it is opened */
    uint32_t layers; /* images that the random tests put below it, one after the other */
    bool extended;   /* L2 entries with subclusters */
    bool zstd;       /* compressed by it */
    bool data_file;  /* the bytes of the device are in a file of their own */
};

struct model_zone {
    uint64_t wp, stamp;
    uint8_t state; /* never RDONLY or OFFLINE: those lie over it, in `forced` */
    uint8_t forced;
    uint8_t stored;   /* what `forced` is after the next open */
    bool kept_closed; /* an EMPTY zone is CLOSED after the next open */
    bool meant;       /* by the call for several zones that runs */
};

#define MODEL_NONE UINT32_MAX

struct model {
    struct geometry g;
    uint64_t max_append, now; /* now: the stamp that writes get */
    uint32_t nr, victim;      /* victim: the zone that the last call closed implicitly, or NONE */
    bool frozen;              /* `now` stands still: requests of one batch have no order */
    struct model_zone *zone;
    struct store *data; /* sparse: a device may be larger than an address space */
    /* Several zones were written last at one time: was this one closed, rather than the other? */
    bool (*tie)(void *arg, uint32_t zone, uint32_t other);
    void *tie_arg;
};

void model_init(struct model *m, const struct geometry *g, uint64_t max_append);
void model_free(struct model *m);

/* Each returns what the library has to. buf NULL: zeros. */
int model_write(struct model *m, const void *buf, uint64_t len, uint64_t off);
int model_append(struct model *m, const void *buf, uint64_t len, uint64_t *off);
int model_discard(struct model *m, uint64_t len, uint64_t off);
int model_read(const struct model *m, void *buf, uint64_t len, uint64_t off);
/* op: ZQCOW2_OP_ZONE_OPEN .. RESET; *failed: the start of the zone that refused. */
int model_manage(struct model *m, int op, uint64_t off, uint64_t len, uint64_t *failed);
int model_set_state(struct model *m, uint64_t off, unsigned state);
void model_reopen(struct model *m); /* also as an overlay, which inherits what is stored */

void model_report(const struct model *m, uint32_t i, struct zqcow2_zone *out);
uint64_t model_start(const struct model *m, uint32_t i);
bool model_is_open(const struct model_zone *z);
bool model_is_active(const struct model_zone *z);
uint32_t model_open_zones(const struct model *m);
uint32_t model_active_zones(const struct model *m);
uint64_t model_zone_end(const struct model *m, uint32_t i);   /* of its bytes */
uint64_t model_zone_limit(const struct model *m, uint32_t i); /* start + capacity */

#endif
