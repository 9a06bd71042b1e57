"""Features of frozen models on the disk, for a run that goes on and for later runs: computing them can take 15 minutes.

Those of a run have a folder below ``features`` in the cache folder, named by all that they depend on, to the bit. All of it
may be deleted at any time; beyond ``LIMIT_BYTES`` those that were not used for the longest time are.
"""

import contextlib
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
from torch import Tensor

from cifar_lab import storage
from cifar_lab.data.cifar_files import cache_folder
from cifar_lab.data.sets import Stop
from cifar_lab.errors import DataError, DiskError, LockedError

LIMIT_BYTES = 4 * 2**30
"""What all features together may take."""
WORTH_S = 5.0
"""Features that are computed faster than this are not kept: reading them would save nothing that anybody notices."""

_TENSORS, _RECORD = "features.safetensors", "features.json"


@dataclass
class Place:
    """Where features of one key are kept, held by this process.

    Args:
        folder: None where nothing can be kept.
        trouble: Why nothing is kept, or was kept, in words; empty if all is well.
    """

    folder: Path | None = None
    trouble: str = ""

    def read(self) -> tuple[dict[str, Tensor], float] | None:
        """Tensors by name and the seconds that they took to compute; None where there are none, or none that are whole."""
        if self.folder is None or not (self.folder / _RECORD).is_file():
            return None
        try:
            record = storage.read_json(self.folder / _RECORD)
            content = (self.folder / _TENSORS).read_bytes()
            if storage.sha256_bytes(content) != record["sha256"]:
                raise ValueError("other bytes than were written")
            found = safetensors.torch.load(content), float(record["seconds"])
        except (DataError, OSError, KeyError, TypeError, ValueError):
            self.trouble = f"those in {self.folder} were damaged"
            return None
        with contextlib.suppress(DiskError):  # who may only read has them too
            storage.write_json(self.folder / _RECORD, {**record, "used": time.time()})
        return found

    def keep(self, tensors: Mapping[str, Tensor], seconds: float) -> None:
        """Write features down, if that is worth it; a full disk is no reason for a run to end, see ``trouble``."""
        if self.folder is None:
            return
        try:
            if seconds < WORTH_S:
                storage.remove_folder(self.folder)
                return
            content = safetensors.torch.save(dict(tensors))
            _make_room(self.folder, len(content))
            storage.write_bytes(self.folder / _TENSORS, content)
            record = {"sha256": storage.sha256_bytes(content), "seconds": seconds, "used": time.time()}
            storage.write_json(self.folder / _RECORD, record)
        except DiskError as error:
            self.trouble = f"not kept: {error.what}"


@contextlib.contextmanager
def place_of(key: str, *, stop: Stop) -> Iterator[Place]:
    """The place of these features. Whoever else wants them waits until they are there.

    Args:
        key: All that they depend on, digested.
        stop: Called while another process has the place; raises to give up.
    """
    folder = cache_folder() / "features" / key[:32]
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(storage.FolderLock(folder, wait=True, stop=stop))
            place = Place(folder)
        except DiskError as error:
            place = Place(None, f"not kept: {error.what}")
        yield place


def _make_room(own: Path, needed: int) -> None:
    """Remove other features, first those that were not used for the longest time, until so many bytes more are allowed."""
    others = [folder for folder in own.parent.iterdir() if folder != own and not storage.is_leftover(folder)]
    sizes = {folder: sum(path.stat().st_size for path in folder.iterdir()) for folder in others}
    for folder in sorted(others, key=_last_use):
        if sum(sizes.values()) + needed <= LIMIT_BYTES:
            return
        with contextlib.suppress(LockedError), storage.FolderLock(folder):
            storage.remove_folder(folder)
            del sizes[folder]


def _last_use(folder: Path) -> float:
    record = folder / _RECORD
    return record.stat().st_mtime if record.is_file() else 0.0
