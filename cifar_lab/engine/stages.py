"""Models that are trained in stages: which parameters learn in which epoch is the model's to say, when is the loop's."""

from typing import Protocol, runtime_checkable

from torch import nn


@runtime_checkable
class Staged(Protocol):
    """A model of which parts are trained in some epochs only."""

    def begin_epoch(self, epoch: int) -> None:
        """Set which parameters need a gradient in an epoch counted from 1; called again when the epoch is resumed."""
        ...


def begin_epoch(model: nn.Module, epoch: int) -> None:
    """Let a model that is trained in stages know its epoch, counted from 1."""
    if isinstance(model, Staged):  # pyrefly: ignore
        model.begin_epoch(epoch)
