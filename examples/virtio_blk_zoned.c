/* SPDX-License-Identifier: MIT */
/*
 * The request handler of a zoned virtio-blk device: bytes that the guest wrote in, bytes that it
 * shall read out. Here the guest is a list of recorded requests and of the answers they must get.
 */
#include <errno.h>
#include "recorded.h"

enum {
    T_IN,
    T_OUT,
    T_FLUSH = 4,
    T_APPEND = 15,
    T_REPORT,
    T_OPEN = 18,
    T_CLOSE = 20,
    T_FINISH = 22,
    T_RESET = 24,
    T_RESET_ALL = 26
};
enum { S_OK, S_IOERR, S_UNSUPP, S_INVALID_CMD, S_UNALIGNED_WP, S_OPEN_RESOURCE, S_ACTIVE_RESOURCE };

struct slot {           /* a descriptor chain: guest memory that stays mapped until answered */
    const uint8_t *out; /* header of 16 bytes, then data */
    uint8_t *in;        /* data, or what is answered; the status is its last byte */
    size_t out_len, in_len;
    uint32_t type, answered;
    struct iovec iov;
};

/* Every value of `int` has a status. -EINVAL: outside the device, unaligned, no zone's start. */
static uint8_t status_of(uint32_t type, int rc)
{
    switch (rc) {
    case 0: return S_OK;
    case ZQCOW2_EZONE_WP: return S_UNALIGNED_WP;
    case ZQCOW2_EZONE_OPEN: return S_OPEN_RESOURCE;
    case ZQCOW2_EZONE_ACTIVE: return S_ACTIVE_RESOURCE;
    case ZQCOW2_EZONE_BOUNDARY:
    case ZQCOW2_EZONE_FULL:
    case ZQCOW2_EZONE_RDONLY:
    case ZQCOW2_EZONE_OFFLINE:
    case ZQCOW2_EZONE_STATE: return S_INVALID_CMD;
    case -EINVAL: return type >= T_APPEND ? S_INVALID_CMD : S_IOERR;
    case ZQCOW2_ENOTZONED:
    case -EOPNOTSUPP: return S_UNSUPP;
    default: return S_IOERR;
    }
}

static void answer(struct slot *s, uint8_t status)
{
    s->in[s->in_len - 1] = status;
    s->answered = 1; /* a device puts the chain on the used ring here, and interrupts the guest */
}

static void done(void *arg, const struct zqcow2_result *res)
{
    struct slot *s = arg;

    /* The sector comes first. The standard has 9 bytes here; Linux gives 16, padded in between. */
    if (s->type == T_APPEND && res->ret == 0)
        put(s->in, res->offset / 512, 8);
    answer(s, status_of(s->type, res->ret));
}

static void describe(const struct zqcow2_zone *z, uint8_t *to)
{
    memset(to, 0, 64);
    put(to, z->capacity / 512, 8);
    put(to + 8, z->start / 512, 8);
    put(to + 16, z->write_pointer == UINT64_MAX ? UINT64_MAX : z->write_pointer / 512, 8);
    to[24] = z->type; /* numbered in virtio as here, and so is the state */
    to[25] = z->state;
}

/* No I/O, so it is answered at once: a header of 64 bytes, 64 for each zone that has room. */
static uint8_t report(struct device *d, struct slot *s, uint64_t off)
{
    size_t room = s->in_len > 65 ? (s->in_len - 65) / 64 : 0, n = 0;
    struct zqcow2_zone z = {0};
    int rc = room ? 0 : -EINVAL;

    while (rc == 0 && n < room && (n == 0 || off < d->info.virtual_size)) {
        rc = zqcow2_zone_report(d->img, off, &z, &(uint32_t){1});
        if (rc == 0)
            describe(&z, s->in + 64 + n++ * 64);
        off = z.start + z.length;
    }
    memset(s->in, 0, room ? 64 : 0);
    put(s->in, n, room ? 8 : 0);
    return status_of(T_REPORT, rc);
}

/* False: it never reaches the image. Offsets may be anything: the library looks at them. */
static int translate(const struct device *d, struct slot *s, struct zqcow2_request *r)
{
    static const uint16_t op[] = {[T_IN] = ZQCOW2_OP_READ,
                                  [T_OUT] = ZQCOW2_OP_WRITE,
                                  [T_APPEND] = ZQCOW2_OP_APPEND,
                                  [T_FLUSH] = ZQCOW2_OP_FLUSH,
                                  [T_OPEN] = ZQCOW2_OP_ZONE_OPEN,
                                  [T_CLOSE] = ZQCOW2_OP_ZONE_CLOSE,
                                  [T_FINISH] = ZQCOW2_OP_ZONE_FINISH,
                                  [T_RESET] = ZQCOW2_OP_ZONE_RESET,
                                  [T_RESET_ALL] = ZQCOW2_OP_ZONE_RESET};
    uint64_t left;

    if (s->type > T_RESET_ALL || (s->type != T_IN && !op[s->type]) ||
        (s->type == T_APPEND && s->in_len < 9))
        return 0;
    r->op = op[s->type];
    r->offset = s->type == T_RESET_ALL ? 0 : r->offset;
    left = d->info.virtual_size - r->offset; /* for zone calls: the last zone may be short */
    r->length = s->type == T_RESET_ALL || left < d->info.zone_size ? left : d->info.zone_size;
    r->iovcnt = s->type == T_IN || s->type == T_OUT || s->type == T_APPEND;
    s->iov = s->type == T_IN ? (struct iovec){s->in, s->in_len - 1} :
                               (struct iovec){(void *)(s->out + 16), s->out_len - 16};
    return 1;
}

/* The caller has made sure of a byte for the status; without one there is no answer to give. */
static void handle(struct device *d, struct slot *s)
{
    struct zqcow2_request r = {.size = sizeof(r), .iov = &s->iov, .done = done, .arg = s};
    uint64_t sector = s->out_len < 16 ? 0 : get(s->out + 8, 8);

    s->type = s->out_len < 16 ? UINT32_MAX : (uint32_t)get(s->out, 4);
    r.offset = sector > UINT64_MAX >> 9 ? UINT64_MAX << 9 : sector << 9; /* it must not wrap */
    if (s->type == T_REPORT)
        answer(s, report(d, s, r.offset));
    else if (!translate(d, s, &r))
        answer(s, S_UNSUPP);
    else if (zqcow2_queue_submit(d->queue, &r, 1) != 1) /* cannot be: as deep as the virtqueue */
        answer(s, S_IOERR);
}

/* ---- the guest, who finds one conventional zone and three others of 100h sectors ---- */

static const struct recorded {
    const char *what, *out, *in;
} recorded[] = {
    /* recorded.h */
    {"write, conventional", "01 00*7 08 00*7 11*512", "00"},
    {"read across its end", "00 00*7 07 00*7", "00*512 11*512 00*512 00"},
    {"append to a conventional zone", "0f 00*7 00*8 22*512", "00*15 03"},
    {"append", "0f 00*7 0001 00*6 22*1024", "0001 00*6 00*7 00"},
    {"append, 9 bytes for the answer", "0f 00*7 0001 00*6 33*512", "0201 00*6 00"},
    {"append, not to a start", "0f 00*7 0201 00*6 33*512", "00*15 03"},
    {"append, no room for the sector", "0f 00*7 0001 00*6 33*512", "00*7 02"},
    {"write below the write pointer", "01 00*7 0201 00*6 44*512", "04"},
    {"write at the write pointer", "01 00*7 0301 00*6 44*512", "00"},
    {"write, half a sector", "01 00*7 0401 00*6 44*256", "01"},
    {"read it all, and beyond", "00 00*7 0001 00*6", "22*1024 33*512 44*512 00*512 00"},
    {"report, room for two and a bit", "10 00*7 00*8",
     "02 00*63 0001 00*6 00*8 00*8 01 00 00*38 80 00*7 0001 00*6 0401 00*6 02 02 00*38 00*9 00"},
    {"report, from inside the last", "10 00*7 0503 00*6",
     "01 00*63 80 00*7 0003 00*6 0003 00*6 02 01 00*38 00*64 00"},
    {"append, above the limit", "0f 00*7 0001 00*6 33*33280", "00*15 03"},
    {"report, no room", "10 00*7 00*8", "00*64 03"},
    {"report, beyond", "10 00*7 0004 00*6", "00*128 03"},
    {"open: closes the other", "12 00*7 0002 00*6", "00"},
    {"open a third: active", "12 00*7 0003 00*6", "06"},
    {"write to the closed one: open", "01 00*7 0401 00*6 44*512", "05"},
    {"close", "14 00*7 0002 00*6", "00"},
    {"finish", "16 00*7 0001 00*6", "00"},
    {"write to a full zone", "01 00*7 0401 00*6 44*512", "03"},
    {"write beyond the capacity", "01 00*7 0002 00*6 44*66048", "03"},
    {"open, conventional", "12 00*7 00*8", "03"},
    {"open, not at a start", "12 00*7 0102 00*6", "03"},
    {"open, far beyond", "12 00*7 ff*8", "03"},
    {"read, a sector that wraps", "00 00*7 00*7 80", "00*512 01"},
    {"report what became of it", "10 00*7 0001 00*6",
     "01 00*63 80 00*7 0001 00*6 0002 00*6 02 0e 00*38 00"},
    {"flush", "04 00*7 00*8", "00"},
    {"reset", "18 00*7 0001 00*6", "00"},
    {"reset all, whatever the sector", "1a 00*7 ff*8", "00"},
    {"report, all", "10 00*7 0001 00*6",
     "03 00*63 80 00*7 0001 00*6 0001 00*6 02 01 00*38 80 00*7 0002 00*6 0002 00*6 02 01 00*38 "
     "80 00*7 0003 00*6 0003 00*6 02 01 00*38 00"},
    {"discard is not offered", "0b 00*7 00*8 00*16", "02"},
    {"half a header", "01 00*7", "02"},
};

static int play(struct device *d, const struct recorded *v)
{
    static uint8_t out[RECORDED_MAX], in[RECORDED_MAX], want[RECORDED_MAX];
    struct slot s = {.out = out,
                     .in = in,
                     .out_len = recorded_bytes(v->out, out),
                     .in_len = recorded_bytes(v->in, want)};

    memset(in, 0, sizeof(in));
    handle(d, &s);
    while (!s.answered)
        zqcow2_queue_wait(d->queue, 1, -1); /* a device polls when zqcow2_queue_fd() is readable */
    printf("%s: status %u\n", v->what, in[s.in_len - 1]);
    return recorded_differ(v->what, in, want, s.in_len);
}

int main(void)
{
    struct device d = recorded_device(1);
    int bad = 0;

    for (size_t i = 0; i < sizeof(recorded) / sizeof(recorded[0]); i++)
        bad += play(&d, &recorded[i]);
    return zqcow2_queue_close(d.queue) || zqcow2_close(d.img) || bad;
}
