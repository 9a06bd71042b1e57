"""SIGKILL at random moments: the same command goes on to the bit-identical end."""

import json
import os
import signal
import time
from pathlib import Path

import killing
import pytest
from rig import SMOKE, start


def test_one_kill(tmp_path: Path) -> None:
    assert killing.run_trials(tmp_path, 1, seed=1, pictures=False) == []


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_twenty_kills(tmp_path: Path) -> None:
    assert killing.run_trials(tmp_path, 20, seed=0) == []


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGTERM, 143), pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow)])
def test_a_signal_ends_the_command_after_a_checkpoint(tmp_path: Path, signum: int, code: int) -> None:
    running = start([*SMOKE, "data.subset=0", "train.epochs=1000", "hydra.run.dir=run"], tmp_path)
    rows = tmp_path / "run" / "metrics.jsonl"
    deadline = time.monotonic() + 120
    try:
        while not rows.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert rows.exists(), (tmp_path / "err.txt").read_text()
        os.kill(running.pid, signum)
        running.join(60)
    finally:
        running.kill()
    assert running.exitcode == code
    lines = (tmp_path / "err.txt").read_text().strip().splitlines()
    assert lines[0].startswith(f"cifar-lab: error[E-STOPPED]: {signal.Signals(signum).name}: stopped at epoch ")
    assert "; last good: step-" in lines[0]
    assert lines[1] == "hint: the same command continues"
    step = int(lines[0].rpartition("step-")[2])
    assert (tmp_path / "run" / "checkpoints" / f"step-{step:08d}" / "manifest.json").is_file()
    assert json.loads((tmp_path / "run" / "result.json").read_text())["status"] == "interrupted"
