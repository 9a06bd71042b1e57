"""What several data tests share: a small CIFAR in the official layout, and a web server on this machine."""

import hashlib
import http.server
import io
import pickle
import struct
import tarfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from cifar_lab.config import DataConfig
from cifar_lab.data import cifar
from cifar_lab.data.cifar_files import CIFAR10, Layout
from cifar_lab.data.download import Remote
from cifar_lab.data.sets import Source
from cifar_lab.storage import sha256_bytes


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """These tensors are small, and threads that wait for each other on a busy machine cost more than they bring."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


_RECONSTRUCT = np.empty(0).__reduce__()[0]


class Python2Pickler(pickle._Pickler):
    """Writes what Python 2 wrote: byte strings as such, and numpy's functions under their old address."""

    dispatch: ClassVar = dict(pickle._Pickler.dispatch)

    def save_bytes(self, value: bytes) -> None:
        head = b"U" + bytes([len(value)]) if len(value) < 256 else b"T" + struct.pack("<i", len(value))
        self.write(head + value)
        self.memoize(value)

    dispatch[bytes] = save_bytes

    def save_global(self, value: Any, name: str | None = None) -> None:
        if value is _RECONSTRUCT:
            self.write(b"cnumpy.core.multiarray\n_reconstruct\n")
            self.memoize(value)
        else:
            super().save_global(value, name)


def python2_pickle(value: Any) -> bytes:
    stream = io.BytesIO()
    Python2Pickler(stream, protocol=2).dump(value)
    return stream.getvalue()


@dataclass(frozen=True)
class FakeCifar:
    """A layout of two training files of 20 pictures and a test file of 10, with its files and its archive."""

    layout: Layout
    files: dict[str, bytes]
    archive: bytes
    images: np.ndarray
    labels: list[int]

    def with_file(self, name: str, content: bytes) -> "FakeCifar":
        """The same with another file that carries the right digests, as if it had been published."""
        return pack(self.layout, {**self.files, name: content}, self.images, self.labels)

    def lay_out(self, root: Path) -> Path:
        """Write the batch files into a folder, as torchvision leaves them."""
        folder = root / self.layout.folder
        folder.mkdir(parents=True)
        for name, content in self.files.items():
            (folder / name).write_bytes(content)
        return folder

    def load(self, root: Path, batches: Sequence[int] = (1, 2), stop=None, progress=None, **settings) -> Source:
        """Load it as CIFAR-10 is loaded."""
        config = DataConfig(**{"root": str(root), "download": False, **settings})
        return cifar._load(self.layout, config, batches, stop, progress)


def pack(layout: Layout, files: dict[str, bytes], images: np.ndarray, labels: list[int]) -> FakeCifar:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name, content in {**files, "readme.html": b"hello"}.items():
            member = tarfile.TarInfo(f"{layout.folder}/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
        for name in ("../escaped", "/escaped", f"{layout.folder}/../escaped"):  # what extraction by name would write elsewhere
            member = tarfile.TarInfo(name)
            member.size = 4
            tar.addfile(member, io.BytesIO(b"evil"))
        link = tarfile.TarInfo(f"{layout.folder}/data_batch_1")  # in place of a file of ours
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    archive = packed.getvalue()
    md5 = {name: hashlib.md5(content).hexdigest() for name, content in files.items()}
    remote = Remote(layout.remote.name, len(archive), sha256_bytes(archive))
    return FakeCifar(replace(layout, md5=md5, remote=remote), files, archive, images, labels)


@pytest.fixture
def fake_cifar() -> FakeCifar:
    generator = np.random.default_rng(5)
    images = generator.integers(0, 256, (50, 3072), dtype=np.uint8)
    labels = [int(label) for label in generator.permutation(np.arange(50) % 10)]
    parts = {"data_batch_1": slice(0, 20), "data_batch_2": slice(20, 40), "test_batch": slice(40, 50)}
    files = {name: python2_pickle({b"data": images[rows], b"labels": labels[rows]}) for name, rows in parts.items()}
    files["batches.meta"] = python2_pickle({b"label_names": [f"class{k}".encode() for k in range(10)]})
    layout = replace(CIFAR10, train=("data_batch_1", "data_batch_2"), rows=20, test_rows=10, root_variable="")
    return pack(layout, files, images, labels)


@dataclass
class Page:
    """How the server answers one path.

    Args:
        content: The whole body.
        break_after: Bytes after which each connection breaks off; None: never.
        piece: Bytes sent at once, ``pause_s`` apart; None: all.
        ranges: Whether a part can be asked for.
        status: Other than 200: an error without a body.
        location: Redirect to this address.
        says_length: Whether Content-Length is sent.
    """

    content: bytes = b""
    break_after: int | None = None
    piece: int | None = None
    pause_s: float = 0.0
    ranges: bool = True
    status: int = 200
    location: str | None = None
    says_length: bool = True


@dataclass
class Server:
    """Pages by path, the address of each, and what was asked for so far: (path, Range header)."""

    address: str
    pages: dict[str, Page]
    asked: list[tuple[str, str | None]]

    def add(self, name: str, page: Page) -> str:
        self.pages[f"/{name}"] = page
        return f"{self.address}/{name}"


class _Handler(http.server.BaseHTTPRequestHandler):
    pages: dict[str, Page]
    asked: list[tuple[str, str | None]]

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.asked.append((self.path, wanted))
        page = self.pages[self.path]
        first = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and page.ranges else 0
        body = page.content[first:]
        self.send_response(302 if page.location else 206 if first else page.status)
        if page.location:
            self.send_header("Location", page.location)
        if first:
            self.send_header("Content-Range", f"bytes {first}-{len(page.content) - 1}/{len(page.content)}")
        if page.says_length:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if page.location or page.status != 200:
            return
        body = body[: page.break_after]
        step = page.piece or max(1, len(body))
        for start in range(0, len(body), step):
            try:
                self.wfile.write(body[start : start + step])
                self.wfile.flush()
            except OSError:  # the other side has gone
                return
            time.sleep(page.pause_s)

    def log_message(self, *args: Any) -> None:
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[Server]:
    pages: dict[str, Page] = {}
    asked: list[tuple[str, str | None]] = []
    handler = type("Handler", (_Handler,), {"pages": pages, "asked": asked})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as web:
        threading.Thread(target=web.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        yield Server(f"http://127.0.0.1:{web.server_address[1]}", pages, asked)
        web.shutdown()


@pytest.fixture
def page() -> Callable[..., Page]:
    return Page


@pytest.fixture
def python2() -> Callable[[Any], bytes]:
    return python2_pickle
