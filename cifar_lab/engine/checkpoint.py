"""Checkpoints as verified folders: written whole, read back, the last two and the best kept.

``checkpoints/step-00000120/`` holds tensors as safetensors, ``state.json`` and ``manifest.json`` with
size and SHA-256 of each file; ``checkpoints/best/`` holds only the weights that are evaluated. The
newest is the highest step whose manifest verifies. Nothing here is a pickle.
"""

import json
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from cifar_lab import storage
from cifar_lab.engine.state import TrainState
from cifar_lab.engine.weights import (
    BEST,
    MANIFEST,
    SCHEMA,
    WEIGHTS,
    host_copy,
    read_tensors,
    short_name,
    step_folders,
    verified_manifest,
)
from cifar_lab.errors import CheckpointError, DataError, DiskError, DivergedError

KEPT_STEPS = 2
RECORD = "state.json"


class Checkpoints:
    """Saves, finds and restores the checkpoints of one run.

    Copying to host memory happens at once; hashing, writing, syncing and reading back happen on a
    thread beside the training, one checkpoint at a time. A failure there is raised by the next call.

    Args:
        run_folder: Holds ``checkpoints/`` and ``metrics.jsonl``; its lock is held by the caller.
        digests: Written into every manifest, such as those of configuration, code and data.
        every_s: Seconds between checkpoints within an epoch; 0: none.
        select: ``train.select``: with ``last``, ``best`` holds the last weights in the end and need not be the best epoch's.
        warn: Takes a line such as ``W-CKPT: step-120/...: sha256 mismatch; resuming from step-116``.
    """

    def __init__(
        self,
        run_folder: Path | str,
        *,
        digests: Mapping[str, str] | None = None,
        every_s: float = 60.0,
        select: str = "best",
        warn: Callable[[str], None] = print,
    ):
        self.run_folder = Path(run_folder)
        self.folder = self.run_folder / "checkpoints"
        self.digests = dict(digests or {})
        self.warn = warn
        self._select = select
        self._every_s = every_s if every_s > 0 else float("inf")
        self._next = time.monotonic() + self._every_s
        self._last_good = ""
        self._writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        self._pending: Future[None] | None = None

    # Saving

    def due(self) -> bool:
        """Whether it is time for a checkpoint within the epoch."""
        return time.monotonic() >= self._next

    def save(self, state: TrainState, *, best: bool = False) -> None:
        """Save the state; with ``best`` also its evaluated weights as the best ones.

        Raises:
            DivergedError: If a tensor is not finite; nothing is written.
            DiskError: If the checkpoint before could not be written; ``wait`` raises it for this one.
            CheckpointError: If a plug-in's part of the state is nothing that a checkpoint can hold.
        """
        self.wait()
        tensors, record = state.pack()
        _require_finite(tensors, state.progress.step, self.last_good)
        text = _as_json(record)
        weights = tensors.get("ema", tensors["model"]) if best else None
        self._pending = self._writer.submit(
            self._write, tensors, text, weights, step=state.progress.step, epoch=state.progress.epochs_done
        )
        self._next = time.monotonic() + self._every_s

    def save_best(self, state: TrainState) -> None:
        """Save the evaluated weights as the best ones, without a checkpoint to resume from."""
        self.wait()
        weights = host_copy(state.eval_model.state_dict())
        _require_finite({"best": weights}, state.progress.step, self.last_good)
        self._replace_best(weights, state.progress.step, state.progress.epochs_done)

    def wait(self) -> None:
        """Wait until what was saved is on the disk and has been read back."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    @property
    def last_good(self) -> str:
        """What the newest verified checkpoint is called in a message, such as ``last good: step-800``."""
        return self._last_good or "no checkpoint yet"

    @property
    def best_epoch(self) -> int | None:
        """Epoch of the weights in ``best``; None where there are none."""
        try:
            return verified_manifest(self.folder / BEST)["epoch"]
        except CheckpointError:
            return None

    def _write(
        self, tensors: dict[str, dict[str, Tensor]], record: bytes, best: dict[str, Tensor] | None, *, step: int, epoch: int
    ) -> None:
        """On the writer's thread: publish, prune, and replace the best weights if these are better."""
        files = {f"{name}.safetensors": safetensors.torch.save(group) for name, group in tensors.items()}
        files[RECORD] = record
        try:
            self._publish(self.folder / f"step-{step:08d}", "checkpoint", files, step=step, epoch=epoch)
            self._last_good = f"last good: step-{step}"
            for old in step_folders(self.folder)[KEPT_STEPS:]:
                storage.remove_folder(old)
            if best is not None:
                self._replace_best(best, step, epoch)
        except DiskError as error:
            raise DiskError(error.what, hint=error.hint, kept=self.last_good) from error

    def _replace_best(self, weights: dict[str, Tensor], step: int, epoch: int) -> None:
        self._publish(self.folder / BEST, "weights", {WEIGHTS: safetensors.torch.save(weights)}, step=step, epoch=epoch)

    def _publish(self, final: Path, kind: str, files: dict[str, bytes], *, step: int, epoch: int) -> None:
        """Let a folder appear under its name once it has been read back."""
        listed = {name: {"size": len(data), "sha256": storage.sha256_bytes(data)} for name, data in files.items()}
        manifest = {"schema": SCHEMA, "kind": kind, "step": step, "epoch": epoch, "digests": self.digests, "files": listed}
        publish = storage.replace_folder if final.exists() else storage.publish_folder
        publish(final, {**files, MANIFEST: json.dumps(manifest, indent=1).encode()}, check=verified_manifest)

    # Restoring

    def resume(self, state: TrainState) -> str:
        """Continue where the newest good checkpoint is, or at the start; cut ``metrics.jsonl`` back to it.

        Damaged checkpoints are set aside with a warning and the one before is used.

        Returns:
            Its name, such as ``step-120``; empty at the start.

        Raises:
            CheckpointError: If a verified checkpoint does not fit the state, or rows before it are gone.
        """
        storage.remove_leftovers(self.folder)
        found = self._newest_good()
        if found is not None:
            self._restore(state, found)
            self._last_good = f"last good: {short_name(found)}"
        try:
            storage.keep_lines(self.run_folder / "metrics.jsonl", state.progress.epochs_done)
        except DataError as error:
            raise CheckpointError(error.what, hint="put the file's rows back, or start a new run") from error
        self._mend_best(state)
        return short_name(found) if found is not None else ""

    def _restore(self, state: TrainState, folder: Path) -> None:
        """Put a verified checkpoint into the state: the files that its manifest lists and no other."""
        try:
            names = [name for name in verified_manifest(folder)["files"] if name != RECORD]
            tensors = {name.removesuffix(".safetensors"): read_tensors(folder / name) for name in names}
            state.unpack(tensors, json.loads((folder / RECORD).read_bytes()))
        except (CheckpointError, OSError, ValueError) as error:
            what, hint = (error.what, error.hint) if isinstance(error, CheckpointError) else (str(error), "")
            raise CheckpointError(f"{folder}: {what}", hint=hint, kept="the checkpoint is untouched") from error

    def _newest_good(self) -> Path | None:
        folders = step_folders(self.folder)
        for position, folder in enumerate(folders):
            try:
                verified_manifest(folder, "checkpoint")
            except CheckpointError as error:
                following = short_name(folders[position + 1]) if position + 1 < len(folders) else "the start"
                self.warn(f"W-CKPT: {short_name(folder)}/{error.what}; resuming from {following}")
                storage.set_aside(folder, error.what)
            else:
                return folder
        return None

    def _mend_best(self, state: TrainState) -> None:
        """Make ``best`` the weights of the epoch that the state calls best.

        They are saved again if the run was killed between its checkpoint and them. Where they are damaged, or of an
        epoch after the checkpoint that is resumed from, the best epoch is found anew among those to come: it is the
        same one if that epoch comes again.
        """
        folder = self.folder / BEST
        if folder.exists():
            try:
                verified_manifest(folder, "weights")
            except CheckpointError as error:
                self.warn(f"W-CKPT: {BEST}/{error.what}; set aside")
                storage.set_aside(folder, error.what)
        progress, best_epoch = state.progress, state.stopper.best_epoch
        if self._select == "last" or best_epoch == 0 or self.best_epoch == best_epoch:
            return
        if progress.batch == 0 and progress.epochs_done == best_epoch:
            self.save_best(state)
        else:
            self.warn(f"W-CKPT: the best weights, of epoch {best_epoch}, are gone; the best of the epochs to come is kept")
            state.stopper.best, state.stopper.best_epoch = None, 0


def finish_checkpoints(run_folder: Path | str, keep: str) -> None:
    """Delete what a finished run does not keep.

    Args:
        run_folder: Of a run whose result is on the disk.
        keep: ``all`` (the last two and the best), ``best`` (only the best) or ``none``.
    """
    folder = Path(run_folder) / "checkpoints"
    if keep == "all" or not folder.exists():
        return
    if keep == "best" and not (folder / BEST).exists():
        raise CheckpointError(f"{folder / BEST} is missing; nothing is deleted")
    for old in step_folders(folder):
        storage.remove_folder(old)
    if keep == "none" and (folder / BEST).exists():
        storage.remove_folder(folder / BEST)


def _as_json(record: dict[str, Any]) -> bytes:
    try:
        return json.dumps(record, indent=1, allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"the state cannot be saved: {error}", hint="state_dict() of a schedule holds JSON only") from error


def _require_finite(tensors: dict[str, dict[str, Tensor]], step: int, kept: str) -> None:
    for group, named in tensors.items():
        for name, tensor in named.items():
            if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
                raise DivergedError(
                    f"{group} tensor {name} is not finite at step {step}", hint="try a lower optimizer.lr", kept=kept
                )
