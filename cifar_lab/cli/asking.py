"""The command that asks a run about photos."""

from typing import Annotated

import typer

from cifar_lab.cli.app import app


@app.command()
def predict(
    run: Annotated[str, typer.Argument(help="Folder of a finished run with its checkpoints.")],
    photos: Annotated[list[str], typer.Argument(help="Pictures of any size and format, or folders of them.")],
    top: Annotated[int, typer.Option(help="How many classes to name.")] = 5,
    plugin: Annotated[list[str] | None, typer.Option(help="The file that the run's own model is in (may be repeated).")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print files, classes and probabilities as JSON.")] = False,
) -> None:
    """Ask a run what is on photos: the most probable classes, through its own resize and normalization.

    The data set is not needed. A file that cannot be read gets one line, the others are answered, and the exit code is 3.

    \b
    Examples:
      cifar-lab predict outputs/runs/MINE cat.jpg dog.png
      cifar-lab predict outputs/runs/MINE holiday/ --top 3 --json
    """
    from cifar_lab.errors import guarded
    from cifar_lab.plugins import add_all

    def work() -> None:
        add_all(plugin)

        from cifar_lab.asking import predict_photos

        predict_photos(run, photos, top=top, as_json=as_json)

    raise typer.Exit(guarded(work))
