"""When an interval supports a claim, refutes it or leaves it open; nothing but numbers.

``wide`` is the 95 % interval, which shows that there is a difference; ``narrow`` the 90 % interval, which shows by two one-sided
tests at 5 % that there is none that matters.
"""

import math

from cifar_lab.stats import Interval
from cifar_lab.study.deciding import inside

SUPPORTED, REFUTED, INCONCLUSIVE = "supported", "refuted", "inconclusive"


def judge_difference(relation: str, wide: Interval, narrow: Interval, margin: float) -> str:
    """The word for ``higher``, ``lower``, ``equivalent`` or ``not_lower`` of a difference variant less against."""
    if relation == "lower":
        return judge_difference("higher", mirrored(wide), mirrored(narrow), margin)
    if relation == "higher":
        return _word(wide.low > 0, wide.high < 0 or inside(narrow, margin))
    if relation == "equivalent":
        return _word(inside(narrow, margin), wide.low > margin or wide.high < -margin)
    if relation == "not_lower":
        return _word(narrow.low > -margin, wide.high < -margin)
    raise ValueError(f"{relation} is no relation of a difference")


def judge_between(wide: Interval, low: float | None, high: float | None) -> str:
    """The word for a mean that should lie between two values; None: no limit on that side."""
    least, most = -math.inf if low is None else low, math.inf if high is None else high
    return _word(least <= wide.low and wide.high <= most, wide.high < least or wide.low > most)


def judge_share(interval: Interval) -> str:
    """The word for something that should be so in most runs."""
    return _word(interval.low > 0.5, interval.high < 0.5)


def mirrored(interval: Interval) -> Interval:
    """Of the difference the other way round."""
    return Interval(-interval.high, -interval.low)


def _word(supports: bool, refutes: bool) -> str:
    if supports:
        return SUPPORTED
    return REFUTED if refutes else INCONCLUSIVE
