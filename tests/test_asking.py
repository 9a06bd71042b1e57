"""A run asked about photos: the same logits as on its test images, any kind of file, one line for what is no picture."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rig import train
from typer.testing import CliRunner

import cifar_lab
from cifar_lab.asking import answer_pictures, ask, photo_files
from cifar_lab.cli import app
from cifar_lab.data.folder import read_picture
from cifar_lab.errors import CheckpointError, DataError


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Trained on 32 pixels, shown at 40, each picture with its mirror image."""
    folder = train(tmp_path_factory.mktemp("predict") / "run", "train.tta=flip", "data.input_size=40")
    return cifar_lab.load_run(folder)


@pytest.fixture(scope="module")
def photos(run, tmp_path_factory):
    """Test images of the run as PNG."""
    folder = tmp_path_factory.mktemp("photos")
    for place, image in enumerate(run.images("test").images.numpy()[:12]):
        Image.fromarray(image.transpose(1, 2, 0)).save(folder / f"{place:02d}.png")
    return folder


def predict(*arguments: object):
    return CliRunner().invoke(app, ["predict", *map(str, arguments)])


def test_a_test_image_as_png_gets_its_saved_logits(run, photos):
    files = photo_files([str(photos)])
    assert len(files) == 12
    logits = answer_pictures(run, np.stack([read_picture(file, 32) for file in files]))
    np.testing.assert_allclose(logits, run.logits()[:12], rtol=1e-4, atol=1e-5)
    for place, answer in enumerate(ask(run, files, 3)):
        probs = run.probs()[place]
        best = np.argsort(-probs, kind="stable")[:3]
        assert [name for name, _ in answer.top] == [run.class_names[k] for k in best]
        assert [p for _, p in answer.top] == pytest.approx(probs[best].tolist(), abs=1e-5)


def test_other_kinds_of_the_same_picture_get_the_same_answer(run, photos, tmp_path):
    """Each is the first photo, written so that only a reader who takes care of the format sees it again."""
    plain = Image.open(photos / "00.png").convert("RGB")
    turned = Image.Exif()
    turned[0x0112] = 6  # "turn right to see it": stored turned left
    plain.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.png", exif=turned)
    plain.convert("RGBA").save(tmp_path / "opaque.png")
    gray = np.asarray(plain.convert("L")).astype(np.uint16)
    Image.fromarray(gray * 257).save(tmp_path / "deep.png")
    Image.fromarray(gray.astype(np.uint8)).save(tmp_path / "gray.png")
    frames = [plain.convert("RGB"), Image.new("RGB", plain.size, "red")]
    frames[0].save(tmp_path / "moving.webp", save_all=True, append_images=frames[1:], lossless=True, duration=100)
    answers = {Path(answer.file).stem: answer for answer in ask(run, photo_files([str(tmp_path), str(photos / "00.png")]), 10)}
    for name in ("turned", "opaque", "moving"):
        assert answers[name].top == answers["00"].top, name
    assert answers["deep"].top == answers["gray"].top


def test_transparent_pixels_are_white(run, tmp_path):
    Image.new("RGBA", (32, 32), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    Image.new("RGB", (48, 64), "white").save(tmp_path / "white.png")
    clear, white = ask(run, photo_files([str(tmp_path)]), 10)
    assert clear.top == white.top


def test_the_command_answers_all_it_can_and_names_the_rest(run, photos, tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8 no picture")
    said = predict(run.path, photos / "03.png", tmp_path / "broken.jpg", tmp_path / "nowhere.png", photos / "04.png", "--json")
    assert said.exit_code == 3
    rows = json.loads(said.stdout)
    assert [bool(row["top"]) for row in rows] == [True, False, False, True]
    assert [len(row["top"]) for row in rows] == [5, 0, 0, 5]
    assert "broken.jpg cannot be read as a picture" in rows[1]["error"]
    lines = said.stderr.splitlines()
    assert [line.startswith("cifar-lab: error[E-DATA]: ") for line in lines] == [True, True]
    assert "nowhere.png: no such file" in lines[1]
    fine = predict(run.path, photos / "03.png", "--top", "2")
    assert fine.exit_code == 0
    assert fine.stdout.count(" %") == 2


def test_what_cannot_be_asked_gets_one_line(run, photos, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no pictures"):
        photo_files([str(tmp_path / "empty")])
    foreign = predict(tmp_path, photos / "03.png")
    assert (foreign.exit_code, len(foreign.stderr.splitlines())) == (4, 2)
    assert "is no run folder" in foreign.stderr
    assert predict(run.path, photos / "03.png", "--top", "0").exit_code == 2
    wide = cifar_lab.load_run(run.path)
    wide.result["data"]["image_size"] = [32, 48]
    with pytest.raises(CheckpointError, match="48x32 pixels"):
        ask(wide, [photos / "03.png"], 1)
