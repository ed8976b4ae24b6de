/* SPDX-License-Identifier: MIT */
/*
 * How a scenario talks to an image that may fail under it. As long as no fault has struck, each
 * call must do what it is asked; from then on it may fail, but never lie: the oracle hears all.
 */
#ifndef RIG_STORY_H
#define RIG_STORY_H

#include "rig/oracle.h"

struct story {
    struct oracle oracle;
    uint64_t tag, flushes_lost; /* lost: the backend's failed flushes before the image was opened */
    bool gone;                  /* the image could not be opened again: what follows does nothing */
};

struct scenario {
    const char *name;
    const struct geometry *g;
    void (*run)(struct rig *r);
    enum rig_world world;
    bool creates; /* begins without an image, and makes it */
    uint64_t cache_bytes, extent_bytes;
};

struct scenario_set {
    const struct scenario *list;
    unsigned nr;
};

void st_write(struct rig *r, uint64_t off, uint64_t len, unsigned flags);
void st_append(struct rig *r, uint32_t zone, uint64_t len, unsigned flags);
void st_zeroes(struct rig *r, uint64_t off, uint64_t len, unsigned flags);
void st_discard(struct rig *r, uint64_t off, uint64_t len);
void st_read(struct rig *r, uint64_t off, uint64_t len);
void st_flush(struct rig *r);
void st_drain(struct rig *r);
/* op on zones [zone, zone + n) */
void st_manage(struct rig *r, int op, uint32_t zone, uint32_t n, unsigned flags);
void st_all(struct rig *r, int op);
void st_reopen(struct rig *r);
void st_close(struct rig *r);
void st_open(struct rig *r);
void st_crash(struct rig *r);
/* n appends of len bytes, all in flight, to `zones` zones from `first` on in turn. */
void st_burst(struct rig *r, unsigned n, uint64_t len, uint32_t first, uint32_t zones);
/* n writes in flight to neighbouring pieces of a conventional zone. */
void st_scatter(struct rig *r, unsigned n, uint64_t len, uint64_t off);
/* A write or append that must be refused with this, unless a fault came first. */
void st_refused(struct rig *r, int want, int op, uint64_t off, uint64_t len);

/* A fault has struck. */
bool st_struck(const struct rig *r);

/* ---- what the steps are made of ---- */

enum { MAY_EXTEND = 1, MAY_RESET = 2, MAY_FINISH = 4 };

/* True if rc is success; a failure without a fault is complained about. */
bool st_judge(struct rig *r, int rc, const char *what, uint64_t off);
/* Of a call that promises durability: not after a flush of the backend has failed (I12). */
bool st_judge_durable(struct rig *r, int rc, const char *what, uint64_t off);
void st_resync(struct rig *r, uint32_t i, unsigned may, const uint8_t *data, uint64_t len);
bool st_settle(struct rig *r);
uint8_t *st_marked(struct rig *r, uint64_t len, uint64_t off); /* new bytes, to be freed */

#endif
