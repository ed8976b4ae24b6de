/* SPDX-License-Identifier: MIT */
/* Events that follow from a result, or from a change of the whole image. */
#include <errno.h>
#include "ops/note.h"

static bool is_write(const struct zq_op *op)
{
    return op->req.op == ZQCOW2_OP_WRITE || op->req.op == ZQCOW2_OP_APPEND ||
           op->req.op == ZQCOW2_OP_WRITE_ZEROES || op->req.op == ZQCOW2_OP_DISCARD;
}

/* The caller's own mistakes, and what the image cannot do at all, are no news. */
static bool is_news(int rc)
{
    return rc > -4096 && rc != -EINVAL && rc != -ENOMEM && rc != -EROFS && rc != -EOPNOTSUPP &&
           rc != -ECANCELED;
}

void zq_note_failure(struct zq_core *c, const struct zq_op *op, int rc)
{
    struct zqcow2_event event = {.kind = ZQCOW2_EVENT_WRITE_ERROR,
                                 .error = rc,
                                 .offset = op->req.offset,
                                 .length = op->length};

    if (zq_is_no_space(rc)) {
        zq_event_space(&c->events, rc);
    } else if (rc == ZQCOW2_EZONE_OPEN || rc == ZQCOW2_EZONE_ACTIVE) {
        event.kind = ZQCOW2_EVENT_LIMIT;
        event.offset = op->res.offset;
        event.length = 0;
        zq_event_add(&c->events, &event);
    } else if (is_write(op) && is_news(rc)) {
        zq_event_add(&c->events, &event);
    }
}

/* A read needs no space, and what was refused before it reached the host shows none. */
void zq_note_success(struct zq_core *c, const struct zq_op *op)
{
    if (op->req.op == ZQCOW2_OP_FLUSH || (is_write(op) && op->length))
        zq_event_space(&c->events, 0);
}

void zq_note_all_zones(struct zq_core *c)
{
    const struct zqcow2_event event = {.kind = ZQCOW2_EVENT_ZONES_CHANGED};

    if (zq_changes_all(&c->changes))
        zq_event_add(&c->events, &event);
}
