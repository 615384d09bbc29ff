"""What the decoding loop tells its readers: collecting, evaluating and drawing live off these."""

from typing import NamedTuple

from jacobi_forcing.decoding.draft import Draft


class Forward(NamedTuple):
    """What one forward pass settled for one request."""

    request: int  # index of the request
    iteration: int  # 0 is the prefill
    offset: int  # answer tokens committed before this forward
    draft: Draft  # N guessed tokens, for answer positions from offset on
    path: list[int]  # nodes of the draft that were right, 0 to N
    accepted: list[int]  # ids committed by this forward: those nodes' tokens and one more
    tail: list[int]  # the model's choices for the places behind them, right or wrong
    logprobs: list[float] | None = None  # of the accepted ids, in nats, where asked for
    alternatives: list[list[tuple[int, float]]] | None = None  # the likeliest ids, and theirs

    @property
    def guesses(self) -> list[int]:
        """The strategy's own guesses, without branches."""
        return self.draft.trunk

    @property
    def num_proposed(self) -> int:
        """Guessed tokens, branches included."""
        return len(self.draft.tokens)

    @property
    def num_recycled(self) -> int:
        """Right guesses that only a branch had."""
        return sum(node >= self.draft.num_trunk for node in self.path)

    @property
    def num_wasted(self) -> int:
        """Guesses that were wrong, or right behind a wrong one."""
        return self.num_proposed - len(self.path)

    @property
    def by_source(self) -> dict[int, tuple[int, int]]:
        """Count proposed and right guesses of every block (0, 1, ...) and branch (-1, -2, ...)."""
        counts: dict[int, tuple[int, int]] = {}
        for node, source in enumerate(self.draft.sources):
            proposed, right = counts.get(source, (0, 0))
            counts[source] = (proposed + 1, right + (node in self.path))
        return counts


class Finished(NamedTuple):
    """A request is done; its answer is final."""

    request: int
    answer_ids: list[int]  # the EOS included where there is one
    reason: str  # "eos", "stop" (a stop string), "length" (the budget is spent), "cancelled"
    num_forwards: int  # the prefill included
