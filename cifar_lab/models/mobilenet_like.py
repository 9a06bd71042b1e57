"""The MobileNet-like network of write-up D1: depthwise and pointwise convolutions as separate layers.

Unlike MobileNet, D1 puts the activation before the batch norm, and no batch norm after the
pointwise convolution; all convolutions have a bias.

Reference: Howard et al., 2017, MobileNets, arXiv:1704.04861.
"""

from collections import OrderedDict

from torch import nn

from cifar_lab.models.build import build_activation
from cifar_lab.models.layers import depthwise_conv, global_pool, pointwise_conv, require, require_odd, require_widths


def mobilenet_like(
    *,
    num_classes: int = 10,
    stem_channels: int = 32,
    widths: tuple[int, ...] = (64, 128, 256),
    kernel_size: int = 3,
    activation: str = "relu",
) -> nn.Module:
    """D1's MobileNet-like network; 49,674 parameters, 7.69 M multiply-adds at 32 px.

    Args:
        num_classes: K.
        stem_channels: Output channels of the first, dense convolution.
        widths: Output channels of each block; a pooling follows all blocks but the last.
        kernel_size: Pixels a side of the dense and the depthwise kernels; odd.
        activation: Row of the ACTIVATIONS table, after each convolution.

    Returns:
        Network with ``stem``, ``blocks``, ``pool`` and ``head``: [B, 3, H, W] -> logits [B, K], for H and W that the
        poolings leave a pixel of.

    Raises:
        ValueError: A keyword out of range.
    """
    require(stem_channels >= 1, "stem_channels", stem_channels, "1 or more")
    require_widths("widths", widths)
    require_odd("kernel_size", kernel_size)

    stem = nn.Sequential(
        nn.Conv2d(3, stem_channels, kernel_size, padding=kernel_size // 2),
        build_activation(activation),
        nn.BatchNorm2d(stem_channels),
    )
    blocks: list[nn.Module] = []
    for in_channels, out_channels in zip((stem_channels, *widths), widths, strict=False):
        if blocks:
            blocks.append(nn.MaxPool2d(2))
        blocks.append(_block(in_channels, out_channels, kernel_size, activation))
    return nn.Sequential(
        OrderedDict[str, nn.Module](
            stem=stem,
            blocks=nn.Sequential(*blocks),
            pool=global_pool(),
            head=nn.Linear(widths[-1], num_classes),
        )
    )


def _block(in_channels: int, out_channels: int, kernel_size: int, activation: str) -> nn.Sequential:
    """[B, in, H, W] -> [B, out, H, W]."""
    return nn.Sequential(
        depthwise_conv(in_channels, kernel_size, bias=True),
        build_activation(activation),
        nn.BatchNorm2d(in_channels),
        pointwise_conv(in_channels, out_channels, bias=True),
        build_activation(activation),
    )
