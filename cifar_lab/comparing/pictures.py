"""The pictures of a comparison, drawn by ``analysis`` from runs."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cifar_lab.analysis import contrast, overlay, tradeoff
from cifar_lab.analysis.figures import save_figure
from cifar_lab.comparing.entries import Entry, before_s
from cifar_lab.comparing.pairs import Pair
from cifar_lab.comparing.tables import accuracy_interval
from cifar_lab.errors import CheckpointError, DataError

_PICTURES = 16  # of each side
_SEED = 0


def draw_curves(folder: Path, entries: Sequence[Entry], formats: Sequence[str]) -> list[Path]:
    """``curves``: validation over epochs and over seconds; no file where no run kept its rows."""
    parts = [
        overlay.Curves(
            entry.label,
            [run.rows for run in entry.runs],
            [before_s(run) for run in entry.runs],
            [run.result["best_epoch"] for run in entry.runs],
        )
        for entry in entries
    ]
    if not any(rows for part in parts for rows in part.runs):
        return []
    return save_figure(folder / "curves", lambda figure: overlay.draw_overlay(figure, parts), *overlay.SIZE, formats)


def draw_cost(folder: Path, entries: Sequence[Entry], formats: Sequence[str]) -> list[Path]:
    """``accuracy_against_cost``."""
    points = []
    for entry in entries:
        low, high = accuracy_interval(entry)
        accuracy, params, macs = (entry.mean(measure) or 0.0 for measure in ("test_accuracy", "num_params", "macs"))
        points.append(tradeoff.Point(entry.label, accuracy, low, high, params, macs))
    several = {len(entry.runs) > 1 for entry in entries}
    bars = "95 % intervals" if several == {False} else "± one standard deviation over seeds"
    if len(several) == 2:
        bars = "one standard deviation over seeds, of single runs the 95 % interval"
    name = folder / "accuracy_against_cost"
    return save_figure(name, lambda figure: _drawn(tradeoff.draw_tradeoff(figure, points, bars)), *tradeoff.SIZE, formats)


def _drawn(_: object) -> None:
    """Where the names are is of interest to nobody here."""


def draw_difference(folder: Path, pair: Pair, class_names: Sequence[str], formats: Sequence[str]) -> list[Path]:
    """``confusion_difference`` of one pair: the first less the second."""
    first, second = pair.runs
    difference = contrast.confusion_difference(first.labels(), first.predicted(), second.predicted(), len(class_names))
    size = contrast.difference_size(class_names)
    return save_figure(
        folder / "confusion_difference",
        lambda figure: contrast.draw_difference(figure, difference, class_names, *pair.sides),
        *size,
        formats,
    )


def test_images(pair: Pair, root: str | None) -> tuple[np.ndarray | None, str]:
    """Test images uint8 [N, 3, H, W] in the order of the answers, or None and why; nothing is downloaded for a picture."""
    reason = ""
    for run in pair.runs:
        try:
            return run.splits(root, download=False).test.images.numpy(), ""
        except (DataError, CheckpointError) as error:
            reason = reason or error.what
    return None, reason


def draw_only_one_right(
    folder: Path, pair: Pair, images: np.ndarray, class_names: Sequence[str], formats: Sequence[str]
) -> list[Path]:
    """``only_one_right``: some of the images that one side alone gets right."""
    first, second = pair.runs
    counts = (pair.counts.only_first, pair.counts.only_second)
    return save_figure(
        folder / "only_one_right",
        lambda figure: contrast.draw_only_one_right(
            figure,
            images,
            first.labels(),
            (first.predicted(), second.predicted()),
            class_names,
            pair.sides,
            most=_PICTURES,
            seed=_SEED,
        ),
        *contrast.only_one_right_size(counts, _PICTURES),
        formats,
    )
