"""Where branches come from: n-grams that were rejected, or that the text holds already.

A trained model often drafts the right words a few places too early or late. When the text has
caught up, the words that follow the newest committed token in an old state are worth a try beside
the strategy's own draft (rejection recycling, paper 3.2). Pools only look at token ids.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Protocol

MOST_CANDIDATES = 16  # of a text that are looked at: nearly always, few of them bring anything new


class Pool(Protocol):
    """Remembers token sequences and finds continuations in them."""

    def candidates(self, text: Sequence[int]) -> Iterator[Sequence[int]]:
        """Yield guesses at what follows `text` (prompt and committed ids), the best first."""

    def observe(self, state: Sequence[int]) -> None:
        """Remember what a forward said: settled tokens and, behind them, the rejected ones."""


class StatePool:
    """The latest states of the draft, as many as `num_states`.

    The reference keeps the same, but forgets them with every block, leaves out the newest, takes
    only the first place that fits, and uses a candidate only if there is a second one.
    """

    def __init__(self, num_states: int):
        self.num_states = num_states
        self.states: deque[list[int]] = deque(maxlen=num_states)

    def candidates(self, text: Sequence[int]) -> Iterator[Sequence[int]]:
        """Yield what stood behind the newest token, where most of the text before agrees first."""
        found = []
        for age, state in enumerate(reversed(self.states)):
            for place in range(len(state) - 1):
                if state[place] == text[-1]:
                    found.append((-_agreement(state, place, text), age, place, state))
        for _, _, place, state in sorted(found)[:MOST_CANDIDATES]:
            yield state[place + 1 :]

    def observe(self, state: Sequence[int]) -> None:
        """Remember a state."""
        self.states.append(list(state))


def _agreement(state: Sequence[int], place: int, text: Sequence[int]) -> int:
    """Count the tokens up to state[place] that equal the text's last ones; 3 is as good as more."""
    count = 0
    while count < min(3, place + 1, len(text)) and state[place - count] == text[-1 - count]:
        count += 1
    return count


class TextPool:
    """The prompt and the committed text: what followed the last few tokens when they came before.

    By itself this is prompt-lookup decoding, which needs no training; it pays where the answer
    repeats the prompt, as in editing and summarising.
    """

    def __init__(self, ngram_tokens: int = 3):
        self.ngram_tokens = ngram_tokens
        self.latest: dict[tuple[int, ...], int] = {}  # n-gram -> where its last continuation is
        self.num_indexed = ngram_tokens

    def candidates(self, text: Sequence[int]) -> Iterator[Sequence[int]]:
        """Yield what followed the same tokens when they last occurred."""
        n = self.ngram_tokens
        for end in range(self.num_indexed, len(text)):
            self.latest[tuple(text[end - n : end])] = end
        self.num_indexed = max(self.num_indexed, len(text))
        start = self.latest.get(tuple(text[-n:]))
        if start is not None:
            yield text[start:]

    def observe(self, state: Sequence[int]) -> None:
        """Nothing to remember: the text holds it all."""
