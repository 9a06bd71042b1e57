"""What can stand next in a `cifar-lab train` line: Hydra's completion engine, plus the values that we know.

Bash splits words at ``=``, zsh and fish do not; both forms come in here, and each gets an answer
in its own form.
"""

import contextlib
import io
from collections.abc import Sequence

FLAGS = (
    *("--plugin", "--config-dir", "--multirun", "--dry-run", "--redo", "--cfg", "--package", "--resolve", "--info", "--debug"),
    "--help",
)
FLAGS_WITH_VALUE = ("--plugin", "--config-dir", "-cd", "--cfg", "-c", "--package", "-p", "--info", "-i")


def complete(words: Sequence[str], incomplete: str) -> list[str]:
    """Completions for the word under the cursor.

    Args:
        words: The words after ``cifar-lab train`` before the cursor, possibly split at ``=``.
        incomplete: The word under the cursor so far.
    """
    if incomplete.startswith("-"):
        return [flag for flag in FLAGS if flag.startswith(incomplete)]
    before, split = list(words), False
    if not incomplete and _is_key(before):  # bash, cursor right behind "key=": typer drops a "=" that stands alone
        split, incomplete = True, f"{before.pop()}="
    elif len(before) >= 2 and before[-1] == "=":  # bash, "key=val"
        before.pop()
        split, incomplete = True, f"{before.pop()}={incomplete}"
    found = _values(incomplete, before) or _hydra(incomplete, before)
    return [word.partition("=")[2] for word in found] if split else found


def _is_key(before: Sequence[str]) -> bool:
    """Whether the last word is the left side of an override whose ``=`` was dropped; a whole one holds a ``=``."""
    *earlier, last = before or [""]
    follows_flag = bool(earlier) and (earlier[-1] == "=" or earlier[-1] in FLAGS_WITH_VALUE)
    return bool(last) and "=" not in last and not last.startswith("-") and not follows_flag


def _values(word: str, before: Sequence[str]) -> list[str]:
    """``key=value`` for settings with a closed set of values."""
    key, equals, start = word.partition("=")
    if not equals or "." not in key:
        return []
    return [f"{key}={v}" for v in choices(key, _chosen(key.partition(".")[0], before)) if v.startswith(start)]


def choices(key: str, component: str | None = None) -> tuple[str, ...]:
    """The closed set of values of a dotted key, empty when it has none.

    Args:
        key: Such as ``train.precision`` or ``model.activation``.
        component: Which component, when the key belongs to one and it is known.
    """
    from cifar_lab.tables import COMPONENTS, settings

    group = key.partition(".")[0]
    names = ([component] if component in COMPONENTS[group] else list(COMPONENTS[group])) if group in COMPONENTS else []
    known = [s for name in names for s in settings(group, name)] if names else settings()
    for setting in known:
        if setting.key == key:
            return setting.choices or (("true", "false") if setting.type == "bool" else ())
    return ()


def _chosen(group: str, before: Sequence[str]) -> str | None:
    """The component that an earlier word chose, ``resnet18`` for ``model=resnet18``."""
    return next((w.partition("=")[2] for w in reversed(_joined(before)) if w.startswith(f"{group}=")), None)


def _joined(words: Sequence[str]) -> list[str]:
    """Overrides among the words, put together again where bash split them at ``=``."""
    return [w for w in "\n".join(words).replace("\n=\n", "=").split("\n") if "=" in w and not w.startswith("-")]


def _hydra(word: str, before: Sequence[str]) -> list[str]:
    """What Hydra's own engine knows: groups, their options, keys."""
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.plugins.completion_plugin import DefaultCompletionPlugin

    from cifar_lab import schema
    from cifar_lab.tables import conf_dir

    schema.register()
    with contextlib.redirect_stdout(io.StringIO()), initialize_config_dir(str(conf_dir().resolve()), version_base="1.3"):
        engine = DefaultCompletionPlugin(GlobalHydra.instance().config_loader())
        found = engine._query(config_name="config", line=" ".join([*_joined(before), word]))
    return [w for w in found if not w.startswith(("hydra", "schema"))]
