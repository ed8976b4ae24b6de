/* SPDX-License-Identifier: MIT */
/* Makes requests, submits them, and notices callbacks that come when none may. */
#include <stdlib.h>
#include "rig/ticket.h"

unsigned completions, called_outside;
bool inside_poll;

void ticket_begin(void)
{
    completions = called_outside = 0;
    inside_poll = false;
}

static void done(void *arg, const struct zqcow2_result *res)
{
    struct ticket *t = arg;

    t->ret = res->ret;
    t->offset = res->offset;
    t->calls++;
    t->order = completions++;
    called_outside += !inside_poll;
}

struct ticket *ticket(int op, uint64_t off, uint64_t len, uint64_t tag)
{
    struct ticket *t = calloc(1, sizeof(*t));

    t->buf = calloc(1, (size_t)len + 512);
    t->iov = (struct iovec){t->buf, (size_t)len};
    t->req = (struct zqcow2_request){.size = sizeof(t->req),
                                     .op = (uint16_t)op,
                                     .offset = off,
                                     .length = len,
                                     .done = done,
                                     .arg = t};
    if (op <= ZQCOW2_OP_APPEND) {
        t->req.iov = &t->iov;
        t->req.iovcnt = 1;
    }
    if (op == ZQCOW2_OP_WRITE || op == ZQCOW2_OP_APPEND)
        rig_pattern(t->buf, len, off, tag);
    return t;
}

void drop(struct ticket *t)
{
    free(t->buf);
    free(t);
}

int submit(struct zqcow2_queue *q, struct ticket *t)
{
    return zqcow2_queue_submit(q, &t->req, 1);
}

int poll_queue(struct zqcow2_queue *q, uint32_t max)
{
    int n;

    inside_poll = true;
    n = zqcow2_queue_poll(q, max);
    inside_poll = false;
    return n;
}

int wait_queue(struct zqcow2_queue *q, uint32_t min, int timeout_ms)
{
    int n;

    inside_poll = true;
    n = zqcow2_queue_wait(q, min, timeout_ms);
    inside_poll = false;
    return n;
}

void wait_all(struct zqcow2_queue *q)
{
    while (zqcow2_queue_pending(q))
        wait_queue(q, 1, 60000);
}
