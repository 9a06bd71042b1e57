"""The only pickles that are read as weights: those whose every byte is known beforehand."""

import io
from pathlib import Path
from typing import TYPE_CHECKING

from cifar_lab.errors import CheckpointError
from cifar_lab.storage.files import sha256_bytes

if TYPE_CHECKING:
    from torch import Tensor

LISTED: dict[str, str] = {
    "b03531047ffacf1e2488318dcd2aba1126cde36e3bfe1aa5cb07700aeeee9889": "torchvision's mobilenet_v2, IMAGENET1K_V1",
    "7ebf99e03e254b273379b23edca7ec0da9f48273b23a332b93c1c99d49e86e8f": "torchvision's mobilenet_v2, IMAGENET1K_V2",
    "7f5810bc96def8f7552d5b7e68d53c4786f81167d28291b21c0d90e1fca14934": "torchvision's efficientnet_b0, IMAGENET1K_V1",
    "be38f80a02b537a056c48ecb407191e13dae4c5968458c7cac9056ee9d3380a5": "torchvision's mobilenet_v2, back from int8 in float16",
}
"""SHA-256 of a weight file -> what it is; all were trained on ImageNet."""


def read_listed(path: Path | str) -> "dict[str, Tensor]":
    """Read a ``.pth`` file of tensors by name, if it is on the list.

    ``weights_only`` alone has been broken before; here it reads bytes that somebody has already looked at.

    Returns:
        Tensors in host memory.

    Raises:
        CheckpointError: If the file is not on the list, cannot be read or holds something else.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from error
    if sha256_bytes(data) not in LISTED:
        kind = "a pickle file" if data.startswith((b"PK\x03\x04", b"\x80")) else "a file"
        raise CheckpointError(
            f"{path} is {kind} whose SHA-256 is not on our list; refused",
            hint="`weights: imagenet` fetches torchvision's own; a run folder or checkpoint of cifar-lab is fine too",
            kept="the file is untouched",
        )
    import torch

    tensors = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    if not isinstance(tensors, dict) or not all(isinstance(value, torch.Tensor) for value in tensors.values()):
        raise CheckpointError(f"{path} holds no tensors by name")
    return dict(tensors)
