"""Which parameters an optimiser gets, and in which groups."""

from collections.abc import Iterable
from typing import Any

from torch import nn

_FUSED_DEVICES = ("cpu", "cuda")
_NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
_LAYERS = (nn.Linear, nn.modules.conv._ConvNd)


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


def hidden_weights(model: nn.Module) -> frozenset[int]:
    """``id`` of every weight that maps one hidden layer's values to another's, as one matrix.

    These are the weights of linear layers and convolutions but for the first and the last such layer, in the order in
    which the model was put together: pixels go into the one, logits come out of the other. A grouped convolution is
    many small matrices and is left out, as are embeddings and whatever else a model holds beside its layers.
    """
    layers = [module for module in model.modules() if isinstance(module, _LAYERS)]
    ends = {id(layer.weight) for layer in (layers[0], layers[-1])} if layers else set()
    whole = [layer for layer in layers if getattr(layer, "groups", 1) == 1]
    return frozenset({id(layer.weight) for layer in whole if layer.weight.requires_grad} - ends)


def as_groups(params: Iterable[Any]) -> list[dict[str, Any]]:
    """Parameters or groups as a list of groups, safe to read twice (``model.parameters()`` is not)."""
    items = list(params)
    if items and isinstance(items[0], dict):
        return [{**group, "params": list(group["params"])} for group in items]
    return [{"params": items}]


def is_fusible(groups: list[dict[str, Any]]) -> bool:
    """Whether torch has one fused kernel for all parameters: floating point, on a CPU or a CUDA device."""
    return all(p.device.type in _FUSED_DEVICES and p.is_floating_point() for group in groups for p in group["params"])
