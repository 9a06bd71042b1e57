"""Batched augmentation in which every image has its own draw.

Images travel as uint8 [B, P, H, W, c]: P planes of H rows of W pixels of c bytes, either (P, c) =
(1, 3), channels last, or (3, 1), channels first. A row of a crop is then one run of bytes in both
layouts, which is copied whole, and the layout that the model wants is there without a transpose.
No operation here asks the device for a value, so nothing waits for it.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from cifar_lab.config import AugmentConfig
from cifar_lab.data import jitter, rng
from cifar_lab.data.erasing import draw_rectangles, erase_
from cifar_lab.data.policies import Policy
from cifar_lab.data.sets import ImageSet, channel_statistics
from cifar_lab.errors import ConfigError, DataError

_FIXED_STATISTICS = {
    "cifar": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "unit": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
}


@dataclass(frozen=True)
class Draws:
    """Decisions for N images; None where an operation is off.

    Args:
        flip: bool [N], mirror left and right.
        top: int64 [N], first row of the crop in the padded image, 0 to 2 * padding.
        left: int64 [N], first column of it.
        cutout_top: int64 [N], first row of the cut-out square.
        cutout_left: int64 [N], first column of it.
        steps: int64 [N, slots], see ``policies.Policy``.
        jitter_kinds: int64 [N, n], see ``jitter.draw_jitter``.
        jitter_amounts: float32 [N, n], likewise.
        erased: int64 [N, 4], see ``erasing.draw_rectangles``.
    """

    flip: Tensor | None
    top: Tensor | None
    left: Tensor | None
    cutout_top: Tensor | None
    cutout_left: Tensor | None
    steps: Tensor | None = None
    jitter_kinds: Tensor | None = None
    jitter_amounts: Tensor | None = None
    erased: Tensor | None = None

    def take(self, start: int, stop: int) -> "Draws":
        """The decisions for images ``start`` to ``stop`` - 1."""
        return Draws(*(None if part is None else part[start:stop] for part in vars(self).values()))


def normalization(kind: str, train: ImageSet) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of the three channels, as fractions of 255.

    Args:
        kind: ``data.normalize``: cifar, imagenet, half, unit, or data, which measures the training images.
        train: Looked at for ``data`` only.

    Raises:
        DataError: If a channel is the same everywhere, so that it cannot be scaled.
    """
    if kind in _FIXED_STATISTICS:
        return _FIXED_STATISTICS[kind]
    if kind != "data":
        raise ConfigError(f"data.normalize={kind}; must be one of {', '.join((*_FIXED_STATISTICS, 'data'))}")
    mean, std = channel_statistics(train.images)
    if min(std) == 0:
        raise DataError(
            "data.normalize=data: a colour channel is the same in all training pixels", hint="use data.normalize=half"
        )
    return mean, std


_MEANS_NOTHING_WITHOUT: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "crop_padding_mode": ("crop_padding_px", lambda pixels: pixels > 0),
    "randaugment_ops": ("policy", lambda policy: policy == "randaugment"),
    "randaugment_magnitude": ("policy", lambda policy: policy == "randaugment"),
    "erase_min_area": ("erase_probability", lambda chance: chance > 0),
    "erase_max_area": ("erase_probability", lambda chance: chance > 0),
}


def idle_settings(config: AugmentConfig) -> dict[str, str]:
    """Settings that somebody has set and that change nothing, and the one that makes them so."""
    return {
        key: other
        for key, (other, is_on) in _MEANS_NOTHING_WITHOUT.items()
        if getattr(config, key) != getattr(AugmentConfig(), key) and not is_on(getattr(config, other))
    }


def is_augmented(config: AugmentConfig) -> bool:
    """Whether training images are changed at all."""
    plain = AugmentConfig()
    return replace(config, name=plain.name, **{key: getattr(plain, key) for key in idle_settings(config)}) != plain


def check_augment(config: AugmentConfig, height: int, width: int) -> None:
    """Refuse an augmentation that does not fit the pictures.

    Raises:
        ConfigError: With the key, its value and the pictures' size.
    """
    side = min(height, width)
    if config.cutout_px > side:
        raise ConfigError(f"augment.cutout_px={config.cutout_px}; pictures are {width}x{height}, so at most {side}")
    if config.crop_padding_mode == "reflect" and config.crop_padding_px >= side:
        raise ConfigError(
            f"augment.crop_padding_px={config.crop_padding_px} with reflect; pictures are {width}x{height}, so at most {side - 1}"
        )
    # A side is rounded and must be shorter than the picture's.
    largest = (height - 0.5) * (width - 0.5) / (height * width)
    if config.erase_probability > 0 and config.erase_min_area >= largest:
        raise ConfigError(
            f"augment.erase_min_area={config.erase_min_area}; pictures are {width}x{height}, so less than {largest:.2f}"
        )


def draw(
    config: AugmentConfig, *, seed: int, epoch: int, ids: Tensor, height: int, width: int, policy: Policy | None = None
) -> Draws:
    """Decide for every image; a function of (seed, epoch, id) alone.

    Args:
        config: What is on, and how much.
        seed: Of the run.
        epoch: Counted from 0.
        ids: int64 [N].
        height: Of the images, in pixels.
        width: Of the images, in pixels.
        policy: What ``config.policy`` names, built for this size.
    """

    def whole(kind: rng.Draw, high: int) -> Tensor:
        return rng.randint(seed, epoch, ids, kind, high)

    crops, cuts = config.crop_padding_px > 0, config.cutout_px > 0
    key = {"seed": seed, "epoch": epoch, "ids": ids}
    jitter_kinds, jitter_amounts = jitter.draw_jitter(config, **key) if jitter.is_on(config) else (None, None)
    return Draws(
        flip=_flips(config, seed, epoch, ids) if config.flip_probability > 0 else None,
        top=whole(rng.Draw.CROP_TOP, 2 * config.crop_padding_px + 1) if crops else None,
        left=whole(rng.Draw.CROP_LEFT, 2 * config.crop_padding_px + 1) if crops else None,
        cutout_top=whole(rng.Draw.CUTOUT_TOP, height - config.cutout_px + 1) if cuts else None,
        cutout_left=whole(rng.Draw.CUTOUT_LEFT, width - config.cutout_px + 1) if cuts else None,
        steps=policy.draw(**key) if policy else None,
        jitter_kinds=jitter_kinds,
        jitter_amounts=jitter_amounts,
        erased=draw_rectangles(config, **key, height=height, width=width) if config.erase_probability > 0 else None,
    )


def _flips(config: AugmentConfig, seed: int, epoch: int, ids: Tensor) -> Tensor:
    """Which images are mirrored: bool [N].

    Alternating flip is that of arXiv:2404.00498, section 3.6: by chance in the first epoch, then the other way round in
    every other epoch.
    """
    drawn_in = 0 if config.flip_alternating else epoch
    chosen = rng.uniform(seed, drawn_in, ids, rng.Draw.FLIP) < config.flip_probability
    return ~chosen if config.flip_alternating and epoch % 2 else chosen


def flip(images: Tensor, chosen: Tensor) -> Tensor:
    """Mirror the chosen images left to right.

    Args:
        images: uint8 [B, P, H, W, c].
        chosen: bool [B].

    Returns:
        uint8 [B, P, H, W, c], new memory.
    """
    # Choosing by exclusive or, all bits of a byte at once, is vectorised on the CPU; torch.where with
    # a condition that is broadcast is not, and took four times as long.
    every_bit = chosen.to(torch.uint8).mul_(255).view(-1, 1, 1, 1, 1)
    return images.flip(3).bitwise_xor_(images).bitwise_and_(every_bit).bitwise_xor_(images)


def crop(images: Tensor, top: Tensor, left: Tensor, *, padding: int, mode: str) -> Tensor:
    """Pad every image by ``padding`` pixels a side and cut its own window of the old size out.

    Args:
        images: uint8 [B, P, H, W, c].
        top: int64 [B], first row of the window, 0 to 2 * padding.
        left: int64 [B], first column of it.
        padding: Pixels; with ``reflect`` less than a side.
        mode: What the padding holds: ``zero``, that is black, or ``reflect``, the image mirrored at its outermost pixels.

    Returns:
        uint8 [B, P, H, W, c], new memory.
    """
    padded = _pad(images, padding, reflect=mode == "reflect")
    count, planes, rows, columns, pixel = padded.shape
    height, width = images.shape[2:4]
    row_bytes, taken = columns * pixel, width * pixel
    # Every run of bytes as long as a row, wherever it begins: a view, one line per start.
    runs = padded.as_strided((padded.numel() - taken + 1, taken), (1, 1))
    plane = torch.arange(count * planes, device=images.device) * (rows * row_bytes)
    first = plane.view(count, planes) + (top * row_bytes + left * pixel)[:, None]
    starts = first[:, :, None] + torch.arange(height, device=images.device) * row_bytes
    return runs.index_select(0, starts.view(-1)).view(images.shape)


def cutout_(images: Tensor, top: Tensor, left: Tensor, size: int) -> Tensor:
    """Set one square of every normalised image to zero in place: the colour that normalization takes off.

    Args:
        images: float32 [B, P, H, W, c], finite.
        top: int64 [B], first row of the square.
        left: int64 [B], first column of it.
        size: Side of the square in pixels.
    """
    sides = torch.full_like(top, size)
    return erase_(images, torch.stack((top, left, sides, sides), dim=1))


def normalize(images: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Turn bytes into normalised float32: ``images * scale + shift``.

    Args:
        images: uint8 [B, P, H, W, c].
        scale: float32 [P * H * W * c], the channel's scale at every place of an image.
        shift: float32, the same for the shift.

    Returns:
        float32 [B, P, H, W, c].
    """
    # Two rounded steps, not one fused: a vectorised loop and its scalar tail may fuse differently,
    # and an image's value must not depend on where in a batch it lies. Scales as long as an image
    # keep the inner loop long: broadcasting three numbers over channels-last took seven times as long.
    flat = images.view(images.shape[0], -1).to(torch.float32)
    return flat.mul_(scale).add_(shift).view(images.shape)


def _pad(images: Tensor, padding: int, *, reflect: bool) -> Tensor:
    """uint8 [B, P, H + 2 padding, W + 2 padding, c]."""
    count, planes, height, width, pixel = images.shape
    shape = (count, planes, height + 2 * padding, width + 2 * padding, pixel)
    end_row, end_column = padding + height, padding + width
    padded = images.new_empty(shape) if reflect else images.new_zeros(shape)
    padded[:, :, padding:end_row, padding:end_column] = images
    if reflect:
        middle = padded[:, :, padding:end_row]
        middle[:, :, :, :padding] = images[:, :, :, 1 : padding + 1].flip(3)
        middle[:, :, :, end_column:] = images[:, :, :, width - 1 - padding : width - 1].flip(3)
        padded[:, :, :padding] = middle[:, :, 1 : padding + 1].flip(2)
        padded[:, :, end_row:] = middle[:, :, height - 1 - padding : height - 1].flip(2)
    return padded
