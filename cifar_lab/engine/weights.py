"""Weights on the disk: which folder holds them, whether they are what was written, and putting them into a model."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from cifar_lab import storage
from cifar_lab.errors import CheckpointError

SCHEMA = 1
MANIFEST, WEIGHTS, AVERAGED, BEST = "manifest.json", "model.safetensors", "ema.safetensors", "best"


def load_weights(path: Path | str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read the evaluated weights of a run or checkpoint, verified.

    Args:
        path: A run folder (its best weights or, where it has none yet, its newest good checkpoint), ``checkpoints/best``, a
            ``step-*`` folder, or the ``.safetensors`` file in one of them.

    Returns:
        Tensors by name in host memory, and the manifest with ``step`` and ``epoch``.

    Raises:
        CheckpointError: If there are none, they are damaged, or the file is a pickle or foreign.
    """
    path = Path(path)
    if path.is_file():
        folder, name = path.parent, path.name
        if not (folder / MANIFEST).exists():
            raise CheckpointError(
                _foreign(path), hint="name a run folder or one of its checkpoints", kept="the file is untouched"
            )
        if path.suffix != ".safetensors":
            raise CheckpointError(f"{path} holds no weights; refused", hint=f"name {folder}")
    else:
        folder, name = _folder_with_weights(path), ""
    try:
        manifest = verified_manifest(folder)
    except CheckpointError as error:
        hint = "name another checkpoint of the run, such as checkpoints/step-*"
        raise CheckpointError(f"{folder}/{error.what}", hint=hint, kept="the file is untouched") from error
    if not name:
        name = AVERAGED if AVERAGED in manifest["files"] else WEIGHTS
    if name not in manifest["files"]:
        raise CheckpointError(f"{folder / name} is not listed in its manifest; refused")
    return read_tensors(folder / name), manifest


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Tensors by name, in host memory, of a safetensors file."""
    try:
        return safetensors.torch.load(path.read_bytes())
    except safetensors.SafetensorError as error:
        raise CheckpointError(f"{path} is no safetensors file: {error}", kept="the file is untouched") from error


def host_copy(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies in host memory, contiguous, sharing nothing."""
    copies = {}
    for name, value in tensors.items():
        if not isinstance(value, Tensor):
            raise CheckpointError(f"{name} is a {type(value).__name__}, which a checkpoint cannot hold")
        copies[name] = torch.empty(value.shape, dtype=value.dtype).copy_(value.detach())
    return copies


def load_into(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Put weights into a model, keeping its device, precision and memory format.

    Raises:
        CheckpointError: Naming the first tensor that is missing, left over or of another shape.
    """
    own = model.state_dict()
    for name in [*own, *tensors]:
        if name not in tensors or name not in own:
            raise CheckpointError(f"tensor {name} is only in the {'model' if name in own else 'file'}")
        if own[name].shape != tensors[name].shape:
            raise CheckpointError(f"tensor {name} is {list(tensors[name].shape)}; the model has {list(own[name].shape)}")
    model.load_state_dict(dict(tensors))


def verified_manifest(folder: Path, kind: str = "") -> dict[str, Any]:
    """The manifest of a checkpoint whose files all are what it says.

    Raises:
        CheckpointError: ``model.safetensors: sha256 mismatch`` and the like.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
        schema, holds = manifest["schema"], manifest["kind"]
        files = {name: (expected["size"], expected["sha256"]) for name, expected in manifest["files"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{MANIFEST}: unreadable ({type(error).__name__})") from error
    if schema != SCHEMA:
        raise CheckpointError(f"{MANIFEST}: schema {schema}; this version reads {SCHEMA}")
    if kind and holds != kind:
        raise CheckpointError(f"{MANIFEST}: holds {holds} where {kind} is needed")
    for name, (size, sha256) in files.items():
        path = folder / name
        if path.name != name or not path.is_file():
            raise CheckpointError(f"{name}: missing")
        try:
            found, digest = path.stat().st_size, storage.sha256_file(path)
        except OSError as error:
            raise CheckpointError(f"{name}: unreadable ({error.strerror})") from error
        if found != size:
            raise CheckpointError(f"{name}: {found} bytes where {size} were written")
        if digest != sha256:
            raise CheckpointError(f"{name}: sha256 mismatch")
    return manifest


def step_folders(folder: Path) -> list[Path]:
    """Checkpoints to resume from, newest first."""
    found = [p for p in folder.glob("step-*") if p.name.removeprefix("step-").isdecimal()]
    return sorted(found, key=lambda p: int(p.name.removeprefix("step-")), reverse=True)


def newest_verified(folder: Path) -> Path | None:
    """The newest checkpoint to resume from whose files all are what was written; None where there is none."""
    for found in step_folders(folder):
        try:
            verified_manifest(found, "checkpoint")
        except CheckpointError:
            continue
        return found
    return None


def short_name(folder: Path) -> str:
    """How messages call a checkpoint: ``step-120`` for ``step-00000120``."""
    return f"step-{int(folder.name.removeprefix('step-'))}"


def _folder_with_weights(path: Path) -> Path:
    if (path / MANIFEST).exists():
        return path
    inner = path / "checkpoints"
    if (inner / BEST).exists():
        return inner / BEST
    newest = newest_verified(inner)
    if newest is not None:
        return newest
    candidates = [f for f in step_folders(inner) if (f / MANIFEST).exists()]
    if not candidates and (path / "result.json").exists():
        what = "there are no weights in it: evidence has none, nor has a run with train.keep=none or one that soon failed"
        raise CheckpointError(f"{path}: {what}", hint="name another run, or make it again with train.keep=best")
    what = "every checkpoint in it is damaged" if candidates else "no run folder or checkpoint of cifar-lab"
    raise CheckpointError(f"{path}: {what}", hint="name a run folder, its checkpoints/best or one of its checkpoints/step-*")


def _foreign(path: Path) -> str:
    with path.open("rb") as stream:
        head = stream.read(4)
    is_pickle = head.startswith((b"PK\x03\x04", b"\x80"))
    return f"{path} is a pickle file; refused" if is_pickle else f"{path} is no checkpoint of cifar-lab; refused"
