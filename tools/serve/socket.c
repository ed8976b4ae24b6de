/* SPDX-License-Identifier: MIT */
/* UNIX stream sockets by their paths. */
#include "serve/socket.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

static bool fill_address(const char *path, struct sockaddr_un *a)
{
    *a = (struct sockaddr_un){.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof(a->sun_path))
        return false;
    memcpy(a->sun_path, path, strlen(path) + 1);
    return true;
}

/* What fails takes the descriptor with it. */
static int failed(int fd)
{
    int rc = -errno;

    close(fd);
    return rc;
}

int serve_socket_connect(const char *path)
{
    struct sockaddr_un a;
    int fd;

    if (!fill_address(path, &a))
        return -ENAMETOOLONG;
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    return connect(fd, (const struct sockaddr *)&a, sizeof(a)) ? failed(fd) : fd;
}

/* A socket that a killed server has left answers nobody. */
static void remove_stale(const char *path)
{
    struct stat st;
    int fd;

    if (lstat(path, &st) || !S_ISSOCK(st.st_mode))
        return;
    fd = serve_socket_connect(path);
    if (fd == -ECONNREFUSED)
        unlink(path);
    if (fd >= 0)
        close(fd);
}

/* Linux gives the file the permissions of the socket: at no time are they wider. */
int serve_socket_listen(const char *path, mode_t mode, int backlog)
{
    struct sockaddr_un a;
    int fd;

    if (!fill_address(path, &a))
        return -ENAMETOOLONG;
    remove_stale(path);
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    if (fchmod(fd, mode) || bind(fd, (struct sockaddr *)&a, sizeof(a)) || listen(fd, backlog))
        return failed(fd);
    return fd;
}
