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
    } else {
        printf("-\tserver gone%s", s->error[0] ? ": " : "");
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

/* By a descriptor of the process, so that its number cannot pass to another one meanwhile. */
int serve_stop(const struct serve_state *s)
{
    struct serve_state after;
    struct pollfd p = {.events = POLLIN};

    p.fd = (int)syscall(SYS_pidfd_open, s->pid, 0);
    if (p.fd < 0 || syscall(SYS_pidfd_send_signal, p.fd, SIGTERM, NULL, 0)) {
        zt_error("server %ld: %s", (long)s->pid, strerror(errno));
        return 1;
    }
    while (poll(&p, 1, -1) < 0 && errno == EINTR)
        ;
    close(p.fd);
    if (serve_state_read(s->kind, s->id, &after) || after.alive || !after.error[0])
        return 0;
    zt_error("%s: closing the image failed: %s", after.image, after.error);
    serve_state_remove(&after);
    return 1;
}
