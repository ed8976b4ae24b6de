/* SPDX-License-Identifier: MIT */
/* The file in memory, and the completion of one I/O. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "unit_core/fake_device.h"

static int fake_length(void *self, uint64_t *bytes)
{
    *bytes = ((const struct fake_device *)self)->length;
    return 0;
}

void fake_init(struct fake_device *f, uint64_t room, uint64_t length)
{
    memset(f, 0, sizeof(*f));
    f->be.limits.io_align = f->be.limits.buf_align = 1;
    f->be.limits.max_iov = 1024;
    f->be.ops.length = fake_length;
    f->be.self = f;
    f->room = room;
    f->length = length;
    f->file = calloc(1, (size_t)room);
    f->log = calloc(FAKE_LOG, sizeof(*f->log));
    assert_true(f->file && f->log);
}

void fake_free(struct fake_device *f)
{
    free(f->file);
    free(f->log);
}

/* I/O and work; the library keeps them apart. */
static struct zq_io *nth(const struct zq_iox *x, unsigned k, unsigned *nr)
{
    const struct zq_list *lists[] = {&x->submit, &x->work};
    struct zq_io *found = NULL;

    *nr = 0;
    for (unsigned i = 0; i < 2; i++) {
        for (struct zq_list *l = lists[i]->next; l != lists[i]; l = l->next) {
            if ((*nr)++ == k)
                found = zq_container(l, struct zq_io, link);
        }
    }
    return found;
}

unsigned fake_started(const struct zq_iox *x)
{
    unsigned n;

    (void)nth(x, 0, &n);
    return n;
}

struct zq_io *fake_io(const struct zq_iox *x, unsigned k)
{
    unsigned n;
    struct zq_io *io = nth(x, k, &n);

    assert_non_null(io);
    return io;
}

static void move_bytes(struct fake_device *f, const struct zqcow2_io *p)
{
    uint64_t at = p->offset;

    assert_true(p->offset + p->length <= f->room);
    for (uint32_t i = 0; i < p->iovcnt; at += p->iov[i++].iov_len) {
        if (p->kind == ZQCOW2_IO_READ)
            memcpy(p->iov[i].iov_base, f->file + at, p->iov[i].iov_len);
        else
            memcpy(f->file + at, p->iov[i].iov_base, p->iov[i].iov_len);
    }
    if (p->kind != ZQCOW2_IO_READ && at > f->length)
        f->length = at;
}

static int perform(struct fake_device *f, struct zq_io *io)
{
    switch (io->pub.kind) {
    case ZQCOW2_IO_READ:
    case ZQCOW2_IO_WRITE: move_bytes(f, &io->pub); break;
    case ZQCOW2_IO_FLUSH: break;
    case ZQCOW2_IO_TRUNCATE:
        assert_true(io->pub.offset <= f->room && io->pub.offset >= f->length);
        memset(f->file + f->length, 0, (size_t)(io->pub.offset - f->length));
        f->length = io->pub.offset;
        break;
    case ZQ_IO_WORK: io->work(io); return io->ret;
    default: fail_msg("no part under test starts an I/O of kind %u", io->pub.kind);
    }
    return 0;
}

void fake_complete(struct fake_device *f, struct zq_iox *x, unsigned k, int ret)
{
    struct zq_io *io = fake_io(x, k);

    if (ret == 0)
        ret = perform(f, io);
    assert_true(f->nr_log < FAKE_LOG);
    f->log[f->nr_log++] = (struct fake_call){io->pub.kind, ret, io->pub.offset, io->pub.length};
    zq_list_del(&io->link);
    io->ret = ret;
    zq_io_finish(io);
}

void fake_run(struct fake_device *f, struct zq_iox *x)
{
    while (fake_started(x))
        fake_complete(f, x, 0, 0);
}
