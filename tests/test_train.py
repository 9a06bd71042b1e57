"""A whole run, from the command line to the run folder, on real handwriting: what it leaves, continues and refuses."""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from rig import SMOKE, Lab

from cifar_lab import pipeline, schema, storage
from cifar_lab.data.splits import load_splits
from cifar_lab.engine.weights import load_weights
from cifar_lab.errors import DiskError
from cifar_lab.metrics import METRICS, summarize
from cifar_lab.runs import config_digest

RUN = "hydra.run.dir=run"


def result_of(folder: str | Path) -> dict[str, Any]:
    return json.loads((Path(folder) / "result.json").read_text())


def rows_of(folder: str | Path) -> list[dict[str, Any]]:
    """Rows of metrics.jsonl without what a clock says."""
    rows = [json.loads(line) for line in (Path(folder) / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if "seconds" not in k and k != "images_per_s"} for row in rows]


def snapshot(folder: str | Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in sorted(Path(folder).rglob("*")) if p.is_file() and p.name != ".lock"}


def test_a_run_leaves_what_the_contract_says(lab_with_pictures: Lab) -> None:
    said = lab_with_pictures(*SMOKE, RUN)
    assert said.code == 0, said.err
    names = {p.name for p in Path("run").iterdir()}
    for path in Path("run").glob("*.png"):
        assert path.read_bytes().startswith(b"\x89PNG"), path
    promised = "config.yaml overrides.txt environment.json metrics.jsonl checkpoints predictions.npz confusion_matrix.csv"
    promised += " confusion_matrix.png classification_report.json classification_report.txt curves.png samples.png"
    assert {*promised.split(), "cost.json", "result.json", "run.log"} <= names

    result = result_of("run")
    assert (result["schema"], result["status"], result["error"]) == (1, "done", None)
    assert set(result["digests"]) == {"config", "code", "data"}
    assert result["test_openings"] == 1
    assert result["best_epoch"] in (1, 2)
    assert result["data"]["images"] == {"train": 60, "val": 60, "test": 60}
    for split in ("train", "val", "test"):
        assert {*METRICS, "loss", "per_class"} <= set(result["metrics"][split])
        assert [c["support"] for c in result["metrics"][split]["per_class"]] == [6] * 10
    cost = result["cost"]
    assert cost["num_params"] == 18422
    assert abs(cost["macs"] - 630_000) < 0.03 * 630_000
    assert cost["train_s"] > 0
    assert cost["images_per_s"] > 0
    assert cost["peak_memory_mib"] > 50
    assert result["environment"]["packages"]["torch"] == torch.__version__.partition("+")[0] or torch.__version__
    assert "everything is in run" in said.out
    assert f"{100 * result['metrics']['test']['accuracy']:.2f} %" in said.out


def test_the_numbers_follow_from_the_saved_predictions(lab: Lab) -> None:
    assert lab(*SMOKE, RUN, "train.epochs=4", "train.tta=flip").code == 0
    saved = np.load("run/predictions.npz", allow_pickle=False)
    result = result_of("run")
    for split in ("val", "test"):
        logits, labels = saved[f"{split}_logits"], saved[f"{split}_labels"]
        again = summarize(logits, labels, result["data"]["classes"])
        assert json.loads(json.dumps(again)) == result["metrics"][split]
        assert result["metrics"][split]["accuracy"] == (logits.argmax(1) == labels).mean()
        assert len(set(saved[f"{split}_ids"].tolist())) == 60
    assert not set(saved["val_ids"].tolist()) & set(saved["test_ids"].tolist())
    counts = np.loadtxt("run/confusion_matrix.csv", delimiter=",", skiprows=1, dtype=int)
    assert np.trace(counts) == round(60 * result["metrics"]["test"]["accuracy"])


def test_the_best_weights_are_the_tested_ones(lab: Lab) -> None:
    """The row of the best epoch holds what the final evaluation of its weights finds."""
    assert lab(*SMOKE, RUN, "train.epochs=5", "optimizer.lr=0.01").code == 0
    result, rows = result_of("run"), rows_of("run")
    best = max(rows, key=lambda row: row["val_accuracy"])
    assert result["best_epoch"] == best["epoch"]
    assert result["metrics"]["val"]["accuracy"] == best["val_accuracy"]
    assert result["metrics"]["val"]["nll"] == pytest.approx(best["val_loss"], rel=1e-5)


def test_a_finished_run_is_shown_and_left_alone(lab: Lab) -> None:
    assert lab(*SMOKE, RUN).code == 0
    before = snapshot("run")
    said = lab(*SMOKE, RUN)
    assert said.code == 0
    assert "already done: run" in said.out
    assert snapshot("run") == before


def test_another_configuration_is_refused_by_its_difference(lab: Lab) -> None:
    assert lab(*SMOKE, RUN).code == 0
    before = snapshot("run")
    said = lab(*SMOKE, RUN, "optimizer.lr=0.002")
    assert said.code == 4
    assert "error[E-RESUME]: optimizer.lr differs (0.003 -> 0.002); run is untouched" in said.err
    assert lab(*SMOKE, RUN, "train.epochs=1").code == 4
    assert snapshot("run") == before


def test_places_may_change(lab: Lab) -> None:
    """A checkpoint interval or another device name is no other run."""
    assert lab(*SMOKE, RUN).code == 0
    assert "already done" in lab(*SMOKE, RUN, "train.checkpoint_every_s=1", "device=cpu").out


def test_seconds_of_a_shared_device_stay_marked_when_the_rest_runs_alone(tmp_path: Path) -> None:
    schema.register()
    for epochs, shared in ((1, True), (2, False)):
        config = schema.compose([*SMOKE, f"train.epochs={epochs}"])
        result = pipeline.run(config, tmp_path / "run", in_sweep=True, shared=shared)
        assert (result["epochs_done"], result["cost"]["shared"]) == (epochs, True)
    alone = pipeline.run(schema.compose([*SMOKE, "train.epochs=1"]), tmp_path / "alone", in_sweep=True)
    assert alone["cost"]["shared"] is False


def test_a_run_of_several_sittings_reports_what_all_of_them_took(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    peaks = [900.0]
    monkeypatch.setattr("cifar_lab.memory.peak_mib", lambda device: peaks[-1])
    schema.register()
    config, folder = schema.compose([*SMOKE, "train.epochs=1"]), tmp_path / "run"
    first = pipeline.run(config, folder, in_sweep=True, test=False)
    peaks.append(300.0)
    began = time.perf_counter()
    second = pipeline.run(config, folder, in_sweep=True)
    took = time.perf_counter() - began
    assert 0.5 * took < second["seconds"] - first["seconds"] < took
    assert (first["cost"]["peak_memory_mib"], second["cost"]["peak_memory_mib"]) == (900.0, 900.0)
    assert result_of(folder)["seconds"] == second["seconds"]


def test_of_a_sitting_that_was_killed_the_epochs_count(tmp_path: Path) -> None:
    schema.register()
    config, folder = schema.compose([*SMOKE, "train.epochs=1"]), tmp_path / "run"
    pipeline.run(config, folder, in_sweep=True, test=False)
    (row,) = storage.read_lines(folder / "metrics.jsonl")
    (folder / "metrics.jsonl").write_text(json.dumps({**row, "seconds": 1000.0}) + "\n")
    assert 1000 < pipeline.run(config, folder, in_sweep=True)["seconds"] < 1060


def test_peak_memory_leaves_out_what_loading_the_data_took(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first run of a worker loads it, the next one has it: the same run must not need more as the first."""

    def wasteful(*given: Any, **named: Any) -> Any:
        torch.ones(400 * 2**18)
        return load_splits(*given, **named)

    monkeypatch.setattr(pipeline, "load_splits", wasteful)
    monkeypatch.setattr(pipeline, "_LAST_DATA", {})
    schema.register()
    first, second = (
        pipeline.run(schema.compose([*SMOKE, "train.epochs=1"]), tmp_path / name, in_sweep=True) for name in ("first", "second")
    )
    assert first["cost"]["peak_memory_mib"] == pytest.approx(second["cost"]["peak_memory_mib"], abs=100)


def test_epochs_may_be_raised(lab: Lab) -> None:
    """Two epochs and two more are four, bit for bit, with a schedule that does not look at the end."""
    constant = (*SMOKE, "schedule=constant")
    assert lab(*constant, RUN).code == 0
    first = rows_of("run")
    said = lab(*constant, RUN, "train.epochs=4")
    assert said.code == 0, said.err
    assert "continuing from step-2, 2 of 4 epochs done" in said.out
    assert rows_of("run")[:2] == first
    assert lab(*constant, "hydra.run.dir=whole", "train.epochs=4").code == 0
    assert rows_of("run") == rows_of("whole")
    assert result_of("run")["test_openings"] == 2
    a, b = load_weights("run")[0], load_weights("whole")[0]
    assert all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize(
    ("keep", "left"), [("none", []), ("best", ["best"]), ("all", ["best", "step-00000001", "step-00000002"])]
)
def test_keep_says_which_checkpoints_stay(lab: Lab, keep: str, left: list[str]) -> None:
    assert lab(*SMOKE, RUN, f"train.keep={keep}").code == 0
    folder = Path("run/checkpoints")
    assert sorted(p.name for p in folder.iterdir()) == left
    if keep != "all":
        said = lab(*SMOKE, RUN, f"train.keep={keep}", "train.epochs=3")
        assert said.code == 4
        assert "kept no checkpoint to continue from" in said.err
        assert result_of("run")["status"] == "done"
        # The way that is shown can be gone, and one that cannot says why.
        assert ("hint: start another run from its weights: init_from=run" in said.err) == (keep == "best")
        other = lab(*SMOKE, "hydra.run.dir=other", "init_from=run", "train.epochs=0")
        assert other.code == (0 if keep == "best" else 4)
        assert ("run: there are no weights in it" in other.err) == (keep == "none")


def test_weights_of_another_run_can_be_evaluated_and_started_from(lab: Lab) -> None:
    assert lab(*SMOKE, RUN, "train.epochs=3").code == 0
    said = lab(*SMOKE, "hydra.run.dir=again", "train.epochs=0", "init_from=run")
    assert said.code == 0, said.err
    ours, theirs = result_of("again"), result_of("run")
    assert ours["metrics"]["test"] == theirs["metrics"]["test"]
    assert (ours["best_epoch"], ours["epochs_done"]) == (None, 0)
    assert lab(*SMOKE, "hydra.run.dir=more", "init_from=run").code == 0
    assert rows_of("more")[0]["train_loss"] < rows_of("run")[0]["train_loss"]


ONE_EPOCH = (*SMOKE, "data.subset=20", "schedule=constant", "train.epochs=1", "train.latency_s=0")


def test_a_run_goes_on_when_the_run_that_it_began_with_is_gone(lab: Lab) -> None:
    """Its checkpoint holds everything."""
    assert lab(*ONE_EPOCH, "hydra.run.dir=source").code == 0
    words = (*ONE_EPOCH, "init_from=source")
    assert lab(*words, "hydra.run.dir=whole", "train.epochs=2").code == 0
    assert lab(*words, RUN).code == 0
    shutil.rmtree("source")
    said = lab(*words, RUN, "train.epochs=2")
    assert said.code == 0, said.err
    assert rows_of("run") == rows_of("whole")
    for path in Path("run/checkpoints").glob("step-*/model.safetensors"):
        path.write_bytes(b"damaged")
    said = lab(*words, RUN, "train.epochs=3")
    assert said.code == 4, "now they are needed again"


def test_a_run_goes_on_when_the_features_that_it_began_with_are_gone(lab: Lab) -> None:
    words = (*ONE_EPOCH, "model=mobilenet_v2")
    assert lab(*words, "hydra.run.dir=source").code == 0
    assert lab(*words, "model.weights=source", RUN).code == 0
    shutil.rmtree("source")
    said = lab(*words, "model.weights=source", RUN, "train.epochs=2")
    assert said.code == 0, said.err


def test_saved_overrides_and_configuration_compose_to_the_same_run(lab: Lab) -> None:
    assert lab(*SMOKE, RUN, "model.activation=tanh", "optimizer=sgd_nesterov").code == 0
    overrides = Path("run/overrides.txt").read_text().splitlines()
    schema.register()
    config = schema.compose(overrides)
    config.train.precision = "fp32"  # what auto meant is in config.yaml
    assert config_digest(config) == result_of("run")["digests"]["config"]
    plain = yaml.safe_load(Path("run/config.yaml").read_text())
    assert plain["model"]["activation"] == "tanh"
    assert plain["train"]["precision"] == "fp32"


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["experiment=quickstat"], 2, "E-CONFIG"),
        (["+optimizer.ler=0.1"], 2, "unknown key 'optimizer.ler'"),
        (["train.batch_size=0"], 2, "train.batch_size=0; must be 1 to 65536"),
        (["model.activation=rellu"], 2, "did you mean 'relu'?"),
        (["model.kernel_size=33"], 2, "model=small_cnn"),
        (["optimizer=sgd", "optimizer.nesterov=true"], 2, "nesterov"),
        (["device=cuda:99"], 7, "E-DEVICE"),
        (["data=cifar10", "data.root=nowhere", "data.download=false"], 3, "CIFAR-10 not in nowhere"),
        (["data=folder", "data.root=nowhere"], 3, "nowhere is not a folder"),
        (["init_from=nowhere"], 4, "E-CKPT"),
        (["init_from="], 2, "init_from is empty"),
        (["=3"], 2, "there is no key"),
        (["model="], 2, "unknown model ''"),
        (["hydra.mode=MULTIRUN"], 2, "hydra.mode is not allowed"),
        (["++hydra.job.env_set.FOO=1"], 2, "hydra.job.env_set.FOO is not allowed"),
        (["hydra.job.chdir=true"], 2, "hydra.job.chdir is not allowed"),
        (["--resolve"], 2, "--resolve needs --cfg job"),
        (["augment=crop_flip", "augment.crop_padding_px=40", "augment.crop_padding_mode=reflect"], 2, "crop_padding_px"),
    ],
)
def test_what_a_person_gets_wrong_is_one_line_and_leaves_nothing(lab: Lab, arguments: list[str], code: int, words: str) -> None:
    said = lab(*SMOKE, RUN, *arguments)
    assert said.code == code, said.err
    lines = said.err.strip().splitlines()
    assert lines[0].startswith("cifar-lab: error[E-")
    assert words in lines[0]
    assert len(lines) <= 2
    assert "Traceback" not in said.err
    assert not Path("run").exists()


def test_a_pickle_is_refused(lab: Lab, tmp_path: Path) -> None:
    torch.save({"weight": torch.ones(1)}, tmp_path / "model.pt")
    said = lab(*SMOKE, RUN, "init_from=model.pt")
    assert said.code == 4
    assert "model.pt is a pickle file; refused" in said.err


def test_a_diverged_run_is_a_result(lab: Lab) -> None:
    said = lab(*SMOKE, RUN, "optimizer=sgd", "optimizer.lr=1e30", "train.epochs=3")
    assert said.code == 6
    assert "error[E-DIVERGED]: loss is" in said.err
    assert "try a lower optimizer.lr" in said.err
    result = result_of("run")
    assert (result["status"], result["error"]["code"], result["metrics"]) == ("diverged", "E-DIVERGED", None)
    assert "DivergedError" in Path("run/run.log").read_text()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device that is always full")
@pytest.mark.parametrize("what", ["run/run.log", "step-120"])
def test_a_full_disk_is_told_though_the_log_cannot_be_written(lab: Lab, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    """What is told is the first thing that failed; the log's own failures come after it."""

    def fill(config: Any, parts: Any, folder: Any, tracker: Any, *_: Any) -> None:
        tracker._log.close()
        tracker._log = storage.open_log("/dev/full")
        raise DiskError("no space for step-120", kept="last good: step-116")

    Path("run").mkdir()
    if what == "run/run.log":
        Path(what).symlink_to("/dev/full")
    else:
        monkeypatch.setattr(pipeline, "_train_and_measure", fill)
    said = lab(*SMOKE, RUN)
    assert (said.code, said.err.startswith(f"cifar-lab: error[E-DISK]: no space for {what}")) == (5, True), said.err
    assert result_of("run")["error"]["message"].startswith(f"no space for {what}")


HUNGRY = """
from torch import nn

class Hungry(nn.Sequential):
    def forward(self, images):
        if len(images) > 20:
            raise MemoryError("no more")
        return super().forward(images)

def hungry(num_classes: int) -> nn.Module:
    return Hungry(nn.Flatten(), nn.Linear(3 * 32 * 32, num_classes))

MODELS = {"hungry": hungry}
"""


@pytest.mark.parametrize("validation", [(), ("data.val_fraction=0",)])
def test_the_hint_of_the_batch_that_did_not_fit_leads_to_one_that_does(
    lab: Lab, same_tables_afterwards: None, validation: tuple[str, ...]
) -> None:
    """Evaluation, within the epochs or after them, has a batch size of its own."""
    Path("lab.py").write_text(HUNGRY)
    words = {"train.batch_size": 32, "train.eval_batch_size": 64}
    told = []
    while len(told) < 5:
        given = [f"{key}={value}" for key, value in words.items()]
        said = lab("--plugin", "lab.py", *SMOKE, f"hydra.run.dir=run{len(told)}", "model=hungry", *validation, *given)
        if said.code == 0:
            break
        assert "error[E-OOM]: out of memory at train." in said.err
        key, _, value = said.err.split("hint: try ")[1].strip().partition("=")
        words[key] = int(value)
        told.append((key, int(value)))
    assert told == [("train.batch_size", 16), ("train.eval_batch_size", 32), ("train.eval_batch_size", 16)]


def test_a_folder_in_use_is_refused(lab: Lab, tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys, cifar_lab.storage as s\nwith s.FolderLock('run'): print('held', flush=True); sys.stdin.read()",
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=tmp_path,
        text=True,
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    said = lab(*SMOKE, RUN)
    holder.communicate("")
    assert said.code == 5
    assert f"error[E-LOCKED]: run in use by pid {holder.pid} on" in said.err
    assert lab(*SMOKE, RUN).code == 0


def test_validation_can_be_left_out(lab: Lab) -> None:
    said = lab(*SMOKE, RUN, "data.val_fraction=0")
    assert said.code == 0, said.err
    result = result_of("run")
    assert result["metrics"]["val"] is None
    assert result["best_epoch"] == 2
    assert rows_of("run")[0]["val_loss"] is None
    assert "there are no validation images: the last weights count as the best" in said.out


def test_a_part_of_cifar10_is_named_in_every_report(lab: Lab, cifar10_root: Path) -> None:
    arguments = (
        "experiment=d3_small_cnn",
        "data.train_batches=[1]",
        "data.subset=50",
        f"data.root={cifar10_root}",
        "train.epochs=1",
    )
    said = lab(*arguments, RUN, "threads=1")
    assert said.code == 0, said.err
    note = "trained on data_batch_1 only"
    assert said.out.count(f"note: {note}") == 2
    assert note in result_of("run")["data"]["notes"]
    assert note in Path("run/classification_report.txt").read_text()
    assert [c["name"] for c in result_of("run")["metrics"]["test"]["per_class"]][:2] == ["airplane", "automobile"]


def test_mixed_precision_on_a_cpu(lab: Lab) -> None:
    said = lab(*SMOKE, RUN, "train.precision=bf16", "train.epochs=1")
    assert said.code == 0, said.err
    full = lab(*SMOKE, "hydra.run.dir=full", "train.precision=fp32", "train.epochs=1")
    assert full.code == 0
    mixed, whole = rows_of("run")[0]["train_loss"], rows_of("full")[0]["train_loss"]
    assert mixed != whole
    assert mixed == pytest.approx(whole, rel=0.02)


def test_patience_stops_early_and_restores_the_best(lab: Lab) -> None:
    arguments = (
        "train.patience_epochs=1",
        "train.epochs=30",
        "optimizer=sgd",
        "optimizer.lr=1e-12",
        "train.monitor=val_accuracy",
    )
    said = lab(*SMOKE, RUN, *arguments)
    assert said.code == 0, said.err
    result = result_of("run")
    assert (result["epochs_done"], result["best_epoch"]) == (2, 1)
    assert "val_accuracy is no better since epoch 1" in result["stopped_early"]


@pytest.mark.parametrize("augment", ["autoaugment", "mixup", "cutmix", "erasing", "color_jitter"])
def test_every_kind_of_augmentation_trains(lab: Lab, augment: str) -> None:
    said = lab(*SMOKE, RUN, f"augment={augment}", "train.label_smoothing=0.1", "train.epochs=1")
    assert said.code == 0, said.err
    assert 0 < rows_of("run")[0]["train_loss"] < 10


def test_a_model_that_asks_for_its_training_images_gets_them_once(lab: Lab) -> None:
    """speednet's stem whitens what it is shown; a resumed run keeps the first stem."""
    small = ("model=speednet", "model.widths=[8,8,8]", "schedule=constant")
    said = lab(*SMOKE, RUN, *small)
    assert said.code == 0, said.err
    stem = {k: v for k, v in load_weights("run")[0].items() if k.startswith("whiten")}
    assert stem
    assert lab(*SMOKE, RUN, *small, "train.epochs=3").code == 0
    again = load_weights("run")[0]
    weight = next(k for k in stem if k.endswith("weight"))
    assert torch.equal(stem[weight], again[weight])
    filters = stem[weight].flatten(1)
    assert filters.norm(dim=1).std() > 0.1, "whitening filters differ in length, random ones hardly do"


@pytest.mark.parametrize(
    ("content", "words"), [("train: 5", "is no configuration of cifar-lab"), ("model: timm", "is no configuration of cifar-lab")]
)
def test_a_foreign_folder_is_refused(lab: Lab, content: str, words: str) -> None:
    Path("run").mkdir()
    Path("run/config.yaml").write_text(content)
    said = lab(*SMOKE, RUN)
    assert said.code == 4
    assert words in said.err
    assert Path("run/config.yaml").read_text() == content


@pytest.mark.parametrize("where", ["file", "file/below"])
def test_a_file_in_place_of_the_folder_is_named(lab: Lab, where: str) -> None:
    Path("file").write_text("")
    said = lab(*SMOKE, f"hydra.run.dir={where}")
    assert said.code == 5
    assert "error[E-DISK]" in said.err


def test_the_folder_may_be_named_in_a_yaml(lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "mine" / "experiment").mkdir(parents=True)
    (tmp_path / "mine/experiment/here.yaml").write_text("# @package _global_\nhydra:\n  run:\n    dir: kept/${model.name}\n")
    given = ("--config-dir", "mine", *SMOKE[1:], "data=digits")
    assert lab(*given, "experiment=here").code == 0
    assert result_of("kept/small_cnn")["status"] == "done"
    assert lab(*given, "experiment=here", RUN, "train.epochs=0").code == 0
    assert result_of("run")["status"] == "done", "what is typed has the last word"
    (tmp_path / "mine/experiment/here.yaml").write_text("# @package _global_\nhydra:\n  run:\n    dir: kept/${modl.name}\n")
    said = lab(*given, "experiment=here")
    assert (said.code, said.err.count("\n")) == (2, 1), said.err
    assert "modl.name" in said.err


def test_any_folder_name_will_do(lab: Lab) -> None:
    said = lab(*SMOKE, "train.epochs=0", 'hydra.run.dir="it\'s, a = b/ü"')
    assert said.code == 0, said.err
    assert Path("it's, a = b/ü/result.json").is_file()
    assert lab(*SMOKE, "hydra.run.dir=").code == 2


@pytest.mark.slow  # a process of its own; test_tracking looks at the console that makes it so
def test_a_reader_that_leaves_does_not_end_the_run(tmp_path: Path) -> None:
    command = f"{sys.executable} -m cifar_lab.train {' '.join(SMOKE)} {RUN} | head -1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert result_of(tmp_path / "run")["status"] == "done"
