/* SPDX-License-Identifier: MIT */
/*
 * What a device may hold after a power cut: for each sector outside sequential zones the versions
 * that are possible, for each sequential zone its lives and the requests of each. Every sector that
 * is written names its request and its place in it.
 */
#ifndef POWERCUT_MODEL_H
#define POWERCUT_MODEL_H

#include "store.h"

#include <stdbool.h>

#define ANYWHERE UINT64_MAX

enum what { W_DATA, W_ZERO, W_FINISH, W_RESET, W_OTHER };

struct req {
    uint64_t id, off, len, done; /* done: when it completed; 0: not yet, or it failed */
    enum what what;
    unsigned life;
    uint64_t zone;
    bool failed, fua;
    int rc;
};

/* Between two resets of a zone. */
struct life {
    struct req **reqs;
    size_t n;
    uint64_t init_end; /* up to here the zone has what it had when the model was made */
    uint64_t durable;  /* the pointer reaches this */
    uint64_t born;     /* when its reset completed; 0: not yet */
    bool finishing, full, full_durable; /* full: and acknowledged */
    uint64_t full_at, fin_lo, fin_hi;   /* when; how much was written at least and at most */
};

struct zone {
    uint64_t start, len, cap;
    bool seq;
    struct life *lives;
    unsigned n, first; /* lives before `first` cannot come back */
    uint64_t next;     /* of the next write */
    bool filled;       /* finished, or written to its end, as far as it was submitted */
    bool unsure;       /* a request failed: nothing more until it is known where the pointer is */
    unsigned busy, appending;
};

/* What a sector may hold: the versions since the last one that is durable. 0 is the initial one. */
struct sector {
    uint64_t *ids;
    uint16_t n;
    bool busy;
};

struct model {
    uint64_t size, cluster, clock;
    struct zone *zones;
    uint64_t nz;
    uint64_t zone_size; /* the device's size without zones */
    struct sector *sectors;
    uint8_t *init;
    struct req **reqs;
    size_t nreqs;
    uint64_t next_id;
};

void model_init(struct model *m, uint64_t size, uint64_t cluster);
void model_zone(struct model *m, uint64_t start, uint64_t len, uint64_t cap, bool seq);
/* The device holds `content`, durable, with these pointers. Forgets everything else. */
void model_settle(struct model *m, const uint8_t *content, const uint64_t *wp, const bool *full);
void model_free(struct model *m);

void stamp(uint8_t *sector, uint64_t id, uint64_t index);
void stamp_all(uint8_t *buf, uint64_t len, uint64_t id);

struct req *model_submit(struct model *m, enum what what, uint64_t off, uint64_t len, bool fua);
/* at: where the data went, as reported. */
void model_done(struct model *m, struct req *r, int rc, uint64_t at);
/* What completed by then is durable. */
void model_flushed(struct model *m, uint64_t then);
/* A zone after failures, nothing in flight: its pointer is known. */
void model_sure(struct model *m, struct zone *z, uint64_t wp, bool full);
bool model_is_free(const struct model *m, uint64_t off, uint64_t len); /* not in a request */

/*
 * Whether a device may hold this after a power cut. durable false: whether it may show it while it
 * runs, and nothing that was acknowledged is missing. text says what is wrong.
 */
bool model_match(const struct model *m, const uint8_t *content, const uint64_t *wp,
                 const bool *full, char text[200]);
bool model_shows(const struct model *m, const uint8_t *content, uint64_t off, uint64_t len,
                 char text[200]);

#endif
