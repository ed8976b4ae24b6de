/* SPDX-License-Identifier: MIT */
/*
 * The command handler of an NVMe namespace with zones: a submission queue entry in, a completion
 * queue entry out. Reports take their filter, and the Changed Zone List its zones, from the
 * library. Here the host is a list of recorded commands and of what they must be answered.
 */
#include <errno.h>
#include <zqcow2/device.h>
#include "recorded.h"

#define LBA 512u
enum { C_FLUSH, C_WRITE, C_READ, C_ZEROES = 8, C_SEND = 0x79, C_RECEIVE, C_APPEND = 0x7d };
enum { A_GET_LOG = 2, L_CHANGED_ZONES = 0xbf };
enum {
    S_OK,
    S_OPCODE,
    S_FIELD,
    S_INTERNAL = 6,
    S_NAMESPACE = 0xb,
    S_READ_ONLY = 0x20,
    S_RANGE = 0x80,
    S_CAPACITY,
    S_NOT_READY,
    DO_NOT_RETRY = 0x4000
};

struct command {
    const uint8_t *sqe; /* 64 bytes: a copy, for the host may change its own meanwhile */
    uint8_t *cqe;       /* 16 bytes */
    uint8_t *data;      /* where the PRPs lead; mapped until answered */
    size_t data_len;
    struct iovec iov;
    int answered;
};

/* Every value of `int` has a status; what no host can be blamed for is an internal error. */
static int status_of(uint8_t opcode, int rc)
{
    switch (rc) {
    case 0: return S_OK;
    case ZQCOW2_EZONE_BOUNDARY: return 0x1b8;
    case ZQCOW2_EZONE_FULL: return 0x1b9;
    case ZQCOW2_EZONE_RDONLY: return 0x1ba;
    case ZQCOW2_EZONE_OFFLINE: return 0x1bb;
    case ZQCOW2_EZONE_WP: return 0x1bc;
    case ZQCOW2_EZONE_ACTIVE: return 0x1bd;
    case ZQCOW2_EZONE_OPEN: return 0x1be;
    case ZQCOW2_EZONE_STATE: return 0x1bf;
    case -EINVAL: return opcode <= C_ZEROES ? S_RANGE : S_FIELD; /* its end; no start, too large */
    case -ENOSPC:
    case -EDQUOT: return S_CAPACITY;
    case -ENOMEM: return S_NOT_READY;
    case ZQCOW2_ENOTZONED:
    case -EOPNOTSUPP: return S_FIELD;
    case -EROFS: return S_READ_ONLY;
    default: return S_INTERNAL;
    }
}

static void complete(struct command *c, int status)
{
    if (status != S_OK && status != S_NOT_READY)
        status |= DO_NOT_RETRY;
    put(c->cqe + 12, get(c->sqe + 2, 2), 2);
    put(c->cqe + 14, (uint64_t)status << 1, 2); /* the queue adds its head and the phase */
    c->answered = 1;
}

static void done(void *arg, const struct zqcow2_result *res)
{
    struct command *c = arg;

    if (c->sqe[0] == C_APPEND && res->ret == 0)
        put(c->cqe, res->offset / LBA, 8);
    complete(c, status_of(c->sqe[0], res->ret));
}

static void describe(uint8_t *p, const struct zqcow2_zone *z)
{
    p[0] = z->type;
    p[1] = (uint8_t)(z->state << 4); /* the numbers are the same */
    put(p + 8, z->capacity / LBA, 8);
    put(p + 16, z->start / LBA, 8);
    put(p + 24, z->write_pointer == UINT64_MAX ? UINT64_MAX : z->write_pointer / LBA, 8);
}

/* Report zones, without I/O. Unless `partial`, counts what matches beyond the buffer, too. */
static int receive(struct device *d, struct command *c, uint64_t off)
{
    static const uint8_t wanted[] = {
        0, 1, 2, 3, 4, ZQCOW2_ZONE_FULL, ZQCOW2_ZONE_RDONLY, ZQCOW2_ZONE_OFFLINE};
    uint64_t len = (get(c->sqe + 48, 4) + 1) * 4, room = len / 64 - 1, n = 0;
    uint8_t action = c->sqe[52], filter = c->sqe[53], partial = c->sqe[54] & 1;
    uint32_t states = filter && filter < sizeof(wanted) ? ZQCOW2_STATE_BIT(wanted[filter]) : 0;
    struct zqcow2_zone z[16];

    if (action != 0 || filter >= sizeof(wanted) || len < 64 || len > c->data_len)
        return S_FIELD;
    memset(c->data, 0, (size_t)len);
    while (off < d->info.virtual_size && !(partial && n == room)) {
        uint32_t nr = n < room && room - n < 16 ? (uint32_t)(room - n) : 16;

        if (zqcow2_zone_find(d->img, &off, states, n < room ? z : NULL, &nr))
            return S_INTERNAL;
        for (uint32_t i = 0; i < nr && n + i < room; i++)
            describe(c->data + 64 + (n + i) * 64, &z[i]);
        n += nr;
    }
    put(c->data, n, 8);
    return S_OK;
}

/*
 * Get Log Page, of which this namespace has the Changed Zone List. A device also turns
 * ZQCOW2_EVENT_ZONES_CHANGED into the asynchronous event that has the host read it.
 */
static int get_log(struct device *d, struct command *c, uint64_t *since)
{
    uint64_t len = (get(c->sqe + 42, 4) + 1) * 4, zones[511];
    uint32_t nr = 511;
    int rc;

    if (c->sqe[0] != A_GET_LOG)
        return S_OPCODE;
    if (c->sqe[40] != L_CHANGED_ZONES)
        return 0x109; /* no such log page */
    if (len != 4096 || len > c->data_len)
        return S_FIELD;
    rc = zqcow2_zone_changes(d->img, since, zones, &nr);
    memset(c->data, 0, (size_t)len);
    put(c->data, rc < 0 ? 0xffff : nr, 2); /* more than fits: the host looks at all zones */
    for (uint32_t i = 0; rc == 0 && i < nr; i++)
        put(c->data + 8 + i * 8, zones[i] / LBA, 8);
    return S_OK;
}

/* These return S_OK when *r is ready to go. */
static int send(struct device *d, struct command *c, struct zqcow2_request *r)
{
    static const uint8_t action[] = {0, ZQCOW2_OP_ZONE_CLOSE, ZQCOW2_OP_ZONE_FINISH,
                                     ZQCOW2_OP_ZONE_OPEN, ZQCOW2_OP_ZONE_RESET};
    uint64_t left = d->info.virtual_size - r->offset; /* the last zone may be short */
    uint8_t what = c->sqe[52], all = c->sqe[53] & 1;

    if (what == 0 || what >= sizeof(action))
        return S_FIELD; /* also "offline": no zone of ours becomes read-only by itself */
    r->op = action[what];
    r->length = all || left < d->info.zone_size ? left : d->info.zone_size;
    return S_OK;
}

static int transfer(struct command *c, struct zqcow2_request *r)
{
    static const uint8_t op[] = {[C_FLUSH] = ZQCOW2_OP_FLUSH,
                                 [C_WRITE] = ZQCOW2_OP_WRITE,
                                 [C_READ] = ZQCOW2_OP_READ,
                                 [C_ZEROES] = ZQCOW2_OP_WRITE_ZEROES,
                                 [C_APPEND] = ZQCOW2_OP_APPEND};
    uint8_t opcode = c->sqe[0];

    if (opcode >= sizeof(op) || (opcode != C_READ && !op[opcode]))
        return S_OPCODE;
    r->op = op[opcode];
    r->length = (get(c->sqe + 48, 2) + 1) * LBA;
    r->flags = opcode != C_READ && opcode != C_FLUSH && c->sqe[51] & 0x40 ? ZQCOW2_FUA : 0;
    if (opcode == C_ZEROES && !(c->sqe[51] & 0x02)) /* DEAC: may deallocate */
        r->flags |= ZQCOW2_NO_UNMAP;
    r->iovcnt = opcode == C_READ || opcode == C_WRITE || opcode == C_APPEND;
    c->iov = (struct iovec){c->data, (size_t)r->length};
    return r->iovcnt && r->length > c->data_len ? S_FIELD : S_OK;
}

static void handle(struct device *d, struct command *c)
{
    struct zqcow2_request r = {.size = sizeof(r), .iov = &c->iov, .done = done, .arg = c};
    uint8_t op = c->sqe[0], all = op == C_FLUSH || (op == C_SEND && c->sqe[53] & 1);
    uint64_t slba = all ? 0 : get(c->sqe + 40, 8);
    int status = get(c->sqe + 4, 4) != 1            ? S_NAMESPACE :
                 slba >= d->info.virtual_size / LBA ? S_RANGE :
                                                      S_OK;

    r.offset = slba * LBA; /* wraps only if refused already */
    if (status == S_OK && op == C_RECEIVE) {
        complete(c, receive(d, c, r.offset));
        return;
    }
    if (status == S_OK)
        status = op == C_SEND ? send(d, c, &r) : transfer(c, &r);
    if (status == S_OK && zqcow2_queue_submit(d->queue, &r, 1) != 1)
        status = S_NOT_READY; /* cannot be: the queue is as deep as the host's */
    if (status != S_OK)
        complete(c, status); /* else done() does */
}

/* ---- the host, who finds four zones of 100h blocks, 80h of them usable ---- */

#define SQE(op, rest) op " 00 0100 01000000 00*32 " rest
#define CQE(status)   "00*12 0100 " status
#define AT(lba)       lba "01 00*6 00*4 0100 0000"
static const struct recorded {
    const char *what, *sqe, *out, *cqe, *in;
} recorded[] = {
    {"append", SQE("7d", "0001 00*6 0100 00*10 00*4"), "22*1024", AT("00"), ""},
    {"append, FUA", SQE("7d", "0001 00*6 00*3 40 00*12"), "33*512", AT("02"), ""},
    {"append, not to a start", SQE("7d", "0101 00*6 00*16"), "33*512", CQE("0480"), ""},
    {"append, above the limit", SQE("7d", "0001 00*6 40 00*15"), "33*33280", CQE("0480"), ""},
    {"write below the pointer", SQE("01", "0101 00*6 00*16"), "44*512", CQE("7883"), ""},
    {"write at the pointer", SQE("01", "0301 00*6 00*16"), "44*512", CQE("0000"), ""},
    {"write zeroes", SQE("08", "0401 00*6 00*16"), "", CQE("0000"), ""},
    {"read, and beyond the pointer", SQE("02", "0001 00*6 05 00*15"), "", CQE("0000"),
     "22*1024 33*512 44*512 00*1024"},
    {"read far beyond", SQE("02", "00*7 80 00*16"), "", CQE("0081"), ""},
    {"read across the end", SQE("02", "ff03 00*6 01 00*15"), "", CQE("0081"), ""},
    {"read too much at once", SQE("02", "00*8 ffff 00*14"), "", CQE("0480"), ""},
    {"report two", SQE("7a", "00*8 2f 00*15"), "", CQE("0000"),
     "04 00*63 02 10 00*6 80 00*7 00*48 02 20 00*6 80 00*7 0001 00*6 0501 00*6 00*32"},
    {"report one, partial", SQE("7a", "0202 00*6 1f 00*5 01 00*9"), "", CQE("0000"),
     "01 00*63 02 10 00*6 80 00*7 0002 00*6 0002 00*6 00*32"},
    {"report, open implicitly", SQE("7a", "00*8 1f 00*4 02 00*10"), "", CQE("0000"),
     "01 00*63 02 20 00*6 80 00*7 0001 00*6 0501 00*6 00*32"},
    {"open: closes the other", SQE("79", "0002 00*6 00*4 03 00*11"), "", CQE("0000"), ""},
    {"open a third", SQE("79", "0003 00*6 00*4 03 00*11"), "", CQE("7a83"), ""},
    {"write to the closed one", SQE("01", "0501 00*6 00*16"), "44*512", CQE("7c83"), ""},
    {"close", SQE("79", "0002 00*6 00*4 01 00*11"), "", CQE("0000"), ""},
    {"finish", SQE("79", "0001 00*6 00*4 02 00*11"), "", CQE("0000"), ""},
    {"write to a full zone", SQE("01", "0501 00*6 00*16"), "44*512", CQE("7283"), ""},
    {"write beyond the capacity", SQE("01", "0002 00*6 80 00*15"), "44*66048", CQE("7083"), ""},
    {"reset", SQE("79", "0001 00*6 00*4 04 00*11"), "", CQE("0000"), ""},
    {"reset all", SQE("79", "ff*8 00*4 04 01 00*10"), "", CQE("0000"), ""},
    {"flush", SQE("00", "00*24"), "", CQE("0000"), ""},
    {"no such command", SQE("05", "00*24"), "", CQE("0280"), ""},
    {"no such namespace", "02 00 0100 02000000 00*56", "", CQE("1680"), ""},
};

/* The first command comes after zone 2 has gone offline, the second has nothing new. */
static const struct recorded admin[] = {
    {"changed zones", SQE("02", "bf00 ff03 00*20"), "", CQE("0000"), "01 00*7 0002 00*6 00*4080"},
    {"changed zones, again", SQE("02", "bf00 ff03 00*20"), "", CQE("0000"), "00*4096"},
    {"changed zones, too short", SQE("02", "bf00 ff01 00*20"), "", CQE("0480"), ""},
    {"another log page", SQE("02", "0200 7f00 00*20"), "", CQE("1282"), ""},
};

/* since: where an admin command keeps what the host has seen; NULL: it is an I/O command. */
static int play(struct device *d, const struct recorded *v, uint64_t *since)
{
    static uint8_t sqe[RECORDED_MAX], cqe[16], data[RECORDED_MAX], want[RECORDED_MAX];
    struct command c = {.sqe = sqe, .cqe = cqe, .data = data, .data_len = sizeof(data)};
    int bad = recorded_bytes(v->sqe, sqe) != 64;

    memset(cqe, 0, sizeof(cqe));
    recorded_bytes(v->out, data);
    if (since)
        complete(&c, get_log(d, &c, since));
    else
        handle(d, &c);
    while (!c.answered)
        zqcow2_queue_wait(d->queue, 1, -1); /* a device polls when zqcow2_queue_fd() is readable */
    printf("%s: status %03x\n", v->what, (unsigned)get(cqe + 14, 2) >> 1 & 0x7ff);
    bad += recorded_differ(v->what, cqe, want, recorded_bytes(v->cqe, want));
    return bad + recorded_differ(v->what, data, want, recorded_bytes(v->in, want));
}

int main(void)
{
    struct device d = recorded_device(0);
    uint64_t since = 0;
    int bad = 0;

    for (size_t i = 0; i < sizeof(recorded) / sizeof(recorded[0]); i++)
        bad += play(&d, &recorded[i], NULL);
    bad += zqcow2_zone_set_state(d.img, 2 * d.info.zone_size, ZQCOW2_ZONE_OFFLINE) != 0;
    for (size_t i = 0; i < sizeof(admin) / sizeof(admin[0]); i++)
        bad += play(&d, &admin[i], &since);
    return zqcow2_queue_close(d.queue) || zqcow2_close(d.img) || bad;
}
