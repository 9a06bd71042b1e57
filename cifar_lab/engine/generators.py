"""States of the random generators that dropout and a user's own code draw from.

Order and augmentation of images need none: they are functions of (seed, epoch, image).
"""

import random
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cifar_lab.errors import CheckpointError


def pack_generators(device: torch.device) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """States of Python's, numpy's and torch's generators (that of ``device`` too): tensors, and what JSON holds."""
    version, words, gauss = random.getstate()
    kind, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    tensors = {
        "python": torch.tensor(words, dtype=torch.int64),
        "numpy": torch.from_numpy(np.asarray(keys).astype(np.int64)),
        **torch_states(device),
    }
    record = {
        "device": device.type,
        "python": [version, gauss],
        "numpy": [str(kind), int(position), int(has_gauss), float(cached)],
    }
    return tensors, record


def torch_states(device: torch.device) -> dict[str, Tensor]:
    """States of torch's generators, that of ``device`` too; all in host memory, nobody waits for a device."""
    states = {"torch": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    elif device.type == "mps":
        states["mps"] = torch.mps.get_rng_state()
    return states


def set_torch_states(states: dict[str, Tensor], device: torch.device) -> None:
    """Set torch's generators to what ``torch_states`` gave."""
    torch.set_rng_state(states["torch"])
    if device.type == "cuda":
        torch.cuda.set_rng_state(states["cuda"], device)
    elif device.type == "mps":
        torch.mps.set_rng_state(states["mps"])


def unpack_generators(tensors: dict[str, Tensor], record: dict[str, Any], device: torch.device) -> None:
    """Set all generators to a saved state.

    Raises:
        CheckpointError: If the state was saved on another kind of device, whose draws would differ, or is
            not one that a generator accepts.
        KeyError: If a generator's state is missing.
    """
    if record["device"] != device.type:
        raise CheckpointError(
            f"the run was on {record['device']} and its random generators cannot go on on {device.type}",
            hint=f"resume with device={record['device']}, or start a new run with init_from",
        )
    version, gauss = record["python"]
    kind, position, has_gauss, cached = record["numpy"]
    try:
        random.setstate((version, tuple(tensors["python"].tolist()), gauss))
        np.random.set_state((kind, tensors["numpy"].numpy().astype(np.uint32), position, has_gauss, cached))
        set_torch_states(tensors, device)
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        raise CheckpointError(f"the state of a random generator cannot be restored: {error}") from error
