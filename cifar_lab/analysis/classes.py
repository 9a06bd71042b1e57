"""Precision and recall of every class, with intervals."""

from functools import partial
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cifar_lab.analysis.figures import COLUMN, TRAIN_COLOR, VAL_COLOR, Drawing, headline, shorten
from cifar_lab.analysis.made import Made, Run
from cifar_lab.stats import wilson

_MANY = 30  # classes; more are drawn in two columns on a screen
_MEASURES = (
    ("recall", TRAIN_COLOR, "recall (of the class's images, found)"),
    ("precision", VAL_COLOR, "precision (of those called so, right)"),
)


def classes(run: Run) -> Made:
    """Precision and recall of every class on the test set, best recall first, with Wilson's 95 % intervals."""
    table = class_table(run.predicted("test"), run.labels("test"), run.class_names)
    return Made({"interval": "Wilson, 95 %", "classes": table}, {"classes": partial(_layout, table, run.name)})


def class_table(predicted: np.ndarray, labels: np.ndarray, class_names: tuple[str, ...]) -> list[dict[str, Any]]:
    """A row for each class, in the order of the labels.

    Args:
        predicted: int64 [N].
        labels: int64 [N].
        class_names: K names.

    Returns:
        ``name``, ``support`` (its images), ``called`` (images taken for it), ``right``, and ``recall``, ``precision`` and their
        ``..._interval``; those are None for a class without images, or that no image was taken for.
    """
    count = len(class_names)
    support, called = (np.bincount(values, minlength=count) for values in (labels, predicted))
    right = np.bincount(labels[predicted == labels], minlength=count)
    rows = []
    for name, r, s, c in zip(class_names, right.tolist(), support.tolist(), called.tolist(), strict=True):
        row: dict[str, Any] = {"name": name, "support": s, "called": c, "right": r}
        for measure, total in (("recall", s), ("precision", c)):
            row[measure] = r / total if total else None
            row[f"{measure}_interval"] = list(wilson(r, total)) if total else None
        rows.append(row)
    return rows


def _layout(table: list[dict[str, Any]], run_name: str, column: bool) -> Drawing:
    """Two bars for each class, the best above."""
    ordered = sorted(table, key=lambda row: -1.0 if row["recall"] is None else row["recall"], reverse=True)
    panels = 2 if len(ordered) > _MANY and not column else 1
    rows = -(-len(ordered) // panels)
    each = (0.17 if len(ordered) <= _MANY else 0.1) if column else (0.42 if len(ordered) <= _MANY else 0.24)

    def draw(figure: Figure) -> None:
        images = sum(row["support"] for row in table)
        headline(figure, run_name, f"classes on {images:,} test images, with 95 % intervals (Wilson)")
        parts = np.atleast_1d(figure.subplots(1, panels))
        for place, axes in enumerate(parts):
            _bars(axes, ordered[place * rows : (place + 1) * rows], rows, column)
        handles, names = parts[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower center", ncols=1 if column else 2, fontsize=7 if column else 9)

    return (draw, COLUMN, each * rows + 1.2) if column else (draw, 7.5 * panels, each * rows + 1.5)


def _bars(axes: Axes, part: list[dict[str, Any]], rows: int, column: bool) -> None:
    """The classes of one panel, with room for ``rows`` so that all panels have bars of one height."""
    places = np.arange(len(part))
    small = rows > _MANY
    for shift, (measure, color, label) in zip((-0.2, 0.2), _MEASURES, strict=True):
        known = [(place, row) for place, row in zip(places, part, strict=True) if row[measure] is not None]
        at = [place + shift for place, _ in known]
        values = [100 * row[measure] for _, row in known]
        ends = [[100 * end for end in row[f"{measure}_interval"]] for _, row in known]
        away = [
            [max(0.0, v - low) for v, (low, _) in zip(values, ends, strict=True)],
            [max(0.0, high - v) for v, (_, high) in zip(values, ends, strict=True)],
        ]
        line = {
            "elinewidth": 0.5 if column or small else 1.0,
            "capsize": 0.0 if small else 1.5 if column else 2.5,
            "ecolor": "#333333",
        }
        axes.barh(at, values, height=0.38, color=color, label=label, xerr=away, error_kw=line)
    size = (4.5 if small else 7.0) if column else (8.0 if small else 10.0)
    axes.set_yticks(places, labels=[shorten(row["name"], 20) for row in part], fontsize=size, parse_math=False)
    axes.set(xlim=(0, 100), ylim=(rows - 0.4, -0.6), xlabel="percent")
    axes.grid(visible=True, axis="x", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(axis="y", length=0)
