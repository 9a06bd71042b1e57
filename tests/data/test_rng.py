"""Counter-based randomness: SplitMix64's published numbers, and statistics that it must pass."""

import numpy as np
import pytest
import torch
from scipy import stats

from cifar_lab.data import rng

MASK = 2**64 - 1


def splitmix64(state: int, count: int) -> list[int]:
    """The reference, one number after the other, in unbounded integers (Vigna's splitmix64.c)."""
    numbers = []
    for _ in range(count):
        state = (state + 0x9E3779B97F4A7C15) & MASK
        z = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        numbers.append(z ^ (z >> 31))
    return numbers


def unsigned(bits: torch.Tensor) -> list[int]:
    return [value & MASK for value in bits.tolist()]


def chi_square(counts: np.ndarray) -> float:
    """Probability of counts as uneven as these if all cells were equally likely."""
    return float(stats.chisquare(counts.ravel()).pvalue)


def test_published_numbers_of_splitmix64(monkeypatch):
    published = [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]
    assert splitmix64(1234567, 5) == published
    monkeypatch.setattr(rng, "_stream", lambda *_: 1234567)
    assert unsigned(rng.random_bits(0, 0, torch.arange(5), 0)) == published


def test_a_stream_begins_where_the_hash_of_seed_epoch_and_draw_says():
    state = 0
    for part in (7, 3, rng.Draw.FLIP):
        # splitmix64 adds its constant before it mixes, so it is taken away here
        state = splitmix64((((state + 0x9E3779B97F4A7C15) & MASK) ^ part) - 0x9E3779B97F4A7C15, 1)[0]
    assert unsigned(rng.random_bits(7, 3, torch.arange(4), rng.Draw.FLIP)) == splitmix64(state, 4)


def test_numbers_stay_what_they_were():
    """A change here changes every run; the numbers below are of version 0.1."""
    ids = torch.tensor([0, 1, 49_999, 2**40])
    assert rng.random_bits(0, 0, ids, rng.Draw.ORDER).tolist() == [
        2391539541053276776,
        920862675595841680,
        -997487204726450326,
        -3822604356608504842,
    ]
    assert rng.randint(3, 5, torch.arange(12), rng.Draw.CROP_TOP, 9).tolist() == [1, 5, 3, 2, 4, 5, 7, 4, 2, 5, 4, 0]
    assert rng.permutation(1, 2, 8).tolist() == [3, 1, 0, 6, 5, 2, 4, 7]


def test_a_number_depends_on_nothing_but_its_key():
    ids = torch.tensor([5, 3, 10**12, 0])
    together = rng.random_bits(4, 9, ids, rng.Draw.FLIP)
    alone = torch.cat([rng.random_bits(4, 9, ids[k : k + 1], rng.Draw.FLIP) for k in range(4)])
    assert torch.equal(together, alone)
    assert torch.equal(ids, torch.tensor([5, 3, 10**12, 0]))  # nothing is changed in place


@pytest.mark.parametrize("key", [(-1, 0, 0), (2**63, 0, 0), (2**64 - 1, 10**6, 5)])
def test_any_integer_is_a_seed(key):
    seed, epoch, draw = key
    bits = rng.random_bits(seed, epoch, torch.arange(1000), draw)
    assert bits.unique().numel() == 1000


@pytest.mark.parametrize("change", [(1, 0, 0), (0, 1, 0), (0, 0, 1)])
def test_seed_epoch_and_draw_each_give_unrelated_numbers(change):
    ids = torch.arange(40_000)
    one, other = rng.uniform(0, 0, ids, 0), rng.uniform(*change[:2], ids, change[2])
    joint, _, _ = np.histogram2d(one.numpy(), other.numpy(), bins=16, range=[[0, 1], [0, 1]])
    assert 1e-4 < chi_square(joint) < 1 - 1e-4
    assert torch.isin(one[:1000], other[:1000]).sum() < 5


def test_neighbouring_images_are_unrelated():
    values = rng.uniform(0, 0, torch.arange(60_000), rng.Draw.CROP_LEFT).numpy()
    joint, _, _ = np.histogram2d(values[:-1:2], values[1::2], bins=16, range=[[0, 1], [0, 1]])
    assert 1e-4 < chi_square(joint) < 1 - 1e-4


def test_every_bit_is_fair():
    bits = rng.random_bits(1, 2, torch.arange(40_000), rng.Draw.FLIP).numpy()
    ones = np.unpackbits(bits.view(np.uint8).reshape(-1, 8), axis=1).sum(0, dtype=np.int64)
    assert np.abs(ones - 20_000).max() < 4.5 * (40_000 / 4) ** 0.5


def test_uniform_is_uniform_and_exact():
    values = rng.uniform(2, 3, torch.arange(60_000), rng.Draw.FLIP)
    assert values.dtype == torch.float32
    assert values.min() >= 0
    assert values.max() < 1
    assert torch.equal((values * 2**24).round() / 2**24, values)
    assert 1e-4 < stats.kstest(values.double().numpy(), "uniform").pvalue < 1 - 1e-4


@pytest.mark.parametrize("high", [2, 9, 21, 1000])
def test_randint_is_uniform(high):
    values = rng.randint(6, 1, torch.arange(60_000), rng.Draw.CROP_TOP, high)
    assert values.dtype == torch.int64
    counts = np.bincount(values.numpy(), minlength=high)
    assert len(counts) == high
    assert 1e-4 < chi_square(counts) < 1 - 1e-4


def test_randint_is_the_upper_half_scaled_to_the_range():
    ids = torch.arange(1000)
    upper = [bits >> 32 for bits in unsigned(rng.random_bits(0, 0, ids, 0))]
    for high in (1, 2, 9, 2**31 - 1, 2**31):
        assert rng.randint(0, 0, ids, 0, high).tolist() == [value * high // 2**32 for value in upper]


@pytest.mark.parametrize("high", [0, -1, 2**31 + 1])
def test_randint_refuses_what_it_cannot_draw(high):
    with pytest.raises(ValueError, match=rf"^high={high}; must be 1 to 2\*\*31$"):
        rng.randint(0, 0, torch.arange(2), 0, high)


def test_permutations_hold_every_image_once_and_differ_by_epoch_and_seed():
    orders = [rng.permutation(seed, epoch, 1000) for seed in (0, 1) for epoch in (0, 1)]
    for order in orders:
        assert torch.equal(order.sort().values, torch.arange(1000))
    for k, order in enumerate(orders):
        for other in orders[:k]:
            assert (order == other).sum() < 10  # one in a thousand agrees by chance
    assert torch.equal(rng.permutation(0, 0, 1000), orders[0])


def test_each_image_comes_at_each_place_equally_often():
    counts = np.zeros((10, 10))
    for epoch in range(2000):
        counts[np.arange(10), rng.permutation(0, epoch, 10).numpy()] += 1
    # rows and columns of the table add up to the number of epochs: 81 degrees of freedom
    statistic = ((counts - 200) ** 2 / 200).sum()
    assert 1e-4 < stats.chi2(81).sf(statistic) < 1 - 1e-4


def test_an_order_of_one_and_of_none():
    assert rng.permutation(0, 0, 1).tolist() == [0]
    assert rng.permutation(0, 0, 0).tolist() == []
