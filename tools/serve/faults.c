/* SPDX-License-Identifier: MIT */
/* Faults of a disk that is being served. */
#include "serve/faults.h"

#include <errno.h>
#include <string.h>

#include "tool.h"

#define THREADS 8    /* so many requests can be in flight or delayed at once */
#define RULES   1024 /* since they were cleared; each costs every request a little */

/* By lines: a server that is killed has written what it has said. */
int serve_faults_begin(struct serve_faults *f, const struct serve_faults_spec *spec,
                       const struct zqcow2_hooks *hooks)
{
    f->spec = *spec;
    f->hooks = hooks;
    f->rules = spec->nr_rules;
    if (!spec->log)
        return 0;
    f->log = fopen(spec->log, "ae");
    if (!f->log)
        return -errno;
    setvbuf(f->log, NULL, _IOLBF, BUFSIZ);
    return 0;
}

static void log_image(void *arg, const char *line)
{
    fprintf(((struct serve_faults *)arg)->log, "image: %s\n", line);
}

static void log_data(void *arg, const char *line)
{
    fprintf(((struct serve_faults *)arg)->log, "data file: %s\n", line);
}

/* ---- opening ---- */

/* Their seeds are those of the numbers from `first` on. */
static int add_rules(const struct serve_faults *f, struct zqcow2_faults *to,
                     const struct serve_faults_spec *spec, unsigned first)
{
    int rc = 0;

    for (unsigned i = 0; rc == 0 && to && i < spec->nr_rules; i++) {
        struct zqcow2_faults_rule r = spec->rules[i];

        r.seed = f->spec.seed + first + i;
        rc = zqcow2_faults_add_rule(to, &r);
    }
    return rc;
}

/* The backend on it, in a pool of threads. */
static int open_pool(struct serve_faults *f, struct zqcow2_faults *faults,
                     struct zqcow2_backend **be)
{
    struct zqcow2_backend *blocking;
    int rc = add_rules(f, faults, &f->spec, 0);

    if (rc == 0)
        rc = zqcow2_faults_backend(faults, &blocking);
    if (rc < 0)
        return rc;
    rc = zqcow2_threads_wrap(blocking, THREADS, f->hooks, be);
    if (rc < 0)
        zqcow2_backend_close(blocking);
    return rc;
}

/* Takes `inner`, and closes it on failure. */
static int wrap(struct serve_faults *f, bool data, struct zqcow2_backend *inner,
                struct zqcow2_backend **be)
{
    struct zqcow2_faults_options o = ZQCOW2_FAULTS_OPTIONS_INIT;
    struct zqcow2_faults **faults = data ? &f->data : &f->image;
    int rc;

    o.max_held = f->spec.max_held;
    o.log = !f->log ? NULL : data ? log_data : log_image;
    o.log_arg = f;
    o.hooks = f->hooks;
    rc = zqcow2_faults_wrap(inner, &o, faults);
    if (rc < 0) {
        zqcow2_backend_close(inner);
        return rc;
    }
    rc = open_pool(f, *faults, be);
    if (rc < 0) {
        zqcow2_faults_free(*faults);
        *faults = NULL;
    }
    return rc;
}

int serve_faults_wrap(struct serve_faults *f, struct zqcow2_backend **be)
{
    return wrap(f, false, *be, be);
}

int serve_faults_resolve(void *faults, const char *name, const char *format, uint32_t depth,
                         struct zqcow2_backend **be, struct zqcow2_error *err)
{
    struct serve_faults *f = faults;
    int rc = zqcow2_resolve_file(f->files, name, format, depth, be, err);

    /* Only the image's own: the data files of its backing files are never written. */
    if (rc < 0 || (depth & ~ZQCOW2_RESOLVE_WRITE) != ZQCOW2_RESOLVE_DATA_FILE)
        return rc;
    return wrap(f, true, *be, be);
}

void serve_faults_end(struct serve_faults *f)
{
    zqcow2_faults_free(f->image);
    zqcow2_faults_free(f->data);
    if (f->log)
        fclose(f->log);
    f->image = f->data = NULL;
    f->log = NULL;
}

/* ---- while it is served ---- */

bool serve_faults_are_cut(const struct serve_faults *f)
{
    return f && __atomic_load_n(&f->cut, __ATOMIC_ACQUIRE);
}

/*
 * The data file first. What the image makes durable between the two refers to data that was durable
 * before, so this is a loss of both at once. New requests have failed already: an answer that needs
 * no file must not come from a disk without power.
 */
int serve_faults_cut(struct serve_faults *f, const struct serve_faults_spec *spec, uint64_t *held)
{
    int rc = 0, image;

    if (__atomic_exchange_n(&f->cut, true, __ATOMIC_ACQ_REL))
        return -EALREADY;
    *held = zqcow2_faults_held(f->image) + (f->data ? zqcow2_faults_held(f->data) : 0);
    if (f->data)
        rc = zqcow2_faults_cut(f->data, spec->seed, spec->how);
    image = zqcow2_faults_cut(f->image, spec->seed, spec->how);
    return rc ? rc : image;
}

int serve_faults_add(struct serve_faults *f, const struct serve_faults_spec *spec)
{
    int rc;

    if (spec->nr_rules > RULES - f->rules)
        return -E2BIG;
    rc = add_rules(f, f->image, spec, f->rules);
    if (rc == 0)
        rc = add_rules(f, f->data, spec, f->rules);
    f->rules += spec->nr_rules;
    return rc;
}

void serve_faults_clear(struct serve_faults *f)
{
    zqcow2_faults_clear_rules(f->image);
    if (f->data)
        zqcow2_faults_clear_rules(f->data);
    f->rules = 0;
}
