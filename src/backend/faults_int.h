/* SPDX-License-Identifier: MIT */
/*
 * What the parts of the faults backend share. One mutex guards an object as a whole and is held
 * while the inner backend is called: a read must not see the inner bytes from before a flush and
 * the held changes from after it.
 */
#ifndef ZQ_BACKEND_FAULTS_INT_H
#define ZQ_BACKEND_FAULTS_INT_H

#include <pthread.h>
#include <stdbool.h>

#include <zqcow2/faults.h>
#include "base/list.h"
#include "base/mem.h"
#include "base/report.h"

#define ZQ_SCRATCH_BYTES (64u * 1024)

struct zq_held {
    struct zq_list link; /* oldest first */
    uint64_t number;     /* in the log */
    uint32_t kind;       /* zqcow2_io_kind; never READ or FLUSH */
    uint64_t offset, length;
    uint8_t data[]; /* WRITE */
};

struct zqcow2_faults {
    struct zqcow2_hooks hooks;
    struct zqcow2_faults_options opt; /* opt.hooks is NULL: see hooks */
    struct zqcow2_backend *inner;     /* owned, and claimed */
    struct zqcow2_limits limits;      /* of inner */
    uint8_t *scratch;     /* aligned for inner, so that applying a change needs no memory */
    pthread_mutex_t lock; /* of what follows */
    struct zq_list held, rules;
    uint64_t nr_held, held_bytes; /* bytes: of the structs and their data */
    uint64_t changes, nr_rules;   /* so far: the next one's number is one more */
    uint64_t length;              /* that reads see: of inner, and what is held */
    bool off;                     /* power */
    bool in_use;                  /* a backend exists */
};

/* All functions below are called with the lock held. */

/* faults_held.c. A line for the log. */
void zq_faults_say(const struct zqcow2_faults *f, const char *fmt, ...) ZQ_PRINTF(2, 3);
const char *zq_faults_kind(uint32_t kind);
/* Holds a change, after the oldest ones have made room. An error: nothing of it will happen. */
int zq_held_add(struct zqcow2_faults *f, uint32_t kind, const struct iovec *iov, uint64_t off,
                uint64_t len);
/* Puts what is held on top of the bytes that inner has returned. */
void zq_held_overlay(const struct zqcow2_faults *f, const struct iovec *iov, uint64_t off,
                     uint64_t len);
/* Applies bytes [from, to) of the file of a change to inner; a truncate as a whole. */
int zq_held_apply(struct zqcow2_faults *f, const struct zq_held *h, uint64_t from, uint64_t to);
void zq_held_drop(struct zqcow2_faults *f, struct zq_held *h);
/* Applies all in order. An error: that change and the later ones stay held. */
int zq_held_apply_all(struct zqcow2_faults *f);

/* faults_rules.c. The error of the rules that hit this request, or 0; *delay: microseconds. */
int zq_rules_hit(struct zqcow2_faults *f, uint32_t kind, uint64_t off, uint64_t len,
                 uint64_t *delay);
void zq_rules_clear(struct zqcow2_faults *f);

#endif
