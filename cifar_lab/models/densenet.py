"""The densely connected network of write-up D0, with separable or with standard convolutions.

D0 compared a separable DenseNet with a plain CNN, so two things changed at once. Here ``conv``
swaps nothing but the 3x3 convolutions on one topology. As published everything stays at full
resolution; ``downsample`` halves the map between blocks, as DenseNet does.

Reference: Huang, Liu, van der Maaten, Weinberger, 2016, Densely connected convolutional networks, arXiv:1608.06993.
"""

from collections import OrderedDict
from typing import Literal

import torch
from torch import Tensor, nn

from cifar_lab.models.build import build_activation
from cifar_lab.models.layers import SeparableConv, global_pool, pointwise_conv, require, require_odd, require_widths


def separable_densenet(
    *,
    num_classes: int = 10,
    conv: Literal["separable", "standard"] = "separable",
    downsample: bool = False,
    stem_channels: int = 32,
    growth_rate: int = 16,
    layers_per_block: int = 4,
    transition_channels: tuple[int, ...] = (64, 96, 128, 128),
    kernel_size: int = 3,
    activation: str = "relu",
) -> nn.Module:
    """D0's network of four dense blocks; 110,245 parameters, 107.74 M multiply-adds at 32 px.

    Args:
        num_classes: K.
        conv: separable is depthwise then pointwise, standard is one dense convolution (309,002 parameters, 311.26 M).
        downsample: Halve the map by average pooling in every transition but the last.
        stem_channels: Output channels of the first convolution.
        growth_rate: Channels that each layer of a block adds.
        layers_per_block: Layers of each dense block.
        transition_channels: Output channels of the 1x1 convolution after each block; as many numbers as blocks.
        kernel_size: Pixels a side of all kernels but those of the transitions; odd.
        activation: Row of the ACTIVATIONS table, in each dense layer.

    Returns:
        Network with ``stem``, ``blocks``, ``pool`` and ``head``: [B, 3, H, W] -> logits [B, K], for any H and W;
        ``downsample`` needs 2 ** (blocks - 1) pixels.

    Raises:
        ValueError: A keyword out of range.
    """
    require(conv in ("separable", "standard"), "conv", conv, "separable or standard")
    for key, value in (("stem_channels", stem_channels), ("growth_rate", growth_rate), ("layers_per_block", layers_per_block)):
        require(value >= 1, key, value, "1 or more")
    require_widths("transition_channels", transition_channels)
    require_odd("kernel_size", kernel_size)

    blocks, in_channels = [], stem_channels
    for i, out_channels in enumerate(transition_channels):
        block = DenseBlock(in_channels, growth_rate, layers_per_block, conv, kernel_size, activation)
        # After the last block the global pooling does what a pooling here would do.
        halve = downsample and i < len(transition_channels) - 1
        blocks.append(nn.Sequential(block, _transition(block.out_channels, out_channels, halve)))
        in_channels = out_channels
    return nn.Sequential(
        OrderedDict[str, nn.Module](
            stem=_conv(conv, 3, stem_channels, kernel_size),
            blocks=nn.Sequential(*blocks),
            pool=global_pool(),
            head=nn.Linear(in_channels, num_classes),
        )
    )


class DenseBlock(nn.Module):
    """Layers that each read all channels so far and add ``growth_rate`` more: [B, in, H, W] -> [B, out_channels, H, W]."""

    def __init__(self, in_channels: int, growth_rate: int, num_layers: int, conv: str, kernel_size: int, activation: str):
        super().__init__()
        widths = [in_channels + i * growth_rate for i in range(num_layers)]
        self.layers = nn.ModuleList(_dense_layer(width, growth_rate, conv, kernel_size, activation) for width in widths)
        self.out_channels = in_channels + num_layers * growth_rate

    def forward(self, x: Tensor) -> Tensor:
        """The input's channels come first, then those of each layer in order."""
        for layer in self.layers:
            x = torch.cat([x, layer(x)], dim=1)
        return x


def _dense_layer(in_channels: int, growth_rate: int, conv: str, kernel_size: int, activation: str) -> nn.Sequential:
    """[B, in, H, W] -> [B, growth_rate, H, W]."""
    return nn.Sequential(
        nn.BatchNorm2d(in_channels), build_activation(activation), _conv(conv, in_channels, growth_rate, kernel_size)
    )


def _transition(in_channels: int, out_channels: int, halve: bool) -> nn.Sequential:
    """1x1 convolution with bias; averaging first gives the same numbers as averaging afterwards, at a quarter of the cost."""
    conv = pointwise_conv(in_channels, out_channels, bias=True)
    return nn.Sequential(nn.AvgPool2d(2), conv) if halve else nn.Sequential(conv)


def _conv(conv: str, in_channels: int, out_channels: int, kernel_size: int) -> nn.Module:
    if conv == "separable":
        return SeparableConv(in_channels, out_channels, kernel_size)
    return nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=False)
