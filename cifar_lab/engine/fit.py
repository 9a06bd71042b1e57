"""The training loop, top to bottom."""

import contextlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn

from cifar_lab.config import TrainConfig
from cifar_lab.engine.checkpoint import Checkpoints
from cifar_lab.engine.guards import TrainingGuard
from cifar_lab.engine.predict import BatchSource, Sums, check_plain, evaluate, mean_loss, mixed_precision
from cifar_lab.engine.stages import begin_epoch
from cifar_lab.engine.state import TrainState
from cifar_lab.engine.twopass import build_second_pass
from cifar_lab.engine.watch import HostWatch, build_watch
from cifar_lab.errors import LabError
from cifar_lab.runtime import device_failures_named
from cifar_lab.signals import StopFlag

Judge = Callable[[dict[str, Any]], None]
"""Told of an epoch's row once its checkpoint has begun; ends the run by raising."""


class Tracker(Protocol):
    """Who shows and writes down how training goes."""

    def epoch_started(self, epoch: int, epochs: int, num_batches: int) -> None:
        """Epoch ``epoch`` of ``epochs``, counted from 1, begins."""
        ...

    def advance(self, batches: int, images: int) -> None:
        """So many more batches and images are done; called at every optimiser step, so it must be cheap."""
        ...

    def row(self, row: dict[str, Any]) -> None:
        """An epoch is over: its row is written and synced when this returns."""
        ...

    def note(self, text: str) -> None:
        """Something a person should know."""
        ...


@dataclass
class _Run:
    """What the parts of the loop share."""

    state: TrainState
    config: TrainConfig
    tracker: Tracker
    checkpoints: Checkpoints
    stop: StopFlag
    watch: HostWatch
    guard: TrainingGuard
    judge: Judge | None


def steps_per_epoch(num_batches: int, accumulation_steps: int) -> int:
    """Optimiser steps of an epoch; a last, incomplete group of batches makes a step too."""
    return math.ceil(num_batches / accumulation_steps)


def fit(
    state: TrainState,
    train_batches: BatchSource,
    val_batches: BatchSource | None,
    config: TrainConfig,
    *,
    tracker: Tracker,
    checkpoints: Checkpoints,
    stop: StopFlag,
    judge: Judge | None = None,
) -> None:
    """Train from where ``state`` is up to ``config.epochs``, or until a rule ends it earlier.

    Each epoch leaves a row, then a checkpoint. Afterwards ``checkpoints/best`` holds the weights of
    the best epoch by ``config.monitor``, or the last ones: with ``config.select=last``, and, which a note says, where
    that was never measured.
    ``state.stopper.reason`` says why a run ended early; one that has a reason stays ended when ``config.epochs`` is
    raised. The last epoch is validated out of turn too: with ``config.eval_every_epochs`` above 1 a run whose epochs are
    raised has seen one validation more than one of as many epochs from the start, and may choose or end otherwise.

    Args:
        state: Trained in place; ``Checkpoints.resume`` may have filled it.
        train_batches: Entered at any batch, so that a stopped epoch goes on exactly.
        val_batches: None where there is no validation.
        config: The ``train.*`` settings.
        tracker: Takes rows, progress and notes.
        checkpoints: Of this run.
        stop: Looked at in every step of training and evaluation.
        judge: Told of every epoch but the one that is the last, by ``config.epochs`` or a rule, and may end the run there.

    Raises:
        PrunedError: The judge ended the run.
        Interrupted: After a checkpoint, when ``stop`` was set.
        DivergedError: When a loss or a weight is not finite; the weights are those before it.
        DiskError: When a checkpoint cannot be written.
        ConfigError, DataError: When a guard finds that training means nothing.

    Whatever is raised, checkpoints begun before are on the disk by then.
    """
    run = _Run(state, config, tracker, checkpoints, stop, build_watch(state), TrainingGuard(state.model), judge)
    try:
        if val_batches is not None:
            with device_failures_named(val_batches.batch_size, key="train.eval_batch_size"):
                check_plain(val_batches)
        while state.progress.epochs_done < config.epochs and not state.stopper.reason:
            _epoch(run, train_batches, val_batches)
    except BaseException as error:
        with contextlib.suppress(LabError):  # the first error is the one to tell
            checkpoints.wait()
        if isinstance(error, LabError):
            error.kept = error.kept or checkpoints.last_good
        raise
    finally:
        run.watch.end()
    if state.progress.epochs_done > 0 and config.select == "last":
        checkpoints.save_best(state)  # the folder holds what is tested, whatever its name
    elif state.progress.epochs_done > 0 and state.stopper.best is None:
        why = (
            "there are no validation images" if val_batches is None else f"no epoch to choose from has a finite {config.monitor}"
        )
        tracker.note(f"{why}: the last weights count as the best")
        checkpoints.save_best(state)
    checkpoints.wait()


def _epoch(run: _Run, train_batches: BatchSource, val_batches: BatchSource | None) -> None:
    """One epoch: train, evaluate, row, checkpoint."""
    state, config, progress = run.state, run.config, run.state.progress
    epoch = progress.epochs_done + 1
    run.tracker.epoch_started(epoch, config.epochs, len(train_batches))
    clock = _Clock(progress.seconds)
    sums = _train(run, train_batches, epoch, clock)

    row: dict[str, Any] = {"epoch": epoch, "step": progress.step, "lr": state.optimizer.param_groups[0]["lr"]}
    row |= {"train_loss": progress.loss_sum / progress.images, "train_accuracy": progress.correct / progress.images}
    # The stopper judges on a copy: a stop during evaluation must leave the saved state as it was before.
    stopper = state.stopper.copy()
    is_best = stopper.see(epoch, row, config)
    is_last = epoch == config.epochs or bool(stopper.reason)
    measured: dict[str, float | None] = {"val_loss": None, "val_accuracy": None}
    if val_batches is not None and (epoch % config.eval_every_epochs == 0 or is_last):

        def stop_if_asked() -> None:
            if run.stop.signum:
                _save(run, sums, clock)

        with device_failures_named(val_batches.batch_size, key="train.eval_batch_size"):
            val_loss, val_accuracy = evaluate(
                state.eval_model, val_batches, device=state.device, precision=state.precision, stop=stop_if_asked
            )
        measured = {"val_loss": val_loss, "val_accuracy": val_accuracy}
        is_best = stopper.see(epoch, measured, config) or is_best
    row |= measured
    images_per_s = progress.images / progress.train_seconds
    row |= {"seconds": clock.seconds(), "train_seconds": progress.train_seconds, "images_per_s": images_per_s}

    state.schedule.observe(_finite_or_nan(row))
    state.stopper = stopper
    progress.end_epoch()
    run.tracker.row(row)
    run.checkpoints.save(state, best=is_best)
    if run.judge is not None and not is_last and not stopper.reason:  # which validation may have given it
        run.judge(row)


def _train(run: _Run, batches: BatchSource, epoch: int, clock: "_Clock") -> Sums:
    """The training part of an epoch, from batch ``progress.batch`` on; leaves its sums in ``progress``."""
    state, config, progress = run.state, run.config, run.state.progress
    model, optimizer, scaler = state.model, state.optimizer, state.scaler
    amp = mixed_precision(state.precision, state.device)
    sums = Sums(state.device, progress.loss_sum, progress.correct)
    train_clock = _Clock(progress.train_seconds)
    num_batches, group_size = len(batches), config.accumulation_steps
    run.watch.start()
    run.tracker.advance(progress.batch, progress.images)
    optimizer.zero_grad(set_to_none=True)
    begin_epoch(model, epoch)
    model.train()
    run.guard.begin_epoch()
    run.guard.mode(epoch)

    def forward(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        with amp:
            logits = model(images)
            return logits, mean_loss(logits, labels, config.label_smoothing)

    second_pass = build_second_pass(optimizer, model, forward, state.device)
    batch, group_images = progress.batch, 0
    for images, labels in batches.iterate(epoch - 1, start=batch):
        count = labels.shape[0]
        # Weighted by images, so that the group's gradient is that of one big batch.
        share = count / _images_in_group(batches, batch, group_size) if group_size > 1 else 1.0
        if second_pass is not None:
            second_pass.remember(images, labels, share)
        logits, loss = forward(images, labels)
        run.guard.first_batch(logits)
        sums.add(loss, logits, labels)
        scaler.scale(loss * share if group_size > 1 else loss).backward()
        batch += 1
        group_images += count
        if batch % group_size and batch < num_batches:
            continue
        if second_pass is not None:
            second_pass.run(sums)
        run.guard.gradients(is_last=batch == num_batches)
        run.watch.before_step(sums.loss)
        _step(run)
        progress.images += group_images
        run.tracker.advance(batch - progress.batch, group_images)
        progress.batch, group_images = batch, 0
        if run.stop.signum or (run.checkpoints.due() and batch < num_batches):
            _save(run, sums, clock, train_clock)
    run.guard.mode(epoch)  # again: what the model did to itself since
    run.watch.settle(sums.loss)
    progress.loss_sum, progress.correct = sums.read()
    progress.train_seconds = train_clock.seconds()
    return sums


def _save(run: _Run, sums: Sums, clock: "_Clock", train_clock: "_Clock | None" = None) -> None:
    """Checkpoint within an epoch, and stop there if a signal asked for it."""
    progress = run.state.progress
    run.watch.settle(sums.loss)
    progress.loss_sum, progress.correct = sums.read()
    # After these, which wait for what the device was given.
    progress.seconds = clock.seconds()
    if train_clock is not None:
        progress.train_seconds = train_clock.seconds()
    run.checkpoints.save(run.state)
    if run.stop.signum:
        run.checkpoints.wait()
        run.stop.check(f"epoch {progress.epochs_done + 1} step {progress.step}", kept=run.checkpoints.last_good)


def _step(run: _Run) -> None:
    """Change the weights by the gradients that have been gathered, and clear these."""
    state, config = run.state, run.config
    optimizer, scaler = state.optimizer, state.scaler
    if config.grad_clip_norm > 0:
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(state.model.parameters(), config.grad_clip_norm)
    _set_lr(state)
    scaler.step(optimizer)
    scaler.update()
    optimizer.zero_grad(set_to_none=True)
    run.watch.after_step()
    if state.ema is not None:
        state.ema.update()
    state.progress.step += 1


def _set_lr(state: TrainState) -> None:
    """This step's learning rate, in every group."""
    factor = state.schedule(state.progress.step)
    for group in state.optimizer.param_groups:
        group["lr"] = group["base_lr"] * factor


def _finite_or_nan(row: dict[str, Any]) -> dict[str, float]:
    """The measured columns; NaN, which is never better, for an infinite one, which JSON could not remember as the best."""
    return {key: value if math.isfinite(value) else math.nan for key, value in row.items() if value is not None}


def _images_in_group(batches: BatchSource, batch: int, group_size: int) -> int:
    """Images of all batches that share an optimiser step with ``batch``."""
    first = batch - batch % group_size
    last = min(first + group_size, len(batches))
    return min(last * batches.batch_size, batches.num_images) - first * batches.batch_size


class _Clock:
    """Seconds since it was made, and those before."""

    def __init__(self, seconds: float):
        self._began = time.perf_counter() - seconds

    def seconds(self) -> float:
        return time.perf_counter() - self._began
