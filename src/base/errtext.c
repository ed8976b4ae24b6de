/* SPDX-License-Identifier: MIT */
/* Texts of errno, the same in every locale. */
#include <string.h>

#include "base/report.h"

const char *zq_errtext(int err)
{
    return strerrordesc_np(err);
}
