/* SPDX-License-Identifier: MIT */
/*
 * The kernel's ublk interface as this program uses it: zoned devices and data by pread and pwrite,
 * which the headers of Linux 6.1 do not know yet.
 */
#ifndef ZQ_TOOLS_UBLK_ABI_H
#define ZQ_TOOLS_UBLK_ABI_H

#include <assert.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/ioctl.h>

#define UBLK_CONTROL_PATH "/dev/ublk-control"
#define UBLK_CHAR_PATH    "/dev/ublkc" /* and the number */

/* ---- control commands ---- */

struct ublk_ctrl_cmd { /* in the second half of a 128-byte SQE */
    uint32_t dev_id;
    uint16_t queue_id; /* all ones: none */
    uint16_t len;
    uint64_t addr;
    uint64_t data;
    uint16_t dev_path_len; /* of the path before what is at addr: the driver asks its rights */
    uint16_t pad;
    uint32_t reserved;
};
static_assert(sizeof(struct ublk_ctrl_cmd) == 32, "control command");

#define UBLK_CMD_GET_DEV_INFO   _IOR('u', 0x02, struct ublk_ctrl_cmd)
#define UBLK_CMD_ADD_DEV        _IOWR('u', 0x04, struct ublk_ctrl_cmd)
#define UBLK_CMD_DEL_DEV        _IOWR('u', 0x05, struct ublk_ctrl_cmd)
#define UBLK_CMD_START_DEV      _IOWR('u', 0x06, struct ublk_ctrl_cmd)
#define UBLK_CMD_STOP_DEV       _IOWR('u', 0x07, struct ublk_ctrl_cmd)
#define UBLK_CMD_SET_PARAMS     _IOWR('u', 0x08, struct ublk_ctrl_cmd)
#define UBLK_CMD_GET_PARAMS     _IOR('u', 0x09, struct ublk_ctrl_cmd)
#define UBLK_CMD_GET_DEV_INFO2  _IOR('u', 0x12, struct ublk_ctrl_cmd)
#define UBLK_CMD_START_RECOVERY _IOWR('u', 0x10, struct ublk_ctrl_cmd)
#define UBLK_CMD_END_RECOVERY   _IOWR('u', 0x11, struct ublk_ctrl_cmd)
#define UBLK_CMD_GET_FEATURES   _IOR('u', 0x13, struct ublk_ctrl_cmd)
#define UBLK_CMD_DEL_DEV_ASYNC  _IOR('u', 0x14, struct ublk_ctrl_cmd) /* since Linux 6.9 */
#define UBLK_CMD_QUIESCE_DEV    _IOWR('u', 0x16, struct ublk_ctrl_cmd)
#define UBLK_CMD_TRY_STOP_DEV   _IOWR('u', 0x17, struct ublk_ctrl_cmd)
static_assert(UBLK_CMD_ADD_DEV == 0xc0207504, "ioctl encoding");
/* Which bits say "read" alone differs between processors; the kernel's are those of its headers. */
static_assert(UBLK_CMD_GET_FEATURES == _IOC(_IOC_READ, 0x75, 0x13, 32), "ioctl encoding");

#define UBLK_F_USER_RECOVERY         (1ull << 3)
#define UBLK_F_USER_RECOVERY_REISSUE (1ull << 4)
#define UBLK_F_UNPRIVILEGED_DEV      (1ull << 5)
#define UBLK_F_CMD_IOCTL_ENCODE      (1ull << 6)
#define UBLK_F_USER_COPY             (1ull << 7)
#define UBLK_F_ZONED                 (1ull << 8)
#define UBLK_F_USER_RECOVERY_FAIL_IO (1ull << 9)
#define UBLK_F_AUTO_BUF_REG          (1ull << 11)
#define UBLK_F_QUIESCE               (1ull << 12)
#define UBLK_F_SAFE_STOP_DEV         (1ull << 17)

/* The last two wait for a server: requests wait, too, or fail. */
enum ublk_dev_state {
    UBLK_DEV_DEAD = 0,
    UBLK_DEV_LIVE = 1,
    UBLK_DEV_QUIESCED = 2,
    UBLK_DEV_FAIL_IO = 3
};

struct ublk_dev_info {
    uint16_t nr_hw_queues, queue_depth, state, pad0;
    uint32_t max_io_buf_bytes, dev_id; /* dev_id all ones: any */
    int32_t ublksrv_pid;
    uint32_t pad1;
    uint64_t flags, ublksrv_flags;
    uint32_t owner_uid, owner_gid;
    uint64_t reserved[2];
};
static_assert(sizeof(struct ublk_dev_info) == 64, "device info");

#define UBLK_MAX_DEPTH 4096u
#define UBLK_MAX_ID    (1u << 20) /* the kernel counts minor numbers */

/* ---- parameters ---- */

enum { UBLK_ATTR_READ_ONLY = 1 << 0, UBLK_ATTR_VOLATILE_CACHE = 1 << 2, UBLK_ATTR_FUA = 1 << 3 };
enum { UBLK_PARAM_BASIC = 1 << 0, UBLK_PARAM_DISCARD = 1 << 1, UBLK_PARAM_ZONED = 1 << 3 };

struct ublk_params {
    uint32_t len, types;
    struct {
        uint32_t attrs;
        uint8_t logical_bs_shift, physical_bs_shift, io_opt_shift, io_min_shift;
        uint32_t max_sectors, chunk_sectors;
        uint64_t dev_sectors, virt_boundary_mask;
    } basic;
    struct {
        uint32_t alignment, granularity, max_sectors, max_write_zeroes_sectors;
        uint16_t max_segments, reserved;
    } discard;
    struct {
        uint32_t char_major, char_minor, disk_major, disk_minor;
    } devt;
    struct {
        uint32_t max_open_zones, max_active_zones, max_append_sectors;
        uint8_t reserved[20];
    } zoned;
    uint32_t tail; /* the kernel's struct ends in 8-byte alignment; later parts are not used here */
};
static_assert(offsetof(struct ublk_params, basic) == 8, "parameters");
static_assert(offsetof(struct ublk_params, discard) == 40, "parameters");
static_assert(offsetof(struct ublk_params, devt) == 60, "parameters");
static_assert(offsetof(struct ublk_params, zoned) == 76, "parameters");
static_assert(sizeof(struct ublk_params) == 112, "parameters");

/* ---- queues ---- */

struct ublk_io_desc { /* shared with the kernel, indexed by tag */
    uint32_t op_flags;
    uint32_t nr_sectors; /* REPORT_ZONES: zones */
    uint64_t start_sector, addr;
};
static_assert(sizeof(struct ublk_io_desc) == 24, "descriptor");

struct ublk_io_cmd {
    uint16_t q_id, tag;
    int32_t result;
    uint64_t addr; /* append: the first sector written; of an unprivileged device: the memory */
};
static_assert(sizeof(struct ublk_io_cmd) == 16, "I/O command");

#define UBLK_IO_FETCH_REQ            _IOWR('u', 0x20, struct ublk_io_cmd)
#define UBLK_IO_COMMIT_AND_FETCH_REQ _IOWR('u', 0x21, struct ublk_io_cmd)
static_assert(UBLK_IO_FETCH_REQ == 0xc0107520, "ioctl encoding");
static_assert(UBLK_IO_COMMIT_AND_FETCH_REQ == 0xc0107521, "ioctl encoding");

enum ublk_io_op {
    UBLK_OP_READ = 0,
    UBLK_OP_WRITE = 1,
    UBLK_OP_FLUSH = 2,
    UBLK_OP_DISCARD = 3,
    UBLK_OP_WRITE_ZEROES = 5,
    UBLK_OP_ZONE_OPEN = 10,
    UBLK_OP_ZONE_CLOSE = 11,
    UBLK_OP_ZONE_FINISH = 12,
    UBLK_OP_ZONE_APPEND = 13,
    UBLK_OP_ZONE_RESET_ALL = 14,
    UBLK_OP_ZONE_RESET = 15,
    UBLK_OP_REPORT_ZONES = 18
};
#define UBLK_OP_MASK           0xffu
#define UBLK_IO_F_FUA          (1u << 13)
#define UBLK_IO_F_NOUNMAP      (1u << 15)
#define UBLK_IO_F_NEED_REG_BUF (1u << 17) /* its pages are not in the ring's table */

/*
 * In the address of a command: where in the ring's table of buffers the pages of the next request
 * go, and that a request whose pages cannot go there comes without.
 */
static inline uint64_t ublk_auto_buf_reg(uint16_t index)
{
    return index | 1u << 16;
}

/* Where the data of a tag lies in the character device's file. */
static inline uint64_t ublk_data_offset(unsigned queue, unsigned tag)
{
    return 0x80000000ull + ((uint64_t)queue << 41) + ((uint64_t)tag << 25);
}

/* Each queue's descriptors start at a multiple of this in the mapping. */
static inline size_t ublk_desc_area(size_t page)
{
    return (UBLK_MAX_DEPTH * sizeof(struct ublk_io_desc) + page - 1) / page * page;
}

/* A zone as the block layer reports it. */
struct ublk_blk_zone {
    uint64_t start, len, wp;
    uint8_t type, cond, non_seq, reset, resv[4];
    uint64_t capacity;
    uint8_t reserved[24];
};
static_assert(sizeof(struct ublk_blk_zone) == 64, "zone");

#endif
