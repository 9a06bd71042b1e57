"""Handing a sweep's jobs to a foreign launcher, and waiting until the last of them is over, however it ended.

submitit's and Ray's launchers end with the first job that was killed, and forget the others; where Slurm keeps no
accounting, submitit waits for a killed job for ever. So every job that was handed over is waited for here.
"""

import contextlib
import importlib
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from typing import Any

from cifar_lab.cluster.gpus import MACHINE_GPUS
from cifar_lab.display import say
from cifar_lab.errors import ConfigError, Interrupted, JobStopped

_BACKENDS = {
    "hydra_plugins.hydra_submitit_launcher.submitit_launcher": {"SlurmLauncher": "slurm", "LocalLauncher": "local"},
    "hydra_plugins.hydra_ray_launcher.ray_launcher": {"RayLauncher": "ray"},
}
_HOW_TO_GO_ON = {
    "slurm": "jobs stay in Slurm's queue: cifar-lab status DIR shows them, scancel ends them; the same command makes the report",
    "local": "the jobs were asked to stop; the same command goes on where they stopped",
    "ray": "Ray ends jobs with the program that began them; the same command goes on from their checkpoints",
}
_QUEUE_EVERY_S = 30
_ENDED = {
    *("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "REVOKED", "TIMEOUT", "GONE"),
}
"""States of Slurm after which nothing comes; a job in any other may still run."""


class _Terminated(BaseException):
    """SIGTERM came while jobs were waited for; as with Ctrl-C, no launcher may take it for the failure of a job."""


def launch(launcher: Any, job_overrides: Sequence[Sequence[str]]) -> None:
    """Start all jobs and come back when none is left.

    Args:
        launcher: Hydra's, set up.
        job_overrides: Of each job.

    Raises:
        ConfigError: The cluster did not take the jobs.
        Interrupted: A signal came; the hint says what becomes of the jobs.
    """
    backend = _BACKENDS.get(type(launcher).__module__, {}).get(type(launcher).__name__)
    overrides = [list(each) for each in job_overrides]
    if backend is None:
        try:
            launcher.launch(overrides, initial_job_idx=0)
        except JobStopped as stopped:
            raise stopped.error from None
        return
    _prepare_environment(backend)
    handles: list[Any] = []
    try:
        with _sigterm_raises(), (_ray if backend == "ray" else _submitit)(handles):
            try:
                launcher.launch(overrides, initial_job_idx=0)
            except Exception as error:
                if not handles:
                    raise _not_taken(backend, error) from error
                say(f"{_last_line(error)}; waiting for the other jobs")
            _wait(backend, handles)
    except (KeyboardInterrupt, _Terminated) as error:
        signum = signal.SIGTERM if isinstance(error, _Terminated) else signal.SIGINT
        if backend == "local":
            _stop_local(handles)
        raise Interrupted(f"{signum.name}: no longer waiting for the jobs", signum=signum, hint=_HOW_TO_GO_ON[backend]) from None


def _prepare_environment(backend: str) -> None:
    """What jobs inherit."""
    if backend == "local":
        from cifar_lab.cluster.gpus import visible_gpus

        os.environ[MACHINE_GPUS] = ",".join(visible_gpus())
    if backend == "ray":
        # Ray reports its use to its makers, and would pack this folder for workers started by `uv run`.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")


@contextlib.contextmanager
def _submitit(handles: list[Any]) -> Iterator[None]:
    """Within this, submitit's jobs are noted and their states are read from the queue."""
    core, slurm = importlib.import_module("submitit.core.core"), importlib.import_module("submitit.slurm.slurm")
    submit = core.Executor.map_array

    def map_array(self: Any, *args: Any, **kwargs: Any) -> Any:
        jobs = submit(self, *args, **kwargs)
        handles.extend(jobs)
        return jobs

    with (
        _replaced(core.Executor, "map_array", map_array),
        _replaced(slurm.SlurmJob, "watcher", _queue_watcher(slurm.SlurmInfoWatcher)),
    ):
        yield


def _queue_watcher(base: type) -> Any:
    """Job states by ``squeue``, which every cluster has; submitit asks ``sacct``, which fails where nothing is accounted."""

    class QueueWatcher(base):
        _ended: set[str] = set()  # noqa: RUF012  (replaced, never changed)

        def _make_command(self) -> list[str] | None:
            mine = ["squeue", "--noheader", "--array", "--states=all", f"--user={os.getuid()}", "--format=%i|%T"]
            return mine if self._registered - self._finished else None

        def read_info(self, string: bytes | str) -> dict[str, dict[str, str]]:
            text = string.decode() if isinstance(string, bytes) else string
            states = dict(line.strip().split("|", 1) for line in text.splitlines() if "|" in line)
            # What the queue has forgotten is over: it remembers ended jobs for minutes only. A job on its way back into the
            # queue may look ended for a moment, so it takes two looks.
            waited_for = self._registered - self._finished
            ended = {job for job in waited_for if states.get(job, "GONE") in _ENDED}
            certain, self._ended = ended & self._ended, ended
            return {job: {"JobID": job, "State": "GONE" if job in certain else "RUNNING"} for job in waited_for}

    return QueueWatcher(delay_s=_QUEUE_EVERY_S)


@contextlib.contextmanager
def _ray(handles: list[Any]) -> Iterator[None]:
    """Within this, Ray's tasks are noted."""
    core = importlib.import_module("hydra_plugins.hydra_ray_launcher._core")
    start = core.launch_job_on_ray

    def launch_job_on_ray(*args: Any, **kwargs: Any) -> Any:
        handles.append(start(*args, **kwargs))
        return handles[-1]

    with _replaced(core, "launch_job_on_ray", launch_job_on_ray):
        yield


def _wait(backend: str, handles: list[Any]) -> None:
    """Come back when every job is over."""
    if backend == "ray":
        importlib.import_module("ray").wait(handles, num_returns=len(handles))
        return
    for job in handles:
        job.wait()


def _stop_local(handles: list[Any]) -> None:
    """Ask submitit's processes on this machine to stop; each passes it on to its job, which writes a checkpoint."""
    for job in handles:
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(job.job_id), signal.SIGTERM)
    for job in handles:
        job.wait()


def _not_taken(backend: str, error: Exception) -> ConfigError:
    hint = "hydra.launcher.KEY=VALUE sets what the cluster wants to know; --cfg hydra shows all keys"
    return ConfigError(f"no job was started ({backend}): {_last_line(error)}", hint=hint)


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


@contextlib.contextmanager
def _sigterm_raises() -> Iterator[None]:
    """SIGTERM ends the waiting, not the process."""

    def received(signum: int, frame: Any) -> None:
        raise _Terminated

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, received)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _replaced(holder: Any, name: str, value: Any) -> Iterator[None]:
    before = getattr(holder, name)
    setattr(holder, name, value)
    try:
        yield
    finally:
        setattr(holder, name, before)
