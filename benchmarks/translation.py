"""The task `translate` beside the same network in plain PyTorch: seconds an epoch, and BLEU after the same time.

``python -m benchmarks.translation`` fetches the sentences that the task has. Both networks have the same equations,
initial values, batches, loss, optimizer and schedule, on equal threads in one process, and take turns. What PyTorch has
learnt is put into our network, so that one beam search writes the answers of both.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import fusedrnn
from benchmarks.translation_torch import TorchTraining
from fusedrnn.data import sentence_pairs
from fusedrnn.nn import CrossEntropyLoss
from fusedrnn.optim import Adam, clip_grad_norm_
from fusedrnn.tasks.translate_runs import Recipe, batches_of, main_network, write
from fusedrnn.tasks.translate_sentences import PIECES, RECIPE, Corpus, bleu, give_vectors

WARMUP = 100  # updates, as the task has it


class OurTraining:
    """Our network and what trains it: ``update(batch, lr)``."""

    def __init__(self, model: Any, recipe: Recipe) -> None:
        self.model, self.recipe = model, recipe
        self.loss = CrossEntropyLoss(ignore_index=-1, label_smoothing=recipe.smoothing)
        self.optimizer = Adam(model, lr=recipe.lr)

    def update(self, batch: Any, lr: float) -> float:
        """Take a step on (x, target); return the loss."""
        x, target = batch
        self.optimizer.lr = lr
        self.optimizer.zero_grad()
        value = self.loss(self.model(x), target)
        self.model.backward(self.loss.backward())
        clip_grad_norm_(self.model, self.recipe.clip)
        self.optimizer.step()
        return value


def made(corpus: Corpus, recipe: Recipe, seed: int) -> tuple[Any, list[Any], list[Any]]:
    """Return the network as the task begins with it, and the numbers of the training sentences."""
    model = recipe.networks(corpus.source, corpus.target, np.random.default_rng(seed))
    sources, targets = corpus.numbers(corpus.train)
    more = corpus.numbers(corpus.phrases)
    give_vectors(model, sources + more[0], targets + more[1], np.random.default_rng([seed, 1]))
    return main_network(model), sources, targets


def epochs_in_turn(trainings: dict[str, Any], batches: Sequence[Any], rounds: int) -> dict[str, list[float]]:
    """Time epochs of batches, each library's in turn; seconds by library."""
    seconds: dict[str, list[float]] = {name: [] for name in trainings}
    for number in range(rounds + 1):
        for name, training in trainings.items():
            start = time.perf_counter()
            for batch in batches:
                training.update(batch, 0.0)
            if number:  # the first is not counted
                seconds[name].append(time.perf_counter() - start)
    return seconds


def equal_time(
    trainings: dict[str, Any], batches: Callable[[int], Any], recipe: Recipe, seconds: float
) -> dict[str, int]:
    """Train each for so many seconds, the learning rate falling along a cosine of the time; updates by library.

    They take turns of ten updates, so that what else the machine does falls on all alike.
    """
    spent, updates = dict.fromkeys(trainings, 0.0), dict.fromkeys(trainings, 0)
    streams = {name: _endless(batches) for name in trainings}
    while min(spent.values()) < seconds:
        for name, training in trainings.items():
            for _ in range(10):
                if spent[name] >= seconds:
                    break
                batch = next(streams[name])
                share = min(1.0, (updates[name] + 1) / WARMUP) * 0.5 * (1 + math.cos(math.pi * spent[name] / seconds))
                start = time.perf_counter()
                training.update(batch, recipe.lr * share)
                spent[name] += time.perf_counter() - start
                updates[name] += 1
    return updates


def _endless(batches: Callable[[int], Any]) -> Any:
    epoch = 0
    while True:
        yield from batches(epoch)
        epoch += 1


def score(model: Any, recipe: Recipe, corpus: Corpus) -> float:
    """Return the BLEU of a network on the test sentences, by the recipe's beam search."""
    answers = write(model, recipe, corpus.numbers(corpus.test)[0])
    return bleu([corpus.target.text(answer.tokens) for answer in answers], corpus.test)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.translation", description=__doc__)
    parser.add_argument("--data", help="a file of pairs, as `fusedrnn train translate` takes it")
    parser.add_argument("--rounds", type=int, default=3, help="epochs of each library, after one that does not count")
    parser.add_argument("--batches", type=int, help="of an epoch that is timed; all by default")
    parser.add_argument("--seconds", type=float, default=0.0, help="train both for so long and compare BLEU")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write the figures there")
    given = parser.parse_args(arguments)
    fusedrnn.set_num_threads(given.threads)
    corpus = Corpus.of(sentence_pairs.load_pairs(given.data, print), PIECES, swap=False)
    model, sources, targets = made(corpus, RECIPE, given.seed)
    theirs = TorchTraining(model, RECIPE, given.threads, given.seed)
    trainings = {"pytorch": theirs, "fusedrnn": OurTraining(model, RECIPE)}
    batches = batches_of(RECIPE, lambda epoch, rng: (sources, targets), given.seed, 1)
    difference = theirs.difference(model, next(iter(batches(0))))
    every = list(batches(0))[: given.batches]
    seconds = epochs_in_turn(trainings, every, given.rounds)
    times = [other / ours for other, ours in zip(seconds["pytorch"], seconds["fusedrnn"], strict=True)]
    figures: dict[str, Any] = {
        "batches": len(every), "seconds": seconds, "times": statistics.median(times), "difference": difference,
    }  # fmt: skip
    for name, values in seconds.items():
        print(f"{name:9} {statistics.median(values):8.2f} s an epoch of {len(every)} updates")
    print(f"pytorch takes {figures['times']:.2f} times as long; largest difference of logits {difference:.0e}")
    if given.seconds:
        model, *_ = made(corpus, RECIPE, given.seed)
        theirs = TorchTraining(model, RECIPE, given.threads, given.seed)
        trainings = {"pytorch": theirs, "fusedrnn": OurTraining(model, RECIPE)}
        figures["updates"] = equal_time(trainings, batches, RECIPE, given.seconds)
        figures["bleu"] = {"fusedrnn": score(model, RECIPE, corpus)}
        theirs.give(model)
        figures["bleu"]["pytorch"] = score(model, RECIPE, corpus)
        for name, value in figures["bleu"].items():
            print(f"{name:9} BLEU {value:.2f} after {given.seconds:g} s, {figures['updates'][name]:,} updates")
    if given.json:
        given.json.write_text(json.dumps(figures, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
