/* SPDX-License-Identifier: MIT */
/*
 * Faults of a disk that is being served: zqcow2_faults_wrap() below the image and below its data
 * file. A cut takes the power of both, and the server then answers nothing but errors.
 */
#ifndef ZQ_TOOLS_SERVE_FAULTS_H
#define ZQ_TOOLS_SERVE_FAULTS_H

#include <stdio.h>
#include <zqcow2/backend.h>

#include "serve/spec.h"

struct serve_faults {
    struct serve_faults_spec spec;
    const struct zqcow2_hooks *hooks;   /* the caller's */
    struct zqcow2_faults *image, *data; /* owned; NULL: none */
    struct zqcow2_resolver *files;      /* the caller's, while the image is opened */
    FILE *log;                          /* owned; NULL: none */
    unsigned rules;                     /* so many have been added since they were cleared */
    bool cut;                           /* atomic: power is off */
};

/* Opens the log. 0 or -errno. */
int serve_faults_begin(struct serve_faults *f, const struct serve_faults_spec *spec,
                       const struct zqcow2_hooks *hooks);
/*
 * Puts faults on a backend and returns the one to open the image on, whose requests a pool of
 * threads serves. On failure the first one is closed.
 */
int serve_faults_wrap(struct serve_faults *f, struct zqcow2_backend **be);
/* For zqcow2_open_options: opens as zqcow2_resolve_file() does, the data file with faults. */
int serve_faults_resolve(void *faults, const char *name, const char *format, uint32_t depth,
                         struct zqcow2_backend **be, struct zqcow2_error *err);
/* Once the image is closed, or could not be opened. */
void serve_faults_end(struct serve_faults *f);

/* Any thread; NULL: false. */
bool serve_faults_are_cut(const struct serve_faults *f);

/* Of the thread of the control socket. 0 or an error. */

/* Both files lose power, as `spec` says. *held: how many changes were at risk. -EALREADY: power is
 * off. */
int serve_faults_cut(struct serve_faults *f, const struct serve_faults_spec *spec, uint64_t *held);
/* Adds the rules of `spec` to those of both files. -E2BIG: there are too many. */
int serve_faults_add(struct serve_faults *f, const struct serve_faults_spec *spec);
void serve_faults_clear(struct serve_faults *f);

#endif
