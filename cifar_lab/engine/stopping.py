"""When a run has its best weights and when it ends early: pure bookkeeping on numbers."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from cifar_lab.config import TrainConfig


@dataclass
class Stopper:
    """The best epoch so far, patience and convergence.

    The best weights are those of the strictly best ``monitor``; patience counts epochs since the
    monitor was better than its last mark by more than ``train.min_delta``. NaN is never better.

    Attributes:
        best: Best value of the monitor; None before the first.
        best_epoch: Its epoch, counted from 1; 0 before the first.
        mark: Value that patience compares with.
        mark_epoch: Epoch of that value.
        losses: ``train_loss`` of the last two convergence windows.
        reason: Why the run ends early; empty while it goes on.
    """

    best: float | None = None
    best_epoch: int = 0
    mark: float | None = None
    mark_epoch: int = 0
    losses: list[float] = field(default_factory=list)
    reason: str = ""

    def copy(self) -> "Stopper":
        """One of its own, to be judged with and kept or dropped."""
        return replace(self, losses=list(self.losses))

    def see(self, epoch: int, values: Mapping[str, float | None], config: TrainConfig) -> bool:
        """Take in some columns of an epoch's row; each column is shown once per epoch.

        Args:
            epoch: Counted from 1.
            values: Such as ``{"train_loss": 0.4}``; None where not measured.
            config: ``monitor``, ``patience_epochs``, ``min_delta`` and the convergence keys are read.

        Returns:
            Whether this is the best epoch so far.
        """
        loss = values.get("train_loss")
        if loss is not None and config.convergence_epochs > 0:
            self._converge(loss, config)
        value = values.get(config.monitor)
        if config.monitor not in values:
            return False
        sign = 1.0 if config.monitor.endswith("accuracy") else -1.0
        is_best = self._better(value, self.best, sign, 0.0)
        if is_best:
            self.best, self.best_epoch = value, epoch
        if self._better(value, self.mark, sign, config.min_delta):
            self.mark, self.mark_epoch = value, epoch
        waited = epoch - self.mark_epoch
        if config.patience_epochs > 0 and waited >= config.patience_epochs and not self.reason:
            since = f"since epoch {self.mark_epoch}" if self.mark_epoch else "than nothing"
            self.reason = f"{config.monitor} is no better {since} (train.patience_epochs={config.patience_epochs})"
        return is_best

    def state_dict(self) -> dict[str, Any]:
        """Everything, as JSON can hold it."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a saved state; every entry must be there."""
        for f in fields(self):
            setattr(self, f.name, state[f.name])

    @staticmethod
    def _better(value: float | None, than: float | None, sign: float, by: float) -> bool:
        if value is None or not math.isfinite(value):
            return False
        return than is None or sign * (value - than) > by

    def _converge(self, loss: float, config: TrainConfig) -> None:
        """Compare the mean loss of the last W epochs with that of the W before."""
        window = config.convergence_epochs
        self.losses = [*self.losses, loss][-2 * window :]
        if len(self.losses) < 2 * window or self.reason:
            return
        before, now = sum(self.losses[:window]) / window, sum(self.losses[window:]) / window
        fall = (before - now) / abs(before) if before else 0.0
        if fall < config.convergence_tolerance:
            self.reason = f"train_loss fell by {100 * fall:.2f} % over {window} epochs (train.convergence_epochs={window})"
