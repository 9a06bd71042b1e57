"""The run folder's name, digests and ownership."""

import copy
from pathlib import Path

import pytest

from cifar_lab import runs, schema
from cifar_lab.config import to_plain
from cifar_lab.errors import CheckpointError, ResumeError
from cifar_lab.runs import RunFolder


@pytest.fixture(autouse=True, scope="module")
def _registered() -> None:
    schema.register()


def digest(*overrides: str) -> str:
    return runs.config_digest(schema.compose(overrides))


def test_two_runs_of_one_instant_get_two_folders(tmp_path: Path) -> None:
    names = {runs.new_run_folder(tmp_path, "net").name for _ in range(50)}
    assert len(names) == 50
    assert all(name.endswith("_net") for name in names)


@pytest.mark.parametrize(
    "place", ["data.root=/elsewhere", "data.download=false", "device=cuda", "threads=3", "tracker=mlflow", "train.keep=none"]
)
def test_where_a_run_happens_is_not_what_it_computes(place: str) -> None:
    assert digest(place) == digest()


@pytest.mark.parametrize(
    "what",
    [
        "seed=1",
        "train.epochs=21",
        "model.kernel_size=5",
        "optimizer.lr=0.1",
        "augment=flip",
        "data.split_seed=1",
        "train.tta=flip",
    ],
)
def test_what_a_run_computes_is_in_its_digest(what: str) -> None:
    assert digest(what) != digest()


def test_the_code_digest_sees_every_source_file_and_plugin(tmp_path: Path) -> None:
    plugin = tmp_path / "lab.py"
    plugin.write_text("x = 1\n")
    first = runs.code_digest([plugin])
    assert first != runs.code_digest()
    plugin.write_text("x = 2\n")
    assert runs.code_digest([plugin]) != first


def test_a_folder_belongs_to_one_configuration_code_and_data(tmp_path: Path) -> None:
    config = schema.compose([])
    with RunFolder(tmp_path / "run") as folder:
        folder.claim(config, "code1", "data1", ["a=b"])
        folder.claim(config, "code1", "data1", ["a=b"])
        with pytest.raises(ResumeError, match=r"the code differs .*code1 -> code2"):
            folder.claim(config, "code2", "data1", [])
        with pytest.raises(ResumeError, match="the data differs"):
            folder.claim(config, "code1", "data2", [])
        with pytest.raises(ResumeError, match=r"optimizer\.lr differs \(0\.001 -> 0\.1\)"):
            folder.claim(schema.compose(["optimizer.lr=0.1"]), "code1", "data1", [])
        with pytest.raises(ResumeError, match="and 2 more"):
            folder.claim(
                schema.compose(["optimizer.lr=0.1", "seed=1", "model.kernel_size=5", "augment=flip"]), "code1", "data1", []
            )
        folder.claim(schema.compose(["train.epochs=21"]), "code1", "data1", [])
        with pytest.raises(ResumeError, match=r"train\.epochs differs \(21 -> 20\)"):
            folder.claim(config, "code1", "data1", [])
        # what is advised where an evaluation runs out of memory
        folder.claim(schema.compose(["train.epochs=21", "train.eval_batch_size=50"]), "code1", "data1", [])


def test_a_setting_younger_than_a_run_is_at_its_default_in_it() -> None:
    new = to_plain(schema.compose([]))
    old = copy.deepcopy(new)
    del old["train"]["tta"], old["data"]["image_size"]
    assert runs.differences(old, new) == runs.differences(new, old) == []
    assert runs.differences(old, to_plain(schema.compose(["train.tta=flip"]))) == [("train.tta", "none", "flip")]


def test_a_refused_run_leaves_no_lock_behind(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "run"):
        pass
    assert not list((tmp_path / "run").iterdir())


def test_a_foreign_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text("{}")
    with RunFolder(tmp_path) as folder, pytest.raises(ResumeError, match=r"holds a run without its config\.yaml"):
        folder.claim(schema.compose([]), "code", "data", [])
    (tmp_path / "config.yaml").write_text("[1, 2]")
    with RunFolder(tmp_path) as folder, pytest.raises(CheckpointError, match="is no configuration"):
        folder.config()


def test_every_opening_of_the_test_set_is_counted(tmp_path: Path) -> None:
    with RunFolder(tmp_path) as folder:
        assert [folder.open_test_set() for _ in range(3)] == [1, 2, 3]
    with RunFolder(tmp_path) as folder:
        assert folder.open_test_set() == 4
