"""The augmentation as it really is: training pictures out of the batches that training would get, epoch after epoch."""

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cifar_lab.analysis import dataset as pictures
from cifar_lab.analysis.figures import shorten
from cifar_lab.config import AugmentConfig, Config
from cifar_lab.data import rng
from cifar_lab.data.augment import is_augmented, normalization
from cifar_lab.data.sets import Splits
from cifar_lab.parts import build_batches

ROWS, EPOCHS = 8, 7
"""Pictures, one of a class, and epochs that are drawn."""


def augmented_views(
    config: Config, splits: Splits, positions: Sequence[int], epochs: int
) -> list[list[tuple[np.ndarray, np.ndarray] | None]]:
    """Training pictures as the model would get them, epoch after epoch, and their targets.

    Args:
        config: Seed, batch size, augmentation and the like.
        splits: The data.
        positions: Of the pictures in ``splits.train``.
        epochs: The first so many.

    Returns:
        For each picture and epoch: uint8 [3, h, w] with the normalization undone, and float64 [K], the share of
        each class in the target. None where ``train.drop_last`` left the picture out.
    """
    mean, std = normalization(config.data.normalize, splits.train)
    batches = build_batches(config, splits.train, (mean, std), torch.device("cpu"), training=True, num_classes=splits.num_classes)
    scale, shift = (torch.tensor(values).view(3, 1, 1) for values in (std, mean))
    views: list[list[tuple[np.ndarray, np.ndarray] | None]] = [[] for _ in positions]
    for epoch in range(epochs):
        place = rng.permutation(config.seed, epoch, len(splits.train)).argsort()
        for row, position in zip(views, positions, strict=True):
            batch, within = divmod(int(place[position]), config.train.batch_size)
            if batch >= len(batches):
                row.append(None)
                continue
            images, targets = next(iter(batches.iterate(epoch, start=batch)))
            shown = ((images[within] * scale + shift) * 255).round().clamp(0, 255).to(torch.uint8)
            target = targets[within]
            shares = torch.eye(splits.num_classes)[target] if target.ndim == 0 else target
            row.append((shown.numpy(), shares.double().numpy()))
    return views


def show_augmentation(
    config: Config, splits: Splits, folder: Path, title: str, formats: Sequence[str]
) -> tuple[dict[str, Any] | None, list[Path]]:
    """Draw some training pictures as they are stored and as seven epochs see them.

    Returns:
        What eda.json says of the augmentation, and the files; nothing where pictures are left as they are.
    """
    augment = config.augment
    if not is_augmented(augment):
        return None, []
    classes = np.unique(np.linspace(0, splits.num_classes - 1, ROWS).round().astype(int)).tolist()
    labels = splits.train.labels
    positions = [int((labels == k).nonzero()[0]) for k in classes if bool((labels == k).any())]
    views = augmented_views(config, splits, positions, EPOCHS)
    mixes = augment.mixup_alpha > 0 or augment.cutmix_alpha > 0
    rows = [
        (
            splits.train.images[position].numpy(),
            [None if view is None else view[0] for view in row],
            splits.class_names[int(labels[position])],
            ["" if view is None or not mixes else _target(view[1], splits.class_names) for view in row],
        )
        for position, row in zip(positions, views, strict=True)
    ]
    changed = {f.name: getattr(augment, f.name) for f in fields(AugmentConfig) if f.name != "name"}
    changed = {key: value for key, value in changed.items() if value != getattr(AugmentConfig(), key)}
    said = f"augment={augment.name}, as training sees it with seed {config.seed}"
    files = pictures.save_augmented(folder, f"augmentation_{augment.name}", rows, title=title, said=said, formats=formats)
    return {"name": augment.name, "settings": changed, "seed": config.seed, "epochs": EPOCHS}, files


def _target(shares: np.ndarray, class_names: Sequence[str]) -> str:
    """The classes of a mixed picture, the larger share first."""
    order = [k for k in np.argsort(-shares, kind="stable")[:2] if shares[k] > 0.005]
    return "\n".join(f"{100 * shares[k]:.0f} % {shorten(class_names[k], 10)}" for k in order)
