"""From a configuration to parts: batches on the device, model, optimiser, schedule and the state that is trained."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import nn

from cifar_lab import rules, runtime
from cifar_lab.analysis.cost import model_cost
from cifar_lab.config import Component, Config, DataConfig
from cifar_lab.data import DATASETS
from cifar_lab.data.augment import idle_settings, normalization
from cifar_lab.data.batches import Batches
from cifar_lab.data.sets import ImageSet, Progress, Splits, Stop
from cifar_lab.engine.fit import steps_per_epoch
from cifar_lab.engine.preflight import check_lone_image
from cifar_lab.engine.state import TrainState
from cifar_lab.engine.twopass import precision_for
from cifar_lab.errors import ConfigError
from cifar_lab.models.build import build_model
from cifar_lab.optim.muon import Muon
from cifar_lab.optim.optimizers import build_optimizer
from cifar_lab.optim.schedules import build_schedule
from cifar_lab.plugins import PREFIX
from cifar_lab.pretrained import load_start
from cifar_lab.tables import COMPONENTS

PREPARED_IMAGES = 5000
"""Training images that a model with ``prepare`` is shown; airbench uses as many, the first ones of CIFAR-10."""


@dataclass
class Parts:
    """What a configuration becomes.

    Attributes:
        splits: The images, in host memory.
        train: Shuffled and augmented batches.
        val: Plain batches; None where nothing is held out.
        state: Model, optimiser, schedule and how far they are.
        cost: Parameters and multiply-adds of the model.
        normalization: Mean and standard deviation per channel.
        notes: What a person should know of the weights it starts from; none of a run that goes on.
    """

    splits: Splits
    train: Batches
    val: Batches | None
    state: TrainState
    cost: dict[str, Any]
    normalization: tuple[tuple[float, ...], tuple[float, ...]]
    notes: list[str] = field(default_factory=list)


def build_parts(
    config: Config,
    splits: Splits,
    device: torch.device,
    *,
    resumes: bool = False,
    stop: Stop | None = None,
    progress: Progress | None = None,
) -> Parts:
    """Build everything that is trained or trains; ``train.precision`` becomes what ``auto`` means here.

    Args:
        config: Checked.
        splits: The data.
        device: Where the model is to be.
        resumes: A checkpoint will fill the model: the weights that the run once began with are not looked for.
        stop: Called between pieces of a download of weights.
        progress: Called with (what, done, total) of it.

    Raises:
        ConfigError: A builder refuses a value, the model does not fit the images, the classes or a batch of one image, or
            patience waits for validation images that the data set has not.
        CheckpointError: ``init_from`` or ``model.weights`` cannot be read or does not fit the model.
        DataError: Weights are neither here nor to be had.
    """
    train, size = config.train, config.data.input_size or splits.train.images.shape[-1]
    if splits.val is None:
        try:
            rules.check_patience(train)
        except ValueError as error:
            raise ConfigError(str(error)) from error
    runtime.seed_everything(config.seed)
    with refusals("model", config.model.name):
        model = build_model(config.model.name, num_classes=splits.num_classes, input_size=size, **config.model.settings)
    notes = [] if resumes else load_start(config, model, stop=stop, progress=progress)
    model = model.to(device=device)
    if train.channels_last:
        model = model.to(memory_format=torch.channels_last)  # pyrefly: ignore
    train.precision = precision_of(config, device, model)
    check_forward(model, config.model.name, splits.num_classes, size, device)
    check_lone_image(model, config.model.name, train, len(splits.train), size, device)
    cost = model_cost(model, (3, size, size), device)
    statistics = normalization(config.data.normalize, splits.train)
    batches = build_batches(config, splits.train, statistics, device, training=True, num_classes=splits.num_classes)
    val = build_batches(config, splits.val, statistics, device) if splits.val is not None else None
    steps = steps_per_epoch(len(batches), train.accumulation_steps)
    with refusals("optimizer", config.optimizer.name):
        optimizer = build_optimizer(config.optimizer.name, model, **config.optimizer.settings)
    notes += _without_effect(config, optimizer)
    with refusals("schedule", config.schedule.name):
        schedule = build_schedule(
            config.schedule.name,
            lr=optimizer.param_groups[0]["lr"],
            total_steps=max(1, steps * train.epochs),
            steps_per_epoch=steps,
            **config.schedule.settings,
        )
    state = TrainState(model, optimizer, schedule, train, device=device, precision=train.precision)
    return Parts(splits, batches, val, state, cost, statistics, notes)


def _without_effect(config: Config, optimizer: torch.optim.Optimizer) -> list[str]:
    """A line on every setting that changes nothing in this run."""
    augment = config.augment
    notes = [
        f"augment.{key}={getattr(augment, key)} with augment.{other}={getattr(augment, other)}: it changes nothing"
        for key, other in idle_settings(augment).items()
    ]
    if isinstance(optimizer, Muon) and not optimizer.has_matrices:
        notes.append(f"optimizer={config.optimizer.name}: no weight lies between hidden layers here, so its lr is used by none")
    return notes


def precision_of(config: Config, device: torch.device, model: nn.Module) -> str:
    """What ``train.precision`` means on this device, for this model and this optimizer.

    Raises:
        ConfigError: The device has not what was asked for, or the optimizer's builder refuses a value.
    """
    precision = runtime.resolve_precision(config.train.precision, device, model)
    if config.train.precision != "auto" or precision != "fp16":
        return precision
    with refusals("optimizer", config.optimizer.name):
        return precision_for(build_optimizer(config.optimizer.name, model, **config.optimizer.settings), precision)


def prepare_model(config: Config, parts: Parts) -> None:
    """Show a fresh model its training images once, if it asks for that by a method ``prepare(images)``.

    Such as a whitening stem, which is computed and not trained. The images are normalized, in training size, and
    not augmented; a resumed or loaded model brings its own values.
    """
    prepare = getattr(parts.state.model, "prepare", None)
    if not callable(prepare):
        return
    train = parts.splits.train
    count = min(PREPARED_IMAGES, len(train))
    evenly = torch.arange(count) * len(train) // count  # the first ones of a folder are those of its first classes
    batches = build_batches(config, train.take(evenly), parts.normalization, parts.state.device)
    with torch.no_grad():
        prepare(torch.cat([images for images, _ in batches.iterate(0)]))


def check_builders(configs: Sequence[Config]) -> None:
    """Let every builder look at its settings, without memory and without data: what only a builder knows to refuse.

    A sweep is refused by this before its first job starts. The number of classes is guessed, so only what a builder says
    in so many words (a ``ValueError``) counts; the rest is found when the job itself is built, and whatever is wrong with
    a model for pictures of a person's own data set, whose size is known only then.

    Raises:
        ConfigError: A builder refuses a value.
    """
    seen: set[str] = set()
    for config in configs:
        size = known_size(config.data)
        checks: list[tuple[str, Component, Callable[..., Any]]] = [
            ("optimizer", config.optimizer, partial(build_optimizer, model=nn.Linear(1, 1))),
            ("schedule", config.schedule, partial(build_schedule, lr=_base_lr(config), total_steps=100, steps_per_epoch=10)),
        ]
        if size:
            checks.insert(0, ("model", config.model, partial(build_model, num_classes=10, input_size=size)))
        for kind, part, build in checks:
            key = f"{kind} {part} {size if kind == 'model' else ''} {_base_lr(config) if kind == 'schedule' else ''}"
            if key in seen:
                continue
            seen.add(key)
            try:
                with torch.device("meta" if kind == "model" else "cpu"), torch.random.fork_rng([]):
                    build(part.name, **part.settings)
            except ValueError as error:
                raise ConfigError(f"{kind}={part.name}: {error}") from error
            except (Exception, SystemExit):  # not for certain the settings' fault; the job itself will say
                continue


def known_size(data: DataConfig) -> int:
    """Pixels a side that a model will see; 0: that is known when the data set is read."""
    if data.input_size or data.name == "folder":
        return data.input_size or data.image_size
    return 32 if DATASETS.get(data.name, "").startswith("cifar_lab.data.") else 0


def _base_lr(config: Config) -> float:
    return config.optimizer.settings.get("lr", 1.0)


def build_batches(
    config: Config,
    images: ImageSet,
    statistics: tuple[tuple[float, ...], tuple[float, ...]],
    device: torch.device,
    *,
    training: bool = False,
    num_classes: int = 0,
) -> Batches:
    """Batches of one set: shuffled and augmented for training, plain for everything else.

    ``num_classes`` is K of the soft targets that mixed images have; only training needs it.
    """
    mean, std = statistics
    return Batches(
        images,
        batch_size=config.train.batch_size if training else config.train.eval_batch_size,
        mean=mean,
        std=std,
        device=device,
        seed=config.seed,
        augment=config.augment if training else None,
        shuffle=training,
        drop_last=training and config.train.drop_last,
        channels_last=config.train.channels_last,
        input_size=config.data.input_size,
        num_classes=num_classes,
    )


def check_forward(model: nn.Module, name: str, num_classes: int, size: int, device: torch.device) -> None:
    """Ask the model about one blank image: what does not fit is found before anything is written.

    Raises:
        ConfigError: It does not take images of this size, or does not answer with one logit per class.
    """
    images = torch.zeros(1, 3, size, size, device=device)
    was_training = model.training
    with torch.random.fork_rng([device] if device.type == "cuda" else []), torch.no_grad():
        try:
            logits = model.eval()(images)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            if runtime.is_of_device(error):
                raise
            raise ConfigError(
                f"model={name} does not take images of {size}x{size} pixels: {' '.join(str(error).split())}",
                hint="see data.input_size and the model's own settings; --debug shows the traceback",
            ) from error
        finally:
            model.train(was_training)
    found = list(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
    if found != [1, num_classes]:
        raise ConfigError(f"model={name} answers one image with {found}; must be logits [1, {num_classes}]")


@contextlib.contextmanager
def refusals(kind: str, name: str) -> Iterator[None]:
    """A value that a builder refuses is the person's; so is whatever goes wrong in their own plugin."""
    try:
        yield
    except ValueError as error:
        raise ConfigError(f"{kind}={name}: {error}") from error
    except Exception as error:
        row = COMPONENTS[kind][name]
        if not row.startswith(PREFIX):
            raise
        where = row.removeprefix(PREFIX).replace(":", ".py: ")
        raise ConfigError(
            f"{kind}={name}: {where} raised {type(error).__name__}: {' '.join(str(error).split())}",
            hint="--debug shows the traceback",
        ) from error
