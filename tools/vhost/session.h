/* SPDX-License-Identifier: MIT */
/* One front-end on its connection, from the first message to the last. */
#ifndef ZQ_TOOLS_VHOST_SESSION_H
#define ZQ_TOOLS_VHOST_SESSION_H

#include "vhost/queue.h"

struct vhost_session {
    int sock, stop_fd; /* the caller's */
    struct vhost_shared *shared;
    struct vhost_queue *queues; /* shared->disk.queues of them */
    uint64_t protocol;          /* accepted features */
};

/*
 * Until the front-end leaves (0), stop_fd is readable (-EINTR) or a message cannot be answered
 * (-EPROTO or another error). All queues have stopped then, and no guest memory is mapped.
 */
int vhost_session_run(struct vhost_session *s);
/* Asks the front-end, if there is one, to read the config space again. Any thread. */
void vhost_session_changed(struct vhost_shared *shared);

#endif
