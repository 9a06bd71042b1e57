"""A model layer by layer: what each one puts out, holds, multiplies and leaves in memory.

Every parameter, multiply-add and byte belongs to exactly one row, so each column's sum is the network's total.
A row stands for a module's own work: what its children do is theirs, and what a block does by itself, such as the
products of attention or the addition of a shortcut, is the block's.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from cifar_lab.analysis.cost import count_products, plain_attention, undisturbed

COLUMNS = ("num_params", "macs", "activation_bytes")
"""What is added up."""


def layer_table(model: nn.Module, input_shape: Sequence[int], device: torch.device | str = "cpu") -> list[dict[str, Any]]:
    """One picture through the network, in evaluation mode and fp32; the model stays as it was.

    Args:
        model: Network on ``device``.
        input_shape: Shape of one picture, (C, H, W).
        device: Where the model is.

    Returns:
        Rows in the order of the first call. ``name`` is the dotted name (``""``: the network's own work outside its
        children), ``kind`` the class, ``calls`` how often it was called, ``output_shape`` of the last call with a batch of
        one (None where it was not called or returned no tensor), ``num_params`` held by itself (shared ones by the first that
        holds them), ``macs``, and ``activation_bytes`` of the tensors that it makes. Views and changes in place make
        none; what an operator keeps beside its result counts, such as the places of a max pool's maxima.
    """
    images = torch.zeros(1, *input_shape, device=device)
    own_macs = _own(count_products(model, input_shape, device).by_module)
    watch = _Watch(model, images)
    with undisturbed(model, images.device), plain_attention(), watch.hooks(), watch:
        model(images)
    held: set[int] = set()
    rows: list[dict[str, Any]] = []
    for name, module in model.named_modules():
        parameters = [p for p in module.parameters(recurse=False) if id(p) not in held]
        held |= {id(p) for p in parameters}
        row = {
            "name": name,
            "kind": type(module).__name__,
            "calls": watch.calls[name],
            "output_shape": watch.shapes.get(name),
            "num_params": sum(p.numel() for p in parameters),
            "macs": own_macs.get(name, 0),
            "activation_bytes": watch.bytes[name],
        }
        is_layer = row["calls"] > 0 and next(module.children(), None) is None
        if is_layer or any(row[column] for column in COLUMNS):
            rows.append(row)
    order = {name: place for place, name in enumerate(watch.calls)}
    return sorted(rows, key=lambda row: order.get(row["name"], len(order)))


def totals(rows: Sequence[dict[str, Any]]) -> dict[str, int]:
    """The sum of each column that can be added up."""
    return {column: sum(row[column] for row in rows) for column in COLUMNS}


def _own(by_module: dict[str, int]) -> dict[str, int]:
    """Counts without those of the children, from counts with them."""
    own = dict(by_module)
    for name, count in by_module.items():
        if name:
            own[name.rpartition(".")[0]] -= count
    return own


class _Watch(TorchDispatchMode):
    """Sees every operator and says which module has made which new memory.

    Tensors are kept until the watch itself is gone: memory that is freed would be given out again, and look known.
    """

    def __init__(self, model: nn.Module, images: Tensor):
        super().__init__()
        self._model = model
        self._known = {_place(t) for t in (*model.parameters(), *model.buffers(), images)}
        self._kept: list[Tensor] = []
        self._within: list[str] = []
        self.calls: dict[str, int] = defaultdict(int)
        self.bytes: dict[str, int] = defaultdict(int)
        self.shapes: dict[str, list[int]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operator and count what is new in its results."""
        results = func(*args, **(kwargs or {}))
        for result in results if isinstance(results, tuple | list) else (results,):
            if isinstance(result, Tensor) and result.numel() and _place(result) not in self._known:
                self._known.add(_place(result))
                self._kept.append(result)
                self.bytes[self._within[-1] if self._within else ""] += result.untyped_storage().nbytes()
        return results

    @contextmanager
    def hooks(self) -> Iterator[None]:
        """Inside this, modules say when they are called."""
        handles = []
        for name, module in self._model.named_modules():
            handles.append(module.register_forward_pre_hook(self._enter(name)))
            handles.append(module.register_forward_hook(self._leave(name)))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _enter(self, name: str) -> Any:
        def hook(module: nn.Module, inputs: Any) -> None:
            self.calls[name] += 1
            self._within.append(name)

        return hook

    def _leave(self, name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            self._within.pop()
            first = output[0] if isinstance(output, tuple | list) and output else output
            if isinstance(first, Tensor):
                self.shapes[name] = list(first.shape)

        return hook


def _place(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
