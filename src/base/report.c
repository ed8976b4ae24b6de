/* SPDX-License-Identifier: MIT */
/* Turns error numbers into text and errno, and fills the caller's error buffer. */
#include "base/report.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include "base/mem.h"

/*
 * Each zone rule has a number of its own below -4095, where no errno can be. err: the nearest
 * errno, for programs that know nothing else; ETOOMANYREFS and EOVERFLOW are what Linux block
 * devices return for the two limits.
 */
static const struct {
    int code, err;
    const char *text;
} own[] = {
    {ZQCOW2_EZONE_BOUNDARY, EIO, "crosses the end or the capacity of a zone"},
    {ZQCOW2_EZONE_FULL, EIO, "the zone is full"},
    {ZQCOW2_EZONE_RDONLY, EIO, "the zone is read-only"},
    {ZQCOW2_EZONE_OFFLINE, EIO, "the zone is offline"},
    {ZQCOW2_EZONE_WP, EIO, "not at the zone's write pointer"},
    {ZQCOW2_EZONE_OPEN, ETOOMANYREFS, "too many open zones"},
    {ZQCOW2_EZONE_ACTIVE, EOVERFLOW, "too many active zones"},
    {ZQCOW2_EZONE_STATE, EIO, "not allowed in the zone's state"},
    {ZQCOW2_ENOTQCOW2, EINVAL, "not a qcow2 file"},
    {ZQCOW2_ENOTZONED, EOPNOTSUPP, "the image has no zones"},
    {ZQCOW2_EFEATURE, ENOTSUP, "the image needs a feature that this library lacks"},
    {ZQCOW2_ECORRUPT, EUCLEAN, "the image is corrupt"},
    {ZQCOW2_EDEAD, EIO, "a flush or a metadata write failed earlier: reopen the image"},
    {ZQCOW2_EINACTIVE, EBUSY, "the image is inactive: another program may be using it"},
};

const char *zqcow2_strerror(int rc)
{
    const char *text;

    if (rc >= 0)
        return "success";
    for (size_t i = 0; i < sizeof(own) / sizeof(own[0]); i++) {
        if (own[i].code == rc)
            return own[i].text;
    }
    text = rc >= -4095 ? zq_errtext(-rc) : NULL;
    return text ? text : "unknown error";
}

int zqcow2_errno(int rc)
{
    if (rc >= 0)
        return 0;
    for (size_t i = 0; i < sizeof(own) / sizeof(own[0]); i++) {
        if (own[i].code == rc)
            return own[i].err;
    }
    return rc >= -4095 ? -rc : EIO;
}

/* A text that is too long is cut: vsnprintf ends it in any case. */
int zq_fail(struct zqcow2_error *err, int code, const char *fmt, ...)
{
    va_list ap;

    if (err) {
        err->code = code;
        va_start(ap, fmt);
        vsnprintf(err->text, sizeof(err->text), fmt, ap);
        va_end(ap);
    }
    return code;
}

/* A more exact text that a lower layer has left for this code stays. */
int zq_fail_rc(struct zqcow2_error *err, int code)
{
    if (err && (err->code != code || !err->text[0]))
        zq_fail(err, code, "%s", zqcow2_strerror(code));
    return code;
}

/* What an image contains may hold control sequences for the terminal that shows a message. */
void zq_printable(char *out, size_t room, const void *from, size_t n)
{
    const uint8_t *in = from;
    size_t i;

    for (i = 0; i + 1 < room && i < n && in[i]; i++)
        out[i] = (char)(in[i] >= 0x20 && in[i] < 0x7f ? in[i] : '?');
    out[i] = '\0';
}

int zq_check_unknown(struct zqcow2_error *err, uint32_t flags, uint32_t known, uint32_t reserved)
{
    if (flags & ~known)
        return zq_fail(err, -EINVAL, "flags: 0x%" PRIx32 " is unknown", flags & ~known);
    return reserved ? zq_fail(err, -EINVAL, "reserved: must be 0") : 0;
}

bool zq_format_is_known(const char *format)
{
    return !strcmp(format, "raw") || !strcmp(format, "qcow2");
}

int zq_check_format(struct zqcow2_error *err, const char *format)
{
    if (format && zq_format_is_known(format))
        return 0;
    return zq_fail(err, -EINVAL, "backing_format: must be raw or qcow2");
}

int zq_take_hooks(struct zqcow2_error *err, struct zqcow2_hooks *out, const struct zqcow2_hooks *in)
{
    int rc = zq_hooks_init(out, in);

    return rc < 0 ? zq_fail(err, rc, "hooks: %s", zqcow2_strerror(rc)) : 0;
}

/*
 * Never under the mutex: the hook is the caller's code. The text is on the stack, so a log line
 * cannot fail for memory.
 */
void zq_log(const struct zqcow2_hooks *h, int level, const char *fmt, ...)
{
    char text[256];
    va_list ap;

    if (!h->log || level > h->log_level)
        return;
    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    h->log(h->ctx, level, text);
}
