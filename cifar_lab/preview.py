"""What is said of a sweep before its first job starts: what its variants change, how long it will take, what it can show."""

import platform
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cifar_lab import runs, storage
from cifar_lab.config import to_plain
from cifar_lab.display import duration, say
from cifar_lab.errors import LabError
from cifar_lab.local import choose_slots
from cifar_lab.paired import attainable_p, smallest_detectable
from cifar_lab.processes import apart
from cifar_lab.stats import are_equal
from cifar_lab.study.audit import audit
from cifar_lab.study.design import FACTS
from cifar_lab.study.estimate import SEED_SD, estimate, power_lines, readable_size
from cifar_lab.study.naming import choose_baseline
from cifar_lab.sweeping import read_facts
from cifar_lab.sweeps import Job

_SHOWN = 20
_PATIENCE_S = 900.0
"""Seconds after which a look at variants, or their latency, is given up: the sweep itself can do without."""


def show_preview(
    where: Path, jobs: Sequence[Job], todo: Sequence[Job], code: str, *, workers: int = 0, here: bool = True
) -> dict[str, dict[str, Any]]:
    """Say what is known of a sweep.

    Args:
        where: Its folder.
        jobs: All of it.
        todo: What is left.
        code: Digest of the code that will run it.
        workers: How many run at once; 0: as many as this machine has room for.
        here: Whether they run on this machine; of another nobody knows how long they will take.

    Returns:
        Facts of each variant that could be looked at.
    """
    first = {job.variant: job for job in reversed(jobs)}
    names = list(dict.fromkeys(job.variant for job in jobs))
    study = jobs[0].config.study
    baseline = choose_baseline(study.baseline, names)
    slots = choose_slots(workers, len(todo) or 1, jobs[0].config.device, jobs[0].config.threads)
    facts = _facts(where, {name: first[name] for name in names}, slots[0].threads, code)
    settings = {name: runs.without_seed(to_plain(first[name].config)) for name in names}
    _show_changes(baseline, settings, facts)
    done: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for job in jobs:
        result = runs.read_result(where / job.name)
        if result.get("status") == "done":
            done[job.variant].append(result)
    seconds = {name: [result["cost"]["train_s"] for result in found] for name, found in done.items()}
    paced = {name: {**facts[name], **({"train_s": float(np.mean(s))} if s else {})} for name, s in seconds.items()}
    if not here:
        paced = {name: {**pace, "train_s": None} for name, pace in paced.items()}
    effort = estimate(Counter(job.variant for job in todo), paced, len(slots))
    at_once = f"{len(slots)} at once" if len(slots) > 1 else "one after the other"
    at_once = at_once if here else "as many at once as the cluster allows"
    time = f"about {duration(effort.seconds)}" if effort.seconds is not None else "time unknown"
    disk = f", {readable_size(effort.size_bytes)} of disk" if effort.size_bytes is not None else ""
    say(f"{len(todo)} runs to do, {at_once}: {time}{disk}")
    sd, measured = _spread(done.values())
    count, others = min(Counter(job.variant for job in jobs).values()), len(names) - 1
    smallest = attainable_p(count) * others if count > 1 and others else None
    detectable = smallest_detectable(sd * 2**0.5, count, others) if count > 1 and others else None
    for line in power_lines(count, others, smallest, detectable, sd, measured=measured):
        say(line)
    return {name: found for name, found in facts.items() if found.get("train_images") is not None}  # the rest is looked at again


def _show_changes(baseline: str, settings: Mapping[str, Mapping[str, Any]], facts: Mapping[str, Mapping[str, Any]]) -> None:
    """One line a variant, and a warning for each that changes more than one thing."""
    changes = audit(baseline, settings, facts)
    if changes:
        say(f"baseline: {baseline}")
    for change in changes[:_SHOWN]:
        say(f"  {change.variant}: {change.text()}")
    if len(changes) > _SHOWN:
        say(f"  and {len(changes) - _SHOWN} more")
    for warning in filter(None, (change.warning() for change in changes)):
        say(f"note: {warning}")


def _facts(where: Path, first: Mapping[str, Job], threads: int, code: str) -> dict[str, dict[str, Any]]:
    """Of every variant, from the folder or by building its model in a process of its own."""
    known = read_facts(where)
    # Another device, machine or state of the code may make other facts of the same configuration.
    host = platform.node()
    digests = {
        name: storage.digest([runs.config_digest(job.config), job.config.device, job.config.threads, code, host])
        for name, job in first.items()
    }
    missing = [name for name in first if known.get(name, {}).get("of") != digests[name]]
    if missing:
        say(f"looking at {len(missing)} variant{'s' * (len(missing) > 1)}")
        plains = [to_plain(first[name].config) for name in missing]
        try:
            looked = apart("cifar_lab.probing:look_at", plains, threads, timeout_s=_PATIENCE_S)
        except LabError as error:
            looked = [{"error": error.what}] * len(missing)
        for name, found in zip(missing, looked, strict=True):
            if "error" in found:
                say(f"note: {name or 'the first job'} could not be looked at: {found['error']}")
            known[name] = {"of": digests[name], **found}
    return {name: known[name] for name in first}


def _spread(done: Iterable[Sequence[Mapping[str, Any]]]) -> tuple[float, bool]:
    """Standard deviation of validation accuracy between seeds, and whether finished runs say it."""
    values = [[r["metrics"]["val"]["accuracy"] for r in results if r["metrics"]["val"]] for results in done]
    several = [found for found in values if len(found) > 1]
    if all(are_equal(found) for found in several):  # or none is there
        return SEED_SD, False
    return float(np.sqrt(np.mean([np.var(found, ddof=1) for found in several]))), True


def save_facts(where: Path, facts: Mapping[str, Mapping[str, Any]]) -> None:
    """Write down facts of variants, beside those that are known already."""
    if facts:
        with storage.FolderLock(where, wait=True):  # other commands at work in the folder add theirs
            storage.write_json(where / FACTS, {"schema": 1, "variants": {**read_facts(where), **facts}})


def measure_latency_alone(where: Path, jobs: Sequence[Job]) -> None:
    """Measure the latency of every variant of which nothing is known yet, one after the other, now that no run is under way."""
    known = read_facts(where)
    first = {job.variant: job for job in reversed(jobs)}
    missing = [name for name in dict.fromkeys(job.variant for job in jobs) if not known.get(name, {}).get("latency")]
    wanted = [name for name in missing if first[name].config.train.latency_s > 0]
    if not wanted:
        return
    say(f"measuring the latency of {len(wanted)} variant{'s' * (len(wanted) > 1)}")
    try:
        measured = apart(
            "cifar_lab.probing:latency_alone", [to_plain(first[name].config) for name in wanted], timeout_s=_PATIENCE_S
        )
    except LabError as error:
        say(f"note: latency could not be measured: {error.what}")
        return
    save_facts(where, {name: {**known.get(name, {}), "latency": found} for name, found in zip(wanted, measured, strict=True)})
