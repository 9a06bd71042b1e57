"""Parts that several networks share, and the one wording for a keyword out of range."""

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


class ConvNorm(nn.Module):
    """Convolution without bias, then batch normalization: [B, in, H, W] -> [B, out, ceil(H / stride), ceil(W / stride)]."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride=stride, padding=kernel_size // 2, bias=False)
        self.norm = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Normalize what the convolution returns."""
        return self.norm(self.conv(x))
