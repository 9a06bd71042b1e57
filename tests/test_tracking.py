"""What is shown and written down while a run goes, read back with the readers of those formats."""

import io
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from rig import SMOKE, Lab

from cifar_lab.config import Config
from cifar_lab.display import Display, LabConsole
from cifar_lab.errors import ConfigError, DivergedError
from cifar_lab.tracking import TensorBoardSink, Tracker


def row(epoch: int, **columns: Any) -> dict[str, Any]:
    base = {"epoch": epoch, "step": 10 * epoch, "lr": 0.1, "train_loss": 1.5, "train_accuracy": 0.5}
    return {
        **base,
        "val_loss": 1.25,
        "val_accuracy": 0.625,
        "seconds": 2.0,
        "train_seconds": 1.5,
        "images_per_s": 1234.0,
        **columns,
    }


@pytest.fixture
def screen() -> io.StringIO:
    return io.StringIO()


def plain(screen: io.StringIO) -> Display:
    return Display(Console(file=screen, force_terminal=False, width=60))


def test_rows_are_lines_and_json(tmp_path: Path, screen: io.StringIO) -> None:
    with Tracker(tmp_path, Config(), plain(screen)) as tracker:
        tracker.epoch_started(1, 12, 100)
        tracker.advance(0, 0)
        tracker.row(row(1))
        tracker.row(row(2, val_loss=None, val_accuracy=None))
        tracker.note("something [odd]")
    first, _ = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert json.loads(first) == row(1)
    lines = screen.getvalue().splitlines()
    expected = "epoch  1/12  train loss 1.5000 acc 50.00 %  val loss 1.2500 acc 62.50 %  lr 0.1  2.0 s  1,234 img/s"
    assert lines[0] == expected
    assert "val" not in lines[1]
    assert lines[2] == "something [odd]"
    log = (tmp_path / "run.log").read_text()
    assert "epoch 1: train loss 1.5000" in log
    assert "something [odd]" in log
    assert "\x1b" not in screen.getvalue()


def test_a_long_epoch_reports_itself_where_there_is_no_terminal(screen: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    display = plain(screen)
    display.start_epoch(1, 2, 100)
    display.advance(20, 2000)  # done before, in an earlier process
    for _ in range(61):
        now[0] += 1.0
        display.advance(1, 100)
    assert screen.getvalue() == "epoch 1/2: 80 % done, 100 images/s, 2:00 left\n"


def test_the_time_that_is_left_follows_the_pace_of_the_last_epochs(screen: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    display = plain(screen)
    for epoch, seconds_a_batch in ((1, 10.0), (2, 1.0), (3, 1.0), (4, 1.0)):
        display.start_epoch(epoch, 5, 100)
        display.advance(0, 0)
        for _ in range(100):
            now[0] += seconds_a_batch
            display.advance(1, 100)
    assert screen.getvalue().splitlines()[-1] == "epoch 4/5: 60 % done, 100 images/s, 2:20 left"
    # 1,060 s for 160 batches, with 340 to go
    assert "epoch 2/5: 60 % done, 100 images/s, 37:32 left" in screen.getvalue()


def test_the_time_that_is_left_knows_a_slower_stage(screen: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model whose features were frozen for an epoch is trained as a whole from the next one on."""
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    display = plain(screen)
    for epoch, seconds_a_batch in ((1, 0.5), (2, 4.0), (3, 4.0)):
        display.start_epoch(epoch, 3, 100)
        display.advance(0, 0)
        for _ in range(100):
            now[0] += seconds_a_batch
            display.advance(1, 100)
    lines = screen.getvalue().splitlines()
    assert lines[0] == "epoch 2/3: 15 % done, 25 images/s, 12:20 left", "185 batches of 4 s"
    assert lines[5] == "epoch 2/3: 90 % done, 25 images/s, 7:20 left", "110 batches"
    assert lines[6] == "epoch 3/3: 15 % done, 25 images/s, 5:40 left", "85 batches; the first epoch is no measure any more"


def test_the_bar_of_a_terminal_shows_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    screen = io.StringIO()
    display = Display(Console(file=screen, force_terminal=True, width=120, color_system=None))
    display.start_epoch(1, 3, 10)
    display.advance(0, 0)
    now[0] += 5.0
    display.advance(10, 640)
    display.row(row(1))
    display.start_epoch(2, 3, 10)
    now[0] += 1.0
    display.advance(2, 128)
    display.close()
    shown = screen.getvalue()
    for words in ("epoch 2/3", "train 1.500 50.0 %", "val 1.250 62.5 %", "128 images/s", "9.0 s left"):
        assert words in shown, words


@pytest.mark.parametrize(("width", "color"), [(80, None), (200, "truecolor")])
def test_the_bar_fits_its_terminal(monkeypatch: pytest.MonkeyPatch, width: int, color: str | None) -> None:
    screen = io.StringIO()
    display = Display(Console(file=screen, force_terminal=True, width=width, color_system=color))
    display.start_epoch(100, 200, 1000)
    display.advance(0, 0)
    display.row(row(100, images_per_s=1234567.0))
    display._next = 0.0
    display.advance(500, 5_000_000)
    bar = display._bar
    assert bar is not None
    lines = display.console.render_lines(bar.get_renderable(), display.console.options.update(width=width))
    display.close()
    assert len(lines) == 1


def test_a_closed_pipe_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    class Closed(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

        flush = write  # type: ignore[assignment]

    turned: list[int] = []
    monkeypatch.setattr("cifar_lab.display.os.dup2", lambda source, target: turned.append(target))
    monkeypatch.setattr("sys.stdout", open(os.devnull, "w"))  # noqa: PTH123, SIM115
    console = LabConsole(file=Closed())
    console.print("into nothing")
    console.print("again")
    assert len(turned) == 1
    assert console.quiet


def test_no_color_is_honoured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=120)
    console.print("[red]x[/]")
    assert "31m" not in screen.getvalue()


def test_a_download_is_shown_with_its_speed(screen: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    display = plain(screen)
    for second in range(11):
        now[0] = float(second)
        display.loading("cifar.tar.gz from example.org", second * 10_000_000, 100_000_000)
    lines = screen.getvalue().splitlines()
    assert lines[0] == "cifar.tar.gz from example.org ..."
    assert lines[1] == "cifar.tar.gz from example.org: 20 % (20.0 of 100.0 MB, 10.00 MB/s, 8.0 s left)"
    assert lines[-1] == "cifar.tar.gz from example.org: 100 % (100.0 of 100.0 MB, 10.00 MB/s)"


def test_a_missing_extra_is_named_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = Config()
    config.tracker.name = "mlflow"
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="tracker=mlflow: mlflow is not installed") as caught:
        Tracker(tmp_path, config)
    assert "pip install 'cifar-lab[mlflow]'" in caught.value.hint
    assert not list(tmp_path.iterdir())


def read_tensorboard(folder: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_tensorboard_holds_the_rows_also_after_a_resume(lab: Lab) -> None:
    arguments = (*SMOKE, "tracker=tensorboard", "hydra.run.dir=run")
    assert lab(*arguments).code == 0
    said = lab(*arguments, "train.epochs=4")
    assert said.code == 0, said.err
    rows = [json.loads(line) for line in Path("run/metrics.jsonl").read_text().splitlines()]
    found = read_tensorboard(Path("run/tensorboard"))
    for tag, column in (("loss/train", "train_loss"), ("accuracy/val", "val_accuracy"), ("lr", "lr")):
        assert [step for step, _ in found[tag]] == [1, 2, 3, 4]
        assert [value for _, value in found[tag]] == pytest.approx([r[column] for r in rows], rel=1e-6)
    result = json.loads(Path("run/result.json").read_text())
    assert found["final/test_accuracy"][-1] == (4, pytest.approx(result["metrics"]["test"]["accuracy"]))


def test_tensorboard_forgets_what_a_run_logged_that_was_killed_before_its_first_checkpoint(tmp_path: Path) -> None:
    for epochs_done, value in ((0, 2.0), (0, 1.0), (1, 0.5)):
        sink = TensorBoardSink(tmp_path, epochs_done)
        sink.row(row(epochs_done + 1, train_loss=value))
        if value == 2.0:
            sink.row(row(2, train_loss=1.9))
        sink.close()
    assert read_tensorboard(tmp_path / "tensorboard")["loss/train"] == [(1, 1.0), (2, 0.5)]


def test_mlflow_holds_one_run_with_every_epoch_once(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow.tracking import MlflowClient

    create = MlflowClient.create_experiment

    def too_late(client: MlflowClient, name: str) -> str:
        create(client, name)  # by another worker, between this one's look and its own attempt
        return create(client, name)

    monkeypatch.setattr(MlflowClient, "create_experiment", too_late)
    arguments = (*SMOKE, "tracker=mlflow", "tracker.uri=sqlite:///mlflow.db", "tracker.project=digits", "hydra.run.dir=run")
    assert lab(*arguments).code == 0
    said = lab(*arguments, "train.epochs=3")
    assert said.code == 0, said.err
    client = MlflowClient(tracking_uri="sqlite:///mlflow.db")
    experiment = client.get_experiment_by_name("digits")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    rows = [json.loads(line) for line in Path("run/metrics.jsonl").read_text().splitlines()]
    history = sorted((m.step, m.value) for m in client.get_metric_history(run.info.run_id, "val_loss"))
    assert history == [(r["epoch"], pytest.approx(r["val_loss"])) for r in rows]
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "run"
    assert run.data.params["optimizer.lr"] == "0.003"
    result = json.loads(Path("run/result.json").read_text())
    assert run.data.metrics["final_test_accuracy"] == pytest.approx(result["metrics"]["test"]["accuracy"])


class GoneServer:
    """A sink whose server goes away after some epochs; what it was told."""

    def __init__(self, epochs: int):
        self.epochs, self.told = epochs, []

    def _tell(self, what: str) -> None:
        self.told.append(what)
        if len(self.told) > self.epochs:
            raise ConnectionError("API request to http://server failed:\nrefused")

    def row(self, row: Any) -> None:
        self._tell("row")

    def finish(self, result: Any) -> None:
        self._tell("finish")

    def close(self) -> None:
        self._tell("close")


@pytest.mark.parametrize("epochs", [0, 1, 2, 3])
def test_a_tracking_server_that_goes_away_ends_nothing(lab: Lab, monkeypatch: pytest.MonkeyPatch, epochs: int) -> None:
    sink = GoneServer(epochs)
    monkeypatch.setattr("cifar_lab.tracking.TensorBoardSink", lambda *_: sink)
    said = lab(*SMOKE, "tracker=tensorboard", "hydra.run.dir=run")
    assert said.code == 0, said.err
    assert sink.told == ["row", "row", "finish", "close"][: epochs + 1]
    why = "ConnectionError: API request to http://server failed: refused"
    note = f"W-TRACKER: tensorboard failed and gets no more of this run ({why})"
    assert (Path("run/run.log").read_text().count(note), said.out.replace("\n", " ").count("W-TRACKER")) == (1, 1)
    assert len(Path("run/metrics.jsonl").read_text().splitlines()) == 2
    assert json.loads(Path("run/result.json").read_text())["status"] == "done"
    assert json.loads(Path("run/checkpoints/step-00000002/manifest.json").read_text())["epoch"] == 2


def test_a_run_goes_on_without_a_tracker_that_is_gone(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was refused before anything was trained must not end what is half done, such as a requeued job."""

    def gone(*_: object) -> None:
        raise ConnectionError("http://server: refused")

    arguments = (*SMOKE, "tracker=tensorboard", "hydra.run.dir=run", "train.epochs=1")
    with monkeypatch.context() as patch:
        patch.setattr("cifar_lab.tracking.TensorBoardSink", gone)
        said = lab(*arguments)
        assert said.code == 2
        assert "E-CONFIG]: tracker=tensorboard: http://server: refused" in said.err
    assert lab(*arguments).code == 0
    monkeypatch.setattr("cifar_lab.tracking.TensorBoardSink", gone)
    said = lab(*arguments, "train.epochs=2")
    assert said.code == 0, said.err
    assert Path("run/run.log").read_text().count("W-TRACKER: tensorboard failed") == 1
    assert len(Path("run/metrics.jsonl").read_text().splitlines()) == 2


def test_the_result_is_on_the_disk_before_a_tracker_hears_of_it(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    class Leaving(GoneServer):
        def finish(self, result: Any) -> None:
            raise KeyboardInterrupt

    monkeypatch.setattr("cifar_lab.tracking.TensorBoardSink", lambda *_: Leaving(9))
    arguments = (*SMOKE, "tracker=tensorboard", "hydra.run.dir=run", "train.epochs=1")
    assert lab(*arguments).code == 130
    assert "already done" in lab(*arguments).out


def test_a_server_that_goes_away_does_not_hide_what_ended_the_run(tmp_path: Path, screen: io.StringIO) -> None:
    tracker = Tracker(tmp_path, Config(), plain(screen))
    tracker._sink = GoneServer(0)
    with pytest.raises(DivergedError), tracker:
        raise DivergedError("loss is nan")
    assert tracker._log.closed
    assert "W-TRACKER: none failed" in screen.getvalue()
