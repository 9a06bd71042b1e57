"""`cifar-lab analyze`: a finished run, its data and the analyses joined; what they make is written into one folder.

Everything comes from the predictions and the checkpoint that the run saved. All analyses are asked before anything is
written, so that an option that does not fit leaves no half of a set of pictures behind.
"""

import inspect
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any

import numpy as np

from cifar_lab import storage
from cifar_lab.analysis import ANALYSES
from cifar_lab.analysis.figures import check_formats, save_layout
from cifar_lab.analysis.made import LeftOut, Made
from cifar_lab.errors import CheckpointError, ConfigError, DataError, LabError
from cifar_lab.explain import did_you_mean
from cifar_lab.saved import EVIDENCE, SavedRun, load_run

if TYPE_CHECKING:
    from torch import Tensor, nn

    from cifar_lab.data.sets import ImageSet

RECORD = "analysis.json"
DEFAULT = Path("outputs/analyze")
"""Where analyses of evidence go."""


class Subject:
    """A run with its test images, as analyses see it (``analysis.made.Run``); data and network are read once.

    Args:
        saved: The run.
        data_root: Where the data set is now; None: where it was.
    """

    def __init__(self, saved: SavedRun, data_root: str | None = None):
        self.saved, self.data_root = saved, data_root
        self.asked_for_images = False

    @property
    def name(self) -> str:
        """Model and data, for titles."""
        return self.saved.name

    @property
    def result(self) -> dict[str, Any]:
        """Content of result.json."""
        return self.saved.result

    @property
    def config(self) -> dict[str, Any]:
        """The resolved configuration."""
        return self.saved.config

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Rows of metrics.jsonl."""
        return self.saved.rows

    @property
    def class_names(self) -> tuple[str, ...]:
        """K names."""
        return self.saved.class_names

    @property
    def has_logits(self) -> bool:
        """Whether logits were kept, not only predicted classes and confidences."""
        return self.saved.has_logits

    def logits(self, split: str) -> np.ndarray:
        """float32 [N, K] of ``val`` or ``test``."""
        return self.saved.logits(split)

    def labels(self, split: str) -> np.ndarray:
        """int64 [N]."""
        return self.saved.labels(split)

    def predicted(self, split: str) -> np.ndarray:
        """int64 [N]."""
        return self.saved.predicted(split)

    def confidence(self, split: str) -> np.ndarray:
        """float64 [N]."""
        return self.saved.confidence(split)

    def model(self) -> "nn.Module":
        """The tested network on the CPU, in evaluation mode."""
        return self._model

    def input_shape(self) -> tuple[int, int, int, int]:
        """What the model takes one of: [1, 3, H, W]."""
        size = self.saved.input_size
        return 1, 3, size, size

    def images(self) -> np.ndarray:
        """The test images, uint8 [N, 3, H, W]."""
        return self._test.images.numpy()

    def image_ids(self) -> np.ndarray:
        """Their places in their source, int64 [N]."""
        return self._test.ids.numpy()

    def seen(self, position: int) -> "Tensor":
        """A test image as the model sees it: float32 [1, 3, H, W], resized and normalised as the run did."""
        import torch

        from cifar_lab.data.batches import Batches

        known = self.result["data"]["normalization"]
        one = self._test.take(torch.tensor([position]))
        batches = Batches(
            one, batch_size=1, mean=known["mean"], std=known["std"], input_size=self.config["data"].get("input_size") or 0
        )
        return next(batches.iterate(0))[0]

    @cached_property
    def _model(self) -> "nn.Module":
        if not (self.saved.path / "checkpoints").is_dir():
            raise CheckpointError(f"{self.saved.path} kept no weights", hint="evidence and runs of 0 epochs have none")
        return self.saved.model()

    @property
    def _test(self) -> "ImageSet":
        self.asked_for_images = True
        return self._test_set

    @cached_property
    def _test_set(self) -> "ImageSet":
        try:
            test = self.saved.splits(self.data_root, download=False).test
        except DataError as error:  # looking at a run downloads nothing
            raise DataError(error.what, hint="--data-root DIR names the folder of the data set") from error
        if not np.array_equal(test.labels.numpy(), self.labels("test")):
            raise CheckpointError(f"{self.saved.path}: its predictions have other labels than the test images")
        return test


def analyze(
    path: Path,
    *,
    out: Path | None = None,
    only: Sequence[str] = (),
    formats: Sequence[str] = ("png",),
    options: Mapping[str, Any] | None = None,
    data_root: str | None = None,
) -> dict[str, Any]:
    """Make the analyses of a run and write their pictures and numbers.

    Args:
        path: Folder of a finished run, or of evidence.
        out: Where to write; None: into that folder, or of evidence, which stays as it is, into outputs/analyze/NAME.
        only: Rows of ``ANALYSES``; none: all.
        formats: Of the pictures; a row of ``figures.FORMATS`` each.
        options: Keywords for the analyses that name them, such as ``layer``; None is not given.
        data_root: Where the data set is now; None: where it was.

    Returns:
        ``run``, ``folder``, ``files``, ``lines`` (to be printed), ``left_out`` (what -> why) and ``analyses`` (name -> numbers).

    Raises:
        ConfigError: An analysis, option, format or ``out`` that does not fit; nothing is written then.
        LabError: An analysis that was asked for by name cannot be made; the others are written.
    """
    names = _chosen(only)
    check_formats(formats)
    given = {key: value for key, value in (options or {}).items() if value is not None}
    _check_used(names, given)
    subject = Subject(load_run(path), data_root)
    folder = _folder(subject.saved, out)
    made, failed = _make(names, subject, given)
    if data_root is not None and not subject.asked_for_images:
        raise ConfigError("--data-root: nothing that was asked for looks at images")
    storage.make_folder(folder)
    files: list[Path] = []
    for one in made.values():
        for stem, layout in one.pictures.items():
            files += save_layout(folder / stem, layout, formats)
        for name, text in one.texts.items():
            storage.write_text(folder / name, text)
            files.append(folder / name)
    left_out = {name: error.what for name, error in failed.items()}
    left_out |= {f"{name}: {part}": why for name, one in made.items() for part, why in one.left_out.items()}
    numbers = {name: one.numbers for name, one in made.items()}
    _record(folder / RECORD, subject, numbers)
    if only and failed:
        raise next(iter(failed.values()))
    return {
        **{"run": subject.name, "folder": str(folder), "files": [file.name for file in files] + [RECORD]},
        **{"lines": [line for one in made.values() for line in one.lines], "left_out": left_out, "analyses": numbers},
    }


def _folder(run: SavedRun, out: Path | None) -> Path:
    """Where to write."""
    if out is not None and (out / EVIDENCE).is_file():
        raise ConfigError(f"--out {out} is evidence, which stays as it was kept", hint="name another folder")
    return out or (DEFAULT / run.path.resolve().name if run.is_evidence else run.path)


def _chosen(only: Sequence[str]) -> list[str]:
    """The rows to make, in the order of the table."""
    for name in only:
        if name not in ANALYSES:
            raise ConfigError(f"unknown analysis '{name}'{did_you_mean(name, ANALYSES)}", hint=f"known: {', '.join(ANALYSES)}")
    return [name for name in ANALYSES if not only or name in only]


def _check_used(names: Sequence[str], given: Mapping[str, Any]) -> None:
    """Refuse an option that none of the analyses takes."""
    for key in given:
        takers = [name for name, row in ANALYSES.items() if key in _keywords(row)]
        if not set(takers) & set(names):
            raise ConfigError(f"--{key} is for {', '.join(takers)}, which --only leaves out")


def _keywords(row: str) -> set[str]:
    return {p.name for p in inspect.signature(resolve_name(row)).parameters.values() if p.kind is p.KEYWORD_ONLY}


def _make(names: Sequence[str], subject: Subject, given: Mapping[str, Any]) -> tuple[dict[str, Made], dict[str, LabError]]:
    """What came of each analysis, and what kept the others from being made."""
    made: dict[str, Made] = {}
    failed: dict[str, LabError] = {}
    for name in names:
        taken = _keywords(ANALYSES[name]) & set(given)
        try:
            made[name] = resolve_name(ANALYSES[name])(subject, **{key: given[key] for key in taken})
        except (LeftOut, CheckpointError, DataError) as error:
            failed[name] = error
    return made, failed


def _record(path: Path, subject: Subject, numbers: Mapping[str, Any]) -> None:
    """analysis.json: the numbers of every analysis made of this run so far; those made again replace the older ones."""
    digests = subject.result["digests"]
    before = storage.read_json(path) if path.is_file() else {}
    same = isinstance(before, dict) and before.get("digests") == digests
    kept = before["analyses"] if same else {}
    storage.write_json(path, {"run": subject.name, "digests": digests, "analyses": {**kept, **numbers}})
