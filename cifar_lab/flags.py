"""The flags of `cifar-lab train`, told apart from Hydra overrides wherever they stand in the line."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from cifar_lab.errors import ConfigError

_SWITCHES = {
    "-m": "multirun",
    "--multirun": "multirun",
    "-h": "help",
    "--help": "help",
    "--debug": "debug",
    "--resolve": "resolve",
    "--redo": "redo",
    "--dry-run": "dry_run",
}
_WITH_VALUE = {
    "--plugin": "plugins",
    "--config-dir": "config_dir",
    "-cd": "config_dir",
    "--cfg": "show",
    "-c": "show",
    "--package": "package",
    "-p": "package",
    "--info": "info",
    "-i": "info",
}
_REFUSED = {
    "--config-path": "use --config-dir DIR: it adds to our configurations",
    "-cp": "use --config-dir DIR: it adds to our configurations",
    "--config-name": "use experiment=NAME",
    "-cn": "use experiment=NAME",
    "--experimental-rerun": "run the same command again: it continues in the same folder",
}
_CHOICES = {"show": ("job", "hydra", "all"), "info": ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")}


@dataclass
class Flags:
    """What a command line asked for.

    Attributes:
        overrides: Everything that is no flag, in order.
        plugins: Files named by ``--plugin``.
        config_dir: Folder named by ``--config-dir``, or None.
        multirun: Whether ``-m`` was given.
        help: Whether help was asked for.
        debug: Whether tracebacks go to the screen.
        show: What ``--cfg`` prints, empty for nothing.
        package: Part of the configuration that ``--cfg`` prints.
        resolve: Whether ``--cfg`` resolves interpolations.
        info: What ``--info`` prints, empty for nothing.
        typed: All of it, as it was typed.
        redo: Whether jobs of a sweep that other code ran are run again.
        dry_run: Whether a sweep ends before its first job, with what it would do.
    """

    overrides: list[str] = field(default_factory=list)
    plugins: list[str] = field(default_factory=list)
    config_dir: str | None = None
    multirun: bool = False
    help: bool = False
    debug: bool = False
    show: str = ""
    package: str = ""
    resolve: bool = False
    info: str = ""
    typed: list[str] = field(default_factory=list)
    redo: bool = False
    dry_run: bool = False

    @property
    def study(self) -> str:
        """The study that was named; empty for none."""
        named = [text.partition("=")[2] for text in self.overrides if text.partition("=")[0].lstrip("+") == "study"]
        return named[-1] if named and named[-1] != "null" else ""

    @property
    def is_sweep(self) -> bool:
        """Whether several runs are asked for."""
        return self.multirun or bool(self.study)

    def for_hydra(self) -> list[str]:
        """The same as arguments for Hydra: flags first, then overrides."""
        flags = [flag for flag, on in (("--multirun", self.multirun), ("--resolve", self.resolve)) if on]
        for flag, value in (
            ("--cfg", self.show),
            ("--package", self.package),
            ("--info", self.info),
            ("--config-dir", self.config_dir),
        ):
            flags += [flag, value] if value else []
        return [*flags, *self.overrides]


def parse_flags(arguments: Sequence[str]) -> Flags:
    """Sort flags from overrides; flags may stand anywhere.

    Raises:
        ConfigError: An unknown flag, or one without its value.
    """
    flags, rest = Flags(typed=list(arguments)), list(arguments)
    while rest:
        word = rest.pop(0)
        name, equals, value = word.partition("=")
        if name in _REFUSED:
            raise ConfigError(f"{name} is not supported", hint=_REFUSED[name])
        if word in _SWITCHES:
            setattr(flags, _SWITCHES[word], True)
        elif name in _WITH_VALUE:
            if not equals:
                if not rest or rest[0].startswith("-"):
                    raise ConfigError(f"{name} needs a value", hint="`cifar-lab train --help` shows the flags")
                value = rest.pop(0)
            _store(flags, name, _WITH_VALUE[name], value)
        elif word.startswith("-"):
            raise ConfigError(
                f"unknown flag '{word}'", hint="`cifar-lab train --help` shows the flags; settings are key=value without dashes"
            )
        else:
            flags.overrides.append(word)
    if (flags.package or flags.resolve) and not flags.show:
        raise ConfigError(f"{'--package' if flags.package else '--resolve'} needs --cfg job")
    for name, on in (("--redo", flags.redo), ("--dry-run", flags.dry_run)):
        if on and not flags.is_sweep:
            hint = "a single run is begun anew in another folder" if flags.redo else "--cfg job shows what a single run would be"
            raise ConfigError(f"{name} needs -m or study=NAME: it is about the jobs of a sweep", hint=hint)
    return flags


def quoted(value: object) -> str:
    """A value in Hydra's single quotes, whatever is in it."""
    text = str(value).replace("'", "\\'")
    tail = len(text) - len(text.rstrip("\\"))
    return f"'{text}{chr(92) * tail}'"


def _store(flags: Flags, name: str, field_name: str, value: str) -> None:
    if field_name in _CHOICES and value not in _CHOICES[field_name]:
        raise ConfigError(f"{name} {value}: must be one of {', '.join(_CHOICES[field_name])}")
    if field_name == "plugins":
        flags.plugins.append(value)
    else:
        setattr(flags, field_name, value)
