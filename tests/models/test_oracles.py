"""What every model must be: its published size and cost, and trainable to the last parameter.

A new model is one more line in ``ORACLES``.
"""

import inspect
import pkgutil

import pytest
import torch
from torch import nn

from cifar_lab.analysis.cost import model_cost
from cifar_lab.models import MODELS
from cifar_lab.models.build import build_model

# name, keywords, trainable parameters with 10 classes, million multiplies of convolutions and linear layers at this input size
ORACLES = [
    ("small_cnn", {}, 18_422, 0.63, 32),
    ("mobilenet_like", {}, 49_674, 7.69, 32),
    ("separable_densenet", {"conv": "separable"}, 110_245, 107.74, 32),
    ("separable_densenet", {"conv": "standard"}, 309_002, 311.26, 32),
    ("few_param_resnet", {}, 387_712, 124.20, 320),
    ("few_param_resnet", {}, 387_712, 60.87, 224),
    ("few_param_resnet", {}, 387_712, 1.26, 32),
    ("tf_cnn", {}, 1_194_282, 30.25, 32),
    ("dense_dnn", {}, 1_747_530, 1.75, 32),
    ("custom_cnn", {}, 1_806_154, 190.58, 32),
    ("mobilenet_v2", {}, 2_236_682, 299.51, 224),
    ("traditional_cnn", {}, 2_360_138, 98.24, 32),
    ("alexnet_like", {}, 5_687_562, 81.99, 32),
    ("resnet18", {}, 11_173_962, 555.42, 32),
    ("resnet18", {"stem": "imagenet"}, 11_181_642, 1813.57, 224),
    ("efficientnet_b0", {}, 4_020_358, 384.55, 224),
    ("vit", {}, 2_697_226, 170.46, 32),
    ("speednet", {}, 1_971_352, 118.15, 32),
]
# What stands after the layers as published; its number is what `activation` changes.
ACTIVATION = dict.fromkeys(MODELS, nn.ReLU) | {
    "few_param_resnet": nn.ReLU6,
    "mobilenet_v2": nn.ReLU6,
    "efficientnet_b0": nn.SiLU,
    "vit": nn.GELU,
    "speednet": nn.GELU,
}
# 33 px cannot be tiled by the patches of the ViT, which says so (test_vit.py).
OTHER_SIZES = [(name, size) for name in MODELS for size in (24, 33, 48) if (name, size) != ("vit", 33)]


def count_params(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def count_macs(model: nn.Module, input_size: int) -> int:
    """Multiplies of convolutions and linear layers for one image; the model is on the meta device, where only shapes exist."""
    total = 0

    def hook(module: nn.Module, args: tuple[torch.Tensor], output: torch.Tensor) -> None:
        nonlocal total
        per_output = module.weight[0].numel()  # in_channels / groups * kernel area, or in_features
        total += output.numel() * per_output

    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(hook)
    with torch.no_grad():
        model.eval()(torch.empty(1, 3, input_size, input_size, device="meta"))
    return total


@pytest.mark.parametrize(("name", "keywords", "params", "macs", "input_size"), ORACLES)
def test_size_and_cost_are_the_published_ones(name, keywords, params, macs, input_size):
    with torch.device("meta"):
        model = build_model(name, num_classes=10, input_size=input_size, **keywords)
    assert count_params(model) == params
    assert round(count_macs(model, input_size) / 1e6, 2) == macs


# Inside the attention: 9 layers, queries times keys and weights times values, each 64 x 64 tokens x 192.
@pytest.mark.parametrize(("name", "attention"), [("few_param_resnet", 0), ("speednet", 0), ("vit", 9 * 2 * 64 * 64 * 192)])
def test_the_cost_that_a_run_reports_is_the_same(name, attention):
    with torch.device("meta"):
        counted = count_macs(build_model(name, num_classes=10, input_size=32), 32)
    cost = model_cost(build_model(name, num_classes=10, input_size=32), (3, 32, 32))
    assert cost["macs"] == counted + attention


def test_every_model_has_an_oracle():
    assert {row[0] for row in ORACLES} == set(MODELS)


@pytest.mark.parametrize("name", MODELS)
def test_every_trainable_parameter_gets_a_gradient_in_one_step(name):
    torch.manual_seed(0)
    model = build_model(name, num_classes=10, input_size=32)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    loss = nn.functional.cross_entropy(model(torch.randn(4, 3, 32, 32)), torch.arange(4))
    loss.backward()
    trainable = {n: p.grad for n, p in model.named_parameters() if p.requires_grad}
    assert [n for n, grad in trainable.items() if grad is None or not grad.any() or not grad.isfinite().all()] == []
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    optimizer.step()
    assert loss.isfinite()
    assert all(p.isfinite().all() for p in model.parameters())
    assert all(torch.equal(before[n], p) for n, p in model.named_parameters() if not p.requires_grad)


@pytest.mark.parametrize(("name", "input_size"), OTHER_SIZES)
def test_other_input_sizes_and_numbers_of_classes(name, input_size):
    model = build_model(name, num_classes=37, input_size=input_size).eval()
    assert model(torch.randn(1, 3, input_size, input_size)).shape == (1, 37)


@pytest.mark.parametrize("name", MODELS)
def test_every_model_takes_an_activation(name):
    assert "activation" in inspect.signature(pkgutil.resolve_name(MODELS[name])).parameters
    with torch.device("meta"):
        default = build_model(name, num_classes=10, input_size=32)
        changed = build_model(name, num_classes=10, input_size=32, activation="tanh")
    default_kind = ACTIVATION[name]
    count = sum(isinstance(m, default_kind) for m in default.modules())
    assert count > 0
    assert sum(isinstance(m, nn.Tanh) for m in changed.modules()) == count
    assert not any(isinstance(m, default_kind) for m in changed.modules())


@pytest.mark.parametrize("name", MODELS)
def test_layout_does_not_change_the_logits(name):
    torch.manual_seed(0)
    model = build_model(name, num_classes=10, input_size=32).eval()
    images = torch.randn(2, 3, 32, 32)
    plain = model(images)
    turned = model.to(memory_format=torch.channels_last)(images.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(turned, plain, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_the_last_layer_is_called_head_and_the_same_seed_builds_the_same_weights(name):
    torch.manual_seed(3)
    first = build_model(name, num_classes=7, input_size=32)
    torch.manual_seed(3)
    second = build_model(name, num_classes=7, input_size=32)
    assert isinstance(first.head, nn.Linear)
    assert first.head.out_features == 7
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
