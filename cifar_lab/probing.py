"""What can be known of a run before it starts, by building its model and making a few steps; and its latency, measured alone.

Runs in a process of its own (``workers.apart``): a model that does not fit takes nothing else down, and no device is
held by whoever waits.
"""

import time
from dataclasses import asdict, replace
from typing import Any

import torch
from torch import nn

from cifar_lab import costing, runtime, schema
from cifar_lab.analysis.cost import model_cost
from cifar_lab.analysis.latency import random_images, short_latency, wait
from cifar_lab.analysis.training_step import TrainingStep
from cifar_lab.config import Config, DataConfig
from cifar_lab.data.batches import batches_per_epoch
from cifar_lab.data.splits import load_splits
from cifar_lab.engine.fit import steps_per_epoch
from cifar_lab.errors import DataError, LabError
from cifar_lab.optim.optimizers import build_optimizer

_STEPS_S = 0.5
"""Seconds of training steps that are timed, and seconds of the warm-up before."""
_LATENCY_S = 2.0
_FORWARD_SHARE = 1 / 3
"""A forward pass costs about a third of a training step."""
_STATE_TENSORS = {"adam": 2, "adamw": 2, "sgd": 1, "rmsprop": 2, "sam": 1, "muon": 2, "muon_sgd": 1}


def look_at(plains: list[dict[str, Any]], threads: int) -> list[dict[str, Any]]:
    """Facts and pace of several configurations.

    Args:
        plains: As config.yaml holds them.
        threads: CPU threads that each run will have; 0: as its configuration says.

    Returns:
        For each ``num_params``, ``macs``, ``head_inputs``, ``train_images``, ``steps_per_epoch``, ``train_s`` (seconds that
        all epochs will take) and ``bytes`` (left on the disk), None where they cannot be known; or ``error``: why nothing is.
    """
    counts: dict[str, dict[str, int] | None] = {}
    found = []
    for plain in plains:
        try:
            config = schema.from_plain(plain)
            config.threads = config.threads or threads
            found.append(_look_at(config, counts))
        except LabError as error:
            found.append({"error": error.what})
        except (Exception, SystemExit) as error:  # of a person's own model; the job itself will say more
            found.append({"error": f"{type(error).__name__}: {error}"})
    return found


def _look_at(config: Config, counts: dict[str, dict[str, int] | None]) -> dict[str, Any]:
    key = str({k: v for k, v in asdict(config.data).items() if k not in ("input_size", "normalize")})
    if key not in counts:
        counts[key] = _images(config.data)
    images = counts[key]
    built = costing.build(config, images["classes"] if images else 10)
    cost = model_cost(built.model, built.shape, built.device)
    linear = [module for module in built.model.modules() if isinstance(module, nn.Linear)]
    facts: dict[str, Any] = {
        "num_params": cost["num_params"],
        "macs": cost["macs"],
        "head_inputs": linear[-1].in_features if linear else None,
        "train_images": images["train"] if images else None,
        "steps_per_epoch": None,
        "train_s": None,
        "bytes": _bytes_on_disk(config, cost["num_params"], images),
    }
    if images:
        train = config.train
        batches = batches_per_epoch(images["train"], train.batch_size, train.drop_last)
        facts["steps_per_epoch"] = steps_per_epoch(batches, train.accumulation_steps)
        facts["train_s"] = _training_seconds(built, batches, images["val"])
    return facts


def _images(data: DataConfig) -> dict[str, int] | None:
    """Images of each split and classes; None where the data set is not here: a look must not download it."""
    try:
        splits = load_splits(replace(data, download=False))
    except DataError:
        return None
    return {"train": len(splits.train), "val": 0, **splits.counts, "classes": len(splits.class_names)}


def _training_seconds(built: costing.Built, batches: int, val_images: int) -> float | None:
    """All epochs with their evaluations, from a few steps; None where the optimizer cannot be tried so."""
    config, device = built.config, built.device
    train = config.train
    if config.model.settings.get("freeze") == "features":
        return None  # most of its time is one pass over the images
    try:
        optimizer = build_optimizer(config.optimizer.name, built.model, **config.optimizer.settings)
        step = TrainingStep(built.model, optimizer, train, device, train.precision)
    except (LabError, ValueError):
        return None
    images = random_images(train.batch_size, built.shape).to(device)
    if train.channels_last:
        images = images.contiguous(memory_format=torch.channels_last)
    labels = torch.arange(train.batch_size, device=device) % built.num_classes
    with runtime.device_failures_named(train.batch_size):
        for _ in range(2):  # what is left of the first is set-up
            began, steps = time.perf_counter(), 0
            while steps < 2 or time.perf_counter() - began < _STEPS_S:
                step(images, labels)
                steps += 1
                if steps % 4 == 0:
                    wait(device)
            wait(device)
            seconds = (time.perf_counter() - began) / steps
    per_image = seconds / train.batch_size * _FORWARD_SHARE
    return train.epochs * (batches * seconds + val_images * per_image / train.eval_every_epochs)


def _bytes_on_disk(config: Config, num_params: int, images: dict[str, int] | None) -> int:
    """Checkpoints with the optimizer's state, the best weights, and logits of val and test."""
    weights = 4 * num_params
    state = weights * (1 + _STATE_TENSORS.get(config.optimizer.name, 2))
    kept = {"all": 2 * state + weights, "best": weights, "none": 0}[config.train.keep]
    answers = (images["val"] + images["test"]) * 4 * images["classes"] if images else 0
    return kept + answers + 300_000


def latency_alone(plains: list[dict[str, Any]]) -> list[dict[str, Any] | None]:
    """Latency of single pictures, one model after the other, with nothing else of ours running.

    Returns:
        What ``short_latency`` says of each, and ``threads``; None where the model cannot be built.
    """
    found: list[dict[str, Any] | None] = []
    for plain in plains:
        try:
            config = schema.from_plain(plain)
            built = costing.build(config, 10)
            built.model.eval()
            train = config.train
            measured = short_latency(
                built.model,
                built.shape,
                1,
                built.device,
                precision=train.precision,
                channels_last=train.channels_last,
                max_s=_LATENCY_S,
            )["latency"]
            found.append({**measured, "threads": torch.get_num_threads()})
        except (Exception, SystemExit):  # the runs of this variant have said why
            found.append(None)
    return found
