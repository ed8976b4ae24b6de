/* SPDX-License-Identifier: MIT */
/* Compressed clusters: bytes <-> values. The only user of zlib and libzstd. */
#ifndef ZQ_FORMAT_CODEC_H
#define ZQ_FORMAT_CODEC_H

#include "base/mem.h"

enum zq_compression { ZQ_ZLIB = 0, ZQ_ZSTD = 1 };

/*
 * Inflates exactly out_len bytes. ECORRUPT: anything else comes out; -ENOMEM. Memory through the
 * hooks. zstd windows above 4 MiB are refused. Trailing bytes of the last sector are ignored.
 */
int zq_decompress(const struct zqcow2_hooks *hooks, enum zq_compression type, const void *in,
                  size_t in_len, void *out, size_t out_len);
/*
 * Packs in_len bytes into at most out_len; *size: how many it took, 0: they do not fit. level:
 * zlib 1 to 9, zstd 1 to 22; 0: the default. -ENOMEM.
 * What QEMU can unpack: its inflate has a window of 4 KiB.
 */
int zq_compress(const struct zqcow2_hooks *hooks, enum zq_compression type, int level,
                const void *in, size_t in_len, void *out, size_t out_len, size_t *size);

#endif
