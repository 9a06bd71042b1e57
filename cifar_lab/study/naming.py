"""What the variants of a study are called, and which one a name means."""

import contextlib
import re
from collections.abc import Sequence

from cifar_lab.errors import ConfigError

_PARTS = re.compile(r",(?=[^,=\[\](){}]+=)")
"""Between the overrides of a name; a comma inside a list is none."""


def variant_of(overrides: Sequence[str], swept: Sequence[str]) -> str:
    """A variant's name: the swept overrides without the seed, in the order of the command; empty where only seeds are swept."""
    return ",".join(text.lstrip("+") for text in overrides if text.partition("=")[0].lstrip("+") in swept and not is_seed(text))


def is_seed(override: str) -> bool:
    """Whether an override sets the seed, which makes a repetition and no variant."""
    return override.partition("=")[0].lstrip("+") == "seed"


def short_labels(names: Sequence[str]) -> dict[str, str]:
    """Names without what all of them share, and keys by their last part: ``kernel5`` for ``ablation=kernel5`` where only
    ``ablation`` varies, else ``lr=0.1, width=2`` for ``optimizer.lr=0.1,model.width=2``."""
    if len(names) == 1:
        return {name: name or "all runs" for name in names}
    parts = {name: [part.partition("=") for part in _PARTS.split(name) if part] for name in names}
    keys = {key for found in parts.values() for key, _, _ in found}
    if len(keys) == 1 and all(len(found) == 1 for found in parts.values()):
        return {name: found[0][2] for name, found in parts.items()}
    last = {key: key.rsplit(".", 1)[-1] for key in keys}
    if len(set(last.values())) < len(keys):
        last = {key: key for key in keys}
    return {name: ", ".join(f"{last[key]}={value}" for key, _, value in found) or "baseline" for name, found in parts.items()}


def choose_baseline(wanted: str, names: Sequence[str]) -> str:
    """The variant that the others are compared with: the one that is named, or the first.

    Raises:
        ConfigError: None or several are called so.
    """
    return find_variant(wanted, names, "study.baseline") if wanted else names[0]


def find_variant(wanted: str, names: Sequence[str], where: str, hint: str = "") -> str:
    """The one variant that is called so, or that alone has all the overrides that are named.

    Numbers may be written in another way: ``optimizer.weight_decay=5e-3`` is ``optimizer.weight_decay=0.005``.

    Args:
        wanted: As a person names it.
        names: Of all variants.
        where: Key that asks for it, for the message.
        hint: To be added to that of the message.

    Raises:
        ConfigError: None or several are meant.
    """
    if wanted in names:
        return wanted
    parts = _canonical(wanted)
    found = [name for name in names if parts <= _canonical(name)]
    if len(found) == 1:
        return found[0]
    what = f"fits {len(found)} variants" if found else "is no variant"
    raise ConfigError(f"{where}: {wanted} {what} of this sweep", hint=f"variants are {'; '.join(names[:8])}{hint}")


def _canonical(name: str) -> set[tuple[str, str]]:
    """Overrides with numbers in one spelling."""
    found = set()
    for part in _PARTS.split(name):
        key, _, value = part.partition("=")
        with contextlib.suppress(ValueError):
            value = repr(float(value))
        found.add((key.strip(), value.strip()))
    return found
