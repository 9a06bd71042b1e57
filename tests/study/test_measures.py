"""Columns of report.csv from made-up runs."""

import pytest
from made_sweep import CLASSES, make_sweep

from cifar_lab.stats import Interval
from cifar_lab.study.design import load_study
from cifar_lab.study.measures import (
    METRICS,
    as_difference,
    as_range,
    as_text,
    in_words,
    is_metric,
    latency,
    lower_is_better,
    measures,
    settled_epoch,
)


def run_of(folder, value=0.7, **options):
    [run] = load_study(make_sweep(folder, {"": [value]}, predictions=False, **options)).runs
    return run


def test_every_column_of_a_finished_run(tmp_path):
    curve = [0.4, 0.55, None, 0.72, 0.69]
    found = measures(run_of(tmp_path, curves={("", 0): curve}, costs={"": {"train_s": 12.0, "features_s": 3.0}}))
    assert set(METRICS) - set(found) == {"latency_ms"}
    assert set(found) - set(METRICS) == {f"recall_{name}" for name in CLASSES}
    assert found["test_accuracy"] == 0.7
    assert found["test_loss"] == pytest.approx(0.9)
    assert found["train_s"] == 15.0
    assert (found["num_params"], found["macs"], found["epochs_done"]) == (1000, 50_000, 5)
    # 4,000 images and 2 s an epoch, and 3 s for features before the first
    assert [found[f"{what}_to_50"] for what in ("epochs", "images", "seconds")] == [2, 8000, 7.0]
    assert [found[f"{what}_to_70"] for what in ("epochs", "images", "seconds")] == [4, 16_000, 11.0]
    assert [found[f"{what}_to_80"] for what in ("epochs", "images", "seconds")] == [None] * 3
    recalls = [found[f"recall_{name}"] for name in CLASSES]
    assert sum(recalls) / 5 == pytest.approx(found["recall_macro"]) == pytest.approx(0.7)


@pytest.mark.parametrize("how", ["waiting", "unfinished", "diverged", "E-OOM"])
def test_runs_without_results_have_no_values(tmp_path, how):
    found = measures(run_of(tmp_path, how))
    assert found["test_accuracy"] is None
    assert found["epochs_to_50"] is None


def test_epochs_of_an_unfinished_run_are_seen(tmp_path):
    found = measures(run_of(tmp_path, "unfinished", curves={("", 0): [0.4, 0.6]}))
    assert (found["epochs_to_50"], found["seconds_to_50"], found["images_to_50"]) == (2, 4.0, None)


@pytest.mark.parametrize(
    ("curve", "epoch"),
    [
        ([0.5, 0.6, 0.7, 0.704, 0.705], 3),  # 0.705 is no more than 0.005 above 0.700
        ([0.5, 0.6, 0.7, 0.704, 0.7051], 5),
        ([0.5, 0.503, 0.506, 0.509, 0.512], 5),  # small steps add up: 0.506 and 0.512
        ([0.7, 0.6, 0.5], 1),
        ([None, 0.5, None, 0.4], 2),
        ([None], None),
        ([], None),
    ],
)
def test_settled_is_when_the_best_rises_no_more(curve, epoch):
    rows = [{"epoch": k, "val_accuracy": None if v is None else v} for k, v in enumerate(curve, start=1)]
    # 0.7 + 0.005 is 0.705 in floating point as well
    assert settled_epoch(rows) == epoch


def test_latency_is_read_in_either_spelling(tmp_path):
    calls = {"p50": 2.0, "p90": 2.5, "p99": 3.0, "mean": 2.1}
    facts = {
        "a=1": {"latency": {"batch_1": {"calls": 100, "call_ms": calls}, "device": "cpu"}},
        "a=2": {"latency": {"p10_ms": 1.8, "p50_ms": 2.0, "p90_ms": 2.5}},
        "a=3": {"latency": None},
        "a=4": {"latency": {"calls": 100, "call_ms": calls}},
    }
    study = load_study(make_sweep(tmp_path, {name: [0.7] for name in (*facts, "a=5")}, facts=facts, predictions=False))
    assert [latency(study, name) for name in study.variants] == [(2.0, 2.0, 2.5), (2.0, 1.8, 2.5), None, (2.0, 2.0, 2.5), None]


def test_names_and_words():
    assert is_metric("test_accuracy")
    assert is_metric("recall_cat")
    assert is_metric("recall_cat", ["cat"])
    assert is_metric("recall_macro", ["cat"])
    assert not any(is_metric(*args) for args in (("recall_",), ("recall_dog", ["cat"]), ("accuracy",), ("",)))
    assert in_words("recall_cat") == "recall of cat"
    assert as_text("test_accuracy", 0.71234) == "71.23 %"
    assert as_text("macs", 1234567) == "1,234,567"
    assert as_text("num_params", 1234) == "1,234"
    assert as_difference("recall_cat", -0.01) == "-1.00 points"
    assert as_difference("f1_macro", 0.005, sign="") == "0.50 points"
    assert as_range("test_accuracy", Interval(0.69, 0.71)) == "69.00 to 71.00 %"
    assert as_range("test_ece", Interval(-0.01, 0.02), difference=True) == "-1.00 to +2.00 points"
    assert as_range("train_s", Interval(1.0, 2.0)) == "1 to 2"
    assert as_difference("train_s", 2.5) == "+2.5"
    assert as_difference("macs", -30_000) == "-30,000"
    better_low = ("test_loss", "test_ece", "train_s", "macs", "latency_ms", "epochs_to_70", "images_to_50", "seconds_to_90")
    assert all(map(lower_is_better, better_low))
    assert not any(map(lower_is_better, ("test_accuracy", "images_per_s", "f1_macro", "recall_cat", "val_accuracy")))
