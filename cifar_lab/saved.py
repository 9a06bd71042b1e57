"""A finished run as an object: what it was told, what it measured, what it answered, and its model.

    from cifar_lab import load_run
    run = load_run("outputs/runs/2026-11-21_small_cnn")
    run.metrics["test"]["accuracy"], run.logits("test"), run.model()

A folder of evidence (outputs/reference/NAME) is read as well; it has test predictions without logits, and no model.
"""

import zlib
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

import numpy as np
import yaml

from cifar_lab import storage
from cifar_lab.errors import CheckpointError, DataError, LabError
from cifar_lab.metrics import softmax

if TYPE_CHECKING:
    from torch import nn

    from cifar_lab.data.sets import ImageSet, Splits

PREDICTIONS, EVIDENCE = "predictions.npz", "test_predictions.npz"
SPLITS = ("val", "test")


def load_run(path: Path | str, *, tested: bool = True) -> "SavedRun":
    """Open a run folder.

    Args:
        path: Folder of a run that is done, or of evidence.
        tested: Refuse a trial of `tune`, which has no metrics and predictions of the test set.

    Raises:
        CheckpointError: It is neither, or what is in it cannot be read.
    """
    path = Path(path)
    if not (path / "result.json").is_file():
        raise CheckpointError(
            f"{path} is no run folder: it has no result.json", hint="`cifar-lab train` prints the folder of a run at its end"
        )
    try:
        result = storage.read_json(path / "result.json")
    except (OSError, DataError) as error:
        raise CheckpointError(error.what if isinstance(error, DataError) else f"{path / 'result.json'}: {error}") from error
    if not isinstance(result, dict) or not {"status", "digests"} <= result.keys():
        raise CheckpointError(f"{path / 'result.json'} is not one of cifar-lab")
    if result["status"] != "done":
        raise CheckpointError(f"{path} is {result['status']}, not done", hint="the command that began it continues it")
    if tested and result.get("test_openings") == 0:
        raise CheckpointError(
            f"{path} was never tested: it is a trial of a search",
            hint=f"its overrides.txt with hydra.run.dir={path} behind `cifar-lab train` tests it, without training again",
        )
    metrics = result.get("metrics")
    if not isinstance(metrics, dict) or (tested and not isinstance(metrics.get("test"), dict)):
        raise CheckpointError(f"{path / 'result.json'} has no metrics{' of the test set' if tested else ''}")
    return SavedRun(path, result)


def find_test_images(root: str | None = None) -> Callable[[Any], np.ndarray | None]:
    """What finds the test images of a study's run: on this disk only, and only where they are those that it was tested on.

    Args:
        root: Where they are now, if not where the run found them.

    Returns:
        Function of a run with a ``folder``: uint8 [N, 3, H, W], or None where they cannot be had.
    """

    def find(run: Any) -> np.ndarray | None:
        try:
            return load_run(run.folder).splits(root, download=False).test.images.numpy()
        except (LabError, OSError, KeyError, TypeError):
            return None  # a page then names the images by their numbers, and says so

    return find


class SavedRun:
    """One finished run; files are read when they are asked for.

    Args:
        path: Its folder.
        result: Content of its result.json.
    """

    def __init__(self, path: Path, result: dict[str, Any]):
        self.path, self.result = path, result

    def __repr__(self) -> str:
        test = self.metrics["test"]
        accuracy = f"{100 * test['accuracy']:.2f} % test accuracy" if test else "never tested"
        return f"<run {self.path}: {self.name}, {self.num_classes} classes, {accuracy}>"

    @property
    def name(self) -> str:
        """Model and data, for titles."""
        notes = self.result["data"].get("notes") or []
        return f"{self.result['model']} on {self.result['data']['name']}" + (f" ({'; '.join(notes)})" if notes else "")

    @property
    def metrics(self) -> dict[str, Any]:
        """What was measured on train, val and test; None for a split that is not there."""
        return self.result["metrics"]

    @property
    def class_names(self) -> tuple[str, ...]:
        """One per label."""
        return tuple(self.result["data"]["classes"])

    @property
    def num_classes(self) -> int:
        """K."""
        return len(self.class_names)

    @cached_property
    def config(self) -> dict[str, Any]:
        """The resolved configuration, as config.yaml holds it."""
        path = self.path / "config.yaml"
        try:
            plain = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, yaml.YAMLError) as error:
            raise CheckpointError(f"{path} cannot be read: {error}") from error
        if not isinstance(plain, dict) or "seed" not in plain:
            raise CheckpointError(f"{path} is no configuration of cifar-lab")
        return plain

    @cached_property
    def overrides(self) -> list[str]:
        """What the person typed."""
        path = self.path / "overrides.txt"
        return path.read_text(encoding="utf-8").splitlines() if path.is_file() else []

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """The rows of metrics.jsonl, one per epoch."""
        path = self.path / "metrics.jsonl"
        return storage.read_lines(path) if path.is_file() else []

    @property
    def has_logits(self) -> bool:
        """Whether it kept logits; evidence has predicted classes and confidences only."""
        return not self.is_evidence

    def logits(self, split: str = "test") -> np.ndarray:
        """float32 [N, K], in the set's order."""
        return self._saved(f"{split}_logits", split)

    def labels(self, split: str = "test") -> np.ndarray:
        """int64 [N]."""
        if self.is_evidence and split == "test":
            return self.arrays["labels"].astype(np.int64)
        return self._saved(f"{split}_labels", split)

    def ids(self, split: str = "test") -> np.ndarray:
        """int64 [N], the images' places in their source."""
        return self._saved(f"{split}_ids", split)

    def probs(self, split: str = "test") -> np.ndarray:
        """float64 [N, K], rows that sum to one."""
        return softmax(self.logits(split))

    def predicted(self, split: str = "test") -> np.ndarray:
        """int64 [N], the most probable class."""
        if self.is_evidence and split == "test":
            return self.arrays["predicted"].astype(np.int64)
        return self.logits(split).argmax(axis=1)

    def confidence(self, split: str = "test") -> np.ndarray:
        """float64 [N], probability of the most probable class."""
        if self.is_evidence and split == "test":
            return self.arrays["confidence"].astype(np.float64)
        return self.probs(split).max(axis=1)

    def has(self, name: str) -> bool:
        """Whether its file of predictions holds this array, such as ``test_ids``."""
        return name in self.arrays

    def model(self, device: str = "cpu") -> "nn.Module":
        """The tested network with its weights, in evaluation mode.

        Raises:
            CheckpointError: The run kept no weights, or they are damaged.
        """
        import torch

        from cifar_lab.engine.weights import load_into, load_weights
        from cifar_lab.models.build import build_model

        settings = {key: tuple(v) if isinstance(v, list) else v for key, v in self.config["model"].items() if key != "name"}
        with torch.random.fork_rng([]):
            model = build_model(
                self.config["model"]["name"], num_classes=self.num_classes, input_size=self.input_size, **settings
            )
        tensors, _ = load_weights(self.path)
        load_into(model, tensors)
        return model.to(device).eval()

    @property
    def input_size(self) -> int:
        """Pixels a side that the model sees."""
        return self.config["data"].get("input_size") or self.result["data"]["image_size"][-1]

    def splits(self, root: str | None = None, *, download: bool = True) -> "Splits":
        """The images that it was trained and tested on, read again and compared with what it saw.

        Args:
            root: Where the data set is now; None: where it was.
            download: Whether a set that is not there may be downloaded, if the run was allowed to.

        Raises:
            DataError: It is not there.
            CheckpointError: It is not the same any more.
        """
        from cifar_lab.config import DataConfig
        from cifar_lab.data.splits import load_splits

        known = {key: value for key, value in self.config["data"].items() if key in DataConfig.__dataclass_fields__}
        if root is not None:
            known["root"] = root
        known["download"] = download and known.get("download", True)
        splits = load_splits(DataConfig(**known))
        if splits.digest != self.result["digests"]["data"]:
            raise CheckpointError(
                f"{known['name']} is not what {self.path} was trained on"
                f" ({self.result['digests']['data'][:8]} -> {splits.digest[:8]})",
                hint="--data-root DIR names the folder of the data set",
            )
        return splits

    def images(self, split: str = "test", root: str | None = None) -> "ImageSet":
        """The images of a split, in the order of its predictions; see ``splits``."""
        found = getattr(self.splits(root), split)
        if found is None:
            raise CheckpointError(f"{self.path} has no {split} images")
        return found

    @property
    def is_evidence(self) -> bool:
        """Whether it is a folder of evidence, whose files are listed by their digests and stay as they are."""
        return not (self.path / PREDICTIONS).is_file() and (self.path / EVIDENCE).is_file()

    @cached_property
    def arrays(self) -> dict[str, np.ndarray]:
        """Everything that the file of predictions holds."""
        path = self.path / (EVIDENCE if self.is_evidence else PREDICTIONS)
        try:
            with np.load(path, allow_pickle=False) as saved:
                return {name: saved[name] for name in saved.files}
        except (OSError, ValueError, EOFError, BadZipFile, zlib.error) as error:
            raise CheckpointError(f"{path} cannot be read: {error}") from error

    def _saved(self, name: str, split: str) -> np.ndarray:
        if split not in SPLITS:
            raise ValueError(f"split={split}; must be one of {', '.join(SPLITS)}")
        if name in self.arrays:
            return self.arrays[name]
        if self.is_evidence:
            raise CheckpointError(
                f"{self.path} is evidence: labels, predicted classes and confidences of the test set only",
                hint="name the run folder itself, or train it again: see its command.txt",
            )
        raise CheckpointError(f"{self.path} has no predictions of {split}")
