/* SPDX-License-Identifier: MIT */
/*
 * Images as bytes, read as the qcow2 specification says and by no code of the library: what a
 * snapshot reads, and clusters that somebody else has compressed.
 */
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "crash.h"

#define OFFSET     0x00fffffffffffe00u
#define COMPRESSED (UINT64_C(1) << 62)
#define ZERO       1u

struct file {
    uint8_t *b;
    uint64_t len, cluster;
    unsigned bits, width; /* width: bytes of an L2 entry; 16 with 32 subclusters in a cluster */
};

static uint64_t get(const struct file *f, uint64_t off, unsigned bytes)
{
    uint64_t v = 0;

    for (unsigned i = 0; i < bytes; i++)
        v = v << 8 | (off + i < f->len ? f->b[off + i] : 0);
    return v;
}

static void put(struct file *f, uint64_t off, unsigned bytes, uint64_t v)
{
    for (unsigned i = bytes; i-- && off + i < f->len; v >>= 8)
        f->b[off + i] = (uint8_t)v;
}

static bool load(struct file *f, struct zqcow2_simdisk *disk)
{
    f->len = zqcow2_simdisk_length(disk);
    f->b = calloc(1, f->len + 1);
    if (!f->b || zqcow2_simdisk_export(disk, f->b, f->len, 0) < 0)
        return false;
    f->bits = (unsigned)get(f, 20, 4);
    f->cluster = UINT64_C(1) << f->bits;
    f->width = get(f, 72, 8) & 16 ? 16 : 8;
    return f->bits >= 9 && f->bits <= 21 && f->len >= f->cluster;
}

/* ---- reading ---- */

/* A compressed entry: where its bytes begin, and how many there are at most. */
static uint64_t packed_at(const struct file *f, uint64_t entry, uint64_t *bytes)
{
    unsigned shift = 62 - (f->bits - 8);
    uint64_t at = entry & ((UINT64_C(1) << shift) - 1);
    uint64_t sectors = ((entry & (COMPRESSED - 1)) >> shift) + 1;

    *bytes = sectors * SECTOR - at % SECTOR;
    return at;
}

static bool unpack(const struct file *f, uint64_t entry, uint8_t *out)
{
    uint64_t bytes, at = packed_at(f, entry, &bytes);
    z_stream z = {0};
    bool good;

    if (at >= f->len || inflateInit2(&z, -12) != Z_OK)
        return false;
    z.next_in = f->b + at;
    z.avail_in = (uInt)(bytes < f->len - at ? bytes : f->len - at);
    z.next_out = out;
    z.avail_out = (uInt)f->cluster;
    inflate(&z, Z_FINISH);
    good = z.avail_out == 0;
    inflateEnd(&z);
    return good;
}

/* Of the entry at `where`, or of none; nothing is below. */
static bool read_cluster(const struct file *f, uint64_t where, uint8_t *out)
{
    uint64_t entry = where ? get(f, where, 8) : 0, host = entry & OFFSET, part = f->cluster / 32;
    uint64_t bitmap = where && f->width == 16 ? get(f, where + 8, 8) : UINT32_MAX;

    if (entry & COMPRESSED)
        return unpack(f, entry, out);
    memset(out, 0, f->cluster);
    if ((entry & ZERO) || !host)
        return true;
    if (host >= f->len)
        return false;
    memcpy(out, f->b + host, f->len - host < f->cluster ? f->len - host : f->cluster);
    for (unsigned i = 0; i < 32; i++) {
        if (!(bitmap >> i & 1) || bitmap >> (32 + i) & 1)
            memset(out + i * part, 0, part);
    }
    return true;
}

/* Where the entry of a guest offset lies; 0: there is no table. */
static uint64_t entry_at(const struct file *f, uint64_t l1, uint64_t guest)
{
    uint64_t index = guest >> f->bits, per = f->cluster / f->width;
    uint64_t table = get(f, l1 + index / per * 8, 8) & OFFSET;

    return table ? table + index % per * f->width : 0;
}

int snapshot_read(struct zqcow2_simdisk *disk, uint8_t *out, uint64_t size)
{
    struct file f;
    uint8_t *cluster = NULL;
    bool good = load(&f, disk) && get(&f, 60, 4) == 1;
    uint64_t l1 = good ? get(&f, get(&f, 64, 8), 8) : 0;

    good = good && (cluster = malloc(f.cluster));
    for (uint64_t at = 0; good && at < size; at += f.cluster) {
        uint64_t entry = entry_at(&f, l1, at), n = size - at < f.cluster ? size - at : f.cluster;

        good = read_cluster(&f, entry, cluster);
        memcpy(out + at, cluster, n);
    }
    free(cluster);
    free(f.b);
    return good ? 0 : -1;
}

/* ---- packing ---- */

struct packer {
    struct file f, old;
    uint64_t *host; /* clusters that held data, in the guest's order */
    uint32_t nr, used;
    uint64_t at; /* where the next bytes go, in host[used] or right behind it */
};

static uint64_t refcount_at(const struct file *f, uint64_t host)
{
    uint64_t index = host >> f->bits, per = f->cluster / 2;

    return (get(f, get(f, 48, 8) + index / per * 8, 8) & OFFSET) + index % per * 2;
}

static void count(struct file *f, uint64_t host, int n)
{
    uint64_t at = refcount_at(f, host);

    put(f, at, 2, get(f, at, 2) + (uint64_t)n);
}

static bool goes_on(const struct packer *p)
{
    return p->used + 1 < p->nr && p->host[p->used + 1] == p->host[p->used] + p->f.cluster;
}

/* Bytes may go on in the next cluster where that lies right behind: then they belong to both. */
static uint64_t find_room(struct packer *p, uint64_t bytes)
{
    uint64_t at;

    while (p->at + bytes > p->host[p->used] + (goes_on(p) ? 2 : 1) * p->f.cluster) {
        if (++p->used == p->nr)
            return 0;
        p->at = p->host[p->used];
    }
    at = p->at;
    p->at += bytes;
    if (goes_on(p) && p->at >= p->host[p->used + 1])
        p->used++;
    return at;
}

static bool pack_cluster(struct packer *p, uint64_t entry)
{
    struct file *f = &p->f;
    uint8_t *out = malloc(f->cluster), *in = malloc(f->cluster);
    uint64_t bytes = 0, at, sectors;
    z_stream z = {0};

    if (out && in && read_cluster(&p->old, entry, in) &&
        deflateInit2(&z, 9, Z_DEFLATED, -12, 9, Z_DEFAULT_STRATEGY) == Z_OK) {
        z.next_in = in;
        z.avail_in = (uInt)f->cluster;
        z.next_out = out;
        z.avail_out = (uInt)f->cluster;
        bytes = deflate(&z, Z_FINISH) == Z_STREAM_END ? z.total_out : 0;
        deflateEnd(&z);
    }
    at = bytes ? find_room(p, bytes) : 0;
    if (at) {
        memcpy(f->b + at, out, bytes);
        sectors = (at + bytes - 1) / SECTOR - at / SECTOR;
        put(f, entry, 8, COMPRESSED | sectors << (62 - (f->bits - 8)) | at);
        if (f->width == 16)
            put(f, entry + 8, 8, 0);
        for (uint64_t c = at / f->cluster; c <= (at + bytes - 1) / f->cluster; c++)
            count(f, c * f->cluster, 1);
    }
    free(out);
    free(in);
    return at != 0;
}

/* What pack_cluster() has to look at; the clusters become free and are taken anew. */
static uint32_t collect(struct packer *p, uint64_t l1, uint64_t size, uint64_t *entries)
{
    for (uint64_t at = 0; at < size; at += p->f.cluster) {
        uint64_t where = entry_at(&p->f, l1, at), entry = where ? get(&p->f, where, 8) : 0;

        if (!(entry & OFFSET) || (entry & (COMPRESSED | ZERO)))
            continue;
        entries[p->nr] = where;
        p->host[p->nr++] = entry & OFFSET;
        count(&p->f, entry & OFFSET, -1);
    }
    return p->nr;
}

int pack_image(struct zqcow2_simdisk *disk, uint64_t size)
{
    struct packer p = {.nr = 0};
    uint64_t *entries = NULL;
    bool good = load(&p.f, disk) && load(&p.old, disk) && get(&p.f, 96, 4) == 4 &&
                p.f.len % p.f.cluster == 0;

    if (good) {
        entries = calloc(size / p.f.cluster + 1, 8);
        p.host = calloc(size / p.f.cluster + 1, 8);
        good = entries && p.host && collect(&p, get(&p.f, 40, 8), size, entries);
    }
    p.at = good ? p.host[0] : 0;
    for (uint32_t i = 0; good && i < p.nr; i++)
        good = pack_cluster(&p, entries[i]);
    good = good && zqcow2_simdisk_import(disk, p.f.b, p.f.len, 0) == 0;
    free(entries);
    free(p.host);
    free(p.f.b);
    free(p.old.b);
    return good ? 0 : -1;
}
