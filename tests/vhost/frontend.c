/* SPDX-License-Identifier: MIT */
#include "frontend.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

enum {
    GET_FEATURES = 1,
    SET_FEATURES,
    SET_OWNER,
    NUM = 8,
    ADDR,
    BASE,
    GET_BASE,
    KICK,
    CALL,
    ERR,
    GET_PROTOCOL,
    SET_PROTOCOL,
    ENABLE = 18,
    GET_INFLIGHT = 31,
    SET_INFLIGHT,
    ADD_MEM = 37
};

/* ---- the server ---- */

static const char *tool(void)
{
    const char *path = getenv("ZQCOW2_TOOL");

    assert_non_null(path);
    return path;
}

void front_create(struct front *f, const char *options, const char *size)
{
    char command[512];

    memset(f, 0, sizeof(*f));
    f->sock = f->memfd = f->inflight = -1;
    snprintf(f->dir, sizeof(f->dir), "/tmp/zqcow2-vhost.XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    snprintf(f->socket, sizeof(f->socket), "%s/s", f->dir);
    snprintf(f->ctl, sizeof(f->ctl), "%s/c", f->dir);
    snprintf(f->image, sizeof(f->image), "%s/i.qcow2", f->dir);
    snprintf(command, sizeof(command), "%s create %s %s %s", tool(), options, f->image, size);
    assert_int_equal(system(command), 0);
    f->memfd = memfd_create("guest", MFD_CLOEXEC);
    assert_true(f->memfd >= 0 && ftruncate(f->memfd, MEMORY) == 0);
    f->memory = mmap(NULL, MEMORY, PROT_READ | PROT_WRITE, MAP_SHARED, f->memfd, 0);
    assert_true(f->memory != MAP_FAILED);
}

void front_start(struct front *f, const char *options)
{
    char command[640];

    unlink(f->socket);
    f->server = fork();
    assert_true(f->server >= 0);
    if (!f->server) {
        snprintf(command, sizeof(command),
                 "exec %s vhost-user --foreground --queues=%u --socket=%s --ctl=%s %s %s "
                 ">/dev/null 2>%s/log",
                 tool(), RINGS, f->socket, f->ctl, options, f->image, f->dir);
        execl("/bin/sh", "sh", "-c", command, (char *)NULL);
        _exit(127);
    }
}

int front_stop(struct front *f, int signal)
{
    int status;

    kill(f->server, signal);
    assert_int_equal(waitpid(f->server, &status, 0), f->server);
    f->server = 0;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

void front_remove(struct front *f)
{
    char command[128];

    munmap(f->memory, MEMORY);
    close(f->memfd);
    if (f->inflight >= 0)
        close(f->inflight);
    snprintf(command, sizeof(command), "rm -rf %s", f->dir);
    assert_int_equal(system(command), 0);
}

/* ---- messages ---- */

/* The server may still be starting. */
void front_connect(struct front *f)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    int rc;

    snprintf(a.sun_path, sizeof(a.sun_path), "%s", f->socket);
    f->sock = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(f->sock >= 0);
    for (int ms = 0; (rc = connect(f->sock, (struct sockaddr *)&a, sizeof(a))) && ms < LONG_MS;
         ms += 10)
        nanosleep(&(struct timespec){0, 10 * 1000 * 1000}, NULL);
    assert_int_equal(rc, 0);
}

void front_disconnect(struct front *f)
{
    close(f->sock);
    f->sock = -1;
    for (unsigned i = 0; i < RINGS; i++) {
        if (f->ring[i].num) {
            close(f->ring[i].kick);
            close(f->ring[i].call);
            close(f->ring[i].err);
        }
        f->ring[i].num = 0;
    }
}

void front_send(struct front *f, uint32_t request, uint32_t flags, const void *payload,
                uint32_t size, const int *fds, unsigned n)
{
    uint32_t head[] = {request, 1 | flags, size};
    struct iovec iov[] = {{head, sizeof(head)}, {(void *)(uintptr_t)payload, size}};
    union {
        struct cmsghdr head;
        char room[CMSG_SPACE(16 * sizeof(int))];
    } c = {0};
    struct msghdr m = {.msg_iov = iov, .msg_iovlen = 2};

    if (n) {
        m.msg_control = &c;
        m.msg_controllen = CMSG_SPACE(n * sizeof(int));
        c.head.cmsg_level = SOL_SOCKET;
        c.head.cmsg_type = SCM_RIGHTS;
        c.head.cmsg_len = CMSG_LEN(n * sizeof(int));
        memcpy(CMSG_DATA(&c.head), fds, n * sizeof(int));
    }
    /* It may have been closed for the message before. */
    if (sendmsg(f->sock, &m, MSG_NOSIGNAL) < 0)
        assert_true(errno == EPIPE || errno == ECONNRESET);
}

static ssize_t all(int sock, void *to, size_t size, struct msghdr *m)
{
    size_t done = 0;

    while (done < size) {
        struct iovec iov = {(char *)to + done, size - done};
        struct pollfd p = {.fd = sock, .events = POLLIN};
        ssize_t n;

        assert_int_equal(poll(&p, 1, LONG_MS), 1);
        m->msg_iov = &iov;
        m->msg_iovlen = 1;
        n = recvmsg(sock, m, MSG_CMSG_CLOEXEC);
        if (n <= 0)
            return -1;
        done += (size_t)n;
    }
    return (ssize_t)done;
}

int front_receive(struct front *f, void *payload, uint32_t room, int *fd)
{
    union {
        struct cmsghdr head;
        char room[CMSG_SPACE(sizeof(int))];
    } c = {0};
    struct msghdr m = {.msg_control = &c, .msg_controllen = sizeof(c)}, none = {0};
    uint32_t head[3];

    if (all(f->sock, head, sizeof(head), &m) < 0)
        return -1;
    assert_int_equal(head[1], 5);
    assert_true(head[2] <= room);
    if (fd)
        *fd = -1;
    if (m.msg_controllen >= CMSG_LEN(sizeof(int)) && fd)
        memcpy(fd, CMSG_DATA(&c.head), sizeof(int));
    if (head[2] && all(f->sock, payload, head[2], &none) < 0)
        return -1;
    return (int)head[2];
}

int64_t front_acked(struct front *f, uint32_t request, const void *payload, uint32_t size,
                    const int *fds, unsigned n)
{
    uint64_t answer = 0;

    front_send(f, request, 8, payload, size, fds, n);
    return front_receive(f, &answer, sizeof(answer), NULL) < 0 ? -1 : (int64_t)answer;
}

static uint64_t get(struct front *f, uint32_t request)
{
    uint64_t v = 0;

    front_send(f, request, 0, NULL, 0, NULL, 0);
    assert_int_equal(front_receive(f, &v, sizeof(v), NULL), sizeof(v));
    return v;
}

static void add_memory(struct front *f, unsigned i)
{
    uint64_t region[5] = {0, GUEST_BASE + (uint64_t)i * REGION, REGION,
                          USER_BASE + (uint64_t)(1 - i) * 2 * REGION, (uint64_t)i * REGION};

    assert_int_equal(front_acked(f, ADD_MEM, region, sizeof(region), &f->memfd, 1), 0);
}

/* Kept by a front-end over the life of a server. */
static void keep_inflight(struct front *f)
{
    struct {
        uint64_t size, offset;
        uint16_t queues, queue_size;
        uint32_t padding;
    } a = {f->inflight_size, 0, RINGS, RING_NUM, 0};

    if (f->inflight < 0) {
        front_send(f, GET_INFLIGHT, 0, &a, sizeof(a), NULL, 0);
        assert_int_equal(front_receive(f, &a, sizeof(a), &f->inflight), sizeof(a));
        assert_true(f->inflight >= 0 && a.size);
        f->inflight_size = a.size;
    }
    assert_int_equal(front_acked(f, SET_INFLIGHT, &a, sizeof(a), &f->inflight, 1), 0);
}

void front_negotiate(struct front *f, uint64_t features)
{
    f->offered = get(f, GET_FEATURES);
    f->protocol = get(f, GET_PROTOCOL);
    front_send(f, SET_PROTOCOL, 0, &f->protocol, 8, NULL, 0);
    front_send(f, SET_OWNER, 0, NULL, 0, NULL, 0);
    features = (features | 1ull << F_PROTOCOL | 1ull << F_VERSION_1) & f->offered;
    assert_int_equal(front_acked(f, SET_FEATURES, &features, 8, NULL, 0), 0);
    if (f->protocol >> 12 & 1)
        keep_inflight(f);
    add_memory(f, 0);
    add_memory(f, 1);
}

static uint32_t ring_at(unsigned ring)
{
    return 0x4000 * (1 + ring);
}

static void send_state(struct front *f, uint32_t request, uint32_t ring, uint32_t num)
{
    uint32_t state[] = {ring, num};

    assert_int_equal(front_acked(f, request, state, sizeof(state), NULL, 0), 0);
}

/* Descriptors at 0, the available ring at 0x1000, the used one at 0x2000 of the ring's area. */
void front_start_ring(struct front *f, unsigned ring, uint16_t base)
{
    struct ring *r = &f->ring[ring];
    uint64_t at = USER_BASE + 2 * REGION + ring_at(ring), word = ring;
    struct {
        uint32_t index, flags;
        uint64_t desc, used, avail, log;
    } addr = {ring, 0, at, at + 0x2000, at + 0x1000, 0};

    *r = (struct ring){eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC),
                       eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC),
                       eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC),
                       base,
                       base,
                       RING_NUM};
    send_state(f, NUM, ring, r->num);
    send_state(f, BASE, ring, base);
    assert_int_equal(front_acked(f, ADDR, &addr, sizeof(addr), NULL, 0), 0);
    assert_int_equal(front_acked(f, CALL, &word, 8, &r->call, 1), 0);
    assert_int_equal(front_acked(f, ERR, &word, 8, &r->err, 1), 0);
    assert_int_equal(front_acked(f, KICK, &word, 8, &r->kick, 1), 0);
    send_state(f, ENABLE, ring, 1);
}

void front_stop_ring(struct front *f, unsigned ring)
{
    uint32_t state[] = {ring, 0};

    front_send(f, GET_BASE, 0, state, sizeof(state), NULL, 0);
    assert_int_equal(front_receive(f, state, sizeof(state), NULL), sizeof(state));
    assert_int_equal(state[0], ring);
    close(f->ring[ring].kick);
    close(f->ring[ring].call);
    close(f->ring[ring].err);
    f->ring[ring].num = 0;
}

/* ---- the guest ---- */

static uint16_t get16(const uint8_t *from)
{
    const volatile uint8_t *p = from;

    return (uint16_t)(p[0] | p[1] << 8);
}

void front_set_desc(struct front *f, unsigned ring, uint16_t i, uint64_t addr, uint32_t len,
                    uint16_t flags, uint16_t next)
{
    uint8_t *d = f->memory + ring_at(ring) + 16u * i;

    front_put(d, addr, 8);
    front_put(d + 8, len, 4);
    front_put(d + 12, flags, 2);
    front_put(d + 14, next, 2);
}

void front_offer(struct front *f, unsigned ring, uint16_t head)
{
    struct ring *r = &f->ring[ring];
    uint8_t *avail = f->memory + ring_at(ring) + 0x1000;
    uint64_t one = 1;

    front_put(avail + 4 + r->avail++ % r->num * 2u, head, 2);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    front_put(avail + 2, r->avail, 2);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    assert_int_equal(write(r->kick, &one, sizeof(one)), sizeof(one));
}

int front_used(struct front *f, unsigned ring, uint32_t *written, int ms)
{
    struct ring *r = &f->ring[ring];
    uint8_t *used = f->memory + ring_at(ring) + 0x2000, *e = used + 4 + r->used % r->num * 8u;

    for (int waited = 0; get16(used + 2) == r->used; waited++) {
        if (waited >= ms)
            return -1;
        nanosleep(&(struct timespec){0, waited ? 1000 * 1000 : 1000}, NULL);
    }
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    r->used++;
    if (written)
        *written = (uint32_t)(get16(e + 4) | (uint32_t)get16(e + 6) << 16);
    return get16(e);
}

void front_post(struct front *f, unsigned ring, uint16_t head, const struct part *p, unsigned n,
                bool indirect)
{
    uint32_t table = REGION - 24; /* the table lies in both regions */

    for (unsigned i = 0; i < n; i++) {
        uint16_t flags = (uint16_t)((i + 1 < n) | (p[i].writable ? 2 : 0));
        uint8_t *d = f->memory + table + 16u * i;

        if (!indirect) {
            front_set_desc(f, ring, (uint16_t)((head + i) % RING_NUM), GUEST_BASE + p[i].at,
                           p[i].len, flags, (uint16_t)((head + i + 1) % RING_NUM));
            continue;
        }
        front_put(d, GUEST_BASE + p[i].at, 8);
        front_put(d + 8, p[i].len, 4);
        front_put(d + 12, flags, 2);
        front_put(d + 14, i + 1, 2);
    }
    if (indirect)
        front_set_desc(f, ring, head, GUEST_BASE + table, 16 * n, 4, 0);
    front_offer(f, ring, head);
}

uint8_t *front_data(struct front *f)
{
    return f->memory + DATA_AT + 0x1000;
}

uint8_t front_do(struct front *f, unsigned ring, uint32_t type, uint64_t sector, uint32_t out,
                 uint32_t in)
{
    struct part p[] = {
        {DATA_AT, 16, false}, {DATA_AT + 0x1000, out ? out : in, !out}, {DATA_AT + 0x100, 1, true}};
    uint8_t *head = f->memory + DATA_AT;

    front_put(head, type, 4);
    front_put(head + 4, 0, 4);
    front_put(head + 8, sector, 8);
    f->memory[DATA_AT + 0x100] = 0xee;
    if (!out && !in)
        p[1] = p[2];
    front_post(f, ring, 0, p, out || in ? 3 : 2, false);
    assert_int_equal(front_used(f, ring, NULL, LONG_MS), 0);
    return f->memory[DATA_AT + 0x100];
}

void front_write(struct front *f, uint64_t sector, uint8_t byte, uint32_t n)
{
    memset(front_data(f), byte, n);
    assert_int_equal(front_do(f, 0, OUT, sector, n, 0), OK);
}

bool front_reads(struct front *f, unsigned ring, uint64_t sector, uint8_t byte, uint32_t n)
{
    memset(front_data(f), ~byte, n);
    assert_int_equal(front_do(f, ring, IN, sector, 0, n), OK);
    return front_all_are(front_data(f), byte, n);
}

uint64_t front_get(const uint8_t *from, unsigned bytes)
{
    uint64_t v = 0;

    while (bytes--)
        v = v << 8 | from[bytes];
    return v;
}

void front_put(uint8_t *to, uint64_t v, unsigned bytes)
{
    for (unsigned i = 0; i < bytes; i++)
        to[i] = (uint8_t)(v >> 8 * i);
}

/* ---- a test ---- */

const char front_plain[] = "-o cluster_size=4k";
const char front_zoned[] = "-o zone.size=1M,zone.capacity=768k,zone.conventional_zones=1,"
                           "zone.max_open_zones=2,zone.max_active_zones=3";

void front_begin(struct front *f, const char *image, const char *options, uint64_t features)
{
    front_create(f, image, "8M");
    front_start(f, options);
    front_connect(f);
    front_negotiate(f, features);
    for (unsigned i = 0; i < RINGS; i++)
        front_start_ring(f, i, 0);
}

void front_finish(struct front *f)
{
    char command[256];

    front_disconnect(f);
    assert_int_equal(front_stop(f, SIGTERM), 0);
    snprintf(command, sizeof(command), "%s check %s >/dev/null", tool(), f->image);
    assert_int_equal(system(command), 0);
    front_remove(f);
}

void front_expect_zone(struct front *f, uint64_t sector, uint64_t wp, unsigned zone_state)
{
    uint8_t *z = front_data(f) + 64;

    assert_int_equal(front_do(f, 0, REPORT, sector, 0, 128), OK);
    assert_int_equal(front_get(front_data(f), 8), 1);
    assert_int_equal(front_get(z + 8, 8), sector);
    assert_int_equal(front_get(z + 16, 8), wp);
    assert_int_equal(z[25], zone_state);
}

bool front_all_are(const uint8_t *p, uint8_t v, size_t n)
{
    return !n || (p[0] == v && !memcmp(p, p + 1, n - 1));
}
