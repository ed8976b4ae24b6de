/* SPDX-License-Identifier: MIT */
#include "store.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PAGE 4096u

struct page {
    unsigned refs;
    uint8_t bytes[PAGE];
};

void *need(void *ptr)
{
    if (!ptr) {
        fprintf(stderr, "powercut: out of memory\n");
        exit(2);
    }
    return ptr;
}

uint64_t mix(uint64_t *state)
{
    uint64_t z = (*state += 0x9e3779b97f4a7c15u);

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

uint64_t below(uint64_t *state, uint64_t n)
{
    return mix(state) % n;
}

int odds(uint64_t *state, uint64_t n)
{
    return below(state, n) == 0;
}

static void drop(struct page **slot)
{
    if (*slot && --(*slot)->refs == 0)
        free(*slot);
    *slot = NULL;
}

void store_free(struct store *s)
{
    for (size_t i = 0; i < s->pages; i++)
        drop(&s->map[i]);
    free(s->map);
    *s = (struct store){NULL, 0, 0};
}

static void grow(struct store *s, size_t pages)
{
    if (pages <= s->pages)
        return;
    pages += pages / 4;
    s->map = need(realloc(s->map, pages * sizeof(*s->map)));
    memset(s->map + s->pages, 0, (pages - s->pages) * sizeof(*s->map));
    s->pages = pages;
}

void store_copy(struct store *to, const struct store *from)
{
    struct store s = {NULL, 0, from->size};

    grow(&s, from->pages ? from->pages : 1);
    for (size_t i = 0; i < from->pages; i++) {
        s.map[i] = from->map[i];
        if (s.map[i])
            s.map[i]->refs++;
    }
    store_free(to);
    *to = s;
}

void store_read(const struct store *s, void *buf, size_t len, uint64_t off)
{
    uint8_t *out = buf;

    while (len) {
        size_t at = off % PAGE, n = PAGE - at < len ? PAGE - at : len;
        const struct page *p = off / PAGE < s->pages ? s->map[off / PAGE] : NULL;

        if (p)
            memcpy(out, p->bytes + at, n);
        else
            memset(out, 0, n);
        out += n;
        off += n;
        len -= n;
    }
}

int store_hole(const struct store *s, uint64_t off)
{
    return off / PAGE >= s->pages || !s->map[off / PAGE];
}

/* The page that holds off, for writing: the store's own. */
static struct page *own(struct store *s, uint64_t off)
{
    struct page **slot, *p;

    grow(s, (size_t)(off / PAGE) + 1);
    slot = &s->map[off / PAGE];
    if (*slot && (*slot)->refs == 1)
        return *slot;
    p = need(calloc(1, sizeof(*p)));
    if (*slot)
        memcpy(p->bytes, (*slot)->bytes, PAGE);
    p->refs = 1;
    drop(slot);
    return *slot = p;
}

void store_write(struct store *s, const void *buf, size_t len, uint64_t off)
{
    const uint8_t *in = buf;

    if (len && off + len > s->size)
        s->size = off + len;
    while (len) {
        size_t at = off % PAGE, n = PAGE - at < len ? PAGE - at : len;

        memcpy(own(s, off)->bytes + at, in, n);
        in += n;
        off += n;
        len -= n;
    }
}

void store_fill(struct store *s, int byte, uint64_t len, uint64_t off)
{
    if (len && off + len > s->size)
        s->size = off + len;
    while (len) {
        size_t at = off % PAGE, n = PAGE - at < len ? PAGE - at : (size_t)len;

        if (!byte && (off / PAGE >= s->pages || !s->map[off / PAGE]))
            ;
        else if (!byte && n == PAGE)
            drop(&s->map[off / PAGE]);
        else
            memset(own(s, off)->bytes + at, byte, n);
        off += n;
        len -= n;
    }
}

void store_resize(struct store *s, uint64_t size)
{
    uint64_t old = s->size;

    if (size < old)
        store_fill(s, 0, old - size, size);
    s->size = size;
}

uint64_t get_be(const struct store *s, uint64_t off, unsigned bytes)
{
    uint8_t raw[8];
    uint64_t value = 0;

    store_read(s, raw, bytes, off);
    for (unsigned i = 0; i < bytes; i++)
        value = value << 8 | raw[i];
    return value;
}

void put_be(struct store *s, uint64_t off, unsigned bytes, uint64_t value)
{
    uint8_t raw[8];

    for (unsigned i = bytes; i-- > 0; value >>= 8)
        raw[i] = (uint8_t)value;
    store_write(s, raw, bytes, off);
}

void store_save(const struct store *s, const char *path)
{
    static const uint8_t none[PAGE];
    uint8_t buf[PAGE];
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);

    if (fd < 0 || ftruncate(fd, (off_t)s->size)) {
        perror(path);
        exit(2);
    }
    for (uint64_t off = 0; off < s->size; off += PAGE) {
        size_t n = s->size - off < PAGE ? (size_t)(s->size - off) : PAGE;

        store_read(s, buf, n, off);
        if (memcmp(buf, none, n) && pwrite(fd, buf, n, (off_t)off) != (ssize_t)n) {
            perror(path);
            exit(2);
        }
    }
    close(fd);
}

int store_load(struct store *s, const char *path)
{
    static const uint8_t none[PAGE];
    uint8_t buf[PAGE];
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat st;

    if (fd < 0)
        return -1;
    store_free(s);
    if (fstat(fd, &st)) {
        close(fd);
        return -1;
    }
    for (uint64_t off = 0;; off += PAGE) {
        ssize_t n = pread(fd, buf, PAGE, (off_t)off);

        if (n <= 0)
            break;
        if (memcmp(buf, none, (size_t)n))
            store_write(s, buf, (size_t)n, off);
    }
    store_resize(s, (uint64_t)st.st_size);
    close(fd);
    return 0;
}
