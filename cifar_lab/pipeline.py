"""One run in its folder, from a checked configuration to result.json, readable from top to bottom.

The same call again continues where the run stopped, or shows what is already done.
"""

import contextlib
import traceback
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from cifar_lab import frozen, memory, outcome, runs, runtime, storage
from cifar_lab.config import Config
from cifar_lab.data.sets import Splits
from cifar_lab.data.splits import load_splits
from cifar_lab.display import say, show_result
from cifar_lab.engine.checkpoint import Checkpoints, finish_checkpoints
from cifar_lab.engine.fit import Judge, fit, steps_per_epoch
from cifar_lab.engine.preflight import check_overlap, schedule_note
from cifar_lab.engine.weights import BEST, newest_verified, step_folders
from cifar_lab.errors import DivergedError, Interrupted, LabError, PrunedError, ResumeError
from cifar_lab.parts import Parts, build_parts, prepare_model
from cifar_lab.plugins import plugin_files
from cifar_lab.signals import StopFlag
from cifar_lab.sittings import Sittings
from cifar_lab.tracking import METRICS_FILE, Tracker

_LAST_DATA: dict[str, Splits] = {}
"""The last data set of this process, by its settings: the runs of a sweep share it."""


def run(
    config: Config,
    path: Path,
    overrides: Sequence[str] = (),
    *,
    in_sweep: bool = False,
    shared: bool = False,
    timed: bool = True,
    test: bool = True,
    judge: Judge | None = None,
) -> dict[str, Any]:
    """Train, test and measure; or continue, or show what is done.

    Args:
        config: Checked; ``train.precision`` is replaced by what ``auto`` means here.
        path: The run folder.
        overrides: What the person typed, for the record.
        in_sweep: Leave the pictures to whoever asks for them later.
        shared: Other runs have the same device at the same time; for the record of seconds.
        timed: Measure the latency of the trained model, for ``train.latency_s`` seconds at most.
        test: Open the test set at the end. A run that was done without it is opened by the next call with it.
        judge: Told of every epoch but the last; raises ``PrunedError`` to end the run there.

    Returns:
        The content of result.json.

    Raises:
        LabError: With the code and the exit code of what went wrong; the folder keeps what was good.
    """
    folder = runs.RunFolder(path)
    code = runs.code_digest(plugin_files())
    with folder, StopFlag() as stop:
        folder.adopt(config)
        if (done := folder.finished(config, code, tested=test)) is not None:
            say(f"already done: {path}")
            show_result(done, str(path))
            return done
        return _run(config, folder, code, overrides, stop, _Wishes(not in_sweep and test, shared, timed, test, judge))


@dataclass(frozen=True)
class _Wishes:
    """What the caller wants of a run beside its training."""

    pictures: bool
    shared: bool
    timed: bool
    test: bool
    judge: Judge | None


def _run(
    config: Config, folder: runs.RunFolder, code: str, overrides: Sequence[str], stop: StopFlag, wishes: _Wishes
) -> dict[str, Any]:
    """The run itself, in a folder that is locked."""
    memory.keep_freed_memory()
    device = runtime.resolve_device(config.device)
    sittings = Sittings(folder.path, device, shared=wishes.shared)
    runtime.set_threads(config.threads)
    runtime.set_deterministic(config.train.deterministic)
    runtime.use_device(device)
    tracker = Tracker(folder.path, config)
    splits = _splits(config, tracker, stop)
    memory.reset_peak(device)  # after the data: the next run of this process may find it loaded
    resumes = newest_verified(folder.path / "checkpoints") is not None
    with runtime.device_failures_named(config.train.batch_size):
        parts = build_parts(config, splits, device, resumes=resumes, stop=stop.check, progress=tracker.progress)
    _require_checkpoint(folder, config)
    folder.claim(config, code, splits.digest, overrides)
    digests = {"config": runs.config_digest(config), "code": code, "data": splits.digest}
    environment = runtime.environment_record(device)
    sittings.begin({**environment, "data_digest": splits.digest})
    record: dict[str, Any] = {
        "digests": digests,
        "seed": config.seed,
        "model": config.model.name,
        "data": outcome.data_record(config, parts),
        "device": str(device),
        "precision": config.train.precision,
        "environment": environment,
    }
    with tracker:
        try:
            measured = _train_and_measure(config, parts, folder, tracker, stop, sittings, digests, wishes)
        except BaseException as error:
            _record_failure(folder, record, tracker, sittings, error)
            raise
        sittings.end()
        result = {"status": "done", **record, **measured, "seconds": sittings.seconds(), "error": None}
        folder.write_result(result)  # first: the test set has been opened, and a tracker may hang
        tracker.finish(result)
    finish_checkpoints(folder.path, config.train.keep)
    show_result(result, str(folder.path))
    return result


def _train_and_measure(
    config: Config,
    parts: Parts,
    folder: runs.RunFolder,
    tracker: Tracker,
    stop: StopFlag,
    sittings: Sittings,
    digests: dict[str, str],
    wishes: _Wishes,
) -> dict[str, Any]:
    """From the newest checkpoint, if there is one, to the numbers."""
    state, every_s, select = parts.state, config.train.checkpoint_every_s, config.train.select
    checkpoints = Checkpoints(folder.path, digests=digests, every_s=every_s, select=select, warn=tracker.note)
    for note in _opening_lines(config, parts):
        tracker.note(note)
    found = checkpoints.resume(state)
    if found:
        tracker.note(f"continuing from {found}, {state.progress.epochs_done} of {config.train.epochs} epochs done")
    elif not config.init_from:
        prepare_model(config, parts)
    tracker.open_sink(state.progress.epochs_done)
    in_training = runtime.device_failures_named(config.train.batch_size, kept=lambda: checkpoints.last_good)

    def in_evaluation() -> contextlib.AbstractContextManager[None]:
        return runtime.device_failures_named(
            config.train.eval_batch_size, kept=lambda: checkpoints.last_good, key="train.eval_batch_size"
        )

    with in_evaluation():
        features = frozen.compute_once(config, parts, stop=stop, progress=tracker.progress)
    if features.by_split:
        tracker.note(features.summary())
    with in_training:
        train, val = frozen.fit_batches(config, parts, features)
        fit(state, train, val, config.train, tracker=tracker, checkpoints=checkpoints, stop=stop, judge=wishes.judge)
    if state.stopper.reason:
        tracker.note(f"stopped after epoch {state.progress.epochs_done}: {state.stopper.reason}")
    tracker.display.close()
    with in_evaluation():
        best_epoch = outcome.select_weights(config, parts, folder.path)
        return outcome.measure(
            *(config, parts, features, folder, best_epoch, stop, sittings),
            pictures=wishes.pictures,
            timed=wishes.timed,
            test=wishes.test,
        )


def _splits(config: Config, tracker: Tracker, stop: StopFlag) -> Splits:
    """The data, looked at for overlap; from memory where the run before had the same."""
    key = storage.digest(asdict(config.data))
    if key not in _LAST_DATA:
        _LAST_DATA.clear()  # before the next: both need not fit
        splits = load_splits(config.data, stop=stop.check, progress=tracker.progress)
        _LAST_DATA[key] = replace(splits, notes=(*splits.notes, *check_overlap(splits.train, splits.val, splits.test)))
    return _LAST_DATA[key]


def _opening_lines(config: Config, parts: Parts) -> list[str]:
    """What is run, on what, and what must be said about it."""
    counts = ", ".join(f"{count:,} {split}" for split, count in parts.splits.counts.items() if count)
    device, precision = parts.state.device, config.train.precision
    name = f"{device} ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else str(device)
    threads = f", {torch.get_num_threads()} threads" if device.type == "cpu" else ""
    lines = [
        f"{config.model.name}: {parts.cost['num_params']:,} parameters, {parts.cost['macs'] / 1e6:,.2f} M MACs an image",
        f"{config.data.name}: {counts} images of {len(parts.splits.class_names)} classes",
        f"device {name}{threads}, precision {precision}, batch size {config.train.batch_size}",
        *(f"note: {note}" for note in (*parts.splits.notes, *parts.notes)),
    ]
    if parts.train.placement == "host":
        lines.append("note: the images do not fit on the device and stay in host memory")
    steps = steps_per_epoch(len(parts.train), config.train.accumulation_steps)
    stuck = schedule_note(parts.state.schedule, config.schedule.name, config.train, steps, has_val=parts.val is not None)
    lines += [f"note: {stuck}"] if stuck else []
    if precision == "bf16" and device.type == "cpu" and not runtime.cpu_has_bf16():
        lines.append("note: this CPU has no bf16 units and emulates them, many times slower than train.precision=fp32")
    return lines


def _require_checkpoint(folder: runs.RunFolder, config: Config) -> None:
    """A finished run that kept no checkpoint cannot be trained further."""
    result = folder.result()
    done = result is not None and result.get("status") == "done" and (result.get("epochs_done") or 0) > 0
    checkpoints = folder.path / "checkpoints"
    if done and not step_folders(checkpoints):
        again = "use another hydra.run.dir, with train.keep=all to continue it one day"
        raise ResumeError(
            f"{folder.path} is done and kept no checkpoint to continue from (train.keep)",
            hint=f"start another run from its weights: init_from={folder.path}" if (checkpoints / BEST).exists() else again,
            kept="nothing was changed",
        )


def _record_failure(
    folder: runs.RunFolder, record: dict[str, Any], tracker: Tracker, sittings: Sittings, error: BaseException
) -> None:
    """What ended the run, for the log and for whoever reads result.json; a result of fewer epochs stays.

    Where the disk takes nothing any more, the error is still the one to tell.
    """
    with contextlib.suppress(LabError):
        sittings.end()
    with contextlib.suppress(LabError):
        tracker.log("".join(traceback.format_exception(error)))
    with contextlib.suppress(LabError):
        _write_failure(folder, record, error)


def _write_failure(folder: runs.RunFolder, record: dict[str, Any], error: BaseException) -> None:
    earlier = folder.result()
    if earlier is not None and earlier.get("status") == "done":
        return
    stopped = isinstance(error, Interrupted | KeyboardInterrupt)
    ends: dict[type[BaseException], str] = {DivergedError: "diverged", PrunedError: "pruned"}
    status = "interrupted" if stopped else ends.get(type(error), "failed")
    lab = error if isinstance(error, LabError) else LabError(f"{type(error).__name__}: {error}")
    if status == "pruned":
        rows = storage.read_lines(folder.path / METRICS_FILE)
        record = {**record, "epochs_done": rows[-1]["epoch"], "test_openings": 0}
    folder.write_result({"status": status, **record, "metrics": None, "error": lab.record()})
