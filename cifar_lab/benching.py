"""Training images per second by precision, memory layout and batch size: for `cifar-lab bench`.

Whole training steps from bytes on the device: gather, augmentation, normalisation, forward and backward pass, update; without
evaluation, checkpoints and averaged weights. The pictures are random bytes. All variants run by turns, in both directions, so
that a busy neighbour or a warming chip touches all of them; each turn is one window that waits for the device at its ends only.
"""

import copy
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from cifar_lab import runtime
from cifar_lab.analysis.latency import wait
from cifar_lab.analysis.training_step import TrainingStep
from cifar_lab.costing import Built, conditions
from cifar_lab.data.augment import normalization
from cifar_lab.data.batches import Batches
from cifar_lab.data.sets import ImageSet
from cifar_lab.errors import ConfigError, ResourceError
from cifar_lab.optim.optimizers import build_optimizer
from cifar_lab.parts import build_batches, refusals

SCHEMA = 1
REPETITIONS = 5
PRECISIONS = ("fp32", "bf16", "fp16")
_MOST_IMAGES = 16_384
"""Of one repetition."""
_WARMUP_SHARE = 0.4
"""Of the seconds: a variant that would be begun later is left out, which its row says."""


@dataclass
class Variant:
    """One way to train, and what was measured of it.

    Attributes:
        precision: ``fp32``, ``bf16`` or ``fp16``.
        channels_last: Memory layout.
        batch_size: Images a step.
        rates: Images per second of each repetition.
        steps: In each repetition.
        step_s: Seconds of one, from the warm-up.
        note: Why there are no rates.
    """

    precision: str
    channels_last: bool
    batch_size: int
    rates: list[float] = field(default_factory=list)
    steps: int = 1
    step_s: float = 0.0
    note: str = ""

    @property
    def overrides(self) -> str:
        """What a person types to use it."""
        layout = str(self.channels_last).lower()
        return f"train.precision={self.precision} train.channels_last={layout} train.batch_size={self.batch_size}"

    def row(self) -> dict[str, Any]:
        """As JSON can hold it: median, lowest and highest images per second."""
        rates = self.rates
        return {
            "precision": self.precision,
            "channels_last": self.channels_last,
            "batch_size": self.batch_size,
            "images_per_s": statistics.median(rates) if rates else None,
            "low": min(rates) if rates else None,
            "high": max(rates) if rates else None,
            "repetitions": len(rates),
            "steps": self.steps,
            "overrides": self.overrides,
            "note": self.note,
        }


def bench(
    built: Built,
    sizes: Sequence[int],
    *,
    seconds: float,
    everything: bool = False,
    say: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Measure all variants within a time.

    Args:
        built: The model and its configuration, whose batch size is measured too.
        sizes: Batch sizes.
        seconds: No repetition begins later; every variant that was begun is finished, which may take a step longer.
        everything: Measure precisions too that the device emulates.
        say: Hears what is going on.

    Returns:
        ``rows`` (see ``Variant.row``), ``skipped`` precisions with reasons, ``winner``, ``winner_at_batch_size`` for the
        configuration's own, and ``conditions``.

    Raises:
        ConfigError: No variant could be measured.
    """
    began = time.perf_counter()
    config, device = built.config, built.device
    emulated = runtime.emulated_precisions(device)
    skipped = {p: why for p, why in emulated.items() if not everything or device.type == "mps"}
    variants = [
        Variant(precision, layout, size)
        for size in sorted({*sizes, config.train.batch_size})
        for precision in PRECISIONS
        if precision not in skipped
        for layout in (True, False)
    ]
    runner = _Runner(built)
    for number, variant in enumerate(variants):
        if number and time.perf_counter() - began > _WARMUP_SHARE * seconds:
            variant.note = "no time left: raise --seconds"
            continue
        say(f"warming up {variant.overrides}")
        runner.warm_up(variant)
    alive = [v for v in variants if not v.note]
    if not alive:
        raise ConfigError(f"nothing could be measured: {variants[0].note}")
    _repeat(runner, alive, began + seconds, say)
    return {
        "schema": SCHEMA,
        "model": config.model.name,
        "optimizer": config.optimizer.name,
        "augment": config.augment.name,
        "input_size": built.size,
        "rows": [v.row() for v in variants],
        "skipped": skipped,
        "winner": _winner(alive),
        "winner_at_batch_size": _winner([v for v in alive if v.batch_size == config.train.batch_size]),
        "conditions": conditions(built),
        "seconds": time.perf_counter() - began,
    }


def _repeat(runner: "_Runner", alive: list[Variant], deadline: float, say: Callable[[str], None]) -> None:
    """Repetitions by turns, forwards and backwards; the first is made in any case."""
    share = max(0.0, deadline - time.perf_counter()) / (REPETITIONS * len(alive))
    for variant in alive:
        most = max(1, _MOST_IMAGES // variant.batch_size)
        variant.steps = max(1, min(most, int(share / variant.step_s)))
    longest = sum(v.steps * v.step_s for v in alive)
    for repetition in range(REPETITIONS):
        if repetition and time.perf_counter() + longest > deadline:
            return
        say(f"repetition {repetition + 1} of {REPETITIONS}, about {longest:.0f} s")
        for variant in alive if repetition % 2 == 0 else reversed(alive):
            variant.rates.append(runner.measure(variant, repetition))


def _winner(variants: list[Variant]) -> dict[str, Any] | None:
    """The fastest by its median; ``clear`` where its slowest repetition beats every other variant's fastest."""
    ranked = sorted((v for v in variants if v.rates), key=lambda v: -statistics.median(v.rates))
    if not ranked:
        return None
    best, *others = ranked
    return {**best.row(), "clear": all(min(best.rates) > max(other.rates) for other in others)}


class _Runner:
    """Models that are trained, one for each precision and layout, and pictures to train them with."""

    def __init__(self, built: Built):
        self._built = built
        self._steps: dict[tuple[str, bool], TrainingStep] = {}
        chance = torch.Generator().manual_seed(0)
        data = built.config.data
        stored = data.image_size if data.name == "folder" else 32
        pixels = torch.randint(0, 256, (_MOST_IMAGES, 3, stored, stored), dtype=torch.uint8, generator=chance)
        labels = torch.randint(0, built.num_classes, (_MOST_IMAGES,), generator=chance)
        self._images = ImageSet(pixels, labels, torch.arange(_MOST_IMAGES))
        self._statistics = normalization(data.normalize, self._images)

    def warm_up(self, variant: Variant) -> None:
        """Two steps; the second one's time tells how many make a repetition. What does not work is noted."""
        try:
            with runtime.device_failures_named(variant.batch_size):
                step, batches = self._step(variant), self._batches(variant, 1)
                self._epoch(step, batches, 0)
                variant.step_s = self._epoch(step, batches, 1)
        except (ResourceError, ConfigError) as error:
            variant.note = error.what

    def measure(self, variant: Variant, repetition: int) -> float:
        """Images per second of one repetition."""
        batches = self._batches(variant, variant.steps)
        return batches.num_images / self._epoch(self._step(variant), batches, repetition)

    def _epoch(self, step: TrainingStep, batches: Batches, epoch: int) -> float:
        """Seconds that an epoch of these batches takes."""
        device = self._built.device
        wait(device)
        began = time.perf_counter()
        for images, labels in batches.iterate(epoch):
            step(images, labels)
        wait(device)
        return time.perf_counter() - began

    def _batches(self, variant: Variant, steps: int) -> Batches:
        built = self._built
        train = replace(built.config.train, batch_size=variant.batch_size, channels_last=variant.channels_last)
        count = variant.batch_size * steps
        some = self._images.take(torch.arange(count) % len(self._images))
        return build_batches(
            replace(built.config, train=train), some, self._statistics, built.device, training=True, num_classes=built.num_classes
        )

    def _step(self, variant: Variant) -> TrainingStep:
        key = variant.precision, variant.channels_last
        if key not in self._steps:
            built, part = self._built, self._built.config.optimizer
            layout = torch.channels_last if variant.channels_last else torch.contiguous_format
            model = copy.deepcopy(built.model).to(memory_format=layout)  # pyrefly: ignore
            with refusals("optimizer", part.name):
                optimizer = build_optimizer(part.name, model, **part.settings)
            self._steps[key] = TrainingStep(model, optimizer, built.config.train, built.device, variant.precision)
        return self._steps[key]
