"""Which runs, and in which order: ``model=resnet18``, ``optimizer.lr>0.01``, ``test.accuracy>=0.9``."""

import fnmatch
import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from cifar_lab.errors import ConfigError
from cifar_lab.explain import did_you_mean
from cifar_lab.finding.records import MISSING, Record

_PATTERN = re.compile(r"(?P<key>[A-Za-z_][\w.]*)(?P<sign><=|>=|!=|=|<|>)(?P<text>.*)", re.DOTALL)
_ORDERS: dict[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_SMALL_IS_GOOD = ("loss", "nll", "ece")


@dataclass(frozen=True)
class Filter:
    """One condition.

    Args:
        key: See ``Record.value``.
        sign: ``=``, ``!=``, ``<``, ``<=``, ``>`` or ``>=``.
        text: What was typed behind it; ``a,b`` means one of them and ``*`` stands for anything.
    """

    key: str
    sign: str
    text: str

    def matches(self, record: Record) -> bool:
        """Whether a run fulfils it; a run without the key fulfils nothing."""
        value = record.value(self.key)
        if value is MISSING:
            return False
        if self.sign in _ORDERS:
            return _is_number(value) and _ORDERS[self.sign](value, float(self.text))
        alternatives = [self.text] if self.text.startswith("[") else self.text.split(",")
        return any(_equal(value, text) for text in alternatives) == (self.sign == "=")


def parse_filter(text: str) -> Filter:
    """Read one condition.

    Raises:
        ConfigError: It is none.
    """
    match = _PATTERN.fullmatch(text.strip())
    if match is None:
        raise ConfigError(
            f"'{text}' is no filter", hint="write KEY=VALUE, !=, <, <=, > or >=, in quotes for < and >: 'optimizer.lr>0.01'"
        )
    found = Filter(match["key"], match["sign"], match["text"].strip())
    if found.sign in _ORDERS and not _is_number(_typed(found.text)):
        raise ConfigError(f"'{text}': {found.sign} needs a number, not '{found.text}'")
    return found


def choose(records: Sequence[Record], filters: Sequence[Filter], needed: Sequence[str] = ()) -> list[Record]:
    """The runs that fulfil every condition.

    Args:
        records: What there is.
        filters: All must hold.
        needed: Other keys that must be known, such as the one to sort by.

    Raises:
        ConfigError: No run at all has a key, so the condition says nothing.
    """
    for key in [*(one.key for one in filters), *needed]:
        if records and all(record.value(key) is MISSING for record in records):
            known = sorted(set().union(*(record.keys() for record in records)))
            raise ConfigError(
                f"no run has '{key}'{did_you_mean(key, known)}",
                hint="keys: status, folder, experiment, seed, those of config.yaml, test.accuracy, val.loss, cost.macs, ...",
            )
    return [record for record in records if all(one.matches(record) for one in filters)]


def best_first(key: str, value: Any) -> tuple[int, Any]:
    """How a value is sorted: high measures and speeds, low losses, costs and settings first, then texts, last what has none.

    Args:
        key: What it is.
        value: Of one run, or the mean of several.
    """
    if value is MISSING or value is None:
        return (2, "")
    if not _is_number(value):
        return (1, str(value))
    return (0, -value if _is_better_high(key) else value)


def _is_better_high(key: str) -> bool:
    """Whether more of it is better: images per second, and what is measured on a split but for losses and calibration errors."""
    split, _, measure = key.partition(".")
    if split == "cost":
        return measure.rpartition(".")[2] == "images_per_s"
    if split == "train" and measure not in _TRAIN_MEASURES:
        return False  # ``train.*`` is a part of the configuration as well as a split
    return split in ("train", "val", "test") and bool(measure) and measure not in _SMALL_IS_GOOD and "." not in measure


_TRAIN_MEASURES = frozenset(
    ("accuracy", "top5", *(f"{kind}_{mean}" for kind in ("precision", "recall", "f1") for mean in ("macro", "weighted")))
)


def _equal(value: Any, text: str) -> bool:
    """Whether a value is what was typed: by number, by value, or by text with ``*``."""
    typed = _typed(text)
    if _is_number(value) and _is_number(typed):
        return float(value) == float(typed)
    if isinstance(value, bool | list) or value is None or typed is None:
        return value == typed
    return fnmatch.fnmatchcase(str(value), text)


def _typed(text: str) -> Any:
    """A text as YAML reads it, and ``1e-3`` as the number that it is."""
    try:
        return float(text)
    except ValueError:
        pass
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
