"""Where the course of a run goes: metrics.jsonl and run.log always, the console, and TensorBoard or MLflow if asked.

metrics.jsonl is the truth; the others repeat it. Both are continued, not begun again, when a run is resumed.
"""

import contextlib
import importlib.util
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from cifar_lab import storage
from cifar_lab.config import Config, flatten, to_plain
from cifar_lab.display import Display, measures
from cifar_lab.errors import ConfigError, LabError

METRICS_FILE, LOG_FILE = "metrics.jsonl", "run.log"
_PACKAGES = {"tensorboard": ("tensorboard", "tb"), "mlflow": ("mlflow", "mlflow")}
"""Tracker -> the package it needs and the extra that brings it."""
_MLFLOW_RECORD = "mlflow.json"
_MLFLOW_DEFAULT = "sqlite:///outputs/mlflow.db"


class Sink(Protocol):
    """One more place for rows."""

    def row(self, row: Mapping[str, Any]) -> None:
        """Take an epoch's row."""
        ...

    def finish(self, result: Mapping[str, Any]) -> None:
        """Take the measured splits of a run that is done."""
        ...

    def close(self) -> None:
        """Let go; the run may be over or interrupted."""
        ...


class Tracker:
    """Shows and writes down how a run goes; a context in which the bar and the sinks are open.

    A sink that fails on the way, such as a server that went away, is let go with a note and ends nothing.

    Args:
        folder: The run folder.
        config: Of the run; ``tracker.*`` says which sink.
        display: None for the console.

    Raises:
        ConfigError: If the tracker's package is not installed.
    """

    def __init__(self, folder: Path, config: Config, display: Display | None = None):
        package, extra = _PACKAGES.get(config.tracker.name, ("", ""))
        if package and importlib.util.find_spec(package) is None:
            hint = f"pip install 'cifar-lab[{extra}]', or in a checkout: uv sync --extra {extra}"
            raise ConfigError(f"tracker={config.tracker.name}: {package} is not installed", hint=hint)
        self.folder, self.config = folder, config
        self.display = display or Display()
        self._sink: Sink | None = None
        self._log: Any = None

    def __enter__(self) -> "Tracker":
        self._log = storage.open_log(self.folder / LOG_FILE)
        return self

    def __exit__(self, *exc: object) -> None:
        # Where the log cannot be written any more, what ended the run is still the thing to tell.
        try:
            self.display.close()
            with contextlib.suppress(LabError):
                self._tell(lambda sink: sink.close())
        finally:
            with contextlib.suppress(OSError):
                self._log.close()

    def open_sink(self, epochs_done: int) -> None:
        """Connect to TensorBoard or MLflow, once it is known how many epochs are done already.

        Raises:
            ConfigError: It cannot be connected to, and nothing is trained yet; a run that goes on does without.
        """
        kind = self.config.tracker.name
        try:
            if kind == "tensorboard":
                self._sink = TensorBoardSink(self.folder, epochs_done)
            elif kind == "mlflow":
                self._sink = MlflowSink(self.folder, self.config)
        except LabError:
            raise
        except Exception as error:
            if epochs_done:
                self._let_go(error)
                return
            where = f"tracker.uri={self.config.tracker.uri or _MLFLOW_DEFAULT}" if kind == "mlflow" else f"tracker={kind}"
            what = " ".join(str(error).split())[:200]
            raise ConfigError(f"{where}: {what}", hint="for example tracker.uri=sqlite:///mlflow.db, or tracker=none") from error

    def progress(self, what: str, done: int, total: int) -> None:
        """How far something before the training is, such as a download."""
        self.display.loading(what, done, total)

    def epoch_started(self, epoch: int, epochs: int, num_batches: int) -> None:
        """Epoch ``epoch`` of ``epochs``, counted from 1, begins."""
        self.display.start_epoch(epoch, epochs, num_batches)

    def advance(self, batches: int, images: int) -> None:
        """So many more batches and images are done."""
        self.display.advance(batches, images)

    def row(self, row: dict[str, Any]) -> None:
        """Write an epoch's row, synced, then show it."""
        storage.append_line(self.folder / METRICS_FILE, row)
        self.log(f"epoch {row['epoch']}: {measures(row)}")
        self.display.row(row)
        self._tell(lambda sink: sink.row(row))

    def note(self, text: str) -> None:
        """Show and log something a person should know."""
        self.display.line(text)
        self.log(text)

    def log(self, text: str) -> None:
        """Write to run.log only."""
        stamp = time.strftime("%Y-%m-%d %H:%M:%S")
        with storage.disk_errors(self.folder / LOG_FILE):
            self._log.write("".join(f"{stamp} {line}\n" for line in text.rstrip().split("\n")))

    def finish(self, result: Mapping[str, Any]) -> None:
        """Hand the measured splits to the sink."""
        self._tell(lambda sink: sink.finish(result))

    def _tell(self, what: Callable[[Sink], None]) -> None:
        """Let the sink take something; one that cannot is let go: the run does not need it."""
        if self._sink is None:
            return
        try:
            what(self._sink)
        except Exception as error:
            self._let_go(error)

    def _let_go(self, error: Exception) -> None:
        self._sink = None
        said = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        kind = self.config.tracker.name
        self.note(f"W-TRACKER: {kind} failed and gets no more of this run ({said}); {METRICS_FILE} and result.json have it all")


class TensorBoardSink:
    """Scalars in ``RUN/tensorboard``: ``tensorboard --logdir outputs`` shows them.

    Args:
        folder: The run folder.
        epochs_done: Of a resumed run: what a killed one logged beyond them is purged.
    """

    def __init__(self, folder: Path, epochs_done: int):
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder / "tensorboard"), purge_step=epochs_done + 1)

    def row(self, row: Mapping[str, Any]) -> None:
        """One scalar per column, by epoch; ``train_loss`` is filed as ``loss/train``."""
        for name, value in _numbers(row).items():
            split, _, what = name.partition("_")
            tag = f"{what}/{split}" if split in ("train", "val") and what in ("loss", "accuracy") else name
            self._writer.add_scalar(tag, value, row["epoch"])
        self._writer.flush()

    def finish(self, result: Mapping[str, Any]) -> None:
        """Final metrics as ``final/test_accuracy`` and so on."""
        for name, value in _final(result).items():
            self._writer.add_scalar(f"final/{name}", value, result["epochs_done"])

    def close(self) -> None:
        """Write out what is left."""
        self._writer.close()


class MlflowSink:
    """One MLflow run per run folder; its id is kept there, so that a resumed run goes on in it.

    Args:
        folder: The run folder; its name is the run's.
        config: ``tracker.uri`` and ``tracker.project``; all settings become parameters.
    """

    def __init__(self, folder: Path, config: Config):
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # a training run calls nobody
        import logging

        from mlflow.tracking import MlflowClient

        logging.getLogger("alembic").setLevel(logging.WARNING)  # it announces every table of a new store
        uri = config.tracker.uri or _MLFLOW_DEFAULT
        if config.tracker.uri is None:
            storage.make_folder("outputs")
        self._client = MlflowClient(tracking_uri=uri)
        record = folder / _MLFLOW_RECORD
        known = storage.read_json(record) if record.is_file() else {}
        if known.get("uri") == uri:
            self._run_id = known["run_id"]
            self._client.set_terminated(self._run_id, "RUNNING")
        else:
            self._run_id = self._new_run(folder, config)
            storage.write_json(record, {"uri": uri, "run_id": self._run_id})
        history = self._client.get_metric_history(self._run_id, "train_loss")
        self._logged = {metric.step for metric in history}
        self._status = "KILLED"

    def row(self, row: Mapping[str, Any]) -> None:
        """One metric per column, by epoch; an epoch that was logged before a kill is not logged twice."""
        if row["epoch"] in self._logged:
            return
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        metrics = [Metric(name, value, now, row["epoch"]) for name, value in _numbers(row).items()]
        self._client.log_batch(self._run_id, metrics)  # all at once: a kill between two would lose the others for good
        self._logged.add(row["epoch"])

    def finish(self, result: Mapping[str, Any]) -> None:
        """Final metrics, such as ``test_accuracy``."""
        for name, value in _final(result).items():
            self._client.log_metric(self._run_id, f"final_{name}", value)
        self._status = "FINISHED"

    def close(self) -> None:
        """Say how it ended."""
        self._client.set_terminated(self._run_id, self._status)

    def _new_run(self, folder: Path, config: Config) -> str:
        run_id = self._client.create_run(self._experiment(config.tracker.project), run_name=folder.name).info.run_id
        for key, value in flatten(to_plain(config)).items():
            self._client.log_param(run_id, key, value)
        return run_id

    def _experiment(self, project: str) -> str:
        """Id of the project's experiment, made where there is none."""
        from mlflow.exceptions import MlflowException

        known = self._client.get_experiment_by_name(project)
        if known is None:
            try:
                return self._client.create_experiment(project)
            except MlflowException:  # another run of the sweep may have made it meanwhile
                known = self._client.get_experiment_by_name(project)
                if known is None:
                    raise
        return known.experiment_id


def _numbers(row: Mapping[str, Any]) -> dict[str, float]:
    """The columns of a row that hold a number, the epoch aside."""
    return {k: float(v) for k, v in row.items() if k != "epoch" and isinstance(v, int | float)}


def _final(result: Mapping[str, Any]) -> dict[str, float]:
    """``{split}_{metric}`` of every split that was measured."""
    splits = {s: m for s, m in result["metrics"].items() if m is not None}
    return {f"{s}_{k}": v for s, m in splits.items() for k, v in m.items() if isinstance(v, float)}
