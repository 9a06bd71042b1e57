"""What a model costs, measured here: for `cifar-lab cost`, from a configuration or from a finished run's own.

No data is read: pictures are random bytes. Weights are fresh, which none of these numbers depends on.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch import nn

from cifar_lab import runtime
from cifar_lab.analysis.cost import model_cost, undisturbed
from cifar_lab.analysis.footprint import inference_memory, training_memory
from cifar_lab.analysis.latency import CALLS, Answering, measure_latency, measure_throughput, random_images
from cifar_lab.analysis.layers import layer_table, totals
from cifar_lab.analysis.training_step import TrainingStep
from cifar_lab.config import Component, Config, DataConfig, TrainConfig
from cifar_lab.errors import CheckpointError, ConfigError
from cifar_lab.models.build import build_model
from cifar_lab.optim.optimizers import build_optimizer
from cifar_lab.parts import check_forward, known_size, precision_of, refusals
from cifar_lab.saved import SavedRun

SCHEMA = 1
_STEPS = (1, 8, 32, 128, 512, 2048)
"""Batch sizes at which throughput is measured, up to the largest that is asked for, and that one."""


@dataclass
class Built:
    """A model on its device, as training would have it.

    Attributes:
        config: Where it came from; ``train.precision`` is what ``auto`` means here.
        model: In training mode, with fresh weights.
        num_classes: K.
        size: Pixels a side that it sees.
        device: Where it is.
        run: Folder of the run that it is of, and what that run measured; empty for none.
    """

    config: Config
    model: nn.Module
    num_classes: int
    size: int
    device: torch.device
    run: dict[str, Any] = field(default_factory=dict)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one picture."""
        return 3, self.size, self.size


@dataclass
class Wanted:
    """What is to be measured beside the counts.

    Attributes:
        layers: The table of layers.
        timing: Latency, throughput and memory.
        batch_size: N; latency is measured at 1 and N.
        max_s: Seconds for each latency and each throughput; 0: as long as the rules need.
        say: Hears what is measured next.
    """

    layers: bool = False
    timing: bool = True
    batch_size: int = 128
    max_s: float = 0.0
    say: Callable[[str], None] = field(default=lambda text: None)


def build(config: Config, num_classes: int, size: int = 0) -> Built:
    """Build a configuration's model where and as it would be trained; no data and no weights are read.

    Args:
        config: ``threads``, ``device``, ``model``, ``optimizer`` and ``train`` are read; ``train.precision`` is resolved.
        num_classes: K.
        size: Pixels a side; 0: ``data.input_size``, or else what the data set is stored as.

    Raises:
        ConfigError: The model or the optimizer refuses a value, or the model does not fit the picture size or the classes.
    """
    runtime.set_threads(config.threads)
    runtime.set_deterministic(config.train.deterministic)
    device = runtime.resolve_device(config.device)
    runtime.use_device(device)
    size = size or known_size(config.data) or 32
    with refusals("model", config.model.name), torch.random.fork_rng([]):
        model = build_model(config.model.name, num_classes=num_classes, input_size=size, **config.model.settings)
    model = model.to(device=device)
    if config.train.channels_last:
        model = model.to(memory_format=torch.channels_last)  # pyrefly: ignore
    config.train.precision = precision_of(config, device, model)
    check_forward(model, config.model.name, num_classes, size, device)
    return Built(config, model, num_classes, size, device)


def build_run(run: SavedRun, device: str = "") -> Built:
    """The model of a finished run, or of kept evidence, by its own configuration.

    Args:
        run: Opened by ``load_run``.
        device: Another one than the run was told.

    Raises:
        CheckpointError: Its configuration is not one that this version can read.
    """
    plain = run.config
    try:
        config = Config(
            seed=plain["seed"],
            device=device or plain["device"],
            threads=plain["threads"],
            data=DataConfig(**_fields_of(DataConfig, plain["data"])),
            train=TrainConfig(**_fields_of(TrainConfig, plain["train"])),
            model=_component(plain["model"]),
            optimizer=_component(plain["optimizer"]),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{run.path / 'config.yaml'} is not one that this version reads: {error}") from error
    built = build(config, run.num_classes, run.input_size)
    known = run.result["cost"]
    built.run = {"folder": str(run.path), "device": run.result["device"]}
    built.run |= {key: known.get(key) for key in ("train_s", "images_per_s", "peak_memory_mib")}
    return built


def measure_cost(built: Built, wanted: Wanted) -> dict[str, Any]:
    """Everything that is asked for, as JSON can hold it.

    Returns:
        ``model``, ``settings``, ``num_classes``, ``input_size``, the counts of ``model_cost``, ``run`` where there is one; where
        wanted ``layers`` and ``layer_totals``, ``conditions``, ``latency``, ``throughput`` and ``memory``.

    Raises:
        ResourceError: Not enough memory for the batch.
    """
    config, device = built.config, built.device
    wanted.say(f"counting {config.model.name}")
    cost: dict[str, Any] = {
        "schema": SCHEMA,
        "model": config.model.name,
        "settings": {k: list(v) if isinstance(v, tuple) else v for k, v in config.model.settings.items()},
        "num_classes": built.num_classes,
        "input_size": built.size,
        **model_cost(built.model, built.shape, device),
    }
    if built.run:
        cost["run"] = built.run
    if wanted.layers:
        rows = layer_table(built.model, built.shape, device)
        cost |= {"layers": rows, "layer_totals": totals(rows)}
    if wanted.timing:
        with runtime.device_failures_named(wanted.batch_size):
            cost["conditions"] = conditions(built)
            cost |= _timing(built, wanted)
            cost["memory"] = _memory(built, wanted)
    return cost


def _timing(built: Built, wanted: Wanted) -> dict[str, Any]:
    """Latency at batch 1 and N; throughput at several sizes."""
    latency, throughput = {}, []
    sizes = sorted({*(size for size in _STEPS if size < wanted.batch_size), wanted.batch_size})
    with undisturbed(built.model, built.device):
        for size in dict.fromkeys((1, wanted.batch_size)):
            call = _answering(built, size)
            wanted.say(f"latency of {CALLS} calls at batch size {size}, about {_seconds(call, built, CALLS)}")
            latency[f"batch_{size}"] = measure_latency(call, built.device, max_s=wanted.max_s)
        for size in sizes:
            wanted.say(f"throughput at batch size {size}")
            found = measure_throughput(_answering(built, size), built.device, size, max_s=wanted.max_s)
            throughput.append({"batch_size": size, **found})
    return {"latency": latency, "throughput": throughput}


def _memory(built: Built, wanted: Wanted) -> dict[str, Any]:
    """Peak memory of answering a batch and of a training step at the configuration's batch size; trains the model."""
    train, device = built.config.train, built.device
    wanted.say(f"memory of answering {wanted.batch_size} images and of a training step of {train.batch_size}")
    inference = inference_memory(built.model, _answering(built, wanted.batch_size), device)
    optimizer = built.config.optimizer
    with refusals("optimizer", optimizer.name):
        made = build_optimizer(optimizer.name, built.model, **optimizer.settings)
    step = TrainingStep(built.model, made, train, device, train.precision)
    images = random_images(train.batch_size, built.shape).to(device)
    if train.channels_last:
        images = images.contiguous(memory_format=torch.channels_last)
    labels = torch.arange(train.batch_size, device=device) % built.num_classes
    training = training_memory(step, images, labels, device)
    return {
        "inference": inference and {"batch_size": wanted.batch_size, **inference},
        "training": training and {"batch_size": train.batch_size, "optimizer": optimizer.name, **training},
    }


def _answering(built: Built, batch_size: int) -> Answering:
    train = built.config.train
    return Answering(
        built.model, built.shape, batch_size, built.device, precision=train.precision, channels_last=train.channels_last
    )


def _seconds(call: Answering, built: Built, calls: int) -> str:
    """How long so many calls will take, from one of them."""
    once = measure_throughput(call, built.device, 1, max_s=1e-3)
    return f"{max(1.0, calls / once['images_per_s']):.0f} s"


def conditions(built: Built) -> dict[str, Any]:
    """Where and how time and memory were measured; ``load`` is what the machine had to do in the last minute, in busy cores."""
    record = runtime.environment_record(built.device)
    return {
        "device": str(built.device),
        "device_name": record.get("gpu", {}).get("name") or record["cpu"],
        "threads": record["threads"],
        "cpu_count": record["cpu_count"],
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "precision": built.config.train.precision,
        "channels_last": built.config.train.channels_last,
        "torch": record["packages"]["torch"],
    }


def _component(plain: dict[str, Any]) -> Component:
    """A part as config.yaml holds it, with its settings as the builder expects them: YAML has no tuples."""
    settings = {key: tuple(v) if isinstance(v, list) else v for key, v in plain.items() if key != "name"}
    return Component(plain["name"], settings)


def _fields_of(kind: type, plain: dict[str, Any]) -> dict[str, Any]:
    """What of a section this version knows; a run of another one may lack a setting or have one more."""
    return {key: value for key, value in plain.items() if key in {f.name for f in fields(kind)}}


def check_sizes(text: str, flag: str) -> list[int]:
    """Batch sizes as a person types them, such as 32,128.

    Raises:
        ConfigError: Something in it is no number above 0.
    """
    words = [word.strip() for word in text.split(",")]
    if not all(word.isdecimal() and int(word) > 0 for word in words):
        raise ConfigError(f"{flag} {text}; must be numbers above 0 with commas between them, such as 32,128")
    return sorted({int(word) for word in words})
