"""A tiny run for the engine's tests: batches from memory, a tracker that keeps its rows, parts with fixed seeds."""

import random
from pathlib import Path

import numpy as np
import torch
from torch import nn

from cifar_lab import storage
from cifar_lab.config import TrainConfig
from cifar_lab.engine.checkpoint import Checkpoints
from cifar_lab.engine.fit import fit, steps_per_epoch
from cifar_lab.engine.state import TrainState
from cifar_lab.optim.optimizers import build_optimizer
from cifar_lab.optim.schedules import build_schedule
from cifar_lab.signals import StopFlag

CPU = torch.device("cpu")
CLASSES = 3


class MemoryBatches:
    """Batches whose order is a function of (seed, epoch), as the engine expects of its source."""

    def __init__(self, images, labels, batch_size, *, seed=None):
        self.images, self.labels, self.batch_size, self.seed = images, labels, batch_size, seed
        self.num_images = len(images)
        self.on_batch = lambda epoch, batch: None

    def __len__(self):
        return -(-self.num_images // self.batch_size)

    def iterate(self, epoch, start=0):
        order = torch.arange(self.num_images)
        if self.seed is not None:
            order = torch.randperm(self.num_images, generator=torch.Generator().manual_seed(1000 * self.seed + epoch))
        for batch, chosen in enumerate(order.split(self.batch_size)):
            if batch >= start:
                self.on_batch(epoch, batch)
                chosen = chosen.to(self.images.device)
                yield self.images[chosen], self.labels[chosen]


class Rows:
    """A tracker that appends rows as the real one does, and can act after so many optimiser steps."""

    def __init__(self, folder: Path):
        self.path, self.notes, self.advanced, self.started = folder / "metrics.jsonl", [], [], []
        self.on_step = lambda count: None
        self.on_row = lambda row: None
        self._count = 0

    def epoch_started(self, epoch, epochs, num_batches):
        self.started.append((epoch, epochs, num_batches))

    def advance(self, batches, images):
        self.advanced.append((batches, images))
        if len(self.advanced) > 1:
            self._count += 1
        self.on_step(self._count)

    def row(self, row):
        storage.append_line(self.path, row)
        self.on_row(row)

    def note(self, text):
        self.notes.append(text)

    def read(self):
        return storage.read_lines(self.path)


def picture_set(count, *, seed=0, device=CPU):
    """Random pictures [N, 3, 6, 6] whose class can be learnt from their mean colour."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % CLASSES
    images = torch.randn(count, 3, 6, 6, generator=generator)
    images[torch.arange(count), labels] += 0.7
    return images.to(device), labels.to(device)


def train_batches(count=22, batch_size=4, *, device=CPU):
    return MemoryBatches(*picture_set(count, device=device), batch_size, seed=5)


def val_batches(count=10, batch_size=4, *, device=CPU):
    return MemoryBatches(*picture_set(count, seed=1, device=device), batch_size)


def tiny_model(seed=0, *, dropout=0.0, batch_norm=False, channels_last=True):
    torch.manual_seed(seed)
    norm = [nn.BatchNorm2d(4)] if batch_norm else []
    head = [nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Dropout(dropout), nn.Linear(16, CLASSES)]
    model = nn.Sequential(nn.Conv2d(3, 4, 3), *norm, *head)
    return model.to(memory_format=torch.channels_last) if channels_last else model


def deeper_model(seed=0):
    """With a convolution between the first and the last layer, in the memory format of real runs."""
    torch.manual_seed(seed)
    first = [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 6, 3, padding=1), nn.ReLU()]
    model = nn.Sequential(*first, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Dropout(0.4), nn.Linear(24, CLASSES))
    return model.to(memory_format=torch.channels_last)


def train_config(**keywords):
    return TrainConfig(**{"epochs": 3, "batch_size": 4, "precision": "fp32", "checkpoint_every_s": 0.0, **keywords})


def make_state(
    config,
    *,
    seed=0,
    optimizer="sgd",
    optimizer_settings=None,
    schedule="constant",
    schedule_settings=None,
    model=None,
    device=CPU,
    num_batches=6,
    dropout=0.0,
    batch_norm=False,
):
    model = (model or tiny_model(seed, dropout=dropout, batch_norm=batch_norm)).to(device)
    settings = {"lr": 0.1, **(optimizer_settings or {})}
    built = build_optimizer(optimizer, model, **settings)
    steps = steps_per_epoch(num_batches, config.accumulation_steps)
    multiplier = build_schedule(
        schedule, lr=settings["lr"], total_steps=steps * config.epochs, steps_per_epoch=steps, **(schedule_settings or {})
    )
    return TrainState(model, built, multiplier, config, device=device, precision=config.precision)


class Run:
    """One sitting of a run in a folder: parts, tracker, checkpoints and stop flag."""

    def __init__(self, folder, config, state, *, train=None, val=None, every_s=0.0):
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.config, self.state = folder, config, state
        self.train, self.val = train or train_batches(), val
        self.tracker, self.stop, self.warnings = Rows(folder), StopFlag(), []
        self.checkpoints = Checkpoints(folder, every_s=every_s, select=config.select, warn=self.warnings.append)

    def resume(self):
        return self.checkpoints.resume(self.state)

    def fit(self, judge=None):
        fit(
            self.state,
            self.train,
            self.val,
            self.config,
            tracker=self.tracker,
            checkpoints=self.checkpoints,
            stop=self.stop,
            judge=judge,
        )
        return self


def seed_all(seed):
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def everything(state):
    """All that a state packs, as comparable values; times left out."""
    tensors, record = state.pack()
    record["progress"] = {k: v for k, v in record["progress"].items() if "seconds" not in k}
    flat = {f"{group}/{name}": value for group, named in tensors.items() for name, value in named.items()}
    return flat, record


def assert_same_state(one, other):
    (tensors, record), (expected_tensors, expected_record) = everything(one), everything(other)
    assert record == expected_record
    assert tensors.keys() == expected_tensors.keys()
    different = [name for name in tensors if not torch.equal(tensors[name], expected_tensors[name])]
    assert not different


def without_times(rows):
    return [{k: v for k, v in row.items() if k not in ("seconds", "train_seconds", "images_per_s")} for row in rows]
