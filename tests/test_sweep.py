"""Multirun: names, isolation of failures, resuming, refusal before the first job."""

import json
import signal
from pathlib import Path
from typing import Any

import pytest
from rig import SMOKE, Lab

from cifar_lab import sweeps
from cifar_lab.errors import Interrupted


def results(folder: str) -> dict[str, dict[str, Any]]:
    return {p.parent.name: json.loads(p.read_text()) for p in Path(folder).glob("*/result.json")}


def test_a_sweep_names_its_folders_by_what_is_swept_and_continues(lab: Lab) -> None:
    arguments = ("-m", *SMOKE, "seed=3", "model.activation=relu,tanh")
    said = lab(*arguments)
    assert said.code == 0, said.err
    where = "outputs/sweeps/quickstart,model.activation"
    found = results(where)
    assert set(found) == {"model.activation=relu", "model.activation=tanh"}
    assert len({r["digests"]["config"] for r in found.values()}) == 2
    assert len({r["metrics"]["test"]["loss"] for r in found.values()}) == 2
    again = lab(*arguments)
    assert again.code == 0
    assert "2 jobs in outputs/sweeps/quickstart,model.activation, 2 of them done already" in again.out
    assert [r["test_openings"] for r in results(where).values()] == [1, 1]


def test_one_failing_job_ends_neither_the_others_nor_is_it_forgotten(lab: Lab) -> None:
    arguments = ("-m", *SMOKE, "optimizer=sgd", "optimizer.lr=0.01,1e30,0.02", "train.epochs=3", "hydra.sweep.dir=sweep")
    said = lab(*arguments)
    assert said.code == 8
    assert "error[E-SWEEP]: 2 done, 1 failed (1 E-DIVERGED)" in said.err
    assert "the same command runs the failed jobs again" in said.err
    assert {n: r["status"] for n, r in results("sweep").items()} == {
        "optimizer.lr=0.01": "done",
        "optimizer.lr=1e+30": "diverged",
        "optimizer.lr=0.02": "done",
    }
    again = lab(*arguments)
    assert again.code == 8
    assert "3 jobs in sweep, 2 of them done already" in again.out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["seed=0,1", "optimizer.lr=0.1,-1"], "lr"),
        (["train.batch_size=32,0"], "train.batch_size=0; must be 1 to 65536"),
        (["model=small_cnn,resnet"], "resnet"),
        (["seed=0,1", "+optimizer.ler=0.1"], "unknown key 'optimizer.ler'"),
        (["train.batch_size=glob(*)"], "no jobs"),
    ],
)
def test_every_job_is_checked_before_the_first_starts(lab: Lab, arguments: list[str], words: str) -> None:
    said = lab("-m", *SMOKE, *arguments)
    assert said.code == 2, said.err
    assert words in said.err.splitlines()[0]
    assert "job 1 of" not in said.out
    assert not list(Path().rglob("result.json"))


def test_every_named_thing_can_be_swept(lab: Lab) -> None:
    """Groups, settings of components, ranges and globs, as Hydra has them."""
    swept = [
        "model=glob(small*)",
        "optimizer=adam,sgd_nesterov",
        "augment=none,flip",
        "train.batch_size=32,64",
        "seed=range(0,2)",
    ]
    jobs = sweeps.plan([*SMOKE, *swept])
    assert len(jobs) == 16
    assert jobs[0].name == "model=small_cnn,optimizer=adam,augment=none,train.batch_size=32,seed=0"


def test_equal_jobs_are_one() -> None:
    assert len(sweeps.plan([*SMOKE, "seed=0,0,1"])) == 2


def test_long_and_unsafe_names_are_shortened_but_differ() -> None:
    a = sweeps.folder_name([f"data.root=/some/where/{'x' * 300}/a"])
    b = sweeps.folder_name([f"data.root=/some/where/{'x' * 300}/b"])
    assert a != b
    assert max(len(a), len(b)) <= sweeps.LONGEST_NAME
    assert "/" not in a
    assert sweeps.folder_name(["model.widths=[7,9]"]) != sweeps.folder_name(["model.widths=_7,9_"])


def test_places_make_jobs_of_their_own() -> None:
    jobs = sweeps.plan([*SMOKE, "threads=1,2", "tracker=none,tensorboard"])
    assert len({job.name for job in jobs}) == 4


def test_no_two_jobs_share_a_folder() -> None:
    jobs = sweeps.plan([*SMOKE, "init_from=runs/a-b,runs/a/b"])
    assert len({job.name for job in jobs}) == 2


def test_cfg_shows_the_first_job(lab: Lab) -> None:
    said = lab("-m", *SMOKE, "seed=5,6", "--cfg", "job")
    assert said.code == 0, said.err
    assert "seed: 5" in said.out


def test_a_signal_ends_a_sweep_of_the_basic_launcher_not_one_job(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = []

    def stopped(_: object, folder: Path, *__: object, **___: object) -> None:
        begun.append(folder.name)
        raise Interrupted("SIGTERM: stopped at epoch 1 step 3", signum=signal.SIGTERM, kept="last good: step-2")

    monkeypatch.setattr("cifar_lab.pipeline.run", stopped)
    said = lab("-m", *SMOKE, "seed=0,1,2", "hydra/launcher=basic", "sweep.workers=2")
    assert (said.code, begun) == (143, ["seed=0"]), said.err
    assert "E-STOPPED]: SIGTERM: stopped at epoch 1 step 3; 0 of 3 jobs done in outputs/sweeps/" in said.err
    assert "3 runs to do, one after the other" in said.out


def test_the_basic_launcher_runs_all_jobs_and_sums_up(lab: Lab) -> None:
    said = lab("-m", *SMOKE, "seed=0,1", "hydra/launcher=basic")
    assert said.code == 0, said.err
    assert len(list(Path().glob("outputs/sweeps/*/seed=*/result.json"))) == 2
