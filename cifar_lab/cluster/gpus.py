"""Which GPU a job takes where the cluster has not given it one: never the first one for all."""

import os
from collections.abc import Mapping

MACHINE_GPUS = "CIFAR_LAB_GPUS"
"""GPUs that the submitting process saw, for jobs on the same machine: submitit gives all of them the first one, or none."""

_GIVEN_BY_SLURM = ("SLURM_JOB_GPUS", "SLURM_STEP_GPUS")


def choose_gpu(environ: Mapping[str, str], number: int, count: int, *, given: bool = False) -> str | None:
    """The value that CUDA_VISIBLE_DEVICES must have for a job.

    Jobs that Slurm or Ray gave a GPU of their own keep it. Others take turns by their number, so that those which run
    at the same time are spread over the machine.

    Args:
        environ: The job's environment.
        number: Of the job in its sweep, from 0.
        count: GPUs that the job sees.
        given: Whether Ray gave the job a GPU.

    Returns:
        None: leave it as it is.
    """
    if environ.get("SUBMITIT_EXECUTOR") == "local" and MACHINE_GPUS in environ:
        visible = [gpu for gpu in environ[MACHINE_GPUS].split(",") if gpu]
        return visible[number % len(visible)] if visible else None
    if given or any(environ.get(name) for name in _GIVEN_BY_SLURM):
        return None
    listed = environ.get("CUDA_VISIBLE_DEVICES")
    visible = [str(index) for index in range(count)] if listed is None else [gpu for gpu in listed.split(",") if gpu]
    return visible[number % len(visible)] if len(visible) > 1 else None


def visible_gpus() -> list[str]:
    """What CUDA_VISIBLE_DEVICES has to be for each GPU that this process may use."""
    import torch

    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if not torch.cuda.device_count():
        return []
    return [gpu for gpu in listed.split(",") if gpu] if listed else [str(index) for index in range(torch.cuda.device_count())]
