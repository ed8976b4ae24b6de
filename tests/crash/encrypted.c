/* SPDX-License-Identifier: MIT */
/*
 * The crash test over the encrypting example: compiled with the functions below renamed, so that
 * the library meets the simulated disk through that backend, and what looks into the disk itself,
 * as qemu-img does, gets the plaintext. Power is cut below the cipher.
 */
#undef zqcow2_simdisk_backend
#undef zqcow2_simdisk_export
#undef zqcow2_simdisk_import
#define main encrypt_example_main
#include "../../examples/encrypt.c"
#undef main
#include <zqcow2/simdisk.h>

int encrypt_example_main(int argc, char **argv);
int encrypted_backend(struct zqcow2_simdisk *disk, struct zqcow2_backend **be);
int encrypted_export(struct zqcow2_simdisk *disk, void *buf, size_t len, uint64_t off);
int encrypted_import(struct zqcow2_simdisk *disk, const void *buf, size_t len, uint64_t off);

static struct crypt the_key(void)
{
    struct crypt c = {0};

    for (unsigned i = 0; i < KEY_BYTES; i++)
        c.key[i] = (unsigned char)(i * 7 + 1);
    return c;
}

int encrypted_backend(struct zqcow2_simdisk *disk, struct zqcow2_backend **be)
{
    struct zqcow2_backend *inner;
    int rc = zqcow2_simdisk_backend(disk, &inner);

    if (rc == 0 && (rc = crypt_wrap(inner, the_key().key, be)) < 0)
        zqcow2_backend_close(inner);
    return rc;
}

/* Only whole sectors: the files that the test puts there and takes from there have no others. */
int encrypted_export(struct zqcow2_simdisk *disk, void *buf, size_t len, uint64_t off)
{
    const struct crypt c = the_key();
    int rc = (len | off) % SECTOR ? -EINVAL : zqcow2_simdisk_export(disk, buf, len, off);

    return rc < 0 ? rc : transform(&c, false, buf, buf, len, off);
}

int encrypted_import(struct zqcow2_simdisk *disk, const void *buf, size_t len, uint64_t off)
{
    const struct crypt c = the_key();
    size_t room = (len + SECTOR - 1) / SECTOR * SECTOR;
    unsigned char *copy = calloc(1, room + SECTOR);
    int rc = !copy ? -ENOMEM : off % SECTOR ? -EINVAL : 0;

    if (rc == 0) {
        memcpy(copy, buf, len);
        rc = transform(&c, true, copy, copy, room, off);
    }
    if (rc == 0)
        rc = zqcow2_simdisk_import(disk, copy, room, off);
    free(copy);
    return rc;
}
