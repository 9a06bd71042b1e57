"""Sharpness-aware minimization: SGD with the gradient of the worst weights near by."""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

from cifar_lab.optim.checks import require_not_negative, require_sgd
from cifar_lab.optim.groups import as_groups, is_fusible

_SMALLEST_NORM = 1e-12  # a gradient of zero leaves the weights where they are


class SAM(torch.optim.SGD):
    """SGD whose gradient is to be taken a second time, inside ``perturbed``.

    One step is: backward; ``with optimizer.perturbed():`` clear the gradients and go forward and backward on the same
    batch again; ``step()``. The step itself is SGD's, fused, from the weights of before and with their weight decay,
    which equation 1 of the paper has outside of the perturbed loss. Without ``perturbed`` this is SGD.

    Args:
        params: Parameters or groups of them.
        rho: Length of the perturbation, over all parameters together.
        **kwargs: Those of ``torch.optim.SGD``.
    """

    def __init__(self, params: Any, *, rho: float, **kwargs: Any):
        super().__init__(params, **kwargs)
        self.defaults["rho"] = rho
        for group in self.param_groups:
            group.setdefault("rho", rho)

    @contextlib.contextmanager
    def perturbed(self) -> Iterator[None]:
        """Stand at w + rho * g / |g| for the gradients g of now; the weights are put back exactly, whatever happens.

        Reference: equation 2 with p = 2. Nothing here waits for the device.
        """
        moved = [(p, group["rho"]) for group in self.param_groups for p in group["params"] if p.grad is not None]
        params = [p for p, _ in moved]
        kept = [p.detach().clone() for p in params]  # adding and subtracting would not give the same bits
        gradients = [p.grad for p in params if p.grad is not None]
        if params:
            with torch.no_grad():
                norm = torch.nn.utils.get_total_norm(gradients) + _SMALLEST_NORM
                steps = torch._foreach_mul(torch._foreach_div(gradients, norm), [rho for _, rho in moved])
                torch._foreach_add_(params, steps)
        try:
            yield
        finally:
            if params:
                with torch.no_grad():
                    torch._foreach_copy_(params, kept)


def sam(
    params: Any,
    *,
    lr: float = 0.1,
    rho: float = 0.05,
    momentum: float = 0.9,
    nesterov: bool = False,
    weight_decay: float = 0.0,
) -> torch.optim.Optimizer:
    """Sharpness-aware minimization over SGD: two passes a step, so about twice the time; not with fp16.

    Args:
        params: Parameters or groups of them.
        lr: Learning rate.
        rho: How far away, in the direction of the gradient, the gradient of the step is taken; 0: SGD, at twice the price.
        momentum: Share of the last step that is kept; 0: plain SGD.
        nesterov: Look ahead along the momentum; needs momentum.
        weight_decay: Times the weight, added to the gradient; 0: off.

    Reference: Foret, Kleiner, Mobahi, Neyshabur, 2020, arXiv:2010.01412, algorithm 1.
    """
    groups = as_groups(params)
    require_sgd(lr, momentum, nesterov, weight_decay)
    require_not_negative(rho=rho)
    return SAM(groups, rho=rho, lr=lr, momentum=momentum, nesterov=nesterov, weight_decay=weight_decay, fused=is_fusible(groups))
