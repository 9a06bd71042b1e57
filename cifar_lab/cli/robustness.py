"""The command that asks a finished run about worse pictures."""

from typing import Annotated, Any

import typer

from cifar_lab.cli.app import app


@app.command()
def robustness(
    run: Annotated[str, typer.Argument(help="Folder of a finished run.")],
    cifar10c: Annotated[str | None, typer.Option(help="Folder of the official CIFAR-10-C (.npy), asked about as well.")] = None,
    data_root: Annotated[str | None, typer.Option(help="Where the run's data set is now.")] = None,
    images: Annotated[int, typer.Option(min=0, help="Look at the first so many test pictures only; 0: all.")] = 0,
    seed: Annotated[int, typer.Option(min=0, help="Of the noise.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    threads: Annotated[int, typer.Option(min=0, help="CPU threads; 0: torch's choice.")] = 0,
    out: Annotated[str | None, typer.Option(help="Folder for the files; else the run's own.")] = None,
    figures: Annotated[str, typer.Option(help="Formats of the pictures: png, pdf, svg.")] = "png",
    plugin: Annotated[list[str] | None, typer.Option(help="File with the run's model (may be repeated).")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the numbers as JSON and nothing else.")] = False,
) -> None:
    """Accuracy of a run under noise, blur, low contrast, brightness and JPEG at five severities each.

    The corruptions are cifar-lab's own (version 1), made on the device, JPEG on the CPU; CIFAR-10-C is read with --cifar10c.
    Leaves robustness.json, robustness.png and robustness_examples.png.

    \b
    Examples:
      cifar-lab robustness outputs/runs/2026-11-21_resnet18
      cifar-lab robustness outputs/runs/2026-11-21_resnet18 --cifar10c data/CIFAR-10-C
      cifar-lab robustness outputs/runs/2026-11-21_resnet18 --images 1000 --json
    """
    import json
    from pathlib import Path

    from cifar_lab.errors import guarded

    def work() -> None:
        from cifar_lab.plugins import add_all
        from cifar_lab.saved import load_run

        saved = load_run(run)
        add_all(plugin)
        from cifar_lab.analysis.figures import parse_formats
        from cifar_lab.display import say
        from cifar_lab.robustness import measure_robustness, save_robustness

        formats = parse_formats(figures)
        found = measure_robustness(
            saved,
            device=device,
            threads=threads,
            root=data_root,
            official=Path(cifar10c) if cifar10c else None,
            images=images,
            seed=seed,
            say=(lambda _: None) if as_json else say,
        )
        files = save_robustness(Path(out or run), saved, found, saved.images("test", data_root), formats)
        if as_json:
            print(json.dumps(found, indent=2))
        else:
            _show(found)
            say(f"{Path(out or run) / 'robustness.json'}, {', '.join(file.name for file in files)}")

    raise typer.Exit(guarded(work))


def _show(found: dict[str, Any]) -> None:
    """One table of ours and, where there is one, one of CIFAR-10-C."""
    from rich.markup import escape
    from rich.table import Table

    from cifar_lab.display import LabConsole

    ours, official = found["corruptions"], found["cifar10c"]
    parts = [(f"{ours['name']} version {ours['version']} (not CIFAR-10-C's)", ours)]
    parts += [("CIFAR-10-C", official)] if official is not None else []
    for title, part in parts:
        table = Table(title=escape(f"{found['run']}: accuracy, {title}"), title_justify="left", box=None, padding=(0, 2, 0, 0))
        table.add_column("severity")
        for name in (*"12345", "mean"):
            table.add_column(name, justify="right")
        for name, row in part["results"].items():
            table.add_row(name, *(f"{100 * value:.2f} %" for value in (*row["accuracy"], row["mean"])))
        LabConsole().print(table)
        mean = part["mean_accuracy"]
        text = f"mean {100 * mean:.2f} %, " if mean is not None else ""
        LabConsole().print(f"{text}clean pictures {100 * found['clean_accuracy']:.2f} %\n", highlight=False)
