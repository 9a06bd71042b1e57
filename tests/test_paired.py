"""The sign-flip test against all signs one by one and scipy; what n pairs can find against simulation."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from cifar_lab.paired import (
    EXACT_UP_TO,
    FLIPS,
    attainable_p,
    can_decide,
    critical_values,
    sign_flip_p,
    smallest_detectable,
    t_power,
)
from cifar_lab.stats import mean_interval


def all_signs(counts):
    """p from whole numbers, which have no rounding."""
    seen = abs(sum(counts))
    signs = list(itertools.product((1, -1), repeat=len(counts)))
    return sum(abs(sum(s * c for s, c in zip(sign, counts, strict=True))) >= seen for sign in signs) / len(signs)


@pytest.mark.parametrize("seed", range(30))
def test_p_is_the_share_of_all_signs(seed):
    rng = np.random.default_rng(seed)
    counts = rng.integers(-6, 7, size=rng.integers(1, 10)).tolist()
    # Differences of accuracies are rounded sums of tenths, not counts: as many ties must be seen all the same.
    assert sign_flip_p([count / 10_000 for count in counts]) == all_signs(counts)
    first = [0.7 + 0.0001 * count for count in counts]
    assert sign_flip_p(np.subtract(first, 0.7)) == all_signs(counts)


def test_p_is_scipys():
    rng = np.random.default_rng(4)
    for n in (3, 6, 10):
        values = rng.normal(0.4, 1, size=n)
        # Permuting one sample with "samples" flips its signs.
        found = stats.permutation_test((values,), np.sum, permutation_type="samples", n_resamples=np.inf)
        assert sign_flip_p(values) == pytest.approx(found.pvalue, abs=1e-12)


@pytest.mark.parametrize("n", [1, 2, 3, 5, 10, 20])
def test_the_smallest_p_is_reached_exactly(n):
    differences = np.linspace(0.001, 0.003, n)
    assert sign_flip_p(differences) == sign_flip_p(-differences) == attainable_p(n) == 2 / 2**n


def test_rounding_breaks_no_ties():
    assert 0.1 + 0.2 != 0.3
    # |0.1 + 0.2 - 0.3| is not 0 in floating point, but must be the smallest sum: every choice of signs is as far from 0.
    assert sign_flip_p([0.1, 0.2, -0.3]) == 1.0
    assert sign_flip_p([0.3, -0.1, -0.2]) == 1.0
    assert sign_flip_p([0.1] * 3 + [-0.1] * 3) == 1.0
    assert sign_flip_p([0.1, 0.1, 0.1, -0.1]) == all_signs([1, 1, 1, -1]) == 10 / 16


def test_no_difference_is_no_evidence():
    assert sign_flip_p([0.0] * 6) == 1.0
    # A pair without a difference is of both signs: it halves nothing.
    assert sign_flip_p([0.01, 0.02, 0.0]) == 0.5


@pytest.mark.parametrize("differences", [[], [0.1, math.nan], [math.inf], [[0.1, 0.2]]])
def test_what_is_no_difference_is_refused(differences):
    with pytest.raises(ValueError, match="must be"):
        sign_flip_p(differences)


def test_random_signs_are_seeded_and_close_to_all_signs():
    n = EXACT_UP_TO + 4
    rng = np.random.default_rng(2)
    counts = rng.integers(-40, 50, size=n)
    # The exact share, by convolution: how often each sum comes up.
    ways = {0: 1}
    for count in counts.tolist():
        wider: dict[int, int] = {}
        for total, times in ways.items():
            for turned in (total + count, total - count):
                wider[turned] = wider.get(turned, 0) + times
        ways = wider
    exact = sum(times for total, times in ways.items() if abs(total) >= abs(counts.sum())) / 2**n
    p = sign_flip_p(counts / 10_000)
    assert 0.01 < exact < 0.99
    assert abs(p - exact) < 4 * math.sqrt(exact * (1 - exact) / FLIPS)
    assert p == sign_flip_p(counts / 10_000)
    assert p != sign_flip_p(counts / 10_000, seed=1)
    assert sign_flip_p([0.01] * 40) == attainable_p(40) == 1 / (FLIPS + 1)


def test_who_can_decide():
    assert attainable_p(5) == 0.0625
    assert attainable_p(0) == 1.0
    assert [can_decide(n, 1) for n in (5, 6)] == [False, True]
    # 14 comparisons: 14 * 2 / 2^9 = 0.055, with ten seeds 0.027
    assert [can_decide(n, 14) for n in (9, 10)] == [False, True]


def test_power_is_how_often_a_t_test_sees_it():
    rng = np.random.default_rng(7)
    for pairs, level, difference in ((5, 0.05, 1.5), (10, 0.05 / 14, 1.6), (6, 0.01, 0.2)):
        draws = rng.normal(difference, 1.0, size=(20_000, pairs))
        seen = (stats.ttest_1samp(draws, 0, axis=1).pvalue < level).mean()
        expected = t_power(difference, pairs, stats.t.isf(level / 2, pairs - 1))
        assert abs(seen - expected) < 4 * math.sqrt(expected * (1 - expected) / 20_000)


def test_power_is_the_noncentral_t():
    # Where scipy's own is a number: it is NaN for some shifts.
    compared = 0
    for pairs in (2, 3, 5, 8, 20, 60):
        for level in (0.05, 0.05 / 14):
            for shift in (0.0, 0.5, 2.0, 4.0, 7.0):
                critical = stats.t.isf(level / 2, pairs - 1)
                tails = stats.nct.sf(critical, pairs - 1, shift) + stats.nct.cdf(-critical, pairs - 1, shift)
                if math.isfinite(tails):
                    compared += 1
                    assert t_power(shift / math.sqrt(pairs), pairs, critical) == pytest.approx(tails, abs=2e-5)
    assert compared > 40


@pytest.mark.parametrize(("pairs", "comparisons"), [(6, 1), (7, 1), (7, 3), (8, 6), (10, 1), (10, 14), (12, 14)])
def test_the_detectable_difference_is_found_in_four_of_five_studies(pairs, comparisons):
    """4,000 simulated studies each, judged by the test itself; the t test that it was once worked out by gives 0.54 to 0.79."""
    found = smallest_detectable(0.003, pairs, comparisons)
    assert found is not None
    draws = np.random.default_rng(8).normal(found, 0.003, size=(4000, pairs))
    seen = np.mean([sign_flip_p(row) < 0.05 / comparisons for row in draws])
    assert abs(seen - 0.8) < 4 * math.sqrt(0.16 / 4000)
    assert smallest_detectable(0.006, pairs, comparisons) == pytest.approx(2 * found)


@pytest.mark.parametrize(("pairs", "level"), [(6, 0.05), (7, 0.05), (8, 0.01)])
def test_a_sample_is_found_where_t_passes_its_critical_value(pairs, level):
    """The same samples, drawn once more and moved: below its value each is missed, above it is found."""
    values = critical_values(pairs, level)[:50]
    draws = np.random.default_rng(0).normal(size=(2000, pairs))[:50]
    centered = draws - draws.mean(axis=1, keepdims=True)
    units = draws.std(axis=1, ddof=1) / math.sqrt(pairs)
    for factor, is_found in ((0.999, False), (1.001, True)):
        moved = centered + (factor * values * units)[:, None]
        assert [sign_flip_p(sample) < level for sample in moved] == [is_found] * 50


def test_many_pairs_find_what_a_t_test_finds():
    """So that it may stand for the test where not all signs can be tried."""
    for level in (0.05, 0.05 / 14):
        one, other = critical_values(EXACT_UP_TO, level), stats.t.isf(level / 2, EXACT_UP_TO - 1)
        assert t_power(0.94, EXACT_UP_TO, one) == pytest.approx(t_power(0.94, EXACT_UP_TO, other), abs=0.01)
    assert critical_values(EXACT_UP_TO + 1, 0.01) == pytest.approx(stats.t.isf(0.005, EXACT_UP_TO))


def test_nothing_is_detectable_where_the_level_is_out_of_reach():
    assert smallest_detectable(0.003, 5, 14) is None
    assert smallest_detectable(0.003, 5, 1) is None
    assert smallest_detectable(0.003, 1, 1) is None
    assert smallest_detectable(0.003, 6, 1) is not None
    assert smallest_detectable(0.0, 6, 1) is None, "differences without a spread tell nothing of it"


def test_more_pairs_detect_less_and_more_comparisons_more():
    found = [smallest_detectable(1.0, n, 3) for n in (8, 10, 15, 20)]
    assert found == sorted(found, reverse=True)
    assert smallest_detectable(1.0, 12, 10) > smallest_detectable(1.0, 12, 2)


def test_the_interval_of_a_mean_is_scipys():
    values = np.random.default_rng(1).normal(3, 2, size=7)
    for confidence in (0.9, 0.95):
        found = stats.ttest_1samp(values, 0).confidence_interval(confidence)
        assert mean_interval(values, confidence) == pytest.approx((found.low, found.high), rel=1e-9)
    with pytest.raises(ValueError, match="2 or more"):
        mean_interval([1.0])
