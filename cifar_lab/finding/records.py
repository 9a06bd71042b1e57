"""One record per run folder, whatever state it is in; files are read when they are asked for."""

import os
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from cifar_lab import storage
from cifar_lab.config import flatten
from cifar_lab.errors import CheckpointError, DataError
from cifar_lab.runs import without_seed

MISSING = object()
"""What ``Record.value`` gives for a key that the run has not."""

_SIGNS = ("metrics.jsonl", "digests.json", "run.log")
_OWN = {"model": "model", "seed": "seed", "device": "device", "precision": "precision", "best_epoch": "best_epoch"}
# libyaml's parser takes 1 ms for a configuration, the one in Python 11 ms: too long for hundreds of runs.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class Record:
    """A run folder, finished or not.

    Args:
        path: The folder.
    """

    def __init__(self, path: Path):
        self.path = path
        self.problem = ""
        """Why it is damaged; empty if it is not, as far as has been read."""
        self.result: dict[str, Any] = {}
        if (path / "result.json").exists():
            self._read_result()

    @property
    def status(self) -> str:
        """``done``, ``pruned``, ``failed``, ``diverged``, ``interrupted``; ``unfinished``: runs or was killed; ``damaged``."""
        return "damaged" if self.problem else self.result.get("status", "unfinished")

    @cached_property
    def config(self) -> dict[str, Any]:
        """config.yaml with dotted keys; empty, and the run damaged, where it cannot be read."""
        path = self.path / "config.yaml"
        try:
            loader = _LOADER(path.read_bytes())
            try:
                plain = loader.get_single_data()
            finally:
                loader.dispose()
        except (OSError, yaml.YAMLError, ValueError) as error:
            self._damaged(f"config.yaml cannot be read: {' '.join(str(error).split())[:80]}")
            return {}
        if not isinstance(plain, dict) or not isinstance(plain.get("model"), dict):
            self._damaged("config.yaml is no configuration of cifar-lab")
            return {}
        return flatten(plain)

    @cached_property
    def settings(self) -> dict[str, Any]:
        """What decides what is computed, without the seed."""
        return without_seed(self.config)

    @cached_property
    def experiment(self) -> str | None:
        """The recipe that the person named."""
        try:
            lines = (self.path / "overrides.txt").read_text(encoding="utf-8").splitlines()
        except (OSError, ValueError):
            return None
        return next((line.partition("=")[2] for line in lines if line.startswith("experiment=")), None)

    def value(self, key: str) -> Any:
        """A key's value: of the run (``status``, ``seed``), measured (``test.accuracy``, ``cost.macs``), or of its configuration.

        A group such as ``optimizer`` is the name of its component.

        Returns:
            ``MISSING`` where the run has no such key.
        """
        if key in ("status", "folder"):
            return self.status if key == "status" else str(self.path)
        if self.problem:
            return MISSING
        if key == "experiment":
            return self.experiment
        if key in _OWN and key in self.result:
            return self.result[key]
        if key == "data" and isinstance(self.result.get("data"), dict):
            return self.result["data"].get("name")
        if key in self.measured:
            return self.measured[key]
        found = self.config.get(f"{key}.name", self.config.get(key, MISSING))
        return MISSING if self.problem else found

    @cached_property
    def measured(self) -> dict[str, Any]:
        """Numbers of result.json with dotted keys: ``test.accuracy``, ``cost.train_s``, ``epochs``."""
        metrics = self.result.get("metrics") or {}
        flat: dict[str, Any] = {}
        for split in ("train", "val", "test"):
            part = metrics.get(split)
            if isinstance(part, dict):
                flat.update({f"{split}.{name}": value for name, value in part.items() if not isinstance(value, list)})
        cost = self.result.get("cost")
        flat.update(flatten(cost, "cost.") if isinstance(cost, dict) else {})
        flat.update(
            {new: self.result[old] for new, old in (("epochs", "epochs_done"), ("seconds", "seconds")) if old in self.result}
        )
        return flat

    def keys(self) -> set[str]:
        """Everything that ``value`` knows here."""
        named = {key.removesuffix(".name") for key in self.config if key.endswith(".name")}
        return {"status", "folder", "experiment", *_OWN, *self.measured, *self.config, *named}

    def _read_result(self) -> None:
        try:
            found = storage.read_json(self.path / "result.json")
        except (OSError, DataError) as error:
            self._damaged(error.what if isinstance(error, DataError) else str(error))
            return
        if not isinstance(found, dict) or not isinstance(found.get("status"), str) or "digests" not in found:
            self._damaged("result.json is not one of cifar-lab")
            return
        self.result = found
        metrics = found.get("metrics")
        shut = found.get("test_openings") == 0  # a trial of `tune` leaves the test set shut
        if found["status"] == "done" and not (isinstance(metrics, dict) and (shut or isinstance(metrics.get("test"), dict))):
            self._damaged("result.json has no metrics of the test set")

    def _damaged(self, why: str) -> None:
        self.problem = why.replace(f"{self.path}{os.sep}", "")


def find_runs(where: Sequence[Path | str]) -> list[Record]:
    """Every run below these folders, by path.

    Raises:
        CheckpointError: One of them is no folder.
    """
    found: dict[Path, Record] = {}
    for place in map(Path, where):
        if not place.is_dir():
            raise CheckpointError(f"{place} is no folder", hint="--where DIR names the folder that your runs are in")
        for folder in _run_folders(place):
            found.setdefault(folder.resolve(), Record(folder))
    return sorted(found.values(), key=lambda record: str(record.path))


def _run_folders(place: Path) -> Iterator[Path]:
    """Folders that hold a run; what is below one of them is its own."""
    for name, folders, files in os.walk(place):
        has_config = "config.yaml" in files
        if "result.json" in files or (has_config and any(sign in files for sign in _SIGNS)):
            if has_config or _looks_ours(Path(name)):
                yield Path(name)
            folders.clear()
        else:
            folders[:] = [folder for folder in folders if not folder.startswith(".")]


def _looks_ours(folder: Path) -> bool:
    """Whether a result.json without a config.yaml beside it is of a run that lost it, not some other program's."""
    try:
        found = storage.read_json(folder / "result.json")
    except (OSError, DataError):
        return (folder / "predictions.npz").exists() or (folder / "checkpoints").is_dir()
    return isinstance(found, dict) and {"status", "digests"} <= found.keys()
