"""Fetch one verified file from the first of several sources that delivers it.

Only https, redirects included. What has arrived is kept and continued, from the same source or
the next; nothing is used before its size and SHA-256 are right.
"""

import http.client
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from cifar_lab import storage
from cifar_lab.data.sets import Progress, Stop
from cifar_lab.errors import DataError, DiskError

_PIECE = 1 << 16
_PROGRESS_EVERY_S = 0.2


@dataclass(frozen=True)
class Remote:
    """A file as it must arrive.

    Args:
        name: File name.
        size: Bytes.
        sha256: 64 hex digits.
    """

    name: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Patience:
    """How long a source may take.

    Args:
        timeout_s: Longest silence.
        floor_bytes_per_s: A source slower than this is left for the next one; if no other delivers, it is taken after all.
        window_s: Time over which speed is measured.
        attempts: Connections to one source before the next is tried.
        pause_s: Wait before another attempt.
    """

    timeout_s: float = 20.0
    floor_bytes_per_s: float = 200_000.0
    window_s: float = 10.0
    attempts: int = 3
    pause_s: float = 1.0


class _SourceError(Exception):
    """This source does not deliver; the next one is asked."""


class _SlowError(_SourceError):
    """This source delivers below the floor."""


class _WrongError(_SourceError):
    """All bytes are here, and they are not the file."""


def require_https(url: str) -> None:
    """Refuse an address that is not https.

    Raises:
        DataError: With the address.
    """
    if urlsplit(url).scheme != "https":
        raise DataError(f"{url} is not an https address; refused")


def is_right(path: Path, remote: Remote) -> bool:
    """Whether a file is there with the right size and SHA-256."""
    return path.is_file() and path.stat().st_size == remote.size and storage.sha256_file(path) == remote.sha256


def download(
    remote: Remote,
    folder: Path,
    sources: Sequence[str],
    *,
    stop: Stop | None = None,
    progress: Progress | None = None,
    check_url: Callable[[str], None] = require_https,
    patience: Patience | None = None,
) -> Path:
    """Fetch ``remote`` into ``folder``. Call it while holding the folder's lock.

    Args:
        remote: What must arrive.
        folder: Where; a partial file waits there as ``NAME.part`` to be continued.
        sources: Addresses in the order in which they are asked.
        stop: Called between pieces; raises to give up, the partial file stays.
        progress: Called with (what, bytes done, bytes in all).
        check_url: Raises ``DataError`` for an address that must not be asked; sees redirects too.
        patience: Time-outs and speed floor.

    Returns:
        The verified file's path.

    Raises:
        DataError: If no source delivers, with each one's reason.
        DiskError: If there is no room for it.
    """
    for url in sources:
        check_url(url)
    attempt = _Download(remote, folder, stop, progress, check_url, patience or Patience())
    attempt.check_space()
    failures: dict[str, str] = {}
    slow: list[str] = []
    for asked, floor in ((sources, attempt.patience.floor_bytes_per_s), (slow, 0.0)):
        for url in asked:
            try:
                return attempt.from_source(url, floor)
            except _SourceError as error:
                failures[url] = str(error)
                if isinstance(error, _SlowError):
                    slow.append(url)
    reasons = ", ".join(f"{urlsplit(url).hostname}: {reason}" for url, reason in failures.items())
    raise DataError(f"every source failed ({reasons or 'data.sources is empty'})")


class _Download:
    """One file on its way: what has arrived so far outlives sources, attempts and runs."""

    def __init__(
        self,
        remote: Remote,
        folder: Path,
        stop: Stop | None,
        progress: Progress | None,
        check_url: Callable[[str], None],
        patience: Patience,
    ):
        self.remote, self.patience = remote, patience
        self.final, self.partial = folder / remote.name, folder / f"{remote.name}.part"
        self.stop, self.progress = stop or (lambda: None), progress or (lambda *_: None)
        self.opener = urllib.request.build_opener(_CheckedRedirects(check_url))

    def have(self) -> int:
        """Bytes that have arrived."""
        return self.partial.stat().st_size if self.partial.exists() else 0

    def check_space(self) -> None:
        """Refuse to begin what cannot end."""
        missing, free = self.remote.size - self.have(), storage.free_bytes(self.partial)
        if free < missing:
            raise DiskError(f"no space for {self.final} (needs {missing // 10**6} MB, {free // 10**6} MB free)")

    def from_source(self, url: str, floor: float) -> Path:
        """Ask one source, and once more from the first byte if the wrong ones may be those found here."""
        inherited = self.have() > 0
        try:
            return self._complete(url, floor)
        except _WrongError:
            if not inherited:
                raise
        return self._complete(url, floor)

    def _complete(self, url: str, floor: float) -> Path:
        """Ask for what is missing, several times if the source breaks off, and verify what has arrived."""
        reason = "no answer"
        for number in range(self.patience.attempts):
            if self.have() >= self.remote.size:
                break
            if number:
                time.sleep(self.patience.pause_s)
            self.stop()
            try:
                self._receive(url, floor)
            except urllib.error.HTTPError as error:
                reason = f"HTTP {error.code}"
                if error.code < 500 and error.code != 429:
                    break
            except (OSError, http.client.HTTPException) as error:
                reason = str(getattr(error, "reason", "")) or str(error) or type(error).__name__
        have = self.have()
        if have < self.remote.size:
            raise _SourceError(reason)
        if not is_right(self.partial, self.remote):
            why = f"size {have} instead of {self.remote.size}" if have != self.remote.size else "sha256 mismatch"
            aside = storage.set_aside(self.partial, f"{url}: {why}")
            raise _WrongError(f"{why}, set aside as {aside.name}")
        storage.finish_partial(self.partial, self.final)
        return self.final

    def _receive(self, url: str, floor: float) -> None:
        """One connection: append what comes until it ends, breaks off or is too slow."""
        have = self.have()
        headers = {"User-Agent": "cifar-lab", "Accept-Encoding": "identity"}
        if have:
            headers["Range"] = f"bytes={have}-"
        request = urllib.request.Request(url, headers=headers)
        try:
            response = self.opener.open(request, timeout=self.patience.timeout_s)
        except DataError as error:
            raise _SourceError(str(error)) from error
        with response, storage.open_partial(self.partial) as stream:
            begun = have if response.status == 206 else 0  # a source that cannot continue a file begins anew
            self._check_answer(response, begun)
            if begun != have:
                with storage.disk_errors(self.partial):
                    stream.truncate(0)
            self._copy(response, stream, begun, floor, urlsplit(url).hostname or url)

    def _check_answer(self, response: Any, have: int) -> None:
        """Refuse an answer that cannot be our file, such as a page that says sorry, before anything is given up for it."""
        size, key = self.remote.size, "Content-Range" if response.status == 206 else "Content-Length"
        offered, expected = response.headers.get(key), f"bytes {have}-{size - 1}/{size}" if response.status == 206 else str(size)
        if offered != expected:
            raise _SourceError(f"answers with {key} {offered} instead of {expected}")

    def _copy(self, response: Any, stream: IO[bytes], have: int, floor: float, host: str) -> None:
        window, shown, counted = time.monotonic(), 0.0, 0
        while have <= self.remote.size:
            self.stop()
            piece = response.read1(_PIECE)
            if not piece:
                break
            with storage.disk_errors(self.partial, self.remote.size - have):
                stream.write(piece)
            have, counted, now = have + len(piece), counted + len(piece), time.monotonic()
            if now - shown >= _PROGRESS_EVERY_S or have == self.remote.size:
                self.progress(f"{self.remote.name} from {host}", have, self.remote.size)
                shown = now
            if now - window >= self.patience.window_s:
                if counted < floor * (now - window) and have < self.remote.size:
                    raise _SlowError(f"only {counted / (now - window) / 1000:.0f} kB/s")
                window, counted = now, 0


class _CheckedRedirects(urllib.request.HTTPRedirectHandler):
    """Redirects may not leave https either."""

    def __init__(self, check_url: Callable[[str], None]):
        self._check_url = check_url

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        """Check the new address before it is asked."""
        self._check_url(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)
