"""Every number about predictions against scikit-learn, torch, torchmetrics or a count by hand."""

import sys
import types

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from rig import heard
from sklearn import metrics as sk

from cifar_lab import metrics
from cifar_lab.errors import DivergedError
from cifar_lab.metrics import METRICS, cross_entropy, ece, log_softmax, nll, softmax, summarize, top5


def answers(count: int = 400, num_classes: int = 10, seed: int = 0, scale: float = 2.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits that know a little about their labels."""
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(count, num_classes, generator=generator)
    labels = torch.randint(num_classes, (count,), generator=generator)
    return logits + 1.5 * F.one_hot(labels, num_classes), labels


def names(num_classes: int) -> list[str]:
    return [f"class {i}" for i in range(num_classes)]


def ece_by_hand(probs: np.ndarray, labels: np.ndarray, bins: int = 15) -> float:
    """Guo's equation 3, image by image and bin by bin; bins are open below and closed above."""
    total = 0.0
    for b in range(bins):
        inside = [i for i in range(len(labels)) if b / bins < max(probs[i]) <= (b + 1) / bins]
        if inside:
            confidence = sum(max(probs[i]) for i in inside) / len(inside)
            right = sum(int(np.argmax(probs[i]) == labels[i]) for i in inside) / len(inside)
            total += len(inside) / len(labels) * abs(confidence - right)
    return total


@pytest.mark.parametrize("num_classes", [2, 3, 10, 100])
def test_summary_against_scikit_learn_and_torch(num_classes):
    logits, labels = answers(num_classes=num_classes)
    summary = summarize(logits, labels, names(num_classes))
    predicted, true = logits.argmax(1).numpy(), labels.numpy()
    assert set(summary) == {*METRICS, "loss", "per_class"}
    assert summary["accuracy"] == pytest.approx(sk.accuracy_score(true, predicted))
    expected = F.cross_entropy(logits.double(), labels).item()
    assert summary["nll"] == pytest.approx(expected, rel=1e-12)
    assert summary["loss"] == pytest.approx(expected, rel=1e-12)
    classes = range(num_classes)
    for average in ("macro", "weighted"):
        p, r, f, _ = sk.precision_recall_fscore_support(true, predicted, labels=classes, average=average, zero_division=0)
        shown = [summary[f"{name}_{average}"] for name in ("precision", "recall", "f1")]
        assert shown == pytest.approx([p, r, f])
    columns = sk.precision_recall_fscore_support(true, predicted, labels=classes, zero_division=0)
    for row, name, p, r, f, n in zip(summary["per_class"], names(num_classes), *columns, strict=True):
        assert row == {
            "name": name,
            "precision": pytest.approx(p),
            "recall": pytest.approx(r),
            "f1": pytest.approx(f),
            "support": n,
        }
    assert all(type(summary[name]) is float for name in ("loss", *METRICS))
    assert all(type(row["support"]) is int for row in summary["per_class"])


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5, 0.99])
def test_loss_has_the_label_smoothing_of_torch_and_nll_has_none(smoothing):
    logits, labels = answers()
    summary = summarize(logits, labels, names(10), label_smoothing=smoothing)
    assert summary["loss"] == pytest.approx(F.cross_entropy(logits.double(), labels, label_smoothing=smoothing).item(), rel=1e-12)
    assert summary["nll"] == pytest.approx(F.cross_entropy(logits.double(), labels).item(), rel=1e-12)


def test_extreme_logits_keep_their_loss():
    logits = torch.tensor([[0.0, 2000.0, -2000.0], [3e38, -3e38, 0.0], [1e-30, 0.0, -1e-30], [50.0, 0.0, 0.0]])
    labels = torch.tensor([2, 0, 1, 0])
    summary = summarize(logits, labels, names(3), label_smoothing=0.1)
    assert summary["nll"] == pytest.approx(F.cross_entropy(logits.double(), labels).item(), rel=1e-12)
    assert summary["nll"] > 1000  # where the probability itself is 0
    assert summary["loss"] == pytest.approx(F.cross_entropy(logits.double(), labels, label_smoothing=0.1).item(), rel=1e-12)
    assert all(np.isfinite(value) for key, value in summary.items() if key != "per_class")
    # A confident right answer has a small loss, which a float32 softmax would round to zero.
    sure = summarize(logits[3:], labels[3:], names(3))
    assert sure["nll"] == pytest.approx(2 * np.exp(-50.0), rel=1e-3)


def test_nll_of_probabilities():
    probs = np.array([[0.25, 0.75], [1.0, 0.0]])
    assert nll(probs, np.array([0, 0])) == pytest.approx(np.log(4) / 2)
    assert nll(probs, np.array([1, 1])) == pytest.approx((np.log(4 / 3) - np.log(np.finfo(np.float64).tiny)) / 2)


def test_softmax_against_torch_and_its_rows_sum_to_one():
    logits, _ = answers(scale=30.0)
    probs = softmax(logits)
    assert probs.dtype == np.float64
    np.testing.assert_allclose(probs, logits.double().softmax(1).numpy(), rtol=1e-12)
    np.testing.assert_allclose(
        log_softmax(logits.double().numpy()), logits.double().log_softmax(1).numpy(), rtol=1e-12, atol=1e-14
    )
    np.testing.assert_allclose(probs.sum(axis=1), 1.0, atol=1e-15)
    np.testing.assert_array_equal(probs, softmax(logits.numpy()))


@pytest.mark.parametrize("num_classes", [6, 10, 100])
def test_top5_against_torch_and_scikit_learn(num_classes):
    logits, labels = answers(num_classes=num_classes)
    probs = softmax(logits)
    by_torch = (torch.topk(logits, 5).indices == labels[:, None]).any(1).double().mean().item()
    assert 0 < by_torch < 1
    assert top5(probs, labels.numpy()) == by_torch
    assert top5(probs, labels.numpy()) == pytest.approx(sk.top_k_accuracy_score(labels, probs, k=5, labels=range(num_classes)))


@pytest.mark.parametrize("num_classes", [2, 4, 5])
def test_top5_of_five_classes_or_fewer_is_one(num_classes):
    logits, labels = answers(num_classes=num_classes)
    assert summarize(logits, labels, names(num_classes))["top5"] == 1.0


def test_equal_probabilities_count_in_the_order_of_the_classes():
    probs = np.full((10, 10), 0.1)
    labels = np.arange(10)
    assert metrics.accuracy(probs, labels) == 0.1  # argmax takes class 0
    assert top5(probs, labels) == 0.5  # classes 0 to 4


@pytest.mark.parametrize("scale", [0.3, 2.0, 8.0])
@pytest.mark.parametrize("num_classes", [2, 10])
def test_ece_against_a_slow_reference(num_classes, scale):
    logits, labels = answers(num_classes=num_classes, scale=scale)
    probs = softmax(logits)
    expected = ece_by_hand(probs, labels.numpy())
    assert expected > 0.01
    assert ece(probs, labels.numpy()) == pytest.approx(expected, rel=1e-12)


@pytest.mark.slow  # ten seconds of imports
@pytest.mark.parametrize("scale", [0.3, 2.0])
def test_ece_against_torchmetrics(scale):
    from torchmetrics.functional.classification import multiclass_calibration_error

    logits, labels = answers(count=5000, scale=scale)
    logits = logits.clamp(-7.0, 7.0)  # no confidence that its float32 arithmetic would round to one
    theirs = multiclass_calibration_error(logits.double().softmax(1), labels, num_classes=10, n_bins=15)
    assert ece(softmax(logits), labels.numpy()) == pytest.approx(theirs.item(), abs=1e-6)


def test_ece_by_hand_at_the_ends_of_the_bins():
    # Confidence 1 lies with 0.95 in the last bin: their errors of opposite sign cancel there.
    probs = np.array([[1.0, 0.0], [0.95, 0.05]])
    assert ece(probs, np.array([1, 0])) == pytest.approx(abs(1.95 - 1) / 2)
    # 0.6 is the upper end of its bin (8/15, 9/15], 0.61 lies in the next.
    probs = np.array([[0.6, 0.4], [0.61, 0.39]])
    assert ece(probs, np.array([1, 0])) == pytest.approx((0.6 + 0.39) / 2)
    assert ece(np.eye(3), np.arange(3)) == 0.0


def test_classes_that_never_occur_or_are_never_predicted_count_as_zero(recwarn):
    logits = torch.tensor([[5.0, 0, 0, 0], [5.0, 0, 0, 0], [0, 5.0, 0, 0], [0, 0, 5.0, 0]])
    labels = torch.tensor([0, 1, 1, 1])  # class 2 is predicted but never there, class 3 neither
    summary = summarize(logits, labels, ["a", "b", "c", "d"])
    rows = {row.pop("name"): row for row in summary["per_class"]}
    assert rows["a"] == {"precision": 0.5, "recall": 1.0, "f1": pytest.approx(2 / 3), "support": 1}
    assert rows["b"] == {"precision": 1.0, "recall": pytest.approx(1 / 3), "f1": 0.5, "support": 3}
    assert rows["c"] == rows["d"] == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 0}
    assert summary["recall_macro"] == pytest.approx((1 + 1 / 3) / 4)
    assert summary["precision_macro"] == pytest.approx(1.5 / 4)
    assert summary["f1_macro"] == pytest.approx((2 / 3 + 0.5) / 4)
    assert summary["recall_weighted"] == pytest.approx(summary["accuracy"]) == pytest.approx(0.5)
    assert summary["precision_weighted"] == pytest.approx((0.5 + 3 * 1.0) / 4)
    assert summary["f1_weighted"] == pytest.approx((2 / 3 + 3 * 0.5) / 4)
    assert not heard(recwarn)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_logits_that_are_not_finite_are_refused(value):
    logits, labels = answers(count=7)
    logits[2, 3] = logits[2, 4] = logits[5, 0] = value
    with pytest.raises(DivergedError, match="logits of 2 of 7 images are not finite") as caught:
        summarize(logits, labels, names(10))
    assert "optimizer.lr" in caught.value.hint
    assert caught.value.exit_code == 6


@pytest.mark.parametrize(
    ("logits", "labels", "text"),
    [
        (np.zeros((3, 2)), np.array([0, 1, 2]), "labels int64 from 0 to 2; must be 0 to 1"),
        (np.zeros((3, 2)), np.array([0, 1, -1]), "from -1 to 1"),
        (np.zeros((3, 2)), np.array([0.0, 1.0, 0.0]), "labels float64"),
        (np.zeros((3, 2)), np.array([0, 1]), r"logits \(3, 2\) and labels \(2,\)"),
        (np.zeros((0, 2)), np.zeros(0, dtype=int), "N >= 1"),
        (np.zeros((3, 1)), np.zeros(3, dtype=int), "K >= 2"),
        (np.zeros((3, 2, 2)), np.zeros(3, dtype=int), r"must be \[N, K\]"),
        (np.zeros((3, 3)), np.zeros(3, dtype=int), "2 class names for logits of 3 classes"),
    ],
)
def test_what_does_not_belong_together_is_refused(logits, labels, text):
    with pytest.raises(ValueError, match=text):
        summarize(logits, labels, ["a", "b"])


def test_tensors_and_arrays_give_the_same_and_stay_as_they_were():
    logits, labels = answers()
    before = logits.clone()
    from_arrays = summarize(logits.numpy(), labels.numpy(), names(10))
    assert summarize(logits, labels, names(10)) == from_arrays
    assert torch.equal(logits, before)


def test_a_row_added_to_the_table_is_computed_and_a_row_taken_away_is_not(monkeypatch):
    def brier(probs: np.ndarray, labels: np.ndarray) -> np.float32:
        return np.float32(((probs - np.eye(probs.shape[1])[labels]) ** 2).sum(axis=1).mean())

    module = types.ModuleType("lab_metrics_for_this_test")
    module.brier = brier
    module.half = lambda probs, labels: 0.5
    monkeypatch.setitem(sys.modules, module.__name__, module)
    logits, labels = answers()
    plain = summarize(logits, labels, names(10))
    more = summarize(logits, labels, names(10), metrics={**METRICS, "brier": f"{module.__name__}:brier"})
    one_hot = F.one_hot(labels, 10).double()
    assert more.pop("brier") == pytest.approx(((logits.double().softmax(1) - one_hot) ** 2).sum(1).mean().item())
    assert more == plain
    few = summarize(logits, labels, names(10), metrics={"accuracy": METRICS["accuracy"], "nll": f"{module.__name__}:half"})
    assert set(few) == {"loss", "accuracy", "nll", "per_class"}
    assert few["nll"] == 0.5  # another function under our name is used, not ours

    monkeypatch.setitem(METRICS, "brier", f"{module.__name__}:brier")
    assert "brier" in summarize(logits, labels, names(10))


def test_every_row_of_the_table_resolves_to_a_function_with_a_docstring():
    from pkgutil import resolve_name

    assert all(resolve_name(row).__doc__ and resolve_name(row).__name__ == name for name, row in METRICS.items())


def test_cross_entropy_of_a_uniform_answer_is_log_k_whatever_the_smoothing():
    log_probs = np.full((4, 8), -np.log(8))
    for smoothing in (0.0, 0.3):
        assert cross_entropy(log_probs, np.arange(4), smoothing) == pytest.approx(np.log(8))
