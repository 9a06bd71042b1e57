"""A planned sweep on its way: what is saved before it starts, what is left to do, who does it, and what is seen of it."""

import os
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.live import Live
from rich.table import Table

from cifar_lab import runs, storage
from cifar_lab.config import Config, to_plain
from cifar_lab.display import LabConsole, duration
from cifar_lab.errors import CodeError, ConfigError, LabError, ResumeError
from cifar_lab.plugins import plugin_files
from cifar_lab.signals import StopFlag
from cifar_lab.sweeps import Job
from cifar_lab.tracking import METRICS_FILE
from cifar_lab.workers import Outcome, Slot, Task, Watcher, run_tasks

PLAN = "plan.json"
PLAN_SCHEMA = 1
_BYTES_PER_WORKER = 2 * 2**30  # libraries, CIFAR-10 in host memory, a small network


def save_plan(where: Path, jobs: Sequence[Job]) -> None:
    """Write down every job as it was composed; they run from this copy, whatever becomes of the files they came from."""
    known = [{"name": job.name, "overrides": list(job.overrides), "config": to_plain(job.config)} for job in jobs]
    plan = {"schema": PLAN_SCHEMA, "code": runs.code_digest(plugin_files()), "jobs": known}
    storage.write_json(where / PLAN, {**plan, "plugins": [str(path) for path in plugin_files()]})


def planned(where: Path) -> dict[str, Task]:
    """The jobs of a sweep's folder by name; none where there is no plan.

    Raises:
        ResumeError: The plan is not one that this version reads.
    """
    if not (where / PLAN).is_file():
        return {}
    plan = storage.read_json(where / PLAN)
    if not isinstance(plan, dict) or plan.get("schema") != PLAN_SCHEMA:
        raise ResumeError(f"{where / PLAN} is no plan of this version", hint="use another hydra.sweep.dir")
    return {job["name"]: Task(job["name"], where / job["name"], job["config"], tuple(job["overrides"])) for job in plan["jobs"]}


def left_to_do(where: Path, jobs: Sequence[Job], *, redo: bool = False) -> list[Job]:
    """Jobs without a verified result of this configuration and code.

    Args:
        where: The sweep's folder.
        jobs: All of them.
        redo: Set runs of other code aside and run them again.

    Raises:
        CodeError: A run was made or begun by other code, and ``redo`` is off.
    """
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


def run_planned(where: Path | str, job_overrides: Sequence[Sequence[str]]) -> list[Outcome]:
    """Run some jobs of a plan on this machine; called by our launcher.

    Args:
        where: The sweep's folder.
        job_overrides: Of each job; the last one is ``hydra.sweep.subdir=NAME``.

    Raises:
        Interrupted: A signal came.
    """
    tasks_by_name = planned(Path(where))
    tasks = [tasks_by_name[overrides[-1].partition("=")[2].strip("'")] for overrides in job_overrides]
    sweep = tasks[0].plain["sweep"]
    slots = choose_slots(sweep["workers"], len(tasks), tasks[0].plain["device"], tasks[0].plain["threads"])
    with StopFlag() as stop, LiveTable(tasks) as table:
        return run_tasks(tasks, slots, plugins=plugin_files(), timeout_s=sweep["job_timeout"], stop=stop, watcher=table)


def choose_slots(workers: int, count: int, device: str, threads: int) -> list[Slot]:
    """How many workers, and what each may use.

    On GPUs one worker each, or ``workers`` spread over them in turn. On a CPU as many as ``workers``, or one for each
    core that has memory; they share the cores unless ``threads`` says how many each takes.

    Args:
        workers: ``sweep.workers``; 0: by rule.
        count: Jobs.
        device: Of the jobs.
        threads: Of the jobs; 0: their share.

    Raises:
        ConfigError: More workers than the device that was named allows.
    """
    gpus = _gpus() if device in ("auto", "cuda") else []
    if gpus:
        wanted = min(workers or len(gpus), count)
        return [Slot(threads or max(1, _cores() // wanted), gpus[index % len(gpus)]) for index in range(wanted)]
    if device.startswith("cuda") or device == "mps":
        if workers > 1:
            raise ConfigError(f"sweep.workers={workers} with device={device}; one device runs one job at a time")
        return [Slot(threads)]
    wanted = min(workers or max(1, min(_cores(), _free_bytes() // _BYTES_PER_WORKER)), count)
    return [Slot(threads or max(1, _cores() // wanted)) for _ in range(wanted)]


def _gpus() -> list[str]:
    """What CUDA_VISIBLE_DEVICES has to be for each GPU."""
    import torch

    if not torch.cuda.is_available():
        return []
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return visible.split(",") if visible else [str(index) for index in range(torch.cuda.device_count())]


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _free_bytes() -> int:
    """Memory that can be had without swapping; on a system that does not say, enough."""
    path = Path("/proc/meminfo")
    if not path.is_file():
        return 2**60
    lines = dict(line.split(":", 1) for line in path.read_text().splitlines())
    return int(lines["MemAvailable"].split()[0]) * 1024


class LiveTable(Watcher):
    """Done, running, failed, waiting and time left: a table that moves on a terminal, else a line per job that ends.

    Args:
        tasks: All that are to run.
    """

    def __init__(self, tasks: Sequence[Task]):
        self.console = LabConsole()
        self._tasks = {task.name: task for task in tasks}
        self._running: dict[str, float] = {}
        self._ended: list[Outcome] = []
        self._live = Live(console=self.console, auto_refresh=False, transient=True) if self.console.is_terminal else None
        self._began, self._next = time.monotonic(), 0.0

    def __enter__(self) -> "LiveTable":
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *exc: object) -> None:
        if self._live is not None:
            self._live.stop()

    def started(self, task: Task) -> None:
        """A worker has begun with a task."""
        self._running[task.name] = time.monotonic()

    def ended(self, outcome: Outcome) -> None:
        """A task is over: one line."""
        self._running.pop(outcome.name, None)
        self._ended.append(outcome)
        place = f"[{len(self._ended)}/{len(self._tasks)}] {outcome.name}"
        if outcome.error is not None:
            self._print(f"{place}: {outcome.error.code} {outcome.error.what}")
            return
        metrics = read_result(self._tasks[outcome.name].folder).get("metrics") or {}
        shown = ", ".join(f"{split} {100 * metrics[split]['accuracy']:.2f} %" for split in ("val", "test") if metrics.get(split))
        self._print(f"{place}: {shown}, {outcome.seconds:.1f} s")

    def tick(self) -> None:
        """Move the table, at most once a second."""
        if self._live is not None and time.monotonic() >= self._next:
            self._next = time.monotonic() + 1.0
            self._live.update(self._table(), refresh=True)

    def _print(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def _table(self) -> Table:
        failed = sum(outcome.error is not None for outcome in self._ended)
        waiting = len(self._tasks) - len(self._ended) - len(self._running)
        title = (
            f"{len(self._ended) - failed} done, {len(self._running)} running, {failed} failed, {waiting} waiting{self._left()}"
        )
        table = Table(title=title, box=None, title_justify="left", padding=(0, 2, 0, 0))
        for column in ("running", "epoch", "val", "since"):
            table.add_column(column, justify="left" if column == "running" else "right", overflow="fold")
        for name, since in self._running.items():
            epoch, val = _last_row(self._tasks[name])
            table.add_row(name, epoch, val, duration(time.monotonic() - since))
        return table

    def _left(self) -> str:
        """Time left: jobs so far took so long, and so many are at it at once."""
        if not self._ended:
            return ""
        pace = (time.monotonic() - self._began) / len(self._ended)
        return f", {duration(pace * (len(self._tasks) - len(self._ended)))} left"


def _last_row(task: Task) -> tuple[str, str]:
    """How far a run is, from the file that it writes: epoch of epochs, validation accuracy."""
    path = task.folder / METRICS_FILE
    try:
        rows = storage.read_lines(path) if path.is_file() else []
    except LabError:
        rows = []
    last = rows[-1] if rows else {"epoch": 0}
    val = last.get("val_accuracy")
    return f"{last['epoch']}/{task.plain['train']['epochs']}", "-" if val is None else f"{100 * val:.1f} %"
