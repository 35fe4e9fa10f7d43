"""Pictures of a run as PNG files. Needs matplotlib (extra ``train``); opens no window."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fusedrnn.atomic import write_atomically
from fusedrnn.extras import needed_for

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = npt.NDArray[Any]
_RIGHT, _WRONG, _BASELINE = "#2a7f62", "#c8372d", "#777777"


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of so many inches, without pyplot's global state or a display."""
    with needed_for("a picture", "train"):
        from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def save_figure(figure: Figure, path: Path) -> None:
    """Write `figure` to `path` as a PNG, by rename. Raises OSError."""
    for axis in figure.axes:  # texts of users, whose dollars are no mathematics
        for text in (axis.title, axis.xaxis.label, axis.yaxis.label):
            text.set_parse_math(False)
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=110)
    write_atomically(path, content.getvalue())


def draw_loss(path: Path, history: Sequence[Mapping[str, Any]], title: str) -> None:
    """The training loss over updates, on a logarithmic axis; every metric of the records below it."""
    reserved = ("epoch", "step", "seconds", "loss", "lr")
    metrics = list(dict.fromkeys(name for record in history for name in record if name not in reserved))
    figure = new_figure(7, 3 + 1.6 * len(metrics))
    ratios = [2.0] + [1.0] * len(metrics)
    axes = figure.subplots(1 + len(metrics), 1, sharex=True, squeeze=False, height_ratios=ratios)[:, 0]
    marker = "o" if len(history) < 25 else ""
    axes[0].plot([r["step"] for r in history], [r["loss"] for r in history], marker=marker, color=_RIGHT)
    axes[0].set_ylabel("training loss")
    axes[0].set_title(title)
    if all(record["loss"] > 0 for record in history):
        axes[0].set_yscale("log")
    for axis, name in zip(axes[1:], metrics, strict=True):
        points = [(record["step"], record[name]) for record in history if name in record]
        axis.plot(*zip(*points, strict=True), marker="o", markersize=3, color="#2b5c9e")
        axis.set_ylabel(name)
    axes[-1].set_xlabel("updates")
    for axis in axes:
        axis.grid(alpha=0.3)
    save_figure(figure, path)


def wrong_share(counts: Array) -> Array:
    """For each true class the fraction that was predicted as another, of counts [true, predicted]; 0 where there are
    no examples of a class."""
    totals = counts.sum(axis=1)
    share: Array = (totals - counts.diagonal()) / np.maximum(totals, 1)
    return share


def draw_confusion(path: Path, truth: Array, predicted: Array, classes: int, title: str, name: str) -> None:
    """How often each true class (row) was predicted as each class (column), and the error of each class.

    `truth` and `predicted` are integers ``[n]``; `name` says what a class is.
    """
    counts = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(counts, (truth, predicted), 1)
    figure = new_figure(11, 5.4)
    left, right = figure.subplots(1, 2, width_ratios=[1.15, 1])
    left.imshow(np.where(counts > 0, np.log10(np.maximum(counts, 1)) + 0.3, 0), cmap="Greens")
    limit = counts.max()
    for row, column in zip(*np.nonzero(counts), strict=True):
        wrong = row != column
        shade = _WRONG if wrong else "white" if counts[row, column] > limit**0.5 else "black"
        size, weight = 6.5, "bold" if wrong else "normal"
        text = str(counts[row, column])
        left.text(column, row, text, ha="center", va="center", fontsize=size, color=shade, weight=weight)
    left.set(xlabel=f"predicted {name}", ylabel=f"true {name}", xticks=range(classes), yticks=range(classes))
    left.set_title(title)
    right.bar(range(classes), 100 * wrong_share(counts), color=_WRONG)
    right.set(xlabel=f"true {name}", ylabel="wrong, %", xticks=range(classes), title=f"errors by true {name}")
    save_figure(figure, path)


def draw_sums(
    path: Path, bits: Array, truth: Array, lengths: Sequence[int], exact: Sequence[float], baseline: float, title: str
) -> None:
    """Predicted sums bit by bit, wrong bits in red, beside the share of exact sums by length.

    `bits` and `truth` are 0 or 1, ``[sums, T]``, lowest bit first; `baseline` is the bit accuracy without carries.
    """
    figure = new_figure(11, 5)
    left, right = figure.subplots(1, 2, width_ratios=[1.2, 1])
    rows, steps = bits.shape
    for row in range(rows):
        for step in range(steps):
            colour = _RIGHT if bits[row, step] == truth[row, step] else _WRONG
            place = (steps - 1 - step - 0.46, row - 0.46)
            left.add_patch(_square(place, colour))
            left.text(place[0] + 0.46, row, str(int(bits[row, step])), ha="center", va="center", color="white")
    left.set(xlim=(-0.6, steps - 0.4), ylim=(rows - 0.4, -0.6), yticks=[], aspect="equal", title=title)
    left.set(xticks=range(steps), xticklabels=[str(steps - 1 - s) for s in range(steps)], xlabel="bit")
    right.plot(lengths, [100 * value for value in exact], marker="o", color=_RIGHT, label="exact sums")
    right.axhline(100 * baseline, color=_BASELINE, linestyle="--", label="bits right without carries")
    right.set(xlabel="bits of the numbers", ylabel="%", ylim=(-3, 103), title="longer than in training")
    right.set_xscale("log", base=2)
    right.set_xticks(list(lengths), [str(length) for length in lengths])
    right.minorticks_off()
    right.grid(alpha=0.3)
    right.legend(loc="center left")
    save_figure(figure, path)


def draw_images(path: Path, images: Array, truth: Array, predicted: Array, names: Sequence[str], title: str) -> None:
    """Images ``[n, rows, columns]``, each under its predicted name; a wrong one in red with the true name."""
    columns = 12
    rows = -(-len(images) // columns)
    figure = new_figure(11, 1.12 * rows + 0.5)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis in axes:
        axis.set_axis_off()
    for axis, image, label, guess in zip(axes, images, truth, predicted, strict=False):
        axis.imshow(image, cmap="gray_r")
        right = label == guess
        text = names[guess] if right else f"{names[guess]} not {names[label]}"
        axis.set_title(text, fontsize=8, color=_RIGHT if right else _WRONG, pad=2)
    figure.suptitle(title, fontsize=10)
    save_figure(figure, path)


def draw_polygons(path: Path, rows: Sequence[tuple[str, Sequence[tuple[Array, bool]]]], title: str) -> None:
    """A sheet of polygons in rows, each row with its name; every one ``[n, 2]`` is marked right or wrong.

    The first vertex has a dot. All are drawn to the same scale.
    """
    columns, apart = max(len(polygons) for _, polygons in rows), 3.2
    figure = new_figure(max(columns, 5), len(rows) + 0.4)
    axis: Axes = figure.subplots()
    for i, (_, polygons) in enumerate(rows):
        for j, (vertices, right) in enumerate(polygons):
            x, y = vertices.T[0] + apart * j, vertices.T[1] - apart * i
            colour = _RIGHT if right else _WRONG
            axis.fill(x, y, facecolor=colour, alpha=0.2, clip_on=False)
            axis.fill(x, y, fill=False, edgecolor=colour, linewidth=1.2, clip_on=False)
            axis.plot(x[0], y[0], marker="o", markersize=3, color=colour, clip_on=False)
    axis.set(xticks=[], aspect="equal", xlim=(-apart / 2, apart * (columns - 0.5)))
    axis.set(ylim=(-apart * (len(rows) - 0.5), apart / 2))
    axis.set_yticks(
        [-apart * i for i in range(len(rows))], [name for name, _ in rows], fontsize=9, rotation=90, va="center"
    )
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    figure.suptitle(title, fontsize=10)
    save_figure(figure, path)


def draw_curves(
    path: Path, history: Sequence[Mapping[str, Any]], names: Mapping[str, str], baseline: float, title: str
) -> None:
    """Metrics of the records over updates on one logarithmic axis, with a horizontal line for `baseline`.

    `names` gives the legend of each metric.
    """
    figure = new_figure(7.5, 4.5)
    axis: Axes = figure.subplots()
    for (metric, legend), colour in zip(names.items(), (_RIGHT, _WRONG), strict=True):
        points = [(record["step"], record[metric]) for record in history if metric in record]
        axis.plot(*zip(*points, strict=True), label=legend, color=colour, marker="o", markersize=3)
    axis.axhline(baseline, color=_BASELINE, linestyle="--", label=f"constant guess, {baseline:.3f}")
    axis.set(yscale="log", xlabel="updates", ylabel="mean squared error, held out", title=title)
    axis.grid(alpha=0.3)
    axis.legend()
    save_figure(figure, path)


def draw_forecast(
    path: Path, times: Array, truth: Array, ahead: Array, forecasts: Array, name: str, title: str
) -> None:
    """Points ``truth [n]`` at ``times``, and forecasts from some origins with their bands: ``ahead [m, H]`` are the
    times, ``forecasts [m, H, 3]`` lower bound, mean and upper bound."""
    figure = new_figure(11, 4.2)
    axis: Axes = figure.subplots()
    axis.plot(times, truth, color="black", linewidth=1, label="truth")
    for number, (place, (low, mean, high)) in enumerate(zip(ahead, forecasts.transpose(0, 2, 1), strict=True)):
        axis.fill_between(place, low, high, color=_RIGHT, alpha=0.25, linewidth=0, label=None if number else "band")
        axis.plot(place, mean, color=_RIGHT, label=None if number else "forecast")
        axis.axvline(place[0] - 1, color=_BASELINE, linewidth=0.6, linestyle=":")
    axis.set(xlabel="step", ylabel=name, title=title)
    axis.grid(alpha=0.3)
    axis.legend(loc="upper left")
    save_figure(figure, path)


def draw_attractor(
    path: Path, truth: Array, run: Array, times: Array, known: Array, forecast: Array, valid: float, title: str
) -> None:
    """Lorenz's attractor, true and as a free run draws it, [n, 3] each, seen along y; and one run over time beside the
    truth, [T, 3] each, leaving it at ``valid`` Lyapunov times."""
    figure = new_figure(9, 5)
    grid = figure.add_gridspec(2, 2, height_ratios=[1.4, 1])
    for column, (points, name, colour) in enumerate([(truth, "truth", "black"), (run, "free run", _RIGHT)]):
        axis = figure.add_subplot(grid[0, column])
        axis.plot(points[:, 0], points[:, 2], color=colour, linewidth=0.6)
        axis.set(title=name, xlabel="x", ylabel="z", xlim=(-21, 21), ylim=(0, 50))
    axis = figure.add_subplot(grid[1, :])
    axis.plot(times, known[:, 0], color="black", linewidth=1, label="truth")
    axis.plot(times, forecast[:, 0], color=_RIGHT, linewidth=1, label="free run")
    axis.axvline(valid, color=_WRONG, linestyle="--", label=f"valid until {valid:.2f}")
    axis.set(xlabel="Lyapunov times", ylabel="x", title=title)
    axis.legend(loc="upper right", ncols=3)
    save_figure(figure, path)


def draw_text(
    path: Path,
    pieces: Sequence[str],
    surprise: Array,
    sample: str,
    by_order: Sequence[float],
    nats: float,
    unit: str,
    titles: tuple[str, str],
) -> None:
    """A passage with its surprise as colour and a sample of the model; below them the n-grams beside the model.

    Args:
        pieces: tokens [n] that joined give the passage. surprise: -log p of each, [n]. sample: text.
        by_order, nats: surprise over all that was held out, of n-grams by order from 1 and of the model. unit: a token.
        titles: of the passage and of the sample.
    """
    with needed_for("a picture", "train"):
        from matplotlib.cm import ScalarMappable
        from matplotlib.colors import Normalize

    figure = new_figure(12, 8)
    grid = figure.add_gridspec(2, 2, height_ratios=[3.2, 1])
    passage, written = (figure.add_subplot(grid[0, column]) for column in (0, 1))
    scale = ScalarMappable(Normalize(0, max(1.0, float(np.quantile(surprise, 0.98)))), "YlOrRd")
    _write(passage, pieces, list(scale.to_rgba(surprise)))
    _write(written, list(sample), None)
    for panel, title in zip((passage, written), titles, strict=True):
        panel.set_title(title, fontsize=10)
    figure.colorbar(scale, ax=passage, location="bottom", shrink=0.6, pad=0.01)
    axis = figure.add_subplot(grid[1, :])
    orders = range(1, 1 + len(by_order))
    axis.plot(orders, by_order, color=_BASELINE, marker="o", label="interpolated n-grams, by order")
    for order, value in zip(orders, by_order, strict=True):
        axis.annotate(f"{value:.3f}", (order, value), (0, 5), textcoords="offset points", ha="center", fontsize=8)
    axis.axhline(nats, color=_RIGHT, label=f"the network, {nats:.3f}")
    axis.set(xticks=list(orders), ylabel=f"nats a {unit}")
    axis.margins(y=0.2)
    axis.grid(alpha=0.3)
    axis.legend(loc="upper right")
    save_figure(figure, path)


_LINES, _WIDTH = 24, 58  # of a text in a picture, in characters


def _write(axis: Axes, pieces: Sequence[str], colours: Sequence[Any] | None) -> None:
    """Write pieces of text on a grid of characters, each on its colour, as many as fit."""
    from matplotlib.patches import Rectangle

    row = column = 0
    for i, piece in enumerate(pieces):
        ends = piece == "\n"
        if not ends and column + len(piece) > _WIDTH:
            row, column = row + 1, 0
        if row == _LINES:
            break
        if colours is not None:
            axis.add_patch(Rectangle((column, row), len(piece), 1, color=colours[i], linewidth=0))
        for k, character in enumerate(piece):
            shown = character if character.isprintable() else "\u21b5" if ends and colours is not None else ""
            place = (column + k + 0.5, row + 0.75)
            axis.text(*place, shown, ha="center", fontsize=8, family="monospace", parse_math=False)
        row, column = (row + 1, 0) if ends else (row, column + len(piece))
    axis.set(xlim=(0, _WIDTH), ylim=(_LINES, 0))
    axis.set_axis_off()


def draw_sentences(
    path: Path,
    texts: Sequence[Sequence[str]],
    values: Sequence[Array],
    truth: Sequence[bool],
    history: Sequence[Mapping[str, Any]],
    baseline: Mapping[str, float],
    title: str,
) -> None:
    """Texts word by word, each word's ground coloured by a value from 0 (red) to 1 (green) and the last value beside
    the truth; right of them the metrics of the records named in `baseline`, over updates, each with its baseline."""
    figure = new_figure(14, 0.38 * len(texts) + 1.6)
    left, right = figure.subplots(1, 2, width_ratios=[3, 1])
    colours = _verdict_colours()
    for row, (words, likely, positive) in enumerate(zip(texts, values, truth, strict=True)):
        place = 0
        for word, value in zip(words, likely, strict=True):
            left.add_patch(_square((place, row - 0.36), colours(float(value)), len(word) + 1, 0.72))
            left.text(
                place + (len(word) + 1) / 2, row, word, ha="center", va="center", fontsize=7.5, family="monospace"
            )
            place += len(word) + 1
        verdict = f" {likely[-1]:.2f}, is {'positive' if positive else 'negative'}"
        shade = _RIGHT if (likely[-1] > 0.5) == positive else _WRONG
        left.text(place, row, verdict, va="center", fontsize=8, color=shade)
    longest = max((sum(len(word) + 1 for word in words) for words in texts), default=0)
    left.set(xlim=(0, longest + 20), ylim=(len(texts) - 0.4, -0.6), title=title)
    left.set_axis_off()
    for (metric, value), colour in zip(baseline.items(), (_RIGHT, "#2b5c9e", "#8a5fa8"), strict=False):
        points = [(record["step"], 100 * record[metric]) for record in history if metric in record]
        if points:
            right.plot(*zip(*points, strict=True), marker="o", markersize=3, color=colour, label=metric)
            right.axhline(100 * value, color=colour, linestyle="--", label="bag of words")
    right.set(xlabel="updates", ylabel="right, %", title="held-out texts")
    right.grid(alpha=0.3)
    right.legend(fontsize=7)
    save_figure(figure, path)


def _verdict_colours() -> Any:
    """The map from 0 (red) over white to 1 (green)."""
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("verdict", ["#f0938c", "#ffffff", "#8fd0a8"])


def _square(corner: tuple[float, float], colour: Any, width: float = 0.92, height: float = 0.92) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle(corner, width, height, color=colour)
