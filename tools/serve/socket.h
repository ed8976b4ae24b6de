/* SPDX-License-Identifier: MIT */
/* UNIX stream sockets by their paths. */
#ifndef ZQ_TOOLS_SERVE_SOCKET_H
#define ZQ_TOOLS_SERVE_SOCKET_H

#include <sys/types.h>

/*
 * A new socket that listens, with these permissions less the umask, or -errno. One that a killed
 * server has left is replaced; any other file is in the way.
 */
int serve_socket_listen(const char *path, mode_t mode, int backlog);
/* Connected, or -errno. */
int serve_socket_connect(const char *path);

#endif
