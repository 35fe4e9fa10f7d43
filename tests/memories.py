"""The two memory networks once more, one step of one sequence in loops over heads, slots and columns.

They are written from the papers and know nothing of `fusedrnn.cells` but the forms of its states and the order in
which a head's numbers stand. Options have the names of `fusedrnn.cells.NTM` and `fusedrnn.cells.DNC`.
"""

from __future__ import annotations

import math

import numpy as np

from fusedrnn.cells import DNCState, NTMState


def sigmoid(a):
    return 1 / (1 + math.exp(-a))


def softplus(a):
    return math.log1p(math.exp(a))


def normalized(scores):
    """softmax."""
    e = [math.exp(score - max(scores)) for score in scores]
    return [each / sum(e) for each in e]


def powered(weights, power, tiny=1e-12):
    """Each weight to this power, over the sum of all."""
    powers = [(w + tiny) ** power for w in weights]
    return [each / sum(powers) for each in powers]


def parts(vector, *sizes):
    ends = np.cumsum(sizes)
    assert ends[-1] == len(vector)
    return [list(part) for part in np.split(np.asarray(vector), ends[:-1])]


def heads_of(vector, sizes):
    """{name: one list for each head}, of {name: (heads, numbers of each head)}."""
    flat = parts(vector, *(heads * count for heads, count in sizes.values()))
    return {
        name: [part[head * count : (head + 1) * count] for head in range(heads)]
        for part, (name, (heads, count)) in zip(flat, sizes.items(), strict=True)
    }


# controllers


def affine(p, x, W="W", b="b"):
    return [sum(w * v for w, v in zip(row, x, strict=True)) + bias for row, bias in zip(p[W], p[b], strict=True)]


def times(U, h):
    return [sum(u * v for u, v in zip(row, h, strict=True)) for row in U]


def lstm(p, state, x):
    h, c = state
    H, a = len(h), [z + r for z, r in zip(affine(p, x), times(p["U"], h), strict=True)]
    c = [sigmoid(a[H + k]) * c[k] + sigmoid(a[k]) * math.tanh(a[2 * H + k]) for k in range(H)]
    h = [sigmoid(a[3 * H + k]) * math.tanh(c[k]) for k in range(H)]
    return (h, c), h


def gru(p, h, x):
    H, a, r = len(h), affine(p, x), times(p["U"], h)
    new = []
    for k in range(H):
        reset, update = sigmoid(a[k] + r[k]), sigmoid(a[H + k] + r[H + k])
        candidate = math.tanh(a[2 * H + k] + reset * (r[2 * H + k] + p["c"][k]))
        new.append((1 - update) * candidate + update * h[k])
    return new, new


def rnn(p, h, x):
    h = [math.tanh(z + r) for z, r in zip(affine(p, x), times(p["U"], h), strict=True)]
    return h, h


def feedforward(p, state, x):
    return state, [math.tanh(z) for z in affine(p, x)]


def controlled(kind, p, states, x):
    """A stack, in which each layer sees the input and the layer below, and all tell the heads."""
    step = {"lstm": lstm, "gru": gru, "rnn": rnn, "feedforward": feedforward}[kind]
    new, told, below = [], [], []
    for layer, state in zip(p, states, strict=True):
        after, below = step(layer, state, [*x, *below])
        new.append(after)
        told += below
    return tuple(new), told


# what both do to a memory


def by_content(memory, key, strength, mask=None):
    """softmax of strength times the cosine of each slot and the key, 1e-6 inside both roots."""
    mask = [1.0] * len(key) if mask is None else mask
    key = [k * m for k, m in zip(key, mask, strict=True)]
    size, scores = math.sqrt(sum(k * k for k in key) + 1e-6), []
    for slot in memory:
        slot = [s * m for s, m in zip(slot, mask, strict=True)]
        product = sum(s * k for s, k in zip(slot, key, strict=True))
        scores.append(strength * product / (size * math.sqrt(sum(s * s for s in slot) + 1e-6)))
    return normalized(scores)


def written(memory, weightings, erase, add):
    """Each slot loses what each head erases, and then gets what each head adds, by the head's weight of it."""
    memory = [list(slot) for slot in memory]
    for w, gates in zip(weightings, erase, strict=True):
        memory = [[m * (1 - w[i] * e) for m, e in zip(memory[i], gates, strict=True)] for i in range(len(memory))]
    for w, vector in zip(weightings, add, strict=True):
        memory = [[m + w[i] * a for m, a in zip(memory[i], vector, strict=True)] for i in range(len(memory))]
    return memory


def read(memory, weights):
    return [sum(w * slot[k] for w, slot in zip(weights, memory, strict=True)) for k in range(len(memory[0]))]


def clipped(vector, clip):
    return list(vector) if clip is None else [min(max(a, -clip), clip) for a in vector]


# the neural Turing machine


def addressed(memory, before, key, strength, gate, sharpness, shift):
    """Graves, Wayne and Danihelka 2014, (5) to (9), of one head and what it was told before its nonlinearities."""
    slots, g, s = len(memory), sigmoid(gate), normalized(shift)
    content = by_content(memory, key, softplus(strength))
    blended = [g * a + (1 - g) * b for a, b in zip(content, before, strict=True)]
    shifted = [0.0] * slots
    for i in range(slots):
        for place, share in enumerate(s):
            shifted[(i + place - len(s) // 2) % slots] += blended[i] * share
    return powered(shifted, 1 + softplus(sharpness))


def ntm(p, state, x, *, controller, read_heads, write_heads, width, shifts, clip):
    """One step of Graves, Wayne and Danihelka 2014: all heads write, and then the others read."""
    controls, h = controlled(controller, p["controller"], state.controller, [*x, *np.ravel(state.reads)])
    sizes = {}
    for kind, heads in (("read", read_heads), ("write", write_heads)):
        sizes |= {f"{kind}_key": (heads, width), f"{kind}_strength": (heads, 1), f"{kind}_gate": (heads, 1)}
        sizes |= {f"{kind}_shift": (heads, 2 * shifts + 1), f"{kind}_sharpness": (heads, 1)}
    sizes |= {"erase": (write_heads, width), "add": (write_heads, width)}
    told = heads_of(clipped(affine(p["heads"], h), clip), sizes)

    def place(kind, memory, before):
        names = ("key", "strength", "gate", "sharpness", "shift")
        found = []
        for head, weights in enumerate(before):
            key, (strength,), (gate,), (sharpness,), shift = (told[f"{kind}_{name}"][head] for name in names)
            found.append(addressed(memory, weights, key, strength, gate, sharpness, shift))
        return found

    writing = place("write", state.memory, state.write_weightings)
    erase = [[sigmoid(e) for e in gates] for gates in told["erase"]]
    memory = written(state.memory, writing, erase, told["add"])
    reading = place("read", memory, state.read_weightings)
    reads = [read(memory, weights) for weights in reading]
    return NTMState(controls, reads, reading, writing, memory), affine(p["out"], [*h, *np.ravel(reads)])


# the differentiable neural computer


def allocated(usage):
    """Graves et al. 2016, (1): the free list, the first of equals first."""
    weights, product = [0.0] * len(usage), 1.0
    for i in sorted(range(len(usage)), key=lambda i: usage[i]):
        u = 1e-6 + (1 - 1e-6) * usage[i]
        weights[i] = (1 - u) * product
        product *= u
    return weights


def linked(link, w, p):
    """Graves et al. 2016, (6)."""
    slots = len(w)
    new = [[0.0] * slots for _ in range(slots)]
    for i in range(slots):
        for j in range(slots):
            if i != j:
                new[i][j] = (1 - w[i] - w[j]) * link[i][j] + w[i] * p[j]
    return new


def largest(weights, count):
    """Zeros but for so many of the largest weights, the first of equals first."""
    kept = sorted(range(len(weights)), key=lambda i: -weights[i])[:count]
    return [w if i in kept else 0.0 for i, w in enumerate(weights)]


def sparsely_linked(link, w, p, count):
    """The approximation, of the whole matrix: the largest weights alone write, and links below 1 / count vanish."""
    new = linked(link, largest(w, count), largest(p, count))
    return [[value if value >= 1 / count else 0.0 for value in row] for row in new]


def interface_sizes(*, read_heads, write_heads, width, links, free_gates, key_mask, sharp_links):
    sizes = {
        "read_key": (read_heads, width),
        "read_strength": (read_heads, 1),
        "write_key": (write_heads, width),
        "write_strength": (write_heads, 1),
        "erase": (write_heads, width),
        "write": (write_heads, width),
    }
    sizes |= {"free_gate": (read_heads, 1)} if free_gates else {}
    sizes |= {"allocation_gate": (write_heads, 1), "write_gate": (write_heads, 1)}
    sizes |= {"read_mode": (read_heads, 2 * write_heads + 1)} if links else {}
    sizes |= {"link_sharpness": (read_heads, 2 * write_heads)} if sharp_links else {}
    return sizes | ({"read_mask": (read_heads, width), "write_mask": (write_heads, width)} if key_mask else {})


def interface(p, h, normalize, clip, sizes):
    """Return what the controller tells the memory, by name and head, nonlinearities applied."""
    raw = times(p["W"], h)
    if normalize:
        mean = sum(raw) / len(raw)
        deviation = math.sqrt(sum((a - mean) ** 2 for a in raw) / len(raw) + 1e-5)
        raw = [(a - mean) / deviation * gain for a, gain in zip(raw, p["gain"], strict=True)]
    told = heads_of(clipped([a + b for a, b in zip(raw, p["b"], strict=True)], clip), sizes)
    functions = dict.fromkeys(
        ("erase", "allocation_gate", "write_gate", "free_gate", "read_mask", "write_mask"), sigmoid
    )
    functions |= dict.fromkeys(("read_strength", "write_strength", "link_sharpness"), lambda a: 1 + softplus(a))
    same = float
    told = {name: [[functions.get(name, same)(a) for a in head] for head in values] for name, values in told.items()}
    if "read_mode" in told:
        told["read_mode"] = [normalized(head) for head in told["read_mode"]]
    return told


def dnc(
    p, state, x, *, controller, read_heads, write_heads, width, links, free_gates, key_mask, deallocate, sharp_links,
    normalize, clip,
):  # fmt: skip
    """One step of Graves et al. 2016, Methods; the links of a sparse one are whole matrices here."""
    controls, h = controlled(controller, p["controller"], state.controller, [*x, *np.ravel(state.reads)])
    sizes = interface_sizes(
        read_heads=read_heads, write_heads=write_heads, width=width, links=links is not False, free_gates=free_gates,
        key_mask=key_mask, sharp_links=sharp_links,
    )  # fmt: skip
    told = interface(p["interface"], h, normalize, clip, sizes)
    slots = range(len(state.memory))

    usage, kept = [], []
    for i in slots:
        unused, stays = 1 - state.usage[i], 1.0
        for w in state.write_weightings:
            unused *= 1 - w[i]
        for r in range(read_heads):
            if free_gates:
                stays *= 1 - told["free_gate"][r][0] * state.read_weightings[r][i]
        usage.append((1 - unused) * stays)
        kept.append(stays)

    writing, left = [], list(usage)
    for head in range(write_heads):
        (g_a,), (g_w,) = told["allocation_gate"][head], told["write_gate"][head]
        mask = told["write_mask"][head] if key_mask else None
        content = by_content(state.memory, told["write_key"][head], told["write_strength"][head][0], mask)
        free = allocated(left)
        writing.append([g_w * (g_a * a + (1 - g_a) * c) for a, c in zip(free, content, strict=True)])
        left = [u + (1 - u) * g_w * g_a * a for u, a in zip(left, free, strict=True)]

    memory = [[m * (kept[i] if deallocate else 1.0) for m in state.memory[i]] for i in slots]
    memory = written(memory, writing, told["erase"], told["write"])

    new_links, precedence = [], []
    for head in range(write_heads if links is not False else 0):
        w, old = writing[head], state.precedence[head]
        new_links.append(
            linked(state.links[head], w, old) if links is True else sparsely_linked(state.links[head], w, old, links)
        )
        precedence.append([(1 - sum(w)) * old[i] + w[i] for i in slots])

    reading = []
    for r in range(read_heads):
        mask = told["read_mask"][r] if key_mask else None
        weights = by_content(memory, told["read_key"][r], told["read_strength"][r][0], mask)
        if links is not False:
            modes, before = told["read_mode"][r], state.read_weightings[r]
            weights = [modes[write_heads] * c for c in weights]
            for head, link in enumerate(new_links):
                backward = [sum(link[j][i] * before[j] for j in slots) for i in slots]
                forward = [sum(link[i][j] * before[j] for j in slots) for i in slots]
                if sharp_links:
                    back, forth = told["link_sharpness"][r][2 * head : 2 * head + 2]
                    backward, forward = powered(backward, back), powered(forward, forth)
                for mode, along in ((modes[head], backward), (modes[write_heads + 1 + head], forward)):
                    weights = [w + mode * a for w, a in zip(weights, along, strict=True)]
        reading.append(weights)
    reads = [read(memory, weights) for weights in reading]
    y = affine(p["out"], [*h, *np.ravel(reads)])
    return DNCState(controls, reads, memory, usage, precedence, new_links, writing, reading), y
