"""What a model costs: its parameters, its file and the multiplications of one picture.

A MAC is one multiply-add of a convolution, a linear layer or another matrix product (attention
included) and counts as two FLOPs. Norms, activations, pooling and additions are left out, as papers do,
and listed.
"""

import math
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import safetensors.torch
import torch
from torch import nn

from cifar_lab.engine.weights import host_copy


def model_cost(model: nn.Module, input_shape: Sequence[int], device: torch.device | str = "cpu") -> dict[str, Any]:
    """Count parameters and multiply-adds; the model stays as it was.

    Args:
        model: Network on ``device``.
        input_shape: Shape of one picture, (C, H, W).
        device: Where the model is.

    Returns:
        ``num_params`` (all parameters, shared ones once), ``num_params_trainable``, ``num_params_keras``
        (see ``keras_params``), ``size_bytes`` of the weights on disk, ``macs`` of one picture, ``flops``
        (2 x ``macs``), ``macs_by_operator`` and ``uncounted_operators`` (how often each operator without a
        count was called; fvcore passes over shape changes and plain activations).
    """
    parameters = list(model.parameters())
    counts = count_products(model, input_shape, device)
    by_operator, uncounted = counts.by_operator, counts.uncounted
    macs = sum(by_operator.values())
    return {
        "num_params": sum(p.numel() for p in parameters),
        "num_params_trainable": sum(p.numel() for p in parameters if p.requires_grad),
        "num_params_keras": keras_params(model),
        "size_bytes": size_on_disk(model),
        "macs": macs,
        "flops": 2 * macs,
        "macs_by_operator": dict(sorted(by_operator.items())),
        "uncounted_operators": dict(sorted(uncounted.items())),
    }


def keras_params(model: nn.Module) -> int:
    """What Keras prints as "Total params": parameters, and the running mean and variance of every batch norm.

    Keras counts these two as weights that are not trainable; torch keeps them as buffers. Its counter of
    batches, which Keras has not, is left out.
    """
    statistics = {
        id(buffer): buffer.numel()
        for module in model.modules()
        if isinstance(module, nn.modules.batchnorm._NormBase)
        for buffer in (module.running_mean, module.running_var)
        if buffer is not None
    }
    return sum(p.numel() for p in model.parameters()) + sum(statistics.values())


def size_on_disk(model: nn.Module) -> int:
    """Bytes of ``model.safetensors`` as a checkpoint holds it: all parameters and buffers, and their names."""
    return len(safetensors.torch.save(host_copy(model.state_dict())))


@dataclass(frozen=True)
class Products:
    """Multiply-adds of one picture.

    Attributes:
        by_operator: By the kind of operator.
        by_module: By dotted name of the module, what is inside it included; the whole network is ``""``.
        uncounted: Calls of operators that have no count.
    """

    by_operator: dict[str, int]
    by_module: dict[str, int]
    uncounted: dict[str, int]


def count_products(model: nn.Module, input_shape: Sequence[int], device: torch.device | str = "cpu") -> Products:
    """Trace one picture of shape (C, H, W) through the model and count; the model stays as it was."""
    images = torch.zeros(1, *input_shape, device=device)
    with warnings.catch_warnings(), undisturbed(model, images.device), plain_attention():
        # fvcore is built on torch.jit, which torch deprecates: nothing that a user could act on.
        warnings.filterwarnings("ignore", r"`torch\.jit\.", FutureWarning)
        warnings.filterwarnings("ignore", r"`torch\.jit\.", DeprecationWarning)
        from fvcore.nn import FlopCountAnalysis

        analysis = FlopCountAnalysis(model, images).clear_op_handles().set_op_handle(**_HANDLES)
        analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
        by_operator = {name: int(count) for name, count in analysis.by_operator().items()}
        by_module = {name: int(count) for name, count in analysis.by_module().items()}
        return Products(by_operator, by_module, dict(analysis.unsupported_ops()))


@contextmanager
def undisturbed(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Evaluation mode without gradients inside; afterwards modes, buffers and random generators are what they were."""
    modes = [(module, module.training) for module in model.modules()]
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    devices = [device] if device.type == "cuda" else []
    model.eval()
    try:
        with torch.random.fork_rng(devices), torch.no_grad():
            yield
    finally:
        with torch.no_grad():
            for buffer, saved in buffers:
                buffer.copy_(saved)
        for module, training in modes:
            module.training = training


@contextmanager
def plain_attention() -> Iterator[None]:
    """Without the fused attention of evaluation, which hides its linear layers in one operator."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def _shape(value: Any) -> list[int]:
    """Shape of a traced tensor."""
    return list(value.type().sizes())


def _convolution(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
    """A convolution multiplies the whole kernel once per output place (transposed: per input place)."""
    transposed = len(inputs) > 7 and bool(inputs[6].toIValue())
    places = _shape(inputs[0] if transposed else outputs[0])
    return Counter({"convolution": places[0] * math.prod(places[2:]) * math.prod(_shape(inputs[1]))})


def _product(first: int) -> Callable[[list[Any], list[Any]], Counter[str]]:
    """A matrix product multiplies, per output element, as often as the last side of its first operand is long."""

    def count(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
        name = outputs[0].node().kind().removeprefix("aten::")
        return Counter({name: math.prod(_shape(outputs[0])) * _shape(inputs[first])[-1]})

    return count


def _attention(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
    """Queries times keys, then weights times values: L x S x (E + Ev) per head."""
    query, key, value = (_shape(v) for v in inputs[:3])
    per_head = query[-2] * key[-2] * (query[-1] + value[-1])
    return Counter({"attention": math.prod(query[:-2]) * per_head})


def _einsum(inputs: list[Any], outputs: list[Any]) -> Any:
    """An einsum, along its cheapest path."""
    from fvcore.nn.jit_handles import einsum_flop_jit

    return einsum_flop_jit(inputs, outputs)


_HANDLES: dict[str, Any] = {
    "aten::_convolution": _convolution,
    "aten::_convolution_mode": _convolution,  # padding="same"; fvcore does not know it and would count nothing
    "aten::convolution": _convolution,
    "aten::linear": _product(0),
    "aten::matmul": _product(0),
    "aten::mm": _product(0),
    "aten::mv": _product(0),
    "aten::bmm": _product(0),
    "aten::addmm": _product(1),
    "aten::baddbmm": _product(1),
    "aten::einsum": _einsum,
    "aten::scaled_dot_product_attention": _attention,
}
