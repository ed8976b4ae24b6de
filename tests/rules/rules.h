/* SPDX-License-Identifier: MIT */
/*
 * Stories about single rules. The backend does what the story lets it, one I/O after the other;
 * behind each of them the file as it then is, the state that a crash there leaves, is judged by
 * code of the rig's own: every reference counted (K1), and below each write pointer the beginning
 * of one life (I2).
 */
#ifndef RULES_RULES_H
#define RULES_RULES_H

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "rig/raw.h"
#include "rig/ticket.h"

#define Z       KiB(128)
#define C       4096u
#define KIND(k) (1u << ZQCOW2_IO_##k)

extern const struct geometry wide; /* clusters of 4 KiB, two conventional zones, six others */
extern const struct geometry tiny; /* of 512 bytes: an L2 table covers 32 KiB */

/* Of the running story. */
extern struct rig r;
extern struct raw raw;
extern struct zqcow2_queue *q;

/* ---- beginning and end ---- */

void begin_on(const struct geometry *g, uint32_t io_align);
void begin(const struct geometry *g);
/* A zone may hold so many bytes of one tag and then, once it is finished, zeros. */
void life(uint32_t zone, uint64_t tag, uint64_t len, bool finished);
/* Begins; zone 2 has had 32 KiB of tag 1, the first life, which is durable. */
void zone_with_data(void);
void zone_with_data_grows(uint64_t len);
/* Closes, lets a snapshot that is made by hand share guest's cluster or table, opens again. */
void share(uint64_t guest, bool table);
void close_all(void);
void open_all(void);
/* Releases all, and everybody has been answered. */
void settled(void);
/* Settled, closed without leaks, and the judge has found nothing. */
void end(void);
void end_shared(void); /* check knows nothing of such a snapshot */
void end_dead(void);
void judged(void);

/* ---- requests ---- */

/* Does everything that is not held; ends the program when the library goes round without end. */
void go(void);
struct ticket *post(int op, uint64_t off, uint64_t len, uint64_t tag);
struct ticket *send(int op, uint64_t off, uint64_t len, uint64_t tag); /* and go() */
struct ticket *flush(void);
struct ticket *write_fua(uint64_t off, uint64_t len, uint64_t tag);
void done(const struct ticket *t, int ret);
void waits(const struct ticket *t);
/* A read has this. */
bool got(const struct ticket *t, uint64_t tag);

/* ---- holding I/O back ---- */

void hold_all(uint32_t kinds);
void hold(uint32_t kinds, uint64_t off, uint64_t len);
/* What is mapped at guest. */
void hold_data(uint32_t kinds, uint64_t guest, uint64_t len);
uint32_t held(void);
void release(void);
void release_all_but(uint32_t kinds, uint64_t off, uint64_t len);

/* ---- the stories ---- */

void r1_reset_after_the_stage_was_composed(void **state);
void r2_write_after_reset(void **state);
void r2_finish_after_reset(void **state);
void r2_readers_of_the_old_life(void **state);
void r6_hole_waits_for_readers(void **state);
void r6_writers_wait_for_the_hole(void **state);
void r6_no_hole_in_a_new_life(void **state);
void r6_failed_hole(void **state);
void r5_reader_of_an_unmapped_cluster(void **state);
void r5_writer_of_an_unmapped_cluster(void **state);
void r5_unmapped_cluster(void **state);
void r5_copied_cluster(void **state);
void r5_copied_table(void **state);
void k2_l1_as_in_the_snapshot(void **state);
void k2_pointers_as_in_the_snapshot(void **state);
void i1_flush_behind_a_running_round(void **state);
void i1_fua_behind_a_running_round(void **state);
void i4_finish_behind_a_running_round(void **state);
void r12_mark_before_all_else(void **state);
void r12_mark_behind_the_flags(void **state);
void r12_mark_cleared_last(void **state);
void r14_blocks_one_after_the_other(void **state);
void r14_blocks_of_metadata(void **state);
void r14_unmapping_waits_for_the_owner(void **state);
void r14_zeroing_waits_for_the_owner(void **state);
void r14_one_maker(void **state);
void r3_finish_in_a_shared_cluster(void **state);
void r4_nothing_mapped_ahead_after_a_close(void **state);
void the_tables_tail_is_kept(void **state);
void r11_who_waits_for_readers(void **state);
void r11_who_waits_for_an_owner(void **state);
void i5_zeros_around_a_small_write(void **state);
void i7_the_largest_limit(void **state);
void e3_new_clusters_over_two_slices(void **state);
void k11_gather_changes_nothing(void **state);
void e3_freed_over_two_slices(void **state);
void r9_a_table_that_grows(void **state);
void r9_header_behind_a_barrier(void **state);
void r9_others_while_the_table_grows(void **state);
void r7_full_at_commit(void **state);
void r13_order_of_a_repair(void **state);
void k10_a_callback_may_submit(void **state);
void e2_janitor_sleeps_until_the_round(void **state);
void e1_a_drain_gives_each_turn_back(void **state);
void e1_fast_path_keeps_the_queue(void **state);
void r1_a_barrier_at_open(void **state);
void r10_janitor_without_space(void **state);

#endif
