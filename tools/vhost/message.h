/* SPDX-License-Identifier: MIT */
/* One message of a front-end with its descriptors, and the reply to it. */
#ifndef ZQ_TOOLS_VHOST_MESSAGE_H
#define ZQ_TOOLS_VHOST_MESSAGE_H

#include <stdbool.h>

#include "vhost/wire.h"

#define VHOST_FDS 8u

struct vhost_message {
    struct vhost_head head;
    union vhost_payload payload;
    int fd[VHOST_FDS]; /* owned: -1 once one has been taken */
    unsigned fds;
};

/*
 * Waits for the next message. 1, 0: the front-end has closed the socket, -EINTR: stop_fd has become
 * readable, or an error. A message that is malformed is -EPROTO. On every return but 1, no
 * descriptor is left in it.
 */
int vhost_receive(int sock, int stop_fd, struct vhost_message *m);
/* The reply that a message of this kind has: `size` bytes of m's payload, and a descriptor or -1.
 */
int vhost_reply(int sock, const struct vhost_message *m, uint32_t size, int fd);
/* A message of ours without payload, without an answer. */
int vhost_tell(int sock, uint32_t request);
/* Hands over descriptor i, or -1 if there is none. */
int vhost_take_fd(struct vhost_message *m, unsigned i);
void vhost_close_fds(struct vhost_message *m);

#endif
