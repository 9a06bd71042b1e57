"""How the run went: curves.png from the rows of metrics.jsonl."""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from cifar_lab import storage
from cifar_lab.analysis.figures import COLUMN, QUIET_COLOR, TRAIN_COLOR, VAL_COLOR, Drawing, headline, render
from cifar_lab.analysis.made import LeftOut, Made, Run

_DECADES = 100.0  # a positive quantity that spans this ratio is drawn on a logarithmic axis


def curves(run: Run) -> Made:
    """Loss, accuracy and learning rate over epochs, with the epoch whose weights are tested and an early stop."""
    if not run.rows:
        raise LeftOut("the run was not trained: metrics.jsonl has no rows")
    best, stopped = run.result["best_epoch"], run.rows[-1]["epoch"] if run.result["stopped_early"] else None
    layout = partial(_layout, run.rows, run.name, best, stopped)
    return Made({"best_epoch": best, "stopped_early_after_epoch": stopped, "rows": run.rows}, {"curves": layout})


def save_curves(
    folder: Path,
    rows: Sequence[Mapping[str, Any]],
    *,
    run_name: str,
    best_epoch: int | None = None,
    stopped_epoch: int | None = None,
) -> None:
    """Write curves.png: losses, accuracies and learning rate over epochs.

    Args:
        folder: Run folder.
        rows: Rows of metrics.jsonl with ``epoch``, ``lr``, ``train_loss``, ``train_accuracy``, ``val_loss`` and
            ``val_accuracy``; a value that is null or missing is a gap. No rows: no picture.
        run_name: For the title.
        best_epoch: Marked in every panel.
        stopped_epoch: The epoch after which the run was stopped early, marked likewise; None: it was not.
    """
    if rows:
        made = draw_curves(rows, run_name=run_name, best_epoch=best_epoch, stopped_epoch=stopped_epoch)
        storage.write_bytes(folder / "curves.png", made)


def draw_curves(
    rows: Sequence[Mapping[str, Any]], *, run_name: str, best_epoch: int | None = None, stopped_epoch: int | None = None
) -> bytes:
    """The picture of ``save_curves`` as PNG."""
    return render(*_layout(rows, run_name, best_epoch, stopped_epoch, False))


def _layout(
    rows: Sequence[Mapping[str, Any]], run_name: str, best_epoch: int | None, stopped_epoch: int | None, column: bool
) -> Drawing:
    """Three panels, side by side or below each other."""
    marks = [("tested epoch", best_epoch, "--"), ("stopped early", stopped_epoch, ":")]

    def draw(figure: Figure) -> None:
        headline(figure, run_name)
        losses, accuracies, rates = figure.subplots(3, 1) if column else figure.subplots(1, 3)
        _line(losses, rows, "train_loss", "training", TRAIN_COLOR)
        _line(losses, rows, "val_loss", "validation", VAL_COLOR)
        _line(accuracies, rows, "train_accuracy", "training", TRAIN_COLOR, 100.0)
        _line(accuracies, rows, "val_accuracy", "validation", VAL_COLOR, 100.0)
        _line(rates, rows, "lr", "learning rate", QUIET_COLOR)
        _finish(losses, "loss", "cross-entropy (nats)", marks, logarithmic=True)
        _finish(accuracies, "accuracy", "accuracy (%)", marks)
        _finish(rates, "learning rate", "learning rate", marks, logarithmic=True)
        for axes in (losses, accuracies):
            if axes.get_legend_handles_labels()[0]:
                axes.legend(loc="best", fontsize=6.5 if column else 9, frameon=True, framealpha=0.9, edgecolor="none")

    return (draw, COLUMN, 6.6) if column else (draw, 13.2, 4.2)


def _line(axes: Axes, rows: Sequence[Mapping[str, Any]], column: str, label: str, color: str, factor: float = 1.0) -> None:
    """One curve; epochs without a value (validation every N epochs, none at all) are left out, not drawn as zero."""
    values = [(row["epoch"], row.get(column)) for row in rows]
    points = [(epoch, factor * value) for epoch, value in values if value is not None and math.isfinite(value)]
    if not points:
        return
    marker = "o" if len(points) <= 30 else ""
    axes.plot(*zip(*points, strict=True), color=color, label=label, marker=marker, markersize=3.5, linewidth=1.6)


def _finish(
    axes: Axes, title: str, ylabel: str, marks: Sequence[tuple[str, int | None, str]], *, logarithmic: bool = False
) -> None:
    """Axis names, whole epochs, the marks (name, epoch, line style), and a logarithmic axis where it helps."""
    axes.set(title=title, xlabel="epoch", ylabel=ylabel)
    axes.grid(visible=True, linewidth=0.6)
    axes.set_axisbelow(True)
    epochs = [float(x) for line in axes.lines for x in np.asarray(line.get_xdata())]
    values = [float(y) for line in axes.lines for y in np.asarray(line.get_ydata())]
    if not values:
        axes.text(0.5, 0.5, "not measured", transform=axes.transAxes, ha="center", color=QUIET_COLOR)
        return
    if logarithmic and min(values) > 0 and max(values) / min(values) >= _DECADES:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(numticks=8))
        axes.yaxis.set_minor_formatter(NullFormatter())
    if min(values) == max(values) > 0:
        # A constant, such as the learning rate of many runs: from zero, not magnified to its last digits.
        axes.set_ylim(0, 1.5 * values[0])
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
    if len(set(epochs)) == 1:
        axes.set_xlim(epochs[0] - 1, epochs[0] + 1)
        axes.set_xticks(epochs[:1])
    for name, epoch, style in marks:
        if epoch is not None:
            axes.axvline(
                epoch, color=QUIET_COLOR, linestyle=style, linewidth=1.0 if style == "--" else 1.8, label=f"{name} ({epoch})"
            )
