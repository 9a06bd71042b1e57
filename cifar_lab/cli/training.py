"""Commands that train, list what there is, and keep evidence."""

from typing import Annotated

import typer

from cifar_lab.cli.app import app


def complete_override(ctx: typer.Context, incomplete: str) -> list[str]:
    """What can stand next behind `train`; a completion must never print an error into a person's line."""
    from cifar_lab.completion import complete
    from cifar_lab.errors import LabError

    try:
        return complete([*(ctx.params.get("overrides") or ()), *ctx.args], incomplete)
    except LabError:
        return []


def _complete_list(incomplete: str) -> list[str]:
    from cifar_lab.listing import GROUPS

    return [name for name in (*GROUPS, "activations") if name.startswith(incomplete)]


@app.command(
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []},
    short_help="Train, test and measure a model; with -m a whole sweep.",
)
def train(
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            help="group=choice, key=value and flags; `cifar-lab train --help` lists them", autocompletion=complete_override
        ),
    ] = None,
) -> None:
    """Train, test and measure a model; with -m a whole sweep. `cifar-lab train --help` shows groups, keys and examples."""
    from cifar_lab.train import main as train_main

    raise typer.Exit(train_main(overrides or []))


@app.command("list")
def list_(
    what: Annotated[
        str,
        typer.Argument(
            help="experiments, models, optimizers, schedules, activations, data, augment, train, trackers, studies or ablations",
            autocompletion=_complete_list,
        ),
    ],
    config_dir: Annotated[str | None, typer.Option(help="Show the configurations of this folder too.")] = None,
    plugin: Annotated[list[str] | None, typer.Option(help="Show the rows of this file too (may be repeated).")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print name and description as JSON.")] = False,
) -> None:
    """List what there is to choose from, with a line on each.

    \b
    Examples:
      cifar-lab list models
      cifar-lab list experiments --json
      cifar-lab list optimizers --plugin lab.py
    """
    from cifar_lab.errors import guarded
    from cifar_lab.listing import show_list
    from cifar_lab.plugins import add_all

    def work() -> None:
        add_all(plugin)
        show_list(what, config_dir=config_dir, as_json=as_json)

    raise typer.Exit(guarded(work))


@app.command()
def keep(
    run: Annotated[str, typer.Argument(help="Folder of a finished run.")],
    name: Annotated[str, typer.Option(help="Name of the folder below outputs/reference.")],
) -> None:
    """Copy the evidence of a finished run, small enough to commit, to outputs/reference.

    \b
    Example:
      cifar-lab keep outputs/runs/2026-11-21_small_cnn --name d3_small_cnn
    """
    from pathlib import Path

    from cifar_lab.errors import guarded

    def work() -> None:
        from cifar_lab.reference import keep as keep_run

        print(f"kept in {keep_run(Path(run), name)}")

    raise typer.Exit(guarded(work))


@app.command()
def results(
    write: Annotated[str, typer.Option(help="Put the table into this Markdown file, between its marks.")] = "",
    check: Annotated[str, typer.Option(help="Exit with 4 if this Markdown file holds another table.")] = "",
) -> None:
    """Print the table of results made from outputs/reference.

    \b
    Examples:
      cifar-lab results
      cifar-lab results --write README.md
    """
    from pathlib import Path

    from cifar_lab.errors import CheckpointError, ConfigError, guarded

    def work() -> None:
        from cifar_lab import reference

        text = reference.table(reference.rows())
        if write:
            print(f"{write}: {'written' if reference.write_table(Path(write), text) else 'unchanged'}")
        elif check:
            if not Path(check).is_file():
                raise ConfigError(f"{check}: no such file")
            if text not in Path(check).read_text(encoding="utf-8"):
                raise CheckpointError(
                    f"{check} holds another table than outputs/reference", hint=f"cifar-lab results --write {check}"
                )
        else:
            print(text)

    raise typer.Exit(guarded(work))
