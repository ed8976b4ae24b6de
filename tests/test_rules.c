/* SPDX-License-Identifier: MIT */
/* The rules of DESIGN.md, one story each: rules/. */
#include "rules/rules.h"

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(r1_reset_after_the_stage_was_composed),
        cmocka_unit_test(r2_write_after_reset),
        cmocka_unit_test(r2_finish_after_reset),
        cmocka_unit_test(r2_readers_of_the_old_life),
        cmocka_unit_test(r6_hole_waits_for_readers),
        cmocka_unit_test(r6_writers_wait_for_the_hole),
        cmocka_unit_test(r6_no_hole_in_a_new_life),
        cmocka_unit_test(r6_failed_hole),
        cmocka_unit_test(r5_reader_of_an_unmapped_cluster),
        cmocka_unit_test(r5_writer_of_an_unmapped_cluster),
        cmocka_unit_test(r5_unmapped_cluster),
        cmocka_unit_test(r5_copied_cluster),
        cmocka_unit_test(r5_copied_table),
        cmocka_unit_test(k2_l1_as_in_the_snapshot),
        cmocka_unit_test(k2_pointers_as_in_the_snapshot),
        cmocka_unit_test(i1_flush_behind_a_running_round),
        cmocka_unit_test(i1_fua_behind_a_running_round),
        cmocka_unit_test(i4_finish_behind_a_running_round),
        cmocka_unit_test(r12_mark_before_all_else),
        cmocka_unit_test(r12_mark_behind_the_flags),
        cmocka_unit_test(r12_mark_cleared_last),
        cmocka_unit_test(r14_blocks_one_after_the_other),
        cmocka_unit_test(r14_blocks_of_metadata),
        cmocka_unit_test(r14_unmapping_waits_for_the_owner),
        cmocka_unit_test(r14_zeroing_waits_for_the_owner),
        cmocka_unit_test(r14_one_maker),
        cmocka_unit_test(r3_finish_in_a_shared_cluster),
        cmocka_unit_test(r4_nothing_mapped_ahead_after_a_close),
        cmocka_unit_test(the_tables_tail_is_kept),
        cmocka_unit_test(r11_who_waits_for_readers),
        cmocka_unit_test(r11_who_waits_for_an_owner),
        cmocka_unit_test(i5_zeros_around_a_small_write),
        cmocka_unit_test(i7_the_largest_limit),
        cmocka_unit_test(e3_new_clusters_over_two_slices),
        cmocka_unit_test(k11_gather_changes_nothing),
        cmocka_unit_test(e3_freed_over_two_slices),
        cmocka_unit_test(r9_a_table_that_grows),
        cmocka_unit_test(r9_header_behind_a_barrier),
        cmocka_unit_test(r9_others_while_the_table_grows),
        cmocka_unit_test(r7_full_at_commit),
        cmocka_unit_test(r13_order_of_a_repair),
        cmocka_unit_test(k10_a_callback_may_submit),
        cmocka_unit_test(e2_janitor_sleeps_until_the_round),
        cmocka_unit_test(e1_a_drain_gives_each_turn_back),
        cmocka_unit_test(e1_fast_path_keeps_the_queue),
        cmocka_unit_test(r1_a_barrier_at_open),
        cmocka_unit_test(r10_janitor_without_space),
    };

    return cmocka_run_group_tests_name("rules", tests, NULL, NULL);
}
