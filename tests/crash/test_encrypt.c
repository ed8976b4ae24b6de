/* SPDX-License-Identifier: MIT */
/*
 * The encrypting example as a backend: its cipher against OpenSSL's own over many sectors, the
 * sectors that map to zeros, and a file that holds nothing of what was written.
 */
#define main encrypt_example_main
#include "../../examples/encrypt.c"
#undef main
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

int encrypt_example_main(int argc, char **argv);

static unsigned char key[KEY_BYTES];

static struct crypt keyed(void)
{
    struct crypt c = {0};

    for (unsigned i = 0; i < KEY_BYTES; i++)
        key[i] = (unsigned char)(i * 11 + 3);
    memcpy(c.key, key, KEY_BYTES);
    return c;
}

/* What OpenSSL makes of the sector, without the rule about zeros. */
static void plain_xts(const unsigned char *from, uint64_t number, int encrypt, unsigned char *to)
{
    unsigned char tweak[16] = {(unsigned char)number, (unsigned char)(number >> 8),
                               (unsigned char)(number >> 16)};
    EVP_CIPHER_CTX *x = EVP_CIPHER_CTX_new();
    int n = 0;

    assert_non_null(x);
    assert_int_equal(EVP_CipherInit_ex(x, EVP_aes_256_xts(), NULL, key, tweak, encrypt), 1);
    assert_int_equal(EVP_CipherUpdate(x, to, &n, from, (int)SECTOR), 1);
    EVP_CIPHER_CTX_free(x);
}

static void sectors_one_by_one(void **state)
{
    const struct crypt c = keyed();
    unsigned char from[16 * SECTOR], to[sizeof(from)], back[sizeof(from)], want[SECTOR];
    uint64_t first = 70000;

    (void)state;
    for (size_t i = 0; i < sizeof(from); i++)
        from[i] = (unsigned char)(i * i / 7);
    memset(from + 3 * SECTOR, 0, SECTOR);
    assert_int_equal(transform(&c, true, to, from, sizeof(from), first * SECTOR), 0);
    assert_int_equal(transform(&c, false, back, to, sizeof(from), first * SECTOR), 0);
    assert_memory_equal(back, from, sizeof(from));
    for (unsigned i = 0; i < 16; i++) {
        plain_xts(from + i * SECTOR, first + i, 1, want);
        if (i == 3)
            assert_true(is_zeros(to + 3 * SECTOR));
        else
            assert_memory_equal(to + i * SECTOR, want, SECTOR);
    }
}

/* The plaintext whose ciphertext would be zeros is no hole, and comes back as it was. */
static void zeros_are_a_bijection(void **state)
{
    const struct crypt c = keyed();
    unsigned char zeros[SECTOR] = {0}, odd[SECTOR], to[SECTOR], back[SECTOR], want[SECTOR];

    (void)state;
    for (uint64_t number = 0; number < 70000; number += 9999) {
        plain_xts(zeros, number, 0, odd);
        plain_xts(odd, number, 1, to);
        assert_true(is_zeros(to)); /* the case is real */
        plain_xts(zeros, number, 1, want);
        assert_int_equal(transform(&c, true, to, odd, SECTOR, number * SECTOR), 0);
        assert_memory_equal(to, want, SECTOR);
        assert_int_equal(transform(&c, false, back, to, SECTOR, number * SECTOR), 0);
        assert_memory_equal(back, odd, SECTOR);
    }
}

/* ---- a file ---- */

#define SIZE (4u << 20)
static unsigned char data[SIZE], seen[SIZE];

/* Each sector begins with a text of its own, except some that are zeros. */
static void fill(void)
{
    for (size_t at = 0; at < SIZE; at += SECTOR) {
        if (at / SECTOR % 5 == 4)
            continue;
        snprintf((char *)data + at, SECTOR, "plaintext of sector %zu", at / SECTOR);
        memset(data + at + 64, (int)(at / SECTOR % 251) + 1, SECTOR - 64);
    }
}

static struct zqcow2_image *use(const char *path, bool create)
{
    struct zqcow2_create_options how = ZQCOW2_CREATE_OPTIONS_INIT;
    struct zqcow2_open_options opt = ZQCOW2_OPEN_OPTIONS_INIT;
    struct zqcow2_backend *be;
    struct zqcow2_image *img;

    assert_int_equal(crypt_open(path, ZQCOW2_FILE_RDWR | ZQCOW2_FILE_CREATE, key, &be), 0);
    how.virtual_size = SIZE;
    opt.flags = ZQCOW2_OPEN_RDWR;
    if (create)
        assert_int_equal(zqcow2_create(be, &how, NULL), 0);
    assert_int_equal(zqcow2_open(be, &opt, &img, NULL), 0);
    return img;
}

/* Uneven pieces: the ends of some are padded, so sectors are read, changed and written. */
static void write_pieces(struct zqcow2_image *img)
{
    for (size_t at = 0, n = 512; at < SIZE; at += n, n = n * 3 % 200192 / 512 * 512 + 512) {
        n = n < SIZE - at ? n : SIZE - at;
        assert_int_equal(zqcow2_write(img, data + at, n, at, 0), 0);
    }
    assert_int_equal(zqcow2_write_zeroes(img, 4096 + 512, 65536, 0), 0);
    memset(data + 65536, 0, 4096 + 512);
    assert_int_equal(zqcow2_write(img, data + 65536, 512, 65536, ZQCOW2_FUA), 0);
}

/* Neither a text of ours nor one of the format's. */
static void holds_no_plaintext(const char *path)
{
    static const char *const texts[] = {"plaintext", "sector", "QFI\xfb"};
    FILE *f = fopen(path, "rb");
    long len;
    char *all;

    assert_non_null(f);
    assert_int_equal(fseek(f, 0, SEEK_END), 0);
    len = ftell(f);
    assert_true(len > (long)SIZE / 2);
    rewind(f);
    all = malloc((size_t)len);
    assert_int_equal(fread(all, 1, (size_t)len, f), len);
    for (unsigned i = 0; i < 3; i++)
        assert_null(memmem(all, (size_t)len, texts[i], strlen(texts[i])));
    for (unsigned byte = 1; byte < 256; byte++) {
        char run[16];
        memset(run, (int)byte, sizeof(run));
        assert_null(memmem(all, (size_t)len, run, sizeof(run)));
    }
    free(all);
    fclose(f);
}

static void a_file(void **state)
{
    char folder[] = "/tmp/zq-encrypt-XXXXXX", path[64];
    struct zqcow2_image *img;
    struct zqcow2_backend *be;

    (void)state;
    (void)keyed();
    fill();
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof(path), "%s/image", folder);
    img = use(path, true);
    write_pieces(img);
    assert_int_equal(zqcow2_close(img), 0);
    holds_no_plaintext(path);
    img = use(path, false);
    assert_int_equal(zqcow2_read(img, seen, SIZE, 0), 0);
    assert_memory_equal(seen, data, SIZE);
    assert_int_equal(zqcow2_close(img), 0);
    key[5] ^= 1;
    assert_int_equal(crypt_open(path, 0, key, &be), 0);
    assert_true(zqcow2_open(be, NULL, &img, NULL) < 0);
    zqcow2_backend_close(be);
    unlink(path);
    rmdir(folder);
}

/* The file ends in whole sectors, and what truncate adds reads as zeros. */
static void grown_bytes_are_zeros(void **state)
{
    const struct crypt c = keyed();
    struct zqcow2_backend *inner, *be;
    unsigned char one[3 * SECTOR];
    uint64_t begin = 0, end = 0;

    (void)state;
    assert_int_equal(zqcow2_mem_open(0, NULL, &inner), 0);
    assert_int_equal(crypt_wrap(inner, c.key, &be), 0);
    memset(one, 7, sizeof(one));
    assert_int_equal(zqcow2_backend_write(be, one, SECTOR, 0), 0);
    assert_int_equal(zqcow2_backend_truncate(be, 8 * SECTOR), 0);
    assert_int_equal(zqcow2_backend_write(be, "x", 1, 5 * SECTOR + 9), 0);
    assert_int_equal(zqcow2_backend_zero(be, 0, SECTOR), 0);
    assert_int_equal(zqcow2_backend_read(be, one, sizeof(one), 0), 0);
    assert_true(is_zeros(one) && is_zeros(one + SECTOR) && is_zeros(one + 2 * SECTOR));
    assert_int_equal(zqcow2_backend_read(be, one, SECTOR, 5 * SECTOR), 0);
    assert_int_equal(one[9], 'x');
    one[9] = 0;
    assert_true(is_zeros(one));
    if (zqcow2_backend_data(be, 0, &begin, &end) == 0)
        assert_true(begin <= 5 * SECTOR && end >= 6 * SECTOR && !(begin % SECTOR));
    zqcow2_backend_close(be);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sectors_one_by_one), cmocka_unit_test(zeros_are_a_bijection),
        cmocka_unit_test(a_file), cmocka_unit_test(grown_bytes_are_zeros)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
