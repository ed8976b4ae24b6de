/* SPDX-License-Identifier: MIT */
/* The result of the verb check as `qemu-img check` prints it: as text, and with --output=json. */
#ifndef ZT_CHECK_H
#define ZT_CHECK_H

#include "json.h"
#include "tool.h"

/* What is still wrong after a repair. */
static inline uint64_t zt_left(uint64_t found, uint64_t fixed)
{
    return found > fixed ? found - fixed : 0;
}

void zt_qemu_check_text(const struct zqcow2_check_result *r);
void zt_qemu_check_json(struct zt_json *j, const char *path, const struct zqcow2_check_result *r);

#endif
