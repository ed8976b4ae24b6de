/* SPDX-License-Identifier: MIT */
/* Inflates and deflates compressed clusters, with every byte of memory from the caller's hooks. */
#include "format/codec.h"

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <zlib.h>
#define ZSTD_STATIC_LINKING_ONLY /* custom memory, frame header */
#include <zstd.h>
#include <zstd_errors.h>

#include "base/bytes.h"

#define ZSTD_WINDOW_LOG 22 /* 4 MiB: what a hostile frame can make the decoder allocate */

/* ---- memory: both libraries free without a size, the hooks want one ---- */

#define HEAD _Alignof(max_align_t)

/* The size lies in front of what is returned, in room that keeps the alignment of HEAD. */
static void *lib_alloc(void *hooks, size_t size)
{
    size_t total = size + HEAD;
    char *p = total < size ? NULL : zq_alloc(hooks, HEAD, total);

    if (!p)
        return NULL;
    memcpy(p, &total, sizeof(total));
    return p + HEAD;
}

static void lib_free(void *hooks, void *ptr)
{
    size_t total;
    char *p;

    if (!ptr)
        return;
    p = (char *)ptr - HEAD;
    memcpy(&total, p, sizeof(total));
    zq_free(hooks, p, total);
}

static voidpf zlib_alloc(voidpf hooks, uInt items, uInt size)
{
    return lib_alloc(hooks, (size_t)items * size);
}

static void zlib_free(voidpf hooks, voidpf p)
{
    lib_free(hooks, p);
}

/* ---- zlib: a raw deflate stream ---- */

/*
 * The cluster is there. Nothing more may follow in the stream, but its end mark may be cut off:
 * the format says that decoding stops when the cluster is full.
 */
static int inflate_rest(z_stream *z)
{
    uint8_t extra;

    z->next_out = &extra;
    z->avail_out = 1;
    (void)inflate(z, Z_FINISH);
    return z->avail_out ? 0 : ZQCOW2_ECORRUPT;
}

static int inflate_cluster(z_stream *z)
{
    int rc = inflate(z, Z_FINISH);

    if (rc == Z_MEM_ERROR)
        return -ENOMEM;
    if (z->avail_out)
        return ZQCOW2_ECORRUPT;
    return rc == Z_STREAM_END ? 0 : inflate_rest(z);
}

/* -15: a window of 32 KiB and no zlib header (qcow2 specification, compressed clusters). */
static int unzlib(struct zqcow2_hooks *hooks, const void *in, size_t in_len, void *out,
                  size_t out_len)
{
    z_stream z = {.zalloc = zlib_alloc, .zfree = zlib_free, .opaque = hooks};
    int rc;

    z.next_in = (z_const Bytef *)in;
    z.avail_in = (uInt)in_len;
    z.next_out = out;
    z.avail_out = (uInt)out_len;
    rc = inflateInit2(&z, -15);
    if (rc != Z_OK)
        return rc == Z_MEM_ERROR ? -ENOMEM : ZQCOW2_ECORRUPT;
    rc = inflate_cluster(&z);
    inflateEnd(&z);
    return rc;
}

/* ---- zstd: one or more frames ---- */

static int zstd_rc(size_t code)
{
    return ZSTD_getErrorCode(code) == ZSTD_error_memory_allocation ? -ENOMEM : ZQCOW2_ECORRUPT;
}

/* Asked for each frame before the decoder sees it: the decoder allocates what the header claims. */
static bool window_ok(const ZSTD_inBuffer *in)
{
    ZSTD_frameHeader fh;
    size_t rc = ZSTD_getFrameHeader(&fh, (const char *)in->src + in->pos, in->size - in->pos);

    return rc == 0 && fh.windowSize <= (uint64_t)1 << ZSTD_WINDOW_LOG;
}

/* Decodes until out is full or the input is used up; *open: a frame has not ended. */
static int zstd_fill(ZSTD_DCtx *d, ZSTD_inBuffer *in, ZSTD_outBuffer *out, bool *open)
{
    while (out->pos < out->size) {
        size_t before_in = in->pos, before_out = out->pos, rc;

        if (!*open && !window_ok(in))
            return ZQCOW2_ECORRUPT;
        rc = ZSTD_decompressStream(d, out, in);
        if (ZSTD_isError(rc))
            return zstd_rc(rc);
        *open = rc != 0;
        /* No progress: the input has ended too early. Without this the loop would not end. */
        if (in->pos == before_in && out->pos == before_out)
            return ZQCOW2_ECORRUPT;
    }
    return 0;
}

static int zstd_cluster(ZSTD_DCtx *d, ZSTD_inBuffer *in, ZSTD_outBuffer *out)
{
    char extra;
    ZSTD_outBuffer more = {&extra, 1, 0};
    bool open = false;
    size_t code;
    int rc;

    code = ZSTD_DCtx_setParameter(d, ZSTD_d_windowLogMax, ZSTD_WINDOW_LOG);
    if (ZSTD_isError(code))
        return zstd_rc(code);
    rc = zstd_fill(d, in, out, &open);
    if (rc < 0 || !open)
        return rc;
    /* The frame goes on: with its checksum or an empty block, but not with data. */
    code = ZSTD_decompressStream(d, &more, in);
    if (ZSTD_isError(code))
        return zstd_rc(code);
    return more.pos ? ZQCOW2_ECORRUPT : 0;
}

/* One context for each cluster: nothing keeps its memory from one read to the next. */
static int unzstd(struct zqcow2_hooks *hooks, const void *in, size_t in_len, void *out,
                  size_t out_len)
{
    ZSTD_customMem mem = {lib_alloc, lib_free, hooks};
    ZSTD_inBuffer ib = {in, in_len, 0};
    ZSTD_outBuffer ob = {out, out_len, 0};
    ZSTD_DCtx *d = ZSTD_createDCtx_advanced(mem);
    int rc;

    if (!d)
        return -ENOMEM;
    rc = zstd_cluster(d, &ib, &ob);
    ZSTD_freeDCtx(d);
    return rc;
}

/* zlib counts in 32 bits; no cluster is longer than that. */
int zq_decompress(const struct zqcow2_hooks *hooks, enum zq_compression type, const void *in,
                  size_t in_len, void *out, size_t out_len)
{
    struct zqcow2_hooks h = *hooks; /* the libraries want a pointer that is not const */

    if (in_len > UINT32_MAX || out_len > UINT32_MAX)
        return ZQCOW2_ECORRUPT;
    return type == ZQ_ZLIB ? unzlib(&h, in, in_len, out, out_len) :
                             unzstd(&h, in, in_len, out, out_len);
}

/* ---- the other way ---- */

#define ZLIB_WINDOW_LOG 12 /* QEMU unpacks with this one */
#define ZLIB_MEM_LEVEL  9

static int deflate_cluster(z_stream *z, size_t *size)
{
    int rc = deflate(z, Z_FINISH);

    if (rc == Z_STREAM_END)
        *size = z->total_out;
    return rc == Z_MEM_ERROR ? -ENOMEM : 0;
}

static int zlib_pack(struct zqcow2_hooks *hooks, int level, const void *in, size_t in_len,
                     void *out, size_t out_len, size_t *size)
{
    z_stream z = {.zalloc = zlib_alloc, .zfree = zlib_free, .opaque = hooks};
    int rc = deflateInit2(&z, level ? level : Z_DEFAULT_COMPRESSION, Z_DEFLATED, -ZLIB_WINDOW_LOG,
                          ZLIB_MEM_LEVEL, Z_DEFAULT_STRATEGY);

    if (rc != Z_OK)
        return -ENOMEM; /* the parameters are right */
    z.next_in = (z_const Bytef *)in;
    z.avail_in = (uInt)in_len;
    z.next_out = out;
    z.avail_out = (uInt)out_len;
    rc = deflate_cluster(&z, size);
    deflateEnd(&z);
    return rc;
}

/* What the encoder cannot do within out_len is no error: the cluster stays as it is. */
static int zstd_pack(struct zqcow2_hooks *hooks, int level, const void *in, size_t in_len,
                     void *out, size_t out_len, size_t *size)
{
    ZSTD_customMem mem = {lib_alloc, lib_free, hooks};
    ZSTD_CCtx *ctx = ZSTD_createCCtx_advanced(mem);
    size_t code;

    if (!ctx)
        return -ENOMEM;
    (void)ZSTD_CCtx_setParameter(ctx, ZSTD_c_compressionLevel, level); /* 0: the default */
    code = ZSTD_compress2(ctx, out, out_len, in, in_len);
    ZSTD_freeCCtx(ctx);
    if (!ZSTD_isError(code))
        *size = code;
    return ZSTD_getErrorCode(code) == ZSTD_error_memory_allocation ? -ENOMEM : 0;
}

int zq_compress(const struct zqcow2_hooks *hooks, enum zq_compression type, int level,
                const void *in, size_t in_len, void *out, size_t out_len, size_t *size)
{
    struct zqcow2_hooks h = *hooks;

    *size = 0;
    if (in_len > UINT32_MAX || !out_len)
        return 0;
    return type == ZQ_ZLIB ? zlib_pack(&h, level, in, in_len, out, out_len, size) :
                             zstd_pack(&h, level, in, in_len, out, out_len, size);
}
