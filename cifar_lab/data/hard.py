"""Harder training sets made from a whole one: fewer images of some classes, wrong labels. Only training images are touched.

Both are functions of (``data.split_seed``, image id): the same whatever the order, the subset or the run's seed.
"""

import math
from collections.abc import Sequence

import torch

from cifar_lab.config import DataConfig
from cifar_lab.data import rng
from cifar_lab.data.sets import ImageSet
from cifar_lab.errors import ConfigError, DataError


def long_tail(train: ImageSet, config: DataConfig, class_names: Sequence[str], notes: list[str]) -> ImageSet:
    """Keep fewer images from class to class, so that the first has ``imbalance_factor`` times as many as the last.

    Args:
        train: Training images, after validation and test images were held out.
        config: ``imbalance_factor`` and ``split_seed`` are read; a factor of 1 changes nothing.
        class_names: K names, in the order of the labels.
        notes: Gets a line on what was kept.

    Returns:
        The images that are kept, in the order of ``train``.

    Raises:
        DataError: If a class would be left without an image.
    """
    if config.imbalance_factor == 1:
        return train
    sizes = train.labels.bincount(minlength=len(class_names)).tolist()
    quotas = long_tail_counts(sizes, config.imbalance_factor)
    have = [k for k, size in enumerate(sizes) if size]
    empty = [k for k in have if not quotas[k]]
    if empty:
        raise DataError(
            f"data.imbalance_factor={config.imbalance_factor:g} leaves no training image of class '{class_names[empty[0]]}'",
            hint="use a smaller factor",
        )
    order = rng.random_bits(config.split_seed, 0, train.ids, rng.Draw.LONG_TAIL).argsort(stable=True)
    labels = train.labels[order]
    chosen = torch.cat([order[labels == k][:quota] for k, quota in enumerate(quotas)]).sort().values
    notes.append(f"imbalance factor {config.imbalance_factor:g}: {len(chosen):,} of {len(train):,} training images")
    return train.take(chosen)


def long_tail_counts(sizes: Sequence[int], factor: float) -> list[int]:
    """How many images of each class stay: n_k = n_max * (1 / factor) ** (k / (K - 1)), rounded down.

    n_max is the size of class 0 where all classes are equally large, as in CIFAR; where they are not, it is the largest
    number for which every class has enough images, so that the profile is exact for every data set.

    Args:
        sizes: Images of each of K classes; a class without any keeps its place in the profile.
        factor: Ratio of the first to the last class, 1 or more.

    Reference: Cui et al., 2019, arXiv:1901.05555, section 5.1, and its code.
    """
    steps = max(len(sizes) - 1, 1)
    shares = [(1 / factor) ** (k / steps) for k in range(len(sizes))]
    # A rounding error must not cost an image: 0.1 ** 1 * 500 may be a hair below 50.
    n_max = math.floor(min(size / share for size, share in zip(sizes, shares, strict=True) if size) + 1e-9)
    return [min(size, math.floor(n_max * share + 1e-9)) for size, share in zip(sizes, shares, strict=True)]


def noisy_labels(train: ImageSet, config: DataConfig, num_classes: int, notes: list[str]) -> ImageSet:
    """Give some training images the label of another class: symmetric noise, each other class equally likely.

    Args:
        train: Training images.
        config: ``label_noise``, each image's chance, and ``split_seed`` are read; 0 changes nothing.
        num_classes: K.
        notes: Gets a line on how many labels are wrong.

    Raises:
        ConfigError: If there is no other class.
    """
    if config.label_noise == 0:
        return train
    if num_classes < 2:
        raise ConfigError(f"data.label_noise={config.label_noise:g} with one class; there is no other label to give")
    seed = config.split_seed
    chosen = rng.uniform(seed, 0, train.ids, rng.Draw.LABEL_NOISE) < config.label_noise
    further = 1 + rng.randint(seed, 0, train.ids, rng.Draw.LABEL_NEW, num_classes - 1)
    labels = torch.where(chosen, (train.labels + further) % num_classes, train.labels)
    notes.append(f"label noise {config.label_noise:g}: {int(chosen.sum()):,} of {len(train):,} training labels wrong")
    return ImageSet(train.images, labels, train.ids)
