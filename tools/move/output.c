/* SPDX-License-Identifier: MIT */
/* The target of convert: created beside its place, or over a device, and finished or removed. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "output.h"
#include "staged.h"

static bool failed(const struct zt_output *o, const char *what, int rc)
{
    if (rc < 0)
        zt_error("%s: %s%s", o->target.path, what, zqcow2_strerror(rc));
    return rc < 0;
}

/*
 * Makes an empty file of it. One that is empty already is left alone: ext4 writes a file out when
 * it is closed after it was cut to nothing.
 */
static int make_empty(struct zt_output *o)
{
    uint64_t bytes;
    int rc = zqcow2_backend_length(o->be, &bytes);

    return rc == 0 && bytes ? zqcow2_backend_truncate(o->be, 0) : rc;
}

/* Is it a file that another run may go on with? */
static bool is_part(const struct zt_output *o)
{
    return o->renamed && o->file.keep;
}

/* A file that may be resumed is as long as what it has. */
static int resume_raw(struct zt_output *o, uint64_t size)
{
    uint64_t bytes;
    int rc = zqcow2_backend_length(o->be, &bytes);

    o->resumed = true;
    return rc == 0 && bytes > size ? -EEXIST : rc;
}

/* Of a file only its length; of a device, which keeps what it holds, that it is large enough. */
static int make_raw(struct zt_output *o, uint64_t size)
{
    uint64_t bytes;
    struct stat st;
    int rc = zqcow2_backend_lock(o->be, ZQCOW2_LOCK_EXCLUSIVE);

    o->info.virtual_size = size;
    if (rc < 0)
        return rc;
    if (zt_on_network(&o->target) || (stat(o->target.path, &st) == 0 && S_ISBLK(st.st_mode))) {
        o->stale = true;
        rc = zqcow2_backend_length(o->be, &bytes);
        o->changed = rc == 0 && bytes >= size;
        return rc == 0 && bytes < size ? -ENOSPC : rc;
    }
    o->changed = true;
    if (o->file.found)
        return resume_raw(o, size);
    rc = make_empty(o);
    return rc < 0 || is_part(o) ? rc : zqcow2_backend_truncate(o->be, size);
}

static int open_image(struct zt_output *o, unsigned flags, struct zqcow2_resolver *files,
                      struct zqcow2_error *err)
{
    struct zqcow2_open_options open = ZQCOW2_OPEN_OPTIONS_INIT;

    open.flags = flags;
    open.rules = o->target.rules;
    open.hooks = zt_hooks();
    open.resolve = files ? zqcow2_resolve_file : NULL;
    open.resolve_arg = files;
    return zqcow2_open(o->be, &open, &o->img, err);
}

/*
 * Opens what was left. Not if it was not closed: then entries may be missing in front of others.
 * Zones are as their pointers say in any case.
 */
static int resume_image(struct zt_output *o, struct zqcow2_error *err)
{
    struct zqcow2_info before = ZQCOW2_INFO_INIT;
    int rc = open_image(o, ZQCOW2_OPEN_BORROW, NULL, err);

    if (rc < 0)
        return rc;
    (void)zqcow2_get_info(o->img, &before);
    (void)zqcow2_close(o->img);
    o->img = NULL;
    rc = open_image(o, ZQCOW2_OPEN_RDWR, NULL, err);
    o->resumed = rc == 0 && (!(before.flags & ZQCOW2_INFO_DIRTY) || before.zone_size);
    return rc;
}

static bool same_image(const struct zt_output *o, const struct zqcow2_create_options *opt)
{
    const struct zqcow2_info *i = &o->info;
    uint64_t capacity = opt->zone_capacity ? opt->zone_capacity : opt->zone_size;

    return i->virtual_size == opt->virtual_size && i->zone_size == opt->zone_size &&
           (!opt->zone_size ||
            (i->zone_capacity == capacity && i->nr_conventional == opt->conventional_zones)) &&
           (!opt->cluster_size || i->cluster_size == opt->cluster_size) &&
           i->descriptor_extension == opt->descriptor_extension;
}

/*
 * What create refuses, it refuses before it writes. Names of backing files count from the folder
 * of the file that this one becomes, which is that of its temporary name, too.
 */
static int create_image(struct zt_output *o, const struct zqcow2_create_options *opt,
                        struct zqcow2_error *err)
{
    struct zqcow2_resolver *files = opt->backing_name ? zt_resolver(&o->target) : NULL;
    struct zqcow2_create_options anew = *opt;
    int rc;

    anew.flags |= o->file.found ? ZQCOW2_CREATE_FORCE : 0u;
    anew.resolve = files ? zqcow2_resolve_file : NULL;
    anew.resolve_arg = files;
    rc = zqcow2_create(o->be, &anew, err);
    if (o->renamed)
        o->changed = rc != -EINVAL && rc != -EAGAIN;
    if (rc == 0)
        rc = open_image(o, ZQCOW2_OPEN_RDWR, files, err);
    zqcow2_resolver_free(files);
    return rc;
}

/* Once it was opened, or was not: the image takes the backend over. */
static bool has_image(struct zt_output *o, int rc, const struct zqcow2_error *err)
{
    if (rc < 0) {
        zt_error("%s: %s", o->target.path, zt_reason(rc, err));
        return false;
    }
    o->be = NULL;
    return zt_info(&o->target, o->img, &o->info);
}

static bool make_image(struct zt_output *o, const struct zqcow2_create_options *opt)
{
    struct zqcow2_error err = {0, ""};
    int rc = o->file.found ? resume_image(o, &err) : ZQCOW2_ENOTQCOW2;

    if (rc == ZQCOW2_ENOTQCOW2) /* or creating it was interrupted */
        rc = create_image(o, opt, &err);
    if (!has_image(o, rc, &err))
        return false;
    if (!o->file.found || same_image(o, opt))
        return true;
    zt_error("%s: is a part of another copy", o->file.temporary);
    return false;
}

/*
 * The file that is written, by whatever name. An image that has its own from the start must not be
 * one until it is complete.
 */
static int open_backend(struct zt_output *o, bool image)
{
    bool nameless = image && !o->renamed;
    struct zt_staging how = {
        .no_sync = o->file.no_sync, .nameless = nameless, .changed = nameless ? &o->changed : NULL};
    struct zqcow2_backend *inner;
    struct zt_target t = o->target;
    int rc;

    if (o->renamed)
        t.path = o->file.temporary;
    rc = zt_backend_open(&t, ZQCOW2_FILE_RDWR, &inner);
    if (rc < 0)
        return rc;
    o->be = inner;
    return o->file.no_sync || nameless ? zt_stage(inner, &how, &o->be) : 0;
}

/* Opens the file and makes it what it is to be. */
static bool make(struct zt_output *o, const struct zqcow2_create_options *opt, uint64_t size)
{
    int rc = open_backend(o, opt);

    if (rc < 0) {
        zt_backend_error(&o->target, rc);
        return false;
    }
    if (opt)
        return make_image(o, opt);
    rc = make_raw(o, size);
    if (rc == -EEXIST)
        zt_error("%s: is a part of another copy", o->file.temporary);
    else if (rc < 0)
        zt_backend_error(&o->target, rc);
    return rc == 0;
}

/* Reports it: these are written in order only. */
static bool has_zones(const char *path)
{
    struct zt_device *d;

    if (zt_device_open(path, false, true, &d) < 0 || !d)
        return false;
    zt_device_close(d);
    zt_error("%s: a device with zones; see zqcow2 export", path);
    return true;
}

/* Sets o->renamed; false after reporting. */
static bool find_place(struct zt_output *o, bool force)
{
    struct stat st;
    int rc;

    zt_hold_signals();
    if (!zt_on_network(&o->target) && stat(o->target.path, &st) < 0 && errno == ENOENT) {
        o->renamed = true;
        return zt_replace_new(&o->file, o->target.path);
    }
    if (!force) {
        zt_exists_error(o->target.path);
        return false;
    }
    if (zt_on_network(&o->target))
        return true;
    if (has_zones(o->target.path))
        return false;
    rc = zt_replace_begin(&o->file, o->target.path);
    o->renamed = rc > 0;
    if (rc == 0 && o->anew)
        zt_error("%s: another file cannot take its place", o->target.path);
    return rc > 0 || (rc == 0 && !o->anew);
}

bool zt_output_open(struct zt_output *o, const struct zqcow2_create_options *opt, uint64_t size,
                    bool force)
{
    o->img = NULL;
    o->be = NULL;
    o->dev = NULL;
    o->changed = o->stale = o->resumed = o->taken = false;
    o->info = (struct zqcow2_info)ZQCOW2_INFO_INIT;
    if (!find_place(o, force))
        return false;
    if (make(o, opt, size))
        return true;
    o->file.keep &= o->file.found;
    o->changed &= !is_part(o);
    (void)zt_output_close(o, false);
    return false;
}

/* The image at the target, for which nothing has been created. */
static bool take_image(struct zt_output *o)
{
    struct zqcow2_error err = {0, ""};
    struct zqcow2_resolver *files = zt_resolver(&o->target);
    int rc = files ? open_image(o, ZQCOW2_OPEN_RDWR, files, &err) : -ENOMEM;

    zqcow2_resolver_free(files);
    if (!has_image(o, rc, &err))
        return false;
    if (o->info.flags & ZQCOW2_INFO_ZONED)
        zt_error("%s: has zones, which are not written over", o->target.path);
    return !(o->info.flags & ZQCOW2_INFO_ZONED);
}

static bool take_raw(struct zt_output *o)
{
    int rc = zqcow2_backend_lock(o->be, ZQCOW2_LOCK_EXCLUSIVE);

    if (rc == 0)
        rc = zqcow2_backend_length(o->be, &o->info.virtual_size);
    if (rc < 0)
        zt_backend_error(&o->target, rc);
    return rc == 0;
}

bool zt_output_take(struct zt_output *o, bool image, uint64_t size)
{
    int rc;

    o->img = NULL;
    o->be = NULL;
    o->dev = NULL;
    o->renamed = o->changed = o->resumed = false;
    o->taken = o->stale = true;
    o->info = (struct zqcow2_info)ZQCOW2_INFO_INIT;
    zt_hold_signals();
    rc = zt_backend_open(&o->target, ZQCOW2_FILE_RDWR, &o->be);
    if (rc < 0)
        zt_backend_error(&o->target, rc);
    if (rc == 0 && (image ? take_image(o) : take_raw(o))) {
        o->changed = o->info.virtual_size >= size;
        if (o->changed)
            return true;
        zt_error("%s: is smaller than what is to be copied", o->target.path);
    }
    (void)zt_output_close(o, false);
    return false;
}

/*
 * A raw file that may be resumed gets its length last, as zeros at its end are not written. Its
 * length says what it has, so the bytes are durable before it.
 */
static int finish_raw(struct zt_output *o)
{
    int rc = zqcow2_backend_flush(o->be);

    if (rc < 0 || !is_part(o))
        return rc;
    rc = zqcow2_backend_truncate(o->be, o->info.virtual_size);
    return rc < 0 ? rc : zqcow2_backend_flush(o->be);
}

static bool close_image(struct zt_output *o, bool ok)
{
    ok = zt_close(&o->target, o->img, ok ? 0 : 1) == 0;
    return ok && (o->renamed || o->taken ||
                  !failed(o, "closing: ", zt_name_image(&o->target, o->file.no_sync)));
}

bool zt_output_close(struct zt_output *o, bool ok)
{
    if (o->img)
        ok = close_image(o, ok);
    else if (o->be && ok)
        ok = !failed(o, "closing: ", o->dev ? zt_device_flush(o->dev) : finish_raw(o));
    zqcow2_backend_close(o->be);
    zt_device_close(o->dev);
    free(o->zeros);
    if (o->renamed) {
        int rc = zt_replace_end(&o->file, ok);

        if (rc == 0)
            zt_error("%s: cannot be replaced", o->target.path);
        if (rc <= 0 && o->changed && o->file.keep)
            zt_error("%s: holds the part that was copied; see %s --resume", o->file.temporary,
                     o->verb);
        return rc > 0;
    }
    if (!ok && o->changed)
        zt_error("%s: is incomplete%s", o->target.path, o->dev ? "; see export --resume" : "");
    return ok;
}

bool zt_output_zoned(const struct zt_output *o)
{
    return (o->img || o->dev) && (o->info.flags & ZQCOW2_INFO_ZONED);
}

/* How much of it, from its first byte on, are whole clusters; the device may end inside its last.
 */
static size_t whole_clusters(const struct zt_output *o, size_t len, uint64_t off)
{
    uint64_t size = o->info.cluster_size, rest = (off + len) % size;

    if (off % size || off + len == o->info.virtual_size)
        return off % size ? 0 : len;
    return rest < len ? len - (size_t)rest : 0;
}

int zt_output_write(struct zt_output *o, const void *buf, size_t len, uint64_t off, bool compress)
{
    size_t packed = compress ? whole_clusters(o, len, off) : 0;
    int rc = packed ? zqcow2_write(o->img, buf, packed, off, ZQCOW2_COMPRESS) : 0;

    if (o->dev)
        return zt_device_write(o->dev, buf, len, off);
    if (!o->img)
        return zqcow2_backend_write(o->be, buf, len, off);
    if (rc < 0 || packed == len)
        return rc;
    return zqcow2_write(o->img, (const uint8_t *)buf + packed, len - packed, off + packed, 0);
}

static int write_zeros(struct zt_output *o, uint64_t len, uint64_t off)
{
    int rc = 0;

    if (!o->zeros) {
        o->zeros = zt_buffer(ZT_ZEROS);
        if (!o->zeros)
            return -ENOMEM;
        memset(o->zeros, 0, ZT_ZEROS);
    }
    for (uint64_t done = 0; rc == 0 && done < len; done += ZT_ZEROS)
        rc = zt_output_write(o, o->zeros, len - done < ZT_ZEROS ? (size_t)(len - done) : ZT_ZEROS,
                             off + done, false);
    return rc;
}

int zt_output_zeroes(struct zt_output *o, uint64_t len, uint64_t off)
{
    return o->img ? zqcow2_write_zeroes(o->img, len, off, 0) : write_zeros(o, len, off);
}

/* Where the last extent ends that the image maps. */
static int last_mapped(struct zt_output *o, uint64_t *end)
{
    struct zqcow2_extent s = ZQCOW2_EXTENT_INIT;
    int rc = 0;

    *end = 0;
    for (uint64_t at = 0; rc == 0 && at < o->info.virtual_size; at += s.length) {
        rc = zqcow2_block_status(o->img, at, o->info.virtual_size - at, &s);
        if (rc == 0 && s.kind != ZQCOW2_BLOCK_UNALLOCATED)
            *end = at + s.length;
    }
    return rc;
}

/* Pieces are written in order, and none crosses a multiple of ZT_CHUNK; the last may be in part. */
int zt_output_reached(struct zt_output *o, uint64_t *off)
{
    uint64_t end;
    int rc = o->img ? last_mapped(o, &end) : zqcow2_backend_length(o->be, &end);

    *off = rc == 0 && end ? (end - 1) / ZT_CHUNK * ZT_CHUNK : 0;
    return rc;
}

/* In pieces that the file takes; what it cannot clear is written. */
static int clear(struct zt_output *o, uint64_t len, uint64_t off)
{
    struct zqcow2_limits l = {.size = sizeof(l)};
    int rc = zqcow2_backend_limits(o->be, &l);
    uint64_t most = l.max_transfer ? l.max_transfer : UINT64_MAX;

    for (uint64_t piece; rc == 0 && len; off += piece, len -= piece) {
        piece = len < most ? len : most;
        rc = (off | piece) % l.io_align ? -EOPNOTSUPP : zqcow2_backend_zero(o->be, off, piece);
        if (rc == -EOPNOTSUPP)
            rc = write_zeros(o, piece, off);
    }
    return rc;
}

int zt_output_skip(struct zt_output *o, uint64_t len, uint64_t off)
{
    if (!o->stale)
        return 0;
    if (o->img)
        return zqcow2_write_zeroes(o->img, len, off, 0);
    return o->dev ? write_zeros(o, len, off) : clear(o, len, off);
}

int zt_output_report(struct zt_output *o, uint64_t off, struct zqcow2_zone *zones, uint32_t *nr)
{
    return o->img ? zqcow2_zone_report(o->img, off, zones, nr) :
                    zt_device_report(o->dev, off, zones, nr);
}

/* An image closes what is open with itself. */
int zt_output_end_zone(struct zt_output *o, const struct zqcow2_zone *z, bool full)
{
    bool open = z->state == ZQCOW2_ZONE_IMP_OPEN || z->state == ZQCOW2_ZONE_EXP_OPEN;

    if (full && z->state != ZQCOW2_ZONE_FULL)
        return o->img ? zqcow2_zone_finish(o->img, z->start, z->length, 0) :
                        zt_device_do(o->dev, ZT_DEVICE_FINISH, z->start, z->length);
    return o->dev && open ? zt_device_do(o->dev, ZT_DEVICE_CLOSE, z->start, z->length) : 0;
}
