"""What a person types behind `train`: read with Hydra's grammar, and refused where a configuration would be more than data."""

import re
from collections.abc import Sequence
from pathlib import Path

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.utils import create_config_search_path
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from cifar_lab.errors import ConfigError
from cifar_lab.tables import COMPONENTS, conf_dir, own_conf

GROUPS = ("data", "augment", "model", "optimizer", "schedule", "train", "tracker", "ablation")
_CODE_KEYS = ("hydra.callbacks", "hydra.job_logging", "hydra.hydra_logging", "hydra.searchpath", "hydra.output_subdir")
HYDRA_KEYS = ("hydra.run.dir", "hydra.sweep.dir", "hydra/launcher", "hydra.launcher.", "hydra.sweeper.")
_FOLDER_KEYS = ("hydra.run.dir", "hydra.sweep.dir")
RESOLVER = re.compile(r"\$\{\s*[\w.]+\s*:")


def parse_overrides(overrides: Sequence[str], config_dir: str | Path | None = None) -> list[Override]:
    """Parse with Hydra's grammar.

    Args:
        overrides: As a person types them, sweeps too.
        config_dir: A person's own folder of configurations, where ``model=glob(*)`` looks as well.

    Raises:
        ConfigError: One does not parse, or the folder is not there.
    """
    path = create_config_search_path(str(conf_dir().resolve()))
    if own := own_conf(config_dir):
        path.append("command-line", f"file://{own}")
    parser = OverridesParser.create(config_loader=ConfigLoaderImpl(path))
    parsed = []
    for text in overrides:
        try:
            parsed += parser.parse_overrides([text])
        except HydraException as error:
            raise ConfigError(
                f"cannot read the override '{text}'", hint="write key=value; quote values with spaces or commas: 'key=\"a, b\"'"
            ) from error
    return parsed


def refuse_overrides(parsed: Sequence[Override]) -> None:
    """Refuse what no configuration of ours may do, by the look of the override alone."""
    for override in parsed:
        text, key = override.input_line or "", override.key_or_group
        if override.is_delete():
            raise ConfigError(f"'{text}': keys cannot be deleted", hint="0 or null switches a setting off")
        if "_target_" in key or key.startswith(_CODE_KEYS):
            hint = "code comes in by --plugin FILE.py, configurations by --config-dir DIR"
            raise ConfigError(f"'{text}': not allowed, configurations are data", hint=hint)
        if not key:
            raise ConfigError(f"'{text}': there is no key", hint="write key=value")
        if key.partition(".")[0].partition("/")[0] == "hydra" and not key.startswith(HYDRA_KEYS):
            raise ConfigError(f"'{text}': {key} is not allowed", hint="of Hydra's own keys: hydra.run.dir and hydra.sweep.dir")
        if key in _FOLDER_KEYS and not str(override.value() or "").strip():
            raise ConfigError(f"'{text}': must name a folder")
        kind, _, rest = key.partition(".")
        if kind in (*COMPONENTS, "data") and rest == "name":
            hint = f"choose with {kind}=NAME; `cifar-lab list {kind}{'' if kind == 'data' else 's'}` shows all"
            raise ConfigError(f"'{text}': {key} cannot be overridden", hint=hint)
        if key in GROUPS and not override.is_sweep_override() and not isinstance(override.value(), str):
            raise ConfigError(f"'{text}': choose {key} by name", hint=f"{key}=NAME; single settings are {key}.KEY=VALUE")
        if RESOLVER.search(text.replace("${now:", "") if key in _FOLDER_KEYS else text):
            hint = "let the shell fill it in, for example key=$HOME/data"
            raise ConfigError(f"'{text}': resolvers are not allowed in a value", hint=hint)
