"""Test pictures made worse in five ways at five severities each, on the device where they are asked for.

These are cifar-lab's own corruptions, version ``VERSION``: of the kind that CIFAR-10-C has (Hendrycks and Dietterich, 2019,
arXiv:1903.12261), with other definitions and strengths, so that numbers of the two are not to be compared. The official
files are read by ``cifar10c``. Noise is a function of (seed, image id, place), the same draw at every severity.
"""

import io
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from cifar_lab.data import rng
from cifar_lab.data.batches import Batches
from cifar_lab.data.sets import ImageSet

NAME, VERSION = "cifar-lab corruptions", 1
SEVERITIES = 5
_TRUNCATE = 4.0  # standard deviations after which the bell is cut off, as scipy does


def gaussian_noise(images: Tensor, strength: float, ids: Tensor, seed: int) -> Tensor:
    """Add normal noise of its own to every byte.

    Args:
        images: uint8 [B, 3, H, W].
        strength: Standard deviation as a share of 255.
        ids: int64 [B], keys of the draws.
        seed: Of the draws.

    Returns:
        uint8 [B, 3, H, W].
    """
    count, size = images.shape[0], images[0].numel()
    places = (ids[:, None] * size + torch.arange(size, device=images.device)).view(-1)
    bits = rng.random_bits(seed, 0, places, rng.Draw.CORRUPTION_NOISE)
    # Box and Muller, 1958: two uniform numbers of 24 bits, from the two ends of one draw, make a normal one.
    radius = ((((bits >> 40) & 0xFFFFFF) + 1).to(torch.float32) * 2.0**-24).log_().mul_(-2.0).sqrt_()
    angle = (bits & 0xFFFFFF).to(torch.float32) * (2.0**-24 * 2 * math.pi)
    normal = (radius * angle.cos_()).view(count, *images.shape[1:])
    return _bytes(images.to(torch.float32).add_(normal, alpha=255 * strength))


def gaussian_blur(images: Tensor, strength: float, ids: Tensor, seed: int) -> Tensor:
    """Blur by a bell of ``strength`` pixels standard deviation; the outermost pixels go on beyond the edge."""
    radius = int(_TRUNCATE * strength + 0.5)
    bell = torch.exp(-0.5 * (torch.arange(-radius, radius + 1, dtype=torch.float64) / strength) ** 2)
    bell = (bell / bell.sum()).to(images.device, torch.float32)
    blurred = F.pad(images.to(torch.float32), (radius,) * 4, mode="replicate")
    for kernel in (bell.view(1, 1, -1, 1), bell.view(1, 1, 1, -1)):
        blurred = F.conv2d(blurred, kernel.expand(3, 1, *kernel.shape[2:]), groups=3)
    return _bytes(blurred)


def contrast(images: Tensor, strength: float, ids: Tensor, seed: int) -> Tensor:
    """Scale the distance of every channel from its own mean over the picture by ``strength``."""
    values = images.to(torch.float32)
    mean = values.mean(dim=(2, 3), keepdim=True)
    return _bytes((values - mean) * strength + mean)


def brightness(images: Tensor, strength: float, ids: Tensor, seed: int) -> Tensor:
    """Add ``strength``, a share of 255, to every byte."""
    return _bytes(images.to(torch.float32) + 255 * strength)


def jpeg(images: Tensor, strength: float, ids: Tensor, seed: int) -> Tensor:
    """Save as JPEG of quality ``strength``, colors at half resolution, and read it again: by Pillow, always on the CPU."""
    made = np.empty((len(images), *images.shape[2:], 3), dtype=np.uint8)
    for place, picture in enumerate(images.permute(0, 2, 3, 1).cpu().numpy()):
        stream = io.BytesIO()
        Image.fromarray(picture).save(stream, format="JPEG", quality=int(strength), subsampling=2)
        made[place] = np.asarray(Image.open(stream))
    return torch.from_numpy(made).permute(0, 3, 1, 2).contiguous().to(images.device)


@dataclass(frozen=True)
class Corruption:
    """One way of making pictures worse.

    Attributes:
        function: (images uint8 [B, 3, H, W], strength, ids int64 [B], seed) -> uint8 [B, 3, H, W].
        strengths: One for each severity, from 1 to 5.
        unit: What a strength is.
    """

    function: Callable[[Tensor, float, Tensor, int], Tensor]
    strengths: tuple[float, ...]
    unit: str


CORRUPTIONS: dict[str, Corruption] = {
    "gaussian_noise": Corruption(gaussian_noise, (0.02, 0.04, 0.06, 0.08, 0.10), "standard deviation, share of 255"),
    "gaussian_blur": Corruption(gaussian_blur, (0.4, 0.6, 0.8, 1.0, 1.3), "standard deviation, pixels"),
    "contrast": Corruption(contrast, (0.75, 0.6, 0.45, 0.3, 0.15), "factor"),
    "brightness": Corruption(brightness, (0.05, 0.1, 0.15, 0.2, 0.3), "added, share of 255"),
    "jpeg": Corruption(jpeg, (80, 65, 50, 35, 20), "quality"),
}
"""Version 1; another definition or strength takes another version."""


def corrupt(images: Tensor, name: str, severity: int, ids: Tensor, seed: int = 0) -> Tensor:
    """Make pictures worse.

    Args:
        images: uint8 [B, 3, H, W], on any device.
        name: Row of ``CORRUPTIONS``.
        severity: 1 to 5.
        ids: int64 [B] on the same device, keys of the random draws.
        seed: Of the random draws.

    Returns:
        uint8 [B, 3, H, W] on the same device, new memory.
    """
    if name not in CORRUPTIONS:
        raise ValueError(f"corruption={name}; must be one of {', '.join(CORRUPTIONS)}")
    if not 1 <= severity <= SEVERITIES:
        raise ValueError(f"severity={severity}; must be 1 to {SEVERITIES}")
    kind = CORRUPTIONS[name]
    return kind.function(images, kind.strengths[severity - 1], ids, seed)


class CorruptedBatches(Batches):
    """Batches for evaluation whose pictures are made worse on the device, before they are normalized and resized.

    Args:
        image_set: Clean pictures.
        name: Row of ``CORRUPTIONS``.
        severity: 1 to 5.
        corruption_seed: Of the random draws.
        **settings: Those of ``Batches``, without ``augment`` and ``shuffle``.
    """

    def __init__(self, image_set: ImageSet, *, name: str, severity: int, corruption_seed: int = 0, **settings: Any):
        super().__init__(image_set, **settings)
        if self.shuffle or self.augment is not None:
            raise ValueError("corrupted pictures are for evaluation: neither shuffled nor augmented")
        self._corruption, self._severity, self._corruption_seed = name, severity, corruption_seed

    def _gather(self, order: Tensor | None, first: int, last: int) -> Tensor:
        clean = self._shown(super()._gather(order, first, last))
        made = corrupt(clean, self._corruption, self._severity, self._ids[first:last], self._corruption_seed)
        return made.permute(0, 2, 3, 1).contiguous().unsqueeze(1) if self.channels_last else made.contiguous().unsqueeze(4)


def _bytes(values: Tensor) -> Tensor:
    """Rounded to the nearest byte."""
    return values.round_().clamp_(0, 255).to(torch.uint8)
