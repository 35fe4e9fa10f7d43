"""Random graphs, walks and shortest paths, and a map of a metro, as the triples that a memory network reads.

A graph of n nodes is a table [n, n] of the labels of its edges, -1 where there is none. Nodes have labels of their own,
drawn anew for every question, so that nothing can be learnt by heart.
"""

from __future__ import annotations

import numpy as np

from fusedrnn.arrays import Array

BASE = 6  # a node's label has two digits of so many values
NODES = BASE * BASE
EDGES = 8  # labels of edges, which have one digit
TRIPLE = 2 * BASE + EDGES + 2 * BASE  # columns of a triple: source, edge, destination
PLAN, LONGEST = 5, 3  # steps to plan; edges of a shortest path at most
ASKED, PLANNING, ANSWERING = TRIPLE, TRIPLE + 1, TRIPLE + 2  # columns of x behind a triple's
INPUTS = TRIPLE + 3

# random graphs


def random_graphs(rng: np.random.Generator, count: int, nodes: int, edges: int) -> Array:
    """Draw tables [count, nodes, nodes] of so many edges each.

    Nodes are points of the unit square and lead to their nearest neighbours (Graves et al. 2016): every one to the
    nearest, and of all others those that are drawn. Edges that leave a node have different labels.
    ``nodes <= edges <= min(nodes (nodes - 1), 3 nodes)``.
    """
    points = rng.random((count, nodes, 2))
    apart = np.square(points[:, :, None] - points[:, None]).sum(3)
    apart[:, np.arange(nodes), np.arange(nodes)] = np.inf
    neighbours = apart.argsort(2)[:, :, : min(3, nodes - 1)]
    turn = rng.random(neighbours.shape)
    turn[:, :, 0] = -1  # the nearest always
    kept = turn.reshape(count, -1).argsort(1).argsort(1).reshape(turn.shape) < edges
    labels = rng.random((count, nodes, EDGES)).argsort(2)[:, :, : neighbours.shape[2]]
    tables = np.full((count, nodes, nodes), -1)
    np.put_along_axis(tables, neighbours, np.where(kept, labels, -1), 2)
    return tables


def random_labels(rng: np.random.Generator, count: int, nodes: int) -> Array:
    """Draw different labels [count, nodes] for the nodes of each graph."""
    return rng.random((count, NODES)).argsort(1)[:, :nodes]


# paths


def random_walks(rng: np.random.Generator, tables: Array, steps: int) -> Array:
    """Draw nodes [N, steps + 1], each the end of an edge from the one before, in graphs without a dead end."""
    rows = np.arange(len(tables))
    walk = [rng.integers(0, tables.shape[1], len(tables))]
    for _ in range(steps):
        leads = tables[rows, walk[-1]] >= 0
        walk.append(np.where(leads, rng.random(leads.shape), -1).argmax(1))
    return np.stack(walk, axis=1)


def shortest_paths(rng: np.random.Generator, tables: Array, steps: int) -> tuple[Array, Array]:
    """Draw pairs of nodes so many steps apart with one shortest path alone, and follow it.

    Returns nodes [N, steps + 1] and which graphs have such a pair, [N]; other rows mean nothing.
    """
    leads = (tables >= 0).astype(np.int64)
    ways = [np.broadcast_to(np.eye(tables.shape[1], dtype=np.int64), leads.shape)]
    for _ in range(steps):
        ways.append(ways[-1] @ leads)
    nearer = sum(ways[:-1]) > 0
    fit = (ways[steps] == 1) & ~nearer
    turn = np.where(fit, rng.random(fit.shape), -1).reshape(len(tables), -1).argmax(1)
    here, end = np.divmod(turn, tables.shape[1])
    rows, path = np.arange(len(tables)), [here]
    for left in range(steps - 1, -1, -1):
        onward = leads[rows, path[-1]] * ways[left][rows, :, end]
        path.append(onward.argmax(1))
    return np.stack(path, axis=1), fit.reshape(len(tables), -1).any(1)


# triples


def coded(source: Array | None, edge: Array | None, destination: Array | None, shape: tuple[int, ...]) -> Array:
    """Write triples as digits, one hot: [*shape, TRIPLE] float32; what is None is left blank."""
    x = np.zeros((*shape, TRIPLE), np.float32)

    def put(values: Array, first: int) -> None:
        np.put_along_axis(x, (first + values)[..., None], 1, -1)

    for nodes, first in ((source, 0), (destination, 2 * BASE + EDGES)):
        if nodes is not None:
            put(nodes // BASE, first)
            put(nodes % BASE, first + BASE)
    if edge is not None:
        put(edge, 2 * BASE)
    return x


def read(logits: Array) -> tuple[Array, Array, Array]:
    """Read the likeliest source, edge and destination of triples [..., TRIPLE]."""
    high, low, edge, to_high, to_low = (
        part.argmax(-1) for part in np.split(logits, np.cumsum([BASE, BASE, EDGES, BASE]), axis=-1)
    )
    return BASE * high + low, edge, BASE * to_high + to_low


def described(rng: np.random.Generator, tables: Array, labels: Array) -> Array:
    """List the edges of graphs of equally many, each graph's in an order of its own: [edges, N, TRIPLE]."""
    graph, source, destination = np.nonzero(tables >= 0)
    count = len(graph) // len(tables)
    order = rng.random((len(tables), count)).argsort(1)

    def of(values: Array) -> Array:
        found: Array = np.take_along_axis(values.reshape(len(tables), count), order, 1).T
        return found

    triples = of(labels[graph, source]), of(tables[graph, source, destination]), of(labels[graph, destination])
    return coded(*triples, (count, len(tables)))


def followed(tables: Array, labels: Array, path: Array) -> tuple[Array, Array, Array]:
    """Name the triples of paths [N, steps + 1]: sources, edges and destinations, each [steps, N]."""
    rows = np.arange(len(path))[:, None]
    edges = tables[rows, path[:, :-1], path[:, 1:]]
    names = labels[rows, path]
    return names[:, :-1].T, edges.T, names[:, 1:].T


# questions


def phases(facts: Array, asked: Array, plan: int, answer: Array, weighed: int) -> tuple[Array, Array]:
    """Put a question behind facts [edges, N, TRIPLE]: x [T, N, INPUTS] and target [T, N, TRIPLE + 1], in which the
    first ``weighed`` steps of the answer count."""
    begin = len(facts) + len(asked) + plan
    rows = facts.shape[1]
    x = np.zeros((begin + len(answer), rows, INPUTS), np.float32)
    x[: len(facts), :, :TRIPLE] = facts
    x[len(facts) : len(facts) + len(asked), :, :TRIPLE] = asked
    x[len(facts) : len(facts) + len(asked), :, ASKED] = 1
    x[begin - plan : begin, :, PLANNING] = 1
    x[begin:, :, ANSWERING] = 1
    target = np.zeros((len(x), rows, TRIPLE + 1), np.float32)
    target[begin:, :, :TRIPLE] = answer
    target[begin : begin + weighed, :, TRIPLE] = 1 / rows
    return x, target


def traversal(tables: Array, labels: Array, path: Array, rng: np.random.Generator) -> tuple[Array, Array]:
    """Ask for the triples along paths [N, steps + 1] of nodes: x and target; of a question the first edge has a
    source."""
    source, edge, destination = followed(tables, labels, path)
    asked = coded(None, edge, None, edge.shape)
    asked[0] = coded(source[0], edge[0], None, source[0].shape)
    answer = coded(source, edge, destination, edge.shape)
    return phases(described(rng, tables, labels), asked, 0, answer, len(answer))


def shortest(tables: Array, labels: Array, path: Array, rng: np.random.Generator) -> tuple[Array, Array]:
    """Ask for the shortest paths [N, steps + 1] of nodes: x and target. There are `LONGEST` steps to answer in whatever
    the length is, so that they do not give it away; those behind the destination do not count."""
    source, edge, destination = followed(tables, labels, path)
    asked = coded(source[:1], None, destination[-1:], source[:1].shape)
    answer = np.zeros((LONGEST, len(path), TRIPLE), np.float32)
    answer[: len(edge)] = coded(source, edge, destination, edge.shape)
    return phases(described(rng, tables, labels), asked, PLAN, answer, len(edge))


def ask_traversal(rng: np.random.Generator, tables: Array, steps: int) -> tuple[Array, Array]:
    """Draw labels and walks of so many edges in graphs [N, n, n], and ask for them."""
    labels = random_labels(rng, *tables.shape[:2])
    return traversal(tables, labels, random_walks(rng, tables, steps), rng)


def ask_shortest(rng: np.random.Generator, tables: Array, rows: int, steps: int) -> tuple[Array, Array]:
    """Draw labels and ends so many edges apart in the first graphs of [n, n] that have such, and ask for the ways."""
    path, fit = shortest_paths(rng, tables, steps)
    chosen = np.flatnonzero(fit)[:rows]
    labels = random_labels(rng, len(chosen), tables.shape[1])
    return shortest(tables[chosen], labels, path[chosen], rng)


def exact(logits: Array, target: Array) -> Array:
    """Return which questions have every triple of their answer right, [..., N], of logits [..., T, N, TRIPLE]."""
    counted = target[:, 0, TRIPLE] > 0
    told, truth = read(logits[..., counted, :, :]), read(target[counted][..., :TRIPLE])
    right = [(mine == true).all(-2) for mine, true in zip(told, truth, strict=True)]
    return np.asarray(right[0] & right[1] & right[2])
