"""A search from a command line to the best configuration: checked, claimed, worked on, summed up.

Trials are ordinary runs that leave the test set shut: they are judged on validation images, and whoever wants the test
accuracy of the best one asks for it, once.
"""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cifar_lab.config import to_plain
from cifar_lab.cores import wait_politely_if_busy
from cifar_lab.display import say
from cifar_lab.errors import ConfigError, Interrupted, SweepError
from cifar_lab.signals import StopFlag
from cifar_lab.tuning.methods import check_methods, require_optuna
from cifar_lab.tuning.search import Search, check_judged, check_name, claim
from cifar_lab.tuning.space import read_space

if TYPE_CHECKING:
    from cifar_lab.tuning.desk import Desk

TUNES = Path("outputs/tunes")


def tune(
    overrides: Sequence[str],
    *,
    trials: int = 0,
    sampler: str = "tpe",
    pruner: str = "median",
    name: str = "",
    workers: int = 0,
    seed: int = 0,
    timeout_s: float = 0.0,
    config_dir: str | None = None,
) -> None:
    """Search, or go on searching, and say what was best.

    Args:
        overrides: Some with several values: the space.
        trials: Of the whole search, however often it is continued; 0: 30, or all points of a grid.
        sampler: Of ``methods.SAMPLERS``.
        pruner: Of ``methods.PRUNERS``.
        name: Of the folder and of the experiment; empty: made of what is searched.
        workers: Trials at once; 0: by the rule of sweeps.
        seed: Of the sampler.
        timeout_s: Seconds after which no new trial begins; 0: no limit.
        config_dir: A person's own folder of configurations.

    Raises:
        ConfigError: Something in it is not acceptable; nothing was created.
        ResumeError: The folder holds another search.
        SweepError: No trial was completed.
        Interrupted: A signal came; the same command goes on.
    """
    require_optuna()
    for option, number in (("--trials", trials), ("--workers", workers), ("--seed", seed), ("--timeout", timeout_s)):
        if number < 0:
            raise ConfigError(f"{option} {number:g}; must be 0 or more")
    from cifar_lab import schema

    wait_politely_if_busy()
    schema.register()
    search = _checked(overrides, sampler, pruner, name, seed, config_dir)
    points = search.space.grid_size() if sampler == "grid" else 0
    most = min(trials or points, points) if points else trials or 30
    where = TUNES / search.name
    went_on = claim(where, search)
    from cifar_lab.tuning.desk import Desk, ended

    desk = Desk(where, search)
    done = f", {len(ended(desk.trials()))} of them done already" if went_on else ""
    say(f"search: {most} trials in {where}{done}")
    for note in search.space.notes():
        say(note)
    _work(desk, most, workers, timeout_s)
    _sum_up(desk, most)


def _checked(overrides: Sequence[str], sampler: str, pruner: str, name: str, seed: int, config_dir: str | None) -> Search:
    """The search that a command line means, with everything refused that can be refused before it begins."""
    from cifar_lab.parts import check_builders

    space, fixed = read_space(overrides, config_dir)
    if idle := [word for word in fixed if word.lstrip("+").startswith("sweep.")]:
        raise ConfigError(f"{idle[0]} is about sweeps, this is a search", hint="--workers says how many trials run at once")
    check_methods(sampler, pruner, space)
    configs = space.check(fixed, config_dir)
    for config in configs:
        check_judged(config)
    check_builders(configs)
    name = name or _name(fixed, [dimension.key for dimension in space.dimensions])
    check_name(name)
    folder = str(Path(config_dir).resolve()) if config_dir else None
    return Search(name, space, tuple(fixed), sampler, pruner, seed, folder, to_plain(configs[0]))


def _name(fixed: Sequence[str], keys: Sequence[str]) -> str:
    """The experiment or model that it is about, and the last words of the searched keys."""
    given = dict(word.split("=", 1) for word in fixed if "=" in word)
    about = next((given[key] for key in ("experiment", "model") if key in given), "small_cnn")
    words = [about, *(key.lstrip("+").rpartition(".")[2] for key in keys)]
    return "".join(sign if sign.isascii() and (sign.isalnum() or sign in "-_") else "-" for sign in "_".join(words))[:100]


def _work(desk: "Desk", most: int, workers: int, timeout_s: float) -> None:
    from cifar_lab.local import choose_slots
    from cifar_lab.tuning.crew import run_workers
    from cifar_lab.tuning.desk import ended

    left = most - len(ended(desk.trials()))
    if left <= 0:
        return
    base = desk.search.base
    slots = choose_slots(workers, left, base["device"], base["threads"])
    try:
        with StopFlag() as stop:
            run_workers(desk, slots, most=most, timeout_s=timeout_s, stop=stop)
    except Interrupted as error:
        error.kept, error.hint = f"everything is in {desk.where}", "the same command goes on where this stopped"
        raise


def _sum_up(desk: "Desk", most: int) -> None:
    """The best trials, the best configuration as overrides and as an experiment, and how to test it."""
    from cifar_lab.tuning.desk import trial_folder
    from cifar_lab.tuning.report import best, counts, in_words, show_trials
    from cifar_lab.tuning.saved_best import save_best

    search, trials = desk.search, desk.trials()
    found = best(search, trials)
    if found is None:
        raise SweepError(f"no trial was completed; {counts(trials)}", hint=f"each has its run.log below {desk.where}")
    show_trials(desk)
    words = [*search.fixed, *search.space.overrides(found.params)]
    flatters = f"the best of {len(trials)} trials and, being chosen by it, a little too good"
    score = f"{search.metric} {in_words(search, found.value)}, {flatters}"
    own = f"cifar-lab train --config-dir {shlex.quote(str(desk.where / 'conf'))} experiment={search.name}"
    path = save_best(desk.where, search.name, words, search.config_dir, [f"{score} (trial {found.number:04d})", "", f"  {own}"])
    say(f"best: trial {found.number:04d}, {score}")
    flags = ["--config-dir", search.config_dir] if search.config_dir else []
    say(f"  {shlex.join(search.space.overrides(found.params))}")
    say(f"saved as {path}: {own}")
    if search.base["train"]["keep"] == "all":
        folder = trial_folder(desk.where, found.number)
        command = shlex.join(["cifar-lab", "train", *flags, *words, f"hydra.run.dir={folder}"])
        say(f"the search has not opened the test set; this tests the best one, without training it again:\n  {command}")
    else:
        say("the search has not opened the test set; the command above trains the best configuration again and tests it")
