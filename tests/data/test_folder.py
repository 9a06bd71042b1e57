"""Pictures of every kind, against torchvision's resizing and colours worked out by hand."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision.transforms.functional as tv
from PIL import Image

from cifar_lab.config import DataConfig
from cifar_lab.data.folder import load_folder, read_picture
from cifar_lab.data.splits import load_splits
from cifar_lab.errors import ConfigError, DataError, Interrupted


def noise(height: int, width: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    shape = (height, width, channels) if channels > 1 else (height, width)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def save(path: Path, pixels: np.ndarray, **settings) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **settings)
    return path


def config(root: Path, **settings) -> DataConfig:
    return DataConfig(**{"name": "folder", "root": str(root), "image_size": 8, **settings})


def reference(picture: Image.Image, size: int) -> np.ndarray:
    """Shorter side to ``size``, then the middle square, by torchvision."""
    resized = tv.resize(picture, [size], tv.InterpolationMode.BILINEAR, antialias=True)
    return np.asarray(tv.center_crop(resized, [size]))


# One picture


@pytest.mark.parametrize(
    ("height", "width"), [(8, 8), (32, 32), (33, 47), (100, 31), (5, 9), (8, 21), (3, 3), (1, 1), (480, 640), (2, 61), (500, 9)]
)
def test_resizing_and_cropping_are_torchvisions(height, width, tmp_path):
    pixels = noise(height, width)
    ours = read_picture(save(tmp_path / "x.png", pixels), 8).astype(int)
    assert ours.shape == (8, 8, 3)
    assert np.abs(ours - reference(Image.fromarray(pixels), 8)).max() <= 1
    if height == 8:  # cut, but not resized: 21 columns lose 6 on the left, as the even half of 6.5 is 6
        left = {8: 0, 21: 6}[width]
        assert np.array_equal(ours, pixels[:, left : left + 8])


def test_a_picture_of_ten_thousand_to_one_needs_no_room(tmp_path):
    pixels = np.zeros((1, 10_000, 3), dtype=np.uint8)
    pixels[:, 5000:] = 200
    ours = read_picture(save(tmp_path / "x.png", pixels), 1024)  # resized whole it would have 10^10 pixels
    assert (ours[:, 0] == 0).all()
    assert (ours[:, -1] == 200).all()


@pytest.mark.parametrize("mode", ["L", "1"])
def test_grey_becomes_three_equal_channels(mode, tmp_path):
    grey = noise(8, 8, 1)
    if mode == "1":
        grey = np.where(grey > 127, 255, 0).astype(np.uint8)
    Image.fromarray(grey).convert(mode).save(tmp_path / "x.png")
    assert np.array_equal(read_picture(tmp_path / "x.png", 8), np.stack([grey] * 3, axis=2))


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bit_grey_is_brought_down_to_eight(suffix, tmp_path):
    values = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    values[0, :4] = 128, 129, 65535 - 128, 65535 - 129  # either side of a half
    path = save(tmp_path / f"x.{suffix}", values)
    assert Image.open(path).mode.startswith("I")
    ours = read_picture(path, 8)
    assert np.array_equal(ours[..., 0], np.rint(values / 257).astype(int))
    assert np.array_equal(ours[..., 0], ours[..., 2])


@pytest.mark.parametrize("channels", [2, 4], ids=["LA", "RGBA"])
def test_transparency_is_put_on_white(channels, tmp_path):
    pixels = noise(8, 8, channels)
    pixels[0, :, -1] = 0
    pixels[1, :, -1] = 255
    colours = pixels[..., :3].astype(float) if channels == 4 else np.repeat(pixels[..., :1], 3, axis=2).astype(float)
    opacity = pixels[..., -1:] / 255
    ours = read_picture(save(tmp_path / "x.png", pixels), 8)
    assert np.abs(ours - (colours * opacity + 255 * (1 - opacity))).max() <= 1
    assert (ours[0] == 255).all()
    assert np.array_equal(ours[1], colours[1])


def test_a_palette_with_a_transparent_colour(tmp_path):
    indices = noise(8, 8, 1) % 3
    picture = Image.fromarray(indices).convert("L")
    picture.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    for suffix in ("png", "gif"):
        path = tmp_path / f"x.{suffix}"
        picture.save(path, transparency=1)
        assert Image.open(path).mode == "P"
        colours = np.array([[255, 0, 0], [255, 255, 255], [0, 0, 255]])
        assert np.array_equal(read_picture(path, 8), colours[indices])
    picture.save(tmp_path / "opaque.png")
    colours = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255]])
    assert np.array_equal(read_picture(tmp_path / "opaque.png", 8), colours[indices])


def test_a_grey_picture_with_a_transparent_shade(tmp_path):
    grey = noise(8, 8, 1) // 2
    path = save(tmp_path / "x.png", grey, transparency=int(grey[0, 0]))
    assert np.array_equal(read_picture(path, 8)[..., 1], np.where(grey == grey[0, 0], 255, grey))


def test_a_cmyk_jpeg(tmp_path):
    for inks, colour in (((255, 0, 0, 0), (0, 255, 255)), ((0, 255, 255, 0), (255, 0, 0)), ((0, 0, 0, 255), (0, 0, 0))):
        Image.new("CMYK", (16, 16), inks).save(tmp_path / "x.jpg", quality=100)
        assert Image.open(tmp_path / "x.jpg").mode == "CMYK"
        assert np.abs(read_picture(tmp_path / "x.jpg", 8).astype(int) - colour).max() <= 3


TURNS: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda pixels: pixels,
    2: np.fliplr,
    3: lambda pixels: np.rot90(pixels, 2),
    4: np.flipud,
    5: lambda pixels: pixels.transpose(1, 0, 2),
    6: lambda pixels: np.rot90(pixels, -1),
    7: lambda pixels: np.rot90(pixels, 2).transpose(1, 0, 2),
    8: np.rot90,
}


@pytest.mark.parametrize("orientation", TURNS)
def test_the_eight_turns_of_exif(orientation, tmp_path):
    pixels = noise(8, 8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert np.array_equal(read_picture(save(tmp_path / "x.png", pixels, exif=exif), 8), TURNS[orientation](pixels))


def test_a_photograph_taken_upright_is_turned_before_it_is_cut(tmp_path):
    stored = np.zeros((16, 40, 3), dtype=np.uint8)
    stored[:, :20] = 255  # the left half as stored is the upper half as seen
    exif = Image.Exif()
    exif[0x0112] = 6
    ours = read_picture(save(tmp_path / "x.jpg", stored, exif=exif, quality=100), 8)
    assert ours[:3].min() > 250
    assert ours[5:].max() < 5


@pytest.mark.parametrize("kind", ["empty", "text", "cut off"])
def test_a_picture_that_cannot_be_read_is_named(kind, tmp_path):
    path = save(tmp_path / "x.png", noise(64, 64))
    path.write_bytes({"empty": b"", "text": b"no picture at all", "cut off": path.read_bytes()[:3000]}[kind])
    with pytest.raises(DataError) as error:
        read_picture(path, 8)
    assert error.value.what.startswith(f"{path} cannot be read as a picture: ")
    assert error.value.hint == "repair or remove this file"


def test_pixels_without_a_known_range_are_refused(tmp_path):
    Image.fromarray(np.ones((8, 8), dtype=np.float32)).save(tmp_path / "x.tif")
    with pytest.raises(DataError, match=r"floating-point pixels have no range"):
        read_picture(tmp_path / "x.tif", 8)
    Image.fromarray(np.full((8, 8), 70_000, dtype=np.int32)).save(tmp_path / "y.tif")
    with pytest.raises(DataError, match=r"grey values 70000 to 70000; must be 0 to 65535$"):
        read_picture(tmp_path / "y.tif", 8)


# A folder of them


@pytest.fixture
def flat(tmp_path) -> Path:
    """DIR/CLASS with 20 cats in two folders and 30 dogs, each picture of one colour: its place in the order of names."""
    for k in range(50):
        folder = "dog" if k >= 20 else "cat/more" if k >= 10 else "cat"
        save(tmp_path / folder / f"{k:02d}.png", np.full((9, 9, 3), k, dtype=np.uint8))
    return tmp_path


def test_a_folder_per_class(flat):
    calls = []
    source = load_folder(config(flat), progress=lambda *call: calls.append(call))
    assert source.class_names == ("cat", "dog")
    assert source.train.labels.tolist() == [0] * 20 + [1] * 30
    assert source.train.images.shape == (50, 3, 8, 8)
    assert source.train.images[:, 0, 4, 4].tolist() == list(range(50))  # the order is that of the names
    assert torch.equal(source.train.ids, torch.arange(50))
    assert source.test is source.val is None
    assert source.notes == ()
    assert calls[-1] == ("reading pictures", 50, 50)


def test_it_is_split_by_the_fractions(flat):
    made = load_splits(config(flat, test_fraction=0.2, val_fraction=0.25))
    assert (len(made.train), len(made.val), len(made.test)) == (30, 10, 10)
    assert made.test.labels.bincount().tolist() == [4, 6]
    assert made.val.labels.bincount().tolist() == [4, 6]


def test_a_folder_per_part_and_class(tmp_path):
    place = 0
    for part, counts in (("train", {"cat": 3, "dog": 2}), ("val", {"cat": 1, "dog": 1}), ("test", {"dog": 2})):
        for name, count in counts.items():
            for k in range(count):
                save(tmp_path / part / name / f"{k}.png", np.full((8, 8, 3), place, dtype=np.uint8))
                place += 1
    source = load_folder(config(tmp_path))
    assert source.class_names == ("cat", "dog")
    parts = (source.train, source.val, source.test)
    assert [part.labels.tolist() for part in parts] == [[0, 0, 0, 1, 1], [0, 1], [1, 1]]
    assert [part.images[:, 1, 0, 0].tolist() for part in parts] == [[0, 1, 2, 3, 4], [5, 6], [7, 8]]
    assert [part.ids.tolist() for part in parts] == [[0, 1, 2, 3, 4], [5, 6], [7, 8]]
    assert source.notes == ()
    save(tmp_path / "validation" / "cat" / "x.png", noise(8, 8))
    assert load_folder(config(tmp_path)).notes == ("folders beside train, val, test were left out: validation",)
    made = load_splits(config(tmp_path, val_fraction=0.5))
    assert (len(made.train), len(made.val), len(made.test)) == (5, 2, 2)


def test_classes_named_like_parts_are_classes(tmp_path):
    for name in ("train", "tram"):
        save(tmp_path / name / "x.png", noise(8, 8))
    assert load_folder(config(tmp_path)).class_names == ("train", "tram")


def test_what_is_hidden_is_ignored_and_what_is_no_picture_is_told(flat):
    save(flat / "cat" / ".ipynb_checkpoints" / "00.png", noise(8, 8))
    save(flat / "cat" / ".hidden.png", noise(8, 8))
    save(flat / ".git" / "x.png", noise(8, 8))
    (flat / "cat" / "Thumbs.db").write_bytes(b"x")
    (flat / "dog" / "readme.txt").write_bytes(b"x")
    save(flat / "dog" / "50.PNG", np.full((8, 8, 3), 50, dtype=np.uint8))
    source = load_folder(config(flat))
    assert source.train.images[:, 0, 4, 4].tolist() == list(range(51))
    assert source.notes == (f"2 files that are no pictures were left out, the first is {flat / 'cat' / 'Thumbs.db'}",)


def test_a_damaged_picture_among_good_ones_is_named(flat):
    (flat / "dog" / "31.png").write_bytes(b"broken")
    with pytest.raises(DataError) as error:
        load_folder(config(flat))
    assert error.value.what.startswith(f"{flat / 'dog' / '31.png'} cannot be read as a picture: ")


def test_a_stop_interrupts_the_reading(flat):
    def stop() -> None:
        raise Interrupted("while reading pictures", signum=2)

    with pytest.raises(Interrupted):
        load_folder(config(flat), stop=stop)


def test_what_is_no_data_set_is_refused(flat, tmp_path_factory):
    with pytest.raises(ConfigError, match=r"^data\.root=null; data=folder needs the folder of the pictures$"):
        load_folder(DataConfig(name="folder"))
    with pytest.raises(DataError, match=r"nowhere is not a folder$"):
        load_folder(config(flat / "nowhere"))
    with pytest.raises(DataError, match=r"cat holds 1 class folders; at least 2 are needed$"):
        load_folder(config(flat / "cat"))
    (flat / "bird").mkdir()
    with pytest.raises(DataError, match=r"bird holds no pictures$"):
        load_folder(config(flat))
    parts = tmp_path_factory.mktemp("parts")
    for name in ("train/a", "train/b", "test/a", "test/c"):
        save(parts / name / "x.png", noise(8, 8))
    with pytest.raises(DataError, match=r"test/c is a class without training pictures$"):
        load_folder(config(parts))


def test_detail_that_is_lost_on_the_way_to_a_large_input_is_pointed_out(tmp_path):
    for name, side in (("cat", 40), ("dog", 40), ("dog", 20)):
        for number in range(3):
            save(tmp_path / name / f"{side}-{number}.png", noise(side, side + 5, seed=side + number))
    [note] = load_folder(config(tmp_path, image_size=32, input_size=224)).notes
    assert note.startswith("6 of 9 pictures that were looked at are larger than data.image_size=32")
    assert note.endswith("data.image_size=224 keeps their detail")
    assert load_folder(config(tmp_path, image_size=40, input_size=224)).notes == (), "all there is"
    assert load_folder(config(tmp_path, image_size=32, input_size=32)).notes == ()
