"""Jobs of a sweep in processes of their own: one that goes wrong takes none with it, and nothing is run twice."""

import gc
import json
import os
import signal
import subprocess
import sys
import time
import weakref
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from rig import ROOT, SMOKE, Lab
from torch import nn

from cifar_lab import local, pipeline, processes, runs, schema, workers
from cifar_lab.config import Config, to_plain
from cifar_lab.errors import ConfigError, DeviceError, ResourceError
from cifar_lab.processes import Slot
from cifar_lab.signals import StopFlag

LAB = '''
import os, signal, sys, time
import torch
from torch import nn

class Wayward(nn.Sequential):
    def forward(self, images):
        if self.training and torch.is_grad_enabled() and not os.path.exists("mended"):
            if self.way == "raise":
                raise RuntimeError("broken on purpose")
            if self.way == "exit":
                sys.exit(3)
            if self.way == "die":
                os._exit(5)
            if self.way == "leave":
                os._exit(0)
            if self.way == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            if self.way == "hang":
                time.sleep(600)
            if self.way == "gpu":
                raise RuntimeError("CUDA error: device-side assert triggered")
            if self.way == "memory":
                raise MemoryError("no more")
        return super().forward(images)

def wayward(num_classes: int, way: str = "good") -> nn.Module:
    """A model that does what it is told."""
    model = Wayward(nn.Flatten(), nn.Linear(3 * 32 * 32, num_classes))
    model.way = way
    open(f"pids_{way}", "a").write(f"{os.getpid()} ")
    return model

MODELS = {"wayward": wayward}
'''


@pytest.fixture
def sweep(lab: Lab, tmp_path: Path, same_tables_afterwards: None) -> Lab:
    """A sweep of wayward models."""
    (tmp_path / "lab.py").write_text(LAB)
    return lambda *overrides: lab("-m", "--plugin", "lab.py", *SMOKE, "model=wayward", *overrides)


def results(folder: Path) -> dict[str, dict]:
    return {p.parent.name: json.loads(p.read_text()) for p in folder.glob("outputs/sweeps/*/*/result.json")}


def way_of(name: str) -> str:
    return name.partition(",")[0].removeprefix("model.way=")


def test_a_job_that_dies_ends_alone(monkeypatch, tmp_path, sweep):
    monkeypatch.setattr(processes, "LOST_S", 0.5)
    said = sweep("model.way=good,exit,gpu,die,leave,killed", "seed=0", "sweep.workers=1", "train.latency_s=0.2")
    assert said.code == 8, said.err
    ended = {way_of(name): result for name, result in results(tmp_path).items()}
    statuses = {way: result["status"] for way, result in ended.items()}
    assert statuses == {"good": "done", **dict.fromkeys(("exit", "gpu", "die", "leave", "killed"), "failed")}
    assert ended["exit"]["error"]["message"] == "SystemExit: 3"
    assert ended["gpu"]["error"]["code"] == "E-DEVICE"
    # Built here to be checked, in a process that measures its cost, in a worker, and where latency is measured.
    pids = {way: (tmp_path / f"pids_{way}").read_text().split()[2] for way in ("exit", "gpu", "die")}
    assert pids["exit"] == pids["gpu"], "a worker is kept for the next run"
    assert pids["gpu"] != pids["die"], "but not one in which CUDA has failed"
    assert ended["die"]["error"]["message"] == "its process ended with code 5"
    assert ended["leave"]["error"]["message"] == "its process died", "with code 0"
    assert ended["killed"]["error"]["message"] == "killed by SIGKILL"
    assert "1 done, 5 failed (1 E-BUG, 1 E-DEVICE, 3 E-KILLED)" in said.err
    assert "model.way=killed: E-KILLED killed by SIGKILL; log: outputs/sweeps/" in said.out
    assert not list(tmp_path.glob("outputs/sweeps/*/*/*.png")), "pictures are drawn when somebody asks for them"
    assert ended["good"]["cost"]["latency"] is None, "measured once a variant, alone"
    [facts] = [json.loads(path.read_text())["variants"] for path in tmp_path.glob("outputs/sweeps/*/facts.json")]
    assert facts["model.way=good"]["latency"]["batch_1"]["calls"] > 0


@pytest.mark.slow
def test_five_of_twenty_fail_in_five_ways_and_the_same_command_runs_exactly_those(tmp_path, sweep):
    failing = {"raise": "E-BUG", "exit": "E-BUG", "killed": "E-KILLED", "hang": "E-TIMEOUT", "memory": "E-OOM"}
    ways = [*(f"good{number}" for number in range(15)), *failing]
    words = (f"model.way={','.join(ways)}", "seed=0", "sweep.workers=1", "sweep.job_timeout=30")
    said = sweep(*words)
    assert said.code == 8, said.err
    codes = {way_of(name): (result["error"] or {}).get("code") for name, result in results(tmp_path).items()}
    assert codes == {way: failing.get(way) for way in ways}
    assert "15 done, 5 failed" in said.err
    for way, code in failing.items():
        assert f"model.way={way}: {code}" in said.out
    written = {path: path.stat().st_mtime_ns for path in tmp_path.glob("outputs/sweeps/*/*/result.json")}
    (tmp_path / "mended").touch()
    said = sweep(*words)
    assert said.code == 0, said.err
    assert "20 jobs in" in said.out
    assert "15 of them done already" in said.out
    changed = {way_of(path.parent.name) for path, before in written.items() if path.stat().st_mtime_ns != before}
    assert changed == set(failing)


@pytest.mark.slow
@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM])
def test_no_worker_outlives_a_sweep_and_it_goes_on(tmp_path, signum):
    (tmp_path / "lab.py").write_text(LAB)
    arguments = [*SMOKE, "seed=range(0,6)", "sweep.workers=2", "train.epochs=40"]
    command = [sys.executable, "-m", "cifar_lab.cli", "train", "-m", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True)
    while not list(tmp_path.glob("outputs/sweeps/*/*/metrics.jsonl")):
        time.sleep(0.2)
    children = subprocess.run(["ps", "--ppid", str(process.pid), "-o", "pid="], capture_output=True, text=True).stdout.split()
    assert len(children) >= 2
    process.send_signal(signum)
    process.wait(timeout=120)
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{pid}").exists() for pid in children) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not [pid for pid in children if Path(f"/proc/{pid}").exists()]
    done_before = {name for name, result in results(tmp_path).items() if result["status"] == "done"}
    again = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=240)
    assert again.returncode == 0, again.stderr
    assert f"{len(done_before)} of them done already" in again.stdout or not done_before
    assert {result["test_openings"] for result in results(tmp_path).values()} == {1}


def test_an_error_that_is_kept_holds_nothing_of_its_run(monkeypatch, tmp_path):
    """A worker's last answer lives until its next run is over: a GPU would hold two models."""
    kept = []

    def run(*_, **__):
        model = nn.Linear(2, 2)
        kept.append(weakref.ref(model))
        try:
            raise torch.OutOfMemoryError("CUDA out of memory")
        except torch.OutOfMemoryError as error:
            raise ResourceError("out of GPU memory at train.batch_size=4096") from error

    monkeypatch.setattr(pipeline, "run", run)
    schema.register()
    error = workers._run_task(workers.Task("a", tmp_path, to_plain(schema.compose([])), ()), Slot())
    gc.collect()
    assert isinstance(error, ResourceError)
    assert kept[0]() is None


class DeadGpu:
    """A worker, one of whose GPUs has gone."""

    def __init__(self, slot, plugins):
        self.slot, self.pool = slot, SimpleNamespace(close=lambda: None)

    def start(self, work, task, timeout_s=0.0):
        future = Future()
        future.set_result(DeviceError("device=cuda; no CUDA device is here") if self.slot.gpu in ("1", "2") else None)
        return future

    end = renew = end_if_lost = lambda self, *_: None


def test_a_gpu_that_has_gone_uses_up_no_queue(monkeypatch, tmp_path):
    monkeypatch.setattr(workers, "Worker", DeadGpu)
    tasks = [workers.Task(str(number), tmp_path / str(number), {}, ()) for number in range(6)]
    run = partial(workers.run_tasks, tasks, stop=StopFlag())
    outcomes = run([Slot(1, "0"), Slot(1, "1"), Slot(1, "2")])
    assert [(outcome.name, outcome.error) for outcome in outcomes] == [(task.name, None) for task in tasks]
    assert {outcome.error.code for outcome in run([Slot(1, "1"), Slot(1, "2")])} == {"E-DEVICE"}, "nobody is left to do it"
    assert {runs.read_result(task.folder)["error"]["code"] for task in tasks} == {"E-DEVICE"}


def test_a_worker_with_a_gpu_never_trains_on_the_cpu():
    config = Config()
    Slot(3, "1").place(config)
    assert (config.device, config.threads) == ("cuda", 3)
    config = Config(device="cpu", threads=1)
    Slot(3, "1").place(config)
    assert (config.device, config.threads) == ("cpu", 1)


def test_workers_share_the_cores(monkeypatch):
    monkeypatch.setattr(local, "_cores", lambda: 8)
    monkeypatch.setattr(local, "_free_bytes", lambda: 7 * 2**30)
    monkeypatch.setattr(local, "visible_gpus", list)
    choose = local.choose_slots
    assert choose(0, 100, "cpu", 0) == [Slot(2, shared=True)] * 3, "7 GiB are enough for three"
    assert choose(4, 100, "auto", 0) == [Slot(2, shared=True)] * 4
    assert choose(4, 2, "cpu", 0) == [Slot(4, shared=True)] * 2
    assert choose(4, 100, "cpu", 3) == [Slot(3, shared=True)] * 4
    monkeypatch.setattr(local, "visible_gpus", lambda: ["2", "5"])
    monkeypatch.setattr(local, "_cuda_works", lambda: False)  # a driver that is too old for this torch
    assert choose(4, 100, "auto", 0) == [Slot(2, shared=True)] * 4
    monkeypatch.setattr(local, "_cuda_works", lambda: True)
    assert choose(0, 100, "auto", 0) == [Slot(4, "2"), Slot(4, "5")]
    assert [(slot.gpu, slot.shared) for slot in choose(4, 100, "cuda", 0)] == [("2", True), ("5", True)] * 2
    assert choose(0, 100, "cpu", 0)[0].gpu is None
    assert choose(1, 100, "cuda:1", 0) == [Slot(0)]
    with pytest.raises(ConfigError, match=r"sweep\.workers=2 with device=cuda:1; one device runs one job at a time"):
        choose(2, 100, "cuda:1", 0)
