"""Optimisers that want each step's gradient a second time, at weights of their own choice, as SAM does.

The two passes of a step see the same function: the same images, the same dropout masks (torch's generators are put back
to where the first pass began), and batch statistics of their own batch. Running statistics and all other buffers are
those that the first pass left: the second one is at weights that no step ever reaches. Loss and accuracy of an epoch
are the first pass's too. Accumulation works: a group of batches is kept and walked through twice.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from cifar_lab.engine.generators import set_torch_states, torch_states
from cifar_lab.engine.predict import Sums
from cifar_lab.errors import ConfigError

Forward = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Images and labels -> logits [B, K] and mean loss []."""


@runtime_checkable
class TwoPass(Protocol):
    """What makes an optimiser one of two passes, beside being one of torch's."""

    def perturbed(self) -> AbstractContextManager[None]:
        """Within this the weights are where the gradient counts; afterwards they are exactly as before."""
        ...


class SecondPass:
    """The second pass of every step of an epoch.

    Args:
        optimizer: Asked for ``perturbed``, and to clear the first pass's gradients.
        model: Its buffers are kept.
        forward: The same as in the first pass.
        device: Whose generators the model draws from.
    """

    def __init__(self, optimizer: TwoPass, model: nn.Module, forward: Forward, device: torch.device):
        self._optimizer, self._model, self._forward, self._device = optimizer, model, forward, device
        self._group: list[tuple[Tensor, Tensor, float]] = []
        self._draws: dict[str, Tensor] = {}

    def remember(self, images: Tensor, labels: Tensor, share: float) -> None:
        """Keep a batch before its first pass; ``share`` is its weight in the step's loss."""
        if not self._group:
            self._draws = torch_states(self._device)
        self._group.append((images, labels, share))

    def run(self, sums: Sums) -> None:
        """Replace the gradients of the remembered batches by those at the perturbed weights.

        A loss there that is not finite must stop the step as one of the first pass does: it spoils ``sums``.
        """
        buffers = list(self._model.buffers())
        kept = [buffer.clone() for buffer in buffers]
        set_torch_states(self._draws, self._device)
        with self._optimizer.perturbed():
            self._model.zero_grad(set_to_none=True)
            for images, labels, share in self._group:
                _, loss = self._forward(images, labels)
                sums.spoil(loss)
                (loss * share).backward()
        with torch.no_grad():
            for buffer, value in zip(buffers, kept, strict=True):
                buffer.copy_(value)
        self._group.clear()


def build_second_pass(
    optimizer: torch.optim.Optimizer, model: nn.Module, forward: Forward, device: torch.device
) -> SecondPass | None:
    """The second pass of an optimiser that wants one."""
    return SecondPass(optimizer, model, forward, device) if isinstance(optimizer, TwoPass) else None


def precision_for(optimizer: torch.optim.Optimizer, precision: str) -> str:
    """What ``auto`` means with this optimiser: two passes and fp16's loss scale do not go together, so fp32 there."""
    return "fp32" if precision == "fp16" and isinstance(optimizer, TwoPass) else precision


def check_precision(optimizer: torch.optim.Optimizer, precision: str) -> None:
    """Refuse fp16 for two passes.

    A gradient that overflows, as the loss scale's search makes them do, leaves no direction to perturb the weights in:
    the second loss would be NaN at weights that are fine.

    Raises:
        ConfigError: Two passes with fp16.
    """
    if precision_for(optimizer, precision) != precision:
        raise ConfigError(
            f"train.precision=fp16; must be bf16 or fp32 for {type(optimizer).__name__}, which needs two gradients a step",
            hint="set train.precision=fp32, or train.precision=bf16 where the device has it",
        )
