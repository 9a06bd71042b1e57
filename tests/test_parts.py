"""Configuration and parts joined: what only shows when both are there."""

import pytest
import torch
from torch import nn

from cifar_lab import runtime, schema
from cifar_lab.data.splits import load_splits
from cifar_lab.errors import ConfigError
from cifar_lab.parts import build_parts, check_forward

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _registered() -> None:
    schema.register()


def parts_of(*overrides: str):
    config = schema.compose(["data=digits", "data.subset=60", *overrides])
    build_parts(config, load_splits(config.data), CPU)
    return config


def test_auto_is_fp32_where_the_optimizer_does_not_take_fp16(monkeypatch):
    """On a GPU without bf16 units `auto` is fp16, which nobody typed and SAM refuses."""
    monkeypatch.setattr(runtime, "resolve_precision", lambda asked, *_: "fp16" if asked == "auto" else asked)
    assert parts_of("optimizer=sgd").train.precision == "fp16"
    assert parts_of("optimizer=sam").train.precision == "fp32"
    with pytest.raises(ConfigError, match=r"train\.precision=fp16; must be bf16 or fp32 for SAM"):
        parts_of("optimizer=sam", "train.precision=fp16")


class Failing(nn.Module):
    def __init__(self, text: str):
        super().__init__()
        self.text = text

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        raise RuntimeError(self.text)


def test_what_the_gpu_says_is_not_blamed_on_the_model():
    with pytest.raises(RuntimeError, match="CUBLAS_STATUS_ALLOC_FAILED"):
        check_forward(Failing("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`"), "it", 10, 32, CPU)
    with pytest.raises(ConfigError, match="model=it does not take images of 32x32 pixels: mat1 and mat2"):
        check_forward(Failing("mat1 and mat2 shapes cannot be multiplied"), "it", 10, 32, CPU)
