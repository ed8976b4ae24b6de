/* SPDX-License-Identifier: MIT */
/*
 * What O_DIRECT asks of a file. C libraries describe statx later than the kernel does, or not at
 * all, so this takes the kernel's header, which cannot meet <sys/stat.h> in one file.
 */
#include <linux/fcntl.h>
#include <linux/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "backend/direct_align.h"

bool zq_file_direct_align(int fd, uint32_t *memory, uint32_t *offset)
{
    struct statx sx = {0};

    if (syscall(SYS_statx, fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &sx) < 0 ||
        !(sx.stx_mask & STATX_DIOALIGN))
        return false;
    *memory = sx.stx_dio_mem_align;
    *offset = sx.stx_dio_offset_align;
    return *memory && *offset;
}
