"""The reference's random numbers: Philox's known answers, where each number comes from, and how often masks hit."""

from __future__ import annotations

import numpy as np
import pytest

CELLS = ["rnn", "lstm", "gru"]
KINDS = ["zoneout_h", "zoneout_c", "recurrent_dropout", "dropconnect"]


@pytest.fixture
def philox():
    """philox(counter, key) -> four integers."""
    from fusedrnn.reference.random import philox4x32

    def words(counter, key):
        found = philox4x32(tuple(np.array([word], np.uint64) for word in counter), key)
        return tuple(int(word[0]) for word in found)

    return words


@pytest.fixture
def make_random():
    """make_random(training=True, seed=0, layer=0, reverse=False, row_offset=0, step_offset=0) -> Random."""
    from fusedrnn.reference.random import find_random

    def make(training=True, seed=0, layer=0, reverse=False, row_offset=0, step_offset=0):
        return find_random(training, seed, layer, reverse, row_offset, step_offset)

    return make


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
    ids=["zeros", "ones", "pi"],
)
def test_philox_gives_the_answers_of_random123(counter, key, expected, philox):
    assert philox(counter, key) == expected


@pytest.mark.parametrize("kind", KINDS)
def test_each_unit_has_its_word_of_its_counter(kind, philox, make_random):
    seed = 0x0123456789ABCDEF
    random = make_random(seed=seed, layer=5, reverse=True)
    rows, steps = np.array([0, 7, 2**32 - 1]), np.array([3, 2**32 - 2, 0])
    words = random.words(kind, rows, steps, 131)
    assert words.shape == (3, 131)
    for unit in (0, 1, 15, 16, 17, 63, 64, 79, 80, 128, 130):
        for k in range(3):
            counter = (unit // 64 * 16 + unit % 16, int(rows[k]), int(steps[k]), 5 << 4 | 1 << 3 | KINDS.index(kind))
            assert words[k, unit] == philox(counter, (seed & 0xFFFFFFFF, seed >> 32))[unit // 16 % 4]


def test_every_part_of_a_place_changes_the_numbers(make_random):
    rows, steps = np.arange(3), np.zeros(3, int)
    drawn = [make_random(**change).words(kind, rows, steps, 20) for kind in KINDS for change in ({}, {"layer": 1})]
    drawn += [make_random(**change).words(KINDS[0], rows, steps, 20) for change in ({"reverse": True}, {"seed": 1})]
    drawn += [make_random(seed=1 << 32).words(KINDS[0], rows, steps, 20)]
    drawn += [make_random().words(KINDS[0], rows + 3, steps, 20), make_random().words(KINDS[0], rows, steps + 1, 20)]
    values = np.stack(drawn)
    assert len(np.unique(values)) == values.size


@pytest.mark.parametrize("p", [0.05, 0.5, 0.9])
def test_masks_hit_as_often_as_they_should(p, reference, make_random):
    """Within five standard deviations of the mean, along each axis as well; the factor keeps the mean at 1."""
    from fusedrnn.reference.sequences import find_sequence

    random = make_random(seed=3)
    N, P = 200, 150
    zone = random.zoneout("zoneout_h", p, find_sequence(np.zeros((2, N, 1)), None, None, None, False), P)
    assert set(np.unique(zone)) == {0, 1}
    drop = random.recurrent_dropout(p, (N, P), np.float64)
    connect = random.dropconnect(p, (N, P), np.float64)
    for mask in (drop, connect):
        assert set(np.unique(mask)) == {0, 1 / (1 - p)}
    for hits in (zone[:N] == 1, zone[N:] == 1, drop == 0, connect == 0):
        for axis in (None, 0, 1):
            counted = hits.mean(axis)
            deviation = np.sqrt(p * (1 - p) / (hits.size / counted.size))
            assert np.abs(counted - p).max() < 5 * deviation
    # no two masks are alike
    assert abs(np.corrcoef(zone[:N].ravel(), zone[N:].ravel())[0, 1]) < 5 / np.sqrt(N * P)
    assert abs(np.corrcoef(drop.ravel(), connect.ravel())[0, 1]) < 5 / np.sqrt(N * P)


@pytest.mark.parametrize(
    ("kind", "options"),
    [*[(kind, {}) for kind in CELLS], ("gru", {"reset_after": False})],
    ids=[*CELLS, "gru_reset_before"],
)
@pytest.mark.parametrize("reverse", [False, True], ids=["onward", "reverse"])
def test_dropped_weights_and_states_are_plain_calls_with_masked_weights(
    kind, options, reverse, reference, make_call, make_random
):
    """Dropconnect multiplies weight_hh, recurrent dropout for each row its columns, by numbers of `Random`."""
    shape, p = (3, 4, 2, 5), 0.4
    plain = make_call(kind, shape, reverse=reverse, **options)
    random = make_random(seed=9, layer=2, reverse=reverse, row_offset=3)
    weight = plain.arguments["weight_hh"]
    place = {"seed": 9, "layer": 2, "row_offset": 3}

    masked = {**plain.arguments, "weight_hh": weight * random.dropconnect(p, weight.shape, np.float64)}
    expected, _ = plain._replace(arguments=masked).forward(reference)
    outputs, _ = plain._replace(options={**plain.options, **place, "dropconnect": p}).forward(reference)
    np.testing.assert_equal(outputs, expected)

    dropped = random.recurrent_dropout(p, (4, 5), np.float64)
    outputs, _ = plain._replace(options={**plain.options, **place, "recurrent_dropout": p}).forward(reference)
    for n in range(4):
        masked = {**plain.arguments, "weight_hh": weight * dropped[n]}
        expected, _ = plain._replace(arguments=masked).forward(reference)
        np.testing.assert_allclose(outputs[0][:, n], expected[0][:, n], rtol=1e-12)


@pytest.mark.parametrize("kind", CELLS)
@pytest.mark.parametrize("reverse", [False, True], ids=["onward", "reverse"])
def test_zoned_units_keep_their_state(kind, reverse, reference, make_call, make_random):
    """Step by step: where the word of a unit says so, h is the previous h, and c the previous c, unseen by h."""
    T, N, I, H = shape = (3, 4, 2, 20)  # noqa: E741
    p = {"zoneout_h": 0.4, "zoneout_c": 0.7} if kind == "lstm" else {"zoneout_h": 0.4}
    plain = make_call(kind, (1, N, I, H), reverse=reverse)
    call = make_call(kind, shape, reverse=reverse, seed=11, layer=1, row_offset=2, step_offset=50, **p)
    random = make_random(seed=11, layer=1, reverse=reverse)
    outputs, _ = call.forward(reference)
    arguments = dict(call.arguments)
    for t in reversed(range(T)) if reverse else range(T):
        step = plain._replace(arguments={**arguments, "x": call.arguments["x"][t : t + 1]})
        (_, *after), _ = step.forward(reference)
        for option, state, value in zip(p, ("h0", "c0"), after[:2], strict=False):
            words = random.words(option, np.arange(N) + 2, np.full(N, t + 50), H)
            kept = words < int(p[option] * 2**32)
            arguments[state] = np.where(kept, arguments[state], value)
        np.testing.assert_allclose(outputs[0][t], arguments["h0"], rtol=1e-11, atol=1e-13)
        if kind == "lstm":
            np.testing.assert_allclose(outputs[3][t], arguments["c0"], rtol=1e-11, atol=1e-13)
