"""Pictures of any size and kind in a folder per class."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

from cifar_lab.config import DataConfig
from cifar_lab.data.sets import ImageSet, Progress, Source, Stop
from cifar_lab.errors import ConfigError, DataError

SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm"))
_PARTS = ("train", "val", "test")
_WORKERS = 8
_PROGRESS_EVERY = 64
_LOOKED_AT = 100


def load_folder(config: DataConfig, *, stop: Stop | None = None, progress: Progress | None = None) -> Source:
    """DIR/{train,val,test}/CLASS, or DIR/CLASS to be split by ``data.val_fraction`` and ``data.test_fraction``.

    Classes are the folders' names in alphabetical order; pictures may lie in folders below them. They are
    resized so that the shorter side has ``data.image_size`` pixels (bilinear, antialiased), then the middle
    square is kept. Transparent pixels are put on white.

    Args:
        config: ``data.*``; ``root`` is DIR.
        stop: Called between pictures.
        progress: Called with (what, done, total).

    Raises:
        DataError: If there is nothing to read, a class is empty or unknown, or a picture cannot be read.
    """
    if config.root is None:
        raise ConfigError("data.root=null; data=folder needs the folder of the pictures", hint="use data.root=DIR")
    root = Path(config.root).expanduser()
    if not root.is_dir():
        raise DataError(f"{root} is not a folder")
    parts = [part for part in _PARTS if _folders(root / part)] if _folders(root / "train") else []
    names = [folder.name for folder in _folders(root / "train" if parts else root)]
    if len(names) < 2:
        raise DataError(f"{root} holds {len(names)} class folders; at least 2 are needed", hint="lay it out as DIR/CLASS/PICTURE")
    left_out: list[Path] = []
    found = {part: _list(root / part if parts else root, names, part, left_out) for part in parts or ["train"]}
    total, sets, done = sum(map(len, found.values())), {}, 0
    for part, pictures in found.items():
        images = _read_all([path for path, _ in pictures], config.image_size, done, total, stop, progress)
        labels = torch.tensor([label for _, label in pictures], dtype=torch.int64)
        sets[part] = ImageSet(images, labels, torch.arange(done, done + len(pictures)))
        done += len(pictures)
    notes = [f"{len(left_out)} files that are no pictures were left out, the first is {left_out[0]}"] if left_out else []
    beside = [folder.name for folder in _folders(root) if folder.name not in parts] if parts else []
    if beside:
        notes.append(f"folders beside {', '.join(parts)} were left out: {', '.join(beside)}")
    if config.input_size > config.image_size:
        notes += _lost_detail([path for pictures in found.values() for path, _ in pictures], config)
    return Source(sets["train"], sets.get("test"), sets.get("val"), tuple(names), tuple(notes))


def _lost_detail(paths: Sequence[Path], config: DataConfig) -> list[str]:
    """Whether pictures are stored smaller than they are and then enlarged again for the model, by a look at some of them."""
    looked_at = paths[:: max(1, len(paths) // _LOOKED_AT)]
    larger = 0
    for path in looked_at:
        with Image.open(path) as picture:  # reads no pixels
            larger += min(picture.size) > config.image_size
    if not larger:
        return []
    return [
        f"{larger} of {len(looked_at)} pictures that were looked at are larger than data.image_size={config.image_size}, at which"
        f" they are stored, and are enlarged to data.input_size={config.input_size} again;"
        f" data.image_size={config.input_size} keeps their detail"
    ]


def read_picture(path: Path, size: int) -> np.ndarray:
    """One picture as it is meant to be seen: turned by its EXIF mark, on white, RGB, square.

    Args:
        path: PNG, JPEG, WebP, BMP, GIF (its first frame), TIFF or PNM.
        size: Pixels a side.

    Returns:
        uint8 [size, size, 3].

    Raises:
        DataError: With the file's name, if it cannot be read.
    """
    try:
        with Image.open(path) as opened:
            picture = _to_rgb(ImageOps.exif_transpose(opened))
    except Exception as error:  # decoders raise almost anything on damaged files
        raise DataError(f"{path} cannot be read as a picture: {error}", hint="repair or remove this file") from error
    width, height = picture.size
    shorter = min(width, height)
    left, right = _middle(width, size * width // shorter, size)
    top, bottom = _middle(height, size * height // shorter, size)
    # Only the square is computed, so that a picture of a thousand to one does not grow on its way.
    return np.asarray(picture.resize((size, size), Image.Resampling.BILINEAR, box=(left, top, right, bottom)))


def _middle(length: int, resized: int, size: int) -> tuple[float, float]:
    """Where the middle ``size`` of ``resized`` pixels begin and end in the ``length`` pixels they are made from."""
    first = round((resized - size) / 2)
    return first * length / resized, min((first + size) * length / resized, length)


def _to_rgb(picture: Image.Image) -> Image.Image:
    """RGB, whatever the mode: transparency put on white, 16-bit grey brought down to 8 bits."""
    if picture.mode.startswith("I"):
        grey = np.asarray(picture).astype(np.int64)
        if grey.min() < 0 or grey.max() > 65535:
            raise ValueError(f"grey values {grey.min()} to {grey.max()}; must be 0 to 65535")
        return Image.fromarray(((grey * 255 + 32767) // 65535).astype(np.uint8)).convert("RGB")
    if picture.mode == "F":
        raise ValueError("floating-point pixels have no range that says what is white")
    if "A" in picture.getbands() or "a" in picture.getbands() or "transparency" in picture.info:
        colours = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, "white")
        return Image.alpha_composite(white, colours).convert("RGB")
    return picture.convert("RGB")


def _folders(path: Path) -> list[Path]:
    """Folders in ``path`` by name, without hidden ones; none if it is no folder."""
    if not path.is_dir():
        return []
    return sorted(child for child in path.iterdir() if child.is_dir() and not child.name.startswith("."))


def _hidden(path: Path) -> bool:
    """Whether the file or a folder on the way to it is hidden, as an editor's or a notebook's copies are."""
    return any(part.startswith(".") for part in path.parts)


def _list(folder: Path, names: Sequence[str], part: str, left_out: list[Path]) -> list[tuple[Path, int]]:
    """Pictures and labels, class by class, by name within a class."""
    unknown = [child for child in _folders(folder) if child.name not in names]
    if unknown:
        raise DataError(f"{unknown[0]} is a class without training pictures")
    pictures: list[tuple[Path, int]] = []
    for label, name in enumerate(names):
        within = folder / name
        files = sorted(path for path in within.rglob("*") if path.is_file() and not _hidden(path.relative_to(within)))
        of_class = [path for path in files if path.suffix.lower() in SUFFIXES]
        left_out.extend(path for path in files if path.suffix.lower() not in SUFFIXES)
        if not of_class and part == "train":
            raise DataError(f"{folder / name} holds no pictures")
        pictures.extend((path, label) for path in of_class)
    return pictures


def _read_all(
    paths: Sequence[Path], size: int, done: int, total: int, stop: Stop | None, progress: Progress | None
) -> torch.Tensor:
    """uint8 [N, 3, size, size]; decoding runs side by side, since Pillow lets go of the interpreter's lock."""
    images = np.empty((len(paths), 3, size, size), dtype=np.uint8)
    workers = min(_WORKERS, os.cpu_count() or 1)
    remaining = iter(paths)
    with ThreadPoolExecutor(workers) as pool:
        position = 0
        while batch := list(islice(remaining, _PROGRESS_EVERY)):
            if stop is not None:
                stop()
            for picture in pool.map(lambda path: read_picture(path, size), batch):
                images[position] = picture.transpose(2, 0, 1)
                position += 1
            if progress is not None:
                progress("reading pictures", done + position, total)
    return torch.from_numpy(images)
