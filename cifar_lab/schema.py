"""From argv and YAML to a checked ``Config``: the only place that composes, and one of the few that know Hydra.

Hydra alone refuses plain mistyped keys, but accepts ``+optimizer.ler=0.1``, ``++key``, added
callbacks and resolvers that read the environment. So everything composed here is laid over the
schemas once more, strictly, and whatever is no field is refused before a folder appears. The
schemas of components come from the signatures of their builders (``signatures``).
"""

import contextlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import field, fields, is_dataclass, make_dataclass
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from cifar_lab import launcher_rules
from cifar_lab.config import Component, Config
from cifar_lab.errors import ConfigError
from cifar_lab.explain import did_you_mean, explain, unknown_key
from cifar_lab.flags import quoted
from cifar_lab.models import ACTIVATIONS
from cifar_lab.overrides import RESOLVER, parse_overrides, refuse_overrides
from cifar_lab.rules import check
from cifar_lab.signatures import REQUIRED, Key
from cifar_lab.tables import COMPONENTS, TABLES, conf_dir, known_keys, own_conf, signature

_OWN_TARGETS = {
    "hydra.sweeper": ("hydra_plugins.cifar_lab.sweeper.LabSweeper",),
    "hydra.launcher": launcher_rules.TARGETS,
}


@cache
def _schema(row: str, kind: str, name: str) -> type:
    """A dataclass with one typed field per key, for omegaconf. ``row`` is part of the cache key."""
    items: list[Any] = [("name", str, field(default=name))]
    for key in signature(kind, name).keys:
        kind_of: Any = Enum(key.name, {c: c for c in key.choices}) if key.choices else key.kind
        default = kind_of[key.default] if key.choices and key.default in key.choices else key.default
        if key.is_tuple:
            kind_of = list[kind_of]
            default = list(default) if isinstance(default, tuple | list) else default
        if key.optional:
            kind_of = kind_of | None
        made = field(default_factory=lambda d=default: list(d)) if isinstance(default, list) else field(default=default)
        items.append((key.name, kind_of, made))
    return make_dataclass(f"{kind}_{name}", items)


def schema_of(kind: str, name: str) -> type:
    """The schema of a component as a dataclass type that omegaconf understands."""
    signature(kind, name)
    return _schema(COMPONENTS[kind][name], kind, name)


_stored: set[type] = set()


def register() -> None:
    """Store all schemas where Hydra finds them; a row without a YAML of its own is selectable too."""
    store = ConfigStore.instance()
    # Hydra copies its sources before it composes, and with them this store, a fifth of the time. There is one store in a
    # process, and what is loaded from it is copied anyway.
    ConfigStore.__deepcopy__ = lambda self, _: self
    store.store(group="schema", name="base", node=_base_schema(), package="_global_")
    for kind, table in COMPONENTS.items():
        for name in table:
            node = schema_of(kind, name)
            if node in _stored:
                continue
            _stored.add(node)
            store.store(group=f"schema/{kind}", name=name, node=node)
            if not (conf_dir() / kind / f"{name}.yaml").is_file():
                store.store(group=kind, name=name, node=node)
    for name in TABLES["datasets"]:
        if not (conf_dir() / "data" / f"{name}.yaml").is_file():
            # A person's own: nothing is known of its pixels, so their statistics are measured.
            store.store(group="data", name=name, node={"name": name, "normalize": "data"})


@cache
def _base_schema() -> type:
    """``Config`` with its components open: each brings its own schema."""
    items = [
        (f.name, Any if f.type is Component else f.type, field(default=None) if f.type is Component else _copy(f))
        for f in fields(Config)
    ]
    return make_dataclass("Config", items)


def _copy(f: Any) -> Any:
    """The field again, for another dataclass."""
    return field(default=f.default, default_factory=f.default_factory, metadata=f.metadata)


def compose(overrides: Sequence[str], config_dir: str | Path | None = None) -> Config:
    """Compose and check one run's configuration; nothing is created.

    Args:
        overrides: Hydra overrides without sweeps, such as ``model=resnet18``.
        config_dir: A person's own folder of configurations, searched beside ours.

    Raises:
        ConfigError: Anything in it is unknown, mistyped, out of range or not allowed.
    """
    return to_config(compose_raw(overrides, config_dir))


def compose_raw(overrides: Sequence[str], config_dir: str | Path | None = None) -> DictConfig:
    """Compose with Hydra's own node included, refusing overrides and Hydra settings that are not allowed."""
    refuse_overrides(parse_overrides(overrides))
    own = own_conf(config_dir)
    extra = [f"hydra.searchpath=[{quoted(f'file://{own}')}]"] if own else []
    try:
        with _hydra_aside(), initialize_config_dir(str(conf_dir().resolve()), version_base="1.3", job_name="cifar-lab"):
            config = hydra_compose("config", overrides=[*overrides, *extra], return_hydra_config=True)
    except (HydraException, OmegaConfBaseException) as error:
        raise explain(error, known_keys()) from error
    _check_hydra(config.hydra, overrides)
    return config


@contextlib.contextmanager
def _hydra_aside() -> Iterator[None]:
    """Put Hydra's one global instance aside: a sweep composes its jobs while Hydra itself is running."""
    holder = GlobalHydra.instance()
    outer, holder.hydra = holder.hydra, None
    try:
        yield
    finally:
        holder.hydra = outer


def _check_hydra(node: DictConfig, overrides: Sequence[str]) -> None:
    """Refuse callbacks, log handlers and foreign ``_target_`` that came in by a file."""
    if node.mode is not None and node.runtime.choices.get("study") is None:
        raise ConfigError(f"hydra.mode={node.mode}: only allowed in a study", hint="-m makes a sweep")
    for name in ("env_set", "env_copy"):
        if node.job[name]:
            raise ConfigError(f"hydra.job.{name}: not allowed, configurations are data")
    for name in ("job.chdir", "output_subdir", "verbose"):
        if OmegaConf.select(node, name):
            raise ConfigError(f"hydra.{name}: not allowed; a run's folder holds what cifar-lab writes, and it stays outside")
    if node.callbacks:
        raise ConfigError(f"hydra.callbacks={list(node.callbacks)}: not allowed, configurations are data")
    for name in ("job_logging", "hydra_logging"):
        if OmegaConf.select(node, f"{name}.handlers"):
            raise ConfigError(f"hydra.{name}: not allowed; every run writes run.log in its folder")
    for name, allowed in _OWN_TARGETS.items():
        target = OmegaConf.select(node, f"{name.removeprefix('hydra.')}._target_")
        if target not in allowed:
            raise ConfigError(f"{name}._target_={target}: not allowed", hint="launchers are chosen by hydra/launcher=NAME")
    settings = OmegaConf.to_container(node.launcher, resolve=False)
    assert isinstance(settings, dict)
    typed = {override.key_or_group: override.value() for override in parse_overrides(overrides)}
    launcher_rules.refuse_settings_of_files({str(key): value for key, value in settings.items()}, typed)


def run_dir(composed: DictConfig) -> Path | None:
    """The run folder that an override or a YAML names; None where nobody does.

    Raises:
        ConfigError: What it refers to is not there, or it is more than data: `${now:...}` is the one resolver allowed.
    """
    text = str(OmegaConf.to_container(composed.hydra.run, resolve=False)["dir"])  # pyrefly: ignore
    if RESOLVER.search(text.replace("${now:", "")):
        raise ConfigError(f"hydra.run.dir={text}: resolvers are not allowed in a value")
    try:
        named = str(composed.hydra.run.dir or "")
    except OmegaConfBaseException as error:
        raise explain(error, known_keys()) from error
    return Path(named) if named.strip() else None


def refers_to(composed: DictConfig, key: str) -> bool:
    """Whether some value may be an interpolation of ``key``; a nested interpolation counts, as it may be one of anything."""
    plain = OmegaConf.to_container(composed, resolve=False)
    assert isinstance(plain, dict)
    text = json.dumps({name: part for name, part in plain.items() if name != "hydra"}, default=str)
    return any(key in inner or "${" in inner for inner in re.findall(r"\$\{([^}]*)", text))


def to_config(composed: DictConfig) -> Config:
    """Lay what Hydra composed strictly over the schemas and turn it into plain, typed Python.

    Raises:
        ConfigError: A key is no field, a value has the wrong type or is out of range.
    """
    plain = OmegaConf.to_container(composed, resolve=False)
    assert isinstance(plain, dict)
    plain.pop("hydra", None)
    _refuse_resolvers(plain, "")
    try:
        plain = OmegaConf.to_container(
            OmegaConf.masked_copy(composed, [str(key) for key in plain]), resolve=True, enum_to_str=True
        )
        assert isinstance(plain, dict)
        parts = {kind: _component(kind, plain.pop(kind)) for kind in COMPONENTS}
        for key in plain:
            _known(key, [f.name for f in fields(Config)], "")
        base = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(_base_schema()), _strict(plain)))
    except OmegaConfBaseException as error:
        raise explain(error, known_keys()) from error
    chosen: dict[str, Any] = {f.name: parts.get(f.name, getattr(base, f.name)) for f in fields(Config)}
    config = Config(**chosen)
    if config.data.name not in TABLES["datasets"]:
        raise ConfigError(
            f"data.name={config.data.name}: unknown data set{did_you_mean(config.data.name, TABLES['datasets'])}",
            hint="`cifar-lab list data` shows all; a plugin adds its own by DATASETS",
        )
    try:
        check(config)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    return config


def from_plain(plain: dict[str, Any], overrides: Sequence[str] = ()) -> Config:
    """A configuration from what config.yaml of a run holds, checked like a composed one; settings that it lacks get defaults.

    Args:
        plain: Nested dicts and plain values.
        overrides: Plain ``key=value`` on top of it.

    Raises:
        ConfigError: A key is no field any more, or a value is not acceptable.
    """
    refuse_overrides(parse_overrides(overrides))
    for text in overrides:
        if isinstance(plain.get(key := text.partition("=")[0]), dict):
            raise ConfigError(f"'{text}': {key} is a group, and here single keys are set", hint=f"for example {key}.name=NAME")
    try:
        node = OmegaConf.merge(OmegaConf.create(plain), OmegaConf.from_dotlist(list(overrides)))
    except OmegaConfBaseException as error:
        raise explain(error, known_keys()) from error
    assert isinstance(node, DictConfig)
    return to_config(node)


def _strict(plain: dict[Any, Any]) -> dict[Any, Any]:
    """Refuse keys of our own parts that are no field; omegaconf does the types."""
    for f in fields(Config):
        if is_dataclass(f.type) and f.type is not Component and isinstance(plain.get(f.name), dict):
            for key in plain[f.name]:
                _known(key, [inner.name for inner in fields(f.type)], f"{f.name}.")
    return plain


def _component(kind: str, plain: Any) -> Component:
    """Check the keys of one component against its signature."""
    if not isinstance(plain, dict) or not isinstance(plain.get("name"), str):
        raise ConfigError(
            f"{kind}={plain}: no {kind} is chosen", hint=f"choose with {kind}=NAME; `cifar-lab list {kind}s` shows all"
        )
    name = plain["name"]
    keys = {key.name: key for key in signature(kind, name).keys}
    for key in plain:
        _known(key, ["name", *keys], f"{kind}.")
    merged = OmegaConf.merge(OmegaConf.structured(schema_of(kind, name)), plain)
    values = OmegaConf.to_container(merged, enum_to_str=True)
    assert isinstance(values, dict)
    settings = {str(key): _value(kind, keys[str(key)], value) for key, value in values.items() if key != "name"}
    return Component(name, settings)


def _value(kind: str, key: Key, value: Any) -> Any:
    """One value of a component in the type that the builder expects."""
    if value == REQUIRED:
        raise ConfigError(f"{kind}.{key.name} has no value", hint=f"give it: {kind}.{key.name}=...")
    if key.is_tuple and value is not None:
        if key.length and len(value) != key.length:
            raise ConfigError(f"{kind}.{key.name}={value}; must have {key.length} values")
        return tuple(value)
    if key.name == "activation" and value not in ACTIVATIONS:
        raise ConfigError(
            f"{kind}.activation={value}: unknown activation{did_you_mean(value, ACTIVATIONS)}",
            hint="`cifar-lab list activations` shows all",
        )
    return value


def _refuse_resolvers(node: Any, prefix: str) -> None:
    """Refuse ``${resolver:...}`` anywhere in a composed configuration, whoever wrote it."""
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in items:
        if isinstance(value, str) and RESOLVER.search(value):
            raise ConfigError(f"{prefix}{key}={value}: resolvers are not allowed in a configuration")
        _refuse_resolvers(value, f"{prefix}{key}.")


def _known(key: Any, allowed: Sequence[str], prefix: str) -> None:
    if key not in allowed:
        raise unknown_key(f"{prefix}{key}", known_keys() | {f"{prefix}{name}": () for name in allowed})
