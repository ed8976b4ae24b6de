/* SPDX-License-Identifier: MIT */
/* The guest: requests through the queue, from threads, or one at a time. */
#include "slot.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool run_is_dead(struct run *r)
{
    struct zqcow2_info info = ZQCOW2_INFO_INIT;

    if (r->disk.off)
        return true;
    zqcow2_get_info(r->img, &info);
    if (!(info.flags & ZQCOW2_INFO_DEAD))
        return false;
    pthread_mutex_lock(&r->lock);
    if (!r->disk.off && (r->w.fault == FAULT_NONE || r->w.fault == FAULT_NOSPC))
        fail(r, &r->disk.now, "the image is dead, without an error that could be the reason");
    r->c->dead += !r->dead;
    r->dead = true;
    pthread_mutex_unlock(&r->lock);
    return true;
}

/* Arms a fault now and then. */
static void arm(struct run *r, uint64_t *g)
{
    static const unsigned kinds =
        1u << ZQCOW2_IO_WRITE | 1u << ZQCOW2_IO_TRUNCATE | 1u << ZQCOW2_IO_ZERO;
    struct disk_fault f = {kinds, -EIO, (unsigned)below(g, 12), 1};

    if (r->w.fault == FAULT_NONE || !odds(g, 10))
        return;
    if (odds(g, 2))
        f.times = 1 + (unsigned)below(g, 12);
    if (r->w.fault == FAULT_FLUSH)
        f.kinds = 1u << ZQCOW2_IO_FLUSH;
    if (r->w.fault == FAULT_NOSPC)
        f.error = -ENOSPC;
    pthread_mutex_lock(&r->lock);
    r->disk.fault = f;
    pthread_mutex_unlock(&r->lock);
}

/* Where the pointer of a zone is after a request in it failed. The caller has the zone for itself.
 */
static void look(struct run *r, struct zone *z)
{
    struct zqcow2_zone now;
    uint32_t one = 1;

    if (run_is_dead(r))
        return;
    if (zqcow2_zone_report(r->img, z->start, &now, &one))
        fail(r, &r->disk.now, "no report of a zone");
    pthread_mutex_lock(&r->lock);
    if (!r->disk.off) /* else nobody is asked any more */
        model_sure(&r->m, z, now.state == ZQCOW2_ZONE_FULL ? z->start + z->cap : now.write_pointer,
                   now.state == ZQCOW2_ZONE_FULL);
    pthread_mutex_unlock(&r->lock);
}

static void resolve_unsure(struct run *r)
{
    for (uint64_t i = 0; i < r->m.nz; i++) {
        struct zone *z = &r->m.zones[i];
        bool mine;

        pthread_mutex_lock(&r->lock);
        mine = z->unsure && !z->busy;
        z->busy += mine;
        pthread_mutex_unlock(&r->lock);
        if (!mine)
            continue;
        look(r, z);
        pthread_mutex_lock(&r->lock);
        z->busy--;
        pthread_mutex_unlock(&r->lock);
    }
}

/* ---- one thread with a queue ---- */

static void done(void *arg, const struct zqcow2_result *res)
{
    slot_end(arg, res);
}

static void queue_steps(struct run *r, unsigned steps, uint64_t *g)
{
    struct slot *slots = slots_make(r, 8, true);

    for (unsigned n = 0; n < steps && !run_is_dead(r);) {
        unsigned batch = 1 + (unsigned)below(g, 8), got = 0;
        struct zqcow2_request rq[8];

        arm(r, g);
        for (unsigned i = 0; i < 8 && got < batch; i++)
            if (!slots[i].used && slot_begin(&slots[i], g)) {
                rq[got] = slots[i].rq;
                rq[got++].done = done;
            }
        if (got && zqcow2_queue_submit(r->q, rq, got) != (int)got)
            fail(r, NULL, "the queue takes fewer requests than it has room for");
        n += got + 1;
        if (odds(g, 6))
            zqcow2_queue_wait(r->q, 8, -1);
        else if (odds(g, 2) || !got)
            zqcow2_queue_wait(r->q, 1, -1);
        else
            zqcow2_queue_poll(r->q, 0);
        if (odds(g, 4))
            resolve_unsure(r);
    }
    while (zqcow2_queue_pending(r->q))
        zqcow2_queue_wait(r->q, 1, -1);
    slots_free(slots, 8);
}

/* ---- threads ---- */

struct worker {
    struct run *r;
    uint64_t rng;
    unsigned steps;
    bool ordered;
    pthread_t thread;
};

static void *blocking_steps(void *arg)
{
    struct worker *w = arg;
    struct run *r = w->r;
    struct slot *s = slots_make(r, 1, w->ordered);

    for (unsigned n = 0; n < w->steps && !run_is_dead(r); n++) {
        struct zqcow2_result res = {0, 0, 0};

        arm(r, &w->rng);
        if (slot_begin(s, &w->rng)) {
            zqcow2_run(r->img, &s->rq, &res);
            slot_end(s, &res);
        }
        if (odds(&w->rng, 4))
            resolve_unsure(r);
    }
    slots_free(s, 1);
    return NULL;
}

static void *queue_thread(void *arg)
{
    struct worker *w = arg;

    queue_steps(w->r, w->steps, &w->rng);
    return NULL;
}

static void thread_steps(struct run *r, unsigned steps)
{
    struct worker w[3];

    for (unsigned i = 0; i < 3; i++) {
        w[i] = (struct worker){.r = r, .rng = mix(&r->rng), .steps = steps / 2};
        if (pthread_create(&w[i].thread, NULL,
                           i == 0 && r->w.drive == DRIVE_MIXED ? queue_thread : blocking_steps,
                           &w[i]))
            exit(2);
    }
    for (unsigned i = 0; i < 3; i++)
        pthread_join(w[i].thread, NULL);
}

/* ---- between the steps ---- */

/* Nothing is in flight: the device shows what was acknowledged. */
static void look_at_all(struct run *r)
{
    char text[200];
    int rc = 0;

    resolve_unsure(r);
    if (run_is_dead(r))
        return;
    for (uint64_t off = 0; off < r->w.size && !rc; off += 131072)
        rc = zqcow2_read(r->img, r->live + off, r->w.size - off < 131072 ? r->w.size - off : 131072,
                         off);
    if (r->disk.off)
        return;
    if (rc)
        fail(r, &r->disk.now, "read: %s", zqcow2_strerror(rc));
    for (uint64_t i = 0; i < r->m.nz; i++) {
        struct zqcow2_zone now;
        const struct zone *z = &r->m.zones[i];
        uint32_t one = 1;

        if (!z->seq || zqcow2_zone_report(r->img, z->start, &now, &one))
            continue;
        r->full[i] = now.state == ZQCOW2_ZONE_FULL;
        r->wp[i] = r->full[i] ? z->start + z->cap : now.write_pointer;
        if (r->full[i] != z->filled || (!z->filled && r->wp[i] != z->next))
            fail(r, &r->disk.now, "live: zone %llu at 0x%llx instead of 0x%llx, full %d",
                 (unsigned long long)i, (unsigned long long)r->wp[i], (unsigned long long)z->next,
                 z->filled);
    }
    if (!model_match(&r->m, r->live, r->wp, r->full, text))
        fail(r, &r->disk.now, "live: %s", text);
    for (uint64_t i = 0; i < (r->m.nz ? r->m.nz : 1); i++)
        if ((!r->m.nz || !r->m.zones[i].seq) &&
            !model_shows(&r->m, r->live + i * r->m.zone_size, i * r->m.zone_size,
                         r->m.nz ? r->m.zones[i].len : r->m.size, text))
            fail(r, &r->disk.now, "live: %s", text);
}

void drive(struct run *r)
{
    struct worker w = {.r = r, .rng = mix(&r->rng), .steps = r->w.steps, .ordered = true};

    for (unsigned part = 0; part < 2 && !run_is_dead(r); part++) {
        w.steps = r->w.steps / 2;
        switch (r->w.drive) {
        case DRIVE_BLOCKING: blocking_steps(&w); break;
        case DRIVE_QUEUE: queue_steps(r, w.steps, &w.rng); break;
        default: thread_steps(r, w.steps); break;
        }
        pthread_mutex_lock(&r->lock);
        r->disk.fault.times = 0;
        pthread_mutex_unlock(&r->lock);
        look_at_all(r);
    }
}
