/* SPDX-License-Identifier: MIT */
/*
 * A plugin for nbdkit that exports an image over NBD: nbdkit ./nbdkit_plugin.so file=disk.qcow2
 * Built as a shared object (cc -shared -fPIC); of nbdkit there is nothing to link with.
 *
 * NBD knows no zones: a client finds what was written as data, the rest of a zone as a hole, and
 * may write to a sequential zone only where its write pointer is.
 */
#define NBDKIT_API_VERSION 2
#include <nbdkit-plugin.h>
#include <stdlib.h>
#include <string.h>
#include <zqcow2/backend.h>

/* nbdkit calls from as many threads as it likes, and so may we call the library. */
#define THREAD_MODEL NBDKIT_THREAD_MODEL_PARALLEL

static char *file;
static int read_only;
static struct zqcow2_image *img;
static struct zqcow2_info info = ZQCOW2_INFO_INIT;

static int failed(const char *what, int rc)
{
    nbdkit_error("%s: %s", what, zqcow2_strerror(rc));
    nbdkit_set_error(zqcow2_errno(rc)); /* the nearest that NBD has for the client */
    return -1;
}

static int image_config(const char *key, const char *value)
{
    if (!strcmp(key, "readonly"))
        return (read_only = nbdkit_parse_bool(value)) < 0 ? -1 : 0;
    if (strcmp(key, "file")) {
        nbdkit_error("%s=: not a parameter of this plugin", key);
        return -1;
    }
    free(file);
    file = nbdkit_realpath(value); /* the server leaves its directory */
    return file ? 0 : -1;
}

static int image_config_complete(void)
{
    if (!file)
        nbdkit_error("file=IMAGE is missing");
    return file ? 0 : -1;
}

/* Not earlier: an image does not survive a fork. One image serves all connections. */
static int image_after_fork(void)
{
    struct zqcow2_open_options opt = ZQCOW2_OPEN_OPTIONS_INIT;
    struct zqcow2_error err = {0, ""};
    struct zqcow2_backend *be;
    int rc = zqcow2_file_open(file, read_only ? 0 : ZQCOW2_FILE_RDWR, NULL, &be);

    if (rc < 0)
        return failed(file, rc);
    opt.flags = read_only ? 0 : ZQCOW2_OPEN_RDWR;
    rc = zqcow2_open(be, &opt, &img, &err);
    if (rc < 0) {
        nbdkit_error("%s: %s", file, err.text);
        zqcow2_backend_close(be);
        return -1;
    }
    return zqcow2_get_info(img, &info);
}

static void image_unload(void)
{
    int rc = img ? zqcow2_close(img) : 0;

    if (rc < 0)
        failed(file, rc);
    free(file);
}

static void *image_open(int readonly)
{
    (void)readonly;
    return img;
}

static int64_t image_get_size(void *handle)
{
    (void)handle;
    return (int64_t)info.virtual_size;
}

static int image_block_size(void *handle, uint32_t *minimum, uint32_t *preferred, uint32_t *maximum)
{
    (void)handle;
    *minimum = info.block_size;
    *preferred = info.cluster_size < 4096 ? 4096 : info.cluster_size;
    *maximum = 32 << 20;
    return 0;
}

static int image_can_write(void *handle)
{
    (void)handle;
    return !(info.flags & ZQCOW2_INFO_READ_ONLY);
}

static int plain(void *handle)
{
    (void)handle;
    return !(info.flags & ZQCOW2_INFO_ZONED);
}

static int zoned(void *handle)
{
    return !plain(handle);
}

static int yes(void *handle)
{
    return (void)handle, 1;
}

static int native(void *handle)
{
    return (void)handle, NBDKIT_FUA_NATIVE;
}

static unsigned fua(uint32_t flags)
{
    return flags & NBDKIT_FLAG_FUA ? ZQCOW2_FUA : 0;
}

static int image_pread(void *handle, void *buf, uint32_t count, uint64_t off, uint32_t flags)
{
    int rc = zqcow2_read(handle, buf, count, off);
    return (void)flags, rc < 0 ? failed("read", rc) : 0;
}

static int image_pwrite(void *handle, const void *buf, uint32_t count, uint64_t off, uint32_t flags)
{
    int rc = zqcow2_write(handle, buf, count, off, fua(flags));
    return rc < 0 ? failed("write", rc) : 0;
}

static int image_zero(void *handle, uint32_t count, uint64_t off, uint32_t flags)
{
    unsigned keep = flags & NBDKIT_FLAG_MAY_TRIM ? 0 : ZQCOW2_NO_UNMAP;
    unsigned fast = flags & NBDKIT_FLAG_FAST_ZERO ? ZQCOW2_NO_FALLBACK : 0;
    int rc = zqcow2_write_zeroes(handle, count, off, fua(flags) | keep | fast);
    return rc < 0 ? failed("zero", rc) : 0;
}

static int image_trim(void *handle, uint32_t count, uint64_t off, uint32_t flags)
{
    int rc = zqcow2_discard(handle, count, off, fua(flags));
    return rc < 0 ? failed("trim", rc) : 0;
}

static int image_flush(void *handle, uint32_t flags)
{
    int rc = zqcow2_flush(handle);
    return (void)flags, rc < 0 ? failed("flush", rc) : 0;
}

/* What lies between a write pointer and the end of its zone is a hole. */
static int image_extents(void *handle, uint32_t count, uint64_t off, uint32_t flags,
                         struct nbdkit_extents *to)
{
    struct zqcow2_zone z;

    for (uint64_t end = off + count; off < end; off = z.start + z.length) {
        int rc = zqcow2_zone_report(handle, off, &z, &(uint32_t){1});
        uint64_t data;
        if (rc < 0)
            return failed("report", rc);
        data = z.state == ZQCOW2_ZONE_NOT_WP || z.write_pointer == UINT64_MAX ?
                   z.length :
                   z.write_pointer - z.start;
        if ((data && nbdkit_add_extent(to, z.start, data, 0) < 0) ||
            (data < z.length && nbdkit_add_extent(to, z.start + data, z.length - data,
                                                  NBDKIT_EXTENT_HOLE | NBDKIT_EXTENT_ZERO) < 0))
            return -1;
        if (flags & NBDKIT_FLAG_REQ_ONE)
            break;
    }
    return 0;
}

static struct nbdkit_plugin plugin = {
    .name = "zqcow2",
    .longname = "zoned qcow2 images",
    .magic_config_key = "file",
    .config = image_config,
    .config_complete = image_config_complete,
    .config_help = "file=IMAGE  readonly=BOOL",
    .after_fork = image_after_fork,
    .unload = image_unload,
    .open = image_open,
    .get_size = image_get_size,
    .block_size = image_block_size,
    .can_write = image_can_write,
    .can_multi_conn = yes,
    .can_flush = yes,
    .can_zero = yes,
    .can_fast_zero = yes,
    .can_trim = plain,
    .can_fua = native,
    .can_extents = zoned,
    .pread = image_pread,
    .pwrite = image_pwrite,
    .zero = image_zero,
    .trim = image_trim,
    .flush = image_flush,
    .extents = image_extents,
};
NBDKIT_REGISTER_PLUGIN(plugin)
