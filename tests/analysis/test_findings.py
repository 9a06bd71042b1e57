"""Every number of a finding is computed again from the answers and rows, by scikit-learn, scipy and plain loops."""

import json

import numpy as np
import pytest
from fake_run import FakeRun, make_rows
from scipy.stats import binomtest, ttest_rel
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from cifar_lab.analysis.classes import class_table, classes
from cifar_lab.analysis.course import fall_per_epoch, fit_status
from cifar_lab.analysis.findings import findings
from cifar_lab.metrics import softmax


def by_name(run: FakeRun) -> dict:
    return {finding["name"]: finding for finding in findings(run).numbers["findings"]}


def wilson_by_scipy(count: int, total: int):
    interval = binomtest(count, total).proportion_ci(0.95, method="wilson")
    return pytest.approx([interval.low, interval.high], abs=1e-12)


@pytest.mark.parametrize("num_classes", [2, 10, 100])
def test_counts_classes_and_pairs_by_scikit_learn(num_classes):
    run = FakeRun(num_classes, count=900)
    found = by_name(run)
    labels, predicted = run.labels("test"), run.predicted("test")
    right = int((labels == predicted).sum())
    counts = found["counts"]["numbers"]
    assert (counts["correct"], counts["incorrect"]) == (right, 900 - right)
    assert counts["interval"] == wilson_by_scipy(right, 900)
    assert f"{right:,} are answered correctly and {900 - right:,} incorrectly" in found["counts"]["text"]

    matrix = confusion_matrix(labels, predicted, labels=range(num_classes))
    recalls = matrix.diagonal() / matrix.sum(1)
    shown = found["classes"]["numbers"]
    expected = sorted(range(num_classes), key=lambda k: recalls[k])[: max(1, min(3, num_classes // 2))]
    assert [row["name"] for row in shown["worst"]] == [f"class {k}" for k in expected]
    assert shown["best"][0]["recall"] == pytest.approx(recalls.max())
    for row in (*shown["worst"], *shown["best"]):
        k = int(row["name"].removeprefix("class "))
        assert (row["right"], row["support"]) == (matrix[k, k], matrix[k].sum())
        assert row["recall_interval"] == wilson_by_scipy(int(matrix[k, k]), int(matrix[k].sum()))

    np.fill_diagonal(matrix, 0)
    pairs = found["confused"]["numbers"]["pairs"]
    assert [pair["count"] for pair in pairs] == [n for n in sorted(matrix.ravel(), reverse=True)[:5] if n]
    for pair in pairs:
        true, taken_for = (int(pair[key].removeprefix("class ")) for key in ("true", "predicted"))
        assert pair["count"] == matrix[true, taken_for]
        assert pair["interval"] == wilson_by_scipy(pair["count"], int((labels == true).sum()))
        assert f"{pair['true']} → {pair['predicted']} {pair['count']:,} of {pair['support']:,}" in found["confused"]["text"]


def test_the_table_of_classes_by_scikit_learn_and_a_class_that_is_never_seen_or_said():
    run = FakeRun(10)
    precision, recall, _, support = precision_recall_fscore_support(run.labels("test"), run.predicted("test"))
    table = classes(run).numbers["classes"]
    assert [row["precision"] for row in table] == pytest.approx(precision.tolist())
    assert [row["recall"] for row in table] == pytest.approx(recall.tolist())
    assert [row["support"] for row in table] == support.tolist()
    rows = class_table(np.array([0, 0, 2]), np.array([0, 1, 1]), ("a", "b", "never"))
    assert [row["recall"] for row in rows] == [1.0, 0.0, None]
    assert [row["precision"] for row in rows] == [0.5, None, 0.0]
    assert [row["recall_interval"] is None for row in rows] == [False, False, True]


def test_no_mistake_is_said_to_be_none():
    run = FakeRun(3, count=20, sharpness=1.0)
    run._answers["test"][0][:] = 9 * np.eye(3, dtype=np.float32)[run.labels("test")]
    found = by_name(run)
    assert found["confused"]["text"] == "No class was taken for another."
    assert found["counts"]["numbers"]["incorrect"] == 0
    assert found["classes"]["text"] == "No class is found more often than another: all have a recall of 100.0 %."
    assert found["classes"]["numbers"]["worst"] == found["classes"]["numbers"]["best"] == []
    assert "100.0 % sure and right in 100.0 % (as sure as right" in found["calibration"]["text"]


@pytest.mark.parametrize(
    ("mistakes", "worst", "best"),
    [
        ([0, 3, 0, 0, 0, 0, 0, 0, 5, 0], [8, 1], [0, 2, 3]),
        ([9, 9, 9, 9, 0, 9, 9, 9, 9, 9], [0, 1, 2], [4]),
        ([4, 4, 4, 0, 4, 4, 4, 4, 9, 4], [8], [3]),
        ([1, 1, 1, 0, 2, 2, 2, 3, 3, 3], [7, 8, 9], [3, 0, 1]),
        ([0, 7], [1], [0]),
        ([1, 2, 2], [1], [0]),
    ],
)
def test_no_class_is_among_the_worst_and_as_good_as_the_best(mistakes, worst, best):
    """Of 20 images of each class so many are taken for the next class."""
    count = len(mistakes)
    run = FakeRun(count, count=20 * count)
    labels = np.repeat(np.arange(count), 20)
    said = np.concatenate([np.where(np.arange(20) < wrong, (k + 1) % count, k) for k, wrong in enumerate(mistakes)])
    run._answers["test"] = (9 * np.eye(count, dtype=np.float32)[said], labels)
    shown = by_name(run)["classes"]["numbers"]
    assert [row["name"] for row in shown["worst"]] == [f"class {k}" for k in worst]
    assert [row["name"] for row in shown["best"]] == [f"class {k}" for k in best]


def drawn(sharpness: float, seed: int) -> FakeRun:
    """400 answers of a model that is as right as it says at a sharpness of 1: its labels are drawn from its own probabilities."""
    run, rng = FakeRun(3, count=400, val=False), np.random.default_rng(seed)
    logits = 2 * rng.normal(size=(400, 3))
    labels = (rng.random((400, 1)) > softmax(logits).cumsum(1)).sum(1)
    run._answers["test"] = ((sharpness * logits).astype(np.float32), labels)
    return run


def test_too_sure_is_what_chance_does_not_give():
    """By chance 5 % of calibrated models are called too sure or not sure enough: of 20, at most 4 in 99.7 % of all draws."""
    texts = [by_name(drawn(1.0, seed))["calibration"]["text"] for seed in range(20)]
    assert sum("(as sure as right, as far as these images tell)" in text for text in texts) >= 16
    assert "(too sure)" in by_name(drawn(3.0, 0))["calibration"]["text"]
    assert "(not sure enough)" in by_name(drawn(0.3, 0))["calibration"]["text"]
    run = drawn(1.0, 0)
    numbers = by_name(run)["calibration"]["numbers"]
    right = run.predicted("test") == run.labels("test")
    interval = ttest_rel(run.confidence("test"), right.astype(float)).confidence_interval(0.95)
    assert numbers["gap"] == pytest.approx(run.confidence("test").mean() - right.mean())
    assert numbers["gap_interval"] == pytest.approx([interval.low, interval.high])


@pytest.mark.parametrize(
    ("train", "val", "status"),
    [
        *((0.80, 0.74, "overfit"), (0.80, 0.75, "balanced"), (0.55, 0.50, "underfit"), (0.55, 0.499, "overfit")),
        *((0.62, 0.58, "balanced"), (0.59, 0.599, "underfit"), (0.59, 0.61, "balanced"), (0.6, 0.6, "balanced")),
        (0.4333333333333333, 0.38333333333333336, "underfit"),  # a gap of five points, but for rounding
    ],
)
def test_the_rule_of_five_points(train, val, status):
    assert fit_status(train, val) == status


def test_the_fit_is_judged_by_the_tested_weights():
    run = FakeRun()
    run.result["metrics"]["train"] = {**run.result["metrics"]["train"], "accuracy": 0.99}
    fit = by_name(run)["fit"]
    gap = 0.99 - run.result["metrics"]["val"]["accuracy"]
    assert fit["numbers"]["gap"] == pytest.approx(gap)
    assert fit["numbers"]["status"] == "overfit"
    assert f"a gap of {100 * gap:.1f} points, above 5 points" in fit["text"]


def test_how_fast_the_loss_falls_at_the_end():
    geometric = [(epoch, 3.0 * 0.9**epoch) for epoch in range(1, 13)]
    assert fall_per_epoch(geometric) == (pytest.approx(0.1), 5)
    assert fall_per_epoch(geometric[::2]) == (pytest.approx(0.1), 6)  # validated every other epoch
    assert fall_per_epoch(geometric[:2]) == (pytest.approx(0.1), 1)
    assert fall_per_epoch([(1, 1.0), (2, 1.1)]) == (pytest.approx(-0.1), 1)
    assert fall_per_epoch(geometric[:1]) is None
    assert fall_per_epoch([(1, 1.0), (2, 0.0)]) is None
    numbers = by_name(FakeRun())["convergence"]["numbers"]
    assert (numbers["train_falling"], numbers["train_fall_per_epoch"]) == (True, pytest.approx(0.1))
    assert (numbers["val_falling"], numbers["val_fall_per_epoch"]) == (True, pytest.approx(0.08))


@pytest.mark.parametrize(("rate", "says"), [(0.9, "was still falling"), (0.995, "had levelled off"), (1.05, "was rising")])
def test_three_ways_to_end(rate, says):
    run = FakeRun()
    for row in run.rows:
        row["val_loss"] = rate ** row["epoch"]
    finding = by_name(run)["convergence"]
    assert f"validation loss {says}" in finding["text"]
    assert finding["numbers"]["val_falling"] == (rate == 0.9)


def test_epochs_and_seconds_to_milestones():
    rows = make_rows(12)  # 1 - 0.92**epoch: 50 % at epoch 9
    expected = next(row["epoch"] for row in rows if row["val_accuracy"] >= 0.5)
    finding = by_name(FakeRun())["milestones"]
    reached = finding["numbers"]["reached"]
    assert (reached["50"]["epoch"], reached["50"]["seconds"]) == (expected, 2.0 * expected)
    assert reached["70"] is reached["80"] is reached["90"] is None
    assert finding["text"].startswith(
        f"Validation accuracy reached 50 % after epoch {expected} ({2 * expected} s); never reached 70, 80, 90 %"
    )


def test_the_files_hold_every_sentence_with_numbers_and_source():
    made = findings(FakeRun())
    written = json.loads(made.texts["findings.json"])
    assert [f["name"] for f in written] == [
        *("best_epoch", "fit", "convergence", "milestones", "counts", "classes", "confused", "calibration")
    ]
    assert all(f["text"] and f["numbers"] and f["source"] for f in written)
    assert [f["text"] for f in written] == list(made.lines)
    assert all(f["text"] in made.texts["findings.md"] and f["source"] in made.texts["findings.md"] for f in written)


def test_runs_that_lack_something_say_so():
    assert by_name(FakeRun(epochs=0))["best_epoch"]["text"].startswith("The run was not trained")
    one = by_name(FakeRun(epochs=1))
    assert one["convergence"]["numbers"]["train_falling"] is None
    assert "cannot be said" in one["convergence"]["text"]
    blind = by_name(FakeRun(val=False))
    assert blind["fit"]["numbers"]["status"] is None
    assert "no val_accuracy was measured" in blind["best_epoch"]["text"]
    assert all("cannot be said" in blind[name]["text"] for name in ("fit", "milestones"))
    evidence, whole = by_name(FakeRun(evidence=True)), by_name(FakeRun())
    assert evidence["counts"]["numbers"] == whole["counts"]["numbers"]
    assert evidence["counts"]["source"] == "test_predictions.npz: labels, predicted"
