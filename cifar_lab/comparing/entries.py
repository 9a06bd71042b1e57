"""What is compared: runs with names that tell them apart, seeds of one configuration together."""

import re
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cifar_lab import storage
from cifar_lab.differing import differing, words
from cifar_lab.errors import CheckpointError, ConfigError, LabError
from cifar_lab.runs import without_seed
from cifar_lab.saved import SavedRun, load_run
from cifar_lab.study.design import PLAN, read_plan

_LONGEST_LABEL = 60
_MAX_DIFFERING = 3
_MAX_ENTRIES = 24
"""As many lines as pictures have colors and dashes for."""


def _training_s(run: SavedRun) -> float | None:
    """Seconds of training with its validation, and of the features of a frozen network that it was trained on."""
    seconds = run.result["cost"].get("train_s")
    return None if seconds is None else seconds + before_s(run)


def before_s(run: SavedRun) -> float:
    """Seconds that went into features of a frozen network before the first epoch."""
    return run.result["cost"].get("features_s") or 0.0


def _latency_ms(run: SavedRun) -> float | None:
    """Median time of one call with one image."""
    latency = run.result["cost"].get("latency") or {}
    return latency.get("batch_1", {}).get("call_ms", {}).get("p50")


MEASURES: dict[str, Callable[[SavedRun], float | None]] = {
    "test_accuracy": lambda run: run.metrics["test"]["accuracy"],
    "precision_macro": lambda run: run.metrics["test"]["precision_macro"],
    "recall_macro": lambda run: run.metrics["test"]["recall_macro"],
    "f1_macro": lambda run: run.metrics["test"]["f1_macro"],
    "val_accuracy": lambda run: (run.metrics["val"] or {}).get("accuracy"),
    "train_s": _training_s,
    "epochs": lambda run: run.result["epochs_done"],
    "num_params": lambda run: run.result["cost"]["num_params"],
    "macs": lambda run: run.result["cost"]["macs"],
    "latency_ms": _latency_ms,
    "peak_memory_mib": lambda run: run.result["cost"].get("peak_memory_mib"),
}
"""What is read of every run; None where it was not measured."""


@dataclass(frozen=True, eq=False)
class Entry:
    """A run, or the runs of one configuration with several seeds.

    Args:
        label: What tells it from the others.
        runs: By seed.
    """

    label: str
    runs: tuple[SavedRun, ...]

    @property
    def seeds(self) -> list[int]:
        """Of the runs."""
        return [run.result["seed"] for run in self.runs]

    @property
    def validated(self) -> int:
        """How many of the runs measured a validation accuracy, without which no milestone can be seen."""
        return sum(any(row.get("val_accuracy") is not None for row in run.rows) for run in self.runs)

    @property
    def is_shared(self) -> bool:
        """Whether other runs had the device of one of them at the same time, which its times show."""
        return any(run.result["cost"].get("shared") for run in self.runs)

    def values(self, measure: str) -> list[float]:
        """A row of ``MEASURES`` run by run; empty where a run has none."""
        found = [MEASURES[measure](run) for run in self.runs]
        return [value for value in found if value is not None] if None not in found else []

    def mean(self, measure: str) -> float | None:
        """Mean over runs; None where a run has no value."""
        values = self.values(measure)
        return statistics.fmean(values) if values else None

    def sd(self, measure: str) -> float | None:
        """Standard deviation over runs (n - 1); None for a single run."""
        values = self.values(measure)
        return statistics.stdev(values) if len(values) > 1 else None


def split_sweep(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """What ``SWEEP/*`` means: the runs that the sweep has planned, without what else lies beside its plan.json.

    Where plan.json is none of the arguments, they were chosen one by one, and all are kept.

    Returns:
        The runs, and what was left out.

    Raises:
        CheckpointError: A plan.json is not one that this version reads.
    """
    planned = {path.resolve().parent: _planned(path) for path in map(Path, arguments) if path.name == PLAN and path.is_file()}
    kept, left_out = [], []
    for argument in arguments:
        place = Path(argument).resolve()
        names = planned.get(place.parent)
        (kept if names is None or place.name in names else left_out).append(argument)
    return kept, left_out


def _planned(path: Path) -> set[str]:
    try:
        return {job["name"] for job in read_plan(path.parent)["jobs"]}
    except (LabError, OSError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path} is no plan of a sweep", hint="name the folders of its runs one by one") from error


def load_entries(folders: Sequence[Path | str]) -> list[Entry]:
    """Open the runs and put those of one configuration, seed aside, together, in the order given.

    Where all are of one configuration, each stands for itself: then its seeds are what is compared.

    Raises:
        CheckpointError: A folder is no finished run, or its parts are of different ones.
        ConfigError: Fewer than two, more than can be told apart, or one of them twice.
    """
    places = [Path(folder).resolve() for folder in folders]
    if len(places) < 2:
        raise ConfigError("compare needs two runs or more", hint="`cifar-lab runs` lists what there is")
    twice = [str(folder) for folder, place in zip(folders, places, strict=True) if places.count(place) > 1]
    if twice:
        raise ConfigError(f"{twice[0]} is given twice")
    runs = [load_run(folder) for folder in folders]
    for run in runs:
        if (run.predicted() == run.labels()).mean() != run.metrics["test"]["accuracy"]:
            raise CheckpointError(f"{run.path}: result.json and the saved predictions do not belong together")
    groups: dict[str, list[SavedRun]] = {}
    for run in runs:
        groups.setdefault(storage.digest(without_seed(run.config)), []).append(run)
    if len(groups) == 1:
        _refuse_too_many(len(runs), "runs")
        return [Entry(label, (run,)) for label, run in zip(_labels_of_seeds(runs), runs, strict=True)]
    _refuse_too_many(len(groups), "configurations")
    parts = [sorted(group, key=lambda run: run.result["seed"]) for group in groups.values()]
    return [Entry(label, tuple(part)) for label, part in zip(_labels([part[0] for part in parts]), parts, strict=True)]


def _refuse_too_many(count: int, what: str) -> None:
    if count > _MAX_ENTRIES:
        raise ConfigError(
            f"{count} {what}; compare puts at most {_MAX_ENTRIES} side by side",
            hint="choose some: `cifar-lab runs --by-config --sort test.accuracy` orders them",
        )


def _labels_of_seeds(runs: Sequence[SavedRun]) -> list[str]:
    labels = [f"{run.result['model']}, seed {run.result['seed']}" for run in runs]
    return labels if len(set(labels)) == len(labels) else _folder_labels(runs)


def _labels(runs: Sequence[SavedRun]) -> list[str]:
    """The model's name; runs that share it also get the settings that tell them apart, or else their folder."""
    labels = []
    for run in runs:
        alike = [other for other in runs if other.result["model"] == run.result["model"]]
        unlike = differing([without_seed(other.config) for other in alike])[alike.index(run)]
        shown = words(unlike) if len(unlike) <= _MAX_DIFFERING else f"({run.path.name})"
        labels.append(f"{run.result['model']} {shown}".strip())
    usable = len(set(labels)) == len(labels) and all(len(label) <= _LONGEST_LABEL for label in labels)
    return labels if usable else _folder_labels(runs)


def _folder_labels(runs: Sequence[SavedRun]) -> list[str]:
    """Folder names, with as many parents as it takes to tell them apart."""
    parts = [run.path.resolve().parts for run in runs]
    for depth in range(1, max(map(len, parts)) + 1):
        labels = ["/".join(part[-depth:]) for part in parts]
        if len(set(labels)) == len(labels):
            break
    return labels


def default_name(folders: Sequence[Path | str]) -> str:
    """``A_vs_B``: a folder name; one that is too long or unsafe is cut and gets 8 hex digits of its digest."""
    full = "_vs_".join(Path(folder).resolve().name for folder in folders)
    safe = re.sub(r"[^A-Za-z0-9_.=,+\-]", "_", full)
    ambiguous = len({Path(folder).resolve().name for folder in folders}) < len(folders)
    if safe == full and len(safe) <= 100 and not ambiguous:
        return safe
    places = [str(Path(folder).resolve()) for folder in folders]
    return f"{safe[:90]}-{storage.digest(places)[:8]}"


def same_test_set(first: SavedRun, second: SavedRun) -> str:
    """Why the answers of two runs are not of the same test images; empty if they are.

    Equal digests settle it. With other training or validation images the digest differs; then the same data set with the
    same classes, labels and ids in the same order is the same test set, unless it is a person's folder, whose content
    only the digest knows.
    """
    if first.result["digests"]["data"] == second.result["digests"]["data"]:
        return ""
    one, two = first.result["data"], second.result["data"]
    if one["name"] != two["name"]:
        return f"{one['name']} and {two['name']}"
    if one["classes"] != two["classes"]:
        return f"{one['name']} with other classes"
    if one["name"] not in ("cifar10", "cifar100", "digits"):
        return f"two states of {one['name']} (digests {_short(first)} and {_short(second)})"
    if not np.array_equal(first.labels(), second.labels()):
        return f"other images of {one['name']} ({len(first.labels()):,} and {len(second.labels()):,}, labels differ)"
    ids = [run.ids() for run in (first, second) if run.has("test_ids")]
    if len(ids) == 2 and not np.array_equal(ids[0], ids[1]):
        return f"other images of {one['name']} (ids differ)"
    return ""


def check_same_test_set(entries: Sequence[Entry]) -> None:
    """Refuse runs that answered different test images.

    Raises:
        CheckpointError: Naming the two runs.
    """
    runs = [run for entry in entries for run in entry.runs]
    for run in runs[1:]:
        if reason := same_test_set(runs[0], run):
            raise CheckpointError(
                f"{runs[0].path} and {run.path} were tested on different images: {reason}",
                hint="--unpaired compares tables, curves and cost only, without tests of the answers",
            )


def _short(run: SavedRun) -> str:
    return run.result["digests"]["data"][:8]
