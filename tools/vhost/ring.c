/* SPDX-License-Identifier: MIT */
/* A split virtqueue. */
#include "vhost/ring.h"

#include <endian.h>
#include <errno.h>
#include <string.h>

#define INDIRECT_MAX 1024u /* entries of a table */

/* ---- what both sides see ---- */

static uint16_t load(const volatile uint16_t *p)
{
    return le16toh(__atomic_load_n(p, __ATOMIC_ACQUIRE));
}

static void store(volatile uint16_t *p, uint16_t v)
{
    __atomic_store_n(p, htole16(v), __ATOMIC_RELEASE);
}

static volatile uint16_t *used_flags(const struct vhost_ring *r)
{
    return (volatile uint16_t *)(volatile void *)r->used;
}

static volatile struct vring_used_entry *used_entry(const struct vhost_ring *r, uint16_t i)
{
    return (volatile struct vring_used_entry *)(volatile void *)(r->used + 4) + i % r->num;
}

/* The guest looks at it: a kick is wanted when this entry becomes available. */
static volatile uint16_t *avail_event(const struct vhost_ring *r)
{
    return (volatile uint16_t *)(volatile void *)(r->used + 4 + 8u * r->num);
}

uint16_t vhost_ring_used(const struct vhost_ring *r)
{
    return load(used_flags(r) + 1);
}

int vhost_ring_map(struct vhost_ring *r, const struct vhost_addr *a)
{
    uint64_t n = r->num;
    uint8_t *desc = vhost_memory_user(r->memory, a->desc, 16 * n);
    uint8_t *avail = vhost_memory_user(r->memory, a->avail, 6 + 2 * n);
    uint8_t *used = vhost_memory_user(r->memory, a->used, 6 + 8 * n);

    if (!n || !desc || !avail || !used || (uintptr_t)desc % 16 || (uintptr_t)avail % 2 ||
        (uintptr_t)used % 4)
        return -EINVAL;
    r->desc = (volatile struct vring_entry *)(void *)desc;
    r->avail = (volatile uint16_t *)(void *)avail;
    r->used = used;
    return 0;
}

/* ---- chains ---- */

static int broken(struct vhost_ring *r, const char *why)
{
    r->broken = why;
    return -1;
}

static void decode(struct vring_entry *d)
{
    d->addr = le64toh(d->addr);
    d->len = le32toh(d->len);
    d->flags = le16toh(d->flags);
    d->next = le16toh(d->next);
}

static struct vring_entry read_direct(const struct vhost_ring *r, uint16_t i)
{
    volatile struct vring_entry *from = &r->desc[i];
    struct vring_entry d = {from->addr, from->len, from->flags, from->next};

    decode(&d);
    return d;
}

/* An entry of a table may lie in two regions. */
static bool read_indirect(const struct vhost_ring *r, uint64_t table, uint16_t i,
                          struct vring_entry *d)
{
    uint8_t *to = (uint8_t *)d, *from;
    uint64_t at = table + 16u * i, left = sizeof(*d);

    while (left) {
        uint64_t n = vhost_memory_guest(r->memory, at, left, &from);

        if (!n)
            return false;
        memcpy(to, from, (size_t)n);
        to += n;
        at += n;
        left -= n;
    }
    decode(d);
    return true;
}

static bool add_piece(struct vhost_chain *c, uint8_t *at, uint64_t n, bool writable)
{
    uint32_t i = c->out + c->in;

    if (i == VHOST_PIECES)
        return false;
    c->iov[i] = (struct iovec){at, (size_t)n};
    c->out += !writable;
    c->in += writable;
    c->out_bytes += writable ? 0 : n;
    c->in_bytes += writable ? n : 0;
    return true;
}

static int add_buffer(struct vhost_ring *r, struct vhost_chain *c, const struct vring_entry *d)
{
    bool writable = d->flags & VRING_WRITE;
    uint64_t done = 0;

    if (!writable && c->in)
        return broken(r, "a readable descriptor behind a writable one");
    if (d->addr + d->len < d->addr)
        return broken(r, "a buffer beyond the end of memory");
    while (done < d->len) {
        uint8_t *at = NULL;
        uint64_t n = vhost_memory_guest(r->memory, d->addr + done, d->len - done, &at);

        if (!n)
            return broken(r, "a buffer outside of memory");
        if (!add_piece(c, at, n, writable))
            return broken(r, "a request with too many descriptors");
        done += n;
    }
    return 0;
}

static int walk_indirect(struct vhost_ring *r, struct vhost_chain *c, const struct vring_entry *to)
{
    uint32_t n = to->len / 16, i = 0;

    if (!r->indirect || to->flags & VRING_NEXT || !n || to->len % 16 || n > INDIRECT_MAX ||
        to->addr + to->len < to->addr)
        return broken(r, "an indirect table that cannot be");
    for (uint32_t steps = 0; steps < n; steps++) {
        struct vring_entry d;

        if (!read_indirect(r, to->addr, (uint16_t)i, &d))
            return broken(r, "an indirect table outside of memory");
        if (d.flags & VRING_INDIRECT)
            return broken(r, "an indirect table in another");
        if (add_buffer(r, c, &d) < 0)
            return -1;
        if (!(d.flags & VRING_NEXT))
            return 1;
        i = d.next;
        if (i >= n)
            return broken(r, "a descriptor outside of its table");
    }
    return broken(r, "a chain that is a loop");
}

static int walk(struct vhost_ring *r, struct vhost_chain *c)
{
    uint16_t i = c->head;

    c->out = c->in = 0;
    c->out_bytes = c->in_bytes = 0;
    for (uint16_t steps = 0; steps < r->num; steps++) {
        struct vring_entry d = read_direct(r, i);

        if (d.flags & VRING_INDIRECT)
            return walk_indirect(r, c, &d);
        if (add_buffer(r, c, &d) < 0)
            return -1;
        if (!(d.flags & VRING_NEXT))
            return 1;
        i = d.next;
        if (i >= r->num)
            return broken(r, "a descriptor outside of the ring");
    }
    return broken(r, "a chain that is a loop");
}

int vhost_ring_take(struct vhost_ring *r, struct vhost_chain *c)
{
    if (r->broken)
        return -1;
    return c->head < r->num ? walk(r, c) : broken(r, "a head outside of the ring");
}

int vhost_ring_pop(struct vhost_ring *r, struct vhost_chain *c)
{
    uint16_t waiting = r->broken ? 0 : (uint16_t)(load(r->avail + 1) - r->last_avail);

    if (r->broken)
        return -1;
    if (!waiting)
        return 0;
    if (waiting > r->num)
        return broken(r, "more available entries than the ring has");
    c->head = le16toh(r->avail[2 + r->last_avail % r->num]);
    r->last_avail++;
    return vhost_ring_take(r, c);
}

/* ---- back to the guest ---- */

void vhost_ring_push(struct vhost_ring *r, uint16_t head, uint32_t written)
{
    volatile struct vring_used_entry *e = used_entry(r, r->used_idx);

    e->id = htole32(head);
    e->len = htole32(written);
    store(used_flags(r) + 1, ++r->used_idx);
}

bool vhost_ring_wants_call(struct vhost_ring *r)
{
    uint16_t old = r->signalled, now = r->used_idx, event;
    bool first = !r->looked;

    if (now == old)
        return false;
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    r->signalled = now;
    r->looked = true;
    if (!r->event_idx)
        return !(load(r->avail) & VRING_NO_INTERRUPT);
    event = load(r->avail + 2 + r->num);
    return first || (uint16_t)(now - event - 1) < (uint16_t)(now - old);
}

bool vhost_ring_rest(struct vhost_ring *r)
{
    if (r->event_idx)
        store(avail_event(r), r->last_avail);
    else
        store(used_flags(r), 0);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    return load(r->avail + 1) != r->last_avail;
}

/* With event indexes the old one, which lies behind, does that. */
void vhost_ring_busy(struct vhost_ring *r)
{
    if (!r->event_idx)
        store(used_flags(r), VRING_NO_NOTIFY);
}
