"""Learning curves of several runs in one picture."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from cifar_lab.analysis.figures import QUIET_COLOR, RUN_COLORS, headline, shorten

SIZE = (13.2, 4.8)  # inches
_LEGEND_COLUMNS = 4
_NAME_LENGTH = 44


@dataclass(frozen=True)
class Curves:
    """What is drawn in one color: a run, or the runs of one configuration.

    Args:
        label: For the legend.
        runs: Rows of metrics.jsonl, run by run.
        before_s: Seconds that each run spent before its first epoch.
        best_epochs: Of each run; None where nothing chose one.
    """

    label: str
    runs: Sequence[Sequence[Mapping[str, Any]]]
    before_s: Sequence[float]
    best_epochs: Sequence[int | None]


def draw_overlay(figure: Figure, entries: Sequence[Curves]) -> None:
    """Validation loss and accuracy over epochs, and accuracy over seconds of training; a ring marks the epoch that was tested."""
    headline(figure, "validation during training")
    losses, accuracies, times = figure.subplots(1, 3)
    handles = []
    for number, entry in enumerate(entries):
        color, style = line_style(number)
        for rows, before_s, best in zip(entry.runs, entry.before_s, entry.best_epochs, strict=True):
            seconds = before_s + np.cumsum([row["seconds"] for row in rows])
            epochs = [row["epoch"] for row in rows]
            for axes, places, column, factor in (
                (losses, epochs, "val_loss", 1.0),
                (accuracies, epochs, "val_accuracy", 100.0),
                (times, seconds, "val_accuracy", 100.0),
            ):
                values = [row.get(column) for row in rows]
                _line(axes, epochs, places, values, factor, best, color, style, alone=len(entry.runs) == 1)
        name = shorten(entry.label, _NAME_LENGTH) + (f" ({len(entry.runs)} runs)" if len(entry.runs) > 1 else "")
        handles += losses.plot([], [], color=color, linestyle=style, linewidth=2.0, label=name)
    _finish(losses, "loss", "epoch", "cross-entropy (nats)")
    _finish(accuracies, "accuracy", "epoch", "accuracy (%)")
    _finish(times, "accuracy over time", "seconds of training and validation", "accuracy (%)")
    handles += losses.plot(
        [], [], color=QUIET_COLOR, marker="o", linestyle="none", markerfacecolor="white", label="epoch that was tested"
    )
    legend = figure.legend(
        handles=handles, loc="outside lower center", ncols=min(len(handles), _LEGEND_COLUMNS), fontsize=9, handlelength=2.4
    )
    for text in legend.get_texts():
        text.set_parse_math(False)


def line_style(number: int) -> tuple[str, str]:
    """Color and line of the run in this place: eight colors, and dashes once they are used up."""
    return RUN_COLORS[number % len(RUN_COLORS)], ("-", "--", ":")[number // len(RUN_COLORS) % 3]


def _line(
    axes: Axes,
    epochs: Sequence[int],
    places: Sequence[float] | np.ndarray,
    values: Sequence[float | None],
    factor: float,
    best: int | None,
    color: str,
    style: str,
    *,
    alone: bool,
) -> None:
    """One run's curve; an epoch without a value is left out."""
    points = [(e, x, factor * y) for e, x, y in zip(epochs, places, values, strict=True) if y is not None and math.isfinite(y)]
    if not points:
        return
    few = len(points) == 1
    axes.plot(
        [x for _, x, _ in points],
        [y for _, _, y in points],
        color=color,
        linestyle=style,
        linewidth=1.8 if alone else 1.0,
        marker="o" if few else "",
        markersize=3.5,
    )
    for epoch, x, y in points:
        if epoch == best:
            axes.plot([x], [y], color=color, marker="o", markersize=6, markerfacecolor="white", linestyle="none", zorder=3)


def _finish(axes: Axes, title: str, xlabel: str, ylabel: str) -> None:
    axes.set(title=title, xlabel=xlabel, ylabel=ylabel)
    axes.grid(visible=True, linewidth=0.6)
    axes.set_axisbelow(True)
    if not [line for line in axes.lines if len(np.asarray(line.get_xdata()))]:
        axes.text(0.5, 0.5, "not measured", transform=axes.transAxes, ha="center", color=QUIET_COLOR)
    elif xlabel == "epoch":
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
