/* SPDX-License-Identifier: MIT */
#ifndef ZQ_BACKEND_DIRECT_ALIGN_H
#define ZQ_BACKEND_DIRECT_ALIGN_H

#include <stdbool.h>
#include <stdint.h>

/* What O_DIRECT wants; false: the kernel does not say. */
bool zq_file_direct_align(int fd, uint32_t *memory, uint32_t *offset);

#endif
