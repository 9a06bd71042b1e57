"""The official CIFAR-10-C: the 10,000 test pictures made worse, as the files of its authors hold them.

A folder holds ``labels.npy`` and a ``NAME.npy`` for each corruption, uint8 [50000, 32, 32, 3]: severity 1 to 5 one after the
other, each with the 10,000 pictures in the order of CIFAR-10's test set.

Reference:
    D. Hendrycks, T. Dietterich, Benchmarking Neural Network Robustness, 2019, arXiv:1903.12261; zenodo.org/records/2535967.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from cifar_lab.data.sets import ImageSet
from cifar_lab.errors import DataError

SEVERITIES, PICTURES, FIRST_ID = 5, 10_000, 50_000
BENCHMARK = (
    *("gaussian_noise", "shot_noise", "impulse_noise", "defocus_blur", "glass_blur", "motion_blur", "zoom_blur", "snow"),
    *("frost", "fog", "brightness", "contrast", "elastic_transform", "pixelate", "jpeg_compression"),
)
"""The fifteen whose mean is the benchmark's number."""
EXTRA = ("speckle_noise", "gaussian_blur", "spatter", "saturate")
"""Published beside them for choosing settings; no part of the mean."""

_SHAPE = (SEVERITIES * PICTURES, 32, 32, 3)


class Cifar10C:
    """A folder of CIFAR-10-C; pictures are read when they are asked for.

    Args:
        folder: Where the files are.

    Raises:
        DataError: If labels or pictures are missing, or not of the published shape and type.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.names = tuple(name for name in (*BENCHMARK, *EXTRA) if (folder / f"{name}.npy").is_file())
        if not (folder / "labels.npy").is_file() or not self.names:
            raise DataError(
                f"{folder} is no folder of CIFAR-10-C: it must hold labels.npy and files such as gaussian_noise.npy",
                hint="unpack CIFAR-10-C.tar of https://zenodo.org/records/2535967 and name its folder",
            )
        labels = _load(folder / "labels.npy")
        if labels.shape != _SHAPE[:1] or labels.dtype.kind not in "ui" or labels.min() < 0 or labels.max() > 9:
            raise DataError(
                f"{folder / 'labels.npy'} holds {labels.dtype} {list(labels.shape)}; must be {_SHAPE[0]} labels, 0 to 9"
            )
        by_severity = labels.reshape(SEVERITIES, PICTURES).astype(np.int64)
        if (by_severity != by_severity[0]).any():
            raise DataError(f"{folder / 'labels.npy'}: the labels of the five severities differ")
        self.labels = by_severity[0]

    def check_labels(self, ids: np.ndarray, labels: np.ndarray) -> None:
        """Compare with the labels of CIFAR-10's own test pictures.

        Args:
            ids: int64 [N], 50,000 to 59,999.
            labels: int64 [N].

        Raises:
            DataError: If one differs: the files are in another order.
        """
        wrong = self.labels[ids - FIRST_ID] != labels
        if wrong.any():
            raise DataError(
                f"{self.folder / 'labels.npy'}: {int(wrong.sum())} of {len(ids)} labels are not those of CIFAR-10's test set"
            )

    def severities(self, name: str) -> Iterator[ImageSet]:
        """The test pictures under one corruption, severity 1 to 5; ids are those of CIFAR-10's test set.

        Raises:
            DataError: If the file is not of the published shape and type.
        """
        path = self.folder / f"{name}.npy"
        pictures = _load(path)
        if pictures.shape != _SHAPE or pictures.dtype != np.uint8:
            raise DataError(f"{path} holds {pictures.dtype} {list(pictures.shape)}; must be uint8 {list(_SHAPE)}")
        for severity in range(SEVERITIES):
            part = np.ascontiguousarray(pictures[severity * PICTURES : (severity + 1) * PICTURES].transpose(0, 3, 1, 2))
            yield ImageSet(torch.from_numpy(part), torch.from_numpy(self.labels), torch.arange(PICTURES) + FIRST_ID)


def _load(path: Path) -> np.ndarray:
    """An array that stays on the disk until it is looked at; a file that would need a pickle is refused."""
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path} cannot be read: {' '.join(str(error).split())}") from error
