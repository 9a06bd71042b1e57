"""How the tables grow without a fork: entry points of installed packages, and a person's own file.

Installed packages add rows by entry points (group ``cifar_lab.models``, value ``package.module:function``);
a person's own file adds rows by ``--plugin FILE.py``. Such a file is plain functions plus the same
literal tables that we use::

    def my_net(num_classes: int, width: int = 16, activation: str = "relu"): ...

    MODELS = {"my_net": my_net}

Code is loaded because a person named it on the command line or installed it, never because a
configuration asks for it. The tables are read with ``ast``; the file itself runs when a part of it is built.
"""

import ast
import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Iterable, Sequence
from importlib import metadata
from pathlib import Path
from types import ModuleType

from cifar_lab.errors import ConfigError
from cifar_lab.signatures import parse
from cifar_lab.tables import TABLES

PREFIX = "cifar_lab_plugin_"
_files: dict[str, Path] = {}


class _Finder(importlib.abc.MetaPathFinder):
    """Makes a plugin file importable by name, so that its rows look like all others."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname not in _files:
            return None
        return importlib.util.spec_from_file_location(fullname, _files[fullname])


def plugin_files() -> tuple[Path, ...]:
    """The plugin files in use, in the order in which they were named; part of the code digest."""
    return tuple(_files.values())


def add_entry_points() -> None:
    """Add the rows that installed packages offer.

    Raises:
        ConfigError: Two packages, or a package and we, use the same name.
    """
    offered = metadata.entry_points()  # once: each call reads a file of every installed package
    for kind in TABLES:
        for entry in offered.select(group=f"cifar_lab.{kind}"):
            package = entry.dist.name if entry.dist else "an installed package"
            _add(kind, entry.name, entry.value, package)


def add_all(plugins: Iterable[str | Path] | None = None) -> None:
    """Add what installed packages offer, and then a person's own files; see ``add_entry_points`` and ``add_plugin``."""
    add_entry_points()
    for path in plugins or ():
        add_plugin(path)


def add_plugin(path: str | Path) -> None:
    """Add the rows of a person's own file.

    Args:
        path: A Python file with functions and at least one table (``MODELS``, ``ACTIVATIONS``,
            ``OPTIMIZERS``, ``SCHEDULES``, ``DATASETS`` or ``ANALYSES``): name -> function.

    Raises:
        ConfigError: No such file, no table in it, a row that is no function of the file, or a name in use.
    """
    file = Path(path).resolve()
    if file.suffix != ".py" or not file.is_file():
        raise ConfigError(f"--plugin {path}: no such Python file", hint="name an existing .py file")
    module = f"{PREFIX}{file.stem}"
    if _files.get(module, file) != file:
        raise ConfigError(f"--plugin {path}: another plugin is called {file.name} too", hint="rename one of the files")
    if module in _files:
        return
    if not file.stem.isidentifier():
        raise ConfigError(
            f"--plugin {path}: the file name must be a Python name",
            hint=f"rename it, for example to {file.stem.replace('-', '_')}.py",
        )
    tree = parse(file)
    defined = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    rows = [row for node in tree.body for row in _table_rows(node, file)]
    if not rows:
        raise ConfigError(f"--plugin {path}: no table in it", hint='add for example: MODELS = {"my_net": my_net}')
    for kind, name, function in rows:
        if function not in defined:
            raise ConfigError(f"--plugin {path}: {kind.upper()} row '{name}' names '{function}', which the file does not define")
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.append(_Finder())
    _files[module] = file
    for kind, name, function in rows:
        _add(kind, name, f"{module}:{function}", file.name)


def _table_rows(node: ast.stmt, file: Path) -> list[tuple[str, str, str]]:
    """(kind, name, function) of every row, when ``node`` is ``TABLE = {...}`` at the top of a file."""
    if not (isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name)):
        return []
    kind = node.targets[0].id.lower()
    if kind not in TABLES or node.targets[0].id != kind.upper():
        return []
    rows = []
    pairs = zip(node.value.keys, node.value.values, strict=True) if isinstance(node.value, ast.Dict) else ()
    for key, value in pairs:
        name = key.value if isinstance(key, ast.Constant) else None
        function = value.id if isinstance(value, ast.Name) else value.value if isinstance(value, ast.Constant) else None
        if not isinstance(name, str) or not isinstance(function, str):
            raise ConfigError(f'{file}:{node.lineno}: a row of {kind.upper()} must read "name": function')
        rows.append((kind, name, function))
    if not rows:
        raise ConfigError(f'{file}:{node.lineno}: {kind.upper()} must be a dict such as {{"name": function}}')
    return rows


def _add(kind: str, name: str, row: str, origin: str) -> None:
    table = TABLES[kind]
    if table.get(name, row) != row:
        raise ConfigError(f"{origin}: {kind} already has a '{name}' ({table[name]})", hint="give yours another name")
    table[name] = row
