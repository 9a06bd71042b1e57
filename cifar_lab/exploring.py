"""A data set looked at before anything is trained on it: counts, checks, statistics, pictures, near-duplicates, augmentation."""

import csv
import io
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cifar_lab import storage
from cifar_lab.analysis import dataset as pictures
from cifar_lab.analysis.duplicates import DETAIL, VERSION, WHOLE, Pair, find_near_duplicates
from cifar_lab.augmented import show_augmentation
from cifar_lab.config import Config
from cifar_lab.data.cifar_files import cache_folder
from cifar_lab.data.sets import ImageSet, Splits, channel_statistics
from cifar_lab.errors import DiskError

SAMPLES, PAIRS = 10, 24
"""Pictures of a class, and pairs of near-duplicates, that are drawn."""

Say = Callable[[str], None]


def explore(
    config: Config, splits: Splits, folder: Path, *, formats: Sequence[str] = ("png",), say: Say = lambda _: None
) -> dict[str, Any]:
    """Write eda.json, class_counts.csv and the pictures of a data set.

    Args:
        config: ``data``, ``augment``, ``seed`` and ``train.batch_size`` are read.
        splits: The data that it describes.
        folder: Where to.
        formats: Of the pictures.
        say: Called with what a person should know.

    Returns:
        The content of eda.json.
    """
    title = config.data.name + (f" ({'; '.join(splits.notes)})" if splits.notes else "")
    parts = {name: part for name, part in _parts(splits) if part is not None}
    counts = {name: part.labels.bincount(minlength=splits.num_classes).tolist() for name, part in parts.items()}
    means = mean_images(splits.train, splits.num_classes)
    files = pictures.save_class_counts(folder, counts, splits.class_names, title=title, formats=formats)
    samples = [_of_class(splits.train, k, SAMPLES) for k in range(splits.num_classes)]
    files += pictures.save_class_samples(folder, samples, means, splits.class_names, title=title, formats=formats)
    files += pictures.save_mean_images(folder, means, splits.class_names, title=title, formats=formats)
    near, drawn = _near_duplicates(splits, folder, title, formats, say)
    shown, augmented = show_augmentation(config, splits, folder, title, formats)
    found = {
        "schema": 1,
        "data": config.data.name,
        "notes": list(splits.notes),
        "digest": splits.digest,
        "classes": list(splits.class_names),
        "image_size": list(splits.train.images.shape[-2:]),
        "splits": {name: describe(part, counts[name]) for name, part in parts.items()},
        "checks": check_images(parts, splits.num_classes),
        "near_duplicates": near,
        "augmentation": shown,
        "pictures": [file.name for file in (*files, *drawn, *augmented)],
    }
    storage.write_json(folder / "eda.json", found)
    storage.write_text(folder / "class_counts.csv", _counts_csv(counts, splits.class_names))
    return found


def describe(part: ImageSet, counts: Sequence[int]) -> dict[str, Any]:
    """Images, counts by class, and mean and standard deviation of each channel as fractions of 255."""
    mean, std = channel_statistics(part.images)
    return {"images": len(part), "class_counts": list(counts), "mean": list(mean), "std": list(std)}


def mean_images(part: ImageSet, num_classes: int) -> np.ndarray:
    """The mean of all pictures of each class: float64 [K, 3, H, W], 0 to 255; NaN for a class without one."""
    means = np.full((num_classes, *part.images.shape[1:]), np.nan)
    for k in range(num_classes):
        own = part.images[part.labels == k].numpy()
        if len(own):
            means[k] = own.mean(axis=0, dtype=np.float64)
    return means


def check_images(parts: dict[str, ImageSet], num_classes: int) -> list[dict[str, Any]]:
    """What must hold of the pictures of each split, what was found, and whether it does."""
    checks: list[dict[str, Any]] = []
    for name, part in parts.items():
        low, high = int(part.images.amin()), int(part.images.amax())
        counts = part.labels.bincount(minlength=num_classes)
        flat = int((part.images.flatten(1).amin(1) == part.images.flatten(1).amax(1)).sum())
        rows = (
            (
                "pictures are bytes [N, 3, H, W]",
                f"{str(part.images.dtype).removeprefix('torch.')} {list(part.images.shape)}",
                True,
            ),
            # Pictures that were scaled to 0 to 1 before they were stored are all black and nearly black.
            ("pixels use the range 0 to 255", f"{low} to {high}", low <= 16 and high >= 239),
            (
                "labels are 0 to K - 1",
                f"{int(part.labels.min())} to {int(part.labels.max())}",
                int(part.labels.max()) < num_classes,
            ),
            ("ids are unique", f"{len(part.ids.unique()):,} of {len(part):,}", len(part.ids.unique()) == len(part)),
            ("every class occurs", f"{int((counts > 0).sum())} of {num_classes}", bool((counts > 0).all())),
            ("no picture is of one color", f"{flat:,} are", flat == 0),
        )
        checks += [{"split": name, "check": check, "found": found, "passed": passed} for check, found, passed in rows]
    return checks


def find_pairs(splits: Splits, say: Say = lambda _: None) -> tuple[list[Pair], float, bool]:
    """Near-duplicates of the training and validation images (first) in the test set (second), remembered by digest.

    Returns:
        The pairs, the seconds that the search took when it was made, and whether it was remembered.
    """
    path = cache_folder() / "near_duplicates" / f"{splits.digest}-{VERSION}.json"
    if path.is_file():
        known = storage.read_json(path)
        return [Pair(**pair) for pair in known["pairs"]], known["seconds"], True
    began = time.perf_counter()
    pairs = find_near_duplicates(_known(splits), splits.test.images)
    seconds = time.perf_counter() - began
    try:
        storage.write_json(path, {"seconds": seconds, "pairs": [asdict(pair) for pair in pairs]})
    except DiskError as error:
        say(f"note: the near-duplicates could not be remembered: {error.what}")
    return pairs, seconds, False


def _parts(splits: Splits) -> tuple[tuple[str, ImageSet | None], ...]:
    return (("train", splits.train), ("val", splits.val), ("test", splits.test))


def _known(splits: Splits) -> torch.Tensor:
    """Training images, then validation images: uint8 [N, 3, H, W]."""
    return torch.cat([part.images for part in (splits.train, splits.val) if part is not None])


def _of_class(part: ImageSet, label: int, count: int) -> np.ndarray:
    """The first pictures of a class: uint8 [n, 3, H, W]."""
    return part.images[(part.labels == label).nonzero().squeeze(1)[:count]].numpy()


def _counts_csv(counts: dict[str, list[int]], class_names: Sequence[str]) -> str:
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["class", *counts])
    writer.writerows(zip(class_names, *counts.values(), strict=True))
    return table.getvalue()


def _near_duplicates(
    splits: Splits, folder: Path, title: str, formats: Sequence[str], say: Say
) -> tuple[dict[str, Any], list[Path]]:
    """What eda.json says of them, and their picture."""
    pairs, seconds, remembered = find_pairs(splits, say)
    held = [part for part in (splits.train, splits.val) if part is not None]
    labels, ids = (torch.cat([getattr(part, f) for part in held]) for f in ("labels", "ids"))
    rows = []
    for pair in pairs:
        known, test = int(labels[pair.first]), int(splits.test.labels[pair.second])
        rows.append(
            {
                "split": "train" if pair.first < len(splits.train) else "val",
                "id": int(ids[pair.first]),
                "class": splits.class_names[known],
                "test_id": int(splits.test.ids[pair.second]),
                "test_class": splits.class_names[test],
                **{key: value for key, value in asdict(pair).items() if key not in ("first", "second")},
            }
        )
    images = len({pair.second for pair in pairs})
    said = (
        f"{images:,} of {len(splits.test):,} test images ({100 * images / len(splits.test):.1f} %) look like one of"
        f" {len(labels):,} for training or validation"
    )
    found = {
        "method": f"correlation of all pixels at least {WHOLE}, of the detail (less the 5x5 mean) {DETAIL}; mirrored too",
        "version": VERSION,
        "says": said,
        "test_images": images,
        "test_images_of_other_class": len({row["test_id"] for row in rows if row["class"] != row["test_class"]}),
        "equal_pairs": sum(pair.equal for pair in pairs),
        "mirrored_pairs": sum(pair.mirrored for pair in pairs),
        "seconds": seconds,
        "remembered": remembered,
        "pairs": rows,
    }
    if not pairs:
        return found, []
    known = _known(splits)
    first_of: dict[int, int] = {}
    for place, pair in enumerate(pairs):
        first_of.setdefault(pair.second, place)
    # From the closest to the farthest, so that a reader sees where the bound lies.
    chosen = [list(first_of.values())[k] for k in np.unique(np.linspace(0, len(first_of) - 1, PAIRS).round().astype(int))]
    drawn = [
        (
            known[pairs[k].first].numpy(),
            splits.test.images[pairs[k].second].numpy(),
            f"{rows[k]['class']}\n{rows[k]['split']} {rows[k]['id']}",
            f"{rows[k]['test_class']}\ntest {rows[k]['test_id']}{' (mirrored)' if pairs[k].mirrored else ''}",
        )
        for k in chosen
    ]
    return found, pictures.save_pairs(folder, drawn, title=title, said=f"{said}; {len(drawn)} pairs of them", formats=formats)
