"""What can be known to be wrong before the first step: sets that share images, a batch of one, a schedule that never moves."""

import copy
import zlib
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from cifar_lab.config import TrainConfig
from cifar_lab.engine.stages import begin_epoch
from cifar_lab.engine.state import Schedule
from cifar_lab.errors import ConfigError, DataError

COPIES_ALLOWED = 0.01
"""Share of a set that may also be in another: published sets hold a few copies, a wrong path holds nothing else."""


class LabelledImages(Protocol):
    """What ``data.ImageSet`` offers."""

    @property
    def images(self) -> Tensor:
        """uint8 [N, 3, H, W] in host memory."""
        ...

    @property
    def ids(self) -> Tensor:
        """int64 [N]."""
        ...


def check_overlap(train: LabelledImages, val: LabelledImages | None, test: LabelledImages) -> list[str]:
    """Look for pictures that stand in two of the three sets.

    Pictures are compared byte by byte: ids of two sets need not mean the same source, but one image in two sets has
    one content, whatever its ids are. It takes some tenths of a second for CIFAR-10.

    Returns:
        A note for each pair of sets that shares a few pictures.

    Raises:
        DataError: If more than ``COPIES_ALLOWED`` of a set are in another one.
    """
    sets = [(name, part) for name, part in (("train", train), ("validation", val), ("test", test)) if part is not None]
    keyed = [(name, part, _keys(part.images)) for name, part in sets]
    notes: list[str] = []
    for place, (name, held, held_keys) in enumerate(keyed):
        for other, known, known_keys in keyed[:place]:
            copies = _copies(held.images, held_keys, known.images, known_keys)
            if not copies:
                continue
            said = f"{len(copies)} of {len(held_keys)} {name} images are {other} images too"
            if len(copies) > COPIES_ALLOWED * len(held_keys):
                mine, yours = copies[0]
                raise DataError(
                    f"{said}, such as {name} id {int(held.ids[mine])}, which is {other} id {int(known.ids[yours])}",
                    hint=f"accuracy on such a {name} set means nothing: remove the copies from one of the two",
                )
            notes.append(said)
    return notes


def check_lone_image(model: nn.Module, name: str, config: TrainConfig, num_images: int, size: int, device: torch.device) -> None:
    """Try a training batch of one image where an epoch has one: a batch norm with one value per channel cannot be trained.

    Args:
        model: On ``device``; a copy of it is tried.
        name: Its row, for the message.
        config: ``epochs``, ``batch_size`` and ``drop_last`` are read.
        num_images: Training images of an epoch.
        size: Their height and width in pixels, as the model sees them.
        device: Where the model is.

    Raises:
        ConfigError: The model refuses it.
    """
    is_left_over = config.batch_size > 1 and num_images % config.batch_size == 1 and not config.drop_last
    if config.epochs == 0 or not (config.batch_size == 1 or is_left_over):
        return
    images = torch.zeros(1, 3, size, size, device=device)
    for epoch in sorted({1, config.epochs}):  # frozen features may be trained later
        tried = copy.deepcopy(model)
        begin_epoch(tried, epoch)
        with torch.random.fork_rng([device] if device.type == "cuda" else []), torch.no_grad():
            try:
                tried.train()(images)
            except ValueError as error:
                which = f"the last one of {num_images} images" if is_left_over else "each"
                raise ConfigError(
                    f"model={name} cannot be trained on a batch of one image, which {which} is at "
                    f"train.batch_size={config.batch_size}: {error}",
                    hint="train.drop_last=true or another train.batch_size" if is_left_over else "train.batch_size=2 or more",
                ) from error


def schedule_note(schedule: Schedule, name: str, config: TrainConfig, steps_per_epoch: int, *, has_val: bool) -> str:
    """What to say of a schedule that has the same rate in the whole run though it is meant to move; empty if it does.

    A schedule that looks at results is shown an epoch after another that gets worse.

    Args:
        schedule: Fresh; left as it is.
        name: Its row; ``constant`` is meant to stay.
        config: ``epochs`` and ``eval_every_epochs`` are read.
        steps_per_epoch: Optimiser steps.
        has_val: Whether there is a validation set.
    """
    if name == "constant" or config.epochs == 0:
        return ""
    schedule = copy.deepcopy(schedule)
    factors: set[float] = set()
    for epoch in range(config.epochs):
        first = epoch * steps_per_epoch
        factors |= {schedule(step) for step in (first, first + steps_per_epoch // 2, first + steps_per_epoch - 1)}
        if len(factors) > 1:
            return ""
        is_measured = has_val and ((epoch + 1) % config.eval_every_epochs == 0 or epoch + 1 == config.epochs)
        worse = {"loss": float(epoch + 1), "accuracy": 1.0 / (epoch + 1)}
        row = {
            f"{part}_{key}": value for part in ("train", "val") for key, value in worse.items() if part == "train" or is_measured
        }
        schedule.observe(row)
    steps = config.epochs * steps_per_epoch
    return f"schedule={name} never moves in this run of {steps} steps and {config.epochs} epochs: the rate is always the same"


def _keys(images: Tensor) -> list[int]:
    """A check sum per picture: equal for equal ones, and now and then for others."""
    return [zlib.crc32(picture.data) for picture in images.contiguous().numpy().reshape(len(images), -1)]


def _copies(held: Tensor, held_keys: Sequence[int], known: Tensor, known_keys: Sequence[int]) -> list[tuple[int, int]]:
    """Positions in ``held`` of pictures that are in ``known``, each with its first position there."""
    if held.shape[1:] != known.shape[1:]:
        return []
    places: dict[int, list[int]] = {}
    wanted = set(held_keys)
    for place, key in enumerate(known_keys):
        if key in wanted:
            places.setdefault(key, []).append(place)
    found: list[tuple[int, int]] = []
    for mine, key in enumerate(held_keys):
        equal = (yours for yours in places.get(key, ()) if torch.equal(held[mine], known[yours]))
        if (first := next(equal, None)) is not None:
            found.append((mine, first))
    return found
