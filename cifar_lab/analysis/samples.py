"""What the model sees and says: grids of test pictures with true class, predicted class and confidence."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cifar_lab import storage
from cifar_lab.analysis.figures import BAD_COLOR, COLUMN, GOOD_COLOR, PAGE, Drawing, headline, percent, render, shorten
from cifar_lab.analysis.made import LeftOut, Made, Run

_COLUMNS = (4, 8)  # at least and at most
_CELL, _SIDE, _BELOW, _HEAD = (1.34, 1.8), 1.2, 0.24, 0.45  # inches: a picture with its texts, itself, room below, title
_IN_COLUMN, _ON_PAGE = 0.65, 0.52  # of those sizes: in one column of a paper, and of many pictures on a page of it
_MANY = 40  # pictures; more are spread over the whole width of a page
_NAME_LENGTH = 13
_COUNT = 24


def samples(run: Run) -> Made:
    """A grid of test images with what they are, what they were taken for and how surely: two thirds right, a third wrong."""

    def choose(right: np.ndarray) -> tuple[np.ndarray, str]:
        chosen = choose_samples(right, run.config["seed"], _COUNT)
        return chosen, _mixed_title(chosen, right)

    return _made(run, "samples", choose)


def samples_per_class(run: Run) -> Made:
    """One test image of each class, chosen by the run's seed, whether right or wrong."""

    def choose(right: np.ndarray) -> tuple[np.ndarray, str]:
        chosen = one_per_class(run.labels("test"), len(run.class_names), run.config["seed"])
        return chosen, f"one test image of each class, {int((~right[chosen]).sum())} of {len(chosen)} mistaken"

    return _made(run, "samples_per_class", choose)


def samples_worst(run: Run) -> Made:
    """The worst mistakes: the wrong answers that the model was surest of."""

    def choose(right: np.ndarray) -> tuple[np.ndarray, str]:
        chosen = worst_mistakes(right, run.confidence("test"), _COUNT)
        if not len(chosen):
            raise LeftOut("the run made no mistake on the test set")
        return chosen, f"the {len(chosen)} surest of {int((~right).sum()):,} mistakes"

    return _made(run, "samples_worst", choose)


def samples_uncertain(run: Run) -> Made:
    """The test images that the model was least certain of."""

    def choose(right: np.ndarray) -> tuple[np.ndarray, str]:
        chosen = least_certain(run.confidence("test"), _COUNT)
        return chosen, f"the {len(chosen)} least certain of {len(right):,} answers, {int((~right[chosen]).sum())} mistaken"

    return _made(run, "samples_uncertain", choose)


def save_samples(
    folder: Path,
    images: np.ndarray,
    labels: np.ndarray,
    probs: np.ndarray,
    class_names: Sequence[str],
    *,
    run_name: str,
    seed: int = 0,
    count: int = _COUNT,
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
    predicted, confidence = probs.argmax(axis=1), probs.max(axis=1)
    right = predicted == labels
    chosen = choose_samples(right, seed, count)
    shown = images[chosen], labels[chosen], predicted[chosen], confidence[chosen]
    drawing = _layout(*shown, class_names, run_name, _mixed_title(chosen, right), False)
    storage.write_bytes(folder / "samples.png", render(*drawing))


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


def one_per_class(labels: np.ndarray, num_classes: int, seed: int) -> np.ndarray:
    """Position of one picture of each class that has any, in the order of the classes."""
    order = np.random.default_rng((seed, 1)).permutation(len(labels))  # others than those of choose_samples
    found = [order[labels[order] == label][:1] for label in range(num_classes)]
    return np.concatenate(found)


def worst_mistakes(right: np.ndarray, confidence: np.ndarray, count: int) -> np.ndarray:
    """Positions of the mistakes, surest first; of equally sure ones the first counts."""
    mistakes = np.flatnonzero(~right)
    return mistakes[np.argsort(-confidence[mistakes], kind="stable")][:count]


def least_certain(confidence: np.ndarray, count: int) -> np.ndarray:
    """Positions of the answers, least certain first; of equal ones the first counts."""
    return np.argsort(confidence, kind="stable")[:count]


def _mixed_title(chosen: np.ndarray, right: np.ndarray) -> str:
    wrong = int((~right[chosen]).sum())
    return f"{len(chosen)} of {len(right):,} test images, {wrong} of them mistaken (accuracy over all: {percent(right.mean())})"


def _made(run: Run, name: str, choose: Callable[[np.ndarray], tuple[np.ndarray, str]]) -> Made:
    """The picture of the test images that ``choose`` picks, and who they are."""
    labels, predicted, confidence = run.labels("test"), run.predicted("test"), run.confidence("test")
    chosen, title = choose(predicted == labels)
    images, ids = run.images()[chosen], run.image_ids()[chosen]
    facts = labels[chosen], predicted[chosen], confidence[chosen]
    layout = partial(_layout, images, *facts, run.class_names, run.name, title)
    numbers = [
        {"image": int(i), "true": run.class_names[t], "predicted": run.class_names[p], "confidence": float(c)}
        for i, t, p, c in zip(ids, *facts, strict=True)
    ]
    return Made({"images": numbers}, {name: layout})


def _layout(
    images: np.ndarray,
    labels: np.ndarray,
    predicted: np.ndarray,
    confidence: np.ndarray,
    class_names: Sequence[str],
    run_name: str,
    title: str,
    column: bool,
) -> Drawing:
    """A grid of n images [n, 3, H, W]; in a column of a paper four in a row, of many ten in the width of a page."""
    count = len(images)
    scale, size = 1.0, 8.0  # of the letters, in points, which shrink less than the pictures
    if column:
        scale, size, across = (_ON_PAGE, 5.0, PAGE) if count > _MANY else (_IN_COLUMN, 6.0, COLUMN)
        columns = int(across / (scale * _CELL[0]))
    else:
        columns = 10 if count > _MANY else _COLUMNS[1]
    rows = -(-count // columns)
    columns = max(-(-count // rows), _COLUMNS[0])  # rows of one length, where that works out
    names = [shorten(name, _NAME_LENGTH) for name in class_names]

    def draw(figure: Figure) -> None:
        # Placed by hand: measuring the texts of 24 axes takes longer than drawing them.
        figure.set_layout_engine("none")
        heading = headline(figure, run_name, title)
        heading.set(y=1 - _HEAD / 2 / figure.get_figheight(), verticalalignment="center")
        width, height = figure.get_size_inches() / scale
        for position in range(count):
            row, place = divmod(position, columns)
            left, bottom = place * _CELL[0] + (_CELL[0] - _SIDE) / 2, (rows - 1 - row) * _CELL[1] + _BELOW
            axes = figure.add_axes((left / width, bottom / height, _SIDE / width, _SIDE / height))
            true, taken_for = int(labels[position]), int(predicted[position])
            color = GOOD_COLOR if true == taken_for else BAD_COLOR
            _frame(axes, images[position], color, scale)
            share = f"{100 * confidence[position]:.0f}"
            share = "> 99" if share == "100" and confidence[position] < 1 else share
            says = f"{'✓' if true == taken_for else '✗'} {names[taken_for]}\n{share} % sure"
            axes.set_title(says, fontsize=size, color=color, parse_math=False, pad=4 * scale)
            axes.set_xlabel(f"true: {names[true]}", fontsize=size, labelpad=3 * scale, parse_math=False)

    return draw, scale * _CELL[0] * columns, scale * _CELL[1] * rows + _HEAD


def _frame(axes: Axes, image: np.ndarray, color: str, scale: float) -> None:
    """One picture in a coloured frame."""
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(True)
    axes.spines[:].set(color=color, linewidth=2.5 * scale)
    axes.imshow(np.moveaxis(image, 0, -1))
