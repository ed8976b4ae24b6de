/* SPDX-License-Identifier: MIT */
/* A request, from its choice to its result. */
#ifndef POWERCUT_SLOT_H
#define POWERCUT_SLOT_H

#include "run.h"

struct slot {
    struct run *r;
    bool used, ordered; /* ordered: no other thread changes the same zones */
    struct zqcow2_request rq;
    struct iovec iov[8];
    uint8_t *memory, *buf;
    struct req **reqs; /* one, or one for each zone of a reset of all */
    uint64_t n, then;
    uint64_t busy_off, busy_len; /* a read: nobody writes there */
    struct zone *zone;           /* whose `appending` counts this */
};

struct slot *slots_make(struct run *r, unsigned n, bool ordered);
void slots_free(struct slot *s, unsigned n);
/* Chooses a request. False: not now. */
bool slot_begin(struct slot *s, uint64_t *g);
void slot_end(struct slot *s, const struct zqcow2_result *res);

#endif
