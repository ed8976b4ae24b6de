/* SPDX-License-Identifier: MIT */
/* The verb measure: the space that a copy of a disk takes, computed as qemu-img measure does. */
#include <inttypes.h>
#include <string.h>

#include "disk.h"
#include "image_options.h"
#include "json.h"

enum { OPT_JSON = ZT_OPT_VERB, OPT_SIZE };

#define L1_ENTRY    8u
#define TABLE_ENTRY 8u /* of refcount tables, and of write-pointer tables */

struct measure {
    struct zt_disk from;
    const char *format; /* of the copy */
    struct zt_image_options image;
    uint64_t size;
    bool json, sized; /* sized: an empty disk, without a file */
    uint64_t required, full;
};

static uint64_t divide_up(uint64_t a, uint64_t b)
{
    return a / b + (a % b != 0);
}

static uint64_t round_up(uint64_t a, uint64_t b)
{
    return divide_up(a, b) * b;
}

static uint64_t option(const struct measure *m, enum zt_image_option o, uint64_t otherwise)
{
    return m->image.given[o] ? m->image.value[o] : otherwise;
}

static uint64_t zone_size(const struct measure *m)
{
    return zt_image_zone_size(&m->image, m->from.info.zone_size);
}

static uint64_t cluster_size(const struct measure *m)
{
    uint64_t zone = zone_size(m);

    return option(m, ZT_O_CLUSTER_SIZE, zone && zone < 65536 ? zone : 65536);
}

/* Clusters of refcount blocks and their table: they count themselves, too. */
static uint64_t refcount_clusters(uint64_t clusters, uint64_t cluster, uint64_t bits)
{
    uint64_t blocks = 0, table = 0, all = clusters, before;

    do {
        before = all;
        blocks = divide_up(clusters + table + blocks, cluster * 8 / bits);
        table = divide_up(blocks, cluster / TABLE_ENTRY);
        all = clusters + blocks + table;
    } while (all != before);
    return blocks + table;
}

/* Of write pointers, and of states and descriptor extensions if such are stored. */
static uint64_t zone_tables(const struct measure *m)
{
    uint64_t cluster = cluster_size(m), nr = divide_up(m->size, zone_size(m)), all;
    bool same = zone_size(m) == m->from.info.zone_size;
    uint64_t extension = option(m, ZT_O_DESCRIPTOR, same ? m->from.info.descriptor_extension : 0);

    all = round_up(nr * TABLE_ENTRY, cluster);
    if (extension || (same && m->from.info.flags & ZQCOW2_INFO_STATES))
        all += round_up(nr, cluster); /* a byte each */
    return all + round_up(nr * extension, cluster);
}

/* Of an image that has every cluster of the disk: header, tables, refcounts. */
static uint64_t metadata(const struct measure *m, uint64_t bytes)
{
    uint64_t cluster = cluster_size(m), all = cluster;
    uint64_t entry = option(m, ZT_O_EXTENDED_L2, 0) ? 16 : 8;
    uint64_t l2 = divide_up(bytes / cluster, cluster / entry);

    all += l2 * cluster + round_up(l2 * L1_ENTRY, cluster);
    if (zone_size(m))
        all += zone_tables(m);
    return all +
           refcount_clusters((all + bytes) / cluster, cluster, option(m, ZT_O_REFCOUNT_BITS, 16)) *
               cluster;
}

/* The clusters of the copy in which the disk has data. */
static int count_data(struct measure *m, uint64_t cluster, uint64_t *data)
{
    struct zqcow2_extent s;
    uint64_t next = 0; /* the first byte that is not counted yet */

    for (uint64_t at = 0; at < m->size; at += s.length) {
        int rc = zt_disk_status(&m->from, at, m->size - at, &s);

        if (rc < 0) {
            zt_error("%s: map at %" PRIu64 ": %s", m->from.target.path, at, zqcow2_strerror(rc));
            return rc;
        }
        if (!zt_extent_zero(&s)) {
            uint64_t from = at / cluster * cluster, to = round_up(at + s.length, cluster);

            from = from < next ? next : from;
            *data += to > from ? to - from : 0;
            next = to > next ? to : next;
        }
    }
    return 0;
}

static int measure(struct measure *m)
{
    uint64_t cluster = cluster_size(m), bytes, data = 0;

    if (!m->sized)
        m->size = m->from.info.virtual_size;
    if (!strcmp(m->format, "raw")) {
        m->required = m->full = round_up(m->size, ZT_SECTOR);
        return 0;
    }
    bytes = round_up(m->size, cluster);
    if (!m->sized && count_data(m, cluster, &data) < 0)
        return 1;
    m->full = bytes + metadata(m, bytes);
    m->required = m->full - bytes + data;
    return 0;
}

static void print(const struct measure *m)
{
    struct zt_json j = {.out = stdout};

    if (!m->json) {
        printf("required size: %" PRIu64 "\nfully allocated size: %" PRIu64 "\n", m->required,
               m->full);
        return;
    }
    zt_json_open(&j, NULL, '{');
    zt_json_u64(&j, "required", m->required);
    zt_json_u64(&j, "fully-allocated", m->full);
    zt_json_close(&j, '}');
}

/* What no image can have would make the sums meaningless. */
static bool agree(const struct measure *m)
{
    uint64_t bits = option(m, ZT_O_REFCOUNT_BITS, 16), cluster = cluster_size(m);
    bool qcow2 = !strcmp(m->format, "qcow2");

    for (unsigned o = 0; o < ZT_O_COUNT; o++) {
        if (m->image.given[o] && (!qcow2 || o == ZT_O_SIZE)) {
            zt_error(qcow2 ? "size: see --size" : "measure: -o: a raw file has no options");
            return false;
        }
    }
    if (m->size > (uint64_t)1 << 62 || (bits & (bits - 1)) || (cluster & (cluster - 1))) {
        zt_error("measure: no image can have this %s", m->size > (uint64_t)1 << 62 ? "size" :
                                                       bits & (bits - 1) ? "refcount_bits" :
                                                                           "cluster_size");
        return false;
    }
    return zt_image_agrees(&m->image, zone_size(m) != 0);
}

static bool take_option(struct measure *m, int ch)
{
    switch (ch) {
    case OPT_JSON: return m->json = true;
    case OPT_SIZE: m->sized = true; return zt_size_arg("--size", optarg, &m->size);
    case 'f': return zt_disk_format("-f", optarg, &m->from.format);
    case 'O': return zt_disk_format("-O", optarg, &m->format);
    case 'o': return zt_image_option_list(&m->image, optarg);
    default: return zt_target_option(&m->from.target, ch);
    }
}

static bool parse(struct measure *m, int argc, char **argv)
{
    static const struct option longs[] = {ZT_OPTION_BACKEND,
                                          ZT_OPTION_SHARE,
                                          ZT_OPTION_SOURCES,
                                          {"format", required_argument, NULL, 'f'},
                                          {"output-format", required_argument, NULL, 'O'},
                                          {"json", no_argument, NULL, OPT_JSON},
                                          {"size", required_argument, NULL, OPT_SIZE},
                                          ZT_OPTION_END};
    static const char *const names[] = {"FILE"};
    struct zt_options o = {.name = argv[0], .shorts = ":Uf:O:o:", .longs = longs, .repeat = "o"};
    int ch;

    while ((ch = zt_option(&o, argc, argv)) != -1) {
        if (!take_option(m, ch))
            return false;
    }
    if (m->image.list)
        return true;
    if (!zt_operands(argc, argv, m->sized ? 0 : 1, m->sized ? 0 : 1, names))
        return false;
    m->from.target.path = argv[optind];
    return true;
}

static int run(int argc, char **argv)
{
    struct measure m = {.format = "raw"};
    int status;

    if (!parse(&m, argc, argv))
        return 1;
    if (m.image.list) {
        zt_print_image_options();
        return 0;
    }
    if (!m.sized && !zt_disk_open(&m.from))
        return 1;
    status = agree(&m) ? measure(&m) : 1;
    if (!m.sized)
        status = zt_disk_close(&m.from, status);
    if (status == 0)
        print(&m);
    return status;
}

const struct zt_verb zt_verb_measure = {
    "measure",
    "[--json] [-f FMT] [-O FMT] [-o NAME=VALUE[,NAME=VALUE]...]... [-U] " ZT_USE_SOURCES
    "[--backend=NAME] {--size=SIZE | FILE}",
    "Computes the space that a copy of a disk takes",
    "  --json                  an object\n"
    "  -f, --format=FMT        of FILE: raw or qcow2\n"
    "  -O, --output-format=FMT  of the copy: raw (the default) or qcow2\n"
    "  -o NAME=VALUE           as of convert\n"
    "  --size=SIZE             of an empty disk of SIZE, instead of FILE\n" ZT_HELP_SHARE
        ZT_HELP_SOURCES ZT_HELP_BACKEND,
    run};
