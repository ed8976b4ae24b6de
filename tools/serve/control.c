/* SPDX-License-Identifier: MIT */
/* `list` and `del`: the servers of a kind, found by their state files. */
#include "serve/control.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "tool.h"

static void print_server(const struct serve_state *s, bool named)
{
    printf("%s%" PRIu32 "\t", named ? s->kind->name : "", s->id);
    if (s->alive) {
        zt_put(stdout, s->endpoint);
        printf("\tpid %ld\t", (long)s->pid);
    } else { /* a device may wait for the next server */
        zt_put(stdout, s->kind->device && !access(s->endpoint, F_OK) ? s->endpoint : "-");
        printf("\tserver gone%s", s->error[0] ? ": " : "");
        zt_put(stdout, s->error);
        putchar('\t');
    }
    zt_put(stdout, s->image);
    putchar('\n');
}

int serve_list(const struct serve_kind *kind, bool named)
{
    uint32_t ids[SERVE_STATE_MAX];
    int n = serve_state_ids(kind, ids, SERVE_STATE_MAX);

    if (n < 0) {
        zt_error(SERVE_STATE_DIR ": %s", strerror(-n));
        return 1;
    }
    for (int i = 0; i < n; i++) {
        struct serve_state s;

        if (!serve_state_read(kind, ids[i], &s))
            print_server(&s, named);
    }
    return 0;
}

bool serve_lookup(const struct serve_kind *kind, const char *name, struct serve_state *out)
{
    uint32_t ids[SERVE_STATE_MAX];
    int n = serve_state_ids(kind, ids, SERVE_STATE_MAX);
    char path[PATH_MAX], *end;
    unsigned long id = strtoul(name, &end, 10);
    bool by_id = *name && !*end;

    if (!by_id && !realpath(name, path))
        snprintf(path, sizeof(path), "%s", name);
    for (int i = 0; i < n; i++)
        if ((!by_id || ids[i] == id) && !serve_state_read(kind, ids[i], out) &&
            (by_id || !strcmp(out->image, path)))
            return true;
    return false;
}

bool serve_find(const struct serve_kind *kind, const char *name, struct serve_state *out)
{
    bool found = serve_lookup(kind, name, out);

    if (!found)
        zt_error("%s: no such %s (see %s)", name, kind->what, kind->list);
    return found;
}

/* The letter of its state; '\0' if there is no such process. */
static char process_state(pid_t pid)
{
    char path[64], line[512];
    const char *name_end = NULL;
    FILE *f;

    snprintf(path, sizeof(path), "/proc/%ld/stat", (long)pid);
    f = fopen(path, "re");
    if (f && fgets(line, sizeof(line), f))
        name_end = strrchr(line, ')');
    if (f)
        fclose(f);
    return name_end && name_end[1] ? name_end[2] : '\0';
}

static bool is_suspended(pid_t pid)
{
    char state = process_state(pid);

    return state == 'T' || state == 't';
}

static void report_suspended(pid_t pid)
{
    zt_error("server %ld is suspended, and can end only when it continues (kill -CONT %ld)",
             (long)pid, (long)pid);
}

#define PATIENCE 5.0 /* seconds, for a server that is suspended */

bool serve_is_suspended(const struct serve_state *s)
{
    double limit = zt_now() + PATIENCE;

    while (is_suspended(s->pid)) {
        if (zt_now() >= limit) {
            report_suspended(s->pid);
            return true;
        }
        usleep(100 * 1000);
    }
    return false;
}

/* False after reporting why it has not ended. */
static bool wait_end(int pidfd, pid_t pid, uint32_t seconds)
{
    double begin = zt_now(), moved = begin;

    for (;;) {
        struct pollfd p = {.fd = pidfd, .events = POLLIN};
        double now;

        if (poll(&p, 1, 200) > 0)
            return true;
        now = zt_now();
        if (!is_suspended(pid)) {
            moved = now;
        } else if (now - moved >= PATIENCE) {
            report_suspended(pid);
            return false;
        }
        if (now - begin >= seconds) {
            zt_error("server %ld has not ended within %" PRIu32 " s; it may end later", (long)pid,
                     seconds);
            return false;
        }
    }
}

/* By a descriptor of the process, so that its number cannot pass to another one meanwhile. */
bool serve_end(const struct serve_state *s, int signal, uint32_t seconds)
{
    int fd = (int)syscall(SYS_pidfd_open, s->pid, 0);
    bool sent = fd >= 0 && !syscall(SYS_pidfd_send_signal, fd, signal, NULL, 0);
    bool ended = !sent && errno == ESRCH; /* its device was stopped, say, and it followed */

    if (!sent && !ended)
        zt_error("server %ld: %s", (long)s->pid,
                 errno == EPERM ? "no permission to stop it: another user runs it" :
                                  strerror(errno));
    ended = ended || (sent && wait_end(fd, s->pid, seconds));
    if (fd >= 0)
        close(fd);
    return ended;
}

int serve_stop(const struct serve_state *s, uint32_t seconds)
{
    struct serve_state after;

    if (!serve_end(s, SIGTERM, seconds))
        return 1;
    if (serve_state_read(s->kind, s->id, &after) || after.alive || !after.error[0])
        return 0;
    zt_error("%s: closing the image failed: %s", after.image, after.error);
    serve_state_remove(&after);
    return 1;
}
