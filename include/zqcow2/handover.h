/* SPDX-License-Identifier: MIT */
/*
 * Hand-over: two programs have an image open, and the file belongs to one of them at a time. So a
 * virtual machine moves to another process with its disk. See zqcow2_activate(3).
 */
#ifndef ZQCOW2_HANDOVER_H
#define ZQCOW2_HANDOVER_H

#include <zqcow2/zqcow2.h>

#ifdef __cplusplus
extern "C" {
#endif

/*
 * Waits for the requests that have begun, makes all acknowledged data durable, marks the image
 * clean, closes its backing files and its data file, and gives up the lock. When it returns 0,
 * another program may open or activate the image, and this one neither reads nor writes the file.
 * The image and its queues stay open. Until zqcow2_activate(), requests and calls fail with
 * EINACTIVE; flush and drain return 0, and zqcow2_get_info() returns what it was. 0: also if the
 * image is inactive already. After an error the image is active; if the error was one of the
 * backend, it may also be dead. -EINVAL: the image was opened with open_options.snapshot. Blocks
 * the calling thread, and no other.
 */
ZQCOW2_API int zqcow2_inactivate(struct zqcow2_image *img, struct zqcow2_error *err);
/*
 * Takes the lock and reads the file as zqcow2_open() does, with the same options: resolve,
 * resolve_arg and what they use must still be valid. Open and closed zones are CLOSED, EMPTY or
 * FULL afterwards, as after an open, and the size may have changed. 0: also if the image is active
 * already. Errors are those of zqcow2_open(): -EAGAIN means that the other program has not given up
 * the lock. -ESTALE: the file holds another image, with zones of another size or without. After an
 * error the image is inactive, and the call can be repeated. Blocks the calling thread, and no
 * other.
 */
ZQCOW2_API int zqcow2_activate(struct zqcow2_image *img, struct zqcow2_error *err);

#ifdef __cplusplus
}
#endif
#endif
