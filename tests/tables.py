"""A language model that is a table, and the decoding loop without a model: for state machines."""

import random

from jacobi_forcing.decoding import Forward
from jacobi_forcing.decoding.draft import settle


def table_model(seed, num_tokens, vocab):
    """Make a model whose next token, below `num_tokens`, follows from the last and third last."""
    rng = random.Random(seed)
    table = {(a, b): rng.randrange(2, num_tokens) for a in range(vocab) for b in range(vocab)}
    return lambda text: table[text[-1], text[-3] if len(text) > 2 else 0]


def greedy(next_token, prompt, num_tokens, eos):
    """Decode one token at a time, which is what every decoder has to give."""
    text = list(prompt)
    for _ in range(num_tokens):
        text.append(next_token(text))
        if text[-1] == eos:
            break
    return text[len(prompt) :]


def table_decode(next_token, strategy, prompt, num_tokens, eos, settle=settle):
    """Run a strategy on a table, forward by forward, without any of the decoding loop.

    Returns:
        The answer's ids and one event per forward.
    """
    text, events = list(prompt), []
    while (offset := len(text) - len(prompt)) < num_tokens and (not offset or text[-1] != eos):
        draft = strategy.propose(text, offset, num_tokens - offset - 1)
        choices = [next_token(text)]
        for node in range(len(draft.tokens)):
            choices.append(next_token(text + [draft.tokens[n] for n in draft.way(node)]))
        path, accepted, tail = settle(draft, choices)
        strategy.observe(accepted, tail)
        if eos in accepted:
            end = accepted.index(eos) + 1
            accepted, tail = accepted[:end], accepted[end:] + tail
        events.append(Forward(0, len(events), offset, draft, path, accepted, tail))
        text += accepted
    return text[len(prompt) :], events
