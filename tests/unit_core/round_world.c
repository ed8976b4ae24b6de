/* SPDX-License-Identifier: MIT */
/* Builds the core, changes the chains, and keeps the picture of the disk. */
#include "unit_core/round_world.h"

#include "base/bytes.h"

/* ---- begin and end ---- */

static void end_of_operation(struct zq_core *c, struct zq_op *op, int rc)
{
    (void)c;
    (void)op;
    fail_msg("no operation runs here: %d", rc);
}

static bool nothing_to_do(struct zq_core *c)
{
    (void)c;
    return false;
}

static const struct zq_upper upper = {end_of_operation, nothing_to_do};

static uint64_t start_of(unsigned i)
{
    return (uint64_t)i << ZONE_BITS;
}

static uint8_t *place(struct round_world *w, enum part p, unsigned i)
{
    static const uint64_t at[PARTS] = {AT_REFS, AT_TABLE + 64 * 8, AT_L1, AT_L2, AT_WP};

    return w->dev.file + at[p] + i * (p == REFS || p == L2 ? CLUSTER : 8);
}

/* In the file: also of the tables that an image keeps in memory. */
static void put_version(struct round_world *w, enum part p, unsigned i, uint64_t v)
{
    w->memory[p][i] = v;
    zq_put_be64(place(w, p, i), v);
    if (p == TABLE)
        w->core.alloc.refs.table.v[64 + i] = v;
    if (p == L1)
        w->core.map.l1.v[i] = v;
}

static void set_zones(struct round_world *w, uint32_t max_active, const uint64_t *pointers)
{
    struct zq_zones *zs = &w->core.zones;

    for (unsigned i = 0; i < CHAINS; i++) {
        w->memory[WP][i] = pointers ? pointers[i] : 0;
        zq_put_be64(w->dev.file + AT_WP + 8 * i, start_of(i) + w->memory[WP][i] * 512);
        for (unsigned p = 0; p < WP && w->memory[WP][i]; p++)
            put_version(w, (enum part)p, i, ZONE_SECTORS);
    }
    const struct zq_geometry g = {.device_size = (uint64_t)CHAINS << ZONE_BITS,
                                  .zone_size = (uint64_t)1 << ZONE_BITS,
                                  .capacity = (uint64_t)1 << ZONE_BITS,
                                  .table_offset = AT_WP,
                                  .nr_zones = CHAINS,
                                  .max_active = max_active,
                                  .layout = ZQCOW2_LAYOUT_44,
                                  .zone_bits = ZONE_BITS,
                                  .code = {.big_endian = true, .flag_bit = 63}};
    assert_int_equal(
        zq_zones_open(zs, &(struct zq_zones_params){&g, &w->hooks, &w->core.ready,
                                                    w->dev.file + AT_WP, ZQCOW2_RULES_LINUX, NULL}),
        0);
}

static void set_tables(struct round_world *w)
{
    struct zq_core *c = &w->core;
    const struct zq_alloc_params alloc = {.cache = &c->cache,
                                          .cluster_bits = 12,
                                          .refcount_order = 4,
                                          .table_offset = AT_TABLE,
                                          .table_entries = 512,
                                          .file_size = FILE_SIZE};
    const struct zq_map_params map = {.cache = &c->cache,
                                      .alloc = &c->alloc,
                                      .form = {.cluster_bits = 12, .version = 3},
                                      .l1_offset = AT_L1,
                                      .l1_entries = 64};

    assert_int_equal(zq_alloc_open(&c->alloc, &alloc), 0);
    assert_int_equal(zq_map_open(&c->map, &map), 0);
}

static struct zq_slice *pinned(struct round_world *w, struct zq_gather *g, uint64_t at,
                               enum zq_slice_kind kind)
{
    struct zq_slice *s = NULL;

    if (zq_cache_pin(&w->core.cache, g, at, kind, &s) == ZQ_WAIT) {
        fake_run(&w->dev, &w->core.x);
        zq_list_del(&g->wait.link);
        zq_cache_reenter(g);
        assert_int_equal(zq_cache_pin(&w->core.cache, g, at, kind, &s), 0);
    }
    return s;
}

static struct zq_gather fresh(void)
{
    return (struct zq_gather){.npins = 0};
}

/* Loaded before the test begins, so that no read stands between the writes of a round. */
static void load_all(struct round_world *w)
{
    for (unsigned i = 0; i < CHAINS; i++) {
        struct zq_gather g = fresh();

        zq_list_init(&g.wait.link);
        pinned(w, &g, AT_REFS + i * CLUSTER, ZQ_SLICE_REFS);
        pinned(w, &g, AT_L2 + i * CLUSTER, ZQ_SLICE_L2);
        zq_cache_release(&w->core.cache, &g);
    }
    w->dev.nr_log = 0;
}

void round_begin(struct round_world *w, uint64_t seed, uint32_t max_active,
                 const uint64_t *pointers)
{
    struct zq_core *c = &w->core;

    memset(w, 0, sizeof(*w));
    w->seed = w->rng = seed;
    heap_init(&w->heap);
    w->hooks = heap_hooks(&w->heap);
    fake_init(&w->dev, FILE_SIZE, FILE_SIZE);
    c->hooks = w->hooks;
    c->be = &w->dev.be;
    c->upper = &upper;
    c->writable = c->zoned = c->marked = true;
    c->hdr.version = 3;
    c->hdr.mark_offset = MARK_AT;
    assert_int_equal(pthread_mutex_init(&c->mutex, NULL), 0);
    assert_int_equal(pthread_cond_init(&c->cond, NULL), 0);
    assert_int_equal(zq_core_init(c), 0);
    assert_int_equal(zq_cache_init(&c->cache, &c->x, &c->ready, CLUSTER, 64 * CLUSTER), 0);
    set_tables(w);
    set_zones(w, max_active, pointers);
    zq_core_lock(c);
    load_all(w);
    memcpy(w->low, w->memory, sizeof(w->low));
    memcpy(w->high, w->memory, sizeof(w->high));
}

void round_end_world(struct round_world *w)
{
    struct zq_core *c = &w->core;

    zq_core_unlock(c);
    zq_core_fini(c);
    pthread_cond_destroy(&c->cond);
    pthread_mutex_destroy(&c->mutex);
    fake_free(&w->dev);
    assert_null(heap_verdict(&w->heap));
    heap_destroy(&w->heap);
}

/* ---- changes, as operations make them ---- */

bool map_chain(struct round_world *w, unsigned i)
{
    struct zq_core *c = &w->core;
    struct zq_gather g = fresh();
    struct zq_slice *refs, *l2;
    uint64_t v = w->memory[REFS][i] + 1;
    int rc;

    if (c->alloc.refs.table.frozen || c->map.l1.frozen)
        return false;
    zq_list_init(&g.wait.link);
    refs = pinned(w, &g, AT_REFS + i * CLUSTER, ZQ_SLICE_REFS);
    l2 = pinned(w, &g, AT_L2 + i * CLUSTER, ZQ_SLICE_L2);
    rc = zq_cache_writable(&c->cache, &g, refs, l2);
    if (rc == ZQ_WAIT)
        zq_list_del(&g.wait.link);
    if (rc == 0) {
        zq_put_be64(refs->data, v);
        zq_cache_dirty(&c->cache, refs);
        c->alloc.refs.table.v[64 + i] = v;
        c->alloc.refs.table.dirty[(64 + i) * 8 / 512] = ZQ_SECTOR_DIRTY;
        c->alloc.refs.table.is_dirty = true;
        c->map.l1.v[i] = v;
        c->map.l1.dirty[0] = ZQ_SECTOR_DIRTY;
        c->map.l1.is_dirty = true;
        zq_put_be64(l2->data, v);
        zq_cache_dirty(&c->cache, l2);
        for (unsigned p = 0; p < WP; p++)
            w->memory[p][i] = v;
    }
    zq_cache_release(&c->cache, &g);
    return rc == 0;
}

void write_chain(struct round_world *w, unsigned i, uint64_t n)
{
    struct zq_zones *zs = &w->core.zones;
    struct zq_reservation r;

    expect(w, zq_zone_live(zs, i) && zs->v[i].state != ZQCOW2_ZONE_FULL);
    if (zs->v[i].state != ZQCOW2_ZONE_IMP_OPEN)
        zq_zone_set_state(zs, i, ZQCOW2_ZONE_IMP_OPEN);
    zq_zone_reserve(zs, i, &r, n * 512);
    expect(w, zq_zone_commit_first(zs, i, &r));
    w->memory[WP][i] += n;
    w->data_of[i] = ++w->data;
    w->core.x.unbarriered = true; /* its data went to the file a moment ago */
}

void reset_chain(struct round_world *w, unsigned i)
{
    expect(w, zq_zone_live(&w->core.zones, i));
    zq_zone_do_reset(&w->core.zones, i, 0);
    w->memory[WP][i] = 0;
    w->lives[i]++;
}

void finish_chain(struct round_world *w, unsigned i)
{
    expect(w, zq_zone_live(&w->core.zones, i));
    zq_zone_do_finish(&w->core.zones, i);
    w->memory[WP][i] = ZONE_SECTORS;
}

/* ---- rounds, and the picture of the disk ---- */

/* What completes behind a barrier's beginning is not covered by it. */
static void note_barrier(struct round_world *w)
{
    const struct zq_iox *x = &w->core.x;
    bool now = fake_started(x) && fake_io(x, 0)->pub.kind == ZQCOW2_IO_FLUSH;

    if (now && !w->in_barrier)
        w->data_asked = w->data;
    w->in_barrier = now;
}

void start_round(struct round_world *w)
{
    memcpy(w->snap, w->memory, sizeof(w->snap));
    memcpy(w->snap_lives, w->lives, sizeof(w->lives));
    memcpy(w->snap_data, w->data_of, sizeof(w->data_of));
    zq_loop_begin(&w->core);
    zq_round_start(&w->core);
    note_barrier(w);
}

static uint64_t in_file(struct round_world *w, enum part p, unsigned i)
{
    uint64_t v = zq_be64(place(w, p, i));

    return p == WP ? (v - start_of(i)) / 512 : v;
}

/* What the write has brought is what the capture had, or a reset since: never something newer. */
static void written(struct round_world *w, enum part p, unsigned i, uint64_t before)
{
    uint64_t v = in_file(w, p, i);

    if (v == before)
        return;
    expect(w, v == w->snap[p][i] || (p == WP && v == 0 && w->lives[i] != w->snap_lives[i]));
    if (p == WP && v > before)
        expect(w, w->data_durable >= w->snap_data[i]);
    w->low[p][i] = v < w->low[p][i] ? v : w->low[p][i];
    w->high[p][i] = v > w->high[p][i] ? v : w->high[p][i];
}

static void barrier_done(struct round_world *w)
{
    for (unsigned p = 0; p < PARTS; p++) {
        for (unsigned i = 0; i < CHAINS; i++)
            w->low[p][i] = w->high[p][i] = in_file(w, (enum part)p, i);
    }
    w->data_durable = w->data_asked;
}

void complete(struct round_world *w, unsigned k, int ret)
{
    uint64_t before[PARTS][CHAINS];
    struct zq_io *io = fake_io(&w->core.x, k);
    uint32_t kind = io->pub.kind;
    bool others = fake_started(&w->core.x) > 1;

    for (unsigned p = 0; p < PARTS; p++) {
        for (unsigned i = 0; i < CHAINS; i++)
            before[p][i] = in_file(w, (enum part)p, i);
    }
    /* K2: a barrier stands alone, behind all writes of its stage and before all of the next. */
    expect(w, kind != ZQCOW2_IO_FLUSH || !others);
    if (ret < 0 && kind == ZQCOW2_IO_WRITE && rng_below(&w->rng, 2))
        memcpy(w->dev.file + io->pub.offset, io->pub.iov->iov_base, (size_t)io->pub.length);
    if (ret == 0 && kind == ZQCOW2_IO_FLUSH)
        barrier_done(w);
    w->in_barrier = false;
    fake_complete(&w->dev, &w->core.x, k, ret);
    for (unsigned p = 0; p < PARTS; p++) {
        for (unsigned i = 0; i < CHAINS; i++)
            written(w, (enum part)p, i, before[p][i]);
    }
    note_barrier(w);
}

void check_disk(struct round_world *w)
{
    for (unsigned i = 0; i < CHAINS; i++) {
        expect(w, w->high[TABLE][i] <= w->low[REFS][i]);
        expect(w, w->high[L1][i] <= w->low[REFS][i]);
        expect(w, w->high[L2][i] <= w->low[TABLE][i]);
        expect(w, w->high[WP][i] <= w->low[L1][i]);
        expect(w, w->high[WP][i] <= w->low[L2][i]);
    }
}
