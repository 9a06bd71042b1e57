"""Peak memory of a stretch of work: of the allocator on CUDA, of the whole process elsewhere."""

import contextlib
import os
import resource
import sys
from pathlib import Path

import torch

_MIB = 2**20


def reset_peak(device: torch.device) -> None:
    """Begin a new stretch. Where the kernel cannot forget a process's peak, it stays that of the process."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    with contextlib.suppress(OSError):
        # Linux: 5 sets the high-water mark of resident memory back to what is resident now (man 5 proc).
        switch = os.open("/proc/self/clear_refs", os.O_WRONLY)
        try:
            os.write(switch, b"5")
        finally:
            os.close(switch)


def peak_mib(device: torch.device) -> float:
    """Most MiB since ``reset_peak``: allocated tensors on CUDA; elsewhere resident memory, interpreter and libraries included."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / _MIB
    status = Path("/proc/self/status")
    if status.is_file():
        (peak,) = (line.split()[1] for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(peak) * 1024 / _MIB
    peak_rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS, KiB elsewhere
    return peak_rss / _MIB if sys.platform == "darwin" else peak_rss * 1024 / _MIB
