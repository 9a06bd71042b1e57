"""The rules that make a builder a row: its keywords can be checked, swept and explained, its presets exist."""

import inspect
import pkgutil
import subprocess
import sys
import types
import typing
from pathlib import Path

import pytest
import yaml

import cifar_lab.models as models
import cifar_lab.optim as optim

CONF = Path(__file__).resolve().parents[2] / "conf"
TABLES = {
    "model": (models.MODELS, models.RESERVED),
    "optimizer": (optim.OPTIMIZERS, optim.OPTIMIZER_RESERVED),
    "schedule": (optim.SCHEDULES, optim.SCHEDULE_RESERVED),
}
ROWS = [(kind, name) for kind, (table, _) in TABLES.items() for name in table]
PRESETS = [(path.parent.name, path.stem) for kind in TABLES for path in sorted((CONF / kind).glob("*.yaml"))]
COMMON = {"optimizer": {"decay_all"}}


def keywords_of(kind: str, name: str) -> dict[str, inspect.Parameter]:
    table, reserved = TABLES[kind]
    parameters = inspect.signature(pkgutil.resolve_name(table[name])).parameters
    return {key: p for key, p in parameters.items() if key not in reserved}


def is_allowed(annotation: object) -> bool:
    if annotation in (int, float, bool, str):
        return True
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (types.UnionType, typing.Union):
        return len(args) == 2 and args[1] is type(None) and is_allowed(args[0])
    if origin is tuple:
        return all(a in (int, float, bool, str) or a is ... for a in args)
    return origin is typing.Literal and all(isinstance(a, str) for a in args)


@pytest.mark.parametrize(("kind", "name"), ROWS)
def test_keywords_are_typed_from_the_closed_list_with_plain_defaults_and_explained(kind, name):
    doc = pkgutil.resolve_name(TABLES[kind][0][name]).__doc__
    for key, parameter in keywords_of(kind, name).items():
        assert is_allowed(parameter.annotation), f"{name}: {key}: {parameter.annotation}"
        assert parameter.kind is parameter.KEYWORD_ONLY, f"{name}: {key}"
        assert isinstance(parameter.default, int | float | bool | str | tuple | None), f"{name}: {key}"
        assert f"        {key}: " in doc, f"{name}: {key} is not explained"


@pytest.mark.parametrize(
    ("annotation", "allowed"),
    [
        (int | None, True),
        (tuple[float, float], True),
        (tuple[int, ...], True),
        (typing.Literal["a"], True),
        (list[int], False),
        (dict, False),
        (int | str, False),
        (typing.Literal[1], False),
        (inspect.Parameter.empty, False),
    ],
)
def test_the_closed_list_is_closed(annotation, allowed):
    assert is_allowed(annotation) is allowed


@pytest.mark.parametrize(("kind", "name"), PRESETS)
def test_presets_name_a_row_and_set_only_its_keywords(kind, name):
    text = (CONF / kind / f"{name}.yaml").read_text()
    assert text.startswith("# ")
    preset = yaml.safe_load(text)
    schema = preset.pop("defaults")[0]
    row = schema.removeprefix(f"/schema/{kind}/").removesuffix("@_here_")
    assert row in TABLES[kind][0]
    assert set(preset) <= set(keywords_of(kind, row)) | COMMON.get(kind, set())


@pytest.mark.parametrize(("kind", "name"), ROWS)
def test_every_row_has_a_preset_of_its_name(kind, name):
    assert (kind, name) in PRESETS


def test_the_tables_import_nothing_heavy():
    code = "import sys, cifar_lab.models, cifar_lab.optim; print([m for m in ('torch', 'numpy', 'hydra') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
