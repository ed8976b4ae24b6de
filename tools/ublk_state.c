/* SPDX-License-Identifier: MIT */
/* One small file per served device under /run/zqcow2, so that `list` and `del` find the servers. */
#include "ublk_state.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define RUN_DIR "/run/zqcow2"

static void state_path(char *buf, size_t size, uint32_t id)
{
    snprintf(buf, size, RUN_DIR "/ublk%" PRIu32, id);
}

int ublk_state_create(uint32_t id, const char *image)
{
    char path[64];
    int fd;

    if (mkdir(RUN_DIR, 0755) && errno != EEXIST)
        return -errno;
    state_path(path, sizeof(path), id);
    fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0)
        return -errno;
    if (flock(fd, LOCK_EX | LOCK_NB) || dprintf(fd, "%ld\n%s\n", (long)getpid(), image) < 0) {
        int rc = -errno;

        close(fd);
        return rc;
    }
    return fd;
}

void ublk_state_fail(int fd, const char *text)
{
    dprintf(fd, "%s\n", text);
}

void ublk_state_remove(uint32_t id)
{
    char path[64];

    state_path(path, sizeof(path), id);
    unlink(path);
}

/* Takes the line's end off; an empty string when there is no line. */
static void read_line(FILE *f, char *buf, int size)
{
    if (!fgets(buf, size, f))
        buf[0] = 0;
    buf[strcspn(buf, "\n")] = 0;
}

int ublk_state_read(uint32_t id, struct ublk_state *out)
{
    char path[64], pid[32];
    FILE *f;

    memset(out, 0, sizeof(*out));
    out->id = id;
    state_path(path, sizeof(path), id);
    f = fopen(path, "re");
    if (!f)
        return -errno;
    read_line(f, pid, sizeof(pid));
    read_line(f, out->image, sizeof(out->image));
    read_line(f, out->error, sizeof(out->error));
    out->pid = (pid_t)strtol(pid, NULL, 10);
    out->alive = flock(fileno(f), LOCK_SH | LOCK_NB) != 0;
    fclose(f);
    return 0;
}

static int compare_ids(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

    return x < y ? -1 : x > y;
}

int ublk_state_ids(uint32_t *ids, int max)
{
    DIR *d = opendir(RUN_DIR);
    struct dirent *e;
    int n = 0;

    if (!d)
        return errno == ENOENT ? 0 : -errno;
    while (n < max && (e = readdir(d)))
        if (sscanf(e->d_name, "ublk%" SCNu32, &ids[n]) == 1)
            n++;
    closedir(d);
    qsort(ids, (size_t)n, sizeof(*ids), compare_ids);
    return n;
}
