"""Configuration and parts joined: what only shows when both are there."""

import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from cifar_lab import costing, runtime, schema
from cifar_lab.data import DATASETS
from cifar_lab.data.augment import is_augmented
from cifar_lab.data.sets import ImageSet
from cifar_lab.data.splits import load_splits
from cifar_lab.errors import ConfigError
from cifar_lab.parts import build_parts, check_builders, check_forward, prepare_model

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _registered() -> None:
    schema.register()


def parts_of(*overrides: str):
    config = schema.compose(["data=digits", "data.subset=60", *overrides])
    build_parts(config, load_splits(config.data), CPU)
    return config


def test_auto_is_fp32_where_the_optimizer_does_not_take_fp16(monkeypatch):
    """On a GPU without bf16 units `auto` is fp16, which nobody typed and SAM refuses."""
    monkeypatch.setattr(runtime, "resolve_precision", lambda asked, *_: "fp16" if asked == "auto" else asked)
    assert parts_of("optimizer=sgd").train.precision == "fp16"
    assert parts_of("optimizer=sam").train.precision == "fp32"
    with pytest.raises(ConfigError, match=r"train\.precision=fp16; must be bf16 or fp32 for SAM"):
        parts_of("optimizer=sam", "train.precision=fp16")
    for optimizer, precision in (("sgd", "fp16"), ("sam", "fp32")):  # cost, previews and latency are those of the run
        assert costing.build(schema.compose(["data=digits", f"optimizer={optimizer}"]), 10).config.train.precision == precision


def test_settings_of_an_augmentation_that_is_off_are_pointed_out_and_augment_nothing():
    def built(*overrides: str):
        config = schema.compose(["data=digits", "data.subset=60", *overrides])
        return is_augmented(config.augment), build_parts(config, load_splits(config.data), CPU).notes

    for setting, other in (
        ("randaugment_magnitude=20", "policy=none"),
        ("erase_max_area=0.5", "erase_probability=0.0"),
        ("crop_padding_mode=reflect", "crop_padding_px=0"),
    ):
        assert built(f"augment.{setting}") == (False, [f"augment.{setting} with augment.{other}: it changes nothing"])
    assert built("augment=randaugment", "augment.randaugment_magnitude=20") == (True, [])


def test_a_rate_that_nothing_is_trained_at_is_pointed_out():
    def notes(*overrides: str) -> list[str]:
        config = schema.compose(["data=digits", "data.subset=60", "optimizer=muon", *overrides])
        return build_parts(config, load_splits(config.data), CPU).notes

    assert notes() == []
    assert notes("model=mobilenet_v2", "model.freeze=features")[-1].startswith("optimizer=muon: no weight lies between hidden")


def test_auto_draws_the_same_random_numbers_as_what_it_means():
    drawn = []
    for precision in ("auto", "fp32"):
        parts_of(f"train.precision={precision}", "device=cpu")
        drawn.append(torch.rand(3))
    assert torch.equal(*drawn)


def test_a_model_is_checked_for_the_size_of_pictures_only_where_that_is_known(monkeypatch):
    monkeypatch.setitem(DATASETS, "mine", "lab:mine")
    config = schema.compose(["model=vit", "model.patch_size=7"])
    with pytest.raises(ConfigError, match="input_size=32; must be a multiple of patch_size, 7"):
        check_builders([config])
    config.data.name = "mine"  # of 28 pixels, perhaps
    check_builders([config])
    config.data.input_size = 32
    with pytest.raises(ConfigError, match="input_size=32; must be a multiple of patch_size, 7"):
        check_builders([config])


def test_patience_may_wait_for_the_validation_images_that_a_folder_brings(tmp_path):
    for part, count in (("train", 8), ("val", 2), ("test", 2)):
        for number in range(2 * count):
            path = tmp_path / part / ("cat", "dog")[number % 2] / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = np.random.default_rng(len(part) + 10 * number).integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(path)
    words = ("data=folder", f"data.root={tmp_path}", "data.image_size=8", "data.val_fraction=0", "train.patience_epochs=3")
    parts_of(*words, "train.monitor=val_loss")
    shutil.rmtree(tmp_path / "val")
    with pytest.raises(ConfigError, match=r"train\.monitor=val_loss with data\.val_fraction=0; patience needs validation images"):
        parts_of(*words, "train.monitor=val_loss")
    parts_of(*words, "train.monitor=train_loss")
    with pytest.raises(ConfigError, match="patience needs validation images"):  # known without the data
        schema.compose(["data=cifar10", "data.val_fraction=0", "train.patience_epochs=3", "train.monitor=val_loss"])


class Failing(nn.Module):
    def __init__(self, text: str):
        super().__init__()
        self.text = text

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        raise RuntimeError(self.text)


def test_what_the_gpu_says_is_not_blamed_on_the_model():
    with pytest.raises(RuntimeError, match="CUBLAS_STATUS_ALLOC_FAILED"):
        check_forward(Failing("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`"), "it", 10, 32, CPU)
    with pytest.raises(ConfigError, match="model=it does not take images of 32x32 pixels: mat1 and mat2"):
        check_forward(Failing("mat1 and mat2 shapes cannot be multiplied"), "it", 10, 32, CPU)


@pytest.mark.parametrize("model", ["dense_dnn", "few_param_resnet", "mobilenet_v2", "efficientnet_b0"])
def test_a_batch_of_one_image_that_a_batch_norm_cannot_train_on_is_refused(model):
    """torch raises in training mode alone, at the last batch of the first epoch."""
    last = r"cannot be trained on a batch of one image, which the last one of 31 images is at train\.batch_size=10: Expected more"
    with pytest.raises(ConfigError, match=last) as caught:
        parts_of(f"model={model}", "data.subset=31", "train.batch_size=10")
    assert caught.value.hint == "train.drop_last=true or another train.batch_size"


def test_only_a_batch_of_one_is_tried_and_nothing_of_the_model_changes():
    with pytest.raises(ConfigError, match=r"which each is at train\.batch_size=1: ") as caught:
        parts_of("model=dense_dnn", "train.batch_size=1")
    assert caught.value.hint == "train.batch_size=2 or more"
    for fine in ("data.subset=30", "train.drop_last=true", "train.epochs=0"):
        parts_of("model=dense_dnn", "data.subset=31", "train.batch_size=10", fine)
    config = schema.compose(["data=digits", "data.subset=31", "train.batch_size=10", "model.batch_norm_first=true"])
    lone, whole = (
        build_parts(c, load_splits(c.data), CPU) for c in (config, replace(config, train=replace(config.train, drop_last=True)))
    )
    for ours, theirs in zip(lone.state.model.state_dict().values(), whole.state.model.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs)
    assert lone.state.model.training


class Shown(nn.Module):
    """Keeps what it is prepared with."""

    def prepare(self, images: torch.Tensor) -> None:
        self.images = images


@pytest.mark.parametrize(("each", "least", "most"), [(400, 135, 136), (100, 100, 100)])
def test_a_model_is_prepared_with_images_of_all_classes_of_a_folder(each, least, most):
    """A folder is read class by class."""
    labels = torch.arange(37).repeat_interleave(each)
    pixels = labels.to(torch.uint8)[:, None, None, None].expand(-1, 3, 2, 2).contiguous()
    images = ImageSet(pixels, labels, torch.arange(len(labels)))
    model = Shown()
    state = SimpleNamespace(model=model, device=CPU)
    config = schema.compose(["data=digits"])
    prepare_model(
        config, SimpleNamespace(splits=SimpleNamespace(train=images), state=state, normalization=((0.0,) * 3, (1.0,) * 3))
    )
    counts = (model.images[:, 0, 0, 0] * 255).round().to(torch.int64).bincount(minlength=37)
    assert counts.sum() == min(5000, 37 * each)
    assert (counts.min(), counts.max()) == (least, most)
