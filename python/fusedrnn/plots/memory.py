"""Pictures of memory networks at work: what went in and came out, where they wrote and read, what they stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fusedrnn.arrays import Array
from fusedrnn.ops import sigmoid
from fusedrnn.plots.pictures import new_figure, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_OWN, _OTHER, _WRONG, _BASELINE = "#2a7f62", "#2b5c9e", "#c8372d", "#777777"
_FEWEST_SLOTS = 12  # in a picture


@dataclass(frozen=True)
class Episode:
    """One sequence and what a memory network did with it.

    Attributes:
        seen: [T, I]. asked: [T, O], 0 or 1, and NaN where no answer was expected. answered: [T, O], probabilities of
            a 1.
        written, read: [T, slots] weightings, the sum over heads. memory: [slots, width], after the last step.
    """

    seen: Array
    asked: Array
    answered: Array
    written: Array
    read: Array
    memory: Array


@dataclass(frozen=True)
class Curve:
    """A figure over training: ``points`` are (sequences, value), ``name`` its legend."""

    name: str
    points: Sequence[tuple[float, float]]


def curve(history: Sequence[Mapping[str, Any]], metric: str, name: str, rows: int) -> Curve:
    """Return a metric over the sequences trained on, ``rows`` an update, from the records that have it."""
    return Curve(name, [(record["step"] * rows, record[metric]) for record in history if metric in record])


def slots_in_use(weightings: Array, least: float = 0.2) -> Array:
    """Return the slots worth showing, in the memory's circular order: the shortest arc with every one in use.

    Args:
        weightings: [T, slots]. least: A slot is in use that once had so much weight.

    Returns:
        Integers [shown], the numbers of the slots; more than those in use where they are few.
    """
    slots = weightings.shape[1]
    used = np.flatnonzero(weightings.max(0) >= least)
    if len(used) == 0:
        return np.arange(min(slots, _FEWEST_SLOTS))
    gaps = np.diff(np.append(used, used[0] + slots))
    first = used[(int(gaps.argmax()) + 1) % len(used)]
    count = min(slots, max(_FEWEST_SLOTS, slots - int(gaps.max()) + 1))
    return np.asarray((first + np.arange(count)) % slots)


def draw_episode(path: Path, episode: Episode, curves: Sequence[Curve], level: tuple[str, float], title: str) -> None:
    """Draw one sequence from top to bottom, over the same steps, beside what is left in memory and the training.

    Args:
        path: A PNG. episode: What happened. curves: Bits a sequence over training.
        level: The name and value of a horizontal line among them. title: Of the whole.
    """
    figure = new_figure(12, 8)
    grid = figure.add_gridspec(5, 2, width_ratios=[2.4, 1], height_ratios=[1, 1, 1, 1.6, 1.6])
    rows: list[Axes] = [figure.add_subplot(grid[row, 0]) for row in range(5)]
    wrong = np.argwhere((episode.answered > 0.5) != (episode.asked > 0.5))
    wrong = wrong[~np.isnan(episode.asked[tuple(wrong.T)])]
    answered = np.where(np.isnan(episode.asked), np.nan, episode.answered)
    panels = (
        ("what went in", episode.seen.T),
        ("what should come out", episode.asked.T),
        (f"what came out ({_count(len(wrong), 'wrong bit')})", answered.T),
    )
    for axis, (name, values) in zip(rows, panels, strict=False):
        signed = bool(np.nanmin(values, initial=0) < 0)  # zero stays white
        axis.imshow(values, aspect="auto", cmap="PiYG" if signed else "Greens", vmin=-1 if signed else 0, vmax=1)
        axis.set(title=name, xticks=[], yticks=range(0, len(values), max(1, len(values) // 2)), ylabel="bit")
    rows[2].scatter(wrong[:, 0], wrong[:, 1], s=14, marker="x", color=_WRONG)
    slots = slots_in_use(np.maximum(episode.written, episode.read))
    for axis, name, weightings in ((rows[3], "wrote", episode.written), (rows[4], "read", episode.read)):
        axis.imshow(weightings[:, slots].T, aspect="auto", cmap="magma_r", vmin=0, vmax=1)
        axis.set(title=f"where it {name} (the darker, the more)", ylabel="slot of the memory")
        _number(axis, slots)
    rows[4].set_xlabel("step")
    _draw_memory(figure.add_subplot(grid[3:, 1]), episode.memory, slots)
    draw_curves(figure.add_subplot(grid[:3, 1]), curves, level)
    figure.suptitle(title)
    save_figure(figure, path)


def draw_curves(axis: Axes, curves: Sequence[Curve], level: tuple[str, float]) -> None:
    """Draw bits a sequence over the sequences trained on, and a horizontal line with a name at a value."""
    for each, colour in zip(curves, (_OWN, _OTHER, "#b8860b", "#8a5fa8"), strict=False):
        if each.points:
            axis.plot(*zip(*each.points, strict=True), color=colour, label=each.name)
    name, value = level
    axis.axhline(value, color=_BASELINE, linestyle="--", label=name)
    axis.set(xlabel="sequences trained on", ylabel="bits a sequence", title="how it learnt")
    if any(bits < value / 2 for each in curves for _, bits in each.points):
        axis.set_yscale("symlog", linthresh=1)
        axis.set_ylim(bottom=0)
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)


def _draw_memory(axis: Axes, memory: Array, slots: Array) -> None:
    """Draw the numbers of a memory [slots, width], in the slots of these numbers alone."""
    limit = float(np.abs(memory[slots]).max()) or 1.0
    axis.imshow(memory[slots], aspect="auto", cmap="RdBu", vmin=-limit, vmax=limit)
    axis.set(title="what the memory held in the end", xlabel="number within the slot", ylabel="slot of the memory")
    axis.locator_params("x", integer=True)
    _number(axis, slots)


def _number(axis: Axes, slots: Array) -> None:
    """Name some rows by their slots."""
    shown = range(0, len(slots), max(1, len(slots) // 8))
    axis.set_yticks(list(shown), [str(slots[row]) for row in shown])


def _count(number: int, what: str) -> str:
    return f"{number or 'no'} {what}{'' if number == 1 else 's'}"


# differentiable neural computers


@dataclass(frozen=True)
class Traces:
    """A differentiable neural computer's way through one sequence.

    Attributes:
        logits: [T, O]. written, read: Weightings [T, slots], the sum over heads. usage: [T, slots].
        links: [T, slots, slots], the first write head's. memory: [slots, width], after the last step.
    """

    logits: Array
    written: Array
    read: Array
    usage: Array
    links: Array
    memory: Array


@dataclass(frozen=True)
class Chart:
    """Figures of networks at some sizes: ``lines`` [sizes] by the network's name, ``trained`` the largest one of
    training, ``label`` and ``unit`` of the axes."""

    title: str
    label: str
    unit: str
    at: Sequence[int]
    lines: Mapping[str, Array]
    trained: int


@dataclass(frozen=True)
class Bars:
    """Figures of networks in some tasks: ``values`` [tasks] by the network's name, ``unit`` of the axis."""

    title: str
    unit: str
    tasks: Sequence[str]
    values: Mapping[str, Sequence[float]]


def draw_computer(path: Path, x: Array, target: Array, traces: Traces, chart: Chart, title: str) -> None:
    """Draw a row of bits step by step above where the computer wrote and read, beside links, memory and a chart.

    Args:
        path: A PNG. x: [T, I]. target: [T, O + 1], bits and in the last channel whether they count. traces: Of T steps.
        chart: Of several networks. title: Of the whole.
    """
    figure = new_figure(13, 10)
    columns = figure.add_gridspec(1, 2, width_ratios=[2.2, 1])
    left = columns[0].subgridspec(6, 1, height_ratios=[1, 1, 1, 3, 3, 3])
    right = columns[1].subgridspec(3, 1, height_ratios=[1.4, 0.8, 1])
    axes: list[Axes] = [figure.add_subplot(left[row]) for row in range(6)]
    asked = np.where(target[:, -1:] > 0, target[:, :-1], np.nan)
    answered = np.where(target[:, -1:] > 0, sigmoid(traces.logits.astype(float)), np.nan)
    wrong = np.argwhere((answered > 0.5) != (asked > 0.5))
    came = f"what came out ({_count(len(wrong), 'wrong bit')})"
    for axis, name, values in zip(
        axes, ("what went in", "what should come out", came), (x, asked, answered), strict=False
    ):
        axis.imshow(values.T, aspect="auto", cmap="Greens", vmin=0, vmax=1)
        axis.set(title=name, xticks=[], yticks=[])
    axes[2].scatter(wrong[:, 0], wrong[:, 1], s=14, marker="x", color=_WRONG)
    _draw_slots(axes[3:], traces, np.arange(len(x)))
    axes[5].set_xlabel("step")
    _draw_links(figure.add_subplot(right[0]), traces, int(np.argmax(target[:, -1] > 0)) - 1)
    _draw_memory(figure.add_subplot(right[1]), traces.memory, _in_turn(traces))
    _draw_chart(figure.add_subplot(right[2]), chart)
    figure.suptitle(title)
    save_figure(figure, path)


def draw_story(path: Path, words: Sequence[str], traces: Traces, bars: Bars, title: str) -> None:
    """Draw where a computer wrote and read at each of T words and what was in use, beside the errors of the tasks."""
    figure = new_figure(13, 7.5)
    grid = figure.add_gridspec(3, 2, width_ratios=[2.6, 1])
    axes: list[Axes] = [figure.add_subplot(grid[row, 0]) for row in range(3)]
    _draw_slots(axes, traces, np.arange(len(words)))
    axes[2].set_xticks(range(len(words)), list(words), rotation=90, fontsize=8)
    _draw_bars(figure.add_subplot(grid[:, 1]), bars)
    figure.suptitle(title)
    save_figure(figure, path)


@dataclass(frozen=True)
class Map:
    """A map of lines: ``places`` of stations by name, ``lines`` as names of stations by colour, ``route`` the
    stations on the way that a network told."""

    places: Mapping[str, tuple[float, float]]
    lines: Mapping[str, Sequence[str]]
    route: Sequence[str]


def draw_metro(
    path: Path, drawn: Map, names: Sequence[str], traces: Traces, bars: Bars, titles: tuple[str, str]
) -> None:
    """Draw a map with a route, the accuracies, and where the computer wrote and read at each of T steps of ``names``.

    Args:
        titles: Of the whole, and of the map.
    """
    figure = new_figure(12.5, 9.5)
    grid = figure.add_gridspec(3, 2, height_ratios=[1.9, 1, 1], width_ratios=[1.7, 1])
    axis = figure.add_subplot(grid[0, 0])
    for colour, stations in drawn.lines.items():
        axis.plot(*zip(*(drawn.places[station] for station in stations), strict=True), color=colour, lw=5, alpha=0.45)
    axis.plot(*zip(*(drawn.places[s] for s in drawn.route), strict=True), color="black", lw=2, marker="o", zorder=3)
    for name, (x, y) in drawn.places.items():
        axis.plot([x], [y], marker="o", color="black", markerfacecolor="white", markersize=7, zorder=4)
        axis.annotate(
            name, (x, y), xytext=(8, 7), textcoords="offset points", fontsize=9, zorder=5,
            bbox={"facecolor": "white", "alpha": 0.7, "lw": 0, "pad": 0.5},
        )  # fmt: skip
    axis.set_title(titles[1])
    axis.margins(0.12)
    axis.axis("off")
    _draw_bars(figure.add_subplot(grid[0, 1]), bars)
    below: list[Axes] = [figure.add_subplot(grid[row, :]) for row in (1, 2)]
    _draw_slots(below, traces, np.arange(len(names)))
    below[1].set_xticks(range(len(names)), list(names), rotation=90, fontsize=7)
    figure.suptitle(titles[0])
    save_figure(figure, path)


def _in_turn(traces: Traces) -> Array:
    """Return the slots that were written, in the order in which they first were."""
    used = np.flatnonzero(traces.written.max(0) >= 0.2)
    if len(used) == 0:
        return np.arange(traces.written.shape[1])
    return np.asarray(used[(traces.written[:, used] >= 0.2).argmax(0).argsort(kind="stable")])


def _draw_slots(axes: Sequence[Axes], traces: Traces, steps: Array) -> None:
    """Draw written, read and as far as there are axes usage, one row a slot in the order of first use."""
    slots = _in_turn(traces)
    panels = (
        ("where it wrote (one row a slot of the memory; the darker, the more)", traces.written),
        ("where it read", traces.read),
        ("which slots it holds to be in use", traces.usage),
    )
    for axis, (name, values) in zip(axes, panels, strict=False):
        axis.imshow(values[:, slots].T, aspect="auto", cmap="magma_r", vmin=0, vmax=1)
        axis.set(title=name, ylabel="slot", xticks=[])
        _number(axis, slots)
    axes[-1].set_xticks(steps[:: max(1, len(steps) // 10)])


def _draw_links(axis: Axes, traces: Traces, step: int) -> None:
    """Draw the links as they were after a step: dark where the slot of the row was written next after the column's."""
    slots = _in_turn(traces)
    axis.imshow(traces.links[step][np.ix_(slots, slots)], cmap="magma_r", vmin=0, vmax=1)
    axis.set(title="links before the first answer", xlabel="after this slot ...", ylabel="... this one was written")
    _number(axis, slots)
    shown = range(0, len(slots), max(1, len(slots) // 8))
    axis.set_xticks(list(shown), [str(slots[column]) for column in shown])


def _draw_chart(axis: Axes, chart: Chart) -> None:
    for (name, values), colour in zip(chart.lines.items(), (_OWN, _WRONG), strict=True):
        axis.plot(chart.at, values, marker="o", color=colour, label=name)
    axis.axvspan(0, chart.trained, color=_BASELINE, alpha=0.12, label="trained on these")
    axis.set(title=chart.title, xlabel=chart.label, ylabel=chart.unit, xlim=(0, max(chart.at) * 1.03))
    axis.set_ylim(-3, max(50, 1.08 * max(float(np.max(values)) for values in chart.lines.values())))
    axis.grid(alpha=0.3)
    axis.legend(fontsize=9)


def _draw_bars(axis: Axes, bars: Bars) -> None:
    room = 0.8 / len(bars.values)
    for number, ((name, values), colour) in enumerate(zip(bars.values.items(), (_OWN, _OTHER), strict=True)):
        places = np.arange(len(values)) + (number - (len(bars.values) - 1) / 2) * room
        axis.barh(places, values, height=room, color=colour, label=name)
        for place, value in zip(places, values, strict=True):
            axis.text(value + 1, place, f"{value:.1f}", va="center", fontsize=8)
    axis.set(title=bars.title, xlabel=bars.unit, xlim=(0, 112), yticks=range(len(bars.tasks)), yticklabels=bars.tasks)
    axis.invert_yaxis()
    axis.legend(fontsize=9, loc="lower right")
