"""What there is to choose from: the rows behind `cifar-lab list` and `cifar-lab train --help`.

Everything is read from conf/ and from source, so it is as current as the code and needs no torch.
"""

import json
from collections.abc import Iterable
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from cifar_lab import tables
from cifar_lab.display import LabConsole
from cifar_lab.errors import ConfigError
from cifar_lab.explain import did_you_mean
from cifar_lab.signatures import REQUIRED, read_doc

GROUPS = {
    "experiments": "experiment",
    "models": "model",
    "optimizers": "optimizer",
    "schedules": "schedule",
    "data": "data",
    "augment": "augment",
    "train": "train",
    "trackers": "tracker",
    "studies": "study",
    "ablations": "ablation",
}
"""What `list` can show -> the configuration group it reads."""

EXAMPLES = (
    ("the quick start: real handwriting, no download", "cifar-lab train experiment=quickstart"),
    ("a model, an optimizer, a learning rate", "cifar-lab train model=resnet18 optimizer=sgd_nesterov optimizer.lr=0.1"),
    (
        "a kernel size, an activation, an augmentation",
        "cifar-lab train model.kernel_size=5 model.activation=tanh augment=crop_flip",
    ),
    ("a sweep: 2 x 3 runs", "cifar-lab train -m experiment=quickstart optimizer.lr=0.01,0.001 seed=0,1,2"),
    ("in a folder of your choice; again to continue", "cifar-lab train experiment=quickstart hydra.run.dir=outputs/mine"),
    ("a study: what it asks, then its runs and a report", "cifar-lab train study=small_cnn_kernel 'seed=range(0,10)'"),
    ("your own model", "cifar-lab train --plugin lab.py --config-dir conf model=my_net"),
    ("only show what would run", "cifar-lab train experiment=quickstart --cfg job"),
)
FLAGS = (
    ("-m, --multirun", "run every combination of values given as key=a,b or 'key=range(0,5)'"),
    ("--dry-run", "of a sweep: say what it would run, what its variants change, how long it takes and what it can show"),
    ("--redo", "of a sweep: run again what other code has run"),
    ("--plugin FILE.py", "add your own models, activations, optimizers, ... (may be repeated)"),
    ("--config-dir DIR", "add your own configurations"),
    (
        "--cfg job",
        "print the composed configuration and stop; --package GROUP for a part, --resolve with all references filled in",
    ),
    ("--info config", "print how it was composed and stop; also defaults, defaults-tree, plugins, searchpath, all"),
    ("--debug", "show tracebacks on the screen"),
)


def options(group: str, config_dir: str | None = None) -> dict[str, str]:
    """Names in a configuration group and a line on each.

    Args:
        group: Such as ``model``.
        config_dir: A person's own configurations, shown too.

    Raises:
        ConfigError: ``config_dir`` is not there.
    """
    found: dict[str, str] = {}
    for folder in filter(None, (tables.conf_dir(), tables.own_conf(config_dir))):
        for path in sorted((folder / group).glob("*.yaml")):
            found[path.stem] = first_comment(path)
    for name in tables.COMPONENTS.get(group, ()):
        found.setdefault(name, tables.signature(group, name).doc)
    for name, row in tables.TABLES["datasets"].items() if group == "data" else ():
        if name not in found:
            found[name] = _doc_of(row)
    return found


def _doc_of(row: str) -> str:
    """Empty where the row names no plain function of a file: a class, or what another module defines."""
    try:
        return read_doc(row)
    except ConfigError:
        return ""


def first_comment(path: Path) -> str:
    """The first comment line of a YAML file, its one-line description."""
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("#") and not line.startswith("# @package"):
            return line.lstrip("# ").strip()
    return ""


def show_list(what: str, *, config_dir: str | None = None, as_json: bool = False) -> None:
    """Print one table of names and descriptions.

    Raises:
        ConfigError: ``what`` cannot be listed.
    """
    if what == "activations":
        rows = {name: row.replace(":", ".") for name, row in tables.TABLES["activations"].items()}
    elif what in GROUPS:
        rows = options(GROUPS[what], config_dir)
    else:
        names = [*GROUPS, "activations"]
        raise ConfigError(f"cannot list '{what}'{did_you_mean(what, names)}", hint=f"there are: {', '.join(names)}")
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    key = GROUPS.get(what, "model.activation")
    LabConsole().print(_rows(((name, text) for name, text in rows.items()), f"{what}: choose with {key}=NAME"))


def show_train_help(config_dir: str | None = None) -> None:
    """Print the help of `cifar-lab train`: examples, flags, groups, keys."""
    console = LabConsole()
    console.print("[bold]cifar-lab train[/] \\[flags] \\[group=choice ...] \\[key=value ...]\n")
    console.print("Train, test and measure one model; or, with -m, every combination of the values given.\n")
    console.print("[bold]Examples[/]")
    for text, command in EXAMPLES:  # a command on a line of its own can be copied from a narrow window too
        console.print(f" {escape(text)}:\n   [cyan]{escape(command)}[/]", soft_wrap=True, highlight=False)
    console.print()
    console.print(_rows(FLAGS, "Flags"))
    groups = ((group, ", ".join(options(group, config_dir))) for group in GROUPS.values())
    console.print(_rows(groups, "Groups (group=choice)"))
    console.print(_settings((s for s in tables.settings()), "Keys (key=value)"))
    for kind, table in tables.COMPONENTS.items():
        for name in table:
            console.print(_settings(tables.settings(kind, name), f"Keys of {kind}={name}"))
    console.print(
        "Where things go: hydra.run.dir=FOLDER for a run (default outputs/runs/STAMP_MODEL), hydra.sweep.dir=FOLDER for a sweep."
        "\nThe same command in the same folder continues an interrupted run. Where a sweep runs: hydra/launcher=NAME with -m."
    )


def _settings(rows: Iterable[tables.Setting], title: str) -> Table:
    table = _plain(title, 3)
    for s in rows:
        words = ", ".join(s.choices) if s.choices else s.type
        table.add_row(f"[cyan]{s.key}[/]={escape(_shown(s.default))}", escape(words), escape(s.doc))
    return table


def _shown(default: object) -> str:
    """A default as a person would type it."""
    if default == REQUIRED:
        return "(needed)"
    if default is None:
        return "null"
    if isinstance(default, tuple | list):
        return f"[{','.join(_shown(item) for item in default)}]"
    return str(default).lower() if isinstance(default, bool) else str(default)


def _rows(rows: Iterable[tuple[str, str]], title: str) -> Table:
    table = _plain(title, 2)
    for name, text in rows:
        table.add_row(f"[cyan]{escape(name)}[/]", escape(text))
    return table


def _plain(title: str, columns: int) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=None, show_header=False, padding=(0, 2, 0, 1))
    table.add_column(overflow="fold")
    for _ in range(columns - 1):
        table.add_column(overflow="fold")
    return table
