"""Who may import whom, and the one door to disk: read from the source, nothing is imported."""

import ast
import graphlib
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE, SHELLS = ROOT / "cifar_lab", ROOT / "hydra_plugins"

BASE = {"config", "errors", "metrics", "signals", "stats", "storage"}
# A room is a module or a package directly below cifar_lab; a package may import itself. What a room may import, by level:
ROOMS: dict[str, set[str]] = {
    "__init__": {"saved"},
    # 0: know nothing of ours but errors
    "config": set(),
    "rules": {"config"},
    "errors": set(),
    "differing": set(),
    "display": set(),
    "cores": set(),
    "memory": set(),
    "metrics": {"errors"},
    "signals": {"errors"},
    "stats": {"errors"},
    "paired": set(),
    "storage": {"errors"},
    "signatures": {"errors"},
    "flags": {"errors"},
    # 1: never each other
    "runtime": BASE,
    "runs": {*BASE, "__init__"},
    "tracking": {*BASE, "display"},
    "data": BASE,
    "models": set(),
    "optim": set(),
    # 2 and 3
    "engine": {*BASE, "runtime"},
    "analysis": {*BASE, "runtime", "engine"},
    # 4: reads folders
    "study": {*BASE, "analysis", "differing", "display", "paired"},
    # 5: settings; the tables of the rooms above are read, their code is not
    "launcher_rules": {"config", "errors"},
    "explain": {"errors", "launcher_rules"},
    "tables": {*BASE, "explain", "signatures", "analysis", "data", "models", "optim"},
    "plugins": {"errors", "signatures", "tables"},
    "schema": {*BASE, "launcher_rules", "rules", "explain", "flags", "models", "overrides", "signatures", "tables"},
    "listing": {*BASE, "display", "explain", "signatures", "tables"},
    "completion": {"errors", "schema", "tables"},
    "overrides": {"errors", "tables"},
    "sweeps": {*BASE, "overrides", "rules", "runs", "schema", "study"},
    "preloaded": {"pipeline", "schema"},
    "processes": {*BASE, "plugins", "schema"},
    "workers": {*BASE, "memory", "pipeline", "processes", "runs", "schema"},
    "sweeping": {*BASE, "plugins", "runs", "study", "sweeps", "workers"},
    "local": {*BASE, "cluster", "display", "plugins", "processes", "runs", "sweeping", "tracking", "workers"},
    "probing": {*BASE, "analysis", "costing", "data", "engine", "optim", "runtime", "schema"},
    "preview": {*BASE, "paired", "display", "local", "processes", "runs", "study", "sweeping", "sweeps"},
    "launching": {*BASE, "cluster", "display", "flags", "parts", "preview", "saved", "study", "sweeping", "sweeps", "underway"},
    "underway": {*BASE},
    # 6: where configuration and parts are joined
    "pretrained": {*BASE, "data", "engine"},
    "parts": {*BASE, "analysis", "data", "engine", "models", "optim", "plugins", "pretrained", "rules", "runtime", "tables"},
    "kept_features": {*BASE, "data"},
    "frozen": {*BASE, "data", "engine", "kept_features", "models", "parts", "plugins", "runs", "runtime"},
    "sittings": {*BASE, "memory", "tracking"},
    "outcome": {*BASE, "analysis", "data", "display", "engine", "frozen", "parts", "runs", "sittings", "tracking"},
    "pipeline": {
        *BASE,
        "data",
        "display",
        "engine",
        "frozen",
        "memory",
        "outcome",
        "parts",
        "plugins",
        "runs",
        "runtime",
        "sittings",
        "tracking",
    },
    "cluster": {*BASE, "cores", "display", "memory", "pipeline", "plugins", "runs", "schema", "sweeping", "workers"},
    "train": {
        *BASE,
        "cluster",
        "cores",
        "display",
        "explain",
        "flags",
        "launcher_rules",
        "listing",
        "overrides",
        "parts",
        "pipeline",
        "plugins",
        "processes",
        "runs",
        "schema",
        "launching",
        "sweeping",
        "sweeps",
        "tables",
    },
    "tuning": {
        *BASE,
        "display",
        "explain",
        "memory",
        "overrides",
        "pipeline",
        "plugins",
        "processes",
        "rules",
        "runs",
        "schema",
        "tables",
        "workers",
    },
    "tune": {*BASE, "cores", "display", "local", "parts", "schema", "sweeping", "tuning"},
    "reference": {*BASE, "runs", "tables"},
    "verify": {*BASE, "reference", "runs", "saved", "tables"},
    "rerun": {*BASE, "display", "pipeline", "plugins", "reference", "runs", "runtime", "saved", "schema"},
    "saved": {*BASE, "data", "engine", "models"},
    "costing": {*BASE, "analysis", "models", "optim", "parts", "runtime", "saved"},
    "benching": {*BASE, "analysis", "costing", "data", "optim", "parts", "runtime"},
    "cost_tables": {"display"},
    "comparing": {*BASE, "analysis", "differing", "display", "runs", "saved", "study"},
    "finding": {*BASE, "differing", "display", "explain", "runs"},
    "asking": {*BASE, "data", "display", "engine", "saved"},
    "augmented": {*BASE, "analysis", "data", "parts"},
    "exploring": {*BASE, "analysis", "augmented", "data"},
    "rates": {*BASE, "analysis", "data", "engine", "optim"},
    "robustness": {*BASE, "analysis", "data", "engine", "memory", "runtime", "saved"},
    "analyze": {*BASE, "analysis", "data", "explain", "saved"},
    # 7
    "cli": {
        *(
            "__init__",
            "analyze",
            "asking",
            "benching",
            "comparing",
            "completion",
            "cores",
            "cost_tables",
            "costing",
            "errors",
            "exploring",
            "finding",
        ),
        *(
            "flags",
            "listing",
            "plugins",
            "rates",
            "reference",
            "rerun",
            "robustness",
            "saved",
            "schema",
            "storage",
            "train",
            "tune",
        ),
        *("analysis", "data", "display", "runtime", "study", "verify"),
    },
}
HYDRA = {"overrides", "schema", "sweeps", "train", "explain", "completion", "tuning"}
"""Rooms that know that Hydra exists, beside the plug-in shells."""
TORCHLESS = {
    "cores",
    "saved",
    "cli",
    "config",
    "differing",
    "display",
    "errors",
    "explain",
    "finding",
    "flags",
    "launcher_rules",
    "listing",
    "plugins",
    "runs",
    "signals",
    "signatures",
    "paired",
    "stats",
    "storage",
    "study",
    "tables",
}
"""Rooms whose modules import no torch at their top: --help, completion and refusals answer without it."""

DOOR = "cifar_lab/storage/"
# What stands outside the door all the same, by name.
EXCEPTIONS = {
    ("cifar_lab/data/cifar.py", "pickle"): "CIFAR's own files are pickles; a restricted Unpickler reads them",
    ("cifar_lab/display.py", "os.open"): "/dev/null in place of a closed pipe",
    ("cifar_lab/errors.py", "os.open"): "/dev/null in place of a closed pipe",
    ("cifar_lab/processes.py", "Path(os.devnull).open"): "/dev/null in place of the terminal",
    ("cifar_lab/memory.py", "os.open"): "a switch of the kernel below /proc",
    ("cifar_lab/storage/listed.py", "torch.load"): "weight files whose SHA-256 is on the list, with weights_only",
}


@cache
def sources() -> dict[str, ast.Module]:
    """Syntax trees of the package and the plug-in shells by path below the repository."""
    paths = [*PACKAGE.rglob("*.py"), *SHELLS.rglob("*.py")]
    return {path.relative_to(ROOT).as_posix(): ast.parse(path.read_text(encoding="utf-8")) for path in sorted(paths)}


def room_of(path: str) -> str:
    """``engine`` for cifar_lab/engine/fit.py, ``reference`` for cifar_lab/reference.py."""
    return path.removesuffix(".py").split("/")[1]


def imports(path: str, tree: ast.AST) -> Iterator[str]:
    """Dotted names of everything imported, wherever it stands; ``from a import b`` counts as ``a.b``."""
    package = path.removesuffix(".py").split("/")[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package[: len(package) - node.level + 1] if node.level else []
            yield from (".".join([*parents, *filter(None, [node.module]), alias.name]) for alias in node.names)


def rooms_imported(path: str, tree: ast.AST) -> set[str]:
    """Our rooms that a module imports; a name of the package itself, such as its version, is ``__init__``."""
    found = set()
    for name in imports(path, tree):
        head, *rest = name.split(".")
        if head == "cifar_lab":
            known = bool(rest) and ((PACKAGE / rest[0]).is_dir() or (PACKAGE / f"{rest[0]}.py").is_file() or rest[0] in ROOMS)
            found.add(rest[0] if known else "__init__")
    return found


def forbidden_imports(path: str, tree: ast.AST) -> set[str]:
    """Rooms that a module imports and must not."""
    return rooms_imported(path, tree) - ROOMS[room_of(path)] - {room_of(path)}


WRITING = re.compile(r"^(?=.*[wax+])[rwaxbt+]+$")
DOORLESS_MODULES = {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve", "tempfile"}
DOORLESS_NAMES = {
    *("torch.save", "torch.load", "yaml.load", "yaml.load_all", "yaml.unsafe_load", "yaml.full_load"),
    *("safetensors.torch.save_file", "hydra.utils.instantiate", "hydra.utils.call", "eval", "exec"),
}
DOORLESS_METHODS = {"write_text", "write_bytes", "extractall", "instantiate", "save_file", "unsafe_load"}
OPENING_FLAGS = {"O_WRONLY", "O_RDWR", "O_CREAT", "O_APPEND", "O_TRUNC"}


def beside_the_door(path: str, tree: ast.AST) -> set[str]:
    """What a module does that only ``storage`` may do."""
    found = {name for name in imports(path, tree) if name in DOORLESS_NAMES}
    found |= {name.split(".")[0] for name in imports(path, tree)} & DOORLESS_MODULES
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        last = name.rsplit(".", 1)[-1]
        values = [*node.args, *(keyword.value for keyword in node.keywords)]
        if name in ("open", "io.open"):
            values = values[1:]  # the first is the file
        strings = [v.value for v in values if isinstance(v, ast.Constant) and isinstance(v.value, str)]
        if name in DOORLESS_NAMES or (last in DOORLESS_METHODS and "." in name and not name.startswith("storage.")):
            found.add(name)
        elif name == "os.open":
            if any(flag in ast.unparse(value) for value in values for flag in OPENING_FLAGS):
                found.add(name)
        elif last in ("open", "fdopen") and name != "storage.open":
            unknown = name in ("open", "io.open") and [v for v in node.args[1:] if not isinstance(v, ast.Constant)]
            if unknown or any(WRITING.match(string) for string in strings):
                found.add(name)
        elif any(k.arg == "allow_pickle" and ast.unparse(k.value) != "False" for k in node.keywords):
            found.add("allow_pickle")
    return found


# The package


def test_every_room_is_in_the_table():
    rooms = {room_of(path) for path in sources() if path.startswith("cifar_lab/")}
    assert rooms - set(ROOMS) == set(), "a new room needs a line in ROOMS"
    assert {"config", "engine", "storage", "train"} <= rooms


@pytest.mark.parametrize("path", [path for path in sources() if path.startswith("cifar_lab/")])
def test_imports_go_one_way(path):
    assert forbidden_imports(path, sources()[path]) == set()


def test_the_table_has_no_circle():
    order = list(graphlib.TopologicalSorter(ROOMS).static_order())
    assert order[-1] == "cli" or order.index("cli") > order.index("train")
    assert set(order) == set(ROOMS)


def test_level_one_rooms_do_not_know_each_other():
    rooms = ("runtime", "runs", "tracking", "data", "models", "optim")
    assert all(not (ROOMS[one] & set(rooms)) for one in rooms)


def test_hydra_is_known_to_few():
    knows = {
        path
        for path, tree in sources().items()
        if {name.split(".")[0] for name in imports(path, tree)} & {"hydra", "omegaconf"} and not path.startswith("hydra_plugins/")
    }
    assert {room_of(path) for path in knows} <= HYDRA
    assert "cifar_lab/schema.py" in knows, "the check looks at something"


def top_level_imports(path: str, tree: ast.Module) -> set[str]:
    nodes = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    return {name.split(".")[0] for name in imports(path, ast.Module(body=list(nodes), type_ignores=[]))}


def test_what_must_answer_quickly_imports_no_torch():
    slow = {path for path, tree in sources().items() if room_of(path) in TORCHLESS and "torch" in top_level_imports(path, tree)}
    assert slow == set()
    shells = {path for path, tree in sources().items() if path.startswith("hydra_plugins/")}
    assert not [path for path in shells if "torch" in top_level_imports(path, sources()[path])]


@pytest.mark.parametrize("path", sources())
def test_only_storage_writes(path):
    if path.startswith(DOOR):
        return
    found = beside_the_door(path, sources()[path])
    assert {name for name in found if (path, name) not in EXCEPTIONS} == set()


def test_every_exception_is_still_needed():
    trees = sources()
    assert [pair for pair in EXCEPTIONS if pair[1] not in beside_the_door(pair[0], trees[pair[0]])] == []


def test_storage_itself_unpickles_and_evaluates_nothing():
    trees = {path: tree for path, tree in sources().items() if path.startswith(DOOR)}
    assert trees
    for path, tree in trees.items():
        found = {name for name in beside_the_door(path, tree) if (path, name) not in EXCEPTIONS}
        assert {name.rsplit(".", 1)[-1] for name in found} <= {"open"}, path


def test_the_one_unpickler_of_weights_takes_weights_only():
    trees = {path: tree for path, tree in sources().items() if "torch.load" in beside_the_door(path, tree)}
    assert list(trees) == ["cifar_lab/storage/listed.py"]
    calls = [node for tree in trees.values() for node in ast.walk(tree) if isinstance(node, ast.Call)]
    loads = [node for node in calls if ast.unparse(node.func) == "torch.load"]
    assert len(loads) == 1
    assert {k.arg: ast.unparse(k.value) for k in loads[0].keywords}["weights_only"] == "True"


# The checks can fail


@pytest.mark.parametrize(
    ("path", "code", "found"),
    [
        ("cifar_lab/models/a.py", "from cifar_lab.errors import LabError", {"errors"}),
        ("cifar_lab/models/a.py", "from ..errors import LabError", {"errors"}),
        ("cifar_lab/models/a.py", "from .. import storage", {"storage"}),
        ("cifar_lab/models/a.py", "from . import layers\nfrom .build import x\nimport cifar_lab.models.build", set()),
        ("cifar_lab/data/a.py", "import cifar_lab.engine.fit as f", {"engine"}),
        ("cifar_lab/data/a.py", "def f():\n    from cifar_lab import runs, storage", {"runs"}),
        ("cifar_lab/engine/a.py", "from cifar_lab.data.batches import Batches", {"data"}),
        ("cifar_lab/engine/a.py", "from cifar_lab import __version__", {"__init__"}),
        ("cifar_lab/storage/a.py", "if True:\n    from cifar_lab.config import Config", {"config"}),
        ("cifar_lab/cli/training.py", "from cifar_lab.train import main", set()),
    ],
)
def test_the_check_of_imports_sees(path, code, found):
    assert forbidden_imports(path, ast.parse(code)) == found


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("open('a', 'w')", {"open"}),
        ("open('a', mode='ab')", {"open"}),
        ("open(name, mode)", {"open"}),
        ("path.open('r+b')", {"path.open"}),
        ("Path('a').open(mode='x')", {"Path('a').open"}),
        ("os.fdopen(3, 'w')", {"os.fdopen"}),
        ("os.open(path, os.O_WRONLY | os.O_CREAT)", {"os.open"}),
        ("tarfile.open('a.tar', 'w')", {"tarfile.open"}),
        ("path.write_text('x')", {"path.write_text"}),
        ("Path('a').write_bytes(b'')", {"Path('a').write_bytes"}),
        ("torch.save(x, 'a.pt')", {"torch.save"}),
        ("torch.load('a.pt', weights_only=True)", {"torch.load"}),
        ("from torch import load", {"torch.load"}),
        ("import pickle", {"pickle"}),
        ("def f():\n    from pickle import loads", {"pickle"}),
        ("import tempfile", {"tempfile"}),
        ("archive.extractall('x')", {"archive.extractall"}),
        ("yaml.load(text, Loader=yaml.Loader)", {"yaml.load"}),
        ("yaml.unsafe_load(text)", {"yaml.unsafe_load"}),
        ("eval('1')", {"eval"}),
        ("exec('1')", {"exec"}),
        ("hydra.utils.instantiate(c)", {"hydra.utils.instantiate"}),
        ("from hydra.utils import instantiate", {"hydra.utils.instantiate"}),
        ("safetensors.torch.save_file(t, 'a')", {"safetensors.torch.save_file"}),
        ("np.load('a.npy', allow_pickle=True)", {"allow_pickle"}),
        # what is fine
        ("open('a')\nopen('a', 'rb')\nopen('a', encoding='utf-8')\npath.open('rb')\npath.open()", set()),
        ("tarfile.open(path)\ntarfile.open(path, 'r|gz')\nImage.open(stream)", set()),
        ("os.open(path, os.O_RDONLY)\nmodel.eval()\nyaml.safe_load(t)\nnp.load(p, allow_pickle=False)", set()),
        ("storage.write_text(path, text)\nstorage.write_bytes(path, b'')\nstorage.open_log(path)", set()),
        ("safetensors.torch.save(t)\nsafetensors.torch.load(d)\npath.read_bytes()", set()),
    ],
)
def test_the_check_of_the_door_sees(code, found):
    assert beside_the_door("cifar_lab/engine/a.py", ast.parse(code)) == found
