"""Mixup and cutmix: every image of a batch blended with, or patched from, another one of the same batch.

Each image has its own share and its own rectangle. Partners go around in a ring whose order is
drawn, so nobody is its own partner in a batch of two or more. What is drawn depends on seed, epoch
and which images share the batch: not on their order, nor on how many batches are made at once.

Reference:
    H. Zhang et al., mixup, arXiv:1710.09412. S. Yun et al., CutMix, arXiv:1905.04899.
    L. Devroye, Random variate generation in one line of code, WSC 1996: the symmetric beta distribution.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from cifar_lab.config import AugmentConfig
from cifar_lab.data import rng
from cifar_lab.data.erasing import inside


@dataclass(frozen=True)
class Mix:
    """Decisions for N images, in the order of the epoch.

    Args:
        partner: int64 [N], place in the epoch of the image that each is mixed with.
        share: float32 [N], the image's own share of the targets; its partner has the rest.
        blend: float32 [N], the image's own share of every pixel, 1 for images with a rectangle; None without mixup.
        rectangles: int64 [N, 4], top, left, height, width of what the partner covers, empty for blended images;
            None without cutmix.
    """

    partner: Tensor
    share: Tensor
    blend: Tensor | None
    rectangles: Tensor | None

    def take(self, start: int, stop: int) -> "Mix":
        """The decisions for places ``start`` to ``stop`` - 1, whole batches; partners counted from ``start``."""
        optional = (None if values is None else values[start:stop] for values in (self.blend, self.rectangles))
        return Mix(self.partner[start:stop] - start, self.share[start:stop], *optional)


def is_on(config: AugmentConfig | None) -> bool:
    """Whether targets become soft."""
    return config is not None and (config.mixup_alpha > 0 or config.cutmix_alpha > 0)


def draw_mix(config: AugmentConfig, *, seed: int, epoch: int, ids: Tensor, batch_size: int, height: int, width: int) -> Mix:
    """Decide for every image of an epoch; with both kinds on, every second image gets each.

    Args:
        config: At least one of ``mixup_alpha`` and ``cutmix_alpha`` is above 0.
        seed: Of the run.
        epoch: Counted from 0.
        ids: int64 [N], in the order of the epoch.
        batch_size: Images per batch; the last may be smaller.
        height: Of the images, in pixels.
        width: Of the images, in pixels.
    """
    key = {"seed": seed, "epoch": epoch, "ids": ids}
    partner = _partners(rng.random_bits(seed, epoch, ids, rng.Draw.MIX_PARTNER), batch_size)
    if config.cutmix_alpha == 0:
        share = symmetric_beta(config.mixup_alpha, **key)
        return Mix(partner, share, share, None)
    rectangles, cut_share = _cut(symmetric_beta(config.cutmix_alpha, **key), height, width, **key)
    if config.mixup_alpha == 0:
        return Mix(partner, cut_share, None, rectangles)
    is_cut = rng.uniform(seed, epoch, ids, rng.Draw.MIX_KIND) < 0.5
    blend = symmetric_beta(config.mixup_alpha, **key)
    return Mix(
        partner,
        torch.where(is_cut, cut_share, blend),
        torch.where(is_cut, torch.ones_like(blend), blend),
        rectangles * is_cut[:, None],
    )


def mix_images(images: Tensor, mix: Mix) -> Tensor:
    """Blend and patch.

    Args:
        images: float32 [B, P, H, W, c], normalised, finite; overwritten.
        mix: Decisions for these images.

    Returns:
        float32 [B, P, H, W, c].
    """
    others = images.index_select(0, mix.partner)
    lines, other_lines = (values.view(*images.shape[:3], -1) for values in (images, others))
    keep = torch.ones((), device=images.device) if mix.blend is None else mix.blend.view(-1, 1, 1, 1)
    if mix.rectangles is not None:
        keep = keep - inside(images, mix.rectangles)  # 1 - 1 in a rectangle; the blended have none
    return lines.mul_(keep).add_(other_lines.mul_(1 - keep)).view(images.shape)


def mix_targets(labels: Tensor, mix: Mix, num_classes: int) -> Tensor:
    """Each image's label and its partner's by their shares: labels int64 [B] -> targets float32 [B, K]."""
    one_hot = torch.eye(num_classes, device=labels.device)
    own, other = one_hot.index_select(0, labels), one_hot.index_select(0, labels.index_select(0, mix.partner))
    return own.mul_(mix.share[:, None]).add_(other.mul_(1 - mix.share[:, None]))


def symmetric_beta(alpha: float, *, seed: int, epoch: int, ids: Tensor) -> Tensor:
    """Beta(alpha, alpha) for every image: float32 [N] in [0, 1].

    Exact for every alpha above 0, without rejection: with U, V uniform and a random sign,
    1/2 +- 1/2 / sqrt(1 + 1 / ((U ** (-1 / alpha) - 1) cos(2 pi V) ** 2)).
    """
    radius = rng.uniform(seed, epoch, ids, rng.Draw.MIX_RADIUS)
    angle = rng.uniform(seed, epoch, ids, rng.Draw.MIX_ANGLE).mul_(2 * math.pi)
    sign = (rng.uniform(seed, epoch, ids, rng.Draw.MIX_SIGN) < 0.5).to(torch.float32).mul_(2).sub_(1)
    # expm1 keeps the digits that large alphas live from; an infinite square gives 0 or 1, as it should.
    square = radius.log_().div_(-alpha).expm1_().mul_(angle.cos_().square_())
    return square.reciprocal_().add_(1).rsqrt_().mul_(sign).mul_(0.5).add_(0.5)


def _partners(keys: Tensor, batch_size: int) -> Tensor:
    """Within each batch the next one in the order of the keys, the first after the last: int64 [N] of int64 [N]."""
    count = keys.shape[0]
    whole = count - count % batch_size
    parts = [_rings(keys[:whole].view(-1, batch_size))] if whole else []
    if whole < count:
        parts.append(_rings(keys[whole:].view(1, -1)) + whole)
    return torch.cat(parts)


def _rings(keys: Tensor) -> Tensor:
    """int64 [G * B], each one's successor in its row, as a place in the flattened [G, B]."""
    order = keys.argsort(dim=1, stable=True)
    following = torch.empty_like(order).scatter_(1, order, order.roll(-1, dims=1))
    first = torch.arange(0, keys.numel(), keys.shape[1], device=keys.device)
    return (following + first[:, None]).view(-1)


def _cut(own: Tensor, height: int, width: int, *, seed: int, epoch: int, ids: Tensor) -> tuple[Tensor, Tensor]:
    """Rectangles of about ``1 - own`` of the area around uniform centers, cut off at the edges, and what they leave.

    Returns:
        int64 [N, 4]: top, left, height, width; and float32 [N], the share of the area outside.
    """
    half = (1 - own).sqrt_().mul_(0.5)
    spans = []
    for draw, size in ((rng.Draw.MIX_TOP, height), (rng.Draw.MIX_LEFT, width)):
        center, reach = rng.randint(seed, epoch, ids, draw, size), (half * size).to(torch.int64)
        start = (center - reach).clamp_(min=0)
        spans.append((start, (center + reach).clamp_(max=size) - start))
    (top, rows), (left, columns) = spans
    share = 1 - (rows * columns).to(torch.float32) / (height * width)
    return torch.stack((top, left, rows, columns), dim=1), share
