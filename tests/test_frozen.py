"""Frozen features: computed once they give the same run as computed every epoch, and the run is a run like any other."""

import json
from functools import partial
from pathlib import Path

import pytest
import torch
import torchvision
from rig import SMOKE, Lab
from torchvision.models.mobilenetv2 import MobileNetV2

from cifar_lab import frozen, schema, storage
from cifar_lab.data.batches import Batches
from cifar_lab.data.features import FeatureBatches
from cifar_lab.data.splits import load_splits
from cifar_lab.engine.checkpoint import Checkpoints
from cifar_lab.engine.fit import fit
from cifar_lab.engine.weights import load_weights
from cifar_lab.errors import CheckpointError, Interrupted
from cifar_lab.models.build import build_model
from cifar_lab.parts import build_parts
from cifar_lab.pretrained import load_start
from cifar_lab.signals import StopFlag

FROZEN = (
    *SMOKE,
    "model=mobilenet_v2",
    "model.freeze=features",
    "model.dropout=0.5",
    "schedule=constant",
    "train.batch_size=16",
    "train.precision=fp32",
)
RUN = "hydra.run.dir=run"
CLOCKS = ("seconds", "train_seconds", "images_per_s")


@pytest.fixture(autouse=True, scope="module")
def tiny_mobilenet():
    """MobileNetV2 with two blocks in place of seventeen; it has seen images, or its features would all be near zero."""

    def build(**_):
        model = MobileNetV2(width_mult=0.25, inverted_residual_setting=[[1, 16, 1, 2], [6, 24, 1, 2]])
        for norm in (m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)):
            norm.momentum = 1.0
        with torch.no_grad():
            model.features(torch.randn(16, 3, 32, 32))
        return model

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torchvision.models, "mobilenet_v2", build)
        schema.register()
        yield


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


class Rows(list):
    """Takes what a tracker takes and keeps the rows, without what a clock says."""

    def row(self, row):
        self.append({key: value for key, value in row.items() if key not in CLOCKS})

    def epoch_started(self, *_):
        pass

    advance = note = epoch_started


def parts_of(*overrides: str):
    config = schema.compose([*FROZEN, *overrides])
    return config, build_parts(config, load_splits(config.data), torch.device("cpu"))


def trained(folder: Path, *overrides: str, once: bool):
    """Rows and final tensors of a run, its features computed once or in every epoch."""
    config, parts = parts_of(*overrides)
    features = frozen.compute_once(config, parts, stop=StopFlag(), progress=lambda *_: None) if once else frozen.Features()
    assert bool(features.by_split) is once
    train, val = frozen.fit_batches(config, parts, features)
    rows = Rows()
    fit(parts.state, train, val, config.train, tracker=rows, checkpoints=Checkpoints(folder), stop=StopFlag())
    return rows, {**parts.state.model.state_dict(), **{f"ema.{k}": v for k, v in parts.state.eval_model.state_dict().items()}}


@pytest.mark.parametrize(
    "extra", [(), ("train.drop_last=true", "train.accumulation_steps=2", "train.ema_decay=0.9", "data.input_size=48")]
)
def test_features_computed_once_give_the_same_run(tmp_path, extra):
    slow_rows, slow = trained(tmp_path / "slow", "train.epochs=3", *extra, once=False)
    rows, weights = trained(tmp_path / "once", "train.epochs=3", *extra, once=True)
    assert len(rows) == len(slow_rows) == 3
    for row, expected in zip(rows, slow_rows, strict=True):
        assert row == pytest.approx(expected, rel=1e-6, abs=1e-6)
    assert rows[-1]["train_loss"] < rows[0]["train_loss"] - 0.02, "there is something to learn from"
    assert weights.keys() == slow.keys()
    for name, value in weights.items():
        torch.testing.assert_close(value, slow[name], rtol=1e-6, atol=1e-6, msg=name)


def test_only_the_head_learns(tmp_path):
    _, before = parts_of()
    fresh = {name: value.clone() for name, value in before.state.model.state_dict().items()}
    _, after = trained(tmp_path, "train.ema_decay=0.9", once=False)
    changed = {name for name, value in fresh.items() if not torch.equal(value, after[name])}
    assert changed == {"head.weight", "head.bias"}
    assert any(name.endswith("running_mean") for name in fresh), "the check looks at statistics"
    average = {name for name, value in fresh.items() if not torch.equal(value, after[f"ema.{name}"])}
    assert average == changed
    assert before.cost["num_params_trainable"] == 12_810


def test_what_is_frozen_for_an_epoch_is_trained_from_the_next_one_on(tmp_path):
    stages = ("model.freeze_epochs=2", "train.epochs=4", "optimizer=sgd")  # Adam makes full steps of rounding errors
    slow_rows, slow = trained(tmp_path / "slow", *stages, once=False)
    rows, weights = trained(tmp_path / "once", *stages, once=True)
    for row, expected in zip(rows, slow_rows, strict=True):
        assert row == pytest.approx(expected, rel=1e-3, abs=1e-3)
    for name, value in weights.items():
        torch.testing.assert_close(value, slow[name], rtol=1e-2, atol=1e-3, msg=lambda text, name=name: f"{name}: {text}")
    _, parts = parts_of()
    _, two = trained(tmp_path / "two", "model.freeze_epochs=2", "train.epochs=2", once=True)
    fresh = parts.state.model.state_dict()
    frozen_names = [name for name in fresh if name.startswith("features")]
    assert all(torch.equal(two[name], fresh[name]) for name in frozen_names)
    assert not any(torch.equal(weights[name], fresh[name]) for name in frozen_names)  # statistics too


@pytest.mark.parametrize("optimizer", ["sgd_nesterov", "sam", "muon_sgd"])
def test_momentum_of_what_was_frozen_begins_where_it_is_trained(tmp_path, optimizer):
    """torch's fused SGD takes no mixture of parameters with and without momentum."""
    stages = ("model.freeze_epochs=1", "train.epochs=2", f"optimizer={optimizer}", "optimizer.weight_decay=0")
    _, parts = parts_of(*stages)
    fresh = {name: value.clone() for name, value in parts.state.model.state_dict().items()}
    rows, weights = trained(tmp_path / "staged", *stages, once=True)
    assert len(rows) == 2
    assert not any(torch.equal(weights[name], value) for name, value in fresh.items() if value.is_floating_point())


def test_a_run_that_goes_on_after_its_frozen_epochs_computes_no_features(tmp_path):
    stages = ("model.freeze_epochs=1", "train.epochs=3")
    undisturbed, expected = trained(tmp_path / "whole", *stages, once=True)
    trained(tmp_path / "parts", "model.freeze_epochs=1", "train.epochs=2", once=True)
    config, parts = parts_of(*stages)
    (tmp_path / "parts" / "metrics.jsonl").write_text('{"epoch": 1}\n{"epoch": 2}\n')
    checkpoints = Checkpoints(tmp_path / "parts")
    checkpoints.resume(parts.state)
    features = frozen.compute_once(config, parts, stop=StopFlag(), progress=lambda *_: None)
    assert not features.by_split
    rows = Rows()
    fit(parts.state, parts.train, parts.val, config.train, tracker=rows, checkpoints=checkpoints, stop=StopFlag())
    assert rows == [undisturbed[-1]]
    assert all(torch.equal(value, expected[name]) for name, value in parts.state.model.state_dict().items())


@pytest.mark.parametrize("changed", ["augment=flip", "augment=mixup", "model.freeze=none"])
def test_features_that_change_are_not_kept(changed):
    config, parts = parts_of(changed)
    features = frozen.compute_once(config, parts, stop=StopFlag(), progress=lambda *_: None)
    assert not features.by_split
    assert frozen.fit_batches(config, parts, features) == (parts.train, parts.val)


def test_the_next_run_takes_the_features_of_the_run_before_where_nothing_changed(tmp_path, monkeypatch):
    computed = []
    real = frozen.compute_features
    monkeypatch.setattr(frozen, "compute_features", lambda *args, **named: computed.append(1) or real(*args, **named))
    frozen._LAST.clear()
    trained(tmp_path / "first", "train.epochs=2", once=True)
    assert len(computed) == 2, "training and validation images"
    rows, weights = trained(tmp_path / "again", "train.epochs=2", "optimizer.lr=0.02", once=True)
    assert len(computed) == 2
    slow_rows, slow = trained(tmp_path / "slow", "train.epochs=2", "optimizer.lr=0.02", once=False)
    for row, expected in zip(rows, slow_rows, strict=True):
        assert row == pytest.approx(expected, rel=1e-6, abs=1e-6)
    assert all(torch.allclose(value, slow[name], rtol=1e-6, atol=1e-6) for name, value in weights.items())
    again = frozen.compute_once(*parts_of(), stop=StopFlag(), progress=lambda *_: None)
    assert again.summary().endswith("by the run before in this process")
    for number, other in enumerate(
        ("data.input_size=48", "data.normalize=unit", "train.eval_batch_size=7", "seed=5", "data.subset=50")
    ):
        trained(tmp_path / str(number), "train.epochs=1", other, once=True)
        assert len(computed) == 4 + 2 * number, f"{other} changes features; a seed does by other fresh weights"
    assert len(frozen._LAST) == 1, "no more than one run's are kept"
    frozen.compute_once(*parts_of("augment=flip"), stop=StopFlag(), progress=lambda *_: None)
    assert not frozen._LAST, "and none for a run that has no use for them"


def test_features_of_anothers_model_are_its_own(monkeypatch):
    """Weights in bf16, and a projection that no checkpoint holds, must not be taken for those of the run before."""
    config, parts = parts_of()
    model = parts.state.model
    keys = {frozen._key(config, parts)}
    model.register_buffer("projection", torch.zeros(3, dtype=torch.bfloat16), persistent=False)
    keys.add(frozen._key(config, parts))
    model.projection[1] = 1.0
    keys.add(frozen._key(config, parts))
    assert len(keys) == 3
    with torch.no_grad():
        model.head.weight += 1.0
    assert frozen._key(config, parts) in keys, "the head has no part in them"
    monkeypatch.setitem(frozen.MODELS, "mobilenet_v2", "theirs:mobilenet_v2")
    assert frozen._key(config, parts) not in keys
    keys.add(frozen._key(config, parts))
    config.seed += 1
    assert frozen._key(config, parts) not in keys


def test_a_signal_is_answered_while_features_are_computed():
    config, parts = parts_of("train.eval_batch_size=20")
    stop, seen = StopFlag(), []

    def progress(*call):
        seen.append(call)
        stop.signum = 15

    with pytest.raises(Interrupted, match="SIGTERM: stopped at features of 60 train images"):
        frozen.compute_once(config, parts, stop=stop, progress=progress)
    assert seen == [("features of 60 train images", 20, 60)]


class StopsAfter(Rows):
    """Asks to stop after so many optimiser steps."""

    def __init__(self, stop, steps):
        super().__init__()
        self.stop, self.steps = stop, steps

    def advance(self, batches, images):
        self.steps -= 1 if batches else 0
        if self.steps == 0:
            self.stop.signum = 15


def test_a_run_that_was_stopped_within_an_epoch_goes_on_exactly(tmp_path):
    undisturbed, expected = trained(tmp_path / "whole", once=True)
    stop = StopFlag()
    rows = StopsAfter(stop, steps=6)  # of four an epoch
    for attempt in range(2):
        config, parts = parts_of()
        checkpoints = Checkpoints(tmp_path / "parts")
        assert bool(checkpoints.resume(parts.state)) is (attempt == 1)
        features = frozen.compute_once(config, parts, stop=stop, progress=lambda *_: None)
        train, val = frozen.fit_batches(config, parts, features)
        loop = partial(fit, parts.state, train, val, config.train, tracker=rows, checkpoints=checkpoints, stop=stop)
        if attempt == 0:
            with pytest.raises(Interrupted, match="epoch 2 step 6"):
                loop()
            stop.signum = 0
            storage.append_line(tmp_path / "parts" / "metrics.jsonl", rows[0])
        else:
            loop()
    assert rows == undisturbed
    for name, value in parts.state.model.state_dict().items():
        assert torch.equal(value, expected[name]), name


@pytest.fixture(scope="module")
def finished(tmp_path_factory, tiny_mobilenet):
    """A whole run of a frozen model, by the command line."""
    from cifar_lab.train import main

    folder = tmp_path_factory.mktemp("work") / "run"
    assert main([*FROZEN, f"hydra.run.dir={folder}"]) == 0
    return folder


def test_a_run_says_what_it_did(finished):
    result = json.loads((finished / "result.json").read_text())
    assert result["cost"]["features_s"] > 0
    rows = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    best = rows[result["best_epoch"] - 1]
    assert result["metrics"]["val"]["nll"] == pytest.approx(best["val_loss"], rel=1e-5)
    log = (finished / "run.log").read_text()
    assert "note: model.freeze keeps features that nobody trained" in log
    assert "features of 60 training images and 60 validation images computed once" in log


def test_its_checkpoint_holds_the_whole_model(lab: Lab, finished):
    """Images through all of it give what the features gave; mirror images need the whole model too."""
    said = lab(*FROZEN, RUN, "train.epochs=0", f"init_from={finished}", "augment=flip")
    assert said.code == 0, said.err
    ours, theirs = (json.loads((Path(folder) / "result.json").read_text()) for folder in ("run", finished))
    for split in ("train", "val", "test"):
        assert ours["metrics"][split]["nll"] == pytest.approx(theirs["metrics"][split]["nll"], rel=1e-5)
    assert "features_s" not in ours["cost"]


def test_mirror_images_are_seen_by_the_whole_model():
    config, parts = parts_of()
    features = frozen.compute_once(config, parts, stop=StopFlag(), progress=lambda *_: None)
    assert isinstance(frozen.final_batches(config, parts, features, "val", "flip"), Batches)
    assert isinstance(frozen.final_batches(config, parts, features, "val", "none"), FeatureBatches)
    assert isinstance(frozen.final_batches(config, parts, features, "test", "none"), Batches)


def test_another_runs_backbone_under_a_new_head(finished):
    tensors, _ = load_weights(finished)
    for overrides in ([f"init_from={finished}"], [f"model.weights={finished}"], [f"init_from={finished}", "model.weights=x"]):
        model = build_model("mobilenet_v2", num_classes=3, input_size=32)
        head = model.head.weight.clone()
        notes = load_start(schema.compose([*FROZEN, *overrides]), model)
        assert all(torch.equal(value, tensors[name]) for name, value in model.features.state_dict(prefix="features.").items())
        assert torch.equal(model.head.weight, head)
        assert "the head is new" in notes[0]
    assert "shape differs (head.weight [10, 1280] -> [3, 1280], head.bias [10] -> [3])" in notes[0]
    assert notes[1] == "model.weights=x is not looked at: init_from takes its place"


def test_the_head_comes_along_where_the_classes_are_as_many(finished):
    tensors, _ = load_weights(finished)
    model = build_model("mobilenet_v2", num_classes=10, input_size=32)
    assert load_start(schema.compose([*FROZEN, f"init_from={finished}"]), model) == []
    assert torch.equal(model.head.weight, tensors["head.weight"])


def test_any_other_difference_is_an_error(finished):
    config = schema.compose([*SMOKE, f"init_from={finished}"])
    with pytest.raises(CheckpointError, match=r"init_from=.*: tensor features.0.weight is only in the model"):
        load_start(config, build_model("small_cnn", num_classes=10, input_size=32))
    wider = build_model("mobilenet_v2", num_classes=3, input_size=32)
    wider.features[0][0] = torch.nn.Conv2d(3, 24, 3)
    with pytest.raises(CheckpointError, match=r"tensor features.0.0.\w+ "):
        load_start(config, wider)
