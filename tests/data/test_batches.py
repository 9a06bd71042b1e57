"""Batches: the right pixels in the right order, whatever the batch size, the chunk, the place or the way in."""

import pytest
import torch
import torchvision.transforms.v2.functional as tv
from torch.utils._python_dispatch import TorchDispatchMode

from cifar_lab.config import AugmentConfig
from cifar_lab.data import augment as ops
from cifar_lab.data import batches as batches_module
from cifar_lab.data.batches import Batches
from cifar_lab.data.sets import ImageSet
from cifar_lab.errors import ConfigError, DataError

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
ALL = AugmentConfig(crop_padding_px=4, flip_probability=0.5, cutout_px=3)


def image_set(count: int = 53, height: int = 9, width: int = 12) -> ImageSet:
    """Random pictures; the label of each is its position, and its id is something else."""
    generator = torch.Generator().manual_seed(11)
    images = torch.randint(0, 256, (count, 3, height, width), dtype=torch.uint8, generator=generator)
    return ImageSet(images, torch.arange(count), torch.arange(count) * 7 + 1000)


def batches(images: ImageSet | None = None, **settings) -> Batches:
    return Batches(image_set() if images is None else images, **{"batch_size": 8, "mean": MEAN, "std": STD, **settings})


def epoch_of(made: Batches, epoch: int = 0, start: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    images, labels = zip(*made.iterate(epoch, start), strict=True)
    return torch.cat(images), torch.cat(labels)


def one_by_one(source: ImageSet, labels: torch.Tensor, config: AugmentConfig, seed: int, epoch: int) -> torch.Tensor:
    """The same epoch made image by image from torchvision's functions."""
    height, width = source.images.shape[2:]
    made = []
    for label in labels.tolist():
        key = {"seed": seed, "epoch": epoch, "ids": source.ids[label : label + 1], "height": height, "width": width}
        draws = ops.draw(config, **key)
        image = source.images[label]
        if draws.flip is not None and draws.flip.item():
            image = tv.horizontal_flip(image)
        if draws.top is not None:
            mode = "constant" if config.crop_padding_mode == "zero" else "reflect"
            padded = tv.pad(image, [config.crop_padding_px] * 4, padding_mode=mode)
            image = tv.crop(padded, draws.top.item(), draws.left.item(), height, width)
        pixels = tv.normalize(image.float() / 255, list(MEAN), list(STD))
        if draws.cutout_top is not None:
            square = (draws.cutout_top.item(), draws.cutout_left.item(), config.cutout_px, config.cutout_px)
            pixels = tv.erase(pixels, *square, torch.zeros(3, 1, 1))
        made.append(pixels)
    return torch.stack(made)


@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize(
    "config",
    [
        AugmentConfig(),
        AugmentConfig(flip_probability=0.5),
        AugmentConfig(crop_padding_px=2),
        AugmentConfig(crop_padding_px=8, crop_padding_mode="reflect", flip_probability=0.5),
        ALL,
    ],
    ids=["none", "flip", "crop", "reflect", "all"],
)
def test_an_epoch_equals_one_made_image_by_image(config, channels_last):
    source = image_set()
    made = batches(source, augment=config, shuffle=True, seed=5, channels_last=channels_last)
    images, labels = epoch_of(made, epoch=3)
    assert torch.equal(labels.sort().values, source.labels)
    torch.testing.assert_close(images, one_by_one(source, labels, config, seed=5, epoch=3), rtol=0, atol=2e-6)


def test_evaluation_is_the_set_itself_in_its_order_in_every_epoch():
    source = image_set()
    made = batches(source)
    expected = tv.normalize(source.images.float() / 255, list(MEAN), list(STD))
    for epoch in (0, 1, 9):
        images, labels = epoch_of(made, epoch)
        assert torch.equal(labels, source.labels)
        torch.testing.assert_close(images, expected, rtol=0, atol=2e-6)


def test_the_source_is_never_written_to():
    source = image_set()
    before = source.images.clone()
    for channels_last in (True, False):
        for augment in (None, ALL):
            for images, _ in batches(source, augment=augment, channels_last=channels_last).iterate(0):
                images.zero_()
    assert torch.equal(source.images, before)


def test_a_batch_stays_what_it_was_while_later_ones_are_made():
    made = batches(augment=ALL, shuffle=True, chunk_images=8)
    kept, copies = [], []
    for images, _ in made.iterate(0):
        kept.append(images)
        copies.append(images.clone())
    assert len(kept) == 7
    assert all(torch.equal(one, other) for one, other in zip(kept, copies, strict=True))


# The same images, however they are cut up


@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize("augment", [None, ALL], ids=["plain", "augmented"])
@pytest.mark.parametrize(("batch_size", "chunk_images"), [(1, 0), (3, 5), (8, 8), (8, 1), (16, 40), (53, 0), (100, 0)])
def test_batch_size_and_chunk_change_no_bit(batch_size, chunk_images, augment, channels_last):
    settings = {"augment": augment, "shuffle": True, "seed": 2, "channels_last": channels_last}
    expected = epoch_of(batches(batch_size=7, **settings), epoch=1)
    images, labels = epoch_of(batches(batch_size=batch_size, chunk_images=chunk_images, **settings), epoch=1)
    assert torch.equal(labels, expected[1])
    assert torch.equal(images, expected[0])


@pytest.mark.parametrize("placement", ["device", "host"])
@pytest.mark.parametrize("drop_last", [True, False])
def test_entering_an_epoch_gives_exactly_the_remaining_batches(drop_last, placement, monkeypatch):
    monkeypatch.setattr(batches_module, "placement_of", lambda *_: placement)
    settings = {"augment": ALL, "shuffle": True, "drop_last": drop_last, "chunk_images": 24, "input_size": 16}
    whole = list(batches(**settings).iterate(4))
    assert len(whole) == len(batches(**settings)) == (6 if drop_last else 7)
    for start in range(len(whole) + 1):
        rest = list(batches(**settings).iterate(4, start))
        assert len(rest) == len(whole) - start
        for (images, labels), (expected, expected_labels) in zip(rest, whole[start:], strict=True):
            assert torch.equal(images, expected)
            assert torch.equal(labels, expected_labels)


@pytest.mark.parametrize("start", [-1, 8])
def test_a_place_that_the_epoch_has_not_is_refused(start):
    with pytest.raises(ValueError, match=rf"^start={start}; must be 0 to 7, the batches of an epoch$"):
        next(batches().iterate(0, start))


@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize("shuffle", [True, False])
def test_host_memory_gives_the_same_batches(shuffle, channels_last, monkeypatch):
    settings = {"augment": ALL, "shuffle": shuffle, "seed": 4, "channels_last": channels_last, "chunk_images": 16}
    on_device = batches(**settings)
    assert on_device.placement == "device"
    monkeypatch.setattr(batches_module, "placement_of", lambda *_: "host")
    on_host = batches(**settings)
    assert on_host.placement == "host"
    for one, other in zip(on_device.iterate(2), on_host.iterate(2), strict=True):
        assert torch.equal(one[0], other[0])
        assert torch.equal(one[1], other[1])


def test_a_set_of_more_than_a_quarter_of_free_memory_stays_on_the_host(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (4000, 10**9))
    cuda = torch.device("cuda", 1)
    assert batches_module.placement_of(1000, cuda) == "device"
    assert batches_module.placement_of(1001, cuda) == "host"
    assert batches_module.placement_of(10**15, torch.device("cpu")) == "device"
    with pytest.raises(ConfigError, match=r"^device=meta; must be cpu, cuda or mps$"):
        batches_module.placement_of(1, torch.device("meta"))


# Every image its own draw, every epoch another


def test_each_image_of_a_batch_has_its_own_draw():
    """A batch of one picture many times over comes out in many forms: each place about equally often."""
    corner = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)
    corner[:, :, 4, 4] = 255  # one white pixel tells where the window was
    count = 4096
    source = ImageSet(corner.expand(count, 3, 8, 8).contiguous(), torch.zeros(count, dtype=torch.int64), torch.arange(count))
    config = AugmentConfig(crop_padding_px=2)
    made = Batches(source, batch_size=count, mean=(0,) * 3, std=(1,) * 3, augment=config, shuffle=True, seed=1)
    images, _ = next(made.iterate(0))
    places = images[:, 0].flatten(1).argmax(1)
    counts = places.bincount(minlength=64).view(8, 8)
    assert int(counts[2:7, 2:7].sum()) == count
    assert counts[2:7, 2:7].min() > 110  # 164 expected at each of 25 places, standard deviation 12.5
    assert counts[2:7, 2:7].max() < 220


def test_order_and_draws_differ_by_epoch_and_seed_and_repeat_with_them():
    def first(seed: int, epoch: int) -> tuple[torch.Tensor, torch.Tensor]:
        return epoch_of(batches(augment=ALL, shuffle=True, seed=seed), epoch)

    base = first(0, 0)
    for seed, epoch in ((0, 1), (1, 0), (1, 1)):
        other = first(seed, epoch)
        assert not torch.equal(base[1], other[1])
        in_order = base[0][base[1].argsort()], other[0][other[1].argsort()]
        same = (in_order[0] == in_order[1]).flatten(1).all(1)
        assert same.sum() < 5  # of 53 images, each with hundreds of forms
    assert torch.equal(base[0], first(0, 0)[0])
    assert torch.equal(base[1], first(0, 0)[1])


def test_the_draw_follows_the_image_not_its_place_in_a_subset():
    source = image_set()
    part = source.take(torch.tensor([40, 3, 17]))
    made, labels = epoch_of(batches(source, augment=ALL), 2)
    of_part, part_labels = epoch_of(batches(part, augment=ALL), 2)
    assert part_labels.tolist() == [40, 3, 17]
    assert torch.equal(of_part, made[torch.isin(labels, part.labels)][torch.tensor([2, 0, 1])])


# Shapes, layouts, sizes


@pytest.mark.parametrize(("drop_last", "lengths"), [(False, [8] * 6 + [5]), (True, [8] * 6)])
def test_lengths(drop_last, lengths):
    made = batches(drop_last=drop_last, shuffle=True)
    assert len(made) == len(lengths)
    assert made.num_images == 53
    assert [len(labels) for _, labels in made.iterate(0)] == lengths
    assert [len(images) for images, _ in made.iterate(0)] == lengths


@pytest.mark.parametrize("input_size", [0, 20])
def test_memory_layout_and_types(input_size):
    for channels_last in (True, False):
        made = batches(channels_last=channels_last, augment=ALL, input_size=input_size)
        for images, labels in made.iterate(0):
            layout = torch.channels_last if channels_last else torch.contiguous_format
            assert images.is_contiguous(memory_format=layout)
            assert images.shape[1:] == ((3, 20, 20) if input_size else (3, 9, 12))
            assert (images.dtype, labels.dtype) == (torch.float32, torch.int64)


@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize("input_size", [7, 16, 31])
def test_resizing_is_torchvisions_after_augmentation(input_size, channels_last):
    source = image_set()
    settings = {"augment": ALL, "shuffle": True, "channels_last": channels_last}
    small, labels = epoch_of(batches(source, **settings))
    large, same_labels = epoch_of(batches(source, **settings, input_size=input_size, batch_size=5))
    assert torch.equal(labels, same_labels)
    expected = torch.stack([tv.resize(image, [input_size, input_size], antialias=True) for image in small])
    torch.testing.assert_close(large, expected, rtol=0, atol=1e-5)


def test_a_square_picture_of_the_right_size_is_not_resized():
    source = image_set(height=12)
    assert torch.equal(epoch_of(batches(source, input_size=12))[0], epoch_of(batches(source))[0])


def test_what_gives_no_batch_is_refused():
    with pytest.raises(DataError, match=r"^a set without images gives no batches$"):
        batches(image_set().take(torch.tensor([], dtype=torch.int64)))
    with pytest.raises(ValueError, match=r"^batch_size=0; must be 1 or more$"):
        batches(batch_size=0)
    with pytest.raises(ConfigError) as error:
        batches(batch_size=54, drop_last=True)
    assert error.value.what == "train.drop_last=true with train.batch_size=54 leaves no batch of 53 images"
    assert len(batches(batch_size=53, drop_last=True)) == 1
    with pytest.raises(ConfigError, match=r"^augment\.cutout_px=10; pictures are 12x9, so at most 9$"):
        batches(augment=AugmentConfig(cutout_px=10))


# Nothing waits for the device


class _Recorder(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.seen.add(func.overloadpacket.__name__)
        if func.overloadpacket.__name__ == "index":
            assert all(index is None or index.dtype != torch.bool for index in args[1]), "a mask's length is on the device"
        return func(*args, **(kwargs or {}))


WAITING = {"_local_scalar_dense", "item", "nonzero", "masked_select", "unique", "_unique2", "bincount", "equal", "is_nonzero"}


def test_the_recorder_sees_an_operation_that_waits():
    with _Recorder() as recorder:
        int(torch.ones(3).sum())
        torch.ones(3).nonzero()
    assert {"_local_scalar_dense", "nonzero"} <= recorder.seen & WAITING


@pytest.mark.parametrize("input_size", [0, 20])
def test_an_epoch_has_no_operation_whose_result_the_host_must_read(input_size):
    made = batches(augment=ALL, shuffle=True, input_size=input_size, chunk_images=16)
    with _Recorder() as recorder:
        for _ in made.iterate(1):
            pass
    assert {"index_select", "bitwise_xor_", "addcmul_", "sort"} <= recorder.seen  # it was looking
    assert not recorder.seen & WAITING


@pytest.mark.gpu
@pytest.mark.parametrize("placement", ["device", "host"])
@pytest.mark.parametrize("channels_last", [True, False])
def test_a_gpu_makes_the_same_batches_without_being_waited_for(channels_last, placement, monkeypatch):
    if not torch.cuda.is_available():
        pytest.skip("needs CUDA")
    settings = {"augment": ALL, "shuffle": True, "channels_last": channels_last, "chunk_images": 16}
    expected = list(batches(**settings).iterate(1))
    monkeypatch.setattr(batches_module, "placement_of", lambda *_: placement)
    made = batches(device="cuda", **settings)
    assert made.placement == placement
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        got = list(made.iterate(1))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for (images, labels), (images_cpu, labels_cpu) in zip(got, expected, strict=True):
        assert torch.equal(labels.cpu(), labels_cpu)
        assert torch.equal(images.cpu(), images_cpu)
