"""Sweeps in submitit's processes on this machine."""

import importlib.util
import os
import signal
from pathlib import Path

import pytest
from cluster_rig import LONG, end, environment, pid_in, rows, start, statuses, until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(importlib.util.find_spec("submitit") is None, reason="the extra slurm is not installed"),
]

LOCAL = ("hydra/launcher=submitit_local", "hydra.sweep.dir=sweep")


def test_a_killed_job_does_not_cost_the_others(tmp_path: Path) -> None:
    arguments = ("train", "-m", *LONG, "seed=0,1", *LOCAL)
    sweep = tmp_path / "sweep"
    first = start(tmp_path, environment(), *arguments)
    until(lambda: rows(sweep / "seed=0") > 3, what="three epochs of seed 0")
    os.kill(pid_in(sweep / "seed=0"), signal.SIGKILL)
    code, out = end(first)
    assert code == 8, out
    assert statuses(sweep) == {"seed=1": "done"}
    assert "seed=0: E-KILLED it left no result" in out
    assert "1 done, 1 failed (1 E-KILLED)" in out
    code, out = end(start(tmp_path, environment(), *arguments))
    assert code == 0, out
    assert "2 jobs in sweep, 1 of them done already" in out
    assert "continuing from" in (sweep / "seed=0" / "run.log").read_text()


def test_sigterm_stops_the_jobs_at_a_checkpoint(tmp_path: Path) -> None:
    sweep = tmp_path / "sweep"
    first = start(tmp_path, environment(), "train", "-m", *LONG, "seed=0,1", *LOCAL)
    until(lambda: rows(sweep / "seed=0") > 3 and rows(sweep / "seed=1") > 3, what="three epochs of both")
    pids = [pid_in(sweep / name) for name in ("seed=0", "seed=1")]
    first.send_signal(signal.SIGTERM)
    code, out = end(first)
    assert code == 143, out
    assert "the jobs were asked to stop" in out
    assert statuses(sweep) == {"seed=0": "interrupted", "seed=1": "interrupted"}
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
