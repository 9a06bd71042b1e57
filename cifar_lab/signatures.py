"""The keys of a component, read from the source of its builder with ``ast``: nothing is imported.

A builder is a plain function with typed keywords. ``--help``, completion and refused overrides
need its keys within a moment, and importing it would mean importing torch. The allowed
annotations are a closed list, so that every key can be checked and swept: int, float, bool,
str, ``X | None``, ``tuple[X, ...]``, ``tuple[X, X]`` and ``Literal["a", "b"]``.
"""

import ast
import importlib.util
import re
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from cifar_lab.errors import ConfigError

SCALARS: dict[str, type] = {"int": int, "float": float, "bool": bool, "str": str}
REQUIRED = "???"


@dataclass(frozen=True)
class Key:
    """One keyword of a builder.

    Attributes:
        name: The keyword.
        kind: int, float, bool or str; of the elements, for a tuple.
        default: Its default; ``REQUIRED`` when the builder gives none.
        optional: Whether None is legal.
        is_tuple: Whether the value is a tuple of ``kind``.
        length: Number of elements of a tuple, 0 for any.
        choices: The legal words of a ``Literal``, empty for any.
        doc: What the builder's docstring says of it under ``Args:``; empty for nothing.
    """

    name: str
    kind: type
    default: Any
    optional: bool = False
    is_tuple: bool = False
    length: int = 0
    choices: tuple[str, ...] = ()
    doc: str = field(default="", compare=False)


@dataclass(frozen=True)
class Signature:
    """What a builder takes: its keys, the first line of its docstring, and where it stands."""

    row: str
    doc: str
    keys: tuple[Key, ...] = field(default=())


def read_signature(row: str, reserved: tuple[str, ...] = ()) -> Signature:
    """Read the keywords of a builder from its source.

    Args:
        row: ``module:function`` as in the tables.
        reserved: Parameters that we fill in ourselves; they are no keys.

    Raises:
        ConfigError: The module or function is not there, or a parameter has no legal annotation.
    """
    path, definition = _definition(row)
    arguments = definition.args
    positional = [*arguments.posonlyargs, *arguments.args]
    defaults: list[ast.expr | None] = [None] * (len(positional) - len(arguments.defaults)) + list(arguments.defaults)
    pairs = [*zip(positional, defaults, strict=True), *zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)]
    where = f"{path.name}: {definition.name}"
    own = [(argument, default) for argument, default in pairs if argument.arg not in (*reserved, "self")]
    docs = _documented(definition)
    keys = tuple(replace(_key(argument, default, where), doc=docs.get(argument.arg, "")) for argument, default in own)
    return Signature(row, _first_line(definition), keys)


def read_doc(row: str) -> str:
    """The first line of a function's docstring; empty for none.

    Raises:
        ConfigError: The module or function is not there.
    """
    return _first_line(_definition(row)[1])


def _definition(row: str) -> tuple[Path, ast.FunctionDef]:
    """The file and the syntax tree of ``module:function``."""
    module, _, name = row.partition(":")
    path = source_of(module)
    definition = _definitions(path).get(name)
    if definition is None:
        raise ConfigError(f"no function '{name}' in {path}", hint="the row of a table must name a function defined in that file")
    return path, definition


def _first_line(definition: ast.FunctionDef) -> str:
    return (ast.get_docstring(definition) or "").partition("\n")[0]


def _documented(definition: ast.FunctionDef) -> dict[str, str]:
    """Parameter -> what stands behind ``name:`` under ``Args:``; ``a, b: text`` speaks of both."""
    section = re.search(r"^Args:\n((?:[ ]{4}.*\n?|\n)*)", ast.get_docstring(definition) or "", re.MULTILINE)
    entries = re.findall(r"^ {4}(\*{0,2}\w[\w, ]*): (.*(?:\n {5,}.*)*)", section[1] if section else "", re.MULTILINE)
    return {
        name.strip(): " ".join(text.replace("``", "").split()).rstrip(".") for names, text in entries for name in names.split(",")
    }


@cache
def source_of(module: str) -> Path:
    """The file of a module, found without importing any part of it.

    Raises:
        ConfigError: There is no such module, or it has no Python source.
    """
    top, *rest = module.split(".")
    spec = importlib.util.find_spec(top)
    if spec is not None:
        if not rest and spec.origin and spec.origin.endswith(".py"):
            return Path(spec.origin)
        for folder in spec.submodule_search_locations or ():
            base = Path(folder).joinpath(*rest)
            for path in (base.with_suffix(".py"), base / "__init__.py"):
                if path.is_file():
                    return path
    raise ConfigError(f"no Python source for module '{module}'", hint="is the package that offers it installed?")


@cache
def parse(path: Path) -> ast.Module:
    """The syntax tree of a Python file.

    Raises:
        ConfigError: The file cannot be read or does not parse.
    """
    try:
        return ast.parse(path.read_bytes(), filename=str(path))
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None)
        raise ConfigError(f"{path}{f':{line}' if line else ''} is not valid Python: {error.args[0]}") from error
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error


def _definitions(path: Path) -> dict[str, ast.FunctionDef]:
    """Functions of a file by name; a class stands for its ``__init__``."""
    found: dict[str, ast.FunctionDef] = {}
    for node in parse(path).body:
        if isinstance(node, ast.FunctionDef):
            found[node.name] = node
        if isinstance(node, ast.ClassDef):
            for inner in node.body:
                if isinstance(inner, ast.FunctionDef) and inner.name == "__init__":
                    found[node.name] = inner
    return found


def _key(argument: ast.arg, default: ast.expr | None, where: str) -> Key:
    if argument.annotation is None:
        raise ConfigError(f"{where}: parameter '{argument.arg}' has no type", hint=f"write for example '{argument.arg}: int = 3'")
    shape = _shape(argument.annotation)
    if shape is None:
        text = ast.unparse(argument.annotation)
        raise ConfigError(
            f"{where}: parameter '{argument.arg}: {text}' cannot be configured",
            hint='use int, float, bool, str, X | None, tuple[X, ...] or Literal["a", "b"]',
        )
    value: Any = REQUIRED
    if default is not None:
        try:
            value = ast.literal_eval(default)
        except ValueError as error:
            text = ast.unparse(default)
            raise ConfigError(f"{where}: the default of '{argument.arg}' is not a plain value: {text}") from error
    return Key(argument.arg, default=value, **shape)


def _shape(node: ast.expr) -> dict[str, Any] | None:
    """The legal annotation in ``node`` as fields of ``Key``; None for an illegal one."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):  # a quoted annotation
        return _shape(ast.parse(node.value, mode="eval").body)
    if isinstance(node, ast.Name) and node.id in SCALARS:
        return {"kind": SCALARS[node.id]}
    if (
        isinstance(node, ast.BinOp)
        and isinstance(node.op, ast.BitOr)
        and isinstance(node.right, ast.Constant)
        and node.right.value is None
    ):
        inner = _shape(node.left)
        return None if inner is None else {**inner, "optional": True}
    if not isinstance(node, ast.Subscript):
        return None
    base = node.value.attr if isinstance(node.value, ast.Attribute) else getattr(node.value, "id", "")
    items = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
    if base == "Literal" and all(isinstance(i, ast.Constant) and isinstance(i.value, str) for i in items):
        return {"kind": str, "choices": tuple(i.value for i in items)}  # type: ignore[union-attr]
    if base != "tuple" or not items:
        return None
    element, *others = items
    inner = _shape(element)
    if inner is None or set(inner) != {"kind"}:
        return None
    if len(others) == 1 and isinstance(others[0], ast.Constant) and others[0].value is ...:
        return {**inner, "is_tuple": True}
    same = all(ast.dump(other) == ast.dump(element) for other in others)
    return {**inner, "is_tuple": True, "length": len(items)} if same else None
