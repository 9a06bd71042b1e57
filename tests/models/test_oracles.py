"""What every model must be: its published size and cost, and trainable to the last parameter.

A new model is one more line in ``ORACLES``.
"""

import inspect
import pkgutil

import pytest
import torch
from torch import nn

from cifar_lab.models import MODELS
from cifar_lab.models.build import build_model

# name, keywords, trainable parameters with 10 classes, multiplies of convolutions and linear layers, at this input size
ORACLES = [
    ("small_cnn", {}, 18_422, 0.63e6, 32),
    ("resnet18", {}, 11_173_962, 555.42e6, 32),
    ("resnet18", {"stem": "imagenet"}, 11_181_642, 1.814e9, 224),
]


def count_params(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def count_macs(model: nn.Module, input_size: int) -> int:
    """Multiplies of convolutions and linear layers for one image, by forward hooks on shapes alone."""
    total = 0

    def hook(module: nn.Module, args: tuple[torch.Tensor], output: torch.Tensor) -> None:
        nonlocal total
        per_output = module.weight[0].numel()  # in_channels / groups * kernel area, or in_features
        total += output.numel() * per_output

    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(hook)
    with torch.no_grad():
        model.to("meta").eval()(torch.empty(1, 3, input_size, input_size, device="meta"))
    return total


@pytest.mark.parametrize(("name", "keywords", "params", "macs", "input_size"), ORACLES)
def test_size_and_cost_are_the_published_ones(name, keywords, params, macs, input_size):
    model = build_model(name, num_classes=10, input_size=input_size, **keywords)
    assert count_params(model) == params
    assert count_macs(model, input_size) == pytest.approx(macs, rel=0.01)


def test_every_model_has_an_oracle():
    assert {row[0] for row in ORACLES} == set(MODELS)


@pytest.mark.parametrize("num_classes", [10, 37])
@pytest.mark.parametrize("name", MODELS)
def test_every_parameter_gets_a_gradient_in_one_step(name, num_classes):
    torch.manual_seed(0)
    model = build_model(name, num_classes=num_classes, input_size=32)
    logits = model(torch.randn(4, 3, 32, 32))
    assert logits.shape == (4, num_classes)
    nn.functional.cross_entropy(logits, torch.arange(4)).backward()
    without = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any() or not p.grad.isfinite().all()]
    assert without == []


@pytest.mark.parametrize("input_size", [24, 33, 48])
@pytest.mark.parametrize("name", MODELS)
def test_other_input_sizes(name, input_size):
    model = build_model(name, num_classes=5, input_size=input_size).eval()
    assert model(torch.randn(2, 3, input_size, input_size)).shape == (2, 5)


@pytest.mark.parametrize("name", MODELS)
def test_every_convolutional_model_takes_an_activation(name):
    assert "activation" in inspect.signature(pkgutil.resolve_name(MODELS[name])).parameters
    default = build_model(name, num_classes=10, input_size=32)
    changed = build_model(name, num_classes=10, input_size=32, activation="tanh")
    default_kind = {"small_cnn": nn.ReLU, "resnet18": nn.ReLU}[name]
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
