"""SGD's momentum, begun at zero."""

import torch

from cifar_lab.optim.muon import Muon


def begin_momentum(optimizer: torch.optim.Optimizer) -> None:
    """Give every parameter of SGD that has no momentum yet one of zero, also where SGD is the other half of Muon.

    The values are those of torch, which makes a buffer at a parameter's first gradient. But ``torch._fused_sgd_`` takes no
    mixture of parameters with and without one, as layers that are frozen for some epochs would give it, and it leaves new
    buffers unset in a first step that fp16 skips, to read them in the next.
    """
    sgd = optimizer.rest if isinstance(optimizer, Muon) else optimizer
    if not isinstance(sgd, torch.optim.SGD):
        return
    for group in sgd.param_groups:
        if group["momentum"] != 0 and group["dampening"] == 0:
            for parameter in group["params"]:
                if sgd.state[parameter].get("momentum_buffer") is None:
                    sgd.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
