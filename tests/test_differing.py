"""The settings that tell configurations apart, in few words."""

from cifar_lab.differing import differing, words


def test_only_what_differs_is_said_and_a_component_by_its_name():
    a = {"optimizer.name": "adam", "optimizer.lr": 0.01, "optimizer.betas": [0.9, 0.99], "train.ema": True, "data.root": None}
    b = {**a, "optimizer.name": "sgd", "optimizer.lr": 0.1, "train.ema": False}
    b.pop("optimizer.betas")
    found = differing([a, b])
    assert found == [{"optimizer.name": "adam", "train.ema": True}, {"optimizer.name": "sgd", "train.ema": False}]
    assert [words(one) for one in found] == ["optimizer=adam ema=true", "optimizer=sgd ema=false"]
    assert differing([a, dict(a)]) == [{}, {}]
    assert words({}) == ""


def test_a_key_is_written_out_where_its_last_part_is_not_enough():
    found = differing([{"model.size": 1, "data.size": None, "model.widths": [1, 2]}, {"model.size": 2, "data.size": 32}])
    assert words(found[0]) == "model.size=1 data.size=null widths=[1,2]"


def test_a_value_is_not_mistaken_for_one_that_is_equal_only_in_python():
    assert differing([{"a": True}, {"a": 1}]) == [{"a": True}, {"a": 1}]
