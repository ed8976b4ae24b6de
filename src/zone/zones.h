/* SPDX-License-Identifier: MIT */
/*
 * The zones of one image: write pointers, states, limits, reservations. They know guest offsets
 * only; what lies where in the file is the map's business. All under the image's mutex.
 *
 * Invariants: K4 wp <= next <= start + capacity. K5 nr_open, nr_active count what they say.
 * K6 EMPTY: wp == start and no reservation; FULL: no reservation. K7 a zone commits in
 * reservation order.
 */
#ifndef ZQ_ZONE_ZONES_H
#define ZQ_ZONE_ZONES_H

#include "base/events.h"
#include "base/wait.h"
#include "base/mem.h"
#include "format/states.h"
#include "zone/fsm.h"

#define ZQ_NO_ZONE   UINT32_MAX
#define ZQ_NR_STATES 16u

/* What a zone needs once it is written or managed; stays until close. */
struct zq_live {
    struct zq_list admission; /* the turns of operations that change the zone, in order (E1) */
    struct zq_list reserved;  /* reservations, in order of offset (K7) */
    struct zq_list drained;   /* waiters for `reserved` to become empty */
    struct zq_list punch;     /* in the zones' punch list */
    uint32_t index;           /* which zone this is */
    uint64_t reset_io;        /* data I/O numbered up to this belongs to earlier lives */
    bool failed;              /* a write failed: nothing is admitted until all have drained (R8) */
    bool punching;            /* its space is being given back: writers wait (R6) */
    bool closing;             /* an implicit close waits for it to drain */
};

/* Is an entry on disk as raw says? */
enum zq_doubt {
    ZQ_SURE,
    ZQ_UNSURE,  /* composed for a round that stopped: either what was there, or raw (R10) */
    ZQ_COMPOSED /* in the running stage: its barrier makes it sure */
};

struct zq_zone {           /* 64 bytes */
    uint64_t wp;           /* committed; absolute. FULL: start + capacity */
    uint64_t next;         /* the next reservation begins here */
    uint64_t captured;     /* what the running round may store at most */
    uint64_t high;         /* the highest value that the entry may have on disk (R1) */
    uint8_t raw[ZQ_ENTRY]; /* the entry as last read or written */
    struct zq_live *live;
    uint32_t lru_prev, lru_next; /* of IMP_OPEN zones, least recently written first */
    uint8_t state;               /* what the write pointer and the opens say */
    uint8_t forced;              /* RDONLY or OFFLINE, over state; else 0 */
    uint8_t finished;            /* FULL by finish */
    uint8_t ahead;               /* may have mapped, since the open, what no write has used */
    uint8_t doubt;               /* of raw: zq_doubt */
    uint8_t opening : 1;         /* was CLOSED when an "open all" began */
    uint8_t described : 1;       /* the byte on disk may say DESCRIBED (R16) */
    uint8_t stored;              /* the byte in the table of persistent states */
    uint8_t storing;             /* what the running round stores there, or the last one has */
};

struct zq_reservation {
    struct zq_list link;
    uint64_t end;
    bool done;
    int rc; /* < 0: failed, or behind one that did */
};

struct zq_zones {
    struct zq_geometry g;    /* changes with the size, or with the disk of a snapshot */
    enum zqcow2_rules rules; /* fixed */
    const struct zqcow2_hooks *hooks;
    struct zq_events *events; /* fixed */
    struct zq_list *ready;
    struct zq_zone *v;
    uint32_t nr_open, nr_active;
    uint32_t in_state[ZQ_NR_STATES]; /* zones that report each state */
    uint32_t max_open, max_active;   /* effective: UINT32_MAX without a limit */
    uint32_t max_append;             /* fixed: bytes */
    uint32_t lru_head, lru_tail;
    uint32_t closing;         /* the zone that an implicit close waits for, or ZQ_NO_ZONE */
    uint64_t implicit_closes; /* so far */
    const void *closing_for;  /* the operation that waits */
    struct zq_list closing_waiters;
    struct zq_list punch; /* reset zones whose space may be given back, by live->punch */
    /* the table on disk: table.c */
    uint8_t *dirty, *in_round; /* a byte for each 512-byte sector; of the second, zq_taken */
    uint8_t tail[512];         /* the last sector as read: bytes behind the entries */
    uint32_t nr_sectors;
    uint32_t disk_active; /* entries on disk that may be neither at start nor FULL */
    uint32_t activates;   /* of the round's entries: those that become so */
    bool releases;        /* one of them is no longer so */
    bool is_dirty;
    /* the table of persistent states: states.c */
    uint64_t states_at; /* its offset; 0: there is none */
    uint8_t *states_dirty, *states_in_round;
};

struct zq_zones_params {
    const struct zq_geometry *geometry;
    const struct zqcow2_hooks *hooks;
    struct zq_list *ready;
    const uint8_t *table; /* whole sectors; nr_zones entries, already checked */
    enum zqcow2_rules rules;
    struct zq_events *events; /* NULL: none */
};

/* -ENOMEM: to be closed all the same. */
int zq_zones_open(struct zq_zones *zs, const struct zq_zones_params *p);
void zq_zones_close(struct zq_zones *zs);
/* *with, which is taken over, takes the place of *zs: nothing is under way in either of them. */
void zq_zones_replace(struct zq_zones *zs, struct zq_zones *with);
/*
 * The same for a device of another size: zones that both have keep their states and counts, except
 * a FULL one that is not FULL in *with. What *zs has beyond *with is EMPTY.
 */
void zq_zones_resize(struct zq_zones *zs, struct zq_zones *with);
bool zq_zones_valid(const struct zq_zones *zs, uint32_t zone); /* K4-K6, for assertions */
bool zq_zones_counted(const struct zq_zones *zs); /* K5, a recount where zones are few; likewise */
/* How many report a state of this set of bits. */
uint32_t zq_zones_in(const struct zq_zones *zs, uint32_t states);

static inline uint32_t zq_zone_of(const struct zq_zones *zs, uint64_t off)
{
    return (uint32_t)(off >> zs->g.zone_bits);
}
static inline uint64_t zq_zone_end(const struct zq_zones *zs, uint32_t i) /* of its capacity */
{
    return zq_geometry_start(&zs->g, i) + zq_geometry_capacity(&zs->g, i);
}
static inline uint8_t zq_zone_state(const struct zq_zone *z)
{
    return z->forced ? z->forced : z->state;
}

/* The zone's live part, made when missing; NULL: out of memory. */
struct zq_live *zq_zone_live(struct zq_zones *zs, uint32_t i);

/*
 * The checks for a write of len bytes at off, in the order of zone-semantics: state, boundary,
 * write pointer, capacity, append size. An append goes to the next reservation. 0 or an error.
 */
int zq_zone_check_write(const struct zq_zones *zs, uint32_t i, uint64_t off, uint64_t len,
                        bool append);
/* The same for an open zone, without the reason: inline, because most writes have none. */
static inline bool zq_zone_takes(const struct zq_zones *zs, uint32_t i, uint64_t off, uint64_t len,
                                 bool append)
{
    uint64_t next = zs->v[i].next;

    return len <= zq_zone_end(zs, i) - next && (append ? len <= zs->max_append : off == next);
}
/*
 * Is there room for zone i to do this? *victim: the zone to close for it, or ZQ_NO_ZONE.
 * 0, EZONE_ACTIVE, EZONE_OPEN.
 */
int zq_zones_room(const struct zq_zones *zs, uint32_t i, const struct zq_verdict *v,
                  uint32_t *victim);
/*
 * Marks the zone if it is CLOSED when all of those begin to be opened: one that is closed to make
 * room for them is none of them.
 */
bool zq_zone_begin_open(struct zq_zones *zs, uint32_t i);
/* Changes the state and keeps the counts. */
void zq_zone_set_state(struct zq_zones *zs, uint32_t i, uint8_t state);
/* Closes a drained open zone. */
void zq_zone_do_close(struct zq_zones *zs, uint32_t i);
/* The reservation takes [next, next + len); the zone becomes the most recently written. */
void zq_zone_reserve(struct zq_zones *zs, uint32_t i, struct zq_reservation *r, uint64_t len);
/*
 * A reservation's data is written, or failed (rc < 0). Returns how far the zone committed as a
 * list of reservations (moved to *out, in order) whose operations may now be answered.
 */
void zq_zone_data_done(struct zq_zones *zs, uint32_t i, struct zq_reservation *r, int rc,
                       struct zq_list *out);
/* The same for good data when it alone commits by it. False: nothing has changed, use the other. */
bool zq_zone_commit_first(struct zq_zones *zs, uint32_t i, struct zq_reservation *r);
/* FULL by finish, EMPTY by reset: a drained zone. io_seq: the newest data I/O. */
void zq_zone_do_finish(struct zq_zones *zs, uint32_t i);
void zq_zone_do_reset(struct zq_zones *zs, uint32_t i, uint64_t io_seq);
/* RDONLY, OFFLINE, or back: a drained zone. */
void zq_zone_force(struct zq_zones *zs, uint32_t i, uint8_t state);
void zq_zone_fill_report(const struct zq_zones *zs, uint32_t i, struct zqcow2_zone *out);
/* What is stored of the zone's state changes; there is a table. */
void zq_zone_store(struct zq_zones *zs, uint32_t i, uint8_t stored);
/* It is no longer closed and empty, as the table may say. */
static inline void zq_zone_unmark(struct zq_zones *zs, uint32_t i)
{
    if (zs->v[i].stored & ZQ_STORED_CLOSED)
        zq_zone_store(zs, i, zs->v[i].stored & (uint8_t)~ZQ_STORED_CLOSED);
}
/* Does the table say something of it that a reset ends, although it may be EMPTY? */
static inline bool zq_zone_is_marked(const struct zq_zone *z)
{
    return z->stored & (ZQ_STORED_CLOSED | ZQ_STORED_DESCRIBED);
}
/* R16: may the disk still have the extension of an earlier life? */
static inline bool zq_zone_was_described(const struct zq_zone *z)
{
    return z->described && !(z->stored & ZQ_STORED_DESCRIBED);
}
/* Has its descriptor an extension? Of an offline zone nothing is shown. */
static inline bool zq_zone_is_described(const struct zq_zone *z)
{
    return z->stored & ZQ_STORED_DESCRIBED && z->forced != ZQCOW2_ZONE_OFFLINE;
}
/* All waiters here check again. */
void zq_zones_wake_all(struct zq_zones *zs);

/* ---- table.c: the write-pointer table on disk ---- */

enum zq_table_stage {
    ZQ_TABLE_RESETS, /* entries that go back to start */
    ZQ_TABLE_FULL,   /* entries that become FULL */
    ZQ_TABLE_REST
};

/* A sector of the running round, all of whose entries are captured when the first is looked at. */
enum zq_taken { ZQ_NOT_TAKEN, ZQ_TAKEN, ZQ_CAPTURED };

static inline void zq_table_mark(struct zq_zones *zs, uint32_t zone)
{
    zs->dirty[zone / 64] = 1; /* 64 entries a sector */
    zs->is_dirty = true;
}
/* Of a sector that the round has taken, as it was then: no entry has changed since. */
void zq_zones_capture(struct zq_zones *zs, uint32_t sector);
/* A round takes what is dirty, as it is now. */
void zq_table_capture(struct zq_zones *zs);
/* The zone's pointer is about to change: what the round has taken is captured first. */
static inline void zq_table_touch(struct zq_zones *zs, uint32_t zone)
{
    if (zs->in_round[zone / 64] == ZQ_TAKEN)
        zq_zones_capture(zs, zone / 64);
}
/*
 * Composes the next sectors of the stage from *sector on, at most max bytes, into buf; entries of
 * other stages go as they are on disk. Returns the bytes, their offset in *at, and moves *sector
 * on. 0: none of those that it has passed, and no more if *sector is nr_sectors. What that costs is
 * taken from *left (E7).
 */
uint32_t zq_table_compose(struct zq_zones *zs, enum zq_table_stage stage, uint32_t *sector,
                          uint8_t *buf, uint32_t max, uint64_t *at, int32_t *left);

/*
 * Passes of a round, each over ZQ_TABLE_CHUNK sectors, or as many as there are, from `from` on.
 * What that costs is taken from *left.
 */
#define ZQ_TABLE_CHUNK 64u
typedef void zq_table_pass(struct zq_zones *zs, uint32_t from, int32_t *left);
/* Behind all of it: must entries that become FULL be durable before the rest (I7)? */
zq_table_pass zq_table_weigh;
static inline bool zq_table_full_first(const struct zq_zones *zs)
{
    return zs->releases && zs->disk_active + zs->activates > zs->max_active;
}
/* The barrier behind stage RESETS has completed: `start` is the only value these can have. */
zq_table_pass zq_table_resets_durable;
/* The barrier behind stage FULL has completed. */
zq_table_pass zq_table_full_durable;
/* The last barrier of the round has completed. */
zq_table_pass zq_table_round_done;
/* The round stopped: its sectors are dirty again, and what its last stage composed is unsure. */
zq_table_pass zq_table_round_stop;

/* ---- states.c: the table of persistent states on disk ---- */

/* Of an image that is being opened: whole sectors, each byte checked; what is void is out of it. */
void zq_states_load(struct zq_zones *zs, uint64_t offset, const uint8_t *table);
void zq_states_capture(struct zq_zones *zs);
/* The next sector of the round from *sector on, which moves on, and its offset. False: no more. */
bool zq_states_compose(struct zq_zones *zs, uint32_t *sector, uint8_t buf[ZQ_SECTOR], uint64_t *at,
                       int32_t *left);
/* Passes over the sectors of this table, of which a chunk is an eighth. */
zq_table_pass zq_states_round_done;
/* What was to be written is dirty again. */
zq_table_pass zq_states_round_stop;

#endif
