"""Where a run's first weights come from, and which files are refused."""

import os
import pickle
from pathlib import Path

import pytest
import torch
from rig import ROOT
from torch import Tensor, nn

from cifar_lab import pretrained, schema, storage
from cifar_lab.data.download import Remote
from cifar_lab.errors import CheckpointError, ConfigError, DataError
from cifar_lab.models.build import build_model
from cifar_lab.pretrained import IMAGENET, load_start
from cifar_lab.storage import LISTED, listed, read_listed


@pytest.fixture(autouse=True)
def schemas():
    schema.register()


def config_with(*overrides: str, model: str = "mobilenet_v2"):
    return schema.compose([f"model={model}", "data=digits", *overrides])


def tiny(num_classes: int = 10) -> nn.Module:
    return nn.ModuleDict({"features": nn.Linear(4, 3), "head": nn.Linear(3, num_classes)})


def theirs(**changes: Tensor | None) -> dict[str, Tensor]:
    """A file as torchvision would write it for ``tiny``, in float16; None leaves a tensor out."""
    tensors = {"features.weight": torch.randn(3, 4), "features.bias": torch.randn(3), "classifier.1.weight": torch.randn(1000, 3)}
    tensors = {**tensors, **{name.replace("_", "."): value for name, value in changes.items()}}
    return {name: value.half() for name, value in tensors.items() if value is not None}


@pytest.fixture
def put(tmp_path, monkeypatch):
    """Save an object as a .pth file and, unless told otherwise, put it on the list."""

    def save(content: object, known: bool = True) -> Path:
        path = tmp_path / "weights.pth"
        torch.save(content, path)
        if known:
            monkeypatch.setitem(LISTED, storage.sha256_file(path), "a test's")
        return path

    return save


def test_features_come_from_a_listed_file_and_the_head_stays_fresh(put):
    tensors, model = theirs(), tiny()
    head = model["head"].weight.clone()
    notes = load_start(config_with(f"model.weights={put(tensors)}"), model)
    assert torch.equal(model["features"].weight, tensors["features.weight"].float())
    assert torch.equal(model["head"].weight, head)
    assert model["features"].weight.dtype == torch.float32
    assert notes[0] == "features from weights.pth, trained on ImageNet; the head is new"
    assert notes[1] == "ImageNet weights expect data.normalize=imagenet; here it is half"
    assert len(load_start(config_with(f"model.weights={put(tensors)}", "data.normalize=imagenet"), tiny())) == 1
    other = config_with(f"model.weights={put(tensors)}", "data.normalize=imagenet", "model.activation=tanh")
    assert load_start(other, tiny())[1] == "model.activation=tanh: the features were trained with relu6"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"features_bias": None}, "tensor features.bias is only in the model"),
        ({"features_more": torch.ones(1)}, "tensor features.more is only in the file"),
        ({"features_weight": torch.ones(3, 5)}, r"tensor features.weight is [3, 5]; the model has [3, 4]"),
    ],
)
def test_the_first_tensor_that_does_not_fit_is_named(put, changes, words):
    with pytest.raises(CheckpointError) as caught:
        load_start(config_with(f"model.weights={put(theirs(**changes))}"), tiny())
    assert caught.value.what.endswith(f"weights.pth: {words}")


def test_a_file_that_is_not_on_the_list_is_refused_unread(put, monkeypatch):
    path = put(theirs(), known=False)
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("it was read"))
    with pytest.raises(CheckpointError) as caught:
        read_listed(path)
    assert caught.value.what == f"{path} is a pickle file whose SHA-256 is not on our list; refused"
    path.write_bytes(pickle.dumps({"features.weight": 1}))
    with pytest.raises(CheckpointError, match="is a pickle file whose SHA-256"):
        load_start(config_with(f"model.weights={path}"), tiny())
    path.write_bytes(b"weights")
    with pytest.raises(CheckpointError, match=r"is a file whose SHA-256 is not on our list; refused"):
        load_start(config_with(f"model.weights={path}"), tiny())


def test_even_a_listed_file_may_hold_tensors_by_name_only(put):
    with pytest.raises(CheckpointError, match="holds no tensors by name"):
        read_listed(put({"epoch": 3}))
    with pytest.raises(pickle.UnpicklingError, match=r"(?i)weights.only"):
        read_listed(put(Path("code that weights_only does not run")))


def test_paths_that_are_nothing_are_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"model.weights=imagnet; must be none, imagenet or the path"):
        load_start(config_with("model.weights=imagnet"), tiny())
    (tmp_path / "model.safetensors").write_bytes(b"")
    for path in (tmp_path, tmp_path / "model.safetensors"):
        with pytest.raises(CheckpointError, match=r"no run folder or checkpoint|no checkpoint of cifar-lab"):
            load_start(config_with(f"model.weights={path}"), tiny())


# torchvision's own files


def test_every_download_is_on_the_list_under_its_own_name():
    for model, remote in IMAGENET.items():
        assert f"-{remote.sha256[:8]}.pth" in remote.name
        assert LISTED[remote.sha256].startswith(f"torchvision's {model}")


def test_downloads_are_torchvisions_defaults():
    import torchvision.models as theirs

    for model, remote in IMAGENET.items():
        default = theirs.get_model_weights(model).DEFAULT
        assert default.url == pretrained._HOST + remote.name
        assert remote.size / 2**20 == pytest.approx(default.meta["_file_size"], abs=6e-4)


def test_imagenet_is_fetched_once_into_the_cache(put, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    source = put(theirs())
    remote = Remote("tiny.pth", source.stat().st_size, storage.sha256_file(source))
    monkeypatch.setitem(IMAGENET, "mobilenet_v2", remote)
    asked = []

    def download(remote, folder, sources, **_):
        asked.extend(sources)
        storage.write_bytes(folder / remote.name, source.read_bytes())
        return folder / remote.name

    monkeypatch.setattr(pretrained, "download", download)
    config = config_with("model.weights=imagenet")
    with pytest.raises(DataError, match=r"tiny.pth not in .*cache/cifar-lab/weights and data.download=false; put it there"):
        load_start(config_with("model.weights=imagenet", "data.download=false"), tiny())
    for _ in range(2):
        assert load_start(config, tiny())[0].startswith("features from tiny.pth")
    kept = tmp_path / "cache" / "cifar-lab" / "weights" / "tiny.pth"
    kept.write_bytes(b"damaged")
    load_start(config, tiny())
    assert asked == ["https://download.pytorch.org/models/tiny.pth"] * 2
    assert kept.with_name("tiny.pth.bad-1").read_bytes() == b"damaged"


def test_only_some_models_have_imagenet_weights(monkeypatch):
    monkeypatch.delitem(IMAGENET, "efficientnet_b0")
    with pytest.raises(ConfigError, match="there are none for efficientnet_b0, only for mobilenet_v2"):
        load_start(config_with("model.weights=imagenet", model="efficientnet_b0"), tiny())


def test_frozen_features_that_nobody_trained_are_pointed_out():
    model = build_model("mobilenet_v2", num_classes=3, input_size=32, freeze="features")
    assert load_start(config_with("model.freeze=features"), model) == [
        "model.freeze keeps features that nobody trained: see model.weights and init_from"
    ]
    assert load_start(config_with(), tiny()) == []


@pytest.fixture(scope="module")
def shared_weights() -> Path:
    """The MobileNetV2 that lies beside the repository or that $MOBILENET_V2_WEIGHTS names."""
    beside = ROOT.parent / "shared" / "data" / "weights" / "mobilenet_v2_imagenet_dequantised.pth"
    path = Path(os.environ.get("MOBILENET_V2_WEIGHTS") or beside)
    if not path.is_file():
        pytest.skip("set MOBILENET_V2_WEIGHTS to a file of MobileNetV2's ImageNet weights")
    return path


def test_real_weights_give_torchvisions_features(shared_weights):
    import torchvision

    assert storage.sha256_file(shared_weights) in listed.LISTED
    model = build_model("mobilenet_v2", num_classes=10, input_size=64, freeze="features").eval()
    load_start(config_with(f"model.weights={shared_weights}"), model)
    reference = torchvision.models.mobilenet_v2(weights=None).eval()
    reference.load_state_dict(read_listed(shared_weights))
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = reference.features(images).mean(dim=(2, 3))
        torch.testing.assert_close(model.embed(images), expected, rtol=1e-4, atol=1e-5)
        assert torch.equal(model(model.embed(images)), model(images))
