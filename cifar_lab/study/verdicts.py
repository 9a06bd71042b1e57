"""What may be concluded of a study's variants: one word each, by rules that were fixed before the runs."""

import math
import statistics
from collections import Counter
from collections.abc import Sequence

import numpy as np

from cifar_lab.errors import ConfigError
from cifar_lab.paired import attainable_p, smallest_detectable
from cifar_lab.stats import are_equal
from cifar_lab.study import notes
from cifar_lab.study.claims import judge_claims
from cifar_lab.study.deciding import BETTER, EQUIVALENT, WORSE, Decision, decide, inside
from cifar_lab.study.design import Study, Variant
from cifar_lab.study.findings import Comparison, Findings, Outcome
from cifar_lab.study.measures import (
    COUNTED,
    FACTS_ONLY,
    METRICS,
    REACHING,
    TIMED,
    Sheet,
    as_difference,
    classes_of,
    is_counted,
    is_metric,
    is_shared,
    latency,
    lower_is_better,
    reached,
    read_measures,
)

__all__ = ["Comparison", "Findings", "Outcome", "judge"]


def judge(study: Study) -> Findings:
    """Judge all variants of a study, finished or not.

    Raises:
        ConfigError: study.metric is no column, or a claim is about something that the study does not have.
    """
    metric, margin = study.settings.metric, study.settings.margin
    if not is_metric(metric, classes_of(study)):
        raise ConfigError(f"study.metric={metric} is no column of report.csv", hint=f"columns are {', '.join(METRICS)}")
    sheet = read_measures(study)
    outcomes = [_outcome(study, variant, metric, sheet) for variant in study.variants.values()]
    comparisons = _compare(study, outcomes, sheet)
    pairs, attainable, detectable = _reach(outcomes, comparisons, study.baseline)
    by_seeds = metric not in COUNTED | FACTS_ONLY
    counts = {one.variant: one.n if by_seeds and (one.p is not None or one.n < 2) else 0 for one in comparisons}
    told = [
        *notes.condition_notes(study),
        *notes.size_notes(study, counts),
        *notes.added_notes(study),
        *notes.missing_notes(study),
        *notes.collapse_notes(study),
        *notes.sharing_notes(study),
        *notes.class_notes(study),
        *notes.data_notes(study),
    ]
    claims = judge_claims(study, sheet)
    return Findings(
        study, metric, margin, outcomes, comparisons, attainable, detectable, told, claims, _others(study, metric, sheet), pairs
    )


def _outcome(study: Study, variant: Variant, metric: str, sheet: Sheet) -> Outcome:
    found = {seed: sheet[run.name].get(metric) for seed, run in variant.done.items()}
    values = {seed: value for seed, value in found.items() if value is not None}
    k, n = reached(variant, metric, sheet) if metric in REACHING else (0, 0)
    mean = statistics.fmean(values.values()) if values and k == n else None
    if metric in FACTS_ONLY and (measured := latency(study, variant.name)):
        mean = measured[0]
    sd = statistics.stdev(values.values()) if len(values) > 1 and k == n else None
    failed = Counter(notes.ending(run) for run in variant.runs if run.status in ("failed", "diverged"))
    return Outcome(variant.name, variant.label, len(values), len(variant.runs), dict(failed), mean, sd, values, n - k)


def _others(study: Study, metric: str, sheet: Sheet) -> dict[str, dict[str, Outcome]]:
    """Outcomes in every other column in which some run has a value."""
    columns = dict.fromkeys([*METRICS, *(key for row in sheet.values() for key in row)])
    found = {}
    for column in columns:
        by_variant = {name: _outcome(study, variant, column, sheet) for name, variant in study.variants.items()}
        if column != metric and any(one.mean is not None or one.values for one in by_variant.values()):
            found[column] = by_variant
    return found


def _compare(study: Study, outcomes: Sequence[Outcome], sheet: Sheet) -> list[Comparison]:
    """All variants with the baseline; those that cannot be tested still count for the correction of the others."""
    metric, margin = study.settings.metric, study.settings.margin
    by_name = {one.variant: one for one in outcomes}
    baseline = by_name[study.baseline]
    others = [by_name[variant.name] for variant in study.others]
    columns = {one.variant: differences(one, baseline) for one in others}
    reasons = {one.variant: _untestable(study, one, baseline, metric, sheet) for one in others}
    tested = [columns[one.variant] if not reasons[one.variant] else [] for one in others]
    decisions = decide(tested, margin, lower_is_better=lower_is_better(metric))
    found = []
    for one, decision in zip(others, decisions, strict=True):
        note = reasons[one.variant] or _remark(metric, decision, margin, one, baseline)
        if metric in FACTS_ONLY or is_counted(metric, one.values.values(), baseline.values.values()):
            decision = _by_fact(one, baseline, metric)
        difference = decision.difference
        if difference is None and columns[one.variant] and not (one.missed or baseline.missed):
            difference = statistics.fmean(columns[one.variant])
        found.append(
            Comparison(
                variant=one.variant,
                label=one.label,
                n=len(columns[one.variant]),
                difference=difference,
                interval95=decision.interval95,
                interval90=decision.interval90,
                p=decision.p,
                p_corrected=decision.p_corrected,
                verdict=decision.verdict,
                note=note,
            )
        )
    return found


def differences(one: Outcome, baseline: Outcome) -> list[float]:
    """One less the other by the seeds that both have, in their order."""
    return [one.values[seed] - baseline.values[seed] for seed in sorted(one.values.keys() & baseline.values.keys())]


def _untestable(study: Study, one: Outcome, baseline: Outcome, metric: str, sheet: Sheet) -> str:
    """Why a comparison in this metric is no matter of a test; empty where it is one."""
    if metric in FACTS_ONLY:
        return "measured once a variant, on one machine: seeds say nothing about it, no verdict"
    if is_counted(metric, one.values.values(), baseline.values.values()):
        return "counted, the same in every run: no test is needed"
    runs = [run for name in (one.variant, study.baseline) for run in study.variants[name].done.values()]
    if metric in TIMED and (shared := [run for run in runs if is_shared(run)]):
        return f"{len(shared)} of {len(runs)} runs shared a device: their seconds allow no verdict"
    if metric in REACHING:
        sides = [study.variants[name] for name in (one.variant, study.baseline)]
        counts = [reached(variant, metric, sheet) for variant in sides]
        if any(k < n for k, n in counts):
            shown = ", ".join(f"{side.label} in {k} of {n} runs" for side, (k, n) in zip(sides, counts, strict=True))
            return f"not always reached ({shown}): the rest have no value, and leaving them out would mislead; no verdict"
    return ""


def _by_fact(one: Outcome, baseline: Outcome, metric: str) -> Decision:
    """A count decides by itself; a time measured once does not."""
    if one.mean is None or baseline.mean is None:
        return Decision(None)
    difference = one.mean - baseline.mean
    if metric in FACTS_ONLY:
        return Decision(difference)
    if difference == 0:
        return Decision(difference, verdict=EQUIVALENT)
    return Decision(difference, verdict=BETTER if (difference < 0) == lower_is_better(metric) else WORSE)


def _remark(metric: str, decision: Decision, margin: float, one: Outcome, baseline: Outcome) -> str:
    """What the word alone would not tell."""
    remarks = []
    if decision.verdict in (BETTER, WORSE) and decision.interval90 is not None and inside(decision.interval90, margin):
        remarks.append(f"clear, but within the margin of {as_difference(metric, margin, sign='')}: it does not matter")
    if decision.p is not None and are_equal(differences(one, baseline)):
        remarks.append("every pair differs by the same: there is no spread to judge by")
    lost = sum(one.failed.values()) + sum(baseline.failed.values())
    if lost and decision.verdict:
        remarks.append(f"{lost} runs failed or diverged: judged by the pairs that finished")
    return "; ".join(remarks)


def _reach(
    outcomes: Sequence[Outcome], comparisons: Sequence[Comparison], baseline: str
) -> tuple[int, float | None, float | None]:
    """The most pairs that a tested comparison has, the smallest p that they can give, and what they can detect.

    The standard deviation of differences is pooled over the comparisons with so many pairs.
    """
    tested = [one for one in comparisons if one.p is not None]
    if not tested:
        return max((one.n for one in comparisons), default=0), None, None
    pairs = max(one.n for one in tested)
    by_name = {one.variant: one for one in outcomes}
    columns = [differences(by_name[one.variant], by_name[baseline]) for one in tested if one.n == pairs]
    sd = math.sqrt(statistics.fmean(0.0 if are_equal(column) else float(np.var(column, ddof=1)) for column in columns))
    return pairs, attainable_p(pairs), smallest_detectable(sd, pairs, len(comparisons))
