/* SPDX-License-Identifier: MIT */
/* What the commands of the verb io share: the session, the table's row, the report lines. */
#ifndef ZT_IO_H
#define ZT_IO_H

#include <zqcow2/queue.h>

#include "tool.h"

#define ZT_IO_FILL 0xcd /* the byte that qemu-io writes by default */

struct zt_io {
    struct zt_target target;
    unsigned flags; /* zqcow2_open_flag */
    struct zqcow2_image *img;
    struct zqcow2_info info;
    struct zqcow2_queue *queue; /* opened by the first asynchronous command */
    bool failed, quit;
};

struct zt_io_command {
    const char *name, *other; /* other may be NULL */
    int min, max;             /* operands and options; max -1: any number */
    int (*run)(struct zt_io *io, int argc, char **argv); /* 0, or -1 after a message */
    const char *operands, *summary;
};

/* Each file of commands brings a table that ends with a NULL name. */
extern const struct zt_io_command zt_io_data[], zt_io_async[], zt_io_range[], zt_io_zone[];

/* Errors of commands go to standard output, as with qemu-io, so that they keep their place. */
void zt_io_say(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
bool zt_io_size(const char *text, uint64_t *value); /* reports what is wrong */
bool zt_io_byte(const char *text, uint8_t *value);

/* Reports the failure of a command on the range at `off`; -1. */
int zt_io_failed(struct zt_io *io, const char *what, int rc, uint64_t off);
bool zt_io_bad_option(const char *command); /* reports which one; false */

struct zt_io_result {
    const char *verb; /* "wrote" */
    uint64_t offset, length;
    double seconds;
    bool machine; /* -C */
};
void zt_io_print(const struct zt_io_result *r);
/* "1.500 KiB", "64 bytes": three digits, unless they are all zero. */
char *zt_io_amount(char *buf, size_t room, double value);
void zt_io_dump(const uint8_t *bytes, uint64_t length, uint64_t offset);

/*
 * As the calls of the library, but on an image without zones they take any offset and length:
 * the sectors at both ends are read, changed and written, and are not discarded.
 */
int zt_io_write_bytes(struct zt_io *io, const uint8_t *bytes, uint64_t len, uint64_t off,
                      unsigned flags);
int zt_io_zero_bytes(struct zt_io *io, uint64_t len, uint64_t off, unsigned flags);
int zt_io_discard_bytes(struct zt_io *io, uint64_t len, uint64_t off);

/* Asynchronous requests: delivers what is complete, or waits for all. */
void zt_io_poll(struct zt_io *io);
void zt_io_wait(struct zt_io *io);
/* Waits for all requests, then closes the queue. */
void zt_io_end_queue(struct zt_io *io);

#endif
