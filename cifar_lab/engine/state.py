"""Everything a run must remember, in one object that can be saved and restored exactly."""

import copy
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from cifar_lab.config import TrainConfig
from cifar_lab.engine.generators import pack_generators, unpack_generators
from cifar_lab.engine.stopping import Stopper
from cifar_lab.engine.twopass import check_precision
from cifar_lab.engine.weights import host_copy, load_into
from cifar_lab.errors import CheckpointError

# What is saved and restored; one that is missing from a checkpoint is an error.
ENTRIES = ("model", "ema", "optimizer", "schedule", "scaler", "progress", "stopper", "generators")


class Schedule(Protocol):
    """Multiplier of the base learning rate by optimiser step; may learn from an epoch's row."""

    def __call__(self, step: int) -> float:
        """Multiplier at optimiser step ``step``, counted from 0."""
        ...

    def observe(self, row: Mapping[str, float]) -> None:
        """See the measured columns of an epoch's row."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """What must be remembered, as JSON can hold it."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what ``state_dict`` gave."""
        ...


@dataclass
class Progress:
    """Where a run is. The sums belong to the epoch under way."""

    epochs_done: int = 0
    step: int = 0  # optimiser steps since the start of the run
    batch: int = 0  # batches done in the epoch under way
    images: int = 0
    loss_sum: float = 0.0
    correct: int = 0
    skipped: int = 0  # fp16: steps skipped in a row
    train_seconds: float = 0.0
    seconds: float = 0.0

    def end_epoch(self) -> None:
        """Count the epoch under way as done and clear its sums."""
        self.epochs_done += 1
        self.batch = self.images = self.correct = 0
        self.loss_sum = self.train_seconds = self.seconds = 0.0


class Ema:
    """Exponential moving average of a model's weights and floating-point buffers.

    ``torch.optim.swa_utils.AveragedModel`` reads its counter back from the device at every update; this
    holds the same average, by the same function of torch, without that wait. Integer buffers are copied.
    """

    def __init__(self, model: nn.Module, decay: float):
        self.module = copy.deepcopy(model).requires_grad_(False).eval()
        self.updates = 0
        self._average = get_ema_multi_avg_fn(decay)
        pairs = list(zip(_tensors(self.module), _tensors(model), strict=True))
        self._floats = [(a, m) for a, m in pairs if a.is_floating_point()]
        self._others = [(a, m) for a, m in pairs if not a.is_floating_point()]

    @torch.no_grad()
    def update(self) -> None:
        """Take in the model's present weights; the first ones are copied."""
        averaged, current = [a for a, _ in self._floats], [m for _, m in self._floats]
        if self.updates == 0:
            torch._foreach_copy_(averaged, current)
        else:
            self._average(averaged, current, self.updates)
        for a, m in self._others:
            a.copy_(m)
        self.updates += 1


class TrainState:
    """Model, EMA, optimiser, schedule, loss scale, progress and stopper of one run.

    Args:
        model: On ``device`` already, in its memory format.
        optimizer: Over the model's parameters; each group's ``lr`` becomes its ``base_lr``.
        schedule: Multiplier of every ``base_lr`` by optimiser step.
        config: ``ema_decay`` is read.
        device: Where the model is.
        precision: ``fp32``, ``bf16`` or ``fp16``, as ``runtime.resolve_precision`` gave it.

    Raises:
        ConfigError: The optimiser does not work with this precision.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        schedule: Schedule,
        config: TrainConfig,
        *,
        device: torch.device,
        precision: str,
    ):
        self.model, self.optimizer, self.schedule = model, optimizer, schedule
        self.device, self.precision = device, precision
        self.ema = Ema(model, config.ema_decay) if config.ema_decay > 0 else None
        self.scaler = build_scaler(optimizer, device, precision)
        self.progress, self.stopper = Progress(), Stopper()
        for group in optimizer.param_groups:
            group.setdefault("base_lr", group["lr"])

    @property
    def eval_model(self) -> nn.Module:
        """The weights that are evaluated: the average where there is one."""
        return self.model if self.ema is None else self.ema.module

    def pack(self) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
        """Copy everything to host memory.

        Returns:
            Tensors by file name without ending, and a record for JSON with one entry per ``ENTRIES``.
        """
        optimizer_tensors, optimizer_record = _pack_optimizer(self.optimizer)
        generators, generator_record = pack_generators(self.device)
        tensors = {"model": host_copy(self.model.state_dict()), "optimizer": optimizer_tensors, "generators": generators}
        if self.ema is not None:
            tensors["ema"] = host_copy(self.ema.module.state_dict())
        record = {
            "model": {},
            "ema": None if self.ema is None else {"updates": self.ema.updates},
            "optimizer": optimizer_record,
            "schedule": self.schedule.state_dict(),
            "scaler": self.scaler.state_dict(),
            "progress": asdict(self.progress),
            "stopper": self.stopper.state_dict(),
            "generators": generator_record,
        }
        return tensors, record

    def unpack(self, tensors: dict[str, dict[str, Tensor]], record: dict[str, Any]) -> None:
        """Become what ``pack`` gave.

        Raises:
            CheckpointError: If an entry is missing, left over or of another shape.
        """
        if set(record) != set(ENTRIES):
            raise CheckpointError(f"its entries are {sorted(record)} where {sorted(ENTRIES)} are needed")
        if set(record["progress"]) != {f.name for f in fields(Progress)}:
            raise CheckpointError("its progress has other fields than this version")
        if (record["ema"] is None) != (self.ema is None) or (self.ema is None) == ("ema" in tensors):
            raise CheckpointError("one of the checkpoint and train.ema_decay has averaged weights and the other has not")
        if bool(record["scaler"]) != self.scaler.is_enabled():
            raise CheckpointError("one of the checkpoint and train.precision has a loss scale and the other has not")
        try:
            load_into(self.model, tensors["model"])
            if self.ema is not None:
                load_into(self.ema.module, tensors["ema"])
                self.ema.updates = record["ema"]["updates"]
            _unpack_optimizer(self.optimizer, tensors["optimizer"], record["optimizer"])
            self.schedule.load_state_dict(record["schedule"])
            if self.scaler.is_enabled():
                self.scaler.load_state_dict(record["scaler"])
            self.progress = Progress(**record["progress"])
            self.stopper.load_state_dict(record["stopper"])
            unpack_generators(tensors["generators"], record["generators"], self.device)
        except (KeyError, ValueError, TypeError, IndexError) as error:
            raise CheckpointError(f"it does not fit this run: {type(error).__name__}: {error}") from error


def _tensors(model: nn.Module) -> list[Tensor]:
    return [t.detach() for t in (*model.parameters(), *model.buffers())]


def build_scaler(optimizer: torch.optim.Optimizer, device: torch.device, precision: str) -> torch.amp.GradScaler:
    """The loss scale of a precision, switched off but for fp16.

    Raises:
        ConfigError: The optimiser does not work with this precision.
    """
    check_precision(optimizer, precision)
    return torch.amp.GradScaler(device.type, enabled=precision == "fp16")


def _pack_optimizer(optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Split an optimiser's state into tensors and plain values."""
    state = optimizer.state_dict()
    tensors: dict[str, Tensor] = {}
    values: dict[str, dict[str, Any]] = {}
    for index, entries in state["state"].items():
        for key, value in entries.items():
            if isinstance(value, Tensor):
                tensors[f"{index}.{key}"] = value
            else:
                values.setdefault(str(index), {})[key] = _plain(value, key)
    groups = [{key: _plain(value, key) for key, value in group.items() if key != "params"} for group in state["param_groups"]]
    return host_copy(tensors), {"values": values, "groups": groups}


def _unpack_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor], record: dict[str, Any]) -> None:
    """Put a saved state back, every tensor in the memory format of its parameter.

    Fused kernels walk parameter and state by address, so another format would mix up elements.
    """
    present = optimizer.state_dict()
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state: dict[int, dict[str, Any]] = {int(index): dict(values) for index, values in record["values"].items()}
    for name, value in tensors.items():
        index, key = name.split(".", 1)
        parameter = parameters[int(index)]
        if value.shape == parameter.shape:
            value = torch.empty_like(parameter, dtype=value.dtype, device="cpu").copy_(value)
        state.setdefault(int(index), {})[key] = value
    groups = []
    for own, saved in zip(present["param_groups"], record["groups"], strict=True):
        missing = set(own) - {"params"} ^ set(saved)
        if missing:
            raise CheckpointError(f"the optimizer's settings differ in {', '.join(sorted(missing))}")
        groups.append({key: tuple(saved[key]) if isinstance(own[key], tuple) else saved[key] for key in saved})
        groups[-1]["params"] = own["params"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def _plain(value: Any, key: str) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return [_plain(item, key) for item in value]
    raise CheckpointError(f"the optimizer keeps {key} as a {type(value).__name__}, which a checkpoint cannot hold")
