"""Hydra's launchers that are allowed, what a configuration file may set of them, and what ours sets by default."""

from collections.abc import Mapping
from typing import Any

from cifar_lab.config import flatten
from cifar_lab.errors import ConfigError

_SUBMITIT = "hydra_plugins.hydra_submitit_launcher.submitit_launcher"
SLURM = f"{_SUBMITIT}.SlurmLauncher"
LOCAL = f"{_SUBMITIT}.LocalLauncher"
RAY = "hydra_plugins.hydra_ray_launcher.ray_launcher.RayLauncher"

TARGETS = (
    "hydra_plugins.cifar_lab.launcher.LabLauncher",
    "hydra._internal.core_plugins.basic_launcher.BasicLauncher",
    SLURM,
    LOCAL,
    RAY,
)

EXTRAS = {"submitit_slurm": "slurm", "submitit_local": "slurm", "ray": "ray"}
"""What has to be installed for a launcher."""

# Configurations are data, and may come from someone else. Of a launcher's settings these can run commands, set a job's
# environment, or load pickles from a place or a cluster of another's choice. A person may type them, as anything else in
# a shell; a file may not hold them. Of Ray's open dicts a file may hold the plain numbers below.
_TYPED_ONLY = {
    "setup": None,
    "additional_parameters": {},
    "submitit_folder": "${hydra.sweep.dir}/.submitit/%j",
}
_PLAIN_OF_RAY = {
    "init": {"num_cpus", "num_gpus", "object_store_memory"},
    "remote": {"num_cpus", "num_gpus", "memory", "max_retries"},
}

_SUBMITITS_MIN = 60
_A_WEEK_MIN = 7 * 24 * 60
_TIMEOUTS = 10
"""How often a job that ran into its time limit is put back into the queue; it goes on from its last checkpoint."""


def refuse_settings_of_files(settings: Mapping[str, Any], typed: Mapping[str, Any]) -> None:
    """Refuse launcher settings that only a person may give.

    Args:
        settings: ``hydra.launcher``, not resolved.
        typed: Values of what was typed, by full key; those of a dict may stand one by one or in it.

    Raises:
        ConfigError: One came from a file, or a value holds a line break, which would begin a command in Slurm's script.
    """
    for key, value in _flat(settings, ""):
        if isinstance(value, str) and any(ord(sign) < ord(" ") for sign in value):
            raise ConfigError(f"hydra.launcher.{key}={value!r}: must be one line")
    known = flatten(dict(typed))
    for key, value in _delicate(settings).items():
        for leaf, found in flatten({f"hydra.launcher.{key}": value}).items():  # a typed one does not vouch for others beside it
            if leaf not in known or not _same(known[leaf], found):
                raise ConfigError(
                    f"{leaf}: not allowed in a configuration file, it can run commands",
                    hint=f"type it: {leaf}=VALUE behind `train`",
                )


def _delicate(settings: Mapping[str, Any]) -> dict[str, Any]:
    """What is not at its harmless value and only a person may set."""
    found = {key: settings[key] for key, harmless in _TYPED_ONLY.items() if settings.get(key, harmless) != harmless}
    for part, plain in _PLAIN_OF_RAY.items():
        values = (settings.get("ray") or {}).get(part) or {}
        found |= {f"ray.{part}.{key}": value for key, value in values.items() if key not in plain and value is not None}
    return found


def _same(typed: Any, found: Any) -> bool:
    """Whether it is what was typed; Hydra may have made strings of it."""
    if isinstance(typed, list) and isinstance(found, list):
        return len(typed) == len(found) and all(_same(a, b) for a, b in zip(typed, found, strict=True))
    return str(typed).lower() == str(found).lower()


def _flat(node: Any, prefix: str) -> list[tuple[str, Any]]:
    items = node.items() if isinstance(node, Mapping) else enumerate(node) if isinstance(node, list | tuple) else None
    if items is None:
        return [(prefix.rstrip("."), node)]
    return [pair for key, value in items for pair in _flat(value, f"{prefix}{key}.")]


def defaults(settings: Mapping[str, Any]) -> list[str]:
    """Overrides that make a launcher fit for runs that continue by themselves; a person's own come behind and win.

    Args:
        settings: ``hydra.launcher``; what a person's file has changed stays.
    """
    target = settings["_target_"]
    if target == SLURM and settings.get("max_num_timeout") == 0:
        return [f"hydra.launcher.max_num_timeout={_TIMEOUTS}"]
    # submitit's is an hour, after which a job is begun again; nobody else waits for this machine.
    if target == LOCAL and settings.get("timeout_min") == _SUBMITITS_MIN:
        return [f"hydra.launcher.timeout_min={_A_WEEK_MIN}"]
    if target == RAY:  # every run writes its own log; a hundred of them at once on one terminal help nobody
        return ["++hydra.launcher.ray.init.log_to_driver=false", "++hydra.launcher.ray.init.include_dashboard=false"]
    return []
