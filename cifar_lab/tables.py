"""Everything that has a name, in one place: the tables of all rooms and the keys of their components.

Imports no torch and no Hydra, so that ``list``, ``--help`` and completion answer at once.
"""

import inspect
from dataclasses import Field, dataclass, fields, is_dataclass
from pathlib import Path

from cifar_lab import models, optim
from cifar_lab.analysis import ANALYSES
from cifar_lab.config import Config
from cifar_lab.data import DATASETS
from cifar_lab.errors import ConfigError
from cifar_lab.explain import did_you_mean
from cifar_lab.models import ACTIVATIONS, MODELS
from cifar_lab.optim import OPTIMIZERS, SCHEDULES
from cifar_lab.signatures import Key, Signature, read_signature

TABLES: dict[str, dict[str, str]] = {
    "models": MODELS,
    "activations": ACTIVATIONS,
    "optimizers": OPTIMIZERS,
    "schedules": SCHEDULES,
    "datasets": DATASETS,
    "analyses": ANALYSES,
}
COMPONENTS: dict[str, dict[str, str]] = {"model": MODELS, "optimizer": OPTIMIZERS, "schedule": SCHEDULES}
"""Configuration groups whose keys are the keywords of a builder."""

RESERVED = {"model": models.RESERVED, "optimizer": optim.OPTIMIZER_RESERVED, "schedule": optim.SCHEDULE_RESERVED}
"""Parameters of builders that we fill in ourselves."""

COMMON: dict[str, tuple[Key, ...]] = {
    "optimizer": (Key("decay_all", bool, False, doc="decay norms and biases too, as the published recipes do"),)
}
"""Keys that every component of a kind has, beside those of its builder."""


@dataclass(frozen=True)
class Setting:
    """One key that a person can set: its dotted name, type, default and documentation."""

    key: str
    type: str
    default: object
    doc: str
    choices: tuple[str, ...] = ()


def conf_dir() -> Path:
    """Our conf/: inside the package when installed from a wheel, beside it in a checkout."""
    package = Path(__file__).parent
    inside = package / "conf"
    return inside if inside.is_dir() else package.parent / "conf"


def own_conf(config_dir: str | Path | None) -> Path | None:
    """A person's own folder of configurations, whole; None where none is named.

    Raises:
        ConfigError: It is not there.
    """
    if not config_dir:
        return None
    if not Path(config_dir).is_dir():
        raise ConfigError(f"--config-dir {config_dir}: no such folder")
    return Path(config_dir).resolve()


def signature(kind: str, name: str) -> Signature:
    """The keys of a component: those of its builder, and those common to its kind.

    Args:
        kind: model, optimizer or schedule.
        name: A row of its table.

    Raises:
        ConfigError: There is no such row, or its builder cannot be configured.
    """
    table = COMPONENTS[kind]
    if name not in table:
        raise ConfigError(f"unknown {kind} '{name}'{did_you_mean(name, table)}", hint=f"`cifar-lab list {kind}s` shows all")
    read = read_signature(table[name], RESERVED[kind])
    return Signature(read.row, read.doc, (*read.keys, *COMMON.get(kind, ())))


def settings(kind: str | None = None, name: str | None = None) -> list[Setting]:
    """All settings of our own code, or those of one component.

    Args:
        kind: None for our own settings; else model, optimizer or schedule.
        name: The component.
    """
    if kind is not None and name is not None:
        return [_component_setting(kind, key) for key in signature(kind, name).keys]
    found = []
    for f in fields(Config):
        part = f.type
        if f.name in COMPONENTS:
            continue
        inner = [(f"{f.name}.", g) for g in fields(part)] if is_dataclass(part) else [("", f)]
        found += [
            Setting(f"{p}{g.name}", _type_name(g.type), _default(g), g.metadata["doc"], g.metadata.get("choices", ()))
            for p, g in inner
        ]
    return found


def known_keys() -> dict[str, list[str]]:
    """All dotted keys, for suggestions: each with the components that have it, none for a setting of our own code."""
    keys: dict[str, list[str]] = {s.key: [] for s in settings()}
    for kind, table in COMPONENTS.items():
        for name in table:
            for key in signature(kind, name).keys:
                keys.setdefault(f"{kind}.{key.name}", []).append(name)
    return keys


def _component_setting(kind: str, key: Key) -> Setting:
    text = f"list of {key.kind.__name__}" if key.is_tuple else key.kind.__name__
    dotted = f"{kind}.{key.name}"
    choices = tuple(ACTIVATIONS) if key.name == "activation" else key.choices
    return Setting(dotted, f"{text} or null" if key.optional else text, key.default, key.doc, choices)


def _type_name(annotation: object) -> str:
    return inspect.formatannotation(annotation).replace("typing.", "").replace(" | None", " or null")


def _default(f: Field) -> object:
    factory = f.default_factory
    return factory() if callable(factory) else f.default
