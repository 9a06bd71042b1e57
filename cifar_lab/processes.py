"""A process beside this one: how it comes into being, what it may use, and that it never outlives this one."""

import contextlib
import ctypes
import gc
import multiprocessing
import os
import pkgutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import BrokenExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

from pebble import ProcessExpired, ProcessPool

from cifar_lab.config import Config
from cifar_lab.errors import JobTimeoutError, KilledError, LabError
from cifar_lab.plugins import plugin_files

LOST_S = 2.0
"""Seconds for which the process of a worker is replaced by another before its work is given up."""
_PR_SET_PDEATHSIG = 1
_PRELOADED = ["cifar_lab.preloaded"]


@dataclass(frozen=True)
class Slot:
    """What one worker may use.

    Attributes:
        threads: CPU threads of each of its runs; 0: as its configuration says.
        gpu: Value of CUDA_VISIBLE_DEVICES; None: as it is.
        shared: Whether other runs have the same device at the same time, so that seconds say little.
    """

    threads: int = 0
    gpu: str | None = None
    shared: bool = False

    def place(self, config: Config) -> None:
        """Let a configuration run here: a GPU that has gone is an error, and no reason to take hours on the CPU instead."""
        config.threads = config.threads or self.threads
        if self.gpu is not None and config.device == "auto":
            config.device = "cuda"


def server_context() -> Any:
    """How worker processes come into being.

    Forked from a server that has imported torch and has no threads: a fork of this process would hang, and a process
    that starts from nothing would import for seconds each time that one died.
    """
    has_server = "forkserver" in multiprocessing.get_all_start_methods()
    context: Any = multiprocessing.get_context("forkserver" if has_server else "spawn")
    if has_server:
        context.set_forkserver_preload(_PRELOADED)
    return context


def warm_up() -> None:
    """Let the server import what workers need, beside whatever is done here meanwhile."""
    if server_context().get_start_method() == "forkserver":
        forkserver.ensure_running()


class Worker:
    """A pool of one process: its own slot, its own end, a new process after a death."""

    def __init__(self, slot: Slot, plugins: Sequence[Path]):
        self.slot, self.pid = slot, 0
        self._begun = self._expected = 0
        self._lost_since = 0.0
        self._plugins = [str(path) for path in plugins]
        self._open()

    def _open(self) -> None:
        context = server_context()
        self.pid = 0
        self._pids = context.SimpleQueue()
        self.pool = ProcessPool(
            max_workers=1,
            initializer=prepare,
            initargs=(self._pids, dict(os.environ), self.slot, self._plugins),
            context=context,
        )

    def start(self, work: Callable[..., Any], *args: Any, timeout_s: float = 0.0) -> Any:
        """Begin with something, told which slot it has; returns its future."""
        if not self.pool.active:  # its process died while it had nothing to do
            self.renew()
        self._hear()
        self._expected = self._begun + (not _is_alive(self.pid))  # where the last one died pebble begins another
        self._lost_since = 0.0
        return self.pool.schedule(work, args=(*args, self.slot), timeout=timeout_s or None)

    def end(self) -> None:
        """End the process, whatever it does."""
        self.pool.stop()
        self.pool.join()

    def renew(self) -> None:
        """Go on in another process."""
        self.end()
        self._open()

    def end_if_lost(self, future: Any) -> None:
        """End the waiting for work whose process has ended with code 0; its future says so.

        pebble takes such an end for one of its own, begins another process, and waits for the result for ever.
        """
        self._hear()
        if future.done() or self._begun <= self._expected:
            return
        self._lost_since = self._lost_since or time.monotonic()
        if time.monotonic() - self._lost_since > LOST_S:
            self.end()
            if not future.done():
                future.set_exception(BrokenExecutor())

    def _hear(self) -> None:
        """Take in who has begun."""
        while not self._pids.empty():
            self.pid = self._pids.get()
            self._begun += 1

    def ask_to_stop(self) -> None:
        """SIGTERM, which a run answers with a checkpoint."""
        self._hear()
        if self.pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGTERM)


def _is_alive(pid: int) -> bool:
    if not pid:
        return False
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, PermissionError):  # gone, or somebody else's by now
        return False
    return True


def apart(function: str, *args: Any, slot: Slot | None = None, timeout_s: float = 0.0) -> Any:
    """Call a function in a process of its own and return what it returns.

    Args:
        function: ``module:name``.
        args: Plain values.
        slot: What it may use.
        timeout_s: Seconds that it may take; 0: no limit.

    Raises:
        LabError: What it raised, or what became of its process.
    """
    worker = Worker(slot or Slot(), plugin_files())
    try:
        future = worker.start(_call, function, args, timeout_s=timeout_s)
        error = error_of(future, timeout_s)
        if isinstance(error, LabError):
            raise error
        return future.result()
    finally:
        worker.end()


def error_of(future: Any, timeout_s: float = 0.0) -> LabError | None:
    """What ended the work of a worker, by its future; what it returned otherwise, which is None for a run that is done."""
    try:
        return future.result()
    except FutureTimeoutError:
        return JobTimeoutError(f"not done after {timeout_s:g} s", hint="sweep.job_timeout=0 lets jobs take their time")
    except ProcessExpired as error:
        code = error.exitcode
        what = (
            f"killed by {signal.Signals(-code).name}" if code is not None and code < 0 else f"its process ended with code {code}"
        )
        return KilledError(what, hint="out of memory is the usual reason for SIGKILL: fewer sweep.workers need less")
    except BrokenExecutor:  # it died with nothing to do, or ended with code 0
        return KilledError("its process died", hint="out of memory is the usual reason: fewer sweep.workers need less")
    except (Exception, SystemExit) as error:
        return LabError(f"{type(error).__name__}: {error}")


def prepare(pids: Any, environ: dict[str, str], slot: Slot, plugins: list[str]) -> None:
    """Make a new process a worker.

    Args:
        pids: Hears its process id.
        environ: Environment of whoever wants it.
        slot: What it may use.
        plugins: Files of a person's own components.
    """
    _die_with_parent()
    os.environ.clear()  # the server's are those of the first sweep
    os.environ.update(environ)
    pids.put(os.getpid())
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # pebble's would end a run before it could say so
    if slot.gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = slot.gpu
    # run.log has it all; the terminal is the sweep's
    sys.stdout = sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115
    from cifar_lab import schema
    from cifar_lab.plugins import add_entry_points, add_plugin

    add_entry_points()
    for path in plugins:
        add_plugin(path)
    schema.register()
    gc.freeze()  # what is imported stays: the collection before each run (``memory.reset_peak``) need not look through it


def _die_with_parent() -> None:
    """End this process when the sweep's ends, however that ends: the server dies with the sweep, and this one with both."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    sweep = multiprocessing.parent_process()
    assert sweep is not None

    def follow() -> None:
        sweep.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def _call(function: str, args: tuple[Any, ...], slot: Slot) -> Any:
    """A function by its name; torch has the threads of the slot."""
    import torch

    if slot.threads:
        torch.set_num_threads(slot.threads)
    return pkgutil.resolve_name(function)(*args)
