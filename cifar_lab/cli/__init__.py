"""The program `cifar-lab`: sub-commands only. Imports neither torch nor Hydra before one is chosen.

A command is a function in one of these modules; it imports what it needs inside.
"""

import atexit
import os
import sys
import threading

from cifar_lab.cli import (  # noqa: F401  (they add their commands)
    analyze,
    asking,
    comparing,
    data,
    evidence,
    finding,
    measuring,
    reporting,
    robustness,
    training,
    tuning,
    watching,
)
from cifar_lab.cli.app import app, with_debug


@app.command()
def version() -> None:
    """Print the version."""
    from cifar_lab import __version__

    print(f"cifar-lab {__version__}")


_ORDER = (
    *("train", "tune", "status", "list", "runs", "analyze", "compare", "report", "predict", "rerun", "robustness"),
    *("cost", "bench", "eda", "schedule", "keep", "results", "verify", "version"),
)
app.registered_commands.sort(key=lambda command: _ORDER.index(command.name or getattr(command.callback, "__name__", "")))
for _command in app.registered_commands:
    # `train` reads its own flags, and `version` has nothing to show.
    if _command.callback is not None and _command.callback not in (training.train, version):
        _command.callback = with_debug(_command.callback)


def main() -> None:
    """Entry point of the console script."""
    if sys.argv[1:] == ["--version"]:
        version()
        return
    try:
        app()
    except SystemExit as end:
        if "torch" in sys.modules and isinstance(end.code, int):
            _leave(end.code)
        raise


def _leave(code: int) -> None:
    """End the process as multiprocessing ends its own; to take torch apart first, object by object, would take seconds."""
    threading._shutdown()  # pyrefly: ignore
    atexit._run_exitfuncs()
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:
        return  # the interpreter says what is wrong with them
    os._exit(code)
