"""How a sweep is getting on, from its files: every state, the time left, and the command's exit code."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from rig import ROOT
from typer.testing import CliRunner

from cifar_lab.cli import app
from cifar_lab.storage import FolderLock
from cifar_lab.study.status import JobStatus, read_status, time_left

EPOCHS = 10


def plan(where: Path, names: list[str]) -> None:
    job: dict[str, Any] = {"overrides": [], "variant": "", "round": 0}
    config = {"train": {"epochs": EPOCHS, "checkpoint_every_s": 60.0}}
    jobs = [{**job, "name": name, "config": {**config, "seed": index}} for index, name in enumerate(names)]
    known = {"schema": 2, "name": "digits", "command": "cifar-lab train -m", "code": "", "plugins": [], "study": {}, "jobs": jobs}
    (where / "plan.json").write_text(json.dumps(known))


def begin(folder: Path, epochs: int, *, seconds: float = 4.0) -> Path:
    folder.mkdir()
    row = {"train_loss": 1.0, "val_accuracy": 0.25, "seconds": seconds}
    (folder / "metrics.jsonl").write_text("".join(json.dumps({"epoch": e + 1, **row}) + "\n" for e in range(epochs)))
    (folder / "digests.json").write_text("{}")
    (folder / "run.log").write_text("")
    return folder


def finish(folder: Path, status: str, **more: Any) -> None:
    (folder / "result.json").write_text(json.dumps({"schema": 1, "status": status, **more}))


def hold(folder: Path, host: str, pid: int) -> None:
    (folder / ".lock").write_text(json.dumps({"host": host, "pid": pid, "since": "2026-01-01 00:00:00"}))


def age(folder: Path, seconds: float) -> None:
    """As if everything in it had been written so long ago."""
    then = time.time() - seconds
    for path in [*folder.iterdir(), folder]:
        os.utime(path, (then, then))


def dead_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """Every state once or more; who is 'elsewhere' cannot be asked."""
    names = ["done", "failed", "diverged", "interrupted", "fresh", "killed", "elsewhere", "gone", "again"]
    plan(tmp_path, names)
    finish(begin(tmp_path / "done", EPOCHS), "done", seconds=40.0)
    for name, status in (("failed", "failed"), ("diverged", "diverged"), ("interrupted", "interrupted")):
        finish(begin(tmp_path / name, 3), status, error={"code": "E-OOM", "message": "out of memory at batch_size=4096"})
    hold(begin(tmp_path / "killed", 2), os.uname().nodename, dead_pid())
    hold(begin(tmp_path / "elsewhere", 5), "elsewhere", 1)
    hold(begin(tmp_path / "gone", 5), "elsewhere", 1)
    age(tmp_path / "gone", 3600)
    finish(begin(tmp_path / "again", 5), "failed", error={"code": "E-OOM", "message": "before"})
    age(tmp_path / "again", 100)
    hold(tmp_path / "again", "elsewhere", 1)  # begun once more, just now
    return tmp_path


def test_every_state_is_told_from_files(sweep: Path) -> None:
    found = read_status(sweep)
    assert {job.name: job.state for job in found.jobs} == {
        "done": "done",
        "failed": "failed",
        "diverged": "failed",
        "interrupted": "waiting",
        "fresh": "waiting",
        "killed": "lost",
        "elsewhere": "running",
        "gone": "lost",
        "again": "running",
    }
    assert found.counts == {"done": 1, "running": 2, "failed": 2, "lost": 2, "waiting": 2}
    by_name = {job.name: job for job in found.jobs}
    assert by_name["failed"].note == "E-OOM out of memory at batch_size=4096"
    assert by_name["elsewhere"].left_s == pytest.approx(20.0)
    assert (by_name["elsewhere"].epochs_done, by_name["elsewhere"].epochs) == (5, EPOCHS)


def test_a_held_lock_is_seen_and_left_alone(tmp_path: Path) -> None:
    plan(tmp_path, ["mine"])
    begin(tmp_path / "mine", 1)
    with FolderLock(tmp_path / "mine"):
        age(tmp_path / "mine", 3600)  # a long epoch: nothing is written, and yet it runs
        assert read_status(tmp_path).jobs[0].state == "running"
        code = f"from cifar_lab.storage import FolderLock\nFolderLock({str(tmp_path / 'mine')!r}).__enter__()"
        other = subprocess.run([sys.executable, "-c", code], capture_output=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
        assert b"LockedError" in other.stderr
    assert read_status(tmp_path).jobs[0].state == "lost"


def job(state: str, *, done: int = 0, left: float | None = None, seconds: float | None = None) -> JobStatus:
    return JobStatus("x", state, done, EPOCHS, left_s=left, seconds=seconds)


@pytest.mark.parametrize(
    ("jobs", "seconds"),
    [
        ([job("done", seconds=10.0)] * 3, None),  # nothing runs
        ([job("waiting")], None),
        ([job("running", left=7.0)], 7.0),
        ([job("done", seconds=10.0), job("running", left=4.0), job("waiting")], 14.0),  # one after the other
        ([job("done", seconds=10.0), *[job("running", left=4.0)] * 2, *[job("waiting")] * 4], 24.0),  # two at once
        ([job("running", left=30.0), job("running", left=2.0)], 30.0),  # the longest decides
        ([job("done", seconds=10.0), job("running", left=1.0), job("lost", done=5)], 6.0),  # half of it is there
        ([job("running", done=5, left=5.0), job("waiting")], 15.0),  # nobody is done: as long as the running one
        ([job("running"), job("waiting")], None),
    ],
)
def test_time_left(jobs: list[JobStatus], seconds: float | None) -> None:
    assert time_left(jobs) == (None if seconds is None else pytest.approx(seconds))


def test_the_command_prints_a_line_for_each_unfinished_job(sweep: Path) -> None:
    said = CliRunner().invoke(app, ["status", str(sweep)])
    assert said.exit_code == 8
    assert said.output.startswith("digits: 9 jobs, 1 done, 2 running, 2 failed, 2 lost, 2 waiting, ")
    lines = said.output.splitlines()
    assert [line.split()[0] for line in lines[2:]] == [
        *("failed", "diverged", "interrupted", "fresh", "killed", "elsewhere", "gone", "again")
    ]
    as_json = json.loads(CliRunner().invoke(app, ["status", str(sweep), "--json"]).output)
    assert as_json["counts"]["lost"] == 2
    assert as_json["jobs"][0]["state"] == "done"


def test_exit_codes(tmp_path: Path) -> None:
    assert CliRunner().invoke(app, ["status", str(tmp_path)]).exit_code == 3
    plan(tmp_path, ["a", "b"])
    assert CliRunner().invoke(app, ["status", str(tmp_path)]).exit_code == 0
    finish(begin(tmp_path / "a", EPOCHS), "done", seconds=1.0)
    assert CliRunner().invoke(app, ["status", str(tmp_path)]).exit_code == 0
    hold(begin(tmp_path / "b", 1), os.uname().nodename, dead_pid())
    assert CliRunner().invoke(app, ["status", str(tmp_path)]).exit_code == 8
