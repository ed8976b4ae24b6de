/* SPDX-License-Identifier: MIT */
/*
 * What a backend may answer: 0, or an errno from -4095 to -1, which reaches the caller as it is.
 * Anything else is -EIO, whichever callback says it, in whatever way it comes in. So is a flush of
 * an open image that finds no space: it kills, and "no space" means that nothing is lost.
 */
#include <errno.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "rig/rig.h"
#include "rig/store.h"

#define ZONE (1u << 20)

enum callback {
    LENGTH,
    READ,
    WRITE,
    FLUSH,
    LIMITS,
    TRUNCATE,
    DISCARD,
    ZERO,
    LOCK,
    SUBMIT,
    DONE,
    FD
};

/* How answers come in: from the blocking callbacks, from threads, by submit(), by io_done(). */
enum way { BLOCKING, THREADS, REFUSING, DONE_LATER, WAYS };

static const char *const ways[] = {"blocking", "threads", "submit", "io_done"};
static const int answers[] = {0,       1,     512,   4096,   INT_MAX, -EPERM, -EIO,   -ENOSPC,
                              -EINVAL, -4095, -4096, -10005, -10024,  -70000, INT_MIN};
#define ANSWERS (sizeof(answers) / sizeof(*answers))

/* Does what it is asked, except for one callback, which only returns the given answer. */
struct liar {
    struct store store;
    enum way way;
    enum callback who;
    uint32_t kind; /* of SUBMIT and DONE: for which kind of I/O */
    bool lies;
    int answer;
    unsigned asked;
};

static bool is_lying(struct liar *l, enum callback who)
{
    if (!l->lies || l->who != who)
        return false;
    l->asked++;
    return true;
}

#define OR_LIE(who, call) \
    do { \
        struct liar *l = self; \
        struct rig_be under = store_be(&l->store); \
        if (is_lying(l, who) && l->answer) \
            return l->answer; \
        return under.ops->call; \
    } while (0)

static int liar_length(void *self, uint64_t *bytes)
{
    *bytes = 0;
    OR_LIE(LENGTH, length(under.self, bytes));
}

static int liar_readv(void *self, const struct iovec *iov, int cnt, uint64_t off)
{
    OR_LIE(READ, readv(under.self, iov, cnt, off));
}

static int liar_writev(void *self, const struct iovec *iov, int cnt, uint64_t off)
{
    OR_LIE(WRITE, writev(under.self, iov, cnt, off));
}

static int liar_flush(void *self)
{
    OR_LIE(FLUSH, flush(under.self));
}

static int liar_limits(void *self, struct zqcow2_limits *out)
{
    OR_LIE(LIMITS, limits(under.self, out));
}

static int liar_truncate(void *self, uint64_t bytes)
{
    OR_LIE(TRUNCATE, truncate(under.self, bytes));
}

static int liar_discard(void *self, uint64_t off, uint64_t len)
{
    OR_LIE(DISCARD, discard(under.self, off, len));
}

static int liar_zero(void *self, uint64_t off, uint64_t len)
{
    OR_LIE(ZERO, zero(under.self, off, len));
}

static int liar_lock(void *self, int mode)
{
    struct liar *l = self;

    return mode != ZQCOW2_LOCK_NONE && is_lying(l, LOCK) ? l->answer : 0;
}

static int liar_submit(void *self, struct zqcow2_io *io)
{
    struct liar *l = self;
    bool it = io->kind == l->kind;

    if (it && is_lying(l, SUBMIT) && l->answer)
        return l->answer;
    if (!it || !is_lying(l, DONE))
        return -EOPNOTSUPP;
    zqcow2_io_done(io, l->answer);
    return 0;
}

static int liar_fd(void *self)
{
    struct liar *l = self;

    return is_lying(l, FD) ? l->answer : -EBADF;
}

static int liar_poll(void *self, int timeout_ms)
{
    (void)self;
    (void)timeout_ms;
    return 0;
}

static void liar_wake(void *self)
{
    (void)self;
}

#define COMMON \
    .size = sizeof(struct zqcow2_backend_ops), .name = "liar", .length = liar_length, \
    .readv = liar_readv, .writev = liar_writev, .flush = liar_flush, .limits = liar_limits, \
    .truncate = liar_truncate, .discard = liar_discard, .zero = liar_zero, .lock = liar_lock

static const struct zqcow2_backend_ops blocking_ops = {COMMON};
static const struct zqcow2_backend_ops async_ops = {COMMON, .submit = liar_submit};
static const struct zqcow2_backend_ops polled_ops = {
    COMMON, .submit = liar_submit, .poll = liar_poll, .wake = liar_wake, .fd = liar_fd};

static int expected(int answer)
{
    return answer <= 0 && answer >= -4095 ? answer : -EIO;
}

static struct liar liar;
static struct zqcow2_backend *be;
static struct zqcow2_image *img;
static uint8_t buf[65536];

static void begin(enum way way)
{
    struct zqcow2_backend *inner;

    memset(&liar, 0, sizeof(liar));
    store_init(&liar.store);
    liar.way = way;
    be = NULL;
    img = NULL;
    if (way == THREADS) {
        assert_int_equal(zqcow2_backend_new(&blocking_ops, &liar, NULL, &inner), 0);
        assert_int_equal(zqcow2_threads_wrap(inner, 1, NULL, &be), 0);
        return;
    }
    assert_int_equal(
        zqcow2_backend_new(way == BLOCKING ? &blocking_ops : &async_ops, &liar, NULL, &be), 0);
}

static void end(void)
{
    liar.lies = false;
    if (img)
        zqcow2_close(img);
    else
        zqcow2_backend_close(be);
    store_free(&liar.store);
}

static int create(void)
{
    struct zqcow2_create_options o = ZQCOW2_CREATE_OPTIONS_INIT;

    o.virtual_size = 8 * ZONE;
    o.zone_size = ZONE;
    o.conventional_zones = 1;
    o.cluster_size = 65536;
    o.flags = ZQCOW2_CREATE_FORCE;
    return zqcow2_create(be, &o, NULL);
}

static int open_image(void)
{
    struct zqcow2_open_options o = ZQCOW2_OPEN_OPTIONS_INIT;
    int rc;

    o.flags = ZQCOW2_OPEN_RDWR;
    o.extent_bytes = 65536;
    rc = zqcow2_open(be, &o, &img, NULL);
    if (rc)
        img = NULL;
    return rc;
}

static int check(void)
{
    return zqcow2_check(be, NULL, NULL, NULL);
}

static int repair(void)
{
    struct zqcow2_check_options o = ZQCOW2_CHECK_OPTIONS_INIT;

    o.flags = ZQCOW2_CHECK_REPAIR_LEAKS;
    return zqcow2_check(be, &o, NULL, NULL);
}

static int plain_length(void)
{
    uint64_t n;

    return zqcow2_backend_length(be, &n);
}

static int plain_read(void)
{
    return zqcow2_backend_read(be, buf, 512, 0);
}

static int plain_write(void)
{
    return zqcow2_backend_write(be, buf, 512, 1 << 20);
}

static int append(void) /* the fast path: the zone is open, its clusters are there */
{
    uint64_t at = ZONE;

    return zqcow2_append(img, buf, 4096, &at, 0);
}

static int append_elsewhere(void) /* the slow path, with a longer file */
{
    uint64_t at = 3 * ZONE;

    return zqcow2_append(img, buf, 4096, &at, 0);
}

static int read_back(void)
{
    return zqcow2_read(img, buf, 4096, ZONE);
}

static int read_two(void) /* committed bytes and zeros beyond: the slow path */
{
    return zqcow2_read(img, buf, 65536, ZONE);
}

static int zero_some(void)
{
    return zqcow2_write_zeroes(img, 4096, 4096, 0);
}

static int flush(void)
{
    return zqcow2_flush(img);
}

static int reset(void)
{
    int rc = zqcow2_zone_reset(img, ZONE, ZONE, ZQCOW2_FUA);

    return rc ? rc : zqcow2_drain(img);
}

static void want(const char *what, int is, int should)
{
    if (is != should)
        fail_msg("%s, %s answers %d: %d, expected %d", ways[liar.way], what, liar.answer, is,
                 should);
}

/* Makes one callback answer, and says what the call must return for it. */
static void ask(const char *what, enum callback who, int (*call)(void), bool harmless)
{
    static const uint32_t kinds[] = {[READ] = ZQCOW2_IO_READ,
                                     [WRITE] = ZQCOW2_IO_WRITE,
                                     [FLUSH] = ZQCOW2_IO_FLUSH,
                                     [ZERO] = ZQCOW2_IO_ZERO,
                                     [DISCARD] = ZQCOW2_IO_DISCARD,
                                     [TRUNCATE] = ZQCOW2_IO_TRUNCATE,
                                     [LOCK] = 0};
    bool lost = img && who == FLUSH && liar.answer == -ENOSPC;
    int rc, should = harmless ? 0 : lost ? -EIO : expected(liar.answer);

    liar.who = !img || liar.way <= THREADS ? who : liar.way == REFUSING ? SUBMIT : DONE;
    liar.kind = kinds[who];
    liar.asked = 0;
    liar.lies = true;
    rc = call();
    liar.lies = false;
    if (!liar.asked)
        fail_msg("%s, %s: was not asked at all", ways[liar.way], what);
    want(what, rc, should);
}

static uint64_t get_be64(uint64_t at)
{
    uint8_t b[8];
    uint64_t v = 0;

    store_get(&liar.store, b, 8, at);
    for (int i = 0; i < 8; i++)
        v = v << 8 | b[i];
    return v;
}

/* A cluster is counted that nobody uses: something to repair. */
static void leak(void)
{
    static const uint8_t one[2] = {0, 1};

    store_put(&liar.store, one, 2, get_be64(get_be64(48)) + 100 * 2);
}

static void closed_case(enum way way, int answer, const char *what, enum callback who,
                        int (*call)(void))
{
    begin(way);
    assert_int_equal(create(), 0);
    leak();
    liar.answer = answer;
    ask(what, who, call, false);
    end();
}

static void open_case(enum way way, int answer, const char *what, enum callback who,
                      int (*call)(void), bool harmless)
{
    begin(way);
    assert_int_equal(create(), 0);
    assert_int_equal(open_image(), 0);
    assert_int_equal(append(), 0);
    assert_int_equal(zqcow2_write(img, buf, 65536, 0, 0), 0);
    liar.answer = answer;
    ask(what, who, call, harmless);
    if (who == WRITE || who == READ || who == TRUNCATE)
        want("after it", call(), 0); /* one request failed, and that is all */
    end();
}

static unsigned cases;

static void of_closed_images(void **state)
{
    static const struct {
        const char *what;
        enum callback who;
        int (*call)(void);
    } row[] = {
        {"create's length", LENGTH, create}, {"create's write", WRITE, create},
        {"create's flush", FLUSH, create},   {"create's truncate", TRUNCATE, create},
        {"create's lock", LOCK, create},     {"open's length", LENGTH, open_image},
        {"open's read", READ, open_image},   {"open's flush", FLUSH, open_image},
        {"open's lock", LOCK, open_image},   {"check's length", LENGTH, check},
        {"check's read", READ, check},       {"check's lock", LOCK, check},
        {"repair's flush", FLUSH, repair},   {"repair's write", WRITE, repair},
        {"repair's read", READ, repair},     {"backend_length", LENGTH, plain_length},
        {"backend_read", READ, plain_read},  {"backend_write", WRITE, plain_write},
    };

    (void)state;
    for (unsigned way = 0; way < WAYS; way++) {
        for (size_t i = 0; i < sizeof(row) / sizeof(*row); i++) {
            for (size_t a = 0; a < ANSWERS; a++, cases++)
                closed_case(way, answers[a], row[i].what, row[i].who, row[i].call);
        }
    }
}

static void of_open_images(void **state)
{
    static const struct {
        const char *what;
        enum callback who;
        int (*call)(void);
        bool harmless;
    } row[] = {
        {"append's write", WRITE, append, false},
        {"a first append's write", WRITE, append_elsewhere, false},
        {"a first append's truncate", TRUNCATE, append_elsewhere, false},
        {"a read", READ, read_back, false},
        {"a read of more", READ, read_two, false},
        {"zeroing", ZERO, zero_some, false},
        {"a flush", FLUSH, flush, false},
        {"a hole", DISCARD, reset, true}, /* its failure is harmless */
    };

    (void)state;
    for (unsigned way = 0; way < WAYS; way++) {
        for (size_t i = 0; i < sizeof(row) / sizeof(*row); i++) {
            for (size_t a = 0; a < ANSWERS; a++, cases++)
                open_case(way, answers[a], row[i].what, row[i].who, row[i].call, row[i].harmless);
        }
    }
}

static void of_limits(void **state)
{
    (void)state;
    for (size_t a = 0; a < ANSWERS; a++, cases++) {
        memset(&liar, 0, sizeof(liar));
        store_init(&liar.store);
        liar.who = LIMITS;
        liar.lies = true;
        liar.answer = answers[a];
        want("limits", zqcow2_backend_new(&blocking_ops, &liar, NULL, &be), expected(answers[a]));
        if (!answers[a])
            zqcow2_backend_close(be);
        store_free(&liar.store);
    }
}

/* A descriptor is 0 or more; what is less is an errno like any other. */
static void of_descriptors(void **state)
{
    struct zqcow2_queue *q;

    (void)state;
    if (!RIG_JOINTS)
        skip();
    for (size_t a = 0; a < ANSWERS; a++, cases++) {
        if (answers[a] >= 0)
            continue;
        begin(DONE_LATER);
        zqcow2_backend_close(be);
        assert_int_equal(zqcow2_backend_new(&polled_ops, &liar, NULL, &be), 0);
        assert_int_equal(create(), 0);
        assert_int_equal(open_image(), 0);
        assert_int_equal(zqcow2_queue_open(img, 1, &q), 0);
        liar.who = FD;
        liar.lies = true;
        liar.answer = answers[a];
        want("fd", zqcow2_queue_fd(q), expected(answers[a]));
        assert_int_equal(zqcow2_queue_close(q), 0);
        end();
    }
    printf("answers: %u cases, every one as the rule says\n", cases);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(of_closed_images),
        cmocka_unit_test(of_open_images),
        cmocka_unit_test(of_limits),
        cmocka_unit_test(of_descriptors),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
