"""Muon against torch's own on matrices, against the published iteration on convolutions, and AdamW beside it."""

import copy

import pytest
import torch
from torch import nn

from cifar_lab.optim.groups import hidden_weights
from cifar_lab.optim.muon import Muon, muon, orthogonalize
from cifar_lab.optim.optimizers import build_optimizer


@pytest.fixture
def in_bfloat16(monkeypatch):
    """As torch and as on CUDA; here it would be float32."""
    monkeypatch.setattr("cifar_lab.optim.muon.iteration_dtype", lambda device: torch.bfloat16)


def network() -> nn.Module:
    """First layer, a convolution, a grouped one and a matrix between, and a last layer, in the layout of real runs."""
    torch.manual_seed(0)
    convs = [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 6, 3), nn.ReLU(), nn.Conv2d(6, 6, 3, padding=1, groups=6)]
    model = nn.Sequential(*convs, nn.ReLU(), nn.Flatten(), nn.Linear(96, 8), nn.ReLU(), nn.Linear(8, 5))
    return model.to(memory_format=torch.channels_last)


def backward(model: nn.Module, step: int) -> None:
    generator = torch.Generator().manual_seed(step)
    images = torch.randn(6, 3, 8, 8, generator=generator)
    model.zero_grad(set_to_none=True)
    nn.functional.cross_entropy(model(images), torch.arange(6) % 5).backward()


def reference_direction(gradient: torch.Tensor, steps: int = 5) -> torch.Tensor:
    """Newton-Schulz as published by Keller Jordan, written out, in float64."""
    x = gradient.double().reshape(len(gradient), -1)
    turned = x.shape[0] > x.shape[1]
    x = x.mT if turned else x
    x = x / (x.norm() + 1e-7)
    for _ in range(steps):
        a = x @ x.mT
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return (x.mT if turned else x).reshape(gradient.shape)


@pytest.mark.parametrize("shape", [(5, 9), (9, 5), (7, 7)])
@pytest.mark.parametrize("nesterov", [True, False])
@pytest.mark.parametrize("adjust_lr", ["original", "match_rms_adamw"])
def test_a_matrix_is_updated_as_by_torch_to_the_bit(shape, nesterov, adjust_lr, in_bfloat16):
    torch.manual_seed(1)
    ours = nn.Parameter(torch.randn(shape))
    theirs = nn.Parameter(ours.detach().clone())
    settings = {"lr": 0.05, "momentum": 0.9, "nesterov": nesterov, "weight_decay": 0.1}
    one = muon([ours], adjust_lr=adjust_lr, **settings)
    other = torch.optim.Muon([theirs], adjust_lr_fn=adjust_lr, **settings)
    for _ in range(4):
        ours.grad = torch.randn(shape)
        theirs.grad = ours.grad.clone()
        one.step()
        other.step()
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_convolution_counts_as_one_matrix_whatever_its_layout(layout, in_bfloat16):
    torch.manual_seed(2)
    weight = torch.randn(6, 4, 3, 3).to(memory_format=layout)
    gradient = torch.randn(6, 4, 3, 3).to(memory_format=layout)
    parameter = nn.Parameter(weight.clone(memory_format=torch.preserve_format))
    parameter.grad = gradient
    muon([parameter], lr=0.1, momentum=0.5, nesterov=True, weight_decay=0.2).step()
    moved = (weight * (1 - 0.1 * 0.2) - parameter.detach()) / 0.1
    torch.testing.assert_close(moved.double(), reference_direction(0.75 * gradient), rtol=0.0, atol=0.03)  # bfloat16
    # as torch's on the flattened weight
    flat = nn.Parameter(weight.flatten(1).clone())
    flat.grad = gradient.flatten(1).clone()
    torch.optim.Muon([flat], lr=0.1, momentum=0.5, nesterov=True, weight_decay=0.2).step()
    assert torch.equal(parameter.detach().flatten(1), flat.detach())


def test_on_a_cpu_the_iteration_is_that_of_float32():
    torch.manual_seed(2)
    weight, gradient = torch.randn(6, 4, 3, 3), torch.randn(6, 4, 3, 3)
    parameter = nn.Parameter(weight.clone())
    parameter.grad = gradient
    muon([parameter], lr=0.1, momentum=0.0, nesterov=False, weight_decay=0.0).step()
    moved = (weight - parameter.detach()) / 0.1
    torch.testing.assert_close(moved.double(), reference_direction(gradient), rtol=0.0, atol=1e-5)


@pytest.mark.parametrize("shape", [(4, 16), (16, 4)])
def test_singular_values_come_near_one(shape):
    torch.manual_seed(0)
    values = torch.linalg.svdvals(orthogonalize(torch.randn(shape), 5).double())
    assert 0.6 < values.min() < values.max() < 1.3


def test_who_is_hidden():
    model = network()
    assert hidden_weights(model) == {id(model[2].weight), id(model[7].weight)}
    model[2].requires_grad_(False)
    assert hidden_weights(model) == {id(model[7].weight)}
    assert hidden_weights(nn.Sequential(nn.Linear(2, 2))) == frozenset()
    assert hidden_weights(nn.BatchNorm2d(3)) == frozenset()


def test_everything_else_is_adamw_s():
    model, twin = network(), network()
    optimizer = build_optimizer("muon", model, lr=0.02, adamw_lr=0.01, weight_decay=0.1)
    hidden = [twin[2].weight, twin[7].weight]
    decayed = [p for p in twin.parameters() if p.ndim > 1 and all(p is not h for h in hidden)]
    rest = [p for p in twin.parameters() if p.ndim <= 1]
    adamw = torch.optim.AdamW([{"params": decayed}, {"params": rest, "weight_decay": 0.0}], lr=0.01, weight_decay=0.1, fused=True)
    matrices = muon(hidden, lr=0.02, weight_decay=0.1)
    for step in range(4):
        backward(model, step)
        backward(twin, step)
        optimizer.step()
        adamw.step()
        matrices.step()
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), twin.parameters(), strict=True))


def test_groups_and_decay():
    model = network()
    found = [
        (len(g["params"]), g["lr"], g["weight_decay"]) for g in build_optimizer("muon", model, lr=0.3, adamw_lr=0.2).param_groups
    ]
    assert found == [(2, 0.3, 0.01), (3, 0.2, 0.01), (7, 0.2, 0.0)]
    everything = build_optimizer("muon", model, decay_all=True, weight_decay=0.5).param_groups
    assert [(len(g["params"]), g["weight_decay"]) for g in everything] == [(2, 0.5), (10, 0.5)]
    without_hidden = build_optimizer("muon", nn.Linear(2, 2), adamw_lr=0.2)
    assert [g["lr"] for g in without_hidden.param_groups] == [0.2, 0.2]


def test_rates_set_from_outside_hold_for_both_parts_also_after_loading():
    model = network()
    optimizer = build_optimizer("muon", model)
    backward(model, 0)
    optimizer.step()
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    before = [p.detach().clone() for p in model.parameters()]
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    backward(model, 1)
    optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_is_saved_and_restored_exactly():
    model, twin = network(), network()
    optimizer = build_optimizer("muon", model)
    for step in range(3):
        backward(model, step)
        optimizer.step()
    twin.load_state_dict(model.state_dict())
    restored = build_optimizer("muon", twin)
    restored.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert isinstance(restored, Muon)
    assert len(restored.state) == len(list(model.parameters()))
    for step in range(3, 6):
        for each, its in ((model, optimizer), (twin, restored)):
            backward(each, step)
            its.step()
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), twin.parameters(), strict=True))


def test_a_closure_is_refused_and_parameters_without_gradient_stay():
    model = network()
    optimizer = build_optimizer("muon", model)
    with pytest.raises(ValueError, match=r"^Muon takes no closure$"):
        optimizer.step(lambda: 0.0)
    before = copy.deepcopy(model.state_dict())
    optimizer.step()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
