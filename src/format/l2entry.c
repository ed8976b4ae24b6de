/* SPDX-License-Identifier: MIT */
/*
 * Reads and changes L2 entries of 64 bits, and of 128, whose second half says of each of the 32
 * subclusters whether it has content in the cluster (bits 0-31) or reads as zeros (bits 32-63).
 * Reference: the qcow2 specification, sections "Cluster mapping" and "Extended L2 Entries".
 */
#include "format/l2entry.h"

#include "base/report.h"

#define COMPRESSED ((uint64_t)1 << 62)
#define ZERO       ((uint64_t)1 << 0) /* version 3, 64 bits */

#define UNITS     (1u << ZQ_L2_UNIT_BITS)
#define ALL_DATA  ((uint64_t)UINT32_MAX)
#define ALL_ZEROS ((uint64_t)UINT32_MAX << 32)

/* Where in a compressed cluster's entry the count of its sectors begins. */
static unsigned sectors_shift(uint32_t cluster_bits)
{
    return 62 - (cluster_bits - 8);
}

/* The byte range of a compressed cluster, in whole sectors. */
static void compressed_range(uint64_t raw, uint32_t cluster_bits, uint64_t *host, uint64_t *len)
{
    unsigned shift = sectors_shift(cluster_bits);
    uint64_t more = raw >> shift & (((uint64_t)1 << (cluster_bits - 8)) - 1);

    *host = raw & (((uint64_t)1 << shift) - 1);
    *len = (more + 1) * ZQ_SECTOR - *host % ZQ_SECTOR;
}

/*
 * COPIED is ignored here: a compressed cluster is never written in place. Check reports the flag.
 */
static const char *read_compressed(const struct zq_bounds *b, uint64_t raw, struct zq_l2_entry *e)
{
    e->type = ZQ_EXT_COMPRESSED;
    e->data_end = (uint64_t)1 << b->form.cluster_bits;
    compressed_range(raw, b->form.cluster_bits, &e->host, &e->len);
    /* A file may end in the middle of the last sector. */
    if (e->host >= ZQ_MAX_HOST_OFFSET ||
        zq_align_down(e->host + e->len - 1, ZQ_SECTOR) >= b->file_size)
        return "compressed data runs past the end of the file";
    return NULL;
}

/*
 * Of a cluster in a data file. Offset 0 is valid there, so that COPIED, which is always set, says
 * that there is a cluster (qcow2 specification, "Standard Cluster Descriptor"). Nobody else can
 * have it, whatever the flag says. An entry for zeros at offset 0 is taken for one without a
 * cluster, as QEMU takes it: the place is the same if data comes there. No length of the image's
 * own file bounds it: the caller compares it with the address on the device.
 */
static const char *read_external(const struct zq_bounds *b, uint64_t raw, uint64_t zero,
                                 struct zq_l2_entry *e)
{
    uint64_t size = (uint64_t)1 << b->form.cluster_bits;

    if (raw & COMPRESSED)
        return "is compressed, which a data file cannot have";
    e->host = raw & ZQ_OFFSET_MASK;
    e->copied = e->host || (raw & ZQ_OFLAG_COPIED && !(raw & zero));
    e->len = e->copied ? size : 0;
    e->type = raw & zero ? ZQ_EXT_ZERO : e->len ? ZQ_EXT_DATA : ZQ_EXT_UNALLOC;
    e->data_end = e->type == ZQ_EXT_DATA ? size : 0;
    if (raw & ~(ZQ_OFFSET_MASK | ZQ_OFLAG_COPIED | zero))
        return "reserved bits are set";
    return e->host & (size - 1) ? "is not aligned to a cluster" : NULL;
}

/*
 * The first 64 bits. *e is filled in even if the entry is refused: check counts what such an entry
 * seems to point to. In version 2, bit 0 is reserved; from 3 on it says that the cluster reads as
 * zeros, allocated or not, but in an extended entry the bitmap says so.
 */
static const char *read_word(const struct zq_bounds *b, uint64_t raw, struct zq_l2_entry *e)
{
    uint64_t zero = b->form.version >= 3 && !b->form.extended ? ZERO : 0;

    *e = (struct zq_l2_entry){.type = ZQ_EXT_UNALLOC, .used = raw};
    if (b->form.external)
        return read_external(b, raw, zero, e);
    if (raw & COMPRESSED)
        return read_compressed(b, raw, e);
    e->host = raw & ZQ_OFFSET_MASK;
    e->len = e->host ? (uint64_t)1 << b->form.cluster_bits : 0;
    if (e->host && !(raw & zero))
        e->data_end = e->len;
    e->type = raw & zero ? ZQ_EXT_ZERO : e->host ? ZQ_EXT_DATA : ZQ_EXT_UNALLOC;
    e->copied = raw & ZQ_OFLAG_COPIED;
    if (raw & ~(ZQ_OFFSET_MASK | ZQ_OFLAG_COPIED | zero))
        return "reserved bits are set";
    if (e->host)
        return zq_host_misplaced(b, e->host);
    return e->copied ? "COPIED is set without a cluster" : NULL;
}

/* ---- subclusters ---- */

static uint64_t bitmap_of(const uint8_t *entry)
{
    return zq_be64(entry + 8);
}

/* The bits that say that there is content, for units that begin in [from, to). */
static uint64_t units_of(const struct zq_form *f, uint64_t from, uint64_t to)
{
    unsigned bits = zq_l2_unit_bits(f);
    uint64_t below = ((uint64_t)1 << (from >> bits)) - 1;

    zq_assert(f->extended && from < to && to <= (uint64_t)1 << f->cluster_bits);
    zq_assert(!((from | to) & (((uint64_t)1 << bits) - 1)));
    return (((uint64_t)1 << (to >> bits)) - 1) & ~below;
}

static enum zq_extent_type type_of(uint64_t bitmap, unsigned unit)
{
    if (bitmap >> (unit + UNITS) & 1)
        return ZQ_EXT_ZERO;
    return bitmap >> unit & 1 ? ZQ_EXT_DATA : ZQ_EXT_UNALLOC;
}

static const char *judge_bitmap(const struct zq_l2_entry *e, uint64_t bitmap)
{
    if (e->type == ZQ_EXT_COMPRESSED)
        return bitmap ? "a compressed cluster has subclusters" : NULL;
    if (bitmap & bitmap >> UNITS & ALL_DATA)
        return "a subcluster is both allocated and zero";
    return bitmap & ALL_DATA && !e->len ? "a subcluster is allocated without a cluster" : NULL;
}

static const char *read_extended(const struct zq_bounds *b, const uint8_t *entry, unsigned unit,
                                 struct zq_l2_entry *e)
{
    unsigned bits = zq_l2_unit_bits(&b->form), first = 0, end = UNITS;
    uint64_t bitmap = bitmap_of(entry);
    const char *why = read_word(b, zq_be64(entry), e);

    if (!why)
        why = judge_bitmap(e, bitmap);
    e->used |= bitmap != 0;
    if (e->type == ZQ_EXT_COMPRESSED)
        return why;
    e->type = type_of(bitmap, unit);
    while (first < UNITS && !(bitmap >> first & 1))
        first++;
    while (end > first && !(bitmap >> (end - 1) & 1))
        end--;
    e->data = first < UNITS ? (uint64_t)first << bits : 0;
    e->data_end = first < UNITS ? (uint64_t)end << bits : 0;
    return why;
}

const char *zq_l2_read(const struct zq_bounds *b, const uint8_t *entry, struct zq_l2_entry *e)
{
    return b->form.extended ? read_extended(b, entry, 0, e) : read_word(b, zq_be64(entry), e);
}

/* Which unit, from this one on, is the first of another type. */
static unsigned run_end(uint64_t bitmap, unsigned unit)
{
    enum zq_extent_type type = type_of(bitmap, unit);

    while (unit < UNITS && type_of(bitmap, unit) == type)
        unit++;
    return unit;
}

/* How many units at the beginning of the n-th cluster behind the first one continue it. */
static unsigned units_like(const struct zq_bounds *b, const uint8_t *entry, uint64_t n,
                           const struct zq_l2_entry *first)
{
    const uint8_t *at = entry + zq_l2_bytes(&b->form, n);
    struct zq_l2_entry next;

    if (read_extended(b, at, 0, &next) || next.type != first->type)
        return 0;
    if (next.type == ZQ_EXT_DATA ?
            next.copied != first->copied || next.host != first->host + (n << b->form.cluster_bits) :
            first->len || next.len)
        return 0;
    if (next.type == ZQ_EXT_UNALLOC && next.used) /* a run of new clusters ends in front of it */
        return 0;
    return run_end(bitmap_of(at), 0);
}

const char *zq_l2_stretch_units(const struct zq_bounds *b, const uint8_t *entry, uint64_t skew,
                                uint64_t max, struct zq_l2_stretch *s)
{
    uint64_t bitmap = bitmap_of(entry), size = (uint64_t)1 << b->form.cluster_bits, end = size;
    unsigned bits = zq_l2_unit_bits(&b->form), unit = (unsigned)(skew >> bits), begin = unit;
    const char *why = read_extended(b, entry, unit, s->first);

    s->before = skew;
    s->bytes = zq_min(max, size - skew);
    if (why || s->first->type == ZQ_EXT_COMPRESSED)
        return why;
    while (begin && type_of(bitmap, begin - 1) == s->first->type)
        begin--;
    s->before = skew - ((uint64_t)begin << bits);
    end = (uint64_t)run_end(bitmap, unit) << bits;
    for (uint64_t n = 1; end == n * size && end < skew + max; n++)
        end += (uint64_t)units_like(b, entry, n, s->first) << bits;
    s->bytes = zq_min(max, end - skew);
    return NULL;
}

/* ---- clusters ---- */

/*
 * What continues an entry has the same bits, and the next cluster of the file if the entry has one.
 * So it need not be read: it is as sound as the first if its cluster lies in the file.
 */
uint64_t zq_l2_follow(const struct zq_bounds *b, const uint8_t *entry, uint64_t end,
                      const struct zq_l2_entry *first)
{
    uint64_t raw = zq_be64(entry), bitmap = b->form.extended ? bitmap_of(entry) : 0;
    uint64_t step = 0, n = 1, most, width = zq_l2_bytes(&b->form, 1);
    unsigned bits = b->form.cluster_bits;

    if (first->type == ZQ_EXT_COMPRESSED)
        end = zq_min(end, (uint64_t)1 << bits);
    most = ((end - 1) >> bits) + 1;
    if (first->len) {
        uint64_t end_of_file = b->form.external ? ZQ_MAX_HOST_OFFSET : b->file_size;
        uint64_t room = zq_min(end_of_file, ZQ_MAX_HOST_OFFSET) - first->host;

        step = (uint64_t)1 << bits;
        most = zq_min(most, ((room - 1) >> bits) + 1);
    }
    for (; n < most; n++) {
        entry += width;
        raw += step;
        if (zq_be64(entry) != raw || (b->form.extended && bitmap_of(entry) != bitmap))
            break;
    }
    return zq_min(end, n << bits);
}

/* ---- changing ---- */

void zq_l2_link(const struct zq_form *f, uint8_t *entry, uint64_t host, uint32_t n)
{
    uint64_t size = (uint64_t)1 << f->cluster_bits, width = zq_l2_bytes(f, 1);
    bool extended = f->extended;

    for (host |= ZQ_OFLAG_COPIED; n--; host += size, entry += width) {
        zq_put_be64(entry, host);
        if (extended)
            zq_put_be64(entry + 8, ALL_DATA);
    }
}

void zq_l2_link_part(const struct zq_form *f, uint8_t *entry, uint64_t host, uint64_t from,
                     uint64_t to)
{
    uint64_t had, units;

    if (!f->extended) {
        zq_assert(!from && to == (uint64_t)1 << f->cluster_bits);
        zq_l2_link(f, entry, host, 1);
        return;
    }
    units = units_of(f, from, to);
    had = zq_be64(entry) & COMPRESSED ? ALL_DATA : bitmap_of(entry);
    zq_put_be64(entry, host | ZQ_OFLAG_COPIED);
    zq_put_be64(entry + 8, (had | units) & ~(units << UNITS));
}

bool zq_l2_may_pack(const struct zq_form *f, uint64_t end)
{
    return !f->external &&
           end <= zq_min((uint64_t)1 << sectors_shift(f->cluster_bits), ZQ_MAX_HOST_OFFSET);
}

/* What is counted are the sectors behind the first one. Such an entry has no subclusters. */
void zq_l2_link_packed(const struct zq_form *f, uint8_t *entry, uint64_t host, uint64_t bytes)
{
    uint64_t more = bytes / ZQ_SECTOR - 1;

    zq_assert(bytes && !((host | bytes) & (ZQ_SECTOR - 1)));
    zq_assert(bytes < (uint64_t)1 << f->cluster_bits && zq_l2_may_pack(f, host + bytes));
    zq_put_be64(entry, COMPRESSED | more << sectors_shift(f->cluster_bits) | host);
    if (f->extended)
        zq_put_be64(entry + 8, 0);
}

void zq_l2_unlink_part(const struct zq_form *f, uint8_t *entry, uint64_t from, uint64_t to,
                       bool hide)
{
    uint64_t units;

    zq_assert(!(zq_be64(entry) & COMPRESSED));
    if (!f->extended) {
        zq_assert(!from && to == (uint64_t)1 << f->cluster_bits && hide && zq_l2_has_zero(f));
        zq_put_be64(entry, zq_be64(entry) | ZERO);
        return;
    }
    units = units_of(f, from, to);
    zq_put_be64(entry + 8, (bitmap_of(entry) & ~units) | (hide ? units << UNITS : 0));
}

bool zq_l2_is_unlinked_part(const struct zq_form *f, const uint8_t *entry, uint64_t from,
                            uint64_t to, bool hide)
{
    uint64_t units;

    if (!f->extended)
        return hide && zq_be64(entry) & ZERO;
    units = units_of(f, from, to);
    if (hide)
        return (bitmap_of(entry) >> UNITS & units) == units;
    return !(bitmap_of(entry) & units);
}

/*
 * In a data file a place is never another's, whatever the flag says, but one at offset 0 is none
 * for zeros: see read_external().
 */
bool zq_l2_has_place(const struct zq_form *f, const uint8_t *entry)
{
    uint64_t raw = zq_be64(entry);

    if (raw & COMPRESSED)
        return false;
    return raw & (f->external ? ZQ_OFFSET_MASK : ZQ_OFLAG_COPIED);
}

void zq_l2_set_own(const struct zq_form *f, uint8_t *entry, bool own)
{
    uint64_t raw = zq_be64(entry);

    (void)f;
    zq_put_be64(entry, (raw & ~ZQ_OFLAG_COPIED) | (own ? ZQ_OFLAG_COPIED : 0));
}

void zq_l2_set_host(const struct zq_form *f, uint8_t *entry, uint64_t host)
{
    uint64_t keep = f->extended ? 0 : zq_be64(entry) & ZERO;

    zq_put_be64(entry, keep | host | ZQ_OFLAG_COPIED);
}

bool zq_l2_is_zero(const struct zq_form *f, const uint8_t *entry)
{
    if (f->extended)
        return !zq_be64(entry) && bitmap_of(entry) == ALL_ZEROS;
    return zq_l2_has_zero(f) && zq_be64(entry) == ZERO;
}

void zq_l2_set_zero(const struct zq_form *f, uint8_t *entry)
{
    zq_assert(zq_l2_has_zero(f));
    zq_put_be64(entry, f->extended ? 0 : ZERO);
    if (f->extended)
        zq_put_be64(entry + 8, ALL_ZEROS);
}

void zq_l2_keep_known(const struct zq_form *f, uint8_t *entry)
{
    uint64_t raw = zq_be64(entry), known = ZQ_OFFSET_MASK | (f->extended ? 0 : ZERO);
    bool packed = raw & COMPRESSED && !f->external;

    if (f->external)
        known |= COMPRESSED;
    if (f->external || raw & ZQ_OFFSET_MASK)
        known |= ZQ_OFLAG_COPIED;
    if (!packed)
        zq_put_be64(entry, raw & known);
    else if (f->extended)
        zq_put_be64(entry + 8, 0);
}

bool zq_l2_says_copied(const struct zq_form *f, const uint8_t *entry)
{
    (void)f;
    return zq_be64(entry) & ZQ_OFLAG_COPIED;
}
