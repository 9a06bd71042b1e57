"""What a person sees of a run: a bar on a terminal, plain lines anywhere else, and the closing table.

rich honours ``NO_COLOR`` and leaves colours out where the output is no terminal.
"""

import os
import sys
import time
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Table

_BAR_EVERY_S = 0.25
_LINE_EVERY_S = 60.0
_MIB = 2**20
_NEW_STAGE = 2.0  # an epoch that is so many times slower trains what those before kept frozen
_PACE_EPOCHS = 3  # the time that is left follows the pace of the last ones, whatever else the machine did before
_NO_WINDOW = 1000  # characters
_WIDE_CONSOLE = 110  # characters; a narrower one gets a shorter bar


class LabConsole(Console):
    """A console whose reader may leave: behind a closed pipe (`| head`) the work goes on, unseen."""

    def on_broken_pipe(self) -> None:
        """rich would end the process here."""
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def table_console() -> LabConsole:
    """A console for wide tables: folded on a terminal, and whole lines in a pipe or a file, where nobody's window is."""
    console = LabConsole()
    if not console.is_terminal:
        console.width = _NO_WINDOW
    return console


def say(text: str) -> None:
    """Print one line to standard output, as it is."""
    LabConsole().print(text, markup=False, highlight=False, soft_wrap=True)


class Display:
    """Progress of one run on the console.

    Args:
        console: Where it goes; None for standard output.
    """

    def __init__(self, console: Console | None = None):
        self.console = console or LabConsole()
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._epoch = self._epochs = self._batches = self._all_batches = 0
        self._done = self._images = self._images_before = 0
        self._paces: deque[tuple[float, int]] = deque(maxlen=_PACE_EPOCHS)  # when an epoch began, batches done by then
        self._last = ""
        self._next = self._began = self._epoch_began = 0.0
        self._begun_at = 0
        self._loading = ("", 0.0)

    def line(self, text: str) -> None:
        """Print one line, above the bar if there is one; it is never wrapped or read as markup."""
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def loading(self, what: str, done: int, total: int) -> None:
        """Show how far something before the training is, such as a download: bytes or pieces, with speed for bytes.

        A line at the beginning, one at the end, and between them one every few seconds.
        """
        now = time.monotonic()
        name, next_at = self._loading
        if name != what:
            self._loading = (what, now + 2.0)
            self._began, self._begun_at = now, done
            if done < total:
                self.line(f"{what} ...")
            return
        if now < next_at and done < total:
            return
        if done < total or next_at > self._began + 2.0 or now > next_at:
            speed = (done - self._begun_at) / max(now - self._began, 1e-9)
            large = total >= _MIB
            amount = f"{done / 1e6:.1f} of {total / 1e6:.1f} MB, {speed / 1e6:.2f} MB/s" if large else f"{done:,} of {total:,}"
            left = f", {duration((total - done) / speed)} left" if speed > 0 and done < total else ""
            self.line(f"{what}: {100 * done / total:.0f} % ({amount}{left})")
        self._loading = (what, now + 5.0)

    def start_epoch(self, epoch: int, epochs: int, num_batches: int) -> None:
        """Epoch ``epoch`` of ``epochs``, counted from 1, begins."""
        self._epoch, self._epochs, self._batches = epoch, epochs, num_batches
        self._done = self._images = self._images_before = 0
        now = self._epoch_began = time.monotonic()
        if not self._all_batches:
            self._all_batches = epochs * num_batches
            self._start_bar()
        if self._paces:
            if self._seconds_a_batch(now, self._passed())[1]:
                self._paces = deque([self._paces[-1]], _PACE_EPOCHS)
            self._paces.append((now, self._passed()))
        self._next = now + (_BAR_EVERY_S if self._bar else _LINE_EVERY_S)

    def advance(self, batches: int, images: int) -> None:
        """So many more batches and images are done; a clock is read and, a few times a second, the bar is moved.

        The first call of a run says what was done of this epoch before, which does not count as its speed.
        """
        self._done += batches
        self._images += images
        now = time.monotonic()
        if not self._paces:
            self._paces.append((self._epoch_began, self._passed()))
            self._images_before = images
        if now >= self._next:
            self._refresh(now)

    def row(self, row: Mapping[str, Any]) -> None:
        """An epoch is over: print its line."""
        text = f"epoch {row['epoch']:>{len(str(self._epochs))}}/{self._epochs}  {measures(row)}"
        self._last = short_measures(row)
        self.line(f"{text}  lr {row['lr']:.4g}  {row['seconds']:.1f} s  {row['images_per_s']:,.0f} img/s")

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _start_bar(self) -> None:
        if not self.console.is_terminal:
            return
        width = 24 if self.console.width >= _WIDE_CONSOLE else 10
        columns = (TextColumn("epoch {task.fields[epoch]}"), BarColumn(width), TextColumn("{task.fields[text]}"))
        self._bar = Progress(*columns, console=self.console, transient=True, refresh_per_second=4)
        self._task = self._bar.add_task("", total=self._all_batches, epoch=f"1/{self._epochs}", text="")
        self._bar.start()

    def _passed(self) -> int:
        """Batches since the start of the run."""
        return (self._epoch - 1) * self._batches + self._done

    def _seconds_a_batch(self, now: float, passed: int) -> tuple[float, float]:
        """Of the last epochs and this one; and of this one alone where it belongs to a slower stage than they did, else 0."""
        (began, before), (began_epoch, before_epoch) = self._paces[0], self._paces[-1]
        earlier = (began_epoch - began) / max(1, before_epoch - before)
        here = (now - began_epoch) / max(1, passed - before_epoch)
        return (now - began) / max(1, passed - before), here if 0 < _NEW_STAGE * earlier < here else 0.0

    def _refresh(self, now: float) -> None:
        passed = self._passed()
        whole, this_epoch = self._seconds_a_batch(now, passed)
        left = duration((this_epoch or whole) * (self._all_batches - passed))
        speed = (self._images - self._images_before) / max(now - self._epoch_began, 1e-9)
        if self._bar is not None and self._task is not None:
            text = f"{self._last}{'  ' if self._last else ''}{speed:,.0f} images/s  {left} left"
            self._bar.update(self._task, completed=passed, epoch=f"{self._epoch}/{self._epochs}", text=text)
            self._next = now + _BAR_EVERY_S
        else:
            share = 100 * self._done / max(1, self._batches)
            self.line(f"epoch {self._epoch}/{self._epochs}: {share:.0f} % done, {speed:,.0f} images/s, {left} left")
            self._next = now + _LINE_EVERY_S


def measures(row: Mapping[str, Any]) -> str:
    """Losses and accuracies of an epoch's row; what was not measured is left out."""
    return "  ".join(f"{split} loss {loss:.4f} acc {percent:5.2f} %" for split, loss, percent in _measured(row))


def short_measures(row: Mapping[str, Any]) -> str:
    """The same in few characters, for the bar."""
    return "  ".join(f"{split} {loss:.3f} {percent:.1f} %" for split, loss, percent in _measured(row))


def _measured(row: Mapping[str, Any]) -> Iterator[tuple[str, float, float]]:
    """Split, loss and accuracy in percent, of the splits that were measured."""
    for split in ("train", "val"):
        loss, accuracy = row.get(f"{split}_loss"), row.get(f"{split}_accuracy")
        if loss is not None and accuracy is not None:
            yield split, loss, 100 * accuracy


def show_result(result: Mapping[str, Any], folder: str, console: Console | None = None) -> None:
    """The closing table of a run: what was measured on each split, what it cost, where everything is.

    Args:
        result: Content of result.json of a run that is done.
        folder: The run folder, as the person would type it.
        console: None for standard output.
    """
    console = console or LabConsole()
    table = Table(box=None, padding=(0, 2, 0, 0), title=_title(result), title_justify="left", title_style="bold")
    for name in ("", "images", "accuracy", "top 5", "loss", "F1 macro", "ECE"):
        table.add_column(name, justify="right" if name else "left")
    for split, m in result["metrics"].items():
        if m is None:
            continue
        images = sum(c["support"] for c in m["per_class"])
        percents = [f"{100 * m[key]:.2f} %" for key in ("accuracy", "top5")]
        style = "bold" if split == "test" else ""
        table.add_row(split, f"{images:,}", *percents, f"{m['loss']:.4f}", f"{m['f1_macro']:.4f}", f"{m['ece']:.4f}", style=style)
    console.print(table)
    for text in result.get("data", {}).get("notes", ()):
        console.print(f"note: {text}", markup=False, highlight=False, soft_wrap=True)
    console.print(_cost_line(result), markup=False, highlight=False, soft_wrap=True)
    console.print(f"everything is in {escape(folder)}", highlight=False, soft_wrap=True)


def _title(result: Mapping[str, Any]) -> str:
    best = result["best_epoch"]
    chosen = f"weights of epoch {best}" if best else "weights as they were at the start"
    return escape(f"{result['model']} on {result['data']['name']}: {chosen} of {result['epochs_done']}")


def _cost_line(result: Mapping[str, Any]) -> str:
    cost = result["cost"]
    parts = [f"{cost['num_params']:,} parameters", f"{cost['macs'] / 1e6:,.2f} M MACs an image"]
    if cost["train_s"]:
        parts.append(f"trained {duration(cost['train_s'])} at {cost['images_per_s']:,.0f} images/s")
    if cost["peak_memory_mib"]:
        parts.append(f"peak memory {cost['peak_memory_mib']:,.0f} MiB")
    return f"{', '.join(parts)} on {result['device']} in {result['precision']}"


def duration(seconds: float) -> str:
    """``4.2 s``, ``3:07`` (minutes) or ``1:02:07``."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}" if minutes >= 60 else f"{minutes}:{rest:02d}"
