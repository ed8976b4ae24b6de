/* SPDX-License-Identifier: MIT */
/*
 * Opens the chain of sources below an image (S1, S2). What an image names is opened by the caller's
 * resolver only, read as the format that is named and no other, and checked like any image. The
 * bytes of a raw file may have been written by a guest: guessing a format would let it name files.
 */
#include <errno.h>
#include <inttypes.h>
#include "base/depth.h"
#include "base/report.h"
#include "image/opening.h"

#define CACHE_BYTES (1u << 20) /* of each source */
#define CACHE_SHARE 8u         /* of it that a source gets, where the caller has set a size */

/* Stored, or else given by the caller for the image itself. */
static const char *format_of(const struct opening *o, const struct zqcow2_backing *b,
                             uint32_t depth)
{
    if (b->format[0] || depth > 1 || !o->opt.backing_format)
        return b->format;
    return o->opt.backing_format;
}

/* The stored bytes may be anything: they are made printable before they get into a message. */
static int check_format(const struct opening *o, const char *format)
{
    char text[16];

    if (!format[0])
        return zq_fail(o->err, ZQCOW2_EFEATURE,
                       "its format is not stored: open with backing_format (the command: "
                       "--backing-format=raw|qcow2)");
    if (zq_format_is_known(format))
        return 0;
    zq_printable(text, sizeof(text), format, strlen(format));
    return zq_fail(o->err, ZQCOW2_EFEATURE, "format \"%s\" is not supported", text);
}

int zq_opening_format(const struct opening *o, const struct zqcow2_backing *b, uint32_t depth,
                      const char **format)
{
    *format = format_of(o, b, depth);
    return check_format(o, *format);
}

int zq_opening_resolve(const struct opening *o, const struct zqcow2_backing *b, uint32_t depth,
                       struct zqcow2_backend **be)
{
    const char *format;
    int rc = zq_opening_format(o, b, depth, &format);

    if (rc == 0 && depth > ZQ_MAX_DEPTH)
        rc = zq_fail(o->err, ZQCOW2_EFEATURE, ZQ_TOO_DEEP);
    return rc < 0 ? rc : zq_opening_named(o, b->name, format, depth, be);
}

int zq_opening_raw_size(struct zqcow2_backend *be, uint64_t *size)
{
    uint64_t bytes;
    int rc = zq_be_length(be, &bytes);

    *size = rc < 0 ? 0 : zq_align_up(bytes, ZQ_SECTOR);
    return rc;
}

/* Whole zones at the end may be missing, and the last one may be short where it has grown (G2). */
int zq_opening_same_zones(const struct opening *top, const struct opening *o)
{
    const struct zq_geometry *a = &top->g, *b = &o->g;
    const char *what = NULL;

    if (!a->layout && b->layout)
        return zq_fail(o->err, ZQCOW2_EFEATURE, "it has zones, but the image above it has none");
    if (a->layout && !b->layout)
        return zq_fail(o->err, ZQCOW2_EFEATURE, "it has no zones, but the image above it has");
    if (!a->layout)
        return 0;
    if (b->zone_size != a->zone_size)
        what = "zone size";
    else if (b->capacity != a->capacity)
        what = "zone capacity";
    else if (b->conventional != a->conventional)
        what = "number of conventional zones";
    else if (b->device_size > a->device_size ||
             (a->device_size != b->device_size && a->device_size & (a->zone_size - 1)))
        what = "size";
    return what ? zq_fail(o->err, ZQCOW2_EFEATURE, "its %s is not that of the image above", what) :
                  0;
}

static int open_raw(const struct opening *top, struct zq_source *s)
{
    if (top->g.layout)
        return zq_fail(top->err, ZQCOW2_EFEATURE, "it has no zones, but the image above it has");
    s->raw = true;
    return zq_opening_raw_size(s->x.be, &s->size);
}

/*
 * Another opening, always for reading and without a core: a source has the parts that find clusters
 * and no operations. It passes the same checks as an image. *b: what it names in turn.
 */
static int open_qcow2(const struct opening *top, struct zq_core *c, struct zq_source *s,
                      struct zqcow2_backing *b)
{
    struct opening o = {
        .be = s->x.be, .opt = ZQCOW2_OPEN_OPTIONS_INIT, .err = top->err, .hooks = top->hooks};
    const struct zq_parts parts = {
        .x = &s->x,
        .cache = &s->cache,
        .alloc = &s->alloc,
        .map = &s->map,
        .cache_bytes = top->opt.cache_bytes ? top->opt.cache_bytes / CACHE_SHARE : CACHE_BYTES};
    int rc = zq_opening_header(&o);

    if (rc == 0)
        rc = zq_opening_same_zones(top, &o);
    if (rc == 0 && o.g.layout)
        rc = zq_opening_pointers(&o, &s->pointers);
    s->g = o.g;
    if (rc < 0)
        return rc;
    s->size = o.h.virtual_size;
    s->compression = o.h.compression_type;
    *b = o.backing;
    rc = zq_opening_tables(&o, &parts);
    if (rc < 0 || !zq_opening_has_data_file(&o))
        return rc;
    o.be = top->be;
    o.opt = top->opt;
    o.opt.flags &= ~(uint32_t)ZQCOW2_OPEN_RDWR;
    rc = zq_opening_data_file(&o, c, s->depth, &s->data_file);
    if (rc == 0)
        s->data = &s->data_file.x;
    return rc;
}

/*
 * Opens the one that *b names, puts it at *link, and says in *b what it names in turn. It is linked
 * before it is initialised, so that zq_sources_close() finds it whatever fails afterwards.
 */
static int open_one(const struct opening *o, struct zq_core *c, struct zqcow2_backing *b,
                    uint32_t depth, struct zq_source **link)
{
    bool raw = !strcmp(format_of(o, b, depth), "raw");
    struct zqcow2_backend *be;
    struct zq_source *s;
    int rc = zq_opening_resolve(o, b, depth, &be);

    if (rc < 0)
        return rc;
    s = zq_zalloc(&o->hooks, sizeof(*s));
    if (!s) {
        (void)zq_be_leave(be);
        zqcow2_backend_close(be);
        return -ENOMEM;
    }
    *link = s;
    s->depth = depth;
    s->stale = &c->stale;
    s->data = &s->x;
    zq_core_set_iox(c, &s->x, be);
    rc = zq_iox_init(&s->x);
    if (rc == 0 && raw) {
        b->name[0] = '\0';
        rc = open_raw(o, s);
    } else if (rc == 0) {
        rc = open_qcow2(o, c, s, b);
    }
    return rc;
}

/*
 * A chain that names itself ends at ZQ_MAX_DEPTH, whatever the resolver makes of it. above->next
 * links the I/O of the chain, so that the loop finds all that is to be issued.
 */
int zq_opening_sources(struct opening *o, struct zq_core *c)
{
    struct zqcow2_backing b = o->backing, named;
    struct zq_source **link = &c->source;
    struct zq_iox *above = c->data;
    int rc = 0;

    if (!b.name[0])
        return 0;
    c->source_absent = o->layer || o->opt.flags & ZQCOW2_OPEN_NO_BACKING;
    for (uint32_t depth = 1; rc == 0 && b.name[0] && !c->source_absent; depth++) {
        named = b;
        rc = open_one(o, c, &b, depth, link);
        if (rc < 0)
            return zq_opening_blame(o->err, "backing file", named.name, rc);
        if ((*link)->data != &(*link)->x)
            (*link)->x.next = (*link)->data;
        zq_core_lock(c);
        above->next = &(*link)->x;
        zq_core_unlock(c);
        above = (*link)->data;
        link = &(*link)->next;
    }
    return rc;
}
