/* SPDX-License-Identifier: MIT */
/*
 * A table that moves: every byte of it once and in order, by blocking calls and piece by piece; the
 * header changes between two barriers; and an error at any call lets no later one be made.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>
#include "base/bytes.h"
#include "base/list.h"
#include "device/move.h"

#define HOST   4096u
#define BYTES  (5u * 512)
#define ROOM   1024u /* so that the last piece is a short one */
#define HEADER 48u
#define CALLS  16u

struct call {
    char what; /* 'w'rite, 'f'lush */
    uint64_t offset, length;
};

struct world {
    struct zqcow2_backend be;
    uint8_t file[HOST + BYTES];
    struct call log[CALLS];
    unsigned calls, fails_at; /* 1: the first call does */
    struct zq_move move;
    unsigned composed, bad_piece; /* 1: the first piece cannot be made */
    uint64_t at;
};

static int note(struct world *w, char what, uint64_t off, uint64_t len)
{
    assert_true(w->calls < CALLS);
    w->log[w->calls++] = (struct call){what, off, len};
    return w->calls == w->fails_at ? -EIO : 0;
}

static int be_writev(void *self, const struct iovec *iov, int cnt, uint64_t off)
{
    struct world *w = self;
    int rc = note(w, 'w', off, iov->iov_len);

    assert_int_equal(cnt, 1);
    assert_true(off + iov->iov_len <= sizeof(w->file));
    if (rc == 0)
        memcpy(w->file + off, iov->iov_base, iov->iov_len);
    return rc;
}

static int be_flush(void *self)
{
    return note(self, 'f', 0, 0);
}

static uint8_t content(uint64_t at)
{
    return (uint8_t)(at / 512 + at % 251 + 1);
}

static int compose(struct zq_move *m, uint64_t at, uint8_t *buf, uint64_t n)
{
    struct world *w = zq_container(m, struct world, move);

    assert_int_equal(at, w->at);
    w->at += n;
    for (uint64_t i = 0; i < n; i++)
        buf[i] = content(at + i);
    return ++w->composed == w->bad_piece ? -ENODATA : 0;
}

static void begin(struct world *w)
{
    memset(w, 0, sizeof(*w));
    w->be.ops.writev = be_writev;
    w->be.ops.flush = be_flush;
    w->be.self = w;
    w->be.limits.io_align = w->be.limits.buf_align = 1;
    w->be.limits.max_iov = 1024;
    w->move = (struct zq_move){.host = HOST, .bytes = BYTES, .compose = compose};
}

static int run(struct world *w)
{
    uint8_t buf[ROOM], raw[12] = {0xab, 0xcd};
    int rc = zq_move_write(&w->move, &w->be, buf, ROOM);

    return rc < 0 ? rc : zq_move_switch(&w->be, raw, sizeof(raw), HEADER);
}

static void is_there(const struct world *w)
{
    for (uint64_t i = 0; i < BYTES; i++)
        assert_int_equal(w->file[HOST + i], content(i));
}

static void by_calls(void **state)
{
    struct world w;

    (void)state;
    begin(&w);
    assert_int_equal(run(&w), 0);
    is_there(&w);
    assert_true(zq_move_is_whole(&w.move));
    assert_int_equal(w.calls, 6); /* three pieces, barrier, header, barrier */
    for (unsigned i = 0; i < 6; i++)
        assert_int_equal(w.log[i].what, i == 3 || i == 5 ? 'f' : 'w');
    assert_int_equal(w.log[4].offset, HEADER);
    assert_int_equal(w.log[4].length, 12);
    assert_int_equal(w.file[HEADER], 0xab);
}

/* What the owner of a loop does: one io after the other. */
static void in_a_loop(void **state)
{
    struct world w;
    struct zq_io io;
    uint8_t buf[ROOM];
    unsigned n = 0;

    (void)state;
    for (begin(&w); !zq_move_is_whole(&w.move); n++) {
        assert_int_equal(zq_move_next(&w.move, &io, buf, ROOM), 0);
        assert_int_equal(io.pub.kind, ZQCOW2_IO_WRITE);
        assert_ptr_equal(io.pub.iov[0].iov_base, buf);
        memcpy(w.file + io.pub.offset, buf, (size_t)io.pub.length);
    }
    is_there(&w);
    assert_int_equal(n, 3);
    assert_int_equal(w.calls, 0);
}

/* The header is not written unless the table is whole and durable. */
static void an_error_ends_it(void **state)
{
    struct world w;

    (void)state;
    for (unsigned at = 1; at <= 6; at++) {
        begin(&w);
        w.fails_at = at;
        assert_int_equal(run(&w), -EIO);
        assert_int_equal(w.calls, at);
        assert_int_equal(w.file[HEADER], at > 5 ? 0xab : 0);
    }
    for (unsigned at = 1; at <= 3; at++) {
        begin(&w);
        w.bad_piece = at;
        assert_int_equal(run(&w), -ENODATA);
        assert_int_equal(w.calls, at - 1);
    }
    printf("a table that moves: 9 errors, each the last thing that happened\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(by_calls),
        cmocka_unit_test(in_a_loop),
        cmocka_unit_test(an_error_ends_it),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
