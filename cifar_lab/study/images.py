"""What changes class by class and image by image: from the answers that every run saved, without training anything again."""

import math
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cifar_lab.stats import Interval, mean_interval
from cifar_lab.study.design import Run, Study, Variant
from cifar_lab.study.measures import RECALL, Sheet, classes_of, classes_of_run, read_measures

PREDICTIONS = "predictions.npz"


@dataclass(frozen=True, eq=False)
class Answers:
    """What a run answered on one split.

    Args:
        labels: int64 [N].
        predicted: int64 [N].
        belief: Probability of the true class, float32 [N].
        ids: int64 [N]; positions where none were saved.
    """

    labels: np.ndarray
    predicted: np.ndarray
    belief: np.ndarray
    ids: np.ndarray

    @property
    def right(self) -> np.ndarray:
        """bool [N]."""
        return self.predicted == self.labels


@dataclass(frozen=True)
class RecallChange:
    """Recall of one class, a variant less the baseline.

    Args:
        name: Of the class.
        n: Pairs of seeds.
        baseline: Mean recall of the baseline in these pairs.
        variant: Mean recall of the variant.
        difference: Mean over pairs; None without any.
        interval: Student's t interval of it, 95 %; None below two pairs, and where all differ by the same.
    """

    name: str
    n: int
    baseline: float | None
    variant: float | None
    difference: float | None
    interval: Interval | None


@dataclass(frozen=True, eq=False)
class ImageChanges:
    """Images that only one side gets right, and what of that is the churn between seeds.

    Args:
        variant: Its name.
        n: Pairs of seeds.
        images: N; 0 where nothing could be compared.
        only_variant: Positions of images that all seeds of the variant and none of the baseline get right, those first in which
            the belief in the true class rose most.
        only_baseline: The other way round.
        expected: How many there would be on either side, did it not matter which side a run is on: of the images that n of the
            2n runs get right, one in C(2n, n) would have those n on this side.
        churn: Share of images of which two seeds of one side do not agree whether they are right, mean over both sides;
            None below two pairs.
        between: The same for a run of each side with the same seed.
        ids: int64 [N], to find the images.
        reason: Why nothing could be compared; empty where it was.
    """

    variant: str
    n: int
    images: int
    only_variant: np.ndarray
    only_baseline: np.ndarray
    expected: float
    churn: float | None
    between: float | None
    ids: np.ndarray
    reason: str = ""


def load_answers(run: Run, split: str = "test") -> Answers | None:
    """The saved answers of a run; None where there are none, or none that can be read."""
    path = run.folder / PREDICTIONS
    try:
        return _read(path, split) if path.is_file() else None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None


def recall_changes(study: Study, variant: str, sheet: Sheet | None = None) -> list[RecallChange]:
    """Of each class, in the order of the data."""
    sheet = read_measures(study) if sheet is None else sheet
    one, baseline, classes = study.variants[variant], study.variants[study.baseline], classes_of(study)
    found = []
    for name in classes:
        first, second = (_recalls(side, name, sheet, classes) for side in (one, baseline))
        seeds = sorted(first.keys() & second.keys())
        if not seeds:
            found.append(RecallChange(name, 0, None, None, None, None))
            continue
        pair = [[side[seed] for seed in seeds] for side in (first, second)]
        change = np.subtract(pair[0], pair[1])
        interval = mean_interval(change) if len(seeds) > 1 else None
        means = float(np.mean(pair[1])), float(np.mean(pair[0]))
        found.append(RecallChange(name, len(seeds), *means, float(change.mean()), interval))
    return found


def confusion_counts(answers: Answers, num_classes: int) -> np.ndarray:
    """int64 [K, K]: rows true, columns answered."""
    return np.bincount(answers.labels * num_classes + answers.predicted, minlength=num_classes**2).reshape(
        num_classes, num_classes
    )


def changes_between(name: str, variant: Mapping[int, Answers], baseline: Mapping[int, Answers]) -> ImageChanges:
    """Compare the answers of two sides by the seeds that both have.

    Args:
        name: Of the variant.
        variant: Answers by seed.
        baseline: Answers by seed.
    """
    seeds = sorted(variant.keys() & baseline.keys())
    if not seeds:
        return _nothing(name, "no seed has saved answers about the same classes on both sides")
    one, other = [variant[seed] for seed in seeds], [baseline[seed] for seed in seeds]
    first = one[0]
    if any(not (np.array_equal(a.labels, first.labels) and np.array_equal(a.ids, first.ids)) for a in (*one, *other)):
        return _nothing(name, "the runs were tested on different images")
    n = len(seeds)
    right = [np.stack([answers.right for answers in side]) for side in (one, other)]
    counts = [side.sum(axis=0) for side in right]
    rise = np.mean([a.belief for a in one], axis=0) - np.mean([a.belief for a in other], axis=0)
    gained = np.flatnonzero((counts[0] == n) & (counts[1] == 0))
    lost = np.flatnonzero((counts[0] == 0) & (counts[1] == n))
    churn = float(np.mean([_disagreement(side) for side in right])) if n > 1 else None
    return ImageChanges(
        variant=name,
        n=n,
        images=len(first.labels),
        only_variant=gained[np.argsort(-rise[gained], kind="stable")],
        only_baseline=lost[np.argsort(rise[lost], kind="stable")],
        expected=float(np.count_nonzero(counts[0] + counts[1] == n) / math.comb(2 * n, n)),
        churn=churn,
        between=float((right[0] != right[1]).mean()),
        ids=first.ids,
    )


def _read(path: Path, split: str) -> Answers:
    with np.load(path, allow_pickle=False) as saved:
        logits, labels = saved[f"{split}_logits"].astype(np.float64), saved[f"{split}_labels"]
        ids = saved[f"{split}_ids"] if f"{split}_ids" in saved else np.arange(len(labels))
    if logits.ndim != 2 or len(logits) != len(labels):
        raise ValueError(f"logits {logits.shape} and labels {labels.shape}")
    # Shifted by the largest, so that exp stays finite.
    likely = np.exp(logits - logits.max(axis=1, keepdims=True))
    belief = likely[np.arange(len(labels)), labels] / likely.sum(axis=1)
    return Answers(labels.astype(np.int64), logits.argmax(axis=1), belief.astype(np.float32), ids.astype(np.int64))


def _recalls(variant: Variant, name: str, sheet: Sheet, classes: Sequence[str]) -> dict[int, float]:
    """By seed; a class of the same name among others is another class."""
    runs = {seed: run for seed, run in variant.done.items() if classes_of_run(run) == list(classes)}
    found = {seed: sheet[run.name].get(RECALL + name) for seed, run in runs.items()}
    return {seed: value for seed, value in found.items() if value is not None}


def _disagreement(right: np.ndarray) -> float:
    """Mean over images and pairs of seeds, from bool [n, N]: of c right among n, c (n - c) pairs do not agree."""
    n, counts = len(right), right.sum(axis=0)
    return float((counts * (n - counts)).mean() / math.comb(n, 2))


def _nothing(name: str, reason: str) -> ImageChanges:
    none = np.empty(0, dtype=np.int64)
    return ImageChanges(name, 0, 0, none, none, 0.0, None, None, none, reason)
