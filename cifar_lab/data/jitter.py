"""Color jitter: brightness, contrast, saturation and hue of every image changed by its own amounts, in its own order.

Reference:
    torchvision.transforms.v2.ColorJitter: uniform factors and a random order of the four.
"""

import itertools

import torch
from torch import Tensor

from cifar_lab.config import AugmentConfig
from cifar_lab.data import rng
from cifar_lab.data.steps import Kind, apply_step

_KINDS = (Kind.BRIGHTNESS, Kind.CONTRAST, Kind.SATURATION, Kind.HUE)
_DRAWS = (rng.Draw.JITTER_BRIGHTNESS, rng.Draw.JITTER_CONTRAST, rng.Draw.JITTER_SATURATION, rng.Draw.JITTER_HUE)


def is_on(config: AugmentConfig) -> bool:
    """Whether anything is jittered."""
    return any(strength > 0 for strength in _strengths(config))


def draw_jitter(config: AugmentConfig, *, seed: int, epoch: int, ids: Tensor) -> tuple[Tensor, Tensor]:
    """Decide for every image; a function of (seed, epoch, id) alone.

    Returns:
        The operations in the order they are done in, int64 [N, n], values of ``Kind``, for the n that are on;
        and the amount of each of them, in that order, float32 [N, n]: torchvision's factor less 1, for hue its factor.
    """
    chosen = [(kind, draw, strength) for kind, draw, strength in zip(_KINDS, _DRAWS, _strengths(config), strict=True) if strength]
    amounts = []
    for kind, draw, strength in chosen:
        low = -strength if kind == Kind.HUE else max(-1.0, -strength)  # a factor is at least 0
        amounts.append(rng.uniform(seed, epoch, ids, draw) * (strength - low) + low)
    orders = _whole(list(itertools.permutations(range(len(chosen)))), ids.device)
    order = orders.index_select(0, rng.randint(seed, epoch, ids, rng.Draw.JITTER_ORDER, len(orders)))
    kinds = _whole([kind for kind, _, _ in chosen], ids.device)
    return kinds.index_select(0, order.view(-1)).view(order.shape), torch.stack(amounts, dim=1).gather(1, order)


def jitter(images: Tensor, kinds: Tensor, amounts: Tensor, config: AugmentConfig) -> Tensor:
    """Do what was drawn.

    Args:
        images: uint8 [B, P, H, W, c]; not written to.
        kinds: int64 [B, n], of ``draw_jitter``.
        amounts: float32 [B, n], likewise.
        config: Says what may occur.
    """
    possible = [kind for kind, strength in zip(_KINDS, _strengths(config), strict=True) if strength]
    for kind, amount in zip(kinds.unbind(1), amounts.split(1, dim=1), strict=True):
        images = apply_step(images, kind, amount, possible)
    return images


def _strengths(config: AugmentConfig) -> tuple[float, ...]:
    return config.jitter_brightness, config.jitter_contrast, config.jitter_saturation, config.jitter_hue


def _whole(values: list, device: torch.device) -> Tensor:
    """A small table on the device; the copy is not waited for."""
    return torch.tensor(values).to(device, non_blocking=True)
