"""Sweep folders that nobody ran: the files that a sweep leaves, made from given accuracies in a moment."""

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from cifar_lab import storage
from cifar_lab.config import StudyConfig

CLASSES = ("airplane", "bird", "cat", "deer", "frog")
IMAGES = 1000
ENVIRONMENT = {"packages": {"torch": "2.15.0", "numpy": "2.4.6"}, "cpu": "made up", "threads": 1, "device": "cpu"}
COST = {"num_params": 1000, "macs": 50_000, "images_per_s": 2000.0, "train_s": 20.0, "peak_memory_mib": 300.0}


def make_sweep(
    folder: Path,
    accuracies: Mapping[str, Sequence[float | str]],
    *,
    study: Mapping[str, Any] | None = None,
    rounds: Mapping[int, int] | None = None,
    costs: Mapping[str, Mapping[str, Any]] | None = None,
    results: Mapping[tuple[str, int], Mapping[str, Any]] | None = None,
    curves: Mapping[tuple[str, int], Sequence[float | None]] | None = None,
    confused: Mapping[str, str] | None = None,
    facts: Mapping[str, Mapping[str, Any]] | None = None,
    predictions: bool = True,
    name: str = "made",
) -> Path:
    """Write plan.json, facts.json and a folder for each run that was begun.

    Args:
        folder: Of the sweep.
        accuracies: Of each variant, by seed 0, 1, ...: test accuracies, rounded to IMAGES images, or how the run stands:
            ``waiting``, ``unfinished``, ``interrupted``, ``diverged``, or an error code such as ``E-OOM``.
        study: Fields of StudyConfig.
        rounds: Of seeds that were added later.
        costs: Fields of ``cost`` of all runs of a variant.
        results: Fields of result.json of one run (variant, seed), which replace ours.
        curves: Validation accuracies of one run, epoch by epoch; the default climbs to the test accuracy in 6 epochs.
        confused: What images of a class are taken for where they are not recognised; others at random.
        facts: ``variants`` of facts.json.
        predictions: Whether predictions.npz is there.
    """
    jobs = []
    for variant, values in accuracies.items():
        for seed, value in enumerate(values):
            job = _job(variant, seed, (rounds or {}).get(seed, 0))
            jobs.append(job)
            run = folder / job["name"]
            if value == "waiting":
                continue
            storage.make_folder(run)
            storage.write_json(run / "digests.json", {"config": storage.digest(job["config"])})
            reached = value if isinstance(value, float) else 0.1
            curve = (curves or {}).get((variant, seed), [round(reached * k / 6, 4) for k in range(1, 7)])
            if curve:
                storage.write_text(run / "metrics.jsonl", "".join(json.dumps(row) + "\n" for row in _rows(curve)))
            if value == "unfinished":
                continue
            result = _result(job, value, (costs or {}).get(variant, {}), len(curve))
            if isinstance(value, float):
                result["metrics"] = _answers(run, value, seed, variant, confused or {}, predictions)
            result |= (results or {}).get((variant, seed), {})
            storage.write_json(run / "result.json", result)
    plain = {**asdict(StudyConfig()), **(study or {})}
    command = f"cifar-lab train study={name}"
    plan = {"schema": 2, "name": name, "command": command, "code": "c0de", "plugins": [], "study": plain, "jobs": jobs}
    storage.write_json(folder / "plan.json", plan)
    if facts:
        storage.write_json(folder / "facts.json", {"schema": 1, "variants": facts})
    return folder


def pack(**splits: tuple[np.ndarray, np.ndarray]) -> bytes:
    """predictions.npz from predicted classes and labels [N] of each split; logits of 4 for the answer and 0 elsewhere."""
    arrays = {}
    for split, (predicted, labels) in splits.items():
        classes = max(predicted.max(), labels.max(), len(CLASSES) - 1) + 1
        arrays[f"{split}_logits"] = (4 * np.eye(classes)[predicted]).astype(np.float32)
        arrays[f"{split}_labels"] = labels.astype(np.int64)
        arrays[f"{split}_ids"] = 50_000 + np.arange(len(labels))
    packed = io.BytesIO()
    np.savez_compressed(packed, allow_pickle=False, **arrays)
    return packed.getvalue()


def _job(variant: str, seed: int, added: int) -> dict[str, Any]:
    overrides = [*filter(None, variant.split(",")), f"seed={seed}"]
    config: dict[str, Any] = {"seed": seed, "model": {"name": "small_cnn"}, "train": {"epochs": 6}}
    for override in overrides:
        key, _, value = override.partition("=")
        *parents, last = key.split(".")
        inner = config
        for parent in parents:
            inner = inner.setdefault(parent, {})
        inner[last] = seed if last == "seed" else value
    return {"name": ",".join(overrides), "overrides": overrides, "config": config, "variant": variant, "round": added}


def _rows(curve: Sequence[float | None]) -> list[dict[str, Any]]:
    """Two seconds an epoch."""
    rows = []
    for epoch, accuracy in enumerate(curve, start=1):
        row = {"epoch": epoch, "train_loss": 2.3 * 0.8**epoch, "train_accuracy": accuracy, "lr": 0.01, "seconds": 2.0}
        seen = {"val_loss": 2.4 * 0.85**epoch, "val_accuracy": accuracy, "train_seconds": 1.5, "images_per_s": 2000.0}
        rows.append(row | seen)
    return rows


def _result(job: Mapping[str, Any], value: float | str, cost: Mapping[str, Any], epochs: int) -> dict[str, Any]:
    coded = isinstance(value, str) and value.startswith("E-")
    status = "done" if isinstance(value, float) else "failed" if coded else value
    codes = {"diverged": "E-DIVERGED", "failed": value, "interrupted": "E-INTERRUPTED"}
    code = codes.get(str(status))
    return {
        **{"schema": 1, "status": status, "seed": job["config"]["seed"], "model": "small_cnn"},
        "digests": {"config": storage.digest(job["config"]), "code": "c0de", "data": "da7a"},
        "data": {"name": "digits", "classes": list(CLASSES), "images": {"train": 4000, "val": 500, "test": IMAGES}, "notes": []},
        **{
            "device": "cpu",
            "precision": "fp32",
            "environment": ENVIRONMENT,
            "metrics": {"train": None, "val": None, "test": None},
        },
        **{"best_epoch": epochs, "epochs_done": epochs, "stopped_early": None, "test_openings": 1},
        **{"cost": {**COST, **cost}, "seconds": 25.0},
        "error": {"code": code, "message": "made up", "kept": "", "hint": ""} if code else None,
    }


def _answers(
    run: Path, accuracy: float, seed: int, variant: str, confused: Mapping[str, str], predictions: bool
) -> dict[str, Any]:
    """Which images a run gets wrong: hard ones first, with some chance; saves them and returns their metrics."""
    labels = np.arange(IMAGES) % len(CLASSES)
    rng = np.random.default_rng([seed, *variant.encode()])
    hardness = np.random.default_rng(1).normal(size=IMAGES) + 0.5 * rng.normal(size=IMAGES)
    wrong = hardness.argsort()[round(accuracy * IMAGES) :]
    predicted = labels.copy()
    predicted[wrong] = (labels[wrong] + rng.integers(1, len(CLASSES), size=len(wrong))) % len(CLASSES)
    for true, taken in confused.items():
        these = wrong[labels[wrong] == CLASSES.index(true)]
        predicted[these] = CLASSES.index(taken)
    half = slice(0, IMAGES // 2)
    if predictions:
        storage.write_bytes(run / "predictions.npz", pack(val=(predicted[half], labels[half]), test=(predicted, labels)))
    test = _metrics(predicted, labels)
    return {"train": test, "val": _metrics(predicted[half], labels[half]), "test": test}


def _metrics(predicted: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    right = predicted == labels
    per_class = []
    for k, name in enumerate(CLASSES):
        recall, precision = (
            float(right[labels == k].mean()),
            float(right[predicted == k].mean()) if (predicted == k).any() else 0.0,
        )
        f1 = 2 * recall * precision / (recall + precision) if recall + precision else 0.0
        per_class.append({"name": name, "precision": precision, "recall": recall, "f1": f1, "support": int((labels == k).sum())})
    means = {f"{key}_macro": float(np.mean([row[key] for row in per_class])) for key in ("precision", "recall", "f1")}
    accuracy = float(right.mean())
    return {"loss": 3 * (1 - accuracy), "accuracy": accuracy, "top5": 1.0, "nll": 3 * (1 - accuracy), "ece": 0.05, **means} | {
        "per_class": per_class
    }
