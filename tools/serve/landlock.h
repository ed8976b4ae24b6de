/* SPDX-License-Identifier: MIT */
/* Landlock, by its numbers: the C library has no functions for it, and old headers lack the file.
 */
#ifndef ZQ_TOOLS_SERVE_LANDLOCK_H
#define ZQ_TOOLS_SERVE_LANDLOCK_H

/*
 * Bars the calling thread, and those that it creates, from every path, TCP port, abstract socket
 * and process outside, as far as the kernel can: 0 also on a kernel without Landlock; or -errno.
 */
int serve_landlock(void);

#endif
