"""Two at a time, image by image: McNemar's exact test, the interval of the difference, and what only one side gets right."""

import itertools
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cifar_lab import stats
from cifar_lab.comparing.entries import Entry
from cifar_lab.saved import SavedRun

LEVEL = 0.05


@dataclass(frozen=True, eq=False)
class Pair:
    """The first against the second.

    Args:
        names: Their labels.
        runs: The two whose answers are compared: of the lowest seed that both have, else each one's lowest.
        counts: Images by who gets them right.
        interval: 95 % (Tango) of the difference of the two accuracies, first less second.
        p: McNemar's exact test.
        p_holm: The same, corrected for the number of pairs.
        shared_seeds: Seeds that both have.
        mean_difference: Over shared seeds, first less second; None with fewer than two, and where they all differ by the same,
            which shows no spread to judge by.
        mean_interval: Its 95 % (Student's t) interval.
        of_several: Whether one of the two has several runs, so that the answers are of a part of them.
    """

    names: tuple[str, str]
    runs: tuple[SavedRun, SavedRun]
    counts: stats.PairedCounts
    interval: stats.Interval
    p: float
    p_holm: float
    shared_seeds: tuple[int, ...]
    mean_difference: float | None
    mean_interval: stats.Interval | None
    of_several: bool

    @property
    def seeds(self) -> tuple[int, int]:
        """Of the two whose answers are compared."""
        first, second = (run.result["seed"] for run in self.runs)
        return first, second

    @property
    def sides(self) -> tuple[str, str]:
        """What heads their answers: their labels, with their seeds where a label stands for several runs."""
        first, second = (f"{name} (seed {seed})" for name, seed in zip(self.names, self.seeds, strict=True))
        return (first, second) if self.of_several else self.names

    @property
    def only_right(self) -> tuple[np.ndarray, np.ndarray]:
        """Positions in the test set that only the first gets right, and only the second."""
        first, second = (run.predicted() == run.labels() for run in self.runs)
        return np.flatnonzero(first & ~second), np.flatnonzero(second & ~first)

    def sentence(self) -> str:
        """What the pair says, in words."""
        counts, (first, second) = self.counts, self.sides
        low, high = 100 * self.interval.low, 100 * self.interval.high
        lead, other = first, second
        if counts.difference < 0:
            lead, other, low, high = second, first, -high, -low
        size = f"{100 * abs(counts.difference):.2f} points"
        text = f"{lead} is {size} more accurate than {other}" if counts.difference else f"{lead} and {other} are equally accurate"
        word = "chance alone would rarely give this" if self.p_holm < LEVEL else "chance alone could give this"
        return (
            f"{text} (95 % interval {low:+.2f} to {high:+.2f}); {word} (McNemar's exact test, {p_text(self.p_holm)})."
            f" Of {counts.images:,} images only {first} gets {counts.only_first:,} right, only {second}"
            f" {counts.only_second:,}; both {counts.both:,}, neither {counts.neither:,}."
        )

    def plain(self) -> dict[str, Any]:
        """For programs."""
        counts, mean = self.counts, self.mean_interval
        return {
            "first": self.names[0],
            "second": self.names[1],
            "first_seed": self.seeds[0],
            "second_seed": self.seeds[1],
            "runs": [str(run.path) for run in self.runs],
            "images": counts.images,
            "both_right": counts.both,
            "only_first_right": counts.only_first,
            "only_second_right": counts.only_second,
            "neither_right": counts.neither,
            "difference": counts.difference,
            "difference_low": self.interval.low,
            "difference_high": self.interval.high,
            "mcnemar_p": self.p,
            "mcnemar_p_holm": self.p_holm,
            "shared_seeds": len(self.shared_seeds),
            "mean_difference": self.mean_difference,
            "mean_difference_low": mean.low if mean else None,
            "mean_difference_high": mean.high if mean else None,
        }


def compare_pairs(entries: Sequence[Entry]) -> list[Pair]:
    """Every two, in the order given; p values corrected for all of them together."""
    found = []
    for first, second in itertools.combinations(entries, 2):
        runs, shared = _chosen(first, second)
        counts = stats.paired_counts(*(run.predicted() == run.labels() for run in runs))
        found.append((first, second, runs, shared, counts, stats.mcnemar_exact(counts)))
    corrected = stats.holm([row[-1] for row in found])
    pairs = []
    for (first, second, runs, shared, counts, p), p_holm in zip(found, corrected, strict=True):
        mean, interval = _over_seeds(first, second, shared)
        names = (first.label, second.label)
        several = len(first.runs) > 1 or len(second.runs) > 1
        pairs.append(Pair(names, runs, counts, stats.paired_difference(counts), p, p_holm, shared, mean, interval, several))
    return pairs


def _chosen(first: Entry, second: Entry) -> tuple[tuple[SavedRun, SavedRun], tuple[int, ...]]:
    """The two runs whose answers stand for their configurations, and the seeds that both have."""
    of = [{run.result["seed"]: run for run in reversed(entry.runs)} for entry in (first, second)]
    shared = tuple(sorted(of[0].keys() & of[1].keys()))
    if shared:
        return (of[0][shared[0]], of[1][shared[0]]), shared
    return (first.runs[0], second.runs[0]), ()


def _over_seeds(first: Entry, second: Entry, shared: Sequence[int]) -> tuple[float | None, stats.Interval | None]:
    """Mean difference of test accuracy over shared seeds and its interval, where they show a spread."""
    if len(shared) < 2:
        return None, None
    values: list[list[float]] = []
    for entry in (first, second):
        by_seed = {run.result["seed"]: run.metrics["test"]["accuracy"] for run in reversed(entry.runs)}
        values.append([by_seed[seed] for seed in shared])
    one, two = values
    interval = stats.paired_mean_difference(one, two)
    return None if interval is None else statistics.fmean(one) - statistics.fmean(two), interval


def p_text(p: float) -> str:
    """``p = 0.031``, or ``p < 0.0001``."""
    return "p < 0.0001" if p < 1e-4 else f"p = {p:.4f}" if p < 0.01 else f"p = {p:.3f}"
