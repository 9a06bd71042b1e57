"""Muon for the hidden weights and Nesterov SGD for the rest: what trains airbench's net in the fewest epochs."""

from collections.abc import Collection
from typing import Any

import torch

from cifar_lab.optim.checks import require, require_not_negative
from cifar_lab.optim.groups import is_fusible
from cifar_lab.optim.muon import Muon, require_muon, split_groups


def muon_sgd(
    params: Any,
    *,
    hidden: Collection[int] | None = None,
    lr: float = 0.24,
    momentum: float = 0.6,
    ns_steps: int = 3,
    keep_norm: bool = True,
    sgd_lr: float = 1.656,
    sgd_momentum: float = 0.85,
    bias_lr_factor: float = 64.0,
    weight_decay: float = 0.0,
) -> torch.optim.Optimizer:
    """Muon for weights between hidden layers, Nesterov SGD for the first and last layer, biases and norms.

    The defaults are for the mean loss over batches of 2,000 and for a network whose every hidden layer is followed by a
    batch norm.

    Args:
        params: Parameters or groups of them.
        hidden: ``id`` of the parameters that Muon takes; None: all with two dimensions or more.
        lr: Learning rate of Muon.
        momentum: Share of Muon's running mean of the gradient that is kept; it looks ahead along it.
        ns_steps: Newton-Schulz iterations.
        keep_norm: Scale every hidden weight to the norm of an orthogonal matrix before each step, instead of decay.
        sgd_lr: Learning rate of SGD; the schedule multiplies both.
        sgd_momentum: Share of SGD's last step that is kept.
        bias_lr_factor: The rate of parameters with one dimension, as a multiple of sgd_lr.
        weight_decay: Share of SGD's parameters taken off in each step at the full rate, whatever that is; 0: off.

    Reference: Jordan, 2024, airbench94_muon in KellerJordan/cifar10-airbench, whose rates are for the sum of the loss, a
    head of unit variance and logits over 256: here 0.053 is 106 for biases and 0.67 is 1.656 for the head.
    """
    require_not_negative(weight_decay=weight_decay)
    require_muon(lr, momentum, ns_steps)
    for key, value in (("sgd_lr", sgd_lr), ("bias_lr_factor", bias_lr_factor)):
        require(0.0 < value < float("inf"), key, value, "a finite number above 0")
    require(0.0 < sgd_momentum < 1.0, "sgd_momentum", sgd_momentum, "more than 0 and less than 1")
    settings = {"lr": lr, "momentum": momentum, "nesterov": True, "ns_steps": ns_steps, "adjust_lr": "none"}
    matrices, others = split_groups(params, hidden, {**settings, "keep_norm": keep_norm})
    for group in matrices:
        group["weight_decay"] = 0.0
    groups = [part for group in others for part in _by_rate(group, sgd_lr, sgd_lr * bias_lr_factor, weight_decay)]
    sgd = torch.optim.SGD(groups, lr=sgd_lr, momentum=sgd_momentum, nesterov=True, fused=is_fusible(groups)) if groups else None
    return Muon(matrices, sgd)


def _by_rate(group: dict[str, Any], lr: float, bias_lr: float, weight_decay: float) -> list[dict[str, Any]]:
    """A group as one of weights and one of biases. torch's SGD multiplies decay by the rate, so it is divided by it here."""
    parts: list[dict[str, Any]] = []
    for rate, is_bias in ((lr, False), (bias_lr, True)):
        if chosen := [p for p in group["params"] if (p.ndim < 2) is is_bias]:
            decay = group.get("weight_decay", weight_decay) / rate
            parts.append({**group, "params": chosen, "lr": rate, "weight_decay": decay})
    return parts
