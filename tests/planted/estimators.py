"""Bugs for the tests to find: what users and attackers give to estimators, forecasts and the reader of ONNX."""

from __future__ import annotations

from tests.planted.bug import Bug

_READER, _GRAPH = "python/fusedrnn/onnx/reader.py", "python/fusedrnn/onnx/graph.py"
_PADDING, _SAMPLES = "python/fusedrnn/nn/padding.py", "python/fusedrnn/estimators/samples.py"

BUGS = (
    Bug(
        "onnx_cycles_are_followed",
        _GRAPH,
        "            TopologicalSorter(above).prepare()\n",
        "            TopologicalSorter(above)\n",
        "tests/test_onnx_hostile.py::test_one_error_names_the_node",
    ),
    Bug(
        "onnx_names_may_come_twice",
        _GRAPH,
        "                if name in known or name in self.maker:\n",
        "                if name in known:\n",
        "tests/test_onnx_hostile.py::test_one_error_names_the_node",
    ),
    Bug(
        "onnx_weights_shared_without_end",
        _READER,
        "        self.own += 0 if name in self.weights else weight.nbytes\n",
        "        self.own += weight.nbytes\n",
        "tests/test_onnx_hostile.py::test_a_small_file_does_not_fill_the_memory",
    ),
    Bug(
        "onnx_ways_to_states_are_walked_again",
        _GRAPH,
        "            self._origins[name] = found\n",
        "",
        "tests/test_onnx_hostile.py::test_each_node_is_looked_at_once",
    ),
    Bug(
        "left_padding_is_read_as_steps",
        _PADDING,
        "    if first.any():\n",
        "    if False:\n",
        "tests/test_many_to_one.py::test_padding_may_stand_before_the_steps",
    ),
    Bug(
        "nan_is_padding",
        _PADDING,
        "np.ones((T, N), bool))",
        "~np.isnan(values[:, :, 0]))",
        "tests/test_many_to_one.py::test_nan_is_no_padding",
    ),
    Bug(
        "processes_lose_the_mask",
        "python/fusedrnn/train/distributed.py",
        "own = np.asanyarray(a)",
        "own = np.asarray(a)",
        "tests/test_many_to_one.py::test_a_part_of_the_rows_keeps_its_padding",
    ),
    Bug(
        "a_refused_fit_is_half_done",
        "python/fusedrnn/estimators/sklearn_fallback.py",
        "        vars(estimator).update(before)\n        raise\n",
        "        raise\n",
        "tests/test_estimator_inputs.py::test_a_refused_fit_leaves_the_old_model_whole",
    ),
    Bug(
        "series_of_one_length_are_a_table",
        _SAMPLES,
        '(fitted_to == "table" or (fitted_to is None and listed))',
        '(fitted_to == "table" or fitted_to is None)',
        "tests/test_estimator_inputs.py::test_arrays_of_one_feature_are_sequences_whatever_their_lengths",
    ),
    Bug(
        "predict_takes_parameters_set_since",
        "python/fusedrnn/estimators/many_to_one.py",
        "self.embedding_dim is not None if reset else self.model_.embedding is not None",
        "self.embedding_dim is not None",
        "tests/test_estimator_inputs.py::test_a_fitted_estimator_is_asked_as_it_was_fitted",
    ),
    Bug(
        "bands_as_narrow_as_they_were_learnt",
        "python/fusedrnn/estimators/bands.py",
        "    model.widen(other)\n",
        "",
        "tests/test_bands.py::test_bands_of_short_series_hold_what_they_say",
    ),
    Bug(
        "bands_judged_on_what_was_learnt",
        "python/fusedrnn/estimators/forecasting.py",
        "        known = self.z[: self.cut]\n",
        "        known = self.z\n",
        "tests/test_bands.py::test_the_second_network_learns_from_nothing_that_it_is_judged_on",
    ),
    Bug(
        "extras_as_a_registry_would_have_them",
        "python/fusedrnn/extras.py",
        "'.[{extra}]'",
        "'fusedrnn[{extra}]'",
        "tests/test_extras.py::test_what_is_missing_is_named_with_its_extra",
    ),
)
