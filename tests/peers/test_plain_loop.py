"""The side-by-side script runs at a tiny size, and both of its sides do the same work."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("plain_loop.py")
CASES = ["small_cnn_plain", "small_cnn_crop_flip"]


@pytest.mark.slow
def test_it_times_both_sides_and_writes_what_it_measured(tmp_path, cifar10_root):
    out = tmp_path / "result.json"
    sizes = ["--images", "100", "--val-images", "40", "--repeats", "2", "--workers", "0", "--threads", "1"]
    command = [sys.executable, SCRIPT, "--data", cifar10_root, "--cases", *CASES, *sizes, "--out", out]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    written = json.loads(out.read_text())
    assert written["environment"]["threads"] == 1
    assert list(written["results"]) == CASES
    for name, result in written["results"].items():
        assert name in done.stdout
        assert len(result["epoch_s"]["ours"]) == len(result["epoch_s"]["plain"]) == 2
        assert min(*result["epoch_s"]["ours"], *result["epoch_s"]["plain"]) > 0
        assert result["case"]["images"] == 100
        assert result["workers"] == 0
        assert result["largest_logit_difference"] < 1e-4  # same images, normalisation and weights on both sides
        medians = result["median_s"]
        assert result["ratio_of_medians"] == pytest.approx(medians["plain"] / medians["ours"])
    assert "ratio" in done.stdout


@pytest.mark.slow  # imports torch and torchvision in another process
def test_help_has_examples_and_missing_data_are_refused(tmp_path):
    # Each run imports torch and torchvision, so one process asks both.
    code = f"""
import contextlib, sys
sys.path.insert(0, {str(SCRIPT.parent)!r})
import plain_loop
for arguments in (["--help"], ["--data", {str(tmp_path)!r}]):
    with contextlib.suppress(SystemExit):
        plain_loop.main(arguments)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "examples:" in done.stdout
    assert "python tests/peers/plain_loop.py --data" in done.stdout
    assert "no cifar-10-batches-py there" in done.stderr
