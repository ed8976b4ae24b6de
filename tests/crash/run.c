/* SPDX-License-Identifier: MIT */
/* Runs a workload on an image, blocking or queued, and notes what was acknowledged when. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "crash.h"

struct flight {
    struct run *run;
    struct zqcow2_request req;
    struct iovec iov[ELEMENTS];
    uint8_t *buf;
    uint32_t act;
    bool busy;
};

static void *must(void *p)
{
    if (!p)
        abort();
    return p;
}

static void fail(struct run *r, const char *what, int rc)
{
    if (!r->broken)
        snprintf(r->why, sizeof(r->why), "%s: %s (%d)", what, zqcow2_strerror(rc), rc);
    r->broken = rc ? rc : -EIO;
}

static void hang(struct run *r)
{
    r->hung = true;
    fail(r, "the queue hangs", 0);
}

static void note(struct run *r, uint32_t act, bool ack)
{
    r->moments = must(realloc(r->moments, (r->nmoments + 1) * sizeof(*r->moments)));
    r->moments[r->nmoments++] = (struct moment){disk_position(r->disk), act, ack};
}

static bool is_dead(const struct run *r)
{
    struct zqcow2_info info = ZQCOW2_INFO_INIT;

    return r->failed && zqcow2_get_info(r->img, &info) == 0 && (info.flags & ZQCOW2_INFO_DEAD);
}

static uint32_t new_act(struct run *r, const struct act *a)
{
    r->acts = must(realloc(r->acts, (r->nacts + 1) * sizeof(*r->acts)));
    r->acts[r->nacts] = *a;
    r->acts[r->nacts].late = is_dead(r);
    note(r, r->nacts, false);
    return r->nacts++;
}

/* Refused for its arguments or limits: I13, it changed nothing. */
static bool refused(int rc)
{
    return (rc <= -10000 && rc != ZQCOW2_EDEAD) || rc == -EINVAL || rc == -EOPNOTSUPP;
}

/* A dead image does not look where a write would go: one that could never have been taken. */
static bool misplaced(const struct run *r, const struct act *a)
{
    uint64_t start = zone_start(&r->shape, a->zone);

    return (a->kind == ACT_WRITE || a->kind == ACT_ZERO) &&
           (a->off < start || a->off + a->len > start + zone_room(&r->shape, a->zone));
}

static void judge_read(struct run *r, const struct act *a, const uint8_t *buf);

static void finished(struct run *r, uint32_t act, const struct zqcow2_result *res,
                     const uint8_t *buf)
{
    struct act *a = &r->acts[act];

    a->result = res->ret;
    if (res->ret < 0) {
        r->unsure = true;
        r->failed |= r->faulty && !refused(res->ret);
        if (refused(res->ret) || a->late || misplaced(r, a))
            a->kind = ACT_OTHER;
        else if (!r->faulty)
            fail(r, "request", res->ret);
    } else if (a->append) {
        a->off = res->offset;
    } else if (a->kind == ACT_READ) {
        judge_read(r, a, buf);
    }
    note(r, act, true);
}

int run_open(struct run *r)
{
    struct zqcow2_open_options o;
    struct zqcow2_error err = {0, ""};
    int rc = disk_backend(r->disk, THE_IMAGE, &r->be);

    open_options(r->disk, &o, true);
    if (rc == 0) {
        rc = zqcow2_open(r->be, &o, &r->img, &err);
        if (rc < 0)
            zqcow2_backend_close(r->be);
    }
    if (rc == 0 && r->flights)
        rc = zqcow2_queue_open(r->img, BATCH, &r->queue);
    if (rc < 0)
        fail(r, "open", rc);
    r->unsure = true;
    return rc;
}

static void close_image(struct run *r)
{
    struct act flush = {.kind = ACT_FLUSH};
    uint32_t act = new_act(r, &flush);
    int rc = r->queue ? zqcow2_queue_close(r->queue) : 0;

    r->queue = NULL;
    if (rc == 0)
        rc = zqcow2_close(r->img);
    r->img = NULL;
    r->acts[act].result = rc;
    r->failed |= rc < 0;
    if (rc < 0 && !r->faulty)
        fail(r, "close", rc);
    note(r, act, true);
}

int run_begin(struct run *r, const struct crash_geometry *g, struct disk *disk, bool async,
              bool faulty, uint64_t seed, uint32_t first_req)
{
    memset(r, 0, sizeof(*r));
    r->g = g;
    r->disk = disk;
    r->rng = seed;
    r->faulty = faulty;
    r->req = first_req;
    fill_shape(&r->shape, g);
    if (async)
        r->flights = must(calloc(BATCH, sizeof(*r->flights)));
    return run_open(r);
}

static void done(void *arg, const struct zqcow2_result *res)
{
    struct flight *f = arg;

    f->busy = false;
    f->run->in_flight--;
    finished(f->run, f->act, res, f->buf);
    free(f->buf);
}

static void settle(struct run *r)
{
    while (r->queue && r->in_flight && !r->hung) {
        if (zqcow2_queue_wait(r->queue, 1, 10000) <= 0)
            hang(r);
    }
}

/* The report says where writes go; lives are only counted. */
static void ask(struct run *r)
{
    struct zqcow2_zone zones[MAX_ZONES];
    uint32_t nr = MAX_ZONES;
    int rc;

    settle(r);
    r->unsure = false;
    if (!r->g->zone_size || r->broken)
        return;
    rc = zqcow2_zone_report(r->img, 0, zones, &nr);
    if (rc < 0) {
        fail(r, "report", rc);
        return;
    }
    for (uint32_t z = r->shape.conventional; z < nr; z++)
        r->next[z] =
            zones[z].state == ZQCOW2_ZONE_FULL ? 0 : zones[z].write_pointer - zones[z].start;
}

/* In one piece, or in uneven ones that end where no sector ends. */
static uint32_t elements(const struct run *r, struct iovec *iov, uint8_t *buf, size_t len)
{
    uint32_t n = r->g->max_iov ? ELEMENTS : 1;

    for (uint32_t i = 0; i < n; i++) {
        size_t from = i * (len / ELEMENTS), to = i + 1 < n ? (i + 1) * (len / ELEMENTS) : len;

        iov[i] = (struct iovec){buf + from, to - from};
    }
    return n;
}

/* a is the act, req the request without buffers; takes buf. */
static void issue(struct run *r, const struct act *a, struct zqcow2_request *req, uint8_t *buf)
{
    struct iovec iov[ELEMENTS];
    struct zqcow2_result res = {0, 0, 0};
    struct flight *f = r->flights;
    uint32_t act;

    req->size = sizeof(*req);
    req->flags = a->fua ? ZQCOW2_FUA : 0;
    if (req->op == ZQCOW2_OP_WRITE_ZEROES && a->req % 3 == 0)
        req->flags |= ZQCOW2_NO_UNMAP;
    req->iovcnt = buf ? elements(r, iov, buf, (size_t)a->len) : 0;
    if (!r->queue) {
        act = new_act(r, a);
        req->iov = buf ? iov : NULL;
        zqcow2_run(r->img, req, &res);
        finished(r, act, &res, buf);
        free(buf);
        return;
    }
    while (r->in_flight == BATCH && !r->hung) {
        if (zqcow2_queue_wait(r->queue, 1, 10000) <= 0)
            hang(r);
    }
    while (f < r->flights + BATCH && f->busy)
        f++;
    if (f == r->flights + BATCH) {
        free(buf);
        return;
    }
    f->run = r;
    f->busy = true;
    f->buf = buf;
    if (buf)
        memcpy(f->iov, iov, sizeof(iov));
    f->req = *req;
    f->req.iov = buf ? f->iov : NULL;
    f->req.done = done;
    f->req.arg = f;
    f->act = new_act(r, a);
    r->in_flight++;
    if (zqcow2_queue_submit(r->queue, &f->req, 1) != 1)
        fail(r, "queue_submit", -EAGAIN);
    if (draw(&r->rng) % 3 == 0)
        zqcow2_queue_poll(r->queue, 0);
}

static void put_at(struct run *r, uint16_t op, uint32_t zone, uint64_t off, uint64_t len, bool fua)
{
    struct act a = {.kind = op == ZQCOW2_OP_WRITE || op == ZQCOW2_OP_APPEND ? ACT_WRITE : ACT_ZERO,
                    .fua = fua,
                    .req = ++r->req,
                    .zone = zone,
                    .life = r->life[zone],
                    .stamped = off,
                    .off = off,
                    .len = len,
                    .append = op == ZQCOW2_OP_APPEND};
    struct zqcow2_request q = {.op = op, .offset = a.off, .length = len};
    uint8_t *buf = NULL;

    if (op == ZQCOW2_OP_APPEND)
        q.offset = zone_start(&r->shape, zone);
    if (a.kind == ACT_WRITE) {
        buf = must(malloc(len));
        stamp(buf, len, zone, a.life, a.stamped, a.req);
    }
    if (zone >= r->shape.conventional)
        r->next[zone] += len;
    issue(r, &a, &q, buf);
}

static void put(struct run *r, uint16_t op, uint32_t zone, uint64_t at, uint64_t len, bool fua)
{
    if (zone >= r->shape.conventional && at >= zone_room(&r->shape, zone))
        at = 0; /* the zone is full; behind it lies another one */
    put_at(r, op, zone, zone_start(&r->shape, zone) + at, len, fua);
}

static void manage(struct run *r, uint16_t op, uint64_t off, uint64_t len, bool fua)
{
    struct act a = {.kind = op == ZQCOW2_OP_ZONE_RESET  ? ACT_RESET :
                            op == ZQCOW2_OP_ZONE_FINISH ? ACT_FINISH :
                            op == ZQCOW2_OP_FLUSH       ? ACT_FLUSH :
                            op == ZQCOW2_OP_DRAIN       ? ACT_FLUSH :
                                                          ACT_OTHER,
                    .fua = fua,
                    .off = off};
    struct zqcow2_request q = {.op = op, .offset = off, .length = len};

    a.len = len;
    for (uint32_t z = r->shape.conventional; op == ZQCOW2_OP_ZONE_RESET && z < r->shape.zones;
         z++) {
        if (zone_start(&r->shape, z) >= off && zone_start(&r->shape, z) < off + len) {
            r->life[z]++;
            r->next[z] = 0;
        }
    }
    issue(r, &a, &q, NULL);
}

static void on_zone(struct run *r, uint16_t op, uint32_t zone, bool fua)
{
    manage(r, op, zone_start(&r->shape, zone), zone_length(&r->shape, zone), fua);
}

static bool busy_at(const struct run *r, uint64_t off, uint64_t len)
{
    for (uint32_t i = 0; r->queue && i < BATCH; i++) {
        const struct act *a = &r->acts[r->flights[i].act];

        if (r->flights[i].busy && a->kind != ACT_OTHER && a->off < off + len &&
            off < a->off + a->len)
            return true;
    }
    return false;
}

/* Somewhere in the zone that may be overwritten; requests in flight do not meet there. */
static void overwrite(struct run *r, uint16_t op, uint64_t len, uint64_t align, bool fua)
{
    uint64_t area = zone_length(&r->shape, 0);
    uint64_t at = r->req * 7 * SECTOR % area / align * align;

    if (!r->shape.conventional)
        return;
    if (align > SECTOR) /* of a cluster that it does not cover whole a discard changes nothing */
        len = len < area - at ? len : area - at;
    at = len > area - at ? area - len : at;
    if (busy_at(r, at, len))
        settle(r);
    put(r, op, 0, at, len, fua);
}

/* Whatever else is going on: every sector is zeros or what was once written to this zone. */
static void judge_read(struct run *r, const struct act *a, const uint8_t *buf)
{
    char text[128], want[64];

    snprintf(want, sizeof(want), "zone %u ", a->zone);
    for (uint64_t at = 0; at < a->len && a->result == 0; at += SECTOR) {
        describe(buf + at, text, sizeof(text));
        if (!strcmp(text, "zeros") || !strncmp(text, want, strlen(want)))
            continue;
        snprintf(r->why, sizeof(r->why), "read at 0x%llx gives %s",
                 (unsigned long long)(a->off + at), text);
        r->broken = r->wrong = -EIO;
        return;
    }
}

static void read_zone(struct run *r, uint32_t zone)
{
    struct act a = {.kind = ACT_READ,
                    .zone = zone,
                    .off = zone_start(&r->shape, zone),
                    .len = zone_length(&r->shape, zone)};
    struct zqcow2_request q = {.op = ZQCOW2_OP_READ, .offset = a.off, .length = a.len};

    issue(r, &a, &q, must(malloc(a.len)));
}

static void zone_letter(struct run *r, char letter)
{
    uint32_t a = r->shape.conventional, b = r->g->b ? r->g->b : a + 1, s = r->shape.zones - 1;
    uint64_t block = r->g->block, room = zone_room(&r->shape, a);
    uint64_t rest = room > r->next[a] ? room - r->next[a] : block;

    switch (letter) {
    case 'A': put(r, ZQCOW2_OP_WRITE, a, 0, r->g->fill, false); break;
    case 'B': put(r, ZQCOW2_OP_WRITE, b, 0, zone_room(&r->shape, b), false); break;
    case 'a': put(r, ZQCOW2_OP_WRITE, a, r->next[a], block, false); break;
    case 'b': put(r, ZQCOW2_OP_WRITE, b, r->next[b], block, false); break;
    case 'c': put(r, ZQCOW2_OP_WRITE, a, r->next[a], rest, false); break;
    case 'd': put(r, ZQCOW2_OP_APPEND, a, r->next[a], block, false); break;
    case 'e':
        put(r, ZQCOW2_OP_APPEND, s, r->next[s], block / 2 / SECTOR * SECTOR + SECTOR, false);
        break;
    case 'f': on_zone(r, ZQCOW2_OP_ZONE_OPEN, a, false); break;
    case 'g': on_zone(r, ZQCOW2_OP_ZONE_CLOSE, a, false); break;
    case 'h': on_zone(r, ZQCOW2_OP_ZONE_FINISH, a, false); break;
    case 'i': on_zone(r, ZQCOW2_OP_ZONE_FINISH, b, false); break;
    case 'j': on_zone(r, ZQCOW2_OP_ZONE_RESET, a, false); break;
    case 'k': on_zone(r, ZQCOW2_OP_ZONE_RESET, b, false); break;
    case 'l': /* zone by zone, each in its own turn: what is submitted meanwhile may come first */
        settle(r);
        manage(r, ZQCOW2_OP_ZONE_RESET, 0, r->shape.size, false);
        settle(r);
        break;
    case 'n': put(r, ZQCOW2_OP_WRITE, a, r->next[a], block, true); break;
    case 'r': put(r, ZQCOW2_OP_WRITE_ZEROES, a, r->next[a], block, false); break;
    case 's': on_zone(r, ZQCOW2_OP_ZONE_RESET, a, true); break;
    case 't': on_zone(r, ZQCOW2_OP_ZONE_FINISH, b, true); break;
    default: break;
    }
}

/* What it reads as does not change, and all that was done is durable. */
static void commit(struct run *r)
{
    struct zqcow2_error err = {0, ""};
    int rc;

    settle(r);
    if (!r->broken)
        close_image(r);
    if (r->broken || r->failed)
        return;
    rc = commit_disk(r->disk, &err);
    if (rc == ZQCOW2_EZONE_ACTIVE)
        rc = 0; /* refused for the limits below: it changed nothing */
    r->failed |= rc < 0 && r->faulty;
    if (rc < 0 && !r->faulty)
        fail(r, err.text[0] ? err.text : "commit", rc);
    else if (rc == 0)
        run_open(r);
}

static void letter_of(struct run *r, char letter)
{
    uint64_t cluster = r->g->cluster;

    switch (letter) {
    case 'C': commit(r); break;
    case 'm': manage(r, ZQCOW2_OP_FLUSH, 0, 0, false); break;
    case 'o': overwrite(r, ZQCOW2_OP_WRITE, SECTOR, SECTOR, false); break;
    case 'p': overwrite(r, ZQCOW2_OP_WRITE, cluster + SECTOR, SECTOR, false); break;
    case 'q':
        settle(r);
        if (!r->broken)
            close_image(r);
        if (!r->broken && !r->failed)
            run_open(r);
        break;
    case 'u': overwrite(r, ZQCOW2_OP_WRITE_ZEROES, cluster, cluster, false); break;
    case 'v': read_zone(r, draw(&r->rng) % 2 ? r->shape.conventional % r->shape.zones : 0); break;
    case 'w': overwrite(r, ZQCOW2_OP_WRITE, 2 * SECTOR, SECTOR, true); break;
    case 'x': overwrite(r, ZQCOW2_OP_WRITE_ZEROES, SECTOR, SECTOR, false); break;
    case 'y': overwrite(r, ZQCOW2_OP_DISCARD, cluster, cluster, false); break;
    case 'z': manage(r, ZQCOW2_OP_DRAIN, 0, 0, false); break;
    default:
        if (r->g->zone_size)
            zone_letter(r, letter);
        break;
    }
}

void run_letters(struct run *r, const char *letters)
{
    for (; *letters && !r->broken; letters++) {
        if (!r->img)
            break; /* after a failure: what it shows when opened again is for the model to say */
        if (r->unsure)
            ask(r);
        if (!r->broken)
            letter_of(r, *letters);
    }
}

/* Want of space does not kill (R10): from here on everything has to succeed. */
void run_make_room(struct run *r)
{
    struct zqcow2_info info = ZQCOW2_INFO_INIT;

    settle(r);
    disk_no_faults(r->disk);
    r->faulty = false;
    if (!r->img || r->broken)
        return;
    zqcow2_get_info(r->img, &info);
    if (info.flags & ZQCOW2_INFO_DEAD) {
        r->broken = r->wrong = -EIO;
        snprintf(r->why, sizeof(r->why), "want of space has killed the image");
    }
}

void run_end(struct run *r, bool close)
{
    settle(r);
    if (close && r->img && !r->broken)
        close_image(r);
    if (r->queue)
        zqcow2_queue_close(r->queue);
    r->queue = NULL;
    if (r->img)
        zqcow2_close(r->img);
    r->img = NULL;
    if (disk_misuse(r->disk) && !r->wrong) {
        r->broken = r->wrong = -EINVAL;
        snprintf(r->why, sizeof(r->why), "%llu calls broke the backend's contract",
                 (unsigned long long)disk_misuse(r->disk));
    }
}

void run_fini(struct run *r)
{
    for (uint32_t i = 0; i < r->nacts; i++)
        free(r->acts[i].snapshot);
    free(r->acts);
    free(r->moments);
    free(r->flights);
    disk_free(r->disk);
}

void run_replay(struct run *r, struct power_model *o, uint64_t position, uint32_t *at)
{
    for (; *at < r->nmoments && r->moments[*at].position <= position; ++*at) {
        const struct moment *m = &r->moments[*at];

        if (m->ack)
            power_ack(o, &r->acts[m->act]);
        else
            power_submit(o, &r->acts[m->act]);
    }
}
