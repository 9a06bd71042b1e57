"""Real handwriting that ships with scikit-learn: the data set that needs no download.

Reference:
    E. Alpaydin, C. Kaynak, Optical Recognition of Handwritten Digits, UCI repository, 1998.
"""

import numpy as np
import torch

from cifar_lab.config import DataConfig
from cifar_lab.data.sets import ImageSet, Source

_SCALE = 4  # 8x8 pixels are shown as 32x32


def load_digits(config: DataConfig) -> Source:
    """1,797 digits of ten classes, 8x8 in 17 shades, shown as 32x32 RGB; it has no test split of its own.

    Args:
        config: ``data.*``; nothing in it changes the pictures.
    """
    from sklearn.datasets import load_digits as load  # importing scikit-learn takes a second or two

    values, classes = load(return_X_y=True)
    shades = np.rint(np.asarray(values).reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
    pixels = shades.repeat(_SCALE, axis=1).repeat(_SCALE, axis=2)
    images = torch.from_numpy(pixels).unsqueeze(1).expand(-1, 3, -1, -1).contiguous()
    labels = torch.from_numpy(np.asarray(classes, dtype=np.int64))
    train = ImageSet(images, labels, torch.arange(len(labels)))
    return Source(train, None, None, tuple(str(k) for k in range(10)))
