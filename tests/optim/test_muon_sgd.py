"""Muon with SGD: against the steps of airbench94_muon written out, and as one object that is saved and restored."""

import copy

import pytest
import torch
from torch import nn

from cifar_lab.models.build import build_model
from cifar_lab.optim.muon_sgd import muon_sgd
from cifar_lab.optim.optimizers import build_optimizer
from cifar_lab.tables import COMPONENTS


def network() -> nn.Module:
    """As speednet is put together: a stem with a bias, two convolutions with batch norm, a head without bias."""
    torch.manual_seed(0)
    convs = [
        nn.Conv2d(3, 4, 2),
        nn.Conv2d(4, 6, 3, bias=False),
        nn.BatchNorm2d(6),
        nn.Conv2d(6, 5, 3, bias=False),
        nn.BatchNorm2d(5),
    ]
    return nn.Sequential(*convs, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 7, bias=False)).double()


def fill_gradients(model: nn.Module, step: int) -> None:
    generator = torch.Generator().manual_seed(step)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)


def newton_schulz(matrix: torch.Tensor, steps: int) -> torch.Tensor:
    x = matrix.mT if matrix.shape[0] > matrix.shape[1] else matrix
    x = x / (x.norm() + 1e-7)
    for _ in range(steps):
        a = x @ x.mT
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return x.mT if matrix.shape[0] > matrix.shape[1] else x


def test_two_steps_are_those_of_airbench():
    """Its own form: summed momentum, rates of the bias and of the head, decay over the rate; all in float64."""
    lr, momentum, sgd_lr, sgd_momentum, bias_factor, decay = 0.24, 0.6, 1.5, 0.85, 64.0, 0.004
    model = network()
    filters = {name for name, p in model.named_parameters() if p.ndim == 4 and not name.startswith("0.")}
    weights = {name: p.detach().clone() for name, p in model.named_parameters()}
    buffers = {name: torch.zeros_like(p) for name, p in weights.items()}
    optimizer = build_optimizer("muon_sgd", model, decay_all=True, lr=lr, sgd_lr=sgd_lr, weight_decay=decay)
    for step in range(2):
        fill_gradients(model, step)
        gradients = {name: p.grad.clone() for name, p in model.named_parameters()}
        optimizer.step()
        for name, weight in weights.items():
            gradient, buffer = gradients[name], buffers[name]
            if name in filters:
                buffer.mul_(momentum).add_(gradient)
                direction = (gradient + momentum * buffer).flatten(1)
                weight.mul_(len(weight) ** 0.5 / weight.norm())
                weight.sub_(lr * newton_schulz(direction, 3).view(weight.shape))
            else:
                rate = sgd_lr * bias_factor if weight.ndim == 1 else sgd_lr
                gradient = gradient + decay / rate * weight
                buffer.mul_(sgd_momentum).add_(gradient)
                weight.sub_(rate * (gradient + sgd_momentum * buffer))
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.detach(), weights[name], rtol=1e-5, atol=1e-5)  # the iteration is in float32


def test_each_kind_of_parameter_has_its_rate():
    model = build_model("speednet", num_classes=10, input_size=32)
    optimizer = build_optimizer("muon_sgd", model, decay_all=True, weight_decay=0.004)
    rates = {id(p): (g["lr"], round(g["lr"] * g["weight_decay"], 9)) for g in optimizer.param_groups for p in g["params"]}
    found = {name: rates[id(p)] for name, p in model.named_parameters() if p.requires_grad}
    assert {v for n, v in found.items() if "groups" in n and n.endswith("weight")} == {(0.24, 0.0)}
    assert {v for n, v in found.items() if n.endswith("bias")} == {(1.656 * 64, 0.004)}
    assert found["head.weight"] == (1.656, 0.004)
    assert len(found) == len([p for p in model.parameters() if p.requires_grad])


def test_without_decay_all_biases_are_not_decayed():
    optimizer = build_optimizer("muon_sgd", network(), weight_decay=0.004)
    assert {g["weight_decay"] == 0.0 for g in optimizer.param_groups if g["params"][0].ndim == 1} == {True}


def test_a_restored_optimiser_goes_on_as_the_first_one():
    model = network()
    optimizer = build_optimizer("muon_sgd", model, weight_decay=0.004, decay_all=True)
    fill_gradients(model, 0)
    optimizer.step()
    twin = copy.deepcopy(model)
    restored = build_optimizer("muon_sgd", twin, weight_decay=0.004, decay_all=True)
    restored.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for one, its in ((model, optimizer), (twin, restored)):
        fill_gradients(one, 1)
        its.step()
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), twin.parameters(), strict=True))


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"momentum": 1.0}, "momentum=1.0; must be"),
        ({"sgd_momentum": 0.0}, "sgd_momentum=0.0; must be more than 0"),
        ({"sgd_lr": 0.0}, "sgd_lr=0.0; must be a finite number above 0"),
        ({"bias_lr_factor": -1.0}, "bias_lr_factor=-1.0; must be"),
        ({"ns_steps": 0}, "ns_steps=0; must be 1 to 50"),
        ({"weight_decay": -0.1}, "weight_decay=-0.1; must be"),
    ],
)
def test_what_is_out_of_range_is_refused(settings, text):
    with pytest.raises(ValueError, match=text):
        muon_sgd(network().parameters(), **settings)


def test_it_is_in_the_table():
    assert COMPONENTS["optimizer"]["muon_sgd"].endswith(":muon_sgd")
