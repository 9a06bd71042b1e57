"""Batches of features in place of images, for a model whose features do not change any more."""

from collections.abc import Iterator

import torch
from torch import Tensor

from cifar_lab.data import rng
from cifar_lab.data.batches import Epochs, placement_of


class FeatureBatches(Epochs):
    """What ``Batches`` of a set would give, with each image's features in its place: same order, same batches.

    Args:
        features: [N, D], in the set's order.
        labels: int64 [N].
        batch_size: Rows per batch; the last of an epoch may be smaller.
        device: Where batches are handed out; the features stay in host memory where they are too many for it.
        seed: Of the order.
        shuffle: A new order each epoch; False keeps the order of the set.
        drop_last: Leave out a last, smaller batch.
    """

    def __init__(
        self,
        features: Tensor,
        labels: Tensor,
        *,
        batch_size: int,
        device: torch.device | str = "cpu",
        seed: int = 0,
        shuffle: bool = False,
        drop_last: bool = False,
    ):
        self.num_images = features.shape[0]
        self.batch_size, self.seed, self.shuffle, self.drop_last = batch_size, seed, shuffle, drop_last
        self.device = torch.device(device)
        self.placement = placement_of(features.numel() * features.element_size(), self.device)
        self._home = self.device if self.placement == "device" else torch.device("cpu")
        self._features, self._labels = features.to(self._home), labels.to(self._home)
        if self.placement == "host" and self.device.type == "cuda":
            self._features, self._labels = self._features.pin_memory(), self._labels.pin_memory()

    def iterate(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Hand out the batches of an epoch.

        Args:
            epoch: Counted from 0; with the seed it decides the order.
            start: Batches of this epoch that are done already.

        Yields:
            Features [B, D] and labels int64 [B].

        Raises:
            ValueError: If the epoch has no such place.
        """
        self._require_place(start)
        order = rng.permutation(self.seed, epoch, self.num_images, self._home) if self.shuffle else None
        for batch in range(start, len(self)):
            rows = slice(batch * self.batch_size, min((batch + 1) * self.batch_size, self.num_images))
            chosen = rows if order is None else order[rows]
            yield self._features[chosen].to(self.device), self._labels[chosen].to(self.device)
