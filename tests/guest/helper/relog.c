/* SPDX-License-Identifier: MIT */
/*
 * What a disk may hold when its power goes, from the log that dm-log-writes keeps of it: a sector
 * that counts the entries, then for each a sector, and its data behind that. Of writes, those that
 * a flush followed are there, and so are those with FUA; of the others any part may be.
 */
#include "helper.h"

#include <endian.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MAGIC 0x6a736677736872u
#define MOST  (4u << 20) /* bytes of an entry */

enum { FLUSH = 1, FUA = 2, DISCARD = 4, MARK = 8 };

struct super {
    uint64_t magic, version, nr_entries;
    uint32_t sector_size;
};

struct entry {
    uint64_t sector, nr_sectors, flags, data_len;
    char data[ZG_SECTOR - 32]; /* of a mark */
};

struct log {
    int fd, to; /* to: -1 where nothing is replayed */
    uint64_t nr, at;
    void *buf;
};

static bool begin(struct log *l, const char *path)
{
    struct super s;

    l->fd = open(path, O_RDONLY);
    l->to = -1;
    l->at = ZG_SECTOR;
    l->buf = zg_buffer(MOST);
    if (l->fd < 0 || zg_pread(l->fd, &s, sizeof(s), 0) || le64toh(s.magic) != MAGIC ||
        le32toh(s.sector_size) != ZG_SECTOR) {
        fprintf(stderr, "%s: not a log of sectors of 512 bytes\n", path);
        return false;
    }
    l->nr = le64toh(s.nr_entries);
    return true;
}

/* The next entry; *data: where its data is. */
static bool next(struct log *l, struct entry *e, uint64_t *data)
{
    if (zg_pread(l->fd, e, sizeof(*e), l->at))
        return false;
    *data = l->at + ZG_SECTOR;
    l->at = *data + (le64toh(e->flags) & DISCARD ? 0 : le64toh(e->nr_sectors) * ZG_SECTOR);
    return le64toh(e->nr_sectors) <= MOST / ZG_SECTOR || le64toh(e->flags) & DISCARD;
}

/* What a discard leaves is anything; it leaves what there was. */
static bool apply(struct log *l, const struct entry *e, uint64_t data)
{
    size_t len = (size_t)le64toh(e->nr_sectors) * ZG_SECTOR;

    return le64toh(e->flags) & DISCARD || !len ||
           (!zg_pread(l->fd, l->buf, len, data) &&
            !zg_pwrite(l->to, l->buf, len, le64toh(e->sector) * ZG_SECTOR));
}

/* The last of the first `upto` entries that is a flush, and the last mark's text. */
static uint64_t last_flush(struct log l, uint64_t upto, char *mark)
{
    uint64_t flush = 0, data;
    struct entry e;

    for (uint64_t i = 1; i <= upto && next(&l, &e, &data); i++) {
        if (le64toh(e.flags) & FLUSH)
            flush = i;
        if (le64toh(e.flags) & MARK)
            snprintf(mark, sizeof(e.data), "%.*s", (int)le64toh(e.data_len), e.data);
    }
    return flush;
}

/* Prints the last mark before the cut. */
static int replay(struct log *l, uint64_t upto, uint64_t seed)
{
    char mark[sizeof(((struct entry *)0)->data)] = "none";
    uint64_t flush = last_flush(*l, upto, mark), data;
    struct zg_rng r = zg_step_rng(seed, upto);
    struct entry e;

    for (uint64_t i = 1; i <= upto; i++) {
        if (!next(l, &e, &data))
            return 1;
        if ((i <= flush || le64toh(e.flags) & FUA || zg_below(&r, 2)) && !apply(l, &e, data))
            return 1;
    }
    printf("%s\n", mark);
    return fsync(l->to) != 0;
}

int zg_relog(int argc, char **argv)
{
    struct log l;

    if (argc == 2 && !strcmp(argv[0], "count") && begin(&l, argv[1])) {
        printf("%llu\n", (unsigned long long)l.nr);
        return 0;
    }
    if (argc == 5 && !strcmp(argv[0], "replay") && begin(&l, argv[1])) {
        l.to = open(argv[2], O_RDWR);
        return replay(&l, zg_number(argv[3]), zg_number(argv[4]));
    }
    fprintf(stderr, "usage: zqguest relog count LOG | replay LOG DISK ENTRIES SEED\n");
    return 2;
}
