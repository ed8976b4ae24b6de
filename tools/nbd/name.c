/* SPDX-License-Identifier: MIT */
/* Names of exports. */
#include <string.h>

#include "nbd.h"

bool zt_nbd_name(const char *name)
{
    static const char *const schemes[] = {"nbd://", "nbds://", "nbd+unix://", "nbds+unix://"};

    for (size_t i = 0; i < sizeof(schemes) / sizeof(schemes[0]); i++) {
        if (!strncmp(name, schemes[i], strlen(schemes[i])))
            return true;
    }
    return false;
}
