"""The learning rate of every step of a run, before there is one.

A schedule that looks at results has no rates before the run; it is shown twice: for a run that gets better in every epoch,
and for one that never does.
"""

import copy
import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from cifar_lab import storage
from cifar_lab.analysis.rates import save_rates
from cifar_lab.config import Config
from cifar_lab.data.batches import batches_per_epoch
from cifar_lab.data.splits import load_splits
from cifar_lab.engine.fit import steps_per_epoch
from cifar_lab.errors import ConfigError, DataError
from cifar_lab.optim.curves import Schedule
from cifar_lab.optim.optimizers import build_optimizer
from cifar_lab.optim.schedules import build_schedule

MAX_STEPS = 2_000_000
BETTER, WORSE = "always better", "never better"


@dataclass(frozen=True)
class Preview:
    """Rates of a run.

    Attributes:
        name: Of the schedule.
        optimizer: Its name.
        lr: Base learning rate.
        steps_per_epoch: Optimizer steps.
        counted_from: Where that number comes from.
        rates: Case -> a rate for each step; one case without a name where the schedule knows all by itself.
    """

    name: str
    optimizer: str
    lr: float
    steps_per_epoch: int
    counted_from: str
    rates: dict[str, list[float]]

    @property
    def depends_on_the_run(self) -> bool:
        """Whether results of the run change the rates."""
        return len(self.rates) > 1

    def summary(self) -> dict[str, Any]:
        """What `--json` prints: a row per epoch with the rates of its first and its last step in each case."""
        steps = self.steps_per_epoch
        total = len(next(iter(self.rates.values())))
        epochs = [
            {
                "epoch": epoch + 1,
                "first_step": epoch * steps,
                **{
                    case: {"first_lr": rates[epoch * steps], "last_lr": rates[(epoch + 1) * steps - 1]}
                    for case, rates in self.rates.items()
                },
            }
            for epoch in range(total // steps)
        ]
        says = f"schedule={self.name}, optimizer={self.optimizer}, lr {self.lr:g}: {len(epochs)} epochs of {steps:,} steps"
        says += f" ({self.counted_from})"
        if self.depends_on_the_run:
            says += "; it depends on the run's results, both ends of what may happen are shown"
        return {
            "schedule": self.name,
            "optimizer": self.optimizer,
            "lr": self.lr,
            "steps_per_epoch": steps,
            "depends_on_the_run": self.depends_on_the_run,
            "says": says,
            "cases": list(self.rates),
            "epochs": epochs,
        }


def preview(config: Config, steps: int = 0) -> Preview:
    """The learning rate of every step.

    Args:
        config: ``schedule``, ``optimizer``, ``train`` and, to count steps, ``data`` are read.
        steps: Optimizer steps of an epoch; 0: counted from the training images, which must be here.

    Raises:
        ConfigError: A builder refuses a value, or there is nothing to show.
        DataError: The training images are not here.
    """
    if config.train.epochs == 0:
        raise ConfigError("train.epochs=0; a run without epochs has no learning rate")
    counted_from = "as given" if steps else ""
    if not steps:
        steps, counted_from = _count_steps(config)
    total = steps * config.train.epochs
    if total > MAX_STEPS:
        raise ConfigError(f"{total:,} steps are more than are shown, {MAX_STEPS:,}", hint="use fewer epochs or --steps-per-epoch")
    try:
        # Three layers: muon and muon_sgd give their rate to what lies between the first and the last.
        layers = nn.Sequential(*(nn.Linear(2, 2) for _ in range(3)))
        optimizer = build_optimizer(config.optimizer.name, layers, **config.optimizer.settings)
        lr = optimizer.param_groups[0]["lr"]
        schedule = build_schedule(
            config.schedule.name, lr=lr, total_steps=total, steps_per_epoch=steps, **config.schedule.settings
        )
    except ValueError as error:
        raise ConfigError(f"schedule={config.schedule.name}, optimizer={config.optimizer.name}: {error}") from error
    looks = type(schedule).observe is not Schedule.observe
    cases = {BETTER: 1.0, WORSE: -1.0} if looks else {"": 0.0}
    rates = {case: _run(copy.deepcopy(schedule), lr, config, steps, towards) for case, towards in cases.items()}
    return Preview(config.schedule.name, config.optimizer.name, lr, steps, counted_from, rates)


def save_preview(folder: Path, found: Preview, formats: Sequence[str] = ("png",)) -> list[Path]:
    """Write schedule.csv with a row per epoch, schedule_steps.csv with one per step, and schedule.png.

    Returns:
        The files.
    """
    cases = [f" {case}" if case else "" for case in found.rates]
    by_epoch = [["epoch", "first_step", *(f"{when}_lr{case}" for case in cases for when in ("first", "last"))]]
    for row in found.summary()["epochs"]:
        by_epoch.append([row["epoch"], row["first_step"], *(value for case in found.rates for value in row[case].values())])
    by_step = [["step", *(f"lr{case}" for case in cases)]]
    by_step += [list(row) for row in enumerate_rates(found)]
    files = []
    for name, rows in (("schedule.csv", by_epoch), ("schedule_steps.csv", by_step)):
        table = io.StringIO()
        csv.writer(table, lineterminator="\n").writerows(rows)
        storage.write_text(folder / name, table.getvalue())
        files.append(folder / name)
    title = f"schedule={found.name}, optimizer={found.optimizer}, lr {found.lr:g}"
    return files + save_rates(folder, found.rates, found.steps_per_epoch, title=title, formats=formats)


def enumerate_rates(found: Preview) -> list[tuple[Any, ...]]:
    """(step counted from 0, rate in each case) of every step."""
    return [(step, *values) for step, values in enumerate(zip(*found.rates.values(), strict=True))]


def _count_steps(config: Config) -> tuple[int, str]:
    """Optimizer steps of an epoch on the data set as it is here; nothing is downloaded for a look."""
    config.data.download = False
    try:
        images = len(load_splits(config.data).train)
    except DataError as error:
        raise DataError(error.what, hint="--steps-per-epoch N needs no data set") from error
    batches = batches_per_epoch(images, config.train.batch_size, config.train.drop_last)
    if not batches:
        raise ConfigError(
            f"train.drop_last=true with train.batch_size={config.train.batch_size} leaves no batch of {images} images"
        )
    return steps_per_epoch(batches, config.train.accumulation_steps), f"{images:,} training images"


def _run(schedule: Schedule, lr: float, config: Config, steps: int, towards: float) -> list[float]:
    """The rate of every step of a run that gets better (1), worse (-1) or is not looked at (0)."""
    rates: list[float] = []
    for epoch in range(config.train.epochs):
        rates += [lr * schedule(step) for step in range(epoch * steps, (epoch + 1) * steps)]
        if towards:
            schedule.observe(_row(config, epoch, towards))
    return rates


def _row(config: Config, epoch: int, towards: float) -> dict[str, float]:
    """What a schedule sees of an epoch counted from 0, each value twice as good or as bad as the one before."""
    measured = (epoch + 1) % config.train.eval_every_epochs == 0 or epoch + 1 == config.train.epochs
    loss = 2.0 ** (-towards * min(epoch, 500))
    splits = ("train", "val") if measured and config.data.val_fraction > 0 else ("train",)
    return {f"{split}_{key}": value for split in splits for key, value in (("loss", loss), ("accuracy", 1 / loss))}
