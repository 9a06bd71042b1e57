"""The network of linear layers of write-up D4: what is left of the accuracy without convolutions.

As published (the defaults): Flatten 3072, FC 512 ReLU BN Dropout 0.3, FC 256 ReLU Dropout 0.3,
FC 128 ReLU, FC 64 ReLU, FC 10.
"""

from collections import OrderedDict

from torch import nn

from cifar_lab.models.build import build_activation
from cifar_lab.models.dropout import Dropout
from cifar_lab.models.layers import require, require_dropout, require_widths


def dense_dnn(
    *,
    num_classes: int = 10,
    input_size: int = 32,
    widths: tuple[int, ...] = (512, 256, 128, 64),
    num_batch_norms: int = 1,
    activation: str = "relu",
    dropout: float = 0.3,
    num_dropouts: int = 2,
) -> nn.Module:
    """D4's network of linear layers; 1,747,530 parameters, 1.75 M multiply-adds at 32 px.

    Args:
        num_classes: K.
        input_size: Pixels a side of the images.
        widths: Widths of the hidden layers.
        num_batch_norms: How many of the first hidden layers are followed by a batch norm, after the activation.
        activation: Row of the ACTIVATIONS table, after each hidden layer.
        dropout: Probability that a feature is dropped; 0: off.
        num_dropouts: How many of the first hidden layers are followed by a dropout.

    Returns:
        Network with ``hidden`` ([B, 3, H, W] -> [B, widths[-1]]) and ``head`` (-> logits [B, K]).

    Raises:
        ValueError: A keyword out of range.
    """
    require_widths("widths", widths)
    require_dropout("dropout", dropout)
    for key, value in (("num_batch_norms", num_batch_norms), ("num_dropouts", num_dropouts)):
        require(0 <= value <= len(widths), key, value, f"0 to {len(widths)}, the number of hidden layers")

    layers: list[nn.Module] = [nn.Flatten()]
    in_features = 3 * input_size**2
    for i, width in enumerate(widths):
        layers += [nn.Linear(in_features, width), build_activation(activation)]
        layers += [nn.BatchNorm1d(width)] if i < num_batch_norms else []
        layers += [Dropout(dropout)] if i < num_dropouts else []
        in_features = width
    head = nn.Linear(in_features, num_classes)
    return nn.Sequential(OrderedDict[str, nn.Module](hidden=nn.Sequential(*layers), head=head))
