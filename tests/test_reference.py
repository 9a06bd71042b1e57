"""Evidence of a run: complete, small, consistent, and the only source of the results table."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from rig import SMOKE, Lab

from cifar_lab import reference
from cifar_lab.errors import CheckpointError, ConfigError
from cifar_lab.verify import verify


def test_kept_evidence_counts_to_the_same_accuracy(lab: Lab) -> None:
    assert lab(*SMOKE, "seed=1", "hydra.run.dir=run", "data.root=/some/where/pictures").code == 0
    folder = reference.keep(Path("run"), "quick")
    assert folder == Path("outputs/reference/quick")
    assert (folder / "command.txt").read_text() == f"cifar-lab train {' '.join((*SMOKE, 'seed=1'))}\n"
    assert not (folder / "checkpoints").exists()
    assert not [p for p in folder.iterdir() if b"/some/where" in p.read_bytes()], "a folder of one machine says nothing to others"
    kept, used = (yaml.safe_load((place / "config.yaml").read_text()) for place in (folder, Path("run")))
    assert used["data"].pop("root") == "/some/where/pictures"
    assert kept["data"].pop("root") is None
    assert kept == used
    result = json.loads((folder / "result.json").read_text())
    with np.load(folder / reference.PREDICTIONS, allow_pickle=False) as saved:
        assert (saved["labels"] == saved["predicted"]).mean() == result["metrics"]["test"]["accuracy"]
        assert saved["confidence"].min() >= 0.1
    size = sum(p.stat().st_size for p in folder.iterdir())
    assert size < 300_000


def evidence(folder: Path, seed: int, accuracy: float, overrides: list[str]) -> None:
    folder.mkdir(parents=True)
    environment = {"cpu": "a CPU", "threads": 2}
    cost = {"num_params": 18422, "macs": 632268, "train_s": 150.0}
    result = {"status": "done", "metrics": {"test": {"accuracy": accuracy}}, "cost": cost, "environment": environment}
    result |= {"precision": "fp32", "epochs_done": 20, "model": "small_cnn"}
    (folder / "result.json").write_text(json.dumps(result))
    (folder / "config.yaml").write_text(json.dumps({"seed": seed, "optimizer": {"lr": len(overrides)}}))
    (folder / "overrides.txt").write_text("".join(f"{o}\n" for o in [*overrides, f"seed={seed}"]))


def test_the_table_puts_seeds_together_and_shows_n(tmp_path: Path) -> None:
    for seed, accuracy in enumerate((0.60, 0.62, 0.64)):
        evidence(tmp_path / f"a{seed}", seed, accuracy, ["experiment=d3_small_cnn", "optimizer=adam"])
    evidence(tmp_path / "b", 0, 0.38, ["experiment=d3_small_cnn"])
    lines = reference.table(reference.rows(tmp_path)).splitlines()
    assert len(lines) == 4
    assert "| `d3_small_cnn` | `optimizer=adam` | no number given (D3) | 62.00 % ± 2.00 | 3 | 18,422 | 0.63 M |" in lines[2]
    assert "| 38.00 % | 1 |" in lines[3]


def test_settings_that_are_younger_than_a_run_do_not_part_it_from_its_seeds(tmp_path: Path) -> None:
    for seed, settings in enumerate(
        ({"split": "tail"}, {"split": "tail", "label_noise": 0.0}, {"split": "tail", "label_noise": 0.2})
    ):
        evidence(tmp_path / str(seed), seed, 0.6, ["experiment=d3_small_cnn"])
        path = tmp_path / str(seed) / "config.yaml"
        path.write_text(json.dumps({**json.loads(path.read_text()), "data": settings}))
    assert [len(row.results) for row in reference.rows(tmp_path)] == [2, 1]


def test_epochs_of_seeds_that_stopped_at_different_ones_are_a_range(tmp_path: Path) -> None:
    for seed in (0, 1):
        evidence(tmp_path / str(seed), seed, 0.6, ["experiment=d3_small_cnn"])
    path = tmp_path / "1" / "result.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "epochs_done": 25}))
    assert "| 20 to 25 epochs, " in reference.table(reference.rows(tmp_path))


def test_seeds_of_another_machine_or_precision_have_a_row_of_their_own(tmp_path: Path) -> None:
    """Their training times have no common mean."""
    for name, precision, cpu in (
        ("a", "fp32", "AMD EPYC"),
        ("b", "bf16", "AMD EPYC"),
        ("c", "bf16", "Xeon"),
        ("d", "bf16", "Xeon"),
    ):
        evidence(tmp_path / name, ord(name), 0.6, ["experiment=d3_small_cnn"])
        result = json.loads((tmp_path / name / "result.json").read_text())
        result["precision"] = precision
        result["environment"]["cpu"] = cpu
        (tmp_path / name / "result.json").write_text(json.dumps(result))
    assert [row.names for row in reference.rows(tmp_path)] == [["a"], ["b"], ["c", "d"]]


def test_features_that_were_computed_first_count_as_training(tmp_path: Path) -> None:
    evidence(tmp_path / "a", 0, 0.86, ["experiment=d3_mobilenet_v2"])
    path = tmp_path / "a" / "result.json"
    result = json.loads(path.read_text())
    result["cost"]["features_s"] = 450.0
    path.write_text(json.dumps(result))
    assert "| 20 epochs, 10 min |" in reference.table(reference.rows(tmp_path))


def test_the_table_is_written_between_its_marks_only(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{reference.MARKS[0]}\nold\n{reference.MARKS[1]}\nafter\n")
    assert reference.write_table(readme, "| new |")
    assert readme.read_text() == f"before\n{reference.MARKS[0]}\n| new |\n{reference.MARKS[1]}\nafter\n"
    assert not reference.write_table(readme, "| new |")
    readme.write_text("no marks")
    with pytest.raises(ConfigError, match="has no lines"):
        reference.write_table(readme, "x")


def test_what_is_no_finished_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="is no finished run"):
        reference.keep(tmp_path, "x", tmp_path / "reference")
    with pytest.raises(ConfigError, match="must be letters"):
        reference.keep(tmp_path, "../x", tmp_path / "reference")


def test_what_a_killed_keep_left_is_no_evidence(tmp_path: Path) -> None:
    evidence(tmp_path / "a", 0, 0.5, ["experiment=d3_small_cnn"])
    for name in (".tmp-0123", "a.previous"):
        shutil.copytree(tmp_path / "a", tmp_path / name)
    assert [path.name for path in reference.folders(tmp_path)] == ["a"]
    assert [len(row.results) for row in reference.rows(tmp_path)] == [1]
    (tmp_path / ".tmp-0123" / "config.yaml").unlink()
    reference.rows(tmp_path)
    assert verify(tmp_path)[0] == ["a"]


def test_this_readme_holds_the_table_of_the_committed_evidence() -> None:
    from rig import ROOT

    text = reference.table(reference.rows(ROOT / reference.REFERENCE))
    assert text in (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", [".", "..", ".hidden", "a/b", ""])
def test_evidence_never_replaces_a_folder_by_accident(tmp_path: Path, name: str) -> None:
    (tmp_path / "reference" / "precious").mkdir(parents=True)
    with pytest.raises(ConfigError, match="must be letters"):
        reference.keep(tmp_path, name, tmp_path / "reference")
    assert (tmp_path / "reference" / "precious").is_dir()
