"""The rule of verdicts by hand-made differences, and how often it errs in simulated studies without any effect."""

import math

import numpy as np
import pytest
from scipy import stats

from cifar_lab.stats import Interval
from cifar_lab.study.deciding import decide, inside

STUDIES, SEEDS, VARIANTS = 2000, 10, 14


def words(*columns, margin=0.005, **options):
    return [decision.verdict for decision in decide(columns, margin, **options)]


def test_six_seeds_of_one_sign_are_enough_for_one_comparison():
    [found] = decide([[0.01, 0.02, 0.015, 0.011, 0.013, 0.018]], 0.005)
    assert (found.verdict, found.p, found.p_corrected) == ("better", 2 / 64, 2 / 64)
    assert found.difference == pytest.approx(0.087 / 6)
    assert words([-0.01, -0.02, -0.015, -0.011, -0.013, -0.018]) == ["worse"]
    # five seeds cannot, however clear they are; two comparisons need seven
    assert words([0.01, 0.02, 0.015, 0.011, 0.013]) == ["no evidence"]
    assert words([0.01, 0.02, 0.015, 0.011, 0.013, 0.018], [0.1, -0.1]) == ["no evidence", "no evidence"]
    assert words([0.01, 0.02, 0.015, 0.011, 0.013, 0.018, 0.01], [0.1, -0.1]) == ["better", "no evidence"]


def test_lower_can_be_better():
    column = [0.01, 0.02, 0.015, 0.011, 0.013, 0.018]
    assert words(column, lower_is_better=True) == ["worse"]
    assert words([-value for value in column], lower_is_better=True) == ["better"]


def test_intervals_are_students():
    column = [0.01, -0.002, 0.004, 0.007]
    [found] = decide([column], 0.005)
    for interval, confidence in ((found.interval95, 0.95), (found.interval90, 0.9)):
        expected = stats.ttest_1samp(column, 0).confidence_interval(confidence)
        assert interval == pytest.approx((expected.low, expected.high), rel=1e-9)


def test_equivalent_is_an_interval_inside_the_margin():
    # mean 0.001, standard error 0.001 / 2 = 0.0005 at n = 4: t(0.95, 3) = 2.3534, so 0.001 +- 0.0011767
    column = [0.001 + step * 0.001 / math.sqrt(5 / 3) for step in (-1.5, -0.5, 0.5, 1.5)]
    assert np.std(column, ddof=1) == pytest.approx(0.001)
    assert words(column, margin=0.0022) == ["equivalent"]
    assert words(column, margin=0.0021) == ["no evidence"]
    assert words([-value for value in column], margin=0.0022) == ["equivalent"]
    assert inside(Interval(-0.001, 0.001), 0.001)
    assert not inside(Interval(-0.0011, 0.0), 0.001)


def test_a_clear_difference_is_better_even_inside_the_margin():
    [found] = decide([[0.001, 0.002, 0.0015, 0.0011, 0.0013, 0.0018]], 0.005)
    assert found.verdict == "better"
    assert inside(found.interval90, 0.005)


def test_one_pair_or_none_gets_no_word_but_counts():
    one, none, six = decide([[0.2], [], [0.01, 0.02, 0.015, 0.011, 0.013, 0.018]], 0.005)
    assert (one.verdict, one.difference, one.interval95, one.p) == ("", 0.2, None, None)
    assert (none.verdict, none.difference) == ("", None)
    # three comparisons: 3 * 2 / 64
    assert (six.p_corrected, six.verdict) == (6 / 64, "no evidence")
    assert decide([], 0.005) == []


def test_equal_differences_show_no_spread():
    [found] = decide([[0.72 - 0.71, 0.71 - 0.70]], 0.05)
    assert (found.verdict, found.interval95, found.interval90, found.p) == ("no evidence", None, None, 0.5)
    assert words([0.010, 0.011], margin=0.05) == ["equivalent"]
    for n in (3, 5, 12):
        [found] = decide([[0.0] * n], 0.05)
        assert (found.verdict, found.interval95, found.interval90, found.p) == ("no evidence", None, None, 1.0)
    # Signs need no spread: -1 epoch in each of seven seeds is no chance.
    [found] = decide([[-1] * 7], 5, lower_is_better=True)
    assert (found.verdict, found.interval95, found.p) == ("better", None, 2 / 128)


def upper_bound(share, n):
    """Of what a share of at most ``share`` shows in n trials, once in ten thousand."""
    return stats.binom.isf(1e-4, n, share) / n


def test_studies_without_an_effect_are_rarely_wrong():
    rng = np.random.default_rng(20260727)
    wrong = 0
    for _ in range(STUDIES):
        shared = rng.normal(0, 0.002, size=(SEEDS, 1))  # what a seed does to every variant
        accuracies = np.round(0.7 + shared + rng.normal(0, 0.003, size=(SEEDS, VARIANTS + 1)), 4)
        differences = accuracies[:, 1:] - accuracies[:, :1]
        wrong += any(word in ("better", "worse") for word in words(*differences.T))
    assert wrong / STUDIES <= upper_bound(0.05, STUDIES)
    # Holm and 1,024 signs are strict, but do not shut out all chance: the rule looks at something.
    assert wrong > 0
    print(f"studies with a false finding: {wrong} of {STUDIES}")


@pytest.mark.parametrize("side", [-1, 1])
@pytest.mark.parametrize("seeds", [5, 10])
def test_what_is_as_far_as_the_margin_is_rarely_equivalent(side, seeds):
    rng = np.random.default_rng([seeds, side + 1])
    margin, sd = 0.005, 0.003
    columns = rng.normal(side * margin, sd, size=(STUDIES, 1, seeds))
    decisions = [decide(study, margin)[0] for study in columns]
    near = np.mean([inside(found.interval90, margin) for found in decisions])
    assert near <= upper_bound(0.05, STUDIES)
    assert near >= 0.02, "the test does not refuse everything"
    assert sum(found.verdict == "equivalent" for found in decisions) <= near * STUDIES


def test_the_same_recipe_is_mostly_equivalent_with_ten_seeds():
    rng = np.random.default_rng(11)
    found = [words(column)[0] for column in rng.normal(0, 0.003, size=(500, 10))]
    assert found.count("equivalent") > 450
