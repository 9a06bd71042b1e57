"""Evidence: what a run's numbers rest on, small enough to commit, and the results table made from it.

``outputs/reference/NAME/`` holds a finished run without its checkpoints; the test predictions are kept as
label, predicted class and confidence, so that accuracy and confusion can be counted again. The README's
table is written from these folders and from the published numbers in the experiments' YAML, never typed.
"""

import io
import re
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from cifar_lab import storage
from cifar_lab.errors import CheckpointError, ConfigError
from cifar_lab.metrics import softmax
from cifar_lab.runs import is_place, without_seed
from cifar_lab.tables import conf_dir

REFERENCE = Path("outputs/reference")
PREDICTIONS = "test_predictions.npz"
SUMS = "SHA256SUMS"
"""Digests of all other files, as `sha256sum --check` reads them."""
_OF_ONE_MACHINE = ("hydra.run.dir=", "data.root=")
MARKS = ("<!-- results -->", "<!-- end of results -->")
_COPIED = (
    "result.json",
    "environment.json",
    "metrics.jsonl",
    "config.yaml",
    "overrides.txt",
    "curves.png",
    "confusion_matrix.png",
)
_PUBLISHED = re.compile(r"^# published: (?P<what>.+)$", re.MULTILINE)


@dataclass
class Row:
    """One line of the results table: the runs of one configuration, whatever their seeds."""

    names: list[str]
    results: list[dict[str, Any]]
    overrides: list[str]

    @property
    def experiment(self) -> str:
        """Which recipe it is; empty for none."""
        return next((o.partition("=")[2] for o in self.overrides if o.startswith("experiment=")), "")

    @property
    def mean_percent(self) -> float:
        """Test accuracy, mean over the runs."""
        return statistics.mean(100 * result["metrics"]["test"]["accuracy"] for result in self.results)

    @property
    def changed(self) -> list[str]:
        """What was overridden in it; seed and places aside."""
        keys = [(override, override.partition("=")[0]) for override in self.overrides]
        return [override for override, key in keys if key not in ("experiment", "seed") and not is_place(key)]


def keep(run: Path, name: str, where: Path = REFERENCE) -> Path:
    """Copy a finished run's evidence to ``where/name``, without the folders that it used on its machine.

    Args:
        run: Run folder.
        name: Of the evidence; an earlier one of this name is replaced.
        where: Parent folder.

    Raises:
        CheckpointError: The folder is no finished run.
        ConfigError: The name is not a plain folder name.
    """
    if not re.fullmatch(r"\w[\w.=,+-]*", name):
        raise ConfigError(f"--name {name}; must be letters, digits and . _ = , + -, and begin with a letter or digit")
    result = _result(run)
    missing = [file for file in ("config.yaml", "overrides.txt", "predictions.npz") if not (run / file).is_file()]
    if missing:
        raise CheckpointError(f"{run} has no {missing[0]}")
    files = {file: (run / file).read_bytes() for file in _COPIED if (run / file).is_file()}
    with np.load(run / "predictions.npz", allow_pickle=False) as saved:
        files[PREDICTIONS] = compact(saved["test_logits"], saved["test_labels"])
    words = [line for line in files["overrides.txt"].decode().splitlines() if not line.startswith(_OF_ONE_MACHINE)]
    files["config.yaml"] = _without_root(files["config.yaml"])
    files["overrides.txt"] = "".join(f"{word}\n" for word in words).encode()
    files["command.txt"] = f"cifar-lab train {' '.join(words)}\n".encode()
    files[SUMS] = "".join(f"{storage.sha256_bytes(files[file])}  {file}\n" for file in sorted(files)).encode()
    if result["metrics"]["test"]["accuracy"] != _accuracy(files[PREDICTIONS]):
        raise CheckpointError(f"{run}: result.json and predictions.npz do not belong together")
    with storage.FolderLock(where, wait=True):
        storage.remove_leftovers(where)
        storage.replace_folder(where / name, files)
    return where / name


def folders(where: Path = REFERENCE) -> list[Path]:
    """Those of evidence, by name; not what a killed ``keep`` left half made."""
    found = sorted(where.iterdir()) if where.is_dir() else []
    return [path for path in found if (path / "result.json").is_file() and not storage.is_leftover(path)]


def rows(where: Path = REFERENCE) -> list[Row]:
    """The evidence, seeds of one configuration on one machine together, in the order of the folders' names."""
    found: dict[tuple[str, str], Row] = {}
    for folder in folders(where):
        overrides = (folder / "overrides.txt").read_text().splitlines()
        plain = yaml.safe_load((folder / "config.yaml").read_text())
        result = _result(folder)
        row = found.setdefault((storage.digest(without_seed(plain)), _machine(result)), Row([], [], overrides))
        row.names.append(folder.name)
        row.results.append(result)
    return list(found.values())


def table(found: Iterable[Row]) -> str:
    """The results as a Markdown table."""
    head = "| recipe | changed | published | test accuracy | n | parameters | MACs | training | machine |"
    lines = [head, "|---|---|---|---|---|---|---|---|---|"]
    for row in found:
        accuracies = [100 * r["metrics"]["test"]["accuracy"] for r in row.results]
        spread = f" ± {statistics.stdev(accuracies):.2f}" if len(accuracies) > 1 else ""
        cost = row.results[0]["cost"]
        seconds = statistics.mean(r["cost"]["train_s"] + r["cost"].get("features_s", 0.0) for r in row.results)
        cells = [
            f"`{row.experiment}`" if row.experiment else f"`{row.results[0]['model']}`",
            " ".join(f"`{o}`" for o in row.changed) or "",
            published(row.experiment),
            f"{row.mean_percent:.2f} %{spread}",
            str(len(accuracies)),
            f"{cost['num_params']:,}",
            f"{cost['macs'] / 1e6:,.2f} M",
            f"{_epochs(row.results)} epochs, {_minutes(seconds)}",
            _machine(row.results[0]),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _epochs(results: Iterable[Mapping[str, Any]]) -> str:
    """How many, or from how many to how many where some stopped earlier than others."""
    counts = sorted({result["epochs_done"] for result in results})
    return str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"


def published(experiment: str) -> str:
    """What the write-up states, from the line ``# published: ...`` of the experiment's YAML; a dash for nothing."""
    path = conf_dir() / "experiment" / f"{experiment}.yaml"
    match = _PUBLISHED.search(path.read_text(encoding="utf-8")) if experiment and path.is_file() else None
    return match["what"] if match else "-"


def write_table(readme: Path, text: str) -> bool:
    """Put the table between the marks of a Markdown file.

    Returns:
        Whether the file changed.
    """
    if not readme.is_file():
        raise ConfigError(f"{readme}: no such file")
    old = readme.read_text(encoding="utf-8")
    begin, end = (old.find(mark) for mark in MARKS)
    if begin < 0 or end < begin:
        raise ConfigError(f"{readme} has no lines {MARKS[0]} and {MARKS[1]}")
    new = f"{old[: begin + len(MARKS[0])]}\n{text}\n{old[end:]}"
    if new != old:
        storage.write_text(readme, new)
    return new != old


def _result(folder: Path) -> dict[str, Any]:
    path = folder / "result.json"
    result: Mapping[str, Any] = storage.read_json(path) if path.is_file() else {}
    if result.get("status") != "done":
        raise CheckpointError(f"{folder} is no finished run", hint="name a folder below outputs/runs that holds a result.json")
    if result.get("test_openings") == 0:
        raise CheckpointError(
            f"{folder} was never tested: it is a trial of a search", hint="train its configuration as a run of its own"
        )
    return dict(result)


def _without_root(config: bytes) -> bytes:
    """config.yaml with the data's folder left to whoever reads it."""
    plain = yaml.safe_load(config)
    if plain["data"].get("root") is None:
        return config
    plain["data"]["root"] = None
    return yaml.safe_dump(plain, sort_keys=False, allow_unicode=True).encode()


def compact(logits: np.ndarray, labels: np.ndarray) -> bytes:
    """What evidence keeps of the test predictions.

    Args:
        logits: float32 [N, K].
        labels: int64 [N].

    Returns:
        npz with label and predicted class uint8 (uint16 above 256 classes) and confidence float16 [N].
    """
    confidence = softmax(logits).max(axis=1).astype(np.float16)
    kind = np.uint8 if logits.shape[1] <= 256 else np.uint16
    packed = io.BytesIO()
    arrays = {"labels": labels.astype(kind), "predicted": logits.argmax(axis=1).astype(kind), "confidence": confidence}
    np.savez_compressed(packed, allow_pickle=False, **arrays)
    return packed.getvalue()


def _accuracy(packed: bytes) -> float:
    with np.load(io.BytesIO(packed), allow_pickle=False) as saved:
        return float((saved["labels"] == saved["predicted"]).mean())


def _machine(result: Mapping[str, Any]) -> str:
    environment = result["environment"]
    threads = environment["threads"]
    name = environment.get("gpu", {}).get("name") or f"{environment['cpu']}, {threads} thread{'s' if threads > 1 else ''}"
    return f"{name}, {result['precision']}"


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
