"""Optimisers against torch's own, unfused ones, and against updates worked out by hand."""

import copy
import sys
import types

import pytest
import torch
from torch import nn

from cifar_lab.optim import OPTIMIZERS
from cifar_lab.optim.optimizers import adam, adamw, build_optimizer, param_groups, sgd

CASES = [
    ("adam", {"lr": 0.01}, torch.optim.Adam),
    ("adam", {"lr": 0.01, "betas": (0.8, 0.95), "eps": 1e-6, "weight_decay": 0.1}, torch.optim.Adam),
    ("adam", {"amsgrad": True}, torch.optim.Adam),
    ("adamw", {}, torch.optim.AdamW),
    ("adamw", {"lr": 0.02, "weight_decay": 0.3, "amsgrad": True}, torch.optim.AdamW),
    ("sgd", {"lr": 0.1}, torch.optim.SGD),
    ("sgd", {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.05}, torch.optim.SGD),
    ("sgd", {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.05}, torch.optim.SGD),
    ("rmsprop", {"lr": 0.01}, torch.optim.RMSprop),
    ("rmsprop", {"lr": 0.01, "alpha": 0.9, "eps": 1e-6, "weight_decay": 0.1}, torch.optim.RMSprop),
    ("rmsprop", {"lr": 0.01, "momentum": 0.8, "centered": True}, torch.optim.RMSprop),
]
UNFUSED = {"rmsprop"}


def network() -> nn.Module:
    """A little of everything; a ReLU before the norm, or the bias's gradient would be rounding noise that Adam blows up."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.BatchNorm2d(4), nn.Flatten(), nn.LayerNorm((64,)), nn.Linear(64, 5))


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> None:
    torch.manual_seed(1)
    for _ in range(steps):
        loss = nn.functional.cross_entropy(model(torch.randn(6, 3, 6, 6)), torch.arange(6) % 5)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()


@pytest.mark.parametrize(("name", "keywords", "peer"), CASES)
@pytest.mark.parametrize("steps", [1, 7])
def test_updates_equal_torchs_unfused_ones(name, keywords, peer, steps):
    ours, theirs = network(), network()
    optimizer = build_optimizer(name, ours, decay_all=True, **keywords)
    defaults = {"weight_decay": 0.01} if name == "adamw" else {}
    train(ours, optimizer, steps)
    unfused = {"foreach": False} if name in UNFUSED else {"foreach": False, "fused": False}
    train(theirs, peer(theirs.parameters(), **{"lr": 0.001, **defaults, **keywords}, **unfused), steps)
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
    assert optimizer.defaults.get("fused", False) is (name not in UNFUSED)


def test_every_row_is_compared():
    assert {name for name, _, _ in CASES} | {"sam", "muon", "muon_sgd"} == set(OPTIMIZERS), "those have a test file each"


def one_update(builder, **keywords) -> torch.Tensor:
    """The weights (1, -2) after one update with the gradient (0.5, 0.25)."""
    weight = nn.Parameter(torch.tensor([1.0, -2.0], dtype=torch.float64))
    weight.grad = torch.tensor([0.5, 0.25], dtype=torch.float64)
    builder([weight], **keywords).step()
    return weight.detach()


def test_one_update_by_hand():
    w, g = torch.tensor([1.0, -2.0], dtype=torch.float64), torch.tensor([0.5, 0.25], dtype=torch.float64)
    torch.testing.assert_close(one_update(sgd, lr=0.1, weight_decay=0.2), w - 0.1 * (g + 0.2 * w))
    # Nesterov's first step looks ahead along the gradient itself
    torch.testing.assert_close(one_update(sgd, lr=0.1, momentum=0.9, nesterov=True), w - 0.1 * (g + 0.9 * g))
    # Adam's first step is lr in the direction of the sign, of gradient plus penalty
    torch.testing.assert_close(one_update(adam, lr=0.1, eps=0.0), w - 0.1 * g.sign())
    torch.testing.assert_close(one_update(adam, lr=0.1, eps=0.0, weight_decay=0.5), w - 0.1 * (g + 0.5 * w).sign())
    torch.testing.assert_close(one_update(adamw, lr=0.1, eps=0.0, weight_decay=0.5), w * (1 - 0.1 * 0.5) - 0.1 * g.sign())


PEERS = [
    ("adam", torch.optim.Adam),
    ("adamw", torch.optim.AdamW),
    ("sgd", torch.optim.SGD),
    ("rmsprop", torch.optim.RMSprop),
    ("sam", torch.optim.SGD),  # without a second pass
]


@pytest.mark.parametrize(("name", "peer"), PEERS)
def test_biases_and_norms_are_not_decayed(name, peer):
    ours, theirs = network(), network()
    without_momentum = {"momentum": 0.0} if name == "sam" else {}
    train(ours, build_optimizer(name, ours, lr=0.01, weight_decay=0.5, **without_momentum), 5)
    conv, _, norm, _, layer_norm, linear = theirs
    groups = [
        {"params": [conv.weight, linear.weight], "weight_decay": 0.5},
        {"params": [conv.bias, *norm.parameters(), *layer_norm.parameters(), linear.bias], "weight_decay": 0.0},
    ]
    train(theirs, peer(groups, lr=0.01, foreach=False), 5)
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_groups():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.LayerNorm((4, 6, 6)), nn.PReLU(), nn.Flatten(), nn.Linear(144, 5))
    conv, norm, prelu, _, linear = model
    decayed, undecayed = param_groups(model, 0.1)
    assert [id(p) for p in decayed["params"]] == [id(conv.weight), id(linear.weight)]
    # the layer norm's weight has three dimensions and is no weight to decay all the same
    expected = [conv.bias, norm.weight, norm.bias, prelu.weight, linear.bias]
    assert [id(p) for p in undecayed["params"]] == [id(p) for p in expected]
    assert (decayed["weight_decay"], undecayed["weight_decay"]) == (0.1, 0.0)

    for groups in (param_groups(model, 0.1, decay_all=True), param_groups(model, 0.0)):
        assert len(groups) == 1
        assert len(groups[0]["params"]) == 7


def test_frozen_parameters_are_left_out_and_a_wholly_frozen_model_is_refused():
    model = network()
    model[0].requires_grad_(False)
    optimizer = build_optimizer("sgd", model)
    assert sum(len(g["params"]) for g in optimizer.param_groups) == len(list(model.parameters())) - 2
    with pytest.raises(ValueError, match=r"^the model has no trainable parameter$"):
        build_optimizer("sgd", model.requires_grad_(False))


def test_a_rate_on_the_optimizer_reaches_both_groups():
    optimizer = build_optimizer("adamw", network(), lr=0.3)
    assert [(g["lr"], g["weight_decay"]) for g in optimizer.param_groups] == [(0.3, 0.01), (0.3, 0.0)]


def test_an_optimizer_is_saved_and_restored_exactly():
    model, twin = network(), network()
    optimizer = build_optimizer("adam", model, lr=0.01, weight_decay=0.1)
    train(model, optimizer, 3)
    twin.load_state_dict(model.state_dict())
    restored = build_optimizer("adam", twin, lr=0.01, weight_decay=0.1)
    restored.load_state_dict(copy.deepcopy(optimizer.state_dict()))  # torch would share the tensors
    train(model, optimizer, 3)
    train(twin, restored, 3)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), twin.parameters(), strict=True))


def test_a_person_s_own_optimizer(monkeypatch):
    module = types.ModuleType("persons_lab")

    def sign_sgd(params, lr: float = 0.01) -> torch.optim.Optimizer:
        return torch.optim.Rprop(params, lr=lr)

    module.sign_sgd, module.wrong = sign_sgd, lambda params: None
    monkeypatch.setitem(sys.modules, "persons_lab", module)
    monkeypatch.setattr("cifar_lab.optim.optimizers.OPTIMIZERS", {"mine": "persons_lab:sign_sgd", "wrong": "persons_lab:wrong"})
    optimizer = build_optimizer("mine", network(), lr=0.2)
    assert isinstance(optimizer, torch.optim.Rprop)
    assert optimizer.param_groups[0]["lr"] == 0.2
    with pytest.raises(ValueError, match=r"^optimizer=wrong; persons_lab:wrong must return a torch optimiser, not NoneType$"):
        build_optimizer("wrong", network())
    with pytest.raises(ValueError, match=r"^optimizer=adam; must be one of mine, wrong$"):
        build_optimizer("adam", network())


@pytest.mark.parametrize(
    ("name", "keywords", "message"),
    [
        ("adam", {"lr": -1.0}, "lr=-1.0; must be a finite number, 0 or more"),
        ("adamw", {"lr": float("nan")}, "lr=nan; must be a finite number, 0 or more"),
        ("adam", {"betas": (0.9, 1.0)}, "betas=[0.9, 1.0]; must be two numbers, 0 or more and less than 1"),
        ("adam", {"eps": -1e-8}, "eps=-1e-08; must be a finite number, 0 or more"),
        ("sgd", {"momentum": 1.0}, "momentum=1.0; must be 0 or more and less than 1"),
        ("sgd", {"nesterov": True}, "nesterov=True; must be false where momentum=0"),
        ("sgd", {"weight_decay": -0.1}, "weight_decay=-0.1; must be a finite number, 0 or more"),
        ("rmsprop", {"alpha": 1.0}, "alpha=1.0; must be 0 or more and less than 1"),
        ("rmsprop", {"momentum": -0.1}, "momentum=-0.1; must be 0 or more and less than 1"),
        ("rmsprop", {"eps": -1.0}, "eps=-1.0; must be a finite number, 0 or more"),
        ("sam", {"rho": -0.1}, "rho=-0.1; must be a finite number, 0 or more"),
        ("sam", {"nesterov": True, "momentum": 0.0}, "nesterov=True; must be false where momentum=0"),
        ("muon", {"lr": -1.0}, "lr=-1.0; must be a finite number, 0 or more"),
        ("muon", {"adamw_lr": -1.0}, "adamw_lr=-1.0; must be a finite number, 0 or more"),
        ("muon", {"adamw_betas": (0.9,)}, "adamw_betas=[0.9]; must be two numbers, 0 or more and less than 1"),
        ("muon", {"momentum": 1.0}, "momentum=1.0; must be 0 or more and less than 1"),
        ("muon", {"ns_steps": 0}, "ns_steps=0; must be 1 to 50"),
        ("muon", {"adjust_lr": "mine"}, "adjust_lr=mine; must be original or match_rms_adamw"),
    ],
)
def test_refuses_values_out_of_range(name, keywords, message):
    with pytest.raises(ValueError) as error:
        build_optimizer(name, network(), **keywords)
    assert str(error.value) == message


@pytest.mark.parametrize("name", ["sgd", "muon_sgd"])
def test_a_first_step_that_fp16_skips_leaves_no_junk_for_the_next(name):
    """torch's fused SGD makes its buffers in a step that it skips, and leaves them as memory was."""
    model = network()
    optimizer = build_optimizer(name, model, **({"momentum": 0.9} if name == "sgd" else {}))
    before = copy.deepcopy(model.state_dict())
    nn.functional.cross_entropy(model(torch.randn(6, 3, 6, 6)), torch.arange(6) % 5).backward()
    optimizer.found_inf, optimizer.grad_scale = torch.ones(()), torch.ones(())
    torch.use_deterministic_algorithms(True)  # new memory is NaN
    try:
        optimizer.step()
    finally:
        torch.use_deterministic_algorithms(False)
    for key, parameter in model.named_parameters():
        assert torch.equal(before[key], parameter), key
        assert not optimizer.state[parameter]["momentum_buffer"].any(), key


def test_momentum_that_begins_at_zero_is_torchs_momentum():
    ours, theirs = network(), network()
    optimizer = build_optimizer("sgd", ours, lr=0.1, momentum=0.9, decay_all=True)
    assert len(optimizer.state) == len(list(ours.parameters()))
    train(ours, optimizer, 3)
    train(theirs, torch.optim.SGD(theirs.parameters(), lr=0.1, momentum=0.9, fused=True), 3)
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))
