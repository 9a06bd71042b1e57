"""Commands that work in one sweep's folder at once leave each other's jobs alone, and dead ones hold nothing."""

import fcntl
import os
import shutil
import signal
import time
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
from rig import SMOKE, start

from cifar_lab import launching, schema, storage, sweeping, sweeps
from cifar_lab.errors import CodeError, ResumeError
from cifar_lab.underway import names_under_way, under_way


def wait_for(true: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 120
    while not true():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def _hold(where: Path, names: list[str], ready: Any) -> None:
    with under_way(where, names):
        ready.set()
        time.sleep(600)


def test_names_last_as_long_as_their_command(tmp_path: Path) -> None:
    assert names_under_way(tmp_path) == set()
    context = get_context("fork")
    ready = context.Event()
    other = context.Process(target=_hold, args=(tmp_path, ["seed=1", "seed=2"], ready))
    other.start()
    try:
        assert ready.wait(60)
        with under_way(tmp_path, ["seed=7"]):
            assert names_under_way(tmp_path, tidy=True) == {"seed=1", "seed=2", "seed=7"}
        assert names_under_way(tmp_path) == {"seed=1", "seed=2"}
    finally:
        other.kill()
        other.join()
    assert names_under_way(tmp_path) == set()
    assert len(list((tmp_path / ".underway").iterdir())) == 1, "looking removes nothing"
    assert names_under_way(tmp_path, tidy=True) == set()
    assert list((tmp_path / ".underway").iterdir()) == []


def test_nothing_depends_on_what_is_left_there(tmp_path: Path) -> None:
    """Somebody deletes it, or puts something else into it, while a sweep is at work."""
    with under_way(tmp_path, ["seed=1"]):
        (tmp_path / ".underway" / ".DS_Store").write_text("no folder")
        assert names_under_way(tmp_path, tidy=True) == {"seed=1"}
        shutil.rmtree(tmp_path / ".underway")
        assert names_under_way(tmp_path, tidy=True) == set()


def test_the_plan_is_merged_by_one_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    schema.register()
    jobs = sweeps.plan([*SMOKE, "seed=0,1"])
    real, locked = sweeping.make_plan, []

    def make_plan(*args: Any, **named: Any) -> dict[str, Any]:
        locked.append(storage.is_locked(tmp_path))
        return real(*args, **named)

    monkeypatch.setattr(sweeping, "make_plan", make_plan)
    with launching._taken(tmp_path, jobs, jobs, queued=False):
        assert not storage.is_locked(tmp_path), "only while it is merged"
        assert names_under_way(tmp_path) == {"seed=0", "seed=1"}
    with launching._taken(tmp_path, jobs, jobs, queued=True):
        assert all(job["queued"] for job in storage.read_json(tmp_path / "plan.json")["jobs"])
    assert not any(job.get("queued") for job in storage.read_json(tmp_path / "plan.json")["jobs"])
    assert locked == [True, True]


def test_two_who_look_at_once_see_no_holder(tmp_path: Path) -> None:
    with storage.FolderLock(tmp_path):
        assert storage.is_locked(tmp_path)
    assert not storage.is_locked(tmp_path)
    descriptor = os.open(tmp_path / storage.LOCK_NAME, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_SH)  # as the other one does
    assert not storage.is_locked(tmp_path)
    os.close(descriptor)
    assert not storage.is_locked(tmp_path / "missing")
    assert not (tmp_path / "missing").exists()


def test_a_command_of_other_code_waits_for_the_one_at_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    schema.register()
    plan = sweeping.make_plan(tmp_path, sweeps.plan([*SMOKE, "seed=0,1"]), name="it", command="cifar-lab train")
    storage.write_json(tmp_path / "plan.json", plan)
    sweeping.refuse_other_code(tmp_path, ["seed=1"])
    monkeypatch.setattr(sweeping.runs, "code_digest", lambda _: "another")
    with pytest.raises(CodeError, match=r"another command at work in .* runs other code than this"):
        sweeping.refuse_other_code(tmp_path, ["seed=1"])
    sweeping.refuse_other_code(tmp_path, [])


def test_what_another_command_is_about_to_run_keeps_its_place_and_settings(tmp_path: Path) -> None:
    schema.register()

    def make(*words: str, under_way: tuple[str, ...] = ()) -> list[str]:
        jobs = sweeps.plan([*SMOKE, *words])
        plan = sweeping.make_plan(tmp_path, jobs, name="it", command="cifar-lab train", under_way=under_way)
        storage.write_json(tmp_path / "plan.json", plan)
        return [job["name"] for job in plan["jobs"]]

    assert make("seed=0,1") == ["seed=0", "seed=1"]
    assert make("seed=7,8", under_way=("seed=1",)) == ["seed=1", "seed=7", "seed=8"]
    with pytest.raises(ResumeError, match=r"seed=1 is about to be run by another command with train\.batch_size=64, not 32"):
        make("seed=1,2", "train.batch_size=32", under_way=("seed=1",))
    assert make("seed=1,2", "train.batch_size=32") == ["seed=1", "seed=2"], "nobody is about to run it"


def test_two_sweeps_in_one_folder_at_once(tmp_path: Path) -> None:
    where = tmp_path / "sweep"
    common = ("-m", *SMOKE, "data.subset=0", "train.epochs=1000", "sweep.workers=1", "hydra.sweep.dir=../sweep")
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    running = [start([*common, "seed=0,1"], tmp_path / "one")]
    try:
        wait_for((where / "seed=0" / "metrics.jsonl").is_file, "the first sweep begins")
        running.append(start([*common, "seed=7,8"], tmp_path / "two"))
        wait_for((where / "seed=7" / "metrics.jsonl").is_file, "the second sweep begins")
        assert set(sweeping.planned(where)) == {"seed=0", "seed=1", "seed=7", "seed=8"}
        assert not (where / "seed=1").exists(), "it had not begun, and stayed in the plan"
        running[0].kill()
        wait_for(lambda: names_under_way(where) == {"seed=7", "seed=8"}, "a killed sweep lets go")
        running[1].terminate()
        running[1].join(60)
        assert running[1].exitcode == 128 + signal.SIGTERM
        assert names_under_way(where) == set()
    finally:
        for process in running:
            process.kill()
            process.join()
