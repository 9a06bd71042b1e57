"""What is read of every run of a study: the columns of report.csv, with their units and which way is better."""

from collections.abc import Mapping, Sequence
from typing import Any

from cifar_lab.analysis.convergence import MILESTONES, milestones
from cifar_lab.study.design import Run, Study

SETTLED = 0.005
"""A run has settled once its best validation accuracy rises by no more than this any more."""
RECALL = "recall_"
"""``recall_cat`` is the recall of the class cat; what follows the prefix is a class of the data, or ``macro``."""
_REACHED = [(round(100 * share), share) for share in MILESTONES]

METRICS: dict[str, str] = {
    "test_accuracy": "test accuracy",
    "val_accuracy": "validation accuracy",
    "test_loss": "test loss",
    "test_ece": "expected calibration error on test images",
    "f1_macro": "macro F1",
    "precision_macro": "macro precision",
    "recall_macro": "macro recall",
    "train_s": "seconds of training",
    "images_per_s": "training images per second",
    "peak_memory_mib": "peak memory in MiB",
    "num_params": "parameters",
    "macs": "multiply-adds of one image",
    "latency_ms": "milliseconds for one image",
    "best_epoch": "epoch of the best validation",
    "epochs_done": "epochs",
    "settled_epoch": "epoch at which training had settled",
    **{f"epochs_to_{percent}": f"epochs to {percent} % validation accuracy" for percent, _ in _REACHED},
    **{f"images_to_{percent}": f"training images to {percent} % validation accuracy" for percent, _ in _REACHED},
    **{f"seconds_to_{percent}": f"seconds to {percent} % validation accuracy" for percent, _ in _REACHED},
}
"""Names and words; ``recall_<class>`` comes on top (see ``is_metric``)."""
REACHING = frozenset(name for name in METRICS if "_to_" in name)
"""None says that a run never got there, which is a result."""
FACTS_ONLY = frozenset({"latency_ms"})
"""Measured once a variant, outside its runs."""
COUNTED = frozenset({"num_params", "macs"})
"""Follow from the configuration: the same in every run of a variant."""
TIMED = frozenset({"train_s", "images_per_s", *(name for name in METRICS if name.startswith("seconds_to_"))})
"""Say nothing where runs shared a device."""
LOWER_IS_BETTER = (
    frozenset({"test_loss", "test_ece", "train_s", "peak_memory_mib", "latency_ms", "best_epoch", "epochs_done", "settled_epoch"})
    | COUNTED
    | REACHING
)
