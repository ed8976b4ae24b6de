/* SPDX-License-Identifier: MIT */
/*
 * What convert writes: a raw file or an image, under a name of its own until it is complete, or a
 * device.
 */
#ifndef ZT_MOVE_OUTPUT_H
#define ZT_MOVE_OUTPUT_H

#include "disk.h"

struct zt_output {
    struct zt_target target;   /* its path as it was given */
    const char *verb;          /* that is running */
    struct zqcow2_image *img;  /* NULL: raw */
    struct zqcow2_backend *be; /* raw */
    struct zt_device *dev;     /* raw: its zones; NULL: it has none */
    struct zqcow2_info info;   /* raw: virtual_size only; dev: its zones, too */
    uint8_t *zeros;            /* of dev, ZT_ZEROS bytes */
    struct zt_replacement file;
    bool anew;    /* the caller's: a new file takes the name, or nothing is written */
    bool renamed; /* `file` takes the name at the end */
    bool changed; /* what was at the place before may be so no more */
    bool resumed; /* a part of it was there; file.keep: it may be resumed */
    bool taken;   /* it was there, and is written in place */
    bool stale;   /* holds other bytes than zeros where nothing was written */
};

#define ZT_ZEROS (1u << 20) /* bytes of zeros that are written at a time */

/*
 * Makes a raw file of `size` bytes, or the image of `opt` if that is not NULL. What exists is
 * written over only if `force`. False after reporting, and nothing is left.
 */
bool zt_output_open(struct zt_output *o, const struct zqcow2_create_options *opt, uint64_t size,
                    bool force);
/*
 * Takes what is there, which must have `size` bytes or more and no zones; none of it is kept. False
 * after reporting, and nothing was written.
 */
bool zt_output_take(struct zt_output *o, bool image, uint64_t size);
/*
 * Takes a block device, which must have the zones of `from`; what it holds must be nothing, unless
 * `force`, which resets it, or `resume`: a part of `from`, which is written from there on.
 */
bool zt_output_device(struct zt_output *o, struct zt_disk *from, bool force, bool resume);
/* Makes everything durable and gives it its name; unless `ok`, removes it. False after reporting.
 */
bool zt_output_close(struct zt_output *o, bool ok);
bool zt_output_zoned(const struct zt_output *o);
/* compress: of whole clusters those are compressed; the rest of it is not. */
int zt_output_write(struct zt_output *o, const void *buf, size_t len, uint64_t off, bool compress);
/* Zeros in front of the write pointer of a zone. */
int zt_output_zeroes(struct zt_output *o, uint64_t len, uint64_t off);
int zt_output_report(struct zt_output *o, uint64_t off, struct zqcow2_zone *zones, uint32_t *nr);
/* Makes zone z, of which all is written, full if it is to be, else closed if a device says `open`.
 */
int zt_output_end_zone(struct zt_output *o, const struct zqcow2_zone *z, bool full);
/* Of a target without zones that is resumed: all in front of this byte has been written. */
int zt_output_reached(struct zt_output *o, uint64_t *off);
/* Where nothing was written: makes it read as zeros, if it does not already. */
int zt_output_skip(struct zt_output *o, uint64_t len, uint64_t off);

#endif
