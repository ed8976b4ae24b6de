/* SPDX-License-Identifier: MIT */
/*
 * Opens what an image names, as a backing file or as its data file: by the caller's resolver and by
 * nothing else (S2).
 */
#include <errno.h>
#include <string.h>
#include "base/report.h"
#include "image/opening.h"

#define THREADS 4u /* for a backend that blocks */

int zq_opening_blame(struct zqcow2_error *err, const char *what, const char *which, int rc)
{
    char name[100];
    struct zqcow2_error why;

    if (!err)
        return rc;
    zq_fail_rc(err, rc);
    zq_printable(name, sizeof(name), which, strlen(which));
    why = *err;
    return name[0] ? zq_fail(err, rc, "%s \"%s\": %s", what, name, why.text) :
                     zq_fail(err, rc, "%s: %s", what, why.text);
}

/* An event loop must not be blocked by the files below (E4): those that block get threads. */
static int fit_backend(const struct opening *o, struct zqcow2_backend **be)
{
    struct zqcow2_backend *blocking = *be;
    int rc;

    if (blocking->ops.poll)
        return zq_fail(
            o->err, ZQCOW2_EFEATURE,
            "its backend must be polled: only the backend of the image itself may require that");
    if (!o->be->ops.submit || blocking->ops.submit)
        return 0;
    rc = zqcow2_threads_wrap(blocking, THREADS, &o->hooks, be);
    if (rc < 0)
        *be = blocking;
    return rc;
}

/* A resolver that reports a success has an answer: anything else must not pass for one. */
int zq_opening_call(const struct opening *o, const char *name, const char *format, uint32_t depth,
                    struct zqcow2_backend **be)
{
    int rc;

    if (!o->opt.resolve)
        return zq_fail(o->err, ZQCOW2_EFEATURE, "there is no resolver to open it");
    *be = NULL;
    rc = o->opt.resolve(o->opt.resolve_arg, name, format, depth, be, o->err);
    if (rc == 0 && !*be)
        rc = -EINVAL;
    return rc > 0 ? -EIO : rc;
}

int zq_opening_named(const struct opening *o, const char *name, const char *format, uint32_t depth,
                     struct zqcow2_backend **be)
{
    int rc = zq_opening_call(o, name, format, depth, be);

    if (rc < 0)
        return rc;
    rc = fit_backend(o, be);
    if (rc == 0)
        rc = zq_be_enter(*be, depth & ZQCOW2_RESOLVE_WRITE, !(o->opt.flags & ZQCOW2_OPEN_NOLOCK),
                         o->err);
    if (rc < 0)
        zqcow2_backend_close(*be);
    return rc;
}
