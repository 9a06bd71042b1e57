"""The one training entry: from a command line through Hydra to one run or a sweep of them.

``cifar-lab train`` and ``python -m cifar_lab.train`` come in through ``main``. Whatever can be
refused is refused before a folder appears and before torch is imported; what happens inside a
run is in ``pipeline``.
"""

import contextlib
import importlib
import os
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from cifar_lab import runs, storage
from cifar_lab.cores import wait_politely_if_busy
from cifar_lab.errors import DEBUG, ResumeError, guarded
from cifar_lab.flags import Flags, parse_flags, quoted
from cifar_lab.plugins import add_all


def main(arguments: Sequence[str] | None = None) -> int:
    """Train as the command line says.

    Args:
        arguments: Flags and overrides; None for those of the process.

    Returns:
        The exit code.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    DEBUG.set("--debug" in given)
    return guarded(lambda: _main(given))


def _main(arguments: Sequence[str]) -> None:
    flags = parse_flags(arguments)
    add_all(flags.plugins)
    if flags.help:
        from cifar_lab.listing import show_train_help

        show_train_help(flags.config_dir)
        return
    from cifar_lab import schema

    wait_politely_if_busy()
    schema.register()
    if flags.is_sweep:
        _start_sweep(flags)
    elif flags.show or flags.info:
        schema.compose(flags.overrides, flags.config_dir)
        _through_hydra(flags.for_hydra(), lambda _: None)
    else:
        _start_run(flags)


def _start_run(flags: Flags) -> None:
    """Check, make the folder, run in it. Hydra composes once and is out of the way: its own start would do it twice more."""
    from cifar_lab import schema

    composed = schema.compose_raw(flags.overrides, flags.config_dir)
    config = schema.to_config(composed)
    named = schema.run_dir(composed)
    from cifar_lab import parts, pipeline  # torch, for which nobody waits to hear of a typing mistake

    parts.check_builders([config])  # before a data set is fetched
    if named is None:
        folder, new = runs.new_run_folder(Path("outputs/runs"), config.model.name), True
    else:
        folder = _shown(named)
        new = not folder.exists()
        storage.make_folder(folder)
    try:
        pipeline.run(config, folder, list(composed.hydra.overrides.task))
    finally:
        if new and folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


def _shown(folder: Path) -> Path:
    """A folder as a person would type it: relative where it lies below the working folder."""
    here = Path.cwd()
    return folder.relative_to(here) if folder.is_relative_to(here) else folder


def _job(_: Any) -> dict[str, Any] | Exception:
    """One job of a sweep inside Hydra: its result, or what ended it. Hydra prints its own lines about what is raised, so
    nothing is but what ends the sweep. Its configuration is the one that was planned, not what Hydra composed here."""
    from hydra.core.hydra_config import HydraConfig

    from cifar_lab import sweeping
    from cifar_lab.cluster.jobs import run_job

    try:
        hydra = HydraConfig.get()
        folder = _shown(Path(hydra.runtime.output_dir))
        tasks = sweeping.planned(folder.parent)
        if folder.name not in tasks:
            runs.record_failure(folder, ResumeError(f"{folder.parent / 'plan.json'} does not hold this job any more"))
        return run_job(tasks[folder.name], folder, hydra.job.num)
    except Exception as error:
        return error


def _start_sweep(flags: Flags) -> None:
    """Name the sweep's folder and hand over to Hydra, which calls ``launching.run_sweep`` through our sweeper."""
    from cifar_lab import launcher_rules, schema, sweeps
    from cifar_lab.overrides import parse_overrides
    from cifar_lab.processes import warm_up

    parsed = parse_overrides(flags.overrides, flags.config_dir)
    composed = schema.compose_raw(sweeps.first_job(parsed), flags.config_dir)
    schema.to_config(composed)
    own = sweeps.own_params(composed.hydra.sweeper.params or {}, parsed)
    added = [*launcher_rules.defaults(composed.hydra.launcher), *own]
    overrides = [*added, *flags.overrides]
    first = sweeps.first_job(parse_overrides(overrides, flags.config_dir))
    if added:
        schema.compose(first, flags.config_dir)
    if flags.show or flags.info:  # Hydra shows one job; the first stands for all
        shown = replace(flags, multirun=False, overrides=first)
        _through_hydra(shown.for_hydra(), lambda _: None)
        return
    warm_up()
    from cifar_lab import launching

    name = sweeps.sweep_name(parsed, study=flags.study)
    if not any(o.key_or_group == "hydra.sweep.dir" for o in parsed):
        overrides.append(f"hydra.sweep.dir={quoted(Path('outputs/sweeps') / name)}")
    command = shlex.join(["cifar-lab", "train", *flags.typed])
    launching.ASKED.set(launching.Asked(name=name, command=command, redo=flags.redo, dry_run=flags.dry_run))
    _through_hydra([*Flags(config_dir=flags.config_dir, multirun=True).for_hydra(), *overrides], _job)


def _through_hydra(arguments: Sequence[str], task: Callable[[Any], Any]) -> None:
    """Run ``task`` inside ``@hydra.main``; what goes wrong comes out as our errors."""
    import hydra
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from cifar_lab.explain import explain
    from cifar_lab.tables import conf_dir, known_keys

    with _hydra_process(arguments):
        try:
            hydra.main(config_path=str(conf_dir().resolve()), config_name="config", version_base="1.3")(task)()
        except (HydraException, OmegaConfBaseException) as error:
            raise explain(error, known_keys()) from error


@contextlib.contextmanager
def _hydra_process(arguments: Sequence[str]) -> Iterator[None]:
    """The process as Hydra wants it: arguments in ``sys.argv``, errors raised instead of printed."""
    argv, full = sys.argv, os.environ.get("HYDRA_FULL_ERROR")
    sys.argv, os.environ["HYDRA_FULL_ERROR"] = ["cifar-lab", *arguments], "1"
    try:
        yield
    finally:
        sys.argv = argv
        if full is None:
            del os.environ["HYDRA_FULL_ERROR"]
        else:
            os.environ["HYDRA_FULL_ERROR"] = full


if __name__ == "__main__":
    # By its name: launchers pickle the task, and what belongs to `__main__` is somebody else in their processes.
    sys.exit(importlib.import_module("cifar_lab.train").main())
