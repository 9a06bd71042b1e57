"""A sweep from its command to its findings: planned and looked at, launched, and reported.

What is known before the first job starts is said before it starts; what a launcher says afterwards is not evidence:
only the results in the jobs' folders are.
"""

import contextlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cifar_lab import storage, sweeping, sweeps
from cifar_lab.display import say
from cifar_lab.errors import ConfigError, Interrupted, SweepError
from cifar_lab.flags import quoted
from cifar_lab.preview import measure_latency_alone, save_facts, show_preview
from cifar_lab.study.design import PLAN, read_plan
from cifar_lab.underway import names_under_way, under_way

_ONE_BY_ONE = "BasicLauncher"
_ON_THIS_MACHINE = ("LabLauncher", _ONE_BY_ONE)
_QUEUED = "SlurmLauncher"


@dataclass(frozen=True)
class Asked:
    """What the command line said of a sweep, on its way through Hydra.

    Args:
        name: Of the study, or of the folder.
        command: As it was typed.
        redo: Runs of other code are set aside and made again.
        dry_run: Stop before the first job.
    """

    name: str = "sweep"
    command: str = "cifar-lab train"
    redo: bool = False
    dry_run: bool = False


ASKED: ContextVar[Asked] = ContextVar("asked", default=Asked())  # noqa: B039  (frozen)


def run_sweep(arguments: Sequence[str], config: Any, launcher: Any) -> list[Any]:
    """Plan, run and report a sweep; called by our Hydra sweeper.

    Args:
        arguments: Overrides of the sweep, some with several values.
        config: Hydra's whole configuration.
        launcher: Hydra's launcher, already set up.

    Returns:
        One result per job.

    Raises:
        ConfigError: A job is not acceptable; none has started.
        CodeError: Runs in the folder, or a command at work there, are of other code.
        SweepError: Some jobs failed; the others are done.
        Interrupted: A signal came; the same command goes on.
    """
    from cifar_lab.parts import check_builders

    asked = ASKED.get()
    where = Path(config.hydra.sweep.dir)
    jobs = sweeps.plan(arguments, _search_dir(config), own=tuple(config.hydra.sweeper.params or ()))
    check_builders([job.config for job in jobs])
    plan = _plan(where, jobs, names_under_way(where))
    todo = sweeping.left_to_do(where, jobs, plan["code"])
    others = sweeping.of_other_code(where, jobs, plan["code"], redo=asked.redo)
    done = f", {len(jobs) - len(todo)} of them done already" if len(todo) < len(jobs) else ""
    say(f"sweep: {len(jobs)} jobs in {where}{done}")
    kind = type(launcher).__name__
    here = kind in _ON_THIS_MACHINE
    workers = 1 if kind == _ONE_BY_ONE else jobs[0].config.sweep.workers
    facts = show_preview(where, jobs, todo, plan["code"], workers=workers, here=here) if todo or asked.dry_run else {}
    if asked.dry_run:
        say("nothing was started (--dry-run)")
        return []
    sweeping.set_aside(others)
    try:
        with _taken(where, jobs, todo, queued=kind == _QUEUED):
            save_facts(where, facts)
            _launch(launcher, todo)
    except Interrupted as error:
        done = sum(sweeping.outcome_of(where, job, plan["code"]).get("status") == "done" for job in jobs)
        error.kept = f"{done} of {len(jobs)} jobs done in {where}"
        error.hint = error.hint or f"the same command goes on where this stopped; `cifar-lab report {where}` shows what there is"
        raise
    # Latency of a machine that did not run the jobs would stand beside what they measured; the last of several commands
    # measures it, when nothing else runs.
    if here and not names_under_way(where):
        measure_latency_alone(where, jobs)
    return _finish(where, {job.name: sweeping.outcome_of(where, job, plan["code"]) for job in jobs})


def _plan(where: Path, jobs: Sequence[sweeps.Job], others: Collection[str]) -> dict[str, Any]:
    asked = ASKED.get()
    return sweeping.make_plan(where, jobs, name=asked.name, command=asked.command, redo=asked.redo, under_way=others)


@contextlib.contextmanager
def _taken(where: Path, jobs: Sequence[sweeps.Job], todo: Sequence[sweeps.Job], *, queued: bool) -> Iterator[None]:
    """Save the plan; within this what is to do is ours, whatever other commands plan in the same folder."""
    with contextlib.ExitStack() as ours:
        with storage.FolderLock(where, wait=True):
            # Another command may have added to the plan while this one looked at its variants.
            others = names_under_way(where, tidy=True)
            sweeping.refuse_other_code(where, others)
            storage.write_json(where / PLAN, _plan(where, jobs, others))
            ours.enter_context((_in_queue if queued else under_way)(where, {job.name for job in todo}))
        yield


@contextlib.contextmanager
def _in_queue(where: Path, names: Collection[str]) -> Iterator[None]:
    """Within this the jobs are in a queue, and longer than that if something ends the waiting for them.

    The folder's lock is held by the caller when this begins.
    """
    if not names:
        yield
        return
    _mark_queued(where, names, queued=True)
    try:
        yield
    except ConfigError:  # the cluster did not take them
        with storage.FolderLock(where, wait=True):
            _mark_queued(where, names, queued=False)
        raise
    with storage.FolderLock(where, wait=True):
        _mark_queued(where, names, queued=False)


def _mark_queued(where: Path, names: Collection[str], *, queued: bool) -> None:
    storage.write_json(where / PLAN, sweeping.mark_queued(read_plan(where), names, queued=queued))


def _launch(launcher: Any, todo: Sequence[sweeps.Job]) -> None:
    """Hand over what is left to do; a launcher's own failure is said, and the folders are looked at all the same."""
    from cifar_lab.cluster.submitting import launch

    if todo:
        # The plan holds each job's settings: files that change while it waits in a queue do not reach it.
        launch(launcher, [[f"hydra.sweep.subdir={quoted(job.name)}"] for job in todo])


def _finish(where: Path, results: Mapping[str, Mapping[str, Any]]) -> list[Any]:
    """Write the report, sum up."""
    from cifar_lab.saved import find_test_images
    from cifar_lab.study.report import build_report
    from cifar_lab.study.screen import show_report

    report = build_report(where, test_images=find_test_images())
    show_report(report.findings, report.files)
    failed = {name: result for name, result in results.items() if result.get("status") != "done"}
    for name, result in failed.items():
        say(f"{name}: {sweeps.what_ended_it(result)}; log: {where / name / 'run.log'}")
    if failed:
        raise SweepError(sweeps.failure_text(results), hint="the same command runs the failed jobs again")
    return list(results.values())


def _search_dir(config: Any) -> str | None:
    """The person's ``--config-dir``, as Hydra knows it."""
    sources = [s.path for s in config.hydra.runtime.config_sources if s.provider == "command-line"]
    return sources[0] if sources else None
