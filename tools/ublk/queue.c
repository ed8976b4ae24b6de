/* SPDX-License-Identifier: MIT */
/* A hardware queue of a ublk device: its thread carries requests from the kernel to the image. */
#include "ublk/queue.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "ublk/direct.h"

#define SECTOR          512u
#define USER_DATA_POLL  UINT64_MAX
#define USER_DATA_LEAVE (UINT64_MAX - 1)
#define TRANSFER        (1u << 16) /* beside a tag */

int ublk_errno(int rc)
{
    if (rc >= 0)
        return 0;
    switch (rc) {
    case ZQCOW2_EZONE_ACTIVE: return -EOVERFLOW;
    case ZQCOW2_EZONE_OPEN: return -ETOOMANYREFS;
    case -ENOSPC:
    case -ENOMEM: return rc;
    default: /* the block layer has no finer status for the rest */ return -EIO;
    }
}

/* ---- towards the kernel ---- */

/* For each tag a command or a transfer, and two polls: a place is always free after a submit. */
static struct io_uring_sqe *get_sqe(struct ublk_queue *q)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(&q->ring);

    if (!sqe) {
        io_uring_submit(&q->ring);
        sqe = io_uring_get_sqe(&q->ring);
    }
    return sqe;
}

static void queue_command(struct ublk_tag *t, uint32_t op, int result, uint64_t addr)
{
    struct ublk_queue *q = t->queue;
    struct io_uring_sqe *sqe = get_sqe(q);
    struct ublk_io_cmd cmd = {.q_id = q->id, .tag = t->tag, .result = result, .addr = addr};

    if (q->copies)
        cmd.addr = (uint64_t)(uintptr_t)t->iov.iov_base;
    if (!sqe) { /* cannot be, see get_sqe; the kernel then times out on this tag alone */
        q->error = -EBUSY;
        return;
    }
    memset(sqe, 0, sizeof(*sqe));
    sqe->opcode = IORING_OP_URING_CMD;
    sqe->fd = q->fd;
    sqe->cmd_op = op;
    sqe->user_data = t->tag;
    if (q->registers)
        sqe->addr = ublk_auto_buf_reg(t->tag);
    memcpy(sqe->cmd, &cmd, sizeof(cmd));
}

static void commit(struct ublk_tag *t, int result, uint64_t addr)
{
    queue_command(t, UBLK_IO_COMMIT_AND_FETCH_REQ, result, addr);
}

static void arm_poll(struct ublk_queue *q, int fd, uint64_t user_data)
{
    struct io_uring_sqe *sqe = get_sqe(q);

    if (!sqe) {
        q->error = -EBUSY;
        return;
    }
    io_uring_prep_poll_add(sqe, fd, POLLIN);
    sqe->user_data = user_data;
}

/* Data of a write or append comes in, of a read or report goes out; all or an error. */
int ublk_queue_fetch(struct ublk_tag *t, const struct iovec *part)
{
    uint64_t at = ublk_data_offset(t->queue->id, t->tag) +
                  (uint64_t)((char *)part->iov_base - (char *)t->iov.iov_base);
    size_t done = t->queue->copies ? part->iov_len : 0;

    while (done < part->iov_len) {
        ssize_t n = pread(t->queue->fd, (char *)part->iov_base + done, part->iov_len - done,
                          (off_t)(at + done));
        if (n <= 0)
            return n < 0 ? -errno : -EIO;
        done += (size_t)n;
    }
    return 0;
}

static int copy_out(struct ublk_tag *t)
{
    uint64_t at = ublk_data_offset(t->queue->id, t->tag);
    size_t done = t->queue->copies ? t->iov.iov_len : 0;

    while (done < t->iov.iov_len) {
        ssize_t n = pwrite(t->queue->fd, (char *)t->iov.iov_base + done, t->iov.iov_len - done,
                           (off_t)(at + done));
        if (n <= 0)
            return n < 0 ? -errno : -EIO;
        done += (size_t)n;
    }
    return 0;
}

int ublk_queue_transfer(struct ublk_tag *t, struct zqcow2_io *io, int fd)
{
    struct io_uring_sqe *sqe = get_sqe(t->queue);
    uint8_t op = io->kind == ZQCOW2_IO_READ ? IORING_OP_READ_FIXED : IORING_OP_WRITE_FIXED;

    if (!sqe)
        return -EBUSY;
    io_uring_prep_rw(op, sqe, fd, NULL, (unsigned)io->length, io->offset);
    sqe->buf_index = t->tag;
    sqe->user_data = t->tag | TRANSFER;
    t->transfer = io;
    return 0;
}

/* A short one has met the end of the file; errors may be of the ring, not of the file. */
static void transferred(struct ublk_tag *t, int res)
{
    struct zqcow2_io *io = t->transfer;

    t->moved = res >= 0 && (unsigned)res == io->length;
    if (t->moved)
        __atomic_fetch_add(&t->queue->direct->image->zero_copies, 1, __ATOMIC_RELAXED);
    zqcow2_io_done(io, t->moved ? 0 : ublk_direct_copy(t->queue->direct, io));
}

/* ---- towards the image ---- */

static void request_done(void *arg, const struct zqcow2_result *res)
{
    struct ublk_tag *t = arg;
    int ret = ublk_errno(res->ret);

    t->queue->in_library--;
    if (!ret && t->op == UBLK_OP_READ)
        ret = t->moved ? 0 : copy_out(t);
    else if (!ret && t->op == UBLK_OP_FLUSH)
        ublk_ledger_flushed(t->queue->ledger, t->covers);
    else if (!ret && !t->durable)
        ublk_ledger_changed(t->queue->ledger);
    if (ret)
        commit(t, ret, 0);
    else if (t->op == UBLK_OP_ZONE_APPEND)
        commit(t, (int)t->iov.iov_len, res->offset / SECTOR);
    else
        commit(t, (int)t->iov.iov_len, 0);
}

/*
 * Inline, because a report never waits. The kernel zeroes nothing: an entry of length 0 ends the
 * list. The result says "everything": a smaller one would have the kernel ask again for the rest.
 */
static void report_zones(struct ublk_tag *t, const struct ublk_io_desc *d)
{
    struct ublk_queue *q = t->queue;
    uint32_t nr = d->nr_sectors, room = q->max_io / (uint32_t)sizeof(struct ublk_blk_zone);
    struct ublk_blk_zone *out = t->iov.iov_base;
    struct zqcow2_zone z;
    uint64_t at = d->start_sector * SECTOR;
    uint32_t n = 0;
    int rc = 0;

    nr = nr < room ? nr : room;
    memset(out, 0, nr * sizeof(*out));
    for (; n < nr && at < q->info->virtual_size; n++, at += q->info->zone_size) {
        uint32_t one = 1;

        rc = zqcow2_zone_report(q->img, at, &z, &one);
        if (rc < 0 || !one)
            break;
        out[n] = (struct ublk_blk_zone){.start = z.start / SECTOR,
                                        .len = z.length / SECTOR,
                                        .wp = z.write_pointer / SECTOR,
                                        .type = z.type,
                                        .cond = z.state,
                                        .capacity = z.capacity / SECTOR};
        if (z.write_pointer == UINT64_MAX)
            out[n].wp = UINT64_MAX;
    }
    t->iov.iov_len = nr * sizeof(*out);
    rc = rc < 0 ? ublk_errno(rc) : copy_out(t);
    commit(t, rc ? rc : (int)q->max_io, 0);
}

static int library_op(unsigned op)
{
    switch (op) {
    case UBLK_OP_READ: return ZQCOW2_OP_READ;
    case UBLK_OP_WRITE: return ZQCOW2_OP_WRITE;
    case UBLK_OP_FLUSH: return ZQCOW2_OP_FLUSH;
    case UBLK_OP_DISCARD: return ZQCOW2_OP_DISCARD;
    case UBLK_OP_WRITE_ZEROES: return ZQCOW2_OP_WRITE_ZEROES;
    case UBLK_OP_ZONE_OPEN: return ZQCOW2_OP_ZONE_OPEN;
    case UBLK_OP_ZONE_CLOSE: return ZQCOW2_OP_ZONE_CLOSE;
    case UBLK_OP_ZONE_FINISH: return ZQCOW2_OP_ZONE_FINISH;
    case UBLK_OP_ZONE_APPEND: return ZQCOW2_OP_APPEND;
    case UBLK_OP_ZONE_RESET_ALL:
    case UBLK_OP_ZONE_RESET: return ZQCOW2_OP_ZONE_RESET;
    default: return -1;
    }
}

/* Only a write of zeros without a permission to unmap has the second one. */
static uint16_t request_flags(const struct ublk_io_desc *d)
{
    bool zeroes = (d->op_flags & UBLK_OP_MASK) == UBLK_OP_WRITE_ZEROES;
    unsigned keep = zeroes && d->op_flags & UBLK_IO_F_NOUNMAP ? ZQCOW2_NO_UNMAP : 0;

    return (uint16_t)(keep | (d->op_flags & UBLK_IO_F_FUA ? ZQCOW2_FUA : 0));
}

static uint64_t request_length(const struct ublk_queue *q, const struct ublk_io_desc *d)
{
    switch (d->op_flags & UBLK_OP_MASK) {
    case UBLK_OP_ZONE_OPEN:
    case UBLK_OP_ZONE_CLOSE:
    case UBLK_OP_ZONE_FINISH:
    case UBLK_OP_ZONE_RESET: return q->info->zone_size;
    case UBLK_OP_ZONE_RESET_ALL: return q->info->virtual_size;
    case UBLK_OP_FLUSH: return 0;
    default: return (uint64_t)d->nr_sectors * SECTOR;
    }
}

/* Changes that a dead server answered may be lost: a flush must not say that they are durable. */
static bool report_loss(struct ublk_tag *t)
{
    struct ublk_queue *q = t->queue;
    uint64_t loss = ublk_ledger_take_loss(q->ledger);

    if (loss) {
        q->reported = loss;
        commit(t, -EIO, 0);
    }
    return loss != 0;
}

/* Adds the request to the batch, or answers it at once. */
static void take_request(struct ublk_tag *t)
{
    struct ublk_queue *q = t->queue;
    const struct ublk_io_desc *d = &q->desc[t->tag];
    unsigned op = d->op_flags & UBLK_OP_MASK;
    bool data = op == UBLK_OP_READ || op == UBLK_OP_WRITE || op == UBLK_OP_ZONE_APPEND;
    uint64_t len = request_length(q, d);
    int lib = library_op(op), rc = 0;

    t->op = (uint8_t)op;
    if (serve_faults_are_cut(q->faults)) {
        commit(t, -EIO, 0);
        return;
    }
    if (op == UBLK_OP_REPORT_ZONES) {
        report_zones(t, d);
        return;
    }
    if (op == UBLK_OP_FLUSH) {
        t->covers = ublk_ledger_covers(q->ledger);
        if (report_loss(t))
            return;
    }
    t->durable = d->op_flags & UBLK_IO_F_FUA;
    t->pages = data && q->direct && q->registers && !(d->op_flags & UBLK_IO_F_NEED_REG_BUF);
    t->moved = false;
    t->iov.iov_len = data ? (size_t)len : 0;
    if (lib < 0 || (data && len > q->max_io))
        rc = -EOPNOTSUPP;
    else if (data && op != UBLK_OP_READ && !t->pages)
        rc = ublk_queue_fetch(t, &t->iov);
    if (rc) {
        commit(t, rc, 0);
        return;
    }
    q->batch[q->nbatch++] = (struct zqcow2_request){
        .size = sizeof(struct zqcow2_request),
        .op = (uint16_t)lib,
        .flags = request_flags(d),
        .offset =
            op == UBLK_OP_ZONE_RESET_ALL || op == UBLK_OP_FLUSH ? 0 : d->start_sector * SECTOR,
        .length = len,
        .iov = data ? &t->iov : NULL,
        .iovcnt = data,
        .done = request_done,
        .arg = t};
}

static void submit_batch(struct ublk_queue *q)
{
    int n = zqcow2_queue_submit(q->zq, q->batch, q->nbatch);
    uint32_t taken = n < 0 ? 0 : (uint32_t)n;

    q->in_library += taken;
    for (uint32_t i = taken; i < q->nbatch; i++) /* the queue is as deep as there are tags */
        commit(q->batch[i].arg, -EIO, 0);
    q->nbatch = 0;
}

/* ---- the thread ---- */

static void take_completions(struct ublk_queue *q)
{
    struct io_uring_cqe *cqe;
    bool rearm = false;

    while (!io_uring_peek_cqe(&q->ring, &cqe)) {
        uint64_t who = cqe->user_data;
        int res = cqe->res;

        io_uring_cqe_seen(&q->ring, cqe);
        if (who == USER_DATA_POLL) {
            rearm = true;
        } else if (who == USER_DATA_LEAVE) {
            q->leaving = true;
        } else if (who & TRANSFER) {
            transferred(&q->tags[who & ~(uint64_t)TRANSFER], res);
        } else if (res == 0 && q->leaving && __atomic_load_n(&q->unanswered, __ATOMIC_RELAXED)) {
            q->live_tags--;
        } else if (res == 0) {
            take_request(&q->tags[who]);
        } else { /* -ENODEV: the device stops; anything else is the end of this tag, too */
            q->live_tags--;
            if (res != -ENODEV && !q->error)
                q->error = res;
        }
    }
    if (q->nbatch)
        submit_batch(q);
    /* The poll is armed after the library had its turn, so an event in between shows at once. */
    zqcow2_queue_poll(q->zq, 0);
    if (rearm)
        arm_poll(q, zqcow2_queue_fd(q->zq), USER_DATA_POLL);
}

/*
 * Is everything answered that has arrived? What the kernel hands over now comes with the next entry
 * into it. A tag whose answer was given since the device was quiesced never completes again.
 */
static bool has_left(struct ublk_queue *q)
{
    if (!q->leaving || q->in_library)
        return false;
    io_uring_submit(&q->ring);
    io_uring_get_events(&q->ring);
    return io_uring_cq_ready(&q->ring) == 0;
}

static void *queue_thread(void *arg)
{
    struct ublk_queue *q = arg;
    uint64_t one = 1;

    q->self = pthread_self();
    for (uint16_t i = 0; i < q->depth; i++)
        queue_command(&q->tags[i], UBLK_IO_FETCH_REQ, 0, 0);
    arm_poll(q, zqcow2_queue_fd(q->zq), USER_DATA_POLL);
    arm_poll(q, q->leave_fd, USER_DATA_LEAVE);
    q->live_tags = q->depth;
    while ((q->live_tags || q->in_library) && !has_left(q)) {
        int rc = io_uring_submit_and_wait(&q->ring, 1);

        if (q->reported && rc >= 0) {
            ublk_ledger_flushed(q->ledger, q->reported);
            q->reported = 0;
        }
        if (rc < 0 && rc != -EINTR && rc != -EAGAIN && rc != -EBUSY) {
            q->error = rc;
            break;
        }
        take_completions(q);
    }
    if (write(q->ended_fd, &one, sizeof(one)) < 0)
        q->error = -errno;
    return NULL;
}

static void unmap_all(struct ublk_queue *q)
{
    if (q->buffers)
        munmap(q->buffers, q->buffer_bytes);
    if (q->desc)
        munmap((void *)(uintptr_t)q->desc, q->desc_bytes);
    free(q->tags);
    free(q->batch);
}

static int map_all(struct ublk_queue *q)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE), area = ublk_desc_area(page);
    void *p;

    q->desc_bytes = (q->depth * sizeof(struct ublk_io_desc) + page - 1) / page * page;
    q->buffer_bytes = (size_t)q->depth * q->max_io;
    p = mmap(NULL, q->desc_bytes, PROT_READ, MAP_SHARED | MAP_POPULATE, q->fd,
             (off_t)(q->id * area));
    if (p == MAP_FAILED)
        return -errno;
    q->desc = p;
    p = mmap(NULL, q->buffer_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED)
        return -errno;
    q->buffers = p;
    q->tags = calloc(q->depth, sizeof(*q->tags));
    q->batch = calloc(q->depth, sizeof(*q->batch));
    if (!q->tags || !q->batch)
        return -ENOMEM;
    for (uint16_t i = 0; i < q->depth; i++) {
        q->tags[i].queue = q;
        q->tags[i].tag = i;
        q->tags[i].iov.iov_base = (char *)q->buffers + (size_t)i * q->max_io;
    }
    return 0;
}

int ublk_queue_prepare(struct ublk_queue *q)
{
    int rc = map_all(q);

    if (!rc)
        rc = io_uring_queue_init(q->depth + 2u, &q->ring, 0);
    if (rc < 0) {
        unmap_all(q);
        return rc;
    }
    if (q->registers) /* where it fails, requests come without their pages */
        io_uring_register_buffers_sparse(&q->ring, q->depth);
    rc = zqcow2_queue_open(q->img, q->depth, &q->zq);
    if (rc >= 0 && zqcow2_queue_fd(q->zq) < 0) {
        rc = zqcow2_queue_fd(q->zq);
        zqcow2_queue_close(q->zq);
    }
    if (rc < 0) {
        io_uring_queue_exit(&q->ring);
        unmap_all(q);
    }
    return rc < 0 ? rc : 0;
}

int ublk_queue_start(struct ublk_queue *q)
{
    return -pthread_create(&q->thread, NULL, queue_thread, q);
}

int ublk_queue_free(struct ublk_queue *q)
{
    int rc;

    io_uring_queue_exit(&q->ring);
    rc = zqcow2_queue_close(q->zq);
    unmap_all(q);
    return rc;
}
