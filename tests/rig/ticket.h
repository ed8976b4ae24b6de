/* SPDX-License-Identifier: MIT */
/* Requests for the queue, with all that has to stay valid until done(), and who called it when. */
#ifndef RIG_TICKET_H
#define RIG_TICKET_H

#include "rig/rig.h"

struct ticket {
    struct zqcow2_request req;
    struct iovec iov;
    uint8_t *buf;
    int ret;
    unsigned calls, order; /* order: among the completions of the test */
    uint64_t offset;
};

/* Of the running test; ticket_begin() clears them. */
extern unsigned completions, called_outside;
extern bool inside_poll; /* done() may be called */

void ticket_begin(void);
struct ticket *ticket(int op, uint64_t off, uint64_t len, uint64_t tag);
void drop(struct ticket *t);
int submit(struct zqcow2_queue *q, struct ticket *t);
int poll_queue(struct zqcow2_queue *q, uint32_t max);
int wait_queue(struct zqcow2_queue *q, uint32_t min, int timeout_ms);
void wait_all(struct zqcow2_queue *q);

#endif
