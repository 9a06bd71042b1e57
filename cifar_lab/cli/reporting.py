"""The command that turns a sweep into a finding."""

from typing import Annotated

import typer

from cifar_lab.cli.app import app


@app.command()
def report(
    folder: Annotated[str, typer.Argument(help="Folder of a sweep, finished or not.")],
    figures: Annotated[str, typer.Option(help="Every picture on its own in DIR/figures as well: pdf, svg, png.")] = "",
    tables: Annotated[str, typer.Option(help="Every table on its own in DIR/tables as well: tex, md, csv.")] = "",
    gallery: Annotated[
        bool, typer.Option("--gallery/--no-gallery", help="Show test images that only one side gets right, where they are found.")
    ] = True,
    data_root: Annotated[str | None, typer.Option(help="Where the images are now, if not where the runs found them.")] = None,
) -> None:
    """Report on a sweep: what is better, worse or equivalent, with intervals; nothing is trained again.

    Writes report.html (one file that opens offline), report.csv (a row for every run) and report.json into the folder. It can be
    made again at any time, also of a sweep that is half done or has failed runs.

    \b
    Examples:
      cifar-lab report outputs/sweeps/kernel
      cifar-lab report outputs/sweeps/kernel --figures pdf --tables tex
      cifar-lab report outputs/sweeps/kernel --no-gallery
    """
    from cifar_lab.errors import guarded

    def work() -> None:
        from cifar_lab.saved import find_test_images
        from cifar_lab.study.report import build_report
        from cifar_lab.study.screen import show_report

        made = build_report(
            folder,
            figure_formats=[name.strip() for name in figures.split(",") if name.strip()],
            table_formats=[name.strip() for name in tables.split(",") if name.strip()],
            test_images=find_test_images(data_root) if gallery else None,
        )
        show_report(made.findings, made.files)

    raise typer.Exit(guarded(work))
