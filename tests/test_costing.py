"""`cifar-lab cost` and `cifar-lab bench` as they are typed, and what every run says of its cost."""

import json

import pytest
import torch
from rig import train
from typer.testing import CliRunner

from cifar_lab import benching, costing, reference, schema
from cifar_lab.benching import Variant, _winner
from cifar_lab.cli.app import app
from cifar_lab.engine.weights import WEIGHTS
from cifar_lab.errors import ConfigError
from cifar_lab.runs import config_digest

CPU = ("device=cpu", "threads=1")


def said(*words: str, code: int = 0) -> str:
    """Standard output of a command; nothing else may be there."""
    done = CliRunner().invoke(app, list(words))
    assert done.exit_code == code, done.output
    return done.stdout if code == 0 else done.stderr


def test_every_run_says_what_its_model_costs(finished):
    result = json.loads((finished / "result.json").read_text())
    cost = result["cost"]
    assert (cost["num_params"], cost["num_params_trainable"], cost["num_params_keras"]) == (18_422,) * 3
    assert (cost["macs"], cost["flops"]) == (632_268, 2 * 632_268)
    assert cost["uncounted_operators"] == {"aten::max_pool2d": 1}
    assert cost["size_bytes"] == (finished / "checkpoints" / "best" / WEIGHTS).stat().st_size
    latency = cost["latency"]
    assert (latency["device"], latency["precision"]) == ("cpu", "fp32")
    for size in (1, 60):
        found = latency[f"batch_{size}"]
        assert 0 < found["call_ms"]["p50"] <= found["call_ms"]["p90"] <= found["call_ms"]["p99"]
        assert found["calls"] >= 1
    assert cost["inference"]["batch_size"] == 60, "never more than the test set holds"
    assert cost["inference"]["images_per_s"] > 0
    assert json.loads((finished / "cost.json").read_text()) == cost


def test_timing_can_be_switched_off_and_is_no_part_of_the_digest(finished, tmp_path):
    train(tmp_path / "run", "train.latency_s=0")
    off, on = (json.loads((folder / "result.json").read_text()) for folder in (tmp_path / "run", finished))
    assert (off["cost"]["latency"], off["cost"]["inference"]) == (None, None)
    assert off["digests"] == on["digests"]
    assert off["metrics"] == on["metrics"]
    schema.register()
    assert config_digest(schema.compose(["train.latency_s=0"])) == config_digest(schema.compose([]))


def test_cost_counts_a_model_without_data():
    found = json.loads(said("cost", "model=resnet18", *CPU, "--counts-only", "--layers", "--json", "--classes", "100"))
    assert found["num_params"] == 11_173_962 + 90 * 513
    assert found["num_params_keras"] - found["num_params"] == 2 * 4_800
    assert found["layer_totals"]["macs"] == found["macs"] == sum(row["macs"] for row in found["layers"])
    assert found["layers"][-1]["output_shape"] == [1, 100]
    assert "latency" not in found
    found = json.loads(said("cost", "data=cifar100", *CPU, "--counts-only", "--json"))
    assert (found["num_classes"], found["num_params"]) == (100, 18_422 + 90 * 1765)
    text = said("cost", "model=mobilenet_like", "data.input_size=48", *CPU, "--counts-only", "--layers")
    assert "50,186 as Keras counts" in text
    assert "mobilenet_like for 10 classes, 48 x 48 px" in text
    assert "256 x 12 x 12" in text


def test_cost_measures_time_and_memory(tmp_path):
    out = tmp_path / "cost.json"
    words = ("cost", "model=dense_dnn", "train.batch_size=16", *CPU, "--batch", "9", "--max-seconds", "0.2")
    text = said(*words, "--out", str(out))
    assert "p99 ms" in text
    assert "a training step (adam)" in text
    found = json.loads(out.read_text())
    assert set(found["latency"]) == {"batch_1", "batch_9"}
    assert [row["batch_size"] for row in found["throughput"]] == [1, 8, 9]
    assert (found["conditions"]["device"], found["conditions"]["threads"]) == ("cpu", 1)
    weights = 4 * (1_747_530 + 1024) + 8  # parameters, the statistics of the one batch norm, its counter
    held = {"inference": weights + 9 * 3072 * 4, "training": weights + 2 * 4 * 1_747_530 + 16 * (3072 * 4 + 8)}
    for name, batch in (("inference", 9), ("training", 16)):
        memory = found["memory"][name]
        assert memory["batch_size"] == batch
        assert memory["held_mib"] * 2**20 == pytest.approx(held[name], abs=100), "Adam also counts its steps"
        assert memory["peak_mib"] > memory["held_mib"]
    assert found["memory"]["training"]["peak_mib"] * 2**20 > held["training"] + 4 * 1_747_530, "gradients"


def test_cost_of_a_finished_run_and_of_its_evidence(finished, tmp_path):
    evidence = reference.keep(finished, "kept", tmp_path)
    result = json.loads((finished / "result.json").read_text())
    for folder in (finished, evidence):
        found = json.loads(said("cost", str(folder), "--counts-only", "--json"))
        assert found["num_params"] == 18_422
        assert found["size_bytes"] == result["cost"]["size_bytes"]
        assert found["run"]["train_s"] == result["cost"]["train_s"]
    assert "--classes 3 with a run folder" in said("cost", str(finished), "--classes", "3", code=2)
    assert f"its run       {evidence} on cpu, trained" in said("cost", str(evidence), "--counts-only")
    job = tmp_path / "optimizer.lr=0.01,seed=0"
    job.symlink_to(finished)
    assert json.loads(said("cost", str(job), "device=cpu", "--counts-only", "--json"))["num_params"] == 18_422
    assert "device=gpu; must be auto, cpu" in said("cost", str(job), "device=gpu", code=2)
    assert "device=cuda:99; " in said("cost", str(job), "device=cuda:99", code=7)
    assert "--config-dir . with a run folder" in said("cost", str(job), "--config-dir", ".", code=2)


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (("cost", "no/run"), 4, "no/run is no run folder"),
        (("cost", "no/run", "model=vit"), 2, "name one run folder, alone or with device=, or overrides"),
        (("cost", "model=vit", "--config-dir", "no/conf"), 2, "--config-dir no/conf: no such folder"),
        (("cost", "model=nope"), 2, "unknown model 'nope'"),
        (("cost", "model=vit", "data.input_size=33"), 2, "input_size=33; must be a multiple of patch_size"),
        (("bench", "model=small_cnn", "--batch-sizes", "8,x"), 2, "--batch-sizes 8,x; must be numbers above 0"),
    ],
)
def test_what_cannot_be_measured_gets_one_line(words, code, text):
    assert text in said(*words, code=code)


def test_bench_measures_all_variants_by_turns_and_names_the_fastest(monkeypatch):
    monkeypatch.setattr(benching, "_WARMUP_SHARE", 1e6)  # however busy the machine is
    words = ("bench", "model=dense_dnn", "augment=flip", "train.batch_size=16", *CPU)
    found = json.loads(said(*words, "--batch-sizes", "64", "--seconds", "1", "--json"))
    rows = found["rows"]
    assert {(r["precision"], r["channels_last"], r["batch_size"]) for r in rows} >= {
        ("fp32", layout, size) for layout in (True, False) for size in (16, 64)
    }
    assert not {r["precision"] for r in rows} & set(found["skipped"])
    for row in rows:
        assert row["low"] <= row["images_per_s"] <= row["high"]
        assert 1 <= row["repetitions"] <= 5
    best = max(rows, key=lambda row: row["images_per_s"])
    assert found["winner"]["overrides"] == best["overrides"]
    assert found["winner_at_batch_size"]["batch_size"] == 16
    config = schema.compose(best["overrides"].split())
    assert (config.train.precision, config.train.batch_size) == (best["precision"], best["batch_size"])


def test_bench_stops_in_time_and_says_what_it_left_out():
    text = said("bench", "model=custom_cnn", "train.batch_size=2", *CPU, "--batch-sizes", "4,8", "--seconds", "0.1")
    assert "no time left: raise --seconds" in text
    assert "fastest:" in text


def test_a_winner_is_clear_only_beyond_the_spread_of_all_others():
    fast, slow = Variant("fp32", True, 8, [10.0, 11.0, 12.0]), Variant("bf16", True, 8, [7.0, 8.0, 9.0])
    assert _winner([slow, fast])["clear"] is True
    assert _winner([slow, fast])["overrides"] == "train.precision=fp32 train.channels_last=true train.batch_size=8"
    slow.rates.append(10.5)
    assert _winner([slow, fast])["clear"] is False
    assert _winner([Variant("fp32", True, 8)]) is None


def test_batch_sizes_are_sorted_and_counted_once():
    assert costing.check_sizes("128, 32,128", "--x") == [32, 128]
    with pytest.raises(ConfigError, match=r"--x 0; must be numbers above 0"):
        costing.check_sizes("0", "--x")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_on_a_gpu_the_device_has_a_clock_and_books_of_its_own():
    words = ("cost", "model=resnet18", "device=cuda", "train.precision=fp32", "--batch", "256", "--max-seconds", "5")
    found = json.loads(said(*words, "--json"))
    for latency in found["latency"].values():
        assert latency["calls"] == 100
        assert 0 < latency["device_ms"]["p50"] <= latency["call_ms"]["p50"]
    speed = {row["batch_size"]: row["images_per_s"] for row in found["throughput"]}
    assert speed[128] > 5 * speed[1]
    memory = found["memory"]["training"]
    assert memory["method"] == "CUDA allocator"
    assert memory["peak_mib"] > memory["held_mib"] + 4 * 11_173_962 / 2**20
    bench = json.loads(said("bench", "model=resnet18", "device=cuda", "--seconds", "60", "--json"))
    assert bench["winner"]["precision"] in ("bf16", "fp16")
