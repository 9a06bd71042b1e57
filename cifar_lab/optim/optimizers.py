"""Optimisers: torch's own, fused where torch can, with weight decay only where it belongs.

Every builder takes ``params`` (parameters or groups of them) and typed keywords. By default
biases and the parameters of normalization layers are not decayed; the write-ups' recipes, made
with torch's plain ``weight_decay``, decay everything (``decay_all``).
"""

import inspect
import pkgutil
from typing import Any

import torch
from torch import nn

from cifar_lab.optim import OPTIMIZERS
from cifar_lab.optim.checks import require, require_adam, require_not_negative, require_sgd
from cifar_lab.optim.groups import as_groups, hidden_weights, is_fusible, param_groups
from cifar_lab.optim.momentum import begin_momentum


def build_optimizer(name: str, model: nn.Module, *, decay_all: bool = False, **kwargs: Any) -> torch.optim.Optimizer:
    """Build the optimiser of one row of ``OPTIMIZERS`` for a model that is already on its device.

    Args:
        name: Row of the table.
        model: Network; parameters that need no gradient are left out.
        decay_all: Decay biases and normalization parameters too, as torch does by itself.
        **kwargs: The builder's own keywords.

    Raises:
        ValueError: Unknown row, a keyword out of range, or nothing to train.
    """
    require(name in OPTIMIZERS, "optimizer", name, f"one of {', '.join(OPTIMIZERS)}")
    builder = pkgutil.resolve_name(OPTIMIZERS[name])
    wanted = inspect.signature(builder).parameters
    declared = wanted.get("weight_decay")
    weight_decay = kwargs.get("weight_decay", declared.default if declared is not None else 0.0)
    given = {"hidden": hidden_weights(model)} if "hidden" in wanted else {}
    optimizer = builder(param_groups(model, weight_decay, decay_all), **given, **kwargs)
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise ValueError(f"optimizer={name}; {OPTIMIZERS[name]} must return a torch optimiser, not {type(optimizer).__name__}")
    begin_momentum(optimizer)
    return optimizer


def adam(
    params: Any,
    *,
    lr: float = 0.001,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    amsgrad: bool = False,
) -> torch.optim.Optimizer:
    """Adam; weight decay is an L2 penalty added to the gradient.

    Args:
        params: Parameters or groups of them.
        lr: Learning rate.
        betas: Decay of the running means of the gradient and of its square.
        eps: Added to the denominator.
        weight_decay: Times the weight, added to the gradient; 0: off.
        amsgrad: Divide by the largest second moment so far.

    Reference: Kingma and Ba, 2014, arXiv:1412.6980.
    """
    return _adam(torch.optim.Adam, params, lr, betas, eps, weight_decay, amsgrad)


def adamw(
    params: Any,
    *,
    lr: float = 0.001,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.01,
    amsgrad: bool = False,
) -> torch.optim.Optimizer:
    """Adam with decoupled weight decay: the weights shrink by lr * weight_decay, whatever the gradient.

    Args:
        params: Parameters or groups of them.
        lr: Learning rate.
        betas: Decay of the running means of the gradient and of its square.
        eps: Added to the denominator.
        weight_decay: Share of the weight, times lr, taken off in each step; 0: off.
        amsgrad: Divide by the largest second moment so far.

    Reference: Loshchilov and Hutter, 2017, arXiv:1711.05101.
    """
    return _adam(torch.optim.AdamW, params, lr, betas, eps, weight_decay, amsgrad)


def _adam(
    kind: type[torch.optim.Adam],
    params: Any,
    lr: float,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float,
    amsgrad: bool,
) -> torch.optim.Optimizer:
    """Adam, or AdamW, which is a kind of it in torch."""
    groups = as_groups(params)
    require_adam(lr, betas, eps, weight_decay)
    return kind(
        groups, lr=lr, betas=(betas[0], betas[1]), eps=eps, weight_decay=weight_decay, amsgrad=amsgrad, fused=is_fusible(groups)
    )


def sgd(
    params: Any, *, lr: float = 0.01, momentum: float = 0.0, nesterov: bool = False, weight_decay: float = 0.0
) -> torch.optim.Optimizer:
    """Stochastic gradient descent.

    Args:
        params: Parameters or groups of them.
        lr: Learning rate.
        momentum: Share of the last step that is kept; 0: plain SGD.
        nesterov: Look ahead along the momentum; needs momentum.
        weight_decay: Times the weight, added to the gradient; 0: off.

    Reference: Sutskever, Martens, Dahl, Hinton, 2013, On the importance of initialization and momentum in deep learning.
    """
    groups = as_groups(params)
    require_sgd(lr, momentum, nesterov, weight_decay)
    return torch.optim.SGD(
        groups, lr=lr, momentum=momentum, nesterov=nesterov, weight_decay=weight_decay, fused=is_fusible(groups)
    )


def rmsprop(
    params: Any,
    *,
    lr: float = 0.001,
    alpha: float = 0.99,
    eps: float = 1e-8,
    momentum: float = 0.0,
    centered: bool = False,
    weight_decay: float = 0.0,
) -> torch.optim.Optimizer:
    """RMSprop: the gradient divided by the root of a running mean of its square; torch has no fused one.

    Args:
        params: Parameters or groups of them.
        lr: Learning rate.
        alpha: Share of the running mean of the square that is kept.
        eps: Added to the denominator, after the root, as in torch.
        momentum: Share of the last step that is kept; 0: off.
        centered: Divide by the standard deviation instead.
        weight_decay: Times the weight, added to the gradient; 0: off.

    Reference: Tieleman and Hinton, 2012, Coursera: Neural networks for machine learning, lecture 6.5; Graves, 2013,
    arXiv:1308.0850, equations 38 to 45, for the centered one.
    """
    groups = as_groups(params)
    require_not_negative(lr=lr, eps=eps, weight_decay=weight_decay)
    for key, value in (("alpha", alpha), ("momentum", momentum)):
        require(0.0 <= value < 1.0, key, value, "0 or more and less than 1")
    return torch.optim.RMSprop(
        groups, lr=lr, alpha=alpha, eps=eps, weight_decay=weight_decay, momentum=momentum, centered=centered
    )
