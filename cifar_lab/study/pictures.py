"""The pictures of a study: differences with their intervals, every seed, learning curves."""

import math
import re
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from cifar_lab.analysis.figures import BAD_COLOR, COLUMN, GOOD_COLOR, QUIET_COLOR, TRAIN_COLOR, Drawing, Layout, shorten
from cifar_lab.study import wording
from cifar_lab.study.design import Study, Variant
from cifar_lab.study.findings import Findings

WIDTH = 8.6  # inches of a picture on the page
MARKERS = {"better": "^", "worse": "v", "equivalent": "s", "no evidence": "o", "": "o"}
COLORS = {"better": GOOD_COLOR, "worse": BAD_COLOR, "equivalent": TRAIN_COLOR, "no evidence": QUIET_COLOR, "": QUIET_COLOR}
_BAND = "#e6eef5"
_MOST_PANELS = 48
_MOST_POINTS = 100  # of a curve; more are finer than the picture
_ROW = 0.27  # inches


@dataclass(frozen=True)
class Picture:
    """One picture of the report.

    Args:
        name: Of its file.
        title: Above it.
        caption: What it shows, with units, and how to read it.
        layout: Draws it, for the page and for one column of a paper.
    """

    name: str
    title: str
    caption: str
    layout: Layout


def differences(findings: Findings) -> Picture | None:
    """Paired difference of every variant to the baseline with its interval; None where there is none."""
    shown = [one for one in findings.comparisons if one.difference is not None and math.isfinite(one.difference)]
    if not shown:
        return None
    metric, times = findings.metric, wording.scale(findings.metric)

    def paint(axes: Axes, column: bool) -> None:
        axes.axvspan(-times * findings.margin, times * findings.margin, color=_BAND, zorder=0, linewidth=0)
        axes.axvline(0, color="#444444", linewidth=0.9, zorder=1)
        for place, one in enumerate(shown):
            color = COLORS.get(one.verdict, QUIET_COLOR)
            if one.interval95 is not None:
                axes.plot([times * end for end in one.interval95], [place, place], color=color, linewidth=1.6, zorder=2)
            filled = color if one.verdict not in ("no evidence", "") else "white"
            marker, size = MARKERS.get(one.verdict, "o"), 4 if column else 6
            axes.plot(times * (one.difference or 0.0), place, marker, color=color, markerfacecolor=filled, markersize=size)
        axes.set_xlabel(wording.axis(metric, difference=True, short=column))
        axes.margins(x=0.04)

    caption = (
        f"Mean paired difference to the baseline with its 95 % interval. Shaded: the margin, "
        f"{wording.margin(metric, findings.margin)}. ▲ better, ▼ worse, ■ equivalent, ○ no evidence or not judged."
    )
    return Picture("differences", "Differences to the baseline", caption, _rows([one.label for one in shown], paint))


def seeds(findings: Findings) -> Picture | None:
    """A dot for every finished run, a line at each mean that there is; None without finished runs."""
    shown = [one for one in findings.outcomes if one.values]
    if not shown:
        return None
    metric, times = findings.metric, wording.scale(findings.metric)

    def paint(axes: Axes, column: bool) -> None:
        base = next((one for one in shown if one.variant == findings.study.baseline), None)
        if base is not None and base.mean is not None:
            axes.axvline(times * base.mean, color="#999999", linewidth=0.9, linestyle="--", zorder=0)
        for place, one in enumerate(shown):
            color = TRAIN_COLOR if one is base else QUIET_COLOR
            values = [times * value for _, value in sorted(one.values.items())]
            # Spread over the row by their order, so that equal ones do not hide each other.
            heights = [place + 0.26 * ((k % 5) - 2) / 2 * (len(values) > 1) for k in range(len(values))]
            axes.plot(values, heights, "o", color=color, markersize=2.4 if column else 3.2, alpha=0.75, markeredgewidth=0)
            if one.mean is not None:
                line = [times * one.mean] * 2
                axes.plot(line, [place - 0.36, place + 0.36], color="black", linewidth=1.6, zorder=3)
        axes.set_xlabel(wording.axis(metric))

    caption = "A dot is a finished run (a seed); the line is the mean of its variant, the dashed line that of the baseline."
    if any(one.missed for one in shown):
        caption += " A variant of which some runs never got there has no mean."
    return Picture("seeds", "Every seed", caption, _rows([one.label for one in shown], paint))


def curves(study: Study) -> Picture | None:
    """Validation accuracy by epoch, a panel per variant, the baseline behind; None without rows."""
    column_name = "val_accuracy" if _measured(study, "val_accuracy") else "train_accuracy"
    found = {name: course(variant, column_name) for name, variant in study.variants.items()}
    shown = [name for name, points in found.items() if points]
    if not shown:
        return None
    panels = [name for name in shown if name != study.baseline][:_MOST_PANELS] or shown
    low = min(point[1] for name in shown for point in found[name])
    top = max(point[3] for name in shown for point in found[name])
    # The steep beginning would flatten what is to be compared: the picture begins where the second half of the rise does.
    floor = max(low, top - 3.0 * max(top - _late(found, shown), 0.05))

    def layout(column: bool) -> Drawing:
        across = 2 if column else 4
        across = min(across, len(panels))
        down = -(-len(panels) // across)

        def draw(figure: Figure) -> None:
            figure.set_layout_engine("none")  # placed by hand: measuring the texts of many panels takes longer than drawing them
            width, height = figure.get_size_inches()
            edges = {"left": 0.55 / width, "right": 1 - 0.1 / width, "bottom": 0.55 / height, "top": 1 - 0.25 / height}
            spec = figure.add_gridspec(down, across, wspace=0.08, hspace=0.22, **edges)
            grid = spec.subplots(sharex=True, sharey=True, squeeze=False)
            titles = fit([study.variants[name].label for name in panels], 20 if column else 26)
            for axes, name, label in zip(grid.flat, panels, titles, strict=False):
                if study.baseline in shown and name != study.baseline:
                    _band(axes, found[study.baseline], QUIET_COLOR)
                _band(axes, found[name], TRAIN_COLOR)
                axes.set_title(label, fontsize=7 if column else 9, parse_math=False, loc="left", pad=3)
                axes.grid(visible=True, linewidth=0.5)
                axes.set_ylim(100 * floor, 100 * (top + 0.05 * (top - floor)))
                axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=4))
                axes.tick_params(labelsize=6 if column else 8)
            for axes in list(grid.flat)[len(panels) :]:
                axes.set_visible(False)
            for axes in list(grid.flat)[max(0, len(panels) - across) : len(panels)]:
                axes.tick_params(labelbottom=True)  # shared axes have them in the last row only
            size = 7 if column else 9
            name = f"{'validation' if column_name == 'val_accuracy' else 'training'} accuracy (%)"
            figure.supxlabel("epoch", fontsize=size, y=0.06 / height, va="bottom")
            figure.supylabel(name, fontsize=size, x=0.05 / width, ha="left")

        width = COLUMN if column else WIDTH if across == 4 else max(4.0, 0.3 + 2.2 * across)
        return draw, width, 0.5 + (1.2 if column else 1.5 if across == 4 else 2.4) * down

    left_out = len([name for name in shown if name != study.baseline]) - _MOST_PANELS
    caption = (
        f"{'Validation' if column_name == 'val_accuracy' else 'Training'} accuracy by epoch: mean over the finished runs that"
        " got so far, and the band from the lowest to the highest of them. Blue: the variant; grey: the baseline."
        f"{'' if floor == low else ' The axis begins above the first epochs.'}"
        f"{f' The last {left_out} variants are left out here.' if left_out > 0 else ''}"
    )
    if column_name == "train_accuracy":
        caption += " There are no validation images; training accuracy is what was measured while weights were changing."
    return Picture("curves", "Learning curves", caption, layout)


Point = tuple[int, float, float, float]
"""Epoch, lowest, mean and highest."""


def course(variant: Variant, column: str) -> list[Point]:
    """A column of metrics.jsonl over the finished runs of a variant, epoch by epoch, thinned to what a picture can show."""
    by_epoch: dict[int, list[float]] = {}
    for run in variant.done.values():
        for row in run.rows:
            value = row.get(column)
            if value is not None and math.isfinite(value):
                by_epoch.setdefault(row["epoch"], []).append(value)
    points = [(epoch, min(v), statistics.fmean(v), max(v)) for epoch, v in sorted(by_epoch.items())]
    step = -(-len(points) // _MOST_POINTS)
    return [point for place, point in enumerate(points) if place % step == 0 or place == len(points) - 1] if points else []


def _measured(study: Study, column: str) -> bool:
    return any(row.get(column) is not None for v in study.variants.values() for run in v.done.values() for row in run.rows)


def _late(found: Mapping[str, Sequence[Point]], shown: Sequence[str]) -> float:
    """The lowest mean of the second half of any curve."""
    return min(point[2] for name in shown for point in found[name][len(found[name]) // 2 :])


def _band(axes: Axes, points: Sequence[Point], color: str) -> None:
    epochs = [point[0] for point in points]
    low, mean, high = ([100 * point[k] for point in points] for k in (1, 2, 3))
    axes.fill_between(epochs, low, high, color=color, alpha=0.22, linewidth=0)
    axes.plot(epochs, mean, color=color, linewidth=1.3, marker="o" if len(points) == 1 else "", markersize=3)


def fit(labels: Sequence[str], length: int) -> list[str]:
    """Names of that length or shorter that are still told apart: where they do not fit without their keys, else with a number."""
    if any(len(label) > length for label in labels):
        labels = [re.sub(r"(^|, )[^,=]+=", r"\1", label) or label for label in labels]
    short = [shorten(label, length) for label in labels]
    if len(set(short)) == len(short):
        return short
    digits = len(str(len(labels)))
    return [f"{shorten(label, length - digits - 2)} #{place}" for place, label in enumerate(labels, start=1)]


def _rows(labels: Sequence[str], paint: Callable[[Axes, bool], None]) -> Layout:
    """A picture with a line for each label, the first on top; ``paint`` gets its axes, and whether it is for a column."""

    def layout(column: bool) -> Drawing:
        def draw(figure: Figure) -> None:
            axes = figure.subplots()
            axes.set_yticks(range(len(labels)), labels=fit(labels, 22 if column else 42), parse_math=False)
            axes.set_ylim(len(labels) - 0.4, -0.6)
            axes.tick_params(axis="y", length=0)
            axes.spines["left"].set_visible(False)
            axes.grid(visible=True, axis="x", linewidth=0.6)
            axes.set_axisbelow(True)
            paint(axes, column)

        return draw, COLUMN if column else WIDTH, 0.75 + _ROW * (0.8 if column else 1.0) * len(labels)

    return layout
