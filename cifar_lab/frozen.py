"""A model with frozen features, and images that stay as they are: the features are computed once, not every epoch.

The head is then trained on them by the same loop, which takes them for images; the model passes them on
to its head. Nothing else differs: checkpoints hold the whole model, and a run that goes on finds its features where the
first sitting left them (``kept_features.py``) or computes them anew. The next run of the same process, as in a sweep,
takes those of the run before where nothing has changed. A model that is frozen in its first epochs only gets features in
these and images afterwards.
"""

import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from hashlib import sha256
from typing import Any

import torch
from torch import Tensor, nn

from cifar_lab import runtime, storage
from cifar_lab.config import Config
from cifar_lab.data.augment import is_augmented
from cifar_lab.data.features import FeatureBatches
from cifar_lab.data.sets import Progress
from cifar_lab.engine.features import compute_features
from cifar_lab.engine.predict import BatchSource
from cifar_lab.engine.stages import begin_epoch
from cifar_lab.kept_features import place_of
from cifar_lab.models import ACTIVATIONS, MODELS
from cifar_lab.parts import Parts, build_batches
from cifar_lab.plugins import plugin_files
from cifar_lab.runs import code_digest
from cifar_lab.signals import StopFlag

BySplit = dict[str, tuple[Tensor, Tensor]]

_SPLITS, _PAIR = ("train", "val"), ("features", "labels")
_HEAD = "head."
"""What the names of the tensors begin with that ``embed`` does not use."""


@dataclass
class Features:
    """Features of the training and validation images, while the run has them.

    Attributes:
        by_split: Features [N, D] and labels int64 [N] of ``train`` and ``val``; empty where the model sees images.
        seconds: That computing them took, whoever did.
        source: Whose they are, in words; empty if they were computed now.
        trouble: What was wrong with keeping them, in words.
    """

    by_split: BySplit = field(default_factory=dict)
    seconds: float = 0.0
    source: str = ""
    trouble: str = ""

    def summary(self) -> str:
        """One line for the log."""
        names = {"train": "training", "val": "validation"}
        counts = " and ".join(f"{len(labels):,} {names[split]} images" for split, (_, labels) in self.by_split.items())
        said = f"features of {counts} computed once, in {self.seconds:.1f} s"
        return ", ".join(part for part in (said, self.source) if part) + (f"; {self.trouble}" if self.trouble else "")


_CODE = code_digest()
"""Of what this process has imported; a worker of a sweep is the copy of one that may have begun before files were changed."""
_LAST: dict[str, Features] = {}
"""Those of the run before, by all that they depend on; features of another run make room first."""


def may_compute_once(config: Config, parts: Parts) -> bool:
    """Whether an image's features are the same in every epoch, and the model takes them in place of the image."""
    model = parts.state.model
    return bool(getattr(model, "frozen", False)) and hasattr(model, "embed") and not is_augmented(config.augment)


def compute_once(config: Config, parts: Parts, *, stop: StopFlag, progress: Progress) -> Features:
    """The features of the training and validation images, by the model as it is now; none where they would change in the
    next epoch.

    Raises:
        Interrupted: ``stop`` was set.
    """
    begin_epoch(parts.state.model, parts.state.progress.epochs_done + 1)
    if not may_compute_once(config, parts):
        _LAST.clear()
        return Features()
    key = _key(config, parts)
    if key in _LAST:
        return replace(_LAST[key], source="by the run before in this process", trouble="")
    _LAST.clear()  # before the next: both need not fit
    if config.train.keep_features and _is_built_in(config):
        features = _kept_or_computed(config, parts, key, stop=stop, progress=progress)
    else:
        features = _computed(config, parts, stop=stop, progress=progress)
    _LAST[key] = features
    return features


def _kept_or_computed(config: Config, parts: Parts, key: str, *, stop: StopFlag, progress: Progress) -> Features:
    """Those on the disk, or new ones, which are kept there; of several processes that want the same one computes them."""
    record = runtime.environment_record(parts.state.device)
    here: list[Any] = [record.get(name) for name in ("platform", "packages", "torch_build", "numerics", "cpu", "cpu_bf16", "gpu")]
    here += [os.environ.get(name) for name in ("ONEDNN_DEFAULT_FPMATH_MODE", "NVIDIA_TF32_OVERRIDE")]

    def while_waiting() -> None:
        what = "features that another run computes"
        stop.check(what, kept="all checkpoints")
        progress(what, 0, len(parts.splits.train))

    with place_of(storage.digest([key, here, _CODE, code_digest(plugin_files())]), stop=while_waiting) as place:
        if found := place.read():
            tensors, seconds = found
            return Features(_by_split(tensors), seconds, source=f"read from {place.folder}")
        features = _computed(config, parts, stop=stop, progress=progress)
        place.keep(_by_name(features.by_split), features.seconds)
        return replace(features, trouble=place.trouble)


def _is_built_in(config: Config) -> bool:
    """Whether all of the model is ours or torch's. Of parts from elsewhere nobody knows which files they are made of."""
    activation = config.model.settings.get("activation")
    rows = [MODELS[config.model.name], ACTIVATIONS.get(str(activation), "torch.") if activation is not None else "torch."]
    return all(row.startswith(("cifar_lab.", "torch.")) for row in rows)


def _by_name(by_split: BySplit) -> dict[str, Tensor]:
    return {f"{split}.{what}": value for split, pair in by_split.items() for what, value in zip(_PAIR, pair, strict=True)}


def _by_split(tensors: Mapping[str, Tensor]) -> BySplit:
    pairs = {split: tuple(tensors.get(f"{split}.{what}") for what in _PAIR) for split in _SPLITS}
    return {split: (x, y) for split, (x, y) in pairs.items() if x is not None and y is not None}


def _computed(config: Config, parts: Parts, *, stop: StopFlag, progress: Progress) -> Features:
    features, state, began = Features(), parts.state, time.perf_counter()
    for split in _SPLITS:
        images = getattr(parts.splits, split)
        if images is None:
            continue
        what = f"features of {len(images):,} {split} images"

        def stop_if_asked(what: str = what) -> None:
            stop.check(what, kept="all checkpoints")

        def show(done: int, total: int, what: str = what) -> None:
            progress(what, done, total)

        batches = build_batches(config, images, parts.normalization, state.device)
        features.by_split[split] = compute_features(
            state.model, batches, device=state.device, precision=state.precision, stop=stop_if_asked, progress=show
        )
    features.seconds = time.perf_counter() - began
    return features


def _key(config: Config, parts: Parts) -> str:
    """All that features depend on, to the bit: images, what becomes of them, the layers before the head and how they compute."""
    state, train = parts.state, config.train
    # Of another's model everything counts, and the seed: nobody knows what it embeds with.
    is_ours = MODELS[config.model.name].startswith("cifar_lab.")
    weights = sha256()
    for name, value in (*state.model.named_parameters(), *state.model.named_buffers()):  # also those that are not saved
        if not (is_ours and name.startswith(_HEAD)):
            weights.update(name.encode() + value.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    how = [str(state.device), state.precision, train.channels_last, train.deterministic, train.eval_batch_size]
    how.append(torch.get_num_threads() if state.device.type == "cpu" else 0)
    seen = [parts.splits.digest, parts.normalization, config.data.input_size, None if is_ours else config.seed]
    return storage.digest([asdict(config.model), weights.hexdigest(), how, seen])


def fit_batches(config: Config, parts: Parts, features: Features) -> tuple[BatchSource, BatchSource | None]:
    """What is trained on and validated with: features where there are some, as long as they hold, else images."""
    if "train" not in features.by_split:
        return parts.train, parts.val
    known, labels = features.by_split["train"]
    train = FeatureBatches(
        known,
        labels,
        batch_size=config.train.batch_size,
        device=parts.state.device,
        seed=config.seed,
        shuffle=True,
        drop_last=config.train.drop_last,
    )
    model = parts.state.model
    val = _WhileFrozen(model, _in_order(config, parts, features, "val"), parts.val) if parts.val is not None else None
    return _WhileFrozen(model, train, parts.train), val


def final_batches(config: Config, parts: Parts, features: Features, split: str, tta: str) -> BatchSource:
    """What the final predictions of a split are made from: its features where they say all, else its images."""
    if split in features.by_split and parts.state.model.frozen and tta == "none":  # features have no mirror image
        return _in_order(config, parts, features, split)
    return build_batches(config, getattr(parts.splits, split), parts.normalization, parts.state.device)


def _in_order(config: Config, parts: Parts, features: Features, split: str) -> FeatureBatches:
    known, labels = features.by_split[split]
    return FeatureBatches(known, labels, batch_size=config.train.eval_batch_size, device=parts.state.device)


class _WhileFrozen:
    """Features while the model's are frozen, images from then on; both fall into the same batches in the same order."""

    def __init__(self, model: nn.Module, features: BatchSource, images: BatchSource):
        self._model, self._features, self._images = model, features, images
        self.batch_size, self.num_images = images.batch_size, images.num_images

    def __len__(self) -> int:
        """Batches per epoch."""
        return len(self._images)

    def iterate(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches of an epoch, see ``BatchSource``."""
        return (self._features if self._model.frozen else self._images).iterate(epoch, start)
