/* SPDX-License-Identifier: MIT */
/* A zoned image in memory: create, append, report, reset. */
#include <stdio.h>
#include <zqcow2/backend.h>

int main(void)
{
    struct zqcow2_create_options how = ZQCOW2_CREATE_OPTIONS_INIT;
    struct zqcow2_open_options opt = {.size = sizeof(opt), .flags = ZQCOW2_OPEN_RDWR};
    struct zqcow2_backend *be;
    struct zqcow2_image *img;
    struct zqcow2_zone zone;
    char text[512] = "hello, zone";
    uint64_t where = 16 << 20; /* in: the start of zone 1; out: where the text went */
    uint32_t nr = 1;
    int rc;

    how.virtual_size = 64 << 20;
    how.zone_size = 16 << 20;
    if ((rc = zqcow2_mem_open(0, NULL, &be)) || (rc = zqcow2_create(be, &how, NULL)) ||
        (rc = zqcow2_open(be, &opt, &img, NULL)) ||
        (rc = zqcow2_append(img, text, sizeof(text), &where, ZQCOW2_FUA)) ||
        (rc = zqcow2_zone_report(img, where, &zone, &nr)))
        return fprintf(stderr, "%s\n", zqcow2_strerror(rc)), 1;
    printf("appended at %llu, write pointer %llu, state %u\n", (unsigned long long)where,
           (unsigned long long)zone.write_pointer, (unsigned)zone.state);
    rc = zqcow2_zone_reset(img, zone.start, zone.length, 0);
    return rc || zqcow2_close(img) ? 1 : 0;
}
