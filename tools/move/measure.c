/* SPDX-License-Identifier: MIT */
/* The verb measure: the space that a copy of a disk takes, computed as qemu-img measure does. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>

#include "disk.h"
#include "json.h"
#include "shape.h"

enum { OPT_JSON = ZT_OPT_VERB, OPT_SIZE, OPT_OUTPUT };

#define EXTERNAL_DATA (1 << 2) /* of the incompatible features */
#define L1_ENTRY      8u
#define BITMAP_ENTRY  24u /* and the name */
#define TABLE_ENTRY   8u  /* of refcount tables, and of write-pointer tables */

struct measure {
    struct zt_disk from;
    const char *format; /* of the copy */
    struct zt_image_options image;
    uint64_t size;
    bool json, sized;                 /* sized: an empty disk, without a file */
    uint64_t required, full, bitmaps; /* bitmaps: in addition, if the copy gets them as well */
    bool marked;                      /* both can have bitmaps */
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

/* Data takes whole clusters of the copy; *next: the first byte that is not counted yet. */
static uint64_t clusters_of(uint64_t at, uint64_t len, uint64_t cluster, uint64_t *next)
{
    uint64_t from = at / cluster * cluster, to = round_up(at + len, cluster);

    from = from < *next ? *next : from;
    *next = to > *next ? to : *next;
    return to > from ? to - from : 0;
}

/* Of an extent whose bytes lie in a file with holes: those are zeros. Not known: all is data. */
static int count_extent(struct zqcow2_backend *file, uint64_t at, const struct zqcow2_extent *s,
                        uint64_t cluster, uint64_t *next, uint64_t *data)
{
    uint64_t begin, end, stop = s->host + s->length;
    int rc = 0;

    for (uint64_t host = s->host; rc == 0 && host < stop; host = end) {
        rc = zqcow2_backend_data(file, host, &begin, &end);
        if (rc == -EOPNOTSUPP) {
            begin = host;
            end = stop;
            rc = 0;
        }
        if (rc < 0 || begin == end)
            return rc;
        begin = begin > host ? begin : host;
        end = end < stop ? end : stop;
        if (begin < end)
            *data += clusters_of(at + (begin - s->host), end - begin, cluster, next);
    }
    return rc;
}

/* The clusters of the copy in which the disk has data. file: of its image, if that has holes. */
static int count_data(struct measure *m, struct zqcow2_backend *file, uint64_t cluster,
                      uint64_t *data)
{
    struct zqcow2_extent s;
    uint64_t next = 0;

    for (uint64_t at = 0; at < m->size; at += s.length) {
        int rc = zt_disk_status(&m->from, at, m->size - at, &s);

        if (rc == 0 && file && s.kind == ZQCOW2_BLOCK_DATA && !s.depth && s.host != UINT64_MAX)
            rc = count_extent(file, at, &s, cluster, &next, data);
        else if (rc == 0 && !zt_extent_zero(&s))
            *data += clusters_of(at, s.length, cluster, &next);
        if (rc < 0) {
            zt_error("%s: map at %" PRIu64 ": %s", m->from.target.path, at, zqcow2_strerror(rc));
            return rc;
        }
    }
    return 0;
}

/* As for qemu-img: is so much of the image a hole that its space must have been preallocated? */
static bool is_preallocated(const struct measure *m)
{
    uint64_t cluster = m->from.info.cluster_size, have, named;
    struct stat st;

    if (!m->from.img || stat(m->from.target.path, &st) < 0 || !S_ISREG(st.st_mode))
        return false;
    have = (uint64_t)st.st_blocks * 512 / cluster;
    named = (uint64_t)st.st_size / cluster;
    return named >= have * 10 / 9 && named >= have + 2;
}

/* Data files are not looked at, nor the files below: as for qemu-img, if these are not sparse. */
static int measure_data(struct measure *m, uint64_t cluster, uint64_t *data)
{
    struct zqcow2_backend *file = NULL;
    int rc = 0;

    if (is_preallocated(m) && !(m->from.info.incompatible_features & EXTERNAL_DATA))
        rc = zt_backend_open(&m->from.target, 0, &file);
    if (rc < 0)
        zt_backend_error(&m->from.target, rc);
    else
        rc = count_data(m, file, cluster, data);
    zqcow2_backend_close(file);
    return rc;
}

/* What preallocation makes of it. */
static bool takes_all(const struct measure *m)
{
    uint64_t how = option(m, ZT_O_PREALLOCATION, ZQCOW2_PREALLOCATE_OFF);

    return how == ZQCOW2_PREALLOCATE_FALLOC || how == ZQCOW2_PREALLOCATE_FULL;
}

struct bitmaps {
    uint64_t cluster, size; /* of the copy */
    uint64_t bytes, directory;
};

/* Its bits, its table, and its entry in the directory. One that is inconsistent is not copied. */
static void count_bitmap(void *arg, const struct zqcow2_bitmap *b)
{
    struct bitmaps *sum = arg;
    uint64_t clusters = divide_up(divide_up(divide_up(sum->size, b->granularity), 8), sum->cluster);

    if (b->flags & ZQCOW2_BITMAP_INCONSISTENT)
        return;
    sum->bytes += clusters * sum->cluster + round_up(clusters * TABLE_ENTRY, sum->cluster);
    sum->directory += BITMAP_ENTRY + round_up(strlen(b->name), 8);
}

static void measure_bitmaps(struct measure *m, uint64_t cluster)
{
    struct bitmaps sum = {.cluster = cluster, .size = m->size};
    struct zqcow2_error err = {0, ""};
    int rc = 0;

    m->marked = m->from.img && m->from.info.version >= 3 && option(m, ZT_O_COMPAT, 3) >= 3;
    if (m->marked)
        rc = zqcow2_bitmap_list(m->from.img, count_bitmap, &sum, &err);
    if (rc < 0) {
        zt_error("%s: bitmaps: %s", m->from.target.path, zt_reason(rc, &err));
        m->marked = false;
    }
    m->bitmaps = sum.bytes + round_up(sum.directory, cluster);
}

static int measure(struct measure *m)
{
    uint64_t cluster = cluster_size(m), bytes, data = 0;

    if (!strcmp(m->format, "raw")) {
        m->required = m->full = round_up(m->size, ZT_SECTOR);
        return 0;
    }
    bytes = round_up(m->size, cluster);
    if (!m->sized && measure_data(m, cluster, &data) < 0)
        return 1;
    if (!m->sized)
        measure_bitmaps(m, cluster);
    m->full = bytes + metadata(m, bytes);
    m->required = takes_all(m) ? m->full : m->full - bytes + data;
    return 0;
}

static void print(const struct measure *m)
{
    struct zt_json j = {.out = stdout};

    if (!m->json) {
        printf("required size: %" PRIu64 "\nfully allocated size: %" PRIu64 "\n", m->required,
               m->full);
        if (m->marked)
            printf("bitmaps size: %" PRIu64 "\n", m->bitmaps);
        return;
    }
    zt_json_open(&j, NULL, '{');
    if (m->marked)
        zt_json_u64(&j, "bitmaps", m->bitmaps);
    zt_json_u64(&j, "required", m->required);
    zt_json_u64(&j, "fully-allocated", m->full);
    zt_json_close(&j, '}');
}

/* What no image can have would make the sums meaningless. */
static bool agree(struct measure *m)
{
    bool qcow2 = !strcmp(m->format, "qcow2");
    struct zqcow2_create_options copy;

    for (unsigned o = 0; o < ZT_O_COUNT; o++) {
        if (m->image.given[o] && (!qcow2 || o == ZT_O_SIZE)) {
            zt_error(qcow2 ? "size: see --size" : "measure: -o: a raw file has no options");
            return false;
        }
    }
    if (!zt_image_alone(&m->image, "measure") || !zt_image_agrees(&m->image, zone_size(m) != 0))
        return false;
    m->from.info.virtual_size = m->size;
    copy = zt_copy_options(&m->image, &m->from.info);
    return !qcow2 || zt_can_create("measure", &copy);
}

static bool take_option(struct measure *m, int ch)
{
    switch (ch) {
    case OPT_JSON: return m->json = true;
    case OPT_OUTPUT: return zt_output_form(optarg, &m->json);
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
                                          {"output", required_argument, NULL, OPT_OUTPUT},
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
    if (!m.sized)
        m.size = m.from.info.virtual_size;
    status = agree(&m) ? measure(&m) : 1;
    if (!m.sized)
        status = zt_disk_close(&m.from, status);
    if (status == 0)
        print(&m);
    return status;
}

const struct zt_verb zt_verb_measure = {
    "measure",
    "[--json | --output=FORM] [-f FMT] [-O FMT] [-o NAME=VALUE[,NAME=VALUE]...]... "
    "[-U] " ZT_USE_SOURCES "[--backend=NAME] {--size=SIZE | FILE}",
    "Computes the space that a copy of a disk takes",
    "  --json                  an object\n"
    "  --output=FORM           human, or json for --json\n"
    "  -f, --format=FMT        of FILE: raw or qcow2\n"
    "  -O, --output-format=FMT  of the copy: raw (the default) or qcow2\n"
    "  -o NAME=VALUE           as for convert\n"
    "  --size=SIZE             of an empty disk of SIZE, instead of FILE\n" ZT_HELP_SHARE
        ZT_HELP_SOURCES ZT_HELP_BACKEND,
    run};
