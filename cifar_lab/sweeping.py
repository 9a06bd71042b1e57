"""A planned sweep in its folder: what is saved before it starts, what is done and what is left to do."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from cifar_lab import runs, storage
from cifar_lab.config import Config, to_plain
from cifar_lab.errors import CodeError, LabError, ResumeError
from cifar_lab.plugins import plugin_files
from cifar_lab.study.design import FACTS, PLAN, PLAN_SCHEMA, REPORT, read_plan
from cifar_lab.sweeps import Job
from cifar_lab.workers import Task


def save_plan(where: Path, jobs: Sequence[Job], *, name: str, command: str) -> None:
    """Write down every job as it was composed; they run from this copy, whatever becomes of the files they came from.

    Runs of an earlier command that are in this folder stay part of it. Jobs that come in after its report has been
    written belong to a later round: whoever chose to add them had seen what the others gave.
    """
    before = {job["name"]: job for job in read_plan(where)["jobs"]} if (where / PLAN).is_file() else {}
    last = max((job["round"] for job in before.values()), default=0)
    now = last + 1 if (where / REPORT).is_file() else last
    wanted = {
        job.name: {
            "name": job.name,
            "overrides": list(job.overrides),
            "config": to_plain(job.config),
            "variant": job.variant,
            "round": before.get(job.name, {"round": now})["round"],
        }
        for job in jobs
    }
    kept = {name: job for name, job in before.items() if name not in wanted and (where / name).is_dir()}
    plan = {
        "schema": PLAN_SCHEMA,
        "name": name,
        "command": command,
        "code": runs.code_digest(plugin_files()),
        "plugins": [str(path) for path in plugin_files()],
        "study": to_plain(jobs[0].config)["study"],
        "jobs": [*wanted.values(), *kept.values()],
    }
    storage.write_json(where / PLAN, plan)


def planned(where: Path) -> dict[str, Task]:
    """The jobs of a sweep's folder by name; none where there is no plan.

    Raises:
        ResumeError: The plan is not one that this version reads.
    """
    if not (where / PLAN).is_file():
        return {}
    jobs = read_plan(where)["jobs"]
    return {job["name"]: Task(job["name"], where / job["name"], job["config"], tuple(job["overrides"])) for job in jobs}


def left_to_do(where: Path, jobs: Sequence[Job], *, redo: bool = False) -> list[Job]:
    """Jobs without a verified result of this configuration and code.

    Args:
        where: The sweep's folder.
        jobs: All of them.
        redo: Set runs of other code aside and run them again.

    Raises:
        CodeError: A run was made or begun by other code, and ``redo`` is off.
        ResumeError: A folder holds a run of another configuration.
    """
    _refuse_other_runs(where, jobs)
    code = runs.code_digest(plugin_files())
    others = [job for job in jobs if _code_of(where / job.name) not in (None, code)]
    if others and not redo:
        names = ", ".join(job.name for job in others[:3]) + (f" and {len(others) - 3} more" if len(others) > 3 else "")
        raise CodeError(
            f"{len(others)} of {len(jobs)} jobs in {where} were run by other code: {names}",
            hint="--redo sets them aside and runs them again; hydra.sweep.dir=DIR begins another sweep",
            kept="nothing was changed",
        )
    for job in others:
        storage.set_aside(where / job.name, "run by other code than now; --redo was given")
    return [job for job in jobs if not is_done(where / job.name, job.config, code)]


def _refuse_other_runs(where: Path, jobs: Sequence[Job]) -> None:
    """The same names with other fixed settings are another sweep."""
    for job in jobs:
        old = runs.RunFolder.config_in(where / job.name)
        if old is None:
            continue
        new = to_plain(job.config)
        if new["train"]["precision"] == "auto":
            new["train"]["precision"] = old["train"].get("precision", "auto")
        changed = [d for d in runs.differences(old, new) if d[0] != "train.epochs" or d[2] < d[1]]
        if changed:
            key, was, wanted = changed[0]
            raise ResumeError(
                f"{where} holds another sweep: {key} is {was} in {job.name}, not {wanted}",
                hint="hydra.sweep.dir=DIR begins another sweep",
                kept="nothing was changed",
            )


def _code_of(folder: Path) -> str | None:
    path = folder / "digests.json"
    return storage.read_json(path).get("code") if path.is_file() else None


def is_done(folder: Path, config: Config, code: str) -> bool:
    """Whether a folder holds a result of this very configuration and code."""
    result = read_result(folder)
    digests = result.get("digests", {})
    if config.train.precision == "auto":  # the folder knows what it meant
        config = replace(config, train=replace(config.train, precision=result.get("precision", "auto")))
    same = (digests.get("config"), digests.get("code")) == (runs.config_digest(config), code)
    return result.get("status") == "done" and same


def read_result(folder: Path) -> dict[str, Any]:
    """result.json of a job; empty where there is none, or none that can be read."""
    try:
        found = storage.read_json(folder / "result.json") if (folder / "result.json").is_file() else {}
    except LabError:
        return {}
    return found if isinstance(found, dict) and found.get("schema") == runs.RESULT_SCHEMA else {}


def read_facts(where: Path) -> dict[str, dict[str, Any]]:
    """What was counted and measured of each variant outside its runs; empty before."""
    return storage.read_json(where / FACTS)["variants"] if (where / FACTS).is_file() else {}
