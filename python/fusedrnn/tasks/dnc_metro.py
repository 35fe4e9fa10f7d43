"""The map of a metro that was made by hand, and journeys on it: asked in words, answered by a network, judged."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from fusedrnn.arrays import Array
from fusedrnn.nn import DNC
from fusedrnn.plots.memory import Traces
from fusedrnn.tasks.dnc_graphs import LONGEST, PLAN, TRIPLE, coded, described, phases, random_labels, read
from fusedrnn.tasks.dnc_runs import watch

Triple = tuple[str, str, str]  # station, way, station


@dataclass(frozen=True)
class Metro:
    """A map: lines as lists of stations, each line with the names of its two directions.

    ``places`` has where a station lies on the picture, ``table`` [n, n] the label of the edge between two stations:
    twice the line's number, one more in its second direction.
    """

    lines: dict[str, tuple[tuple[str, str], tuple[str, ...]]]
    places: dict[str, tuple[float, float]]

    @property
    def stations(self) -> list[str]:
        """Return the names of all stations; a station's number is its place here."""
        return list(self.places)

    @property
    def ways(self) -> list[str]:
        """Return the names of the edges' labels, such as "Red north"."""
        return [f"{line} {way}" for line, (ways, _) in self.lines.items() for way in ways]

    @property
    def table(self) -> Array:
        """Return the graph, [n, n]."""
        stations = self.stations
        table = np.full((len(stations), len(stations)), -1)
        for number, (_, stops) in enumerate(self.lines.values()):
            for one, other in pairwise(stops):
                here, there = stations.index(one), stations.index(other)
                table[here, there], table[there, here] = 2 * number, 2 * number + 1
        return table


METRO = Metro(
    lines={
        "Red": (("north", "south"), ("Saltmarsh", "Lanternhill", "Clockyard", "Fernway", "Northgate")),
        "Blue": (("east", "west"), ("Millbrook", "Lanternhill", "Tinmarket", "Oldharbour")),
        "Green": (("east", "west"), ("Quarry", "Fernway", "Tinmarket", "Kitefield")),
    },
    places={
        "Saltmarsh": (1.0, 0.0),
        "Lanternhill": (1.0, 1.0),
        "Clockyard": (1.0, 2.0),
        "Fernway": (1.0, 3.0),
        "Northgate": (1.0, 4.0),
        "Millbrook": (0.0, 1.0),
        "Tinmarket": (2.2, 1.6),
        "Oldharbour": (3.4, 1.0),
        "Quarry": (0.0, 3.4),
        "Kitefield": (3.4, 2.2),
    },
)


class Asked(NamedTuple):
    """A question: a station, and ways to follow from it or else the station to go to."""

    source: str
    ways: tuple[str, ...]
    destination: str | None


def asked_in(text: str) -> Asked:
    """Read a question, "Saltmarsh to Kitefield" or "Saltmarsh: Red north, Red north".

    Raises ValueError for other texts, stations and ways that there are not.
    """
    stations = {station.lower(): station for station in METRO.stations}
    names = {way.lower(): way for way in METRO.ways}

    def known(word: str, table: dict[str, str], what: str) -> str:
        name = " ".join(word.lower().split())
        if name not in table:
            raise ValueError(f"text: expected {what} among {', '.join(table.values())}, got {word.strip()!r:.60}")
        return table[name]

    first, colon, rest = text.partition(":")
    if colon:
        source = known(first, stations, "a station")
        ways = tuple(known(way, names, "a way") for way in rest.split(","))
        here = source
        for way in ways:
            here = _leads(here, way) or _no_way(here, way)
        return Asked(source, ways, None)
    one, to, other = text.replace(" TO ", " to ").partition(" to ")
    if not to:
        raise ValueError(f'text: expected "STATION to STATION" or "STATION: WAY, WAY", got {text!r:.60}')
    source, destination = known(one, stations, "a station"), known(other, stations, "a station")
    if source == destination:
        raise ValueError(f"text: expected two stations, got {source} twice")
    return Asked(source, (), destination)


def _leads(station: str, way: str) -> str | None:
    """Return the station to which a way leads from another, None where it does not begin there."""
    row = METRO.table[METRO.stations.index(station)]
    found = np.flatnonzero(row == METRO.ways.index(way))
    return METRO.stations[int(found[0])] if len(found) else None


def _no_way(station: str, way: str) -> str:
    raise ValueError(f"text: expected a way that leaves {station}, got {way}")


class Told(NamedTuple):
    """A network's answer: ``triples``, with "?" for a label that no station or way has; a word for what went in and
    what came out at each step; what happened in the memory; ``verdict``, whether it is right, in words."""

    triples: list[Triple]
    names: list[str]
    answers: list[str]
    traces: Traces
    verdict: str

    @property
    def route(self) -> list[str]:
        """Return the stations of the answer that there are."""
        stations = [self.triples[0][0], *(triple[2] for triple in self.triples)]
        return [station for station in stations if station in METRO.places]


def told_by(computer: DNC, asked: Asked) -> Told:
    """Let a computer read the map, its stations under labels that are the same for every question, and answer."""
    rng, stations, ways = np.random.default_rng(0), METRO.stations, METRO.ways
    labels = random_labels(rng, 1, len(stations))
    station = {int(label): name for label, name in zip(labels[0], stations, strict=True)}
    way = dict(enumerate(ways))
    number = {name: np.array([[label]]) for label, name in station.items()}
    facts = described(rng, METRO.table[None], labels)
    if asked.destination is not None:
        question = coded(number[asked.source], None, number[asked.destination], (1, 1))
        steps, plan = LONGEST, PLAN
    else:
        edges = np.array([[ways.index(each)] for each in asked.ways])
        question = coded(None, edges, None, edges.shape)
        question[:1] = coded(number[asked.source], edges[:1], None, (1, 1))
        steps, plan = len(edges), 0
    x, _ = phases(facts, question, plan, np.zeros((steps, 1, TRIPLE), np.float32), 0)
    traces = watch(computer, x[:, 0])

    def named(values: Array) -> list[Triple]:
        return [
            (station.get(int(a), "?"), way.get(int(b), "?"), station.get(int(c), "?"))
            for a, b, c in zip(*read(values), strict=True)
        ]

    triples = named(traces.logits[-steps:])
    if asked.destination is not None:  # steps behind the destination mean nothing
        ends = [i for i, triple in enumerate(triples) if triple[2] == asked.destination]
        triples = triples[: ends[0] + 1] if ends else triples
    said = [" ".join(triple) for triple in triples]
    names = [" ".join(triple) for triple in named(facts[:, 0])]
    if asked.destination is not None:
        names += [f"{asked.source} to {asked.destination}?", *["plan" for _ in range(plan)]]
    else:
        names += [f"{asked.source if i == 0 else ''} {each}?".strip() for i, each in enumerate(asked.ways)]
    names += ["answer"] * steps
    answers = ["" for _ in range(len(x) - steps)] + said + [""] * (steps - len(said))
    return Told(triples, names, answers, traces, verdict(asked, triples))


def verdict(asked: Asked, triples: list[Triple]) -> str:
    """Judge an answer by the map, in words."""
    here = asked.source
    for source, each, destination in triples:
        if source != here or each not in METRO.ways or _leads(source, each) != destination:
            return f"wrong: there is no such edge on the way from {here}"
        here = destination
    if asked.destination is None:
        right = tuple(each for _, each, _ in triples) == asked.ways
        return "right: these are the ways asked for" if right else "wrong: other ways than those asked for"
    if here != asked.destination:
        return f"wrong: it does not arrive at {asked.destination}"
    least = distance(asked.source, asked.destination)
    if len(triples) > least:
        return f"it arrives, but {least} edges would do, not {len(triples)}"
    return f"right: there is no shorter way than {least} edge{'' if least == 1 else 's'}"


def distance(source: str, destination: str) -> int:
    """Count the edges of the shortest path between two stations."""
    leads, reached, steps = METRO.table >= 0, {METRO.stations.index(source)}, 0
    while METRO.stations.index(destination) not in reached:
        reached |= {int(there) for here in reached for there in np.flatnonzero(leads[here])}
        steps += 1
    return steps
