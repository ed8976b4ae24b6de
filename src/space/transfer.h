/* SPDX-License-Identifier: MIT */
/*
 * A request's bytes on their way to and from the host.
 */
#ifndef ZQ_SPACE_TRANSFER_H
#define ZQ_SPACE_TRANSFER_H

#include "loop/core.h"

/* How a request to write zeros wants it: with space behind them, or as the backend likes. */
static inline uint32_t zq_zeros_kind(const struct zq_op *op)
{
    return op->req.flags & ZQCOW2_NO_UNMAP ? ZQ_IO_ALLOCATE : ZQCOW2_IO_ZERO;
}
/* The next len bytes of the request, from op's cursor on, and the host bytes that they go to. */
void zq_transfer_begin(struct zq_op *op, uint32_t kind, uint64_t host, uint64_t len);
/* The same, read from where a source has them. */
void zq_transfer_read_from(struct zq_op *op, struct zq_source *from, uint64_t host, uint64_t len);
/* ZQ_WAIT while bytes move, then 0 or the error. */
int zq_transfer_step(struct zq_core *c, struct zq_op *op);
/* One io that is not of the request's bytes, in the image's file: ZQ_WAIT; result in op->rc. */
int zq_op_io(struct zq_core *c, struct zq_op *op, uint32_t kind, void *buf, uint64_t host,
             uint64_t len);
/* The same in the file that has the data; ZQ_IO_ALLOCATE: zeros that have space. */
int zq_op_data_io(struct zq_core *c, struct zq_op *op, uint32_t kind, void *buf, uint64_t host,
                  uint64_t len);
/* The same, read from the file of a source. */
int zq_op_read_from(struct zq_core *c, struct zq_op *op, struct zq_iox *x, void *buf, uint64_t host,
                    uint64_t len);
/* Work that takes long, in a thread that issues I/O, without the mutex. cost: see base/cost.h. */
int zq_op_work(struct zq_core *c, struct zq_op *op, void (*work)(struct zq_io *io), uint32_t cost);
/* The same for work that calls a backend, which blocks: in the thread that waits for op (E6). */
int zq_op_call(struct zq_core *c, struct zq_op *op, void (*work)(struct zq_io *io));
/* Copies the request's bytes at the cursor into memory, and moves it on. */
void zq_iov_copy_in(struct zq_op *op, uint8_t *to, uint64_t len);
/* Copies from memory into the request's bytes at the cursor, and moves it on. */
void zq_iov_copy_out(struct zq_op *op, const uint8_t *from, uint64_t len);
void zq_iov_advance(struct zq_op *op, uint64_t len);
/* The cursor goes to this byte of the request. */
void zq_iov_seek(struct zq_op *op, uint64_t pos);

#endif
