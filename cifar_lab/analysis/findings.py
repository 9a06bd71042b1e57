"""Findings in words, each with its numbers and where they come from: findings.json and findings.md."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np

from cifar_lab.analysis.calibration import calibration
from cifar_lab.analysis.classes import class_table
from cifar_lab.analysis.course import Finding, training_findings
from cifar_lab.analysis.figures import percent
from cifar_lab.analysis.made import Made, Run
from cifar_lab.errors import CheckpointError
from cifar_lab.stats import mean_interval, wilson

_PAIRS, _CLASSES = 5, 3  # how many are named
_INTERVAL = "Wilson, 95 %"


def findings(run: Run) -> Made:
    """What the run shows, in sentences: best epoch, fit, convergence, counts, classes, confused pairs, calibration."""
    parts: dict[str, Callable[[Run], list[Finding]]] = {"training": training_findings, "answers": answer_findings}
    found: list[Finding] = []
    left_out = {}
    for name, part in parts.items():
        try:
            found += part(run)
        except CheckpointError as error:
            left_out[f"findings about the {name}"] = error.what
    files = {"findings.json": json.dumps(found, indent=2, ensure_ascii=False) + "\n", "findings.md": _markdown(run.name, found)}
    lines = tuple(finding["text"] for finding in found)
    return Made({"findings": found}, texts=files, lines=lines, left_out=left_out)


def answer_findings(run: Run) -> list[Finding]:
    """What the answers on the test set say."""
    labels, predicted = run.labels("test"), run.predicted("test")
    source = "predictions.npz: test_logits, test_labels" if run.has_logits else "test_predictions.npz: labels, predicted"
    table = class_table(predicted, labels, run.class_names)
    found = [_counts(labels, predicted), _classes(table), _pairs(labels, predicted, run.class_names, table)]
    sure = _calibration(run)
    of_sure = source if run.has_logits else f"{source}, confidence; result.json: metrics.test.ece"
    of_sure += ", val_logits, val_labels" if sure["numbers"]["temperature"] is not None else ""
    return [*({**finding, "source": source} for finding in found), {**sure, "source": of_sure}]


def _counts(labels: np.ndarray, predicted: np.ndarray) -> Finding:
    total, right = len(labels), int((predicted == labels).sum())
    low, high = wilson(right, total)
    text = (
        f"Of {total:,} test images {right:,} are answered correctly and {total - right:,} incorrectly: accuracy"
        f" {100 * right / total:.2f} % (95 % interval {100 * low:.2f} to {100 * high:.2f} %, Wilson)."
    )
    numbers = {
        "correct": right,
        "incorrect": total - right,
        "accuracy": right / total,
        "interval": [low, high],
        "kind": _INTERVAL,
    }
    return {"name": "counts", "text": text, "numbers": numbers}


def _classes(table: list[dict[str, Any]]) -> Finding:
    """The classes found least and most often; equal ones in the order of the labels."""
    known = [row for row in table if row["recall"] is not None]
    worst, best = _ends(known)

    def says(rows: list[dict[str, Any]]) -> str:
        return ", ".join(f"{r['name']} {percent(r['recall'])} of {r['support']:,} ({_span(r['recall_interval'])})" for r in rows)

    kept = ("name", "right", "support", "recall", "recall_interval")
    numbers = {name: [{key: row[key] for key in kept} for row in rows] for name, rows in (("worst", worst), ("best", best))}
    if worst:
        text = f"Worst classes by recall: {says(worst)}. Best: {says(best)}. In brackets 95 % intervals (Wilson)."
    else:
        text = f"No class is found more often than another: all have a recall of {percent(known[0]['recall'])}."
    return {"name": "classes", "text": text, "numbers": {**numbers, "kind": _INTERVAL}}


def _ends(known: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The worst and the best by recall; both empty where all are equal.

    A recall at which the one list ends and the other begins says nothing of its classes, unless it is the lowest or highest
    of all: then they are of that end alone.
    """
    count = max(1, min(_CLASSES, len(known) // 2))
    worst = sorted(known, key=lambda row: row["recall"])[:count]
    best = sorted(known, key=lambda row: -row["recall"])[:count]
    between = worst[-1]["recall"]
    if between != best[-1]["recall"]:
        return worst, best
    if worst[0]["recall"] == best[0]["recall"]:
        return [], []
    return [row for row in worst if row["recall"] < between] or worst, [row for row in best if row["recall"] > between] or best


def _pairs(labels: np.ndarray, predicted: np.ndarray, class_names: tuple[str, ...], table: list[dict[str, Any]]) -> Finding:
    """The most frequent mistakes by count; equal ones in the order of the labels."""
    count = len(class_names)
    wrong = predicted != labels
    cells = np.bincount(labels[wrong] * count + predicted[wrong], minlength=count * count)
    order = [int(i) for i in np.argsort(-cells, kind="stable")[:_PAIRS] if cells[i]]
    pairs: list[dict[str, Any]] = []
    says = []
    for cell in order:
        true, taken_for = divmod(cell, count)
        times, support = int(cells[cell]), table[true]["support"]
        interval = list(wilson(times, support))
        pair = {"true": class_names[true], "predicted": class_names[taken_for], "count": times, "support": support}
        pairs.append({**pair, "share": times / support, "interval": interval})
        share = f"{percent(times / support)}, {_span(interval)}"
        says.append(f"{class_names[true]} → {class_names[taken_for]} {times:,} of {support:,} ({share})")
    text = f"Most confused (true class → predicted class): {'; '.join(says)}. In brackets share and 95 % interval (Wilson)."
    if not pairs:
        text = "No class was taken for another."
    return {"name": "confused", "text": text, "numbers": {"pairs": pairs, "kind": _INTERVAL}}


def _calibration(run: Run) -> Finding:
    made = calibration(run)
    before, after, temperature = (made.numbers[key] for key in ("before", "after", "temperature"))
    sure, right = percent(before["confidence"]), percent(before["accuracy"])
    low, high = _gap_interval(run)
    word = "as sure as right, as far as these images tell"
    if sure != right and not low <= 0 <= high:
        word = "too sure" if low > 0 else "not sure enough"
    text = (
        f"The model is on average {sure} sure and right in {right} ({word}): ECE {100 * before['ece']:.2f} points on the test set"
    )
    if after is not None:
        text += f", {100 * after['ece']:.2f} with temperature {temperature:.3f}, fitted on the validation images"
        text += " (the end of what was looked at: none is best)" if made.numbers["temperature_at_its_bound"] else ""
    numbers: dict[str, Any] = {key: before[key] for key in ("ece", "confidence", "accuracy")}
    numbers |= {"gap": before["confidence"] - before["accuracy"], "gap_interval": [low, high], "gap_kind": "Student t, 95 %"}
    numbers |= {"temperature": temperature, "ece_at_temperature": after and after["ece"]}
    return {"name": "calibration", "text": f"{text}.", "numbers": numbers}


def _gap_interval(run: Run) -> tuple[float, float]:
    """Ends of the 95 % interval of how much surer than right the model is, from its answers to single test images."""
    gaps = run.confidence("test") - (run.predicted("test") == run.labels("test"))
    interval = mean_interval(gaps) if len(gaps) > 1 else None
    # One image tells nothing, and neither do several that are all alike.
    return (interval.low, interval.high) if interval is not None else (-1.0, 1.0)


def _span(interval: list[float]) -> str:
    return f"{100 * interval[0]:.1f} to {100 * interval[1]:.1f} %"


def _markdown(name: str, found: list[Finding]) -> str:
    """A list of sentences; under each where its numbers come from."""
    lines = [f"# Findings: {name}", ""]
    for finding in found:
        lines += [f"- {finding['text']}", f"  <br><sub>`{finding['name']}` from {finding['source']}</sub>"]
    return "\n".join([*lines, "", "The numbers of every sentence are in findings.json.", ""])
