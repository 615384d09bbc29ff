"""Progress bars with rate and time left; plain lines where the output is not a terminal."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

_PLAIN_SECONDS = 15


class _Plain:
    """A line every so often, for logs."""

    def __init__(self, console: Console, title: str, total: int):
        self.console, self.title, self.total = console, title, total
        self.done = 0
        self.start = self.last = time.monotonic()

    def advance(self, amount: int = 1, note: str = "") -> None:
        self.done += amount
        now = time.monotonic()
        if now - self.last >= _PLAIN_SECONDS:
            self.last = now
            rate = self.done / (now - self.start)
            left = (self.total - self.done) / rate if rate else 0
            self.console.print(
                f"{self.title}: {self.done}/{self.total}, {rate:.1f}/s, {left:.0f} s left {note}",
                highlight=False,
            )


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:.1f}/s" if task.speed else "")


class _Bar:
    def __init__(self, progress: Progress, title: str, total: int):
        self.progress = progress
        self.task = progress.add_task(title, total=total, note="")

    def advance(self, amount: int = 1, note: str = "") -> None:
        self.progress.update(self.task, advance=amount, note=note)


@contextmanager
def progress_bar(title: str, total: int) -> Iterator[_Bar | _Plain]:
    """Show progress on stderr; call `advance(amount, note)` on what this yields."""
    console = Console(file=sys.stderr)
    if not console.is_terminal:
        yield _Plain(console, title, total)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console) as progress:
        yield _Bar(progress, title, total)
