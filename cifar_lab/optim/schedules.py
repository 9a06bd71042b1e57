"""Learning-rate schedules by name: typed keywords in, a ``Schedule`` (step -> multiplier) out.

After t updates ``lr * schedule(t)`` equals what torch's scheduler of that kind holds after t calls
of its ``step()``. A warm-up that is longer than the run is cut off with it.
"""

import inspect
import math
import pkgutil
from functools import partial
from typing import Any, Literal

from cifar_lab.optim import SCHEDULE_RESERVED, SCHEDULES
from cifar_lab.optim.checks import require, require_not_negative, require_share
from cifar_lab.optim.curves import (
    Schedule,
    cosine_between,
    cosine_factor,
    line_between,
    one_cycle_factor,
    step_factor,
    triangular_factor,
    warmup_factor,
)
from cifar_lab.optim.plateau import Plateau


def build_schedule(name: str, *, lr: float, total_steps: int, steps_per_epoch: int, **kwargs: Any) -> Schedule:
    """Build the schedule of one row of ``SCHEDULES``.

    Args:
        name: Row of the table; its builder returns a ``Schedule`` or a plain function, step -> multiplier.
        lr: The base learning rate, for keywords given as absolute rates.
        total_steps: Optimiser updates of the whole run.
        steps_per_epoch: Optimiser updates of one epoch.
        **kwargs: The builder's own keywords.

    Raises:
        ValueError: Unknown row, a keyword out of range, or a builder that returns no function.
    """
    require(name in SCHEDULES, "schedule", name, f"one of {', '.join(SCHEDULES)}")
    builder = pkgutil.resolve_name(SCHEDULES[name])
    given = dict(zip(SCHEDULE_RESERVED, (lr, total_steps, steps_per_epoch), strict=True))
    wanted = inspect.signature(builder).parameters
    schedule = builder(**{key: value for key, value in given.items() if key in wanted}, **kwargs)
    if not callable(schedule):
        raise ValueError(f"schedule={name}; {SCHEDULES[name]} must return a function of the step, not {type(schedule).__name__}")
    return schedule if isinstance(schedule, Schedule) else Schedule(schedule)


def constant(*, lr: float, total_steps: int, steps_per_epoch: int, warmup_epochs: float = 0.0) -> Schedule:
    """The base learning rate throughout.

    Args:
        lr: Base learning rate.
        total_steps: Updates of the run.
        steps_per_epoch: Updates of an epoch.
        warmup_epochs: Rise linearly over this many epochs first; 0: off.
    """
    return Schedule(partial(warmup_factor, warmup_steps=_warmup_steps(warmup_epochs, steps_per_epoch)))


def cosine(*, lr: float, total_steps: int, steps_per_epoch: int, eta_min: float = 0.0, warmup_epochs: float = 0.0) -> Schedule:
    """Half a cosine from the base learning rate down to ``eta_min`` at the end of the run.

    Args:
        lr: Base learning rate.
        total_steps: Updates of the run.
        steps_per_epoch: Updates of an epoch.
        eta_min: Learning rate at the end.
        warmup_epochs: Rise linearly over this many epochs first; the cosine then takes the rest of the run; 0: off.

    Reference: Loshchilov and Hutter, 2016, arXiv:1608.03983, equation 5 without restarts.
    """
    _require_rate_up_to("eta_min", eta_min, lr)
    warmup = _warmup_steps(warmup_epochs, steps_per_epoch)
    return Schedule(partial(cosine_factor, warmup_steps=warmup, total_steps=total_steps, floor=_relative(eta_min, lr)))


def step(
    *,
    lr: float,
    total_steps: int,
    steps_per_epoch: int,
    milestones: tuple[float, ...] = (),
    every_epochs: float = 0.0,
    gamma: float = 0.1,
    warmup_epochs: float = 0.0,
) -> Schedule:
    """Multiply the learning rate by ``gamma`` at milestones.

    Without milestones and every_epochs the drops come at a half and three quarters of the run.

    Args:
        lr: Base learning rate.
        total_steps: Updates of the run.
        steps_per_epoch: Updates of an epoch.
        milestones: Epochs at which the rate drops.
        every_epochs: The rate drops every so many epochs; 0: off; not together with milestones.
        gamma: Factor of each drop.
        warmup_epochs: Rise linearly over this many epochs first; 0: off. Milestones count from the run's start.

    Reference: He, Zhang, Ren, Sun, 2015, arXiv:1512.03385, section 4.2, for a half and three quarters.
    """
    require_not_negative(every_epochs=every_epochs, gamma=gamma)
    require(all(m > 0 for m in milestones), "milestones", list(milestones), "epochs above 0")
    require(not (milestones and every_epochs), "every_epochs", every_epochs, "0 where milestones are given")
    if every_epochs:
        count = math.floor(total_steps / (every_epochs * steps_per_epoch)) if steps_per_epoch else 0
        drops = [round(every_epochs * steps_per_epoch * (i + 1)) for i in range(count)]
    elif milestones:
        drops = [round(m * steps_per_epoch) for m in milestones]
    else:
        drops = [total_steps // 2, total_steps * 3 // 4]
    warmup = _warmup_steps(warmup_epochs, steps_per_epoch)
    return Schedule(partial(step_factor, warmup_steps=warmup, drops=tuple(sorted(drops)), gamma=gamma))


def one_cycle(
    *,
    lr: float,
    total_steps: int,
    steps_per_epoch: int,
    warmup_share: float = 0.3,
    warmup_epochs: float = 0.0,
    div_factor: float = 25.0,
    final_div_factor: float = 10000.0,
    anneal: Literal["cos", "linear"] = "cos",
) -> Schedule:
    """Up to the base learning rate, then far down, as torch's ``OneCycleLR`` with momentum left alone.

    Args:
        lr: Base learning rate: the peak.
        total_steps: Updates of the run.
        steps_per_epoch: Updates of an epoch.
        warmup_share: Share of the run that rises.
        warmup_epochs: Length of the rise in epochs instead of a share; 0: use warmup_share.
        div_factor: The first rate is the peak divided by this.
        final_div_factor: The last rate is the first one divided by this.
        anneal: Shape of both slopes.

    Reference: Smith and Topin, 2017, arXiv:1708.07120.
    """
    require(anneal in ("cos", "linear"), "anneal", anneal, "cos or linear")
    for key, value in (("div_factor", div_factor), ("final_div_factor", final_div_factor)):
        require(math.isfinite(value) and value >= 1, key, value, "a finite number, 1 or more")
    rise = _rise_steps(warmup_share, warmup_epochs, total_steps, steps_per_epoch)
    start = 1 / div_factor
    shape = cosine_between if anneal == "cos" else line_between
    return Schedule(
        partial(one_cycle_factor, peak=rise - 1, last=total_steps - 1, start=start, end=start / final_div_factor, between=shape)
    )


def triangular(
    *,
    lr: float,
    total_steps: int,
    steps_per_epoch: int,
    warmup_share: float = 0.2,
    warmup_epochs: float = 0.0,
    start_factor: float = 0.2,
    end_factor: float = 0.0,
) -> Schedule:
    """A straight line up to the base learning rate and a straight line down.

    Args:
        lr: Base learning rate: the peak.
        total_steps: Updates of the run.
        steps_per_epoch: Updates of an epoch.
        warmup_share: Share of the run that rises.
        warmup_epochs: Length of the rise in epochs instead of a share; 0: use warmup_share.
        start_factor: Share of the peak at the first update.
        end_factor: Share of the peak when the run is over, one update after the last.

    Reference: Smith, 2015, Cyclical learning rates, arXiv:1506.01186; one triangle, as in KellerJordan/cifar10-airbench.
    """
    require_share(start_factor=start_factor, end_factor=end_factor)
    peak = math.floor(_rise_steps(warmup_share, warmup_epochs, total_steps, steps_per_epoch))
    return Schedule(partial(triangular_factor, peak=peak, total_steps=total_steps, start=start_factor, end=end_factor))


def plateau(
    *,
    lr: float,
    total_steps: int,
    steps_per_epoch: int,
    monitor: Literal["val_loss", "val_accuracy", "train_loss", "train_accuracy"] = "val_loss",
    factor: float = 0.1,
    patience: int = 10,
    threshold: float = 0.0001,
    cooldown: int = 0,
    min_lr: float = 0.0,
    warmup_epochs: float = 0.0,
) -> Schedule:
    """Multiply the learning rate by ``factor`` when ``monitor`` no longer gets better, as torch's ``ReduceLROnPlateau``.

    Args:
        lr: Base learning rate.
        total_steps: Updates of the run.
        steps_per_epoch: Updates of an epoch.
        monitor: Column of metrics.jsonl that is watched: a loss should fall, an accuracy rise.
        factor: What the rate is multiplied by.
        patience: Evaluations in a row without a better value that are put up with.
        threshold: Relative change that counts as better.
        cooldown: Evaluations after a reduction that are not counted against patience.
        min_lr: The learning rate never falls below this.
        warmup_epochs: Rise linearly over this many epochs first; 0: off.
    """
    require_not_negative(patience=patience, threshold=threshold, cooldown=cooldown)
    require(0.0 < factor < 1.0, "factor", factor, "more than 0 and less than 1")
    _require_rate_up_to("min_lr", min_lr, lr)
    warmup = _warmup_steps(warmup_epochs, steps_per_epoch)
    return Plateau(
        partial(warmup_factor, warmup_steps=warmup),
        lr=lr,
        monitor=monitor,
        factor=factor,
        patience=patience,
        threshold=threshold,
        cooldown=cooldown,
        min_lr=min_lr,
    )


def _warmup_steps(warmup_epochs: float, steps_per_epoch: int) -> int:
    require_not_negative(warmup_epochs=warmup_epochs)
    return round(warmup_epochs * steps_per_epoch)


def _rise_steps(warmup_share: float, warmup_epochs: float, total_steps: int, steps_per_epoch: int) -> float:
    """Length of the rise in steps; not rounded for a share, because torch does not round either."""
    require_share(warmup_share=warmup_share)
    return _warmup_steps(warmup_epochs, steps_per_epoch) if warmup_epochs else warmup_share * total_steps


def _require_rate_up_to(key: str, value: float, lr: float) -> None:
    require(math.isfinite(value) and 0.0 <= value <= lr, key, value, f"0 to the base learning rate {lr}")


def _relative(rate: float, lr: float) -> float:
    """An absolute learning rate as a multiple of the base rate."""
    return rate / lr if rate else 0.0
