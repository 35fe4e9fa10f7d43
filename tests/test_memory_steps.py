"""The benchmarks' memory networks: each step against loops over slots, and what holds of any memory."""

from __future__ import annotations

import math

import numpy as np
import pytest

from benchmarks.recurrences import NETWORKS, Case, draw
from fusedrnn.reference import scan as reference
from fusedrnn.scan.derivative import derive
from fusedrnn.scan.tracing import Abstract, trace_step
from tests.differences import check_along_directions

CASES = {
    "ntm": Case("ntm", T=5, N=2, I=3, H=4, slots=6, width=3, dtype="float64"),
    "dnc": Case("dnc", T=5, N=2, I=3, H=4, slots=5, width=3, heads=2, dtype="float64"),
    "attention": Case("attention", T=4, N=2, I=3, H=4, S=5, dtype="float64"),
}


def sigmoid(a):
    return 1 / (1 + math.exp(-a))


def softplus(a):
    return math.log1p(math.exp(a))


def normalized(scores):
    e = [math.exp(score) for score in scores]
    return [each / sum(e) for each in e]


def lstm(p, h, c, x):
    H = len(h)
    a = [sum(W * v for W, v in zip(row, x, strict=True)) for row in p["W"]]
    a = [a[k] + sum(p["U"][k][j] * h[j] for j in range(H)) + p["b"][k] for k in range(4 * H)]
    c = [sigmoid(a[H + k]) * c[k] + sigmoid(a[k]) * math.tanh(a[2 * H + k]) for k in range(H)]
    return [sigmoid(a[3 * H + k]) * math.tanh(c[k]) for k in range(H)], c


def by_content(memory, key, strength):
    """softmax of strength times the cosine of each slot and the key, 1e-6 inside both roots."""
    size = math.sqrt(sum(k * k for k in key) + 1e-6)
    scores = []
    for slot in memory:
        scores.append(sum(m * k for m, k in zip(slot, key, strict=True)))
        scores[-1] *= strength / (size * math.sqrt(sum(m * m for m in slot) + 1e-6))
    return normalized(scores)


def written(memory, weights, erase, add):
    """Each slot loses what is erased and gets what is added, by its weight."""
    return [
        [m * (1 - w * sigmoid(e)) + w * a for m, e, a in zip(slot, erase, add, strict=True)]
        for slot, w in zip(memory, weights, strict=True)
    ]


def read(memory, weights):
    return [sum(w * slot[k] for w, slot in zip(weights, memory, strict=True)) for k in range(len(memory[0]))]


def parts(vector, *sizes):
    ends = np.cumsum(sizes)
    assert ends[-1] == len(vector)
    return [list(part) for part in np.split(np.asarray(vector), ends[:-1])]


def ntm(p, state, x):
    """Graves, Wayne and Danihelka 2014, (1) to (9)."""
    h, c, previous_read, w_read, w_write, memory = state
    slots, width = memory.shape
    h, c = lstm(p, h, c, [*x, *previous_read])
    raw = p["heads"] @ h + p["heads_b"]
    raw_read, raw_write, erase, add = parts(raw, width + 6, width + 6, width, width)

    def addressed(raw, memory, before):
        key, (beta, g), s, (gamma,) = parts(raw, width, 2, 3, 1)
        by_key, g, s, gamma = by_content(memory, key, softplus(beta)), sigmoid(g), normalized(s), 1 + softplus(gamma)
        blended = [g * a + (1 - g) * b for a, b in zip(by_key, before, strict=True)]
        shifted = [0.0] * slots
        for i in range(slots):
            for shift in (-1, 0, 1):
                shifted[(i + shift) % slots] += blended[i] * s[shift + 1]
        sharp = [(w + 1e-12) ** gamma for w in shifted]
        return [w / sum(sharp) for w in sharp]

    w_write = addressed(raw_write, memory, w_write)
    memory = written(memory, w_write, erase, add)
    w_read = addressed(raw_read, memory, w_read)
    seen = read(memory, w_read)
    return (h, c, seen, w_read, w_write, memory), p["out"] @ [*h, *seen] + p["out_b"]


def dnc(p, state, x):
    """Graves et al. 2016, Methods."""
    h, c, reads, memory, usage, precedence, link, w_write, w_reads = state
    (slots, width), heads = memory.shape, len(reads)
    h, c = lstm(p, h, c, [*x, *reads.reshape(-1)])
    sizes = (heads * width, heads, width, 1, width, width, heads, 1, 1, 3 * heads)
    keys, betas, key, (beta,), erase, add, free, (g_a,), (g_w,), modes = parts(
        p["interface"] @ h + p["interface_b"], *sizes
    )
    new_usage = []
    for i in range(slots):
        kept = 1.0
        for r in range(heads):
            kept *= 1 - sigmoid(free[r]) * w_reads[r][i]
        new_usage.append((usage[i] + w_write[i] - usage[i] * w_write[i]) * kept)
    free_list = sorted(range(slots), key=lambda i: new_usage[i])  # stable
    allocation, product = [0.0] * slots, 1.0
    for i in free_list:
        u = 1e-6 + (1 - 1e-6) * new_usage[i]
        allocation[i] = (1 - u) * product
        product *= u
    g_a, g_w = sigmoid(g_a), sigmoid(g_w)
    content = by_content(memory, key, 1 + softplus(beta))
    w_write = [g_w * (g_a * a + (1 - g_a) * b) for a, b in zip(allocation, content, strict=True)]
    memory = written(memory, w_write, erase, add)
    new_link = [[0.0] * slots for _ in range(slots)]
    for i in range(slots):
        for j in range(slots):
            if i != j:
                new_link[i][j] = (1 - w_write[i] - w_write[j]) * link[i][j] + w_write[i] * precedence[j]
    precedence = [(1 - sum(w_write)) * old + w for old, w in zip(precedence, w_write, strict=True)]
    new_reads, new_w_reads = [], []
    for r in range(heads):
        backward = [sum(new_link[j][i] * w_reads[r][j] for j in range(slots)) for i in range(slots)]
        forward = [sum(new_link[i][j] * w_reads[r][j] for j in range(slots)) for i in range(slots)]
        content = by_content(memory, keys[r * width : (r + 1) * width], 1 + softplus(betas[r]))
        b, m, f = normalized(modes[3 * r : 3 * r + 3])
        new_w_reads.append([b * backward[i] + m * content[i] + f * forward[i] for i in range(slots)])
        new_reads.append(read(memory, new_w_reads[-1]))
    y = p["out"] @ [*h, *np.ravel(new_reads)] + p["out_b"]
    return (h, c, new_reads, memory, new_usage, precedence, new_link, w_write, new_w_reads), y


def attention(p, state, x, context):
    """Bahdanau et al. 2014, A.1.2, in an LSTM that sees what was attended last."""
    h, c, attended = state
    h, c = lstm(p, h, c, [*x, *attended])
    query, scores = p["query"] @ h, []
    for encoded in context["encoded"]:
        scores.append(sum(v * math.tanh(q + row @ encoded) for v, q, row in zip(p["v"], query, p["keys"], strict=True)))
    seen = read(context["encoded"], normalized(scores))
    attended = [math.tanh(row @ [*h, *seen] + b) for row, b in zip(p["out"], p["out_b"], strict=True)]
    return (h, c, attended), attended


@pytest.mark.parametrize(("name", "slow"), [("ntm", ntm), ("dnc", dnc), ("attention", attention)])
def test_a_step_is_what_its_loops_say(name, slow):
    """Each step from the state that the quick one has reached."""
    arrays = draw(CASES[name])
    for row in range(2):
        state = tuple(leaf[row] for leaf in arrays.state)
        own = () if arrays.context is None else ({"encoded": arrays.context["encoded"][row]},)
        for x in arrays.x[:, row]:
            expected, expected_y = slow(arrays.p, state, x, *own)
            state, y = NETWORKS[name].step(arrays.p, state, x, *own)
            np.testing.assert_allclose(y, expected_y, rtol=1e-11, atol=1e-13)
            for leaf, other in zip(state, expected, strict=True):
                np.testing.assert_allclose(leaf, other, rtol=1e-11, atol=1e-13)


def test_a_dnc_from_an_empty_memory_keeps_its_invariants():
    """Zeros throughout at first; usage ties then, and the first slot is taken."""
    case = Case("dnc", T=1, N=1, I=3, H=4, slots=6, width=3, heads=2, dtype="float64")
    p = {name: 5 * value for name, value in draw(case).p.items()}
    shapes = [shape for _, shape in NETWORKS["dnc"].state(case)]
    state, rng = tuple(np.zeros(shape) for shape in shapes), np.random.default_rng(0)
    for step in range(40):
        before = state
        state, y = NETWORKS["dnc"].step(p, state, 3 * rng.standard_normal(3))
        _, _, _, _, usage, precedence, link, w_write, w_reads = state
        assert np.isfinite(y).all()
        assert (usage >= 0).all()
        assert (usage <= 1).all()
        for sums in (w_write.sum(), w_reads.sum(axis=1), precedence.sum(), link.sum(axis=0), link.sum(axis=1)):
            assert np.max(sums) <= 1 + 1e-12
        assert (link >= -1e-15).all()
        np.testing.assert_array_equal(np.diagonal(link), 0)
        if step == 0:
            np.testing.assert_array_equal(before[4], 0)
            assert w_write[0] > 2 * w_write[1:].max()


@pytest.mark.parametrize("name", CASES)
def test_a_gradient_is_that_of_the_loop_over_the_step(name):
    case, arrays = CASES[name], draw(CASES[name])
    rng, (T, N) = np.random.default_rng(1), (case.T, case.N)
    names = sorted(arrays.p)
    given = [[arrays.p[key] for key in names], list(arrays.state), [arrays.x]]
    context = None if arrays.context is None else arrays.context["encoded"]
    if context is not None:
        given.append([context])
    ds = [rng.standard_normal(leaf.shape) for leaf in arrays.state]

    def abstract(array, axes):
        return Abstract(array.shape[axes:], "real")

    recurrence = trace_step(
        NETWORKS[name].step,
        {key: abstract(value, 0) for key, value in arrays.p.items()},
        tuple(abstract(leaf, 1) for leaf in arrays.state),
        abstract(arrays.x, 2),
        None if context is None else {"encoded": abstract(context, 1)},
    )

    def loss(p, states, inputs, rows=()):
        p, value = dict(zip(names, p, strict=True)), 0.0
        for row in range(N):
            state, own = tuple(leaf[row] for leaf in states), [{"encoded": leaf[row]} for leaf in rows]
            for t in range(T):
                state, y = NETWORKS[name].step(p, state, inputs[0][t, row], *own)
                value += np.sum(arrays.dy[t, row] * y)
            value += sum(np.sum(d[row] * leaf) for d, leaf in zip(ds, state, strict=True))
        return value

    rows = [] if context is None else [context]
    found = reference.gradients(
        derive(recurrence.step), given[0], rows, given[1], given[2],
        dnew_states=ds, doutputs=[arrays.dy], steps=T, batch=N,
    )  # fmt: skip
    gradients = [found.shared, found.states, found.inputs, found.rows][: len(given)]
    check_along_directions(loss, given, gradients, rng)
