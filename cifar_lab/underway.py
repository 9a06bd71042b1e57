"""Which jobs of a sweep's folder belong to commands that are still at work in it.

Two commands may work in one folder at once, each with seeds of its own and a GPU of its own. Each leaves the names of what
it has to do in a folder of its own, whose lock it holds until it ends: of a command that was killed the kernel lets go, so
nothing is waited for that nobody will run.
"""

import contextlib
import os
import socket
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path

from cifar_lab import storage
from cifar_lab.errors import DiskError

_FOLDER, _JOBS = ".underway", "jobs.json"


@contextlib.contextmanager
def under_way(where: Path, names: Iterable[str]) -> Iterator[None]:
    """Within this the jobs are this command's to do.

    Args:
        where: The sweep's folder; its lock is held by the caller when this begins.
        names: Of the jobs; none says nothing.
    """
    names = sorted(names)
    if not names:
        yield
        return
    own = where / _FOLDER / f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    try:
        with storage.FolderLock(own, wait=True):  # somebody may be looking just now
            storage.write_json(own / _JOBS, names)
            yield
    finally:
        _remove(own)


def names_under_way(where: Path, *, tidy: bool = False) -> set[str]:
    """The jobs that living commands have to do in a sweep's folder.

    Args:
        where: The sweep's folder.
        tidy: Remove what dead commands left; the sweep's folder must be locked.
    """
    found: set[str] = set()
    for folder in sorted((where / _FOLDER).glob("*")):
        if storage.is_locked(folder):
            with contextlib.suppress(FileNotFoundError):  # it begins or ends just now
                found.update(storage.read_json(folder / _JOBS))
        elif tidy and folder.is_dir():
            _remove(folder)
    return found


def _remove(folder: Path) -> None:
    """Nothing depends on it: what somebody removed, or a file system that will not let go of, is no error."""
    with contextlib.suppress(DiskError):
        storage.remove_folder(folder)
