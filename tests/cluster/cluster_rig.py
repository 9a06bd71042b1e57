"""What the tests on real clusters share: commands in processes of their own, and waiting for what they leave."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rig import ROOT, SMOKE

LONG = (*SMOKE, "train.epochs=150")
"""Long enough to be stopped on its way: some tenths of a second an epoch with its checkpoint."""


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "cifar_lab.cli", *arguments]


def environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """Of a command; what clusters hand on to their jobs."""
    known = {**os.environ, **(more or {}), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return {name: value for name, value in known.items() if not name.startswith(("PYTEST_", "COLUMNS"))}


def start(where: Path, env: Mapping[str, str], *arguments: str) -> subprocess.Popen[str]:
    """A command on its way; its output is read by ``end``."""
    return subprocess.Popen(
        command(*arguments),
        cwd=where,
        env=dict(env),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        # Ctrl-C is ignored below a shell that started the tests in the background.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def end(process: subprocess.Popen[str], timeout_s: float = 240.0) -> tuple[int, str]:
    """Exit code and output; nothing is left running where it takes too long."""
    try:
        out, _ = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        process.kill()
        out, _ = process.communicate()
        raise AssertionError(f"not over after {timeout_s} s:\n{out}") from None
    return process.returncode, out


def until(condition: Callable[[], Any], timeout_s: float = 120.0, what: str = "") -> Any:
    """The first true value of a condition."""
    last = time.monotonic() + timeout_s
    while time.monotonic() < last:
        if found := condition():
            return found
        time.sleep(0.1)
    raise AssertionError(f"did not come: {what}")


def rows(folder: Path) -> int:
    """Epochs that a run has written down."""
    path = folder / "metrics.jsonl"
    return len(path.read_text().splitlines()) if path.is_file() else 0


def pid_in(folder: Path) -> int:
    """Who works in a run folder, as its lock says."""
    return int(json.loads((folder / ".lock").read_text())["pid"])


def statuses(sweep: Path) -> dict[str, str]:
    return {path.parent.name: json.loads(path.read_text())["status"] for path in sorted(sweep.glob("*/result.json"))}
