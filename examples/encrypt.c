/* SPDX-License-Identifier: MIT */
/*
 * A backend that stands on another one and encrypts: AES-256-XTS, as disks use it, on the library's
 * io_uring backend. encrypt [KEY IMAGE] makes an image in the file IMAGE, uses it, and shows that
 * the file holds no plaintext. KEY is a file of 64 random bytes; it is made if it is missing.
 *
 * The unit is a sector of 512 bytes, the tweak its number in the file. A crash tears writes between
 * sectors and never inside one, so each sector is whole, before a crash and after it.
 *
 * A sector of zeros is stored as zeros. So holes, bytes that truncate adds, and ranges that zero,
 * allocate or discard have cleared read as zeros, as the library relies on, and these calls can be
 * passed on. To stay a bijection, the one other sector whose ciphertext would be zeros takes the
 * ciphertext that zeros would have had. The price: the file shows which sectors are zeros. As
 * with any XTS it also shows which have changed, and nobody checks that it is what was written.
 */
#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <openssl/rand.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zqcow2/backend.h>

#define SECTOR    512u
#define KEY_BYTES 64u /* AES-256-XTS takes two keys */
#define ZONE      ((uint64_t)1 << 20)

struct crypt {
    struct zqcow2_backend *in;
    unsigned char key[KEY_BYTES];
};

/* ---- the cipher ---- */

static bool is_zeros(const unsigned char *p)
{
    return !p[0] && !memcmp(p, p + 1, SECTOR - 1);
}

/* One sector, in place or not; tweak: the number of the sector, little-endian. */
static bool cipher(EVP_CIPHER_CTX *x, unsigned char *to, const unsigned char *from, uint64_t number)
{
    unsigned char tweak[16] = {0};
    int n = 0;

    for (int i = 0; i < 8; i++)
        tweak[i] = (unsigned char)(number >> 8 * i);
    return EVP_CipherInit_ex(x, NULL, NULL, NULL, tweak, -1) &&
           EVP_CipherUpdate(x, to, &n, from, (int)SECTOR) && n == (int)SECTOR;
}

/* Whole sectors of the file, from offset off on. A context costs less than a lock on one would. */
static int transform(const struct crypt *c, bool encrypt, unsigned char *to,
                     const unsigned char *from, size_t len, uint64_t off)
{
    EVP_CIPHER_CTX *x = EVP_CIPHER_CTX_new();
    bool good = x && EVP_CipherInit_ex(x, EVP_aes_256_xts(), NULL, c->key, NULL, encrypt);

    for (size_t at = 0; good && at < len; at += SECTOR) {
        uint64_t number = (off + at) / SECTOR;
        bool zeros = is_zeros(from + at);

        if (!zeros)
            good = cipher(x, to + at, from + at, number);
        if (zeros)
            memset(to + at, 0, SECTOR);
        else if (good && is_zeros(to + at)) /* once more around: see above */
            good = cipher(x, to + at, to + at, number);
    }
    EVP_CIPHER_CTX_free(x);
    return good ? 0 : -ENOMEM;
}

/* buf_align makes each element whole sectors. */
static int decrypt_all(const struct crypt *c, const struct iovec *iov, uint32_t cnt, uint64_t off)
{
    int rc = 0;

    for (uint32_t i = 0; rc == 0 && i < cnt; off += iov[i++].iov_len)
        rc = transform(c, false, iov[i].iov_base, iov[i].iov_base, iov[i].iov_len, off);
    return rc;
}

/* In memory of our own, in one piece: the caller's bytes must not change. NULL: no memory. */
static unsigned char *encrypted(const struct crypt *c, const struct iovec *iov, uint32_t cnt,
                                uint64_t off, size_t *len)
{
    unsigned char *buf;
    size_t at = 0;
    int rc = 0;

    *len = 0;
    for (uint32_t i = 0; i < cnt; i++)
        *len += iov[i].iov_len;
    buf = aligned_alloc(4096, (*len + 4095) & ~(size_t)4095);
    if (!buf)
        return NULL;
    for (uint32_t i = 0; rc == 0 && i < cnt; at += iov[i++].iov_len)
        rc = transform(c, true, buf + at, iov[i].iov_base, iov[i].iov_len, off + at);
    if (rc == 0)
        return buf;
    free(buf);
    return NULL;
}

/* ---- blocking calls ---- */

static struct zqcow2_backend *in(void *self)
{
    return ((struct crypt *)self)->in;
}

static void crypt_close(void *self)
{
    zqcow2_backend_close(in(self));
    OPENSSL_cleanse(self, sizeof(struct crypt));
    free(self);
}

static int crypt_length(void *self, uint64_t *bytes)
{
    return zqcow2_backend_length(in(self), bytes);
}

static int crypt_readv(void *self, const struct iovec *iov, int cnt, uint64_t off)
{
    int rc = zqcow2_backend_readv(in(self), iov, cnt, off);

    return rc < 0 ? rc : decrypt_all(self, iov, (uint32_t)cnt, off);
}

static int crypt_writev(void *self, const struct iovec *iov, int cnt, uint64_t off)
{
    struct iovec one;
    int rc = -ENOMEM;

    one.iov_base = encrypted(self, iov, (uint32_t)cnt, off, &one.iov_len);
    if (one.iov_base)
        rc = zqcow2_backend_writev(in(self), &one, 1, off);
    free(one.iov_base);
    return rc;
}

static int crypt_flush(void *self)
{
    return zqcow2_backend_flush(in(self));
}

/* What is below is met as well: all numbers are powers of two, atomic_write is 512 at least. */
static int crypt_limits(void *self, struct zqcow2_limits *out)
{
    int rc = zqcow2_backend_limits(in(self), out);

    out->io_align = out->io_align > SECTOR ? out->io_align : SECTOR;
    out->buf_align = out->buf_align > SECTOR ? out->buf_align : SECTOR;
    return rc;
}

static int crypt_truncate(void *self, uint64_t bytes)
{
    return zqcow2_backend_truncate(in(self), bytes);
}

static int crypt_discard(void *self, uint64_t off, uint64_t len)
{
    return zqcow2_backend_discard(in(self), off, len);
}

static int crypt_zero(void *self, uint64_t off, uint64_t len)
{
    return zqcow2_backend_zero(in(self), off, len);
}

static int crypt_allocate(void *self, uint64_t off, uint64_t len)
{
    return zqcow2_backend_allocate(in(self), off, len);
}

/* A byte that is not zero makes its whole sector something else. */
static int crypt_data(void *self, uint64_t off, uint64_t *begin, uint64_t *end)
{
    int rc = zqcow2_backend_data(in(self), off, begin, end);

    if (rc == 0 && *begin < *end) {
        *begin -= *begin % SECTOR;
        *begin = *begin > off ? *begin : off;
        *end += (SECTOR - *end % SECTOR) % SECTOR;
    }
    return rc;
}

static int crypt_lock(void *self, int mode)
{
    return zqcow2_backend_lock(in(self), mode);
}

static void crypt_invalidate(void *self)
{
    zqcow2_backend_invalidate(in(self));
}

/* ---- asynchronous calls ---- */

/* A read or a write below one of the library's. */
struct below {
    struct zqcow2_io io; /* first, so that done() finds the rest */
    struct zqcow2_io *above;
    const struct crypt *c;
    struct iovec one; /* a write's bytes, freed with it */
};

static void below_free(struct below *b)
{
    free(b->one.iov_base);
    free(b);
}

/* In the thread that submits, kicks or polls. */
static void below_done(struct zqcow2_io *io, int ret)
{
    struct below *b = (struct below *)io;
    struct zqcow2_io *above = b->above;

    if (ret == 0 && io->kind == ZQCOW2_IO_READ)
        ret = decrypt_all(b->c, io->iov, io->iovcnt, io->offset);
    below_free(b);
    zqcow2_io_done(above, ret);
}

static struct below *below_new(const struct crypt *c, struct zqcow2_io *above)
{
    struct below *b = calloc(1, sizeof(*b));

    if (!b)
        return NULL;
    b->above = above;
    b->c = c;
    b->io.kind = above->kind;
    b->io.offset = above->offset;
    b->io.length = above->length;
    b->io.done = below_done;
    b->io.iov = above->iov;
    b->io.iovcnt = above->iovcnt;
    if (above->kind == ZQCOW2_IO_READ)
        return b; /* it arrives in the caller's memory, and is decrypted there */
    b->one.iov_base = encrypted(c, above->iov, above->iovcnt, above->offset, &b->one.iov_len);
    b->io.iov = &b->one;
    b->io.iovcnt = 1;
    if (b->one.iov_base)
        return b;
    free(b);
    return NULL;
}

/* What has no bytes is passed on as it is, and completes without us. */
static int crypt_submit(void *self, struct zqcow2_io *io)
{
    struct crypt *c = self;
    struct below *b;
    int rc;

    if (io->kind != ZQCOW2_IO_READ && io->kind != ZQCOW2_IO_WRITE)
        return zqcow2_backend_submit(c->in, io);
    b = below_new(c, io);
    if (!b)
        return -ENOMEM;
    rc = zqcow2_backend_submit(c->in, &b->io);
    if (rc < 0)
        below_free(b);
    return rc;
}

static void crypt_kick(void *self)
{
    zqcow2_backend_kick(in(self));
}

static void crypt_wake(void *self)
{
    zqcow2_backend_wake(in(self));
}

static int crypt_poll(void *self, int timeout_ms)
{
    return zqcow2_backend_poll(in(self), timeout_ms);
}

static int crypt_fd(void *self)
{
    return zqcow2_backend_fd(in(self));
}

/* ---- making one ---- */

/* The calls that the inner backend has: one that is missing has a meaning. */
static struct zqcow2_backend_ops table_over(const struct zqcow2_backend_ops *t)
{
    return (struct zqcow2_backend_ops){
        .size = sizeof(struct zqcow2_backend_ops),
        .name = "encrypt",
        .close = crypt_close,
        .length = crypt_length,
        .readv = crypt_readv,
        .writev = t->writev ? crypt_writev : NULL,
        .flush = crypt_flush,
        .limits = crypt_limits,
        .truncate = t->truncate ? crypt_truncate : NULL,
        .discard = t->discard ? crypt_discard : NULL,
        .zero = t->zero ? crypt_zero : NULL,
        .lock = crypt_lock,
        .invalidate = crypt_invalidate,
        .submit = t->submit ? crypt_submit : NULL,
        .kick = crypt_kick,
        .wake = t->poll ? crypt_wake : NULL,
        .poll = t->poll ? crypt_poll : NULL,
        .fd = t->poll ? crypt_fd : NULL,
        .allocate = t->allocate ? crypt_allocate : NULL,
        .data = t->data ? crypt_data : NULL,
    };
}

/* On success the new backend owns inner. */
static int crypt_wrap(struct zqcow2_backend *inner, const unsigned char *key,
                      struct zqcow2_backend **be)
{
    struct zqcow2_backend_ops ops = table_over(zqcow2_backend_table(inner));
    struct crypt *c = calloc(1, sizeof(*c));
    int rc = c ? zqcow2_backend_claim(inner) : -ENOMEM;

    if (rc == 0) {
        c->in = inner;
        memcpy(c->key, key, KEY_BYTES);
        rc = zqcow2_backend_new(&ops, c, NULL, be);
        if (rc == 0)
            return 0;
        zqcow2_backend_release(inner);
        OPENSSL_cleanse(c, sizeof(*c));
    }
    free(c);
    return rc;
}

/* A kernel may forbid io_uring; then threads do. */
static int inner_open(const char *path, unsigned flags, struct zqcow2_backend **be)
{
    struct zqcow2_backend *file;
    int rc = zqcow2_uring_open(path, flags, NULL, be);

    if (rc != -ENOSYS && rc != -EPERM)
        return rc;
    rc = zqcow2_file_open(path, flags, NULL, &file);
    if (rc == 0 && (rc = zqcow2_threads_wrap(file, 4, NULL, be)) < 0)
        zqcow2_backend_close(file);
    return rc;
}

static int crypt_open(const char *path, unsigned flags, const unsigned char *key,
                      struct zqcow2_backend **be)
{
    struct zqcow2_backend *inner;
    int rc = inner_open(path, flags, &inner);

    if (rc == 0 && (rc = crypt_wrap(inner, key, be)) < 0)
        zqcow2_backend_close(inner);
    return rc;
}

/* ---- a trial ---- */

/* A key that is lost is the data lost: it is durable before anything is written with it. */
static int make_key(const char *path, unsigned char *key)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600), rc = 0;

    if (fd < 0)
        return -errno;
    if (RAND_bytes(key, KEY_BYTES) != 1)
        rc = -EIO;
    else if (write(fd, key, KEY_BYTES) != (ssize_t)KEY_BYTES || fsync(fd) < 0)
        rc = errno ? -errno : -EIO;
    return close(fd) < 0 && rc == 0 ? -errno : rc;
}

/* Exactly 64 bytes, of two halves that differ: XTS is unsafe otherwise. */
static int read_key(const char *path, unsigned char *key)
{
    unsigned char more[KEY_BYTES + 1] = {0};
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n;

    if (fd < 0)
        return errno == ENOENT ? make_key(path, key) : -errno;
    n = read(fd, more, sizeof(more));
    close(fd);
    memcpy(key, more, KEY_BYTES);
    OPENSSL_cleanse(more, sizeof(more));
    return n == (ssize_t)KEY_BYTES && memcmp(key, key + KEY_BYTES / 2, KEY_BYTES / 2) ? 0 : -EINVAL;
}

static const char secret[] = "what nobody else may read";

static int make_image(const char *path, const unsigned char *key)
{
    static char data[65536];
    struct zqcow2_create_options how = ZQCOW2_CREATE_OPTIONS_INIT;
    struct zqcow2_open_options opt = ZQCOW2_OPEN_OPTIONS_INIT;
    struct zqcow2_backend *be;
    struct zqcow2_image *img;
    uint64_t where = ZONE;
    int rc = crypt_open(path, ZQCOW2_FILE_RDWR | ZQCOW2_FILE_CREATE, key, &be), closed;

    if (rc)
        return rc;
    for (size_t at = 0; at < sizeof(data); at += SECTOR)
        memcpy(data + at, secret, sizeof(secret));
    how.virtual_size = 64 * ZONE;
    how.zone_size = ZONE;
    opt.flags = ZQCOW2_OPEN_RDWR;
    if ((rc = zqcow2_create(be, &how, NULL)) || (rc = zqcow2_open(be, &opt, &img, NULL))) {
        zqcow2_backend_close(be);
        return rc;
    }
    rc = zqcow2_append(img, data, sizeof(data), &where, ZQCOW2_FUA);
    closed = zqcow2_close(img); /* closes both backends, too */
    return rc ? rc : closed;
}

/* With the key the first sector has the secret; with another one the file is no image. */
static int look(const char *path, const unsigned char *key, char *sector)
{
    struct zqcow2_backend *be;
    struct zqcow2_image *img;
    int rc = crypt_open(path, 0, key, &be);

    if (rc)
        return rc;
    rc = zqcow2_open(be, NULL, &img, NULL);
    if (rc) {
        zqcow2_backend_close(be);
        return rc;
    }
    rc = zqcow2_read(img, sector, SECTOR, ZONE);
    return zqcow2_close(img) || rc;
}

/* Does the file hold the secret, or that it is an image? */
static bool betrays(const char *path)
{
    static char buf[1 << 20];
    FILE *f = fopen(path, "rb");
    size_t n = f ? fread(buf, 1, sizeof(buf), f) : 0;
    bool found = n < sizeof(secret);

    if (f)
        fclose(f);
    for (size_t at = 0; at + sizeof(secret) <= n; at++)
        found =
            found || !memcmp(buf + at, secret, sizeof(secret)) || !memcmp(buf + at, "QFI\xfb", 4);
    return found;
}

static int fail(const char *what, int rc)
{
    fprintf(stderr, "%s: %s\n", what, zqcow2_strerror(rc));
    return 1;
}

static int trial(const char *key_path, const char *path)
{
    unsigned char key[KEY_BYTES];
    char sector[SECTOR];
    int rc = read_key(key_path, key);

    if (rc)
        return fail(key_path, rc);
    if ((rc = make_image(path, key)) || (rc = look(path, key, sector)))
        return fail(path, rc);
    if (strcmp(sector, secret) || betrays(path))
        return fail("not what was written", -EIO);
    key[0] ^= 1;
    if (look(path, key, sector) == 0)
        return fail("another key opens it", -EIO);
    printf("%s is readable with %s only\n", path, key_path);
    return 0;
}

int main(int argc, char **argv)
{
    char key[64], image[64], folder[] = "/tmp/zqcow2-encrypt-XXXXXX";
    int rc;

    if (argc == 3)
        return trial(argv[1], argv[2]);
    if (argc != 1 || !mkdtemp(folder)) {
        fprintf(stderr, "usage: encrypt [KEY IMAGE]\n");
        return 2;
    }
    snprintf(key, sizeof(key), "%s/key", folder);
    snprintf(image, sizeof(image), "%s/image", folder);
    rc = trial(key, image);
    unlink(key);
    unlink(image);
    rmdir(folder);
    return rc;
}
