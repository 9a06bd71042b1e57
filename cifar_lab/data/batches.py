"""The path of images to the model: a whole set as bytes on the device, batches made from it there.

There are no loader processes. A chunk of many batches is gathered, augmented and normalised at
once and handed out in slices, so that the cost of a batch is that of two slices even for the
smallest networks. Order and augmentation are functions of (seed, epoch, image): a batch is the
same whatever came before it, and an epoch can be entered at any batch.
"""

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from cifar_lab.config import AugmentConfig
from cifar_lab.data import augment as ops
from cifar_lab.data import mixing, rng
from cifar_lab.data.erasing import erase_
from cifar_lab.data.jitter import jitter
from cifar_lab.data.policies import build_policy
from cifar_lab.data.sets import ImageSet
from cifar_lab.errors import ConfigError, DataError

# Bytes of images worked on at once. On a CPU a chunk and its float copy stay in the cache (more took
# up to ten times as long per image); with a policy each of its operations gets a small part of a chunk, and larger
# chunks were faster. A GPU wants few, large kernels.
_CHUNK_BYTES = {"cpu": 2**20, "policy on cpu": 3 * 2**20, "other": 12 * 2**20}
_SHARE_OF_FREE_MEMORY = 0.25


def batches_per_epoch(num_images: int, batch_size: int, drop_last: bool) -> int:
    """How many batches a set falls into; ``drop_last`` leaves a last, smaller one out."""
    return num_images // batch_size if drop_last else -(-num_images // batch_size)


class Epochs:
    """How a set falls into batches, whatever the batches hold."""

    num_images: int
    batch_size: int
    drop_last: bool

    def __len__(self) -> int:
        """Batches per epoch."""
        return batches_per_epoch(self.num_images, self.batch_size, self.drop_last)

    def _require_place(self, start: int) -> None:
        """Refuse a place that an epoch has not."""
        if not 0 <= start <= len(self):
            raise ValueError(f"start={start}; must be 0 to {len(self)}, the batches of an epoch")


class Batches(Epochs):
    """Batches of one image set, epoch after epoch.

    Args:
        image_set: Images and labels; must not be empty.
        batch_size: Images per batch; the last of an epoch may be smaller.
        mean: Three channel means as fractions of 255; see ``augment.normalization``.
        std: Three standard deviations, likewise.
        device: Where batches are made and handed out.
        seed: Of order and augmentation.
        augment: What happens to each image; None for evaluation.
        shuffle: A new order each epoch; False keeps the order of the set.
        drop_last: Leave out a last, smaller batch.
        channels_last: Memory layout of the batches.
        input_size: Pixels a side that the model sees; 0: as stored. Resized per batch, after augmentation.
        chunk_images: Images worked on at once; 0: by the device. It changes speed only, never a value.
        num_classes: K of the soft targets that mixup and cutmix make; not looked at otherwise.

    Raises:
        DataError: If the set is empty or gives no batch.
        ConfigError: If an augmentation does not fit the pictures.
    """

    def __init__(
        self,
        image_set: ImageSet,
        *,
        batch_size: int,
        mean: Sequence[float],
        std: Sequence[float],
        device: torch.device | str = "cpu",
        seed: int = 0,
        augment: AugmentConfig | None = None,
        shuffle: bool = False,
        drop_last: bool = False,
        channels_last: bool = True,
        input_size: int = 0,
        chunk_images: int = 0,
        num_classes: int = 0,
    ):
        self.num_images = len(image_set)
        if self.num_images == 0:
            raise DataError("a set without images gives no batches")
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size}; must be 1 or more")
        if drop_last and self.num_images < batch_size:
            raise ConfigError(
                f"train.drop_last=true with train.batch_size={batch_size} leaves no batch of {self.num_images} images",
                hint=f"use train.batch_size={self.num_images} or less, or train.drop_last=false",
            )
        self.batch_size, self.seed, self.shuffle, self.drop_last = batch_size, seed, shuffle, drop_last
        self.device, self.augment = torch.device(device), augment
        self.channels_last, self.input_size = channels_last, input_size
        self._height, self._width = image_set.images.shape[2:]
        if augment is not None:
            ops.check_augment(augment, self._height, self._width)
        self._mixes, self._num_classes = mixing.is_on(augment), num_classes
        if self._mixes and num_classes < 1:
            raise ValueError(f"num_classes={num_classes}; mixup and cutmix need the number of classes")
        self._policy = build_policy(augment, self._height, self._width, self.device) if augment is not None else None
        self.placement = placement_of(image_set.images.numel(), self.device)
        home = self.device if self.placement == "device" else torch.device("cpu")
        self._images = _in_layout(image_set.images, channels_last).to(home)
        self._pins = self.placement == "host" and self.device.type == "cuda"
        if self._pins:
            self._images = self._images.pin_memory()
        self._labels = image_set.labels.to(self.device)
        self._ids = image_set.ids.to(self.device)
        scale = torch.tensor([1 / (255 * s) for s in std], dtype=torch.float64)
        shift = torch.tensor([-m / s for m, s in zip(mean, std, strict=True)], dtype=torch.float64)
        self._scale, self._shift = (self._per_place(values) for values in (scale, shift))
        self._chunk = batch_size * max(1, (chunk_images or self._default_chunk()) // batch_size)

    def iterate(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Hand out the batches of an epoch.

        Args:
            epoch: Counted from 0; with the seed it decides order and augmentation.
            start: Batches of this epoch that are done already.

        Yields:
            Images float32 [B, 3, H, W], normalised, and labels int64 [B], with mixup or cutmix targets
            float32 [B, K] instead, on the device. They are views of memory that is never written again.

        Raises:
            ValueError: If the epoch has no such place.
        """
        self._require_place(start)
        order = self._order(epoch)
        labels = self._labels if order is None else self._labels[order]
        draws, mix = self._draws(epoch, order), self._mix(epoch, order)
        # Host memory is gathered by the host, which needs the order there.
        gather = order if self.placement == "device" else self._host_order(epoch)
        end = len(self) * self.batch_size if self.drop_last else self.num_images
        for first in range(start * self.batch_size, end, self._chunk):
            last = min(first + self._chunk, end)
            images = self._make(self._gather(gather, first, last), draws.take(first, last) if draws else None)
            targets = labels[first:last]
            if mix is not None:
                part = mix.take(first, last)
                images, targets = mixing.mix_images(images, part), mixing.mix_targets(targets, part, self._num_classes)
            images = self._shown(images)
            for batch, of_batch in zip(images.split(self.batch_size), targets.split(self.batch_size), strict=True):
                yield self._resized(batch), of_batch

    def _order(self, epoch: int) -> Tensor | None:
        return rng.permutation(self.seed, epoch, self.num_images, self.device) if self.shuffle else None

    def _host_order(self, epoch: int) -> Tensor | None:
        return rng.permutation(self.seed, epoch, self.num_images) if self.shuffle else None

    def _draws(self, epoch: int, order: Tensor | None) -> ops.Draws | None:
        """Decisions for the whole epoch at once, in its order: a few small operations instead of a few per chunk."""
        if self.augment is None:
            return None
        ids = self._ids if order is None else self._ids[order]
        size = {"height": self._height, "width": self._width}
        return ops.draw(self.augment, seed=self.seed, epoch=epoch, ids=ids, policy=self._policy, **size)

    def _mix(self, epoch: int, order: Tensor | None) -> mixing.Mix | None:
        """Who is mixed with whom and how, for the whole epoch; batches keep to themselves."""
        if self.augment is None or not self._mixes:
            return None
        ids = self._ids if order is None else self._ids[order]
        key = {"seed": self.seed, "epoch": epoch, "ids": ids, "height": self._height, "width": self._width}
        return mixing.draw_mix(self.augment, batch_size=self.batch_size, **key)

    def _gather(self, order: Tensor | None, first: int, last: int) -> Tensor:
        """uint8 [n, P, H, W, c] on the device."""
        if order is None:
            chosen = self._images[first:last]
        elif self.placement == "device":
            return self._images.index_select(0, order[first:last])
        else:
            chosen = torch.empty((last - first, *self._images.shape[1:]), dtype=torch.uint8, pin_memory=self._pins)
            torch.index_select(self._images, 0, order[first:last], out=chosen)
        return chosen.to(self.device, non_blocking=True)

    def _make(self, images: Tensor, draws: ops.Draws | None) -> Tensor:
        """Augment and normalise: uint8 [n, P, H, W, c] -> float32 [n, P, H, W, c]."""
        if self.augment is None or draws is None:
            return ops.normalize(images, self._scale, self._shift)
        if draws.flip is not None:
            images = ops.flip(images, draws.flip)
        if draws.top is not None and draws.left is not None:
            padding, mode = self.augment.crop_padding_px, self.augment.crop_padding_mode
            images = ops.crop(images, draws.top, draws.left, padding=padding, mode=mode)
        if self._policy is not None and draws.steps is not None:
            images = self._policy.apply(images, draws.steps)
        if draws.jitter_kinds is not None and draws.jitter_amounts is not None:
            images = jitter(images, draws.jitter_kinds, draws.jitter_amounts, self.augment)
        made = ops.normalize(images, self._scale, self._shift)
        if draws.cutout_top is not None and draws.cutout_left is not None:
            made = ops.cutout_(made, draws.cutout_top, draws.cutout_left, self.augment.cutout_px)
        return made if draws.erased is None else erase_(made, draws.erased)

    def _shown(self, images: Tensor) -> Tensor:
        """As the model sees it, a view: [n, P, H, W, c] -> [n, 3, H, W]."""
        return images.squeeze(1).permute(0, 3, 1, 2) if self.channels_last else images.squeeze(4)

    def _resized(self, images: Tensor) -> Tensor:
        size = (self.input_size, self.input_size)
        if self.input_size == 0 or images.shape[2:] == size:
            return images
        larger = F.interpolate(images, size=size, mode="bilinear", antialias=True, align_corners=False)
        return larger.contiguous(memory_format=torch.channels_last if self.channels_last else torch.contiguous_format)

    def _per_place(self, values: Tensor) -> Tensor:
        """Spread one number per channel over an image's places in the stored layout: float32 [P * H * W * c]."""
        spread = values.view(3, 1, 1).expand(3, self._height, self._width)
        spread = spread.permute(1, 2, 0) if self.channels_last else spread
        return spread.reshape(-1).to(torch.float32).to(self.device)

    def _default_chunk(self) -> int:
        bytes_per_image = 3 * self._height * self._width
        on_cpu = "cpu" if self._policy is None else "policy on cpu"
        return _CHUNK_BYTES[on_cpu if self.device.type == "cpu" else "other"] // bytes_per_image


def _in_layout(images: Tensor, channels_last: bool) -> Tensor:
    """uint8 [N, 3, H, W] as [N, 1, H, W, 3] or [N, 3, H, W, 1], contiguous."""
    return images.permute(0, 2, 3, 1).contiguous().unsqueeze(1) if channels_last else images.unsqueeze(4)


def placement_of(size: int, device: torch.device) -> str:
    """``device`` if ``size`` bytes take at most a quarter of its free memory, else ``host``."""
    if device.type == "cpu":
        return "device"
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
    elif device.type == "mps":
        free = torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    else:
        raise ConfigError(f"device={device}; must be cpu, cuda or mps")
    return "device" if size <= _SHARE_OF_FREE_MEMORY * free else "host"
