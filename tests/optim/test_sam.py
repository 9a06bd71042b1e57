"""SAM against the equations of its paper, written out slowly."""

import copy

import pytest
import torch
from torch import nn

from cifar_lab.optim.optimizers import build_optimizer


def network() -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 4, 3), nn.LayerNorm((4, 4, 4)), nn.Tanh(), nn.Flatten(), nn.Linear(64, 5)]
    return nn.Sequential(*layers).double()


def loss_of(model: nn.Module, step: int) -> torch.Tensor:
    images = torch.randn(6, 3, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(step))
    return nn.functional.cross_entropy(model(images), torch.arange(6) % 5)


def two_passes(model, optimizer, step):
    optimizer.zero_grad()
    loss_of(model, step).backward()
    with optimizer.perturbed():
        optimizer.zero_grad()
        loss_of(model, step).backward()
    optimizer.step()


def by_hand(model: nn.Module, step: int, velocity: dict[str, torch.Tensor], *, lr, rho, momentum, nesterov, weight_decay):
    """Algorithm 1: g = grad L(w); e = rho g / |g|_2; w <- w - lr (grad L(w + e) + decay), with torch's momentum."""
    weights = {name: p.detach().clone() for name, p in model.named_parameters()}

    def gradient(at):
        asked = {name: value.clone().requires_grad_() for name, value in at.items()}
        images = torch.randn(6, 3, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(step))
        loss = nn.functional.cross_entropy(torch.func.functional_call(model, asked, (images,)), torch.arange(6) % 5)
        return dict(zip(asked, torch.autograd.grad(loss, list(asked.values())), strict=True))

    first = gradient(weights)
    length = sum((g**2).sum() for g in first.values()).sqrt()
    second = gradient({name: w + rho * first[name] / length for name, w in weights.items()})
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            is_decayed = name in ("0.weight", "4.weight")
            g = second[name] + (weight_decay * weights[name] if is_decayed else 0.0)
            velocity[name] = momentum * velocity[name] + g if name in velocity else g.clone()
            parameter -= lr * (g + momentum * velocity[name] if nesterov else velocity[name])


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("weight_decay", [0.0, 0.05])
def test_equals_the_paper_s_algorithm(momentum, nesterov, weight_decay):
    if nesterov and not momentum:
        pytest.skip("refused")
    settings = {"lr": 0.1, "rho": 0.3, "momentum": momentum, "nesterov": nesterov, "weight_decay": weight_decay}
    ours, theirs, velocity = network(), network(), {}
    optimizer = build_optimizer("sam", ours, **settings)
    for step in range(6):
        two_passes(ours, optimizer, step)
        by_hand(theirs, step, velocity, **settings)
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def test_rho_0_is_sgd_to_the_bit_and_rho_matters():
    ends = {}
    for rho in (None, 0.0, 0.3):
        model = network()
        settings = {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.05}
        optimizer = (
            build_optimizer("sgd", model, **settings) if rho is None else build_optimizer("sam", model, rho=rho, **settings)
        )
        for step in range(5):
            if rho is None:
                optimizer.zero_grad()
                loss_of(model, step).backward()
                optimizer.step()
            else:
                two_passes(model, optimizer, step)
        ends[rho] = [p.detach().clone() for p in model.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(ends[None], ends[0.0], strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(ends[None], ends[0.3], strict=True))


def test_the_weights_move_by_rho_and_come_back_exactly_whatever_happens():
    model = network()
    optimizer = build_optimizer("sam", model, rho=0.25)
    before = copy.deepcopy(list(model.parameters()))
    loss_of(model, 0).backward()

    def fail():
        with optimizer.perturbed():
            moved = [p.detach() - b for p, b in zip(model.parameters(), before, strict=True)]
            raise KeyboardInterrupt(torch.cat([m.flatten() for m in moved]).norm().item())

    with pytest.raises(KeyboardInterrupt) as caught:
        fail()
    assert caught.value.args[0] == pytest.approx(0.25, rel=1e-9)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_a_gradient_that_is_zero_not_finite_or_missing_leaves_the_weights_whole():
    model = network()
    optimizer = build_optimizer("sam", model)
    before = copy.deepcopy(list(model.parameters()))
    for value in (None, 0.0, float("nan"), float("inf")):
        for parameter in model.parameters():
            parameter.grad = None if value is None else torch.full_like(parameter, value)
        with optimizer.perturbed():
            is_unmoved = all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
            assert is_unmoved is (value in (None, 0.0))
        assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_decay_all_and_the_default():
    model = network()
    groups = build_optimizer("sam", model, weight_decay=0.1, rho=0.2).param_groups
    assert [(len(g["params"]), g["weight_decay"], g["rho"]) for g in groups] == [(2, 0.1, 0.2), (4, 0.0, 0.2)]
    groups = build_optimizer("sam", model, weight_decay=0.1, decay_all=True).param_groups
    assert [(len(g["params"]), g["weight_decay"]) for g in groups] == [(6, 0.1)]
