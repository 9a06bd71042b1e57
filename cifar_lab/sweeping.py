"""A planned sweep in its folder: what is saved before it starts, what is done and what is left to do."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from cifar_lab import runs, storage
from cifar_lab.config import PRECISIONS, Config, to_plain
from cifar_lab.errors import CodeError, ResumeError
from cifar_lab.plugins import plugin_files
from cifar_lab.study.asked import check_claims
from cifar_lab.study.design import FACTS, PLAN, PLAN_SCHEMA, REPORT, read_plan
from cifar_lab.sweeps import Job
from cifar_lab.workers import Task


def make_plan(
    where: Path, jobs: Sequence[Job], *, name: str, command: str, redo: bool = False, under_way: Collection[str] = ()
) -> dict[str, Any]:
    """Every job as it was composed; they run from this copy, whatever becomes of the files they came from.

    Runs of an earlier command that are in this folder, still in a cluster's queue or yet to be done by a command that is
    at work stay part of it, and the order in which variants came in is kept: the first of them is the baseline unless
    ``study.baseline`` names another. Jobs that come in after the report has been written belong to a later round: whoever
    added them had seen what the others gave.

    Args:
        where: The sweep's folder.
        jobs: Of the command.
        name: Of the study or the folder.
        command: As it was typed.
        redo: Jobs that were left in a cluster's queue are taken for gone.
        under_way: Names of jobs that other commands are about to run.

    Raises:
        ResumeError: Runs of a variant would have other settings than those that are there, or a job that waits others.
        ConfigError: ``study.baseline``, or a variant, metric or class of a claim, is none.
    """
    known = read_plan(where)["jobs"] if (where / PLAN).is_file() else []
    gone = {job["name"] for job in known if job.get("queued") and (redo or _has_ended(where / job["name"]))}
    before = {job["name"]: _without_mark(job) if job["name"] in gone else job for job in known}
    wanted = {job.name for job in jobs}
    stay = {*wanted, *under_way, *(key for key, job in before.items() if job.get("queued"))}
    merged = {key: job for key, job in before.items() if key in stay or (where / key).is_dir()}
    last = max((job["round"] for job in merged.values()), default=0)
    now = last + 1 if merged and (where / REPORT).is_file() else last
    for job in jobs:
        merged[job.name] = {
            "name": job.name,
            "overrides": list(job.overrides),
            "config": to_plain(job.config),
            "digests": _digests(job.config),
            "variant": job.variant,
            "round": before.get(job.name, {"round": now})["round"],
        }
        old = before.get(job.name, {})
        if old.get("queued"):
            hint = "hydra.sweep.dir=DIR begins another sweep; after scancel --redo takes the job for gone"
            _refuse_other_waiting(where, old, merged[job.name], "was given to the cluster", hint)
            merged[job.name]["queued"] = True
        elif old and job.name in under_way:
            hint = "hydra.sweep.dir=DIR begins another sweep"
            _refuse_other_waiting(where, old, merged[job.name], "is about to be run by another command", hint)
    _refuse_mixed_variants(where, list(merged.values()))
    check_claims(jobs[0].config.study, list(dict.fromkeys(job["variant"] for job in merged.values())))
    return {
        "schema": PLAN_SCHEMA,
        "name": name,
        "command": command,
        "code": runs.code_digest(plugin_files()),
        "plugins": [str(path) for path in plugin_files()],
        "study": to_plain(jobs[0].config)["study"],
        "jobs": list(merged.values()),
    }


def refuse_other_code(where: Path, under_way: Collection[str]) -> None:
    """One plan has one code, and jobs of a command at work that have not begun will look at it.

    Raises:
        CodeError: Other commands are about to run jobs of other code than this.
    """
    if under_way and (where / PLAN).is_file() and read_plan(where)["code"] != runs.code_digest(plugin_files()):
        raise CodeError(
            f"another command at work in {where} runs other code than this",
            hint="wait for it to end; hydra.sweep.dir=DIR begins another sweep",
            kept="nothing was changed",
        )


def mark_queued(plan: dict[str, Any], names: Collection[str], *, queued: bool) -> dict[str, Any]:
    """A plan in which these jobs are in a cluster's queue, or no longer: there they read their settings when they begin."""
    mark = {"queued": True} if queued else {}
    return {**plan, "jobs": [{**_without_mark(job), **mark} if job["name"] in names else job for job in plan["jobs"]]}


def _without_mark(job: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in job.items() if key != "queued"}


def _has_ended(folder: Path) -> bool:
    return runs.read_result(folder).get("status") in ("done", "failed")


def _refuse_other_waiting(where: Path, old: Mapping[str, Any], new: Mapping[str, Any], how: str, hint: str) -> None:
    """A job that waits for its turn would begin with other settings than it was given."""
    changed = [change for change in runs.differences(old["config"], new["config"]) if not runs.may_change(change)]
    if changed and not (where / old["name"]).is_dir():  # of one that has begun its folder says more
        key, was, wanted = changed[0]
        raise ResumeError(
            f"{where} holds another sweep: {old['name']} {how} with {key}={was}, not {wanted}",
            hint=hint,
            kept="nothing was changed",
        )


def _digests(config: Config) -> list[str]:
    """What the digest of this configuration can be, once a run knows what ``auto`` means."""
    meant = PRECISIONS if config.train.precision == "auto" else (config.train.precision,)
    return [runs.config_digest(replace(config, train=replace(config.train, precision=precision))) for precision in meant]


def _refuse_mixed_variants(where: Path, jobs: Sequence[Mapping[str, Any]]) -> None:
    """Runs of one variant differ in the seed alone; others would be averaged with them."""
    first: dict[str, Mapping[str, Any]] = {}
    for job in jobs:
        known = first.setdefault(job["variant"], job)
        changed = [d for d in runs.differences(known["config"], job["config"]) if d[0] != "seed"]
        if changed:
            raise _another_sweep(where, known["name"], changed[0], f" as in {job['name']}")


def _another_sweep(where: Path, name: str, change: tuple[str, Any, Any], as_in: str = "") -> ResumeError:
    key, was, wanted = change
    return ResumeError(
        f"{where} holds another sweep: {key} is {was} in {name}, not {wanted}{as_in}",
        hint="hydra.sweep.dir=DIR begins another sweep",
        kept="nothing was changed",
    )


def planned(where: Path) -> dict[str, Task]:
    """The jobs of a sweep's folder by name; none where there is no plan.

    Raises:
        ResumeError: The plan is not one that this version reads.
    """
    if not (where / PLAN).is_file():
        return {}
    jobs = read_plan(where)["jobs"]
    return {job["name"]: Task(job["name"], where / job["name"], job["config"], tuple(job["overrides"])) for job in jobs}


def left_to_do(where: Path, jobs: Sequence[Job], code: str) -> list[Job]:
    """Jobs without a verified result of their configuration and of this code.

    Raises:
        ResumeError: A folder holds a run of another configuration.
    """
    _refuse_other_runs(where, jobs)
    return [job for job in jobs if not is_done(where / job.name, job.config, code)]


def of_other_code(where: Path, jobs: Sequence[Job], code: str, *, redo: bool) -> list[Path]:
    """Folders of jobs that were run or begun by other code than this.

    Raises:
        CodeError: There are some, and ``redo`` is off.
    """
    others = [job for job in jobs if _code_of(where / job.name) not in (None, code)]
    if others and not redo:
        names = ", ".join(job.name for job in others[:3]) + (f" and {len(others) - 3} more" if len(others) > 3 else "")
        raise CodeError(
            f"{len(others)} of {len(jobs)} jobs in {where} were run by other code: {names}",
            hint="--redo sets them aside and runs them again; hydra.sweep.dir=DIR begins another sweep",
            kept="nothing was changed",
        )
    return [where / job.name for job in others]


def set_aside(folders: Sequence[Path]) -> None:
    """Move runs of other code out of the way.

    Raises:
        LockedError: One of them is still running; those before it have been moved.
    """
    for folder in folders:
        with storage.FolderLock(folder):
            storage.set_aside(folder, "run by other code than now; --redo was given")


def outcome_of(where: Path, job: Job, code: str) -> dict[str, Any]:
    """A job's result.json; what a run of other settings left is none of this job."""
    result = runs.read_result(where / job.name)
    if result.get("status") != "done" or is_done(where / job.name, job.config, code):
        return result
    error = {"code": "E-RESUME", "message": "its result is that of earlier settings, which it did not get beyond"}
    return {"status": "failed", "error": error}


def _refuse_other_runs(where: Path, jobs: Sequence[Job]) -> None:
    """The same names with other fixed settings are another sweep."""
    for job in jobs:
        old = runs.RunFolder.config_in(where / job.name)
        if old is None:
            continue
        new = to_plain(job.config)
        if new["train"]["precision"] == "auto":
            new["train"]["precision"] = old["train"].get("precision", "auto")
        changed = [change for change in runs.differences(old, new) if not runs.may_change(change)]
        if changed:
            raise _another_sweep(where, job.name, changed[0])


def _code_of(folder: Path) -> str | None:
    path = folder / "digests.json"
    return storage.read_json(path).get("code") if path.is_file() else None


def is_done(folder: Path, config: Config, code: str) -> bool:
    """Whether a folder holds a result of this very configuration and code."""
    result = runs.read_result(folder)
    if config.train.precision == "auto":  # the folder knows what it meant
        config = replace(config, train=replace(config.train, precision=result.get("precision", "auto")))
    return runs.is_result_of(result, config, code)


def read_facts(where: Path) -> dict[str, dict[str, Any]]:
    """What was counted and measured of each variant outside its runs; empty before."""
    return storage.read_json(where / FACTS)["variants"] if (where / FACTS).is_file() else {}
