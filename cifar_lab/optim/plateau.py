"""Reduce on plateau: the one schedule that looks at the results."""

from collections.abc import Callable, Mapping
from typing import Any

from cifar_lab.optim.curves import Schedule

_SMALLEST_CHANGE = 1e-8  # torch's eps: a reduction by less than this much of the rate itself is not made


class Plateau(Schedule):
    """Multiply the rate by ``factor`` after more than ``patience`` evaluations without a better value.

    Args:
        warmup: step -> multiplier of a warm-up, on top of the reductions.
        lr: Base learning rate, which makes ``min_lr`` relative.
        monitor: Column to look at; an accuracy should rise, everything else fall.
        factor: Of one reduction.
        patience: Evaluations without a better value that are put up with.
        threshold: Relative change that counts as better.
        cooldown: Evaluations after a reduction that are not counted.
        min_lr: Lowest learning rate.
    """

    def __init__(
        self,
        warmup: Callable[[int], float],
        *,
        lr: float,
        monitor: str,
        factor: float,
        patience: int,
        threshold: float,
        cooldown: int,
        min_lr: float,
    ):
        super().__init__(warmup)
        self.lr, self.min_lr, self.factor = lr, min_lr, factor
        self.monitor, self.threshold = monitor, threshold
        self.patience, self.cooldown = patience, cooldown
        self._reduced_lr = lr
        self._best: float | None = None  # none yet; not infinity, which JSON has no word for
        self._bad_evaluations = 0
        self._cooldown_left = 0

    def __call__(self, step: int) -> float:
        """The multiplier for the update that follows ``step`` updates."""
        return super().__call__(step) * (self._reduced_lr / self.lr if self.lr else 1.0)

    def observe(self, row: Mapping[str, Any]) -> None:
        """Count one evaluation; an epoch in which ``monitor`` was not measured is not counted.

        NaN counts as an evaluation that is not better.
        """
        if row.get(self.monitor) is None:
            return
        value = float(row[self.monitor])
        if self._is_better(value):
            self._best, self._bad_evaluations = value, 0
        else:
            self._bad_evaluations += 1
        if self._cooldown_left > 0:
            self._cooldown_left -= 1
            self._bad_evaluations = 0
        if self._bad_evaluations > self.patience:
            self._reduce()

    def state_dict(self) -> dict[str, Any]:
        """The reduced rate and the counters."""
        return {
            "reduced_lr": self._reduced_lr,
            "best": self._best,
            "bad_evaluations": self._bad_evaluations,
            "cooldown_left": self._cooldown_left,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a ``state_dict``.

        Raises:
            ValueError: An entry is missing or foreign.
        """
        super().load_state_dict(state)
        self._reduced_lr = state["reduced_lr"]
        self._best = state["best"]
        self._bad_evaluations = state["bad_evaluations"]
        self._cooldown_left = state["cooldown_left"]

    def _is_better(self, value: float) -> bool:
        if value != value:  # NaN is never better, not even than nothing
            return False
        if self._best is None:
            return True
        if self.monitor.endswith("accuracy"):
            return value > self._best * (1 + self.threshold)
        return value < self._best * (1 - self.threshold)

    def _reduce(self) -> None:
        lower = max(self._reduced_lr * self.factor, self.min_lr)
        if self._reduced_lr - lower > _SMALLEST_CHANGE:
            self._reduced_lr = lower
        self._cooldown_left = self.cooldown
        self._bad_evaluations = 0
