/* SPDX-License-Identifier: MIT */
/*
 * Sources: who answers for a guest range that an image does not map. An image has a chain of them:
 * its backing file, the backing file of that, and so on; where the chain ends, there are zeros.
 *
 * A source is a raw file, or a qcow2 image with a map and a cache of its own. It is open for
 * reading and never changes, so what was found in it stays true. Nothing but this and those who
 * ask zq_walk() know whether an image has one.
 *
 * Below an image with zones all sources have the same zones. One is read through its own write
 * pointer and asked only below it: an image that maps nothing below its pointer, where the source
 * has not been written either, stands on a source that has changed since (S12).
 */
#ifndef ZQ_QCOW2_SOURCE_H
#define ZQ_QCOW2_SOURCE_H

#include "format/zone_ext.h"
#include "qcow2/map.h"

/* The first place that no source can answer for as it should: S12. */
struct zq_stale {
    uint32_t depth; /* of the source that was asked; 0: there is none */
    uint64_t guest;
};

/*
 * The file that has the data of an image or of a source: its own, or a data file (D1). Metadata is
 * always in its own.
 */
struct zq_data_file {
    struct zq_iox x;
    bool opened; /* else there is none, or ... */
    bool absent; /* ... there is one, and it was not to be opened */
    bool raw;    /* it has all of the data, for programs without the image (D1) */
};

/* Ends what the backend was entered and opened for. Also where there is none. */
void zq_data_file_close(struct zq_data_file *d);

struct zq_source {
    struct zq_source *next; /* below this one, or NULL */
    uint32_t depth;         /* 1: the image's own */
    bool raw;
    uint64_t size; /* beyond are zeros, whatever lies below */
    struct zq_iox x;
    struct zq_iox *data; /* of the file that has the data: x, or data_file.x */
    struct zq_data_file data_file;
    struct zq_stale *stale; /* of the image */
    /* not of a raw one */
    uint32_t compression; /* of its compressed clusters */
    struct zq_cache cache;
    struct zq_alloc alloc; /* only says where tables lie */
    struct zq_map map;
    /* with zones */
    struct zq_geometry g;
    uint8_t *pointers; /* the write-pointer table, each entry checked; NULL: no zones */
};

/*
 * How far the question is whose the bytes of a guest range are. Each source that is asked is a step
 * of its own (E2): its gather is over before the next one is asked.
 */
struct zq_walk {
    struct zq_source *at; /* who is asked; at the end, who has the bytes, or NULL: they are zeros */
    uint32_t depth;       /* of the last one that was asked */
    uint64_t guest;
    struct zq_extent e; /* the answer; until then len: how much is asked for */
};

static inline struct zq_walk zq_walk_from(struct zq_source *s, uint64_t guest, uint64_t len)
{
    return (struct zq_walk){s, 0, guest, {.type = ZQ_EXT_UNALLOC, .len = len}};
}
/*
 * Asks down the chain: 0, ZQ_WAIT (then again when the gather is woken), or an error. g holds
 * nothing before, and nothing after, unless it waits.
 */
int zq_walk(struct zq_walk *w, struct zq_gather *g);
/* The same as far as it is known without a wait; false: use zq_walk(). */
bool zq_walk_peek(struct zq_walk *w);
/* Where the zone that holds guest ends for a reader: at the write pointer, or 0: there is none. */
uint64_t zq_source_pointer(const struct zq_source *s, uint64_t guest);
/* The wait has failed: nothing more is asked. */
void zq_walk_drop(struct zq_walk *w, struct zq_gather *g);

/* Frees a source, with what its backend was entered and opened for, and those below it. */
void zq_sources_close(struct zq_source *s);

#endif
