"""How soon a run got good: epochs, images and seconds until a validation accuracy."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

MILESTONES = (0.5, 0.7, 0.8, 0.9)
"""Validation accuracies, as fractions."""


def milestones(
    rows: Iterable[Mapping[str, Any]], *, images: int, before_s: float = 0.0, accuracies: Sequence[float] = MILESTONES
) -> list[dict[str, Any]]:
    """When each accuracy was first measured; epochs without a validation cannot be the first.

    Args:
        rows: Rows of metrics.jsonl with ``epoch``, ``seconds`` and ``val_accuracy``.
        images: Training images of an epoch.
        before_s: Seconds spent before the first epoch on what training needs, such as features of a frozen network.
        accuracies: Fractions.

    Returns:
        For each accuracy ``accuracy``, ``epoch``, ``images`` and ``seconds``, which are None where it was never reached.
    """
    seconds = before_s
    first: dict[float, tuple[int, float]] = {}
    for row in rows:
        seconds += row["seconds"]
        reached = row.get("val_accuracy")
        for accuracy in accuracies:
            if reached is not None and reached >= accuracy:
                first.setdefault(accuracy, (row["epoch"], seconds))
    found = []
    for accuracy in accuracies:
        epoch, spent = first.get(accuracy, (None, None))
        found.append(
            {"accuracy": accuracy, "epoch": epoch, "images": None if epoch is None else epoch * images, "seconds": spent}
        )
    return found
