"""The command that lists runs."""

from typing import Annotated

import typer

from cifar_lab.cli.app import app


@app.command()
def runs(
    filters: Annotated[
        list[str] | None,
        typer.Argument(help="KEY=VALUE, !=, <, <=, >, >=; all must hold. a,b is one of them, * stands for anything."),
    ] = None,
    by_config: Annotated[bool, typer.Option("--by-config", help="Seeds of one configuration together: mean, sd, n.")] = False,
    sort: Annotated[str, typer.Option(help="Key to sort by, best first: high accuracy and images/s, low loss and cost.")] = "",
    reverse: Annotated[bool, typer.Option("--reverse", help="The other way round.")] = False,
    where: Annotated[list[str] | None, typer.Option(help="Folder to look below (may be repeated); default outputs.")] = None,
    limit: Annotated[int, typer.Option(help="At most so many lines; 0: all.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the rows as JSON.")] = False,
) -> None:
    """List runs, finished or not, with what they measured.

    Keys: status (done, pruned, failed, diverged, interrupted, unfinished, damaged), folder, experiment, seed, epochs, those of
    config.yaml (model, optimizer.lr, ...), and what was measured (test.accuracy, val.loss, cost.macs, cost.train_s, ...).

    \b
    Examples:
      cifar-lab runs --sort test.accuracy --limit 10
      cifar-lab runs model=resnet18 'optimizer.lr>0.01' status=done
      cifar-lab runs 'test.accuracy>=0.9' --by-config --json
      cifar-lab runs 'status!=done' --where outputs/sweeps
    """
    from cifar_lab.errors import guarded

    def work() -> None:
        from cifar_lab.finding.listing import list_runs

        places = where or ["outputs"]
        list_runs(filters or [], where=places, by_config=by_config, sort=sort, reverse=reverse, limit=limit, as_json=as_json)

    raise typer.Exit(guarded(work))
