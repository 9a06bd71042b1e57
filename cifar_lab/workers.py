"""Several runs on one machine, each in a process of its own that it may bring down without hurting the others.

A worker is kept for the next run, so that interpreter, torch, the device and the data set are paid for once, not once
per run. What became of a run is read from its result.json; where a run could not write one (killed, hung, ended from
within), it is written here.
"""

import contextlib
import signal
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cifar_lab import runs
from cifar_lab.errors import DeviceError, DeviceFailedError, Interrupted, JobTimeoutError, KilledError, LabError, LockedError
from cifar_lab.processes import Slot, Worker, error_of
from cifar_lab.signals import StopFlag

POLL_S = 0.2
GRACE_S = 60.0
"""Seconds in which runs may write a checkpoint after a signal; what is not over by then is killed."""


@dataclass(frozen=True)
class Task:
    """One run to be made.

    Attributes:
        name: For messages.
        folder: Its run folder.
        plain: Its configuration, as config.yaml holds it.
        overrides: What stands in its overrides.txt.
    """

    name: str
    folder: Path
    plain: dict[str, Any]
    overrides: tuple[str, ...]


@dataclass
class Outcome:
    """How a task ended.

    Attributes:
        name: Of the task.
        error: What ended it; None for a run that is done.
        seconds: From its start to its end.
    """

    name: str
    error: LabError | None = None
    seconds: float = 0.0


class Watcher:
    """Who shows how the tasks go; does nothing."""

    def started(self, task: Task) -> None:
        """A worker has begun with a task."""

    def ended(self, outcome: Outcome) -> None:
        """A task is over."""

    def tick(self) -> None:
        """Called a few times a second."""


def run_tasks(
    tasks: Sequence[Task],
    slots: Sequence[Slot],
    *,
    plugins: Sequence[Path] = (),
    timeout_s: float = 0.0,
    stop: StopFlag,
    watcher: Watcher | None = None,
) -> list[Outcome]:
    """Run all tasks, as many at once as there are slots.

    Args:
        tasks: In the order in which they start.
        slots: One worker each.
        plugins: A person's own files, for the workers.
        timeout_s: Seconds that a run may take; 0: no limit.
        stop: When it is set, running tasks are asked to checkpoint and no further one starts.
        watcher: Is told of starts and ends.

    Returns:
        Outcomes in the order of the tasks; those that never started are left out.

    Raises:
        Interrupted: ``stop`` was set; everything that ran has ended by then.
    """
    crew = _Crew(list(tasks), watcher or Watcher(), timeout_s)
    with crew.at_work([Worker(slot, plugins) for slot in slots]):
        while crew.waiting or crew.running:
            if stop.signum:
                crew.dismiss()
                name = signal.Signals(stop.signum).name
                done = sum(outcome.error is None for outcome in crew.outcomes.values())
                raise Interrupted(f"{name}: stopped with {done} of {len(tasks)} done", signum=stop.signum)
            crew.assign()
            crew.collect()
            crew.watcher.tick()
    return [crew.outcomes[task.name] for task in tasks if task.name in crew.outcomes]


@dataclass
class _Crew:
    """Tasks, workers, and who does what."""

    waiting: list[Task]
    watcher: Watcher
    timeout_s: float
    free: list[Worker] = field(default_factory=list)
    running: dict[Any, tuple[Task, Worker, float]] = field(default_factory=dict)
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    is_leaving: bool = False

    @contextlib.contextmanager
    def at_work(self, workers: list[Worker]) -> Iterator[None]:
        """Workers are there within this; however it is left, none is there afterwards."""
        self.free = list(workers)
        try:
            yield
            for worker in workers:
                worker.pool.close()
        finally:
            for worker in workers:
                worker.end()

    def assign(self) -> None:
        """Give every free worker a task."""
        while self.free and self.waiting:
            task, worker = self.waiting.pop(0), self.free.pop(0)
            self.running[worker.start(_run_task, task, timeout_s=self.timeout_s)] = (task, worker, time.monotonic())
            self.watcher.started(task)

    def collect(self, timeout_s: float = POLL_S) -> None:
        """Take in what has ended, waiting a moment for it."""
        for future, (_, worker, _) in self.running.items():
            worker.end_if_lost(future)
        for future in wait(self.running, timeout=timeout_s, return_when="FIRST_COMPLETED").done:
            task, worker, began = self.running.pop(future)
            outcome = Outcome(task.name, error_of(future, self.timeout_s), time.monotonic() - began)
            if isinstance(outcome.error, LockedError):  # another sweep runs it: it is waited for, behind all others
                self.waiting.append(task)
                time.sleep(POLL_S)
            elif _has_gone(worker, outcome.error) and (self.free or self.running):
                self.waiting.insert(0, task)
                continue  # the others do it all; this one would end every run in its first second
            else:
                # A run that was asked to stop has not failed, even if it had no time to say so.
                if isinstance(outcome.error, KilledError | JobTimeoutError | DeviceError) and not self.is_leaving:
                    runs.record_failure(task.folder, outcome.error)
                if isinstance(outcome.error, DeviceError):  # CUDA stays broken for the rest of a process
                    worker.renew()
                self.outcomes[task.name] = outcome
                self.watcher.ended(outcome)
            self.free.append(worker)

    def dismiss(self) -> None:
        """Ask whoever runs to stop, and wait for it."""
        self.is_leaving = True
        self.waiting.clear()
        for _, worker, _ in self.running.values():
            worker.ask_to_stop()
        until = time.monotonic() + GRACE_S
        while self.running and time.monotonic() < until:
            self.collect()


def _has_gone(worker: Worker, error: LabError | None) -> bool:
    """Whether the worker's own GPU is not there any more."""
    return worker.slot.gpu is not None and isinstance(error, DeviceError) and not isinstance(error, DeviceFailedError)


# In the worker


def _run_task(task: Task, slot: Slot) -> LabError | None:
    """One run; whatever ends it is its outcome."""
    from cifar_lab import memory, pipeline, schema

    try:
        config = schema.from_plain(task.plain)
        slot.place(config)
        # Latency is measured once a variant, when no run is under way any more.
        pipeline.run(config, task.folder, task.overrides, in_sweep=True, shared=slot.shared, timed=False)
    except LabError as error:
        return error.alone()  # it is held until the next run is over
    except KeyboardInterrupt:
        return Interrupted("interrupted", signum=int(signal.SIGINT))
    except SystemExit as error:
        return LabError(f"the run called sys.exit({error.code!r})")
    except Exception as error:
        return LabError(f"this is a bug: {type(error).__name__}: {error}", hint=f"the traceback is in {task.folder / 'run.log'}")
    finally:
        memory.give_back()
    return None
