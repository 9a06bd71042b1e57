"""The classification report: precision, recall, F1 and support of every class, as scikit-learn lays it out."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cifar_lab import storage


def save_report(
    folder: Path, probs: np.ndarray, labels: np.ndarray, class_names: Sequence[str], *, run_name: str
) -> dict[str, Any]:
    """Write classification_report.json and .txt.

    Args:
        folder: Run folder.
        probs: float64 [N, K].
        labels: int64 [N].
        class_names: K names.
        run_name: Above the table of the text.

    Returns:
        The report: class name, ``macro avg`` and ``weighted avg`` -> precision, recall, f1-score, support; ``accuracy``.
    """
    from sklearn.metrics import classification_report

    predicted = probs.argmax(axis=1)
    classes = np.arange(probs.shape[1])
    names = [str(name) for name in class_names]
    common: dict[str, Any] = {"labels": classes, "target_names": names, "zero_division": 0}
    report = _plain(classification_report(labels, predicted, output_dict=True, **common))
    text = str(classification_report(labels, predicted, digits=4, **common))
    storage.write_json(folder / "classification_report.json", report)
    storage.write_text(folder / "classification_report.txt", f"{run_name}: {len(labels):,} test images\n\n{text}")
    return report


def _plain(value: Any) -> Any:
    """NumPy's numbers as Python's, which JSON knows; a support is a count."""
    if isinstance(value, dict):
        return {key: int(item) if key == "support" else _plain(item) for key, item in value.items()}
    return float(value)
