"""Accuracy against cost: every run a labelled point over parameters and over multiply-adds."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Annotation, Text
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from matplotlib.transforms import Bbox

from cifar_lab.analysis.figures import QUIET_COLOR, headline, shorten
from cifar_lab.analysis.overlay import line_style

SIZE = (11.0, 5.2)  # inches
_NAME_LENGTH = 34
_GAP = 9.0  # points between a point and its label
_TRIES = (1.0, 1.8, 2.8, 4.0, 5.4, 7.0)  # further and further away
_MARKERS = {"-": "o", "--": "s", ":": "^"}
_SIDES = ((1, 0.35), (-1, 0.35), (0, 1), (0, -1), (1, 1), (-1, 1), (1, -1), (-1, -1))


@dataclass(frozen=True)
class Point:
    """One run, or the mean of several.

    Args:
        label: Shown beside it.
        accuracy: Fraction.
        low: Lower end of its interval.
        high: Upper end.
        num_params: Parameters.
        macs: Multiply-adds of one image.
    """

    label: str
    accuracy: float
    low: float
    high: float
    num_params: float
    macs: float


def draw_tradeoff(figure: Figure, points: Sequence[Point], bars: str) -> list[Bbox]:
    """Test accuracy over parameters and over MACs, both on logarithmic axes.

    Args:
        figure: Of ``SIZE``.
        points: One per run or group.
        bars: What the bars show, for the title.

    Returns:
        Where the names are, in pixels; none if they did not fit and a legend names the points.
    """
    figure.set_layout_engine("none")  # labels are placed by measuring, so nothing may move afterwards
    headline(figure, "accuracy against cost", f"up and to the left is better; bars: {bars}")
    panels = [figure.add_axes((left, 0.125, 0.41, 0.735)) for left in (0.075, 0.575)]
    costs = ([p.num_params for p in points], [p.macs for p in points])
    for axes, values, name in zip(panels, costs, ("parameters", "MACs of one image (multiply-adds)"), strict=True):
        _panel(axes, points, values, name)
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    labels = [_label(axes, points, values, renderer) for axes, values in zip(panels, costs, strict=True)]
    if None in labels:  # too many for names beside points: a legend has room for all
        handles = [_handle(number, shorten(p.label, _NAME_LENGTH)) for number, p in enumerate(points)]
        for axes, left in zip(panels, (0.075, 0.42), strict=True):
            axes.set_position((left, 0.125, 0.27, 0.735))
        figure.legend(handles=handles, loc="upper left", bbox_to_anchor=(0.70, 0.9), fontsize=8)
        return []
    return [box for boxes in labels for box in boxes or ()]


def _handle(number: int, label: str) -> Line2D:
    color, style = line_style(number)
    return Line2D([], [], color=color, marker=_MARKERS[style], linestyle="none", label=label)


def _panel(axes: Axes, points: Sequence[Point], costs: Sequence[float], name: str) -> None:
    axes.set_xscale("log")
    for number, (point, cost) in enumerate(zip(points, costs, strict=True)):
        color, style = line_style(number)
        spread = [[100 * (point.accuracy - point.low)], [100 * (point.high - point.accuracy)]]
        axes.errorbar(
            [cost],
            [100 * point.accuracy],
            yerr=spread,
            color=color,
            marker=_MARKERS[style],
            markersize=7,
            capsize=3,
            linewidth=1.2,
        )
    low, high = min(costs), max(costs)
    # Room for labels on both sides, at least a decade in all.
    room = max((high / low) ** 0.3, 10**0.5)
    axes.set_xlim(low / room, high * room)
    bottom, top = 100 * min(p.low for p in points), 100 * max(p.high for p in points)
    margin = max(0.16 * (top - bottom), 0.5)
    axes.set_ylim(bottom - margin, top + margin)
    axes.set_xlabel(name, fontsize=10)
    axes.set_ylabel("test accuracy (%)", fontsize=10)
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0,) if high / low > 20 else (1.0, 2.0, 5.0), numticks=12))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short_count(value)))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_locator(MaxNLocator(8))
    axes.grid(visible=True, linewidth=0.6)
    axes.set_axisbelow(True)


def short_count(value: float) -> str:
    """A count in few characters: 20 k, 1.5 M, 3 G."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.3g}"


def _label(axes: Axes, points: Sequence[Point], costs: Sequence[float], renderer: Any) -> list[Bbox] | None:
    """Write each name where it covers no point, no bar and no other name; one that stands off gets a thin line.

    Returns:
        Where the names are; None, and none is written, where one finds no room.
    """
    inside = axes.get_window_extent(renderer)
    taken = [_extent(axes, p, cost) for p, cost in zip(points, costs, strict=True)]
    made: list[Bbox] = []
    written: list[Annotation] = []
    for number in sorted(range(len(points)), key=lambda k: -points[k].accuracy):
        for distance, (right, up) in itertools.product(_TRIES, _SIDES):
            text = _write(axes, points[number], costs[number], distance, right, up)
            text.update_positions(renderer)
            box = Text.get_window_extent(text, renderer)  # of the letters, without the line
            if _fits(box, inside, [*taken, *made]):
                made.append(box)
                written.append(text)
                break
            text.remove()
        else:
            for text in written:
                text.remove()
            return None
    return made


def _extent(axes: Axes, point: Point, cost: float) -> Bbox:
    """What a point and its bar cover, in pixels."""
    half = 5 * axes.figure.dpi / 72
    x, y = axes.transData.transform((cost, 100 * point.accuracy))
    low, high = (axes.transData.transform((cost, 100 * end))[1] for end in (point.low, point.high))
    return Bbox.from_extents(x - half, min(y - half, low), x + half, max(y + half, high))


def _write(axes: Axes, point: Point, cost: float, distance: float, right: int, up: float) -> Annotation:
    return axes.annotate(
        shorten(point.label, _NAME_LENGTH),
        (cost, 100 * point.accuracy),
        xytext=(right * _GAP * distance, up * _GAP * distance),
        textcoords="offset points",
        ha=("center", "left", "right")[right],
        va="bottom" if up > 0 else "top",
        fontsize=9,
        parse_math=False,
        arrowprops={"arrowstyle": "-", "color": QUIET_COLOR, "linewidth": 0.6} if distance > 1 else None,
    )


def _fits(box: Bbox, inside: Bbox, others: Sequence[Bbox]) -> bool:
    within = inside.x0 <= box.x0 and box.x1 <= inside.x1 and inside.y0 <= box.y0 and box.y1 <= inside.y1
    return within and not any(box.overlaps(other) for other in others)
