"""One answer as it grows: text without its stop, logprobs, and what every forward did."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from transformers import PreTrainedTokenizerBase

from jacobi_forcing.decoding import Finished, Forward
from jacobi_forcing.decoding.stream import TextStream

_REASONS = {"eos": "stop", "stop": "stop", "length": "length", "time": "length"}


class StopText:
    """Cuts a text before the first stop string; holds back what may become one.

    The loop's stop strings stay in the answer, because whole tokens are committed; in OpenAI's
    interface they do not.
    """

    def __init__(self, stops: Sequence[str]):
        self.stops = stops
        self.held = ""
        self.is_over = False

    def push(self, piece: str) -> str:
        """Take in text; give what is certain to be part of the answer."""
        if self.is_over:
            return ""
        text = self.held + piece
        places = [place for place in map(text.find, self.stops) if place >= 0]
        if places:
            self.is_over, self.held = True, ""
            return text[: min(places)]
        kept = max((_overlap(text, stop) for stop in self.stops), default=0)
        self.held = text[len(text) - kept :]
        return text[: len(text) - kept]

    def finish(self) -> str:
        """Give what was held back."""
        held, self.held = self.held, ""
        return held


def _overlap(text: str, stop: str) -> int:
    """Count the longest end of `text` that `stop` begins with."""
    lengths = range(min(len(text), len(stop) - 1), 0, -1)
    return next((n for n in lengths if text.endswith(stop[:n])), 0)


@dataclass
class Piece:
    """What came out of a choice since the last piece."""

    choice: int
    text: str = ""
    logprobs: list[dict[str, Any]] = field(default_factory=list)
    forward: dict[str, Any] | None = None
    finish_reason: str | None = None


class Choice:
    """Turns the events of one request into pieces of its answer."""

    def __init__(
        self,
        number: int,
        tokenizer: PreTrainedTokenizerBase,
        stops: Sequence[str],
        eos_ids: frozenset[int],
        *,
        show_forwards: bool = False,
    ):
        self.number = number
        self.tokenizer = tokenizer
        self.eos_ids = eos_ids
        self.show_forwards = show_forwards
        self.num_tokens = 0
        self.num_forwards = 0
        self.ended_by = ""  # why it is done, in the loop's words
        self._stream = TextStream(tokenizer)
        self._stop = StopText(stops)

    @property
    def is_done(self) -> bool:
        """Whether its last piece is out."""
        return bool(self.ended_by)

    def push(self, event: Forward | Finished) -> Piece:
        """Take in an event; give what it adds."""
        piece = Piece(self.number)
        if isinstance(event, Forward):
            self.num_forwards += 1
            self.num_tokens += len(event.accepted)
            piece.text = self._stop.push(self._stream.push(event.accepted))
            if event.logprobs is not None:
                piece.logprobs = self._logprobs(event)
            if self.show_forwards:
                piece.forward = self._told(event)
            if not self._stop.is_over:
                return piece
            self.ended_by = "stop"  # what the loop sees as text may differ in special tokens
        else:
            piece.text = self._stop.push(self._stream.finish()) + self._stop.finish()
            self.ended_by = event.reason
        piece.finish_reason = _REASONS[self.ended_by]
        return piece

    def _logprobs(self, event: Forward) -> list[dict[str, Any]]:
        """Tell the logprobs of a forward's tokens as OpenAI's chat does; the end has none."""
        return [
            {
                **self._scored(token, logprob),
                "top_logprobs": [self._scored(*other) for other in others],
            }
            for token, logprob, others in zip(
                event.accepted, event.logprobs, event.alternatives, strict=True
            )
            if token not in self.eos_ids
        ]

    def _scored(self, token: int, logprob: float) -> dict[str, Any]:
        text = self._text(token)
        # Of a token that is a part of a character the text says nothing, and then null is allowed.
        found = None if "\ufffd" in text else list(text.encode())
        return {"token": text, "logprob": logprob, "bytes": found}

    def _told(self, event: Forward) -> dict[str, Any]:
        """Tell a forward as texts of tokens."""
        return {
            "choice": self.number,
            "iteration": event.iteration,
            "offset": event.offset,
            "guesses": [self._text(token) for token in event.guesses],
            "accepted": [self._text(token) for token in event.accepted],
            "tail": [self._text(token) for token in event.tail],
            "num_proposed": event.num_proposed,
            "num_right": len(event.path),
            "num_recycled": event.num_recycled,
        }

    def _text(self, token: int) -> str:
        """Give a token's own text, with the space that a tokenizer takes off a text's first one."""
        text = self.tokenizer.decode([token])
        name = self.tokenizer.convert_ids_to_tokens(token) or ""
        spaced = name[:1] in ("\u2581", "\u0120") and not text.startswith(" ")
        return " " + text if spaced else text
