"""What was found per class and per image, as tables, pictures and galleries."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cifar_lab.analysis.typeset import Table
from cifar_lab.study.design import Run
from cifar_lab.study.matrices import matrix_pictures
from cifar_lab.study.pictures import Picture
from cifar_lab.study.verdicts import Findings


@dataclass(frozen=True)
class Detail:
    """What the saved answers of the runs say beyond accuracy.

    Args:
        classes: Change in recall; None without answers on both sides.
        confused: Most confused pairs; None without answers.
        images: What only one side gets right; None without answers on both sides.
        pictures: Confusion matrices.
        method: How it was made, for the page.
        numbers: The same for programs.
    """

    classes: Table | None = None
    confused: Table | None = None
    images: Mapping[str, Any] | None = None
    pictures: Sequence[Picture] = ()
    method: Sequence[str] = ()
    numbers: Mapping[str, Any] = field(default_factory=dict)

    def plain(self) -> dict[str, Any]:
        """For report.json."""
        return dict(self.numbers)


def look_closer(findings: Findings, test_images: Callable[[Run], np.ndarray | None] | None) -> Detail:
    """Read the answers of all finished runs."""
    study = findings.study
    shares: dict[str, np.ndarray] = {}
    names: Sequence[str] = ()
    for variant in study.variants.values():
        for run in variant.done.values():
            names = run.result["data"]["classes"]
        found = [s for s in (_share(run, len(names)) for run in variant.done.values()) if s is not None]
        if found:
            shares[variant.name] = np.mean(found, axis=0)
    return Detail(pictures=matrix_pictures(study, shares, names))


def _share(run: Run, k: int) -> np.ndarray | None:
    path = run.folder / "predictions.npz"
    if not path.is_file():
        return None
    with np.load(path, allow_pickle=False) as saved:
        labels, predicted = saved["test_labels"], saved["test_logits"].argmax(axis=1)
    counts = np.zeros((k, k))
    np.add.at(counts, (labels, predicted), 1)
    return counts / counts.sum(axis=1, keepdims=True)
