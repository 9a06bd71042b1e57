"""Where CIFAR's files come from: every byte checked before it is read, damage set aside, named and repaired."""

import errno
import multiprocessing
import os
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from cifar_lab import storage
from cifar_lab.config import DataConfig
from cifar_lab.data import cifar_files
from cifar_lab.data.cifar import load_cifar10
from cifar_lab.data.download import Patience
from cifar_lab.errors import DataError, DiskError, Interrupted


def tree(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*")}


@pytest.fixture
def local(monkeypatch):
    """Downloads may come from this machine without https, and lose no time."""
    patience = Patience(timeout_s=5, pause_s=0.01)
    monkeypatch.setattr(cifar_files, "download", partial(cifar_files.download, check_url=lambda url: None, patience=patience))


# A folder or an archive that is right


def test_a_folder_is_read_pixel_by_pixel(fake_cifar, tmp_path):
    fake_cifar.lay_out(tmp_path)
    before = tree(tmp_path)
    made = fake_cifar.load(tmp_path)
    assert made.train.images.shape == (40, 3, 32, 32)
    # the format: 1,024 bytes of red row by row, then green, then blue
    assert made.train.images[3, 2, 5, 7] == fake_cifar.images[3, 2 * 1024 + 5 * 32 + 7]
    assert np.array_equal(made.train.images.numpy().reshape(40, -1), fake_cifar.images[:40])
    assert np.array_equal(made.test.images.numpy().reshape(10, -1), fake_cifar.images[40:])
    assert made.train.labels.tolist() == fake_cifar.labels[:40]
    assert made.test.labels.tolist() == fake_cifar.labels[40:]
    assert made.class_names == tuple(f"class{k}" for k in range(10))
    assert made.train.ids.tolist() == list(range(40))
    assert made.test.ids.tolist() == list(range(40, 50))
    assert made.val is None
    assert made.notes == ()
    assert tree(tmp_path) == before  # reading leaves no trace


def test_one_training_file_keeps_its_ids_and_is_noted(fake_cifar, tmp_path):
    fake_cifar.lay_out(tmp_path)
    (tmp_path / fake_cifar.layout.folder / "data_batch_1").unlink()  # what is not asked for need not be there
    made = fake_cifar.load(tmp_path, batches=[2])
    assert made.train.ids.tolist() == list(range(20, 40))
    assert np.array_equal(made.train.images.numpy().reshape(20, -1), fake_cifar.images[20:40])
    assert made.notes == ("trained on data_batch_2 only",)


def test_the_order_of_the_chosen_files_does_not_matter(fake_cifar, tmp_path):
    fake_cifar.lay_out(tmp_path)
    assert torch.equal(fake_cifar.load(tmp_path, batches=[2, 1]).train.images, fake_cifar.load(tmp_path).train.images)


def test_an_archive_is_unpacked_by_our_names_only(fake_cifar, tmp_path):
    root = tmp_path / "deep" / "root"
    root.mkdir(parents=True)
    (root / fake_cifar.layout.remote.name).write_bytes(fake_cifar.archive)
    seen = []
    made = fake_cifar.load(root, progress=lambda *call: seen.append(call))
    assert np.array_equal(made.train.images.numpy().reshape(40, -1), fake_cifar.images[:40])
    assert seen[-1] == ("unpacking cifar-10-python.tar.gz", 4, 4)
    ours = {f"{fake_cifar.layout.folder}/{name}" for name in fake_cifar.files}
    assert tree(root) == {"cifar-10-python.tar.gz", ".lock", fake_cifar.layout.folder, *ours}
    assert tree(tmp_path) == {"deep", "deep/root", *(f"deep/root/{name}" for name in tree(root))}  # nothing escaped
    assert not (root / fake_cifar.layout.folder / "data_batch_1").is_symlink()
    assert not Path("/escaped").exists()
    (root / fake_cifar.layout.remote.name).unlink()
    assert torch.equal(fake_cifar.load(root).train.images, made.train.images)


def test_an_archive_without_one_of_the_files_is_named(fake_cifar, tmp_path):
    shorter = fake_cifar.with_file("data_batch_1", b"something")  # published, but the layout wants another
    shorter.layout.md5["data_batch_1"] = fake_cifar.layout.md5["data_batch_1"]
    (tmp_path / shorter.layout.remote.name).write_bytes(shorter.archive)
    with pytest.raises(DataError, match=r"cifar-10-python\.tar\.gz: data_batch_1 is missing or damaged$"):
        shorter.load(tmp_path)


# Missing or damaged


def test_offline_and_missing_says_what_to_put_where_and_creates_nothing(tmp_path):
    root = tmp_path / "nothing"
    with pytest.raises(DataError) as error:
        load_cifar10(DataConfig(root=str(root), download=False))
    assert error.value.what == f"CIFAR-10 not in {root} and data.download=false; put cifar-10-python.tar.gz there"
    assert error.value.line().startswith("cifar-lab: error[E-DATA]: CIFAR-10 not in ")
    assert error.value.exit_code == 3
    assert not root.exists()


def test_without_a_source_that_delivers_the_line_has_each_reason(fake_cifar, tmp_path, server, page, local):
    urls = [server.add("gone", page(status=404)), server.add("other", page(b"we are sorry"))]
    with pytest.raises(DataError) as error:
        fake_cifar.load(tmp_path, download=True, sources=urls)
    size = len(fake_cifar.archive)
    assert error.value.what.startswith(f"CIFAR-10 not in {tmp_path} and every source failed (127.0.0.1: HTTP 404, 127.0.0.1: ")
    assert f"answers with Content-Length 12 instead of {size}" in error.value.what
    assert error.value.what.endswith("; put cifar-10-python.tar.gz there")


def test_a_damaged_file_is_set_aside_named_and_replaced_from_the_archive(fake_cifar, tmp_path):
    folder = fake_cifar.lay_out(tmp_path)
    broken = bytearray(fake_cifar.files["data_batch_2"])
    broken[5000] ^= 1
    (folder / "data_batch_2").write_bytes(broken)
    (tmp_path / fake_cifar.layout.remote.name).write_bytes(fake_cifar.archive)
    made = fake_cifar.load(tmp_path)
    assert np.array_equal(made.train.images.numpy().reshape(40, -1), fake_cifar.images[:40])
    path = folder / "data_batch_2"
    assert made.notes == (f"{path} was damaged (MD5 mismatch) and set aside as data_batch_2.bad-1",)
    assert (folder / "data_batch_2.bad-1").read_bytes() == bytes(broken)
    assert path.read_bytes() == fake_cifar.files["data_batch_2"]


def test_a_damaged_file_that_cannot_be_replaced_is_named(fake_cifar, tmp_path):
    folder = fake_cifar.lay_out(tmp_path)
    (folder / "test_batch").write_bytes(b"half")
    with pytest.raises(DataError) as error:
        fake_cifar.load(tmp_path)
    assert error.value.code == "E-DATA"
    assert f"{folder / 'test_batch'} was damaged (MD5 mismatch) and set aside as test_batch.bad-1" in error.value.what
    assert error.value.what.endswith("and data.download=false; put cifar-10-python.tar.gz there")
    assert (folder / "test_batch.bad-1").read_bytes() == b"half"


def test_a_damaged_archive_is_set_aside_and_fetched_anew(fake_cifar, tmp_path, server, page, local):
    archive = tmp_path / fake_cifar.layout.remote.name
    archive.write_bytes(fake_cifar.archive[:-1] + b"?")
    url = server.add("archive", page(fake_cifar.archive))
    made = fake_cifar.load(tmp_path, download=True, sources=[url])
    assert len(made.train) == 40
    aside = "cifar-10-python.tar.gz.bad-1"
    assert made.notes == (f"{archive} was damaged (size or SHA-256 mismatch) and set aside as {aside}",)
    assert archive.read_bytes() == fake_cifar.archive
    assert (tmp_path / aside).exists()


def refuse_to_write(*args, **kwargs):
    raise DiskError("read-only file system")


def test_a_folder_that_cannot_be_written_to_is_read_from_its_archive(fake_cifar, tmp_path, monkeypatch):
    folder = fake_cifar.lay_out(tmp_path)
    (folder / "data_batch_1").write_bytes(b"half")
    monkeypatch.setattr(storage.FolderLock, "__enter__", refuse_to_write)
    with pytest.raises(DataError) as error:
        fake_cifar.load(tmp_path)
    assert error.value.what == f"{folder / 'data_batch_1'} is damaged (MD5 mismatch), and read-only file system"
    (tmp_path / fake_cifar.layout.remote.name).write_bytes(fake_cifar.archive)
    made = fake_cifar.load(tmp_path)
    assert np.array_equal(made.train.images.numpy().reshape(40, -1), fake_cifar.images[:40])
    assert made.notes == (f"{folder / 'data_batch_1'} is damaged (MD5 mismatch)",)
    with pytest.raises(DiskError, match=r"^read-only file system$"):
        fake_cifar.load(tmp_path / "elsewhere", download=True)


def test_a_file_that_cannot_be_opened_is_named(fake_cifar, tmp_path, monkeypatch):
    path = fake_cifar.lay_out(tmp_path) / "data_batch_1"

    def refuse(self: Path) -> bytes:
        raise PermissionError(errno.EACCES, "Permission denied", str(self))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(DataError) as error:
        fake_cifar.load(tmp_path)
    assert error.value.what == f"{path} cannot be read: Permission denied"


# Where it is looked for


def test_the_root_is_the_key_then_the_variable_then_a_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("CIFAR10_ROOT", "/from/variable")
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cifar_files.data_root(DataConfig(root="~/pictures"), "CIFAR10_ROOT") == tmp_path / "pictures"
    assert cifar_files.data_root(DataConfig(), "CIFAR10_ROOT") == Path("/from/variable")
    assert cifar_files.data_root(DataConfig()) == Path("/cache/cifar-lab")
    assert cifar_files.CIFAR10.root_variable == "CIFAR10_ROOT"
    assert cifar_files.CIFAR100.root_variable == ""
    monkeypatch.delenv("CIFAR10_ROOT")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative/is/not/allowed")
    assert cifar_files.data_root(DataConfig(), "CIFAR10_ROOT") == tmp_path / ".cache" / "cifar-lab"


# Downloads


def test_a_download_ends_in_the_folder_and_is_not_repeated(fake_cifar, tmp_path, server, page, local):
    url = server.add("archive", page(fake_cifar.archive))
    root = tmp_path / "new"
    first = fake_cifar.load(root, download=True, sources=[url])
    second = fake_cifar.load(root, download=True, sources=[url])
    assert torch.equal(first.train.images, second.train.images)
    assert server.asked == [("/archive", None)]
    assert not (root / "cifar-10-python.tar.gz.part").exists()


def test_plain_http_is_refused_as_a_source(fake_cifar, tmp_path, server, page):
    url = server.add("archive", page(fake_cifar.archive))
    with pytest.raises(DataError, match=r"is not an https address; refused; put cifar-10-python.tar.gz there$"):
        fake_cifar.load(tmp_path, download=True, sources=[url])
    assert server.asked == []


def _load_in_another_process(fake, root: Path, url: str) -> None:
    made = fake.load(root, download=True, sources=[url])
    os._exit(0 if np.array_equal(made.train.images.numpy().reshape(40, -1), fake.images[:40]) else 3)


def test_two_processes_at_once_download_once(fake_cifar, tmp_path, server, page, local):
    url = server.add("archive", page(fake_cifar.archive, piece=len(fake_cifar.archive) // 8, pause_s=0.1))
    fork = multiprocessing.get_context("fork")
    both = [fork.Process(target=_load_in_another_process, args=(fake_cifar, tmp_path, url)) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join(120)
        process.kill()
    assert [process.exitcode for process in both] == [0, 0]
    assert server.asked == [("/archive", None)]


def test_a_stop_leaves_a_wait_for_another_run(fake_cifar, tmp_path, local):
    def stop() -> None:
        raise Interrupted("while waiting for the data", signum=15)

    # flock holds between two open files of one process, too
    with storage.FolderLock(tmp_path), pytest.raises(Interrupted):
        fake_cifar.load(tmp_path, stop=stop, download=True)
