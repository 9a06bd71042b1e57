"""The rule that gives each comparison of a study its word, from nothing but the paired differences."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cifar_lab.paired import LEVEL, sign_flip_p
from cifar_lab.stats import Interval, holm, mean_interval

BETTER, WORSE, EQUIVALENT, NO_EVIDENCE, NO_VERDICT = "better", "worse", "equivalent", "no evidence", ""


@dataclass(frozen=True)
class Decision:
    """What the differences of one comparison allow to say; without two pairs there are no intervals, no p and no word.

    Args:
        difference: Their mean; None without any.
        interval95: Student's t interval of the mean; None where all differences are the same.
        interval90: The same at 90 %.
        p: Of the sign-flip test.
        p_corrected: By Holm for all comparisons.
        verdict: The word.
    """

    difference: float | None
    interval95: Interval | None = None
    interval90: Interval | None = None
    p: float | None = None
    p_corrected: float | None = None
    verdict: str = NO_VERDICT


def decide(columns: Sequence[Sequence[float] | np.ndarray], margin: float, *, lower_is_better: bool = False) -> list[Decision]:
    """Judge all comparisons of a study together.

    Better or worse: the sign-flip p, by Holm's correction for all comparisons, is below 0.05. Equivalent: the 90 % interval of
    the paired t test lies inside the margin (two one-sided tests at 5 %). Else there is no evidence. A comparison with fewer
    than two pairs gets no word, but is counted by the correction: more runs later take no word back for having come. Pairs that
    all differ by the same show no spread, so that there is no interval and nothing is equivalent.

    Args:
        columns: Of each comparison the differences variant less baseline, one a seed.
        margin: Difference that would matter.
        lower_is_better: Turns better and worse round.

    Returns:
        As many, in the same order.
    """
    tested = [sign_flip_p(column) if len(column) > 1 else None for column in columns]
    corrected = holm([1.0 if p is None else p for p in tested]) if tested else []
    decisions = []
    for column, p, p_corrected in zip(columns, tested, corrected, strict=True):
        difference = float(np.mean(column)) if len(column) else None
        if p is None or difference is None:
            decisions.append(Decision(difference))
            continue
        interval90 = mean_interval(column, 0.9)
        if p_corrected < LEVEL:
            verdict = BETTER if (difference < 0) == lower_is_better else WORSE
        else:
            verdict = EQUIVALENT if interval90 is not None and inside(interval90, margin) else NO_EVIDENCE
        decisions.append(Decision(difference, mean_interval(column), interval90, p, p_corrected, verdict))
    return decisions


def inside(interval: Interval, margin: float) -> bool:
    """Whether all of an interval is as near to 0 as the margin."""
    return -margin <= interval.low and interval.high <= margin
