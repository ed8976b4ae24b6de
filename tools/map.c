/* SPDX-License-Identifier: MIT */
/* The verb map: which ranges of the device are in the file, and where; as qemu-img map prints it.
 */
#include <inttypes.h>
#include <stdlib.h>

#include "json.h"
#include "tool.h"

struct mapping {
    struct zt_target target;
    bool json;
    uint64_t offset, length; /* of what is shown */
    uint64_t rows;
    struct zqcow2_resolver *files; /* of the chain */
};

/* A row: neighbours of one kind, which lie behind one another in the file if they are in it. */
struct row {
    uint64_t start;
    struct zqcow2_extent s;
};

static bool joins(const struct row *r, const struct zqcow2_extent *s)
{
    bool placed = r->s.host != UINT64_MAX;

    return s->kind == r->s.kind && s->depth == r->s.depth && placed == (s->host != UINT64_MAX) &&
           (!placed || s->host == r->s.host + r->s.length);
}

static const char *boolean(bool b)
{
    return b ? "true" : "false";
}

/* Key by key as qemu-img has it, one row a line. */
static void print_json(const struct mapping *m, const struct row *r)
{
    bool zero = r->s.kind == ZQCOW2_BLOCK_UNALLOCATED || r->s.kind == ZQCOW2_BLOCK_ZERO;

    printf("%s{ \"start\": %" PRIu64 ", \"length\": %" PRIu64 ", \"depth\": %" PRIu32,
           m->rows ? ",\n" : "[", r->start, r->s.length, r->s.depth);
    printf(", \"present\": %s, \"zero\": %s, \"data\": %s, \"compressed\": %s",
           boolean(r->s.kind != ZQCOW2_BLOCK_UNALLOCATED), boolean(zero), boolean(!zero),
           boolean(r->s.kind == ZQCOW2_BLOCK_COMPRESSED));
    if (r->s.host != UINT64_MAX)
        printf(", \"offset\": %" PRIu64, r->s.host);
    printf("}");
}

/* The file with the data of the image at that depth. */
static const char *path_of(const struct mapping *m, uint32_t depth)
{
    const char *data = zqcow2_resolver_path(m->files, depth | ZQCOW2_RESOLVE_DATA_FILE);

    return data ? data : zqcow2_resolver_path(m->files, depth);
}

static void print_text(const struct mapping *m, const struct row *r)
{
    char host[24] = "compressed";

    if (r->s.kind == ZQCOW2_BLOCK_UNALLOCATED || r->s.kind == ZQCOW2_BLOCK_ZERO)
        return;
    if (r->s.host != UINT64_MAX)
        snprintf(host, sizeof(host), "%#" PRIx64, r->s.host);
    printf("%#-16" PRIx64 "%#-16" PRIx64 "%-16s", r->start, r->s.length, host);
    zt_put(stdout, path_of(m, r->s.depth));
    printf("\n");
}

static void print_row(struct mapping *m, const struct row *r)
{
    if (!r->s.length)
        return;
    if (m->json)
        print_json(m, r);
    else
        print_text(m, r);
    m->rows++;
}

static int print_rows(struct mapping *m, struct zqcow2_image *img)
{
    struct row r = {0, ZQCOW2_EXTENT_INIT};
    uint64_t end = m->offset + m->length;
    int rc = 0;

    for (uint64_t at = m->offset; at < end && !zt_signal() && !ferror(stdout);) {
        struct zqcow2_extent s = ZQCOW2_EXTENT_INIT;

        rc = zqcow2_block_status(img, at, end - at, &s);
        if (rc < 0)
            break;
        if (r.s.length && joins(&r, &s)) {
            r.s.length += s.length;
        } else {
            print_row(m, &r);
            r = (struct row){at, s};
        }
        at += s.length;
    }
    print_row(m, &r);
    return rc;
}

static int map(struct mapping *m, struct zqcow2_image *img)
{
    struct zqcow2_info info;
    int rc;

    if (!zt_info(&m->target, img, &info))
        return 1;
    if ((m->offset && m->offset >= info.virtual_size) || m->offset % ZT_SECTOR) {
        zt_error("%s: offset %" PRIu64 " is not a sector of the device (%" PRIu64 " bytes)",
                 m->target.path, m->offset, info.virtual_size);
        return 1;
    }
    if (m->length > info.virtual_size - m->offset)
        m->length = info.virtual_size - m->offset;
    if ((!m->length && info.virtual_size) || m->length % ZT_SECTOR) {
        zt_error("%s: length %" PRIu64 " is not a multiple of 512", m->target.path, m->length);
        return 1;
    }
    if (!m->json)
        printf("%-16s%-16s%-16s%s\n", "Offset", "Length", "Mapped to", "File");
    rc = print_rows(m, img);
    if (m->json)
        printf("%s]\n", m->rows ? "" : "[");
    if (rc < 0)
        zt_error("%s: map: %s", m->target.path, zqcow2_strerror(rc));
    return rc < 0;
}

static bool parse(struct mapping *m, int argc, char **argv)
{
    static const struct option longs[] = {ZT_OPTION_BACKEND,
                                          ZT_OPTION_SHARE,
                                          ZT_OPTION_SOURCES,
                                          ZT_OPTION_SNAPSHOT,
                                          {"json", no_argument, NULL, ZT_OPT_VERB},
                                          {"output", required_argument, NULL, ZT_OPT_VERB + 1},
                                          {"offset", required_argument, NULL, 'o'},
                                          {"length", required_argument, NULL, 'l'},
                                          ZT_OPTION_END};
    static const char *const names[] = {"FILE"};
    struct zt_options o = {.name = argv[0], .shorts = ":Uo:l:", .longs = longs};
    bool ok = true;
    int c;

    while (ok && (c = zt_option(&o, argc, argv)) != -1) {
        if (c == ZT_OPT_VERB)
            m->json = true;
        else if (c == ZT_OPT_VERB + 1)
            ok = zt_output_form(optarg, &m->json);
        else if (c == 'o')
            ok = zt_size_arg("-o", optarg, &m->offset);
        else if (c == 'l')
            ok = zt_size_arg("-l", optarg, &m->length);
        else
            ok = zt_target_option(&m->target, c);
    }
    if (!ok || !zt_operands(argc, argv, 1, 1, names))
        return false;
    m->target.path = argv[optind];
    return true;
}

static int run(int argc, char **argv)
{
    struct mapping m = {.length = UINT64_MAX};
    struct zqcow2_image *img;
    int status;

    if (!parse(&m, argc, argv))
        return 1;
    m.files = zt_resolver(&m.target);
    img = m.files ? zt_open_chain(&m.target, 0, m.files) : NULL;
    status = img ? zt_close(&m.target, img, map(&m, img)) : 1;
    zqcow2_resolver_free(m.files);
    return status;
}

const struct zt_verb zt_verb_map = {
    "map",
    "[--json | --output=FORM] [-o OFFSET] [-l LENGTH] [-U] " ZT_USE_SNAPSHOT ZT_USE_SOURCES
    "[--backend=NAME] FILE",
    "Lists the mapped ranges, in the format of qemu-img map",
    "  --json                  an array, including zeros and unallocated ranges\n"
    "  --output=FORM           human, or json for --json\n"
    "  -o, --offset=OFFSET     start at OFFSET\n"
    "  -l, --length=LENGTH     the length of the range\n" ZT_HELP_SHARE ZT_HELP_SNAPSHOT
        ZT_HELP_SOURCES ZT_HELP_BACKEND,
    run};
