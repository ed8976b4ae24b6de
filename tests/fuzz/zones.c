/* SPDX-License-Identifier: MIT */
/* The zoned extension and the write pointers: what is reported, read and managed makes sense. */
#include "fuzz/target.h"

const struct fuzz_target fuzz_target = {1u << F_ZONES | 1u << F_EXTENSION, true};

/* One byte chooses the operation, one the zone. */
static void manage(struct world *w, const struct zqcow2_info *info, uint8_t op, uint8_t zone)
{
    static const uint8_t data[512] = {1};
    uint64_t at = zone % info->nr_zones * info->zone_size, end = info->virtual_size - at;
    uint64_t len = end < info->zone_size ? end : info->zone_size;

    disk_allow(&w->disk, 0);
    switch (op % 9) {
    case 0: (void)zqcow2_zone_open(w->img, at, len, 0); break;
    case 1: (void)zqcow2_zone_close(w->img, at, len, 0); break;
    case 2: (void)zqcow2_zone_finish(w->img, at, len, op & 16 ? ZQCOW2_FUA : 0); break;
    case 3: (void)zqcow2_zone_reset(w->img, at, len, op & 16 ? ZQCOW2_FUA : 0); break;
    case 4: (void)zqcow2_append(w->img, data, sizeof(data), &at, 0); break;
    case 5: (void)zqcow2_write(w->img, data, sizeof(data), at, 0); break;
    case 6: (void)zqcow2_zone_set_state(w->img, at, zone & 31); break;
    case 7: (void)zqcow2_zone_reset(w->img, 0, info->virtual_size, 0); break;
    default: (void)zqcow2_write_zeroes(w->img, sizeof(data), at, 0);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input in;
    struct world w;

    input_parse(&in, data, size);
    world_begin(&w, &in);
    if (world_open(&w, 0) == 0) {
        world_zones(&w);
        world_read(&w, 32);
        (void)world_close(&w);
    }
    if (world_open(&w, ZQCOW2_OPEN_RDWR) == 0) {
        struct zqcow2_info info = world_info(&w);

        for (size_t i = 0; info.nr_zones && i + 1 < in.tail_len && i < 128; i += 2) {
            manage(&w, &info, in.tail[i], in.tail[i + 1]);
            world_zones(&w);
        }
        (void)world_close(&w);
    }
    world_end(&w);
    return 0;
}
