/* SPDX-License-Identifier: MIT */
/* How long a chain of backing files may be: for those that open it and those that name its files.
 */
#ifndef ZQ_BASE_DEPTH_H
#define ZQ_BASE_DEPTH_H

#define ZQ_MAX_DEPTH 64u /* the image is at depth 0 */
#define ZQ_TOO_DEEP  "more than 64 backing files are in the chain, or it contains a loop"

#endif
