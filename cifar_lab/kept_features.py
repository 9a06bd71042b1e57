"""Features of frozen models on the disk, for a run that goes on and for later runs: computing them can take 15 minutes.

Those of a run have a folder below ``features`` in the cache folder, named by all that they depend on, to the bit. All of it
may be deleted at any time; beyond ``LIMIT_BYTES`` those that were not used for the longest time are. Whatever goes wrong
here is said and ends no run.
"""

import contextlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import torch
from torch import Tensor

from cifar_lab import storage
from cifar_lab.data.cifar_files import cache_folder
from cifar_lab.data.sets import Stop
from cifar_lab.errors import DataError, DiskError, LockedError

LIMIT_BYTES = 4 * 2**30
"""What all features together may take."""
RESERVE_BYTES = 2**30
"""What is left free on the disk, which a run needs for its checkpoints."""
WORTH_S = 2.0
"""Features that are computed faster than this are not kept: reading them would save nothing that anybody notices."""

_TENSORS, _RECORD = "features.safetensors", "features.json"
_DTYPES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64"}


@dataclass
class Place:
    """Where features of one key are kept.

    Args:
        folder: The key's own.
        held: Whether this process has its lock; without it features are read, but not kept.
        trouble: Why features are not kept, or were no longer whole, in words; empty if all is well.
    """

    folder: Path
    held: bool
    trouble: str = ""

    def read(self) -> tuple[dict[str, Tensor], float] | None:
        """Tensors by name and the seconds that they took to compute; None where there are none, or none that are whole."""
        path = self.folder / _TENSORS
        try:
            if not (self.folder / _RECORD).is_file():
                return None
            record = storage.read_json(self.folder / _RECORD)
            if storage.sha256_file(path) != record["sha256"]:
                raise ValueError("other bytes than were written")
            with safetensors.safe_open(path, "pt") as file:  # copies: of a file that is removed its memory map may go too
                found = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118  (it is no dict)
            seconds = float(record["seconds"])
        except (DataError, OSError, KeyError, TypeError, ValueError, safetensors.SafetensorError):
            self.trouble = f"those in {self.folder} were damaged"
            return None
        if self.held:
            with contextlib.suppress(DiskError):
                storage.write_json(self.folder / _RECORD, {**record, "used": time.time()})
        self.trouble = ""
        return found, seconds

    def keep(self, tensors: Mapping[str, Tensor], seconds: float) -> None:
        """Write features down where that is worth it; see ``trouble`` for why it was not done."""
        if not self.held:
            return
        try:
            with storage.disk_errors(self.folder):
                self._keep(tensors, seconds)
        except DiskError as error:
            self.trouble = f"not kept: {error.what}"

    def _keep(self, tensors: Mapping[str, Tensor], seconds: float) -> None:
        needed = sum(value.numel() * value.element_size() for value in tensors.values())
        if seconds < WORTH_S:
            _remove(self.folder)
        elif needed > LIMIT_BYTES:
            self.trouble = f"not kept: {needed / 1e9:.1f} GB are more than all may take together"
        elif storage.free_bytes(self.folder) < needed + RESERVE_BYTES:
            self.trouble = f"not kept: {self.folder} is on a disk that is nearly full"
        else:
            storage.remove_leftovers(self.folder)  # of one that was killed while it wrote
            _make_room(self.folder, needed)
            storage.write_pieces(self.folder / _TENSORS, _as_safetensors(tensors))
            digest = storage.sha256_file(self.folder / _TENSORS)
            storage.write_json(self.folder / _RECORD, {"sha256": digest, "seconds": seconds, "used": time.time()})


@contextlib.contextmanager
def place_of(key: str, *, stop: Stop) -> Iterator[Place]:
    """The place of these features. Whoever else wants them waits until they are there.

    Args:
        key: All that they depend on, digested.
        stop: Called while another process has the place; raises to give up.
    """
    try:
        folder = cache_folder() / "features" / key[:32]
    except RuntimeError as error:  # a user without a home
        yield Place(Path(os.devnull), held=False, trouble=f"not kept: {error}")
        return
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(storage.FolderLock(folder, wait=True, stop=stop))
            place = Place(folder, held=True)
        except DiskError as error:  # a cache that many may read and few may write
            place = Place(folder, held=False, trouble=f"not kept: {error.what}")
        yield place


def _as_safetensors(tensors: Mapping[str, Tensor]) -> list[bytes | memoryview]:
    """Their file in pieces. safetensors' own ``save`` needs the memory of all of them a second time."""
    header: dict[str, Any] = {}
    pieces, end = [], 0
    for name, value in tensors.items():
        begin, end = end, end + value.numel() * value.element_size()
        header[name] = {"dtype": _DTYPES[value.dtype], "shape": list(value.shape), "data_offsets": [begin, end]}
        pieces.append(value.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return [len(text).to_bytes(8, "little"), text, *pieces]


def _make_room(own: Path, needed: int) -> None:
    """Remove other features, first those that were not used for the longest time, until so many bytes more are allowed."""
    sizes: dict[Path, int] = {}
    for folder in own.parent.iterdir():
        if storage.is_leftover(folder):  # of one that was killed while it removed them
            _remove(folder)
        elif folder != own and folder.is_dir():
            with contextlib.suppress(OSError):  # it has just gone, or is somebody's who lets nobody look
                sizes[folder] = sum(path.stat().st_size for path in folder.iterdir())
    for folder in sorted(sizes, key=_last_use):
        if sum(sizes.values()) + needed <= LIMIT_BYTES:
            return
        with contextlib.suppress(LockedError, DiskError), storage.FolderLock(folder):
            storage.remove_folder(folder)
            del sizes[folder]


def _last_use(folder: Path) -> float:
    try:
        return float(storage.read_json(folder / _RECORD)["used"])
    except (OSError, DataError, KeyError, TypeError, ValueError):  # not whole: first to go
        return 0.0


def _remove(folder: Path) -> None:
    with contextlib.suppress(DiskError):  # some file systems keep the name of a file that is open
        storage.remove_folder(folder)
