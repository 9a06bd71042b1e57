"""What tells configurations apart: the settings in which they differ, in a few words."""

from collections.abc import Mapping, Sequence
from typing import Any

_NAME = ".name"


def differing(settings: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The settings that are not the same in all configurations.

    Where a component itself differs (``optimizer.name``) its other settings are left out: they come and go with it.

    Args:
        settings: Dotted keys and values of each configuration.

    Returns:
        The differing keys of each, in the order of the first; None for one that it has not.
    """
    keys = dict.fromkeys(key for one in settings for key in one)
    unlike = [key for key in keys if len({repr(one.get(key)) for one in settings}) > 1]
    parts = [key.removesuffix(_NAME) + "." for key in unlike if key.endswith(_NAME)]
    shown = [key for key in unlike if key.endswith(_NAME) or not key.startswith(tuple(parts))]
    return [{key: one.get(key) for key in shown} for one in settings]


def words(settings: Mapping[str, Any]) -> str:
    """``lr=0.01 optimizer=adam``: the last part of each key is enough for a reader unless two share it."""
    short = {key: key.removesuffix(_NAME).rpartition(".")[2] for key in settings}
    alike = list(short.values())
    return " ".join(f"{short[key] if alike.count(short[key]) == 1 else key}={_shown(value)}" for key, value in settings.items())


def _shown(value: Any) -> str:
    """As a person would type it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value).replace(", ", ",")
