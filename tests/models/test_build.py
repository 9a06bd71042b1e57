"""Rows to networks and activations, those of plugins too."""

import copy
import sys
import types

import pytest
import torch
from torch import nn

from cifar_lab.models import ACTIVATIONS, MODELS
from cifar_lab.models.build import Elementwise, build_activation, build_model


@pytest.fixture
def plugin(monkeypatch):
    """A module of a person's own, as --plugin makes it importable, and tables that forget afterwards."""
    module = types.ModuleType("persons_lab")
    monkeypatch.setitem(sys.modules, "persons_lab", module)
    monkeypatch.setattr("cifar_lab.models.build.MODELS", dict(MODELS))
    monkeypatch.setattr("cifar_lab.models.build.ACTIVATIONS", dict(ACTIVATIONS))
    build = sys.modules["cifar_lab.models.build"]

    def add(kind: str, thing: object) -> None:
        module.thing = thing
        getattr(build, kind)["mine"] = "persons_lab:thing"

    return add


def test_a_builder_takes_the_reserved_keywords_it_names(plugin):
    def by_classes(num_classes: int, width: int = 2) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.LazyLinear(width), nn.Linear(width, num_classes))

    plugin("MODELS", by_classes)
    model = build_model("mine", num_classes=4, input_size=16, width=5)
    assert model(torch.zeros(2, 3, 16, 16)).shape == (2, 4)

    plugin("MODELS", lambda: nn.Flatten())
    assert build_model("mine", num_classes=4, input_size=16)(torch.zeros(2, 3, 16, 16)).shape == (2, 768)


def test_a_builder_must_return_a_network(plugin):
    plugin("MODELS", lambda: "a network")
    with pytest.raises(ValueError, match=r"^model=mine; persons_lab:thing must return a torch\.nn\.Module, not str$"):
        build_model("mine", num_classes=4, input_size=16)


def test_unknown_names_are_refused_with_all_known_ones():
    with pytest.raises(ValueError, match=r"^model=resnet; must be one of small_cnn, resnet18"):
        build_model("resnet", num_classes=10, input_size=32)
    with pytest.raises(ValueError, match=r"^activation=rleu; must be one of relu, leaky_relu"):
        build_model("small_cnn", num_classes=10, input_size=32, activation="rleu")


def test_an_unknown_keyword_is_not_swallowed():
    with pytest.raises(TypeError, match="kernal_size"):
        build_model("small_cnn", num_classes=10, input_size=32, kernal_size=5)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_every_activation_is_a_fresh_layer_that_keeps_the_shape_and_passes_a_gradient(name):
    first, second = build_activation(name), build_activation(name)
    assert first is not second
    assert isinstance(first, nn.Module)
    x = torch.linspace(-2, 2, 24).reshape(2, 3, 2, 2).requires_grad_()
    y = first(x)
    assert y.shape == x.shape
    y.sum().backward()
    assert x.grad.any()


def test_a_function_of_a_tensor_becomes_a_layer(plugin):
    def squared_relu(x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x) ** 2

    plugin("ACTIVATIONS", squared_relu)
    layer = build_activation("mine")
    assert isinstance(layer, Elementwise)
    assert "squared_relu" in repr(layer)
    assert layer(torch.tensor([-1.0, 3.0])).tolist() == [0.0, 9.0]
    model = build_model("small_cnn", num_classes=10, input_size=32, activation="mine")
    twin = copy.deepcopy(model).eval()  # as an average of the weights is made
    image = torch.randn(1, 3, 32, 32)
    assert torch.equal(twin(image), model.eval()(image))

    plugin("ACTIVATIONS", torch.sin)  # written in C: no signature to look at
    assert torch.equal(build_activation("mine")(torch.ones(2)), torch.ones(2).sin())
    plugin("ACTIVATIONS", nn.functional.relu)
    assert build_activation("mine")(torch.tensor([-1.0])).item() == 0.0


def test_a_factory_is_called_and_a_module_is_copied(plugin):
    def leaky(slope: float = 0.5) -> nn.Module:
        return nn.LeakyReLU(slope)

    plugin("ACTIVATIONS", leaky)
    assert build_activation("mine").negative_slope == 0.5
    shared = nn.PReLU()
    plugin("ACTIVATIONS", shared)
    assert build_activation("mine") is not shared
    assert build_activation("mine").weight is not shared.weight


def test_what_is_no_activation_is_refused(plugin):
    class NeedsWidth(nn.Module):
        def __init__(self, width: int):
            super().__init__()

    plugin("ACTIVATIONS", NeedsWidth)
    with pytest.raises(ValueError, match=r"^activation=mine; persons_lab:thing is a class that needs arguments"):
        build_activation("mine")
    plugin("ACTIVATIONS", lambda: 3)
    with pytest.raises(ValueError, match=r"^activation=mine; persons_lab:thing must return a torch\.nn\.Module, not int$"):
        build_activation("mine")
