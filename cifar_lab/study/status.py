"""How a sweep is getting on, told from its files alone, so on any machine that sees them.

A run is ``running`` while somebody works in its folder: on this machine the kernel's list of locks knows; where it cannot
know, as of another machine, the folder's newest file must be young. One that began, has no result and has nobody working
in it is ``lost``: killed, or its machine died. ``waiting`` are those that have not begun and those that stopped on a
signal and will continue.
"""

import json
import os
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from cifar_lab import storage
from cifar_lab.display import duration, say, table_console
from cifar_lab.errors import LabError
from cifar_lab.study.design import Run, load_study

STATES = ("done", "running", "failed", "lost", "waiting")
_LOCKS = Path("/proc/locks")
_YOUNG_S = 180.0
"""A running run writes a checkpoint every ``train.checkpoint_every_s``, a minute, and a row at each epoch's end."""


@dataclass(frozen=True)
class JobStatus:
    """One job of a sweep.

    Args:
        name: Of its folder.
        state: One of ``STATES``.
        epochs_done: Rows of metrics.jsonl.
        epochs: Planned.
        val_accuracy: Of the last row; None where it has none.
        seconds: That it took; None unless it is done.
        left_s: Seconds that a running job still needs, by its last epochs; None where nobody knows.
        where: Host and process that work in it, or did last.
        note: What ended it, or what will become of it.
        log: Its log; empty where there is none.
    """

    name: str
    state: str
    epochs_done: int
    epochs: int
    val_accuracy: float | None = None
    seconds: float | None = None
    left_s: float | None = None
    where: str = ""
    note: str = ""
    log: str = ""


@dataclass(frozen=True)
class SweepStatus:
    """A sweep's jobs, their number in each state, and the seconds until the last one is done; None where nobody knows."""

    folder: str
    name: str
    counts: dict[str, int]
    time_left_s: float | None
    jobs: list[JobStatus]


def read_status(folder: Path | str) -> SweepStatus:
    """Look at every job's folder; nothing is locked, opened for writing or waited for.

    Raises:
        DataError: The folder holds no plan.
        ResumeError: The plan is of another version.
    """
    study = load_study(folder)
    held = _locks_held()
    jobs = [_status(run, held) for run in study.runs]
    counts = {state: sum(job.state == state for job in jobs) for state in STATES}
    return SweepStatus(str(folder), study.name, counts, time_left(jobs), jobs)


def show_status(status: SweepStatus, *, as_json: bool = False) -> None:
    """Print it: one line for all, and one for each job that is not done."""
    if as_json:
        say(json.dumps(asdict(status), indent=1))
        return
    counts = ", ".join(f"{status.counts[state]} {state}" for state in STATES)
    left = "" if status.time_left_s is None else f", {duration(status.time_left_s)} left"
    say(f"{status.name}: {len(status.jobs)} jobs, {counts}{left}")
    unfinished = [job for job in status.jobs if job.state != "done"]
    if not unfinished:
        return
    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in ("job", "state", "epoch", "val", "left", "where", ""):
        table.add_column(column, justify="right" if column in ("epoch", "val", "left") else "left", overflow="fold")
    for job in unfinished:
        val = "-" if job.val_accuracy is None else f"{100 * job.val_accuracy:.1f} %"
        left_here = "-" if job.left_s is None else duration(job.left_s)
        note = f"{job.note}; {job.log}" if job.log and job.state in ("failed", "lost") else job.note
        table.add_row(job.name, job.state, f"{job.epochs_done}/{job.epochs}", val, left_here, job.where, note)
    table_console().print(table)


def time_left(jobs: Sequence[JobStatus]) -> float | None:
    """Seconds until the last job is done, if as many go on at once as run now.

    A job that waits or was lost takes as long as those that are done, or as the running ones will have taken. None while
    nothing runs, or nothing is known yet.
    """
    running = [job for job in jobs if job.state == "running"]
    known = [job.left_s for job in running if job.left_s is not None]
    seconds = [job.seconds for job in jobs if job.seconds is not None]
    # A running job that is half done at n seconds left takes 2n.
    seconds = seconds or [job.left_s * job.epochs / (job.epochs - job.epochs_done) for job in running if job.left_s]
    if not running or (not seconds and len(known) < len(running)):
        return None
    one = sum(seconds) / len(seconds) if seconds else 0.0
    to_come = [one * (1 - job.epochs_done / max(1, job.epochs)) for job in jobs if job.state in ("waiting", "lost")]
    of_running = [one if job.left_s is None else job.left_s for job in running]
    return max(*of_running, (sum(of_running) + sum(to_come)) / len(running)) if len(of_running) > 1 else sum(of_running + to_come)


def _status(run: Run, held: set[tuple[str, str]]) -> JobStatus:
    epochs, done = int(run.config["train.epochs"]), len(run.rows)
    holder = _holder(run.folder)
    state, note = _state(run, holder, held)
    each = [row["seconds"] for row in run.rows[-5:] if isinstance(row.get("seconds"), int | float)]
    log = run.folder / "run.log"
    return JobStatus(
        name=run.name,
        state=state,
        epochs_done=done,
        epochs=epochs,
        val_accuracy=run.rows[-1].get("val_accuracy") if run.rows else None,
        seconds=run.result.get("seconds") if state == "done" else None,
        left_s=sum(each) / len(each) * max(0, epochs - done) if each and state == "running" else None,
        where=f"{holder['host']}, pid {holder['pid']}" if holder and state in ("running", "lost") else "",
        note=note,
        log=str(log) if log.is_file() else "",
    )


def _state(run: Run, holder: Mapping[str, Any], held: set[tuple[str, str]]) -> tuple[str, str]:
    """The state and what is to be said about it."""
    status = run.status
    if status == "done":
        return "done", ""
    if _at_work(run, holder, held):
        return "running", f"since {holder.get('since', '?')}"
    if status == "interrupted":
        return "waiting", "stopped on a signal; continues when it is run again"
    if status in ("failed", "diverged"):
        error = run.result.get("error") or {}
        return "failed", f"{error.get('code', 'E-NONE')} {error.get('message', 'it left no word')}"
    return (
        ("lost", "ended without a word; the same command continues it") if status == "unfinished" or holder else ("waiting", "")
    )


def _at_work(run: Run, holder: Mapping[str, Any], held: set[tuple[str, str]]) -> bool:
    """Whether somebody works in a run folder."""
    if not holder:
        return False
    if holder["host"] == socket.gethostname():
        if (str(holder["pid"]), str((run.folder / storage.LOCK_NAME).stat().st_ino)) in held:
            return True
        if not _is_alive(holder["pid"]):
            return False
    young = max(_YOUNG_S, 3 * float(run.config["train.checkpoint_every_s"]), 3 * _slowest_epoch(run))
    last = _last_change(run.folder)
    ended = run.folder / "result.json"
    # What an earlier attempt left does not count against one that has written something since.
    return time.time() - last < young and not (ended.is_file() and ended.stat().st_mtime >= last)


def _slowest_epoch(run: Run) -> float:
    return max((float(row.get("seconds") or 0.0) for row in run.rows), default=0.0)


def _last_change(folder: Path) -> float:
    """When something in a run folder was last written, by the file system's clock."""
    paths = [folder / ".", *folder.iterdir(), *(folder / "checkpoints").glob("*")]
    return max(path.stat().st_mtime for path in paths if path.exists())


def _holder(folder: Path) -> dict[str, Any]:
    """Who has, or last had, a run folder; empty where nobody ever had."""
    path = folder / storage.LOCK_NAME
    try:
        found = storage.read_json(path) if path.is_file() else {}
    except LabError:  # just being written
        return {"host": "?", "pid": "?"}
    return found if isinstance(found, dict) and {"host", "pid"} <= found.keys() else {}


def _locks_held() -> set[tuple[str, str]]:
    """Process and inode of every lock on this machine; none where the kernel does not say.

    Trying the lock would tell as well, but would refuse a run that starts at that moment. Devices are not compared: some
    file systems give a file another one than the kernel's list does.
    """
    try:
        lines = _LOCKS.read_text().splitlines()
    except OSError:
        return set()
    # 1: FLOCK  ADVISORY  WRITE 4242 fe:01:1179650 0 EOF; a line with "->" is one that waits
    words = [line.split() for line in lines]
    return {(each[4], each[5].rpartition(":")[2]) for each in words if len(each) > 5 and each[1] == "FLOCK"}


def _is_alive(pid: Any) -> bool:
    try:
        os.kill(int(pid), 0)
    except (ProcessLookupError, ValueError):
        return False
    except PermissionError:  # somebody else's
        return True
    return True
