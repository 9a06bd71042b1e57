"""A frozen model's features of a whole set, computed once."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from cifar_lab.engine.predict import BatchSource, mixed_precision


@torch.no_grad()
def compute_features(
    model: nn.Module,
    batches: BatchSource,
    *,
    device: torch.device,
    precision: str,
    stop: Callable[[], None] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Tensor, Tensor]:
    """What ``model.embed`` says of every image, in the set's order.

    Args:
        model: Its features are in evaluation mode, whatever mode it is in itself.
        batches: Not shuffled, and all of the set.
        device: Where model and batches are.
        precision: ``fp32``, ``bf16`` or ``fp16``.
        stop: Called at each batch; raises to give up.
        progress: Called with images done and images in all.

    Returns:
        Features [N, D], in the precision in which the head would get them, and labels int64 [N], in host memory.
    """
    amp = mixed_precision(precision, device)
    features, labels, done = torch.empty(0), torch.empty(batches.num_images, dtype=torch.int64), 0
    for images, targets in batches.iterate(0):
        if stop is not None:
            stop()
        with amp:
            found: Tensor = model.embed(images)  # pyrefly: ignore
        if done == 0:  # in one piece: to join them at the end would need the memory twice
            features = torch.empty(batches.num_images, *found.shape[1:], dtype=found.dtype)
        rows = slice(done, done + found.shape[0])
        features[rows], labels[rows] = found.cpu(), targets.cpu()
        done = rows.stop
        if progress is not None:
            progress(done, batches.num_images)
    return features, labels
