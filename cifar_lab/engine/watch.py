"""A loss that is not finite stops the run before the weights change; fp16 may skip only so many steps.

Where the loss is known at once (CPU, MPS) it is read before every step. On CUDA nobody waits: the
epoch's loss sum, which stays NaN or infinite once it is, becomes a flag on the device, and torch's
fused optimisers and our Muon skip their update while the flag is set, so the weights stay at the last
good step. The host hears of it by an asynchronous copy some hundred steps later, and at the latest at
the next checkpoint or epoch end. Others (RMSprop, most of a person's own) cannot skip on the device;
for such a one the host reads the loss before every step on CUDA too, and waits for it.
"""

import math

import torch
from torch import Tensor

from cifar_lab.engine.state import TrainState
from cifar_lab.errors import DivergedError

POLL_STEPS = 200
MAX_SKIPPED_STEPS = 50


def build_watch(state: TrainState) -> "HostWatch":
    """The watch for this device and optimiser."""
    on_device = state.device.type == "cuda" and getattr(state.optimizer, "_step_supports_amp_scaling", False)
    return DeviceWatch(state) if on_device else HostWatch(state)


class HostWatch:
    """Reads the loss before every optimiser step."""

    def __init__(self, state: TrainState):
        self.state = state
        self._fp16 = state.scaler.is_enabled()
        self._one = torch.ones((), device=state.device)
        self._scale = 0.0

    def before_step(self, loss_sum: Tensor) -> None:
        """Look at the epoch's loss sum [] before the optimiser steps.

        Raises:
            DivergedError: If it is not finite.
        """
        total = loss_sum.item()
        if not math.isfinite(total):
            raise _diverged(total, self.state, self.state.progress.step + 1)

    def after_step(self) -> None:
        """Count fp16's skipped steps, after the loss scale was updated: a skip has lowered it.

        Raises:
            DivergedError: After ``MAX_SKIPPED_STEPS`` in a row.
        """
        if not self._fp16:
            return
        scale = self.state.scaler.get_scale()
        progress = self.state.progress
        progress.skipped = progress.skipped + 1 if scale < self._scale else 0
        self._scale = scale
        if progress.skipped >= MAX_SKIPPED_STEPS:
            raise _skipping(self.state)

    def start(self) -> None:
        """Begin an epoch."""
        self._scale = self.state.scaler.get_scale()

    def settle(self, loss_sum: Tensor) -> None:
        """Have the last word before a checkpoint or at an epoch's end; may wait for the device."""

    def end(self) -> None:
        """Leave the optimiser as it was."""


class DeviceWatch(HostWatch):
    """Keeps flag and counts on the device and looks at them without waiting."""

    def __init__(self, state: TrainState):
        super().__init__(state)
        device = state.device
        self._flag = torch.zeros((), device=device)  # 1.0 from the first bad step on: what fused optimisers read
        self._counts = torch.zeros(3, device=device)  # bad steps of this epoch; skipped in a row now; at most so far
        self._bad, self._row, self._most = self._counts.unbind()
        self._difference = torch.zeros((), dtype=torch.float64, device=device)
        self._scale_before = torch.zeros((), device=device)
        self._host = torch.zeros(3, pin_memory=device.type == "cuda")
        self._copied: torch.cuda.Event | None = None
        self._steps = 0

    def start(self) -> None:
        """Begin an epoch: its loss sum starts anew, and so does the count."""
        self._flag.zero_()
        self._counts.zero_()
        self._steps = 0
        self._copied = None
        if self._fp16:
            self._row.fill_(self.state.progress.skipped)
            self._scale_before.copy_(self.state.scaler.scale(self._one))
        else:
            self.state.optimizer.found_inf = self._flag  # pyrefly: ignore

    def before_step(self, loss_sum: Tensor) -> None:
        """Set the flag if the loss sum [] is not finite (x - x is NaN then); every so often look at an older copy of it."""
        torch.sub(loss_sum, loss_sum, out=self._difference)
        torch.ne(self._difference, self._difference, out=self._flag)
        self._bad.add_(self._flag)
        self._steps += 1
        if self._steps % POLL_STEPS == 0:
            self._poll(loss_sum)

    def after_step(self) -> None:
        """Count fp16's skipped steps on the device; a skip has lowered the loss scale."""
        if not self._fp16:
            return
        scale = self.state.scaler.scale(self._one)
        skipped = (scale < self._scale_before).float()
        self._row.add_(1.0).mul_(skipped)
        torch.maximum(self._most, self._row, out=self._most)
        self._scale_before = scale

    def settle(self, loss_sum: Tensor) -> None:
        """Wait for the device and look.

        Raises:
            DivergedError: If a loss was not finite or fp16 skipped too many steps.
        """
        self._judge(self._counts.tolist(), loss_sum, self.state.progress.step)
        self.state.progress.skipped = int(self._row.item())

    def end(self) -> None:
        """Leave the optimiser as it was."""
        if not self._fp16 and hasattr(self.state.optimizer, "found_inf"):
            del self.state.optimizer.found_inf

    def _poll(self, loss_sum: Tensor) -> None:
        if self._copied is not None and self._copied.query():
            self._judge(self._host.tolist(), loss_sum, self._copied_step)
            self._copied = None
        if self._copied is None:
            self._host.copy_(self._counts, non_blocking=True)
            self._copied = torch.cuda.Event()
            self._copied.record(torch.cuda.current_stream(self.state.device))
            self._copied_step = self.state.progress.step + 1

    def _judge(self, counts: list[float], loss_sum: Tensor, step: int) -> None:
        """Raise if the counts, taken at ``step``, say so: here the run ends, so waiting no longer matters."""
        bad, _, most = counts
        if bad > 0:
            raise _diverged(loss_sum.item(), self.state, step - int(bad) + 1)
        if most >= MAX_SKIPPED_STEPS:
            raise _skipping(self.state)


def _diverged(total: float, state: TrainState, step: int) -> DivergedError:
    value = "nan" if math.isnan(total) else "inf"
    epoch = state.progress.epochs_done + 1
    return DivergedError(f"loss is {value} at epoch {epoch} step {step}", hint="try a lower optimizer.lr")


def _skipping(state: TrainState) -> DivergedError:
    epoch, step = state.progress.epochs_done + 1, state.progress.step + 1
    return DivergedError(
        f"gradients overflow fp16: {MAX_SKIPPED_STEPS} steps skipped in a row at epoch {epoch} step {step}",
        hint="try train.precision=bf16 or a lower optimizer.lr",
    )
