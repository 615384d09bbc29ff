"""Decodes in a terminal: an answer as it settles, its figures, or several decodes side by side."""

import sys
import time
from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text
from transformers import PreTrainedTokenizerBase

from jacobi_forcing.decoding import Finished, Forward
from jacobi_forcing.drawing.text import readable

_FORWARDS_PER_SECOND = 25  # slow enough to follow by eye
_NARROW_COLUMNS = 72  # below this, sides stand above each other
_FEW_TOKENS = 4  # too few to judge tokens per forward by
_NOT_FORCED = 1.15  # tokens per forward: what models without training for it have, at most


def say(piece: str) -> None:
    """Print a piece of an answer at once, after those before it; see `readable` for a terminal."""
    sys.stdout.write(readable(piece) if sys.stdout.isatty() else piece)
    sys.stdout.flush()


def figures(num_tokens: int, num_forwards: int, seconds: float) -> str:
    """Say how fast an answer came, in words; `seconds` include the prefill."""
    tokens, forwards = (
        f"{number} {noun}{'s' * (number != 1)}"
        for number, noun in ((num_tokens, "token"), (num_forwards, "forward"))
    )
    ratio, rate = num_tokens / max(num_forwards, 1), num_tokens / max(seconds, 1e-9)
    return f"{tokens} in {forwards}: {ratio:.2f} tokens per forward, {rate:.1f} tokens per second"


def forcing_hint(strategy: str, num_tokens: int, num_forwards: int) -> str:
    """Say what makes guesses right, where hardly one was; empty elsewhere."""
    guesses = strategy in ("jacobi", "window", "multiblock") and num_tokens >= _FEW_TOKENS
    if not guesses or num_tokens / num_forwards > _NOT_FORCED:
        return ""
    return (
        "About 1 token per forward: this model is not forced, or this text is unlike what it was "
        "forced on. `jacobi force` trains a model for more (docs/force.md)."
    )


class Side:
    """One decode as far as it has come."""

    def __init__(self, title: str, tokenizer: PreTrainedTokenizerBase):
        self.title = title
        self.tokenizer = tokenizer
        self.num_forwards = 0
        self.is_done = False
        self.answer: list[int] = []
        self.num_new = 0  # tokens that the latest forward settled: the last ones of the answer
        self.draft: list[int] = []  # what it said behind its first wrong guess

    def observe(self, event: Forward | Finished) -> None:
        """Take in one event of the decoding loop."""
        if isinstance(event, Finished):
            self.is_done = True
            self.num_new, self.draft = 0, []
            return
        self.num_forwards += 1
        self.num_new = len(event.accepted)
        self.answer += event.accepted
        self.draft = event.tail

    @property
    def counts(self) -> str:
        """Tokens, forwards and their ratio, in words."""
        num_tokens = len(self.answer)
        ratio = num_tokens / self.num_forwards if self.num_forwards else 0.0
        return f"{num_tokens} tokens in {self.num_forwards} forwards, {ratio:.2f} per forward"

    @property
    def text(self) -> Text:
        """The answer so far, coloured and weighted by state."""
        num_old = len(self.answer) - self.num_new
        old, settled = self._decode(self.answer[:num_old]), self._decode(self.answer)
        draft = self._decode(self.answer + self.draft)[len(settled) :]
        return Text.assemble(
            old,
            (settled[len(old) :], "bold black on bright_cyan"),
            # A draft's line breaks would make the view jump.
            (draft.replace("\n", "↵"), "dim italic"),
        )

    def lines(self, console: Console, columns: int) -> list[Text]:
        """Wrap the text to the inside of a panel of that many columns."""
        return list(self.text.wrap(console, columns - 4))

    def panel(self, lines: Sequence[Text], height: int) -> Panel:
        """Draw lines in a box with the counts; where they are too many, their end."""
        return Panel(
            Text("\n").join(lines[2 - height :]),
            height=height,
            title=f"[bold]{self.title}[/bold]",
            title_align="left",
            subtitle=f"{'[green]done[/green]  ' if self.is_done else ''}{self.counts}",
            subtitle_align="left",
            border_style="green" if self.is_done else "blue",
        )

    def _decode(self, ids: Sequence[int]) -> str:
        return readable(self.tokenizer.decode(ids, skip_special_tokens=True))


def watch(console: Console, decodes: Sequence[tuple[Side, Iterator[Forward | Finished]]]) -> None:
    """Run decodes in step, one forward of each at a time, and show them.

    Args:
        console: Where to; plain lines without pauses where it is no terminal.
        decodes: Each side with the loop's events of a single request, taken from lazily: a side's
            next forward runs when its turn comes.
    """
    sides = [side for side, _ in decodes]
    if not console.is_terminal:
        for side, events in decodes:
            for event in events:
                side.observe(event)
            console.print(f"{side.title}: {side.counts}", highlight=False)
            console.print(side.text, "", sep="\n", highlight=False, soft_wrap=True)
        return
    height = 0
    with Live(console=console, auto_refresh=False) as live:
        while not all(side.is_done for side in sides):
            started = time.monotonic()
            for side, events in decodes:
                # The end, which belongs to no forward, takes a turn of its own.
                if not side.is_done:
                    side.observe(next(events))
            table, height = _beside(console, sides, height)
            live.update(table, refresh=True)
            time.sleep(max(0.0, started + 1 / _FORWARDS_PER_SECOND - time.monotonic()))


def _beside(console: Console, sides: Sequence[Side], height: int) -> tuple[Table, int]:
    """Draw all sides equally high, at least `height` so that nothing jumps; return theirs too."""
    is_narrow = console.width < _NARROW_COLUMNS
    columns = console.width if is_narrow else console.width // len(sides)
    wrapped = [side.lines(console, columns) for side in sides]
    # What is higher than the screen cannot be redrawn in place.
    highest = (console.height - 1) // (len(sides) if is_narrow else 1)
    height = max(3, min(highest, max(height, *(len(lines) + 2 for lines in wrapped))))
    panels = [side.panel(lines, height) for side, lines in zip(sides, wrapped, strict=True)]
    table = Table.grid(expand=True)
    if is_narrow:
        table.add_column()
        for panel in panels:
            table.add_row(panel)
    else:
        for _ in panels:
            table.add_column(ratio=1)
        table.add_row(*panels)
    return table, height
