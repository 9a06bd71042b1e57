"""The weights that a run starts from: another run's, or features that were trained on ImageNet.

``init_from`` fills the whole model. ``model.weights``, which a builder declares and does not read, fills
everything but ``head``. A checkpoint that is resumed from comes after both and has the last word.
"""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from cifar_lab import storage
from cifar_lab.config import Config
from cifar_lab.data.cifar_files import cache_folder
from cifar_lab.data.download import Remote, download, is_right
from cifar_lab.data.sets import Progress, Stop
from cifar_lab.engine.weights import load_into, load_weights
from cifar_lab.errors import CheckpointError, ConfigError, DataError

_HOST = "https://download.pytorch.org/models/"
_MOBILENET_V2 = "7ebf99e03e254b273379b23edca7ec0da9f48273b23a332b93c1c99d49e86e8f"
_EFFICIENTNET_B0 = "7f5810bc96def8f7552d5b7e68d53c4786f81167d28291b21c0d90e1fca14934"
IMAGENET: dict[str, Remote] = {
    "mobilenet_v2": Remote("mobilenet_v2-7ebf99e0.pth", 14_258_573, _MOBILENET_V2),
    "efficientnet_b0": Remote("efficientnet_b0_rwightman-7f5810bc.pth", 21_444_401, _EFFICIENTNET_B0),
}
"""Model -> what ``weights: imagenet`` means for it: torchvision's DEFAULT, IMAGENET1K_V2 and IMAGENET1K_V1."""

_ACTIVATIONS = {"mobilenet_v2": "relu6", "efficientnet_b0": "silu"}
"""What the features were trained with."""

_HEAD, _THEIR_HEAD = "head.", "classifier."
"""What the names of the last layer's tensors begin with, here and in torchvision's files."""


def load_start(config: Config, model: nn.Module, *, stop: Stop | None = None, progress: Progress | None = None) -> list[str]:
    """Put in the weights that the configuration names, if any.

    Args:
        config: ``init_from`` is read; ``model.weights`` where there is none; ``data.download`` allows a download.
        model: Fresh; ``head`` is its last layer.
        stop: Called between pieces of a download.
        progress: Called with (what, done, total).

    Returns:
        What a person should know of it, a line each.

    Raises:
        CheckpointError: The weights cannot be read or do not fit; the first tensor that does not is named.
        DataError: ImageNet weights are not here and cannot be had.
        ConfigError: There are no ImageNet weights for this model.
    """
    source = config.model.settings.get("weights", "none")
    named = isinstance(source, str) and source != "none"
    if config.init_from:
        notes = _load_run(model, config.init_from)
        return [*notes, f"model.weights={source} is not looked at: init_from takes its place"] if named else notes
    if not named:
        untrained = ["model.freeze keeps features that nobody trained: see model.weights and init_from"]
        return untrained if getattr(model, "frozen", False) else []
    tensors, notes = _read(config, source, stop, progress)
    fresh = {name: value for name, value in model.state_dict().items() if name.startswith(_HEAD)}
    try:
        load_into(model, {**tensors, **fresh})
    except CheckpointError as error:
        hint = "the features must be built as those in the file were"
        raise CheckpointError(f"model.weights={source}: {error.what}", hint=hint, kept="the file is untouched") from error
    return notes


def _load_run(model: nn.Module, source: str) -> list[str]:
    """Start from another run's weights; a head for other classes keeps its fresh values."""
    tensors, _ = load_weights(source)
    fresh = _other_head(model.state_dict(), tensors)
    try:
        load_into(model, {**tensors, **fresh})
    except CheckpointError as error:
        raise CheckpointError(
            f"init_from={source}: {error.what}", hint="the model must be built with the same settings"
        ) from error
    if not fresh:
        return []
    what = ", ".join(f"{name} {list(tensors[name].shape)} -> {list(value.shape)}" for name, value in fresh.items())
    return [f"init_from={source}: the head is new, as its shape differs ({what})"]


def _other_head(own: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The model's own tensors of a head that has another shape in the file."""
    return {n: v for n, v in own.items() if n.startswith(_HEAD) and n in tensors and tensors[n].shape != v.shape}


def _read(config: Config, source: str, stop: Stop | None, progress: Progress | None) -> tuple[dict[str, Tensor], list[str]]:
    """Tensors by name of what ``model.weights`` names, without those of its head, and notes on them."""
    if source != "imagenet":
        path = Path(source).expanduser()
        if not path.exists():
            raise CheckpointError(f"model.weights={source}; must be none, imagenet or the path of a file or run")
        if path.is_dir() or path.suffix == ".safetensors":
            return _without(load_weights(path)[0], _HEAD), [f"features from {path}; the head is new"]
    else:
        path = _fetch(config, stop, progress)
    notes = [f"features from {path.name}, trained on ImageNet; the head is new"]
    if config.data.normalize != "imagenet":
        notes.append(f"ImageNet weights expect data.normalize=imagenet; here it is {config.data.normalize}")
    activation, theirs = config.model.settings.get("activation"), _ACTIVATIONS.get(config.model.name)
    if theirs is not None and activation != theirs:
        notes.append(f"model.activation={activation}: the features were trained with {theirs}")
    return _without(storage.read_listed(path), _THEIR_HEAD), notes


def _without(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name: value for name, value in tensors.items() if not name.startswith(prefix)}


def _fetch(config: Config, stop: Stop | None, progress: Progress | None) -> Path:
    """The model's ImageNet weights in the cache folder, downloaded once and verified."""
    remote = IMAGENET.get(config.model.name)
    if remote is None:
        names = ", ".join(IMAGENET)
        raise ConfigError(f"model.weights=imagenet: there are none for {config.model.name}, only for {names}")
    folder = cache_folder() / "weights"
    path = folder / remote.name
    if is_right(path, remote):
        return path
    hint = "or name a file of these weights by model.weights=PATH"
    if not config.data.download:
        raise DataError(f"{remote.name} not in {folder} and data.download=false; put it there", hint=hint)
    with storage.FolderLock(folder, wait=True, stop=stop):
        if is_right(path, remote):  # another run was here meanwhile
            return path
        if path.exists():
            storage.set_aside(path, "size or SHA-256 mismatch")
        try:
            return download(remote, folder, [_HOST + remote.name], stop=stop, progress=progress)
        except DataError as error:
            raise DataError(f"{remote.name} not in {folder} and {error.what}; put it there", hint=hint) from error
