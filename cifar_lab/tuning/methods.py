"""Samplers and pruners by name. A sampler is made anew for every trial, from the search's seed and the trial's number.

So a search that was interrupted goes on as it would have without, and two workers never draw the same.
"""

import importlib.util
import math
import warnings
from hashlib import sha256
from typing import Any

from cifar_lab.errors import ConfigError
from cifar_lab.explain import did_you_mean
from cifar_lab.tuning.space import Space

SAMPLERS = {
    "tpe": "tree-structured Parzen estimators: Optuna's usual choice, random for the first 10 trials",
    "random": "every trial drawn alone",
    "qmc": "low-discrepancy points: random, but spread more evenly",
    "grid": "every combination of lists and ranges, once",
    "cmaes": "CMA-ES, for numbers only (needs the package cmaes)",
    "gp": "Gaussian process, for few trials that each cost much",
}
PRUNERS = {
    "none": "every trial goes to its end",
    "median": "ends a trial that is worse than the median of the others at its epoch, once 5 are done",
    "percentile": "the same for the worst quarter",
    "successive_halving": "keeps the better quarter at epochs 1, 4, 16, ...",
    "hyperband": "successive halving from several first epochs at once",
}
_PACKAGES = {"cmaes": ("cmaes",), "gp": ("scipy", "torch")}
_SAME_SEED = ("grid", "qmc")
"""Samplers whose trials are points of one set, which the seed orders."""
WARM_UP = 1
"""Epochs in which nothing is pruned."""


def require_optuna() -> None:
    """Refuse where Optuna is not installed, and keep it from talking.

    Raises:
        ConfigError: With the command that installs it.
    """
    if importlib.util.find_spec("optuna") is None:
        hint = "pip install 'cifar-lab[hpo]', or in a checkout: uv sync --extra hpo"
        raise ConfigError("tune needs optuna, which is not installed", hint=hint)
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)


def check_methods(sampler: str, pruner: str, space: Space) -> None:
    """Refuse unknown names, missing packages, and a grid without end.

    Raises:
        ConfigError: Naming what there is.
    """
    for option, name, known in (("--sampler", sampler, SAMPLERS), ("--pruner", pruner, PRUNERS)):
        if name not in known:
            raise ConfigError(f"{option} {name}: unknown{did_you_mean(name, known)}", hint=f"there are: {', '.join(known)}")
    missing = [package for package in _PACKAGES.get(sampler, ()) if importlib.util.find_spec(package) is None]
    if missing:
        raise ConfigError(
            f"--sampler {sampler}: {missing[0]} is not installed", hint=f"pip install {missing[0]}, or --sampler tpe"
        )
    if sampler == "cmaes" and not any(not dimension.choices for dimension in space.dimensions):
        raise ConfigError("--sampler cmaes: nothing in the space is a number", hint="--sampler tpe or grid searches lists")
    if sampler == "grid":
        space.grid_size()


def build_sampler(name: str, space: Space, seed: int, number: int) -> Any:
    """The sampler of one trial.

    Args:
        name: Of SAMPLERS.
        space: What is searched.
        seed: Of the search.
        number: Of the trial.
    """
    from optuna import samplers

    own = seed if name in _SAME_SEED else int.from_bytes(sha256(f"{seed}:{number}".encode()).digest()[:4])
    if name == "grid":
        return samplers.GridSampler({d.key: d.grid() for d in space.dimensions}, seed=own)
    if name == "cmaes":
        return samplers.CmaEsSampler(seed=own, warn_independent_sampling=False)
    if name == "qmc":
        return samplers.QMCSampler(scramble=True, seed=own, warn_independent_sampling=False)
    kinds = {"tpe": samplers.TPESampler, "random": samplers.RandomSampler, "gp": samplers.GPSampler}
    return kinds[name](seed=own)


def build_pruner(name: str, epochs: int) -> Any:
    """The pruner of a search.

    Args:
        name: Of PRUNERS.
        epochs: Of the longest trial.
    """
    from optuna import pruners

    if name == "median":
        return pruners.MedianPruner(n_warmup_steps=WARM_UP)
    if name == "percentile":
        return pruners.PercentilePruner(75.0, n_warmup_steps=WARM_UP)
    if name == "successive_halving":
        return pruners.SuccessiveHalvingPruner(min_resource=WARM_UP, reduction_factor=4)
    if name == "hyperband":
        return pruners.HyperbandPruner(min_resource=WARM_UP, max_resource=max(2, math.ceil(epochs)), reduction_factor=3)
    return pruners.NopPruner()
