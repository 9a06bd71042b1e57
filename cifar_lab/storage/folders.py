"""Folders that appear, change and go all at once, and what a killed writer left in one."""

import errno
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from cifar_lab.errors import DiskError
from cifar_lab.storage.files import TEMP_PREFIX, disk_errors, sync_folder, temporary_beside, write_synced, write_text

_PREVIOUS_SUFFIX = ".previous"
Check = Callable[[Path], object]


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
    exists = False
    with disk_errors(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except FileExistsError:  # the parent is a file
            raise NotADirectoryError(errno.ENOTDIR, "") from None
        try:
            path.mkdir()
        except FileExistsError:
            exists = True
            if not exclusive and not path.is_dir():
                raise NotADirectoryError(errno.ENOTDIR, "") from None
        else:
            sync_folder(path.parent)
    if exclusive and exists:
        raise FileExistsError(errno.EEXIST, "the folder exists already", str(path))
    return path


def publish_folder(final: Path | str, files: Mapping[str, bytes], *, check: Check | None = None) -> None:
    """Let a folder with these files appear all at once.

    Args:
        final: The folder's name.
        files: Content by file name.
        check: Reads the complete folder back before it gets its name; what it raises leaves nothing behind.

    Raises:
        DiskError: If it exists already, or cannot be written.
    """
    final = Path(final)
    with disk_errors(final, _total(files)):
        if final.exists():
            raise DiskError(f"{final} exists already; it is never overwritten")
        _fill_temporary(final, files, check).rename(final)
        sync_folder(final.parent)


def replace_folder(final: Path | str, files: Mapping[str, bytes], *, check: Check | None = None) -> None:
    """Let a folder with these files take the place of the one that has the name.

    A crash between the two renames leaves the old one as ``NAME.previous``, which
    ``remove_leftovers`` brings back.

    Args:
        final: The folder's name.
        files: Content by file name.
        check: As in ``publish_folder``; what it raises leaves the old folder in place.
    """
    final = Path(final)
    with disk_errors(final, _total(files)):
        filled = _fill_temporary(final, files, check)
        if final.exists():
            previous = final.with_name(final.name + _PREVIOUS_SUFFIX)
            if previous.exists():
                remove_folder(previous)
            final.rename(previous)
            filled.rename(final)
            sync_folder(final.parent)
            remove_folder(previous)
        else:
            filled.rename(final)
            sync_folder(final.parent)


def remove_folder(path: Path | str) -> None:
    """Delete a folder; it loses its name first, so that a crash leaves no half folder under it."""
    path = Path(path)
    with disk_errors(path):
        doomed = temporary_beside(path)
        path.rename(doomed)
        shutil.rmtree(doomed)
        sync_folder(path.parent)


def is_leftover(path: Path) -> bool:
    """Whether it is one of those that ``remove_leftovers`` sees to."""
    return path.name.startswith(TEMP_PREFIX) or path.name.endswith(_PREVIOUS_SUFFIX)


def remove_leftovers(folder: Path | str) -> None:
    """Clear what a killed writer left in a folder: call it while holding the folder's lock.

    Temporary files and folders go; a ``NAME.previous`` without its successor gets its name back.
    """
    folder = Path(folder)
    if not folder.is_dir():
        return
    with disk_errors(folder):
        for path in sorted(folder.iterdir()):
            if path.name.startswith(TEMP_PREFIX):
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
    with disk_errors(path):
        path.rename(bad)
        sync_folder(path.parent)
    write_text(bad.with_name(bad.name + ".reason.txt"), reason + "\n")
    return bad


def _fill_temporary(final: Path, files: Mapping[str, bytes], check: Check | None) -> Path:
    final.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_beside(final)
    temporary.mkdir()
    try:
        for name, data in files.items():
            write_synced(temporary / name, data)
        sync_folder(temporary)
        if check is not None:
            check(temporary)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return temporary


def _total(files: Mapping[str, bytes]) -> int:
    return sum(len(data) for data in files.values())
