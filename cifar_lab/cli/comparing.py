"""The command that compares runs."""

from typing import Annotated

import typer

from cifar_lab.cli.app import app


@app.command()
def compare(
    runs: Annotated[
        list[str],
        typer.Argument(
            help="Folders of finished runs, or evidence below outputs/reference; two or more. SWEEP/*: all of a sweep."
        ),
    ],
    out: Annotated[str | None, typer.Option(help="Where it goes; default outputs/compare/NAMES.")] = None,
    tables: Annotated[str, typer.Option(help="Formats of the tables: csv, md, tex.")] = "csv,md",
    figures: Annotated[str, typer.Option(help="Formats of the pictures: png, pdf, svg.")] = "png",
    data_root: Annotated[str | None, typer.Option(help="Of two sides: where the images are now, if not where they were.")] = None,
    unpaired: Annotated[
        bool, typer.Option("--unpaired", help="Runs with different test images: tables, curves and cost only.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the numbers as JSON.")] = False,
) -> None:
    """Compare runs: accuracy with tests and intervals, cost, convergence, curves, confusions.

    Seeds of one configuration are put together: mean, standard deviation, n. Nothing is predicted again.

    \b
    Examples:
      cifar-lab compare outputs/runs/A outputs/runs/B
      cifar-lab compare outputs/reference/d1_* --tables csv,md,tex --figures png,pdf
      cifar-lab compare outputs/sweeps/SWEEP/* --out outputs/compare/mine --json
    """
    import sys
    from pathlib import Path

    from cifar_lab.errors import guarded

    def work() -> None:
        from cifar_lab.comparing import page
        from cifar_lab.comparing.entries import split_sweep

        folders, left_out = split_sweep(runs)
        if left_out:
            names = ", ".join(Path(one).name for one in left_out)
            print(f"left out, because the sweep has planned no runs of these names: {names}", file=sys.stderr)
        made = page.compare(
            folders,
            out=out,
            table_formats=[name.strip() for name in tables.split(",")],
            figure_formats=[name.strip() for name in figures.split(",")],
            data_root=data_root,
            unpaired=unpaired,
        )
        page.show(made, as_json=as_json)

    raise typer.Exit(guarded(work))
