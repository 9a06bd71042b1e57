"""Downloads from a server on this machine that breaks off, lies, dawdles and redirects."""

import hashlib
import time
from pathlib import Path

import pytest

from cifar_lab import storage
from cifar_lab.data.download import Patience, Remote, download, require_https
from cifar_lab.errors import DataError, DiskError, Interrupted

CONTENT = hashlib.shake_256(b"cifar").digest(300_000)
REMOTE = Remote("archive.tar.gz", len(CONTENT), hashlib.sha256(CONTENT).hexdigest())
QUICK = Patience(timeout_s=5.0, window_s=0.1, attempts=3, pause_s=0.01)


def fetch(folder: Path, sources: list[str], **settings) -> Path:
    return download(REMOTE, folder, sources, **{"check_url": lambda url: None, "patience": QUICK, **settings})


def test_a_file_arrives_whole_and_its_progress_is_told(tmp_path, server, page):
    seen = []
    path = fetch(tmp_path, [server.add("a", page(CONTENT))], progress=lambda *call: seen.append(call))
    assert path == tmp_path / "archive.tar.gz"
    assert path.read_bytes() == CONTENT
    assert [entry.name for entry in tmp_path.iterdir()] == ["archive.tar.gz"]
    assert seen[-1] == ("archive.tar.gz from 127.0.0.1", 300_000, 300_000)
    assert server.asked == [("/a", None)]


def test_what_broke_off_is_continued(tmp_path, server, page):
    url = server.add("a", page(CONTENT, break_after=120_000))
    assert fetch(tmp_path, [url]).read_bytes() == CONTENT
    assert server.asked == [("/a", None), ("/a", "bytes=120000-"), ("/a", "bytes=240000-")]


def test_a_pause_comes_before_another_attempt_only(tmp_path, server, page, monkeypatch):
    pauses = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    patience = Patience(pause_s=7.0)
    fetch(tmp_path / "whole", [server.add("whole", page(CONTENT))], patience=patience)
    assert 7.0 not in pauses
    fetch(tmp_path / "parts", [server.add("parts", page(CONTENT, break_after=120_000))], patience=patience)
    assert pauses.count(7.0) == 2  # three connections


def test_what_a_run_left_is_continued_by_the_next(tmp_path, server, page):
    (tmp_path / "archive.tar.gz.part").write_bytes(CONTENT[:250_000])
    assert fetch(tmp_path, [server.add("a", page(CONTENT))]).read_bytes() == CONTENT
    assert server.asked == [("/a", "bytes=250000-")]


def test_what_is_there_already_needs_no_source(tmp_path, server, page):
    (tmp_path / "archive.tar.gz.part").write_bytes(CONTENT)
    assert fetch(tmp_path, [server.add("a", page(status=404))]).read_bytes() == CONTENT
    assert server.asked == []


def test_a_source_that_cannot_continue_begins_anew(tmp_path, server, page):
    (tmp_path / "archive.tar.gz.part").write_bytes(b"x" * 1000)
    assert fetch(tmp_path, [server.add("a", page(CONTENT, ranges=False))]).read_bytes() == CONTENT


def test_the_next_source_continues_what_the_first_began(tmp_path, server, page):
    first = server.add("first", page(CONTENT, break_after=50_000))
    second = server.add("second", page(CONTENT))
    assert fetch(tmp_path, [first, second]).read_bytes() == CONTENT
    assert server.asked[-1] == ("/second", "bytes=150000-")


def test_wrong_bytes_are_set_aside_and_the_next_source_is_asked(tmp_path, server, page):
    wrong = CONTENT[:-1] + b"?"
    first, second = server.add("first", page(wrong)), server.add("second", page(CONTENT))
    assert fetch(tmp_path, [first, second]).read_bytes() == CONTENT
    aside = tmp_path / "archive.tar.gz.part.bad-1"
    assert aside.read_bytes() == wrong
    assert (tmp_path / "archive.tar.gz.part.bad-1.reason.txt").read_text() == f"{first}: sha256 mismatch\n"
    assert server.asked == [("/first", None), ("/second", None)]


def test_a_source_is_not_blamed_for_bytes_that_were_there_before_it(tmp_path, server, page):
    (tmp_path / "archive.tar.gz.part").write_bytes(b"x" * 1000)  # what another server sent, say
    url = server.add("only", page(CONTENT))
    assert fetch(tmp_path, [url]).read_bytes() == CONTENT
    assert server.asked == [("/only", "bytes=1000-"), ("/only", None)]
    assert (tmp_path / "archive.tar.gz.part.bad-1").read_bytes() == b"x" * 1000 + CONTENT[1000:]


def test_a_source_that_is_wrong_from_the_first_byte_is_left_after_one_new_try(tmp_path, server, page):
    (tmp_path / "archive.tar.gz.part").write_bytes(b"x" * 1000)
    url = server.add("only", page(b"?" * len(CONTENT)))
    with pytest.raises(DataError, match=r"sha256 mismatch, set aside as archive.tar.gz.part.bad-2"):
        fetch(tmp_path, [url])
    assert len(server.asked) == 2
    assert not (tmp_path / "archive.tar.gz").exists()


def test_a_file_that_is_too_long_is_not_ours(tmp_path, server, page):
    (tmp_path / "archive.tar.gz.part").write_bytes(CONTENT + b"more")
    assert fetch(tmp_path, [server.add("a", page(CONTENT))]).read_bytes() == CONTENT
    reason = (tmp_path / "archive.tar.gz.part.bad-1.reason.txt").read_text()
    assert reason.endswith("size 300004 instead of 300000\n")


@pytest.mark.parametrize("says_length", [True, False])
def test_a_page_that_says_sorry_costs_nothing_that_has_arrived(says_length, tmp_path, server, page):
    (tmp_path / "archive.tar.gz.part").write_bytes(CONTENT[:200_000])
    sorry = server.add("sorry", page(b"<html>sorry", ranges=False, says_length=says_length))
    good = server.add("good", page(CONTENT))
    assert fetch(tmp_path, [sorry, good]).read_bytes() == CONTENT
    assert server.asked == [("/sorry", "bytes=200000-"), ("/good", "bytes=200000-")]


def test_a_part_of_another_file_is_refused(tmp_path, server, page):
    (tmp_path / "archive.tar.gz.part").write_bytes(CONTENT[:1000])
    url = server.add("a", page(CONTENT + b"longer"))
    with pytest.raises(DataError) as error:
        fetch(tmp_path, [url])
    expected = "answers with Content-Range bytes 1000-300005/300006 instead of bytes 1000-299999/300000"
    assert error.value.what == f"every source failed (127.0.0.1: {expected})"
    assert (tmp_path / "archive.tar.gz.part").read_bytes() == CONTENT[:1000]


def test_a_slow_source_is_left_for_a_faster_one(tmp_path, server, page):
    slow = server.add("slow", page(CONTENT, piece=1000, pause_s=0.02))
    fast = server.add("fast", page(CONTENT))
    assert fetch(tmp_path, [slow, fast], patience=Patience(window_s=0.1, floor_bytes_per_s=200_000)).read_bytes() == CONTENT
    (_, (path, wanted)) = server.asked
    assert path == "/fast", "and the slow one is not asked again"
    assert int(wanted.removeprefix("bytes=").rstrip("-")) >= 1000  # what it did send is kept


def test_a_slow_source_is_taken_if_no_other_delivers(tmp_path, server, page):
    slow = server.add("slow", page(CONTENT, piece=30_000, pause_s=0.03))
    gone = server.add("gone", page(status=410))
    patience = Patience(window_s=0.05, floor_bytes_per_s=10**9)
    assert fetch(tmp_path, [slow, gone], patience=patience).read_bytes() == CONTENT
    assert [path for path, _ in server.asked] == ["/slow", "/gone", "/slow"]


def test_a_silent_source_times_out(tmp_path, server, page):
    silent = server.add("silent", page(CONTENT, piece=1000, pause_s=60.0))
    good = server.add("good", page(CONTENT))
    patience = Patience(timeout_s=1.0, attempts=1)
    assert fetch(tmp_path, [silent, good], patience=patience).read_bytes() == CONTENT
    assert server.asked[-1] == ("/good", "bytes=1000-")


def test_if_every_source_fails_each_ones_reason_is_told(tmp_path, server, page):
    urls = [
        server.add("gone", page(status=404)),
        server.add("down", page(status=503)),
        server.add("short", page(b"x")),
        "http://127.0.0.1:9/nobody-listens-here",
    ]
    with pytest.raises(DataError) as error:
        fetch(tmp_path, urls)
    what = error.value.what
    assert what.startswith("every source failed (127.0.0.1: HTTP 404, 127.0.0.1: HTTP 503, ")
    assert "127.0.0.1: answers with Content-Length 1 instead of 300000, " in what
    assert "Connection refused" in what
    # what may pass is asked again, what will not pass is not
    assert [path for path, _ in server.asked] == ["/gone", "/down", "/down", "/down", "/short"]
    assert not (tmp_path / "archive.tar.gz").exists()
    with pytest.raises(DataError, match=r"^every source failed \(data\.sources is empty\)$"):
        fetch(tmp_path, [])


# https only


@pytest.mark.parametrize("url", ["http://example.org/a", "ftp://example.org/a", "file:///etc/passwd", "example.org/a", ""])
def test_only_https_is_asked(url, tmp_path):
    with pytest.raises(DataError) as error:
        download(REMOTE, tmp_path, [url])
    assert error.value.what == f"{url} is not an https address; refused"
    require_https("https://example.org/a")


def test_one_bad_address_refuses_all_before_any_is_asked(tmp_path, server, page):
    good = server.add("a", page(CONTENT))

    def check(url: str) -> None:
        if url != good:
            require_https(url)

    with pytest.raises(DataError, match=r"is not an https address"):
        fetch(tmp_path, [good, "http://example.org/a"], check_url=check)
    assert server.asked == []


def test_a_redirect_away_from_https_is_not_followed(tmp_path, server, page):
    hidden = server.add("hidden", page(CONTENT))
    allowed = server.add("redirects", page(location=hidden))

    def check(url: str) -> None:
        if url != allowed:
            require_https(url)

    with pytest.raises(DataError) as error:
        fetch(tmp_path, [allowed], check_url=check)
    assert error.value.what == f"every source failed (127.0.0.1: {hidden} is not an https address; refused)"
    assert [path for path, _ in server.asked] == ["/redirects"]
    assert fetch(tmp_path, [allowed]).read_bytes() == CONTENT  # where it is allowed, it is followed


# Stopping, and room on the disk


def test_a_stop_interrupts_and_keeps_what_has_arrived(tmp_path, server, page):
    url = server.add("a", page(CONTENT, piece=20_000, pause_s=0.01))
    calls = []

    def stop() -> None:
        calls.append(1)
        if len(calls) > 4:
            raise Interrupted("while downloading", signum=15)

    with pytest.raises(Interrupted) as error:
        fetch(tmp_path, [url], stop=stop)
    assert error.value.exit_code == 143
    partial = (tmp_path / "archive.tar.gz.part").read_bytes()
    assert 0 < len(partial) < len(CONTENT)
    assert partial == CONTENT[: len(partial)]
    assert fetch(tmp_path, [url]).read_bytes() == CONTENT
    assert server.asked[-1] == ("/a", f"bytes={len(partial)}-")


def test_what_does_not_fit_is_not_begun(tmp_path, server, page, monkeypatch):
    url = server.add("a", page(CONTENT))
    (tmp_path / "archive.tar.gz.part").write_bytes(CONTENT[:100_000])
    monkeypatch.setattr(storage, "free_bytes", lambda path: 199_999)
    with pytest.raises(DiskError, match=r"^no space for .*archive\.tar\.gz \(needs 0 MB, 0 MB free\)$"):
        fetch(tmp_path, [url])
    assert server.asked == []
    monkeypatch.setattr(storage, "free_bytes", lambda path: 200_000)
    assert fetch(tmp_path, [url]).read_bytes() == CONTENT
