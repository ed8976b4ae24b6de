/* SPDX-License-Identifier: MIT */
/* Texts of errno, the same in every locale. */
#include <string.h>

#include "base/report.h"

/*
 * Not strerror(): its text depends on the locale, and it may use a buffer shared between threads.
 */
const char *zq_errtext(int err)
{
    return strerrordesc_np(err);
}
