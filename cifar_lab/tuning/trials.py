"""One worker's loop: take a trial, run it as any other run but with the test set shut, tell how it ended."""

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cifar_lab import memory, pipeline, runs, schema, storage
from cifar_lab.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    DeviceError,
    DeviceFailedError,
    DiskError,
    DivergedError,
    Interrupted,
    LabError,
    LockedError,
    PrunedError,
    ResourceError,
)
from cifar_lab.processes import Slot
from cifar_lab.tuning.desk import Desk, Taken
from cifar_lab.tuning.methods import require_optuna
from cifar_lab.tuning.search import Search, load_search

_OF_THE_MACHINE = (DeviceError.code, DiskError.code, DataError.code, CheckpointError.code, LockedError.code)
"""What ended a run through no fault of its settings: it goes on when that is mended."""
_OF_THE_TRIAL = (ConfigError, DivergedError, ResourceError)
"""What the values of a trial may be to blame for; anything else would end every trial, and ends the search."""
_OVER = ("pruned", "failed", "diverged")


def work(where: str, most: int, until: float, slot: Slot) -> LabError | None:
    """Run trials until none is left; in a worker's process.

    Args:
        where: The search's folder.
        most: Trials of the whole search.
        until: Seconds since the epoch after which no new trial begins.
        slot: What this worker may use.

    Returns:
        What stopped it; None if nothing did.
    """
    try:
        require_optuna()
        search = load_search(Path(where))
        desk = Desk(Path(where), search)
        while (taken := desk.take(most, new=time.time() < until)) is not None:
            run_trial(desk, search, taken, slot)
    except LabError as error:
        return error
    return None


def run_trial(desk: Desk, search: Search, taken: Taken, slot: Slot | None = None) -> None:
    """Run one trial to its end, whatever that is, and tell the desk.

    Args:
        desk: Where it was taken.
        search: It is a part of.
        taken: The trial.
        slot: What it may use.

    Raises:
        Interrupted: A signal came; whoever asks next goes on with the trial.
        LabError: Something is wrong that no other trial would escape; likewise.
    """
    slot = slot or Slot()
    try:
        config = schema.compose(taken.overrides, search.config_dir)
        slot.place(config)
        result = _known(taken.folder) if taken.again else {}
        if not result:
            result = pipeline.run(
                config, taken.folder, taken.overrides, in_sweep=True, shared=slot.shared, test=False, judge=_judge(search, taken)
            )
    except PrunedError:
        desk.give_back(taken, pruned=True)
    except DeviceFailedError:
        desk.drop(taken)  # perhaps by this trial, which must not end every search that goes on with it
        raise
    except DeviceError:
        desk.put_down(taken)
        raise
    except _OF_THE_TRIAL as error:
        desk.give_back(taken, error=f"{error.code} {error.what}")
    except (LabError, KeyboardInterrupt) as error:
        desk.put_down(taken)
        if isinstance(error, KeyboardInterrupt):
            raise Interrupted("interrupted", signum=2) from error
        raise
    except Exception as error:
        desk.give_back(taken, error=f"{LabError.code} {type(error).__name__}: {error}")
    else:
        _tell(desk, search, taken, result)
    finally:
        memory.give_back()


def _judge(search: Search, taken: Taken) -> Callable[[dict[str, Any]], None]:
    """Tell Optuna of every epoch, and end the run where it says so."""

    def judge(row: dict[str, Any]) -> None:
        value = row[search.metric]
        if value is None and row["epoch"] % search.base["train"]["eval_every_epochs"] == 0:
            raise _unjudged(search)
        if value is None or not math.isfinite(value):
            return
        if taken.report(row["epoch"], value):
            raise PrunedError(f"pruned after epoch {row['epoch']}: other trials were better by then")

    return judge


def _unjudged(search: Search) -> DataError:
    hint = "data.val_fraction=0.1 holds some out of training; it is another search, so also --name NAME"
    return DataError(f"data={search.base['data']['name']} brings no validation images, on which trials are judged", hint=hint)


def _known(folder: Path) -> dict[str, Any]:
    """What a run said before its worker died without telling; empty for one that is to go on."""
    path = folder / "result.json"
    result = storage.read_json(path) if path.is_file() else {}
    if (result.get("error") or {}).get("code") in _OF_THE_MACHINE:
        return {}
    return result if result.get("schema") == runs.RESULT_SCHEMA and result.get("status") in _OVER else {}


def _tell(desk: Desk, search: Search, taken: Taken, result: dict[str, Any]) -> None:
    if result["status"] != "done":
        error = result.get("error") or {}
        pruned = result["status"] == "pruned"
        desk.give_back(taken, pruned=pruned, error="" if pruned else f"{error.get('code')} {error.get('message')}")
        return
    if result["metrics"]["val"] is None:  # known only now of a folder, or of a person's own data set
        desk.put_down(taken)
        raise _unjudged(search)
    value = result["metrics"]["val"][search.measure]
    if value is None or not math.isfinite(value):
        desk.give_back(taken, error=f"E-DIVERGED {search.metric} is {value}")
    else:
        desk.give_back(taken, value=value)
