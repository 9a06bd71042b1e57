"""The classification report against scikit-learn's own, and against summarize."""

import json

import numpy as np
import pytest
from rig import heard
from sklearn.metrics import classification_report

from cifar_lab.analysis.report import save_report
from cifar_lab.metrics import softmax, summarize


def answers(num_classes: int, count: int = 300) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(num_classes)
    labels = rng.integers(num_classes, size=count)
    return rng.normal(size=(count, num_classes)) + 2 * np.eye(num_classes)[labels], labels


@pytest.mark.parametrize("num_classes", [2, 10, 100])
def test_both_files_are_what_scikit_learn_says(tmp_path, num_classes):
    logits, labels = answers(num_classes)
    names = [f"class {i}" for i in range(num_classes)]
    report = save_report(tmp_path, softmax(logits), labels, names, run_name="small_cnn on digits")
    common = {"labels": range(num_classes), "target_names": names, "zero_division": 0}
    assert report == classification_report(labels, logits.argmax(1), output_dict=True, **common)
    assert json.loads((tmp_path / "classification_report.json").read_text()) == report
    title, text = (tmp_path / "classification_report.txt").read_text().split("\n\n", 1)
    assert title == f"small_cnn on digits: {len(labels)} test images"
    assert text == classification_report(labels, logits.argmax(1), digits=4, **common)


def test_it_agrees_with_the_metrics_of_the_run(tmp_path):
    logits, labels = answers(10)
    names = [f"class {i}" for i in range(10)]
    report = save_report(tmp_path, softmax(logits), labels, names, run_name="small_cnn on digits")
    summary = summarize(logits, labels, names)
    assert report["accuracy"] == pytest.approx(summary["accuracy"])
    for average in ("macro", "weighted"):
        shown = report[f"{average} avg"]
        assert [shown["precision"], shown["recall"], shown["f1-score"]] == pytest.approx(
            [summary[f"{name}_{average}"] for name in ("precision", "recall", "f1")]
        )
    for row in summary["per_class"]:
        shown = report[row["name"]]
        assert shown == pytest.approx({k.replace("f1", "f1-score"): v for k, v in row.items() if k != "name"})


def test_a_class_that_never_occurs_and_one_never_predicted(tmp_path, recwarn):
    probs = np.eye(4)[[0, 0, 1, 2]]
    report = save_report(tmp_path, probs, np.array([0, 1, 1, 1]), ["a", "b", "c", "d"], run_name="small_cnn on digits")
    assert report["a"] == {"precision": 0.5, "recall": 1.0, "f1-score": pytest.approx(2 / 3), "support": 1}
    assert report["c"] == report["d"] == {"precision": 0.0, "recall": 0.0, "f1-score": 0.0, "support": 0}
    # scikit-learn leaves the accuracy out where classes are missing from the data; this report never does.
    assert report["accuracy"] == 0.5
    assert not heard(recwarn)


def test_numbers_are_plain(tmp_path):
    logits, labels = answers(3)
    report = save_report(tmp_path, softmax(logits), labels, ["a", "b", "c"], run_name="small_cnn on digits")
    assert type(report["accuracy"]) is float
    assert {type(v) for row in report.values() if isinstance(row, dict) for v in row.values()} == {float, int}
    assert all(type(row["support"]) is int for row in report.values() if isinstance(row, dict))
