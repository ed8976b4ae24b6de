/* SPDX-License-Identifier: MIT */
/*
 * What the next server of a device must know of the one that died: whether it answered changes that
 * no flush has made durable. It is a page of a file, mapped, so SIGKILL loses nothing of it.
 */
#ifndef ZQ_TOOLS_UBLK_LEDGER_H
#define ZQ_TOOLS_UBLK_LEDGER_H

#include <stdbool.h>
#include <stdint.h>

/* All queues use it at a time. */
struct ublk_ledger {
    struct ublk_ledger_page *page; /* NULL: none is kept */
    uint64_t owed; /* changes up to this one may be lost, which no flush has reported; 0: none */
};

/* What the kernel has read in the first server's report of zones, and asks no other server for. */
struct ublk_ledger_zones {
    uint64_t capacity, conventional; /* bytes; a number */
};

/*
 * Of the device `id`; with `fresh` for a new device, else as the last server left it: without its
 * file all may be lost. 0; -ESTALE: the zones are not those of the last server; or -errno.
 */
int ublk_ledger_open(struct ublk_ledger *l, uint32_t id, const struct ublk_ledger_zones *zones,
                     bool fresh);
void ublk_ledger_close(struct ublk_ledger *l);

/* Before the kernel gets the answer of a change that is not durable by itself. */
void ublk_ledger_changed(struct ublk_ledger *l);
/* Before the flush begins: the changes that it covers. */
uint64_t ublk_ledger_covers(const struct ublk_ledger *l);
/* It has succeeded. */
void ublk_ledger_flushed(struct ublk_ledger *l, uint64_t covers);
/*
 * Must this flush fail, because changes before it are lost? Not 0: yes, and once the kernel has
 * the answer, the value goes to ublk_ledger_flushed(). One flush gets it.
 */
uint64_t ublk_ledger_take_loss(struct ublk_ledger *l);

#endif
