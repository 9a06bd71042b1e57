"""Reliability and temperature against torchmetrics, scipy, a slow loop and a closed form."""

import json

import numpy as np
import pytest
import torch
from fake_run import FakeRun
from scipy.optimize import minimize_scalar
from torchmetrics.functional.classification import multiclass_calibration_error

from cifar_lab.analysis.calibration import RANGE, calibration, fit_temperature, reliability
from cifar_lab.metrics import softmax


def slow_nll(logits: np.ndarray, labels: np.ndarray, temperature: float) -> float:
    """By torch, which knows nothing of ours."""
    scaled = torch.from_numpy(logits.astype(np.float64) / temperature)
    return float(torch.nn.functional.cross_entropy(scaled, torch.from_numpy(labels)))


def test_the_ece_of_evidence_is_the_one_that_was_measured():
    """Rounded to float16, some of 20,000 confidences fall into the bin beside their own."""
    run = FakeRun(count=20_000, evidence=True, sharpness=2.5)
    logits, labels = (torch.from_numpy(values) for values in run._answers["test"])
    measured = multiclass_calibration_error(logits.double().softmax(1), labels, 10, n_bins=15).item()
    assert calibration(run).numbers["before"]["ece"] == pytest.approx(measured, abs=1e-6)
    rounded = reliability(run.confidence("test"), run.predicted("test") == run.labels("test"))
    assert rounded["ece"] != pytest.approx(measured, abs=1e-4)


@pytest.mark.parametrize("sharpness", [0.3, 1.0, 4.0])
@pytest.mark.parametrize("num_classes", [2, 10])
def test_the_temperature_is_the_one_a_minimizer_finds(sharpness, num_classes):
    run = FakeRun(num_classes, sharpness=sharpness)
    logits, labels = run.logits("val"), run.labels("val")
    found = minimize_scalar(
        lambda log_t: slow_nll(logits, labels, float(np.exp(log_t))),
        bounds=np.log(RANGE),
        method="bounded",
        options={"xatol": 1e-9},
    )
    assert fit_temperature(logits, labels) == pytest.approx(np.exp(found.x), rel=1e-4)


def test_two_classes_at_one_distance_have_a_closed_form():
    # 90 of 100 right with logits (a, 0): the probability of the larger is best at 0.9, so a / T = log 9.
    labels = np.array([0] * 90 + [1] * 10)
    logits = np.tile([5.0, 0.0], (100, 1))
    assert fit_temperature(logits, labels) == pytest.approx(5.0 / np.log(9.0), rel=1e-6)


def test_without_a_mistake_or_worse_than_chance_an_end_of_the_range_is_best():
    logits = 5.0 * np.eye(3)[[0, 1, 2, 0]]
    assert fit_temperature(logits, np.array([0, 1, 2, 0])) == RANGE[0]
    assert fit_temperature(logits, np.array([1, 2, 0, 1])) == RANGE[1]


def test_bins_and_ece_are_those_of_a_slow_loop_and_of_torchmetrics():
    run = FakeRun(10, sharpness=2.0)
    probs, labels = softmax(run.logits("test")), run.labels("test")
    confidence, right = probs.max(1), probs.argmax(1) == labels
    found = reliability(confidence, right)
    ece, bins = 0.0, []
    for k in range(15):
        inside = [i for i in range(len(labels)) if k / 15 < confidence[i] <= (k + 1) / 15]
        if inside:
            sure, good = np.mean([confidence[i] for i in inside]), np.mean([right[i] for i in inside])
            ece += len(inside) / len(labels) * abs(sure - good)
            bins.append((k / 15, len(inside), sure, good))
    assert found["ece"] == pytest.approx(ece, abs=1e-12)
    assert [(b["from"], b["images"], b["confidence"], b["accuracy"]) for b in found["bins"]] == [pytest.approx(b) for b in bins]
    theirs = multiclass_calibration_error(torch.from_numpy(probs), torch.from_numpy(labels), 10, n_bins=15)
    assert found["ece"] == pytest.approx(float(theirs), abs=1e-6)
    assert found["ece"] == pytest.approx(run.result["metrics"]["test"]["ece"], abs=1e-12)


def test_validation_chooses_the_temperature_and_the_test_set_is_measured_with_it():
    run = FakeRun(10, count=2000, sharpness=4.0)
    made = calibration(run).numbers
    assert made["temperature"] == fit_temperature(run.logits("val"), run.labels("val"))
    cooled = torch.softmax(torch.from_numpy(run.logits("test").astype(np.float64)) / made["temperature"], 1)
    theirs = multiclass_calibration_error(cooled, torch.from_numpy(run.labels("test")), 10, n_bins=15)
    assert made["after"]["ece"] == pytest.approx(float(theirs), abs=1e-6)
    assert made["after"]["ece"] < made["before"]["ece"] / 3
    assert made["after"]["accuracy"] == made["before"]["accuracy"], "a temperature changes no answer"
    for split in ("val", "test"):
        for when, temperature in (("before", 1.0), ("after", made["temperature"])):
            expected = slow_nll(run.logits(split), run.labels(split), temperature)
            assert made[f"{split}_nll"][when] == pytest.approx(expected, rel=1e-6)
    json.dumps(made, allow_nan=False)


@pytest.mark.parametrize(("run", "why"), [(FakeRun(evidence=True), "no logits"), (FakeRun(val=False), "no validation images")])
def test_without_validation_logits_the_temperature_is_left_out_with_the_reason(run, why):
    made = calibration(run)
    assert made.numbers["temperature"] is None
    assert made.numbers["after"] is None
    assert made.numbers["before"]["ece"] == pytest.approx(run.result["metrics"]["test"]["ece"], abs=1e-12)
    assert why in made.left_out["temperature"]
