"""Who works on which trial: the desk hands them out one by one and takes the results, for workers on any number of machines.

Optuna's record of the trials is a file that all workers append to. Beside it there is a lock for each trial, held by
whoever works on it: a trial that is begun and that nobody holds was left by a worker that stopped or died, and the next
one who asks goes on with it, in its folder, with its values.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cifar_lab import storage
from cifar_lab.errors import LockedError
from cifar_lab.tuning.methods import build_pruner, build_sampler
from cifar_lab.tuning.search import JOURNAL, LOCKS, TRIALS, Search

MOST_DEATHS = 3
"""A trial under which so many workers died one after the other, without an epoch between them, is given up."""
_DEATHS, _SEEN, _ERROR = "deaths", "epochs_seen", "error"


class JournalLock:
    """The lock of Optuna's file: ours, which the kernel takes from a dead holder at once.

    Whoever has it finds whole lines: a last one that a crash or a full disk left half written, which Optuna would refuse
    the file for as soon as another stands behind it, is cut off.

    Args:
        folder: Where the lock's file is.
        path: Optuna's file.
    """

    def __init__(self, folder: Path, path: Path):
        self._folder, self._path = folder, path
        self._held: storage.FolderLock | None = None

    def acquire(self) -> bool:
        """Wait for it."""
        self._held = storage.FolderLock(self._folder, wait=True)
        self._held.__enter__()
        try:
            storage.cut_half_line(self._path)
        except BaseException:
            self.release()
            raise
        return True

    def release(self) -> None:
        """Let go."""
        assert self._held is not None
        self._held.__exit__()
        self._held = None


@dataclass
class Taken:
    """A trial in somebody's hands.

    Attributes:
        trial: Optuna's.
        number: From 0.
        folder: Its run folder.
        overrides: The fixed ones and its own.
        own: Its own alone.
        again: Whether somebody worked on it before.
        deaths: How many workers have died under it since its last epoch.
        lock: Held until it is handed back.
    """

    trial: Any
    number: int
    folder: Path
    overrides: list[str]
    own: list[str]
    again: bool
    deaths: int
    lock: storage.FolderLock

    def report(self, epoch: int, value: float) -> bool:
        """Tell of an epoch; whether the trial should end there."""
        known = self.trial.study.get_trials(deepcopy=False)[self.number].intermediate_values
        if epoch not in known:  # a run that was killed goes on from before its last report
            self.trial.report(value, epoch)
        return self.trial.should_prune()


class Desk:
    """A search's trials.

    Args:
        where: The search's folder.
        search: What it searches.
    """

    def __init__(self, where: Path, search: Search):
        import optuna

        self.where, self.search = where, search
        with self._alone():
            storage_of_all = _journal(where / JOURNAL, JournalLock(where / LOCKS / "journal", where / JOURNAL))
            pruner = build_pruner(search.pruner, search.base["train"]["epochs"])
            methods: Any = {"sampler": optuna.samplers.RandomSampler(), "pruner": pruner}
            if storage_of_all.get_all_studies():
                self.study = optuna.load_study(study_name=search.name, storage=storage_of_all, **methods)
            else:
                direction = "maximize" if search.direction == "maximize" else "minimize"
                self.study = optuna.create_study(study_name=search.name, storage=storage_of_all, direction=direction, **methods)

    def trials(self) -> list[Any]:
        """All of them as they are now, in the order of their numbers."""
        return self.study.get_trials(deepcopy=False)

    def take(self, most: int, *, new: bool = True) -> Taken | None:
        """A trial to work on: one that was left, else a new one.

        Args:
            most: Trials of the whole search.
            new: Whether new ones may begin.

        Returns:
            None when nothing is left to begin.
        """
        from optuna.trial import TrialState

        with self._alone():
            known = self.trials()
            for frozen in known:
                if frozen.state == TrialState.RUNNING and (lock := self._lock(frozen.number)) is not None:
                    if taken := self._left(frozen, lock):
                        return taken
                    lock.__exit__()
            if len(known) >= most or not new:
                return None
            number = len(known)
            lock = self._lock(number)
            assert lock is not None, "trials begin one at a time"
            self.study.sampler = build_sampler(self.search.sampler, self.search.space, self.search.seed, number)
            return self._taken(self.study.ask(), lock, again=False, deaths=0)

    def give_back(self, taken: Taken, *, value: float | None = None, pruned: bool = False, error: str = "") -> None:
        """Take a trial's result: its value, that it was pruned, or what made it fail."""
        import optuna

        state = optuna.trial.TrialState
        try:
            if error:
                taken.trial.set_user_attr(_ERROR, error)
            # After a trial a sampler of a grid wants to stop Optuna's own loop, which there is none of.
            self.study.sampler = optuna.samplers.RandomSampler()
            if value is not None:
                self.study.tell(taken.trial, value)
            else:
                self.study.tell(taken.trial, state=state.PRUNED if pruned else state.FAIL)
        finally:
            taken.lock.__exit__()

    def put_down(self, taken: Taken) -> None:
        """Leave a trial to whoever asks next; its worker stopped in good order."""
        try:
            taken.trial.set_user_attr(_DEATHS, taken.deaths)
        finally:
            taken.lock.__exit__()

    def drop(self, taken: Taken) -> None:
        """Leave a trial to whoever asks next; its worker's process is of no use any more, as if it had died."""
        taken.lock.__exit__()

    def _left(self, frozen: Any, lock: storage.FolderLock) -> Taken | None:
        """Take over what nobody holds, unless it has ended since it was looked at or too many have died under it."""
        from optuna.trial import Trial, TrialState

        frozen = self.trials()[frozen.number]  # as its last holder left it
        if frozen.state != TrialState.RUNNING:
            return None
        deaths = int(frozen.user_attrs.get(_DEATHS, 0))
        if len(frozen.intermediate_values) > frozen.user_attrs.get(_SEEN, 0):
            deaths = min(deaths, 1)  # it got on: whatever ended its workers before, it was not this trial
        self.study.sampler = build_sampler(self.search.sampler, self.search.space, self.search.seed, frozen.number)
        taken = self._taken(Trial(self.study, frozen._trial_id), lock, again=True, deaths=deaths)
        if deaths >= MOST_DEATHS:
            self.give_back(taken, error=f"E-KILLED {MOST_DEATHS} workers died under it")
            return None
        return taken

    def _taken(self, trial: Any, lock: storage.FolderLock, *, again: bool, deaths: int) -> Taken:
        """Draw what has not been drawn, and count a death, which is taken back where the worker lives on."""
        params = {d.key: d.suggest(trial) for d in self.search.space.dimensions}
        trial.set_user_attr(_SEEN, len(trial.study.get_trials(deepcopy=False)[trial.number].intermediate_values))
        trial.set_user_attr(_DEATHS, deaths + 1)
        own = self.search.space.overrides(params)
        folder = trial_folder(self.where, trial.number)
        return Taken(trial, trial.number, folder, [*self.search.fixed, *own], own, again, deaths, lock)

    def _alone(self) -> storage.FolderLock:
        return storage.FolderLock(self.where / LOCKS / "desk", wait=True)

    def _lock(self, number: int) -> storage.FolderLock | None:
        """The lock of a trial; None where somebody holds it."""
        lock = storage.FolderLock(self.where / LOCKS / f"{number:04d}")
        try:
            lock.__enter__()
        except LockedError:
            return None
        return lock


def trial_folder(where: Path, number: int) -> Path:
    """``trials/0007``."""
    return where / TRIALS / f"{number:04d}"


def what_failed(trial: Any) -> str:
    """Code and message of a failed trial."""
    return trial.user_attrs.get(_ERROR, "E-NONE it left no result")


def _journal(path: Path, lock: Any) -> Any:
    """Optuna's storage in a file; what the disk refuses is said as everywhere.

    Raises:
        DiskError: At any change of a trial that cannot be written.
    """
    from optuna.storages.journal import JournalFileBackend, JournalStorage

    class Journal(JournalFileBackend):
        def append_logs(self, logs: list[dict[str, Any]]) -> None:
            with storage.disk_errors(path):
                super().append_logs(logs)

    lock.acquire()  # whole lines before the first reading
    lock.release()
    return JournalStorage(Journal(str(path), lock))


def ended(trials: Sequence[Any]) -> list[Any]:
    """Those that are over, however they ended."""
    return [trial for trial in trials if trial.state.is_finished()]
