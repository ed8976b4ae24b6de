/* SPDX-License-Identifier: MIT */
/* What the verbs of the command zqcow2 share: options, images, sizes, messages. */
#ifndef ZT_TOOL_H
#define ZT_TOOL_H

#include <getopt.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

#include <zqcow2/backend.h>
#include <zqcow2/bitmap.h>
#include <zqcow2/zqcow2.h>

_Static_assert(sizeof(off_t) == 8, "_FILE_OFFSET_BITS=64 is missing");

#define ZT_SECTOR       512u
#define ZT_PIECE        (1u << 20) /* bytes in one transfer of append, write and read */
#define ZT_COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* ---- verbs: verbs.def lists them ---- */

struct zt_verb {
    const char *name;
    const char *operands;              /* for the usage line, options included */
    const char *summary;               /* one line */
    const char *help;                  /* the options, a line each */
    int (*run)(int argc, char **argv); /* argv[0]: the verb; returns the exit status */
};

/* ---- options and operands ---- */

/* Verbs number their own from ZT_OPT_VERB, below ZT_OPT_END. */
enum {
    ZT_OPT_BACKEND = 256,
    ZT_OPT_NO_BACKING,
    ZT_OPT_BACKING_ROOT,
    ZT_OPT_BACKING_FORMAT,
    ZT_OPT_DATA_FILE,
    ZT_OPT_SNAPSHOT,
    ZT_OPT_VERB,
    ZT_OPT_END = ZT_OPT_VERB + 16
};

struct zt_options {
    const char *name;   /* of the verb, for messages */
    const char *shorts; /* as for getopt_long(), and so is longs */
    const struct option *longs;
    const char *repeat; /* short options that may be given more than once; NULL: none */
    bool seen[ZT_OPT_END];
};

/* As getopt_long(), but mistakes are reported in the command's own form: '?' after reporting. */
int zt_option(struct zt_options *o, int argc, char **argv);

struct zt_nbd_dialer;
struct zt_target {
    const char *path;
    const struct zt_backend *backend;   /* NULL: nbd for the names of exports, else file */
    int reconnect;                      /* of nbd: seconds, and one; 0: the default */
    const struct zqcow2_hooks *hooks;   /* of nbd: for its messages; NULL: stderr */
    const struct zt_nbd_dialer *dialer; /* of nbd, or NULL */
    uint32_t rules;                     /* zqcow2_rules */
    bool share;                         /* take no lock */
    bool no_backing;                    /* open no backing file */
    const char *backing_root;           /* none outside this folder, or NULL */
    const char *backing_format;         /* where the image does not say, or NULL */
    const char *data_file;              /* in place of the one that the image names, or NULL */
    const char *snapshot;               /* to be read in place of the disk, or NULL */
    int failure; /* reported already: closing that fails for it says nothing */
};

/* For the option tables of getopt_long(). */
#define ZT_OPTION_BACKEND \
    { \
        "backend", required_argument, NULL, ZT_OPT_BACKEND \
    }
#define ZT_OPTION_SHARE \
    { \
        "force-share", no_argument, NULL, 'U' \
    }
#define ZT_OPTION_NO_BACKING \
    { \
        "no-backing", no_argument, NULL, ZT_OPT_NO_BACKING \
    }
#define ZT_OPTION_BACKING_ROOT \
    { \
        "backing-root", required_argument, NULL, ZT_OPT_BACKING_ROOT \
    }
#define ZT_OPTION_BACKING_FORMAT \
    { \
        "backing-format", required_argument, NULL, ZT_OPT_BACKING_FORMAT \
    }
#define ZT_OPTION_SNAPSHOT \
    { \
        "snapshot", required_argument, NULL, ZT_OPT_SNAPSHOT \
    }
#define ZT_OPTION_DATA_FILE \
    { \
        "data-file", required_argument, NULL, ZT_OPT_DATA_FILE \
    }
/* Where the files are that an image names. */
#define ZT_OPTION_FILES   ZT_OPTION_BACKING_ROOT, ZT_OPTION_DATA_FILE
#define ZT_OPTION_SOURCES ZT_OPTION_NO_BACKING, ZT_OPTION_FILES, ZT_OPTION_BACKING_FORMAT
#define ZT_OPTION_END \
    { \
        NULL, 0, NULL, 0 \
    }
#define ZT_HELP_BACKEND \
    "  --backend=NAME          how to access the file: file (the default), uring, threads;\n" \
    "                          nbd[:reconnect=SECONDS], the default for nbd://HOST/EXPORT\n"
#define ZT_HELP_SHARE \
    "  -U, --force-share       take no lock; an image in use may look inconsistent\n"
#define ZT_USE_SNAPSHOT  "[--snapshot=NAME] "
#define ZT_HELP_SNAPSHOT "  --snapshot=NAME         read the snapshot with this ID or name\n"
#define ZT_USE_FILES     "[--backing-root=DIR] [--data-file=FILE] "
#define ZT_HELP_FILES \
    "  --backing-root=DIR      open backing files and data files in DIR only\n" \
    "  --data-file=FILE        the data file, instead of the one that the image names\n"
#define ZT_HELP_FORMAT "  --backing-format=FMT    raw or qcow2, if the image stores no format\n"
#define ZT_USE_SOURCES "[--no-backing] " ZT_USE_FILES "[--backing-format=FMT] "
#define ZT_HELP_SOURCES \
    "  --no-backing            open no backing file; reading its data fails\n" ZT_HELP_FILES \
        ZT_HELP_FORMAT

/* Handles what all verbs share; false: `c` was none of it, or its value was bad (and reported). */
bool zt_target_option(struct zt_target *t, int c);
/* --output=human|json, the forms of qemu-img; false after reporting. */
bool zt_output_form(const char *text, bool *json);
/* Are there `min` to `max` operands? Reports which one is missing; `names` are for that. */
bool zt_operands(int argc, char **argv, int min, int max, const char *const *names);

bool zt_parse_u64(const char *text, uint64_t *value);  /* decimal, or hex after 0x */
bool zt_parse_size(const char *text, uint64_t *value); /* also 1.5G: suffixes b K M G T P E */
/* The same for an option's value; reports what is wrong. */
bool zt_size_arg(const char *what, const char *text, uint64_t *value);
bool zt_u64_arg(const char *what, const char *text, uint64_t *value);

/* ---- messages ---- */

void zt_error(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
const char *zt_last_error(void); /* what zt_error() printed last */
/*
 * What comes from outside, names of files above all, must not move a terminal's cursor, nor break a
 * line in two: control characters and bytes that are not UTF-8 are printed as \n or \x1b.
 */
void zt_put(FILE *out, const char *text);
void zt_line(FILE *out, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void zt_vline(FILE *out, const char *prefix, const char *fmt, va_list ap)
    __attribute__((format(printf, 3, 0)));
/* "1.5 GiB", exact or rounded to three digits. */
char *zt_human(char *buf, size_t room, uint64_t bytes);
/* Three digits, as qemu-img has them. */
void zt_put_size(char *buf, size_t room, uint64_t bytes);

/* Of --progress[=FORM]. */
enum zt_progress_form {
    ZT_PROGRESS_NONE,
    ZT_PROGRESS_BAR,    /* with a terminal on stderr, for what takes longer than half a second */
    ZT_PROGRESS_PERCENT /* on stdout, as qemu-img has it, for programs that read it */
};
bool zt_progress_arg(const char *text, unsigned *form); /* NULL: the bar. False after reporting */

struct zt_progress {
    const char *what;
    uint64_t total; /* 0: not known */
    double next;    /* when to print again: the time, or the percentage */
    bool on, percent, shown;
};
void zt_progress_start(struct zt_progress *p, const char *what, uint64_t total, unsigned form);
void zt_progress_at(struct zt_progress *p, uint64_t done);
void zt_progress_done(struct zt_progress *p); /* before the end: all went well */
void zt_progress_end(struct zt_progress *p);
/* For calls of the library, with their total. A held signal ends them between two pieces. */
int zt_progress_piece(void *progress, uint64_t done, uint64_t total);
double zt_now(void); /* seconds, monotonic */

/* ---- the process ---- */

bool zt_open_streams(void); /* so that no file becomes 0, 1 or 2 */
/* Flushes standard output; false, after reporting the cause once, if some could not be written. */
bool zt_output_ok(void);
/*
 * While an image is open for writing SIGINT, SIGTERM and SIGHUP wait. Verbs ask between pieces
 * whether one of them has come (its name, or NULL); release then ends the process by it.
 */
void zt_hold_signals(void);
const char *zt_signal(void);
void zt_release_signals(void);

enum zt_input { ZT_INPUT_READY, ZT_INPUT_LATE, ZT_INPUT_STOP };
/* For standard input, so many seconds (negative: any number), or a signal that was held. */
enum zt_input zt_wait_input(double seconds);

/* ---- images ---- */

const struct zqcow2_hooks *zt_hooks(void); /* log to stderr */
/* `flags` are those of zqcow2_file_open(). */
int zt_backend_open(const struct zt_target *t, unsigned flags, struct zqcow2_backend **be);
bool zt_on_network(const struct zt_target *t); /* an export, which is no file of any folder */
/* Why zt_backend_open(), or a call of the backend, failed. */
const char *zt_backend_reason(const struct zt_target *t, int rc, char *buf, size_t room);
void zt_backend_error(const struct zt_target *t, int rc); /* reports it */
void zt_exists_error(const char *path);                   /* a new file cannot be made there */
void zt_backend_list(FILE *out);
/* The text of `err` if it has one, else that of `rc`. */
const char *zt_reason(int rc, const struct zqcow2_error *err);
/* Of t's image; for zqcow2_resolve_file(). NULL after a message. */
struct zqcow2_resolver *zt_resolver(const struct zt_target *t);
/*
 * Calls fn on t's file, opened for writing, with a resolver for the files below it; signals are
 * held meanwhile. Returns what fn does, the exit status.
 */
int zt_change_chain(const struct zt_target *t,
                    int (*fn)(void *arg, struct zqcow2_backend *be, struct zqcow2_resolver *files),
                    void *arg);
/* zqcow2_open_flag; NULL after a message. */
struct zqcow2_image *zt_open(const struct zt_target *t, unsigned flags);
/* The same; r opens its backing files, and knows their paths then. */
struct zqcow2_image *zt_open_chain(const struct zt_target *t, unsigned flags,
                                   struct zqcow2_resolver *r);
/* Closes; `status` or 1 if closing failed (which is reported). */
int zt_close(const struct zt_target *t, struct zqcow2_image *img, int status);
bool zt_info(const struct zt_target *t, struct zqcow2_image *img, struct zqcow2_info *info);
/* As zt_info, and the image must have zones. */
bool zt_zoned_info(const struct zt_target *t, struct zqcow2_image *img, struct zqcow2_info *info);

/* Lists in the form of the verbs snapshot and bitmap; a name: what is marked in that bitmap. */
int zt_snapshot_list(FILE *out, bool json, struct zqcow2_image *img, struct zqcow2_error *err);
int zt_bitmap_list(FILE *out, bool json, const char *name, struct zqcow2_image *img,
                   struct zqcow2_error *err);
/* The objects of that list, in an array that is open. */
struct zt_json;
int zt_snapshot_members(struct zt_json *j, struct zqcow2_image *img, struct zqcow2_error *err);
/* A line of its name, granularity and state, as of info. */
void zt_text_bitmap(void *arg, const struct zqcow2_bitmap *b);
/* With the time of day. */
int zt_snapshot_take(struct zqcow2_image *img, const char *name, struct zqcow2_error *err);
/* As for qemu-img: by ID, or else by name; and by name only. */
int zt_snapshot_apply(struct zqcow2_image *img, const char *word, struct zqcow2_error *err);
int zt_snapshot_delete(struct zqcow2_image *img, const char *name, struct zqcow2_error *err);

/* What zqcow2_compact() has done, in a line without a name before it. */
struct zqcow2_compact_result;
void zt_put_saved(FILE *out, const struct zqcow2_compact_result *r);

struct zt_replacement {
    char path[PATH_MAX], temporary[PATH_MAX + 16];
    sigset_t signals; /* that were blocked before */
    int old;
    bool no_sync; /* the new name may be lost with the power */
    bool keep;    /* unless it takes the name, the new file stays, as .zqcow2.NAME.part */
    bool found;   /* it was there already */
};
/*
 * Begins to replace the file at `path`: r->temporary is an empty file beside it, and the old one is
 * held against all its users. 1, or 0: it cannot be replaced like this (it is in use, or a device,
 * or its folder takes no new file), only be written over. -1 after reporting.
 */
int zt_replace_begin(struct zt_replacement *r, const char *path);
/* The same at a name that no file has; false after reporting. */
bool zt_replace_new(struct zt_replacement *r, const char *path);
/* Puts the new file in the old one's place if `commit`, else removes it. As above. */
int zt_replace_end(struct zt_replacement *r, bool commit);

/* ---- zones ---- */

const char *zt_state_name(unsigned state);
/* One that zqcow2_zone_set_state() takes: normal, read-only or offline. False: it is none. */
bool zt_parse_forced(const char *text, unsigned *state);
const char *zt_type_name(unsigned type);
const char *zt_layout_name(uint32_t layout); /* NULL: none */
/* The text of `rc`, the answer to a request at `off`, and what the zone there has to do with it. */
const char *zt_zone_reason(struct zqcow2_image *img, int rc, uint64_t off, char *buf, size_t room);
/*
 * Calls fn for up to `count` zones in these states (a sum of ZQCOW2_STATE_BIT(), 0: all), from the
 * one that holds `off` on, piece by piece. 0 or an error.
 * fn may be handed each zone's index.
 */
int zt_each_zone(struct zqcow2_image *img, const struct zqcow2_info *info, uint64_t off,
                 uint64_t count, uint32_t states,
                 void (*fn)(void *arg, uint64_t index, const struct zqcow2_zone *z), void *arg);
/* A list of their names, from --state; false: a message has been printed. */
bool zt_parse_states(const char *text, uint32_t *states);
void *zt_buffer(size_t len); /* aligned for direct I/O; free() it; NULL after a message */

/* --map of report. */
int zt_picture(struct zqcow2_image *img, const struct zqcow2_info *info, uint64_t off,
               uint64_t count, const char *path);

#endif
