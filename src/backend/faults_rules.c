/* SPDX-License-Identifier: MIT */
/* The rules of a faults backend: which requests fail or are delayed. */
#include <errno.h>
#include <inttypes.h>

#include "backend/faults_int.h"
#include "base/bytes.h"
#include "base/random.h"

#define DELAY_MAX 60000000u /* a minute, in microseconds */

struct rule {
    struct zq_list link; /* oldest first */
    struct zqcow2_faults_rule r;
    uint64_t number;     /* in the log */
    uint64_t seen, hits; /* requests */
    uint64_t rng;
};

/* A flush has no range, and a truncate has no end: both touch every rule's range. */
static bool matches(const struct zqcow2_faults_rule *r, uint32_t kind, uint64_t off, uint64_t len)
{
    if (!(r->kinds & 1u << kind))
        return false;
    if (kind == ZQCOW2_IO_FLUSH || kind == ZQCOW2_IO_TRUNCATE)
        return true;
    return zq_ranges_overlap(off, len, r->offset, r->length ? r->length : UINT64_MAX - r->offset);
}

/* Counts the request in any case. */
static bool is_due(struct rule *p)
{
    uint64_t n = ++p->seen, nth = p->r.nth, every = p->r.every;

    if (n < nth || (every ? (n - nth) % every : n != nth))
        return false;
    if (p->r.count && p->hits == p->r.count)
        return false;
    p->hits++;
    return true;
}

/* Each rule has its own sequence: another rule does not change its delays. */
static uint64_t draw_delay(struct rule *p)
{
    uint64_t range = (uint64_t)p->r.delay_max - p->r.delay_min + 1;

    return p->r.delay_min + zq_random(&p->rng) % range;
}

/* All rules count a request, also after one has made it fail: they are independent. */
int zq_rules_hit(struct zqcow2_faults *f, uint32_t kind, uint64_t off, uint64_t len,
                 uint64_t *delay)
{
    int error = 0;

    *delay = 0;
    for (struct zq_list *l = f->rules.next; l != &f->rules; l = l->next) {
        struct rule *p = zq_container(l, struct rule, link);
        uint64_t us;

        if (!matches(&p->r, kind, off, len) || !is_due(p))
            continue;
        us = draw_delay(p);
        *delay += us;
        if (!error)
            error = p->r.error;
        zq_faults_say(
            f, "rule %" PRIu64 ": %s, %" PRIu64 " bytes at %" PRIu64 ": error %d, %" PRIu64 " us",
            p->number, zq_faults_kind(kind), len, off, p->r.error, us);
    }
    return error;
}

static bool is_wrong(const struct zqcow2_faults_rule *r)
{
    return !r->nth || !r->kinds || r->kinds >= 2u << ZQCOW2_IO_TRUNCATE || r->error > 0 ||
           r->error < -4095 || r->offset > INT64_MAX || r->length > INT64_MAX ||
           r->delay_min > r->delay_max || r->delay_max > DELAY_MAX;
}

int zqcow2_faults_add_rule(struct zqcow2_faults *f, const struct zqcow2_faults_rule *rule)
{
    struct rule *p;
    int rc;

    if (!f || !rule)
        return -EINVAL;
    p = zq_zalloc(&f->hooks, sizeof(*p));
    if (!p)
        return -ENOMEM;
    rc = zq_copy_sized(&p->r, sizeof(p->r), rule, sizeof(p->r));
    if (rc == 0 && is_wrong(&p->r))
        rc = -EINVAL;
    if (rc < 0) {
        zq_free(&f->hooks, p, sizeof(*p));
        return rc;
    }
    p->rng = p->r.seed;
    pthread_mutex_lock(&f->lock);
    p->number = ++f->nr_rules;
    zq_list_push(&f->rules, &p->link);
    pthread_mutex_unlock(&f->lock);
    return 0;
}

void zq_rules_clear(struct zqcow2_faults *f)
{
    for (struct zq_list *l; (l = zq_list_pop(&f->rules));)
        zq_free(&f->hooks, zq_container(l, struct rule, link), sizeof(struct rule));
}

void zqcow2_faults_clear_rules(struct zqcow2_faults *f)
{
    pthread_mutex_lock(&f->lock);
    zq_rules_clear(f);
    pthread_mutex_unlock(&f->lock);
}
