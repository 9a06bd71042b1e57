"""Operations on bytes one by one, as tables: what each of 256 values becomes, per image or per image and channel.

A table costs a twelfth of the picture that it is applied to, and all images are looked up at once.
Every table equals what torchvision's function makes of each value in one uint8 image, bit for bit:
it is computed by the same rounded steps. Images are uint8 [B, P, H, W, c] as ``augment`` describes
them; none is written to, and no operation waits for the device.

Reference:
    torchvision.transforms.v2.functional: adjust_brightness, adjust_contrast, posterize, solarize,
    autocontrast, equalize, invert.
"""

import torch
from torch import Tensor

from cifar_lab.data.pixels import gray, multiply_add


def look_up(images: Tensor, tables: Tensor) -> Tensor:
    """Replace every byte by its entry.

    Args:
        images: uint8 [B, P, H, W, c].
        tables: uint8 [B, 1, 256], or [B, 3, 256] with one for each channel.

    Returns:
        uint8 [B, P, H, W, c], new memory.
    """
    return _read(tables, _entries(images, tables.shape[1])).view(images.shape)


def brightness(images: Tensor, amount: Tensor) -> Tensor:
    """Scale by ``1 + amount``; amount float32 [B], at least -1."""
    return look_up(images, _bytes(_levels(images) * _each(1 + amount)))


def contrast(images: Tensor, amount: Tensor) -> Tensor:
    """Scale the distance from the image's mean gray by ``1 + amount``; amount float32 [B], at least -1."""
    mean = gray(images).sum(1).div_(images.shape[2] * images.shape[3])
    return look_up(images, _bytes(multiply_add(_levels(images) * _each(1 + amount), _each(mean), _each(-amount))))


def posterize(images: Tensor, step: Tensor) -> Tensor:
    """Keep the highest bits; step float32 [B] is 2 ** (8 - bits)."""
    return look_up(images, (_levels(images) / _each(step)).floor_().mul_(_each(step)).to(torch.uint8))


def solarize(images: Tensor, threshold: Tensor) -> Tensor:
    """Invert what is at least ``threshold``, float32 [B] in 0 to 255."""
    levels = _levels(images)
    return look_up(images, torch.where(levels >= _each(threshold), 255 - levels, levels).to(torch.uint8))


def invert(images: Tensor) -> Tensor:
    """255 less every byte."""
    return images.bitwise_not()


def autocontrast(images: Tensor) -> Tensor:
    """Stretch every channel to 0 to 255; one of a single value stays as it is."""
    low, high = (edge.view(-1, 3, 1).to(torch.float32) for edge in images.flatten(2, 3).aminmax(dim=2))
    is_flat = low == high
    scale = torch.where(is_flat, torch.ones_like(low), (high - low).mul_(1 / 255))
    low = torch.where(is_flat, torch.zeros_like(low), low)
    return look_up(images, _bytes((_levels(images) - low).div_(scale)))


def equalize(images: Tensor) -> Tensor:
    """Spread the values of every channel evenly, by PIL's whole-number arithmetic."""
    entries = _entries(images, 3)
    counts = torch.zeros(images.shape[0] * 3 * 256, dtype=torch.int32, device=images.device)
    one = torch.ones(1, dtype=torch.int32, device=images.device)
    counts = counts.scatter_add_(0, entries.view(-1), one.expand(entries.numel())).view(-1, 3, 256)
    up_to = counts.cumsum(2, dtype=torch.int32)
    total = images.shape[2] * images.shape[3]
    # Pixels below the largest value there is: the largest sum that is not yet all of them.
    step = (up_to * (up_to < total)).amax(2, keepdim=True).div(255, rounding_mode="floor")
    spread = up_to.sub_(counts).add_(step // 2).div_(step.clamp(min=1), rounding_mode="floor").clamp_(max=255)
    tables = torch.where(step == 0, torch.arange(256, dtype=torch.int32, device=images.device), spread)
    return _read(tables.to(torch.uint8), entries).view(images.shape)


def _entries(images: Tensor, num_tables: int) -> Tensor:
    """Where each byte's entry lies in tables [B, num_tables, 256]: int64 [B, P * H * W * c]."""
    count, num_planes, height, width, pixel = images.shape
    entries = images.view(count, -1).to(torch.int64)
    if num_tables == 3:
        # A pattern as long as an image: adding three numbers along a short last dimension is many times slower.
        channel = torch.arange(0, 3 * 256, 256, device=images.device).view(num_planes, 1, pixel)
        entries.add_(channel.expand(num_planes, height * width, pixel).reshape(-1))
    return entries.add_(torch.arange(0, count * num_tables * 256, num_tables * 256, device=images.device)[:, None])


def _read(tables: Tensor, entries: Tensor) -> Tensor:
    return tables.reshape(-1).index_select(0, entries.view(-1))


def _levels(images: Tensor) -> Tensor:
    """0 to 255: float32 [256]."""
    return torch.arange(256, dtype=torch.float32, device=images.device)


def _each(values: Tensor) -> Tensor:
    """[B] as [B, 1, 1], one number for each image's table."""
    return values.view(-1, 1, 1)


def _bytes(values: Tensor) -> Tensor:
    return values.clamp_(0, 255).to(torch.uint8)
