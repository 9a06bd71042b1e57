"""Accuracy beside cost: which variants no other one beats at both."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import FuncFormatter, MaxNLocator
from matplotlib.transforms import Bbox

from cifar_lab.analysis.figures import COLUMN, QUIET_COLOR, Drawing, shorten
from cifar_lab.analysis.tradeoff import short_count
from cifar_lab.study import wording
from cifar_lab.study.ledger import Ledger
from cifar_lab.study.measures import LOWER_IS_BETTER
from cifar_lab.study.pictures import COLORS, MARKERS, WIDTH, Picture
from cifar_lab.study.verdicts import Findings

COSTS = ("macs", "latency_ms", "train_s", "num_params", "peak_memory_mib")
_NAMES = {
    "macs": "MACs of one image",
    "latency_ms": "latency of one image (ms)",
    "train_s": "seconds of training",
    "num_params": "parameters",
    "peak_memory_mib": "peak memory (MiB)",
}
_PANELS = 2
_VARIES = 1.02  # highest over lowest cost below which there is nothing to trade
_SIDES = tuple(itertools.product((1.0, 1.9, 3.0, 4.4, 6.0), ((1, 0.4), (-1, 0.4), (1, -0.8), (-1, -0.8), (0, 1), (0, -1))))


@dataclass(frozen=True)
class Point:
    """A variant in the picture.

    Args:
        label: Beside it.
        metric: Mean of the study's metric.
        sd: Over seeds; None for one run.
        costs: By name of the measure.
        verdict: Of the comparison with the baseline.
        is_baseline: Whether it is the baseline itself.
    """

    label: str
    metric: float
    sd: float | None
    costs: Mapping[str, float]
    verdict: str
    is_baseline: bool


def cost_picture(findings: Findings, ledger: Ledger) -> Picture | None:
    """The study's metric over up to two costs that differ between variants; None where none does."""
    points = _points(findings, ledger)
    panels = _panels(findings, ledger, points)
    if len(points) < 2 or not panels:
        return None
    lower = findings.metric in LOWER_IS_BETTER

    def layout(column: bool) -> Drawing:
        def draw(figure: Figure) -> None:
            figure.set_layout_engine("none")  # names are placed by measuring, so nothing may move afterwards
            rows, across = (len(panels), 1) if column else (1, len(panels))
            edges = (
                {"left": 0.17, "right": 0.97, "bottom": 0.2 / rows, "top": 0.98, "hspace": 0.32}
                if column
                else {"left": 0.09, "right": 0.985, "bottom": 0.15, "top": 0.97, "wspace": 0.22}
            )
            grid = figure.add_gridspec(rows, across, **edges)
            for place, cost in enumerate(panels):
                _panel(figure.add_subplot(grid[place]), findings.metric, cost, points, lower, 6 if column else 8.5)

        return draw, COLUMN if column else WIDTH if len(panels) == 2 else 5.6, 2.5 * len(panels) if column else 3.8

    caption = (
        f"Mean {wording.metric_name(findings.metric)} with one standard deviation, over cost. "
        f"{'Down' if lower else 'Up'} and to the left is better; the line joins the variants that no other one beats at both. "
        "Named: those and the baseline. Shapes as above."
    )
    return Picture("cost", "Cost beside accuracy", caption, layout)


def front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Places of the points (cost, value) that none with as little cost or less beats or equals in value; by cost.

    Of equal points the first counts.
    """
    order = sorted(range(len(points)), key=lambda k: (points[k][0], -points[k][1]))
    found: list[int] = []
    for place in order:
        if not found or points[place][1] > points[found[-1]][1]:
            found.append(place)
    return found


def _points(findings: Findings, ledger: Ledger) -> list[Point]:
    verdicts = {one.variant: one.verdict for one in findings.comparisons}
    found = []
    for one in findings.outcomes:
        costs = {name: ledger.mean(one.variant, name) for name in COSTS}
        if one.mean is not None:
            known = {name: cost for name, cost in costs.items() if cost}
            is_baseline = one.variant == findings.study.baseline
            found.append(Point(one.label, one.mean, one.sd, known, verdicts.get(one.variant, ""), is_baseline))
    return found


def _panels(findings: Findings, ledger: Ledger, points: Sequence[Point]) -> list[str]:
    """Costs that are known of all points, differ, and were measured fairly."""
    shared = any(ledger.shared(one.variant) for one in findings.outcomes)
    found = []
    for cost in COSTS:
        values = [point.costs[cost] for point in points if cost in point.costs]
        varies = len(values) == len(points) and values and max(values) > _VARIES * min(values)
        if varies and not (shared and cost == "train_s"):
            found.append(cost)
    return found[:_PANELS]


def _panel(axes: Axes, metric: str, cost: str, points: Sequence[Point], lower: bool, size: float) -> None:
    times = wording.scale(metric)
    places = [(point.costs[cost], times * point.metric) for point in points]
    # Costs are means: rounding makes them equal that were counted equal.
    best = front([(float(f"{x:.5g}"), -y if lower else y) for x, y in places])
    axes.plot([places[k][0] for k in best], [places[k][1] for k in best], color="#bbbbbb", linewidth=1.2, zorder=1)
    for point, (x, y) in zip(points, places, strict=True):
        color = "black" if point.is_baseline else COLORS.get(point.verdict, QUIET_COLOR)
        marker = "D" if point.is_baseline else MARKERS.get(point.verdict, "o")
        fill = color if point.is_baseline or point.verdict not in ("", "no evidence") else "white"
        bar = None if point.sd is None else times * point.sd
        axes.errorbar([x], [y], yerr=bar, color=color, marker=marker, markerfacecolor=fill, markersize=5.5, elinewidth=0.9)
    low, high = min(x for x, _ in places), max(x for x, _ in places)
    if high > 20 * low:
        axes.set_xscale("log")
    else:
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.margins(x=0.18)
    axes.margins(y=0.16)
    if cost in ("macs", "num_params"):
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short_count(value)))
    axes.set_xlabel(_NAMES[cost], fontsize=size)
    axes.set_ylabel(wording.axis(metric), fontsize=size)
    axes.tick_params(labelsize=size - 0.5)
    axes.grid(visible=True, linewidth=0.5)
    axes.set_axisbelow(True)
    named = dict.fromkeys([*best, *(k for k, point in enumerate(points) if point.is_baseline)])
    _name(axes, [(points[k].label, *places[k]) for k in named], places, size)


def _name(axes: Axes, named: Sequence[tuple[str, float, float]], places: Sequence[tuple[float, float]], size: float) -> None:
    """Write names where they cover no point and no other name; one that stands off gets a thin line."""
    renderer: Any = axes.figure.canvas.get_renderer()  # type: ignore[attr-defined]
    inside = axes.get_window_extent(renderer)
    axes.autoscale_view()  # now, not when it is drawn: places in pixels depend on it
    half = 4.5 * axes.figure.dpi / 72
    dots = [axes.transData.transform(place) for place in places]
    taken = [Bbox.from_extents(x - half, y - half, x + half, y + half) for x, y in dots]
    for label, x, y in named:
        for distance, (right, up) in _SIDES:
            text = axes.annotate(
                shorten(label, 26),
                (x, y),
                xytext=(right * 8 * distance, up * 8 * distance),
                textcoords="offset points",
                ha=("center", "left", "right")[right],
                va="bottom" if up > 0 else "top",
                fontsize=size,
                parse_math=False,
                arrowprops={"arrowstyle": "-", "color": QUIET_COLOR, "linewidth": 0.5} if distance > 1 else None,
            )
            text.update_positions(renderer)
            box = Text.get_window_extent(text, renderer)
            within = inside.x0 <= box.x0 and box.x1 <= inside.x1 and inside.y0 <= box.y0 and box.y1 <= inside.y1
            if within and not any(box.overlaps(other) for other in taken):
                taken.append(box)
                break
            text.remove()
