"""Shear, translation and rotation: every image sampled through its own inverse affine map, at the nearest pixel.

The maps and their rounding are torchvision's: where a sampling point falls exactly between two
pixels, float32 decides, so the steps below are taken in the order of ``affine_grid`` and
``grid_sample``, each a multiply and add that is rounded once. What comes from outside is black.

Reference:
    torchvision.transforms.v2.functional: affine, rotate.
"""

import math

import torch
from torch import Tensor

from cifar_lab.data.pixels import multiply_add


def inverse_map(
    height: int,
    width: int,
    *,
    angle: float = 0.0,
    translate: tuple[float, float] = (0.0, 0.0),
    shear: tuple[float, float] = (0.0, 0.0),
    center: tuple[float, float] = (0.0, 0.0),
) -> tuple[float, ...]:
    """The map from a place in the new image to the place it is taken from.

    Args:
        height: Of the image, in pixels.
        width: Of the image, in pixels.
        angle: Degrees, clockwise.
        translate: Pixels to the right and down.
        shear: Degrees along x and along y.
        center: What stays where it is, in pixels from the middle of the image.

    Returns:
        a, b, c, d, e, f, float32 values: x' = ax + by + c and y' = dx + ey + f, with x and y in pixels from
        the middle, and x' and y' from -1 at one edge of the image to 1 at the other.
    """
    turn, shear_x, shear_y = math.radians(angle), math.radians(shear[0]), math.radians(shear[1])
    # The forward matrix without its scale, as torchvision factors it: rotation, shear along y, shear along x; determinant 1.
    a, c = math.cos(turn - shear_y) / math.cos(shear_y), math.sin(turn - shear_y) / math.cos(shear_y)
    b, d = -(a * math.tan(shear_x) + math.sin(turn)), math.cos(turn) - c * math.tan(shear_x)
    moved_x, moved_y = center[0] + translate[0], center[1] + translate[1]
    rows = (
        (d, -b, center[0] - d * moved_x + b * moved_y),
        (-c, a, center[1] + c * moved_x - a * moved_y),
    )
    matrix = torch.tensor(rows, dtype=torch.float32) / torch.tensor([[0.5 * width], [0.5 * height]])
    return tuple(matrix.view(-1).tolist())


def affine(images: Tensor, maps: Tensor) -> Tensor:
    """Sample every image through its own map.

    Args:
        images: uint8 [B, P, H, W, c], at most 2**24 pixels each.
        maps: float32 [B, 6], of ``inverse_map``.

    Returns:
        uint8 [B, P, H, W, c], new memory.
    """
    count, num_planes, height, width, pixel = images.shape
    area = height * width
    rows, columns = _sources(maps[:, 3:], height, width, height), _sources(maps[:, :3], height, width, width)
    is_inside = (columns >= 0).logical_and_(columns < width).logical_and_(rows >= 0).logical_and_(rows < height)
    places = rows.mul_(width).add_(columns).to(torch.int64).view(count, 1, area)
    planes = torch.arange(0, count * num_planes * area, area, device=images.device).view(count, num_planes, 1)
    # One black pixel behind all others stands for everything outside.
    black = torch.zeros(1, pixel, dtype=torch.uint8, device=images.device)
    chosen = torch.where(is_inside.view(count, 1, area), places + planes, count * num_planes * area)
    return torch.cat((images.view(-1, pixel), black)).index_select(0, chosen.view(-1)).view(images.shape)


def _sources(map_row: Tensor, height: int, width: int, size: int) -> Tensor:
    """The row (or column) that every pixel is taken from, as a whole number, also outside: float32 [B, H, W].

    Args:
        map_row: float32 [B, 3], factors of x and of y and the constant.
        height: Of the images.
        width: Of the images.
        size: The height for rows, the width for columns.
    """
    x = torch.arange(width, dtype=torch.float32, device=map_row.device) - 0.5 * (width - 1)
    y = torch.arange(height, dtype=torch.float32, device=map_row.device) - 0.5 * (height - 1)
    of_x, of_y, constant = (part.view(-1, 1, 1) for part in map_row.unbind(1))
    place = multiply_add(x * of_x, y[:, None], of_y).add_(constant).add_(1.0)
    # From -1 .. 1 over the edges to -0.5 .. size - 0.5.
    return torch.add(place.new_full((), -0.5), place, alpha=0.5 * size).round_()
