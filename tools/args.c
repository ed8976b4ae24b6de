/* SPDX-License-Identifier: MIT */
/* Sizes, numbers and operands of the command line. */
#include <ctype.h>
#include <string.h>

#include "tool.h"

__extension__ typedef unsigned __int128 wide;

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
    uint64_t v, scale = 1;
    wide product;
    int shift;

    if (!take_digits(text, 10, &v) || *text - digits > 9)
        return false;
    shift = suffix_shift(*text);
    if (shift <= 0)
        return false;
    for (const char *p = digits; p < *text; p++)
        scale *= 10;
    /* v < 10^9 < 2^30 and shift <= 60: 128 bits hold the product. */
    product = (wide)v << shift;
    *bytes = (uint64_t)(product / scale);
    return product % scale == 0;
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
    zt_error("%s: '%s' is not a size (a number, perhaps with K, M, G or T)", what, text);
    return false;
}

bool zt_u64_arg(const char *what, const char *text, uint64_t *value)
{
    if (zt_parse_u64(text, value))
        return true;
    zt_error("%s: '%s' is not a number", what, text);
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
        zt_error("%s: '%s' is one operand too many; see zqcow2 %s --help", argv[0],
                 argv[optind + max], argv[0]);
        return false;
    }
    return true;
}
