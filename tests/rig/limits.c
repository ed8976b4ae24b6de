/* SPDX-License-Identifier: MIT */
/* The limits under which the random tests run: of every kind, and as tight as they can be. */
#include "rig/limits.h"

const struct limits rig_limits[] = {
    {"blocks", {.io_align = 4096}},
    {"blocks-of-memory", {.io_align = 4096, .buf_align = 4096}},
    {"two-elements", {.io_align = 512, .buf_align = 512, .max_iov = 2}},
    {"one-element", {.max_iov = 1}},
    {"three-elements", {.buf_align = 16, .max_iov = 3}},
    {"one-block", {.io_align = 4096, .buf_align = 64, .max_transfer = 4096, .max_iov = 1}},
    {"one-sector", {.io_align = 512, .max_transfer = 512, .max_iov = 5}},
    {"64-KiB", {.max_transfer = 65536, .max_iov = 7}},
};
const unsigned rig_nr_limits = sizeof(rig_limits) / sizeof(*rig_limits);
