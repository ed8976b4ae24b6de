/* SPDX-License-Identifier: MIT */
/*
 * The snapshot table: read, searched, and as it will be. A record that is not ours stays byte for
 * byte what it is.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include "base/report.h"
#include "snapshot/snapshot.h"

#define ID_ROOM 24u

/* How long the record at `pos` is; other programs have written it. */
static int measure(struct zq_snap *s, uint64_t pos, uint64_t *bytes)
{
    uint64_t at = s->table_offset + pos;
    uint8_t raw[ZQ_SNAPSHOT_FIXED];
    struct zq_snapshot r;
    int rc = zq_be_read(s->be, raw, sizeof(raw), at);

    if (rc < 0)
        return rc;
    zq_snapshot_read(raw, &r);
    if (r.extra > ZQ_SNAPSHOT_EXTRA_MAX)
        return zq_fail(s->err, ZQCOW2_ECORRUPT,
                       "snapshot extra_data_size %" PRIu32 " at byte %" PRIu64 ": more than %u",
                       r.extra, at + 36, ZQ_SNAPSHOT_EXTRA_MAX);
    if (pos + r.bytes > ZQ_MAX_SNAPSHOT_TABLE || at + r.bytes > zq_align_up(s->bounds.file_size, 8))
        return zq_fail(s->err, ZQCOW2_ECORRUPT,
                       "snapshot record at byte %" PRIu64
                       ": it runs past the end of the file or 64 MiB of table",
                       at);
    *bytes = r.bytes;
    return 0;
}

/* The size is known before memory is taken for it. */
int zq_snap_load(struct zq_snap *s)
{
    size_t name = s->kind == ZQ_SNAP_TAKE ? strlen(s->name) : 0;
    uint64_t end = 0, bytes = 0;
    int rc;

    if (s->nowhere)
        return zq_fail(s->err, ZQCOW2_ECORRUPT,
                       "nb_snapshots %" PRIu64 " at byte 60, snapshots_offset 0x%" PRIx64
                       " at byte 64: no snapshot table can be there",
                       s->nr, s->table_offset);
    for (uint64_t i = 0; i < s->nr; i++, end += bytes) {
        rc = measure(s, end, &bytes);
        if (rc == ZQCOW2_ECORRUPT && s->partial)
            break;
        if (rc < 0)
            return rc;
    }
    s->table_bytes = end;
    s->table_room = end + zq_snapshot_bytes(true, ID_ROOM, name);
    s->table = zq_zalloc(s->hooks, s->table_room);
    if (!s->table)
        return -ENOMEM;
    return end ? zq_be_read(s->be, s->table, (size_t)end, s->table_offset) : 0;
}

const uint8_t *zq_snap_next(const struct zq_snap *s, uint64_t *pos)
{
    const uint8_t *raw = s->table + *pos;
    struct zq_snapshot r;

    if (*pos >= s->table_bytes)
        return NULL;
    zq_snapshot_read(raw, &r);
    *pos += r.bytes;
    return raw;
}

/* Neither has an end in the file but its length. */
static bool is_text(const uint8_t *bytes, size_t n, const char *text)
{
    return n == strlen(text) && memcmp(bytes, text, n) == 0;
}

/*
 * In images of other programs several snapshots may have one name, and an id may be the name of
 * another. The first of them is meant then.
 */
bool zq_snap_find(const struct zq_snap *s, const char *name, bool id_first, uint64_t *pos)
{
    for (int i = 0; i < 2; i++) {
        bool by_id = i != id_first;
        const uint8_t *raw;

        for (uint64_t next = *pos = 0; (raw = zq_snap_next(s, &next)); *pos = next) {
            struct zq_snapshot r;

            zq_snapshot_read(raw, &r);
            if (by_id ? is_text(zq_snapshot_id(raw), r.id_bytes, name) :
                        is_text(zq_snapshot_name(raw), r.name_bytes, name))
                return true;
        }
    }
    return false;
}

/* One more than the largest number that is an id, as other programs do. */
static uint64_t next_id(const struct zq_snap *s)
{
    uint64_t most = 0, pos = 0;
    const uint8_t *raw;

    while ((raw = zq_snap_next(s, &pos))) {
        size_t n = (size_t)zq_min(zq_be16(raw + 12), ID_ROOM - 5);
        char text[ID_ROOM];

        memcpy(text, zq_snapshot_id(raw), n);
        text[n] = '\0';
        most = zq_max(most, strtoull(text, NULL, 10));
    }
    return most < UINT64_MAX ? most + 1 : most;
}

/* An id is text for other programs, and may be anything; ours are numbers. */
static void id_text(const struct zq_snap *s, char id[ID_ROOM])
{
    (void)snprintf(id, ID_ROOM, "%" PRIu64, next_id(s));
}

/* Known before anything changes: the clusters for it are taken first. */
uint64_t zq_snap_new_table_bytes(const struct zq_snap *s)
{
    char id[ID_ROOM];

    if (s->kind == ZQ_SNAP_DELETE)
        return s->table_bytes - s->record_bytes;
    id_text(s, id);
    return s->table_bytes + zq_snapshot_bytes(s->zones, strlen(id), strlen(s->name));
}

/*
 * At the end, as other programs do. The flags of its L1 are clear, and its size is that of the
 * active one, so that it may be applied by copying.
 */
static void add_record(struct zq_snap *s)
{
    struct zq_snapshot r = {.l1_offset = s->host, .l1_entries = (uint32_t)s->l1_entries};
    struct zq_snapshot_facts f = s->facts;
    char id[ID_ROOM];

    id_text(s, id);
    r.id_bytes = (uint16_t)strlen(id);
    r.name_bytes = (uint16_t)strlen(s->name);
    f.disk_bytes = s->disk_bytes;
    f.icount = UINT64_MAX;
    zq_snapshot_write(s->table + s->table_bytes, &r, &f, id, s->name);
    s->table_bytes += zq_snapshot_bytes(s->zones, r.id_bytes, r.name_bytes);
    s->nr++;
}

/* From now on records name copies. What others say in their place meant something else, or is void.
 */
static void drop_copies(struct zq_snap *s)
{
    uint64_t pos = 0, at = 0;

    while (zq_snap_next(s, &pos)) {
        zq_snapshot_drop_copy(s->table + at);
        at = pos;
    }
}

/* s->table_offset stays that of the table on disk: it is given up later. */
void zq_snap_edit_table(struct zq_snap *s)
{
    uint8_t *record = s->table + s->record;

    if (s->kind == ZQ_SNAP_TAKE) {
        if (s->zones && !s->hdr->copies)
            drop_copies(s);
        add_record(s);
        return;
    }
    s->table_bytes -= s->record_bytes;
    memmove(record, record + s->record_bytes, (size_t)(s->table_bytes - s->record));
    s->nr--;
}
