"""A request, and what the decoding loop knows of it while it is in flight."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from jacobi_forcing.decoding.draft import ROOT, Draft
from jacobi_forcing.decoding.sampling import GREEDY, Sampler, Sampling
from jacobi_forcing.decoding.stops import Stop
from jacobi_forcing.decoding.strategies import Strategy
from jacobi_forcing.models import Branches
from jacobi_forcing.models.prefixes import Prefix


class Request(NamedTuple):
    """One prompt to continue."""

    index: int  # names the request in the events
    prompt_ids: Sequence[int]
    max_new_tokens: int  # at least 1
    sampling: Sampling = GREEDY
    stop: Sequence[str] | Stop = ()  # texts that end the answer and stay in it, or any rule
    wants_logprobs: bool = False
    num_alternatives: int = 0  # likeliest tokens that are listed with every logprob
    end_ids: frozenset[int] = frozenset()  # end the answer too, as the model's EOS does


@dataclass(eq=False)
class Row:
    """A request in flight: its text, and which of it the cache does not hold yet."""

    request: Request
    strategy: Strategy
    sampler: Sampler | None  # None where the likeliest token is taken
    stop: Stop | None
    ids: list[int]  # prompt and committed tokens
    pending: list[int]  # the end of `ids` that no forward has seen: the prompt, later one token
    draft: Draft
    prefix: Prefix | None = None  # the beginning of the prompt, where it is known
    num_forwards: int = 0
    end: str = ""  # why it is done, once it is

    @property
    def offset(self) -> int:
        """Tokens of the answer so far."""
        return len(self.ids) - len(self.request.prompt_ids)

    @property
    def budget(self) -> int:
        """Tokens that the answer may still get."""
        return self.request.max_new_tokens - self.offset

    @property
    def answer(self) -> list[int]:
        """The answer so far."""
        return self.ids[len(self.request.prompt_ids) :]

    @property
    def num_cached(self) -> int:
        """Tokens that the cache holds, or will hold once the known beginning is copied."""
        return len(self.ids) - len(self.pending)

    @property
    def branches(self) -> Branches | None:
        """How the draft's branches lie in the forward's input."""
        draft, num_pending = self.draft, len(self.pending)
        if not draft.num_branch_tokens:
            return None
        before = list(range(num_pending))
        ways: list[list[int]] = []
        for node, parent in enumerate(draft.parents, num_pending):
            ways.append([*(before if parent == ROOT else ways[parent]), node])
        ways = ways[draft.num_trunk :]
        first = num_pending + draft.num_trunk
        return Branches(first, positions=[len(way) - 1 for way in ways], ways=ways)
