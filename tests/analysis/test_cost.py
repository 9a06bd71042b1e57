"""Multiply-adds against hand counts and torch's own counter; the model is left as it was."""

import random
import warnings

import numpy as np
import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from cifar_lab.analysis.cost import keras_params, model_cost, size_on_disk
from cifar_lab.models.build import build_model


def torch_macs(model: nn.Module, input_shape: tuple[int, ...]) -> int:
    """torch's counter, which looks at the operators that really run; its FLOPs are twice the multiply-adds."""
    model = model.eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, *input_shape))
    assert counter.get_total_flops() % 2 == 0
    return counter.get_total_flops() // 2


@pytest.mark.parametrize(
    ("name", "params", "macs"), [("small_cnn", 18_422, 0.63e6), ("resnet18", 11_173_962, 555.42e6)], ids=["small_cnn", "resnet18"]
)
def test_published_sizes(name, params, macs):
    model = build_model(name, num_classes=10, input_size=32)
    cost = model_cost(model, (3, 32, 32))
    assert cost["num_params"] == cost["num_params_trainable"] == params
    assert cost["macs"] == pytest.approx(macs, rel=0.03)
    assert cost["macs"] == torch_macs(model, (3, 32, 32))
    assert cost["flops"] == 2 * cost["macs"]
    assert cost["macs"] == sum(cost["macs_by_operator"].values())
    assert set(cost["macs_by_operator"]) == {"convolution", "linear"}


@pytest.mark.parametrize("name", ["mobilenet_like", "vit", "few_param_resnet", "efficientnet_b0", "dense_dnn"])
def test_both_counters_agree(name):
    """The documented difference is none: torch's counter sees depthwise convolutions and both products of attention too."""
    model = build_model(name, num_classes=10, input_size=32)
    assert model_cost(model, (3, 32, 32))["macs"] == torch_macs(model, (3, 32, 32))


@pytest.mark.parametrize(
    ("name", "trainable", "total"),
    [
        # https://keras.io/api/applications: parameters of keras.applications with 1,000 classes; EfficientNetB0's 7 of its
        # own layer for normalising pictures left out
        ("mobilenet_v2", 3_504_872, 3_538_984),
        ("efficientnet_b0", 5_288_548, 5_330_571 - 7),
    ],
)
def test_keras_total_is_what_keras_states_for_its_own_networks(name, trainable, total):
    with torch.device("meta"):
        model = build_model(name, num_classes=1000, input_size=224)
    assert sum(p.numel() for p in model.parameters()) == trainable
    assert keras_params(model) == total


def test_keras_total_by_hand():
    norm = nn.BatchNorm2d(6)
    layers = [nn.Conv2d(3, 6, 3), norm, nn.BatchNorm2d(6, track_running_stats=False), nn.GroupNorm(2, 6), norm]
    model = nn.Sequential(*layers)
    model.register_buffer("other", torch.zeros(100))
    # convolution 168; three norms of 12 (one of them twice in the list); mean and variance of one of them
    assert keras_params(model) == 168 + 3 * 12 + 2 * 6
    model[0].requires_grad_(False)
    cost = model_cost(model, (3, 8, 8))
    assert (cost["num_params_trainable"], cost["num_params"], cost["num_params_keras"]) == (36, 204, 216)


def test_size_on_disk_is_that_of_the_file(tmp_path):
    model = build_model("mobilenet_like", num_classes=10, input_size=32)
    safetensors.torch.save_model(model, str(tmp_path / "model.safetensors"))
    assert size_on_disk(model) == (tmp_path / "model.safetensors").stat().st_size
    assert size_on_disk(model) > 4 * keras_params(model)


# layers, input shape, multiply-adds by hand
BY_HAND = {
    "small_cnn": (build_model("small_cnn", num_classes=10, input_size=32), (3, 32, 32), 900 * 189 + 784 * 567 + 17640),
    "valid": (nn.Conv2d(3, 7, 3), (3, 32, 32), 30 * 30 * 7 * 27),
    "same": (nn.Conv2d(3, 7, 3, padding="same"), (3, 32, 32), 32 * 32 * 7 * 27),
    "strided": (nn.Conv2d(3, 8, 5, stride=2, padding=2), (3, 32, 32), 16 * 16 * 8 * 75),
    "depthwise": (nn.Conv2d(12, 12, 3, padding=1, groups=12, bias=False), (12, 16, 16), 16 * 16 * 12 * 9),
    "depthwise same": (nn.Conv2d(12, 12, 3, padding="same", groups=12), (12, 16, 16), 16 * 16 * 12 * 9),
    "grouped": (nn.Conv2d(12, 24, 3, padding=1, groups=4), (12, 16, 16), 16 * 16 * 24 * 9 * 3),
    "transposed": (nn.ConvTranspose2d(4, 6, 3, stride=2), (4, 8, 8), 8 * 8 * 4 * 6 * 9),
    "transposed and grouped": (nn.ConvTranspose2d(4, 6, 3, stride=2, groups=2), (4, 8, 8), 8 * 8 * 4 * 3 * 9),
    "one dimension": (nn.Conv1d(3, 5, 3), (3, 10), 8 * 5 * 9),
    "linear": (nn.Linear(20, 30), (20,), 600),
    "linear on places": (nn.Linear(20, 30), (7, 20), 7 * 600),
}


@pytest.mark.parametrize("case", BY_HAND)
def test_layers_by_hand_and_by_torch(case):
    layer, shape, macs = BY_HAND[case]
    assert model_cost(layer, shape)["macs"] == macs == torch_macs(layer, shape)


class Attention(nn.Module):
    """Self-attention over the last map's places, by one of torch's ways to say so."""

    def __init__(self, kind: str, width: int = 16, heads: int = 4):
        super().__init__()
        self.kind, self.heads = kind, heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.layer = nn.MultiheadAttention(width, heads, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.kind.startswith("module"):
            return self.layer(x, x, x, need_weights=self.kind == "module with weights")[0]
        q, k, v = (t.unflatten(-1, (self.heads, -1)).transpose(1, 2) for t in self.qkv(x).chunk(3, -1))
        if self.kind == "function":
            y = F.scaled_dot_product_attention(q, k, v)
        elif self.kind == "matmul":
            y = (q @ k.transpose(-1, -2)).softmax(-1) @ v
        else:
            y = torch.einsum("bhqk,bhkd->bhqd", torch.einsum("bhqd,bhkd->bhqk", q, k).softmax(-1), v)
        return self.out(y.transpose(1, 2).flatten(2))


@pytest.mark.parametrize("kind", ["function", "matmul", "einsum", "module", "module with weights"])
def test_attention_counts_both_products_and_its_linear_layers(kind):
    tokens, width = 9, 16
    expected = tokens * width * 4 * width + 2 * tokens * tokens * width
    assert model_cost(Attention(kind), (tokens, width))["macs"] == expected


def test_a_transformer_layer_is_counted_though_evaluation_would_fuse_it():
    layer = nn.TransformerEncoderLayer(16, 4, dim_feedforward=32, batch_first=True)
    tokens = 9
    expected = tokens * 16 * (4 * 16 + 2 * 32) + 2 * tokens * tokens * 16
    assert model_cost(layer, (tokens, 16))["macs"] == expected
    assert torch.backends.mha.get_fastpath_enabled()


def test_attention_with_fewer_keys_than_queries_and_wider_values():
    class Cross(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            q = x[:, :, :, :6]
            k, v = x[:, :, :5, :6], x[:, :, :5]
            return F.scaled_dot_product_attention(q, k, v)

    assert model_cost(Cross(), (2, 9, 8))["macs"] == 2 * 9 * 5 * (6 + 8)


def test_operators_without_a_count_are_listed_and_cost_nothing():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(900, 10))
    cost = model_cost(model, (3, 32, 32))
    assert cost["macs"] == 900 * 4 * 27 + 9000
    assert cost["uncounted_operators"] == {"aten::batch_norm": 1, "aten::max_pool2d": 1}


def test_frozen_and_shared_parameters():
    first, second = nn.Linear(8, 8), nn.Linear(8, 8)
    second.weight = first.weight
    second.bias.requires_grad_(False)
    cost = model_cost(nn.Sequential(first, second), (8,))
    assert cost["num_params"] == 64 + 8 + 8
    assert cost["num_params_trainable"] == 64 + 8
    assert cost["macs"] == 128  # shared, but multiplied twice


class Noisy(nn.Module):
    """Draws random numbers, counts its calls and changes its statistics even in evaluation mode."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3, track_running_stats=True)
        self.drop = nn.Dropout(0.5)
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        x = F.batch_norm(x, self.norm.running_mean, self.norm.running_var, training=True)
        return self.drop(x + torch.randn_like(x)).mean((2, 3)) @ torch.rand(3, 10)


@pytest.mark.parametrize("mode", [True, False])
def test_the_model_and_the_random_generators_stay_as_they_were(mode):
    model = nn.Sequential(Noisy().train(mode), nn.Linear(10, 10).train(not mode)).train(mode)
    model[1].train(not mode)
    modes = [m.training for m in model.modules()]
    state = {k: v.clone() for k, v in model.state_dict().items()}
    torch.manual_seed(5)
    random.seed(5)
    np.random.seed(5)
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    model_cost(model, (3, 8, 8))
    assert [m.training for m in model.modules()] == modes
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert np.random.get_state()[1].tolist() == before[2]
    assert all(p.grad is None for p in model.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_a_model_that_fails_is_put_back_too():
    class Failing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.calls += 1
            raise RuntimeError("no such size")

    model = Failing().train()
    with pytest.raises(RuntimeError, match="no such size"):
        model_cost(model, (3, 8, 8))
    assert model.training
    assert model.calls.item() == 0
    assert torch.backends.mha.get_fastpath_enabled()


def test_channels_last_changes_nothing_and_nothing_is_printed(capfd):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = build_model("small_cnn", num_classes=10, input_size=32, padding="same")
        plain = model_cost(model, (3, 32, 32))
        assert model_cost(model.to(memory_format=torch.channels_last), (3, 32, 32)) == plain
    assert [str(w.message) for w in caught] == []
    assert capfd.readouterr() == ("", "")
