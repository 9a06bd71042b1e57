"""torchvision's networks under our head: the same numbers, another activation on request, no import before it is needed."""

import ast
from pathlib import Path

import pytest
import torch
import torchvision
from torch import nn

import cifar_lab.models
from cifar_lab.models.build import build_model

NAMES = ["mobilenet_v2", "efficientnet_b0"]


def build(name: str, **keywords) -> nn.Module:
    return build_model(name, **{"num_classes": 10, "input_size": 64, **keywords})


@pytest.mark.parametrize("name", NAMES)
def test_equals_torchvision_with_the_same_weights(name):
    torch.manual_seed(0)
    ours, theirs = build(name, dropout=0.0), getattr(torchvision.models, name)(num_classes=10, dropout=0.0)
    theirs.load_state_dict(dict(zip(theirs.state_dict(), ours.state_dict().values(), strict=True)))
    images = torch.randn(4, 3, 64, 64)
    for training in (False, True):  # in training under the same draws of stochastic depth
        torch.manual_seed(1)
        found = ours.train(training)(images)
        torch.manual_seed(1)
        expected = theirs.train(training)(images)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_keys_reach_torchvision():
    model = build("efficientnet_b0", stochastic_depth=0.0, dropout=0.5)
    depths = [m.p for m in model.modules() if isinstance(m, torchvision.ops.StochasticDepth)]
    assert depths
    assert not any(depths)
    assert model.dropout.p == 0.5
    assert build("mobilenet_v2", dropout=0.0).dropout.p == 0.0


def test_another_activation_leaves_the_gates_of_efficientnet():
    def gates(model: nn.Module) -> int:
        return sum(isinstance(m, nn.Sigmoid) for m in model.modules())

    assert gates(build("efficientnet_b0", activation="relu")) == gates(build("efficientnet_b0")) == 16


@pytest.mark.parametrize(
    ("name", "keywords", "message"),
    [
        ("mobilenet_v2", {"dropout": 1.0}, "dropout=1.0; must be 0 or more and less than 1"),
        ("efficientnet_b0", {"stochastic_depth": 1.5}, "stochastic_depth=1.5; must be 0 to 1"),
    ],
)
def test_refuses_what_cannot_be_built(name, keywords, message):
    with pytest.raises(ValueError) as error:
        build(name, **keywords)
    assert str(error.value) == message


def test_no_model_file_imports_torchvision_at_its_top():
    for path in Path(cifar_lab.models.__file__).parent.glob("*.py"):
        for node in ast.parse(path.read_text()).body:
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else [getattr(node, "module", None) or ""]
            assert not any(name.split(".")[0] == "torchvision" for name in names), path.name
