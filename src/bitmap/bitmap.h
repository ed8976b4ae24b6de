/* SPDX-License-Identifier: MIT */
/*
 * The persistent bitmaps of an image: what the directory says, and what was marked since the open.
 *
 * A bitmap that is enabled, and holds, is *kept*: each change of the device is marked in memory
 * before its data is written, and all that is marked goes to the file when the image is closed
 * (B2). Until then the flag "in use" says that the file is behind (B1).
 *
 * Functions here do blocking I/O, or none, and are called under the engine's rules: those that do
 * I/O change nothing that others look at.
 */
#ifndef ZQ_BITMAP_BITMAP_H
#define ZQ_BITMAP_BITMAP_H

#include "bitmap/dirty.h"
#include "device/backend.h"
#include "format/bitmaps.h"
#include "format/entry.h"

#define ZQ_BITMAP_SHOWN    61u                  /* of a name, in a message, with its end */
#define ZQ_MAX_KEPT_TABLES ((uint64_t)64 << 20) /* bytes of all that are kept */

struct zq_bitmap {
    struct zq_bitmap_record r; /* as in the directory in memory */
    uint64_t at;               /* of its entry there */
    bool lost;                 /* in use when the image was opened: it does not hold */
    bool flagged;              /* "in use" is durable, set by this image: the close stores it */
    struct zq_dirty dirty;     /* marked since the open; not open: never kept */
    uint64_t *table;           /* owned, while it is stored; entries as in the file */
    bool new_entries;          /* of the table: to be written */
};

/* A cluster of a bitmap that the file does not have yet. */
struct zq_bitmap_hole {
    uint32_t bitmap;
    uint64_t node, host;
};

struct zq_bitmaps {
    /* the caller's */
    struct zqcow2_backend *be;
    const struct zqcow2_hooks *hooks;
    struct zq_bounds bounds; /* form; the file's size is set anew by each user */
    uint64_t device;         /* bytes */
    /* Does anything lie there that no bitmap may have? NULL: it is not asked. */
    bool (*is_table)(const void *arg, uint64_t host, uint64_t len);
    const void *arg;
    /* what was loaded */
    uint8_t *dir; /* owned: the directory as it is in the file, whole sectors */
    uint64_t dir_room, dir_bytes, dir_offset;
    uint32_t nr, room;
    struct zq_bitmap *v; /* owned, `room` of them */
    bool keeps;          /* any of them is kept */
    bool ready;          /* and all that are kept are flagged: changes may be marked */
    /* storing */
    struct zq_bitmap_hole *holes; /* owned */
    uint64_t nr_holes, holes_room, filled;
};

static inline uint64_t zq_bitmaps_cluster(const struct zq_bitmaps *b)
{
    return (uint64_t)1 << b->bounds.form.cluster_bits;
}
static inline const uint8_t *zq_bitmap_name(const struct zq_bitmaps *b, const struct zq_bitmap *m)
{
    return b->dir + m->at + ZQ_BITMAP_FIXED + m->r.extra_bytes;
}
/* Is every change to be marked in it? */
static inline bool zq_bitmap_is_kept(const struct zq_bitmap *m)
{
    return m->r.flags & ZQ_BITMAP_AUTO && !m->lost;
}
static inline uint64_t zq_bitmap_size(const struct zq_bitmaps *b, const struct zq_bitmap *m)
{
    return zq_bitmap_bits(b->device, m->r.granularity_bits);
}

/* ---- directory.c ---- */

/*
 * Reads the directory that the extension at byte `ext` of the file names, and judges all of it.
 * keep: what is enabled is to be kept from now on; EFEATURE: it cannot be. After an error, too, it
 * is closed by zq_bitmaps_close().
 */
int zq_bitmaps_load(struct zq_bitmaps *b, uint64_t ext, bool keep, struct zqcow2_error *err);
void zq_bitmaps_close(struct zq_bitmaps *b);
/* NULL: none has this name. */
struct zq_bitmap *zq_bitmaps_find(const struct zq_bitmaps *b, const char *name);
void zq_bitmap_show_name(const struct zq_bitmaps *b, const struct zq_bitmap *m,
                         char out[ZQ_BITMAP_SHOWN]);
/* Sets keeps and ready from the bitmaps as they are. */
void zq_bitmaps_count(struct zq_bitmaps *b);

/* ---- mark.c ---- */

/* The device's bytes [from, from + len) are about to change. Only while ready. -ENOMEM. */
int zq_bitmaps_mark(struct zq_bitmaps *b, uint64_t from, uint64_t len);
/* Are they marked already? */
bool zq_bitmaps_have(const struct zq_bitmaps *b, uint64_t from, uint64_t len);
/*
 * B1: sectors of the directory in which a flag must be set, as bytes into buf: how many, at most
 * max; *at: where they go; *cursor: 0 at first. 0: all are composed.
 */
uint32_t zq_bitmaps_compose(const struct zq_bitmaps *b, uint64_t *cursor, uint8_t *buf,
                            uint32_t max, uint64_t *at);
/* They are durable. */
void zq_bitmaps_flagged(struct zq_bitmaps *b);

/* ---- store.c ---- */

/* Does the file lack what was marked, or say that it does? */
bool zq_bitmaps_must_store(const struct zq_bitmaps *b);
/* Reads the tables, and finds out which clusters are needed: nr_holes. */
int zq_bitmaps_prepare_store(struct zq_bitmaps *b);
/* A cluster for the next of them, counted before the store begins. */
void zq_bitmaps_fill(struct zq_bitmaps *b, uint64_t host);
/* Writes what was marked; barrier; says that the bitmaps hold; barrier. */
int zq_bitmaps_store(struct zq_bitmaps *b);

#endif
