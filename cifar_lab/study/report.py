"""From a sweep's folder, finished or not, to its report: report.html, report.csv, report.json, figures and tables."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cifar_lab import storage
from cifar_lab.analysis import figures
from cifar_lab.analysis.typeset import Table, check_formats, save_table, to_csv
from cifar_lab.study import answer, pareto, pictures, tables
from cifar_lab.study.design import Run, Study, load_study
from cifar_lab.study.detail import Detail, look_closer
from cifar_lab.study.ledger import Ledger
from cifar_lab.study.page import page, runs
from cifar_lab.study.verdicts import Comparison, Findings, Outcome, judge

SCHEMA = 1
TestImages = Callable[[Run], np.ndarray | None]
"""Test images of a run, uint8 [N, 3, H, W] in the order of its answers; None where they are not to be had."""


@dataclass(frozen=True)
class Report:
    """What was made.

    Args:
        findings: What was found.
        files: Where it is written, report.html first.
    """

    findings: Findings
    files: list[Path]


def build_report(
    folder: Path | str,
    *,
    figure_formats: Sequence[str] = (),
    table_formats: Sequence[str] = (),
    test_images: TestImages | None = None,
) -> Report:
    """Judge a sweep and write down everything that is known of it.

    It can be made at any time from the folders of the runs; the same folders give the same bytes.

    Args:
        folder: Of the sweep.
        figure_formats: Of ``pdf``, ``svg``, ``png``: every picture on its own as well, in ``figures``.
        table_formats: Of ``tex``, ``md``, ``csv``: every table on its own as well, in ``tables``.
        test_images: Where pictures of test images come from; None: their numbers stand for them. It is asked only where there
            is something to show.

    Raises:
        DataError: The folder is no sweep.
        ResumeError: Its plan is of another version.
        ConfigError: A format that is none.
    """
    if figure_formats:
        figures.check_formats(figure_formats)
    if table_formats:
        check_formats(table_formats)
    study = load_study(folder)
    findings, ledger = judge(study), Ledger(study)
    detail = look_closer(findings, test_images)
    drawn = _pictures(findings, ledger, detail)
    files = [study.folder / name for name in ("report.html", "report.csv", "report.json")]
    storage.write_text(files[0], page(findings, ledger, detail, drawn))
    storage.write_text(files[1], to_csv(ledger.table))
    storage.write_json(files[2], plain(findings, ledger, detail))
    for picture in drawn if figure_formats else ():
        files += figures.save_layout(study.folder / "figures" / picture.name, picture.layout, figure_formats)
    for table in _tables(findings, ledger, detail) if table_formats else ():
        files += save_table(study.folder / "tables", table, table_formats)
    return Report(findings, files)


def plain(findings: Findings, ledger: Ledger, detail: Detail) -> dict[str, Any]:
    """For programs: content of report.json."""
    study = findings.study
    return {
        "schema": SCHEMA,
        "name": study.name,
        "settings": dataclasses.asdict(study.settings),
        "command": study.command,
        "code": study.code,
        "baseline": study.baseline,
        "metric": findings.metric,
        "margin": findings.margin,
        "answer": answer.answer(findings),
        "cautions": answer.cautions(findings),
        "runs": _states(study),
        "outcomes": [_outcome(one) for one in findings.outcomes],
        "comparisons": [_comparison(one) for one in findings.comparisons],
        "pairs": findings.pairs,
        "attainable_p": findings.attainable_p,
        "detectable": findings.detectable,
        "claims": [
            {
                "claim": dataclasses.asdict(one.claim),
                "verdict": one.verdict,
                "estimate": one.estimate,
                "interval": _ends(one.interval),
                "words": one.words,
            }
            for one in findings.claims
        ],
        "other_metrics": {
            metric: {variant: _outcome(one) for variant, one in outcomes.items()}
            for metric, outcomes in findings.other_metrics.items()
        },
        "convergence": _rows(tables.convergence(findings, ledger)),
        "cost": _rows(tables.cost(findings, ledger)),
        **detail.numbers,
        "facts": {name: dict(one) for name, one in study.facts.items()},
        "environment": answer.conditions(study),
    }


def _pictures(findings: Findings, ledger: Ledger, detail: Detail) -> list[pictures.Picture]:
    found = [
        pictures.differences(findings),
        pictures.seeds(findings),
        pictures.curves(findings.study, ledger),
        pareto.cost_picture(findings, ledger),
        *detail.pictures,
    ]
    return [one for one in found if one is not None]


def _tables(findings: Findings, ledger: Ledger, detail: Detail) -> list[Table]:
    study = findings.study
    found = [
        tables.results(findings),
        tables.convergence(findings, ledger),
        tables.cost(findings, ledger),
        detail.classes,
        detail.recalls,
        detail.confused,
        detail.images.table if detail.images else None,
        tables.settings(study),
        tables.facts(study),
        runs(findings, ledger),
    ]
    return [one for one in found if one is not None]


def _states(study: Study) -> dict[str, int]:
    """How many runs are in each state, and how many are planned."""
    states: dict[str, int] = {}
    for run in study.runs:
        states[run.status] = states.get(run.status, 0) + 1
    return {"planned": len(study.runs), **dict(sorted(states.items()))}


def _outcome(one: Outcome) -> dict[str, Any]:
    return {
        "variant": one.variant,
        "label": one.label,
        "n": one.n,
        "planned": one.planned,
        "failed": dict(one.failed),
        "mean": one.mean,
        "sd": one.sd,
        "values": {str(seed): value for seed, value in sorted(one.values.items())},
    }


def _comparison(one: Comparison) -> dict[str, Any]:
    found = {field.name: getattr(one, field.name) for field in dataclasses.fields(one)}
    return found | {"interval95": _ends(one.interval95), "interval90": _ends(one.interval90)}


def _ends(interval: Sequence[float] | None) -> list[float] | None:
    return None if interval is None else list(interval)


def _rows(table: Table | None) -> list[Mapping[str, Any]]:
    return [] if table is None else list(table.rows)
