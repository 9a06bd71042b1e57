"""The small network of write-up D3, with every change that its ablations make.

As published (the defaults): Conv3x3 3->7, ReLU, Conv3x3 7->9, ReLU, MaxPool 2, Dropout 0.3,
Linear 1764->10: 18,422 parameters, 0.63 M multiply-adds at 32 px. Padding is *valid*: replacing
both convolutions by one 5x5 then keeps the 14x14x9 map exactly.
"""

from collections import OrderedDict
from typing import Literal

from torch import nn

from cifar_lab.models.build import build_activation
from cifar_lab.models.dropout import Dropout
from cifar_lab.models.layers import require, require_dropout, require_odd, require_widths

_WIDTH_STEP = 2  # D3's deeper variants go on 7, 9, 11, 13
_POOL = 2


def small_cnn(
    *,
    num_classes: int = 10,
    input_size: int = 32,
    widths: tuple[int, ...] = (7, 9),
    num_convs: int | None = None,
    kernel_size: int = 3,
    later_kernel_size: int = 3,
    padding: Literal["valid", "same"] = "valid",
    activation: str = "relu",
    batch_norm_first: bool = False,
    dropout: float = 0.3,
) -> nn.Module:
    """A few convolutions, one pooling, one linear layer.

    Args:
        num_classes: K.
        input_size: Pixels a side of the images.
        widths: Output channels of each convolution.
        num_convs: Number of convolutions; null: as many as widths has, fewer: the first ones, more: widths go on in steps of 2.
        kernel_size: Pixels a side of the first convolution's kernel.
        later_kernel_size: Pixels a side of the other convolutions' kernels.
        padding: valid shrinks the map by kernel_size - 1, same keeps it.
        activation: Row of the ACTIVATIONS table, after each convolution.
        batch_norm_first: Normalize the three input channels by a batch norm before the first convolution.
        dropout: Probability that a feature is dropped before the linear layer; 0: off.

    Returns:
        Network with ``features`` ([B, 3, H, W] -> [B, D]) and ``head`` ([B, D] -> logits [B, K]).

    Raises:
        ValueError: A keyword out of range, or images too small for the convolutions.
    """
    require_widths("widths", widths)
    require(num_convs is None or num_convs >= 1, "num_convs", num_convs, "1 or more, or null")
    require(padding in ("valid", "same"), "padding", padding, "valid or same")
    require_dropout("dropout", dropout)
    widths = _widths(tuple(widths), num_convs)
    kernels = (kernel_size, *(later_kernel_size for _ in widths[1:]))
    _check_kernels(kernel_size, later_kernel_size, padding)
    map_size = _map_size(input_size, kernels, padding)

    layers: list[nn.Module] = [nn.BatchNorm2d(3)] if batch_norm_first else []
    for in_channels, out_channels, kernel in zip((3, *widths), widths, kernels, strict=False):
        pad = kernel // 2 if padding == "same" else 0
        layers += [nn.Conv2d(in_channels, out_channels, kernel, padding=pad), build_activation(activation)]
    layers += [nn.MaxPool2d(_POOL), Dropout(dropout), nn.Flatten()]
    features = nn.Sequential(*layers)  # [B, widths[-1] * map_size ** 2]
    head = nn.Linear(widths[-1] * map_size**2, num_classes)
    return nn.Sequential(OrderedDict[str, nn.Module](features=features, head=head))


def _widths(widths: tuple[int, ...], num_convs: int | None) -> tuple[int, ...]:
    """Cut the widths, or continue them in steps of two, to ``num_convs`` convolutions."""
    if num_convs is None:
        return widths
    more = max(0, num_convs - len(widths))
    return (*widths[:num_convs], *(widths[-1] + _WIDTH_STEP * (i + 1) for i in range(more)))


def _check_kernels(kernel_size: int, later_kernel_size: int, padding: str) -> None:
    for key, value in (("kernel_size", kernel_size), ("later_kernel_size", later_kernel_size)):
        require(value >= 1, key, value, "1 or more")
        if padding == "same":
            require_odd(key, value)


def _map_size(input_size: int, kernels: tuple[int, ...], padding: str) -> int:
    """Pixels a side of the map after the pooling."""
    shrink = sum(k - 1 for k in kernels) if padding == "valid" else 0
    needed = shrink + _POOL
    if input_size < needed:
        raise ValueError(
            f"input_size={input_size}; must be {needed} or more for {len(kernels)} convolutions "
            f"with kernels {', '.join(map(str, kernels))} and padding={padding}"
        )
    return (input_size - shrink) // _POOL
