"""Confusion matrices of a study: the baseline's, and what changes in every variant."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize, PowerNorm
from matplotlib.figure import Figure

from cifar_lab.analysis.figures import COLUMN, Drawing, shorten
from cifar_lab.study.design import Study
from cifar_lab.study.pictures import Picture, fit

_NUMBERS_UP_TO = 25  # classes
_MOST = 48  # variants
_NAME_LENGTH = 12


def matrix_pictures(study: Study, shares: Mapping[str, np.ndarray], class_names: Sequence[str]) -> list[Picture]:
    """The baseline's matrix (or of a study without one, its only variant's) and the change in every other variant.

    Args:
        study: Whose variants they are.
        shares: By variant: share of each true class [K, K] that was taken for each class, a mean over seeds.
        class_names: K names.
    """
    if study.baseline not in shares:
        return []
    base = shares[study.baseline]
    found = [_base(base, class_names, study.variants[study.baseline].label)]
    others = {name: share - base for name, share in shares.items() if name != study.baseline}
    if others:
        found.append(_changes({study.variants[name].label: change for name, change in others.items()}, class_names))
    return found


def _base(share: np.ndarray, class_names: Sequence[str], label: str) -> Picture:
    def layout(column: bool) -> Drawing:
        def draw(figure: Figure) -> None:
            axes = figure.subplots()
            # The square root lets a confusion of a few percent stand out beside a diagonal of ninety.
            axes.imshow(100 * share, cmap="Blues", norm=PowerNorm(0.5, 0, 100), interpolation="none")
            _classes(axes, class_names, 6 if column else 9)
            axes.set_xlabel("predicted class", fontsize=7 if column else 10)
            axes.set_ylabel("true class", fontsize=7 if column else 10)
            if len(share) <= _NUMBERS_UP_TO:
                for row, place in np.argwhere(share >= 0.0005):
                    value = 100 * share[row, place]
                    text = f"{value:.0f}" if value >= 9.5 or column else f"{value:.1f}"
                    size = min(5.5, 50 / len(share)) if column else min(9.0, 70 / len(share))
                    axes.text(place, row, text, ha="center", va="center", fontsize=size, color="white" if value > 36 else "black")

        return (draw, COLUMN, 3.2) if column else (draw, 6.4, 5.6)

    caption = (
        f"{label}: share of each true class, in percent, that was taken for each class on the test set; mean over finished "
        "seeds. "
        "Shares below 0.05 % are left empty."
    )
    return Picture("confusion", "Confusion matrix of the baseline", caption, layout)


def _changes(changes: Mapping[str, np.ndarray], class_names: Sequence[str]) -> Picture:
    shown = dict(list(changes.items())[:_MOST])
    top = 100 * max(max(float(np.abs(change).max()) for change in shown.values()), 0.001)
    # Purple for less and orange for more, told apart by every colour vision; white is no change.
    scale = ScalarMappable(Normalize(-top, top), colormaps["PuOr_r"])

    def layout(column: bool) -> Drawing:
        across = min(2 if column else 4, len(shown))
        down = -(-len(shown) // across)

        def draw(figure: Figure) -> None:
            figure.set_layout_engine("none")  # placed by hand: measuring the texts of many panels takes longer than drawing them
            width, height = figure.get_size_inches()
            edges = {"left": 0.75 / width, "right": 1 - 0.1 / width, "bottom": 1.35 / height, "top": 1 - 0.25 / height}
            if column:
                edges |= {"left": 0.1 / width, "bottom": 0.75 / height}
            grid = figure.add_gridspec(down, across, wspace=0.08, hspace=0.16, **edges).subplots(squeeze=False)
            titles = fit(list(shown), 20 if column else 26)
            for place, (axes, title, change) in enumerate(zip(grid.flat, titles, shown.values(), strict=False)):
                axes.imshow(100 * change, cmap=scale.cmap, norm=scale.norm, interpolation="none")
                axes.set_title(title, fontsize=7 if column else 9, parse_math=False, loc="left", pad=3)
                if len(class_names) <= _NUMBERS_UP_TO and not column:
                    _classes(axes, class_names, 6, across=place // across == down - 1, down=place % across == 0)
                else:
                    _classes(axes, [], 6)
            for axes in list(grid.flat)[len(shown) :]:
                axes.set_visible(False)
            bar = figure.colorbar(scale, cax=figure.add_axes((0.3, 0.45 / height, 0.4, 0.1 / height)), orientation="horizontal")
            bar.set_label("change in points of the true class", fontsize=7 if column else 9)
            bar.ax.tick_params(labelsize=6 if column else 8)

        width = COLUMN if column else 0.85 + 1.94 * across
        return draw, width, (1.0 if column else 1.6) + (1.75 if column else 2.05) * down

    more = f" The last {len(changes) - _MOST} variants are left out here." if len(changes) > _MOST else ""
    caption = (
        "Variant less baseline, in points of the true class (rows: true class, columns: predicted class), means over finished "
        "seeds. "
        f"Orange: taken for that class more often; purple: less often. Orange on the diagonal is a gain of recall.{more}"
    )
    return Picture("confusion_changes", "Changes of the confusion matrix", caption, layout)


def _classes(axes: Axes, names: Sequence[str], size: float, *, across: bool = True, down: bool = True) -> None:
    short = [shorten(name, _NAME_LENGTH) for name in names] if len(names) <= _NUMBERS_UP_TO else []
    places = range(len(short))
    axes.set_xticks(places, labels=short if across else [""] * len(short), fontsize=size, rotation=90, parse_math=False)
    axes.set_yticks(places, labels=short if down else [""] * len(short), fontsize=size, parse_math=False)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(True)
    axes.spines[:].set_color("#bbbbbb")
