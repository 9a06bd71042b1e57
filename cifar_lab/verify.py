"""Committed evidence checked against itself: no GPU, no data, seconds.

Every file is what was kept (SHA-256). Every number that the files allow to be counted again is: accuracy and its
kin from the predictions, epochs and seconds from the rows, the digest from the configuration. The README's table and
the accuracies in the experiments' headers are those of the evidence.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cifar_lab import reference, runs, storage
from cifar_lab.config import flatten
from cifar_lab.errors import CheckpointError, LabError
from cifar_lab.saved import SavedRun, load_run
from cifar_lab.tables import conf_dir

_TOLERANCE = 1e-9
_OURS = re.compile(r"^# ours: (?P<what>.+)$", re.MULTILINE)
_PERCENT = re.compile(r"(\d+\.\d+) %")
_COUNTED = ("accuracy", "precision_macro", "recall_macro", "f1_macro", "precision_weighted", "recall_weighted", "f1_weighted")


@dataclass(frozen=True)
class Problem:
    """One thing that does not agree: where, and what is said against what is found."""

    file: str
    key: str
    text: str

    def line(self) -> str:
        """As it is printed."""
        return f"{self.file}: {self.key}{': ' if self.key else ''}{self.text}"


def verify(where: Path = reference.REFERENCE, readme: Path | None = None) -> tuple[list[str], list[Problem]]:
    """Check all evidence below a folder, and what is written of it.

    Args:
        where: Folder of evidence folders, or one of them.
        readme: Markdown file with the table of results; None: not looked at, and neither are the experiments' headers.

    Returns:
        Names of the folders that were checked, and what does not agree.

    Raises:
        CheckpointError: There is no evidence there.
    """
    folders = [where] if (where / "result.json").is_file() else reference.folders(where)
    if not folders:
        raise CheckpointError(f"{where}: no evidence is there", hint="`cifar-lab keep RUN --name NAME` puts a run's there")
    problems = [problem for folder in folders for problem in _folder_problems(folder)]
    if readme is not None and not problems:
        problems += [*_readme_problems(where, readme), *_header_problems(where)]
    return [folder.name for folder in folders], problems


def _folder_problems(folder: Path) -> Iterator[Problem]:
    """What does not agree within one folder: its files first, then its numbers."""
    changed = list(_changed_files(folder))
    yield from changed
    try:
        run = load_run(folder)
        for check in (_prediction_problems, _row_problems, _config_problems):
            yield from check(run)
    except (LabError, KeyError, TypeError, ValueError, IndexError) as error:
        what = error.what if isinstance(error, LabError) else f"{type(error).__name__}: {error}"
        yield Problem(str(folder), "", f"cannot be read: {what}")


def _changed_files(folder: Path) -> Iterator[Problem]:
    path = folder / reference.SUMS
    if not path.is_file():
        yield Problem(str(path), "", "is not there")
        return
    lines = [line.split(maxsplit=1) for line in path.read_text(encoding="utf-8").splitlines()]
    known = {line[1]: line[0] for line in lines if len(line) == 2}
    for name, digest in known.items():
        file = folder / name
        if not file.is_file():
            yield Problem(str(file), "", "is not there")
        elif storage.sha256_file(file) != digest:
            yield Problem(str(file), "", "is not the file that was kept (sha256 mismatch)")
    for file in sorted(folder.iterdir()):
        if file.name != reference.SUMS and file.name not in known:
            yield Problem(str(file), "", f"is not listed in {reference.SUMS}")


def _prediction_problems(run: SavedRun) -> Iterator[Problem]:
    """Test metrics that predicted classes alone decide, counted by scikit-learn."""
    from sklearn.metrics import accuracy_score, precision_recall_fscore_support

    labels, predicted = run.labels("test"), run.predicted("test")
    classes = np.arange(run.num_classes)
    counted = {"accuracy": float(accuracy_score(labels, predicted))}
    for average in ("macro", "weighted"):
        values = precision_recall_fscore_support(labels, predicted, labels=classes, average=average, zero_division=0)
        counted |= {f"{name}_{average}": float(v) for name, v in zip(("precision", "recall", "f1"), values[:3], strict=True)}
    test = run.metrics["test"]
    yield from _compare(run, {f"metrics.test.{key}": (test[key], counted[key]) for key in _COUNTED}, "its predictions")
    columns = np.array(precision_recall_fscore_support(labels, predicted, labels=classes, average=None, zero_division=0))
    for index, said in enumerate(test["per_class"]):
        found = dict(zip(("precision", "recall", "f1", "support"), columns[:, index].tolist(), strict=True))
        pairs = {f"metrics.test.per_class.{said['name']}.{key}": (said[key], value) for key, value in found.items()}
        yield from _compare(run, pairs, "its predictions")


def _row_problems(run: SavedRun) -> Iterator[Problem]:
    """What result.json says of the training against the rows."""
    result, rows = run.result, run.rows
    pairs = {
        "epochs_done": (result["epochs_done"], len(rows)),
        "cost.train_s": (result["cost"]["train_s"], sum(row["seconds"] for row in rows)),
    }
    best = result["best_epoch"]
    measured = rows[best - 1]["val_accuracy"] if best is not None and rows else None
    if measured is not None and run.config["train"]["tta"] == "none":
        pairs["metrics.val.accuracy"] = (run.metrics["val"]["accuracy"], measured)
    yield from _compare(run, pairs, "metrics.jsonl")


def _config_problems(run: SavedRun) -> Iterator[Problem]:
    """The configuration's digest, and the few values that result.json repeats."""
    said, found = run.result["digests"]["config"], storage.digest(runs.comparable(run.config))
    if said != found:
        yield Problem(str(run.path / "config.yaml"), "", f"its digest is {found[:8]}, result.json says {said[:8]}")
    flat = flatten(run.config)
    pairs = {"seed": "seed", "model": "model.name", "data.name": "data.name", "precision": "train.precision"}
    plain = flatten(run.result)
    for key, source in pairs.items():
        if plain[key] != flat[source]:
            yield Problem(str(run.path / "result.json"), key, f"{plain[key]}, config.yaml says {flat[source]}")


def _compare(run: SavedRun, pairs: Mapping[str, tuple[Any, Any]], source: str) -> Iterator[Problem]:
    for key, (said, found) in pairs.items():
        if abs(said - found) > _TOLERANCE * max(1.0, abs(found)):
            yield Problem(str(run.path / "result.json"), key, f"{said!r}, {source} say {found!r}")


def _readme_problems(where: Path, readme: Path) -> Iterator[Problem]:
    """The table of results, line by line."""
    if not readme.is_file():
        yield Problem(str(readme), "", "is not there")
        return
    page = readme.read_text(encoding="utf-8")
    begin, end = (page.find(mark) for mark in reference.MARKS)
    if begin < 0 or end < begin:
        yield Problem(str(readme), "", f"has no lines {reference.MARKS[0]} and {reference.MARKS[1]}")
        return
    text = page[begin + len(reference.MARKS[0]) : end].strip().splitlines()
    expected = reference.table(reference.rows(where)).splitlines()
    for said, made in zip(text, expected, strict=False):
        if said != made:
            yield Problem(str(readme), made.split("|")[1].strip(), f"the table says {said.strip()}; the evidence makes {made}")
    if len(text) != len(expected):
        yield Problem(str(readme), "", f"the table has {len(text)} lines, the evidence makes {len(expected)}")


def _header_problems(where: Path) -> Iterator[Problem]:
    """Each accuracy in an experiment's line ``# ours:`` must be that of some evidence of that experiment."""
    known: dict[str, set[str]] = {}
    for row in reference.rows(where):
        known.setdefault(row.experiment, set()).add(f"{row.mean_percent:.2f}")
    for path in sorted((conf_dir() / "experiment").glob("*.yaml")):
        match = _OURS.search(path.read_text(encoding="utf-8"))
        for said in _PERCENT.findall(match["what"]) if match else ():
            if said not in known.get(path.stem, set()):
                have = ", ".join(sorted(known.get(path.stem, set()))) or "nothing"
                yield Problem(str(Path("conf/experiment") / path.name), "# ours", f"{said} %, the evidence has {have}")
