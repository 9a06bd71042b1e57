"""Where the files of CIFAR-10 and CIFAR-100 come from: a folder, the official archive, a download.

Every file is checked against its published digest before a byte of it is interpreted. What is
damaged is set aside, named and replaced.
"""

import hashlib
import os
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cifar_lab import storage
from cifar_lab.config import DataConfig
from cifar_lab.data.download import Remote, download, is_right
from cifar_lab.data.sets import Progress, Stop
from cifar_lab.errors import DataError, DiskError


@dataclass(frozen=True)
class Layout:
    """What the archive of one data set holds.

    Args:
        title: For messages.
        folder: Of the batch files, in the archive and on disk.
        remote: The archive.
        md5: File name -> published MD5 sum.
        train: Training files in order.
        test: Test file.
        meta: File with the class names.
        rows: Images per training file.
        test_rows: Images in the test file.
        label_key: Of the labels in a batch.
        names_key: Of the class names in ``meta``.
        num_classes: Classes.
        root_variable: Environment variable that names the default folder; empty for none.
    """

    title: str
    folder: str
    remote: Remote
    md5: Mapping[str, str]
    train: tuple[str, ...]
    test: str
    meta: str
    rows: int
    test_rows: int
    label_key: bytes
    names_key: bytes
    num_classes: int
    root_variable: str = ""


CIFAR10 = Layout(
    title="CIFAR-10",
    folder="cifar-10-batches-py",
    remote=Remote("cifar-10-python.tar.gz", 170_498_071, "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce"),
    md5={
        "data_batch_1": "c99cafc152244af753f735de768cd75f",
        "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
        "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
        "data_batch_4": "634d18415352ddfa80567beed471001a",
        "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
        "test_batch": "40351d587109b95175f43aff81a1287e",
        "batches.meta": "5ff9c542aee3614f3951f8cda6e48888",
    },
    train=tuple(f"data_batch_{k}" for k in range(1, 6)),
    test="test_batch",
    meta="batches.meta",
    rows=10_000,
    test_rows=10_000,
    label_key=b"labels",
    names_key=b"label_names",
    num_classes=10,
    root_variable="CIFAR10_ROOT",
)
CIFAR100 = Layout(
    title="CIFAR-100",
    folder="cifar-100-python",
    remote=Remote("cifar-100-python.tar.gz", 169_001_437, "85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7"),
    md5={
        "train": "16019d7e3df5f24257cddd939b257f8d",
        "test": "f0ef6b0ae62326f3e7ffdfab6717acfc",
        "meta": "7973b15100ade9c7d40fb424638fde48",
    },
    train=("train",),
    test="test",
    meta="meta",
    rows=50_000,
    test_rows=10_000,
    label_key=b"fine_labels",
    names_key=b"fine_label_names",
    num_classes=100,
)


def data_root(config: DataConfig, variable: str = "") -> Path:
    """Folder of the data set: ``data.root``, else what the environment variable names, else a cache folder."""
    named = config.root or (os.environ.get(variable) if variable else None)
    if named:
        return Path(named).expanduser()
    return cache_folder()


def cache_folder() -> Path:
    """Where downloads are kept: ``cifar-lab`` in ``$XDG_CACHE_HOME``, or in ``~/.cache``."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "")
    return (cache if cache.is_absolute() else Path.home() / ".cache") / "cifar-lab"


def obtain(
    layout: Layout, config: DataConfig, needed: list[str], stop: Stop | None, progress: Progress | None
) -> tuple[dict[str, bytes], list[str]]:
    """Content of the needed files, verified, and notes on what had to be repaired.

    Raises:
        DataError: If a file is neither there nor to be had, or cannot be read.
    """
    root = data_root(config, layout.root_variable)
    try:
        return _obtain(layout, config, root, needed, stop, progress)
    except OSError as error:
        raise DataError(f"{error.filename or root} cannot be read: {error.strerror or error}") from error


def _obtain(
    layout: Layout, config: DataConfig, root: Path, needed: list[str], stop: Stop | None, progress: Progress | None
) -> tuple[dict[str, bytes], list[str]]:
    archive = root / layout.remote.name
    files, damaged = _read_folder(layout, root, needed)
    if len(files) == len(needed):
        return files, []
    if not damaged and not archive.exists() and not config.download:
        raise _missing(layout, root, "and data.download=false")
    try:
        with storage.FolderLock(root, wait=True, stop=stop):
            return _repair(layout, config, root, needed, stop, progress)
    except DiskError as error:
        # What cannot be written to can still be read from.
        bad = [f"{root / layout.folder / name} is damaged (MD5 mismatch)" for name in damaged]
        if is_right(archive, layout.remote):
            return _read_archive(layout, archive, progress), bad
        if bad:
            raise DataError(f"{bad[0]}, and {error.what}") from error
        raise


def _repair(
    layout: Layout, config: DataConfig, root: Path, needed: list[str], stop: Stop | None, progress: Progress | None
) -> tuple[dict[str, bytes], list[str]]:
    """With the lock held: set bad files aside, fetch the archive if need be and unpack it."""
    files, damaged = _read_folder(layout, root, needed)  # again: another run may have been here meanwhile
    if len(files) == len(needed):
        return files, []
    notes = [_put_aside(root / layout.folder / name, "MD5 mismatch") for name in damaged]
    archive = root / layout.remote.name
    if archive.exists() and not is_right(archive, layout.remote):
        notes.append(_put_aside(archive, "size or SHA-256 mismatch"))
    if not archive.exists():
        repaired = f"({', '.join(notes)}) " if notes else ""
        if not config.download:
            raise _missing(layout, root, f"{repaired}and data.download=false")
        try:
            download(layout.remote, root, config.sources, stop=stop, progress=progress)
        except DataError as error:
            raise _missing(layout, root, f"{repaired}and {error}") from error
    members = _read_archive(layout, archive, progress)
    for name, content in members.items():
        target = root / layout.folder / name
        if not target.exists():
            storage.write_bytes(target, content)
    return members, notes


def _missing(layout: Layout, root: Path, why: str) -> DataError:
    what = f"{layout.title} not in {root} {why}; put {layout.remote.name} there"
    return DataError(what, hint="or name the folder that holds it with data.root=DIR")


def _put_aside(path: Path, reason: str) -> str:
    """Rename a damaged file and say so."""
    aside = storage.set_aside(path, reason)
    return f"{path} was damaged ({reason}) and set aside as {aside.name}"


def _read_folder(layout: Layout, root: Path, needed: list[str]) -> tuple[dict[str, bytes], list[str]]:
    """Content of the files that are right, and the names of those that are damaged."""
    files: dict[str, bytes] = {}
    damaged: list[str] = []
    for name in needed:
        path = root / layout.folder / name
        if not path.is_file():
            continue
        content = path.read_bytes()
        if _md5(content) == layout.md5[name]:
            files[name] = content
        else:
            damaged.append(name)
    return files, damaged


def _read_archive(layout: Layout, archive: Path, progress: Progress | None) -> dict[str, bytes]:
    """All files of the layout from a verified archive, by plain reads: nothing is extracted by the archive's own names."""
    files: dict[str, bytes] = {}
    with tarfile.open(archive, "r:gz") as tar:
        for member in tar:
            folder, _, name = member.name.rpartition("/")
            stream = tar.extractfile(member) if folder == layout.folder and name in layout.md5 and member.isreg() else None
            if stream is None:
                continue
            files[name] = stream.read()
            if progress is not None:
                progress(f"unpacking {archive.name}", len(files), len(layout.md5))
    wrong = [name for name, md5 in layout.md5.items() if name not in files or _md5(files[name]) != md5]
    if wrong:
        raise DataError(f"{archive}: {wrong[0]} is missing or damaged")
    return files


def _md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()
