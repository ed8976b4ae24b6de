/* SPDX-License-Identifier: MIT */
/* The verb snapshot: lists and changes internal snapshots, in the form of qemu-img. */
#include <inttypes.h>
#include <string.h>
#include <time.h>

#include "json.h"
#include "tool.h"

enum { OPT_JSON = ZT_OPT_VERB };

struct snapshot {
    struct zt_target target;
    bool json;
    int what;         /* 'l', 'c', 'd' or 'a' */
    bool chosen;      /* by an option */
    const char *name; /* of the snapshot */
};

/* ---- the list ---- */

struct list {
    struct zt_json j;
    bool any;
};

#define SECOND 1000000000u

static void put_date(char *buf, size_t room, uint32_t seconds)
{
    time_t when = (time_t)seconds;
    struct tm tm;

    if (!localtime_r(&when, &tm) || !strftime(buf, room, "%Y-%m-%d %H:%M:%S", &tm))
        snprintf(buf, room, "-");
}

static void put_clock(char *buf, size_t room, uint64_t nsec)
{
    uint64_t s = nsec / SECOND;

    snprintf(buf, room, "%02" PRIu64 ":%02" PRIu64 ":%02" PRIu64 ".%03" PRIu64, s / 3600,
             s / 60 % 60, s % 60, nsec / 1000000 % 1000);
}

void zt_put_size(char *buf, size_t room, uint64_t bytes)
{
    static const char *const units[] = {"", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"};
    double n = (double)bytes;
    size_t unit = 0;

    for (; n >= 1000 && unit + 1 < ZT_COUNT(units); unit++)
        n /= 1024;
    snprintf(buf, room, "%.3g %sB", n, units[unit]);
}

/* The columns of qemu-img; the instructions only where they are stored. */
static void text_row(void *arg, const struct zqcow2_snapshot *s)
{
    struct list *l = arg;
    FILE *out = l->j.out;
    char date[32], clock[48], count[24] = "", size[32];

    if (!l->any)
        fprintf(out, "Snapshot list:\n%-10s%-17s%8s%20s%13s%11s\n", "ID", "TAG", "VM SIZE", "DATE",
                "VM CLOCK", "ICOUNT");
    l->any = true;
    put_date(date, sizeof(date), s->date_sec);
    put_clock(clock, sizeof(clock), s->vm_clock_nsec);
    if (s->icount != UINT64_MAX)
        snprintf(count, sizeof(count), "%" PRIu64, s->icount);
    zt_put_size(size, sizeof(size), s->vm_state_size);
    zt_line(out, "%-9s %-16s %8s%20s%13s%11s", s->id, s->name, size, date, clock, count);
}

/* The members that `qemu-img info --output=json` has, and the size of the device. */
static void json_row(void *arg, const struct zqcow2_snapshot *s)
{
    struct zt_json *j = &((struct list *)arg)->j;

    zt_json_open(j, NULL, '{');
    zt_json_str(j, "id", s->id);
    zt_json_str(j, "name", s->name);
    zt_json_u64(j, "vm-state-size", s->vm_state_size);
    zt_json_u64(j, "date-sec", s->date_sec);
    zt_json_u64(j, "date-nsec", s->date_nsec);
    zt_json_u64(j, "vm-clock-sec", s->vm_clock_nsec / SECOND);
    zt_json_u64(j, "vm-clock-nsec", s->vm_clock_nsec % SECOND);
    if (s->icount != UINT64_MAX)
        zt_json_u64(j, "icount", s->icount);
    if (s->disk_size)
        zt_json_u64(j, "disk-size", s->disk_size);
    zt_json_close(j, '}');
}

int zt_snapshot_members(struct zt_json *j, struct zqcow2_image *img, struct zqcow2_error *err)
{
    struct list l = {.j = *j};
    int rc = zqcow2_snapshot_list(img, json_row, &l, err);

    *j = l.j;
    return rc;
}

int zt_snapshot_list(FILE *out, bool json, struct zqcow2_image *img, struct zqcow2_error *err)
{
    struct list l = {.j.out = out};
    int rc;

    if (!json)
        return zqcow2_snapshot_list(img, text_row, &l, err);
    zt_json_open(&l.j, NULL, '[');
    rc = zt_snapshot_members(&l.j, img, err);
    zt_json_close(&l.j, ']');
    return rc;
}

/* ---- changes ---- */

int zt_snapshot_take(struct zqcow2_image *img, const char *name, struct zqcow2_error *err)
{
    struct zqcow2_snapshot n = ZQCOW2_SNAPSHOT_INIT;
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    n.name = name;
    n.date_sec = (uint32_t)now.tv_sec;
    n.date_nsec = (uint32_t)now.tv_nsec;
    return zqcow2_snapshot_take(img, &n, err);
}

static int act(struct snapshot *s, struct zqcow2_image *img)
{
    struct zqcow2_error err = {0, ""};
    int rc;

    switch (s->what) {
    case 'c': rc = zt_snapshot_take(img, s->name, &err); break;
    case 'd': rc = zt_snapshot_delete(img, s->name, &err); break;
    case 'a': rc = zt_snapshot_apply(img, s->name, &err); break;
    default: rc = zt_snapshot_list(stdout, s->json, img, &err); break;
    }
    s->target.failure = rc;
    if (rc < 0 && s->name)
        zt_error("%s: snapshot \"%s\": %s", s->target.path, s->name, zt_reason(rc, &err));
    else if (rc < 0)
        zt_error("%s: snapshots: %s", s->target.path, zt_reason(rc, &err));
    return rc < 0;
}

/* One of them, once. */
static bool choose(struct snapshot *s, int what, const char *name)
{
    if (s->chosen) {
        zt_error("snapshot: only one of -l, -c, -a and -d can be given");
        return false;
    }
    s->chosen = true;
    s->what = what;
    s->name = name;
    return true;
}

static bool parse(struct snapshot *s, int argc, char **argv)
{
    static const struct option longs[] = {ZT_OPTION_BACKEND,
                                          ZT_OPTION_SHARE,
                                          ZT_OPTION_SOURCES,
                                          {"json", no_argument, NULL, OPT_JSON},
                                          ZT_OPTION_END};
    static const char *const names[] = {"FILE"};
    struct zt_options o = {.name = argv[0], .shorts = ":Ulc:a:d:", .longs = longs};
    bool ok = true;
    int c;

    while (ok && (c = zt_option(&o, argc, argv)) != -1) {
        if (c == 'l' || c == 'c' || c == 'a' || c == 'd')
            ok = choose(s, c, optarg);
        else if (c == OPT_JSON)
            s->json = true;
        else
            ok = zt_target_option(&s->target, c);
    }
    if (ok && s->name && (s->json || s->target.share)) {
        zt_error("snapshot: --json and --force-share are for -l only");
        return false;
    }
    return ok && zt_operands(argc, argv, 1, 1, names);
}

static int run(int argc, char **argv)
{
    struct snapshot s = {.what = 'l'};
    struct zqcow2_image *img;

    if (!parse(&s, argc, argv))
        return 1;
    s.target.path = argv[optind];
    if (s.what == 'l')
        s.target.no_backing = true; /* what is below an image has no part in its list */
    img = zt_open(&s.target, s.what == 'l' ? 0 : ZQCOW2_OPEN_RDWR);
    return img ? zt_close(&s.target, img, act(&s, img)) : 1;
}

const struct zt_verb zt_verb_snapshot = {
    "snapshot",
    "[-l [--json] [-U] | -c NAME | -a NAME | -d NAME] " ZT_USE_SOURCES "[--backend=NAME] FILE",
    "Lists, takes, applies or deletes internal snapshots",
    "  -l                      list the snapshots (the default)\n"
    "  -c NAME                 take a snapshot\n"
    "  -a NAME                 restore the disk to the snapshot with this ID or name\n"
    "  -d NAME                 delete the snapshot with this name\n"
    "  --json                  the list as an array\n" ZT_HELP_SHARE ZT_HELP_SOURCES
        ZT_HELP_BACKEND,
    run};
