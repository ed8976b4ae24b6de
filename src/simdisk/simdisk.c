/* SPDX-License-Identifier: MIT */
/*
 * The simulated disk as an object: its bytes, counters, faults, power and log.
 *
 * Every public call takes the lock, so a test may look at a disk while an image in another thread
 * uses it. Backends on the disk must be closed before it is freed; cuts before, images at any time.
 */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "simdisk/simdisk_int.h"

/*
 * Everything is initialised before the first step that can fail, so zqcow2_simdisk_free() takes a
 * disk in any state.
 */
int sim_disk_alloc(const struct zqcow2_simdisk_options *opt, const struct zqcow2_hooks *hooks,
                   struct zqcow2_simdisk **out)
{
    struct zqcow2_simdisk *d = zq_zalloc(hooks, sizeof(*d));

    if (!d)
        return -ENOMEM;
    d->hooks = *hooks;
    d->opt = *opt;
    d->opt.hooks = NULL;
    d->rng = opt->seed;
    d->off_at = SIM_NEVER;
    d->flying_tail = &d->flying;
    d->count.size = sizeof(d->count);
    d->event = ZQ_EVENT_NONE;
    pthread_mutex_init(&d->lock, NULL);
    sim_content_init(&d->view, &d->hooks);
    sim_state_init(&d->now, &d->hooks);
    sim_state_init(&d->log.base, &d->hooks);
    if (opt->flags & ZQCOW2_SIMDISK_ASYNC) {
        int rc = zq_event_open(&d->event);

        if (rc < 0) {
            zqcow2_simdisk_free(d);
            return rc;
        }
    }
    *out = d;
    return 0;
}

/*
 * No lock: nobody else may know the disk any more. Nodes and changes that images share with it live
 * on by their counts. The hooks lie in what they free, hence the copy.
 */
void zqcow2_simdisk_free(struct zqcow2_simdisk *d)
{
    struct zqcow2_hooks hooks;

    if (!d)
        return;
    sim_log_clear(&d->log, &d->hooks);
    sim_state_drop(&d->now);
    sim_content_drop(&d->view);
    zq_event_close(&d->event);
    pthread_mutex_destroy(&d->lock);
    hooks = d->hooks;
    zq_free(&hooks, d, sizeof(*d));
}

/* As a copy of the file: all that reads show is durable in the clone, and its log is empty. */
int zqcow2_simdisk_clone(struct zqcow2_simdisk *d, struct zqcow2_simdisk **clone)
{
    struct zqcow2_simdisk *c;
    int rc;

    pthread_mutex_lock(&d->lock);
    rc = sim_disk_alloc(&d->opt, &d->hooks, &c);
    if (rc == 0) {
        sim_content_copy(&c->view, &d->view);
        sim_content_copy(&c->now.durable, &d->view);
        sim_content_rehash(&c->now.durable);
        *clone = c;
    }
    pthread_mutex_unlock(&d->lock);
    return rc;
}

/*
 * Two disks that get the same seed and the same calls from here on behave alike, whatever came
 * before.
 */
void zqcow2_simdisk_set_seed(struct zqcow2_simdisk *d, uint64_t seed)
{
    pthread_mutex_lock(&d->lock);
    d->opt.seed = d->rng = seed;
    pthread_mutex_unlock(&d->lock);
}

/* What was there before the test began: no event, so not while a log could miss it. */
int zqcow2_simdisk_import(struct zqcow2_simdisk *d, const void *buf, size_t len, uint64_t off)
{
    int rc = 0;

    if (off > INT64_MAX || len > INT64_MAX - off)
        return -EINVAL;
    pthread_mutex_lock(&d->lock);
    if (d->flying || d->log.n)
        rc = -EBUSY;
    if (len && rc == 0)
        rc = sim_content_write(&d->view, buf, len, off);
    if (len && rc == 0)
        rc = sim_content_write(&d->now.durable, buf, len, off);
    if (len && rc == 0 && d->log.on)
        rc = sim_content_write(&d->log.base.durable, buf, len, off);
    pthread_mutex_unlock(&d->lock);
    return rc;
}

int zqcow2_simdisk_export(struct zqcow2_simdisk *d, void *buf, size_t len, uint64_t off)
{
    if (off > INT64_MAX || len > INT64_MAX - off)
        return -EINVAL;
    pthread_mutex_lock(&d->lock);
    sim_content_read(&d->view, buf, len, off);
    pthread_mutex_unlock(&d->lock);
    return 0;
}

/* As fstat(2) would report it: of the view, so before it is durable. */
uint64_t zqcow2_simdisk_length(struct zqcow2_simdisk *d)
{
    uint64_t length;

    pthread_mutex_lock(&d->lock);
    length = d->view.length;
    pthread_mutex_unlock(&d->lock);
    return length;
}

/* Of the durable content alone: it identifies a crash state, which has nothing else. */
uint64_t zqcow2_simdisk_hash(struct zqcow2_simdisk *d)
{
    uint64_t hash;

    pthread_mutex_lock(&d->lock);
    hash = d->now.durable.hash;
    pthread_mutex_unlock(&d->lock);
    return hash;
}

int zqcow2_simdisk_get_counters(struct zqcow2_simdisk *d, struct zqcow2_simdisk_counters *out)
{
    int rc;

    pthread_mutex_lock(&d->lock);
    rc = zq_return_sized(out, &d->count, sizeof(d->count), sizeof(size_t));
    pthread_mutex_unlock(&d->lock);
    return rc;
}

/*
 * kinds: one bit for each zqcow2_io_kind, TRUNCATE being the last. error: what a backend may
 * return.
 */
static bool bad_fault(const struct zqcow2_simdisk_fault *f)
{
    const uint32_t flags = ZQCOW2_SIMDISK_FOREVER | ZQCOW2_SIMDISK_SHORT |
                           ZQCOW2_SIMDISK_AT_SUBMIT | ZQCOW2_SIMDISK_LANDS;

    return !f->nth || !f->kinds || f->kinds >= 2u << ZQCOW2_IO_TRUNCATE || (f->flags & ~flags) ||
           f->error >= 0 || f->error < -4095 || f->reserved;
}

int zqcow2_simdisk_set_fault(struct zqcow2_simdisk *d, const struct zqcow2_simdisk_fault *fault)
{
    struct zqcow2_simdisk_fault f = {.size = sizeof(f)};
    int rc = 0;

    if (fault) {
        rc = zq_copy_sized(&f, sizeof(f), fault, sizeof(f));
        if (rc == 0 && bad_fault(&f))
            rc = -EINVAL;
    }
    if (rc < 0)
        return rc;
    pthread_mutex_lock(&d->lock);
    /* One at a time: a new fault replaces the last, and NULL disarms it. */
    d->fault = f;
    pthread_mutex_unlock(&d->lock);
    return 0;
}

/* A position that has passed turns the power off at once. */
void zqcow2_simdisk_power_off(struct zqcow2_simdisk *d, uint64_t position)
{
    pthread_mutex_lock(&d->lock);
    d->off_at = position;
    pthread_mutex_unlock(&d->lock);
}

uint64_t zqcow2_simdisk_position(struct zqcow2_simdisk *d)
{
    uint64_t position;

    pthread_mutex_lock(&d->lock);
    position = d->count.position;
    pthread_mutex_unlock(&d->lock);
    return position;
}

/* Starts a new log here, whose base is the state of now: what is pending stays pending in it. */
int zqcow2_simdisk_record(struct zqcow2_simdisk *d)
{
    int rc = -EBUSY;

    pthread_mutex_lock(&d->lock);
    if (!d->cuts) {
        sim_log_clear(&d->log, &d->hooks);
        rc = sim_state_copy(&d->log.base, &d->now);
        d->log.on = rc == 0;
        d->log.first = d->count.position;
    }
    pthread_mutex_unlock(&d->lock);
    return rc;
}

/* units 0: a power cut has no choice to make about it. */
void sim_op_describe(const struct sim_op *op, uint32_t atomic, struct zqcow2_simdisk_op *out)
{
    uint64_t units = op->empty || op->kind == ZQCOW2_IO_FLUSH ? 0 : sim_op_units(op, atomic);

    *out = (struct zqcow2_simdisk_op){.size = sizeof(*out),
                                      .kind = op->kind,
                                      .offset = op->offset,
                                      .length = op->length,
                                      .begun = op->begun,
                                      .ended = op->ended,
                                      .result = op->result,
                                      .units = units > UINT32_MAX ? UINT32_MAX : (uint32_t)units};
}

/* Both events of a call, and its loss, describe the same change. */
int zqcow2_simdisk_event(struct zqcow2_simdisk *d, uint64_t position, struct zqcow2_simdisk_op *out)
{
    struct zqcow2_simdisk_op op;
    int rc = -ENOENT;

    pthread_mutex_lock(&d->lock);
    if (d->log.on && position >= d->log.first && position - d->log.first < d->log.n) {
        sim_op_describe(d->log.events[position - d->log.first].op, d->opt.atomic_write, &op);
        rc = zq_return_sized(out, &op, sizeof(op), sizeof(size_t));
    }
    pthread_mutex_unlock(&d->lock);
    return rc;
}
