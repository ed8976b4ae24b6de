/* SPDX-License-Identifier: MIT */
/*
 * A device below an image's I/O that does nothing by itself: the test takes each I/O that was
 * started and says when it completes, and with what. Its file lies in memory; what it did is
 * logged.
 */
#ifndef UNIT_CORE_FAKE_DEVICE_H
#define UNIT_CORE_FAKE_DEVICE_H

#include "device/io.h"

#define FAKE_LOG 65536u

struct fake_call {
    uint32_t kind;
    int ret;
    uint64_t offset, length;
};

struct fake_device {
    struct zqcow2_backend be;
    uint8_t *file; /* `room` bytes; the device fails the test where it is too small */
    uint64_t room, length;
    struct fake_call *log;
    unsigned nr_log;
};

void fake_init(struct fake_device *f, uint64_t room, uint64_t length);
void fake_free(struct fake_device *f);
/* Of the I/Os that were started and have not completed: how many, and number k, oldest first. */
unsigned fake_started(const struct zq_iox *x);
struct zq_io *fake_io(const struct zq_iox *x, unsigned k);
/* Number k completes with ret; nothing of it is done unless that is 0. */
void fake_complete(struct fake_device *f, struct zq_iox *x, unsigned k, int ret);
/* All complete, in order, and what they start. */
void fake_run(struct fake_device *f, struct zq_iox *x);

#endif
