/* SPDX-License-Identifier: MIT */
/* What every server is started with, and the options of the command line that set it. */
#ifndef ZQ_TOOLS_SERVE_OPTIONS_H
#define ZQ_TOOLS_SERVE_OPTIONS_H

#include <sys/types.h>

#include "serve/spec.h"
#include "tool.h"

struct serve_user {
    bool given;
    uid_t uid;
    gid_t gid;
};

struct serve_options {
    struct zt_target target; /* its path as it was given */
    uint32_t queues;         /* a thread each */
    uint32_t block_size;     /* 512, 4096, or 0: 512 */
    const char *ctl;         /* the path of the control socket, or NULL */
    struct serve_user user;  /* whom the server becomes */
    bool read_only, foreground, unconfined;
    bool has_faults;
    struct serve_faults_spec faults; /* if so */
};

/* A server numbers options of its own from SERVE_OPT_OWN. */
enum {
    SERVE_OPT_QUEUES = ZT_OPT_VERB,
    SERVE_OPT_BLOCK_SIZE,
    SERVE_OPT_READ_ONLY,
    SERVE_OPT_FOREGROUND,
    SERVE_OPT_CTL,
    SERVE_OPT_FAULTS,
    SERVE_OPT_USER,
    SERVE_OPT_UNCONFINED,
    SERVE_OPT_OWN
};

/* For the option tables of getopt_long(). */
#define SERVE_OPTIONS \
    {"queues", required_argument, NULL, SERVE_OPT_QUEUES}, \
        {"block-size", required_argument, NULL, SERVE_OPT_BLOCK_SIZE}, \
        {"read-only", no_argument, NULL, SERVE_OPT_READ_ONLY}, \
        {"foreground", no_argument, NULL, SERVE_OPT_FOREGROUND}, \
        {"ctl", required_argument, NULL, SERVE_OPT_CTL}, \
        {"faults", required_argument, NULL, SERVE_OPT_FAULTS}, \
        {"user", required_argument, NULL, SERVE_OPT_USER}, \
        {"unconfined", no_argument, NULL, SERVE_OPT_UNCONFINED}, ZT_OPTION_FILES, \
        ZT_OPTION_BACKING_FORMAT, ZT_OPTION_BACKEND

#define SERVE_HELP_CTL \
    "  --ctl=PATH              the control socket, for zqcow2 serve ctl\n" \
    "  --faults=SPEC           faults for tests: power can be cut, requests fail or are delayed\n"
#define SERVE_HELP_USER \
    "  --user=NAME             serve as this user (root only)\n" \
    "  --unconfined            keep all rights, for debugging\n"

/* A queue for each processor, at most 4. */
uint32_t serve_default_queues(void);
/* Handles one of SERVE_OPTIONS; false after reporting a bad value or an unknown option. */
bool serve_option(struct serve_options *o, int c);
/* A decimal number in [min, max]; false after reporting that `text` is none. */
bool serve_number(const char *what, const char *text, uint32_t min, uint32_t max, uint32_t *out);

#endif
