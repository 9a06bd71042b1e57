"""Residual networks of basic blocks, with a stem for small pictures or for large ones.

The stem decides what is possible on CIFAR-10: ImageNet's 7x7 stride 2 and max-pooling leave an
8x8 map of a 32x32 picture before the first block, out of which 93 % cannot be reached.

Reference: He, Zhang, Ren, Sun, 2015, Deep residual learning for image recognition, arXiv:1512.03385.
"""

from collections import OrderedDict
from typing import Literal

from torch import Tensor, nn

from cifar_lab.models.build import build_activation
from cifar_lab.models.layers import ConvNorm, global_pool, require, require_odd


def resnet18(
    *,
    num_classes: int = 10,
    stem: Literal["cifar", "imagenet"] = "cifar",
    width: int = 64,
    kernel_size: int = 3,
    activation: str = "relu",
    zero_init_residual: bool = False,
) -> nn.Module:
    """ResNet-18: four stages of two basic blocks; 11,173,962 parameters, 555 M multiply-adds at 32 px.

    Args:
        num_classes: K.
        stem: cifar is one convolution at full resolution, imagenet is 7x7 stride 2 and max-pooling (11,181,642 parameters).
        width: Channels of the first stage; each next stage has twice as many.
        kernel_size: Pixels a side of the kernels in the blocks and in the cifar stem; odd.
        activation: Row of the ACTIVATIONS table.
        zero_init_residual: Start every block as the identity, for large batches (Goyal et al., 2017, arXiv:1706.02677).

    Returns:
        Network with ``stem``, ``stages``, ``pool`` and ``head``: [B, 3, H, W] -> logits [B, K], for any H and W.

    Raises:
        ValueError: A keyword out of range.
    """
    return resnet((2, 2, 2, 2), num_classes, stem, width, kernel_size, activation, zero_init_residual)


def resnet(
    depths: tuple[int, ...],
    num_classes: int,
    stem: str,
    width: int,
    kernel_size: int,
    activation: str,
    zero_init_residual: bool,
) -> nn.Module:
    """Any basic-block ResNet: ``depths`` is the number of blocks of each stage; the rest as in ``resnet18``."""
    require(stem in ("cifar", "imagenet"), "stem", stem, "cifar or imagenet")
    require(width >= 1, "width", width, "1 or more")
    require_odd("kernel_size", kernel_size)

    stages, in_channels = [], width
    for i, depth in enumerate(depths):
        out_channels, blocks = width * 2**i, []
        for j in range(depth):
            stride = 2 if i > 0 and j == 0 else 1
            blocks.append(BasicBlock(in_channels, out_channels, kernel_size, stride, activation))
            in_channels = out_channels
        stages.append(nn.Sequential(*blocks))

    model = nn.Sequential(
        OrderedDict[str, nn.Module](
            stem=_stem(stem, width, kernel_size, activation),
            stages=nn.Sequential(*stages),
            pool=global_pool(),
            head=nn.Linear(in_channels, num_classes),
        )
    )
    _initialize(model, zero_init_residual)
    return model


class BasicBlock(nn.Module):
    """Two convolutions and a shortcut: act(norm(conv(act(norm(conv(x))))) + shortcut(x)).

    Where the shape changes the shortcut is a 1x1 convolution with batch norm (option B of the paper).
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int, activation: str):
        super().__init__()
        self.conv1 = ConvNorm(in_channels, out_channels, kernel_size, stride)
        self.act1 = build_activation(activation)
        self.conv2 = ConvNorm(out_channels, out_channels, kernel_size)
        same_shape = stride == 1 and in_channels == out_channels
        self.shortcut = nn.Identity() if same_shape else ConvNorm(in_channels, out_channels, 1, stride)
        self.act2 = build_activation(activation)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C_in, H, W] -> [B, C_out, ceil(H / stride), ceil(W / stride)]."""
        return self.act2(self.conv2(self.act1(self.conv1(x))) + self.shortcut(x))


def _stem(stem: str, width: int, kernel_size: int, activation: str) -> nn.Sequential:
    if stem == "cifar":
        return nn.Sequential(ConvNorm(3, width, kernel_size), build_activation(activation))
    return nn.Sequential(ConvNorm(3, width, 7, stride=2), build_activation(activation), nn.MaxPool2d(3, stride=2, padding=1))


def _initialize(model: nn.Module, zero_init_residual: bool) -> None:
    """Kaiming-normal convolutions over the fan-out, as torchvision's ResNet; batch norms start at 1 and 0."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, BasicBlock) and zero_init_residual:
            nn.init.zeros_(module.conv2.norm.weight)
