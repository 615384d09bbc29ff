"""Decode requests from the first to the last, where all of them are at hand."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice

from jacobi_forcing.config import DecoderConfig
from jacobi_forcing.decoding.events import Finished, Forward
from jacobi_forcing.decoding.loop import DecodingLoop, Event
from jacobi_forcing.decoding.request import Request
from jacobi_forcing.decoding.strategies import Strategy
from jacobi_forcing.decoding.width import Width
from jacobi_forcing.models import CausalLM


def decode(
    model: CausalLM,
    requests: Iterable[Request],
    make: Callable[[Request], Strategy],
    *,
    batch_size: int = 1,
    max_tokens: int | None = None,
    branch_tokens: int = DecoderConfig.branch_tokens,
    width: Width | None = None,
    overlaps: bool | None = None,
) -> Iterator[Event]:
    """Decode requests, `batch_size` at a time, and yield what every forward settled.

    Args:
        model: What to decode with.
        requests: Taken from lazily, when there is room.
        make: Makes the strategy of a request.
        batch_size: See DecodingLoop.
        max_tokens: See DecodingLoop.
        branch_tokens: See DecodingLoop.
        width: See DecodingLoop.
        overlaps: See DecodingLoop.

    Raises:
        DataError: See DecodingLoop.add.
    """
    loop = DecodingLoop(
        model,
        batch_size=batch_size,
        max_tokens=max_tokens,
        branch_tokens=branch_tokens,
        width=width,
        overlaps=overlaps,
    )
    waiting = iter(requests)
    while True:
        for request in islice(waiting, loop.num_free):
            loop.add(request, make(request))
        if loop.is_idle:
            return
        yield from loop.step()


def decode_one(
    model: CausalLM,
    prompt_ids: Sequence[int],
    strategy: Strategy,
    max_new_tokens: int,
    on_forward: Callable[[Forward], None] = lambda _: None,
    **more,
) -> tuple[Finished, list[Forward]]:
    """Decode a single prompt; return its answer and what each forward settled.

    `on_forward` is told of each as it happens; `more` are fields of Request.
    """
    request = Request(0, prompt_ids, max_new_tokens, **more)
    events = decode(
        model,
        [request],
        lambda _: strategy,
        max_tokens=len(prompt_ids) + max_new_tokens,
        branch_tokens=strategy.max_branch_tokens,
    )
    forwards: list[Forward] = []
    for event in events:
        if isinstance(event, Finished):
            break
        forwards.append(event)
        on_forward(event)
    return event, forwards
