"""Sweeps on a local Ray cluster: done, killed, and interrupted."""

import importlib.util
import os
import signal
from pathlib import Path

import pytest
from cluster_rig import LONG, end, environment, pid_in, rows, start, statuses, until
from rig import SMOKE

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(
        importlib.util.find_spec("hydra_plugins.hydra_ray_launcher") is None, reason="the extra ray is not installed"
    ),
]

RAY = ("hydra/launcher=ray", "++hydra.launcher.ray.init.num_cpus=2", "hydra.sweep.dir=sweep")


def test_jobs_run_on_ray_and_are_not_run_twice(tmp_path: Path) -> None:
    arguments = ("train", "-m", *SMOKE, "seed=0,1,2", *RAY)
    code, out = end(start(tmp_path, environment(), *arguments))
    assert code == 0, out
    assert statuses(tmp_path / "sweep") == {"seed=0": "done", "seed=1": "done", "seed=2": "done"}
    assert "epoch" not in out.partition("3 jobs in sweep")[2].partition("job ")[0], "each run has its own log"
    code, out = end(start(tmp_path, environment(), *arguments))
    assert code == 0, out
    assert "3 jobs in sweep, 3 of them done already" in out


@pytest.mark.parametrize("retries", [0, 1])
def test_a_killed_job_is_begun_again_or_named(tmp_path: Path, retries: int) -> None:
    arguments = ("train", "-m", *LONG, "seed=0,1,2", *RAY)
    sweep = tmp_path / "sweep"
    first = start(tmp_path, environment(), *arguments, f"+hydra.launcher.ray.remote.max_retries={retries}")
    until(lambda: rows(sweep / "seed=1") > 3, what="three epochs of seed 1")
    os.kill(pid_in(sweep / "seed=1"), signal.SIGKILL)
    code, out = end(first)
    assert {name: statuses(sweep).get(name) for name in ("seed=0", "seed=2")} == {"seed=0": "done", "seed=2": "done"}
    if retries:
        assert code == 0, out
    else:
        assert code == 8, out
        assert "2 done, 1 failed" in out
        code, out = end(start(tmp_path, environment(), *arguments))
        assert code == 0, out
        assert "3 jobs in sweep, 2 of them done already" in out
    assert "continuing from" in (sweep / "seed=1" / "run.log").read_text()
    assert rows(sweep / "seed=1") == 150


def test_interrupting_says_how_to_go_on(tmp_path: Path) -> None:
    arguments = ("train", "-m", *LONG, "seed=0,1", *RAY)
    first = start(tmp_path, environment(), *arguments)
    until(lambda: rows(tmp_path / "sweep" / "seed=0") > 3, what="three epochs")
    first.send_signal(signal.SIGINT)
    code, out = end(first)
    assert code == 130, out
    assert "the same command goes on from their checkpoints" in out
    code, out = end(start(tmp_path, environment(), *arguments))
    assert code == 0, out
    assert "continuing from" in (tmp_path / "sweep" / "seed=0" / "run.log").read_text()
