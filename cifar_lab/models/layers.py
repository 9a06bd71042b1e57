"""Parts that several networks share, and the one wording for a keyword out of range."""

from collections.abc import Sequence

from torch import Tensor, nn


def require(ok: bool, key: str, value: object, allowed: str) -> None:
    """Refuse a builder's keyword.

    Raises:
        ValueError: ``key=value; must be allowed``, unless ``ok``.
    """
    if not ok:
        raise ValueError(f"{key}={value}; must be {allowed}")


def require_odd(key: str, kernel_size: int) -> None:
    """Refuse a kernel that cannot keep the size of a map with equal padding on both sides."""
    require(kernel_size >= 1 and kernel_size % 2 == 1, key, kernel_size, "odd and 1 or more")


def require_widths(key: str, widths: Sequence[int]) -> None:
    """Refuse an empty list of layer widths, or one with a width below 1."""
    require(len(widths) > 0 and all(w >= 1 for w in widths), key, list(widths), "at least one number, each 1 or more")


def require_dropout(key: str, probability: float) -> None:
    """Refuse what is no probability of dropping, or drops everything."""
    require(0.0 <= probability < 1.0, key, probability, "0 or more and less than 1")


class ConvNorm(nn.Module):
    """Convolution without bias, then batch normalization: [B, in, H, W] -> [B, out, ceil(H / stride), ceil(W / stride)]."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride=stride, padding=kernel_size // 2, bias=False)
        self.norm = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Normalize what the convolution returns."""
        return self.norm(self.conv(x))


def depthwise_conv(channels: int, kernel_size: int = 3, stride: int = 1, bias: bool = False) -> nn.Conv2d:
    """One filter per channel: [B, C, H, W] -> [B, C, ceil(H / stride), ceil(W / stride)] for an odd kernel."""
    return nn.Conv2d(channels, channels, kernel_size, stride=stride, padding=kernel_size // 2, groups=channels, bias=bias)


def pointwise_conv(in_channels: int, out_channels: int, bias: bool = False) -> nn.Conv2d:
    """A linear map of the channels at every pixel: [B, in, H, W] -> [B, out, H, W]."""
    return nn.Conv2d(in_channels, out_channels, 1, bias=bias)


class SeparableConv(nn.Module):
    """Depthwise, then pointwise convolution with nothing between: a dense convolution whose kernels are outer products.

    Shapes: [B, in, H, W] -> [B, out, ceil(H / stride), ceil(W / stride)]. It multiplies (k*k + out) / (k*k*out)
    as often as the dense convolution.

    Args:
        in_channels: Of the input.
        out_channels: Of the output.
        kernel_size: Pixels a side of the depthwise kernel; odd.
        stride: Of the depthwise convolution.
        depthwise_bias: Give the depthwise convolution a bias.
        pointwise_bias: Give the pointwise convolution a bias.

    Reference: Chollet, 2016, Xception, arXiv:1610.02357.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        stride: int = 1,
        depthwise_bias: bool = False,
        pointwise_bias: bool = False,
    ):
        super().__init__()
        self.depthwise = depthwise_conv(in_channels, kernel_size, stride, depthwise_bias)
        self.pointwise = pointwise_conv(in_channels, out_channels, pointwise_bias)

    def forward(self, x: Tensor) -> Tensor:
        """Filter each channel, then mix the channels."""
        return self.pointwise(self.depthwise(x))


def global_pool() -> nn.Sequential:
    """Mean over all pixels: [B, C, H, W] -> [B, C]."""
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
