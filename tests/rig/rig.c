/* SPDX-License-Identifier: MIT */
/* Puts an image on its stack of backends, opens, closes and checks it, compares it with a model. */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>
#include "rig/rig.h"

uint64_t rig_env(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);

    return text && *text ? strtoull(text, NULL, 0) : otherwise;
}

/* The variables that were asked about, and whether any name was what they say. */
static struct {
    const char *variable;
    bool matched;
} choices[8];

bool rig_wanted(const char *variable, const char *name)
{
    const char *text = getenv(variable);
    unsigned i = 0;

    if (!text || !*text)
        return true;
    while (choices[i].variable && strcmp(choices[i].variable, variable))
        i++;
    choices[i].variable = variable;
    choices[i].matched |= !strcmp(text, name);
    return !strcmp(text, name);
}

int rig_exit(int failed)
{
    for (unsigned i = 0; choices[i].variable; i++) {
        if (choices[i].matched)
            continue;
        printf("%s=%s: there is nothing of that name\n", choices[i].variable,
               getenv(choices[i].variable));
        failed++;
    }
    return failed;
}

bool rig_say(struct rig *r, const char *fmt, ...)
{
    va_list ap;

    if (r->why[0])
        return false;
    va_start(ap, fmt);
    vsnprintf(r->why, sizeof(r->why), fmt, ap);
    va_end(ap);
    return false;
}

static char watched[300];

static void hung(int sig)
{
    ssize_t n = write(STDOUT_FILENO, watched, strlen(watched));

    (void)n;
    (void)sig;
    _exit(99);
}

void rig_watch(unsigned seconds, const char *fmt, ...)
{
    va_list ap;

    alarm(0);
    va_start(ap, fmt);
    strcpy(watched, "hung: ");
    vsnprintf(watched + 6, sizeof(watched) - 7, fmt, ap);
    va_end(ap);
    strcat(watched, "\n");
    signal(SIGALRM, hung);
    alarm(seconds);
}

bool rig_shuffles(enum rig_world world)
{
    return world != RIG_PLAIN && world != RIG_URING;
}

bool rig_uring_works(void)
{
    struct zqcow2_backend *be;
    int rc = zqcow2_uring_open("/proc/self/exe", 0, NULL, &be);

    if (rc == 0)
        zqcow2_backend_close(be);
    if (rc == -ENOSYS)
        printf("no io_uring here\n");
    return rc != -ENOSYS;
}

static int resolve(void *arg, const char *name, const char *format, uint32_t depth,
                   struct zqcow2_backend **be, struct zqcow2_error *err)
{
    struct rig *r = arg;
    struct rig_be floor;

    (void)err;
    if (depth & ZQCOW2_RESOLVE_DATA_FILE)
        return rig_data_resolve(r, name, format, depth, be);
    if (depth > r->nr_below)
        return -ENOENT;
    floor = store_be(&r->below[r->nr_below - depth]);
    return zqcow2_backend_new(floor.ops, floor.self, &r->hooks, be);
}

void rig_init(struct rig *r, const struct geometry *g, enum rig_world world, uint64_t seed)
{
    struct zqcow2_open_options open = ZQCOW2_OPEN_OPTIONS_INIT;

    memset(r, 0, sizeof(*r));
    r->g = g;
    r->world = world;
    r->seed = r->rng = seed;
    r->open = open;
    heap_init(&r->heap);
    r->hooks = heap_hooks(&r->heap);
    store_init(&r->store);
    strict_init(&r->strict, &r->store);
    record_init(&r->record, strict_be(&r->strict));
    fault_init(&r->fault, record_be(&r->record));
    if (world == RIG_URING) {
        strcpy(r->path, "zq-rig-XXXXXX");
        close(mkstemp(r->path));
    }
    if (rig_shuffles(world))
        shuffle_init(&r->shuffle, fault_be(&r->fault),
                     world == RIG_THREADED ? SHUFFLE_THREADED :
                     world == RIG_HELD     ? SHUFFLE_HELD :
                                             SHUFFLE_POLLED,
                     seed);
    r->shuffle.caps = world == RIG_CALLED ? ZQCOW2_CAP_BLOCKING_CALLS : 0;
    r->open.resolve_arg = r;
    if (g->data_file) {
        r->open.resolve = resolve;
        rig_data_init(r);
    }
}

const char *rig_free(struct rig *r)
{
    static char text[sizeof(r->strict.why)];
    const char *verdict, *data;

    if (r->img)
        rig_close(r);
    data = r->g->data_file ? rig_data_free(r) : NULL;
    if (rig_shuffles(r->world))
        shuffle_free(&r->shuffle);
    if (r->path[0])
        unlink(r->path);
    verdict = heap_verdict(&r->heap);
    if (!verdict && r->strict.broken)
        verdict = r->strict.why;
    if (!verdict)
        verdict = data;
    if (verdict)
        verdict = strcpy(text, verdict);
    record_free(&r->record);
    strict_free(&r->strict);
    store_free(&r->store);
    while (r->nr_below)
        store_free(&r->below[--r->nr_below]);
    heap_destroy(&r->heap);
    return verdict;
}

static int new_backend(struct rig *r, struct rig_be top, struct zqcow2_backend **be)
{
    if (r->world == RIG_URING)
        return zqcow2_uring_open(r->path, ZQCOW2_FILE_RDWR, &r->hooks, be);
    return zqcow2_backend_new(top.ops, top.self, &r->hooks, be);
}

/* The clusters get smaller from layer to layer. */
static void set_below(struct rig *r, struct zqcow2_create_options *o)
{
    o->flags |= ZQCOW2_CREATE_FORCE;
    o->cluster_size = r->g->cluster >> r->nr_below;
    o->cluster_size = o->cluster_size < 512 ? 512 : o->cluster_size;
    o->backing_name = "below";
    o->backing_format = "qcow2";
}

int rig_create(struct rig *r)
{
    struct zqcow2_create_options o = ZQCOW2_CREATE_OPTIONS_INIT;
    struct zqcow2_backend *be;
    int rc = new_backend(r, fault_be(&r->fault), &be);

    if (rc)
        return rc;
    o.virtual_size = r->g->size;
    o.zone_size = r->g->zone_size;
    o.zone_capacity = r->g->capacity;
    o.conventional_zones = r->g->conventional;
    o.max_open_zones = r->g->max_open;
    o.max_active_zones = r->g->max_active;
    o.max_append_bytes = r->g->max_append;
    o.cluster_size = r->g->cluster;
    o.refcount_bits = r->g->refcount_bits;
    o.layout = r->g->layout;
    o.descriptor_extension = r->g->described;
    o.flags = r->g->extended ? ZQCOW2_CREATE_EXTENDED_L2 : 0;
    o.flags |= r->g->zstd ? ZQCOW2_CREATE_ZSTD : 0;
    o.hooks = &r->hooks;
    if (r->nr_below)
        set_below(r, &o);
    if (r->g->data_file)
        rig_data_set(r, &o);
    if (o.backing_name || o.data_file) {
        o.resolve = r->open.resolve = resolve;
        o.resolve_arg = r;
    }
    rc = zqcow2_create(be, &o, &r->err);
    zqcow2_backend_close(be);
    return rc;
}

/* From the host's file into memory: what the image has, for the file may be a device's size. */
static int fetch(struct rig *r, struct store *to)
{
    static uint8_t buf[STORE_PAGE];
    struct zqcow2_backend *be;
    uint64_t bytes = 0;
    int rc = rig_check(r, 0);

    if (rc == 0)
        rc = new_backend(r, store_be(to), &be);
    if (rc)
        return rc;
    rc = zqcow2_backend_length(be, &bytes);
    bytes = bytes < r->check.image_end_offset ? bytes : r->check.image_end_offset;
    for (uint64_t at = 0, n; rc == 0 && at < bytes; at += n) {
        n = bytes - at < sizeof(buf) ? bytes - at : sizeof(buf);
        rc = zqcow2_backend_read(be, buf, n, at);
        store_put(to, buf, n, at);
    }
    zqcow2_backend_close(be);
    return rc;
}

int rig_stack(struct rig *r)
{
    struct store *to = &r->below[r->nr_below];
    int rc = 0;

    store_init(to);
    if (r->g->data_file)
        rc = rig_data_stack(r);
    r->nr_below++;
    if (rc)
        return rc;
    if (r->world == RIG_URING)
        rc = fetch(r, to);
    else
        store_copy(to, &r->store);
    return rc ? rc : rig_create(r);
}

int rig_open(struct rig *r, bool writable)
{
    struct zqcow2_open_options o = r->open;
    struct zqcow2_backend *be;
    int rc =
        new_backend(r, rig_shuffles(r->world) ? shuffle_be(&r->shuffle) : fault_be(&r->fault), &be);

    if (rc)
        return rc;
    o.flags |= writable ? ZQCOW2_OPEN_RDWR : 0;
    o.rules = r->g->rules;
    o.hooks = &r->hooks;
    rc = zqcow2_open(be, &o, &r->img, &r->err);
    if (rc) {
        r->img = NULL;
        zqcow2_backend_close(be);
    }
    r->strict.live = r->data.strict.live = !rc;
    return rc;
}

int rig_close(struct rig *r)
{
    int rc;

    r->strict.live = r->data.strict.live = false;
    rc = zqcow2_close(r->img);
    if (rc != -EBUSY)
        r->img = NULL;
    return rc;
}

static void note_finding(void *arg, int kind, const char *text)
{
    if (kind == ZQCOW2_FOUND_CORRUPTION || kind == ZQCOW2_FOUND_LEAK)
        rig_say(arg, "check: %s", text);
}

int rig_check(struct rig *r, uint32_t flags)
{
    struct zqcow2_check_options o = ZQCOW2_CHECK_OPTIONS_INIT;
    struct zqcow2_check_result res = ZQCOW2_CHECK_RESULT_INIT;
    struct zqcow2_backend *be;
    int rc = new_backend(r, strict_be(&r->strict), &be);

    if (rc)
        return rc;
    o.flags = flags;
    o.hooks = &r->hooks;
    o.found = note_finding;
    o.arg = r;
    o.resolve = r->open.resolve;
    o.resolve_arg = r;
    r->checking = true;
    rc = zqcow2_check(be, &o, &res, &r->err);
    r->checking = false;
    r->check = res;
    zqcow2_backend_close(be);
    return rc;
}

static void must(struct rig *r, int rc, const char *what)
{
    if (rc)
        fail_msg("%s in %s: %d (%s) %s %s", what, r->g->name, rc, zqcow2_strerror(rc), r->err.text,
                 r->why);
}

void rig_begin_in(struct rig *r, const struct geometry *g, enum rig_world world, uint64_t seed)
{
    rig_init(r, g, world, seed);
    must(r, rig_create(r), "create");
    must(r, rig_open(r, true), "open");
}

void rig_begin(struct rig *r, const struct geometry *g)
{
    rig_begin_in(r, g, RIG_PLAIN, 1);
}

void rig_reopen(struct rig *r)
{
    must(r, rig_close(r), "close");
    must(r, rig_open(r, true), "open again");
}

void rig_end(struct rig *r)
{
    const char *verdict;

    if (r->img)
        must(r, rig_close(r), "close");
    must(r, rig_check(r, 0), "check");
    if (r->check.corruptions || r->check.leaked_clusters)
        fail_msg("%s: %llu corruptions, %llu leaks: %s", r->g->name,
                 (unsigned long long)r->check.corruptions,
                 (unsigned long long)r->check.leaked_clusters, r->why);
    verdict = rig_free(r);
    if (verdict)
        fail_msg("%s: memory: %s", r->g->name, verdict);
}

uint64_t rig_start(const struct rig *r, uint32_t i)
{
    return r->g->zone_size * i;
}

struct zqcow2_zone rig_zone(struct rig *r, uint32_t i)
{
    struct zqcow2_zone z;
    uint32_t nr = 1;
    int rc = zqcow2_zone_report(r->img, rig_start(r, i), &z, &nr);

    if (rc || nr != 1)
        memset(&z, 0x55, sizeof(z));
    return z;
}

/* The same call may have finished a zone after it was closed, or instead. */
static int how_closed(struct rig *r, uint32_t zone)
{
    uint8_t state = rig_zone(r, zone).state;

    return state == ZQCOW2_ZONE_IMP_OPEN ? 0 : state == ZQCOW2_ZONE_FULL ? 1 : 2;
}

bool rig_closed_rather(void *rig, uint32_t zone, uint32_t other)
{
    return how_closed(rig, zone) > how_closed(rig, other);
}

struct zqcow2_info rig_info(struct rig *r)
{
    struct zqcow2_info info = ZQCOW2_INFO_INIT;

    if (zqcow2_get_info(r->img, &info))
        memset(&info, 0x55, sizeof(info));
    return info;
}

bool rig_same_zone(struct rig *r, const struct model *m, uint32_t i)
{
    struct zqcow2_zone is = rig_zone(r, i), want;

    model_report(m, i, &want);
    if (!memcmp(&is, &want, sizeof(is)))
        return true;
    return rig_say(r,
                   "zone %u: %s wp +%#llx cap %#llx len %#llx, expected %s wp +%#llx cap %#llx"
                   " len %#llx",
                   i, rig_state_name(is.state), (unsigned long long)(is.write_pointer - is.start),
                   (unsigned long long)is.capacity, (unsigned long long)is.length,
                   rig_state_name(want.state),
                   (unsigned long long)(want.write_pointer - want.start),
                   (unsigned long long)want.capacity, (unsigned long long)want.length);
}

bool rig_same_report(struct rig *r, const struct model *m)
{
    struct zqcow2_info info = rig_info(r);

    for (uint32_t i = 0; i < m->nr; i++) {
        if (!rig_same_zone(r, m, i))
            return false;
    }
    if (info.open_zones != model_open_zones(m) || info.active_zones != model_active_zones(m))
        return rig_say(r, "info: open %u active %u, expected %u and %u", info.open_zones,
                       info.active_zones, model_open_zones(m), model_active_zones(m));
    return true;
}

static size_t first_difference(const uint8_t *a, const uint8_t *b, size_t len)
{
    size_t i = 0;

    while (i < len && a[i] == b[i])
        i++;
    return i;
}

static bool same_piece(struct rig *r, const struct model *m, uint8_t *buf, uint64_t off, size_t len)
{
    uint8_t want[4096];
    int rc;

    memset(buf, 0xee, len);
    rc = zqcow2_read(r->img, buf, len, off);
    if (rc)
        return rig_say(r, "read of %#zx at %#llx: %d", len, (unsigned long long)off, rc);
    for (size_t n; len; buf += n, off += n, len -= n) {
        size_t at;

        n = len < sizeof(want) ? len : sizeof(want);
        store_get(m->data, want, n, off);
        if (!memcmp(buf, want, n))
            continue;
        at = first_difference(buf, want, n);
        return rig_say(r, "byte at %#llx (zone %llu + %#llx): %#x, expected %#x",
                       (unsigned long long)(off + at),
                       (unsigned long long)((off + at) / m->g.zone_size),
                       (unsigned long long)((off + at) % m->g.zone_size), buf[at], want[at]);
    }
    return true;
}

bool rig_same_bytes(struct rig *r, const struct model *m, uint64_t off, uint64_t len)
{
    static uint8_t buf[1 << 20];

    for (uint64_t n; len; off += n, len -= n) {
        uint32_t i = (uint32_t)(off / m->g.zone_size);
        uint64_t room = model_zone_end(m, i) - off;

        n = len < sizeof(buf) ? len : sizeof(buf);
        n = n < room ? n : room;
        if (m->zone[i].forced != ZQCOW2_ZONE_OFFLINE &&
            (!same_piece(r, m, buf, off, n) || !rig_same_status(r, m, off, n)))
            return false;
    }
    return true;
}

/* In zones of a gibibyte, the ends of what is and of what could be written have to do. */
bool rig_same(struct rig *r, const struct model *m)
{
    const uint64_t most = MiB(8), end = KiB(256);

    for (uint32_t i = 0; i < m->nr; i++) {
        uint64_t start = rig_start(r, i), len = model_zone_end(m, i) - start;

        if (len <= most ?
                !rig_same_bytes(r, m, start, len) :
                !rig_same_bytes(r, m, start, most) || !rig_same_bytes(r, m, start + len - end, end))
            return false;
    }
    return rig_same_report(r, m);
}

const char *rig_state_name(unsigned state)
{
    static const char *const names[] = {"NOT_WP", "EMPTY",  "IMP_OPEN", "EXP_OPEN", "CLOSED", "?",
                                        "?",      "?",      "?",        "?",        "?",      "?",
                                        "?",      "RDONLY", "FULL",     "OFFLINE"};

    return state < sizeof(names) / sizeof(*names) ? names[state] : "?";
}

const char *rig_op_name(int op)
{
    static const char *const names[] = {"read",  "write",     "append", "write_zeroes", "discard",
                                        "flush", "drain",     "open",   "close",        "finish",
                                        "reset", "set_state", "status"};

    return op >= 0 && (size_t)op < sizeof(names) / sizeof(*names) ? names[op] : "?";
}
