"""What is read of every run of a study: the columns of report.csv, with their units and which way is better."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from cifar_lab.analysis.convergence import MILESTONES, milestones
from cifar_lab.stats import Interval
from cifar_lab.study.design import Run, Study, Variant

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
FRACTIONS = frozenset({"test_accuracy", "val_accuracy", "test_ece", "f1_macro", "precision_macro", "recall_macro"})
"""Printed in percent, as are the recalls of classes."""

Sheet = Mapping[str, Mapping[str, float | None]]
"""Measures of every run by the run's name."""


def measures(run: Run) -> dict[str, float | None]:
    """Every column of ``METRICS`` that runs have, and the recall of each class; None where it was not measured.

    Accuracies, recalls and calibration errors are fractions. ``train_s`` counts the training with its validation and the
    features of a frozen network that it was trained on. Milestones are those of the epochs that are there, whether the run
    has ended or not; None is then no result yet.
    """
    result = run.result
    scores = result.get("metrics") or {}
    test, val = scores.get("test") or {}, scores.get("val") or {}
    cost = result.get("cost") or {}
    features_s = cost.get("features_s") or 0.0
    train_s = cost.get("train_s")
    found = {
        "test_accuracy": test.get("accuracy"),
        "val_accuracy": val.get("accuracy"),
        "test_loss": test.get("loss"),
        "test_ece": test.get("ece"),
        **{key: test.get(key) for key in ("f1_macro", "precision_macro", "recall_macro")},
        **{RECALL + row["name"]: row["recall"] for row in test.get("per_class") or []},
        "train_s": None if train_s is None else train_s + features_s,
        **{key: cost.get(key) for key in ("images_per_s", "peak_memory_mib", "num_params", "macs")},
        "best_epoch": result.get("best_epoch"),
        "epochs_done": result.get("epochs_done"),
        "settled_epoch": settled_epoch(run.rows),
    }
    return found | _reached(run, features_s)


def read_measures(study: Study) -> dict[str, dict[str, float | None]]:
    """Measures of every run by its name, read once for all that is made of them."""
    return {run.name: measures(run) for run in study.runs}


def settled_epoch(rows: Sequence[Mapping[str, Any]], margin: float = SETTLED) -> int | None:
    """The last epoch at which the best validation accuracy stood more than a margin above where it last did so.

    From there on it rose by no more than the margin in all. The first validation counts as such an epoch.

    Args:
        rows: Of metrics.jsonl.
        margin: A fraction.

    Returns:
        None where nothing was validated.
    """
    settled, reference = None, -float("inf")
    for row in rows:
        accuracy = row.get("val_accuracy")
        if accuracy is not None and accuracy > reference + margin:
            settled, reference = row["epoch"], accuracy
    return settled


def validates(run: Run) -> bool:
    """Whether a run measured validation accuracies, without which no milestone can be seen."""
    return any(row.get("val_accuracy") is not None for row in run.rows)


def reached(variant: Variant, metric: str, sheet: Sheet) -> tuple[int, int]:
    """In how many finished runs with validations a milestone was reached, and how many there are."""
    runs = [run for run in variant.done.values() if validates(run)]
    return sum(sheet[run.name].get(metric) is not None for run in runs), len(runs)


def is_shared(run: Run) -> bool:
    """Whether another run had the same device for some of the time, which its seconds show."""
    return bool((run.result.get("cost") or {}).get("shared"))


def is_counted(metric: str, *sides: Iterable[float]) -> bool:
    """Whether a metric was counted and came out the same in all runs of each side, so that nothing is left to chance."""
    return metric in COUNTED and all(len(set(side)) == 1 for side in sides)


def latency(study: Study, variant: str) -> tuple[float, float, float] | None:
    """Milliseconds for one image, as measured alone after the sweep.

    Returns:
        The median of its calls and their spread, from the 10 % quantile (where that was not kept, the median) to the 90 %
        quantile; None where nothing was measured.
    """
    found = (study.facts.get(variant) or {}).get("latency") or {}
    found = found.get("batch_1", found)
    calls = found.get("call_ms") or {key.removesuffix("_ms"): value for key, value in found.items() if key.startswith("p")}
    middle = calls.get("p50")
    if middle is None:
        return None
    return middle, calls.get("p10", middle), calls.get("p90", middle)


def is_metric(name: str, classes: Sequence[str] = ()) -> bool:
    """Whether a column is called so; where the classes are not known, any recall may be."""
    known_class = name.startswith(RECALL) and (not classes or name.removeprefix(RECALL) in classes)
    return name in METRICS or (known_class and name != RECALL)


def classes_of(study: Study) -> list[str]:
    """Names of the classes, from the first run that has them; empty before there is one."""
    return next((names for run in study.runs if (names := classes_of_run(run))), [])


def classes_of_run(run: Run) -> list[str]:
    """Names of the classes of its data; empty where it does not say."""
    return list((run.result.get("data") or {}).get("classes") or [])


def lower_is_better(metric: str) -> bool:
    """Which way a metric is better; the word "better" is a matter of taste for epochs, where fewer are."""
    return metric in LOWER_IS_BETTER


def in_words(metric: str) -> str:
    """``test accuracy`` for ``test_accuracy``, ``recall of cat`` for ``recall_cat``."""
    return METRICS.get(metric) or f"recall of {metric.removeprefix(RECALL)}"


def as_text(metric: str, value: float) -> str:
    """A value as a person reads it: fractions in percent."""
    return f"{100 * value:.2f} %" if is_fraction(metric) else _number(value, "")


def as_difference(metric: str, value: float, *, sign: str = "+") -> str:
    """The same of a difference: of fractions in points; without a sign for a margin (``sign=""``)."""
    return f"{100 * value:{sign}.2f} points" if is_fraction(metric) else _number(value, sign)


def as_range(metric: str, ends: Interval, *, difference: bool = False) -> str:
    """``+0.10 to +0.30 points``, ``69.00 to 71.00 %``: the unit once."""
    low, high = (as_difference(metric, end) if difference else as_text(metric, end) for end in ends)
    return f"{low.partition(' ')[0]} to {high}"


def is_fraction(metric: str) -> bool:
    """Whether a metric is 0 to 1 and printed in percent."""
    return metric in FRACTIONS or metric.startswith(RECALL)


def _number(value: float, sign: str) -> str:
    """Four digits, and of large numbers all before the point."""
    return f"{value:{sign},.0f}" if abs(value) >= 1000 else f"{value:{sign}.4g}"


def _reached(run: Run, before_s: float) -> dict[str, float | None]:
    """Epochs, images and seconds until each validation accuracy."""
    rows = [row for row in run.rows if "epoch" in row and "seconds" in row]
    images = ((run.result.get("data") or {}).get("images") or {}).get("train")
    found: dict[str, float | None] = {}
    for (percent, _), one in zip(_REACHED, milestones(rows, images=images or 0, before_s=before_s), strict=True):
        found[f"epochs_to_{percent}"] = one["epoch"]
        found[f"images_to_{percent}"] = one["images"] if images else None
        found[f"seconds_to_{percent}"] = one["seconds"]
    return found
