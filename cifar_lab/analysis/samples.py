"""What the model sees and says: samples.png, a grid of test pictures with true class, predicted class and confidence."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cifar_lab import storage
from cifar_lab.analysis.figures import BAD_COLOR, GOOD_COLOR, headline, percent, render, shorten

_COLUMNS = (4, 8)  # at least and at most
_CELL, _SIDE, _BELOW, _HEAD = (1.34, 1.8), 1.2, 0.24, 0.45  # inches: a picture with its texts, itself, room below, title
_NAME_LENGTH = 13


def save_samples(
    folder: Path,
    images: np.ndarray,
    labels: np.ndarray,
    probs: np.ndarray,
    class_names: Sequence[str],
    *,
    run_name: str,
    seed: int = 0,
    count: int = 24,
) -> None:
    """Write samples.png.

    Args:
        folder: Run folder.
        images: uint8 [N, 3, H, W], tensor on the CPU or array.
        labels: int64 [N].
        probs: float64 [N, K].
        class_names: K names; long ones are shortened in the picture.
        run_name: For the title.
        seed: Same seed, same pictures.
        count: How many; a third of them are mistakes, if there are that many.
    """
    images, labels = np.asarray(images), np.asarray(labels)
    right = probs.argmax(axis=1) == labels
    chosen = choose_samples(right, seed, count)
    wrong = int((~right[chosen]).sum())
    shown = f"{len(chosen)} of {len(right):,} test images, {wrong} of them mistaken (accuracy over all: {percent(right.mean())})"
    columns = min(max(len(chosen), _COLUMNS[0]), _COLUMNS[1])
    rows = -(-len(chosen) // columns)

    def draw(figure: Figure) -> None:
        # Placed by hand: measuring the texts of 24 axes takes longer than drawing them.
        figure.set_layout_engine("none")
        headline(figure, run_name, shown)
        width, height = figure.get_size_inches()
        for position, index in enumerate(chosen):
            row, column = divmod(position, columns)
            left, bottom = column * _CELL[0] + (_CELL[0] - _SIDE) / 2, (rows - 1 - row) * _CELL[1] + _BELOW
            axes = figure.add_axes((left / width, bottom / height, _SIDE / width, _SIDE / height))
            _picture(axes, images[index], int(labels[index]), probs[index], class_names)

    storage.write_bytes(folder / "samples.png", render(draw, _CELL[0] * columns, _CELL[1] * rows + _HEAD))


def choose_samples(right: np.ndarray, seed: int, count: int) -> np.ndarray:
    """Positions of the pictures to show: right ones first, then mistakes, each in a seeded order.

    Args:
        right: bool [N], whether the prediction is right.
        seed: Same seed, same choice.
        count: How many at most.
    """
    order = np.random.default_rng(seed).permutation(len(right))
    hits, mistakes = order[right[order]], order[~right[order]]
    count = min(count, len(right))
    num_mistakes = min(len(mistakes), max(count // 3, count - len(hits)))
    return np.concatenate([hits[: count - num_mistakes], mistakes[:num_mistakes]])


def _picture(axes: Axes, image: np.ndarray, label: int, probs: np.ndarray, class_names: Sequence[str]) -> None:
    """One picture in a coloured frame, with what it is, what it was taken for and how surely."""
    predicted = int(probs.argmax())
    good = predicted == label
    color = GOOD_COLOR if good else BAD_COLOR
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(True)
    axes.spines[:].set(color=color, linewidth=2.5)
    axes.imshow(np.moveaxis(image, 0, -1))
    says = f"{'✓' if good else '✗'} {shorten(class_names[predicted], _NAME_LENGTH)}"
    truth = f"true: {shorten(class_names[label], _NAME_LENGTH)}"
    axes.set_title(f"{says}\n{100 * probs[predicted]:.0f} % sure", fontsize=8, color=color, parse_math=False, pad=4)
    axes.set_xlabel(truth, fontsize=8, labelpad=3, parse_math=False)
