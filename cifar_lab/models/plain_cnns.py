"""Three plain stacks of 3x3 convolutions and poolings: D0's ``traditional_cnn``, D4's ``tf_cnn`` and ``custom_cnn``.

They are one scheme: groups of convolutions, each group ended by a pooling, then one hidden linear
layer. What differs is the widths, batch norm, dropout, and what turns the last map into features.
All convolutions keep the size of the map and have a bias.

Reference: Simonyan and Zisserman, 2014, Very deep convolutional networks, arXiv:1409.1556.
"""

from collections import OrderedDict
from collections.abc import Sequence

from torch import nn

from cifar_lab.models.build import build_activation
from cifar_lab.models.dropout import Dropout
from cifar_lab.models.layers import global_pool, require, require_dropout, require_widths


def traditional_cnn(
    *,
    num_classes: int = 10,
    input_size: int = 32,
    widths: tuple[int, ...] = (64, 128),
    depths: tuple[int, ...] = (2, 2),
    hidden: int = 256,
    activation: str = "relu",
    dropout: float = 0.5,
) -> nn.Module:
    """D0's plain CNN without batch norm; 2,360,138 parameters, 98.24 M multiply-adds at 32 px.

    Args:
        num_classes: K.
        input_size: Pixels a side of the images.
        widths: Output channels of the convolutions of each group.
        depths: Convolutions of each group.
        hidden: Width of the hidden linear layer.
        activation: Row of the ACTIVATIONS table, after each convolution and the hidden layer.
        dropout: Probability that a hidden feature is dropped; 0: off.

    Returns:
        Network with ``features`` ([B, 3, H, W] -> [B, D]), ``hidden`` and ``head`` (-> logits [B, K]).

    Raises:
        ValueError: A keyword out of range, or images too small for the poolings.
    """
    groups = _groups(widths, depths, activation, batch_norm=False, dropouts=None)
    in_features = _flat_features(widths, input_size)
    return _network([*groups, nn.Flatten()], in_features, hidden, num_classes, activation, dropout)


def tf_cnn(
    *,
    num_classes: int = 10,
    input_size: int = 32,
    widths: tuple[int, ...] = (32, 64, 128),
    depths: tuple[int, ...] = (2, 2, 1),
    hidden: int = 512,
    activation: str = "relu",
    group_dropouts: tuple[float, ...] = (0.2, 0.3, 0.4),
    dropout: float = 0.5,
) -> nn.Module:
    """D4's TensorFlow CNN; 1,194,282 parameters, 30.25 M multiply-adds at 32 px.

    Args:
        num_classes: K.
        input_size: Pixels a side of the images.
        widths: Output channels of the convolutions of each group.
        depths: Convolutions of each group.
        hidden: Width of the hidden linear layer.
        activation: Row of the ACTIVATIONS table, after each batch norm and the hidden layer.
        group_dropouts: Probability that a value is dropped after the pooling of each group; 0: off.
        dropout: Probability that a hidden feature is dropped; 0: off.

    Returns:
        Network with ``features`` ([B, 3, H, W] -> [B, D]), ``hidden`` and ``head`` (-> logits [B, K]).

    Raises:
        ValueError: A keyword out of range, or images too small for the poolings.
    """
    groups = _groups(widths, depths, activation, batch_norm=True, dropouts=group_dropouts)
    in_features = _flat_features(widths, input_size)
    return _network([*groups, nn.Flatten()], in_features, hidden, num_classes, activation, dropout)


def custom_cnn(
    *,
    num_classes: int = 10,
    widths: tuple[int, ...] = (64, 128, 256),
    depths: tuple[int, ...] = (2, 2, 3),
    hidden: int = 256,
    activation: str = "relu",
    group_dropouts: tuple[float, ...] = (0.25, 0.25, 0.25),
    dropout: float = 0.5,
) -> nn.Module:
    """D4's custom CNN with global pooling; 1,806,154 parameters, 190.58 M multiply-adds at 32 px.

    Args:
        num_classes: K.
        widths: Output channels of the convolutions of each group.
        depths: Convolutions of each group.
        hidden: Width of the hidden linear layer.
        activation: Row of the ACTIVATIONS table, after each batch norm and the hidden layer.
        group_dropouts: Probability that a value is dropped after the pooling of each group; 0: off.
        dropout: Probability that a hidden feature is dropped; 0: off.

    Returns:
        Network with ``features`` ([B, 3, H, W] -> [B, D]), ``hidden`` and ``head`` (-> logits [B, K]).

    Raises:
        ValueError: A keyword out of range.
    """
    groups = _groups(widths, depths, activation, batch_norm=True, dropouts=group_dropouts)
    return _network([*groups, global_pool()], widths[-1], hidden, num_classes, activation, dropout)


def _groups(
    widths: Sequence[int], depths: Sequence[int], activation: str, *, batch_norm: bool, dropouts: Sequence[float] | None
) -> list[nn.Module]:
    """[B, 3, H, W] -> [B, widths[-1], H // 2**n, W // 2**n] for n groups."""
    require_widths("widths", widths)
    require_widths("depths", depths)
    require(len(depths) == len(widths), "depths", list(depths), f"as many numbers as widths, {len(widths)}")
    for dropout in dropouts or ():
        require_dropout("group_dropouts", dropout)
    if dropouts is not None:
        wanted = f"as many numbers as widths, {len(widths)}"
        require(len(dropouts) == len(widths), "group_dropouts", list(dropouts), wanted)

    layers: list[nn.Module] = []
    in_channels = 3
    for i, (width, depth) in enumerate(zip(widths, depths, strict=True)):
        for _ in range(depth):
            layers.append(nn.Conv2d(in_channels, width, 3, padding=1))
            layers += [nn.BatchNorm2d(width)] if batch_norm else []
            layers.append(build_activation(activation))
            in_channels = width
        layers.append(nn.MaxPool2d(2))
        layers += [Dropout(dropouts[i])] if dropouts is not None else []
    return layers


def _flat_features(widths: Sequence[int], input_size: int) -> int:
    """Features of the last map, flattened."""
    shrink = 2 ** len(widths)
    require(input_size >= shrink, "input_size", input_size, f"{shrink} or more for {len(widths)} poolings")
    return widths[-1] * (input_size // shrink) ** 2


def _network(
    features: list[nn.Module], in_features: int, hidden: int, num_classes: int, activation: str, dropout: float
) -> nn.Module:
    require(hidden >= 1, "hidden", hidden, "1 or more")
    require_dropout("dropout", dropout)
    return nn.Sequential(
        OrderedDict[str, nn.Module](
            features=nn.Sequential(*features),
            hidden=nn.Sequential(nn.Linear(in_features, hidden), build_activation(activation), Dropout(dropout)),
            head=nn.Linear(hidden, num_classes),
        )
    )
