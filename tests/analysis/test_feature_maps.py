"""Feature maps against a hook of the test's own and a convolution written out; kernels against the weights."""

import numpy as np
import pytest
import torch
from fake_run import FakeRun
from matplotlib.figure import Figure
from torch import nn

from cifar_lab.analysis.features import feature_maps, features, first_convolution, kernels
from cifar_lab.analysis.made import LeftOut
from cifar_lab.errors import ConfigError


def drawn(made, column: bool = False) -> Figure:
    """The one figure of an analysis."""
    (layout,) = made.pictures.values()
    draw, width, height = layout(column)
    figure = Figure(figsize=(width, height), dpi=100, layout="constrained")
    draw(figure)
    return figure


@pytest.mark.parametrize("name", ["0", "1", "2", "4"])
def test_maps_are_what_the_layer_gives_before_anything_behind_it_changes_them(name):
    run = FakeRun()
    seen: list[np.ndarray] = []

    def keep(_module, _inputs, output) -> None:  # what a hook returns would take the output's place
        seen.append(output.detach().numpy().copy())

    hook = run.net[int(name)].register_forward_hook(keep)
    with torch.no_grad():
        run.net(run.seen(5))
    hook.remove()
    maps, calls = feature_maps(run.net, name, run.seen(5))
    np.testing.assert_array_equal(maps, seen[0][0])
    assert calls == 1
    assert not any(module._forward_hooks for module in run.net.modules()), "no hook is left behind"


def test_the_first_convolution_is_computed_again_by_hand():
    run = FakeRun()
    made = features(run, image=1007)
    x = np.pad(run.seen(7)[0].numpy(), ((0, 0), (1, 1), (1, 1)))
    conv = run.net[0]
    weight, bias = conv.weight.detach().numpy(), conv.bias.detach().numpy()
    windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(1, 2))
    expected = np.einsum("ocij,chwij->ohw", weight, windows) + bias[:, None, None]
    figure = drawn(made)
    shown = [np.asarray(axes.images[0].get_array()) for axes in figure.axes if axes.images]
    np.testing.assert_allclose(shown[0], run.images()[7].transpose(1, 2, 0) / 255, atol=1e-6)
    np.testing.assert_allclose(np.stack(shown[1:]), expected, atol=1e-5)
    assert all(axes.images[0].get_cmap().name == "gray" for axes in figure.axes[1:7])
    assert made.numbers["shape"] == [6, 8, 8]
    assert [c["greatest"] for c in made.numbers["channels"]] == pytest.approx(expected.max((1, 2)).tolist(), abs=1e-5)
    label, answer = run.labels("test")[7], run.predicted("test")[7]
    assert f"image 1007: class {label}, taken for class {answer}" in figure.get_supxlabel()


def test_many_channels_are_cut_and_said_to_be():
    figure = drawn(features(FakeRun(), layer="4"))
    assert "the first 64 of 70 channels" in figure.get_suptitle()
    assert sum(bool(axes.images) for axes in figure.axes) == 65


def test_the_first_convolution_is_the_one_asked_first():
    class Crossed(nn.Module):
        def __init__(self):
            super().__init__()
            self.later, self.sooner = nn.Conv2d(4, 2, 1), nn.Conv2d(3, 4, 1)

        def forward(self, x):
            return self.later(self.sooner(x)).mean((2, 3))

    assert first_convolution(Crossed(), torch.zeros(1, 3, 8, 8)) == "sooner"
    flat = FakeRun(net=nn.Sequential(nn.Flatten(), nn.Linear(192, 4)))
    for analysis in (features, kernels):
        with pytest.raises(LeftOut, match="the model has no convolution"):
            analysis(flat)


@pytest.mark.parametrize("channel", [0, 5])
def test_kernels_are_the_weights_of_that_channel(channel):
    run = FakeRun()
    made = kernels(run, channel=channel)
    expected = run.net[0].weight[channel].detach().numpy()
    figure = drawn(made)
    panels = [axes for axes in figure.axes if axes.get_title() in ("red", "green", "blue")]
    np.testing.assert_array_equal(np.stack([np.asarray(axes.images[0].get_array()) for axes in panels]), expected)
    texts = [[t.get_text() for t in axes.texts] for axes in panels]
    assert texts == [[f"{v:.2f}" for v in kernel.ravel()] for kernel in expected]
    largest = float(np.abs(expected).max())
    assert {axes.images[0].get_clim() for axes in panels} == {(-largest, largest)}, "one scale, white at zero"
    assert made.numbers["bias"] == run.net[0].bias[channel].item()


def test_kernels_of_a_group_name_its_inputs():
    made = kernels(FakeRun(), layer="2", channel=6)  # of 8 in two groups: inputs 3, 4 and 5
    assert made.numbers["inputs"] == [3, 4, 5]
    assert made.numbers["bias"] is None
    assert "input channel 3" in {axes.get_title() for axes in drawn(made).axes}


@pytest.mark.parametrize(
    ("analysis", "options", "error", "text"),
    [
        (features, {"layer": "nosuch"}, ConfigError, "--layer nosuch: the model has no such layer"),
        (features, {"layer": "6"}, ConfigError, r"--layer 6 gives tensors \[1, 4\], no maps"),
        (features, {"image": 3}, ConfigError, "--image 3 is no test image; they are 1000 to 1599"),
        (kernels, {"layer": "1"}, LeftOut, "layer 1 is a ReLU, no convolution"),
        (kernels, {"channel": 6}, ConfigError, "--channel 6; 0 has the channels 0 to 5"),
        (kernels, {"channel": -1}, ConfigError, "--channel -1; 0 has the channels 0 to 5"),
    ],
)
def test_what_does_not_fit_is_named(analysis, options, error, text):
    with pytest.raises(error, match=text):
        analysis(FakeRun(), **options)
