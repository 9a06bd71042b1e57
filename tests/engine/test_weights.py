"""Which weights a path means, and what is refused."""

import json
import pickle
import shutil

import pytest
import safetensors.torch
import torch
from engine_rig import Run, make_state, tiny_model, train_config, val_batches

from cifar_lab.engine.weights import host_copy, load_into, load_weights, short_name, step_folders, verified_manifest
from cifar_lab.errors import CheckpointError


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    config = train_config(epochs=3, ema_decay=0.5, monitor="val_loss")
    return Run(tmp_path_factory.mktemp("run"), config, make_state(config), val=val_batches()).fit()


@pytest.fixture
def folder(finished, tmp_path):
    shutil.copytree(finished.folder, tmp_path / "run")
    return tmp_path / "run"


def flip_a_bit(path):
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def test_what_a_path_means(folder, finished):
    best = safetensors.torch.load_file(folder / "checkpoints" / "best" / "model.safetensors")
    newest = step_folders(folder / "checkpoints")[0]
    average = safetensors.torch.load_file(newest / "ema.safetensors")
    model = safetensors.torch.load_file(newest / "model.safetensors")
    assert torch.equal(model["0.weight"], finished.state.model[0].weight)
    assert not torch.equal(model["0.weight"], average["0.weight"])
    cases = [
        (folder, best),
        (str(folder), best),
        (folder / "checkpoints" / "best", best),
        (newest, average),  # what was evaluated
        (newest / "model.safetensors", model),
        (newest / "ema.safetensors", average),
    ]
    for path, expected in cases:
        tensors, manifest = load_weights(path)
        assert all(torch.equal(tensors[name], expected[name]) for name in expected), path
        assert manifest["step"] > 0


def test_a_run_without_best_weights_yet_gives_its_newest_good_checkpoint(folder):
    shutil.rmtree(folder / "checkpoints" / "best")
    assert load_weights(folder)[1]["step"] == 18
    flip_a_bit(folder / "checkpoints" / "step-00000018" / "model.safetensors")
    assert load_weights(folder)[1]["step"] == 12
    flip_a_bit(folder / "checkpoints" / "step-00000012" / "model.safetensors")
    with pytest.raises(CheckpointError, match="every checkpoint in it is damaged"):
        load_weights(folder)


def test_damaged_best_weights_are_never_replaced_by_others(folder):
    flip_a_bit(folder / "checkpoints" / "best" / "model.safetensors")
    for path in (folder, folder / "checkpoints" / "best"):
        with pytest.raises(CheckpointError, match=r"best/model\.safetensors: sha256 mismatch") as caught:
            load_weights(path)
        assert "checkpoints/step-" in caught.value.hint


def test_a_pickle_is_refused_and_not_loaded(tmp_path):
    model = tiny_model()
    for name, write in (
        ("model.pt", lambda path: torch.save(model.state_dict(), path)),
        ("old.pth", lambda path: torch.save(model.state_dict(), path, _use_new_zipfile_serialization=False)),
        ("weights.pkl", lambda path: path.write_bytes(pickle.dumps({"a": 1}))),
        ("disguised.safetensors", lambda path: path.write_bytes(pickle.dumps({"a": 1}))),
    ):
        write(tmp_path / name)
        with pytest.raises(CheckpointError, match=f"{name} is a pickle file; refused") as caught:
            load_weights(tmp_path / name)
        assert caught.value.exit_code == 4
        assert caught.value.kept == "the file is untouched"


def test_foreign_files_and_folders_are_refused(tmp_path, folder):
    safetensors.torch.save_file(tiny_model(channels_last=False).state_dict(), tmp_path / "foreign.safetensors")
    with pytest.raises(CheckpointError, match="is no checkpoint of cifar-lab"):
        load_weights(tmp_path / "foreign.safetensors")
    for path in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(CheckpointError, match="no run folder or checkpoint of cifar-lab"):
            load_weights(path)
    best = folder / "checkpoints" / "best"
    with pytest.raises(CheckpointError, match="holds no weights"):
        load_weights(best / "manifest.json")
    shutil.copy(tmp_path / "foreign.safetensors", best / "other.safetensors")
    with pytest.raises(CheckpointError, match="not listed in its manifest"):
        load_weights(best / "other.safetensors")


def test_a_manifest_of_another_version_or_that_points_elsewhere_is_refused(folder):
    best = folder / "checkpoints" / "best"
    manifest = json.loads((best / "manifest.json").read_text())
    (best / "manifest.json").write_text(json.dumps({**manifest, "schema": 2}))
    with pytest.raises(CheckpointError, match="schema 2; this version reads 1"):
        verified_manifest(best)
    (folder / "secret").write_bytes(b"")
    files = {"../../secret": {"size": 0, "sha256": manifest["files"]["model.safetensors"]["sha256"]}}
    (best / "manifest.json").write_text(json.dumps({**manifest, "files": files}))
    with pytest.raises(CheckpointError, match="missing"):
        verified_manifest(best)
    (best / "manifest.json").write_text(json.dumps({**manifest, "files": {"model.safetensors": {"size": 1}}}))
    with pytest.raises(CheckpointError, match="unreadable"):
        verified_manifest(best)
    (best / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError, match="holds weights where checkpoint is needed"):
        verified_manifest(best, "checkpoint")


def test_step_folders_are_by_number_and_nothing_else(tmp_path):
    for name in ("step-00000009", "step-00000120", "step-100000000", "step-00000007.bad-1", "step-new", "best", ".tmp-1"):
        (tmp_path / name).mkdir()
    assert [short_name(p) for p in step_folders(tmp_path)] == ["step-100000000", "step-120", "step-9"]
    assert step_folders(tmp_path / "nowhere") == []


def test_load_into_keeps_memory_format_and_names_what_differs():
    source, target = tiny_model(1, batch_norm=True, channels_last=False), tiny_model(2, batch_norm=True)
    tensors = host_copy(source.state_dict())
    load_into(target, tensors)
    assert all(torch.equal(target.state_dict()[name], value) for name, value in tensors.items())
    assert target[0].weight.is_contiguous(memory_format=torch.channels_last)
    for change, text in (
        ({"0.weight": None}, r"tensor 0\.weight is only in the model"),
        ({"9.weight": torch.zeros(1)}, r"tensor 9\.weight is only in the file"),
        ({"0.weight": torch.zeros(4, 3, 5, 5)}, r"tensor 0\.weight is \[4, 3, 5, 5\]; the model has \[4, 3, 3, 3\]"),
    ):
        wrong = {name: value for name, value in {**tensors, **change}.items() if value is not None}
        with pytest.raises(CheckpointError, match=text):
            load_into(target, wrong)


def test_host_copies_share_nothing():
    tied = torch.nn.Linear(3, 3, bias=False)
    copies = host_copy({"a": tied.weight, "b": tied.weight, "t": tied.weight.t()})
    assert len({value.data_ptr() for value in copies.values()}) == 3
    assert all(value.is_contiguous() for value in copies.values())
    assert torch.equal(copies["t"], tied.weight.t())
    assert not copies["a"].requires_grad
    with pytest.raises(CheckpointError, match="extra is a dict"):
        host_copy({"extra": {}})
