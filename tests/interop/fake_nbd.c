/* SPDX-License-Identifier: MIT */
#include "interop/fake_nbd.h"

#include <endian.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { READ, WRITE, DISC, FLUSH, TRIM, ZERO = 6 };
enum { EXPORT_NAME = 1, OPT_ABORT, OPT_GO = 7 };

struct request {
    uint32_t magic;
    uint16_t flags, type;
    uint64_t handle, offset;
    uint32_t length;
} __attribute__((packed));

struct option {
    uint64_t magic;
    uint32_t option, length;
} __attribute__((packed));

struct option_reply {
    uint64_t magic;
    uint32_t option, type, length;
} __attribute__((packed));

static bool get(int fd, void *buf, size_t len)
{
    return recv(fd, buf, len, MSG_WAITALL) == (ssize_t)len;
}

static bool put(int fd, const void *buf, size_t len)
{
    return send(fd, buf, len, MSG_NOSIGNAL) == (ssize_t)len;
}

/* ---- the beginning of a connection ---- */

static bool reply(int fd, uint32_t option, uint32_t type, const void *data, uint32_t len)
{
    struct option_reply r = {htobe64(0x3e889045565a9), htobe32(option), htobe32(type),
                             htobe32(len)};

    return put(fd, &r, sizeof(r)) && (!len || put(fd, data, len));
}

/* It can flush, write zeroes and trim. */
static bool describe(int fd)
{
    struct {
        uint16_t type;
        uint64_t bytes;
        uint16_t flags;
    } __attribute__((packed))
    info = {0, htobe64(FAKE_BYTES), htobe16(1 | 1 << 2 | 1 << 5 | 1 << 6)};

    return reply(fd, OPT_GO, 3, &info, sizeof(info)) && reply(fd, OPT_GO, 1, NULL, 0);
}

static bool negotiate(int fd)
{
    struct {
        char magic[16];
        uint16_t flags;
    } __attribute__((packed)) hello = {"NBDMAGICIHAVEOPT", htobe16(3)};
    struct option o;
    uint32_t flags;
    char data[1024];

    if (!put(fd, &hello, sizeof(hello)) || !get(fd, &flags, sizeof(flags)))
        return false;
    while (get(fd, &o, sizeof(o))) {
        uint32_t option = be32toh(o.option), len = be32toh(o.length);

        if (len > sizeof(data) || (len && !get(fd, data, len)) || option == OPT_ABORT)
            return false;
        if (option == OPT_GO)
            return describe(fd);
        if (!reply(fd, option, UINT32_C(1) << 31 | 1, NULL, 0)) /* not supported */
            return false;
    }
    return false;
}

/* ---- requests ---- */

/* 0: no end. Under the lock. */
static bool ends_here(struct fake_nbd *f, int type)
{
    return f->end_in && f->end_kind == type && --f->end_in == 0;
}

static bool answer(struct fake_nbd *f, int fd, const struct request *r, const uint8_t *data)
{
    struct {
        uint32_t magic, error;
        uint64_t handle;
    } __attribute__((packed)) a = {htobe32(0x67446698), 0, r->handle};
    struct pollfd p = {fd, POLLIN, 0};

    if (f->lingers && be16toh(r->type) == WRITE && poll(&p, 1, 50) > 0)
        f->early++;
    return put(fd, &a, sizeof(a)) && (!data || put(fd, data, be32toh(r->length)));
}

/* fd -1: it gives no answer. */
static bool perform(struct fake_nbd *f, int fd, const struct request *r, const uint8_t *payload)
{
    uint64_t off = be64toh(r->offset);
    uint32_t len = be32toh(r->length);

    if (off > FAKE_BYTES || len > FAKE_BYTES - off)
        return false;
    switch (be16toh(r->type)) {
    case READ: return answer(f, fd, r, f->now + off);
    case WRITE:
        memcpy(f->now + off, payload, len);
        f->writes++;
        break;
    case ZERO: memset(f->now + off, 0, len); break;
    case FLUSH:
        memcpy(f->durable, f->now, FAKE_BYTES);
        f->flushes++;
        break;
    case TRIM: break;
    default: return false;
    }
    return fd < 0 || answer(f, fd, r, NULL);
}

/* False: the connection is over. */
static bool serve_one(struct fake_nbd *f, int fd, uint8_t *payload)
{
    static const char babble[32] = "this is no answer to a request";
    struct request r;
    bool ends, goes_on;

    if (!get(fd, &r, sizeof(r)) || be32toh(r.length) > FAKE_BYTES ||
        (be16toh(r.type) == WRITE && !get(fd, payload, be32toh(r.length))))
        return false;
    pthread_mutex_lock(&f->lock);
    ends = ends_here(f, be16toh(r.type));
    goes_on = !ends && perform(f, fd, &r, payload);
    if (ends && f->how == FAKE_MUTE)
        perform(f, -1, &r, payload);
    if (ends && f->how == FAKE_BABBLES) {
        put(fd, babble, sizeof(babble));
        f->babbler = dup(fd);
    }
    if (ends && f->loses)
        memcpy(f->now, f->durable, FAKE_BYTES);
    if (ends && f->forgets)
        memset(f->now, 0, FAKE_BYTES);
    pthread_mutex_unlock(&f->lock);
    return goes_on;
}

static bool admitted(struct fake_nbd *f)
{
    bool yes;

    pthread_mutex_lock(&f->lock);
    yes = !f->down && !f->stop;
    f->connections += yes;
    f->writes = f->flushes = 0;
    pthread_mutex_unlock(&f->lock);
    return yes;
}

static void *serve(void *arg)
{
    struct fake_nbd *f = arg;
    uint8_t *payload = malloc(FAKE_BYTES);

    for (int fd; (fd = accept(f->listener, NULL, NULL)) >= 0; close(fd)) {
        if (!admitted(f) || !negotiate(fd))
            continue;
        while (serve_one(f, fd, payload))
            ;
    }
    free(payload);
    return NULL;
}

/* ---- for tests ---- */

void fake_start(struct fake_nbd *f)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};

    memset(f, 0, sizeof(*f));
    f->babbler = -1;
    f->now = malloc(FAKE_BYTES);
    f->durable = malloc(FAKE_BYTES);
    assert_non_null(f->now);
    assert_non_null(f->durable);
    memset(f->now, 0xff, FAKE_BYTES);
    memset(f->durable, 0xff, FAKE_BYTES);
    pthread_mutex_init(&f->lock, NULL);
    strcpy(f->folder, "/tmp/zqcow2-nbd.XXXXXX");
    assert_non_null(mkdtemp(f->folder));
    snprintf(f->path, sizeof(f->path), "%s/sock", f->folder);
    snprintf(f->uri, sizeof(f->uri), "nbd+unix:///?socket=%s", f->path);
    strcpy(a.sun_path, f->path);
    f->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(f->listener, (struct sockaddr *)&a, sizeof(a)), 0);
    assert_int_equal(listen(f->listener, 8), 0);
    assert_int_equal(pthread_create(&f->thread, NULL, serve, f), 0);
}

void fake_stop(struct fake_nbd *f)
{
    pthread_mutex_lock(&f->lock);
    f->stop = true;
    pthread_mutex_unlock(&f->lock);
    shutdown(f->listener, SHUT_RDWR);
    pthread_join(f->thread, NULL);
    close(f->listener);
    if (f->babbler >= 0)
        close(f->babbler);
    unlink(f->path);
    rmdir(f->folder);
    free(f->now);
    free(f->durable);
}

void fake_end(struct fake_nbd *f, int kind, int n, enum fake_end how)
{
    pthread_mutex_lock(&f->lock);
    f->end_kind = kind;
    f->end_in = n;
    f->how = how;
    pthread_mutex_unlock(&f->lock);
}

unsigned fake_count(struct fake_nbd *f, const unsigned *what)
{
    unsigned n;

    pthread_mutex_lock(&f->lock);
    n = *what;
    pthread_mutex_unlock(&f->lock);
    return n;
}
