"""What a layer makes of an image, channel by channel, and the kernels that it makes it with."""

import difflib
import math
from functools import partial
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from cifar_lab.analysis.figures import COLUMN, PAGE, QUIET_COLOR, Drawing, headline, shorten
from cifar_lab.analysis.made import LeftOut, Made, Run
from cifar_lab.errors import ConfigError

_MOST_MAPS, _MOST_KERNELS = 64, 16  # channels that one picture shows
_RGB = ("red", "green", "blue")


def features(run: Run, *, layer: str | None = None, image: int | None = None) -> Made:
    """Every channel of a layer's output for one test image, in grey.

    Args:
        run: With a checkpoint, and its data at hand.
        layer: Name of a module; None: the first convolution.
        image: The image's place in its source; None: the first test image.
    """
    model = run.model()
    position = _position(run.image_ids(), image)
    seen = run.seen(position)
    name = layer if layer is not None else first_convolution(model, seen)
    maps, calls = feature_maps(model, name, seen)
    known = run.result["data"]["normalization"]
    mean, std = (torch.tensor(known[key]).view(3, 1, 1) for key in ("mean", "std"))
    picture = (seen[0] * std + mean).clamp(0, 1).permute(1, 2, 0).numpy()
    true, taken_for = (run.class_names[int(of("test")[position])] for of in (run.labels, run.predicted))
    number = int(run.image_ids()[position])
    kind = type(model.get_submodule(name)).__name__
    title = f"{name or 'the model'} ({kind}), {_channels(maps)}"
    about = f"image {number}: {true}, taken for {taken_for}"
    numbers: dict[str, Any] = {
        **{"layer": name, "kind": kind, "image": number, "true": true, "predicted": taken_for, "calls": calls},
        "shape": list(maps.shape),
        "channels": [{"least": float(m.min()), "mean": float(m.mean()), "greatest": float(m.max())} for m in maps],
    }
    return Made(numbers, {"features": partial(_lay_maps, maps, picture, run.name, title, about)})


def kernels(run: Run, *, layer: str | None = None, channel: int | None = None) -> Made:
    """The kernel weights with which a convolution makes one of its channels.

    Args:
        run: With a checkpoint.
        layer: Name of a convolution; None: the first one.
        channel: Output channel, counted from 0; None: 0.
    """
    model = run.model()
    name = layer if layer is not None else first_convolution(model, torch.zeros(run.input_shape()))
    module = _module(model, name)
    if not isinstance(module, nn.Conv2d):
        raise LeftOut(
            f"layer {name} is a {type(module).__name__}, no convolution", hint=f"convolutions: {_named(model, nn.Conv2d)}"
        )
    chosen = channel or 0
    if not 0 <= chosen < module.out_channels:
        raise ConfigError(f"--channel {chosen}; {name} has the channels 0 to {module.out_channels - 1}")
    weights = module.weight[chosen].detach().numpy()
    bias = None if module.bias is None else float(module.bias[chosen].detach())
    first = chosen // (module.out_channels // module.groups) * len(weights)  # input channels of its group
    inputs = [first + i for i in range(len(weights))]
    names = list(_RGB) if module.in_channels == 3 and len(weights) == 3 else [f"input channel {i}" for i in inputs]
    size = " x ".join(str(n) for n in module.kernel_size)
    title = f"{name}, output channel {chosen} of {module.out_channels}: {size} kernels"
    title += f", the first {_MOST_KERNELS} of {len(weights)} inputs" if len(weights) > _MOST_KERNELS else ""
    numbers = {"layer": name, "channel": chosen, "inputs": inputs, "bias": bias, "weights": weights.tolist()}
    return Made(numbers, {"kernels": partial(_lay_kernels, weights[:_MOST_KERNELS], names, bias, run.name, title)})


def first_convolution(model: nn.Module, images: Tensor) -> str:
    """Name of the convolution that is asked first when the model sees images [B, 3, H, W].

    Raises:
        LeftOut: It has none.
    """
    asked: list[str] = []
    hooks = [
        module.register_forward_hook(lambda *_, name=name: asked.append(name))
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d)
    ]
    try:
        with torch.no_grad():
            model(images)
    finally:
        for hook in hooks:
            hook.remove()
    if not asked:
        raise LeftOut("the model has no convolution")
    return asked[0]


def feature_maps(model: nn.Module, name: str, images: Tensor) -> tuple[np.ndarray, int]:
    """Output of a layer for one image [1, 3, H, W], at its first call.

    Returns:
        float32 [C, h, w], and how often the layer was asked.

    Raises:
        ConfigError: There is no such layer, or what it gives are no maps.
    """
    found: list[Any] = []

    def keep(_module: nn.Module, _inputs: Any, output: Any) -> None:
        # A copy: an activation behind the layer may work in place.
        found.append(output.detach().clone() if isinstance(output, Tensor) else output)

    hook = _module(model, name).register_forward_hook(keep)
    try:
        with torch.no_grad():
            model(images)
    finally:
        hook.remove()
    if not found or not isinstance(found[0], Tensor) or found[0].ndim != 4:
        gives = f"tensors {list(found[0].shape)}" if found and isinstance(found[0], Tensor) else "no tensor"
        raise ConfigError(
            f"--layer {name} gives {gives}, no maps [1, C, H, W]", hint=f"convolutions: {_named(model, nn.Conv2d) or 'none'}"
        )
    return found[0][0].float().numpy(), len(found)


def _module(model: nn.Module, name: str) -> nn.Module:
    modules = dict(model.named_modules())
    if name not in modules or not name:
        close = difflib.get_close_matches(name, modules, 1)
        raise ConfigError(
            f"--layer {name}: the model has no such layer" + (f"; did you mean {close[0]}?" if close else ""),
            hint=f"convolutions: {_named(model, nn.Conv2d) or 'none'}",
        )
    return modules[name]


def _named(model: nn.Module, kind: type[nn.Module]) -> str:
    names = [name for name, module in model.named_modules() if isinstance(module, kind)]
    return ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")


def _position(ids: np.ndarray, image: int | None) -> int:
    """Where the image with this place in its source is in the test set."""
    if image is None:
        return 0
    found = np.flatnonzero(ids == image)
    if not len(found):
        raise ConfigError(f"--image {image} is no test image; they are {ids.min()} to {ids.max()}")
    return int(found[0])


def _channels(maps: np.ndarray) -> str:
    count, height, width = maps.shape
    shown = f"the first {_MOST_MAPS} of {count} channels" if count > _MOST_MAPS else f"{count} channel{'s' * (count > 1)}"
    return f"{shown} of {height} x {width}"


def _lay_maps(maps: np.ndarray, picture: np.ndarray, run_name: str, title: str, about: str, column: bool) -> Drawing:
    """The image as the model sees it, then its maps in rows."""
    shown = maps[:_MOST_MAPS]
    many = len(shown) > 20
    if column:  # many are spread over the whole width of a page
        columns, side, size = (8, PAGE / 8, 6.5) if many else (4, COLUMN / 4, 6.5)
    else:
        columns, side, size = 9 if many else 6, 1.25, 8.0
    rows = math.ceil((1 + len(shown)) / columns)

    def draw(figure: Figure) -> None:
        headline(figure, run_name, title)
        panels = figure.subplots(rows, columns, squeeze=False).ravel()
        for axes in panels:
            axes.set_axis_off()
        panels[0].imshow(picture, interpolation="nearest")
        panels[0].set_title(f"input {picture.shape[0]} x {picture.shape[1]}", fontsize=size, pad=2)
        for index, (axes, values) in enumerate(zip(panels[1:], shown, strict=False)):
            axes.imshow(values, cmap="gray", interpolation="nearest")
            axes.set_title(f"{index}: {values.min():.2g} to {values.max():.2g}", fontsize=size * 0.85, pad=2)
        legend = "above each map its channel: least value (black) to greatest value (white)"
        figure.supxlabel(f"{about}\n{legend}", fontsize=size + (0 if column else 1), color=QUIET_COLOR, parse_math=False)

    return draw, columns * side, rows * side * 1.17 + 0.9


def _lay_kernels(weights: np.ndarray, names: list[str], bias: float | None, run_name: str, title: str, column: bool) -> Drawing:
    """A panel for each input, all on one scale around zero."""
    height, width = weights.shape[1:]
    columns = min(len(weights), 3 if column else 4)
    rows = math.ceil(len(weights) / columns)
    side = (COLUMN - 0.6) / 3 if column else min(2.3, 0.5 + 0.75 * max(height, width))
    largest = float(np.abs(weights).max()) or 1.0
    # Points: five letters fit into a cell, 0.6 of their size each.
    size = min(6.5 if column else 9.0, 72 * 0.8 * side / max(height, width) / (5 * 0.6))

    def draw(figure: Figure) -> None:
        headline(figure, run_name, title + ("" if bias is None else f", bias {bias:.3f}"))
        panels = figure.subplots(rows, columns, squeeze=False).ravel()
        for axes in panels[len(weights) :]:
            axes.set_axis_off()
        for axes, values, name in zip(panels, weights, names, strict=False):
            axes.imshow(values, cmap="RdBu_r", vmin=-largest, vmax=largest)
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
            axes.set_title(shorten(name, 18), fontsize=6.5 if column else 10)
            for (row, place), value in np.ndenumerate(values) if size >= 4.0 else ():
                color = "white" if abs(value) > 0.6 * largest else "black"
                axes.text(place, row, f"{value:.2f}", ha="center", va="center", fontsize=size, color=color)
        bar = figure.colorbar(panels[0].images[0], ax=panels.tolist(), shrink=0.8, aspect=25, pad=0.02)
        bar.set_label("weight", fontsize=7 if column else 10)
        bar.outline.set_visible(False)

    return draw, max(columns * side, 2 * side) + (0.6 if column else 1.0), rows * side * height / width + (0.7 if column else 0.9)
