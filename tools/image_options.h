/* SPDX-License-Identifier: MIT */
/* -o NAME=VALUE: what an image is to be like, in QEMU's names. */
#ifndef ZT_IMAGE_OPTIONS_H
#define ZT_IMAGE_OPTIONS_H

#include "tool.h"

enum zt_image_option {
    ZT_O_SIZE,
    ZT_O_CLUSTER_SIZE,
    ZT_O_REFCOUNT_BITS,
    ZT_O_LAZY_REFCOUNTS,
    ZT_O_EXTENDED_L2,
    ZT_O_COMPRESSION,
    ZT_O_DATA_FILE,
    ZT_O_DATA_FILE_RAW,
    ZT_O_BACKING,
    ZT_O_BACKING_FORMAT,
    ZT_O_PREALLOCATION,
    ZT_O_COMPAT,
    ZT_O_MODE,
    ZT_O_ZONE_SIZE,
    ZT_O_CAPACITY,
    ZT_O_CONVENTIONAL,
    ZT_O_MAX_OPEN,
    ZT_O_MAX_ACTIVE,
    ZT_O_MAX_APPEND,
    ZT_O_DESCRIPTOR,
    ZT_O_LAYOUT,
    ZT_O_COUNT
};

/* For the help. */
#define ZT_IMAGE_OPTIONS \
    "    size                      of the device; also the operand SIZE\n" \
    "    cluster_size              512 to 2M; 64K\n" \
    "    refcount_bits             1, 2, 4 .. 64; 16\n" \
    "    lazy_refcounts            on or off; plain images only\n" \
    "    extended_l2               on or off; clusters of 16K or more\n" \
    "    compression_type          zlib or zstd; zlib\n" \
    "    data_file                 a file for the data, its name relative to FILE's folder\n" \
    "    data_file_raw             on or off; on: it can be used without FILE\n" \
    "    backing_file              also -b of create, and -B of convert\n" \
    "    backing_fmt               also -F\n" \
    "    preallocation             off, metadata, falloc or full; off\n" \
    "    compat                    0.10 or 1.1: version 2 or 3 of the format; 1.1\n" \
    "    zone.mode                 host-managed, or none\n" \
    "    zone.size                 a power of two; 256M\n" \
    "    zone.capacity             of a zone; zone.size\n" \
    "    zone.conventional_zones   at the start of the device; 0\n" \
    "    zone.max_open_zones       0: no limit\n" \
    "    zone.max_active_zones     0: no limit\n" \
    "    zone.max_append_bytes     layouts 48b, 56 and v7 only; 64K\n" \
    "    zone.descriptor_extension  64, 128 .. 16320 bytes; none\n" \
    "    zone.layout               44, 48b, 56 or v7; 44\n"

struct zt_image_options {
    bool list; /* -o help: of the options, and nothing else */
    bool given[ZT_O_COUNT];
    uint64_t value[ZT_O_COUNT];   /* of words: what they stand for */
    const char *text[ZT_O_COUNT]; /* of those that are neither numbers nor words */
};

/* Takes the value of -o, which it cuts up; false after reporting. */
bool zt_image_option_list(struct zt_image_options *set, char *list);
/* The operand SIZE may repeat what -o said. */
bool zt_image_size(struct zt_image_options *set, const char *text);
void zt_print_image_options(void);
/*
 * *value: what option `o` says if it is given. False after reporting that `flag`, which means the
 * same, says something, too.
 */
bool zt_image_text(const struct zt_image_options *set, enum zt_image_option o, const char *flag,
                   const char **value);
/* Reports that no backing file can be given; false. */
bool zt_image_alone(const struct zt_image_options *set, const char *verb);
/* Do the options ask for zones? */
bool zt_image_zoned(const struct zt_image_options *set);
/*
 * Bytes of a zone; 0: no zones. inherited: of a disk whose zones are taken where the options do not
 * say otherwise; 0: there is none.
 */
uint64_t zt_image_zone_size(const struct zt_image_options *set, uint64_t inherited);
/* Reports the first option that means nothing for an image without zones. */
bool zt_image_agrees(const struct zt_image_options *set, bool zoned);
/* What was not given is 0, the library's default. The caller adds flags and hooks. */
struct zqcow2_create_options zt_create_options(const struct zt_image_options *set);

#endif
