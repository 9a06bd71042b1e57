"""What may stand in a configuration: the range of every setting, and rules that need two of them."""

import math
from dataclasses import fields, is_dataclass
from typing import Any

from cifar_lab.config import AugmentConfig, Component, Config, TrainConfig

BRING_NO_VAL = ("cifar10", "cifar100", "digits")
"""Data sets whose validation images are always held out of training; another may have its own, known once it is read."""


def check(config: Any, prefix: str = "") -> None:
    """Refuse values that are out of range.

    Args:
        config: ``Config`` or one of its parts.
        prefix: Key of the part, such as ``train.``.

    Raises:
        ValueError: With the full key, its value and what is allowed.
    """
    for f in fields(config):
        value, key = getattr(config, f.name), f"{prefix}{f.name}"
        if isinstance(value, Component):
            continue
        if is_dataclass(value):
            check(value, f"{key}.")
            continue
        low, high, choices = (f.metadata.get(k) for k in ("low", "high", "choices"))
        if choices and value not in choices:
            raise ValueError(f"{key}={value}; must be one of {', '.join(choices)}")
        if low is None and high is None:
            continue
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{key}={value}; must be a finite number")
        if (low is not None and value < low) or (high is not None and value > high):
            limit = f"must be {low} to {high}" if high is not None else f"must be {low} or more"
            raise ValueError(f"{key}={value}; {limit}")
    if isinstance(config, Config):
        _check_together(config)


def _check_together(config: Config) -> None:
    """Rules that need two keys, or that no range can say."""
    kind = config.device.split(":")[0]
    index = config.device.partition(":")[2]
    if kind not in ("auto", "cpu", "cuda", "mps") or (":" in config.device and not (kind == "cuda" and index.isdecimal())):
        raise ValueError(f"device={config.device}; must be auto, cpu, cuda, cuda:N or mps")
    wrong = [b for b in config.data.train_batches if not 1 <= b <= 5]
    if wrong or len(set(config.data.train_batches)) != len(config.data.train_batches):
        raise ValueError(f"data.train_batches={config.data.train_batches}; must be different numbers from 1 to 5")
    if config.data.train_batches and config.data.name != "cifar10":
        raise ValueError(f"data.train_batches={config.data.train_batches}; only data=cifar10 has training batches")
    if config.init_from == "":
        raise ValueError("init_from is empty; must name a run folder, or be null")
    insecure = [s for s in config.data.sources if not s.startswith("https://")]
    if insecure:
        raise ValueError(f"data.sources={insecure[0]}; must be an https:// address")
    _check_augment(config.augment, config.train.batch_size)
    if config.data.name in BRING_NO_VAL and config.data.val_fraction == 0:
        check_patience(config.train)


def check_patience(train: TrainConfig) -> None:
    """Refuse patience on a validation column where there are no validation images.

    Raises:
        ValueError: Patience waits for what is never measured.
    """
    if train.monitor.startswith("val_") and train.patience_epochs > 0:
        raise ValueError(
            f"train.monitor={train.monitor} with data.val_fraction=0; patience needs validation images or a train_ monitor"
        )


def _check_augment(augment: AugmentConfig, batch_size: int) -> None:
    """Rules between keys of ``augment``, and with the batch that images are mixed in."""
    if augment.erase_min_area > augment.erase_max_area:
        raise ValueError(
            f"augment.erase_min_area={augment.erase_min_area}; must be at most augment.erase_max_area={augment.erase_max_area}"
        )
    if augment.flip_alternating and augment.flip_probability == 0:
        raise ValueError("augment.flip_alternating=true with augment.flip_probability=0; nothing is flipped")
    for key in ("mixup_alpha", "cutmix_alpha"):
        alpha = getattr(augment, key)
        if alpha > 0 and batch_size == 1:
            raise ValueError(f"augment.{key}={alpha} with train.batch_size=1; an image is mixed with another one")
