"""report.html: everything on one page that needs nothing beside itself."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

from cifar_lab.analysis.typeset import Column, Table
from cifar_lab.display import duration
from cifar_lab.study import answer, tables, wording
from cifar_lab.study.design import Study
from cifar_lab.study.detail import Detail
from cifar_lab.study.inline import svg
from cifar_lab.study.ledger import Ledger
from cifar_lab.study.pictures import Picture
from cifar_lab.study.verdicts import Findings

_TEMPLATE = "report.html.j2"
_CLAIM_MARKS = {"supported": "✓", "refuted": "✗", "inconclusive": "?"}


def page(findings: Findings, ledger: Ledger, detail: Detail, pictures: Sequence[Picture]) -> str:
    """The page as text.

    Args:
        findings: What was found.
        ledger: The measures of all runs.
        detail: What was found per class and per image.
        pictures: Those that could be drawn.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,  # whatever the file is called: names of variants are a person's text
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )
    environment.filters["verdict_class"] = _verdict_class
    return environment.get_template(_TEMPLATE).render(_context(findings, ledger, detail, pictures))


def _context(findings: Findings, ledger: Ledger, detail: Detail, pictures: Sequence[Picture]) -> dict[str, Any]:
    study = findings.study
    drawn = dict.fromkeys(("differences", "seeds", "curves", "cost", "confusion", "confusion_changes"))
    drawn |= {one.name: _inline(one) for one in pictures}
    found: dict[str, Any] = {
        "title": study.name,
        "question": study.settings.question,
        "answer": answer.answer(findings),
        "cautions": answer.cautions(findings),
        "claims": [_claim(one) for one in findings.claims],
        "results": tables.results(findings),
        "remarks": [f"{one.label}: {one.note}" for one in findings.comparisons if one.note],
        "pictures": drawn,
        "convergence": tables.convergence(findings, ledger),
        "cost": tables.cost(findings, ledger),
        "classes": detail.classes,
        "recalls": detail.recalls,
        "confused": detail.confused,
        "images": detail.images,
        "settings": tables.settings(study),
        "facts": tables.facts(study),
        "command": study.command,
        "overrides": _overrides(study),
        "failures": _failures(study),
        "method": answer.method(findings),
        "conditions": list(answer.conditions(study).items()),
        "origin": "Every number above is made of these runs: the folder lies beside this page, and the configuration digest says which "
        "settings it was run with.",
        "runs": runs(findings, ledger),
    }
    return {**found, "contents": _contents(found)}


def runs(findings: Findings, ledger: Ledger) -> Table:
    """Every planned run in one line, for people."""
    metric = findings.metric

    def seconds(row: Mapping[str, Any]) -> str:
        return wording.DASH if row.get("train_s") is None else duration(row["train_s"])

    columns = [
        Column("run", lambda row: row["folder"], is_number=False),
        Column("seed", lambda row: str(row["seed"])),
        Column("status", lambda row: f"{row['status']}{', ' + row['code'] if row['code'] else ''}", is_number=False),
        Column(f"{metric}{' (%)' if wording.is_share(metric) else ''}", lambda row: wording.value(metric, row.get(metric))),
        Column("best epoch", lambda row: wording.DASH if row.get("best_epoch") is None else str(row["best_epoch"])),
        Column("training", seconds),
        Column("configuration", lambda row: (row["config_digest"] or wording.DASH)[:12], is_number=False),
        Column("code", lambda row: (row["code_digest"] or wording.DASH)[:8], is_number=False),
    ]
    return Table("runs", "Digests are shortened here and whole in report.csv.", columns, ledger.rows)


def _inline(picture: Picture) -> dict[str, Any]:
    drawn = svg(picture.layout, picture.name, f"{picture.title}. {picture.caption}")
    return {"name": picture.name, "title": picture.title, "caption": picture.caption, "svg": drawn}


def _claim(one: Any) -> dict[str, str]:
    claim = one.claim
    return {
        "verdict": one.verdict,
        "mark": _CLAIM_MARKS.get(one.verdict, ""),
        "text": claim.text or f"{claim.metric} of {claim.variant or 'the baseline'} {claim.relation}",
        "source": claim.source,
        "words": one.words,
    }


def _overrides(study: Study) -> list[tuple[str, str]]:
    """What was given for each variant, without the seed."""
    found = []
    for variant in study.variants.values():
        given = [text for text in variant.runs[0].overrides if text.partition("=")[0].lstrip("+") != "seed"]
        seeds = ",".join(str(run.seed) for run in variant.runs)
        found.append((variant.label, " ".join([*given, f"seed={seeds}"])))
    return found


def _failures(study: Study) -> list[dict[str, str]]:
    found = []
    for run in study.runs:
        if run.status in ("done", "waiting", "unfinished"):
            continue
        error = run.result.get("error") or {}
        log = run.folder / "run.log"
        found.append(
            {
                "run": run.name,
                "status": run.status,
                "code": error.get("code") or "",
                "message": error.get("message") or "no message was left",
                "hint": error.get("hint") or "",
                "log": f"{run.name}/run.log" if log.is_file() else wording.DASH,
            }
        )
    return found


def _contents(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    sections = [
        ("claims", "Claims", found["claims"]),
        ("results", "Results", True),
        ("training", "Training", found["convergence"] or found["pictures"]["curves"]),
        ("costs", "Cost", found["cost"]),
        (
            "classes",
            "Per class and image",
            found["classes"] or found["confused"] or found["images"] or found["pictures"]["confusion"],
        ),
        ("differs", "What differs", True),
        ("commands", "Commands", True),
        ("failures", "Failures", found["failures"]),
        ("method", "How the numbers are made", True),
        ("environment", "Environment", True),
        ("runs", "Every run", True),
    ]
    return [(id, name) for id, name, there in sections if there]


def _verdict_class(cell: str) -> str:
    """CSS class of a cell that is a verdict; empty for others."""
    word = next((word for word, mark in wording.MARKS.items() if word and cell == f"{mark} {word}"), "")
    return word.replace(" ", "-")
