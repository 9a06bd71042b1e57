"""Batches with policies, jitter, erasing and mixing: the order of operations, soft targets, and nothing paid for what is off."""

import hashlib
from collections import Counter
from dataclasses import replace

import pytest
import torch
import torchvision.transforms.v2.functional as tv
from tensors import pictures, stored
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision.transforms import v2

from cifar_lab.config import AugmentConfig, Config, TrainConfig
from cifar_lab.data import augment as ops
from cifar_lab.data import mixing, steps
from cifar_lab.data.batches import Batches
from cifar_lab.data.policies import build_policy
from cifar_lab.data.sets import ImageSet
from cifar_lab.data.steps import Kind
from cifar_lab.errors import ConfigError
from cifar_lab.rules import check

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
CROP_FLIP = AugmentConfig(crop_padding_px=4, flip_probability=0.5, cutout_px=3)
PICTURE = replace(
    CROP_FLIP,
    policy="randaugment",
    jitter_brightness=0.3,
    jitter_contrast=0.3,
    jitter_saturation=0.3,
    jitter_hue=0.1,
    erase_probability=0.6,
)
EVERYTHING = replace(PICTURE, mixup_alpha=0.5, cutmix_alpha=1.0)
CLASSES = 7
PEER = v2.RandAugment()
JITTER = {
    Kind.BRIGHTNESS: lambda image, m: tv.adjust_brightness(image, 1.0 + m),
    Kind.CONTRAST: lambda image, m: tv.adjust_contrast(image, 1.0 + m),
    Kind.SATURATION: lambda image, m: tv.adjust_saturation(image, 1.0 + m),
    Kind.HUE: tv.adjust_hue,
}


def image_set(count: int = 53, height: int = 8, width: int = 12) -> ImageSet:
    return ImageSet(pictures(count, height, width, seed=11), torch.arange(count) % CLASSES, torch.arange(count) * 7 + 1000)


def batches(**settings) -> Batches:
    settings = {"batch_size": 8, "mean": MEAN, "std": STD, "shuffle": True, "num_classes": CLASSES, **settings}
    return Batches(settings.pop("source", image_set()), **settings)


def epoch_of(made: Batches, epoch: int = 0, start: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    images, targets = zip(*made.iterate(epoch, start), strict=True)
    return torch.cat(images), torch.cat(targets)


def by_torchvision(source: ImageSet, place: int, config: AugmentConfig, seed: int, epoch: int) -> torch.Tensor:
    """One image by torchvision's functions: flip, crop, policy, jitter, normalise, cutout, erase."""
    height, width = source.images.shape[2:]
    policy = build_policy(config, height, width, torch.device("cpu"))
    ids = source.ids[place : place + 1]
    draws = ops.draw(config, seed=seed, epoch=epoch, ids=ids, height=height, width=width, policy=policy)
    image = source.images[place]
    image = tv.horizontal_flip(image) if draws.flip.item() else image
    image = tv.crop(tv.pad(image, [config.crop_padding_px] * 4), draws.top.item(), draws.left.item(), height, width)
    for step in draws.steps[0].tolist():
        image = PEER._apply_image_or_video_transform(
            image, *policy.steps[step], interpolation=PEER.interpolation, fill=PEER._fill
        )
    for kind, amount in zip(draws.jitter_kinds[0].tolist(), draws.jitter_amounts[0].tolist(), strict=True):
        image = JITTER[Kind(kind)](image, amount)
    pixels = tv.normalize(image.float() / 255, list(MEAN), list(STD))
    square = (draws.cutout_top.item(), draws.cutout_left.item(), config.cutout_px, config.cutout_px)
    pixels = tv.erase(pixels, *square, torch.zeros(3, 1, 1))
    return tv.erase(pixels, *draws.erased[0].tolist(), torch.zeros(3, 1, 1)) if draws.erased[0, 2] else pixels


@pytest.mark.parametrize("channels_last", [True, False])
def test_an_epoch_equals_one_made_image_by_image(channels_last):
    source = replace(image_set(), labels=torch.arange(53))
    made = batches(source=source, augment=PICTURE, seed=5, channels_last=channels_last)
    images, labels = epoch_of(made, epoch=3)
    expected = torch.stack([by_torchvision(source, place, PICTURE, 5, 3) for place in labels.tolist()])
    differ = (images - expected).abs() > 2e-6
    assert differ.float().mean() <= 0.002  # a point between two pixels
    assert not differ.flatten(1).any(1)[: len(labels)].all()


@pytest.mark.parametrize("config", [replace(CROP_FLIP, mixup_alpha=0.5), replace(CROP_FLIP, cutmix_alpha=1.0), EVERYTHING])
def test_mixing_comes_last_and_each_batch_keeps_to_itself(config):
    alone = replace(config, mixup_alpha=0.0, cutmix_alpha=0.0)
    source = image_set()
    plain = batches(augment=alone, seed=2)
    order = [source.ids[k].item() for k in plain._order(1).tolist()]
    mixed = list(batches(augment=config, seed=2, chunk_images=24).iterate(1))
    assert len(mixed) == 7
    for k, ((images, labels), (got, targets)) in enumerate(zip(plain.iterate(1), mixed, strict=True)):
        ids = torch.tensor(order[k * 8 : k * 8 + 8])
        mix = mixing.draw_mix(config, seed=2, epoch=1, ids=ids, batch_size=8, height=8, width=12)
        assert torch.equal(got, mixing.mix_images(stored(images).clone(), mix).squeeze(1).permute(0, 3, 1, 2))
        assert torch.equal(targets, mixing.mix_targets(labels, mix, CLASSES))
        assert (targets.dtype, targets.shape) == (torch.float32, (len(ids), CLASSES))
        assert not torch.equal(got, images)


@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize("chunk_images", [0, 8, 24])
def test_neither_chunk_nor_place_of_entry_change_a_bit(chunk_images, channels_last):
    settings = {"augment": EVERYTHING, "seed": 3, "channels_last": channels_last}
    expected, targets = epoch_of(batches(**settings, chunk_images=16), 2)
    made = batches(**settings, chunk_images=chunk_images)
    for start in (0, 1, 5, 6):
        images, soft = epoch_of(made, 2, start)
        assert torch.equal(images, expected[start * 8 :])
        assert torch.equal(soft, targets[start * 8 :])


def test_without_mixing_labels_stay_whole_numbers():
    for augment in (None, AugmentConfig(), PICTURE):
        _, labels = epoch_of(batches(augment=augment, num_classes=0))
        assert labels.dtype == torch.int64


def test_mixing_needs_the_number_of_classes():
    with pytest.raises(ValueError, match=r"^num_classes=0; mixup and cutmix need the number of classes$"):
        batches(augment=EVERYTHING, num_classes=0)


def test_the_source_and_earlier_batches_are_never_written_to():
    source = image_set()
    before = source.images.clone()
    kept = [(images, images.clone()) for images, _ in batches(source=source, augment=EVERYTHING, chunk_images=8).iterate(0)]
    assert torch.equal(source.images, before)
    assert all(torch.equal(one, other) for one, other in kept)
    unshuffled = batches(source=source, augment=AugmentConfig(policy="autoaugment"), shuffle=False)
    epoch_of(unshuffled)
    assert torch.equal(source.images, before)


# What is off costs nothing


class _Recorder(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.seen.append(func.overloadpacket.__name__)
        if func.overloadpacket.__name__ == "index":
            assert all(index is None or index.dtype != torch.bool for index in args[1]), "a mask's length is on the device"
        return func(*args, **(kwargs or {}))


VIEWS = {"slice", "view", "unsqueeze", "expand", "squeeze", "permute", "split", "as_strided"}


def operations_per_chunk(augment: AugmentConfig | None) -> Counter:
    """What one more chunk adds, views aside."""
    counts = []
    for start in (0, 1):
        with _Recorder() as recorder:
            list(batches(augment=augment, chunk_images=8).iterate(0, start))
        counts.append(Counter(name for name in recorder.seen if name not in VIEWS))
    return counts[0] - counts[1]


def test_at_their_defaults_the_new_keys_add_no_operation_to_a_chunk():
    """The lists are those of the version before there were such keys."""
    plain = {"index_select": 1, "_to_copy": 1, "mul_": 1, "add_": 1}
    assert operations_per_chunk(None) == operations_per_chunk(AugmentConfig()) == plain
    assert operations_per_chunk(AugmentConfig(flip_probability=0.5)) == {
        **plain,
        **{"_to_copy": 2, "mul_": 2, "flip": 1, "bitwise_xor_": 2, "bitwise_and_": 1},
    }
    assert sum(operations_per_chunk(replace(CROP_FLIP, mixup_alpha=1.0)).values()) > sum(operations_per_chunk(CROP_FLIP).values())


@pytest.mark.parametrize(
    ("config", "digest"),
    [
        (None, "d06752fa3bfbb4443c1ef19c531093d867f60cd7dd2f030388631558af269433"),
        (AugmentConfig(), "d06752fa3bfbb4443c1ef19c531093d867f60cd7dd2f030388631558af269433"),
        (CROP_FLIP, "796ddb044a8531e4848e6aae06cfdfefa2f8d7ec06a65ce8f15e74997e3dd5d9"),
    ],
)
def test_at_their_defaults_the_new_keys_change_no_bit(config, digest):
    """Digests of the version before there were such keys: bytes of images and labels."""
    generator = torch.Generator().manual_seed(11)
    images = torch.randint(0, 256, (53, 3, 9, 12), dtype=torch.uint8, generator=generator)
    source = ImageSet(images, torch.arange(53), torch.arange(53) * 7 + 1000)
    state = hashlib.sha256()
    for pixels, labels in batches(source=source, augment=config, seed=5, chunk_images=16, num_classes=0).iterate(3):
        state.update(pixels.numpy().tobytes())
        state.update(labels.numpy().tobytes())
    assert state.hexdigest() == digest


# Nothing waits for the device

WAITING = {"_local_scalar_dense", "item", "nonzero", "masked_select", "unique", "_unique2", "bincount", "equal", "is_nonzero"}


@pytest.mark.parametrize("policy", ["autoaugment", "randaugment", "trivialaugment"])
def test_on_other_devices_no_operation_has_a_result_that_the_host_must_read(policy, monkeypatch):
    """The way that is not taken on a CPU, which knows its own memory."""

    def masked(images, kinds, parameters, possible):
        return steps._masked(images, kinds, parameters, possible)

    made = batches(augment=replace(EVERYTHING, policy=policy), chunk_images=16, input_size=20)
    expected = epoch_of(made, 1)
    monkeypatch.setattr("cifar_lab.data.policies.apply_step", masked)
    monkeypatch.setattr("cifar_lab.data.jitter.apply_step", masked)
    with _Recorder() as recorder:
        images, targets = epoch_of(made, 1)
    assert {"index_select", "where", "scatter_add_", "gather"} <= set(recorder.seen)  # it was looking
    assert not set(recorder.seen) & WAITING
    assert torch.equal(images, expected[0])
    assert torch.equal(targets, expected[1])


@pytest.mark.gpu
@pytest.mark.parametrize("channels_last", [True, False])
def test_a_gpu_makes_the_same_batches_without_being_waited_for(channels_last):
    if not torch.cuda.is_available():
        pytest.skip("needs CUDA")
    settings = {"augment": replace(EVERYTHING, jitter_hue=0.0), "channels_last": channels_last, "chunk_images": 16}
    images, targets = epoch_of(batches(**settings), 1)
    made = batches(device="cuda", **settings)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        on_gpu, soft = epoch_of(made, 1)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    torch.testing.assert_close(soft.cpu(), targets, rtol=0, atol=1e-5)
    assert ((on_gpu.cpu() - images).abs() > 1e-4).float().mean() < 2e-3  # a rectangle of one line more or less


# What is refused


def test_what_does_not_fit_the_pictures_is_refused():
    config = AugmentConfig(erase_probability=0.1, erase_min_area=0.9, erase_max_area=1.0)
    with pytest.raises(ConfigError) as error:
        ops.check_augment(config, 7, 11)
    assert error.value.what == "augment.erase_min_area=0.9; pictures are 11x7, so less than 0.89"
    ops.check_augment(replace(config, erase_min_area=0.88), 7, 11)
    ops.check_augment(replace(config, erase_probability=0.0), 7, 11)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            Config(augment=AugmentConfig(erase_min_area=0.5)),
            "augment.erase_min_area=0.5; must be at most augment.erase_max_area=0.33",
        ),
        (
            Config(augment=AugmentConfig(cutmix_alpha=1.0), train=TrainConfig(batch_size=1)),
            "augment.cutmix_alpha=1.0 with train.batch_size=1; an image is mixed with another one",
        ),
        (
            Config(augment=AugmentConfig(policy="augmix")),
            "augment.policy=augmix; must be one of none, autoaugment, randaugment, trivialaugment",
        ),
        (Config(augment=AugmentConfig(jitter_hue=0.6)), "augment.jitter_hue=0.6; must be 0.0 to 0.5"),
        (
            Config(augment=AugmentConfig(randaugment_magnitude=31)),
            "augment.randaugment_magnitude=31; must be 0 to 30",
        ),
    ],
)
def test_settings_that_cannot_be_are_refused(config, message):
    with pytest.raises(ValueError) as error:
        check(config)
    assert str(error.value) == message
