"""Randomness as a function of (seed, epoch, image, draw): no state to save, nothing to restore.

Each (seed, epoch, draw) names one SplitMix64 stream, and an image's id is its place in it. Only
64-bit integer arithmetic is used, which wraps the same way everywhere, so the CPU and every GPU
draw the same numbers, whatever the batch size, the order or the epoch a run was resumed in.

Reference:
    G. Steele, D. Lea, C. Flood, Fast Splittable Pseudorandom Number Generators, OOPSLA 2014.
"""

from enum import IntEnum

import torch
from torch import Tensor

_GOLDEN = 0x9E3779B97F4A7C15
_MIX1 = 0xBF58476D1CE4E5B9
_MIX2 = 0x94D049BB133111EB
_MASK64 = 2**64 - 1


class Draw(IntEnum):
    """What a number is drawn for; a new kind takes a new value, so that old runs repeat exactly."""

    ORDER = 0
    FLIP = 1
    CROP_TOP = 2
    CROP_LEFT = 3
    CUTOUT_TOP = 4
    CUTOUT_LEFT = 5
    JITTER_ORDER = 6
    JITTER_BRIGHTNESS = 7
    JITTER_CONTRAST = 8
    JITTER_SATURATION = 9
    JITTER_HUE = 10
    ERASE_CHANCE = 11
    ERASE_TOP = 12
    ERASE_LEFT = 13
    MIX_PARTNER = 14
    MIX_KIND = 15
    MIX_RADIUS = 16
    MIX_ANGLE = 17
    MIX_SIGN = 18
    MIX_TOP = 19
    MIX_LEFT = 20
    SPLIT_VAL = 100
    SPLIT_TEST = 101
    SUBSET = 102
    LABEL_NOISE = 103
    LABEL_NEW = 104
    LONG_TAIL = 105
    CORRUPTION_NOISE = 106
    # Each of the following is the first of 20, one for each slot of a policy or each attempt at a rectangle.
    POLICY_CHOICE = 200
    POLICY_LEVEL = 220
    POLICY_SIGN = 240
    POLICY_CHANCE = 260
    ERASE_AREA = 280
    ERASE_RATIO = 300


def random_bits(seed: int, epoch: int, ids: Tensor, draw: int) -> Tensor:
    """64 random bits for every image.

    Args:
        seed: Any integer.
        epoch: Any integer.
        ids: int64 [N], stable keys of the images, on any device.
        draw: What for, so that two uses for one image are independent; see ``Draw``.

    Returns:
        int64 [N] on the device of ``ids``; the sign bit is as random as the others.
    """
    bits = (ids + 1) * _signed(_GOLDEN) + _signed(_stream(seed, epoch, draw))
    bits = (bits ^ _shift_right(bits, 30)) * _signed(_MIX1)
    bits = (bits ^ _shift_right(bits, 27)) * _signed(_MIX2)
    return bits ^ _shift_right(bits, 31)


def uniform(seed: int, epoch: int, ids: Tensor, draw: int) -> Tensor:
    """float32 [N] in [0, 1), multiples of 2**-24: exact in float32 on every device."""
    return _shift_right(random_bits(seed, epoch, ids, draw), 40).to(torch.float32) * 2.0**-24


def randint(seed: int, epoch: int, ids: Tensor, draw: int, high: int) -> Tensor:
    """int64 [N] from 0 to ``high`` - 1; none is likelier than another by more than high / 2**32.

    Raises:
        ValueError: If ``high`` is not 1 to 2**31.
    """
    if not 1 <= high <= 2**31:
        raise ValueError(f"high={high}; must be 1 to 2**31")
    return _below(random_bits(seed, epoch, ids, draw), high)


def randint_each(seed: int, epoch: int, ids: Tensor, draw: int, high: Tensor) -> Tensor:
    """``randint`` with a range of its own for each image: ``high`` int64 [N], 1 to 2**31, which nobody checks."""
    return _below(random_bits(seed, epoch, ids, draw), high)


def permutation(seed: int, epoch: int, count: int, device: torch.device | str = "cpu") -> Tensor:
    """The order of ``count`` images in an epoch: int64 [count], the same on every device."""
    ids = torch.arange(count, device=device)
    return random_bits(seed, epoch, ids, Draw.ORDER).argsort(stable=True)


def _below(bits: Tensor, high: int | Tensor) -> Tensor:
    """The upper half of the bits scaled to 0 .. ``high`` - 1."""
    return (_shift_right(bits, 32) * high) >> 32


def _stream(seed: int, epoch: int, draw: int) -> int:
    """Where in the 2**64 states the stream of (seed, epoch, draw) begins."""
    state = 0
    for part in (seed, epoch, draw):
        state = _mix((state + _GOLDEN) ^ (part & _MASK64))
    return state


def _mix(state: int) -> int:
    """SplitMix64's output function, on a Python integer."""
    state &= _MASK64
    state = ((state ^ (state >> 30)) * _MIX1) & _MASK64
    state = ((state ^ (state >> 27)) * _MIX2) & _MASK64
    return state ^ (state >> 31)


def _shift_right(bits: Tensor, count: int) -> Tensor:
    """Logical shift: torch's shift of int64 copies the sign bit, so the copies are masked off."""
    return (bits >> count) & (2 ** (64 - count) - 1)


def _signed(value: int) -> int:
    """The int64 with the bits of an unsigned 64-bit integer."""
    return value - 2**64 if value >= 2**63 else value
