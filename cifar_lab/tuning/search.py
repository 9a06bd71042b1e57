"""What a search's folder belongs to: saved when it begins, compared when the same command comes again.

outputs/tunes/NAME/tune.json              space, sampler, pruner, fixed settings, seed, code
outputs/tunes/NAME/study.journal          Optuna's own record of all trials (JournalStorage)
outputs/tunes/NAME/trials/0000/           an ordinary run folder
outputs/tunes/NAME/conf/experiment/NAME.yaml   the best configuration
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cifar_lab import runs, storage
from cifar_lab.config import Config
from cifar_lab.errors import CodeError, ConfigError, ResumeError
from cifar_lab.plugins import plugin_files
from cifar_lab.rules import BRING_NO_VAL
from cifar_lab.tables import conf_dir
from cifar_lab.tuning.space import Space, read_space

RECORD, JOURNAL, TRIALS, LOCKS = "tune.json", "study.journal", "trials", ".locks"
_SCHEMA = 1
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
_METRICS = {"val_accuracy": ("accuracy", "maximize"), "val_loss": ("loss", "minimize")}


@dataclass(frozen=True)
class Search:
    """A search, apart from how many trials it is given and who works on it.

    Attributes:
        name: Of its folder and of the experiment that it leaves.
        space: What is searched.
        fixed: Overrides that all trials share.
        sampler: Of ``methods.SAMPLERS``.
        pruner: Of ``methods.PRUNERS``.
        seed: Of the sampler; trials have the ``seed`` of their configuration.
        config_dir: A person's own folder of configurations.
        base: The configuration with the first value of every searched key, as config.yaml holds it.
    """

    name: str
    space: Space
    fixed: tuple[str, ...]
    sampler: str
    pruner: str
    seed: int
    config_dir: str | None
    base: dict[str, Any]

    @property
    def metric(self) -> str:
        """What trials are judged by: ``val_accuracy`` or ``val_loss``."""
        return self.base["train"]["monitor"]

    @property
    def measure(self) -> str:
        """The same in result.json, below ``metrics.val``."""
        return _METRICS[self.metric][0]

    @property
    def direction(self) -> str:
        """``maximize`` or ``minimize``."""
        return _METRICS[self.metric][1]

    def record(self) -> dict[str, Any]:
        """What tune.json holds."""
        return {
            "schema": _SCHEMA,
            "name": self.name,
            "space": self.space.texts(),
            "fixed": list(self.fixed),
            "sampler": self.sampler,
            "pruner": self.pruner,
            "seed": self.seed,
            "metric": self.metric,
            "config_dir": self.config_dir,
            "plugins": [str(path) for path in plugin_files()],
            "code": runs.code_digest(plugin_files()),
            "base": self.base,
        }


def check_name(name: str) -> None:
    """Refuse a name that could not be chosen as an experiment.

    Raises:
        ConfigError: It has other signs than letters, digits, - and _, or one of our experiments has it.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(f"--name {name}: must be letters, digits, - and _, and begin with a letter")
    if (conf_dir() / "experiment" / f"{name}.yaml").is_file():
        raise ConfigError(
            f"--name {name}: there is an experiment of this name", hint="the search saves its best configuration by it"
        )


def check_judged(config: Config) -> None:
    """Refuse a configuration that has nothing to judge its trials by.

    Raises:
        ConfigError: It is certain that there are no validation images, or the best epoch is not chosen by them.
    """
    if config.data.val_fraction == 0 and config.data.name in BRING_NO_VAL:
        raise ConfigError("data.val_fraction=0: trials are judged on validation images", hint="data.val_fraction=0.1")
    if config.train.monitor not in _METRICS:
        raise ConfigError(
            f"train.monitor={config.train.monitor}: trials are judged on validation images", hint=f"one of {', '.join(_METRICS)}"
        )
    if config.train.epochs == 0:
        raise ConfigError("train.epochs=0: a search trains")


def claim(where: Path, search: Search) -> bool:
    """Make the folder this search's, or check that it already is.

    Args:
        where: The folder.
        search: What is asked for now.

    Returns:
        Whether it was there already.

    Raises:
        CodeError: Other code began it.
        ResumeError: It holds another search.
    """
    with storage.FolderLock(where / LOCKS / "desk", wait=True):
        if not (where / RECORD).is_file():
            if (where / JOURNAL).exists():
                raise ResumeError(f"{where} holds a search without its {RECORD}", hint="use another --name")
            storage.write_json(where / RECORD, search.record())
            return False
        old, new = _read(where), search.record()
        if old["code"] != new["code"]:
            raise CodeError(
                f"{where} was begun by other code ({old['code'][:8]} -> {new['code'][:8]})",
                hint="use another --name for a new search, or check out the old code",
                kept="nothing was changed",
            )
        if changed := _changed(old, new):
            raise ResumeError(
                f"{where} holds another search: {'; '.join(changed[:3])}",
                hint="use another --name; --trials, --timeout and --workers may change",
                kept="nothing was changed",
            )
        return True


def _changed(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """What differs, in words; fixed settings by what they compose to, not by how they were typed."""
    changed = []
    for key in dict.fromkeys([*old["space"], *new["space"]]):
        before, now = old["space"].get(key), new["space"].get(key)
        if before != now:
            changed.append(f"{key} is searched as {now or 'nothing'}, was {before or 'not searched'}")
    for key in ("sampler", "pruner", "seed"):
        if old[key] != new[key]:
            changed.append(f"--{key} {new[key]}, was {old[key]}")
    # The first values of the space are in it too; they are named above.
    keys = {key.lstrip("+").partition("@")[0] for key in (*old["space"], *new["space"])}
    for key, before, now in runs.differences(old["base"], new["base"]):
        if not any(key == searched or key.startswith(f"{searched}.") for searched in keys):
            changed.append(f"{key}={now}, was {before}")
    return changed


def _read(where: Path) -> dict[str, Any]:
    path = where / RECORD
    record = storage.read_json(path)
    if not isinstance(record, dict) or record.get("schema") != _SCHEMA:
        raise ResumeError(f"{path} is not one of this version", hint="use another --name")
    return record


def load_search(where: Path) -> Search:
    """Read a search back from its folder, for a worker.

    Raises:
        ResumeError: tune.json is not of this version.
    """
    record = _read(where)
    space, _ = read_space([f"{key}={text}" for key, text in record["space"].items()], record["config_dir"])
    kept = {key: record[key] for key in ("name", "sampler", "pruner", "seed", "config_dir", "base")}
    return Search(space=space, fixed=tuple(record["fixed"]), **kept)
