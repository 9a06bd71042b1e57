"""The one door to disk: whole or not at all, synced, named when it fails, one process at a time."""

import contextlib
import errno
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cifar_lab import storage
from cifar_lab.errors import DataError, DiskError, LockedError
from cifar_lab.storage import files as files_module


def start(code, *arguments):
    """Another Python process with this package; it says ``ready`` when it is."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline().strip() == "ready", process.stderr.read() if process.stderr else ""
    return process


@contextlib.contextmanager
def running(code, *arguments):
    process = start(code, *arguments)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


# Whole files


def test_a_file_is_written_whole_and_replaced(tmp_path):
    path = tmp_path / "a" / "b" / "file.bin"
    storage.write_bytes(path, b"old")
    storage.write_bytes(str(path), b"new and longer")
    assert path.read_bytes() == b"new and longer"
    storage.write_text(path, "grün\n")
    assert path.read_text(encoding="utf-8") == "grün\n"
    assert [p.name for p in path.parent.iterdir()] == ["file.bin"]


def test_a_file_has_the_rights_that_the_umask_leaves(tmp_path):
    before = os.umask(0o027)
    try:
        storage.write_bytes(tmp_path / "file", b"")
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640


def test_data_is_synced_before_the_name_and_the_folder_after(tmp_path, monkeypatch):
    events = []
    fsync, replace = os.fsync, Path.replace

    def note_fsync(descriptor):
        target = Path(f"/proc/self/fd/{descriptor}").readlink()
        events.append("folder" if target.is_dir() else "data")
        fsync(descriptor)

    def note_replace(self, target):
        events.append("name")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(Path, "replace", note_replace)
    storage.write_bytes(tmp_path / "file", b"x")
    assert events == ["data", "name", "folder"]


@pytest.mark.parametrize("fails", ["fsync", "replace", "write"])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, fails):
    path = tmp_path / "file"
    storage.write_bytes(path, b"old")

    def refuse(*_):
        raise OSError(errno.EIO, "Input/output error")

    if fails == "write":
        monkeypatch.setattr(files_module, "write_synced", refuse)
    else:
        monkeypatch.setattr(*((os, "fsync") if fails == "fsync" else (Path, "replace")), refuse)
    with pytest.raises(DiskError, match="the disk reports an error"):
        storage.write_bytes(path, b"new")
    monkeypatch.undo()
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


WRITER = """
import sys
from cifar_lab import storage
path, size = sys.argv[1], int(sys.argv[2])
print("ready", flush=True)
number = 0
while True:
    number = (number + 1) % 10
    storage.write_bytes(path, str(number).encode() * size)
"""


def kill_when(pattern, folder, code, path, *arguments):
    """Kill a writer as soon as something in the folder matches; whether it was still there when the writer was dead."""
    with running(code, path, *arguments) as process:
        deadline = time.monotonic() + 20
        while not path.exists() and time.monotonic() < deadline:
            time.sleep(0.001)
        while not list(folder.glob(pattern)) and time.monotonic() < deadline:
            pass
        process.send_signal(signal.SIGKILL)
        process.wait()
    return bool(list(folder.glob(pattern)))


def test_a_killed_writer_leaves_the_old_file_or_the_new_one(tmp_path):
    """Never a torn one; and what it left beside is cleared by its successor."""
    path, size, in_the_middle = tmp_path / "file", 3_000_000, 0
    for _ in range(40):
        in_the_middle += kill_when(".tmp-*", tmp_path, WRITER, path, size)
        data = path.read_bytes()
        assert len(data) == size
        assert len(set(data)) == 1
        storage.remove_leftovers(tmp_path)
        assert [p.name for p in tmp_path.iterdir()] == ["file"]
        if in_the_middle == 4:
            break
    assert in_the_middle == 4, "no writer was killed in the middle; the test proves nothing"


FOLDER_WRITER = """
import sys
from cifar_lab import storage
print("ready", flush=True)
number = 0
while True:
    number = (number + 1) % 10
    data = str(number).encode() * 300_000
    storage.replace_folder(sys.argv[1], {"a": data, "b": data})
"""


@pytest.mark.parametrize("pattern", [".tmp-*", "best.previous"])
def test_a_killed_replacer_leaves_the_old_folder_or_the_new_one(tmp_path, pattern):
    final, in_the_middle = tmp_path / "best", 0
    for _ in range(40):
        in_the_middle += kill_when(pattern, tmp_path, FOLDER_WRITER, final)
        storage.remove_leftovers(tmp_path)
        assert [p.name for p in tmp_path.iterdir()] == ["best"]
        contents = {p.name: p.read_bytes() for p in final.iterdir()}
        assert contents.keys() == {"a", "b"}
        assert contents["a"] == contents["b"]
        assert len(contents["a"]) == 300_000
        if in_the_middle == 3:
            break
    assert in_the_middle == 3, "no writer was killed in the middle; the test proves nothing"


# JSON and lines


def test_json_keeps_the_order_and_says_null_for_what_it_has_no_word_for(tmp_path):
    path = tmp_path / "value.json"
    value = {"b": math.nan, "a": [math.inf, -math.inf, 1.5, {"c": (1, math.nan)}], "name": "größer", "n": None}
    storage.write_json(path, value)
    text = path.read_text(encoding="utf-8")
    assert text.endswith("}\n")
    assert "größer" in text
    assert list(storage.read_json(path)) == ["b", "a", "name", "n"]
    assert storage.read_json(path) == {"b": None, "a": [None, None, 1.5, {"c": [1, None]}], "name": "größer", "n": None}


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe"])
def test_json_that_is_none_is_named(tmp_path, content):
    (tmp_path / "value.json").write_bytes(content)
    with pytest.raises(DataError, match=r"value\.json is not valid JSON"):
        storage.read_json(tmp_path / "value.json")


def test_lines_are_appended_synced_and_read(tmp_path, monkeypatch):
    path = tmp_path / "metrics.jsonl"
    assert storage.read_lines(path) == []
    synced, fsync = [], os.fsync
    monkeypatch.setattr(os, "fsync", lambda descriptor: (synced.append(path.read_bytes()), fsync(descriptor)))
    storage.append_line(path, {"epoch": 1, "loss": math.nan})
    storage.append_line(path, {"epoch": 2, "loss": 0.1 + 0.2})
    assert storage.read_lines(path) == [{"epoch": 1, "loss": None}, {"epoch": 2, "loss": 0.1 + 0.2}]
    assert synced[-1] == path.read_bytes(), "the row was in the file when it was synced"
    assert len(synced) == 3  # row and folder, row


def test_a_cut_off_last_line_does_not_count(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"epoch": 1}\n{"epo')
    assert storage.read_lines(path) == [{"epoch": 1}]
    storage.keep_lines(path, 1)
    assert path.read_bytes() == b'{"epoch": 1}\n'
    path.write_bytes(b'{"epoch": 1}\n{"epo\n{"epoch": 3}\n')
    with pytest.raises(DataError, match="not valid JSON lines"):
        storage.read_lines(path)


def test_lines_are_cut_back(tmp_path):
    path = tmp_path / "metrics.jsonl"
    for epoch in range(4):
        storage.append_line(path, {"epoch": epoch})
    storage.keep_lines(path, 4)
    storage.keep_lines(path, 2)
    assert [row["epoch"] for row in storage.read_lines(path)] == [0, 1]
    with pytest.raises(DataError, match="has 2 rows where 3 were written"):
        storage.keep_lines(path, 3)
    storage.keep_lines(path, 0)
    assert path.read_bytes() == b""
    storage.keep_lines(tmp_path / "none.jsonl", 0)
    assert not (tmp_path / "none.jsonl").exists()
    with pytest.raises(DataError):
        storage.keep_lines(tmp_path / "none.jsonl", 1)


# Streams


def test_a_log_is_appended_to_line_by_line(tmp_path):
    path = tmp_path / "run" / "run.log"
    for text in ("one", "two"):
        stream = storage.open_log(path)
        stream.write(f"{text}\n")
        assert path.read_text().endswith(f"{text}\n"), "a line is there before the stream is closed"
        stream.close()
    assert path.read_text() == "one\ntwo\n"


def test_a_partial_file_grows_over_attempts_and_gets_its_name(tmp_path):
    partial, final = tmp_path / "archive.part", tmp_path / "archive"
    for piece in (b"first ", b"second"):
        with storage.open_partial(partial) as stream:
            assert stream.tell() == partial.stat().st_size
            stream.write(piece)
    storage.finish_partial(partial, final)
    assert final.read_bytes() == b"first second"
    assert not partial.exists()


# Folders


def test_folders_are_made_and_exclusively(tmp_path):
    made = storage.make_folder(tmp_path / "a" / "b")
    assert made.is_dir()
    storage.make_folder(made)
    with pytest.raises(FileExistsError):
        storage.make_folder(made, exclusive=True)
    storage.make_folder(tmp_path / "a" / "c", exclusive=True)


@pytest.mark.parametrize("exclusive", [False, True])
def test_a_file_where_a_folder_is_needed_is_named(tmp_path, exclusive):
    """Not FileExistsError: whoever counts up until a name is free would never end."""
    (tmp_path / "file").write_text("")
    with pytest.raises(DiskError, match=r"a file stands where a folder is needed for .*file/run"):
        storage.make_folder(tmp_path / "file" / "run", exclusive=exclusive)
    with pytest.raises(DiskError, match="a file stands where a folder is needed"):
        storage.make_folder(tmp_path / "file" / "run" / "deeper", exclusive=exclusive)
    with pytest.raises(DiskError):
        storage.write_bytes(tmp_path / "file" / "x", b"")
    with pytest.raises(DiskError, match="a file stands"):
        storage.make_folder(tmp_path / "file")


def test_a_folder_appears_at_once_and_is_never_overwritten(tmp_path):
    final = tmp_path / "checkpoints" / "step-1"
    storage.publish_folder(final, {"a": b"1", "b": b"2"})
    assert {p.name: p.read_bytes() for p in final.iterdir()} == {"a": b"1", "b": b"2"}
    with pytest.raises(DiskError, match="never overwritten"):
        storage.publish_folder(final, {"a": b"other"})
    assert (final / "a").read_bytes() == b"1"
    assert [p.name for p in final.parent.iterdir()] == ["step-1"]


def test_a_folder_is_replaced(tmp_path):
    final = tmp_path / "best"
    for content in ({"a": b"1"}, {"b": b"2"}, {"a": b"3"}):
        storage.replace_folder(final, content)
        assert {p.name: p.read_bytes() for p in final.iterdir()} == content
        assert [p.name for p in tmp_path.iterdir()] == ["best"]


@pytest.mark.parametrize("publish", [storage.publish_folder, storage.replace_folder])
def test_a_folder_that_does_not_read_back_never_gets_the_name(tmp_path, publish):
    old, final, seen = tmp_path / "old", tmp_path / "final", []
    if publish is storage.replace_folder:
        storage.publish_folder(final, {"a": b"old"})

    def check(folder):
        seen.append({p.name: p.read_bytes() for p in folder.iterdir()})
        raise DataError("not what was written")

    with pytest.raises(DataError):
        publish(final, {"a": b"new"}, check=check)
    assert seen == [{"a": b"new"}]
    names = [p.name for p in tmp_path.iterdir()]
    assert names == (["final"] if publish is storage.replace_folder else [])
    assert not old.exists()
    if names:
        assert (final / "a").read_bytes() == b"old"


def test_leftovers_go_and_a_half_replaced_folder_comes_back(tmp_path):
    storage.publish_folder(tmp_path / "best", {"a": b"old"})
    (tmp_path / "best").rename(tmp_path / "best.previous")
    (tmp_path / ".tmp-1").mkdir()
    (tmp_path / ".tmp-1" / "a").write_bytes(b"new")
    (tmp_path / ".tmp-2").write_bytes(b"half")
    storage.publish_folder(tmp_path / "other", {"a": b"new"})
    storage.publish_folder(tmp_path / "other.previous", {"a": b"old"})
    storage.remove_leftovers(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["best", "other"]
    assert (tmp_path / "best" / "a").read_bytes() == b"old"
    assert (tmp_path / "other" / "a").read_bytes() == b"new"
    storage.remove_leftovers(tmp_path / "nowhere")


def test_what_is_bad_is_renamed_with_the_reason_and_never_deleted(tmp_path):
    for number in (1, 2):
        storage.write_bytes(tmp_path / "archive", b"bad %d" % number)
        bad = storage.set_aside(tmp_path / "archive", f"reason {number}")
        assert bad == tmp_path / f"archive.bad-{number}"
        assert bad.read_bytes() == b"bad %d" % number
        assert (tmp_path / f"archive.bad-{number}.reason.txt").read_text() == f"reason {number}\n"
    assert not (tmp_path / "archive").exists()


def test_a_folder_loses_its_name_before_its_files(tmp_path, monkeypatch):
    storage.publish_folder(tmp_path / "step-1", {"a": b""})

    def crash(path):
        raise KeyboardInterrupt

    monkeypatch.setattr("shutil.rmtree", crash)
    with pytest.raises(KeyboardInterrupt):
        storage.remove_folder(tmp_path / "step-1")
    monkeypatch.undo()
    assert not (tmp_path / "step-1").exists()
    storage.remove_leftovers(tmp_path)
    assert list(tmp_path.iterdir()) == []


# What a full or closed disk says


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, r"no space for .*file \(needs 3 MB, \d+ MB free\)$"),
        (errno.EDQUOT, r"disk quota used up for .*file \(needs 3 MB, \d+ MB free\)$"),
        (errno.EROFS, "read-only file system for .*file$"),
        (errno.EACCES, "no permission to write for .*file$"),
        (errno.EINVAL, "Invalid argument for .*file$"),
    ],
)
def test_disk_errors_are_named(tmp_path, monkeypatch, number, words):
    def refuse(descriptor):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(DiskError, match=words) as caught:
        storage.write_bytes(tmp_path / "file", b"x" * 2_500_000)
    assert caught.value.exit_code == 5
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(DiskError, match=words.replace("needs 3 MB", "needs 1 MB")):
        storage.append_line(tmp_path / "file", {"a": 1})


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_really_full_device_is_named():
    with pytest.raises(DiskError, match=r"no space for /dev/full \(needs 1 MB, "):
        storage.append_line("/dev/full", {"a": 1})


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_is_named(tmp_path):
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(DiskError, match="no permission to write"):
            storage.write_bytes(tmp_path / "file", b"")
    finally:
        tmp_path.chmod(0o700)


def test_free_bytes_of_a_path_that_is_not_there_yet(tmp_path):
    found = storage.free_bytes(tmp_path / "not" / "there")
    assert found == pytest.approx(os.statvfs(tmp_path).f_bavail * os.statvfs(tmp_path).f_frsize, rel=0.2)


# Digests


def test_digests():
    assert storage.sha256_bytes(b"abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert storage.digest({"a": 1, "b": [1, 2.5, None]}) == storage.digest({"b": [1, 2.5, None], "a": 1})
    assert storage.digest({"a": 1}) != storage.digest({"a": 1.0})
    assert storage.digest({"a": [1, 2]}) != storage.digest({"a": [2, 1]})
    with pytest.raises(ValueError):
        storage.digest({"a": math.nan})


def test_digest_of_a_file(tmp_path):
    (tmp_path / "file").write_bytes(b"abc" * 100_000)
    assert storage.sha256_file(tmp_path / "file") == storage.sha256_bytes(b"abc" * 100_000)


# Locks

HOLDER = """
import sys, time
from cifar_lab.storage import FolderLock
with FolderLock(sys.argv[1]):
    print("ready", flush=True)
    time.sleep(60)
"""


def test_a_second_process_is_refused_and_told_who_holds_it(tmp_path):
    with running(HOLDER, tmp_path) as process:
        with pytest.raises(LockedError) as caught, storage.FolderLock(tmp_path):
            pass
        assert f"{tmp_path} in use by pid {process.pid} on " in caught.value.what
        assert caught.value.exit_code == 5
        # the refused one has not spoilt the holder's text
        assert json.loads((tmp_path / storage.LOCK_NAME).read_text())["pid"] == process.pid


def test_a_killed_holder_holds_nothing(tmp_path):
    with running(HOLDER, tmp_path) as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
        with storage.FolderLock(tmp_path):
            holder = json.loads((tmp_path / storage.LOCK_NAME).read_text())
            assert holder["pid"] == os.getpid()


def test_the_kernel_decides_not_the_text(tmp_path):
    """A text left by a dead holder, even one that looks alive, refuses nobody."""
    text = json.dumps({"host": "elsewhere", "pid": os.getpid(), "since": "2020-01-01 00:00:00", "more": "x" * 500})
    (tmp_path / storage.LOCK_NAME).write_text(text)
    with storage.FolderLock(tmp_path):
        assert json.loads((tmp_path / storage.LOCK_NAME).read_text())["host"] != "elsewhere"
        (tmp_path / storage.LOCK_NAME).write_text("")
        with pytest.raises(LockedError, match="in use by another process"), storage.FolderLock(tmp_path):
            pass


def test_a_lock_is_given_back_also_after_an_error(tmp_path):
    with pytest.raises(ZeroDivisionError), storage.FolderLock(tmp_path / "new"):
        1 / 0  # noqa: B018
    with storage.FolderLock(tmp_path / "new"):
        pass


def test_waiting_takes_over_when_the_holder_is_gone(tmp_path):
    with running(HOLDER, tmp_path) as process:
        asked = []

        def stop():
            asked.append(1)
            process.kill()

        with storage.FolderLock(tmp_path, wait=True, stop=stop):
            assert process.wait() != 0
        assert asked


def test_waiting_can_be_given_up(tmp_path):
    def stop():
        raise TimeoutError("enough")

    with storage.FolderLock(tmp_path), pytest.raises(DiskError), storage.FolderLock(tmp_path, wait=True, stop=stop):
        pass
    with storage.FolderLock(tmp_path):
        pass


def test_a_lock_on_a_file_that_has_lost_its_name_is_none(tmp_path, monkeypatch):
    """Another process deletes the file between our opening it and our locking it."""
    real, removed = storage.FolderLock._try, []

    def remove_once(self, descriptor):
        if not removed:
            removed.append(1)
            (tmp_path / storage.LOCK_NAME).unlink()
        return real(self, descriptor)

    monkeypatch.setattr(storage.FolderLock, "_try", remove_once)
    with storage.FolderLock(tmp_path):
        assert removed
        with pytest.raises(LockedError), storage.FolderLock(tmp_path):
            pass


def test_a_holder_may_remove_the_folder_that_others_wait_for(tmp_path):
    folder = tmp_path / "new"
    with contextlib.ExitStack() as held:
        held.enter_context(storage.FolderLock(folder))

        def stop():
            storage.remove_folder(folder)
            held.close()

        with storage.FolderLock(folder, wait=True, stop=stop):
            assert (folder / storage.LOCK_NAME).is_file()
            with pytest.raises(LockedError), storage.FolderLock(folder):
                pass


def test_a_child_process_does_not_inherit_the_lock(tmp_path):
    code = "import time; print('ready', flush=True); time.sleep(30)"
    with storage.FolderLock(tmp_path):
        child = subprocess.Popen([sys.executable, "-c", code], close_fds=False, stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
    try:
        with storage.FolderLock(tmp_path):
            pass
    finally:
        child.kill()
        child.communicate()
