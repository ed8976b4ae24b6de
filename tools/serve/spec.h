/* SPDX-License-Identifier: MIT */
/*
 * The faults that a server is to have, as text: --faults has items with commas between them, a
 * command of the control socket has one or more. zqcow2-vhost-user(1) has the grammar.
 */
#ifndef ZQ_TOOLS_SERVE_SPEC_H
#define ZQ_TOOLS_SERVE_SPEC_H

#include <stdbool.h>
#include <zqcow2/faults.h>

enum { SERVE_RULES = 16, SERVE_SPEC_WHY = 256 };

struct serve_faults_spec {
    uint64_t seed;     /* of a cut, and of the rules added to their numbers */
    bool has_seed;     /* it was given */
    uint64_t max_held; /* as in zqcow2_faults_options */
    uint32_t how;      /* zqcow2_faults_how */
    const char *log;   /* points into the text that was parsed; NULL: none */
    struct zqcow2_faults_rule rules[SERVE_RULES];
    unsigned nr_rules;
};

/* No rules, torn in units of 512 bytes. */
void serve_spec_init(struct serve_faults_spec *s);
/* Adds the items of `text` to *s. False: `why`, of SERVE_SPEC_WHY bytes, says what is wrong. */
bool serve_spec_parse(struct serve_faults_spec *s, const char *text, char *why);
/* The same of one item, which may hold commas. */
bool serve_spec_item(struct serve_faults_spec *s, const char *item, char *why);
/* As the item has it, with "+reorder". */
const char *serve_spec_how(uint32_t how, char *buf, size_t room);

#endif
