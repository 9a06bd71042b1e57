"""The loop against loops written out by hand, and everything that may end it."""

import copy
import errno
import math
import signal

import pytest
import torch
import torch.nn.functional as F
from engine_rig import (
    CLASSES,
    MemoryBatches,
    Run,
    deeper_model,
    make_state,
    picture_set,
    seed_all,
    tiny_model,
    train_batches,
    train_config,
    val_batches,
    without_times,
)
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from cifar_lab.engine import fit as loop
from cifar_lab.engine.fit import steps_per_epoch
from cifar_lab.engine.watch import DeviceWatch
from cifar_lab.engine.weights import load_weights
from cifar_lab.errors import DiskError, DivergedError, Interrupted
from cifar_lab.storage import files


def plain_loop(model, optimizer, batches, *, epochs, smoothing=0.0, clip=0.0, decay=0.0, factor=lambda step: 1.0):
    """Training as a tutorial writes it; mean losses per epoch and torch's own averaged model."""
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True) if decay else None
    base, step, losses = optimizer.param_groups[0]["lr"], 0, []
    model.train()
    for epoch in range(epochs):
        total = 0.0
        for images, labels in batches.iterate(epoch):
            for group in optimizer.param_groups:
                group["lr"] = base * factor(step)
            loss = F.cross_entropy(model(images), labels, label_smoothing=smoothing)
            optimizer.zero_grad()
            loss.backward()
            if clip:
                nn.utils.clip_grad_norm_(model.parameters(), clip)
            optimizer.step()
            if average is not None:
                average.update_parameters(model)
            total += loss.item() * len(labels)
            step += 1
        losses.append(total / batches.num_images)
    return losses, average


CASES = {
    "plain": {},
    "smoothing": {"label_smoothing": 0.1},
    "clipping": {"grad_clip_norm": 0.2},
    "average": {"ema_decay": 0.8},
    "all": {"label_smoothing": 0.1, "grad_clip_norm": 0.2, "ema_decay": 0.8},
}


@pytest.mark.parametrize("case", CASES)
def test_equals_a_plain_loop_to_the_bit(tmp_path, case):
    config = train_config(**CASES[case])
    model = tiny_model(3, batch_norm=True)
    twin = copy.deepcopy(model)
    settings = {"momentum": 0.9, "nesterov": True, "weight_decay": 0.01}
    state = make_state(config, model=model, optimizer_settings=settings, schedule="cosine")
    run = Run(tmp_path, config, state).fit()

    decayed = [p for p in twin.parameters() if p.ndim > 1]
    others = [p for p in twin.parameters() if p.ndim <= 1]
    groups = [{"params": decayed}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.SGD(groups, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01, fused=True)
    losses, average = plain_loop(
        twin,
        optimizer,
        train_batches(),
        epochs=3,
        smoothing=config.label_smoothing,
        clip=config.grad_clip_norm,
        decay=config.ema_decay,
        factor=lambda step: 0.5 * (1 + math.cos(math.pi * step / 18)),
    )
    for name, value in twin.state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name
    assert [row["train_loss"] for row in run.tracker.read()] == losses
    if average is not None:
        for name, value in average.module.state_dict().items():
            # torch averages the counter of batches too; here it is the model's own
            value = value if value.is_floating_point() else twin.state_dict()[name]
            torch.testing.assert_close(state.eval_model.state_dict()[name], value, rtol=1e-6, atol=1e-7)


class Mixed(MemoryBatches):
    """Batches whose targets [B, K] are shared between an image's class and the next one, as mixup's."""

    def iterate(self, epoch, start=0):
        for images, labels in super().iterate(epoch, start):
            shares = torch.linspace(0.2, 0.9, len(labels))[:, None]
            yield images, shares * F.one_hot(labels, CLASSES) + (1 - shares) * F.one_hot((labels + 1) % CLASSES, CLASSES)


@pytest.mark.parametrize("rho", [None, 0.5])
def test_mixed_targets_are_trained_on_and_counted_as_written_out(tmp_path, rho):
    """Cross-entropy with smoothed soft targets, and the larger share as the class that is right; once with SAM's two passes."""
    config = train_config(epochs=2, label_smoothing=0.1)
    model = tiny_model(3)
    twin = copy.deepcopy(model)
    batches = Mixed(*picture_set(22), 4, seed=5)
    settings = {} if rho is None else {"rho": rho, "momentum": 0.0}
    state = make_state(config, model=model, optimizer="sgd" if rho is None else "sam", optimizer_settings=settings)
    rows = Run(tmp_path, config, state, train=batches).fit().tracker.read()

    def mean_loss(logits, targets):
        return -((0.9 * targets + 0.1 / CLASSES) * logits.log_softmax(1)).sum(1).mean()

    parameters = list(twin.parameters())
    for epoch, row in enumerate(rows):
        total, right = 0.0, 0
        for images, targets in batches.iterate(epoch):
            logits = twin(images)
            loss = mean_loss(logits, targets)
            total += loss.item() * len(images)
            right += sum(int(a.argmax() == t.argmax()) for a, t in zip(logits, targets, strict=True))
            gradients = torch.autograd.grad(loss, parameters)
            if rho is not None:
                length = torch.cat([g.flatten() for g in gradients]).norm()
                weights = [p.detach().clone() for p in parameters]
                with torch.no_grad():
                    for p, g in zip(parameters, gradients, strict=True):
                        p += rho * g / length
                gradients = torch.autograd.grad(mean_loss(twin(images), targets), parameters)
                with torch.no_grad():
                    for p, w in zip(parameters, weights, strict=True):
                        p.copy_(w)
            with torch.no_grad():
                for p, g in zip(parameters, gradients, strict=True):
                    p -= 0.1 * g
        assert row["train_loss"] == pytest.approx(total / 22, rel=1e-5)
        assert row["train_accuracy"] == pytest.approx(right / 22)
    for a, b in zip(model.parameters(), parameters, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_each_case_changes_the_weights(tmp_path):
    """The comparison above would be empty if a setting did nothing."""
    ends = {}
    for case in ("plain", "smoothing", "clipping"):
        config = train_config(**CASES[case])
        ends[case] = Run(tmp_path / case, config, make_state(config)).fit().state.model[0].weight
    assert not torch.equal(ends["plain"], ends["smoothing"])
    assert not torch.equal(ends["plain"], ends["clipping"])


@pytest.mark.parametrize("count", [24, 22, 17])
def test_accumulation_equals_big_batches_also_in_the_incomplete_last_group(tmp_path, count):
    config = train_config(accumulation_steps=3, epochs=2)
    model = tiny_model(1).double()
    twin = copy.deepcopy(model)
    small = train_batches(count)
    small.images = small.images.double()
    big = train_batches(count, batch_size=12)
    big.images = big.images.double()
    state = make_state(config, model=model, optimizer_settings={"momentum": 0.9}, num_batches=len(small))
    run = Run(tmp_path, config, state, train=small).fit()
    losses, _ = plain_loop(twin, torch.optim.SGD(twin.parameters(), lr=0.1, momentum=0.9), big, epochs=2)
    torch.testing.assert_close(dict(model.named_parameters()), dict(twin.named_parameters()), rtol=1e-9, atol=1e-12)
    assert [row["train_loss"] for row in run.tracker.read()] == pytest.approx(losses, rel=1e-9)
    assert state.progress.step == 2 * len(big) == 2 * steps_per_epoch(len(small), 3)


@pytest.mark.parametrize(("batches", "group", "steps"), [(6, 1, 6), (6, 3, 2), (7, 3, 3), (2, 5, 1)])
def test_steps_per_epoch(batches, group, steps):
    assert steps_per_epoch(batches, group) == steps


def test_rows_and_progress(tmp_path):
    config = train_config(epochs=4, eval_every_epochs=3, monitor="val_loss")
    run = Run(tmp_path, config, make_state(config, schedule="cosine"), val=val_batches()).fit()
    rows = run.tracker.read()
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4]
    assert [row["step"] for row in rows] == [6, 12, 18, 24]
    # every third epoch, and the last
    assert [row["val_loss"] is not None for row in rows] == [False, False, True, True]
    assert [row["val_accuracy"] is not None for row in rows] == [False, False, True, True]
    assert rows[0]["lr"] == pytest.approx(0.1 * 0.5 * (1 + math.cos(math.pi * 5 / 24)))  # of the epoch's last step
    assert all(row["seconds"] >= row["train_seconds"] > 0 and row["images_per_s"] > 0 for row in rows)
    assert sum(batches for batches, _ in run.tracker.advanced) == 4 * 6
    assert sum(images for _, images in run.tracker.advanced) == 4 * 22
    assert run.tracker.started == [(epoch, 4, 6) for epoch in (1, 2, 3, 4)]


def test_accuracies_are_those_of_the_models_answers(tmp_path):
    config = train_config(epochs=1)
    model = tiny_model(0)
    state = make_state(config, model=model, optimizer_settings={"lr": 0.0})
    run = Run(tmp_path, config, state, val=val_batches()).fit()
    row = run.tracker.read()[0]
    for batches, loss, accuracy in (
        (run.train, "train_loss", "train_accuracy"),
        (run.val, "val_loss", "val_accuracy"),
    ):
        logits = model(batches.images)
        assert row[loss] == pytest.approx(F.cross_entropy(logits, batches.labels).item(), rel=1e-6)
        assert row[accuracy] == (logits.argmax(1) == batches.labels).sum().item() / len(logits)


def test_zero_epochs_train_nothing(tmp_path):
    config = train_config(epochs=0)
    state = make_state(train_config())
    before = copy.deepcopy(state.model.state_dict())
    run = Run(tmp_path, config, state).fit()
    assert all(torch.equal(value, before[name]) for name, value in state.model.state_dict().items())
    assert not (tmp_path / "checkpoints").exists()
    assert run.tracker.read() == []


def test_best_weights_are_those_that_were_evaluated(tmp_path):
    """With an average and batch norm, the average's own running statistics belong to them."""
    config = train_config(epochs=6, ema_decay=0.7, monitor="val_loss")
    state = make_state(config, batch_norm=True, optimizer_settings={"lr": 1.0})
    run = Run(tmp_path, config, state, val=val_batches()).fit()
    rows = run.tracker.read()
    best = min(rows, key=lambda row: row["val_loss"])
    assert best["epoch"] == state.stopper.best_epoch
    assert best["epoch"] < 6, "the case should have its best epoch before its last"
    tensors, manifest = load_weights(tmp_path)
    assert manifest["epoch"] == best["epoch"]
    fresh = tiny_model(9, batch_norm=True)
    fresh.load_state_dict(tensors)
    loss = F.cross_entropy(fresh.eval()(run.val.images), run.val.labels).item()
    assert loss == pytest.approx(best["val_loss"], rel=1e-6)


def test_without_validation_the_last_weights_count_as_best_and_a_note_says_so(tmp_path):
    config = train_config(epochs=2)
    state = make_state(config)
    run = Run(tmp_path, config, state).fit()
    assert len(run.tracker.notes) == 1
    assert "there are no validation images" in run.tracker.notes[0]
    tensors, manifest = load_weights(tmp_path / "checkpoints" / "best")
    assert manifest["epoch"] == 2
    assert torch.equal(tensors["0.weight"], state.model[0].weight)


def test_patience_ends_the_run_and_more_epochs_do_not_wake_it(tmp_path):
    config = train_config(epochs=9, patience_epochs=2, monitor="val_loss")
    state = make_state(config, optimizer_settings={"lr": 0.0})  # nothing ever gets better than the first epoch
    run = Run(tmp_path, config, state, val=val_batches()).fit()
    assert [row["epoch"] for row in run.tracker.read()] == [1, 2, 3]
    assert state.stopper.reason == "val_loss is no better since epoch 1 (train.patience_epochs=2)"

    longer = train_config(epochs=20, patience_epochs=2, monitor="val_loss")
    again = Run(tmp_path, longer, make_state(longer, seed=4), val=val_batches())
    assert again.resume() == "step-18"
    again.fit()
    assert len(again.tracker.read()) == 3
    assert again.state.stopper.reason == state.stopper.reason


@pytest.mark.parametrize(
    ("keywords", "told"),
    [
        ({"epochs": 9, "monitor": "val_loss"}, [1, 2]),
        ({"epochs": 9, "monitor": "train_loss", "min_delta": 100.0}, [1, 2]),
        ({"epochs": 3, "patience_epochs": 0}, [1, 2]),
        ({"epochs": 9, "monitor": "val_loss", "eval_every_epochs": 2, "patience_epochs": 1}, [1, 2, 3]),
    ],
)
def test_the_judge_hears_of_no_epoch_that_ends_the_run(tmp_path, keywords, told):
    """It would call a run pruned that is complete."""
    config = train_config(**{"patience_epochs": 2, **keywords})
    state, heard = make_state(config, optimizer_settings={"lr": 0.0}), []
    run = Run(tmp_path, config, state, val=val_batches())
    run.fit(judge=lambda row: heard.append(row["epoch"]))
    assert heard == told
    assert len(run.tracker.read()) == told[-1] + 1


def test_an_early_end_is_evaluated_even_out_of_turn(tmp_path):
    config = train_config(epochs=9, patience_epochs=1, min_delta=0.01, monitor="train_loss", eval_every_epochs=5)
    run = Run(tmp_path, config, make_state(config, optimizer_settings={"lr": 0.0}), val=val_batches())
    rows = run.fit().tracker.read()
    assert len(rows) == 2
    assert rows[0]["val_loss"] is None
    assert rows[1]["val_loss"] is not None


def test_more_epochs_go_on_under_the_schedule_of_the_new_length(tmp_path):
    short, long = train_config(epochs=2), train_config(epochs=4)
    Run(tmp_path, short, make_state(short, schedule="cosine"), val=val_batches()).fit()
    again = Run(tmp_path, long, make_state(long, schedule="cosine", seed=7), val=val_batches())
    assert again.resume() == "step-12"
    again.fit()
    rows = again.tracker.read()
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4]
    expected = [
        0.05 * (1 + math.cos(math.pi * (row["step"] - 1) / total)) for row, total in zip(rows, (12, 12, 24, 24), strict=True)
    ]
    assert [row["lr"] for row in rows] == pytest.approx(expected)


def poison(batches, *, epoch, batch, value):
    """Make one batch's pictures non-finite, once."""
    clean = batches.iterate

    def iterate(number, start=0):
        for index, (images, labels) in enumerate(clean(number, start), start):
            yield (images + value if (number, index) == (epoch, batch) else images), labels

    batches.iterate = iterate
    return batches


@pytest.mark.parametrize(("value", "word"), [(float("nan"), "nan"), (float("inf"), "nan")])
def test_a_loss_that_is_not_finite_stops_before_the_step(tmp_path, value, word):
    config = train_config(grad_clip_norm=1.0)
    state = make_state(config)
    before = {}

    def remember(_):
        before.update(copy.deepcopy(state.model.state_dict()))

    run = Run(tmp_path, config, state, train=poison(train_batches(), epoch=1, batch=2, value=value))
    run.tracker.on_step = remember
    with pytest.raises(DivergedError) as caught:
        run.fit()
    assert caught.value.what == f"loss is {word} at epoch 2 step 9"
    assert caught.value.kept == "last good: step-6"
    assert caught.value.exit_code == 6
    assert state.progress.step == 8
    assert all(torch.equal(value, before[name]) for name, value in state.model.state_dict().items())
    assert sorted(p.name for p in (tmp_path / "checkpoints").glob("step-*")) == ["step-00000006"]
    assert torch.isfinite(load_weights(tmp_path / "checkpoints" / "step-00000006")[0]["0.weight"]).all()


def test_weights_that_blow_up_in_the_last_step_never_reach_a_checkpoint(tmp_path):
    """The loss is finite, the gradient is not: only the weights after it tell."""
    config = train_config(epochs=1)
    state = make_state(config)
    count = [0]

    def spoil(gradient):
        count[0] += 1
        return gradient * float("inf") if count[0] == 6 else gradient

    state.model[0].weight.register_hook(spoil)
    with pytest.raises(DivergedError, match=r"model tensor 0\.weight is not finite at step 6") as caught:
        Run(tmp_path, config, state, val=val_batches()).fit()
    assert caught.value.kept == "no checkpoint yet"
    assert not (tmp_path / "checkpoints").exists()


def test_a_validation_that_is_not_finite_is_never_best_and_never_stops_saving(tmp_path, monkeypatch):
    config = train_config(epochs=3, monitor="val_loss")
    state = make_state(config, schedule="plateau", schedule_settings={"monitor": "val_loss", "patience": 5})
    answers = iter([(math.inf, 0.1), (0.5, 0.2), (math.nan, 0.1)])
    monkeypatch.setattr("cifar_lab.engine.fit.evaluate", lambda *args, **kwargs: next(answers))
    run = Run(tmp_path, config, state, val=val_batches()).fit()
    assert [row["val_loss"] for row in run.tracker.read()] == [None, 0.5, None]
    assert (state.stopper.best, state.stopper.best_epoch) == (0.5, 2)
    assert load_weights(tmp_path)[1]["epoch"] == 2
    assert state.schedule.state_dict()["best"] == 0.5
    assert run.checkpoints.last_good == "last good: step-18"


def test_sigterm_saves_and_ends_and_the_rest_is_as_if_it_had_not_come(tmp_path):
    config = train_config(epochs=3, ema_decay=0.9)
    whole = Run(tmp_path / "whole", config, make_state(config), val=val_batches()).fit()
    run = Run(tmp_path / "cut", config, make_state(config), val=val_batches())
    run.tracker.on_step = lambda count: count == 9 and signal.raise_signal(signal.SIGTERM)
    with run.stop, pytest.raises(Interrupted) as caught:
        run.fit()
    assert (caught.value.signum, caught.value.exit_code) == (15, 143)
    assert caught.value.kept == f"last good: step-{run.state.progress.step}"
    assert "epoch 2" in caught.value.what
    again = Run(tmp_path / "cut", config, make_state(config, seed=8), val=val_batches())
    assert again.resume() == f"step-{run.state.progress.step}"
    again.fit()
    assert without_times(again.tracker.read()) == without_times(whole.tracker.read())
    assert torch.equal(again.state.eval_model[0].weight, whole.state.eval_model[0].weight)


def test_checkpoints_within_an_epoch_come_by_the_clock_and_at_its_end_always(tmp_path):
    config = train_config(epochs=2)

    def saved_steps(folder, every_s):
        run = Run(tmp_path / folder, config, make_state(config), every_s=every_s)
        save, steps = run.checkpoints.save, []
        run.checkpoints.save = lambda state, best=False: (steps.append(state.progress.step), save(state, best=best))
        run.fit()
        return steps, run

    assert saved_steps("never", 0.0)[0] == [6, 12]
    assert saved_steps("late", 3600.0)[0] == [6, 12]
    steps, often = saved_steps("often", 1e-9)
    assert steps == list(range(1, 13))
    assert len(often.tracker.read()) == 2


def test_whatever_ends_training_checkpoints_before_it_are_on_the_disk(tmp_path):
    config = train_config(epochs=2)
    run = Run(tmp_path, config, make_state(config))
    write = run.checkpoints._write

    def slowly(*args, **kwargs):
        torch.randn(300, 300) @ torch.randn(300, 300)
        return write(*args, **kwargs)

    run.checkpoints._write = slowly
    run.train.on_batch = lambda epoch, batch: 1 / (1 - epoch)
    with pytest.raises(ZeroDivisionError):
        run.fit()
    assert run.checkpoints._pending is None
    assert run.checkpoints.last_good == "last good: step-6"


def test_a_full_disk_ends_training_with_what_is_kept(tmp_path, monkeypatch):
    config = train_config(epochs=4)
    run = Run(tmp_path, config, make_state(config))
    real = files.write_synced

    def full(path, data):
        if run.state.progress.epochs_done >= 2 and path.name == "optimizer.safetensors":
            raise OSError(errno.ENOSPC, "No space left on device")
        real(path, data)

    monkeypatch.setattr("cifar_lab.storage.folders.write_synced", full)
    run.checkpoints.save = _waiting(run.checkpoints)
    with pytest.raises(DiskError) as caught:
        run.fit()
    assert caught.value.exit_code == 5
    assert "step-00000012 (needs 1 MB, " in caught.value.what
    assert "MB free)" in caught.value.what
    assert caught.value.kept == "last good: step-6"
    assert [p.name for p in (tmp_path / "checkpoints").glob("*")] == ["step-00000006"]


def _waiting(checkpoints):
    save = checkpoints.save

    def both(state, *, best=False):
        save(state, best=best)
        checkpoints.wait()

    return both


def test_fp16_on_a_cpu_trains_with_a_loss_scale_and_resumes_it(tmp_path):
    config = train_config(precision="fp16", epochs=2)
    seed_all(0)
    whole = Run(tmp_path / "whole", config, make_state(config, optimizer_settings={"momentum": 0.9}))
    assert whole.state.scaler.is_enabled()
    whole.state.scaler.set_growth_interval(4)
    whole.fit()
    rows = whole.tracker.read()
    assert rows[1]["train_loss"] < rows[0]["train_loss"]
    again = Run(tmp_path / "whole", config, make_state(config, seed=5, optimizer_settings={"momentum": 0.9}))
    again.resume()
    assert again.state.scaler.state_dict() == whole.state.scaler.state_dict()
    assert again.state.scaler.get_scale() > 65536.0


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_clipping_is_of_the_gradient_itself_not_of_the_scaled_one(tmp_path, precision):
    config = train_config(precision=precision, epochs=1, grad_clip_norm=0.01)
    state = make_state(config, optimizer_settings={"lr": 1.0, "momentum": 0.0})
    before = [p.detach().clone() for p in state.model.parameters()]
    one_batch = train_batches(4)
    Run(tmp_path, config, state, train=one_batch).fit()
    moved = torch.stack([(p - b).norm() for p, b in zip(state.model.parameters(), before, strict=True)]).norm()
    assert moved.item() == pytest.approx(0.01, rel=0.01)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_the_loss_is_made_of_full_precision_whatever_autocast_would_do(tmp_path, monkeypatch, precision):
    """A CPU's autocast casts for itself; CUDA's leaves cross-entropy with class indices in half precision."""
    seen, real = [], F.cross_entropy

    def spy(logits, *args, **rest):
        seen.append(logits.dtype)
        return real(logits, *args, **rest)

    monkeypatch.setattr(F, "cross_entropy", spy)
    config = train_config(epochs=1, precision=precision)
    Run(tmp_path, config, make_state(config), val=val_batches()).fit()
    assert len(seen) > 1
    assert set(seen) == {torch.float32}


GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")


@pytest.mark.gpu
@GPU
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("optimizer", ["sgd", "adam", "sam", "muon", "muon_sgd"])
def test_nobody_waits_for_the_gpu_inside_an_epoch(tmp_path, precision, optimizer):
    if (optimizer, precision) == ("sam", "fp16"):
        pytest.skip("refused")
    device = torch.device("cuda", 0)
    config = train_config(precision=precision, epochs=2, grad_clip_norm=1.0, ema_decay=0.9, label_smoothing=0.1)
    model = deeper_model() if optimizer.startswith("muon") else None
    state = make_state(config, optimizer=optimizer, model=model, device=device, batch_norm=True, num_batches=300)
    train = GpuBatches(train_batches(1200, device=device), device)
    run = Run(tmp_path, config, state, train=train, val=val_batches(device=device))
    original, strict = loop.Sums.add, []

    class Strict(loop.Sums):
        def add(self, *args):
            original(self, *args)
            torch.cuda.set_sync_debug_mode("error")
            strict.append(True)

        def read(self):
            torch.cuda.set_sync_debug_mode("default")
            return super().read()

    settle = DeviceWatch.settle

    def settled(self, loss_sum):
        torch.cuda.set_sync_debug_mode("default")
        settle(self, loss_sum)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "Sums", Strict)
        patch.setattr(DeviceWatch, "settle", settled)
        try:
            run.fit()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert len(strict) == 600
    rows = run.tracker.read()
    assert rows[1]["train_loss"] < rows[0]["train_loss"] + 0.1


class GpuBatches:
    """The order made once per epoch, before the first batch."""

    def __init__(self, inner, device):
        self.inner, self.device = inner, device
        self.batch_size, self.num_images = inner.batch_size, inner.num_images

    def __len__(self):
        return len(self.inner)

    def iterate(self, epoch, start=0):
        made = list(self.inner.iterate(epoch, start))
        torch.cuda.synchronize()
        yield from made


@pytest.mark.gpu
@GPU
@pytest.mark.parametrize("optimizer", ["sgd", "adam", "sam", "rmsprop", "muon"])
def test_a_bad_loss_on_the_gpu_leaves_the_weights_of_the_step_before(tmp_path, optimizer):
    device = torch.device("cuda", 0)
    config = train_config(epochs=1)
    state = make_state(config, optimizer=optimizer, device=device)
    before = {}
    train = poison(train_batches(device=device), epoch=0, batch=3, value=float("nan"))
    run = Run(tmp_path, config, state, train=train)
    run.tracker.on_step = lambda count: count == 3 and before.update(copy.deepcopy(state.model.state_dict()))
    with pytest.raises(DivergedError, match="loss is nan at epoch 1 step 4"):
        run.fit()
    assert all(torch.equal(value, before[name]) for name, value in state.model.state_dict().items())
    assert not hasattr(state.optimizer, "found_inf")


@pytest.mark.gpu
@GPU
@pytest.mark.parametrize(
    ("precision", "optimizer"), [("fp32", "adam"), ("bf16", "adam"), ("fp16", "adam"), ("bf16", "sam"), ("bf16", "muon")]
)
def test_resume_on_the_gpu_goes_on_to_the_bit(tmp_path, precision, optimizer):
    device = torch.device("cuda", 0)
    config = train_config(precision=precision, epochs=3, ema_decay=0.9)

    def run(folder, seed):
        state = make_state(config, seed=seed, optimizer=optimizer, device=device, dropout=0.3)
        return Run(tmp_path / folder, config, state, train=train_batches(device=device), val=val_batches(device=device))

    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
    try:
        seed_all(1)
        whole = run("whole", 0)
        torch.cuda.manual_seed(3)
        whole.fit()
        cut = run("cut", 0)
        torch.cuda.manual_seed(3)
        cut.tracker.on_step = lambda count: count == 8 and setattr(cut.stop, "signum", 15)
        with pytest.raises(Interrupted):
            cut.fit()
        again = run("cut", 6)
        again.resume()
        again.fit()
    finally:
        torch.use_deterministic_algorithms(False)
    tensors, expected = again.state.pack()[0], whole.state.pack()[0]
    for group in ("model", "ema", "optimizer"):
        assert all(torch.equal(value, expected[group][name]) for name, value in tensors[group].items())
    assert without_times(again.tracker.read()) == without_times(whole.tracker.read())
