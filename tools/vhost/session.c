/* SPDX-License-Identifier: MIT */
/* One front-end on its connection: each message changes rings, memory or features. */
#include "vhost/session.h"

#include <endian.h>
#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <unistd.h>

#include "vhost/message.h"

#define NO_REPLY UINT32_MAX

/* What a message is answered with, if it has a reply of its own. */
struct reply {
    uint32_t size; /* of the payload, which is that of the message; NO_REPLY: none of its own */
    int fd;        /* owned by the caller; -1: none */
};

/* 0, or why it fails. Descriptors that it leaves are closed. */
typedef int handler(struct vhost_session *s, struct vhost_message *m, struct reply *r);

/* ---- all queues, one queue ---- */

static void pause_all(struct vhost_session *s)
{
    for (unsigned i = 0; i < s->shared->disk.queues; i++)
        vhost_queue_pause(&s->queues[i]);
}

static void resume_all(struct vhost_session *s)
{
    for (unsigned i = 0; i < s->shared->disk.queues; i++)
        vhost_queue_resume(&s->queues[i]);
}

/* Paused; NULL: there is none. */
static struct vhost_queue *pause_one(struct vhost_session *s, uint64_t index)
{
    if (index >= s->shared->disk.queues)
        return NULL;
    vhost_queue_pause(&s->queues[index]);
    return &s->queues[index];
}

/* ---- features ---- */

static int get_features(struct vhost_session *s, struct vhost_message *m, struct reply *r)
{
    m->payload.u64 = vhost_disk_features(&s->shared->disk);
    r->size = sizeof(m->payload.u64);
    return 0;
}

/* Firmware accepts a few of them, and knows no zones; the system behind it comes with its own. */
static int set_features(struct vhost_session *s, struct vhost_message *m, struct reply *r)
{
    (void)r;
    if (m->payload.u64 & ~vhost_disk_features(&s->shared->disk))
        return -EINVAL;
    pause_all(s);
    s->shared->disk.acked = m->payload.u64;
    for (unsigned i = 0; i < s->shared->disk.queues; i++) {
        if (!vhost_disk_has(&s->shared->disk, VHOST_F_PROTOCOL_FEATURES))
            s->queues[i].enabled = true;
    }
    resume_all(s);
    return 0;
}

static int get_protocol_features(struct vhost_session *s, struct vhost_message *m, struct reply *r)
{
    m->payload.u64 = vhost_disk_protocol(&s->shared->disk);
    r->size = sizeof(m->payload.u64);
    return 0;
}

static int set_protocol_features(struct vhost_session *s, struct vhost_message *m, struct reply *r)
{
    (void)r;
    if (m->payload.u64 & ~vhost_disk_protocol(&s->shared->disk))
        return -EINVAL;
    s->protocol = m->payload.u64;
    return 0;
}

static int set_owner(struct vhost_session *s, struct vhost_message *m, struct reply *r)
{
    (void)s;
    (void)m;
    (void)r;
    return 0;
}

static int get_queue_num(struct vhost_session *s, struct vhost_message *m, struct reply *r)
{
    m->payload.u64 = s->shared->disk.queues;
    r->size = sizeof(m->payload.u64);
    return 0;
}

/* The memory and the connection stay. */
static int reset_device(struct vhost_session *s, struct vhost_message *m, struct reply *r)
{
    (void)m;
    (void)r;
    pause_all(s);
    for (unsigned i = 0; i < s->shared->disk.queues; i++) {
        vhost_queue_stop(&s->queues[i]);
        s->queues[i].enabled = false;
        s->queues[i].has_addr = false;
    }
    s->shared->disk.acked = 0;
    resume_all(s);
    return 0;
}

/* ---- memory ---- */

static void remap_all(struct vhost_session *s)
{
    for (unsigned i = 0; i < s->shared->disk.queues; i++)
        vhost_queue_remap(&s->queues[i]);
}

/* One descriptor each, in their order. */
static int set_mem_table(struct vhost_session *s, struct vhost_message *m, struct reply *r)
{
    const struct vhost_mem_table *t = &m->payload.table;
    int rc = 0;

    (void)r;
    if (t->n > VHOST_TABLE_REGIONS || t->n != m->fds ||
        m->head.size < offsetof(struct vhost_mem_table, region) + t->n * sizeof(t->region[0]))
        return -EINVAL;
    pause_all(s);
    vhost_memory_clear(&s->shared->memory);
    for (unsigned i = 0; i < t->n && rc == 0; i++)
        rc = vhost_memory_add(&s->shared->memory, &t->region[i], m->fd[i]);
    remap_all(s);
    resume_all(s);
    return rc;
}

static int get_max_mem_slots(struct vhost_session *s, struct vhost_message *m, struct reply *r)
{
    (void)s;
    m->payload.u64 = VHOST_SLOTS;
    r->size = sizeof(m->payload.u64);
    return 0;
}

static int change_memory(struct vhost_session *s, struct vhost_message *m, struct reply *r)
{
    const struct vhost_mem_region *region = &m->payload.memory.region;
    int rc;

    (void)r;
    pause_all(s);
    rc = m->head.request == VHOST_ADD_MEM_REG ?
             vhost_memory_add(&s->shared->memory, region, m->fds ? m->fd[0] : -1) :
             vhost_memory_remove(&s->shared->memory, region);
    remap_all(s);
    resume_all(s);
    return rc;
}

/* ---- rings ---- */

static int set_ring(struct vhost_queue *q, const struct vhost_message *m)
{
    uint32_t num = m->payload.state.num;

    switch (m->head.request) {
    case VHOST_SET_VRING_NUM:
        if (q->ready || !num || num > VHOST_RING_MAX || num & (num - 1))
            return -EINVAL;
        q->ring.num = (uint16_t)num;
        return 0;
    case VHOST_SET_VRING_BASE:
        if (q->ready || num > UINT16_MAX)
            return -EINVAL;
        q->ring.last_avail = (uint16_t)num;
        return 0;
    default:
        if (num > 1)
            return -EINVAL;
        q->enabled = num;
        return 0;
    }
}

static int set_vring_state(struct vhost_session *s, struct vhost_message *m, struct reply *r)
{
    struct vhost_queue *q = pause_one(s, m->payload.state.index);
    int rc = q ? set_ring(q, m) : -EINVAL;

    (void)r;
    if (q)
        vhost_queue_resume(q);
    return rc;
}

/* Only looked up when the ring starts: the memory may come later. */
static int set_vring_addr(struct vhost_session *s, struct vhost_message *m, struct reply *r)
{
    struct vhost_queue *q = pause_one(s, m->payload.addr.index);
    int rc = q && !m->payload.addr.flags ? 0 : -EINVAL;

    (void)r;
    if (!q)
        return rc;
    if (rc == 0) {
        q->addr = m->payload.addr;
        q->has_addr = true;
        vhost_queue_remap(q);
    }
    vhost_queue_resume(q);
    return rc;
}

static int get_vring_base(struct vhost_session *s, struct vhost_message *m, struct reply *r)
{
    struct vhost_queue *q = pause_one(s, m->payload.state.index);

    if (!q)
        return -EINVAL;
    m->payload.state.num = q->ring.last_avail;
    r->size = sizeof(m->payload.state);
    vhost_queue_stop(q);
    vhost_queue_resume(q);
    return 0;
}

/* A ring starts with its descriptor for kicks. A new one for calls is signalled, in case the guest
 * waits for one that the old descriptor has swallowed. */
static int put_fd(struct vhost_session *s, struct vhost_queue *q, uint32_t request, int fd)
{
    static const uint64_t one = 1;

    if (request == VHOST_SET_VRING_CALL) {
        vhost_queue_set_fd(&q->call, fd);
        if (fd >= 0 && q->ready && write(fd, &one, sizeof(one)) < 0)
            return 0; /* EAGAIN: it is signalled already */
        return 0;
    }
    if (request == VHOST_SET_VRING_ERR) {
        vhost_queue_set_fd(&q->err, fd);
        return 0;
    }
    vhost_queue_set_fd(&q->kick, fd);
    if (!vhost_disk_has(&s->shared->disk, VIRTIO_F_VERSION_1))
        return -EINVAL;
    return vhost_queue_start(q);
}

static int set_vring_fd(struct vhost_session *s, struct vhost_message *m, struct reply *r)
{
    bool none = m->payload.u64 & VHOST_NO_FD;
    struct vhost_queue *q = pause_one(s, m->payload.u64 & VHOST_RING_MASK);
    int rc = -EINVAL;

    (void)r;
    if (q && none == !m->fds)
        rc = put_fd(s, q, m->head.request, vhost_take_fd(m, 0));
    if (q)
        vhost_queue_resume(q);
    return rc;
}

/* ---- config space ---- */

static bool bad_config(const struct vhost_message *m)
{
    const struct vhost_config *c = &m->payload.config;

    return c->size > VHOST_CONFIG_MAX || c->offset > VHOST_CONFIG_MAX - c->size ||
           m->head.size != offsetof(struct vhost_config, data) + c->size;
}

static void fill_config(const struct vhost_session *s, uint8_t *all)
{
    struct blk_config c;

    memset(all, 0, VHOST_CONFIG_MAX);
    vhost_disk_config(&s->shared->disk, &c);
    memcpy(all, &c, sizeof(c));
}

/* A reply without payload says that there is none. */
static int get_config(struct vhost_session *s, struct vhost_message *m, struct reply *r)
{
    uint8_t all[VHOST_CONFIG_MAX];

    r->size = 0;
    if (bad_config(m))
        return 0;
    fill_config(s, all);
    memcpy(m->payload.config.data, all + m->payload.config.offset, m->payload.config.size);
    r->size = m->head.size;
    return 0;
}

/* Nothing in it can be written; a driver may write back all that it has read. */
static int set_config(struct vhost_session *s, struct vhost_message *m, struct reply *r)
{
    uint8_t all[VHOST_CONFIG_MAX];

    (void)r;
    if (bad_config(m))
        return -EINVAL;
    fill_config(s, all);
    all[offsetof(struct blk_config, wce)] = 0;
    if (m->payload.config.offset <= offsetof(struct blk_config, wce) &&
        m->payload.config.offset + m->payload.config.size > offsetof(struct blk_config, wce))
        m->payload.config.data[offsetof(struct blk_config, wce) - m->payload.config.offset] = 0;
    return memcmp(all + m->payload.config.offset, m->payload.config.data, m->payload.config.size) ?
               -EINVAL :
               0;
}

/* ---- what is in flight ---- */

static int get_inflight(struct vhost_session *s, struct vhost_message *m, struct reply *r)
{
    r->size = m->head.size;
    r->fd = m->head.size < VHOST_INFLIGHT_SHORT ?
                -EINVAL :
                vhost_inflight_make(&s->shared->inflight, &m->payload.inflight);
    if (r->fd < 0)
        m->payload.inflight.size = 0;
    return 0;
}

/* What a server before has answered, and lost with its memory, comes to light here. */
static int map_inflight(struct vhost_session *s, struct vhost_message *m)
{
    int rc = vhost_inflight_map(&s->shared->inflight, &m->payload.inflight, m->fds ? m->fd[0] : -1);

    if (rc == 0 && vhost_inflight_lacks_flush(&s->shared->inflight)) {
        s->shared->disk.lost = true;
        serve_image_log(s->shared->image, ZQCOW2_LOG_WARN,
                        "a server before this one has died with data that was not flushed: the "
                        "next flush fails");
    }
    return rc;
}

static int set_inflight(struct vhost_session *s, struct vhost_message *m, struct reply *r)
{
    (void)r;
    for (unsigned i = 0; i < s->shared->disk.queues; i++) {
        if (s->queues[i].ready)
            return -EBUSY;
    }
    return m->head.size < VHOST_INFLIGHT_SHORT ? -EINVAL : map_inflight(s, m);
}

static void set_backend(struct vhost_session *s, int fd)
{
    pthread_mutex_lock(&s->shared->lock);
    vhost_queue_set_fd(&s->shared->backend_fd, fd);
    s->shared->wants_config = s->protocol >> VHOST_PROTOCOL_CONFIG & 1;
    pthread_mutex_unlock(&s->shared->lock);
}

void vhost_session_changed(struct vhost_shared *shared)
{
    pthread_mutex_lock(&shared->lock);
    if (shared->backend_fd >= 0 && shared->wants_config)
        (void)vhost_tell(shared->backend_fd, VHOST_BACKEND_CONFIG_CHANGE);
    pthread_mutex_unlock(&shared->lock);
}

static int set_backend_fd(struct vhost_session *s, struct vhost_message *m, struct reply *r)
{
    (void)r;
    if (!m->fds)
        return -EINVAL;
    set_backend(s, vhost_take_fd(m, 0));
    return 0;
}

/* ---- messages ---- */

static const struct kind {
    handler *handle;
    uint32_t size;    /* of the payload, at least */
    uint32_t feature; /* of the protocol, that it belongs to; NONE */
} kinds[] = {
#define NONE 64u
    [VHOST_GET_FEATURES] = {get_features, 0, NONE},
    [VHOST_SET_FEATURES] = {set_features, 8, NONE},
    [VHOST_SET_OWNER] = {set_owner, 0, NONE},
    [VHOST_RESET_OWNER] = {reset_device, 0, NONE},
    [VHOST_SET_MEM_TABLE] = {set_mem_table, 8, NONE},
    [VHOST_SET_VRING_NUM] = {set_vring_state, 8, NONE},
    [VHOST_SET_VRING_ADDR] = {set_vring_addr, 40, NONE},
    [VHOST_SET_VRING_BASE] = {set_vring_state, 8, NONE},
    [VHOST_GET_VRING_BASE] = {get_vring_base, 8, NONE},
    [VHOST_SET_VRING_KICK] = {set_vring_fd, 8, NONE},
    [VHOST_SET_VRING_CALL] = {set_vring_fd, 8, NONE},
    [VHOST_SET_VRING_ERR] = {set_vring_fd, 8, NONE},
    [VHOST_GET_PROTOCOL_FEATURES] = {get_protocol_features, 0, NONE},
    [VHOST_SET_PROTOCOL_FEATURES] = {set_protocol_features, 8, NONE},
    [VHOST_GET_QUEUE_NUM] = {get_queue_num, 0, VHOST_PROTOCOL_MQ},
    [VHOST_SET_VRING_ENABLE] = {set_vring_state, 8, NONE},
    [VHOST_SET_BACKEND_REQ_FD] = {set_backend_fd, 0, VHOST_PROTOCOL_BACKEND_REQ},
    [VHOST_GET_CONFIG] = {get_config, 12, VHOST_PROTOCOL_CONFIG},
    [VHOST_SET_CONFIG] = {set_config, 12, VHOST_PROTOCOL_CONFIG},
    [VHOST_GET_INFLIGHT_FD] = {get_inflight, 0, VHOST_PROTOCOL_INFLIGHT_SHMFD},
    [VHOST_SET_INFLIGHT_FD] = {set_inflight, 0, VHOST_PROTOCOL_INFLIGHT_SHMFD},
    [VHOST_RESET_DEVICE] = {reset_device, 0, VHOST_PROTOCOL_RESET_DEVICE},
    [VHOST_GET_MAX_MEM_SLOTS] = {get_max_mem_slots, 0, VHOST_PROTOCOL_MEM_SLOTS},
    [VHOST_ADD_MEM_REG] = {change_memory, 40, VHOST_PROTOCOL_MEM_SLOTS},
    [VHOST_REM_MEM_REG] = {change_memory, 40, VHOST_PROTOCOL_MEM_SLOTS},
};

static int dispatch(struct vhost_session *s, struct vhost_message *m, struct reply *r)
{
    const struct kind *k;

    if (m->head.request >= sizeof(kinds) / sizeof(kinds[0]) || !kinds[m->head.request].handle)
        return -EPROTO;
    k = &kinds[m->head.request];
    if (m->head.size < k->size || (k->feature != NONE && !(s->protocol >> k->feature & 1)))
        return -EPROTO;
    return k->handle(s, m, r);
}

/* A failure that cannot be answered ends the connection: the front-end must not go on unaware. */
static int answer(struct vhost_session *s, struct vhost_message *m, int rc, const struct reply *r)
{
    bool ack = m->head.flags & VHOST_NEED_REPLY && s->protocol >> VHOST_PROTOCOL_REPLY_ACK & 1;

    if (rc == 0 && r->size != NO_REPLY)
        return vhost_reply(s->sock, m, r->size, r->fd);
    if (!ack)
        return rc;
    m->payload.u64 = rc < 0;
    return vhost_reply(s->sock, m, sizeof(m->payload.u64), -1);
}

static int step(struct vhost_session *s)
{
    struct vhost_message m;
    struct reply r = {NO_REPLY, -1};
    int rc = vhost_receive(s->sock, s->stop_fd, &m);

    if (rc <= 0)
        return rc;
    rc = answer(s, &m, dispatch(s, &m, &r), &r);
    if (r.fd >= 0)
        close(r.fd);
    vhost_close_fds(&m);
    return rc < 0 ? rc : 1;
}

static void end(struct vhost_session *s)
{
    pause_all(s);
    for (unsigned i = 0; i < s->shared->disk.queues; i++) {
        vhost_queue_stop(&s->queues[i]);
        vhost_queue_set_fd(&s->queues[i].err, -1);
        s->queues[i].enabled = s->queues[i].has_addr = false;
        s->queues[i].ring.num = s->queues[i].ring.last_avail = 0;
    }
    vhost_memory_clear(&s->shared->memory);
    /* Another server may go on from here, and this one ends well. */
    if (s->shared->inflight.map && !s->shared->disk.lost && zqcow2_flush(s->shared->disk.img) == 0)
        vhost_inflight_flushed(&s->shared->inflight, vhost_inflight_seen(&s->shared->inflight));
    s->shared->disk.lost = false;
    vhost_inflight_close(&s->shared->inflight);
    set_backend(s, -1);
    s->shared->disk.acked = 0;
}

/* The queues are paused before and behind it. */
int vhost_session_run(struct vhost_session *s)
{
    int rc;

    s->protocol = 0;
    resume_all(s);
    do {
        rc = step(s);
    } while (rc > 0);
    end(s);
    return rc;
}
