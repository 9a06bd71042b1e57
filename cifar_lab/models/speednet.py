"""The network of airbench94, made to reach 94 % in the shortest time.

What it saves, it saves by its start: the stem is a frozen whitening of 2x2 patches computed from
the training images (``prepare``), the convolutions begin as the identity on their first channels,
and the logits are scaled down, so that a large learning rate works from the first step on.

Reference: Jordan, 2024, 94% on CIFAR-10 in 3.29 seconds on a single GPU, arXiv:2404.00498, section 3.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cifar_lab.models.build import build_activation
from cifar_lab.models.layers import require, require_widths

_PATCH = 2
_PATCH_VALUES = 3 * _PATCH**2
_NORM_EPS = 1e-12
_WHITENING_EPS = 5e-4  # of the paper; keeps directions of nearly no variance from becoming mere noise
_CHUNK = 500  # images unfolded at once: 46 MB at 32 px


def speednet(
    *,
    num_classes: int = 10,
    widths: tuple[int, ...] = (64, 256, 256),
    activation: str = "gelu",
    batch_norm_momentum: float = 0.4,
    logit_scale: float = 0.1111111111111111,
    whiten_bias_epochs: int = 3,
) -> nn.Module:
    """Net of airbench94; 1,971,352 trainable parameters and 1,440 frozen ones, 118.15 M multiply-adds at 32 px.

    Args:
        num_classes: K.
        widths: Channels of each group of two convolutions; each group halves the map.
        activation: Row of the ACTIVATIONS table.
        batch_norm_momentum: Share of the batch in the running statistics (torch's convention; 0.6 in airbench's).
        logit_scale: Times the output of the last layer.
        whiten_bias_epochs: Epochs in which the stem's bias is trained; no gradient is computed for the stem afterwards.

    Returns:
        Network with ``whiten``, ``groups`` and ``head``: [B, 3, H, W] -> logits [B, K], for H and W that the groups
        leave a pixel of. ``prepare`` sets the stem from training images; without it the stem is random. ``begin_epoch``
        ends the training of its bias.

    Raises:
        ValueError: A keyword out of range.
    """
    require_widths("widths", widths)
    require(0.0 < batch_norm_momentum <= 1.0, "batch_norm_momentum", batch_norm_momentum, "above 0 and at most 1")
    require(0.0 < logit_scale < float("inf"), "logit_scale", logit_scale, "a number above 0")
    require(whiten_bias_epochs >= 0, "whiten_bias_epochs", whiten_bias_epochs, "0 or more")
    return SpeedNet(num_classes, widths, activation, batch_norm_momentum, logit_scale, whiten_bias_epochs)


class SpeedNet(nn.Module):
    """Whitening stem, groups of two convolutions, global max-pooling, scaled linear head."""

    def __init__(
        self,
        num_classes: int,
        widths: tuple[int, ...],
        activation: str,
        momentum: float,
        logit_scale: float,
        whiten_bias_epochs: int,
    ):
        super().__init__()
        # Each direction comes with both signs: the activation then loses no half of it.
        self.whiten = nn.Conv2d(3, 2 * _PATCH_VALUES, _PATCH)
        self.whiten.weight.requires_grad_(False)
        nn.init.zeros_(self.whiten.bias)  # pyrefly: ignore
        self.act = build_activation(activation)
        pairs = zip((2 * _PATCH_VALUES, *widths), widths, strict=False)
        self.groups = nn.Sequential(*(_group(i, o, activation, momentum) for i, o in pairs))
        self.head = nn.Linear(widths[-1], num_classes, bias=False)
        self.logit_scale, self.whiten_bias_epochs = logit_scale, whiten_bias_epochs
        self.begin_epoch(1)

    def forward(self, images: Tensor) -> Tensor:
        """[B, 3, H, W] -> logits [B, K]."""
        maps = self.groups(self.act(self.whiten(images)))  # [B, widths[-1], 3, 3] for 32 px
        features = F.max_pool2d(maps, maps.shape[-2:]).flatten(1)  # airbench's max-pool 3, for any size
        return self.head(features) * self.logit_scale

    def begin_epoch(self, epoch: int) -> None:
        """Train the stem's bias in the first epochs only; ``epoch`` counts from 1."""
        self.whiten.bias.requires_grad_(epoch <= self.whiten_bias_epochs)  # pyrefly: ignore

    def prepare(self, images: Tensor) -> None:
        """Set the stem from normalized training images [N, 3, H, W]; once, before the first step of a fresh run."""
        init_whitening(self, images)


def _group(in_channels: int, out_channels: int, activation: str, momentum: float) -> nn.Sequential:
    """[B, in, H, W] -> [B, out, H // 2, W // 2]: pooling comes before the first batch norm and makes all that follows cheaper."""
    return nn.Sequential(
        _dirac_conv(in_channels, out_channels),
        nn.MaxPool2d(2),
        _norm(out_channels, momentum),
        build_activation(activation),
        _dirac_conv(out_channels, out_channels),
        _norm(out_channels, momentum),
        build_activation(activation),
    )


def _dirac_conv(in_channels: int, out_channels: int) -> nn.Conv2d:
    """3x3 convolution without bias whose first ``in_channels`` outputs begin as copies of its inputs."""
    conv = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
    nn.init.dirac_(conv.weight.data[:in_channels])
    return conv


def _norm(channels: int, momentum: float) -> nn.BatchNorm2d:
    """Batch norm with a learned bias and a scale that stays 1."""
    norm = nn.BatchNorm2d(channels, eps=_NORM_EPS, momentum=momentum)
    norm.weight.requires_grad_(False)
    return norm


@torch.no_grad()
def init_whitening(model: SpeedNet, images: Tensor) -> None:
    """Set the frozen stem so that its outputs on 2x2 patches are uncorrelated and have unit second moment.

    Row i of the first half is v_i / sqrt(l_i + eps), with l_i, v_i the eigenvalues, largest first, and
    eigenvectors of the patches' second moment E[p p^T]; the second half is its negative. Which of an
    eigenvector's two signs comes first is chosen by rule, not by the library. The same images give the same
    stem up to rounding on every device.

    Args:
        model: Its ``whiten.weight`` is overwritten.
        images: Normalized as in training but not augmented, [N, 3, H, W] at training resolution. 5,000 are enough.

    Raises:
        ValueError: No image, or images of another shape.

    Reference: arXiv:2404.00498, section 3.1; Page, 2019, How to train your ResNet 8: bag of tricks.
    """
    if images.ndim != 4 or len(images) == 0 or images.shape[1] != 3 or min(images.shape[2:]) < _PATCH:
        raise ValueError(f"images of shape {list(images.shape)}; must be [N, 3, H, W] with N of 1 and H, W of {_PATCH} or more")
    values, vectors = torch.linalg.eigh(_second_moment(images))  # ascending; columns are vectors
    values, rows = values.flip(0).clamp(min=0), vectors.T.flip(0)
    largest = rows.gather(1, rows.abs().argmax(dim=1, keepdim=True))
    scaled = rows * largest.sign() / (values + _WHITENING_EPS).sqrt().unsqueeze(1)
    model.whiten.weight.copy_(torch.cat([scaled, -scaled]).view(-1, 3, _PATCH, _PATCH))


def _second_moment(images: Tensor) -> Tensor:
    """Mean of p p^T over all 2x2 patches p of all images, [12, 12] in float64 on the CPU."""
    device = torch.device("cpu") if images.device.type == "mps" else images.device  # MPS has no float64
    total, count = torch.zeros(_PATCH_VALUES, _PATCH_VALUES, dtype=torch.float64, device=device), 0
    for chunk in images.split(_CHUNK):
        columns = F.unfold(chunk.to(device, torch.float32), _PATCH)  # [n, 12, places]
        patches = columns.transpose(1, 2).reshape(-1, _PATCH_VALUES).double()  # values ordered as a kernel's: C, H, W
        total += patches.T @ patches
        count += len(patches)
    return (total / count).cpu()
