"""What a run leaves: predictions made once, the numbers and pictures drawn from them, and its record."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cifar_lab import storage
from cifar_lab.analysis.confusion import save_confusion
from cifar_lab.analysis.curves import save_curves
from cifar_lab.analysis.latency import short_latency
from cifar_lab.analysis.report import save_report
from cifar_lab.analysis.samples import save_samples
from cifar_lab.config import Config
from cifar_lab.data.sets import ImageSet, Splits
from cifar_lab.engine.predict import Predictions, predict
from cifar_lab.engine.weights import BEST, load_into, load_weights
from cifar_lab.frozen import Features, final_batches
from cifar_lab.metrics import softmax, summarize
from cifar_lab.parts import Parts
from cifar_lab.runs import RunFolder
from cifar_lab.signals import StopFlag
from cifar_lab.sittings import Sittings
from cifar_lab.tracking import METRICS_FILE

_LEAST_S, _SHARE = 0.05, 0.05
"""Timing the model may take so many seconds, and so much of the training's time, up to ``train.latency_s``."""


def select_weights(config: Config, parts: Parts, folder: Path) -> int | None:
    """Put the weights that are to be tested into the evaluated model.

    Returns:
        Their epoch; None where nothing was trained.
    """
    done = parts.state.progress.epochs_done
    if done == 0:
        return None
    if config.train.select == "last":
        return done
    tensors, manifest = load_weights(folder / "checkpoints" / BEST)
    load_into(parts.state.eval_model, tensors)
    return manifest["epoch"]


def measure(
    config: Config,
    parts: Parts,
    features: Features,
    folder: RunFolder,
    best_epoch: int | None,
    stop: StopFlag,
    sittings: Sittings,
    *,
    pictures: bool = True,
    timed: bool = True,
    test: bool = True,
) -> dict[str, Any]:
    """Predict every split once with the selected weights, save the predictions, and say all there is to say of them.

    The test set is opened last, and the opening is counted before it happens; without ``test`` it stays shut, and nothing
    is drawn.

    Returns:
        ``metrics``, ``best_epoch``, ``epochs_done``, ``stopped_early``, ``test_openings`` and ``cost``.
    """
    splits = parts.splits
    metrics: dict[str, Any] = {"train": None, "val": None, "test": None}
    predictions: dict[str, tuple[ImageSet, Predictions]] = {}
    openings = 0
    for split, images in (("train", splits.train), ("val", splits.val), ("test", splits.test)):
        if images is None or (split == "test" and not test):
            continue
        if split == "test":
            openings = folder.open_test_set()
        answers = _predict(config, parts, features, split, stop)
        smoothing = config.train.label_smoothing if split == "train" else 0.0
        metrics[split] = summarize(answers.logits, answers.labels, splits.class_names, label_smoothing=smoothing)
        if split != "train":
            predictions[split] = (images, answers)
    storage.write_bytes(folder.path / "predictions.npz", pack_predictions(predictions))
    rows = storage.read_lines(folder.path / METRICS_FILE)
    stopped_early = parts.state.stopper.reason or None
    if test:
        _draw(config, splits, predictions["test"][1], folder.path, rows, best_epoch, stopped_early, pictures)
    cost = {**parts.cost, **_effort(rows, sittings)}
    is_timed = timed and config.train.latency_s > 0
    cost |= _speed(config, parts, cost["train_s"]) if is_timed else {"latency": None, "inference": None}
    if features.by_split:
        cost["features_s"] = features.seconds
    storage.write_json(folder.path / "cost.json", cost)
    return {
        "metrics": metrics,
        "best_epoch": best_epoch,
        "epochs_done": parts.state.progress.epochs_done,
        "stopped_early": stopped_early,
        "test_openings": openings,
        "cost": cost,
    }


def pack_predictions(predictions: Mapping[str, tuple[ImageSet, Predictions]]) -> bytes:
    """predictions.npz: ``{split}_logits`` float32 [N, K], ``{split}_labels`` int64 [N], ``{split}_ids`` int64 [N]."""
    arrays: dict[str, np.ndarray] = {}
    for split, (images, answers) in predictions.items():
        arrays[f"{split}_logits"] = answers.logits.numpy()
        arrays[f"{split}_labels"] = answers.labels.numpy()
        arrays[f"{split}_ids"] = images.ids.numpy()
    packed = io.BytesIO()
    np.savez_compressed(packed, allow_pickle=False, **arrays)
    return packed.getvalue()


def data_record(config: Config, parts: Parts) -> dict[str, Any]:
    """What result.json says about the data."""
    splits = parts.splits
    mean, std = parts.normalization
    return {
        "name": config.data.name,
        "classes": list(splits.class_names),
        "images": splits.counts,
        "image_size": list(splits.train.images.shape[-2:]),
        "normalization": {"mean": list(mean), "std": list(std)},
        "notes": list(splits.notes),
    }


def run_name(config: Config, splits: Splits) -> str:
    """The title of pictures: model, data, and what must be said about the data."""
    notes = f" ({'; '.join(splits.notes)})" if splits.notes else ""
    return f"{config.model.name} on {config.data.name}{notes}"


def _predict(config: Config, parts: Parts, features: Features, split: str, stop: StopFlag) -> Predictions:
    """Logits of one split; of training images without test-time augmentation."""
    state = parts.state
    tta = config.train.tta if split != "train" else "none"
    batches = final_batches(config, parts, features, split, tta)

    def stop_if_asked() -> None:
        stop.check("the final evaluation", kept="all checkpoints")

    return predict(state.eval_model, batches, device=state.device, precision=state.precision, tta=tta, stop=stop_if_asked)


def _draw(
    config: Config,
    splits: Splits,
    test: Predictions,
    folder: Path,
    rows: Sequence[Mapping[str, Any]],
    best_epoch: int | None,
    stopped_early: str | None,
    pictures: bool,
) -> None:
    """Tables of the test set, its pictures, and the learning curves."""
    name = run_name(config, splits)
    probs = softmax(test.logits)
    labels = test.labels.numpy()
    save_confusion(folder, probs, labels, splits.class_names, run_name=name, picture=pictures)
    save_report(folder, probs, labels, splits.class_names, run_name=name)
    if not pictures:
        return
    stopped_epoch = rows[-1]["epoch"] if stopped_early else None
    save_curves(folder, rows, run_name=name, best_epoch=best_epoch, stopped_epoch=stopped_epoch)
    save_samples(folder, splits.test.images.numpy(), labels, probs, splits.class_names, run_name=name, seed=config.seed)


def _effort(rows: Sequence[Mapping[str, Any]], sittings: Sittings) -> dict[str, Any]:
    """Seconds of all epochs with their evaluations, images per second of training alone, and peak memory of all sittings."""
    training = sum(row["train_seconds"] for row in rows)
    images = sum(row["train_seconds"] * row["images_per_s"] for row in rows)
    return {
        "train_s": sum(row["seconds"] for row in rows),
        "images_per_s": images / training if training > 0 else None,
        "peak_memory_mib": sittings.peak_mib(),
        "peak_memory_of": sittings.peak_of,
        "shared": sittings.shared,
    }


def _speed(config: Config, parts: Parts, train_s: float) -> dict[str, Any]:
    """``latency`` and ``inference`` of the tested model, in a time that a short run does not notice.

    The batch is the evaluation's, and no larger than the test set: it needs no memory that the run has not had.
    """
    train, state = config.train, parts.state
    size = config.data.input_size or parts.splits.train.images.shape[-1]
    return short_latency(
        state.eval_model,
        (3, size, size),
        min(train.eval_batch_size, len(parts.splits.test)),
        state.device,
        precision=state.precision,
        channels_last=train.channels_last,
        max_s=min(train.latency_s, _LEAST_S + _SHARE * train_s),
    )
