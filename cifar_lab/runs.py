"""The run folder: its name, its lock, whose it is, how far it got, and what it left.

Other tools read these folders, so the names are a contract (README, "What a run leaves"). A folder
belongs to one configuration, one state of the code and one state of the data; running again in it
continues, and is refused when one of the three has changed.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import yaml

from cifar_lab import __version__, storage
from cifar_lab.config import Config, flatten, to_plain
from cifar_lab.errors import CheckpointError, LabError, ResumeError

RESULT_SCHEMA = 1
PLACES = (
    *("data.root", "data.download", "data.sources", "device", "threads", "tracker", "sweep", "study"),
    *("train.keep", "train.keep_features", "train.checkpoint_every_s", "train.latency_s"),
)
"""Keys that say where and with what a run runs, not what it computes: no part of the configuration digest."""


def new_run_folder(parent: Path, name: str) -> Path:
    """Create ``parent/<stamp>_<name>`` exclusively, so that two runs never share a folder by accident."""
    while True:
        folder = parent / f"{datetime.now().strftime('%Y-%m-%d_%H-%M-%S-%f')}_{name}"
        try:
            storage.make_folder(folder, exclusive=True)
        except FileExistsError:
            continue
        return folder


def is_place(key: str) -> bool:
    """Whether a dotted key says where and with what a run runs."""
    return any(key == place or key.startswith(f"{place}.") for place in PLACES)


def comparable(plain: dict[str, Any]) -> dict[str, Any]:
    """The part of a configuration that decides what is computed, as dotted keys."""
    return {key: value for key, value in flatten(plain).items() if not is_place(key)}


def without_seed(plain: dict[str, Any]) -> dict[str, Any]:
    """The part that runs share which are repetitions of each other; settings younger than a run are at their defaults in it."""
    return {key: value for key, value in {**_DEFAULTS, **comparable(plain)}.items() if key != "seed"}


_DEFAULTS = comparable(to_plain(Config()))


def config_digest(config: Config) -> str:
    """SHA-256 of what a configuration computes; places and devices do not count."""
    return storage.digest(comparable(to_plain(config)))


def code_digest(plugins: Sequence[Path] = ()) -> str:
    """SHA-256 over the package's version, its source files and the plugin files in use."""
    package = Path(__file__).parent
    total = sha256(__version__.encode())
    for path in [*sorted(package.rglob("*.py")), *plugins]:
        name = path.relative_to(package).as_posix() if path.is_relative_to(package) else path.name
        total.update(name.encode() + b"\0" + path.read_bytes() + b"\0")
    return total.hexdigest()


def differences(old: dict[str, Any], new: dict[str, Any]) -> list[tuple[str, Any, Any]]:
    """Dotted keys whose values differ between two plain configurations, places left out; a setting younger than one of
    them is at its default in it."""
    a, b = ({**_DEFAULTS, **comparable(plain)} for plain in (old, new))
    return [(k, a.get(k), b.get(k)) for k in dict.fromkeys([*a, *b]) if a.get(k) != b.get(k)]


def may_change(difference: tuple[str, Any, Any]) -> bool:
    """Whether a run goes on with this difference: more epochs, or fewer images evaluated at once after it ran out of memory."""
    key, old, new = difference
    if key == "train.epochs":
        return isinstance(old, int) and new > old
    return key == "train.eval_batch_size"


class RunFolder:
    """One run's folder, held by one process at a time.

    Args:
        path: The folder; created when it is not there.

    Raises:
        LockedError: Another process works in it.
        DiskError: It cannot be created.
    """

    def __init__(self, path: Path):
        self.path = path
        self._fresh = not path.is_dir() or not any(path.iterdir())
        storage.make_folder(path)
        self._lock = storage.FolderLock(path)

    def __enter__(self) -> "RunFolder":
        self._lock.__enter__()
        storage.remove_leftovers(self.path)
        return self

    def __exit__(self, *exc: Any) -> None:
        self._discard_if_fresh()
        self._lock.__exit__(*exc)

    def _discard_if_fresh(self) -> None:
        """Take the lock's file away where nothing else was written, so that a refused run leaves nothing.

        The lock is still held: whoever waits for it finds that its file is gone and takes a new one.
        """
        if self._fresh and {p.name for p in self.path.iterdir()} == {storage.LOCK_NAME}:
            (self.path / storage.LOCK_NAME).unlink()

    def config(self) -> dict[str, Any] | None:
        """The plain configuration that the folder belongs to; None for a new folder."""
        return self.config_in(self.path)

    @staticmethod
    def config_in(folder: Path) -> dict[str, Any] | None:
        """The plain configuration that a folder belongs to, without holding it; None where there is none.

        Raises:
            CheckpointError: Its config.yaml is damaged.
        """
        path = folder / "config.yaml"
        if not path.is_file():
            return None
        try:
            plain = yaml.safe_load(path.read_text())
        except (OSError, yaml.YAMLError) as error:
            raise CheckpointError(f"{path} cannot be read: {error}", hint="use another hydra.run.dir") from error
        if not isinstance(plain, dict) or not all(isinstance(plain.get(part), dict) for part in ("data", "model", "train")):
            raise CheckpointError(f"{path} is no configuration of cifar-lab", hint="use another hydra.run.dir")
        return plain

    def result(self) -> dict[str, Any] | None:
        """result.json, when there is one of ours."""
        return self.result_in(self.path)

    @staticmethod
    def result_in(folder: Path) -> dict[str, Any] | None:
        """result.json of a folder, without holding it; None where there is none of ours.

        Raises:
            DataError: It is damaged.
        """
        path = folder / "result.json"
        if not path.is_file():
            return None
        found = storage.read_json(path)
        return found if isinstance(found, dict) and found.get("schema") == RESULT_SCHEMA else None

    def adopt(self, config: Config) -> None:
        """Take over what ``auto`` meant when the run began, so that it means the same when it goes on."""
        old = self.config()
        if old and config.train.precision == "auto":
            config.train.precision = old.get("train", {}).get("precision", "auto")

    def finished(self, config: Config, code: str, *, tested: bool = True) -> dict[str, Any] | None:
        """The result, when this very configuration and code are done here, and the test set was opened if it has to be."""
        result = self.result()
        if result is None or (tested and result.get("test_openings") == 0):
            return None
        return result if is_result_of(result, config, code) else None

    def claim(self, config: Config, code: str, data: str, overrides: Sequence[str]) -> None:
        """Make the folder this run's, or check that it already is; writes config.yaml and overrides.txt.

        Raises:
            ResumeError: The folder holds a run of another configuration, code or data; see ``may_change``.
        """
        plain = to_plain(config)
        old = self.config()
        if old is not None:
            self._same_run(old, plain, {"code": code, "data": data})
        elif not self._fresh and self._holds_a_run():
            raise ResumeError(
                f"{self.path} holds a run without its config.yaml", hint="use another hydra.run.dir", kept="nothing was changed"
            )
        storage.write_text(self.path / "config.yaml", yaml.safe_dump(plain, sort_keys=False, allow_unicode=True))
        storage.write_text(self.path / "overrides.txt", "".join(f"{o}\n" for o in overrides))
        storage.write_json(self.path / "digests.json", {"config": config_digest(config), "code": code, "data": data})

    def _holds_a_run(self) -> bool:
        """Whether more is here than the word of a job that failed before it began."""
        if any((self.path / name).exists() for name in ("checkpoints", "metrics.jsonl")):
            return True
        return (self.path / "result.json").exists() and (self.result() or {}).get("status") != "failed"

    def _same_run(self, old: dict[str, Any], new: dict[str, Any], digests: dict[str, str]) -> None:
        """Refuse another configuration, code or data, naming the first difference."""
        changed = [change for change in differences(old, new) if not may_change(change)]
        kept = f"{self.path} is untouched"
        if changed:
            text = ", ".join(f"{key} differs ({_short(a)} -> {_short(b)})" for key, a, b in changed[:3])
            more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
            raise ResumeError(
                f"{text}{more}",
                kept=kept,
                hint="use another hydra.run.dir, or the settings in its config.yaml;"
                " only train.epochs may grow and train.eval_batch_size change",
            )
        path = self.path / "digests.json"
        before = storage.read_json(path) if path.is_file() else {}
        for what, value in digests.items():
            if before.get(what, value) != value:
                raise ResumeError(
                    f"the {what} differs from what {self.path} was begun with ({before[what][:8]} -> {value[:8]})",
                    kept=kept,
                    hint="use another hydra.run.dir for a new run" + (", or check out the old code" if what == "code" else ""),
                )

    def open_test_set(self) -> int:
        """Count one more opening of the test set, before it is opened.

        Returns:
            How often it has been opened in this folder, this time included.
        """
        path = self.path / "test_openings.json"
        count = (storage.read_json(path)["test_openings"] if path.is_file() else 0) + 1
        storage.write_json(path, {"test_openings": count})
        return count

    def write_result(self, result: dict[str, Any]) -> None:
        """Write result.json; the last thing that a run does."""
        storage.write_json(self.path / "result.json", {"schema": RESULT_SCHEMA, **result})


def read_result(folder: Path) -> dict[str, Any]:
    """result.json of a run; empty where there is none, or none that can be read."""
    try:
        return RunFolder.result_in(folder) or {}
    except LabError:
        return {}


def is_result_of(result: Mapping[str, Any], config: Config, code: str) -> bool:
    """Whether a result is that of a finished run of this very configuration and code."""
    digests = result.get("digests", {})
    same = (digests.get("config"), digests.get("code")) == (config_digest(config), code)
    return result.get("status") == "done" and same


def record_failure(folder: Path, error: LabError) -> None:
    """Leave word of what ended a run, unless it has said so itself; a finished result stays."""
    known = read_result(folder)
    if known.get("status") == "done" or (known.get("error") or {}).get("message") == error.what:
        return
    storage.make_folder(folder)
    record = {**known, "schema": RESULT_SCHEMA, "status": "failed", "metrics": None, "error": error.record()}
    storage.write_json(folder / "result.json", record)


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
