/* SPDX-License-Identifier: MIT */
/* Buffers as callers cut them: in one piece, in three, or in any number of any length. */
#ifndef RIG_VECTOR_H
#define RIG_VECTOR_H

#include <stdint.h>
#include <sys/uio.h>

#define VECTOR_MAX 72u

/* How many elements it made of the buffer; the same for the same tag. */
uint32_t vector_cut(struct iovec iov[VECTOR_MAX], uint8_t *buf, size_t len, uint64_t tag);

#endif
