"""Random erasing: one rectangle of its own size and place in every chosen image, set to the mean color.

Reference:
    Z. Zhong et al., Random Erasing Data Augmentation, arXiv:1708.04896, as torchvision.transforms.v2.RandomErasing does it.
"""

import math

import torch
from torch import Tensor

from cifar_lab.config import AugmentConfig
from cifar_lab.data import rng

ATTEMPTS = 10  # at a rectangle that fits; without one the image stays whole
RATIOS = (0.3, 3.3)  # of height to width


def draw_rectangles(config: AugmentConfig, *, seed: int, epoch: int, ids: Tensor, height: int, width: int) -> Tensor:
    """Decide for every image; a function of (seed, epoch, id) alone.

    Returns:
        int64 [N, 4]: top, left, height and width of the rectangle; height 0 where nothing is erased.
    """
    rows, columns = torch.zeros_like(ids), torch.zeros_like(ids)
    # From the last attempt to the first, so that the first that fits is the one that stays.
    for attempt in reversed(range(ATTEMPTS)):
        area, ratio = (rng.uniform(seed, epoch, ids, draw + attempt) for draw in (rng.Draw.ERASE_AREA, rng.Draw.ERASE_RATIO))
        tall, wide = sides(config, area, ratio, height, width)
        fits = (tall < height) & (wide < width)
        rows, columns = torch.where(fits, tall, rows), torch.where(fits, wide, columns)
    chosen = rng.uniform(seed, epoch, ids, rng.Draw.ERASE_CHANCE) < config.erase_probability
    rows = rows * chosen
    top = rng.randint_each(seed, epoch, ids, rng.Draw.ERASE_TOP, height + 1 - rows)
    left = rng.randint_each(seed, epoch, ids, rng.Draw.ERASE_LEFT, width + 1 - columns)
    return torch.stack((top, left, rows, columns), dim=1)


def sides(config: AugmentConfig, area: Tensor, ratio: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Height and width of a rectangle, int64 [N] each, in pixels, from two uniform numbers in [0, 1)."""
    low, high = (math.log(edge) for edge in RATIOS)
    pixels = (config.erase_min_area + (config.erase_max_area - config.erase_min_area) * area) * (height * width)
    aspect = (low + (high - low) * ratio).exp()
    return (pixels * aspect).sqrt().round().to(torch.int64), (pixels / aspect).sqrt().round().to(torch.int64)


def erase_(images: Tensor, rectangles: Tensor) -> Tensor:
    """Set a rectangle of every normalised image to zero, the mean color, in place.

    Args:
        images: float32 [B, P, H, W, c], finite.
        rectangles: int64 [B, 4], see ``draw_rectangles``.
    """
    lines = images.view(*images.shape[:3], -1)
    # x - x * 1 is exactly 0, x - x * 0 exactly x
    return lines.addcmul_(lines, inside(images, rectangles), value=-1).view(images.shape)


def inside(images: Tensor, rectangles: Tensor) -> Tensor:
    """1 within each image's rectangle, else 0.

    Args:
        images: [B, P, H, W, c], only looked at for its shape.
        rectangles: int64 [B, 4]: top, left, height, width.

    Returns:
        float32 [B, 1, H, W * c], for images seen as lines of bytes.
    """
    top, left, rows, columns = rectangles.unsqueeze(2).unbind(1)
    of_rows = _within(top, rows, images.shape[2])
    of_columns = _within(left, columns, images.shape[3]).repeat_interleave(images.shape[4], dim=1)
    return of_rows[:, None, :, None] * of_columns[:, None, None, :]


def _within(start: Tensor, size: Tensor, length: int) -> Tensor:
    """float32 [B, length]: 1 from ``start`` on for ``size`` places, both [B, 1]."""
    place = torch.arange(length, device=start.device) - start
    return ((place >= 0) & (place < size)).to(torch.float32)
