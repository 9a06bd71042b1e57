"""Signals set a flag; whoever works looks at it at its next safe point."""

import os
import signal
import threading
import time
from types import FrameType
from typing import Any

from cifar_lab.errors import Interrupted

# `timeout` and some schedulers send a signal to the process and to its group: that is one request, heard twice.
ECHO_S = 1.0


class StopFlag:
    """Whether a signal asked to stop, and where it is answered.

    As a context it takes SIGINT and SIGTERM, except where they are ignored on purpose, and SIGUSR2
    where somebody (submitit) has a handler for it. A second signal ends the process at once; the same
    one within ``ECHO_S`` seconds is an echo of the first. Handlers that were there before are called by
    ``check``, at the safe point, so that a cluster's own requeueing still works. Outside the main
    thread, where Python allows no handlers, the flag is only ever set by hand.

    Attributes:
        signum: The signal that asked to stop; 0 for none. Cheap enough to read at every step.
    """

    def __init__(self) -> None:
        self.signum = 0
        self._since = 0.0
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> "StopFlag":
        if threading.current_thread() is threading.main_thread():
            for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2):
                present = signal.getsignal(signum)
                if present is not signal.SIG_IGN and (signum != signal.SIGUSR2 or callable(present)):
                    self._previous[signum] = signal.signal(signum, self._received)
        return self

    def __exit__(self, *exc: object) -> None:
        for signum, handler in self._previous.items():
            # None: a handler that Python did not set and cannot set again.
            signal.signal(signum, signal.SIG_DFL if handler is None else handler)
        self._previous = {}

    def check(self, where: str = "", kept: str = "") -> None:
        """Stop here if a signal asked for it.

        Args:
            where: Where this is, such as ``epoch 3 step 812``.
            kept: What is saved, such as ``last good: step-812``.

        Raises:
            Interrupted: If the flag is set.
        """
        if not self.signum:
            return
        name = signal.Signals(self.signum).name
        error = Interrupted(f"{name}: stopped at {where}" if where else f"{name}: stopped", signum=self.signum, kept=kept)
        error.hint = "the same command continues"
        self._tell_previous(error)
        raise error

    def _tell_previous(self, stopped: Interrupted) -> None:
        """Call the handler that was there before; what it says, if it ends the process or refuses to, is for ``stopped``.

        submitit's exits after it has put the job back into the queue, and raises where it may not. On one machine its exit
        code is what asks for that. Either way the run has stopped and says so itself.
        """
        handler = self._previous.get(self.signum)
        if not callable(handler) or handler is signal.default_int_handler:
            return
        try:
            handler(self.signum, None)
        except SystemExit as ending:
            stopped.hint = "the cluster was asked to run it again; it continues by itself"
            if isinstance(ending.code, int) and ending.code > 0:
                stopped.exit_code = ending.code
        except Exception as error:
            stopped.hint = f"{error} The same command continues"

    def _received(self, signum: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self.signum and not (signum == self.signum and now - self._since < ECHO_S):
            signal.signal(signum, signal.SIG_DFL)
            os.kill(os.getpid(), signum)
        if not self.signum:
            self.signum, self._since = signum, now
