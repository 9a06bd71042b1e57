"""The published recipes, setting by setting, as the write-ups state them: a preset that is changed for one changes no other."""

from typing import Any

import pytest

from cifar_lab import schema
from cifar_lab.config import AugmentConfig, flatten, to_plain
from cifar_lab.tables import conf_dir

ADAM: dict[str, Any] = {
    "optimizer.name": "adam",
    "optimizer.lr": 1e-3,
    "optimizer.weight_decay": 0.0,
    "schedule.name": "constant",
}
CROP_FLIP = {"augment.crop_padding_px": 4, "augment.flip_probability": 0.5, "augment.crop_padding_mode": "zero"}
D0 = {
    **ADAM,
    **CROP_FLIP,
    "optimizer.weight_decay": 1e-4,
    "optimizer.decay_all": True,  # torch's own weight_decay, an L2 penalty on everything
    "schedule.name": "plateau",
    "train.batch_size": 128,
    "train.epochs": 100,
    "data.normalize": "half",
    "data.val_fraction": 0.2,  # 10,000 of 50,000
}
D1 = {
    **ADAM,
    "train.batch_size": 128,
    "train.epochs": 50,
    "train.patience_epochs": 5,
    "train.monitor": "val_loss",
    "train.select": "best",
    "data.normalize": "unit",
    "data.val_fraction": 0.2,
    "data.split": "tail",
}
D4 = {**CROP_FLIP, "train.batch_size": 128, "data.normalize": "cifar"}
RECIPES: dict[str, dict[str, Any]] = {
    "d0_separable_densenet": {**D0, "model.name": "separable_densenet", "model.conv": "separable"},
    "d0_traditional_cnn": {**D0, "model.name": "traditional_cnn"},
    "d1_alexnet_like": {**D1, "model.name": "alexnet_like"},
    "d1_mobilenet_like": {**D1, "model.name": "mobilenet_like"},
    "d2_few_param_resnet": {
        "model.name": "few_param_resnet",
        "optimizer.name": "sgd",
        "optimizer.lr": 0.01,
        "optimizer.momentum": 0.9,
        "optimizer.nesterov": False,
        "optimizer.weight_decay": 0.005,
        "optimizer.decay_all": True,
        "schedule.name": "cosine",
        "schedule.eta_min": 1e-8,
        "schedule.warmup_epochs": 0.0,
        "train.batch_size": 64,
        "train.epochs": 40,
        "augment.policy": "autoaugment",
        "data.input_size": 320,
        "data.normalize": "cifar",
        "data.val_fraction": 0.1,  # 5,000 of 50,000
    },
    "d3_small_cnn": {
        **ADAM,
        "model.name": "small_cnn",
        "optimizer.lr": 0.01,
        "train.batch_size": 32,
        "train.epochs": 20,
        "data.val_fraction": 0.2,
    },
    "d3_mobilenet_v2": {
        **ADAM,
        "model.name": "mobilenet_v2",
        "model.weights": "imagenet",
        "model.freeze": "features",
        "train.batch_size": 32,
        "data.input_size": 224,
        "data.normalize": "imagenet",
    },
    "d4_dense_dnn": {
        **ADAM,
        "model.name": "dense_dnn",
        "train.batch_size": 128,
        "train.epochs": 15,
        "data.normalize": "unit",
        "data.val_fraction": 0.2,
        "data.split": "tail",
    },
    "d4_tf_cnn": {**ADAM, **D4, "model.name": "tf_cnn", "schedule.name": "plateau"},
    "d4_custom_cnn": {**D4, "model.name": "custom_cnn", "schedule.name": "one_cycle"},
    "d4_resnet18": {
        **D4,
        "model.name": "resnet18",
        "model.stem": "cifar",
        "optimizer.name": "sgd",
        "optimizer.lr": 0.1,
        "optimizer.momentum": 0.9,
        "optimizer.weight_decay": 5e-4,
        "schedule.name": "plateau",
    },
}
AUGMENTED = ("d0_", "d2_", "d4_tf", "d4_custom", "d4_resnet")


@pytest.fixture(autouse=True, scope="module")
def _registered() -> None:
    schema.register()


def test_every_published_recipe_is_looked_at() -> None:
    files = {path.stem for path in (conf_dir() / "experiment").glob("d?_*.yaml")}
    assert files == set(RECIPES)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_what_its_write_up_states(name: str) -> None:
    config = schema.compose([f"experiment={name}"])
    found = flatten(to_plain(config))
    assert {key: found.get(key) for key in RECIPES[name]} == RECIPES[name]
    beyond = flatten({"augment": {k: v for k, v in vars(AugmentConfig()).items() if k != "name"}})
    expected = {**beyond, **{k: v for k, v in RECIPES[name].items() if k.startswith("augment.")}}
    assert {key: found[key] for key in expected} == expected, "nothing else is done to the images"
    assert any(name.startswith(start) for start in AUGMENTED) == any(value != beyond[key] for key, value in expected.items())
    plain = {"label_smoothing": 0.0, "ema_decay": 0.0, "grad_clip_norm": 0.0, "tta": "none", "accumulation_steps": 1}
    assert {key: getattr(config.train, key) for key in plain} == plain
