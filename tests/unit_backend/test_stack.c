/* SPDX-License-Identifier: MIT */
/*
 * A backend that stands on another, by the public functions alone: a layer that passes on
 * every call, with I/Os and buffers of its own, over each of the library's backends.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>
#include <zqcow2/backend.h>
#include <zqcow2/queue.h>

#define SIZE  (16u << 20)
#define BLOCK 4096u

struct layer {
    struct zqcow2_backend *in;
    bool forward; /* hand on what needs no change as the I/O that it is */
    _Atomic unsigned own, forwarded;
};

/* An I/O of the layer's own, with room for what it writes. */
struct own {
    struct zqcow2_io io; /* first */
    struct zqcow2_io *upper;
    struct iovec iov;
    uint8_t *bytes;
};

static void gather(uint8_t *to, const struct iovec *iov, uint32_t cnt)
{
    for (uint32_t i = 0; i < cnt; to += iov[i++].iov_len)
        memcpy(to, iov[i].iov_base, iov[i].iov_len);
}

static struct zqcow2_backend *in(void *self)
{
    return ((struct layer *)self)->in;
}

static int layer_length(void *self, uint64_t *bytes)
{
    return zqcow2_backend_length(in(self), bytes);
}

static int layer_readv(void *self, const struct iovec *iov, int cnt, uint64_t off)
{
    return zqcow2_backend_readv(in(self), iov, cnt, off);
}

static int layer_writev(void *self, const struct iovec *iov, int cnt, uint64_t off)
{
    return zqcow2_backend_writev(in(self), iov, cnt, off);
}

static int layer_flush(void *self)
{
    return zqcow2_backend_flush(in(self));
}

static int layer_limits(void *self, struct zqcow2_limits *out)
{
    return zqcow2_backend_limits(in(self), out);
}

static int layer_truncate(void *self, uint64_t bytes)
{
    return zqcow2_backend_truncate(in(self), bytes);
}

static int layer_discard(void *self, uint64_t off, uint64_t len)
{
    return zqcow2_backend_discard(in(self), off, len);
}

static int layer_zero(void *self, uint64_t off, uint64_t len)
{
    return zqcow2_backend_zero(in(self), off, len);
}

static int layer_allocate(void *self, uint64_t off, uint64_t len)
{
    return zqcow2_backend_allocate(in(self), off, len);
}

static int layer_data(void *self, uint64_t off, uint64_t *begin, uint64_t *end)
{
    return zqcow2_backend_data(in(self), off, begin, end);
}

static int layer_lock(void *self, int mode)
{
    return zqcow2_backend_lock(in(self), mode);
}

static void layer_invalidate(void *self)
{
    zqcow2_backend_invalidate(in(self));
}

static void layer_kick(void *self)
{
    zqcow2_backend_kick(in(self));
}

static void layer_wake(void *self)
{
    zqcow2_backend_wake(in(self));
}

static int layer_poll(void *self, int timeout_ms)
{
    return zqcow2_backend_poll(in(self), timeout_ms);
}

static int layer_fd(void *self)
{
    return zqcow2_backend_fd(in(self));
}

static void layer_close(void *self)
{
    zqcow2_backend_close(in(self));
}

static void finished(struct zqcow2_io *io, int ret)
{
    struct own *o = (struct own *)io;
    struct zqcow2_io *upper = o->upper;

    assert_true(ret <= 0 && ret >= -4095);
    if (upper->kind == ZQCOW2_IO_READ && ret == 0) {
        const uint8_t *p = o->bytes;
        for (uint32_t i = 0; i < upper->iovcnt; p += upper->iov[i++].iov_len)
            memcpy(upper->iov[i].iov_base, p, upper->iov[i].iov_len);
    }
    free(o->bytes);
    free(o);
    zqcow2_io_done(upper, ret);
}

static int layer_submit(void *self, struct zqcow2_io *upper)
{
    struct layer *l = self;
    struct own *o;
    int rc;

    if (l->forward && upper->kind != ZQCOW2_IO_READ && upper->kind != ZQCOW2_IO_WRITE) {
        l->forwarded++;
        return zqcow2_backend_submit(l->in, upper);
    }
    o = calloc(1, sizeof(*o));
    if (!o)
        return -ENOMEM;
    *o = (struct own){.io = {.kind = upper->kind,
                             .offset = upper->offset,
                             .length = upper->length,
                             .done = finished},
                      .upper = upper};
    if (upper->kind <= ZQCOW2_IO_WRITE) {
        o->bytes = aligned_alloc(4096, (size_t)(upper->length + 4095) & ~(size_t)4095);
        o->iov = (struct iovec){o->bytes, (size_t)upper->length};
        o->io.iov = &o->iov;
        o->io.iovcnt = 1;
        if (upper->kind == ZQCOW2_IO_WRITE)
            gather(o->bytes, upper->iov, upper->iovcnt);
    }
    l->own++;
    rc = zqcow2_backend_submit(l->in, &o->io);
    if (rc < 0) {
        free(o->bytes);
        free(o);
    }
    return rc;
}

/* ---- making one ---- */

static struct zqcow2_backend *stack(struct layer *l, struct zqcow2_backend *inner, bool forward)
{
    const struct zqcow2_backend_ops *t = zqcow2_backend_table(inner);
    const struct zqcow2_backend_ops ops = {
        .size = sizeof(ops),
        .name = "layer",
        .close = layer_close,
        .length = layer_length,
        .readv = layer_readv,
        .writev = t->writev ? layer_writev : NULL,
        .flush = layer_flush,
        .limits = layer_limits,
        .truncate = t->truncate ? layer_truncate : NULL,
        .discard = t->discard ? layer_discard : NULL,
        .zero = t->zero ? layer_zero : NULL,
        .lock = layer_lock,
        .invalidate = layer_invalidate,
        .submit = t->submit ? layer_submit : NULL,
        .kick = layer_kick,
        .wake = t->poll ? layer_wake : NULL,
        .poll = t->poll ? layer_poll : NULL,
        .fd = t->poll ? layer_fd : NULL,
        .allocate = t->allocate ? layer_allocate : NULL,
        .data = t->data ? layer_data : NULL,
    };
    struct zqcow2_backend *be;

    memset(l, 0, sizeof(*l));
    l->in = inner;
    l->forward = forward;
    assert_int_equal(zqcow2_backend_claim(inner), 0);
    assert_int_equal(zqcow2_backend_claim(inner), -EBUSY);
    assert_int_equal(zqcow2_backend_new(&ops, l, NULL, &be), 0);
    return be;
}

enum kind { MEMORY, FILE_, DIRECT, THREADS, URING, KINDS };
static const char *const names[] = {"memory", "file", "direct", "threads", "io_uring"};

static struct zqcow2_backend *inner(enum kind k, const char *path)
{
    unsigned flags = ZQCOW2_FILE_RDWR | ZQCOW2_FILE_CREATE;
    struct zqcow2_backend *be = NULL, *file = NULL;
    int rc = 0;

    if (k == MEMORY)
        rc = zqcow2_mem_open(0, NULL, &be);
    else if (k == URING)
        rc = zqcow2_uring_open(path, flags, NULL, &be);
    else
        rc = zqcow2_file_open(path, flags | (k == DIRECT ? ZQCOW2_FILE_DIRECT : 0), NULL, &be);
    if ((k == URING && (rc == -ENOSYS || rc == -EPERM)) || (k == DIRECT && rc == -EINVAL)) {
        printf("%s: not available here\n", names[k]);
        return NULL;
    }
    assert_int_equal(rc, 0);
    if (k == THREADS) {
        file = be;
        assert_int_equal(zqcow2_threads_wrap(file, 3, NULL, &be), 0);
    }
    return be;
}

/* ---- an image on it, against bytes in memory ---- */

static uint64_t rng;
static uint64_t draw(uint64_t below)
{
    rng = rng * 6364136223846793005u + 1442695040888963407u;
    return (rng >> 33) % below;
}

#define DEPTH 16u
static uint8_t data[DEPTH][8 * BLOCK];
static uint8_t want[SIZE];

struct slot {
    bool busy, read;
    uint64_t off, len;
    struct iovec iov;
};
static struct slot slots[DEPTH];

static void done(void *arg, const struct zqcow2_result *res)
{
    struct slot *s = arg;

    s->busy = false;
    if (res->ret)
        fail_msg("%s of %#llx + %#llx: %d", s->read ? "read" : "write", (unsigned long long)s->off,
                 (unsigned long long)s->len, res->ret);
    if (s->read && memcmp(s->iov.iov_base, want + s->off, s->len))
        fail_msg("the read of %#llx + %#llx differs", (unsigned long long)s->off,
                 (unsigned long long)s->len);
}

static bool meets_other(uint64_t off, uint64_t len)
{
    for (unsigned i = 0; i < DEPTH; i++) {
        if (slots[i].busy && off < slots[i].off + slots[i].len && slots[i].off < off + len)
            return true;
    }
    return false;
}

/* One request: a write, zeros, a discard, a read or a flush where none in flight is. */
static void submit_one(struct zqcow2_queue *q, unsigned i)
{
    struct slot *s = &slots[i];
    unsigned what = (unsigned)draw(10);
    uint64_t off = draw(SIZE / BLOCK) * BLOCK, len = (1 + draw(8)) * BLOCK;
    struct zqcow2_request r = {.size = sizeof(r), .done = done, .arg = s};

    len = off + len > SIZE ? SIZE - off : len;
    if (meets_other(off, len))
        return;
    *s = (struct slot){true, what < 4, off, len, {data[i], (size_t)len}};
    r.op = what < 4 ? ZQCOW2_OP_READ : what < 8 ? ZQCOW2_OP_WRITE : ZQCOW2_OP_WRITE_ZEROES;
    if (what == 9 && draw(4) == 0) {
        r.op = ZQCOW2_OP_FLUSH;
        off = len = s->len = 0;
    }
    r.offset = off;
    r.length = len;
    if (what < 8) {
        r.iov = &s->iov;
        r.iovcnt = 1;
    }
    if (r.op == ZQCOW2_OP_WRITE)
        memset(data[i], (int)draw(255) + 1, len);
    if (r.op == ZQCOW2_OP_WRITE)
        memcpy(want + off, data[i], len);
    else if (r.op == ZQCOW2_OP_WRITE_ZEROES)
        memset(want + off, 0, len);
    assert_int_equal(zqcow2_queue_submit(q, &r, 1), 1);
}

static void run_queue(struct zqcow2_image *img, unsigned n)
{
    struct zqcow2_queue *q;

    assert_int_equal(zqcow2_queue_open(img, DEPTH, &q), 0);
    assert_true(zqcow2_queue_fd(q) >= 0);
    for (unsigned k = 0; k < n; k++) {
        unsigned i = (unsigned)draw(DEPTH);

        if (!slots[i].busy)
            submit_one(q, i);
        else
            assert_true(zqcow2_queue_wait(q, 1, 10000) >= 0);
    }
    while (zqcow2_queue_pending(q))
        assert_true(zqcow2_queue_wait(q, 1, 10000) >= 0);
    assert_int_equal(zqcow2_queue_close(q), 0);
}

static void read_all(struct zqcow2_image *img)
{
    static uint8_t got[SIZE];

    assert_int_equal(zqcow2_read(img, got, SIZE, 0), 0);
    for (size_t i = 0; i < SIZE; i++) {
        if (got[i] != want[i])
            fail_msg("byte %#zx is %u, should be %u", i, got[i], want[i]);
    }
}

static void exercise(struct zqcow2_backend *be)
{
    struct zqcow2_create_options how = {.size = sizeof(how), .virtual_size = SIZE};
    struct zqcow2_open_options opt = {.size = sizeof(opt), .flags = ZQCOW2_OPEN_RDWR};
    struct zqcow2_image *img;

    memset(want, 0, SIZE);
    assert_int_equal(zqcow2_create(be, &how, NULL), 0);
    assert_int_equal(zqcow2_open(be, &opt, &img, NULL), 0);
    run_queue(img, 4000);
    read_all(img);
    assert_int_equal(zqcow2_close(img), 0);
}

static void test_image_on_stack(void **state)
{
    (void)state;
    for (unsigned k = 0; k < 2 * KINDS; k++) {
        char path[] = "stack.XXXXXX";
        int fd = mkstemp(path);
        struct zqcow2_backend *low = inner(k / 2, path);
        struct layer l, upper;
        bool async;

        close(fd);
        rng = 7 + k;
        if (low) {
            async = zqcow2_backend_table(low)->submit;
            exercise(stack(&upper, stack(&l, low, k % 2), false));
            assert_int_equal(l.own > 0, async);
            assert_int_equal(l.forwarded > 0, async && k % 2);
            printf("stack over %s: %u I/Os of its own, %u handed on\n", names[k / 2], l.own,
                   l.forwarded);
        }
        unlink(path);
    }
}

/* ---- the functions themselves ---- */

static int answer;
static int answering_submit(void *self, struct zqcow2_io *io)
{
    (void)self;
    zqcow2_io_done(io, answer);
    return 0;
}

static int answering_length(void *self, uint64_t *bytes)
{
    (void)self;
    *bytes = 0;
    return 0;
}

static int answering_transfer(void *self, const struct iovec *iov, int cnt, uint64_t off)
{
    (void)self, (void)iov, (void)cnt, (void)off;
    return answer;
}

static int answering_flush(void *self)
{
    (void)self;
    return answer;
}

static int aligned_limits(void *self, struct zqcow2_limits *out)
{
    (void)self;
    out->io_align = 1024;
    out->buf_align = 512;
    out->max_transfer = 8192;
    out->max_iov = 2;
    return 0;
}

static const struct zqcow2_backend_ops answering = {.size = sizeof(answering),
                                                    .name = "answering",
                                                    .length = answering_length,
                                                    .readv = answering_transfer,
                                                    .writev = answering_transfer,
                                                    .flush = answering_flush,
                                                    .submit = answering_submit,
                                                    .limits = aligned_limits};

static int reported = 1;
static void keep(struct zqcow2_io *io, int ret)
{
    (void)io;
    reported = ret;
}

static void test_answers(void **state)
{
    static const int answers[][2] = {{0, 0},        {-ENOSPC, -ENOSPC}, {-4095, -4095},
                                     {-4096, -EIO}, {4096, -EIO},       {1, -EIO}};
    static uint8_t buf[1024] __attribute__((aligned(512)));
    struct iovec iov = {buf, sizeof(buf)};
    struct zqcow2_backend *be;

    (void)state;
    assert_int_equal(zqcow2_backend_new(&answering, NULL, NULL, &be), 0);
    for (size_t i = 0; i < sizeof(answers) / sizeof(answers[0]); i++) {
        struct zqcow2_io io = {
            .kind = ZQCOW2_IO_WRITE, .iov = &iov, .iovcnt = 1, .length = sizeof(buf), .done = keep};
        answer = answers[i][0];
        assert_int_equal(zqcow2_backend_submit(be, &io), 0);
        assert_int_equal(reported, answers[i][1]);
        assert_int_equal(zqcow2_backend_readv(be, &iov, 1, 0), answers[i][1]);
        assert_int_equal(zqcow2_backend_writev(be, &iov, 1, 0), answers[i][1]);
        assert_int_equal(zqcow2_backend_flush(be), answers[i][1]);
    }
    zqcow2_backend_close(be);
}

static void test_what_is_not_there(void **state)
{
    struct zqcow2_backend *be;
    uint64_t from, to;

    (void)state;
    assert_int_equal(zqcow2_backend_new(&answering, NULL, NULL, &be), 0);
    assert_int_equal(zqcow2_backend_truncate(be, 0), -EOPNOTSUPP);
    assert_int_equal(zqcow2_backend_zero(be, 0, 1024), -EOPNOTSUPP);
    assert_int_equal(zqcow2_backend_discard(be, 0, 1024), -EOPNOTSUPP);
    assert_int_equal(zqcow2_backend_allocate(be, 0, 1024), -EOPNOTSUPP);
    assert_int_equal(zqcow2_backend_data(be, 0, &from, &to), -EOPNOTSUPP);
    assert_int_equal(zqcow2_backend_poll(be, 0), -EOPNOTSUPP);
    assert_int_equal(zqcow2_backend_fd(be), -EOPNOTSUPP);
    assert_int_equal(zqcow2_backend_lock(be, ZQCOW2_LOCK_SHARED), 0);
    assert_int_equal(zqcow2_backend_lock(be, 3), -EINVAL);
    zqcow2_backend_kick(be);
    zqcow2_backend_wake(be);
    zqcow2_backend_invalidate(be);
    zqcow2_backend_close(be);
}

static void test_limits_are_kept(void **state)
{
    static uint8_t buf[16384] __attribute__((aligned(512)));
    static const struct {
        size_t skew, len, second;
        uint64_t off;
        int rc;
    } t[] = {
        {0, 1024, 0, 0, 0},
        {0, 4096, 4096, 1024, 0},
        {1, 1024, 0, 0, -EINVAL},
        {0, 512, 0, 0, -EINVAL},
        {0, 1024, 0, 512, -EINVAL},
        {0, 512, 512, 0, -EINVAL},
        {0, 8192, 1024, 0, -EINVAL},
        {0, 0, 0, 0, -EINVAL},
        {0, 1024, 0, INT64_MAX - 1023, -EOVERFLOW},
        {0, 1024, 0, UINT64_MAX - 1023, -EOVERFLOW},
    };
    struct zqcow2_limits lim = {.size = sizeof(lim)};
    struct zqcow2_backend *be;

    (void)state;
    answer = 0;
    assert_int_equal(zqcow2_backend_new(&answering, NULL, NULL, &be), 0);
    assert_int_equal(zqcow2_backend_limits(be, &lim), 0);
    assert_int_equal(lim.io_align, 1024);
    assert_int_equal(lim.atomic_write, 512);
    for (size_t i = 0; i < sizeof(t) / sizeof(t[0]); i++) {
        struct iovec iov[2] = {{buf + t[i].skew, t[i].len}, {buf + 8192, t[i].second}};
        int cnt = t[i].second ? 2 : 1;
        struct zqcow2_io io = {.kind = ZQCOW2_IO_READ,
                               .iov = iov,
                               .iovcnt = (uint32_t)cnt,
                               .offset = t[i].off,
                               .length = t[i].len + t[i].second,
                               .done = keep};

        if (zqcow2_backend_readv(be, iov, cnt, t[i].off) != t[i].rc ||
            zqcow2_backend_writev(be, iov, cnt, t[i].off) != t[i].rc ||
            zqcow2_backend_submit(be, &io) != t[i].rc)
            fail_msg("case %zu: not %d", i, t[i].rc);
        io.length += 1024;
        assert_true(zqcow2_backend_submit(be, &io) < 0); /* not what the elements hold */
    }
    zqcow2_backend_close(be);
}

static void test_done_is_required(void **state)
{
    struct zqcow2_io io = {.kind = ZQCOW2_IO_FLUSH};
    struct zqcow2_backend *be;

    (void)state;
    assert_int_equal(zqcow2_backend_new(&answering, NULL, NULL, &be), 0);
    assert_int_equal(zqcow2_backend_submit(be, &io), -EINVAL);
    io.done = keep;
    assert_int_equal(zqcow2_backend_submit(be, &io), 0);
    io.kind = ZQCOW2_IO_TRUNCATE + 1;
    assert_int_equal(zqcow2_backend_submit(be, &io), -EINVAL);
    zqcow2_backend_close(be);
}

static void test_claimed_is_nobodys(void **state)
{
    struct zqcow2_create_options how = {.size = sizeof(how), .virtual_size = SIZE};
    struct zqcow2_backend *be;

    (void)state;
    assert_int_equal(zqcow2_mem_open(0, NULL, &be), 0);
    assert_int_equal(zqcow2_backend_claim(be), 0);
    assert_int_equal(zqcow2_create(be, &how, NULL), -EBUSY);
    zqcow2_backend_release(be);
    assert_int_equal(zqcow2_create(be, &how, NULL), 0);
    zqcow2_backend_close(be);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_image_on_stack),    cmocka_unit_test(test_answers),
        cmocka_unit_test(test_what_is_not_there), cmocka_unit_test(test_limits_are_kept),
        cmocka_unit_test(test_done_is_required),  cmocka_unit_test(test_claimed_is_nobodys),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
