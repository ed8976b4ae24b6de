/* SPDX-License-Identifier: MIT */
/*
 * Moves what an overlay holds into the template below it, with progress. commit FILE does so with
 * an overlay of yours, as zqcow2 commit does; without FILE it makes both in a folder below /tmp.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zqcow2/backend.h>
#include <zqcow2/chain.h>

#define MIB  (1024 * 1024ull)
#define ZONE (16 * MIB)

static void check(int rc, const char *what, const struct zqcow2_error *err)
{
    if (rc) {
        fprintf(stderr, "%s: %s\n", what, err && err->text[0] ? err->text : zqcow2_strerror(rc));
        exit(1);
    }
}

/* To stop, return a value other than 0: a later commit completes the work. */
static int show(void *arg, uint64_t done, uint64_t total)
{
    fprintf(stderr, "\r%s: %3u %%", (const char *)arg,
            (unsigned)(total ? 100 * done / total : 100));
    return 0;
}

/* Neither image may be open. Nobody else may have an overlay on the same template. */
static void commit(char *path)
{
    struct zqcow2_commit_options opt = ZQCOW2_COMMIT_OPTIONS_INIT;
    struct zqcow2_resolver *files;
    struct zqcow2_backend *be;
    struct zqcow2_error err = {0};

    check(zqcow2_resolver_new(path, NULL, &files), path, NULL);
    check(zqcow2_file_open(path, ZQCOW2_FILE_RDWR, NULL, &be), path, NULL);
    opt.resolve = zqcow2_resolve_file; /* opens the template, for writing */
    opt.resolve_arg = files;
    opt.progress = show;
    opt.progress_arg = path;
    check(zqcow2_commit(be, &opt, &err), path, &err);
    fputc('\n', stderr);
    zqcow2_backend_close(be);
    zqcow2_resolver_free(files);
}

/* ---- a template and an overlay to show it with ---- */

static struct zqcow2_image *open_image(const char *path, unsigned flags)
{
    struct zqcow2_open_options opt = ZQCOW2_OPEN_OPTIONS_INIT;
    struct zqcow2_image *img = NULL;
    struct zqcow2_resolver *files;
    struct zqcow2_backend *be;
    struct zqcow2_error err = {0};

    check(zqcow2_resolver_new(path, NULL, &files), path, NULL);
    check(zqcow2_file_open(path, flags ? ZQCOW2_FILE_RDWR : 0, NULL, &be), path, NULL);
    opt.flags = flags;
    opt.resolve = zqcow2_resolve_file;
    opt.resolve_arg = files;
    check(zqcow2_open(be, &opt, &img, &err), path, &err);
    zqcow2_resolver_free(files);
    return img;
}

/* A new image on the template, or the template itself; it gets a MiB at the write pointer. */
static void make(const char *path, const char *template, char fill)
{
    struct zqcow2_create_options how = ZQCOW2_CREATE_OPTIONS_INIT;
    static char data[MIB];
    struct zqcow2_resolver *files;
    struct zqcow2_image *img;
    struct zqcow2_backend *be;
    struct zqcow2_error err = {0};
    uint64_t at = ZONE;

    check(zqcow2_resolver_new(path, NULL, &files), path, NULL);
    check(zqcow2_file_open(path, ZQCOW2_FILE_RDWR | ZQCOW2_FILE_CREATE, NULL, &be), path, NULL);
    how.virtual_size = template ? 0 : 8 * ZONE; /* an overlay inherits size and zones */
    how.zone_size = template ? 0 : ZONE;
    how.backing_name = template;
    how.backing_format = template ? "qcow2" : NULL;
    how.resolve = zqcow2_resolve_file;
    how.resolve_arg = files;
    check(zqcow2_create(be, &how, &err), path, &err);
    zqcow2_backend_close(be);
    zqcow2_resolver_free(files);
    img = open_image(path, ZQCOW2_OPEN_RDWR);
    memset(data, fill, sizeof(data));
    check(zqcow2_append(img, data, sizeof(data), &at, 0), "append", NULL);
    check(zqcow2_close(img), "close", NULL);
}

/* What the overlay appended is in the template, and its write pointer is there, too. */
static void look(const char *path)
{
    struct zqcow2_image *img = open_image(path, 0);
    struct zqcow2_zone zone;
    uint32_t nr = 1;
    char seen[512];

    check(zqcow2_zone_report(img, ZONE, &zone, &nr), "report", NULL);
    check(zqcow2_read(img, seen, sizeof(seen), ZONE + MIB), "read", NULL);
    check(zqcow2_close(img), "close", NULL);
    if (zone.write_pointer != ZONE + 2 * MIB || seen[0] != 'o') {
        fprintf(stderr, "%s: is not what was committed\n", path);
        exit(1);
    }
}

int main(int argc, char **argv)
{
    char folder[] = "/tmp/zqcow2-commit-XXXXXX", template[64], overlay[64];

    if (argc > 1) {
        commit(argv[1]);
        return 0;
    }
    if (!mkdtemp(folder))
        return 1;
    snprintf(template, sizeof(template), "%s/template.qcow2", folder);
    snprintf(overlay, sizeof(overlay), "%s/overlay.qcow2", folder);
    make(template, NULL, 't');
    make(overlay, "template.qcow2", 'o');
    commit(overlay);
    look(template);
    look(overlay);
    return unlink(overlay) || unlink(template) || rmdir(folder);
}
