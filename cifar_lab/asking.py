"""A run's model asked about photos: `cifar-lab predict`. The photo takes the way of the run's own test images."""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.markup import escape
from rich.table import Table

from cifar_lab.display import table_console
from cifar_lab.errors import CheckpointError, ConfigError, DataError
from cifar_lab.metrics import softmax
from cifar_lab.saved import SavedRun, load_run


@dataclass(frozen=True)
class Answer:
    """What a run says of one file.

    Args:
        file: As it was named.
        top: Class names and probabilities, the most probable first; empty if the file cannot be read.
        error: Why it cannot; empty if it can.
    """

    file: str
    top: tuple[tuple[str, float], ...]
    error: str


def photo_files(places: Sequence[str]) -> list[Path]:
    """The files to ask about; a folder stands for the pictures in it, by name.

    Raises:
        DataError: A folder holds no picture.
    """
    from cifar_lab.data.folder import SUFFIXES

    files: list[Path] = []
    for place in map(Path, places):
        if not place.is_dir():
            files.append(place)
            continue
        inside = sorted(path for path in place.iterdir() if path.suffix.lower() in SUFFIXES and not path.name.startswith("."))
        if not inside:
            raise DataError(f"{place} holds no pictures", hint=f"files that end in {', '.join(sorted(SUFFIXES))} are looked for")
        files += inside
    return files


def ask(run: SavedRun, files: Sequence[Path], top: int) -> list[Answer]:
    """Ask a run about photos of any size and kind.

    Each is turned by its EXIF mark, put on white where transparent, brought to the run's picture size (shorter side
    resized, middle square) and normalised as the run's test images were; of an animation the first frame counts.

    Args:
        run: With weights.
        files: Pictures; one that cannot be read gets an answer that says why.
        top: Classes of each answer, at most.

    Returns:
        One answer per file, in order.

    Raises:
        CheckpointError: The run kept no weights.
    """
    from cifar_lab.data.folder import read_picture

    height, width = run.result["data"]["image_size"]
    if height != width:
        raise CheckpointError(f"{run.path} was trained on pictures of {width}x{height} pixels; only square ones can be predicted")
    pixels: dict[Path, np.ndarray] = {}
    errors: dict[Path, str] = {}
    for file in dict.fromkeys(files):
        try:
            if not file.is_file():
                raise DataError(f"{file}: no such file")
            pixels[file] = read_picture(file, height)
        except DataError as error:
            errors[file] = " ".join(error.what.split())
    logits = dict(zip(pixels, answer_pictures(run, np.stack(list(pixels.values()))), strict=True)) if pixels else {}
    return [Answer(str(f), _top(run, logits[f], top) if f in logits else (), errors.get(f, "")) for f in files]


def answer_pictures(run: SavedRun, pictures: np.ndarray) -> np.ndarray:
    """Logits float32 [N, K] of pictures uint8 [N, H, W, 3], with the run's precision and test-time augmentation, on the CPU."""
    import torch

    from cifar_lab.data.batches import Batches
    from cifar_lab.data.sets import ImageSet
    from cifar_lab.engine.predict import predict

    count = len(pictures)
    images = torch.from_numpy(np.ascontiguousarray(pictures.transpose(0, 3, 1, 2)))
    asked = ImageSet(images, torch.zeros(count, dtype=torch.int64), torch.arange(count))
    settings, normalization = run.config["train"], run.result["data"]["normalization"]
    batches = Batches(
        asked,
        batch_size=min(settings["eval_batch_size"], count),
        mean=normalization["mean"],
        std=normalization["std"],
        channels_last=settings["channels_last"],
        input_size=run.config["data"]["input_size"],
    )
    model = run.model()
    if settings["channels_last"]:
        model = model.to(memory_format=torch.channels_last)  # pyrefly: ignore
    precision = run.result["precision"]
    return predict(model, batches, device=torch.device("cpu"), precision=precision, tta=settings["tta"]).logits.numpy()


def _top(run: SavedRun, logits: np.ndarray, top: int) -> tuple[tuple[str, float], ...]:
    probs = softmax(logits[None])[0]
    order = np.argsort(-probs, kind="stable")[:top]
    return tuple((run.class_names[k], float(probs[k])) for k in order)


def predict_photos(folder: str, places: Sequence[str], *, top: int, as_json: bool) -> None:
    """Ask and print; files that cannot be read are named on stderr, one line each, after the others were answered.

    Raises:
        CheckpointError: The folder is no finished run with weights.
        DataError: There is nothing to ask about, or a file cannot be read.
    """
    if top < 1:
        raise ConfigError(f"--top {top}; must be 1 or more")
    run = load_run(folder, tested=False)
    answers = ask(run, photo_files(places), top)
    if as_json:
        print(json.dumps([_plain(answer) for answer in answers], indent=2, ensure_ascii=False))
    else:
        _print(run, answers)
    broken = [answer.error for answer in answers if answer.error]
    for line in broken[:-1]:
        print(DataError(line).line(), file=sys.stderr)
    if broken:
        raise DataError(broken[-1])


def _plain(answer: Answer) -> dict[str, Any]:
    top = [{"class": name, "probability": probability} for name, probability in answer.top]
    return {"file": answer.file, "top": top, "error": answer.error or None}


def _print(run: SavedRun, answers: Sequence[Answer]) -> None:
    """One line per photo: classes with their probabilities, the most probable first."""
    console = table_console()
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    for answer in answers:
        if answer.top:
            table.add_row(escape(answer.file), *(f"{escape(name)} {100 * p:.1f} %" for name, p in answer.top))
    if table.rows:
        console.print(table)
        console.print(f"by {run.name}, from {run.path}", markup=False, highlight=False, soft_wrap=True)
