"""Bugs for the tests to find: optimizers that stop moving a parameter."""

from __future__ import annotations

from tests.planted.bug import Bug

_PARAMETERS, _OPTIM = "python/fusedrnn/nn/parameters.py", "python/fusedrnn/optim.py"
_TRAIN = "python/fusedrnn/train/trainer.py"
_OWNERSHIP, _PARTS = "tests/test_parameter_ownership.py", "tests/test_training_of_parts.py"

BUGS = (
    Bug(
        "sets_look_for_their_parameters_once",
        _PARAMETERS,
        "if self._seen is not _layout:",
        "if self._seen is None:",
        f"{_OWNERSHIP}::test_whatever_happens_every_optimizer_moves_its_parameters",
    ),
    Bug(
        "copies_lie_in_the_buffer_of_the_original",
        _PARAMETERS,
        "    def __deepcopy__(self, memo: dict[int, Any]) -> None:\n        return None\n",
        "    def __deepcopy__(self, memo: dict[int, Any]) -> Any:\n        return self\n",
        f"{_OWNERSHIP}::test_a_copied_optimizer_moves_the_copied_model",
    ),
    Bug(
        "neighbours_in_a_buffer_though_others_lie_between",
        _PARAMETERS,
        "and place.start - start == shift",
        "and place.start - start >= shift",
        f"{_OWNERSHIP}::test_optimizers_of_parts_have_the_bits_of_one",
    ),
    Bug(
        "a_larger_set_leaves_its_parts_in_buffers_of_their_own",
        _PARAMETERS,
        "if len({id(place and place.buffer) for place in places}) > 1 or places[0] is None:",
        "if places[0] is None:",
        f"{_OWNERSHIP}::test_the_usual_optimizer_is_one_pass_wherever_its_part_lies",
    ),
    Bug(
        "a_parameter_lies_where_it_was_put_whatever_is_assigned",
        _PARAMETERS,
        "if place is not None and place.data is self.data and place.grad is self.grad else None",
        "if place is not None else None",
        "tests/test_parameters.py::test_optimizers_move_an_array_that_was_assigned",
    ),
    Bug(
        "the_norm_of_the_first_piece",
        _PARAMETERS,
        "            if part is None:\n                return grad\n",
        "            if part is None or joined is None:\n                return grad\n",
        f"{_OWNERSHIP}::test_a_norm_is_that_of_the_set_asked_for_with_the_same_bits_wherever_it_lies",
    ),
    Bug(
        "every_piece_has_the_state_of_the_first",
        _OPTIM,
        "{name: array[part] for name, array in self.state.items()}",
        "{name: array[: part.stop - part.start] for name, array in self.state.items()}",
        f"{_OWNERSHIP}::test_optimizers_of_parts_have_the_bits_of_one",
    ),
    Bug(
        "an_optimizer_may_be_of_another_model_in_part",
        _OPTIM,
        "        if None in moved:\n",
        "        if set(moved) == {None}:\n",
        f"{_PARTS}::test_a_trainer_refuses_an_optimizer_of_other_parameters",
    ),
    Bug(
        "gradients_of_what_stays_add_up",
        _TRAIN,
        "        self._flat.zero_grad()  #",
        "        self.optimizer.zero_grad()  #",
        f"{_PARTS}::test_a_trainer_moves_the_part_that_its_optimizer_has",
    ),
    Bug(
        "the_norm_of_what_stays_counts",
        _TRAIN,
        "clip_grad_norm_(self.optimizer.params,",
        "clip_grad_norm_(self._flat,",
        f"{_PARTS}::test_a_trainer_moves_the_part_that_its_optimizer_has",
    ),
)
