"""Two runs against each other: what one confuses more than the other, and images that only one side gets right."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from cifar_lab.analysis.figures import BAD_COLOR, GOOD_COLOR, headline, shorten

_NUMBERS_UP_TO = 25  # classes; more cells than that leave no room for numbers
_NAME_LENGTH = 20
_COLUMNS = 8
_CELL, _SIDE, _HEAD, _TITLE = (1.42, 1.8), 1.2, 0.5, 0.34  # inches: picture with texts, itself, headline, title of a side


def confusion_difference(labels: np.ndarray, first: np.ndarray, second: np.ndarray, num_classes: int) -> np.ndarray:
    """Images of class i that the first takes for class j, less those of the second: int64 [K, K].

    Args:
        labels: int64 [N].
        first: Predicted classes int64 [N].
        second: The same of the second.
        num_classes: K.
    """
    cells = num_classes**2

    def counts(predicted: np.ndarray) -> np.ndarray:
        return np.bincount(labels * num_classes + predicted, minlength=cells)

    return (counts(first) - counts(second)).reshape(num_classes, num_classes)


def difference_size(class_names: Sequence[str]) -> tuple[float, float]:
    """Width and height in inches of ``draw_difference``."""
    side = max(4.8, len(class_names) * (0.5 if len(class_names) <= _NUMBERS_UP_TO else 0.13))
    room = max(len(shorten(name, _NAME_LENGTH)) for name in class_names) * 0.05
    return side + room + 1.8, side + room + 1.3


def draw_difference(figure: Figure, difference: np.ndarray, class_names: Sequence[str], first: str, second: str) -> None:
    """The signed matrix of ``confusion_difference``; orange where the first has more, blue where it has fewer."""
    num_classes = len(difference)
    few = num_classes <= _NUMBERS_UP_TO
    net = int(np.trace(difference))
    headline(figure, f"{shorten(first, 34)} less {shorten(second, 34)}", f"{net:+,} right".replace("-", "−"))
    axes = figure.subplots()
    top = max(int(np.abs(difference).max()), 1)
    image = axes.imshow(difference, cmap=_colors(), norm=Normalize(-top, top))
    names = [shorten(name, _NAME_LENGTH) for name in class_names]
    size = 9 if few else 6
    axes.set_xticks(range(num_classes), labels=names, fontsize=size, parse_math=False, **_upright(few))
    axes.set_yticks(range(num_classes), labels=names, fontsize=size, parse_math=False)
    axes.set_xlabel("predicted class", fontsize=10)
    axes.set_ylabel("true class", fontsize=10)
    axes.set_title(
        "difference of the confusion matrices, in images:\nmore is better on the diagonal, worse beside it", fontsize=10
    )
    axes.spines[:].set_visible(True)
    axes.spines[:].set_color("#aaaaaa")
    axes.tick_params(length=2)
    bar = figure.colorbar(image, ax=axes, shrink=0.85, pad=0.02, aspect=30)
    bar.outline.set_visible(False)
    bar.set_label(f"fewer (blue) or more (orange) than {shorten(second, 26)}", fontsize=9, parse_math=False)
    if few:
        for row, column in np.argwhere(difference != 0):
            value = int(difference[row, column])
            color = "white" if abs(value) > 0.62 * top else "black"
            text = f"{value:+d}".replace("-", "−")
            cell = axes.text(column, row, text, ha="center", va="center", fontsize=min(9.0, 40 / len(text)), color=color)
            cell.set_in_layout(False)  # it is inside anyway, and measuring a hundred of them takes a while
    for k in range(num_classes):
        axes.add_patch(_frame(k))


def _upright(few: bool) -> dict[str, Any]:
    return {"rotation": 45, "ha": "right", "rotation_mode": "anchor"} if few else {"rotation": 90}


def _frame(k: int) -> Rectangle:
    """A frame around a cell of the diagonal, where right answers are counted."""
    return Rectangle((k - 0.5, k - 0.5), 1, 1, fill=False, edgecolor="#555555", linewidth=0.8)


def _colors() -> Colormap:
    """Blue to white to orange, told apart by colour-blind readers; as dark at both ends."""
    return LinearSegmentedColormap.from_list("contrast", ["#00487a", "#3d8fc6", "#ffffff", "#dd7a2a", "#8a3a00"])


def only_one_right_size(counts: tuple[int, int], most: int) -> tuple[float, float]:
    """Width and height in inches of ``draw_only_one_right``."""
    rows = sum(-(-min(count, most) // _COLUMNS) for count in counts)
    return _COLUMNS * _CELL[0], _HEAD + 2 * _TITLE + max(rows, 1) * _CELL[1]


def draw_only_one_right(
    figure: Figure,
    images: np.ndarray,
    labels: np.ndarray,
    predicted: tuple[np.ndarray, np.ndarray],
    class_names: Sequence[str],
    names: tuple[str, str],
    *,
    most: int,
    seed: int,
) -> None:
    """Above, images that only the first gets right; below, those of the second: each a seeded draw.

    Args:
        figure: Of ``only_one_right_size``.
        images: uint8 [N, 3, H, W].
        labels: int64 [N].
        predicted: Classes int64 [N] that the first and the second named.
        class_names: K names.
        names: Of the two.
        most: Pictures of each side.
        seed: Same seed, same pictures.
    """
    figure.set_layout_engine("none")  # placed by hand: measuring the texts of many axes takes longer than drawing them
    right = [p == labels for p in predicted]
    sides = (np.flatnonzero(right[0] & ~right[1]), np.flatnonzero(right[1] & ~right[0]))
    headline(figure, "images that only one side gets right", f"n = {len(labels):,} test images")
    width, height = figure.get_size_inches()
    top = height - _HEAD
    for own, (positions, name) in enumerate(zip(sides, names, strict=True)):
        chosen = np.sort(np.random.default_rng(seed).permutation(positions)[:most])
        shown = f": {len(chosen)} of {len(positions):,}" if len(chosen) < len(positions) else f": all {len(positions):,}"
        text = f"right by {shorten(name, 50)} only{shown if len(positions) else ': none'}"
        figure.text(0.012, (top - 0.06) / height, text, fontsize=11, va="top", weight="bold", parse_math=False)
        top -= _TITLE
        for place, index in enumerate(chosen):
            row, column = divmod(place, _COLUMNS)
            left = column * _CELL[0] + (_CELL[0] - _SIDE) / 2
            bottom = top - row * _CELL[1] - _SIDE - 0.05
            axes = figure.add_axes((left / width, bottom / height, _SIDE / width, _SIDE / height))
            other = predicted[1 - own][index]
            _picture(axes, images[index], class_names[labels[index]], class_names[other])
        top -= -(-len(chosen) // _COLUMNS) * _CELL[1]


def _picture(axes: Axes, image: np.ndarray, truth: str, mistake: str) -> None:
    """One picture with what it is, which one side said, and what the other took it for."""
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    axes.imshow(np.moveaxis(image, 0, -1))
    for line, (text, color) in enumerate(((f"✓ {shorten(truth, 15)}", GOOD_COLOR), (f"✗ {shorten(mistake, 15)}", BAD_COLOR))):
        y = -0.04 - 0.15 * line
        axes.text(0.5, y, text, transform=axes.transAxes, ha="center", va="top", fontsize=9, color=color, parse_math=False)
