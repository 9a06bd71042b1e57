"""Whole files or nothing, synced appends, streams for logs and downloads, digests."""

import contextlib
import errno
import hashlib
import json
import math
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, TextIO

from cifar_lab.errors import DataError, DiskError

TEMP_PREFIX = ".tmp-"
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
    errno.ENOTDIR: "a file stands where a folder is needed",
    errno.EEXIST: "the name is taken already",
}


# Whole files


def write_bytes(path: Path | str, data: bytes) -> None:
    """Write a file whole; a reader or a crash sees the old content or the new one.

    Raises:
        DiskError: With the path, what was needed and what is free.
    """
    write_pieces(path, (data,))


def write_pieces(path: Path | str, pieces: Sequence[bytes | memoryview]) -> None:
    """``write_bytes`` of one piece after the other, none of which is copied."""
    path = Path(path)
    with disk_errors(path, sum(len(piece) for piece in pieces)):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = temporary_beside(path)
        try:
            write_synced(temporary, *pieces)
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)


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
    with disk_errors(path, len(data)):
        created = not path.exists()
        with path.open("ab") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        if created:
            sync_folder(path.parent)


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


def cut_half_line(path: Path | str) -> None:
    """Cut off, in place, a last line without its end; a missing file is left missing.

    Raises:
        DiskError: It cannot be changed.
    """
    path = Path(path)
    if not path.is_file():
        return
    with disk_errors(path), path.open("r+b") as stream:
        end = stream.seek(0, os.SEEK_END)
        stream.seek(max(0, end - 1))
        if stream.read(1) in (b"", b"\n"):
            return
        stream.seek(0)
        stream.truncate(stream.read().rfind(b"\n") + 1)


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
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("a", encoding="utf-8", buffering=1)


def open_partial(path: Path | str) -> IO[bytes]:
    """Open a file that grows over several attempts, such as a download; position it at the end.

    It carries a name of its own until ``finish_partial``; the caller closes it and checks it before.
    """
    path = Path(path)
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("ab")


def finish_partial(partial: Path | str, final: Path | str) -> None:
    """Give a checked partial file its final name, synced."""
    partial, final = Path(partial), Path(final)
    with disk_errors(final):
        with partial.open("rb") as stream:
            os.fsync(stream.fileno())
        partial.replace(final)
        sync_folder(final.parent)


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


# What the door is made of


def free_bytes(path: Path | str) -> int:
    """Bytes free for this user on the file system of ``path``, which need not exist yet."""
    path = Path(path).absolute()
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free


@contextlib.contextmanager
def disk_errors(path: Path | str, needed: int | None = None) -> Iterator[None]:
    """Turn an ``OSError`` while writing into one line with path, cause, needed and free space.

    Args:
        path: What is being written.
        needed: Bytes that it takes; None where nobody knows.
    """
    try:
        yield
    except OSError as error:
        cause = _CAUSES.get(error.errno or 0, error.strerror or str(error))
        space = ""
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            free = f"{free_bytes(path) // _MB} MB free"
            space = f" (needs {math.ceil(needed / _MB)} MB, {free})" if needed is not None else f" ({free})"
        raise DiskError(f"{cause} for {path}{space}", hint="free some space or choose another folder") from error


def temporary_beside(path: Path) -> Path:
    """A name in the same folder that nobody else has and that ``remove_leftovers`` knows."""
    return path.with_name(f"{TEMP_PREFIX}{uuid.uuid4().hex}")


def write_synced(path: Path, *pieces: bytes | memoryview) -> None:
    """Write a new file and return when the disk has it."""
    with path.open("xb") as stream:
        for piece in pieces:
            stream.write(piece)
        stream.flush()
        os.fsync(stream.fileno())


def sync_folder(folder: Path) -> None:
    """Return when the disk has the folder's names."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _finite(value: Any) -> Any:
    """The same value with NaN and infinities as None."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
