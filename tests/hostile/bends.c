/* SPDX-License-Identifier: MIT */
/* The table of bends: one named field of a valid image each, by the classes of the format. */
#include "hostile/bends.h"

void bend_base(struct pic *p, enum base base)
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

uint64_t bend_place(struct pic *p, enum place where)
{
    switch (where) {
    case ZONED: return p->zoned;
    case L1: return p->l1;
    case RT: return p->rt;
    case BLOCK: return pic_get(p, p->rt, 8);
    case WP: return p->wp;
    case L2: return pic_l2(p, 0);
    case SNAPSHOT: return pic_get(p, 64, 8);
    default: return 0;
    }
}

void bend_image(struct pic *p, const struct bend *b)
{
    uint64_t at[3];

    bend_base(p, b->base);
    for (int i = 0; i < 3; i++)
        at[i] = bend_place(p, b->poke[i].place) + b->poke[i].at;
    for (int i = 0; i < 3; i++) {
        if (b->poke[i].place == CUT)
            pic_cut(p, b->poke[i].value);
        else if (b->poke[i].width)
            pic_put(p, at[i] & 0xffffffff, b->poke[i].width, b->poke[i].value);
    }
}

/* clang-format off */
#define C   ZQCOW2_ECORRUPT
#define F   ZQCOW2_EFEATURE
#define END (1ull << 40) /* beyond any file here */
#define P(...)  {{__VA_ARGS__}}
#define PP(...) {__VA_ARGS__}

const struct bend bends[] = {
    /* ---- header ---- */
    {"magic", Z44, P(HEADER, 0, 4, 0x514649fc), OPEN, ZQCOW2_ENOTQCOW2,
     {"magic", "0x514649fc", "byte 0"}},
    {"version 1", Z44, P(HEADER, 4, 4, 1), OPEN, ZQCOW2_ENOTQCOW2, {"version", "1", "byte 4"}},
    {"version 4", PLAIN, P(HEADER, 4, 4, 4), OPEN, ZQCOW2_ENOTQCOW2, {"version", "4", "byte 4"}},
    {"cut at 4", Z44, P(CUT, 0, 0, 4), OPEN, ZQCOW2_ENOTQCOW2,
     {"file length 4", "", "too short"}},
    {"cut at 71", Z44, P(CUT, 0, 0, 71), OPEN, C, {"file length", "71", "header"}},
    {"cut at 103", Z44, P(CUT, 0, 0, 103), OPEN, C, {"file length", "103", "header"}},
    {"cut at 111", Z44, P(CUT, 0, 0, 111), OPEN, C, {"header_length", "112", "byte 100"}},
    {"cut before L1", Z44, P(CUT, 0, 0, 0x40000), OPEN, C,
     {"l1_table_offset", "0x40000", "byte 40"}},
    {"header_length 96", Z44, P(HEADER, 100, 4, 96), OPEN, C, {"header_length", "96", "byte 100"}},
    {"header_length 116", Z44, P(HEADER, 100, 4, 116), OPEN, C,
     {"header_length", "116", "byte 100"}},
    {"header_length 2^32-8", Z44, P(HEADER, 100, 4, 0xfffffff8), OPEN, C,
     {"header_length", "0xfffffff8", "byte 100"}},
    {"cluster_bits 8", Z44, P(HEADER, 20, 4, 8), OPEN, C, {"cluster_bits", "8", "byte 20"}},
    {"cluster_bits 22", Z44, P(HEADER, 20, 4, 22), OPEN, C, {"cluster_bits", "22", "byte 20"}},
    {"cluster_bits 2^32-1", Z44, P(HEADER, 20, 4, UINT32_MAX), OPEN, C,
     {"cluster_bits", "0xffffffff", "byte 20"}},
    {"refcount_order 7", Z44, P(HEADER, 96, 4, 7), OPEN, C, {"refcount_order", "7", "byte 96"}},
    {"incompatible bit 40", Z44, P(HEADER, 72, 8, 1ull << 40 | 32), OPEN, F,
     {"incompatible_features", "bit 40", "byte 72"}},
    {"named bit", Z44, PP({HEADER, 72, 8, 1 << 20 | 32}, {HEADER, 193, 1, 20}), OPEN, F,
     {"bit 20", "dirty bit", "byte 72"}},
    {"corrupt bit", Z44, P(HEADER, 72, 8, 34), RDWR, C, {"incompatible_features", "34", "byte 72"}},
    {"data file", PLAIN, P(HEADER, 72, 8, 4), OPEN, F, {"data file", "no resolver", "open it"}},
    {"data file name", PLAIN, P(HEADER, 112, 4, 0x44415441), OPEN, C,
     {"incompatible_features", "data file", "byte 72"}},
    {"extended L2, clusters of 8 KiB", PLAIN, PP({HEADER, 72, 8, 16}, {HEADER, 20, 4, 13}), OPEN, C,
     {"cluster_bits", "13", "byte 20"}},
    {"AES", PLAIN, P(HEADER, 32, 4, 1), OPEN, F, {"crypt_method", "AES", "byte 32"}},
    {"LUKS", PLAIN, P(HEADER, 32, 4, 2), OPEN, F, {"crypt_method", "LUKS", "byte 32"}},
    {"crypt 77", PLAIN, P(HEADER, 32, 4, 77), OPEN, C, {"crypt_method", "77", "byte 32"}},
    {"compression without bit", PLAIN, P(HEADER, 104, 1, 1), OPEN, C,
     {"compression_type", "1", "byte 104"}},
    {"bit without compression", PLAIN, P(HEADER, 72, 8, 8), OPEN, C,
     {"compression_type", "0", "byte 104"}},
    {"compression 9", PLAIN, PP({HEADER, 72, 8, 8}, {HEADER, 104, 1, 9}), OPEN, F,
     {"compression_type", "9", "byte 104"}},
    {"size 0 with zones", Z44, P(HEADER, 24, 8, 0), OPEN, C, {"nr_zones", "16", "byte 140"}},
    {"size 513 with zones", Z44, P(HEADER, 24, 8, 513), OPEN, C, {"nr_zones", "16", "byte 140"}},
    {"size 2^64-512", Z44, P(HEADER, 24, 8, 0xfffffffffffffe00), OPEN, C,
     {"size", "0xfffffffffffffe00", "byte 24"}},
    {"size above L1", PLAIN, P(HEADER, 24, 8, MiB(513)), OPEN, C, {"l1_size", "1", "byte 36"}},
    {"l1_size 2^32-1", Z44, P(HEADER, 36, 4, UINT32_MAX), OPEN, C, {"l1_size", "4294967295", "36"}},
    {"nb_snapshots 65537", PLAIN, PP({HEADER, 60, 4, 65537}, {HEADER, 64, 8, 0x30000}), RDWR, C,
     {"nb_snapshots", "65537", "byte 60"}},
    {"snapshots nowhere", PLAIN, PP({HEADER, 60, 4, 1}, {HEADER, 64, 8, END}), RDWR, C,
     {"snapshots_offset", "0x10000000000", "byte 64"}},
    {"backing file", PLAIN, PP({HEADER, 8, 8, 1024}, {HEADER, 16, 4, 7}), OPEN, C,
     {"backing_file_offset", "1024", "zero byte"}},
    {"backing name 1024", PLAIN, PP({HEADER, 8, 8, 1024}, {HEADER, 16, 4, 1024}), OPEN, C,
     {"backing_file_size", "1024", "byte 16"}},
    {"version 2 with zones", Z44, PP({HEADER, 4, 4, 2}, {HEADER, 72, 8, 0x007a62640000002c},
     {HEADER, 128, 8, 0}), OPEN, C, {"zoned extension", "version 2", "byte 72"}},
    /* ---- extensions ---- */
    {"extension too long", Z44, P(HEADER, 132, 4, 65536), OPEN, C,
     {"0x007a6264", "65536", "byte 128"}},
    {"extension wraps", Z44, P(HEADER, 132, 4, 0xfffffffc), OPEN, C,
     {"0x007a6264", "4294967292", "byte 128"}},
    {"no end mark", Z44, P(HEADER, 132, 4, 65536 - 136), OPEN, C,
     {"extension area", "65536", "end marker"}},
    {"zoned twice", Z44, P(HEADER, 112, 4, 0x007a6264), OPEN, C,
     {"header extension", "0x7a6264", "twice"}},
    {"feature names 49", Z44, P(HEADER, 188, 4, 49), OPEN, C,
     {"feature name table length", "49", "byte 188"}},
    {"into backing name", PLAIN, PP({HEADER, 8, 8, 0}, {HEADER, 132, 4, 70000}), OPEN, C,
     {"0x6803f857", "70000", "byte 128"}},
    {"raw data bit alone", PLAIN, P(HEADER, 88, 8, 2), CHECK, 0,
     {"autoclear_features", "0x2", "byte 88"}},
    {"no snapshots, unaligned", PLAIN, P(HEADER, 64, 8, 0x1008), CHECK, 0,
     {"snapshots_offset", "0x1008", "byte 64"}},
    /* ---- tables ---- */
    {"L1 at 0", Z44, P(HEADER, 40, 8, 0), OPEN, C, {"l1_table_offset", "0", "byte 40"}},
    {"L1 unaligned", Z44, P(HEADER, 40, 8, 0x40008), OPEN, C, {"l1_table_offset", "0x40008", "40"}},
    {"L1 beyond file", Z44, P(HEADER, 40, 8, END), OPEN, C,
     {"l1_table_offset", "1099511627776", "40"}},
    {"L1 above 2^56", Z44, P(HEADER, 40, 8, 1ull << 60), OPEN, C,
     {"l1_table_offset", "0x1000000000000000", "byte 40"}},
    {"L1 on refcount table", Z44, P(HEADER, 40, 8, 0x10000), OPEN, C,
     {"L1 table", "0x10000", "overlaps"}},
    {"L1 on write pointers", Z44, P(HEADER, 40, 8, 0x30000), OPEN, C,
     {"write-pointer table", "0x30000", "L1 table"}},
    {"refcount table at 0", Z44, P(HEADER, 48, 8, 0), RDWR, C,
     {"refcount_table_offset", "0", "byte 48"}},
    {"refcount table unaligned", Z44, P(HEADER, 48, 8, 0x10200), RDWR, C,
     {"refcount_table_offset", "0x10200", "byte 48"}},
    {"refcount table beyond", Z44, P(HEADER, 48, 8, END), RDWR, C,
     {"refcount_table_offset", "0x10000000000", "byte 48"}},
    {"refcount table wraps", Z44, P(HEADER, 48, 8, 0xffffffffffff0000), RDWR, C,
     {"refcount_table_offset", "0xffffffffffff0000", "byte 48"}},
    {"refcount table 0 clusters", Z44, P(HEADER, 56, 4, 0), RDWR, C,
     {"refcount_table_clusters", "0", "byte 56"}},
    {"refcount table 2^31 clusters", Z44, P(HEADER, 56, 4, 1u << 31), RDWR, C,
     {"refcount_table_clusters", "2147483648", "byte 56"}},
    {"refcount table on L1", Z44, PP({HEADER, 48, 8, 0x30000}, {HEADER, 56, 4, 2}), RDWR, C,
     {"refcount table", "0x30000", "overlaps"}},
    {"snapshots on L1", PLAIN, PP({HEADER, 60, 4, 1}, {HEADER, 64, 8, 0x30000}), RDWR, C,
     {"snapshot table", "0x30000", "overlaps"}},
    {"L1 entry reserved", Z44, P(L1, 0, 8, 0x50000 | 2), PART, C, {"L1", "0x50002", "reserved"}},
    {"L1 entry unaligned", Z44, P(L1, 0, 8, 0x50200), PART, C, {"L1", "0x50200", "262144"}},
    {"L1 entry beyond", Z44, P(L1, 0, 8, END), PART, C, {"L1", "0x10000000000", "end of the file"}},
    {"L1 entry to L1", Z44, P(L1, 0, 8, 0x40000 | PIC_COPIED), PART, C,
     {"L1", "0x40000", "overlaps"}},
    {"L1 entry to header", Z44, P(L1, 0, 8, PIC_COPIED), PART, C, {"L1", "0x8000000000000000", ""}},
    {"L1 entry to refcounts", Z44, P(L1, 0, 8, 0x10000), PART, C, {"L1", "0x10000", "overlaps"}},
    {"L1 entry to write pointers", Z44, P(L1, 0, 8, 0x30000), PART, C,
     {"L1", "0x30000", "overlaps"}},
    {"block reserved", Z44, P(RT, 0, 8, 0x20001), RDWR, C, {"refcount", "0x20001", "reserved"}},
    {"block bit 56", Z44, P(RT, 0, 8, 1ull << 56 | 0x20000), RDWR, C,
     {"refcount table entry 0", "0x100000000020000", "reserved"}},
    {"block bit 62", PLAIN, P(RT, 0, 8, 1ull << 62 | 0x20000), RDWR, C,
     {"refcount table entry 0", "0x4000000000020000", "reserved"}},
    {"block bit 63", PLAIN, P(RT, 0, 8, 1ull << 63 | 0x20000), RDWR, C,
     {"refcount table entry 0", "0x8000000000020000", "reserved"}},
    {"block bit 8", PLAIN, P(RT, 0, 8, 0x20100), RDWR, C,
     {"refcount table entry 0", "0x20100", "reserved"}},
    {"L1 bit 56", PLAIN, P(L1, 0, 8, 1ull << 56 | 0x40000), PART, C,
     {"L1 entry 0", "0x100000000040000", "reserved"}},
    {"L1 bit 62", PLAIN, P(L1, 0, 8, 1ull << 62 | 0x40000), PART, C,
     {"L1 entry 0", "0x4000000000040000", "reserved"}},
    {"L2 bit 56", PLAIN, P(L2, 0, 8, 1ull << 56 | 0x50000), USE, C,
     {"L2 entry 0", "0x100000000050000", "reserved"}},
    {"L2 bit 61", PLAIN, P(L2, 0, 8, 1ull << 61 | 0x50000), USE, C,
     {"L2 entry 0", "0x2000000000050000", "reserved"}},
    {"block unaligned", Z44, P(RT, 0, 8, 0x20200), RDWR, C, {"refcount", "0x20200", ""}},
    {"block beyond", Z44, P(RT, 8, 8, END), RDWR, C,
     {"refcount", "0x10000000000", "end of the file"}},
    {"block is the table", Z44, P(RT, 0, 8, 0x10000), RDWR, C, {"refcount", "0x10000", "overlaps"}},
    {"block is L1", Z44, P(RT, 8, 8, 0x40000), RDWR, C, {"refcount", "0x40000", "overlaps"}},
    {"block twice", Z44, P(RT, 8, 8, 0x20000), RDWR, C,
     {"refcount table entry 0", "refcount table entry 1", "0x20000"}},
    {"block is an L2 table", PLAIN, P(RT, 8, 8, 0x40000), RDWR, C,
     {"refcount table entry 1", "L1 entry 0", "0x40000"}},
    {"L2 table twice", PLAIN, PP({HEADER, 36, 4, 2}, {L1, 8, 8, 0x40000}), RDWR, C,
     {"L1 entry 0", "L1 entry 1", "0x40000"}},
    {"all refcounts 0", PLAIN, P(RT, 0, 8, 0), RDWR, C, {"header", "byte 0", "refcount 0"}},
    {"refcount 0 on header", PLAIN, P(BLOCK, 0, 2, 0), RDWR, C, {"header", "byte 0", "refcount 0"}},
    {"refcount 0 on refcount table", PLAIN, P(BLOCK, 2, 2, 0), RDWR, C,
     {"refcount table", "byte 65536", "refcount 0"}},
    {"refcount 0 on L1", PLAIN, P(BLOCK, 6, 2, 0), RDWR, C,
     {"L1 table", "byte 196608", "refcount 0"}},
    {"refcount 0 on data", PLAIN, P(BLOCK, 10, 2, 0), CHECK, C,
     {"refcount 0", "too low", "0x50000-"}},
    {"write pointers' refcount 0", Z44, P(BLOCK, 6, 2, 0), RDWR, C,
     {"write-pointer table", "refcount 0", "196608"}},
    {"write pointers' refcount 2", Z44, P(BLOCK, 6, 2, 2), RDWR, C,
     {"write-pointer table", "refcount 2", "196608"}},
    {"COPIED missing", PLAIN, P(L2, 0, 8, 0x50000), CHECK, C, {"L2 entry 0", "0x50000", "COPIED"}},
    {"two guests on one cluster", PLAIN, P(L2, 8, 8, 0x50000 | PIC_COPIED), CHECK, C,
     {"references 2", "refcount 1", "0x50000-"}},
    {"L2 reserved", PLAIN, P(L2, 0, 8, 0x50002), USE, C, {"L2 entry 0", "0x50002", "reserved"}},
    {"L2 unaligned", PLAIN, P(L2, 0, 8, 0x50200), USE, C, {"L2 entry 0", "0x50200", "aligned"}},
    {"a subcluster both data and zeros", PLAIN,
     PP({HEADER, 72, 8, 16}, {L2, 8, 8, 1ull << 39 | 1 << 7}), USE, C,
     {"L2 entry 0", "0x8000000000050000", "both allocated and zero"}},
    {"a subcluster without a cluster", PLAIN,
     PP({HEADER, 72, 8, 16}, {L2, 0, 8, 0}, {L2, 8, 8, 1}), USE, C,
     {"L2 entry 0", "0x0", "allocated without a cluster"}},
    {"zeros by the flag of 64 bits", PLAIN,
     PP({HEADER, 72, 8, 16}, {L2, 0, 8, 0x50001 | PIC_COPIED}, {L2, 8, 8, 1}), USE, C,
     {"L2 entry 0", "0x8000000000050001", "reserved"}},
    {"compressed, with subclusters", PLAIN,
     PP({HEADER, 72, 8, 16}, {L2, 0, 8, 1ull << 62 | 0x50000}, {L2, 8, 8, 1ull << 32}), USE, C,
     {"L2 entry 0", "0x4000000000050000", "compressed"}},
    {"L2 beyond", PLAIN, P(L2, 0, 8, END), USE, C,
     {"L2 entry 0", "0x10000000000", "end of the file"}},
    {"L2 to header", PLAIN, P(L2, 0, 8, PIC_COPIED), USE, C,
     {"L2 entry 0", "0x8000000000000000", ""}},
    {"L2 to refcounts", PLAIN, P(L2, 0, 8, 0x10000 | PIC_COPIED), USE, C,
     {"L2 entry 0", "0x8000000000010000", "refcount table"}},
    {"L2 to block", PLAIN, P(L2, 0, 8, 0x20000 | PIC_COPIED), CHECK, C,
     {"L2 entry 0", "0x8000000000020000", "refcount table or block"}},
    {"L2 to L1", PLAIN, P(L2, 0, 8, 0x30000 | PIC_COPIED), USE, C,
     {"L2 entry 0", "0x8000000000030000", "L1 table"}},
    {"L2 to itself", PLAIN, P(L2, 0, 8, 0x40000 | PIC_COPIED), CHECK, C,
     {"L2 entry 0", "0x8000000000040000", "L2 table"}},
    {"L2 to write pointers", Z44, P(L2, 0, 8, 0x30000 | PIC_COPIED), USE, C,
     {"L2 entry 0", "0x8000000000030000", "write-pointer table"}},
    {"compressed beyond", PLAIN, P(L2, 0, 8, PIC_COMPRESSED | END), USE, C,
     {"L2 entry 0", "0x4000010000000000", "end of the file"}},
    {"compressed garbage", PLAIN, P(L2, 0, 8, PIC_COMPRESSED | 0x50000), USE, C, {"", "", ""}},
    {"compressed in L1", PLAIN, P(L2, 0, 8, PIC_COMPRESSED | 0x30200), USE, C,
     {"L2 entry 0", "0x4000000000030200", "L1 table"}},
    /* ---- snapshots ---- */
    {"snapshot L1 unaligned", SNAP, P(SNAPSHOT, 0, 8, 0x60008), CHECK, C,
     {"snapshot l1_table_offset", "0x60008", "0x70000"}},
    {"snapshot L1 beyond", SNAP, P(SNAPSHOT, 0, 8, END), CHECK, C,
     {"snapshot l1_table_offset", "0x10000000000", "0x70000"}},
    {"snapshot L1 is L1", SNAP, P(SNAPSHOT, 0, 8, 0x30000), CHECK, C,
     {"L1 table of a snapshot", "0x30000", "overlaps"}},
    {"snapshot l1_size", SNAP, P(SNAPSHOT, 8, 4, UINT32_MAX), CHECK, C,
     {"snapshot l1_size", "4294967295", "0x70008"}},
    {"snapshot extra", SNAP, P(SNAPSHOT, 36, 4, UINT32_MAX), CHECK, C,
     {"snapshot extra_data_size", "4294967295", "0x70024"}},
    {"snapshot name", SNAP, P(SNAPSHOT, 12, 4, UINT32_MAX), CHECK, C,
     {"snapshot table entry", "", "0x70000"}},
    /* ---- zoned ---- */
    {"zoned length 40", Z44, P(ZONED, -4u, 4, 40), OPEN, F, {"zoned extension", "40", "byte 136"}},
    {"zoned model 0", Z44, P(ZONED, 0, 1, 0), OPEN, C, {"model", "0", "byte 136"}},
    {"zoned model 2", Z44, P(ZONED, 0, 1, 2), OPEN, F, {"model", "2", "byte 136"}},
    {"zoned reserved", ZV7, P(ZONED, 2, 1, 1), OPEN, C, {"reserved field", "256", "byte 137"}},
    {"zone_size 0", Z44, P(ZONED, 8, 8, 0), OPEN, C, {"zone_size", "0", "byte 144"}},
    {"zone_size 3 MiB", Z56, P(ZONED, 4, 8, MiB(3)), OPEN, C, {"zone_size", "3145728", "byte 140"}},
    {"zone_size 32 KiB", ZV7, P(ZONED, 4, 4, 32768), OPEN, C, {"zone_size", "32768", "byte 140"}},
    {"zone_size 2^63", Z44, P(ZONED, 8, 8, 1ull << 63), OPEN, C, {"nr_zones", "16", "byte 140"}},
    {"capacity 0", Z44, P(ZONED, 16, 8, 0), OPEN, C, {"zone_capacity", "0", "byte 152"}},
    {"capacity above size", Z48B, P(ZONED, 16, 8, MiB(5)), OPEN, C,
     {"zone_capacity", "5242880", "byte 152"}},
    {"capacity 513", ZV7, P(ZONED, 8, 4, 513), OPEN, C, {"zone_capacity", "513", "byte 144"}},
    {"conventional 16", Z44, P(ZONED, 32, 4, 16), OPEN, C,
     {"conventional_zones", "16", "byte 168"}},
    {"nr_zones 0", Z44, P(ZONED, 4, 4, 0), OPEN, C, {"nr_zones", "0", "byte 140"}},
    {"nr_zones 17", Z44, P(ZONED, 4, 4, 17), OPEN, C, {"nr_zones", "17", "byte 140"}},
    {"nr_zones 2^32-1", Z44, P(ZONED, 4, 4, UINT32_MAX), OPEN, C,
     {"nr_zones", "4294967295", "140"}},
    {"nr_zones 2^32-1, 56", Z56, P(ZONED, 24, 4, UINT32_MAX), OPEN, C,
     {"nr_zones", "4294967295", "byte 160"}},
    {"48 bytes of nothing", Z48B, P(ZONED, 4, 4, 99), OPEN, C,
     {"zoned extension", "48 bytes", "byte 136"}},
    {"limits swapped", Z44, PP({ZONED, 36, 4, 3}, {ZONED, 40, 4, 4}), OPEN, C,
     {"max_open_zones", "4", "byte 176"}},
    {"table at 0", Z44, P(ZONED, 24, 8, 0), OPEN, C, {"table_offset", "0", "byte 160"}},
    {"table unaligned", Z44, P(ZONED, 24, 8, 0x30200), OPEN, C, {"table_offset", "0x30200", "160"}},
    {"table beyond", Z44, P(ZONED, 24, 8, END), OPEN, C, {"table_offset", "0x10000000000", "160"}},
    {"table above 2^56", ZV7, P(ZONED, 40, 8, 1ull << 57), OPEN, C,
     {"table_offset", "0x200000000000000", "byte 176"}},
    {"table on L1", Z44, P(ZONED, 24, 8, 0x40000), OPEN, C,
     {"write-pointer table", "0x40000", "L1"}},
    {"table on refcounts", Z44, P(ZONED, 24, 8, 0x10000), OPEN, C,
     {"write-pointer table", "0x10000", "refcount table"}},
    {"table_size", Z56, P(ZONED, 40, 8, 64), OPEN, C, {"table_size", "64", "byte 176"}},
    {"bit without extension", Z44, P(HEADER, 128, 4, 0x11111111), OPEN, C,
     {"incompatible_features", "0x20", "byte 72"}},
    {"extension without bit", Z44, P(HEADER, 72, 8, 0), OPEN, C,
     {"incompatible_features", "0x0", "byte 72"}},
    {"v7 without bit", ZV7, P(HEADER, 72, 8, 0), RDWR, F, {"zoned", "bit 5", "clear"}},
    {"pointer in another zone", Z44, P(WP, 24, 8, MiB(20)), OPEN, C,
     {"zone 3", "0x0000000001400000", "byte 196632"}},
    {"pointer unaligned", Z44, P(WP, 24, 8, MiB(12) + 100), OPEN, C,
     {"zone 3", "0x0000000000c00064", "byte 196632"}},
    {"pointer beyond device", Z44, P(WP, 120, 8, 1ull << 62), OPEN, C,
     {"zone 15", "0x4000000000000000", "byte 196728"}},
    {"flag on the wrong zone", Z44, P(WP, 24, 8, MiB(12) | 1ull << 63), OPEN, C,
     {"zone 3", "0x8000000000c00000", "byte 196632"}},
    {"flag missing", Z44, PP({ZONED, 32, 4, 1}, {WP, 8, 8, MiB(4)}), OPEN, C,
     {"zone 0", "0x0000000000010000", "byte 196608"}},
    {"v7 flag elsewhere", ZV7, P(WP, 24, 8, 0x0000c00000000080), OPEN, C,
     {"zone 3", "0x8000000000c00000", "byte 196632"}},
};
/* clang-format on */
const size_t nr_bends = sizeof(bends) / sizeof(bends[0]);
