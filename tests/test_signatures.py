"""Keys read from source equal what Python itself says about the imported function."""

import inspect
import pkgutil
import types
import typing

import pytest

from cifar_lab.errors import ConfigError
from cifar_lab.signatures import REQUIRED, Key, parse, read_signature
from cifar_lab.tables import COMPONENTS, RESERVED


def described(annotation: object) -> dict[str, object]:
    """The annotation of an imported function in the terms of ``Key``."""
    if isinstance(annotation, types.UnionType):
        inner, none = typing.get_args(annotation)
        assert none is type(None)
        return {**described(inner), "optional": True}
    if typing.get_origin(annotation) is typing.Literal:
        return {"kind": str, "choices": typing.get_args(annotation)}
    if typing.get_origin(annotation) is tuple:
        elements = typing.get_args(annotation)
        return {"kind": elements[0], "is_tuple": True, "length": 0 if elements[1] is ... else len(elements)}
    return {"kind": annotation}


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, table in COMPONENTS.items() for name in table])
def test_reading_source_equals_inspecting_the_imported_function(kind: str, name: str) -> None:
    row = COMPONENTS[kind][name]
    function = pkgutil.resolve_name(row)
    expected = [
        Key(p.name, default=REQUIRED if p.default is p.empty else p.default, **described(p.annotation))
        for p in inspect.signature(function).parameters.values()
        if p.name not in RESERVED[kind]
    ]
    read = read_signature(row, RESERVED[kind])
    assert list(read.keys) == expected
    assert read.doc == inspect.getdoc(function).partition("\n")[0]


@pytest.fixture
def module(tmp_path, monkeypatch):
    def write(text: str) -> str:
        (tmp_path / "written.py").write_text(text)
        parse.cache_clear()
        monkeypatch.syspath_prepend(str(tmp_path))
        return "written"

    from cifar_lab.signatures import source_of

    source_of.cache_clear()
    yield write
    source_of.cache_clear()


def test_all_allowed_annotations(module) -> None:
    name = module(
        "from typing import Literal\n"
        "def f(a: int, b: float = 1e-3, c: bool = True, d: str = 'x', e: int | None = None, f: tuple[int, ...] = (1, 2),\n"
        "      g: tuple[float, float] = (0.9, 0.99), *, h: Literal['p', 'q'] = 'p', i: 'int' = 3, j: float = -1.0): ...\n"
    )
    assert read_signature(f"{name}:f").keys == (
        Key("a", int, REQUIRED),
        Key("b", float, 1e-3),
        Key("c", bool, True),
        Key("d", str, "x"),
        Key("e", int, None, optional=True),
        Key("f", int, (1, 2), is_tuple=True),
        Key("g", float, (0.9, 0.99), is_tuple=True, length=2),
        Key("h", str, "p", choices=("p", "q")),
        Key("i", int, 3),
        Key("j", float, -1.0),
    )


def test_a_class_stands_for_its_constructor(module) -> None:
    name = module("class Net:\n    def __init__(self, num_classes: int, width: int = 8): ...\n")
    assert read_signature(f"{name}:Net", ("num_classes",)).keys == (Key("width", int, 8),)


@pytest.mark.parametrize(
    ("parameter", "words"),
    [
        ("a", "parameter 'a' has no type"),
        ("a: dict = None", "parameter 'a: dict' cannot be configured"),
        ("a: list[int] = None", "cannot be configured"),
        ("a: tuple[int, str] = (1, 'x')", "cannot be configured"),
        ("a: int = len('xy')", "the default of 'a' is not a plain value: len('xy')"),
    ],
)
def test_what_cannot_be_configured_is_named(module, parameter: str, words: str) -> None:
    name = module(f"def f({parameter}): ...\n")
    with pytest.raises(ConfigError, match=r"written\.py: f") as caught:
        read_signature(f"{name}:f")
    assert words in caught.value.what
    assert caught.value.exit_code == 2


def test_missing_module_function_and_broken_source(module) -> None:
    name = module("def f(: ...\n")
    with pytest.raises(ConfigError, match=r"written\.py:1 is not valid Python"):
        read_signature(f"{name}:f")
    with pytest.raises(ConfigError, match="no Python source for module 'no_such_module'"):
        read_signature("no_such_module:f")
    with pytest.raises(ConfigError, match="no function 'nope'"):
        read_signature("cifar_lab.models.small_cnn:nope")
