"""Everything a run must remember is saved, restored, and missed when it is not there."""

import copy

import pytest
import torch
from engine_rig import assert_same_state, everything, make_state, picture_set, tiny_model, train_config
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from cifar_lab.engine.state import ENTRIES, Ema, Progress
from cifar_lab.errors import CheckpointError


def stepped(state, steps=2):
    """A few updates, so that the optimiser has something to remember."""
    images, labels = picture_set(6)
    for _ in range(steps):
        state.optimizer.zero_grad()
        torch.nn.functional.cross_entropy(state.model(images), labels).backward()
        state.optimizer.step()
        if state.ema is not None:
            state.ema.update()
    state.progress = Progress(epochs_done=2, step=steps, batch=1, images=4, loss_sum=1.25, correct=3, skipped=1)
    state.stopper.best, state.stopper.losses = 0.5, [1.0, 0.5]
    return state


def full(seed=0, **keywords):
    config = train_config(ema_decay=0.9)
    return make_state(config, seed=seed, optimizer="adam", schedule="plateau", batch_norm=True, **keywords)


def test_unpack_gives_back_what_pack_took():
    state = stepped(full())
    torch.manual_seed(77)
    tensors, record = state.pack()
    wanted = torch.rand(3)
    other = full(seed=5)
    other.unpack(tensors, record)
    assert torch.equal(torch.rand(3), wanted)
    other_tensors, other_record = everything(other)
    assert other_record["optimizer"] == record["optimizer"]
    state_tensors, _ = everything(state)
    assert all(torch.equal(other_tensors[name], value) for name, value in state_tensors.items() if "generators" not in name)
    assert other.progress == state.progress
    assert other.stopper == state.stopper
    assert other.ema.updates == 2
    # and it goes on alike
    stepped(state)
    stepped(other)
    assert_same_state(state, other)


def test_what_is_packed_shares_nothing_with_the_model():
    state = stepped(full())
    tensors, _ = state.pack()
    kept = copy.deepcopy(tensors)
    stepped(state)
    for group, named in kept.items():
        assert all(torch.equal(tensors[group][name], value) for name, value in named.items())


@pytest.mark.parametrize("entry", ENTRIES)
def test_a_missing_entry_is_an_error(entry):
    tensors, record = stepped(full()).pack()
    del record[entry]
    with pytest.raises(CheckpointError, match="are needed"):
        full().unpack(tensors, record)


@pytest.mark.parametrize("entry", ["step", "loss_sum", "skipped"])
def test_a_missing_field_of_progress_is_an_error(entry):
    tensors, record = stepped(full()).pack()
    del record["progress"][entry]
    with pytest.raises(CheckpointError, match="progress"):
        full().unpack(tensors, record)


@pytest.mark.parametrize(
    ("part", "key"),
    [("stopper", "mark_epoch"), ("schedule", "bad_evaluations"), ("generators", "numpy"), ("optimizer", "groups")],
)
def test_a_missing_value_is_an_error(part, key):
    tensors, record = stepped(full()).pack()
    del record[part][key]
    with pytest.raises(CheckpointError, match="does not fit this run"):
        full().unpack(tensors, record)


@pytest.mark.parametrize("group", ["model", "ema", "optimizer", "generators"])
def test_missing_tensors_are_an_error(group):
    tensors, record = stepped(full()).pack()
    del tensors[group]
    with pytest.raises(CheckpointError):
        full().unpack(tensors, record)


def test_another_network_or_other_groups_are_an_error():
    tensors, record = stepped(full()).pack()
    with pytest.raises(CheckpointError, match=r"tensor \S+ is only in the model"):
        make_state(train_config(ema_decay=0.9), optimizer="adam", schedule="plateau").unpack(tensors, record)
    record["optimizer"]["groups"] = []
    with pytest.raises(CheckpointError, match="does not fit this run"):
        full().unpack(tensors, record)


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_optimizer_state_keeps_the_memory_format_of_its_parameter(optimizer):
    """Fused kernels walk parameter and state by address: another format would mix up elements."""
    settings = {"momentum": 0.9} if optimizer == "sgd" else {}
    state = stepped(make_state(train_config(), optimizer=optimizer, optimizer_settings=settings))
    other = make_state(train_config(), seed=3, optimizer=optimizer, optimizer_settings=settings)
    other.unpack(*state.pack())
    parameter = other.model[0].weight
    assert parameter.is_contiguous(memory_format=torch.channels_last)
    assert not parameter.is_contiguous()
    buffers = [v for v in other.optimizer.state[parameter].values() if isinstance(v, torch.Tensor) and v.ndim == 4]
    assert buffers
    assert all(buffer.stride() == parameter.stride() for buffer in buffers)
    stepped(state, 1)
    stepped(other, 1)
    assert_same_state(state, other)


def test_an_optimizer_with_a_state_that_cannot_be_saved_is_refused():
    state = stepped(full())
    state.optimizer.state[state.model[0].weight]["history"] = {"a": 1}
    with pytest.raises(CheckpointError, match="history as a dict"):
        state.pack()


@pytest.mark.parametrize("decay", [0.5, 0.999])
def test_the_average_is_torchs(decay):
    model = tiny_model(batch_norm=True)
    ours = Ema(model, decay)
    torchs = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)
    images, _ = picture_set(6)
    for step in range(4):
        model(images + step)  # moves the running statistics
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(step)))
        ours.update()
        torchs.update_parameters(model)
    for name, value in torchs.module.state_dict().items():
        if value.is_floating_point():
            assert torch.equal(ours.module.state_dict()[name], value), name
    assert ours.module[1].num_batches_tracked == model[1].num_batches_tracked == 4
    assert not ours.module.training
    assert not any(p.requires_grad for p in ours.module.parameters())


def test_the_average_goes_on_after_weights_were_put_into_it():
    state = stepped(full())
    other = full(seed=4)
    other.unpack(*state.pack())
    before = other.eval_model[0].weight.clone()
    other.ema.update()
    torch.testing.assert_close(other.eval_model[0].weight, torch.lerp(before, other.model[0].weight, 0.1))


def test_without_an_average_the_model_itself_is_evaluated():
    state = make_state(train_config())
    assert state.eval_model is state.model
    assert "ema" not in state.pack()[0]


def test_base_rates_are_those_given_also_after_a_resume():
    state = make_state(train_config(), optimizer_settings={"lr": 0.3})
    for group in state.optimizer.param_groups:
        group["lr"] = 0.01
    other = make_state(train_config(), optimizer_settings={"lr": 0.3})
    other.unpack(*state.pack())
    assert [group["base_lr"] for group in other.optimizer.param_groups] == [0.3] * len(other.optimizer.param_groups)


def test_progress_counts_an_epoch():
    progress = Progress(
        epochs_done=1, step=9, batch=3, images=7, loss_sum=2.0, correct=1, skipped=2, train_seconds=1.0, seconds=2.0
    )
    progress.end_epoch()
    assert progress == Progress(epochs_done=2, step=9, skipped=2)
