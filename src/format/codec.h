/* SPDX-License-Identifier: MIT */
/* L2 entries and compressed clusters: bytes <-> values. The only user of zlib and libzstd. */
#ifndef ZQ_FORMAT_CODEC_H
#define ZQ_FORMAT_CODEC_H

#include "base/mem.h"

#define ZQ_OFLAG_COPIED     ((uint64_t)1 << 63)
#define ZQ_OFLAG_COMPRESSED ((uint64_t)1 << 62)
#define ZQ_OFLAG_ZERO       ((uint64_t)1 << 0)
/* Bits 9-55: where a cluster of the file begins. */
#define ZQ_OFFSET_MASK 0x00fffffffffffe00ull

enum zq_compression { ZQ_ZLIB = 0, ZQ_ZSTD = 1 };

/* The byte range of a compressed cluster, from its L2 entry (bit 62 set). len: whole sectors. */
void zq_compressed_range(uint64_t l2_entry, uint32_t cluster_bits, uint64_t *host, uint64_t *len);
/*
 * Inflates exactly out_len bytes. ECORRUPT: anything else comes out; -ENOMEM. Memory through the
 * hooks. zstd windows above 4 MiB are refused. Trailing bytes of the last sector are ignored.
 */
int zq_decompress(const struct zqcow2_hooks *hooks, enum zq_compression type, const void *in,
                  size_t in_len, void *out, size_t out_len);

#endif
