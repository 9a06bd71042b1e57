"""The program `cifar-lab`: sub-commands only. Imports neither torch nor Hydra before one is chosen.

A command is a function in one of these modules; it imports what it needs inside.
"""

import sys

from cifar_lab.cli import analyze, training  # noqa: F401  (add their commands, in the order in which --help lists them)
from cifar_lab.cli.app import app


@app.command()
def version() -> None:
    """Print the version."""
    from cifar_lab import __version__

    print(f"cifar-lab {__version__}")


def main() -> None:
    """Entry point of the console script."""
    if sys.argv[1:] == ["--version"]:
        version()
        return
    app()
