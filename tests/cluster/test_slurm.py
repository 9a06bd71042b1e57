"""Sweeps on a real Slurm cluster of one node (setup_slurm.sh): killed, requeued, timed-out and outdated jobs."""

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cluster_rig import LONG, end, environment, pid_in, rows, start, statuses, until
from rig import ROOT, SMOKE

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(shutil.which("sbatch") is None, reason="no sbatch: sh tests/cluster/setup_slurm.sh install"),
    pytest.mark.skipif(importlib.util.find_spec("submitit") is None, reason="no submitit: the extra slurm is not installed"),
]

HERE = Path(__file__).parent
SLURM = ("hydra/launcher=submitit_slurm", "hydra.launcher.timeout_min=10", "hydra.sweep.dir=sweep")
Slurm = Callable[..., str]


@pytest.fixture(scope="module")
def env(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment in which commands reach the cluster."""
    folder = tmp_path_factory.mktemp("slurm")
    script = str(HERE / "setup_slurm.sh")
    try:
        started = subprocess.run(["sh", script, "start", str(folder)], capture_output=True, text=True, timeout=120)
        assert started.returncode == 0, started.stderr
        yield environment({"SLURM_CONF": started.stdout.strip()})
    finally:
        subprocess.run(["sh", script, "stop", str(folder)], check=True, timeout=120)


@pytest.fixture
def slurm(env: dict[str, str]) -> Iterator[Slurm]:
    """A command of Slurm; what is left in the queue is cancelled."""

    def call(*words: str) -> str:
        return subprocess.run(words, env=env, check=True, capture_output=True, text=True).stdout

    yield call
    call("scancel", f"--user={os.getuid()}")
    until(lambda: not call("squeue", "--noheader"), what="an empty queue")


def job_ids(slurm: Slurm) -> list[str]:
    return slurm("squeue", "--noheader", "--array", "--format=%i").split()


def test_a_killed_job_costs_neither_the_others_nor_the_summary(env: dict[str, str], slurm: Slurm, tmp_path: Path) -> None:
    arguments = ("train", "-m", *LONG, "seed=0,1,2", *SLURM)
    sweep = tmp_path / "sweep"
    first = start(tmp_path, env, *arguments)
    until(lambda: rows(sweep / "seed=1") > 3, what="three epochs of seed 1")
    os.kill(pid_in(sweep / "seed=1"), signal.SIGKILL)
    code, out = end(first)
    assert code == 8, out
    assert "error[E-SWEEP]: 2 done, 1 failed" in out
    assert statuses(sweep) == {"seed=0": "done", "seed=2": "done"}

    code, out = end(start(tmp_path, env, *arguments))
    assert code == 0, out
    assert "3 jobs in sweep, 2 of them done already" in out
    assert statuses(sweep) == {"seed=0": "done", "seed=1": "done", "seed=2": "done"}
    assert "continuing from" in (sweep / "seed=1" / "run.log").read_text()
    assert "continuing from" not in (sweep / "seed=0" / "run.log").read_text()
    assert rows(sweep / "seed=1") == 150


def test_a_cancelled_job_can_be_run_again(env: dict[str, str], slurm: Slurm, tmp_path: Path) -> None:
    arguments = ("train", "-m", *LONG, "seed=0", *SLURM)
    first = start(tmp_path, env, *arguments)
    until(lambda: rows(tmp_path / "sweep" / "job") > 3, what="three epochs")
    slurm("scancel", *job_ids(slurm))
    code, out = end(first)
    assert code == 8, out
    assert statuses(tmp_path / "sweep") == {"job": "interrupted"}
    code, out = end(start(tmp_path, env, *arguments))
    assert code == 0, out
    assert rows(tmp_path / "sweep" / "job") == 150


@pytest.mark.parametrize(
    "how",
    [
        ("scontrol", "requeue"),
        # What Slurm sends when a time limit comes near; submitit asks for the requeueing itself.
        ("scancel", "--signal=USR2"),
    ],
)
def test_a_requeued_job_continues_in_its_folder(env: dict[str, str], slurm: Slurm, tmp_path: Path, how: tuple[str, ...]) -> None:
    folder = tmp_path / "sweep" / "seed=0"
    waiting = start(tmp_path, env, "train", "-m", *LONG, "train.epochs=600", "seed=0,1", *SLURM)
    until(lambda: rows(folder) > 3, what="three epochs of seed 0")
    slurm(*how, next(job for job in job_ids(slurm) if job.endswith("_0")))
    until(lambda: (folder / "result.json").is_file(), what="the word of the stopped run")
    assert json.loads((folder / "result.json").read_text())["status"] == "interrupted"
    code, out = end(waiting)
    assert code == 0, out
    assert statuses(tmp_path / "sweep") == {"seed=0": "done", "seed=1": "done"}
    assert (folder / "run.log").read_text().count("continuing from") == 1
    assert rows(folder) == 600


def test_a_queued_job_refuses_other_code_and_keeps_its_settings(env: dict[str, str], slurm: Slurm, tmp_path: Path) -> None:
    arguments = ("train", "-m", *SMOKE, "seed=0", *SLURM)
    waiting = start(tmp_path, env, *arguments, "+hydra.launcher.additional_parameters.hold=true")
    queued = until(lambda: job_ids(slurm), what="the job in the queue")
    plan = tmp_path / "sweep" / "plan.json"
    known = plan.read_text()
    plan.write_text(known.replace(json.loads(known)["code"], "0" * 64))
    slurm("scontrol", "release", *queued)
    code, out = end(waiting)
    assert code == 8, out
    assert "E-CODE the code has changed since" in out
    assert not (tmp_path / "sweep" / "job" / "metrics.jsonl").exists()
    code, out = end(start(tmp_path, env, *arguments))
    assert code == 0, out


def test_what_slurm_does_not_take_is_said_at_once(env: dict[str, str], tmp_path: Path) -> None:
    code, out = end(start(tmp_path, env, "train", "-m", *SMOKE, "seed=0,1", *SLURM, "hydra.launcher.partition=nowhere"))
    assert code == 2, out
    assert "error[E-CONFIG]: no job was started (slurm)" in out
    assert "partition" in out


def test_interrupting_the_waiting_side_leaves_the_queue_alone(env: dict[str, str], slurm: Slurm, tmp_path: Path) -> None:
    waiting = start(tmp_path, env, "train", "-m", *LONG, "train.epochs=600", "seed=0", *SLURM)
    until(lambda: rows(tmp_path / "sweep" / "job") > 3, what="three epochs")
    waiting.send_signal(signal.SIGINT)
    code, out = end(waiting)
    assert code == 130, out
    assert "jobs stay in Slurm's queue" in out
    assert job_ids(slurm)
    until(lambda: statuses(tmp_path / "sweep") == {"job": "done"}, what="the end of the job")


def test_a_packed_sweep_goes_on_after_a_requeue(env: dict[str, str], slurm: Slurm, tmp_path: Path) -> None:
    program = tmp_path / "bin" / "cifar-lab"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m cifar_lab.cli "$@"\n')
    program.chmod(0o755)
    own = {**env, "PATH": f"{program.parent}:{env['PATH']}", "PYTHONPATH": str(ROOT)}
    sweep = tmp_path / "sweep"
    arguments = ("-m", *LONG, "seed=0,1", "sweep.workers=2", "hydra.sweep.dir=sweep")
    submitted = subprocess.run(
        ["sbatch", "--parsable", str(HERE / "packed.sbatch"), *arguments],
        **{"env": own, "cwd": tmp_path, "check": True, "capture_output": True, "text": True},
    )
    job = submitted.stdout.strip()
    until(lambda: rows(sweep / "seed=0") > 3 and rows(sweep / "seed=1") > 3, what="three epochs of both")
    slurm("scontrol", "requeue", job)
    until(lambda: statuses(sweep) == {"seed=0": "done", "seed=1": "done"}, 240, what="the end of both")
    for seed in (0, 1):
        assert "continuing from" in (sweep / f"seed={seed}" / "run.log").read_text()
        assert rows(sweep / f"seed={seed}") == 150
    until(lambda: not job_ids(slurm), what="the end of the job")
    assert (tmp_path / f"cifar-lab-{job}.out").read_text().count("2 jobs in sweep") == 2
