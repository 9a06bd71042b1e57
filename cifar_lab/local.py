"""Jobs of a plan on this machine: how many at once, with which device and threads each, and what is seen of them."""

import functools
import os
import time
from collections.abc import Sequence
from pathlib import Path

from rich.live import Live
from rich.table import Table

from cifar_lab import runs, storage
from cifar_lab.cluster.gpus import visible_gpus
from cifar_lab.display import LabConsole, duration
from cifar_lab.errors import ConfigError, LabError
from cifar_lab.plugins import plugin_files
from cifar_lab.processes import Slot, apart
from cifar_lab.signals import StopFlag
from cifar_lab.sweeping import planned
from cifar_lab.tracking import METRICS_FILE
from cifar_lab.workers import Outcome, Task, Watcher, run_tasks

_BYTES_PER_WORKER = 2 * 2**30  # libraries, CIFAR-10 in host memory, a small network


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
    gpus = visible_gpus() if device in ("auto", "cuda") else []
    if device == "auto" and gpus and not _cuda_works():
        gpus = []
    if gpus:
        wanted = min(workers or len(gpus), count)
        share = threads or max(1, _cores() // wanted)
        return [Slot(share, gpus[index % len(gpus)], shared=wanted > len(gpus)) for index in range(wanted)]
    if device.startswith("cuda") or device == "mps":
        if workers > 1:
            raise ConfigError(f"sweep.workers={workers} with device={device}; one device runs one job at a time")
        return [Slot(threads)]
    wanted = min(workers or max(1, min(_cores(), _free_bytes() // _BYTES_PER_WORKER)), count)
    return [Slot(threads or max(1, _cores() // wanted), shared=wanted > 1) for _ in range(wanted)]


@functools.cache
def _cuda_works() -> bool:
    """Whether torch can use the GPUs that are seen: a driver may be too old for it. Asked in another process, since what
    has begun CUDA no longer looks at CUDA_VISIBLE_DEVICES."""
    return bool(apart("torch.cuda:is_available"))


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
        metrics = runs.read_result(self._tasks[outcome.name].folder).get("metrics") or {}
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
