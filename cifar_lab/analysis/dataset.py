"""What a data set holds, in pictures: how many of each class, what they look like, their mean, and pairs that look alike."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cifar_lab.analysis.figures import QUIET_COLOR, TRAIN_COLOR, headline, save_figure, shorten

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
        headline(figure, title, "mean image and training images of each class")
        cells = _Cells(figure, len(samples), columns + 1, left=1.45, gap_after_first=0.15, top=0.62)
        for row, (part, mean, name) in enumerate(zip(samples, means, class_names, strict=True)):
            pictures = [np.nan_to_num(mean, nan=255.0).round().astype(np.uint8), *part]
            for column, picture in enumerate(pictures):
                axes = cells.picture(row, column, picture)
                if row == 0 and column < 2:
                    axes.set_title("mean" if column == 0 else "images", fontsize=10, loc="center" if column == 0 else "left")
                if column == 0:
                    text = shorten(name, _NAME_LENGTH)
                    axes.set_ylabel(text, fontsize=10, rotation=0, ha="right", va="center", labelpad=6, parse_math=False)

    return save_figure(folder / "class_samples", draw, *_Cells.size(len(samples), columns + 1, 1.45, 0.15, 0.62), formats)


def save_mean_images(
    folder: Path, means: np.ndarray, class_names: Sequence[str], *, title: str, formats: Sequence[str] = ("png",)
) -> list[Path]:
    """Write mean_images: the mean training image of each class, larger, each with its name.

    Args:
        folder: Where to.
        means: float64 [K, 3, H, W], 0 to 255; NaN for a class without images.
        class_names: K names.
        title: Of the data.
        formats: See ``figures.save_figure``.
    """
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
    """Axes without frames for each item; those left over are taken away."""
    cells = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in cells:
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
    for axes in cells[len(items) :]:
        axes.remove()
    return list(zip(cells, items, strict=False))


class _Cells:
    """Pictures in rows, placed by hand: measuring the texts of hundreds of axes takes longer than drawing them.

    Args:
        figure: Of the size that ``size`` gives.
        rows: Of pictures.
        columns: Of pictures.
        left: Inches for the names of rows.
        gap_after_first: Inches between the first column and the second.
        top: Inches for the title and the names of columns.
    """

    PICTURE, STEP = 0.74, 0.8  # inches

    def __init__(self, figure: Figure, rows: int, columns: int, *, left: float, gap_after_first: float, top: float):
        figure.set_layout_engine("none")
        self.figure, self.rows = figure, rows
        self.left, self.gap = left, gap_after_first

    @classmethod
    def size(cls, rows: int, columns: int, left: float, gap_after_first: float, top: float) -> tuple[float, float]:
        """Width and height of the figure in inches."""
        return left + gap_after_first + cls.STEP * columns + 0.1, top + cls.STEP * rows + 0.08

    def picture(self, row: int, column: int, picture: np.ndarray) -> Axes:
        """Draw uint8 [3, H, W] into a cell."""
        width, height = self.figure.get_size_inches()
        x = self.left + self.STEP * column + (self.gap if column else 0.0)
        y = 0.08 + self.STEP * (self.rows - 1 - row)
        axes = self.figure.add_axes((x / width, y / height, self.PICTURE / width, self.PICTURE / height))
        axes.imshow(np.moveaxis(picture, 0, -1))
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
        return axes


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
    texts = any(text for *_, below in rows for text in below)
    step = 1.06 if texts else 0.9

    def draw(figure: Figure) -> None:
        headline(figure, title, said)
        grid = figure.subplots(len(rows), epochs + 1, squeeze=False, gridspec_kw={"wspace": 0.06, "hspace": 0.06})
        for row, (stored, views, label, below) in enumerate(rows):
            line = grid[row]
            for column, (axes, view) in enumerate(zip(line, [stored, *views], strict=True)):
                axes.set(xticks=[], yticks=[])
                axes.spines[:].set_visible(False)
                if view is None:
                    axes.text(0.5, 0.5, "left out", ha="center", va="center", fontsize=8, color=QUIET_COLOR)
                else:
                    axes.imshow(np.moveaxis(view, 0, -1))
                if row == 0:
                    axes.set_title("as stored" if column == 0 else f"epoch {column}", fontsize=9)
                if column and texts:
                    axes.set_xlabel(below[column - 1], fontsize=7, labelpad=2, parse_math=False)
            line[0].set_ylabel(shorten(label, 12), fontsize=9, rotation=0, ha="right", va="center", labelpad=6, parse_math=False)

    return save_figure(folder / name, draw, 1.2 + 0.95 * (epochs + 1), 0.9 + step * len(rows), formats)
