/* SPDX-License-Identifier: MIT */
/*
 * What the examples of device models share: the device that they serve, how recorded requests are
 * written down, and the comparison with what was answered.
 */
#ifndef RECORDED_H
#define RECORDED_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zqcow2/backend.h>
#include <zqcow2/queue.h>

struct device {
    struct zqcow2_image *img;
    struct zqcow2_queue *queue; /* one for each queue of the guest, and as deep */
    struct zqcow2_info info;    /* the geometry to offer */
};

/* 512 KiB in memory: zones of 128 KiB, capacity 64, one open, two active, appends up to 32 KiB. */
static inline struct device recorded_device(uint32_t conventional)
{
    struct zqcow2_create_options how = {.size = sizeof(how),
                                        .virtual_size = 512 << 10,
                                        .zone_size = 128 << 10,
                                        .zone_capacity = 64 << 10,
                                        .conventional_zones = conventional,
                                        .max_open_zones = 1,
                                        .max_active_zones = 2,
                                        .max_append_bytes = 32 << 10,
                                        .layout = ZQCOW2_LAYOUT_56};
    struct zqcow2_open_options opt = {.size = sizeof(opt), .flags = ZQCOW2_OPEN_RDWR};
    struct device d = {.info = ZQCOW2_INFO_INIT};
    struct zqcow2_backend *be;

    if (zqcow2_mem_open(0, NULL, &be) || zqcow2_create(be, &how, NULL) ||
        zqcow2_open(be, &opt, &d.img, NULL) || zqcow2_get_info(d.img, &d.info) ||
        zqcow2_queue_open(d.img, 128, &d.queue))
        exit(1);
    return d;
}

#define RECORDED_MAX 80000 /* bytes in one text */

/* "0f 5a*512": bytes in hex; "*n" stands for n times the byte before it. Returns how many. */
static inline size_t recorded_bytes(const char *text, uint8_t *to)
{
    size_t n = 0;

    for (char *end = (char *)text; *end;) {
        char pair[3] = {end[0], end[1], 0};
        if (*end == ' ') {
            end++;
        } else if (*end == '*') {
            size_t more = strtoul(end + 1, &end, 10) - 1;
            memset(to + n, to[n - 1], more);
            n += more;
        } else {
            to[n++] = (uint8_t)strtoul(pair, NULL, 16);
            end += 2;
        }
    }
    return n;
}

/* 0, or 1 having said which byte differs. */
static inline int recorded_differ(const char *what, const uint8_t *got, const uint8_t *want,
                                  size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (got[i] != want[i])
            return printf("%s: byte %zu is %02x, not %02x\n", what, i, got[i], want[i]), 1;
    }
    return 0;
}

static inline void put(uint8_t *p, uint64_t v, int bytes) /* little-endian, on any host */
{
    for (; bytes--; v >>= 8)
        *p++ = (uint8_t)v;
}

static inline uint64_t get(const uint8_t *p, int bytes)
{
    uint64_t v = 0;
    while (bytes--)
        v = v << 8 | p[bytes];
    return v;
}

#endif
