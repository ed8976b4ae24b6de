/* SPDX-License-Identifier: MIT */
/* A foreign eye, and a foreign hand: qemu-img checks surviving images, and makes snapshots. */
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "crash.h"

/* What a program sees that does not know zones: without the feature bit and the extension. */
static void hide_zones(uint8_t *header)
{
    header[79] &= (uint8_t)~0x20u;
    for (size_t i = 104; i + 4 <= SECTOR; i++) {
        if (!memcmp(header + i, "\0zbd", 4))
            memcpy(header + i, "none", 4);
    }
}

static void show_zones(uint8_t *header)
{
    header[79] |= 0x20u;
    for (size_t i = 104; i + 4 <= SECTOR; i++) {
        if (!memcmp(header + i, "none", 4))
            memcpy(header + i, "\0zbd", 4);
    }
}

static bool put_file(struct zqcow2_simdisk *disk, int fd, bool plain)
{
    uint64_t len = zqcow2_simdisk_length(disk);
    uint8_t *buf = calloc(1, len + SECTOR);
    bool good = buf && zqcow2_simdisk_export(disk, buf, len, 0) == 0;

    if (good && plain)
        hide_zones(buf);
    good = good && write(fd, buf, len) == (ssize_t)len;
    free(buf);
    return good;
}

static bool get_file(struct zqcow2_simdisk *disk, int fd, bool zoned)
{
    off_t len = lseek(fd, 0, SEEK_END);
    uint8_t *buf = len > 0 ? malloc((size_t)len) : NULL;
    bool good = buf && pread(fd, buf, (size_t)len, 0) == len;

    if (good && zoned)
        show_zones(buf);
    good = good && zqcow2_simdisk_import(disk, buf, (size_t)len, 0) == 0;
    free(buf);
    return good;
}

/* The exit status, or -1. */
static int run(const char *before, const char *path)
{
    char command[320];
    int rc;

    snprintf(command, sizeof(command), "qemu-img %s %s >/dev/null 2>&1", before, path);
    rc = system(command);
    return WIFEXITED(rc) ? WEXITSTATUS(rc) : -1;
}

int qemu_check(struct zqcow2_simdisk *disk, const char *dir)
{
    char path[128];
    int fd, rc = -1;

    snprintf(path, sizeof(path), "%s/crash-XXXXXX", dir);
    fd = mkstemp(path);
    if (fd < 0)
        return -1;
    if (put_file(disk, fd, true))
        rc = run("check -q -f qcow2", path);
    close(fd);
    unlink(path);
    return rc == 0 || rc == 3 ? 0 : -1; /* 3: leaks */
}

int qemu_snapshot(struct zqcow2_simdisk *disk, bool zoned)
{
    const char *dir = getenv("TMPDIR");
    char path[128];
    int fd, rc = -1;

    snprintf(path, sizeof(path), "%s/crash-XXXXXX", dir ? dir : "/tmp");
    fd = mkstemp(path);
    if (fd < 0)
        return -1;
    if (put_file(disk, fd, zoned) && run("snapshot -c s", path) == 0 && get_file(disk, fd, zoned))
        rc = 0;
    close(fd);
    unlink(path);
    return rc;
}
