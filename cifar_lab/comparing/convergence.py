"""How soon each entry got to a validation accuracy, as a table."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from cifar_lab.analysis.convergence import MILESTONES, milestones
from cifar_lab.analysis.typeset import Column, Row, Table
from cifar_lab.comparing.entries import Entry, before_s
from cifar_lab.comparing.tables import DASH, SHARED, duration, marked


def convergence(entries: Sequence[Entry]) -> list[list[list[dict[str, Any]]]]:
    """Milestones [entry][run][accuracy]."""
    return [
        [milestones(run.rows, images=run.result["data"]["images"]["train"], before_s=before_s(run)) for run in entry.runs]
        for entry in entries
    ]


def convergence_table(entries: Sequence[Entry]) -> Table:
    """A row per milestone; epochs and seconds of each entry, means over the runs that got there, with their number.

    Runs without a validation accuracy, of which nothing can be said, do not count.
    """
    found = convergence(entries)
    rows = []
    for place, accuracy in enumerate(MILESTONES):
        row: dict[str, Any] = {"val_accuracy": accuracy}
        for entry, runs in zip(entries, found, strict=True):
            row[f"{entry.label} validated"] = entry.validated
            reached = [run[place] for run in runs if run[place]["epoch"] is not None]
            row[f"{entry.label} n"] = len(reached)
            for key in ("epoch", "images", "seconds"):
                row[f"{entry.label} {key}"] = float(np.mean([one[key] for one in reached])) if reached else None
        rows.append(row)
    columns = [Column("validation accuracy", lambda row: f"{100 * row['val_accuracy']:.0f} %", is_number=False)]
    columns += [Column(entry.label, _milestone(entry)) for entry in entries]
    caption = "First epoch and seconds of training with validation until a validation accuracy is reached."
    if any(not entry.validated for entry in entries):
        caption += f" {DASH}: no validation accuracy was measured."
    if any(entry.is_shared for entry in entries):
        caption += f" {SHARED}"
    return Table("convergence", caption, columns, rows)


def _milestone(entry: Entry) -> Callable[[Row], str]:
    def show(row: Row) -> str:
        n, validated = row[f"{entry.label} n"], row[f"{entry.label} validated"]
        if not validated:
            return DASH
        share = f" ({n} of {validated} runs)" if len(entry.runs) > 1 else ""
        if not n:
            return f"never{share}"
        epoch = f"{row[f'{entry.label} epoch']:.1f}".removesuffix(".0")
        seconds = marked(duration(row[f"{entry.label} seconds"]), entry.is_shared)
        return f"epoch {epoch}, {seconds}{share}"

    return show
