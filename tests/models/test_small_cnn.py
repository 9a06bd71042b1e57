"""The small network of write-up D3 and each change that its ablations make."""

import pytest
import torch
from torch import nn

from cifar_lab.models.build import build_model

# D3's variants: keywords and trainable parameters, layer by layer from the write-up
VARIANTS = [
    ({}, 18_422),
    ({"num_convs": 3}, 20_274),
    ({"widths": (7, 9, 11)}, 20_274),
    ({"num_convs": 4}, 21_704),
    ({"widths": (7, 9, 11, 13)}, 21_704),
    ({"kernel_size": 5}, 16_328),
    ({"kernel_size": 7}, 14_582),
    ({"widths": (9,), "kernel_size": 5}, 18_334),
    ({"batch_norm_first": True}, 18_422 + 6),
    ({"activation": "leaky_relu"}, 18_422),
    ({"activation": "tanh"}, 18_422),
]


def build(**keywords) -> nn.Module:
    return build_model("small_cnn", **{"num_classes": 10, "input_size": 32, **keywords})


@pytest.mark.parametrize(("keywords", "params"), VARIANTS)
def test_parameter_counts_of_all_variants(keywords, params):
    assert sum(p.numel() for p in build(**keywords).parameters()) == params


def test_one_5x5_keeps_the_map_of_two_3x3():
    image = torch.zeros(1, 3, 32, 32)
    assert build().features(image).shape == build(widths=(9,), kernel_size=5).features(image).shape == (1, 14 * 14 * 9)


def test_equals_the_network_written_out():
    torch.manual_seed(0)
    ours = build(batch_norm_first=True, num_convs=3, activation="leaky_relu").eval()
    written_out = nn.Sequential(
        nn.BatchNorm2d(3),
        nn.Conv2d(3, 7, 3),
        nn.LeakyReLU(),
        nn.Conv2d(7, 9, 3),
        nn.LeakyReLU(),
        nn.Conv2d(9, 11, 3),
        nn.LeakyReLU(),
        nn.MaxPool2d(2),
        nn.Dropout(0.3),
        nn.Flatten(),
        nn.Linear(13 * 13 * 11, 10),
    ).eval()
    written_out.load_state_dict(dict(zip(written_out.state_dict(), ours.state_dict().values(), strict=True)))
    images = torch.randn(3, 3, 32, 32)
    torch.testing.assert_close(ours(images), written_out(images))


def test_dropout_acts_in_training_only():
    torch.manual_seed(0)
    model, image = build(dropout=0.5), torch.randn(1, 3, 32, 32)
    model.train()
    dropped = model.features(image) == 0
    model.eval()
    kept = model.features(image) == 0
    # half of the features that a ReLU leaves positive
    share = (dropped & ~kept).sum() / (~kept).sum()
    assert 0.45 < share < 0.55
    assert torch.equal(model(image), model(image))


@pytest.mark.parametrize("kernel_size", [1, 3, 5, 7])
def test_same_padding_keeps_the_map(kernel_size):
    model = build(padding="same", kernel_size=kernel_size, num_convs=4)
    assert model.features(torch.zeros(1, 3, 32, 32)).shape == (1, 16 * 16 * 13)


def test_fewer_convolutions_are_the_first_ones():
    assert [m.out_channels for m in build(num_convs=1).modules() if isinstance(m, nn.Conv2d)] == [7]


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        (
            {"input_size": 5},
            "input_size=5; must be 6 or more for 2 convolutions with kernels 3, 3 and padding=valid",
        ),
        (
            {"input_size": 13, "num_convs": 4, "kernel_size": 7},
            "input_size=13; must be 14 or more for 4 convolutions with kernels 7, 3, 3, 3 and padding=valid",
        ),
        ({"kernel_size": 0}, "kernel_size=0; must be 1 or more"),
        ({"kernel_size": 4, "padding": "same"}, "kernel_size=4; must be odd and 1 or more"),
        ({"later_kernel_size": 2, "padding": "same"}, "later_kernel_size=2; must be odd and 1 or more"),
        ({"widths": ()}, "widths=[]; must be at least one number, each 1 or more"),
        ({"widths": (7, 0)}, "widths=[7, 0]; must be at least one number, each 1 or more"),
        ({"num_convs": 0}, "num_convs=0; must be 1 or more, or null"),
        ({"dropout": 1.0}, "dropout=1.0; must be 0 or more and less than 1"),
        ({"padding": "full"}, "padding=full; must be valid or same"),
    ],
)
def test_refuses_what_cannot_be_built(keywords, message):
    with pytest.raises(ValueError) as error:
        build(**keywords)
    assert str(error.value) == message


def test_the_smallest_legal_picture_works():
    assert build(input_size=6)(torch.zeros(2, 3, 6, 6)).shape == (2, 10)
    assert build(input_size=14, num_convs=4, kernel_size=7)(torch.zeros(2, 3, 14, 14)).shape == (2, 10)
