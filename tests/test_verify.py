"""Evidence against itself: one changed digit is found, with file and key."""

import json
import re
import shutil
import time
from pathlib import Path

import pytest
from rig import ROOT

from cifar_lab import reference, storage
from cifar_lab.cli import app
from cifar_lab.errors import CheckpointError
from cifar_lab.verify import verify

COMMITTED = ROOT / reference.REFERENCE


@pytest.fixture
def evidence(tmp_path) -> Path:
    return Path(shutil.copytree(COMMITTED / "d3_small_cnn", tmp_path / "reference" / "d3_small_cnn"))


def seal(folder: Path) -> None:
    """Somebody who changes a number and its digest too."""
    files = sorted(p for p in folder.iterdir() if p.name != "SHA256SUMS")
    (folder / "SHA256SUMS").write_text("".join(f"{storage.sha256_file(p)}  {p.name}\n" for p in files))


def change_digit(path: Path, pattern: str) -> None:
    """Raise the last digit of the first number that the pattern's group finds, 9 to 8."""
    text = path.read_text()
    match = re.search(pattern, text, re.DOTALL)
    assert match is not None, pattern
    digit = match[1][-1]
    end = match.end(1)
    path.write_text(text[: end - 1] + ("8" if digit == "9" else str(int(digit) + 1)) + text[end:])


def test_all_that_is_committed_agrees_and_quickly():
    began = time.perf_counter()
    names, problems = verify(COMMITTED, ROOT / "README.md")
    assert problems == []
    assert set(names) >= {"quickstart", "d3_small_cnn", "d4_dense_dnn"}
    assert time.perf_counter() - began < 30


@pytest.mark.parametrize("name", ["result.json", "metrics.jsonl", "environment.json", "config.yaml", "command.txt"])
def test_a_changed_digit_in_any_file_is_found(evidence, name):
    change_digit(evidence / name, r"(\d)")
    problems = verify(evidence)[1]
    assert any(p.file == str(evidence / name) and "sha256 mismatch" in p.text for p in problems)


@pytest.mark.parametrize(
    ("name", "pattern", "key"),
    [
        ("result.json", r'"test": \{[^}]*?"accuracy": (0\.\d+)', "metrics.test.accuracy"),
        ("result.json", r'"test": \{[^}]*?"f1_macro": (0\.\d{6})', "metrics.test.f1_macro"),
        ("result.json", r'"test": \{.*?"name": "cat",\s*"precision": (0\.\d{6})', "metrics.test.per_class.cat.precision"),
        ("result.json", r'"val": \{[^}]*?"accuracy": (0\.\d+)', "metrics.val.accuracy"),
        ("result.json", r'"train_s": (\d+)', "cost.train_s"),
        ("result.json", r'"epochs_done": (\d+)', "epochs_done"),
        ("result.json", r'"seed": (\d+)', "seed"),
        ("config.yaml", r"batch_size: (\d+)", ""),
    ],
)
def test_a_changed_digit_is_found_even_where_the_digests_were_changed_with_it(evidence, name, pattern, key):
    result = evidence / "result.json"
    result.write_text(json.dumps(json.loads(result.read_text()), indent=1))
    seal(evidence)
    assert verify(evidence)[1] == []
    change_digit(evidence / name, pattern)
    seal(evidence)
    problems = verify(evidence)[1]
    assert key in {p.key for p in problems}, [p.line() for p in problems]
    assert {p.file for p in problems} <= {str(evidence / name), str(result)}


def test_files_that_are_gone_or_new_are_found(evidence):
    (evidence / "curves.png").unlink()
    (evidence / "notes.txt").write_text("x")
    texts = {Path(p.file).name: p.text for p in verify(evidence)[1]}
    assert texts == {"curves.png": "is not there", "notes.txt": "is not listed in SHA256SUMS"}
    (evidence / "SHA256SUMS").unlink()
    assert "SHA256SUMS: is not there" in [p.line().rpartition("/")[2] for p in verify(evidence)[1]]


def test_a_changed_readme_or_header_is_found(evidence, tmp_path, monkeypatch):
    where = evidence.parent
    readme = tmp_path / "README.md"
    readme.write_text(f"{reference.MARKS[0]}\n{reference.table(reference.rows(where))}\n{reference.MARKS[1]}\n")
    headers = tmp_path / "conf" / "experiment"
    headers.mkdir(parents=True)
    (headers / "d3_small_cnn.yaml").write_text("# published: no number given (D3)\n# ours: 38.41 % (n = 1)\n")
    for module in ("verify", "reference"):
        monkeypatch.setattr(f"cifar_lab.{module}.conf_dir", lambda: tmp_path / "conf")
    assert verify(where, readme)[1] == []
    change_digit(readme, r"(38\.4\d)")
    (problem,) = verify(where, readme)[1]
    assert (problem.file, problem.key) == (str(readme), "`d3_small_cnn`")
    readme.write_text(f"{reference.MARKS[0]}\n{reference.table(reference.rows(where))}\n{reference.MARKS[1]}\n")
    (headers / "d3_small_cnn.yaml").write_text("# ours: 38.42 % (n = 1)\n")
    problems = {p.key: p.text for p in verify(where, readme)[1]}
    assert problems["# ours"] == "38.42 %, the evidence has 38.41"


def test_the_command_exits_with_4_and_names_file_and_key(evidence, capsys):
    change_digit(evidence / "result.json", r'"seed": (\d+)')
    with pytest.raises(SystemExit) as ended:
        app(["verify", str(evidence)])
    assert ended.value.code == 4
    said = capsys.readouterr()
    assert "result.json: seed: 1, config.yaml says 0" in said.out
    assert "2 things do not agree" in said.err
    with pytest.raises(SystemExit) as ended:
        app(["verify", str(evidence), "--json"])
    problems = json.loads(capsys.readouterr().out)["problems"]
    assert {p["key"] for p in problems} == {"", "seed"}


def test_a_folder_without_evidence_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="no evidence is there"):
        verify(tmp_path)
