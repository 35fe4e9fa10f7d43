"""Bugs planted in a copy of the kernels, all in one: each is a change of an expression that a number switches on.

The copy lives in a namespace of its own and takes the place of the right kernels when `emulated.mutate(number)` asks
for it; number 0 are the right ones, `CONTROL` the copy without a bug.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

FILES = ("cells.cuh", "exchange.cuh", "prepare.cuh", "product.cuh", "recurrence.cuh", "kernels.cu")
CELLS = {"Fma": "Lstm", "Bfloat16": "Gru"}  # what is compiled: for each product one cell
CONTROL = 999


@dataclass(frozen=True)
class Mutant:
    """``original`` becomes ``mutated`` where it stands in ``around``, which the file has exactly once."""

    name: str
    file: str
    original: str
    mutated: str
    tier: str
    cell: str = "lstm"
    around: str = ""
    hidden: int = 33
    directions: int = 1
    steps: int = 4
    batch: int = 8

    @property
    def product(self) -> str:
        return {"lstm": "fma", "gru": "bfloat16"}[self.cell]


def _exchange(*fields: str, **options: str | int) -> Mutant:
    return Mutant(fields[0], "exchange.cuh", *fields[1:], **options)  # type: ignore[arg-type]


def _product(*fields: str, **options: str | int) -> Mutant:
    return Mutant(fields[0], "product.cuh", *fields[1:], **options)  # type: ignore[arg-type]


def _prepare(*fields: str, **options: str | int) -> Mutant:
    return Mutant(fields[0], "prepare.cuh", *fields[1:], **options)  # type: ignore[arg-type]


def _recurrence(*fields: str, **options: str | int) -> Mutant:
    return Mutant(fields[0], "recurrence.cuh", *fields[1:], **options)  # type: ignore[arg-type]


MUTANTS = (
    # Whose turn, which slot
    _exchange("one_slot_in_shared_memory", "turn % 2 * l_.rows", "0 * l_.rows", "cluster", cell="gru"),
    _exchange("one_slot_in_global_memory", "turn % 2 * l.rows", "0 * l.rows", "grid"),
    _exchange("one_slot_for_all_launches", "turn % 2 * l.rows", "0 * l.rows", "steps", cell="gru"),
    _exchange("operand_of_the_wrong_turn", "data(turn)", "data(turn + 1)", "block",
              around="return {data(turn), shared"),
    _exchange("fetches_the_wrong_turn", "turn", "turn + 1", "grid",
              around="fetch(l_, slots_.of(l_, turn), 0)", cell="gru"),
    _exchange("reads_the_wrong_turn", "slots_.of(l_, turn)", "slots_.of(l_, turn + 1)", "steps",
              around="return {slots_.of(l_, turn), l_"),
    # Who has sent what
    _exchange("waits_for_the_flag_before", "uint32_t(turn)", "uint32_t(turn - 1)", "grid", around="< uint32_t(turn))"),
    _exchange("raises_the_flag_of_the_next_turn", "uint32_t(turn)", "uint32_t(turn + 1)", "grid",
              around="flags_ + member_, uint32_t(turn))", cell="gru"),
    _exchange("waits_for_all_flags_but_one", "l_.members", "l_.members - 1", "grid", around="i < l_.members; i +="),
    _exchange("pushes_to_the_wrong_member", "other", "(other + 1) % l_.members", "cluster",
              around="push(at, other, value"),
    _exchange("expects_too_few_bytes", "(l_.members - 1) * own_bytes()", "(l_.members - 1) * own_bytes() - 16",
              "cluster",
              cell="gru"),
    _exchange("waits_for_the_wrong_phase", "(turn - 1) / 2", "turn / 2", "cluster"),
    _exchange("one_barrier_for_both_slots", "turn % 2 * 8", "0", "cluster", cell="gru"),
    _exchange("sends_the_part_of_another", "member_ * own_bytes()", "0", "cluster"),
    _exchange("a_row_is_not_sent", "l_.rows * pieces << bits", "(l_.rows - 1) * pieces << bits", "cluster", cell="gru"),
    _exchange("padding_not_zeroed", "device::store_shared(data(1) + byte, Quad{})", "void()", "block", cell="gru"),
    _exchange("a_row_is_not_fetched", "l.rows", "l.rows - 1", "grid", around="row < l.rows; row += warps"),
    _exchange("phases_of_the_first_turns", "(turn - 1) / 2", "(turn > 2)", "cluster", steps=6),
    _exchange("teams_in_another_order", "direction * teams_per_direction + tile", "tile * p.directions + direction",
              "grid", directions=2, batch=9),
    _exchange("one_direction_for_both", "of_launch % p.directions", "0", "block", directions=2),
    # Which units, which terms
    _recurrence("units_of_another_member", "member.number", "(member.number + 1) % l.members", "grid",
                around="(member.number << l.unit_bits)"),
    _recurrence("one_unit_too_many", "e.unit < p.hidden", "e.unit <= p.hidden", "block"),
    _recurrence("one_unit_too_few", "e.unit < p.hidden", "e.unit < p.hidden - 1", "cluster", cell="gru"),
    _recurrence("one_row_too_few", "e.n < p.batch", "e.n < p.batch - 1", "steps", cell="gru"),
    _recurrence("first_split_for_all", "at + g * (partial_gate * 4)", "e.partial + g * (partial_gate * 4)", "cluster",
                cell="gru"),
    _recurrence("all_splits_but_one", "p.layout.splits", "(p.layout.splits - 1)", "block",
                around="e.partial + p.layout.splits * next"),
    _product("terms_of_the_first_split", "split * l.tiles_per_warp", "0", "block"),
    _product("terms_beyond_the_last", "l.tiles - first_ < l.tiles_per_warp", "false", "steps"),
    _product("weights_of_the_first_direction", "direction * groups", "0", "block", directions=2,
             around="((direction * groups + group)"),
    _product("rows_apart_by_the_wrong_stride", "partial_stride", "16", "block",
             around="row % row_group * partial_stride + unit)"),
    _product("rows_of_the_operand_swapped", "lane / 4", "lane % 8", "grid", cell="gru",
             around="row_group + lane / 4, (tile + c) * 32"),
    _product("sums_of_the_wrong_units", "i / 2 * 8", "i % 2 * 8", "steps", cell="gru",
             around="g, unit + i / 2 * 8, sum"),
    _product("lanes_halve_the_wrong_sums", "upper ? first + half : first", "first", "steps"),
    _product("lanes_keep_what_they_give", "upper ? sums[i] : sums[half + i]", "upper ? sums[half + i] : sums[i]",
             "grid"),
    _product("last_tile_of_a_chain_left_out", "c + 1 < count", "c + 2 < count", "cluster", cell="gru"),
    _product("shared_weights_overlap", "tile - in_registers_", "0", "block", hidden=96),
    _prepare("words_of_a_fragment_swapped", "j % 2 * 8", "j / 2 * 8", "block", cell="gru",
             around="r = row + j % 2 * 8, k = term"),
    _prepare("weights_beyond_the_last_unit", "of >= H", "false", "steps", around="|| of >= H ||"),
    _prepare("weights_not_transposed", "(gate * H + of) * H + unit", "(gate * H + unit) * H + of", "grid", cell="gru",
             around="is_backward ? (gate * H + of) * H + unit"),
    _prepare("reads_beyond_the_last_unit", "unit >= H", "false", "block", around="(unit >= H"),
    _prepare("reads_beyond_the_last_row", "n < uint32_t(p.batch)", "true", "grid", cell="gru", batch=7),
    _prepare("initial_state_left_out", "p.h0", "nullptr", "block", cell="gru", around="!is_backward && p.h0 &&"),
    _prepare("flags_not_lowered", "device::store(p.flags + i, 0u)", "void()", "grid"),
    # The walk
    _recurrence("no_bias", "p.bias_hn && e.exists()", "false", "steps", cell="gru"),
    _recurrence("bias_beyond_the_last_unit", "p.bias_hn && e.exists()", "p.bias_hn != nullptr", "block", cell="gru"),
    _recurrence("reads_a_row_that_is_none", "s >= e.steps", "false", "steps", around="if (s >= e.steps) continue;"),
    _recurrence("one_gate_for_all", "at + g * H", "at", "block", around="(p.gates_x, at + g * H)"),
    _recurrence("gradients_of_the_wrong_gate", "Cell::sent(g)", "g", "cluster", cell="gru"),
    _recurrence("cell_of_the_wrong_step", "at_before", "at", "grid", around="(p.cells + at_before)"),
    _recurrence("state_of_the_wrong_step", "at_before", "at", "block", cell="gru", around="(p.y, at_before)"),
    _recurrence("lengths_ignored", "p.lengths", "nullptr", "cluster", around="p.lengths ? device::load"),
    _recurrence("lengths_ignored_backward", "s < e.steps", "true", "block", cell="gru",
                around="if (s < e.steps) {\n        const Past<float"),
    _recurrence("reverse_from_the_batchs_end", "e.steps - 1 - step", "p.steps - 1 - step", "grid", cell="gru"),
    _recurrence("gradient_of_the_last_step_lost", "state[i].h += sums[0]", "state[i].h = sums[0]", "cluster",
                cell="gru"),
    _recurrence("first_step_is_not_sent", "s >= 0", "s > 0", "grid", around="if (s >= 0) team.send"),
    _recurrence("sends_after_the_last_step", "s + 1 < p.steps", "true", "cluster"),
    _recurrence("each_launch_begins_anew", "p.first_step == 0", "true", "steps", around="p.first_step == 0, p.h0"),
)  # fmt: skip


def stands(mutant: Mutant, source: Path) -> bool:
    """Whether the kernels still have the text that the bug changes, once."""
    around = mutant.around or mutant.original
    return around.count(mutant.original) == 1 and (source / mutant.file).read_text().count(around) == 1


def write(source: Path, folder: Path) -> Path:
    """The copy of ``source`` with all mutants whose text stands there; its kernels.cu."""
    texts = {file: (source / file).read_text() for file in FILES}
    changed: dict[tuple[str, str, str], str] = {}
    for number, mutant in enumerate(MUTANTS, 1):
        if not stands(mutant, source):
            continue  # its test says so
        around = mutant.around or mutant.original
        place = (mutant.file, around, mutant.original)
        changed[place] = (
            f"(::fusedrnn::emulator::mutant == {number} ? ({mutant.mutated}) : ({changed.get(place, mutant.original)}))"
        )
    for (file, around, original), switch in changed.items():
        if texts[file].count(around) != 1:
            raise ValueError(f"{file}: {around} overlaps another bug's place")
        texts[file] = texts[file].replace(around, around.replace(original, switch))
    for file, text in texts.items():
        text = text.replace("namespace fusedrnn::cuda {", "namespace fusedrnn::cuda::mutated {")
        if file == "kernels.cu":
            lines = [line for line in text.splitlines() if "of_cell<Rnn>" not in line and "of_cell<Lstm>" not in line]
            text = (
                "\n".join(lines)
                .replace("of_cell<Gru>", "of_cell<FUSEDRNN_CUDA_CELL>")
                .replace("CellKind cell", "CellKind")
            )
        (folder / file).write_text(text + "\n")
    return folder / "kernels.cu"
