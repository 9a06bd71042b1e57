"""Resuming is exact, and what is on the disk is what was saved, or is not used."""

import builtins
import json
import pickle
import shutil

import pytest
import torch
from engine_rig import (
    Run,
    assert_same_state,
    deeper_model,
    make_state,
    seed_all,
    train_batches,
    train_config,
    val_batches,
    without_times,
)

from cifar_lab import storage
from cifar_lab.engine import checkpoint as module
from cifar_lab.engine.checkpoint import finish_checkpoints
from cifar_lab.engine.weights import load_weights, step_folders, verified_manifest
from cifar_lab.errors import CheckpointError, DiskError, DivergedError, Interrupted

OPTIMIZERS = {
    "sgd": ("sgd", {"momentum": 0.0}),
    "momentum": ("sgd", {"momentum": 0.9, "nesterov": True, "weight_decay": 0.01}),
    "adam": ("adam", {"lr": 0.01, "weight_decay": 0.01}),
    "adamw": ("adamw", {"lr": 0.01}),
    "rmsprop": ("rmsprop", {"lr": 0.01, "momentum": 0.5, "centered": True}),
    "sam": ("sam", {"rho": 0.1, "weight_decay": 0.01}),
    "muon": ("muon", {"lr": 0.02, "adamw_lr": 0.01}),
}
CONFIG = {"epochs": 5, "accumulation_steps": 2, "ema_decay": 0.8, "grad_clip_norm": 0.5, "monitor": "val_loss"}


def sitting(folder, seed, optimizer="momentum", **changes):
    """A run with everything that has a memory: momentum, average, plateau counters, patience, dropout."""
    config = train_config(**{**CONFIG, "patience_epochs": 9, "convergence_epochs": 2, "convergence_tolerance": 0.0, **changes})
    name, settings = OPTIMIZERS[optimizer]
    state = make_state(
        config,
        seed=seed,
        optimizer=name,
        optimizer_settings=settings,
        schedule="plateau",
        schedule_settings={"monitor": "val_loss", "patience": 0, "factor": 0.5, "cooldown": 1, "threshold": 0.05},
        model=deeper_model(seed) if optimizer == "muon" else None,
        dropout=0.4,
        batch_norm=True,
    )
    return Run(folder, config, state, train=train_batches(), val=val_batches())


@pytest.fixture(scope="module", params=OPTIMIZERS)
def whole(request, tmp_path_factory):
    """A run that nobody disturbed."""
    run = sitting(tmp_path_factory.mktemp("whole"), 0, request.param)
    seed_all(11)
    return request.param, run.fit()


def stop_at(run, step):
    """A signal while the given optimiser step is under way; 0: during the second epoch's validation."""
    if step:
        run.tracker.on_step = lambda _: setattr(run.stop, "signum", 15 if run.state.progress.step >= step else 0)
    else:
        run.val.on_batch = lambda epoch, batch: setattr(run.stop, "signum", 15 if run.state.progress.step == 6 else 0)


@pytest.mark.parametrize("step", [1, 5, 6, 0, 14])
def test_a_stopped_run_goes_on_to_the_bit(whole, tmp_path, step):
    optimizer, expected = whole
    cut = sitting(tmp_path, 0, optimizer)
    stop_at(cut, step)
    seed_all(11)
    with pytest.raises(Interrupted):
        cut.fit()
    assert cut.state.progress.step == (step or 6)

    seed_all(999)  # another process: other generators, other initial weights
    again = sitting(tmp_path, 1, optimizer)
    assert again.resume() == f"step-{step or 6}"
    assert_same_state(again.state, cut.state)
    again.fit()
    assert_same_state(again.state, expected.state)
    assert without_times(again.tracker.read()) == without_times(expected.tracker.read())
    assert again.warnings == []
    best, manifest = load_weights(tmp_path)
    wanted, wanted_manifest = load_weights(expected.folder)
    assert manifest["epoch"] == wanted_manifest["epoch"] == again.state.stopper.best_epoch
    assert all(torch.equal(best[name], wanted[name]) for name in wanted)


def test_the_runs_above_exercise_what_they_claim(whole):
    """Plateau reduced, dropout drew, the average differs from the model."""
    _, run = whole
    assert run.state.schedule.state_dict()["reduced_lr"] < run.state.optimizer.param_groups[0]["base_lr"]
    assert len(run.state.stopper.losses) == 4
    assert not torch.equal(run.state.model[0].weight, run.state.eval_model[0].weight)
    other = sitting(run.folder.parent / "other", 0)
    seed_all(12)
    assert not torch.equal(other.fit().state.model[0].weight, run.state.model[0].weight)


def test_an_epoch_stopped_in_its_validation_has_not_been_judged(tmp_path):
    """It is judged once, when its validation is done again."""
    cut = sitting(tmp_path, 0)
    stop_at(cut, 0)
    with pytest.raises(Interrupted):
        cut.fit()
    again = sitting(tmp_path, 0)
    again.resume()
    assert (again.state.progress.epochs_done, again.state.progress.batch) == (1, 6)
    assert again.state.stopper.losses == [row["train_loss"] for row in again.tracker.read()]
    assert len(again.state.stopper.losses) == again.state.stopper.mark_epoch == 1


def test_stopped_many_times(tmp_path):
    whole = sitting(tmp_path / "whole", 0, "adam")
    seed_all(11)
    whole.fit()
    sittings = 0
    while True:
        run = sitting(tmp_path / "cut", sittings, "adam")
        seed_all(900 + sittings if sittings else 11)
        run.resume()
        until = run.state.progress.step + 2
        run.tracker.on_step = lambda _, run=run, until=until: setattr(
            run.stop, "signum", 15 if run.state.progress.step >= until else 0
        )
        try:
            run.fit()
        except Interrupted:
            sittings += 1
        else:
            break
    assert sittings == 7
    assert_same_state(run.state, whole.state)
    assert without_times(run.tracker.read()) == without_times(whole.tracker.read())


def killed_after_row(folder, epoch, seed=0):
    """A run that dies after it has written the row of ``epoch`` and before that epoch's checkpoint."""
    run = sitting(folder, seed)

    def die(row):
        if row["epoch"] == epoch:
            raise KeyboardInterrupt

    run.tracker.on_row = die
    with pytest.raises(KeyboardInterrupt):
        run.fit()
    return run


def test_rows_after_the_checkpoint_are_cut_back(tmp_path):
    seed_all(11)
    run = killed_after_row(tmp_path, 3)
    storage.append_line(run.tracker.path, {"epoch": 4})
    with run.tracker.path.open("a") as stream:
        stream.write('{"epoch": 5, "train_lo')
    again = sitting(tmp_path, 3)
    assert again.resume() == "step-6"
    assert [row["epoch"] for row in again.tracker.read()] == [1, 2]
    again.fit()
    assert [row["epoch"] for row in again.tracker.read()] == [1, 2, 3, 4, 5]


def test_rows_that_are_gone_are_an_error(tmp_path):
    killed_after_row(tmp_path, 3)
    (tmp_path / "metrics.jsonl").write_text('{"epoch": 1}\n')
    with pytest.raises(CheckpointError, match=r"metrics\.jsonl has 1 rows where 2 were written"):
        sitting(tmp_path, 0).resume()


def test_a_new_folder_starts_at_the_start(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"epoch": 1}\n')
    run = sitting(tmp_path, 0)
    assert run.resume() == ""
    assert run.tracker.read() == []
    assert run.checkpoints.last_good == "no checkpoint yet"
    assert run.checkpoints.best_epoch is None


def flip_a_bit(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


DAMAGE = {
    "bit": (lambda f: flip_a_bit(f / "model.safetensors"), "model.safetensors: sha256 mismatch"),
    "optimizer": (lambda f: flip_a_bit(f / "optimizer.safetensors"), "optimizer.safetensors: sha256 mismatch"),
    "record": (lambda f: flip_a_bit(f / "state.json"), "state.json: sha256 mismatch"),
    "cut": (lambda f: (f / "ema.safetensors").write_bytes(b"x"), "ema.safetensors: 1 bytes where "),
    "missing": (lambda f: (f / "generators.safetensors").unlink(), "generators.safetensors: missing"),
    "manifest": (lambda f: (f / "manifest.json").write_text("{"), "manifest.json: unreadable (JSONDecodeError)"),
    "no manifest": (lambda f: (f / "manifest.json").unlink(), "manifest.json: unreadable (FileNotFoundError)"),
    "no list": (lambda f: (f / "manifest.json").write_text("[]"), "manifest.json: unreadable (TypeError)"),
    "empty": (lambda f: [p.unlink() for p in f.iterdir()], "manifest.json: unreadable (FileNotFoundError)"),
    "a file": (lambda f: (shutil.rmtree(f), f.write_text("")), "manifest.json: unreadable (NotADirectoryError)"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_newest_checkpoint_is_set_aside_and_the_one_before_used(tmp_path, damage):
    seed_all(11)
    run = killed_after_row(tmp_path, 4)
    newest, before = step_folders(run.checkpoints.folder)
    act, reason = DAMAGE[damage]
    act(newest)
    again = sitting(tmp_path, 4)
    assert again.resume() == "step-6"
    assert again.warnings[0].startswith(f"W-CKPT: step-9/{reason}")
    assert again.warnings[0].endswith("; resuming from step-6")
    assert (newest.parent / "step-00000009.bad-1").exists(), "nothing is deleted"
    assert not newest.exists()
    assert reason in (newest.parent / "step-00000009.bad-1.reason.txt").read_text()
    assert verified_manifest(before)["step"] == 6
    again.fit()
    seed_all(11)
    whole = sitting(tmp_path / "whole", 0).fit()
    assert_same_state(again.state, whole.state)
    assert load_weights(tmp_path)[1]["epoch"] == load_weights(whole.folder)[1]["epoch"]


def test_when_all_are_damaged_the_run_starts_again(tmp_path):
    run = killed_after_row(tmp_path, 4)
    for folder in step_folders(run.checkpoints.folder):
        flip_a_bit(folder / "model.safetensors")
    again = sitting(tmp_path, 0)
    assert again.resume() == ""
    assert [w.rsplit("; ", 1)[1] for w in again.warnings[:2]] == ["resuming from step-6", "resuming from the start"]
    assert again.state.progress.step == 0
    assert again.tracker.read() == []


def test_two_checkpoints_and_the_best_are_kept(tmp_path):
    run = sitting(tmp_path, 0, convergence_epochs=0).fit()  # five epochs, whichever way the loss goes
    names = sorted(p.name for p in run.checkpoints.folder.iterdir())
    assert names == ["best", "step-00000012", "step-00000015"]
    for folder in run.checkpoints.folder.iterdir():
        verified_manifest(folder)
    assert run.checkpoints.best_epoch == run.state.stopper.best_epoch


def test_nothing_is_pruned_before_the_new_one_was_read_back(tmp_path, monkeypatch):
    """A disk that does not give back what was written."""
    run = sitting(tmp_path, 0, epochs=2).fit()
    real = storage.files.write_synced

    def lying(path, data):
        real(path, data[:-1] + b"?" if path.name == "model.safetensors" else data)

    monkeypatch.setattr("cifar_lab.storage.folders.write_synced", lying)
    longer = sitting(tmp_path, 0)
    longer.resume()
    with pytest.raises(CheckpointError, match=r"model\.safetensors: sha256 mismatch"):
        longer.fit()
    kept = sorted(p.name for p in run.checkpoints.folder.iterdir())
    assert kept == ["best", "step-00000003", "step-00000006"]
    for folder in run.checkpoints.folder.iterdir():
        verified_manifest(folder)


def test_a_checkpoint_of_the_same_step_is_replaced_only_by_one_that_was_read_back(tmp_path, monkeypatch):
    run = sitting(tmp_path, 0)
    run.checkpoints.save(run.state)
    run.checkpoints.wait()
    before = verified_manifest(tmp_path / "checkpoints" / "step-00000000")
    run.state.model[0].weight.data.add_(1)
    real = storage.files.write_synced
    with monkeypatch.context() as patch:
        patch.setattr("cifar_lab.storage.folders.write_synced", lambda path, data: real(path, data[:-1]))
        run.checkpoints.save(run.state)
        with pytest.raises(CheckpointError):
            run.checkpoints.wait()
    assert verified_manifest(tmp_path / "checkpoints" / "step-00000000") == before
    run.checkpoints.save(run.state)
    run.checkpoints.wait()
    assert verified_manifest(tmp_path / "checkpoints" / "step-00000000") != before
    assert len(list((tmp_path / "checkpoints").iterdir())) == 1


def test_the_folder_holds_safetensors_and_json_and_nothing_else(tmp_path):
    run = sitting(tmp_path, 0, epochs=1)
    run.checkpoints.digests = {"config": "c0ffee"}
    run.fit()
    folder = tmp_path / "checkpoints" / "step-00000003"
    names = ["ema.safetensors", "generators.safetensors", "manifest.json", "model.safetensors"]
    assert sorted(p.name for p in folder.iterdir()) == [*names, "optimizer.safetensors", "state.json"]
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["digests"] == {"config": "c0ffee"}
    assert {name: entry["size"] for name, entry in manifest["files"].items()} == {
        p.name: p.stat().st_size for p in folder.iterdir() if p.name != "manifest.json"
    }
    assert {p.name for p in (tmp_path / "checkpoints" / "best").iterdir()} == {"manifest.json", "model.safetensors"}


class Bomb:
    """Proves that somebody unpickled it."""

    def __reduce__(self):
        return (exec, ("import builtins; builtins.unpickled = True",))


@pytest.mark.parametrize("name", ["extra.pt", "extra.safetensors", "model.pt"])
def test_a_pickle_in_the_folder_is_never_loaded(tmp_path, name):
    killed_after_row(tmp_path, 2)
    (tmp_path / "checkpoints" / "step-00000003" / name).write_bytes(pickle.dumps(Bomb()))
    again = sitting(tmp_path, 0)
    assert again.resume() == "step-3"
    assert not hasattr(builtins, "unpickled")


def test_a_listed_pickle_is_refused(tmp_path):
    """Even where somebody wrote a manifest that fits it."""
    killed_after_row(tmp_path, 2)
    folder = tmp_path / "checkpoints" / "step-00000003"
    data = pickle.dumps(Bomb())
    (folder / "model.safetensors").write_bytes(data)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"]["model.safetensors"] = {"size": len(data), "sha256": storage.sha256_bytes(data)}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError, match="is no safetensors file"):
        sitting(tmp_path, 0).resume()
    assert not hasattr(builtins, "unpickled")


@pytest.mark.parametrize("group", ["model", "ema", "optimizer"])
@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_no_checkpoint_has_a_tensor_that_is_not_finite(tmp_path, group, value):
    run = sitting(tmp_path, 0, epochs=1).fit()
    state = run.state
    momentum = state.optimizer.state[state.model[0].weight]["momentum_buffer"]
    {"model": state.model[0].weight, "ema": state.eval_model[0].weight, "optimizer": momentum}[group].data[0, 0, 0, 0] = value
    state.progress.step += 1
    with pytest.raises(DivergedError, match=f"{group} tensor .* is not finite at step 4") as caught:
        run.checkpoints.save(state, best=True)
    assert caught.value.kept == "last good: step-3"
    if group == "ema":
        with pytest.raises(DivergedError):
            run.checkpoints.save_best(state)
    assert sorted(p.name for p in run.checkpoints.folder.iterdir()) == ["best", "step-00000003"]


def test_a_run_killed_between_checkpoint_and_best_saves_the_best_again(tmp_path):
    run = sitting(tmp_path, 0, epochs=1).fit()
    wanted, manifest = load_weights(tmp_path)
    shutil.rmtree(tmp_path / "checkpoints" / "best")
    again = sitting(tmp_path, 5, epochs=1)
    assert again.resume() == "step-3"
    found, again_manifest = load_weights(tmp_path / "checkpoints" / "best")
    assert again_manifest["epoch"] == manifest["epoch"] == run.state.stopper.best_epoch == 1
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


@pytest.mark.parametrize("epochs", [3, 5])
def test_the_last_weights_in_place_of_the_best_are_no_loss(tmp_path, epochs):
    """With ``select=last`` the best epoch is an earlier one than that of the weights that are kept, and stays known."""
    config = train_config(select="last", monitor="train_loss")
    run = Run(tmp_path, config, make_state(config))
    run.tracker.on_row = lambda row: setattr(run.state.stopper, "best", -1.0) if row["epoch"] == 1 else None
    run.fit()
    assert (run.checkpoints.best_epoch, run.state.stopper.best_epoch) == (3, 1)
    longer = train_config(epochs=epochs, select="last", monitor="train_loss")
    again = Run(tmp_path, longer, make_state(longer))
    again.resume()
    again.fit()
    assert again.warnings == []
    assert (again.checkpoints.best_epoch, again.state.stopper.best_epoch, again.state.stopper.best) == (epochs, 1, -1.0)


def test_lost_best_weights_are_said_and_found_anew(tmp_path):
    """Never some other epoch's weights under the name of the best."""
    config = {"epochs": 3, "monitor": "val_loss", "patience_epochs": 0}
    run = sitting(tmp_path, 0, **config)
    run.tracker.on_row = lambda row: setattr(run.state.stopper, "best", -1.0) if row["epoch"] == 1 else None
    run.fit()
    assert run.checkpoints.best_epoch == 1
    flip_a_bit(tmp_path / "checkpoints" / "best" / "model.safetensors")
    again = sitting(tmp_path, 1, **{**config, "epochs": 5})
    again.resume()
    assert "best/model.safetensors: sha256 mismatch; set aside" in again.warnings[0]
    assert "the best weights, of epoch 1, are gone" in again.warnings[1]
    assert (tmp_path / "checkpoints" / "best.bad-1").exists()
    again.fit()
    losses = {row["epoch"]: row["val_loss"] for row in again.tracker.read() if row["epoch"] > 3}
    assert again.checkpoints.best_epoch == again.state.stopper.best_epoch == min(losses, key=losses.__getitem__)


def test_a_checkpoint_of_another_run_is_refused_and_stays(tmp_path):
    killed_after_row(tmp_path, 2)
    other = sitting(tmp_path, 0, "adam")
    with pytest.raises(CheckpointError, match="optimizer's settings differ") as caught:
        other.resume()
    assert "step-00000003" in caught.value.what
    assert caught.value.kept == "the checkpoint is untouched"
    without = sitting(tmp_path, 0, ema_decay=0.0)
    with pytest.raises(CheckpointError, match="averaged weights"):
        without.resume()
    half = sitting(tmp_path, 0, precision="fp16")
    with pytest.raises(CheckpointError, match="loss scale"):
        half.resume()
    assert verified_manifest(tmp_path / "checkpoints" / "step-00000003")


def test_leftovers_of_a_killed_writer_go(tmp_path):
    run = sitting(tmp_path, 0, epochs=1).fit()
    folder = run.checkpoints.folder
    (folder / ".tmp-abc").mkdir()
    (folder / ".tmp-abc" / "model.safetensors").write_bytes(b"half")
    (folder / "best").rename(folder / "best.previous")
    again = sitting(tmp_path, 0, epochs=1)
    again.resume()
    assert sorted(p.name for p in folder.iterdir()) == ["best", "step-00000003"]
    assert again.warnings == []


def test_a_write_that_fails_is_raised_by_the_next_call_and_named(tmp_path, monkeypatch):
    run = sitting(tmp_path, 0)
    run.checkpoints.save(run.state)
    run.checkpoints.wait()

    def refuse(*args, **kwargs):
        raise OSError(28, "No space left on device")

    run.state.progress.step = 7
    monkeypatch.setattr("cifar_lab.storage.folders.write_synced", refuse)
    run.checkpoints.save(run.state)
    with pytest.raises(DiskError, match=r"no space for .*step-00000007 \(needs 1 MB, \d+ MB free\)") as caught:
        run.checkpoints.save(run.state)
    assert caught.value.kept == "last good: step-0"
    assert [p.name for p in run.checkpoints.folder.iterdir()] == ["step-00000000"]


def test_a_schedule_whose_state_is_no_json_is_refused_at_once(tmp_path):
    run = sitting(tmp_path, 0)
    run.state.schedule.state_dict = lambda: {"best": float("inf")}
    with pytest.raises(CheckpointError, match="the state cannot be saved"):
        run.checkpoints.save(run.state)


def test_due_counts_from_the_last_checkpoint(tmp_path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    run = sitting(tmp_path, 0)
    never = run.checkpoints
    timed = module.Checkpoints(tmp_path, every_s=60)
    assert not timed.due()
    now[0] = 160.0
    assert timed.due()
    assert not never.due()
    timed.save(run.state)
    assert not timed.due()
    now[0] = 219.0
    assert not timed.due()
    now[0] = 220.0
    assert timed.due()
    timed.wait()


@pytest.mark.parametrize(
    ("keep", "left"),
    [("all", ["best", "step-00000003", "step-00000006"]), ("best", ["best"]), ("none", [])],
)
def test_a_finished_run_keeps_what_it_was_asked_to(tmp_path, keep, left):
    sitting(tmp_path, 0, epochs=2).fit()
    finish_checkpoints(tmp_path, keep)
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == left


def test_nothing_is_deleted_where_the_best_is_missing(tmp_path):
    sitting(tmp_path, 0, epochs=1).fit()
    shutil.rmtree(tmp_path / "checkpoints" / "best")
    with pytest.raises(CheckpointError, match="nothing is deleted"):
        finish_checkpoints(tmp_path, "best")
    assert len(step_folders(tmp_path / "checkpoints")) == 1
    finish_checkpoints(tmp_path / "nowhere", "best")
