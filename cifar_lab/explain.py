"""What Hydra and omegaconf refuse, said in one line: key, value, what is allowed, and the likely meaning."""

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from cifar_lab import launcher_rules
from cifar_lab.errors import ConfigError

_MEANINGS = (
    ("to Integer", "a whole number"),
    ("to Float", "a number"),
    ("not a valid bool", "true or false"),
    ("to string", "one word, not several"),
    ("is not a ListConfig", "a list such as [1,2]"),
    ("with ListConfig", "a list such as [1,2]"),
    ("not Optional", "a value, not null"),
)
"""Words of omegaconf that name the type it wants; the type that it was given stands in the same line."""


def did_you_mean(word: Any, known: Iterable[Any]) -> str:
    """``; did you mean 'X'?`` for the closest known word, or nothing."""
    guess = difflib.get_close_matches(str(word), [str(k) for k in known], 1, 0.5)
    return f"; did you mean '{guess[0]}'?" if guess else ""


def unknown_key(key: str, known: Mapping[str, Sequence[str]]) -> ConfigError:
    """The error for a key that is no setting, with the closest one that is.

    Args:
        key: Dotted.
        known: All dotted keys, each with the components that have it; with none it is everybody's.
    """
    group, _, leaf = key.rpartition(".")
    if owners := known.get(key):
        says = f"the chosen {group} has no '{leaf}'; there is one with {group}={' or '.join(owners)}"
        return ConfigError(f"{key}: {says}", hint="`cifar-lab train --help` shows the keys of each")
    if key.startswith("hydra.launcher."):
        hint = "--cfg hydra behind `train -m hydra/launcher=NAME` shows its keys; +hydra.launcher.DICT.KEY=VALUE adds to a dict"
        return ConfigError(f"unknown key '{key}'", hint=hint)
    if key.startswith("hydra."):
        return ConfigError(f"unknown key '{key}'", hint="of Hydra's own keys: hydra.run.dir and hydra.sweep.dir")
    leaves = {k.rpartition(".")[2]: k for k in known if k.rpartition(".")[0] == group}
    groups = {k.partition(".")[0] for k in known}
    if key in groups:
        return ConfigError(f"'{key}' is a group", hint=f"choose with {key}=NAME, or set one of its keys")
    if guess := difflib.get_close_matches(leaf, leaves, 1, 0.5):
        mean = f"; did you mean '{leaves[guess[0]]}'?"
    elif same := next((k for k in known if group and k.rpartition(".")[2] == leaf), ""):  # right name, wrong group: train.lr
        mean = f"; did you mean '{same}'?"
    else:
        mean = did_you_mean(key, [*known, *groups] if group not in groups else [])
    return ConfigError(f"unknown key '{key}'{mean}", hint="`cifar-lab train --help` shows all keys")


def explain(error: Exception, known: Mapping[str, Sequence[str]]) -> ConfigError:
    """Translate an error of Hydra or omegaconf.

    Args:
        error: What was raised; its ``__cause__`` often says more.
        known: All dotted keys, each with the components that have it, for suggestions.
    """
    text, cause = str(error), str(error.__cause__ or "")
    if found := re.search(r"Could not override '([^']+)'", text):
        if "\nDid you mean to override" in text or "No match in the defaults list" in text:
            return ConfigError(f"unknown group '{found[1]}'{did_you_mean(found[1], {k.partition('.')[0] for k in known})}")
        return unknown_key(found[1].partition("@")[0], known)
    if found := re.search(r"Could not find '([\w/]+)/([^'/]*)'", text):
        options = re.findall(r"^\t(\S+)$", text, re.MULTILINE)
        if found[1] == "hydra/launcher" and found[2] in launcher_rules.EXTRAS:
            extra = launcher_rules.EXTRAS[found[2]]
            return ConfigError(
                f"hydra/launcher={found[2]}: not installed", hint=f"uv sync --extra {extra}, or pip install 'cifar-lab[{extra}]'"
            )
        return ConfigError(
            f"unknown {found[1]} '{found[2]}'{did_you_mean(found[2], options)}",
            hint=f"there are: {', '.join(options)}" if options else "",
        )
    if found := re.search(r"Error merging override (?:\+\+?)?([^=\s]+)=?(.*)", text):
        key, value = found[1], found[2]
        return (
            unknown_key(key, known)
            if re.search(r"Key '[^']*' not in", cause)
            else ConfigError(f"{key}={value}; {_reason(cause)}")
        )
    if found := re.search(r"Ambiguous value for argument '([^']+)'", text) or re.search(
        r"Sweep parameters '([^']+)' requires", text
    ):
        return ConfigError(
            f"'{found[1]}' has several values", hint="add -m for a sweep, or quote the value if it is one: 'key=\"a,b\"'"
        )
    if found := re.search(r"full_key: (\S+)", text):
        return (
            unknown_key(found[1], known)
            if re.search(r"Key '[^']*' not in", text)
            else ConfigError(f"{found[1]}: {_reason(text)}")
        )
    return ConfigError(" ".join(text.partition("\n")[0].split()) or type(error).__name__)


def _reason(text: str) -> str:
    """The first line of omegaconf's message in our words, with the value where it names one."""
    first = text.partition("\n")[0]
    if found := re.search(r"expected one of \[([^\]]*)\]", first):
        return f"must be one of {found[1]}"
    return next((f"must be {meaning}" for words, meaning in _MEANINGS if words in first), first)
