"""Memory of a process: kept between steps instead of given back, and its peak over a stretch of work."""

import contextlib
import ctypes
import gc
import os
import resource
import sys
from pathlib import Path
from typing import Any

import torch

_MIB = 2**20
# glibc's malloc.h: blocks from the first size on come from the kernel one by one, freed memory beyond the second goes back.
_M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD = -3, -1
_LARGEST_INT, _NEVER = 2**31 - 1, -1
_STATUS = Path("/proc/self/status")


def keep_freed_memory() -> bool:
    """Let the C library keep the memory of freed tensors for the next ones, for the rest of the process.

    By default glibc asks the kernel for every block of 32 MiB or more and gives it back when it is freed; each step then
    spends its time on page faults (1.6 times the images/s of mobilenet_like at batch 128 on a CPU without them). The
    peak stays what the largest step needs.

    Returns:
        Whether the C library took the settings; another one than glibc has none and is left as it is.
    """
    mallopt = _of_glibc("mallopt")
    if mallopt is None:
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, _LARGEST_INT)) and bool(mallopt(_M_TRIM_THRESHOLD, _NEVER))


def reset_peak(device: torch.device) -> None:
    """Begin a new stretch: what earlier work of this process freed does not count.

    Where the kernel cannot forget a process's peak, it stays that of the process.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    # The heap that ``keep_freed_memory`` keeps is resident, so the peak would begin at that of the largest run before.
    gc.collect()
    trim = _of_glibc("malloc_trim")
    if trim is not None:
        trim(0)
    with contextlib.suppress(OSError):
        # Linux: 5 sets the high-water mark of resident memory back to what is resident now (man 5 proc).
        switch = os.open("/proc/self/clear_refs", os.O_WRONLY)
        try:
            os.write(switch, b"5")
        finally:
            os.close(switch)


def _of_glibc(name: str) -> Any:
    """A function of the C library; None where it is another one that has no such function."""
    return getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None


def give_back() -> None:
    """Give the GPU memory of what is over to whoever comes next, here or in another process on the same GPU."""
    if torch.cuda.is_initialized():
        gc.collect()
        with contextlib.suppress(RuntimeError):  # a GPU that failed
            torch.cuda.empty_cache()


def peak_mib(device: torch.device) -> float:
    """Most MiB since ``reset_peak``: allocated tensors on CUDA; elsewhere resident memory, interpreter and libraries included."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / _MIB
    lines = _STATUS.read_text().splitlines() if _STATUS.is_file() else []
    for line in lines:
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024 / _MIB
    # No Linux, or a container whose kernel leaves the line out: the peak of the process from its start.
    peak_rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS, KiB elsewhere
    return peak_rss / _MIB if sys.platform == "darwin" else peak_rss * 1024 / _MIB
