"""Optimisers: torch's own, fused, with weight decay only where it belongs.

Every builder takes ``params`` (parameters or groups of them) and typed keywords. By default
biases and the parameters of normalization layers are not decayed; the write-ups' recipes, made
with torch's plain ``weight_decay``, decay everything (``decay_all``).
"""

import inspect
import pkgutil
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from cifar_lab.optim import OPTIMIZERS
from cifar_lab.optim.checks import require, require_not_negative

_FUSED_DEVICES = ("cpu", "cuda")
_NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)


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
    declared = inspect.signature(builder).parameters.get("weight_decay")
    weight_decay = kwargs.get("weight_decay", declared.default if declared is not None else 0.0)
    optimizer = builder(param_groups(model, weight_decay, decay_all), **kwargs)
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise ValueError(f"optimizer={name}; {OPTIMIZERS[name]} must return a torch optimiser, not {type(optimizer).__name__}")
    return optimizer


def param_groups(model: nn.Module, weight_decay: float, decay_all: bool = False) -> list[dict[str, Any]]:
    """Split the trainable parameters into decayed and undecayed ones.

    Undecayed are biases, parameters of normalization layers and everything else with fewer than
    two dimensions. Without a difference to make (no decay, or all decayed) there is one group,
    because each group costs the fused optimisers one more kernel.

    Args:
        model: Network.
        weight_decay: Of the decayed group; 0: off.
        decay_all: Put all parameters into the decayed group.

    Raises:
        ValueError: The model has no trainable parameter.
    """
    norms = {id(p) for module in model.modules() if isinstance(module, _NORMS) for p in module.parameters(recurse=False)}
    named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    if not named:
        raise ValueError("the model has no trainable parameter")
    if decay_all or weight_decay == 0:
        return [{"params": [p for _, p in named], "weight_decay": weight_decay}]

    def is_decayed(name: str, parameter: nn.Parameter) -> bool:
        is_bias = name.rpartition(".")[2] == "bias"
        return parameter.ndim >= 2 and id(parameter) not in norms and not is_bias

    decayed = [p for n, p in named if is_decayed(n, p)]
    undecayed = [p for n, p in named if not is_decayed(n, p)]
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": undecayed, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


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
    groups = _groups(params)
    _check_adam(lr, betas, eps, weight_decay)
    return torch.optim.Adam(
        groups, lr=lr, betas=(betas[0], betas[1]), eps=eps, weight_decay=weight_decay, amsgrad=amsgrad, fused=_fusible(groups)
    )


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
    groups = _groups(params)
    _check_adam(lr, betas, eps, weight_decay)
    return torch.optim.AdamW(
        groups, lr=lr, betas=(betas[0], betas[1]), eps=eps, weight_decay=weight_decay, amsgrad=amsgrad, fused=_fusible(groups)
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
    groups = _groups(params)
    require_not_negative(lr=lr, weight_decay=weight_decay)
    require(0.0 <= momentum < 1.0, "momentum", momentum, "0 or more and less than 1")
    require(not nesterov or momentum > 0, "nesterov", nesterov, "false where momentum=0")
    return torch.optim.SGD(groups, lr=lr, momentum=momentum, nesterov=nesterov, weight_decay=weight_decay, fused=_fusible(groups))


def _check_adam(lr: float, betas: tuple[float, float], eps: float, weight_decay: float) -> None:
    require_not_negative(lr=lr, eps=eps, weight_decay=weight_decay)
    require(
        len(betas) == 2 and all(0.0 <= b < 1.0 for b in betas), "betas", list(betas), "two numbers, 0 or more and less than 1"
    )


def _groups(params: Iterable[Any]) -> list[dict[str, Any]]:
    """Parameters or groups as a list of groups, safe to read twice (``model.parameters()`` is not)."""
    items = list(params)
    if items and isinstance(items[0], dict):
        return [{**group, "params": list(group["params"])} for group in items]
    return [{"params": items}]


def _fusible(groups: list[dict[str, Any]]) -> bool:
    """Whether torch has one fused kernel for all parameters: floating point, on a CPU or a CUDA device."""
    return all(p.device.type in _FUSED_DEVICES and p.is_floating_point() for group in groups for p in group["params"])
