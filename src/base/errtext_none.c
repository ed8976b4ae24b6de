/* SPDX-License-Identifier: MIT */
/* Without strerrordesc_np: for C libraries like musl, whose strerror returns constant text. */
#include <string.h>

#include "base/report.h"

const char *zq_errtext(int err)
{
    const char *text = strerror(err);

    /* What is unknown has one text, and 0 is no error. */
    return strcmp(text, strerror(0)) ? text : NULL;
}
