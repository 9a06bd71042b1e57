"""What a study found, in a few sentences that are made from its verdicts, and what stands against believing them."""

from collections.abc import Sequence

from cifar_lab.stats import mean_interval
from cifar_lab.study import wording
from cifar_lab.study.design import Study
from cifar_lab.study.findings import Comparison, Findings, Outcome
from cifar_lab.study.measures import FACTS_ONLY, in_words

_SMALL = 5
"""Seeds below which a reader is told that they are few."""


def answer(findings: Findings) -> list[str]:
    """One to three sentences: what is better, worse and equivalent, and what is undecided."""
    judged = [one for one in findings.comparisons if one.verdict]
    if not any(run.status == "done" for run in findings.study.runs):
        return ["No run is finished yet: there is nothing to say."]
    if not findings.comparisons:
        return [alone(findings, one) for one in findings.outcomes]
    if not judged:
        return [_unjudged(findings)]
    sentences = []
    for word in ("better", "worse"):
        if found := [one for one in judged if one.verdict == word]:
            found.sort(key=lambda one: -abs(one.difference or 0.0))
            parts = [_with_numbers(findings, one, first=not sentences and one is found[0]) for one in found]
            sentences.append(_sentence(found, parts, f"{word} than {_base(findings)}"))
    equal, open_ = ([one for one in judged if one.verdict == word] for word in ("equivalent", "no evidence"))
    last = []
    if equal:
        it = "it" if sentences else _base(findings)
        last.append(_sentence(equal, [one.label for one in equal], f"equivalent to {it} within {_margin(findings)}"))
    if open_:
        last.append(
            _sentence(open_, [one.label for one in open_], "undecided, with no evidence of a difference or of equivalence")
        )
    if missing := [one.label for one in findings.comparisons if not one.verdict]:
        last.append(f"Not judged: {wording.listed(missing)}.")
    return [*sentences, *([" ".join(last)] if last else [])]


def alone(findings: Findings, one: Outcome) -> str:
    """Mean, standard deviation and interval of a variant that nothing is compared with."""
    metric = findings.metric
    unit = f" {wording.unit(metric)}".rstrip()
    name = one.label if one.variant else in_words(metric).capitalize()
    lead = f"{name}: {in_words(metric)}" if one.variant else name
    if one.missed:
        return f"{lead}: reached in {one.n} of {wording.count(one.n + one.missed, 'run')}, so that there is no mean."
    if metric in FACTS_ONLY and one.mean is not None:
        return f"{lead}: {wording.value(metric, one.mean)}{unit}, measured once."
    if one.n < 2 or one.mean is None:
        seeds = f"{wording.count(one.n, 'seed')}; a spread takes two or more"
        return f"{lead}: {wording.value(metric, one.mean)}{unit} ({seeds})."
    values = [one.values[seed] for seed in sorted(one.values)]
    interval = mean_interval(values)
    if interval is None:
        return f"{lead}: {wording.value(metric, one.mean)}{unit} in each of {one.n} seeds, which show no spread."
    ends = f"{wording.value(metric, interval.low)} to {wording.value(metric, interval.high)}"
    return f"{lead}: {wording.mean_sd(metric, one.mean, one.sd)}{unit} over {one.n} seeds (95 % t interval of the mean {ends})."


def progress(findings: Findings) -> str:
    """``7 of 20 runs are done: 2 failed, 11 waiting``; empty when all are done."""
    runs = findings.study.runs
    states: dict[str, int] = {}
    for run in runs:
        states[run.status] = states.get(run.status, 0) + 1
    done = states.pop("done", 0)
    if done == len(runs):
        return ""
    names = {"waiting": "waiting", "unfinished": "running or killed"}
    rest = ", ".join(f"{number} {names.get(state, state)}" for state, number in sorted(states.items()))
    return f"{done} of {wording.count(len(runs), 'run')} {'is' if done == 1 else 'are'} done: {rest}."


def cautions(findings: Findings) -> list[str]:
    """What a reader must know first: how much is done, mixed conditions, few seeds; ``findings.notes`` among it."""
    found = [progress(findings), *findings.notes]
    return [text for text in found if text]


def method(findings: Findings) -> list[str]:
    """How the numbers are made, in plain words, with what so many seeds can show."""
    metric, lines = findings.metric, []
    if not findings.comparisons:
        line = "Mean and standard deviation (n - 1) are over the seeds that finished. The interval of the mean is Student's t."
        return [line, *_uncorrected(findings)]
    lines.append(
        "Every variant is compared with the baseline seed by seed: runs of one seed share initialisation and data order as far "
        "as "
        "their networks allow. The difference is the mean of these paired differences; its 95 % interval is Student's t over "
        "seeds."
    )
    lines.append(
        "p is that of a sign-flip permutation test: how often signs drawn at random give a mean difference at least as large. It "
        "is "
        f"corrected by Holm's method for {wording.count(len(findings.comparisons), 'comparison')}, so that the chance of any "
        "false better or worse in this study stays below 5 %."
    )
    lines.append(
        f"Better or worse: corrected p below 0.05. Equivalent: the 90 % paired t interval lies inside {_margin(findings)}. No "
        "evidence: neither. Fewer than two pairs get no verdict."
    )
    lines += _uncorrected(findings)
    if findings.attainable_p is not None:
        after = min(1.0, findings.attainable_p * len(findings.comparisons))
        text = (
            f"With {wording.count(findings.pairs, 'pair')} of runs the smallest p that this test can give is "
            f"{findings.attainable_p:.4g}, and {after:.4g} after correction where it is the smallest of the study."
        )
        if after >= 0.05:
            text += f" n = {findings.pairs} cannot decide this: no single variant can be found better or worse."
        lines.append(text)
    if findings.detectable is not None:
        size = wording.margin(metric, findings.detectable)
        lines.append(f"A true difference of {size} would be found with a chance of 80 %, at the spread that was measured.")
    lines.append("Runs that failed, diverged or are not finished are counted and are in no mean.")
    return lines


def _uncorrected(findings: Findings) -> list[str]:
    """That equivalents and claims are not among what is corrected, where there are any."""
    equal = any(one.verdict == "equivalent" and one.p is not None for one in findings.comparisons)
    what = wording.listed([*(["each equivalent"] if equal else []), *(["each claim"] if findings.claims else [])])
    if not what:
        return []
    return [f"{what.capitalize()} is judged at 95 % by itself, without a correction: of many, some may be false."]


def conditions(study: Study) -> dict[str, list[str]]:
    """Where the finished runs were made: every value of device, precision, torch and threads that occurs."""
    found: dict[str, dict[str, None]] = {}
    for run in study.runs:
        if run.status != "done":
            continue
        environment = run.result.get("environment") or {}
        gpu = (environment.get("gpu") or {}).get("name")
        facts = {
            "device": run.result.get("device"),
            "GPU": gpu,
            "CPU": environment.get("cpu"),
            "threads": environment.get("threads"),
            "precision": run.result.get("precision"),
            "torch": environment.get("packages", {}).get("torch"),
            "Python": environment.get("python"),
            "system": environment.get("platform"),
            "code digest": (run.result.get("digests") or {}).get("code"),
            "data digest": (run.result.get("digests") or {}).get("data"),
        }
        for name, value in facts.items():
            if value is not None:
                found.setdefault(name, {})[str(value)] = None
    return {name: list(values) for name, values in found.items()}


def _unjudged(findings: Findings) -> str:
    """Why no comparison has a verdict."""
    if barred := [one for one in findings.comparisons if one.note]:
        first, others = barred[0], len(findings.comparisons) - 1
        who = f" ({first.label})" if others else ""
        rest = f" {wording.count(others, 'other comparison has', 'other comparisons have')} no verdict either." if others else ""
        return f"{in_words(findings.metric).capitalize()}{who}: {first.note}.{rest}"
    pairs = max((one.n for one in findings.comparisons), default=0)
    have = "one seed of each" if pairs == 1 else "no seed that is done and measured on both sides"
    return f"No verdict is possible: there is {have}, and a verdict takes two pairs of runs or more."


def _sentence(found: Sequence[Comparison], parts: Sequence[str], what: str) -> str:
    number = f"{len(found)} {'variant is' if len(found) == 1 else 'variants are'} {what}"
    return f"{number}: {wording.listed(parts)}."


def _with_numbers(findings: Findings, one: Comparison, *, first: bool) -> str:
    """Its difference and interval; where it is the first, with the words that the others do without."""
    metric = findings.metric
    size = wording.difference(metric, one.difference)
    if first:
        size = f"{size} {wording.unit(metric, difference=True)}".rstrip()
    parts = [size]
    if one.interval95 is not None:
        parts.append(f"{'95 % interval ' if first else ''}{wording.ends(metric, one.interval95)}")
    if one.interval90 is not None and max(map(abs, one.interval90)) < findings.margin:
        parts.append("within the margin")
    return f"{one.label} ({', '.join(parts)})"


def _base(findings: Findings) -> str:
    """How the baseline is called in a sentence."""
    label = findings.study.variants[findings.study.baseline].label
    return "the baseline" if label == "baseline" else f"the baseline, {label}"


def _margin(findings: Findings) -> str:
    return wording.margin(findings.metric, findings.margin)
