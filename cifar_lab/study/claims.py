"""What becomes of the statements that a study was made to check: supported, refuted or left open, with an interval."""

from collections.abc import Sequence
from dataclasses import dataclass

from cifar_lab.config import ClaimConfig
from cifar_lab.paired import LEVEL, sign_flip_p
from cifar_lab.stats import Interval, fisher_exact, mean_interval
from cifar_lab.study.asked import check_claims
from cifar_lab.study.classes import judge_confused, judge_worst
from cifar_lab.study.design import Study, Variant
from cifar_lab.study.measures import (
    COUNTED,
    FACTS_ONLY,
    REACHING,
    TIMED,
    Sheet,
    as_difference,
    as_range,
    as_text,
    classes_of,
    in_words,
    is_counted,
    is_shared,
    latency,
    reached,
    read_measures,
)
from cifar_lab.study.naming import find_variant
from cifar_lab.study.relations import INCONCLUSIVE, REFUTED, SUPPORTED, judge_between, judge_difference

__all__ = ["ClaimVerdict", "check_claims", "judge_claims"]

Judged = tuple[str, float | None, Interval | None, str]
"""Verdict, estimate, interval and words."""


@dataclass(frozen=True)
class ClaimVerdict:
    """A statement and what the runs say of it.

    Args:
        claim: The statement.
        verdict: ``supported``, ``refuted`` or ``inconclusive``.
        estimate: Difference, mean or share that it was judged by, in the metric's unit (a share of seeds for classes).
        interval: Of the estimate, 95 %; of a latency what the spread of its calls allows. None where there is none.
        words: Numbers, n and the reason, as a person reads them.
    """

    claim: ClaimConfig
    verdict: str
    estimate: float | None
    interval: Interval | None
    words: str


def judge_claims(study: Study, sheet: Sheet | None = None) -> list[ClaimVerdict]:
    """Judge every claim by the runs that are done.

    Args:
        study: It.
        sheet: Measures of its runs, where they have been read already.

    Raises:
        ConfigError: A claim is about a variant, column or class that the study does not have.
    """
    check_claims(study.settings, list(study.variants), classes_of(study))
    sheet = read_measures(study) if sheet is None else sheet
    found = []
    for claim in study.settings.claims:
        one, other = (_variant(study, name) for name in (claim.variant, claim.against))
        if claim.relation == "worst_classes":
            judged = judge_worst(one, claim.classes, sheet)
        elif claim.relation == "most_confused":
            judged = judge_confused(one, claim.classes)
        elif claim.relation == "between":
            judged = _between(study, claim, one, sheet)
        else:
            judged = _difference(study, claim, one, other, sheet)
        found.append(ClaimVerdict(claim, *judged))
    return found


def _difference(study: Study, claim: ClaimConfig, one: Variant, other: Variant, sheet: Sheet) -> Judged:
    """``one`` less ``other``, by whatever kind of evidence the metric allows."""
    metric, margin = claim.metric, _margin(study, claim)
    if metric in FACTS_ONLY:
        return _by_latency(study, claim, one, other, margin)
    if reason := _no_evidence(metric, (one, other)):
        return INCONCLUSIVE, None, None, reason
    counted = [_count(study, variant, metric, sheet) for variant in (one, other)]
    if counted[0] is not None and counted[1] is not None:
        point = Interval(counted[0] - counted[1], counted[0] - counted[1])
        shown = " and ".join(as_text(metric, count) for count in (counted[0], counted[1]))
        words = f"{in_words(metric)}: {shown}, counted, the same in every run"
        return judge_difference(claim.relation, point, point, margin), point.low, point, words
    counts = [reached(variant, metric, sheet) for variant in (one, other)]
    if metric in REACHING and any(k < n for k, n in counts):
        return _by_counts(claim, (one, other), counts)
    sides = [_values(variant, metric, sheet) for variant in (one, other)]
    found = [sides[0][seed] - sides[1][seed] for seed in sorted(sides[0].keys() & sides[1].keys())]
    if reason := _too_few(found, "pair of seeds"):
        return INCONCLUSIVE, found[0] if found else None, None, reason
    wide, narrow, mean = mean_interval(found), mean_interval(found, 0.9), sum(found) / len(found)
    if wide is None or narrow is None:
        return _by_signs(claim, found)
    verdict = judge_difference(claim.relation, wide, narrow, margin)
    words = f"{in_words(metric)}: {as_difference(metric, mean)}, "
    words += f"95 % interval {as_range(metric, wide, difference=True)}, n = {len(found)}"
    if claim.relation in ("equivalent", "not_lower") or (verdict == REFUTED and wide.low <= 0 <= wide.high):
        shown = as_range(metric, narrow, difference=True)
        words += f"; 90 % interval {shown} and margin {as_difference(metric, margin, sign='')}"
    return verdict, mean, wide, words


def _by_signs(claim: ClaimConfig, found: Sequence[float]) -> Judged:
    """Pairs that all differ by the same have no interval, but may be too many of one sign to be chance."""
    mean, words, p = sum(found) / len(found), _no_spread(found, "pair of seeds"), sign_flip_p(found)
    if claim.relation not in ("higher", "lower") or p >= LEVEL:
        return INCONCLUSIVE, mean, None, words
    agrees = (mean > 0) == (claim.relation == "higher")
    words = f"{in_words(claim.metric)}: {as_difference(claim.metric, mean)}, {words} but the signs, p = {p:.2g}"
    return SUPPORTED if agrees else REFUTED, mean, None, words


def _between(study: Study, claim: ClaimConfig, one: Variant, sheet: Sheet) -> Judged:
    metric = claim.metric
    low, high = ("any" if end is None else as_text(metric, end) for end in (claim.low, claim.high))
    asked = f"asked for {low} to {high}"
    if metric in FACTS_ONLY:
        measured = latency(study, one.name)
        if measured is None:
            return INCONCLUSIVE, None, None, f"{one.label}: {in_words(metric)} were not measured"
        spread = Interval(*measured[1:])
        words = f"{in_words(metric)}: {measured[0]:.4g}, calls {as_range(metric, spread)}; {asked}"
        return judge_between(spread, claim.low, claim.high), measured[0], spread, words
    if reason := _no_evidence(metric, (one,)):
        return INCONCLUSIVE, None, None, reason
    if (count := _count(study, one, metric, sheet)) is not None:
        words = f"{in_words(metric)}: {as_text(metric, count)}, counted, the same in every run; {asked}"
        return judge_between(Interval(count, count), claim.low, claim.high), count, Interval(count, count), words
    k, n = reached(one, metric, sheet)
    if metric in REACHING and k < n:
        return INCONCLUSIVE, None, None, f"{in_words(metric)}: reached in {k} of {n} runs; the rest have no value; {asked}"
    values = list(_values(one, metric, sheet).values())
    if reason := _too_few(values, "run"):
        return INCONCLUSIVE, values[0] if values else None, None, reason
    wide, mean = mean_interval(values), sum(values) / len(values)
    if wide is None:
        return INCONCLUSIVE, mean, None, _no_spread(values, "run")
    words = f"{in_words(metric)}: {as_text(metric, mean)}, 95 % interval {as_range(metric, wide)}, n = {len(values)}"
    return judge_between(wide, claim.low, claim.high), mean, wide, f"{words}; {asked}"


def _by_latency(study: Study, claim: ClaimConfig, one: Variant, other: Variant, margin: float) -> Judged:
    """Two measurements on one machine: what the spreads of their calls leave open."""
    first, second = (latency(study, variant.name) for variant in (one, other))
    if first is None or second is None:
        missing = one if first is None else other
        return INCONCLUSIVE, None, None, f"{missing.label}: {in_words(claim.metric)} were not measured"
    possible = Interval(first[1] - second[2], first[2] - second[1])
    verdict = judge_difference(claim.relation, possible, possible, margin)
    shown = " and ".join(f"{p50:.4g} (calls {low:.4g} to {high:.4g})" for p50, low, high in (first, second))
    overlap = "; the spreads overlap" if possible.low <= 0 <= possible.high else ""
    words = f"{in_words(claim.metric)}: {shown}, measured once on one machine{overlap}"
    return verdict, first[0] - second[0], possible, words


def _by_counts(claim: ClaimConfig, sides: Sequence[Variant], counts: Sequence[tuple[int, int]]) -> Judged:
    """A milestone that some runs never reached: only always against never says anything, of runs enough that it is no chance."""
    shown = " and ".join(f"{side.label} in {k} of {n} runs" for side, (k, n) in zip(sides, counts, strict=True))
    words = f"{in_words(claim.metric)}: reached by {shown}; runs that never got there are not left out"
    (k1, n1), (k2, n2) = counts
    always, never = k1 == n1 and k2 == 0, k1 == 0 and k2 == n2
    if not (always or never):
        return INCONCLUSIVE, None, None, words
    p = fisher_exact(*counts)
    words += f"; Fisher's exact test, p = {p:.2g}"
    if p >= LEVEL:
        return INCONCLUSIVE, None, None, f"{words}: so few runs cannot decide"
    # Never is more than any number of epochs.
    agrees = {"lower": always, "higher": never, "not_lower": never, "equivalent": False}[claim.relation]
    return SUPPORTED if agrees else REFUTED, None, None, words


def _no_evidence(metric: str, sides: Sequence[Variant]) -> str:
    """Why the runs of these variants say nothing in this metric; empty where they may."""
    runs = [run for side in sides for run in side.done.values()]
    if metric in TIMED and (shared := [run for run in runs if is_shared(run)]):
        return f"{len(shared)} of {len(runs)} runs shared a device: their seconds say nothing"
    return ""


def _values(variant: Variant, metric: str, sheet: Sheet) -> dict[int, float]:
    """Of finished runs by seed."""
    found = {seed: sheet[run.name].get(metric) for seed, run in variant.done.items()}
    return {seed: value for seed, value in found.items() if value is not None}


def _variant(study: Study, name: str) -> Variant:
    return study.variants[find_variant(name, list(study.variants), "a claim") if name else study.baseline]


def _margin(study: Study, claim: ClaimConfig) -> float:
    return study.settings.margin if claim.margin is None else claim.margin


def _count(study: Study, variant: Variant, metric: str, sheet: Sheet) -> float | None:
    """What was counted of a variant, by its runs or before any was done; None where that is no count or it varies."""
    values = list(_values(variant, metric, sheet).values())
    if values:
        return values[0] if is_counted(metric, values) else None
    return (study.facts.get(variant.name) or {}).get(metric) if metric in COUNTED else None


def _too_few(values: Sequence[float], what: str) -> str:
    """Why values are too few for an interval; empty where they are not."""
    if len(values) == 1:
        return f"n = 1 cannot decide: one {what} does not show the spread"
    return "" if values else f"no {what} is done"


def _no_spread(values: Sequence[float], what: str) -> str:
    return f"n = {len(values)} and the same in each {what}: there is no spread to judge by"
