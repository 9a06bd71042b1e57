"""One process per folder, by the kernel's lock."""

import fcntl
import json
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

from cifar_lab.errors import LockedError
from cifar_lab.storage.files import disk_errors

LOCK_NAME = ".lock"


class FolderLock:
    """At most one process works in a folder; the kernel's lock alone decides.

    The lock lives on ``folder/.lock``, which stays there. Its text (host, pid, since) only words
    the message. A dead holder holds nothing, on whatever node it was. Where somebody deleted the file
    or the folder while we waited for it, the one that has the name now is taken.

    Args:
        folder: Created if missing.
        wait: Wait for the holder instead of refusing.
        stop: Called while waiting; raises to give up.

    Raises:
        LockedError: On entry, if another process holds it and ``wait`` is off.
        DiskError: If the folder cannot be written, or its file system knows no locks.
    """

    def __init__(self, folder: Path | str, *, wait: bool = False, stop: Callable[[], None] | None = None):
        self.folder = Path(folder)
        self.wait = wait
        self.stop = stop
        self._descriptor: int | None = None

    def __enter__(self) -> "FolderLock":
        with disk_errors(self.folder):
            descriptor = self._open()
            while not self._has_the_name(descriptor):
                os.close(descriptor)
                descriptor = self._open()
        self._descriptor = descriptor
        return self

    def __exit__(self, *exc: object) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _open(self) -> int:
        """Open the lock's file, take the lock and write down who has it."""
        descriptor = self._open_file()
        try:
            while not self._try(descriptor):
                if self.stop is not None:
                    self.stop()
                time.sleep(0.2)
            holder = {"host": socket.gethostname(), "pid": os.getpid(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps(holder).encode(), 0)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def _open_file(self) -> int:
        while True:
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                return os.open(self.folder / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            except FileNotFoundError:  # whoever had the lock removed the folder
                continue
            except FileExistsError:  # likewise, while it was looked at
                if os.path.lexists(self.folder) and not self.folder.is_dir():
                    raise

    def _has_the_name(self, descriptor: int) -> bool:
        """Whether the locked file is the one that others would open."""
        try:
            named = (self.folder / LOCK_NAME).stat()
        except FileNotFoundError:
            return False
        own = os.fstat(descriptor)
        return (own.st_dev, own.st_ino) == (named.st_dev, named.st_ino)

    def _try(self, descriptor: int) -> bool:
        """Take the lock; False if it is held and we wait."""
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if self.wait:
                return False
            raise LockedError(
                f"{self.folder} in use by {self._holder(descriptor)}",
                hint="wait for it to end, or choose another folder with hydra.run.dir=PATH",
                kept="the other run is untouched",
            ) from None
        return True

    def _holder(self, descriptor: int) -> str:
        try:
            holder = json.loads(os.pread(descriptor, 4096, 0))
            return f"pid {holder['pid']} on {holder['host']} since {holder['since']}"
        except (ValueError, KeyError, TypeError):
            return "another process"


def is_locked(folder: Path | str) -> bool:
    """Whether somebody has a folder's lock, this process included; looking changes and creates nothing."""
    try:
        descriptor = os.open(Path(folder) / LOCK_NAME, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared: two who look do not take each other for a holder
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
