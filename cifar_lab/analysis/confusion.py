"""Which classes are taken for which: confusion_matrix.csv and confusion_matrix.png."""

import csv
import io
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure

from cifar_lab import storage
from cifar_lab.analysis.figures import COLUMN, PAGE, Drawing, headline, percent, render, shorten
from cifar_lab.analysis.made import Made, Run

_NUMBERS_UP_TO = 25  # classes; more cells than that leave no room for numbers
_NAME_LENGTH = 20


def confusion(run: Run) -> Made:
    """Which classes are taken for which, on the test set: counts and percent."""
    counts = _count(run.predicted("test"), run.labels("test"), len(run.class_names))
    layout = partial(_layout, counts, run.class_names, run.name, "test")
    numbers = {"classes": list(run.class_names), "counts": counts.tolist()}
    return Made(numbers, {"confusion_matrix": layout}, {"confusion_matrix.csv": _table(counts, run.class_names)})


def save_confusion(
    folder: Path,
    probs: np.ndarray,
    labels: np.ndarray,
    class_names: Sequence[str],
    *,
    run_name: str,
    split: str = "test",
    picture: bool = True,
) -> np.ndarray:
    """Write confusion_matrix.csv and, if ``picture``, confusion_matrix.png.

    The table's header holds the class names; below it line i counts the images of class i by the class
    they were taken for.

    Args:
        folder: Run folder.
        probs: float64 [N, K].
        labels: int64 [N].
        class_names: K names.
        run_name: For the title.
        split: What the images are, for the title.
        picture: Draw as well.

    Returns:
        Counts, int64 [K, K]: true class, predicted class.
    """
    counts = confusion_counts(probs, labels)
    storage.write_text(folder / "confusion_matrix.csv", _table(counts, class_names))
    if picture:
        storage.write_bytes(folder / "confusion_matrix.png", draw_confusion(counts, class_names, run_name=run_name, split=split))
    return counts


def confusion_counts(probs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Images of true class i taken for class j; int64 [K, K]."""
    return _count(probs.argmax(axis=1), labels, probs.shape[1])


def draw_confusion(counts: np.ndarray, class_names: Sequence[str], *, run_name: str, split: str = "test") -> bytes:
    """Two panels as PNG: counts, and percent of each true class.

    Args:
        counts: int64 [K, K].
        class_names: K names; long ones are shortened in the picture.
        run_name: For the title, which adds accuracy and number of images.
        split: What the images are, for the title.
    """
    return render(*_layout(counts, class_names, run_name, split, False))


def _count(predicted: np.ndarray, labels: np.ndarray, num_classes: int) -> np.ndarray:
    from sklearn.metrics import confusion_matrix

    return confusion_matrix(labels, predicted, labels=np.arange(num_classes)).astype(np.int64)


def _table(counts: np.ndarray, class_names: Sequence[str]) -> str:
    """confusion_matrix.csv."""
    table = io.StringIO()
    csv.writer(table, lineterminator="\n").writerows([list(class_names), *counts.tolist()])
    return table.getvalue()


def _layout(counts: np.ndarray, class_names: Sequence[str], run_name: str, split: str, column: bool) -> Drawing:
    """Two panels side by side; in a column below each other, of many classes the percentages alone, as wide as a page."""
    num_classes = len(counts)
    few = num_classes <= _NUMBERS_UP_TO
    support = counts.sum(axis=1, keepdims=True)
    # A class without images has no percentages: its row stays grey.
    shares = np.divide(100.0 * counts, support, out=np.full(counts.shape, np.nan), where=support > 0)
    names = [shorten(name, _NAME_LENGTH) for name in class_names]
    number = "{:.1f}" if num_classes <= 12 and not column else "{:.0f}"

    def draw(figure: Figure) -> None:
        headline(figure, run_name, f"accuracy {percent(np.trace(counts) / counts.sum())}, n = {counts.sum():,} {split} images")
        panels = np.atleast_1d(figure.subplots(1 + few, 1) if column else figure.subplots(1, 2))
        _panel(panels[-1], shares, names, "percent of the true class", number, column)
        if len(panels) == 2:
            _panel(panels[0], counts.astype(float), names, "images", "{:.0f}", column)

    if column:
        return (draw, COLUMN, 6.4) if few else (draw, PAGE, 7.2)
    side = max(4.6, num_classes * (0.44 if few else 0.13))  # inches
    # Room for the names, as wide as the longest, and for the colour bars.
    room = max(len(name) for name in names) * (0.05 if few else 0.045)
    return draw, 2 * side + 2 * room + 2.2, side + room + 1.0


def _panel(axes: Axes, values: np.ndarray, names: list[str], what: str, number: str, column: bool) -> None:
    """One matrix with names, a colour bar and, if there is room, numbers."""
    num_classes = len(values)
    few = num_classes <= _NUMBERS_UP_TO
    top = 100.0 if what.startswith("percent") else max(float(np.nanmax(values)), 1.0)
    # The square root lets a confusion of a few percent stand out beside a diagonal of ninety.
    image = axes.imshow(values, cmap=_colors(), norm=PowerNorm(0.5, vmin=0.0, vmax=top))
    sizes = (7, 5, 4) if column else (9, 8, 6)  # points
    size = sizes[(num_classes > 12) + (not few)]
    upright: dict[str, Any] = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"} if few else {"rotation": 90}
    axes.set_xticks(range(num_classes), labels=names, fontsize=size, parse_math=False, **upright)
    axes.set_yticks(range(num_classes), labels=names, fontsize=size, parse_math=False)
    large = (7 if few else 8) if column else 10 if few else 18
    axes.set_xlabel("predicted class", fontsize=large)
    axes.set_ylabel("true class", fontsize=large)
    axes.set_title(what, fontsize=large + 1)
    axes.tick_params(length=2)
    axes.spines[:].set_visible(True)
    axes.spines[:].set_color("#aaaaaa")
    bar = axes.figure.colorbar(image, ax=axes, shrink=0.85, pad=0.015, aspect=30)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=6 if column else 8 if few else 14)
    if few:
        # On a screen a cell is at least 0.44 inches wide; in a column all of them share 2.3.
        _write_numbers(axes, values, image, number, largest=6.0 if column else 9.0, room=240 / num_classes if column else 46.0)


def _write_numbers(axes: Axes, values: np.ndarray, image: Any, number: str, *, largest: float, room: float) -> None:
    """Numbers in the cells, dark on light and light on dark; zeros are left out.

    Points: ``largest`` is the size of the letters, ``room / digits`` what fits.
    """
    digits = max(len(number.format(value)) for value in values[np.isfinite(values)])
    size = min(largest, room / digits)  # points
    for row, column in np.argwhere(values > 0):
        value = values[row, column]
        text = number.format(value)
        dark = image.norm(value) > 0.6
        # A share that would read 0.0 is not zero.
        shown = text if float(text) > 0 else "<" + text[:-1] + "1"
        cell = axes.text(column, row, shown, ha="center", va="center", fontsize=size, color="white" if dark else "black")
        cell.set_in_layout(False)  # it is inside anyway, and measuring hundreds of them takes a while


def _colors() -> Any:
    """Blues, one hue from light to dark, so that no colour vision is needed; grey where there is no value."""
    from matplotlib import colormaps

    return colormaps["Blues"].with_extremes(bad="#d9d9d9")
