"""Mixup and cutmix: partners, shares and rectangles by their distributions, pictures and targets against torchvision's."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from tensors import LAYOUTS, shown, stored
from torchvision.transforms import v2

from cifar_lab.config import AugmentConfig
from cifar_lab.data import mixing

MIXUP, CUTMIX = AugmentConfig(mixup_alpha=0.4), AugmentConfig(cutmix_alpha=1.0)
BOTH = AugmentConfig(mixup_alpha=0.4, cutmix_alpha=1.0)
HEIGHT, WIDTH, CLASSES = 10, 14, 5


def drawn(config: AugmentConfig, ids: torch.Tensor, batch_size: int, seed: int = 0, epoch: int = 0) -> mixing.Mix:
    return mixing.draw_mix(config, seed=seed, epoch=epoch, ids=ids, batch_size=batch_size, height=HEIGHT, width=WIDTH)


def noise(count: int) -> torch.Tensor:
    return torch.randn(count, 3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(7))


# Partners


@pytest.mark.parametrize(("count", "batch_size"), [(23, 5), (20, 5), (4, 9), (6, 2), (7, 1)])
def test_partners_go_around_within_each_batch(count, batch_size):
    partner = drawn(MIXUP, torch.arange(count) * 3 + 11, batch_size).partner.tolist()
    for first in range(0, count, batch_size):
        members = range(first, min(first + batch_size, count))
        place, visited = first, []
        for _ in members:
            visited.append(place)
            place = partner[place]
        assert place == first
        assert sorted(visited) == list(members)


def test_every_other_image_of_a_batch_is_as_likely_a_partner():
    counts = np.zeros((4, 4))
    ids = torch.arange(4)
    for epoch in range(1500):
        counts[np.arange(4), drawn(MIXUP, ids, 4, epoch=epoch).partner.numpy()] += 1
    assert not counts.diagonal().any()
    off = counts[~np.eye(4, dtype=bool)].reshape(4, 3)
    for row in off:
        assert stats.chisquare(row).pvalue > 1e-4


@pytest.mark.parametrize("config", [MIXUP, CUTMIX, BOTH], ids=["mixup", "cutmix", "both"])
def test_decisions_depend_on_the_images_of_a_batch_and_not_on_their_order(config):
    ids = torch.arange(60) * 5 + 2
    shuffled = torch.randperm(60, generator=torch.Generator().manual_seed(1))
    one, other = drawn(config, ids, 60), drawn(config, ids[shuffled], 60)
    assert torch.equal(ids[one.partner][shuffled], ids[shuffled][other.partner])
    assert torch.equal(one.share[shuffled], other.share)
    in_two = drawn(config, torch.cat([ids + 1000, ids]), 60)
    assert torch.equal(in_two.partner[60:] - 60, one.partner)
    fewer = drawn(config, ids[:59], 60)
    assert not torch.equal(fewer.partner, one.partner[:59])
    assert torch.equal(fewer.share, one.share[:59])
    assert not torch.equal(drawn(config, ids, 60, epoch=1).partner, one.partner)
    assert not torch.equal(drawn(config, ids, 60, seed=1).share, one.share)


def test_take_counts_partners_from_its_start():
    mix = drawn(BOTH, torch.arange(40), 8)
    part = mix.take(16, 32)
    assert torch.equal(part.partner + 16, mix.partner[16:32])
    assert part.partner.min() == 0
    assert part.partner.max() == 15
    assert torch.equal(part.rectangles, mix.rectangles[16:32])


# Shares


@pytest.mark.parametrize("alpha", [0.1, 0.2, 0.5, 1.0, 2.0, 8.0, 100.0])
def test_shares_have_the_beta_distribution(alpha):
    count = 40_000
    shares = mixing.symmetric_beta(alpha, seed=1, epoch=2, ids=torch.arange(count)).double().numpy()
    assert shares.min() >= 0
    assert shares.max() <= 1
    edges = np.array([0, 1e-4, 0.01, 0.1, 0.2, 0.3, 0.4, 0.45, 0.5, 0.55, 0.6, 0.7, 0.8, 0.9, 0.99, 0.9999, 1])
    counts, _ = np.histogram(shares, bins=edges)
    wanted = count * np.diff(stats.beta(alpha, alpha).cdf(edges))
    used = wanted >= 5
    assert counts[~used].sum() <= 5 + 4 * wanted[~used].sum()
    wanted = wanted[used] * counts[used].sum() / wanted[used].sum()
    assert 1e-4 < stats.chisquare(counts[used], wanted).pvalue < 1 - 1e-4
    if alpha >= 0.5:  # below, single precision rounds a visible part to exactly 0 and 1
        assert stats.kstest(shares, stats.beta(alpha, alpha).cdf).pvalue > 1e-4


def test_an_alpha_beyond_single_precision_gives_no_nan():
    shares = mixing.symmetric_beta(0.001, seed=0, epoch=0, ids=torch.arange(10_000))
    assert set(shares.unique().tolist()) >= {0.0, 1.0}
    assert torch.isfinite(shares).all()


def test_rectangles_are_those_of_the_paper_and_shares_what_they_leave():
    count = 3000
    ids = torch.arange(count)
    mix = drawn(CUTMIX, ids, 50)
    key = {"seed": 0, "epoch": 0, "ids": ids}
    own = mixing.symmetric_beta(1.0, **key).double().tolist()
    centers = [mixing.rng.randint(0, 0, ids, draw, size).tolist() for draw, size in ((19, HEIGHT), (20, WIDTH))]
    assert sorted(set(centers[0])) == list(range(HEIGHT))
    differ = 0
    for share, y, x, got in zip(own, *centers, mix.rectangles.tolist(), strict=True):
        half = 0.5 * math.sqrt(1 - share)
        tall, wide = int(half * HEIGHT), int(half * WIDTH)
        y1, y2, x1, x2 = max(y - tall, 0), min(y + tall, HEIGHT), max(x - wide, 0), min(x + wide, WIDTH)
        differ += got != [y1, x1, y2 - y1, x2 - x1]
    assert differ <= 2  # a side that is whole but for single precision
    area = (mix.rectangles[:, 2] * mix.rectangles[:, 3]).double()
    torch.testing.assert_close(mix.share.double(), 1 - area / (HEIGHT * WIDTH), rtol=0, atol=1e-6)


def test_with_both_on_every_second_image_gets_each():
    count = 4000
    mix = drawn(BOTH, torch.arange(count), 100)
    is_cut = mix.blend == 1
    assert stats.binomtest(int(is_cut.sum()), count, 0.5).pvalue > 1e-4
    assert not mix.rectangles[~is_cut].any()
    assert torch.equal(mix.share[~is_cut], mix.blend[~is_cut])
    assert torch.equal(mix.share[is_cut], drawn(CUTMIX, torch.arange(count), 100).share[is_cut])


# Pictures and targets


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("config", [MIXUP, CUTMIX, BOTH], ids=["mixup", "cutmix", "both"])
def test_pictures_and_targets_are_torchvisions_pair_by_pair(config, layout):
    count = 40
    images, labels = noise(count), torch.arange(count) % CLASSES
    mix = drawn(config, torch.arange(count), 8)
    made = shown(mixing.mix_images(stored(images, layout).clone(), mix), layout)
    targets = mixing.mix_targets(labels, mix, CLASSES)
    assert (targets.dtype, targets.shape) == (torch.float32, (count, CLASSES))
    mixup, cutmix = v2.MixUp(num_classes=CLASSES), v2.CutMix(num_classes=CLASSES)
    for k, other in enumerate(mix.partner.tolist()):
        pair, of_pair = torch.stack([images[k], images[other]]), torch.stack([labels[k], labels[other]])
        share = mix.share[k].item()
        is_blended = mix.blend is not None and mix.blend[k] < 1
        if is_blended:
            params, peer = {"lam": share}, mixup
        else:
            top, left, tall, wide = mix.rectangles[k].tolist()
            params, peer = {"box": (left, top, left + wide, top + tall), "lam_adjusted": share}, cutmix
        params |= {"labels": of_pair, "batch_size": 2}
        assert torch.equal(made[k], peer.transform(pair, params)[0])
        assert torch.equal(targets[k], peer.transform(of_pair, params)[0])


def test_targets_add_up_to_one():
    mix = drawn(BOTH, torch.arange(3000), 30)
    targets = mixing.mix_targets(torch.arange(3000) % 3, mix, 3)
    torch.testing.assert_close(targets.sum(1), torch.ones(3000), rtol=0, atol=2e-7)
    assert targets.min() >= 0


@pytest.mark.gpu
def test_a_gpu_mixes_alike():
    if not torch.cuda.is_available():
        pytest.skip("needs CUDA")
    ids = torch.arange(500)
    here, there = drawn(BOTH, ids, 32), drawn(BOTH, ids.cuda(), 32)
    assert torch.equal(here.partner, there.partner.cpu())
    torch.testing.assert_close(there.blend.cpu(), here.blend, rtol=0, atol=1e-5)
    assert (there.rectangles.cpu() != here.rectangles).any(1).float().mean() < 0.01
