/* SPDX-License-Identifier: MIT */
/*
 * Preloaded: counts fdatasync(), and lseek() that looks for data or holes, and leaves both numbers
 * in the file that ZQ_SYNCS names.
 */
#include <dlfcn.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static atomic_int syncs, seeks;

int fdatasync(int fd)
{
    int (*next)(int) = NULL;

    *(void **)&next = dlsym(RTLD_NEXT, "fdatasync");
    atomic_fetch_add(&syncs, 1);
    return next(fd);
}

static int64_t seek(const char *name, int fd, int64_t off, int whence)
{
    int64_t (*next)(int, int64_t, int) = NULL;

    *(void **)&next = dlsym(RTLD_NEXT, name);
    if (whence == SEEK_DATA || whence == SEEK_HOLE)
        atomic_fetch_add(&seeks, 1);
    return next(fd, off, whence);
}

/* One of these is the name that lseek() has where off_t has 64 bits. */
int64_t seek_plain(int fd, int64_t off, int whence) __asm__("lseek");
int64_t seek_plain(int fd, int64_t off, int whence)
{
    return seek("lseek", fd, off, whence);
}

int64_t seek_large(int fd, int64_t off, int whence) __asm__("lseek64");
int64_t seek_large(int fd, int64_t off, int whence)
{
    return seek("lseek64", fd, off, whence);
}

__attribute__((destructor)) static void report(void)
{
    const char *name = getenv("ZQ_SYNCS");
    FILE *f = name ? fopen(name, "w") : NULL;

    if (!f)
        return;
    fprintf(f, "%d %d\n", atomic_load(&syncs), atomic_load(&seeks));
    fclose(f);
}
