"""What a reader must know before believing a study's numbers: what its runs do not share, what is missing, what came later."""

from collections.abc import Mapping, Sequence
from typing import Any

from cifar_lab.paired import LEVEL, attainable_p
from cifar_lab.stats import holm
from cifar_lab.study.design import Run, Study, Variant
from cifar_lab.study.measures import classes_of, classes_of_run, is_shared

_UNSAID = ""
"""Of a condition that a run does not have."""


def condition_notes(study: Study) -> list[str]:
    """Devices, precisions, thread counts, versions of torch and states of the code in which finished runs differ."""
    notes = []
    conditions = {
        "device": _device,
        "precision": _precision,
        "number of threads": _threads,
        "torch version": _torch,
        "code": _code,
    }
    for what, read in conditions.items():
        found = _by_value([run for run in study.runs if run.status == "done"], read)
        found.pop(_UNSAID, None)
        if len(found) > 1:
            shown = "; ".join(f"{value}: {_names(study, runs)}" for value, runs in found.items())
            notes.append(f"runs differ in {what}, which may make a difference of its own ({shown})")
    return notes


def size_notes(study: Study, pairs: Mapping[str, int]) -> list[str]:
    """Which comparisons have too few pairs to be decided at all.

    Args:
        study: Of the labels.
        pairs: Of each comparison by variant; 0 for one that no test is to decide. All of them count for the correction.
    """
    labels = {name: study.variants[name].label for name in pairs}
    best = dict(zip(pairs, holm([attainable_p(n) if n > 1 else 1.0 for n in pairs.values()]), strict=True))
    notes = []
    for n in sorted(set(pairs.values())):
        these = [name for name in pairs if pairs[name] == n]
        who = "" if len(these) == len(pairs) else f" ({', '.join(labels[name] for name in these)})"
        if n == 1:
            notes.append(f"n = 1 gets no verdict: one seed does not show how much seeds differ{who}")
        elif n > 1 and max(best[name] for name in these) >= LEVEL:
            corrected = max(best[name] for name in these)
            after = f", after correction for {len(pairs)} comparisons {corrected:.3g}" if len(pairs) > 1 else ""
            least = f"the smallest p that {n} seeds can give is {attainable_p(n):.3g}{after}"
            notes.append(f"n = {n} cannot decide this: {least}{who}")
    return notes


def missing_notes(study: Study) -> list[str]:
    """Planned runs that are not done, and seeds that only some variants have."""
    told: dict[str, list[str]] = {}
    for variant in study.variants.values():
        missing = [run for run in variant.runs if run.status != "done"]
        if missing:
            told.setdefault(_what_became(missing, len(variant.runs)), []).append(variant.label)
    notes = [f"not all runs are done: {', '.join(labels)}: {what}" for what, labels in told.items()]
    baseline = {run.seed for run in study.variants[study.baseline].runs}
    for variant in study.others:
        if odd := sorted({run.seed for run in variant.runs} ^ baseline):
            notes.append(f"{variant.label}: {_seeds(odd)} planned on one side only: no pair")
    if any(run.status in ("failed", "diverged") for run in study.runs):
        notes.append("runs that failed or diverged are counted, and in no mean: means are of runs that finished")
    return notes


def added_notes(study: Study) -> list[str]:
    """Runs that were planned after results of others could be seen."""
    notes = []
    for number in sorted({run.round for run in study.runs} - {0}):
        added = [run for run in study.runs if run.round == number]
        seeds, variants = sorted({run.seed for run in added}), dict.fromkeys(run.variant for run in added)
        whose = "" if len(variants) == len(study.variants) else f" of {', '.join(study.variants[v].label for v in variants)}"
        again = "" if number == 1 else f" (the {number}. time)"
        notes.append(
            f"{_seeds(seeds)}{whose} added after a look at the results{again}: p values do not account for the choice to go on"
        )
    return notes


def sharing_notes(study: Study) -> list[str]:
    """Runs whose seconds other runs on the same device have lengthened."""
    shared = [run for run in study.runs if is_shared(run)]
    if not shared:
        return []
    return [f"seconds of runs that shared a device are marked and stay out of verdicts: {_names(study, shared)}"]


def collapse_notes(study: Study) -> list[str]:
    """Finished runs whose network gives every image the same class: they learned nothing, and their mean says no more."""
    collapsed = [run for run in study.runs if run.status == "done" and _is_constant(run)]
    if not collapsed:
        return []
    return [f"training has collapsed, every image gets the same class: {_names(study, collapsed)}"]


def data_notes(study: Study) -> list[str]:
    """What result.json says of the data, such as that only a part of it was used."""
    found: dict[str, list[Run]] = {}
    for run in study.runs:
        for note in (run.result.get("data") or {}).get("notes") or []:
            found.setdefault(note, []).append(run)
    with_data = [run for run in study.runs if run.result.get("data")]
    return [f"data: {note}{'' if len(runs) == len(with_data) else f' ({_names(study, runs)})'}" for note, runs in found.items()]


def class_notes(study: Study) -> list[str]:
    """Runs on data with other classes than those of the first run, which no table of classes can hold beside it."""
    names = classes_of(study)
    other = [run for run in study.runs if run.status == "done" and classes_of_run(run) not in ([], names)]
    if not other:
        return []
    return [f"runs on data with other classes stay out of what is said of classes and images: {_names(study, other)}"]


def ending(run: Run) -> str:
    """``E-OOM``, or how it stands where no error is known."""
    code = (run.result.get("error") or {}).get("code")
    return code if isinstance(code, str) and run.status in ("failed", "diverged") else run.status


def _is_constant(run: Run) -> bool:
    """Whether one class has all its images right and the others have none."""
    metrics = run.result.get("metrics") or {}
    rows = (metrics.get("test") or metrics.get("val") or {}).get("per_class") or []
    recalls = sorted(row["recall"] for row in rows if row.get("support"))
    return len(recalls) > 1 and recalls[-1] == 1.0 and not any(recalls[:-1])


def _device(run: Run) -> str:
    """The GPU's name where there is one: two kinds of card are both called cuda."""
    gpu = (run.result.get("environment") or {}).get("gpu") or {}
    return gpu.get("name") or str(run.result.get("device"))


def _precision(run: Run) -> str:
    return str(run.result.get("precision"))


def _threads(run: Run) -> str:
    """On a CPU they decide the order of sums; a GPU does its own."""
    environment = run.result.get("environment") or {}
    return str(environment.get("threads", _UNSAID)) if run.result.get("device") == "cpu" else _UNSAID


def _torch(run: Run) -> str:
    return str(((run.result.get("environment") or {}).get("packages") or {}).get("torch"))


def _code(run: Run) -> str:
    return str((run.result.get("digests") or {}).get("code"))[:8]


def _by_value(runs: Sequence[Run], read: Any) -> dict[str, list[Run]]:
    found: dict[str, list[Run]] = {}
    for run in runs:
        found.setdefault(read(run), []).append(run)
    return found


def _what_became(missing: Sequence[Run], planned: int) -> str:
    """``seed 1 E-OOM; seeds 3, 4 waiting``."""
    found = _by_value(missing, ending)
    if len(missing) == planned and len(found) == 1:
        return f"all {planned} {next(iter(found))}" if planned > 1 else next(iter(found))
    return "; ".join(f"{_seeds([run.seed for run in runs])} {how}" for how, runs in found.items())


def _names(study: Study, runs: Sequence[Run]) -> str:
    """``kernel5 seeds 0, 1; tanh``: a variant of which all finished runs are meant stands alone."""
    if len(runs) == len([run for run in study.runs if run.status == "done"]):
        return "all runs"
    parts = []
    for variant in study.variants.values():
        if these := [run for run in variant.runs if any(run is other for other in runs)]:
            parts.append(variant.label + ("" if _is_all(variant, these) else f" {_seeds([run.seed for run in these])}"))
    return ", ".join(parts)


def _is_all(variant: Variant, runs: Sequence[Run]) -> bool:
    return len(runs) == len(variant.done) and len(runs) > 0


def _seeds(seeds: Sequence[int]) -> str:
    """``seed 3``, ``seeds 3, 4``, ``seeds 3 to 9``."""
    if len(seeds) == 1:
        return f"seed {seeds[0]}"
    whole = len(seeds) > 2 and list(seeds) == list(range(seeds[0], seeds[0] + len(seeds)))
    return f"seeds {seeds[0]} to {seeds[-1]}" if whole else f"seeds {', '.join(map(str, seeds))}"
