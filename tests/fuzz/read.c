/* SPDX-License-Identifier: MIT */
/* Everything that can be read: block status, reads, reports; then the same opened for writing. */
#include "fuzz/target.h"

const struct fuzz_target fuzz_target = {(1u << F_GROUPS) - 1, false};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input in;
    struct world w;

    input_parse(&in, data, size);
    world_begin(&w, &in);
    for (uint32_t flags = 0; flags <= ZQCOW2_OPEN_RDWR; flags += ZQCOW2_OPEN_RDWR) {
        if (world_open(&w, flags) != 0)
            continue;
        world_zones(&w);
        world_read(&w, 512);
        (void)world_close(&w);
    }
    world_end(&w);
    return 0;
}
