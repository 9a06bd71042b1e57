"""`cifar-lab analyze`: all of a run, parts of it, what a run lacks, and what is refused."""

import inspect
import json
import shutil
from pathlib import Path
from pkgutil import resolve_name

import numpy as np
import pytest
import torch
from PIL import Image
from rig import Said
from typer.testing import CliRunner

import cifar_lab.analyze
from cifar_lab import reference
from cifar_lab.analysis import ANALYSES
from cifar_lab.analysis.made import Made
from cifar_lab.analyze import Subject
from cifar_lab.cli import app
from cifar_lab.data import splits
from cifar_lab.errors import DataError
from cifar_lab.saved import load_run

PICTURES = {
    "curves": (1320, 420),
    "classes": (750, 570),
    "calibration": (1120, 600),
    "samples": (1072, 585),
    "samples_per_class": (670, 405),
    "samples_uncertain": (1072, 585),
}
OTHERS = {"confusion_matrix", "samples_worst", "features", "kernels"}


def call(*arguments: object) -> Said:
    made = CliRunner().invoke(app, ["analyze", *map(str, arguments)])
    return Said(made.exit_code, made.stdout, made.stderr)


@pytest.fixture(scope="module")
def analyzed(finished, tmp_path_factory) -> tuple[Path, Said]:
    """All of it, in a copy of the run."""
    run = tmp_path_factory.mktemp("analyze") / "copy"
    shutil.copytree(finished, run)
    return run, call(run)


def test_every_picture_is_there_with_its_size_and_something_in_it(analyzed):
    out, said = analyzed
    assert (said.code, said.err) == (0, "")
    pictures = {path.stem: Image.open(path) for path in out.glob("*.png")}
    assert set(pictures) == {*PICTURES, *OTHERS}
    assert {name: pictures[name].size for name in PICTURES} == PICTURES
    for name, picture in pictures.items():
        colors = picture.convert("RGB").getcolors(10**6)
        assert len(colors) > 20, name
        assert max(colors)[0] < 0.97 * picture.width * picture.height, f"{name} is nearly blank"
    assert "left out" not in said.out
    assert f"written to {out}" in said.out
    counts = np.array(json.loads((out / "analysis.json").read_text())["analyses"]["confusion"]["counts"])
    assert counts.trace() / counts.sum() == load_run(out).metrics["test"]["accuracy"]


def test_findings_are_printed_and_written(analyzed, finished):
    out, said = analyzed
    written = json.loads((out / "findings.json").read_text())
    assert all(f"- {finding['text']}\n" in said.out for finding in written)
    run = load_run(finished)
    right = int((run.logits("test").argmax(1) == run.labels("test")).sum())
    counts = next(f for f in written if f["name"] == "counts")
    assert (counts["numbers"]["correct"], counts["numbers"]["accuracy"]) == (right, run.metrics["test"]["accuracy"])
    assert (out / "findings.md").read_text().startswith("# Findings: small_cnn on digits")
    record = json.loads((out / "analysis.json").read_text())
    assert set(record["analyses"]) == set(ANALYSES)
    assert record["analyses"]["findings"]["findings"] == written


def test_the_runs_own_files_stay_as_they_are(analyzed, finished):
    before = {path.name: path.read_bytes() for path in finished.iterdir() if path.is_file()}
    assert "confusion_matrix.png" in before
    assert {name for name, content in before.items() if (analyzed[0] / name).read_bytes() != content} == set()


def test_one_analysis_in_all_formats_the_same_bytes_again_and_the_record_grows(finished, tmp_path):
    files = [f"classes.{form}" for form in ("png", "pdf", "svg")]
    for folder in ("a", "b"):
        assert call(finished, "--out", tmp_path / folder, "--only", "classes", "--figures", "png,pdf,svg").code == 0
    assert {path.name for path in (tmp_path / "a").iterdir()} == {*files, "analysis.json"}
    assert all((tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes() for name in files)
    pdf = (tmp_path / "a" / "classes.pdf").read_bytes()
    assert pdf.startswith(b"%PDF")
    assert b"/MediaBox [ 0 0 252 " in pdf, "one column: 3.5 inches of 72 points"
    assert b"FontFile2" in pdf, "letters are embedded"
    assert call(finished, "--out", tmp_path / "a", "--only", "findings").code == 0
    assert set(json.loads((tmp_path / "a" / "analysis.json").read_text())["analyses"]) == {"classes", "findings"}


def test_json_is_all_that_is_printed_and_its_numbers_are_the_runs(finished, tmp_path):
    said = call(finished, "--out", tmp_path, "--only", "calibration,findings", "--json")
    made = json.loads(said.out)
    run = load_run(finished)
    assert made["files"] == ["calibration.png", "findings.json", "findings.md", "analysis.json"]
    assert made["left_out"] == {}
    assert made["analyses"]["calibration"]["before"]["ece"] == pytest.approx(run.metrics["test"]["ece"], abs=1e-12)
    assert made["analyses"]["findings"]["findings"] == json.loads((tmp_path / "findings.json").read_text())


def test_what_the_model_sees_gives_the_logits_that_were_saved(finished):
    run = load_run(finished)
    subject = Subject(run)
    with torch.no_grad():
        logits = torch.cat([subject.model()(subject.seen(position)) for position in range(5)])
    np.testing.assert_allclose(logits.numpy(), run.logits("test")[:5], rtol=1e-4, atol=1e-4)


def test_evidence_gets_what_its_files_allow(finished, tmp_path, monkeypatch):
    kept = reference.keep(finished, "kept", tmp_path)
    before = {path.name: path.read_bytes() for path in kept.iterdir()}
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cifar_lab.analyze, "save_layout", lambda path, layout, formats: [path])  # drawn elsewhere
    made = cifar_lab.analyze.analyze(kept)
    assert made["folder"] == "outputs/analyze/kept"
    assert made["left_out"] == {
        "features": f"{kept} kept no weights",
        "kernels": f"{kept} kept no weights",
        "calibration: temperature": "the run's evidence has confidences, no logits",
    }
    assert {Path(name).stem for name in made["files"]} >= {*PICTURES, *OTHERS} - {"features", "kernels"}
    said = call(kept, "--only", "findings,kernels")
    assert (said.code, said.out) == (4, "")
    assert said.err.startswith(f"cifar-lab: error[E-CKPT]: {kept} kept no weights")
    assert (tmp_path / "outputs/analyze/kept/findings.md").is_file(), "what can be made is"
    said = call(kept, "--only", "findings", "--out", kept)
    assert (said.code, said.out) == (2, "")
    assert f"--out {kept} is evidence, which stays as it was kept" in said.err
    assert {path.name: path.read_bytes() for path in kept.iterdir()} == before


def test_without_its_data_the_run_keeps_all_but_pictures_of_images(finished, tmp_path, monkeypatch):
    def gone(config):
        assert not config.download, "looking at a run downloads nothing"
        raise DataError("the images are not there")

    monkeypatch.setattr(splits, "load_splits", gone)
    monkeypatch.setattr(cifar_lab.analyze, "save_layout", lambda path, layout, formats: [path])
    made = cifar_lab.analyze.analyze(finished, out=tmp_path)
    left = ("samples", "samples_per_class", "samples_worst", "samples_uncertain", "features")
    assert made["left_out"] == dict.fromkeys(left, "the images are not there")
    said = call(finished, "--out", tmp_path, "--only", "samples")
    assert (said.code, said.err.splitlines()[1]) == (3, "hint: --data-root DIR names the folder of the data set")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--only", "curve"), "unknown analysis 'curve'; did you mean 'curves'?"),
        (("--figures", "gif"), "--figures gif; must be of png, pdf, svg"),
        (("--only", "curves", "--layer", "features.0"), "--layer is for features, kernels, which --only leaves out"),
        (("--only", "curves", "--data-root", "."), "--data-root: nothing that was asked for looks at images"),
        (("--only", "kernels", "--channel", "700"), "--channel 700; features.0 has the channels 0 to 6"),
        (("--only", "features", "--layer", "feature.0"), "the model has no such layer; did you mean features.0?"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_written(finished, tmp_path, arguments, text):
    said = call(finished, "--out", tmp_path / "out", *arguments)
    assert (said.code, said.out) == (2, "")
    assert text in said.err
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_no_run_gets_one_line(tmp_path):
    said = call(tmp_path)
    assert said.code == 4
    assert said.err.startswith(f"cifar-lab: error[E-CKPT]: {tmp_path} is no run folder")
    assert list(tmp_path.iterdir()) == []


def brightest(run, *, image: int | None = None) -> Made:
    """An analysis of somebody else's."""
    return Made({"image": image, "greatest": int(run.images().max())}, texts={"brightest.txt": "x\n"})


def test_a_new_analysis_is_a_function_and_a_row(finished, tmp_path, monkeypatch):
    monkeypatch.setitem(ANALYSES, "brightest", f"{__name__}:brightest")
    said = call(finished, "--out", tmp_path, "--only", "brightest", "--image", "7", "--json")
    assert json.loads(said.out)["analyses"] == {"brightest": {"image": 7, "greatest": 255}}
    assert (tmp_path / "brightest.txt").read_text() == "x\n"


def test_every_row_takes_a_run_and_options_that_the_program_has():
    flags = {parameter.removeprefix("--") for parameter in ("--layer", "--image", "--channel")}
    for row in ANALYSES.values():
        first, *options = inspect.signature(resolve_name(row)).parameters.values()
        assert first.name == "run"
        assert {option.name for option in options} <= flags
    listed = CliRunner().invoke(app, ["analyze", "--help"]).output
    assert all(name in listed for name in ANALYSES)
