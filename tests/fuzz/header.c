/* SPDX-License-Identifier: MIT */
/* Header and extensions: open, both ways, refuses or gives an image that makes sense. */
#include "fuzz/target.h"

const struct fuzz_target fuzz_target = {1u << F_HEADER | 1u << F_FORMAT | 1u << F_EXTENSION, false};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint32_t flags[] = {0, ZQCOW2_OPEN_RDWR, ZQCOW2_OPEN_RDWR | ZQCOW2_OPEN_UPGRADE};
    struct input in;
    struct world w;

    input_parse(&in, data, size);
    world_begin(&w, &in);
    for (int i = 0; i < 3; i++) {
        if (world_open(&w, flags[i]) != 0)
            continue;
        world_zones(&w);
        world_read(&w, 4);
        (void)world_close(&w);
    }
    world_end(&w);
    return 0;
}
