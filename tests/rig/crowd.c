/* SPDX-License-Identifier: MIT */
/* Steps of a story with many requests in flight at once. */
#include <errno.h>
#include <stdlib.h>
#include "rig/story.h"
#include "rig/ticket.h"

#define CROWD_MAX 64

/* False if a request never came back: nothing more can be done with the image then. */
static bool gather(struct rig *r, struct zqcow2_queue *q)
{
    while (zqcow2_queue_pending(q)) {
        if (wait_queue(q, 1, 20000) == 0 && zqcow2_queue_pending(q)) {
            rig_say(r, "%u requests never completed", zqcow2_queue_pending(q));
            r->story->gone = true;
            return false;
        }
    }
    return true;
}

/* All of t[] go in; those that found no room are sent again. */
static bool send_all(struct rig *r, struct ticket **t, unsigned n)
{
    struct zqcow2_queue *q;
    unsigned sent = 0;

    if (!st_judge(r, zqcow2_queue_open(r->img, CROWD_MAX, &q), "queue_open", 0))
        return false;
    while (sent < n) {
        int got = submit(q, t[sent]);

        if (got != 1)
            rig_say(r, "submit gave %d", got);
        sent++;
    }
    if (!gather(r, q))
        return false;
    if (zqcow2_queue_close(q))
        rig_say(r, "queue_close with nothing in flight failed");
    return true;
}

/* Successes have to join: a failed append fails all behind it in its zone. */
static void appended(struct rig *r, const struct ticket *t, uint64_t *sum)
{
    uint32_t i = (uint32_t)(t->req.offset / r->g->zone_size);

    if (!st_judge(r, t->ret, "append in flight", t->req.offset))
        return;
    oracle_wrote(&r->story->oracle, t->offset, t->iov.iov_len, t->buf, true);
    sum[i] += t->iov.iov_len;
}

static void look(struct rig *r, uint32_t i, uint64_t expected)
{
    uint64_t wp = oracle_now(&r->story->oracle, i)->wp;

    if (wp != expected)
        rig_say(r, "zone %u: appends left a hole: wp +%#llx, acknowledged +%#llx", i,
                (unsigned long long)wp, (unsigned long long)expected);
    st_resync(r, i, 0, NULL, 0);
    if (wp)
        st_read(r, rig_start(r, i), wp);
}

void st_burst(struct rig *r, unsigned n, uint64_t len, uint32_t first, uint32_t zones)
{
    struct ticket *t[CROWD_MAX];
    uint64_t sum[64] = {0};

    if (r->story->gone)
        return;
    ticket_begin();
    for (uint32_t i = first; i < first + zones; i++)
        sum[i] = oracle_now(&r->story->oracle, i)->wp;
    for (unsigned k = 0; k < n; k++) {
        uint64_t start = rig_start(r, first + k % zones);

        t[k] = ticket(ZQCOW2_OP_APPEND, start, len, ++r->story->tag);
    }
    if (send_all(r, t, n)) {
        for (unsigned k = 0; k < n; k++)
            appended(r, t[k], sum);
        for (uint32_t i = first; i < first + zones; i++)
            look(r, i, sum[i]);
    }
    for (unsigned k = 0; k < n && !r->story->gone; k++)
        drop(t[k]);
}

void st_scatter(struct rig *r, unsigned n, uint64_t len, uint64_t off)
{
    struct ticket *t[CROWD_MAX];

    if (r->story->gone)
        return;
    ticket_begin();
    for (unsigned k = 0; k < n; k++)
        t[k] = ticket(ZQCOW2_OP_WRITE, off + k * len, len, ++r->story->tag);
    if (send_all(r, t, n)) {
        for (unsigned k = 0; k < n; k++) {
            bool good = st_judge(r, t[k]->ret, "write in flight", t[k]->req.offset);

            if (good || t[k]->ret != -ENOMEM)
                oracle_wrote(&r->story->oracle, t[k]->req.offset, len, t[k]->buf, good);
        }
        st_read(r, off, n * len);
    }
    for (unsigned k = 0; k < n && !r->story->gone; k++)
        drop(t[k]);
}
