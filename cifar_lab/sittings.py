"""What a run took in all its sittings: one that is interrupted goes on in another process, and reports the whole."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from cifar_lab import memory, storage
from cifar_lab.tracking import METRICS_FILE

_FILE = "environment.json"


class Sittings:
    """Seconds, peak memory and whether the device was shared, over this sitting and the ones before.

    They stand in environment.json, which is that of the last sitting otherwise. Of a sitting that was killed, and could
    not write them, its epochs' seconds count.

    Args:
        folder: The run folder.
        device: Of this sitting.
        shared: Other runs have the same device at the same time.

    Raises:
        DataError: environment.json or metrics.jsonl is damaged.
    """

    def __init__(self, folder: Path, device: torch.device, *, shared: bool = False):
        self._path, self._device = folder / _FILE, device
        self._began = time.perf_counter()
        self._facts: dict[str, Any] = {}
        known = storage.read_json(self._path) if self._path.is_file() else {}
        trained = sum(row["seconds"] for row in storage.read_lines(folder / METRICS_FILE))
        self._seconds = max(known.get("seconds", 0.0), trained)
        # What CUDA's allocator counts and what a process holds cannot be compared.
        self._peak = known.get("peak_memory_mib", 0.0) if known.get("peak_memory_of") == self.peak_of else 0.0
        self.shared = shared or bool(known.get("shared"))

    @property
    def peak_of(self) -> str:
        """What ``peak_mib`` is the peak of."""
        return "CUDA allocator" if self._device.type == "cuda" else "process"

    def seconds(self) -> float:
        """From the start of each sitting to its end, this one's to now; without the pauses between them."""
        return self._seconds + time.perf_counter() - self._began

    def peak_mib(self) -> float:
        """Most MiB in any sitting, see ``memory.peak_mib``."""
        return max(self._peak, memory.peak_mib(self._device))

    def begin(self, facts: Mapping[str, Any]) -> None:
        """Write environment.json: the facts of this sitting, and what was before it."""
        self._facts = dict(facts)
        self.end()

    def end(self) -> None:
        """Write down what it was until now, for a sitting that may follow."""
        took = {"seconds": self.seconds(), "peak_memory_mib": self.peak_mib(), "peak_memory_of": self.peak_of}
        storage.write_json(self._path, {**self._facts, "shared": self.shared, **took})
