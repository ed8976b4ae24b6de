/* SPDX-License-Identifier: MIT */
/* Options, sizes, numbers and operands of the command line. */
#include <ctype.h>
#include <limits.h>
#include <string.h>

#include "tool.h"

static int digit_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c = (char)tolower((unsigned char)c);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : 99;
}

/* Reads digits of `base` at *text and moves it behind them; false: none there, or too many. */
static bool take_digits(const char **text, unsigned base, uint64_t *value)
{
    const char *p = *text;
    uint64_t v = 0;

    while ((unsigned)digit_value(*p) < base) {
        if (__builtin_mul_overflow(v, (uint64_t)base, &v) ||
            __builtin_add_overflow(v, (uint64_t)digit_value(*p), &v))
            return false;
        p++;
    }
    if (p == *text)
        return false;
    *text = p;
    *value = v;
    return true;
}

static bool take_number(const char **text, uint64_t *value, bool *hex)
{
    *hex = (*text)[0] == '0' && ((*text)[1] == 'x' || (*text)[1] == 'X');
    if (*hex)
        *text += 2;
    return take_digits(text, *hex ? 16 : 10, value);
}

bool zt_parse_u64(const char *text, uint64_t *value)
{
    bool hex;

    return take_number(&text, value, &hex) && *text == '\0';
}

/* -1: no suffix that we know. */
static int suffix_shift(const char *text)
{
    static const char letters[] = "bkmgtpe";
    const char *at;

    if (*text == '\0')
        return 0;
    at = strchr(letters, tolower((unsigned char)*text));
    return at && text[1] == '\0' ? (int)(at - letters) * 10 : -1;
}

/* The digits behind the point, as bytes of the unit 2^shift; they must come out whole. */
static bool take_fraction(const char **text, uint64_t *bytes)
{
    const char *digits = *text;
    uint64_t v, fives = 1;
    int shift;

    if (!take_digits(text, 10, &v) || *text - digits > 9)
        return false;
    shift = suffix_shift(*text);
    if (shift <= 0) { /* of bytes there are no parts: 512.0 is as good as 512 */
        *bytes = 0;
        return shift == 0 && v == 0;
    }
    /* n <= 9 digits and shift >= 10: v / 10^n * 2^shift is v / 5^n * 2^(shift - n), below 2^60. */
    for (const char *p = digits; p < *text; p++, shift--)
        fives *= 5;
    *bytes = v / fives << shift;
    return v % fives == 0;
}

bool zt_parse_size(const char *text, uint64_t *value)
{
    uint64_t whole, fraction = 0;
    bool hex;
    int shift;

    if (!take_number(&text, &whole, &hex))
        return false;
    if (!hex && *text == '.') {
        text++;
        if (!take_fraction(&text, &fraction))
            return false;
    }
    shift = suffix_shift(text);
    if (shift < 0 || __builtin_mul_overflow(whole, (uint64_t)1 << shift, &whole))
        return false;
    return !__builtin_add_overflow(whole, fraction, value);
}

bool zt_size_arg(const char *what, const char *text, uint64_t *value)
{
    if (zt_parse_size(text, value))
        return true;
    zt_error("%s: '%s' is not a size (whole bytes below 16E, optionally with K, M, G, T, P or E)",
             what, text);
    return false;
}

bool zt_u64_arg(const char *what, const char *text, uint64_t *value)
{
    if (zt_parse_u64(text, value))
        return true;
    zt_error("%s: '%s' is not a number", what, text);
    return false;
}

bool zt_output_form(const char *text, bool *json)
{
    *json = strcmp(text, "json") == 0;
    if (*json || strcmp(text, "human") == 0)
        return true;
    zt_error("--output: '%s' is not one of human, json", text);
    return false;
}

bool zt_operands(int argc, char **argv, int min, int max, const char *const *names)
{
    int n = argc - optind;

    if (n < min) {
        zt_error("%s: %s is missing; see zqcow2 %s --help", argv[0], names[n], argv[0]);
        return false;
    }
    if (n > max) {
        zt_error("%s: unexpected operand '%s'; see zqcow2 %s --help", argv[0], argv[optind + max],
                 argv[0]);
        return false;
    }
    return true;
}

/* ---- options ---- */

static const struct option *find_long(const struct zt_options *o, int code)
{
    for (const struct option *l = o->longs; l->name; l++) {
        if (l->val == code)
            return l;
    }
    return NULL;
}

static int bad_option(const struct zt_options *o, const char *what, const char *dashes,
                      const char *name)
{
    zt_error("%s: option '%s%.*s' %s; see zqcow2 %s --help", o->name, dashes,
             (int)strcspn(name, "="), name, what, o->name);
    return '?';
}

/*
 * Of a known option: its short form, unless it has none or `word` is the long one. Some C
 * libraries leave no word when the last one lacks its value.
 */
static int bad_known(const struct zt_options *o, const char *what, int code, const char *word)
{
    const struct option *l = find_long(o, code);
    char letter[2] = {(char)code, '\0'};

    if (l && (code > UCHAR_MAX || (word && strncmp(word, "--", 2) == 0)))
        return bad_option(o, what, "--", l->name);
    return bad_option(o, what, "-", letter);
}

/* The word at hand is no option, or begins several. */
static int bad_long(const struct zt_options *o, const char *word)
{
    size_t n = strcspn(word, "=") - 2;
    unsigned found = 0;

    for (const struct option *l = o->longs; l->name; l++)
        found += strncmp(l->name, word + 2, n) == 0;
    return bad_option(o, found > 1 ? "is ambiguous" : "is unknown", "", word);
}

int zt_option(struct zt_options *o, int argc, char **argv)
{
    int c;

    opterr = 0;
    c = getopt_long(argc, argv, o->shorts, o->longs, NULL);
    if (c == ':')
        return bad_known(o, "needs a value", optopt, argv[optind - 1]);
    if (c == '?' && optopt == 0)
        return bad_long(o, argv[optind - 1]);
    if (c == '?' && find_long(o, optopt))
        return bad_known(o, "takes no value", optopt, argv[optind - 1]);
    if (c == '?') {
        char letter[2] = {(char)optopt, '\0'};

        return bad_option(o, "is unknown", "-", letter);
    }
    if (c < 0 || (o->repeat && c <= UCHAR_MAX && strchr(o->repeat, c)))
        return c;
    if (o->seen[c])
        return bad_known(o, "is given twice", c, argv[optind - 1]);
    o->seen[c] = true;
    return c;
}
