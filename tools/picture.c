/* SPDX-License-Identifier: MIT */
/* report --map: the device as a picture, a cell per zone or per group of zones. */
#include <errno.h>
#include <inttypes.h>
#include <langinfo.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "tool.h"

#define LABEL      10  /* columns in front of a row */
#define MOST_ROWS  16u /* more zones than fit make each cell stand for several */
#define MOST_CELLS 128u

/* In the order of precedence: the first state that a cell's zones hold names the cell. */
static const struct {
    uint8_t state;
    char letter;
    const char *colour, *text;
} states[] = {
    {ZQCOW2_ZONE_OFFLINE, 'x', "1;31", "offline"},
    {ZQCOW2_ZONE_RDONLY, 'r', "35", "read-only"},
    {ZQCOW2_ZONE_EXP_OPEN, 'O', "1;32", "explicitly open"},
    {ZQCOW2_ZONE_IMP_OPEN, 'o', "32", "implicitly open"},
    {ZQCOW2_ZONE_CLOSED, 'c', "33", "closed"},
    {ZQCOW2_ZONE_FULL, 'f', "34", "full"},
    {ZQCOW2_ZONE_NOT_WP, '-', "36", "conventional"},
    {ZQCOW2_ZONE_EMPTY, '.', "2", "empty"},
};
#define NR_STATES ZT_COUNT(states)

struct cell {
    uint64_t used, capacity; /* of the zones with a write pointer */
    unsigned state;          /* index in states[] */
};

struct map {
    struct cell *cells;
    uint64_t first, group, nr_cells;
    uint64_t counts[NR_STATES];
    unsigned width; /* cells in a row */
    bool colour, utf8;
};

static unsigned state_index(uint8_t state)
{
    for (unsigned i = 0; i < NR_STATES; i++) {
        if (states[i].state == state)
            return i;
    }
    return 0; /* a state unknown to us must not pass as a healthy one */
}

static void add_zone(void *arg, uint64_t index, const struct zqcow2_zone *z)
{
    struct map *m = arg;
    struct cell *c = &m->cells[(index - m->first) / m->group];
    unsigned s = state_index(z->state);

    m->counts[s]++;
    if (s < c->state)
        c->state = s;
    if (z->type == ZQCOW2_ZONE_CONVENTIONAL || z->write_pointer == UINT64_MAX)
        return;
    c->capacity += z->capacity;
    c->used +=
        z->write_pointer - z->start < z->capacity ? z->write_pointer - z->start : z->capacity;
}

static unsigned terminal_width(void)
{
    const char *columns = getenv("COLUMNS");
    struct winsize ws;
    uint64_t n;

    if (isatty(STDOUT_FILENO) == 1 && ioctl(STDOUT_FILENO, TIOCGWINSZ, &ws) == 0 && ws.ws_col)
        return ws.ws_col;
    return columns && zt_parse_u64(columns, &n) && n && n < 4096 ? (unsigned)n : 80;
}

/* On a terminal that has colours, to a user who has not said no. */
static bool wants_colour(void)
{
    const char *no = getenv("NO_COLOR");
    const char *term = getenv("TERM");

    return isatty(STDOUT_FILENO) == 1 && !(no && *no) && term && *term && strcmp(term, "dumb") != 0;
}

/* Rows of a power of two: the labels stay round numbers. */
static void lay_out(struct map *m, uint64_t nr_zones)
{
    unsigned room = terminal_width();

    room = room > LABEL + 8 ? room - LABEL : 8;
    m->width = 8;
    while (m->width * 2 <= room && m->width < MOST_CELLS)
        m->width *= 2;
    m->group = 1;
    while ((nr_zones + m->group - 1) / m->group > (uint64_t)m->width * MOST_ROWS)
        m->group *= 2;
    m->nr_cells = (nr_zones + m->group - 1) / m->group;
    m->colour = wants_colour();
    m->utf8 = strcmp(nl_langinfo(CODESET), "UTF-8") == 0;
}

/* Anything written shows, and only what is full to the brim looks full. */
static const char *fill_glyph(const struct map *m, const struct cell *c)
{
    static const char *const blocks[] = {"\u00b7", "\u2581", "\u2582", "\u2583", "\u2584",
                                         "\u2585", "\u2586", "\u2587", "\u2588"};
    static const char *const letters[] = {".", "1", "2", "3", "4", "5", "6", "7", "#"};
    unsigned level;

    if (c->capacity == 0)
        return states[c->state].state == ZQCOW2_ZONE_NOT_WP ? "~" : "?";
    if (c->used == 0)
        level = 0;
    else if (c->used == c->capacity)
        level = 8;
    else
        level = 1 + (unsigned)((double)c->used * 7.0 / (double)c->capacity);
    if (level > 7 && c->used < c->capacity)
        level = 7;
    return m->utf8 ? blocks[level] : letters[level];
}

static void put_cell(const struct map *m, const struct cell *c, const char *text)
{
    if (m->colour)
        printf("\033[%sm%s\033[0m", states[c->state].colour, text);
    else
        fputs(text, stdout);
}

static void print_row(const struct map *m, uint64_t row, uint64_t zone_size)
{
    uint64_t from = row * m->width;
    uint64_t to = from + m->width < m->nr_cells ? from + m->width : m->nr_cells;
    char label[32];

    zt_human(label, sizeof(label), (m->first + from * m->group) * zone_size);
    printf("%*s ", LABEL - 1, label);
    for (uint64_t i = from; i < to; i++)
        put_cell(m, &m->cells[i], fill_glyph(m, &m->cells[i]));
    printf("\n%*s", LABEL, "");
    for (uint64_t i = from; i < to; i++) {
        char letter[2] = {states[m->cells[i].state].letter, '\0'};

        put_cell(m, &m->cells[i], letter);
    }
    printf("\n");
}

static void print_limit(const char *what, uint32_t now, uint32_t limit)
{
    printf(", %s %" PRIu32, what, now);
    if (limit)
        printf("/%" PRIu32, limit);
}

static void print_head(const struct map *m, const struct zqcow2_info *i, const char *path)
{
    char device[32], zone[32], capacity[32];

    zt_put(stdout, path);
    printf(": %s, %" PRIu32 " zones of %s", zt_human(device, sizeof(device), i->virtual_size),
           i->nr_zones, zt_human(zone, sizeof(zone), i->zone_size));
    if (i->zone_capacity != i->zone_size)
        printf(" (capacity %s)", zt_human(capacity, sizeof(capacity), i->zone_capacity));
    print_limit("open", i->open_zones, i->max_open_zones);
    print_limit("active", i->active_zones, i->max_active_zones);
    printf("\na cell is %" PRIu64 " zone%s: fill level above, state below\n\n", m->group,
           m->group == 1 ? "" : "s");
}

static void print_legend(const struct map *m)
{
    const char *gap = "\n";

    for (unsigned i = 0; i < NR_STATES; i++) {
        struct cell c = {.state = i};
        char letter[2] = {states[i].letter, '\0'};

        if (!m->counts[i])
            continue;
        fputs(gap, stdout);
        put_cell(m, &c, letter);
        printf(" %s %" PRIu64, states[i].text, m->counts[i]);
        gap = "   ";
    }
    printf("\n");
}

int zt_picture(struct zqcow2_image *img, const struct zqcow2_info *info, uint64_t off,
               uint64_t count, const char *path)
{
    struct map m = {.first = off / info->zone_size};
    uint64_t nr = info->nr_zones - m.first < count ? info->nr_zones - m.first : count;
    int rc;

    lay_out(&m, nr);
    m.cells = calloc(m.nr_cells ? (size_t)m.nr_cells : 1, sizeof(*m.cells));
    if (!m.cells)
        return -ENOMEM;
    for (uint64_t i = 0; i < m.nr_cells; i++)
        m.cells[i].state = NR_STATES - 1;
    rc = zt_each_zone(img, info, off, nr, 0, add_zone, &m);
    if (rc == 0) {
        print_head(&m, info, path);
        for (uint64_t row = 0; row * m.width < m.nr_cells; row++)
            print_row(&m, row, info->zone_size);
        print_legend(&m);
    }
    free(m.cells);
    return rc;
}
