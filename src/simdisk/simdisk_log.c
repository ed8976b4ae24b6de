/* SPDX-License-Identifier: MIT */
/*
 * Changes of a simulated disk, their log; what a position leaves durable and pending (S2, S3).
 *
 * A flush covers the changes that had ended before it began, and no others: one that was still
 * under way may reach the disk or not, as with a real write cache. They become durable in the
 * order in which they began, so that the later of two that overlap wins on disk, too.
 */
#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "simdisk/simdisk_int.h"

struct sim_op *sim_op_new(const struct zqcow2_hooks *h, uint32_t kind, uint64_t off, uint64_t len,
                          bool with_data)
{
    size_t bytes = sizeof(struct sim_op);
    struct sim_op *op;

    if (with_data && __builtin_add_overflow(bytes, len, &bytes))
        return NULL;
    op = zq_alloc(h, _Alignof(max_align_t), bytes);
    if (!op)
        return NULL;
    memset(op, 0, sizeof(*op));
    atomic_init(&op->refs, 1);
    atomic_init(&op->ended, SIM_NEVER);
    op->kind = kind;
    op->offset = off;
    op->length = len;
    op->alloc = bytes;
    return op;
}

/* acq_rel: what other holders have done to the change happens before it is freed. */
void sim_op_put(const struct zqcow2_hooks *h, struct sim_op *op)
{
    if (op && atomic_fetch_sub_explicit(&op->refs, 1, memory_order_acq_rel) == 1)
        zq_free(h, op, op->alloc);
}

static struct sim_op *op_get(struct sim_op *op)
{
    atomic_fetch_add_explicit(&op->refs, 1, memory_order_relaxed);
    return op;
}

/*
 * A truncate is one unit: a file system journals the length. Units are aligned on the disk, so a
 * write that begins within one may have more of them than its length suggests.
 */
uint64_t sim_op_units(const struct sim_op *op, uint32_t atomic)
{
    if (op->kind == ZQCOW2_IO_TRUNCATE || atomic == ZQCOW2_SIMDISK_ATOMIC || !op->length)
        return 1;
    return zq_div_up(op->offset + op->length, atomic) - op->offset / atomic;
}

/* Used for the view, for what becomes durable and for crash images: they cannot differ. */
int sim_op_apply(struct sim_content *c, const struct sim_op *op, uint64_t from, uint64_t to,
                 uint32_t discard)
{
    switch (op->kind) {
    case ZQCOW2_IO_TRUNCATE: return sim_content_truncate(c, op->offset);
    case ZQCOW2_IO_WRITE:
        return sim_content_write(c, op->data + from, to - from, op->offset + from);
    case ZQCOW2_IO_ZERO: return sim_content_write(c, NULL, to - from, op->offset + from);
    case ZQCOW2_IO_DISCARD:
        if (discard == ZQCOW2_SIMDISK_DISCARD_KEEPS)
            return 0;
        return sim_content_write(c,
                                 discard == ZQCOW2_SIMDISK_DISCARD_ZEROS ? NULL : op->data + from,
                                 to - from, op->offset + from);
    default: return 0;
    }
}

/* The hooks are reached through durable.hooks: a state has no other place for them. */
void sim_state_init(struct sim_state *s, const struct zqcow2_hooks *hooks)
{
    *s = (struct sim_state){.pending = NULL};
    sim_content_init(&s->durable, hooks);
}

void sim_state_drop(struct sim_state *s)
{
    const struct zqcow2_hooks *h = s->durable.hooks;

    for (uint32_t i = 0; i < s->n; i++)
        sim_op_put(h, s->pending[i]);
    zq_free(h, s->pending, s->room * sizeof(s->pending[0]));
    sim_content_drop(&s->durable);
    sim_state_init(s, h);
}

/* room > 0. On failure the state is as it was. */
static int set_room(struct sim_state *s, uint32_t room)
{
    const struct zqcow2_hooks *h = s->durable.hooks;
    struct sim_op **p = zq_zalloc_array(h, room, sizeof(*p));

    if (!p)
        return -ENOMEM;
    if (s->n)
        memcpy(p, s->pending, s->n * sizeof(*p));
    zq_free(h, s->pending, s->room * sizeof(*p));
    s->pending = p;
    s->room = room;
    return 0;
}

int sim_state_copy(struct sim_state *to, const struct sim_state *from)
{
    if (from->n && set_room(to, from->n) < 0)
        return -ENOMEM;
    for (uint32_t i = 0; i < from->n; i++)
        to->pending[i] = op_get(from->pending[i]);
    to->n = from->n;
    sim_content_copy(&to->durable, &from->durable);
    return 0;
}

/* Taken before the event is logged: a log and a state that disagree could not be replayed. */
int sim_state_reserve(struct sim_state *s)
{
    return s->n < s->room ? 0 : set_room(s, s->room ? 2 * s->room : 16);
}

/* The order of the others stays: they settle in the order in which they began (S3). */
static void forget(struct sim_state *s, const struct sim_op *op)
{
    uint32_t kept = 0;

    for (uint32_t i = 0; i < s->n; i++) {
        if (s->pending[i] != op)
            s->pending[kept++] = s->pending[i];
        else
            sim_op_put(s->durable.hooks, s->pending[i]);
    }
    s->n = kept;
}

/* A flush ended well: what had ended before it began is durable, in order of beginning. */
static int settle(struct sim_state *s, const struct sim_op *flush, uint32_t discard)
{
    uint32_t kept = 0;
    int rc = 0;

    for (uint32_t i = 0; i < s->n; i++) {
        struct sim_op *op = s->pending[i];

        if (op->ended >= flush->begun) {
            s->pending[kept++] = op;
            continue;
        }
        if (sim_op_apply(&s->durable, op, 0, op->length, discard) < 0)
            rc = -ENOMEM;
        sim_op_put(s->durable.hooks, op);
    }
    s->n = kept;
    return rc;
}

/*
 * Only such a change can be pending: a flush, or a call that failed and did nothing, has nothing to
 * lose.
 */
static bool leaves_trace(const struct sim_op *op)
{
    return op->kind != ZQCOW2_IO_FLUSH && !op->empty;
}

int sim_state_step(struct sim_state *s, enum sim_event_type type, struct sim_op *op,
                   uint32_t discard)
{
    if (type == SIM_BEGIN && leaves_trace(op)) {
        if (sim_state_reserve(s) < 0)
            return -ENOMEM;
        s->pending[s->n++] = op_get(op);
    }
    if (type == SIM_LOST)
        forget(s, op);
    if (type == SIM_END && op->kind == ZQCOW2_IO_FLUSH && op->result == 0)
        return settle(s, op, discard);
    return 0;
}

void sim_log_clear(struct sim_log *l, const struct zqcow2_hooks *hooks)
{
    for (size_t i = 0; i < l->n; i++)
        sim_op_put(hooks, l->events[i].op);
    zq_free(hooks, l->events, l->room * sizeof(l->events[0]));
    l->events = NULL;
    l->n = l->room = 0;
    sim_state_drop(&l->base);
}

/* Doubled: a log has millions of events. */
int sim_log_reserve(struct sim_log *l, const struct zqcow2_hooks *hooks, size_t more)
{
    size_t room = l->room ? l->room : 64;
    struct sim_event *e;

    if (!l->on || l->room - l->n >= more)
        return 0;
    while (room - l->n < more)
        room *= 2;
    e = zq_zalloc_array(hooks, room, sizeof(*e));
    if (!e)
        return -ENOMEM;
    if (l->n)
        memcpy(e, l->events, l->n * sizeof(*e));
    zq_free(hooks, l->events, l->room * sizeof(*e));
    l->events = e;
    l->room = room;
    return 0;
}
