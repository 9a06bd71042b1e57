"""The tables of a study: what came of every variant, how soon, at what cost, from which settings, and what failed."""

from collections.abc import Mapping, Sequence
from typing import Any

from cifar_lab.analysis.convergence import MILESTONES
from cifar_lab.analysis.typeset import Column, Row, Table
from cifar_lab.differing import differing
from cifar_lab.display import duration
from cifar_lab.study import wording
from cifar_lab.study.audit import CONFOUNDING, EXPECTED
from cifar_lab.study.design import Study
from cifar_lab.study.findings import Findings
from cifar_lab.study.ledger import Ledger
from cifar_lab.study.measures import SETTLED, in_words, reached

_UNSAID = ("seed", "tracker", "sweep", "study")
"""Settings that make no variant."""
_COST = {
    "num_params": "parameters",
    "macs": "MACs",
    "latency_ms": "latency (ms)",
    "peak_memory_mib": "peak memory (MiB)",
    "train_s": "training",
    "images_per_s": "images a second",
}


def results(findings: Findings) -> Table:
    """A row per variant: n, mean, standard deviation, difference to the baseline, its interval, corrected p, verdict."""
    metric = findings.metric
    compared = {one.variant: one for one in findings.comparisons}
    rows = []
    for one in findings.outcomes:
        found = compared.get(one.variant)
        rows.append(
            {
                "variant": one.variant,
                "label": one.label,
                "planned": one.planned,
                "n": one.n,
                "mean": one.mean,
                "sd": one.sd,
                "pairs": found.n if found else None,
                "difference": found.difference if found else None,
                **_interval("low", "high", found.interval95 if found else None),
                **_interval("low90", "high90", found.interval90 if found else None),
                "p": found.p if found else None,
                "p_holm": found.p_corrected if found else None,
                "verdict": found.verdict if found else "baseline" if one.variant == findings.study.baseline else "",
                "note": found.note if found else "",
                "failed": " ".join(f"{count} {code}" for code, count in sorted(one.failed.items())),
            }
        )
    unit = f" ({wording.unit(metric)})" if wording.unit(metric) else ""
    columns = [
        Column("variant", lambda row: row["label"], is_number=False),
        Column("n", lambda row: str(row["n"]) if row["n"] == row["planned"] else f"{row['n']} of {row['planned']}"),
        Column(f"{in_words(metric)}{unit}", lambda row: wording.mean_sd(metric, row["mean"], row["sd"])),
        *(_compared(metric) if compared else ()),
        *([Column("failed", lambda row: row["failed"], is_number=False)] if any(row["failed"] for row in rows) else ()),
    ]
    caption = f"{in_words(metric).capitalize()}: mean ± standard deviation over n seeds."
    if compared:
        points = wording.unit(metric, difference=True)
        caption += (
            f" Difference to the baseline{f' in {points}' if points else ''}: mean over shared seeds, 95 % t interval;"
            " p: sign-flip permutation test, corrected by Holm."
        )
    return Table("results", caption, columns, rows)


def _compared(metric: str) -> list[Column]:
    def p(row: Row) -> str:
        return "" if row["verdict"] == "baseline" else wording.p_text(row["p_holm"])

    def interval(row: Row) -> str:
        return "" if row["verdict"] == "baseline" else wording.ends(metric, ends_of(row))

    def word(row: Row) -> str:
        return "baseline" if row["verdict"] == "baseline" else wording.verdict(row["verdict"])

    return [
        Column("difference", lambda row: "" if row["verdict"] == "baseline" else wording.difference(metric, row["difference"])),
        Column("95 % interval", interval),
        Column("p (Holm)", p),
        Column("verdict", word, is_number=False),
    ]


def ends_of(row: Row) -> tuple[float, float] | None:
    """``low`` and ``high`` of a row, where it has them."""
    return None if row["low"] is None else (row["low"], row["high"])


def convergence(findings: Findings, ledger: Ledger) -> Table | None:
    """Epochs and seconds until validation accuracies, means over the runs that got there; None where none was measured."""
    shares = [share for share in (f"{100 * m:.0f}" for m in MILESTONES) if _anyone(findings, ledger, f"epochs_to_{share}")]
    if not shares:
        return None
    rows = []
    for one in findings.outcomes:
        row: dict[str, Any] = {"variant": one.variant, "label": one.label, "n": one.n}
        for share in shares:
            got, runs = reached(findings.study.variants[one.variant], f"epochs_to_{share}", ledger.measured)
            row |= {f"reached_{share}": got, "validated": runs}
            for what in ("epochs", "images", "seconds"):
                row[f"{what}_to_{share}"] = ledger.mean(one.variant, f"{what}_to_{share}")
        row["settled_epoch"] = ledger.mean(one.variant, "settled_epoch")
        rows.append(row)

    def show(share: str) -> Column:
        def cell(row: Row) -> str:
            got, n = row[f"reached_{share}"], row["validated"]
            if not n:
                return wording.DASH
            if not got:
                return f"never (0 of {n})"
            epochs, seconds = row[f"epochs_to_{share}"], row[f"seconds_to_{share}"]
            spent = "" if seconds is None else f", {duration(seconds)}"
            return f"{epochs:.1f}{spent}{'' if got == n else f' ({got} of {n})'}"

        return Column(f"to {share} %", cell)

    columns = [
        Column("variant", lambda row: row["label"], is_number=False),
        *(show(share) for share in shares),
        Column("settled", lambda row: wording.DASH if row["settled_epoch"] is None else f"{row['settled_epoch']:.1f}"),
    ]
    missing = [f"{100 * m:.0f} %" for m in MILESTONES if f"{100 * m:.0f}" not in shares]
    caption = (
        "Epochs, and seconds of training with validation, until a validation accuracy was first measured: means over the runs"
        " that got there, with their number where some did not. Settled: the epoch from which on the best validation accuracy"
        f" rose by no more than {100 * SETTLED:.1f} points in all."
    )
    if missing:
        caption += f" No run reached {wording.listed(missing)}."
    return Table("convergence", caption, columns, rows)


def cost(findings: Findings, ledger: Ledger) -> Table | None:
    """What every variant costs, beside the metric; None where nothing was measured."""
    known = [name for name in _COST if _anyone(findings, ledger, name)]
    if not known:
        return None
    rows = []
    for one in findings.outcomes:
        row = {"variant": one.variant, "label": one.label, "n": one.n, "mean": one.mean, "sd": one.sd}
        row |= {name: ledger.mean(one.variant, name) for name in known}
        rows.append({**row, "shared_device": ledger.shared(one.variant)})

    def show(name: str) -> Column:
        def cell(row: Row) -> str:
            if row[name] is None:
                return wording.DASH
            if name == "train_s":
                return duration(row[name]) + ("*" if row["shared_device"] else "")
            return wording.value(name, row[name]) + ("*" if name == "images_per_s" and row["shared_device"] else "")

        return Column(_COST[name], cell)

    unit = wording.unit(findings.metric)
    columns = [
        Column("variant", lambda row: row["label"], is_number=False),
        Column(
            f"{in_words(findings.metric)}{f' ({unit})' if unit else ''}",
            lambda row: wording.mean_sd(findings.metric, row["mean"], row["sd"]),
        ),
        *(show(name) for name in known),
    ]
    caption = "Means over finished runs. MACs are multiply-adds of one image"
    caption += "; latency is the median time of one call with one image, measured alone." if "latency_ms" in known else "."
    if any(row["shared_device"] for row in rows):
        caption += " * Other runs had the same device at the time: these seconds are in no verdict."
    return Table("cost", caption, columns, rows)


def settings(study: Study) -> Table:
    """A row for each setting in which a variant is not as the baseline."""
    base = _settings(study.variants[study.baseline].runs[0].config)
    rows = []
    for variant in study.others:
        before, after = differing([base, _settings(variant.runs[0].config)])
        rows += [
            {
                "variant": variant.name,
                "label": variant.label,
                "setting": key,
                "baseline": _shown(before[key]),
                "value": _shown(after[key]),
            }
            for key in after
        ]
    columns = [
        Column("variant", lambda row: row["label"], is_number=False),
        Column("setting", lambda row: row["setting"], is_number=False),
        Column("baseline", lambda row: row["baseline"], is_number=False),
        Column("variant's", lambda row: row["value"], is_number=False),
    ]
    caption = "Settings that are not as in the baseline. Of another component, its name stands for its settings; - is none."
    return Table("settings", caption, columns, rows)


def facts(study: Study) -> Table | None:
    """What was counted of every variant before its runs, where it differs; None where nothing is known or differs."""
    keys = (*CONFOUNDING, *EXPECTED)
    found = {name: {key: study.facts.get(name, {}).get(key) for key in keys} for name in study.variants}
    unlike = [key for key in keys if len({repr(one.get(key)) for one in found.values() if one}) > 1]
    if not unlike:
        return None
    rows = [
        {"variant": name, "label": study.variants[name].label, **{key: one.get(key) for key in unlike}}
        for name, one in found.items()
    ]

    def cell(key: str) -> Column:
        base = found[study.baseline].get(key)

        def show(row: Row) -> str:
            if row[key] is None:
                return wording.DASH
            text = f"{row[key]:,}" if isinstance(row[key], int) else str(row[key])
            return text if row[key] == base or base is None else f"{text} ≠"

        return Column(_COST.get(key, key.replace("_", " ")), show)

    columns = [Column("variant", lambda row: row["label"], is_number=False), *(cell(key) for key in unlike)]
    caption = (
        "Counted before the runs; ≠ marks what is not as in the baseline: such a variant changes more than its setting says."
    )
    return Table("facts", caption, columns, rows)


def _settings(config: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key.split(".")[0] not in _UNSAID}


def _shown(value: Any) -> str:
    return "-" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _interval(low: str, high: str, interval: Sequence[float] | None) -> dict[str, float | None]:
    return {low: interval[0], high: interval[1]} if interval is not None else {low: None, high: None}


def _anyone(findings: Findings, ledger: Ledger, name: str) -> bool:
    return any(ledger.values(one.variant, name) for one in findings.outcomes)
