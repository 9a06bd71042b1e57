"""What a few pairs of runs can tell: the sign-flip test of their differences, and what it can at best find.

Two recipes that were each run with the seeds 0 .. n - 1 leave n differences. If the recipes were alike, each difference could
as well have come out with the other sign: the test counts how many of the 2^n ways to choose the signs give a mean at least as
far from 0 as the one that was seen. It asks nothing of the differences' distribution beyond that symmetry.
"""

import math
from collections.abc import Sequence
from functools import cache

import numpy as np
from scipy import optimize, special

EXACT_UP_TO = 20
"""Pairs up to which all signs are tried: half a million sums, some milliseconds."""
FLIPS = 100_000
"""Random choices of the signs beyond that."""
LEVEL, POWER = 0.05, 0.8
_CHUNK = 10_000
_NODES = 400
# Sums that differ by less than this part of the largest possible one are equal: 0.1 + 0.2 is not 0.3.
_TIE = 1e-10


def sign_flip_p(differences: Sequence[float] | np.ndarray, *, seed: int = 0) -> float:
    """Two-sided p that differences without a preferred sign have a mean at least so far from 0.

    Exact up to ``EXACT_UP_TO`` pairs; beyond, ``FLIPS`` seeded choices of the signs, with the observed one counted among them,
    so that p is never 0 and the test keeps its level. What was seen counts as one of its own ties in both.

    Reference: Fisher, 1935, The Design of Experiments, section 21; Phipson and Smyth, 2010, Statistical Applications in
        Genetics and Molecular Biology 9, article 39, equation 2, for the random choices.

    Args:
        differences: Finite, [n] with n >= 1.
        seed: Of the random choices.

    Raises:
        ValueError: There is none, or one is not finite.
    """
    found = np.asarray(differences, dtype=np.float64)
    if found.ndim != 1 or not len(found) or not np.isfinite(found).all():
        raise ValueError(f"differences {differences}; must be [n] with n >= 1 and finite")
    largest = np.abs(found).sum()
    enough = abs(found.sum()) - _TIE * largest
    if len(found) <= EXACT_UP_TO:
        # Turning all signs changes no distance from 0: the first may keep its own.
        sums = found[:1]
        for one in found[1:]:
            sums = np.concatenate([sums + one, sums - one])
        return float(np.count_nonzero(np.abs(sums) >= enough) / len(sums))
    rng = np.random.default_rng(seed)
    hits = 0
    for _ in range(0, FLIPS, _CHUNK):
        signs = rng.integers(2, size=(_CHUNK, len(found)), dtype=np.int8) * 2.0 - 1
        hits += int(np.count_nonzero(np.abs(signs @ found) >= enough))
    return (hits + 1) / (FLIPS + 1)


def attainable_p(pairs: int) -> float:
    """The smallest p that ``sign_flip_p`` can give: 2 / 2^n, as all differences have one sign; 1 without a pair."""
    if pairs < 1:
        return 1.0
    return 2.0 / 2**pairs if pairs <= EXACT_UP_TO else 1 / (FLIPS + 1)


def can_decide(pairs: int, comparisons: int, level: float = LEVEL) -> bool:
    """Whether any outcome of so many pairs would stay below the level after Holm's correction at its strictest."""
    return comparisons * attainable_p(pairs) < level


def t_power(difference: float, sd: float, pairs: int, level: float) -> float:
    """Chance that a two-sided paired t test sees a true difference.

    The mean of normal chances over what the standard deviation of the sample may be. scipy's noncentral t says the same, but is
    NaN for some of its arguments (1.17: 7 degrees of freedom, shifted by 8).

    Args:
        difference: Of the means.
        sd: Standard deviation of the differences, above 0.
        pairs: Two or more.
        level: Of the test.
    """
    freedom = pairs - 1
    critical = float(special.stdtrit(freedom, 1 - level / 2))
    shift = abs(difference) / sd * math.sqrt(pairs)
    nodes, weights = _quadrature()
    # Of the sample, in units of the true one: quantiles of chi, equally likely each.
    spread = np.sqrt(special.chdtri(freedom, 1 - (nodes + 1) / 2) / freedom)
    seen = special.ndtr(shift - critical * spread) + special.ndtr(-shift - critical * spread)
    return float(weights @ seen / 2)


def smallest_detectable(sd: float, pairs: int, comparisons: int, *, level: float = LEVEL, power: float = POWER) -> float | None:
    """The difference that a paired t test detects with the stated power at Holm's strictest level, ``level / comparisons``.

    The t test stands for the sign-flip test, whose power is near to it, and at most as large, where it can reach the level.

    Args:
        sd: Standard deviation of the differences.
        pairs: n.
        comparisons: How many the study makes.
        level: That no false finding may exceed over the study.
        power: Chance of finding it.

    Returns:
        In the unit of ``sd``; None where the sign-flip test of so many pairs cannot reach the level at all.
    """
    if pairs < 2 or not can_decide(pairs, comparisons, level):
        return None
    if sd == 0:
        return 0.0
    strict = level / comparisons

    def missing(shift: float) -> float:
        """Power that a difference of so many standard errors lacks."""
        return power - t_power(shift / math.sqrt(pairs), 1.0, pairs, strict)

    high = 2.0
    while missing(high) > 0:  # with few pairs the critical value is far out
        high *= 2
    found = optimize.root_scalar(missing, bracket=(0.0, high), xtol=1e-9)
    return float(found.root) * sd / math.sqrt(pairs)


@cache
def _quadrature() -> tuple[np.ndarray, np.ndarray]:
    """Gauss-Legendre nodes in -1 .. 1 and their weights, which take longer to find than to use."""
    return np.polynomial.legendre.leggauss(_NODES)
