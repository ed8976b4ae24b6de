/* SPDX-License-Identifier: MIT */
/* The image that the tests of hand-over give to each other: in a file, with zones. */
#ifndef HANDOVER_H
#define HANDOVER_H

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>
#include <zqcow2/backend.h>
#include <zqcow2/bitmap.h>
#include <zqcow2/change.h>
#include <zqcow2/device.h>
#include <zqcow2/events.h>
#include <zqcow2/handover.h>
#include <zqcow2/simdisk.h>

#include "crash/cuts.h"
#include "rig/ticket.h"

#define ZONE  KiB(256)
#define ZONES 16u
#define UNIT  4096u

static char path[64];

static inline struct zqcow2_backend *file(const char *name, bool create)
{
    struct zqcow2_backend *be;

    assert_int_equal(
        zqcow2_file_open(name, ZQCOW2_FILE_RDWR | (create ? (unsigned)ZQCOW2_FILE_CREATE : 0u),
                         NULL, &be),
        0);
    return be;
}

static inline struct zqcow2_create_options shape(void)
{
    struct zqcow2_create_options how = ZQCOW2_CREATE_OPTIONS_INIT;

    how.virtual_size = ZONES * ZONE;
    how.zone_size = ZONE;
    how.conventional_zones = 2;
    how.cluster_size = 16384;
    how.flags = ZQCOW2_CREATE_FORCE;
    return how;
}

static inline void create(const struct zqcow2_create_options *how)
{
    struct zqcow2_backend *be = file(path, true);

    assert_int_equal(zqcow2_create(be, how, NULL), 0);
    zqcow2_backend_close(be);
}

static inline struct zqcow2_image *open_as(uint32_t flags)
{
    struct zqcow2_open_options opt = ZQCOW2_OPEN_OPTIONS_INIT;
    struct zqcow2_image *img;

    opt.flags = flags;
    assert_int_equal(zqcow2_open(file(path, false), &opt, &img, NULL), 0);
    return img;
}

static inline uint32_t flags_of(struct zqcow2_image *img)
{
    struct zqcow2_info info = ZQCOW2_INFO_INIT;

    assert_int_equal(zqcow2_get_info(img, &info), 0);
    return info.flags;
}

static inline void fill(uint8_t *buf, size_t len, uint64_t tag)
{
    for (size_t i = 0; i < len; i += 8)
        memcpy(buf + i, &(uint64_t){tag * 0x9e3779b97f4a7c15u + i}, 8);
}

static inline int holds(struct zqcow2_image *img, uint64_t at, uint64_t tag)
{
    uint8_t want[UNIT], got[UNIT];
    int rc = zqcow2_read(img, got, UNIT, at);

    fill(want, UNIT, tag);
    return rc < 0 ? rc : memcmp(want, got, UNIT) == 0;
}

static inline int put(struct zqcow2_image *img, uint64_t at, uint64_t tag)
{
    uint8_t buf[UNIT];

    fill(buf, UNIT, tag);
    return zqcow2_write(img, buf, UNIT, at, 0);
}

static inline int setup(void **state)
{
    (void)state;
    snprintf(path, sizeof(path), "handover.%d.qcow2", (int)getpid());
    return 0;
}

static inline int teardown(void **state)
{
    (void)state;
    unlink(path);
    return 0;
}

#endif
