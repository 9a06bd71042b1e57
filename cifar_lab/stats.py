"""What chance leaves of a comparison: intervals and tests on right and wrong answers, by numpy and scipy.

Two models that answered the same images are compared pair by pair: an image that both get right, or both wrong,
says nothing about which is better. What remains is how often only one of them is right. Such a test speaks of
two trained models; whether one recipe beats another takes several seeds of each.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import optimize, special, stats

CONFIDENCE = 0.95


class Interval(NamedTuple):
    """A range that holds the true value with the stated confidence.

    Args:
        low: Lower end.
        high: Upper end.
    """

    low: float
    high: float


@dataclass(frozen=True)
class PairedCounts:
    """How two models answered the same images.

    Args:
        both: Images that both get right.
        only_first: Images that only the first gets right.
        only_second: Images that only the second gets right.
        neither: Images that both get wrong.
    """

    both: int
    only_first: int
    only_second: int
    neither: int

    @property
    def images(self) -> int:
        """N."""
        return self.both + self.only_first + self.only_second + self.neither

    @property
    def difference(self) -> float:
        """Accuracy of the first less that of the second."""
        return (self.only_first - self.only_second) / self.images


def paired_counts(first: np.ndarray, second: np.ndarray) -> PairedCounts:
    """Count from two arrays bool [N] that say whether an answer is right.

    Raises:
        ValueError: They are not of the same images.
    """
    first, second = np.asarray(first, dtype=bool), np.asarray(second, dtype=bool)
    if first.ndim != 1 or first.shape != second.shape or not len(first):
        raise ValueError(f"answers {first.shape} and {second.shape}; must be [N] and [N] with N >= 1")
    cells = (first & second, first & ~second, ~first & second, ~first & ~second)
    return PairedCounts(*(int(cell.sum()) for cell in cells))


def wilson(right: int, images: int, confidence: float = CONFIDENCE) -> Interval:
    """Interval of one accuracy from ``right`` of ``images`` answers.

    Reference: Wilson, 1927, J. Am. Stat. Assoc. 22, 209-212; scipy's ``proportion_ci``.
    """
    found = stats.binomtest(right, images).proportion_ci(confidence, method="wilson")
    return Interval(float(found.low), float(found.high))


def clopper_pearson(hits: int, n: int, confidence: float = CONFIDENCE) -> Interval:
    """Interval of a share that holds it at least as often as it says, however small n is: what lies outside, a test refuses.

    Reference: Clopper and Pearson, 1934, Biometrika 26, 404-413; scipy's ``proportion_ci``.
    """
    found = stats.binomtest(hits, n).proportion_ci(confidence, method="exact")
    return Interval(float(found.low), float(found.high))


def fisher_exact(first: tuple[int, int], second: tuple[int, int]) -> float:
    """Two-sided p that two shares, each (hits, n), would differ at least so much, were what is behind them the same.

    Reference: Fisher, 1935, Journal of the Royal Statistical Society 98, 39-82; scipy's ``fisher_exact``.
    """
    return float(stats.fisher_exact([[hits, n - hits] for hits, n in (first, second)]).pvalue)


def mcnemar_exact(counts: PairedCounts) -> float:
    """Two-sided p that two models of equal accuracy would differ at least so much on these images.

    Given the images on which only one is right, each of the two is as likely to be that one: a binomial test.

    Reference: McNemar, 1947, Psychometrika 12, 153-157; the exact form of it, as in Dietterich, 1998,
        Neural Computation 10, 1895-1923, whose advice for two classifiers and one test set this follows.
    """
    discordant = counts.only_first + counts.only_second
    return float(stats.binomtest(counts.only_first, discordant, 0.5).pvalue) if discordant else 1.0


def paired_difference(counts: PairedCounts, confidence: float = CONFIDENCE) -> Interval:
    """Interval of the difference of two accuracies on the same images, first less second.

    The differences that a score test does not refuse. It holds what it promises with few images and near 0 and 1, where
    the plain (Wald) interval does not.

    Reference: Tango, 1998, Statistics in Medicine 17, 891-908, equations 5 and 6.
    """
    z = float(stats.norm.isf((1 - confidence) / 2))
    estimate = counts.difference
    # The score falls as the difference it is asked about rises: +z at the lower end, 0 at the estimate, -z at the upper.
    ends: list[float] = []
    for bound, wanted in ((-1.0, z), (1.0, -z)):
        if estimate == bound:
            ends.append(bound)
            continue
        # At -1 and 1 themselves the variance may be nothing.
        low, high = sorted((bound * (1 - 1e-12), estimate))
        found = optimize.root_scalar(lambda d, wanted=wanted: _score(counts, d) - wanted, bracket=(low, high), xtol=1e-12)
        ends.append(float(found.root))
    return Interval(*ends)


def _score(counts: PairedCounts, difference: float) -> float:
    """Distance of the counts from a supposed difference, in standard deviations."""
    n, b, c = counts.images, counts.only_first, counts.only_second
    # q is the most likely share of "only the second is right", were the difference true.
    half = -(b + c) + (2 * n - b + c) * difference
    q = (math.sqrt(max(half**2 + 8 * n * c * difference * (1 - difference), 0.0)) - half) / (4 * n)
    variance = n * (2 * q + difference * (1 - difference))
    distance = b - c - n * difference
    if variance <= 0:
        return math.copysign(math.inf, distance) if distance else 0.0
    return distance / math.sqrt(variance)


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p values for their number, so that the chance of any false finding stays below the level.

    scipy corrects the rate of false findings only (``false_discovery_control``).

    Reference: Holm, 1979, Scandinavian Journal of Statistics 6, 65-70.

    Returns:
        As many, in the same order, at most 1.
    """
    p = np.asarray(p_values, dtype=np.float64)
    if np.isnan(p).any() or ((p < 0) | (p > 1)).any():
        raise ValueError(f"p values {list(p_values)}; must be 0 to 1")
    order = p.argsort(kind="stable")
    steps = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    corrected = np.empty_like(p)
    corrected[order] = np.minimum(steps, 1.0)
    return corrected.tolist()


def paired_mean_difference(first: Sequence[float], second: Sequence[float], confidence: float = CONFIDENCE) -> Interval | None:
    """Student's t interval of the mean difference of pairs, such as two recipes with the same seeds; at least two pairs.

    None where all differences are the same (see ``mean_interval``).
    """
    if len(first) < 2:
        raise ValueError(f"{len(first)} pairs; an interval of their mean needs 2 or more")
    return mean_interval(np.subtract(first, second, dtype=np.float64), confidence)


def mean_interval(values: Sequence[float] | np.ndarray, confidence: float = CONFIDENCE) -> Interval | None:
    """Student's t interval of a mean; at least two values.

    None where all are the same. Accuracies on a small test set, and whole epochs, are so coarse that a few often agree by
    chance: an interval without any width would claim what they do not show.
    """
    values = np.asarray(values, dtype=np.float64)
    n = len(values)
    if n < 2:
        raise ValueError(f"{n} values; an interval of their mean needs 2 or more")
    if are_equal(values):
        return None
    mean, half = values.mean(), special.stdtrit(n - 1, (1 + confidence) / 2) * values.std(ddof=1) / math.sqrt(n)
    return Interval(float(mean - half), float(mean + half))


def are_equal(values: Sequence[float] | np.ndarray) -> bool:
    """Whether values, at least one, are the same but for rounding."""
    return bool(np.ptp(values) <= max(1e-9 * np.abs(values).max(), 1e-12))
