"""From what a loader found to train, validation and test sets: seeded, disjoint and digested."""

import hashlib
import inspect
import math
import pkgutil

import numpy as np
import torch
from torch import Tensor

from cifar_lab.config import DataConfig
from cifar_lab.data import DATASETS, rng
from cifar_lab.data.hard import long_tail, noisy_labels
from cifar_lab.data.sets import ImageSet, Progress, Source, Splits, Stop
from cifar_lab.errors import ConfigError, DataError

__all__ = ["ImageSet", "Splits", "load_splits", "make_splits"]


def load_splits(config: DataConfig, *, stop: Stop | None = None, progress: Progress | None = None) -> Splits:
    """Load the data set that ``config.name`` names and split it.

    Args:
        config: ``data.*``.
        stop: Called between pieces of work; raises to give up.
        progress: Called with (what, done, total).

    Raises:
        ConfigError: If no data set has this name.
        DataError: If it is missing, damaged or not what it claims to be.
    """
    if config.name not in DATASETS:
        raise ConfigError(f"data.name={config.name}; must be one of {', '.join(sorted(DATASETS))}")
    load = pkgutil.resolve_name(DATASETS[config.name])
    # A plugin's loader may be a plain function of the configuration.
    wanted = inspect.signature(load).parameters
    offered = {"stop": stop, "progress": progress}
    source = load(config, **{name: value for name, value in offered.items() if name in wanted})
    if not isinstance(source, Source):
        raise DataError(f"data={config.name}: its loader returned {type(source).__name__}; must be a Source")
    return make_splits(source, config)


def make_splits(source: Source, config: DataConfig) -> Splits:
    """Hold out test and validation images where the source has none; then ``imbalance_factor``, ``subset``, ``label_noise``.

    The choice depends on ``split_seed`` and the images' ids only. A picture held out here is in train no
    second time: one with a copy there goes back to train. Sets that the source brings stay as they are. The long tail and
    wrong labels are made last and in train alone, so that validation and test stay balanced and clean.

    Raises:
        DataError: If a set would be empty, or holding out would leave training without a class.
    """
    notes = list(source.notes)
    train, val, test = source.train, source.val, source.test
    if test is None:
        train, test = _hold_out(train, config.test_fraction, config, rng.Draw.SPLIT_TEST, "test_fraction")
        train, test = _without_copies(train, test, "test", notes)
    if val is None and config.val_fraction > 0:
        train, val = _hold_out(train, config.val_fraction, config, rng.Draw.SPLIT_VAL, "val_fraction")
        train, val = _without_copies(train, val, "validation", notes)
    missing = set(source.train.labels.tolist()) - set(train.labels.tolist())
    if missing:
        name = source.class_names[min(missing)]
        raise DataError(f"data.split={config.split} leaves no training image of class '{name}'", hint="use data.split=stratified")
    train = long_tail(train, config, source.class_names, notes)
    if config.subset > 0:
        train, test = _subset(train, config), _subset(test, config)
        val = None if val is None else _subset(val, config)
        notes.append(f"a subset: at most {config.subset} images each for training, validation and test")
    train = noisy_labels(train, config, len(source.class_names), notes)
    for name, part in (("validation", val), ("test", test)):
        if part is not None and not len(part):
            raise DataError(f"the {name} set is empty")
    return Splits(train, val, test, source.class_names, tuple(notes), _digest(train, val, test))


def _hold_out(part: ImageSet, fraction: float, config: DataConfig, draw: int, key: str) -> tuple[ImageSet, ImageSet]:
    """Split (kept, held out); each in the order of the source."""
    count = len(part)
    chosen = torch.zeros(count, dtype=torch.bool)
    if config.split == "tail":
        chosen[math.floor(count * (1.0 - fraction)) :] = True  # Keras' own rounding
    else:
        sizes = torch.bincount(part.labels)
        quotas = _share(sizes.tolist(), round(fraction * count), limits=[max(size - 1, 0) for size in sizes.tolist()])
        chosen[_stratified(part, quotas, config.split_seed, draw)] = True
    if not 0 < int(chosen.sum()) < count:
        raise DataError(f"data.{key}={fraction} of {count} images leaves a set empty")
    return part.take((~chosen).nonzero().squeeze(1)), part.take(chosen.nonzero().squeeze(1))


def _subset(part: ImageSet, config: DataConfig) -> ImageSet:
    """At most ``data.subset`` images, classes in proportion, in the order of the source."""
    if len(part) <= config.subset:
        return part
    sizes = torch.bincount(part.labels).tolist()
    quotas = _share(sizes, config.subset, limits=sizes)
    return part.take(_stratified(part, quotas, config.split_seed, rng.Draw.SUBSET).sort().values)


def _stratified(part: ImageSet, quotas: list[int], seed: int, draw: int) -> Tensor:
    """Positions of ``quotas[k]`` random images of each class k."""
    order = rng.random_bits(seed, 0, part.ids, draw).argsort(stable=True)
    labels = part.labels[order]
    return torch.cat([order[labels == k][:quota] for k, quota in enumerate(quotas)])


def _share(sizes: list[int], total: int, *, limits: list[int]) -> list[int]:
    """Share ``total`` among classes in proportion to ``sizes`` by largest remainder, up to ``limits``."""
    exact = [total * size / sum(sizes) for size in sizes]
    shares = [min(int(value), limit) for value, limit in zip(exact, limits, strict=True)]
    by_remainder = sorted(range(len(sizes)), key=lambda k: (int(exact[k]) - exact[k], k))
    for k in by_remainder:
        if sum(shares) < total and shares[k] < limits[k]:
            shares[k] += 1
    return shares


def _without_copies(train: ImageSet, held: ImageSet, name: str, notes: list[str]) -> tuple[ImageSet, ImageSet]:
    """Give held-out pictures that also occur in train back to train."""
    known = set(_content_keys(train.images))
    copies = torch.tensor([key in known for key in _content_keys(held.images)])
    count = int(copies.sum())
    if not count:
        return train, held
    notes.append(f"{count} {name} images are copies of training images and were given back to training")
    back = held.take(copies.nonzero().squeeze(1))
    merged = ImageSet(*(torch.cat([getattr(train, f), getattr(back, f)]) for f in ("images", "labels", "ids")))
    return merged.take(merged.ids.argsort(stable=True)), held.take((~copies).nonzero().squeeze(1))


def _content_keys(images: Tensor) -> list[bytes]:
    """One key per picture, equal for equal pictures only."""
    return [hashlib.blake2b(picture.data, digest_size=16).digest() for picture in images.numpy()]


def _digest(*parts: ImageSet | None) -> str:
    """SHA-256 over shapes, images, labels and ids."""
    state = hashlib.sha256()
    for part in parts:
        if part is None:
            state.update(b"none\n")
            continue
        state.update(f"{list(part.images.shape)}\n".encode())
        for values in (part.images, part.labels, part.ids):
            state.update(np.ascontiguousarray(values.numpy()).data)
    return state.hexdigest()
