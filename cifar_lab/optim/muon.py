"""Muon for the hidden matrices of a network and AdamW, or another, for everything else, as one optimiser."""

import contextlib
import math
from collections.abc import Callable, Collection, Iterator
from typing import Any, Literal

import torch
from torch import Tensor

from cifar_lab.optim.checks import require, require_adam, require_not_negative
from cifar_lab.optim.groups import as_groups, is_fusible

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_EPS = 1e-7
_MOST_STEPS = 50


class Muon(torch.optim.Optimizer):
    """Momentum whose every matrix is made orthogonal before it is applied; another optimiser in the groups after those.

    ``torch.optim.Muon`` does the first and takes matrices only. Here a convolution's weight [out, in, k, k] counts as
    the matrix [out, in * k * k], which is how Muon came into the world (Keller Jordan's airbench), and the parameters
    that are no hidden matrices are in the same object: one ``state_dict``, one list of groups, each with its own rate.
    On matrices the updates are those of ``torch.optim.Muon``, to the bit where both iterate in bfloat16.

    Args:
        matrices: Groups with ``lr``, ``momentum``, ``nesterov``, ``weight_decay``, ``ns_steps``, ``adjust_lr`` and, where
            weights keep their size (see ``_update``), ``keep_norm``.
        rest: For all other parameters; None where there are none. Its groups become the last ones of this optimiser.

    Attributes:
        rest: The same; it shares this optimiser's groups and state.
    """

    def __init__(self, matrices: list[dict[str, Any]], rest: torch.optim.Optimizer | None):
        self.rest, self._num_matrix_groups = rest, len(matrices)
        super().__init__([*matrices, *(rest.param_groups if rest is not None else [])], {})
        self._share()
        # As torch's fused optimisers: `found_inf` [] on the device leaves everything as it is where it is 1, and
        # `grad_scale` [] divides the gradients, so that nobody on the host has to wait to know whether to step.
        self._step_supports_amp_scaling = rest is None or getattr(rest, "_step_supports_amp_scaling", False)

    @property
    def has_matrices(self) -> bool:
        """Whether there are any."""
        return self._num_matrix_groups > 0

    def _share(self) -> None:
        """Let the other one see this optimiser's groups and state: what is set or loaded here holds there."""
        if self.rest is not None:
            self.rest.param_groups = self.param_groups[self._num_matrix_groups :]
            self.rest.state = self.state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As torch's, which puts new groups and a new state in the place of the old ones."""
        super().load_state_dict(state_dict)
        self._share()

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # pyrefly: ignore
        """One update of everything.

        Args:
            closure: Not supported; there for torch's signature.
        """
        if closure is not None:
            raise ValueError("Muon takes no closure")
        found_inf, scale = getattr(self, "found_inf", None), getattr(self, "grad_scale", None)
        for group in self.param_groups[: self._num_matrix_groups]:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    gradient = parameter.grad if scale is None else parameter.grad / scale
                    self._update_unless(found_inf, parameter, gradient, group)
        if self.rest is not None:
            with _lent(self.rest, found_inf=found_inf, grad_scale=scale):
                self.rest.step()

    def _update_unless(self, found_inf: Tensor | None, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        """The update, or none where ``found_inf`` is 1: worked out in any case and taken back on the device."""
        if found_inf is None:
            self._update(parameter, gradient, group)
            return
        buffer = self.state[parameter].setdefault("momentum_buffer", torch.zeros_like(parameter))
        kept = [(changed, changed.clone()) for changed in (parameter, buffer)]
        self._update(parameter, gradient, group)
        for changed, before in kept:
            changed.copy_(torch.where(found_inf.bool(), before, changed))

    def _update(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        """Momentum, orthogonal direction, decay and step of one weight [out, ...].

        With ``keep_norm`` the weight is first scaled to the norm of an orthogonal matrix, the root of ``out``: in front of
        a batch norm its size changes nothing but how far a step turns it.
        """
        state, momentum = self.state[parameter], group["momentum"]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        mean = state["momentum_buffer"].lerp_(gradient, 1 - momentum)
        direction = gradient.lerp(mean, momentum) if group["nesterov"] else mean
        matrix = direction.flatten(1)
        step = orthogonalize(matrix, group["ns_steps"], iteration_dtype(matrix.device)).reshape(parameter.shape)
        if group.get("keep_norm", False):
            parameter.mul_(math.sqrt(len(parameter)) / parameter.norm())
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        parameter.add_(step, alpha=-group["lr"] * _rate_factor(group["adjust_lr"], *matrix.shape))


@contextlib.contextmanager
def _lent(optimizer: torch.optim.Optimizer, **attributes: Tensor | None) -> Iterator[None]:
    """Within this the optimiser has the attributes, those that are None left out."""
    given = {name: value for name, value in attributes.items() if value is not None}
    for name, value in given.items():
        setattr(optimizer, name, value)
    try:
        yield
    finally:
        for name in given:
            delattr(optimizer, name)


def iteration_dtype(device: torch.device) -> torch.dtype:
    """bfloat16, as published, on CUDA; elsewhere float32, where bfloat16 may be emulated (45 times slower on AVX2)."""
    return torch.bfloat16 if device.type == "cuda" else torch.float32


def orthogonalize(matrix: Tensor, steps: int, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    """About U V^T of the singular value decomposition U S V^T: [m, n] -> ``dtype`` [m, n].

    A Newton-Schulz iteration of fifth order, whose coefficients trade exactness for speed: the singular values end
    between about 0.7 and 1.2.

    Reference: Jordan and others, 2024, Muon: an optimizer for hidden layers in neural networks; the same operations in
    the same order as torch's.
    """
    a, b, c = _COEFFICIENTS
    x = matrix.to(dtype, copy=True)
    is_tall = x.shape[0] > x.shape[1]
    x = x.T if is_tall else x
    x = x / x.norm().clamp(min=_EPS)  # the largest singular value is at most 1 now
    for _ in range(steps):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if is_tall else x


def _rate_factor(rule: str, rows: int, columns: int) -> float:
    """What the rate of a matrix is multiplied by for its shape."""
    if rule == "none":
        return 1.0
    if rule == "match_rms_adamw":
        return 0.2 * math.sqrt(max(rows, columns))
    return math.sqrt(max(1.0, rows / columns))


def muon(
    params: Any,
    *,
    hidden: Collection[int] | None = None,
    lr: float = 0.02,
    momentum: float = 0.95,
    nesterov: bool = True,
    ns_steps: int = 5,
    adjust_lr: Literal["original", "match_rms_adamw"] = "original",
    weight_decay: float = 0.01,
    adamw_lr: float = 0.001,
    adamw_betas: tuple[float, float] = (0.9, 0.999),
    adamw_eps: float = 1e-8,
) -> torch.optim.Optimizer:
    """Muon for weights between hidden layers, AdamW for the first and last layer, biases and norms.

    A network without such weights is trained by AdamW alone.

    Args:
        params: Parameters or groups of them.
        hidden: ``id`` of the parameters that Muon takes; None: all with two dimensions or more.
        lr: Learning rate of Muon.
        momentum: Share of the running mean of the gradient that is kept.
        nesterov: Look ahead along the momentum.
        ns_steps: Newton-Schulz iterations.
        adjust_lr: Rate by a matrix's shape: Jordan's, for a rate of 0.02 or so, or one that suits the rates of AdamW.
        weight_decay: Share of the weight, times its rate, taken off in each step, by AdamW too; 0: off.
        adamw_lr: Learning rate of AdamW; the schedule multiplies both.
        adamw_betas: Decay of AdamW's running means of the gradient and of its square.
        adamw_eps: Added to AdamW's denominator.

    Reference: Jordan and others, 2024, Muon: an optimizer for hidden layers in neural networks; Liu and others, 2025,
    arXiv:2502.16982, equation 4 for match_rms_adamw.
    """
    require_muon(lr, momentum, ns_steps)
    require_adam(adamw_lr, adamw_betas, adamw_eps, weight_decay, prefix="adamw_")
    require(adjust_lr in ("original", "match_rms_adamw"), "adjust_lr", adjust_lr, "original or match_rms_adamw")

    settings = {"lr": lr, "momentum": momentum, "nesterov": nesterov, "ns_steps": ns_steps, "adjust_lr": adjust_lr}
    matrices, others = split_groups(params, hidden, {**settings, "weight_decay": weight_decay})
    others = [{"weight_decay": weight_decay, **group} for group in others]
    betas = (adamw_betas[0], adamw_betas[1])
    adamw = torch.optim.AdamW(others, lr=adamw_lr, betas=betas, eps=adamw_eps, fused=is_fusible(others)) if others else None
    return Muon(matrices, adamw)


def require_muon(lr: float, momentum: float, ns_steps: int) -> None:
    """Refuse keywords that Muon does not take."""
    require_not_negative(lr=lr)
    require(0.0 <= momentum < 1.0, "momentum", momentum, "0 or more and less than 1")
    require(1 <= ns_steps <= _MOST_STEPS, "ns_steps", ns_steps, f"1 to {_MOST_STEPS}")


def split_groups(
    params: Any, hidden: Collection[int] | None, settings: dict[str, Any]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Groups for Muon, with its settings where a group has none of its own, and groups of all other parameters."""

    def is_matrix(parameter: Tensor) -> bool:
        return parameter.ndim >= 2 and (hidden is None or id(parameter) in hidden)

    matrices: list[dict[str, Any]] = []
    others: list[dict[str, Any]] = []
    for group in as_groups(params):
        if chosen := [p for p in group["params"] if is_matrix(p)]:
            matrices.append({**settings, **group, "params": chosen})
        if rest := [p for p in group["params"] if not is_matrix(p)]:
            others.append({**group, "params": rest})
    return matrices, others
