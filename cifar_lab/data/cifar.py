"""CIFAR-10 and CIFAR-100 in their official Python layout, as torchvision keeps it.

The batch files are pickles. They are verified before they get here, and are read all the same by an
unpickler that can build numpy arrays and nothing else.

Reference:
    A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009.
"""

import io
import pickle
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch

from cifar_lab.config import DataConfig
from cifar_lab.data.cifar_files import CIFAR10, CIFAR100, Layout, obtain
from cifar_lab.data.sets import ImageSet, Progress, Source, Stop
from cifar_lab.errors import DataError


def load_cifar10(config: DataConfig, *, stop: Stop | None = None, progress: Progress | None = None) -> Source:
    """CIFAR-10: 50,000 training and 10,000 test images, 32x32, ten classes.

    Args:
        config: ``data.*``; ``train_batches`` keeps only those of the five training files.
        stop: Called between pieces of a download.
        progress: Called with (what, done, total).

    Raises:
        DataError: If it is not there and cannot be had, or is damaged.
    """
    return _load(CIFAR10, config, config.train_batches or range(1, 6), stop, progress)


def load_cifar100(config: DataConfig, *, stop: Stop | None = None, progress: Progress | None = None) -> Source:
    """CIFAR-100 with its fine labels: 50,000 training and 10,000 test images, 32x32, a hundred classes."""
    return _load(CIFAR100, config, range(1, 2), stop, progress)


def _load(layout: Layout, config: DataConfig, batches: Iterable[int], stop: Stop | None, progress: Progress | None) -> Source:
    chosen = sorted(batches)
    train_files = [layout.train[k - 1] for k in chosen]
    files, notes = obtain(layout, config, [*train_files, layout.test, layout.meta], stop, progress)
    names = _class_names(layout, files.pop(layout.meta))
    parts = [_parse(layout, name, files.pop(name), layout.rows) for name in train_files]
    ids = [torch.arange(layout.rows) + (k - 1) * layout.rows for k in chosen]
    train = _image_set([images for images, _ in parts], [labels for _, labels in parts], torch.cat(ids))
    images, labels = _parse(layout, layout.test, files.pop(layout.test), layout.test_rows)
    test = _image_set([images], [labels], torch.arange(layout.test_rows) + len(layout.train) * layout.rows)
    if len(chosen) < len(layout.train):
        notes.insert(0, f"trained on {' and '.join(train_files)} only")
    return Source(train, test, None, names, tuple(notes))


def _image_set(images: list[np.ndarray], labels: list[np.ndarray], ids: torch.Tensor) -> ImageSet:
    return ImageSet(torch.from_numpy(np.concatenate(images)), torch.from_numpy(np.concatenate(labels)), ids)


# Reading them


class _BatchUnpickler(pickle.Unpickler):
    """Builds numpy arrays and plain containers; any other name is refused."""

    _allowed: Mapping[tuple[str, str], Any] = {
        ("numpy.core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
    }

    def find_class(self, module: str, name: str) -> Any:
        """Look the name up in the short list of what a batch needs."""
        if (module, name) not in self._allowed:
            raise pickle.UnpicklingError(f"{module}.{name} is not allowed")
        return self._allowed[module, name]


def _unpickle(layout: Layout, name: str, content: bytes) -> dict[bytes, Any]:
    """A batch file's dictionary; Python 2's strings come as bytes."""
    try:
        batch = _BatchUnpickler(io.BytesIO(content), encoding="bytes").load()
    except Exception as error:  # damaged pickles raise almost anything
        raise DataError(f"{layout.title} {name} cannot be read: {error}") from error
    if not isinstance(batch, dict):
        raise DataError(f"{layout.title} {name} holds {type(batch).__name__} instead of a dictionary")
    return batch


def _parse(layout: Layout, name: str, content: bytes, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 [rows, 3, 32, 32] and labels int64 [rows] of one batch file.

    Raises:
        DataError: If a count, a type or a label is not what it must be.
    """
    batch = _unpickle(layout, name, content)
    data, labels = batch.get(b"data"), batch.get(layout.label_key)
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.shape != (rows, 3072):
        raise DataError(f"{layout.title} {name}: data are not {rows} pictures of 3072 bytes")
    if not isinstance(labels, list) or len(labels) != rows:
        raise DataError(f"{layout.title} {name}: there are not {rows} labels")
    wrong = [label for label in labels if type(label) is not int or not 0 <= label < layout.num_classes]
    if wrong:
        raise DataError(f"{layout.title} {name}: label {wrong[0]!r}; must be 0 to {layout.num_classes - 1}")
    return data.reshape(rows, 3, 32, 32), np.asarray(labels, dtype=np.int64)


def _class_names(layout: Layout, content: bytes) -> tuple[str, ...]:
    names = _unpickle(layout, layout.meta, content).get(layout.names_key)
    if not isinstance(names, list) or len(names) != layout.num_classes or not all(isinstance(name, bytes) for name in names):
        raise DataError(f"{layout.title} {layout.meta}: there are not {layout.num_classes} class names")
    return tuple(name.decode("ascii", "replace") for name in names)
