"""The residual network with few parameters of write-up D2: every convolution is separable.

Width, depth and the resolution of the images (``data.input_size``; D2 uses 320 px) are scaled
independently, the idea of EfficientNet. The stem and the strides divide the resolution by 32.
The biases of the depthwise convolutions are D2's; a batch norm always follows and takes them
away again in training, so they cost 0.5 % of the parameters and change nothing.

Reference: He et al., 2015, arXiv:1512.03385; Tan and Le, 2019, EfficientNet, arXiv:1905.11946 (compound scaling).
"""

import math
from collections import OrderedDict

from torch import Tensor, nn

from cifar_lab.models.build import build_activation
from cifar_lab.models.dropout import Dropout
from cifar_lab.models.layers import SeparableConv, global_pool, require, require_dropout

_WIDTHS = (32, 64, 128, 256)
_STRIDES = (1, 2, 2, 2)
_DEPTH = 2
_WIDTH_STEP = 8


def few_param_resnet(
    *,
    num_classes: int = 10,
    width_mult: float = 1.0,
    depth_mult: float = 1.0,
    hidden: int = 64,
    activation: str = "relu6",
    dropout: float = 0.2,
) -> nn.Module:
    """D2's residual network of separable convolutions; 387,712 parameters, 124.20 M multiply-adds at 320 px.

    Args:
        num_classes: K.
        width_mult: Times 32, 64, 128, 256 channels, rounded to a multiple of 8.
        depth_mult: Times two blocks a stage, rounded up.
        hidden: Width of the linear layer before the last; no activation stands between them.
        activation: Row of the ACTIVATIONS table.
        dropout: Probability that one of the hidden features is dropped; 0: off.

    Returns:
        Network with ``stem``, ``stages``, ``pool``, ``hidden`` and ``head``: [B, 3, H, W] -> logits [B, K], for any H and W.

    Raises:
        ValueError: A keyword out of range.
    """
    require(0 < width_mult < math.inf, "width_mult", width_mult, "a number above 0")
    require(0 < depth_mult < math.inf, "depth_mult", depth_mult, "a number above 0")
    require(hidden >= 1, "hidden", hidden, "1 or more")
    require_dropout("dropout", dropout)

    widths = [_scaled_width(width, width_mult) for width in _WIDTHS]
    depth = math.ceil(_DEPTH * depth_mult)
    stages, in_channels = [], widths[0]
    for out_channels, stride in zip(widths, _STRIDES, strict=True):
        first = ResidualBlock(in_channels, out_channels, stride, activation)
        rest = [ResidualBlock(out_channels, out_channels, 1, activation) for _ in range(depth - 1)]
        stages.append(nn.Sequential(first, *rest))
        in_channels = out_channels
    return nn.Sequential(
        OrderedDict[str, nn.Module](
            stem=nn.Sequential(
                _separable_norm(3, widths[0], 7, 2), build_activation(activation), nn.MaxPool2d(3, stride=2, padding=1)
            ),
            stages=nn.Sequential(*stages),
            pool=global_pool(),
            hidden=nn.Sequential(nn.Linear(in_channels, hidden), Dropout(dropout)),
            head=nn.Linear(hidden, num_classes),
        )
    )


class ResidualBlock(nn.Module):
    """Two separable convolutions and a shortcut: act(conv2(act(conv1(x))) + shortcut(x)), each with batch norm.

    Where the shape changes, the shortcut is a separable convolution too, with a 1x1 depthwise kernel.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, activation: str):
        super().__init__()
        self.conv1 = _separable_norm(in_channels, out_channels, 3, stride)
        self.act1 = build_activation(activation)
        self.conv2 = _separable_norm(out_channels, out_channels, 3, 1)
        same_shape = stride == 1 and in_channels == out_channels
        self.shortcut = nn.Identity() if same_shape else _separable_norm(in_channels, out_channels, 1, stride)
        self.act2 = build_activation(activation)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C_in, H, W] -> [B, C_out, ceil(H / stride), ceil(W / stride)]."""
        return self.act2(self.conv2(self.act1(self.conv1(x))) + self.shortcut(x))


def _separable_norm(in_channels: int, out_channels: int, kernel_size: int, stride: int) -> nn.Sequential:
    """D2's unit: depthwise with bias, pointwise without, batch norm."""
    conv = SeparableConv(in_channels, out_channels, kernel_size, stride, depthwise_bias=True)
    return nn.Sequential(conv, nn.BatchNorm2d(out_channels))


def _scaled_width(width: int, width_mult: float) -> int:
    """The nearest multiple of 8, one step up if that takes away more than a tenth, as EfficientNet rounds."""
    wanted = width * width_mult
    rounded = max(_WIDTH_STEP, int(wanted + _WIDTH_STEP / 2) // _WIDTH_STEP * _WIDTH_STEP)
    return rounded + _WIDTH_STEP if rounded < 0.9 * wanted else rounded
