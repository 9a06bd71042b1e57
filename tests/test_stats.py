"""Intervals and tests against numbers counted by hand, other solvers, published values, and simulation."""

import math

import numpy as np
import pytest
from scipy import optimize, stats

from cifar_lab.stats import (
    PairedCounts,
    clopper_pearson,
    fisher_exact,
    holm,
    mcnemar_exact,
    mean_interval,
    paired_counts,
    paired_difference,
    paired_mean_difference,
    wilson,
)


def test_counts_of_two_answers():
    first, second = np.array([1, 1, 1, 0, 0, 0], bool), np.array([1, 0, 0, 1, 0, 0], bool)
    counts = paired_counts(first, second)
    assert counts == PairedCounts(both=1, only_first=2, only_second=1, neither=2)
    assert counts.images == 6
    assert counts.difference == pytest.approx(first.mean() - second.mean())
    for wrong in (first[:3], first[None, :], np.array([], bool)):
        with pytest.raises(ValueError, match=r"must be \[N\] and \[N\]"):
            paired_counts(wrong, second if len(wrong) else wrong)


@pytest.mark.parametrize(("b", "c"), [(7, 1), (1, 7), (4, 4), (0, 5), (0, 0), (1, 0), (30, 12), (5, 6)])
def test_mcnemar_is_the_sum_over_a_fair_coin(b, c):
    """Both tails counted by hand; the coin is fair, so the two are mirror images."""
    n, fewer = b + c, min(b, c)
    tail = sum(math.comb(n, k) for k in range(fewer + 1)) / 2**n
    assert mcnemar_exact(PairedCounts(10, b, c, 10)) == pytest.approx(min(1.0, 2 * tail))


def test_mcnemar_of_a_published_table():
    """Airway reactivity of 21 children (Bentur 2009) in Fagerland, Lydersen and Laake, 2013, BMC Med. Res. Methodol. 13:91."""
    assert mcnemar_exact(PairedCounts(1, 1, 7, 12)) == pytest.approx(0.0703, abs=5e-5)


def test_the_interval_of_a_published_table():
    """The same children: Tango's interval in Fagerland, Lydersen and Laake, 2014, Statistics in Medicine 33, 2850-2875."""
    found = paired_difference(PairedCounts(1, 1, 7, 12))
    assert (round(found.low, 3), round(found.high, 3)) == (-0.517, -0.026)


def fitted_score(b: int, c: int, n: int, difference: float) -> float:
    """The score with the most likely shares searched for by an optimizer instead of solved for."""

    def minus_likelihood(q: float) -> float:
        shares = (q + difference, q, 1 - 2 * q - difference)
        return -sum(k * math.log(p) for k, p in zip((b, c, n - b - c), shares, strict=True) if k)

    low, high = max(0.0, -difference) + 1e-9, (1 - difference) / 2 - 1e-9
    q = optimize.minimize_scalar(minus_likelihood, bounds=(low, high), method="bounded", options={"xatol": 1e-11}).x
    return (b - c - n * difference) / math.sqrt(n * (2 * q + difference - difference**2))


@pytest.mark.parametrize(("b", "c", "n"), [(12, 2, 50), (2, 12, 50), (40, 20, 160), (3, 3, 20), (900, 2000, 10000), (1, 0, 30)])
def test_the_interval_ends_where_a_fitted_score_is_two_sided_five_percent(b, c, n):
    found = paired_difference(PairedCounts(n - b - c, b, c, 0))
    assert found.low < (b - c) / n < found.high
    for end, wanted in ((found.low, 1.959964), (found.high, -1.959964)):
        assert fitted_score(b, c, n, end) == pytest.approx(wanted, abs=2e-4)


def test_the_interval_is_mirrored_grows_with_confidence_and_ends_at_one():
    counts, mirrored = PairedCounts(30, 9, 4, 7), PairedCounts(30, 4, 9, 7)
    a, b, wider = paired_difference(counts), paired_difference(mirrored), paired_difference(counts, 0.99)
    assert (a.low, a.high) == pytest.approx((-b.high, -b.low))
    assert wider.low < a.low
    assert wider.high > a.high
    every = paired_difference(PairedCounts(0, 10, 0, 0))
    assert every.high == 1.0
    assert 0.4 < every.low < 1
    none = paired_difference(PairedCounts(50, 0, 0, 50))
    # Without a single image that only one gets right the score solves in closed form: n d = z^2 (1 - d).
    assert none.high == pytest.approx(1.959964**2 / (100 + 1.959964**2), abs=1e-6)
    assert none.low == pytest.approx(-none.high)


@pytest.mark.parametrize(
    ("shares", "images"),
    [((0.60, 0.20, 0.10, 0.10), 200), ((0.90, 0.04, 0.02, 0.04), 200), ((0.70, 0.10, 0.10, 0.10), 40)],
)
def test_the_interval_covers_what_it_promises(shares, images):
    """4,000 simulated pairs of models, seed 0; a coverage of 95 % would be counted to within 1 % or so."""
    drawn = np.random.default_rng(0).multinomial(images, shares, size=4000)
    tables, times = np.unique(drawn, axis=0, return_counts=True)
    true = shares[1] - shares[2]
    seen: dict[tuple[int, int], bool] = {}
    covered = 0
    for table, count in zip(tables.tolist(), times.tolist(), strict=True):
        key = (table[1], table[2])
        if key not in seen:
            found = paired_difference(PairedCounts(*table))
            seen[key] = found.low <= true <= found.high
        covered += count * seen[key]
    assert 0.935 <= covered / 4000 <= 0.97


def test_wilson_by_its_formula():
    n, right, z = 10_000, 7334, 1.959963984540054
    p = right / n
    center, half = p + z**2 / (2 * n), z * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    found = wilson(right, n)
    assert (found.low, found.high) == pytest.approx(((center - half) / (1 + z**2 / n), (center + half) / (1 + z**2 / n)))
    assert wilson(0, 10).low == 0
    assert wilson(10, 10).high == 1


def test_clopper_pearson_by_its_closed_form_and_as_the_test_that_it_turns_round():
    assert clopper_pearson(6, 6) == pytest.approx((0.025 ** (1 / 6), 1.0))
    assert clopper_pearson(0, 6) == pytest.approx((0.0, 1 - 0.025 ** (1 / 6)))
    for n in range(1, 16):
        for hits in range(n + 1):
            tail = sum(math.comb(n, k) for k in range(max(hits, n - hits), n + 1)) / 2**n
            low, high = clopper_pearson(hits, n)
            # One half lies outside where both tails of a fair coin come to less than 5 %.
            assert (not low <= 0.5 <= high) == (2 * tail < 0.05), (hits, n)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 8])
def test_always_against_never_is_as_likely_as_two_of_all_ways_to_share_out(n):
    assert fisher_exact((n, n), (0, n)) == pytest.approx(2 / math.comb(2 * n, n))
    assert fisher_exact((0, n), (n, n)) == pytest.approx(2 / math.comb(2 * n, n))


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([0.02]) == [0.02]
    assert holm([]) == []
    with pytest.raises(ValueError, match="must be 0 to 1"):
        holm([0.1, math.nan])


def test_holm_keeps_the_chance_of_any_false_finding():
    """Five true null hypotheses, 5,000 times, seed 0."""
    drawn = np.random.default_rng(0).uniform(size=(5000, 5))
    false = np.mean([min(holm(row)) < 0.05 for row in drawn])
    assert false == pytest.approx(0.05, abs=0.01)
    assert np.mean(drawn.min(axis=1) < 0.05) > 0.2, "without correction it is far more"


def test_the_mean_of_pairs_has_students_interval():
    first, second = [0.70, 0.72, 0.71, 0.74], [0.68, 0.69, 0.70, 0.70]
    d = np.subtract(first, second)
    half = stats.t.ppf(0.975, 3) * d.std(ddof=1) / 2
    found = paired_mean_difference(first, second)
    assert (found.low, found.high) == pytest.approx((d.mean() - half, d.mean() + half))
    with pytest.raises(ValueError, match="1 pairs"):
        paired_mean_difference([0.5], [0.25])


@pytest.mark.parametrize("n", [2, 3, 7])
def test_equal_values_have_no_interval(n):
    assert paired_mean_difference([0.5] * n, [0.25] * n) is None
    assert mean_interval([0.0] * n) is None
    assert mean_interval([-1] * n) is None
    # the same but for rounding
    assert paired_mean_difference([0.72, 0.71] * n, [0.71, 0.70] * n) is None
    assert mean_interval([0.1 + 0.2 - 0.3, 0.0] * n) is None
    assert mean_interval([0.1] * n + [0.1001]) is not None


def test_small_classes_rarely_seem_to_change_without_an_effect():
    """Two seeds of classes of 20 images, 4,000 times, seed 0: in one of eleven both change by the same, which is no evidence."""
    right = np.random.default_rng(0).binomial(20, 0.7, size=(4000, 2, 2))
    changes = (right[:, 0] - right[:, 1]) / 20
    found = [mean_interval(change) for change in changes]
    assert np.mean([interval is None for interval in found]) > 0.08
    clear = np.mean([interval is not None and not interval.low <= 0 <= interval.high for interval in found])
    assert clear < 0.05
