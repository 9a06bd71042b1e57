"""A model's answers on a set: all logits once, to be measured many times, or only loss and accuracy."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cifar_lab.engine.guards import check_still
from cifar_lab.errors import DataError
from cifar_lab.runtime import DTYPES


class BatchSource(Protocol):
    """What ``data.Batches`` offers the loop."""

    batch_size: int
    num_images: int

    def __len__(self) -> int:
        """Batches per epoch."""
        ...

    def iterate(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Images float32 [B, 3, H, W] and labels int64 [B] of an epoch counted from 0, from batch ``start`` on.

        Mixed training images come with soft targets float32 [B, K] instead.
        """
        ...


@dataclass(frozen=True)
class Predictions:
    """Answers of one model on one set, in the set's order, in host memory.

    Attributes:
        logits: float32 [N, K].
        labels: int64 [N].
    """

    logits: Tensor
    labels: Tensor


class Sums:
    """Loss and correct answers of an epoch, added up on the device without waiting for it.

    Args:
        device: Where the batches are. Sums are float64, on MPS, which has none, float32.
        loss: Loss summed over images so far.
        correct: Correct answers so far.
    """

    def __init__(self, device: torch.device, loss: float = 0.0, correct: int = 0):
        dtype = torch.float32 if device.type == "mps" else torch.float64
        self.loss = torch.tensor(loss, dtype=dtype, device=device)
        self.correct = torch.tensor(correct, dtype=torch.int64, device=device)

    def add(self, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Take in a batch: its mean loss [], logits [B, K] and labels [B], or soft targets [B, K]: the largest counts."""
        self.loss.add_(loss.detach(), alpha=labels.shape[0])
        self.correct.add_((logits.argmax(1) == (labels if labels.ndim == 1 else labels.argmax(1))).sum())

    def spoil(self, loss: Tensor) -> None:
        """Make the sum NaN where a loss [] that is not counted is not finite; a finite one leaves it as it is."""
        self.loss.add_(loss.detach() * 0.0)

    def read(self) -> tuple[float, int]:
        """Wait for the device; summed loss and correct answers."""
        return self.loss.item(), int(self.correct.item())


def mixed_precision(precision: str, device: torch.device) -> torch.autocast:
    """The context that a forward pass runs in; off for fp32. It can be entered again and again."""
    enabled = precision != "fp32"
    return torch.autocast(device.type, dtype=DTYPES[precision] if enabled else None, enabled=enabled)


def check_plain(batches: BatchSource) -> None:
    """Refuse batches for evaluation that are augmented at random or shuffled: another epoch must give the same ones.

    Raises:
        DataError: If the first batch of epoch 0 and that of epoch 1 differ.
    """
    (images, labels), (again, labels_again) = (next(iter(batches.iterate(epoch))) for epoch in (0, 1))
    if not torch.equal(labels, labels_again):
        raise DataError("the batches for evaluation are shuffled or mixed", hint="make them with shuffle=False and no augment")
    if not torch.equal(images, again):
        raise DataError("random augmentation on the batches for evaluation", hint="make them without augment")


VIEWS: dict[str, tuple[tuple[float, int], ...]] = {
    "none": (),
    "flip": ((1.0, 0),),
    "flip_shift": ((0.5, 0), (0.25, -1), (0.25, 1)),
}
"""Test-time augmentation -> weight of a picture moved by so many pixels right and down and of its mirror image together.

``flip_shift`` is that of airbench (arXiv:2404.00498, section 3.5): six views.
"""


def sum_of_views(model: nn.Module, images: Tensor, views: Sequence[tuple[float, int]]) -> Tensor:
    """Logits float32 [B, K] of images [B, 3, H, W], averaged over views; without views those of the images alone."""
    if not views:
        return model(images).float()
    weighted: list[Tensor] = []
    for weight, shift in views:
        moved = _moved(images, shift)
        weighted += [model(seen).float() * (weight / 2) for seen in (moved, moved.flip(-1))]
    return torch.stack(weighted).sum(0)


def _moved(images: Tensor, shift: int) -> Tensor:
    """Pictures moved right and down by ``shift`` pixels, negative: left and up; what comes in is mirrored at the edge."""
    if shift == 0:
        return images
    size, height, width = abs(shift), *images.shape[2:]
    padded = F.pad(images, (size, size, size, size), mode="reflect")
    return padded[:, :, size - shift : size - shift + height, size - shift : size - shift + width]


@torch.no_grad()
def predict(
    model: nn.Module,
    batches: BatchSource,
    *,
    device: torch.device,
    precision: str,
    tta: str = "none",
    stop: Callable[[], None] | None = None,
) -> Predictions:
    """Ask the model about every image, in the set's order.

    Args:
        model: Asked in evaluation mode; the mode of each of its modules is put back.
        batches: Not shuffled.
        device: Where model and batches are.
        precision: ``fp32``, ``bf16`` or ``fp16``.
        tta: Test-time augmentation, a row of ``VIEWS``.
        stop: Called at each batch; raises to give up.

    Raises:
        DataError: If the batches are shuffled or augmented at random.
        ConfigError: If the model's answers depend on the batch or on chance.
    """
    if tta not in VIEWS:
        raise ValueError(f"tta={tta}; must be one of {', '.join(VIEWS)}")
    check_plain(batches)
    amp = mixed_precision(precision, device)
    logits: list[Tensor] = []
    labels: list[Tensor] = []
    with _evaluating(model):
        for images, targets in batches.iterate(0):
            if stop is not None:
                stop()
            with amp:
                logits.append(sum_of_views(model, images, VIEWS[tta]))
            labels.append(targets)
    return Predictions(torch.cat(logits).cpu(), torch.cat(labels).cpu())


def mean_loss(logits: Tensor, labels: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Mean cross-entropy [], never in half precision: a CPU's autocast sees to that, CUDA's does not with class indices.

    Args:
        logits: [B, K].
        labels: int64 [B] or soft targets [B, K].
        label_smoothing: 0 to 1.
    """
    if logits.dtype in (torch.float16, torch.bfloat16):
        logits = logits.float()
    return F.cross_entropy(logits, labels, label_smoothing=label_smoothing)


@torch.no_grad()
def evaluate(
    model: nn.Module,
    batches: BatchSource,
    *,
    device: torch.device,
    precision: str,
    stop: Callable[[], None] | None = None,
) -> tuple[float, float]:
    """Mean cross-entropy and accuracy over a set; the device is read once, at the end."""
    amp = mixed_precision(precision, device)
    sums, count = Sums(device), 0
    with _evaluating(model):
        for images, labels in batches.iterate(0):
            if stop is not None:
                stop()
            with amp:
                logits = model(images)
                loss = mean_loss(logits, labels)
            sums.add(loss, logits, labels)
            count += labels.shape[0]
    loss_sum, correct = sums.read()
    return loss_sum / count, correct / count


@contextlib.contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        check_still(model)
        yield
        check_still(model)  # forward may have changed it
    finally:
        for module, training in modes:
            module.training = training
