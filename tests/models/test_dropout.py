"""Our dropout is dropout: the share, the scale, every element on its own, the gradient, the layout, repeats."""

import pytest
import torch

from cifar_lab.models.dropout import Dropout


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("p", [0.1, 0.3, 0.5, 0.9])
def test_share_and_scale(p: float) -> None:
    out = Dropout(p)(torch.ones(1_000_003))
    kept = out[out != 0]
    assert kept.unique().tolist() == pytest.approx([1 / (1 - p)], rel=1e-4)
    # Five standard deviations of a binomial share.
    assert abs(len(kept) / len(out) - (1 - p)) < 5 * (p * (1 - p) / len(out)) ** 0.5


def test_the_highest_probability_still_keeps_something() -> None:
    out = Dropout(0.999999)(torch.ones(1_000_003))
    assert 0 < (out != 0).sum() < 60, "one in 65,536"


def test_the_four_elements_of_a_draw_are_alike_and_independent() -> None:
    kept = (Dropout(0.3)(torch.ones(4_000_000)) != 0).double().view(-1, 4)
    assert kept.mean(0).tolist() == pytest.approx([0.7] * 4, abs=5 * (0.21 / 1e6) ** 0.5)
    off_diagonal = torch.corrcoef(kept.T) - torch.eye(4, dtype=torch.float64)
    assert off_diagonal.abs().max() < 5 / 1e6**0.5


def test_neighbouring_calls_differ_and_a_seed_repeats_them() -> None:
    layer, x = Dropout(0.5), torch.ones(1000)
    first, second = layer(x), layer(x)
    assert not torch.equal(first, second)
    torch.manual_seed(0)
    assert torch.equal(layer(x), first)


def test_the_gradient_is_the_mask() -> None:
    x = torch.randn(5, 9, 14, 14, requires_grad=True)
    out = Dropout(0.3)(x)
    out.sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(out.detach(), x.detach() * x.grad)
    assert x.grad.unique().tolist() == pytest.approx([0.0, 1 / 0.7], rel=1e-4)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_layout_and_precision_are_kept(layout: torch.memory_format) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        x = torch.ones(3, 5, 7, 7, dtype=dtype).to(memory_format=layout)
        out = Dropout(0.5)(x)
        assert out.is_contiguous(memory_format=layout)
        assert out.dtype == dtype
    strided = torch.ones(8, 6)[:, ::2]
    assert Dropout(0.5)(strided).unique().tolist() == [0.0, 2.0]


def test_evaluation_and_zero_change_nothing() -> None:
    x = torch.randn(10)
    assert Dropout(0.5).eval()(x) is x
    assert Dropout(0.0)(x) is x
    with pytest.raises(ValueError, match=r"dropout=1\.0; must be 0 or more and less than 1"):
        Dropout(1.0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_a_gpu_it_is_torchs() -> None:
    x = torch.ones(1000, device="cuda")
    torch.manual_seed(1)
    ours = Dropout(0.3)(x)
    torch.manual_seed(1)
    assert torch.equal(ours, torch.nn.functional.dropout(x, 0.3))
