"""Color and sharpness: operations for which a byte depends on more than itself, one strength per image.

Given the same strengths they equal torchvision's functions on one uint8 image bit for bit: they round
where those round. The last step of a blend is one fused multiply and add there, and so it is here, also
for the last bytes of a picture that does not fill a vector register, which torchvision may round twice.
Images are uint8 [B, P, H, W, c] as ``augment`` describes them; none is written to.

Reference:
    torchvision.transforms.v2.functional: adjust_saturation, adjust_sharpness, adjust_hue.
"""

import torch
from torch import Tensor

# Which of (v, p, q, t) is red, green and blue in each sixth of the color circle: two bits per sixth, the first lowest.
_RGB_OF_SIXTH = tuple(
    sum(pick << 2 * k for k, pick in enumerate(row)) for row in ((0, 2, 1, 1, 3, 0), (3, 0, 0, 2, 1, 1), (1, 1, 3, 0, 0, 2))
)
_TO_BYTE = 255.999  # torchvision's way from [0, 1] to bytes, truncated: each byte gets an equal share


def multiply_add(total: Tensor, one: Tensor, other: Tensor) -> Tensor:
    """``total + one * other`` in float32 with one rounding at the end, on every device the same."""
    if total.device.type == "cuda":
        # addcmul rounds the product first there; in float64 it is exact.
        return torch.addcmul(total.to(torch.float64), one.to(torch.float64), other.to(torch.float64)).to(torch.float32)
    return torch.addcmul(total, one, other)


def planes(images: Tensor) -> Tensor:
    """The three colors apart, a view: [3, B, H * W] of [B, P, H, W, c]."""
    return images.flatten(2, 3).permute(1, 3, 0, 2).flatten(0, 1)


def gray(images: Tensor) -> Tensor:
    """Brightness of every pixel as PIL weighs it, rounded down: float32 [B, H * W], whole numbers."""
    red, green, blue = planes(images).unbind(0)
    return red.mul(0.2989).add_(green, alpha=0.587).add_(blue, alpha=0.114).floor_()


def saturation(images: Tensor, amount: Tensor) -> Tensor:
    """Away from gray (above 0), towards gray (below 0), gray (-1).

    Args:
        images: uint8 [B, P, H, W, c].
        amount: float32 [B], at least -1; torchvision's factor less 1.
    """
    weight, toward = (1 + amount)[:, None], -amount[:, None]
    shade, made = gray(images), torch.empty_like(images)
    for source, target in zip(planes(images), planes(made), strict=True):
        target.copy_(multiply_add(source.mul(weight), shade, toward).clamp_(0, 255))
    return made


def sharpness(images: Tensor, amount: Tensor) -> Tensor:
    """Sharper (above 0) or blurred (below 0) everywhere but on the outermost pixels.

    Args:
        images: uint8 [B, P, H, W, c]; with fewer than 3 pixels a side they stay as they are.
        amount: float32 [B], at least -1; torchvision's factor less 1.
    """
    count, num_planes, height, width, pixel = images.shape
    if min(height, width) < 3:
        return images
    made = images.to(torch.float32)
    lines = made.view(count, num_planes, height, width * pixel)
    inner = lines[:, :, 1:-1, pixel:-pixel]
    across = lines[..., : -2 * pixel] + lines[..., pixel:-pixel] + lines[..., 2 * pixel :]
    # Weights 1 around 5, over 13. Sums of bytes are exact, and no thirteenth lies near a half: rounding is the same in any order.
    blurred = (across[:, :, :-2] + across[:, :, 1:-1]).add_(across[:, :, 2:]).add_(inner, alpha=4).div_(13).round_()
    inner.copy_(multiply_add(inner, blurred.sub_(inner), -amount.view(-1, 1, 1, 1)))
    return made.clamp_(0, 255).to(torch.uint8)


def hue(images: Tensor, amount: Tensor) -> Tensor:
    """Turn every color on the color circle.

    Args:
        images: uint8 [B, P, H, W, c].
        amount: float32 [B], turns, -0.5 to 0.5.
    """
    made = torch.empty_like(images)
    rgb = planes(images).to(torch.float32).mul_(1 / 255)
    turn, colorfulness, value = _to_hsv(rgb)
    turned = _to_rgb(turn.add_(amount[:, None]).remainder_(1.0), colorfulness, value)
    planes(made).copy_(turned.mul_(_TO_BYTE))
    return made


def _to_hsv(rgb: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Hue, saturation and value, each float32 [B, H * W] in [0, 1], of float32 [3, B, H * W]."""
    low, high = rgb.aminmax(dim=0)
    one = torch.ones_like(high)
    is_gray = high == low
    spread = high - low
    red, green, blue = ((high - rgb) / torch.where(is_gray, one, spread)).unbind(0)
    is_red, is_green = high == rgb[0], high == rgb[1]
    turn = (blue - green).mul_(is_red)
    turn.add_(red.add(2.0).sub_(blue).mul_(is_green & ~is_red))
    turn.add_(green.add(4.0).sub_(red).mul_(~is_green & ~is_red))
    return turn.mul_(1 / 6).add_(1.0).fmod_(1.0), spread / torch.where(is_gray, one, high), high


def _to_rgb(turn: Tensor, colorfulness: Tensor, value: Tensor) -> Tensor:
    """float32 [3, B, H * W] in [0, 1] of hue, saturation and value, each [B, H * W]."""
    sixths = turn * 6
    sixth = sixths.floor()
    part = colorfulness * sixths.sub_(sixth)
    white = 1.0 - colorfulness
    p, q, t = (x.mul_(value).clamp_(0.0, 1.0) for x in (white.clone(), 1.0 - part, part + white))
    shift = sixth.to(torch.int64).remainder_(6).mul_(2)
    pick = torch.stack([torch.bitwise_right_shift(code, shift) & 3 for code in _RGB_OF_SIXTH])
    return torch.stack((value, p, q, t)).gather(0, pick)
