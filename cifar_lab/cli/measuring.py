"""Commands that measure what a model costs and how fast it trains."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from cifar_lab.cli.app import app

if TYPE_CHECKING:
    from cifar_lab.costing import Built

_Words = Annotated[
    list[str] | None,
    typer.Argument(help="group=choice and key=value as behind `train`; or one run folder, alone or with device=."),
]
_Classes = Annotated[
    int | None, typer.Option(min=1, help="Number of classes; by default 100 for data=cifar100, else 10; a run knows its own.")
]
_ConfigDir = Annotated[str | None, typer.Option(help="Search the configurations of this folder too.")]
_Plugin = Annotated[list[str] | None, typer.Option(help="Take the rows of this file too (may be repeated).")]
_Json = Annotated[bool, typer.Option("--json", help="Print numbers as JSON, and nothing else.")]
_Out = Annotated[str, typer.Option(help="Write the JSON into this file as well.")]


def _build(words: list[str], classes: int | None, config_dir: str | None, plugins: list[str]) -> "Built":
    """The model that the words name; what can be refused without torch is refused first."""
    from pathlib import Path

    from cifar_lab import schema
    from cifar_lab.errors import ConfigError
    from cifar_lab.plugins import add_all

    add_all(plugins)
    schema.register()
    folders = [word for word in words if "=" not in word or Path(word).is_dir()]  # a job of a sweep has = in its name
    if folders:
        others = [word for word in words if word not in folders]
        if len(folders) > 1 or any(not word.startswith("device=") for word in others):
            raise ConfigError(
                f"'{' '.join(words)}': name one run folder, alone or with device=, or overrides", hint="overrides are key=value"
            )
        for flag, given in (("--classes", classes), ("--config-dir", config_dir)):
            if given is not None:
                raise ConfigError(f"{flag} {given} with a run folder, which knows its own")
        device = schema.compose(others).device if others else ""
        from cifar_lab.saved import load_run

        run = load_run(folders[0])
        from cifar_lab.costing import build_run

        return build_run(run, device)
    config = schema.compose(words, config_dir)
    from cifar_lab.costing import build

    return build(config, classes or (100 if config.data.name == "cifar100" else 10))


def _finish(found: dict, show: object, as_json: bool, out: str) -> None:
    """Print for a person or a program, and write."""
    import json
    from pathlib import Path

    from cifar_lab import storage

    if out:
        storage.write_json(Path(out), found)
    if as_json:
        print(json.dumps(found, indent=2))
    else:
        assert callable(show)
        show(found)


def _say(text: str) -> None:
    print(f"{text} ...", file=sys.stderr, flush=True)


@app.command(short_help="Measure what a model costs: parameters, MACs, latency, memory.")
def cost(
    words: _Words = None,
    classes: _Classes = None,
    layers: Annotated[bool, typer.Option("--layers", help="Show every layer: output, parameters, MACs, memory.")] = False,
    counts_only: Annotated[bool, typer.Option("--counts-only", help="Count only: no latency, no memory.")] = False,
    batch: Annotated[int, typer.Option(min=1, help="N: latency is measured at batch 1 and N, memory of answering at N.")] = 128,
    max_seconds: Annotated[
        float, typer.Option(min=0.0, help="End each latency and throughput after so long, even before 100 calls; 0: never.")
    ] = 0.0,
    config_dir: _ConfigDir = None,
    plugin: _Plugin = None,
    as_json: _Json = False,
    out: _Out = "",
) -> None:
    """Measure what a model costs, without data and without training: parameters (trainable, all, as Keras counts),
    multiply-adds, size on disk, latency at batch 1 and N with p50, p90 and p99 of at least 100 calls, throughput, and peak
    memory of answering and of a training step at train.batch_size. The weights are fresh: nothing measured depends on them.

    \b
    Examples:
      cifar-lab cost model=resnet18
      cifar-lab cost model=resnet18 --layers --counts-only
      cifar-lab cost model=mobilenet_v2 data.input_size=224 --batch 32 --max-seconds 20
      cifar-lab cost model=vit device=cpu threads=1 train.precision=fp32 --json
      cifar-lab cost outputs/runs/2026-11-21_small_cnn      a finished run's model; with device=cpu, on another device
    """
    from cifar_lab.errors import guarded

    def work() -> None:
        built = _build(words or [], classes, config_dir, plugin or [])
        from cifar_lab.cost_tables import show_cost
        from cifar_lab.costing import Wanted, measure_cost

        wanted = Wanted(layers=layers, timing=not counts_only, batch_size=batch, max_s=max_seconds, say=_say)
        _finish(measure_cost(built, wanted), show_cost, as_json, out)

    raise typer.Exit(guarded(work))


@app.command(short_help="Measure training images/s by precision, memory layout and batch size.")
def bench(
    words: _Words = None,
    classes: _Classes = None,
    batch_sizes: Annotated[str, typer.Option(help="Batch sizes, beside the configuration's own.")] = "32,128,512",
    seconds: Annotated[float, typer.Option(min=0.1, help="Time for all of it.")] = 60.0,
    everything: Annotated[bool, typer.Option("--all", help="Measure precisions too that this device emulates.")] = False,
    config_dir: _ConfigDir = None,
    plugin: _Plugin = None,
    as_json: _Json = False,
    out: _Out = "",
) -> None:
    """Measure training images/s by precision, memory layout and batch size: whole steps with augmentation, on random bytes, all
    variants by turns, median and spread of five repetitions; then the fastest, with the overrides to use it.

    \b
    Examples:
      cifar-lab bench model=resnet18 optimizer=sgd_nesterov augment=crop_flip
      cifar-lab bench experiment=d3_small_cnn --batch-sizes 32,64 --seconds 20
      cifar-lab bench model=vit --all --json
    """
    from cifar_lab.errors import guarded

    def work() -> None:
        built = _build(words or [], classes, config_dir, plugin or [])
        from cifar_lab.benching import bench as run_bench
        from cifar_lab.cost_tables import show_bench
        from cifar_lab.costing import check_sizes

        sizes = check_sizes(batch_sizes, "--batch-sizes")
        found = run_bench(built, sizes, seconds=seconds, everything=everything, say=_say)
        _finish(found, show_bench, as_json, out)

    raise typer.Exit(guarded(work))
