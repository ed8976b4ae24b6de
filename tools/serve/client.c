/* SPDX-License-Identifier: MIT */
/* `zqcow2 serve ctl`: the command line, the line that it becomes, and what is made of the answer.
 */
#include "serve/client.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "serve/control.h"
#include "serve/ctl.h"
#include "serve/escape.h"
#include "serve/kinds.h"
#include "serve/socket.h"
#include "serve/stats.h"
#include "tool.h"

/* ---- which server ---- */

/* Is it the name that `serve list` prints, a number or an image of this kind? */
static bool is_server(const struct serve_kind *kind, const char *name, struct serve_state *s)
{
    size_t n = strlen(kind->name);

    if (!strncmp(name, kind->name, n) && name[n] && !name[n + strspn(name + n, "0123456789")])
        name += n;
    return serve_lookup(kind, name, s) && s->alive;
}

static bool find_server(struct serve_client *c)
{
    struct serve_state s, other;
    struct stat st;
    bool ublk, vhost;

    if (!stat(c->name, &st) && S_ISSOCK(st.st_mode)) {
        snprintf(c->path, sizeof(c->path), "%s", c->name);
        return true;
    }
    ublk = is_server(&ublk_kind, c->name, &s);
    vhost = is_server(&vhost_kind, c->name, ublk ? &other : &s);
    if (ublk && vhost)
        zt_error("%s: there are two such servers; give the name that zqcow2 serve list prints",
                 c->name);
    else if (!ublk && !vhost)
        zt_error("%s: no such server (see zqcow2 serve list)", c->name);
    else
        snprintf(c->path, sizeof(c->path), "%s", s.ctl);
    return ublk != vhost;
}

/* ---- a line and its answer ---- */

static bool send_all(int fd, const char *text, size_t n)
{
    while (n) {
        ssize_t sent = send(fd, text, n, MSG_NOSIGNAL);

        if (sent < 0 && errno == EINTR)
            continue;
        if (sent < 0)
            return false;
        text += sent;
        n -= (size_t)sent;
    }
    return true;
}

/* Until the server closes the connection; NULL: an error of the connection or of memory. */
static char *receive_all(int fd)
{
    char *text = NULL, part[4096];
    size_t size;
    FILE *f = open_memstream(&text, &size);
    ssize_t n = 1;

    while (f && n) {
        n = recv(fd, part, sizeof(part), 0);
        if (n < 0 && errno != EINTR)
            break;
        if (n > 0)
            fwrite(part, 1, (size_t)n, f);
    }
    if ((f && fclose(f)) || n < 0) {
        free(text);
        return NULL;
    }
    return text;
}

static char *exchange(const struct serve_client *c, const char *line, size_t n)
{
    int fd = serve_socket_connect(c->path);
    char *text = NULL;

    if (fd < 0) {
        zt_error("%s: %s", c->name,
                 fd == -ENOENT || fd == -ECONNREFUSED ? "no server answers" : strerror(-fd));
        return NULL;
    }
    if (send_all(fd, line, n))
        text = receive_all(fd);
    if (!text)
        zt_error("%s: %s", c->name, strerror(errno));
    close(fd);
    return text;
}

/* The lines of the answer, which the caller frees; NULL after a message. */
static char *ask(const struct serve_client *c, const char *line, size_t size)
{
    char *text = exchange(c, line, size);
    size_t n = text ? strlen(text) : 0;

    if (!text)
        return NULL;
    if (n >= 2 && text[0] == '-' && text[n - 1] == '\n') {
        text[n - 1] = '\0';
        zt_error("%s: %s", c->name, text + 1);
    } else if (n >= 3 && text[0] == '+' && !strcmp(text + n - 2, ".\n")) {
        text[n - 2] = '\0';
        memmove(text, text + 1, n - 2);
        return text;
    } else {
        zt_error("%s: the answer of the server is incomplete", c->name);
    }
    free(text);
    return NULL;
}

/* The words of a command; NULL after a message. */
static char *call_server(const struct serve_client *c, size_t nr, const char *const *words)
{
    char *line = NULL, *answer = NULL;
    size_t size;
    FILE *f = open_memstream(&line, &size);

    for (size_t i = 0; f && i < nr; i++) {
        if (i)
            putc(' ', f);
        serve_put_escaped(f, words[i], " ");
        if (!words[i][0])
            fputs("\\000", f);
    }
    if (f)
        putc('\n', f);
    if (!f || fclose(f))
        zt_error("%s", strerror(errno));
    else if (size > SERVE_CTL_LINE)
        zt_error("%s: the command is too long", c->name);
    else
        answer = ask(c, line, size);
    free(line);
    return answer;
}

int serve_order(const struct serve_client *c, size_t nr, const char *const *words)
{
    char *text = call_server(c, nr, words);

    if (text)
        fputs(text, stdout);
    free(text);
    return !text;
}

/* ---- stats ---- */

enum { OPT_JSON = ZT_OPT_VERB, OPT_WATCH, OPT_TIME, OPT_PERSIST };
/* Of the command bitmap, whose options are its own. */
enum { OPT_ADD = OPT_JSON + 1, OPT_REMOVE, OPT_CLEAR, OPT_ENABLE, OPT_DISABLE, OPT_LIST };

static bool get_stats(const struct serve_client *c, struct serve_stats *s)
{
    static const char *const words[] = {"stats"};
    char *text = call_server(c, 1, words);
    bool ok = text && serve_stats_parse(text, s);

    if (text && !ok)
        zt_error("%s: the server sent an invalid answer", c->name);
    free(text);
    return ok;
}

static void pause_for(uint32_t seconds)
{
    struct timespec left = {.tv_sec = (time_t)seconds};

    while (nanosleep(&left, &left) && errno == EINTR)
        ;
}

/* Until the server ends, nobody reads the output, or a signal. */
static int watch(const struct serve_client *c, uint32_t seconds, bool json)
{
    struct serve_stats before, now;
    double at = zt_now();

    if (!get_stats(c, &before))
        return 1;
    for (;;) {
        double then = at;

        pause_for(seconds);
        if (!get_stats(c, &now))
            return 1;
        at = zt_now();
        if (json)
            serve_stats_json(&now);
        else
            serve_stats_rates(&before, &now, at - then);
        if (fflush(stdout) || ferror(stdout))
            return 1;
        before = now;
    }
}

static int print_stats(const struct serve_client *c, bool json)
{
    struct serve_stats s;

    if (!get_stats(c, &s))
        return 1;
    if (json)
        serve_stats_json(&s);
    else
        serve_stats_print(&s);
    return 0;
}

static int run_stats(const struct serve_client *c, int argc, char **argv)
{
    static const struct option longs[] = {{"json", no_argument, NULL, OPT_JSON},
                                          {"watch", required_argument, NULL, OPT_WATCH},
                                          {"time", required_argument, NULL, OPT_TIME},
                                          ZT_OPTION_END};
    struct zt_options o = {.name = "serve", .shorts = ":", .longs = longs};
    const char *words[] = {"time", NULL};
    uint32_t seconds = 0;
    bool json = false, ok = true;
    int opt;

    while (ok && (opt = zt_option(&o, argc, argv)) != -1) {
        if (opt == OPT_JSON)
            json = true;
        else if (opt == OPT_WATCH)
            ok = serve_number("--watch", optarg, 1, 86400, &seconds);
        else if (opt == OPT_TIME)
            words[1] = optarg;
        else
            ok = false;
    }
    if (!ok || !zt_operands(argc, argv, 0, 0, NULL))
        return 1;
    if (words[1] && strcmp(words[1], "on") && strcmp(words[1], "off"))
        zt_error("--time: must be on or off, not '%s'", words[1]);
    else if (words[1] && (json || seconds))
        zt_error("serve: --time cannot be given with --json or --watch");
    else
        return words[1] ? serve_order(c, 2, words) :
               seconds  ? watch(c, seconds, json) :
                          print_stats(c, json);
    return 1;
}

/* ---- flush and zone ---- */

/* A command without options or operands. */
static int run_plain(const struct serve_client *c, int argc, char **argv)
{
    static const struct option none[] = {ZT_OPTION_END};
    const char *const words[] = {c->command};
    struct zt_options o = {.name = "serve", .shorts = ":", .longs = none};

    if (zt_option(&o, argc, argv) != -1 || !zt_operands(argc, argv, 0, 0, NULL))
        return 1;
    return serve_order(c, 1, words);
}

static int run_zone(const struct serve_client *c, int argc, char **argv)
{
    static const struct option longs[] = {{"persist", no_argument, NULL, OPT_PERSIST},
                                          ZT_OPTION_END};
    static const char *const names[] = {"OFFSET", "the state"};
    struct zt_options o = {.name = "serve", .shorts = ":", .longs = longs};
    const char *words[] = {"zone", NULL, NULL, "persist"};
    char number[32];
    uint64_t off;
    unsigned state;
    size_t nr = 3;
    int opt;

    while ((opt = zt_option(&o, argc, argv)) != -1) {
        if (opt != OPT_PERSIST)
            return 1;
        nr = 4;
    }
    if (!zt_operands(argc, argv, 2, 2, names) || !zt_size_arg("zone", argv[optind], &off))
        return 1;
    words[1] = number;
    words[2] = argv[optind + 1];
    snprintf(number, sizeof(number), "%" PRIu64, off);
    if (!zt_parse_forced(words[2], &state)) {
        zt_error("zone: must be normal, read-only or offline, not '%s'", words[2]);
        return 1;
    }
    return serve_order(c, nr, words);
}

/* ---- snapshots ---- */

/* One of them, once; false after a message. */
static bool choose(const char **what, const char *word, const char *options)
{
    if (*what)
        zt_error("serve: only one of %s can be given", options);
    if (*what)
        return false;
    *what = word;
    return true;
}

static int run_snapshot(const struct serve_client *c, int argc, char **argv)
{
    static const struct option longs[] = {{"json", no_argument, NULL, OPT_JSON}, ZT_OPTION_END};
    struct zt_options o = {.name = "serve", .shorts = ":lc:d:a:", .longs = longs};
    const char *words[] = {"snapshot", NULL, "text"};
    bool ok = true, json = false;
    int opt;

    while (ok && (opt = zt_option(&o, argc, argv)) != -1) {
        if (opt == OPT_JSON)
            json = true;
        else if (opt == 'l' || opt == 'c' || opt == 'd')
            ok = choose(&words[1],
                        opt == 'l' ? "list" :
                        opt == 'c' ? "take" :
                                     "delete",
                        "-l, -c and -d");
        else
            ok = false;
        if (opt == 'c' || opt == 'd')
            words[2] = optarg;
        else if (opt == 'a')
            zt_error("serve: a snapshot cannot be applied while the image is served");
    }
    if (!ok || !zt_operands(argc, argv, 0, 0, NULL))
        return 1;
    if (!words[1])
        words[1] = "list";
    if (json && strcmp(words[1], "list")) {
        zt_error("serve: --json is for -l only");
        return 1;
    }
    if (json)
        words[2] = "json";
    return serve_order(c, 3, words);
}

/* ---- bitmaps ---- */

struct bitmap {
    const char *what, *form; /* of a list, text or json */
    uint64_t granularity;    /* 0: the library's choice */
};

static bool parse_bitmap(struct bitmap *b, int argc, char **argv)
{
    static const char *const changes[] = {"add", "remove", "clear", "enable", "disable", "list"};
    static const struct option longs[] = {{"json", no_argument, NULL, OPT_JSON},
                                          {"add", no_argument, NULL, OPT_ADD},
                                          {"remove", no_argument, NULL, OPT_REMOVE},
                                          {"clear", no_argument, NULL, OPT_CLEAR},
                                          {"enable", no_argument, NULL, OPT_ENABLE},
                                          {"disable", no_argument, NULL, OPT_DISABLE},
                                          {"list", no_argument, NULL, OPT_LIST},
                                          {"granularity", required_argument, NULL, 'g'},
                                          ZT_OPTION_END};
    struct zt_options o = {.name = "serve", .shorts = ":g:", .longs = longs};
    bool ok = true;
    int opt;

    while (ok && (opt = zt_option(&o, argc, argv)) != -1) {
        if (opt == OPT_JSON)
            b->form = "json";
        else if (opt == 'g')
            ok = zt_size_arg("granularity", optarg, &b->granularity);
        else
            ok = opt >= OPT_ADD && opt <= OPT_LIST &&
                 choose(&b->what, changes[opt - OPT_ADD], "a list and changes");
    }
    if (ok && !b->what)
        b->what = "list";
    if (ok && strcmp(b->what, "list") && strcmp(b->form, "text"))
        zt_error("serve: --json is for --list only");
    else if (ok && b->granularity && strcmp(b->what, "add"))
        zt_error("serve: a granularity is for --add only");
    else
        return ok;
    return false;
}

static int run_bitmap(const struct serve_client *c, int argc, char **argv)
{
    static const char *const names[] = {"NAME"};
    struct bitmap b = {.form = "text"};
    const char *words[] = {"bitmap", NULL, NULL, NULL};
    char number[32];
    size_t nr = 2;
    bool list;

    if (!parse_bitmap(&b, argc, argv))
        return 1;
    list = !strcmp(b.what, "list");
    if (!zt_operands(argc, argv, !list, 1, names))
        return 1;
    words[1] = b.what;
    if (list)
        words[nr++] = b.form;
    if (argv[optind])
        words[nr++] = argv[optind];
    snprintf(number, sizeof(number), "%" PRIu64, b.granularity);
    if (b.granularity)
        words[nr++] = number;
    return serve_order(c, nr, words);
}

/* ---- the command line ---- */

static const struct {
    const char *name;
    int (*run)(const struct serve_client *c, int argc, char **argv);
} commands[] = {
    {"stats", run_stats},      {"events", run_plain},           {"flush", run_plain},
    {"zone", run_zone},        {"snapshot", run_snapshot},      {"bitmap", run_bitmap},
    {"cut", serve_client_cut}, {"fail", serve_client_fail},     {"delay", serve_client_delay},
    {"clear", run_plain},      {"resize", serve_client_resize}, {"compact", serve_client_compact},
};

int serve_ctl(int argc, char **argv)
{
    struct serve_client c = {.name = argc > 1 ? argv[1] : NULL};
    char verb[] = "serve";

    if (argc < 3) {
        zt_error("serve: %s is missing; see zqcow2 serve --help",
                 argc < 2 ? "ID|FILE|PATH" : "the command");
        return 1;
    }
    for (size_t i = 0; i < ZT_COUNT(commands); i++) {
        if (!strcmp(argv[2], commands[i].name)) {
            c.command = commands[i].name;
            argv[2] = verb;
            optind = 0;
            return find_server(&c) ? commands[i].run(&c, argc - 2, argv + 2) : 1;
        }
    }
    zt_error("serve: unknown command '%s'; see zqcow2 serve --help", argv[2]);
    return 1;
}
