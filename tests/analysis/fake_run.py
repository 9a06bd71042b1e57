"""A run that was never trained: known answers, pictures and a small network, as analyses see it."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cifar_lab.errors import CheckpointError
from cifar_lab.metrics import softmax, summarize


def make_rows(epochs: int, *, val: bool = True) -> list[dict[str, Any]]:
    """Rows of metrics.jsonl of a training that gets slower; each epoch takes 2 s."""
    rows = []
    for epoch in range(1, epochs + 1):
        row = {"epoch": epoch, "lr": 0.1, "seconds": 2.0, "train_loss": 2.3 * 0.9**epoch, "train_accuracy": 1 - 0.9**epoch}
        seen = {"val_loss": 2.4 * 0.92**epoch, "val_accuracy": 1 - 0.92**epoch}
        rows.append({**row, **(seen if val else dict.fromkeys(seen))})
    return rows


def make_net() -> nn.Module:
    """Three convolutions, an activation in place behind each, one of them in two groups; seeded."""
    with torch.random.fork_rng([]):
        torch.manual_seed(3)
        layers = [nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(6, 8, 3, groups=2, bias=False)]
        return nn.Sequential(*layers, nn.ReLU(inplace=True), nn.Conv2d(8, 70, 1), nn.Flatten(), nn.Linear(70 * 36, 4)).eval()


@dataclass
class FakeRun:
    """``analysis.made.Run`` with answers drawn from a seed.

    Args:
        num_classes: K.
        count: Images of val and of test.
        epochs: Rows; 0: never trained.
        val: Whether there are validation images.
        evidence: Whether only predicted classes and confidences are left.
        sharpness: Factor on the logits: above 1 the model is surer than it should be.
    """

    num_classes: int = 10
    count: int = 600
    epochs: int = 12
    val: bool = True
    evidence: bool = False
    sharpness: float = 1.0
    names: tuple[str, ...] = ()
    net: nn.Module = field(default_factory=make_net)
    config: dict[str, Any] = field(default_factory=lambda: {"seed": 0, "train": {"monitor": "val_accuracy", "select": "best"}})
    name: str = "small_cnn on digits"

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.names or tuple(f"class {i}" for i in range(self.num_classes))

    @property
    def has_logits(self) -> bool:
        return not self.evidence

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        return make_rows(self.epochs, val=self.val)

    @cached_property
    def _answers(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        made = {}
        for split in ("val", "test"):
            rng = np.random.default_rng((self.num_classes, self.count, split == "val"))
            labels = rng.integers(self.num_classes, size=self.count)
            logits = rng.normal(size=(self.count, self.num_classes)) + 2.5 * np.eye(self.num_classes)[labels]
            made[split] = ((self.sharpness * logits).astype(np.float32), labels)
        return made

    @cached_property
    def result(self) -> dict[str, Any]:
        made = {split: summarize(*answers, self.class_names) for split, answers in self._answers.items()}
        return {
            **{"best_epoch": self.epochs or None, "epochs_done": self.epochs, "stopped_early": None},
            "metrics": {"train": made["val"], "val": made["val"] if self.val else None, "test": made["test"]},
            "data": {"normalization": {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4]}, "images": {"train": 2000}},
            "cost": {},
        }

    def logits(self, split: str) -> np.ndarray:
        if self.evidence or (split == "val" and not self.val):
            raise CheckpointError("evidence has no logits")
        return self._answers[split][0]

    def labels(self, split: str) -> np.ndarray:
        return self._answers[split][1]

    def predicted(self, split: str) -> np.ndarray:
        return self._answers[split][0].argmax(1)

    def confidence(self, split: str) -> np.ndarray:
        found = softmax(self._answers[split][0]).max(1)
        return found.astype(np.float16).astype(np.float64) if self.evidence else found  # as evidence keeps them

    def model(self) -> nn.Module:
        return self.net

    def input_shape(self) -> tuple[int, int, int, int]:
        return 1, 3, 8, 8

    def images(self) -> np.ndarray:
        return np.random.default_rng(1).integers(256, size=(self.count, 3, 8, 8), dtype=np.uint8)

    def image_ids(self) -> np.ndarray:
        return 1000 + np.arange(self.count)

    def seen(self, position: int) -> Tensor:
        mean, std = (torch.tensor(self.result["data"]["normalization"][key]).view(3, 1, 1) for key in ("mean", "std"))
        return ((torch.from_numpy(self.images()[position]) / 255 - mean) / std)[None]
