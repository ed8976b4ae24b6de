/* SPDX-License-Identifier: MIT */
/*
 * Another directory of bitmaps, as one piece of work on the file: nothing else uses the image
 * meanwhile, and what the file lacks has been taken by the engine.
 *
 *   new tables, if there are any, and the new directory are written; barrier; one sector of the
 *   header names the directory; barrier; what nobody names any more is given back (B3)
 *
 * So a crash finds the old bitmaps or the new ones. What else that sector says is the caller's: it
 * changes with the bitmaps.
 */
#ifndef ZQ_BITMAP_SWITCH_H
#define ZQ_BITMAP_SWITCH_H

#include "bitmap/bitmap.h"
#include "format/renaming.h"

/* Clusters in a row. */
struct zq_bitmap_range {
    uint64_t offset, bytes;
};

struct zq_bitmap_switch {
    /* the caller's */
    struct zqcow2_error *err;
    struct zq_bitmaps *b;
    const struct zq_header *h;
    const uint8_t *sector0; /* of the header, as it will be, except the bitmaps */
    /* the new directory: filled in by the change, and written by zq_bitmap_switch_write() */
    uint32_t nr;
    uint8_t *dir; /* owned, whole sectors */
    uint64_t dir_room, dir_bytes, dir_offset;
    uint8_t *buf;                /* owned: a cluster */
    struct zq_bitmap_range *old; /* owned: what is not needed afterwards */
    uint64_t nr_old, old_room;
    uint64_t clusters; /* that are needed, in a row */
    /* the engine's answer */
    uint64_t host;
    /* what the change has made */
    struct zq_renaming header;
    struct zq_header new_h; /* of it */
    bool begun;             /* the header in the file may be the new one */
};

static inline uint64_t zq_bitmap_in_clusters(const struct zq_bitmap_switch *s, uint64_t bytes)
{
    return zq_align_up(bytes, zq_bitmaps_cluster(s->b));
}

/* Memory for a directory of `nr` bitmaps and dir_bytes. EFBIG, ENOMEM. */
int zq_bitmap_switch_open(struct zq_bitmap_switch *s, uint32_t nr, uint64_t dir_bytes);
void zq_bitmap_switch_close(struct zq_bitmap_switch *s);
/* These clusters will not be needed: a range, or a table and all that it names. */
int zq_bitmap_gone(struct zq_bitmap_switch *s, uint64_t offset, uint64_t bytes);
int zq_bitmap_gone_table(struct zq_bitmap_switch *s, const struct zq_bitmap_record *r);
/* Judges an entry of a table. *host 0: it names no cluster. ECORRUPT, with its text. */
int zq_bitmap_judge_entry(const struct zq_bitmap_switch *s, uint64_t raw, uint64_t *host,
                          bool *ones);
/* EFEATURE: the header has no room for the bitmaps beside what sector0 says. */
int zq_bitmap_switch_judge(struct zq_bitmap_switch *s);
/* Zeros if from is NULL, and behind the bytes, up to whole clusters. */
int zq_bitmap_write_padded(struct zq_bitmap_switch *s, const void *from, uint64_t bytes,
                           uint64_t to);
/* Writes the directory, behind which nothing may fail to be in the file; and then the header. */
int zq_bitmap_switch_write(struct zq_bitmap_switch *s);
/* The new directory is the image's. The bitmaps in memory are those that it has. Cannot fail. */
void zq_bitmap_switch_adopt(struct zq_bitmap_switch *s);

#endif
