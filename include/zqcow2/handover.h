/* SPDX-License-Identifier: MIT */
/*
 * Hand-over: two programs have an image open, but only one of them at a time may use the file. This
 * lets a virtual machine move to another process together with its disk. See zqcow2_activate(3).
 */
#ifndef ZQCOW2_HANDOVER_H
#define ZQCOW2_HANDOVER_H

#include <zqcow2/zqcow2.h>

#ifdef __cplusplus
extern "C" {
#endif

/*
 * Waits for the requests that have begun, makes all acknowledged data durable, marks the image
 * clean, closes its backing files and its data file, and releases the lock. Once it has returned 0,
 * another program may open or activate the image, and this one neither reads nor writes the file.
 * The image and its queues stay open. Until zqcow2_activate(), requests and calls that concern the
 * content of the image fail with EINACTIVE, except that flush and drain return 0. zqcow2_get_info()
 * and zqcow2_get_backing() return what was true before. Statistics, the event handler,
 * zqcow2_close() and all calls on queues work as usual. If the image is already inactive, the call
 * returns 0 and does nothing. After an error the image is active; after an error of the backend, it
 * may also be dead. -EINVAL: the image was opened with open_options.snapshot. The call blocks only
 * the calling thread.
 */
ZQCOW2_API int zqcow2_inactivate(struct zqcow2_image *img, struct zqcow2_error *err);
/*
 * Takes the lock and reads the file as zqcow2_open() does, with the options of the open. resolve,
 * resolve_arg and everything that they use must still be valid. Zones that were open or closed are
 * CLOSED, EMPTY or FULL afterwards, as after an open, and the size may have changed. If the image
 * is already active, the call returns 0 and does nothing. The errors are those of zqcow2_open();
 * -EAGAIN means that the other program has not released the lock. -ESTALE: the file now holds
 * another image, whose zones have another size or which has no zones. After an error the image is
 * inactive, and the call can be repeated. The call blocks only the calling thread.
 */
ZQCOW2_API int zqcow2_activate(struct zqcow2_image *img, struct zqcow2_error *err);

#ifdef __cplusplus
}
#endif
#endif
