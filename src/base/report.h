/* SPDX-License-Identifier: MIT */
/* Error texts, the caller's error buffer, the log hook. */
#ifndef ZQ_BASE_REPORT_H
#define ZQ_BASE_REPORT_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <zqcow2/zqcow2.h>

/*
 * What an errno means, as constant text in any locale or, with musl, in the program's; NULL: it
 * means nothing.
 */
const char *zq_errtext(int err);

#define ZQ_PRINTF(f, a) __attribute__((format(printf, f, a)))

/* At the start of a call: err (may be NULL) says nothing yet. */
static inline void zq_clear_error(struct zqcow2_error *err)
{
    if (err)
        memset(err, 0, sizeof(*err));
}

/* Fills err (may be NULL) and returns code, so that a refusal is one statement. */
int zq_fail(struct zqcow2_error *err, int code, const char *fmt, ...) ZQ_PRINTF(3, 4);
/* As zq_fail with the code's own text, unless err already holds a text for this code. */
int zq_fail_rc(struct zqcow2_error *err, int code);
/* Copies bytes of an image for a text: whatever is not plain ASCII becomes '?'. */
void zq_printable(char *out, size_t room, const void *from, size_t n);
/* Refuses what no release knows yet in the members of a caller's options. */
int zq_check_unknown(struct zqcow2_error *err, uint32_t flags, uint32_t known, uint32_t reserved);
/* The formats of a backing file. */
bool zq_format_is_known(const char *format);
/* As an option; NULL is none of them. */
int zq_check_format(struct zqcow2_error *err, const char *format);
/* zq_hooks_init() for a call that has an error buffer. */
int zq_take_hooks(struct zqcow2_error *err, struct zqcow2_hooks *out,
                  const struct zqcow2_hooks *in);
void zq_log(const struct zqcow2_hooks *h, int level, const char *fmt, ...) ZQ_PRINTF(3, 4);

/*
 * Only ever on the library's own invariants, never on file content or a caller's input. _k: what
 * fails is printed with the number that DESIGN.md gives the rule. NDEBUG: compiled, never run.
 */
#ifdef NDEBUG
#define zq_assert(x) ((void)(0 && (x)))
#else
#include <assert.h>
#define zq_assert(x) assert(x)
#endif
#define zq_assert_k(number, x) zq_assert((x) && #number)

#endif
