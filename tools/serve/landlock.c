/* SPDX-License-Identifier: MIT */
/* Landlock, by its numbers, which are the same on all processors. */
#include "serve/landlock.h"

#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { CREATE_RULESET = 444, RESTRICT_SELF = 446, ASK_VERSION = 1 };

struct ruleset {
    uint64_t paths, ports, scopes;
};

/* What each version of the interface can bar; a bit that the kernel does not know is an error. */
static struct ruleset all_of(long version)
{
    unsigned bits = version < 2 ? 13 : version < 3 ? 14 : version < 5 ? 15 : 16;

    return (struct ruleset){.paths = (UINT64_C(1) << bits) - 1,
                            .ports = version < 4 ? 0 : 3,
                            .scopes = version < 6 ? 0 : 3};
}

/* Without a rule nothing that the set names is allowed. */
int serve_landlock(void)
{
    long version = syscall(CREATE_RULESET, NULL, 0, ASK_VERSION);
    struct ruleset set = all_of(version);
    size_t size = version < 4 ? offsetof(struct ruleset, ports) :
                  version < 6 ? offsetof(struct ruleset, scopes) :
                                sizeof(set);
    int fd, rc;

    if (version < 1)
        return 0;
    fd = (int)syscall(CREATE_RULESET, &set, size, 0);
    if (fd < 0)
        return -errno;
    rc = syscall(RESTRICT_SELF, fd, 0) ? -errno : 0;
    close(fd);
    return rc;
}
