/* SPDX-License-Identifier: MIT */
/*
 * The verbs convert, import and export: a disk, with the zones it has, to another format, layout or
 * cluster size, from a device or to one.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>

#include "copy.h"
#include "onto.h"
#include "shape.h"
#include "since.h"

enum { OPT_FORCE = ZT_OPT_VERB, OPT_NO_SYNC, OPT_RESUME, OPT_SINCE };
enum direction { CONVERT, IMPORT, EXPORT };

#define IN_FLIGHT 8
#define SPARSE    4096u /* as qemu-img */

struct convert {
    enum direction direction;
    struct zt_disk from;
    struct zt_output to;
    const char *format; /* of the target */
    struct zt_image_options image;
    struct zt_progress bar; /* of what is preallocated */
    uint64_t sparse, workers;
    unsigned progress; /* zt_progress_form */
    bool force, resume, compress, existing;
    bool tuned; /* by an option that a copy of changes does not have */
    struct zt_since since;
    struct zt_onto onto; /* of convert; backing NULL: a copy that has all */
};

/* What only means something for a target that is created. */
static bool agree_existing(const struct convert *c)
{
    bool options = false;

    for (unsigned i = 0; i < ZT_O_COUNT; i++)
        options |= c->image.given[i];
    if (options || c->force || c->resume || c->to.file.no_sync)
        zt_error("convert: -n cannot be given with -o, --force, --no-sync or --resume");
    return !(options || c->force || c->resume || c->to.file.no_sync);
}

/* The copy is made by a rebase, of the files that the images name. */
static bool agree_onto(const struct convert *c)
{
    const struct zt_target *t = &c->from.target;

    if (!c->onto.backing && c->onto.format)
        zt_error("convert: -F is the format of a backing file: give -B BASE, too");
    else if (c->onto.backing && (!c->onto.format || !c->onto.backing[0]))
        zt_error(
            "convert: -B needs the name of a backing file, and its format: -F raw or -F qcow2");
    else if (c->onto.backing && strcmp(c->format, "qcow2") != 0)
        zt_error("convert: -B: a raw file has no backing file; see -O qcow2");
    else if (c->onto.backing &&
             (c->tuned || c->existing || c->compress || c->to.file.no_sync || t->share ||
              t->snapshot || t->no_backing || t->data_file || t->backing_format))
        zt_error("convert: -B cannot be given with -c, -n, -S, -m, -U, --no-sync, --resume, "
                 "--snapshot, --no-backing, --data-file or --backing-format");
    else if (c->onto.backing && c->image.given[ZT_O_MODE])
        zt_error("zone.mode: DST has the zones of SRC, or none");
    else
        return true;
    return false;
}

static bool agree(const struct convert *c)
{
    const struct zt_image_options *o = &c->image;

    if (c->existing && !agree_existing(c))
        return false;

    for (unsigned i = 0; !strcmp(c->format, "raw") && i < ZT_O_COUNT; i++) {
        if (o->given[i]) {
            zt_error("convert: -o: a raw file has no options; see -O qcow2");
            return false;
        }
    }
    if (c->compress && !strcmp(c->format, "raw")) {
        zt_error("convert: -c: a raw file cannot be compressed; see -O qcow2");
        return false;
    }
    if (c->compress && o->value[ZT_O_PREALLOCATION]) {
        zt_error("preallocation: not with -c, which needs less space");
        return false;
    }
    if (o->given[ZT_O_SIZE]) {
        zt_error("size: DST has the size of SRC");
        return false;
    }
    if (o->value[ZT_O_COMPAT] == 2) {
        zt_error("compat: DST has version 3; see zqcow2 amend");
        return false;
    }
    if (o->given[ZT_O_DESCRIPTOR] &&
        o->value[ZT_O_DESCRIPTOR] < c->from.info.descriptor_extension) {
        zt_error("zone.descriptor_extension: SRC has %" PRIu32 " bytes",
                 c->from.info.descriptor_extension);
        return false;
    }
    if (o->text[ZT_O_DATA_FILE]) {
        zt_error("data_file: DST is one file, with its data; see zqcow2 create");
        return false;
    }
    return zt_image_agrees(o, zt_image_zone_size(o, c->from.info.zone_size) != 0);
}

static struct zqcow2_create_options create_options(struct convert *c)
{
    struct zqcow2_create_options o = zt_copy_options(&c->image, &c->from.info);

    o.flags |= c->force ? ZQCOW2_CREATE_FORCE : 0u;
    o.progress = zt_progress_piece;
    o.progress_arg = &c->bar;
    return o;
}

static bool same_zones(const struct zqcow2_info *a, const struct zqcow2_info *b)
{
    return (a->flags & b->flags & ZQCOW2_INFO_ZONED) && a->zone_size == b->zone_size &&
           a->zone_capacity == b->zone_capacity && a->nr_conventional == b->nr_conventional;
}

/* Less than a cluster of zeros inside one that holds data would save nothing. */
static uint64_t granule(const struct convert *c)
{
    uint64_t cluster = c->to.dev ? c->to.info.block_size : c->to.info.cluster_size;

    if (c->compress && c->sparse)
        return (c->sparse + cluster - 1) / cluster * cluster;
    return c->sparse && c->sparse < cluster ? cluster : c->sparse;
}

static bool convert(struct convert *c)
{
    struct zqcow2_create_options opt = create_options(c);
    struct zt_copy copy = {
        .from = &c->from, .to = &c->to, .workers = (unsigned)c->workers, .progress = c->progress};
    bool raw = !strcmp(c->format, "raw"), ready;

    if (c->onto.backing)
        return zt_onto(&c->onto, &c->from, &c->to, &opt, c->force);
    zt_progress_start(&c->bar, "preallocate", 0, c->progress == ZT_PROGRESS_BAR);
    ready = c->direction == EXPORT ?
                zt_output_device(&c->to, &c->from, c->force, c->resume) :
            c->existing ?
                zt_output_take(&c->to, !raw, c->from.info.virtual_size) :
                zt_output_open(&c->to, raw ? NULL : &opt, c->from.info.virtual_size, c->force);
    zt_progress_end(&c->bar);
    if (!ready)
        return false;
    copy.keep = same_zones(&c->from.info, &c->to.info);
    copy.granule = granule(c);
    copy.compress = c->compress;
    return zt_output_close(&c->to, zt_copy(&copy));
}

static bool take_sparse(struct convert *c, const char *text)
{
    if (!zt_size_arg("-S", text, &c->sparse))
        return false;
    if (c->sparse % ZT_SECTOR == 0)
        return true;
    zt_error("-S: %s is not a multiple of 512", text);
    return false;
}

static bool take_workers(struct convert *c, const char *text)
{
    if (!zt_u64_arg("-m", text, &c->workers))
        return false;
    if (c->workers >= 1 && c->workers <= 16)
        return true;
    zt_error("-m: %s is out of range (1 to 16)", text);
    return false;
}

static bool take_progress(struct convert *c, const char *text)
{
    bool ok = zt_progress_arg(text, &c->progress);

    c->since.progress = c->onto.progress = c->progress;
    return ok;
}

static bool take_option(struct convert *c, int ch)
{
    switch (ch) {
    case OPT_FORCE: return c->force = true;
    case OPT_RESUME: return c->resume = c->to.file.keep = true;
    case OPT_NO_SYNC: return c->to.file.no_sync = true;
    case 'p': return take_progress(c, optarg);
    case OPT_SINCE: c->since.bitmap = optarg; return true;
    case 'b': c->since.backing = optarg; return true;
    case 'B': c->onto.backing = optarg; return true;
    case 'F':
        return zt_disk_format("-F", optarg,
                              c->direction == CONVERT ? &c->onto.format : &c->since.backing_format);
    case 'f': return zt_disk_format("-f", optarg, &c->from.format);
    case 'O': return zt_disk_format("-O", optarg, &c->format);
    case 'o': return zt_image_option_list(&c->image, optarg);
    case 'S': return take_sparse(c, optarg);
    case 'm': return take_workers(c, optarg);
    case 'c': return c->compress = true;
    case 'n': return c->existing = true;
    default: return zt_target_option(&c->from.target, ch);
    }
}

/* The devices of import and export. */
static bool is_device(const char *verb, const char *path)
{
    struct stat st;

    if (!zt_device_known()) {
        zt_error("%s: zones of devices can be read on Linux only; see convert", verb);
        return false;
    }
    if (stat(path, &st) < 0)
        zt_error("%s: %s", path, strerror(errno));
    else if (!S_ISBLK(st.st_mode))
        zt_error("%s: not a block device; see convert", path);
    else
        return true;
    return false;
}

/* What has changed needs to know since when, and what is left of the disk as it was then. */
static bool since_agrees(const struct convert *c)
{
    const struct zt_since *s = &c->since;

    if (!s->bitmap && (s->backing || s->backing_format))
        zt_error("export: -b and -F are for --since only");
    else if (s->bitmap && !s->backing)
        zt_error("export: --since: -b BASE, the last backup, is missing");
    else if (s->bitmap && (c->tuned || c->from.target.snapshot))
        zt_error("export: --since cannot be given with -S, -m, --resume or --snapshot");
    else
        return true;
    return false;
}

/* Where the options say it. What a format is -F judges. */
static bool take_backing(struct convert *c, const char *verb)
{
    struct zt_onto *onto = &c->onto;

    if (c->direction != CONVERT)
        return zt_image_alone(&c->image, verb);
    return zt_image_text(&c->image, ZT_O_BACKING, "-B", &onto->backing) &&
           zt_image_text(&c->image, ZT_O_BACKING_FORMAT, "-F", &onto->format) &&
           (!onto->format || zt_disk_format("-F", onto->format, &onto->format));
}

static bool parse(struct convert *c, struct zt_options *o, int argc, char **argv)
{
    static const char *const names[][2] = {
        [CONVERT] = {"SRC", "DST"}, [IMPORT] = {"DEVICE", "FILE"}, [EXPORT] = {"FILE", "DEVICE"}};
    int ch;

    while ((ch = zt_option(o, argc, argv)) != -1) {
        c->tuned |= ch == 'S' || ch == 'm' || ch == OPT_RESUME;
        if (!take_option(c, ch))
            return false;
    }
    if (!since_agrees(c))
        return false;
    if (c->image.list)
        return true;
    if (!zt_operands(argc, argv, 2, 2, names[c->direction]) || !take_backing(c, argv[0]) ||
        !agree_onto(c))
        return false;
    c->to.target = (struct zt_target){.backend = c->from.target.backend};
    c->to.verb = argv[0];
    c->from.target.path = argv[optind];
    c->to.target.path = argv[optind + 1];
    return true;
}

static bool open_and_convert(struct convert *c, const char *verb)
{
    bool ok = c->direction == CONVERT || c->since.bitmap ||
              is_device(verb, c->direction == IMPORT ? c->from.target.path : c->to.target.path);

    c->from.target.rules = c->to.target.rules = ZQCOW2_RULES_ZNS; /* they know all states */
    if (!ok || !zt_disk_open(&c->from))
        return false;
    if (c->since.bitmap)
        ok = zt_since(&c->since, &c->from, &c->to, c->force);
    else
        ok = agree(c) && convert(c);
    return zt_disk_close(&c->from, ok ? 0 : 1) == 0;
}

static int run(struct convert *c, struct zt_options *o, int argc, char **argv)
{
    c->sparse = SPARSE;
    c->workers = IN_FLIGHT;
    if (!parse(c, o, argc, argv))
        return 1;
    if (c->image.list) {
        zt_print_image_options();
        return 0;
    }
    return open_and_convert(c, argv[0]) ? 0 : 1;
}

#define OPTIONS_OF_ALL \
    ZT_OPTION_BACKEND, ZT_OPTION_SHARE, {"sparse", required_argument, NULL, 'S'}, \
        {"in-flight", required_argument, NULL, 'm'}, {"progress", optional_argument, NULL, 'p'}, \
    { \
        "force", no_argument, NULL, OPT_FORCE \
    }

static int run_convert(int argc, char **argv)
{
    static const struct option longs[] = {OPTIONS_OF_ALL,
                                          ZT_OPTION_SOURCES,
                                          ZT_OPTION_SNAPSHOT,
                                          {"format", required_argument, NULL, 'f'},
                                          {"output-format", required_argument, NULL, 'O'},
                                          {"resume", no_argument, NULL, OPT_RESUME},
                                          {"compress", no_argument, NULL, 'c'},
                                          {"no-create", no_argument, NULL, 'n'},
                                          {"backing", required_argument, NULL, 'B'},
                                          {"output-backing-format", required_argument, NULL, 'F'},
                                          {"no-sync", no_argument, NULL, OPT_NO_SYNC},
                                          ZT_OPTION_END};
    struct zt_options o = {
        .name = argv[0], .shorts = ":Uf:O:o:S:m:pcnB:F:", .longs = longs, .repeat = "o"};
    struct convert c = {.direction = CONVERT, .format = "raw"};

    return run(&c, &o, argc, argv);
}

static int run_import(int argc, char **argv)
{
    static const struct option longs[] = {OPTIONS_OF_ALL,
                                          {"resume", no_argument, NULL, OPT_RESUME},
                                          {"compress", no_argument, NULL, 'c'},
                                          {"no-sync", no_argument, NULL, OPT_NO_SYNC},
                                          ZT_OPTION_END};
    struct zt_options o = {.name = argv[0], .shorts = ":Uo:S:m:pc", .longs = longs, .repeat = "o"};
    struct convert c = {.direction = IMPORT, .format = "qcow2", .from = {.format = "raw"}};

    return run(&c, &o, argc, argv);
}

static int run_export(int argc, char **argv)
{
    static const struct option longs[] = {OPTIONS_OF_ALL,
                                          ZT_OPTION_SOURCES,
                                          ZT_OPTION_SNAPSHOT,
                                          {"format", required_argument, NULL, 'f'},
                                          {"resume", no_argument, NULL, OPT_RESUME},
                                          {"since", required_argument, NULL, OPT_SINCE},
                                          {"backing", required_argument, NULL, 'b'},
                                          {"output-backing-format", required_argument, NULL, 'F'},
                                          ZT_OPTION_END};
    struct zt_options o = {.name = argv[0], .shorts = ":Uf:S:m:pb:F:", .longs = longs};
    struct convert c = {.direction = EXPORT, .format = "raw"};

    return run(&c, &o, argc, argv);
}

const struct zt_verb zt_verb_convert = {
    "convert",
    "[-f FMT] [-O FMT] [-o NAME=VALUE[,NAME=VALUE]...]... [-S SIZE] [-m COUNT] [-c] [-n] "
    "[-B BASE -F FMT] [-p] "
    "[--force] "
    "[--no-sync] [--resume] [-U] " ZT_USE_SNAPSHOT ZT_USE_SOURCES "[--backend=NAME] SRC DST",
    "Copies a disk to a new file, with its zones",
    "  -f, --format=FMT        of SRC: raw or qcow2\n"
    "  -O, --output-format=FMT  of DST: raw (the default) or qcow2\n"
    "  -o NAME=VALUE           as for create, except size; by default with the zones of SRC\n"
    "  -S, --sparse=SIZE       do not write zeros in runs of SIZE; 4K; 0: write all\n"
    "  -m, --in-flight=COUNT   requests at a time, 1 to 16; 8\n"
    "  -c, --compress          compress DST: all of it, or of a zoned disk the full zones\n"
    "  -p, --progress[=FORM]   bar, the default: show progress on a terminal; percent: on\n"
    "                          standard output, as qemu-img does\n"
    "  -n, --no-create         write over DST, which exists, in place\n"
    "  -B, --backing=BASE      the backing file of DST, its name relative to DST's folder; DST\n"
    "                          gets only what differs from it\n"
    "  -F, --output-backing-format=FMT  of BASE: raw or qcow2\n"
    "  --force                 replace DST if it exists\n"
    "  --no-sync               do not wait until DST is durable\n"
    "  --resume                keep the copied part if stopped, and continue from "
    "it\n" ZT_HELP_SHARE ZT_HELP_SNAPSHOT ZT_HELP_SOURCES ZT_HELP_BACKEND,
    run_convert};

const struct zt_verb zt_verb_import = {
    "import",
    "[-o NAME=VALUE[,NAME=VALUE]...]... [-S SIZE] [-m COUNT] [-c] [-p] [--force] [--no-sync] "
    "[--resume] [-U] [--backend=NAME] DEVICE FILE",
    "Copies a block device to a new image, with its zones",
    "  -o NAME=VALUE           as for convert\n"
    "  -S, --sparse=SIZE       do not write zeros in runs of SIZE; 4K; 0: write all\n"
    "  -m, --in-flight=COUNT   requests at a time, 1 to 16; 8\n"
    "  -c, --compress          compress the full zones, or all of a device without zones\n"
    "  -p, --progress[=FORM]   bar, the default: show progress on a terminal; percent: on\n"
    "                          standard output, as qemu-img does\n"
    "  --force                 replace FILE if it exists\n"
    "  --no-sync               do not wait until FILE is durable\n"
    "  --resume                keep the copied part if stopped, and continue from it\n"
    "  -U, --force-share       read a device that is in use\n" ZT_HELP_BACKEND,
    run_import};

const struct zt_verb zt_verb_export = {
    "export",
    "[-f FMT] [-S SIZE] [-m COUNT] [--since=BITMAP -b BASE [-F FMT]] [-p] [--force] [--resume] "
    "[-U] " ZT_USE_SNAPSHOT ZT_USE_SOURCES "[--backend=NAME] FILE DEVICE|OUT",
    "Copies a disk to a block device that has the same zones, or makes an incremental backup",
    "  --since=BITMAP          make the image OUT of what is marked in BITMAP\n"
    "  -b, --backing=BASE      of OUT: the last backup, its name relative to OUT's folder\n"
    "  -F, --output-backing-format=FMT  of BASE: raw or qcow2\n"
    "  -f, --format=FMT        of FILE: raw or qcow2\n"
    "  -S, --sparse=SIZE       do not write zeros in runs of SIZE; 4K; 0: write all\n"
    "  -m, --in-flight=COUNT   requests at a time, 1 to 16; 8\n"
    "  -p, --progress[=FORM]   bar, the default: show progress on a terminal; percent: on\n"
    "                          standard output, as qemu-img does\n"
    "  --force                 overwrite what DEVICE holds: reset its zones; replace OUT\n"
    "  --resume                go on behind the write pointers of DEVICE\n" ZT_HELP_SHARE
        ZT_HELP_SNAPSHOT ZT_HELP_SOURCES ZT_HELP_BACKEND,
    run_export};
