"""Schedules as functions of the step: what to multiply every group's base learning rate by.

``step`` is the number of optimiser updates made so far, 0 for the first one.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any


class Schedule:
    """A pure function of the step, with the three methods that a schedule with a memory needs.

    Args:
        multiplier: step -> what to multiply the base learning rate by.
    """

    def __init__(self, multiplier: Callable[[int], float]):
        self._multiplier = multiplier

    def __call__(self, step: int) -> float:
        """The multiplier for the update that follows ``step`` updates."""
        return self._multiplier(step)

    def observe(self, row: Mapping[str, Any]) -> None:
        """Look at the metrics of a finished epoch, one row of metrics.jsonl; most schedules do not."""

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint has to hold beside the step: plain JSON values."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a ``state_dict``.

        Raises:
            ValueError: The state has other entries than this schedule's own.
        """
        if state.keys() != self.state_dict().keys():
            raise ValueError(f"schedule state has {sorted(state)}, expected {sorted(self.state_dict())}")


def warmup_factor(step: int, *, warmup_steps: int) -> float:
    """(step + 1) / warmup_steps, then 1: the last step of the warm-up has the full rate."""
    return min(1.0, (step + 1) / warmup_steps) if warmup_steps else 1.0


def cosine_factor(step: int, *, warmup_steps: int, total_steps: int, floor: float) -> float:
    """Warm-up, then from 1 down to ``floor`` at ``total_steps``."""
    if step < warmup_steps:
        return warmup_factor(step, warmup_steps=warmup_steps)
    progress = min(1.0, (step - warmup_steps) / max(1, total_steps - warmup_steps))
    return cosine_between(1.0, floor, progress)


def step_factor(step: int, *, warmup_steps: int, drops: tuple[int, ...], gamma: float) -> float:
    """``gamma`` to the power of the drops so far."""
    return warmup_factor(step, warmup_steps=warmup_steps) * gamma ** sum(step >= drop for drop in drops)


def one_cycle_factor(
    step: int, *, peak: float, last: int, start: float, end: float, between: Callable[[float, float, float], float]
) -> float:
    """From ``start`` to 1 at step ``peak`` (which need not be whole, as in torch) and to ``end`` at step ``last``."""
    if step < peak:
        return between(start, 1.0, step / peak)
    if last <= peak:
        return 1.0
    return between(1.0, end, min(1.0, (step - peak) / (last - peak)))


def triangular_factor(step: int, *, peak: int, total_steps: int, start: float, end: float) -> float:
    """From ``start`` to 1 at step ``peak`` and to ``end`` at ``total_steps``."""
    if step < peak:
        return line_between(start, 1.0, step / peak)
    return line_between(1.0, end, min(1.0, (step - peak) / max(1, total_steps - peak)))


def cosine_between(start: float, end: float, share: float) -> float:
    """Half a cosine wave: ``start`` at share 0, ``end`` at share 1."""
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2


def line_between(start: float, end: float, share: float) -> float:
    """A straight line: ``start`` at share 0, ``end`` at share 1."""
    return start + (end - start) * share
