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
_NODES = 100
# Samples drawn for the power of the test: fewer of many pairs, which have more sums each and are more alike.
_DRAWS, _LEAST_DRAWS, _SUMS = 2000, 16, 2**23
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


def t_power(difference: float, pairs: int, critical: float | np.ndarray) -> float:
    """Chance that Student's t of paired differences passes a critical value, on either side.

    The mean of normal chances over what the standard deviation of the sample may be. scipy's noncentral t says the same, but is
    NaN for some of its arguments (1.17: 7 degrees of freedom, shifted by 8).

    Args:
        difference: True mean of the differences, in their standard deviations.
        pairs: Two or more.
        critical: Value of t, or equally likely values [M], over which the mean is taken.
    """
    freedom = pairs - 1
    shift = abs(difference) * math.sqrt(pairs)
    nodes, weights = _quadrature()
    # Of the sample, in units of the true one: quantiles of chi, equally likely each.
    spread = np.sqrt(special.chdtri(freedom, 1 - (nodes + 1) / 2) / freedom)
    bar = np.outer(critical, spread)
    seen = special.ndtr(shift - bar) + special.ndtr(-shift - bar)
    return float(seen.mean(axis=0) @ weights / 2)


def smallest_detectable(sd: float, pairs: int, comparisons: int, *, level: float = LEVEL, power: float = POWER) -> float | None:
    """The difference that the sign-flip test finds with the stated power at Holm's strictest level, ``level / comparisons``.

    Of differences that are normal. With few pairs, or many comparisons, that is far more than a t test would need: six pairs of
    one comparison must all have one sign.

    Args:
        sd: Standard deviation of the differences; from 0, which is no spread to judge by, nothing follows.
        pairs: n.
        comparisons: How many the study makes.
        level: That no false finding may exceed over the study.
        power: Chance of finding it.

    Returns:
        In the unit of ``sd``; None without it, and where the sign-flip test of so many pairs cannot reach the level at all.
    """
    if pairs < 2 or sd == 0 or not can_decide(pairs, comparisons, level):
        return None
    return _detectable(pairs, level / comparisons, power) * sd


@cache
def _detectable(pairs: int, level: float, power: float) -> float:
    """The same for one test, in standard deviations of the differences."""
    critical = critical_values(pairs, level)

    def missing(difference: float) -> float:
        """Power that a difference lacks."""
        return power - t_power(difference, pairs, critical)

    high = 1.0
    while missing(high) > 0:  # with few pairs the critical values are far out
        high *= 2
    return float(optimize.root_scalar(missing, bracket=(0.0, high), xtol=1e-4).root)


def critical_values(pairs: int, level: float) -> np.ndarray:
    """Values that Student's t must pass for the sign-flip test to stay below a level, one for each of some drawn samples.

    That test looks at more of a sample than its mean and standard deviation, so that each has a value of its own; for normal
    differences these values are independent of both. Turning the signs of some differences leaves their sum as large as it was
    where those have a mean of 0 or less. The level allows for so many choices of what to turn; the sample is found once it is
    moved so far that no more of them have such a mean.

    Beyond ``EXACT_UP_TO`` pairs it is that of the t test alone, which the values have come close to by then.

    Args:
        pairs: Two or more.
        level: That they can reach (see ``can_decide``).
    """
    if pairs > EXACT_UP_TO:
        return special.stdtrit(pairs - 1, np.array([1 - level / 2]))
    draws = np.random.default_rng(0).normal(size=(max(_LEAST_DRAWS, min(_DRAWS, _SUMS >> pairs)), pairs))
    draws -= draws.mean(axis=1, keepdims=True)
    draws /= draws.std(axis=1, ddof=1, keepdims=True)
    allowed = math.ceil(level * 2 ** (pairs - 1)) - 1  # those that turn no sign, which are always as large, are among them
    sizes = _sums_of_parts(np.ones(pairs))
    smallest = [np.partition(_sums_of_parts(draw) / sizes, allowed - 1)[allowed - 1] for draw in draws]
    return -math.sqrt(pairs) * np.array(smallest)


def _sums_of_parts(values: np.ndarray) -> np.ndarray:
    """Sums over all 2^n - 1 choices of one or more values."""
    sums = np.zeros(1)
    for value in values:
        sums = np.concatenate([sums, sums + value])
    return sums[1:]


@cache
def _quadrature() -> tuple[np.ndarray, np.ndarray]:
    """Gauss-Legendre nodes in -1 .. 1 and their weights, which take longer to find than to use."""
    return np.polynomial.legendre.leggauss(_NODES)
