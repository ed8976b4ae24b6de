/* SPDX-License-Identifier: MIT */
/* One request of the guest. Buffers are used where they lie; what decides is copied out first. */
#include "vhost/request.h"

#include <endian.h>
#include <errno.h>
#include <string.h>

#define SECTOR        512u
#define DATA_MAX      ((uint64_t)VHOST_SIZE_MAX * VHOST_SEG_MAX)
#define APPEND_ANSWER 9u
#define ZONES_AT_ONCE 16u

/* ---- vectors ---- */

/* Moves the first bytes of a vector to `to`; false: it has less. */
static bool take_front(struct iovec **iov, uint32_t *n, void *to, size_t size)
{
    uint8_t *out = to;

    while (size && *n) {
        size_t piece = (*iov)->iov_len < size ? (*iov)->iov_len : size;

        memcpy(out, (*iov)->iov_base, piece);
        out += piece;
        size -= piece;
        (*iov)->iov_base = (uint8_t *)(*iov)->iov_base + piece;
        (*iov)->iov_len -= piece;
        if (!(*iov)->iov_len) {
            (*iov)++;
            (*n)--;
        }
    }
    return !size;
}

/* Copies into a vector, `skip` bytes behind its start. */
static void copy_to(const struct iovec *iov, uint32_t n, uint64_t skip, const void *from,
                    size_t size)
{
    const uint8_t *in = from;

    for (uint32_t i = 0; i < n && size; i++) {
        size_t room = iov[i].iov_len, piece;

        if (skip >= room) {
            skip -= room;
            continue;
        }
        piece = room - (size_t)skip < size ? room - (size_t)skip : size;
        memcpy((uint8_t *)iov[i].iov_base + skip, in, piece);
        in += piece;
        size -= piece;
        skip = 0;
    }
}

static uint64_t total(const struct iovec *iov, uint32_t n)
{
    uint64_t sum = 0;

    for (uint32_t i = 0; i < n; i++)
        sum += iov[i].iov_len;
    return sum;
}

/* ---- answers ---- */

static void answer(struct vhost_request *r, uint8_t status)
{
    *r->status = status;
    r->good = status == BLK_S_OK;
    r->answer(r, (uint32_t)(r->in_bytes < UINT32_MAX ? r->in_bytes : UINT32_MAX));
}

/* Of whatever concerns zones, an impossible range is an invalid command. */
static uint8_t status_of(uint32_t type, int rc)
{
    switch (rc) {
    case 0: return BLK_S_OK;
    case ZQCOW2_EZONE_WP: return BLK_S_ZONE_UNALIGNED_WP;
    case ZQCOW2_EZONE_OPEN: return BLK_S_ZONE_OPEN_RESOURCE;
    case ZQCOW2_EZONE_ACTIVE: return BLK_S_ZONE_ACTIVE_RESOURCE;
    case ZQCOW2_EZONE_BOUNDARY:
    case ZQCOW2_EZONE_FULL:
    case ZQCOW2_EZONE_RDONLY:
    case ZQCOW2_EZONE_OFFLINE:
    case ZQCOW2_EZONE_STATE: return BLK_S_ZONE_INVALID_CMD;
    case -EINVAL: return type >= BLK_T_ZONE_APPEND ? BLK_S_ZONE_INVALID_CMD : BLK_S_IOERR;
    case ZQCOW2_ENOTZONED:
    case -EOPNOTSUPP: return BLK_S_UNSUPP;
    default: return BLK_S_IOERR;
    }
}

/* Linux has 16 bytes for the answer to an append, the standard 9: the sector is the first of both.
 */
static void done(void *arg, const struct zqcow2_result *res)
{
    struct vhost_request *r = arg;

    if (r->header.type == BLK_T_ZONE_APPEND && res->ret == 0) {
        uint64_t sector = htole64(res->offset / SECTOR);

        copy_to(r->in, r->ins, 0, &sector, sizeof(sector));
    }
    answer(r, status_of(r->header.type, res->ret));
}

/* Without an accepted flush, what is answered must be durable. */
static void submit(struct vhost_request *r, struct zqcow2_request *q)
{
    q->size = sizeof(*q);
    q->arg = r;
    q->done = q->done ? q->done : done;
    if (!vhost_disk_has(r->disk, BLK_F_FLUSH))
        q->flags |= ZQCOW2_FUA;
    if (zqcow2_queue_submit(r->zq, q, 1) != 1) /* cannot be: it is as deep as the ring */
        answer(r, BLK_S_IOERR);
}

/* ---- data ---- */

/* A driver that knows of no zones may read those that want to be written in sequence. */
static bool hidden_zone(const struct vhost_request *r, uint64_t off, uint64_t len)
{
    const struct zqcow2_info *i = r->disk->info;

    return i->zone_size && !vhost_disk_has(r->disk, BLK_F_ZONED) &&
           off + len > i->nr_conventional * i->zone_size;
}

/* With blocks of 4096 bytes a write that ends within one misses the granularity of the zone. */
static bool misses_granularity(const struct vhost_request *r, uint64_t off, uint64_t len)
{
    const struct zqcow2_info *i = r->disk->info;

    return i->zone_size && off >= i->nr_conventional * i->zone_size &&
           (off + len) % i->block_size && r->header.type != BLK_T_IN;
}

/* 0, or the status of a request that never reaches the image. */
static uint8_t refuse_data(const struct vhost_request *r, uint64_t off, uint64_t len)
{
    uint64_t size = serve_size(r->disk->info);

    if (len % SECTOR || len > DATA_MAX)
        return BLK_S_IOERR;
    if (off > size || len > size - off)
        return r->header.type >= BLK_T_ZONE_APPEND ? BLK_S_ZONE_INVALID_CMD : BLK_S_IOERR;
    if (r->header.type != BLK_T_IN && (r->disk->read_only || hidden_zone(r, off, len)))
        return BLK_S_IOERR;
    return misses_granularity(r, off, len) ? BLK_S_ZONE_UNALIGNED_WP : 0;
}

static void move_data(struct vhost_request *r, uint64_t off)
{
    bool in = r->header.type == BLK_T_IN;
    struct zqcow2_request q = {.op = in                          ? ZQCOW2_OP_READ :
                                     r->header.type == BLK_T_OUT ? ZQCOW2_OP_WRITE :
                                                                   ZQCOW2_OP_APPEND,
                               .offset = off,
                               .iov = in ? r->in : r->out,
                               .iovcnt = in ? r->ins : r->outs};
    uint64_t len = total(q.iov, q.iovcnt);
    uint8_t refused = refuse_data(r, off, len);

    if (refused)
        answer(r, refused);
    else if (r->header.type == BLK_T_ZONE_APPEND && len > vhost_disk_largest_append(r->disk))
        answer(r, BLK_S_ZONE_INVALID_CMD);
    else
        submit(r, &q);
}

static void get_id(struct vhost_request *r)
{
    copy_to(r->in, r->ins, 0, r->disk->id, sizeof(r->disk->id));
    answer(r, BLK_S_OK);
}

/* ---- discard and zeros: range after range ---- */

static void next_range(struct vhost_request *r);

static void range_done(void *arg, const struct zqcow2_result *res)
{
    struct vhost_request *r = arg;

    if (res->ret < 0 || r->next_range == r->ranges)
        answer(r, status_of(r->header.type, res->ret));
    else
        next_range(r);
}

static void next_range(struct vhost_request *r)
{
    const struct blk_range *b = &r->range[r->next_range++];
    struct zqcow2_request q = {.op = r->header.type == BLK_T_DISCARD ? ZQCOW2_OP_DISCARD :
                                                                       ZQCOW2_OP_WRITE_ZEROES,
                               .offset = b->sector * SECTOR,
                               .length = (uint64_t)b->sectors * SECTOR,
                               .done = range_done};

    if (r->header.type == BLK_T_WRITE_ZEROES && !(b->flags & BLK_RANGE_UNMAP))
        q.flags = ZQCOW2_NO_UNMAP;
    submit(r, &q);
}

static uint8_t refuse_range(const struct vhost_request *r, const struct blk_range *b)
{
    uint64_t sectors = serve_size(r->disk->info) / SECTOR;

    if (b->flags & ~BLK_RANGE_UNMAP || (b->flags && r->header.type == BLK_T_DISCARD))
        return BLK_S_UNSUPP;
    return b->sector > sectors || b->sectors > sectors - b->sector ? BLK_S_IOERR : 0;
}

/* All of them are looked at before the first takes effect. */
static void change_ranges(struct vhost_request *r, unsigned feature)
{
    uint64_t bytes = total(r->out, r->outs);
    uint8_t refused = 0;

    if (!vhost_disk_has(r->disk, feature)) {
        answer(r, BLK_S_UNSUPP);
        return;
    }
    r->ranges = (uint32_t)(bytes / sizeof(r->range[0]));
    r->next_range = 0;
    if (!bytes || bytes % sizeof(r->range[0]) || bytes > sizeof(r->range) || r->disk->read_only) {
        answer(r, BLK_S_IOERR);
        return;
    }
    take_front(&r->out, &r->outs, r->range, (size_t)bytes);
    for (uint32_t i = 0; i < r->ranges && !refused; i++) {
        struct blk_range *b = &r->range[i];

        *b = (struct blk_range){le64toh(b->sector), le32toh(b->sectors), le32toh(b->flags)};
        refused = refuse_range(r, b);
    }
    if (refused)
        answer(r, refused);
    else
        next_range(r);
}

/* ---- zones ---- */

static void describe(const struct zqcow2_zone *z, struct blk_zone *to)
{
    uint64_t wp = z->write_pointer == UINT64_MAX ? UINT64_MAX : z->write_pointer / SECTOR;

    *to = (struct blk_zone){.capacity = htole64(z->capacity / SECTOR),
                            .start = htole64(z->start / SECTOR),
                            .wp = htole64(wp),
                            .type = z->type, /* numbered in virtio as here, and so is the state */
                            .state = z->state};
}

/* Zones from `off` on, to the n-th of the answer; how many there were, or an error. */
static int report_some(struct vhost_request *r, uint64_t off, uint64_t n, uint32_t most)
{
    struct zqcow2_zone z[ZONES_AT_ONCE];
    struct blk_zone to[ZONES_AT_ONCE];
    uint32_t nr = most < ZONES_AT_ONCE ? most : ZONES_AT_ONCE;
    int rc = zqcow2_zone_report(r->disk->img, off, z, &nr);

    for (uint32_t i = 0; rc == 0 && i < nr; i++)
        describe(&z[i], &to[i]);
    if (rc == 0)
        copy_to(r->in, r->ins, sizeof(struct blk_zone_report) + n * sizeof(to[0]), to,
                nr * sizeof(to[0]));
    return rc < 0 ? rc : (int)nr;
}

/*
 * Needs no I/O, so it is answered at once. What is left of the room is zeros; a room of many times
 * the same memory would only take time.
 */
static void report_zones(struct vhost_request *r, uint64_t off)
{
    uint64_t bytes = total(r->in, r->ins), size = serve_size(r->disk->info), n = 0;
    uint64_t room = bytes > sizeof(struct blk_zone_report) ?
                        (bytes - sizeof(struct blk_zone_report)) / sizeof(struct blk_zone) :
                        0;
    struct blk_zone_report head = {0};
    int got = bytes < sizeof(head) || bytes > DATA_MAX || off >= size ? -EINVAL : 1;

    if (got > 0) {
        for (uint32_t i = 0; i < r->ins; i++)
            memset(r->in[i].iov_base, 0, r->in[i].iov_len);
    }
    while (got > 0 && n < room && off < size) {
        got = report_some(r, off, n, (uint32_t)(room - n < UINT32_MAX ? room - n : UINT32_MAX));
        n += got > 0 ? (uint64_t)got : 0;
        off = off / r->disk->info->zone_size * r->disk->info->zone_size +
              (got > 0 ? (uint64_t)got : 0) * r->disk->info->zone_size;
    }
    head.nr_zones = htole64(n);
    if (got >= 0)
        copy_to(r->in, r->ins, 0, &head, sizeof(head));
    answer(r, status_of(r->header.type, got < 0 ? got : 0));
}

/* The last zone may be short. */
static void manage_zone(struct vhost_request *r, uint64_t off)
{
    const struct zqcow2_info *i = r->disk->info;
    bool all = r->header.type == BLK_T_ZONE_RESET_ALL;
    uint64_t size = serve_size(i), left = off < size ? size - off : 0;
    struct zqcow2_request q = {.offset = all ? 0 : off,
                               .length = all                 ? size :
                                         left < i->zone_size ? left :
                                                               i->zone_size};

    switch (r->header.type) {
    case BLK_T_ZONE_OPEN: q.op = ZQCOW2_OP_ZONE_OPEN; break;
    case BLK_T_ZONE_CLOSE: q.op = ZQCOW2_OP_ZONE_CLOSE; break;
    case BLK_T_ZONE_FINISH: q.op = ZQCOW2_OP_ZONE_FINISH; break;
    default: q.op = ZQCOW2_OP_ZONE_RESET; break;
    }
    if (!all && !left)
        answer(r, BLK_S_ZONE_INVALID_CMD);
    else
        submit(r, &q);
}

static void zone_request(struct vhost_request *r, uint64_t off)
{
    switch (r->header.type) {
    case BLK_T_ZONE_APPEND:
        if (r->in_bytes < APPEND_ANSWER)
            answer(r, BLK_S_ZONE_INVALID_CMD);
        else
            move_data(r, off);
        break;
    case BLK_T_ZONE_REPORT: report_zones(r, off); break;
    case BLK_T_ZONE_OPEN:
    case BLK_T_ZONE_CLOSE:
    case BLK_T_ZONE_FINISH:
    case BLK_T_ZONE_RESET:
    case BLK_T_ZONE_RESET_ALL:
        if (r->disk->read_only)
            answer(r, BLK_S_IOERR);
        else
            manage_zone(r, off);
        break;
    default: answer(r, BLK_S_UNSUPP); break;
    }
}

/* ---- */

/* The status is the last byte of what the guest can read; the header the first of what it wrote. */
static bool take_apart(struct vhost_request *r)
{
    struct vhost_chain *c = &r->chain;
    struct iovec *last;

    if (!c->in)
        return false;
    r->out = c->iov;
    r->outs = c->out;
    r->in = c->iov + c->out;
    r->ins = c->in;
    r->in_bytes = c->in_bytes;
    last = &r->in[r->ins - 1];
    r->status = (uint8_t *)last->iov_base + last->iov_len - 1;
    if (!--last->iov_len)
        r->ins--;
    return true;
}

bool vhost_request_changes(const struct vhost_request *r)
{
    return r->header.type == BLK_T_OUT || r->header.type == BLK_T_DISCARD ||
           r->header.type == BLK_T_WRITE_ZEROES;
}

bool vhost_request_has_flushed(const struct vhost_request *r)
{
    return r->header.type == BLK_T_FLUSH && r->good;
}

/* The guest relies on what it has flushed: it must hear that something before that is gone. */
static void flush(struct vhost_request *r)
{
    struct zqcow2_request q = {.op = ZQCOW2_OP_FLUSH};

    if (__atomic_exchange_n(&r->disk->lost, false, __ATOMIC_ACQ_REL))
        answer(r, BLK_S_IOERR);
    else
        submit(r, &q);
}

static void perform(struct vhost_request *r)
{
    uint64_t off = r->header.sector > UINT64_MAX / SECTOR ? UINT64_MAX - SECTOR + 1 :
                                                            r->header.sector * SECTOR;

    switch (r->header.type) {
    case BLK_T_IN:
    case BLK_T_OUT: move_data(r, off); break;
    case BLK_T_FLUSH: flush(r); break;
    case BLK_T_GET_ID: get_id(r); break;
    case BLK_T_DISCARD: change_ranges(r, BLK_F_DISCARD); break;
    case BLK_T_WRITE_ZEROES: change_ranges(r, BLK_F_WRITE_ZEROES); break;
    default:
        if (vhost_disk_has(r->disk, BLK_F_ZONED))
            zone_request(r, off);
        else
            answer(r, BLK_S_UNSUPP);
    }
}

void vhost_request_begin(struct vhost_request *r)
{
    r->good = false;
    r->header.type = UINT32_MAX;
    if (!take_apart(r)) { /* there is no room for a status, so none is given */
        r->answer(r, 0);
    } else if (!take_front(&r->out, &r->outs, &r->header, sizeof(r->header))) {
        r->header.type = UINT32_MAX; /* a part of it may have been taken */
        answer(r, BLK_S_UNSUPP);
    } else {
        r->header.type = le32toh(r->header.type);
        r->header.sector = le64toh(r->header.sector);
        if (serve_faults_are_cut(r->disk->faults))
            answer(r, BLK_S_IOERR);
        else
            perform(r);
    }
}
