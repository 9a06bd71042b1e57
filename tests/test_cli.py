"""The program as it is typed: help without torch, lists, --cfg, completion in a real bash."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pexpect
import pytest
from typer.testing import CliRunner

from cifar_lab import listing, schema, tables
from cifar_lab.cli import app
from cifar_lab.signatures import REQUIRED

PROGRAM = Path(sys.executable).parent / "cifar-lab"


def run(*arguments: str, cwd: Path | None = None, **env: str) -> subprocess.CompletedProcess[str]:
    clean = {**os.environ, "COLUMNS": "160", **env}
    return subprocess.run([str(PROGRAM), *arguments], capture_output=True, text=True, cwd=cwd, env=clean)


def modules_after(*arguments: str) -> set[str]:
    """Top-level packages that a command has imported when it ends."""
    script = (
        "import sys, atexit, json\n"
        f"sys.argv = ['cifar-lab', *{list(arguments)!r}]\n"
        "atexit.register(lambda: print('MODULES', json.dumps(sorted({m.split('.')[0] for m in sys.modules}))))\n"
        "from cifar_lab.cli import main\nmain()"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.rpartition("MODULES ")[2]))


def test_help_imports_neither_torch_nor_hydra() -> None:
    assert not {"torch", "hydra", "omegaconf", "numpy", "matplotlib", "sklearn"} & modules_after("--help")


@pytest.mark.parametrize("command", [["list", "models"], ["train", "--help"], ["list", "experiments"], ["--version"]])
def test_listings_do_not_import_torch(command: list[str]) -> None:
    assert "torch" not in modules_after(*command)


@pytest.mark.parametrize(("arguments", "code"), [(["version"], 0), (["list", "nonsense"], 2)])
def test_a_command_that_imported_torch_ends_at_once_and_loses_nothing(arguments: list[str], code: int) -> None:
    script = (
        "import atexit, sys, threading, time, types\n"
        "sys.modules['torch'] = types.ModuleType('torch')\n"
        f"sys.argv = ['cifar-lab', *{arguments!r}]\n"
        "class Slow:\n"
        "    def __del__(self): print('taken apart')\n"
        "slow = Slow()\n"
        "atexit.register(lambda: print('last words', end=''))\n"
        "main_is_over = threading.main_thread().join\n"
        "threading.Thread(target=lambda: (main_is_over(), time.sleep(0.2), print('thread done'))).start()\n"
        "from cifar_lab.cli import main\nmain()"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    assert done.stdout.endswith("thread done\nlast words"), "and nothing after it"


def test_help_is_quick() -> None:
    """Fastest of several, because this machine does other things too; the bound itself is 0.35 s on a quiet one."""
    seconds, bare = [], []
    for _ in range(5):  # by turns: a load that comes or goes meets both
        began = time.perf_counter()
        assert run("--help").returncode == 0
        seconds.append(time.perf_counter() - began)
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", "import typer"], check=True)
        bare.append(time.perf_counter() - began)
    assert min(seconds) < max(0.35, 2.5 * min(bare))


def test_help_shows_commands_and_train_help_shows_groups_keys_and_examples() -> None:
    text = run("--help").stdout
    assert all(word in text for word in ("train", "list", "version", "experiment=quickstart"))
    text = run("train", "--help").stdout
    for word in ("cifar-lab train -m", "--plugin", "small_cnn, ", "train.batch_size=128", "optimizer.betas", "model.kernel_size"):
        assert word.rstrip(", ") in text
    for setting in tables.settings():
        assert setting.key in text
        assert setting.doc


def test_every_key_of_a_component_is_explained() -> None:
    keys = [setting for kind, table in tables.COMPONENTS.items() for name in table for setting in tables.settings(kind, name)]
    assert len(keys) > 100
    assert [setting.key for setting in keys if not setting.doc] == []


@pytest.mark.parametrize(("kind", "name"), [("optimizer", "adam"), ("model", "small_cnn"), ("schedule", "step")])
def test_a_default_is_shown_as_it_is_typed(
    kind: str, name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    schema.register()
    listing.show_train_help()
    section = capsys.readouterr().out.partition(f"Keys of {kind}={name} ")[2].partition("Keys of ")[0]
    typed = [line.split()[0] for line in section.splitlines() if line.startswith(f" {kind}.")]
    defaults = {key.name: key.default for key in tables.signature(kind, name).keys}
    assert [text.partition("=")[0] for text in typed] == [f"{kind}.{key}" for key in defaults]
    given = [text for text in typed if not text.endswith("=(needed)")]
    made = getattr(schema.compose([f"{kind}={name}", *given]), kind).settings
    assert all(made[key] == default for key, default in defaults.items() if default != REQUIRED)


def test_every_group_is_listed_with_a_line_on_each() -> None:
    for what, group in listing.GROUPS.items():
        rows = listing.options(group)
        assert rows, what
        assert all(text.strip() for text in rows.values()), (what, rows)
    assert json.loads(run("list", "activations", "--json").stdout)["relu"] == "torch.nn.ReLU"
    assert "11,173,962 parameters" in run("list", "models").stdout
    wrong = run("list", "modles")
    assert wrong.returncode == 2
    assert "did you mean 'models'?" in wrong.stderr


def test_cfg_prints_the_composed_configuration(tmp_path: Path) -> None:
    done = run("train", "experiment=d3_small_cnn", "optimizer.lr=0.02", "--cfg", "job", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "lr: 0.02" in done.stdout
    assert "batch_size: 32" in done.stdout
    part = run("train", "--cfg", "job", "--package", "optimizer", cwd=tmp_path)
    assert "name: adam" in part.stdout
    assert "batch_size" not in part.stdout
    assert not list(tmp_path.iterdir())


def test_an_unknown_key_is_answered_without_torch(tmp_path: Path) -> None:
    done = run("train", "optim.ler=0.1", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("cifar-lab: error[E-CONFIG]: unknown key 'optim.ler'")
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    done = run("train", "train.batch_size=0", "--debug", cwd=tmp_path)
    assert done.returncode == 2
    assert "Traceback" in done.stderr


def test_every_command_has_debug_and_only_it_shows_tracebacks() -> None:
    names = {command.name or command.callback.__name__ for command in app.registered_commands if command.callback}
    for name in sorted(names - {"train", "version"}):
        assert "--debug" in CliRunner().invoke(app, [name, "--help"]).output, name
    for flags, shown in (([], False), (["--debug"], True), ([], False)):
        done = CliRunner().invoke(app, ["list", "nonsense", *flags])
        assert done.exit_code == 2
        assert ("Traceback" in done.output) == shown


def test_completion_in_a_real_bash(tmp_path: Path) -> None:
    script = run("--show-completion", "bash", _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1").stdout
    (tmp_path / "completion.sh").write_text(script)
    env = {**os.environ, "PATH": f"{PROGRAM.parent}:{os.environ['PATH']}", "PS1": "$ ", "TERM": "dumb"}
    shell = pexpect.spawn(
        "bash", ["--norc", "--noprofile"], cwd=str(tmp_path), env=env, encoding="utf-8", timeout=60, dimensions=(50, 200)
    )
    # A name a line: the order of columns changes with every new name.
    settings = ("bell-style none", "show-all-if-ambiguous on", "completion-display-width 0")
    binds = "; ".join(f"bind 'set {setting}'" for setting in settings)
    shell.sendline(f'source completion.sh; {binds}; echo rea""dy')
    shell.expect("ready")
    shell.send("cifar-lab train model=\t")
    shell.expect("resnet18")
    shell.expect("small_cnn")
    shell.send("sm\t")
    shell.expect("small_cnn")
    shell.sendcontrol("u")  # not ^C, which readline handles after it has lost what is typed meanwhile
    shell.send("cifar-lab train model=small_cnn model.act\t")
    shell.expect("ivation=")
    shell.sendcontrol("u")
    shell.sendline("exit")
    shell.expect(pexpect.EOF)
    shell.close()
