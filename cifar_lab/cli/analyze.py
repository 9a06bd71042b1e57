"""The command that draws and counts what a finished run shows."""

from typing import Annotated

import typer

from cifar_lab.cli.app import app


def _complete_analysis(incomplete: str) -> list[str]:
    from cifar_lab.analysis import ANALYSES

    head, comma, last = incomplete.rpartition(",")
    return [f"{head}{comma}{name}" for name in ANALYSES if name.startswith(last)]


@app.command(short_help="Draw and count what a finished run shows, with findings in words.")
def analyze(
    run: Annotated[str, typer.Argument(help="Folder of a finished run, or of evidence in outputs/reference.")],
    out: Annotated[
        str | None, typer.Option(help="Write into this folder instead of the run's, or of outputs/analyze/NAME for evidence.")
    ] = None,
    only: Annotated[
        str,
        typer.Option(
            help="Only these, separated by commas: curves, confusion, classes, calibration, samples, samples_per_class,"
            " samples_worst, samples_uncertain, features, kernels, findings.",
            autocompletion=_complete_analysis,
        ),
    ] = "",
    figures: Annotated[
        str, typer.Option(help="Formats: png for the screen, pdf and svg for one column of a paper; several with commas.")
    ] = "png",
    layer: Annotated[str | None, typer.Option(help="Layer of features and kernels; default: the first convolution.")] = None,
    image: Annotated[int | None, typer.Option(help="Test image of features, by its id; default: the first.")] = None,
    channel: Annotated[int | None, typer.Option(help="Output channel of kernels; default: 0.")] = None,
    data_root: Annotated[str | None, typer.Option(help="Folder of the data set, where it is no longer where it was.")] = None,
    plugin: Annotated[list[str] | None, typer.Option(help="Use the models and analyses of this file too.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print all numbers as JSON.")] = False,
) -> None:
    """Draw and count what a finished run shows, and say it in words.

    Everything comes from the predictions and weights that the run saved. What they do not allow is left out and named.
    The findings are printed; pictures, findings.md and findings.json are written into the run's folder, or for evidence, which
    stays as it was kept, into outputs/analyze/NAME.

    \b
    Examples:
      cifar-lab analyze outputs/runs/2026-11-21_small_cnn
      cifar-lab analyze RUN --only curves,calibration --figures pdf,svg --out paper/figures
      cifar-lab analyze RUN --only features --layer features.3 --image 50012
      cifar-lab analyze RUN --only kernels --channel 5
      cifar-lab analyze RUN --only findings --json
    """
    from pathlib import Path

    from cifar_lab.errors import guarded

    def work() -> None:
        from cifar_lab.analyze import analyze as analyze_run
        from cifar_lab.plugins import add_all

        add_all(plugin)
        made = analyze_run(
            Path(run),
            out=Path(out) if out else None,
            only=[name.strip() for name in only.split(",") if name.strip()],
            formats=[name.strip() for name in figures.split(",") if name.strip()],
            options={"layer": layer, "image": image, "channel": channel},
            data_root=data_root,
        )
        _show(made, as_json)

    raise typer.Exit(guarded(work))


def _show(made: dict, as_json: bool) -> None:
    """Findings, files and what was left out; or all of it as JSON."""
    import json

    from cifar_lab.display import say

    if as_json:
        print(json.dumps({key: value for key, value in made.items() if key != "lines"}, indent=2, allow_nan=False))
        return
    for line in made["lines"]:
        say(f"- {line}")
    for what, why in made["left_out"].items():
        say(f"left out: {what} ({why})")
    say(f"{', '.join(made['files'])} written to {made['folder']}")
