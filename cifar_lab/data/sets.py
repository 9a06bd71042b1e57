"""What data sets are made of: labelled images, the source they came from, the splits of a run."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cifar_lab.errors import DataError

Stop = Callable[[], None]
Progress = Callable[[str, int, int], None]

_CHUNK = 512


@dataclass(frozen=True, eq=False)
class ImageSet:
    """N labelled images in host memory.

    Args:
        images: uint8 [N, 3, H, W], contiguous.
        labels: int64 [N].
        ids: int64 [N], position in the source: the key of every random draw, the same in every split and subset.

    Raises:
        DataError: If a tensor is not as described.
    """

    images: Tensor
    labels: Tensor
    ids: Tensor

    def __post_init__(self) -> None:
        images, count = self.images, self.images.shape[0]
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
            raise DataError(f"images are {images.dtype} {list(images.shape)}; must be uint8 [N, 3, H, W]")
        if images.device.type != "cpu" or not images.is_contiguous():
            raise DataError("images must be a contiguous tensor in host memory")
        for name, values in (("labels", self.labels), ("ids", self.ids)):
            if values.dtype != torch.int64 or values.shape != (count,):
                raise DataError(f"{name} are {values.dtype} {list(values.shape)}; must be int64 [{count}]")

    def __len__(self) -> int:
        return self.images.shape[0]

    def take(self, positions: Tensor) -> "ImageSet":
        """The images at these positions, int64 [n], in this order."""
        return ImageSet(*(part.index_select(0, positions) for part in (self.images, self.labels, self.ids)))


@dataclass(frozen=True, eq=False)
class Source:
    """What a loader returns: the data set as it came, before any split of ours.

    Args:
        train: Images to train on.
        test: The data set's own test images; None: ``data.test_fraction`` of train is held out.
        val: The data set's own validation images; None: ``data.val_fraction`` of train is held out.
        class_names: One per label.
        notes: What every report has to say about the data, such as a part left out.

    Raises:
        DataError: If a label has no class or the sets differ in picture size.
    """

    train: ImageSet
    test: ImageSet | None
    val: ImageSet | None
    class_names: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not len(self.train):
            raise DataError("the data set has no training images")
        for name, part in (("train", self.train), ("test", self.test), ("val", self.val)):
            if part is None:
                continue
            wrong = part.labels[(part.labels < 0) | (part.labels >= len(self.class_names))]
            if len(wrong):
                raise DataError(f"{name}: label {int(wrong[0])} with {len(self.class_names)} classes")
            if part.images.shape[1:] != self.train.images.shape[1:]:
                raise DataError(f"{name}: pictures are {list(part.images.shape[1:])}, train {list(self.train.images.shape[1:])}")


@dataclass(frozen=True, eq=False)
class Splits:
    """The three sets of a run.

    Args:
        train: Trained on.
        val: Chooses the epoch; None with ``data.val_fraction=0``.
        test: Opened once, at the end.
        class_names: One per label.
        notes: What every report has to say about the data.
        digest: SHA-256 over images, labels and ids of all three.
    """

    train: ImageSet
    val: ImageSet | None
    test: ImageSet
    class_names: tuple[str, ...]
    notes: tuple[str, ...]
    digest: str

    @property
    def counts(self) -> dict[str, int]:
        """Images of each set; 0 for one that is not there."""
        sets = {"train": self.train, "val": self.val, "test": self.test}
        return {name: 0 if part is None else len(part) for name, part in sets.items()}

    @property
    def num_classes(self) -> int:
        """Number of classes, also of those without an image here."""
        return len(self.class_names)


def channel_statistics(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and population standard deviation of each channel, from exact integer counts.

    Args:
        images: uint8 [N, C, H, W], not empty.

    Returns:
        Two tuples of C fractions of 255.
    """
    # By numpy: as many small parallel loops of torch's waited on each other for seconds on a busy machine.
    histograms = np.zeros((images.shape[1], 256), dtype=np.int64)
    for chunk in images.split(_CHUNK):
        for channel, histogram in enumerate(histograms):
            histogram += np.bincount(chunk[:, channel].numpy().reshape(-1), minlength=256)
    count, shades = images.numel() // images.shape[1], np.arange(256)
    total, squares = (histograms @ shades).tolist(), (histograms @ shades**2).tolist()
    # count * squares - total**2 is exact in Python's integers, where floats would cancel.
    spread = [count * q - s * s for s, q in zip(total, squares, strict=True)]
    return tuple(s / count / 255 for s in total), tuple(math.sqrt(value) / count / 255 for value in spread)
