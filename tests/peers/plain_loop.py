"""How fast is the loop of cifar-lab beside a plain PyTorch loop? Both in one process, taking turns.

The plain loop is what a tutorial teaches: ``torchvision.datasets.CIFAR10`` (PIL images), torchvision
transforms, a ``DataLoader``, torch's optimiser as it comes, ``loss.item()`` at every step. The loop
of cifar-lab is made of the parts of a real run: ``build_parts`` and ``fit``.

Both sides have the same model with the same first weights, the same images, batch size, augmentation
and number of threads, and both evaluate on the same validation images after each epoch. A timed
repetition is one epoch with its evaluation, from the first batch to the validation accuracy.
Included: making the batches, augmentation, forward, backward, optimiser, counting of loss and hits.
Not included: reading the data set from disk, building the model, one warm-up epoch, and on both
sides anything written to disk (``--checkpoints`` adds the checkpoint that a run of cifar-lab saves
at each epoch's end; the plain loop saves nothing).
"""

import argparse
import copy
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import torchvision
from peer_rig import cifar10, environment, parse_with_data, parser_for, seconds, versions, wide_console, write_times
from rich.table import Table
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset
from torchvision import transforms

from cifar_lab import runtime
from cifar_lab.config import AugmentConfig, Component, Config, TrainConfig
from cifar_lab.data.sets import Source, Splits
from cifar_lab.engine.checkpoint import Checkpoints
from cifar_lab.engine.fit import fit
from cifar_lab.parts import Parts, build_parts
from cifar_lab.signals import StopFlag

EXAMPLES = """examples:
  python tests/peers/plain_loop.py --data ~/cifar10
  python tests/peers/plain_loop.py --data ~/cifar10 --cases small_cnn_plain --repeats 9 --out result.json
  python tests/peers/plain_loop.py --cases resnet18 --images 1280 --val-images 512 --workers 2 --threads 2
"""
EVAL_BATCH_SIZE = 500
STATISTICS = ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))


@dataclass(frozen=True)
class Case:
    """What is trained, how, and on how many images."""

    model: str
    batch_size: int
    augment: str
    optimizer: str
    lr: float
    images: int
    val_images: int


CASES = {
    "small_cnn_plain": Case("small_cnn", 32, "none", "adam", 0.001, 12_800, 2_000),
    "small_cnn_crop_flip": Case("small_cnn", 32, "crop_flip", "adam", 0.001, 12_800, 2_000),
    "resnet18_crop_flip": Case("resnet18", 128, "crop_flip", "sgd", 0.01, 1_280, 512),
}
AUGMENT = {"none": AugmentConfig(), "crop_flip": AugmentConfig("crop_flip", crop_padding_px=4, flip_probability=0.5)}


class Silent:
    """A tracker that keeps the rows and shows nothing."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def epoch_started(self, epoch: int, epochs: int, num_batches: int) -> None:
        pass

    def advance(self, batches: int, images: int) -> None:
        pass

    def row(self, row: dict[str, Any]) -> None:
        self.rows.append(row)

    def note(self, text: str) -> None:
        pass


class NoCheckpoints(Checkpoints):
    """Checkpoints of a run that writes nothing."""

    def due(self) -> bool:
        return False

    def save(self, state: Any, *, best: bool = False) -> None:
        pass


class Ours:
    """One side: the parts of a run of cifar-lab."""

    def __init__(self, case: Case, source: Source, folder: Path | None):
        positions = torch.arange(len(source.train))
        train, val = source.train.take(positions[: case.images]), source.train.take(positions[-case.val_images :])
        splits = Splits(train, val, val, source.class_names, (), "")
        self.config = Config(
            seed=0,
            augment=AUGMENT[case.augment],
            model=Component(case.model),
            optimizer=Component(case.optimizer, {"lr": case.lr}),
            train=TrainConfig(epochs=0, batch_size=case.batch_size, eval_batch_size=EVAL_BATCH_SIZE),
        )
        self.parts: Parts = build_parts(self.config, splits, torch.device("cpu"))
        self.first_weights = copy.deepcopy(self.parts.state.model).to(memory_format=torch.contiguous_format)  # pyrefly: ignore
        self.tracker = Silent()
        self.checkpoints = Checkpoints(folder) if folder else NoCheckpoints(Path())

    def epoch(self) -> tuple[float, float]:
        """Train an epoch and evaluate; validation loss and accuracy."""
        self.config.train.epochs += 1
        parts = self.parts
        fit(
            parts.state,
            parts.train,
            parts.val,
            self.config.train,
            tracker=self.tracker,
            checkpoints=self.checkpoints,
            stop=StopFlag(),
        )
        return self.tracker.rows[-1]["val_loss"], self.tracker.rows[-1]["val_accuracy"]

    def describe(self) -> str:
        layout = "channels_last" if self.config.train.channels_last else "NCHW"
        return f"{self.config.train.precision}, {layout}"


class Plain:
    """The other side: a plain loop with a DataLoader."""

    def __init__(self, case: Case, model: nn.Module, root: Path, workers: int):
        normalize = [transforms.ToTensor(), transforms.Normalize(*STATISTICS)]
        moved = [transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip()]
        train = transforms.Compose([*moved, *normalize] if case.augment == "crop_flip" else normalize)
        self.model = model
        self.optimizer: torch.optim.Optimizer
        if case.optimizer == "adam":
            self.optimizer = torch.optim.Adam(model.parameters(), lr=case.lr)
        else:
            self.optimizer = torch.optim.SGD(model.parameters(), lr=case.lr)
        train_set = torchvision.datasets.CIFAR10(str(root), train=True, download=False, transform=train)
        val_set = torchvision.datasets.CIFAR10(str(root), train=True, download=False, transform=transforms.Compose(normalize))
        first_val = len(val_set) - case.val_images
        keep: dict[str, Any] = {"num_workers": workers, "persistent_workers": workers > 0}
        self.train = DataLoader(Subset(train_set, range(case.images)), batch_size=case.batch_size, shuffle=True, **keep)
        self.val = DataLoader(Subset(val_set, range(first_val, len(val_set))), batch_size=EVAL_BATCH_SIZE, **keep)

    def epoch(self) -> tuple[float, float]:
        """Train an epoch and evaluate; validation loss and accuracy."""
        self.model.train()
        running_loss, hits, seen = 0.0, 0, 0
        for images, labels in self.train:
            self.optimizer.zero_grad()
            logits = self.model(images)
            loss = F.cross_entropy(logits, labels)
            loss.backward()
            self.optimizer.step()
            running_loss += loss.item() * labels.size(0)
            hits += (logits.argmax(1) == labels).sum().item()
            seen += labels.size(0)
        return self.evaluate()

    @torch.no_grad()
    def evaluate(self) -> tuple[float, float]:
        self.model.eval()
        total, hits, seen = 0.0, 0, 0
        for images, labels in self.val:
            logits = self.model(images)
            total += F.cross_entropy(logits, labels).item() * labels.size(0)
            hits += (logits.argmax(1) == labels).sum().item()
            seen += labels.size(0)
        return total / seen, hits / seen


def check_same_task(ours: Ours, plain: Plain) -> float:
    """Ask both models about both sides' validation images; the largest difference between their logits.

    Raises:
        RuntimeError: If it is more than rounding: then the comparison would mean nothing.
    """
    ours.parts.state.model.eval()
    plain.model.eval()
    largest = 0.0
    assert ours.parts.val is not None
    with torch.no_grad():
        for (a, labels_a), (b, labels_b) in zip(ours.parts.val.iterate(0), plain.val, strict=True):
            difference: Tensor = (ours.parts.state.model(a) - plain.model(b)).abs().max()
            largest = max(largest, difference.item())
            if not torch.equal(labels_a, labels_b) or largest > 1e-3:
                raise RuntimeError(f"the two sides do not do the same: logits differ by {largest:.2g}")
    return largest


def best_workers(case: Case, model: nn.Module, root: Path, choices: Sequence[int]) -> tuple[int, dict[int, float]]:
    """The number of loader workers with which the plain loop is fastest, and the seconds of each, over a shorter epoch."""
    fewer = replace(case, images=max(case.batch_size, case.images // 4), val_images=min(case.val_images, EVAL_BATCH_SIZE))
    took: dict[int, float] = {}
    for workers in choices:
        plain = Plain(fewer, copy.deepcopy(model), root, workers)
        plain.epoch()  # starts the workers
        took[workers] = min(seconds(plain.epoch) for _ in range(2))
    return min(took, key=lambda workers: took[workers]), took


def compare(case: Case, source: Source, root: Path, repeats: int, workers: Sequence[int], checkpoints: bool) -> dict[str, Any]:
    """Time both sides in turns: ours, theirs, ours, theirs."""
    with tempfile.TemporaryDirectory() as folder:
        ours = Ours(case, source, Path(folder) if checkpoints else None)
        chosen, probe = best_workers(case, ours.first_weights, root, workers) if len(workers) > 1 else (workers[0], {})
        plain = Plain(case, ours.first_weights, root, chosen)
        difference = check_same_task(ours, plain)
        ours.epoch()
        plain.epoch()
        times: dict[str, list[float]] = {"ours": [], "plain": []}
        for _ in range(repeats):
            times["ours"].append(seconds(ours.epoch))
            times["plain"].append(seconds(plain.epoch))
        last = {"ours": ours.epoch(), "plain": plain.epoch()}
    medians = {side: statistics.median(values) for side, values in times.items()}
    ratios = [p / o for o, p in zip(times["ours"], times["plain"], strict=True)]
    return {
        "case": asdict(case),
        "workers": chosen,
        "worker_probe_s": {str(k): v for k, v in probe.items()},
        "ours": ours.describe(),
        "plain": "fp32, NCHW",
        "largest_logit_difference": difference,
        "epoch_s": times,
        "median_s": medians,
        "images_per_s": {side: case.images / value for side, value in medians.items()},
        "ratio_of_medians": medians["plain"] / medians["ours"],
        "ratio_of_pairs": {"min": min(ratios), "max": max(ratios)},
        "val_accuracy": {side: accuracy for side, (_, accuracy) in last.items()},
        "epochs": repeats + 2,
    }


def show(results: dict[str, dict[str, Any]], machine: dict[str, Any]) -> None:
    """Print one row per case, and under it what both sides are."""
    table = Table(title="one epoch with its evaluation, seconds: median (least to most)")
    for name in ("case", "batch", "images + val", "cifar-lab", "plain loop", "workers", "ratio (of pairs)"):
        table.add_column(name, no_wrap=True)
    for name, result in results.items():
        case, times = result["case"], result["epoch_s"]
        sides = [f"{result['median_s'][s]:.2f} ({min(times[s]):.2f} to {max(times[s]):.2f})" for s in ("ours", "plain")]
        pairs = result["ratio_of_pairs"]
        ratio = f"{result['ratio_of_medians']:.2f} ({pairs['min']:.2f} to {pairs['max']:.2f})"
        table.add_row(
            name, str(case["batch_size"]), f"{case['images']} + {case['val_images']}", *sides, str(result["workers"]), ratio
        )
    console = wide_console()
    console.print(table)
    for name, result in results.items():
        accuracies = ", ".join(f"{side} {100 * value:.1f} %" for side, value in result["val_accuracy"].items())
        probe = ", ".join(f"{n} workers {s:.2f} s" for n, s in result["worker_probe_s"].items()) or "given"
        console.print(f"{name}: ours {result['ours']}; plain {result['plain']}; loader: {probe}")
        console.print(f"  validation accuracy after {result['epochs']} epochs: {accuracies}")
    bf16 = "with" if machine["cpu_bf16"] else "without"
    console.print(
        f"{versions(machine)} ({bf16} "
        f"bf16 units), {machine['threads']} threads; checkpoints {'saved by cifar-lab' if machine['checkpoints'] else 'off'}"
    )


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = parser_for(__doc__, EXAMPLES)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES), help="default: all")
    parser.add_argument("--repeats", type=int, default=5, help="timed epochs of each side (default 5)")
    parser.add_argument("--images", type=int, help="training images (default: 12,800 for small_cnn, 1,280 for resnet18)")
    parser.add_argument("--val-images", type=int, help="validation images (default: 2,000 and 512)")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2], help="loader workers to choose from (default 0 1 2)")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads of both sides (default: torch's choice)")
    parser.add_argument("--checkpoints", action="store_true", help="let cifar-lab save its checkpoint at each epoch's end")
    chosen = parse_with_data(parser, arguments)
    if chosen.repeats < 1 or min(chosen.workers) < 0:
        parser.error("--repeats must be 1 or more, --workers 0 or more")
    if min(chosen.images or 1, chosen.val_images or 1) < 1 or (chosen.images or 0) + (chosen.val_images or 0) > 37_000:
        parser.error("--images and --val-images must be 1 or more, and 37000 or less together")
    return chosen


def main(arguments: Sequence[str] | None = None) -> int:
    chosen = parse(arguments)
    runtime.set_threads(chosen.threads)
    source = cifar10(chosen.data)
    results: dict[str, dict[str, Any]] = {}
    for name in chosen.cases:
        case = CASES[name]
        case = replace(case, images=chosen.images or case.images, val_images=chosen.val_images or case.val_images)
        print(f"{name} ...", file=sys.stderr, flush=True)
        results[name] = compare(case, source, chosen.data, chosen.repeats, chosen.workers, chosen.checkpoints)
    machine = {**environment(), "checkpoints": chosen.checkpoints}
    show(results, machine)
    write_times(chosen.out, machine, results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
