"""Whether the model is as right as it says: reliability of its confidence, before and after temperature scaling."""

from functools import partial
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cifar_lab.analysis.figures import COLUMN, QUIET_COLOR, TRAIN_COLOR, VAL_COLOR, Drawing, headline
from cifar_lab.analysis.made import Made, Run
from cifar_lab.metrics import ECE_BINS, calibration_error, confidence_bins, cross_entropy, log_softmax, softmax

RANGE = (0.01, 100.0)
"""Temperatures that are looked at. A model without a mistake on its validation images has none that is best."""


def calibration(run: Run) -> Made:
    """Reliability diagram of the test set with ECE, and with the temperature that suits the validation images best."""
    right = run.predicted("test") == run.labels("test")
    before = reliability(run.confidence("test"), right)
    numbers: dict[str, Any] = {"bins": ECE_BINS, "before": before, "temperature": None, "after": None}
    reason = ""
    if not run.has_logits:
        # Its confidences are rounded, so that some fall into the bin beside their own.
        before["ece"] = run.result["metrics"]["test"]["ece"]
        reason = "the run's evidence has confidences, no logits"
    elif run.result["metrics"]["val"] is None:
        reason = "the run has no validation images to fit it on"
    if reason:
        return Made(
            numbers, {"calibration": partial(_layout, [("as trained", before)], run.name)}, left_out={"temperature": reason}
        )
    logits, labels = run.logits("val"), run.labels("val")
    temperature = fit_temperature(logits, labels)
    test = run.logits("test").astype(np.float64)
    after = reliability(softmax(test / temperature).max(axis=1), right)
    numbers |= {
        "temperature": temperature,
        "temperature_at_its_bound": temperature in RANGE,
        "fitted_on": f"{len(labels)} validation images, by their negative log-likelihood",
        "after": after,
        "val_nll": {"before": _nll(logits, labels), "after": _nll(logits / temperature, labels)},
        "test_nll": {"before": _nll(test, run.labels("test")), "after": _nll(test / temperature, run.labels("test"))},
    }
    panels = [("as trained", before), (f"at temperature {temperature:.3f}", after)]
    return Made(numbers, {"calibration": partial(_layout, panels, run.name)})


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The T by which logits have to be divided for the least mean negative log-likelihood.

    The likelihood of 1/T is concave, so its slope has at most one zero, which is looked for on a logarithmic scale within
    ``RANGE``; where it has none there, the better end of the range is returned.

    Args:
        logits: [N, K], of images that the model was not trained on.
        labels: int64 [N].

    Reference: Guo et al., 2017, arXiv:1706.04599, section 4.2.
    """
    from scipy.optimize import brentq

    logits = np.asarray(logits, dtype=np.float64)
    own = logits[np.arange(len(labels)), labels]

    def slope(log_temperature: float) -> float:
        """Of the negative log-likelihood with respect to 1/T."""
        return float(((softmax(logits * np.exp(-log_temperature)) * logits).sum(axis=1) - own).mean())

    low, high = np.log(RANGE)
    if slope(low) <= 0:  # a smaller temperature would be better still
        return RANGE[0]
    if slope(high) >= 0:
        return RANGE[1]
    return float(np.exp(brentq(slope, low, high, xtol=1e-10)))


def reliability(confidence: np.ndarray, right: np.ndarray) -> dict[str, Any]:
    """ECE and its bins.

    Args:
        confidence: float64 [N], of the predicted class.
        right: bool [N].

    Returns:
        ``ece``, mean ``confidence``, ``accuracy``, and ``bins``: those that hold any image, each with ``from``, ``to``
        (confidence), ``images``, mean ``confidence`` and ``accuracy``.
    """
    places = confidence_bins(confidence)
    edges = np.linspace(0.0, 1.0, ECE_BINS + 1)
    bins = [
        {
            "from": float(edges[place]),
            "to": float(edges[place + 1]),
            "images": int((places == place).sum()),
            "confidence": float(confidence[places == place].mean()),
            "accuracy": float(right[places == place].mean()),
        }
        for place in range(ECE_BINS)
        if (places == place).any()
    ]
    ece = calibration_error(confidence, right)
    return {"ece": ece, "confidence": float(confidence.mean()), "accuracy": float(right.mean()), "bins": bins}


def _nll(logits: np.ndarray, labels: np.ndarray) -> float:
    return cross_entropy(log_softmax(np.asarray(logits, dtype=np.float64)), labels)


def _layout(panels: list[tuple[str, dict[str, Any]]], run_name: str, column: bool) -> Drawing:
    """A column of two axes for each panel: accuracy over confidence, and how many images lie where."""
    count = sum(b["images"] for b in panels[0][1]["bins"])

    def draw(figure: Figure) -> None:
        headline(figure, run_name, f"reliability of the confidence on {count:,} test images")
        shape = (len(panels), 1) if column else (1, len(panels))
        parts = figure.subfigures(*shape, squeeze=False).ravel()
        for part, (title, values) in zip(parts, panels, strict=True):
            upper, lower = part.subplots(2, 1, sharex=True, height_ratios=[3, 1])
            _diagram(upper, title, values, column)
            centers = [(b["from"] + b["to"]) / 2 for b in values["bins"]]
            lower.bar(centers, [b["images"] / count * 100 for b in values["bins"]], width=0.9 / ECE_BINS, color=QUIET_COLOR)
            lower.set(xlabel="confidence", ylabel="images (%)", xlim=(0, 1))

    return (draw, COLUMN, 3.6 * len(panels) + 0.3) if column else (draw, 5.6 * len(panels), 6.0)


def _diagram(axes: Axes, title: str, values: dict[str, Any], column: bool) -> None:
    """Bars of accuracy, the line of perfect calibration and, from it to each bar, the gap that ECE adds up."""
    bins = values["bins"]
    centers = [(b["from"] + b["to"]) / 2 for b in bins]
    width = 0.9 / ECE_BINS
    axes.bar(centers, [b["accuracy"] for b in bins], width=width, color=TRAIN_COLOR, label="accuracy")
    low = [min(b["accuracy"], b["confidence"]) for b in bins]
    gaps = [abs(b["accuracy"] - b["confidence"]) for b in bins]
    axes.bar(
        centers, gaps, width=width, bottom=low, color="none", edgecolor=VAL_COLOR, hatch="////", label="gap to the confidence"
    )
    axes.plot([0, 1], [0, 1], color=QUIET_COLOR, linestyle="--", linewidth=1.2, label="as right as sure")
    axes.set(title=f"{title}: ECE {100 * values['ece']:.2f} points", ylabel="accuracy", ylim=(0, 1))
    axes.legend(loc="upper left", fontsize=6.5 if column else 9, frameon=True, framealpha=0.9, edgecolor="none")
