"""A planned job in a process that a foreign launcher started: what it refuses, what it leaves, and how it ends."""

import gc
import json
import signal
import threading
import time
import weakref
from pathlib import Path

import pytest
import torch
from rig import SMOKE

from cifar_lab import runs, schema, storage
from cifar_lab.cluster.jobs import run_job
from cifar_lab.config import to_plain
from cifar_lab.errors import CodeError, Interrupted, JobStopped, ResourceError
from cifar_lab.plugins import plugin_files
from cifar_lab.signals import StopFlag
from cifar_lab.workers import Task


@pytest.fixture
def task(tmp_path: Path) -> Task:
    """One job of a plan, made by the code as it is."""
    schema.register()
    plain = to_plain(schema.compose([*SMOKE]))
    (tmp_path / "plan.json").write_text(json.dumps({"code": runs.code_digest(plugin_files()), "plugins": []}))
    return Task("job", tmp_path / "job", plain, ("seed=0",))


def change_code(task: Task) -> str:
    plan = task.folder.parent / "plan.json"
    known = json.loads(plan.read_text())
    plan.write_text(json.dumps({**known, "code": "0" * 64}))
    return known["code"]


def test_other_code_is_refused_and_the_word_of_it_does_not_block_the_next_try(task: Task) -> None:
    code = change_code(task)
    assert isinstance(run_job(task, task.folder, 0), CodeError)
    result = json.loads((task.folder / "result.json").read_text())
    assert (result["status"], result["error"]["code"]) == ("failed", "E-CODE")
    assert [path.name for path in task.folder.iterdir()] == ["result.json"]
    plan = task.folder.parent / "plan.json"
    plan.write_text(json.dumps({**json.loads(plan.read_text()), "code": code}))
    done = run_job(task, task.folder, 0)
    assert isinstance(done, dict)
    assert done["status"] == "done"


def test_a_good_result_is_kept_whatever_comes_later(task: Task) -> None:
    run_job(task, task.folder, 0)
    before = (task.folder / "result.json").read_bytes()
    change_code(task)
    assert isinstance(run_job(task, task.folder, 0), CodeError)
    assert (task.folder / "result.json").read_bytes() == before


def test_a_job_that_was_submitted_twice_waits_for_the_first(task: Task) -> None:
    lock = storage.FolderLock(task.folder)
    lock.__enter__()
    began = time.monotonic()
    threading.Timer(1.0, lock.__exit__).start()
    done = run_job(task, task.folder, 0)
    assert isinstance(done, dict)
    assert time.monotonic() - began > 1.0


def test_jobs_one_after_the_other_in_one_process_keep_nothing_of_each_other(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hydra's basic launcher keeps what each gave until the last is over."""
    kept = []

    def run(*_: object, **__: object) -> None:
        model = torch.nn.Linear(2, 2)
        kept.append(weakref.ref(model))
        raise ResourceError("out of GPU memory at train.batch_size=4096")

    monkeypatch.setattr("cifar_lab.pipeline.run", run)
    given = run_job(task, task.folder, 0)
    gc.collect()
    assert isinstance(given, ResourceError)
    assert kept[0]() is None


@pytest.mark.parametrize("executor", ["", "slurm"])
def test_a_stopped_job_of_submitit_leaves_no_result_there(task: Task, executor: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from cifar_lab import pipeline

    def stopped(*_: object, **__: object) -> None:
        raise Interrupted("SIGTERM: stopped", signum=signal.SIGTERM)

    monkeypatch.setattr(pipeline, "run", stopped)
    if executor:
        monkeypatch.setenv("SUBMITIT_EXECUTOR", executor)
        with pytest.raises(SystemExit) as ended:  # a pickled result would tell the waiting side that all is over
            run_job(task, task.folder, 0)
        assert ended.value.code == 143
    else:  # Hydra's basic launcher, in the process that a person started: the signal is meant for all jobs
        with pytest.raises(JobStopped):
            run_job(task, task.folder, 0)


@pytest.mark.parametrize(
    ("ending", "words", "code"),
    [
        (SystemExit(-1), "it continues by itself", 140),
        (SystemExit(144), "it continues by itself", 144),
        (RuntimeError("Job not requeued because: x."), "Job not requeued because: x.", 140),
    ],
)
def test_the_schedulers_own_handler_is_called_at_the_safe_point(ending: BaseException, words: str, code: int) -> None:
    """submitit's exits after it has asked for the requeueing, on one machine by exit code 144, and raises where it may not."""
    called = []

    def handler(signum: int, frame: object) -> None:
        called.append(signum)
        raise ending

    before = signal.signal(signal.SIGUSR2, handler)
    try:
        with StopFlag() as stop:
            signal.raise_signal(signal.SIGUSR2)
            assert called == []
            with pytest.raises(Interrupted) as stopped:
                stop.check("epoch 3")
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert called == [signal.SIGUSR2]
    assert words in stopped.value.hint
    assert stopped.value.exit_code == code
