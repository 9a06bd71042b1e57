"""What a data set holds, in pictures: how many of each class, what they look like, their mean, and pairs that look alike."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cifar_lab.analysis.figures import TRAIN_COLOR, headline, save_figure, shorten

_SPLIT_COLORS = {"train": TRAIN_COLOR, "val": "#e69f00", "test": "#009e73"}
_SPLIT_NAMES = {"train": "training", "val": "validation", "test": "test"}
_NAME_LENGTH = 16


def save_class_counts(
    folder: Path,
    counts: Mapping[str, Sequence[int]],
    class_names: Sequence[str],
    *,
    title: str,
    formats: Sequence[str] = ("png",),
) -> list[Path]:
    """Write class_counts: a bar for each class in each split, each split with its own panel and scale.

    Args:
        folder: Where to.
        counts: Split -> K counts.
        class_names: K names.
        title: Of the data.
        formats: See ``figures.save_figure``.
    """
    many = len(class_names) > 30
    names = [shorten(name, _NAME_LENGTH) for name in class_names]

    def draw(figure: Figure) -> None:
        headline(figure, title, "images of each class")
        panels = figure.subplots(1, len(counts), sharey=True, squeeze=False)[0]
        for axes, (split, values) in zip(panels, counts.items(), strict=True):
            bars = axes.barh(range(len(values)), values, color=_SPLIT_COLORS[split], height=0.75)
            if not many:
                axes.bar_label(bars, labels=[f"{value:,}" for value in values], fontsize=9, padding=3)
            axes.set_title(f"{_SPLIT_NAMES[split]}: {sum(values):,} images")
            axes.set_xlabel("images")
            axes.set_xlim(0, max(values) * (1.0 if many else 1.22))
            axes.ticklabel_format(axis="x", style="plain")
            axes.locator_params(axis="x", nbins=4)
            axes.tick_params(axis="y", length=0)
        panels[0].set_yticks(range(len(names)), labels=names, fontsize=6 if many else 10, parse_math=False)
        panels[0].set_ylim(len(names) - 0.4, -0.6)

    return save_figure(
        folder / "class_counts", draw, 1.6 + 3.3 * len(counts), 1.4 + (0.12 if many else 0.32) * len(names), formats
    )


def save_class_samples(
    folder: Path,
    samples: Sequence[np.ndarray],
    means: np.ndarray,
    class_names: Sequence[str],
    *,
    title: str,
    formats: Sequence[str] = ("png",),
) -> list[Path]:
    """Write class_samples: a row for each class, its mean image first, then some of its training pictures.

    Args:
        folder: Where to.
        samples: For each class uint8 [n, 3, H, W], n up to ten.
        means: float64 [K, 3, H, W], 0 to 255; NaN for a class without images.
        class_names: K names.
        title: Of the data.
        formats: See ``figures.save_figure``.
    """
    columns = max(len(part) for part in samples)

    def draw(figure: Figure) -> None:
        headline(figure, title, "mean image and first training images of each class")
        cells = _Cells(figure, len(samples), columns + 1)
        cells.head(0, "mean image")
        for row, (part, mean, name) in enumerate(zip(samples, means, class_names, strict=True)):
            cells.name(row, name)
            for column, picture in enumerate([np.nan_to_num(mean, nan=255.0).round().astype(np.uint8), *part]):
                cells.picture(row, column, picture)

    return save_figure(folder / "class_samples", draw, *_Cells.size(len(samples), columns + 1), formats)


def save_mean_images(
    folder: Path, means: np.ndarray, class_names: Sequence[str], *, title: str, formats: Sequence[str] = ("png",)
) -> list[Path]:
    """Write mean_images: the mean training image of each class, larger, each with its name; see ``save_class_samples``."""
    columns = min(len(means), 5 if len(means) <= 20 else 10)
    rows = -(-len(means) // columns)

    def draw(figure: Figure) -> None:
        headline(figure, title, "mean training image of each class")
        for position, (axes, mean) in enumerate(_grid(figure, rows, columns, means)):
            axes.imshow(np.moveaxis(np.nan_to_num(mean, nan=255.0).round().astype(np.uint8), 0, -1))
            axes.set_title(shorten(class_names[position], _NAME_LENGTH), fontsize=10, parse_math=False)

    return save_figure(folder / "mean_images", draw, max(1.6 * columns, 6.0), 0.5 + 1.85 * rows, formats)


def save_pairs(
    folder: Path,
    pairs: Sequence[tuple[np.ndarray, np.ndarray, str, str]],
    *,
    title: str,
    said: str,
    formats: Sequence[str] = ("png",),
) -> list[Path]:
    """Write near_duplicates: pairs of pictures side by side, the test picture on the right.

    Args:
        folder: Where to.
        pairs: (uint8 [3, H, W], uint8 [3, H, W], text above the first, text above the second) of each pair.
        title: Of the data.
        said: How many there are, after the title.
        formats: See ``figures.save_figure``.
    """
    columns = min(len(pairs), 4)
    rows = -(-len(pairs) // columns)

    def draw(figure: Figure) -> None:
        headline(figure, title, said)
        figure.get_layout_engine().set(w_pad=0.1, h_pad=0.06)  # pyrefly: ignore
        for axes, (known, test, above_known, above_test) in _grid(figure, rows, columns, pairs):
            height, width = known.shape[1:]
            gap = max(1, width // 16)
            both = np.full((height, 2 * width + gap, 3), 255, dtype=np.uint8)
            both[:, :width], both[:, width + gap :] = np.moveaxis(known, 0, -1), np.moveaxis(test, 0, -1)
            axes.imshow(both)
            for place, text in ((width / 2, above_known), (1.5 * width + gap, above_test)):
                axes.text(place - 0.5, -1.5 * height / 32, text, fontsize=8, ha="center", va="bottom", parse_math=False)

    return save_figure(folder / "near_duplicates", draw, max(3.1 * columns, 6.5), 0.5 + 1.9 * rows, formats)


def _grid(figure: Figure, rows: int, columns: int, items: Sequence[Any] | np.ndarray) -> list[tuple[Axes, Any]]:
    """Axes without frames for each item."""
    cells = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in cells:
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
    for axes in cells[len(items) :]:
        axes.remove()
    return list(zip(cells, items, strict=False))


class _Cells:
    """Pictures in rows on one pair of axes in inches: hundreds of axes would take seconds.

    Args:
        figure: Of the size that ``size`` gives.
        rows: Of pictures.
        columns: Of pictures; the first one is set apart.
        below: Inches below each row for a text.
    """

    PICTURE, STEP, LEFT, GAP, TOP = 0.96, 1.02, 1.45, 0.12, 0.66  # inches; 96 pixels show each of 32 as 3

    def __init__(self, figure: Figure, rows: int, columns: int, *, below: float = 0.0):
        figure.set_layout_engine("none")
        self.rows, self.step = rows, self.STEP + below
        width, height = self.size(rows, columns, below)
        self.axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(0, height), autoscale_on=False)
        self.axes.set_axis_off()

    @classmethod
    def size(cls, rows: int, columns: int, below: float = 0.0) -> tuple[float, float]:
        """Width and height of the figure in inches."""
        return cls.LEFT + cls.GAP + cls.STEP * columns + 0.1, cls.TOP + (cls.STEP + below) * rows + 0.08

    def _corner(self, row: int, column: int) -> tuple[float, float]:
        """Left and lower edge of a picture."""
        x = self.LEFT + self.STEP * column + (self.GAP if column else 0.0)
        return x, 0.08 + self.step * (self.rows - 1 - row) + self.step - self.STEP

    def picture(self, row: int, column: int, picture: np.ndarray) -> None:
        """Draw uint8 [3, H, W] into a cell."""
        x, y = self._corner(row, column)
        place = (x, x + self.PICTURE, y, y + self.PICTURE)
        self.axes.imshow(np.moveaxis(picture, 0, -1), extent=place, aspect="auto", interpolation="nearest")

    def name(self, row: int, text: str) -> None:
        """To the left of a row."""
        x, y = self._corner(row, 0)
        short = shorten(text, _NAME_LENGTH)
        self.axes.text(x - 0.08, y + self.PICTURE / 2, short, ha="right", va="center", fontsize=10, parse_math=False)

    def head(self, column: int, text: str) -> None:
        """Above a column."""
        x, y = self._corner(0, column)
        self.axes.text(x + self.PICTURE / 2, y + self.PICTURE + 0.05, text, ha="center", va="bottom", fontsize=9)

    def text(self, row: int, column: int, text: str, *, inside: bool = False) -> None:
        """Small, below a picture, or in place of one."""
        x, y = self._corner(row, column)
        y, anchor = (y + self.PICTURE / 2, "center") if inside else (y - 0.02, "top")
        self.axes.text(x + self.PICTURE / 2, y, text, ha="center", va=anchor, fontsize=8, parse_math=False)


def save_augmented(
    folder: Path,
    name: str,
    rows: Sequence[tuple[np.ndarray, Sequence[np.ndarray | None], str, Sequence[str]]],
    *,
    title: str,
    said: str,
    formats: Sequence[str] = ("png",),
) -> list[Path]:
    """Write ``name``: a row for each picture, as stored and then as training sees it epoch after epoch.

    Args:
        folder: Where to.
        name: Of the file.
        rows: (uint8 [3, H, W], one uint8 [3, h, w] for each epoch or None where the picture was left out, class, a text
            below each or empty ones).
        title: Of the data.
        said: What was done, after the title.
        formats: See ``figures.save_figure``.
    """
    epochs = max(len(views) for _, views, _, _ in rows)
    room = 0.31 if any(text for *_, below in rows for text in below) else 0.0

    def draw(figure: Figure) -> None:
        headline(figure, title, said)
        cells = _Cells(figure, len(rows), epochs + 1, below=room)
        for column in range(epochs + 1):
            cells.head(column, f"epoch {column}" if column else "as stored")
        for row, (stored, views, label, below) in enumerate(rows):
            cells.name(row, label)
            for column, (view, text) in enumerate(zip([stored, *views], ["", *below], strict=True)):
                if view is None:
                    cells.text(row, column, "left out", inside=True)
                else:
                    cells.picture(row, column, view)
                    cells.text(row, column, text)

    return save_figure(folder / name, draw, *_Cells.size(len(rows), epochs + 1, room), formats)
