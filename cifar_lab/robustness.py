"""How a finished run does on worse pictures: accuracy by corruption and severity, from the run's own model.

The clean accuracy is that of the saved predictions; nothing clean is predicted again but one batch, which shows that
the model is still the one that was tested.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import torch
from torch import nn

from cifar_lab import memory, runtime, storage
from cifar_lab.analysis import robustness as pictures
from cifar_lab.data import cifar10c, corruptions
from cifar_lab.data.batches import Batches
from cifar_lab.data.sets import ImageSet
from cifar_lab.engine.predict import predict
from cifar_lab.errors import CheckpointError, ConfigError
from cifar_lab.saved import SavedRun

SCHEMA = 1
_CHANGED_ANSWERS = 0.02  # share of a batch whose class another device or thread count may round to another one
Say = Callable[[str], None]


class _Answers:
    """Accuracy of the run's model on sets of pictures, normalized and resized as in the run."""

    def __init__(self, run: SavedRun, device: torch.device, threads: int):
        memory.keep_freed_memory()
        runtime.set_threads(threads)
        runtime.use_device(device)
        self.device, self.run = device, run
        train = run.config["train"]
        self.precision, self.tta = run.result["precision"], train.get("tta", "none")
        known = run.result["data"]["normalization"]
        self.settings: dict[str, Any] = {
            "batch_size": train["eval_batch_size"],
            "mean": known["mean"],
            "std": known["std"],
            "device": device,
            "channels_last": train["channels_last"],
            "input_size": run.config["data"].get("input_size") or 0,
        }
        model: nn.Module = run.model(str(device))
        self.model = model.to(memory_format=torch.channels_last) if train["channels_last"] else model  # pyrefly: ignore

    def classes(self, batches: Batches) -> np.ndarray:
        """int64 [N], the most probable class of each picture."""
        answers = predict(self.model, batches, device=self.device, precision=self.precision, tta=self.tta)
        return answers.logits.argmax(1).numpy()

    def accuracy(self, batches: Batches, labels: torch.Tensor) -> float:
        """Share of right answers."""
        return float((self.classes(batches) == labels.numpy()).mean())

    def check_model(self, images: ImageSet) -> None:
        """Ask about one batch whose answers are saved.

        Raises:
            CheckpointError: The answers are others.
        """
        some = images.take(torch.arange(min(self.settings["batch_size"], len(images))))
        changed = (self.classes(Batches(some, **self.settings)) != self.run.predicted("test")[: len(some)]).mean()
        if changed > _CHANGED_ANSWERS:
            raise CheckpointError(
                f"the weights in {self.run.path} give another class than its saved predictions for {100 * changed:.0f} % of"
                f" {len(some)} test images",
                hint="the checkpoint is not of the weights that were tested, or the model's code has changed",
            )


def measure_robustness(
    run: SavedRun,
    *,
    device: str = "auto",
    threads: int = 0,
    root: str | None = None,
    official: Path | None = None,
    images: int = 0,
    seed: int = 0,
    say: Say = lambda _: None,
) -> dict[str, Any]:
    """Accuracy of a run's model on its test pictures, made worse.

    Args:
        run: With predictions and weights.
        device: Where to ask the model.
        threads: CPU threads; 0: torch's choice.
        root: Where the run's data set is now; None: where it was.
        official: Folder of CIFAR-10-C, whose pictures are asked about as well.
        images: Look at the first so many test pictures only; 0: all.
        seed: Of the noise.
        say: Called with a line for each corruption that is done.

    Returns:
        The content of robustness.json.

    Raises:
        ConfigError: CIFAR-10-C with a run on other data.
        CheckpointError: The run's files do not belong together.
    """
    began = time.perf_counter()
    if official is not None and run.result["data"]["name"] != "cifar10":
        raise ConfigError(f"--cifar10c needs a run on CIFAR-10; {run.path} is on {run.result['data']['name']}")
    source = cifar10c.Cifar10C(official) if official is not None else None
    saved = float((run.predicted("test") == run.labels("test")).mean())
    if saved != run.metrics["test"]["accuracy"]:
        raise CheckpointError(
            f"{run.path}: its predictions are right for {saved:.6f} of the test images, its result.json says"
            f" {run.metrics['test']['accuracy']:.6f}"
        )
    test = run.images("test", root)
    count = min(images, len(test)) if images else len(test)
    answers = _Answers(run, runtime.resolve_device(device), threads)
    answers.check_model(test)
    found: dict[str, Any] = {
        "schema": SCHEMA,
        "run": run.name,
        "device": str(answers.device),
        "precision": answers.precision,
        "images": count,
        "clean_accuracy": float((run.predicted("test") == run.labels("test"))[:count].mean()),
        "corruptions": _ours(answers, test.take(torch.arange(count)), seed, say),
        "cifar10c": None,
    }
    if source is not None:
        source.check_labels(run.ids("test"), run.labels("test"))
        found["cifar10c"] = _official(answers, source, images, say)
    found["seconds"] = time.perf_counter() - began
    return found


def save_robustness(
    folder: Path, run: SavedRun, found: Mapping[str, Any], test: ImageSet, formats: Sequence[str] = ("png",)
) -> list[Path]:
    """Write robustness.json, the picture of accuracy by severity, examples, and where there is one that of CIFAR-10-C.

    Returns:
        The pictures.
    """
    storage.write_json(folder / "robustness.json", found)
    files = pictures.save_severities(folder, found["corruptions"]["results"], found, formats)
    files += pictures.save_examples(folder, *_examples(test, found["corruptions"]["seed"]), run_name=run.name, formats=formats)
    if found["cifar10c"] is not None:
        files += pictures.save_official(folder, found["cifar10c"]["results"], found, formats)
    return files


def _ours(answers: _Answers, test: ImageSet, seed: int, say: Say) -> dict[str, Any]:
    results: dict[str, Any] = {}
    for name, kind in corruptions.CORRUPTIONS.items():
        row = []
        for severity in range(1, corruptions.SEVERITIES + 1):
            worse = corruptions.CorruptedBatches(test, name=name, severity=severity, corruption_seed=seed, **answers.settings)
            row.append(answers.accuracy(worse, test.labels))
        results[name] = {"strengths": list(kind.strengths), "unit": kind.unit, "accuracy": row, "mean": float(np.mean(row))}
        say(_line(name, row))
    return {
        "name": corruptions.NAME,
        "version": corruptions.VERSION,
        "says": "own definitions and strengths, not those of CIFAR-10-C; JPEG by Pillow on the CPU, the others on the device",
        "pillow": PIL.__version__,
        "seed": seed,
        "results": results,
        "mean_accuracy": float(np.mean([row["mean"] for row in results.values()])),
    }


def _official(answers: _Answers, source: cifar10c.Cifar10C, images: int, say: Say) -> dict[str, Any]:
    results: dict[str, Any] = {}
    for name in source.names:
        row = []
        for part in source.severities(name):
            some = part.take(torch.arange(min(images, len(part)))) if images else part
            row.append(answers.accuracy(Batches(some, **answers.settings), some.labels))
        results[name] = {"accuracy": row, "mean": float(np.mean(row)), "in_mean": name in cifar10c.BENCHMARK}
        say(_line(f"CIFAR-10-C {name}", row))
    means = [row["mean"] for row in results.values() if row["in_mean"]]
    return {
        "results": results,
        "mean_accuracy": float(np.mean(means)) if means else None,
        "mean_of": f"{len(means)} of the benchmark's {len(cifar10c.BENCHMARK)} corruptions, five severities each",
        "images": min(images, cifar10c.PICTURES) if images else cifar10c.PICTURES,
    }


def _examples(test: ImageSet, seed: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The first test picture, uint8 [3, H, W], and what becomes of it: uint8 [5, 3, H, W] by corruption."""
    first = test.take(torch.zeros(1, dtype=torch.int64))
    made = {
        name: torch.cat([corruptions.corrupt(first.images, name, severity, first.ids, seed) for severity in range(1, 6)]).numpy()
        for name in corruptions.CORRUPTIONS
    }
    return first.images[0].numpy(), made


def _line(name: str, row: Sequence[float]) -> str:
    return f"{name}: " + ", ".join(f"{100 * accuracy:.2f} %" for accuracy in row)
