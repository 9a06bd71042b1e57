"""Everything that can go wrong and that a person can act on: one class per row of the message table.

``cli`` prints such an error as one line, ``cifar-lab: error[CODE]: what; what was kept``, then a
``hint:`` line, and exits with the class's ``exit_code``. Anything else is a bug (exit code 1).
"""

import os
import signal
import sys
import traceback
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any


class LabError(Exception):
    """A failure with a code, a hint and an exit code.

    Args:
        what: What went wrong and where: the file or the configuration key with its value.
        hint: What the person can do about it; empty for none.
        kept: What is still there and good; empty when nothing was at stake.
    """

    code = "E-BUG"
    exit_code = 1

    def __init__(self, what: str, *, hint: str = "", kept: str = ""):
        super().__init__(what)
        self.what = what
        self.hint = hint
        self.kept = kept

    def line(self) -> str:
        """The one line that a person sees."""
        text = " ".join(f"{self.what}; {self.kept}".split() if self.kept else self.what.split())
        return f"cifar-lab: error[{self.code}]: {text}"

    def record(self) -> dict[str, str]:
        """How it stands in result.json."""
        return {"code": self.code, "message": self.what, "kept": self.kept, "hint": self.hint}

    def alone(self) -> "LabError":
        """The same without its frames and causes, which would keep a run's model and data alive as long as it is kept."""
        self.__cause__ = self.__context__ = None
        return self.with_traceback(None)

    def __reduce__(self):
        """Errors cross process borders in sweeps, with their hint."""
        return _rebuild, (type(self), self.what, self.__dict__)


def _rebuild(kind: type[LabError], what: str, fields: dict[str, Any]) -> LabError:
    error = kind.__new__(kind, what)
    error.args = (what,)
    error.__dict__.update(fields)
    return error


class ConfigError(LabError):
    """A key, value or name in the configuration is not acceptable."""

    code, exit_code = "E-CONFIG", 2


class DataError(LabError):
    """A data set is missing, damaged or not what it claims to be."""

    code, exit_code = "E-DATA", 3


class CheckpointError(LabError):
    """A checkpoint cannot be read, or is not one of ours."""

    code, exit_code = "E-CKPT", 4


class ResumeError(LabError):
    """A run folder belongs to another configuration, code or data set."""

    code, exit_code = "E-RESUME", 4


class CodeError(LabError):
    """Runs of a sweep were made by other code."""

    code, exit_code = "E-CODE", 4


class LockedError(LabError):
    """Another process works in this run folder."""

    code, exit_code = "E-LOCKED", 5


class DiskError(LabError):
    """Writing failed: no space, read-only, no permission."""

    code, exit_code = "E-DISK", 5


class DivergedError(LabError):
    """The loss or a weight is no longer finite."""

    code, exit_code = "E-DIVERGED", 6


class PrunedError(LabError):
    """A run was ended early because others do better; what it measured until then counts."""

    code, exit_code = "E-PRUNED", 6


class ResourceError(LabError):
    """Out of memory, or the asked-for device is not there."""

    code, exit_code = "E-OOM", 7


class DeviceError(ResourceError):
    """The device that was asked for is not there."""

    code = "E-DEVICE"


class DeviceFailedError(DeviceError):
    """The device failed under a run; the process cannot use it any more."""


class KilledError(ResourceError):
    """A run's process died under it."""

    code = "E-KILLED"


class JobTimeoutError(ResourceError):
    """A run took longer than a job of its sweep may."""

    code = "E-TIMEOUT"


class SweepError(LabError):
    """A sweep is over and some of its jobs failed."""

    code, exit_code = "E-SWEEP", 8


class Interrupted(LabError):
    """A signal asked the run to stop; it stopped at a safe point after a checkpoint.

    Args:
        what: Where it stopped.
        signum: The signal: 2 (SIGINT, exit code 130) or 15 (SIGTERM, exit code 143).
    """

    code = "E-STOPPED"

    def __init__(self, what: str, *, signum: int, hint: str = "", kept: str = ""):
        super().__init__(what, hint=hint, kept=kept)
        self.signum = signum
        self.exit_code = 128 + signum


class JobStopped(BaseException):
    """On the way out of a launcher, which takes an ``Exception`` for the failure of one job: the sweep is to stop.

    Args:
        error: What stopped the job.
    """

    def __init__(self, error: Interrupted):
        super().__init__(error.what)
        self.error = error


def report(error: LabError) -> int:
    """Print the error's line and hint to stderr.

    Returns:
        The exit code.
    """
    print(error.line(), file=sys.stderr)
    if error.hint:
        print(f"hint: {error.hint}", file=sys.stderr)
    return error.exit_code


DEBUG: ContextVar[bool] = ContextVar("DEBUG", default=False)
"""Whether a command shows tracebacks on the screen: its ``--debug``."""


def guarded(work: Callable[[], object]) -> int:
    """Do the work of a command and turn whatever goes wrong into one line and an exit code; with ``DEBUG``, tracebacks too."""
    try:
        work()
    except LabError as error:
        if DEBUG.get():
            traceback.print_exc()
        return report(error)
    except KeyboardInterrupt:
        return report(Interrupted("interrupted before there was anything to keep", signum=signal.SIGINT))
    except BrokenPipeError:  # the reader of a pipe such as `| head` is gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if DEBUG.get():
            traceback.print_exc()
        text = f"{type(error).__name__}: {error}"
        return report(LabError(f"this is a bug: {text}", hint="--debug shows the traceback; please report it"))
    return 0
