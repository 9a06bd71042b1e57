"""From a multirun command to its jobs: their overrides, their folder names, and what became of them.

Folder names are stable (no time stamps, no numbers), so that the same command finds its jobs again:
a finished job is not run twice, an interrupted one continues.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.types import Override

from cifar_lab import storage
from cifar_lab.config import Config, to_plain
from cifar_lab.errors import ConfigError, KilledError
from cifar_lab.overrides import parse_overrides
from cifar_lab.rules import check
from cifar_lab.schema import compose_raw, refers_to, to_config
from cifar_lab.study.naming import is_seed, variant_of

LONGEST_NAME = 120


@dataclass(frozen=True)
class Job:
    """One run of a sweep.

    Attributes:
        name: Of its folder, stable: the swept keys and their values.
        overrides: Of this run alone.
        config: What they compose to, checked.
        variant: What it is a repetition of: the swept overrides without the seed.
    """

    name: str
    overrides: tuple[str, ...]
    config: Config
    variant: str = ""


def plan(arguments: Sequence[str], config_dir: str | Path | None = None, own: Sequence[str] = ()) -> list[Job]:
    """Expand a multirun command and check every job before any starts.

    Jobs whose configurations are equal are one job.

    Args:
        arguments: Overrides, some with several values (``seed=0,1``, ``seed=range(0,5)``, ``model=glob(*)``).
        config_dir: A person's own folder of configurations.
        own: Keys that a study varies by itself: they tell its variants apart even where the person gives one value.

    Raises:
        ConfigError: A job is not acceptable, or there is none.
    """
    parsed = parse_overrides(arguments, config_dir)
    swept = [o.key_or_group for o in parsed if o.is_sweep_override() or o.key_or_group in own]
    if "device" in swept:
        raise ConfigError("device has several values: jobs of a sweep share one kind of device", hint="make a sweep of each")
    about = [key for key in swept if key.split(".")[0] in ("study", "sweep")]
    if about:
        raise ConfigError(f"{about[0]} has several values: it is about the sweep itself", hint="give it one value")
    composed = _Composer(config_dir)
    jobs: dict[str, Job] = {}
    for overrides in (o for batch in BasicSweeper.split_arguments(parsed, None) for o in batch):
        config = composed(overrides)
        values = [text for text in overrides if _key(text) in swept]
        if own:  # whatever the order in which a person narrows a study
            values.sort(key=lambda text: (is_seed(text), own.index(_key(text)) if _key(text) in own else -1))
        job = Job(folder_name(values) if values else "job", tuple(overrides), config, variant_of(values, swept))
        # Places count here: the same training on two devices is two jobs.
        jobs.setdefault(storage.digest(to_plain(config)), job)
    if not jobs:
        empty = [o.input_line for o in parsed if o.is_sweep_override()]
        raise ConfigError(
            f"the sweep {' '.join(map(str, empty))} has no jobs", hint="a glob matches names of a group, not plain values"
        )
    return list(jobs.values())


class _Composer:
    """Composes jobs; of jobs that differ in the seed alone only the first, where no other setting refers to the seed.

    Args:
        config_dir: A person's own folder of configurations.
    """

    def __init__(self, config_dir: str | Path | None):
        self._config_dir = config_dir
        self._first: dict[tuple[str, ...], Config] = {}

    def __call__(self, overrides: Sequence[str]) -> Config:
        seed = next((text.partition("=")[2] for text in overrides if text.startswith("seed=")), "")
        rest = tuple(text for text in overrides if not is_seed(text))
        if rest in self._first and seed.isdecimal():
            config = replace(deepcopy(self._first[rest]), seed=int(seed))
            try:
                check(config)
            except ValueError as error:
                raise ConfigError(str(error)) from error
            return config
        composed = compose_raw(overrides, self._config_dir)
        config = to_config(composed)
        if seed.isdecimal() and not refers_to(composed, "seed"):
            self._first[rest] = config
        return config


def own_params(params: Mapping[str, Any], parsed: Sequence[Override]) -> list[str]:
    """What a study itself sweeps, less what the person gives other values."""
    given = {o.key_or_group for o in parsed}
    return [f"{key}={value}" for key, value in params.items() if key not in given]


def sweep_name(parsed: Sequence[Override], *, study: str = "") -> str:
    """Folder of a sweep: the study, or the experiment or model it is about and the swept keys.

    The seeds of a study are not part of it: with more of them it is the same study, continued.
    """
    fixed = {o.key_or_group: str(o.value()) for o in parsed if not o.is_sweep_override()}
    swept = [o.key_or_group for o in parsed if o.is_sweep_override()]
    if study:
        settings = [f"{key}={value}" for key, value in fixed.items() if key.startswith("study.")]
        return folder_name([study, *settings, *(key for key in swept if key not in ("seed", "ablation"))])
    about = next((fixed[k] for k in ("experiment", "model") if k in fixed), "small_cnn")
    return folder_name([about, *swept])


def folder_name(parts: Sequence[str]) -> str:
    """A safe, stable name; what is unsafe or too long is replaced by 8 hex digits of its digest."""
    text = ",".join(parts)
    safe = re.sub(r"[^A-Za-z0-9_.=,+\-]", "_", text.replace("/", "-"))
    if safe == text and len(safe) <= LONGEST_NAME:
        return safe
    return f"{safe[: LONGEST_NAME - 9]}-{sha256(text.encode()).hexdigest()[:8]}"


def _key(override: str) -> str:
    return override.partition("=")[0].lstrip("+")


def first_job(parsed: Sequence[Override]) -> list[str]:
    """Overrides of the first job, enough to check what all jobs share.

    Raises:
        ConfigError: There is no job.
    """
    for batch in BasicSweeper.split_arguments(list(parsed), None):
        for overrides in batch:
            return list(overrides)
    raise ConfigError("the sweep has no jobs", hint="a glob matches names of a group, not plain values")


def what_ended_it(result: Mapping[str, Any]) -> str:
    """Code and message of a run that is not done."""
    error = result.get("error") or {}
    return f"{error.get('code', KilledError.code)} {error.get('message', 'it left no result: killed, or never begun')}"


def failure_text(results: Mapping[str, Mapping[str, Any]]) -> str:
    """``40 done, 10 failed (2 E-OOM, 8 E-DIVERGED)``."""
    failed = [result for result in results.values() if result.get("status") != "done"]
    codes = Counter((result.get("error") or {}).get("code", KilledError.code) for result in failed)
    counts = ", ".join(f"{count} {code}" for code, count in codes.items())
    return f"{len(results) - len(failed)} done, {len(failed)} failed ({counts})"
