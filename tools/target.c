/* SPDX-License-Identifier: MIT */
/* The image that a verb works on: its backend, opening, closing, the errors of both. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "nbd.h"
#include "tool.h"

struct zt_backend {
    const char *name;
    int (*open)(const char *path, unsigned flags, const struct zqcow2_hooks *hooks,
                struct zqcow2_backend **be); /* NULL: the network's */
};

#define THREADS       8
#define RECONNECT     30 /* seconds */
#define RECONNECT_MAX 86400

static int open_threads(const char *path, unsigned flags, const struct zqcow2_hooks *hooks,
                        struct zqcow2_backend **be)
{
    struct zqcow2_backend *file;
    int rc = zqcow2_file_open(path, flags, hooks, &file);

    if (rc < 0)
        return rc;
    rc = zqcow2_threads_wrap(file, THREADS, hooks, be);
    if (rc < 0)
        zqcow2_backend_close(file);
    return rc;
}

/* What --backend accepts; the first is the default. */
static const struct zt_backend backends[] = {
    {"file", zqcow2_file_open},
    {"uring", zqcow2_uring_open},
    {"threads", open_threads},
    {"nbd", NULL},
};
static const struct zt_backend *const network = &backends[ZT_COUNT(backends) - 1];
static char why[256]; /* the last backend could not be opened; "": the error says it */

void zt_backend_list(FILE *out)
{
    for (size_t i = 0; i < ZT_COUNT(backends); i++)
        fprintf(out, "%s%s", i ? ", " : "", backends[i].name);
}

static bool choose_network(struct zt_target *t, const char *seconds)
{
    uint64_t n;

    t->backend = network;
    if (!zt_u64_arg("--backend=nbd", seconds, &n))
        return false;
    t->reconnect = n < RECONNECT_MAX ? (int)n + 1 : RECONNECT_MAX + 1;
    return true;
}

static bool choose_backend(struct zt_target *t, const char *name)
{
    static const char reconnect[] = "nbd:reconnect=";

    for (size_t i = 0; i < ZT_COUNT(backends); i++) {
        if (strcmp(backends[i].name, name) == 0) {
            t->backend = &backends[i];
            return true;
        }
    }
    if (strncmp(name, reconnect, strlen(reconnect)) == 0)
        return choose_network(t, name + strlen(reconnect));
    zt_error("--backend: '%s' is not available here; see zqcow2 --help", name);
    return false;
}

static bool choose_format(struct zt_target *t, const char *name)
{
    t->backing_format = name;
    if (!strcmp(name, "raw") || !strcmp(name, "qcow2"))
        return true;
    zt_error("--backing-format: must be raw or qcow2, not '%s'", name);
    return false;
}

bool zt_target_option(struct zt_target *t, int c)
{
    if (c == ZT_OPT_BACKEND)
        return choose_backend(t, optarg);
    switch (c) {
    case 'U': t->share = true; return true;
    case ZT_OPT_NO_BACKING: t->no_backing = true; return true;
    case ZT_OPT_BACKING_ROOT: t->backing_root = optarg; return true;
    case ZT_OPT_BACKING_FORMAT: return choose_format(t, optarg);
    case ZT_OPT_DATA_FILE: t->data_file = optarg; return true;
    case ZT_OPT_SNAPSHOT: t->snapshot = optarg; return true;
    default: return false; /* zt_option() has reported it */
    }
}

bool zt_on_network(const struct zt_target *t)
{
    return t->backend == network || zt_nbd_name(t->path);
}

static int open_network(const struct zt_target *t, unsigned flags, struct zqcow2_backend **be)
{
    struct zt_nbd_options opt = {.flags = flags,
                                 .reconnect = t->reconnect ? (unsigned)t->reconnect - 1 : RECONNECT,
                                 .hooks = t->hooks ? t->hooks : zt_hooks(),
                                 .dialer = t->dialer};

    if (zt_nbd_name(t->path))
        return zt_nbd_open(t->path, &opt, be, why, sizeof(why));
    snprintf(why, sizeof(why), "not the name of an export, such as nbd://host/name");
    return -EINVAL;
}

int zt_backend_open(const struct zt_target *t, unsigned flags, struct zqcow2_backend **be)
{
    const struct zt_backend *b = t->backend ? t->backend : &backends[0];

    why[0] = '\0';
    return zt_on_network(t) ? open_network(t, flags, be) : b->open(t->path, flags, zt_hooks(), be);
}

const char *zt_backend_reason(const struct zt_target *t, int rc, char *buf, size_t room)
{
    struct stat st;

    if (why[0])
        snprintf(buf, room, "%s", why);
    else if (rc == -EAGAIN)
        snprintf(buf, room, "in use: locked by another program, or by this one");
    else if (rc == -ENOSYS && t->backend)
        snprintf(buf, room, "the backend %s is not available here", t->backend->name);
    else if (stat(t->path, &st) == 0 && !S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode) &&
             !S_ISDIR(st.st_mode))
        snprintf(buf, room, "not a regular file or block device");
    else
        snprintf(buf, room, "%s", zqcow2_strerror(rc));
    return buf;
}

void zt_backend_error(const struct zt_target *t, int rc)
{
    char text[sizeof(why)];

    zt_error("%s: %s", t->path, zt_backend_reason(t, rc, text, sizeof(text)));
}

void zt_exists_error(const char *path)
{
    struct stat st;

    if (zt_nbd_name(path))
        zt_error("%s: an export always exists; --force overwrites it", path);
    else if (stat(path, &st) == 0 && S_ISDIR(st.st_mode))
        zt_error("%s: is a folder; give the name of a file", path);
    else
        zt_error("%s: the file exists; --force replaces it", path);
}

const char *zt_reason(int rc, const struct zqcow2_error *err)
{
    return err->text[0] ? err->text : zqcow2_strerror(rc);
}

struct zqcow2_resolver *zt_resolver(const struct zt_target *t)
{
    struct zqcow2_resolver_options opt = ZQCOW2_RESOLVER_OPTIONS_INIT;
    struct zqcow2_resolver *r = NULL;
    int rc;

    opt.root = t->backing_root;
    opt.data_file = t->data_file;
    opt.hooks = zt_hooks();
    rc = zqcow2_resolver_new(t->path, &opt, &r);
    if (rc < 0 && t->backing_root)
        zt_error("--backing-root: %s: %s", t->backing_root, zqcow2_strerror(rc));
    else if (rc < 0)
        zt_backend_error(t, rc);
    return r;
}

/* Another file for the data of an image that holds them itself would be silently ignored. */
static int check_data_file(const struct zt_target *t, const struct zqcow2_resolver *r)
{
    if (!t->data_file || t->no_backing || zqcow2_resolver_path(r, ZQCOW2_RESOLVE_DATA_FILE))
        return 0;
    zt_error("%s: has no data file: omit --data-file", t->path);
    return -EINVAL;
}

static int open_on(const struct zt_target *t, unsigned flags, struct zqcow2_resolver *r,
                   struct zqcow2_backend *be, struct zqcow2_image **img)
{
    struct zqcow2_open_options opt = ZQCOW2_OPEN_OPTIONS_INIT;
    struct zqcow2_error err = {0, ""};
    int rc;

    opt.flags = flags | (t->share ? ZQCOW2_OPEN_NOLOCK : 0u) |
                (t->no_backing ? ZQCOW2_OPEN_NO_BACKING : 0u) |
                (t->snapshot ? ZQCOW2_OPEN_ID_FIRST : 0u);
    opt.rules = t->rules;
    opt.hooks = zt_hooks();
    opt.resolve = zqcow2_resolve_file;
    opt.resolve_arg = r;
    opt.backing_format = t->backing_format;
    opt.snapshot = t->snapshot;
    rc = zqcow2_open(be, &opt, img, &err);
    if (rc < 0)
        zt_error("%s: %s", t->path, zt_reason(rc, &err));
    return rc;
}

/* Takes the backend. */
static int open_backend(const struct zt_target *t, unsigned flags, struct zqcow2_resolver *r,
                        struct zqcow2_backend *be, struct zqcow2_image **img)
{
    int rc = open_on(t, flags, r, be, img);

    if (rc < 0) {
        zqcow2_backend_close(be);
        return rc;
    }
    rc = check_data_file(t, r);
    if (rc < 0) {
        (void)zqcow2_close(*img);
        *img = NULL;
    }
    return rc;
}

struct zqcow2_image *zt_open_chain(const struct zt_target *t, unsigned flags,
                                   struct zqcow2_resolver *r)
{
    struct zqcow2_image *img = NULL;
    struct zqcow2_backend *be;
    int rc;

    if (flags & ZQCOW2_OPEN_RDWR)
        zt_hold_signals();
    rc = zt_backend_open(t, flags & ZQCOW2_OPEN_RDWR ? ZQCOW2_FILE_RDWR : 0, &be);
    if (rc < 0)
        zt_backend_error(t, rc);
    else
        (void)open_backend(t, flags, r, be, &img);
    return img;
}

struct zqcow2_image *zt_open(const struct zt_target *t, unsigned flags)
{
    struct zqcow2_resolver *r = zt_resolver(t);
    struct zqcow2_image *img = r ? zt_open_chain(t, flags, r) : NULL;

    zqcow2_resolver_free(r);
    return img;
}

int zt_change_chain(const struct zt_target *t,
                    int (*fn)(void *arg, struct zqcow2_backend *be, struct zqcow2_resolver *files),
                    void *arg)
{
    struct zqcow2_resolver *files = zt_resolver(t);
    struct zqcow2_backend *be;
    int rc, status = 1;

    if (!files)
        return 1;
    zt_hold_signals();
    rc = zt_backend_open(t, ZQCOW2_FILE_RDWR, &be);
    if (rc < 0) {
        zt_backend_error(t, rc);
    } else {
        status = fn(arg, be, files);
        zqcow2_backend_close(be);
    }
    zqcow2_resolver_free(files);
    return status;
}

int zt_close(const struct zt_target *t, struct zqcow2_image *img, int status)
{
    int rc = zqcow2_close(img);

    if (rc < 0 && rc != t->failure)
        zt_error("%s: closing: %s", t->path, zqcow2_strerror(rc));
    return rc < 0 && !status ? 1 : status;
}

bool zt_info(const struct zt_target *t, struct zqcow2_image *img, struct zqcow2_info *info)
{
    int rc;

    *info = (struct zqcow2_info)ZQCOW2_INFO_INIT;
    rc = zqcow2_get_info(img, info);
    if (rc < 0)
        zt_error("%s: %s", t->path, zqcow2_strerror(rc));
    return rc >= 0;
}

bool zt_zoned_info(const struct zt_target *t, struct zqcow2_image *img, struct zqcow2_info *info)
{
    if (!zt_info(t, img, info))
        return false;
    if (info->flags & ZQCOW2_INFO_ZONED)
        return true;
    zt_error("%s: %s", t->path, zqcow2_strerror(ZQCOW2_ENOTZONED));
    return false;
}

void *zt_buffer(size_t len)
{
    void *buf = NULL;

    if (posix_memalign(&buf, 4096, len ? len : 1) != 0) {
        zt_error("no memory for a buffer of %zu bytes", len);
        return NULL;
    }
    return buf;
}
