/* SPDX-License-Identifier: MIT */
/* A ring with a thread and an event loop of its own. */
#include "vhost/queue.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define POLL_MS 1 /* of a ring without a descriptor for kicks */

static void signal_fd(int fd)
{
    uint64_t one = 1;

    if (fd >= 0 && write(fd, &one, sizeof(one)) < 0)
        return; /* EAGAIN: it is signalled already */
}

static void clear_fd(int fd)
{
    uint64_t n;

    if (fd >= 0 && read(fd, &n, sizeof(n)) < 0)
        return; /* EAGAIN: somebody else was faster */
}

/* ---- requests ---- */

static bool running(const struct vhost_queue *q)
{
    return q->ready && q->enabled && !q->ring.broken;
}

static void report_broken(struct vhost_queue *q)
{
    char text[160];

    if (!q->ring.broken || q->logged)
        return;
    q->logged = true;
    snprintf(text, sizeof(text), "the guest has broken ring %u: %s", q->index, q->ring.broken);
    serve_image_log(q->shared->image, ZQCOW2_LOG_ERROR, text);
    signal_fd(q->err);
}

static void answered(struct vhost_request *r, uint32_t written)
{
    struct vhost_queue *q = r->arg;

    r->busy = false;
    if (vhost_request_changes(r))
        vhost_inflight_changed(&q->shared->inflight);
    else if (vhost_request_has_flushed(r))
        vhost_inflight_flushed(&q->shared->inflight, r->seen);
    vhost_track_answers(&q->track, r->chain.head);
    vhost_ring_push(&q->ring, r->chain.head, written);
    vhost_track_answered(&q->track, r->chain.head, q->ring.used_idx);
}

static void begin(struct vhost_queue *q, const struct vhost_chain *c)
{
    struct vhost_request *r = &q->requests[c->head];
    uint32_t pieces = c->out + c->in;

    if (r->busy) {
        q->ring.broken = "a request that is in flight already";
        return;
    }
    r->chain.head = c->head;
    r->chain.out = c->out;
    r->chain.in = c->in;
    r->chain.out_bytes = c->out_bytes;
    r->chain.in_bytes = c->in_bytes;
    memcpy(r->chain.iov, c->iov, pieces * sizeof(c->iov[0]));
    r->busy = true;
    r->seen = vhost_inflight_seen(&q->shared->inflight);
    vhost_request_begin(r);
}

/* What the guest has made available, and is done. */
static void serve(struct vhost_queue *q)
{
    struct vhost_chain c;
    unsigned taken = 0;

    if (!running(q))
        return;
    vhost_ring_busy(&q->ring);
    while (taken++ < q->ring.num && vhost_ring_pop(&q->ring, &c) > 0) {
        vhost_track_popped(&q->track, c.head);
        begin(q, &c);
    }
}

static void finish(struct vhost_queue *q)
{
    zqcow2_queue_poll(q->zq, 0);
    if (q->ready && vhost_ring_wants_call(&q->ring))
        signal_fd(q->call);
    report_broken(q);
}

/* ---- the thread ---- */

static void drain(struct vhost_queue *q)
{
    while (zqcow2_queue_pending(q->zq))
        zqcow2_queue_wait(q->zq, 1, -1);
    finish(q);
}

/* False: it is to end. */
static bool obey(struct vhost_queue *q)
{
    bool go_on, pause;

    pthread_mutex_lock(&q->lock);
    pause = q->pause;
    pthread_mutex_unlock(&q->lock);
    if (pause)
        drain(q);
    pthread_mutex_lock(&q->lock);
    if (pause) {
        q->paused = true;
        pthread_cond_broadcast(&q->changed);
        while (q->pause)
            pthread_cond_wait(&q->changed, &q->lock);
        q->paused = false;
    }
    go_on = !q->quit;
    pthread_mutex_unlock(&q->lock);
    return go_on;
}

/* Until the guest, the image or the session wants something. */
static void rest(struct vhost_queue *q)
{
    bool on = running(q);
    struct pollfd p[] = {{.fd = q->wake, .events = POLLIN},
                         {.fd = zqcow2_queue_fd(q->zq), .events = POLLIN},
                         {.fd = on ? q->kick : -1, .events = POLLIN}};

    if (on && vhost_ring_rest(&q->ring))
        return;
    if (poll(p, 3, on && q->kick < 0 ? POLL_MS : -1) < 0)
        return;
    if (p[0].revents)
        clear_fd(q->wake);
    if (p[2].revents & POLLIN)
        clear_fd(q->kick);
    else if (p[2].revents)
        vhost_queue_set_fd(&q->kick, -1); /* the other end is gone: then it is polled */
}

static void *run(void *arg)
{
    struct vhost_queue *q = arg;

    while (obey(q)) {
        serve(q);
        finish(q);
        rest(q);
    }
    return NULL;
}

/* ---- for the session ---- */

static void order(struct vhost_queue *q, bool pause, bool quit)
{
    pthread_mutex_lock(&q->lock);
    q->pause = pause;
    q->quit = quit;
    pthread_cond_broadcast(&q->changed);
    pthread_mutex_unlock(&q->lock);
    signal_fd(q->wake);
}

void vhost_queue_pause(struct vhost_queue *q)
{
    order(q, true, false);
    pthread_mutex_lock(&q->lock);
    while (!q->paused)
        pthread_cond_wait(&q->changed, &q->lock);
    pthread_mutex_unlock(&q->lock);
}

void vhost_queue_resume(struct vhost_queue *q)
{
    order(q, false, false);
}

void vhost_queue_set_fd(int *slot, int fd)
{
    if (*slot >= 0)
        close(*slot);
    *slot = fd;
    if (fd >= 0)
        fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
}

/* What a server before this one has left in flight is done first. */
static void redo(struct vhost_queue *q, const uint16_t *heads, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        struct vhost_chain c = {.head = heads[i]};

        if (vhost_ring_take(&q->ring, &c) > 0)
            begin(q, &c);
    }
    drain(q);
}

static int make_requests(struct vhost_queue *q)
{
    q->requests = calloc(q->ring.num, sizeof(*q->requests));
    if (!q->requests)
        return -ENOMEM;
    for (unsigned i = 0; i < q->ring.num; i++) {
        struct vhost_request *r = &q->requests[i];

        r->disk = &q->shared->disk;
        r->zq = q->zq;
        r->answer = answered;
        r->arg = q;
    }
    return 0;
}

int vhost_queue_start(struct vhost_queue *q)
{
    uint16_t heads[VHOST_RING_MAX];
    unsigned left;
    int rc;

    if (q->ready)
        return 0;
    q->ring.memory = &q->shared->memory;
    rc = q->has_addr ? vhost_ring_map(&q->ring, &q->addr) : -EINVAL;
    if (rc == 0)
        rc = make_requests(q);
    if (rc < 0)
        return rc;
    q->ring.event_idx = vhost_disk_has(&q->shared->disk, VIRTIO_F_EVENT_IDX);
    q->ring.indirect = vhost_disk_has(&q->shared->disk, VIRTIO_F_INDIRECT_DESC);
    q->ring.used_idx = q->ring.signalled = vhost_ring_used(&q->ring);
    q->ring.looked = false;
    q->ring.broken = NULL;
    q->logged = false;
    left = vhost_track_begin(&q->track, &q->shared->inflight, q->index, &q->ring, heads);
    q->ready = true;
    redo(q, heads, left);
    return 0;
}

void vhost_queue_stop(struct vhost_queue *q)
{
    q->ready = false;
    q->track = (struct vhost_track){0};
    free(q->requests);
    q->requests = NULL;
    vhost_queue_set_fd(&q->kick, -1);
    vhost_queue_set_fd(&q->call, -1);
}

void vhost_queue_remap(struct vhost_queue *q)
{
    if (q->ready && vhost_ring_map(&q->ring, &q->addr) < 0)
        vhost_queue_stop(q);
}

/* ---- life and end ---- */

static int open_zq(struct vhost_queue *q)
{
    int rc = zqcow2_queue_open(q->shared->disk.img, VHOST_RING_MAX, &q->zq);

    if (rc < 0)
        return rc;
    rc = zqcow2_queue_fd(q->zq);
    if (rc < 0)
        zqcow2_queue_close(q->zq);
    return rc < 0 ? rc : 0;
}

int vhost_queue_open(struct vhost_queue *q)
{
    int rc;

    q->kick = q->call = q->err = -1;
    q->pause = true;
    q->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (q->wake < 0)
        return -errno;
    rc = open_zq(q);
    if (rc == 0) {
        pthread_mutex_init(&q->lock, NULL);
        pthread_cond_init(&q->changed, NULL);
        rc = -pthread_create(&q->thread, NULL, run, q);
        if (rc == 0)
            return 0;
        zqcow2_queue_close(q->zq);
    }
    close(q->wake);
    return rc;
}

int vhost_queue_close(struct vhost_queue *q)
{
    vhost_queue_stop(q);
    vhost_queue_set_fd(&q->err, -1);
    order(q, false, true);
    pthread_join(q->thread, NULL);
    pthread_cond_destroy(&q->changed);
    pthread_mutex_destroy(&q->lock);
    close(q->wake);
    return zqcow2_queue_close(q->zq);
}
