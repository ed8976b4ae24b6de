/* SPDX-License-Identifier: MIT */
/*
 * Compressed clusters: room for their bytes, and inflating them.
 *
 * One that an entry names is never written again, so several operations may read it side by side;
 * each has buffers of its own, sized by checked values before anything is read.
 */
#include <errno.h>
#include "space/packed.h"
#include "base/report.h"
#include "format/codec.h"

static uint64_t cluster_size(const struct zq_packed *p)
{
    return (uint64_t)1 << p->cluster_bits;
}

static void set_place(struct zq_core *c, struct zq_packed *p, struct zq_source *from)
{
    p->x = from ? &from->x : &c->x;
    p->cluster_bits = from ? from->map.cluster_bits : c->cluster_bits;
    p->compression = from ? from->compression : c->hdr.compression_type;
}

/* What is read are whole blocks of the backend: compressed clusters begin and end anywhere. */
static void find_packed(struct zq_packed *p, const struct zq_l2_entry *l2)
{
    uint64_t align = p->x->be->limits.io_align;

    p->size = l2->len;
    p->skew = l2->host & (align - 1);
    p->host = l2->host - p->skew;
    p->len = zq_align_up(p->skew + p->size, align);
}

void zq_packed_free(struct zq_core *c, struct zq_packed *p)
{
    zq_free(&c->hooks, p->out, p->out_room);
    zq_free(&c->hooks, p->in, p->in_room);
    p->in = p->out = NULL;
}

/* in may be 0: an ordinary cluster that is only kept needs no packed bytes. */
int zq_packed_room(struct zq_core *c, struct zq_packed *p, uint64_t in, uint64_t out)
{
    p->in_room = in;
    p->out_room = out;
    p->out = zq_alloc(&c->hooks, 4096, out);
    p->in = zq_alloc(&c->hooks, 4096, in);
    if (p->out && (p->in || !in))
        return 0;
    zq_packed_free(c, p);
    return -ENOMEM;
}

void zq_packed_find(struct zq_core *c, struct zq_packed *p, struct zq_source *from,
                    const struct zq_l2_entry *l2)
{
    set_place(c, p, from);
    p->len = 0;
    if (l2->type == ZQ_EXT_COMPRESSED)
        find_packed(p, l2);
}

int zq_packed_alloc(struct zq_core *c, struct zq_packed *p, struct zq_source *from,
                    const struct zq_l2_entry *l2)
{
    zq_packed_find(c, p, from, l2);
    return zq_packed_room(c, p, p->len, cluster_size(p));
}

int zq_packed_inflate(struct zq_core *c, const struct zq_packed *p)
{
    zq_assert(p->in && p->out && p->skew + p->size <= p->len && p->len <= p->in_room);
    return zq_decompress(&c->hooks, (enum zq_compression)p->compression, p->in + p->skew,
                         (size_t)p->size, p->out, (size_t)cluster_size(p));
}
