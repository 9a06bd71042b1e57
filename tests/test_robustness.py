"""A run on worse pictures: its own model, normalization and labels, counted again by hand; CIFAR-10-C where it belongs."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from cifar_lab import load_run
from cifar_lab.cli import app
from cifar_lab.data import corruptions
from cifar_lab.errors import CheckpointError, ConfigError, DataError
from cifar_lab.robustness import measure_robustness, save_robustness


@pytest.fixture(scope="module")
def found(finished) -> dict:
    return measure_robustness(load_run(finished), device="cpu", threads=1)


def by_hand(run, images: torch.Tensor, labels: np.ndarray) -> float:
    """Accuracy of the run's model, asked without batches of ours."""
    known = run.result["data"]["normalization"]
    mean, std = (torch.tensor(known[key]).view(3, 1, 1) for key in ("mean", "std"))
    with torch.no_grad():
        logits = run.model()((images.float() / 255 - mean) / std)
    return float((logits.argmax(1).numpy() == labels).mean())


def test_accuracy_is_that_of_the_runs_own_model(finished, found):
    run = load_run(finished)
    test = run.images("test")
    assert found["clean_accuracy"] == run.metrics["test"]["accuracy"]
    results = found["corruptions"]["results"]
    assert list(results) == list(corruptions.CORRUPTIONS)
    for name, row in results.items():
        for severity in (1, 5):
            worse = corruptions.corrupt(test.images, name, severity, test.ids)
            assert row["accuracy"][severity - 1] == pytest.approx(by_hand(run, worse, run.labels("test")), abs=1e-9)
        assert row["mean"] == pytest.approx(sum(row["accuracy"]) / 5)
    means = [row["mean"] for row in results.values()]
    assert found["corruptions"]["mean_accuracy"] == pytest.approx(sum(means) / 5)
    assert (found["corruptions"]["name"], found["corruptions"]["version"]) == ("cifar-lab corruptions", 1)
    assert found["cifar10c"] is None


def test_the_command_writes_files_and_prints_numbers_only(finished, found, tmp_path):
    done = CliRunner().invoke(app, ["robustness", str(finished), "--out", str(tmp_path), "--json", "--threads", "1"])
    assert done.exit_code == 0, done.output
    printed = json.loads(done.stdout)
    assert printed["corruptions"] == found["corruptions"], "the same draws again"
    assert json.loads((tmp_path / "robustness.json").read_text()) == printed
    assert {path.name for path in tmp_path.iterdir()} == {"robustness.json", "robustness.png", "robustness_examples.png"}


def test_what_does_not_belong_together_is_refused(finished, tmp_path, monkeypatch):
    run = load_run(finished)
    with pytest.raises(ConfigError, match=r"--cifar10c needs a run on CIFAR-10; .* is on digits"):
        measure_robustness(run, official=tmp_path)
    run.metrics["test"]["accuracy"] += 0.01
    with pytest.raises(CheckpointError, match=r"its predictions are right for .* of the test images, its result\.json says"):
        measure_robustness(run, threads=1)
    run = load_run(finished)
    fresh = run.model()
    for parameter in fresh.parameters():
        parameter.data.neg_()
    monkeypatch.setattr(run, "model", lambda device: fresh)
    with pytest.raises(CheckpointError, match="give another class than its saved predictions"):
        measure_robustness(run, threads=1)
    assert CliRunner().invoke(app, ["robustness", str(tmp_path)]).exit_code == 4


@pytest.fixture(scope="module")
def official(finished, tmp_path_factory) -> Path:
    """CIFAR-10-C as published, with the digits of the run as its first pictures and shifted ones at severity 5."""
    run, folder = load_run(finished), tmp_path_factory.mktemp("cifar10c")
    test = run.images("test")
    labels = np.zeros((5, 10_000), dtype=np.uint8)
    labels[:, : len(test)] = test.labels.numpy()
    np.save(folder / "labels.npy", labels.reshape(-1))
    pictures = np.zeros((5, 10_000, 32, 32, 3), dtype=np.uint8)
    plain = test.images.permute(0, 2, 3, 1).numpy()
    pictures[:, : len(test)] = plain
    pictures[4, : len(test)] = np.roll(plain, 9, axis=2)
    for name in ("fog", "saturate"):
        np.save(folder / f"{name}.npy", pictures.reshape(-1, 32, 32, 3))
    return folder


def as_cifar10(finished: Path):
    """The run with the name and the ids that one on CIFAR-10 has."""
    run = load_run(finished)
    run.result["data"]["name"] = "cifar10"
    run.arrays["test_ids"] = 50_000 + np.arange(len(run.labels("test")))
    return run


def test_official_files_are_asked_about_beside_ours(finished, official, tmp_path):
    run = as_cifar10(finished)
    count = len(run.labels("test"))
    found = measure_robustness(run, official=official, images=count, threads=1)
    clean = run.metrics["test"]["accuracy"]
    moved = by_hand(run, torch.roll(run.images("test").images, 9, dims=3), run.labels("test"))
    assert moved < clean
    row = found["cifar10c"]["results"]["fog"]
    assert row["accuracy"] == pytest.approx([clean] * 4 + [moved])
    assert row["mean"] == pytest.approx((4 * clean + moved) / 5)
    assert (row["in_mean"], found["cifar10c"]["results"]["saturate"]["in_mean"]) == (True, False)
    assert found["cifar10c"]["mean_accuracy"] == pytest.approx(row["mean"])
    files = save_robustness(tmp_path, run, found, run.images("test"))
    assert [file.name for file in files] == ["robustness.png", "robustness_examples.png", "robustness_cifar10c.png"]
    run.arrays["test_labels"] = (run.labels("test") + 1) % 10
    run.metrics["test"]["accuracy"] = float((run.predicted("test") == run.labels("test")).mean())
    with pytest.raises(DataError, match="labels are not those of CIFAR-10's test set"):
        measure_robustness(run, official=official, images=1, threads=1)
