"""The workers of one command, each in a process of its own: started, started again when one dies, stopped together."""

import signal
import time
from collections.abc import Sequence
from concurrent.futures import wait
from typing import Any

from cifar_lab.errors import Interrupted, KilledError, LabError
from cifar_lab.plugins import plugin_files
from cifar_lab.processes import Slot, Worker, error_of
from cifar_lab.signals import StopFlag
from cifar_lab.tuning.desk import MOST_DEATHS, Desk, ended
from cifar_lab.tuning.report import Progress
from cifar_lab.tuning.trials import work
from cifar_lab.workers import GRACE_S, POLL_S


def run_workers(desk: Desk, slots: Sequence[Slot], *, most: int, timeout_s: float, stop: StopFlag) -> None:
    """Let a worker in each slot run trials until none is left, and say how each ended.

    Args:
        desk: Of the search.
        slots: One worker each.
        most: Trials of the whole search.
        timeout_s: Seconds after which no new trial begins; 0: no limit.
        stop: When it is set, running trials are asked to checkpoint.

    Raises:
        Interrupted: ``stop`` was set; everything that ran has ended by then.
        LabError: A worker met something that no trial would escape.
    """
    until = time.time() + (timeout_s or float(10**9))
    progress = Progress(desk, most)
    crew = _Crew(desk, most, until)
    try:
        for slot in slots:
            crew.begin(Worker(slot, plugin_files()))
        while crew.running:
            if stop.signum:
                crew.dismiss()
                progress.look()
                name = signal.Signals(stop.signum).name
                raise Interrupted(f"{name}: stopped with {len(ended(desk.trials()))} of {most} trials done", signum=stop.signum)
            crew.collect()
            progress.look()
        if crew.error is not None:
            raise crew.error
    finally:
        crew.end()


class _Crew:
    """Who is at work."""

    def __init__(self, desk: Desk, most: int, until: float):
        self.desk = desk
        self.arguments = (str(desk.where), most, until)
        self.all: list[Worker] = []
        self.running: dict[Any, Worker] = {}
        self.error: LabError | None = None
        self._deaths = self._ended_before = 0

    def begin(self, worker: Worker) -> None:
        """Let a worker work."""
        if worker not in self.all:
            self.all.append(worker)
        self.running[worker.start(work, *self.arguments)] = worker

    def collect(self) -> None:
        """Take in whose work has ended, waiting a moment for it; who died begins again with the trial that was left."""
        for future, worker in self.running.items():
            worker.end_if_lost(future)
        for future in wait(self.running, timeout=POLL_S, return_when="FIRST_COMPLETED").done:
            worker = self.running.pop(future)
            error = error_of(future)
            if isinstance(error, KilledError) and self.error is None and not self._too_often():
                self.begin(worker)
            elif error is not None:
                self.error = self.error or error
                self.ask_to_stop()

    def ask_to_stop(self) -> None:
        """Ask whoever runs to checkpoint and stop."""
        for worker in self.running.values():
            worker.ask_to_stop()

    def dismiss(self) -> None:
        """Ask whoever runs to stop, and wait for it."""
        self.ask_to_stop()
        until = time.monotonic() + GRACE_S
        while self.running and time.monotonic() < until:
            for future in wait(self.running, timeout=POLL_S, return_when="FIRST_COMPLETED").done:
                self.running.pop(future)

    def end(self) -> None:
        """However this is left, no process stays."""
        for worker in self.all:
            worker.end()

    def _too_often(self) -> bool:
        """Whether workers die without any trial coming to an end: more often than one bad trial may make them."""
        count = len(ended(self.desk.trials()))
        self._deaths = 1 if count > self._ended_before else self._deaths + 1
        self._ended_before = count
        return self._deaths > MOST_DEATHS * len(self.all)
