"""Commands that show what a run would get before there is one: its data, its augmentation, its learning rate."""

from typing import Annotated, Any

import typer

from cifar_lab.cli.app import app
from cifar_lab.cli.training import complete_override

_Overrides = Annotated[
    list[str] | None,
    typer.Argument(help="group=choice and key=value, as for train", autocompletion=complete_override),
]
_Plugin = Annotated[list[str] | None, typer.Option(help="Your own data sets, schedules, ... (may be repeated).")]
_ConfigDir = Annotated[str | None, typer.Option(help="Your own configurations.")]
_Figures = Annotated[str, typer.Option(help="Formats of the pictures: png, pdf, svg.")]
_AsJson = Annotated[bool, typer.Option("--json", help="Print the numbers as JSON and nothing else.")]


def _compose(overrides: list[str] | None, config_dir: str | None, plugin: list[str] | None) -> Any:
    """A checked configuration, with the person's own rows."""
    from cifar_lab import schema
    from cifar_lab.plugins import add_all

    add_all(plugin)
    schema.register()
    return schema.compose(overrides or [], config_dir)


@app.command()
def eda(
    overrides: _Overrides = None,
    out: Annotated[str | None, typer.Option(help="Folder for the files; else outputs/eda/NAME of the data set.")] = None,
    figures: _Figures = "png",
    config_dir: _ConfigDir = None,
    plugin: _Plugin = None,
    as_json: _AsJson = False,
) -> None:
    """Look at a data set: checks, class counts, statistics, pictures, near-duplicates in the test set, augmentation.

    Leaves eda.json, class_counts.csv and pictures. Near-duplicates are looked for once for each state of the data.

    \b
    Examples:
      cifar-lab eda data=cifar10 augment=crop_flip_cutout
      cifar-lab eda data=digits data.imbalance_factor=20 data.label_noise=0.2
      cifar-lab eda data=folder data.root=photos --figures pdf,png --out looks
    """
    import json
    from pathlib import Path

    from cifar_lab.errors import guarded

    def work() -> None:
        config = _compose(overrides, config_dir, plugin)
        from cifar_lab.analysis.figures import parse_formats

        formats = parse_formats(figures)
        from cifar_lab import runtime
        from cifar_lab.data.splits import load_splits
        from cifar_lab.display import Display, say
        from cifar_lab.exploring import explore

        runtime.set_threads(config.threads)
        splits = load_splits(config.data, progress=None if as_json else Display().loading)
        folder = Path(out or f"outputs/eda/{config.data.name}")
        found = explore(config, splits, folder, formats=formats, say=(lambda _: None) if as_json else say)
        if as_json:
            print(json.dumps(found, indent=2))
        else:
            _show_data(found)
            say(f"{folder / 'eda.json'}, class_counts.csv, {', '.join(found['pictures'])}")

    raise typer.Exit(guarded(work))


@app.command()
def schedule(
    overrides: _Overrides = None,
    steps_per_epoch: Annotated[
        int, typer.Option(min=0, help="Optimizer steps of an epoch; 0: counted from the data set, which must be here.")
    ] = 0,
    out: Annotated[str | None, typer.Option(help="Folder for the files; else outputs/schedule/NAME.")] = None,
    figures: _Figures = "png",
    config_dir: _ConfigDir = None,
    plugin: _Plugin = None,
    as_json: _AsJson = False,
) -> None:
    """Show the learning rate of every step of a run before it is started.

    A schedule that looks at results, such as plateau, depends on the run: both ends of what may happen are shown.
    Leaves schedule.csv (a row per epoch), schedule_steps.csv and schedule.png.

    \b
    Examples:
      cifar-lab schedule schedule=cosine schedule.warmup_epochs=5 optimizer=sgd_nesterov train.epochs=100
      cifar-lab schedule experiment=fast_resnet18 --json
      cifar-lab schedule schedule=plateau train.epochs=60 --steps-per-epoch 391
    """
    import json
    from pathlib import Path

    from cifar_lab.errors import guarded

    def work() -> None:
        config = _compose(overrides, config_dir, plugin)
        from cifar_lab.analysis.figures import parse_formats

        formats = parse_formats(figures)
        from cifar_lab.display import say
        from cifar_lab.rates import preview, save_preview

        found = preview(config, steps_per_epoch)
        folder = Path(out or f"outputs/schedule/{config.schedule.name}")
        files = save_preview(folder, found, formats)
        if as_json:
            print(json.dumps(found.summary(), indent=2))
        else:
            _show_rates(found.summary())
            say(f"{', '.join(str(file) for file in files)}")

    raise typer.Exit(guarded(work))


def _show_data(found: dict[str, Any]) -> None:
    """Counts, statistics and what is not as it should be."""
    from rich.markup import escape
    from rich.table import Table

    from cifar_lab.display import LabConsole, say

    height, width = found["image_size"]
    title = f"{found['data']}: {len(found['classes'])} classes, {width}x{height} pixels"
    table = Table(title=escape(title), title_justify="left", box=None, padding=(0, 2, 0, 0))
    table.add_column("class")
    for name in found["splits"]:
        table.add_column(name, justify="right")
    parts = found["splits"].values()
    for k, name in enumerate(found["classes"]):
        table.add_row(escape(name), *(f"{part['class_counts'][k]:,}" for part in parts))
    table.add_row("images", *(f"{part['images']:,}" for part in parts), style="bold")
    for key in ("mean", "std"):
        table.add_row(f"{key} (R, G, B)", *(", ".join(f"{value:.4f}" for value in part[key]) for part in parts))
    LabConsole().print(table)
    for note in found["notes"]:
        say(f"note: {note}")
    wrong = [check for check in found["checks"] if not check["passed"]]
    say(f"{len(found['checks']) - len(wrong)} of {len(found['checks'])} checks passed")
    for check in wrong:
        say(f"not so in {check['split']}: {check['check']} ({check['found']})")
    near = found["near_duplicates"]
    how = "remembered from an earlier search" if near["remembered"] else "searched"
    say(f"near-duplicates: {near['says']} ({how}, {near['seconds']:.1f} s)")
    if found["augmentation"] is None:
        say("augment=none: training images are left as they are, so there is no picture of it")


def _show_rates(found: dict[str, Any]) -> None:
    """A row for each epoch, of long runs some of them."""
    from rich.table import Table

    from cifar_lab.display import LabConsole, say

    say(found["says"])
    every = -(-len(found["epochs"]) // 40)
    table = Table(box=None, padding=(0, 2, 0, 0))
    names = list(found["cases"])
    for head in (
        "epoch",
        "first step",
        *(f"{when} step lr{', ' + name if name else ''}" for name in names for when in ("first", "last")),
    ):
        table.add_column(head, justify="right")
    for k, row in enumerate(found["epochs"]):
        if k % every and k + 1 < len(found["epochs"]):
            continue
        rates = (f"{row[name][when]:.6g}" for name in names for when in ("first_lr", "last_lr"))
        table.add_row(str(row["epoch"]), f"{row['first_step']:,}", *rates)
    LabConsole().print(table)
    if every > 1:
        say(f"every {every} epochs; schedule.csv holds them all")
