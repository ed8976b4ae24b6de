/* SPDX-License-Identifier: MIT */
/*
 * A prepared zoned disk as a template, and ten disks on it that are used side by side and thrown
 * away. Each costs a few hundred KiB at most, whatever the template holds. Files go to the folder
 * that is given, else to one below /tmp.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zqcow2/backend.h>

enum { DISKS = 10, BLOCK = 4096 };
#define MIB      (1024 * 1024ull)
#define ZONE     (16 * MIB)
#define PREPARED (8 * MIB) /* in the first sequential zone */

struct disk {
    char path[300];
    struct zqcow2_resolver *files; /* opens the template, by the name that the disk stores */
    struct zqcow2_backend *be;
    struct zqcow2_image *img;
};

static void check(int rc, const char *what)
{
    if (rc) {
        fprintf(stderr, "%s: %s\n", what, zqcow2_strerror(rc));
        exit(1);
    }
}

static void must(int holds, const char *what)
{
    if (!holds) {
        fprintf(stderr, "not so: %s\n", what);
        exit(1);
    }
}

static void open_disk(struct disk *d, unsigned flags)
{
    struct zqcow2_open_options opt = ZQCOW2_OPEN_OPTIONS_INIT;
    struct zqcow2_error err;

    opt.flags = flags;
    opt.resolve = zqcow2_resolve_file;
    opt.resolve_arg = d->files;
    if (zqcow2_open(d->be, &opt, &d->img, &err)) {
        fprintf(stderr, "%s: %s\n", d->path, err.text);
        exit(1);
    }
}

static void close_disk(struct disk *d)
{
    check(zqcow2_close(d->img), "close"); /* and its backend */
    zqcow2_resolver_free(d->files);
}

/* The file, and the resolver that finds other files beside it. */
static void begin(struct disk *d, unsigned flags)
{
    check(zqcow2_resolver_new(d->path, NULL, &d->files), "resolver");
    check(zqcow2_file_open(d->path, flags, NULL, &d->be), d->path);
}

static void make_template(struct disk *d)
{
    struct zqcow2_create_options how = ZQCOW2_CREATE_OPTIONS_INIT;
    static char data[MIB];
    uint64_t at;

    how.virtual_size = 32 * ZONE;
    how.zone_size = ZONE;
    how.conventional_zones = 1;
    begin(d, ZQCOW2_FILE_RDWR | ZQCOW2_FILE_CREATE);
    check(zqcow2_create(d->be, &how, NULL), "create");
    open_disk(d, ZQCOW2_OPEN_RDWR);
    memset(data, 't', sizeof(data));
    for (uint64_t done = 0; done < PREPARED; done += sizeof(data)) {
        at = ZONE;
        check(zqcow2_append(d->img, data, sizeof(data), &at, 0), "append");
    }
    close_disk(d);
}

/* A disk with the template's zones as they are. It holds nothing yet but their write pointers. */
static void make_disk(struct disk *d)
{
    struct zqcow2_create_options how = ZQCOW2_CREATE_OPTIONS_INIT;
    struct zqcow2_error err;

    begin(d, ZQCOW2_FILE_RDWR | ZQCOW2_FILE_CREATE);
    how.backing_name = "template.qcow2";
    how.backing_format = "qcow2";
    how.resolve = zqcow2_resolve_file;
    how.resolve_arg = d->files;
    if (zqcow2_create(d->be, &how, &err)) {
        fprintf(stderr, "%s: %s\n", d->path, err.text);
        exit(1);
    }
}

/* Every disk goes on where the template ended; every other one then empties the zone. */
static void use_disk(struct disk *d, unsigned n)
{
    char mine[BLOCK], seen[BLOCK];
    uint64_t at = ZONE;

    memset(mine, (char)('0' + n), sizeof(mine));
    check(zqcow2_append(d->img, mine, sizeof(mine), &at, 0), "append");
    must(at == ZONE + PREPARED, "a disk goes on behind the template's last byte");
    if (n % 2) {
        check(zqcow2_zone_reset(d->img, ZONE, ZONE, 0), "reset");
        at = ZONE;
        check(zqcow2_append(d->img, mine, sizeof(mine), &at, 0), "append");
        must(at == ZONE, "a reset zone begins anew");
    }
    check(zqcow2_read(d->img, seen, sizeof(seen), at), "read");
    must(!memcmp(seen, mine, sizeof(seen)), "a disk reads what it wrote");
    check(zqcow2_read(d->img, seen, sizeof(seen), ZONE), "read");
    must(seen[0] == (n % 2 ? mine[0] : 't'), "before that it reads the template");
}

static unsigned long long kib(const char *path)
{
    struct stat st;

    return stat(path, &st) ? 0 : (unsigned long long)st.st_blocks / 2;
}

int main(int argc, char **argv)
{
    static struct disk template, disks[DISKS];
    char folder[256] = "/tmp/zqcow2-template-XXXXXX";
    struct zqcow2_zone zone;
    uint32_t nr = 1;

    if (argc > 1)
        snprintf(folder, sizeof(folder), "%s", argv[1]);
    else
        must(mkdtemp(folder) != NULL, "a folder below /tmp");
    snprintf(template.path, sizeof(template.path), "%s/template.qcow2", folder);
    make_template(&template);
    for (unsigned n = 0; n < DISKS; n++) {
        snprintf(disks[n].path, sizeof(disks[n].path), "%s/disk%u.qcow2", folder, n);
        make_disk(&disks[n]);
        open_disk(&disks[n], ZQCOW2_OPEN_RDWR);
    }
    for (unsigned n = 0; n < DISKS; n++)
        use_disk(&disks[n], n);
    for (unsigned n = 0; n < DISKS; n++)
        close_disk(&disks[n]);
    begin(&template, 0);
    open_disk(&template, 0);
    check(zqcow2_zone_report(template.img, ZONE, &zone, &nr), "report");
    must(zone.write_pointer == ZONE + PREPARED, "the template is as it was");
    close_disk(&template);
    printf("template %llu KiB, each disk about %llu KiB\n", kib(template.path), kib(disks[0].path));
    for (unsigned n = 0; n < DISKS; n++)
        unlink(disks[n].path);
    unlink(template.path);
    return argc > 1 ? 0 : rmdir(folder);
}
