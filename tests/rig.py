"""What test files share and name: the smallest run, and what a command ended with."""

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

ROOT = Path(__file__).resolve().parent.parent

SMOKE = ("experiment=quickstart", "train=smoke", "data.subset=60", "threads=1")
"""Two epochs on 60 digits: the smallest run that does everything."""


@dataclass
class Said:
    """What a command ended with and printed."""

    code: int
    out: str
    err: str


Lab = Callable[..., Said]


@contextlib.contextmanager
def without_pictures() -> Iterator[None]:
    """Runs leave their pictures, three quarters of a small run's time, to whoever asks for them, as in a sweep."""
    from cifar_lab import outcome

    draw = outcome._draw
    with mock.patch.object(outcome, "_draw", lambda *arguments: draw(*arguments[:-1], False)):
        yield


def heard(warned: Any) -> list[str]:
    """What pytest's ``recwarn`` heard, without files and sockets of earlier tests that were collected meanwhile."""
    return [str(w.message) for w in warned if not issubclass(w.category, ResourceWarning)]


def train(folder: Path, *overrides: str, pictures: bool = False) -> Path:
    """A small run in this process; returns its folder."""
    from cifar_lab.train import main

    with contextlib.nullcontext() if pictures else without_pictures():
        assert main([*SMOKE, *overrides, f"hydra.run.dir={folder}"]) == 0
    return folder


def start(arguments: list[str], where: Path, *, pictures: bool = False) -> Any:
    """`cifar-lab train ...` in a process of its own, which need not import torch: forked from the workers' server.

    Args:
        arguments: Behind `train`.
        where: Its working folder; `out.txt` and `err.txt` there hold what it prints.
        pictures: Draw its PNGs.

    Returns:
        The ``multiprocessing`` process.
    """
    from cifar_lab.processes import server_context

    process = server_context().Process(target=_command, args=(arguments, str(where), pictures, dict(os.environ)))
    process.start()
    return process


def _command(arguments: list[str], where: str, pictures: bool, environ: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(environ)
    os.chdir(where)
    for name, number in (("out.txt", 1), ("err.txt", 2)):
        file = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(file, number)
    sys.stdout, sys.stderr = os.fdopen(1, "w", buffering=1), os.fdopen(2, "w", buffering=1)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    from cifar_lab.train import main

    with contextlib.nullcontext() if pictures else without_pictures():
        code = main(arguments)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
