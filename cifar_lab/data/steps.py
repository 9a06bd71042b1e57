"""One operation per image, a different one for each: images are grouped by operation, not visited one by one.

On a CPU the images of a group are brought together, and only they are worked on. On other devices
the size of a group is unknown to the host without waiting for it, so every operation is done to all
images, and each image keeps its own: more work, but none waits. Both give the same bytes.
"""

from collections.abc import Callable, Sequence
from enum import IntEnum

import torch
from torch import Tensor

from cifar_lab.data import geometry, lookup, pixels


class Kind(IntEnum):
    """What is done to an image; the numbers are places in ``OPERATIONS`` and are saved nowhere."""

    IDENTITY = 0
    AFFINE = 1
    BRIGHTNESS = 2
    CONTRAST = 3
    SATURATION = 4
    SHARPNESS = 5
    POSTERIZE = 6
    SOLARIZE = 7
    AUTOCONTRAST = 8
    EQUALIZE = 9
    INVERT = 10
    HUE = 11


Operation = Callable[[Tensor, Tensor], Tensor]

OPERATIONS: dict[Kind, Operation] = {
    Kind.AFFINE: geometry.affine,
    Kind.BRIGHTNESS: lambda images, of: lookup.brightness(images, of[:, 0]),
    Kind.CONTRAST: lambda images, of: lookup.contrast(images, of[:, 0]),
    Kind.SATURATION: lambda images, of: pixels.saturation(images, of[:, 0]),
    Kind.SHARPNESS: lambda images, of: pixels.sharpness(images, of[:, 0]),
    Kind.POSTERIZE: lambda images, of: lookup.posterize(images, of[:, 0]),
    Kind.SOLARIZE: lambda images, of: lookup.solarize(images, of[:, 0]),
    Kind.AUTOCONTRAST: lambda images, of: lookup.autocontrast(images),
    Kind.EQUALIZE: lambda images, of: lookup.equalize(images),
    Kind.INVERT: lambda images, of: lookup.invert(images),
    Kind.HUE: lambda images, of: pixels.hue(images, of[:, 0]),
}
"""Kind -> (images uint8 [B, P, H, W, c], parameters float32 [B, p]) -> new images.

Parameters are the six of the map for ``AFFINE``, otherwise the strength first.
"""


def apply_step(images: Tensor, kinds: Tensor, parameters: Tensor, possible: Sequence[Kind]) -> Tensor:
    """Do to every image what was decided for it.

    Args:
        images: uint8 [B, P, H, W, c]; not written to.
        kinds: int64 [B], values of ``Kind``.
        parameters: float32 [B, p], see ``OPERATIONS``.
        possible: Every kind that may occur in ``kinds``, known without asking the device.

    Returns:
        uint8 [B, P, H, W, c].
    """
    if images.is_cpu:
        return _grouped(images, kinds, parameters)
    return _masked(images, kinds, parameters, possible)


def _grouped(images: Tensor, kinds: Tensor, parameters: Tensor) -> Tensor:
    """Sort by kind, work on each run, sort back: whole images are copied faster than chosen ones are overwritten."""
    order = kinds.argsort()
    sizes = kinds.bincount(minlength=len(Kind)).tolist()
    groups = zip(Kind, images.index_select(0, order).split(sizes), parameters.index_select(0, order).split(sizes), strict=True)
    made = [OPERATIONS[kind](group, of) if kind and len(group) else group for kind, group, of in groups]
    return torch.cat(made).index_select(0, order.argsort())


def _masked(images: Tensor, kinds: Tensor, parameters: Tensor, possible: Sequence[Kind]) -> Tensor:
    for kind in possible:
        if kind:
            chosen = (kinds == kind).view(-1, 1, 1, 1, 1)
            images = torch.where(chosen, OPERATIONS[kind](images, parameters), images)
    return images
