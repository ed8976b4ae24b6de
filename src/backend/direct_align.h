/* SPDX-License-Identifier: MIT */
#ifndef ZQ_BACKEND_DIRECT_ALIGN_H
#define ZQ_BACKEND_DIRECT_ALIGN_H

#include <stdbool.h>
#include <stdint.h>

/*
 * What O_DIRECT requires, in bytes: of addresses, and of offsets and lengths. False: the kernel
 * does not report it (Linux before 6.1, and some file systems).
 */
bool zq_file_direct_align(int fd, uint32_t *memory, uint32_t *offset);

#endif
