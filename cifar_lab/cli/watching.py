"""The command that shows how a sweep is getting on."""

from pathlib import Path
from typing import Annotated

import typer

from cifar_lab.cli.app import app


@app.command()
def status(
    folder: Annotated[Path, typer.Argument(help="A sweep's folder, such as outputs/sweeps/NAME.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON, with every job.")] = False,
) -> None:
    """Show how many jobs of a sweep are done, running, failed, lost or waiting, and the time left.

    Read from the sweep's files alone, so on any machine that sees them. Lost: it began, left no result, and nobody works
    on it. Ends with code 8 where a job has failed or is lost, else 0.

    \b
    Examples:
      cifar-lab status outputs/sweeps/lr
      watch -n 60 cifar-lab status outputs/sweeps/lr
      cifar-lab status outputs/sweeps/lr --json
    """
    from cifar_lab.errors import guarded

    failed = False

    def work() -> None:
        nonlocal failed
        from cifar_lab.study.status import read_status, show_status

        found = read_status(folder)
        show_status(found, as_json=as_json)
        failed = bool(found.counts["failed"] or found.counts["lost"])

    raise typer.Exit(guarded(work) or (8 if failed else 0))
