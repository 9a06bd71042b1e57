"""The best configuration as an experiment file that stands on its own: it composes to exactly what the trial was."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from cifar_lab import storage
from cifar_lab.config import Config, flatten, to_plain
from cifar_lab.errors import LabError
from cifar_lab.schema import compose, compose_raw
from cifar_lab.tables import COMPONENTS, conf_dir

_GROUPS = ("data", "augment", "model", "optimizer", "schedule", "train", "tracker")
_PLAIN = {"augment": "none", "train": "default", "tracker": "none"}


def save_best(where: Path, name: str, overrides: Sequence[str], config_dir: str | None, about: Sequence[str]) -> Path:
    """Write ``where/conf/experiment/NAME.yaml``.

    Args:
        where: The search's folder.
        name: Of the experiment.
        overrides: Of the best trial.
        config_dir: A person's own folder of configurations, which the file does without.
        about: Lines on top of it.

    Returns:
        The file.

    Raises:
        LabError: It would not compose to the trial's configuration: a bug.
    """
    config = compose(overrides, config_dir)
    chosen = _choices(overrides, config_dir, config)
    wanted, given = flatten(to_plain(config)), flatten(to_plain(compose([f"{g}={c}" for g, c in chosen.items()])))
    values = {key: wanted[key] for key in _different(wanted, given)}
    defaults = [*({f"override /{group}": choice} for group, choice in chosen.items()), "_self_"]
    body = yaml.safe_dump({"defaults": defaults, **_nested(values)}, sort_keys=False, allow_unicode=True)
    path = where / "conf" / "experiment" / f"{name}.yaml"
    storage.make_folder(path.parent)
    storage.write_text(path, "".join(["# @package _global_\n", *(f"# {line}".rstrip() + "\n" for line in about), body]))
    _check(path, name, where / "conf", config)
    return path


def _choices(overrides: Sequence[str], config_dir: str | None, config: Config) -> dict[str, str]:
    """What stands for each group: the choice itself where it is ours, else what comes near; values make up the difference."""
    made = compose_raw(overrides, config_dir).hydra.runtime.choices
    chosen = {}
    for group in _GROUPS:
        choice = str(made[group])
        ours = (conf_dir() / group / f"{choice}.yaml").is_file()
        if ours or choice in COMPONENTS.get(group, ()):
            chosen[group] = choice
        else:
            chosen[group] = _PLAIN.get(group) or getattr(config, group).name
    return chosen


def _nested(flat: dict[str, Any]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for key, value in flat.items():
        *parents, last = key.split(".")
        node = nested
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = value
    return nested


def _check(path: Path, name: str, config_dir: Path, config: Config) -> None:
    """Compose the file and compare."""
    again, wanted = (flatten(to_plain(c)) for c in (compose([f"experiment={name}"], config_dir), config))
    if wrong := _different(wanted, again):
        raise LabError(f"{path} does not compose to the best trial's configuration: {', '.join(wrong[:3])}")


def _different(wanted: dict[str, Any], given: dict[str, Any]) -> list[str]:
    """Keys whose values differ; what only sweeps and studies read is left out."""
    keys = (key for key in dict.fromkeys([*wanted, *given]) if not key.startswith(("sweep.", "study.")))
    return [key for key in keys if given.get(key) != wanted.get(key)]
