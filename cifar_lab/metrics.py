"""Numbers about predictions: pure functions of (probs float64 [N, K] with rows that sum to one, labels int64 [N]).

``METRICS`` is the table: a row ``name -> "module:function"`` puts that name into the metrics of
every split. ``summarize`` starts from logits, because a float32 softmax rounds confident rows
to exactly one. The libraries are imported where they are used: the table is read for listings.
"""

from collections.abc import Mapping, Sequence
from pkgutil import resolve_name
from typing import Any

import numpy as np

from cifar_lab.errors import DivergedError

METRICS: dict[str, str] = {
    "accuracy": "cifar_lab.metrics:accuracy",
    "top5": "cifar_lab.metrics:top5",
    "nll": "cifar_lab.metrics:nll",
    "ece": "cifar_lab.metrics:ece",
    "precision_macro": "cifar_lab.metrics:precision_macro",
    "recall_macro": "cifar_lab.metrics:recall_macro",
    "f1_macro": "cifar_lab.metrics:f1_macro",
    "precision_weighted": "cifar_lab.metrics:precision_weighted",
    "recall_weighted": "cifar_lab.metrics:recall_weighted",
    "f1_weighted": "cifar_lab.metrics:f1_weighted",
}

ECE_BINS = 15
_NLL = "cifar_lab.metrics:nll"


def summarize(
    logits: Any,
    labels: Any,
    class_names: Sequence[str],
    *,
    label_smoothing: float = 0.0,
    metrics: Mapping[str, str] = METRICS,
) -> dict[str, Any]:
    """Everything that result.json says about one split.

    Args:
        logits: float32 [N, K], tensor on the CPU or array.
        labels: int64 [N], 0 to K - 1.
        class_names: K names, in the order of the labels.
        label_smoothing: Share of the target spread over all classes, as in training; only ``loss`` sees it.
        metrics: Table of metrics, name -> "module:function".

    Returns:
        ``loss`` (mean cross-entropy with label smoothing), one float per row of ``metrics``,
        and ``per_class``: a list of name, precision, recall, f1 and support.

    Raises:
        DivergedError: Where a logit is not finite: nothing true can be said about such a model.
    """
    logits, labels = _checked(logits, labels)
    if len(class_names) != logits.shape[1]:
        raise ValueError(f"{len(class_names)} class names for logits of {logits.shape[1]} classes")
    log_probs, probs = log_softmax(logits), softmax(logits)
    summary: dict[str, Any] = {"loss": cross_entropy(log_probs, labels, label_smoothing)}
    for name, row in metrics.items():
        # From the logarithm itself: a probability below 1e-308 would round to nothing and its loss with it.
        summary[name] = cross_entropy(log_probs, labels) if row == _NLL else float(resolve_name(row)(probs, labels))
    summary["per_class"] = per_class(probs, labels, class_names)
    return summary


def _checked(logits: Any, labels: Any) -> tuple[np.ndarray, np.ndarray]:
    """Both as arrays, logits in float64; refused when they do not belong together."""
    logits, labels = np.asarray(logits, dtype=np.float64), np.asarray(labels)
    if logits.ndim != 2 or labels.shape != logits.shape[:1] or len(labels) == 0 or logits.shape[1] < 2:
        raise ValueError(f"logits {logits.shape} and labels {labels.shape}; must be [N, K] and [N] with N >= 1 and K >= 2")
    if not np.issubdtype(labels.dtype, np.integer) or labels.min() < 0 or labels.max() >= logits.shape[1]:
        raise ValueError(f"labels {labels.dtype} from {labels.min()} to {labels.max()}; must be 0 to {logits.shape[1] - 1}")
    broken = int((~np.isfinite(logits)).any(axis=1).sum())
    if broken:
        raise DivergedError(f"logits of {broken} of {len(logits)} images are not finite", hint="try a lower optimizer.lr")
    return logits, labels


def softmax(logits: Any) -> np.ndarray:
    """What ``logits`` [N, K] say, as every metric takes it: float64 [N, K], rows that sum to one.

    Args:
        logits: Tensor on the CPU or array, finite.
    """
    probs = np.exp(log_softmax(np.asarray(logits, dtype=np.float64)))
    return probs / probs.sum(axis=1, keepdims=True)


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Logarithm of the softmax over classes; float64 [N, K] in and out."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def cross_entropy(log_probs: np.ndarray, labels: np.ndarray, label_smoothing: float = 0.0) -> float:
    """Mean cross-entropy against targets ``(1 - s) * one_hot + s / K``, as torch defines label smoothing."""
    own = -log_probs[np.arange(len(labels)), labels].mean()
    return float((1 - label_smoothing) * own - label_smoothing * log_probs.mean())


def accuracy(probs: np.ndarray, labels: np.ndarray) -> float:
    """Share of images whose most probable class is the true one; of equal classes the first counts, as in argmax."""
    return float((probs.argmax(axis=1) == labels).mean())


def top5(probs: np.ndarray, labels: np.ndarray) -> float:
    """Share of images whose true class is among the five most probable; 1 with five classes or fewer."""
    own = probs[np.arange(len(labels)), labels][:, None]
    earlier = np.arange(probs.shape[1])[None, :] < labels[:, None]
    rank = ((probs > own) | ((probs == own) & earlier)).sum(axis=1)
    return float((rank < 5).mean())


def nll(probs: np.ndarray, labels: np.ndarray) -> float:
    """Mean negative logarithm of the true class's probability, in nats; a probability of 0 counts as 2.2e-308."""
    own = probs[np.arange(len(labels)), labels]
    return float(-np.log(np.maximum(own, np.finfo(np.float64).tiny)).mean())


def ece(probs: np.ndarray, labels: np.ndarray) -> float:
    """Expected calibration error: mean distance of confidence and accuracy over 15 equally wide bins of confidence.

    A bin holds its upper end, as in the paper, so that a confidence of exactly 1 lies in the last one. torchmetrics
    gives such a confidence a bin of its own, works in float32, and takes longer to import than a short run to train.

    Reference: Guo et al., 2017, arXiv:1706.04599, equation 3.
    """
    confidence = probs.max(axis=1)
    return calibration_error(confidence, probs.argmax(axis=1) == labels)


def calibration_error(confidence: np.ndarray, right: np.ndarray) -> float:
    """``ece`` of confidences [N] in 0 to 1 and of whether the answers were right, bool [N]."""
    gaps = np.bincount(confidence_bins(confidence), weights=confidence - right)
    return float(np.abs(gaps).sum() / len(right))


def confidence_bins(confidence: np.ndarray) -> np.ndarray:
    """Which of the 15 bins of ``ece`` each confidence [N] falls into; int64 [N]."""
    return np.digitize(confidence, np.linspace(0.0, 1.0, ECE_BINS + 1)[1:-1], right=True)


def precision_macro(probs: np.ndarray, labels: np.ndarray) -> float:
    """Plain mean over all K classes of the share of right ones among those called so."""
    return _averaged(probs, labels, "macro")[0]


def recall_macro(probs: np.ndarray, labels: np.ndarray) -> float:
    """Plain mean over all K classes of the share that was found (balanced accuracy where every class occurs)."""
    return _averaged(probs, labels, "macro")[1]


def f1_macro(probs: np.ndarray, labels: np.ndarray) -> float:
    """Plain mean over all K classes of the harmonic mean of precision and recall."""
    return _averaged(probs, labels, "macro")[2]


def precision_weighted(probs: np.ndarray, labels: np.ndarray) -> float:
    """Precision averaged over classes by how often they occur."""
    return _averaged(probs, labels, "weighted")[0]


def recall_weighted(probs: np.ndarray, labels: np.ndarray) -> float:
    """Recall averaged over classes by how often they occur; equals accuracy."""
    return _averaged(probs, labels, "weighted")[1]


def f1_weighted(probs: np.ndarray, labels: np.ndarray) -> float:
    """F1 averaged over classes by how often they occur."""
    return _averaged(probs, labels, "weighted")[2]


def per_class(probs: np.ndarray, labels: np.ndarray, class_names: Sequence[str]) -> list[dict[str, Any]]:
    """Name, precision, recall, f1 and support (images of that class) of every class, in the order of the labels."""
    columns = _averaged(probs, labels, None)
    return [
        {"name": str(name), "precision": float(p), "recall": float(r), "f1": float(f), "support": int(n)}
        for name, p, r, f, n in zip(class_names, *columns, strict=True)
    ]


def _averaged(probs: np.ndarray, labels: np.ndarray, average: Any) -> tuple[Any, ...]:
    """Precision, recall, F1 and support by scikit-learn; a class that never occurs, or is never predicted, has 0."""
    from sklearn.metrics import precision_recall_fscore_support

    classes = np.arange(probs.shape[1])
    return precision_recall_fscore_support(labels, probs.argmax(axis=1), labels=classes, average=average, zero_division=0)
