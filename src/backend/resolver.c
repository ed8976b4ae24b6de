/* SPDX-License-Identifier: MIT */
/*
 * Opens the backing files that images name, as files of the host.
 *
 * A name comes from an image, and an image from anywhere. So it opens nothing but regular files,
 * under a folder if the caller wants that, and none of those above in the chain. What is judged is
 * the descriptor, not the path: a path may be another file a moment later.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zqcow2/backend.h>

#include "base/depth.h"
#include "base/fd.h"
#include "base/mem.h"
#include "base/report.h"

#define DEPTH_FLAGS (ZQCOW2_RESOLVE_DATA_FILE | ZQCOW2_RESOLVE_WRITE | ZQCOW2_RESOLVE_CREATE)

struct zqcow2_resolver {
    struct zqcow2_hooks hooks;
    char *data_file;     /* in place of the name that the image stores for its own, or NULL */
    bool limited;        /* root is a limit, even if it is "", which allows every file */
    char root[PATH_MAX]; /* without symbolic links; "": the root of the file system */
    struct place {
        char *path; /* as given, or as made of a name */
        dev_t dev;  /* both together: which file it is, under any name */
        ino_t ino;
    } file[ZQ_MAX_DEPTH + 1], data[ZQ_MAX_DEPTH + 1]; /* [depth]; 0: the image. Their data files */
};

static size_t path_bytes(const char *path)
{
    return strlen(path) + 1;
}

static void drop_text(struct zqcow2_resolver *r, char *text)
{
    if (text)
        zq_free(&r->hooks, text, path_bytes(text));
}

/* Replaces what an earlier open of a chain left there: a resolver may serve several in turn. */
static int keep_text(struct zqcow2_resolver *r, char **to, const char *text)
{
    char *copy = zq_alloc(&r->hooks, 1, path_bytes(text));

    if (!copy)
        return -ENOMEM;
    drop_text(r, *to);
    strcpy(copy, text);
    *to = copy;
    return 0;
}

static void keep_identity(struct place *p, const struct stat *st)
{
    p->dev = st->st_dev;
    p->ino = st->st_ino;
}

/* realpath, because check_root() compares it with what the kernel returns, which has no links. */
static int set_root(struct zqcow2_resolver *r, const char *root)
{
    size_t n;

    if (!root)
        return 0;
    if (!realpath(root, r->root))
        return -errno;
    n = strlen(r->root);
    if (r->root[n - 1] == '/')
        r->root[n - 1] = '\0';
    r->limited = true;
    return 0;
}

/* The image is part of the chain: a backing file that names the image itself is refused (S2). */
static int set_image(struct zqcow2_resolver *r, const char *image)
{
    struct stat st;

    if (stat(image, &st) == 0)
        keep_identity(&r->file[0], &st);
    else if (errno != ENOENT) /* it may be about to be made */
        return -errno;
    return keep_text(r, &r->file[0].path, image);
}

int zqcow2_resolver_new(const char *image, const struct zqcow2_resolver_options *options,
                        struct zqcow2_resolver **out)
{
    struct zqcow2_resolver_options opt = ZQCOW2_RESOLVER_OPTIONS_INIT;
    struct zqcow2_resolver *r;
    struct zqcow2_hooks hooks;
    int rc = image && out ? 0 : -EINVAL;

    if (rc == 0 && options)
        rc = zq_copy_sized(&opt, sizeof(opt), options,
                           offsetof(struct zqcow2_resolver_options, root));
    if (rc == 0)
        rc = zq_hooks_init(&hooks, opt.hooks);
    if (rc < 0)
        return rc;
    r = zq_zalloc(&hooks, sizeof(*r));
    if (!r)
        return -ENOMEM;
    r->hooks = hooks;
    rc = set_root(r, opt.root);
    if (rc == 0)
        rc = set_image(r, image);
    if (rc == 0 && opt.data_file)
        rc = keep_text(r, &r->data_file, opt.data_file);
    if (rc == 0)
        *out = r;
    else
        zqcow2_resolver_free(r);
    return rc;
}

void zqcow2_resolver_free(struct zqcow2_resolver *r)
{
    struct zqcow2_hooks hooks;

    if (!r)
        return;
    hooks = r->hooks;
    drop_text(r, r->data_file);
    for (uint32_t i = 0; i <= ZQ_MAX_DEPTH; i++) {
        drop_text(r, r->file[i].path);
        drop_text(r, r->data[i].path);
    }
    zq_free(&hooks, r, sizeof(*r));
}

const char *zqcow2_resolver_path(const struct zqcow2_resolver *r, uint32_t depth)
{
    bool data = depth & ZQCOW2_RESOLVE_DATA_FILE;

    depth &= ~DEPTH_FLAGS;
    if (depth > ZQ_MAX_DEPTH)
        return NULL;
    return data ? r->data[depth].path : r->file[depth].path;
}

/*
 * "nbd:", "json:": other programs take what comes before a colon for a protocol. To open a file of
 * that name would be to open something else than they do. A "/" before the colon makes it a path.
 */
static bool has_protocol(const char *name)
{
    size_t n = strcspn(name, ":/");

    return name[n] == ':';
}

/* A relative name starts where the file that names it lies. */
static int make_path(const char *from, const char *name, char path[PATH_MAX],
                     struct zqcow2_error *err)
{
    const char *slash = name[0] == '/' ? NULL : strrchr(from, '/');
    int folder = slash ? (int)(slash - from) + 1 : 0;

    if (has_protocol(name))
        return zq_fail(err, ZQCOW2_EFEATURE, "a name with a protocol is not supported");
    if (snprintf(path, PATH_MAX, "%.*s%s", folder, from, name) >= PATH_MAX)
        return -ENAMETOOLONG;
    return 0;
}

/*
 * Where the file that is open lies now: a symbolic link in the name has been followed by then, and
 * cannot lead out of the folder.
 */
static int check_root(const struct zqcow2_resolver *r, int fd, struct zqcow2_error *err)
{
    size_t n = strlen(r->root);
    char link[32], path[PATH_MAX];
    ssize_t len;

    if (!r->limited)
        return 0;
    snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    len = readlink(link, path, sizeof(path) - 1);
    if (len < 0)
        return zq_fail(err, -EACCES, "/proc does not show where the file is");
    path[len] = '\0';
    if (!strncmp(path, r->root, n) && path[n] == '/')
        return 0;
    return zq_fail(err, -EACCES, "lies outside the folder to which backing files are limited");
}

/* What is asked for, and where it is kept. */
struct request {
    struct place *to;
    const char *from; /* the path of the file that names it */
    uint32_t depth;
    bool data; /* not the file at that depth, but its data file */
    int flags; /* of open() */
};

static bool is_same(const struct stat *st, const struct place *p)
{
    return p->path && st->st_dev == p->dev && st->st_ino == p->ino;
}

/*
 * A device or a pipe could block the open, or have effects when it is read. The same file twice in
 * a chain is a circle (S2).
 */
static int check_file(struct zqcow2_resolver *r, int fd, const struct request *q,
                      struct zqcow2_error *err)
{
    struct stat st;

    if (fstat(fd, &st) < 0)
        return -errno;
    if (!S_ISREG(st.st_mode))
        return zq_fail(err, -EINVAL, "not a regular file");
    for (uint32_t i = 0; i <= q->depth; i++) {
        bool above = i < q->depth;

        if ((above && (is_same(&st, &r->file[i]) || is_same(&st, &r->data[i]))) ||
            (q->data && is_same(&st, &r->file[i])))
            return zq_fail(err, -ELOOP, "the chain returns to the same file");
    }
    keep_identity(q->to, &st);
    return check_root(r, fd, err);
}

/* Looks before it opens, for opening a device may do something; and judges what it has opened. */
static int open_file(const char *path, int flags, struct zqcow2_error *err)
{
    struct stat st;
    int fd, rc = stat(path, &st) < 0 ? -errno : 0;

    if (rc < 0 && (rc != -ENOENT || !(flags & O_CREAT)))
        return rc;
    if (rc == 0 && !S_ISREG(st.st_mode))
        return zq_fail(err, -EINVAL, "not a regular file");
    do {
        fd = open(path, flags | O_CLOEXEC | O_NOCTTY | O_NONBLOCK, 0666);
    } while (fd < 0 && errno == EINTR);
    return zq_fd_lift(fd);
}

/* False: there is no such place, or the file that names it was not opened. */
static bool take_request(struct zqcow2_resolver *r, uint32_t depth, struct request *q)
{
    q->data = depth & ZQCOW2_RESOLVE_DATA_FILE;
    q->depth = depth & ~DEPTH_FLAGS;
    if (!q->data && (depth & ZQCOW2_RESOLVE_CREATE || !q->depth))
        return false;
    q->to = q->data ? &r->data[q->depth] : &r->file[q->depth];
    q->from = r->file[q->data ? q->depth : q->depth - 1].path;
    q->flags = depth & ZQCOW2_RESOLVE_WRITE ? O_RDWR : O_RDONLY;
    q->flags |= depth & ZQCOW2_RESOLVE_CREATE ? O_CREAT : 0;
    return q->from;
}

/* The caller's own name for a data file is a path, as that of the image is. */
static int find_path(const struct zqcow2_resolver *r, const struct request *q, const char *name,
                     char path[PATH_MAX], struct zqcow2_error *err)
{
    const char *given = q->data && !q->depth ? r->data_file : NULL;

    if (given)
        return snprintf(path, PATH_MAX, "%s", given) >= PATH_MAX ? -ENAMETOOLONG : 0;
    if (!name[0] && q->data)
        return zq_fail(err, ZQCOW2_EFEATURE,
                       q->depth ? "its name is not stored" :
                                  "its name is not stored: open with data_file of the resolver "
                                  "(the command: --data-file=FILE)");
    return make_path(q->from, name, path, err);
}

/* Says which file could not be opened where the caller's message will have the stored name. */
static int blame_given(const struct zqcow2_resolver *r, const struct request *q, int rc,
                       struct zqcow2_error *err)
{
    struct zqcow2_error why;
    char name[100];

    if (!err || !r->data_file || !q->data || q->depth)
        return rc;
    zq_fail_rc(err, rc);
    why = *err;
    zq_printable(name, sizeof(name), r->data_file, strlen(r->data_file));
    return zq_fail(err, rc, "%s, given in its place: %s", name, why.text);
}

/*
 * On success fd belongs to *be. The path is kept even if the last step fails; the next call for
 * this place replaces it.
 */
static int resolve(struct zqcow2_resolver *r, const char *name, uint32_t depth,
                   struct zqcow2_backend **be, struct zqcow2_error *err)
{
    char path[PATH_MAX];
    struct request q;
    int fd, rc;

    if ((depth & ~DEPTH_FLAGS) > ZQ_MAX_DEPTH)
        return zq_fail(err, ZQCOW2_EFEATURE, ZQ_TOO_DEEP);
    if (!r || !name || !be || !take_request(r, depth, &q))
        return -EINVAL;
    rc = find_path(r, &q, name, path, err);
    fd = rc < 0 ? rc : open_file(path, q.flags, err);
    if (fd < 0)
        return blame_given(r, &q, fd, err);
    rc = check_file(r, fd, &q, err);
    if (rc == 0)
        rc = keep_text(r, &q.to->path, path);
    if (rc == 0)
        rc = zqcow2_file_from_fd(fd, &r->hooks, be);
    if (rc < 0)
        close(fd);
    return rc < 0 ? blame_given(r, &q, rc, err) : 0;
}

/* The format does not matter here: the library decides how the bytes are read. */
int zqcow2_resolve_file(void *arg, const char *name, const char *format, uint32_t depth,
                        struct zqcow2_backend **be, struct zqcow2_error *err)
{
    int rc;

    (void)format;
    zq_clear_error(err);
    rc = resolve(arg, name, depth, be, err);
    return rc < 0 ? zq_fail_rc(err, rc) : 0;
}
