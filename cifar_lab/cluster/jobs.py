"""One planned job in a process that a foreign launcher started, perhaps hours later and on another machine."""

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cifar_lab import runs, storage
from cifar_lab.cluster.gpus import choose_gpu
from cifar_lab.cores import wait_politely_if_busy
from cifar_lab.errors import CodeError, Interrupted, JobStopped, LabError, LockedError
from cifar_lab.plugins import add_all, plugin_files
from cifar_lab.signals import StopFlag
from cifar_lab.sweeping import PLAN
from cifar_lab.workers import Task

_POLL_S = 2.0
_THREADS = ("SLURM_CPUS_PER_TASK", "SLURM_CPUS_ON_NODE")


def run_job(task: Task, folder: Path, number: int) -> dict[str, Any] | LabError:
    """Run a job of a plan, or continue it; a failure is written to its folder and returned.

    Args:
        task: From the plan.
        folder: Its run folder.
        number: Of the job among those that were launched together, from 0.

    Raises:
        SystemExit: In a job of submitit that a signal stopped. A result would tell the waiting side that the job is
            over, while Slurm may be about to run it again.
        JobStopped: A signal came in the process that a person started: it is meant for the whole sweep.
    """
    try:
        _load_plugins(folder.parent / PLAN)
        wait_politely_if_busy()  # before torch
        _take_gpu(task.plain["device"], number)
        from cifar_lab import pipeline, schema

        config = schema.from_plain(task.plain)
        config.threads = config.threads or _threads_given()
        return _when_free(lambda: pipeline.run(config, folder, task.overrides, in_sweep=True, shared=_shares_machine()))
    except (Interrupted, KeyboardInterrupt) as ending:
        error = ending if isinstance(ending, Interrupted) else Interrupted("interrupted", signum=signal.SIGINT)
        if "SUBMITIT_EXECUTOR" in os.environ:
            raise SystemExit(error.exit_code) from ending
        if not _in_a_process_of_its_own():
            raise JobStopped(error) from ending
        return error
    except LabError as error:
        runs.record_failure(folder, error)
        return error.alone()
    except Exception as error:
        bug = LabError(f"this is a bug: {type(error).__name__}: {error}")
        runs.record_failure(folder, bug)
        return bug
    finally:
        _give_back_memory()


def _give_back_memory() -> None:
    """Of a run that is over, where its process goes on to the next one."""
    if "torch" in sys.modules:
        from cifar_lab import memory

        memory.give_back()


def _load_plugins(path: Path) -> None:
    """The person's own files, as when the sweep was planned; refuse to run other code than was planned."""
    plan = storage.read_json(path)
    add_all(plan["plugins"])
    code = runs.code_digest(plugin_files())
    if code != plan["code"]:
        raise CodeError(
            f"the code has changed since {path.parent} was planned ({plan['code'][:8]} -> {code[:8]})",
            hint="check out the old code, or run the sweep again with --redo",
            kept="nothing was run",
        )


def _take_gpu(device: str, number: int) -> None:
    """Set CUDA_VISIBLE_DEVICES where nobody gave this job a GPU of its own."""
    if device not in ("auto", "cuda") or not _in_a_process_of_its_own():
        return
    import torch

    # Counted by NVML: CUDA itself would be initialised by torch.cuda.is_available, and then no longer look at the variable.
    gpu = choose_gpu(os.environ, number, torch.cuda.device_count, given=_ray_gave_one())
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu


def _in_a_process_of_its_own() -> bool:
    """Whether a cluster started this process; Hydra's basic launcher runs jobs one after the other in the person's."""
    return "SUBMITIT_EXECUTOR" in os.environ or _in_ray()


def _shares_machine() -> bool:
    """Whether this machine runs other jobs of the sweep on the same CPUs; Slurm and Ray give each its own."""
    return os.environ.get("SUBMITIT_EXECUTOR") == "local"


def _in_ray() -> bool:
    return "ray" in sys.modules and sys.modules["ray"].is_initialized()


def _ray_gave_one() -> bool:
    if not _in_ray():
        return False
    ray: Any = sys.modules["ray"]
    return bool(ray.get_runtime_context().get_accelerator_ids().get("GPU"))


def _threads_given() -> int:
    """CPUs that Slurm gave this job; several on one node would otherwise take all cores each. 0: it does not say."""
    for name in _THREADS:
        if os.environ.get(name, "").isdigit():
            return int(os.environ[name])
    return 0


def _when_free(run: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Run it; where another job has the folder (it was submitted twice), wait for that one's end first."""
    while True:
        try:
            return run()
        except LockedError as error:
            with StopFlag() as stop:
                time.sleep(_POLL_S)
                stop.check(f"waiting: {error.what}")
