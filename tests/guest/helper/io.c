/* SPDX-License-Identifier: MIT */
/* Direct reads and writes with a pattern, for the scripts. */
#include "helper.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

static int usage(void)
{
    fprintf(stderr, "usage: zqguest io write|read|zeros|sum FILE OFFSET LENGTH [KEY]\n");
    return 2;
}

static int verify(const char *what, const void *buf, size_t len, uint64_t key, uint64_t off)
{
    size_t bad = len;

    if (!strcmp(what, "read"))
        bad = zg_mismatch(buf, len, key, off);
    for (size_t i = 0; !strcmp(what, "zeros") && i < len && bad == len; i++)
        if (((const char *)buf)[i])
            bad = i;
    if (bad != len)
        printf("wrong data at %llu\n", (unsigned long long)(off + bad));
    return bad != len;
}

static void print_sum(const unsigned char *buf, size_t len)
{
    uint64_t h = 0xcbf29ce484222325u; /* FNV-1a */

    for (size_t i = 0; i < len; i++)
        h = (h ^ buf[i]) * 0x100000001b3u;
    printf("%016llx\n", (unsigned long long)h);
}

/* In pieces that every driver takes as one request. */
static int write_pieces(int fd, const char *buf, size_t len, uint64_t off)
{
    size_t piece = 64 * 1024;
    int rc = 0;

    for (size_t at = 0; at < len && !rc; at += piece)
        rc = zg_pwrite(fd, buf + at, len - at < piece ? len - at : piece, off + at);
    return rc;
}

/* Prints the error's name on failure, so that runs on two devices can be compared. */
int zg_io(int argc, char **argv)
{
    bool writes = argc > 0 && !strcmp(argv[0], "write");
    uint64_t off, len, key;
    void *buf;
    int fd, rc;

    if (argc < 4)
        return usage();
    off = zg_number(argv[2]);
    len = zg_number(argv[3]);
    key = argc > 4 ? zg_number(argv[4]) : 1;
    fd = open(argv[1], (writes ? O_WRONLY : O_RDONLY) | O_DIRECT);
    if (fd < 0) {
        fprintf(stderr, "zqguest: %s: %s\n", argv[1], strerror(errno));
        return 2;
    }
    buf = zg_buffer(len);
    if (writes)
        zg_fill(buf, len, key, off);
    rc = writes ? write_pieces(fd, buf, len, off) : zg_pread(fd, buf, len, off);
    close(fd);
    if (rc) {
        printf("%s\n", strerror(-rc));
        return 1;
    }
    if (!strcmp(argv[0], "sum"))
        print_sum(buf, len);
    return writes ? 0 : verify(argv[0], buf, len, key, off);
}
