/* SPDX-License-Identifier: MIT */
/*
 * Hostile images: a valid image, a named field of it bent. Opening, the first use or check must
 * refuse it with the right code and a text that names field, value and offset; nothing may crash,
 * hang or take more than 256 MiB, repair included.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include <cmocka.h>

#include "unit/pic.h"

#define MiB(n) ((uint64_t)(n) << 20)

enum base { PLAIN, SNAP, Z44, Z48B, Z56, ZV7 };

/* What an offset of a bend counts from. */
enum place { HEADER, ZONED, L1, RT, BLOCK, WP, L2, SNAPSHOT, CUT };

/* Who must refuse it. */
enum who {
    OPEN, /* both ways of opening */
    RDWR, /* opening for writing; reading works */
    USE,  /* the first read of what is bent */
    CHECK /* only check: opening for reading works */
};

struct poke {
    enum place place;
    unsigned at, width;
    uint64_t value;
};

struct bend {
    const char *name;
    enum base base;
    struct poke poke[3];
    enum who who;
    int code;
    const char *text[3]; /* field, value, offset */
};

#define C   ZQCOW2_ECORRUPT
#define F   ZQCOW2_EFEATURE
#define END (1ull << 40) /* beyond any file here */
#define P(...)                                                                                     \
    {                                                                                              \
        {                                                                                          \
            __VA_ARGS__                                                                            \
        }                                                                                          \
    }
#define PP(...)                                                                                    \
    {                                                                                              \
        __VA_ARGS__                                                                                \
    }

static const struct bend bends[] = {
    /* ---- header ---- */
    {"magic",
     Z44,
     P(HEADER, 0, 4, 0x514649fc),
     OPEN,
     ZQCOW2_ENOTQCOW2,
     {"magic", "0x514649fc", "byte 0"}},
    {"version 1", Z44, P(HEADER, 4, 4, 1), OPEN, ZQCOW2_ENOTQCOW2, {"version", "1", "byte 4"}},
    {"version 4", PLAIN, P(HEADER, 4, 4, 4), OPEN, ZQCOW2_ENOTQCOW2, {"version", "4", "byte 4"}},
    {"cut at 4", Z44, P(CUT, 0, 0, 4), OPEN, ZQCOW2_ENOTQCOW2, {"magic", "", "byte 0"}},
    {"cut at 71", Z44, P(CUT, 0, 0, 71), OPEN, C, {"file length", "71", "header"}},
    {"cut at 103", Z44, P(CUT, 0, 0, 103), OPEN, C, {"file length", "103", "header"}},
    {"cut at 111", Z44, P(CUT, 0, 0, 111), OPEN, C, {"header_length", "112", "byte 100"}},
    {"cut before L1",
     Z44,
     P(CUT, 0, 0, 0x40000),
     OPEN,
     C,
     {"l1_table_offset", "0x40000", "byte 40"}},
    {"header_length 96", Z44, P(HEADER, 100, 4, 96), OPEN, C, {"header_length", "96", "byte 100"}},
    {"header_length 116",
     Z44,
     P(HEADER, 100, 4, 116),
     OPEN,
     C,
     {"header_length", "116", "byte 100"}},
    {"header_length 2^32-8",
     Z44,
     P(HEADER, 100, 4, 0xfffffff8),
     OPEN,
     C,
     {"header_length", "0xfffffff8", "byte 100"}},
    {"cluster_bits 8", Z44, P(HEADER, 20, 4, 8), OPEN, C, {"cluster_bits", "8", "byte 20"}},
    {"cluster_bits 22", Z44, P(HEADER, 20, 4, 22), OPEN, C, {"cluster_bits", "22", "byte 20"}},
    {"cluster_bits 2^32-1",
     Z44,
     P(HEADER, 20, 4, UINT32_MAX),
     OPEN,
     C,
     {"cluster_bits", "0xffffffff", "byte 20"}},
    {"refcount_order 7", Z44, P(HEADER, 96, 4, 7), OPEN, C, {"refcount_order", "7", "byte 96"}},
    {"incompatible bit 40",
     Z44,
     P(HEADER, 72, 8, 1ull << 40 | 32),
     OPEN,
     F,
     {"incompatible_features", "bit 40", "byte 72"}},
    {"named bit",
     Z44,
     PP({HEADER, 72, 8, 1 << 20 | 32}, {HEADER, 193, 1, 20}),
     OPEN,
     F,
     {"bit 20", "dirty bit", "byte 72"}},
    {"corrupt bit", Z44, P(HEADER, 72, 8, 34), RDWR, C, {"incompatible_features", "34", "byte 72"}},
    {"data file", PLAIN, P(HEADER, 72, 8, 4), OPEN, F, {"data file", "4", "byte 72"}},
    {"data file name",
     PLAIN,
     P(HEADER, 112, 4, 0x44415441),
     OPEN,
     C,
     {"incompatible_features", "data file", "byte 72"}},
    {"extended L2", PLAIN, P(HEADER, 72, 8, 16), OPEN, F, {"extended L2", "16", "byte 72"}},
    {"AES", PLAIN, P(HEADER, 32, 4, 1), OPEN, F, {"crypt_method", "AES", "byte 32"}},
    {"LUKS", PLAIN, P(HEADER, 32, 4, 2), OPEN, F, {"crypt_method", "LUKS", "byte 32"}},
    {"crypt 77", PLAIN, P(HEADER, 32, 4, 77), OPEN, C, {"crypt_method", "77", "byte 32"}},
    {"compression without bit",
     PLAIN,
     P(HEADER, 104, 1, 1),
     OPEN,
     C,
     {"compression_type", "1", "byte 104"}},
    {"bit without compression",
     PLAIN,
     P(HEADER, 72, 8, 8),
     OPEN,
     C,
     {"compression_type", "0", "byte 104"}},
    {"compression 9",
     PLAIN,
     PP({HEADER, 72, 8, 8}, {HEADER, 104, 1, 9}),
     OPEN,
     F,
     {"compression_type", "9", "byte 104"}},
    {"size 0", Z44, P(HEADER, 24, 8, 0), OPEN, C, {"size", "0", "byte 24"}},
    {"size 513", Z44, P(HEADER, 24, 8, 513), OPEN, C, {"size", "513", "byte 24"}},
    {"size 2^64-512",
     Z44,
     P(HEADER, 24, 8, 0xfffffffffffffe00),
     OPEN,
     C,
     {"size", "0xfffffffffffffe00", "byte 24"}},
    {"size above L1", PLAIN, P(HEADER, 24, 8, MiB(513)), OPEN, C, {"l1_size", "1", "byte 36"}},
    {"l1_size 2^32-1", Z44, P(HEADER, 36, 4, UINT32_MAX), OPEN, C, {"l1_size", "4294967295", "36"}},
    {"nb_snapshots 65537",
     PLAIN,
     PP({HEADER, 60, 4, 65537}, {HEADER, 64, 8, 0x30000}),
     OPEN,
     C,
     {"nb_snapshots", "65537", "byte 60"}},
    {"snapshots nowhere",
     PLAIN,
     PP({HEADER, 60, 4, 1}, {HEADER, 64, 8, END}),
     OPEN,
     C,
     {"snapshots_offset", "0x10000000000", "byte 64"}},
    {"backing file",
     PLAIN,
     PP({HEADER, 8, 8, 1024}, {HEADER, 16, 4, 7}),
     OPEN,
     F,
     {"backing_file_offset", "1024", "byte 8"}},
    {"backing name 1024",
     PLAIN,
     PP({HEADER, 8, 8, 1024}, {HEADER, 16, 4, 1024}),
     OPEN,
     C,
     {"backing_file_size", "1024", "byte 16"}},
    {"version 2 with zones",
     Z44,
     PP({HEADER, 4, 4, 2}, {HEADER, 72, 8, 0x007a62640000002c}, {HEADER, 128, 8, 0}),
     OPEN,
     C,
     {"zoned extension", "version 2", "byte 72"}},
    /* ---- extensions ---- */
    {"extension too long",
     Z44,
     P(HEADER, 132, 4, 65536),
     OPEN,
     C,
     {"0x007a6264", "65536", "byte 128"}},
    {"extension wraps",
     Z44,
     P(HEADER, 132, 4, 0xfffffffc),
     OPEN,
     C,
     {"0x007a6264", "4294967292", "byte 128"}},
    {"no end mark",
     Z44,
     P(HEADER, 132, 4, 65536 - 136),
     OPEN,
     C,
     {"extension area", "65536", "end marker"}},
    {"zoned twice",
     Z44,
     P(HEADER, 112, 4, 0x007a6264),
     OPEN,
     C,
     {"header extension", "0x7a6264", "twice"}},
    {"feature names 49",
     Z44,
     P(HEADER, 188, 4, 49),
     OPEN,
     C,
     {"feature name table length", "49", "byte 188"}},
    {"into backing name",
     PLAIN,
     PP({HEADER, 8, 8, 0}, {HEADER, 132, 4, 70000}),
     OPEN,
     C,
     {"0x6803f857", "70000", "byte 128"}},
    {"bitmaps bit alone",
     PLAIN,
     P(HEADER, 88, 8, 1),
     OPEN,
     C,
     {"autoclear_features", "1", "byte 88"}},
    /* ---- tables ---- */
    {"L1 at 0", Z44, P(HEADER, 40, 8, 0), OPEN, C, {"l1_table_offset", "0", "byte 40"}},
    {"L1 unaligned", Z44, P(HEADER, 40, 8, 0x40008), OPEN, C, {"l1_table_offset", "0x40008", "40"}},
    {"L1 beyond file",
     Z44,
     P(HEADER, 40, 8, END),
     OPEN,
     C,
     {"l1_table_offset", "1099511627776", "40"}},
    {"L1 above 2^56",
     Z44,
     P(HEADER, 40, 8, 1ull << 60),
     OPEN,
     C,
     {"l1_table_offset", "0x1000000000000000", "byte 40"}},
    {"L1 on refcount table",
     Z44,
     P(HEADER, 40, 8, 0x10000),
     OPEN,
     C,
     {"L1 table", "0x10000", "overlaps"}},
    {"L1 on write pointers",
     Z44,
     P(HEADER, 40, 8, 0x30000),
     OPEN,
     C,
     {"write-pointer table", "0x30000", "L1 table"}},
    {"refcount table at 0",
     Z44,
     P(HEADER, 48, 8, 0),
     OPEN,
     C,
     {"refcount_table_offset", "0", "byte 48"}},
    {"refcount table unaligned",
     Z44,
     P(HEADER, 48, 8, 0x10200),
     OPEN,
     C,
     {"refcount_table_offset", "0x10200", "byte 48"}},
    {"refcount table beyond",
     Z44,
     P(HEADER, 48, 8, END),
     OPEN,
     C,
     {"refcount_table_offset", "0x10000000000", "byte 48"}},
    {"refcount table wraps",
     Z44,
     P(HEADER, 48, 8, 0xffffffffffff0000),
     OPEN,
     C,
     {"refcount_table_offset", "0xffffffffffff0000", "byte 48"}},
    {"refcount table 0 clusters",
     Z44,
     P(HEADER, 56, 4, 0),
     OPEN,
     C,
     {"refcount_table_clusters", "0", "byte 56"}},
    {"refcount table 2^31 clusters",
     Z44,
     P(HEADER, 56, 4, 1u << 31),
     OPEN,
     C,
     {"refcount_table_clusters", "2147483648", "byte 56"}},
    {"refcount table on L1",
     Z44,
     PP({HEADER, 48, 8, 0x30000}, {HEADER, 56, 4, 2}),
     OPEN,
     C,
     {"refcount table", "0x30000", "overlaps"}},
    {"snapshots on L1",
     PLAIN,
     PP({HEADER, 60, 4, 1}, {HEADER, 64, 8, 0x30000}),
     OPEN,
     C,
     {"snapshot table", "0x30000", "overlaps"}},
    {"L1 entry reserved", Z44, P(L1, 0, 8, 0x50000 | 2), OPEN, C, {"L1", "0x50002", "reserved"}},
    {"L1 entry unaligned", Z44, P(L1, 0, 8, 0x50200), OPEN, C, {"L1", "0x50200", "262144"}},
    {"L1 entry beyond", Z44, P(L1, 0, 8, END), OPEN, C, {"L1", "0x10000000000", "end of the file"}},
    {"L1 entry to L1",
     Z44,
     P(L1, 0, 8, 0x40000 | PIC_COPIED),
     OPEN,
     C,
     {"L1", "0x40000", "overlaps"}},
    {"L1 entry to header", Z44, P(L1, 0, 8, PIC_COPIED), OPEN, C, {"L1", "0x8000000000000000", ""}},
    {"L1 entry to refcounts", Z44, P(L1, 0, 8, 0x10000), OPEN, C, {"L1", "0x10000", "overlaps"}},
    {"L1 entry to write pointers",
     Z44,
     P(L1, 0, 8, 0x30000),
     OPEN,
     C,
     {"L1", "0x30000", "overlaps"}},
    {"block reserved", Z44, P(RT, 0, 8, 0x20001), OPEN, C, {"refcount", "0x20001", "reserved"}},
    {"block unaligned", Z44, P(RT, 0, 8, 0x20200), OPEN, C, {"refcount", "0x20200", ""}},
    {"block beyond",
     Z44,
     P(RT, 8, 8, END),
     OPEN,
     C,
     {"refcount", "0x10000000000", "end of the file"}},
    {"block is the table", Z44, P(RT, 0, 8, 0x10000), OPEN, C, {"refcount", "0x10000", "overlaps"}},
    {"block is L1", Z44, P(RT, 8, 8, 0x40000), OPEN, C, {"refcount", "0x40000", "overlaps"}},
    {"block twice", Z44, P(RT, 8, 8, 0x20000), CHECK, C, {"refcount block", "0x20000", "overlaps"}},
    {"all refcounts 0", PLAIN, P(RT, 0, 8, 0), CHECK, C, {"refcount 0", "references 1", "0x0-"}},
    {"refcount 0 on header",
     PLAIN,
     P(BLOCK, 0, 2, 0),
     CHECK,
     C,
     {"refcount 0", "too low", "0x0-0xffff"}},
    {"refcount 0 on data",
     PLAIN,
     P(BLOCK, 10, 2, 0),
     CHECK,
     C,
     {"refcount 0", "too low", "0x50000-"}},
    {"write pointers' refcount 0",
     Z44,
     P(BLOCK, 6, 2, 0),
     OPEN,
     C,
     {"write-pointer table", "refcount 0", "196608"}},
    {"write pointers' refcount 2",
     Z44,
     P(BLOCK, 6, 2, 2),
     OPEN,
     C,
     {"write-pointer table", "refcount 2", "196608"}},
    {"COPIED missing", PLAIN, P(L2, 0, 8, 0x50000), CHECK, C, {"L2 entry 0", "0x50000", "COPIED"}},
    {"two guests on one cluster",
     PLAIN,
     P(L2, 8, 8, 0x50000 | PIC_COPIED),
     CHECK,
     C,
     {"references 2", "refcount 1", "0x50000-"}},
    {"L2 reserved", PLAIN, P(L2, 0, 8, 0x50002), USE, C, {"L2 entry 0", "0x50002", "reserved"}},
    {"L2 unaligned", PLAIN, P(L2, 0, 8, 0x50200), USE, C, {"L2 entry 0", "0x50200", "aligned"}},
    {"L2 beyond",
     PLAIN,
     P(L2, 0, 8, END),
     USE,
     C,
     {"L2 entry 0", "0x10000000000", "end of the file"}},
    {"L2 to header",
     PLAIN,
     P(L2, 0, 8, PIC_COPIED),
     USE,
     C,
     {"L2 entry 0", "0x8000000000000000", ""}},
    {"L2 to refcounts",
     PLAIN,
     P(L2, 0, 8, 0x10000 | PIC_COPIED),
     USE,
     C,
     {"L2 entry 0", "0x8000000000010000", "refcount table"}},
    {"L2 to block",
     PLAIN,
     P(L2, 0, 8, 0x20000 | PIC_COPIED),
     CHECK,
     C,
     {"L2 entry 0", "0x8000000000020000", "refcount table or block"}},
    {"L2 to L1",
     PLAIN,
     P(L2, 0, 8, 0x30000 | PIC_COPIED),
     USE,
     C,
     {"L2 entry 0", "0x8000000000030000", "L1 table"}},
    {"L2 to itself",
     PLAIN,
     P(L2, 0, 8, 0x40000 | PIC_COPIED),
     CHECK,
     C,
     {"L2 entry 0", "0x8000000000040000", "L2 table"}},
    {"L2 to write pointers",
     Z44,
     P(L2, 0, 8, 0x30000 | PIC_COPIED),
     USE,
     C,
     {"L2 entry 0", "0x8000000000030000", "write-pointer table"}},
    {"compressed beyond",
     PLAIN,
     P(L2, 0, 8, PIC_COMPRESSED | END),
     USE,
     C,
     {"L2 entry 0", "0x4000010000000000", "end of the file"}},
    {"compressed garbage", PLAIN, P(L2, 0, 8, PIC_COMPRESSED | 0x50000), USE, C, {"", "", ""}},
    {"compressed COPIED",
     PLAIN,
     P(L2, 0, 8, PIC_COPIED | PIC_COMPRESSED | 0x50000),
     USE,
     C,
     {"L2 entry 0", "0xc000000000050000", "COPIED"}},
    {"compressed ahead",
     Z44,
     P(L2, 64 * 8, 8, PIC_COMPRESSED | 0x60000),
     CHECK,
     C,
     {"zone 1", "0x400000", "compressed"}},
    /* ---- snapshots ---- */
    {"snapshot L1 unaligned",
     SNAP,
     P(SNAPSHOT, 0, 8, 0x60008),
     CHECK,
     C,
     {"snapshot l1_table_offset", "0x60008", "0x70000"}},
    {"snapshot L1 beyond",
     SNAP,
     P(SNAPSHOT, 0, 8, END),
     CHECK,
     C,
     {"snapshot l1_table_offset", "0x10000000000", "0x70000"}},
    {"snapshot L1 is L1",
     SNAP,
     P(SNAPSHOT, 0, 8, 0x30000),
     CHECK,
     C,
     {"L1 table of a snapshot", "0x30000", "overlaps"}},
    {"snapshot l1_size",
     SNAP,
     P(SNAPSHOT, 8, 4, UINT32_MAX),
     CHECK,
     C,
     {"snapshot l1_size", "4294967295", "0x70008"}},
    {"snapshot extra",
     SNAP,
     P(SNAPSHOT, 36, 4, UINT32_MAX),
     CHECK,
     C,
     {"snapshot extra_data_size", "4294967295", "0x70024"}},
    {"snapshot name",
     SNAP,
     P(SNAPSHOT, 12, 4, UINT32_MAX),
     CHECK,
     C,
     {"snapshot table entry", "", "0x70000"}},
    /* ---- zoned ---- */
    {"zoned length 40", Z44, P(ZONED, -4u, 4, 40), OPEN, F, {"zoned extension", "40", "byte 136"}},
    {"zoned model 2", Z44, P(ZONED, 0, 1, 2), OPEN, F, {"model", "2", "byte 136"}},
    {"zone_size 0", Z44, P(ZONED, 8, 8, 0), OPEN, C, {"zone_size", "0", "byte 144"}},
    {"zone_size 3 MiB", Z56, P(ZONED, 4, 8, MiB(3)), OPEN, C, {"zone_size", "3145728", "byte 140"}},
    {"zone_size 32 KiB", ZV7, P(ZONED, 4, 4, 32768), OPEN, C, {"zone_size", "32768", "byte 140"}},
    {"zone_size 2^63", Z44, P(ZONED, 8, 8, 1ull << 63), OPEN, C, {"nr_zones", "16", "byte 140"}},
    {"capacity 0", Z44, P(ZONED, 16, 8, 0), OPEN, C, {"zone_capacity", "0", "byte 152"}},
    {"capacity above size",
     Z48B,
     P(ZONED, 16, 8, MiB(5)),
     OPEN,
     C,
     {"zone_capacity", "5242880", "byte 152"}},
    {"capacity 513", ZV7, P(ZONED, 8, 4, 513), OPEN, C, {"zone_capacity", "513", "byte 144"}},
    {"conventional 16",
     Z44,
     P(ZONED, 32, 4, 16),
     OPEN,
     C,
     {"conventional_zones", "16", "byte 168"}},
    {"nr_zones 0", Z44, P(ZONED, 4, 4, 0), OPEN, C, {"nr_zones", "0", "byte 140"}},
    {"nr_zones 17", Z44, P(ZONED, 4, 4, 17), OPEN, C, {"nr_zones", "17", "byte 140"}},
    {"nr_zones 2^32-1",
     Z44,
     P(ZONED, 4, 4, UINT32_MAX),
     OPEN,
     C,
     {"nr_zones", "4294967295", "140"}},
    {"nr_zones 2^32-1, 56",
     Z56,
     P(ZONED, 24, 4, UINT32_MAX),
     OPEN,
     C,
     {"nr_zones", "4294967295", "byte 160"}},
    {"48 bytes of nothing",
     Z48B,
     P(ZONED, 4, 4, 99),
     OPEN,
     C,
     {"zoned extension", "48 bytes", "byte 136"}},
    {"limits swapped",
     Z44,
     PP({ZONED, 36, 4, 3}, {ZONED, 40, 4, 4}),
     OPEN,
     C,
     {"max_open_zones", "4", "byte 176"}},
    {"table at 0", Z44, P(ZONED, 24, 8, 0), OPEN, C, {"table_offset", "0", "byte 160"}},
    {"table unaligned", Z44, P(ZONED, 24, 8, 0x30200), OPEN, C, {"table_offset", "0x30200", "160"}},
    {"table beyond", Z44, P(ZONED, 24, 8, END), OPEN, C, {"table_offset", "0x10000000000", "160"}},
    {"table above 2^56",
     ZV7,
     P(ZONED, 40, 8, 1ull << 57),
     OPEN,
     C,
     {"table_offset", "0x200000000000000", "byte 176"}},
    {"table on L1",
     Z44,
     P(ZONED, 24, 8, 0x40000),
     OPEN,
     C,
     {"write-pointer table", "0x40000", "L1"}},
    {"table on refcounts",
     Z44,
     P(ZONED, 24, 8, 0x10000),
     OPEN,
     C,
     {"write-pointer table", "0x10000", "refcount table"}},
    {"table_size", Z56, P(ZONED, 40, 8, 64), OPEN, C, {"table_size", "64", "byte 176"}},
    {"bit without extension",
     Z44,
     P(HEADER, 128, 4, 0x11111111),
     OPEN,
     C,
     {"incompatible_features", "0x20", "byte 72"}},
    {"extension without bit",
     Z44,
     P(HEADER, 72, 8, 0),
     OPEN,
     C,
     {"incompatible_features", "0x0", "byte 72"}},
    {"v7 without bit", ZV7, P(HEADER, 72, 8, 0), RDWR, F, {"zoned", "bit 5", "clear"}},
    {"pointer in another zone",
     Z44,
     P(WP, 24, 8, MiB(20)),
     OPEN,
     C,
     {"zone 3", "0x0000000001400000", "byte 196632"}},
    {"pointer unaligned",
     Z44,
     P(WP, 24, 8, MiB(12) + 100),
     OPEN,
     C,
     {"zone 3", "0x0000000000c00064", "byte 196632"}},
    {"pointer beyond device",
     Z44,
     P(WP, 120, 8, 1ull << 62),
     OPEN,
     C,
     {"zone 15", "0x4000000000000000", "byte 196728"}},
    {"flag on the wrong zone",
     Z44,
     P(WP, 24, 8, MiB(12) | 1ull << 63),
     OPEN,
     C,
     {"zone 3", "0x8000000000c00000", "byte 196632"}},
    {"flag missing",
     Z44,
     PP({ZONED, 32, 4, 1}, {WP, 8, 8, MiB(4)}),
     OPEN,
     C,
     {"zone 0", "0x0000000000010000", "byte 196608"}},
    {"v7 flag elsewhere",
     ZV7,
     P(WP, 24, 8, 0x0000c00000000080),
     OPEN,
     C,
     {"zone 3", "0x8000000000c00000", "byte 196632"}},
};
#define NR_BENDS (sizeof(bends) / sizeof(bends[0]))

/* ---- the images ---- */

static void make(struct pic *p, enum base base)
{
    static const uint32_t layouts[] = {0, 0, 44, 48, 56, 7};
    struct zqcow2_create_options o = ZQCOW2_CREATE_OPTIONS_INIT;

    o.virtual_size = MiB(64);
    o.zone_size = layouts[base] ? MiB(4) : 0;
    o.layout = layouts[base];
    pic_make(p, &o);
    pic_map(p, 0, 0xff);
    if (layouts[base]) /* little-endian in v7 and 56 */
        pic_put(p, p->wp, 8, base == ZV7 || base == Z56 ? 0x0000010000000000 : 65536);
    if (base == SNAP)
        pic_snapshot(p);
}

static uint64_t place(struct pic *p, enum place where)
{
    switch (where) {
    case ZONED:
        return p->zoned;
    case L1:
        return p->l1;
    case RT:
        return p->rt;
    case BLOCK:
        return pic_get(p, p->rt, 8);
    case WP:
        return p->wp;
    case L2:
        return pic_l2(p, 0);
    case SNAPSHOT:
        return pic_get(p, 64, 8);
    default:
        return 0;
    }
}

static void bend(struct pic *p, const struct bend *b)
{
    uint64_t at[3];

    make(p, b->base);
    for (int i = 0; i < 3; i++)
        at[i] = place(p, b->poke[i].place) + b->poke[i].at;
    for (int i = 0; i < 3; i++) {
        if (b->poke[i].place == CUT)
            pic_cut(p, b->poke[i].value);
        else if (b->poke[i].width)
            pic_put(p, at[i] & 0xffffffff, b->poke[i].width, b->poke[i].value);
    }
}

/* ---- the refusals ---- */

static void expect_text(const struct bend *b, const char *text, const char *by)
{
    for (int i = 0; i < 3; i++) {
        if (!strstr(text, b->text[i]))
            fail_msg("%s, %s: no \"%s\" in \"%s\"", b->name, by, b->text[i], text);
    }
}

static void expect_open(struct pic *p, const struct bend *b, uint32_t flags, int code)
{
    int rc = pic_open(p, flags);

    if (rc != code || p->err.code != (code ? code : p->err.code))
        fail_msg("%s, open %s: %d instead of %d: \"%s\"", b->name,
                 flags ? "for writing" : "to read", rc, code, p->err.text);
    if (code)
        expect_text(b, p->err.text, "open");
}

static int read_first(struct pic *p)
{
    static uint8_t data[65536];
    struct zqcow2_open_options o = ZQCOW2_OPEN_OPTIONS_INIT;
    struct zqcow2_image *img;
    int rc, again;

    o.flags = ZQCOW2_OPEN_BORROW;
    rc = zqcow2_open(p->be, &o, &img, &p->err);
    if (rc)
        fail_msg("open: %s", p->err.text);
    rc = zqcow2_read(img, data, sizeof(data), 0);
    again = zqcow2_read(img, data, 512, 512);
    assert_int_equal(rc, again);
    assert_int_equal(zqcow2_close(img), 0);
    return rc;
}

static void expect_found(struct pic *p, const struct bend *b)
{
    if (pic_check(p, 0) != 0 || !p->res.corruptions)
        fail_msg("%s: check says %d \"%s\", %d corruptions: %s", b->name, p->err.code, p->err.text,
                 (int)p->res.corruptions, p->found);
    expect_text(b, p->found, "check");
}

/* Check either refuses as open does, or finds a corruption; nothing passes unseen. */
static void expect_checked(struct pic *p, const struct bend *b)
{
    int rc = pic_check(p, 0);

    if (rc == b->code)
        expect_text(b, p->err.text, "check");
    else if (rc || !(p->res.corruptions + p->res.leaked_clusters + p->res.warnings))
        fail_msg("%s: check says %d, finds nothing", b->name, rc);
}

/*
 * Whatever repair makes of it: no crash, and a second one has nothing left to do. After the
 * greatest repair the image is sound or is refused; a broken table of snapshots alone may stay,
 * since it keeps everything from being freed and nothing from being used.
 */
static void expect_repair_ends(struct pic *p, const struct bend *b)
{
    static const unsigned flags[] = {ZQCOW2_CHECK_REPAIR_LEAKS, ZQCOW2_CHECK_REPAIR,
                                     ZQCOW2_CHECK_REPAIR_ALL};

    for (int i = 0; i < 3; i++) {
        /* unknown autoclear bits keep leaks from being freed, until a first write clears them */
        bool keep = pic_length(p) >= 96 && pic_get(p, 88, 8) > 3;

        (void)pic_check(p, flags[i]);
        if (pic_check(p, flags[i]) == 0 && !keep && strstr(p->found, "repaired"))
            fail_msg("%s: a second repair with flags %u changes something: %s", b->name, flags[i],
                     p->found);
    }
    if (pic_open(p, ZQCOW2_OPEN_RDWR) == 0 && pic_check(p, 0) == 0 && p->res.corruptions &&
        !strstr(p->found, "snapshot") && !strstr(p->found, "bitmap"))
        fail_msg("%s: opened for writing after a repair, and still: %s", b->name, p->found);
}

static void refuse(const struct bend *b)
{
    struct pic p;

    bend(&p, b);
    expect_open(&p, b, 0, b->who == OPEN ? b->code : 0);
    if (b->who == OPEN || b->who == RDWR) {
        expect_open(&p, b, ZQCOW2_OPEN_RDWR, b->code);
        expect_checked(&p, b);
    } else if (b->text[0][0]) {
        expect_found(&p, b);
    }
    if (b->who == USE && read_first(&p) != b->code)
        fail_msg("%s: the first read succeeds", b->name);
    expect_repair_ends(&p, b);
    pic_free(&p);
}

static void test_bends(void **state)
{
    (void)state;
    for (size_t i = 0; i < NR_BENDS; i++)
        refuse(&bends[i]);
    printf("hostile images: %zu, each refused as it should be\n", NR_BENDS);
}

/* The bends are what is refused: the images that they start from are sound. */
static void test_unbent(void **state)
{
    (void)state;
    for (int base = PLAIN; base <= ZV7; base++) {
        struct pic p;

        make(&p, (enum base)base);
        if (pic_open(&p, 0) != 0 || pic_check(&p, 0) != 0 || p.res.corruptions ||
            p.res.leaked_clusters || p.res.warnings)
            fail_msg("base %d: %s%s", base, p.err.text, p.found);
        assert_int_equal(read_first(&p), 0);
        assert_int_equal(pic_open(&p, ZQCOW2_OPEN_RDWR), 0);
        pic_free(&p);
    }
}

/* More active zones than allowed: opens, says so, and refuses to make more of them. */
static void test_over_active(void **state)
{
    struct zqcow2_open_options o = ZQCOW2_OPEN_OPTIONS_INIT;
    struct zqcow2_info info = ZQCOW2_INFO_INIT;
    static uint8_t data[512];
    struct zqcow2_image *img;
    struct pic p;

    (void)state;
    make(&p, Z44);
    pic_put(&p, p.zoned + 36, 4, 2);
    for (uint64_t z = 0; z < 3; z++)
        pic_put(&p, p.wp + z * 8, 8, z * MiB(4) + 512);
    o.flags = ZQCOW2_OPEN_BORROW | ZQCOW2_OPEN_RDWR;
    assert_int_equal(zqcow2_open(p.be, &o, &img, NULL), 0);
    assert_int_equal(zqcow2_get_info(img, &info), 0);
    assert_true(info.flags & ZQCOW2_INFO_OVER_ACTIVE);
    assert_int_equal(info.active_zones, 3);
    assert_int_equal(zqcow2_write(img, data, 512, MiB(16), 0), ZQCOW2_EZONE_ACTIVE);
    assert_int_equal(zqcow2_write(img, data, 512, 512, 0), 0);
    assert_int_equal(zqcow2_close(img), 0);
    pic_free(&p);
}

/* ---- random damage ---- */

static uint64_t rng(uint64_t *s)
{
    *s ^= *s << 13;
    *s ^= *s >> 7;
    *s ^= *s << 17;
    return *s;
}

/* Any field of the metadata takes any value; only that it ends, and soundly, is asked for. */
static void damage(uint64_t seed)
{
    static const uint64_t values[] = {0, 1, 0x50000, 1ull << 63, UINT64_MAX, 1ull << 62, 0x10000};
    uint64_t s = seed * 0x9e3779b97f4a7c15ull + 1;
    struct bend b = {.name = "random damage"};
    char name[64];
    struct pic p;

    snprintf(name, sizeof(name), "random damage, seed %llu", (unsigned long long)seed);
    b.name = name;
    make(&p, (enum base)(rng(&s) % 6));
    for (int n = 1 + (int)(rng(&s) % 3); n > 0; n--) {
        uint64_t at = rng(&s) % 2 ? rng(&s) % 320 : (rng(&s) % 8 << 16) + rng(&s) % 32 * 8;
        unsigned width = 1u << rng(&s) % 4;

        pic_put(&p, at, width, rng(&s) % 2 ? values[rng(&s) % 7] : rng(&s));
    }
    (void)pic_open(&p, 0);
    (void)pic_check(&p, 0);
    expect_repair_ends(&p, &b);
    pic_free(&p);
}

static void test_random_damage(void **state)
{
    const char *seed = getenv("ZQ_SEED"), *count = getenv("ZQ_COUNT");
    uint64_t first = seed ? strtoull(seed, NULL, 0) : 1, n = count ? strtoull(count, NULL, 0) : 500;

    (void)state;
    for (uint64_t i = 0; i < n; i++)
        damage(first + i);
    printf("random damage: seeds %llu to %llu (ZQ_SEED, ZQ_COUNT)\n", (unsigned long long)first,
           (unsigned long long)(first + n - 1));
}

/* AddressSanitizer needs terabytes of addresses; there its own limit holds, see CMakeLists.txt. */
static int limit_memory(void **state)
{
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
    const struct rlimit limit = {256u << 20, 256u << 20};

    assert_int_equal(setrlimit(RLIMIT_AS, &limit), 0);
#endif
    (void)state;
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_unbent),
        cmocka_unit_test(test_bends),
        cmocka_unit_test(test_over_active),
        cmocka_unit_test(test_random_damage),
    };

    return cmocka_run_group_tests(tests, limit_memory, NULL);
}
