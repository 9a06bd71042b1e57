"""Make a network or an activation from its row in the tables."""

import copy
import inspect
import pkgutil
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from cifar_lab.models import ACTIVATIONS, MODELS


def build_model(name: str, *, num_classes: int, input_size: int, **kwargs: Any) -> nn.Module:
    """Build the network of one row of ``MODELS``, in training mode, on the CPU.

    Args:
        name: Row of the table.
        num_classes: K, the width of the logits.
        input_size: H = W of the images in pixels.
        **kwargs: The builder's own keywords.

    Raises:
        ValueError: Unknown row, a keyword out of range, or a builder that returns no network.
    """
    builder = _resolve("model", name, MODELS)
    given = {"num_classes": num_classes, "input_size": input_size}
    wanted = inspect.signature(builder).parameters
    model = builder(**{key: value for key, value in given.items() if key in wanted}, **kwargs)
    if not isinstance(model, nn.Module):
        raise ValueError(f"model={name}; {MODELS[name]} must return a torch.nn.Module, not {type(model).__name__}")
    return model


def build_activation(name: str) -> nn.Module:
    """Make a new activation from its row in ``ACTIVATIONS``.

    A row may name a module class or a factory (both are called without arguments), a module
    (copied, so that parameters are not shared by accident) or a function of one tensor (wrapped).

    Raises:
        ValueError: Unknown row, or a factory that returns no module.
    """
    row = _resolve("activation", name, ACTIVATIONS)
    if isinstance(row, nn.Module):
        return copy.deepcopy(row)
    if not _takes_no_argument(row):
        if isinstance(row, type):
            raise ValueError(f"activation={name}; {ACTIVATIONS[name]} is a class that needs arguments; give them defaults")
        return Elementwise(row)
    module = row()
    if not isinstance(module, nn.Module):
        raise ValueError(f"activation={name}; {ACTIVATIONS[name]} must return a torch.nn.Module, not {type(module).__name__}")
    return module


class Elementwise(nn.Module):
    """A plain function of a tensor, as a layer."""

    def __init__(self, function: Callable[[Tensor], Tensor]):
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        """Tensor of any shape in, the same shape out."""
        return self.function(x)

    def extra_repr(self) -> str:
        """Shown by ``print(model)``."""
        return getattr(self.function, "__name__", repr(self.function))


def _resolve(kind: str, name: str, table: dict[str, str]) -> Any:
    if name not in table:
        raise ValueError(f"{kind}={name}; must be one of {', '.join(table)}")
    return pkgutil.resolve_name(table[name])


def _takes_no_argument(row: Callable[..., Any]) -> bool:
    """Whether ``row()`` is a legal call: a class or a factory, not a function of a tensor."""
    try:
        parameters = inspect.signature(row).parameters.values()
    except ValueError:  # functions written in C, such as torch.tanh, have no signature
        return False
    optional_kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return all(p.default is not p.empty or p.kind in optional_kinds for p in parameters)
