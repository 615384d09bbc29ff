"""Progress on stderr: a bar on a terminal, plain lines elsewhere, both with the time left."""

import math
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

_FIRST_SECONDS, _PLAIN_SECONDS = 5, 15  # until a log gets its second line, and between all others
_SHOWN_SECONDS = 0.1  # between two looks at all answers under way: there may be a thousand


class Bar:
    """What `progress_bar` yields.

    Args:
        title: Begins every line.
        total: Units of work; 0 where they are not counted, and only the time is shown.
        done: Units that an earlier run has done; they say nothing about this run's speed.
        unit: Names what is counted, in the plural.
    """

    def __init__(self, title: str, total: int, done: int = 0, unit: str = ""):
        self.title, self.total, self.unit = title, total, unit
        self.note = ""
        self.begin(done)

    def begin(self, done: int, total: int | None = None) -> None:
        """Start counting: from here on the speed is measured."""
        self.total = self.total if total is None else total
        self.done = done
        self.part = self._first_part = done / max(self.total, 1)
        self._left: float | None = None
        self.start = time.monotonic()

    def advance(self, amount: int = 1, note: str = "") -> None:
        """Count units as done; work is taken to be as much for each."""
        self.show(self.done + amount, note=note)

    def show(
        self,
        done: float,
        *,
        part: float | None = None,
        left: float | None = None,
        note: str = "",
    ) -> None:
        """Say how far the work is.

        Args:
            done: Units that are finished.
            part: Of the whole work, 0..1, with units under way; None for that of `done`.
            left: Seconds that remain; None takes those that the speed so far promises, infinity
                stands for not known.
            note: Shown behind the numbers.
        """
        self.done, self.note, self._left = done, note, left
        self.part = done / max(self.total, 1) if part is None else part

    def line(self, text: str) -> None:
        """Print a line of its own."""

    @property
    def seconds_left(self) -> float | None:
        """The seconds that remain; None while nothing tells."""
        gained = self.part - self._first_part
        if self._left is not None:
            return None if math.isinf(self._left) else self._left
        if gained <= 0:
            return None
        return (time.monotonic() - self.start) * (1 - self.part) / gained

    @property
    def state(self) -> str:
        """How far the work is, in words."""
        left = self.seconds_left
        parts = (
            f"{self.done:g}/{self.total:g} {self.unit}".strip() if self.total else "",
            self.note,
            "" if left is None or self.part >= 1 else f"{duration(left)} left",
        )
        return ", ".join(part for part in parts if part)


class _Plain(Bar):
    """A line at once, then one every so often, also where nothing has moved."""

    def __init__(self, console: Console, *arguments):
        super().__init__(*arguments)
        self.console = console
        self._is_over = threading.Event()
        self._last = time.monotonic()
        self._thread = threading.Thread(target=self._tell, daemon=True)

    def __enter__(self) -> "_Plain":
        self._print()
        self._thread.start()
        return self

    def __exit__(self, error: type | None, *_) -> None:
        self._is_over.set()
        self._thread.join()
        if error is None:
            self._print(f"in {duration(time.monotonic() - self.start)}")

    def line(self, text: str) -> None:
        self._last = time.monotonic()
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def _tell(self) -> None:
        pause = _FIRST_SECONDS
        while not self._is_over.wait(max(0.0, self._last + pause - time.monotonic())):
            if time.monotonic() >= self._last + pause:
                pause = _PLAIN_SECONDS
                self._print(f"{duration(time.monotonic() - self.start)} so far")

    def _print(self, more: str = "") -> None:
        state = ", ".join(part for part in (self.state, more) if part)
        self.line(f"{self.title}{': ' if state else ''}{state}")


class _Drawn(Bar):
    """A bar that is drawn again and again."""

    def __init__(self, progress: Progress, *arguments):
        super().__init__(*arguments)
        self.progress = progress
        self.task = progress.add_task(self.title, total=1.0, state=escape(self.state))

    def show(self, *arguments, **options) -> None:
        super().show(*arguments, **options)
        self.progress.update(self.task, completed=self.part, state=escape(self.state))

    def line(self, text: str) -> None:
        self.progress.console.print(text, highlight=False, markup=False, soft_wrap=True)


@contextmanager
def progress_bar(
    title: str, total: int, done: int = 0, unit: str = "", *, shown: bool = True
) -> Iterator[Bar]:
    """Show progress on stderr; call `advance` or `show` on what this yields.

    Args:
        title: See Bar.
        total: See Bar.
        done: See Bar.
        unit: See Bar.
        shown: False prints nothing, as in all processes but the first.
    """
    console = Console(file=sys.stderr)
    if not shown:
        yield Bar(title, total, done, unit)
    elif not console.is_terminal:
        with _Plain(console, title, total, done, unit) as bar:
            yield bar
    else:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[state]}"),
            TimeElapsedColumn(),
        )
        with Progress(*columns, console=console) as progress:
            yield _Drawn(progress, title, total, done, unit)


def duration(seconds: float) -> str:
    """Write seconds in the unit that suits them: `1.5 h`."""
    for unit, size in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{max(1, round(seconds))} s"


class AnswerProgress:
    """Follows answers token by token, so that a bar moves before the first one is finished.

    An answer ends at every token with the same probability, that with which the answers so far
    have ended, or at its longest. First forwards over prompts are timed apart from the others.

    Args:
        bar: Moved; its units are answers.
        num_waiting: Answers to be made.
        most_tokens: The longest answer.
    """

    def __init__(self, bar: Bar, num_waiting: int, most_tokens: int):
        self.bar, self.num_waiting, self.most_tokens = bar, num_waiting, most_tokens
        self.num_tokens = self._num_ended = self._num_begun = 0
        self._under_way: dict[int, int] = {}  # tokens of each answer that has begun
        self._seconds = {True: 0.0, False: 0.0}  # of first forwards, of all others
        self._last = self._shown = time.monotonic()

    def forward(self, answer: int, num_accepted: int, *, is_first: bool) -> None:
        """Note a forward's tokens of an answer."""
        now = time.monotonic()
        if now - self._shown >= _SHOWN_SECONDS:  # what all answers had before this forward
            self._show()
        self._seconds[is_first] += now - self._last
        self._last = now
        if is_first:
            self._under_way[answer] = 0
            self._num_begun += 1
        self._under_way[answer] += num_accepted
        self.num_tokens += num_accepted

    def finished(self, answer: int, *, at_end: bool) -> None:
        """Note that an answer is finished; `at_end` where it ended before its longest.

        One that no forward was noted of, as of another process, only counts as finished.
        """
        is_known = self._under_way.pop(answer, None) is not None
        self.num_waiting -= not is_known
        self._num_ended += at_end and is_known
        self.bar.done += 1
        self._show()

    def tokens_left(self) -> float:
        """Tokens that are expected of the answers under way and of those that wait."""
        chance = self._num_ended / max(self.num_tokens, 1)

        def expected(most: int) -> float:
            return -math.expm1(-chance * most) / chance if chance else most

        waiting = (self.num_waiting - self._num_begun) * expected(self.most_tokens)
        return waiting + sum(
            expected(max(0, self.most_tokens - num)) for num in self._under_way.values()
        )

    def _show(self) -> None:
        self._shown = time.monotonic()
        others = self.num_tokens - self._num_begun  # a first forward settles one token, as a rule
        rate = self.num_tokens / max(sum(self._seconds.values()), 1e-9)
        tokens = self.tokens_left()
        left = None if self._num_begun == 0 else math.inf
        if others > 0 and self._num_begun:
            of_prompts = self._seconds[True] / self._num_begun
            left = (self.num_waiting - self._num_begun) * of_prompts
            left += tokens * self._seconds[False] / others
        self.bar.show(
            self.bar.done,
            part=self._part_of(tokens),
            left=left,
            note=f"{self.num_tokens:,} tokens, {rate:.1f}/s" if self.num_tokens else "",
        )

    def _part_of(self, tokens_left: float) -> float:
        """Give the part of the bar: what was done before this run, and this run's tokens."""
        before = 1 - self.num_waiting / max(self.bar.total, 1)
        return before + (1 - before) * self.num_tokens / max(self.num_tokens + tokens_left, 1)
