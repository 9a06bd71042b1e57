"""The table of layers: its sums are the totals, its bytes those of a hand count, its order that of the calls."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cifar_lab.analysis.cost import model_cost
from cifar_lab.analysis.layers import layer_table, totals
from cifar_lab.models.build import build_model


@pytest.mark.parametrize("name", ["small_cnn", "mobilenet_like", "few_param_resnet", "dense_dnn", "vit", "speednet"])
def test_sums_equal_the_totals(name):
    model = build_model(name, num_classes=10, input_size=32)
    rows = layer_table(model, (3, 32, 32))
    cost, total = model_cost(model, (3, 32, 32)), totals(rows)
    assert (total["num_params"], total["macs"]) == (cost["num_params"], cost["macs"])
    assert all(row["macs"] >= 0 for row in rows)
    assert len({row["name"] for row in rows}) == len(rows)
    assert rows[-1]["name"] == "head"
    assert rows[-1]["output_shape"] == [1, 10]
    assert model.training
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_a_plain_network_by_hand():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.MaxPool2d(2), nn.Flatten())
    model.append(nn.Linear(900, 10))
    rows = layer_table(model, (3, 32, 32))
    found = [(r["kind"], r["output_shape"], r["num_params"], r["macs"], r["activation_bytes"]) for r in rows]
    map_bytes = 4 * 30 * 30 * 4
    assert found == [
        ("Conv2d", [1, 4, 30, 30], 112, 900 * 4 * 27, map_bytes),
        ("BatchNorm2d", [1, 4, 30, 30], 8, 0, map_bytes),
        ("ReLU", [1, 4, 30, 30], 0, 0, 0),  # in place
        ("MaxPool2d", [1, 4, 15, 15], 0, 0, 4 * 15 * 15 * (4 + 8)),  # float32 values and int64 places
        ("Flatten", [1, 900], 0, 0, 0),  # a view
        ("Linear", [1, 10], 9010, 9000, 40),
    ]


class Shared(nn.Module):
    """One layer called twice, weights shared by two, work of its own, and a layer that is never called."""

    def __init__(self) -> None:
        super().__init__()
        self.twice, self.other, self.idle = nn.Linear(8, 8), nn.Linear(8, 8, bias=False), nn.Linear(8, 3)
        self.other.weight = self.twice.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.softmax(self.other(self.twice(self.twice(x))) @ torch.ones(8, 2), dim=-1)


def test_what_is_shared_is_counted_once_and_what_is_done_twice_twice():
    rows = {row["name"]: row for row in layer_table(Shared(), (8,))}
    assert {name: (r["calls"], r["num_params"], r["macs"]) for name, r in rows.items()} == {
        "": (1, 0, 16),
        "twice": (2, 72, 128),
        "other": (1, 0, 64),
        "idle": (0, 27, 0),
    }
    assert rows["idle"]["output_shape"] is None
    assert rows["twice"]["activation_bytes"] == 2 * 32
    assert rows[""]["activation_bytes"] == 8 * 2 * 4 + 2 * 4 + 2 * 4, "the constant, the product, the softmax"


def test_the_products_of_attention_are_the_attentions_own():
    rows = {row["name"]: row for row in layer_table(build_model("vit", num_classes=10, input_size=32), (3, 32, 32))}
    assert rows["blocks.0.attention"]["macs"] == 2 * 64 * 64 * 192
    assert rows["blocks.0.attention.qkv"]["macs"] == 64 * 192 * 3 * 192
    assert rows["embed"]["num_params"] == 64 * 192
