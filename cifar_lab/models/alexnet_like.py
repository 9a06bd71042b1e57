"""The AlexNet-like network of write-up D1: four convolutions, then two wide linear layers.

Each convolution has a bias, and the order is convolution, activation, batch norm. Most of the
parameters (83 %) are in the linear layers, most of the multiply-adds (94 %) in the convolutions.

Reference: Krizhevsky, Sutskever, Hinton, 2012, ImageNet classification with deep convolutional neural networks.
"""

from collections import OrderedDict
from itertools import pairwise

from torch import nn

from cifar_lab.models.build import build_activation
from cifar_lab.models.dropout import Dropout
from cifar_lab.models.layers import require, require_dropout, require_widths

_POOLED = (True, True, False, True)  # a pooling follows the first, second and last convolution
_SHRINK = 2 ** sum(_POOLED)


def alexnet_like(
    *,
    num_classes: int = 10,
    input_size: int = 32,
    widths: tuple[int, int, int, int] = (64, 128, 256, 256),
    hidden: tuple[int, ...] = (1024, 512),
    activation: str = "relu",
    dropout: float = 0.5,
) -> nn.Module:
    """D1's AlexNet-like network; 5,687,562 parameters, 81.99 M multiply-adds at 32 px.

    Args:
        num_classes: K.
        input_size: Pixels a side of the images.
        widths: Output channels of the four convolutions.
        hidden: Widths of the linear layers before the last.
        activation: Row of the ACTIVATIONS table, after each convolution and each hidden linear layer.
        dropout: Probability that a hidden feature is dropped; 0: off.

    Returns:
        Network with ``features`` ([B, 3, H, W] -> [B, D]), ``hidden`` and ``head`` (-> logits [B, K]).

    Raises:
        ValueError: A keyword out of range, or images too small for three poolings.
    """
    require(len(widths) == len(_POOLED), "widths", list(widths), f"{len(_POOLED)} numbers")
    require_widths("widths", widths)
    require_widths("hidden", hidden)
    require_dropout("dropout", dropout)
    require(input_size >= _SHRINK, "input_size", input_size, f"{_SHRINK} or more for {sum(_POOLED)} poolings")

    in_features = widths[-1] * (input_size // _SHRINK) ** 2
    return nn.Sequential(
        OrderedDict[str, nn.Module](
            features=_features(widths, activation),
            hidden=_hidden((in_features, *hidden), activation, dropout),
            head=nn.Linear(hidden[-1], num_classes),
        )
    )


def _features(widths: tuple[int, ...], activation: str) -> nn.Sequential:
    """[B, 3, H, W] -> [B, widths[-1] * (H // 8) * (W // 8)]."""
    layers: list[nn.Module] = []
    for in_channels, out_channels, pooled in zip((3, *widths), widths, _POOLED, strict=False):
        layers += [
            nn.Conv2d(in_channels, out_channels, 3, padding=1),
            build_activation(activation),
            nn.BatchNorm2d(out_channels),
        ]
        if pooled:
            layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers, nn.Flatten())


def _hidden(widths: tuple[int, ...], activation: str, dropout: float) -> nn.Sequential:
    """[B, widths[0]] -> [B, widths[-1]]."""
    layers: list[nn.Module] = []
    for in_features, out_features in pairwise(widths):
        layers += [nn.Linear(in_features, out_features), build_activation(activation), Dropout(dropout)]
    return nn.Sequential(*layers)
