"""torchvision's MobileNetV2 and EfficientNet-B0 with a head of our own.

Both were made for 224 px: their strides divide the resolution by 32, so a 32 px picture ends as
one pixel, and ``data.input_size`` decides more about the accuracy than anything else here.
torchvision is imported inside the builders: no other model should wait for it.
"""

from typing import Literal

from torch import Tensor, nn

from cifar_lab.models.build import build_activation
from cifar_lab.models.dropout import Dropout
from cifar_lab.models.layers import global_pool, require, require_dropout

_FEATURES = 1280  # of both


class FeaturesAndHead(nn.Module):
    """Features, global pooling, dropout and a head, of which the features can be frozen.

    Frozen features have no gradients and stay in evaluation mode, so that the statistics of their batch norms stay
    too. Then ``embed`` gives the same for an image in every epoch, and whoever has its answer may pass it on in
    place of the images.

    Args:
        features: [B, 3, H, W] -> [B, D, h, w].
        num_classes: K.
        dropout: Probability that one of the D pooled features is dropped.
        freeze: ``features``: train the head only, or ``none``.
        freeze_epochs: Freeze in the first epochs only; 0: in all.

    Raises:
        ValueError: Epochs without anything to freeze.
    """

    def __init__(self, features: nn.Module, num_classes: int, dropout: float, freeze: str, freeze_epochs: int):
        super().__init__()
        self.features, self.pool = features, global_pool()
        self.dropout = Dropout(dropout)
        self.head = nn.Linear(_FEATURES, num_classes)
        require(freeze_epochs >= 0, "freeze_epochs", freeze_epochs, "0 or more")
        require(freeze_epochs == 0 or freeze == "features", "freeze_epochs", freeze_epochs, f"0 with freeze={freeze}")
        self.frozen, self.freeze_epochs = freeze == "features", freeze_epochs
        if self.frozen and not freeze_epochs:  # the others are to be the optimiser's from the start
            self.features.requires_grad_(False)
        self.train()

    def begin_epoch(self, epoch: int) -> None:
        """Train the features too when the epochs in which they are frozen are over; ``epoch`` counts from 1."""
        if self.freeze_epochs:
            self.frozen = epoch <= self.freeze_epochs
            self.features.requires_grad_(not self.frozen)

    def embed(self, images: Tensor) -> Tensor:
        """Pooled features: [B, 3, H, W] -> [B, D]."""
        return self.pool(self.features(images))

    def forward(self, images: Tensor) -> Tensor:
        """Logits [B, K] of images [B, 3, H, W] or of what ``embed`` made of them, [B, D]."""
        embedded = images if images.ndim == 2 else self.embed(images)
        return self.head(self.dropout(embedded))

    def train(self, mode: bool = True) -> "FeaturesAndHead":
        """Training or evaluation mode; frozen features know only the latter."""
        super().train(mode)
        if self.frozen:
            self.features.eval()
        return self


def mobilenet_v2(
    *,
    num_classes: int = 10,
    activation: str = "relu6",
    dropout: float = 0.2,
    weights: str = "none",
    freeze: Literal["none", "features"] = "none",
    freeze_epochs: int = 0,
) -> nn.Module:
    """MobileNetV2's features and one linear layer; 2,236,682 parameters, 299.51 M multiply-adds at 224 px.

    Args:
        num_classes: K.
        activation: Row of the ACTIVATIONS table, in place of every ReLU6.
        dropout: Probability that one of the 1280 features is dropped; 0: off.
        weights: Where the run takes the features from: none, imagenet (torchvision's), or a path; see ``MODELS``.
        freeze: features: train the head only.
        freeze_epochs: freeze=features for the first epochs only, then train everything; 0: for all.

    Returns:
        Network with ``features``, ``pool``, ``dropout`` and ``head``: [B, 3, H, W] -> logits [B, K], for any H and W.
        The features are untrained: who builds it loads them.

    Raises:
        ValueError: A keyword out of range.

    Reference: Sandler, Howard, Zhu, Zhmoginov, Chen, 2018, MobileNetV2, arXiv:1801.04381.
    """
    require_dropout("dropout", dropout)
    from torchvision.models import mobilenet_v2 as torchvision_mobilenet_v2

    theirs = torchvision_mobilenet_v2(weights=None)
    if activation != "relu6":  # torchvision's own works in place and needs less memory
        _swap(theirs.features, nn.ReLU6, activation)
    return FeaturesAndHead(theirs.features, num_classes, dropout, freeze, freeze_epochs)


def efficientnet_b0(
    *,
    num_classes: int = 10,
    activation: str = "silu",
    dropout: float = 0.2,
    stochastic_depth: float = 0.2,
    weights: str = "none",
    freeze: Literal["none", "features"] = "none",
    freeze_epochs: int = 0,
) -> nn.Module:
    """EfficientNet-B0's features and one linear layer; 4,020,358 parameters, 384.55 M multiply-adds at 224 px.

    Args:
        num_classes: K.
        activation: Row of the ACTIVATIONS table, in place of every SiLU; the gates stay sigmoids.
        dropout: Probability that one of the 1280 features is dropped; 0: off.
        stochastic_depth: Block k of 16, counted from 0, is skipped by an image with k / 16 times this probability; 0: off.
        weights: Where the run takes the features from: none, imagenet (torchvision's), or a path; see ``MODELS``.
        freeze: features: train the head only; no block is skipped then.
        freeze_epochs: freeze=features for the first epochs only, then train everything; 0: for all.

    Returns:
        Network with ``features``, ``pool``, ``dropout`` and ``head``: [B, 3, H, W] -> logits [B, K], for any H and W.

    Raises:
        ValueError: A keyword out of range.

    Reference: Tan and Le, 2019, EfficientNet, arXiv:1905.11946; Huang et al., 2016, arXiv:1603.09382 (stochastic depth).
    """
    require_dropout("dropout", dropout)
    require(0.0 <= stochastic_depth <= 1.0, "stochastic_depth", stochastic_depth, "0 to 1")
    from torchvision.models import efficientnet_b0 as torchvision_efficientnet_b0

    theirs = torchvision_efficientnet_b0(weights=None, stochastic_depth_prob=stochastic_depth)
    if activation != "silu":
        _swap(theirs.features, nn.SiLU, activation)
    return FeaturesAndHead(theirs.features, num_classes, dropout, freeze, freeze_epochs)


def _swap(model: nn.Module, published: type[nn.Module], activation: str) -> None:
    """Put a new activation in place of each one of the published kind."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, published):
                setattr(module, name, build_activation(activation))
