/* SPDX-License-Identifier: MIT */
/* Names of states and layouts, what a zone says to an error, the walk over an image's zones. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include <zqcow2/device.h>
#include "tool.h"

#define CHUNK 1024u /* zones in one report */

const char *zt_state_name(unsigned state)
{
    static const char *const names[16] = {
        [ZQCOW2_ZONE_NOT_WP] = "NOT_WP",     [ZQCOW2_ZONE_EMPTY] = "EMPTY",
        [ZQCOW2_ZONE_IMP_OPEN] = "IMP_OPEN", [ZQCOW2_ZONE_EXP_OPEN] = "EXP_OPEN",
        [ZQCOW2_ZONE_CLOSED] = "CLOSED",     [ZQCOW2_ZONE_RDONLY] = "READ_ONLY",
        [ZQCOW2_ZONE_FULL] = "FULL",         [ZQCOW2_ZONE_OFFLINE] = "OFFLINE",
    };

    return state < ZT_COUNT(names) && names[state] ? names[state] : "unknown";
}

/* A name as reports print it, in any case, with '-' or '_'; "open" is both kinds. */
static bool add_state(const char *name, size_t n, uint32_t *states)
{
    uint32_t add = 0;
    char text[16];

    if (n >= sizeof(text))
        return false;
    for (size_t i = 0; i < n; i++)
        text[i] = name[i] == '-' ? '_' : name[i];
    text[n] = 0;
    if (!strcasecmp(text, "open"))
        add = ZQCOW2_STATE_BIT(ZQCOW2_ZONE_IMP_OPEN) | ZQCOW2_STATE_BIT(ZQCOW2_ZONE_EXP_OPEN);
    for (unsigned s = 0; s < 16; s++) {
        if (!strcasecmp(text, zt_state_name(s)) && strcmp(zt_state_name(s), "unknown") != 0)
            add = ZQCOW2_STATE_BIT(s);
    }
    *states |= add;
    return add;
}

bool zt_parse_states(const char *text, uint32_t *states)
{
    for (const char *at = text, *end;; at = end + 1) {
        end = strchr(at, ',');
        end = end ? end : at + strlen(at);
        if (!add_state(at, (size_t)(end - at), states))
            return zt_error("--state: \"%s\" is not a list of zone states", text), false;
        if (!*end)
            return true;
    }
}

bool zt_parse_forced(const char *text, unsigned *state)
{
    static const struct {
        const char *name;
        unsigned state;
    } states[] = {{"normal", ZQCOW2_ZONE_NOT_WP},
                  {"read-only", ZQCOW2_ZONE_RDONLY},
                  {"offline", ZQCOW2_ZONE_OFFLINE}};

    for (size_t i = 0; i < ZT_COUNT(states); i++) {
        if (!strcmp(text, states[i].name)) {
            *state = states[i].state;
            return true;
        }
    }
    return false;
}

const char *zt_type_name(unsigned type)
{
    return type == ZQCOW2_ZONE_CONVENTIONAL ? "conventional" : "sequential";
}

const char *zt_layout_name(uint32_t layout)
{
    switch (layout) {
    case ZQCOW2_LAYOUT_V3: return "v3";
    case ZQCOW2_LAYOUT_V7: return "v7";
    case ZQCOW2_LAYOUT_44: return "44";
    case ZQCOW2_LAYOUT_48B: return "48b";
    case ZQCOW2_LAYOUT_56: return "56";
    default: return NULL;
    }
}

static const char *condition(const struct zqcow2_zone *z)
{
    switch (z->state) {
    case ZQCOW2_ZONE_NOT_WP: return "conventional";
    case ZQCOW2_ZONE_RDONLY: return "read-only";
    case ZQCOW2_ZONE_FULL: return "full";
    case ZQCOW2_ZONE_OFFLINE: return "offline";
    default: return z->state == ZQCOW2_ZONE_EMPTY ? "empty" : "partly written";
    }
}

/* What the zone has to do with the error `rc`; false: nothing. */
static bool explain(int rc, const struct zqcow2_info *i, const struct zqcow2_zone *z, char *buf,
                    size_t room)
{
    switch (rc) {
    case ZQCOW2_EZONE_WP:
        snprintf(buf, room, "the zone at %" PRIu64 " is written up to %" PRIu64, z->start,
                 z->write_pointer);
        return true;
    case ZQCOW2_EZONE_BOUNDARY:
        snprintf(buf, room, "the zone at %" PRIu64 " can be written up to %" PRIu64, z->start,
                 z->start + z->capacity);
        return true;
    case ZQCOW2_EZONE_OPEN:
    case ZQCOW2_EZONE_ACTIVE:
        snprintf(buf, room, "the limit is %" PRIu32,
                 rc == ZQCOW2_EZONE_OPEN ? i->max_open_zones : i->max_active_zones);
        return true;
    case ZQCOW2_EZONE_STATE:
    case ZQCOW2_EZONE_FULL:
    case ZQCOW2_EZONE_RDONLY:
    case ZQCOW2_EZONE_OFFLINE:
        snprintf(buf, room, "the zone at %" PRIu64 " is %s", z->start, condition(z));
        return true;
    default: return false;
    }
}

const char *zt_zone_reason(struct zqcow2_image *img, int rc, uint64_t off, char *buf, size_t room)
{
    struct zqcow2_info info = ZQCOW2_INFO_INIT;
    struct zqcow2_zone zone;
    uint32_t nr = 1;
    char why[128];

    if (zqcow2_get_info(img, &info) < 0 || zqcow2_zone_report(img, off, &zone, &nr) < 0 ||
        !explain(rc, &info, &zone, why, sizeof(why)))
        return zqcow2_strerror(rc);
    snprintf(buf, room, "%s (%s)", zqcow2_strerror(rc), why);
    return buf;
}

int zt_each_zone(struct zqcow2_image *img, const struct zqcow2_info *info, uint64_t off,
                 uint64_t count, uint32_t states,
                 void (*fn)(void *arg, uint64_t index, const struct zqcow2_zone *z), void *arg)
{
    struct zqcow2_zone *zones = zt_buffer(CHUNK * sizeof(*zones));
    int rc = zones ? 0 : -ENOMEM;

    while (rc == 0 && count) {
        uint32_t nr = count < CHUNK ? (uint32_t)count : CHUNK;

        rc = zqcow2_zone_find(img, &off, states, zones, &nr);
        for (uint32_t i = 0; rc == 0 && i < nr; i++)
            fn(arg, zones[i].start / info->zone_size, &zones[i]);
        if (rc < 0 || off >= info->virtual_size)
            break;
        count -= nr;
    }
    free(zones);
    return rc;
}
