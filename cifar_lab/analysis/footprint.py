"""Peak memory of answering a batch and of a training step: what is held before, and the most that grows beside it.

Both devices give the same quantity, the tensors of the network and its work, from their own books: CUDA's allocator; on a CPU
every allocation and release of torch's allocator, as its profiler records them. Left out are the interpreter, the libraries, the
data set and, on a CPU, what a library such as oneDNN takes from the system by itself. The resident memory of a whole run, which
has all of these, is in its result.json.
"""

import os
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from cifar_lab.analysis.cost import undisturbed
from cifar_lab.analysis.latency import Answering, wait
from cifar_lab.analysis.training_step import TrainingStep

METHODS = {"cuda": "CUDA allocator", "cpu": "torch's allocations, by its profiler"}
_MIB = 2**20


def inference_memory(model: nn.Module, call: Answering, device: torch.device) -> dict[str, Any] | None:
    """Peak MiB of answering one batch.

    Args:
        model: What answers; left as it was.
        call: The batch and the model.
        device: Where both are.

    Returns:
        ``peak_mib``: ``held_mib`` (weights, buffers and the batch) plus what grows beside it, and the ``method``.
        None on a device that keeps no such books.
    """
    held = sum(t.numel() * t.element_size() for t in (*model.parameters(), *model.buffers(), call.images))
    with undisturbed(model, device):
        call()  # the first call also makes what later ones find
        return _peak(call, device, held)


def training_memory(step: TrainingStep, images: Tensor, labels: Tensor, device: torch.device) -> dict[str, Any] | None:
    """Peak MiB of a training step, when the optimiser has its state already.

    Args:
        step: It trains its model here, twice.
        images: float32 [B, 3, H, W].
        labels: int64 [B].
        device: Where all are.

    Returns:
        As ``inference_memory``; what is held are weights, buffers, the optimiser's state and the batch.
    """
    step(images, labels)
    held = step.held_bytes() + images.numel() * images.element_size() + labels.numel() * labels.element_size()
    return _peak(lambda: step(images, labels), device, held)


def peak_growth(work: Callable[[], object], device: torch.device) -> int:
    """Most bytes that torch's allocator held beside those that were there before.

    Raises:
        ValueError: The device keeps no books of its allocations.
    """
    if device.type == "cuda":
        wait(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        wait(device)
        return torch.cuda.max_memory_allocated(device) - before
    if device.type != "cpu":
        raise ValueError(f"device={device}; must be cpu or cuda")
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler's library would write lines about itself to stderr
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        work()
    results: Any = recorded.profiler.kineto_results if recorded.profiler is not None else None
    events = [e for e in results.events() if e.name() == "[memory]"]
    now = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        now += event.nbytes()
        peak = max(peak, now)
    return peak


def _peak(work: Callable[[], object], device: torch.device, held: int) -> dict[str, Any] | None:
    if device.type not in METHODS:
        return None
    return {"peak_mib": (held + peak_growth(work, device)) / _MIB, "held_mib": held / _MIB, "method": METHODS[device.type]}
