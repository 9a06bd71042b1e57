"""Pictures that two sets share almost: the same photograph again, saved anew, brighter, of another tint, or mirrored.

Two pictures are near-duplicates where two correlations of their pixels are high, as they are or with one of them
mirrored: that of the whole, the mean of each channel taken away, is at least ``WHOLE``; and that of the detail, the mean of the
5x5 pixels around taken away, is at least ``DETAIL``. The second one tells the same photograph from another ship below
the same sky. A part of a picture that was cut out, or one that was moved by pixels, is not found.

The search is complete, and quick for all that. With u and v the pixels of two pictures at mean 0 and length 1, the
correlation is 1 - |u - v|^2 / 2. Averaging squares of pixels moves no two pictures apart, so that every pair that is close in
full is as close in small. Small pictures of 8x8 are compared all with all by matrix products, and what comes
through is compared in full.

Reference for search by a lower bound: Faloutsos et al., Fast subsequence matching, SIGMOD 1994, lemma 1.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

WHOLE, DETAIL = 0.9, 0.6
"""Smallest correlations, chosen on CIFAR-10: of 190 test pictures that are found there, two or three show something else."""
VERSION = 1
"""Of method and thresholds together: what another one has found is not taken for what this one finds."""

_SIDE = 8  # pixels of a small picture
_AROUND = 5  # pixels a side whose mean is taken away from the one in the middle
_ROWS = 512  # pictures of the first set compared at once, with 10,000 of the second: 20 MB of products
_FULL = 4096  # pairs compared in full at once
_SLACK = 1e-4  # rounding of float32 sums; a pair that comes through needlessly is compared in full


@dataclass(frozen=True)
class Pair:
    """Two near-duplicates.

    Attributes:
        first: Position in the first set.
        second: Position in the second set.
        whole: Correlation of all pixels, at least ``WHOLE``.
        detail: Correlation of what stands out from its neighborhood, at least ``DETAIL``.
        mirrored: Whether one of them had to be mirrored left to right.
        equal: Whether all bytes are equal (after mirroring).
    """

    first: int
    second: int
    whole: float
    detail: float
    mirrored: bool
    equal: bool


def find_near_duplicates(
    first: Tensor,
    second: Tensor,
    *,
    whole: float = WHOLE,
    detail: float = DETAIL,
    progress: Callable[[int, int], None] | None = None,
) -> list[Pair]:
    """Every pair of near-duplicates, the most similar first.

    Args:
        first: uint8 [N, 3, H, W], such as training images.
        second: uint8 [M, 3, H, W], such as test images.
        whole: Smallest correlation of all pixels, above 0.
        detail: Smallest correlation of the detail.
        progress: Called with (pictures done, of how many).

    Returns:
        One per pair of positions; where both views are close, the closer one by ``detail``.
    """
    if not 0 < whole <= 1:
        raise ValueError(f"whole={whole}; must be above 0, at most 1")
    small, total = _small(first), len(first)
    views = [(second, False), (second.flip(3), True)]
    others = [_small(view) for view, _ in views]
    found: dict[tuple[int, int], Pair] = {}
    for start in range(0, total, _ROWS):
        for (view, mirrored), other in zip(views, others, strict=True):
            rows, columns = _close(small[start : start + _ROWS], other, whole)
            for place in range(0, len(rows), _FULL):
                some = slice(place, place + _FULL)
                for pair in _compare(first, view, rows[some] + start, columns[some], mirrored):
                    key = (pair.first, pair.second)
                    close = pair.whole >= whole and pair.detail >= detail
                    if close and (key not in found or found[key].detail < pair.detail):
                        found[key] = pair
        if progress is not None:
            progress(min(start + _ROWS, total), total)
    return sorted(found.values(), key=lambda pair: (-pair.detail, pair.second, pair.first))


def _unit(images: Tensor) -> Tensor:
    """Pixels at mean 0 and length 1: float32 [N, 3 * H * W]; a picture of one color is all zeros."""
    channels = images.flatten(2).to(torch.float32)
    channels -= channels.mean(dim=2, keepdim=True)
    flat = channels.flatten(1)
    return flat.div_(flat.norm(dim=1, keepdim=True).clamp_(min=1e-6))


def _small(images: Tensor) -> Tensor:
    """Unit pictures averaged over squares and scaled so that distances never grow: float32 [N, D].

    Rows and columns that do not fill a square are left out, which brings pictures nearer, never further.
    """
    side_h, side_w = (min(_SIDE, side) for side in images.shape[2:])
    height, width = (side - side % small for side, small in zip(images.shape[2:], (side_h, side_w), strict=True))
    scale = ((height // side_h) * (width // side_w)) ** 0.5
    parts = []
    for chunk in images.split(_ROWS):
        unit = _unit(chunk).view(chunk.shape)[:, :, :height, :width]
        parts.append(F.avg_pool2d(unit, (height // side_h, width // side_w)).flatten(1).mul_(scale))
    return torch.cat(parts)


def _close(small: Tensor, other: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
    """Positions of pairs whose small pictures are as close as full ones may be: int64 [P] each."""
    # |a - b|^2 <= 2 (1 - t), written as a . b - |a|^2 / 2 - |b|^2 / 2 >= t - 1.
    products = small @ other.T
    products -= small.square().sum(1, keepdim=True) / 2
    near = products >= (threshold - 1 - _SLACK + other.square().sum(1) / 2)
    rows, columns = near.nonzero(as_tuple=True)
    return rows, columns


def _compare(first: Tensor, second: Tensor, rows: Tensor, columns: Tensor, mirrored: bool) -> list[Pair]:
    """Both correlations of every given pair."""
    left, right = first[rows], second[columns]
    equal = (left == right).flatten(1).all(1)
    a, b = left.to(torch.float64), right.to(torch.float64)
    whole = _correlation(*(part - part.mean((2, 3), keepdim=True) for part in (a, b)))
    around = {"kernel_size": _AROUND, "stride": 1, "padding": _AROUND // 2, "count_include_pad": False}
    detail = _correlation(*(part - F.avg_pool2d(part, **around) for part in (a, b)))
    # Pictures of one color have no correlation, and those without detail none of it.
    whole, detail = (torch.where(equal, torch.ones_like(values), values) for values in (whole, detail))
    values = zip(*(part.tolist() for part in (rows, columns, whole, detail, equal)), strict=True)
    return [Pair(row, column, w, d, mirrored, same) for row, column, w, d, same in values]


def _correlation(a: Tensor, b: Tensor) -> Tensor:
    """Cosine of centered pictures [P, 3, H, W]: float64 [P]; 0 where one of them is all zeros."""
    a, b = a.flatten(1), b.flatten(1)
    return ((a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1)).clamp_(min=1e-9)).clamp_(-1.0, 1.0)
