"""The command that searches for the best configuration."""

from typing import Annotated

import typer

from cifar_lab.cli.app import app
from cifar_lab.cli.training import complete_override


@app.command(context_settings={"allow_interspersed_args": True}, short_help="Search for the best configuration, with Optuna.")
def tune(
    overrides: Annotated[
        list[str],
        typer.Argument(help="As behind `train`; keys with several values are searched.", autocompletion=complete_override),
    ],
    trials: Annotated[int, typer.Option(help="Trials of the whole search; 0: 30, or all points of a grid.")] = 0,
    sampler: Annotated[str, typer.Option(help="tpe, random, qmc, grid, cmaes or gp.")] = "tpe",
    pruner: Annotated[str, typer.Option(help="median, percentile, successive_halving, hyperband or none.")] = "median",
    name: Annotated[str, typer.Option(help="Of the folder below outputs/tunes and of the experiment that is saved.")] = "",
    workers: Annotated[int, typer.Option(help="Trials at once; 0: one for each GPU, or for each core with 2 GiB.")] = 0,
    seed: Annotated[int, typer.Option(help="Of the sampler; trials have the seed of their configuration.")] = 0,
    timeout: Annotated[float, typer.Option(help="Seconds after which no new trial begins; 0: no limit.")] = 0.0,
    config_dir: Annotated[str | None, typer.Option(help="Your own folder of configurations.")] = None,
    plugin: Annotated[list[str] | None, typer.Option(help="Your own file of models and more (may be repeated).")] = None,
) -> None:
    """Search for the configuration that is best on validation images, with Optuna's samplers and pruners.

    Lists (a,b), range(start,stop,step), interval(a,b) and tag(log,interval(a,b)) are searched, all else is fixed; quote
    them for the shell. Trials are ordinary runs that leave the test set shut. The same command goes on where it stopped,
    also on other machines at the same time; --trials, --timeout and --workers may change.

    \b
    Examples:
      cifar-lab tune experiment=quickstart 'optimizer.lr=tag(log,interval(1e-4,1e-1))' --trials 30
      cifar-lab tune model=resnet18 optimizer=adam,sgd_nesterov 'train.batch_size=range(32,257,32)' --name first --workers 2
      cifar-lab tune experiment=quickstart optimizer.lr=0.1,0.01 model.dropout=0,0.3 --sampler grid --pruner none
    """
    from cifar_lab.errors import guarded
    from cifar_lab.plugins import add_all

    def work() -> None:
        add_all(plugin)

        from cifar_lab.tune import tune as search

        search(
            overrides,
            trials=trials,
            sampler=sampler,
            pruner=pruner,
            name=name,
            workers=workers,
            seed=seed,
            timeout_s=timeout,
            config_dir=config_dir,
        )

    raise typer.Exit(guarded(work))
