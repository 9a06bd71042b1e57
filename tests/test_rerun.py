"""A run trained again: bit for bit here, and what is said where it is not."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from rig import train

from cifar_lab import reference, rerun
from cifar_lab.cli import app
from cifar_lab.errors import CheckpointError, ConfigError
from cifar_lab.saved import load_run


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    return train(tmp_path_factory.mktemp("rerun") / "first", "augment=crop_flip", "model.kernel_size=5")


def run_app(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        app(list(arguments))
    return int(ended.value.code or 0)


def test_a_rerun_is_the_same_bit_for_bit(finished, tmp_path, capsys):
    assert run_app("rerun", str(finished), "--out", str(tmp_path / "again")) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[-1] == "bit for bit: 2 epochs and 60 test predictions are the same"
    assert "differs:" not in out
    first, second = load_run(finished), load_run(tmp_path / "again")
    assert np.array_equal(first.logits(), second.logits())
    assert second.config["model"]["kernel_size"] == 5


def test_evidence_is_enough_for_a_rerun(finished, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    kept = reference.keep(finished, "kept", Path("reference"))
    assert run_app("rerun", str(kept), "train.keep=none", "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert said["reproduced"] is True
    assert said["verdict"].startswith("bit for bit: 2 epochs")
    assert Path(said["folder"]).parent == Path("outputs/reruns")


def test_a_rerun_under_other_conditions_is_another(finished, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    other = Path(shutil.copytree(finished, tmp_path / "elsewhere" / finished.name))
    for source, places in ((finished, ()), (finished, ("threads=2",)), (finished, ("threads=1",)), (other, ())):
        assert run_app("rerun", str(source), *places) in (0, 4)
    assert len(list(Path("outputs/reruns").iterdir())) == 4
    assert "already done" not in capsys.readouterr().out
    assert run_app("rerun", str(finished), "threads=1") in (0, 4)
    assert "already done" in capsys.readouterr().out
    assert len(list(Path("outputs/reruns").iterdir())) == 4
    assert run_app("rerun", str(finished), "threads=1", "--out", "mine") in (0, 4)
    assert run_app("rerun", str(finished), "threads=2", "--out", "mine") == 4
    said = capsys.readouterr().err
    assert "E-RESUME]: mine holds a rerun under other conditions: threads (1 -> 2)" in said
    assert "hint: --out DIR makes another" in said


def test_what_differs_around_it_is_listed_and_what_came_out_is_judged(finished, tmp_path, capsys):
    """A first run as of other code, another torch and another accuracy."""
    forged = Path(shutil.copytree(finished, tmp_path / "forged"))
    result = json.loads((forged / "result.json").read_text())
    result["digests"]["code"] = "0" * 64
    result["environment"]["packages"]["torch"] = "1.0"
    result["metrics"]["test"]["accuracy"] = 1.0
    (forged / "result.json").write_text(json.dumps(result))
    config = (forged / "config.yaml").read_text()
    (forged / "config.yaml").write_text(config.replace("  label_smoothing: 0.0\n", ""))
    rows = [json.loads(line) for line in (forged / "metrics.jsonl").read_text().splitlines()]
    rows[0]["train_loss"] += 1.0
    (forged / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert run_app("rerun", str(forged), "--out", str(tmp_path / "again")) == 4
    said = capsys.readouterr()
    assert "differs: code (00000000 of " in said.out
    assert "differs: packages.torch (1.0 -> " in said.out
    assert "differs: settings that there were not then, at their defaults: train.label_smoothing\n" in said.out
    assert "error[E-CKPT]: NOT reproduced: test accuracy " in said.err
    assert (
        "against 100.00 % (n = 1, so nothing is known of seeds: on 60 images equally good models lie within 8.33 points)"
        in said.err
    )


def a_run(accuracy: float, losses: list[float], logits: np.ndarray | None = None):
    rows = [{"epoch": i + 1, "train_loss": loss, "seconds": np.random.default_rng(0).random()} for i, loss in enumerate(losses)]
    arrays = {"test_logits": np.zeros((4, 2)) if logits is None else logits}
    return SimpleNamespace(
        metrics={"test": {"accuracy": accuracy}}, rows=rows, arrays=arrays, labels=lambda: np.zeros(10_000), has_logits=True
    )


def test_bits_count_and_clocks_do_not():
    one, other = a_run(0.5, [1.0, 0.5]), a_run(0.5, [1.0, 0.5])
    other.rows[0]["seconds"] = 7.0
    assert rerun.compare(one, other, [one]).text.startswith("bit for bit: 2 epochs and 10,000 test predictions")
    moved = a_run(0.5, [1.0, 0.5], np.full((4, 2), 1e-7))
    assert rerun.compare(one, moved, [one]).text.startswith("within spread: test accuracy 50.00 % against 50.00 %")


def test_one_seed_is_judged_by_the_size_of_the_test_set():
    """1.96 sqrt(2 * 0.9 * 0.1 / 10000) = 0.83 points."""
    one = a_run(0.9, [1.0])
    inside, outside = (rerun.compare(one, a_run(0.9 - d, [2.0]), [one]) for d in (0.0083, 0.0084))
    assert inside.reproduced
    assert not outside.reproduced
    assert "equally good models lie within 0.83 points" in inside.text


@pytest.mark.parametrize("seeds", [[1.0], [1.0, 1.0], [0.9999, 0.9999, 0.9999]])
def test_five_images_are_no_evidence_where_there_is_no_spread(seeds):
    """Of five images that only one of two models gets right, a fair coin gives as many to one side in 2 of 32 cases."""
    runs = [a_run(a, [1.0]) for a in seeds]
    same, five, six = (rerun.compare(runs[0], a_run(seeds[0] - k / 10_000, [2.0]), runs) for k in (0, 5, 6))
    assert [same.reproduced, five.reproduced, six.reproduced] == [True, True, False]
    assert f"{len(seeds)} seeds have the same accuracy, which shows no spread: on 10,000 images" in six.text or len(seeds) == 1


def test_seeds_of_one_accuracy_are_judged_as_one_seed_is():
    """1.96 sqrt(2 * 0.9 * 0.1 / 10000) = 0.83 points."""
    seeds = [a_run(0.9, [1.0]) for _ in range(2)]
    assert rerun.compare(seeds[0], a_run(0.8917, [2.0]), seeds).reproduced
    assert not rerun.compare(seeds[0], a_run(0.8916, [2.0]), seeds).reproduced


def test_several_seeds_give_a_prediction_interval():
    """Mean 0.90, s = 0.01, n = 3: t(0.975, 2) = 4.303, so 4.303 * 0.01 * sqrt(4 / 3) = 4.97 points."""
    seeds = [a_run(a, [1.0]) for a in (0.89, 0.90, 0.91)]
    inside, outside = (rerun.compare(seeds[0], a_run(a, [2.0]), seeds) for a in (0.8504, 0.8502))
    assert inside.reproduced
    assert not outside.reproduced
    assert "3 seeds have 90.00 % with s = 1.00 points: further ones lie within 4.97 points" in outside.text


def test_seeds_of_one_configuration_are_found_beside_a_run(finished, tmp_path):
    for name, seed, lr in (("a", 0, 0.01), ("b", 1, 0.01), ("c", 1, 0.02)):
        folder = Path(shutil.copytree(finished, tmp_path / name))
        text = (folder / "config.yaml").read_text()
        assert "seed: 0\n" in text
        (folder / "config.yaml").write_text(
            text.replace("\nseed: 0\n", f"\nseed: {seed}\n").replace("seed: 0\ndevice", f"seed: {seed}\ndevice")
        )
        plain = (folder / "config.yaml").read_text()
        if lr != 0.01:
            (folder / "config.yaml").write_text(plain.replace("batch_size: 64", "batch_size: 32"))
    (tmp_path / "junk").mkdir()
    found = rerun.siblings(load_run(tmp_path / "a"))
    assert [run.path.name for run in found] == ["a", "b"]


def test_damaged_neighbours_are_no_seeds(finished, tmp_path):
    """Of four neighbours with other seeds three are damaged, each in its own way; none of them costs the verdict."""
    plain, result = (finished / "config.yaml").read_text(), (finished / "result.json").read_text()
    assert "\nseed: 0\n" in f"\n{plain}"
    for seed, name in enumerate(("first", "good", "cut", "bytes", "empty")):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "config.yaml").write_text(f"\n{plain}".replace("\nseed: 0\n", f"\nseed: {seed}\n"))
        (folder / "result.json").write_text(result)
    (tmp_path / "cut" / "result.json").write_text(result[:300])
    (tmp_path / "bytes" / "config.yaml").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "empty" / "result.json").write_text(json.dumps({**json.loads(result), "metrics": None}))
    assert [run.path.name for run in rerun.siblings(load_run(tmp_path / "first"))] == ["first", "good"]


def test_neighbours_are_read_before_the_training(finished, tmp_path, monkeypatch):
    done = []
    monkeypatch.setattr(rerun, "siblings", lambda run: done.append("neighbours"))
    monkeypatch.setattr(rerun.pipeline, "run", lambda *arguments: done.append("training"))
    with pytest.raises(CheckpointError, match="is no run folder"):  # nothing was trained
        rerun.rerun(finished, out=tmp_path / "again")
    assert done == ["neighbours", "training"]


def test_only_places_may_change(finished):
    with pytest.raises(ConfigError, match=r"optimizer\.lr=1: a rerun changes nothing but places"):
        rerun.rerun(finished, ["optimizer.lr=1"])
    with pytest.raises(CheckpointError, match="is no run folder"):
        rerun.rerun(finished.parent)


def test_a_rerun_computes_features_itself(finished):
    old = load_run(finished)
    assert rerun._config(old, []).train.keep_features is False
    assert rerun._config(old, ["train.keep_features=true"]).train.keep_features is True
