"""Sets that share pictures and schedules that never move."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from cifar_lab.config import TrainConfig
from cifar_lab.engine import preflight
from cifar_lab.engine.preflight import check_overlap, schedule_note
from cifar_lab.errors import DataError
from cifar_lab.optim.schedules import build_schedule


@dataclass
class Images:
    images: Tensor
    ids: Tensor


def images(count, seed, first_id=0, size=5):
    made = torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
    return Images(made, torch.arange(count) + first_id)


def test_sets_without_common_pictures_pass_whatever_their_ids():
    assert check_overlap(images(300, 0), images(100, 1), images(200, 2)) == []
    assert check_overlap(images(300, 0), None, images(200, 0, size=6)) == []


@pytest.mark.parametrize("name", ["validation", "test"])
def test_a_set_that_holds_training_images_is_refused(name):
    train, held, other = images(300, 0), images(100, 1, 1000), images(100, 2, 2000)
    held.images[40:50] = train.images[7:17]
    val, test = (held, other) if name == "validation" else (other, held)
    with pytest.raises(DataError) as error:
        check_overlap(train, val, test)
    expected = f"10 of 100 {name} images are train images too, such as {name} id 1040, which is train id 7"
    assert error.value.what == expected
    assert "remove the copies" in error.value.hint


def test_validation_and_test_may_not_be_the_same():
    with pytest.raises(DataError, match=r"^50 of 50 test images are validation images too"):
        check_overlap(images(300, 0), images(50, 1), images(50, 1))


def test_a_few_copies_are_noted():
    train, test = images(300, 0), images(200, 1)
    test.images[3] = test.images[9] = train.images[20]
    assert check_overlap(train, None, test) == ["2 of 200 test images are train images too"]


def test_equal_check_sums_do_not_make_equal_pictures(monkeypatch):
    monkeypatch.setattr(preflight, "_keys", lambda images: [0] * len(images))
    train, test = images(20, 0), images(150, 1)
    test.images[3] = train.images[19]
    assert check_overlap(train, None, test) == ["1 of 150 test images are train images too"]


def note(name, *, epochs=4, steps=10, has_val=True, every=1, **settings):
    schedule = build_schedule(name, lr=0.1, total_steps=max(1, epochs * steps), steps_per_epoch=steps, **settings)
    state = schedule.state_dict()
    said = schedule_note(schedule, name, TrainConfig(epochs=epochs, eval_every_epochs=every), steps, has_val=has_val)
    assert schedule.state_dict() == state
    return said


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("constant", {}),
        ("cosine", {}),
        ("step", {}),
        ("one_cycle", {}),
        ("triangular", {}),
        ("plateau", {"patience": 1}),
        ("plateau", {"patience": 1, "monitor": "train_accuracy", "has_val": False}),
        ("plateau", {"warmup_epochs": 1.0, "has_val": False}),
        ("cosine", {"epochs": 0}),
        ("cosine", {"epochs": 1}),
    ],
)
def test_schedules_that_move_or_need_not(name, settings):
    assert note(name, **settings) == ""


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("cosine", {"epochs": 1, "steps": 1}),
        ("cosine", {"eta_min": 0.1}),
        ("step", {"milestones": (9.0,)}),
        ("step", {"gamma": 1.0}),
        ("plateau", {"patience": 10}),
        ("plateau", {"patience": 0, "has_val": False}),
        ("plateau", {"patience": 1, "every": 3}),
    ],
)
def test_schedules_that_never_move(name, settings):
    assert note(name, **settings).startswith(f"schedule={name} never moves in this run of ")
