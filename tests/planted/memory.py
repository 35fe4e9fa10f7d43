"""Bugs for the tests to find: the neural Turing machine and the differentiable neural computer."""

from __future__ import annotations

from tests.planted.bug import Bug

CELLS, LAYERS = "python/fusedrnn/cells/", "python/fusedrnn/nn/memory.py"
NTM, DNC, LINKS = "tests/test_ntm.py", "tests/test_dnc.py", "tests/test_links.py"
LIFE, INVARIANTS = "tests/test_memory_layers.py", "tests/test_memory_invariants.py"

BUGS = (
    # the neural Turing machine
    Bug(
        "reading_is_addressed_in_the_memory_before_the_write",
        CELLS + "ntm.py",
        'reading = address(memory, state.read_weightings, _of("read", told))',
        'reading = address(state.memory, state.read_weightings, _of("read", told))',
        NTM,
    ),
    Bug(
        "write_heads_start_where_read_heads_do",
        CELLS + "ntm.py",
        "            write_weightings=softmax(logits.write_weightings, axis=1),\n",
        "            write_weightings=softmax(logits.read_weightings, axis=1),\n",
        NTM,
    ),
    # the differentiable neural computer
    Bug(
        "content_for_the_write_is_looked_up_without_its_mask",
        CELLS + "dnc.py",
        'content = by_content(state.memory, part["write_key"], part["write_strength"], part.get("write_mask"))',
        'content = by_content(state.memory, part["write_key"], part["write_strength"])',
        DNC,
    ),
    Bug(
        "precedence_is_that_of_this_write",
        CELLS + "dnc.py",
        "            links = [update(links[head], wrote[head], precedence[head]) for head in heads]\n"
        "            precedence = [preceding(precedence[head], wrote[head]) for head in heads]\n",
        "            precedence = [preceding(precedence[head], wrote[head]) for head in heads]\n"
        "            links = [update(links[head], wrote[head], precedence[head]) for head in heads]\n",
        DNC,
    ),
    Bug(
        "modes_forwards_and_backwards_are_exchanged",
        CELLS + "dnc.py",
        "((backwards, head), (forwards, writes + 1 + head))",
        "((forwards, head), (backwards, writes + 1 + head))",
        DNC,
    ),
    Bug(
        "what_is_freed_is_erased_after_the_write",
        CELLS + "dnc.py",
        "        memory = state.memory * kept[:, None] if self.deallocate else state.memory\n"
        '        memory = write(memory, writing, part["erase"], part["write"])\n',
        '        memory = write(state.memory, writing, part["erase"], part["write"])\n'
        "        memory = memory * kept[:, None] if self.deallocate else memory\n",
        DNC,
    ),
    Bug(
        "usage_is_that_before_anything_was_freed",
        CELLS + "dnc.py",
        "    return 1 - unused if kept is None else (1 - unused) * kept\n",
        "    return 1 - unused\n",
        DNC,
    ),
    Bug(
        "slots_of_equal_usage_are_taken_in_any_order",
        CELLS + "dnc.py",
        '    order = np.argsort(usage, kind="stable")\n',
        "    order = np.argsort(usage - 1e-9 * np.arange(len(usage)))\n",
        LINKS,
    ),
    Bug(
        "the_next_head_does_not_see_what_was_allocated",
        CELLS + "dnc.py",
        "            usage = usage + (1 - usage) * (gate[head] * allocate[head]) * free\n",
        "            usage = usage + (1 - usage) * allocate[head] * free\n",
        DNC,
    ),
    Bug(
        "what_is_kept_may_be_negative",
        CELLS + "dnc.py",
        "        left = np.where(left < 0, 0.0, left)  # a weight may be above one by rounding\n",
        "",
        LINKS,
    ),
    Bug(
        "arrays_of_the_first_state_are_one",
        CELLS + "dnc.py",
        "    return SparseLinks(draw.zeros(*weights), places, draw.zeros(*weights), places.copy())",
        "    return SparseLinks(draw.zeros(*weights), places, draw.zeros(*weights), places)",
        DNC,
    ),
    # links
    Bug(
        "gates_all_but_closed_make_links_grow",
        CELLS + "links.py",
        "    return 1 - (1 - writing)\n",
        "    return writing\n",
        f"{LINKS} {INVARIANTS}",
    ),
    Bug(
        "a_precedence_drifts_upwards",
        CELLS + "links.py",
        "    return after / stop_gradient(np.maximum(np.sum(after) / MOST, 1))\n",
        "    return after\n",
        LINKS,
    ),
    Bug(
        "the_bound_of_a_precedence_has_a_gradient",
        CELLS + "links.py",
        "stop_gradient(np.maximum(np.sum(after) / MOST, 1))",
        "np.maximum(np.sum(after) / MOST, 1)",
        LINKS,
    ),
    Bug(
        "halves_of_sparse_links_round_differently",
        CELLS + "links.py",
        "(1 - (w[:, None] + np.take(w, there)))",
        "(1 - w[:, None] - np.take(w, there))",
        LINKS,
    ),
    Bug(
        "a_known_link_is_found_anew",
        CELLS + "links.py",
        "np.where(known | itself, 0.0,",
        "np.where(itself, 0.0,",
        LINKS,
    ),
    # layers
    Bug(
        "more_slots_take_weight_from_those_that_were",
        LAYERS,
        '            put = _logits_within if name.endswith("weightings") else _within\n',
        "            put = _within\n",
        LIFE,
    ),
    Bug(
        "a_larger_network_forgets_where_it_began",
        LAYERS,
        "            larger._start = Start(NTMStart(map_leaves(_within, wide, own_start)._replace(**weightings)))\n",
        "",
        LIFE,
    ),
)
