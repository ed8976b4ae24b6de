/* SPDX-License-Identifier: MIT */
/* Several simulated disks as one. A disk with one file is that file, and costs no more. */
#include "disk.h"

#include <errno.h>
#include <stdlib.h>

static void *must(void *p)
{
    if (!p)
        abort();
    return p;
}

static struct disk *disk_alloc(const struct crash_geometry *g)
{
    struct disk *d = must(calloc(1, sizeof(*d)));

    d->g = g;
    return d;
}

static bool is_alone(const struct disk *d)
{
    return !d->file[DATA_FILE] && !d->file[BELOW];
}

/* A call for each file that there is. */
#define EACH(rc, d, i, call) \
    for (unsigned i = 0; i < MAX_FILES && (rc) == 0; i++) \
    (rc) = (d)->file[i] ? (call) : 0

int disk_new(const struct zqcow2_simdisk_options *o, const struct crash_geometry *g, unsigned files,
             struct disk **out)
{
    struct disk *d = disk_alloc(g);
    int rc = 0;

    for (unsigned i = 0; i < MAX_FILES && rc == 0; i++) {
        if (i == THE_IMAGE || files & 1u << i)
            rc = zqcow2_simdisk_new(o, &d->file[i]);
    }
    if (rc < 0)
        disk_free(d);
    else
        *out = d;
    return rc;
}

void disk_free(struct disk *d)
{
    if (!d)
        return;
    for (unsigned i = 0; i < MAX_FILES; i++)
        zqcow2_simdisk_free(d->file[i]);
    free(d->log);
    free(d);
}

int disk_clone(struct disk *from, struct disk **out)
{
    struct disk *d = disk_alloc(from->g);
    int rc = 0;

    EACH(rc, from, i, zqcow2_simdisk_clone(from->file[i], &d->file[i]));
    if (rc < 0)
        disk_free(d);
    else
        *out = d;
    return rc;
}

void disk_set_seed(struct disk *d, uint64_t seed)
{
    for (unsigned i = 0; i < MAX_FILES; i++) {
        if (d->file[i])
            zqcow2_simdisk_set_seed(d->file[i], seed + i);
    }
}

uint64_t disk_hash(const struct disk *d)
{
    uint64_t hash = zqcow2_simdisk_hash(d->file[THE_IMAGE]);

    for (unsigned i = THE_IMAGE + 1; i < MAX_FILES; i++) {
        if (d->file[i])
            hash = (hash ^ hash >> 29) * 0x9e3779b97f4a7c15u ^ zqcow2_simdisk_hash(d->file[i]);
    }
    return hash;
}

static struct zqcow2_simdisk_counters counters(const struct disk *d)
{
    struct zqcow2_simdisk_counters sum = ZQCOW2_SIMDISK_COUNTERS_INIT;

    for (unsigned i = 0; i < MAX_FILES; i++) {
        struct zqcow2_simdisk_counters n = ZQCOW2_SIMDISK_COUNTERS_INIT;

        if (d->file[i])
            zqcow2_simdisk_get_counters(d->file[i], &n);
        sum.misuse += n.misuse;
        sum.faults += n.faults;
    }
    return sum;
}

uint64_t disk_misuse(const struct disk *d)
{
    return counters(d).misuse;
}

uint64_t disk_faults(const struct disk *d)
{
    return counters(d).faults;
}

void disk_set_fault(struct disk *d, unsigned file, const struct zqcow2_simdisk_fault *f)
{
    if (d->file[file])
        zqcow2_simdisk_set_fault(d->file[file], f);
}

void disk_no_faults(struct disk *d)
{
    for (unsigned i = 0; i < MAX_FILES; i++)
        disk_set_fault(d, i, NULL);
}

unsigned disk_turn(const struct disk *d, uint64_t *nth)
{
    unsigned file[MAX_FILES], n = 0;
    uint64_t turn = *nth - 1;

    for (unsigned i = 0; i < MAX_FILES; i++) {
        if (d->file[i])
            file[n++] = i;
    }
    *nth = turn / n + 1;
    return file[turn % n];
}

/* ---- one story ---- */

static void note(struct disk *d, unsigned file)
{
    if (d->n == d->room) {
        d->room = d->room ? 2 * d->room : 256;
        d->log = must(realloc(d->log, d->room));
    }
    d->log[d->n++] = (uint8_t)file;
}

/* Before and after each call: what has happened since is that call's, and of its file. */
static void catch_up(struct disk *d)
{
    for (unsigned i = 0; d->keeps && !is_alone(d) && i < MAX_FILES; i++) {
        for (; d->file[i] && d->known[i] < zqcow2_simdisk_position(d->file[i]); d->known[i]++)
            note(d, i);
    }
}

int disk_record(struct disk *d)
{
    int rc = 0;

    EACH(rc, d, i, zqcow2_simdisk_record(d->file[i]));
    for (unsigned i = 0; i < MAX_FILES; i++)
        d->first[i] = d->known[i] = d->file[i] ? zqcow2_simdisk_position(d->file[i]) : 0;
    d->n = 0;
    d->keeps = rc == 0;
    return rc;
}

uint64_t disk_position(struct disk *d)
{
    uint64_t sum = 0;

    catch_up(d);
    for (unsigned i = 0; i < MAX_FILES; i++)
        sum += d->file[i] ? zqcow2_simdisk_position(d->file[i]) : 0;
    return sum;
}

/* How many events of the log come before a position. */
static uint64_t events_before(const struct disk *d, uint64_t position)
{
    for (unsigned i = 0; i < MAX_FILES; i++)
        position -= d->first[i];
    return position;
}

/* Where each file is after n events of the log. */
static void places(const struct disk *d, uint64_t n, uint64_t *at)
{
    for (unsigned i = 0; i < MAX_FILES; i++)
        at[i] = d->first[i];
    if (is_alone(d))
        at[THE_IMAGE] += n;
    for (uint64_t k = 0; !is_alone(d) && k < n; k++)
        at[d->log[k]]++;
}

int disk_event(const struct disk *d, uint64_t position, struct zqcow2_simdisk_op *op,
               enum disk_event *what, unsigned *which)
{
    uint64_t n = events_before(d, position), at[MAX_FILES];
    unsigned file = THE_IMAGE;
    int rc;

    if (!is_alone(d)) {
        if (n >= d->n)
            return -ENOENT;
        file = d->log[n];
    }
    places(d, n, at);
    rc = zqcow2_simdisk_event(d->file[file], at[file], op);
    if (rc == 0)
        *what = op->begun == at[file] ? EVENT_BEGINS :
                op->ended == at[file] ? EVENT_ENDS :
                                        EVENT_LOSES;
    if (which)
        *which = file;
    return rc;
}

/* ---- cuts ---- */

int disk_cut_new(struct disk *d, struct disk_cut *cut)
{
    int rc = 0;

    *cut = (struct disk_cut){.disk = d};
    EACH(rc, d, i, zqcow2_simdisk_cut_new(d->file[i], &cut->of[i]));
    if (rc < 0)
        disk_cut_end(cut);
    return rc;
}

void disk_cut_end(struct disk_cut *cut)
{
    for (unsigned i = 0; i < MAX_FILES; i++)
        zqcow2_simdisk_cut_free(cut->of[i]);
}

int disk_cut_seek(struct disk_cut *cut, uint64_t position)
{
    const struct disk *d = cut->disk;
    uint64_t at[MAX_FILES];
    int rc = 0;

    places(d, events_before(d, position), at);
    EACH(rc, d, i, zqcow2_simdisk_cut_seek(cut->of[i], at[i]));
    return rc;
}

uint64_t disk_cut_states(const struct disk_cut *cut)
{
    uint64_t n = 1;

    for (unsigned i = 0; i < MAX_FILES; i++)
        n *= cut->of[i] ? zqcow2_simdisk_cut_states(cut->of[i]) : 1;
    return n;
}

uint32_t disk_cut_pending(const struct disk_cut *cut)
{
    uint32_t n = 0;

    for (unsigned i = 0; i < MAX_FILES; i++)
        n += cut->of[i] ? zqcow2_simdisk_cut_pending(cut->of[i]) : 0;
    return n;
}

/* With few changes it is the last of all subsets, with more the one behind none. */
uint64_t disk_cut_whole(const struct disk_cut *cut)
{
    uint64_t k = 0;

    for (unsigned i = MAX_FILES; i-- > 0;) {
        uint32_t pending = cut->of[i] ? zqcow2_simdisk_cut_pending(cut->of[i]) : 0;

        if (cut->of[i])
            k = k * zqcow2_simdisk_cut_states(cut->of[i]) +
                (pending <= 10 ? (UINT64_C(1) << pending) - 1 : 1);
    }
    return k;
}

int disk_cut_image(const struct disk_cut *cut, uint64_t k, struct disk **image)
{
    struct disk *d = disk_alloc(cut->disk->g);
    int rc = k < disk_cut_states(cut) ? 0 : -EINVAL;

    for (unsigned i = 0; i < MAX_FILES && rc == 0; i++) {
        uint64_t n = cut->of[i] ? zqcow2_simdisk_cut_states(cut->of[i]) : 1;

        if (cut->of[i])
            rc = zqcow2_simdisk_cut_image(cut->of[i], k % n, &d->file[i]);
        k /= n;
    }
    if (rc < 0)
        disk_free(d);
    else
        *image = d;
    return rc;
}

int disk_cut_kill(const struct disk_cut *cut, struct disk **left)
{
    struct disk *d = disk_alloc(cut->disk->g);
    int rc = 0;

    for (unsigned i = 0; i < MAX_FILES && rc == 0; i++) {
        if (cut->of[i])
            rc = zqcow2_simdisk_cut_kill(cut->of[i], &d->file[i]);
    }
    if (rc < 0)
        disk_free(d);
    else
        *left = d;
    return rc;
}

/* ---- a backend on one of several files ---- */

struct part {
    struct disk *d;
    struct zqcow2_backend *in, *other; /* other: the data file's, to be polled as well */
};

static struct zqcow2_backend *before(void *self)
{
    struct part *h = self;

    catch_up(h->d);
    return h->in;
}

static int after(void *self, int rc)
{
    catch_up(((struct part *)self)->d);
    return rc;
}

static int part_length(void *self, uint64_t *bytes)
{
    return zqcow2_backend_length(before(self), bytes);
}

static int part_readv(void *self, const struct iovec *iov, int n, uint64_t off)
{
    return zqcow2_backend_readv(before(self), iov, n, off);
}

static int part_writev(void *self, const struct iovec *iov, int n, uint64_t off)
{
    return after(self, zqcow2_backend_writev(before(self), iov, n, off));
}

static int part_flush(void *self)
{
    return after(self, zqcow2_backend_flush(before(self)));
}

static int part_limits(void *self, struct zqcow2_limits *out)
{
    return zqcow2_backend_limits(before(self), out);
}

static int part_truncate(void *self, uint64_t bytes)
{
    return after(self, zqcow2_backend_truncate(before(self), bytes));
}

static int part_zero(void *self, uint64_t off, uint64_t len)
{
    return after(self, zqcow2_backend_zero(before(self), off, len));
}

static int part_discard(void *self, uint64_t off, uint64_t len)
{
    return after(self, zqcow2_backend_discard(before(self), off, len));
}

static int part_lock(void *self, int mode)
{
    return zqcow2_backend_lock(before(self), mode);
}

static void part_invalidate(void *self)
{
    zqcow2_backend_invalidate(before(self));
    after(self, 0);
}

static int part_submit(void *self, struct zqcow2_io *io)
{
    return after(self, zqcow2_backend_submit(before(self), io));
}

/* Of what lies below: it is read, and not worth another story. Threads would make one each time. */
static int submit_at_once(void *self, struct zqcow2_io *io)
{
    if (io->kind == ZQCOW2_IO_READ)
        zqcow2_io_done(io, part_readv(self, io->iov, (int)io->iovcnt, io->offset));
    else if (io->kind == ZQCOW2_IO_WRITE)
        zqcow2_io_done(io, part_writev(self, io->iov, (int)io->iovcnt, io->offset));
    else
        return -EOPNOTSUPP;
    return 0;
}

static void part_wake(void *self)
{
    zqcow2_backend_wake(before(self));
}

/* Only the image's own backend may have to be polled: the data file completes beside it. */
static int part_poll(void *self, int timeout_ms)
{
    struct zqcow2_simdisk_counters n = ZQCOW2_SIMDISK_COUNTERS_INIT;
    struct part *h = self;

    before(h);
    if (h->other)
        zqcow2_simdisk_get_counters(h->d->file[DATA_FILE], &n);
    if (h->other && n.in_flight) { /* one of them completes, and that is enough to go on */
        after(h, zqcow2_backend_poll(h->other, 0));
        timeout_ms = 0;
    }
    return after(h, zqcow2_backend_poll(h->in, timeout_ms));
}

static int part_fd(void *self)
{
    return zqcow2_backend_fd(before(self));
}

static void part_close(void *self)
{
    struct part *h = self;

    zqcow2_backend_close(h->in);
    zqcow2_backend_close(h->other);
    free(h);
}

static int part_of(struct part *h, unsigned file, struct zqcow2_backend **be)
{
    const struct zqcow2_backend_ops *t = zqcow2_backend_table(h->in);
    bool at_once = file == BELOW || file == DATA_BELOW, polls = t->poll && file == THE_IMAGE;
    struct zqcow2_backend_ops ops = {.size = sizeof(ops),
                                     .close = part_close,
                                     .length = part_length,
                                     .readv = part_readv,
                                     .writev = part_writev,
                                     .flush = part_flush,
                                     .limits = part_limits,
                                     .truncate = part_truncate,
                                     .zero = t->zero ? part_zero : NULL,
                                     .discard = t->discard ? part_discard : NULL,
                                     .lock = part_lock,
                                     .invalidate = part_invalidate,
                                     .submit = !t->submit ? NULL :
                                               at_once    ? submit_at_once :
                                                            part_submit,
                                     .wake = polls ? part_wake : NULL,
                                     .poll = polls ? part_poll : NULL,
                                     .fd = polls ? part_fd : NULL};

    return zqcow2_backend_new(&ops, h, NULL, be);
}

int disk_backend(struct disk *d, unsigned file, struct zqcow2_backend **be)
{
    struct part *h;
    int rc;

    if (is_alone(d))
        return zqcow2_simdisk_backend(d->file[file], be);
    h = must(calloc(1, sizeof(*h)));
    h->d = d;
    rc = zqcow2_simdisk_backend(d->file[file], &h->in);
    if (rc == 0)
        rc = zqcow2_backend_claim(h->in);
    if (rc == 0 && d->file[DATA_FILE] && file == THE_IMAGE)
        rc = zqcow2_simdisk_backend(d->file[DATA_FILE], &h->other);
    if (rc == 0)
        rc = part_of(h, file, be);
    if (rc < 0)
        part_close(h);
    return rc;
}
