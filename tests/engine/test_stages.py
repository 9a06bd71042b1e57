"""A model of which a part is trained in the first epochs only: in one go, and stopped and gone on with."""

import torch
from engine_rig import Run, make_state, seed_all, tiny_model, train_config
from torch import nn


class Staged(nn.Module):
    """A tiny model with an offset that is trained in the first two epochs."""

    def __init__(self):
        super().__init__()
        self.inner = tiny_model(0, dropout=0.2, batch_norm=True)
        self.offset = nn.Parameter(torch.zeros(3, 1, 1))
        self.seen: list[int] = []

    def begin_epoch(self, epoch):
        self.seen.append(epoch)
        self.offset.requires_grad_(epoch <= 2)

    def forward(self, images):
        return self.inner(images + self.offset)


def run(folder, epochs):
    config = train_config(epochs=epochs)
    model = Staged()
    # momentum and decay, which would go on moving a parameter that merely has a gradient of zero
    settings = {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.1, "decay_all": True}
    seed_all(0)
    return Run(folder, config, make_state(config, model=model, optimizer_settings=settings)), model


def test_a_part_stays_as_it_is_when_its_epochs_are_over(tmp_path):
    first, two = run(tmp_path / "two", 2)
    first.fit()
    second, four = run(tmp_path / "four", 4)
    second.fit()
    assert two.offset.abs().max() > 0
    assert torch.equal(two.offset, four.offset)
    assert not torch.equal(two.inner[0].weight, four.inner[0].weight)
    assert four.seen == [1, 2, 3, 4]


def test_a_run_that_goes_on_is_in_its_stage(tmp_path):
    whole, undisturbed = run(tmp_path / "whole", 4)
    whole.fit()
    first, _ = run(tmp_path / "parts", 3)
    first.fit()
    second, resumed = run(tmp_path / "parts", 4)
    second.resume()
    second.fit()
    assert resumed.seen == [4]
    for a, b in zip(undisturbed.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)
