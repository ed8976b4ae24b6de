/* SPDX-License-Identifier: MIT */
/*
 * What goes over the socket, and what lies in guest memory: the numbers and layouts of the
 * vhost-user specification (QEMU's docs/interop/vhost-user.rst) and of virtio 1.3. Messages are in
 * host byte order; rings, requests and the config space are little-endian.
 */
#ifndef ZQ_TOOLS_VHOST_WIRE_H
#define ZQ_TOOLS_VHOST_WIRE_H

#include <stdint.h>

/* ---- messages ---- */

enum {
    VHOST_GET_FEATURES = 1,
    VHOST_SET_FEATURES,
    VHOST_SET_OWNER,
    VHOST_RESET_OWNER,
    VHOST_SET_MEM_TABLE,
    VHOST_SET_VRING_NUM = 8,
    VHOST_SET_VRING_ADDR,
    VHOST_SET_VRING_BASE,
    VHOST_GET_VRING_BASE,
    VHOST_SET_VRING_KICK,
    VHOST_SET_VRING_CALL,
    VHOST_SET_VRING_ERR,
    VHOST_GET_PROTOCOL_FEATURES,
    VHOST_SET_PROTOCOL_FEATURES,
    VHOST_GET_QUEUE_NUM,
    VHOST_SET_VRING_ENABLE,
    VHOST_SET_BACKEND_REQ_FD = 21,
    VHOST_GET_CONFIG = 24,
    VHOST_SET_CONFIG,
    VHOST_GET_INFLIGHT_FD = 31,
    VHOST_SET_INFLIGHT_FD,
    VHOST_RESET_DEVICE = 34,
    VHOST_GET_MAX_MEM_SLOTS = 36,
    VHOST_ADD_MEM_REG,
    VHOST_REM_MEM_REG
};

/* In the flags of a message. */
#define VHOST_VERSION      1u
#define VHOST_VERSION_MASK 3u
#define VHOST_REPLY        4u
#define VHOST_NEED_REPLY   8u

/* The word of a kick, call or error descriptor: the ring, and whether a descriptor comes along. */
#define VHOST_RING_MASK 0xffu
#define VHOST_NO_FD     0x100u

enum {
    VHOST_PROTOCOL_MQ = 0,
    VHOST_PROTOCOL_REPLY_ACK = 3,
    VHOST_PROTOCOL_BACKEND_REQ = 5,
    VHOST_PROTOCOL_CONFIG = 9,
    VHOST_PROTOCOL_INFLIGHT_SHMFD = 12,
    VHOST_PROTOCOL_RESET_DEVICE = 13,
    VHOST_PROTOCOL_MEM_SLOTS = 15
};

struct vhost_head {
    uint32_t request, flags, size; /* size: of the payload */
};

struct vhost_state {
    uint32_t index, num;
};

/* Addresses of the front-end's own address space. */
struct vhost_addr {
    uint32_t index, flags;
    uint64_t desc, used, avail, log;
};

struct vhost_mem_region {
    uint64_t guest, size, user, offset;
};

#define VHOST_TABLE_REGIONS 8u /* of one SET_MEM_TABLE */

struct vhost_mem_table {
    uint32_t n, padding;
    struct vhost_mem_region region[VHOST_TABLE_REGIONS];
};

struct vhost_mem_one {
    uint64_t padding;
    struct vhost_mem_region region;
};

/* Of ours, by the other socket. */
enum { VHOST_BACKEND_CONFIG_CHANGE = 2 };

#define VHOST_CONFIG_MAX 256u

struct vhost_config {
    uint32_t offset, size, flags;
    uint8_t data[VHOST_CONFIG_MAX];
};

struct vhost_inflight_area {
    uint64_t size, offset;
    uint16_t queues, queue_size;
    uint32_t padding; /* some front-ends leave it out */
};
#define VHOST_INFLIGHT_SHORT 20u /* bytes of it without the padding */

union vhost_payload {
    uint64_t u64;
    struct vhost_state state;
    struct vhost_addr addr;
    struct vhost_mem_table table;
    struct vhost_mem_one memory;
    struct vhost_config config;
    struct vhost_inflight_area inflight;
};

/* ---- split rings ---- */

#define VRING_NEXT     1u
#define VRING_WRITE    2u
#define VRING_INDIRECT 4u

#define VRING_NO_INTERRUPT 1u /* of the available ring */
#define VRING_NO_NOTIFY    1u /* of the used ring */

struct vring_entry {
    uint64_t addr;
    uint32_t len;
    uint16_t flags, next;
};

struct vring_used_entry {
    uint32_t id, len;
};

/* ---- virtio-blk ---- */

enum {
    BLK_F_SIZE_MAX = 1,
    BLK_F_SEG_MAX = 2,
    BLK_F_RO = 5,
    BLK_F_BLK_SIZE = 6,
    BLK_F_FLUSH = 9,
    BLK_F_TOPOLOGY = 10,
    BLK_F_MQ = 12,
    BLK_F_DISCARD = 13,
    BLK_F_WRITE_ZEROES = 14,
    BLK_F_ZONED = 17,
    VIRTIO_F_INDIRECT_DESC = 28,
    VIRTIO_F_EVENT_IDX = 29,
    VHOST_F_PROTOCOL_FEATURES = 30,
    VIRTIO_F_VERSION_1 = 32
};

enum {
    BLK_T_IN,
    BLK_T_OUT,
    BLK_T_FLUSH = 4,
    BLK_T_GET_ID = 8,
    BLK_T_DISCARD = 11,
    BLK_T_WRITE_ZEROES = 13,
    BLK_T_ZONE_APPEND = 15,
    BLK_T_ZONE_REPORT,
    BLK_T_ZONE_OPEN = 18,
    BLK_T_ZONE_CLOSE = 20,
    BLK_T_ZONE_FINISH = 22,
    BLK_T_ZONE_RESET = 24,
    BLK_T_ZONE_RESET_ALL = 26
};

enum {
    BLK_S_OK,
    BLK_S_IOERR,
    BLK_S_UNSUPP,
    BLK_S_ZONE_INVALID_CMD,
    BLK_S_ZONE_UNALIGNED_WP,
    BLK_S_ZONE_OPEN_RESOURCE,
    BLK_S_ZONE_ACTIVE_RESOURCE
};

#define BLK_ID_BYTES 20u

struct blk_header {
    uint32_t type, reserved;
    uint64_t sector;
};

struct blk_range {
    uint64_t sector;
    uint32_t sectors, flags;
};
#define BLK_RANGE_UNMAP 1u

struct blk_zone_report {
    uint64_t nr_zones;
    uint8_t reserved[56];
};

struct blk_zone {
    uint64_t capacity, start, wp;
    uint8_t type, state, reserved[38];
};

struct blk_config {
    uint64_t capacity; /* sectors */
    uint32_t size_max, seg_max;
    uint16_t cylinders;
    uint8_t heads, sectors;
    uint32_t blk_size;
    uint8_t physical_block_exp, alignment_offset;
    uint16_t min_io_size;
    uint32_t opt_io_size;
    uint8_t wce, unused;
    uint16_t num_queues;
    uint32_t max_discard_sectors, max_discard_seg, discard_sector_alignment;
    uint32_t max_write_zeroes_sectors, max_write_zeroes_seg;
    uint8_t write_zeroes_may_unmap, unused1[3];
    uint32_t max_secure_erase_sectors, max_secure_erase_seg, secure_erase_sector_alignment;
    uint32_t zone_sectors, max_open_zones, max_active_zones, max_append_sectors;
    uint32_t write_granularity;
    uint8_t model, unused2[3];
};
#define BLK_HOST_MANAGED 1u

_Static_assert(sizeof(struct vhost_addr) == 40, "as on the wire");
_Static_assert(sizeof(struct vhost_mem_region) == 32, "as on the wire");
_Static_assert(sizeof(struct vring_entry) == 16, "as in guest memory");
_Static_assert(sizeof(struct blk_zone) == 64, "as in guest memory");
_Static_assert(sizeof(struct blk_config) == 96, "as in guest memory");

#endif
