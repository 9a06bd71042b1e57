"""What was found per class and per image, from the answers that the runs saved."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cifar_lab.analysis.typeset import Column, Row, Table
from cifar_lab.study import wording
from cifar_lab.study.design import Run, Study
from cifar_lab.study.findings import Findings
from cifar_lab.study.gallery import Gallery, Side, gallery
from cifar_lab.study.images import ImageChanges, RecallChange, changes_between, confusion_counts, load_answers, recall_changes
from cifar_lab.study.matrices import matrix_pictures
from cifar_lab.study.measures import Sheet, classes_of, classes_of_run
from cifar_lab.study.pictures import Picture

_CLASSES = 12  # columns of the table of recalls
_PAIRS = 8  # columns of the table of confusions
_KEPT = 25  # classes up to which report.json holds whole matrices
_POSITIONS = 200  # images of a side in report.json


@dataclass(frozen=True)
class Detail:
    """What the saved answers say beyond accuracy.

    Args:
        classes: Change in recall, a row per variant; None without classes to compare.
        recalls: The same with intervals, a row per variant and class.
        confused: Most confused pairs; None without answers.
        images: What only one side gets right; None without answers on both sides.
        pictures: Confusion matrices.
        numbers: The same for programs.
    """

    classes: Table | None = None
    recalls: Table | None = None
    confused: Table | None = None
    images: Gallery | None = None
    pictures: Sequence[Picture] = ()
    numbers: Mapping[str, Any] = field(default_factory=dict)


def look_closer(findings: Findings, measured: Sheet, test_images: Callable[[Run], np.ndarray | None] | None) -> Detail:
    """Read the answers of all finished runs, a variant at a time.

    Args:
        findings: Of the study.
        measured: Of its runs.
        test_images: Where pictures of test images come from; None: their numbers stand for them.
    """
    study = findings.study
    names = classes_of(study)
    if not names:
        return Detail()
    baseline = _answers(study, study.baseline, names)
    changes: dict[str, ImageChanges] = {}
    counts: dict[str, np.ndarray] = {}
    for name in study.variants:
        side = baseline if name == study.baseline else _answers(study, name, names)
        if side:
            counts[name] = np.mean([confusion_counts(one, len(names)) for one in side.values()], axis=0)
        if name != study.baseline:
            changes[name] = changes_between(name, side, baseline)
    recalls = {variant.name: recall_changes(study, variant.name, measured) for variant in study.others}
    recalls = {name: rows for name, rows in recalls.items() if any(row.difference is not None for row in rows)}
    shares = {name: count / np.maximum(count.sum(axis=1, keepdims=True), 1e-12) for name, count in counts.items()}
    return Detail(
        classes=_classes_table(study, recalls) if recalls else None,
        recalls=_recalls_table(study, recalls) if recalls else None,
        confused=_confused_table(study, counts, names) if counts else None,
        images=gallery(study, changes, lambda name: _answers(study, name, names), names, test_images),
        pictures=matrix_pictures(study, shares, names),
        numbers=_numbers(names, recalls, counts, changes),
    )


def _answers(study: Study, name: str, names: Sequence[str]) -> Side:
    """Of a variant's finished runs by seed, as far as they are about these classes: a sweep may be over data sets."""
    runs = {seed: run for seed, run in study.variants[name].done.items() if classes_of_run(run) == names}
    found = {seed: load_answers(run) for seed, run in runs.items()}
    return {seed: answers for seed, answers in found.items() if answers is not None}


def _classes_table(study: Study, recalls: Mapping[str, Sequence[RecallChange]]) -> Table:
    """Of many classes those in which some variant changes most."""
    first = next(iter(recalls.values()))
    change = {k: max(abs(rows[k].difference or 0.0) for rows in recalls.values()) for k in range(len(first))}
    places = sorted(sorted(change, key=lambda k: -change[k])[:_CLASSES])
    base: dict[str, Any] = {"variant": study.baseline, "label": study.variants[study.baseline].label}
    rows = [base | {first[k].name: first[k].baseline for k in places} | {f"{first[k].name} clear": False for k in places}]
    for name, found in recalls.items():
        row: dict[str, Any] = {"variant": name, "label": study.variants[name].label}
        row |= {found[k].name: found[k].difference for k in places}
        row |= {f"{found[k].name} clear": _is_clear(found[k]) for k in places}
        rows.append(row)

    def cell(name: str) -> Callable[[Row], str]:
        def show(row: Row) -> str:
            if row["variant"] == study.baseline:
                return wording.DASH if row[name] is None else f"{100 * row[name]:.1f} %"
            return wording.difference("recall_macro", row[name]) + ("*" if row[f"{name} clear"] else "")

        return show

    columns = [Column("variant", lambda row: row["label"], is_number=False)]
    columns += [Column(first[k].name, cell(first[k].name)) for k in places]
    few = f" The {_CLASSES} of {len(first)} classes in which some variant changes most." if len(first) > _CLASSES else ""
    caption = (
        "Recall of the baseline, and below it the mean paired difference of every variant in points. * the 95 % interval of that "
        "class alone does not hold 0; it is not corrected for the number of classes, and in a table of this size some such marks "
        f"are chance.{few}"
    )
    return Table("classes", caption, columns, rows)


def _recalls_table(study: Study, recalls: Mapping[str, Sequence[RecallChange]]) -> Table:
    rows = [
        {
            "variant": name,
            "label": study.variants[name].label,
            "class": one.name,
            "pairs": one.n,
            "recall_baseline": one.baseline,
            "recall_variant": one.variant,
            "difference": one.difference,
            "low": one.interval.low if one.interval else None,
            "high": one.interval.high if one.interval else None,
        }
        for name, found in recalls.items()
        for one in found
    ]

    def percent(name: str) -> Callable[[Row], str]:
        return lambda row: wording.value("recall_macro", row[name])

    def ends(row: Row) -> str:
        return wording.ends("recall_macro", None if row["low"] is None else (row["low"], row["high"]))

    columns = [
        Column("variant", lambda row: row["label"], is_number=False),
        Column("class", lambda row: row["class"], is_number=False),
        Column("pairs", lambda row: str(row["pairs"])),
        Column("baseline (%)", percent("recall_baseline")),
        Column("variant (%)", percent("recall_variant")),
        Column("difference", lambda row: wording.difference("recall_macro", row["difference"])),
        Column("95 % interval", ends),
    ]
    return Table(
        "recalls", "Recall of each class; differences in points, paired over seeds, Student's t interval.", columns, rows
    )


def _confused_table(study: Study, counts: Mapping[str, np.ndarray], names: Sequence[str]) -> Table:
    """The pairs that the baseline confuses most, or where it saved no answers the first variant that did."""
    first = counts.get(study.baseline, next(iter(counts.values())))
    wrong = first - np.diag(np.diag(first))
    order = np.argsort(-wrong, axis=None, kind="stable")[:_PAIRS]
    cells = [divmod(int(cell), len(names)) for cell in order if wrong.flat[cell] > 0]
    titles = {cell: f"{names[cell[0]]} → {names[cell[1]]}" for cell in cells}
    rows = [
        {"variant": name, "label": study.variants[name].label, **{titles[cell]: float(count[cell]) for cell in cells}}
        for name, count in counts.items()
    ]
    columns = [Column("variant", lambda row: row["label"], is_number=False)]
    columns += [Column(title, lambda row, title=title: f"{row[title]:.1f}") for title in titles.values()]
    caption = (
        "Mean count per run of test images of the first class taken for the second: the pairs that the baseline confuses most."
    )
    return Table("confused", caption, columns, rows)


def _is_clear(change: RecallChange) -> bool:
    return change.interval is not None and not change.interval.low <= 0 <= change.interval.high


def _numbers(
    names: Sequence[str],
    recalls: Mapping[str, Sequence[RecallChange]],
    counts: Mapping[str, np.ndarray],
    changes: Mapping[str, ImageChanges],
) -> dict[str, Any]:
    """For report.json."""
    return {
        "classes": list(names),
        "recall_changes": {
            variant: [
                {
                    "class": one.name,
                    "n": one.n,
                    "baseline": one.baseline,
                    "variant": one.variant,
                    "difference": one.difference,
                    "interval": None if one.interval is None else list(one.interval),
                }
                for one in found
            ]
            for variant, found in recalls.items()
        },
        "mean_confusion": {name: count.tolist() for name, count in counts.items()} if len(names) <= _KEPT else {},
        "images": {
            name: {
                "n": one.n,
                "images": one.images,
                "only_variant": one.only_variant[:_POSITIONS].tolist(),
                "only_variant_count": len(one.only_variant),
                "only_baseline": one.only_baseline[:_POSITIONS].tolist(),
                "only_baseline_count": len(one.only_baseline),
                "expected": one.expected,
                "churn": one.churn,
                "between": one.between,
                "reason": one.reason,
            }
            for name, one in changes.items()
        },
    }
