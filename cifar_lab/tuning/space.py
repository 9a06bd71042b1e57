"""What is searched, in the grammar of Hydra's sweeps: lists, ranges and intervals, read as Optuna's distributions.

optimizer=adam,sgd_nesterov               one of these; also choice(adam,sgd_nesterov) and glob(*)
train.batch_size=range(32,256,32)         32, 64, ... 224: the end is left out, as in Python
optimizer.lr=tag(log,interval(1e-4,1e-1)) any number between, tried evenly by its logarithm
model.width=int(interval(8,64))           any whole number, both ends included
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import ChoiceSweep, Glob, IntervalSweep, Override, RangeSweep

from cifar_lab.config import Config, to_plain
from cifar_lab.errors import ConfigError
from cifar_lab.explain import did_you_mean
from cifar_lab.overrides import parse_overrides, refuse_overrides
from cifar_lab.runs import comparable, is_place
from cifar_lab.schema import compose

TAGS = ("log",)
_TRAINING_ONLY = ("data.normalize", "data.input_size", "data.label_noise", "data.imbalance_factor")
"""Keys of the data that leave the validation images what they are."""
_MOST_CHECKED = 64
_WIDE = 100.0


@dataclass(frozen=True)
class Dimension:
    """One searched key.

    Attributes:
        key: With its package or sign, as it stands before ``=``.
        text: What was typed behind it.
        choices: Values as they stand in an override, for a list; empty for numbers.
        low: Lowest number.
        high: Highest number, included.
        step: Between numbers; None: any number between the ends.
        whole: Whether numbers are whole.
        log: Whether numbers are tried evenly by their logarithm.
    """

    key: str
    text: str
    choices: tuple[str, ...] = ()
    low: float = 0.0
    high: float = 0.0
    step: float | None = None
    whole: bool = False
    log: bool = False

    def suggest(self, trial: Any) -> Any:
        """A value for one of Optuna's trials; the same again for the same trial."""
        if self.choices:
            return trial.suggest_categorical(self.key, self.choices)
        if self.whole:
            return trial.suggest_int(self.key, int(self.low), int(self.high), log=self.log, step=int(self.step or 1))
        return trial.suggest_float(self.key, self.low, self.high, log=self.log, step=self.step)

    def override(self, value: Any) -> str:
        """``key=value`` for a value of the distribution; a number is written so that it is read back exactly."""
        if self.step is not None and not self.whole:
            value = float(f"{value:.12g}")  # 0.3, not 0.30000000000000004
        return f"{self.key}={value if self.choices else repr(value)}"

    def grid(self) -> list[Any]:
        """Every value.

        Raises:
            ConfigError: There is no end of them.
        """
        if self.choices:
            return list(self.choices)
        if self.whole:
            return list(range(int(self.low), int(self.high) + 1, int(self.step or 1)))
        if self.step is None:
            raise ConfigError(
                f"{self.key}={self.text}: a grid needs single values", hint=f"write a list or a range: {self.key}=range(0,1,0.1)"
            )
        return [self.low + k * self.step for k in range(round((self.high - self.low) / self.step) + 1)]

    def probes(self) -> list[Any]:
        """Values that show whether all are acceptable: every choice, both ends of numbers."""
        if self.choices:
            return list(self.choices)
        return [int(self.low), int(self.high)] if self.whole else [self.low, self.high]


@dataclass(frozen=True)
class Space:
    """All searched keys, in the order in which they were typed."""

    dimensions: tuple[Dimension, ...]

    def overrides(self, params: Mapping[str, Any]) -> list[str]:
        """Overrides of one trial, by Optuna's parameters."""
        return [dimension.override(params[dimension.key]) for dimension in self.dimensions]

    def grid_size(self) -> int:
        """Points of the grid."""
        return math.prod(len(dimension.grid()) for dimension in self.dimensions)

    def texts(self) -> dict[str, str]:
        """As typed, by key."""
        return {dimension.key: dimension.text for dimension in self.dimensions}

    def notes(self) -> list[str]:
        """What a person may not have meant."""
        return [
            f"note: {d.key}={d.text} spans a factor of {d.high / d.low:.3g} and is tried evenly, nine tenths of it in its upper"
            f" decade; {d.key}=tag(log,{d.text}) tries it evenly by its logarithm"
            for d in self.dimensions
            if not d.choices and not d.log and d.step is None and d.low > 0 and d.high / d.low >= _WIDE
        ]

    def check(self, fixed: Sequence[str], config_dir: str | Path | None = None) -> list[Config]:
        """Compose what stands for all trials; the first configuration takes the first value of every key.

        Every combination of the lists, where these are few, and then each key's values one by one.

        Raises:
            ConfigError: One of them is not acceptable, or is judged on other images than the first.
        """
        first = [dimension.probes()[0] for dimension in self.dimensions]
        lists = [d.probes() if d.choices else [d.probes()[0]] for d in self.dimensions]
        points = [tuple(first)]
        if math.prod(map(len, lists)) <= _MOST_CHECKED:
            points += itertools.product(*lists)
        for place, dimension in enumerate(self.dimensions):
            points += [(*first[:place], value, *first[place + 1 :]) for value in dimension.probes()]
        points = list(dict.fromkeys(points))
        configs = [self._composed(point, fixed, config_dir) for point in points]
        judging = _judging(configs[0])
        for point, config in zip(points, configs, strict=True):
            if key := next((key for key, value in _judging(config).items() if judging.get(key) != value), ""):
                raise ConfigError(
                    f"{' '.join(self._words(point))} brings another {key}: trials must be judged on the same images, by the same"
                    " measure",
                    hint=f"give {key} one value, or search one choice after the other",
                )
        return configs

    def _composed(self, point: Sequence[Any], fixed: Sequence[str], config_dir: str | Path | None) -> Config:
        words = self._words(point)
        try:
            return compose([*fixed, *words], config_dir)
        except ConfigError as error:
            raise ConfigError(f"{error.what} (with {' '.join(words)})", hint=error.hint) from error

    def _words(self, point: Sequence[Any]) -> list[str]:
        return self.overrides({d.key: value for d, value in zip(self.dimensions, point, strict=True)})


def _judging(config: Config) -> dict[str, Any]:
    """What trials are judged by, as dotted keys. A preset such as ``experiment=a,b`` brings some without naming them."""
    plain = comparable(to_plain(config)).items()
    images = {key: value for key, value in plain if key.startswith("data.") and key not in _TRAINING_ONLY}
    return images | {key: value for key, value in plain if key in ("seed", "train.monitor")}


def read_space(overrides: Sequence[str], config_dir: str | Path | None = None) -> tuple[Space, list[str]]:
    """Tell what is searched from what is fixed.

    Args:
        overrides: As a person types them.
        config_dir: A person's own folder of configurations, for ``model=glob(*)``.

    Returns:
        The space, and the fixed overrides.

    Raises:
        ConfigError: An override cannot be read or may not be searched, or none is.
    """
    parsed = parse_overrides(overrides, config_dir)
    refuse_overrides(parsed)
    dimensions = [_dimension(override) for override in parsed if override.is_sweep_override()]
    if not dimensions:
        raise ConfigError(
            "there is nothing to search: no key has several values",
            hint="for example 'optimizer.lr=tag(log,interval(1e-4,1e-1))' optimizer=adam,sgd_nesterov",
        )
    keys = [dimension.key for dimension in dimensions]
    if twice := next((key for key in keys if keys.count(key) > 1), ""):
        raise ConfigError(f"{twice} is searched twice")
    return Space(tuple(dimensions)), [str(o.input_line) for o in parsed if not o.is_sweep_override()]


def _dimension(override: Override) -> Dimension:
    key, value = override.get_key_element(), override.value()
    text = str(override.input_line).partition("=")[2]
    _refuse_key(override.key_or_group, text)
    tags = set(getattr(value, "tags", ()))
    if unknown := sorted(tags - set(TAGS)):
        raise ConfigError(f"{key}={text}: unknown tag '{unknown[0]}'{did_you_mean(unknown[0], TAGS)}", hint="there is: log")
    if isinstance(value, IntervalSweep):
        return _interval(key, text, value, log="log" in tags)
    if isinstance(value, RangeSweep):
        return _range(key, text, value, log="log" in tags)
    assert isinstance(value, ChoiceSweep | Glob)
    if tags:
        raise ConfigError(f"{key}={text}: a list has no scale, log is for intervals and ranges")
    choices = tuple(dict.fromkeys(str(word) for word in override.sweep_string_iterator()))
    if not choices:
        raise ConfigError(f"{key}={text} has no values", hint="a glob matches names of a group, not plain values")
    return Dimension(key, text, choices)


def _interval(key: str, text: str, value: IntervalSweep, *, log: bool) -> Dimension:
    assert value.start is not None
    assert value.end is not None
    low, high = value.start, value.end
    if not low < high or (log and low <= 0):
        must = "the first end must be above 0 for log, and below the second" if log else "the first end must be the lower one"
        raise ConfigError(f"{key}={text}: {must}")
    return Dimension(key, text, low=low, high=high, whole=isinstance(low, int), log=log)


def _range(key: str, text: str, value: RangeSweep, *, log: bool) -> Dimension:
    values = sorted(value.range())
    if not values:
        raise ConfigError(f"{key}={text} has no values", hint="range(start,stop,step) leaves stop out")
    low, high, step = values[0], values[-1], abs(value.step)
    whole = all(isinstance(number, int) for number in (low, step))
    if log and not (whole and step == 1 and low > 0):
        raise ConfigError(
            f"{key}={text}: log goes with a step of 1 and whole numbers above 0", hint="or use tag(log,interval(a,b))"
        )
    return Dimension(key, text, low=low, high=high, step=step, whole=whole, log=log)


def _refuse_key(key: str, text: str) -> None:
    """Refuse to search what trials are judged by, and what changes nothing but where they run."""
    shown = f"{key}={text}"
    if key == "seed":
        raise ConfigError(
            f"{shown}: a search over seeds finds the luckiest one", hint="seeds are repeats: cifar-lab train -m seed=0,1,2"
        )
    if key == "data" or (key.startswith("data.") and key not in _TRAINING_ONLY):
        raise ConfigError(
            f"{shown}: trials must be judged on the same images", hint=f"may be searched: {', '.join(_TRAINING_ONLY)}"
        )
    if key == "train.monitor":
        raise ConfigError(f"{shown}: trials must be judged by the same measure")
    if key.startswith("hydra") or is_place(key):
        raise ConfigError(f"{shown}: {key} changes where a run runs, not what it computes", hint="give it one value")
