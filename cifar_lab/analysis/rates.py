"""The learning rate over the steps of a run: schedule.png."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from cifar_lab.analysis.figures import TRAIN_COLOR, VAL_COLOR, headline, save_figure

_POINTS = 4000  # more than a picture has columns
_DECADES = 100.0  # rates that span this ratio are drawn on a logarithmic axis beside the plain one


def save_rates(
    folder: Path, rates: Mapping[str, Sequence[float]], steps_per_epoch: int, *, title: str, formats: Sequence[str] = ("png",)
) -> list[Path]:
    """Write schedule: rate by step and epoch; on a logarithmic axis too where the rates span two decades.

    Args:
        folder: Where to.
        rates: Case -> a rate for each step; one without a name, or two.
        steps_per_epoch: For the axis of epochs.
        title: Above it.
        formats: See ``figures.save_figure``.
    """
    values = {case: np.asarray(row, dtype=np.float64) for case, row in rates.items()}
    total = len(next(iter(values.values())))
    shown = np.unique(np.linspace(0, total - 1, min(total, _POINTS)).round().astype(int))
    positive = np.concatenate(list(values.values()))
    positive = positive[positive > 0]
    both = len(positive) > 0 and positive.max() / positive.min() >= _DECADES

    def draw(figure: Figure) -> None:
        headline(figure, title, f"{total // steps_per_epoch} epochs of {steps_per_epoch:,} steps")
        panels = figure.subplots(1, 2 if both else 1, squeeze=False)[0]
        for axes in panels:
            for (case, row), color, style in zip(values.items(), (TRAIN_COLOR, VAL_COLOR), ("-", "--"), strict=False):
                axes.plot(shown / steps_per_epoch, row[shown], color=color, linestyle=style, linewidth=1.8, label=case)
            axes.set_xlabel("epochs done")
            axes.set_ylabel("learning rate")
            axes.grid(axis="y")
            axes.set_axisbelow(True)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            axes.set_xlim(0, max(total / steps_per_epoch, 1))
            if len(values) > 1:
                axes.legend(loc="best", title="depends on the run")
        panels[0].set_ylim(0, float(positive.max()) * 1.05 if len(positive) else 1.0)
        if both:
            panels[1].set_yscale("log")
            panels[1].set_ylabel("learning rate (logarithmic axis)")

    return save_figure(folder / "schedule", draw, 11.0 if both else 7.0, 4.2, formats)
