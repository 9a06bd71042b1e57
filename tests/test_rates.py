"""The previewed learning rate against torch's own schedulers and closed forms."""

import csv
import json
import math
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from cifar_lab import schema
from cifar_lab.cli import app
from cifar_lab.errors import ConfigError, DataError
from cifar_lab.rates import BETTER, WORSE, preview, save_preview


@pytest.fixture(autouse=True, scope="module")
def _registered() -> None:
    schema.register()


def rates(*overrides: str, steps: int = 10) -> dict[str, list[float]]:
    return preview(schema.compose(overrides), steps).rates


def test_cosine_is_half_a_cosine():
    (row,) = rates("schedule=cosine", "optimizer=sgd", "optimizer.lr=0.2", "train.epochs=5").values()
    assert row == pytest.approx([0.1 * (1 + math.cos(math.pi * step / 50)) for step in range(50)])


def test_one_cycle_is_torchs():
    (row,) = rates("schedule=one_cycle", "optimizer=sgd", "optimizer.lr=0.3", "train.epochs=6").values()
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.3)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.3, total_steps=60, cycle_momentum=False)
    exact = []
    for _ in range(60):
        exact.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    assert row == pytest.approx(exact)


@pytest.mark.parametrize("monitor", ["val_loss", "train_accuracy"])
def test_plateau_is_shown_at_both_ends(monitor):
    found = rates("schedule=plateau", "schedule.patience=3", f"schedule.monitor={monitor}", "optimizer.lr=0.1", "train.epochs=20")
    assert set(found) == {BETTER, WORSE}
    assert found[BETTER] == [0.1] * 200
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=0.1)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, "min", factor=0.1, patience=3)
    exact = []
    for epoch in range(20):
        exact += [optimizer.param_groups[0]["lr"]] * 10
        scheduler.step(1.0 + epoch)
    assert found[WORSE] == pytest.approx(exact)
    assert len(set(exact)) > 3


def test_an_optimizer_that_parts_the_layers_shows_the_rate_that_a_run_records():
    evidence = Path(__file__).parents[1] / "outputs" / "reference" / "fast_speednet" / "metrics.jsonl"
    recorded = [json.loads(line)["lr"] for line in evidence.read_text().splitlines()]
    (row,) = rates("experiment=fast_speednet", steps=25).values()
    assert row[24::25] == pytest.approx(recorded)
    (row,) = rates("optimizer=muon", "optimizer.lr=0.02", "schedule=cosine", "schedule.eta_min=0.01", "train.epochs=1").values()
    assert row[0] == pytest.approx(0.02)


def test_steps_are_counted_from_the_data():
    config = schema.compose(["data=digits", "train.batch_size=100", "train.accumulation_steps=2", "train.epochs=3"])
    found = preview(config)
    # 1,797 digits: 359 for testing, then 144 of 1,438 for validation; 13 batches, 7 steps.
    assert (found.steps_per_epoch, found.counted_from) == (7, "1,294 training images")
    config.train.drop_last = True
    assert preview(config).steps_per_epoch == 6


def test_the_files_hold_every_step_and_epoch(tmp_path):
    found = preview(schema.compose(["schedule=plateau", "train.epochs=4"]), 5)
    files = save_preview(tmp_path, found)
    assert [file.name for file in files] == ["schedule.csv", "schedule_steps.csv", "schedule.png"]
    steps = list(csv.DictReader((tmp_path / "schedule_steps.csv").open()))
    assert [float(row[f"lr {WORSE}"]) for row in steps] == found.rates[WORSE]
    epochs = list(csv.DictReader((tmp_path / "schedule.csv").open()))
    assert [int(row["first_step"]) for row in epochs] == [0, 5, 10, 15]
    assert [float(row[f"last_lr {BETTER}"]) for row in epochs] == found.rates[BETTER][4::5]


def test_the_command_and_its_refusals(tmp_path):
    arguments = ["schedule", "schedule=cosine", "train.epochs=3", "--steps-per-epoch", "7", "--out", str(tmp_path), "--json"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    printed = json.loads(done.stdout)
    assert [row["first_step"] for row in printed["epochs"]] == [0, 7, 14]
    assert not printed["depends_on_the_run"]
    with pytest.raises(ConfigError, match=r"train\.epochs=0"):
        rates("train.epochs=0")
    with pytest.raises(ConfigError, match="are more than are shown"):
        rates("train.epochs=100000", steps=1000)
    with pytest.raises(ConfigError, match=r"schedule=cosine, optimizer=.*eta_min"):
        rates("schedule=cosine", "schedule.eta_min=5.0")
    with pytest.raises(DataError) as error:
        preview(schema.compose([f"data.root={tmp_path}"]))
    assert error.value.hint == "--steps-per-epoch N needs no data set"
