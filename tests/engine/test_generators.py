"""Generators go on where they were."""

import json
import random

import numpy as np
import pytest
import torch
from engine_rig import CPU, seed_all

from cifar_lab.engine.generators import pack_generators, unpack_generators
from cifar_lab.errors import CheckpointError


def draws():
    return [random.random(), random.gauss(0, 1), *np.random.rand(3), np.random.randn(), *torch.rand(3), *torch.randn(3)]


def packed():
    tensors, record = pack_generators(CPU)
    return tensors, json.loads(json.dumps(record, allow_nan=False))


def test_draws_repeat():
    seed_all(4)
    draws()  # leaves half of a gaussian pair behind in Python's and numpy's generators
    saved = packed()
    wanted = draws()
    seed_all(5)
    draws()
    unpack_generators(*saved, CPU)
    assert draws() == wanted
    assert draws() != wanted


def test_packing_draws_nothing():
    seed_all(4)
    wanted = draws()
    seed_all(4)
    packed()
    assert draws() == wanted


def test_another_kind_of_device_is_refused():
    tensors, record = packed()
    record["device"] = "cuda"
    with pytest.raises(CheckpointError, match="the run was on cuda") as caught:
        unpack_generators(tensors, record, CPU)
    assert "device=cuda" in caught.value.hint


@pytest.mark.parametrize("name", ["python", "numpy", "torch"])
def test_a_state_that_a_generator_does_not_take_is_an_error(name):
    tensors, record = packed()
    tensors[name] = tensors[name][:7]
    with pytest.raises(CheckpointError, match="cannot be restored"):
        unpack_generators(tensors, record, CPU)


@pytest.mark.parametrize("name", ["python", "numpy", "torch"])
def test_a_missing_state_is_an_error(name):
    tensors, record = packed()
    del tensors[name]
    with pytest.raises(KeyError):
        unpack_generators(tensors, record, CPU)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_the_gpus_generator_too():
    device = torch.device("cuda", 0)
    tensors, record = pack_generators(device)
    wanted = torch.rand(5, device=device)
    unpack_generators(tensors, record, device)
    assert torch.equal(torch.rand(5, device=device), wanted)
