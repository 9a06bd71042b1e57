"""Which GPU a job takes where the cluster has not given it one: never the first one for all."""

import os
from collections.abc import Callable, Mapping

MACHINE_GPUS = "CIFAR_LAB_GPUS"
"""GPUs that the submitting process saw, for jobs on the same machine: submitit gives all of them the first one, or none."""

_GIVEN_BY_SLURM = ("SLURM_JOB_GPUS", "SLURM_STEP_GPUS")


def choose_gpu(environ: Mapping[str, str], number: int, count: Callable[[], int], *, given: bool = False) -> str | None:
    """The value that CUDA_VISIBLE_DEVICES must have for a job.

    Jobs that Slurm or Ray gave a GPU of their own keep it. Others take turns by their number, so that those which run
    at the same time are spread over the machine.

    Args:
        environ: The job's environment.
        number: Of the job in its sweep, from 0.
        count: GPUs that the job sees. Asked only where no variable lists them: counting may begin CUDA, which does not look
            at the variable any more from then on.
        given: Whether Ray gave the job a GPU.

    Returns:
        None: leave it as it is.
    """
    if environ.get("SUBMITIT_EXECUTOR") == "local" and MACHINE_GPUS in environ:
        visible = _listed(environ[MACHINE_GPUS])
        return visible[number % len(visible)] if visible else None
    if given or any(environ.get(name) for name in _GIVEN_BY_SLURM):
        return None
    listed = environ.get("CUDA_VISIBLE_DEVICES")
    visible = [str(index) for index in range(count())] if listed is None else _listed(listed)
    return visible[number % len(visible)] if len(visible) > 1 else None


def visible_gpus() -> list[str]:
    """What CUDA_VISIBLE_DEVICES has to be for each GPU that this process may use."""
    import torch

    count, listed = torch.cuda.device_count(), os.environ.get("CUDA_VISIBLE_DEVICES")
    return [str(index) for index in range(count)] if listed is None else _listed(listed)[:count]


def _listed(text: str) -> list[str]:
    """What CUDA_VISIBLE_DEVICES names; as for CUDA, nothing behind the first entry that is none counts."""
    entries = [entry.strip() for entry in text.split(",")]
    ends = [place for place, entry in enumerate(entries) if not entry or entry.startswith("-")]
    return entries[: ends[0]] if ends else entries
