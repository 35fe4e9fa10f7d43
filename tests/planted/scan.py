"""Bugs for the tests to find: recurrences as programs."""

from __future__ import annotations

from tests.planted.bug import Bug

SCAN = "python/fusedrnn/scan/"
EXECUTOR = "tests/test_scan_executor.py"
PLANS = "tests/test_scan_plans.py"

BUGS = (
    # derivatives
    Bug(
        "where_multiplies_its_mask",
        SCAN + "rules.py",
        "    return to.where(condition, g, 0.0) if place == 1 else to.where(condition, 0.0, g)\n",
        "    m = to.as_real(condition)\n"
        "    return to.multiply(g, m) if place == 1 else to.multiply(g, to.subtract(1.0, m))\n",
        "tests/test_scan_derivative.py",
    ),
    Bug(
        "a_total_of_what_is_alike_at_each_step_is_counted_once",
        SCAN + "derivative.py",
        "    found = total(lift(_bare(term), level), lower)\n",
        "    found = total(_bare(term), lower)\n",
        EXECUTOR,
    ),
    # planner
    Bug(
        "a_new_state_lies_inside_of_a_concatenation",
        SCAN + "tasks.py",
        "            and base not in self.states_after\n",
        "",
        EXECUTOR,
    ),
    Bug(
        "a_turned_product_is_summed_as_it_was",
        SCAN + "tasks.py",
        '    while is_free(inner) and inner.op == "reshape":\n        inner = inner.inputs[0]\n',
        "    while is_free(inner):\n        inner = inner.inputs[0]\n",
        f"{PLANS} {EXECUTOR}",
    ),
    Bug(
        "an_axis_of_a_turned_state_stays_where_it_was",
        SCAN + "turned.py",
        "            self._turn(value, (1 - axis, *rest))\n",
        "            self._turn(value, (axis, *rest))\n",
        "tests/test_scan_turned.py",
    ),
    Bug(
        "a_sum_over_a_turned_state_takes_the_other_axis",
        SCAN + "turned.py",
        "        if len(axes) == 2:",
        "        if len(axes) == 3:",
        "tests/test_scan_turned.py",
    ),
    Bug(
        "a_turned_state_is_set_as_it_is",
        "python/fusedrnn/nn/scan_stream.py",
        "        self._states = arrays if self._bound is None else self._bound.compiled.turn(arrays)\n",
        "        self._states = arrays\n",
        "tests/test_scan_turned.py",
    ),
    Bug(
        "a_sum_of_transposed_products_is_not_transposed",
        SCAN + "rules.py",
        "        return add(*(_transposed(each, axes) for each in g.inputs))\n",
        "        return add(*g.inputs)\n",
        "tests/test_scan_derivative.py",
    ),
    Bug(
        "a_group_reads_what_it_has_not_written_yet",
        SCAN + "schedule.py",
        "            if task.writes in apart:\n                continue\n",
        "",
        f"{PLANS} {EXECUTOR}",
    ),
    Bug(
        "scratch_is_free_before_its_last_reader",
        SCAN + "plan.py",
        "                    if whole in first:\n                        last[whole] = i\n",
        "                    if whole in first:\n                        last[whole] = max(last[whole], i - 1)\n",
        PLANS,
    ),
    Bug(
        "a_constants_register_is_used_again",
        SCAN + "groups.py",
        '            number = free.pop() if free and operation.code != "fill" else passes.registers\n',
        "            number = free.pop() if free else passes.registers\n",
        EXECUTOR,
    ),
    Bug(
        "a_number_minus_an_array_is_the_array_minus_the_number",
        SCAN + "groups.py",
        '"subtract": {0: ("constant_subtract", lambda k: k), 1:',
        '"subtract": {0: ("add_constant", lambda k: -k), 1:',
        f"{PLANS} {EXECUTOR}",
    ),
    Bug(
        "totals_of_uneven_rows_add_up_in_groups",
        SCAN + "tasks.py",
        "            if self.uneven:\n                self.stages[STEP]",
        "            if False:\n                self.stages[STEP]",
        f"{EXECUTOR} tests/test_scan.py",
    ),
    Bug(
        "the_distance_of_checkpoints_is_no_multiple_of_a_block",
        SCAN + "execute.py",
        "        return -(-max(1, wanted) // block) * block\n",
        "        return max(1, wanted)\n",
        f"{EXECUTOR} tests/test_scan.py",
    ),
    # programs and calls
    Bug(
        "a_program_does_not_depend_on_what_its_step_closes_over",
        SCAN + "closures.py",
        "                self._value(cell.cell_contents)\n",
        "                pass\n",
        "tests/test_scan_cache.py",
    ),
    Bug(
        "packed_rows_are_padded_with_the_last_one",
        SCAN + "packing.py",
        "        self.lengths = self.present.sum(0).astype(np.int64)\n",
        "        self.lengths = np.full(self.shape[1], self.shape[0], np.int64)\n",
        "tests/test_scan.py",
    ),
    # executor
    Bug(
        "backward_begins_without_forwards_memory",
        "csrc/core/program_walk.hpp",
        "    if (forward) forward->lend(f, team, call_.steps - 1);\n"
        "    ready_.interpreter().run(plan.row_before, f);\n",
        "    ready_.interpreter().run(plan.row_before, f);\n",
        EXECUTOR,
    ),
    Bug(
        "blocks_of_backward_begin_at_its_own_start",
        "csrc/core/program_run.cpp",
        "last = call.forward ? call.steps - (call.steps - s - 1) / block * block : std::min(call.steps, s + block);",
        "last = std::min(call.steps, s + block);",
        EXECUTOR,
    ),
    Bug(
        "totals_take_what_rows_past_their_end_computed",
        "csrc/core/program_stage.hpp",
        "return lanes.store(s.data + block * f.lanes * s.stride, s.stride, f.rows_of(block), at(0), n[1],\n"
        "                           n[2] ? f.alive_of(block) : nullptr);",
        "return lanes.store(s.data + block * f.lanes * s.stride, s.stride, f.rows_of(block), at(0), n[1], nullptr);",
        f"{EXECUTOR} tests/test_scan.py",
    ),
)
