"""The one door to disk: whole files or nothing, synced appends, digests and locks.

A file is complete under its name or not there at all: data goes to a temporary file in the same
folder, is flushed and synced, renamed, and the folder is synced. Nothing else in the package
opens a file for writing. This module knows nothing of runs or tensors.
"""

import contextlib
import errno
import fcntl
import hashlib
import json
import math
import os
import shutil
import socket
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, TextIO

from cifar_lab.errors import DataError, DiskError, LabError, LockedError

LOCK_NAME = ".lock"
_TEMP_PREFIX = ".tmp-"
_PREVIOUS_SUFFIX = ".previous"
_MB = 1_000_000
_CAUSES = {
    errno.ENOSPC: "no space",
    errno.EDQUOT: "disk quota used up",
    errno.EROFS: "read-only file system",
    errno.EACCES: "no permission to write",
    errno.EPERM: "no permission to write",
    errno.EIO: "the disk reports an error",
    errno.EFBIG: "file too large for this file system",
    errno.ENAMETOOLONG: "name too long",
}


# Whole files


def write_bytes(path: Path | str, data: bytes) -> None:
    """Write a file whole; a reader or a crash sees the old content or the new one.

    Raises:
        DiskError: With the path, what was needed and what is free.
    """
    path = Path(path)
    with _disk_errors(path, len(data)):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = _temporary_beside(path)
        try:
            _write_synced(temporary, data)
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        _sync_folder(path.parent)


def write_text(path: Path | str, text: str) -> None:
    """Write a text file whole, in UTF-8."""
    write_bytes(path, text.encode())


def write_json(path: Path | str, value: Any) -> None:
    """Write JSON whole, keys in the order given; NaN and infinities become null, which JSON can say."""
    write_text(path, json.dumps(_finite(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path | str) -> Any:
    """Read one JSON document.

    Raises:
        DataError: If the file is not JSON.
    """
    path = Path(path)
    try:
        return json.loads(path.read_bytes())
    except ValueError as error:
        raise DataError(f"{path} is not valid JSON: {error}") from error


# Lines, one JSON object each


def append_line(path: Path | str, row: Mapping[str, Any]) -> None:
    """Append one JSON line and sync it, so that a row once seen stays."""
    path = Path(path)
    data = (json.dumps(_finite(dict(row)), ensure_ascii=False, allow_nan=False) + "\n").encode()
    with _disk_errors(path, len(data)):
        created = not path.exists()
        with path.open("ab") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        if created:
            _sync_folder(path.parent)


def read_lines(path: Path | str) -> list[dict[str, Any]]:
    """Read the complete lines of a JSON-lines file; no file is no lines.

    A last line without its newline was cut off by a crash and does not count.
    """
    path = Path(path)
    if not path.exists():
        return []
    *complete, _ = path.read_bytes().split(b"\n")
    try:
        return [json.loads(line) for line in complete]
    except ValueError as error:
        raise DataError(f"{path} is not valid JSON lines: {error}") from error


def keep_lines(path: Path | str, count: int) -> None:
    """Cut a JSON-lines file back to its first ``count`` lines; a cut-off last line goes too.

    Raises:
        DataError: If it holds fewer lines.
    """
    path = Path(path)
    data = path.read_bytes() if path.exists() else b""
    *complete, _ = data.split(b"\n")
    if len(complete) < count:
        raise DataError(f"{path} has {len(complete)} rows where {count} were written")
    kept = b"".join(line + b"\n" for line in complete[:count])
    if kept != data:
        write_bytes(path, kept)


# Streams, for logs and downloads only


def open_log(path: Path | str) -> TextIO:
    """Open a log to append to, line by line; the caller closes it."""
    path = Path(path)
    with _disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("a", encoding="utf-8", buffering=1)


def open_partial(path: Path | str) -> IO[bytes]:
    """Open a file that grows over several attempts, such as a download; position it at the end.

    It carries a name of its own until ``finish_partial``; the caller closes it and checks it before.
    """
    path = Path(path)
    with _disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("ab")


def finish_partial(partial: Path | str, final: Path | str) -> None:
    """Give a checked partial file its final name, synced."""
    partial, final = Path(partial), Path(final)
    with _disk_errors(final):
        with partial.open("rb") as stream:
            os.fsync(stream.fileno())
        partial.replace(final)
        _sync_folder(final.parent)


@contextlib.contextmanager
def disk_errors(path: Path | str, needed: int | None = None) -> Iterator[None]:
    """Turn an ``OSError`` while writing to a stream of ours into a ``DiskError`` with the path."""
    with _disk_errors(Path(path), needed):
        yield


# Folders


def make_folder(path: Path | str, *, exclusive: bool = False) -> Path:
    """Create a folder and its parents.

    Args:
        path: The folder.
        exclusive: Refuse one that exists, so that two starters never share it.

    Raises:
        FileExistsError: If ``exclusive`` and it exists.
        DiskError: If it cannot be created.
    """
    path = Path(path)
    with _disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            path.mkdir(exist_ok=not exclusive)
        except FileExistsError:
            if exclusive:
                raise
            raise NotADirectoryError(errno.ENOTDIR, "a file has this name") from None
        _sync_folder(path.parent)
    return path


def publish_folder(final: Path | str, files: Mapping[str, bytes]) -> None:
    """Let a folder with these files appear all at once.

    Raises:
        DiskError: If it exists already, or cannot be written.
    """
    final = Path(final)
    with _disk_errors(final, _total(files)):
        if final.exists():
            raise DiskError(f"{final} exists already; it is never overwritten")
        _fill_temporary(final, files).rename(final)
        _sync_folder(final.parent)


def replace_folder(final: Path | str, files: Mapping[str, bytes]) -> None:
    """Let a folder with these files take the place of the one that has the name.

    A crash between the two renames leaves the old one as ``NAME.previous``, which
    ``remove_leftovers`` brings back.
    """
    final = Path(final)
    with _disk_errors(final, _total(files)):
        filled = _fill_temporary(final, files)
        if final.exists():
            previous = final.with_name(final.name + _PREVIOUS_SUFFIX)
            if previous.exists():
                remove_folder(previous)
            final.rename(previous)
            filled.rename(final)
            _sync_folder(final.parent)
            remove_folder(previous)
        else:
            filled.rename(final)
            _sync_folder(final.parent)


def remove_folder(path: Path | str) -> None:
    """Delete a folder; it loses its name first, so that a crash leaves no half folder under it."""
    path = Path(path)
    with _disk_errors(path):
        doomed = _temporary_beside(path)
        path.rename(doomed)
        shutil.rmtree(doomed)
        _sync_folder(path.parent)


def remove_leftovers(folder: Path | str) -> None:
    """Clear what a killed writer left in a folder: call it while holding the folder's lock.

    Temporary files and folders go; a ``NAME.previous`` without its successor gets its name back.
    """
    folder = Path(folder)
    if not folder.is_dir():
        return
    with _disk_errors(folder):
        for path in sorted(folder.iterdir()):
            if path.name.startswith(_TEMP_PREFIX):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            elif path.name.endswith(_PREVIOUS_SUFFIX) and path.is_dir():
                final = path.with_name(path.name.removesuffix(_PREVIOUS_SUFFIX))
                remove_folder(path) if final.exists() else path.rename(final)


def set_aside(path: Path | str, reason: str) -> Path:
    """Rename a bad file or folder to ``NAME.bad-<n>``; nothing is deleted.

    Args:
        path: What is bad.
        reason: Why; noted in ``NAME.bad-<n>.reason.txt`` beside it.

    Returns:
        The new path.
    """
    path = Path(path)
    number = 1
    while (bad := path.with_name(f"{path.name}.bad-{number}")).exists():
        number += 1
    with _disk_errors(path):
        path.rename(bad)
        _sync_folder(path.parent)
    write_text(bad.with_name(bad.name + ".reason.txt"), reason + "\n")
    return bad


def free_bytes(path: Path | str) -> int:
    """Bytes free for this user on the file system of ``path``, which need not exist yet."""
    path = Path(path).absolute()
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free


# Digests


def sha256_bytes(data: bytes) -> str:
    """SHA-256 as 64 hex digits."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path | str) -> str:
    """SHA-256 of a file's content as 64 hex digits."""
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def digest(value: Any) -> str:
    """SHA-256 of the canonical JSON of ``value``: the same whatever the order of the keys."""
    return sha256_bytes(json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode())


# Locks


class FolderLock:
    """At most one process works in a folder; the kernel's lock alone decides.

    The lock lives on ``folder/.lock``, which is never deleted. Its text (host, pid, since) only words
    the message. A dead holder holds nothing, on whatever node it was.

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
        with _disk_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self.folder / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
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
        self._descriptor = descriptor
        return self

    def __exit__(self, *exc: object) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

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


# Parts


@contextlib.contextmanager
def _disk_errors(path: Path, needed: int | None = None) -> Iterator[None]:
    """Turn an ``OSError`` while writing into one line with path, cause, needed and free space."""
    try:
        yield
    except (LabError, FileExistsError):
        raise
    except OSError as error:
        cause = _CAUSES.get(error.errno or 0, error.strerror or str(error))
        space = ""
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            free = f"{free_bytes(path) // _MB} MB free"
            space = f" (needs {math.ceil(needed / _MB)} MB, {free})" if needed is not None else f" ({free})"
        raise DiskError(f"{cause} for {path}{space}", hint="free some space or choose another folder") from error


def _temporary_beside(path: Path) -> Path:
    return path.with_name(f"{_TEMP_PREFIX}{uuid.uuid4().hex}")


def _write_synced(path: Path, data: bytes) -> None:
    with path.open("xb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _fill_temporary(final: Path, files: Mapping[str, bytes]) -> Path:
    final.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary_beside(final)
    temporary.mkdir()
    try:
        for name, data in files.items():
            _write_synced(temporary / name, data)
        _sync_folder(temporary)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return temporary


def _total(files: Mapping[str, bytes]) -> int:
    return sum(len(data) for data in files.values())


def _finite(value: Any) -> Any:
    """The same value with NaN and infinities as None."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
