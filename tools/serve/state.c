/* SPDX-License-Identifier: MIT */
/* The state files of servers: written by the server, read by `list` and `del`. */
#include "serve/state.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "serve/escape.h"

void serve_state_beside(char path[SERVE_STATE_PATH], const struct serve_kind *kind, uint32_t id,
                        const char *suffix)
{
    snprintf(path, SERVE_STATE_PATH, SERVE_STATE_DIR "/%s%" PRIu32 "%s", kind->name, id, suffix);
}

static void set_endpoint(struct serve_state *s)
{
    if (s->kind->device)
        snprintf(s->endpoint, sizeof(s->endpoint), "%s%" PRIu32, s->kind->device, s->id);
}

static void set_ctl(struct serve_state *s)
{
    char path[SERVE_STATE_PATH];

    serve_state_beside(path, s->kind, s->id, SERVE_CTL_SUFFIX);
    if (!s->ctl[0])
        snprintf(s->ctl, sizeof(s->ctl), "%s", path);
}

/* Of a control socket in another place the file has the path. */
static bool elsewhere(const struct serve_state *s)
{
    char path[SERVE_STATE_PATH];

    serve_state_beside(path, s->kind, s->id, SERVE_CTL_SUFFIX);
    return s->ctl[0] && strcmp(s->ctl, path);
}

/* ---- lines ---- */

static void put_line(FILE *f, const char *text)
{
    serve_put_escaped(f, text, "");
    putc('\n', f);
}

/* The next line without its end, cut to the room; an empty string if there is none. */
static void read_line(FILE *f, char *buf, size_t room)
{
    char *line = NULL;
    size_t size = 0;
    ssize_t n = getline(&line, &size, f);

    buf[0] = '\0';
    if (n > 0) {
        line[strcspn(line, "\n")] = '\0';
        serve_unescape(line);
        snprintf(buf, room, "%s", line);
    }
    free(line);
}

/* ---- the server's side ---- */

static char *file_text(const struct serve_state *s, size_t *size)
{
    char *text = NULL;
    FILE *f = open_memstream(&text, size);

    if (!f)
        return NULL;
    fprintf(f, "%ld\n", (long)s->pid);
    put_line(f, s->image);
    if (s->error[0] || !s->kind->device || elsewhere(s))
        put_line(f, s->error);
    if (!s->kind->device || elsewhere(s))
        put_line(f, s->endpoint);
    if (elsewhere(s))
        put_line(f, s->ctl);
    if (fclose(f)) {
        free(text);
        return NULL;
    }
    return text;
}

static int write_file(const struct serve_state *s, int fd)
{
    size_t size;
    char *text = file_text(s, &size);
    ssize_t n;
    int rc;

    if (!text)
        return -ENOMEM;
    n = ftruncate(fd, 0) ? -1 : pwrite(fd, text, size, 0);
    rc = n < 0 ? -errno : (size_t)n < size ? -EIO : 0;
    free(text);
    return rc;
}

/* The lock comes before the first byte, so that a living server's file is left alone. */
int serve_state_create(struct serve_state *s)
{
    char path[SERVE_STATE_PATH];
    int fd, rc;

    s->pid = getpid();
    set_endpoint(s);
    if (mkdir(SERVE_STATE_DIR, 0755) && errno != EEXIST)
        return -errno;
    serve_state_beside(path, s->kind, s->id, "");
    fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (fd < 0)
        return -errno;
    rc = flock(fd, LOCK_EX | LOCK_NB) ? -errno : write_file(s, fd);
    if (rc < 0) {
        close(fd);
        return rc;
    }
    set_ctl(s);
    return fd;
}

static int remove_task(void *state)
{
    serve_state_remove(state);
    return 0;
}

void serve_state_keep(struct serve_state *s, struct serve_keeper *keeper)
{
    serve_keeper_task(keeper, remove_task, s);
}

void serve_state_end(struct serve_state *s, int fd, const char *error,
                     const struct serve_keeper *keeper)
{
    if (!error) {
        serve_keeper_run(keeper, remove_task, s);
        return;
    }
    snprintf(s->error, sizeof(s->error), "%s", error);
    write_file(s, fd);
}

void serve_state_remove(const struct serve_state *s)
{
    /* In this order: what the next server with this number makes must stay. */
    static const char *const suffixes[] = {SERVE_CTL_SUFFIX, SERVE_LEDGER_SUFFIX, ""};
    char path[SERVE_STATE_PATH];

    for (size_t i = 0; i < sizeof(suffixes) / sizeof(suffixes[0]); i++) {
        serve_state_beside(path, s->kind, s->id, suffixes[i]);
        unlink(path);
    }
}

/* ---- the side of list and del ---- */

int serve_state_read(const struct serve_kind *kind, uint32_t id, struct serve_state *out)
{
    char path[SERVE_STATE_PATH], pid[32];
    FILE *f;

    memset(out, 0, sizeof(*out));
    out->kind = kind;
    out->id = id;
    serve_state_beside(path, kind, id, "");
    f = fopen(path, "re");
    if (!f)
        return -errno;
    read_line(f, pid, sizeof(pid));
    read_line(f, out->image, sizeof(out->image));
    read_line(f, out->error, sizeof(out->error));
    read_line(f, out->endpoint, sizeof(out->endpoint));
    read_line(f, out->ctl, sizeof(out->ctl));
    set_endpoint(out);
    set_ctl(out);
    out->pid = (pid_t)strtol(pid, NULL, 10);
    out->alive = flock(fileno(f), LOCK_SH | LOCK_NB) != 0;
    fclose(f);
    return 0;
}

static int compare_ids(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

    return x < y ? -1 : x > y;
}

/* Is this the name of a state file of the kind whose name has n bytes? */
static bool parse_name(const char *kind, size_t n, const char *name, uint32_t *id)
{
    unsigned long long v;
    char *end;

    if (strncmp(name, kind, n) || name[n] < '0' || name[n] > '9')
        return false;
    errno = 0;
    v = strtoull(name + n, &end, 10);
    *id = (uint32_t)v;
    return !*end && !errno && v <= UINT32_MAX;
}

int serve_state_ids(const struct serve_kind *kind, uint32_t *ids, int max)
{
    size_t length = strlen(kind->name);
    DIR *d = opendir(SERVE_STATE_DIR);
    struct dirent *e;
    int n = 0;

    if (!d)
        return errno == ENOENT ? 0 : -errno;
    while (n < max && (e = readdir(d)))
        if (parse_name(kind->name, length, e->d_name, &ids[n]))
            n++;
    closedir(d);
    qsort(ids, (size_t)n, sizeof(*ids), compare_ids);
    return n;
}
