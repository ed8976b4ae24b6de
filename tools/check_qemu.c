/* SPDX-License-Identifier: MIT */
/* The result of a check in the form of qemu-img. */
#include <inttypes.h>

#include "check.h"

static void print_repaired(const struct zqcow2_check_result *r)
{
    if (r->corruptions_fixed || r->leaks_fixed)
        printf("The following inconsistencies were found and repaired:\n\n    %" PRIu64
               " leaked clusters\n    %" PRIu64
               " corruptions\n\nDouble checking the fixed image now...\n",
               r->leaks_fixed, r->corruptions_fixed);
}

static double percent(uint64_t part, uint64_t all)
{
    return 100.0 * (double)part / (double)all;
}

void zt_qemu_check_text(const struct zqcow2_check_result *r)
{
    uint64_t bad = zt_left(r->corruptions, r->corruptions_fixed);
    uint64_t leaks = zt_left(r->leaked_clusters, r->leaks_fixed);

    print_repaired(r);
    if (bad)
        printf("\n%" PRIu64 " errors were found on the image.\n"
               "Data may be corrupted, or further writes to the image may corrupt it.\n",
               bad);
    if (leaks)
        printf("\n%" PRIu64 " leaked clusters were found on the image.\n"
               "This means waste of disk space, but no harm to data.\n",
               leaks);
    if (!bad && !leaks)
        printf("No errors were found on the image.\n");
    if (r->total_clusters && r->allocated_clusters)
        printf("%" PRIu64 "/%" PRIu64 " = %.2f%% allocated, %.2f%% fragmented, %.2f%% compressed "
               "clusters\n",
               r->allocated_clusters, r->total_clusters,
               percent(r->allocated_clusters, r->total_clusters),
               percent(r->fragmented_clusters, r->allocated_clusters),
               percent(r->compressed_clusters, r->allocated_clusters));
    printf("Image end offset: %" PRIu64 "\n", r->image_end_offset);
}

static void member(struct zt_json *j, const char *key, uint64_t value)
{
    if (value)
        zt_json_u64(j, key, value);
}

void zt_qemu_check_json(struct zt_json *j, const char *path, const struct zqcow2_check_result *r)
{
    zt_json_open(j, NULL, '{');
    zt_json_u64(j, "image-end-offset", r->image_end_offset);
    member(j, "total-clusters", r->total_clusters);
    member(j, "corruptions", zt_left(r->corruptions, r->corruptions_fixed));
    member(j, "corruptions-fixed", r->corruptions_fixed);
    zt_json_u64(j, "check-errors", 0); /* a check that could not be completed has no result */
    member(j, "leaks", zt_left(r->leaked_clusters, r->leaks_fixed));
    member(j, "leaks-fixed", r->leaks_fixed);
    member(j, "allocated-clusters", r->allocated_clusters);
    member(j, "fragmented-clusters", r->fragmented_clusters);
    member(j, "compressed-clusters", r->compressed_clusters);
    zt_json_str(j, "filename", path);
    zt_json_str(j, "format", "qcow2");
    zt_json_close(j, '}');
}
