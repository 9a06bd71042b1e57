"""A finished run opened again: the same numbers, the same model, and one line for a folder that is none."""

import json
import shutil

import numpy as np
import pytest
import torch
from rig import train

import cifar_lab
from cifar_lab import reference
from cifar_lab.errors import CheckpointError


def test_what_it_measured_is_counted_again_from_its_logits(finished):
    run = cifar_lab.load_run(finished)
    for split in ("val", "test"):
        probs, labels = run.probs(split), run.labels(split)
        np.testing.assert_allclose(probs.sum(axis=1), 1.0)
        assert (run.logits(split).argmax(axis=1) == labels).mean() == run.metrics[split]["accuracy"]
        assert (run.predicted(split) == labels).mean() == run.metrics[split]["accuracy"]
        np.testing.assert_array_equal(run.confidence(split), probs.max(axis=1))
    assert [row["epoch"] for row in run.rows] == [1, 2]
    assert run.config["model"]["name"] == "small_cnn"
    assert "train=smoke" in run.overrides
    assert "small_cnn on digits (a subset" in repr(run)


def test_its_model_gives_its_logits_for_its_images(finished):
    run = cifar_lab.load_run(finished)
    images = run.images("test")
    np.testing.assert_array_equal(images.ids.numpy(), run.ids("test"))
    np.testing.assert_array_equal(images.labels.numpy(), run.labels("test"))
    known = run.result["data"]["normalization"]
    mean, std = (torch.tensor(known[key]).view(3, 1, 1) for key in ("mean", "std"))
    state = torch.random.get_rng_state()
    model = run.model()
    assert torch.equal(torch.random.get_rng_state(), state), "nobody's draws are disturbed"
    assert not model.training
    with torch.no_grad():
        logits = model((images.images / 255 - mean) / std)
    np.testing.assert_allclose(logits.numpy(), run.logits("test"), rtol=1e-4, atol=1e-4)


def test_evidence_has_predictions_but_neither_logits_nor_model(finished, tmp_path):
    kept = cifar_lab.load_run(reference.keep(finished, "kept", tmp_path))
    run = cifar_lab.load_run(finished)
    np.testing.assert_array_equal(kept.predicted(), run.predicted())
    np.testing.assert_array_equal(kept.labels(), run.labels())
    np.testing.assert_allclose(kept.confidence(), run.confidence(), atol=1e-3)
    with pytest.raises(CheckpointError, match="is evidence: labels, predicted classes and confidences"):
        kept.logits()
    with pytest.raises(CheckpointError, match="evidence has none"):
        kept.model()


def test_other_data_is_not_taken_for_its_own(finished, monkeypatch):
    run = cifar_lab.load_run(finished)
    monkeypatch.setitem(run.config["data"], "split_seed", 1)
    with pytest.raises(CheckpointError, match=r"digits is not what .* was trained on"):
        run.images("test")


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (None, "is no run folder: it has no result.json"),
        ('{"a": 1}', "is not one of cifar-lab"),
        ("[]", "is not one of cifar-lab"),
        ('{"status": "do', "is not valid JSON"),
        ('{"status": "done", "digests": {}, "metrics": {"val": {}}}', "has no metrics of the test set"),
    ],
)
def test_a_folder_that_is_no_run_gets_one_line(tmp_path, content, text):
    if content is not None:
        (tmp_path / "result.json").write_text(content)
    with pytest.raises(CheckpointError, match=text):
        cifar_lab.load_run(tmp_path)


@pytest.mark.parametrize(
    ("content", "text"),
    [(b"\xff\xfe", "cannot be read"), (b"- 1\n", "is no configuration of cifar-lab"), (b"seed: [", "cannot be")],
)
def test_a_damaged_configuration_gets_one_line(finished, tmp_path, content, text):
    shutil.copy(finished / "result.json", tmp_path)
    (tmp_path / "config.yaml").write_bytes(content)
    with pytest.raises(CheckpointError, match=text):
        _ = cifar_lab.load_run(tmp_path).config


def test_a_run_that_is_not_done_is_not_opened(finished, tmp_path):
    result = json.loads((finished / "result.json").read_text())
    (tmp_path / "result.json").write_text(json.dumps({**result, "status": "interrupted"}))
    with pytest.raises(CheckpointError, match="is interrupted, not done"):
        cifar_lab.load_run(tmp_path)


def test_the_weights_of_the_last_epoch_are_the_models_where_they_were_tested(tmp_path):
    options = ("train.select=last", "train.keep=best", "train.epochs=6", "optimizer.lr=0.1", "schedule=constant")
    folder = train(tmp_path / "run", *options)
    run = cifar_lab.load_run(folder)
    accuracies = [row["val_accuracy"] for row in run.rows]
    assert max(accuracies) > accuracies[-1], "another epoch is the best one"
    known = run.result["data"]["normalization"]
    mean, std = (torch.tensor(known[key]).view(3, 1, 1) for key in ("mean", "std"))
    with torch.no_grad():
        logits = run.model()((run.images("test").images / 255 - mean) / std)
    np.testing.assert_allclose(logits.numpy(), run.logits("test"), rtol=1e-4, atol=1e-4)
