"""Policies: torchvision's tables, its distribution of decisions, and its picture for each decision."""

import itertools
from collections import Counter

import numpy as np
import pytest
import torch
from scipy import stats
from tensors import LAYOUTS, pictures, shown, stored
from torchvision.transforms import v2

from cifar_lab.config import AugmentConfig
from cifar_lab.data import policies, steps
from cifar_lab.data.policies import Policy, build_policy
from cifar_lab.data.steps import Kind

CPU = torch.device("cpu")
NAMES = ["autoaugment", "randaugment", "trivialaugment"]
PEERS = {
    "autoaugment": v2.AutoAugment(v2.AutoAugmentPolicy.CIFAR10),
    "randaugment": v2.RandAugment(),
    "trivialaugment": v2.TrivialAugmentWide(),
}
BINS = {"autoaugment": 10, "randaugment": 31, "trivialaugment": 31}


def built(name: str, height: int = 32, width: int = 32, **settings) -> Policy:
    policy = build_policy(AugmentConfig(policy=name, **settings), height, width, CPU)
    assert policy is not None
    return policy


def torchvisions(name: str, image: torch.Tensor, operation: str, magnitude: float) -> torch.Tensor:
    peer = PEERS[name]
    return peer._apply_image_or_video_transform(image, operation, magnitude, interpolation=peer.interpolation, fill=peer._fill)


def signed_magnitudes(name: str, operation: str, index: int | None, size: tuple[int, int]) -> list[float]:
    """The two magnitudes, each as likely, that torchvision's table has for an operation and a level."""
    make, signed = PEERS[name]._AUGMENTATION_SPACE[operation]
    values = make(BINS[name], *size)
    if values is None:
        return [0.0, 0.0]
    value = float(values[index])
    return [value, -value if signed else value]


# Tables


def test_sub_policies_are_torchvisions():
    assert list(policies.AUTOAUGMENT) == PEERS["autoaugment"]._policies


@pytest.mark.parametrize("name", NAMES)
def test_operations_and_signs_are_torchvisions(name):
    space = PEERS[name]._AUGMENTATION_SPACE
    assert set(policies.OPERATIONS) | {"Invert"} >= set(space)
    if name != "autoaugment":
        assert tuple(space) == policies.OPERATIONS
    assert {operation for operation, (_, signed) in space.items() if signed} == policies.SIGNED


@pytest.mark.parametrize("size", [(32, 32), (28, 100)])
@pytest.mark.parametrize("name", NAMES)
def test_magnitudes_are_torchvisions(name, size):
    for operation, (make, _) in PEERS[name]._AUGMENTATION_SPACE.items():
        values = make(BINS[name], *size)
        made = policies._magnitudes(operation, BINS[name], *size, wide=name == "trivialaugment")
        assert made == ([0.0] * BINS[name] if values is None else values.tolist()), operation


def test_no_policy():
    assert build_policy(AugmentConfig(), 32, 32, CPU) is None


# Decisions


def expected_steps(name: str, size: tuple[int, int]) -> list[dict[tuple, float]]:
    """For each choice of the dice, the probability of every sequence of (operation, magnitude)."""
    found: dict[tuple, float] = Counter()
    nothing = ("Identity", 0.0)

    def add(slots: list[list[tuple[tuple, float]]], weight: float) -> None:
        for parts in itertools.product(*slots):
            found[tuple(step for step, _ in parts)] += weight * float(np.prod([p for _, p in parts]))

    if name == "autoaugment":
        for sub_policy in PEERS[name]._policies:
            slots = []
            for operation, chance, level in sub_policy:
                happens = [((operation, m), chance / 2) for m in signed_magnitudes(name, operation, level, size)]
                slots.append([(nothing, 1 - chance), *happens])
            add(slots, 1 / len(PEERS[name]._policies))
        return [found]
    space = list(PEERS[name]._AUGMENTATION_SPACE)
    levels = [9] if name == "randaugment" else range(31)
    for operation, level in itertools.product(space, levels):
        for magnitude in signed_magnitudes(name, operation, level, size):
            add([[((operation, magnitude), 0.5)]], 1 / len(space) / len(levels))
    return [found] * (2 if name == "randaugment" else 1)


@pytest.mark.parametrize("name", NAMES)
def test_decisions_have_torchvisions_probabilities(name):
    policy, size, count = built(name, 32, 24), (32, 24), 60_000
    drawn = policy.draw(seed=3, epoch=1, ids=torch.arange(count))
    expected = expected_steps(name, size)
    sequences = [drawn] if name == "autoaugment" else drawn.split(1, dim=1)
    for table, part in zip(expected, sequences, strict=True):
        seen = Counter(tuple(policy.steps[k] for k in row) for row in part.tolist())
        assert set(seen) <= {key for key, p in table.items() if p > 0}
        assert sum(table.values()) == pytest.approx(1)
        keys = [key for key in table if table[key] * count >= 5]
        counts = [seen[key] for key in keys] + [count - sum(seen[key] for key in keys)]
        wanted = [table[key] * count for key in keys] + [count * (1 - sum(table[key] for key in keys))]
        used = [k for k, value in enumerate(wanted) if value > 1e-6]
        assert 1e-4 < stats.chisquare(np.array(counts)[used], np.array(wanted)[used]).pvalue < 1 - 1e-4


def test_the_operations_of_randaugment_are_independent():
    policy = built("randaugment", randaugment_ops=3)
    drawn = policy.draw(seed=0, epoch=0, ids=torch.arange(40_000))
    assert drawn.shape == (40_000, 3)
    operation = torch.tensor([policies.OPERATIONS.index(name) for name, _ in policy.steps])[drawn]
    for one, other in ((0, 1), (1, 2), (0, 2)):
        counts = np.bincount((operation[:, one] * 14 + operation[:, other]).numpy(), minlength=196)
        assert 1e-4 < stats.chisquare(counts).pvalue < 1 - 1e-4


@pytest.mark.parametrize("name", NAMES)
def test_a_decision_is_the_images_own(name):
    policy = built(name)
    everyone = policy.draw(seed=5, epoch=2, ids=torch.arange(500))
    chosen = torch.tensor([499, 3, 77])
    assert torch.equal(policy.draw(seed=5, epoch=2, ids=chosen), everyone[chosen])
    for seed, epoch in ((5, 3), (6, 2)):
        assert (policy.draw(seed=seed, epoch=epoch, ids=torch.arange(500)) == everyone).all(1).float().mean() < 0.4


# Pictures


@pytest.mark.parametrize("size", [(32, 32), (8, 20)])
@pytest.mark.parametrize("name", NAMES)
def test_every_step_makes_torchvisions_picture(name, size):
    policy = built(name, *size)
    images = pictures(8, *size)
    every = range(0, len(policy.steps), 1 if name != "trivialaugment" else 7)
    for number in every:
        operation, magnitude = policy.steps[number]
        made = shown(policy.apply(stored(images), torch.full((8, 1), number)))
        expected = torch.stack([torchvisions(name, image, operation, magnitude) for image in images])
        assert (made != expected).float().mean() <= (0.002 if policy.kinds[number] == Kind.AFFINE else 0), (operation, magnitude)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", NAMES)
def test_a_batch_of_drawn_steps_equals_torchvision_one_image_at_a_time(name, layout):
    count = 300
    policy = built(name, 32, 24)
    images = pictures(count, 32, 24)
    drawn = policy.draw(seed=1, epoch=4, ids=torch.arange(count))
    source = stored(images, layout)
    before = source.clone()
    made = shown(policy.apply(source, drawn), layout)
    expected = []
    for image, row in zip(images, drawn.tolist(), strict=True):
        for number in row:
            image = torchvisions(name, image, *policy.steps[number])
        expected.append(image)
    assert (made != torch.stack(expected)).float().mean() <= 0.001
    assert torch.equal(source, before)
    assert len(set(policy.kinds[drawn].view(-1).tolist())) == len(policy.possible)  # all were seen


@pytest.mark.parametrize("name", NAMES)
def test_working_on_groups_and_on_everything_gives_the_same_bytes(name):
    policy = built(name)
    images = stored(pictures(120, 32, 32))
    drawn = policy.draw(seed=0, epoch=0, ids=torch.arange(120))[:, 0]
    kinds, parameters = policy.kinds[drawn], policy.parameters[drawn]
    grouped = steps._grouped(images, kinds, parameters)
    assert torch.equal(grouped, steps._masked(images, kinds, parameters, policy.possible))
    assert not torch.equal(grouped, images)


@pytest.mark.gpu
@pytest.mark.parametrize("name", NAMES)
def test_a_gpu_decides_and_does_the_same(name):
    if not torch.cuda.is_available():
        pytest.skip("needs CUDA")
    policy, images, ids = built(name), stored(pictures(400, 32, 32)), torch.arange(400)
    on_gpu = build_policy(AugmentConfig(policy=name), 32, 32, torch.device("cuda"))
    assert on_gpu is not None
    expected = policy.apply(images, policy.draw(seed=0, epoch=1, ids=ids))
    there, ids_there = images.cuda(), ids.cuda()
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        drawn = on_gpu.draw(seed=0, epoch=1, ids=ids_there)
        made = on_gpu.apply(there, drawn)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.equal(drawn.cpu(), policy.draw(seed=0, epoch=1, ids=ids))
    assert (made.cpu() != expected).float().mean() <= 1e-4
